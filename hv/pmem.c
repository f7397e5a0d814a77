#include "hv/pmem.h"
#include "hv/lib/string.h"

/* Firmware, real-mode trampolines and every old habit live in the first MiB: it is never a guest's. */
#define FIRST_MIB ((uint64_t)1 << 20)

/* The PMEM_UNIT-aligned part of a region a guest may have; false: none. */
static bool usable(const struct boot_region *r, struct pmem_extent *out)
{
    if (r->kind != BOOT_REGION_FREE || r->base + r->size < r->base)
        return false;
    uint64_t end = align_down(r->base + r->size, PMEM_UNIT);
    uint64_t start = r->base < FIRST_MIB ? FIRST_MIB : r->base;
    if (start > UINT64_MAX - PMEM_UNIT)
        return false;
    start = align_up(start, PMEM_UNIT);
    if (start >= end)
        return false;
    *out = (struct pmem_extent){.base = start, .size = end - start};
    return true;
}

uint64_t pmem_available(const struct boot_region *regions, uint32_t count)
{
    uint64_t sum = 0;
    struct pmem_extent e;
    for (uint32_t i = 0; i < count; i++)
        if (usable(&regions[i], &e))
            sum += e.size;
    return sum;
}

static void remove_range(struct pmem *p, uint32_t i)
{
    p->count--;
    memmove(&p->ranges[i], &p->ranges[i + 1], (p->count - i) * sizeof(p->ranges[0]));
}

static enum status insert_range(struct pmem *p, uint32_t i, struct pmem_extent e)
{
    if (p->count == PMEM_MAX_RANGES)
        return ERR_NO_MEMORY;
    memmove(&p->ranges[i + 1], &p->ranges[i], (p->count - i) * sizeof(p->ranges[0]));
    p->ranges[i] = e;
    p->count++;
    return STATUS_OK;
}

/* Index of the first range that ends behind `base`. */
static uint32_t range_after(const struct pmem *p, uint64_t base)
{
    uint32_t i = 0;
    while (i < p->count && p->ranges[i].base + p->ranges[i].size <= base)
        i++;
    return i;
}

static bool is_free_anywhere(const struct pmem *p, struct pmem_extent e)
{
    uint32_t i = range_after(p, e.base);
    return i < p->count && p->ranges[i].base < e.base + e.size;
}

/* Adds memory that is not in the list yet, merging it with its neighbours. */
static enum status give(struct pmem *p, struct pmem_extent e)
{
    uint32_t i = range_after(p, e.base);
    bool left = i > 0 && p->ranges[i - 1].base + p->ranges[i - 1].size == e.base;
    bool right = i < p->count && p->ranges[i].base == e.base + e.size;
    if (left && right) {
        p->ranges[i - 1].size += e.size + p->ranges[i].size;
        remove_range(p, i);
    } else if (left) {
        p->ranges[i - 1].size += e.size;
    } else if (right) {
        p->ranges[i].base = e.base;
        p->ranges[i].size += e.size;
    } else if (insert_range(p, i, e) != STATUS_OK) {
        return ERR_NO_MEMORY;
    }
    p->free_bytes += e.size;
    return STATUS_OK;
}

/* Removes [base, base+size), which lies inside range i. */
static enum status take(struct pmem *p, uint32_t i, uint64_t base, uint64_t size)
{
    struct pmem_extent r = p->ranges[i];
    uint64_t before = base - r.base;
    uint64_t after = r.size - before - size;
    if (before && after) {
        if (insert_range(p, i + 1, (struct pmem_extent){base + size, after}) != STATUS_OK)
            return ERR_NO_MEMORY;
        p->ranges[i].size = before;
    } else if (before) {
        p->ranges[i].size = before;
    } else if (after) {
        p->ranges[i] = (struct pmem_extent){base + size, after};
    } else {
        remove_range(p, i);
    }
    p->free_bytes -= size;
    return STATUS_OK;
}

void pmem_init(struct pmem *p, const struct boot_region *regions, uint32_t count)
{
    memset(p, 0, sizeof(*p));
    struct pmem_extent e;
    for (uint32_t i = 0; i < count; i++)
        if (usable(&regions[i], &e) && !is_free_anywhere(p, e))
            (void)give(p, e); /* full: what does not fit in the table is not used */
}

/* The 1 GiB-aligned part of a range. */
static struct pmem_extent huge_part(struct pmem_extent r)
{
    uint64_t start = align_up(r.base, SIZE_1G);
    uint64_t end = align_down(r.base + r.size, SIZE_1G);
    if (start < r.base || start >= end)
        return (struct pmem_extent){0, 0};
    return (struct pmem_extent){start, end - start};
}

/* Chooses the next extent of at most `want` bytes: index of the range, or p->count. */
static uint32_t choose(const struct pmem *p, uint64_t want, struct pmem_extent *out)
{
    uint32_t best = p->count;
    out->size = 0;
    if (want >= SIZE_1G) {
        /* The range with the longest run of whole 1 GiB pages. */
        for (uint32_t i = 0; i < p->count; i++) {
            struct pmem_extent h = huge_part(p->ranges[i]);
            if (h.size > out->size) {
                best = i;
                *out = h;
            }
        }
        if (best < p->count) {
            if (out->size > want)
                out->size = align_down(want, SIZE_1G);
            return best;
        }
    }
    /* The smallest range that holds it all, else the largest one there is. */
    for (uint32_t i = 0; i < p->count; i++) {
        const struct pmem_extent *r = &p->ranges[i];
        bool fits = r->size >= want, best_fits = out->size >= want;
        if (best == p->count || (fits && (!best_fits || r->size < out->size)) ||
            (!best_fits && r->size > out->size)) {
            best = i;
            *out = *r;
        }
    }
    if (out->size > want)
        out->size = want;
    return best;
}

static void undo(struct pmem *p, const struct pmem_extent *out, uint32_t n)
{
    while (n--)
        (void)give(p, out[n]); /* cannot fail: its slots have just become free */
}

static enum status alloc_locked(struct pmem *p, uint64_t size, struct pmem_extent *out, uint32_t *count)
{
    uint32_t n = 0;
    while (size) {
        struct pmem_extent e;
        uint32_t i = choose(p, size, &e);
        if (i == p->count || n == PMEM_MAX_EXTENTS || take(p, i, e.base, e.size) != STATUS_OK) {
            undo(p, out, n);
            return ERR_NO_MEMORY;
        }
        out[n++] = e;
        size -= e.size;
    }
    *count = n;
    return STATUS_OK;
}

enum status pmem_alloc(struct pmem *p, uint64_t size, struct pmem_extent out[PMEM_MAX_EXTENTS],
                       uint32_t *count)
{
    if (size == 0 || size % PMEM_UNIT)
        return ERR_INVALID;
    spin_lock(&p->lock);
    enum status status = size <= p->free_bytes ? alloc_locked(p, size, out, count) : ERR_NO_MEMORY;
    spin_unlock(&p->lock);
    return status;
}

static bool extents_valid(const struct pmem *p, const struct pmem_extent *extents, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct pmem_extent e = extents[i];
        if (e.size == 0 || (e.base | e.size) % PMEM_UNIT || e.base + e.size < e.base || e.base < FIRST_MIB ||
            is_free_anywhere(p, e))
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (e.base < extents[j].base + extents[j].size && extents[j].base < e.base + e.size)
                return false;
    }
    return true;
}

enum status pmem_free(struct pmem *p, const struct pmem_extent *extents, uint32_t count)
{
    spin_lock(&p->lock);
    enum status status = ERR_INVALID;
    if (extents_valid(p, extents, count)) {
        status = count <= PMEM_MAX_RANGES - p->count ? STATUS_OK : ERR_NO_MEMORY;
        for (uint32_t i = 0; i < count && status == STATUS_OK; i++)
            status = give(p, extents[i]);
    }
    spin_unlock(&p->lock);
    return status;
}

uint64_t pmem_free_bytes(struct pmem *p)
{
    spin_lock(&p->lock);
    uint64_t n = p->free_bytes;
    spin_unlock(&p->lock);
    return n;
}
