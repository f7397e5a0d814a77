/* Random instructions, for ever: the second processor runs them in the lab, a few at a time, in random modes
 * and with registers that point at interesting places; the first one watches, and starts the second again
 * with INIT when it does not get on. Every case follows from the seed and the case's number alone. The number
 * outlives a restart of the VM; where the power was off nothing is left, and with case=ask whoever put it on
 * again says on the serial port where to go on. */
#include "hostile.h"

#define CASE_TICKS   6000u /* of the APIC's timer: then a case that still runs is left */
#define WATCH_US     2000u
#define REPORT_US    500000u
#define MAX_CODE     48u
#define FLAGS_IF     0x200ull
#define SCRATCH      0x500000ull
#define APIC_MASKED  (1u << 16)
#define FOUR_GIB     (1ull << 32)
#define PAGE_ALL     0x87ull
#define ENTRY_ALL    7ull
#define NO_EXECUTE   (1ull << 63)
#define IOAPIC_PINS  24u
#define LSR_READY    1u
#define ENTRY_SYSTEM 3ull
#define ENTRY_READ   1ull
#define IMAGE        0x200000ull
#define LOW_FREE     0x6000ull
/* Of the cases that can reach devices, one in so many may do so with any instruction. */
#define UNKNOWN_EVERY 3000u
#define TABLES_EVERY  100u

static const uint32_t modes_without_paging = 1u << MODE_PROTECTED | 1u << MODE_PROTECTED_USER;
static uint64_t memory_end;

enum { TOTAL_FAULTS, TOTAL_PASSED, TOTAL_TIMER, TOTAL_STUCK, TOTAL_ODD, TOTAL_BYTES };

struct code {
    uint8_t bytes[MAX_CODE];
    unsigned size;
};

static void put(struct code *code, uint8_t byte)
{
    if (code->size < MAX_CODE)
        code->bytes[code->size++] = byte;
}

static void put_random(struct code *code, struct chance *c, unsigned count)
{
    while (count--)
        put(code, (uint8_t)chance_next(c));
}

/* ModRM, and what follows from it: sometimes too much, sometimes too little. */
static void put_operand(struct code *code, struct chance *c)
{
    uint8_t modrm = (uint8_t)chance_next(c);
    if (chance_below(c, 3) == 0)
        modrm &= 0x3f; /* a plain pointer */
    put(code, modrm);
    if ((modrm & 7) == 4 && modrm < 0xc0)
        put(code, (uint8_t)chance_next(c));
    unsigned size = modrm >> 6 == 1 ? 1 : modrm >> 6 == 2 ? 4 : 0;
    for (unsigned i = 0; i < size; i++)
        put(code, i < 2 ? (uint8_t)chance_next(c) : 0);
}

static void put_prefixes(struct code *code, struct chance *c)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
    while (chance_below(c, 4) == 0)
        put(code, prefixes[chance_below(c, sizeof(prefixes))]);
    if (chance_below(c, 4) == 0)
        put(code, 0x40 | (chance_next(c) & 15));
}

static void memory_access(struct code *code, struct chance *c)
{
    static const uint8_t one[] = {
        0x00, 0x01, 0x02, 0x03, 0x08, 0x0b, 0x11, 0x13, 0x19, 0x1b, 0x20, 0x21, 0x23, 0x29, 0x2b, 0x31, 0x33,
        0x38, 0x39, 0x3b, 0x63, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8e,
        0x8f, 0xc0, 0xc1, 0xc6, 0xc7, 0xd0, 0xd1, 0xd3, 0xd9, 0xdd, 0xf6, 0xf7, 0xfe, 0xff, 0x62, 0xc4, 0xc5};
    static const uint8_t two[] = {0xa3, 0xab, 0xb3, 0xbb, 0xba, 0xa4, 0xa5, 0xac, 0xad, 0xaf,
                                  0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3, 0xc7,
                                  0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f, 0x40, 0x4f, 0x90, 0xae,
                                  0x18, 0x0d, 0x02, 0x03, 0xb2, 0xb4, 0xbc, 0xbd, 0xb8};
    static const uint8_t strings[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    switch (chance_below(c, 5)) {
    case 0:
        put(code, strings[chance_below(c, sizeof(strings))]);
        return;
    case 1:
        put(code, 0x0f);
        put(code, two[chance_below(c, sizeof(two))]);
        break;
    case 2:
        put(code, 0x0f);
        put(code, 0x38);
        put(code, 0xf0 | (chance_next(c) & 1));
        break;
    default:
        put(code, one[chance_below(c, sizeof(one))]);
    }
    put_operand(code, c);
    if (chance_below(c, 3) == 0)
        put_random(code, c, 1 + chance_below(c, 4));
}

/* What Bulkhead emulates on devices: anything else would end the VM, again and again in the same way. */
static void device_access(struct code *code, struct chance *c)
{
    static const uint8_t one[] = {0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x02, 0x0a, 0x12,
                                  0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x84, 0x86, 0x88, 0x8a, 0xc6, 0x80};
    static const uint8_t two[] = {0xa3, 0xab, 0xb3, 0xbb, 0xb0, 0xb1, 0xb6,
                                  0xb7, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3};
    static const uint8_t strings[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae, 0x6c, 0x6e};
    static const struct {
        uint8_t op, group;
    } groups[] = {{0xf6, 0}, {0xf6, 2}, {0xf7, 3}, {0xfe, 0}, {0xfe, 1},
                  {0xff, 0}, {0xff, 1}, {0xff, 6}, {0x8f, 0}, {0xc7, 0}};
    unsigned group = 8, which = chance_below(c, 8);
    if (which == 0) {
        put(code, strings[chance_below(c, sizeof(strings))] | (chance_next(c) & 1));
        return;
    }
    if (which < 3) {
        put(code, 0x0f);
        put(code, two[chance_below(c, sizeof(two))]);
    } else if (which == 3) {
        unsigned i = chance_below(c, sizeof(groups) / sizeof(groups[0]));
        put(code, groups[i].op);
        group = groups[i].group;
    } else {
        uint8_t op = one[chance_below(c, sizeof(one))];
        put(code, op | (chance_next(c) & 1));
        group = op == 0xc6 ? 0 : 8;
    }
    unsigned at = code->size;
    put_operand(code, c);
    if (group < 8)
        code->bytes[at] = (code->bytes[at] & 0xc7) | (uint8_t)(group << 3);
}

static void port_access(struct code *code, struct chance *c)
{
    static const uint8_t ops[] = {0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0x6c, 0x6d, 0x6e, 0x6f};
    uint8_t op = ops[chance_below(c, sizeof(ops))];
    put(code, op);
    if (op >= 0xe4 && op <= 0xe7)
        put(code, (uint8_t)chance_next(c));
}

static void system_insn(struct code *code, struct chance *c)
{
    static const uint8_t ops[] = {0x00, 0x01, 0x01, 0x01, 0x20, 0x21, 0x22, 0x22, 0x23,
                                  0x06, 0x08, 0x09, 0x0b, 0xa2, 0x31, 0x33, 0x30, 0x32,
                                  0x30, 0x32, 0x30, 0x32, 0xae, 0xc7, 0x0d, 0xb2};
    uint8_t op = ops[chance_below(c, sizeof(ops))];
    put(code, 0x0f);
    put(code, op);
    unsigned at = code->size;
    put_operand(code, c);
    uint8_t field = code->bytes[at] >> 3 & 7;
    bool loads_tables = (op == 0x01 && (field == 2 || field == 3) && code->bytes[at] < 0xc0) ||
                        (op == 0x00 && field == 3) || (op == 0x22 && field == 3);
    if (loads_tables && chance_below(c, TABLES_EVERY))
        code->bytes[at] ^= 0x20; /* another member of the group: these end the VM nearly always */
}

static void vmx_insn(struct code *code, struct chance *c)
{
    static const uint8_t thirds[] = {0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc8, 0xc9, 0xca, 0xcb,
                                     0xcf, 0xd0, 0xd1, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
                                     0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xee, 0xef, 0xf8, 0xf9, 0xfa};
    put(code, 0x0f);
    switch (chance_below(c, 6)) {
    case 0:
        put(code, 0x38);
        put(code, 0x80 + (uint8_t)chance_below(c, 3));
        put_operand(code, c);
        break;
    case 1:
        put(code, 0x78 + (chance_next(c) & 1));
        put_operand(code, c);
        break;
    case 2:
        put(code, 0xc7);
        put(code, 0x30 | (chance_next(c) & 0xcf));
        break;
    case 3:
        put(code, chance_next(c) & 1 ? 0x37 : 0xaa);
        break;
    default:
        put(code, 0x01);
        put(code, thirds[chance_below(c, sizeof(thirds))]);
    }
}

static void control_flow(struct code *code, struct chance *c)
{
    static const uint8_t ops[] = {0xcd, 0xcc, 0xce, 0xf1, 0xcf, 0xc3, 0xcb, 0x9a, 0xea, 0xe8,
                                  0xe9, 0xeb, 0xf4, 0xfa, 0xfb, 0x9d, 0x9c, 0x17, 0x1f, 0x07,
                                  0xff, 0xe0, 0xe2, 0x74, 0x0f, 0xc8, 0xc9, 0xd6, 0x98, 0x9b};
    uint8_t op = ops[chance_below(c, sizeof(ops))];
    put(code, op);
    if (op == 0x0f) {
        static const uint8_t calls[] = {0x05, 0x07, 0x34, 0x35, 0xff, 0xb9, 0xa0, 0xa1, 0xa8, 0xa9};
        put(code, calls[chance_below(c, sizeof(calls))]);
    } else if (op == 0xff) {
        put_operand(code, c);
    } else {
        put_random(code, c, chance_below(c, 5));
    }
}

static void one_insn(struct code *code, struct chance *c)
{
    static void (*const kinds[])(struct code *, struct chance *) = {
        memory_access, memory_access, memory_access, port_access,
        system_insn,   system_insn,   vmx_insn,      control_flow,
    };
    unsigned kind = chance_below(c, 10);
    put_prefixes(code, c);
    if (kind < sizeof(kinds) / sizeof(kinds[0]))
        kinds[kind](code, c);
    else
        put_random(code, c, 1 + chance_below(c, 15));
}

static uint64_t interesting(struct chance *c)
{
    switch (chance_below(c, 16)) {
    case 0:
        return APIC_PAGE + (chance_next(c) & 0xfff);
    case 1:
        return APIC_PAGE + (chance_next(c) & 0x3f0);
    case 2:
        return IOAPIC_PAGE + (chance_next(c) & 0x1f);
    case 3:
        return ECAM_PAGE + (chance_next(c) & 0xffff);
    case 4:
        return 0xd0000000 + (chance_next(c) & 0xfff);
    case 5:
    case 6:
    case 7:
        return SCRATCH + (chance_next(c) & 0xffff);
    case 8:
        return SCRATCH - 4 + (chance_next(c) & 7);
    case 9:
        return chance_below(c, 64);
    case 10:
        return ~0ull - chance_below(c, 16);
    case 11:
        return (uintptr_t)lab_code + chance_below(c, 16);
    case 12:
        return 0x7ffffffffff8 + chance_below(c, 16);
    case 13:
        return 1ull << chance_below(c, 64);
    case 14:
        return 0x6000 + (chance_next(c) & 0xfff);
    default:
        return chance_next(c);
    }
}

static uint64_t msr_number(struct chance *c)
{
    static const uint32_t bases[] = {
        0x10,  0x1b,       0x3a,       0x48,       0x8b,       0xfe,       0x174,      0x1a0,
        0x1d9, 0x200,      0x250,      0x277,      0x2ff,      0x400,      0x480,      0x6a0,
        0x6e0, 0x800,      0x808,      0x80b,      0x82f,      0x830,      0x832,      0x83f,
        0xda0, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000100, 0xc0000102, 0xc0000103, 0x40000000};
    return bases[chance_below(c, sizeof(bases) / sizeof(bases[0]))] +
           (chance_below(c, 3) ? 0 : chance_below(c, 16));
}

static uint64_t port_number(struct chance *c)
{
    static const uint16_t bases[] = {0x20,  0x40,  0x60,  0x70,  0x80,  0xa0, 0xcf8,
                                     0xcfc, 0x3f8, 0x4d0, 0x600, 0x608, 0xb2, 0x61};
    return bases[chance_below(c, sizeof(bases) / sizeof(bases[0]))] + chance_below(c, 4);
}

/* Tables under which the code in the lab can read the runtime but not change it: a page of its own for the
 * code and its stack, SCRATCH, and the stack that the processor pushes on are all it may write. */
static uint64_t case_pml4[512] __attribute__((aligned(4096)));
static uint64_t case_pdpt[512] __attribute__((aligned(4096)));
static uint64_t case_pd[512] __attribute__((aligned(4096)));
static uint64_t case_low[512] __attribute__((aligned(4096)));
static uint64_t case_image[512] __attribute__((aligned(4096)));

static void make_tables(void)
{
    uint64_t code = (uintptr_t)lab_code / PAGE;
    for (uint64_t i = 0; i < 512; i++) {
        bool open = i == code || (i >= LOW_FREE / PAGE && i < 0xa0);
        case_low[i] = i * PAGE | (open ? ENTRY_ALL : ENTRY_READ);
        uint64_t at = IMAGE + i * PAGE, stack = (uintptr_t)ist_stacks[1];
        case_image[i] = at | (at >= stack && at < stack + STACK_SIZE ? ENTRY_SYSTEM : ENTRY_READ);
        case_pd[i] = page_pds[0][i];
    }
    case_pd[0] = (uintptr_t)case_low | ENTRY_ALL;
    case_pd[1] = (uintptr_t)case_image | ENTRY_SYSTEM;
    case_pd[3] &= ~2ull;
    for (unsigned i = 1; i < 4; i++)
        case_pdpt[i] = page_pdpt[i];
    case_pdpt[0] = (uintptr_t)case_pd | ENTRY_ALL;
    case_pml4[0] = (uintptr_t)case_pdpt | ENTRY_ALL;
    case_pml4[PHYSICAL_WINDOW >> 39 & 511] = page_pml4[PHYSICAL_WINDOW >> 39 & 511];
    lab_cr3 = (uintptr_t)case_pml4;
    lab_low_directory = (uintptr_t)case_pd;
}

static enum lab_mode choose_mode(struct chance *c)
{
    /* Where nothing protects the stack that the processor itself pushes on, most cases end the VM: few of
     * those. */
    static const uint16_t weights[MODE_COUNT] = {
        [MODE_LONG] = 600,
        [MODE_LONG_USER] = 600,
        [MODE_COMPAT] = 100,
        [MODE_COMPAT_USER] = 200,
        [MODE_COMPAT16_USER] = 100,
        [MODE_PROTECTED] = 1,
        [MODE_PROTECTED_USER] = 5,
        [MODE_PROTECTED16] = 1,
        [MODE_PAGED] = 1,
        [MODE_PAE] = 1,
        [MODE_PAE_USER] = 150,
        [MODE_V86] = 80,
        [MODE_REAL] = 4,
    };
    unsigned sum = 0;
    for (unsigned i = 0; i < MODE_COUNT; i++)
        sum += weights[i];
    unsigned at = chance_below(c, sum), mode = 0;
    while (at >= weights[mode])
        at -= weights[mode++];
    return (enum lab_mode)mode;
}

static void registers(struct chance *c, enum lab_mode mode)
{
    lab_clear();
    uint64_t stack = lab.gpr[4];
    for (unsigned i = 0; i < 16; i++)
        lab.gpr[i] = interesting(c);
    unsigned use = chance_below(c, 4);
    if (use == 0)
        lab.gpr[1] = msr_number(c);
    else if (use < 3)
        lab.gpr[1] = chance_below(c, 200); /* a count */
    if (chance_below(c, 2))
        lab.gpr[2] = port_number(c);
    /* Where the processor itself pushes, a stack of one's own: another one would end every case in the same
     * way. */
    bool needs_stack = !lab_is_user(mode) && !lab_is_long(mode);
    if (needs_stack || chance_below(c, 8))
        lab.gpr[4] = stack;
}

/* Where nothing but devices and holes are: there for some cases, for the others no page. Our own way to the
 * APIC is another one. */
static void show_devices(bool show)
{
    if (show == lab_devices)
        return;
    for (uint64_t at = memory_end; at < FOUR_GIB; at += LARGE_PAGE) {
        uint64_t *directory = at >> 30 ? page_pds[at >> 30] : case_pd;
        directory[at >> 21 & 511] =
            show ? at | PAGE_ALL | NO_EXECUTE : 0; /* program_fetch is for code there */
    }
    lab_devices = show;
}

static void run_case(struct chance *c)
{
    struct code code = {.size = 0};
    copy_low(); /* a case in a mode without protection may have changed it */
    enum lab_mode mode = choose_mode(c);
    bool devices = chance_below(c, 3) == 0;
    if (!devices && modes_without_paging & 1u << mode)
        devices = true;
    show_devices(devices);
    if (devices && chance_below(c, UNKNOWN_EVERY)) {
        put_prefixes(&code, c);
        device_access(&code, c);
    } else {
        for (unsigned i = 0, n = 1 + chance_below(c, 4); i < n; i++)
            one_insn(&code, c);
    }
    registers(c, mode);
    progress->code_mode = mode;
    progress->code_size = code.size;
    memcpy(progress->code, code.bytes, sizeof(progress->code));
    apic_timer(VECTOR_TIMER, 0xb, CASE_TICKS);
    unsigned vector = lab_execute_flags(mode, code.bytes, code.size, chance_below(c, 4) ? FLAGS_IF : 0);
    uint64_t *t = progress->totals;
    t[vector == VECTOR_BP      ? TOTAL_PASSED
      : vector < 32            ? TOTAL_FAULTS
      : vector == VECTOR_TIMER ? TOTAL_TIMER
                               : TOTAL_ODD]++;
    t[TOTAL_BYTES] += code.size;
    apic_timer(APIC_MASKED, 0xb, 0);
    apic_write(APIC_EOI, 0);
}

/* What a case may have left and the next one should not find. */
static void clean_up(void)
{
    write_cr8(0);
    __asm__ volatile("mov %0, %%dr7" ::"r"(0x400ull));
    apic_write(APIC_SVR, 0x1ff);
}

static void fuzz_loop(void *argument)
{
    (void)argument;
    for (;;) {
        uint64_t number = __atomic_fetch_add(&progress->cases, 1, __ATOMIC_SEQ_CST);
        struct chance c = {progress->seed ^ number * 0xd1342543de82ef95ull};
        (void)chance_next(&c);
        run_case(&c);
        clean_up();
    }
}

static void report(void)
{
    const uint64_t *t = progress->totals;
    print("fuzz: seed %u cases %u faulted %u passed %u timer %u stuck %u odd %u bytes %u starts %u\n",
          progress->seed, progress->cases, t[TOTAL_FAULTS], t[TOTAL_PASSED], t[TOTAL_TIMER], t[TOTAL_STUCK],
          t[TOTAL_ODD], t[TOTAL_BYTES], progress->boots);
}

static void say_last_case(void)
{
    print("fuzz: start %u; the last case before was %u, mode %s:", progress->boots, progress->cases,
          lab_mode_names[progress->code_mode % MODE_COUNT]);
    for (unsigned i = 0; i < sizeof(progress->code) && i < progress->code_size; i++)
        print(" %x", (uint64_t)progress->code[i]);
    print("\n");
    report();
}

/* The first processor's own state, which messages of the second may have changed. */
static void watch_again(void)
{
    volatile uint8_t *ioapic = map_physical(IOAPIC_PAGE);
    for (uint32_t i = 0; i < 2 * IOAPIC_PINS; i += 2) {
        *(volatile uint32_t *)ioapic = 0x10 + i;
        *(volatile uint32_t *)(ioapic + 0x10) = 1u << 16;
    }
    apic_hide();
    cpu_tables(this_cpu());
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    apic_write(APIC_SVR, 0x1ff);
    write_cr8(0);
}

static uint64_t ask_number(const char *question)
{
    uint64_t number = 0;
    print("%s\n", question);
    for (;;) {
        while (!(in8(COM1 + 5) & LSR_READY))
            ;
        uint8_t c = in8(COM1);
        if (c == '\r')
            return number;
        if (c >= '0' && c <= '9')
            number = number * 10 + (uint64_t)(c - '0');
    }
}

static uint64_t first_case(void)
{
    char text[24];
    bool ask = option_text("case", text, sizeof(text)) && text_equals(text, "ask");
    return ask ? ask_number("fuzz: first case?") : option_number("case", 0);
}

void program_fuzz(unsigned step)
{
    uint64_t last = 0, since_report = 0;
    (void)step;
    progress->step = 0; /* after a restart: the same again, with the next case */
    if (progress->boots == 1) {
        progress->seed = option_number("seed", 1);
        progress->cases = first_case();
    } else {
        say_last_case();
    }
    memory_end = (memory_top + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1);
    apic_hide();
    make_tables();
    forgiving = true;
    bool running = cpu_start(1, fuzz_loop, NULL);
    for (;;) {
        spin_us(WATCH_US);
        uint64_t now = __atomic_load_n(&progress->cases, __ATOMIC_SEQ_CST);
        if (now == last || !running) {
            progress->totals[TOTAL_STUCK]++;
            watch_again();
            running = cpu_start(1, fuzz_loop, NULL);
            if (!running) { /* its APIC may be off: nothing but a reset helps */
                report();
                out8(0xcf9, 0x0e);
            }
        }
        last = now;
        since_report += WATCH_US;
        if (since_report >= REPORT_US) {
            report();
            since_report = 0;
        }
    }
}
