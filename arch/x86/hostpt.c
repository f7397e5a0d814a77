#include "arch/x86/hostpt.h"
#include "arch/x86/cpu.h"
#include "hv/lib/bits.h"

/* SDM volume 3, tables "Format of a Page-Table Entry that Maps a 4-KByte Page" and its siblings. */
#define PTE_PRESENT    BIT(0)
#define PTE_WRITE      BIT(1)
#define PTE_PWT        BIT(3)
#define PTE_PCD        BIT(4)
#define PTE_ACCESSED   BIT(5)
#define PTE_DIRTY      BIT(6)
#define PTE_LARGE      BIT(7) /* in a page-directory entry: maps 2 MiB */
#define PTE_PAT_4K     BIT(7)
#define PTE_GLOBAL     BIT(8)
#define PTE_PAT_LARGE  BIT(12)
#define PTE_NX         BIT(63)
#define PTE_ADDRESS    0x000ffffffffff000ull
#define PTE_ADDRESS_2M 0x000fffffffe00000ull

#define PHYS_LIMIT BIT(52)
#define LEVEL_PT   1u
#define LEVEL_PD   2u
#define LEVEL_ROOT 4u

static unsigned level_shift(unsigned level)
{
    return PAGE_SHIFT + 9 * (level - 1);
}

static uint64_t level_size(unsigned level)
{
    return (uint64_t)1 << level_shift(level);
}

static void store(const struct pt_env *env, uint64_t *entry, uint64_t value)
{
    if (env->store)
        env->store(env->ctx, entry, value);
    else
        *(volatile uint64_t *)entry = value;
}

static bool is_leaf(uint64_t entry, unsigned level)
{
    return (entry & PTE_PRESENT) && (level == LEVEL_PT || (entry & PTE_LARGE));
}

static uint64_t leaf_value(uint64_t pa, unsigned flags, unsigned level)
{
    /* Accessed and dirty are set beforehand: nobody reads them, and the CPU need not write them. */
    uint64_t v = pa | PTE_PRESENT | PTE_ACCESSED | PTE_DIRTY | PTE_GLOBAL;

    if (flags & HOSTPT_WRITE)
        v |= PTE_WRITE;
    if (!(flags & HOSTPT_EXEC))
        v |= PTE_NX;
    if (flags & HOSTPT_UNCACHED)
        v |= PTE_PCD | PTE_PWT;
    if (level == LEVEL_PD)
        v |= PTE_LARGE;
    if (flags & HOSTPT_WC)
        v |= level == LEVEL_PD ? PTE_PAT_LARGE : PTE_PAT_4K;
    return v;
}

uint64_t hostpt_leaf_value(hpa_t pa, unsigned flags)
{
    return leaf_value(pa.v, flags, LEVEL_PT);
}

static unsigned leaf_flags(uint64_t entry, unsigned level)
{
    uint64_t pat = level == LEVEL_PD ? PTE_PAT_LARGE : PTE_PAT_4K;
    unsigned flags = 0;

    if (entry & PTE_WRITE)
        flags |= HOSTPT_WRITE;
    if (!(entry & PTE_NX))
        flags |= HOSTPT_EXEC;
    if ((entry & (PTE_PCD | PTE_PWT)) == (PTE_PCD | PTE_PWT))
        flags |= HOSTPT_UNCACHED;
    if (entry & pat)
        flags |= HOSTPT_WC;
    return flags;
}

/* A non-empty, page-aligned range that stays within one canonical half. */
static enum status check_range(uint64_t va, uint64_t size)
{
    if (!size || ((va | size) & PAGE_MASK))
        return ERR_INVALID;
    uint64_t last = va + (size - 1);
    if (last < va || !cpu_is_canonical(va) || !cpu_is_canonical(last) || (va ^ last) >> 63)
        return ERR_RANGE;
    return STATUS_OK;
}

/* Walks down to the entry that decides about va: a leaf, an absent entry, or any entry at `stop`. */
static uint64_t *walk(const struct pt_env *env, hpa_t root, uint64_t va, unsigned stop, unsigned *level)
{
    hpa_t page = root;

    for (unsigned l = LEVEL_ROOT;; l--) {
        uint64_t *entry = &env->table(env->ctx, page)[(va >> level_shift(l)) & 511];
        if (l == stop || !(*entry & PTE_PRESENT) || is_leaf(*entry, l)) {
            *level = l;
            return entry;
        }
        page = hpa(*entry & PTE_ADDRESS);
    }
}

/* As walk, but makes the tables down to `stop`. ERR_EXISTS: a large page is in the way. */
static enum status make_tables(const struct pt_env *env, hpa_t root, uint64_t va, unsigned stop,
                               uint64_t **out)
{
    for (;;) {
        unsigned level;
        uint64_t *entry = walk(env, root, va, stop, &level);
        if (level == stop) {
            *out = entry;
            return STATUS_OK;
        }
        if (*entry & PTE_PRESENT)
            return ERR_EXISTS;
        hpa_t page;
        if (!env->alloc(env->ctx, &page))
            return ERR_NO_MEMORY;
        /* Tables allow everything; the leaves decide. */
        store(env, entry, page.v | PTE_PRESENT | PTE_WRITE | PTE_ACCESSED);
    }
}

/* Size of the page to use at va: 2 MiB where all is aligned and no page table is in the way already. */
static unsigned choose_level(const struct pt_env *env, hpa_t root, uint64_t va, uint64_t pa, uint64_t left)
{
    unsigned level;

    if (((va | pa) & (SIZE_2M - 1)) || left < SIZE_2M)
        return LEVEL_PT;
    uint64_t *entry = walk(env, root, va, LEVEL_PD, &level);
    return level == LEVEL_PD && (*entry & PTE_PRESENT) && !is_leaf(*entry, level) ? LEVEL_PT : LEVEL_PD;
}

static bool is_free(const struct pt_env *env, hpa_t root, uint64_t va, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        unsigned level;
        if (*walk(env, root, va + done, LEVEL_PT, &level) & PTE_PRESENT)
            return false;
        uint64_t step = level_size(level);
        done += step - ((va + done) & (step - 1));
    }
    return true;
}

enum status hostpt_map(const struct pt_env *env, hpa_t root, uint64_t va, hpa_t pa, uint64_t size,
                       unsigned flags)
{
    uint64_t *entry;
    enum status s = check_range(va, size);

    if (s)
        return s;
    if ((pa.v & PAGE_MASK) || ((flags & HOSTPT_WRITE) && (flags & HOSTPT_EXEC)) ||
        ((flags & HOSTPT_UNCACHED) && (flags & HOSTPT_WC)))
        return ERR_INVALID;
    if (size > PHYS_LIMIT || pa.v > PHYS_LIMIT - size)
        return ERR_RANGE;
    if (!is_free(env, root, va, size))
        return ERR_EXISTS;
    /* All tables first, so that the second round cannot fail; empty ones that stay behind map nothing. */
    for (int commit = 0; commit <= 1; commit++) {
        for (uint64_t done = 0; done < size;) {
            unsigned level = choose_level(env, root, va + done, pa.v + done, size - done);
            s = make_tables(env, root, va + done, level, &entry);
            if (s)
                return s;
            if (commit)
                store(env, entry, leaf_value(pa.v + done, flags, level));
            done += level_size(level);
        }
    }
    return STATUS_OK;
}

enum status hostpt_unmap(const struct pt_env *env, hpa_t root, uint64_t va, uint64_t size)
{
    enum status s = check_range(va, size);

    if (s)
        return s;
    for (int commit = 0; commit <= 1; commit++) {
        for (uint64_t done = 0; done < size;) {
            unsigned level;
            uint64_t *entry = walk(env, root, va + done, LEVEL_PT, &level);
            uint64_t page = level_size(level);
            if (!(*entry & PTE_PRESENT))
                return ERR_NOT_FOUND;
            if (((va + done) & (page - 1)) || size - done < page)
                return ERR_INVALID; /* part of a large page */
            if (commit)
                store(env, entry, 0);
            done += page;
        }
    }
    return STATUS_OK;
}

enum status hostpt_lookup(const struct pt_env *env, hpa_t root, uint64_t va, hpa_t *pa, unsigned *flags)
{
    unsigned level;

    if (!cpu_is_canonical(va))
        return ERR_RANGE;
    uint64_t entry = *walk(env, root, va, LEVEL_PT, &level);
    if (!(entry & PTE_PRESENT))
        return ERR_NOT_FOUND;
    uint64_t base = entry & (level == LEVEL_PD ? PTE_ADDRESS_2M : PTE_ADDRESS);
    *pa = hpa(base | (va & (level_size(level) - 1)));
    *flags = leaf_flags(entry, level);
    return STATUS_OK;
}

enum status hostpt_leaf(const struct pt_env *env, hpa_t root, uint64_t va, uint64_t **entry)
{
    if (!cpu_is_canonical(va))
        return ERR_RANGE;
    return make_tables(env, root, va, LEVEL_PT, entry);
}
