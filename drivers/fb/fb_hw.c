#include "drivers/fb/fb_hw.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"
#include "drivers/fb/fb_check.h"
#include "drivers/fb/fb_panic.h"
#include "drivers/fb/fb_text.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/lib/lock.h"
#include "hv/lib/log.h"

#define PAGE_NS 10000000000u /* how long a page of a panic stays */

STATIC_ASSERT(FB_MAX_BYTES + SIZE_2M <= LAYOUT_SCREEN_SIZE,
              "the largest framebuffer has room in the address space");

static struct fb fb; /* pixels: NULL as long as there is none */
static struct fb_text text;
static struct spinlock text_lock; /* guards `text`; innermost */

static void put(void *ctx, uint8_t byte)
{
    (void)ctx;
    spin_lock(&text_lock);
    fb_text_put(&text, byte);
    spin_unlock(&text_lock);
}

static bool refresh(void *ctx, unsigned budget)
{
    (void)ctx;
    /* The CPU that polls runs a guest as well: somebody who is printing is not waited for. */
    if (!spin_trylock(&text_lock))
        return true;
    bool more = fb_text_refresh(&text, budget);
    spin_unlock(&text_lock);
    return more;
}

static const struct console_screen screen = {.put = put, .refresh = refresh};

/* At an address that is as far from a 2-MiB boundary as the framebuffer is: large pages can be used. */
static bool map(const struct boot_info *info, const struct pt_env *env)
{
    const struct boot_framebuffer *from = &info->framebuffer;
    uint64_t first = align_down(from->hpa, PAGE_SIZE), end = align_up(from->hpa + fb_bytes(from), PAGE_SIZE);
    uint64_t va = LAYOUT_SCREEN_VA + (first & (SIZE_2M - 1));
    if (hostpt_map(env, hpa(info->cr3), va, hpa(first), end - first, HOSTPT_WRITE | HOSTPT_WC) != STATUS_OK)
        return false;
    fb = (struct fb){.pixels = (uint32_t *)(uintptr_t)(va + (from->hpa & PAGE_MASK)),
                     .width = from->width,
                     .height = from->height,
                     .stride = from->stride,
                     .red_first = from->pixel == BOOT_PIXEL_RGBX};
    return true;
}

void fb_hw_init(const struct boot_info *info, const struct pt_env *env)
{
    const struct boot_framebuffer *from = &info->framebuffer;
    if (from->pixel == BOOT_PIXEL_NONE) {
        if (info->config.console == CONSOLE_SCREEN)
            log_line(LOG_WARN, "core",
                     "console = screen, but the firmware offers no framebuffer: serial port only");
        return;
    }
    const char *why = fb_check(from, info->regions, info->region_count);
    if (!why && !map(info, env))
        why = "there is no memory for its page tables";
    if (why) {
        log_line(LOG_WARN, "core", "the framebuffer is not used: %s", why);
        return;
    }
    log_line(LOG_INFO, "core", "screen: %u x %u pixels%s", from->width, from->height,
             info->config.console == CONSOLE_SERIAL ? ", for panics only (console = serial)" : "");
    if (info->config.console != CONSOLE_SERIAL &&
        fb_text_init(&text, &fb, "Bulkhead", "The keyboard is at the serial port; Ctrl-A h: prompt") ==
            STATUS_OK)
        console_set_screen(&screen);
}

uint32_t fb_panic(const char *report, size_t size, uint32_t page)
{
    return fb.pixels ? fb_panic_draw(&fb, report, size, page) : 0;
}

void fb_panic_stay(const char *report, size_t size)
{
    uint32_t pages = fb_panic(report, size, 0), page = 0;
    while (pages > 1) {
        uint64_t start = cpu_rdtsc();
        while (cpu_rdtsc() - start < clock_ns_to_ticks(PAGE_NS))
            cpu_pause();
        page = (page + 1) % pages;
        pages = fb_panic(report, size, page);
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}
