#include "drivers/acpi/acpi_dmar.h"
#include "hv/lib/bits.h"
#include "hv/lib/bytes.h"
#include "hv/lib/string.h"

/* VT-d specification 4.1, 8.1 to 8.8. Offsets are from the start of the table or structure. */
#define DMAR_WIDTH      36u /* the flags follow it */
#define DMAR_STRUCTURES 48u

#define FLAG_INTR_REMAP     0x1u
#define FLAG_X2APIC_OPT_OUT 0x2u
#define FLAG_DMA_OPT_IN     0x4u

enum structure_type { DRHD = 0, RMRR = 1, ATSR = 2, RHSA = 3, ANDD = 4, SATC = 5 };

/* Bytes before the scopes, or of the whole structure. */
#define HEADER_BYTES 4u
#define DRHD_BYTES   16u
#define RMRR_BYTES   24u
#define ATSR_BYTES   8u
#define RHSA_BYTES   20u
#define ANDD_BYTES   8u
#define SATC_BYTES   8u
#define FIXED_MAX    24u

#define DRHD_INCLUDE_ALL  0x1u
#define ATSR_ALL_PORTS    0x1u
#define SATC_ATC_REQUIRED 0x1u

#define SCOPE_BYTES   6u /* before the path */
#define SCOPE_MAX     (SCOPE_BYTES + 2 * ACPI_DMAR_DEPTH)
#define WIDTH_MAX     64u
#define ADDRESS_LIMIT BIT(52)

/* A structure under way: `fixed` holds its first bytes, the rest is at [at, end) of the table. */
struct structure {
    const struct acpi_tables *tables;
    const struct acpi_table *table;
    struct acpi_dmar *out;
    const char **why;
    uint16_t type;
    uint32_t start, end; /* offsets in the table */
    uint8_t fixed[FIXED_MAX];
};

static enum status fail(const struct structure *s, enum status status, const char *why)
{
    *s->why = why;
    return status;
}

static enum status fetch(const struct structure *s, uint32_t at, void *buf, size_t size)
{
    const struct acpi_reader *r = &s->tables->reader;
    if (r->read(r->ctx, hpa(s->table->addr.v + at), buf, size) == STATUS_OK)
        return STATUS_OK;
    return fail(s, ERR_INVALID, "the DMAR table cannot be read");
}

/* One scope of `length` bytes at `at`, which lies within the structure. */
static enum status read_scope(const struct structure *s, uint32_t at, uint8_t length)
{
    uint8_t raw[SCOPE_MAX];
    struct acpi_dmar *out = s->out;
    if (length < SCOPE_BYTES + 2 || length % 2)
        return fail(s, ERR_INVALID, "a device scope in the DMAR table has no path");
    if (length > SCOPE_MAX)
        return fail(s, ERR_NO_MEMORY, "a device in the DMAR table is behind more bridges than are followed");
    enum status status = fetch(s, at, raw, length);
    if (status != STATUS_OK)
        return status;
    if (raw[0] < ACPI_DMAR_ENDPOINT || raw[0] > ACPI_DMAR_NAMESPACE) {
        out->unknown++;
        return STATUS_OK;
    }
    if (out->scope_count == ACPI_DMAR_SCOPES)
        return fail(s, ERR_NO_MEMORY, "the DMAR table has more device scopes than are kept");
    struct acpi_dmar_scope scope = {
        .type = raw[0], .enumeration = raw[4], .bus = raw[5], .depth = (uint8_t)((length - SCOPE_BYTES) / 2)};
    for (unsigned i = 0; i < scope.depth; i++) {
        scope.path[i].device = raw[SCOPE_BYTES + 2 * i];
        scope.path[i].function = raw[SCOPE_BYTES + 2 * i + 1];
        if (scope.path[i].device > 31 || scope.path[i].function > 7)
            return fail(s, ERR_INVALID, "a device scope in the DMAR table has no possible address");
    }
    out->scopes[out->scope_count++] = scope;
    return STATUS_OK;
}

/* The scopes from `skip` bytes into the structure to its end. */
static enum status read_scopes(const struct structure *s, uint32_t skip, struct acpi_dmar_scopes *scopes)
{
    scopes->first = (uint16_t)s->out->scope_count;
    for (uint32_t at = s->start + skip; at < s->end;) {
        uint8_t raw[2];
        if (s->end - at < SCOPE_BYTES)
            return fail(s, ERR_INVALID, "a device scope in the DMAR table is cut off");
        enum status status = fetch(s, at, raw, sizeof(raw));
        if (status == STATUS_OK && raw[1] > s->end - at)
            status = fail(s, ERR_INVALID, "a device scope in the DMAR table is longer than its structure");
        if (status == STATUS_OK)
            status = read_scope(s, at, raw[1]);
        if (status != STATUS_OK)
            return status;
        at += raw[1];
    }
    scopes->count = (uint16_t)(s->out->scope_count - scopes->first);
    return STATUS_OK;
}

static enum status read_unit(const struct structure *s)
{
    struct acpi_dmar *out = s->out;
    if (out->unit_count == ACPI_DMAR_UNITS)
        return fail(s, ERR_NO_MEMORY, "the DMAR table has more units than are kept");
    struct acpi_dmar_unit unit = {.base = hpa(bytes_get64(s->fixed + 8)),
                                  .segment = bytes_get16(s->fixed + 6),
                                  .all = s->fixed[4] & DRHD_INCLUDE_ALL};
    if (unit.base.v == 0 || (unit.base.v & PAGE_MASK) || unit.base.v >= ADDRESS_LIMIT)
        return fail(s, ERR_INVALID, "a unit of the DMAR table is at no possible address");
    for (uint32_t i = 0; i < out->unit_count; i++) {
        if (out->units[i].base.v == unit.base.v)
            return fail(s, ERR_INVALID, "two units of the DMAR table are at the same address");
        if (unit.all && out->units[i].all && out->units[i].segment == unit.segment)
            return fail(s, ERR_INVALID, "two units of the DMAR table have all devices that remain");
    }
    enum status status = read_scopes(s, DRHD_BYTES, &unit.scopes);
    if (status == STATUS_OK)
        out->units[out->unit_count++] = unit;
    return status;
}

static enum status read_region(const struct structure *s)
{
    struct acpi_dmar *out = s->out;
    if (out->region_count == ACPI_DMAR_REGIONS)
        return fail(s, ERR_NO_MEMORY, "the DMAR table has more reserved ranges than are kept");
    struct acpi_dmar_region region = {.base = bytes_get64(s->fixed + 8),
                                      .limit = bytes_get64(s->fixed + 16),
                                      .segment = bytes_get16(s->fixed + 6)};
    if ((region.base & PAGE_MASK) || (region.limit & PAGE_MASK) != PAGE_MASK || region.base > region.limit ||
        region.limit >= ADDRESS_LIMIT)
        return fail(s, ERR_INVALID, "a reserved range of the DMAR table is not one of whole pages");
    enum status status = read_scopes(s, RMRR_BYTES, &region.scopes);
    if (status == STATUS_OK)
        out->regions[out->region_count++] = region;
    return status;
}

/* ATSR and SATC. */
static enum status read_ats(const struct structure *s)
{
    struct acpi_dmar *out = s->out;
    if (out->ats_count == ACPI_DMAR_PORTS)
        return fail(s, ERR_NO_MEMORY, "the DMAR table has more ATS structures than are kept");
    struct acpi_dmar_ats ats = {.segment = bytes_get16(s->fixed + 6), .satc = s->type == SATC};
    if (ats.satc)
        ats.required = s->fixed[4] & SATC_ATC_REQUIRED;
    else
        ats.all = s->fixed[4] & ATSR_ALL_PORTS;
    enum status status = read_scopes(s, ats.satc ? SATC_BYTES : ATSR_BYTES, &ats.scopes);
    if (status == STATUS_OK)
        out->ats[out->ats_count++] = ats;
    return status;
}

static enum status read_name(const struct structure *s)
{
    struct acpi_dmar *out = s->out;
    if (out->name_count == ACPI_DMAR_NAMES)
        return STATUS_OK; /* names are for people, and for DSDT walkers, which we are not */
    struct acpi_dmar_name *name = &out->names[out->name_count++];
    uint32_t length = s->end - s->start - ANDD_BYTES;
    if (length > sizeof(name->name) - 1)
        length = sizeof(name->name) - 1;
    name->number = s->fixed[7];
    enum status status = fetch(s, s->start + ANDD_BYTES, name->name, length);
    for (uint32_t i = 0; i < length && name->name[i]; i++)
        if (name->name[i] < ' ' || name->name[i] > '~')
            name->name[i] = '?';
    return status;
}

static enum status read_structure(struct structure *s, uint32_t length)
{
    static const struct {
        uint32_t bytes;
        enum status (*read)(const struct structure *s);
    } rows[] = {[DRHD] = {DRHD_BYTES, read_unit}, [RMRR] = {RMRR_BYTES, read_region},
                [ATSR] = {ATSR_BYTES, read_ats},  [RHSA] = {RHSA_BYTES, NULL},
                [ANDD] = {ANDD_BYTES, read_name}, [SATC] = {SATC_BYTES, read_ats}};
    if (s->type >= ARRAY_SIZE(rows)) {
        s->out->unknown++;
        return STATUS_OK;
    }
    if (length < rows[s->type].bytes)
        return fail(s, ERR_INVALID, "a structure of the DMAR table is shorter than its type");
    if (!rows[s->type].read)
        return STATUS_OK;
    enum status status = fetch(s, s->start, s->fixed, rows[s->type].bytes);
    return status == STATUS_OK ? rows[s->type].read(s) : status;
}

/* RHSA names a unit that may come after it, so it is read when all units are known. */
static enum status read_proximity(struct structure *s)
{
    enum status status = fetch(s, s->start, s->fixed, RHSA_BYTES);
    for (uint32_t i = 0; status == STATUS_OK && i < s->out->unit_count; i++) {
        struct acpi_dmar_unit *unit = &s->out->units[i];
        if (unit->base.v != bytes_get64(s->fixed + 8))
            continue;
        unit->has_proximity = true;
        unit->proximity = bytes_get32(s->fixed + 16);
    }
    return status;
}

static enum status walk(struct structure *s, bool proximity)
{
    for (uint32_t at = DMAR_STRUCTURES; at < s->table->length; at = s->end) {
        uint8_t raw[HEADER_BYTES];
        uint32_t left = s->table->length - at;
        if (left < HEADER_BYTES)
            return fail(s, ERR_INVALID, "the DMAR table ends within a structure");
        enum status status = fetch(s, at, raw, sizeof(raw));
        if (status != STATUS_OK)
            return status;
        uint32_t length = bytes_get16(raw + 2);
        if (length == 0)
            return STATUS_OK; /* some firmware pads with zeros */
        if (length < HEADER_BYTES || length > left)
            return fail(s, ERR_INVALID, "a structure of the DMAR table has no possible length");
        s->type = bytes_get16(raw);
        s->start = at;
        s->end = at + length;
        if (!proximity)
            status = read_structure(s, length);
        else if (s->type == RHSA)
            status = read_proximity(s);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

enum status acpi_read_dmar(const struct acpi_tables *t, struct acpi_dmar *out, const char **why)
{
    struct structure s = {.tables = t, .table = acpi_find(t, "DMAR", 0), .out = out, .why = why};
    uint8_t head[2];
    memset(out, 0, sizeof(*out));
    if (!s.table)
        return fail(&s, ERR_NOT_FOUND,
                    "the firmware has no DMAR table: VT-d is absent, or switched off there");
    if (s.table->length < DMAR_STRUCTURES)
        return fail(&s, ERR_INVALID, "the DMAR table is too short");
    enum status status = fetch(&s, DMAR_WIDTH, head, sizeof(head));
    if (status != STATUS_OK)
        return status;
    if (head[0] >= WIDTH_MAX)
        return fail(&s, ERR_INVALID, "the DMAR table's address width is no possible one");
    out->width = (uint8_t)(head[0] + 1);
    out->can_remap_interrupts = head[1] & FLAG_INTR_REMAP;
    out->x2apic_opt_out = head[1] & FLAG_X2APIC_OPT_OUT;
    out->dma_opt_in = head[1] & FLAG_DMA_OPT_IN;
    status = walk(&s, false);
    if (status == STATUS_OK)
        status = walk(&s, true);
    if (status == STATUS_OK && out->unit_count == 0)
        status = fail(&s, ERR_INVALID, "the DMAR table has no unit");
    if (status != STATUS_OK)
        memset(out, 0, sizeof(*out)); /* half a table is of no use to anybody */
    return status;
}
