/* The firmware's description of a PCI root bridge's resources. Pure. */
#pragma once

#include "hv/lib/types.h"

/* Finds the bus numbers in a list of ACPI resource descriptors, which is at most `limit` bytes long. False:
 * there are none, or it cannot be walked. */
bool boot_pci_buses(const uint8_t *list, size_t limit, uint8_t *first, uint8_t *last);
