/* The guest's PCI host bridge. PCI Local Bus 3.0, section "Software Generation of Configuration
 * Transactions"; PCI Express base, section "PCI Express Enhanced Configuration Access Mechanism (ECAM)".
 *
 * Identity of 00:00.0: 1b36:0008, the generic PCIe host bridge that the PCI ID list names as QEMU's. Linux
 * has neither a driver nor a quirk for it, so nothing is done to registers that are not there; a real
 * chipset's identity (8086:29c0, say) would promise an IGD, an AGP aperture or MCHBAR to whoever knows that
 * chipset. */
#include "drivers/vdev/pci_host.h"

#include "hv/lib/bits.h"

#define BRIDGE_VENDOR 0x1b36u
#define BRIDGE_DEVICE 0x0008u
#define BRIDGE_CLASS  0x060000u /* host bridge */

#define ADDRESS_ENABLE   (1u << 31)
#define ADDRESS_WRITABLE 0x80fffffcu /* bits 30:24 reserved; 1:0 are zero: type 0, dwords */

static struct pci_func *find(const struct pci_host *host, uint16_t bdf)
{
    for (uint32_t i = 0; i < host->count; i++)
        if (host->funcs[i]->bdf == bdf)
            return host->funcs[i];
    return NULL;
}

/* One access inside one dword; `offset` in bytes. */
static uint32_t config_read(const struct pci_host *host, uint16_t bdf, uint32_t offset, unsigned size)
{
    struct pci_func *func = find(host, bdf);
    uint32_t value = func ? func->read(func, offset & ~3u) : ~0u;
    return (uint32_t)bits_low_bytes(value >> ((offset & 3) * 8), size);
}

static void config_write(const struct pci_host *host, uint16_t bdf, uint32_t offset, unsigned size,
                         uint32_t value)
{
    struct pci_func *func = find(host, bdf);
    unsigned shift = (offset & 3) * 8;
    if (func)
        func->write(func, offset & ~3u, value << shift, (uint32_t)bits_low_bytes(~0ull, size) << shift);
}

static bool crosses_dword(uint64_t offset, unsigned size)
{
    return (offset & 3) + size > 4;
}

static void access_dword(const struct pci_host *host, uint16_t bdf, uint32_t offset, struct io_req *req)
{
    if (req->write)
        config_write(host, bdf, offset, req->size, (uint32_t)req->value);
    else
        req->value = config_read(host, bdf, offset, req->size);
}

static void port_access(struct vdev *dev, struct io_req *req)
{
    struct pci_host *host = container_of(dev, struct pci_host, ports);
    if (!req->write)
        req->value = vdev_all_ones(req->size);
    if (req->addr == PCI_HOST_PORT_ADDRESS && req->size == 4) { /* other widths pass by ("CONFIG_ADDRESS") */
        if (req->write)
            host->address = (uint32_t)req->value & ADDRESS_WRITABLE;
        else
            req->value = host->address;
        return;
    }
    uint64_t byte = req->addr - PCI_HOST_PORT_DATA;
    if (byte > 3 || crosses_dword(byte, req->size) || !(host->address & ADDRESS_ENABLE))
        return;
    access_dword(host, (uint16_t)(host->address >> 8), (host->address & 0xfc) + (uint32_t)byte, req);
}

static void ecam_access(struct vdev *dev, struct io_req *req)
{
    struct pci_host *host = container_of(dev, struct pci_host, ecam);
    uint64_t offset = req->addr - host->ecam_base;
    if (!req->write)
        req->value = vdev_all_ones(req->size);
    if (offset >= PCI_HOST_ECAM_SIZE)
        return;
    uint16_t bdf = (uint16_t)(offset >> 12);
    uint32_t reg = (uint32_t)(offset & PAGE_MASK);
    if (req->size == 8 && (offset & 7) == 0) { /* as two dwords, the lower first */
        struct io_req low = {.value = req->value & UINT32_MAX, .size = 4, .write = req->write};
        struct io_req high = {.value = req->value >> 32, .size = 4, .write = req->write};
        access_dword(host, bdf, reg, &low);
        access_dword(host, bdf, reg + 4, &high);
        if (!req->write)
            req->value = high.value << 32 | low.value;
    } else if (!crosses_dword(offset, req->size)) {
        access_dword(host, bdf, reg, req);
    }
}

static void port_reset(struct vdev *dev)
{
    struct pci_host *host = container_of(dev, struct pci_host, ports);
    host->address = 0;
    for (uint32_t i = 0; i < host->count; i++)
        if (host->funcs[i]->reset)
            host->funcs[i]->reset(host->funcs[i]);
}

static uint32_t bridge_read(struct pci_func *func, uint32_t offset)
{
    return pci_space_read(func->ctx, offset);
}

static void bridge_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    pci_space_write(func->ctx, offset, value, mask);
}

void pci_host_setup(struct pci_host *host, uint64_t ecam_base)
{
    host->ecam_base = ecam_base;
    host->address = 0;
    host->bridge = (struct pci_func){
        .bdf = PCI_BDF(0, 0, 0), .ctx = &host->bridge_space, .read = bridge_read, .write = bridge_write};
    pci_space_init(&host->bridge_space, host->bridge_storage, PCI_SPACE_LEGACY_DWORDS, BRIDGE_VENDOR,
                   BRIDGE_DEVICE, BRIDGE_CLASS);
    host->funcs[0] = &host->bridge;
    host->count = 1;
}

enum status pci_host_add(struct pci_host *host, struct pci_func *func)
{
    if (find(host, func->bdf))
        return ERR_EXISTS;
    if (host->count == PCI_HOST_MAX_FUNCS)
        return ERR_NO_MEMORY;
    host->funcs[host->count++] = func;
    return STATUS_OK;
}

const struct vdev_ops pci_host_port_ops = {
    .name = "pci",
    .init = port_reset,
    .reset = port_reset,
    .access = port_access,
};

const struct vdev_ops pci_host_ecam_ops = {
    .name = "ecam",
    .init = vdev_keep,
    .reset = vdev_keep,
    .access = ecam_access,
};
