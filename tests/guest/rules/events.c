/* Interrupts and exceptions that meet each other: SDM volume 3, 6.9 "Priority Among Concurrent Events", 6.8
 * "Enabling and Disabling Interrupts", and faults while another event is delivered. */
#include "rules.h"

#define VECTOR_A       0x49u
#define VECTOR_B       0x59u
#define SLOT           505u
#define LINEAR         (SLOT * LARGE_PAGE)
#define GATE_INTERRUPT 0x8e
#define FLAGS_IF       0x200ull

SNIPPET(sti_shadow, 64, "sti; mov $1, %ecx; mov $2, %ecx; cli");
SNIPPET(sti_cli, 64, "sti; cli; mov $1, %ecx");
SNIPPET(sti_cpuid, 64, "sti; cpuid; mov $77, %ecx; cli");
SNIPPET(sti_in, 64, "sti; in $0x61, %al; mov $77, %ecx; cli");
SNIPPET(sti_load, 64, "sti; mov (%rsi), %eax; mov $77, %ecx; cli");
SNIPPET(sti_hlt, 64, "sti; hlt; mov $77, %ecx; cli");
SNIPPET(ss_sti, 64, "mov %ss, %eax; sti; mov %eax, %ss; mov $1, %ecx; mov $2, %ecx; cli");
SNIPPET(popf_window, 64, "pushf; orl $0x200, (%rsp); popf; mov $1, %ecx; cli");
SNIPPET(cr8_window, 64, "sti; nop; xor %eax, %eax; mov %rax, %cr8; mov $1, %ecx; cli");

/* An interrupt waits while this runs: it ends it `at` bytes in. */
static void interrupted(const char *what, const uint8_t *code, size_t size, size_t at)
{
    lab_clear();
    lab.gpr[6] = APIC_PAGE + 0x30;
    self_ipi(VECTOR_A);
    unsigned vector = lab_execute(MODE_LONG, code, size);
    check(vector == VECTOR_A && lab.ip - (uintptr_t)lab_code == at, "%s: vector %u at offset %u, expected %u",
          what, (uint64_t)vector, lab.ip - (uintptr_t)lab_code, (uint64_t)at);
    take_interrupts();
}
#define INTERRUPTED(what, name, at) interrupted(what, name, SNIPPET_SIZE(name), at)

/* STI and MOV SS let one more instruction pass, an exiting one, too. */
static void windows(void)
{
    INTERRUPTED("after STI one instruction passes", sti_shadow, 6);
    INTERRUPTED("after STI CPUID passes", sti_cpuid, 3);
    INTERRUPTED("after STI IN passes", sti_in, 3);
    INTERRUPTED("after STI a load from a device passes", sti_load, 3);
    INTERRUPTED("STI, HLT", sti_hlt, 2);
    INTERRUPTED("after POPF nothing passes", popf_window, 9);
    lab_clear();
    self_ipi(VECTOR_A);
    check_equal(RUN(MODE_LONG, sti_cli), VECTOR_BP, "STI, CLI is no window");
    take_interrupts();
    write_cr8(15);
    INTERRUPTED("MOV to CR8 opens", cr8_window, 8);
    write_cr8(0);
}

/* A fault while an interrupt is delivered: the interrupt comes again when the fault's handler has mended it.
 */
static uint8_t spare_stack[8192] __attribute__((aligned(4096)));
static uint64_t table[512] __attribute__((aligned(4096)));
static volatile unsigned mended;

static void mend(struct cpu *cpu, unsigned vector)
{
    mended = vector;
}

static void touch(void *argument)
{
    *(volatile uint8_t *)argument = 1;
}

/* The interrupt's IST stack is not there: a page fault, with its own stack, reports the stack's address. */
static void stack_fault(void)
{
    struct cpu *cpu = this_cpu();
    uint64_t before = page_pds[0][SLOT], ist = cpu->tss.ist[3];
    page_pds[0][SLOT] = (uintptr_t)table | 7;
    table[0] = (uintptr_t)spare_stack | 6; /* not present */
    write_cr3(read_cr3());
    cpu->tss.ist[3] = LINEAR + 4096;
    idt_entry(VECTOR_B, (uintptr_t)vector_stubs + 16 * VECTOR_B, GATE_INTERRUPT);
    idt[VECTOR_B].ist = 4;
    SNIPPET(soft, 64, "int $0x59");
    lab_clear();
    check_equal(RUN(MODE_LONG, soft), VECTOR_PF, "INT n on a stack that is not there");
    check_equal(lab.error, 2, "error: a write of the supervisor");
    check_equal(read_cr2(), LINEAR + 4096 - 8, "CR2: where the push went");
    check_equal(lab.ip, (uintptr_t)lab_code, "saved: at INT n");
    SNIPPET(open, 64, "sti; nop; nop; nop; cli");
    self_ipi(VECTOR_B);
    lab_clear();
    check_equal(RUN(MODE_LONG, open), VECTOR_PF, "an interrupt on a stack that is not there");
    check_equal(lab.ip - (uintptr_t)lab_code, 2, "saved: where it came");
    check(lab.flags & FLAGS_IF, "saved: interrupts on");
    table[0] |= 1;
    write_cr3(read_cr3());
    cpu->tss.ist[3] = ist;
    idt[VECTOR_B].ist = 1;
    /* On a real processor the interrupt was acknowledged, so it is in service and does not come again. */
    check(apic_bit(APIC_ISR, VECTOR_B), "the interrupt is in service");
    apic_write(APIC_EOI, 0);
    check(!apic_bit(APIC_ISR, VECTOR_B), "and ended");
    page_pds[0][SLOT] = before;
    write_cr3(read_cr3());
    interrupt_hook = mend;
    check(guarded(touch, spare_stack) == NO_FAULT, "memory is as it was");
    interrupt_hook = NULL;
}

/* Of an NMI and an interrupt the NMI goes first. */
static void priorities(void)
{
    interrupt_hook = note_arrival;
    arrivals = 0;
    self_ipi(VECTOR_A);
    __asm__ volatile("sti; movl $0x4400, (%0); nop; nop; cli" ::"r"(APIC_PAGE + 0x300) : "memory");
    interrupt_hook = NULL;
    check_equal(arrivals, VECTOR_NMI << 8 | VECTOR_A, "an NMI goes before an interrupt");
}

void rule_events(void)
{
    windows();
    stack_fault();
    priorities();
}
