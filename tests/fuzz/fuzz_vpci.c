/* An assigned function against a model: random accesses to its configuration space and its MSI-X page. The
 * fake real function aborts when a write reaches it that must not; the model says what must be mapped,
 * mastering and delivering after every access, and what the guest must read. */
#include <string.h>

#include "tests/host/fake_func.h"

static struct fake_func f;
static struct vpci v;

/* What there should be; written without a look at how vpci does it. */
struct model_entry {
    uint64_t address;
    uint32_t data, control;
};
static struct model {
    uint32_t dwords[64], writable[64];
    struct model_entry entries[MSIX_MAX_ENTRIES];
    unsigned count, flrs;
} m;

static void model_start(void)
{
    memset(&m, 0, sizeof(m));
    for (uint32_t i = 0; i < 64; i++)
        m.dwords[i] = v.func.read(&v.func, i * 4);
    m.writable[0x04 / 4] = 0x546;
    m.writable[0x0c / 4] = m.writable[0x3c / 4] = 0xff;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t size = vpci_bar_size(&f.setup, i);
        if (size)
            m.writable[0x10 / 4 + i] = (uint32_t)-size;
        if (size && f.setup.bars[i].kind != PCI_BAR_MEM32)
            m.writable[0x10 / 4 + i + 1] = ~0u;
    }
    if (f.setup.pm)
        m.writable[FAKE_CAP_PM / 4 + 1] = 3;
    if (f.setup.pcie)
        m.writable[FAKE_CAP_PCIE / 4 + 2] = 0x79ff;
    if (f.setup.msix_count) {
        m.writable[FAKE_CAP_MSIX / 4] = 0xc0000000;
        m.count = f.setup.msix_count < 64 ? f.setup.msix_count : 64;
    } else {
        m.writable[FAKE_CAP_MSI / 4] = 0x10000;
        m.writable[FAKE_CAP_MSI / 4 + 1] = 0xfffffffc;
        m.writable[FAKE_CAP_MSI / 4 + 2] = ~0u;
        m.writable[FAKE_CAP_MSI / 4 + 3] = 0xffff;
        m.writable[FAKE_CAP_MSI / 4 + 4] = 1;
    }
    for (unsigned i = 0; i < MSIX_MAX_ENTRIES; i++)
        m.entries[i].control = 1;
}

static void model_flr(void)
{
    m.flrs++;
    for (uint32_t i = 0; i < 64; i++)
        if (i < 4 || i > 9)
            m.dwords[i] &= ~m.writable[i];
    if (f.setup.pcie)
        m.dwords[FAKE_CAP_PCIE / 4 + 2] |= 0x2810;
    memset(m.entries, 0, sizeof(m.entries));
    for (unsigned i = 0; i < MSIX_MAX_ENTRIES; i++)
        m.entries[i].control = 1;
}

static void model_write(uint32_t offset, uint32_t value, uint32_t mask, bool resetting)
{
    if (offset >= 256 || resetting)
        return;
    uint32_t i = offset / 4, bits = m.writable[i] & mask, old = m.dwords[i];
    m.dwords[i] = (old & ~bits) | (value & bits);
    if (f.setup.pm && offset == FAKE_CAP_PM + 4 && (m.dwords[i] & 3) % 3)
        m.dwords[i] = old;
    if ((f.setup.pcie && offset == FAKE_CAP_PCIE + 8 && (value & mask & 0x8000)) ||
        (f.setup.af && offset == FAKE_CAP_AF + 4 && (value & mask & 1)))
        model_flr();
}

static bool model_bar(unsigned i, uint64_t *at)
{
    uint64_t size = vpci_bar_size(&f.setup, i);
    if (!size || !(m.dwords[1] & 2) || (f.setup.pm && (m.dwords[FAKE_CAP_PM / 4 + 1] & 3)))
        return false;
    *at = m.dwords[4 + i] & ~0xfull;
    if (f.setup.bars[i].kind != PCI_BAR_MEM32)
        *at |= (uint64_t)m.dwords[5 + i] << 32;
    return (*at >= FAKE_WINDOW0 && *at + size - 1 <= FAKE_WINDOW0_TO) ||
           (*at >= FAKE_WINDOW1 && *at <= FAKE_WINDOW1_TO && *at + size - 1 <= FAKE_WINDOW1_TO);
}

static void check_irqs(void)
{
    if (!f.setup.msix_count) {
        const uint32_t *msi = &m.dwords[FAKE_CAP_MSI / 4];
        bool live = (msi[0] & 0x10000) && !(msi[4] & 1);
        FAKE_REQUIRE(f.live[0] == live);
        bool message = !f.picky || ((uint64_t)msi[2] << 32 | msi[1]) >> 20 == 0xfee;
        FAKE_REQUIRE((f.config[FAKE_CAP_MSI + 2] & 1) == ((msi[0] >> 16 & 1) && (message || (msi[4] & 1))));
        FAKE_REQUIRE((f.config[FAKE_CAP_MSI + 16] & 1) == (msi[4] & 1));
        if (live)
            FAKE_REQUIRE(f.address[0] == ((uint64_t)msi[2] << 32 | msi[1]) && f.data[0] == msi[3]);
        return;
    }
    uint32_t control = m.dwords[FAKE_CAP_MSIX / 4] >> 16;
    FAKE_REQUIRE((f.config[FAKE_CAP_MSIX + 3] & 0xc0u) == (control >> 8 & 0xc0));
    for (unsigned i = 0; i < MSIX_MAX_ENTRIES; i++) {
        const struct model_entry *e = &m.entries[i];
        bool live = i < m.count && (control & 0x8000) && !(e->control & 1);
        FAKE_REQUIRE(f.live[i] == live);
        if (live)
            FAKE_REQUIRE(f.address[i] == e->address && f.data[i] == e->data);
    }
}

static void check(void)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < 64; i++)
        FAKE_REQUIRE(v.func.read(&v.func, i * 4) == (f.resetting ? ~0u : m.dwords[i]));
    bool power = !f.setup.pm || !(m.dwords[FAKE_CAP_PM / 4 + 1] & 3);
    FAKE_REQUIRE(f.mastering == (power && (m.dwords[1] & 4)));
    for (unsigned i = 0; i < PCI_BARS; i++) {
        bool on = model_bar(i, &at);
        FAKE_REQUIRE(f.mapped[i] == on && (!on || f.mapped_at[i] == at));
    }
    check_irqs();
    FAKE_REQUIRE(f.flrs == m.flrs);
    FAKE_REQUIRE(f.notes <= 4);
}

static void config(uint32_t offset, unsigned size, bool write, uint32_t value)
{
    offset &= ~(size - 1);
    uint32_t mask = size == 4 ? ~0u : ((1u << (8 * size)) - 1) << (offset % 4 * 8);
    if (write) {
        bool resetting = f.resetting; /* before it */
        v.func.write(&v.func, offset & ~3u, value, mask);
        model_write(offset & ~3u, value, mask, resetting);
    } else {
        uint32_t got = v.func.read(&v.func, offset & ~3u);
        FAKE_REQUIRE(got == (f.resetting ? ~0u : offset < 256 ? m.dwords[offset / 4] : 0));
    }
}

/* A byte of the table. */
static uint8_t model_byte(uint64_t at)
{
    const struct model_entry *e = &m.entries[at / 16];
    uint8_t image[16];
    memcpy(image, &e->address, 8);
    memcpy(image + 8, &e->data, 4);
    memcpy(image + 12, &e->control, 4);
    return image[at % 16];
}

static void model_table_write(uint64_t at, unsigned size, uint64_t value)
{
    if (at / 16 >= m.count)
        return;
    struct model_entry *e = &m.entries[at / 16];
    uint8_t image[16];
    for (unsigned i = 0; i < 16; i++)
        image[i] = model_byte(at / 16 * 16 + i);
    memcpy(image + at % 16, &value, size);
    memcpy(&e->address, image, 8);
    memcpy(&e->data, image + 8, 4);
    memcpy(&e->control, image + 12, 4);
    e->address &= ~3ull;
    e->control &= 1;
}

static void memory(unsigned bar, uint64_t offset, unsigned size, bool write, uint64_t value)
{
    const struct vpci_setup *s = &f.setup;
    uint64_t end = s->msix_offset + 16ull * s->msix_count, at;
    bool reaches = bar < PCI_BARS && model_bar(bar, &at) && offset < s->bars[bar].size &&
                   offset + size <= s->bars[bar].size && offset % size == 0;
    bool table = reaches && s->msix_count && bar == s->msix_bar && offset >= s->msix_offset && offset < end;
    struct io_req req = {.size = (uint8_t)size, .write = write, .value = value};
    uint64_t want = vdev_all_ones(size);
    if (reaches && !table)
        memcpy(&want, f.bars[bar] + offset, size);
    for (unsigned i = 0; table && i < size; i++) {
        uint64_t in = offset - s->msix_offset + i;
        uint64_t byte = in / 16 < m.count ? model_byte(in) : 0;
        want = (want & ~(0xffull << (8 * i))) | byte << (8 * i);
    }
    if (table && write)
        model_table_write(offset - s->msix_offset, size, value);
    vpci_mmio(&v, bar, offset, &req);
    if (!write)
        FAKE_REQUIRE(req.value == (want & vdev_all_ones(size)));
}

static void step(struct fake_input *in)
{
    static const uint8_t interesting[] = {4,    5,    0x10, 0x14, 0x1c, 0x20, 0x44, 0x50, 0x52, 0x54, 0x58,
                                          0x5c, 0x60, 0x70, 0x72, 0x73, 0x84, 0xa8, 0xa9, 0x3c, 0xaa};
    uint8_t op = fake_input_u8(in), which = fake_input_u8(in);
    unsigned size = 1u << (op >> 2 & 3);
    bool write = op & 2;
    uint64_t value = op & 0x40 ? fake_input_u64(in) : fake_input_u8(in) * 0x0101010101010101ull;
    if (op & 0x80 && (op & 1)) { /* a BAR near or in a window */
        value = (value & 0x1fffffffull) | (op & 0x10 ? FAKE_WINDOW0 : 1);
        config(0x10u + which % 5 * 4, 4, true, (uint32_t)value);
    } else if (op & 1) {
        uint64_t offset = f.setup.msix_offset + (uint64_t)which * 4;
        if (op & 0x20)
            offset = value >> 40 & 0xffff;
        memory(op & 0x10 ? which % 7 : f.setup.msix_bar, offset, size, write, value);
    } else {
        uint32_t offset =
            op & 0x20 ? which * 16u + (uint32_t)(value >> 60) : interesting[which % sizeof(interesting)];
        config(offset, size > 4 ? 4 : size, write, (uint32_t)value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const make[])(struct fake_func *) = {fake_func_vf, fake_func_pf, fake_func_msi};
    struct fake_input in = {data, size, 0};
    unsigned steps = 0;
    uint8_t kind = fake_input_u8(&in);
    make[kind % 3](&f);
    f.slow = kind & 0x80;
    f.picky = kind & 0x40;
    if (f.setup.msix_count) /* live bits are for the unit test */
        f.config[FAKE_CAP_PCIE + 10] = f.config[FAKE_CAP_AF + 5] = 0;
    FAKE_REQUIRE(vpci_init(&v, &f.setup, &f.env) == STATUS_OK);
    model_start();
    check();
    while (fake_input_left(&in)) {
        f.count = 0;
        f.resetting &= ++steps % 8 != 0;
        step(&in);
        check();
    }
    vpci_reset(&v);
    for (unsigned i = 0; i < MSIX_MAX_ENTRIES; i++)
        FAKE_REQUIRE(!f.live[i]);
    for (unsigned i = 0; i < PCI_BARS; i++)
        FAKE_REQUIRE(!f.mapped[i]);
    FAKE_REQUIRE(!f.mastering);
    return 0;
}
