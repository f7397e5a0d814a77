/* PCI as the firmware shows it: its root bridges, and configuration space through them. Read only. */
#include "boot/boot_pci.h"
#include "boot/efi_loader.h"
#include "hv/lib/bits.h"

#include <efipciio.h>

#define MAX_ROOTS   32u
#define MAX_DEVICES 256u

/* UEFI 2.10, 14.2: the register's upper bits are apart from the lower eight. */
#define ROOT_BRIDGE_ADDRESS(bdf, offset)                                                                     \
    ((uint64_t)BDF_BUS(bdf) << 24 | (uint64_t)BDF_DEVICE(bdf) << 16 | (uint64_t)BDF_FUNCTION(bdf) << 8 |     \
     ((offset) < PCI_LEGACY_SIZE ? (uint64_t)(offset) : (uint64_t)(offset) << 32))
/* The firmware does not say how long its list of descriptors is. */
#define DESCRIPTORS_LIMIT 1024u

static struct {
    EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL *io;
    uint8_t first, last; /* bus numbers */
} roots[MAX_ROOTS];
static uint32_t root_count;

static void find_roots(void)
{
    static EFI_GUID guid = EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL_GUID;
    EFI_HANDLE *handles;
    UINTN count;
    if (EFI_ERROR(efi_bs->LocateHandleBuffer(ByProtocol, &guid, NULL, &count, &handles)))
        return;
    for (UINTN i = 0; i < count && root_count < MAX_ROOTS; i++) {
        EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL *io;
        void *interface, *list;
        if (EFI_ERROR(efi_bs->HandleProtocol(handles[i], &guid, &interface)))
            continue;
        io = interface;
        if (io->SegmentNumber == 0 && !EFI_ERROR(io->Configuration(io, &list)) &&
            boot_pci_buses(list, DESCRIPTORS_LIMIT, &roots[root_count].first, &roots[root_count].last))
            roots[root_count++].io = io;
    }
    efi_bs->FreePool(handles);
}

static uint32_t config_read(void *ctx, uint16_t bdf, uint32_t offset, unsigned size)
{
    uint32_t value = 0;
    EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL_WIDTH width = size == 1   ? EfiPciIoWidthUint8
                                                  : size == 2 ? EfiPciIoWidthUint16
                                                              : EfiPciIoWidthUint32;
    for (uint32_t i = 0; i < root_count; i++) {
        EFI_PCI_ROOT_BRIDGE_IO_PROTOCOL *io = roots[i].io;
        if (BDF_BUS(bdf) >= roots[i].first && BDF_BUS(bdf) <= roots[i].last &&
            !EFI_ERROR(io->Pci.Read(io, width, ROOT_BRIDGE_ADDRESS(bdf, offset), 1, &value)))
            return value;
    }
    return (uint32_t)bits_low_bytes(UINT32_MAX, size);
}

static void config_write(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    /* The firmware's drivers are at work on these devices. */
}

const struct pci_inventory *efi_pci_scan(void)
{
    static struct pci_device devices[MAX_DEVICES];
    static struct pci_inventory inv = {.capacity = MAX_DEVICES, .devices = devices, .passive = true};
    static const struct pci_config config = {.read = config_read, .write = config_write};
    if (root_count)
        return &inv;
    find_roots();
    for (uint32_t i = 0; i < root_count; i++)
        inv.roots[roots[i].first / 64] |= 1ull << (roots[i].first % 64);
    if (root_count)
        (void)pci_scan(&inv, &config); /* what does not fit is counted */
    return &inv;
}

void efi_pci_print(const struct pci_inventory *inv)
{
    char line[160];
    efi_print("\nDevices that a VM could be given:\n");
    for (uint32_t i = 0; i < inv->count; i++) {
        if (pci_is_machine(&inv->devices[i]))
            continue;
        pci_describe(inv, &inv->devices[i], NULL, line, sizeof(line));
        efi_print("  %s\n", line);
    }
}
