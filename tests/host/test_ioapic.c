/* The I/O APIC: registers, edges, levels, masks, EOIs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/vdev/ioapic.h"
#include "drivers/vdev/lapic.h"

static struct ioapic io;
static struct {
    unsigned count;
    uint8_t dest, mode, vector;
    bool logical, level, accept;
} sent;

static bool fake_deliver(void *ctx, uint8_t dest, bool logical, uint8_t mode, uint8_t vector, bool level)
{
    assert_ptr_equal(ctx, &sent);
    sent.count++;
    sent.dest = dest;
    sent.logical = logical;
    sent.mode = mode;
    sent.vector = vector;
    sent.level = level;
    return sent.accept;
}

static uint64_t mmio(uint64_t offset, unsigned size, bool write, uint64_t value)
{
    struct io_req req = {.addr = IOAPIC_BASE + offset, .value = value, .size = (uint8_t)size, .write = write};
    ioapic_ops.access(&io.dev, &req);
    return req.value;
}
static uint32_t rd(uint8_t index)
{
    mmio(0, 4, true, index);
    return (uint32_t)mmio(0x10, 4, false, 0);
}
static void wr(uint8_t index, uint32_t value)
{
    mmio(0, 4, true, index);
    mmio(0x10, 4, true, value);
}
static void rte(unsigned pin, uint32_t low)
{
    wr((uint8_t)(0x10 + 2 * pin), low);
}
static uint32_t rte_low(unsigned pin)
{
    return rd((uint8_t)(0x10 + 2 * pin));
}
static void eoi(uint8_t vector)
{
    ioapic_eoi(&io, vector);
}

#define LEVEL      (1u << 15)
#define MASKED     (1u << 16)
#define REMOTE_IRR (1u << 14)

static int setup(void **state)
{
    memset(&io, 0xa5, sizeof(io));
    memset(&sent, 0, sizeof(sent));
    sent.accept = true;
    ioapic_connect(&io, fake_deliver, &sent);
    ioapic_ops.init(&io.dev);
    return 0;
}

static void test_registers(void **state)
{
    assert_int_equal(io.asserted, 0);
    assert_int_equal(rd(0), 0);
    wr(0, ~0u);
    assert_int_equal(rd(0), 0x0f000000);
    assert_int_equal(rd(2), 0x0f000000);
    wr(1, 0);
    wr(2, 0);
    assert_int_equal(rd(1), 0x00170020);
    assert_int_equal(rd(2), 0x0f000000);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        assert_int_equal(rte_low(pin), MASKED);
        assert_int_equal(rd((uint8_t)(0x11 + 2 * pin)), 0);
        rte(pin, ~0u);
        wr((uint8_t)(0x11 + 2 * pin), ~0u);
        assert_int_equal(rte_low(pin), 0x1afff);
        assert_int_equal(rd((uint8_t)(0x11 + 2 * pin)), 0xff000000);
    }
    static const uint8_t holes[] = {3, 4, 0x0f, 0x40, 0x41, 0xff};
    for (size_t i = 0; i < ARRAY_SIZE(holes); i++) {
        wr(holes[i], ~0u);
        assert_int_equal(rd(holes[i]), 0);
    }
    assert_int_equal(sent.count, 0);
    ioapic_ops.reset(&io.dev);
    assert_int_equal(mmio(0, 4, false, 0), 0);
    assert_int_equal(rd(0), 0);
    assert_int_equal(rte_low(5), MASKED);
    assert_int_equal(rd(0x1b), 0);
}

static void test_access_widths(void **state)
{
    mmio(0, 1, true, 0x12);
    assert_int_equal(mmio(0, 1, false, 0), 0x12);
    assert_int_equal(mmio(0, 4, false, 0), 0x12);
    assert_int_equal(mmio(0x10, 1, false, 0), 0x00); /* low byte of pin 1's entry */
    assert_int_equal(mmio(0x10, 2, false, 0), 0x0000);
    mmio(0x10, 1, true, 0x33); /* partial: ignored */
    mmio(0x10, 2, true, 0x33);
    assert_int_equal(rte_low(1), MASKED);
    mmio(0x10, 8, true, 0xffffffff00010033);
    assert_int_equal(rte_low(1), MASKED | 0x33);
    assert_true(mmio(0x04, 4, false, 0) == 0xffffffff);
    assert_int_equal(mmio(0x40, 1, false, 0), 0xff); /* write-only */
    assert_true(mmio(0x20, 8, false, 0) == UINT64_MAX);
    assert_true(mmio(0x11, 4, false, 0) == 0xffffffff);
    mmio(0x20, 4, true, 1);
    ioapic_set_pin(&io, IOAPIC_PINS, true);
    ioapic_set_pin(&io, 1000, true);
    assert_int_equal(sent.count, 0);
}

static void test_message_fields(void **state)
{
    wr(0x17, 0x5a000000);
    rte(3, 0x1940 | 1u << 13); /* lowest, logical, delivery status written, active low */
    ioapic_set_pin(&io, 3, true);
    assert_int_equal(sent.count, 1);
    assert_int_equal(sent.dest, 0x5a);
    assert_int_equal(sent.vector, 0x40);
    assert_int_equal(sent.mode, LAPIC_LOWEST);
    assert_true(sent.logical && !sent.level);
    assert_int_equal(rte_low(3), 0x2940);
}

static void test_delivery_modes(void **state)
{
    static const bool delivered[8] = {true, true, false, false, true, true, false, true};
    for (uint32_t mode = 0; mode < 8; mode++)
        for (unsigned level = 0; level < 2; level++) {
            setup(NULL);
            rte(4, 0x40 | mode << 8 | (level ? LEVEL : 0));
            ioapic_set_pin(&io, 4, true);
            assert_int_equal(sent.count, delivered[mode]);
            if (delivered[mode]) {
                assert_int_equal(sent.mode, mode);
                assert_int_equal(sent.level,
                                 level && mode <= 1); /* the others are edges, whatever bit 15 says */
            }
            assert_int_equal(!!(rte_low(4) & REMOTE_IRR), level && mode <= 1);
            assert_int_equal(!!(rte_low(4) & LEVEL), level);
        }
}

static void test_edge(void **state)
{
    rte(1, 0x31);
    ioapic_set_pin(&io, 1, true);
    assert_int_equal(sent.count, 1);
    ioapic_set_pin(&io, 1, true); /* no edge */
    assert_int_equal(sent.count, 1);
    eoi(0x31);
    assert_int_equal(sent.count, 1);
    ioapic_set_pin(&io, 1, false);
    ioapic_set_pin(&io, 1, true);
    assert_int_equal(sent.count, 2);
    rte(1, 0x31 | MASKED);
    ioapic_set_pin(&io, 1, false);
    ioapic_set_pin(&io, 1, true); /* lost */
    rte(1, 0x31);
    assert_int_equal(sent.count, 2);
    assert_int_equal(rte_low(1), 0x31);
}

static void test_level(void **state)
{
    rte(16, 0x61 | LEVEL);
    ioapic_set_pin(&io, 16, true);
    assert_int_equal(sent.count, 1);
    assert_true(sent.level);
    assert_int_equal(rte_low(16), 0x61 | LEVEL | REMOTE_IRR);
    ioapic_set_pin(&io, 16, false);
    ioapic_set_pin(&io, 16, true); /* not before the EOI */
    assert_int_equal(sent.count, 1);
    eoi(0x62); /* another vector */
    assert_int_equal(sent.count, 1);
    eoi(0x61); /* still asserted: again */
    assert_int_equal(sent.count, 2);
    ioapic_set_pin(&io, 16, false);
    assert_int_equal(rte_low(16), 0x61 | LEVEL | REMOTE_IRR);
    eoi(0x61);
    assert_int_equal(sent.count, 2);
    assert_int_equal(rte_low(16), 0x61 | LEVEL);
    eoi(0x61);
    assert_int_equal(sent.count, 2);
}

/* What drivers rely on: unmasking looks at the level again. */
static void test_level_mask(void **state)
{
    rte(17, 0x62 | LEVEL | MASKED);
    ioapic_set_pin(&io, 17, true);
    assert_int_equal(sent.count, 0);
    rte(17, 0x62 | LEVEL);
    assert_int_equal(sent.count, 1);
    rte(17, 0x62 | LEVEL | MASKED); /* masked while in service */
    eoi(0x62);
    assert_int_equal(sent.count, 1);
    assert_int_equal(rte_low(17), 0x62 | LEVEL | MASKED);
    rte(17, 0x62 | LEVEL);
    assert_int_equal(sent.count, 2);
    rte(17, 0x62 | LEVEL); /* in service: no second message */
    assert_int_equal(sent.count, 2);
    /* Turning the entry to an edge and back clears remote IRR. */
    rte(17, 0x62 | MASKED);
    assert_int_equal(rte_low(17), 0x62 | MASKED);
    rte(17, 0x62 | LEVEL);
    assert_int_equal(sent.count, 3);
}

static void test_shared_vector(void **state)
{
    rte(18, 0x70 | LEVEL);
    rte(19, 0x70 | LEVEL);
    rte(20, 0x71 | LEVEL);
    ioapic_set_pin(&io, 18, true);
    ioapic_set_pin(&io, 19, true);
    ioapic_set_pin(&io, 20, true);
    assert_int_equal(sent.count, 3);
    ioapic_set_pin(&io, 18, false);
    mmio(0x40, 4, true, 0x70); /* through the EOI register */
    assert_int_equal(sent.count, 4);
    assert_int_equal(rte_low(18), 0x70 | LEVEL);
    assert_int_equal(rte_low(19), 0x70 | LEVEL | REMOTE_IRR);
    assert_int_equal(rte_low(20), 0x71 | LEVEL | REMOTE_IRR);
}

static void test_not_accepted(void **state)
{
    sent.accept = false;
    rte(16, 0x61 | LEVEL);
    ioapic_set_pin(&io, 16, true);
    assert_int_equal(sent.count, 1);
    assert_int_equal(rte_low(16), 0x61 | LEVEL); /* or the pin would wait for an EOI forever */
    sent.accept = true;
    rte(16, 0x61 | LEVEL);
    assert_int_equal(sent.count, 2);
    assert_int_equal(rte_low(16), 0x61 | LEVEL | REMOTE_IRR);
}

/* A reset masks, but the wires keep their levels. */
static void test_reset_keeps_pins(void **state)
{
    rte(16, 0x61 | LEVEL);
    ioapic_set_pin(&io, 16, true);
    ioapic_ops.reset(&io.dev);
    eoi(0x61);
    assert_int_equal(sent.count, 1);
    rte(16, 0x61 | LEVEL);
    assert_int_equal(sent.count, 2);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup(t, setup)
    const struct CMUnitTest tests[] = {
        T(test_registers),        T(test_access_widths), T(test_message_fields),
        T(test_delivery_modes),   T(test_edge),          T(test_level),
        T(test_level_mask),       T(test_shared_vector), T(test_not_accepted),
        T(test_reset_keeps_pins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
