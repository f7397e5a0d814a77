/* The PCI host bridge and the masked configuration space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/vdev/pci_host.h"

#define ECAM 0xb0000000ull

static struct pci_host host;
static struct {
    struct pci_func func;
    unsigned reads, writes, resets;
    uint32_t offset, value, mask;
} card;

static uint32_t card_read(struct pci_func *func, uint32_t offset)
{
    assert_ptr_equal(func, &card.func);
    card.reads++;
    card.offset = offset;
    return 0x80706050 + (offset & 0xff);
}
static void card_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    card.writes++;
    card.offset = offset;
    card.value = value;
    card.mask = mask;
}
static void card_reset(struct pci_func *func)
{
    card.resets++;
}

static int setup(void **state)
{
    memset(&host, 0xa5, sizeof(host));
    memset(&card, 0, sizeof(card));
    card.func = (struct pci_func){
        .bdf = PCI_BDF(2, 3, 1), .read = card_read, .write = card_write, .reset = card_reset};
    pci_host_setup(&host, ECAM);
    assert_int_equal(pci_host_add(&host, &card.func), STATUS_OK);
    pci_host_port_ops.init(&host.ports);
    pci_host_ecam_ops.init(&host.ecam);
    return 0;
}

static uint64_t in(uint16_t port, unsigned size)
{
    struct io_req req = {.addr = port, .size = (uint8_t)size, .value = 0x5555};
    pci_host_port_ops.access(&host.ports, &req);
    return req.value;
}
static void out(uint16_t port, unsigned size, uint64_t value)
{
    struct io_req req = {.addr = port, .size = (uint8_t)size, .value = value, .write = true};
    pci_host_port_ops.access(&host.ports, &req);
}
static uint64_t ecam_read(uint64_t offset, unsigned size)
{
    struct io_req req = {.addr = ECAM + offset, .size = (uint8_t)size, .value = 0x5555};
    pci_host_ecam_ops.access(&host.ecam, &req);
    return req.value;
}
static void ecam_write(uint64_t offset, unsigned size, uint64_t value)
{
    struct io_req req = {.addr = ECAM + offset, .size = (uint8_t)size, .value = value, .write = true};
    pci_host_ecam_ops.access(&host.ecam, &req);
}
static uint32_t address(uint16_t bdf, unsigned reg)
{
    return 0x80000000u | (uint32_t)bdf << 8 | reg;
}

static void test_address_register(void **state)
{
    assert_int_equal(in(0xcf8, 4), 0);
    out(0xcf8, 4, 0xffffffff);
    assert_true(in(0xcf8, 4) == 0x80fffffc);
    for (uint16_t port = 0xcf8; port < 0xcfc;
         port++) { /* narrower accesses pass by, so Linux's probes see type 1 */
        out(port, 1, 0);
        assert_int_equal(in(port, 1), 0xff);
    }
    out(0xcf8, 2, 0);
    assert_int_equal(in(0xcf8, 2), 0xffff);
    assert_int_equal(in(0xcfa, 2), 0xffff);
    assert_true(in(0xcf8, 4) == 0x80fffffc);
    pci_host_port_ops.reset(&host.ports);
    assert_int_equal(in(0xcf8, 4), 0);
    assert_int_equal(card.resets, 2); /* init and reset */
    pci_host_ecam_ops.reset(&host.ecam);
    assert_int_equal(card.resets, 2);
}

static void test_host_bridge_identity(void **state)
{
    out(0xcf8, 4, address(0, 0));
    assert_int_equal(in(0xcfc, 4), 0x00081b36);
    assert_int_equal(in(0xcfc, 2), 0x1b36);
    assert_int_equal(in(0xcfe, 2), 0x0008);
    assert_int_equal(in(0xcfd, 1), 0x1b);
    out(0xcf8, 4, address(0, 8));
    assert_int_equal(in(0xcfc, 4), 0x06000000);
    out(0xcf8, 4, address(0, 0xc));
    assert_int_equal(in(0xcfe, 1), 0);            /* header type 0, one function */
    for (uint32_t reg = 0; reg < 256; reg += 4) { /* nothing writable */
        uint64_t before = ecam_read(reg, 4);
        ecam_write(reg, 4, ~before & 0xffffffff);
        assert_true(ecam_read(reg, 4) == before);
    }
    assert_true(ecam_read(0x100, 4) == 0xffffffff); /* no extended space */
    ecam_write(0x100, 4, 0);
}

static void test_empty_slots(void **state)
{
    out(0xcf8, 4, address(PCI_BDF(0, 1, 0), 0));
    assert_true(in(0xcfc, 4) == 0xffffffff);
    assert_int_equal(in(0xcfc, 2), 0xffff);
    assert_int_equal(in(0xcff, 1), 0xff);
    out(0xcfc, 4, 0);
    assert_true(ecam_read(0x1000, 4) == 0xffffffff); /* function 1 of the bridge */
    assert_true(ecam_read(0x0ffffffc, 4) == 0xffffffff);
    assert_true(ecam_read(0x8000, 8) == UINT64_MAX);
    ecam_write(0x8000, 8, 0);
    assert_int_equal(card.reads + card.writes, 0);
}

static void test_ports_reach_the_function(void **state)
{
    out(0xcf8, 4, address(card.func.bdf, 0x40));
    assert_true(in(0xcfc, 4) == 0x80706090);
    assert_int_equal(card.offset, 0x40);
    assert_int_equal(in(0xcfd, 1), 0x60);
    assert_int_equal(in(0xcfe, 2), 0x8070);
    assert_int_equal(in(0xcfd, 2), 0x7060); /* unaligned, in the dword: byte enables */
    unsigned reads = card.reads;
    assert_int_equal(in(0xcff, 2), 0xffff); /* leaves the data port */
    assert_true(in(0xcfe, 4) == 0xffffffff);
    assert_int_equal(card.reads, reads);
    static const struct {
        uint16_t port;
        unsigned size;
        uint32_t value, mask;
    } rows[] = {
        {0xcfc, 4, 0x11223344, 0xffffffff}, {0xcfc, 1, 0x44, 0xff},
        {0xcfd, 1, 0x4400, 0xff00},         {0xcfe, 2, 0x33440000, 0xffff0000},
        {0xcff, 1, 0x44000000, 0xff000000}, {0xcfd, 2, 0x334400, 0xffff00},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        out(rows[i].port, rows[i].size, 0x11223344 & vdev_all_ones(rows[i].size));
        assert_int_equal(card.writes, i + 1);
        assert_int_equal(card.value & card.mask, rows[i].value);
        assert_int_equal(card.mask, rows[i].mask);
        assert_int_equal(card.offset, 0x40);
    }
    card.writes = 0;
    out(0xcff, 2, 0);
    out(0xcf8, 4, address(card.func.bdf, 0x40) & 0x7fffffff); /* not enabled */
    out(0xcfc, 4, 0);
    assert_true(in(0xcfc, 4) == 0xffffffff);
    assert_int_equal(card.writes, 0);
}

static void test_ecam_reaches_the_function(void **state)
{
    uint64_t base = (uint64_t)card.func.bdf << 12;
    assert_true(ecam_read(base + 0xffc, 4) == 0x8070614c);
    assert_int_equal(card.offset, 0xffc);
    assert_int_equal(ecam_read(base + 3, 1), 0x80);
    assert_true(ecam_read(base + 8, 8) == 0x8070605c80706058);
    assert_true(ecam_read(base + 4, 8) == UINT64_MAX); /* misaligned */
    assert_true(ecam_read(base + 2, 4) == 0xffffffff);
    ecam_write(base + 0x12, 2, 0xabcd);
    assert_int_equal(card.mask, 0xffff0000);
    assert_int_equal(card.value & card.mask, 0xabcd0000);
    assert_int_equal(card.offset, 0x10);
    ecam_write(base + 0x18, 8, 0x1122334455667788);
    assert_int_equal(card.writes, 3);
    assert_int_equal(card.offset, 0x1c);
    assert_int_equal(card.value, 0x11223344);
    ecam_write(base + 0x1f, 2, 0);
    assert_int_equal(card.writes, 3);
    assert_true(ecam_read(PCI_HOST_ECAM_SIZE, 4) == 0xffffffff);
    assert_true(ecam_read((uint64_t)-4, 4) == 0xffffffff);
}

static void test_table(void **state)
{
    static struct pci_func more[PCI_HOST_MAX_FUNCS];
    struct pci_func again = card.func;
    assert_int_equal(pci_host_add(&host, &again), ERR_EXISTS);
    again.bdf = 0;
    assert_int_equal(pci_host_add(&host, &again), ERR_EXISTS);
    for (uint32_t i = 0; i < PCI_HOST_MAX_FUNCS - 1; i++) {
        more[i] = card.func;
        more[i].bdf = PCI_BDF(9, i, 0);
        assert_int_equal(pci_host_add(&host, &more[i]),
                         i < PCI_HOST_MAX_FUNCS - 2 ? STATUS_OK : ERR_NO_MEMORY);
    }
}

/* ---- configuration space ---- */

static struct pci_space space;
static uint32_t storage[3 * PCI_SPACE_LEGACY_DWORDS];

static int setup_space(void **state)
{
    memset(storage, 0xa5, sizeof(storage));
    pci_space_init(&space, storage, PCI_SPACE_LEGACY_DWORDS, 0x1af4, 0x1041, 0x020000);
    return 0;
}

static void test_space_masks(void **state)
{
    assert_int_equal(pci_space_read(&space, PCI_REG_ID), 0x10411af4);
    assert_int_equal(pci_space_read(&space, PCI_REG_CLASS), 0x02000000);
    space.value[0x40 / 4] = 0xff00ff00;
    space.writable[0x40 / 4] = 0x0000ffff;
    space.w1c[0x40 / 4] = 0xff000000;
    pci_space_write(&space, 0x40, 0x81121234, 0xffffffff);
    assert_int_equal(pci_space_read(&space, 0x40), 0x7e001234);
    pci_space_write(&space, 0x40, 0xffffffff, 0x0000ff00); /* byte enables */
    assert_int_equal(pci_space_read(&space, 0x40), 0x7e00ff34);
    pci_space_write(&space, 0x40, 0xffffffff, 0xff000000);
    assert_int_equal(pci_space_read(&space, 0x40), 0x0000ff34);
    assert_true(pci_space_read(&space, 0x100) == 0xffffffff);
    pci_space_write(&space, 0x100, 0, ~0u);
}

static void test_bar_sizing(void **state)
{
    uint64_t where;
    assert_int_equal(pci_space_add_bar(&space, 0, PCI_BAR_MEM32, 0x4000), STATUS_OK);
    assert_int_equal(pci_space_add_bar(&space, 1, PCI_BAR_IO, 0x20), STATUS_OK);
    assert_int_equal(pci_space_add_bar(&space, 2, PCI_BAR_MEM64_PREFETCH, 1ull << 33), STATUS_OK);
    assert_int_equal(pci_space_add_bar(&space, 4, PCI_BAR_MEM64, 16), STATUS_OK);
    static const uint32_t sized[] = {0xffffc000, 0xffffffe1, 0x0000000c, 0xfffffffe, 0xfffffff4, 0xffffffff};
    for (uint32_t i = 0; i < 6; i++) {
        pci_space_write(&space, PCI_REG_BAR0 + 4 * i, ~0u, ~0u);
        assert_int_equal(pci_space_read(&space, PCI_REG_BAR0 + 4 * i), sized[i]);
    }
    pci_space_write(&space, PCI_REG_BAR0, 0xe0001234, ~0u);
    pci_space_write(&space, PCI_REG_BAR0 + 4, 0xc047, ~0u);
    pci_space_write(&space, PCI_REG_BAR0 + 8, 0, ~0u);
    pci_space_write(&space, PCI_REG_BAR0 + 12, 0x47, ~0u);
    for (unsigned i = 0; i < 7; i++) /* the decoders are off */
        assert_false(pci_space_bar(&space, i, &where));
    pci_space_write(&space, PCI_REG_COMMAND, ~0u, ~0u);
    assert_int_equal(pci_space_read(&space, PCI_REG_COMMAND), PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    assert_true(pci_space_bar(&space, 0, &where) && where == 0xe0000000);
    assert_true(pci_space_bar(&space, 1, &where) && where == 0xc040);
    assert_true(pci_space_bar(&space, 2, &where) && where == 0x4600000000);
    assert_false(pci_space_bar(&space, 3, &where));
    assert_false(pci_space_bar(&space, 6, &where));
    pci_space_write(&space, PCI_REG_COMMAND, PCI_COMMAND_MEMORY, ~0u);
    assert_false(pci_space_bar(&space, 1, &where));
    assert_true(pci_space_bar(&space, 0, &where));
}

static void test_bar_rules(void **state)
{
    static const struct {
        unsigned index;
        enum pci_bar_kind kind;
        uint64_t size;
    } bad[] = {
        {6, PCI_BAR_MEM32, 16},     {0, PCI_BAR_NONE, 16},          {0, (enum pci_bar_kind)5, 16},
        {5, PCI_BAR_MEM64, 16},     {0, PCI_BAR_MEM32, 0},          {0, PCI_BAR_MEM32, 8},
        {0, PCI_BAR_MEM32, 0x3000}, {0, PCI_BAR_MEM32, 1ull << 32}, {0, PCI_BAR_IO, 2},
        {0, PCI_BAR_IO, 512},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(pci_space_add_bar(&space, bad[i].index, bad[i].kind, bad[i].size), ERR_INVALID);
    assert_int_equal(pci_space_add_bar(&space, 2, PCI_BAR_MEM64, 4096), STATUS_OK);
    assert_int_equal(pci_space_add_bar(&space, 2, PCI_BAR_MEM32, 4096), ERR_EXISTS);
    assert_int_equal(pci_space_add_bar(&space, 3, PCI_BAR_MEM32, 4096), ERR_EXISTS); /* upper half */
    assert_int_equal(pci_space_add_bar(&space, 1, PCI_BAR_MEM64, 4096), ERR_EXISTS); /* needs register 2 */
    assert_int_equal(pci_space_add_bar(&space, 1, PCI_BAR_MEM32, 4096), STATUS_OK);
    assert_int_equal(pci_space_add_bar(&space, 4, PCI_BAR_MEM32, 4096), STATUS_OK);
}

int main(void)
{
#define H(t) cmocka_unit_test_setup(t, setup)
#define S(t) cmocka_unit_test_setup(t, setup_space)
    const struct CMUnitTest tests[] = {
        H(test_address_register),
        H(test_host_bridge_identity),
        H(test_empty_slots),
        H(test_ports_reach_the_function),
        H(test_ecam_reaches_the_function),
        H(test_table),
        S(test_space_masks),
        S(test_bar_sizing),
        S(test_bar_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
