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

void pci_describe(const struct pci_inventory *inv, const struct pci_device *dev, char *line, size_t size)
{
    char verdict[96];
    size_t n = fmt_format(line, size, BDF_FMT "  %04x:%04x  %-23s  group %-2u  ", BDF_ARGS(dev->bdf),
                          dev->vendor, dev->device, pci_class_name(dev->class_code), dev->group);
    if (n >= size)
        return;
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
