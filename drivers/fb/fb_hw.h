/* The machine's screen: the framebuffer that the firmware left. */
#pragma once

#include "arch/x86/pt_env.h"
#include "boot/boot_info.h"

/* Maps the framebuffer, write-combining, and makes it a part of the console unless the configuration says
 * `console = serial`. Says in the log what it found. Boot CPU, before the others are started. */
void fb_hw_init(const struct boot_info *info, const struct pt_env *env);
/* For a panic, on any CPU, without locks: draws one page of the text (from 0 on) over whatever is on the
 * screen. Answers how many pages there are; 0: no screen. */
uint32_t fb_panic(const char *text, size_t size, uint32_t page);
/* The end of a panic: shows the pages in turn for ever, or halts when one is enough. */
void fb_panic_stay(const char *text, size_t size) __attribute__((noreturn));
