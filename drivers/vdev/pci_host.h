/* The guest's PCI host bridge: configuration mechanism #1 (ports 0xcf8 and 0xcfc) and ECAM (a 256 MiB window,
 * buses 0..255), both leading to one table of functions. An empty slot reads as all-ones. Two struct vdevs,
 * because ports and memory are two ranges; they share everything else. */
#pragma once

#include "drivers/vdev/pci_space.h"
#include "drivers/vdev/vdev.h"
#include "hv/lib/bdf.h"

#define PCI_HOST_PORT_ADDRESS                                                                                \
    0xcf8u /* claim 0xcf8 except 0xcf9 (reset control), which is another device's                            \
            */
#define PCI_HOST_PORT_DATA 0xcfcu
#define PCI_HOST_ECAM_SIZE (256ull << 20)
#define PCI_HOST_MAX_FUNCS 32u

/* A function on the bus. Called under the device lock with `offset` a multiple of 4, below 4096 (ECAM) or 256
 * (ports). */
struct pci_func {
    uint16_t bdf;
    void *ctx;
    uint32_t (*read)(struct pci_func *func, uint32_t offset);
    void (*write)(struct pci_func *func, uint32_t offset, uint32_t value,
                  uint32_t mask);         /* 0xff per enabled byte */
    void (*reset)(struct pci_func *func); /* NULL: nothing to reset */
};

struct pci_host {
    struct vdev ports; /* pci_host_port_ops */
    struct vdev ecam;  /* pci_host_ecam_ops; stateless: only `ports` needs init and reset */
    uint64_t ecam_base;
    uint32_t address; /* CONFIG_ADDRESS */
    uint32_t count;
    struct pci_func *funcs[PCI_HOST_MAX_FUNCS];
    struct pci_func bridge; /* 00:00.0 */
    struct pci_space bridge_space;
    uint32_t bridge_storage[3 * PCI_SPACE_LEGACY_DWORDS];
};

extern const struct vdev_ops pci_host_port_ops, pci_host_ecam_ops;

/* Once, before the devices' init: an otherwise empty bus 0 with the host bridge at 00:00.0. */
void pci_host_setup(struct pci_host *host, uint64_t ecam_base);
/* Plugs a function in; it stays the caller's. ERR_EXISTS: the slot is taken. ERR_NO_MEMORY: the table is
 * full. */
enum status pci_host_add(struct pci_host *host, struct pci_func *func);
