/* Drawing into a framebuffer: rectangles and characters. Pixels are written and never read: reading from
 * write-combining memory is some hundred times slower. Nothing is drawn outside the surface. */
#pragma once

#include "drivers/fb/fb_font.h"

struct fb {
    uint32_t *pixels;
    uint32_t width, height, stride; /* pixels; stride >= width */
    bool red_first;                 /* red in the lowest byte (RGBX); otherwise blue (BGRX) */
};

/* A character cell: the font's 8 x 16 and a row of air above and below. */
#define FB_CELL_WIDTH  FB_FONT_WIDTH
#define FB_CELL_HEIGHT (FB_FONT_HEIGHT + 2u)

/* Colours are 0xRRGGBB; the sixteen are those of ANSI sequences. scripts/lib/screen.py reads them from here,
 * and wants them to differ in the highest three bits of red and green or two of blue: a picture of the
 * emulator has no more. */
#define FB_COLOURS 16u
extern const uint32_t fb_palette[FB_COLOURS];
enum { FB_BLACK, FB_RED, FB_GREEN, FB_YELLOW, FB_WHITE = 7, FB_GREY, FB_BRIGHT_RED, FB_BRIGHT_WHITE = 15 };
#define FB_BACKGROUND 0x11161du
#define FB_PANEL      0x1d2733u
#define FB_ACCENT     0x2fd0b5u
#define FB_ALARM      0xc02f38u

/* How many pixels wide and high a font's pixel should be on this screen: 1 to 4. */
uint32_t fb_scale(const struct fb *fb);
void fb_fill(const struct fb *fb, uint32_t x, uint32_t y, uint32_t width, uint32_t height, uint32_t colour);
/* A character cell whose upper left corner is at x, y; nothing when it does not fit. */
void fb_cell(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint8_t glyph, uint32_t colour,
             uint32_t background);
/* ASCII text in one line, cut at the right edge. */
void fb_string(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, const char *text, uint32_t colour,
               uint32_t background);
