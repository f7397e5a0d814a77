#include "hv/pc/bus.h"
#include "hv/lib/string.h"

/* Index of the device in the table, 0 = not there. */
static uint8_t device_index(const struct bus *bus, const struct vdev *dev)
{
    for (uint8_t i = 1; i <= bus->device_count; i++)
        if (bus->devices[i] == dev)
            return i;
    return 0;
}

/* Leaf tables that [first, first+count) needs and that do not exist yet. */
static unsigned new_leaves(const struct bus *bus, uint32_t first, uint32_t count)
{
    unsigned missing = 0;
    for (uint32_t high = first >> 8; high <= (first + count - 1) >> 8; high++)
        missing += bus->leaf_of[high] == 0;
    return missing;
}

enum status bus_add_ports(struct bus *bus, uint16_t first, uint32_t count, struct vdev *dev)
{
    if (!dev || count == 0 || first + count > BUS_PORTS)
        return ERR_INVALID;
    for (uint32_t port = first; port < first + count; port++)
        if (bus_port_owner(bus, (uint16_t)port))
            return ERR_EXISTS;
    uint8_t index = device_index(bus, dev);
    if ((!index && bus->device_count == BUS_MAX_DEVICES) ||
        bus->leaf_count + new_leaves(bus, first, count) > BUS_MAX_LEAVES)
        return ERR_NO_MEMORY;
    if (!index) {
        index = ++bus->device_count;
        bus->devices[index] = dev;
    }
    for (uint32_t port = first; port < first + count; port++) {
        uint8_t *leaf = &bus->leaf_of[port >> 8];
        if (!*leaf)
            *leaf = ++bus->leaf_count;
        bus->leaves[*leaf][port & 0xff] = index;
    }
    return STATUS_OK;
}

static void set_byte(uint8_t *at, uint8_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELAXED);
}

/* The leaf for the ports at `port`; when they have none, the one that moves. 0: there is none left. */
static uint8_t leaf_for(struct bus *bus, uint16_t port)
{
    uint8_t page = (uint8_t)(port >> 8);
    if (bus->leaf_of[page])
        return bus->leaf_of[page];
    if (!bus->moving_leaf && bus->leaf_count < BUS_MAX_LEAVES)
        bus->moving_leaf = ++bus->leaf_count;
    if (!bus->moving_leaf)
        return 0;
    if (bus->leaf_of[bus->moving_page] == bus->moving_leaf)
        set_byte(&bus->leaf_of[bus->moving_page], 0);
    set_byte(&bus->leaf_of[page], bus->moving_leaf);
    bus->moving_page = page;
    return bus->moving_leaf;
}

enum status bus_move_ports(struct bus *bus, uint16_t from, uint16_t to, uint32_t count, struct vdev *dev)
{
    uint8_t index = device_index(bus, dev);
    if (!index && bus->device_count == BUS_MAX_DEVICES)
        return ERR_NO_MEMORY;
    if (!index) {
        index = bus->device_count + 1;
        bus->devices[index] = dev;
        bus->device_count = index;
    }
    for (uint32_t port = from; from && port < from + count; port++) {
        uint8_t *entry = &bus->leaves[bus->leaf_of[port >> 8]][port & 0xff];
        if (*entry == index)
            set_byte(entry, 0);
    }
    if (!to)
        return STATUS_OK;
    uint8_t leaf = leaf_for(bus, to);
    if (!leaf)
        return ERR_NO_MEMORY;
    for (uint32_t port = to; port < to + count; port++)
        if (!bus->leaves[leaf][port & 0xff])
            set_byte(&bus->leaves[leaf][port & 0xff], index);
    return STATUS_OK;
}

enum status bus_add_mmio(struct bus *bus, uint64_t base, uint64_t size, struct vdev *dev)
{
    if (!dev || size == 0 || base + (size - 1) < base)
        return ERR_INVALID;
    uint64_t last = base + (size - 1);
    uint32_t i = 0, n = bus->mmio_count;
    while (i < n && bus->mmio[i].last < base)
        i++;
    if (i < n && bus->mmio[i].base <= last)
        return ERR_EXISTS;
    if (n == BUS_MAX_MMIO)
        return ERR_NO_MEMORY;
    for (uint32_t unused = n; n == 0 && unused < BUS_MAX_MMIO; unused++)
        bus->mmio[unused].last = UINT64_MAX;
    memmove(&bus->mmio[i + 1], &bus->mmio[i], (n - i) * sizeof(bus->mmio[0]));
    bus->mmio[i] = (struct bus_mmio){.last = last, .base = base, .span = size - 1, .dev = dev};
    bus->mmio_count++;
    return STATUS_OK;
}

bool bus_split_ports(struct bus *bus, struct io_req *req)
{
    bool claimed = false;
    uint64_t value = 0;
    for (unsigned i = 0; i < req->size; i++) {
        uint64_t port = req->addr + i;
        struct vdev *dev = port < BUS_PORTS ? bus_port_owner(bus, (uint16_t)port) : NULL;
        struct io_req part = {
            .addr = port, .value = req->value >> (8 * i) & 0xff, .size = 1, .write = req->write};
        if (dev) {
            dev->ops->access(dev, &part);
            claimed = true;
        } else {
            part.value = 0xff;
        }
        value |= (part.value & 0xff) << (8 * i);
    }
    if (!req->write)
        req->value = value;
    return claimed;
}

/* An entry that is not used holds address 0 only, for nobody. */
static inline bool holds(const struct bus_mmio *range, uint64_t addr)
{
    return addr - range->base <= range->span;
}

/* The first range that ends at or behind addr (the last entry when there is none): five steps. */
static inline const struct bus_mmio *search(const struct bus *bus, uint64_t addr)
{
    STATIC_ASSERT(BUS_MAX_MMIO == 32, "five steps");
    const struct bus_mmio *range = bus->mmio;
    range = range[15].last < addr ? range + 16 : range;
    range = range[7].last < addr ? range + 8 : range;
    range = range[3].last < addr ? range + 4 : range;
    range = range[1].last < addr ? range + 2 : range;
    return range[0].last < addr ? range + 1 : range;
}

struct vdev *bus_find_mmio(const struct bus *bus, uint64_t addr)
{
    const struct bus_mmio *range = search(bus, addr);
    return holds(range, addr) ? range->dev : NULL;
}

bool bus_port_first(struct bus *bus, uint16_t port)
{
    uint64_t bit = (uint64_t)1 << (port % 64);
    return !(__atomic_fetch_or(&bus->port_seen[port / 64], bit, __ATOMIC_RELAXED) & bit);
}

bool bus_mmio_first(struct bus *bus, uint64_t addr)
{
    return once_first(&bus->mmio_seen, addr >> PAGE_SHIFT);
}
