/* What a host device driver stands on, as parameters: the device's registers, time, and memory for DMA. The
 * real ones come from *_hw.c files; tests pass fakes. */
#pragma once

#include "hv/lib/addr.h"

/* Registers of a device, behind a BAR or at an address from a table. Offsets in bytes, naturally aligned, and
 * the whole access below `size`: the user checks that. A device that has gone answers all ones. */
struct mmio {
    void *ctx;
    uint64_t size; /* bytes */
    uint32_t (*read32)(void *ctx, uint64_t offset);
    void (*write32)(void *ctx, uint64_t offset, uint32_t value);
    uint64_t (*read64)(void *ctx, uint64_t offset);
    void (*write64)(void *ctx, uint64_t offset, uint64_t value);
};

static inline uint32_t mmio_read32(const struct mmio *m, uint64_t offset)
{
    return m->read32(m->ctx, offset);
}
static inline void mmio_write32(const struct mmio *m, uint64_t offset, uint32_t value)
{
    m->write32(m->ctx, offset, value);
}
static inline uint64_t mmio_read64(const struct mmio *m, uint64_t offset)
{
    return m->read64(m->ctx, offset);
}
static inline void mmio_write64(const struct mmio *m, uint64_t offset, uint64_t value)
{
    m->write64(m->ctx, offset, value);
}

/* What a host device driver is given to live on. Never called from interrupt context. */
struct dev_env {
    void *ctx;
    uint64_t (*now_us)(void *ctx);
    void (*delay_us)(void *ctx, uint32_t us); /* waits at least that long; lets the console live */
    /* Zeroed, contiguous, page-aligned pages, for good: below 4 GiB or not. NULL: no memory. *at: for the
     * device. */
    void *(*dma_alloc)(void *ctx, uint32_t pages, hpa_t *at);
};
