#include "drivers/fb/fb_draw.h"
#include "hv/lib/string.h"

const uint32_t fb_palette[FB_COLOURS] = {
    FB_BACKGROUND, 0xd9616a, 0x86b96a, 0xd7a94f, 0x5e9fe0, 0xb57fd6, 0x4fb3bf, 0xc5cbd5,
    0x66707d,      0xff8089, 0xa9db8c, 0xf5cf7a, 0x8cb8ff, 0xd8a8f5, 0x80dce6, 0xf4f7fa,
};

/* Text is as large as leaves room for this many pixels of the font: about 128 columns and 35 lines. */
#define SCALE_WIDTH  1024u
#define SCALE_HEIGHT 640u
#define SCALE_MAX    4u

uint32_t fb_scale(const struct fb *fb)
{
    uint32_t across = fb->width / SCALE_WIDTH, down = fb->height / SCALE_HEIGHT;
    uint32_t scale = across < down ? across : down;
    return scale < 1 ? 1 : scale > SCALE_MAX ? SCALE_MAX : scale;
}

static uint32_t native(const struct fb *fb, uint32_t colour)
{
    if (!fb->red_first)
        return colour;
    return (colour & 0xff00) | (colour & 0xff) << 16 | (colour >> 16 & 0xff);
}

static uint32_t *at(const struct fb *fb, uint32_t x, uint32_t y)
{
    return fb->pixels + (size_t)y * fb->stride + x;
}

void fb_fill(const struct fb *fb, uint32_t x, uint32_t y, uint32_t width, uint32_t height, uint32_t colour)
{
    if (x >= fb->width || y >= fb->height)
        return;
    if (width > fb->width - x)
        width = fb->width - x;
    if (height > fb->height - y)
        height = fb->height - y;
    uint32_t value = native(fb, colour);
    for (uint32_t row = 0; row < height; row++) {
        uint32_t *pixel = at(fb, x, y + row);
        for (uint32_t i = 0; i < width; i++)
            pixel[i] = value;
    }
}

/* Two pixels at a time: half the stores. `pairs` is indexed by their two bits. */
static void row_of_pairs(uint32_t *pixel, uint8_t bits, const uint64_t pairs[4])
{
    for (unsigned i = 0; i < FB_CELL_WIDTH / 2; i++) {
        memcpy(pixel + 2 * i, &pairs[bits >> 6], sizeof(pairs[0]));
        bits = (uint8_t)(bits << 2);
    }
}

static void row_scaled(uint32_t *pixel, uint8_t bits, uint32_t scale, uint32_t colour, uint32_t background)
{
    for (unsigned i = 0; i < FB_CELL_WIDTH; i++) {
        uint32_t value = bits & 0x80 >> i ? colour : background;
        for (uint32_t s = 0; s < scale; s++)
            *pixel++ = value;
    }
}

/* The row of air above or below a character: lines go on through it, so that boxes close. */
static uint8_t air(uint8_t glyph, uint8_t neighbour)
{
    return fb_font_joins(glyph) ? neighbour : 0;
}

void fb_cell(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint8_t glyph, uint32_t colour,
             uint32_t background)
{
    if (x > fb->width || fb->width - x < FB_CELL_WIDTH * scale || y > fb->height ||
        fb->height - y < FB_CELL_HEIGHT * scale)
        return;
    const uint8_t *rows = fb_font_rows(glyph);
    uint32_t ink = native(fb, colour), paper = native(fb, background);
    uint64_t left_ink = ink, left_paper = paper;
    uint64_t pairs[4] = {left_paper | left_paper << 32, left_paper | left_ink << 32,
                         left_ink | left_paper << 32, left_ink | left_ink << 32};
    for (uint32_t row = 0; row < FB_CELL_HEIGHT; row++) {
        uint8_t bits;
        if (row == 0)
            bits = air(glyph, rows[0]);
        else if (row == FB_CELL_HEIGHT - 1)
            bits = air(glyph, rows[FB_FONT_HEIGHT - 1]);
        else
            bits = rows[row - 1];
        for (uint32_t s = 0; s < scale; s++) {
            uint32_t *pixel = at(fb, x, y + row * scale + s);
            if (scale == 1)
                row_of_pairs(pixel, bits, pairs);
            else
                row_scaled(pixel, bits, scale, ink, paper);
        }
    }
}

void fb_string(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, const char *text, uint32_t colour,
               uint32_t background)
{
    for (; *text && x < fb->width; text++, x += FB_CELL_WIDTH * scale)
        fb_cell(fb, x, y, scale, fb_font_find((uint8_t)*text), colour, background);
}
