/* The guest's local APIC. Section names below are those of the SDM, volume 3, chapter "Advanced Programmable
 * Interrupt Controller (APIC)".
 *
 * IRR is shared: any CPU sets bits, the owner clears them. irr_summary says which words of it to look at. A
 * poster sets the IRR bit first and the summary bit second; the owner, when a word became empty, clears the
 * summary bit first and looks at the word again. So a set IRR bit without its summary bit is always about to
 * get one from its poster, who kicks the owner only after that; and a summary bit without an IRR bit is
 * merely a wasted look. */
#include "drivers/vdev/lapic.h"

#include "hv/lib/bits.h"

__extension__ typedef unsigned __int128 u128;

/* Register numbers: MMIO offset / 16, and x2APIC MSR - 0x800 ("Local APIC Register Address Map"). */
enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_CMCI = 0x2f,
    REG_ICR = 0x30,
    REG_ICR_HI = 0x31,
    REG_LVT_TIMER = 0x32,
    REG_LVT_ERROR = 0x37,
    REG_INITIAL_COUNT = 0x38,
    REG_CURRENT_COUNT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
    REG_COUNT = 0x40
};
#define REG(n)       (1ull << (n))
#define REGS(lo, hi) ((~0ull >> (63 - (hi))) & (~0ull << (lo)))
#define REGS_READ_ONLY                                                                                       \
    (REG(REG_ID) | REG(REG_VERSION) | REG(REG_PPR) | REGS(0x10, 0x27) | REG(REG_CURRENT_COUNT))
#define REGS_READ_WRITE                                                                                      \
    (REG(REG_TPR) | REG(REG_SVR) | REG(REG_ESR) | REG(REG_CMCI) | REG(REG_ICR) |                             \
     REGS(REG_LVT_TIMER, REG_LVT_ERROR) | REG(REG_INITIAL_COUNT) | REG(REG_DIVIDE))
/* x2APIC: access rights by MSR ("x2APIC Register Address Space"). DFR, APR, RRD and the ICR's upper half are
 * gone. */
#define X2APIC_READABLE (REGS_READ_ONLY | REGS_READ_WRITE | REG(REG_LDR))
#define X2APIC_WRITABLE (REGS_READ_WRITE | REG(REG_EOI) | REG(REG_SELF_IPI))
/* xAPIC: registers that exist; any other address is an "illegal register address" error. */
#define XAPIC_EXISTS                                                                                         \
    (REGS_READ_ONLY | REGS_READ_WRITE | REG(REG_LDR) | REG(REG_DFR) | REG(REG_EOI) | REG(REG_APR) |          \
     REG(REG_RRD) | REG(REG_ICR_HI))

/* lvt[] indices. */
enum { LVT_CMCI, LVT_TIMER, LVT_THERMAL, LVT_PMC, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

/* "Local Vector Table": writable fields, and the read-only ones that a write may carry. */
#define LVT_VECTOR      0xffu
#define LVT_MODE        (7u << 8)
#define LVT_MODE_SHIFT  8
#define LVT_STATUS      (1u << 12)
#define LVT_POLARITY    (1u << 13)
#define LVT_REMOTE_IRR  (1u << 14)
#define LVT_LEVEL       (1u << 15)
#define LVT_MASKED      (1u << 16)
#define LVT_TIMER_SHIFT 17
#define LVT_TIMER_MODE  (3u << LVT_TIMER_SHIFT)
enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

/* Integrated APIC, 7 LVT entries, EOI-broadcast suppression ("Local APIC Version Register"). */
#define VERSION_VALUE (0x14u | (LVT_COUNT - 1) << 16 | 1u << 24)

#define SVR_ENABLE       (1u << 8)
#define SVR_NO_BROADCAST (1u << 12)
#define SVR_WRITABLE     (0xffu | SVR_ENABLE | SVR_NO_BROADCAST)
#define SVR_RESET        0xffu

#define ESR_SEND_VECTOR    (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER       (1u << 7)

#define DIVIDE_WRITABLE 0xbu
#define DFR_MODEL_SHIFT 28
#define DFR_FLAT        0xfu
#define DFR_CLUSTER     0x0u
#define XAPIC_DEST_MASK 0xff000000u
#define BROADCAST_8     0xffu
#define BROADCAST_32    0xffffffffu
#define FIRST_LEGAL     16u /* vectors below are illegal for interrupts */

/* "Interrupt Command Register (ICR)". Delivery status (bit 12) is read-only in xAPIC mode and, though
 * reserved, ignored by Intel's processors in x2APIC mode. */
#define ICR_MODE_SHIFT      8
#define ICR_LOGICAL         (1u << 11)
#define ICR_STATUS          (1u << 12)
#define ICR_ASSERT          (1u << 14)
#define ICR_LEVEL           (1u << 15)
#define ICR_SHORTHAND_SHIFT 18
#define ICR_WRITABLE        (0xfffu | ICR_ASSERT | ICR_LEVEL | 3u << ICR_SHORTHAND_SHIFT)

#define BASE_FLAGS (APIC_BASE_BSP | APIC_BASE_X2APIC | APIC_BASE_ENABLE)

/* A periodic timer that is shorter than this many TSC cycles loses ticks (as they would merge in IRR) instead
 * of keeping the guest from ever making progress: about the cost of a few exits. */
#define MIN_PERIOD_TSC 16384u
/* Longest span the timer counts; beyond it lies a lifetime. */
#define MAX_SPAN_TSC (1ull << 62)

/* ---- small helpers ---- */

/* Index of the highest set bit of v != 0: written so that it is one BSR. */
static inline unsigned top_bit(uint32_t v)
{
    return 31u ^ (unsigned)__builtin_clz(v);
}

static void changed(struct lapic *l)
{
    if (l->env->state_changed)
        l->env->state_changed(l->env->ctx);
}

/* num/den as a ratio; both 1..2^40. Long division, done once: no 128-bit division exists here. */
static struct lapic_ratio ratio_make(uint64_t num, uint64_t den)
{
    int shift = 63;
    while (num < den) {
        num <<= 1;
        shift++;
    }
    while (num >= den << 1) {
        den <<= 1;
        shift--;
    }
    uint64_t mult = 1, rest = num - den;
    for (int i = 0; i < 63; i++) {
        rest <<= 1;
        mult <<= 1;
        if (rest >= den) {
            rest -= den;
            mult |= 1;
        }
    }
    return (struct lapic_ratio){mult, (uint8_t)shift};
}

static uint64_t ratio_apply(struct lapic_ratio ratio, uint64_t value)
{
    u128 product = (u128)value * ratio.mult >> ratio.shift;
    return product > MAX_SPAN_TSC ? MAX_SPAN_TSC : (uint64_t)product;
}

/* ---- IRR, ISR, priorities ---- */

static inline void tmr_set(struct lapic *l, uint32_t vector, bool level)
{
    uint32_t *word = &l->tmr[vector >> 5], bit = 1u << (vector & 31);
    if (level)
        __atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
    else if (__atomic_load_n(word, __ATOMIC_RELAXED) & bit)
        __atomic_fetch_and(word, ~bit, __ATOMIC_SEQ_CST);
}

static inline void irr_set(struct lapic *l, uint32_t vector, bool level)
{
    tmr_set(l, vector, level); /* before IRR: who sees the request sees its trigger mode */
    __atomic_fetch_or(&l->irr[vector >> 5], 1u << (vector & 31), __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&l->irr_summary, 1u << (vector >> 5), __ATOMIC_SEQ_CST);
}

/* Word n of IRR was seen empty. */
static void irr_word_emptied(struct lapic *l, unsigned n)
{
    __atomic_fetch_and(&l->irr_summary, ~(1u << n), __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&l->irr[n], __ATOMIC_SEQ_CST))
        __atomic_fetch_or(&l->irr_summary, 1u << n, __ATOMIC_SEQ_CST);
}

/* Logs errors; "Error Handling": a write to ESR arms the error interrupt, which the first error then
 * triggers. */
static void error_log(struct lapic *l, uint32_t errors)
{
    if (__atomic_fetch_or(&l->esr_pending, errors, __ATOMIC_SEQ_CST))
        return;
    uint32_t lvt = __atomic_load_n(&l->lvt[LVT_ERROR], __ATOMIC_RELAXED);
    if (lvt & LVT_MASKED)
        return;
    if ((lvt & LVT_VECTOR) < FIRST_LEGAL)
        __atomic_fetch_or(&l->esr_pending, ESR_RECEIVE_VECTOR, __ATOMIC_SEQ_CST);
    else
        irr_set(l, lvt & LVT_VECTOR, false);
}

bool lapic_accepts_fixed(const struct lapic *l)
{
    return __atomic_load_n(&l->svr, __ATOMIC_RELAXED) & SVR_ENABLE;
}

bool lapic_post(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_accepts_fixed(l))
        return false;
    if (vector < FIRST_LEGAL)
        error_log(l, ESR_RECEIVE_VECTOR);
    else
        irr_set(l, vector, level);
    return true;
}

/* An interrupt of this APIC's own making. */
static inline void post_self(struct lapic *l, uint8_t vector)
{
    if (lapic_post(l, vector, false))
        changed(l);
}

int lapic_highest_irr(struct lapic *l)
{
    for (;;) {
        uint32_t summary = __atomic_load_n(&l->irr_summary, __ATOMIC_ACQUIRE);
        if (!summary)
            return -1;
        unsigned n = top_bit(summary);
        uint32_t word = __atomic_load_n(&l->irr[n], __ATOMIC_ACQUIRE);
        if (word)
            return (int)(n * 32 + top_bit(word));
        irr_word_emptied(l, n);
    }
}

/* "Task and Processor Priorities": the higher class of TPR and the highest vector in service. */
static inline uint32_t ppr(const struct lapic *l)
{
    return (l->tpr & 0xf0) >= (l->highest_isr & 0xf0) ? l->tpr : l->highest_isr & 0xf0u;
}

int lapic_pending_slow(struct lapic *l)
{
    int vector = lapic_highest_irr(l);
    return vector >= 0 && (vector & 0xf0) > (int)(ppr(l) & 0xf0) ? vector : -1;
}

void lapic_take(struct lapic *l, uint8_t vector)
{
    unsigned n = vector >> 5;
    uint32_t bit = 1u << (vector & 31);
    if (__atomic_and_fetch(&l->irr[n], ~bit, __ATOMIC_SEQ_CST) == 0)
        irr_word_emptied(l, n);
    l->isr[n] |= bit;
    l->isr_summary |= 1u << n;
    if (vector > l->highest_isr)
        l->highest_isr = vector;
}

/* "Signaling Interrupt Servicing Completion". */
static inline void end_of_interrupt(struct lapic *l)
{
    uint32_t vector = l->highest_isr;
    if (!vector)
        return;
    unsigned n = vector >> 5;
    uint32_t bit = 1u << (vector & 31);
    l->isr[n] &= ~bit;
    if (!l->isr[n])
        l->isr_summary &= ~(1u << n);
    l->highest_isr = 0;
    if (l->isr_summary) {
        unsigned top = top_bit(l->isr_summary);
        l->highest_isr = (uint8_t)(top * 32 + top_bit(l->isr[top]));
    }
    if ((__atomic_load_n(&l->tmr[n], __ATOMIC_RELAXED) & bit) && !(l->svr & SVR_NO_BROADCAST))
        l->env->eoi(l->env->ctx, (uint8_t)vector);
    if (__atomic_load_n(&l->irr_summary, __ATOMIC_RELAXED))
        changed(l);
}

static void tpr_write(struct lapic *l, uint32_t value)
{
    bool lower = value < l->tpr;
    l->tpr = value;
    if (lower && __atomic_load_n(&l->irr_summary, __ATOMIC_RELAXED))
        changed(l);
}

void lapic_set_cr8(struct lapic *l, uint8_t value)
{
    tpr_write(l, (value & 0xfu) << 4);
}

/* ---- timer ---- */

static enum timer_mode timer_mode(const struct lapic *l)
{
    return (enum timer_mode)((l->lvt[LVT_TIMER] & LVT_TIMER_MODE) >> LVT_TIMER_SHIFT);
}

static bool timer_counts(enum timer_mode mode)
{
    return mode == TIMER_ONE_SHOT || mode == TIMER_PERIODIC;
}

/* "Divide Configuration Register": bits 3, 1, 0 = 0 divide by 2 ... 6 by 128, 7 by 1. */
static unsigned divide_shift(const struct lapic *l)
{
    return (((l->divide >> 1 & 4) | (l->divide & 3)) + 1) & 7;
}

/* Length of `count` counts in TSC cycles, at least 1. */
static uint64_t timer_span(const struct lapic *l, uint32_t count)
{
    uint64_t span = ratio_apply(l->tsc_per_tick, (uint64_t)count << divide_shift(l));
    return span ? span : 1;
}

static void timer_set_deadline(struct lapic *l, uint64_t deadline)
{
    l->deadline_tsc = deadline;
    l->env->timer_changed(l->env->ctx);
}

static void timer_disarm(struct lapic *l)
{
    l->initial_count = 0;
    l->tsc_deadline_msr = 0;
    if (l->deadline_tsc != LAPIC_NEVER)
        timer_set_deadline(l, LAPIC_NEVER);
}

static uint32_t timer_current_count(struct lapic *l)
{
    if (l->deadline_tsc == LAPIC_NEVER || !timer_counts(timer_mode(l)))
        return 0;
    uint64_t now = l->env->now_tsc(l->env->ctx), left;
    if (now < l->deadline_tsc) {
        left = l->deadline_tsc - now;
    } else {
        if (timer_mode(l) == TIMER_ONE_SHOT)
            return 0;
        uint64_t period = timer_span(l, l->initial_count);
        left = period - (now - l->deadline_tsc) % period;
    }
    /* Rounded up: zero is never seen before the interrupt is due. */
    uint64_t count = (ratio_apply(l->ticks_per_tsc, left) >> divide_shift(l)) + 1;
    return count < l->initial_count ? (uint32_t)count : l->initial_count;
}

/* Before the timer is reprogrammed: what was due under the old settings happens under the old settings. */
static uint64_t timer_settle(struct lapic *l)
{
    uint64_t now = l->env->now_tsc(l->env->ctx);
    lapic_timer_expired(l, now);
    return now;
}

static void timer_initial_count_write(struct lapic *l, uint32_t value)
{
    if (!timer_counts(timer_mode(l)))
        return; /* "TSC-Deadline Mode": ignored */
    uint64_t now = timer_settle(l);
    l->initial_count = value;
    timer_set_deadline(l, value ? now + timer_span(l, value) : LAPIC_NEVER);
}

static void timer_divide_write(struct lapic *l, uint32_t value)
{
    uint64_t now = timer_settle(l);
    uint32_t count = timer_current_count(l);
    l->divide = value & DIVIDE_WRITABLE;
    if (count)
        timer_set_deadline(l, now + timer_span(l, count));
}

static void timer_lvt_write(struct lapic *l, uint32_t value)
{
    timer_settle(l);
    enum timer_mode before = timer_mode(l);
    l->lvt[LVT_TIMER] = value;
    enum timer_mode after = timer_mode(l);
    /* Between one-shot and periodic the count goes on; any other change disarms ("TSC-Deadline Mode"). */
    if (before != after && !(timer_counts(before) && timer_counts(after)))
        timer_disarm(l);
}

void lapic_timer_expired(struct lapic *l, uint64_t now_tsc)
{
    if (now_tsc < l->deadline_tsc || l->deadline_tsc == LAPIC_NEVER)
        return;
    uint64_t next = LAPIC_NEVER;
    if (timer_mode(l) == TIMER_PERIODIC && l->initial_count) {
        uint64_t period = timer_span(l, l->initial_count);
        uint64_t periods = (now_tsc - l->deadline_tsc) / period + 1; /* missed ones merge, as in IRR */
        if (period < MIN_PERIOD_TSC)
            periods += MIN_PERIOD_TSC / period;
        next = l->deadline_tsc + periods * period;
    }
    l->tsc_deadline_msr = 0;
    timer_set_deadline(l, next);
    if (!(l->lvt[LVT_TIMER] & LVT_MASKED))
        post_self(l, (uint8_t)l->lvt[LVT_TIMER]);
}

void lapic_tsc_moved(struct lapic *l, int64_t delta)
{
    uint64_t deadline = l->deadline_tsc, back = delta < 0 ? 0 - (uint64_t)delta : 0;
    if (deadline == LAPIC_NEVER)
        return;
    if (timer_counts(timer_mode(l)))
        deadline = deadline < back ? 0 : deadline + (uint64_t)delta; /* 0: was due already */
    timer_set_deadline(l, deadline);
}

enum status lapic_tsc_deadline_write(struct lapic *l, uint64_t value)
{
    if (timer_mode(l) != TIMER_TSC_DEADLINE)
        return STATUS_OK; /* "TSC-Deadline Mode": ignored in the other modes */
    l->tsc_deadline_msr = value;
    timer_set_deadline(l, value ? value : LAPIC_NEVER);
    return STATUS_OK;
}

uint64_t lapic_tsc_deadline_read(struct lapic *l)
{
    if (l->tsc_deadline_msr)
        timer_settle(l); /* reads as zero from the moment it is reached */
    return l->tsc_deadline_msr;
}

/* ---- inter-processor interrupts ---- */

/* Can the SDM's table "Valid Combinations for the Pentium 4 and Intel Xeon Processors' Local xAPIC Interrupt
 * Command Register" have it, and is there anything to do? NMIs and INITs by SELF and ALL are invalid there,
 * but processors deliver them, and test programs reset themselves so: passed on. */
static bool ipi_is_valid(const struct lapic_ipi *ipi)
{
    switch (ipi->mode) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
    case LAPIC_NMI:
        return true;
    case LAPIC_INIT:
        return !ipi->level || ipi->assert; /* INIT level de-assert: not supported since the Pentium 4 */
    case LAPIC_SIPI:
        return ipi->shorthand == LAPIC_DEST_FIELD || ipi->shorthand == LAPIC_DEST_OTHERS;
    default:
        return false; /* SMI: no SMM here; 3 and 7 are reserved */
    }
}

static bool ipi_is_to_self(const struct lapic *l, const struct lapic_ipi *ipi)
{
    if (ipi->shorthand != LAPIC_DEST_FIELD)
        return ipi->shorthand == LAPIC_DEST_SELF;
    return !ipi->logical && ipi->dest == l->id; /* no vCPU has the broadcast ID 0xff */
}

static void ipi_send(struct lapic *l, uint32_t command, uint32_t dest, bool x2apic)
{
    struct lapic_ipi ipi = {
        .dest = dest,
        .vector = (uint8_t)command,
        .mode = (uint8_t)(command >> ICR_MODE_SHIFT & 7),
        .shorthand = (uint8_t)(command >> ICR_SHORTHAND_SHIFT & 3),
        .logical = command & ICR_LOGICAL,
        .level = command & ICR_LEVEL,
        .assert = command & ICR_ASSERT,
        .x2apic = x2apic,
    };
    if (!ipi_is_valid(&ipi))
        return;
    if (ipi.mode == LAPIC_FIXED || ipi.mode == LAPIC_LOWEST) {
        bool self = ipi_is_to_self(l, &ipi);
        if (ipi.vector < FIRST_LEGAL) {
            error_log(l, ESR_SEND_VECTOR | (self ? ESR_RECEIVE_VECTOR : 0));
            changed(l);
            return;
        }
        if (self) {
            post_self(l, ipi.vector);
            return;
        }
    }
    l->env->send_ipi(l->env->ctx, &ipi);
}

static void self_ipi_write(struct lapic *l, uint8_t vector)
{
    if (vector >= FIRST_LEGAL) {
        post_self(l, vector);
        return;
    }
    error_log(l, ESR_SEND_VECTOR | ESR_RECEIVE_VECTOR);
    changed(l);
}

/* "Logical x2APIC ID". */
static uint32_t x2apic_ldr(const struct lapic *l)
{
    return l->id >> 4 << 16 | 1u << (l->id & 15);
}

static bool matches_logical(const struct lapic *l, uint32_t dest, bool x2apic)
{
    if (x2apic) {
        uint32_t ldr = x2apic_ldr(l);
        return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
    }
    if (dest > 0xff)
        return false;
    uint32_t logical_id = __atomic_load_n(&l->ldr, __ATOMIC_RELAXED) >> 24;
    switch (__atomic_load_n(&l->dfr, __ATOMIC_RELAXED) >> DFR_MODEL_SHIFT) {
    case DFR_FLAT:
        return logical_id & dest;
    case DFR_CLUSTER:
        return logical_id >> 4 == dest >> 4 && (logical_id & dest & 0xf);
    default:
        return false;
    }
}

bool lapic_matches(const struct lapic *l, const struct lapic_ipi *ipi)
{
    uint64_t base = __atomic_load_n(&l->base_msr, __ATOMIC_RELAXED);
    if (!(base & APIC_BASE_ENABLE) || ipi->shorthand == LAPIC_DEST_SELF)
        return false;
    if (ipi->shorthand != LAPIC_DEST_FIELD)
        return true;
    if (ipi->dest == (ipi->x2apic ? BROADCAST_32 : BROADCAST_8))
        return true;
    return ipi->logical ? matches_logical(l, ipi->dest, base & APIC_BASE_X2APIC) : ipi->dest == l->id;
}

/* ---- registers ---- */

static unsigned lvt_index(unsigned reg)
{
    return reg == REG_CMCI ? LVT_CMCI : reg - REG_LVT_TIMER + LVT_TIMER;
}

static uint32_t lvt_writable(unsigned index)
{
    switch (index) {
    case LVT_TIMER:
        return LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE;
    case LVT_LINT0:
    case LVT_LINT1:
        return LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED;
    case LVT_ERROR:
        return LVT_VECTOR | LVT_MASKED;
    default:
        return LVT_VECTOR | LVT_MODE | LVT_MASKED;
    }
}

/* Read-only bits that a write may carry without breaking a rule. */
static uint32_t lvt_read_only(unsigned index)
{
    return index == LVT_LINT0 || index == LVT_LINT1 ? LVT_STATUS | LVT_REMOTE_IRR : LVT_STATUS;
}

static void lvt_write(struct lapic *l, unsigned index, uint32_t value)
{
    value &= lvt_writable(index);
    if (!(l->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* "Local APIC State After It Has Been Software Disabled" */
    if (index == LVT_TIMER)
        timer_lvt_write(l, value);
    else
        __atomic_store_n(&l->lvt[index], value, __ATOMIC_RELAXED);
    if (index == LVT_LINT0)
        changed(l); /* the PIC may have been asking for long */
}

static void svr_write(struct lapic *l, uint32_t value)
{
    __atomic_store_n(&l->svr, value & SVR_WRITABLE, __ATOMIC_RELAXED);
    if (value & SVR_ENABLE)
        return;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        lvt_write(l, i, l->lvt[i] | LVT_MASKED);
}

static uint32_t reg_read(struct lapic *l, unsigned reg, bool x2apic)
{
    if (reg >= REG_ISR && reg < REG_TMR)
        return l->isr[reg - REG_ISR];
    if (reg >= REG_TMR && reg < REG_IRR)
        return __atomic_load_n(&l->tmr[reg - REG_TMR], __ATOMIC_RELAXED);
    if (reg >= REG_IRR && reg < REG_ESR)
        return __atomic_load_n(&l->irr[reg - REG_IRR], __ATOMIC_RELAXED);
    switch (reg) {
    case REG_ID:
        return x2apic ? l->id : l->id << 24;
    case REG_VERSION:
        return VERSION_VALUE;
    case REG_TPR:
        return l->tpr;
    case REG_PPR:
        return ppr(l);
    case REG_LDR:
        return x2apic ? x2apic_ldr(l) : l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_SVR:
        return l->svr;
    case REG_ESR:
        return l->esr;
    case REG_ICR:
        return l->icr_lo;
    case REG_ICR_HI:
        return l->icr_hi;
    case REG_INITIAL_COUNT:
        return l->initial_count;
    case REG_CURRENT_COUNT:
        return timer_current_count(l);
    case REG_DIVIDE:
        return l->divide;
    case REG_CMCI:
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        return l->lvt[lvt_index(reg)];
    default:
        return 0; /* EOI is write-only; APR and RRD are not supported since the Pentium 4 */
    }
}

/* Writes that mean the same in both modes; ignores what is read-only. */
static void reg_write(struct lapic *l, unsigned reg, uint32_t value)
{
    switch (reg) {
    case REG_TPR:
        tpr_write(l, value & 0xff);
        break;
    case REG_EOI:
        end_of_interrupt(l);
        break;
    case REG_SVR:
        svr_write(l, value);
        break;
    case REG_ESR: /* "Error Handling": the write shows what was logged, and forgets it */
        l->esr = __atomic_exchange_n(&l->esr_pending, 0, __ATOMIC_SEQ_CST);
        break;
    case REG_INITIAL_COUNT:
        timer_initial_count_write(l, value);
        break;
    case REG_DIVIDE:
        timer_divide_write(l, value);
        break;
    case REG_CMCI:
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        lvt_write(l, lvt_index(reg), value);
        break;
    default:
        break;
    }
}

/* ---- xAPIC: memory-mapped ---- */

static bool xapic_exists(struct lapic *l, uint32_t reg)
{
    if (reg < REG_COUNT && (XAPIC_EXISTS >> reg & 1))
        return true;
    error_log(l, ESR_REGISTER);
    changed(l);
    return false;
}

uint32_t lapic_mmio_read(struct lapic *l, uint32_t offset, unsigned size)
{
    if (!lapic_mmio_enabled(l))
        return ~0u;
    uint32_t reg = offset >> 4, byte = offset & 15;
    if (!xapic_exists(l, reg) || byte > 3)
        return 0;
    uint32_t value = reg_read(l, reg, false) >> (byte * 8);
    return size >= 4 ? value : value & ((1u << (size * 8)) - 1);
}

void lapic_mmio_write(struct lapic *l, uint32_t offset, unsigned size, uint32_t value)
{
    if (!lapic_mmio_enabled(l) || size != 4 || (offset & 15))
        return;
    uint32_t reg = offset >> 4;
    if (!xapic_exists(l, reg))
        return;
    switch (reg) {
    case REG_LDR:
        __atomic_store_n(&l->ldr, value & XAPIC_DEST_MASK, __ATOMIC_RELAXED);
        break;
    case REG_DFR:
        __atomic_store_n(&l->dfr, value | ~(DFR_FLAT << DFR_MODEL_SHIFT), __ATOMIC_RELAXED);
        break;
    case REG_ICR_HI:
        l->icr_hi = value & XAPIC_DEST_MASK;
        break;
    case REG_ICR:
        l->icr_lo = value & ICR_WRITABLE;
        ipi_send(l, l->icr_lo, l->icr_hi >> 24, false);
        break;
    default:
        reg_write(l, reg, value);
        break;
    }
}

/* ---- x2APIC: MSRs ---- */

/* Bits that may be written; any other raises #GP ("Reserved Bit Checking"). */
static uint64_t x2apic_allowed(unsigned reg)
{
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_EOI:
    case REG_ESR:
        return 0;
    case REG_SVR:
        return SVR_WRITABLE;
    case REG_ICR:
        return (uint64_t)BROADCAST_32 << 32 | ICR_WRITABLE | ICR_STATUS;
    case REG_INITIAL_COUNT:
        return 0xffffffff;
    case REG_DIVIDE:
        return DIVIDE_WRITABLE;
    default:
        return lvt_writable(lvt_index(reg)) | lvt_read_only(lvt_index(reg));
    }
}

static __attribute__((noinline)) enum status msr_write_slow(struct lapic *l, uint32_t msr, uint64_t value)
{
    if (msr == LAPIC_MSR_APIC_BASE)
        return lapic_base_write(l, value);
    uint32_t reg = msr - LAPIC_MSR_X2APIC_FIRST;
    if (!lapic_is_x2apic(l) || reg >= REG_COUNT || !(X2APIC_WRITABLE >> reg & 1) ||
        (value & ~x2apic_allowed(reg)))
        return ERR_INVALID;
    if (reg == REG_ICR) {
        l->icr_lo = (uint32_t)value & ICR_WRITABLE;
        l->icr_hi = (uint32_t)(value >> 32);
        ipi_send(l, l->icr_lo, l->icr_hi, true);
    } else if (reg == REG_SELF_IPI) {
        self_ipi_write(l, (uint8_t)value);
    } else {
        reg_write(l, reg, (uint32_t)value);
    }
    return STATUS_OK;
}

/* The three that every guest writes all the time come first, on a path without stack frames. */
enum status lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
    if (msr == LAPIC_MSR_TSC_DEADLINE)
        return lapic_tsc_deadline_write(l, value);
    if (msr == LAPIC_MSR_X2APIC_FIRST + REG_EOI && value == 0 && lapic_is_x2apic(l)) {
        end_of_interrupt(l);
        return STATUS_OK;
    }
    if (msr == LAPIC_MSR_X2APIC_FIRST + REG_SELF_IPI && value - FIRST_LEGAL <= 0xff - FIRST_LEGAL &&
        lapic_is_x2apic(l) && (l->svr & SVR_ENABLE)) {
        irr_set(l, (uint32_t)value, false);
        changed(l);
        return STATUS_OK;
    }
    return msr_write_slow(l, msr, value);
}

enum status lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
    if (msr == LAPIC_MSR_APIC_BASE) {
        *value = l->base_msr;
        return STATUS_OK;
    }
    if (msr == LAPIC_MSR_TSC_DEADLINE) {
        *value = lapic_tsc_deadline_read(l);
        return STATUS_OK;
    }
    uint32_t reg = msr - LAPIC_MSR_X2APIC_FIRST;
    if (!lapic_is_x2apic(l) || reg >= REG_COUNT || !(X2APIC_READABLE >> reg & 1))
        return ERR_INVALID;
    *value = reg_read(l, reg, true);
    if (reg == REG_ICR)
        *value |= (uint64_t)l->icr_hi << 32;
    return STATUS_OK;
}

/* ---- reset and modes ---- */

/* "Local APIC State After Power-Up or Reset". */
static void registers_reset(struct lapic *l)
{
    __atomic_store_n(&l->svr, SVR_RESET, __ATOMIC_SEQ_CST); /* first: nothing is accepted from here on */
    __atomic_store_n(&l->irr_summary, 0,
                     __ATOMIC_SEQ_CST); /* before IRR, or a late post could lose its summary */
    for (unsigned i = 0; i < 8; i++) {
        __atomic_store_n(&l->irr[i], 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&l->tmr[i], 0, __ATOMIC_SEQ_CST);
        l->isr[i] = 0;
    }
    for (unsigned i = 0; i < LVT_COUNT; i++)
        __atomic_store_n(&l->lvt[i], LVT_MASKED, __ATOMIC_RELAXED);
    __atomic_store_n(&l->ldr, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&l->dfr, ~0u, __ATOMIC_RELAXED);
    __atomic_store_n(&l->esr_pending, 0, __ATOMIC_SEQ_CST);
    l->isr_summary = 0;
    l->highest_isr = 0;
    l->tpr = l->esr = l->icr_lo = l->icr_hi = l->divide = 0;
    timer_disarm(l);
    changed(l);
}

void lapic_init(struct lapic *l, const struct lapic_env *env, uint32_t id, bool is_bsp, uint64_t timer_hz,
                uint64_t tsc_hz)
{
    *l =
        (struct lapic){.env = env, .id = id, .is_bsp = is_bsp, .maxphyaddr = 36, .deadline_tsc = LAPIC_NEVER};
    l->tsc_per_tick = ratio_make(tsc_hz, timer_hz);
    l->ticks_per_tsc = ratio_make(timer_hz, tsc_hz);
    lapic_reset(l);
}

void lapic_set_maxphyaddr(struct lapic *l, unsigned bits)
{
    l->maxphyaddr = (uint8_t)bits;
}

void lapic_hide_x2apic(struct lapic *l)
{
    l->no_x2apic = true;
}

void lapic_reset(struct lapic *l)
{
    uint64_t base = LAPIC_BASE_DEFAULT | APIC_BASE_ENABLE | (l->is_bsp ? APIC_BASE_BSP : 0);
    __atomic_store_n(&l->base_msr, base, __ATOMIC_RELAXED);
    registers_reset(l);
}

void lapic_init_signal(struct lapic *l)
{
    registers_reset(l);
}

/* "x2APIC State Transitions": x2APIC is entered from xAPIC only, and left only by disabling. */
enum status lapic_base_write(struct lapic *l, uint64_t value)
{
    uint64_t allowed = bits_get(~0ull, l->maxphyaddr - 1, 0) & ~PAGE_MASK;
    allowed |= BASE_FLAGS & ~(l->no_x2apic ? APIC_BASE_X2APIC : 0);
    if (value & ~allowed)
        return ERR_INVALID;
    bool enable = value & APIC_BASE_ENABLE, x2apic = value & APIC_BASE_X2APIC;
    bool was_enabled = l->base_msr & APIC_BASE_ENABLE, was_x2apic = l->base_msr & APIC_BASE_X2APIC;
    if (x2apic && !(enable && was_enabled))
        return ERR_INVALID; /* the invalid state, or straight from disabled */
    if (was_x2apic && enable && !x2apic)
        return ERR_INVALID; /* x2APIC -> xAPIC */
    __atomic_store_n(&l->base_msr, value, __ATOMIC_RELAXED);
    if (!enable && was_enabled)
        registers_reset(l); /* "Enabling or Disabling the Local APIC": its state is lost */
    return STATUS_OK;
}

/* Disabled by IA32_APIC_BASE, LINT0 and LINT1 are the processor's plain INTR and NMI pins. */
static bool lint_accepts(const struct lapic *l, unsigned index, enum lapic_mode mode)
{
    if (!(__atomic_load_n(&l->base_msr, __ATOMIC_RELAXED) & APIC_BASE_ENABLE))
        return true;
    uint32_t lvt = __atomic_load_n(&l->lvt[index], __ATOMIC_RELAXED);
    return (lvt & (LVT_MODE | LVT_MASKED)) == (uint32_t)mode << LVT_MODE_SHIFT;
}

bool lapic_accepts_extint(const struct lapic *l)
{
    return lint_accepts(l, LVT_LINT0, LAPIC_EXTINT);
}

bool lapic_accepts_nmi_lint1(const struct lapic *l)
{
    return lint_accepts(l, LVT_LINT1, LAPIC_NMI);
}
