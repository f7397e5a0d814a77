/* The PCI host bridge: both mechanisms tell the same, read-only bits stay, accesses never reach another
 * function, and a BAR always answers its size. */
#include <stdlib.h>
#include <string.h>

#include "drivers/vdev/pci_host.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

#define ECAM 0xb0000000ull

static struct pci_host host;
static struct pci_func card;
static struct pci_space space;
static uint32_t storage[3 * PCI_SPACE_EXPRESS_DWORDS], initial[PCI_SPACE_EXPRESS_DWORDS];

static uint32_t card_read(struct pci_func *func, uint32_t offset)
{
    CHECK(func == &card && offset < 4096 && !(offset & 3));
    return pci_space_read(&space, offset);
}
static void card_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    CHECK(func == &card && offset < 4096 && !(offset & 3));
    pci_space_write(&space, offset, value, mask);
}

static uint64_t access_one(struct vdev *dev, uint64_t addr, uint8_t size, bool write, uint64_t value)
{
    struct io_req req = {.addr = addr, .size = size, .write = write, .value = value};
    dev->ops->access(dev, &req);
    CHECK(write || size == 8 || req.value >> (8 * size) == 0);
    return req.value;
}

static void setup(const uint8_t *data)
{
    memset(&host, 0, sizeof(host));
    pci_host_setup(&host, ECAM);
    pci_space_init(&space, storage, PCI_SPACE_EXPRESS_DWORDS, 0x1af4, 0x1041, 0x020000);
    for (unsigned i = 0; i < PCI_BARS; i++)
        pci_space_add_bar(&space, i, (enum pci_bar_kind)(data[i] & 7), 1ull << (data[i] >> 3));
    space.value[0x100 / 4] = 0x00010001;
    space.w1c[0x104 / 4] = 0xffff;
    memcpy(initial, space.value, sizeof(initial));
    card = (struct pci_func){
        .bdf = PCI_BDF(data[6], data[7] & 31, data[7] >> 5), .read = card_read, .write = card_write};
    enum status s = pci_host_add(&host, &card);
    CHECK(s == (card.bdf ? STATUS_OK : ERR_EXISTS));
    host.ports.ops = &pci_host_port_ops;
    host.ecam.ops = &pci_host_ecam_ops;
    host.ports.ops->init(&host.ports);
}

static void check_state(void)
{
    uint32_t saved = host.address;
    CHECK(!(saved & 0x7f000003));
    for (uint32_t i = 0; i < PCI_SPACE_EXPRESS_DWORDS; i++)
        CHECK(!((space.value[i] ^ initial[i]) & ~(space.writable[i] | space.w1c[i])));
    for (uint32_t reg = 0; reg < 256; reg += 4)
        for (unsigned which = 0; which < 2; which++) {
            uint16_t bdf = which ? card.bdf : 0;
            access_one(&host.ports, 0xcf8, 4, true, 0x80000000u | (uint32_t)bdf << 8 | reg);
            uint64_t value = access_one(&host.ports, 0xcfc, 4, false, 0);
            CHECK(value == access_one(&host.ecam, ECAM + ((uint64_t)bdf << 12) + reg, 4, false, 0));
            if (!bdf)
                CHECK(value == (reg == 0 ? 0x00081b36u : reg == 8 ? 0x06000000u : 0));
        }
    access_one(&host.ports, 0xcf8, 4, true, saved);
    CHECK(host.address == saved);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t where;
        if (!pci_space_bar(&space, i, &where))
            continue;
        uint32_t dword = PCI_REG_BAR0 / 4 + i;
        CHECK((uint32_t)where == (space.value[dword] & space.writable[dword]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    setup(data);
    for (data += 8, size -= 8; size >= 10; data += 10, size -= 10) {
        uint64_t value;
        memcpy(&value, data + 2, 8);
        uint8_t width = (uint8_t)(1u << (data[0] >> 1 & 3));
        bool write = data[0] & 1;
        uint64_t here = ECAM + ((uint64_t)card.bdf << 12);
        switch (data[0] >> 3 & 3) {
        case 0:
            access_one(&host.ports, 0xcf8u + (data[1] & 7), width > 4 ? 4 : width, write, value);
            break;
        case 1:
            access_one(&host.ecam, ECAM + (value & 0x1fffffff), width, write, value >> 32);
            break;
        case 2:
            access_one(&host.ecam, here + data[1], width, write, value);
            break;
        default:
            access_one(&host.ports, 0xcf8, 4, true, 0x80000000u | (uint32_t)card.bdf << 8 | data[1]);
            access_one(&host.ports, 0xcfc + (value & 3), width > 4 ? 4 : width, write, value >> 8);
        }
    }
    check_state();
    return 0;
}
