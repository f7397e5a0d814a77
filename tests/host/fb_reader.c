#include "tests/host/fb_reader.h"
#include <stdlib.h>

struct fb fb_reader_new(uint32_t width, uint32_t height, bool red_first, uint32_t fill)
{
    struct fb fb = {
        .width = width, .height = height, .stride = width + FB_READER_PADDING, .red_first = red_first};
    size_t count = (size_t)fb.stride * height;
    fb.pixels = malloc(count * sizeof(fb.pixels[0]));
    for (size_t i = 0; i < count; i++)
        fb.pixels[i] = fill;
    return fb;
}

void fb_reader_free(struct fb *fb)
{
    free(fb->pixels);
    fb->pixels = NULL;
}

uint32_t fb_reader_pixel(const struct fb *fb, uint32_t x, uint32_t y)
{
    uint32_t v = fb->pixels[(size_t)y * fb->stride + x];
    return fb->red_first ? (v & 0xff) << 16 | (v & 0xff00) | (v >> 16 & 0xff) : v;
}

/* Does the font's pixel (column, row) of this character's cell belong to the ink? */
static bool is_ink(uint32_t code_point, uint32_t column, uint32_t row)
{
    const uint8_t *rows = fb_font_rows(fb_font_find(code_point));
    bool joins = code_point >= 0x2500 && code_point < 0x25a0;
    if (row == 0 || row == FB_CELL_HEIGHT - 1)
        return joins && (rows[row ? FB_FONT_HEIGHT - 1 : 0] & 0x80 >> column);
    return rows[row - 1] & 0x80 >> column;
}

static uint32_t colour_of(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint32_t code_point,
                          bool ink)
{
    uint32_t colours[2] = {UINT32_MAX, UINT32_MAX};
    for (uint32_t row = 0; row < FB_CELL_HEIGHT * scale; row++) {
        for (uint32_t column = 0; column < FB_CELL_WIDTH * scale; column++) {
            uint32_t *colour = &colours[is_ink(code_point, column / scale, row / scale)];
            uint32_t pixel = fb_reader_pixel(fb, x + column, y + row);
            if (*colour == UINT32_MAX)
                *colour = pixel;
            else if (*colour != pixel)
                return UINT32_MAX;
        }
    }
    if (colours[0] == colours[1])
        return UINT32_MAX;
    return colours[ink ? (colours[1] == UINT32_MAX ? 0 : 1) : 0];
}

uint32_t fb_reader_ink(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint32_t code_point)
{
    return colour_of(fb, x, y, scale, code_point, true);
}

uint32_t fb_reader_paper(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint32_t code_point)
{
    return colour_of(fb, x, y, scale, code_point, false);
}

bool fb_reader_padding_is(const struct fb *fb, uint32_t fill)
{
    for (uint32_t y = 0; y < fb->height; y++)
        for (uint32_t x = fb->width; x < fb->stride; x++)
            if (fb->pixels[(size_t)y * fb->stride + x] != fill)
                return false;
    return true;
}

uint64_t fb_reader_hash(const struct fb *fb)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint32_t y = 0; y < fb->height; y++) {
        for (uint32_t x = 0; x < fb->width; x++) {
            uint32_t pixel = fb_reader_pixel(fb, x, y);
            for (unsigned shift = 0; shift < 24; shift += 8)
                hash = (hash ^ (pixel >> shift & 0xff)) * 0x100000001b3u;
        }
    }
    return hash;
}
