/* The text console on a framebuffer: what is written is read back from the pixels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "drivers/fb/fb_text.h"
#include "tests/host/fb_reader.h"

#define FILL 0xa5a5a5a5u

static struct fb_text text, other;
static struct fb fb;

static void start(uint32_t width, uint32_t height)
{
    fb_reader_free(&fb);
    fb = fb_reader_new(width, height, false, FILL);
    assert_int_equal(fb_text_init(&text, &fb, "Title", "hint"), STATUS_OK);
}

static int set_up(void **state)
{
    (void)state;
    start(1280, 800);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fb_reader_free(&fb);
    return 0;
}

static void put(const char *bytes)
{
    while (*bytes)
        fb_text_put(&text, (uint8_t)*bytes++);
}

static void draw(void)
{
    while (fb_text_refresh(&text, 1000))
        ;
}

/* Is the character drawn in that cell, in these colours? */
static bool shows(uint32_t row, uint32_t column, uint32_t code_point, uint32_t ink, uint32_t paper)
{
    uint32_t x = text.left + column * FB_CELL_WIDTH * text.scale,
             y = text.top + row * FB_CELL_HEIGHT * text.scale;
    return fb_reader_ink(&fb, x, y, text.scale, code_point) == (code_point == ' ' ? paper : ink) &&
           fb_reader_paper(&fb, x, y, text.scale, code_point) == paper;
}

/* The row reads `expected` and is empty behind it; colours other than those of the cursor do not matter. */
static void expect_row(uint32_t row, const char *expected)
{
    put("\33[?25l");
    draw();
    for (uint32_t column = 0; column < text.columns; column++) {
        uint8_t wanted = column < strlen(expected) ? (uint8_t)expected[column] : ' ';
        uint32_t x = text.left + column * FB_CELL_WIDTH * text.scale,
                 y = text.top + row * FB_CELL_HEIGHT * text.scale;
        if (fb_reader_paper(&fb, x, y, text.scale, wanted) == UINT32_MAX)
            fail_msg("row %u, column %u is not '%c' of \"%s\"", row, column, wanted, expected);
    }
    put("\33[?25h");
}

static void lays_out_by_the_size(void **state)
{
    (void)state;
    static const struct {
        uint32_t width, height, scale, columns, rows;
    } sizes[] = {{1280, 800, 1, 156, 41},  {640, 480, 1, 76, 24},    {800, 600, 1, 96, 30},
                 {1920, 1080, 1, 236, 57}, {2560, 1440, 2, 156, 37}, {3840, 2160, 3, 156, 37},
                 {7680, 4320, 4, 236, 57}, {352, 195, 1, 40, 8},     {1080, 2040, 1, 131, 110},
                 {2047, 640, 1, 240, 32}};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        start(sizes[i].width, sizes[i].height);
        assert_int_equal(text.scale, sizes[i].scale);
        assert_int_equal(text.columns, sizes[i].columns);
        assert_int_equal(text.rows, sizes[i].rows);
        put("\33[999;999Hx");
        draw();
        assert_true(shows(text.rows - 1, text.columns - 1, 'x', FB_BACKGROUND,
                          fb_palette[FB_WHITE])); /* the cursor */
        assert_true(fb_reader_padding_is(&fb, FILL));
    }
}

static void refuses_small_screens(void **state)
{
    (void)state;
    static const uint32_t sizes[][2] = {{351, 480}, {640, 190}, {0, 0}, {20, 20}};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct fb small = fb_reader_new(sizes[i][0], sizes[i][1], false, FILL);
        assert_int_equal(fb_text_init(&other, &small, "Title", "hint"), ERR_UNSUPPORTED);
        for (size_t p = 0; p < (size_t)small.stride * small.height; p++)
            assert_int_equal(small.pixels[p], FILL);
        fb_reader_free(&small);
    }
}

static void draws_the_head(void **state)
{
    (void)state;
    assert_int_equal(fb_reader_ink(&fb, 16, 6, 1, 'T'), FB_ACCENT);
    assert_int_equal(fb_reader_paper(&fb, 16, 6, 1, 'T'), FB_PANEL);
    assert_int_equal(fb_reader_ink(&fb, 1280 - 16 - 8, 6, 1, 't'), fb_palette[FB_WHITE]);
    assert_int_equal(fb_reader_pixel(&fb, 1279, 30), FB_ACCENT);
    assert_int_equal(fb_reader_pixel(&fb, 1279, 31), FB_BACKGROUND);
    assert_int_equal(fb_reader_pixel(&fb, 1279, 799), FB_BACKGROUND);
    /* A hint that would touch the title is left out. */
    struct fb narrow = fb_reader_new(400, 300, false, FILL);
    assert_int_equal(
        fb_text_init(&other, &narrow, "Title", "A hint that is much too long for this narrow screen"),
        STATUS_OK);
    assert_int_equal(fb_reader_paper(&narrow, 400 - 16 - 8, 6, 1, ' '), FB_PANEL);
    fb_reader_free(&narrow);
}

static void writes_in_the_order_of_the_bytes(void **state)
{
    (void)state;
    put("Hello, world~\r\nsecond");
    draw();
    assert_true(shows(0, 0, 'H', fb_palette[FB_WHITE], FB_BACKGROUND));
    expect_row(0, "Hello, world~");
    expect_row(1, "second");
    expect_row(2, "");
    assert_int_equal(text.row, 1);
    assert_int_equal(text.column, 6);
}

static void takes_both_orders_of_colours(void **state)
{
    (void)state;
    struct fb rgb = fb_reader_new(1280, 800, true, FILL);
    assert_int_equal(fb_text_init(&other, &rgb, "Title", "hint"), STATUS_OK);
    put("\33[31mred\33[44m blue");
    for (const char *p = "\33[31mred\33[44m blue"; *p; p++)
        fb_text_put(&other, (uint8_t)*p);
    draw();
    while (fb_text_refresh(&other, 7))
        ;
    assert_int_equal(fb_reader_hash(&rgb), fb_reader_hash(&fb));
    assert_int_equal(rgb.pixels[0], 0x33271d); /* FB_PANEL with red in the lowest byte */
    fb_reader_free(&rgb);
}

static void wraps_when_the_next_character_comes(void **state)
{
    (void)state;
    char line[157];
    memset(line, 'w', 156);
    line[156] = 0;
    put(line);
    assert_int_equal(text.row, 0);
    put("\r\nnext");
    expect_row(1, "next");
    put("\r\n");
    put(line);
    put("over");
    expect_row(2, line);
    expect_row(3, "over");
}

static void scrolls(void **state)
{
    (void)state;
    char line[24];
    for (unsigned i = 0; i < 3 * text.rows + 5; i++) {
        snprintf(line, sizeof(line), "line %u\r\n", i);
        put(line);
        if (i % 7 == 0)
            fb_text_refresh(&text, 9);
    }
    for (unsigned row = 0; row + 1 < text.rows; row++) {
        snprintf(line, sizeof(line), "line %u", 2 * text.rows + 5 + row + 1);
        expect_row(row, line);
    }
    expect_row(text.rows - 1, "");
}

/* Each begins on an empty screen; what the first rows read afterwards, and where the cursor is. */
static void follows_sequences(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *first, *second;
        uint32_t row, column;
    } cases[] = {
        {"abc\bX", "abX", "", 0, 3},
        {"\b\bX", "X", "", 0, 1},
        {"a\tb\t\tc", "a       b               c", "", 0, 25},
        {"abc\rX", "Xbc", "", 0, 1},
        {"a\nb", "a", " b", 1, 2},
        {"a\vb\fc", "a", " b", 2, 3},
        {"abc\33[2DX", "aXc", "", 0, 2},
        {"abc\33[DX", "abX", "", 0, 3},
        {"abc\33[99DX", "Xbc", "", 0, 1},
        {"a\33[3CX", "a   X", "", 0, 5},
        {"\33[B\33[0BX\33[AY", "", " Y", 1, 2},
        {"\33[BX\33[9AY", " Y", "X", 0, 2},
        {"abc\33[2GX", "aXc", "", 0, 2},
        {"a\33[2dX", "a", " X", 1, 2},
        {"\33[2;3HX\33[HY", "Y", "  X", 0, 1},
        {"\33[2;3fX\33[;2fY", " Y", "  X", 0, 2},
        {"\33[0;0HX", "X", "", 0, 1},
        {"abc\33[2G\33[K", "a", "", 0, 1},
        {"abc\33[2G\33[1K", "  c", "", 0, 1},
        {"abc\33[2G\33[2K", "", "", 0, 1},
        {"abc\33[2G\33[7K", "abc", "", 0, 1},
        {"abc\r\ndef\33[1;2H\33[J", "a", "", 0, 1},
        {"abc\r\ndef\33[2;2H\33[1J", "", "  f", 1, 1},
        {"abc\r\ndef\33[2J", "", "", 1, 3},
        {"abc\33"
         "7\r\ndef\33"
         "8X",
         "abcX", "def", 0, 4},
        {"abc\33cX", "X", "", 0, 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        put("\33c");
        put(cases[i].bytes);
        assert_int_equal(text.row, cases[i].row);
        assert_int_equal(text.column, cases[i].column);
        expect_row(0, cases[i].first);
        expect_row(1, cases[i].second);
    }
}

static void skips_what_it_does_not_know(void **state)
{
    (void)state;
    static const char *const unknown[] = {
        "\33[6n",
        "\33[?1049h",
        "\33[?2004l",
        "\33[>c",
        "\33[!p",
        "\33[4h",
        "\33[2;5r",
        "\33[ q",
        "\33[1$p",
        "\33]0;title\a",
        "\33]2;t\33\\",
        "\33P1$r0m\33\\",
        "\33_x\33\\",
        "\33^x\33\\",
        "\33Xx\33\\",
        "\33(B",
        "\33)0",
        "\33#8",
        "\33%G",
        "\33=",
        "\33>",
        "\33M",
        "\a",
        "\16\17",
        "\33[1;2;3;4;5;6;7;8;9;10H",
        "\33[99999999999999999999z",
        "\33[<5m",
        "\33[12\30",
        "\33[3\32",
        "\33]x\30",
        "\33\33[0m",
        "\33[5\33[0m",
        "\33]x\33[0m",
        "\177",
        "\33[1?5m",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        put("\33ca");
        put(unknown[i]);
        put("b");
        expect_row(0, "ab");
        assert_true(shows(0, 1, 'b', fb_palette[FB_WHITE], FB_BACKGROUND));
    }
    put("\33c\33[3\nX"); /* a control character inside a sequence takes effect (ECMA-48 leaves it open; VT100
                            does) */
    put("\33[31\bY");
    assert_int_equal(text.row, 1);
}

static void sets_colours(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        uint8_t ink, paper;
    } cases[] = {
        {"\33[31m", 1, 0},         {"\33[37m", 7, 0},          {"\33[1m", 15, 0},
        {"\33[1;34m", 12, 0},      {"\33[1;34;22m", 4, 0},     {"\33[7m", 0, 7},
        {"\33[7;27m", 7, 0},       {"\33[41m", 7, 1},          {"\33[41;49m", 7, 0},
        {"\33[31;39m", 7, 0},      {"\33[93m", 11, 0},         {"\33[104m", 7, 12},
        {"\33[31;42m\33[m", 7, 0}, {"\33[31;42m\33[0m", 7, 0}, {"\33[38;5;9m", 9, 0},
        {"\33[48;5;4m", 7, 4},     {"\33[38;5;200m", 7, 0},    {"\33[38;2;1;2;3;32m", 2, 0},
        {"\33[38m", 7, 0},         {"\33[38;5m", 7, 0},        {"\33[3;4;5;9m", 7, 0},
        {"\33[7;32m", 0, 2},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        put("\33c");
        put(cases[i].bytes);
        put("x");
        draw();
        if (!shows(0, 0, 'x', fb_palette[cases[i].ink], fb_palette[cases[i].paper]))
            fail_msg("case %u", i);
    }
    put("\33c\33[44m\33[K");
    draw();
    assert_true(shows(0, 5, ' ', 0, fb_palette[4])); /* erased with the background in force */
}

static void decodes_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        uint32_t first, second;
    } cases[] = {
        {"\u2500x", 0x2500, 'x'},     {"\u00e4x", 0xe4, 'x'},         {"\u20acx", 0x20ac, 'x'},
        {"\U0001f600x", 0xfffd, 'x'}, {"\xffx", 0xfffd, 'x'},         {"\x80x", 0xfffd, 'x'},
        {"\xc3x", 0xfffd, 'x'},       {"\xe2\x94x", 0xfffd, 'x'},     {"\xf4\xbf\xbf\xbfx", 0xfffd, 'x'},
        {"\xc0x", 0xfffd, 'x'},       {"\xe2\xc3\xa4", 0xfffd, 0xe4},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        put("\33c");
        put(cases[i].bytes);
        draw();
        if (!shows(0, 0, cases[i].first, fb_palette[FB_WHITE], FB_BACKGROUND) ||
            !shows(0, 1, cases[i].second, fb_palette[FB_WHITE], FB_BACKGROUND))
            fail_msg("case %u", i);
    }
}

/* Box drawing touches the rows above and below. */
static void closes_boxes(void **state)
{
    (void)state;
    put("\u2502\r\n\u2502\33[?25l");
    draw();
    for (uint32_t y = text.top; y < text.top + 2 * FB_CELL_HEIGHT; y++)
        assert_int_equal(fb_reader_pixel(&fb, text.left + 3, y), fb_palette[FB_WHITE]);
}

static void fades_times_and_marks_what_is_wrong(void **state)
{
    (void)state;
    put("[    1.234567] web/0: warning: x\r\n[    1.234567] web: ERROR: x\r\n[ OK ] x: warning\r\nwarning: "
        "x\r\n"
        "[   12.34a] x\r\n[    1.234567] web: debug: x");
    draw();
    assert_true(shows(0, 0, '[', fb_palette[FB_GREY], FB_BACKGROUND));
    assert_true(shows(0, 13, ']', fb_palette[FB_GREY], FB_BACKGROUND));
    assert_true(shows(0, 15, 'w', fb_palette[FB_WHITE], FB_BACKGROUND));
    assert_true(shows(0, 22, 'w', fb_palette[FB_YELLOW], FB_BACKGROUND));
    assert_true(shows(0, 29, ':', fb_palette[FB_YELLOW], FB_BACKGROUND));
    assert_true(shows(0, 31, 'x', fb_palette[FB_WHITE], FB_BACKGROUND));
    assert_true(shows(1, 20, 'E', fb_palette[FB_BRIGHT_RED], FB_BACKGROUND));
    assert_true(shows(2, 0, '[', fb_palette[FB_WHITE], FB_BACKGROUND));
    assert_true(shows(3, 0, 'w', fb_palette[FB_WHITE], FB_BACKGROUND));
    assert_true(shows(4, 0, '[', fb_palette[FB_WHITE], FB_BACKGROUND));
    assert_true(shows(5, 20, 'd', fb_palette[FB_GREY], FB_BACKGROUND));
}

static void shows_the_cursor(void **state)
{
    (void)state;
    put("ab\33[D");
    draw();
    assert_true(shows(0, 1, 'b', FB_BACKGROUND, fb_palette[FB_WHITE]));
    put("\33[H");
    draw();
    assert_true(shows(0, 0, 'a', FB_BACKGROUND, fb_palette[FB_WHITE]));
    assert_true(shows(0, 1, 'b', fb_palette[FB_WHITE], FB_BACKGROUND));
    put("\33[?25l");
    draw();
    assert_true(shows(0, 0, 'a', fb_palette[FB_WHITE], FB_BACKGROUND));
    put("\33[?25h\r\n");
    draw();
    assert_true(shows(1, 0, ' ', 0, fb_palette[FB_WHITE]));
    assert_true(shows(0, 0, 'a', fb_palette[FB_WHITE], FB_BACKGROUND));
    put("\33[H");
    draw();
    assert_true(shows(1, 0, ' ', 0, FB_BACKGROUND)); /* where it was */
}

static const char sample[] =
    "[    0.000007] core: Bulkhead's core is running: 2 CPUs\r\n"
    "\33[1;32m  OK  \33[0m a line that is longer than the screen is wide, and so goes on in the next one: "
    "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\r\n"
    "\u250c\u2500\u2510\r\n\u2514\u2500\u2518\r\nguest# ";

static uint32_t count_differences(void)
{
    uint32_t count = 0;
    for (uint32_t row = 0; row < text.rows; row++)
        for (uint32_t column = 0; column < text.columns; column++)
            count +=
                memcmp(&text.shown[row][column], &other.shown[row][column], sizeof(text.shown[0][0])) != 0;
    return count;
}

/* However small the steps, what is on the screen in the end is the same, and no step is larger than allowed.
 */
static void draws_in_bounded_steps(void **state)
{
    (void)state;
    put(sample);
    draw();
    uint64_t hash = fb_reader_hash(&fb);
    for (uint32_t budget = 1; budget <= 40; budget++) {
        start(1280, 800);
        put(sample);
        bool more = true;
        while (more) {
            memcpy(other.shown, text.shown, sizeof(other.shown));
            more = fb_text_refresh(&text, budget);
            assert_true(count_differences() <= budget);
        }
        assert_int_equal(fb_reader_hash(&fb), hash);
        assert_false(fb_text_refresh(&text, budget));
    }
}

static void draws_less_where_cells_are_large(void **state)
{
    (void)state;
    start(3840, 2160);
    put(sample);
    memcpy(other.shown, text.shown, sizeof(other.shown));
    assert_true(fb_text_refresh(&text, 18));
    assert_int_equal(count_differences(), 2); /* each has nine times as many pixels */
    memcpy(other.shown, text.shown, sizeof(other.shown));
    assert_true(fb_text_refresh(&text, 1));
    assert_int_equal(count_differences(), 1);
}

/* What was on the screen before does not matter: nothing is read from it. */
static void does_not_read_the_screen(void **state)
{
    (void)state;
    put(sample);
    draw();
    struct fb white = fb_reader_new(1280, 800, false, 0xffffff);
    assert_int_equal(fb_text_init(&other, &white, "Title", "hint"), STATUS_OK);
    for (const char *p = sample; *p; p++) {
        fb_text_put(&other, (uint8_t)*p);
        white.pixels[rand() % (1280 * 30)] = FB_PANEL; /* the head line is not drawn again */
    }
    while (fb_text_refresh(&other, 5))
        ;
    for (uint32_t y = 31; y < 800; y++)
        assert_memory_equal(white.pixels + (size_t)y * white.stride, fb.pixels + (size_t)y * fb.stride,
                            1280 * 4);
    fb_reader_free(&white);
}

/* The look as a whole: when it changes on purpose, look at the picture, then at this number. */
static void looks_as_it_did(void **state)
{
    (void)state;
    put(sample);
    draw();
    assert_int_equal(fb_reader_hash(&fb), 0x5ac906e49995162cu);
}

static void finds_glyphs(void **state)
{
    (void)state;
    for (uint32_t c = 0x20; c < 0x7f; c++)
        assert_int_equal(fb_font_find(c), c - 0x20);
    uint8_t unknown = fb_font_find(0xfffd);
    assert_int_equal(fb_font_find(0x7f), unknown);
    assert_int_equal(fb_font_find(0), unknown);
    assert_int_equal(fb_font_find(UINT32_MAX), unknown);
    assert_int_not_equal(fb_font_find(0xa7), unknown);
    assert_int_not_equal(fb_font_find(0x2713), unknown);
    assert_true(fb_font_joins(fb_font_find(0x2500)) && fb_font_joins(fb_font_find(0x2593)));
    assert_false(fb_font_joins(fb_font_find(0x2265)) || fb_font_joins(fb_font_find(0x25a0)));
    assert_ptr_equal(fb_font_rows(255), fb_font_rows(FB_FONT_SPACE));
    for (unsigned row = 0; row < FB_FONT_HEIGHT; row++)
        assert_int_equal(fb_font_rows(FB_FONT_SPACE)[row], 0);
}

static void draws_nothing_outside(void **state)
{
    (void)state;
    struct fb small = fb_reader_new(30, 30, false, FILL);
    fb_fill(&small, 25, 25, 100, 100, 1);
    assert_int_equal(fb_reader_pixel(&small, 29, 29), 1);
    assert_int_equal(fb_reader_pixel(&small, 24, 29), FILL);
    fb_fill(&small, 30, 0, 1, 1, 2);
    fb_fill(&small, 0, 30, 1, 1, 2);
    fb_fill(&small, UINT32_MAX, UINT32_MAX, 1, 1, 2);
    for (uint32_t at = 0; at < 40; at++) {
        fb_cell(&small, at, 0, 2, fb_font_find(0x2588), 3, 3);
        fb_cell(&small, 0, at, 1, fb_font_find(0x2588), 3, 3);
    }
    fb_cell(&small, UINT32_MAX, UINT32_MAX, 1, 1, 3, 3);
    fb_string(&small, 20, 5, 1, "long text that does not fit", 3, 3);
    assert_true(fb_reader_padding_is(&small, FILL));
    fb_reader_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lays_out_by_the_size, set_up),
        cmocka_unit_test_setup(refuses_small_screens, set_up),
        cmocka_unit_test_setup(draws_the_head, set_up),
        cmocka_unit_test_setup(writes_in_the_order_of_the_bytes, set_up),
        cmocka_unit_test_setup(takes_both_orders_of_colours, set_up),
        cmocka_unit_test_setup(wraps_when_the_next_character_comes, set_up),
        cmocka_unit_test_setup(scrolls, set_up),
        cmocka_unit_test_setup(follows_sequences, set_up),
        cmocka_unit_test_setup(skips_what_it_does_not_know, set_up),
        cmocka_unit_test_setup(sets_colours, set_up),
        cmocka_unit_test_setup(decodes_utf8, set_up),
        cmocka_unit_test_setup(closes_boxes, set_up),
        cmocka_unit_test_setup(fades_times_and_marks_what_is_wrong, set_up),
        cmocka_unit_test_setup(shows_the_cursor, set_up),
        cmocka_unit_test_setup(draws_in_bounded_steps, set_up),
        cmocka_unit_test_setup(draws_less_where_cells_are_large, set_up),
        cmocka_unit_test_setup(does_not_read_the_screen, set_up),
        cmocka_unit_test_setup(looks_as_it_did, set_up),
        cmocka_unit_test(finds_glyphs),
        cmocka_unit_test(draws_nothing_outside),
    };
    return cmocka_run_group_tests(tests, NULL, tear_down);
}
