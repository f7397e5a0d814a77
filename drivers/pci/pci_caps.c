#include "drivers/pci/pci_caps.h"

#define CAP_SIZE     4u /* an entry is at least that long, and begins at a multiple of it */
#define LEGACY_MAX   ((PCI_LEGACY_SIZE - PCI_HEADER_SIZE) / CAP_SIZE)
#define EXTENDED_MAX ((PCI_CONFIG_SIZE - PCI_REG_EXTENDED) / CAP_SIZE)

struct pci_cap_walk pci_caps_walk(const struct pci_config *cfg, uint16_t bdf, bool extended)
{
    struct pci_cap_walk walk = {.cfg = cfg, .bdf = bdf, .extended = extended};
    if (extended) {
        walk.next = PCI_REG_EXTENDED;
        walk.left = EXTENDED_MAX;
    } else if (cfg->read(cfg->ctx, bdf, PCI_REG_COMMAND, 4) & PCI_STATUS_CAPS) {
        walk.next = (uint16_t)(cfg->read(cfg->ctx, bdf, PCI_REG_CAPABILITIES, 1) & ~3u);
        walk.left = LEGACY_MAX;
    }
    return walk;
}

bool pci_caps_next(struct pci_cap_walk *walk)
{
    const struct pci_config *cfg = walk->cfg;
    unsigned first = walk->extended ? PCI_REG_EXTENDED : PCI_HEADER_SIZE;
    if (walk->left == 0 || walk->next < first)
        return false;
    uint32_t entry = cfg->read(cfg->ctx, walk->bdf, walk->next, 4);
    if (entry == PCI_ID_NONE || (walk->extended && entry == 0)) /* no such space; no extended capability */
        return false;
    walk->left--;
    walk->offset = walk->next;
    walk->id = (uint16_t)(walk->extended ? entry & 0xffff : entry & 0xff);
    walk->next = (uint16_t)(walk->extended ? entry >> 20 & ~3u : entry >> 8 & 0xfc);
    return true;
}

uint16_t pci_caps_find(const struct pci_config *cfg, uint16_t bdf, bool extended, uint16_t id, unsigned bytes)
{
    struct pci_cap_walk walk = pci_caps_walk(cfg, bdf, extended);
    unsigned end = extended ? PCI_CONFIG_SIZE : PCI_LEGACY_SIZE;
    while (pci_caps_next(&walk))
        if (walk.id == id && walk.offset + bytes <= end)
            return walk.offset;
    return 0;
}
