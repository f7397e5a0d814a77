/* Parts of reading a function that its scan and the making of VFs share. */
#pragma once

#include "drivers/pci/pci.h"

#define PCI_MSIX_ENTRY 16u /* bytes */

static inline bool pci_bar_is_64(uint8_t kind)
{
    return kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH;
}

/* A root port or a switch's downstream port: a link begins there. */
static inline bool pci_is_port(const struct pci_device *dev)
{
    return dev->pcie && (dev->exp_type == PCI_EXP_ROOT_PORT || dev->exp_type == PCI_EXP_DOWNSTREAM);
}

/* `count` registers from `offset` on. `sizing`: by writing all ones; decoders must be off. Without it sizes
 * stay 0, and only those with an address are reported. */
void pci_read_bars(const struct pci_config *cfg, uint16_t bdf, uint32_t offset, unsigned count, bool sizing,
                   struct pci_bar *bars);
/* Fills what capabilities say, MSI-X by the BARs that are known; not what is behind SR-IOV's. */
void pci_read_caps(const struct pci_config *cfg, struct pci_device *dev);
