#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"

#define TABLES 16

/* Table pages live at FAKE_BASE + n pages; every store is checked when it happens. */
#define FAKE_BASE 0x40000000ull
struct fake {
    _Alignas(4096) uint64_t pages[TABLES][512];
    unsigned used, limit, stores;
};

static bool fake_alloc(void *ctx, hpa_t *page)
{
    struct fake *f = ctx;
    if (f->used == f->limit)
        return false;
    *page = hpa(FAKE_BASE + f->used++ * PAGE_SIZE);
    return true;
}

static uint64_t *fake_table(void *ctx, hpa_t page)
{
    struct fake *f = ctx;
    uint64_t n = (page.v - FAKE_BASE) / PAGE_SIZE;
    assert_true(n < f->used);
    return f->pages[n];
}

static void fake_store(void *ctx, uint64_t *entry, uint64_t value)
{
    struct fake *f = ctx;
    f->stores++;
    /* A present entry never changes into another present one: no step passes through a wrong translation. */
    assert_true((*entry & 1) == 0 || value == 0);
    /* W^X for leaves: a writable entry is NX unless it points to one of our (empty) tables. */
    if ((value & 3) == 3 && !(value >> 63)) {
        uint64_t page = value & 0x000ffffffffff000ull;
        assert_true(page >= FAKE_BASE && page < FAKE_BASE + f->used * PAGE_SIZE);
        uint64_t *table = fake_table(f, hpa(page));
        for (unsigned i = 0; i < 512; i++)
            assert_int_equal(table[i], 0);
    }
    *entry = value;
}

static struct fake fake;
static struct pt_env env;
static hpa_t root;

static int setup(void **state)
{
    memset(&fake, 0, sizeof(fake));
    fake.limit = TABLES;
    env = (struct pt_env){.ctx = &fake, .alloc = fake_alloc, .table = fake_table, .store = fake_store};
    assert_true(fake_alloc(&fake, &root));
    return 0;
}

static void expect(uint64_t va, uint64_t want_pa, unsigned want_flags)
{
    hpa_t pa;
    unsigned flags;
    assert_int_equal(hostpt_lookup(&env, root, va, &pa, &flags), STATUS_OK);
    assert_int_equal(pa.v, want_pa);
    assert_int_equal(flags, want_flags);
}

static void expect_hole(uint64_t va)
{
    hpa_t pa;
    unsigned flags;
    assert_int_equal(hostpt_lookup(&env, root, va, &pa, &flags), ERR_NOT_FOUND);
}

static void test_small_pages(void **state)
{
    assert_int_equal(hostpt_map(&env, root, LAYOUT_CORE_VA, hpa(0x123000), 0x3000, HOSTPT_EXEC), STATUS_OK);
    expect(LAYOUT_CORE_VA, 0x123000, HOSTPT_EXEC);
    expect(LAYOUT_CORE_VA + 0x2fff, 0x125fff, HOSTPT_EXEC);
    expect_hole(LAYOUT_CORE_VA + 0x3000);
    expect_hole(LAYOUT_CORE_VA - 1);
    assert_int_equal(fake.used, 4); /* root and one table for each level below */
}

static void test_large_pages_where_aligned(void **state)
{
    /* 4 KiB, then 2 MiB, then 4 KiB again. */
    uint64_t va = LAYOUT_POOL_VA + SIZE_2M - PAGE_SIZE, pa = 0x10000000 + SIZE_2M - PAGE_SIZE;
    assert_int_equal(hostpt_map(&env, root, va, hpa(pa), SIZE_2M + 2 * PAGE_SIZE, HOSTPT_WRITE), STATUS_OK);
    for (uint64_t off = 0; off < SIZE_2M + 2 * PAGE_SIZE; off += PAGE_SIZE / 2)
        expect(va + off, pa + off, HOSTPT_WRITE);
    expect_hole(va - 1);
    expect_hole(va + SIZE_2M + 2 * PAGE_SIZE);
    assert_int_equal(fake.used, 5); /* root, PDPT, PD, and a page table at either end */
    assert_int_equal(fake.stores, 4 + 3);
}

static void test_large_page_not_over_a_table(void **state)
{
    uint64_t *entry;
    assert_int_equal(hostpt_leaf(&env, root, LAYOUT_POOL_VA, &entry), STATUS_OK);
    assert_int_equal(*entry, 0);
    assert_int_equal(hostpt_map(&env, root, LAYOUT_POOL_VA, hpa(SIZE_2M), SIZE_2M, HOSTPT_WRITE), STATUS_OK);
    assert_int_equal(*entry, hostpt_leaf_value(hpa(SIZE_2M), HOSTPT_WRITE));
    expect(LAYOUT_POOL_VA + SIZE_2M - 1, 2 * SIZE_2M - 1, HOSTPT_WRITE);
}

static void test_entry_bits(void **state)
{
    /* SDM volume 3, "Format of a Page-Table Entry": P, A, D, G always. */
    assert_int_equal(hostpt_leaf_value(hpa(0x5000), 0), 0x8000000000005161ull);
    assert_int_equal(hostpt_leaf_value(hpa(0x5000), HOSTPT_EXEC), 0x5161);
    assert_int_equal(hostpt_leaf_value(hpa(0x5000), HOSTPT_WRITE), 0x8000000000005163ull);
    assert_int_equal(hostpt_leaf_value(hpa(0x5000), HOSTPT_WRITE | HOSTPT_UNCACHED), 0x800000000000517bull);
    assert_int_equal(hostpt_leaf_value(hpa(0x5000), HOSTPT_WRITE | HOSTPT_WC), 0x80000000000051e3ull);

    const unsigned flags = HOSTPT_WRITE | HOSTPT_WC;
    assert_int_equal(hostpt_map(&env, root, LAYOUT_MMIO_VA, hpa(0xe0000000), SIZE_2M, flags), STATUS_OK);
    assert_int_equal(fake.pages[2][0], 0x80000000e00011e3ull); /* PS is bit 7, PAT bit 12 */
    expect(LAYOUT_MMIO_VA + 0x1234, 0xe0001234, flags);
    assert_int_equal(hostpt_map(&env, root, LAYOUT_MMIO_VA + SIZE_2M, hpa(0xfee00000), PAGE_SIZE,
                                HOSTPT_WRITE | HOSTPT_UNCACHED),
                     STATUS_OK);
    expect(LAYOUT_MMIO_VA + SIZE_2M, 0xfee00000, HOSTPT_WRITE | HOSTPT_UNCACHED);
}

static void test_refusals(void **state)
{
    const uint64_t va = LAYOUT_CORE_VA;
    assert_int_equal(hostpt_map(&env, root, va, hpa(0), PAGE_SIZE, HOSTPT_WRITE | HOSTPT_EXEC), ERR_INVALID);
    assert_int_equal(hostpt_map(&env, root, va, hpa(0), PAGE_SIZE, HOSTPT_WC | HOSTPT_UNCACHED), ERR_INVALID);
    assert_int_equal(hostpt_map(&env, root, va + 1, hpa(0), PAGE_SIZE, 0), ERR_INVALID);
    assert_int_equal(hostpt_map(&env, root, va, hpa(1), PAGE_SIZE, 0), ERR_INVALID);
    assert_int_equal(hostpt_map(&env, root, va, hpa(0), PAGE_SIZE + 1, 0), ERR_INVALID);
    assert_int_equal(hostpt_map(&env, root, va, hpa(0), 0, 0), ERR_INVALID);
    assert_int_equal(hostpt_map(&env, root, 0x0000800000000000ull, hpa(0), PAGE_SIZE, 0), ERR_RANGE);
    assert_int_equal(hostpt_map(&env, root, 0x00007ffffffff000ull, hpa(0), 2 * PAGE_SIZE, 0), ERR_RANGE);
    assert_int_equal(hostpt_map(&env, root, 0xfffffffffffff000ull, hpa(0), 2 * PAGE_SIZE, 0), ERR_RANGE);
    assert_int_equal(hostpt_map(&env, root, 0, hpa(0), (uint64_t)-4096, 0), ERR_RANGE);
    assert_int_equal(hostpt_map(&env, root, va, hpa(((uint64_t)1 << 52) - PAGE_SIZE), 2 * PAGE_SIZE, 0),
                     ERR_RANGE);
    assert_int_equal(hostpt_map(&env, root, va, hpa((uint64_t)1 << 52), PAGE_SIZE, 0), ERR_RANGE);
    assert_int_equal(fake.stores, 0);
    hpa_t pa;
    unsigned flags;
    uint64_t *entry;
    assert_int_equal(hostpt_lookup(&env, root, 0x0000800000000000ull, &pa, &flags), ERR_RANGE);
    assert_int_equal(hostpt_leaf(&env, root, 0x0000800000000000ull, &entry), ERR_RANGE);
}

static void test_top_of_address_space(void **state)
{
    assert_int_equal(hostpt_map(&env, root, 0xfffffffffffff000ull, hpa(0x7000), PAGE_SIZE, 0), STATUS_OK);
    expect(0xffffffffffffffffull, 0x7fff, 0);
}

static void test_overlap_changes_nothing(void **state)
{
    assert_int_equal(hostpt_map(&env, root, LAYOUT_POOL_VA, hpa(SIZE_2M), SIZE_2M, HOSTPT_WRITE), STATUS_OK);
    unsigned stores = fake.stores;
    assert_int_equal(hostpt_map(&env, root, LAYOUT_POOL_VA + 0x5000, hpa(0), PAGE_SIZE, 0), ERR_EXISTS);
    assert_int_equal(hostpt_map(&env, root, LAYOUT_POOL_VA - 0x5000, hpa(0), 0x6000, 0), ERR_EXISTS);
    /* Far below: the search must not step over it. */
    assert_int_equal(hostpt_map(&env, root, LAYOUT_CORE_VA, hpa(0), LAYOUT_WINDOW_VA - LAYOUT_CORE_VA, 0),
                     ERR_EXISTS);
    assert_int_equal(fake.stores, stores);
    uint64_t *entry;
    assert_int_equal(hostpt_leaf(&env, root, LAYOUT_POOL_VA + 0x5000, &entry), ERR_EXISTS);
}

static void test_out_of_memory_maps_nothing(void **state)
{
    /* Needs PDPT, PD and two page tables: fail at each of them in turn. */
    for (unsigned limit = 1; limit < 5; limit++) {
        setup(state);
        fake.limit = limit;
        uint64_t va = LAYOUT_CORE_VA + SIZE_2M - PAGE_SIZE;
        assert_int_equal(hostpt_map(&env, root, va, hpa(0), 2 * PAGE_SIZE, 0), ERR_NO_MEMORY);
        expect_hole(va);
        expect_hole(va + PAGE_SIZE);
        fake.limit = 5;
        assert_int_equal(hostpt_map(&env, root, va, hpa(0x9000), 2 * PAGE_SIZE, 0), STATUS_OK);
        expect(va + PAGE_SIZE, 0xa000, 0);
    }
}

static void test_unmap(void **state)
{
    const uint64_t va = LAYOUT_POOL_VA;
    assert_int_equal(hostpt_map(&env, root, va, hpa(0), SIZE_2M + 2 * PAGE_SIZE, HOSTPT_WRITE), STATUS_OK);
    assert_int_equal(hostpt_unmap(&env, root, va, PAGE_SIZE), ERR_INVALID); /* part of a large page */
    assert_int_equal(hostpt_unmap(&env, root, va + PAGE_SIZE, SIZE_2M), ERR_INVALID);
    assert_int_equal(hostpt_unmap(&env, root, va + SIZE_2M, 3 * PAGE_SIZE), ERR_NOT_FOUND);
    expect(va + SIZE_2M, SIZE_2M, HOSTPT_WRITE); /* the failed one cleared nothing */
    assert_int_equal(hostpt_unmap(&env, root, va + 1, PAGE_SIZE), ERR_INVALID);
    assert_int_equal(hostpt_unmap(&env, root, va, SIZE_2M + PAGE_SIZE), STATUS_OK);
    expect_hole(va);
    expect_hole(va + SIZE_2M);
    expect(va + SIZE_2M + PAGE_SIZE, SIZE_2M + PAGE_SIZE, HOSTPT_WRITE);
    assert_int_equal(hostpt_map(&env, root, va, hpa(0x1000), PAGE_SIZE, HOSTPT_EXEC), STATUS_OK);
}

static void test_plain_store(void **state)
{
    env.store = NULL;
    assert_int_equal(hostpt_map(&env, root, LAYOUT_CORE_VA, hpa(0x1000), PAGE_SIZE, 0), STATUS_OK);
    expect(LAYOUT_CORE_VA, 0x1000, 0);
    assert_int_equal(fake.stores, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_small_pages, setup),
        cmocka_unit_test_setup(test_large_pages_where_aligned, setup),
        cmocka_unit_test_setup(test_large_page_not_over_a_table, setup),
        cmocka_unit_test_setup(test_entry_bits, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_top_of_address_space, setup),
        cmocka_unit_test_setup(test_overlap_changes_nothing, setup),
        cmocka_unit_test_setup(test_out_of_memory_maps_nothing, setup),
        cmocka_unit_test_setup(test_unmap, setup),
        cmocka_unit_test_setup(test_plain_store, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
