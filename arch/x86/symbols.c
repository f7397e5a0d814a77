#include "arch/x86/symbols.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

struct reader {
    const struct symbols_table *table;
    size_t at;
    uint64_t start; /* of the function read last */
    char name[SYMBOLS_NAME];
};

/* The next byte; beyond the table's end all are NUL. */
static uint8_t next_byte(struct reader *r)
{
    return r->at < sizeof(r->table->rest) ? r->table->rest[r->at++] : 0;
}

static uint64_t next_distance(struct reader *r)
{
    uint64_t value = 0;
    uint8_t byte = 0x80;
    for (unsigned shift = 0; (byte & 0x80) && shift < 32; shift += 7) {
        byte = next_byte(r);
        value |= (uint64_t)(byte & 0x7f) << shift;
    }
    return value;
}

/* False: the name is longer than any can be, or empty. */
static bool next_name(struct reader *r)
{
    size_t length = next_byte(r);
    for (; length < sizeof(r->name); length++) {
        r->name[length] = (char)next_byte(r);
        if (!r->name[length])
            return r->name[0] != 0;
    }
    return false;
}

bool symbols_describe(const struct symbols_table *table, uint64_t offset, char *text, size_t size)
{
    if (table->magic != SYMBOLS_MAGIC)
        return false;
    struct reader r = {.table = table};
    for (uint32_t i = 0; i < table->count; i++) {
        uint64_t distance = next_distance(&r);
        if (offset - r.start < distance) { /* lies before the next one */
            if (i == 0)
                return false;
            break;
        }
        r.start += distance;
        if (!next_name(&r))
            return false;
    }
    if (!r.name[0])
        return false;
    fmt_format(text, size, "%s+0x%llx", r.name, (unsigned long long)(offset - r.start));
    return true;
}
