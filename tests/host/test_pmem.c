/* Physical memory for guests: what is usable, which extents are chosen, and that nothing is given twice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/pmem.h"

#define M (1ull << 20)
#define G (1ull << 30)

static struct pmem p;
static struct pmem_extent out[PMEM_MAX_EXTENTS];
static uint32_t n;

static struct boot_region region(uint64_t base, uint64_t size, uint32_t kind)
{
    return (struct boot_region){.base = base, .size = size, .kind = kind};
}

static void test_only_free_aligned_memory_above_the_first_mib(void **state)
{
    (void)state;
    const struct boot_region r[] = {
        region(0, 0xa0000, BOOT_REGION_FREE),
        region(M, M, BOOT_REGION_FREE),                /* no whole unit */
        region(2 * M, 5 * M + 4096, BOOT_REGION_FREE), /* 2..6 */
        region(8 * M, 2 * M, BOOT_REGION_BULKHEAD),
        region(10 * M, 6 * M, BOOT_REGION_IMAGE),
        region(16 * M, 16 * M, BOOT_REGION_RESERVED),
        region(33 * M, 4 * M, BOOT_REGION_FREE),                 /* 34..36 */
        region(UINT64_MAX - 4 * M + 1, 4 * M, BOOT_REGION_FREE), /* ends at 2^64: not to be trusted */
        region(UINT64_MAX - 4 * M, 8 * M, BOOT_REGION_FREE),
    };
    uint64_t expected = 4 * M + 2 * M;
    assert_int_equal(pmem_available(r, ARRAY_SIZE(r)), expected);
    pmem_init(&p, r, ARRAY_SIZE(r));
    assert_int_equal(pmem_free_bytes(&p), expected);
    assert_int_equal(p.count, 2);
    assert_int_equal(p.ranges[0].base, 2 * M);
    assert_int_equal(p.ranges[0].size, 4 * M);
    assert_int_equal(p.ranges[1].base, 34 * M);
}

static void test_a_region_from_zero_starts_at_two_mib(void **state)
{
    (void)state;
    const struct boot_region r[] = {region(0, 64 * M, BOOT_REGION_FREE)};
    pmem_init(&p, r, 1);
    assert_int_equal(p.ranges[0].base, 2 * M);
    assert_int_equal(pmem_free_bytes(&p), 62 * M);
}

static void test_prefers_whole_gibibytes(void **state)
{
    (void)state;
    const struct boot_region r[] = {
        region(2 * M, 1022 * M, BOOT_REGION_FREE),
        region(4 * G - 512 * M, 3 * G, BOOT_REGION_FREE), /* two whole: 4..6 */
        region(8 * G, G, BOOT_REGION_FREE),
    };
    pmem_init(&p, r, ARRAY_SIZE(r));
    assert_int_equal(pmem_alloc(&p, 3 * G + 100 * M, out, &n), STATUS_OK);
    assert_int_equal(n, 3);
    assert_int_equal(out[0].base, 4 * G);
    assert_int_equal(out[0].size, 2 * G);
    assert_int_equal(out[1].base, 8 * G);
    assert_int_equal(out[1].size, G);
    assert_int_equal(out[2].size, 100 * M);
    assert_true(out[2].base < 4 * G || out[2].base >= 6 * G);
    assert_int_equal(pmem_free(&p, out, n), STATUS_OK);
    assert_int_equal(p.count, 3); /* merged again */
    assert_int_equal(p.ranges[1].size, 3 * G);
}

static void test_best_fit_then_largest(void **state)
{
    (void)state;
    const struct boot_region r[] = {
        region(10 * M, 20 * M, BOOT_REGION_FREE),
        region(40 * M, 8 * M, BOOT_REGION_FREE),
        region(50 * M, 30 * M, BOOT_REGION_FREE),
    };
    pmem_init(&p, r, ARRAY_SIZE(r));
    assert_int_equal(pmem_alloc(&p, 6 * M, out, &n), STATUS_OK);
    assert_int_equal(n, 1);
    assert_int_equal(out[0].base, 40 * M); /* the smallest that holds it */
    struct pmem_extent first = out[0];
    assert_int_equal(pmem_alloc(&p, 40 * M, out, &n), STATUS_OK);
    assert_int_equal(n, 2); /* 30 and 10 of the 20 */
    assert_int_equal(out[0].size, 30 * M);
    assert_int_equal(out[1].size, 10 * M);
    assert_int_equal(out[1].base, 10 * M);
    assert_int_equal(pmem_alloc(&p, 14 * M, out, &n), ERR_NO_MEMORY); /* 12 are left */
    assert_int_equal(pmem_alloc(&p, 12 * M, out, &n), STATUS_OK);
    assert_int_equal(pmem_free_bytes(&p), 0);
    assert_int_equal(p.count, 0);
    assert_int_equal(pmem_free(&p, &first, 1), STATUS_OK);
    assert_int_equal(pmem_free_bytes(&p), 6 * M);
}

static void test_bad_sizes(void **state)
{
    (void)state;
    const struct boot_region r[] = {region(2 * M, 64 * M, BOOT_REGION_FREE)};
    pmem_init(&p, r, 1);
    assert_int_equal(pmem_alloc(&p, 0, out, &n), ERR_INVALID);
    assert_int_equal(pmem_alloc(&p, 3 * M, out, &n), ERR_INVALID);
    assert_int_equal(pmem_alloc(&p, ~(2 * M - 1), out, &n), ERR_NO_MEMORY);
    assert_int_equal(pmem_free_bytes(&p), 64 * M);
}

static void test_too_scattered_takes_nothing(void **state)
{
    (void)state;
    struct boot_region r[PMEM_MAX_EXTENTS + 1];
    for (uint32_t i = 0; i < ARRAY_SIZE(r); i++)
        r[i] = region((2 + 4 * i) * M, 2 * M, BOOT_REGION_FREE);
    pmem_init(&p, r, ARRAY_SIZE(r));
    struct pmem before = p;
    assert_int_equal(pmem_alloc(&p, ARRAY_SIZE(r) * 2 * M, out, &n), ERR_NO_MEMORY);
    assert_int_equal(p.count, before.count);
    assert_memory_equal(p.ranges, before.ranges, p.count * sizeof(p.ranges[0]));
    assert_int_equal(p.free_bytes, before.free_bytes);
    assert_int_equal(pmem_alloc(&p, PMEM_MAX_EXTENTS * 2 * M, out, &n), STATUS_OK);
    assert_int_equal(n, PMEM_MAX_EXTENTS);
}

static void test_bad_frees_change_nothing(void **state)
{
    (void)state;
    const struct boot_region r[] = {region(2 * M, 64 * M, BOOT_REGION_FREE)};
    pmem_init(&p, r, 1);
    assert_int_equal(pmem_alloc(&p, 8 * M, out, &n), STATUS_OK);
    uint64_t base = out[0].base;
    const struct pmem_extent bad[][2] = {
        {{base, 4 * M}, {base, 4 * M}},         /* twice in one call */
        {{base, 4 * M}, {base + 2 * M, 4 * M}}, /* overlapping each other */
        {{base, 4 * M}, {base + 4 * M, 8 * M}}, /* reaching into free memory */
        {{base, 4 * M}, {base + 4 * M, 0}},     {{base, 4 * M}, {base + 4 * M, M}},
        {{base, 4 * M}, {base + 5 * M, 2 * M}}, {{base, 4 * M}, {0, 2 * M}},
        {{base, 4 * M}, {~(2 * M - 1), 4 * M}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(pmem_free(&p, bad[i], 2), ERR_INVALID);
    assert_int_equal(pmem_free_bytes(&p), 56 * M);
    assert_int_equal(pmem_free(&p, out, n), STATUS_OK);
    assert_int_equal(pmem_free(&p, out, n), ERR_INVALID);
}

static void test_overlapping_regions_are_counted_once(void **state)
{
    (void)state;
    const struct boot_region r[] = {region(2 * M, 8 * M, BOOT_REGION_FREE),
                                    region(4 * M, 8 * M, BOOT_REGION_FREE)};
    pmem_init(&p, r, 2);
    assert_int_equal(pmem_free_bytes(&p), 8 * M);
}

static void test_a_full_table_refuses(void **state)
{
    (void)state;
    static struct pmem full;
    pmem_init(&full, NULL, 0);
    for (uint32_t i = 0; i < PMEM_MAX_RANGES; i++)
        full.ranges[i] = (struct pmem_extent){(4 + 8ull * i) * M, 6 * M};
    full.count = PMEM_MAX_RANGES;
    full.free_bytes = PMEM_MAX_RANGES * 6 * M;
    struct pmem_extent extra = {(4 + 8ull * PMEM_MAX_RANGES) * M, 2 * M};
    assert_int_equal(pmem_free(&full, &extra, 1), ERR_NO_MEMORY);
    assert_int_equal(full.count, PMEM_MAX_RANGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_free_aligned_memory_above_the_first_mib),
        cmocka_unit_test(test_a_region_from_zero_starts_at_two_mib),
        cmocka_unit_test(test_prefers_whole_gibibytes),
        cmocka_unit_test(test_best_fit_then_largest),
        cmocka_unit_test(test_bad_sizes),
        cmocka_unit_test(test_too_scattered_takes_nothing),
        cmocka_unit_test(test_bad_frees_change_nothing),
        cmocka_unit_test(test_overlapping_regions_are_counted_once),
        cmocka_unit_test(test_a_full_table_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
