/* What this processor's VMX can do, and the controls that Bulkhead runs its guests with. Pure: the capability
 * MSRs come in as numbers (SDM volume 3, appendix A), final control values and a report in words come out.
 * The loader's preflight and the core use the same function, so both say the same. */
#pragma once

#include "hv/lib/types.h"

/* The capability MSRs as read; those that do not exist are 0. */
struct vmx_caps_msrs {
    uint64_t basic, misc, vmcs_enum;
    uint64_t pinbased, procbased, exit, entry; /* low half: allowed-0, high half: allowed-1 */
    uint64_t true_pinbased, true_procbased, true_exit, true_entry; /* when basic says so */
    uint64_t procbased2;        /* low half: allowed-0, high half: allowed-1 */
    uint64_t procbased3, exit2; /* 64 bits of allowed-1 */
    uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    uint64_t ept_vpid, vmfunc;
};

/* Reads every capability MSR that exists on this processor (which ones do is itself told by the MSRs) through
 * rdmsr. CPUID.1:ECX.VMX must be set. */
void vmx_caps_read(struct vmx_caps_msrs *msrs, uint64_t (*rdmsr)(void *ctx, uint32_t msr), void *ctx);

/* Control fields with a 32-bit allowed-0/allowed-1 pair, and the pair in force: the TRUE MSRs where they
 * exist (SDM A.3.1, algorithm 3). Low half: bits that must be 1; high half: bits that may be 1. */
enum vmx_control_set { VMX_SET_PIN, VMX_SET_PROC, VMX_SET_PROC2, VMX_SET_EXIT, VMX_SET_ENTRY, VMX_SET_COUNT };
uint64_t vmx_caps_pair(const struct vmx_caps_msrs *msrs, enum vmx_control_set set);

/* Can VMXON be executed outside SMX (SDM 24.7)? The value of IA32_FEATURE_CONTROL tells. */
enum vmx_lock {
    VMX_LOCK_ENABLED,  /* locked on: ready */
    VMX_LOCK_OPEN,     /* not locked: set VMX_OUTSIDE_SMX and LOCK, then ready */
    VMX_LOCK_DISABLED, /* locked off: only the firmware setup can change it */
};
enum vmx_lock vmx_lock_state(uint64_t feature_control);

/* Final control values for the VMCS, and the facts of the hardware that the backend works with. */
struct vmx_controls {
    uint32_t pin, proc, proc2, exit, entry;
    uint64_t proc3; /* 0: no tertiary control is wanted, so PROC_ACTIVATE_TERTIARY is clear */
    /* Controls that may be set later although they start clear: interrupt and NMI window, IA-32e-mode guest.
     * They are known to be settable both ways. */
    bool ept_2m, ept_1g, ept_exec_only;
    bool invept_single;                        /* else only all-context */
    bool invvpid_address, invvpid_keep_global; /* single-context is required */
    uint8_t timer_shift; /* the preemption timer counts down once every 2^shift TSC ticks */
    uint32_t revision;   /* for the first word of VMXON region and VMCS */
    bool has_wait_sipi;  /* activity state wait-for-SIPI can be entered (SDM A.6) */
};
/* When proc2 has these optional controls, the backend also writes their fields:
 *   PROC2_ENCLS_EXITING, PROC2_ENCLV_EXITING   exiting bitmap all ones (the guest then gets #UD)
 *   PROC2_INSTRUCTION_TIMEOUT                  VMCS_INSTRUCTION_TIMEOUT, in TSC ticks
 *   PROC2_ENABLE_XSAVES                        VMCS_XSS_EXITING_BITMAP */

enum vmx_finding { VMX_FOUND, VMX_MISSING, VMX_ABSENT_OPTIONAL };

/* One line of the report. The strings are static. */
struct vmx_report_line {
    enum vmx_finding finding;
    const char *name;    /* the SDM's name of the control or capability */
    const char *meaning; /* what its absence means, in words */
};

#define VMX_REPORT_MAX 80
struct vmx_caps_report {
    uint32_t count, missing;
    struct vmx_report_line lines[VMX_REPORT_MAX];
};

/* Resolves the controls. STATUS_OK: *out is complete. ERR_UNSUPPORTED: a required one is missing or a control
 * that we do not know is forced on; *out is then all zero. The report (may be NULL) lists every control and
 * capability that was asked for, in a fixed order, in both cases. */
enum status vmx_resolve_controls(const struct vmx_caps_msrs *msrs, struct vmx_controls *out,
                                 struct vmx_caps_report *report);

/* How a control register is shared with the guest (SDM 25.6.6 and 24.8). `mask` is the guest/host mask: where
 * it is 1 the guest reads the shadow and a change exits. */
struct vmx_cr_policy {
    uint64_t mask;
    uint64_t
        settable; /* bits that the guest may have as 1; an attempt to set any other is #GP(0), or ignored */
    uint64_t forced_1; /* always 1 in the real register, whatever the guest sees */
    uint64_t hidden;   /* always 0 in the real register, the guest sees what it wrote */
    uint64_t reads_1;  /* always 1 for the guest */
};

/* CR0 with unrestricted guest: PE and PG may be 0 (CR0_FIXED0 does not bind them), NE must be 1, CD and NW
 * exist only in the guest's view (caching is EPT's business), ET reads as 1. The guest owns MP, EM, TS, WP
 * and AM. */
struct vmx_cr_policy vmx_cr0_policy(const struct vmx_caps_msrs *msrs);
/* CR4: `offered` are the bits this guest may set (from its CPUID), `owned` those of them that it may change
 * without an exit. VMXE is 1 in the real register and hidden from the guest. Bits the processor does not have
 * are dropped. */
struct vmx_cr_policy vmx_cr4_policy(const struct vmx_caps_msrs *msrs, uint64_t offered, uint64_t owned);

/* The guest wrote `value`: what goes into the guest-state field and into the read shadow; and back again. */
uint64_t vmx_cr_real(const struct vmx_cr_policy *policy, uint64_t value);
uint64_t vmx_cr_shadow(const struct vmx_cr_policy *policy, uint64_t value);
static inline uint64_t vmx_cr_guest_view(const struct vmx_cr_policy *policy, uint64_t real, uint64_t shadow)
{
    return (real & ~policy->mask) | (shadow & policy->mask);
}
/* Values that real (host) CR0 and CR4 need for VMXON: `value` with the fixed bits applied (SDM A.7, A.8). */
uint64_t vmx_cr0_for_root(const struct vmx_caps_msrs *msrs, uint64_t value);
uint64_t vmx_cr4_for_root(const struct vmx_caps_msrs *msrs, uint64_t value);
