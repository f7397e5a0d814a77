/* Random bytes for the text console, drawn in random steps: nothing outside the screen, the cursor inside, no
 * step larger than allowed, and in the end every pixel is what the cells say. */
#include <stdlib.h>
#include <string.h>
#include "drivers/fb/fb_text.h"
#include "tests/host/fb_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

#define FILL        0x12345678u
#define HEADER      4u
#define REFRESH_AT  0xfeu /* cannot be in UTF-8: the byte behind it is a budget */
#define MIN_WIDTH   352u
#define MIN_HEIGHT  195u
#define MOST_ROUNDS 100000u

static struct fb_text text;
static struct fb_text_cell before[FB_TEXT_MAX_ROWS][FB_TEXT_MAX_COLUMNS];

static void check_state(void)
{
    CHECK(text.row < text.rows && text.column < text.columns);
    CHECK(text.saved_row < text.rows && text.saved_column < text.columns);
    CHECK(text.first_row < text.rows && text.draw_row < text.rows && text.draw_column < text.columns);
    CHECK(text.param_count <= FB_TEXT_MAX_PARAMS && text.more < 4);
    CHECK(text.colour < FB_COLOURS && text.background < FB_COLOURS);
    CHECK(!text.wrap || text.column == text.columns - 1);
}

static bool refresh(uint32_t budget)
{
    uint32_t drawn = 0;
    memcpy(before, text.shown, sizeof(before));
    bool more = fb_text_refresh(&text, budget);
    for (uint32_t row = 0; row < text.rows; row++)
        for (uint32_t column = 0; column < text.columns; column++)
            drawn += memcmp(&before[row][column], &text.shown[row][column], sizeof(before[0][0])) != 0;
    CHECK(drawn <= budget);
    return more;
}

static void check_cell(uint32_t row, uint32_t column)
{
    struct fb_text_cell cell = text.cells[(text.first_row + row) % text.rows][column];
    if (row == text.row && column == text.column && !text.cursor_hidden)
        cell.colours = (uint8_t)(cell.colours << 4 | cell.colours >> 4);
    const uint8_t *rows = fb_font_rows(cell.glyph);
    uint32_t x = text.left + column * FB_CELL_WIDTH, y = text.top + row * FB_CELL_HEIGHT;
    for (uint32_t r = 0; r < FB_CELL_HEIGHT; r++) {
        uint8_t bits = r == 0 ? rows[0] : r == FB_CELL_HEIGHT - 1 ? rows[FB_FONT_HEIGHT - 1] : rows[r - 1];
        if ((r == 0 || r == FB_CELL_HEIGHT - 1) && !fb_font_joins(cell.glyph))
            bits = 0;
        for (uint32_t i = 0; i < FB_CELL_WIDTH; i++)
            CHECK(fb_reader_pixel(&text.fb, x + i, y + r) ==
                  fb_palette[bits & 0x80 >> i ? cell.colours & 15 : cell.colours >> 4]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    struct fb fb = fb_reader_new(MIN_WIDTH + data[0], MIN_HEIGHT + data[1], data[2] & 1, FILL);
    CHECK(fb_text_init(&text, &fb, "Bulkhead", "a hint") == STATUS_OK);
    for (size_t i = HEADER; i < size; i++) {
        if (data[i] == REFRESH_AT && i + 1 < size)
            refresh(1u + data[++i]);
        else
            fb_text_put(&text, data[i]);
        check_state();
    }
    uint32_t budget = 1u + data[3], rounds = 0;
    while (refresh(budget))
        CHECK(rounds++ < MOST_ROUNDS);
    for (uint32_t row = 0; row < text.rows; row++)
        for (uint32_t column = 0; column < text.columns; column++)
            check_cell(row, column);
    CHECK(fb_reader_padding_is(&fb, FILL));
    fb_reader_free(&fb);
    return 0;
}
