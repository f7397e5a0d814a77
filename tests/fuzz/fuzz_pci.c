/* Configuration spaces of any contents, which may also change from read to read: every walk ends, nothing is
 * written but what sizing, resets and SR-IOV are allowed to write, and what the inventory says obeys its
 * bounds. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/pci/pci.h"
#include "drivers/pci/pci_read.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define FUNCTIONS 24u
#define SPACE     1024u /* what the input can fill; the rest is 0 */
#define ROW       34u   /* of the input: function, 16-byte block, flag, bytes */

static struct function {
    uint16_t bdf;
    bool moody; /* registers from 0x40 on answer from the input, whatever was written */
    uint8_t space[4096];
} functions[FUNCTIONS];
static uint32_t function_count;

static const uint8_t *moods;
static size_t mood_count, mood_at;
static uint64_t accesses, now_us;
static enum { SCANNING, CONTROL, WORKING } phase;

static struct function *find(uint16_t bdf)
{
    for (uint32_t i = 0; i < function_count; i++)
        if (functions[i].bdf == bdf)
            return &functions[i];
    return NULL;
}

static void check_access(uint32_t offset, unsigned size)
{
    CHECK(size == 1 || size == 2 || size == 4);
    CHECK(offset % size == 0 && offset + size <= PCI_CONFIG_SIZE);
    CHECK(++accesses < 8000000);
}

/* From device 16 on all are VFs, which the last function's bytes stand for: they have no ids. */
static struct function *reach(uint16_t bdf, uint32_t offset)
{
    if (BDF_DEVICE(bdf) >= 16 && offset >= PCI_REG_COMMAND)
        return &functions[FUNCTIONS - 1];
    return find(bdf);
}

static uint32_t config_read(void *ctx, uint16_t bdf, uint32_t offset, unsigned size)
{
    struct function *f = reach(bdf, offset);
    uint32_t value = 0;
    check_access(offset, size);
    if (!f)
        return size == 4 ? ~0u : (1u << (8 * size)) - 1;
    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = f->space[offset + i];
        if (f->moody && offset >= PCI_HEADER_SIZE && mood_count && (mood_at & 3) == 3)
            byte ^= moods[mood_at % mood_count];
        value |= (uint32_t)byte << (8 * i);
    }
    mood_at++;
    return value;
}

/* While scanning: the command register (decoders off and as before), BARs of the header, and of SR-IOV. */
static bool may_write(const struct function *f, uint32_t offset, unsigned size)
{
    if (offset == PCI_REG_COMMAND && size == 2)
        return true;
    if (offset >= PCI_REG_BAR0 && offset < PCI_REG_BAR0 + 4 * PCI_BARS && size == 4)
        return (f->space[0xe] & PCI_HEADER_TYPE) < 2;
    return offset >= PCI_REG_EXTENDED && size == 4; /* VF BARs, if they are put back */
}

/* What a BAR makes of a write: its kind stays, and it has 16 KiB. */
static uint32_t as_bar(const struct function *f, uint32_t offset, uint32_t value)
{
    bool upper = (f->space[offset - 4] & 7) == PCI_BAR_FLAG_64 && offset != PCI_REG_BAR0;
    return upper ? value : (value & ~0x3fffu) | ((f->space[offset] | f->space[offset + 1] << 8) & 0x3fffu);
}

static void config_write(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    struct function *f = reach(bdf, offset);
    check_access(offset, size);
    if (!f)
        return;
    if (phase == SCANNING)
        CHECK(may_write(f, offset, size));
    CHECK(offset != PCI_REG_COMMAND || size == 2); /* an AF capability that is not there would begin here */
    if (offset == PCI_REG_COMMAND && phase != WORKING) /* nobody becomes a bus master */
        CHECK(!(value & ~(uint32_t)f->space[PCI_REG_COMMAND] & PCI_COMMAND_MASTER));
    if (size == 4 && offset >= PCI_REG_BAR0)
        value = as_bar(f, offset, value);
    /* Everything can be written but ids and the header type: the worst of devices. */
    for (unsigned i = 0; i < size; i++)
        if (offset + i >= PCI_REG_COMMAND && offset + i != 0xe)
            f->space[offset + i] = (uint8_t)(value >> (8 * i));
}

static const struct pci_config cfg = {.read = config_read, .write = config_write};

static uint64_t env_now(void *ctx)
{
    return now_us;
}

static void env_delay(void *ctx, uint32_t us)
{
    now_us += us;
}

static const struct dev_env env = {.now_us = env_now, .delay_us = env_delay};

/* ---- properties ---- */

static void check_device(const struct pci_inventory *inv, uint32_t i)
{
    const struct pci_device *dev = &inv->devices[i];
    CHECK(dev->parent == PCI_NO_PARENT || dev->parent < inv->count);
    if (dev->parent != PCI_NO_PARENT) {
        CHECK(inv->devices[dev->parent].secondary);
        CHECK(dev->is_vf || BDF_BUS(dev->bdf) == inv->devices[dev->parent].secondary);
        CHECK(dev->parent < i); /* no loops upwards */
    }
    CHECK(dev->group <= i && inv->devices[dev->group].group == dev->group);
    for (unsigned k = 0; k < PCI_BARS; k++) {
        const struct pci_bar *bar = &dev->bars[k];
        CHECK((bar->size & (bar->size - 1)) == 0);
        CHECK(bar->kind <= PCI_BAR_MEM64_PREFETCH);
        CHECK(!pci_bar_is_64(bar->kind) || (k + 1 < PCI_BARS && dev->bars[k + 1].kind == PCI_BAR_NONE));
    }
    if (dev->msix_count) {
        const struct pci_bar *table = &dev->bars[dev->msix_bar], *pba = &dev->bars[dev->msix_pba_bar];
        CHECK(dev->msix_bar < PCI_BARS && dev->msix_pba_bar < PCI_BARS && dev->msix_count <= 2048);
        CHECK(!table->size || dev->msix_offset + dev->msix_count * 16ull <= table->size);
        CHECK(!pba->size || dev->msix_pba_offset + (dev->msix_count + 63) / 64 * 8ull <= pba->size);
    }
    static const struct {
        size_t at;
    } legacy[] = {{offsetof(struct pci_device, pm)},
                  {offsetof(struct pci_device, msi)},
                  {offsetof(struct pci_device, msix)},
                  {offsetof(struct pci_device, pcie)},
                  {offsetof(struct pci_device, af)}};
    for (unsigned k = 0; k < sizeof(legacy) / sizeof(legacy[0]); k++) {
        uint8_t at = *((const uint8_t *)dev + legacy[k].at);
        CHECK(at == 0 || (at >= PCI_HEADER_SIZE && at % 4 == 0));
    }
    CHECK(dev->sriov_cap == 0 ||
          (dev->sriov_cap >= PCI_REG_EXTENDED && dev->sriov_cap + PCI_SRIOV_SIZE <= PCI_CONFIG_SIZE));
}

static void check_inventory(const struct pci_inventory *inv)
{
    char line[100];
    CHECK(inv->count <= inv->capacity);
    for (uint32_t i = 0; i < inv->count; i++) {
        const struct pci_device *dev = &inv->devices[i];
        check_device(inv, i);
        for (uint32_t k = 0; k < i; k++)
            CHECK(inv->devices[k].bdf != dev->bdf);
        bool good = pci_verdict(inv, dev, line, sizeof(line));
        CHECK(!good || (!pci_group_mate(inv, dev, NULL) && pci_can_reset(inv, dev)));
        for (uint32_t n = 0; pci_detail(inv, dev, n % 2 ? "a" : NULL, n, line, sizeof(line)); n++)
            CHECK(n < 64 && strlen(line) < sizeof(line));
    }
}

/* VFs' BARs: where they were put nothing else is, and the bridge leads there. */
static void check_vfs(const struct pci_inventory *inv, const struct pci_device *pf)
{
    CHECK(pf->sriov.count && pf->sriov.count <= pf->sriov.total);
    for (unsigned n = 0; n < pf->sriov.count; n++) {
        const struct pci_device *vf = pci_find_vf(inv, pf->bdf, (uint16_t)n);
        CHECK(vf && vf->bdf == pf->bdf + pf->sriov.offset + n * pf->sriov.stride);
        for (unsigned i = 0; i < PCI_BARS; i++) {
            const struct pci_bar *bar = &vf->bars[i];
            if (bar->kind == PCI_BAR_NONE)
                continue;
            CHECK(bar->base && bar->size >= 4096 && bar->base % bar->size == 0);
            for (uint32_t k = 0; k < inv->count; k++) {
                const struct pci_device *dev = &inv->devices[k];
                for (unsigned b = 0; b < PCI_BARS; b++) {
                    const struct pci_bar *other = &dev->bars[b];
                    if (other != bar && other->kind > PCI_BAR_IO && other->base && other->size)
                        CHECK(bar->base + bar->size <= other->base || other->base + other->size <= bar->base);
                }
            }
            if (vf->parent == PCI_NO_PARENT)
                continue;
            const struct pci_window *w = inv->devices[vf->parent].windows;
            CHECK((bar->base >= w[PCI_WINDOW_MEMORY].base &&
                   bar->base + bar->size - 1 <= w[PCI_WINDOW_MEMORY].limit) ||
                  (bar->base >= w[PCI_WINDOW_PREFETCH].base &&
                   bar->base + bar->size - 1 <= w[PCI_WINDOW_PREFETCH].limit));
        }
    }
}

/* ---- the input ---- */

/* Where functions can be: two slots on the root bus with all functions, and buses 1 to 3. */
static uint16_t place(unsigned i)
{
    return (uint16_t)(i < 16 ? i : ((i - 16) % 3 + 1) << 8 | (i - 16) / 3 << 3);
}

static void load(const uint8_t *data, size_t size)
{
    memset(functions, 0, sizeof(functions));
    function_count = FUNCTIONS;
    for (uint32_t i = 0; i < FUNCTIONS; i++) {
        functions[i].bdf = place(i);
        memset(functions[i].space, 0xff, 4);
    }
    for (; size >= ROW; data += ROW, size -= ROW) {
        struct function *f = &functions[data[0] % FUNCTIONS];
        f->moody = data[1] & 0x80;
        memcpy(f->space + data[1] % (SPACE / 32) * 32u, data + 2, 32);
    }
    moods = data;
    mood_count = size;
    mood_at = 0;
    accesses = now_us = 0;
}

static void scan_twice(struct pci_inventory *inv)
{
    static struct function before[FUNCTIONS];
    memcpy(before, functions, sizeof(before));
    bool moody = false;
    for (uint32_t i = 0; i < FUNCTIONS; i++)
        moody |= functions[i].moody;
    phase = SCANNING;
    (void)pci_scan(inv, &cfg);
    CHECK(inv->dropped == 0 || inv->count == inv->capacity);
    if (!moody) /* all that sizing wrote was put back */
        CHECK(memcmp(before, functions, sizeof(before)) == 0);
    check_inventory(inv);
}

static void work(struct pci_inventory *inv)
{
    char why[200];
    phase = CONTROL;
    pci_acs_enable(inv, &cfg);
    check_inventory(inv);
    pci_quiesce(inv, &cfg, true);
    for (uint32_t i = 0; i < inv->count; i++) {
        uint64_t begin = now_us;
        why[0] = 0;
        if (pci_reset(inv, &cfg, &env, &inv->devices[i], why, sizeof(why)) != STATUS_OK)
            CHECK(why[0]);
        CHECK(now_us - begin < 13000000);
    }
    uint32_t count = inv->count;
    for (uint32_t i = 0; i < count; i++) {
        struct pci_device *pf = &inv->devices[i];
        uint64_t begin = now_us;
        why[0] = 0;
        if (pci_sriov_enable(inv, &cfg, &env, pf, (uint16_t)(1 + i % 4), why, sizeof(why)) != STATUS_OK) {
            CHECK(why[0] && pf->sriov.count == 0);
        } else {
            check_vfs(inv, pf);
            check_inventory(inv);
            pci_sriov_disable(inv, &cfg, &env, pf);
        }
        CHECK(inv->count == count);
        CHECK(now_us - begin < 10000000);
    }
    check_inventory(inv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pci_device devices[40];
    struct pci_inventory inv = {.devices = devices, .capacity = ARRAY_SIZE(devices), .roots = {1}};
    if (size < 1)
        return 0;
    if (data[0] & 1)
        inv.capacity = data[0] >> 1 & 15;
    load(data + 1, size - 1);
    scan_twice(&inv);
    work(&inv);
    return 0;
}
