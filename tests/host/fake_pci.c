#include "tests/host/fake_pci.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESET_US 100000u
#define D3_US    10000u /* to D0 */

static void fault(struct fake_pci *pci, const char *format, ...)
{
    va_list args;
    if (pci->faults++)
        return;
    va_start(args, format);
    vsnprintf(pci->fault, sizeof(pci->fault), format, args);
    va_end(args);
}

void fake_pci_put(struct fake_pci_function *f, uint32_t offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++)
        f->space[offset + i] = (uint8_t)(value >> (8 * i));
}

uint32_t fake_pci_get(const struct fake_pci_function *f, uint32_t offset, unsigned size)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)f->space[offset + i] << (8 * i);
    return value;
}

static void allow(struct fake_pci_function *f, uint32_t offset, unsigned size, uint32_t mask)
{
    for (unsigned i = 0; i < size; i++)
        f->mask[offset + i] = (uint8_t)(mask >> (8 * i));
}

struct fake_pci_function *fake_pci_find(struct fake_pci *pci, uint16_t bdf)
{
    for (uint32_t i = 0; i < pci->count; i++)
        if (pci->f[i].bdf == bdf && !pci->f[i].removed)
            return &pci->f[i];
    return NULL;
}

/* ---- behaviour ---- */

static bool is_on(const struct fake_pci_function *f)
{
    return f->sriov && (fake_pci_get(f, f->sriov + PCI_SRIOV_CONTROL, 2) & PCI_SRIOV_CONTROL_VFE);
}

static void remove_vfs(struct fake_pci *pci, int pf)
{
    for (uint32_t i = 0; i < pci->count; i++)
        if (pci->f[i].pf == pf)
            pci->f[i].removed = true;
}

static void set_offset(struct fake_pci_function *f, uint16_t with_ari)
{
    bool ari = fake_pci_get(f, f->sriov + PCI_SRIOV_CONTROL, 2) & PCI_SRIOV_CONTROL_ARI;
    if (f->offset_without_ari)
        fake_pci_put(f, f->sriov + PCI_SRIOV_OFFSET, 2, ari ? with_ari : f->offset_without_ari);
}

static void make_vfs(struct fake_pci *pci, int pf)
{
    struct fake_pci_function *f = &pci->f[pf];
    uint32_t num = fake_pci_get(f, f->sriov + PCI_SRIOV_NUM, 2);
    uint32_t offset = fake_pci_get(f, f->sriov + PCI_SRIOV_OFFSET, 2);
    uint32_t stride = fake_pci_get(f, f->sriov + PCI_SRIOV_STRIDE, 2);
    if (f->refuses_vfs || num > fake_pci_get(f, f->sriov + PCI_SRIOV_TOTAL, 2)) {
        f->space[f->sriov + PCI_SRIOV_CONTROL] &= (uint8_t)~PCI_SRIOV_CONTROL_VFE;
        return;
    }
    for (uint32_t i = 0; i < num && pci->count < FAKE_PCI_MAX; i++) {
        struct fake_pci_function *vf = &pci->f[pci->count++];
        memset(vf, 0, sizeof(*vf));
        vf->bdf = (uint16_t)(f->bdf + offset + i * stride);
        vf->pf = pf;
        vf->reset_us = RESET_US;
        vf->ready_us = vf->quiet_us = pci->now_us + RESET_US;
        memcpy(vf->space, f->vf_space, sizeof(f->vf_space));
        fake_pci_finish(vf);
    }
}

static void reset(struct fake_pci *pci, struct fake_pci_function *f)
{
    f->resets++;
    if (fake_pci_get(f, PCI_REG_COMMAND, 2) & PCI_COMMAND_MASTER)
        fault(pci, "%04x: reset while a bus master", f->bdf);
    if (pci->now_us < f->pending_end)
        fault(pci, "%04x: reset while transactions are pending", f->bdf);
    if (f->pm && (fake_pci_get(f, f->pm + PCI_PM_CONTROL, 2) & PCI_PM_CONTROL_STATE))
        fault(pci, "%04x: reset while in D3", f->bdf);
    if (is_on(f) && !f->keeps_vfs)
        remove_vfs(pci, (int)(f - pci->f));
    for (unsigned i = 0; i < sizeof(f->space); i++)
        if (!f->keeps_vfs || !f->sriov || i < f->sriov || i >= f->sriov + PCI_SRIOV_SIZE)
            f->space[i] &= (uint8_t)~f->mask[i];
    if (f->bars_stuck)
        memset(f->mask + PCI_REG_BAR0, 0, 4 * PCI_BARS);
    f->quiet_us = pci->now_us + RESET_US;
    f->ready_us = f->never_returns ? UINT64_MAX : pci->now_us + f->reset_us;
}

/* What is behind a bridge whose bus is held in reset: it begins to come back when that ends. */
static void reset_bus(struct fake_pci *pci, const struct fake_pci_function *bridge)
{
    for (uint32_t i = 0; i < pci->count; i++)
        if (pci->f[i].bdf >> 8 == bridge->space[PCI_REG_BUSES + 1])
            reset(pci, &pci->f[i]);
}

static void check_sizing(struct fake_pci *pci, const struct fake_pci_function *f, uint32_t offset,
                         unsigned size, uint32_t value)
{
    uint32_t decoders = PCI_COMMAND_IO | PCI_COMMAND_MEMORY;
    unsigned bars = (f->space[0xe] & PCI_HEADER_TYPE) == 0 ? 6 : 2;
    if (offset >= PCI_REG_BAR0 && offset < PCI_REG_BAR0 + 4 * bars && size == 4 && value == ~0u &&
        (fake_pci_get(f, PCI_REG_COMMAND, 2) & decoders))
        fault(pci, "%04x: BAR at %x sized with its decoder on", f->bdf, offset);
}

static void check_sriov(struct fake_pci *pci, const struct fake_pci_function *f, uint32_t offset)
{
    uint32_t at = offset - f->sriov;
    if (!f->sriov || offset < f->sriov || at >= PCI_SRIOV_SIZE || !is_on(f))
        return;
    if (at == PCI_SRIOV_NUM || at == PCI_SRIOV_PAGE || at >= PCI_SRIOV_BAR0)
        fault(pci, "%04x: SR-IOV register %x written while VFs are on", f->bdf, at);
}

static void after_write(struct fake_pci *pci, struct fake_pci_function *f, uint32_t offset, bool was_on,
                        bool was_master, uint32_t written)
{
    bool master = fake_pci_get(f, PCI_REG_COMMAND, 2) & PCI_COMMAND_MASTER;
    if (was_master && !master)
        f->pending_end = pci->now_us + f->pending_us;
    if ((f->pcie && offset == f->pcie + PCI_EXP_DEVCTL && (written & PCI_EXP_DEVCTL_FLR) &&
         (f->pf >= 0 || (fake_pci_get(f, f->pcie + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR))) ||
        (f->af && offset == f->af + PCI_AF_CONTROL && (written & PCI_AF_CONTROL_FLR)))
        reset(pci, f);
    if ((f->space[0xe] & PCI_HEADER_TYPE) == 1 && offset == PCI_REG_BRIDGE_CONTROL) {
        if (written & PCI_BRIDGE_CONTROL_RESET)
            f->held_us = pci->now_us;
        else if (f->held_us && pci->now_us - f->held_us >= 1000)
            reset_bus(pci, f);
        else
            fault(pci, "%04x: bus reset of less than 1 ms", f->bdf);
    }
    if (f->sriov && offset == f->sriov + PCI_SRIOV_CONTROL) {
        if (!was_on && is_on(f))
            make_vfs(pci, (int)(f - pci->f));
        if (was_on && !is_on(f))
            remove_vfs(pci, (int)(f - pci->f));
        set_offset(f, f->offset_without_ari ? 0x80 : 0);
    }
}

static struct fake_pci_function *reach(struct fake_pci *pci, uint16_t bdf, uint32_t offset, unsigned size)
{
    struct fake_pci_function *f = fake_pci_find(pci, bdf);
    if ((size != 1 && size != 2 && size != 4) || offset % size || offset + size > PCI_CONFIG_SIZE)
        fault(pci, "%04x: %u bytes at %x", bdf, size, offset);
    else if (f && pci->now_us < f->quiet_us)
        fault(pci, "%04x: looked at %llu us too early", bdf, (unsigned long long)(f->quiet_us - pci->now_us));
    if (!f || pci->now_us < f->ready_us || (offset >= PCI_LEGACY_SIZE && (f->legacy || pci->no_extended)))
        return NULL;
    return f;
}

static uint32_t config_read(void *ctx, uint16_t bdf, uint32_t offset, unsigned size)
{
    struct fake_pci *pci = ctx;
    struct fake_pci_function *f = reach(pci, bdf, offset, size);
    pci->reads++;
    if (!f)
        return size == 4 ? ~0u : (1u << (8 * size)) - 1;
    uint32_t value = fake_pci_get(f, offset, size);
    if (pci->now_us < f->pending_end) {
        if (f->pcie && offset == f->pcie + PCI_EXP_DEVSTA)
            value |= PCI_EXP_DEVSTA_TRPND;
        if (f->af && offset == f->af + PCI_AF_STATUS)
            value |= PCI_AF_STATUS_TRPND;
    }
    return value;
}

static void config_write(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    struct fake_pci *pci = ctx;
    struct fake_pci_function *f = reach(pci, bdf, offset, size);
    pci->writes++;
    if (!f)
        return;
    bool was_on = is_on(f), was_master = fake_pci_get(f, PCI_REG_COMMAND, 2) & PCI_COMMAND_MASTER;
    bool slept = f->pm && (fake_pci_get(f, f->pm + PCI_PM_CONTROL, 2) & PCI_PM_CONTROL_STATE);
    check_sizing(pci, f, offset, size, value);
    check_sriov(pci, f, offset);
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = f->mask[offset + i];
        f->space[offset + i] =
            (uint8_t)((f->space[offset + i] & ~mask) | ((uint8_t)(value >> (8 * i)) & mask));
    }
    if (slept && !(fake_pci_get(f, f->pm + PCI_PM_CONTROL, 2) & PCI_PM_CONTROL_STATE))
        f->quiet_us = pci->now_us + D3_US;
    after_write(pci, f, offset, was_on, was_master, value);
}

/* ---- what can be written ---- */

void fake_pci_bar(struct fake_pci_function *f, uint32_t offset, uint64_t size)
{
    uint32_t value = fake_pci_get(f, offset, 4);
    uint64_t bits = ~(size - 1);
    bool io = value & PCI_BAR_FLAG_IO;
    allow(f, offset, 4, (uint32_t)bits & (io ? 0xfffcu : PCI_BAR_MEMORY_ADDRESS));
    if (!io && (value & PCI_BAR_FLAG_TYPE) == PCI_BAR_FLAG_64)
        allow(f, offset + 4, 4, (uint32_t)(bits >> 32));
}

static void finish_cap(struct fake_pci_function *f, uint16_t id, uint16_t at)
{
    switch (id) {
    case PCI_CAP_MSIX:
        allow(f, at + PCI_MSIX_CONTROL, 2, PCI_MSIX_CONTROL_ENABLE | PCI_MSIX_CONTROL_MASK);
        break;
    case PCI_CAP_AF:
        f->af = at;
        break;
    case PCI_CAP_PM:
        f->pm = at;
        allow(f, at + PCI_PM_CONTROL, 2, PCI_PM_CONTROL_STATE);
        break;
    case PCI_CAP_PCIE:
        f->pcie = at;
        if (f->pf < 0) {
            allow(f, at + PCI_EXP_DEVCTL, 2, 0x7fff);
            allow(f, at + 0x10, 2, 0x0fff);
            allow(f, at + PCI_EXP_DEVCTL2, 2, 0xffff);
        }
        break;
    }
}

static void finish_ext_cap(struct fake_pci_function *f, uint16_t id, uint16_t at)
{
    if (id == PCI_EXT_ACS && !f->acs_stuck)
        allow(f, at + PCI_ACS_CONTROL, 2, fake_pci_get(f, at + PCI_ACS_CAPS, 2));
    if (id != PCI_EXT_SRIOV)
        return;
    f->sriov = at;
    allow(f, at + PCI_SRIOV_CONTROL, 2,
          PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE | PCI_SRIOV_CONTROL_ARI);
    allow(f, at + PCI_SRIOV_NUM, 2, 0xffff);
    allow(f, at + PCI_SRIOV_PAGE, 4, fake_pci_get(f, at + PCI_SRIOV_PAGES_SUPPORTED, 4));
}

void fake_pci_finish(struct fake_pci_function *f)
{
    bool bridge = (f->space[0xe] & PCI_HEADER_TYPE) == 1;
    /* A VF as QEMU makes it: bus mastering, and memory decoding that it needs. */
    allow(f, PCI_REG_COMMAND, 2, f->pf >= 0 ? PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY : 0x0547);
    if (f->pf < 0) {
        allow(f, PCI_REG_HEADER, 1, 0xff);
        allow(f, PCI_REG_INTERRUPT, 1, 0xff);
    }
    if (bridge)
        allow(f, PCI_REG_BUSES, 3, 0xffffff), allow(f, PCI_REG_BRIDGE_CONTROL, 2, 0x0fff);
    uint8_t next = f->space[PCI_REG_CAPABILITIES];
    for (unsigned left = 48; next >= 0x40 && left; left--, next = f->space[next + 1u] & 0xfc)
        finish_cap(f, f->space[next], next);
    uint32_t at = PCI_REG_EXTENDED;
    for (unsigned left = 960; !f->legacy && at >= PCI_REG_EXTENDED && fake_pci_get(f, at, 4) && left;
         left--) {
        finish_ext_cap(f, (uint16_t)fake_pci_get(f, at, 2), (uint16_t)at);
        at = fake_pci_get(f, at, 4) >> 20 & ~3u;
    }
}

struct fake_pci_function *fake_pci_add(struct fake_pci *pci, uint16_t bdf, uint16_t vendor, uint16_t device,
                                       uint32_t class_code, uint8_t header)
{
    if (pci->count == FAKE_PCI_MAX)
        abort();
    struct fake_pci_function *f = &pci->f[pci->count++];
    memset(f, 0, sizeof(*f));
    f->bdf = bdf;
    f->pf = -1;
    f->reset_us = RESET_US;
    fake_pci_put(f, PCI_REG_ID, 4, (uint32_t)device << 16 | vendor);
    fake_pci_put(f, PCI_REG_CLASS, 4, class_code << 8);
    f->space[0xe] = header;
    return f;
}

/* ---- time and memory ---- */

static uint64_t now_us(void *ctx)
{
    return ((struct fake_pci *)ctx)->now_us;
}

static void delay_us(void *ctx, uint32_t us)
{
    ((struct fake_pci *)ctx)->now_us += us;
}

static void *dma_alloc(void *ctx, uint32_t pages, hpa_t *at)
{
    return NULL; /* nothing here wants it */
}

void fake_pci_init(struct fake_pci *pci)
{
    memset(pci, 0, sizeof(*pci));
    pci->now_us = 1;
    pci->cfg = (struct pci_config){pci, config_read, config_write};
    pci->env = (struct dev_env){pci, now_us, delay_us, dma_alloc};
}

/* ---- files ---- */

static bool read_row(uint8_t *space, unsigned size, const char *line)
{
    char *at;
    unsigned long offset = strtoul(line, &at, 16);
    if (*at++ != ':')
        return false;
    for (; *at && *at != '\n'; offset++) {
        char *end;
        unsigned long byte = strtoul(at, &end, 16);
        if (end == at || byte > 255 || offset >= size)
            return false;
        space[offset] = (uint8_t)byte;
        at = end;
    }
    return true;
}

static bool read_line(struct fake_pci *pci, struct fake_pci_function **f, const char *line)
{
    unsigned bus, device, function, index;
    unsigned long long size;
    if (line[0] == '#' || line[0] == '\n')
        return true;
    if (sscanf(line, "function %x:%x.%x", &bus, &device, &function) == 3) {
        if (*f)
            fake_pci_finish(*f);
        *f = fake_pci_add(pci, PCI_BDF(bus, device, function), 0, 0, 0, 0);
        return true;
    }
    if (!*f)
        return false;
    if (strcmp(line, "legacy\n") == 0)
        return (*f)->legacy = true;
    if (sscanf(line, "bar %u %llx", &index, &size) == 2) {
        fake_pci_bar(*f, PCI_REG_BAR0 + 4 * index, size);
        return index < PCI_BARS;
    }
    if (sscanf(line, "vfbar %u %llx", &index, &size) == 2) {
        for (unsigned at = 0x100; at < 0x1000 && !(*f)->sriov; at += 4)
            if (fake_pci_get(*f, at, 2) == PCI_EXT_SRIOV && fake_pci_get(*f, at + 2, 2))
                (*f)->sriov = (uint16_t)at;
        fake_pci_bar(*f, (*f)->sriov + PCI_SRIOV_BAR0 + 4 * index, size);
        return index < PCI_BARS && (*f)->sriov;
    }
    if (sscanf(line, "vf-offset-without-ari %x", &index) == 1) {
        (*f)->offset_without_ari = (uint16_t)index;
        return true;
    }
    if (strncmp(line, "vf ", 3) == 0)
        return read_row((*f)->vf_space, sizeof((*f)->vf_space), line + 3);
    return read_row((*f)->space, sizeof((*f)->space), line);
}

bool fake_pci_load(struct fake_pci *pci, const char *path)
{
    char line[256];
    struct fake_pci_function *f = NULL;
    FILE *file = fopen(path, "r");
    bool good = file != NULL;
    fake_pci_init(pci);
    while (good && fgets(line, sizeof(line), file))
        good = read_line(pci, &f, line);
    if (f)
        fake_pci_finish(f);
    if (file)
        fclose(file);
    return good && pci->count;
}
