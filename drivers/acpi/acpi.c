#include "drivers/acpi/acpi.h"
#include "hv/lib/bytes.h"
#include "hv/lib/string.h"

/* ACPI 6.5, chapter 5. Offsets are from the start of a table. */
#define HEADER_SIZE  36u
#define RSDP_V1_SIZE 20u
#define RSDP_V2_SIZE 36u
#define CHUNK        256u /* bytes looked at in one go; several run on a small stack */

static enum status fetch(const struct acpi_tables *t, uint64_t addr, void *buf, size_t size)
{
    if (addr + size < addr)
        return ERR_RANGE;
    return t->reader.read(t->reader.ctx, hpa(addr), buf, size);
}

static uint8_t sum_of(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    while (n--)
        sum = (uint8_t)(sum + *p++);
    return sum;
}

/* Does the whole table sum to 0? */
static bool checksum_ok(const struct acpi_tables *t, uint64_t addr, uint32_t length)
{
    uint8_t buf[CHUNK], sum = 0;
    for (uint32_t at = 0; at < length;) {
        uint32_t n = length - at < CHUNK ? length - at : CHUNK;
        if (fetch(t, addr + at, buf, n) != STATUS_OK)
            return false;
        sum = (uint8_t)(sum + sum_of(buf, n));
        at += n;
    }
    return sum == 0;
}

/* Header of the table at `addr`, its length and checksum verified. */
static enum status read_table(const struct acpi_tables *t, uint64_t addr, struct acpi_table *out)
{
    uint8_t header[HEADER_SIZE];
    if (addr == 0 || fetch(t, addr, header, sizeof(header)) != STATUS_OK)
        return ERR_INVALID;
    uint32_t length = bytes_get32(header + 4);
    if (length < HEADER_SIZE || length > ACPI_MAX_TABLE || !checksum_ok(t, addr, length))
        return ERR_INVALID;
    memcpy(out->signature, header, 4);
    out->addr = hpa(addr);
    out->length = length;
    return STATUS_OK;
}

/* The tables that an RSDT (4-byte entries) or XSDT (8-byte entries) lists. */
static enum status read_list(struct acpi_tables *t, uint64_t addr, const char *signature, unsigned entry)
{
    struct acpi_table list;
    enum status status = read_table(t, addr, &list);
    if (status != STATUS_OK)
        return status;
    if (memcmp(list.signature, signature, 4) != 0)
        return ERR_INVALID;
    for (uint32_t at = HEADER_SIZE; list.length - at >= entry; at += entry) {
        uint8_t raw[8];
        if (fetch(t, addr + at, raw, entry) != STATUS_OK)
            return ERR_INVALID;
        if (t->count == ACPI_MAX_TABLES ||
            read_table(t, bytes_get(raw, entry), &t->tables[t->count]) != STATUS_OK)
            t->bad++;
        else
            t->count++;
    }
    return STATUS_OK;
}

enum status acpi_open(struct acpi_tables *t, const struct acpi_reader *reader, hpa_t rsdp)
{
    uint8_t raw[RSDP_V2_SIZE];
    memset(t, 0, sizeof(*t));
    t->reader = *reader;
    if (rsdp.v == 0 || fetch(t, rsdp.v, raw, RSDP_V1_SIZE) != STATUS_OK || memcmp(raw, "RSD PTR ", 8) != 0 ||
        sum_of(raw, RSDP_V1_SIZE) != 0)
        return ERR_INVALID;
    t->revision = raw[15];
    if (t->revision >= 2) {
        if (fetch(t, rsdp.v, raw, RSDP_V2_SIZE) != STATUS_OK || bytes_get32(raw + 20) < RSDP_V2_SIZE ||
            sum_of(raw, RSDP_V2_SIZE) != 0)
            return ERR_INVALID;
        if (bytes_get64(raw + 24))
            return read_list(t, bytes_get64(raw + 24), "XSDT", 8);
    }
    return read_list(t, bytes_get32(raw + 16), "RSDT", 4);
}

const struct acpi_table *acpi_find(const struct acpi_tables *t, const char *signature, unsigned n)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (memcmp(t->tables[i].signature, signature, 4) == 0 && n-- == 0)
            return &t->tables[i];
    return NULL;
}

bool acpi_has_dmar(const struct acpi_tables *t)
{
    return acpi_find(t, "DMAR", 0) != NULL;
}

/* ---- MADT, 5.2.12 ---- */

#define MADT_ENTRIES     44u
#define MADT_PCAT_COMPAT 1u
#define MADT_LAPIC       0u
#define MADT_IOAPIC      1u
#define MADT_OVERRIDE    2u
#define MADT_LAPIC_ADDR  5u
#define MADT_X2APIC      9u
#define MADT_ENABLED     1u
#define MADT_CAPABLE     2u
#define MADT_ENTRY_MAX   16u /* bytes of the longest entry we look into */
#define XAPIC_BROADCAST  0xffu

static void add_cpu(struct acpi_madt *m, uint32_t apic_id, uint32_t uid, uint32_t flags, bool x2apic)
{
    if (!(flags & (MADT_ENABLED | MADT_CAPABLE)))
        return; /* a socket that is empty */
    bool broadcast = apic_id == (x2apic ? UINT32_MAX : XAPIC_BROADCAST);
    for (uint32_t i = 0; i < m->cpu_count; i++)
        if (m->cpus[i].apic_id == apic_id)
            broadcast = true; /* listed twice: as LAPIC and as x2APIC, or by mistake */
    if (broadcast || m->cpu_count == ACPI_MAX_CPUS) {
        m->dropped++;
        return;
    }
    m->cpus[m->cpu_count++] = (struct acpi_cpu){.apic_id = apic_id,
                                                .uid = uid,
                                                .enabled = flags & MADT_ENABLED,
                                                .online_capable = flags & MADT_CAPABLE,
                                                .x2apic = x2apic};
}

static void madt_entry(struct acpi_madt *m, const uint8_t *e, uint8_t length)
{
    if (e[0] == MADT_LAPIC && length >= 8) {
        add_cpu(m, e[3], e[2], bytes_get32(e + 4), false);
    } else if (e[0] == MADT_X2APIC && length >= 16) {
        add_cpu(m, bytes_get32(e + 4), bytes_get32(e + 12), bytes_get32(e + 8), true);
    } else if (e[0] == MADT_IOAPIC && length >= 12 && m->ioapic_count < ACPI_MAX_IOAPICS) {
        m->ioapics[m->ioapic_count++] =
            (struct acpi_ioapic){.addr = hpa(bytes_get32(e + 4)), .gsi_base = bytes_get32(e + 8), .id = e[2]};
    } else if (e[0] == MADT_OVERRIDE && length >= 10 && m->override_count < ACPI_MAX_OVERRIDES) {
        m->overrides[m->override_count++] =
            (struct acpi_override){.irq = e[3], .gsi = bytes_get32(e + 4), .flags = bytes_get16(e + 8)};
    } else if (e[0] == MADT_LAPIC_ADDR && length >= 12) {
        m->lapic = hpa(bytes_get64(e + 4));
    } else if (e[0] <= MADT_OVERRIDE || e[0] == MADT_LAPIC_ADDR || e[0] == MADT_X2APIC) {
        m->dropped++;
    }
}

enum status acpi_read_madt(const struct acpi_tables *t, struct acpi_madt *out)
{
    memset(out, 0, sizeof(*out));
    const struct acpi_table *table = acpi_find(t, "APIC", 0);
    if (!table)
        return ERR_NOT_FOUND;
    uint8_t raw[MADT_ENTRY_MAX];
    if (table->length < MADT_ENTRIES || fetch(t, table->addr.v + HEADER_SIZE, raw, 8) != STATUS_OK)
        return ERR_INVALID;
    out->lapic = hpa(bytes_get32(raw));
    out->has_8259 = bytes_get32(raw + 4) & MADT_PCAT_COMPAT;
    for (uint32_t at = MADT_ENTRIES; at < table->length;) {
        uint32_t left = table->length - at;
        if (left < 2 || fetch(t, table->addr.v + at, raw, 2) != STATUS_OK)
            return ERR_INVALID;
        uint8_t length = raw[1];
        uint32_t n = length < MADT_ENTRY_MAX ? length : MADT_ENTRY_MAX;
        if (length < 2 || length > left || fetch(t, table->addr.v + at, raw, n) != STATUS_OK)
            return ERR_INVALID;
        madt_entry(out, raw, length);
        at += length;
    }
    return STATUS_OK;
}

/* ---- MCFG, PCI firmware specification 3.3, 4.1.2 ---- */

#define MCFG_ENTRIES 44u
#define MCFG_ENTRY   16u

enum status acpi_read_mcfg(const struct acpi_tables *t, struct acpi_mcfg *out)
{
    memset(out, 0, sizeof(*out));
    const struct acpi_table *table = acpi_find(t, "MCFG", 0);
    if (!table)
        return ERR_NOT_FOUND;
    if (table->length < MCFG_ENTRIES)
        return ERR_INVALID;
    for (uint32_t at = MCFG_ENTRIES; table->length - at >= MCFG_ENTRY; at += MCFG_ENTRY) {
        uint8_t raw[MCFG_ENTRY];
        if (fetch(t, table->addr.v + at, raw, sizeof(raw)) != STATUS_OK)
            return ERR_INVALID;
        struct acpi_ecam e = {.base = hpa(bytes_get64(raw)),
                              .segment = bytes_get16(raw + 8),
                              .first_bus = raw[10],
                              .last_bus = raw[11]};
        /* One MiB per bus; the base is that of bus 0 even when the first bus is another. */
        bool sane = e.base.v != 0 && e.base.v % (1u << 20) == 0 && e.first_bus <= e.last_bus &&
                    e.base.v <= UINT64_MAX - (256ull << 20);
        if (!sane || out->count == ACPI_MAX_ECAMS)
            out->dropped++;
        else
            out->ecams[out->count++] = e;
    }
    return STATUS_OK;
}

/* ---- FADT, 5.2.9, and \_S5 in the DSDT ---- */

#define FADT_V1_SIZE       116u
#define FADT_MAX_SIZE      276u
#define FADT_TMR_VAL_EXT   (1u << 8)
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_HW_REDUCED    (1u << 20)

#define AML_NAME    0x08
#define AML_BYTE    0x0a
#define AML_PACKAGE 0x12
#define SLP_TYP_MAX 7u

/* A Generic Address Structure, or the port that older tables have. */
static struct acpi_gas gas(const uint8_t *fadt, unsigned port_at, unsigned gas_at, uint8_t port_bits)
{
    struct acpi_gas g = {
        .space = fadt[gas_at], .bits = fadt[gas_at + 1], .addr = bytes_get64(fadt + gas_at + 4)};
    if (g.addr == 0)
        g = (struct acpi_gas){.space = ACPI_SPACE_IO, .bits = port_bits, .addr = bytes_get32(fadt + port_at)};
    return g;
}

/* A small integer constant (ZeroOp, OneOp, BytePrefix) at p[*at]; moves *at past it. */
static bool aml_small(const uint8_t *p, size_t size, size_t *at, uint8_t *out)
{
    if (*at >= size)
        return false;
    uint8_t op = p[(*at)++];
    if (op == 0 || op == 1) {
        *out = op;
        return true;
    }
    if (op != AML_BYTE || *at >= size)
        return false;
    *out = p[(*at)++];
    return true;
}

/* Name (_S5, Package () { a, b, ... }) at p, `size` bytes; p starts with "_S5_". */
static bool parse_s5(const uint8_t *p, size_t size, struct acpi_fadt *out)
{
    size_t at = 4;
    if (size < 7 || p[at++] != AML_PACKAGE)
        return false;
    at += 1 + (p[at] >> 6); /* package length: its lead byte says how many bytes follow */
    if (at >= size || p[at] == 0)
        return false;
    uint8_t elements = p[at++], a, b;
    if (!aml_small(p, size, &at, &a))
        return false;
    b = a;
    if (elements >= 2 && !aml_small(p, size, &at, &b))
        return false;
    if (a > SLP_TYP_MAX || b > SLP_TYP_MAX)
        return false;
    out->has_s5 = true;
    out->s5_typ_a = a;
    out->s5_typ_b = b;
    return true;
}

/* Looks for the definition without interpreting AML: a name is a name wherever it stands, so the bytes before
 * it (NameOp, or NameOp and a root prefix) have to fit as well. */
static void find_s5(const struct acpi_tables *t, const struct acpi_table *dsdt, struct acpi_fadt *out)
{
    enum { WINDOW = 32 }; /* more than the longest form of the definition */
    uint8_t buf[CHUNK];
    for (uint32_t at = HEADER_SIZE; at < dsdt->length; at += CHUNK - WINDOW) {
        uint32_t n = dsdt->length - at < CHUNK ? dsdt->length - at : CHUNK;
        if (fetch(t, dsdt->addr.v + at, buf, n) != STATUS_OK)
            return;
        for (uint32_t i = 1; i + 4 <= n; i++) {
            bool name = buf[i - 1] == AML_NAME || (i >= 2 && buf[i - 1] == '\\' && buf[i - 2] == AML_NAME);
            if (name && memcmp(buf + i, "_S5_", 4) == 0 && parse_s5(buf + i, n - i, out))
                return;
        }
    }
}

/* ACPI 6.5, 4.8.3.6: eight bits from bit 0 on, in I/O space, memory or the configuration space of bus 0. What
 * is in memory would have to be mapped for as long as the machine runs; no PC has it there. NULL: it can be
 * used. */
static const char *check_reset(const struct acpi_gas *reset, uint8_t first_bit)
{
    if (reset->bits != 8 || first_bit != 0)
        return "it is not one byte";
    switch (reset->space) {
    case ACPI_SPACE_IO:
        return reset->addr > 0xffff ? "its I/O port is above ffff" : NULL;
    case ACPI_SPACE_PCI:
        return ACPI_PCI_DEVICE(reset->addr) > 31 || ACPI_PCI_FUNCTION(reset->addr) > 7 ||
                       ACPI_PCI_OFFSET(reset->addr) > 255 || reset->addr >> 48
                   ? "there is no such place in configuration space"
                   : NULL;
    case ACPI_SPACE_MEMORY:
        return "it lies in memory";
    default:
        return "it lies in an address space that is not known";
    }
}

enum status acpi_read_fadt(const struct acpi_tables *t, struct acpi_fadt *out)
{
    uint8_t f[FADT_MAX_SIZE] = {0};
    memset(out, 0, sizeof(*out));
    const struct acpi_table *table = acpi_find(t, "FACP", 0);
    if (!table)
        return ERR_NOT_FOUND;
    if (table->length < FADT_V1_SIZE)
        return ERR_INVALID;
    uint32_t n = table->length < FADT_MAX_SIZE ? table->length : FADT_MAX_SIZE;
    if (fetch(t, table->addr.v, f, n) != STATUS_OK)
        return ERR_INVALID;
    uint32_t flags = bytes_get32(f + 112);
    out->sci = bytes_get16(f + 46);
    out->smi_cmd = bytes_get32(f + 48);
    out->acpi_enable = f[52];
    out->pm1a_cnt = gas(f, 64, 172, 16);
    out->pm1b_cnt = gas(f, 68, 184, 16);
    out->pm_timer = gas(f, 76, 208, 32);
    out->pm_timer_32bit = flags & FADT_TMR_VAL_EXT;
    out->hw_reduced = flags & FADT_HW_REDUCED;
    out->reset = (struct acpi_gas){.space = f[116], .bits = f[117], .addr = bytes_get64(f + 120)};
    out->reset_value = f[128];
    if ((flags & FADT_RESET_REG_SUP) && out->reset.addr != 0)
        out->reset_fault = check_reset(&out->reset, f[118]);
    out->has_reset = (flags & FADT_RESET_REG_SUP) && out->reset.addr != 0 && !out->reset_fault;
    out->dsdt = hpa(bytes_get64(f + 140) ? bytes_get64(f + 140) : bytes_get32(f + 40));
    struct acpi_table dsdt;
    if (read_table(t, out->dsdt.v, &dsdt) == STATUS_OK && memcmp(dsdt.signature, "DSDT", 4) == 0)
        find_s5(t, &dsdt, out);
    return STATUS_OK;
}
