#include "drivers/fb/fb_qr.h"
#include "hv/lib/string.h"

/* The generator is written for a hosted C, and needs of it what follows: the core has no C library. Its
 * assertions are checked in the host build, where the tests and a fuzzer run it. */
#if !__STDC_HOSTED__
#define NDEBUG
#endif
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static inline const char *find_character(const char *text, int wanted)
{
    while (*text && *text != (char)wanted)
        text++;
    return *text == (char)wanted ? text : NULL;
}
#undef strchr
#undef strlen
#define strchr(text, wanted) find_character(text, wanted)
#define strlen(text)         str_length(text)
#define abs(value)           __builtin_abs(value)
#define labs(value)          __builtin_labs(value)
#include <qrcodegen.c>

STATIC_ASSERT(FB_QR_BYTES == qrcodegen_BUFFER_LEN_FOR_VERSION(FB_QR_MAX_VERSION),
              "buffers of the generator's size");

/* ISO/IEC 18004, "Data encodation", byte mode: 4 bits of mode and a count of 8 or, from version 10 on, 16
 * bits. */
#define WIDE_COUNT_VERSION 10u
#define HEADER_NARROW      2u
#define HEADER_WIDE        3u

size_t fb_qr_encode(struct fb_qr *qr, const char *text, size_t size, uint32_t max_version)
{
    if (max_version < qrcodegen_VERSION_MIN || max_version > FB_QR_MAX_VERSION)
        return 0;
    size_t room = (size_t)getNumDataCodewords((int)max_version, qrcodegen_Ecc_LOW) -
                  (max_version < WIDE_COUNT_VERSION ? HEADER_NARROW : HEADER_WIDE);
    size_t taken = size < room ? size : room;
    memcpy(qr->work, text, taken);
    if (!qrcodegen_encodeBinary(qr->work, taken, qr->modules, qrcodegen_Ecc_LOW, qrcodegen_VERSION_MIN,
                                (int)max_version, qrcodegen_Mask_AUTO, true))
        return 0;
    qr->side = (uint32_t)qrcodegen_getSize(qr->modules);
    return taken;
}

bool fb_qr_is_black(const struct fb_qr *qr, uint32_t x, uint32_t y)
{
    return qrcodegen_getModule(qr->modules, (int)x, (int)y);
}
