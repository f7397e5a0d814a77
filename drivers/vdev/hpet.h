/* The high precision event timer (IA-PC HPET specification 1.0a): a 64-bit counter of 100 MHz and three
 * comparators, each periodic or one-shot, 32 or 64 bits wide. No interrupts by message (FSB). In legacy
 * replacement mode comparator 0 has the line of the PIT and comparator 1 that of the RTC, and theirs are cut:
 * the platform asks hpet_replaces(). */
#pragma once

#include "drivers/vdev/vdev.h"

#define HPET_BASE   0xfed00000ull
#define HPET_SIZE   0x400ull
#define HPET_TIMERS 3u
#define HPET_HZ     100000000u
/* The low half of the capabilities, which the ACPI table repeats: revision 1, 3 comparators, 64 bits, legacy
 * replacement, Intel. */
#define HPET_BLOCK_ID 0x8086a201u

struct hpet_timer {
    uint32_t config;  /* writable bits of Tn_CONF */
    uint64_t compare; /* periodic: of the next event */
    uint64_t period;
    uint64_t due; /* when it fires next, in ticks since hpet.since; HPET_NEVER: it does not */
};
#define HPET_NEVER UINT64_MAX

struct hpet {
    struct vdev dev;
    uint32_t config, status; /* GEN_CONF, GINTR_STA */
    uint64_t count;          /* when `since` was: the counter stands while it is not enabled */
    uint64_t since;          /* ns */
    uint32_t lines;          /* bit n: line n is held high by a level-triggered comparator */
    struct hpet_timer timers[HPET_TIMERS];
};

extern const struct vdev_ops hpet_ops;

/* True for the lines of PIT and RTC in legacy replacement mode: then only the HPET may drive them. */
bool hpet_replaces(const struct hpet *hpet, unsigned line);
