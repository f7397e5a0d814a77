/* A vCPU's beginnings: power-up, INIT and SIPI. SDM volume 3, table "IA-32 and Intel 64 Processor States
 * Following Power-up, Reset, or INIT". */
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "hv/lib/string.h"
#include "hv/vm.h"

/* Access rights in VMX format: present, and accessed as the hardware wants it. */
#define ACCESS_CODE16 0x009bu
#define ACCESS_DATA16 0x0093u
#define ACCESS_LDT    0x0082u
#define ACCESS_TSS32  0x008bu /* busy: what VM entry asks of TR */
#define LIMIT_64K     0xffffu

#define RESET_CS_SELECTOR 0xf000u
#define RESET_CS_BASE     0xffff0000u
#define RESET_RIP         0xfff0u
#define RESET_CR0         (CR0_CD | CR0_NW | CR0_ET)
#define CR0_KEPT_BY_INIT  (CR0_CD | CR0_NW)
#define RESET_PAT         0x0007040600070406ull
#define RESET_EDX         0x00000600u /* family 6; nothing depends on more */

static void reset_segments(struct vcpu *vcpu)
{
    static const enum seg_name data[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    struct seg seg = {.limit = LIMIT_64K, .access = ACCESS_DATA16};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        virt_set_seg(vcpu, data[i], &seg);
    seg = (struct seg){
        .base = RESET_CS_BASE, .selector = RESET_CS_SELECTOR, .limit = LIMIT_64K, .access = ACCESS_CODE16};
    virt_set_seg(vcpu, SEG_CS, &seg);
    seg = (struct seg){.limit = LIMIT_64K, .access = ACCESS_LDT};
    virt_set_seg(vcpu, SEG_LDTR, &seg);
    seg = (struct seg){.limit = LIMIT_64K, .access = ACCESS_TSS32};
    virt_set_seg(vcpu, SEG_TR, &seg);
}

static void reset_registers(struct vcpu *vcpu, bool init_signal)
{
    uint64_t kept = virt_get(vcpu, VIRT_CR0) & CR0_KEPT_BY_INIT;
    memset(vcpu->gpr, 0, sizeof(vcpu->gpr));
    vcpu->gpr[RDX] = RESET_EDX;
    virt_set(vcpu, VIRT_RSP, 0);
    virt_set(vcpu, VIRT_RIP, RESET_RIP);
    virt_set(vcpu, VIRT_RFLAGS, RFLAGS_FIXED_1);
    virt_set(vcpu, VIRT_EFER, 0);
    virt_set(vcpu, VIRT_CR0, init_signal ? kept | CR0_ET : RESET_CR0);
    virt_set(vcpu, VIRT_CR2, 0);
    virt_set(vcpu, VIRT_CR3, 0);
    virt_set(vcpu, VIRT_CR4, 0);
    for (unsigned i = 0; i < 4; i++)
        virt_set(vcpu, (enum virt_reg)(VIRT_DR0 + i), 0);
    virt_set(vcpu, VIRT_DR6, DR6_RESET);
    virt_set(vcpu, VIRT_DR7, DR7_RESET);
    virt_set(vcpu, VIRT_GDTR_BASE, 0);
    virt_set(vcpu, VIRT_GDTR_LIMIT, LIMIT_64K);
    virt_set(vcpu, VIRT_IDTR_BASE, 0);
    virt_set(vcpu, VIRT_IDTR_LIMIT, LIMIT_64K);
    virt_set(vcpu, VIRT_INTR_SHADOW, 0);
    virt_set(vcpu, VIRT_PENDING_DEBUG, 0);
    for (unsigned i = 0; i < 4; i++)
        virt_set(vcpu, (enum virt_reg)(VIRT_PDPTE0 + i), 0);
}

/* What power-up resets and INIT leaves alone: MSRs, extended state, the TSC. (The local APIC: vm_start()
 * resets all of a VM's before any vCPU runs.) */
static void reset_power_up(struct vcpu *vcpu)
{
    vcpu->tsc_adjust = 0;
    vcpu->tsc_offset = (uint64_t)0 - vcpu->vm->start_tsc;
    virt_set(vcpu, VIRT_TSC_OFFSET, vcpu->tsc_offset);
    virt_set(vcpu, VIRT_PAT, RESET_PAT);
    virt_set(vcpu, VIRT_SYSENTER_CS, 0);
    virt_set(vcpu, VIRT_SYSENTER_ESP, 0);
    virt_set(vcpu, VIRT_SYSENTER_EIP, 0);
    vcpu->xcr0 = XSTATE_X87;
    virt_vcpu_clear(vcpu);
    msr_store_init(&vcpu->msrs, &vcpu->vm->cpuid, virt_host_arch_capabilities(), virt_host_microcode());
    memset(&vcpu->events, 0, sizeof(vcpu->events));
    vcpu->intr_window = false;
    vcpu->nmi_window = false;
    virt_set_intr_window(vcpu, false);
    virt_set_nmi_window(vcpu, false);
    vcpu->fetched = (struct fetch_memo){0}; /* of an earlier life, like the next */
    vcpu->refused_rip = 0;
    vcpu->stop = STOP_NONE;
}

void vcpu_reset(struct vcpu *vcpu, bool init_signal)
{
    reset_segments(vcpu);
    reset_registers(vcpu, init_signal);
    if (init_signal)
        lapic_init_signal(&vcpu->lapic);
    else
        reset_power_up(vcpu);
    /* The boot processor starts at the reset vector, the others wait for a SIPI (SDM volume 3, 9.1.4). */
    enum virt_activity activity = vcpu->id == 0 ? VIRT_ACTIVE : VIRT_WAIT_SIPI;
    vcpu->events.activity = activity;
    virt_set(vcpu, VIRT_ACTIVITY, VIRT_ACTIVE); /* waiting is done in the host */
    virt_flush_linear(vcpu);
    vcpu_request(vcpu, VCPU_REQ_EVENT); /* a vCPU that waits for its SIPI must not enter */
    vcpu_update_deadline(vcpu);
}

void vcpu_start_real_mode(struct vcpu *vcpu, uint16_t segment, uint16_t offset)
{
    struct seg cs = {
        .base = (uint64_t)segment << 4, .selector = segment, .limit = LIMIT_64K, .access = ACCESS_CODE16};
    virt_set_seg(vcpu, SEG_CS, &cs);
    virt_set(vcpu, VIRT_RIP, offset);
    vcpu->events.activity = VIRT_ACTIVE;
    virt_set(vcpu, VIRT_ACTIVITY, VIRT_ACTIVE);
}

void vcpu_start_sipi(struct vcpu *vcpu, uint8_t vector)
{
    vcpu_start_real_mode(vcpu, (uint16_t)(vector << 8), 0); /* at physical address vector << 12 */
}
