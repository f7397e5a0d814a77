/* Bit arithmetic. */
#pragma once

#include "hv/lib/types.h"

#define BIT(n) ((uint64_t)1 << (n))

/* Bits hi..lo of v, shifted down; 0 <= lo <= hi <= 63. */
static inline uint64_t bits_get(uint64_t v, unsigned hi, unsigned lo)
{
    return (v >> lo) & (~(uint64_t)0 >> (63 - (hi - lo)));
}

/* The low `bytes` bytes of v; bytes is 1..8. */
static inline uint64_t bits_low_bytes(uint64_t v, unsigned bytes)
{
    return bytes >= 8 ? v : v & (((uint64_t)1 << (bytes * 8)) - 1);
}

/* v (of `bytes` bytes) sign-extended to 64 bits. */
static inline uint64_t bits_sign_extend(uint64_t v, unsigned bytes)
{
    unsigned shift = 64 - bytes * 8;
    return (uint64_t)((int64_t)(v << shift) >> shift);
}

/* Index of the highest set bit; v != 0. */
static inline unsigned bits_highest(uint64_t v)
{
    return 63u - (unsigned)__builtin_clzll(v);
}

/* Number of set bits. */
static inline unsigned bits_count(uint64_t v)
{
    unsigned n = 0;
    for (; v; v &= v - 1)
        n++;
    return n;
}
