/* Rules: Intel's "Speculative Execution Side Channel Mitigations" and the enumeration in SDM volume 4, table
 * 2-2, IA32_ARCH_CAPABILITIES. */
#include "arch/x86/vmx/vmx_mitigate.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

/* CPUID.(7,0).EDX */
#define EDX_MD_CLEAR  (1u << 10)
#define EDX_IBRS_IBPB (1u << 26)
#define EDX_L1D_FLUSH (1u << 28)

/* CPUID.(7,2).EDX */
#define EDX2_RRSBA_CTRL (1u << 2)
#define EDX2_BHI_CTRL   (1u << 4)

/* IA32_ARCH_CAPABILITIES */
#define CAP_RDCL_NO        BIT(0)
#define CAP_IBRS_ALL       BIT(1)
#define CAP_SKIP_L1DFL     BIT(3)
#define CAP_MDS_NO         BIT(5)
#define CAP_PSCHANGE_MC_NO BIT(6)
#define CAP_TAA_NO         BIT(8)
#define CAP_FBSDP_NO       BIT(14)
#define CAP_FB_CLEAR       BIT(17)
#define CAP_BHI_NO         BIT(20)
#define CAP_PBRSB_NO       BIT(24)
#define CAP_RFDS_CLEAR     BIT(28)

/* Processors of family 6 on which changing the size of a page that code is fetched from does no harm, though
 * they do not say so (Intel, "Machine Check Error Avoidance on Page Size Change", list of processors): Atoms
 * and Xeon Phi. */
static const uint8_t no_multihit[] = {
    0x1c, 0x26, 0x27, 0x35, 0x36,       /* Bonnell, Saltwell */
    0x37, 0x4a, 0x4c, 0x4d, 0x5a, 0x5d, /* Silvermont, Airmont */
    0x5c, 0x5f, 0x7a,                   /* Goldmont, Goldmont Plus */
    0x86, 0x96, 0x9c,                   /* Tremont */
    0x57, 0x85,                         /* Knights Landing, Knights Mill */
};

bool vmx_mitigate_multihit(uint32_t cpuid_1_eax, uint64_t arch_capabilities)
{
    uint32_t family = cpuid_1_eax >> 8 & 0xf;
    uint32_t model = (cpuid_1_eax >> 4 & 0xf) | (cpuid_1_eax >> 12 & 0xf0);
    if (arch_capabilities & CAP_PSCHANGE_MC_NO)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(no_multihit); i++)
        if (family == 6 && model == no_multihit[i])
            return false;
    return true;
}

struct vmx_mitigations vmx_mitigate_decide(const struct vmx_mitigate_inputs *in)
{
    uint64_t cap = in->arch_capabilities;
    bool buffers_leak =
        !(cap & CAP_MDS_NO) || !(cap & CAP_TAA_NO) || !(cap & CAP_FBSDP_NO) || (cap & CAP_RFDS_CLEAR);
    /* Without enhanced IBRS, retpolines leave no branch that a history could steer. */
    bool bhi = (in->cpuid_7_edx & EDX_IBRS_IBPB) && (cap & CAP_IBRS_ALL) && !(cap & CAP_BHI_NO);
    return (struct vmx_mitigations){
        /* Enhanced IBRS keeps the guest's predictions out, but for one entry (PBRSB) on most processors that
           have it. */
        .fill_rsb = !((cap & CAP_IBRS_ALL) && (cap & CAP_PBRSB_NO)),
        .verw = ((in->cpuid_7_edx & EDX_MD_CLEAR) || (cap & (CAP_FB_CLEAR | CAP_RFDS_CLEAR))) && buffers_leak,
        .flush_l1d = (in->cpuid_7_edx & EDX_L1D_FLUSH) && !(cap & (CAP_RDCL_NO | CAP_SKIP_L1DFL)),
        .ibpb = in->cpuid_7_edx & EDX_IBRS_IBPB,
        .ibrs_all = (in->cpuid_7_edx & EDX_IBRS_IBPB) && (cap & CAP_IBRS_ALL),
        .spec_ctrl = in->cpuid_7_edx & EDX_IBRS_IBPB,
        .bhi_dis_s = bhi && (in->cpuid_7_2_edx & EDX2_BHI_CTRL),
        .rrsba_dis_s = bhi && (in->cpuid_7_2_edx & EDX2_RRSBA_CTRL),
        .clear_bhb = bhi && !(in->cpuid_7_2_edx & (EDX2_BHI_CTRL | EDX2_RRSBA_CTRL)),
        .nx_large = vmx_mitigate_multihit(in->cpuid_1_eax, cap),
    };
}

size_t vmx_mitigate_describe(const struct vmx_mitigations *m, char *buf, size_t size)
{
    return fmt_format(buf, size, "retpolines%s%s%s%s%s%s%s%s%s", m->fill_rsb ? ", RSB filling at exits" : "",
                      m->verw ? ", VERW at entries" : "",
                      m->flush_l1d ? ", L1D flush when a vCPU is loaded" : "",
                      m->ibpb ? ", IBPB when a vCPU is loaded" : "", m->ibrs_all ? ", enhanced IBRS" : "",
                      m->bhi_dis_s ? ", BHI_DIS_S" : "", m->rrsba_dis_s ? ", RRSBA_DIS_S" : "",
                      m->clear_bhb ? ", branch history cleared at exits" : "",
                      m->nx_large ? ", guests' code in small pages" : "");
}
