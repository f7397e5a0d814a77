#include "hv/console/console_irq.h"
#include "drivers/irqchip/irqchip.h"
#include "hv/assign/devices.h"
#include "hv/console/console.h"
#include "hv/core.h"
#include "hv/lib/log.h"

#define ISA_IRQ_COM1 4u
#define XAPIC_ID_MAX 254u

#define MADT_PAGES ((uint32_t)(align_up(sizeof(struct acpi_madt), PAGE_SIZE) / PAGE_SIZE))

static const char *find_input(const struct acpi_tables *tables, struct irqchip_input *input)
{
    struct acpi_madt *madt = pool_alloc_pages(&core.pool, MADT_PAGES);
    if (!madt)
        return "Bulkhead's own memory is used up";
    enum status s = acpi_read_madt(tables, madt);
    const char *why = s == STATUS_OK ? NULL : "the firmware's table of interrupt controllers is not usable";
    if (!why && irqchip_find(madt, ISA_IRQ_COM1, input) != STATUS_OK)
        why = "no IOAPIC has interrupt 4 for it alone";
    (void)pool_free_pages(&core.pool, madt, MADT_PAGES);
    return why;
}

/* The IOMMU blocks messages of the old format, so it must have an entry. */
static const char *find_message(const struct irqchip_input *input, uint64_t *message)
{
    uint32_t apic_id = core.cpus[0].apic_id, handle;
    uint16_t bdf;
    if (!iommu_can_remap(core.iommu)) {
        *message = irqchip_message(HOST_VECTOR_CONSOLE, (uint8_t)apic_id);
        return apic_id <= XAPIC_ID_MAX ? NULL : "the IOAPIC cannot name the boot CPU";
    }
    if (!iommu_ioapic(core.iommu, input->id, &bdf))
        return "the DMAR table does not name its IOAPIC";
    if (iommu_irq_alloc(core.iommu, bdf, bdf, 1, &handle) != STATUS_OK ||
        iommu_irq_route(core.iommu, handle, apic_id, HOST_VECTOR_CONSOLE) != STATUS_OK)
        return "the IOMMU has no entry for it";
    *message = irqchip_remapped(iommu_irq_index(handle), HOST_VECTOR_CONSOLE);
    return NULL;
}

static const char *open_input(const struct acpi_tables *tables)
{
    struct irqchip_input input;
    struct mmio chip;
    uint64_t message = 0;
    const char *why = tables ? find_input(tables, &input) : "the machine has no ACPI tables";
    if (!why)
        why = find_message(&input, &message);
    if (!why && !devices_map(input.chip, IRQCHIP_SIZE, &chip))
        why = "the IOAPIC's registers cannot be mapped";
    if (!why && irqchip_open(&chip, &input, message) != STATUS_OK)
        why = "the IOAPIC does not answer";
    return why;
}

void console_irq_start(const struct acpi_tables *tables)
{
    const char *why = open_input(tables);
    if (why)
        log_line(LOG_INFO, "core", "the serial port is polled %u times a second: %s",
                 CONSOLE_POLLS_PER_SECOND, why);
    else
        console_listen();
}
