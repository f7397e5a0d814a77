/* A screen for the tests of drivers/fb, and an eye for it: reads characters back from pixels. */
#pragma once

#include "drivers/fb/fb_draw.h"

#define FB_READER_PADDING 5u /* pixels between the end of a row and the next */

/* A surface of its own allocation, filled with `fill`, its rows padded. */
struct fb fb_reader_new(uint32_t width, uint32_t height, bool red_first, uint32_t fill);
void fb_reader_free(struct fb *fb);
/* 0xRRGGBB at a place. */
uint32_t fb_reader_pixel(const struct fb *fb, uint32_t x, uint32_t y);
/* The colour of the ink of a cell, or of its paper. They are told apart by the glyph that is expected there;
 * the cell must show exactly that, otherwise UINT32_MAX. A space has no ink: its paper is answered. */
uint32_t fb_reader_ink(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint32_t code_point);
uint32_t fb_reader_paper(const struct fb *fb, uint32_t x, uint32_t y, uint32_t scale, uint32_t code_point);
/* Is the padding as it was? */
bool fb_reader_padding_is(const struct fb *fb, uint32_t fill);
/* FNV-1a over the visible pixels. */
uint64_t fb_reader_hash(const struct fb *fb);
