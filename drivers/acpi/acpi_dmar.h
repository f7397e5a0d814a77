/* The DMAR table: which IOMMUs (VT-d) a machine has, which devices are behind which, and which memory the
 * firmware's devices must keep (VT-d specification 4.1, chapter 8). Pure. Bus numbers in it are those of the
 * moment the firmware wrote it; paths are followed by drivers/iommu. */
#pragma once

#include "drivers/acpi/acpi.h"

#define ACPI_DMAR_UNITS   24u
#define ACPI_DMAR_REGIONS 24u
#define ACPI_DMAR_PORTS   16u
#define ACPI_DMAR_NAMES   16u
#define ACPI_DMAR_SCOPES  320u
#define ACPI_DMAR_DEPTH   6u /* bridges on a path, and the device itself */
#define ACPI_DMAR_NAME    20u

/* 8.3.1 */
enum acpi_dmar_scope_type {
    ACPI_DMAR_ENDPOINT = 1,
    ACPI_DMAR_BRIDGE = 2, /* with everything below it */
    ACPI_DMAR_IOAPIC = 3,
    ACPI_DMAR_HPET = 4,
    ACPI_DMAR_NAMESPACE = 5, /* a device that PCI does not list; see struct acpi_dmar_name */
};

struct acpi_dmar_scope {
    uint8_t type;        /* enum acpi_dmar_scope_type */
    uint8_t enumeration; /* IOAPIC's id, HPET's or namespace device's number */
    uint8_t bus;         /* where the path starts */
    uint8_t depth;       /* 1..ACPI_DMAR_DEPTH */
    struct {
        uint8_t device, function; /* below 32, below 8 */
    } path[ACPI_DMAR_DEPTH];
};

/* scopes[first] up to scopes[first + count - 1] of struct acpi_dmar */
struct acpi_dmar_scopes {
    uint16_t first, count;
};

struct acpi_dmar_unit {
    hpa_t base; /* of the registers; page-aligned */
    uint16_t segment;
    bool all; /* has everything of its segment that no other unit names */
    bool has_proximity;
    uint32_t proximity; /* RHSA: its NUMA domain */
    struct acpi_dmar_scopes scopes;
};

/* RMRR: memory that these devices use on the firmware's behalf, whoever owns the machine. */
struct acpi_dmar_region {
    uint64_t base, limit; /* limit inclusive; whole pages, base below limit */
    uint16_t segment;
    struct acpi_dmar_scopes scopes;
};

/* ATSR: root ports, or SATC: integrated devices, that may keep translations of their own (ATS). */
struct acpi_dmar_ats {
    uint16_t segment;
    bool all;      /* ATSR: every root port of the segment */
    bool satc;     /* else ATSR */
    bool required; /* SATC: the device needs it to work */
    struct acpi_dmar_scopes scopes;
};

/* ANDD */
struct acpi_dmar_name {
    uint8_t number;
    char name[ACPI_DMAR_NAME]; /* cut when longer; printable */
};

struct acpi_dmar {
    uint8_t width; /* bits of a DMA address that the platform can have, 1..64 */
    bool can_remap_interrupts, x2apic_opt_out, dma_opt_in;
    uint32_t unit_count, region_count, ats_count, name_count, scope_count;
    uint32_t unknown; /* structures of a type that we do not know, passed over */
    struct acpi_dmar_unit units[ACPI_DMAR_UNITS];
    struct acpi_dmar_region regions[ACPI_DMAR_REGIONS];
    struct acpi_dmar_ats ats[ACPI_DMAR_PORTS];
    struct acpi_dmar_name names[ACPI_DMAR_NAMES];
    struct acpi_dmar_scope scopes[ACPI_DMAR_SCOPES];
};

/* Nothing that matters for isolation is left out in silence: a unit or region that does not fit, lies
 * outside of its structure or makes no sense fails the whole table, with *why a static sentence.
 * ERR_NOT_FOUND: there is no DMAR. ERR_INVALID: it is broken. ERR_NO_MEMORY: more of something than fits. */
enum status acpi_read_dmar(const struct acpi_tables *t, struct acpi_dmar *out, const char **why);
