/* Which emulated device answers at a port or a guest-physical address. Filled while the VM is built, constant
 * while it runs (but for ports that move, and the once-sets, which are atomic). All zero is the
 * empty bus. */
#pragma once

#include "drivers/vdev/vdev.h"
#include "hv/once.h"

#define BUS_MAX_DEVICES 31u /* distinct ones with ports */
#define BUS_MAX_LEAVES  15u /* distinct high bytes of claimed ports */
#define BUS_MAX_MMIO    32u
#define BUS_PORTS       0x10000u

struct bus_mmio {
    uint64_t last; /* byte of the range; UINT64_MAX behind all ranges, so that they are sorted by it */
    uint64_t base;
    uint64_t span; /* last - base */
    struct vdev *dev;
};

struct bus {
    uint8_t leaf_of[256];                      /* high byte of the port -> leaf; leaf 0 is empty */
    uint8_t leaves[BUS_MAX_LEAVES + 1][256];   /* low byte -> index into devices; 0 = nobody */
    struct vdev *devices[BUS_MAX_DEVICES + 1]; /* [0] is NULL */
    uint8_t leaf_count, device_count;
    uint8_t moving_leaf; /* bus_move_ports() uses it where there is no other; 0: not needed yet */
    uint8_t moving_page; /* the high byte it is for now, when leaf_of says so */
    uint32_t mmio_count;
    struct bus_mmio mmio[BUS_MAX_MMIO];
    uint64_t port_seen[BUS_PORTS / 64]; /* bus_port_first() */
    struct once mmio_seen;              /* bus_mmio_first(), by page */
};

/* Claims ports [first, first+count). A device may claim several ranges. ERR_EXISTS: a port is taken;
 * ERR_INVALID: empty or past 0xffff; ERR_NO_MEMORY: a table is full. On failure nothing has changed. */
enum status bus_add_ports(struct bus *bus, uint16_t first, uint32_t count, struct vdev *dev);
/* Ports of a device that moves while the VM runs, `count` of them within 256: those at `from` are given up,
 * those of the new ones that nobody has are claimed. 0: nowhere. `dev` has no other ports. One such range
 * in a VM. Under the device lock; who looks a port up meanwhile finds the old, the new, or nobody.
 * ERR_NO_MEMORY: a table is full, nothing is claimed. */
enum status bus_move_ports(struct bus *bus, uint16_t from, uint16_t to, uint32_t count, struct vdev *dev);
/* Claims [base, base+size). Errors as above; ERR_INVALID also for a range that wraps. */
enum status bus_add_mmio(struct bus *bus, uint64_t base, uint64_t size, struct vdev *dev);

static inline struct vdev *bus_port_owner(const struct bus *bus, uint16_t port)
{
    return bus->devices[bus->leaves[bus->leaf_of[port >> 8]][port & 0xff]];
}

/* The device that claims the access's first and last byte (so that a dword at 0xCF8 is PCI's although byte
 * 0xCF9 is the reset port's), or NULL: nobody, or several: then bus_split_ports() does it right. size is 1, 2
 * or 4. */
static inline struct vdev *bus_find_port(const struct bus *bus, uint16_t port, unsigned size)
{
    struct vdev *dev = bus_port_owner(bus, port);
    if (size == 1 || !dev)
        return dev;
    return port + size <= BUS_PORTS && bus_port_owner(bus, (uint16_t)(port + size - 1)) == dev ? dev : NULL;
}

/* An access that no single device claims, byte by byte: unclaimed bytes read as ones and ignore writes.
 * Returns false when no byte was claimed. req->value is complete afterwards. Called under the device lock. */
bool bus_split_ports(struct bus *bus, struct io_req *req);

/* The device whose range holds the first byte, or NULL. An access that crosses the range's end is the
 * device's as well (its own bounds check sees addr and size). */
struct vdev *bus_find_mmio(const struct bus *bus, uint64_t addr);

/* True once per VM and port / page of MMIO: is this the first unclaimed access there? Any CPU. */
bool bus_port_first(struct bus *bus, uint16_t port);
bool bus_mmio_first(struct bus *bus, uint64_t addr);
