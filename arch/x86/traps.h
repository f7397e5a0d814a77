/* The host's own exceptions and interrupts. */
#pragma once

#include "hv/lib/types.h"

/* As pushed by traps_common in entry.asm, lowest address first. */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* Fills the interrupt descriptor table (shared by all CPUs) once. */
void traps_init(void);
/* Loads it on this CPU. */
void traps_load(void);

/* MSR accesses that answer false instead of faulting. Only these two may fault in the host. In entry.asm. */
bool traps_rdmsr_safe(uint32_t msr, uint64_t *value);
bool traps_wrmsr_safe(uint32_t msr, uint64_t value);

/* A panic is being reported (arch/x86/panic_hw.c): every other CPU is to stop at its next NMI. */
bool traps_panicking(void);
