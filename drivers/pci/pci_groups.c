/* Isolation groups, by the rules that Linux has for its IOMMU groups: a bus, bridge or device that may send a
 * request to a neighbour without passing the IOMMU ties the two together (PCI Express Base 6.0, 6.12). */
#include "drivers/pci/pci.h"
#include "drivers/pci/pci_read.h"
#include "hv/lib/fmt.h"

#define ACS_NEEDED (PCI_ACS_SV | PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_UF)

#define VENDOR_INTEL 0x8086u

/* Network cards without the capability, whose maker confirmed to Linux's developers that their functions do
 * not reach each other inside the card. */
static bool is_known_isolated(const struct pci_device *dev)
{
    return dev->vendor == VENDOR_INTEL && (dev->device == 0x10c9 || dev->device == 0x1521); /* 82576, I350 */
}

/* What is missing from the capability is hard-wired to redirect; without the capability nothing is known. */
static bool redirects(const struct pci_device *dev)
{
    return dev->acs != 0 && !dev->acs_refused;
}

/* Does all that passes the function, or leaves it, go up to the IOMMU? */
static bool isolates(const struct pci_device *dev)
{
    if (!dev->pcie)
        return false; /* conventional PCI: a shared bus */
    switch (dev->exp_type) {
    case PCI_EXP_ROOT_PORT:
    case PCI_EXP_DOWNSTREAM:
        return redirects(dev);
    case PCI_EXP_TO_PCI:
    case PCI_EXP_FROM_PCI:
    case PCI_EXP_RC_COLLECTOR:
        return false;
    default:
        return !dev->multifunction || redirects(dev) || is_known_isolated(dev);
    }
}

/* While groups are built, `group` leads to a member found earlier; the first member leads to itself. */
static uint16_t first_of(const struct pci_inventory *inv, uint16_t i)
{
    while (inv->devices[i].group != i)
        i = inv->devices[i].group;
    return i;
}

static void join(struct pci_inventory *inv, uint32_t one, uint32_t other)
{
    uint16_t a = first_of(inv, (uint16_t)one), b = first_of(inv, (uint16_t)other);
    if (a < b)
        inv->devices[b].group = a;
    else
        inv->devices[a].group = b;
}

/* Everything below a bridge that does not isolate is one group with it, however deep: requests come out under
 * the bridge's name, or are turned round in it. */
static void join_bridges(struct pci_inventory *inv, uint32_t i)
{
    uint32_t joined = i;
    for (uint32_t up = inv->devices[i].parent; up != PCI_NO_PARENT; up = inv->devices[up].parent)
        if (!isolates(&inv->devices[up]))
            for (; joined != up; joined = inv->devices[joined].parent)
                join(inv, joined, inv->devices[joined].parent);
}

/* Functions of one device, when neither says that it keeps them apart. */
static void join_functions(struct pci_inventory *inv, uint32_t i)
{
    const struct pci_device *dev = &inv->devices[i];
    if (!dev->multifunction || isolates(dev))
        return;
    for (uint32_t k = 0; k < inv->count; k++) {
        const struct pci_device *other = &inv->devices[k];
        if (!other->is_vf && (other->bdf ^ dev->bdf) < PCI_FUNCTIONS && !isolates(other))
            join(inv, i, k);
    }
}

void pci_group(struct pci_inventory *inv)
{
    for (uint32_t i = 0; i < inv->count; i++)
        inv->devices[i].group = (uint16_t)i;
    for (uint32_t i = 0; i < inv->count; i++) {
        join_bridges(inv, i);
        join_functions(inv, i);
    }
    for (uint32_t i = 0; i < inv->count; i++)
        inv->devices[i].group = first_of(inv, (uint16_t)i);
}

void pci_acs_enable(struct pci_inventory *inv, const struct pci_config *cfg)
{
    for (uint32_t i = 0; i < inv->count; i++) {
        struct pci_device *dev = &inv->devices[i];
        if (!dev->acs)
            continue;
        uint16_t want = dev->acs_caps & ACS_NEEDED, at = dev->acs + PCI_ACS_CONTROL;
        uint32_t control = cfg->read(cfg->ctx, dev->bdf, at, 2);
        if ((control & want) != want || (control & PCI_ACS_DT))
            cfg->write(cfg->ctx, dev->bdf, at, 2, (control | want) & ~PCI_ACS_DT);
        dev->acs_control = (uint16_t)cfg->read(cfg->ctx, dev->bdf, at, 2);
        dev->acs_refused = (dev->acs_control & want) != want || (dev->acs_control & PCI_ACS_DT);
    }
    pci_group(inv);
}

struct pci_device *pci_group_mate(const struct pci_inventory *inv, const struct pci_device *dev,
                                  const struct pci_device *after)
{
    for (uint32_t i = after ? (uint32_t)(after - inv->devices) + 1 : 0; i < inv->count; i++) {
        struct pci_device *mate = &inv->devices[i];
        if (mate != dev && mate->group == dev->group && mate->header == 0)
            return mate;
    }
    return NULL;
}

bool pci_has_own_id(const struct pci_inventory *inv, const struct pci_device *dev)
{
    for (uint16_t up = dev->parent; up != PCI_NO_PARENT; up = inv->devices[up].parent)
        if (!inv->devices[up].pcie || inv->devices[up].exp_type == PCI_EXP_TO_PCI)
            return false;
    return true;
}

bool pci_is_machine(const struct pci_device *dev)
{
    unsigned class = dev->class_code >> 16;
    return dev->header != 0 || class == PCI_CLASS_BRIDGE || class == PCI_CLASS_SYSTEM ||
           class == PCI_CLASS_DISPLAY;
}

/* Why a function is no one's to have, or NULL. */
static const char *why_kept(const struct pci_inventory *inv, const struct pci_device *dev)
{
    if (pci_is_machine(dev))
        return "stays with Bulkhead";
    if (!dev->msix && !dev->msi)
        return "no MSI: its interrupts cannot be remapped";
    if (!pci_can_reset(inv, dev))
        return "cannot be reset alone: it could not change its owner";
    if (!pci_has_own_id(inv, dev))
        return "behind a bridge to conventional PCI: no IOMMU knows its requests from others'";
    return NULL;
}

bool pci_verdict(const struct pci_inventory *inv, const struct pci_device *dev, char *text, size_t size)
{
    const char *kept = why_kept(inv, dev);
    const struct pci_device *mate = pci_group_mate(inv, dev, NULL);
    if (kept)
        fmt_format(text, size, "%s", kept);
    else if (mate)
        fmt_format(text, size, "needs ACS: shares a group with " BDF_FMT, BDF_ARGS(mate->bdf));
    else if (dev->sriov.total)
        fmt_format(text, size, "assignable; %u VFs", dev->sriov.total);
    else
        fmt_format(text, size, "assignable");
    return !kept && !mate;
}
