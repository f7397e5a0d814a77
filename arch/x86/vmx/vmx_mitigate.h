/* Which speculation mitigations this processor calls for, at the border between host and guest. Pure. */
#pragma once

#include "hv/lib/types.h"

/* The host's answers: CPUID.1.EAX, CPUID.(7,0).EDX and CPUID.(7,2).EDX (0 when the leaf does not exist), and
 * IA32_ARCH_CAPABILITIES (0 likewise). */
struct vmx_mitigate_inputs {
    uint32_t cpuid_1_eax;
    uint32_t cpuid_7_edx, cpuid_7_2_edx;
    uint64_t arch_capabilities;
};

/* The core is always compiled with retpolines. */
struct vmx_mitigations {
    bool fill_rsb; /* at every exit: a guest's return predictions must not steer the host's returns */
    bool verw;     /* at every entry: VERW empties buffers that leak what the host handled (MDS, TAA, RFDS) */
    bool flush_l1d; /* when a vCPU comes to a CPU: L1TF */
    bool ibpb;      /* when a vCPU comes to a CPU: another guest's branch predictions */
    bool ibrs_all;  /* enhanced IBRS: on while the host runs */
    bool spec_ctrl; /* IA32_SPEC_CTRL exists: the guest has its own */
    bool bhi_dis_s; /* while the host runs: its branches do not go by the guest's branch history (BHI) */
    bool
        rrsba_dis_s; /* while the host runs: returns are not predicted like jumps, which retpolines rely on */
    bool clear_bhb;  /* at every exit, where the processor has neither: the branch history is overwritten */
    bool nx_large; /* large pages of guests are not executable (struct ept): CVE-2018-12207, iTLB multihit */
};

struct vmx_mitigations vmx_mitigate_decide(const struct vmx_mitigate_inputs *in);
/* Is this one of the processors that iTLB multihit brings down? */
bool vmx_mitigate_multihit(uint32_t cpuid_1_eax, uint64_t arch_capabilities);
/* "retpolines, RSB filling, ..."; returns the length. */
size_t vmx_mitigate_describe(const struct vmx_mitigations *m, char *buf, size_t size);
