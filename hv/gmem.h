/* Guest memory: the only way to it. A VM's RAM is a short sorted list of extents; pages are reached through a
 * window that the caller provides (in the core a per-CPU mapping). Every call checks the whole range first:
 * all or nothing. The list is constant while vCPUs run, so there is no lock; only what an extent shows may
 * change (gmem_show), in one store: an access under way sees the old or the new. */
#pragma once

#include "hv/lib/addr.h"

#define GMEM_MAX_EXTENTS 48u /* 16 for pieces of pmem, 14 for a firmware's ROM area, and splits */

enum gmem_access { GMEM_RAM = 0, GMEM_ROM = 1 /* can only be read */, GMEM_NOTHING = 2 };
#define GMEM_ACCESS_MASK 3u

struct gmem_extent {
    uint64_t gpa;
    uint64_t hpa;  /* with enum gmem_access in the lowest bits, so that both change at once */
    uint64_t size; /* all three in whole pages, bytes */
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
/* Makes [addr, addr+size), page-aligned, an extent of its own. ERR_RANGE: it does not lie in one extent;
 * ERR_NO_MEMORY: list full. */
enum status gmem_split(struct gmem *g, gpa_t addr, uint64_t size);
/* What the extent that begins at `addr` shows from now on: as much of host memory from `at` on. Any CPU, also
 * while vCPUs run. */
void gmem_show(struct gmem *g, gpa_t addr, hpa_t at, enum gmem_access access);

/* ERR_RANGE: some byte of [addr, addr+size) cannot be read, or for gmem_check_write() written; nothing was
 * read or written then. size 0 is fine. */
enum status gmem_check(const struct gmem *g, gpa_t addr, uint64_t size);
enum status gmem_check_write(const struct gmem *g, gpa_t addr, uint64_t size);
enum status gmem_read(const struct gmem *g, gpa_t addr, void *buf, uint64_t size);
enum status gmem_write(const struct gmem *g, gpa_t addr, const void *buf, uint64_t size);
enum status gmem_set(const struct gmem *g, gpa_t addr, uint8_t byte, uint64_t size);
/* Atomic compare-and-swap of 4 or 8 bytes, naturally aligned (else ERR_INVALID). *old is what was there:
 * swapped if and only if it equals `expected`. */
enum status gmem_cmpxchg(const struct gmem *g, gpa_t addr, unsigned size, uint64_t expected, uint64_t desired,
                         uint64_t *old);
/* A window on [addr, addr+size), to be read, valid until the next call on this CPU; NULL when it is not all
 * memory of one page. For the few bytes of a page-table entry or an instruction: the caller copies them once,
 * then looks at the copy. */
static inline const void *gmem_window(const struct gmem *g, gpa_t addr, uint64_t size)
{
    uint64_t in_page = addr.v & PAGE_MASK;
    if (in_page + size > PAGE_SIZE)
        return NULL;
    for (const struct gmem_extent *e = g->extents; e < g->extents + g->count; e++) {
        uint64_t offset = addr.v - e->gpa; /* extents are whole pages */
        if (offset < e->size) {
            uint64_t at = __atomic_load_n(&e->hpa, __ATOMIC_RELAXED);
            if (at & GMEM_NOTHING)
                return NULL;
            return (const uint8_t *)g->map(g->ctx, hpa((at & ~(uint64_t)PAGE_MASK) + offset - in_page)) +
                   in_page;
        }
    }
    return NULL;
}
/* Host address of a guest address that can be read; *contiguous: bytes from there that are contiguous in both
 * address spaces. ERR_RANGE: there is nothing. */
enum status gmem_translate(const struct gmem *g, gpa_t addr, hpa_t *out, uint64_t *contiguous);
