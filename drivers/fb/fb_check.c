#include "drivers/fb/fb_check.h"

#define PIXEL_BYTES 4u
#define PHYS_LIMIT  ((uint64_t)1 << 52) /* SDM volume 3, "Physical-Address Size": 52 bits at most */

uint64_t fb_bytes(const struct boot_framebuffer *fb)
{
    return (uint64_t)fb->stride * fb->height * PIXEL_BYTES;
}

const char *fb_check(const struct boot_framebuffer *fb, const struct boot_region *regions,
                     uint32_t region_count)
{
    if (fb->pixel != BOOT_PIXEL_RGBX && fb->pixel != BOOT_PIXEL_BGRX)
        return "its pixels are of a kind that is not supported";
    if (!fb->width || !fb->height || fb->width > fb->stride || fb->stride > FB_MAX_SIDE ||
        fb->height > FB_MAX_SIDE || fb_bytes(fb) > FB_MAX_BYTES)
        return "its size makes no sense";
    if (!fb->hpa || fb->hpa % PIXEL_BYTES || fb->hpa > PHYS_LIMIT - fb_bytes(fb))
        return "its address makes no sense";
    for (uint32_t i = 0; i < region_count; i++)
        if (regions[i].kind != BOOT_REGION_RESERVED && fb->hpa < regions[i].base + regions[i].size &&
            regions[i].base < fb->hpa + fb_bytes(fb))
            return "it lies in the machine's memory";
    return NULL;
}
