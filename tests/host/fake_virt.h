/* arch/x86/virt.h for tests: registers in memory, and a record of all that was asked of the hardware. A vCPU
 * needs no preparation: its fake appears, zeroed, with the first call that names it. */
#pragma once

#include "arch/x86/virt.h"

#define FAKE_VCPUS 32u
#define FAKE_SPEC  16u
#define FAKE_PASS  64u

struct fake_msr_pass {
    uint32_t msr;
    bool read, write;
};

struct fake_spec {
    uint32_t msr;
    uint64_t value;
};

struct fake_vcpu {
    const struct vcpu *owner;
    uint64_t reg[VIRT_REG_COUNT];
    struct seg seg[SEG_COUNT];
    unsigned reg_reads[VIRT_REG_COUNT], reg_writes[VIRT_REG_COUNT], seg_reads[SEG_COUNT],
        seg_writes[SEG_COUNT];
    unsigned writes; /* of registers and segments, together */

    struct event inject; /* for the next entry; the test clears `valid` as the entry would */
    unsigned injections; /* virt_inject() calls ... */
    unsigned replaced;   /* ... that replaced an event nobody had delivered */
    bool intr_window, nmi_window;
    unsigned intr_window_calls, nmi_window_calls;

    struct fake_msr_pass passed[FAKE_PASS];
    unsigned passed_count;
    unsigned linear_flushes, nested_flushes;
    unsigned xcr0_writes;  /* the value goes to vcpu->xcr0 */
    uint64_t debug_status; /* bits given to virt_debug_status(), together */
    unsigned debug_calls;
    uint8_t fx[512] __attribute__((aligned(16))); /* virt_fxsave(), virt_fxrstor() */
    struct fake_spec spec[FAKE_SPEC];             /* virt_spec_write(), in order */
    unsigned spec_writes, spec_reads;
    uint64_t spec_value; /* what virt_spec_read() answers */
    unsigned explained, clears, loads, puts, runs, creates, destroys;
    bool loaded;
};

struct fake_virt {
    enum status create_status, init_status, start_status; /* what the calls answer */
    uint64_t arch_capabilities;
    uint32_t microcode;
    struct virt_features features;
    bool has_2m, has_1g;
    unsigned cpu_starts, cpu_stops;
    /* CPUID of the host; NULL: a small built-in processor. */
    void (*cpuid)(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
    /* The guest: what virt_run() does. NULL: one vcpu_prepare_entry(), as for a guest that leaves at once. */
    void (*run)(struct vcpu *vcpu);
};
extern struct fake_virt fake_virt;

/* Forgets every vCPU and restores the answers above. */
void fake_virt_init(void);
/* The fake behind a vCPU. */
struct fake_vcpu *fake_vcpu(const struct vcpu *vcpu);
/* Zeroes the record (counts, injection, log), not the registers. */
void fake_vcpu_forget(const struct vcpu *vcpu);
/* The event for the next entry, and its delivery: it is gone afterwards. */
struct event fake_vcpu_take_event(const struct vcpu *vcpu);
