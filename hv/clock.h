/* The host's time base: TSC ticks to nanoseconds and back, without division on the hot path. */
#pragma once

#include "hv/lib/types.h"

#define NS_PER_US 1000u
#define NS_PER_MS 1000000u

/* tsc_hz: 1 MHz .. 8 GHz. Once, before anything else here. */
void clock_init(uint64_t tsc_hz);
uint64_t clock_hz(void);
/* Less than two units low, for any value; results above 2^63 saturate. */
uint64_t clock_ticks_to_ns(uint64_t ticks);
uint64_t clock_ns_to_ticks(uint64_t ns);
