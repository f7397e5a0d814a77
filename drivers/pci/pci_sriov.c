/* Virtual functions on and off (PCI Express Base 6.0, chapter 9). */
#include "drivers/pci/pci.h"
#include "drivers/pci/pci_read.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

#define MS           1000u      /* microseconds */
#define ENABLE_US    (100 * MS) /* 9.3.3.3.1 */
#define DISABLE_US   (1000 * MS)
#define POLL_US      (10 * MS)
#define ANSWER_POLLS 100u /* 1 s for a VF that puts off its first answer (6.6.1) */
#define PAGES_4K     1u
#define GONE         0xffffu

struct enable {
    struct pci_inventory *inv;
    const struct pci_config *cfg;
    const struct dev_env *env;
    struct pci_device *pf;
    uint16_t count;
    char *why;
    size_t size;
};

#define FAIL(e, status, ...) (fmt_format((e)->why, (e)->size, __VA_ARGS__), (status))

static uint32_t read16(const struct enable *e, uint32_t offset)
{
    return e->cfg->read(e->cfg->ctx, e->pf->bdf, e->pf->sriov_cap + offset, 2);
}

static void write_cap(const struct enable *e, uint32_t offset, unsigned bytes, uint32_t value)
{
    e->cfg->write(e->cfg->ctx, e->pf->bdf, e->pf->sriov_cap + offset, bytes, value);
}

static uint32_t vf_rid(const struct enable *e, unsigned index)
{
    return e->pf->bdf + e->pf->sriov.offset + index * e->pf->sriov.stride;
}

/* ---- requester ids ---- */

/* ARI forwarding lets the function numbers 8 to 255 through the port above; the card's offset may depend on
 * it. */
static void set_ari(const struct enable *e)
{
    const struct pci_config *cfg = e->cfg;
    const struct pci_device *port = e->pf->parent == PCI_NO_PARENT ? NULL : &e->inv->devices[e->pf->parent];
    uint32_t control = read16(e, PCI_SRIOV_CONTROL) & ~PCI_SRIOV_CONTROL_ARI;
    if (port && pci_is_port(port) && e->pf->ari && port->pcie + PCI_EXP_DEVCTL2 + 2u <= PCI_LEGACY_SIZE &&
        (cfg->read(cfg->ctx, port->bdf, port->pcie + PCI_EXP_FLAGS, 2) & PCI_EXP_FLAGS_VERSION) >= 2 &&
        (cfg->read(cfg->ctx, port->bdf, port->pcie + PCI_EXP_DEVCAP2, 4) & PCI_EXP_DEVCAP2_ARI)) {
        uint32_t at = port->pcie + PCI_EXP_DEVCTL2;
        cfg->write(cfg->ctx, port->bdf, at, 2, cfg->read(cfg->ctx, port->bdf, at, 2) | PCI_EXP_DEVCTL2_ARI);
        control |= PCI_SRIOV_CONTROL_ARI;
    }
    write_cap(e, PCI_SRIOV_CONTROL, 2, control);
}

/* Is a bus number free for VFs, or the PF's own? */
static bool bus_is_theirs(const struct enable *e, unsigned bus)
{
    const struct pci_device *pf = e->pf;
    if (bus == BDF_BUS(pf->bdf))
        return true;
    if (pf->parent == PCI_NO_PARENT || bus > e->inv->devices[pf->parent].subordinate)
        return false;
    for (uint32_t i = 0; i < e->inv->count; i++) {
        const struct pci_device *dev = &e->inv->devices[i];
        if (dev->secondary && BDF_BUS(dev->bdf) >= BDF_BUS(pf->bdf) && bus >= dev->secondary &&
            bus <= dev->subordinate)
            return false; /* behind a bridge beside the PF */
    }
    return true;
}

static enum status check_rids(const struct enable *e)
{
    const struct pci_sriov *sriov = &e->pf->sriov;
    if (sriov->offset == 0 || (sriov->stride == 0 && e->count > 1))
        return FAIL(e, ERR_RANGE, BDF_FMT " gives its virtual functions no addresses", BDF_ARGS(e->pf->bdf));
    for (unsigned i = 0; i < e->count; i++) {
        uint32_t rid = vf_rid(e, i);
        if (!bus_is_theirs(e, rid >> 8))
            return FAIL(e, ERR_NO_MEMORY,
                        "VF %u of " BDF_FMT " would be on bus %02x, which the bridge above does not lead to",
                        i, BDF_ARGS(e->pf->bdf), rid >> 8);
        if (pci_find(e->inv, (uint16_t)rid))
            return FAIL(e, ERR_NO_MEMORY,
                        "VF %u of " BDF_FMT " would be at " BDF_FMT ", where another device is", i,
                        BDF_ARGS(e->pf->bdf), BDF_ARGS(rid));
    }
    return STATUS_OK;
}

/* ---- address space ---- */

struct range {
    uint64_t base, end;
};

static bool overlaps(struct range r, uint64_t base, uint64_t size)
{
    return size && base && ranges_overlap(r.base, r.end - r.base, base, size);
}

static bool is_above(const struct enable *e, const struct pci_device *dev)
{
    for (uint16_t up = e->pf->parent; up != PCI_NO_PARENT; up = e->inv->devices[up].parent)
        if (&e->inv->devices[up] == dev)
            return true;
    return false;
}

/* What `dev` uses of the memory that `r` is in: *end behind it. Windows of the bridges above lead to the VFs;
 * those bridges' own BARs do not. */
static bool device_overlaps(const struct enable *e, const struct pci_device *dev, struct range r,
                            uint64_t *end)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *bar = &dev->bars[i], *vf = &dev->sriov.vf_bars[i];
        uint64_t vfs = vf->size * (dev == e->pf ? e->count : dev->sriov.total);
        if (bar->kind != PCI_BAR_IO && overlaps(r, bar->base, bar->size)) {
            *end = bar->base + bar->size;
            return true;
        }
        if (overlaps(r, vf->base, vfs)) {
            *end = vf->base + vfs;
            return true;
        }
    }
    if (dev->header != 1 || is_above(e, dev))
        return false;
    for (unsigned i = PCI_WINDOW_MEMORY; i < PCI_WINDOWS; i++) {
        const struct pci_window *w = &dev->windows[i];
        if (w->base <= w->limit && overlaps(r, w->base, w->limit - w->base + 1)) {
            *end = w->limit + 1;
            return true;
        }
    }
    return false;
}

/* Does anything use a part of `r`? VFs' own BARs are counted with their PF. */
static bool is_taken(const struct enable *e, struct range r, uint64_t *end)
{
    for (uint32_t i = 0; i < e->inv->count; i++) {
        const struct pci_device *dev = &e->inv->devices[i];
        if (!dev->is_vf && device_overlaps(e, dev, r, end))
            return true;
    }
    return false;
}

/* May BARs of this kind be forwarded by this window? 7.5.1.2.1: only prefetchable memory by the prefetchable.
 */
static bool window_fits(const struct pci_window *w, enum pci_window_kind kind, const struct pci_bar *bar)
{
    return w->base <= w->limit && w->base != 0 &&
           (kind == PCI_WINDOW_MEMORY || bar->kind == PCI_BAR_MEM64_PREFETCH);
}

static bool range_in_window(struct range r, const struct pci_window *w)
{
    return r.base >= w->base && r.end - 1 <= w->limit && r.end > r.base;
}

/* Room of `bytes` in a window, or 0. Each step passes something that is in the way, so it ends. */
static uint64_t search(const struct enable *e, const struct pci_window *w, const struct pci_bar *bar,
                       uint64_t bytes)
{
    uint64_t at = align_up(w->base, bar->size), end;
    for (;;) {
        struct range r = {at, at + bytes};
        if (at < w->base || !range_in_window(r, w))
            return 0;
        if (!is_taken(e, r, &end))
            return at;
        at = align_up(end, bar->size);
        if (at <= r.base)
            return 0; /* wrapped */
    }
}

/* Is a BAR well where firmware put it? On a root bus no window is known, and nothing else to go by but that
 * all VFs of a BAR of 32 bits are below 4 GiB. */
static bool is_well_placed(const struct enable *e, struct pci_bar *bar, uint64_t bytes)
{
    struct range r = {bar->base, bar->base + bytes};
    const struct pci_device *bridge = e->pf->parent == PCI_NO_PARENT ? NULL : &e->inv->devices[e->pf->parent];
    uint64_t base = bar->base, end;
    if (base == 0 || base % bar->size || r.end < r.base)
        return false;
    if (!pci_bar_is_64(bar->kind) && r.end - 1 > UINT32_MAX)
        return false;
    bar->base = 0; /* not in its own way */
    bool taken = is_taken(e, r, &end);
    bar->base = base;
    if (taken || !bridge)
        return !taken;
    for (unsigned k = PCI_WINDOW_MEMORY; k < PCI_WINDOWS; k++)
        if (window_fits(&bridge->windows[k], k, bar) && range_in_window(r, &bridge->windows[k]))
            return true;
    return false;
}

static enum status place_bar(const struct enable *e, unsigned index)
{
    struct pci_bar *bar = &e->pf->sriov.vf_bars[index];
    uint64_t bytes = bar->size * e->count;
    if (bar->kind == PCI_BAR_NONE)
        return STATUS_OK;
    if (bar->kind == PCI_BAR_IO || bar->size < PAGE_SIZE || bar->size > UINT64_MAX / (e->count + 1u))
        return FAIL(e, ERR_UNSUPPORTED, "VF BAR %u of " BDF_FMT " is not what the specification allows",
                    index, BDF_ARGS(e->pf->bdf));
    if (is_well_placed(e, bar, bytes))
        return STATUS_OK;
    bar->base = 0;
    const struct pci_device *bridge = e->pf->parent == PCI_NO_PARENT ? NULL : &e->inv->devices[e->pf->parent];
    for (unsigned k = PCI_WINDOWS; bridge && k-- > PCI_WINDOW_MEMORY && bar->base == 0;)
        if (window_fits(&bridge->windows[k], k, bar))
            bar->base = search(e, &bridge->windows[k], bar, bytes);
    if (bar->base == 0)
        return FAIL(e, ERR_NO_MEMORY,
                    "no room for BAR %u of %u VFs of " BDF_FMT
                    " (%llu KiB): enable SR-IOV in the firmware setup",
                    index, e->count, BDF_ARGS(e->pf->bdf), (unsigned long long)(bytes >> 10));
    write_cap(e, PCI_SRIOV_BAR0 + 4 * index, 4, (uint32_t)bar->base);
    if (pci_bar_is_64(bar->kind))
        write_cap(e, PCI_SRIOV_BAR0 + 4 * index + 4, 4, (uint32_t)(bar->base >> 32));
    return STATUS_OK;
}

static enum status place_bars(const struct enable *e)
{
    struct pci_sriov *sriov = &e->pf->sriov;
    pci_read_bars(e->cfg, e->pf->bdf, e->pf->sriov_cap + PCI_SRIOV_BAR0, PCI_BARS, true, sriov->vf_bars);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        enum status s = place_bar(e, i);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

/* ---- the VFs ---- */

static bool await_vf(const struct enable *e, uint16_t bdf)
{
    for (unsigned i = 0; i < ANSWER_POLLS; i++) {
        if (e->cfg->read(e->cfg->ctx, bdf, PCI_REG_COMMAND, 2) != GONE)
            return true;
        e->env->delay_us(e->env->ctx, POLL_US);
    }
    return false;
}

/* 9.3.4: ids and BARs come from the PF. Memory decoding is switched on although a real VF decodes by the PF's
 * MSE and has no such bit: QEMU's VFs have it, and need it. */
static void add_vf(const struct enable *e, unsigned index)
{
    const struct pci_device *pf = e->pf;
    struct pci_device *vf = &e->inv->devices[e->inv->count];
    const struct pci_config *cfg = e->cfg;
    uint16_t bdf = (uint16_t)vf_rid(e, index);
    *vf = (struct pci_device){
        .bdf = bdf, .vendor = pf->vendor, .device = pf->sriov.vf_device, .parent = pf->parent};
    vf->subsystem_vendor = pf->subsystem_vendor;
    vf->subsystem = (uint16_t)(cfg->read(cfg->ctx, bdf, PCI_REG_SUBSYSTEM, 4) >> 16);
    vf->class_code = cfg->read(cfg->ctx, bdf, PCI_REG_CLASS, 4) >> 8;
    vf->revision = (uint8_t)cfg->read(cfg->ctx, bdf, PCI_REG_CLASS, 4);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        vf->bars[i] = pf->sriov.vf_bars[i];
        vf->bars[i].base += index * vf->bars[i].size;
    }
    vf->is_vf = true;
    vf->pf = pf->bdf;
    vf->vf_index = (uint16_t)index;
    pci_read_caps(cfg, vf);
    vf->sriov_cap = 0;
    vf->has_flr = vf->pcie != 0; /* required of VFs, also where they do not say so */
    pci_master(cfg, vf, false);
    pci_memory(cfg, vf, true);
    e->inv->count++;
}

static void switch_off(const struct enable *e)
{
    uint32_t on = PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE;
    write_cap(e, PCI_SRIOV_CONTROL, 2, read16(e, PCI_SRIOV_CONTROL) & ~on);
    e->env->delay_us(e->env->ctx, DISABLE_US);
}

static enum status switch_on(const struct enable *e)
{
    uint32_t on = PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE;
    write_cap(e, PCI_SRIOV_CONTROL, 2, read16(e, PCI_SRIOV_CONTROL) | on);
    e->env->delay_us(e->env->ctx, ENABLE_US);
    if ((read16(e, PCI_SRIOV_CONTROL) & on) != on)
        return FAIL(e, ERR_RANGE, BDF_FMT " refuses to switch %u virtual functions on", BDF_ARGS(e->pf->bdf),
                    e->count);
    for (unsigned i = 0; i < e->count; i++)
        if (!await_vf(e, (uint16_t)vf_rid(e, i)))
            return FAIL(e, ERR_NOT_FOUND, "VF %u of " BDF_FMT " does not answer at " BDF_FMT, i,
                        BDF_ARGS(e->pf->bdf), BDF_ARGS(vf_rid(e, i)));
    return STATUS_OK;
}

static enum status check_request(const struct enable *e)
{
    const struct pci_sriov *sriov = &e->pf->sriov;
    if (!e->pf->sriov_cap || sriov->total == 0)
        return FAIL(e, ERR_UNSUPPORTED, BDF_FMT " has no SR-IOV", BDF_ARGS(e->pf->bdf));
    if (sriov->count)
        return FAIL(e, ERR_EXISTS, "the virtual functions of " BDF_FMT " are on already",
                    BDF_ARGS(e->pf->bdf));
    if (e->count == 0 || e->count > sriov->total)
        return FAIL(e, ERR_RANGE, BDF_FMT " has %u virtual functions, not %u", BDF_ARGS(e->pf->bdf),
                    sriov->total, e->count);
    if (e->inv->capacity - e->inv->count < e->count)
        return FAIL(e, ERR_NO_MEMORY, "no room in the list of devices for %u virtual functions", e->count);
    if (!(sriov->page_sizes & PAGES_4K))
        return FAIL(e, ERR_UNSUPPORTED, BDF_FMT " does not know pages of 4 KiB", BDF_ARGS(e->pf->bdf));
    return STATUS_OK;
}

/* In the specification's order: the page size decides about BARs, NumVFs and ARI about addresses. */
static enum status prepare(const struct enable *e)
{
    struct pci_sriov *sriov = &e->pf->sriov;
    if (read16(e, PCI_SRIOV_CONTROL) & PCI_SRIOV_CONTROL_VFE)
        switch_off(e); /* firmware's */
    set_ari(e);
    write_cap(e, PCI_SRIOV_PAGE, 4, PAGES_4K);
    write_cap(e, PCI_SRIOV_NUM, 2, e->count);
    sriov->offset = (uint16_t)read16(e, PCI_SRIOV_OFFSET);
    sriov->stride = (uint16_t)read16(e, PCI_SRIOV_STRIDE);
    enum status s = check_rids(e);
    return s == STATUS_OK ? place_bars(e) : s;
}

enum status pci_sriov_enable(struct pci_inventory *inv, const struct pci_config *cfg,
                             const struct dev_env *env, struct pci_device *pf, uint16_t count, char *why,
                             size_t size)
{
    struct enable e = {inv, cfg, env, pf, count, why, size};
    enum status s = check_request(&e);
    if (s != STATUS_OK)
        return s;
    s = prepare(&e);
    if (s != STATUS_OK)
        return s;
    s = switch_on(&e);
    if (s != STATUS_OK) {
        switch_off(&e);
        return s;
    }
    pf->sriov.count = count;
    for (unsigned i = 0; i < count; i++)
        add_vf(&e, i);
    pci_group(inv);
    return STATUS_OK;
}

void pci_sriov_disable(struct pci_inventory *inv, const struct pci_config *cfg, const struct dev_env *env,
                       struct pci_device *pf)
{
    struct enable e = {.inv = inv, .cfg = cfg, .env = env, .pf = pf};
    uint32_t kept = 0;
    if (pf->sriov.count == 0)
        return;
    for (uint32_t i = 0; i < inv->count; i++)
        if (inv->devices[i].is_vf && inv->devices[i].pf == pf->bdf)
            pci_master(cfg, &inv->devices[i], false);
    switch_off(&e);
    write_cap(&e, PCI_SRIOV_NUM, 2, 0);
    pf->sriov.count = 0;
    for (uint32_t i = 0; i < inv->count; i++) /* PFs come before all VFs: pf stays where it is */
        if (!inv->devices[i].is_vf || inv->devices[i].pf != pf->bdf)
            inv->devices[kept++] = inv->devices[i];
    inv->count = kept;
    pci_group(inv);
}
