/* The vendor seam's view of the VMCS: registers, segments, events. */
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_bitmaps.h"
#include "arch/x86/vmx/vmx_hw.h"
#include "hv/vm.h"

/* Registers that are one VMCS field, nothing more. 0: needs thought, see get_special(). */
static const uint16_t fields[VIRT_REG_COUNT] = {
    [VIRT_RIP] = 0x681e,         [VIRT_RSP] = 0x681c,          [VIRT_RFLAGS] = 0x6820,
    [VIRT_CR3] = 0x6802,         [VIRT_PAT] = 0x2804,          [VIRT_DR7] = 0x681a,
    [VIRT_SYSENTER_CS] = 0x482a, [VIRT_SYSENTER_ESP] = 0x6824, [VIRT_SYSENTER_EIP] = 0x6826,
    [VIRT_GDTR_BASE] = 0x6816,   [VIRT_GDTR_LIMIT] = 0x4810,   [VIRT_IDTR_BASE] = 0x6818,
    [VIRT_IDTR_LIMIT] = 0x4812,  [VIRT_INTR_SHADOW] = 0x4824,  [VIRT_PENDING_DEBUG] = 0x6822,
    [VIRT_ACTIVITY] = 0x4826,    [VIRT_TSC_OFFSET] = 0x2010,   [VIRT_PDPTE0] = 0x280a,
    [VIRT_PDPTE1] = 0x280c,      [VIRT_PDPTE2] = 0x280e,       [VIRT_PDPTE3] = 0x2810,
};

static uint64_t get_special(struct vcpu *vcpu, enum virt_reg reg)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    switch (reg) {
    case VIRT_CR0:
        return vmx_cr_guest_view(&v->cr0, vmcs_read(VMCS_GUEST_CR0), vmcs_read(VMCS_CR0_SHADOW));
    case VIRT_CR4:
        return vmx_cr_guest_view(&v->cr4, vmcs_read(VMCS_GUEST_CR4), vmcs_read(VMCS_CR4_SHADOW));
    case VIRT_EFER:
        return vmcs_read(VMCS_GUEST_EFER);
    case VIRT_CR2:
        return cpu_read_cr2();
    case VIRT_PKRU:
        return cpu_rdpkru();
    case VIRT_DR0:
        return cpu_read_dr0();
    case VIRT_DR1:
        return cpu_read_dr1();
    case VIRT_DR2:
        return cpu_read_dr2();
    case VIRT_DR3:
        return cpu_read_dr3();
    case VIRT_DR6:
        return cpu_read_dr6();
    default:
        host_panic("virt_get: register %d", reg);
    }
}

uint64_t virt_get(struct vcpu *vcpu, enum virt_reg reg)
{
    uint16_t field = fields[reg];
    return __builtin_expect(field != 0, 1) ? vmcs_read(VMCS_FIELD(field)) : get_special(vcpu, reg);
}

static void set_entry_controls(struct vmx_vcpu *v, uint32_t entry)
{
    if (v->entry == entry)
        return;
    v->entry = entry;
    vmcs_write(VMCS_ENTRY_CONTROLS, entry);
}

static void set_special(struct vcpu *vcpu, enum virt_reg reg, uint64_t value)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    switch (reg) {
    case VIRT_CR0:
        vmcs_write(VMCS_GUEST_CR0, vmx_cr_real(&v->cr0, value));
        vmcs_write(VMCS_CR0_SHADOW, vmx_cr_shadow(&v->cr0, value));
        return;
    case VIRT_CR4:
        vmcs_write(VMCS_GUEST_CR4, vmx_cr_real(&v->cr4, value));
        vmcs_write(VMCS_CR4_SHADOW, vmx_cr_shadow(&v->cr4, value));
        return;
    case VIRT_EFER:
        vmcs_write(VMCS_GUEST_EFER, value);
        set_entry_controls(v, value & EFER_LMA ? v->entry | ENTRY_CTL_IA32E_GUEST
                                               : v->entry & ~ENTRY_CTL_IA32E_GUEST);
        return;
    case VIRT_CR2:
        cpu_write_cr2(value);
        return;
    case VIRT_DR0:
        cpu_write_dr0(value);
        return;
    case VIRT_DR1:
        cpu_write_dr1(value);
        return;
    case VIRT_DR2:
        cpu_write_dr2(value);
        return;
    case VIRT_DR3:
        cpu_write_dr3(value);
        return;
    case VIRT_DR6:
        cpu_write_dr6(value);
        return;
    default:
        host_panic("virt_set: register %d", reg);
    }
}

void virt_set(struct vcpu *vcpu, enum virt_reg reg, uint64_t value)
{
    uint16_t field = fields[reg];
    if (__builtin_expect(field != 0, 1))
        vmcs_write(VMCS_FIELD(field), value);
    else
        set_special(vcpu, reg, value);
}

/* The fields of the segments follow each other in enum seg_name's order, two encodings apart. */
static vmcs_field_t seg_field(vmcs_field_t of_es, enum seg_name name)
{
    return VMCS_FIELD(of_es.encoding + 2u * name);
}

struct seg virt_get_seg(struct vcpu *vcpu, enum seg_name name)
{
    (void)vcpu;
    return (struct seg){
        .base = vmcs_read(seg_field(VMCS_GUEST_ES_BASE, name)),
        .limit = (uint32_t)vmcs_read(seg_field(VMCS_GUEST_ES_LIMIT, name)),
        .access = (uint32_t)vmcs_read(seg_field(VMCS_GUEST_ES_ACCESS, name)),
        .selector = (uint16_t)vmcs_read(seg_field(VMCS_GUEST_ES_SELECTOR, name)),
    };
}

uint32_t virt_get_seg_access(struct vcpu *vcpu, enum seg_name name)
{
    (void)vcpu;
    return (uint32_t)vmcs_read(seg_field(VMCS_GUEST_ES_ACCESS, name));
}

void virt_set_seg(struct vcpu *vcpu, enum seg_name name, const struct seg *seg)
{
    (void)vcpu;
    vmcs_write(seg_field(VMCS_GUEST_ES_BASE, name), seg->base);
    vmcs_write(seg_field(VMCS_GUEST_ES_LIMIT, name), seg->limit);
    vmcs_write(seg_field(VMCS_GUEST_ES_ACCESS, name), seg->access);
    vmcs_write(seg_field(VMCS_GUEST_ES_SELECTOR, name), seg->selector);
}

void virt_inject(struct vcpu *vcpu, const struct event *event)
{
    (void)vcpu;
    uint32_t info = INTR_INFO_VALID | ((uint32_t)event->type << INTR_INFO_TYPE_SHIFT) | event->vector;
    if (event->has_error) {
        info |= INTR_INFO_ERROR_VALID;
        vmcs_write(VMCS_ENTRY_EXCEPTION_ERROR, event->error);
    }
    if (event->type >= EVENT_SOFT_INTERRUPT)
        vmcs_write(VMCS_ENTRY_INSN_LEN, event->insn_len);
    vmcs_write(VMCS_ENTRY_INTR_INFO, info);
}

static void set_proc(struct vcpu *vcpu, uint32_t bit, bool on)
{
    struct vmx_vcpu *v = vmx_of(vcpu);
    v->proc = on ? v->proc | bit : v->proc & ~bit;
    vmcs_write(VMCS_PROC_CONTROLS, v->proc);
}

void virt_set_intr_window(struct vcpu *vcpu, bool on)
{
    set_proc(vcpu, PROC_INTERRUPT_WINDOW_EXITING, on);
}

void virt_set_nmi_window(struct vcpu *vcpu, bool on)
{
    set_proc(vcpu, PROC_NMI_WINDOW_EXITING, on);
}

void virt_pass_msr(struct vcpu *vcpu, uint32_t msr, bool read, bool write)
{
    HOST_ASSERT(vmx_msr_bitmap_pass(vmx_of(vcpu)->msr_bitmap, msr, read, write) == STATUS_OK);
}

struct invalidation {
    uint64_t first, second;
};

#define INVVPID_SINGLE 1ull
#define INVEPT_SINGLE  1ull
#define INVEPT_ALL     2ull

void virt_flush_linear(struct vcpu *vcpu)
{
    struct invalidation d = {.first = vcpu->vm->id * VM_MAX_VCPUS + vcpu->id + 1, .second = 0};
    uint64_t type = INVVPID_SINGLE;
    bool failed;
    __asm__ volatile("invvpid %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(type) : "memory");
    HOST_ASSERT(!failed);
}

void virt_flush_nested(struct vcpu *vcpu)
{
    struct invalidation d = {.first = ept_pointer(&vcpu->vm->ept), .second = 0};
    uint64_t type = vmx_host.controls.invept_single ? INVEPT_SINGLE : INVEPT_ALL;
    bool failed;
    __asm__ volatile("invept %1, %2" : "=@ccbe"(failed) : "m"(d), "r"(type) : "memory");
    HOST_ASSERT(!failed);
}

void virt_set_xcr0(struct vcpu *vcpu, uint64_t value)
{
    vcpu->xcr0 = value;
    cpu_xsetbv(0, value);
}

void virt_fxsave(struct vcpu *vcpu, void *image)
{
    (void)vcpu;
    cpu_fxsave64(image);
}

void virt_fxrstor(struct vcpu *vcpu, const void *image)
{
    (void)vcpu;
    cpu_fxrstor64(image);
}

void virt_debug_status(struct vcpu *vcpu, uint64_t bits)
{
    (void)vcpu;
    /* B0..B3, BD, BS as reported; RTM and BUS_LOCK have inverted sense in DR6 (SDM table "exit qualification
     * for debug exceptions"). */
    uint64_t dr6 = cpu_read_dr6() & ~(uint64_t)0xf;
    dr6 |= bits & (0xf | DR6_BD | DR6_BS | DR6_BT);
    cpu_write_dr6(dr6);
    /* Whatever the cause: the handler must be able to reach the debug registers (SDM volume 3, "Debug Control
     * Register (DR7)"). An injected #DB leaves it to us. */
    vmcs_write(VMCS_GUEST_DR7, vmcs_read(VMCS_GUEST_DR7) & ~DR7_GD);
}

void virt_spec_write(struct vcpu *vcpu, uint32_t msr, uint64_t value)
{
    if (msr == MSR_IA32_SPEC_CTRL)
        vmx_of(vcpu)->spec_ctrl = value; /* loaded at the next entry */
    else
        cpu_wrmsr(msr, value);
}

uint64_t virt_spec_read(struct vcpu *vcpu, uint32_t msr)
{
    return msr == MSR_IA32_SPEC_CTRL ? vmx_of(vcpu)->spec_ctrl : 0;
}
