/* The pool: what it hands out, what it takes back, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <pthread.h>

#include "hv/pool.h"

#define PAGES 64u
static _Alignas(4096) uint8_t memory[PAGES * 4096];
static const hpa_t at = {0x12340000};

static void fresh(struct pool *p, uint64_t used)
{
    memset(memory, 0xa5, sizeof(memory));
    assert_int_equal(pool_init(p, memory, at, sizeof(memory), used), STATUS_OK);
}

static void test_init_checks(void **state)
{
    (void)state;
    struct pool p;
    assert_int_equal(pool_init(&p, memory + 1, at, sizeof(memory), 0), ERR_INVALID);
    assert_int_equal(pool_init(&p, memory, hpa(0x123), sizeof(memory), 0), ERR_INVALID);
    assert_int_equal(pool_init(&p, memory, at, 4097, 0), ERR_INVALID);
    assert_int_equal(pool_init(&p, memory, at, (uint64_t)(POOL_MAX_PAGES + 1) * 4096, 0), ERR_RANGE);
    assert_int_equal(pool_init(&p, memory, at, sizeof(memory), sizeof(memory) + 1), ERR_RANGE);
    assert_int_equal(pool_pages_free(&p), 0);
    assert_null(pool_alloc(&p));
    fresh(&p, 4097); /* rounded up to two pages */
    assert_int_equal(pool_pages_free(&p), PAGES - 2);
    fresh(&p, sizeof(memory));
    assert_int_equal(pool_pages_free(&p), 0);
    assert_null(pool_alloc(&p));
}

static void test_every_page_once_and_zeroed(void **state)
{
    (void)state;
    struct pool p;
    void *pages[PAGES];
    fresh(&p, 3 * 4096);
    static const uint8_t zeros[4096];
    for (unsigned i = 3; i < PAGES; i++) {
        pages[i] = pool_alloc(&p);
        assert_ptr_equal(pages[i], memory + i * 4096);
        assert_memory_equal(pages[i], zeros, 4096);
        memset(pages[i], 0xff, 4096);
    }
    assert_null(pool_alloc(&p));
    assert_int_equal(memory[3 * 4096 - 1], 0xa5); /* what the loader used was not touched */
    assert_int_equal(pool_free(&p, pages[10]), STATUS_OK);
    assert_int_equal(pool_pages_free(&p), 1);
    assert_ptr_equal(pool_alloc(&p), pages[10]);
    assert_memory_equal(pages[10], zeros, 4096); /* nothing of its last owner */
}

static void test_runs(void **state)
{
    (void)state;
    struct pool p;
    fresh(&p, 0);
    assert_null(pool_alloc_pages(&p, 0));
    assert_null(pool_alloc_pages(&p, PAGES + 1));
    uint8_t *a = pool_alloc_pages(&p, 10), *b = pool_alloc_pages(&p, 20), *c = pool_alloc_pages(&p, 30);
    assert_true(a && b && c);
    assert_int_equal(pool_free_pages(&p, a, 10), STATUS_OK);
    assert_int_equal(pool_free_pages(&p, c, 30), STATUS_OK);
    assert_int_equal(pool_pages_free(&p), 44);
    assert_null(pool_alloc_pages(&p, 35)); /* 44 are free, but not in a row */
    assert_ptr_equal(pool_alloc_pages(&p, 34), c);
    assert_ptr_equal(pool_alloc_pages(&p, 10), a);
    assert_null(pool_alloc(&p));
}

static void test_bad_frees(void **state)
{
    (void)state;
    struct pool p;
    fresh(&p, 2 * 4096);
    uint8_t *a = pool_alloc_pages(&p, 4);
    uint64_t before = pool_pages_free(&p);
    assert_int_equal(pool_free(&p, a + 1), ERR_INVALID);
    assert_int_equal(pool_free(&p, NULL), ERR_INVALID);
    assert_int_equal(pool_free(&p, (void *)((uintptr_t)memory - 4096)), ERR_INVALID);
    assert_int_equal(pool_free(&p, memory + 4096), ERR_INVALID); /* the loader's */
    assert_int_equal(pool_free(&p, memory + sizeof(memory)), ERR_INVALID);
    assert_int_equal(pool_free_pages(&p, a, 0), ERR_INVALID);
    assert_int_equal(pool_free_pages(&p, a, 5), ERR_INVALID); /* the fifth is free */
    assert_int_equal(pool_free_pages(&p, a, UINT32_MAX), ERR_INVALID);
    assert_int_equal(pool_pages_free(&p), before);
    assert_int_equal(pool_free_pages(&p, a, 4), STATUS_OK);
    assert_int_equal(pool_free_pages(&p, a, 4), ERR_INVALID); /* twice */
    assert_int_equal(pool_pages_free(&p), before + 4);
}

static void test_conversions(void **state)
{
    (void)state;
    struct pool p;
    hpa_t h;
    void *v;
    fresh(&p, 4096);
    assert_int_equal(pool_to_hpa(&p, memory + 5000, &h), STATUS_OK);
    assert_int_equal(h.v, at.v + 5000);
    assert_int_equal(pool_to_va(&p, h, &v), STATUS_OK);
    assert_ptr_equal(v, memory + 5000);
    assert_int_equal(pool_to_hpa(&p, memory + sizeof(memory), &h), ERR_RANGE);
    assert_int_equal(pool_to_hpa(&p, (const void *)((uintptr_t)memory - 1), &h), ERR_RANGE);
    assert_int_equal(pool_to_va(&p, hpa(at.v - 1), &v), ERR_RANGE);
    assert_int_equal(pool_to_va(&p, hpa(at.v + sizeof(memory)), &v), ERR_RANGE);
    assert_null(pool_va(&p, hpa(0)));
    assert_int_equal(pool_hpa(&p, NULL).v, 0);
}

static void test_page_table_environment(void **state)
{
    (void)state;
    struct pool p;
    struct pt_env env;
    hpa_t page;
    fresh(&p, 62 * 4096);
    pool_pt_env(&p, &env);
    assert_null(env.store);
    assert_true(env.alloc(env.ctx, &page));
    assert_int_equal(page.v, at.v + 62 * 4096);
    assert_ptr_equal(env.table(env.ctx, page), memory + 62 * 4096);
    assert_true(env.alloc(env.ctx, &page));
    assert_false(env.alloc(env.ctx, &page));
    env.free(env.ctx, hpa(at.v + 62 * 4096));
    env.free(env.ctx, hpa(1)); /* not ours: ignored */
    assert_int_equal(pool_pages_free(&p), 1);
}

static void *worker(void *arg)
{
    struct pool *p = arg;
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t *page = pool_alloc(p);
        if (!page)
            continue;
        page[0] = (uintptr_t)page ^ i;
        if (page[0] != ((uintptr_t)page ^ i) || pool_free(p, page) != STATUS_OK)
            return (void *)1;
    }
    return NULL;
}

static void test_several_cpus(void **state)
{
    (void)state;
    struct pool p;
    pthread_t threads[4];
    void *result;
    fresh(&p, 61 * 4096); /* fewer pages than threads */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, worker, &p), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
    assert_int_equal(pool_pages_free(&p), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_init_checks),  cmocka_unit_test(test_every_page_once_and_zeroed),
        cmocka_unit_test(test_runs),         cmocka_unit_test(test_bad_frees),
        cmocka_unit_test(test_conversions),  cmocka_unit_test(test_page_table_environment),
        cmocka_unit_test(test_several_cpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
