/* Guest-physical space outside the VM's memory: reads and writes of each width, at steps of 2 MiB, at every
 * power of two, around the device pages, by chance up to the physical-address width; every instruction of a
 * list at one device. Fetches end the VM: program_fetch. */
#include "hostile.h"

#define FOUR_GIB      (1ull << 32)
#define DENSE_END     (16ull << 30) /* six accesses each 2 MiB up to here */
#define FAR_END       (1ull << 40)  /* two up to here, and some by chance */
#define RANDOM_PLACES 4000u

static uint64_t touched, odd;

/* Reads must give all-ones and writes must vanish where nothing is. */
static void touch(uint64_t at, bool hole)
{
    volatile uint8_t *p = map_physical(at);
    uint64_t v = *(volatile uint64_t *)p;
    if (hole && v != ~0ull)
        odd++;
    *(volatile uint32_t *)p = 0x12345678;
    *(volatile uint16_t *)(p + 2) = 0xabcd;
    p[5] = 0x55;
    if (hole && *(volatile uint32_t *)(p + 4) != UINT32_MAX)
        odd++;
    touched += 6;
}

/* The same, for half a million places: one read, one write. */
static void touch_lightly(uint64_t at)
{
    volatile uint64_t *p = (volatile uint64_t *)map_physical(at);
    if (*p != ~0ull)
        odd++;
    *p = at;
    touched += 2;
}

/* A whole device page and its neighbours, each width and alignment, then the device is asked to be as before.
 */
static void device_page(uint64_t page, struct chance *c)
{
    for (unsigned i = 0; i < 3000; i++) {
        volatile uint8_t *p = map_physical(page - 8 + chance_below(c, PAGE + 16));
        if (((uintptr_t)p & (LARGE_PAGE - 1)) > LARGE_PAGE - 8)
            continue;
        uint64_t v = chance_next(c);
        if (page == APIC_PAGE && ((uintptr_t)p & 0xff0) == APIC_ICR)
            continue; /* program_ipi's */
        switch (chance_below(c, 8)) {
        case 0:
            p[0] = (uint8_t)v;
            break;
        case 1:
            *(volatile uint16_t *)p = (uint16_t)v;
            break;
        case 2:
            *(volatile uint32_t *)p = (uint32_t)v;
            break;
        case 3:
            *(volatile uint64_t *)p = v;
            break;
        case 4:
            (void)p[0];
            break;
        case 5:
            (void)*(volatile uint16_t *)p;
            break;
        case 6:
            (void)*(volatile uint32_t *)p;
            break;
        default:
            (void)*(volatile uint64_t *)p;
        }
        touched++;
    }
}

void program_physical(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    uint64_t end = 1ull << physical_bits;
    (void)step;
    for (uint64_t at = (memory_top + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1); at < DENSE_END; at += LARGE_PAGE) {
        bool device = at >= 0xe0000000 && at < FOUR_GIB;
        touch(at, !device);
    }
    for (uint64_t at = DENSE_END; at < FAR_END && at < end; at += LARGE_PAGE)
        touch_lightly(at);
    for (unsigned bit = 33; bit < physical_bits; bit++) {
        touch(1ull << bit, true);
        touch((1ull << bit) - 8, true);
    }
    touch(end - 8, true);
    for (unsigned i = 0; i < RANDOM_PLACES; i++)
        touch((chance_next(&c) & (end - 1) & ~7ull) | FOUR_GIB, true);
    device_page(APIC_PAGE, &c);
    device_page(IOAPIC_PAGE, &c);
    device_page(ECAM_PAGE, &c);
    device_page(ECAM_PAGE + 0x8000, &c);
    apic_write(APIC_SVR, 0x1ff);
    verdict("physical", odd == 0, "%u accesses outside memory, %u odd answers", touched, odd);
}
