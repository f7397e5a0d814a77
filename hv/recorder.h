/* The flight recorder: each vCPU's last exits, always on. The exit path fills the slot in place, so that
 * recording costs an index increment. */
#pragma once

#include "arch/x86/vmx/vmx_raw.h"

#define RECORDER_SLOTS 256u /* a power of two */

struct recorder_entry {
    struct vmx_raw raw;
    uint64_t tsc;
};

struct recorder {
    struct recorder_entry entries[RECORDER_SLOTS];
    uint64_t count; /* exits ever; the newest is entries[(count - 1) % RECORDER_SLOTS] */
};

static inline struct recorder_entry *recorder_next(struct recorder *r)
{
    return &r->entries[r->count++ & (RECORDER_SLOTS - 1)];
}

/* The entry `back` exits ago (0 = the newest), or NULL when there is none. */
const struct recorder_entry *recorder_at(const struct recorder *r, uint64_t back);

/* One entry in words: "EPT_VIOLATION (48) rip 0x... gpa 0x... write". Returns the length. */
size_t recorder_describe(const struct recorder_entry *entry, char *buf, size_t size);
