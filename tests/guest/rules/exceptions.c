/* Exceptions: which vector, which error code, and where the saved instruction pointer points (SDM volume 3,
 * chapter 6 "Interrupt and Exception Handling"), in every mode. */
#include "rules.h"

#define GATE_INTERRUPT 0x8e
#define TRAP           true
#define FAULT          false
#define ERROR_IDT      2u
#define ERROR_EXT      1u
#define BEYOND_GDT     0x1000u
#define CR0_AM         (1ull << 18)
#define CR0_TS         (1ull << 3)
#define CR0_MP         (1ull << 1)
#define FLAGS_AC       (1ull << 18)
#define FLAGS_OF       (1ull << 11)
#define VECTOR_FREE    0x51u

SNIPPET(divide16, 16, "xor %cx, %cx; div %cx");
SNIPPET(divide32, 32, "xor %ecx, %ecx; div %ecx");
SNIPPET(undefined, 32, "ud2");
SNIPPET(breakpoint, 32, "nop; int3");
SNIPPET(icebp, 32, "nop; .byte 0xf1");
SNIPPET(into, 32, "nop; into");
SNIPPET(bound16, 16, "mov $0x40, %bx; movl $0x00020001, (%bx); mov $3, %ax; bound %ax, (%bx)");
SNIPPET(load_ds32, 32, "mov $0x1000, %ax; mov %ax, %ds");
SNIPPET(load_ss32, 32, "mov $0x1000, %ax; mov %ax, %ss");
SNIPPET(load_ss_null, 32, "xor %eax, %eax; mov %ax, %ss");
SNIPPET(load_absent, 32, "mov $0x80, %ax; mov %ax, %ds");
SNIPPET(load_absent_ss, 32, "mov $0x80, %ax; mov %ax, %ss");
SNIPPET(int_dpl, 32, "int $0x51");
SNIPPET(int_dpl64, 64, "int $0x51");
SNIPPET(noncanonical_ds, 64, "movabs $0x800000000000, %rbx; mov (%rbx), %al");
SNIPPET(noncanonical_ss, 64, "movabs $0x800000000000, %rbp; mov (%rbp), %al");
SNIPPET(user_cli, 64, "cli");
SNIPPET(user_hlt, 64, "hlt");
SNIPPET(user_cr0, 64, "mov %cr0, %rax");
SNIPPET(user_rdmsr, 64, "mov $0x1b, %ecx; rdmsr");
SNIPPET(real_limit, 16, "mov $0xffff, %bx; mov (%bx), %ax");
SNIPPET(real_limit32, 16, "mov $0x10000, %ebx; mov (%ebx), %al");
SNIPPET(real_ltr, 16, "xor %ax, %ax; ltr %ax");
SNIPPET(fpu_ts, 64, "fnop");
SNIPPET(long_insn, 64, ".fill 15, 1, 0x66; nop");
SNIPPET(lock_register, 32, "lock; .byte 0x01, 0xc0");

/* Where the saved instruction pointer of a fault or a trap points: to the snippet's instruction at `at`. */
static void ends(const char *what, enum lab_mode mode, const uint8_t *code, size_t size, unsigned vector,
                 uint32_t error, size_t at)
{
    lab_clear();
    unsigned found = lab_execute(mode, code, size);
    uint64_t begin = mode == MODE_REAL || mode == MODE_V86 ? 0 : (uintptr_t)lab_code;
    check(found == vector, "%s, %s: vector %u, expected %u", what, lab_mode_names[mode], (uint64_t)found,
          (uint64_t)vector);
    check(lab.error == error, "%s, %s: error code %x, expected %x", what, lab_mode_names[mode],
          (uint64_t)lab.error, (uint64_t)error);
    check(lab.ip - begin == at, "%s, %s: saved at offset %u, expected %u", what, lab_mode_names[mode],
          lab.ip - begin, (uint64_t)at);
}
#define ENDS(what, mode, name, vector, error, at)                                                            \
    ends(what, mode, name, SNIPPET_SIZE(name), vector, error, at)

static bool is_16bit(enum lab_mode mode)
{
    return mode == MODE_REAL || mode == MODE_V86 || mode == MODE_PROTECTED16 || mode == MODE_COMPAT16_USER;
}

static void in_every_mode(void)
{
    for (unsigned i = 0; i < MODE_COUNT; i++) {
        enum lab_mode mode = i;
        if (is_16bit(mode))
            ENDS("division by zero", mode, divide16, VECTOR_DE, 0, 2);
        else
            ENDS("division by zero", mode, divide32, VECTOR_DE, 0, 2);
        ENDS("UD2", mode, undefined, VECTOR_UD, 0, 0);
        ENDS("LOCK without memory", mode, lock_register, VECTOR_UD, 0, 0);
        ENDS("ICEBP", mode, icebp, VECTOR_DB, 0, 2);
        if (mode != MODE_V86 && mode != MODE_REAL)
            ENDS("INT3", mode, breakpoint, VECTOR_BP, 0, 2);
    }
    ENDS("16 bytes", MODE_LONG, long_insn, VECTOR_GP, 0, 0);
    ENDS("BOUND", MODE_REAL, bound16, VECTOR_BR, 0, 13);
}

/* INTO is a trap, in legacy and compatibility mode only. */
static void overflow(void)
{
    lab_clear();
    check_equal(lab_execute_flags(MODE_PROTECTED, into, SNIPPET_SIZE(into), FLAGS_OF), VECTOR_OF,
                "INTO with OF");
    check_equal(lab.ip - (uintptr_t)lab_code, 2, "INTO: where it is saved");
    lab_clear();
    check_equal(RUN(MODE_PROTECTED, into), VECTOR_BP, "INTO without OF");
    lab_clear();
    check_equal(RUN(MODE_LONG, into), VECTOR_UD, "INTO in 64-bit mode");
}

/* Error codes that name a selector (section 6.13). The GDT entry 0x80 is a data segment that is not present.
 */
static void selectors(void)
{
    static const enum lab_mode modes[] = {MODE_PROTECTED, MODE_COMPAT, MODE_PAE, MODE_PAGED};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        ENDS("DS beyond the GDT", modes[i], load_ds32, VECTOR_GP, BEYOND_GDT, 4);
        ENDS("SS beyond the GDT", modes[i], load_ss32, VECTOR_GP, BEYOND_GDT, 4);
        ENDS("SS null", modes[i], load_ss_null, VECTOR_GP, 0, 2);
        cpus[0].gdt[0x80 / 8] = 0x00cf13000000ffffull;
        ENDS("DS not present", modes[i], load_absent, VECTOR_NP, 0x80, 4);
        ENDS("SS not present", modes[i], load_absent_ss, VECTOR_SS, 0x80, 4);
        cpus[0].gdt[0x80 / 8] = 0;
    }
    /* An INT n that the gate's DPL forbids names the vector, with the IDT bit. */
    ENDS("INT n of a user", MODE_PROTECTED_USER, int_dpl, VECTOR_GP, VECTOR_FREE << 3 | ERROR_IDT, 0);
    ENDS("INT n of a user", MODE_LONG_USER, int_dpl64, VECTOR_GP, VECTOR_FREE << 3 | ERROR_IDT, 0);
    /* A gate that is not present: the same as #NP, in 64-bit mode of CPL 0. */
    idt_entry(VECTOR_FREE, (uintptr_t)vector_stubs + 16 * VECTOR_FREE, GATE_INTERRUPT & 0x7f);
    ENDS("INT n, gate not present", MODE_LONG, int_dpl64, VECTOR_NP, VECTOR_FREE << 3 | ERROR_IDT, 0);
    idt_entry(VECTOR_FREE, (uintptr_t)vector_stubs + 16 * VECTOR_FREE, GATE_INTERRUPT);
}

static void privileged(void)
{
    ENDS("a non-canonical address by DS", MODE_LONG, noncanonical_ds, VECTOR_GP, 0, 10);
    ENDS("a non-canonical address by SS", MODE_LONG, noncanonical_ss, VECTOR_SS, 0, 10);
    ENDS("HLT of a user", MODE_LONG_USER, user_hlt, VECTOR_GP, 0, 0);
    ENDS("MOV from CR0 of a user", MODE_LONG_USER, user_cr0, VECTOR_GP, 0, 0);
    ENDS("RDMSR of a user", MODE_LONG_USER, user_rdmsr, VECTOR_GP, 0, 5);
    ENDS("CLI of a user", MODE_PROTECTED_USER, user_cli, VECTOR_GP, 0, 0);
    ENDS("a word at FFFF", MODE_REAL, real_limit, VECTOR_GP, 0, 3);
    ENDS("a byte at 10000", MODE_REAL, real_limit32, VECTOR_GP, 0, 6);
    ENDS("LTR", MODE_REAL, real_ltr, VECTOR_UD, 0, 2);
}

/* #NM by CR0.TS. */
static void not_available(void)
{
    uint64_t cr0 = read_cr0();
    lab_clear();
    write_cr0(cr0 | CR0_TS | CR0_MP);
    ENDS("an x87 instruction with TS", MODE_LONG, fpu_ts, VECTOR_NM, 0, 0);
    write_cr0(cr0);
}

/* An interrupt whose gate is bad: the same error with EXT, for it is an external event. */
static void external(void)
{
    idt_entry(VECTOR_FREE, (uintptr_t)vector_stubs + 16 * VECTOR_FREE, GATE_INTERRUPT & 0x7f);
    SNIPPET(wait_here, 64, "sti; nop; nop; pause; nop; pause; cli");
    apic_send(0, VECTOR_FREE | ICR_ASSERT);
    lab_clear();
    check_equal(RUN(MODE_LONG, wait_here), VECTOR_NP,
                "an interrupt through a gate that is not present: vector");
    check_equal(lab.error, VECTOR_FREE << 3 | ERROR_IDT | ERROR_EXT,
                "an interrupt through a gate that is not present: error");
    idt_entry(VECTOR_FREE, (uintptr_t)vector_stubs + 16 * VECTOR_FREE, GATE_INTERRUPT);
    apic_write(APIC_EOI, 0);
}

/* Section 6.15, "Interrupt 8": a contributory fault while a contributory fault is delivered. */
static void double_fault(void)
{
    lab_clear();
    idt_entry(VECTOR_GP, (uintptr_t)vector_stubs + 16 * VECTOR_GP, GATE_INTERRUPT & 0x7f);
    check_equal(RUN(MODE_LONG, noncanonical_ds), VECTOR_DF, "#NP while #GP is delivered");
    check_equal(lab.error, 0, "double fault: error");
    idt_entry(VECTOR_GP, (uintptr_t)vector_stubs + 16 * VECTOR_GP, GATE_INTERRUPT);
    /* A benign one first: the second fault is delivered as it is. */
    idt_entry(VECTOR_UD, (uintptr_t)vector_stubs + 16 * VECTOR_UD, GATE_INTERRUPT & 0x7f);
    lab_clear();
    check_equal(RUN(MODE_LONG, undefined), VECTOR_NP, "#NP while #UD is delivered");
    check_equal(lab.error, VECTOR_UD << 3 | ERROR_IDT | ERROR_EXT, "#NP while #UD is delivered: error");
    idt_entry(VECTOR_UD, (uintptr_t)vector_stubs + 16 * VECTOR_UD, GATE_INTERRUPT);
}

void rule_exceptions(void)
{
    in_every_mode();
    overflow();
    selectors();
    privileged();
    not_available();
    external();
    double_fault();
}
