/* Dispatch: every port and address goes to exactly the device that claimed it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/pc/bus.h"

struct probe {
    struct vdev dev;
    unsigned calls;
    struct io_req last;
    uint8_t answer;
};

static void probe_access(struct vdev *dev, struct io_req *req)
{
    struct probe *p = container_of(dev, struct probe, dev);
    p->calls++;
    p->last = *req;
    if (!req->write)
        req->value = p->answer;
}

static const struct vdev_ops probe_ops = {.name = "probe", .access = probe_access};
static struct probe a = {.dev = {.ops = &probe_ops}, .answer = 0xaa},
                    b = {.dev = {.ops = &probe_ops}, .answer = 0xbb},
                    c = {.dev = {.ops = &probe_ops}, .answer = 0xcc};
static struct bus bus;

static int setup(void **state)
{
    (void)state;
    memset(&bus, 0, sizeof(bus));
    a.calls = b.calls = 0;
    return 0;
}

static void test_ports(void **state)
{
    (void)state;
    assert_int_equal(bus_add_ports(&bus, 0x3f8, 8, &a.dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0xfe, 4, &b.dev), STATUS_OK); /* crosses a leaf */
    assert_int_equal(bus_add_ports(&bus, 0xffff, 1, &b.dev), STATUS_OK);
    for (uint32_t port = 0; port < BUS_PORTS; port++) {
        struct vdev *want = port >= 0x3f8 && port < 0x400                      ? &a.dev
                            : (port >= 0xfe && port < 0x102) || port == 0xffff ? &b.dev
                                                                               : NULL;
        assert_ptr_equal(bus_find_port(&bus, (uint16_t)port, 1), want);
    }
    assert_ptr_equal(bus_find_port(&bus, 0x3fe, 2), &a.dev);
    assert_null(bus_find_port(&bus, 0x3ff, 2)); /* leaves the device */
    assert_null(bus_find_port(&bus, 0x3fd, 4));
    assert_null(bus_find_port(&bus, 0xffff, 2)); /* leaves the port space */
    assert_null(bus_find_port(&bus, 0xffff, 4));
    assert_int_equal(bus.device_count, 2);
}

static void test_refusals_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(bus_add_ports(&bus, 0x60, 1, &a.dev), STATUS_OK);
    static struct bus before;
    before = bus;
    assert_int_equal(bus_add_ports(&bus, 0x5f, 2, &b.dev), ERR_EXISTS);
    assert_int_equal(bus_add_ports(&bus, 0x60, 1, &a.dev), ERR_EXISTS);
    assert_int_equal(bus_add_ports(&bus, 0x70, 0, &b.dev), ERR_INVALID);
    assert_int_equal(bus_add_ports(&bus, 0xffff, 2, &b.dev), ERR_INVALID);
    assert_int_equal(bus_add_ports(&bus, 0x70, 1, NULL), ERR_INVALID);
    assert_int_equal(bus_add_ports(&bus, 0x1000, 0x1000, &b.dev), ERR_NO_MEMORY); /* 16 leaves */
    assert_memory_equal(&bus, &before, sizeof(bus));
}

static void test_tables_fill_up(void **state)
{
    (void)state;
    static struct probe many[BUS_MAX_DEVICES + 1];
    for (unsigned i = 0; i < BUS_MAX_DEVICES; i++)
        assert_int_equal(bus_add_ports(&bus, (uint16_t)i, 1, &many[i].dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0x80, 1, &many[BUS_MAX_DEVICES].dev), ERR_NO_MEMORY);
    assert_int_equal(bus_add_ports(&bus, 0x80, 1, &many[3].dev), STATUS_OK); /* one that is known */
    for (unsigned i = 1; i < BUS_MAX_LEAVES; i++)
        assert_int_equal(bus_add_ports(&bus, (uint16_t)(i << 8), 1, &many[0].dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0x8000, 1, &many[0].dev), ERR_NO_MEMORY);
    for (unsigned i = 0; i < BUS_MAX_DEVICES; i++)
        assert_ptr_equal(bus_find_port(&bus, (uint16_t)i, 1), &many[i].dev);
}

/* 0xCF8..0xCFF is PCI's but for 0xCF9, the reset port: dwords at 0xCF8 are PCI's all the same. */
static void test_reset_port_inside_pci(void **state)
{
    (void)state;
    assert_int_equal(bus_add_ports(&bus, 0xcf8, 1, &a.dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0xcfa, 6, &a.dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0xcf9, 1, &b.dev), STATUS_OK);
    assert_ptr_equal(bus_find_port(&bus, 0xcf8, 4), &a.dev);
    assert_ptr_equal(bus_find_port(&bus, 0xcf9, 1), &b.dev);
    assert_null(bus_find_port(&bus, 0xcf8, 2));
}

static void test_split(void **state)
{
    (void)state;
    assert_int_equal(bus_add_ports(&bus, 0x10, 1, &a.dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0x12, 1, &b.dev), STATUS_OK);
    struct io_req r = {.addr = 0x10, .size = 4, .value = 0x1234};
    assert_true(bus_split_ports(&bus, &r));
    assert_int_equal(r.value, 0xffbbffaa);
    r = (struct io_req){.addr = 0x10, .size = 4, .write = true, .value = 0x44332211};
    assert_true(bus_split_ports(&bus, &r));
    assert_int_equal(a.last.value, 0x11);
    assert_int_equal(b.last.value, 0x33);
    assert_int_equal(b.last.addr, 0x12);
    assert_int_equal(b.last.size, 1);
    assert_int_equal(a.calls, 2);
    assert_int_equal(r.value, 0x44332211);
    r = (struct io_req){.addr = 0x13, .size = 2};
    assert_false(bus_split_ports(&bus, &r));
    assert_int_equal(r.value, 0xffff);
    r = (struct io_req){.addr = 0xfffe, .size = 4};
    assert_false(bus_split_ports(&bus, &r)); /* does not wrap to port 0 */
    assert_int_equal(r.value, 0xffffffff);
}

static void test_mmio(void **state)
{
    (void)state;
    static struct probe many[BUS_MAX_MMIO];
    for (unsigned k = 0; k < BUS_MAX_MMIO; k++) {
        unsigned i = k * 13 % BUS_MAX_MMIO; /* not in order */
        assert_int_equal(bus_add_mmio(&bus, 0xe0000000 + i * 0x2000ull, 0x1000, &many[i].dev), STATUS_OK);
    }
    for (unsigned i = 0; i < BUS_MAX_MMIO; i++) {
        uint64_t base = 0xe0000000 + i * 0x2000ull;
        assert_null(bus_find_mmio(&bus, base - 1));
        assert_ptr_equal(bus_find_mmio(&bus, base), &many[i].dev);
        assert_ptr_equal(bus_find_mmio(&bus, base + 0xfff), &many[i].dev);
        assert_null(bus_find_mmio(&bus, base + 0x1000));
    }
    assert_null(bus_find_mmio(&bus, 0));
    assert_null(bus_find_mmio(&bus, UINT64_MAX));
    assert_int_equal(bus_add_mmio(&bus, 0, 1, &a.dev), ERR_NO_MEMORY);
}

static void test_mmio_refusals(void **state)
{
    (void)state;
    assert_int_equal(bus_add_mmio(&bus, 0x1000, 0x1000, &a.dev), STATUS_OK);
    assert_int_equal(bus_add_mmio(&bus, 0x1fff, 1, &b.dev), ERR_EXISTS);
    assert_int_equal(bus_add_mmio(&bus, 0, 0x1001, &b.dev), ERR_EXISTS);
    assert_int_equal(bus_add_mmio(&bus, 0, 0x10000, &b.dev), ERR_EXISTS);
    assert_int_equal(bus_add_mmio(&bus, 0x3000, 0, &b.dev), ERR_INVALID);
    assert_int_equal(bus_add_mmio(&bus, UINT64_MAX, 2, &b.dev), ERR_INVALID);
    assert_int_equal(bus_add_mmio(&bus, 0x3000, 1, NULL), ERR_INVALID);
    assert_int_equal(bus_add_mmio(&bus, UINT64_MAX, 1, &b.dev), STATUS_OK); /* the very last byte */
    assert_ptr_equal(bus_find_mmio(&bus, UINT64_MAX), &b.dev);
    assert_int_equal(bus.mmio_count, 2);
}

/* A BAR that a guest moves around: it is where it was put last, and nowhere else; nobody loses a port. */
static void test_ports_that_move(void **state)
{
    (void)state;
    assert_int_equal(bus_add_ports(&bus, 0x1f0, 8, &a.dev), STATUS_OK);
    assert_int_equal(bus_add_ports(&bus, 0x3fc, 2, &b.dev), STATUS_OK);
    assert_int_equal(bus_move_ports(&bus, 0, 0xc000, 16, &c.dev), STATUS_OK);
    for (uint32_t page = 1, from = 0xc000; page < 256; page++) { /* more than there are leaves */
        uint32_t to = page << 8 | 0xf0;
        assert_int_equal(bus_move_ports(&bus, (uint16_t)from, (uint16_t)to, 16, &c.dev), STATUS_OK);
        for (uint32_t port = 1; port < BUS_PORTS; port++) {
            struct vdev *owner = port >= 0x1f0 && port < 0x1f8    ? &a.dev
                                 : port == 0x3fc || port == 0x3fd ? &b.dev
                                 : port >= to && port < to + 16   ? &c.dev
                                                                  : NULL;
            assert_ptr_equal(bus_port_owner(&bus, (uint16_t)port), owner);
        }
        from = to;
    }
    assert_int_equal(bus_move_ports(&bus, 0xfff0, 0, 16, &c.dev), STATUS_OK);
    assert_null(bus_port_owner(&bus, 0xfff0));
}

static void test_once(void **state)
{
    (void)state;
    for (uint32_t port = 0; port < BUS_PORTS; port += 0x101) {
        assert_true(bus_port_first(&bus, (uint16_t)port));
        assert_false(bus_port_first(&bus, (uint16_t)port));
    }
    assert_true(bus_mmio_first(&bus, 0xfed00000));
    assert_false(bus_mmio_first(&bus, 0xfed00fff)); /* the same page */
    assert_true(bus_mmio_first(&bus, 0));
    static struct once set;
    for (uint64_t key = 0; key < ONCE_SLOTS; key++)
        assert_true(once_first(&set, key));
    for (uint64_t key = 0; key < 4 * ONCE_SLOTS; key++)
        assert_false(once_first(&set, key)); /* full: quiet */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_ports, setup),
        cmocka_unit_test_setup(test_refusals_change_nothing, setup),
        cmocka_unit_test_setup(test_tables_fill_up, setup),
        cmocka_unit_test_setup(test_reset_port_inside_pci, setup),
        cmocka_unit_test_setup(test_split, setup),
        cmocka_unit_test_setup(test_mmio, setup),
        cmocka_unit_test_setup(test_mmio_refusals, setup),
        cmocka_unit_test_setup(test_ports_that_move, setup),
        cmocka_unit_test_setup(test_once, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
