#include "hv/clock.h"

#define NS_PER_SECOND 1000000000ull
#define NS_SHIFT      32u
#define TICK_SHIFT    30u /* keeps hz << shift below 2^64 up to 17 GHz */

static uint64_t hz, ns_per_tick, ticks_per_ns; /* constant after clock_init; fixed point */

void clock_init(uint64_t tsc_hz)
{
    hz = tsc_hz;
    ns_per_tick = (NS_PER_SECOND << NS_SHIFT) / tsc_hz;
    ticks_per_ns = (tsc_hz << TICK_SHIFT) / NS_PER_SECOND;
}

uint64_t clock_hz(void)
{
    return hz;
}

static uint64_t scale(uint64_t value, uint64_t factor, unsigned shift)
{
    unsigned __int128 product = (unsigned __int128)value * factor >> shift;
    return product > INT64_MAX ? (uint64_t)INT64_MAX : (uint64_t)product;
}

uint64_t clock_ticks_to_ns(uint64_t ticks)
{
    return scale(ticks, ns_per_tick, NS_SHIFT);
}

uint64_t clock_ns_to_ticks(uint64_t ns)
{
    return scale(ns, ticks_per_ns, TICK_SHIFT);
}
