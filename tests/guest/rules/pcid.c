/* Process-context identifiers and INVPCID: SDM volume 3, 4.10.1 and 4.10.4, volume 2 "INVPCID". */
#include "rules.h"

#define SLOT      506u
#define LINEAR    (SLOT * LARGE_PAGE)
#define CR4_PCIDE (1ull << 17)
#define CR3_KEEP  (1ull << 63)
#define CR4_PGE   (1ull << 7)
#define ENTRY_G   0x100ull

static uint64_t table[512] __attribute__((aligned(4096)));
static uint8_t first[4096] __attribute__((aligned(4096))), second[4096] __attribute__((aligned(4096)));

struct invpcid {
    uint64_t type, descriptor[2];
};

static void do_invpcid(void *argument)
{
    const struct invpcid *i = argument;
    __asm__ volatile("invpcid %0, %1" ::"m"(i->descriptor), "r"(i->type) : "memory");
}

static unsigned invpcid(uint64_t type, uint64_t pcid, uint64_t address)
{
    struct invpcid i = {type, {pcid, address}};
    return guarded(do_invpcid, &i);
}

static void do_cr3(void *argument)
{
    write_cr3(*(const uint64_t *)argument);
}

static unsigned try_cr3(uint64_t v)
{
    return guarded(do_cr3, &v);
}

static uint8_t seen(void)
{
    return *(volatile uint8_t *)LINEAR;
}

static void map(const uint8_t *page, uint64_t more)
{
    table[0] = (uintptr_t)page | 3 | more;
}

static void identifiers(void)
{
    uint64_t cr3 = read_cr3(), cr4 = read_cr4();
    check(try_cr3(cr3 | CR3_KEEP) == VECTOR_GP, "CR3 bit 63 without PCIDE");
    write_cr3(cr3 | 0x18); /* PCD and PWT, which are bits of an identifier */
    check(try_write_cr4(cr4 | CR4_PCIDE) == VECTOR_GP, "PCIDE with CR3's low bits set");
    write_cr3(cr3);
    if (!check(try_write_cr4(cr4 | CR4_PCIDE) == NO_FAULT, "PCIDE"))
        return;
    check(try_cr3(cr3 | 5) == NO_FAULT && read_cr3() == (cr3 | 5), "an identifier");
    check(try_cr3(cr3 | 5 | CR3_KEEP) == NO_FAULT && read_cr3() == (cr3 | 5), "bit 63 is not kept");
    check(try_cr3(cr3 | 1ull << 62) == VECTOR_GP, "bit 62 is reserved");
    check(try_cr3(cr3 | 1ull << physical_bits) == VECTOR_GP, "beyond the address width");
    check(try_cr3(cr3 | 0xfff) == NO_FAULT, "the last identifier");
    /* A move to CR3 without bit 63 drops what this identifier had. */
    write_cr3(cr3 | 1);
    map(first, 0);
    __asm__ volatile("invlpg (%0)" ::"r"(LINEAR) : "memory");
    check_equal(seen(), 1, "the first page");
    map(second, 0);
    write_cr3(cr3 | 1);
    check_equal(seen(), 2, "a move to CR3 drops this identifier's translations");
    map(first, 0);
    write_cr3(cr3 | 2 | CR3_KEEP);
    __asm__ volatile("invlpg (%0)" ::"r"(LINEAR) : "memory");
    check_equal(seen(), 1, "INVLPG drops the current identifier's");
    write_cr3(cr3);
    check(try_write_cr4(cr4) == NO_FAULT, "PCIDE is cleared");
}

static void invalidation(void)
{
    check(invpcid(4, 0, 0) == VECTOR_GP, "type 4");
    check(invpcid(~0ull, 0, 0) == VECTOR_GP, "type -1");
    check(invpcid(0, 0x1000, 0) == VECTOR_GP, "a reserved bit of the descriptor");
    check(invpcid(0, 0, 0x800000000000) == VECTOR_GP, "an address that is not canonical");
    check(invpcid(1, 1, 0) == VECTOR_GP, "an identifier without PCIDE");
    static const char *const names[] = {"INVPCID of an address", "INVPCID of an identifier", "INVPCID of all",
                                        "INVPCID of all but global ones"};
    for (unsigned type = 0; type < 4; type++) {
        map(first, 0);
        __asm__ volatile("invlpg (%0)" ::"r"(LINEAR) : "memory");
        check_equal(seen(), 1, "before INVPCID");
        map(second, 0);
        check(invpcid(type, 0, LINEAR) == NO_FAULT, "%s is accepted", names[type]);
        check_equal(seen(), 2, names[type]);
    }
    write_cr4(read_cr4() | CR4_PGE);
    map(first, ENTRY_G);
    __asm__ volatile("invlpg (%0)" ::"r"(LINEAR) : "memory");
    check_equal(seen(), 1, "a global page");
    map(second, ENTRY_G);
    check(invpcid(2, 0, 0) == NO_FAULT && seen() == 2, "INVPCID of all drops global ones");
    map(first, ENTRY_G);
    write_cr4(read_cr4() & ~CR4_PGE);
    check_equal(seen(), 1, "a change of PGE drops global ones");
}

void rule_pcid(void)
{
    uint64_t before = page_pds[0][SLOT];
    page_pds[0][SLOT] = (uintptr_t)table | 3;
    first[0] = 1;
    second[0] = 2;
    write_cr3(read_cr3());
    if (cpu_has(1, 0, 2, 17))
        identifiers();
    else
        skipped("PCID");
    if (cpu_has(7, 0, 1, 10))
        invalidation();
    else
        check(invpcid(2, 0, 0) == VECTOR_UD, "INVPCID is not offered");
    page_pds[0][SLOT] = before;
    write_cr3(read_cr3());
}
