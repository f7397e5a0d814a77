#include "tests/host/fake_func.h"

#include <string.h>

static void record(struct fake_func *f, enum fake_event_kind kind, uint64_t a, uint64_t b)
{
    if (f->count < FAKE_FUNC_EVENTS)
        f->events[f->count++] = (struct fake_func_event){kind, a, b};
}

uint32_t fake_func_dword(const struct fake_func *f, uint32_t offset)
{
    uint32_t v;
    memcpy(&v, f->config + offset, 4);
    return v;
}

void fake_func_put(struct fake_func *f, uint32_t offset, uint32_t value, unsigned size)
{
    memcpy(f->config + offset, &value, size);
}

static uint32_t host_read(void *ctx, uint32_t offset, unsigned size)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(!f->resetting);
    FAKE_REQUIRE((size == 1 || size == 2 || size == 4) && offset % size == 0 && offset < 256);
    uint32_t v = 0;
    memcpy(&v, f->config + offset, size);
    return v;
}

/* All that may ever be written: Enable and Function Mask of MSI-X, Enable and mask of MSI. */
static void host_write(void *ctx, uint32_t offset, unsigned size, uint32_t value)
{
    struct fake_func *f = ctx;
    uint32_t old = host_read(f, offset, size), changed = old ^ value;
    bool msix = f->setup.msix_count && offset == FAKE_CAP_MSIX + 2u && !(changed & ~0xc000u);
    bool msi = !f->setup.msix_count && (offset == FAKE_CAP_MSI + 2u || offset == FAKE_CAP_MSI + 16u) &&
               !(changed & ~1u);
    FAKE_REQUIRE(size == 2 && (msix || msi));
    memcpy(f->config + offset, &value, 2);
    record(f, EV_HOST_WRITE, offset, value);
}

static void map(void *ctx, unsigned bar, uint64_t gpa, bool on)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(!f->resetting && bar < PCI_BARS && f->mapped[bar] != on && gpa % 4096 == 0);
    uint64_t size = vpci_bar_size(&f->setup, bar);
    FAKE_REQUIRE(size >= 4096);
    if (on) {
        FAKE_REQUIRE((gpa >= FAKE_WINDOW0 && gpa + size - 1 <= FAKE_WINDOW0_TO) ||
                     (gpa >= FAKE_WINDOW1 && gpa + size - 1 <= FAKE_WINDOW1_TO));
    } else {
        FAKE_REQUIRE(f->mapped_at[bar] == gpa);
    }
    f->mapped[bar] = on;
    f->mapped_at[bar] = gpa;
    record(f, on ? EV_MAP : EV_UNMAP, bar, gpa);
}

static void master(void *ctx, bool on)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(!f->resetting && f->mastering != on);
    f->mastering = on;
    record(f, EV_MASTER, on, 0);
}

static bool irq_set(void *ctx, unsigned entry, uint64_t address, uint32_t data, bool masked)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(!f->resetting);
    if (f->setup.msix_count) {
        FAKE_REQUIRE(entry < f->setup.msix_count && entry < MSIX_MAX_ENTRIES);
        FAKE_REQUIRE(f->config[FAKE_CAP_MSIX + 3] & 0x80);
    } else {
        FAKE_REQUIRE(entry == 0);
        if (masked || !f->live[0]) /* it is silent */
            FAKE_REQUIRE(!(f->config[FAKE_CAP_MSI + 2] & 1) ||
                         ((f->config[FAKE_CAP_MSI + 3] & 1) && (f->config[FAKE_CAP_MSI + 16] & 1)));
    }
    bool same = f->live[entry] && f->address[entry] == address && f->data[entry] == data;
    FAKE_REQUIRE(masked ? f->live[entry] : !same);
    f->live[entry] = !masked;
    f->address[entry] = address;
    f->data[entry] = data;
    record(f, masked ? EV_IRQ_STOP : EV_IRQ, entry, address);
    return !masked && (!f->picky || address >> 20 == 0xfee);
}

static void flr(void *ctx)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(!f->mastering);
    for (unsigned i = 0; i < PCI_BARS; i++)
        FAKE_REQUIRE(!f->mapped[i]);
    for (unsigned i = 0; i < MSIX_MAX_ENTRIES; i++)
        FAKE_REQUIRE(!f->live[i]);
    if (f->setup.msix_count)
        FAKE_REQUIRE(!(f->config[FAKE_CAP_MSIX + 3] & 0xc0));
    f->flrs++;
    f->resetting = f->slow;
    record(f, EV_FLR, 0, 0);
}

static bool in_reset(void *ctx)
{
    const struct fake_func *f = ctx;
    FAKE_REQUIRE(f->flrs);
    return f->resetting;
}

static uint64_t mmio_read(void *ctx, unsigned bar, uint64_t offset, unsigned size)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(bar < PCI_BARS && offset % size == 0 && offset + size <= f->setup.bars[bar].size);
    uint64_t v = ~0ull;
    memcpy(&v, f->bars[bar] + offset, size); /* what is above is for vpci to cut off */
    record(f, EV_MMIO, offset, v);
    return v;
}

static void mmio_write(void *ctx, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(bar < PCI_BARS && offset % size == 0 && offset + size <= f->setup.bars[bar].size);
    if (f->setup.msix_count && bar == f->setup.msix_bar)
        FAKE_REQUIRE(offset + size <= f->setup.msix_offset ||
                     offset >= f->setup.msix_offset + 16u * f->setup.msix_count);
    if (f->setup.msix_count && bar == f->setup.msix_pba_bar)
        FAKE_REQUIRE(offset + size <= f->setup.msix_pba_offset ||
                     offset >= f->setup.msix_pba_offset + (f->setup.msix_count + 63u) / 64 * 8);
    memcpy(f->bars[bar] + offset, &value, size);
    record(f, EV_MMIO, offset, value);
}

static void note(void *ctx, const char *what, uint32_t offset, uint32_t value)
{
    struct fake_func *f = ctx;
    FAKE_REQUIRE(what && *what);
    f->note = what;
    f->notes++;
    record(f, EV_NOTE, offset, value);
}

static void start(struct fake_func *f, uint16_t device)
{
    memset(f, 0, sizeof(*f));
    f->env = (struct vpci_env){f,   host_read, host_write, map,        master, irq_set,
                               flr, in_reset,  mmio_read,  mmio_write, note};
    f->setup =
        (struct vpci_setup){.guest_bdf = PCI_BDF(0, 16, 0),
                            .vendor = 0x8086,
                            .device = device,
                            .windows = {{FAKE_WINDOW0, FAKE_WINDOW0_TO}, {FAKE_WINDOW1, FAKE_WINDOW1_TO}}};
    for (unsigned i = 0x30; i < sizeof(f->config); i++)
        f->config[i] = (uint8_t)(0x5a ^ i); /* nothing of this may show */
    fake_func_put(f, 0, 0xffffffff, 4);     /* as a VF's ids read */
    fake_func_put(f, 4, 0xffffffff, 4);
    fake_func_put(f, 8, 0x02000001, 4);
    fake_func_put(f, 0xc, 0x00800010, 4);
    for (unsigned i = 0; i < PCI_BARS; i++)
        fake_func_put(f, 0x10 + 4 * i, 0xfebc0004, 4);
    fake_func_put(f, 0x28, 0x12345678, 4);
    fake_func_put(f, 0x2c, 0xa03c8086, 4);
}

static void put_msix(struct fake_func *f, uint16_t count, unsigned bar, uint32_t table, unsigned pba_bar,
                     uint32_t pba)
{
    f->setup.msix = FAKE_CAP_MSIX;
    f->setup.msix_count = count;
    f->setup.msix_bar = (uint8_t)bar;
    f->setup.msix_offset = table;
    f->setup.msix_pba_bar = (uint8_t)pba_bar;
    f->setup.msix_pba_offset = pba;
    fake_func_put(f, FAKE_CAP_MSIX, 0x0011u | (count - 1u) << 16, 4);
    fake_func_put(f, FAKE_CAP_MSIX + 4, table | bar, 4);
    fake_func_put(f, FAKE_CAP_MSIX + 8, pba | pba_bar, 4);
}

static void put_pcie(struct fake_func *f, unsigned version)
{
    f->setup.pcie = FAKE_CAP_PCIE;
    fake_func_put(f, FAKE_CAP_PCIE, 0xff000010u | version << 16, 4);
    f->config[FAKE_CAP_PCIE + 2] = (uint8_t)version; /* an endpoint; slot and message number are nonsense */
    fake_func_put(f, FAKE_CAP_PCIE + 4, 0xffffffff, 4);
    fake_func_put(f, FAKE_CAP_PCIE + 8, 0x000f2000, 4);
}

void fake_func_vf(struct fake_func *f)
{
    start(f, 0x10ca);
    f->setup.bars[0] = (struct vpci_bar){0x4000, 0x100000000, PCI_BAR_MEM64};
    f->setup.bars[3] = (struct vpci_bar){0x4000, 0x100004000, PCI_BAR_MEM64_PREFETCH};
    f->setup.flr = true;
    put_msix(f, 3, 3, 0, 3, 0x2000);
    put_pcie(f, 2);
}

void fake_func_pf(struct fake_func *f)
{
    start(f, 0x10c9);
    f->setup.bars[0] = (struct vpci_bar){0x8000, 0xc0000000, PCI_BAR_MEM64};
    f->setup.bars[2] = (struct vpci_bar){32, 0, PCI_BAR_IO};
    f->setup.bars[3] = (struct vpci_bar){256, 0xc0008000, PCI_BAR_MEM32};
    f->setup.flr = true;
    put_msix(f, 70, 0, 0x1800, 0, 0x1d00);
    put_pcie(f, 1);
    f->setup.pm = FAKE_CAP_PM;
    fake_func_put(f, FAKE_CAP_PM, 0xffff0001, 4);
    f->config[FAKE_CAP_PM + 2] = 0xe3;
    fake_func_put(f, FAKE_CAP_PM + 4, 0xff008103, 4);
    f->setup.af = FAKE_CAP_AF;
    fake_func_put(f, FAKE_CAP_AF, 0x03060013, 4);
    fake_func_put(f, FAKE_CAP_AF + 4, 0x0000feff, 4);
    f->setup.msi = FAKE_CAP_MSI; /* it has one, which is not shown beside MSI-X */
    fake_func_put(f, FAKE_CAP_MSI, 0x01800005, 4);
    fake_func_put(f, FAKE_CAP_VENDOR, 0x00080009, 4);
}

void fake_func_msi(struct fake_func *f)
{
    start(f, 0x293e);
    f->setup.bars[0] = (struct vpci_bar){0x4000, 0xc0010000, PCI_BAR_MEM64};
    f->setup.msi = FAKE_CAP_MSI;
    fake_func_put(f, FAKE_CAP_MSI, 0x018a0005, 4); /* mask bits, 64-bit, 32 messages */
    fake_func_put(f, FAKE_CAP_MSI + 16, 0, 4);
    fake_func_put(f, FAKE_CAP_MSI + 20, 0, 4);
}
