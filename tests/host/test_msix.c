/* The MSI-X shadow: who is told what, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/vdev/msix.h"

#define COUNT 5u

struct call {
    int entry; /* -1: control */
    uint64_t address;
    uint32_t data;
    bool masked, enabled, function_mask;
};
static struct call calls[64];
static unsigned call_count;
static struct msix m;

static void irq_set(void *ctx, unsigned entry, uint64_t address, uint32_t data, bool masked)
{
    assert_ptr_equal(ctx, calls);
    calls[call_count++] = (struct call){(int)entry, address, data, masked, false, false};
}

static void control(void *ctx, bool enabled, bool function_mask)
{
    assert_ptr_equal(ctx, calls);
    calls[call_count++] = (struct call){-1, 0, 0, false, enabled, function_mask};
}

static const struct msix_env env = {calls, irq_set, control};

static int setup(void **state)
{
    memset(&m, 0xee, sizeof(m));
    memset(calls, 0, sizeof(calls));
    msix_init(&m, &env, COUNT);
    call_count = 0;
    return 0;
}

static void write(uint64_t offset, unsigned size, uint64_t value)
{
    struct io_req req = {.size = (uint8_t)size, .write = true, .value = value};
    msix_access(&m, offset, &req);
}

static uint64_t read(uint64_t offset, unsigned size)
{
    struct io_req req = {.size = (uint8_t)size, .value = 0x1122334455667788};
    msix_access(&m, offset, &req);
    return req.value;
}

static void expect_control(unsigned i, bool enabled, bool function_mask)
{
    assert_true(i < call_count);
    assert_int_equal(calls[i].entry, -1);
    assert_int_equal(calls[i].enabled, enabled);
    assert_int_equal(calls[i].function_mask, function_mask);
}

static void expect_irq(unsigned i, int entry, uint64_t address, uint32_t data, bool masked)
{
    assert_true(i < call_count);
    assert_int_equal(calls[i].entry, entry);
    assert_int_equal(calls[i].address, address);
    assert_int_equal(calls[i].data, data);
    assert_int_equal(calls[i].masked, masked);
}

static void test_power_on(void **state)
{
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(read(16 * i, 8), 0);
        assert_int_equal(read(16 * i + 8, 4), 0);
        assert_int_equal(read(16 * i + 12, 4), 1); /* masked: 7.7.2.7 */
    }
    assert_int_equal(call_count, 0);
}

/* As Linux does it: enabled behind Function Mask, entries masked, filled, unmasked one by one, the function
 * unmasked at the end or in between. */
static void test_linux_order(void **state)
{
    msix_control(&m, true, true);
    assert_int_equal(call_count, 1);
    expect_control(0, true, true);
    for (unsigned i = 0; i < COUNT; i++)
        write(16 * i + 12, 4, 1);
    for (unsigned i = 0; i < 2; i++) {
        write(16 * i, 4, 0xfee01000);
        write(16 * i + 4, 4, 0);
        write(16 * i + 8, 4, 0x40 + i);
    }
    assert_int_equal(call_count, 1);
    msix_control(&m, true, false);
    expect_control(1, true, false);
    write(12, 4, 0);
    expect_irq(2, 0, 0xfee01000, 0x40, false);
    write(28, 4, 0);
    expect_irq(3, 1, 0xfee01000, 0x41, false);
    /* Affinity: masked, changed, unmasked. */
    write(28, 4, 1);
    expect_irq(4, 1, 0xfee01000, 0x41, true);
    write(16, 4, 0xfee02000);
    write(20, 4, 0);
    write(24, 4, 0x51);
    assert_int_equal(call_count, 5);
    write(28, 4, 0);
    expect_irq(5, 1, 0xfee02000, 0x51, false);
    assert_int_equal(call_count, 6);
    assert_int_equal(read(16, 4), 0xfee02000);
    assert_int_equal(read(24, 8), 0x51);
    /* Off: every entry stops before the real MSI-X does. */
    msix_control(&m, false, false);
    expect_irq(6, 0, 0xfee01000, 0x40, true);
    expect_irq(7, 1, 0xfee02000, 0x51, true);
    expect_control(8, false, false);
    assert_int_equal(call_count, 9);
    /* On again: what is unmasked delivers, behind Function Mask until all are in place. */
    msix_control(&m, true, false);
    expect_control(9, true, true);
    expect_irq(10, 0, 0xfee01000, 0x40, false);
    expect_irq(11, 1, 0xfee02000, 0x51, false);
    expect_control(12, true, false);
    assert_int_equal(call_count, 13);
}

static void test_function_mask_costs_nothing_per_entry(void **state)
{
    msix_control(&m, true, false);
    for (unsigned i = 0; i < COUNT; i++)
        write(16 * i + 12, 4, 0);
    unsigned before = call_count;
    msix_control(&m, true, true);
    msix_control(&m, true, true);
    msix_control(&m, true, false);
    assert_int_equal(call_count, before + 2);
    expect_control(before, true, true);
    expect_control(before + 1, true, false);
    msix_control(&m, false, true);
    expect_control(call_count - 1, false, true);
    before = call_count;
    msix_control(&m, false, false);
    expect_control(before, false, false);
    msix_control(&m, true, true); /* once is enough when it stays masked */
    expect_control(before + 1, true, true);
    assert_int_equal(call_count, before + 2 + COUNT);
}

static void test_change_while_unmasked(void **state)
{
    msix_control(&m, true, false);
    write(12, 4, 0);
    unsigned before = call_count;
    write(8, 4, 0x60);
    expect_irq(before, 0, 0, 0x60, false);
    write(8, 4, 0x60); /* the same again is no change */
    assert_int_equal(call_count, before + 1);
    write(0, 8, 0xfffffffffee03003); /* bits 1:0 do not exist */
    expect_irq(before + 1, 0, 0xfffffffffee03000, 0x60, false);
    write(8, 8, 0x1234400000061); /* data and unmasked in one quadword; other bits of Vector Control stay 0 */
    expect_irq(before + 2, 0, 0xfffffffffee03000, 0x61, false);
    assert_int_equal(read(8, 8), 0x61);
    write(8, 8, 0x100000062); /* masked: its new message is not told */
    expect_irq(before + 3, 0, 0xfffffffffee03000, 0x62, true);
    assert_int_equal(call_count, before + 4);
}

static void test_widths(void **state)
{
    static const uint64_t half[2] = {0xa1b2c3d4e5f60718, 0x1a2b3c4d5};
    write(32, 8, half[0]);
    write(40, 8, half[1]);
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned at = 0; at < 16; at += size) {
            uint64_t want = half[at / 8] >> (at % 8 * 8);
            if (size < 8)
                want &= (1ull << (8 * size)) - 1;
            assert_int_equal(read(32 + at, size), want);
            write(32 + at, size, ~0ull);
            for (unsigned i = 0; i < 2; i++) {
                uint64_t now = half[i], all = i ? 0x1ffffffff : ~3ull;
                if (at / 8 == i)
                    now |= size < 8 ? ((1ull << (8 * size)) - 1) << (at % 8 * 8) : ~0ull;
                assert_int_equal(read(32 + 8 * i, 8), now & all);
            }
            write(32, 8, half[0]);
            write(40, 8, half[1]);
        }
    assert_int_equal(read(16, 8), 0); /* the neighbours */
    assert_int_equal(read(48, 8), 0);
}

static void test_beyond_the_table(void **state)
{
    msix_control(&m, true, false);
    unsigned before = call_count;
    for (uint64_t offset = 16 * COUNT; offset < 32768; offset += 4) {
        write(offset, 4, 0);
        write(offset, 4, ~0u);
        assert_int_equal(read(offset, 4), 0);
    }
    assert_int_equal(call_count, before);
}

static void test_reset(void **state)
{
    msix_control(&m, true, false);
    write(0, 8, 0xfee00000);
    write(8, 8, 0x41);
    unsigned before = call_count;
    msix_reset(&m);
    expect_irq(before, 0, 0xfee00000, 0x41, true);
    expect_control(before + 1, false, false);
    assert_int_equal(call_count, before + 2);
    assert_int_equal(read(0, 8), 0);
    assert_int_equal(read(8, 8), 1ull << 32);
    msix_reset(&m);
    assert_int_equal(call_count, before + 2);
}

/* The largest: bit 63 of `live` is an entry, too. */
static void test_all_entries(void **state)
{
    msix_init(&m, &env, MSIX_MAX_ENTRIES);
    msix_control(&m, true, false);
    unsigned before = call_count;
    write(16 * 63 + 8, 8, 0x7f);
    expect_irq(before, 63, 0, 0x7f, false);
    write(16 * 63 + 12, 4, 1);
    expect_irq(before + 1, 63, 0, 0x7f, true);
    assert_int_equal(call_count, before + 2);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup(t, setup)
    const struct CMUnitTest tests[] = {
        T(test_power_on),
        T(test_linux_order),
        T(test_function_mask_costs_nothing_per_entry),
        T(test_change_while_unmasked),
        T(test_widths),
        T(test_beyond_the_table),
        T(test_reset),
        T(test_all_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
