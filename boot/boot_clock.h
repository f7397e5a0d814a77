/* Arithmetic about time: the TSC's frequency, and the calendar. Pure. */
#pragma once

#include "boot/boot_info.h"

#define BOOT_CLOCK_PM_TIMER_HZ 3579545u /* ACPI specification, "Power Management Timer" */

struct boot_clock_cpuid {
    uint32_t max_leaf;
    uint32_t leaf_15[3];  /* EAX denominator, EBX numerator, ECX crystal in Hz */
    uint32_t leaf_16_eax; /* base frequency in MHz */
};

/* The TSC's frequency in Hz: from CPUID leaf 15H where the measurement (0 = none) agrees within 1 part in 64,
 * for emulators and VMs pass on values of a CPU whose TSC they do not have; else the measurement; else CPUID
 * leaf 16H. 0: unknown. */
uint64_t boot_clock_tsc_hz(const struct boot_clock_cpuid *cpuid, uint64_t measured_hz,
                           enum boot_tsc_source *source);

/* Ticks of a PM timer of 24 or 32 bits between two readings, one wrap at most. */
uint32_t boot_clock_pm_ticks(uint32_t from, uint32_t to, bool is_32bit);

/* Frequency of a counter that advanced by `delta` during `ticks` > 0 of a clock of `hz`; delta < 2^32 * 2^10.
 */
uint64_t boot_clock_hz(uint64_t delta, uint64_t ticks, uint64_t hz);

struct boot_clock_calendar {
    unsigned year, month, day, hour, minute, second; /* month and day from 1 */
    int utc_offset; /* minutes that local time is behind UTC (EFI_TIME.TimeZone: UTC = local + offset); 0 =
                       UTC */
};
/* Seconds since 1970. ERR_RANGE: no such date, or before 1998 or after 2199 (a clock that was never set). */
enum status boot_clock_unix_seconds(const struct boot_clock_calendar *t, uint64_t *out);
