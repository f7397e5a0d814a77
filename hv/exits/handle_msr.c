/* RDMSR and WRMSR. hv/policy/msr_policy.c says what each MSR is; here is what is done about it. */
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "hv/exits/exit_table.h"
#include "hv/lib/log.h"
#include "hv/vm.h"

/* Once for each MSR and direction. */
static void note_unknown(struct vcpu *vcpu, const char *what, uint32_t msr, bool write, uint64_t value)
{
    if (once_first(&vcpu->vm->msrs_seen, msr | (uint64_t)write << 32))
        log_vcpu(LOG_DEBUG, vcpu, "%s of MSR 0x%x (%s), value 0x%llx, refused with #GP", what, msr,
                 msr_policy_name(msr), (unsigned long long)value);
}

/* Which register behind the seam an MSR is; false: a segment base. */
static bool virt_reg_of(uint32_t msr, enum virt_reg *reg)
{
    switch (msr) {
    case MSR_IA32_EFER:
        *reg = VIRT_EFER;
        return true;
    case MSR_IA32_PAT:
        *reg = VIRT_PAT;
        return true;
    case MSR_IA32_SYSENTER_CS:
        *reg = VIRT_SYSENTER_CS;
        return true;
    case MSR_IA32_SYSENTER_ESP:
        *reg = VIRT_SYSENTER_ESP;
        return true;
    case MSR_IA32_SYSENTER_EIP:
        *reg = VIRT_SYSENTER_EIP;
        return true;
    default:
        return false;
    }
}

static enum status virt_read(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    enum virt_reg reg;
    if (virt_reg_of(msr, &reg))
        *value = virt_get(vcpu, reg);
    else if (msr == MSR_IA32_FS_BASE || msr == MSR_IA32_GS_BASE)
        *value = virt_get_seg(vcpu, msr == MSR_IA32_FS_BASE ? SEG_FS : SEG_GS).base;
    else
        return ERR_NOT_FOUND;
    return STATUS_OK;
}

static enum status virt_write(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    uint64_t efer = virt_get(vcpu, VIRT_EFER);
    enum status s = msr_virt_check(&vcpu->vm->cpuid, msr, value, efer, virt_get(vcpu, VIRT_CR0) & CR0_PG);
    if (s != STATUS_OK)
        return s;
    enum virt_reg reg;
    if (msr == MSR_IA32_EFER) {
        virt_set(vcpu, VIRT_EFER, (value & ~EFER_LMA) | (efer & EFER_LMA));
    } else if (virt_reg_of(msr, &reg)) {
        virt_set(vcpu, reg, value);
    } else {
        enum seg_name name = msr == MSR_IA32_FS_BASE ? SEG_FS : SEG_GS;
        struct seg seg = virt_get_seg(vcpu, name);
        seg.base = value;
        virt_set_seg(vcpu, name, &seg);
    }
    return STATUS_OK;
}

static enum status tsc_read(struct vcpu *vcpu, uint32_t msr, uint64_t *value)
{
    *value = msr == MSR_IA32_TSC_ADJUST ? vcpu->tsc_adjust : host_tsc() + vcpu->tsc_offset;
    return STATUS_OK;
}

/* Writing either register moves both (SDM volume 3, "Time-Stamp Counter Adjustment"). */
static enum status tsc_write(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    uint64_t delta =
        msr == MSR_IA32_TSC_ADJUST ? value - vcpu->tsc_adjust : value - (host_tsc() + vcpu->tsc_offset);
    vcpu->tsc_adjust += delta;
    vcpu->tsc_offset += delta;
    virt_set(vcpu, VIRT_TSC_OFFSET, vcpu->tsc_offset);
    lapic_tsc_moved(&vcpu->lapic, (int64_t)delta);
    vcpu_update_deadline(vcpu);
    return STATUS_OK;
}

static enum status read_other(struct vcpu *vcpu, enum msr_class class, uint32_t msr, uint64_t *value)
{
    switch (class) {
    case MSR_CLASS_TSC:
        return tsc_read(vcpu, msr, value);
    case MSR_CLASS_STORE:
        return msr_store_read(&vcpu->msrs, msr, value);
    case MSR_CLASS_VIRT:
        return virt_read(vcpu, msr, value);
    case MSR_CLASS_SPEC:
        if (msr_spec_check(&vcpu->vm->cpuid, msr, false, 0) != STATUS_OK)
            return ERR_INVALID;
        *value = virt_spec_read(vcpu, msr);
        return STATUS_OK;
    default: /* MSR_CLASS_SWITCHED is passed through; the rest is refused */
        return ERR_NOT_FOUND;
    }
}

static enum status write_other(struct vcpu *vcpu, enum msr_class class, uint32_t msr, uint64_t value)
{
    switch (class) {
    case MSR_CLASS_TSC:
        return tsc_write(vcpu, msr, value);
    case MSR_CLASS_STORE:
        return msr_store_write(&vcpu->msrs, msr, value);
    case MSR_CLASS_VIRT:
        return virt_write(vcpu, msr, value);
    case MSR_CLASS_SPEC:
        if (msr_spec_check(&vcpu->vm->cpuid, msr, true, value) != STATUS_OK)
            return ERR_INVALID;
        virt_spec_write(vcpu, msr, value);
        return STATUS_OK;
    default:
        return ERR_NOT_FOUND;
    }
}

struct exit_result handle_rdmsr(struct vcpu *vcpu, const struct exit *exit)
{
    uint32_t msr = (uint32_t)vcpu->gpr[RCX];
    uint64_t value = 0;
    enum msr_class class = msr_policy_class(msr);
    (void)exit;
    enum status s = class == MSR_CLASS_LAPIC ? lapic_msr_read(&vcpu->lapic, msr, &value)
                                             : read_other(vcpu, class, msr, &value);
    if (__builtin_expect(s != STATUS_OK, 0)) {
        note_unknown(vcpu, "RDMSR", msr, false, 0);
        return exit_inject_error(VECTOR_GP, 0);
    }
    vcpu->gpr[RAX] = (uint32_t)value;
    vcpu->gpr[RDX] = value >> 32;
    return exit_advance();
}

struct exit_result handle_wrmsr(struct vcpu *vcpu, const struct exit *exit)
{
    uint32_t msr = (uint32_t)vcpu->gpr[RCX];
    uint64_t value = (vcpu->gpr[RDX] << 32) | (uint32_t)vcpu->gpr[RAX];
    enum msr_class class = msr_policy_class(msr);
    (void)exit;
    enum status s = class == MSR_CLASS_LAPIC ? lapic_msr_write(&vcpu->lapic, msr, value)
                                             : write_other(vcpu, class, msr, value);
    if (__builtin_expect(s != STATUS_OK, 0)) {
        note_unknown(vcpu, "WRMSR", msr, true, value);
        return exit_inject_error(VECTOR_GP, 0);
    }
    return exit_advance();
}
