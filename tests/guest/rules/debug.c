/* Debug exceptions around instructions that a hypervisor emulates: single steps, breakpoints on code, data
 * and ports, and what MOV SS and POP SS hold back (SDM volume 3, chapter 17 "Debug", section 6.8.3 "Masking
 * Exceptions and Interrupts When Switching Stacks"). */
#include "rules.h"

#define DR6_CLEAR   0xffff0ff0ull
#define DR6_BS      (1ull << 14)
#define DR6_BD      (1ull << 13)
#define DR7_FIXED   0x400ull
#define DR7_GD      (1ull << 13)
#define CR4_DE      (1ull << 3)
#define DATA        0x6800u /* in what copy_low() never uses */
#define POST_PORT   0x80u
#define BREAK_EXEC  0u
#define BREAK_WRITE 1u
#define BREAK_IO    2u
#define BREAK_RW    3u

static void set_dr7(uint64_t v)
{
    __asm__ volatile("mov %0, %%dr7" ::"r"(v));
}

static void set_dr6(uint64_t v)
{
    __asm__ volatile("mov %0, %%dr6" ::"r"(v));
}

static uint64_t dr6(void)
{
    uint64_t v;
    __asm__ volatile("mov %%dr6, %0" : "=r"(v));
    return v;
}

/* Breakpoint 0. */
static void set_breakpoint(uint64_t at, unsigned kind, unsigned length)
{
    __asm__ volatile("mov %0, %%dr0" ::"r"(at));
    set_dr7(DR7_FIXED | 2 | (uint64_t)kind << 16 | (uint64_t)(length - 1) << 18);
}

/* Runs a snippet: it ends with a debug exception behind `at` bytes, and DR6 says `why`. */
static void stops(const char *what, enum lab_mode mode, const uint8_t *code, size_t size, uint64_t flags,
                  size_t at, uint64_t why)
{
    lab_clear();
    lab.gpr[3] = DATA;              /* RBX */
    lab.gpr[6] = APIC_PAGE + 0x30;  /* RSI: the version register */
    lab.gpr[7] = APIC_PAGE + 0x3e0; /* RDI: the timer's divider */
    set_dr6(DR6_CLEAR);
    unsigned vector = lab_execute_flags(mode, code, size, flags);
    uint64_t found = dr6();
    set_dr7(DR7_FIXED);
    check(vector == VECTOR_DB, "%s: vector %u, expected a debug exception", what, (uint64_t)vector);
    uint64_t begin = mode == MODE_REAL ? 0 : (uintptr_t)lab_code;
    check(lab.ip - begin == at, "%s: stopped at offset %u, expected %u", what, lab.ip - begin, (uint64_t)at);
    check(found == (DR6_CLEAR | why), "%s: DR6 %x, expected %x", what, found, DR6_CLEAR | why);
}
#define STOPS(what, mode, name, flags, at, why) stops(what, mode, name, SNIPPET_SIZE(name), flags, at, why)

SNIPPET(step_nop, 64, "nop; nop");
SNIPPET(step_cpuid, 64, "cpuid; nop");
SNIPPET(step_in, 64, "in $0x61, %al; nop");
SNIPPET(step_out, 64, "out %al, $0x80; nop");
SNIPPET(step_load, 64, "mov (%rsi), %eax; nop");
SNIPPET(step_store, 64, "mov %eax, (%rdi); nop");
SNIPPET(step_rmw, 64, "orl $0, (%rdi); nop");
SNIPPET(step_rdmsr, 64, "rdmsr; nop");
SNIPPET(step_wbinvd, 64, "wbinvd; nop");
SNIPPET(step_vmcall, 64, "vmcall; nop");
SNIPPET(step_cr4, 64, "mov %cr4, %rax; nop");
SNIPPET(step_popf, 64, "pushf; popf; nop");
SNIPPET(step_in16, 16, "in $0x61, %al; nop");
SNIPPET(step_cpuid16, 16, "cpuid; nop");

/* RFLAGS.TF: a trap behind the instruction, emulated or not. */
static void single_steps(void)
{
    STOPS("a step over NOP", MODE_LONG, step_nop, FLAGS_TF, 1, DR6_BS);
    STOPS("a step over CPUID", MODE_LONG, step_cpuid, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over IN", MODE_LONG, step_in, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over OUT", MODE_LONG, step_out, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over a load from a device", MODE_LONG, step_load, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over a store to a device", MODE_LONG, step_store, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over OR on a device", MODE_LONG, step_rmw, FLAGS_TF, 3, DR6_BS);
    STOPS("a step over WBINVD", MODE_LONG, step_wbinvd, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over VMCALL", MODE_LONG, step_vmcall, FLAGS_TF, 3, DR6_BS);
    STOPS("a step over MOV from CR4", MODE_LONG, step_cr4, FLAGS_TF, 3, DR6_BS);
    STOPS("a step over PUSHF", MODE_LONG, step_popf, FLAGS_TF, 1, DR6_BS);
    STOPS("a step over CPUID of a user", MODE_LONG_USER, step_cpuid, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over CPUID without paging", MODE_PROTECTED, step_cpuid, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over IN under PAE", MODE_PAE, step_in, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over IN in real mode", MODE_REAL, step_in16, FLAGS_TF, 2, DR6_BS);
    STOPS("a step over CPUID in real mode", MODE_REAL, step_cpuid16, FLAGS_TF, 2, DR6_BS);
    lab_clear();
    check_equal(lab_execute_flags(MODE_LONG, step_rdmsr, SNIPPET_SIZE(step_rdmsr), FLAGS_TF) == VECTOR_GP ||
                    lab.vector == VECTOR_DB,
                true, "a step over RDMSR");
}

SNIPPET(set_tf, 64, "pushf; orl $0x100, (%rsp); mov %ss, %eax; popf; mov %eax, %ss; cpuid; nop");
SNIPPET(set_tf_nop, 64, "pushf; orl $0x100, (%rsp); mov %ss, %eax; popf; mov %eax, %ss; nop; nop");
SNIPPET(sti_step, 64, "sti; cpuid; nop");

/* MOV SS holds back the trap that follows it, until the next instruction has ended. */
static void shadow(void)
{
    STOPS("a step over MOV SS and CPUID", MODE_LONG, set_tf, 0, 15, DR6_BS);
    STOPS("a step over MOV SS and NOP", MODE_LONG, set_tf_nop, 0, 14, DR6_BS);
    /* STI holds back interrupts, not debug traps. */
    STOPS("a step over STI", MODE_LONG, sti_step, FLAGS_TF, 1, DR6_BS);
}

SNIPPET(store_nop, 64, "movl $1, (%rbx); nop");
SNIPPET(load_nop, 64, "mov (%rbx), %eax; nop");

static void data_breakpoints(void)
{
    set_breakpoint(DATA, BREAK_WRITE, 4);
    STOPS("a breakpoint on a write", MODE_LONG, store_nop, 0, 6, 1);
    set_breakpoint(DATA, BREAK_RW, 4);
    STOPS("a breakpoint on a read", MODE_LONG, load_nop, 0, 2, 1);
    set_breakpoint(DATA, BREAK_RW, 4);
    STOPS("a breakpoint and a step", MODE_LONG, load_nop, FLAGS_TF, 2, 1 | DR6_BS);
}

SNIPPET(ss_read_cpuid, 64, "mov (%rbx), %ss; cpuid; nop");
SNIPPET(ss_read_in, 64, "mov (%rbx), %ss; in $0x61, %al; nop");
SNIPPET(ss_read_load, 64, "mov (%rbx), %ss; mov (%rsi), %eax; nop");
SNIPPET(ss_read_store, 64, "mov (%rbx), %ss; mov %eax, (%rdi); nop");
SNIPPET(ss_read_nop, 64, "mov (%rbx), %ss; nop; nop");

/* A data breakpoint that MOV SS itself meets is held back over the next instruction, an exit or not, and is
 * not lost there. */
static void held_back(void)
{
    static const struct {
        const char *what;
        const uint8_t *code, *end;
        size_t at;
    } cases[] = {
        {"MOV SS with a breakpoint, NOP", ss_read_nop, ss_read_nop_end, 3},
        {"MOV SS with a breakpoint, CPUID", ss_read_cpuid, ss_read_cpuid_end, 4},
        {"MOV SS with a breakpoint, IN", ss_read_in, ss_read_in_end, 4},
        {"MOV SS with a breakpoint, a load from a device", ss_read_load, ss_read_load_end, 4},
        {"MOV SS with a breakpoint, a store to a device", ss_read_store, ss_read_store_end, 4},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        *(volatile uint32_t *)(uintptr_t)DATA = SEL_DATA32;
        set_breakpoint(DATA, BREAK_RW, 4);
        stops(cases[i].what, MODE_LONG, cases[i].code, (size_t)(cases[i].end - cases[i].code), 0, cases[i].at,
              1);
    }
}

SNIPPET(nop_cpuid, 64, "nop; cpuid; nop");
SNIPPET(nop_in, 64, "nop; in $0x61, %al; nop");

static void code_breakpoints(void)
{
    set_breakpoint((uintptr_t)lab_code + 1, BREAK_EXEC, 1);
    STOPS("a breakpoint on CPUID", MODE_LONG, nop_cpuid, 0, 1, 1);
    set_breakpoint((uintptr_t)lab_code + 1, BREAK_EXEC, 1);
    STOPS("a breakpoint on IN", MODE_LONG, nop_in, 0, 1, 1);
    set_breakpoint((uintptr_t)lab_code + 3, BREAK_EXEC, 1);
    STOPS("a breakpoint behind CPUID", MODE_LONG, nop_cpuid, 0, 3, 1);
    set_breakpoint((uintptr_t)lab_code + 3, BREAK_EXEC, 1);
    STOPS("a breakpoint behind IN", MODE_LONG, nop_in, 0, 3, 1);
    /* RF holds back a breakpoint on the first instruction only. */
    set_breakpoint((uintptr_t)lab_code, BREAK_EXEC, 1);
    lab_clear();
    check_equal(lab_execute_flags(MODE_LONG, nop_cpuid, SNIPPET_SIZE(nop_cpuid), FLAGS_RF), VECTOR_BP,
                "a breakpoint under RF");
    set_dr7(DR7_FIXED);
}

SNIPPET(out_nop, 64, "nop; out %al, $0x80; nop");

/* CR4.DE: breakpoints on ports, a trap. Only what is emulated is seen here: port 0x80 always exits. */
static void port_breakpoints(void)
{
    write_cr4(read_cr4() | CR4_DE);
    set_breakpoint(POST_PORT, BREAK_IO, 1);
    STOPS("a breakpoint on a port", MODE_LONG, out_nop, 0, 3, 1);
    write_cr4(read_cr4() & ~CR4_DE);
    set_dr7(DR7_FIXED);
}

SNIPPET(touch_dr, 64, "nop; mov %dr0, %rax; nop");

/* DR7.GD: a fault before the access, which clears GD. */
static void general_detect(void)
{
    lab_clear();
    set_dr6(DR6_CLEAR);
    set_dr7(DR7_FIXED | DR7_GD);
    unsigned vector = RUN(MODE_LONG, touch_dr);
    uint64_t dr7, why = dr6();
    __asm__ volatile("mov %%dr7, %0" : "=r"(dr7));
    check(vector == VECTOR_DB && lab.ip == (uintptr_t)lab_code + 1, "an access with GD: vector %u at %x",
          (uint64_t)vector, lab.ip);
    check_equal(why, DR6_CLEAR | DR6_BD, "an access with GD: DR6");
    check_equal(dr7 & DR7_GD, 0, "GD in the handler");
}

void rule_debug(void)
{
    single_steps();
    shadow();
    data_breakpoints();
    held_back();
    code_breakpoints();
    port_breakpoints();
    general_detect();
}
