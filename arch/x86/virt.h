/* The vendor seam: all that hv/ asks of the virtualization hardware. VT-x (arch/x86/vmx/) is the first
 * backend; tests link tests/host/fake_virt.c instead. Every function acts on the vCPU that is loaded on this
 * CPU. */
#pragma once

#include "hv/exits/exit.h"

struct cpu;
struct pool;
struct vcpu;

/* Registers that the hardware keeps across exits. General registers but RSP are in vcpu->gpr. */
enum virt_reg {
    VIRT_RIP,
    VIRT_RSP,
    VIRT_RFLAGS,
    VIRT_CR0,
    VIRT_CR3,
    VIRT_CR4, /* as the guest sees them (shadow bits merged) */
    VIRT_EFER,
    VIRT_PAT,
    VIRT_DR7,
    VIRT_SYSENTER_CS,
    VIRT_SYSENTER_ESP,
    VIRT_SYSENTER_EIP,
    VIRT_GDTR_BASE,
    VIRT_GDTR_LIMIT,
    VIRT_IDTR_BASE,
    VIRT_IDTR_LIMIT,
    VIRT_INTR_SHADOW,   /* bit 0 STI, 1 MOV SS, 3 NMI blocked: SDM 25.4.2 "interruptibility state" */
    VIRT_PENDING_DEBUG, /* pending debug exceptions */
    VIRT_ACTIVITY,      /* enum virt_activity */
    VIRT_TSC_OFFSET,
    VIRT_PDPTE0,
    VIRT_PDPTE1,
    VIRT_PDPTE2,
    VIRT_PDPTE3, /* PAE paging's page-directory-pointer entries */
    VIRT_CR2,
    VIRT_DR0,
    VIRT_DR1,
    VIRT_DR2,
    VIRT_DR3,
    VIRT_DR6,  /* live in the processor while the vCPU is loaded */
    VIRT_PKRU, /* likewise; read-only */
    VIRT_REG_COUNT
};

enum virt_activity { VIRT_ACTIVE, VIRT_HALTED, VIRT_SHUTDOWN, VIRT_WAIT_SIPI };

enum seg_name { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* A segment register with its hidden part. `access` in VMX format: bits 7:0 type/S/DPL/P, 12 AVL, 13 L, 14
 * D/B, 15 G, 16 unusable. */
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
/* Its access rights alone: a quarter of the cost, and in 64-bit mode all that counts of most segments. */
uint32_t virt_get_seg_access(struct vcpu *vcpu, enum seg_name name);
void virt_set_seg(struct vcpu *vcpu, enum seg_name name, const struct seg *seg);

/* Event to deliver at the next entry. At most one; a second call replaces the first. */
void virt_inject(struct vcpu *vcpu, const struct event *event);
/* Ask for an exit when the guest can take an interrupt / an NMI. */
void virt_set_intr_window(struct vcpu *vcpu, bool on);
void virt_set_nmi_window(struct vcpu *vcpu, bool on);
/* Lets the guest read and write this MSR without exits (state that the entry path switches), or not. */
void virt_pass_msr(struct vcpu *vcpu, uint32_t msr, bool read, bool write);
/* Invalidate the guest's cached translations: linear (VPID) or nested (EPT). */
void virt_flush_linear(struct vcpu *vcpu);
void virt_flush_nested(struct vcpu *vcpu);

/* Reads what the hardware can do and decides how to use it; once, on the boot CPU. ERR_UNSUPPORTED with a
 * sentence in `why`. `pool` gives the pages of all later calls. */
enum status virt_init(struct pool *pool, char *why, size_t why_size);
/* Makes this CPU ready to run guests. */
enum status virt_cpu_start(struct cpu *cpu);
/* Leaves that state again, so that the machine can be reset. */
void virt_cpu_stop(struct cpu *cpu);
/* Large pages the nested tables may use. */
void virt_page_sizes(bool *has_2m, bool *has_1g);
/* Allocates the backend's part of a vCPU; its VM's nested tables exist. */
enum status virt_vcpu_create(struct vcpu *vcpu);
/* Gives that back, also after virt_vcpu_create() has failed. The vCPU is not loaded. */
void virt_vcpu_destroy(struct vcpu *vcpu);
/* Brings the vCPU's state into this CPU / takes it out again, registers and extended state included. */
void virt_vcpu_load(struct vcpu *vcpu, struct cpu *cpu);
void virt_vcpu_put(struct vcpu *vcpu);
/* Forgets all state of a loaded vCPU that vcpu_reset() does not set: extended registers, debug and
 * system-call MSRs. */
void virt_vcpu_clear(struct vcpu *vcpu);
/* Runs the loaded vCPU until vcpu_handle_exit() answers false. Exits when the TSC reaches vcpu->deadline_tsc.
 */
void virt_run(struct vcpu *vcpu);
/* An entry of the loaded vCPU has failed: says which rule its state breaks, in the log. */
void virt_explain_entry_failure(struct vcpu *vcpu);
/* CPUID of the host, and single MSRs that the policies want to see (0 when the MSR does not exist). */
void virt_host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t virt_host_arch_capabilities(void);
uint32_t virt_host_microcode(void);
/* What guests can be offered because the backend supports it; nx_large: what struct ept calls so. */
struct virt_features {
    bool spec_ctrl, rdtscp, invpcid, nx_large;
};
struct virt_features virt_features(void);
/* A debug exception with these DR6 bits is about to be delivered: merges them into the guest's DR6 and clears
 * DR7.GD, as the processor does (SDM volume 3, "Debug Exception (#DB)"). */
void virt_debug_status(struct vcpu *vcpu, uint64_t bits);
/* The x87, MMX and XMM registers as FXSAVE64 has them: 512 bytes, aligned to 16. */
void virt_fxsave(struct vcpu *vcpu, void *image);
void virt_fxrstor(struct vcpu *vcpu, const void *image);
/* Extended control register and MSRs that live in the processor while the vCPU is loaded. */
void virt_set_xcr0(struct vcpu *vcpu, uint64_t value);
void virt_spec_write(struct vcpu *vcpu, uint32_t msr, uint64_t value);
uint64_t virt_spec_read(struct vcpu *vcpu, uint32_t msr);
