/* Shared by the files of the VMX backend. */
#pragma once

#include "arch/x86/vmx/vmcs.h"
#include "arch/x86/vmx/vmx_caps.h"
#include "arch/x86/vmx/vmx_mitigate.h"
#include "hv/pool.h"
#include "hv/vcpu.h"

/* The backend's part of a vCPU. */
struct vmx_vcpu {
    hpa_t vmcs;
    uint8_t *msr_bitmap; /* one page */
    void *xsave;         /* extended state while not loaded */
    bool launched;       /* VMLAUNCH was done since the VMCS was last cleared */
    bool loaded;
    uint32_t proc;  /* primary controls as they stand in the VMCS */
    uint32_t entry; /* VM-entry controls as they stand in the VMCS */
    struct vmx_cr_policy cr0, cr4;
    /* MSRs that the guest owns while loaded, kept here while not. */
    uint64_t star, lstar, cstar, fmask, kernel_gs_base, tsc_aux, spec_ctrl;
    uint64_t dr[4], dr6, cr2;
};

/* What vmx_cpu_hw.c found out; constant after virt_init(). */
struct vmx_host {
    struct pool *pool;
    struct vmx_caps_msrs msrs;
    struct vmx_controls controls;
    uint64_t host_xcr0;  /* all that the host's CPUID allows */
    uint32_t xsave_size; /* bytes of an area for it */
    bool has_xsave;      /* required: false only until virt_init() has looked */
    bool has_rdtscp;
    struct vmx_mitigations mitigate;
    uint64_t host_spec_ctrl;        /* IA32_SPEC_CTRL while the host runs */
    hpa_t io_bitmap_a, io_bitmap_b; /* all ones, shared by every VM */
};
extern struct vmx_host vmx_host;

static inline struct vmx_vcpu *vmx_of(const struct vcpu *vcpu)
{
    return vcpu->backend;
}

static inline uint64_t vmcs_read(vmcs_field_t field)
{
    uint64_t value;
    __asm__ volatile("vmread %1, %0" : "=r"(value) : "r"((uint64_t)field.encoding) : "cc");
    return value;
}

void vmcs_write_failed(vmcs_field_t field, uint64_t value) __attribute__((noreturn, cold));

static inline void vmcs_write(vmcs_field_t field, uint64_t value)
{
    bool failed;
    __asm__ volatile("vmwrite %2, %1"
                     : "=@ccbe"(failed)
                     : "r"((uint64_t)field.encoding), "r"(value)
                     : "memory");
    if (__builtin_expect(failed, 0))
        vmcs_write_failed(field, value);
}

/* In vmx_entry.asm. */
void vmx_enter(struct vcpu *vcpu, bool launched);
void vmx_exit(void);
/* What vmx_entry.asm does at each exit, and whether it executes VERW at each entry. */
#define VMX_EXIT_FILL_RSB  1u
#define VMX_EXIT_CLEAR_BHB 2u
extern uint8_t vmx_exit_flags;
extern bool vmx_entry_verw;
/* Called from there. `entry` is vcpu->recorder.next with the registers in it. */
bool vmx_handle_exit(struct vcpu *vcpu, struct recorder_entry *entry);
void vmx_entry_failed(struct vcpu *vcpu);

/* Fills a new VMCS: controls, host state of `cpu`. The VMCS is current. */
void vmx_setup_controls(struct vcpu *vcpu);
void vmx_setup_host(const struct cpu *cpu);
