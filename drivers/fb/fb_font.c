#include "drivers/fb/fb_font.h"

/* FONT_SYMBOLS, FONT_JOIN_FIRST, FONT_JOIN_END, FONT_REPLACEMENT; and the two tables' rows as macros. */
#include <fb_font_data.inc>

#define ASCII_FIRST 0x20u
#define ASCII_COUNT 95u

static const uint8_t glyphs[ASCII_COUNT + FONT_SYMBOLS][FB_FONT_HEIGHT] = {FONT_GLYPHS};
static const uint16_t symbols[FONT_SYMBOLS] = {FONT_CODE_POINTS}; /* ascending; glyphs[ASCII_COUNT + i] */
STATIC_ASSERT(ASCII_COUNT + FONT_SYMBOLS <= 256, "glyph numbers are bytes");

uint8_t fb_font_find(uint32_t code_point)
{
    if (code_point - ASCII_FIRST < ASCII_COUNT)
        return (uint8_t)(code_point - ASCII_FIRST);
    uint32_t low = 0, high = FONT_SYMBOLS;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (symbols[middle] == code_point)
            return (uint8_t)(ASCII_COUNT + middle);
        if (symbols[middle] < code_point)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)(ASCII_COUNT + FONT_REPLACEMENT);
}

const uint8_t *fb_font_rows(uint8_t glyph)
{
    return glyphs[glyph < ARRAY_SIZE(glyphs) ? glyph : FB_FONT_SPACE];
}

bool fb_font_joins(uint8_t glyph)
{
    return glyph >= ASCII_COUNT + FONT_JOIN_FIRST && glyph < ASCII_COUNT + FONT_JOIN_END;
}
