/* How many instructions it takes to find the device of an access: the core's own tables (hv/pc/bus.c),
 * compiled for this guest, with 30 devices in them. */
#include "tests/guest/bench/bench.h"

#include "hv/pc/bus.h"

#define DEVICES    30u
#define PORTS      8u
#define PORT_PAGES 15u /* BUS_MAX_LEAVES */
#define MMIO_BASE  0xfe000000ull
#define MMIO_STEP  0x10000u
#define MMIO_SIZE  0x1000u
#define TRIES      3u

static struct bus bus;
static struct vdev devices[DEVICES];

static uint32_t first_port(uint32_t device)
{
    return 0x100 * (1 + device % PORT_PAGES) + 2 * PORTS * (device / PORT_PAGES);
}

static uint64_t first_byte(uint32_t device)
{
    return MMIO_BASE + (uint64_t)MMIO_STEP * device;
}

/* One lookup of each kind between two readings of the counter, and none. */
static __attribute__((noinline)) uint32_t time_port(uint64_t port, const struct vdev **found)
{
    uint32_t start = bench_now();
    __asm__ volatile("" : "+r"(port));
    *found = bus_find_port(&bus, (uint16_t)port, 4);
    return bench_now() - start;
}

static __attribute__((noinline)) uint32_t time_mmio(uint64_t addr, const struct vdev **found)
{
    uint32_t start = bench_now();
    __asm__ volatile("" : "+r"(addr));
    *found = bus_find_mmio(&bus, addr);
    return bench_now() - start;
}

static __attribute__((noinline)) uint32_t time_none(uint64_t addr, const struct vdev **found)
{
    uint32_t start = bench_now();
    __asm__ volatile("" : "+r"(addr));
    *found = (const struct vdev *)addr; // NOLINT: never looked at
    return bench_now() - start;
}

/* The smallest of a few, as the host may come between. A wrong answer is worse than any slow one. */
static uint32_t time(uint32_t (*one)(uint64_t, const struct vdev **), uint64_t at,
                     const struct vdev *expected)
{
    uint32_t best = UINT32_MAX;
    for (unsigned i = 0; i < TRIES; i++) {
        const struct vdev *found;
        uint32_t ticks = one(at, &found);
        if (found != expected)
            return UINT32_MAX;
        best = ticks < best ? ticks : best;
    }
    return best;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

uint32_t lookup_port_cost(void)
{
    uint32_t worst = 0;
    for (uint32_t i = 0; i < DEVICES; i++) {
        worst = larger(worst, time(time_port, first_port(i), &devices[i]));
        worst = larger(worst, time(time_port, first_port(i) + PORTS - 4, &devices[i]));
        worst =
            larger(worst, time(time_port, first_port(i) + PORTS - 1, NULL)); /* the last byte is nobody's */
        worst = larger(worst, time(time_port, first_port(i) + PORTS, NULL));
    }
    return larger(worst, time(time_port, 0xffff, NULL)) - time(time_none, 0, NULL);
}

uint32_t lookup_mmio_cost(void)
{
    uint32_t worst = 0;
    for (uint32_t i = 0; i < DEVICES; i++) {
        worst = larger(worst, time(time_mmio, first_byte(i), &devices[i]));
        worst = larger(worst, time(time_mmio, first_byte(i) + MMIO_SIZE - 1, &devices[i]));
        worst = larger(worst, time(time_mmio, first_byte(i) + MMIO_SIZE, NULL));
    }
    return larger(worst, time(time_mmio, 0, NULL)) - time(time_none, 0, NULL);
}

bool lookup_set_up(void)
{
    for (uint32_t i = 0; i < DEVICES; i++)
        if (bus_add_ports(&bus, (uint16_t)first_port(i), PORTS, &devices[i]) != STATUS_OK ||
            bus_add_mmio(&bus, first_byte(i), MMIO_SIZE, &devices[i]) != STATUS_OK)
            return false;
    return true;
}
