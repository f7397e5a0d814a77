/* Guest memory: the only way to it. A VM's RAM is a short sorted list of extents; pages are reached through a
 * window that the caller provides (in the core a per-CPU mapping). Every call checks the whole range first:
 * all or nothing. The list is constant while vCPUs run, so there is no lock. */
#pragma once

#include "hv/lib/addr.h"

#define GMEM_MAX_EXTENTS 32u

struct gmem_extent {
    uint64_t gpa, hpa, size; /* page-aligned, bytes */
};

struct gmem {
    void *ctx;
    /* Pointer to the 4 KiB page at `page`, valid until the next call on this CPU. Never NULL. */
    void *(*map)(void *ctx, hpa_t page);
    uint32_t count;
    struct gmem_extent extents[GMEM_MAX_EXTENTS]; /* sorted by gpa, not overlapping */
};

void gmem_init(struct gmem *g, void *(*map)(void *ctx, hpa_t page), void *ctx);
/* ERR_INVALID: not page-aligned, empty or wrapping; ERR_EXISTS: overlaps an extent; ERR_NO_MEMORY: list full.
 * An extent that continues its predecessor in both address spaces is merged into it. */
enum status gmem_add(struct gmem *g, gpa_t addr, hpa_t at, uint64_t size);
uint64_t gmem_size(const struct gmem *g); /* bytes of all extents */

/* ERR_RANGE: some byte of [addr, addr+size) is not guest RAM; nothing was read or written then. size 0 is
 * fine. */
enum status gmem_check(const struct gmem *g, gpa_t addr, uint64_t size);
enum status gmem_read(const struct gmem *g, gpa_t addr, void *buf, uint64_t size);
enum status gmem_write(const struct gmem *g, gpa_t addr, const void *buf, uint64_t size);
enum status gmem_set(const struct gmem *g, gpa_t addr, uint8_t byte, uint64_t size);
/* Atomic compare-and-swap of 4 or 8 bytes, naturally aligned (else ERR_INVALID). *old is what was there:
 * swapped if and only if it equals `expected`. */
enum status gmem_cmpxchg(const struct gmem *g, gpa_t addr, unsigned size, uint64_t expected, uint64_t desired,
                         uint64_t *old);
/* A window on [addr, addr+size), valid until the next call on this CPU; NULL when it is not all RAM of one
 * page. For the few bytes of a page-table entry or an instruction: the caller copies them once, then looks at
 * the copy. */
static inline void *gmem_window(const struct gmem *g, gpa_t addr, uint64_t size)
{
    uint64_t in_page = addr.v & PAGE_MASK;
    if (in_page + size > PAGE_SIZE)
        return NULL;
    for (const struct gmem_extent *e = g->extents; e < g->extents + g->count; e++) {
        uint64_t offset = addr.v - e->gpa; /* extents are whole pages */
        if (offset < e->size)
            return (uint8_t *)g->map(g->ctx, hpa(e->hpa + offset - in_page)) + in_page;
    }
    return NULL;
}
/* Host address of a guest address; *contiguous: bytes from there that are contiguous in both address spaces.
 * ERR_RANGE: not RAM. */
enum status gmem_translate(const struct gmem *g, gpa_t addr, hpa_t *out, uint64_t *contiguous);
