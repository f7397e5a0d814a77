/* Is what the firmware says of the framebuffer to be believed? */
#pragma once

#include "boot/boot_info.h"

#define FB_MAX_SIDE  16384u /* pixels */
#define FB_MAX_BYTES (256ull << 20)

/* NULL: it can be used. Otherwise what is wrong with it: it lies in memory that somebody uses, is larger than
 * a screen can be, or its bytes are not 32-bit aligned. `framebuffer` has one (pixel is not BOOT_PIXEL_NONE).
 */
const char *fb_check(const struct boot_framebuffer *framebuffer, const struct boot_region *regions,
                     uint32_t region_count);
/* Bytes from its first pixel to the end of its last row. */
uint64_t fb_bytes(const struct boot_framebuffer *framebuffer);
