/* Bulkhead's own virtual address space: the one place that says what lives where.
 *
 *   LAYOUT_CORE_VA    core image, W^X per ELF segment                      (linker.ld, loader)
 *   LAYOUT_POOL_VA    the pool: all memory Bulkhead keeps for itself       (loader, hv/pool.c)
 *   LAYOUT_BLACKBOX_VA what a panic leaves for the next start             (loader, arch/x86/panic_hw.c)
 *   LAYOUT_WINDOW_VA  per-CPU windows through which guest memory is reached (hv/gmem.c)
 *   LAYOUT_STACK_VA   per-CPU stacks, an unmapped guard page below each
 *   LAYOUT_MMIO_VA    device registers, uncached
 *   LAYOUT_SCREEN_VA  the framebuffer, write-combining                     (drivers/fb)
 *
 * Nothing else is mapped: no identity map, no direct map of RAM. */
#pragma once

#define LAYOUT_CORE_VA     0xffffffff80000000ull
#define LAYOUT_POOL_VA     0xffffffff90000000ull
#define LAYOUT_BLACKBOX_VA 0xffffffffb0000000ull
#define LAYOUT_WINDOW_VA   0xffffffffb4000000ull
#define LAYOUT_STACK_VA    0xffffffffb8000000ull
#define LAYOUT_MMIO_VA     0xffffffffc0000000ull
#define LAYOUT_SCREEN_VA   0xffffffffd0000000ull

#define LAYOUT_SCREEN_SIZE (0x11ull << 24) /* bytes of address space */

/* Bytes; boot/pool_plan.h says how many it is between the two. With the image the lower one stays below the 8
 * MiB that Bulkhead promises for machines that are not large. */
#define LAYOUT_POOL_MIN (7ull << 20)
#define LAYOUT_POOL_MAX (LAYOUT_BLACKBOX_VA - LAYOUT_POOL_VA)
