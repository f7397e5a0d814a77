/* The host's ACPI tables from anywhere: nothing outside of what exists is read, every walk ends, and what is
 * reported obeys its bounds. Checksums are repaired on request, or the fuzzer would never get past them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/acpi/acpi.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define MEMORY 8192u
static uint8_t mem[MEMORY];
static uint64_t bytes_read;

static enum status read_mem(void *ctx, hpa_t addr, void *buf, size_t size)
{
    (void)ctx;
    if (addr.v > MEMORY || size > MEMORY - addr.v)
        return ERR_RANGE;
    memcpy(buf, mem + addr.v, size);
    bytes_read += size;
    return STATUS_OK;
}

/* Makes [at, at+n) sum to 0 by the byte at `where`. */
static void repair(uint64_t at, uint64_t n, uint64_t where)
{
    uint8_t s = 0;
    if (at > MEMORY || n > MEMORY - at || where >= MEMORY)
        return;
    for (uint64_t i = 0; i < n; i++)
        s = (uint8_t)(s + mem[at + i]);
    mem[where] = (uint8_t)(mem[where] - s);
}

static uint64_t get(uint64_t at, unsigned n)
{
    uint64_t v = 0;
    if (at <= MEMORY && n <= MEMORY - at)
        memcpy(&v, mem + at, n);
    return v;
}

static void repair_table(uint64_t at)
{
    repair(at, get(at + 4, 4), at + 9);
}

/* RSDP at 16, lists wherever it says, tables wherever they say; last the root, which others may have
 * overwritten. */
static void repair_all(void)
{
    memcpy(mem + 16, "RSD PTR ", 8);
    uint64_t xsdt = get(16 + 24, 8), rsdt = get(16 + 16, 4);
    for (unsigned i = 0; i < 16; i++) {
        uint64_t e = get(xsdt + 36 + 8 * i, 8), dsdt = get(e + 40, 4);
        repair_table(dsdt);
        repair_table(e);
        repair_table(get(rsdt + 36 + 4 * i, 4));
    }
    repair_table(rsdt);
    repair_table(xsdt);
    repair(16, 20, 16 + 8);
    repair(16, 36, 16 + 32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct acpi_tables t;
    static struct acpi_madt madt;
    struct acpi_mcfg mcfg;
    struct acpi_fadt fadt;
    if (size < 1)
        return 0;
    memset(mem, 0, sizeof(mem));
    memcpy(mem + 16, data + 1, size - 1 < MEMORY - 16 ? size - 1 : MEMORY - 16);
    if (data[0] & 1)
        repair_all();
    const struct acpi_reader reader = {NULL, read_mem};
    bytes_read = 0;
    if (acpi_open(&t, &reader, hpa(16)) != STATUS_OK)
        return 0;
    CHECK(t.count <= ACPI_MAX_TABLES);
    for (uint32_t i = 0; i < t.count; i++) {
        uint8_t s = 0;
        CHECK(t.tables[i].length >= 36 && t.tables[i].addr.v + t.tables[i].length <= MEMORY);
        for (uint32_t k = 0; k < t.tables[i].length; k++)
            s = (uint8_t)(s + mem[t.tables[i].addr.v + k]);
        CHECK(s == 0);
    }
    if (acpi_read_madt(&t, &madt) == STATUS_OK) {
        CHECK(madt.cpu_count <= ACPI_MAX_CPUS && madt.ioapic_count <= ACPI_MAX_IOAPICS);
        CHECK(madt.override_count <= ACPI_MAX_OVERRIDES);
        for (uint32_t i = 0; i < madt.cpu_count; i++) {
            CHECK(madt.cpus[i].enabled || madt.cpus[i].online_capable);
            for (uint32_t k = 0; k < i; k++)
                CHECK(madt.cpus[i].apic_id != madt.cpus[k].apic_id);
        }
    }
    if (acpi_read_mcfg(&t, &mcfg) == STATUS_OK)
        for (uint32_t i = 0; i < mcfg.count; i++)
            CHECK(mcfg.ecams[i].base.v % (1u << 20) == 0 &&
                  mcfg.ecams[i].first_bus <= mcfg.ecams[i].last_bus);
    if (acpi_read_fadt(&t, &fadt) == STATUS_OK && fadt.has_s5)
        CHECK(fadt.s5_typ_a <= 7 && fadt.s5_typ_b <= 7);
    (void)acpi_has_dmar(&t);
    /* Each list entry costs at most two passes over what exists, plus the walks: no input makes it read for
     * ever. */
    CHECK(bytes_read < (uint64_t)MEMORY * (MEMORY / 4 + 64) * 2);
    return 0;
}
