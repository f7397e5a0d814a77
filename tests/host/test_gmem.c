/* Guest memory: borders of pages and extents, all or nothing, and nothing outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/gmem.h"

/* Host memory of 16 pages, each mapped through one window page that the next call takes away. */
#define PAGES 16u
static uint8_t host[PAGES][4096];
static _Alignas(4096) uint8_t window[4096];
static uint64_t window_page = UINT64_MAX;
static unsigned maps;

static void unmap(void)
{
    if (window_page != UINT64_MAX)
        memcpy(host[window_page], window, 4096);
    window_page = UINT64_MAX;
}

static void *map(void *ctx, hpa_t page)
{
    assert_ptr_equal(ctx, host);
    assert_int_equal(page.v % 4096, 0);
    assert_true(page.v / 4096 < PAGES);
    unmap();
    window_page = page.v / 4096;
    memcpy(window, host[window_page], 4096);
    maps++;
    return window;
}

static struct gmem g;

/* RAM at 0..3000 (hpa 8000), 3000..5000 (hpa 2000), 7000..9000 (hpa c000). */
static int setup(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PAGES; i++)
        memset(host[i], (int)(0x40 + i), 4096);
    window_page = UINT64_MAX;
    gmem_init(&g, map, host);
    assert_int_equal(gmem_add(&g, gpa(0x7000), hpa(0xc000), 0x2000), STATUS_OK);
    assert_int_equal(gmem_add(&g, gpa(0), hpa(0x8000), 0x3000), STATUS_OK);
    assert_int_equal(gmem_add(&g, gpa(0x3000), hpa(0x2000), 0x2000), STATUS_OK);
    maps = 0;
    return 0;
}

static void test_extents_are_kept_sorted_and_disjoint(void **state)
{
    (void)state;
    assert_int_equal(g.count, 3);
    for (uint32_t i = 1; i < g.count; i++)
        assert_true(g.extents[i - 1].gpa + g.extents[i - 1].size <= g.extents[i].gpa);
    assert_int_equal(gmem_add(&g, gpa(0x4000), hpa(0), 0x1000), ERR_EXISTS);
    assert_int_equal(gmem_add(&g, gpa(0x5000), hpa(0), 0x3000), ERR_EXISTS);
    assert_int_equal(gmem_add(&g, gpa(0x6000), hpa(0), 0x4000), ERR_EXISTS);
    assert_int_equal(gmem_add(&g, gpa(0x5800), hpa(0), 0x1000), ERR_INVALID);
    assert_int_equal(gmem_add(&g, gpa(0x5000), hpa(0x10), 0x1000), ERR_INVALID);
    assert_int_equal(gmem_add(&g, gpa(0x5000), hpa(0), 0x10), ERR_INVALID);
    assert_int_equal(gmem_add(&g, gpa(0x5000), hpa(0), 0), ERR_INVALID);
    assert_int_equal(gmem_add(&g, gpa(~0xfffull), hpa(0), 0x2000), ERR_INVALID);
    assert_int_equal(gmem_add(&g, gpa(0x5000), hpa(~0xfffull), 0x2000), ERR_INVALID);
    assert_int_equal(gmem_add(&g, gpa(0x9000), hpa(0xe000), 0x1000), STATUS_OK);
    assert_int_equal(g.count, 3); /* continues its predecessor: merged */
    for (uint32_t i = g.count; i < GMEM_MAX_EXTENTS; i++)
        assert_int_equal(gmem_add(&g, gpa(0x100000 + i * 0x2000ull), hpa(0), 0x1000), STATUS_OK);
    assert_int_equal(gmem_add(&g, gpa(0x5000), hpa(0), 0x1000), ERR_NO_MEMORY);
}

static void test_translate(void **state)
{
    (void)state;
    hpa_t h;
    uint64_t left;
    assert_int_equal(gmem_translate(&g, gpa(0x2fff), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 0xafff);
    assert_int_equal(left, 1);
    assert_int_equal(gmem_translate(&g, gpa(0x3000), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 0x2000);
    assert_int_equal(left, 0x2000);
    assert_int_equal(gmem_translate(&g, gpa(0x5000), &h, &left), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(0x6fff), &h, &left), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(0x9000), &h, &left), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(UINT64_MAX), &h, &left), ERR_RANGE);
}

static void test_reads_and_writes_cross_borders(void **state)
{
    (void)state;
    uint8_t buf[0x2100];
    assert_int_equal(gmem_read(&g, gpa(0x1f00), buf, sizeof(buf)), STATUS_OK); /* pages 9, a, then 2 and 3 */
    assert_int_equal(buf[0], 0x49);
    assert_int_equal(buf[0x100], 0x4a);
    assert_int_equal(buf[0x10ff], 0x4a);
    assert_int_equal(buf[0x1100], 0x42);
    assert_int_equal(buf[0x20ff], 0x42);
    assert_int_equal(maps, 3);
    for (unsigned i = 0; i < sizeof(buf); i++)
        buf[i] = (uint8_t)(i * 7);
    assert_int_equal(gmem_write(&g, gpa(0x2f01), buf, 0x200), STATUS_OK);
    unmap();
    assert_memory_equal(&host[0xa][0xf01], buf, 0xff);
    assert_memory_equal(host[2], buf + 0xff, 0x101);
    assert_int_equal(host[2][0x101], 0x42);
    assert_int_equal(host[0xa][0xf00], 0x4a);
    assert_int_equal(gmem_set(&g, gpa(0x7ffe), 0, 4), STATUS_OK);
    unmap();
    assert_int_equal(host[0xc][0xffd], 0x4c);
    assert_int_equal(host[0xc][0xffe] | host[0xc][0xfff] | host[0xd][0] | host[0xd][1], 0);
    assert_int_equal(host[0xd][2], 0x4d);
}

static void test_all_or_nothing(void **state)
{
    (void)state;
    static const struct {
        uint64_t addr, size;
    } bad[] = {{0x4fff, 2},     {0x5000, 1},     {0x6fff, 2},         {0x9000, 1},
               {0x8fff, 2},     {0, 0x5001},     {0, UINT64_MAX},     {0x1000, ~0xfffull},
               {UINT64_MAX, 1}, {UINT64_MAX, 2}, {0x7000, 1ull << 63}};
    uint8_t buf[16] = {0};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(gmem_check(&g, gpa(bad[i].addr), bad[i].size), ERR_RANGE);
        assert_int_equal(gmem_set(&g, gpa(bad[i].addr), 0, bad[i].size), ERR_RANGE);
        assert_int_equal(gmem_read(&g, gpa(bad[i].addr), buf, bad[i].size), ERR_RANGE);
        assert_int_equal(gmem_write(&g, gpa(bad[i].addr), buf, bad[i].size), ERR_RANGE);
    }
    assert_int_equal(maps, 0);
    assert_int_equal(gmem_read(&g, gpa(0x5000), buf, 0), STATUS_OK);
    assert_int_equal(gmem_check(&g, gpa(0), 0x5000), STATUS_OK);
}

static void test_cmpxchg(void **state)
{
    (void)state;
    uint64_t old = 0;
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x3008), 8, 0x4242424242424242, 0x1122334455667788, &old),
                     STATUS_OK);
    assert_int_equal(old, 0x4242424242424242);
    unmap();
    assert_int_equal(host[2][8], 0x88);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x3008), 8, 1, 2, &old), STATUS_OK);
    assert_int_equal(old, 0x1122334455667788);
    unmap();
    assert_int_equal(host[2][8], 0x88); /* not equal: not written */
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x300c), 4, 0x11223344, 0xcafebabe, &old), STATUS_OK);
    assert_int_equal(old, 0x11223344);
    unmap();
    assert_int_equal(host[2][0xc], 0xbe);
    assert_int_equal(host[2][0x10], 0x42);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x300c), 4, 1, 2, &old), STATUS_OK);
    assert_int_equal(old, 0xcafebabe);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x3004), 8, 0, 0, &old), ERR_INVALID);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x3002), 4, 0, 0, &old), ERR_INVALID);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x3000), 2, 0, 0, &old), ERR_INVALID);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x5000), 8, 0, 0, &old), ERR_RANGE);
}

static void test_rom_and_nothing(void **state)
{
    uint64_t old, left;
    uint8_t buf[4] = {1, 2, 3, 4};
    hpa_t h;
    gmem_show(&g, gpa(0x3000), hpa(0x2000), GMEM_ROM);
    assert_int_equal(gmem_check(&g, gpa(0x2fff), 2), STATUS_OK);
    assert_int_equal(gmem_check_write(&g, gpa(0x2fff), 2), ERR_RANGE);
    assert_int_equal(gmem_check_write(&g, gpa(0x2ffe), 2), STATUS_OK);
    assert_int_equal(gmem_write(&g, gpa(0x2fff), buf, 2), ERR_RANGE);
    assert_int_equal(gmem_set(&g, gpa(0x3000), 0, 1), ERR_RANGE);
    assert_int_equal(gmem_cmpxchg(&g, gpa(0x3008), 8, 0x4242424242424242, 1, &old), ERR_RANGE);
    assert_int_equal(gmem_read(&g, gpa(0x2fff), buf, 2), STATUS_OK);
    assert_int_equal(buf[1], 0x42);
    assert_int_equal(gmem_translate(&g, gpa(0x3010), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 0x2010);
    const uint8_t *seen = gmem_window(&g, gpa(0x3010), 8);
    assert_non_null(seen);
    assert_int_equal(seen[0], 0x42);
    gmem_show(&g, gpa(0x3000), hpa(0), GMEM_NOTHING);
    assert_int_equal(gmem_check(&g, gpa(0x3000), 1), ERR_RANGE);
    assert_int_equal(gmem_read(&g, gpa(0x3000), buf, 1), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(0x3000), &h, &left), ERR_RANGE);
    assert_null(gmem_window(&g, gpa(0x3010), 8));
    gmem_show(&g, gpa(0x3001), hpa(0x2000), GMEM_RAM); /* no extent begins there */
    assert_int_equal(gmem_check(&g, gpa(0x3000), 1), ERR_RANGE);
    gmem_show(&g, gpa(0x3000), hpa(0xc000), GMEM_RAM);
    assert_int_equal(gmem_write(&g, gpa(0x3000), buf, 1), STATUS_OK);
    unmap();
    assert_int_equal(host[0xc][0], buf[0]);
}

static void test_split(void **state)
{
    uint64_t left;
    hpa_t h;
    assert_int_equal(gmem_split(&g, gpa(0x3000), 0x2000), STATUS_OK); /* as it is */
    assert_int_equal(g.count, 3);
    assert_int_equal(gmem_split(&g, gpa(0x4000), 0x1000), STATUS_OK);
    assert_int_equal(g.count, 4);
    assert_int_equal(gmem_translate(&g, gpa(0x4010), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 0x3010);
    assert_int_equal(left, 0xff0);
    assert_int_equal(gmem_split(&g, gpa(0x3800), 0x1000), ERR_RANGE);
    assert_int_equal(gmem_split(&g, gpa(0x3000), 0), ERR_RANGE);
    assert_int_equal(gmem_split(&g, gpa(0x3000), 0x2000), ERR_RANGE); /* two extents now */
    assert_int_equal(gmem_split(&g, gpa(0x5000), 0x1000), ERR_RANGE); /* a hole */
    assert_int_equal(gmem_split(&g, gpa(0x100000000), 0x1000), ERR_RANGE);
    assert_int_equal(gmem_add(&g, gpa(0x100000), hpa(0x40000), 0x100000), STATUS_OK);
    for (uint64_t at = 0x101000; g.count < GMEM_MAX_EXTENTS - 1; at += 0x2000)
        assert_int_equal(gmem_split(&g, gpa(at), 0x1000), STATUS_OK);
    uint64_t last = g.extents[g.count - 1].gpa;
    assert_int_equal(gmem_split(&g, gpa(last + 0x1000), 0x1000), ERR_NO_MEMORY);
    assert_int_equal(gmem_split(&g, gpa(last), 0x1000), STATUS_OK);
    assert_int_equal(gmem_split(&g, gpa(last + 0x1000), 0x1000), ERR_NO_MEMORY);
    for (uint64_t at = 0x100000; at < 0x200000; at += 0x1000) {
        assert_int_equal(gmem_translate(&g, gpa(at), &h, &left), STATUS_OK);
        assert_int_equal(h.v, at - 0x100000 + 0x40000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_extents_are_kept_sorted_and_disjoint, setup),
        cmocka_unit_test_setup(test_translate, setup),
        cmocka_unit_test_setup(test_reads_and_writes_cross_borders, setup),
        cmocka_unit_test_setup(test_all_or_nothing, setup),
        cmocka_unit_test_setup(test_cmpxchg, setup),
        cmocka_unit_test_setup(test_rom_and_nothing, setup),
        cmocka_unit_test_setup(test_split, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
