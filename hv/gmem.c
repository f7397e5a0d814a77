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
    return ranges_overlap(e->gpa, e->size, addr, size);
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

enum status gmem_split(struct gmem *g, gpa_t addr, uint64_t size)
{
    uint32_t i = 0;
    while (i < g->count && addr.v - g->extents[i].gpa >= g->extents[i].size)
        i++;
    if (i == g->count || ((addr.v | size) & PAGE_MASK) || size == 0 ||
        size > g->extents[i].size - (addr.v - g->extents[i].gpa))
        return ERR_RANGE;
    struct gmem_extent *e = &g->extents[i];
    const struct gmem_extent whole = *e;
    uint64_t before = addr.v - whole.gpa, after = whole.size - before - size;
    uint32_t more = (before ? 1u : 0) + (after ? 1u : 0);
    if (more > GMEM_MAX_EXTENTS - g->count)
        return ERR_NO_MEMORY;
    memmove(e + 1 + more, e + 1, (g->count - i - 1) * sizeof(*e));
    g->count += more;
    if (before)
        *e++ = (struct gmem_extent){.gpa = whole.gpa, .hpa = whole.hpa, .size = before};
    *e++ = (struct gmem_extent){.gpa = addr.v, .hpa = whole.hpa + before, .size = size};
    if (after)
        *e = (struct gmem_extent){.gpa = addr.v + size, .hpa = whole.hpa + before + size, .size = after};
    return STATUS_OK;
}

void gmem_show(struct gmem *g, gpa_t addr, hpa_t at, enum gmem_access access)
{
    for (uint32_t i = 0; i < g->count; i++)
        if (g->extents[i].gpa == addr.v)
            __atomic_store_n(&g->extents[i].hpa, at.v | access, __ATOMIC_RELAXED);
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

static uint64_t shown(const struct gmem_extent *e)
{
    return __atomic_load_n(&e->hpa, __ATOMIC_RELAXED);
}

/* Nothing in [addr, addr+size) has one of the bits `without` in its access. */
static enum status check(const struct gmem *g, uint64_t at, uint64_t size, uint64_t without)
{
    while (size) {
        const struct gmem_extent *e = find(g, at);
        if (!e || (shown(e) & without))
            return ERR_RANGE;
        uint64_t here = e->size - (at - e->gpa);
        if (here >= size)
            return STATUS_OK;
        at += here; /* no wrap: gmem_add saw to it that extents end below 2^64 */
        size -= here;
    }
    return STATUS_OK;
}

enum status gmem_check(const struct gmem *g, gpa_t addr, uint64_t size)
{
    return check(g, addr.v, size, GMEM_NOTHING);
}

enum status gmem_check_write(const struct gmem *g, gpa_t addr, uint64_t size)
{
    return check(g, addr.v, size, GMEM_NOTHING | GMEM_ROM);
}

enum status gmem_translate(const struct gmem *g, gpa_t addr, hpa_t *out, uint64_t *contiguous)
{
    const struct gmem_extent *e = find(g, addr.v);
    if (!e || (shown(e) & GMEM_NOTHING))
        return ERR_RANGE;
    uint64_t offset = addr.v - e->gpa;
    *out = hpa((shown(e) & ~(uint64_t)PAGE_MASK) + offset);
    *contiguous = e->size - offset;
    return STATUS_OK;
}

/* Window on the byte at `addr`, which was checked; *size is cut to what the page still holds. NULL: meanwhile
 * the memory has been taken away, or cannot be written any more. */
static uint8_t *window(const struct gmem *g, uint64_t addr, uint64_t *size, uint64_t without)
{
    const struct gmem_extent *e = find(g, addr);
    if (!e)
        return NULL;
    uint64_t now = shown(e);
    uint64_t at = (now & ~(uint64_t)PAGE_MASK) + (addr - e->gpa);
    uint64_t in_page = at & PAGE_MASK;
    if (*size > PAGE_SIZE - in_page)
        *size = PAGE_SIZE - in_page;
    if (now & without)
        return NULL;
    return (uint8_t *)g->map(g->ctx, hpa(at - in_page)) + in_page;
}

static uint8_t *read_window(const struct gmem *g, uint64_t addr, uint64_t *size)
{
    return window(g, addr, size, GMEM_NOTHING);
}

static uint8_t *write_window(const struct gmem *g, uint64_t addr, uint64_t *size)
{
    return window(g, addr, size, GMEM_NOTHING | GMEM_ROM);
}

enum status gmem_read(const struct gmem *g, gpa_t addr, void *buf, uint64_t size)
{
    if (gmem_check(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    uint8_t *to = buf;
    for (uint64_t at = addr.v, n; size; at += n, to += n, size -= n) {
        n = size;
        const uint8_t *from = read_window(g, at, &n);
        if (!from)
            return ERR_RANGE;
        memcpy(to, from, n);
    }
    return STATUS_OK;
}

enum status gmem_write(const struct gmem *g, gpa_t addr, const void *buf, uint64_t size)
{
    if (gmem_check_write(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    const uint8_t *from = buf;
    for (uint64_t at = addr.v, n; size; at += n, from += n, size -= n) {
        n = size;
        uint8_t *to = write_window(g, at, &n);
        if (!to)
            return ERR_RANGE;
        memcpy(to, from, n);
    }
    return STATUS_OK;
}

enum status gmem_set(const struct gmem *g, gpa_t addr, uint8_t byte, uint64_t size)
{
    if (gmem_check_write(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    for (uint64_t at = addr.v, n; size; at += n, size -= n) {
        n = size;
        uint8_t *to = write_window(g, at, &n);
        if (!to)
            return ERR_RANGE;
        memset(to, byte, n);
    }
    return STATUS_OK;
}

enum status gmem_cmpxchg(const struct gmem *g, gpa_t addr, unsigned size, uint64_t expected, uint64_t desired,
                         uint64_t *old)
{
    if ((size != 4 && size != 8) || (addr.v & (size - 1)))
        return ERR_INVALID;
    if (gmem_check_write(g, addr, size) != STATUS_OK)
        return ERR_RANGE;
    uint64_t n = size;
    void *at = write_window(g, addr.v, &n);
    if (!at)
        return ERR_RANGE;
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
