#include "tests/host/ept_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_HPA_BASE   0x40000000ull
#define ACCESS          7ull
#define LARGE           (1ull << 7)
#define ADDRESS         0x000ffffffffff000ull
#define MAY_EXEC        (1ull << 52)
#define MUST(condition) must((condition), #condition, __LINE__)

static void must(bool condition, const char *text, int line)
{
    if (condition)
        return;
    fprintf(stderr, "ept_model.c:%d: not so: %s\n", line, text);
    abort();
}

static uint64_t span(unsigned level)
{
    return 1ull << (12 + 9 * (level - 1));
}

static unsigned table_index(hpa_t page)
{
    uint64_t index = (page.v - FAKE_HPA_BASE) >> 12;
    MUST((page.v & 4095) == 0 && page.v >= FAKE_HPA_BASE && index < EPT_MODEL_TABLES);
    return (unsigned)index;
}

static bool model_alloc(void *ctx, hpa_t *page)
{
    struct ept_model *m = ctx;
    if (m->in_use >= m->limit)
        return false;
    for (unsigned i = 0; i < EPT_MODEL_TABLES; i++) {
        if (!m->meta[i].allocated) {
            memset(&m->meta[i], 0, sizeof(m->meta[i]));
            m->meta[i].allocated = true;
            memset(m->tables[i], 0, sizeof(m->tables[i]));
            m->in_use++;
            *page = hpa(FAKE_HPA_BASE + ((uint64_t)i << 12));
            return true;
        }
    }
    return false;
}

static void model_free(void *ctx, hpa_t page)
{
    struct ept_model *m = ctx;
    unsigned i = table_index(page);
    MUST(m->meta[i].allocated);
    /* Outside of ept_destroy() a table that a CPU may have cached must not come back. */
    MUST(m->op == EPT_MODEL_NONE || !m->meta[i].linked);
    m->meta[i].allocated = false;
    m->in_use--;
}

static uint64_t *model_table(void *ctx, hpa_t page)
{
    struct ept_model *m = ctx;
    unsigned i = table_index(page);
    MUST(m->meta[i].allocated);
    return m->tables[i];
}

static bool leaf_at(uint64_t entry, unsigned level)
{
    return level == 1 || (entry & LARGE);
}

/* An entry with the permissions it was given. With nx_large a large page must not show that it is executable;
 * bit 52, which the processor ignores, remembers it. */
static uint64_t plain(const struct ept_model *m, uint64_t entry, unsigned level)
{
    if (!m->ept.nx_large || level == 1 || !(entry & ACCESS) || !leaf_at(entry, level))
        return entry;
    MUST(!(entry & EPT_EXEC));
    return entry & MAY_EXEC ? (entry & ~MAY_EXEC) | EPT_EXEC : entry;
}

static void check_leaf_format(const struct ept_model *m, uint64_t entry, unsigned level)
{
    unsigned type = entry >> 3 & 7;
    MUST(level == 1 || (level == 2 && m->ept.has_2m) || (level == 3 && m->ept.has_1g));
    MUST((entry & ~(ADDRESS | LARGE | 0x3f)) == 0);
    MUST(((entry & ADDRESS) & (span(level) - 1)) == 0);
    MUST(level > 1 || !(entry & LARGE));
    MUST(entry & EPT_READ);
    MUST(type == 0 || type == 1 || type == 4 || type == 5 || type == 6);
}

/* A hole or a large page is replaced by a table: no translation may change by that. */
static void check_link(struct ept_model *m, uint64_t old, uint64_t value, unsigned level, uint64_t ga)
{
    MUST(level > 1 && (value & ~ADDRESS) == ACCESS);
    unsigned child = table_index(hpa(value & ADDRESS));
    MUST(m->meta[child].allocated && !m->meta[child].linked);
    MUST(!(old & ACCESS) || leaf_at(old, level));
    for (unsigned i = 0; i < 512; i++) {
        uint64_t entry = plain(m, m->tables[child][i], level - 1);
        if (!(old & ACCESS)) {
            MUST(entry == 0);
            continue;
        }
        check_leaf_format(m, entry, level - 1);
        MUST((entry & ~LARGE) == (old & ~LARGE) + i * span(level - 1));
        MUST(leaf_at(entry, level - 1));
    }
    m->meta[child].linked = true;
    m->meta[child].level = (uint8_t)(level - 1);
    m->meta[child].base = ga;
}

static void check_leaf(struct ept_model *m, uint64_t old, uint64_t value, unsigned level, uint64_t ga)
{
    MUST(ga >= m->op_ga && ga + span(level) <= m->op_end);
    MUST(!(old & ACCESS) || leaf_at(old, level));
    if (!(value & ACCESS)) {
        MUST(value == 0 && m->op == EPT_MODEL_UNMAP && (old & ACCESS));
        return;
    }
    check_leaf_format(m, value, level);
    if (old & ACCESS)
        MUST(m->op == EPT_MODEL_PROTECT && value == ((old & ~ACCESS) | m->op_value));
    else
        MUST(m->op == EPT_MODEL_MAP && (value & ~LARGE) == m->op_value + (ga - m->op_ga));
}

static void model_store(void *ctx, uint64_t *entry, uint64_t value)
{
    struct ept_model *m = ctx;
    uint64_t offset = (uint64_t)(entry - m->tables[0]);
    unsigned table = (unsigned)(offset / 512);
    MUST(table < EPT_MODEL_TABLES && m->meta[table].allocated);
    if (m->meta[table].linked) {
        unsigned level = m->meta[table].level;
        uint64_t ga = m->meta[table].base + offset % 512 * span(level);
        m->stores++;
        uint64_t old = plain(m, *entry, level);
        if ((value & ACCESS) && !leaf_at(value, level))
            check_link(m, old, value, level, ga);
        else
            check_leaf(m, old, plain(m, value, level), level, ga);
    }
    *entry = value;
}

bool ept_model_init(struct ept_model *m, bool has_2m, bool has_1g, uint64_t limit)
{
    memset(m, 0, sizeof(*m));
    m->tables = calloc(EPT_MODEL_TABLES, 4096);
    m->want = calloc(EPT_MODEL_PAGES, sizeof(*m->want));
    MUST(m->tables && m->want);
    m->limit = limit;
    m->env = (struct pt_env){
        .ctx = m, .alloc = model_alloc, .free = model_free, .table = model_table, .store = model_store};
    if (ept_init(&m->ept, &m->env, has_2m, has_1g) != STATUS_OK) {
        MUST(m->in_use == 0);
        free(m->tables);
        free(m->want);
        return false;
    }
    unsigned root = table_index(m->ept.root);
    m->meta[root].linked = true;
    m->meta[root].level = 4;
    return true;
}

void ept_model_free(struct ept_model *m)
{
    ept_destroy(&m->ept);
    MUST(m->in_use == 0 && m->ept.table_pages == 0);
    free(m->tables);
    free(m->want);
}

static void begin(struct ept_model *m, enum ept_model_op op, uint64_t first, uint64_t count, uint64_t value)
{
    MUST(first + count <= EPT_MODEL_PAGES);
    m->op = op;
    m->op_ga = EPT_MODEL_BASE + (first << 12);
    m->op_end = m->op_ga + (count << 12);
    m->op_value = value;
}

/* The tables' answer against the model's; a failure must have touched nothing. */
static void end(struct ept_model *m, enum status got, enum status expected, uint64_t stores, uint64_t tables)
{
    m->op = EPT_MODEL_NONE;
    MUST(got == expected || (expected == STATUS_OK && got == ERR_NO_MEMORY));
    MUST(got == STATUS_OK || (m->stores == stores && m->in_use == tables));
    MUST(m->in_use == m->ept.table_pages && m->in_use <= m->limit);
}

static uint64_t count_mapped(const struct ept_model *m, uint64_t first, uint64_t count)
{
    uint64_t mapped = 0;
    for (uint64_t i = first; i < first + count; i++)
        mapped += m->want[i] != 0;
    return mapped;
}

enum status ept_model_map(struct ept_model *m, uint64_t first, uint64_t count, uint64_t ha, unsigned flags,
                          enum ept_memory_type type)
{
    enum status expected = STATUS_OK;
    uint64_t stores = m->stores, tables = m->in_use;
    uint64_t value = ha | flags | (uint64_t)type << 3;
    if (count == 0 || !(flags & EPT_READ) || flags > 7 || type == 2 || type == 3 || type > 6)
        expected = ERR_INVALID;
    else if (count_mapped(m, first, count))
        expected = ERR_EXISTS;
    begin(m, EPT_MODEL_MAP, first, count, value);
    enum status got = ept_map(&m->ept, gpa(m->op_ga), hpa(ha), count << 12, flags, type);
    end(m, got, expected, stores, tables);
    for (uint64_t i = 0; got == STATUS_OK && i < count; i++)
        m->want[first + i] = value + (i << 12);
    if (got == STATUS_OK)
        m->want_count += count;
    return got;
}

enum status ept_model_unmap(struct ept_model *m, uint64_t first, uint64_t count)
{
    uint64_t stores = m->stores, tables = m->in_use;
    begin(m, EPT_MODEL_UNMAP, first, count, 0);
    enum status got = ept_unmap(&m->ept, gpa(m->op_ga), count << 12);
    end(m, got, count ? STATUS_OK : ERR_INVALID, stores, tables);
    if (got == STATUS_OK) {
        m->want_count -= count_mapped(m, first, count);
        memset(&m->want[first], 0, count * sizeof(*m->want));
    }
    return got;
}

enum status ept_model_protect(struct ept_model *m, uint64_t first, uint64_t count, unsigned flags)
{
    enum status expected = STATUS_OK;
    uint64_t stores = m->stores, tables = m->in_use;
    if (count == 0 || !(flags & EPT_READ) || flags > 7)
        expected = ERR_INVALID;
    else if (count_mapped(m, first, count) != count)
        expected = ERR_NOT_FOUND;
    begin(m, EPT_MODEL_PROTECT, first, count, flags);
    enum status got = ept_protect(&m->ept, gpa(m->op_ga), count << 12, flags);
    end(m, got, expected, stores, tables);
    for (uint64_t i = first; got == STATUS_OK && i < first + count; i++)
        m->want[i] = (m->want[i] & ~ACCESS) | flags;
    return got;
}

enum status ept_model_allow_exec(struct ept_model *m, uint64_t page)
{
    uint64_t stores = m->stores, tables = m->in_use, want = m->want[page];
    begin(m, EPT_MODEL_PROTECT, page, 1, want & ACCESS);
    enum status got = ept_allow_exec(&m->ept, gpa(m->op_ga + 0x123));
    end(m, got, want & EPT_EXEC ? STATUS_OK : ERR_NOT_FOUND, stores, tables);
    if (got == STATUS_OK && m->ept.nx_large) {
        hpa_t ha;
        uint64_t page_size;
        unsigned flags;
        enum ept_memory_type type;
        MUST(ept_lookup(&m->ept, gpa(m->op_ga), &ha, &page_size, &flags, &type) == STATUS_OK);
        MUST(page_size == 4096 && (flags & EPT_EXEC)); /* plain() has seen that it shows */
    }
    return got;
}

/* Compares the leaves below a table with the model; answers how many pages they map. */
static uint64_t check_table(const struct ept_model *m, unsigned table, unsigned level, uint64_t base)
{
    uint64_t mapped = 0;
    for (unsigned i = 0; i < 512; i++) {
        uint64_t entry = plain(m, m->tables[table][i], level);
        uint64_t ga = base + i * span(level);
        if (!(entry & ACCESS))
            continue;
        if (!leaf_at(entry, level)) {
            mapped += check_table(m, table_index(hpa(entry & ADDRESS)), level - 1, ga);
            continue;
        }
        MUST(ga >= EPT_MODEL_BASE && ga + span(level) <= EPT_MODEL_BASE + (EPT_MODEL_PAGES << 12));
        const uint64_t *want = &m->want[(ga - EPT_MODEL_BASE) >> 12];
        uint64_t wrong = 0;
        for (uint64_t page = 0; page < span(level) >> 12; page++)
            wrong |= want[page] ^ ((entry & ~LARGE) + (page << 12));
        MUST(wrong == 0);
        mapped += span(level) >> 12;
    }
    return mapped;
}

static void check_lookup(const struct ept_model *m, uint64_t page)
{
    hpa_t ha;
    uint64_t page_size;
    unsigned flags;
    enum ept_memory_type type;
    uint64_t ga = EPT_MODEL_BASE + (page << 12) + 0x123;
    enum status status = ept_lookup(&m->ept, gpa(ga), &ha, &page_size, &flags, &type);
    if (!m->want[page]) {
        MUST(status == ERR_NOT_FOUND);
        return;
    }
    MUST(status == STATUS_OK);
    MUST(m->want[page] + 0x123 == ha.v + flags + ((uint64_t)type << 3));
    MUST(page_size == 4096 || page_size == SIZE_2M || page_size == SIZE_1G);
}

void ept_model_check(struct ept_model *m)
{
    MUST(check_table(m, table_index(m->ept.root), 4, 0) == m->want_count);
    /* Around every 2 MiB boundary, where pages of different sizes meet. */
    for (uint64_t page = 0; page < EPT_MODEL_PAGES; page += 512) {
        check_lookup(m, page);
        check_lookup(m, page + 511);
    }
}
