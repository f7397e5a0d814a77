/* A text console on a framebuffer. Bytes go into a buffer of cells at once; fb_text_refresh() then draws what
 * has changed, a bounded number of cells at a time, as the CPU that calls it runs a guest as well.
 * Understands ASCII, UTF-8 and the usual ANSI sequences (ECMA-48); skips those it does not know. */
#pragma once

#include "drivers/fb/fb_draw.h"

#define FB_TEXT_MAX_COLUMNS 240u
#define FB_TEXT_MAX_ROWS    110u
#define FB_TEXT_MIN_COLUMNS 40u
#define FB_TEXT_MIN_ROWS    8u
#define FB_TEXT_MAX_PARAMS  8u

struct fb_text_cell {
    uint8_t glyph;
    uint8_t colours; /* of fb_palette: foreground in bits 3:0, background in bits 7:4 */
};

/* The caller keeps put and refresh apart, where they could run at the same time. */
struct fb_text {
    struct fb fb;
    uint32_t scale, left, top; /* pixels to a pixel of the font; where the first cell is */
    uint32_t columns, rows;
    uint32_t first_row; /* of cells[]: a ring, so that scrolling moves nothing */
    struct fb_text_cell cells[FB_TEXT_MAX_ROWS][FB_TEXT_MAX_COLUMNS];
    struct fb_text_cell shown[FB_TEXT_MAX_ROWS][FB_TEXT_MAX_COLUMNS]; /* what is on the screen */
    bool dirty[FB_TEXT_MAX_ROWS];                                     /* by rows of the screen */
    uint32_t draw_row, draw_column;                                   /* where refresh goes on */

    uint32_t row, column; /* the cursor */
    uint32_t saved_row, saved_column;
    bool wrap; /* the last column is written: the next character begins a line */
    bool cursor_hidden;
    uint8_t colour, background; /* of fb_palette */
    bool bold, inverse;

    uint8_t state;                       /* enum parse_state of fb_text.c */
    bool skip;                           /* a sequence of a kind that is not for us */
    bool question;                       /* ESC [ ? */
    uint32_t params[FB_TEXT_MAX_PARAMS]; /* of a control sequence */
    uint32_t param_count;
    uint32_t code_point, more; /* of a UTF-8 character, and how many bytes are still to come */
};

/* Takes the screen over: clears it, draws the head line (title left, hint right) and puts the cursor in the
 * first row. ERR_UNSUPPORTED: the screen has no room for 40 columns and 8 rows; nothing is drawn. */
enum status fb_text_init(struct fb_text *text, const struct fb *fb, const char *title, const char *hint);
void fb_text_put(struct fb_text *text, uint8_t byte);
/* Draws at most `budget` cells of 8 x 18 pixels (1 or more; fewer, where the scale is higher, but at least
 * one), and looks at no more than 16 times as many. False: nothing is left to draw. */
bool fb_text_refresh(struct fb_text *text, uint32_t budget);
