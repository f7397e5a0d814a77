/* Page tables that point anywhere: reserved bits, loops, devices, addresses that no memory has. What the
 * processor's own walk can refuse must fault; a table where no memory is ends the VM (program_paging_lost).
 */
#include "hostile.h"

#define SLOT         300u /* of the PML4, ours */
#define SLOT_ADDRESS (0xffff000000000000ull | (uint64_t)SLOT << 39)
#define PRESENT_ALL  7ull
#define PAGE_SIZE_PS 0x80ull
#define LOOPS        4000u

static uint64_t tables[3][512] __attribute__((aligned(4096))); /* PDPT, PD, PT of the slot */
static uint64_t faults, passed, bad;

static void read_it(void *argument)
{
    (void)*(volatile uint32_t *)argument;
}

static void write_it(void *argument)
{
    *(volatile uint32_t *)argument = 0x11223344;
}

static void add_it(void *argument)
{
    __asm__ volatile("lock; addl $1, (%0)" ::"r"(argument) : "memory", "cc");
}

static void access(uint64_t linear)
{
    static void (*const ways[])(void *) = {read_it, write_it, add_it};
    for (unsigned i = 0; i < 3; i++) {
        unsigned vector = guarded(ways[i], (void *)linear);
        if (vector == NO_FAULT)
            passed++;
        else if (vector == VECTOR_PF || vector == VECTOR_GP)
            faults++;
        else
            bad++;
    }
}

static void plain_tables(void)
{
    memset(tables, 0, sizeof(tables));
    tables[0][0] = (uintptr_t)tables[1] | PRESENT_ALL;
    tables[1][0] = (uintptr_t)tables[2] | PRESENT_ALL;
    tables[2][0] = 0x500000 | PRESENT_ALL;
    page_pml4[SLOT] = (uintptr_t)tables[0] | PRESENT_ALL;
}

static void flush(void)
{
    write_cr3(read_cr3());
}

/* Each bit of the entry of each level turned, the leaf being memory or a device. */
static void every_bit(uint64_t leaf)
{
    for (unsigned level = 0; level < 4; level++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t *entry = level == 3 ? &page_pml4[SLOT] : &tables[level][0];
            bool moves =
                level != 2 && bit >= 12 && bit < physical_bits; /* would look for a table somewhere else */
            if (moves || (level < 2 && bit == 7 && leaf < IOAPIC_PAGE))
                continue;
            plain_tables();
            tables[2][0] = leaf | PRESENT_ALL;
            *entry ^= 1ull << bit;
            if (level == 2 && bit >= 20 && bit < 23)
                continue; /* our own image */
            flush();
            access(SLOT_ADDRESS);
        }
    }
    plain_tables();
    flush();
}

/* Tables that are their own tables, at every level, and every such chain of length up to four. */
static void loops(struct chance *c)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        uint64_t *all[] = {tables[0], tables[1], tables[2]};
        plain_tables();
        for (unsigned k = 0; k < 3; k++)
            all[k][chance_below(c, 4)] = (uintptr_t)all[chance_below(c, 3)] | (chance_next(c) & 0x67) | 1;
        /* Through the loop only reading: a write would change the tables themselves. */
        flush();
        uint64_t linear = SLOT_ADDRESS | (chance_next(c) & 0xc0600603ffcull);
        guarded(read_it, (void *)linear) == NO_FAULT ? passed++ : faults++;
    }
    plain_tables();
    flush();
}

/* Leaves at random places, of all sizes, with random rights. */
static void anywhere(struct chance *c)
{
    for (unsigned i = 0; i < LOOPS; i++) {
        uint64_t at = chance_next(c) & 0x000ffffffffff000ull;
        if (chance_next(c) & 1)
            at &= (1ull << physical_bits) - 1;
        if (at < memory_top)
            continue;
        uint64_t rights = (chance_next(c) & 0xf8000000000001ffull) | 1;
        plain_tables();
        unsigned level = chance_below(c, 3);
        tables[level][0] = at | rights | (level < 2 ? PAGE_SIZE_PS : 0);
        if (level == 1)
            tables[level][0] &= ~0x1fe000ull;
        if (level == 0)
            tables[level][0] &= ~0x3fffe000ull;
        flush();
        if ((at & ~0x3fffffffull) != 0xc0000000) /* a 1 GiB page over the devices would find them */
            access(SLOT_ADDRESS + (chance_next(c) & 0x1ffff8));
    }
    plain_tables();
    flush();
}

void program_paging(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    (void)step;
    every_bit(0x500000);
    every_bit(IOAPIC_PAGE);
    every_bit(0xd0000000);
    loops(&c);
    anywhere(&c);
    page_pml4[SLOT] = 0;
    flush();
    verdict("paging", bad == 0 && faults > 1000, "%u accesses faulted, %u passed, %u odd", faults, passed,
            bad);
}

void program_paging_lost(unsigned step)
{
    static const uint64_t places[] = {0xd0000000, APIC_PAGE, 0, 0x100000000ull + 0x5000};
    plain_tables();
    print("hostile: paging_lost: step %u\n", (uint64_t)step);
    if (step == 2) {
        write_cr3(IOAPIC_PAGE);
    } else {
        tables[1][0] = places[step] | PRESENT_ALL;
        flush();
        access(SLOT_ADDRESS);
    }
}
