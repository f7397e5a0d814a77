/* The configuration space of one emulated PCI function: a register file in which every bit is read-only until
 * it is declared writable (PCI Local Bus 3.0, chapter 6; PCI Express base, section "Configuration Space").
 * Storage belongs to the owner. */
#pragma once

#include "drivers/pci/pci_regs.h"

#define PCI_SPACE_LEGACY_DWORDS  64u   /* 256 bytes */
#define PCI_SPACE_EXPRESS_DWORDS 1024u /* 4096 bytes */

struct pci_space {
    uint32_t *value;
    uint32_t *writable;         /* bits that a write stores */
    uint32_t *w1c;              /* bits that a write of 1 clears */
    uint32_t dwords;            /* entries in each: PCI_SPACE_LEGACY_DWORDS or PCI_SPACE_EXPRESS_DWORDS */
    uint8_t bar_kind[PCI_BARS]; /* enum pci_bar_kind; the upper half of a 64-bit BAR is NONE */
};

/* An empty function: all zero, nothing writable. `storage` holds 3 * dwords. */
void pci_space_init(struct pci_space *space, uint32_t *storage, uint32_t dwords, uint16_t vendor,
                    uint16_t device, uint32_t class_code);
/* Declares a base address register. ERR_INVALID: size is no power of two or smaller than 16 (memory) / 4
 * (I/O) bytes, index or kind impossible. ERR_EXISTS: in use. The register then answers the sizing protocol by
 * itself. */
enum status pci_space_add_bar(struct pci_space *space, unsigned index, enum pci_bar_kind kind, uint64_t size);
/* Where a BAR is mapped now. False: there is no such BAR, or the command register has its decoder off. */
bool pci_space_bar(const struct pci_space *space, unsigned index, uint64_t *address);

/* `offset` in bytes, a multiple of 4. A read beyond the space gives all-ones. `mask` has 0xff for each
 * enabled byte. */
uint32_t pci_space_read(const struct pci_space *space, uint32_t offset);
void pci_space_write(struct pci_space *space, uint32_t offset, uint32_t value, uint32_t mask);
