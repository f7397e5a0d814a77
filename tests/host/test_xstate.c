/* XCR0 and save areas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/xstate.h"

static void test_allowed(void **state)
{
    (void)state;
    assert_int_equal(xstate_allowed(0), 0);
    assert_int_equal(xstate_allowed(3), 3);
    assert_int_equal(xstate_allowed(7), 7);
    assert_int_equal(xstate_allowed(0x2e7), 0x2e7);
    assert_int_equal(xstate_allowed(0x602ff), 0x2e7); /* no MPX, no AMX */
    assert_int_equal(xstate_allowed(0x267), 0x207);   /* half an AVX-512 is none */
    assert_int_equal(xstate_allowed(0x2e3), 0x203);   /* AVX-512 needs AVX */
    assert_int_equal(xstate_allowed(UINT64_MAX), XSTATE_KNOWN);
}

/* SDM volume 1, 13.3, as a list: every combination of the known bits against a plain restatement. */
static void test_xsetbv_rules(void **state)
{
    (void)state;
    const uint64_t allowed = XSTATE_KNOWN;
    for (uint64_t v = 0; v < 0x800; v++) {
        bool x87 = v & 1, sse = v & 2, avx = v & 4;
        unsigned count = (v >> 5 & 1) + (v >> 6 & 1) + (v >> 7 & 1);
        bool ok = x87 && !(v & ~allowed) && !(avx && !sse) && (count == 0 || (count == 3 && avx));
        assert_int_equal(xstate_xcr0_valid(v, allowed), ok);
    }
    assert_false(xstate_xcr0_valid(7, 3));
    assert_false(xstate_xcr0_valid(0xe7, 7));
    assert_false(xstate_xcr0_valid(1ull << 63 | 3, allowed));
    assert_false(xstate_xcr0_valid(1ull << 17 | 3, allowed));
    assert_true(xstate_xcr0_valid(1, 0x2e7));
}

static void test_sizes(void **state)
{
    (void)state;
    /* Skylake-X. */
    struct xstate_layout l = {
        .offset = {[2] = 576, [5] = 1088, [6] = 1152, [7] = 1664, [9] = 2688},
        .size = {[2] = 256, [5] = 64, [6] = 512, [7] = 1024, [9] = 8},
        .align64 = {[9] = true},
    };
    assert_int_equal(xstate_size(&l, 0), 576);
    assert_int_equal(xstate_size(&l, 3), 576);
    assert_int_equal(xstate_size(&l, 7), 832);
    assert_int_equal(xstate_size(&l, 0xe7), 2688);
    assert_int_equal(xstate_size(&l, 0x2e7), 2696);
    assert_int_equal(xstate_size(&l, 0x203), 2696); /* standard format: holes stay */
    assert_int_equal(xstate_size(&l, UINT64_MAX), 2696);
    assert_int_equal(xstate_compact_size(&l, 3), 576);
    assert_int_equal(xstate_compact_size(&l, 0x203), 584);
    assert_int_equal(xstate_compact_size(&l, 0xe7), 576 + 256 + 64 + 512 + 1024);
    l.size[5] = 24; /* the aligned component behind an odd size */
    assert_int_equal(xstate_compact_size(&l, 1 << 5 | 1 << 9), 576 + 64 + 8);
    assert_int_equal(xstate_compact_size(&l, 1ull << 63 | 1 << 3), 576);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_xsetbv_rules),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
