/* QR codes (ISO/IEC 18004), by Project Nayuki's generator from Debian's package (MIT licence). No allocation.
 */
#pragma once

#include "hv/lib/types.h"

/* A code of version V has 17 + 4 V modules a side. */
#define FB_QR_MAX_VERSION 25u
#define FB_QR_SIDE(v)     (17u + 4u * (v))
#define FB_QR_BYTES       ((FB_QR_SIDE(FB_QR_MAX_VERSION) * FB_QR_SIDE(FB_QR_MAX_VERSION) + 7) / 8 + 1)
#define FB_QR_QUIET       4u /* modules of white that must surround it */

struct fb_qr {
    uint32_t side; /* modules */
    uint8_t modules[FB_QR_BYTES], work[FB_QR_BYTES];
};

/* Encodes as much of the head of the text as fits into a code of `max_version` (1 to FB_QR_MAX_VERSION; a
 * smaller one if that is enough), with the lowest error correction: a screen has no scratches. Answers how
 * many bytes are in it; 0: no code could be made. */
size_t fb_qr_encode(struct fb_qr *qr, const char *text, size_t size, uint32_t max_version);
/* Is the module black? x, y below side. */
bool fb_qr_is_black(const struct fb_qr *qr, uint32_t x, uint32_t y);
