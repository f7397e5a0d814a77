/* The vendor seam: all that hv/ asks of the virtualization hardware. VT-x (arch/x86/vmx/) is the first backend;
 * tests link tests/host/fake_virt.c instead. Every function acts on the vCPU that is loaded on this CPU. */
#pragma once

#include "hv/exit.h"

struct vcpu;

/* Registers that the hardware keeps across exits. General registers but RSP are in vcpu->gpr. */
enum virt_reg {
    VIRT_RIP, VIRT_RSP, VIRT_RFLAGS,
    VIRT_CR0, VIRT_CR3, VIRT_CR4, /* as the guest sees them (shadow bits merged) */
    VIRT_EFER, VIRT_PAT, VIRT_DR7,
    VIRT_SYSENTER_CS, VIRT_SYSENTER_ESP, VIRT_SYSENTER_EIP,
    VIRT_GDTR_BASE, VIRT_GDTR_LIMIT, VIRT_IDTR_BASE, VIRT_IDTR_LIMIT,
    VIRT_INTR_SHADOW,   /* bit 0 STI, 1 MOV SS, 3 NMI blocked: SDM 25.4.2 "interruptibility state" */
    VIRT_PENDING_DEBUG, /* pending debug exceptions */
    VIRT_ACTIVITY,      /* enum virt_activity */
    VIRT_TSC_OFFSET,
    VIRT_REG_COUNT
};

enum virt_activity { VIRT_ACTIVE, VIRT_HALTED, VIRT_SHUTDOWN, VIRT_WAIT_SIPI };

enum seg_name { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* A segment register with its hidden part. `access` in VMX format: bits 7:0 type/S/DPL/P, 12 AVL, 13 L, 14 D/B,
 * 15 G, 16 unusable. */
struct seg {
    uint64_t base;
    uint32_t limit; /* bytes - 1, granularity applied */
    uint32_t access;
    uint16_t selector;
};
#define SEG_ACCESS_L        (1u << 13)
#define SEG_ACCESS_DB       (1u << 14)
#define SEG_ACCESS_UNUSABLE (1u << 16)

uint64_t virt_get(struct vcpu *vcpu, enum virt_reg reg);
void virt_set(struct vcpu *vcpu, enum virt_reg reg, uint64_t value);
struct seg virt_get_seg(struct vcpu *vcpu, enum seg_name name);
void virt_set_seg(struct vcpu *vcpu, enum seg_name name, const struct seg *seg);

/* Event to deliver at the next entry. At most one; a second call replaces the first. */
void virt_inject(struct vcpu *vcpu, const struct event *event);
/* Ask for an exit when the guest can take an interrupt / an NMI. */
void virt_set_intr_window(struct vcpu *vcpu, bool on);
void virt_set_nmi_window(struct vcpu *vcpu, bool on);
/* Arm the preemption timer: exit when the TSC (host's) reaches `tsc`; UINT64_MAX = off. */
void virt_set_timer(struct vcpu *vcpu, uint64_t tsc);
/* Lets the guest read and write this MSR without exits (state that the entry path switches), or not. */
void virt_pass_msr(struct vcpu *vcpu, uint32_t msr, bool read, bool write);
/* Invalidate the guest's cached translations: linear (VPID) or nested (EPT). */
void virt_flush_linear(struct vcpu *vcpu);
void virt_flush_nested(struct vcpu *vcpu);
