#include "boot/boot_clock.h"

#define AGREEMENT      64u   /* 1 part in 64 */
#define YEAR_MIN       1998u /* EFI_TIME begins there */
#define YEAR_MAX       2199u
#define UTC_OFFSET_MAX 1440

static bool agrees(uint64_t claimed, uint64_t measured)
{
    uint64_t off = claimed > measured ? claimed - measured : measured - claimed;
    return off <= measured / AGREEMENT;
}

/* SDM volume 3, section "Determining the Processor Base Frequency"; CPUID leaf 15H. */
static uint64_t hz_from_leaf_15(const struct boot_clock_cpuid *c)
{
    uint64_t denominator = c->leaf_15[0], numerator = c->leaf_15[1], crystal = c->leaf_15[2];

    if (c->max_leaf < 0x15 || !denominator || !numerator || !crystal)
        return 0;
    return crystal * numerator / denominator;
}

uint64_t boot_clock_tsc_hz(const struct boot_clock_cpuid *cpuid, uint64_t measured_hz,
                           enum boot_tsc_source *source)
{
    uint64_t hz = hz_from_leaf_15(cpuid);

    *source = BOOT_TSC_CPUID_15;
    if (hz && (!measured_hz || agrees(hz, measured_hz)))
        return hz;
    *source = BOOT_TSC_MEASURED;
    if (measured_hz)
        return measured_hz;
    /* A nominal figure, up to half a percent off: minutes a day. */
    *source = BOOT_TSC_CPUID_16;
    return cpuid->max_leaf >= 0x16 ? cpuid->leaf_16_eax * 1000000ull : 0;
}

uint32_t boot_clock_pm_ticks(uint32_t from, uint32_t to, bool is_32bit)
{
    return (to - from) & (is_32bit ? 0xffffffffu : 0xffffffu);
}

uint64_t boot_clock_hz(uint64_t delta, uint64_t ticks, uint64_t hz)
{
    /* delta * hz / ticks without overflow: whole part first, then the remainder (< ticks). */
    return delta / ticks * hz + delta % ticks * hz / ticks;
}

static bool is_leap(unsigned year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year) ? 1u : 0u);
}

enum status boot_clock_unix_seconds(const struct boot_clock_calendar *t, uint64_t *out)
{
    uint64_t days = 0;

    if (t->year < YEAR_MIN || t->year > YEAR_MAX || t->month < 1 || t->month > 12 || t->day < 1 ||
        t->day > days_in_month(t->year, t->month) || t->hour > 23 || t->minute > 59 || t->second > 59 ||
        t->utc_offset < -UTC_OFFSET_MAX || t->utc_offset > UTC_OFFSET_MAX)
        return ERR_RANGE;
    for (unsigned y = 1970; y < t->year; y++)
        days += is_leap(y) ? 366 : 365;
    for (unsigned m = 1; m < t->month; m++)
        days += days_in_month(t->year, m);
    days += t->day - 1;
    int64_t minutes = (int64_t)(days * 24 + t->hour) * 60 + t->minute + t->utc_offset;
    *out = (uint64_t)minutes * 60 + t->second;
    return STATUS_OK;
}
