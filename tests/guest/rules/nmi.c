/* NMIs: SDM volume 3, 6.7 "Nonmaskable Interrupt (NMI)" and 6.7.1 "Handling Multiple NMIs": while one is
 * served the next waits, and only one; IRET ends it, whatever it returns from. */
#include "rules.h"

static unsigned seen, in_handler, inner_faults;

static void send_nmi(void)
{
    apic_send(0, ICR_NMI | ICR_ASSERT);
}

static void two_more(struct cpu *cpu, unsigned vector)
{
    if (vector != VECTOR_NMI)
        return;
    if (seen++ == 0) {
        send_nmi();
        send_nmi();
        spin_us(10);
        in_handler = seen;
    }
}

static void do_undefined(void *argument)
{
    __asm__ volatile("ud2");
}

/* An exception in the handler: its IRET opens the processor for NMIs again. */
static void fault_inside(struct cpu *cpu, unsigned vector)
{
    if (vector == VECTOR_NMI && seen++ == 0)
        inner_faults = guarded(do_undefined, NULL) == VECTOR_UD;
}

static uint64_t nmis(void)
{
    return arrived(VECTOR_NMI);
}

SNIPPET(nmi_sti, 64, "mov $0xfee00300, %ebx; movl $0x4400, (%rbx); nop; nop; int3");
SNIPPET(nmi_shadow, 64,
        "mov $0xfee00300, %ebx; mov %ss, %eax; movl $0, 0x10(%rbx); sti; movl $0x4400, (%rbx); nop; cli");
SNIPPET(nmi_halt, 64, "mov $0xfee00300, %ebx; movl $0x4400, (%rbx); 1: hlt; jmp 1b");

void rule_nmi(void)
{
    uint64_t before = nmis();
    send_nmi();
    spin_us(10);
    check_equal(nmis() - before, 1, "an NMI with interrupts off");
    seen = 0;
    before = nmis();
    interrupt_hook = two_more;
    send_nmi();
    spin_us(50);
    interrupt_hook = NULL;
    check_equal(in_handler, 1, "none in the handler");
    check_equal(nmis() - before, 2, "of two in the handler one is kept");
    seen = 0;
    interrupt_hook = fault_inside;
    send_nmi();
    spin_us(10);
    interrupt_hook = NULL;
    check(inner_faults, "an exception in the handler");
    before = nmis();
    send_nmi();
    spin_us(10);
    check_equal(nmis() - before, 1, "and the next NMI comes");
    lab_clear();
    check_equal(RUN(MODE_LONG, nmi_sti), VECTOR_NMI, "right after it was sent");
    lab_clear();
    check_equal(RUN(MODE_LONG, nmi_halt), VECTOR_NMI, "HLT with interrupts off ends");
    lab_clear();
    check_equal(RUN(MODE_LONG, nmi_shadow), VECTOR_NMI, "sent in the shadow of STI");
    before = nmis();
    apic_write(APIC_LINT1, 0x400);
    spin_us(10);
    check_equal(nmis() - before, 0, "LINT1 is quiet");
    apic_write(APIC_LINT1, LVT_MASKED);
}
