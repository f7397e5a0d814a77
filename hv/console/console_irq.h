/* The way of the serial port's interrupt to the CPU that polls the console: IOAPIC, and the IOMMU's remapping
 * where there is one. */
#pragma once

#include "drivers/acpi/acpi.h"

/* Opens it, and lets the console try it. Says why when there is none: the console is polled then. Boot CPU,
 * once, behind the IOMMUs' fence. tables: NULL: the machine has none. */
void console_irq_start(const struct acpi_tables *tables);
