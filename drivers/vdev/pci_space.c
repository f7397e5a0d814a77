/* Configuration space as a masked register file. */
#include "drivers/vdev/pci_space.h"

#define BAR_IO_FLAGS       0x1u
#define BAR_MEM64_FLAGS    0x4u
#define BAR_PREFETCH_FLAG  0x8u
#define BAR_IO_ADDRESS     0xfffffffcu
#define BAR_MEM_ADDRESS    0xfffffff0u
#define BAR_MEM_MIN_SIZE   16u
#define BAR_IO_MIN_SIZE    4u
#define BAR_IO_MAX_SIZE    256u /* "Base Addresses": no more per BAR */
#define BAR_32BIT_MAX_SIZE (1ull << 31)

void pci_space_init(struct pci_space *space, uint32_t *storage, uint32_t dwords, uint16_t vendor,
                    uint16_t device, uint32_t class_code)
{
    *space = (struct pci_space){
        .value = storage, .writable = storage + dwords, .w1c = storage + 2 * dwords, .dwords = dwords};
    for (uint32_t i = 0; i < 3 * dwords; i++)
        storage[i] = 0;
    space->value[PCI_REG_ID / 4] = (uint32_t)device << 16 | vendor;
    space->value[PCI_REG_CLASS / 4] = class_code << 8;
}

static bool bar_is_64(enum pci_bar_kind kind)
{
    return kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH;
}

static bool bar_size_is_valid(enum pci_bar_kind kind, uint64_t size)
{
    if (size == 0 || (size & (size - 1)))
        return false;
    if (kind == PCI_BAR_IO)
        return size >= BAR_IO_MIN_SIZE && size <= BAR_IO_MAX_SIZE;
    return size >= BAR_MEM_MIN_SIZE && (bar_is_64(kind) || size <= BAR_32BIT_MAX_SIZE);
}

/* Does the BAR before `index` use this register for its upper half? */
static bool bar_is_upper_half(const struct pci_space *space, unsigned index)
{
    return index > 0 && bar_is_64(space->bar_kind[index - 1]);
}

enum status pci_space_add_bar(struct pci_space *space, unsigned index, enum pci_bar_kind kind, uint64_t size)
{
    if (index >= PCI_BARS || kind <= PCI_BAR_NONE || kind > PCI_BAR_MEM64_PREFETCH ||
        (bar_is_64(kind) && index + 1 >= PCI_BARS) || !bar_size_is_valid(kind, size))
        return ERR_INVALID;
    if (space->bar_kind[index] != PCI_BAR_NONE || bar_is_upper_half(space, index) ||
        (bar_is_64(kind) && space->bar_kind[index + 1] != PCI_BAR_NONE))
        return ERR_EXISTS;
    static const uint32_t flags[] = {[PCI_BAR_IO] = BAR_IO_FLAGS,
                                     [PCI_BAR_MEM32] = 0,
                                     [PCI_BAR_MEM64] = BAR_MEM64_FLAGS,
                                     [PCI_BAR_MEM64_PREFETCH] = BAR_MEM64_FLAGS | BAR_PREFETCH_FLAG};
    uint32_t dword = PCI_REG_BAR0 / 4 + index;
    uint64_t address =
        ~(size - 1); /* the bits below the size are hard-wired to zero: that is how it is found out */
    space->bar_kind[index] = (uint8_t)kind;
    space->value[dword] = flags[kind];
    space->writable[dword] = (uint32_t)address & (kind == PCI_BAR_IO ? BAR_IO_ADDRESS : BAR_MEM_ADDRESS);
    if (bar_is_64(kind))
        space->writable[dword + 1] = (uint32_t)(address >> 32);
    space->writable[PCI_REG_COMMAND / 4] |= kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    return STATUS_OK;
}

bool pci_space_bar(const struct pci_space *space, unsigned index, uint64_t *address)
{
    if (index >= PCI_BARS || space->bar_kind[index] == PCI_BAR_NONE)
        return false;
    bool io = space->bar_kind[index] == PCI_BAR_IO;
    if (!(space->value[PCI_REG_COMMAND / 4] & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return false;
    uint32_t dword = PCI_REG_BAR0 / 4 + index;
    *address = space->value[dword] & (io ? BAR_IO_ADDRESS : BAR_MEM_ADDRESS);
    if (bar_is_64(space->bar_kind[index]))
        *address |= (uint64_t)space->value[dword + 1] << 32;
    return true;
}

uint32_t pci_space_read(const struct pci_space *space, uint32_t offset)
{
    return offset / 4 < space->dwords ? space->value[offset / 4] : ~0u;
}

void pci_space_write(struct pci_space *space, uint32_t offset, uint32_t value, uint32_t mask)
{
    uint32_t i = offset / 4;
    if (i >= space->dwords)
        return;
    uint32_t store = space->writable[i] & mask;
    space->value[i] = (space->value[i] & ~store & ~(space->w1c[i] & value & mask)) | (value & store);
}
