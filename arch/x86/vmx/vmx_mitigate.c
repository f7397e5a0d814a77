/* Rules: Intel's "Speculative Execution Side Channel Mitigations" and the enumeration in SDM volume 4, table
 * 2-2, IA32_ARCH_CAPABILITIES. */
#include "arch/x86/vmx/vmx_mitigate.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

/* CPUID.(7,0).EDX */
#define EDX_MD_CLEAR  (1u << 10)
#define EDX_IBRS_IBPB (1u << 26)
#define EDX_L1D_FLUSH (1u << 28)

/* IA32_ARCH_CAPABILITIES */
#define CAP_RDCL_NO    BIT(0)
#define CAP_IBRS_ALL   BIT(1)
#define CAP_SKIP_L1DFL BIT(3)
#define CAP_MDS_NO     BIT(5)
#define CAP_TAA_NO     BIT(8)
#define CAP_FBSDP_NO   BIT(14)
#define CAP_FB_CLEAR   BIT(17)
#define CAP_PBRSB_NO   BIT(24)
#define CAP_RFDS_CLEAR BIT(28)

struct vmx_mitigations vmx_mitigate_decide(const struct vmx_mitigate_inputs *in)
{
    uint64_t cap = in->arch_capabilities;
    bool buffers_leak =
        !(cap & CAP_MDS_NO) || !(cap & CAP_TAA_NO) || !(cap & CAP_FBSDP_NO) || (cap & CAP_RFDS_CLEAR);
    return (struct vmx_mitigations){
        /* Enhanced IBRS keeps the guest's predictions out, but for one entry (PBRSB) on most processors that
           have it. */
        .fill_rsb = !((cap & CAP_IBRS_ALL) && (cap & CAP_PBRSB_NO)),
        .verw = ((in->cpuid_7_edx & EDX_MD_CLEAR) || (cap & (CAP_FB_CLEAR | CAP_RFDS_CLEAR))) && buffers_leak,
        .flush_l1d = (in->cpuid_7_edx & EDX_L1D_FLUSH) && !(cap & (CAP_RDCL_NO | CAP_SKIP_L1DFL)),
        .ibpb = in->cpuid_7_edx & EDX_IBRS_IBPB,
        .ibrs_all = (in->cpuid_7_edx & EDX_IBRS_IBPB) && (cap & CAP_IBRS_ALL),
        .spec_ctrl = in->cpuid_7_edx & EDX_IBRS_IBPB,
    };
}

size_t vmx_mitigate_describe(const struct vmx_mitigations *m, char *buf, size_t size)
{
    return fmt_format(buf, size, "retpolines%s%s%s%s%s", m->fill_rsb ? ", RSB filling at exits" : "",
                      m->verw ? ", VERW at entries" : "",
                      m->flush_l1d ? ", L1D flush when a vCPU is loaded" : "",
                      m->ibpb ? ", IBPB when a vCPU is loaded" : "", m->ibrs_all ? ", enhanced IBRS" : "");
}
