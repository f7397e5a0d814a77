/* What CPUID says and what the processor does agree: CR4's bits, instructions, and the sizes of XSAVE
 * (SDM volume 1, chapter 13 "Managing State Using the XSAVE Feature Set"). */
#include "rules.h"

#define CR4_LA57      (1ull << 12)
#define CR4_FSGSBASE  (1ull << 16)
#define CPUID_XSAVE   26u
#define CPUID_OSXSAVE 27u
#define LEGACY_SIZE   576u /* FXSAVE's area and the header */

/* Which feature lets a bit of CR4 be set. Leaf 0: always. */
static void control_bits(void)
{
    static const struct {
        uint8_t bit, reg, feature;
        uint32_t leaf;
    } rows[] = {{3, 3, 2, 1},   {4, 3, 3, 1},   {6, 3, 7, 1},  {7, 3, 13, 1},  {9, 3, 24, 1},
                {10, 3, 25, 1}, {11, 2, 2, 7},  {16, 1, 0, 7}, {18, 2, 26, 1}, {22, 2, 3, 7},
                {23, 2, 7, 7},  {24, 2, 31, 7}, {25, 2, 5, 7}};
    uint64_t cr4 = read_cr4();
    uint64_t known = 1ull << 0 | 1ull << 1 | 1ull << 2 | 1ull << 5 | 1ull << 8 | 1ull << 13 | 1ull << 14 |
                     1ull << 17 | 1ull << 19 | 1ull << 20 | 1ull << 21 | 1ull << 27 | 1ull << 28 | CR4_LA57;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool has = cpu_has(rows[i].leaf, 0, rows[i].reg, rows[i].feature);
        unsigned vector = try_write_cr4(cr4 | 1ull << rows[i].bit);
        check((vector == NO_FAULT) == has, "CR4 bit %u: CPUID has its feature: %u, vector %u",
              (uint64_t)rows[i].bit, (uint64_t)has, (uint64_t)vector);
        write_cr4(cr4);
        known |= 1ull << rows[i].bit;
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(known >> bit & 1))
            check(try_write_cr4(cr4 | 1ull << bit) == VECTOR_GP, "CR4 bit %u is reserved", (uint64_t)bit);
    }
    check(try_write_cr4(cr4 ^ CR4_LA57) == VECTOR_GP, "LA57 is not changed in long mode");
    check(try_write_cr4(cr4 & ~0x20ull) == VECTOR_GP, "PAE is not cleared in long mode");
    check(try_write_cr4(cr4 | 1ull << 13) == VECTOR_GP, "there is no VMX");
}

SNIPPET(fsgs, 64, "rdfsbase %rax");
SNIPPET(mwait, 64, "xor %ecx, %ecx; xor %edx, %edx; mov %rsp, %rax; monitor; mwait");
SNIPPET(rdpmc, 64, "xor %ecx, %ecx; rdpmc");
SNIPPET(vmx, 64, "push %rax; vmptrst (%rsp)");
SNIPPET(xgetbv, 64, "xor %ecx, %ecx; xgetbv");
SNIPPET(rdpid, 64, "rdpid %rax");

static void instructions(void)
{
    uint64_t cr4 = read_cr4();
    lab_clear();
    check_equal(RUN(MODE_LONG, fsgs), VECTOR_UD, "RDFSBASE without CR4.FSGSBASE");
    if (cpu_has(7, 0, 1, 0)) {
        write_cr4(cr4 | CR4_FSGSBASE);
        lab_clear();
        check_equal(RUN(MODE_LONG_USER, fsgs), VECTOR_BP, "RDFSBASE of a user");
        write_cr4(cr4);
    }
    lab_clear();
    check_equal(RUN(MODE_LONG, mwait), cpu_has(1, 0, 2, 3) ? VECTOR_BP : VECTOR_UD, "MONITOR as CPUID says");
    lab_clear();
    check_equal(RUN(MODE_LONG, vmx), VECTOR_UD, "VMX instructions");
    lab_clear();
    check_equal(RUN(MODE_LONG, rdpmc), VECTOR_GP, "RDPMC: there is no counter");
    lab_clear();
    check_equal(RUN(MODE_LONG, rdpid), cpu_has(7, 0, 2, 22) ? VECTOR_BP : VECTOR_UD, "RDPID as CPUID says");
    lab_clear();
    check_equal(RUN(MODE_LONG, xgetbv), VECTOR_UD, "XGETBV without OSXSAVE");
}

static void do_xsetbv(void *argument)
{
    uint64_t v = *(const uint64_t *)argument;
    __asm__ volatile("xsetbv" ::"a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(0));
}

static unsigned try_xcr0(uint64_t v)
{
    return guarded(do_xsetbv, &v);
}

/* The size of the standard format for the components in `xcr0`, from the table of components. */
static uint32_t size_of(uint64_t xcr0)
{
    uint32_t end = LEGACY_SIZE, r[4];
    for (unsigned i = 2; i < 63; i++) {
        if (!(xcr0 >> i & 1))
            continue;
        cpuid(0xd, i, r);
        if (r[1] + r[0] > end)
            end = r[1] + r[0];
    }
    return end;
}

static void extended_state(void)
{
    uint64_t cr4 = read_cr4();
    uint32_t r[4];
    check(!cpu_has(1, 0, 2, CPUID_OSXSAVE), "OSXSAVE is 0 in CPUID");
    write_cr4(cr4 | CR4_OSXSAVE);
    check(cpu_has(1, 0, 2, CPUID_OSXSAVE), "OSXSAVE is 1 in CPUID");
    cpuid(0xd, 0, r);
    uint64_t all = (uint64_t)r[3] << 32 | r[0];
    check((all & 3) == 3, "x87 and SSE are offered: %x", all);
    check_equal(r[2], size_of(all), "the size of everything offered");
    for (unsigned bit = 0; bit < 64; bit++) {
        cpuid(0xd, bit, r);
        if (bit >= 2 && bit < 63)
            check((r[0] != 0) == (all >> bit & 1), "component %u: its size is %u", (uint64_t)bit,
                  (uint64_t)r[0]);
        if (!(all >> bit & 1))
            check(try_xcr0(1ull << bit | 1) == VECTOR_GP, "XCR0 bit %u is not offered", (uint64_t)bit);
    }
    static const uint64_t tries[] = {1, 3, 7, 0xe7, 0, 2, 5, 6, 0xe3, 0x23, 0x27, 0x67, 0x207};
    for (unsigned i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        uint64_t v = tries[i], wide = v & 0xe0;
        bool good = (v & 1) && !(v & ~all) && (!(v & 4) || (v & 2)) && (!wide || (wide == 0xe0 && (v & 4)));
        check((try_xcr0(v) == NO_FAULT) == good, "XCR0 = %x", v);
        if (good) {
            cpuid(0xd, 0, r);
            check(r[1] == size_of(v), "XCR0 = %x: CPUID says %u bytes, its components are %u", v,
                  (uint64_t)r[1], (uint64_t)size_of(v));
        }
    }
    check(try_xcr0(all) == NO_FAULT, "XCR0 = everything");
    try_xcr0(1);
    write_cr4(cr4);
}

void rule_features(void)
{
    control_bits();
    instructions();
    if (cpu_has(1, 0, 2, CPUID_XSAVE))
        extended_state();
    else
        skipped("XSAVE");
}
