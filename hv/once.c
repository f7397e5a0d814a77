#include "hv/once.h"

bool once_first(struct once *set, uint64_t key)
{
    uint64_t stored = key + 1;
    /* Fibonacci hashing: keys are ports, pages and MSR numbers, whose low bits cluster. */
    uint32_t slot = (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32);
    for (uint32_t i = 0; i < ONCE_SLOTS; i++) {
        uint64_t *at = &set->keys[(slot + i) & (ONCE_SLOTS - 1)];
        uint64_t seen = 0;
        if (__atomic_compare_exchange_n(at, &seen, stored, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return true;
        if (seen == stored)
            return false;
    }
    return false;
}
