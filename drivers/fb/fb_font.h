/* The screen's font: Terminus Font, normal weight, 8 x 16 pixels; ASCII and some symbols. The bitmaps are not
 * in this repository: scripts/lib/font.py takes them from Debian's package when the build is configured. */
#pragma once

#include "hv/lib/types.h"

#define FB_FONT_WIDTH  8u
#define FB_FONT_HEIGHT 16u

#define FB_FONT_SPACE 0u /* the space's glyph; ASCII follows in order */

/* The glyph of a Unicode character. What the font lacks gets the glyph of U+FFFD. */
uint8_t fb_font_find(uint32_t code_point);
/* The 16 rows of a glyph, top first, the leftmost pixel in bit 7. Unknown glyphs are the space. */
const uint8_t *fb_font_rows(uint8_t glyph);
/* Is it one of those that must touch their neighbours above and below (box drawing, blocks)? */
bool fb_font_joins(uint8_t glyph);
