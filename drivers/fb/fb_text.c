#include "drivers/fb/fb_text.h"
#include "hv/lib/string.h"

#define MARGIN          16u /* pixels of the font */
#define HEAD_AIR        6u
#define RULE_HEIGHT     1u
#define TAB             8u
#define BRIGHT          8u
#define PARAM_MAX       9999u
#define LOOKS_PER_DRAW  16u
#define REPLACEMENT     0xfffdu
#define LAST_CODE_POINT 0x10ffffu

enum parse_state {
    GROUND,
    ESCAPE,      /* ESC */
    ESCAPE_ONE,  /* ESC and a byte that announces one more: a character set */
    CONTROL,     /* ESC [ */
    TEXT,        /* ESC ], P, X, ^ or _: a string for somebody else */
    TEXT_ESCAPE, /* ESC inside of it: the beginning of its end */
};

enum {
    BEL = 7,
    BS = 8,
    HT = 9,
    LF = 10,
    VT = 11,
    FF = 12,
    CR = 13,
    CAN = 0x18,
    SUB = 0x1a,
    ESC = 0x1b,
    DEL = 0x7f
};

/* Words that a log line begins with, after its time and speaker: they take this colour. */
static const struct {
    const char *word;
    uint8_t colour;
} marks[] = {{"ERROR:", FB_BRIGHT_RED}, {"warning:", FB_YELLOW}, {"debug:", FB_GREY}};

static struct fb_text_cell *cell(struct fb_text *t, uint32_t row, uint32_t column)
{
    return &t->cells[(t->first_row + row) % t->rows][column];
}

static uint8_t colours(const struct fb_text *t)
{
    uint8_t fore = t->bold ? t->colour | BRIGHT : t->colour;
    return t->inverse ? (uint8_t)(fore << 4 | t->background) : (uint8_t)(t->background << 4 | fore);
}

static void clear_cells(struct fb_text *t, uint32_t row, uint32_t from, uint32_t end)
{
    struct fb_text_cell blank = {FB_FONT_SPACE, (uint8_t)(t->background << 4 | t->colour)};
    for (uint32_t column = from; column < end; column++)
        *cell(t, row, column) = blank;
    t->dirty[row] = true;
}

static void clear_rows(struct fb_text *t, uint32_t from, uint32_t end)
{
    for (uint32_t row = from; row < end; row++)
        clear_cells(t, row, 0, t->columns);
}

/* The cursor is drawn with the cell it is on: both its rows have to be drawn when it moves. */
static void move_to(struct fb_text *t, uint32_t row, uint32_t column)
{
    t->dirty[t->row] = true;
    t->row = row < t->rows ? row : t->rows - 1;
    t->column = column < t->columns ? column : t->columns - 1;
    t->wrap = false;
    t->dirty[t->row] = true;
}

static void line_feed(struct fb_text *t)
{
    if (t->row + 1 < t->rows) {
        move_to(t, t->row + 1, t->column);
        return;
    }
    t->first_row = (t->first_row + 1) % t->rows;
    clear_cells(t, t->rows - 1, 0, t->columns);
    memset(t->dirty, true, t->rows);
    t->wrap = false;
}

static bool is_digit(uint8_t glyph)
{
    return (uint8_t)(glyph - fb_font_find('0')) <= 9;
}

/* "[   12.345678]" at the start of a row, with the cursor behind it: a time, of which the eye wants less. */
static void fade_time(struct fb_text *t)
{
    uint32_t column = 1;
    if (cell(t, t->row, 0)->glyph != fb_font_find('['))
        return;
    while (column < t->column && cell(t, t->row, column)->glyph == FB_FONT_SPACE)
        column++;
    while (column < t->column && is_digit(cell(t, t->row, column)->glyph))
        column++;
    if (cell(t, t->row, column)->glyph != fb_font_find('.'))
        return;
    column++;
    while (column < t->column && is_digit(cell(t, t->row, column)->glyph))
        column++;
    if (column != t->column) /* where the bracket is */
        return;
    for (column = 0; column <= t->column; column++)
        cell(t, t->row, column)->colours = FB_BLACK << 4 | FB_GREY;
}

/* A marked word that ends at the cursor, in a row that begins with a time. */
static void colour_mark(struct fb_text *t)
{
    if (cell(t, t->row, 0)->glyph != fb_font_find('['))
        return;
    for (unsigned i = 0; i < ARRAY_SIZE(marks); i++) {
        uint32_t length = (uint32_t)str_length(marks[i].word), same = 0;
        if (t->column + 1 < length)
            continue;
        uint32_t start = t->column + 1 - length;
        while (same < length &&
               cell(t, t->row, start + same)->glyph == fb_font_find((uint8_t)marks[i].word[same]))
            same++;
        for (uint32_t k = 0; same == length && k < length; k++)
            cell(t, t->row, start + k)->colours = (uint8_t)(FB_BLACK << 4 | marks[i].colour);
    }
}

static void put_character(struct fb_text *t, uint32_t code_point)
{
    if (t->wrap) {
        t->column = 0;
        line_feed(t);
    }
    *cell(t, t->row, t->column) = (struct fb_text_cell){fb_font_find(code_point), colours(t)};
    t->dirty[t->row] = true;
    if (code_point == ']')
        fade_time(t);
    else if (code_point == ':')
        colour_mark(t);
    if (t->column + 1 < t->columns)
        t->column++;
    else
        t->wrap = true;
}

/* ECMA-48, SGR. Answers how many further parameters it took. */
static uint32_t set_extended_colour(struct fb_text *t, uint32_t i, uint8_t *colour)
{
    if (i + 2 < t->param_count && t->params[i + 1] == 5) {
        if (t->params[i + 2] < FB_COLOURS) /* the other 240 of 256 are left as they are */
            *colour = (uint8_t)t->params[i + 2];
        return 2;
    }
    return t->params[i + 1 < t->param_count ? i + 1 : i] == 2 ? 4 : t->param_count;
}

static void reset_attributes(struct fb_text *t)
{
    t->colour = FB_WHITE;
    t->background = FB_BLACK;
    t->bold = t->inverse = false;
}

static void set_basic_colour(struct fb_text *t, uint32_t n)
{
    if (n >= 30 && n <= 37)
        t->colour = (uint8_t)(n - 30);
    else if (n == 39)
        t->colour = FB_WHITE;
    else if (n >= 40 && n <= 47)
        t->background = (uint8_t)(n - 40);
    else if (n == 49)
        t->background = FB_BLACK;
    else if (n >= 90 && n <= 97)
        t->colour = (uint8_t)(n - 90 + BRIGHT);
    else if (n >= 100 && n <= 107)
        t->background = (uint8_t)(n - 100 + BRIGHT);
}

static void set_attributes(struct fb_text *t)
{
    for (uint32_t i = 0; i < t->param_count; i++) {
        uint32_t n = t->params[i];
        if (n == 0)
            reset_attributes(t);
        else if (n == 1 || n == 22)
            t->bold = n == 1;
        else if (n == 7 || n == 27)
            t->inverse = n == 7;
        else if (n == 38)
            i += set_extended_colour(t, i, &t->colour);
        else if (n == 48)
            i += set_extended_colour(t, i, &t->background);
        else
            set_basic_colour(t, n);
    }
}

/* ED and EL: 0 from the cursor on, 1 up to it, 2 all. */
static void erase_in_line(struct fb_text *t, uint32_t what)
{
    if (what <= 2)
        clear_cells(t, t->row, what == 0 ? t->column : 0, what == 1 ? t->column + 1 : t->columns);
}

static void erase_in_display(struct fb_text *t, uint32_t what)
{
    if (what < 2)
        erase_in_line(t, what);
    if (what == 0)
        clear_rows(t, t->row + 1, t->rows);
    else if (what == 1)
        clear_rows(t, 0, t->row);
    else
        clear_rows(t, 0, t->rows);
}

static uint32_t less(uint32_t from, uint32_t by)
{
    return from > by ? from - by : 0;
}

/* Parameters count from 1, and 0 or nothing means 1 for all but the erasing ones. */
static void control_sequence(struct fb_text *t, uint8_t final)
{
    uint32_t first = t->params[0], n = first ? first : 1;
    uint32_t second = t->param_count > 1 && t->params[1] ? t->params[1] : 1;
    switch (final) {
    case 'A':
        move_to(t, less(t->row, n), t->column);
        break;
    case 'B':
        move_to(t, t->row + n, t->column);
        break;
    case 'C':
        move_to(t, t->row, t->column + n);
        break;
    case 'D':
        move_to(t, t->row, less(t->column, n));
        break;
    case 'G':
        move_to(t, t->row, n - 1);
        break;
    case 'd':
        move_to(t, n - 1, t->column);
        break;
    case 'H':
    case 'f':
        move_to(t, n - 1, second - 1);
        break;
    case 'J':
        erase_in_display(t, first);
        break;
    case 'K':
        erase_in_line(t, first);
        break;
    case 'm':
        set_attributes(t);
        break;
    default:
        break;
    }
}

/* ESC [ ? 25 h and l: the cursor is shown or hidden (DECTCEM). The other private modes are not for us. */
static void private_sequence(struct fb_text *t, uint8_t final)
{
    if (t->params[0] != 25 || (final != 'h' && final != 'l'))
        return;
    t->cursor_hidden = final == 'l';
    t->dirty[t->row] = true;
}

static void begin_sequence(struct fb_text *t)
{
    memset(t->params, 0, sizeof(t->params));
    t->param_count = 1;
    t->skip = t->question = false;
    t->state = CONTROL;
}

static void control_byte(struct fb_text *t, uint8_t byte)
{
    uint32_t *param = &t->params[t->param_count - 1];
    if (byte >= '0' && byte <= '9') {
        *param = *param * 10 + (byte - '0');
        if (*param > PARAM_MAX)
            *param = PARAM_MAX;
    } else if (byte == ';' || byte == ':') {
        if (t->param_count == FB_TEXT_MAX_PARAMS)
            t->skip = true; /* more than anybody means seriously */
        else
            t->param_count++;
    } else if (byte == '?' && t->param_count == 1 && *param == 0) {
        t->question = true;
    } else if (byte >= 0x40 && byte < DEL) {
        t->state = GROUND;
        if (t->skip)
            return;
        if (t->question)
            private_sequence(t, byte);
        else
            control_sequence(t, byte);
    } else {
        t->skip = true; /* an intermediate byte, or another private mark */
    }
}

static void reset(struct fb_text *t)
{
    reset_attributes(t);
    t->cursor_hidden = false;
    t->saved_row = t->saved_column = 0;
    clear_rows(t, 0, t->rows);
    move_to(t, 0, 0);
}

static void escape_byte(struct fb_text *t, uint8_t byte)
{
    t->state = GROUND;
    switch (byte) {
    case '[':
        begin_sequence(t);
        break;
    case ']':
    case 'P':
    case 'X':
    case '^':
    case '_':
        t->state = TEXT;
        break;
    case '(':
    case ')':
    case '*':
    case '+':
    case '#':
    case '%':
        t->state = ESCAPE_ONE;
        break;
    case '7':
        t->saved_row = t->row;
        t->saved_column = t->column;
        break;
    case '8':
        move_to(t, t->saved_row, t->saved_column);
        break;
    case ESC:
        t->state = ESCAPE;
        break;
    case 'c':
        reset(t);
        break;
    default:
        break;
    }
}

static void control_character(struct fb_text *t, uint8_t byte)
{
    switch (byte) {
    case BS:
        move_to(t, t->row, less(t->column, 1));
        break;
    case HT:
        move_to(t, t->row, (t->column / TAB + 1) * TAB);
        break;
    case LF:
    case VT:
    case FF:
        line_feed(t);
        break;
    case CR:
        move_to(t, t->row, 0);
        break;
    default:
        break;
    }
}

/* The first byte of a character: RFC 3629. What cannot begin one is shown as U+FFFD. */
static void first_byte(struct fb_text *t, uint8_t byte)
{
    if (byte < 0x80) {
        put_character(t, byte);
    } else if (byte >= 0xc2 && byte <= 0xf4) {
        t->more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
        t->code_point = byte & (0x3fu >> t->more);
    } else {
        put_character(t, REPLACEMENT);
    }
}

static void text_byte(struct fb_text *t, uint8_t byte)
{
    if (t->more && (byte & 0xc0) == 0x80) {
        t->code_point = t->code_point << 6 | (byte & 0x3f);
        if (--t->more == 0)
            put_character(t, t->code_point <= LAST_CODE_POINT ? t->code_point : REPLACEMENT);
        return;
    }
    if (t->more) { /* the character broke off */
        t->more = 0;
        put_character(t, REPLACEMENT);
    }
    if (byte == ESC)
        t->state = ESCAPE;
    else if (byte < 0x20)
        control_character(t, byte);
    else if (byte != DEL)
        first_byte(t, byte);
}

void fb_text_put(struct fb_text *t, uint8_t byte)
{
    if (t->state != GROUND && (byte == CAN || byte == SUB)) {
        t->state = GROUND;
        return;
    }
    switch (t->state) {
    case ESCAPE:
        escape_byte(t, byte);
        break;
    case ESCAPE_ONE:
        t->state = GROUND;
        break;
    case CONTROL:
        if (byte == ESC)
            t->state = ESCAPE;
        else if (byte < 0x20)
            control_character(t, byte);
        else
            control_byte(t, byte);
        break;
    case TEXT:
        t->state = byte == BEL ? GROUND : byte == ESC ? TEXT_ESCAPE : TEXT;
        break;
    case TEXT_ESCAPE:
        t->state = GROUND; /* ESC \ ends it; ESC and anything else begins something new */
        if (byte != '\\')
            escape_byte(t, byte);
        break;
    default:
        text_byte(t, byte);
    }
}

static void draw_head(const struct fb_text *t, const char *title, const char *hint)
{
    uint32_t margin = MARGIN * t->scale, air = HEAD_AIR * t->scale;
    uint32_t height = FB_CELL_HEIGHT * t->scale + 2 * air;
    uint32_t title_width = (uint32_t)str_length(title) * FB_CELL_WIDTH * t->scale;
    uint32_t hint_width = (uint32_t)str_length(hint) * FB_CELL_WIDTH * t->scale;
    fb_fill(&t->fb, 0, 0, t->fb.width, t->fb.height, FB_BACKGROUND);
    fb_fill(&t->fb, 0, 0, t->fb.width, height, FB_PANEL);
    fb_fill(&t->fb, 0, height, t->fb.width, RULE_HEIGHT * t->scale, FB_ACCENT);
    fb_string(&t->fb, margin, air, t->scale, title, FB_ACCENT, FB_PANEL);
    if (2 * margin + title_width + hint_width < t->fb.width)
        fb_string(&t->fb, t->fb.width - margin - hint_width, air, t->scale, hint, fb_palette[FB_WHITE],
                  FB_PANEL);
}

static uint32_t fits(uint32_t pixels, uint32_t used, uint32_t each, uint32_t most)
{
    uint32_t count = pixels > used ? (pixels - used) / each : 0;
    return count < most ? count : most;
}

enum status fb_text_init(struct fb_text *t, const struct fb *fb, const char *title, const char *hint)
{
    memset(t, 0, sizeof(*t));
    t->fb = *fb;
    t->scale = fb_scale(fb);
    t->left = MARGIN * t->scale;
    t->top = (FB_CELL_HEIGHT + 2 * HEAD_AIR + RULE_HEIGHT + MARGIN / 2) * t->scale;
    t->columns = fits(fb->width, 2 * t->left, FB_CELL_WIDTH * t->scale, FB_TEXT_MAX_COLUMNS);
    t->rows = fits(fb->height, t->top + t->left / 2, FB_CELL_HEIGHT * t->scale, FB_TEXT_MAX_ROWS);
    if (t->columns < FB_TEXT_MIN_COLUMNS || t->rows < FB_TEXT_MIN_ROWS)
        return ERR_UNSUPPORTED;
    draw_head(t, title, hint);
    reset(t);
    memcpy(t->shown, t->cells, sizeof(t->shown)); /* the background is on the screen already */
    return STATUS_OK;
}

/* What belongs on the screen there: a cell, with its colours exchanged under the cursor. */
static struct fb_text_cell wanted(struct fb_text *t, uint32_t row, uint32_t column)
{
    struct fb_text_cell want = *cell(t, row, column);
    if (row == t->row && column == t->column && !t->cursor_hidden)
        want.colours = (uint8_t)(want.colours << 4 | want.colours >> 4);
    return want;
}

static bool draw_if_changed(struct fb_text *t, uint32_t row, uint32_t column)
{
    struct fb_text_cell want = wanted(t, row, column), *shown = &t->shown[row][column];
    if (want.glyph == shown->glyph && want.colours == shown->colours)
        return false;
    *shown = want;
    fb_cell(&t->fb, t->left + column * FB_CELL_WIDTH * t->scale, t->top + row * FB_CELL_HEIGHT * t->scale,
            t->scale, want.glyph, fb_palette[want.colours & 15], fb_palette[want.colours >> 4]);
    return true;
}

bool fb_text_refresh(struct fb_text *t, uint32_t budget)
{
    uint32_t draws = budget / (t->scale * t->scale), clean = 0;
    uint64_t looks = (uint64_t)budget * LOOKS_PER_DRAW;
    draws = draws ? draws : 1;
    while (clean < t->rows) {
        if (t->draw_column == 0 && !t->dirty[t->draw_row]) {
            t->draw_row = (t->draw_row + 1) % t->rows;
            clean++;
            continue;
        }
        clean = 0;
        if (!draws || !looks)
            return true;
        looks--;
        if (t->draw_column == 0)
            t->dirty[t->draw_row] = false; /* what changes from now on makes it dirty again */
        if (draw_if_changed(t, t->draw_row, t->draw_column))
            draws--;
        t->draw_column = (t->draw_column + 1) % t->columns;
        if (t->draw_column == 0)
            t->draw_row = (t->draw_row + 1) % t->rows;
    }
    return false;
}
