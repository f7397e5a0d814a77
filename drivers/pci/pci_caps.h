/* The two lists of capabilities of a function (PCI Express Base 6.0, 7.5.1.1.11 and 7.6.3). Pure. A list that
 * a device made into a loop, or that leads nowhere, ends the walk: it is bounded by what fits into the space.
 */
#pragma once

#include "drivers/pci/pci.h"

struct pci_cap_walk {
    const struct pci_config *cfg;
    uint16_t bdf;
    uint16_t id, offset; /* the capability it stands at; meaningful after pci_caps_next() answered true */
    bool extended;
    uint16_t next, left;
};

/* Begins before the first capability of the list; `extended`: the list at 0x100. */
struct pci_cap_walk pci_caps_walk(const struct pci_config *cfg, uint16_t bdf, bool extended);
/* False: there are no more. */
bool pci_caps_next(struct pci_cap_walk *walk);
/* Offset of the first capability with this id, which with `bytes` bytes fits into its space; 0: none. */
uint16_t pci_caps_find(const struct pci_config *cfg, uint16_t bdf, bool extended, uint16_t id,
                       unsigned bytes);
