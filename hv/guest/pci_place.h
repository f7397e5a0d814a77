/* Where the BARs of a VM's assigned functions are when it starts: what a PC's firmware would have done. */
#pragma once

#include "drivers/vdev/vpci.h"
#include "hv/guest/layout.h"

/* A guest's PCI memory windows; an unused one has first > last. */
enum { PCI_PLACE_LOW, PCI_PLACE_HIGH /* around ECAM */, PCI_PLACE_ABOVE /* all RAM */ };
STATIC_ASSERT(PCI_PLACE_ABOVE + 1 == VPCI_WINDOWS, "a setup has room for all windows");

/* phys_bits: the guest's physical address width. The window above RAM ends where that does. */
void pci_place_windows(const struct guest_layout *layout, unsigned phys_bits,
                       struct vpci_window windows[VPCI_WINDOWS]);
/* Gives each of `count` functions the windows, and each BAR that is shown a place: aligned to its size, no
 * two in one page, below 4 GiB when there is room (a 64-bit BAR else above RAM), whatever needs to be there
 * first. ERR_NO_MEMORY: BAR *bar of function *which does not fit; nothing is placed then. */
enum status pci_place(struct vpci_setup *const *setups, uint32_t count,
                      const struct vpci_window windows[VPCI_WINDOWS], uint32_t *which, unsigned *bar);
