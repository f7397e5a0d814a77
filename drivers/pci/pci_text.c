#include "drivers/pci/pci.h"
#include "hv/lib/fmt.h"

/* The "PCI Code and ID Assignment Specification", appendix D, as far as people meet it in a list. */
static const struct {
    uint16_t class; /* class << 8 | subclass */
    const char *name;
} names[] = {{0x0101, "IDE controller"},
             {0x0104, "RAID controller"},
             {0x0106, "SATA controller"},
             {0x0107, "SAS controller"},
             {0x0108, "NVMe controller"},
             {0x0200, "Ethernet controller"},
             {0x0280, "Network controller"},
             {0x0300, "VGA controller"},
             {0x0302, "3D controller"},
             {0x0380, "Display controller"},
             {0x0401, "Audio device"},
             {0x0403, "Audio device"},
             {0x0500, "RAM"},
             {0x0600, "Host bridge"},
             {0x0601, "ISA bridge"},
             {0x0604, "PCI bridge"},
             {0x0680, "Bridge"},
             {0x0700, "Serial controller"},
             {0x0780, "Communication device"},
             {0x0800, "Interrupt controller"},
             {0x0805, "SD host controller"},
             {0x0806, "IOMMU"},
             {0x0880, "System peripheral"},
             {0x0c03, "USB controller"},
             {0x0c05, "SMBus"},
             {0x0c80, "Serial bus controller"},
             {0x1080, "Encryption controller"},
             {0x1180, "Signal processing controller"},
             {0x1200, "Processing accelerator"}};
static const char *const families[] = {"Unclassified device",
                                       "Storage controller",
                                       "Network controller",
                                       "Display controller",
                                       "Multimedia device",
                                       "Memory controller",
                                       "Bridge",
                                       "Communication device",
                                       "System peripheral",
                                       "Input device",
                                       "Docking station",
                                       "Processor",
                                       "Serial bus controller"};

const char *pci_class_name(uint32_t class_code)
{
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        if (names[i].class == (class_code >> 8 & 0xffff))
            return names[i].name;
    uint32_t family = class_code >> 16 & 0xff;
    return family < ARRAY_SIZE(families) ? families[family] : "Device";
}

void pci_describe(const struct pci_inventory *inv, const struct pci_device *dev, const char *owner,
                  char *line, size_t size)
{
    char verdict[96];
    size_t n = fmt_format(line, size, BDF_FMT "  %04x:%04x  %-23s  group %-2u  ", BDF_ARGS(dev->bdf),
                          dev->vendor, dev->device, pci_class_name(dev->class_code), dev->group);
    if (n >= size)
        return;
    if (owner)
        fmt_format(verdict, sizeof(verdict), "given to %s", owner);
    else
        pci_verdict(inv, dev, verdict, sizeof(verdict));
    if (dev->secondary)
        fmt_format(line + n, size - n, "to bus %02x", dev->secondary);
    else if (dev->is_vf)
        fmt_format(line + n, size - n, "VF %u of " BDF_FMT ": %s", dev->vf_index, BDF_ARGS(dev->pf), verdict);
    else if (dev->sriov.count)
        fmt_format(line + n, size - n, "%u of %u VFs on", dev->sriov.count, dev->sriov.total);
    else
        fmt_format(line + n, size - n, "%s", verdict);
}

/* ---- in detail ---- */

static const char *kind_name(uint8_t kind)
{
    static const char *const kinds[] = {"", "I/O ports", "memory", "memory, 64-bit",
                                        "memory, 64-bit, prefetchable"};
    return kind < ARRAY_SIZE(kinds) ? kinds[kind] : "";
}

static void put_bar(const char *what, unsigned i, const struct pci_bar *bar, char *line, size_t size)
{
    bool kib = bar->size >= 1024;
    if (bar->kind != PCI_BAR_NONE)
        fmt_format(line, size, "  %s %u: 0x%llx, %llu %s, %s", what, i, (unsigned long long)bar->base,
                   (unsigned long long)(kib ? bar->size >> 10 : bar->size), kib ? "KiB" : "bytes",
                   kind_name(bar->kind));
}

static void put_window(const struct pci_device *dev, unsigned i, char *line, size_t size)
{
    static const char *const uses[PCI_WINDOWS] = {"I/O ports", "memory", "prefetchable memory"};
    const struct pci_window *w = &dev->windows[i];
    if (dev->header == 1 && w->base <= w->limit)
        fmt_format(line, size, "  window: 0x%llx to 0x%llx, %s", (unsigned long long)w->base,
                   (unsigned long long)w->limit, uses[i]);
}

static void put_interrupts(const struct pci_device *dev, char *line, size_t size)
{
    if (dev->msix_count)
        fmt_format(line, size, "  MSI-X: %u vectors, table in BAR %u at 0x%x", dev->msix_count, dev->msix_bar,
                   dev->msix_offset);
    else if (dev->msix)
        fmt_format(line, size, "  MSI-X: not usable, its table is not in a memory BAR");
    else if (dev->msi)
        fmt_format(line, size, "  MSI");
}

static void put_group(const struct pci_inventory *inv, const struct pci_device *dev, char *line, size_t size)
{
    size_t n = 0;
    for (const struct pci_device *mate = NULL; (mate = pci_group_mate(inv, dev, mate)) && n < size;)
        n += fmt_format(line + n, size - n, "%s" BDF_FMT,
                        n ? " " : "  in the same group: ", BDF_ARGS(mate->bdf));
}

bool pci_detail(const struct pci_inventory *inv, const struct pci_device *dev, const char *owner, uint32_t n,
                char *line, size_t size)
{
    enum {
        DESCRIPTION,
        BARS,
        WINDOWS = BARS + PCI_BARS,
        INTERRUPTS = WINDOWS + PCI_WINDOWS,
        RESET,
        SRIOV,
        VF_BARS,
        GROUP = VF_BARS + PCI_BARS,
        END
    };
    line[0] = 0;
    if (n == DESCRIPTION)
        pci_describe(inv, dev, owner, line, size);
    else if (n < WINDOWS)
        put_bar("BAR", n - BARS, &dev->bars[n - BARS], line, size);
    else if (n < INTERRUPTS)
        put_window(dev, n - WINDOWS, line, size);
    else if (n == INTERRUPTS)
        put_interrupts(dev, line, size);
    else if (n == RESET && dev->header == 0)
        fmt_format(line, size, "  reset: %s",
                   dev->has_flr              ? "by itself (FLR)"
                   : pci_can_reset(inv, dev) ? "by its port, behind which it is alone"
                                             : "not without its neighbours");
    else if (n == SRIOV && dev->sriov.total)
        fmt_format(line, size, "  SR-IOV: %u of %u VFs on, device %04x, offset 0x%x, stride %u",
                   dev->sriov.count, dev->sriov.total, dev->sriov.vf_device, dev->sriov.offset,
                   dev->sriov.stride);
    else if (n >= VF_BARS && n < GROUP)
        put_bar("VF BAR", n - VF_BARS, &dev->sriov.vf_bars[n - VF_BARS], line, size);
    else if (n == GROUP)
        put_group(inv, dev, line, size);
    return n < END;
}
