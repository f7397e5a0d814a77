/* The exit path: snapshot, decode, handle, and back. */
#include "arch/x86/cpu_hw.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_hw.h"
#include "arch/x86/vmx/vmx_raw.h"
#include "hv/lib/log.h"
#include "hv/vm.h"

static void take_more(struct vmx_raw *raw, unsigned needs)
{
    if (needs & VMX_NEED_INSN_INFO)
        raw->insn_info = (uint32_t)vmcs_read(VMCS_EXIT_INSN_INFO);
    if (needs & VMX_NEED_GLA)
        raw->gla = vmcs_read(VMCS_GUEST_LINEAR_ADDRESS);
    if (needs & VMX_NEED_INTR_ERROR)
        raw->intr_error = (uint32_t)vmcs_read(VMCS_EXIT_INTR_ERROR);
    if (needs & VMX_NEED_IDT_ERROR)
        raw->idt_error = (uint32_t)vmcs_read(VMCS_IDT_VECTORING_ERROR);
    if (needs & VMX_NEED_INSN_LEN)
        raw->insn_len = (uint32_t)vmcs_read(VMCS_EXIT_INSN_LEN);
}

/* The rest of the snapshot, and what it means, for any reason. */
static void __attribute__((noinline)) decode_other(struct vmx_raw *raw, struct exit *exit)
{
    unsigned needs = vmx_needs(raw->reason & EXIT_REASON_BASIC);
    if (needs & VMX_NEED_INSN_LEN)
        raw->insn_len = (uint32_t)vmcs_read(VMCS_EXIT_INSN_LEN);
    if (needs & VMX_NEED_QUALIFICATION)
        raw->qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
    if (needs & VMX_NEED_INTR_INFO)
        raw->intr_info = (uint32_t)vmcs_read(VMCS_EXIT_INTR_INFO);
    if (needs & VMX_NEED_IDT_INFO)
        raw->idt_info = (uint32_t)vmcs_read(VMCS_IDT_VECTORING_INFO);
    if (needs & VMX_NEED_GPA)
        raw->gpa = vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS);
    unsigned more = vmx_needs_more(raw, needs) | (needs & (VMX_NEED_INSN_INFO | VMX_NEED_GLA));
    if (more)
        take_more(raw, more);
    vmx_decode(raw, exit);
}

/* The reasons of busy guests have short ways: each reads what vmx_needs() says of it, and decodes it as
 * vmx_decode() would. False: the snapshot contradicts the SDM. */
static inline bool decode_interrupt(struct vmx_raw *raw, struct exit *exit)
{
    vmx_decode_plain(VMX_REASON_EXTERNAL_INTERRUPT, 0, exit);
    raw->intr_info = (uint32_t)vmcs_read(VMCS_EXIT_INTR_INFO);
    return vmx_decode_vector(raw->intr_info, exit);
}

static inline bool decode_port(struct vmx_raw *raw, struct exit *exit)
{
    vmx_decode_plain(VMX_REASON_IO_INSTRUCTION, 0, exit);
    raw->insn_len = (uint32_t)vmcs_read(VMCS_EXIT_INSN_LEN);
    raw->qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
    if (__builtin_expect(raw->qualification & VMX_IO_STRING, 0))
        take_more(raw, VMX_NEED_INSN_INFO | VMX_NEED_GLA);
    return vmx_decode_io(raw, exit);
}

static inline bool decode_violation(struct vmx_raw *raw, struct exit *exit)
{
    vmx_decode_plain(VMX_REASON_EPT_VIOLATION, 0, exit);
    raw->qualification = vmcs_read(VMCS_EXIT_QUALIFICATION);
    raw->idt_info = (uint32_t)vmcs_read(VMCS_IDT_VECTORING_INFO);
    raw->gpa = vmcs_read(VMCS_GUEST_PHYSICAL_ADDRESS);
    raw->gla = vmcs_read(VMCS_GUEST_LINEAR_ADDRESS);
    if (__builtin_expect(raw->idt_info & INTR_INFO_VALID, 0))
        take_more(raw, vmx_needs_more(raw, VMX_NEED_IDT_INFO));
    return vmx_decode_ept_violation(raw, exit);
}

static bool __attribute__((noinline)) decode(struct vmx_raw *raw, struct exit *exit)
{
    if (raw->reason == VMX_REASON_EPT_VIOLATION)
        return decode_violation(raw, exit);
    if (raw->reason == VMX_REASON_IO_INSTRUCTION)
        return decode_port(raw, exit);
    decode_other(raw, exit);
    return true;
}

/* The timer is armed at every entry: the field is a count, and time passes in the host too. It has 32 bits,
 * and a write to it drops the others (SDM volume 3, "VMREAD, VMWRITE, and Encodings of VMCS Fields"): a
 * longer wait ends too early and goes on with the next entry. */
static inline void arm_timer(const struct vcpu *vcpu)
{
    uint64_t now = vcpu->entry_tsc, deadline = vcpu->deadline_tsc;
    uint64_t ticks = deadline > now ? (deadline - now) >> vmx_host.controls.timer_shift : 0;
    vmcs_write(VMCS_PREEMPTION_TIMER, ticks);
}

/* IA32_SPEC_CTRL is the guest's own: taken out first thing after an exit, put back last before an entry. */
static inline void leave_guest_speculation(struct vmx_vcpu *v)
{
    v->spec_ctrl = cpu_rdmsr(MSR_IA32_SPEC_CTRL);
    if (v->spec_ctrl != vmx_host.host_spec_ctrl)
        cpu_wrmsr(MSR_IA32_SPEC_CTRL, vmx_host.host_spec_ctrl);
    __asm__ volatile("lfence"); /* neither branch may be run past speculatively */
}

static inline void enter_guest_speculation(const struct vmx_vcpu *v)
{
    if (v->spec_ctrl != vmx_host.host_spec_ctrl)
        cpu_wrmsr(MSR_IA32_SPEC_CTRL, v->spec_ctrl);
}

/* What vmx_entry.asm knows of struct vcpu and struct recorder_entry. */
STATIC_ASSERT(offsetof(struct vcpu, gpr) == 0, "GPR(n) in vmx_entry.asm");
STATIC_ASSERT(offsetof(struct vcpu, recorder.next) == 0x80, "NEXT_RECORD in vmx_entry.asm");
STATIC_ASSERT(offsetof(struct recorder_entry, rax) == 0x48, "RECORD(n) in vmx_entry.asm");
STATIC_ASSERT(offsetof(struct recorder_entry, rbx) == 0x60, "RECORD(n) in vmx_entry.asm");

bool vmx_handle_exit(struct vcpu *vcpu, struct recorder_entry *entry)
{
    if (vmx_host.mitigate.spec_ctrl)
        leave_guest_speculation(vmx_of(vcpu));
    struct exit exit;
    uint64_t now = cpu_rdtsc();
    recorder_take(&vcpu->recorder, entry);
    entry->tsc = now;
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    entry->raw.reason = reason;
    vcpu->rip = entry->raw.rip = vmcs_read(VMCS_GUEST_RIP);
    if (__builtin_expect(vmx_is_plain(reason), 1)) {
        uint32_t length = vmx_needs(reason) ? (uint32_t)vmcs_read(VMCS_EXIT_INSN_LEN) : 0;
        entry->raw.insn_len = length;
        vmx_decode_plain(reason, length, &exit);
    } else if (!(reason == VMX_REASON_EXTERNAL_INTERRUPT ? decode_interrupt(&entry->raw, &exit)
                                                         : decode(&entry->raw, &exit))) {
        exit.kind = EXIT_UNEXPECTED;
    }
    if (!vcpu_handle_exit(vcpu, &exit, entry))
        return false;
    vcpu->times.host += vcpu->entry_tsc - entry->tsc;
    arm_timer(vcpu);
    if (vmx_host.mitigate.spec_ctrl)
        enter_guest_speculation(vmx_of(vcpu));
    return true;
}

void vmx_entry_failed(struct vcpu *vcpu)
{
    if (vmx_host.mitigate.spec_ctrl)
        leave_guest_speculation(vmx_of(vcpu)); /* it had been put in for the entry */
    uint64_t error = vmcs_read(VMCS_INSTRUCTION_ERROR);
    log_vcpu(LOG_ERROR, vcpu, "VM entry refused, VM-instruction error %llu", (unsigned long long)error);
    virt_explain_entry_failure(vcpu);
    vcpu->stop = STOP_ENTRY_FAILED;
}

void virt_run(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    uint64_t begun = cpu_rdtsc();
    if (!vcpu_prepare_entry(vcpu))
        return;
    vcpu->times.host += vcpu->entry_tsc - begun;
    arm_timer(vcpu);
    bool launched = v->launched;
    v->launched = true;
    if (vmx_host.mitigate.spec_ctrl)
        enter_guest_speculation(v);
    vmx_enter(vcpu, launched);
}
