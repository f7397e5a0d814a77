/* ACPI tables for a guest: RSDP, XSDT, FADT, FACS, MADT, MCFG, HPET, DSDT (ACPI 6.x). Pure: bytes into a
 * buffer. */
#pragma once

#include "drivers/vdev/vpci.h"

#define ACPI_BUILD_MAX_VCPUS 64u
#define ACPI_BUILD_SIZE      0x4000u /* bytes that are always enough */

/* INTx of a PCI device: the IOAPIC input (GSI) that slot and pin (0 = INTA) are wired to, as _PRT says. */
#define ACPI_PCI_SLOTS 32u
#define ACPI_PCI_PINS  4u
static inline uint32_t acpi_pci_gsi(uint32_t slot, uint32_t pin)
{
    return 16 + (slot + pin) % 8;
}

struct acpi_build {
    uint32_t vcpu_count; /* 1..ACPI_BUILD_MAX_VCPUS; APIC ID = index */
    gpa_t base;          /* where `buf` will be in guest memory: 64-byte aligned, below 4 GiB */
    /* PCI windows, VPCI_WINDOWS of them: where the guest finds BARs, and may put them. first > last: unused.
     */
    const struct vpci_window *windows;
};

struct acpi_built {
    gpa_t rsdp;
    uint32_t size; /* bytes used of the buffer */
};

/* ERR_INVALID: bad parameters; ERR_NO_MEMORY: the buffer is too small. */
enum status acpi_build(const struct acpi_build *params, uint8_t *buf, size_t size, struct acpi_built *out);
