/* "Log it once": a small lock-free set of 64-bit keys. When it is full, new keys count as seen, so a guest
 * cannot flood the log. */
#pragma once

#include "hv/lib/types.h"

#define ONCE_SLOTS 128u /* power of two */

struct once {
    uint64_t keys[ONCE_SLOTS]; /* key + 1; 0 = empty; all zero = empty set */
};

/* True the first time `key` (any value but UINT64_MAX) is seen. Any CPU. */
bool once_first(struct once *set, uint64_t key);
