/* An assigned function's configuration space and trapped memory, over a fake real function that aborts when
 * something reaches it that must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/host/fake_func.h"

#define ECAM 0xe0000000ull

static struct fake_func f;
static struct vpci v;
static struct pci_host host;

static void start(void (*make)(struct fake_func *))
{
    make(&f);
    memset(&v, 0xee, sizeof(v));
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    pci_host_setup(&host, ECAM);
    host.ecam.ops = &pci_host_ecam_ops;
    assert_int_equal(pci_host_add(&host, &v.func), STATUS_OK);
}

static void write(uint32_t offset, unsigned size, uint64_t value)
{
    struct io_req req = {.addr = ECAM + ((uint64_t)v.func.bdf << 12) + offset,
                         .size = (uint8_t)size,
                         .write = true,
                         .value = value};
    host.ecam.ops->access(&host.ecam, &req);
}

static uint32_t read(uint32_t offset, unsigned size)
{
    struct io_req req = {.addr = ECAM + ((uint64_t)v.func.bdf << 12) + offset, .size = (uint8_t)size};
    host.ecam.ops->access(&host.ecam, &req);
    return (uint32_t)req.value;
}

static void dump(uint8_t *to)
{
    for (uint32_t i = 0; i < 4096; i += 4) {
        uint32_t dword = v.func.read(&v.func, i);
        memcpy(to + i, &dword, 4);
    }
}

static void expect(unsigned i, enum fake_event_kind kind, uint64_t a, uint64_t b)
{
    assert_true(i < f.count);
    assert_int_equal(f.events[i].kind, kind);
    assert_int_equal(f.events[i].a, a);
    if (kind != EV_NOTE)
        assert_int_equal(f.events[i].b, b);
}

/* ---- every offset and width ---- */

struct field {
    uint32_t offset, value, writable; /* of a dword, at power-on */
};

/* What is not named here is 0 and read-only. Written down by hand, from the fake's description. */
static const struct field vf_fields[] = {
    {0x00, 0x10ca8086, 0},
    {0x04, 0x00100000, 0x546},
    {0x08, 0x02000001, 0},
    {0x0c, 0, 0xff},
    {0x10, 0x00000004, 0xffffc000},
    {0x14, 1, 0xffffffff},
    {0x1c, 0x0000400c, 0xffffc000},
    {0x20, 1, 0xffffffff},
    {0x2c, 0xa03c8086, 0},
    {0x34, 0x70, 0},
    {0x3c, 0, 0xff},
    {0x70, 0x0002a011, 0xc0000000},
    {0x74, 3, 0},
    {0x78, 0x2003, 0},
    {0xa0, 0x00920010, 0},
    {0xa4, 0x10008027, 0},
    {0xa8, 0x00002810, 0x79ff},
};
static const struct field pf_fields[] = {
    {0x00, 0x10c98086, 0},
    {0x04, 0x00100000, 0x546},
    {0x08, 0x02000001, 0},
    {0x0c, 0, 0xff},
    {0x10, 0xc0000004, 0xffff8000},
    {0x14, 0, 0xffffffff},
    {0x1c, 0xc0008000, 0xfffff000},
    {0x2c, 0xa03c8086, 0},
    {0x34, 0x40, 0},
    {0x3c, 0, 0xff},
    {0x40, 0x00237001, 0},
    {0x44, 8, 3},
    {0x70, 0x003fa011, 0xc0000000},
    {0x74, 0x1800, 0},
    {0x78, 0x1d00, 0},
    {0xa0, 0x00918010, 0},
    {0xa4, 0x10008027, 0},
    {0xa8, 0x00002810, 0x79ff},
    {0x80, 0x03060013, 0},
};
static const struct field msi_fields[] = {
    {0x00, 0x293e8086, 0},
    {0x04, 0x00100000, 0x546},
    {0x08, 0x02000001, 0},
    {0x0c, 0, 0xff},
    {0x10, 0xc0010004, 0xffffc000},
    {0x14, 0, 0xffffffff},
    {0x2c, 0xa03c8086, 0},
    {0x34, 0x50, 0},
    {0x3c, 0, 0xff},
    {0x50, 0x01800005, 0x10000},
    {0x54, 0, 0xfffffffc},
    {0x58, 0, 0xffffffff},
    {0x5c, 0, 0xffff},
    {0x60, 0, 1},
};

static void expected(const struct field *fields, size_t count, uint8_t *value, uint8_t *writable)
{
    memset(value, 0, 4096);
    memset(writable, 0, 4096);
    for (size_t i = 0; i < count; i++) {
        memcpy(value + fields[i].offset, &fields[i].value, 4);
        memcpy(writable + fields[i].offset, &fields[i].writable, 4);
    }
}

/* The byte that a write at offset, of `size` bytes, puts at `at`; 0: none. */
static uint8_t byte_at(uint32_t offset, unsigned size, uint32_t pattern, uint32_t at)
{
    return at >= offset && at < offset + size ? (uint8_t)(pattern >> ((at - offset) * 8)) : 0;
}

static bool hits_flr(uint32_t offset, unsigned size, uint32_t pattern)
{
    return (f.setup.pcie && (byte_at(offset, size, pattern, FAKE_CAP_PCIE + 9u) & 0x80)) ||
           (f.setup.af && (byte_at(offset, size, pattern, FAKE_CAP_AF + 4u) & 1));
}

static void one_write(void (*make)(struct fake_func *), const uint8_t *value, const uint8_t *writable,
                      uint32_t offset, unsigned size, uint32_t pattern)
{
    static uint8_t want[4096], got[4096], real[4096];
    start(make);
    memcpy(real, f.config, sizeof(real));
    memcpy(want, value, sizeof(want));
    bool flr = hits_flr(offset, size, pattern);
    for (unsigned i = 0; i < size && !flr; i++)
        want[offset + i] = (uint8_t)((value[offset + i] & ~writable[offset + i]) |
                                     (pattern >> (8 * i) & writable[offset + i]));
    write(offset, size, pattern);
    dump(got);
    assert_memory_equal(got, want, sizeof(got));
    assert_int_equal(f.flrs, flr);
    /* The real one: nothing but the control word of MSI-X or MSI, which the fake checks. */
    for (uint32_t i = 0; i < sizeof(real); i++)
        if (real[i] != f.config[i])
            assert_true(f.setup.msix_count ? i == FAKE_CAP_MSIX + 3
                                           : i == FAKE_CAP_MSI + 2 || i == FAKE_CAP_MSI + 16);
    for (unsigned i = 0; i < size; i++)
        assert_int_equal(read(offset + i, 1), got[offset + i]);
}

static void every_write(void (*make)(struct fake_func *), const struct field *fields, size_t count)
{
    static uint8_t value[4096], writable[4096], got[4096];
    expected(fields, count, value, writable);
    start(make);
    dump(got);
    assert_memory_equal(got, value, sizeof(got));
    for (unsigned size = 1; size <= 4; size *= 2)
        for (uint32_t offset = 0; offset < 4096; offset += size) {
            one_write(make, value, writable, offset, size, ~0u);
            one_write(make, value, writable, offset, size, 0);
            one_write(make, value, writable, offset, size, 0x7f7f7f7f); /* no FLR */
            one_write(make, value, writable, offset, size, 0x80838083);
        }
}

static void test_every_write_vf(void **state)
{
    every_write(fake_func_vf, vf_fields, ARRAY_SIZE(vf_fields));
}
static void test_every_write_pf(void **state)
{
    every_write(fake_func_pf, pf_fields, ARRAY_SIZE(pf_fields));
}
static void test_every_write_msi(void **state)
{
    every_write(fake_func_msi, msi_fields, ARRAY_SIZE(msi_fields));
}

/* What is refused is told once per kind; all else in silence. */
static void test_notes(void **state)
{
    start(fake_func_vf);
    for (uint32_t offset = 0; offset < 0x40; offset += 4)
        write(offset, 4, offset == 4 ? 0 : 0x12345678);
    assert_int_equal(f.notes, 0);
    write(0x40, 4, 1);
    write(0x44, 1, 1);
    assert_int_equal(f.notes, 1);
    assert_non_null(strstr(f.note, "not shown"));
    write(0x104, 4, 1);
    write(0xffc, 2, 1);
    assert_int_equal(f.notes, 2);
    assert_non_null(strstr(f.note, "extended"));
    vpci_reset(&v); /* another life of the VM */
    write(0x40, 4, 1);
    assert_int_equal(f.notes, 3);
}

/* ---- what a driver does ---- */

static unsigned find_cap(uint8_t id)
{
    unsigned at = read(0x34, 1);
    for (unsigned i = 0; at && i < 48; i++, at = read(at + 1, 1))
        if (read(at, 1) == id)
            return at;
    return 0;
}

static void test_capability_list(void **state)
{
    start(fake_func_pf);
    assert_int_equal(find_cap(0x01), FAKE_CAP_PM);
    assert_int_equal(find_cap(0x11), FAKE_CAP_MSIX);
    assert_int_equal(find_cap(0x10), FAKE_CAP_PCIE);
    assert_int_equal(find_cap(0x13), FAKE_CAP_AF);
    assert_int_equal(find_cap(0x09), 0); /* vendor-specific: default deny */
    assert_int_equal(find_cap(0x05), 0); /* MSI-X is there */
    assert_int_equal(read(0x100, 4), 0);
    start(fake_func_vf);
    assert_int_equal(find_cap(0x01), 0);
    assert_int_equal(find_cap(0x11), FAKE_CAP_MSIX);
    start(fake_func_msi);
    assert_int_equal(find_cap(0x05), FAKE_CAP_MSI);
    assert_int_equal(find_cap(0x10), 0);
}

static uint64_t size_bar(unsigned bar)
{
    uint32_t reg = 0x10 + 4 * bar, low = read(reg, 4), high = 0, old_high = 0;
    write(reg, 4, ~0u);
    uint64_t mask = read(reg, 4) & ~0xfull;
    if ((low & 6) == 4) {
        old_high = read(reg + 4, 4);
        write(reg + 4, 4, ~0u);
        high = read(reg + 4, 4);
        write(reg + 4, 4, old_high);
    } else if (mask) {
        high = ~0u;
    }
    write(reg, 4, low);
    assert_int_equal(read(reg, 4), low);
    mask |= (uint64_t)high << 32;
    return mask ? ~mask + 1 : 0;
}

static void test_bar_sizing(void **state)
{
    start(fake_func_vf);
    assert_int_equal(size_bar(0), 0x4000);
    assert_int_equal(size_bar(2), 0);
    assert_int_equal(size_bar(3), 0x4000);
    assert_int_equal(size_bar(5), 0);
    write(0x30, 4, ~0u);
    assert_int_equal(read(0x30, 4), 0); /* no ROM */
    assert_int_equal(f.count, 0);
    start(fake_func_pf);
    assert_int_equal(size_bar(0), 0x8000);
    assert_int_equal(size_bar(2), 0);      /* I/O */
    assert_int_equal(size_bar(3), 0x1000); /* 256 bytes: a page of its own */
    /* Sizing with the decoder on: the BAR goes away and comes back. */
    write(4, 2, 2);
    assert_true(f.mapped[0] && f.mapped[3]);
    assert_int_equal(size_bar(0), 0x8000);
    assert_true(f.mapped[0]);
    assert_int_equal(f.mapped_at[0], 0xc0000000);
}

static void test_command(void **state)
{
    start(fake_func_vf);
    write(4, 2, 6); /* memory first, then bus mastering */
    assert_int_equal(f.count, 3);
    expect(0, EV_MAP, 0, 0x100000000);
    expect(1, EV_MAP, 3, 0x100004000);
    expect(2, EV_MASTER, 1, 0);
    write(4, 2, 6);
    assert_int_equal(f.count, 3);
    write(4, 4, 0xffff0000); /* the other way round; Status is not touched */
    assert_int_equal(f.count, 6);
    expect(3, EV_MASTER, 0, 0);
    expect(4, EV_UNMAP, 0, 0x100000000);
    expect(5, EV_UNMAP, 3, 0x100004000);
    assert_int_equal(read(4, 4), 0x00100000);
    write(4, 1, 4); /* a byte will do */
    assert_true(f.mastering);
    write(5, 1, 0xff);
    assert_true(f.mastering);
    assert_int_equal(read(4, 2), 0x504);
    write(4, 2, 2);
    assert_true(!f.mastering && f.mapped[0] && f.mapped[3]);
}

static void test_moved_bars(void **state)
{
    unsigned bar;
    uint64_t offset;
    start(fake_func_vf);
    write(4, 2, 2);
    f.count = 0;
    write(0x10, 4, 0x00100000); /* within the 64-bit window */
    expect(0, EV_UNMAP, 0, 0x100000000);
    expect(1, EV_MAP, 0, 0x100100000);
    assert_true(vpci_bar_at(&v, 0x100103fff, &bar, &offset));
    assert_int_equal(bar, 0);
    assert_int_equal(offset, 0x3fff);
    assert_false(vpci_bar_at(&v, 0x100104000, &bar, &offset));
    assert_false(vpci_bar_at(&v, 0x100000000, &bar, &offset));
    assert_true(vpci_bar_at(&v, 0x100004000, &bar, &offset));
    assert_int_equal(bar, 3);
    assert_int_equal(f.notes, 0);
    /* Over RAM, the I/O APIC, the local APIC, ECAM, the top, the edge of a window: it is nowhere. */
    static const uint64_t bad[] = {0x00100000,        0xfec00000,         0xfee00000, 0xe0000000,
                                   0xfffffffffffc000, 0xffffffffffffc000, 0xbfffc000, 0x200000000};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        write(0x14, 4, bad[i] >> 32);
        write(0x10, 4, (uint32_t)bad[i]);
        assert_false(f.mapped[0]);
        assert_true(f.mapped[3]);
        assert_false(vpci_bar_at(&v, bad[i], &bar, &offset));
    }
    assert_int_equal(f.notes, 1);
    write(0x14, 4, 0);
    write(0x10, 4, 0xdfffc000); /* the last place of the lower window */
    assert_true(f.mapped[0]);
    assert_int_equal(f.mapped_at[0], 0xdfffc000);
    /* Both at one place is the guest's own business. */
    write(0x20, 4, 0);
    write(0x1c, 4, 0xdfffc000);
    assert_true(f.mapped[0] && f.mapped[3]);
    vpci_reset(&v);
    assert_true(!f.mapped[0] && !f.mapped[3]);
    assert_int_equal(read(0x1c, 4), 0x0000400c);
    assert_int_equal(read(0x20, 4), 1);
}

static void table(unsigned entry, uint64_t address, uint32_t data, bool masked)
{
    struct io_req req = {.size = 8, .write = true, .value = address};
    uint64_t at = f.setup.msix_offset + 16ull * entry;
    vpci_mmio(&v, f.setup.msix_bar, at, &req);
    req.value = data | (uint64_t)masked << 32;
    vpci_mmio(&v, f.setup.msix_bar, at + 8, &req);
}

static void test_msix_through_every_width(void **state)
{
    for (unsigned size = 1; size <= 4; size *= 2) {
        unsigned at = size == 1 ? FAKE_CAP_MSIX + 3 : size == 2 ? FAKE_CAP_MSIX + 2 : FAKE_CAP_MSIX;
        unsigned shift = (FAKE_CAP_MSIX + 3 - at) * 8;
        start(fake_func_vf);
        write(4, 2, 6);
        f.count = 0;
        write(at, size, 0xc0u << shift);
        assert_int_equal(f.count, 1);
        expect(0, EV_HOST_WRITE, FAKE_CAP_MSIX + 2, 0xc002);
        assert_int_equal(read(FAKE_CAP_MSIX + 2, 2), 0xc002);
        table(1, 0xfee01000, 0x41, false);
        expect(1, EV_IRQ, 1, 0xfee01000);
        write(at, size, 0x80u << shift);
        assert_int_equal(f.config[FAKE_CAP_MSIX + 3] & 0xc0, 0x80);
        write(at, size, 0x40u << shift);
        expect(3, EV_IRQ_STOP, 1, 0xfee01000);
        assert_int_equal(f.config[FAKE_CAP_MSIX + 3] & 0xc0, 0x40);
        write(at, size, 0);
        assert_int_equal(f.config[FAKE_CAP_MSIX + 3] & 0xc0, 0);
        assert_int_equal(f.count, 6);
    }
}

static void test_flr(void **state)
{
    start(fake_func_pf);
    write(0x10, 4, 0xc1000000);
    write(4, 2, 0x546);
    write(0xc, 1, 16);
    write(0x3c, 1, 11);
    write(FAKE_CAP_MSIX + 2, 2, 0x8000);
    table(0, 0xfee00000, 0x40, false);
    table(63, 0xfee00000, 0x41, false);
    table(64, 0xfee00000, 0x42, false); /* is not shown */
    write(FAKE_CAP_PCIE + 8, 2, 0x5936);
    assert_int_equal(read(FAKE_CAP_PCIE + 8, 2), 0x5936);
    f.count = 0;
    write(FAKE_CAP_PCIE + 8, 2, 0x8000 | read(FAKE_CAP_PCIE + 8, 2));
    expect(0, EV_MASTER, 0, 0);
    expect(1, EV_IRQ_STOP, 0, 0xfee00000);
    expect(2, EV_IRQ_STOP, 63, 0xfee00000);
    assert_int_equal(f.events[3].kind, EV_HOST_WRITE);
    expect(4, EV_UNMAP, 0, 0xc1000000);
    expect(5, EV_UNMAP, 3, 0xc0008000);
    expect(6, EV_FLR, 0, 0);
    assert_int_equal(f.count, 7);
    assert_int_equal(read(4, 4), 0x00100000);
    assert_int_equal(read(0xc, 1), 0);
    assert_int_equal(read(0x3c, 1), 0);
    assert_int_equal(read(FAKE_CAP_MSIX + 2, 2), 0x3f);
    assert_int_equal(read(FAKE_CAP_PCIE + 8, 2), 0x2810);
    assert_int_equal(read(0x10, 4), 0xc1000004); /* stays */
    write(4, 2, 6);
    assert_true(f.mapped[0] && f.mapped_at[0] == 0xc1000000 && f.mastering);
    struct io_req req = {.size = 4};
    vpci_mmio(&v, 0, 0x1800 + 12, &req);
    assert_int_equal(req.value, 1); /* masked again */
    write(FAKE_CAP_AF + 4, 1, 1);   /* the other way */
    assert_int_equal(f.flrs, 2);
    assert_false(f.mastering);
    write(FAKE_CAP_AF + 4, 4, 0x100);
    assert_int_equal(f.flrs, 2);
}

/* While the real function is reset, the guest sees nothing of it, and changes nothing. */
static void test_slow_flr(void **state)
{
    start(fake_func_pf);
    f.slow = true;
    write(4, 2, 6);
    write(FAKE_CAP_MSIX + 2, 2, 0x8000);
    table(0, 0xfee00000, 0x40, false);
    write(FAKE_CAP_PCIE + 8, 2, 0x8000);
    assert_true(f.resetting);
    f.count = 0;
    for (uint32_t at = 0; at < 4096; at++)
        for (unsigned size = 1; size <= 4 && at % size == 0; size *= 2) {
            assert_int_equal(read(at, size), vdev_all_ones(size));
            write(at, size, 0x80018006); /* Command, MSI-X Enable, another reset */
        }
    struct io_req req = {.size = 4};
    vpci_mmio(&v, 0, 0x1800, &req);
    assert_int_equal(req.value, UINT32_MAX);
    assert_int_equal(f.count, 0);
    assert_int_equal(f.notes, 0);
    assert_int_equal(f.flrs, 1);
    f.resetting = false;
    assert_int_equal(read(4, 4), 0x00100000);
    assert_int_equal(read(0x10, 4), 0xc0000004);
    write(4, 2, 6);
    assert_true(f.mapped[0] && f.mastering);

    write(FAKE_CAP_AF + 4, 1,
          1); /* over before anybody looks: the write that finds out is no longer dropped */
    f.resetting = false;
    write(4, 2, 6);
    assert_true(f.mapped[0] && f.mastering);
    write(FAKE_CAP_AF + 4, 1, 1);
    vpci_reset(&v); /* another life of the VM */
    f.resetting = false;
    assert_int_equal(f.flrs, 3);
    f.flrs = 0; /* nobody is asked about a reset that is over */
    assert_int_equal(read(0, 4), 0x10c98086);
}

static void test_no_flr(void **state)
{
    fake_func_pf(&f);
    f.setup.flr = false;
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    pci_host_setup(&host, ECAM);
    pci_host_add(&host, &v.func);
    assert_int_equal(find_cap(0x13), 0);
    assert_int_equal(read(FAKE_CAP_PCIE + 4, 4), 0x00008027);
    write(FAKE_CAP_PCIE + 8, 2, 0x8000);
    write(FAKE_CAP_AF + 4, 1, 1);
    assert_int_equal(f.flrs, 0);
    assert_int_equal(read(FAKE_CAP_PCIE + 8, 2), 0);
}

static void test_live_bits(void **state)
{
    start(fake_func_pf);
    assert_int_equal(read(FAKE_CAP_PCIE + 10, 2), 0); /* the errors are the host's */
    f.config[FAKE_CAP_PCIE + 10] = 0x2f;
    assert_int_equal(read(FAKE_CAP_PCIE + 10, 2), 0x20);
    f.config[FAKE_CAP_AF + 5] = 0xff;
    assert_int_equal(read(FAKE_CAP_AF + 4, 4), 0x100);
    start(fake_func_msi);
    assert_int_equal(read(FAKE_CAP_MSI + 20, 4), 0);
    fake_func_put(&f, FAKE_CAP_MSI + 20, ~0u, 4);
    assert_int_equal(read(FAKE_CAP_MSI + 20, 4), 1);
    f.config[FAKE_CAP_PCIE + 10] = 0x20; /* no PCIe capability here */
    assert_int_equal(read(FAKE_CAP_PCIE + 8, 4), 0);
}

static void test_power(void **state)
{
    start(fake_func_pf);
    write(4, 2, 6);
    f.count = 0;
    for (unsigned state_written = 1; state_written <= 2; state_written++) {
        write(FAKE_CAP_PM + 4, 2, state_written);
        assert_int_equal(read(FAKE_CAP_PM + 4, 4), 8); /* there is no D1 or D2 */
    }
    assert_int_equal(f.count, 0);
    write(FAKE_CAP_PM + 4, 2, 0x8103); /* D3hot; no PME */
    assert_int_equal(read(FAKE_CAP_PM + 4, 4), 0xb);
    expect(0, EV_MASTER, 0, 0);
    assert_true(!f.mapped[0] && !f.mapped[3]);
    struct io_req req = {.size = 4};
    vpci_mmio(&v, 0, 0x1800, &req);
    assert_int_equal(req.value, 0xffffffff);
    write(4, 2, 2); /* nothing decodes now */
    write(4, 2, 6);
    assert_true(!f.mapped[0] && !f.mastering);
    write(FAKE_CAP_PM + 4, 1, 1); /* not from D3hot either */
    assert_int_equal(read(FAKE_CAP_PM + 4, 4), 0xb);
    write(FAKE_CAP_PM + 4, 2, 0);
    assert_true(f.mapped[0] && f.mapped[3] && f.mastering); /* No_Soft_Reset: all as it was */
    write(FAKE_CAP_PM + 4, 2, 3);
    write(FAKE_CAP_PCIE + 9, 1, 0x80);
    assert_int_equal(read(FAKE_CAP_PM + 4, 4), 8);
}

static void test_msi(void **state)
{
    start(fake_func_msi);
    write(FAKE_CAP_MSI + 4, 4, 0xfee00003);
    write(FAKE_CAP_MSI + 8, 4, 0);
    write(FAKE_CAP_MSI + 12, 2, 0x41);
    assert_int_equal(f.count, 0);
    write(FAKE_CAP_MSI + 16, 4, ~0u);
    expect(0, EV_HOST_WRITE, FAKE_CAP_MSI + 16, 1);
    write(FAKE_CAP_MSI + 2, 2, 0xff); /* more messages than one cannot be chosen */
    assert_int_equal(read(FAKE_CAP_MSI + 2, 2), 0x181);
    expect(1, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18b);
    assert_int_equal(f.count, 2); /* on, but masked: what comes is pending */
    write(FAKE_CAP_MSI + 16, 1, 0);
    expect(2, EV_IRQ, 0, 0xfee00000);
    expect(3, EV_HOST_WRITE, FAKE_CAP_MSI + 16, 0);
    assert_int_equal(f.data[0], 0x41);
    write(FAKE_CAP_MSI + 12, 2, 0x51);
    expect(4, EV_IRQ, 0, 0xfee00000);
    write(FAKE_CAP_MSI + 8, 4, 1);
    expect(5, EV_IRQ, 0, 0x1fee00000);
    write(FAKE_CAP_MSI + 16, 1, 1);
    expect(6, EV_HOST_WRITE, FAKE_CAP_MSI + 16, 1);
    expect(7, EV_IRQ_STOP, 0, 0x1fee00000);
    write(FAKE_CAP_MSI + 16, 1, 0);
    f.count = 0;
    write(FAKE_CAP_MSI + 2, 1, 0);
    expect(0, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18a);
    expect(1, EV_IRQ_STOP, 0, 0x1fee00000);
    write(FAKE_CAP_MSI, 4, 0x10000);
    expect(2, EV_IRQ, 0, 0x1fee00000);
    expect(3, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18b);
    assert_int_equal(f.count, 4);
    write(FAKE_CAP_MSI + 16, 1, 1);
    f.count = 0;
    vpci_reset(&v);
    expect(0, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18a);
    expect(1, EV_HOST_WRITE, FAKE_CAP_MSI + 16, 0); /* as at power-on */
    assert_int_equal(f.count, 2);
    assert_int_equal(read(FAKE_CAP_MSI + 4, 4), 0);
    assert_int_equal(vpci_irqs(&v), 1);
}

/* With a message that is none the real one is not enabled, whatever the guest reads, and is as soon as it is
 * one. Masked it may be: what comes is pending. */
static void test_msi_message(void **state)
{
    start(fake_func_msi);
    f.picky = true;
    write(FAKE_CAP_MSI + 4, 4, 0x1000);
    f.count = 0;
    write(FAKE_CAP_MSI + 2, 2, 1);
    expect(0, EV_IRQ, 0, 0x1000);
    assert_int_equal(f.count, 1);
    assert_int_equal(read(FAKE_CAP_MSI + 2, 2), 0x181);
    write(FAKE_CAP_MSI + 4, 4, 0xfee00000);
    expect(1, EV_IRQ, 0, 0xfee00000);
    expect(2, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18b);
    write(FAKE_CAP_MSI + 8, 4, 1);
    expect(3, EV_IRQ, 0, 0x1fee00000);
    expect(4, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18a);
    write(FAKE_CAP_MSI + 16, 4, 1);
    expect(5, EV_HOST_WRITE, FAKE_CAP_MSI + 16, 1);
    expect(6, EV_IRQ_STOP, 0, 0x1fee00000);
    expect(7, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18b);
    write(FAKE_CAP_MSI + 16, 4, 0);
    expect(8, EV_IRQ, 0, 0x1fee00000);
    expect(9, EV_HOST_WRITE, FAKE_CAP_MSI + 2, 0x18a); /* off before it is unmasked */
    expect(10, EV_HOST_WRITE, FAKE_CAP_MSI + 16, 0);
    assert_int_equal(f.count, 11);
}

/* 32-bit and without mask bits: data comes sooner, and then nothing. */
static void test_small_msi(void **state)
{
    fake_func_msi(&f);
    f.config[FAKE_CAP_MSI + 2] = 0;
    f.config[FAKE_CAP_MSI + 3] = 0;
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    pci_host_setup(&host, ECAM);
    pci_host_add(&host, &v.func);
    write(FAKE_CAP_MSI + 4, 4, 0xfee00000);
    write(FAKE_CAP_MSI + 8, 4, 0xffff0041);
    assert_int_equal(read(FAKE_CAP_MSI + 8, 4), 0x41);
    write(FAKE_CAP_MSI + 12, 4, ~0u);
    assert_int_equal(read(FAKE_CAP_MSI + 12, 4), 0);
    write(FAKE_CAP_MSI + 2, 2, 1);
    assert_true(f.live[0]);
    assert_int_equal(f.data[0], 0x41);
    fake_func_put(&f, FAKE_CAP_MSI + 20, ~0u, 4);
    assert_int_equal(read(FAKE_CAP_MSI + 16, 4), 0);
    assert_int_equal(read(FAKE_CAP_MSI + 20, 4), 0);
}

/* ---- memory ---- */

static uint64_t mmio(unsigned bar, uint64_t offset, unsigned size)
{
    struct io_req req = {.size = (uint8_t)size, .value = 0x55};
    vpci_mmio(&v, bar, offset, &req);
    return req.value;
}

static void mmio_write(unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct io_req req = {.size = (uint8_t)size, .write = true, .value = value};
    vpci_mmio(&v, bar, offset, &req);
}

static void test_memory(void **state)
{
    start(fake_func_pf);
    for (unsigned i = 0; i < FAKE_FUNC_BAR; i++)
        f.bars[0][i] = (uint8_t)(i * 7 + (i >> 8));
    assert_int_equal(mmio(0, 0x1000, 4), 0xffffffff); /* does not decode */
    mmio_write(0, 0x1000, 4, 1);
    write(4, 2, 2);
    f.count = 0;
    for (unsigned size = 1; size <= 8; size *= 2)
        for (uint64_t at = 0x1000; at < 0x2000; at += size) {
            uint64_t real = 0;
            memcpy(&real, f.bars[0] + at, size);
            bool in_table = at >= 0x1800 && at < 0x1800 + 70 * 16;
            if (in_table)
                real = at % 16 == 12 && at < 0x1c00               ? 1
                       : at % 16 == 8 && size == 8 && at < 0x1c00 ? 1ull << 32
                                                                  : 0;
            assert_int_equal(mmio(0, at, size), real);
        }
    static uint8_t before[FAKE_FUNC_BAR];
    memcpy(before, f.bars[0], sizeof(before));
    for (uint64_t at = 0x1000; at < 0x2000; at++)
        mmio_write(0, at, 1, 0xa5);
    for (uint64_t at = 0; at < 0x8000; at++) { /* all of the page, but neither the table nor the PBA */
        bool is_ours =
            at >= 0x1000 && at < 0x2000 && !(at >= 0x1800 && at < 0x1c60) && !(at >= 0x1d00 && at < 0x1d10);
        assert_int_equal(f.bars[0][at], is_ours ? 0xa5 : before[at]);
    }
    assert_int_equal(f.notes, 0);
    assert_int_equal(mmio(0, 0x1001, 4), 0xffffffff);
    assert_int_equal(f.notes, 1);
    mmio_write(0, 0x1806, 4, 0);
    assert_int_equal(f.notes, 1);
    assert_int_equal(mmio(0, 0x7ffc, 8), 0xffffffffffffffff);
    assert_int_equal(mmio(0, 0x8000, 1), 0xff);
    assert_int_equal(mmio(0, ~0ull, 1), 0xff);
    assert_int_equal(mmio(3, 0xfc, 4), 0); /* its own 256 bytes, and nothing behind them */
    assert_int_equal(mmio(3, 0x100, 4), 0xffffffff);
    assert_int_equal(mmio(2, 0, 1), 0xff);
    assert_int_equal(mmio(6, 0, 2), 0xffff);
}

static void test_trapped_pages(void **state)
{
    static const struct {
        uint32_t offset;
        uint16_t count;
        uint64_t first, size;
    } cases[] = {
        {0, 3, 0, 0x1000},
        {0x1800, 70, 0x1000, 0x1000},
        {0x1ff8, 1, 0x1000, 0x2000},
        {0x2000, 256, 0x2000, 0x1000},
        {0x2000, 257, 0x2000, 0x2000},
        {0, 1, 0, 0x1000},
    };
    uint64_t first, size;
    fake_func_pf(&f);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        f.setup.msix_offset = cases[i].offset;
        f.setup.msix_count = cases[i].count;
        assert_true(vpci_trapped(&f.setup, 0, &first, &size));
        assert_int_equal(first, cases[i].first);
        assert_int_equal(size, cases[i].size);
        assert_false(vpci_trapped(&f.setup, 3, &first, &size));
    }
    f.setup.msix_count = 0;
    assert_false(vpci_trapped(&f.setup, 0, &first, &size));
    assert_int_equal(vpci_bar_size(&f.setup, 0), 0x8000);
    assert_int_equal(vpci_bar_size(&f.setup, 1), 0);
    assert_int_equal(vpci_bar_size(&f.setup, 2), 0);
    assert_int_equal(vpci_bar_size(&f.setup, 3), 0x1000);
    assert_int_equal(vpci_bar_size(&f.setup, 6), 0);
}

/* Table and PBA in different BARs: the PBA's is all the guest's. */
static void test_pba_elsewhere(void **state)
{
    fake_func_vf(&f);
    f.setup.msix_pba_bar = 0;
    f.setup.msix_pba_offset = 0;
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    pci_host_setup(&host, ECAM);
    pci_host_add(&host, &v.func);
    assert_int_equal(read(FAKE_CAP_MSIX + 8, 4), 0);
    write(4, 2, 2);
    f.bars[0][0] = 5;
    assert_int_equal(mmio(0, 0, 8), 5);
    mmio_write(0, 0, 8, 0);
    assert_int_equal(mmio(0, 0, 8), 5);
    assert_int_equal(mmio(3, 0x2000, 4), 0); /* just memory */
    mmio_write(3, 0x2000, 4, 0x77);
    assert_int_equal(mmio(3, 0x2000, 4), 0x77);
}

/* ---- what cannot be ---- */

#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        fake_func_pf(&f);                                                                                    \
        change;                                                                                              \
        assert_int_equal(vpci_init(&v, &f.setup, &f.env), ERR_INVALID);                                      \
        assert_int_equal(f.count, 0);                                                                        \
    } while (0)

static void test_bad_setups(void **state)
{
    REFUSED(f.setup.guest_bdf = PCI_BDF(0, 16, 1));
    REFUSED(f.setup.bars[0].size = 0x9000);
    REFUSED(f.setup.bars[0].kind = 5);
    REFUSED(f.setup.bars[1] = ((struct vpci_bar){0x1000, 0, PCI_BAR_MEM32})); /* an upper half */
    REFUSED(f.setup.bars[5] = ((struct vpci_bar){0x1000, 0, PCI_BAR_MEM64}));
    REFUSED(f.setup.bars[0].gpa = 0xc0004000); /* not aligned */
    REFUSED(f.setup.bars[3].gpa = 0xc0000800);
    REFUSED(f.setup.bars[0].gpa = 0xe0000000);  /* outside */
    REFUSED(f.setup.bars[3].gpa = 0x100000000); /* beyond a 32-bit BAR */
    REFUSED(f.setup.msix = 0);
    REFUSED(f.setup.msix = FAKE_CAP_MSIX + 2);
    REFUSED(f.config[FAKE_CAP_MSIX] = 5);
    REFUSED(f.setup.msix_count = 2049);
    REFUSED(f.setup.msix_offset = 0x7c00); /* ends outside */
    REFUSED(f.setup.msix_offset = 0x8000);
    REFUSED(f.setup.msix_offset = 0x1804);
    REFUSED(f.setup.msix_bar = 6);
    REFUSED(f.setup.msix_bar = 2);
    REFUSED(f.setup.msix_bar = 1);
    REFUSED(f.setup.msix_pba_bar = 7);
    REFUSED(f.setup.msix_pba_offset = 0x7ff8); /* needs 16 bytes */
    REFUSED(f.setup.msix_pba_offset = 0x1c58); /* in the table */
    REFUSED(f.setup.msix_pba_offset = 0x17f8);
    /* Just right. */
    fake_func_pf(&f);
    f.setup.msix_pba_offset = 0x1c60;
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    f.setup.msix_pba_offset = 0x17f0;
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    f.setup.bars[3].gpa = 0;
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    v.func.write(&v.func, 4, 2, 0xffff);
    assert_true(f.mapped[0] && !f.mapped[3]);
    assert_int_equal(f.notes, 0);
}

static void open_anyway(void)
{
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), STATUS_OK);
    pci_host_setup(&host, ECAM);
    pci_host_add(&host, &v.func);
}

/* A capability that is not what it is said to be is not shown. */
static void test_bad_capabilities(void **state)
{
    fake_func_pf(&f);
    f.config[FAKE_CAP_PM] = 9;
    open_anyway();
    assert_int_equal(find_cap(1), 0);
    assert_int_equal(find_cap(0x11), FAKE_CAP_MSIX);
    fake_func_pf(&f);
    f.setup.pm = FAKE_CAP_MSIX - 4; /* would reach into the next */
    fake_func_put(&f, FAKE_CAP_MSIX - 4, 1, 1);
    f.setup.af = 0xfc;
    f.config[0xfc] = 0x13;
    fake_func_put(&f, FAKE_CAP_PCIE + 2, 0x0042, 2);                /* a root port */
    assert_int_equal(vpci_init(&v, &f.setup, &f.env), ERR_INVALID); /* MSI-X does not fit any more */
    f.setup.pm = 0x3c;
    open_anyway();
    assert_int_equal(read(0x34, 1), FAKE_CAP_MSIX);
    assert_int_equal(read(FAKE_CAP_MSIX + 1, 1), 0);
    for (unsigned version = 0; version < 16; version++) {
        fake_func_vf(&f);
        f.config[FAKE_CAP_PCIE + 2] = (uint8_t)version;
        open_anyway();
        assert_int_equal(find_cap(0x10), version == 1 || version == 2 ? FAKE_CAP_PCIE : 0);
    }
    fake_func_vf(&f);
    f.setup.pcie = 0xc8; /* no room for 0x3c bytes */
    fake_func_put(&f, 0xc8, 0x00020010, 4);
    open_anyway();
    assert_int_equal(find_cap(0x10), 0);
    fake_func_msi(&f);
    f.setup.msi = 0xf0; /* no room for 24 bytes */
    fake_func_put(&f, 0xf0, 0x01800005, 4);
    open_anyway();
    assert_int_equal(vpci_irqs(&v), 0);
    assert_int_equal(read(4, 4), 0); /* no list */
    f.setup.msi = 3;
    f.setup.pcie = 0xa2;
    open_anyway();
    assert_int_equal(read(0x34, 4), 0);
}

static void test_reset_takes_all_away(void **state)
{
    static uint8_t fresh[4096], now[4096];
    start(fake_func_pf);
    dump(fresh);
    write(0x10, 4, 0xd0000000);
    write(4, 2, 6);
    write(FAKE_CAP_MSIX + 2, 2, 0xc000);
    table(2, 0xfee00000, 0x44, false);
    write(FAKE_CAP_PCIE + 8, 2, 0);
    f.count = 0;
    host.ports.ops = &pci_host_port_ops;
    host.ports.ops->reset(&host.ports); /* the machine's reset reaches it */
    expect(0, EV_MASTER, 0, 0);
    expect(1, EV_IRQ_STOP, 2, 0xfee00000);
    assert_int_equal(f.events[2].kind, EV_HOST_WRITE);
    expect(3, EV_UNMAP, 0, 0xd0000000);
    expect(4, EV_UNMAP, 3, 0xc0008000);
    assert_int_equal(f.count, 5);
    assert_int_equal(f.flrs, 0);
    dump(now);
    assert_memory_equal(now, fresh, sizeof(now));
    vpci_reset(&v);
    assert_int_equal(f.count, 5);
    assert_int_equal(vpci_irqs(&v), 64);
}

int main(void)
{
#define T(t) cmocka_unit_test(t)
    const struct CMUnitTest tests[] = {
        T(test_every_write_vf),
        T(test_every_write_pf),
        T(test_every_write_msi),
        T(test_notes),
        T(test_capability_list),
        T(test_bar_sizing),
        T(test_command),
        T(test_moved_bars),
        T(test_msix_through_every_width),
        T(test_flr),
        T(test_slow_flr),
        T(test_no_flr),
        T(test_live_bits),
        T(test_power),
        T(test_msi),
        T(test_msi_message),
        T(test_small_msi),
        T(test_memory),
        T(test_trapped_pages),
        T(test_pba_elsewhere),
        T(test_bad_setups),
        T(test_bad_capabilities),
        T(test_reset_takes_all_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
