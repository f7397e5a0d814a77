#include "hv/pool.h"
#include "hv/lib/string.h"

static bool page_used(const struct pool *p, uint32_t page)
{
    return p->used[page / 64] >> (page % 64) & 1;
}

static void mark(struct pool *p, uint32_t first, uint32_t count, bool used)
{
    for (uint32_t i = first; i < first + count; i++) {
        uint64_t bit = (uint64_t)1 << (i % 64);
        if (used)
            p->used[i / 64] |= bit;
        else
            p->used[i / 64] &= ~bit;
    }
}

enum status pool_init(struct pool *p, void *base, hpa_t pool_hpa, uint64_t size, uint64_t used_bytes)
{
    memset(p, 0, sizeof(*p));
    if (((uintptr_t)base & PAGE_MASK) || (pool_hpa.v & PAGE_MASK) || (size & PAGE_MASK))
        return ERR_INVALID;
    if (size / PAGE_SIZE > POOL_MAX_PAGES || used_bytes > size)
        return ERR_RANGE;
    p->base = base;
    p->hpa = pool_hpa;
    p->pages = (uint32_t)(size / PAGE_SIZE);
    p->first = (uint32_t)(align_up(used_bytes, PAGE_SIZE) / PAGE_SIZE);
    p->hint = p->first;
    p->free_pages = p->pages - p->first;
    mark(p, 0, p->first, true);
    return STATUS_OK;
}

/* First run of `count` free pages, or p->pages. */
static uint32_t find_run(const struct pool *p, uint32_t count)
{
    uint32_t run = 0;
    for (uint32_t i = p->hint; i < p->pages; i++) {
        run = page_used(p, i) ? 0 : run + 1;
        if (run == count)
            return i + 1 - count;
    }
    return p->pages;
}

void *pool_alloc_pages(struct pool *p, uint32_t count)
{
    if (count == 0)
        return NULL;
    spin_lock(&p->lock);
    uint32_t first = count <= p->free_pages ? find_run(p, count) : p->pages;
    if (first < p->pages) {
        mark(p, first, count, true);
        p->free_pages -= count;
        if (first == p->hint)
            p->hint = first + count;
    }
    spin_unlock(&p->lock);
    if (first == p->pages)
        return NULL;
    /* Outside the lock: the pages are ours already. */
    void *pages = p->base + (uint64_t)first * PAGE_SIZE;
    memset(pages, 0, (uint64_t)count * PAGE_SIZE);
    return pages;
}

void *pool_alloc(struct pool *p)
{
    return pool_alloc_pages(p, 1);
}

/* Clears the bits of pages that are all in use. */
static enum status release(struct pool *p, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++)
        if (!page_used(p, i))
            return ERR_INVALID;
    mark(p, first, count, false);
    p->free_pages += count;
    if (first < p->hint)
        p->hint = first;
    return STATUS_OK;
}

enum status pool_free_pages(struct pool *p, void *pages, uint32_t count)
{
    uint64_t offset = (uintptr_t)pages - (uintptr_t)p->base;
    uint64_t first = offset / PAGE_SIZE;
    if ((offset & PAGE_MASK) || count == 0 || first < p->first || first >= p->pages ||
        count > p->pages - first)
        return ERR_INVALID;
    spin_lock(&p->lock);
    enum status status = release(p, (uint32_t)first, count);
    spin_unlock(&p->lock);
    return status;
}

enum status pool_free(struct pool *p, void *page)
{
    return pool_free_pages(p, page, 1);
}

uint64_t pool_pages_free(struct pool *p)
{
    spin_lock(&p->lock);
    uint64_t n = p->free_pages;
    spin_unlock(&p->lock);
    return n;
}

enum status pool_to_hpa(const struct pool *p, const void *va, hpa_t *out)
{
    uint64_t offset = (uintptr_t)va - (uintptr_t)p->base;
    if (offset >= (uint64_t)p->pages * PAGE_SIZE)
        return ERR_RANGE;
    *out = hpa(p->hpa.v + offset);
    return STATUS_OK;
}

enum status pool_to_va(const struct pool *p, hpa_t addr, void **out)
{
    uint64_t offset = addr.v - p->hpa.v;
    if (offset >= (uint64_t)p->pages * PAGE_SIZE)
        return ERR_RANGE;
    *out = p->base + offset;
    return STATUS_OK;
}

hpa_t pool_hpa(const struct pool *p, const void *va)
{
    hpa_t out = hpa(0);
    (void)pool_to_hpa(p, va, &out);
    return out;
}

void *pool_va(const struct pool *p, hpa_t addr)
{
    void *out = NULL;
    (void)pool_to_va(p, addr, &out);
    return out;
}

static bool env_alloc(void *ctx, hpa_t *page)
{
    void *va = pool_alloc(ctx);
    if (!va)
        return false;
    *page = pool_hpa(ctx, va);
    return true;
}

static void env_free(void *ctx, hpa_t page)
{
    void *va = pool_va(ctx, page);
    if (va)
        (void)pool_free(ctx, va);
}

static uint64_t *env_table(void *ctx, hpa_t page)
{
    return pool_va(ctx, page);
}

void pool_pt_env(struct pool *p, struct pt_env *out)
{
    *out = (struct pt_env){.ctx = p, .alloc = env_alloc, .free = env_free, .table = env_table, .store = NULL};
}
