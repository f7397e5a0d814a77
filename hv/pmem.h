/* Physical memory for guests, out of the loader's FREE regions only. Works in 2 MiB units, so that guests are
 * mapped with large pages; prefers 1 GiB-aligned extents. The first MiB is never handed out. Deterministic:
 * the same calls give the same addresses. */
#pragma once

#include "boot/boot_info.h"
#include "hv/lib/addr.h"
#include "hv/lib/lock.h"

#define PMEM_UNIT        SIZE_2M
#define PMEM_MAX_EXTENTS 24u /* that one allocation may consist of */
#define PMEM_MAX_RANGES  (BOOT_MAX_REGIONS + CONFIG_MAX_VMS * PMEM_MAX_EXTENTS)

struct pmem_extent {
    uint64_t base, size; /* host-physical, bytes, multiples of PMEM_UNIT */
};

struct pmem {
    struct spinlock lock; /* guards all below */
    uint32_t count;
    uint64_t free_bytes;
    struct pmem_extent ranges[PMEM_MAX_RANGES]; /* free memory, sorted, never touching each other */
};

/* What guests can have of this memory map together, in bytes: what pmem_init() finds. For
 * config_check_machine(). */
uint64_t pmem_available(const struct boot_region *regions, uint32_t count);
void pmem_init(struct pmem *p, const struct boot_region *regions, uint32_t count);
/* Takes `size` bytes (a multiple of PMEM_UNIT, > 0) as at most PMEM_MAX_EXTENTS extents, 1 GiB-aligned
 * multiples of 1 GiB first. ERR_INVALID, or ERR_NO_MEMORY (not enough, or too scattered): nothing is taken.
 * Contents are as found. */
enum status pmem_alloc(struct pmem *p, uint64_t size, struct pmem_extent out[PMEM_MAX_EXTENTS],
                       uint32_t *count);
/* Gives extents back. ERR_INVALID (nothing freed): misaligned, or part of them is free already.
 * ERR_NO_MEMORY: the table is full (cannot happen for extents from pmem_alloc). */
enum status pmem_free(struct pmem *p, const struct pmem_extent *extents, uint32_t count);
uint64_t pmem_free_bytes(struct pmem *p);
