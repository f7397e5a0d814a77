/* The IDE controller and the ISA bridge it belongs to, as PCI functions: Intel 82371SB (PIIX3) data sheet,
 * chapter 2. The bridge is there because function 1 of a device is found through function 0 only. The legacy
 * ports answer whatever IDETIM says: nothing else could be there. */
#include "drivers/vdev/ata_internal.h"

#define INTEL         0x8086u
#define PIIX3_ISA     0x7000u
#define PIIX3_IDE     0x7010u
#define CLASS_ISA     0x060100u
#define CLASS_IDE     0x010180u /* bus master; both channels in legacy mode and not to be changed */
#define HEADER_MULTI  0x00800000u
#define STATUS_PIIX   0x02800000u /* fast back-to-back, medium DEVSEL */
#define REG_PIRQ      0x60u       /* of the bridge: where firmware notes the routes of INTA..INTD */
#define PIRQ_OFF      0x80808080u
#define REG_IDETIM    0x40u
#define REG_SIDETIM   0x44u
#define IDETIM_DECODE 0x8000u /* of each channel's 16 bits */
#define SIDETIM_BITS  0xffu
#define BM_BAR        4u
#define PORTS_END     0x10000u

static uint32_t space_read(struct pci_func *func, uint32_t offset)
{
    return pci_space_read(func->ctx, offset);
}

static void isa_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    pci_space_write(func->ctx, offset, value, mask);
}

/* Port 0 cannot be decoded: a BAR that was not placed is not at the DMA controller. */
static void place_bar(struct ata *ata)
{
    uint64_t at;
    uint16_t port = 0;
    if (pci_space_bar(&ata->ide_space, BM_BAR, &at) && at <= PORTS_END - ATA_BM_SIZE)
        port = (uint16_t)at;
    if (port == ata->bm_port)
        return;
    ata->moved(ata->moved_ctx, ata->bm_port, port);
    ata->bm_port = port;
}

static void ide_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    struct ata *ata = container_of(func, struct ata, ide);
    pci_space_write(func->ctx, offset, value, mask);
    place_bar(ata);
    for (unsigned i = 0; offset == PCI_REG_COMMAND && i < ATA_CHANNELS; i++)
        ata_dma_run(ata, &ata->channel[i]);
}

bool ata_is_bus_master(const struct ata *ata)
{
    return (ata->ide_space.value[PCI_REG_COMMAND / 4] & PCI_COMMAND_MASTER) != 0;
}

void ata_setup(struct ata *ata, const struct ata_media_ops *media)
{
    ata->media = media;
    ata->isa = (struct pci_func){
        .bdf = PCI_BDF(0, 1, 0), .ctx = &ata->isa_space, .read = space_read, .write = isa_write};
    ata->ide = (struct pci_func){
        .bdf = PCI_BDF(0, 1, 1), .ctx = &ata->ide_space, .read = space_read, .write = ide_write};
}

/* As a firmware leaves them: placed, decoding, both channels on. */
void ata_pci_reset(struct ata *ata)
{
    struct pci_space *isa = &ata->isa_space, *ide = &ata->ide_space;
    pci_space_init(isa, ata->isa_storage, PCI_SPACE_LEGACY_DWORDS, INTEL, PIIX3_ISA, CLASS_ISA);
    isa->value[PCI_REG_HEADER / 4] = HEADER_MULTI;
    isa->value[PCI_REG_COMMAND / 4] = STATUS_PIIX | PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY | PCI_COMMAND_IO;
    isa->value[REG_PIRQ / 4] = PIRQ_OFF;
    isa->writable[REG_PIRQ / 4] = ~0u;
    pci_space_init(ide, ata->ide_storage, PCI_SPACE_LEGACY_DWORDS, INTEL, PIIX3_IDE, CLASS_IDE);
    (void)pci_space_add_bar(ide, BM_BAR, PCI_BAR_IO, ATA_BM_SIZE); /* cannot fail: nothing else is there */
    ide->value[PCI_REG_BAR0 / 4 + BM_BAR] |= ATA_BM_PORT;
    ide->value[PCI_REG_COMMAND / 4] = STATUS_PIIX | PCI_COMMAND_MASTER | PCI_COMMAND_IO;
    ide->writable[PCI_REG_COMMAND / 4] |= PCI_COMMAND_MASTER;
    ide->value[REG_IDETIM / 4] = IDETIM_DECODE << 16 | IDETIM_DECODE;
    ide->writable[REG_IDETIM / 4] = ~0u;
    ide->writable[REG_SIDETIM / 4] = SIDETIM_BITS;
    place_bar(ata);
}
