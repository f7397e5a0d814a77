/* The effects a page-table builder needs, as parameters: tests pass a fake that records every write. */
#pragma once

#include "hv/lib/addr.h"

struct pt_env {
    void *ctx;
    /* A zeroed page for a table; false: out of memory. */
    bool (*alloc)(void *ctx, hpa_t *page);
    void (*free)(void *ctx, hpa_t page);
    /* Where the builder can reach a table page. */
    uint64_t *(*table)(void *ctx, hpa_t page);
    /* Stores one entry (one aligned 64-bit write; the only way tables are changed). NULL: a plain store. */
    void (*store)(void *ctx, uint64_t *entry, uint64_t value);
};
