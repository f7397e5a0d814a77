/* The host found itself broken. host_panic() of hv/cpu.h is the door for everybody else. */
#pragma once

#include "arch/x86/traps.h"
#include "boot/boot_info.h"

/* Makes ready what a panic needs: the black box that the loader reserved. Before that a panic is only shown.
 */
void panic_init(const struct boot_info *info);
/* An exception that is a bug of ours. */
void panic_trap(const struct trap_frame *frame) __attribute__((noreturn));
/* Another CPU panics: notes where this one was (`rip`; 0: in a guest) and halts it. Returns when nobody
 * panics. */
void panic_stop_if_asked(uint64_t rip);
