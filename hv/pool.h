/* Bulkhead's own memory: 4 KiB pages out of the pool the loader mapped at LAYOUT_POOL_VA. A bitmap knows
 * every page, so that leaks can be counted and a page freed twice is noticed. Safe on several CPUs. */
#pragma once

#include "arch/x86/pt_env.h"
#include "hv/lib/addr.h"
#include "hv/lib/lock.h"

#define POOL_MAX_PAGES (512u << (20 - PAGE_SHIFT)) /* LAYOUT_POOL_MAX */

struct pool {
    struct spinlock
        lock;       /* guards free_pages, hint and bitmap; everything else is constant after pool_init */
    uint8_t *base;  /* where the pool is mapped */
    hpa_t hpa;      /* and where it is */
    uint32_t pages; /* managed and unmanaged ones */
    uint32_t free_pages;
    uint32_t hint;  /* no free page below this one */
    uint32_t first; /* pages below were used before the pool began: never handed out, never freed */
    uint64_t used[POOL_MAX_PAGES / 64]; /* bit set: in use */
};

/* `base` and `pool_hpa` are page-aligned; `size` and `used_bytes` in bytes (used is rounded up).
 * ERR_INVALID/ERR_RANGE leave the pool empty. */
enum status pool_init(struct pool *p, void *base, hpa_t pool_hpa, uint64_t size, uint64_t used_bytes);
/* `count` contiguous zeroed pages (page-aligned in both address spaces), or NULL. */
void *pool_alloc_pages(struct pool *p, uint32_t count);
void *pool_alloc(struct pool *p); /* one zeroed page, or NULL */
/* Gives pages back. ERR_INVALID (nothing freed): not pages of the pool, not aligned, or one of them is free
 * already. */
enum status pool_free_pages(struct pool *p, void *pages, uint32_t count);
enum status pool_free(struct pool *p, void *page);
uint64_t pool_pages_free(struct pool *p);

/* Conversions, for every byte of the pool (the part used by the loader included). ERR_RANGE: outside. */
enum status pool_to_hpa(const struct pool *p, const void *va, hpa_t *out);
enum status pool_to_va(const struct pool *p, hpa_t addr, void **out);
/* The same for addresses that are known to be of the pool; outside: hpa 0 / NULL. */
hpa_t pool_hpa(const struct pool *p, const void *va);
void *pool_va(const struct pool *p, hpa_t addr);

/* A page-table environment (EPT, host page tables) whose tables live in this pool. `store` stays NULL. */
void pool_pt_env(struct pool *p, struct pt_env *out);
