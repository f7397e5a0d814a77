#include "arch/x86/symbols.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

static uint32_t start_of(const struct symbols_table *table, uint32_t index)
{
    uint32_t value;
    memcpy(&value, table->rest + index * sizeof(value), sizeof(value));
    return value;
}

/* The name of symbol `index`; NULL when the table is cut off. */
static const char *name_of(const struct symbols_table *table, uint32_t index)
{
    size_t begin = table->count * sizeof(uint32_t);
    uint32_t ended = 0; /* names */
    for (size_t at = begin; at < sizeof(table->rest); at++) {
        if (table->rest[at] != 0)
            continue;
        if (ended++ == index)
            return (const char *)table->rest + begin;
        begin = at + 1;
    }
    return NULL;
}

bool symbols_describe(const struct symbols_table *table, uint64_t offset, char *text, size_t size)
{
    if (table->magic != SYMBOLS_MAGIC || table->count == 0 ||
        table->count > sizeof(table->rest) / sizeof(uint32_t) || offset < start_of(table, 0))
        return false;
    uint32_t low = 0, high = table->count;
    while (high - low > 1) { /* start_of(low) <= offset */
        uint32_t middle = (low + high) / 2;
        if (start_of(table, middle) <= offset)
            low = middle;
        else
            high = middle;
    }
    const char *name = name_of(table, low);
    if (!name)
        return false;
    fmt_format(text, size, "%s+0x%llx", name, (unsigned long long)(offset - start_of(table, low)));
    return true;
}
