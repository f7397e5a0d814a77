/* The host's exceptions are bugs of ours (a guest's never arrive here), but for the two that are expected. */
#include "arch/x86/traps.h"
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/panic.h"

#define IDT_VECTORS    256u
#define STUB_SIZE      16u
#define GATE_INTERRUPT 0x8e00u /* present, DPL 0, 64-bit interrupt gate */

/* SDM volume 3, figure "64-Bit IDT Gate Descriptors". */
struct idt_gate {
    uint16_t offset_low, selector, ist_and_type_low, offset_mid;
    uint32_t offset_high, reserved;
};
STATIC_ASSERT(sizeof(struct idt_gate) == 16, "IDT gate layout");

static struct idt_gate idt[IDT_VECTORS] __attribute__((aligned(16)));

extern const uint8_t traps_stubs[], traps_rdmsr_at[], traps_wrmsr_at[], traps_msr_failed[];
void traps_handle(struct trap_frame *frame);

static void set_gate(unsigned vector, unsigned ist)
{
    uint64_t target = (uint64_t)(uintptr_t)(traps_stubs + vector * STUB_SIZE);
    /* The gate's second half-word pair is (IST in bits 2:0, type in 15:8). */
    idt[vector] = (struct idt_gate){
        .offset_low = (uint16_t)target,
        .selector = SEL_CODE,
        .ist_and_type_low = (uint16_t)(GATE_INTERRUPT | ist),
        .offset_mid = (uint16_t)(target >> 16),
        .offset_high = (uint32_t)(target >> 32),
    };
}

void traps_init(void)
{
    for (unsigned v = 0; v < IDT_VECTORS; v++)
        set_gate(v, 0);
    set_gate(VECTOR_NMI, IST_NMI);
    set_gate(VECTOR_DF, IST_DOUBLE_FAULT);
    set_gate(VECTOR_MC, IST_MACHINE_CHECK);
}

void traps_load(void)
{
    struct table_register idtr = {.limit = sizeof(idt) - 1, .base = (uint64_t)(uintptr_t)idt};
    __asm__ volatile("lidt %0" ::"m"(idtr));
}

void traps_handle(struct trap_frame *frame)
{
    switch (frame->vector) {
    case VECTOR_NMI:
        panic_stop_if_asked(frame->rip);
        host_handle_nmi();
        return;
    case VECTOR_GP:
        if (frame->rip != (uint64_t)(uintptr_t)traps_rdmsr_at &&
            frame->rip != (uint64_t)(uintptr_t)traps_wrmsr_at)
            panic_trap(frame);
        frame->rip = (uint64_t)(uintptr_t)traps_msr_failed;
        return;
    default:
        if (frame->vector < 32)
            panic_trap(frame);
        host_handle_interrupt((uint8_t)frame->vector); /* its purpose was to end host_idle() */
    }
}
