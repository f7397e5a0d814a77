/* Which speculation mitigations this processor calls for, at the border between host and guest. Pure. */
#pragma once

#include "hv/lib/types.h"

/* The host's answers: CPUID.(7,0).EDX (0 when the leaf does not exist) and IA32_ARCH_CAPABILITIES (0
 * likewise). */
struct vmx_mitigate_inputs {
    uint32_t cpuid_7_edx;
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
};

struct vmx_mitigations vmx_mitigate_decide(const struct vmx_mitigate_inputs *in);
/* "retpolines, RSB filling, ..."; returns the length. */
size_t vmx_mitigate_describe(const struct vmx_mitigations *m, char *buf, size_t size);
