/* Hardware task switches, seen from inside a VM: a 32-bit kernel without paging that switches tasks in each
 * of the ways there are, and breaks the rules (SDM volume 3, 8.3 and table 8-1). One line for each check that
 * fails, then the count, in the words of tests/guest/rules. */
#include <stddef.h>
#include <stdint.h>

#define COM1          0x3f8u
#define COM_LSR       5u
#define LSR_THR_EMPTY 0x20u
#define PM1_CONTROL   0x604u
#define SLEEP_S5      (7u << 10 | 1u << 13)
#define APIC_ICR      0xfee00300u
#define APIC_SVR      0xfee000f0u
#define SVR_ENABLED   0x1ffu
#define ICR_NMI_SELF  0x44400u /* shorthand self, assert, delivery mode NMI */

#define EFLAGS_NT 0x4000u
#define EFLAGS_RF 0x10000u
#define CR0_TS    8u
#define DR6_BT    0x8000u
#define STACK     2048u
#define NO_ERROR  0xffffffffu

enum { /* selectors */
       CODE = 0x08,
       DATA = 0x10,
       TSS_MAIN = 0x18,
       TSS_CALL = 0x20,
       TSS_GATE = 0x28,
       TSS_FAULT = 0x30,
       TSS_NMI = 0x38,
       TSS_16 = 0x40,
       TSS_TRAP = 0x48,
       TSS_BROKEN = 0x50,
       CODE_16 = 0x58, /* based at the kernel, so that 16 bits of EIP suffice */
       STACK_16 = 0x60,
       LDT_SEG = 0x68,
       GATE = 0x70,
       ABSENT = 0x78,
       SHORT = 0x80,
       GDT_ENTRIES = 17
};

enum {
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_GP = 13,
    VECTOR_INT = 0x40,
    VECTORS = 0x41
};

struct tss {
    uint32_t link, stacks[6], cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_map;
};

struct tss16 {
    uint16_t link, stacks[6], ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

struct descriptor_table {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

void hello_main(uint32_t magic, const void *info, uint32_t eflags);

static uint64_t gdt[GDT_ENTRIES], idt[VECTORS], ldt[2];
static struct tss tss_main, tss_call, tss_gate, tss_fault, tss_nmi, tss_trap, tss_broken;
static struct tss16 tss_16;
static uint8_t stacks[8][STACK] __attribute__((aligned(16)));
static uint32_t checks, failed;

/* What a task saw: volatile, as it runs behind the compiler's back. */
static volatile struct {
    uint32_t runs, eflags, tr, cr0, link, main_eip, main_eflags, error, ds;
} seen;

/* What an exception's handler saw. */
volatile uint32_t fault_vector, fault_error, fault_resume;

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(in8(COM1 + COM_LSR) & LSR_THR_EMPTY)) {
        }
        out8(COM1, (uint8_t)*text);
    }
}

static void say_number(uint32_t value, uint32_t base)
{
    char text[12];
    unsigned at = sizeof(text) - 1;
    text[at] = 0;
    do {
        text[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    say(text + at);
}

static void check(uint32_t found, uint32_t expected, const char *what)
{
    checks++;
    if (found == expected)
        return;
    failed++;
    say("rules: FAIL tasks: ");
    say(what);
    say(": ");
    say_number(found, 16);
    say(", expected ");
    say_number(expected, 16);
    say("\n");
}

static uint32_t get_eflags(void)
{
    uint32_t value;
    __asm__ volatile("pushf; pop %0" : "=r"(value));
    return value;
}

static uint32_t get_tr(void)
{
    uint32_t value;
    __asm__ volatile("str %0" : "=r"(value));
    return value;
}

static uint32_t get_cr0(void)
{
    uint32_t value;
    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    return value;
}

static uint32_t get_dr6(void)
{
    uint32_t value;
    __asm__ volatile("mov %%dr6, %0" : "=r"(value));
    return value;
}

static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t access)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(access & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(access >> 12 & 15) << 52 |
           (uint64_t)(base >> 24) << 56;
}

static uint32_t access_of(uint32_t selector)
{
    return gdt[selector / 8] >> 40 & 0xff;
}

static void look(const struct tss *mine)
{
    seen.runs++;
    seen.eflags = get_eflags();
    seen.tr = get_tr();
    seen.cr0 = get_cr0();
    seen.link = mine->link & 0xffff;
    seen.main_eip = tss_main.eip;
    seen.main_eflags = tss_main.eflags;
    __asm__ volatile("clts");
}

/* ---- the tasks: each goes on behind its IRET when it is switched to again ---- */

static void task_call(void)
{
    for (;;) {
        uint32_t ds;
        __asm__ volatile("mov %%ds, %0" : "=r"(ds));
        seen.ds = ds;
        look(&tss_call);
        if (get_eflags() & EFLAGS_NT)
            __asm__ volatile("iret");
        else
            __asm__ volatile("ljmp %0, $0" ::"i"(TSS_MAIN));
    }
}

static void task_gate(void)
{
    for (;;) {
        look(&tss_gate);
        __asm__ volatile("iret");
    }
}

static void task_nmi(void)
{
    for (;;) {
        look(&tss_nmi);
        __asm__ volatile("iret");
    }
}

static void task_trap(void)
{
    for (;;) {
        look(&tss_trap);
        __asm__ volatile("iret");
    }
}

/* Gets an error code on its stack, and sends whom it interrupted on behind the fault. */
void task_fault_body(uint32_t error);
void task_fault_body(uint32_t error)
{
    look(&tss_fault);
    seen.error = error;
    struct tss *who = seen.link == TSS_MAIN ? &tss_main : &tss_broken;
    who->eip = fault_resume;
}
extern const uint8_t task_fault[];
__asm__(".text\n"
        "task_fault: call task_fault_body\n"
        "    add $4, %esp\n" /* the error code */
        "    testl $1, fault_jumps\n"
        "    jnz 1f\n"
        "    iret\n"
        "    jmp task_fault\n"
        "1:  ljmp $0x18, $0\n"
        "    jmp task_fault\n");
volatile uint32_t fault_jumps; /* it leaves for the main task, instead of returning */

/* In 16 bits of EIP and ESP. */
extern const uint8_t task_16[], task_16_again[];
volatile uint32_t runs_16;
__asm__(".text\n"
        "task_16: incl runs_16\n"
        "    iret\n"
        "    addl $0x100, runs_16\n"
        "    iret\n"
        "task_16_again: jmp task_16_again\n");

/* ---- exceptions through interrupt gates: the vector, the error code, and on at fault_resume ---- */

#define HANDLER(number, pop)                                                                                 \
    __asm__(".text\nhandler_" #number ": movl $" #number ", fault_vector\n" pop                              \
            "    mov fault_resume, %eax\n    mov %eax, (%esp)\n    iret\n");                                 \
    extern const uint8_t handler_##number[]
HANDLER(1, "");
HANDLER(10, "    popl fault_error\n");
HANDLER(11, "    popl fault_error\n");
HANDLER(13, "    popl fault_error\n");

static uint64_t gate(const uint8_t *handler)
{
    uint32_t at = (uint32_t)(uintptr_t)handler;
    return (at & 0xffff) | (uint64_t)CODE << 16 | 0x8eull << 40 | (uint64_t)(at >> 16) << 48;
}

static uint64_t task_gate_to(uint32_t selector)
{
    return (uint64_t)selector << 16 | 0x85ull << 40;
}

static void make_task(struct tss *tss, uint32_t selector, uint32_t stack, const void *entry)
{
    *tss = (struct tss){.eip = (uint32_t)(uintptr_t)entry,
                        .eflags = 2,
                        .esp = (uint32_t)(uintptr_t)stacks[stack] + STACK,
                        .es = DATA,
                        .cs = CODE,
                        .ss = DATA,
                        .ds = DATA,
                        .fs = DATA,
                        .gs = DATA,
                        .io_map = sizeof(*tss)};
    gdt[selector / 8] = descriptor((uint32_t)(uintptr_t)tss, sizeof(*tss) - 1, 0x89);
}

extern uint8_t entry[];

static void make_16bit_task(void)
{
    uint32_t base = (uint32_t)(uintptr_t)entry & ~0xffffu;
    gdt[CODE_16 / 8] = descriptor(base, 0xffff, 0x409b);
    gdt[STACK_16 / 8] = descriptor((uint32_t)(uintptr_t)stacks[6], STACK - 1, 0x4093);
    tss_16 = (struct tss16){.ip = (uint16_t)((uint32_t)(uintptr_t)task_16 - base),
                            .flags = 2,
                            .sp = STACK,
                            .es = DATA,
                            .cs = CODE_16,
                            .ss = STACK_16,
                            .ds = DATA};
    gdt[TSS_16 / 8] = descriptor((uint32_t)(uintptr_t)&tss_16, sizeof(tss_16) - 1, 0x81);
}

static void set_up(void)
{
    gdt[CODE / 8] = descriptor(0, 0xfffff, 0xc09b);
    gdt[DATA / 8] = descriptor(0, 0xfffff, 0xc093);
    make_task(&tss_main, TSS_MAIN, 7, NULL);
    make_task(&tss_call, TSS_CALL, 0, (const void *)(uintptr_t)task_call);
    make_task(&tss_gate, TSS_GATE, 1, (const void *)(uintptr_t)task_gate);
    make_task(&tss_fault, TSS_FAULT, 2, task_fault);
    make_task(&tss_nmi, TSS_NMI, 3, (const void *)(uintptr_t)task_nmi);
    make_task(&tss_trap, TSS_TRAP, 4, (const void *)(uintptr_t)task_trap);
    make_task(&tss_broken, TSS_BROKEN, 5, NULL);
    make_16bit_task();
    ldt[1] = descriptor(0, 0xfffff, 0xc093);
    gdt[LDT_SEG / 8] = descriptor((uint32_t)(uintptr_t)ldt, sizeof(ldt) - 1, 0x82);
    tss_call.ldt = LDT_SEG;
    tss_call.ds = 8 | 4;
    gdt[GATE / 8] = task_gate_to(TSS_CALL);
    gdt[ABSENT / 8] = descriptor((uint32_t)(uintptr_t)&tss_call, sizeof(tss_call) - 1, 0x09);
    gdt[SHORT / 8] = descriptor((uint32_t)(uintptr_t)&tss_call, sizeof(tss_call) - 2, 0x89);
    idt[VECTOR_DB] = gate(handler_1);
    idt[VECTOR_NMI] = task_gate_to(TSS_NMI);
    idt[VECTOR_TS] = gate(handler_10);
    idt[VECTOR_NP] = gate(handler_11);
    idt[VECTOR_GP] = gate(handler_13);
    idt[VECTOR_INT] = task_gate_to(TSS_GATE);
    struct descriptor_table g = {sizeof(gdt) - 1, (uint32_t)(uintptr_t)gdt};
    struct descriptor_table i = {sizeof(idt) - 1, (uint32_t)(uintptr_t)idt};
    __asm__ volatile(
        "lgdt %0; lidt %1; ljmp %2, $1f; 1: mov %3, %%ds; mov %3, %%es; mov %3, %%fs; mov %3, %%gs;"
        "mov %3, %%ss; ltr %4; clts" ::"m"(g),
        "m"(i), "i"(CODE), "r"(DATA), "r"((uint16_t)TSS_MAIN)
        : "memory");
}

/* ---- the checks ---- */

static void check_home(const char *what)
{
    check(get_tr(), TSS_MAIN, what);
    check(get_eflags() & EFLAGS_NT, 0, what);
    check(get_cr0() & CR0_TS, CR0_TS, "CR0.TS after a switch");
    check(access_of(TSS_MAIN), 0x8b, "the main task is busy");
    __asm__ volatile("clts" ::: "memory");
}

#define SWITCH(text, ...) __asm__ volatile(text ::__VA_ARGS__ : "memory", "cc")

static void call_and_return(void)
{
    uint32_t kept = 0x12345678;
    for (uint32_t n = 1; n <= 3; n++) {
        if (n == 3)
            SWITCH("lcall %0, $0", "i"(GATE)); /* through a task gate in the GDT */
        else
            SWITCH("lcall %0, $0", "i"(TSS_CALL));
        __asm__ volatile("" : "+r"(kept));
        check_home("back from CALL");
        check(seen.runs, n, "the called task ran");
        check(seen.tr, TSS_CALL, "its task register");
        check(seen.link, TSS_MAIN, "its link");
        check(seen.ds, 8 | 4, "its data segment, in its LDT");
        check(seen.eflags & EFLAGS_NT, EFLAGS_NT, "it is nested");
        check(seen.cr0 & CR0_TS, CR0_TS, "CR0.TS in it");
        check(access_of(TSS_CALL), 0x89, "it is free after its IRET");
        check(tss_call.eflags & EFLAGS_NT, 0, "NT as IRET saves it");
    }
    check(kept, 0x12345678, "the caller's registers");
}

static void jump_and_back(void)
{
    tss_call.link = 0x5555;
    seen.runs = 0;
    SWITCH("ljmp %0, $0", "i"(TSS_CALL));
    check_home("back by JMP");
    check(seen.runs, 1, "the task jumped to ran");
    check(seen.eflags & EFLAGS_NT, 0, "it is not nested");
    check(seen.link, 0x5555, "JMP writes no link");
    check(access_of(TSS_CALL), 0x89, "JMP leaves a free task");
}

static void gates(void)
{
    uint32_t after;
    seen.runs = 0;
    __asm__ volatile("int %1; 1: mov $1b, %0" : "=r"(after) : "i"(VECTOR_INT) : "memory");
    check_home("back from INT");
    check(seen.runs, 1, "INT through a task gate");
    check(seen.link, TSS_MAIN, "its link");
    check(seen.main_eip, after, "INT goes on after itself");
    for (uint32_t n = 1; n <= 2; n++) { /* the second shows that the first one's IRET ended the blocking */
        seen.runs = 0;
        *(volatile uint32_t *)APIC_ICR = ICR_NMI_SELF;
        for (volatile uint32_t wait = 0; wait < 1000 && !seen.runs; wait++) {
        }
        check(seen.runs, 1, "an NMI through a task gate");
        check_home("back from an NMI");
    }
    idt[VECTOR_GP] = task_gate_to(TSS_FAULT);
    for (uint32_t n = 1; n <= 2; n++) {
        uint32_t at;
        seen.runs = 0;
        __asm__ volatile("movl $2f, fault_resume; mov $1f, %0; 1: mov %1, %%fs; 2:"
                         : "=&r"(at)
                         : "r"(0x1234)
                         : "memory");
        check_home("back from a fault");
        check(seen.runs, 1, "a fault through a task gate");
        check(seen.error, 0x1234, "its error code, on the task's stack");
        check(seen.main_eip, at, "a fault's EIP is the instruction's own");
        check(seen.main_eflags & EFLAGS_RF, EFLAGS_RF, "a fault is saved with RF");
    }
    idt[VECTOR_GP] = gate(handler_13);
}

static void sixteen_bits(void)
{
    SWITCH("lcall %0, $0", "i"(TSS_16));
    check_home("back from a 16-bit TSS");
    check(runs_16, 1, "a task with a 16-bit TSS");
    check(tss_16.link, TSS_MAIN, "its link");
    check(access_of(TSS_16), 0x81, "it is free");
    check((tss_16.ip + ((uint32_t)(uintptr_t)entry & ~0xffffu)) - (uint32_t)(uintptr_t)task_16, 7, "its IP");
    SWITCH("lcall %0, $0", "i"(TSS_16));
    check(runs_16, 0x101, "it goes on where it was");
    __asm__ volatile("clts");
}

static void debug_trap(void)
{
    uint32_t before, after;
    tss_trap.trap = 1;
    seen.runs = 0;
    fault_vector = 0;
    fault_resume = tss_trap.eip;
    __asm__ volatile("mov %0, %%dr6" ::"r"(0xffff0ff0u));
    before = get_dr6();
    SWITCH("lcall %0, $0", "i"(TSS_TRAP));
    after = get_dr6();
    check_home("back from a trapped task");
    check(fault_vector, VECTOR_DB, "the T bit traps");
    check(before & DR6_BT, 0, "DR6.BT before");
    check(after & DR6_BT, DR6_BT, "DR6.BT after");
    check(seen.runs, 1, "then the task runs");
}

#define FAULTS(what, vector, error, code)                                                                    \
    do {                                                                                                     \
        fault_vector = 0;                                                                                    \
        fault_error = NO_ERROR;                                                                              \
        __asm__ volatile("movl $1f, fault_resume; " code "; 1:" ::: "eax", "memory", "cc");                  \
        check(fault_vector, vector, what);                                                                   \
        check(fault_error, error, what);                                                                     \
        check(get_tr(), TSS_MAIN, what);                                                                     \
    } while (0)

static void refusals(void)
{
    FAULTS("CALL to a busy task", VECTOR_GP, TSS_MAIN, "lcall $0x18, $0");
    FAULTS("JMP to a busy task", VECTOR_GP, TSS_MAIN, "ljmp $0x18, $0");
    FAULTS("JMP to an absent TSS", VECTOR_NP, ABSENT, "ljmp $0x78, $0");
    FAULTS("CALL to a short TSS", VECTOR_TS, SHORT, "lcall $0x80, $0");
    tss_main.link = TSS_CALL; /* free: IRET must not go there */
    FAULTS("IRET to a free task", VECTOR_TS, TSS_CALL, "pushf; orl $0x4000, (%%esp); popf; iret");
    __asm__ volatile("pushf; andl $~0x4000, (%%esp); popf" ::: "memory", "cc");
    tss_main.link = 0;
    FAULTS("IRET to nothing", VECTOR_TS, 0, "pushf; orl $0x4000, (%%esp); popf; iret");
    __asm__ volatile("pushf; andl $~0x4000, (%%esp); popf" ::: "memory", "cc");
    check(access_of(TSS_CALL), 0x89, "nothing has changed");
}

/* The new task's own faults, in its context: its handler's link says so. */
static void broken_task(uint32_t *field, uint32_t value, uint32_t error, const char *what)
{
    uint32_t kept = *field;
    *field = value;
    idt[VECTOR_TS] = task_gate_to(TSS_FAULT);
    fault_jumps = 1;
    seen.runs = 0;
    seen.error = NO_ERROR;
    SWITCH("ljmp %0, $0", "i"(TSS_BROKEN));
    check_home(what);
    check(seen.runs, 1, what);
    check(seen.link, TSS_BROKEN, what);
    check(seen.error, error, what);
    check(access_of(TSS_BROKEN), 0x8b, what); /* it has begun */
    fault_jumps = 0;
    idt[VECTOR_TS] = gate(handler_10);
    gdt[TSS_BROKEN / 8] &= ~(2ull << 40);
    *field = kept;
    tss_fault.eip = (uint32_t)(uintptr_t)task_fault;
    tss_fault.esp = (uint32_t)(uintptr_t)stacks[2] + STACK;
    gdt[TSS_FAULT / 8] &= ~(2ull << 40);
}

void hello_main(uint32_t magic, const void *info, uint32_t eflags)
{
    (void)magic;
    (void)info;
    (void)eflags;
    set_up();
    *(volatile uint32_t *)APIC_SVR = SVR_ENABLED;
    call_and_return();
    jump_and_back();
    gates();
    sixteen_bits();
    debug_trap();
    refusals();
    broken_task(&tss_broken.cs, DATA, DATA, "a task with a bad CS");
    broken_task(&tss_broken.ss, CODE, CODE, "a task with a bad SS");
    broken_task(&tss_broken.ldt, DATA, DATA, "a task with a bad LDT");
    broken_task(&tss_broken.gs, 0x1000, 0x1000, "a task with a bad GS");
    say("rules: tasks: ");
    say_number(checks, 10);
    say(" checks, ");
    say_number(failed, 10);
    say(" failed\nrules: done\n");
    __asm__ volatile("outw %0, %1" ::"a"((uint16_t)SLEEP_S5), "Nd"((uint16_t)PM1_CONTROL));
}
