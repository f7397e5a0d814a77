/* What every MSR is inside a VM. The default is #GP. Pure. */
#pragma once

#include "arch/x86/msr.h"
#include "hv/policy/cpuid_policy.h"

enum msr_class {
    MSR_CLASS_GP = 0, /* unknown, or known and refused: #GP(0) */
    MSR_CLASS_LAPIC,  /* IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC registers: lapic_msr_read/write */
    MSR_CLASS_TSC,    /* IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST: the core's TSC offset */
    MSR_CLASS_STORE,  /* emulated: msr_store_read/write do it all */
    MSR_CLASS_VIRT,   /* guest state the hardware keeps: virt_get/virt_set (EFER, PAT, SYSENTER_*, FS/GS base)
                         after   msr_virt_check(); normally passed through, see msr_policy_passed */
    MSR_CLASS_SWITCHED, /* real MSRs switched by the entry path, passed through (STAR.., KERNEL_GS_BASE,
                           TSC_AUX) */
    MSR_CLASS_SPEC,     /* SPEC_CTRL (switched), PRED_CMD, FLUSH_CMD (commands): after msr_spec_check() */
};

/* The class of an MSR. The local APIC's come first, as they are used once per tick or per interrupt; then a
 * table. */
enum msr_class msr_policy_table(uint32_t msr);
static inline enum msr_class msr_policy_class(uint32_t msr)
{
    if (msr == MSR_IA32_TSC_DEADLINE || msr == MSR_IA32_APIC_BASE ||
        (msr >= MSR_IA32_X2APIC_FIRST && msr <= MSR_IA32_X2APIC_LAST))
        return MSR_CLASS_LAPIC;
    return msr_policy_table(msr);
}
const char *msr_policy_name(uint32_t msr); /* SDM name for logs, "?" for an unknown one */

/* MSRs the guest may access without exits, given the switching the core does. */
struct msr_passed {
    uint32_t msr;
    bool read, write;
    bool needs_rdtscp; /* only when cpuid_table.has_rdtscp */
};
const struct msr_passed *msr_policy_passed(size_t *count);

#define MSR_VARIABLE_RANGES 8u
#define MSR_FIXED_RANGES    11u

/* Emulated MSRs of one vCPU. */
struct msr_store {
    uint64_t arch_capabilities; /* sanitized */
    uint64_t bios_sign_id;
    uint64_t platform_info;
    uint64_t misc_enable;
    uint64_t mcg_status;
    uint64_t mtrr_def_type;
    uint64_t mtrr_fixed[MSR_FIXED_RANGES];
    uint64_t mtrr_base[MSR_VARIABLE_RANGES], mtrr_mask[MSR_VARIABLE_RANGES];
    uint64_t phys_mask; /* address bits 12 .. MAXPHYADDR-1 */
    bool has_arch_capabilities, has_xsaves;
};

/* Power-up state. `host_arch_capabilities`: IA32_ARCH_CAPABILITIES of the host (0 when it has none);
 * `microcode`: the host's revision (IA32_BIOS_SIGN_ID bits 63:32). MTRRs come up as firmware leaves them:
 * write-back, the PCI hole and the VGA window uncached. INIT does not touch these MSRs. */
void msr_store_init(struct msr_store *s, const struct cpuid_table *cpuid, uint64_t host_arch_capabilities,
                    uint32_t microcode);
/* STATUS_OK, or anything else = #GP(0). */
enum status msr_store_read(const struct msr_store *s, uint32_t msr, uint64_t *value);
enum status msr_store_write(struct msr_store *s, uint32_t msr, uint64_t value);

/* May the guest write this value to a MSR_CLASS_VIRT register? `old_efer` and `cr0_pg` matter for EFER only
 * (LME may not change with paging on; LMA is read-only: it is ignored in `value`, the caller keeps its own).
 */
enum status msr_virt_check(const struct cpuid_table *cpuid, uint32_t msr, uint64_t value, uint64_t old_efer,
                           bool cr0_pg);
/* May the guest write (or, write = false, read) this MSR_CLASS_SPEC register? */
enum status msr_spec_check(const struct cpuid_table *cpuid, uint32_t msr, bool write, uint64_t value);
