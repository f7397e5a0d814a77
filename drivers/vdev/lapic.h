/* The guest's local APIC (SDM volume 3, chapter "Advanced Programmable Interrupt Controller"): xAPIC and x2APIC,
 * timer in one-shot, periodic and TSC-deadline mode. Not a struct vdev: it belongs to one vCPU, is on the hot
 * path, and is accessed without the device lock. Only IRR (and the level/NMI inputs) may be touched by other CPUs. */
#pragma once

#include "hv/lib/addr.h"

struct lapic;

enum lapic_mode { LAPIC_FIXED = 0, LAPIC_LOWEST = 1, LAPIC_SMI = 2, LAPIC_NMI = 4, LAPIC_INIT = 5, LAPIC_SIPI = 6, LAPIC_EXTINT = 7 };
enum lapic_shorthand { LAPIC_DEST_FIELD, LAPIC_DEST_SELF, LAPIC_DEST_ALL, LAPIC_DEST_OTHERS };

struct lapic_ipi {
    uint32_t dest;     /* as written: 8 bits xAPIC, 32 bits x2APIC */
    uint8_t vector;
    uint8_t mode;      /* enum lapic_mode */
    uint8_t shorthand; /* enum lapic_shorthand */
    bool logical, level, assert, x2apic;
};

struct lapic_env {
    void *ctx;
    uint64_t (*now_tsc)(void *ctx);                   /* the guest's TSC of this vCPU, now */
    void (*timer_changed)(void *ctx);                 /* lapic_deadline() may have a new answer */
    void (*send_ipi)(void *ctx, const struct lapic_ipi *ipi); /* never called for fixed self-IPIs */
    void (*eoi)(void *ctx, uint8_t vector);           /* level-triggered vector ended: tell the IOAPICs */
    void (*state_changed)(void *ctx);                 /* pending interrupts may have changed (own CPU) */
};

#define LAPIC_BASE_DEFAULT 0xfee00000ull
#define LAPIC_PAGE_SIZE    4096u

#define APIC_BASE_BSP    (1ull << 8)
#define APIC_BASE_X2APIC (1ull << 10)
#define APIC_BASE_ENABLE (1ull << 11)

struct lapic {
    const struct lapic_env *env;
    uint32_t id;          /* initial APIC ID = vCPU index */
    bool is_bsp;
    uint64_t base_msr;    /* IA32_APIC_BASE */
    uint64_t tsc_per_tick_fp32; /* TSC ticks per APIC-timer input clock tick, 32.32 fixed point */
    uint32_t irr[8];      /* atomic: other CPUs set bits */
    uint32_t isr[8], tmr[8];
    uint32_t tpr, ldr, dfr, svr, esr, esr_pending, icr_lo, icr_hi;
    uint32_t lvt[7];      /* CMCI, timer, thermal, PMC, LINT0, LINT1, error: see lapic.c */
    uint32_t divide, initial_count;
    uint64_t timer_start_tsc;    /* when the current count began */
    uint64_t deadline_tsc;       /* next expiry in guest TSC, UINT64_MAX = none */
    uint64_t tsc_deadline_msr;   /* IA32_TSC_DEADLINE */
    uint64_t lvt_errors;
    int16_t highest_irr, highest_isr; /* caches, -1 none; irr cache is a hint, see lapic.c */
};

/* `timer_hz`: frequency of the APIC timer's input clock (CPUID leaf 0x15's crystal); `tsc_hz`: the guest's TSC. */
void lapic_init(struct lapic *l, const struct lapic_env *env, uint32_t id, bool is_bsp, uint64_t timer_hz,
                uint64_t tsc_hz);
void lapic_reset(struct lapic *l); /* power-up or INIT state; INIT keeps the APIC base (lapic_init_signal) */
void lapic_init_signal(struct lapic *l);

/* Registers by MMIO (offset in the page; size 1..8; only aligned 32-bit accesses have defined effects). */
uint32_t lapic_mmio_read(struct lapic *l, uint32_t offset, unsigned size);
void lapic_mmio_write(struct lapic *l, uint32_t offset, unsigned size, uint32_t value);

/* x2APIC MSRs 0x800..0x8ff, IA32_APIC_BASE and IA32_TSC_DEADLINE. Anything but STATUS_OK means #GP(0). */
enum status lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
enum status lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);
enum status lapic_base_write(struct lapic *l, uint64_t value);
enum status lapic_tsc_deadline_write(struct lapic *l, uint64_t value);
uint64_t lapic_tsc_deadline_read(struct lapic *l);

/* Interrupt from an IPI, the IOAPIC, an MSI or the timer. Any CPU; the caller then kicks the target. Vectors below
 * 16 set the receive-illegal-vector error. Returns false when the APIC is software-disabled (dropped). */
bool lapic_post(struct lapic *l, uint8_t vector, bool level);
/* Does this destination name this APIC? */
bool lapic_matches(const struct lapic *l, const struct lapic_ipi *ipi);
/* Highest-priority vector that can be delivered now (above PPR), or -1. Cheap when nothing is pending. */
int lapic_pending(struct lapic *l);
/* The vCPU takes `vector` (as answered by lapic_pending): IRR -> ISR. */
void lapic_take(struct lapic *l, uint8_t vector);
/* TPR as CR8 sees it (bits 7:4). */
uint8_t lapic_cr8(const struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint8_t value);
/* Next timer expiry in guest TSC, UINT64_MAX = none; and what to do when it is reached. */
uint64_t lapic_deadline(const struct lapic *l);
void lapic_timer_expired(struct lapic *l, uint64_t now_tsc);
/* Does LINT0 (ExtINT from the PIC) / LINT1 (NMI) let the signal through? */
bool lapic_accepts_extint(const struct lapic *l);
bool lapic_accepts_nmi_lint1(const struct lapic *l);
