/* The local APIC's modes: SDM volume 3, "x2APIC State Transitions", "Enabling or Disabling the Local APIC",
 * "Relocating the Local APIC Registers", and which of its MSRs can be read and written ("Local APIC Register
 * Address Map Supported by x2APIC"). */
#include "rules.h"

#define BASE_BSP    (1u << 8)
#define BASE_X2     (1u << 10)
#define BASE_ENABLE (1u << 11)
#define FLAGS       (BASE_X2 | BASE_ENABLE)
#define CPUID_APIC  9u
#define MSR_X2      0x800u
#define X2_SELF     0x83fu
#define SVR_ON      0x1ffu
#define MOVED_TO    0x20000000ull
#define VECTOR_A    0x45u

/* The three states: neither bit, EN, both. */
static const uint32_t states[] = {0, BASE_ENABLE, FLAGS};
static const char *const state_names[] = {"disabled", "xAPIC", "x2APIC"};
static uint64_t base;

static void go_to(unsigned state)
{
    wrmsr(MSR_APIC_BASE, base);
    if (state < 2)
        return;
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
    wrmsr(MSR_APIC_BASE, base | FLAGS);
}

static void transitions(void)
{
    static const bool allowed[3][3] = {{true, true, false}, {true, true, true}, {true, false, true}};
    for (unsigned from = 0; from < 3; from++) {
        for (unsigned to = 0; to < 3; to++) {
            go_to(0);
            if (from == 1)
                wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
            else
                go_to(from);
            unsigned vector = try_wrmsr(MSR_APIC_BASE, base | states[to]);
            check((vector == NO_FAULT) == allowed[from][to] && (vector == NO_FAULT || vector == VECTOR_GP),
                  "from %s to %s: vector %u", state_names[from], state_names[to], (uint64_t)vector);
            uint64_t now = rdmsr(MSR_APIC_BASE) & FLAGS;
            check_equal(now, states[allowed[from][to] ? to : from], "the state afterwards");
        }
        go_to(0);
        if (from == 1)
            wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
        else
            go_to(from);
        check(try_wrmsr(MSR_APIC_BASE, base | BASE_X2) == VECTOR_GP, "from %s to x2APIC without enable",
              state_names[from]);
        check(try_wrmsr(MSR_APIC_BASE, base | states[from] | 1) == VECTOR_GP, "a reserved bit in state %s",
              state_names[from]);
        check(try_wrmsr(MSR_APIC_BASE, base | states[from] | 1ull << physical_bits) == VECTOR_GP,
              "an address beyond the width in state %s", state_names[from]);
    }
    go_to(0);
    check(!cpu_has(1, 0, 3, CPUID_APIC), "CPUID shows no APIC while it is disabled");
    check_equal(*(volatile uint32_t *)(APIC_PAGE + 0x30), ~0u, "disabled: the page is not there");
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
    check(cpu_has(1, 0, 3, CPUID_APIC), "CPUID shows the APIC again");
    check_equal(*(volatile uint32_t *)(APIC_PAGE + 0xf0), 0xff, "its state after it was disabled: SVR");
}

/* Which MSRs are there in x2APIC mode: r, w; bits that must be 0 when they are written. */
static void registers(void)
{
    static const struct {
        uint16_t first, last;
        bool read, write;
    } map[] = {{2, 3, true, false},       {8, 8, true, true},       {0xa, 0xa, true, false},
               {0xb, 0xb, false, true},   {0xd, 0xd, true, false},  {0xf, 0xf, true, true},
               {0x10, 0x27, true, false}, {0x28, 0x28, true, true}, {0x30, 0x30, true, true},
               {0x32, 0x37, true, true},  {0x38, 0x38, true, true}, {0x39, 0x39, true, false},
               {0x3e, 0x3e, true, true},  {0x3f, 0x3f, false, true}};
    go_to(2);
    for (unsigned reg = 0, at = 0; reg < 0x100; reg++) {
        while (at < sizeof(map) / sizeof(map[0]) && reg > map[at].last)
            at++;
        bool there = at < sizeof(map) / sizeof(map[0]) && reg >= map[at].first,
             write = there && map[at].write;
        uint64_t v;
        if (reg == 0x2f || reg == 0x33 || reg == 0x34)
            continue; /* CMCI, thermal and performance entries may be missing */
        check((try_rdmsr(MSR_X2 + reg, &v) == NO_FAULT) == (there && map[at].read),
              "x2APIC register %x: read", (uint64_t)reg);
        if (reg == 0x30 || reg == 0x3f)
            continue; /* they would send */
        uint64_t same = there && map[at].read && reg != 0x28 ? v : 0;
        check((try_wrmsr(MSR_X2 + reg, same) == NO_FAULT) == write, "x2APIC register %x: write",
              (uint64_t)reg);
        if (write && reg != 0xb)
            check(try_wrmsr(MSR_X2 + reg, same | 1ull << 32) == VECTOR_GP, "x2APIC register %x: upper half",
                  (uint64_t)reg);
    }
    check(try_wrmsr(MSR_X2 + 0xb, 1) == VECTOR_GP, "EOI takes 0 only");
    check(try_wrmsr(MSR_X2 + 0x28, 1) == VECTOR_GP, "ESR takes 0 only");
    check(try_wrmsr(MSR_X2 + 8, 0x100) == VECTOR_GP, "TPR has 8 bits");
    check(try_wrmsr(X2_SELF, 0x100) == VECTOR_GP, "SELF IPI has 8 bits");
    uint64_t id = rdmsr(MSR_X2 + 2), ldr = rdmsr(MSR_X2 + 0xd);
    check_equal(ldr, (id >> 4) << 16 | 1u << (id & 15), "LDR comes from the ID");
    wrmsr(MSR_X2 + 0xf, SVR_ON);
    uint64_t before = arrived(VECTOR_A);
    wrmsr(X2_SELF, VECTOR_A);
    take_interrupts();
    check_equal(arrived(VECTOR_A) - before, 1, "SELF IPI");
    uint32_t r[4];
    cpuid(0xb, 0, r);
    check_equal(r[3], id, "CPUID's x2APIC ID");
    go_to(0);
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
    check(try_rdmsr(MSR_X2 + 2, &id) == VECTOR_GP, "xAPIC mode has no MSRs");
}

static void relocation(void)
{
    volatile uint32_t *moved = (volatile uint32_t *)map_physical(MOVED_TO);
    check_equal(moved[0x30 / 4], ~0u, "nothing is there before");
    wrmsr(MSR_APIC_BASE, (base & 0xfff) | MOVED_TO | BASE_ENABLE);
    check(moved[0x30 / 4] != ~0u, "relocated: the version");
    moved[0x80 / 4] = 0x30;
    check_equal(moved[0x80 / 4], 0x30, "relocated: TPR");
    check_equal(read_cr8(), 3, "relocated: CR8 is the same");
    check_equal(*(volatile uint32_t *)(APIC_PAGE + 0x30), ~0u, "nothing is left behind");
    wrmsr(MSR_APIC_BASE, base | BASE_ENABLE);
    check_equal(apic_read(APIC_TPR), 0x30, "and back");
    apic_write(APIC_TPR, 0);
}

void rule_apic_modes(void)
{
    base = rdmsr(MSR_APIC_BASE);
    check((base & FLAGS) == BASE_ENABLE && (base & BASE_BSP), "at first: %x", base);
    base &= ~(uint64_t)FLAGS;
    if (cpu_has(1, 0, 2, 21)) {
        transitions();
        registers();
    } else {
        skipped("x2APIC");
    }
    relocation();
    apic_write(APIC_SVR, SVR_ON);
}
