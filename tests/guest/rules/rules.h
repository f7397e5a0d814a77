/* Rules of the processor and of the PC, checked from inside a VM: each file has one of them, with the
 * expectation beside it, written from the specification that is cited there. A rule counts its checks; one
 * that fails prints a line. */
#pragma once

#include "tests/guest/runtime/lab.h"
#include "tests/guest/runtime/runtime.h"

#define RULES(X)                                                                                             \
    X(exceptions)                                                                                            \
    X(debug)                                                                                                 \
    X(paging)                                                                                                \
    X(pic)                                                                                                   \
    X(pit)                                                                                                   \
    X(rtc)                                                                                                   \
    X(hpet)                                                                                                  \
    X(ioapic)                                                                                                \
    X(apic)                                                                                                  \
    X(apic_modes)                                                                                            \
    X(apic_ipi)                                                                                              \
    X(fairness)                                                                                              \
    X(nmi)                                                                                                   \
    X(events)                                                                                                \
    X(tsc)                                                                                                   \
    X(msr)                                                                                                   \
    X(syscall)                                                                                               \
    X(pcid)                                                                                                  \
    X(pku)                                                                                                   \
    X(umip)                                                                                                  \
    X(features)                                                                                              \
    X(real)                                                                                                  \
    X(kbd)                                                                                                   \
    X(ports)                                                                                                 \
    X(fw_cfg)                                                                                                \
    X(testdev)                                                                                               \
    X(mmio)

#define DECLARE_RULE(name) void rule_##name(void);
RULES(DECLARE_RULE)
#undef DECLARE_RULE

/* One check; when it failed, a line with the text (print()'s format). Answers `good`. */
bool check(bool good, const char *format, ...);
/* The same for numbers: the line says which was found and which was expected. */
bool check_equal(uint64_t found, uint64_t expected, const char *what);
/* Something that is not offered here, so it was not checked: a line says so. */
void skipped(const char *what);

/* ---- code for lab_execute() ---- */
/* Declares `name`, the bytes of assembly in AT&T syntax for 16-, 32- or 64-bit mode. It runs at another
 * address than it is assembled for, and an INT3 follows. */
#define SNIPPET(name, bits, text)                                                                            \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name ": " text "\n" #name                              \
            "_end: .byte 0xcc\n.code64\n.popsection");                                                       \
    extern const uint8_t name[], name##_end[]
#define SNIPPET_SIZE(name) ((size_t)(name##_end - (name)))
/* Runs a snippet; the vector it ended with. */
#define RUN(mode, name) lab_execute(mode, name, SNIPPET_SIZE(name))

enum {
    VECTOR_DE = 0,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_NM = 7,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_AC = 17,
};

#define FLAGS_TF 0x100ull
#define FLAGS_RF 0x10000ull

/* CPUID leaf, subleaf, register 0..3 (EAX, EBX, ECX, EDX), bit. */
bool cpu_has(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit);
/* What guarded() reports of one instruction. */
unsigned try_wrmsr(uint32_t msr, uint64_t v);
unsigned try_rdmsr(uint32_t msr, uint64_t *v);
unsigned try_write_cr4(uint64_t v);

/* ---- interrupts ---- */
/* Interrupts that have arrived here with this vector since the start. */
uint64_t arrived(unsigned vector);
/* Takes what is pending. */
void take_interrupts(void);
/* Takes what is pending: the vectors in the order they came, two hexadecimal digits each; 0 for none. */
uint64_t taken(void);
/* The same with a hook of the caller's, which is to call note_arrival(). */
uint64_t taken_with(void (*hook)(struct cpu *, unsigned));
/* For interrupt_hook: adds the vector to `arrivals`, as taken() answers it. */
void note_arrival(struct cpu *cpu, unsigned vector);
extern uint64_t arrivals;
/* Waits up to `us` with interrupts on until this vector comes; answers whether it did. */
bool comes(unsigned vector, uint64_t us);
/* The interrupt line of an ISA device, by QEMU's test device (compat = qemu). */
void set_line(unsigned irq, bool high);
/* Both PICs anew, at these vectors, edge-triggered, normal end of interrupt, everything masked; passed on by
 * LINT0. */
void pic_begin(uint8_t master, uint8_t slave);
void pic_end(void); /* masked, and not passed on */

#define PIC_MASTER      0x20u
#define PIC_MASTER_DATA 0x21u
#define PIC_SLAVE       0xa0u
#define PIC_SLAVE_DATA  0xa1u
#define PIC_EOI         0x20u
#define LVT_MASKED      (1u << 16)
#define LVT_EXTINT      0x700u
#define APIC_VERSION    ((enum apic_register)0x30)
#define APIC_PPR        ((enum apic_register)0xa0)
#define APIC_LDR        ((enum apic_register)0xd0)
#define APIC_DFR        ((enum apic_register)0xe0)
#define APIC_ISR        ((enum apic_register)0x100)
#define APIC_IRR        ((enum apic_register)0x200)
#define APIC_ESR        ((enum apic_register)0x280)
#define APIC_LINT1      ((enum apic_register)0x360)
#define APIC_LVT_ERROR  ((enum apic_register)0x370)
#define ICR_SELF        (1u << 18)
#define ICR_ALL         (2u << 18)
#define ICR_OTHERS      (3u << 18)
#define ICR_LOGICAL     (1u << 11)
/* Is the vector's bit set in ISR or IRR? */
bool apic_bit(enum apic_register first, unsigned vector);
/* A fixed interrupt to this processor. */
void self_ipi(unsigned vector);
