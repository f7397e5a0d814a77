/* A DMAR table of any bytes: nothing outside of it is read, the walk ends, and a table that is accepted has
 * only what can be. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/acpi/acpi_dmar.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define BASE 0x1000u

static const uint8_t *table;
static size_t table_size;
static uint64_t bytes_read;

static enum status read_mem(void *ctx, hpa_t addr, void *buf, size_t size)
{
    (void)ctx;
    CHECK(addr.v >= BASE && addr.v - BASE <= table_size && size <= table_size - (addr.v - BASE));
    memcpy(buf, table + (addr.v - BASE), size);
    bytes_read += size;
    return STATUS_OK;
}

static void check_scopes(const struct acpi_dmar *d, struct acpi_dmar_scopes s)
{
    CHECK(s.first + s.count <= d->scope_count);
    for (unsigned i = s.first; i < s.first + s.count; i++) {
        const struct acpi_dmar_scope *scope = &d->scopes[i];
        CHECK(scope->type >= ACPI_DMAR_ENDPOINT && scope->type <= ACPI_DMAR_NAMESPACE);
        CHECK(scope->depth >= 1 && scope->depth <= ACPI_DMAR_DEPTH);
        for (unsigned k = 0; k < scope->depth; k++)
            CHECK(scope->path[k].device < 32 && scope->path[k].function < 8);
    }
}

static void check(const struct acpi_dmar *d)
{
    CHECK(d->unit_count >= 1 && d->unit_count <= ACPI_DMAR_UNITS && d->scope_count <= ACPI_DMAR_SCOPES);
    CHECK(d->region_count <= ACPI_DMAR_REGIONS && d->ats_count <= ACPI_DMAR_PORTS);
    CHECK(d->name_count <= ACPI_DMAR_NAMES && d->width >= 1 && d->width <= 64);
    for (uint32_t i = 0; i < d->unit_count; i++) {
        CHECK(d->units[i].base.v && !(d->units[i].base.v & PAGE_MASK) && d->units[i].base.v < 1ull << 52);
        for (uint32_t k = 0; k < i; k++)
            CHECK(d->units[i].base.v != d->units[k].base.v);
        check_scopes(d, d->units[i].scopes);
    }
    for (uint32_t i = 0; i < d->region_count; i++) {
        CHECK(d->regions[i].base < d->regions[i].limit && d->regions[i].limit < 1ull << 52);
        CHECK(!(d->regions[i].base & PAGE_MASK) && !((d->regions[i].limit + 1) & PAGE_MASK));
        check_scopes(d, d->regions[i].scopes);
    }
    for (uint32_t i = 0; i < d->ats_count; i++)
        check_scopes(d, d->ats[i].scopes);
    for (uint32_t i = 0; i < d->name_count; i++)
        for (const char *c = d->names[i].name; c < d->names[i].name + ACPI_DMAR_NAME && *c; c++)
            CHECK(*c >= ' ' && *c <= '~' && c < d->names[i].name + ACPI_DMAR_NAME - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct acpi_tables t;
    static struct acpi_dmar d;
    const char *why = NULL;
    if (size < 36 || size > 65536)
        return 0; /* acpi_open() has seen to the header */
    table = data;
    table_size = size;
    bytes_read = 0;
    t.reader = (struct acpi_reader){NULL, read_mem};
    t.count = 1;
    t.tables[0] = (struct acpi_table){{'D', 'M', 'A', 'R'}, hpa(BASE), (uint32_t)size};
    enum status status = acpi_read_dmar(&t, &d, &why);
    CHECK((status == STATUS_OK) == (why == NULL));
    CHECK(bytes_read <= 6 * size);
    if (status == STATUS_OK)
        check(&d);
    else
        CHECK(d.unit_count == 0 && d.region_count == 0);
    return 0;
}
