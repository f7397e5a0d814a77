/* A domain's translation tables (VT-d specification 4.1, 3.7 and 9.8). As with EPT, each operation has two
 * passes over the same range: the first checks, and counts the tables that will be needed, which are then
 * taken at once; the second cannot fail.
 *
 * The hardware may walk the tables at any time: a table is linked when it is complete (empty for a hole, or
 * with the translations of the large page it replaces) and, for units that do not look into the CPU's caches,
 * written back. Tables that have become empty stay linked until the domain ends. */
#include "drivers/iommu/vtd.h"

#define HPA_LIMIT BIT(52)

/* What is to happen to [iova, end). */
struct request {
    uint64_t iova, end;
    uint64_t at;   /* map: where iova goes */
    uint64_t leaf; /* map: access bits; unmap: 0 */
};

/* Zeroed pages taken from the allocator but not in use yet, chained through their first word. */
struct reserve {
    hpa_t head;
    uint64_t count;
};

static unsigned shift_of(unsigned level)
{
    return PAGE_SHIFT + 9 * (level - 1);
}

static uint64_t span_of(unsigned level)
{
    return BIT(shift_of(level));
}

static unsigned index_of(uint64_t iova, unsigned level)
{
    return (unsigned)(iova >> shift_of(level)) % VTD_ENTRIES;
}

static bool is_leaf(uint64_t entry, unsigned level)
{
    return level == 1 || (entry & VTD_PTE_LARGE);
}

static const struct pt_env *pages_of(const struct iommu_domain *d)
{
    return d->iommu->env->pages;
}

static uint64_t *table_at(const struct iommu_domain *d, uint64_t entry)
{
    return pages_of(d)->table(pages_of(d)->ctx, hpa(entry & VTD_ADDRESS));
}

static void write_back(const struct iommu_domain *d, const void *at, size_t size)
{
    if (!d->iommu->coherent)
        d->iommu->env->write_back(d->iommu->env->ctx, at, size);
}

/* Where the part of a range that one entry covers ends. */
static uint64_t step_end(uint64_t iova, uint64_t end, unsigned level)
{
    uint64_t next = align_down(iova, span_of(level)) + span_of(level);
    return next < end ? next : end;
}

static hpa_t reserve_take(struct iommu_domain *d, struct reserve *reserve)
{
    hpa_t page = reserve->head;
    uint64_t *words = table_at(d, page.v);
    reserve->head = hpa(words[0]);
    reserve->count--;
    words[0] = 0;
    d->table_pages++;
    return page;
}

static enum status reserve_fill(const struct iommu_domain *d, struct reserve *reserve, uint64_t wanted)
{
    const struct pt_env *pages = pages_of(d);
    *reserve = (struct reserve){0};
    while (reserve->count < wanted) {
        hpa_t page;
        if (!pages->alloc(pages->ctx, &page)) {
            for (; reserve->count; reserve->count--) {
                page = reserve->head;
                reserve->head = hpa(*table_at(d, page.v));
                pages->free(pages->ctx, page);
            }
            return ERR_NO_MEMORY;
        }
        *table_at(d, page.v) = reserve->head.v;
        reserve->head = page;
        reserve->count++;
    }
    return STATUS_OK;
}

/* How many entries from iova's on, in one table of this level, can each be one leaf of `request`. */
static unsigned leaf_run(const struct iommu_domain *d, unsigned level, uint64_t iova, uint64_t end,
                         uint64_t at)
{
    if (level > 1 && !(level == 2 && d->iommu->has_2m) && !(level == 3 && d->iommu->has_1g))
        return 0;
    if ((iova | at) & (span_of(level) - 1))
        return 0;
    uint64_t whole = (end - iova) >> shift_of(level);
    unsigned room = VTD_ENTRIES - index_of(iova, level);
    return whole < room ? (unsigned)whole : room;
}

/* How many of them are free. */
static unsigned free_run(const uint64_t *entry, unsigned run)
{
    unsigned i = 0;
    while (i < run && !entry[i])
        i++;
    return i;
}

/* First pass of mapping. table NULL: the part below a hole, which has no tables yet. */
static enum status map_count(const struct iommu_domain *d, const uint64_t *table, unsigned level,
                             const struct request *r, uint64_t *count)
{
    for (uint64_t iova = r->iova, next; iova < r->end; iova = next) {
        uint64_t at = r->at + (iova - r->iova);
        unsigned run = leaf_run(d, level, iova, r->end, at);
        const uint64_t *entry = table ? &table[index_of(iova, level)] : NULL;
        if (entry)
            run = free_run(entry, run);
        next = iova + ((uint64_t)run << shift_of(level));
        if (run)
            continue;
        next = step_end(iova, r->end, level);
        const uint64_t *lower = NULL;
        if (entry && *entry) {
            if (is_leaf(*entry, level))
                return ERR_EXISTS;
            lower = table_at(d, *entry);
        } else {
            ++*count;
        }
        struct request below = {.iova = iova, .end = next, .at = at};
        enum status status = map_count(d, lower, level - 1, &below, count);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* A gigabyte may be 512 of these, and a page of small ones: kept short. */
static void fill(const struct iommu_domain *d, uint64_t *entry, unsigned count, uint64_t value, uint64_t step)
{
    const struct pt_env *pages = pages_of(d);
    if (!pages->store) {
        volatile uint64_t *at = entry, *end = entry + count;
        for (; at < end; value += step)
            *at++ = value; /* one 64-bit store each, never split or merged */
    } else {
        for (unsigned i = 0; i < count; i++)
            pages->store(pages->ctx, &entry[i], value + i * step);
    }
    write_back(d, entry, count * sizeof(*entry));
}

/* Puts an empty table, or one with the translations of the leaf there, in place of an entry. */
static void link_table(struct iommu_domain *d, uint64_t *entry, unsigned level, struct reserve *reserve)
{
    hpa_t page = reserve_take(d, reserve);
    uint64_t *table = table_at(d, page.v);
    if (*entry) {
        uint64_t first = level == 2 ? *entry & ~VTD_PTE_LARGE : *entry;
        for (unsigned i = 0; i < VTD_ENTRIES; i++)
            table[i] = first + i * span_of(level - 1);
    }
    write_back(d, table, PAGE_SIZE);
    fill(d, entry, 1, page.v | VTD_PTE_ACCESS, 0);
}

static void map_commit(struct iommu_domain *d, uint64_t *table, unsigned level, const struct request *r,
                       struct reserve *reserve)
{
    for (uint64_t iova = r->iova, next; iova < r->end; iova = next) {
        uint64_t at = r->at + (iova - r->iova);
        uint64_t *entry = &table[index_of(iova, level)];
        unsigned run = free_run(entry, leaf_run(d, level, iova, r->end, at));
        if (run) {
            fill(d, entry, run, at | r->leaf | (level > 1 ? VTD_PTE_LARGE : 0), span_of(level));
            next = iova + ((uint64_t)run << shift_of(level));
            continue;
        }
        next = step_end(iova, r->end, level);
        if (!*entry)
            link_table(d, entry, level, reserve);
        struct request below = {.iova = iova, .end = next, .at = at, .leaf = r->leaf};
        map_commit(d, table_at(d, *entry), level - 1, &below, reserve);
    }
}

/* First pass of unmapping: tables for the large pages at the ends. table NULL: below such a page. */
static void unmap_count(const struct iommu_domain *d, const uint64_t *table, unsigned level,
                        const struct request *r, uint64_t *count)
{
    for (uint64_t iova = r->iova, next; iova < r->end; iova = next) {
        next = step_end(iova, r->end, level);
        struct request below = {.iova = iova, .end = next};
        uint64_t entry = table ? table[index_of(iova, level)] : VTD_PTE_LARGE;
        if (!entry)
            continue;
        if (!is_leaf(entry, level)) {
            unmap_count(d, table_at(d, entry), level - 1, &below, count);
        } else if (next - iova != span_of(level)) {
            ++*count;
            unmap_count(d, NULL, level - 1, &below, count);
        }
    }
}

static void unmap_commit(struct iommu_domain *d, uint64_t *table, unsigned level, const struct request *r,
                         struct reserve *reserve)
{
    for (uint64_t iova = r->iova, next; iova < r->end; iova = next) {
        next = step_end(iova, r->end, level);
        struct request below = {.iova = iova, .end = next};
        uint64_t *entry = &table[index_of(iova, level)];
        if (!*entry)
            continue;
        if (is_leaf(*entry, level)) {
            if (next - iova == span_of(level)) {
                fill(d, entry, 1, 0, 0);
                continue;
            }
            link_table(d, entry, level, reserve);
        }
        unmap_commit(d, table_at(d, *entry), level - 1, &below, reserve);
    }
}

/* Whole pages in the domain's width and out of the way of interrupt messages. */
static enum status check_range(uint64_t start, uint64_t size, uint64_t limit)
{
    if (((start | size) & PAGE_MASK) || !size)
        return ERR_INVALID;
    if (start >= limit || size > limit - start)
        return ERR_RANGE;
    return STATUS_OK;
}

static bool touches_messages(uint64_t start, uint64_t size)
{
    return start < IOMMU_MSI_BASE + IOMMU_MSI_SIZE && start + size > IOMMU_MSI_BASE;
}

enum status vtd_tables_create(struct iommu_domain *d)
{
    const struct pt_env *pages = pages_of(d);
    if (!pages->alloc(pages->ctx, &d->root))
        return ERR_NO_MEMORY;
    write_back(d, table_at(d, d->root.v), PAGE_SIZE);
    d->table_pages = 1;
    return STATUS_OK;
}

static void destroy_table(struct iommu_domain *d, hpa_t page, unsigned level)
{
    const uint64_t *table = table_at(d, page.v);
    for (unsigned i = 0; level > 1 && i < VTD_ENTRIES; i++)
        if (table[i] && !is_leaf(table[i], level))
            destroy_table(d, hpa(table[i] & VTD_ADDRESS), level - 1);
    pages_of(d)->free(pages_of(d)->ctx, page);
    d->table_pages--;
}

void vtd_tables_destroy(struct iommu_domain *d)
{
    destroy_table(d, d->root, d->levels);
}

enum status vtd_tables_map(struct iommu_domain *d, uint64_t iova, uint64_t at, uint64_t size, unsigned flags)
{
    enum status status = check_range(iova, size, BIT(d->iommu->width));
    if (status == STATUS_OK)
        status = check_range(at, size, HPA_LIMIT);
    if (status != STATUS_OK)
        return status;
    if (touches_messages(iova, size) || touches_messages(at, size))
        return ERR_RANGE;
    if (!(flags & IOMMU_READ) || (flags & ~(unsigned)(IOMMU_READ | IOMMU_WRITE)))
        return ERR_INVALID;
    struct request r = {.iova = iova,
                        .end = iova + size,
                        .at = at,
                        .leaf = VTD_PTE_READ | (flags & IOMMU_WRITE ? VTD_PTE_WRITE : 0)};
    uint64_t count = 0;
    struct reserve reserve;
    uint64_t *root = table_at(d, d->root.v);
    status = map_count(d, root, d->levels, &r, &count);
    if (status == STATUS_OK)
        status = reserve_fill(d, &reserve, count);
    if (status == STATUS_OK)
        map_commit(d, root, d->levels, &r, &reserve);
    return status;
}

enum status vtd_tables_unmap(struct iommu_domain *d, uint64_t iova, uint64_t size)
{
    enum status status = check_range(iova, size, BIT(d->iommu->width));
    if (status != STATUS_OK)
        return status;
    struct request r = {.iova = iova, .end = iova + size};
    uint64_t count = 0;
    struct reserve reserve;
    uint64_t *root = table_at(d, d->root.v);
    unmap_count(d, root, d->levels, &r, &count);
    status = reserve_fill(d, &reserve, count);
    if (status == STATUS_OK)
        unmap_commit(d, root, d->levels, &r, &reserve);
    return status;
}

enum status vtd_tables_lookup(const struct iommu_domain *d, uint64_t iova, hpa_t *at, unsigned *flags)
{
    if (iova >= BIT(d->iommu->width))
        return ERR_NOT_FOUND;
    unsigned level = d->levels;
    uint64_t entry = table_at(d, d->root.v)[index_of(iova, level)];
    while (entry && !is_leaf(entry, level)) {
        level--;
        entry = table_at(d, entry)[index_of(iova, level)];
    }
    if (!entry)
        return ERR_NOT_FOUND;
    uint64_t offset = span_of(level) - 1;
    *at = hpa((entry & VTD_ADDRESS & ~offset) | (iova & offset));
    *flags = (entry & VTD_PTE_READ ? IOMMU_READ : 0u) | (entry & VTD_PTE_WRITE ? IOMMU_WRITE : 0u);
    return STATUS_OK;
}
