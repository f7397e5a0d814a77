/* EPT. Every operation has two passes over the same range: the first checks it and counts the tables that it
 * will need, which are then taken from the allocator at once; the second changes entries and cannot fail.
 *
 * A CPU may walk the tables at any time. Each store replaces one entry by a valid one, and a table is linked
 * only when it is complete: empty for a hole, or with the same translations as the large page it replaces.
 * Tables that have become empty stay linked until ept_destroy(), because a CPU may still hold them in its
 * paging-structure caches. */
#include "arch/x86/ept.h"

#include "arch/x86/vmx/vmcs.h"
#include "hv/lib/bits.h"

#define EPT_LEVELS    4u
#define EPT_ENTRIES   512u
#define EPT_GPA_LIMIT BIT(48) /* what four levels translate */
#define EPT_HPA_LIMIT BIT(52) /* what an entry can hold */

/* Entry format, SDM tables 29-1 to 29-7. */
#define ENTRY_ACCESS     ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXEC))
#define ENTRY_TYPE_SHIFT 3
#define ENTRY_TYPE       ((uint64_t)7 << ENTRY_TYPE_SHIFT)
#define ENTRY_LARGE      BIT(7)
#define ENTRY_MAY_EXEC                                                                                       \
    BIT(52) /* ignored by the processor: EPT_EXEC that a large page does not show (nx_large) */
#define ENTRY_ADDRESS ((EPT_HPA_LIMIT - 1) & ~PAGE_MASK)

/* What is to happen to [ga, end). */
struct request {
    uint64_t ga, end;
    uint64_t ha;   /* map: host address of ga */
    uint64_t leaf; /* map: access and type bits of the new leaves; protect: access bits; unmap: 0 */
    bool holes_ok; /* unmap */
};

/* Zeroed pages taken from the allocator but not in use yet, chained through their first word. */
struct reserve {
    hpa_t head;
    uint64_t count;
};

static uint64_t span_of(unsigned level)
{
    return BIT(PAGE_SHIFT + 9 * (level - 1));
}

static unsigned index_of(uint64_t ga, unsigned level)
{
    return (unsigned)(ga >> (PAGE_SHIFT + 9 * (level - 1))) % EPT_ENTRIES;
}

static bool is_present(uint64_t entry)
{
    return entry & ENTRY_ACCESS;
}

static bool is_leaf(uint64_t entry, unsigned level)
{
    return level == 1 || (entry & ENTRY_LARGE);
}

/* The permissions of a leaf as they are stored. */
static uint64_t shown(const struct ept *ept, unsigned level, uint64_t leaf)
{
    bool hide = ept->nx_large && level > 1 && (leaf & EPT_EXEC);
    return hide ? (leaf & ~(uint64_t)EPT_EXEC) | ENTRY_MAY_EXEC : leaf;
}

/* And as they were given. */
static unsigned given(uint64_t entry)
{
    return (unsigned)(entry & ENTRY_ACCESS) | (entry & ENTRY_MAY_EXEC ? EPT_EXEC : 0u);
}

static uint64_t *table_at(const struct ept *ept, uint64_t entry)
{
    return ept->env->table(ept->env->ctx, hpa(entry & ENTRY_ADDRESS));
}

static void store(struct ept *ept, uint64_t *entry, uint64_t value)
{
    if (ept->env->store)
        ept->env->store(ept->env->ctx, entry, value);
    else
        *(volatile uint64_t *)entry = value; /* one 64-bit store, never split or merged */
}

/* Where the part of a range that one entry covers ends. */
static uint64_t step_end(uint64_t ga, uint64_t end, unsigned level)
{
    uint64_t next = align_down(ga, span_of(level)) + span_of(level);
    return next < end ? next : end;
}

static uint64_t reserve_take(struct ept *ept, struct reserve *reserve)
{
    hpa_t page = reserve->head;
    uint64_t *words = ept->env->table(ept->env->ctx, page);
    reserve->head = hpa(words[0]);
    reserve->count--;
    words[0] = 0;
    ept->table_pages++;
    return page.v;
}

static void reserve_release(struct ept *ept, struct reserve *reserve)
{
    while (reserve->count) {
        hpa_t page = reserve->head;
        reserve->head = hpa(*ept->env->table(ept->env->ctx, page));
        reserve->count--;
        ept->env->free(ept->env->ctx, page);
    }
}

static enum status reserve_fill(struct ept *ept, struct reserve *reserve, uint64_t wanted)
{
    *reserve = (struct reserve){0};
    while (reserve->count < wanted) {
        hpa_t page;
        if (!ept->env->alloc(ept->env->ctx, &page)) {
            reserve_release(ept, reserve);
            return ERR_NO_MEMORY;
        }
        *ept->env->table(ept->env->ctx, page) = reserve->head.v;
        reserve->head = page;
        reserve->count++;
    }
    return STATUS_OK;
}

/* May the piece [ga, end), which lies within one entry of this level, be mapped by one leaf there? */
static bool leaf_fits(const struct ept *ept, unsigned level, uint64_t ga, uint64_t end, uint64_t ha)
{
    if (level > 1 && !(level == 2 && ept->has_2m) && !(level == 3 && ept->has_1g))
        return false;
    return !((ga | ha) & (span_of(level) - 1)) && end - ga == span_of(level);
}

/* First pass of ept_map(). table NULL: the part below a hole, which has no tables yet. */
static enum status map_count(const struct ept *ept, const uint64_t *table, unsigned level,
                             const struct request *request, uint64_t *count)
{
    uint64_t next;
    for (uint64_t ga = request->ga; ga < request->end; ga = next) {
        next = step_end(ga, request->end, level);
        struct request below = {.ga = ga, .end = next, .ha = request->ha + (ga - request->ga)};
        uint64_t entry = table ? table[index_of(ga, level)] : 0;
        const uint64_t *lower = NULL;
        if (is_present(entry)) {
            if (is_leaf(entry, level))
                return ERR_EXISTS;
            lower = table_at(ept, entry);
        } else {
            if (leaf_fits(ept, level, ga, next, below.ha))
                continue;
            ++*count;
            if (level == 2)
                continue; /* a new lowest table needs none below it */
        }
        enum status status = map_count(ept, lower, level - 1, &below, count);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static void map_commit(struct ept *ept, uint64_t *table, unsigned level, const struct request *request,
                       struct reserve *reserve)
{
    uint64_t next;
    for (uint64_t ga = request->ga; ga < request->end; ga = next) {
        next = step_end(ga, request->end, level);
        struct request below = {
            .ga = ga, .end = next, .ha = request->ha + (ga - request->ga), .leaf = request->leaf};
        uint64_t *entry = &table[index_of(ga, level)];
        if (!is_present(*entry)) {
            if (leaf_fits(ept, level, ga, next, below.ha)) {
                store(ept, entry,
                      below.ha | shown(ept, level, request->leaf) | (level > 1 ? ENTRY_LARGE : 0));
                continue;
            }
            store(ept, entry, reserve_take(ept, reserve) | ENTRY_ACCESS);
        }
        map_commit(ept, table_at(ept, *entry), level - 1, &below, reserve);
    }
}

/* Entry i of the table that can replace a large page of this level. */
static uint64_t split_entry(uint64_t leaf, unsigned level, unsigned i)
{
    uint64_t entry = leaf + i * span_of(level - 1);
    return level == 2 ? (entry & ~(ENTRY_LARGE | ENTRY_MAY_EXEC)) | given(entry) : entry;
}

/* First pass of ept_unmap() and ept_protect(). table NULL: the part below a large page that will be split. */
static enum status change_count(const struct ept *ept, const uint64_t *table, unsigned level,
                                const struct request *request, uint64_t *count)
{
    uint64_t next;
    for (uint64_t ga = request->ga; ga < request->end; ga = next) {
        next = step_end(ga, request->end, level);
        struct request below = {.ga = ga, .end = next, .holes_ok = request->holes_ok};
        const uint64_t *lower = NULL;
        bool leaf = true;
        if (table) {
            uint64_t entry = table[index_of(ga, level)];
            if (!is_present(entry)) {
                if (!request->holes_ok)
                    return ERR_NOT_FOUND;
                continue;
            }
            leaf = is_leaf(entry, level);
            if (!leaf)
                lower = table_at(ept, entry);
        }
        if (leaf) {
            if (next - ga == span_of(level))
                continue;
            ++*count;
        }
        enum status status = change_count(ept, lower, level - 1, &below, count);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* Replaces a large page by a table with the same translations. */
static void split(struct ept *ept, uint64_t *entry, unsigned level, struct reserve *reserve)
{
    uint64_t page = reserve_take(ept, reserve);
    uint64_t *table = table_at(ept, page);
    for (unsigned i = 0; i < EPT_ENTRIES; i++)
        store(ept, &table[i], split_entry(*entry, level, i));
    store(ept, entry, page | ENTRY_ACCESS);
}

static void change_commit(struct ept *ept, uint64_t *table, unsigned level, const struct request *request,
                          struct reserve *reserve)
{
    uint64_t next;
    for (uint64_t ga = request->ga; ga < request->end; ga = next) {
        next = step_end(ga, request->end, level);
        struct request below = {.ga = ga, .end = next, .leaf = request->leaf};
        uint64_t *entry = &table[index_of(ga, level)];
        if (!is_present(*entry))
            continue;
        if (is_leaf(*entry, level)) {
            if (next - ga == span_of(level)) {
                uint64_t kept = *entry & ~(ENTRY_ACCESS | ENTRY_MAY_EXEC);
                store(ept, entry, request->leaf ? kept | shown(ept, level, request->leaf) : 0);
                continue;
            }
            split(ept, entry, level, reserve);
        }
        change_commit(ept, table_at(ept, *entry), level - 1, &below, reserve);
    }
}

static enum status check_range(uint64_t start, uint64_t size, uint64_t limit)
{
    if (((start | size) & PAGE_MASK) || !size)
        return ERR_INVALID;
    return start >= limit || size > limit - start ? ERR_RANGE : STATUS_OK;
}

/* Readable, and nothing else set: write without read is a misconfiguration, execute-only an option of the
 * processor that nobody here needs (SDM 29.3.3.1). */
static bool access_valid(unsigned flags)
{
    return (flags & EPT_READ) && !(flags & ~ENTRY_ACCESS);
}

static bool type_valid(enum ept_memory_type type)
{
    return type == EPT_UC || type == EPT_WC || type == EPT_WT || type == EPT_WP || type == EPT_WB;
}

enum status ept_init(struct ept *ept, const struct pt_env *env, bool has_2m, bool has_1g)
{
    hpa_t root;
    if (!env->alloc(env->ctx, &root))
        return ERR_NO_MEMORY;
    /* A 1 GiB page is split into 2 MiB pages, so the one is of no use without the other. */
    *ept = (struct ept){
        .env = env, .root = root, .has_2m = has_2m, .has_1g = has_2m && has_1g, .table_pages = 1};
    return STATUS_OK;
}

static void destroy_table(struct ept *ept, hpa_t page, unsigned level)
{
    const uint64_t *table = table_at(ept, page.v);
    for (unsigned i = 0; level > 1 && i < EPT_ENTRIES; i++) {
        if (is_present(table[i]) && !is_leaf(table[i], level))
            destroy_table(ept, hpa(table[i] & ENTRY_ADDRESS), level - 1);
    }
    ept->env->free(ept->env->ctx, page);
    ept->table_pages--;
}

void ept_destroy(struct ept *ept)
{
    destroy_table(ept, ept->root, EPT_LEVELS);
}

enum status ept_map(struct ept *ept, gpa_t ga, hpa_t ha, uint64_t size, unsigned flags,
                    enum ept_memory_type type)
{
    enum status status = check_range(ga.v, size, EPT_GPA_LIMIT);
    if (status == STATUS_OK)
        status = check_range(ha.v, size, EPT_HPA_LIMIT);
    if (status != STATUS_OK)
        return status;
    if (!access_valid(flags) || !type_valid(type))
        return ERR_INVALID;

    struct request request = {
        .ga = ga.v, .end = ga.v + size, .ha = ha.v, .leaf = flags | (uint64_t)type << ENTRY_TYPE_SHIFT};
    uint64_t count = 0;
    struct reserve reserve;
    uint64_t *root = table_at(ept, ept->root.v);
    status = map_count(ept, root, EPT_LEVELS, &request, &count);
    if (status == STATUS_OK)
        status = reserve_fill(ept, &reserve, count);
    if (status == STATUS_OK)
        map_commit(ept, root, EPT_LEVELS, &request, &reserve);
    return status;
}

static enum status change(struct ept *ept, const struct request *request)
{
    uint64_t count = 0;
    struct reserve reserve;
    uint64_t *root = table_at(ept, ept->root.v);
    enum status status = change_count(ept, root, EPT_LEVELS, request, &count);
    if (status == STATUS_OK)
        status = reserve_fill(ept, &reserve, count);
    if (status == STATUS_OK)
        change_commit(ept, root, EPT_LEVELS, request, &reserve);
    return status;
}

enum status ept_unmap(struct ept *ept, gpa_t ga, uint64_t size)
{
    enum status status = check_range(ga.v, size, EPT_GPA_LIMIT);
    if (status != STATUS_OK)
        return status;
    return change(ept, &(struct request){.ga = ga.v, .end = ga.v + size, .holes_ok = true});
}

enum status ept_protect(struct ept *ept, gpa_t ga, uint64_t size, unsigned flags)
{
    enum status status = check_range(ga.v, size, EPT_GPA_LIMIT);
    if (status != STATUS_OK)
        return status;
    if (!access_valid(flags))
        return ERR_INVALID;
    return change(ept, &(struct request){.ga = ga.v, .end = ga.v + size, .leaf = flags});
}

/* The leaf that translates `ga`, and its level; 0: a hole. */
static uint64_t find_leaf(const struct ept *ept, gpa_t ga, unsigned *level)
{
    *level = EPT_LEVELS;
    if (ga.v >= EPT_GPA_LIMIT)
        return 0;
    uint64_t entry = table_at(ept, ept->root.v)[index_of(ga.v, *level)];
    while (is_present(entry) && !is_leaf(entry, *level)) {
        --*level;
        entry = table_at(ept, entry)[index_of(ga.v, *level)];
    }
    return is_present(entry) ? entry : 0;
}

enum status ept_allow_exec(struct ept *ept, gpa_t ga)
{
    unsigned level;
    uint64_t entry = find_leaf(ept, ga, &level);
    if (entry & EPT_EXEC)
        return STATUS_OK;
    if (!(entry & ENTRY_MAY_EXEC))
        return ERR_NOT_FOUND;
    /* The permissions that it has already: what changes is that the pages around it become small. */
    return ept_protect(ept, gpa(align_down(ga.v, PAGE_SIZE)), PAGE_SIZE, given(entry));
}

enum status ept_lookup(const struct ept *ept, gpa_t ga, hpa_t *ha, uint64_t *page_size, unsigned *flags,
                       enum ept_memory_type *type)
{
    unsigned level;
    uint64_t entry = find_leaf(ept, ga, &level);
    if (!entry)
        return ERR_NOT_FOUND;
    *ha = hpa((entry & ENTRY_ADDRESS & ~(span_of(level) - 1)) | (ga.v & (span_of(level) - 1)));
    *page_size = span_of(level);
    *flags = given(entry);
    *type = (enum ept_memory_type)((entry & ENTRY_TYPE) >> ENTRY_TYPE_SHIFT);
    return STATUS_OK;
}

uint64_t ept_pointer(const struct ept *ept)
{
    return ept->root.v | EPTP_WALK_4 | EPT_WB;
}
