#include "hv/policy/msr_policy.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/guest/layout.h"
#include "hv/lib/string.h"

/* Registers arch/x86/msr.h does not name (SDM volume 4, chapter 2). */
#define MSR_IA32_P5_MC_ADDR 0x000u
#define MSR_IA32_P5_MC_TYPE 0x001u
#define MSR_SMI_COUNT       0x034u
#define X2APIC_COUNT        (MSR_IA32_X2APIC_LAST - MSR_IA32_X2APIC_FIRST + 1)

/* The one table: first register, how many, who answers, name. Rows of class GP are only there for their
 * names. */
#define MSR_ROWS(ROW)                                                                                        \
    ROW(MSR_IA32_P5_MC_ADDR, 1, MSR_CLASS_STORE, "IA32_P5_MC_ADDR")                                          \
    ROW(MSR_IA32_P5_MC_TYPE, 1, MSR_CLASS_STORE, "IA32_P5_MC_TYPE")                                          \
    ROW(MSR_IA32_TSC, 1, MSR_CLASS_TSC, "IA32_TIME_STAMP_COUNTER")                                           \
    ROW(MSR_IA32_PLATFORM_ID, 1, MSR_CLASS_STORE, "IA32_PLATFORM_ID")                                        \
    ROW(MSR_IA32_APIC_BASE, 1, MSR_CLASS_LAPIC, "IA32_APIC_BASE")                                            \
    ROW(MSR_SMI_COUNT, 1, MSR_CLASS_STORE, "MSR_SMI_COUNT")                                                  \
    ROW(MSR_IA32_FEATURE_CONTROL, 1, MSR_CLASS_STORE, "IA32_FEATURE_CONTROL")                                \
    ROW(MSR_IA32_TSC_ADJUST, 1, MSR_CLASS_TSC, "IA32_TSC_ADJUST")                                            \
    ROW(MSR_IA32_SPEC_CTRL, 1, MSR_CLASS_SPEC, "IA32_SPEC_CTRL")                                             \
    ROW(MSR_IA32_PRED_CMD, 1, MSR_CLASS_SPEC, "IA32_PRED_CMD")                                               \
    ROW(MSR_IA32_BIOS_UPDT_TRIG, 1, MSR_CLASS_STORE, "IA32_BIOS_UPDT_TRIG")                                  \
    ROW(MSR_IA32_BIOS_SIGN_ID, 1, MSR_CLASS_STORE, "IA32_BIOS_SIGN_ID")                                      \
    ROW(MSR_PLATFORM_INFO, 1, MSR_CLASS_STORE, "MSR_PLATFORM_INFO")                                          \
    ROW(MSR_IA32_UMWAIT_CONTROL, 1, MSR_CLASS_GP, "IA32_UMWAIT_CONTROL")                                     \
    ROW(MSR_IA32_MPERF, 1, MSR_CLASS_GP, "IA32_MPERF")                                                       \
    ROW(MSR_IA32_APERF, 1, MSR_CLASS_GP, "IA32_APERF")                                                       \
    ROW(MSR_IA32_MTRRCAP, 1, MSR_CLASS_STORE, "IA32_MTRRCAP")                                                \
    ROW(MSR_IA32_ARCH_CAPABILITIES, 1, MSR_CLASS_STORE, "IA32_ARCH_CAPABILITIES")                            \
    ROW(MSR_IA32_FLUSH_CMD, 1, MSR_CLASS_SPEC, "IA32_FLUSH_CMD")                                             \
    ROW(MSR_IA32_TSX_CTRL, 1, MSR_CLASS_GP, "IA32_TSX_CTRL")                                                 \
    ROW(MSR_IA32_SYSENTER_CS, 1, MSR_CLASS_VIRT, "IA32_SYSENTER_CS")                                         \
    ROW(MSR_IA32_SYSENTER_ESP, 1, MSR_CLASS_VIRT, "IA32_SYSENTER_ESP")                                       \
    ROW(MSR_IA32_SYSENTER_EIP, 1, MSR_CLASS_VIRT, "IA32_SYSENTER_EIP")                                       \
    ROW(MSR_IA32_MCG_CAP, 1, MSR_CLASS_STORE, "IA32_MCG_CAP")                                                \
    ROW(MSR_IA32_MCG_STATUS, 1, MSR_CLASS_STORE, "IA32_MCG_STATUS")                                          \
    ROW(MSR_IA32_MCG_CTL, 1, MSR_CLASS_GP, "IA32_MCG_CTL")                                                   \
    ROW(MSR_IA32_PERFEVTSEL0, 1, MSR_CLASS_GP, "IA32_PERFEVTSEL0")                                           \
    ROW(MSR_IA32_PERF_STATUS, 1, MSR_CLASS_GP, "IA32_PERF_STATUS")                                           \
    ROW(MSR_IA32_PERF_CTL, 1, MSR_CLASS_GP, "IA32_PERF_CTL")                                                 \
    ROW(MSR_IA32_CLOCK_MODULATION, 1, MSR_CLASS_GP, "IA32_CLOCK_MODULATION")                                 \
    ROW(MSR_IA32_THERM_INTERRUPT, 1, MSR_CLASS_GP, "IA32_THERM_INTERRUPT")                                   \
    ROW(MSR_IA32_THERM_STATUS, 1, MSR_CLASS_GP, "IA32_THERM_STATUS")                                         \
    ROW(MSR_IA32_MISC_ENABLE, 1, MSR_CLASS_STORE, "IA32_MISC_ENABLE")                                        \
    ROW(MSR_IA32_ENERGY_PERF_BIAS, 1, MSR_CLASS_GP, "IA32_ENERGY_PERF_BIAS")                                 \
    ROW(MSR_IA32_DEBUGCTL, 1, MSR_CLASS_STORE, "IA32_DEBUGCTL")                                              \
    ROW(MSR_IA32_MTRR_PHYSBASE0, 2 * MSR_VARIABLE_RANGES, MSR_CLASS_STORE, "IA32_MTRR_PHYSBASE/MASK")        \
    ROW(MSR_IA32_MTRR_FIX64K_00000, 1, MSR_CLASS_STORE, "IA32_MTRR_FIX64K")                                  \
    ROW(MSR_IA32_MTRR_FIX16K_80000, 2, MSR_CLASS_STORE, "IA32_MTRR_FIX16K")                                  \
    ROW(MSR_IA32_MTRR_FIX4K_C0000, 8, MSR_CLASS_STORE, "IA32_MTRR_FIX4K")                                    \
    ROW(MSR_IA32_PAT, 1, MSR_CLASS_VIRT, "IA32_PAT")                                                         \
    ROW(MSR_IA32_MTRR_DEF_TYPE, 1, MSR_CLASS_STORE, "IA32_MTRR_DEF_TYPE")                                    \
    ROW(MSR_IA32_PERF_CAPABILITIES, 1, MSR_CLASS_GP, "IA32_PERF_CAPABILITIES")                               \
    ROW(MSR_IA32_FIXED_CTR_CTRL, 3, MSR_CLASS_GP, "IA32_FIXED_CTR_CTRL/PERF_GLOBAL_*")                       \
    ROW(MSR_IA32_MC0_CTL, 4 * 32, MSR_CLASS_GP, "IA32_MCi_*")                                                \
    ROW(MSR_IA32_VMX_BASIC, MSR_IA32_VMX_EXIT_CTLS2 - MSR_IA32_VMX_BASIC + 1, MSR_CLASS_GP, "IA32_VMX_*")    \
    ROW(MSR_IA32_U_CET, 1, MSR_CLASS_GP, "IA32_U_CET")                                                       \
    ROW(MSR_IA32_S_CET, 1, MSR_CLASS_GP, "IA32_S_CET")                                                       \
    ROW(MSR_IA32_TSC_DEADLINE, 1, MSR_CLASS_LAPIC, "IA32_TSC_DEADLINE")                                      \
    ROW(MSR_IA32_X2APIC_FIRST, X2APIC_COUNT, MSR_CLASS_LAPIC, "x2APIC")                                      \
    ROW(MSR_IA32_XSS, 1, MSR_CLASS_STORE, "IA32_XSS")                                                        \
    ROW(MSR_IA32_EFER, 1, MSR_CLASS_VIRT, "IA32_EFER")                                                       \
    ROW(MSR_IA32_STAR, 1, MSR_CLASS_SWITCHED, "IA32_STAR")                                                   \
    ROW(MSR_IA32_LSTAR, 1, MSR_CLASS_SWITCHED, "IA32_LSTAR")                                                 \
    ROW(MSR_IA32_CSTAR, 1, MSR_CLASS_SWITCHED, "IA32_CSTAR")                                                 \
    ROW(MSR_IA32_FMASK, 1, MSR_CLASS_SWITCHED, "IA32_FMASK")                                                 \
    ROW(MSR_IA32_FS_BASE, 1, MSR_CLASS_VIRT, "IA32_FS_BASE")                                                 \
    ROW(MSR_IA32_GS_BASE, 1, MSR_CLASS_VIRT, "IA32_GS_BASE")                                                 \
    ROW(MSR_IA32_KERNEL_GS_BASE, 1, MSR_CLASS_SWITCHED, "IA32_KERNEL_GS_BASE")                               \
    ROW(MSR_IA32_TSC_AUX, 1, MSR_CLASS_SWITCHED, "IA32_TSC_AUX")

enum msr_class msr_policy_table(uint32_t msr)
{
    switch (msr) {
#define ROW(first, count, class, name)                                                                       \
    case (first)...(first) + (count)-1:                                                                      \
        return class;
        MSR_ROWS(ROW)
#undef ROW
    default:
        return MSR_CLASS_GP;
    }
}

const char *msr_policy_name(uint32_t msr)
{
    switch (msr) {
#define ROW(first, count, class, name)                                                                       \
    case (first)...(first) + (count)-1:                                                                      \
        return name;
        MSR_ROWS(ROW)
#undef ROW
    default:
        return "?";
    }
}

/* Writes that a CPU checks (canonical addresses, PAT types, reserved bits) are checked by it when they are
 * passed, too. EFER is read-only: LME and LMA are tied to entry controls. */
static const struct msr_passed passed[] = {
    {MSR_IA32_SYSENTER_CS, true, true, false},  {MSR_IA32_SYSENTER_ESP, true, true, false},
    {MSR_IA32_SYSENTER_EIP, true, true, false}, {MSR_IA32_PAT, true, true, false},
    {MSR_IA32_EFER, true, false, false},        {MSR_IA32_STAR, true, true, false},
    {MSR_IA32_LSTAR, true, true, false},        {MSR_IA32_CSTAR, true, true, false},
    {MSR_IA32_FMASK, true, true, false},        {MSR_IA32_FS_BASE, true, true, false},
    {MSR_IA32_GS_BASE, true, true, false},      {MSR_IA32_KERNEL_GS_BASE, true, true, false},
    {MSR_IA32_TSC_AUX, true, true, true},
};

const struct msr_passed *msr_policy_passed(size_t *count)
{
    *count = ARRAY_SIZE(passed);
    return passed;
}

/* ---- emulated registers ---- */

/* Facts a guest may know of the host: which weaknesses its CPU does not have, and what VERW clears. Switches
 * behind other MSRs (TSX_CTRL, FB_CLEAR_CTRL, GDS_CTRL, ...) are not announced. */
#define ARCH_CAP_RFDS_CLEAR BIT(28)
#define ARCH_CAP_SHOWN                                                                                       \
    (ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_RSBA | ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO |              \
     ARCH_CAP_IF_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO |              \
     ARCH_CAP_PSDP_NO | ARCH_CAP_FB_CLEAR | ARCH_CAP_RRSBA | ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO |           \
     ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO | ARCH_CAP_RFDS_CLEAR)

#define MISC_ENABLE_DEFAULT (MISC_ENABLE_FAST_STRING | MISC_ENABLE_BTS_UNAVAIL | MISC_ENABLE_PEBS_UNAVAIL)
/* Kept for the guest and read back (SDM volume 4, table 2-2), but nothing depends on them here: neither
 * thermal control nor SpeedStep is the guest's, MONITOR is not offered, CPUID stays whole and EFER.NXE
 * available. */
#define MISC_ENABLE_WRITABLE                                                                                 \
    (MISC_ENABLE_FAST_STRING | MISC_ENABLE_THERMAL | MISC_ENABLE_SPEEDSTEP | MISC_ENABLE_MWAIT |             \
     MISC_ENABLE_LIMIT_CPUID | MISC_ENABLE_XTPR_OFF | MISC_ENABLE_XD_DISABLE)

#define PLATFORM_INFO_RATIO_SHIFT 8 /* bits 15:8: TSC frequency in units of 100 MHz */
#define BUS_HZ                    100000000ull

#define MTRR_FIXED_WB     0x0606060606060606ull
#define MTRR_FIXED_UC     0ull
#define MTRR_FIXED_VGA    2u /* index of FIX16K_A0000: a0000 .. bffff */
#define MTRR_DEF_WRITABLE ((uint64_t)0xff | MTRR_DEF_TYPE_FE | MTRR_DEF_TYPE_E)
#define MTRR_CAP          (MSR_VARIABLE_RANGES | MTRRCAP_FIX | MTRRCAP_WC)

void msr_store_init(struct msr_store *s, const struct cpuid_table *cpuid, uint64_t host_arch_capabilities,
                    uint32_t microcode)
{
    memset(s, 0, sizeof(*s));
    s->has_arch_capabilities = cpuid->has_arch_capabilities;
    s->has_xsaves = cpuid->has_xsaves;
    if (s->has_arch_capabilities)
        s->arch_capabilities = host_arch_capabilities & ARCH_CAP_SHOWN;
    if (!(cpuid->spec_ctrl_allowed & SPEC_CTRL_IBRS))
        s->arch_capabilities &= ~ARCH_CAP_IBRS_ALL; /* it would send the guest to an MSR that is not there */
    s->bios_sign_id = (uint64_t)microcode << 32;
    s->platform_info = (cpuid->tsc_hz + BUS_HZ / 2) / BUS_HZ % 256 << PLATFORM_INFO_RATIO_SHIFT;
    s->misc_enable = MISC_ENABLE_DEFAULT;
    s->phys_mask = (((uint64_t)1 << cpuid->phys_bits) - 1) & ~PAGE_MASK;
    s->mtrr_def_type = MTRR_DEF_TYPE_E | MTRR_DEF_TYPE_FE | MT_WB;
    for (unsigned i = 0; i < MSR_FIXED_RANGES; i++)
        s->mtrr_fixed[i] = i == MTRR_FIXED_VGA ? MTRR_FIXED_UC : MTRR_FIXED_WB;
    s->mtrr_base[0] = GUEST_PCI_HOLE | MT_UC;
    s->mtrr_mask[0] = (~(GUEST_FOUR_GIB - GUEST_PCI_HOLE - 1) & s->phys_mask) | MTRR_PHYSMASK_VALID;
}

/* Memory types that an MTRR may hold; a PAT entry may be UC- as well. */
static bool mtrr_type_valid(uint64_t type)
{
    return type == MT_UC || type == MT_WC || type == MT_WT || type == MT_WP || type == MT_WB;
}

static bool types_valid(uint64_t eight, bool pat)
{
    for (unsigned i = 0; i < 8; i++) {
        uint64_t type = eight >> (8 * i) & 0xff;
        if (!mtrr_type_valid(type) && !(pat && type == MT_UC_MINUS))
            return false;
    }
    return true;
}

/* Index of a fixed-range MTRR, or -1. */
static int fixed_index(uint32_t msr)
{
    if (msr == MSR_IA32_MTRR_FIX64K_00000)
        return 0;
    if (msr == MSR_IA32_MTRR_FIX16K_80000 || msr == MSR_IA32_MTRR_FIX16K_A0000)
        return 1 + (int)(msr - MSR_IA32_MTRR_FIX16K_80000);
    if (msr >= MSR_IA32_MTRR_FIX4K_C0000 && msr <= MSR_IA32_MTRR_FIX4K_F8000)
        return 3 + (int)(msr - MSR_IA32_MTRR_FIX4K_C0000);
    return -1;
}

/* Number of a variable-range register (base and mask alternate), or -1. */
static int variable_index(uint32_t msr)
{
    uint32_t n = msr - MSR_IA32_MTRR_PHYSBASE0;
    return n < 2 * MSR_VARIABLE_RANGES ? (int)n : -1;
}

static enum status mtrr_read(const struct msr_store *s, uint32_t msr, uint64_t *value)
{
    int n = fixed_index(msr);
    if (n >= 0) {
        *value = s->mtrr_fixed[n];
        return STATUS_OK;
    }
    n = variable_index(msr);
    if (n < 0)
        return ERR_NOT_FOUND;
    *value = n % 2 ? s->mtrr_mask[n / 2] : s->mtrr_base[n / 2];
    return STATUS_OK;
}

/* SDM volume 3, 12.11.2: reserved bits and types. */
static enum status mtrr_write(struct msr_store *s, uint32_t msr, uint64_t value)
{
    int n = fixed_index(msr);
    if (n >= 0) {
        if (!types_valid(value, false))
            return ERR_INVALID;
        s->mtrr_fixed[n] = value;
        return STATUS_OK;
    }
    n = variable_index(msr);
    if (n < 0)
        return ERR_NOT_FOUND;
    if (n % 2) {
        if (value & ~(s->phys_mask | MTRR_PHYSMASK_VALID))
            return ERR_INVALID;
        s->mtrr_mask[n / 2] = value;
    } else {
        if ((value & ~(s->phys_mask | 0xff)) || !mtrr_type_valid(value & 0xff))
            return ERR_INVALID;
        s->mtrr_base[n / 2] = value;
    }
    return STATUS_OK;
}

enum status msr_store_read(const struct msr_store *s, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_IA32_P5_MC_ADDR:
    case MSR_IA32_P5_MC_TYPE:
    case MSR_IA32_PLATFORM_ID:
    case MSR_SMI_COUNT:
    case MSR_IA32_MCG_CAP: /* no banks, no MCG_CTL */
    case MSR_IA32_DEBUGCTL:
        *value = 0;
        return STATUS_OK;
    case MSR_IA32_FEATURE_CONTROL:
        *value = FEATURE_CONTROL_LOCK;
        return STATUS_OK;
    case MSR_IA32_BIOS_SIGN_ID:
        *value = s->bios_sign_id;
        return STATUS_OK;
    case MSR_PLATFORM_INFO:
        *value = s->platform_info;
        return STATUS_OK;
    case MSR_IA32_MTRRCAP:
        *value = MTRR_CAP;
        return STATUS_OK;
    case MSR_IA32_ARCH_CAPABILITIES:
        *value = s->arch_capabilities;
        return s->has_arch_capabilities ? STATUS_OK : ERR_NOT_FOUND;
    case MSR_IA32_MCG_STATUS:
        *value = s->mcg_status;
        return STATUS_OK;
    case MSR_IA32_MISC_ENABLE:
        *value = s->misc_enable;
        return STATUS_OK;
    case MSR_IA32_MTRR_DEF_TYPE:
        *value = s->mtrr_def_type;
        return STATUS_OK;
    case MSR_IA32_XSS:
        *value = 0;
        return s->has_xsaves ? STATUS_OK : ERR_NOT_FOUND;
    default:
        return mtrr_read(s, msr, value);
    }
}

enum status msr_store_write(struct msr_store *s, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case MSR_IA32_P5_MC_ADDR:
    case MSR_IA32_P5_MC_TYPE:
    case MSR_IA32_BIOS_UPDT_TRIG: /* an update that does not take: revisions stay the host's */
    case MSR_IA32_BIOS_SIGN_ID:   /* software clears it before CPUID(1) loads the revision */
        return STATUS_OK;
    case MSR_IA32_DEBUGCTL: /* no branch records, no branch stepping */
        return value == 0 ? STATUS_OK : ERR_UNSUPPORTED;
    case MSR_IA32_MCG_STATUS:
        if (value != 0) /* software may only clear it */
            return ERR_INVALID;
        s->mcg_status = 0;
        return STATUS_OK;
    case MSR_IA32_MISC_ENABLE:
        if ((value ^ s->misc_enable) & ~MISC_ENABLE_WRITABLE)
            return ERR_INVALID;
        s->misc_enable = value;
        return STATUS_OK;
    case MSR_IA32_MTRR_DEF_TYPE:
        if ((value & ~MTRR_DEF_WRITABLE) || !mtrr_type_valid(value & 0xff))
            return ERR_INVALID;
        s->mtrr_def_type = value;
        return STATUS_OK;
    case MSR_IA32_XSS:
        return s->has_xsaves && value == 0 ? STATUS_OK : ERR_INVALID;
    default:
        return mtrr_write(s, msr, value);
    }
}

/* ---- registers the hardware keeps ---- */

enum status msr_virt_check(const struct cpuid_table *cpuid, uint32_t msr, uint64_t value, uint64_t old_efer,
                           bool cr0_pg)
{
    switch (msr) {
    case MSR_IA32_EFER:
        if (value & ~cpuid->efer_allowed)
            return ERR_INVALID;
        return cr0_pg && ((value ^ old_efer) & EFER_LME) ? ERR_INVALID : STATUS_OK;
    case MSR_IA32_PAT:
        return types_valid(value, true) ? STATUS_OK : ERR_INVALID;
    case MSR_IA32_SYSENTER_CS:
        return STATUS_OK; /* bits above 15 are ignored, SDM volume 4 */
    case MSR_IA32_SYSENTER_ESP:
    case MSR_IA32_SYSENTER_EIP:
    case MSR_IA32_FS_BASE:
    case MSR_IA32_GS_BASE:
        return cpu_is_canonical(value) ? STATUS_OK : ERR_INVALID;
    default:
        return ERR_NOT_FOUND;
    }
}

enum status msr_spec_check(const struct cpuid_table *cpuid, uint32_t msr, bool write, uint64_t value)
{
    switch (msr) {
    case MSR_IA32_SPEC_CTRL:
        if (!cpuid->spec_ctrl_allowed)
            return ERR_NOT_FOUND;
        return write && (value & ~cpuid->spec_ctrl_allowed) ? ERR_INVALID : STATUS_OK;
    case MSR_IA32_PRED_CMD:
        return cpuid->has_pred_cmd && write && !(value & ~PRED_CMD_IBPB) ? STATUS_OK : ERR_INVALID;
    case MSR_IA32_FLUSH_CMD:
        return cpuid->has_flush_cmd && write && !(value & ~FLUSH_CMD_L1D_FLUSH) ? STATUS_OK : ERR_INVALID;
    default:
        return ERR_NOT_FOUND;
    }
}
