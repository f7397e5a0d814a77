#include "hv/gmem.h"
#include "hv/lib/string.h"

void gmem_init(struct gmem *g, void *(*map)(void *ctx, hpa_t page), void *ctx)
{
    memset(g, 0, sizeof(*g));
    g->map = map;
    g->ctx = ctx;
}

static bool overlaps(const struct gmem_extent *e, uint64_t addr, uint64_t size)
{
    return addr < e->gpa + e->size && e->gpa < addr + size;
}

enum status gmem_add(struct gmem *g, gpa_t addr, hpa_t at, uint64_t size)
{
    if (((addr.v | at.v | size) & PAGE_MASK) || size == 0 || addr.v + size < addr.v || at.v + size < at.v)
        return ERR_INVALID;
    uint32_t i = 0;
    while (i < g->count && g->extents[i].gpa < addr.v)
        i++;
    if ((i < g->count && overlaps(&g->extents[i], addr.v, size)) ||
        (i > 0 && overlaps(&g->extents[i - 1], addr.v, size)))
        return ERR_EXISTS;
    struct gmem_extent *before = i > 0 ? &g->extents[i - 1] : NULL;
    if (before && before->gpa + before->size == addr.v && before->hpa + before->size == at.v) {
        before->size += size;
        return STATUS_OK;
    }
    if (g->count == GMEM_MAX_EXTENTS)
        return ERR_NO_MEMORY;
    memmove(&g->extents[i + 1], &g->extents[i], (g->count - i) * sizeof(g->extents[0]));
    g->extents[i] = (struct gmem_extent){.gpa = addr.v, .hpa = at.v, .size = size};
    g->count++;
    return STATUS_OK;
}

uint64_t gmem_size(const struct gmem *g)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->count; i++)
        sum += g->extents[i].size;
    return sum;
}

/* The extent that holds this address, or NULL. */
static const struct gmem_extent *find(const struct gmem *g, uint64_t addr)
{
    uint32_t low = 0, high = g->count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const struct gmem_extent *e = &g->extents[mid];
        if (addr < e->gpa)
            high = mid;
        else if (addr - e->gpa >= e->size)
            low = mid + 1;
        else
            return e;
    }
    return NULL;
}

enum status gmem_check(const struct gmem *g, gpa_t addr, uint64_t size)
{
    uint64_t at = addr.v;
    while (size) {
        const struct gmem_extent *e = find(g, at);
        if (!e)
            return ERR_RANGE;
        uint64_t here = e->size - (at - e->gpa);
        if (here >= size)
            return STATUS_OK;
        at += here; /* no wrap: gmem_add saw to it that extents end below 2^64 */
        size -= here;
    }
    return STATUS_OK;
}

enum status gmem_translate(const struct gmem *g, gpa_t addr, hpa_t *out, uint64_t *contiguous)
{
    const struct gmem_extent *e = find(g, addr.v);
    if (!e)
        return ERR_RANGE;
    uint64_t offset = addr.v - e->gpa;
    *out = hpa(e->hpa + offset);
    *contiguous = e->size - offset;
    return STATUS_OK;
}

/* Window on the byte at `addr`, which was checked; *size is cut to what the page still holds. */
static uint8_t *window(const struct gmem *g, uint64_t addr, uint64_t *size)
{
    const struct gmem_extent *e = find(g, addr);
    uint64_t at = e->hpa + (addr - e->gpa);
    uint64_t in_page = at & PAGE_MASK;
    if (*size > PAGE_SIZE - in_page)
        *size = PAGE_SIZE - in_page;
    return (uint8_t *)g->map(g->ctx, hpa(at - in_page)) + in_page;
}

enum status gmem_read(const struct gmem *g, gpa_t addr, void *buf, uint64_t size)
{
    if (gmem_check(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    uint8_t *to = buf;
    for (uint64_t at = addr.v, n; size; at += n, to += n, size -= n) {
        n = size;
        const uint8_t *from = window(g, at, &n);
        memcpy(to, from, n);
    }
    return STATUS_OK;
}

enum status gmem_write(const struct gmem *g, gpa_t addr, const void *buf, uint64_t size)
{
    if (gmem_check(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    const uint8_t *from = buf;
    for (uint64_t at = addr.v, n; size; at += n, from += n, size -= n) {
        n = size;
        uint8_t *to = window(g, at, &n);
        memcpy(to, from, n);
    }
    return STATUS_OK;
}

enum status gmem_set(const struct gmem *g, gpa_t addr, uint8_t byte, uint64_t size)
{
    if (gmem_check(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    for (uint64_t at = addr.v, n; size; at += n, size -= n) {
        n = size;
        uint8_t *to = window(g, at, &n);
        memset(to, byte, n);
    }
    return STATUS_OK;
}

enum status gmem_cmpxchg(const struct gmem *g, gpa_t addr, unsigned size, uint64_t expected, uint64_t desired,
                         uint64_t *old)
{
    if ((size != 4 && size != 8) || (addr.v & (size - 1)))
        return ERR_INVALID;
    if (gmem_check(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    uint64_t n = size;
    void *at = window(g, addr.v, &n);
    if (size == 8) {
        uint64_t was = expected;
        __atomic_compare_exchange_n((uint64_t *)at, &was, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        *old = was;
    } else {
        uint32_t was = (uint32_t)expected;
        __atomic_compare_exchange_n((uint32_t *)at, &was, (uint32_t)desired, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
        *old = was;
    }
    return STATUS_OK;
}
