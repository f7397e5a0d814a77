/* The machine's IOAPICs (Intel 82093AA data sheet; ACPI specification 6.5, 5.2.12), as far as Bulkhead needs
 * them: an ISA interrupt of its own reaches a CPU, and no other input does. Pure: registers come in. */
#pragma once

#include "drivers/acpi/acpi.h"
#include "drivers/mmio.h"

#define IRQCHIP_SIZE 0x20u /* bytes of registers */

/* Where an ISA interrupt arrives. */
struct irqchip_input {
    hpa_t chip; /* registers of its IOAPIC */
    uint8_t id; /* of that IOAPIC, as the DMAR table names it */
    uint8_t pin;
    bool low; /* active low */
};

/* ERR_NOT_FOUND: no IOAPIC has it. ERR_UNSUPPORTED: it is level-triggered, so somebody else may hold it. */
enum status irqchip_find(const struct acpi_madt *madt, uint8_t isa_irq, struct irqchip_input *out);

/* What an input raises: a vector at a CPU ... */
uint64_t irqchip_message(uint8_t vector, uint8_t apic_id);
/* ... or, behind an IOMMU that remaps, its entry of this index (VT-d specification 4.1, 5.1.5.1). The vector
 * is the entry's. */
uint64_t irqchip_remapped(uint16_t index, uint8_t vector);

/* Masks every input but those that are SMM's, then lets this one raise its message. ERR_RANGE: it has no such
 * pin. ERR_NOT_FOUND: the registers do not answer. */
enum status irqchip_open(const struct mmio *chip, const struct irqchip_input *input, uint64_t message);
