/* A vCPU's VMCS: creating it, bringing it into a CPU and taking it out. */
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_bitmaps.h"
#include "arch/x86/vmx/vmx_hw.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/vm.h"

#define XSAVE_FTW_OFFSET    4u
#define XSAVE_MXCSR_OFFSET  24u
#define XSAVE_HEADER_OFFSET 512u

/* Exceptions that exit: #DB and #AC, because a guest can make their delivery loop for ever in the processor
 * (CVE-2015-8104, CVE-2015-5307), and #MC, which is the host's. */
#define EXCEPTIONS ((1u << VECTOR_DB) | (1u << VECTOR_AC) | (1u << VECTOR_MC))

void vmcs_write_failed(vmcs_field_t field, uint64_t value)
{
    host_panic("VMWRITE of 0x%llx to field 0x%x failed (instruction error %llu)", (unsigned long long)value,
               field.encoding, (unsigned long long)vmcs_read(VMCS_INSTRUCTION_ERROR));
}

static void vmclear(hpa_t vmcs)
{
    bool failed;
    __asm__ volatile("vmclear %1" : "=@ccbe"(failed) : "m"(vmcs) : "memory");
    HOST_ASSERT(!failed);
}

static void vmptrld(hpa_t vmcs)
{
    bool failed;
    __asm__ volatile("vmptrld %1" : "=@ccbe"(failed) : "m"(vmcs) : "memory");
    HOST_ASSERT(!failed);
}

static void pass_msrs(struct vcpu *vcpu)
{
    size_t count;
    const struct msr_passed *passed = msr_policy_passed(&count);
    for (size_t i = 0; i < count; i++) {
        if (!passed[i].needs_rdtscp || vcpu->vm->cpuid.has_rdtscp)
            virt_pass_msr(vcpu, passed[i].msr, passed[i].read, passed[i].write);
    }
    if (vcpu->vm->cpuid.spec_ctrl_allowed)
        virt_pass_msr(vcpu, MSR_IA32_SPEC_CTRL, true, true);
}

static uint32_t xsave_pages(void)
{
    return (uint32_t)(align_up(vmx_host.xsave_size + 1, PAGE_SIZE) / PAGE_SIZE);
}

void virt_vcpu_destroy(struct vcpu *vcpu)
{
    struct pool *pool = vmx_host.pool;
    struct vmx_vcpu *v = vmx_of(vcpu);
    if (!v)
        return;
    if (v->vmcs.v)
        (void)pool_free(pool, pool_va(pool, v->vmcs));
    if (v->msr_bitmap)
        (void)pool_free(pool, v->msr_bitmap);
    if (v->xsave)
        (void)pool_free_pages(pool, v->xsave, xsave_pages());
    (void)pool_free(pool, v);
    vcpu->backend = NULL;
}

enum status virt_vcpu_create(struct vcpu *vcpu)
{
    struct pool *pool = vmx_host.pool;
    struct vmx_vcpu *v = pool_alloc(pool);
    if (!v)
        return ERR_NO_MEMORY;
    vcpu->backend = v; /* from here on virt_vcpu_destroy() finds what there is */
    uint32_t *vmcs = pool_alloc(pool);
    if (vmcs)
        v->vmcs = pool_hpa(pool, vmcs);
    v->msr_bitmap = pool_alloc(pool);
    v->xsave = pool_alloc_pages(pool, xsave_pages());
    if (!vmcs || !v->msr_bitmap || !v->xsave)
        return ERR_NO_MEMORY;
    STATIC_ASSERT(sizeof(struct vmx_vcpu) <= PAGE_SIZE, "one page");
    *vmcs = vmx_host.controls.revision;
    v->proc = vmx_host.controls.proc;
    v->entry = vmx_host.controls.entry;
    v->cr0 = vmx_cr0_policy(&vmx_host.msrs);
    /* The guest changes CR4 freely within what CPUID offers it; the processor itself checks and flushes. */
    v->cr4 = vmx_cr4_policy(&vmx_host.msrs, vcpu->vm->cpuid.cr4_allowed, vcpu->vm->cpuid.cr4_allowed);
    vmx_msr_bitmap_init(v->msr_bitmap);
    pass_msrs(vcpu);
    return STATUS_OK;
}

void vmx_setup_controls(struct vcpu *vcpu)
{
    const struct vmx_controls *c = &vmx_host.controls;
    struct vmx_vcpu *v = vmx_of(vcpu);
    uint32_t proc2 = c->proc2;
    if (!vcpu->vm->cpuid.has_xsaves)
        proc2 &= ~PROC2_ENABLE_XSAVES;
    vmcs_write(VMCS_PIN_CONTROLS, c->pin);
    vmcs_write(VMCS_PROC_CONTROLS, v->proc); /* with the windows that were asked for */
    vmcs_write(VMCS_PROC2_CONTROLS, proc2);
    if (c->proc & PROC_ACTIVATE_TERTIARY)
        vmcs_write(VMCS_PROC3_CONTROLS, c->proc3);
    vmcs_write(VMCS_EXIT_CONTROLS, c->exit);
    vmcs_write(VMCS_ENTRY_CONTROLS, v->entry); /* as the guest's EFER wants them */
    if (proc2 & PROC2_ENCLS_EXITING)
        vmcs_write(VMCS_ENCLS_EXITING_BITMAP, UINT64_MAX);
    if (proc2 & PROC2_ENCLV_EXITING)
        vmcs_write(VMCS_ENCLV_EXITING_BITMAP, UINT64_MAX);
    if (proc2 & PROC2_INSTRUCTION_TIMEOUT)
        vmcs_write(VMCS_INSTRUCTION_TIMEOUT, 1u << 20);
    if (proc2 & PROC2_ENABLE_XSAVES)
        vmcs_write(VMCS_XSS_EXITING_BITMAP, 0);
    vmcs_write(VMCS_EXCEPTION_BITMAP, EXCEPTIONS);
    vmcs_write(VMCS_PAGE_FAULT_ERROR_MASK, 0);
    vmcs_write(VMCS_PAGE_FAULT_ERROR_MATCH, 0);
    vmcs_write(VMCS_CR3_TARGET_COUNT, 0);
    vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmcs_write(VMCS_ENTRY_INTR_INFO, 0);
    vmcs_write(VMCS_IO_BITMAP_A, vmx_host.io_bitmap_a.v);
    vmcs_write(VMCS_IO_BITMAP_B, vmx_host.io_bitmap_b.v);
    vmcs_write(VMCS_MSR_BITMAPS, pool_hpa(vmx_host.pool, v->msr_bitmap).v);
    vmcs_write(VMCS_EPT_POINTER, ept_pointer(&vcpu->vm->ept));
    vmcs_write(VMCS_VPID, vcpu->vm->id * VM_MAX_VCPUS + vcpu->id + 1);
    vmcs_write(VMCS_LINK_POINTER, UINT64_MAX);
    vmcs_write(VMCS_GUEST_DEBUGCTL, 0);
    vmcs_write(VMCS_CR0_MASK, v->cr0.mask);
    vmcs_write(VMCS_CR4_MASK, v->cr4.mask);
}

void vmx_setup_host(const struct cpu *cpu)
{
    const struct cpu_hw *hw = cpu->hw;
    struct table_register idtr;
    __asm__ volatile("sidt %0" : "=m"(idtr));
    vmcs_write(VMCS_HOST_CR0, cpu_read_cr0());
    vmcs_write(VMCS_HOST_CR3, cpu_read_cr3());
    vmcs_write(VMCS_HOST_CR4, cpu_read_cr4());
    vmcs_write(VMCS_HOST_ES_SELECTOR, SEL_DATA);
    vmcs_write(VMCS_HOST_CS_SELECTOR, SEL_CODE);
    vmcs_write(VMCS_HOST_SS_SELECTOR, SEL_DATA);
    vmcs_write(VMCS_HOST_DS_SELECTOR, SEL_DATA);
    vmcs_write(VMCS_HOST_FS_SELECTOR, 0);
    vmcs_write(VMCS_HOST_GS_SELECTOR, 0);
    vmcs_write(VMCS_HOST_TR_SELECTOR, SEL_TSS);
    vmcs_write(VMCS_HOST_FS_BASE, 0);
    vmcs_write(VMCS_HOST_GS_BASE, (uint64_t)(uintptr_t)cpu);
    vmcs_write(VMCS_HOST_TR_BASE, (uint64_t)(uintptr_t)&hw->tss);
    vmcs_write(VMCS_HOST_GDTR_BASE, (uint64_t)(uintptr_t)hw->gdt);
    vmcs_write(VMCS_HOST_IDTR_BASE, idtr.base);
    vmcs_write(VMCS_HOST_SYSENTER_CS, 0);
    vmcs_write(VMCS_HOST_SYSENTER_ESP, 0);
    vmcs_write(VMCS_HOST_SYSENTER_EIP, 0);
    vmcs_write(VMCS_HOST_EFER, cpu_rdmsr(MSR_IA32_EFER));
    vmcs_write(VMCS_HOST_PAT, cpu_rdmsr(MSR_IA32_PAT));
    vmcs_write(VMCS_HOST_RIP, (uint64_t)(uintptr_t)vmx_exit);
}

/* An XSAVE image that says "initial state" of every component but x87, whose state after power-up is another
 * one than XRSTOR's (SDM volume 1, "Legacy Region of an XSAVE Area"; volume 3, table "IA-32 and Intel 64
 * Processor States Following Power-up, Reset, or INIT"). */
static void clear_extended_state(struct vmx_vcpu *v)
{
    const uint16_t fcw = 0x0040;
    const uint32_t mxcsr = 0x1f80;
    const uint64_t in_image = XSTATE_X87;
    uint8_t *image = v->xsave;
    memset(image, 0, vmx_host.xsave_size);
    memcpy(image, &fcw, sizeof(fcw));
    image[XSAVE_FTW_OFFSET] = 0xff; /* no register is empty: each holds +0.0 */
    memcpy(image + XSAVE_MXCSR_OFFSET, &mxcsr, sizeof(mxcsr));
    memcpy(image + XSAVE_HEADER_OFFSET, &in_image, sizeof(in_image));
}

static uint64_t full_xcr0(void)
{
    return vmx_host.host_xcr0 & ~(XCR0_BNDREGS | XCR0_BNDCSR);
}

static void load_switched_state(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    cpu_wrmsr(MSR_IA32_STAR, v->star);
    cpu_wrmsr(MSR_IA32_LSTAR, v->lstar);
    cpu_wrmsr(MSR_IA32_CSTAR, v->cstar);
    cpu_wrmsr(MSR_IA32_FMASK, v->fmask);
    cpu_wrmsr(MSR_IA32_KERNEL_GS_BASE, v->kernel_gs_base);
    if (vmx_host.has_rdtscp)
        cpu_wrmsr(MSR_IA32_TSC_AUX, v->tsc_aux);
    cpu_write_dr0(v->dr[0]);
    cpu_write_dr1(v->dr[1]);
    cpu_write_dr2(v->dr[2]);
    cpu_write_dr3(v->dr[3]);
    cpu_write_dr6(v->dr6);
    cpu_write_cr2(v->cr2);
    cpu_xsetbv(0, full_xcr0());
    cpu_xrstor64(v->xsave, full_xcr0());
    cpu_xsetbv(0, vcpu->xcr0);
}

void virt_vcpu_load(struct vcpu *vcpu, struct cpu *cpu)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    if (!v->loaded)
        vmclear(v->vmcs);
    vmptrld(v->vmcs);
    v->launched = false;
    v->loaded = true;
    vmx_setup_controls(vcpu);
    vmx_setup_host(cpu);
    load_switched_state(vcpu);
    if (vmx_host.mitigate.ibpb)
        cpu_wrmsr(MSR_IA32_PRED_CMD, 1);
    if (vmx_host.mitigate.flush_l1d)
        cpu_wrmsr(MSR_IA32_FLUSH_CMD, 1);
    cpu->vcpu = vcpu;
    virt_flush_linear(vcpu);
    virt_flush_nested(vcpu);
}

void virt_vcpu_put(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    v->star = cpu_rdmsr(MSR_IA32_STAR);
    v->lstar = cpu_rdmsr(MSR_IA32_LSTAR);
    v->cstar = cpu_rdmsr(MSR_IA32_CSTAR);
    v->fmask = cpu_rdmsr(MSR_IA32_FMASK);
    v->kernel_gs_base = cpu_rdmsr(MSR_IA32_KERNEL_GS_BASE);
    if (vmx_host.has_rdtscp)
        v->tsc_aux = cpu_rdmsr(MSR_IA32_TSC_AUX);
    v->dr[0] = cpu_read_dr0();
    v->dr[1] = cpu_read_dr1();
    v->dr[2] = cpu_read_dr2();
    v->dr[3] = cpu_read_dr3();
    v->dr6 = cpu_read_dr6();
    v->cr2 = cpu_read_cr2();
    cpu_xsetbv(0, full_xcr0());
    cpu_xsave64(v->xsave, full_xcr0());
    vmclear(v->vmcs);
    v->loaded = false;
    cpu_this()->vcpu = NULL;
}

void virt_vcpu_clear(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    v->star = v->lstar = v->cstar = v->fmask = v->kernel_gs_base = v->tsc_aux = 0;
    memset(v->dr, 0, sizeof(v->dr));
    v->dr6 = DR6_RESET;
    v->cr2 = 0;
    v->spec_ctrl = 0;
    clear_extended_state(v);
    load_switched_state(vcpu);
    vmcs_write(VMCS_ENTRY_INTR_INFO, 0);
}
