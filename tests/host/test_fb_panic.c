/* The panic screen, its QR code, and what is believed of a framebuffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include "drivers/fb/fb_check.h"
#include "drivers/fb/fb_panic.h"
#include "drivers/fb/fb_qr.h"
#include "tests/host/fb_reader.h"

#define FILL  0x5a5a5a5au
#define LEFT  16u
#define TOP   94u /* of the first row of text, at scale 1 */
#define WHITE fb_palette[FB_WHITE]
#define FIRST fb_palette[FB_BRIGHT_WHITE] /* the first line's colour */

static const char report[] =
    "bulkhead: PANIC: host exception 14 on CPU 1: a bug in Bulkhead, not in a guest\n"
    "  rip ffffffff80011f3a  cs 8  rflags 10046\r\n"
    "stack:\n"
    "  ffffffff80011f3a handle_io+0x1a\n";

/* Does the row show this text, and nothing behind it up to `columns`? */
static void expect_row(const struct fb *fb, uint32_t row, const char *expected, uint32_t ink,
                       uint32_t columns)
{
    for (uint32_t column = 0; column < columns; column++) {
        uint8_t wanted = column < strlen(expected) ? (uint8_t)expected[column] : ' ';
        uint32_t seen =
            fb_reader_ink(fb, LEFT + column * FB_CELL_WIDTH, TOP + row * FB_CELL_HEIGHT, 1, wanted);
        if (seen != (wanted == ' ' ? FB_BACKGROUND : ink))
            fail_msg("row %u, column %u is not '%c' of \"%s\" (%x)", row, column, wanted, expected, seen);
    }
}

static void shows_the_text(void **state)
{
    (void)state;
    struct fb fb = fb_reader_new(800, 600, false, FILL);
    assert_int_equal(fb_panic_draw(&fb, report, sizeof(report) - 1, 0), 1);
    assert_int_equal(fb_reader_ink(&fb, LEFT, 8, 2, 'B'), FIRST);
    assert_int_equal(fb_reader_paper(&fb, LEFT, 8, 2, 'B'), FB_ALARM);
    expect_row(&fb, 0, "bulkhead: PANIC: host exception 14 on CPU 1: a bug in Bulkhead, not in a guest",
               FIRST, 96);
    expect_row(&fb, 1, "  rip ffffffff80011f3a  cs 8  rflags 10046", WHITE, 96);
    expect_row(&fb, 3, "  ffffffff80011f3a handle_io+0x1a", WHITE, 96);
    expect_row(&fb, 4, "", WHITE, 96);
    assert_true(fb_reader_padding_is(&fb, FILL));
    fb_reader_free(&fb);
}

static void wraps_between_words(void **state)
{
    (void)state;
    static const char words[] = "0123456789 123456789 123456789 123456789 123456789 word and another\n"
                                "0123456789012345678901234567890123456789012345678901234567890123456789 x\n"
                                "  01234567890123456789012345678901234567890123456789\n"
                                "01234567890123456789012345678901234567890123456789 abc\n";
    struct fb fb = fb_reader_new(16 + 54 * 8 + 16, 400, false, FILL);
    assert_int_equal(fb_panic_draw(&fb, words, sizeof(words) - 1, 0), 1);
    expect_row(&fb, 0, "0123456789 123456789 123456789 123456789 123456789 ", FIRST, 54);
    expect_row(&fb, 1, "    word and another", FIRST, 54);
    expect_row(&fb, 2, "012345678901234567890123456789012345678901234567890123", WHITE,
               54); /* no other way */
    expect_row(&fb, 3, "    4567890123456789 x", WHITE, 54);
    expect_row(&fb, 4, "  01234567890123456789012345678901234567890123456789", WHITE, 54);
    expect_row(&fb, 5, "01234567890123456789012345678901234567890123456789 abc", WHITE, 54); /* just fits */
    fb_reader_free(&fb);
}

static void turns_pages(void **state)
{
    (void)state;
    static char text[4096];
    size_t size = 0;
    for (unsigned i = 0; i < 70; i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "line %u\n", i);
    struct fb fb = fb_reader_new(800, 600, false, FILL);
    uint32_t rows = (600 - TOP + 8 - 16) / FB_CELL_HEIGHT; /* 27 */
    char line[24];
    for (uint32_t page = 0; page < 4; page++) {
        assert_int_equal(fb_panic_draw(&fb, text, size, page), 3);
        uint32_t shown = page < 3 ? page : 2, last = shown == 2 ? 70 - 2 * rows : rows;
        for (uint32_t row = 0; row < last; row++) {
            snprintf(line, sizeof(line), "line %u", shown * rows + row);
            expect_row(&fb, row, line, shown + row ? WHITE : FIRST, 40);
        }
        if (shown == 2)
            expect_row(&fb, last, "", WHITE, 40);
        snprintf(line, sizeof(line), "page %u of 3", shown + 1);
        for (uint32_t i = 0; line[i]; i++)
            assert_int_equal(
                fb_reader_ink(&fb, 800 - LEFT - 8 * (uint32_t)(strlen(line) - i), 8, 1, (uint8_t)line[i]),
                line[i] == ' ' ? FB_ALARM : FIRST);
    }
    assert_int_equal(fb_panic_draw(&fb, text, size - 1, 2), 3); /* a last line without its end */
    memset(text, '\n', sizeof(text));
    assert_int_equal(fb_panic_draw(&fb, text, 2 * rows, 0), 2);
    assert_int_equal(fb_panic_draw(&fb, text, 2 * rows + 1, 0), 3);
    assert_int_equal(fb_panic_draw(&fb, text, 0, 0), 1);
    expect_row(&fb, 0, "", WHITE, 96);
    fb_reader_free(&fb);
}

static void leaves_small_screens_alone(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{351, 600}, {800, 170}, {0, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct fb fb = fb_reader_new(sizes[i][0], sizes[i][1], false, FILL);
        assert_int_equal(fb_panic_draw(&fb, report, sizeof(report) - 1, 0), 0);
        for (size_t p = 0; p < (size_t)fb.stride * fb.height; p++)
            assert_int_equal(fb.pixels[p], FILL);
        fb_reader_free(&fb);
    }
}

/* The code on the screen is module for module the one that the generator makes, with its white border. */
static void expect_code(const struct fb *fb, const struct fb_qr *qr, uint32_t module)
{
    uint32_t side = (qr->side + 2 * FB_QR_QUIET) * module, left = fb->width - LEFT * fb_scale(fb) - side;
    uint32_t top = (TOP - 8) * fb_scale(fb);
    for (uint32_t y = 0; y < side; y++) {
        for (uint32_t x = 0; x < side; x++) {
            uint32_t column = x / module - FB_QR_QUIET, row = y / module - FB_QR_QUIET;
            bool black = column < qr->side && row < qr->side && fb_qr_is_black(qr, column, row);
            assert_int_equal(fb_reader_pixel(fb, left + x, top + y), black ? FB_BACKGROUND : FIRST);
        }
    }
    assert_int_equal(fb_reader_pixel(fb, left - 1, top), FB_BACKGROUND);
    assert_int_equal(fb_reader_pixel(fb, left + side, top), FB_BACKGROUND);
}

static void adds_a_code_where_there_is_room(void **state)
{
    (void)state;
    static char text[3000];
    static struct fb_qr qr;
    memset(text, 'x', sizeof(text));
    static const struct {
        uint32_t width, height, version, module; /* 0: no code */
        uint32_t columns;                        /* that the text has beside it */
    } cases[] = {{1280, 800, 25, 3, 107}, {1024, 768, 21, 3, 81}, {1920, 1080, 25, 4, 171},
                 {800, 600, 0, 0, 96},    {1280, 300, 0, 0, 156}, {2560, 1440, 25, 6, 107},
                 {640, 2000, 0, 0, 76}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fb fb = fb_reader_new(cases[i].width, cases[i].height, i % 2, FILL);
        assert_true(fb_panic_draw(&fb, text, sizeof(text), 0) >= 1);
        uint32_t scale = fb_scale(&fb);
        if (cases[i].version) {
            assert_true(fb_qr_encode(&qr, text, sizeof(text), cases[i].version) > 0);
            expect_code(&fb, &qr, cases[i].module);
        }
        uint32_t x = (LEFT + 8 * (cases[i].columns - 1)) * scale;
        assert_int_equal(fb_reader_ink(&fb, x, TOP * scale, scale, 'x'), FIRST);
        assert_true(fb_reader_padding_is(&fb, FILL));
        fb_reader_free(&fb);
    }
}

static void encodes_what_fits(void **state)
{
    (void)state;
    static char text[2000];
    static struct fb_qr qr;
    /* ISO/IEC 18004, table 7: bytes in byte mode, level L */
    static const struct {
        uint32_t version;
        size_t capacity;
    } versions[] = {{1, 17}, {9, 230}, {10, 271}, {20, 858}, {25, 1273}};
    memset(text, 'y', sizeof(text));
    for (unsigned i = 0; i < ARRAY_SIZE(versions); i++) {
        uint32_t version = versions[i].version;
        size_t capacity = versions[i].capacity;
        assert_int_equal(fb_qr_encode(&qr, text, sizeof(text), version), capacity);
        assert_int_equal(qr.side, FB_QR_SIDE(version));
        assert_int_equal(fb_qr_encode(&qr, text, capacity, version), capacity);
    }
    assert_int_equal(fb_qr_encode(&qr, text, 10, 25), 10);
    assert_int_equal(qr.side, FB_QR_SIDE(1)); /* no larger than it must be */
    assert_int_equal(fb_qr_encode(&qr, text, 10, 0), 0);
    assert_int_equal(fb_qr_encode(&qr, text, 10, 26), 0);
}

static void makes_finder_patterns(void **state)
{
    (void)state;
    static struct fb_qr qr;
    assert_int_equal(fb_qr_encode(&qr, report, 100, 25), 100);
    for (uint32_t y = 0; y < 7; y++) {
        for (uint32_t x = 0; x < 7; x++) {
            bool ring = x == 0 || x == 6 || y == 0 || y == 6, middle = x >= 2 && x <= 4 && y >= 2 && y <= 4;
            assert_int_equal(fb_qr_is_black(&qr, x, y), ring || middle);
            assert_int_equal(fb_qr_is_black(&qr, qr.side - 1 - x, y), ring || middle);
            assert_int_equal(fb_qr_is_black(&qr, x, qr.side - 1 - y), ring || middle);
        }
    }
}

/* The look as a whole: when it changes on purpose, look at the picture, then at this number. */
static void looks_as_it_did(void **state)
{
    (void)state;
    struct fb fb = fb_reader_new(1280, 800, true, FILL);
    assert_int_equal(fb_panic_draw(&fb, report, sizeof(report) - 1, 0), 1);
    assert_int_equal(fb_reader_hash(&fb), 0xcb1532d5db377307u);
    fb_reader_free(&fb);
}

static void believes_only_what_can_be(void **state)
{
    (void)state;
    const struct boot_region regions[] = {
        {.base = 0x100000, .size = 0x1000000, .kind = BOOT_REGION_FREE},
        {.base = 0x1100000, .size = 0x100000, .kind = BOOT_REGION_BULKHEAD},
        {.base = 0xc0000000, .size = 0x10000000, .kind = BOOT_REGION_RESERVED}};
    const struct boot_framebuffer good = {
        .hpa = 0xc0000000, .width = 1280, .height = 800, .stride = 1280, .pixel = BOOT_PIXEL_BGRX};
    struct boot_framebuffer fb = good;
    assert_int_equal(fb_bytes(&good), 1280 * 800 * 4);
    assert_null(fb_check(&fb, regions, ARRAY_SIZE(regions)));
    fb.pixel = BOOT_PIXEL_RGBX;
    assert_null(fb_check(&fb, regions, ARRAY_SIZE(regions)));
    fb.hpa = 0x1200000;
    assert_null(fb_check(&fb, regions, ARRAY_SIZE(regions)));
    fb.hpa = 0x11ffffc; /* the last word of Bulkhead's memory */
    assert_non_null(fb_check(&fb, regions, ARRAY_SIZE(regions)));
    fb.hpa = 0x100000 - 1280 * 800 * 4 + 4;
    assert_non_null(fb_check(&fb, regions, ARRAY_SIZE(regions)));
    fb.hpa = 0x100000 - 1280 * 800 * 4;
    fb.height = 100;
    fb.hpa = 0x100000 - 1280 * 100 * 4;
    assert_null(fb_check(&fb, regions, ARRAY_SIZE(regions)));

    static const struct boot_framebuffer bad[] = {
        {.hpa = 0xc0000000, .width = 1280, .height = 800, .stride = 1280, .pixel = BOOT_PIXEL_BGRX + 1},
        {.hpa = 0xc0000000, .width = 1280, .height = 800, .stride = 1280, .pixel = BOOT_PIXEL_NONE},
        {.hpa = 0xc0000000, .width = 0, .height = 800, .stride = 1280, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0xc0000000, .width = 1280, .height = 0, .stride = 1280, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0xc0000000, .width = 1280, .height = 800, .stride = 1279, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0xc0000000, .width = 1280, .height = 800, .stride = 16385, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0xc0000000, .width = 1280, .height = 16385, .stride = 1280, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0xc0000000, .width = 1280, .height = 8192, .stride = 8193, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0, .width = 1280, .height = 100, .stride = 1280, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = 0xc0000002, .width = 1280, .height = 800, .stride = 1280, .pixel = BOOT_PIXEL_BGRX},
        {.hpa = (1ull << 52) - 4096000 + 4,
         .width = 1280,
         .height = 800,
         .stride = 1280,
         .pixel = BOOT_PIXEL_BGRX},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        if (!fb_check(&bad[i], regions, ARRAY_SIZE(regions)))
            fail_msg("case %u", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_the_text),
        cmocka_unit_test(wraps_between_words),
        cmocka_unit_test(turns_pages),
        cmocka_unit_test(leaves_small_screens_alone),
        cmocka_unit_test(adds_a_code_where_there_is_room),
        cmocka_unit_test(encodes_what_fits),
        cmocka_unit_test(makes_finder_patterns),
        cmocka_unit_test(looks_as_it_did),
        cmocka_unit_test(believes_only_what_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
