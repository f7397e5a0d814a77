/* Taking bus mastering away from what firmware left running. */
#pragma once

#include "hv/lib/types.h"

/* Clears Bus Master Enable of every PCI function but bridges and displays: a device that still writes to the
 * memory its firmware driver had would write into a guest's. Returns how many were changed. Once, before
 * guests get memory. */
unsigned pci_quiesce(void);
