#include "drivers/fb/fb_panic.h"
#include "drivers/fb/fb_qr.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

/* In pixels of the font. */
#define MARGIN      16u
#define AIR         8u
#define MIN_COLUMNS 40u
#define MIN_ROWS    4u
#define MIN_MODULE  3u
#define MAX_MODULE  4u
#define MIN_VERSION 9u /* some 230 bytes: less would not be worth it */
#define INDENT      4u /* of what did not fit into a line */

static const char title[] = "Bulkhead has stopped";
static const char subtitle[] = "This is a bug in Bulkhead, not in a guest. Please report the text below.";
static const char caption[] = "The head of this text";

/* What the text keeps beside a QR code: better is first, registers fit into the other. */
static const uint32_t text_columns[] = {100, 80};

static struct fb_qr code;

struct layout {
    const struct fb *fb;
    uint32_t scale, margin, top; /* pixels; top: of the text */
    uint32_t columns, rows;
    uint32_t module; /* pixels of a module of the QR code; 0: there is none */
};

static uint32_t less(uint32_t from, uint32_t by)
{
    return from > by ? from - by : 0;
}

/* Pixels for the side of a QR code beside so many columns of text. */
static uint32_t room_for_code(const struct layout *l, uint32_t columns)
{
    uint32_t across = less(l->fb->width, 3 * l->margin + columns * FB_CELL_WIDTH * l->scale);
    uint32_t below = AIR * l->scale + FB_CELL_HEIGHT * l->scale; /* the caption */
    uint32_t down = less(l->fb->height, l->top + l->margin + below);
    return across < down ? across : down;
}

/* The highest version whose code fits there, with modules that a camera can tell apart. */
static uint32_t version_for(const struct layout *l, uint32_t room)
{
    uint32_t modules = less(room / (MIN_MODULE * l->scale), 2 * FB_QR_QUIET);
    uint32_t version = less(modules, FB_QR_SIDE(0)) / 4;
    return version < FB_QR_MAX_VERSION ? version : FB_QR_MAX_VERSION;
}

static void lay_out_code(struct layout *l, const char *text, size_t size)
{
    uint32_t cell_width = FB_CELL_WIDTH * l->scale;
    for (unsigned i = 0; i < ARRAY_SIZE(text_columns) && !l->module; i++) {
        uint32_t room = room_for_code(l, text_columns[i]), version = version_for(l, room);
        if (version < MIN_VERSION || !fb_qr_encode(&code, text, size, version))
            continue;
        l->module = room / (code.side + 2 * FB_QR_QUIET);
        if (l->module > MAX_MODULE * l->scale)
            l->module = MAX_MODULE * l->scale;
        uint32_t side = (code.side + 2 * FB_QR_QUIET) * l->module;
        l->columns -= (side + l->margin + cell_width - 1) / cell_width;
    }
}

/* False: the screen is too small. */
static bool lay_out(struct layout *l, const struct fb *fb, const char *text, size_t size)
{
    *l = (struct layout){.fb = fb, .scale = fb_scale(fb)};
    uint32_t line = FB_CELL_HEIGHT * l->scale;
    l->margin = MARGIN * l->scale;
    l->top = 3 * line + 4 * AIR * l->scale; /* below the title, twice as large, and the subtitle */
    l->columns = less(fb->width, 2 * l->margin) / (FB_CELL_WIDTH * l->scale);
    l->rows = less(fb->height, l->top + l->margin) / line;
    if (l->columns < MIN_COLUMNS || l->rows < MIN_ROWS)
        return false;
    lay_out_code(l, text, size);
    return true;
}

static void draw_code(const struct layout *l)
{
    uint32_t side = (code.side + 2 * FB_QR_QUIET) * l->module;
    uint32_t left = l->fb->width - l->margin - side;
    fb_fill(l->fb, left, l->top, side, side, fb_palette[FB_BRIGHT_WHITE]);
    for (uint32_t y = 0; y < code.side; y++)
        for (uint32_t x = 0; x < code.side; x++)
            if (fb_qr_is_black(&code, x, y))
                fb_fill(l->fb, left + (x + FB_QR_QUIET) * l->module, l->top + (y + FB_QR_QUIET) * l->module,
                        l->module, l->module, FB_BACKGROUND);
    fb_string(l->fb, left, l->top + side + AIR * l->scale, l->scale, caption, fb_palette[FB_GREY],
              FB_BACKGROUND);
}

static void draw_head(const struct layout *l, uint32_t page, uint32_t pages)
{
    char number[32];
    uint32_t air = AIR * l->scale, line = FB_CELL_HEIGHT * l->scale;
    fb_fill(l->fb, 0, 0, l->fb->width, l->fb->height, FB_BACKGROUND);
    fb_fill(l->fb, 0, 0, l->fb->width, l->top - air, FB_ALARM);
    fb_string(l->fb, l->margin, air, 2 * l->scale, title, fb_palette[FB_BRIGHT_WHITE], FB_ALARM);
    fb_string(l->fb, l->margin, air + 2 * line, l->scale, subtitle, fb_palette[FB_BRIGHT_WHITE], FB_ALARM);
    if (pages < 2)
        return;
    size_t length = fmt_format(number, sizeof(number), "page %u of %u", page + 1, pages);
    uint32_t width = (uint32_t)length * FB_CELL_WIDTH * l->scale;
    fb_string(l->fb, less(l->fb->width, l->margin + width), air, l->scale, number,
              fb_palette[FB_BRIGHT_WHITE], FB_ALARM);
}

/* Does a word begin here that is longer than what is left of the row, but not than a row? */
static bool must_wrap(const struct layout *l, const char *text, size_t size, uint32_t column)
{
    uint32_t length = 0;
    if (column <= INDENT || text[-1] != ' ')
        return false;
    while (length < size && length <= l->columns && text[length] != ' ' && text[length] != '\n')
        length++;
    return column + length > l->columns && INDENT + length <= l->columns;
}

/* Goes through the text, row by row, and draws those of `page`; UINT32_MAX draws none. Answers how many rows
 * the text takes. */
static uint32_t walk(const struct layout *l, const char *text, size_t size, uint32_t page)
{
    uint32_t row = 0, column = 0;
    uint8_t colour = FB_BRIGHT_WHITE; /* the first line says what happened */
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n') {
            row++;
            column = 0;
            colour = FB_WHITE;
            continue;
        }
        if (text[i] == '\r')
            continue;
        if (column == l->columns || must_wrap(l, text + i, size - i, column)) {
            row++;
            column = INDENT;
        }
        if (row / l->rows == page)
            fb_cell(l->fb, l->margin + column * FB_CELL_WIDTH * l->scale,
                    l->top + AIR * l->scale + row % l->rows * FB_CELL_HEIGHT * l->scale, l->scale,
                    fb_font_find((uint8_t)text[i]), fb_palette[colour], FB_BACKGROUND);
        column++;
    }
    return column ? row + 1 : row;
}

uint32_t fb_panic_draw(const struct fb *fb, const char *text, size_t size, uint32_t page)
{
    struct layout l;
    if (!lay_out(&l, fb, text, size))
        return 0;
    uint32_t rows = walk(&l, text, size, UINT32_MAX);
    uint32_t pages = rows ? (rows + l.rows - 1) / l.rows : 1;
    if (page >= pages)
        page = pages - 1;
    draw_head(&l, page, pages);
    if (l.module)
        draw_code(&l);
    walk(&l, text, size, page);
    return pages;
}
