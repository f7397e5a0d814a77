/* Numbers in tables and headers, which are little-endian and not aligned. */
#pragma once

#include "hv/lib/types.h"

/* Of `bytes` bytes, 1..8. */
static inline uint64_t bytes_get(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline uint16_t bytes_get16(const uint8_t *p)
{
    return (uint16_t)bytes_get(p, 2);
}

static inline uint32_t bytes_get32(const uint8_t *p)
{
    return (uint32_t)bytes_get(p, 4);
}

static inline uint64_t bytes_get64(const uint8_t *p)
{
    return bytes_get(p, 8);
}
