/* Hypercalls, console floods, halting for ever, debug registers, MONITOR and MWAIT, huge REP counts. */
#include "hostile.h"

#define HYPERCALLS  70000u
#define FLOOD_BYTES 200000u
#define ONE_MIB     (1u << 20)
#define FLAGS_IF    0x200ull

static uint64_t vmcall(uint64_t number, const uint64_t *a)
{
    uint64_t result = number;
    __asm__ volatile("mov %5, %%r8\n\tmov %6, %%r9\n\tvmcall"
                     : "+a"(result)
                     : "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "r"(a[4]), "r"(a[5]), "D"(a[6])
                     : "r8", "r9", "memory", "cc");
    return result;
}

void program_hypercall(unsigned step)
{
    struct chance c = {option_number("seed", 1)};
    uint64_t odd = 0, a[7];
    (void)step;
    for (uint64_t i = 0; i < HYPERCALLS; i++) {
        for (unsigned k = 0; k < 7; k++)
            a[k] = chance_next(&c);
        uint64_t number = i < 0x10000 ? i : chance_next(&c);
        odd += vmcall(number, a) != ~0ull;
    }
    verdict("hypercall", odd == 0, "%u calls, %u answered with something else than -1", (uint64_t)HYPERCALLS,
            odd);
}

/* As fast as it goes, without asking whether the transmitter is ready; lines, bytes without end, control
 * codes. */
void program_flood(unsigned step)
{
    static const char line[] = "flood flood flood flood flood flood flood flood flood\n";
    static uint8_t block[65536];
    struct chance c = {option_number("seed", 1)};
    (void)step;
    for (unsigned i = 0; i < FLOOD_BYTES; i++)
        out8(COM1, (uint8_t)line[i % (sizeof(line) - 1)]);
    for (unsigned i = 0; i < sizeof(block); i++) {
        block[i] = (uint8_t)chance_next(&c);
        /* Not what would drive the terminal of whoever reads the transcript, and no line that looks like the
         * core's. */
        if (block[i] == 0x1b || block[i] == '[')
            block[i] = 7;
    }
    const uint8_t *at = block;
    uint64_t count = sizeof(block);
    __asm__ volatile("rep outsb" : "+S"(at), "+c"(count) : "d"(COM1) : "memory");
    print("\n");
    verdict("flood", count == 0, "%u bytes", (uint64_t)FLOOD_BYTES + sizeof(block));
}

static void halt_for_ever(void *argument)
{
    (void)argument;
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* HLT with IF = 0: only an NMI or INIT wakes it. The other processor does it and gets both. */
void program_halt(unsigned step)
{
    (void)step;
    bool good = cpu_start(1, halt_for_ever, NULL);
    uint64_t nmis = cpus[1].interrupts[VECTOR_NMI];
    for (unsigned i = 0; i < 100; i++) {
        apic_send(1, 0x50 | ICR_ASSERT); /* cannot wake it */
        apic_send(1, ICR_NMI | ICR_ASSERT);
        spin_us(100);
    }
    nmis = cpus[1].interrupts[VECTOR_NMI] - nmis;
    good = good && nmis > 0 && cpu_start(1, halt_for_ever, NULL);
    static const uint8_t user_halt[] = {0xf4};
    lab_clear();
    good = good && lab_execute(MODE_LONG_USER, user_halt, 1) == VECTOR_GP;
    apic_send(1, ICR_INIT | ICR_ASSERT);
    verdict("halt", good, "%u NMIs woke a processor halted with interrupts off", nmis);
}

/* Every debug register with every bit, in every mode; single-stepping and breakpoints on what exits. */
void program_debug(unsigned step)
{
    uint64_t passed = 0, faults = 0;
    (void)step;
    for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
        for (unsigned dr = 0; dr < 8; dr++) {
            for (unsigned bit = 0; bit < (mode == MODE_LONG ? 64u : 32u); bit++) {
                uint8_t code[] = {0x0f, 0x23, (uint8_t)(0xc0 | dr << 3 | 2), /* mov drN, edx */
                                  0x0f, 0x21, (uint8_t)(0xc0 | dr << 3),     /* mov eax, drN */
                                  0x0f, 0x23, (uint8_t)(0xc0 | dr << 3 | 1), /* mov drN, ecx */
                                  0x0f, 0xa2};                               /* cpuid */
                lab_clear();
                lab.gpr[2] = 1ull << bit;
                lab.gpr[1] = dr == 7 ? 0x400 : 0;
                lab_execute(mode, code, sizeof(code)) == VECTOR_BP ? passed++ : faults++;
                __asm__ volatile("mov %0, %%dr7" ::"r"(0x400ull));
            }
        }
        /* Single-stepping through instructions that exit: POPF sets TF, then CPUID, IN, HLT's neighbours. */
        static const uint8_t stepping[] = {0x9c, 0x58, 0x0d, 0x00, 0x01, 0x00, 0x00,
                                           0x50, 0x9d, 0x0f, 0xa2, 0xe4, 0x80};
        lab_clear();
        lab_execute(mode, stepping, sizeof(stepping)) == VECTOR_DB ? passed++ : faults++;
    }
    /* A breakpoint on the data of an emulated access, and on its code. */
    static const uint8_t mmio[] = {0x8b, 0x03, 0x0f, 0xa2};
    for (unsigned kind = 0; kind < 4; kind++) {
        uint64_t at = kind ? IOAPIC_PAGE : (uintptr_t)lab_code;
        __asm__ volatile("mov %0, %%dr0; mov %1, %%dr7" ::"r"(at),
                         "r"(0x401ull | (uint64_t)kind << 16 | (kind ? 3ull << 18 : 0)));
        lab_clear();
        lab.gpr[3] = IOAPIC_PAGE;
        lab_execute(MODE_LONG, mmio, sizeof(mmio)) == VECTOR_BP ? passed++ : faults++;
        __asm__ volatile("mov %0, %%dr7" ::"r"(0x400ull));
    }
    verdict("debug", passed > 100, "%u passed, %u faulted", passed, faults);
}

void program_monitor(unsigned step)
{
    static const uint8_t codes[][4] = {
        {3, 0x0f, 0x01, 0xc8}, {3, 0x0f, 0x01, 0xc9}, {3, 0x0f, 0x01, 0xfa}, {3, 0x0f, 0x01, 0xfb}};
    uint64_t refused = 0;
    bool good = true;
    (void)step;
    for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
        for (unsigned i = 0; i < 4; i++) {
            lab_clear();
            lab.gpr[0] = 0x7e00;
            unsigned vector = lab_execute(mode, codes[i] + 1, codes[i][0]);
            good &= vector == VECTOR_UD || vector == VECTOR_GP;
            refused += vector != VECTOR_BP;
        }
    }
    verdict("monitor", good, "%u times refused", refused);
}

struct rep {
    uint64_t from, to, count;
    uint8_t prefix, opcode;
};

/* REP over the end of everything: it has to fault at the first page that is not there, or take its time and
 * be left by the timer. */
void program_rep(unsigned step)
{
    static const struct rep reps[] = {
        {0x500000, 0x500000, ~0ull, 0xf3, 0xa4},     /* MOVS: ends where the mapping does */
        {0x500000, IOAPIC_PAGE, 200000, 0xf3, 0xaa}, /* STOS into a device */
        {0xd0000000, 0x500000, 100000, 0xf3, 0xa4},  /* MOVS out of nothing */
        {0xd0000000, IOAPIC_PAGE, 50000, 0xf3, 0xa5},
        {APIC_PAGE, 0xd0000000, 50000, 0xf3, 0xa4},
        {0xd0000000, 0xd0001000, 100000, 0xf3, 0xa6}, /* CMPS */
        {0xd0000000, 0xd0000000, 100000, 0xf3, 0xae}, /* SCAS */
        {0x500000, 0x500000, 100000, 0xf3, 0x6c},     /* INS */
        {0x500000, 0x500000, 1ull << 63, 0xf3, 0xac},
        {0xd0000000, 0, ~0ull, 0xf3, 0xac}, /* LODS: 5 million million years */
    };
    uint64_t ended = 0, left = 0;
    (void)step;
    for (unsigned i = 0; i < sizeof(reps) / sizeof(reps[0]); i++) {
        const struct rep *r = &reps[i];
        const uint8_t code[] = {r->prefix, r->opcode};
        lab_clear();
        lab.gpr[6] = r->from;
        lab.gpr[7] = i == 0 ? 0xd0000000 - ONE_MIB : r->to;
        lab.gpr[1] = r->count;
        lab.gpr[2] = 0x80;
        apic_timer(VECTOR_TIMER, 0xb, 0);
        apic_timer(VECTOR_TIMER, 0xb, 2000000);
        unsigned vector = lab_execute_flags(MODE_LONG, code, sizeof(code), FLAGS_IF);
        vector >= 32 ? left++ : ended++;
        apic_timer(1u << 16, 0xb, 0);
    }
    verdict("rep", left > 0 && ended > 0, "%u ended, %u were left by the timer", ended, left);
}
