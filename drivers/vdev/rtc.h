/* MC146818 real-time clock with 128 bytes of CMOS memory (Motorola MC146818A data sheet). The time is
 * env->wall_seconds() (UTC) plus what the guest made of it; seconds change in step with env->now_ns(). */
#pragma once

#include "drivers/vdev/vdev.h"

#define RTC_INDEX_PORT 0x70u /* bit 7: NMI mask */
#define RTC_DATA_PORT  0x71u
#define RTC_IRQ        8u
#define RTC_CMOS_SIZE  128u
#define RTC_SHUTDOWN   0x0fu /* why the processor was reset (hv/pc/warm_reset.h) */
#define RTC_CENTURY    0x32u /* for the FADT's CENTURY field */

struct rtc {
    struct vdev dev;
    uint8_t index;
    bool nmi_masked;
    bool line;              /* level of IRQ 8 */
    bool stopped;           /* SET, or the divider does not run: time is what the registers hold */
    bool dirty;             /* the registers were written while stopped */
    bool divider_was_reset; /* the first update comes half a second after its start */
    uint8_t weekday_skew;   /* guest's day of the week minus the calendar's, 0..6 */
    uint8_t cmos[RTC_CMOS_SIZE];
    int64_t guest_offset; /* seconds the guest's clock is ahead of the wall clock */
    int64_t base_seconds; /* the time, since 1970, ... */
    uint64_t base_ns;     /* ... at this now_ns(); may lie "before" 0, modulo 2^64 */
    uint64_t flags_tick;  /* 32768 Hz tick since base_ns up to which register C's flags are accounted */
};

extern const struct vdev_ops rtc_ops;

/* Tells firmware and old kernels the memory size through CMOS: bytes below 4 GiB, and from 4 GiB on. Call
 * after init. */
void rtc_set_memory(struct rtc *rtc, uint64_t below_4g, uint64_t above_4g);
/* Tells a firmware made for Bochs or QEMU how many processors there are (1..256), and to boot from a hard
 * disk, then from a CD. Call after init. */
void rtc_set_boot(struct rtc *rtc, unsigned processors);
