#include "hv/clock.h"

#define NS_PER_SECOND 1000000000ull

/* A factor as integer part and 64-bit binary fraction: values below 2^63 come out less than two units low,
 * whatever the frequency. A coarser fraction would be wrong by more the longer the machine runs. */
struct ratio {
    uint64_t whole, fraction;
};

static uint64_t hz; /* constant after clock_init, as are the two below */
static struct ratio ns_per_tick, ticks_per_ns;

/* num / den; den below 2^63. Long division, done once: no 128-bit division exists here. */
static struct ratio ratio_make(uint64_t num, uint64_t den)
{
    struct ratio ratio = {.whole = num / den};
    uint64_t rest = num % den;
    for (int i = 0; i < 64; i++) {
        rest <<= 1;
        ratio.fraction <<= 1;
        if (rest >= den) {
            rest -= den;
            ratio.fraction |= 1;
        }
    }
    return ratio;
}

void clock_init(uint64_t tsc_hz)
{
    hz = tsc_hz;
    ns_per_tick = ratio_make(NS_PER_SECOND, tsc_hz);
    ticks_per_ns = ratio_make(tsc_hz, NS_PER_SECOND);
}

uint64_t clock_hz(void)
{
    return hz;
}

static uint64_t scale(uint64_t value, struct ratio ratio)
{
    unsigned __int128 product = (unsigned __int128)value * ratio.whole;
    product += (unsigned __int128)value * ratio.fraction >> 64;
    return product > INT64_MAX ? (uint64_t)INT64_MAX : (uint64_t)product;
}

uint64_t clock_ticks_to_ns(uint64_t ticks)
{
    return scale(ticks, ns_per_tick);
}

uint64_t clock_ns_to_ticks(uint64_t ns)
{
    return scale(ns, ticks_per_ns);
}
