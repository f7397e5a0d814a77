#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/host/ept_model.h"

#define RWX      (EPT_READ | EPT_WRITE | EPT_EXEC)
#define PAGES_2M 512ull
#define PAGES_1G (512ull * 512)
#define HA       0x1000000000ull /* aligned to 1 GiB, as the model's window is */
#define WB_RWX   (RWX | EPT_WB << 3)

static struct ept_model model;

static uint64_t entry_at(uint64_t ga, unsigned stop_level)
{
    uint64_t *table = model.env.table(model.env.ctx, model.ept.root);
    for (unsigned level = 4;; level--) {
        uint64_t entry = table[ga >> (12 + 9 * (level - 1)) & 511];
        if (level == stop_level)
            return entry;
        assert_int_equal(entry & 0xfff, 7);
        table = model.env.table(model.env.ctx, hpa(entry & ~0xfffull));
    }
}

static uint64_t page_size_at(uint64_t page)
{
    hpa_t ha;
    uint64_t size;
    unsigned flags;
    enum ept_memory_type type;
    assert_int_equal(ept_lookup(&model.ept, gpa(EPT_MODEL_BASE + (page << 12)), &ha, &size, &flags, &type),
                     STATUS_OK);
    return size;
}

static void start(bool has_2m, bool has_1g)
{
    assert_true(ept_model_init(&model, has_2m, has_1g, EPT_MODEL_TABLES));
}

static void finish(void)
{
    ept_model_check(&model);
    ept_model_free(&model);
}

static void test_init(void **state)
{
    (void)state;
    assert_false(ept_model_init(&model, true, true, 0));
    start(true, true);
    assert_int_equal(ept_pointer(&model.ept), model.ept.root.v | 6 | 3 << 3);
    assert_int_equal(model.ept.table_pages, 1);
    finish();
    start(false, true); /* 1 GiB pages without 2 MiB pages are not used */
    assert_false(model.ept.has_1g);
    finish();
}

static void test_entry_formats(void **state)
{
    (void)state;
    start(true, true);
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(entry_at(EPT_MODEL_BASE, 3), HA | WB_RWX | 0x80);
    assert_int_equal(ept_model_unmap(&model, 0, PAGES_1G), STATUS_OK);
    assert_int_equal(entry_at(EPT_MODEL_BASE, 3), 0);
    assert_int_equal(ept_model_map(&model, PAGES_2M, PAGES_2M, HA + SIZE_2M, EPT_READ, EPT_UC), STATUS_OK);
    assert_int_equal(entry_at(EPT_MODEL_BASE + SIZE_2M, 2), (HA + SIZE_2M) | 1 | 0x80);
    assert_int_equal(ept_model_map(&model, 3, 1, HA + 0x7000, EPT_READ | EPT_WRITE, EPT_WC), STATUS_OK);
    assert_int_equal(entry_at(EPT_MODEL_BASE + 0x3000, 1), (HA + 0x7000) | 3 | 1 << 3);
    finish();
}

static void test_largest_pages_that_fit(void **state)
{
    (void)state;
    start(true, true);
    /* one small page, one 2 MiB page less than 1 GiB of large ones, a whole 1 GiB page, one small page */
    uint64_t first = PAGES_2M - 1;
    assert_int_equal(
        ept_model_map(&model, first, 1 + (PAGES_1G - PAGES_2M) + 1, HA + (first << 12), RWX, EPT_WB),
        STATUS_OK);
    assert_int_equal(page_size_at(first), PAGE_SIZE);
    assert_int_equal(page_size_at(PAGES_2M), SIZE_2M);
    assert_int_equal(page_size_at(PAGES_1G - 1), SIZE_2M);
    assert_int_equal(page_size_at(PAGES_1G), PAGE_SIZE);
    finish();
    start(true, true);
    assert_int_equal(ept_model_map(&model, PAGES_1G, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(page_size_at(PAGES_1G), SIZE_1G);
    assert_int_equal(model.ept.table_pages, 2);
    finish();
    start(true, false);
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(page_size_at(5), SIZE_2M);
    finish();
    start(false, false);
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(page_size_at(5), PAGE_SIZE);
    assert_int_equal(model.ept.table_pages, 3 + 512);
    finish();
    start(true, true); /* the host address is aligned to 4 KiB only */
    assert_int_equal(ept_model_map(&model, 0, PAGES_2M * 2, HA + 0x1000, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(page_size_at(0), PAGE_SIZE);
    finish();
}

static void test_map_refuses(void **state)
{
    (void)state;
    start(true, true);
    struct ept *ept = &model.ept;
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0, RWX, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1001), hpa(0), 0x1000, RWX, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(8), 0x1000, RWX, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0x1800, RWX, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0x1000, 0, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0x1000, EPT_WRITE, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0x1000, EPT_WRITE | EPT_EXEC, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0x1000, EPT_EXEC, EPT_WB), ERR_INVALID);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), 0x1000, RWX | 8, EPT_WB), ERR_INVALID);
    for (unsigned type = 0; type < 16; type++) {
        bool legal = type == 0 || type == 1 || type == 4 || type == 5 || type == 6;
        enum status status = ept_model_map(&model, type, 1, HA, RWX, (enum ept_memory_type)type);
        assert_int_equal(status, legal ? STATUS_OK : ERR_INVALID);
    }
    assert_int_equal(ept_map(ept, gpa(1ull << 48), hpa(0), 0x1000, RWX, EPT_WB), ERR_RANGE);
    assert_int_equal(ept_map(ept, gpa((1ull << 48) - 0x1000), hpa(0), 0x2000, RWX, EPT_WB), ERR_RANGE);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(0), ~0xfffull, RWX, EPT_WB), ERR_RANGE);
    assert_int_equal(ept_map(ept, gpa(~0xfffull), hpa(0), 0x1000, RWX, EPT_WB), ERR_RANGE);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa(1ull << 52), 0x1000, RWX, EPT_WB), ERR_RANGE);
    assert_int_equal(ept_map(ept, gpa(0x1000), hpa((1ull << 52) - 0x1000), 0x2000, RWX, EPT_WB), ERR_RANGE);
    assert_int_equal(ept_unmap(ept, gpa(0x1001), 0x1000), ERR_INVALID);
    assert_int_equal(ept_unmap(ept, gpa(1ull << 48), 0x1000), ERR_RANGE);
    assert_int_equal(ept_protect(ept, gpa(0x1001), 0x1000, RWX), ERR_INVALID);
    assert_int_equal(ept_protect(ept, gpa(0x1000), 0x1000, EPT_WRITE), ERR_INVALID);
    assert_int_equal(ept_protect(ept, gpa(0x1000), 0x1000, 0), ERR_INVALID);
    assert_int_equal(ept_lookup(ept, gpa(1ull << 48), NULL, NULL, NULL, NULL), ERR_NOT_FOUND);
    finish();
}

static void test_top_of_guest_space(void **state)
{
    (void)state;
    hpa_t ha;
    uint64_t size;
    unsigned flags;
    enum ept_memory_type type;
    start(true, true);
    model.op = EPT_MODEL_MAP;
    model.op_ga = (1ull << 48) - 0x2000;
    model.op_end = 1ull << 48;
    model.op_value = 0x5000 | WB_RWX;
    assert_int_equal(ept_map(&model.ept, gpa(model.op_ga), hpa(0x5000), 0x2000, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(ept_lookup(&model.ept, gpa((1ull << 48) - 1), &ha, &size, &flags, &type), STATUS_OK);
    assert_int_equal(ha.v, 0x6fff);
    model.op = EPT_MODEL_UNMAP;
    assert_int_equal(ept_unmap(&model.ept, gpa(model.op_ga), 0x2000), STATUS_OK);
    model.op = EPT_MODEL_NONE;
    finish();
}

static void test_overlaps(void **state)
{
    (void)state;
    start(true, true);
    assert_int_equal(ept_model_map(&model, 1000, 1, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WB), ERR_EXISTS);
    assert_int_equal(ept_model_map(&model, 1000, 1, HA, RWX, EPT_WB), ERR_EXISTS);
    assert_int_equal(ept_model_map(&model, 999, 1, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(ept_model_map(&model, PAGES_1G, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(ept_model_map(&model, PAGES_1G + 77, 1, HA, RWX, EPT_WB), ERR_EXISTS);
    finish();
}

static void test_unmap_splits(void **state)
{
    (void)state;
    start(true, true);
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    uint64_t tables = model.ept.table_pages;
    assert_int_equal(ept_model_unmap(&model, PAGES_2M + 3, 1), STATUS_OK);
    assert_int_equal(model.ept.table_pages, tables + 2);
    assert_int_equal(page_size_at(PAGES_2M + 2), PAGE_SIZE);
    assert_int_equal(page_size_at(0), SIZE_2M);
    /* From inside one 2 MiB page into another: two more tables. */
    assert_int_equal(ept_model_unmap(&model, PAGES_2M * 10 + 5, PAGES_2M * 3), STATUS_OK);
    assert_int_equal(model.ept.table_pages, tables + 4);
    assert_int_equal(ept_model_unmap(&model, 0, PAGES_1G), STATUS_OK); /* holes are fine */
    assert_int_equal(model.want_count, 0);
    /* The tables that are left are used again. */
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(model.ept.table_pages, tables + 4);
    finish();
}

static void test_protect(void **state)
{
    (void)state;
    start(true, true);
    assert_int_equal(ept_model_map(&model, 0, PAGES_1G, HA, RWX, EPT_WP), STATUS_OK);
    assert_int_equal(ept_model_protect(&model, 0, PAGES_1G, EPT_READ | EPT_EXEC), STATUS_OK);
    assert_int_equal(page_size_at(0), SIZE_1G);
    assert_int_equal(ept_model_protect(&model, 7, 2, EPT_READ), STATUS_OK);
    assert_int_equal(entry_at(EPT_MODEL_BASE + 0x7000, 1), (HA + 0x7000) | 1 | 5 << 3);
    assert_int_equal(entry_at(EPT_MODEL_BASE + 0x6000, 1), (HA + 0x6000) | 5 | 5 << 3);
    assert_int_equal(ept_model_protect(&model, PAGES_1G - 1, 2, EPT_READ), ERR_NOT_FOUND);
    assert_int_equal(ept_model_unmap(&model, 100, 1), STATUS_OK);
    assert_int_equal(ept_model_protect(&model, 99, 3, EPT_READ), ERR_NOT_FOUND);
    finish();
}

/* With k pages to be had the operation fails and leaves nothing behind, until k suffices. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (unsigned op = 0; op < 3; op++) {
        bool done = false;
        for (uint64_t spare = 0; !done; spare++) {
            start(true, true);
            if (op)
                assert_int_equal(ept_model_map(&model, PAGES_1G, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
            model.limit = model.in_use + spare;
            enum status status;
            if (op == 0)
                status = ept_model_map(&model, PAGES_1G - 1, 2, HA, RWX, EPT_WB);
            else if (op == 1)
                status = ept_model_unmap(&model, PAGES_1G + 511, 2);
            else
                status = ept_model_protect(&model, PAGES_1G + 1, PAGES_1G - 2, EPT_READ);
            done = status == STATUS_OK;
            assert_true(done || status == ERR_NO_MEMORY);
            /* mapping crosses 512 GiB: three tables on each side; a split of 1 GiB and of two 2 MiB pages:
             * three */
            assert_int_equal(done, spare == (op == 0 ? 6 : 3));
            finish();
        }
    }
}

/* CVE-2018-12207: no large page is executable, ever (the model looks at each store); the 2 MiB around a fetch
 * become small pages that are. */
static void test_code_in_small_pages(void **state)
{
    (void)state;
    start(true, true);
    model.ept.nx_large = true;
    assert_int_equal(ept_model_map(&model, PAGES_1G, PAGES_1G, HA, RWX, EPT_WB), STATUS_OK);
    assert_int_equal(entry_at(EPT_MODEL_BASE + SIZE_1G, 3), HA | 1ull << 52 | 0x80 | EPT_WB << 3 | 3);
    assert_int_equal(ept_model_allow_exec(&model, PAGES_1G + 1000), STATUS_OK);
    assert_int_equal(model.ept.table_pages, 4);
    assert_int_equal(page_size_at(PAGES_1G + 511), SIZE_2M);
    assert_int_equal(page_size_at(PAGES_1G + 512), PAGE_SIZE);
    assert_int_equal(page_size_at(PAGES_1G + 1023), PAGE_SIZE);
    assert_int_equal(entry_at(EPT_MODEL_BASE + SIZE_1G + 600 * 4096, 1), (HA + 600 * 4096) | WB_RWX);
    uint64_t stores = model.stores;
    assert_int_equal(ept_model_allow_exec(&model, PAGES_1G + 700),
                     STATUS_OK); /* another CPU's stale translation */
    assert_int_equal(model.stores, stores);
    model.limit = model.in_use;
    assert_int_equal(ept_model_allow_exec(&model, PAGES_1G + 2000), ERR_NO_MEMORY);
    model.limit = EPT_MODEL_TABLES;
    assert_int_equal(ept_model_allow_exec(&model, 5), ERR_NOT_FOUND); /* a hole */
    assert_int_equal(ept_model_map(&model, 0, PAGES_2M, HA, EPT_READ | EPT_WRITE, EPT_UC), STATUS_OK);
    assert_int_equal(ept_model_allow_exec(&model, 5), ERR_NOT_FOUND); /* a device */
    assert_int_equal(ept_model_protect(&model, 0, PAGES_2M, EPT_READ | EPT_EXEC), STATUS_OK);
    assert_int_equal(ept_model_protect(&model, 3, 1, EPT_READ), STATUS_OK); /* split: the others show it */
    assert_int_equal(ept_model_allow_exec(&model, 5), STATUS_OK);
    assert_int_equal(ept_model_allow_exec(&model, 3), ERR_NOT_FOUND);
    finish();
}

static uint64_t *plain_table(void *ctx, hpa_t page)
{
    (void)ctx;
    return (uint64_t *)page.v;
}
static bool plain_alloc(void *ctx, hpa_t *page)
{
    (void)ctx;
    *page = hpa((uint64_t)aligned_alloc(4096, 4096));
    for (unsigned i = 0; i < 512; i++)
        plain_table(ctx, *page)[i] = 0;
    return true;
}
static void plain_free(void *ctx, hpa_t page)
{
    (void)ctx;
    free(plain_table(ctx, page));
}

static void test_plain_store(void **state)
{
    (void)state;
    struct pt_env env = {.alloc = plain_alloc, .free = plain_free, .table = plain_table};
    struct ept ept;
    hpa_t ha;
    uint64_t size;
    unsigned flags;
    enum ept_memory_type type;
    assert_int_equal(ept_init(&ept, &env, true, true), STATUS_OK);
    assert_int_equal(ept_map(&ept, gpa(0x3000), hpa(0x9000), 0x1000, EPT_READ, EPT_WT), STATUS_OK);
    assert_int_equal(ept_lookup(&ept, gpa(0x3abc), &ha, &size, &flags, &type), STATUS_OK);
    assert_int_equal(ha.v, 0x9abc);
    assert_int_equal(flags, EPT_READ);
    assert_int_equal(type, EPT_WT);
    ept_destroy(&ept);
}

/* The fuzzer's loop with fixed seeds, so that a plain test run covers the mixtures too. */
static void test_random_operations(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; seed++) {
        uint32_t x = seed * 2654435761u;
        start(seed % 3 != 0, seed % 3 == 1);
        model.ept.nx_large = seed > 3;
        for (unsigned i = 0; i < 60; i++) {
            x = x * 1664525u + 1013904223u;
            uint64_t align = x >> 20 & 1 ? 1 : PAGES_2M;
            uint64_t first = (x >> 4) % EPT_MODEL_PAGES / align * align;
            x = x * 1664525u + 1013904223u;
            uint64_t count = ((x >> 3) % 3000 + 1) * (x >> 30 ? 1 : 64);
            if (count > EPT_MODEL_PAGES - first)
                count = EPT_MODEL_PAGES - first;
            unsigned flags = EPT_READ | (x >> 28 & 6);
            ept_model_allow_exec(&model, first);
            if (x % 3 == 0)
                ept_model_unmap(&model, first, count);
            else if (x % 3 == 1)
                ept_model_protect(&model, first, count, flags);
            else
                ept_model_map(&model, first, count, HA + (first << 12) % SIZE_1G, flags, EPT_WB);
        }
        finish();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_entry_formats),
        cmocka_unit_test(test_largest_pages_that_fit),
        cmocka_unit_test(test_map_refuses),
        cmocka_unit_test(test_top_of_guest_space),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_unmap_splits),
        cmocka_unit_test(test_protect),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_code_in_small_pages),
        cmocka_unit_test(test_plain_store),
        cmocka_unit_test(test_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
