/* The time base: both directions against exact 128-bit arithmetic, and what the device timers rely on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/clock.h"

__extension__ typedef unsigned __int128 u128;

#define NS_PER_SECOND 1000000000ull
#define YEAR_NS       (366ull * 24 * 3600 * NS_PER_SECOND)

static const uint64_t rates[] = {1000000,    1193182,    50000000,   99999989,   100000000,
                                 1000000000, 1800000003, 2112001234, 2400000000, 2999999999,
                                 3000000000, 3300000000, 4294967296, 5000000001, 8000000000};

static uint64_t exact(uint64_t value, uint64_t num, uint64_t den)
{
    u128 result = (u128)value * num / den;
    return result > INT64_MAX ? (uint64_t)INT64_MAX : (uint64_t)result;
}

/* `got` is `want` or up to two units less. */
static void assert_close(uint64_t got, uint64_t want)
{
    assert_true(got <= want);
    assert_true(want - got <= 2);
}

static void test_both_directions_are_exact(void **state)
{
    (void)state;
    for (unsigned r = 0; r < ARRAY_SIZE(rates); r++) {
        clock_init(rates[r]);
        assert_int_equal(clock_hz(), rates[r]);
        assert_int_equal(clock_ticks_to_ns(0), 0);
        assert_int_equal(clock_ns_to_ticks(0), 0);
        for (uint64_t value = 1; value < 1ull << 62; value += value / 3 + 1) {
            assert_close(clock_ticks_to_ns(value), exact(value, NS_PER_SECOND, rates[r]));
            assert_close(clock_ns_to_ticks(value), exact(value, rates[r], NS_PER_SECOND));
        }
    }
}

static void test_a_second_is_a_second(void **state)
{
    (void)state;
    for (unsigned r = 0; r < ARRAY_SIZE(rates); r++) {
        clock_init(rates[r]);
        assert_close(clock_ticks_to_ns(rates[r]), NS_PER_SECOND);
        assert_close(clock_ns_to_ticks(NS_PER_SECOND), rates[r]);
    }
}

static void test_time_never_runs_backwards(void **state)
{
    (void)state;
    clock_init(2999999999);
    uint64_t start = 1ull << 50, before = clock_ticks_to_ns(start);
    for (uint64_t tick = start; tick < start + 5000; tick++) {
        uint64_t now = clock_ticks_to_ns(tick);
        assert_true(now >= before && now - before <= 1);
        before = now;
    }
}

/* A device's deadline becomes a TSC value (hv/pc/platform.c). When that is reached, the VM's clock must show
 * the deadline after a few ticks at most, also when the machine has been up for long: until it does, the vCPU
 * makes no progress. */
static void test_deadline_is_not_early(void **state)
{
    (void)state;
    for (unsigned r = 0; r < ARRAY_SIZE(rates); r++) {
        clock_init(rates[r]);
        uint64_t ns_in_ticks = clock_ns_to_ticks(1) + 1;
        for (uint64_t up = 1000; up < 3 * YEAR_NS; up += up / 5 + 7) {
            uint64_t tsc = clock_ns_to_ticks(up) + ns_in_ticks;
            assert_true(clock_ticks_to_ns(tsc + 2 * ns_in_ticks) >= up);
            assert_true(clock_ticks_to_ns(tsc) <= up + 2 * (NS_PER_SECOND / rates[r]) + 2);
        }
    }
}

static void test_saturates(void **state)
{
    (void)state;
    clock_init(1000000); /* a tick is a microsecond */
    assert_int_equal(clock_ticks_to_ns(UINT64_MAX), INT64_MAX);
    assert_int_equal(clock_ticks_to_ns((uint64_t)INT64_MAX / 1000 + 1), INT64_MAX);
    assert_true(clock_ticks_to_ns((uint64_t)INT64_MAX / 1000) < INT64_MAX);
    clock_init(8000000000ull);
    assert_int_equal(clock_ns_to_ticks(UINT64_MAX), INT64_MAX);
    assert_int_equal(clock_ns_to_ticks(1ull << 61), INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_directions_are_exact),
        cmocka_unit_test(test_a_second_is_a_second),
        cmocka_unit_test(test_time_never_runs_backwards),
        cmocka_unit_test(test_deadline_is_not_early),
        cmocka_unit_test(test_saturates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
