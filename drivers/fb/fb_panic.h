/* What the screen shows after a panic: the text, wrapped, and where there is room a QR code of its head, for
 * those who would otherwise have to photograph or copy it. Pure, without locks, without allocation; it uses
 * static memory, so one CPU at a time. */
#pragma once

#include "drivers/fb/fb_draw.h"

/* Clears the screen and draws one page (from 0 on; a higher one than there are shows the last). Answers how
 * many pages the text has; 0: the screen is too small for any. Text is ASCII; lines end with '\n'. */
uint32_t fb_panic_draw(const struct fb *fb, const char *text, size_t size, uint32_t page);
