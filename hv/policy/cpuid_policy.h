/* What CPUID says inside a VM: a consistent, minimal machine. Default deny: a feature is shown only when its
 * bit is in the tables of cpuid_policy.c, which hold nothing whose state is not switched or emulated. Pure.
 */
#pragma once

#include "hv/xstate.h"

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

struct cpuid_leaf {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
};

/* The host's CPUID, as far as the policy looks at it. */
#define CPUID_HOST_MAX 64u
struct cpuid_host {
    uint32_t count;
    struct cpuid_leaf leaves[CPUID_HOST_MAX];
};

/* Captures the leaves of interest; `cpuid` executes the instruction. Leaves above the host's maxima are left
 * out (an Intel CPU would answer with another leaf's data). */
void cpuid_host_capture(struct cpuid_host *out,
                        void (*cpuid)(uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out));
/* The captured leaf, zeros when the host has none. */
struct cpuid_regs cpuid_host_get(const struct cpuid_host *host, uint32_t leaf, uint32_t subleaf);
/* The save-area layout and XCR0 bits of the host. */
void cpuid_host_xstate(const struct cpuid_host *host, struct xstate_layout *layout, uint64_t *xcr0);

/* What the core does for this VM. */
struct cpuid_vm {
    uint32_t vcpu_count;   /* 1..64; one package, each vCPU a core, APIC ID = index */
    uint64_t tsc_hz;       /* of the guest's TSC; 1 MHz .. 100 GHz */
    uint64_t xcr0_allowed; /* XCR0 bits whose state is switched: xstate_allowed() or fewer; 0 hides XSAVE */
    bool xsaves;           /* IA32_XSS (= 0) and XSAVES/XRSTORS are allowed */
    bool spec_ctrl;        /* IA32_SPEC_CTRL/PRED_CMD/FLUSH_CMD are switched or executed for the guest */
    bool rdtscp;           /* the "enable RDTSCP" control is on and IA32_TSC_AUX is switched */
    bool invpcid;          /* the "enable INVPCID" control is on */
    bool no_x2apic;        /* lapic_hide_x2apic() was called */
};

#define CPUID_BASIC_COUNT 0x20u /* leaves 0 .. 0x1f */
#define CPUID_EXT_COUNT   9u    /* 0x80000000 .. 0x80000008 */
#define CPUID_HYPER_COUNT 1u    /* 0x40000000 */
#define CPUID_HYPER_BASE  0x40000000u
#define CPUID_EXT_BASE    0x80000000u
#define CPUID_CACHES      5u /* subleaves of leaf 4 */

/* EBX, ECX, EDX of leaf 0x40000000. */
#define CPUID_SIGNATURE "BulkheadBulk"

struct cpuid_table {
    struct cpuid_regs basic[CPUID_BASIC_COUNT]; /* subleaf 0 where a leaf has subleaves */
    uint8_t kind[CPUID_BASIC_COUNT];            /* private: plain, dynamic, or with subleaves */
    struct cpuid_regs ext[CPUID_EXT_COUNT];
    struct cpuid_regs hyper[CPUID_HYPER_COUNT];
    struct cpuid_regs caches[CPUID_CACHES]; /* leaf 4 */
    struct cpuid_regs features[3];          /* leaf 7 */
    struct cpuid_regs topology[2];          /* leaves 0xB and 0x1F, without EDX */
    struct cpuid_regs xsave1;               /* leaf 0xD, subleaf 1, without EBX */
    struct xstate_layout xstate;            /* leaf 0xD, allowed components only */

    /* What follows from the table, for those who must agree with it. */
    uint64_t xcr0_allowed;
    uint64_t cr4_allowed;       /* bits a guest may set in CR4 */
    uint64_t efer_allowed;      /* bits a guest may set in EFER (LMA included) */
    uint64_t spec_ctrl_allowed; /* bits of IA32_SPEC_CTRL that exist; 0: the MSR does not */
    bool has_pred_cmd, has_flush_cmd, has_arch_capabilities, has_rdtscp, has_xsaves;
    uint8_t phys_bits;   /* guest-physical address width */
    uint64_t crystal_hz; /* leaf 0x15 ECX = input clock of the APIC timer: lapic_init()'s timer_hz */
    uint64_t tsc_hz;     /* as given */
};

/* Per-vCPU state that some leaves show. */
struct cpuid_dynamic {
    uint64_t cr4; /* OSXSAVE, PKE */
    uint64_t xcr0;
    uint32_t apic_id;
    bool apic_enabled; /* IA32_APIC_BASE.EN */
};

void cpuid_policy_build(const struct cpuid_host *host, const struct cpuid_vm *vm, struct cpuid_table *out);
/* Answers one CPUID; unknown leaves are all zeros. About 30 instructions for the common ones. */
void cpuid_policy_get(const struct cpuid_table *table, uint32_t leaf, uint32_t subleaf,
                      const struct cpuid_dynamic *state, struct cpuid_regs *out);
