/* Which functions there are, and what their headers and capabilities say. */
#include "drivers/pci/pci.h"
#include "drivers/pci/pci_caps.h"
#include "drivers/pci/pci_read.h"
#include "hv/lib/string.h"

#define BUSES           256u
#define DEVICES_PER_BUS 32u

#define BRIDGE_BARS      2u
#define WINDOW_64BIT     0x1u /* of the low four bits of an I/O or prefetchable base: the wide form */
#define MEMORY_BASE_BITS 0xfff0u
#define IO_BASE_BITS     0xf0u
#define ARI_NEXT         0x05u

static uint32_t read(const struct pci_config *cfg, uint16_t bdf, uint32_t offset, unsigned size)
{
    return cfg->read(cfg->ctx, bdf, offset, size);
}

static void write32(const struct pci_config *cfg, uint16_t bdf, uint32_t offset, uint32_t value)
{
    cfg->write(cfg->ctx, bdf, offset, 4, value);
}

/* ---- base address registers ---- */

/* What a register reads when all ones were written to it; its value is put back. */
static uint32_t probe(const struct pci_config *cfg, uint16_t bdf, uint32_t offset, uint32_t value)
{
    write32(cfg, bdf, offset, ~0u);
    uint32_t answer = read(cfg, bdf, offset, 4);
    write32(cfg, bdf, offset, value);
    return answer;
}

/* The lowest bit that can be changed is the size (PCI Express Base 6.0, 7.5.1.2.1). */
static uint64_t size_of(uint64_t address_bits)
{
    return address_bits & (~address_bits + 1);
}

static bool decode_kind(uint32_t value, uint8_t *kind)
{
    if (value & PCI_BAR_FLAG_IO)
        *kind = PCI_BAR_IO;
    else if ((value & PCI_BAR_FLAG_TYPE) == PCI_BAR_FLAG_64)
        *kind = value & PCI_BAR_FLAG_PREFETCH ? PCI_BAR_MEM64_PREFETCH : PCI_BAR_MEM64;
    else if ((value & PCI_BAR_FLAG_TYPE) == 0)
        *kind = PCI_BAR_MEM32;
    else
        return false; /* below 1 MiB (not any more), or reserved */
    return true;
}

/* One register, or two; answers how many. */
static unsigned read_bar(const struct pci_config *cfg, uint16_t bdf, uint32_t offset, bool pair, bool sizing,
                         struct pci_bar *bar)
{
    uint32_t low = read(cfg, bdf, offset, 4), high = 0;
    uint8_t kind;
    if (!decode_kind(low, &kind))
        return 1;
    bool wide = pci_bar_is_64(kind);
    if (wide && !pair)
        return 1; /* its upper half would be beyond the last register */
    uint32_t address_bits = kind == PCI_BAR_IO ? PCI_BAR_IO_ADDRESS : PCI_BAR_MEMORY_ADDRESS;
    uint64_t bits = 0;
    if (wide)
        high = read(cfg, bdf, offset + 4, 4);
    if (sizing) {
        bits = probe(cfg, bdf, offset, low) & address_bits;
        if (wide)
            bits |= (uint64_t)probe(cfg, bdf, offset + 4, high) << 32;
    }
    bar->base = (uint64_t)high << 32 | (low & address_bits);
    bar->size = size_of(bits);
    bar->kind = sizing && bits == 0 ? PCI_BAR_NONE : kind;
    if (bar->kind == PCI_BAR_NONE || (!sizing && bar->base == 0))
        *bar = (struct pci_bar){0};
    return wide ? 2 : 1;
}

void pci_read_bars(const struct pci_config *cfg, uint16_t bdf, uint32_t offset, unsigned count, bool sizing,
                   struct pci_bar *bars)
{
    memset(bars, 0, count * sizeof(*bars));
    for (unsigned i = 0; i < count;)
        i += read_bar(cfg, bdf, offset + 4 * i, i + 1 < count, sizing, &bars[i]);
}

static void read_device_bars(const struct pci_config *cfg, struct pci_device *dev, bool sizing)
{
    static const unsigned counts[] = {PCI_BARS, BRIDGE_BARS, 0};
    unsigned count = dev->header < ARRAY_SIZE(counts) ? counts[dev->header] : 0;
    uint32_t command = read(cfg, dev->bdf, PCI_REG_COMMAND, 2);
    if (sizing && count) /* a decoder that is on would answer at the top of the address space meanwhile */
        cfg->write(cfg->ctx, dev->bdf, PCI_REG_COMMAND, 2, command & ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
    pci_read_bars(cfg, dev->bdf, PCI_REG_BAR0, count, sizing, dev->bars);
    if (sizing && count)
        cfg->write(cfg->ctx, dev->bdf, PCI_REG_COMMAND, 2, command);
}

/* ---- capabilities ---- */

/* A table of `bytes` bytes at `offset` of a memory BAR; sizes are not known when nothing may be written. */
static bool fits_bar(const struct pci_device *dev, unsigned bar, uint64_t offset, uint64_t bytes)
{
    if (bar >= PCI_BARS || dev->bars[bar].kind == PCI_BAR_NONE || dev->bars[bar].kind == PCI_BAR_IO)
        return false;
    return dev->bars[bar].size == 0 || offset + bytes <= dev->bars[bar].size;
}

static void read_msix(const struct pci_config *cfg, struct pci_device *dev)
{
    uint32_t table = read(cfg, dev->bdf, dev->msix + PCI_MSIX_TABLE, 4);
    uint32_t pba = read(cfg, dev->bdf, dev->msix + PCI_MSIX_PBA, 4);
    unsigned count = (read(cfg, dev->bdf, dev->msix + PCI_MSIX_CONTROL, 2) & PCI_MSIX_CONTROL_SIZE) + 1;
    dev->msix_bar = table & PCI_MSIX_BAR;
    dev->msix_offset = table & ~PCI_MSIX_BAR;
    dev->msix_pba_bar = pba & PCI_MSIX_BAR;
    dev->msix_pba_offset = pba & ~PCI_MSIX_BAR;
    if (fits_bar(dev, dev->msix_bar, dev->msix_offset, count * PCI_MSIX_ENTRY) &&
        fits_bar(dev, dev->msix_pba_bar, dev->msix_pba_offset, (count + 63) / 64 * 8))
        dev->msix_count = (uint16_t)count;
}

static void read_sriov(const struct pci_config *cfg, struct pci_device *dev, bool sizing)
{
    uint16_t at = dev->sriov_cap;
    struct pci_sriov *sriov = &dev->sriov;
    sriov->total = (uint16_t)read(cfg, dev->bdf, at + PCI_SRIOV_TOTAL, 2);
    sriov->offset = (uint16_t)read(cfg, dev->bdf, at + PCI_SRIOV_OFFSET, 2);
    sriov->stride = (uint16_t)read(cfg, dev->bdf, at + PCI_SRIOV_STRIDE, 2);
    sriov->vf_device = (uint16_t)read(cfg, dev->bdf, at + PCI_SRIOV_DEVICE, 2);
    sriov->page_sizes = read(cfg, dev->bdf, at + PCI_SRIOV_PAGES_SUPPORTED, 4);
    /* VF BARs of VFs that firmware left on are not for probing: they are sized when we switch them on. */
    uint32_t control = read(cfg, dev->bdf, at + PCI_SRIOV_CONTROL, 2);
    bool on = control & (PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE);
    pci_read_bars(cfg, dev->bdf, at + PCI_SRIOV_BAR0, PCI_BARS, sizing && !on, sriov->vf_bars);
}

static void read_caps(const struct pci_config *cfg, struct pci_device *dev)
{
    struct pci_cap_walk walk = pci_caps_walk(cfg, dev->bdf, false);
    static const struct {
        uint8_t id, bytes;
        uint8_t field; /* offset in struct pci_device */
    } known[] = {{PCI_CAP_PM, 8, offsetof(struct pci_device, pm)},
                 {PCI_CAP_MSI, 10, offsetof(struct pci_device, msi)},
                 {PCI_CAP_PCIE, 20, offsetof(struct pci_device, pcie)},
                 {PCI_CAP_MSIX, 12, offsetof(struct pci_device, msix)},
                 {PCI_CAP_AF, 6, offsetof(struct pci_device, af)}};
    while (pci_caps_next(&walk))
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
            uint8_t *field = (uint8_t *)dev + known[i].field;
            if (walk.id == known[i].id && *field == 0 && walk.offset + known[i].bytes <= PCI_LEGACY_SIZE)
                *field = (uint8_t)walk.offset;
        }
}

static void read_ext_caps(const struct pci_config *cfg, struct pci_device *dev)
{
    struct pci_cap_walk walk = pci_caps_walk(cfg, dev->bdf, true);
    static const struct {
        uint16_t id;
        uint8_t bytes;
        uint8_t field;
    } known[] = {{PCI_EXT_ACS, 8, offsetof(struct pci_device, acs)},
                 {PCI_EXT_ARI, 8, offsetof(struct pci_device, ari)},
                 {PCI_EXT_ATS, 8, offsetof(struct pci_device, ats)},
                 {PCI_EXT_SRIOV, PCI_SRIOV_SIZE, offsetof(struct pci_device, sriov_cap)},
                 {PCI_EXT_PRI, 16, offsetof(struct pci_device, pri)},
                 {PCI_EXT_PASID, 8, offsetof(struct pci_device, pasid)}};
    while (pci_caps_next(&walk))
        for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
            uint16_t *field = (uint16_t *)((uint8_t *)dev + known[i].field);
            if (walk.id == known[i].id && *field == 0 && walk.offset + known[i].bytes <= PCI_CONFIG_SIZE)
                *field = walk.offset;
        }
}
STATIC_ASSERT(offsetof(struct pci_device, pasid) <= UINT8_MAX, "the tables above hold offsets in a byte");

void pci_read_caps(const struct pci_config *cfg, struct pci_device *dev)
{
    read_caps(cfg, dev);
    if (dev->pcie) {
        uint32_t flags = read(cfg, dev->bdf, dev->pcie + PCI_EXP_FLAGS, 2);
        dev->devctl = (uint16_t)read(cfg, dev->bdf, dev->pcie + PCI_EXP_DEVCTL, 2);
        dev->exp_type = (uint8_t)PCI_EXP_FLAGS_TYPE(flags);
        dev->link = (uint16_t)read(cfg, dev->bdf, dev->pcie + PCI_EXP_LNKCTL, 2);
        dev->has_devctl2 =
            (flags & PCI_EXP_FLAGS_VERSION) >= 2 && dev->pcie + PCI_EXP_DEVCTL2 + 2u <= PCI_LEGACY_SIZE;
        if (dev->has_devctl2)
            dev->devctl2 = (uint16_t)read(cfg, dev->bdf, dev->pcie + PCI_EXP_DEVCTL2, 2);
        dev->has_flr = read(cfg, dev->bdf, dev->pcie + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR;
        read_ext_caps(cfg, dev);
    }
    if (dev->af) {
        uint32_t want = PCI_AF_CAPS_TP | PCI_AF_CAPS_FLR;
        dev->has_flr |= (read(cfg, dev->bdf, dev->af + PCI_AF_CAPS, 1) & want) == want;
    }
    if (dev->acs) {
        dev->acs_caps = (uint16_t)read(cfg, dev->bdf, dev->acs + PCI_ACS_CAPS, 2);
        dev->acs_control = (uint16_t)read(cfg, dev->bdf, dev->acs + PCI_ACS_CONTROL, 2);
    }
    if (dev->msix)
        read_msix(cfg, dev);
}

/* ---- one function ---- */

/* PCI Express Base 6.0, 7.5.1.3. */
static void read_bridge(const struct pci_config *cfg, struct pci_device *dev)
{
    uint32_t buses = read(cfg, dev->bdf, PCI_REG_BUSES, 4), io = read(cfg, dev->bdf, PCI_REG_IO, 2);
    uint32_t memory = read(cfg, dev->bdf, PCI_REG_MEMORY, 4);
    uint32_t prefetch = read(cfg, dev->bdf, PCI_REG_PREFETCH, 4);
    struct pci_window *w = dev->windows;
    dev->secondary = (uint8_t)(buses >> 8);
    dev->subordinate = (uint8_t)(buses >> 16);
    if (dev->secondary == 0 || dev->subordinate < dev->secondary)
        dev->secondary = dev->subordinate = 0; /* firmware has not set it up */

    w[PCI_WINDOW_IO] = (struct pci_window){(io & IO_BASE_BITS) << 8, (io & IO_BASE_BITS << 8) | 0xfff};
    if ((io & 0xf) == WINDOW_64BIT) {
        uint32_t high = read(cfg, dev->bdf, PCI_REG_IO_HIGH, 4);
        w[PCI_WINDOW_IO].base |= (uint64_t)(high & UINT16_MAX) << 16;
        w[PCI_WINDOW_IO].limit |= high & ~(uint32_t)UINT16_MAX;
    }
    w[PCI_WINDOW_MEMORY] = (struct pci_window){(uint64_t)(memory & MEMORY_BASE_BITS) << 16,
                                               (memory & MEMORY_BASE_BITS << 16) | 0xfffff};
    w[PCI_WINDOW_PREFETCH] = (struct pci_window){(uint64_t)(prefetch & MEMORY_BASE_BITS) << 16,
                                                 (prefetch & MEMORY_BASE_BITS << 16) | 0xfffff};
    if ((prefetch & 0xf) == WINDOW_64BIT) {
        w[PCI_WINDOW_PREFETCH].base |= (uint64_t)read(cfg, dev->bdf, PCI_REG_PREFETCH_BASE_HIGH, 4) << 32;
        w[PCI_WINDOW_PREFETCH].limit |= (uint64_t)read(cfg, dev->bdf, PCI_REG_PREFETCH_LIMIT_HIGH, 4) << 32;
    }
}

static void read_device(const struct pci_config *cfg, struct pci_device *dev, uint16_t bdf, uint16_t parent,
                        bool sizing)
{
    uint32_t id = read(cfg, bdf, PCI_REG_ID, 4), class = read(cfg, bdf, PCI_REG_CLASS, 4);
    uint32_t header = read(cfg, bdf, PCI_REG_HEADER, 4) >> 16;
    *dev = (struct pci_device){.bdf = bdf, .parent = parent, .vendor = (uint16_t)id};
    dev->device = (uint16_t)(id >> 16);
    dev->class_code = class >> 8;
    dev->revision = (uint8_t) class;
    dev->header = header & PCI_HEADER_TYPE;
    dev->multifunction = header & PCI_HEADER_MULTI;
    if (dev->header == 1) {
        read_bridge(cfg, dev);
    } else if (dev->header == 0) {
        uint32_t subsystem = read(cfg, bdf, PCI_REG_SUBSYSTEM, 4);
        dev->subsystem_vendor = (uint16_t)subsystem;
        dev->subsystem = (uint16_t)(subsystem >> 16);
    }
    read_device_bars(cfg, dev, sizing);
    pci_read_caps(cfg, dev);
    if (dev->sriov_cap)
        read_sriov(cfg, dev, sizing);
}

/* ---- all of them ---- */

struct scan {
    struct pci_inventory *inv;
    const struct pci_config *cfg;
    uint64_t seen[BUSES / 64];
};

static bool in_set(const uint64_t *set, unsigned bus)
{
    return set[bus / 64] >> (bus % 64) & 1;
}

static bool add_function(struct scan *s, uint16_t bdf, uint16_t parent)
{
    struct pci_inventory *inv = s->inv;
    if ((read(s->cfg, bdf, PCI_REG_ID, 4) & UINT16_MAX) == UINT16_MAX)
        return false;
    if (inv->count == inv->capacity)
        inv->dropped++;
    else
        read_device(s->cfg, &inv->devices[inv->count++], bdf, parent, !inv->passive);
    return true;
}

/* Functions 8 and up, which exist where the port above forwards by function number alone (ARI, 6.13): a list.
 */
static void add_ari(struct scan *s, unsigned bus, uint16_t parent)
{
    uint16_t bdf = PCI_BDF(bus, 0, 0);
    for (unsigned left = BUSES; left; left--) {
        uint16_t at = pci_caps_find(s->cfg, bdf, true, PCI_EXT_ARI, 8);
        unsigned next = at ? read(s->cfg, bdf, at + ARI_NEXT, 1) : 0;
        if (next <= (bdf & 0xffu)) /* the list only goes up */
            return;
        bdf = (uint16_t)(bus << 8 | next);
        if (next >= PCI_FUNCTIONS && !add_function(s, bdf, parent))
            return;
    }
}

static void add_slot(struct scan *s, unsigned bus, unsigned slot, uint16_t parent)
{
    if (!add_function(s, PCI_BDF(bus, slot, 0), parent))
        return;
    if (read(s->cfg, PCI_BDF(bus, slot, 0), PCI_REG_HEADER, 4) >> 16 & PCI_HEADER_MULTI)
        for (unsigned function = 1; function < PCI_FUNCTIONS; function++)
            add_function(s, PCI_BDF(bus, slot, function), parent);
}

static void add_bus(struct scan *s, unsigned bus, uint16_t parent)
{
    const struct pci_device *port = parent == PCI_NO_PARENT ? NULL : &s->inv->devices[parent];
    bool link = port && pci_is_port(port); /* a link has one device at its end */
    s->seen[bus / 64] |= 1ull << (bus % 64);
    for (unsigned slot = 0; slot < (link ? 1 : DEVICES_PER_BUS); slot++)
        add_slot(s, bus, slot, parent);
    if (link)
        add_ari(s, bus, parent);
}

/* A root bus and all that is behind it; no bus is looked at twice, however bridges are set up. */
static void add_root(struct scan *s, unsigned bus)
{
    struct pci_inventory *inv = s->inv;
    uint32_t at = inv->count;
    if (in_set(s->seen, bus))
        return;
    add_bus(s, bus, PCI_NO_PARENT);
    for (; at < inv->count; at++)
        if (inv->devices[at].secondary && !in_set(s->seen, inv->devices[at].secondary))
            add_bus(s, inv->devices[at].secondary, (uint16_t)at);
}

enum status pci_scan(struct pci_inventory *inv, const struct pci_config *cfg)
{
    struct scan s = {.inv = inv, .cfg = cfg};
    bool known = inv->roots[0] | inv->roots[1] | inv->roots[2] | inv->roots[3];
    inv->count = inv->dropped = 0;
    for (unsigned bus = 0; bus < BUSES; bus++)
        if (!known || in_set(inv->roots, bus))
            add_root(&s, bus);
    pci_group(inv);
    return inv->dropped ? ERR_NO_MEMORY : STATUS_OK;
}

/* ---- finding ---- */

struct pci_device *pci_find(const struct pci_inventory *inv, uint16_t bdf)
{
    for (uint32_t i = 0; i < inv->count; i++)
        if (inv->devices[i].bdf == bdf)
            return &inv->devices[i];
    return NULL;
}

struct pci_device *pci_find_id(const struct pci_inventory *inv, uint16_t vendor, uint16_t device,
                               unsigned nth)
{
    for (uint32_t i = 0; i < inv->count; i++) {
        struct pci_device *dev = &inv->devices[i];
        if (!dev->is_vf && dev->vendor == vendor && dev->device == device && nth-- == 0)
            return dev;
    }
    return NULL;
}

struct pci_device *pci_find_vf(const struct pci_inventory *inv, uint16_t pf, uint16_t index)
{
    for (uint32_t i = 0; i < inv->count; i++) {
        struct pci_device *dev = &inv->devices[i];
        if (dev->is_vf && dev->pf == pf && dev->vf_index == index)
            return dev;
    }
    return NULL;
}
