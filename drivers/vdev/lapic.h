/* The guest's local APIC (SDM volume 3, chapter "Advanced Programmable Interrupt Controller"): xAPIC and
 * x2APIC, timer in one-shot, periodic and TSC-deadline mode. Not a struct vdev: it belongs to one vCPU, is on
 * the hot path, and is accessed without the device lock.
 *
 * Who may call: lapic_post(), lapic_matches() and the lapic_accepts_*() from any CPU; everything else
 * only from the CPU that runs this vCPU. Other CPUs change nothing but irr, irr_summary, tmr and esr_pending,
 * all atomically. */
#pragma once

#include "hv/lib/addr.h"

struct lapic;

enum lapic_mode {
    LAPIC_FIXED = 0,
    LAPIC_LOWEST = 1,
    LAPIC_SMI = 2,
    LAPIC_NMI = 4,
    LAPIC_INIT = 5,
    LAPIC_SIPI = 6,
    LAPIC_EXTINT = 7
};
enum lapic_shorthand { LAPIC_DEST_FIELD, LAPIC_DEST_SELF, LAPIC_DEST_ALL, LAPIC_DEST_OTHERS };

/* A message on its way to local APICs. The IOAPIC and MSIs use it too, with x2apic = false. */
struct lapic_ipi {
    uint32_t dest; /* as written: 8 bits xAPIC, 32 bits x2APIC */
    uint8_t vector;
    uint8_t mode;      /* enum lapic_mode */
    uint8_t shorthand; /* enum lapic_shorthand */
    bool logical, level, assert, x2apic;
};

struct lapic_env {
    void *ctx;
    uint64_t (*now_tsc)(void *ctx);   /* the guest's TSC of this vCPU, now */
    void (*timer_changed)(void *ctx); /* lapic_deadline() may have a new answer (maybe one in the past) */
    /* Fixed, lowest-priority (legal vectors only), NMI, INIT (assert) and SIPI; never for fixed self-IPIs,
     * SMI, INIT level de-assert (no effect since the Pentium 4), reserved modes or combinations that the SDM
     * calls invalid. */
    void (*send_ipi)(void *ctx, const struct lapic_ipi *ipi);
    void (*eoi)(void *ctx, uint8_t vector); /* level-triggered vector ended: tell the IOAPICs */
    void (*state_changed)(void *ctx); /* lapic_pending() or lapic_accepts_extint() may have a new answer (own
                                         CPU). May be NULL */
};

#define LAPIC_BASE_DEFAULT 0xfee00000ull
#define LAPIC_PAGE_SIZE    4096u

#define APIC_BASE_BSP    (1ull << 8)
#define APIC_BASE_X2APIC (1ull << 10)
#define APIC_BASE_ENABLE (1ull << 11)

#define LAPIC_MSR_APIC_BASE    0x1bu
#define LAPIC_MSR_TSC_DEADLINE 0x6e0u
#define LAPIC_MSR_X2APIC_FIRST 0x800u
#define LAPIC_MSR_X2APIC_LAST  0x8ffu

#define LAPIC_NEVER UINT64_MAX

/* x * mult / 2^shift, mult normalised to 64 significant bits. */
struct lapic_ratio {
    uint64_t mult;
    uint8_t shift;
};

struct lapic {
    const struct lapic_env *env;
    uint64_t base_msr;         /* IA32_APIC_BASE */
    uint64_t deadline_tsc;     /* next expiry in guest TSC, LAPIC_NEVER = none */
    uint64_t tsc_deadline_msr; /* IA32_TSC_DEADLINE */
    uint32_t irr_summary;      /* atomic: bit n = irr[n] may be non-zero. Set after the bit; see lapic.c */
    uint32_t isr_summary;      /* bit n = isr[n] is non-zero */
    uint32_t tpr, svr;
    uint8_t highest_isr; /* highest vector in service, 0 = none (vectors below 16 are never in service) */
    bool is_bsp;
    bool no_x2apic;     /* as a processor that has none */
    uint8_t maxphyaddr; /* bits of a physical address, for the reserved bits of IA32_APIC_BASE */
    uint32_t irr[8];    /* atomic: other CPUs set bits */
    uint32_t isr[8];
    uint32_t tmr[8];   /* atomic, as irr */
    uint32_t id;       /* initial APIC ID = vCPU index */
    uint32_t ldr, dfr; /* xAPIC; in x2APIC mode the LDR follows from the ID */
    uint32_t esr;      /* what a read gives; esr_pending: atomic, logged since the last write */
    uint32_t esr_pending;
    uint32_t icr_lo, icr_hi;
    uint32_t lvt[7]; /* CMCI, timer, thermal, PMC, LINT0, LINT1, error */
    uint32_t divide, initial_count;
    struct lapic_ratio tsc_per_tick, ticks_per_tsc; /* tick = one of the timer's input clock */
};

/* `timer_hz`: frequency of the APIC timer's input clock (CPUID leaf 0x15's crystal); `tsc_hz`: the guest's
 * TSC. Both 1..2^40. `id` is below 255. Ends as lapic_reset() does. The guest's MAXPHYADDR is taken as 36
 * until lapic_set_maxphyaddr(). */
void lapic_init(struct lapic *l, const struct lapic_env *env, uint32_t id, bool is_bsp, uint64_t timer_hz,
                uint64_t tsc_hz);
void lapic_set_maxphyaddr(struct lapic *l, unsigned bits); /* 32..52, as CPUID tells the guest */
void lapic_hide_x2apic(struct lapic *l); /* IA32_APIC_BASE.EXTD is reserved from now on; CPUID must agree */
void lapic_reset(struct lapic *l);       /* power-up state: xAPIC mode at the default base */
void lapic_init_signal(struct lapic *l); /* INIT: as reset, but IA32_APIC_BASE stays */

/* Registers by MMIO (offset in the page; size 1..8; only aligned 32-bit accesses have defined effects: other
 * reads give the bytes of the register, other writes are ignored). For the integrator: lapic_mmio_enabled()
 * says whether the page at lapic_mmio_base() decodes at all; if it does not, reads give all-ones. */
uint32_t lapic_mmio_read(struct lapic *l, uint32_t offset, unsigned size);
void lapic_mmio_write(struct lapic *l, uint32_t offset, unsigned size, uint32_t value);

/* x2APIC MSRs 0x800..0x8ff, IA32_APIC_BASE and IA32_TSC_DEADLINE. Anything but STATUS_OK means #GP(0). */
enum status lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
enum status lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);
enum status lapic_base_write(struct lapic *l, uint64_t value);
enum status lapic_tsc_deadline_write(struct lapic *l, uint64_t value);
uint64_t lapic_tsc_deadline_read(struct lapic *l);

/* Interrupt from an IPI, the IOAPIC, an MSI or the timer. Any CPU; the caller then kicks the target. Vectors
 * below 16 set the receive-illegal-vector error. Returns false when the APIC is software-disabled (dropped).
 */
bool lapic_post(struct lapic *l, uint8_t vector, bool level);
/* Does this destination name this APIC? A shorthand of ALL or OTHERS matches every enabled APIC (leaving out
 * the sender is the caller's part), SELF matches none. Never true while IA32_APIC_BASE disables the APIC. */
bool lapic_matches(const struct lapic *l, const struct lapic_ipi *ipi);
/* The vCPU takes `vector` (as answered by lapic_pending): IRR -> ISR. */
void lapic_take(struct lapic *l, uint8_t vector);
void lapic_set_cr8(struct lapic *l, uint8_t value); /* value 0..15 */
/* The timer's deadline was reached: post its interrupt and arm the next period. A call too early does
 * nothing. */
void lapic_timer_expired(struct lapic *l, uint64_t now_tsc);
/* The guest's TSC was moved by `delta` (a write to IA32_TIME_STAMP_COUNTER or IA32_TSC_ADJUST): the counting
 * modes do not follow it, TSC-deadline mode does. */
void lapic_tsc_moved(struct lapic *l, int64_t delta);
/* Does it take fixed and lowest-priority interrupts, that is: is it enabled by software (SVR bit 8)? Any CPU.
 */
bool lapic_accepts_fixed(const struct lapic *l);
/* Does LINT0 (ExtINT from the PIC) / LINT1 (NMI) let the signal through? */
bool lapic_accepts_extint(const struct lapic *l);
bool lapic_accepts_nmi_lint1(const struct lapic *l);

/* Highest vector requested, whatever PPR says, or -1; and the same above PPR only. Slow halves of
 * lapic_pending(). */
int lapic_highest_irr(struct lapic *l);
int lapic_pending_slow(struct lapic *l);

/* Highest-priority vector that can be delivered now (above PPR), or -1. Two instructions when nothing is
 * pending. */
static inline int lapic_pending(struct lapic *l)
{
    if (__builtin_expect(__atomic_load_n(&l->irr_summary, __ATOMIC_ACQUIRE) == 0, 1))
        return -1;
    return lapic_pending_slow(l);
}

/* Next timer expiry in guest TSC, LAPIC_NEVER = none. */
static inline uint64_t lapic_deadline(const struct lapic *l)
{
    return l->deadline_tsc;
}

/* TPR as CR8 sees it (bits 7:4). */
static inline uint8_t lapic_cr8(const struct lapic *l)
{
    return (uint8_t)(l->tpr >> 4);
}

static inline bool lapic_is_x2apic(const struct lapic *l)
{
    return (l->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

static inline bool lapic_mmio_enabled(const struct lapic *l)
{
    return (l->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == APIC_BASE_ENABLE;
}

static inline gpa_t lapic_mmio_base(const struct lapic *l)
{
    return gpa(align_down(l->base_msr, PAGE_SIZE));
}
