#include "drivers/irqchip/irqchip.h"
#include "hv/lib/bits.h"

/* Two registers give access to all others. */
#define SELECT 0x00u
#define WINDOW 0x10u

#define REG_VERSION   0x01u
#define REG_ENTRY(n)  (0x10u + 2u * (n)) /* low half; the high one follows */
#define LAST_ENTRY(v) ((v) >> 16 & 0xffu)
#define PINS_MAX      240u /* register numbers have eight bits */
#define ABSENT        0xffffffffu

#define ENTRY_MODE     (7u << 8)
#define ENTRY_MODE_SMI (2u << 8)
#define ENTRY_LOW      BIT(13)
#define ENTRY_MASKED   BIT(16)
#define DEST_SHIFT     56

/* The same entry behind an IOMMU that remaps. */
#define REMAPPED_FORMAT BIT(48)
#define REMAPPED_LOW(i) ((uint64_t)((i)&0x7fffu) << 49)
#define REMAPPED_TOP(i) ((uint64_t)((i) >> 15) << 11)

/* Flags of an override (MPS INTI): 0 is the bus's own way, for ISA edge-triggered and active high. */
#define INTI_POLARITY(f) ((f)&3u)
#define INTI_TRIGGER(f)  ((f) >> 2 & 3u)
#define INTI_OPPOSITE    3u /* active low; level-triggered */

static uint32_t read(const struct mmio *chip, uint32_t reg)
{
    mmio_write32(chip, SELECT, reg);
    return mmio_read32(chip, WINDOW);
}

static void write(const struct mmio *chip, uint32_t reg, uint32_t value)
{
    mmio_write32(chip, SELECT, reg);
    mmio_write32(chip, WINDOW, value);
}

enum status irqchip_find(const struct acpi_madt *madt, uint8_t isa_irq, struct irqchip_input *out)
{
    uint32_t gsi = isa_irq;
    uint16_t flags = 0;
    for (uint32_t i = 0; i < madt->override_count; i++) {
        if (madt->overrides[i].irq != isa_irq)
            continue;
        gsi = madt->overrides[i].gsi;
        flags = madt->overrides[i].flags;
    }
    const struct acpi_ioapic *chip = NULL;
    for (uint32_t i = 0; i < madt->ioapic_count; i++)
        if (madt->ioapics[i].gsi_base <= gsi && (!chip || madt->ioapics[i].gsi_base > chip->gsi_base))
            chip = &madt->ioapics[i];
    if (!chip || gsi - chip->gsi_base >= PINS_MAX / 2)
        return ERR_NOT_FOUND;
    if (INTI_TRIGGER(flags) == INTI_OPPOSITE)
        return ERR_UNSUPPORTED;
    *out = (struct irqchip_input){.chip = chip->addr,
                                  .id = chip->id,
                                  .pin = (uint8_t)(gsi - chip->gsi_base),
                                  .low = INTI_POLARITY(flags) == INTI_OPPOSITE};
    return STATUS_OK;
}

uint64_t irqchip_message(uint8_t vector, uint8_t apic_id)
{
    return (uint64_t)apic_id << DEST_SHIFT | vector;
}

uint64_t irqchip_remapped(uint16_t index, uint8_t vector)
{
    return REMAPPED_FORMAT | REMAPPED_LOW(index) | REMAPPED_TOP(index) | vector;
}

enum status irqchip_open(const struct mmio *chip, const struct irqchip_input *input, uint64_t message)
{
    uint32_t version = read(chip, REG_VERSION);
    if (version == ABSENT || version == 0)
        return ERR_NOT_FOUND;
    uint32_t last = LAST_ENTRY(version);
    if (input->pin > last || last >= PINS_MAX / 2)
        return ERR_RANGE;
    for (uint32_t pin = 0; pin <= last; pin++) {
        uint32_t low = read(chip, REG_ENTRY(pin));
        if ((low & ENTRY_MODE) != ENTRY_MODE_SMI || pin == input->pin)
            write(chip, REG_ENTRY(pin), low | ENTRY_MASKED);
    }
    /* The half with the mask comes last: half a message never counts. */
    write(chip, REG_ENTRY(input->pin) + 1, (uint32_t)(message >> 32));
    write(chip, REG_ENTRY(input->pin), (uint32_t)(message | (input->low ? ENTRY_LOW : 0)));
    return STATUS_OK;
}
