/* The host's ACPI tables, as far as Bulkhead looks at them. Pure: memory is read through a callback; nothing
 * in a table is believed before it was checked, and every walk is bounded. */
#pragma once

#include "hv/lib/addr.h"

#define ACPI_MAX_TABLES    128u
#define ACPI_MAX_TABLE     (1u << 20) /* bytes; longer ones are refused */
#define ACPI_MAX_CPUS      256u
#define ACPI_MAX_IOAPICS   16u
#define ACPI_MAX_OVERRIDES 16u
#define ACPI_MAX_ECAMS     16u

struct acpi_reader {
    void *ctx;
    /* Copies host-physical memory; anything but STATUS_OK ends the walk. */
    enum status (*read)(void *ctx, hpa_t addr, void *buf, size_t size);
};

struct acpi_table {
    char signature[4];
    hpa_t addr;
    uint32_t length; /* bytes, header included */
};

/* The tables that exist; those with a bad checksum or length are counted and left out. */
struct acpi_tables {
    struct acpi_reader reader;
    uint8_t revision; /* of the RSDP */
    uint32_t count, bad;
    struct acpi_table tables[ACPI_MAX_TABLES];
};

/* Reads RSDP and XSDT (or RSDT). ERR_INVALID: a checksum, signature or length is wrong. */
enum status acpi_open(struct acpi_tables *t, const struct acpi_reader *reader, hpa_t rsdp);
/* The n-th (from 0) table of this signature ("APIC", "DMAR" ...), or NULL. */
const struct acpi_table *acpi_find(const struct acpi_tables *t, const char *signature, unsigned n);
bool acpi_has_dmar(const struct acpi_tables *t);

struct acpi_cpu {
    uint32_t apic_id, uid;
    bool enabled, online_capable, x2apic;
};
struct acpi_ioapic {
    hpa_t addr;
    uint32_t gsi_base;
    uint8_t id;
};
struct acpi_override {
    uint8_t irq;
    uint32_t gsi;
    uint16_t flags; /* MPS INTI flags */
};
struct acpi_madt {
    hpa_t lapic;
    bool has_8259;
    uint32_t cpu_count, ioapic_count, override_count;
    uint32_t dropped; /* entries that did not fit or make sense */
    struct acpi_cpu cpus[ACPI_MAX_CPUS];
    struct acpi_ioapic ioapics[ACPI_MAX_IOAPICS];
    struct acpi_override overrides[ACPI_MAX_OVERRIDES];
};
/* ERR_NOT_FOUND: no MADT. ERR_INVALID: it cannot be walked. */
enum status acpi_read_madt(const struct acpi_tables *t, struct acpi_madt *out);

struct acpi_ecam {
    hpa_t base; /* of bus 0 */
    uint16_t segment;
    uint8_t first_bus, last_bus;
};
struct acpi_mcfg {
    uint32_t count, dropped;
    struct acpi_ecam ecams[ACPI_MAX_ECAMS];
};
enum status acpi_read_mcfg(const struct acpi_tables *t, struct acpi_mcfg *out);

enum acpi_space { ACPI_SPACE_MEMORY = 0, ACPI_SPACE_IO = 1, ACPI_SPACE_PCI = 2 };
struct acpi_gas {
    uint64_t addr; /* 0: absent */
    uint8_t space; /* enum acpi_space */
    uint8_t bits;
};
/* An address in configuration space (ACPI 6.5, 5.2.3.2). */
#define ACPI_PCI_DEVICE(addr)   ((unsigned)((addr) >> 32 & 0xffff))
#define ACPI_PCI_FUNCTION(addr) ((unsigned)((addr) >> 16 & 0xffff))
#define ACPI_PCI_OFFSET(addr)   ((unsigned)((addr)&0xffff))
struct acpi_fadt {
    struct acpi_gas pm1a_cnt, pm1b_cnt, pm_timer, reset;
    uint8_t reset_value;
    bool has_reset; /* and it can be used: 8 bits in I/O space, or in the configuration space of bus 0 */
    const char *reset_fault; /* why a register that is there cannot be used; NULL: there is none, or it can */
    bool pm_timer_32bit, hw_reduced;
    uint16_t sci;
    uint32_t smi_cmd;
    uint8_t acpi_enable;
    hpa_t dsdt;
    /* \_S5's SLP_TYP values, found by a bounded search of the DSDT; has_s5 = false: not found. */
    bool has_s5;
    uint8_t s5_typ_a, s5_typ_b;
};
enum status acpi_read_fadt(const struct acpi_tables *t, struct acpi_fadt *out);
