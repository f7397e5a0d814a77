/* Typed addresses: passing a guest-physical address where a host-physical one is meant must not compile. */
#pragma once

#include "hv/lib/types.h"

typedef struct {
    uint64_t v;
} hpa_t; /* host-physical */
typedef struct {
    uint64_t v;
} gpa_t; /* guest-physical */
typedef struct {
    uint64_t v;
} gva_t; /* guest-linear */
typedef struct {
    uint64_t v;
} iova_t; /* what a device puts on its bus */

#define PAGE_SHIFT 12u
#define PAGE_SIZE ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_MASK (PAGE_SIZE - 1)
#define SIZE_2M ((uint64_t)1 << 21)
#define SIZE_1G ((uint64_t)1 << 30)

static inline hpa_t hpa(uint64_t v)
{
    return (hpa_t){v};
}
static inline gpa_t gpa(uint64_t v)
{
    return (gpa_t){v};
}
static inline gva_t gva(uint64_t v)
{
    return (gva_t){v};
}

/* Rounds to a multiple of `align`, which is a power of two. align_up wraps at 2^64: callers check sizes first. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}
static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

/* Do two ranges of bytes share one? Neither is empty, nor wraps. */
static inline bool ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size;
}
