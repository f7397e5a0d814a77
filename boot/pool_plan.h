/* How much memory Bulkhead keeps for itself on this machine, with this configuration: the size of the pool.
 * The loader takes it before anything starts, so that nothing can run out of it later. Pure. */
#pragma once

#include "hv/config/config.h"

struct pool_plan_in {
    const struct config *config; /* no VMs: it is not valid */
    uint32_t cpus;               /* of the machine */
    bool small_pages;            /* guests' memory is mapped by 4 KiB, not by 2 MiB */
};

/* Bytes: a multiple of 1 MiB, LAYOUT_POOL_MIN at least. More than LAYOUT_POOL_MAX cannot be mapped. */
uint64_t pool_plan(const struct pool_plan_in *in);
