/* The software twin of the processor's checks at VM entry (SDM volume 3, 27.2 and 27.3): which field breaks
 * which rule. Pure. Meant for entries that have failed, where the processor tells no more than an error
 * number. Rules about the contents of memory that a field points to are left to the processor, except for
 * those given here as values. */
#pragma once

#include "arch/x86/vmx/vmcs.h"
#include "arch/x86/vmx/vmx_caps.h"

/* FIELD(name as in vmcs.h without VMCS_, set and mask of the control that the field comes with; ALWAYS, 0:
 * always) */
#define VMX_CHECK_FIELDS(FIELD)                                                                              \
    FIELD(PIN_CONTROLS, ALWAYS, 0)                                                                           \
    FIELD(PROC_CONTROLS, ALWAYS, 0)                                                                          \
    FIELD(PROC2_CONTROLS, PROC, PROC_ACTIVATE_SECONDARY)                                                     \
    FIELD(PROC3_CONTROLS, PROC, PROC_ACTIVATE_TERTIARY)                                                      \
    FIELD(EXIT_CONTROLS, ALWAYS, 0)                                                                          \
    FIELD(EXIT2_CONTROLS, EXIT, EXIT_CTL_ACTIVATE_SECONDARY)                                                 \
    FIELD(ENTRY_CONTROLS, ALWAYS, 0)                                                                         \
    FIELD(CR3_TARGET_COUNT, ALWAYS, 0)                                                                       \
    FIELD(IO_BITMAP_A, PROC, PROC_USE_IO_BITMAPS)                                                            \
    FIELD(IO_BITMAP_B, PROC, PROC_USE_IO_BITMAPS)                                                            \
    FIELD(MSR_BITMAPS, PROC, PROC_USE_MSR_BITMAPS)                                                           \
    FIELD(TPR_THRESHOLD, PROC, PROC_USE_TPR_SHADOW)                                                          \
    FIELD(VIRTUAL_APIC_ADDRESS, PROC, PROC_USE_TPR_SHADOW)                                                   \
    FIELD(APIC_ACCESS_ADDRESS, PROC2, PROC2_VIRTUALIZE_APIC_ACCESSES)                                        \
    FIELD(POSTED_INTERRUPT_VECTOR, PIN, PIN_POSTED_INTERRUPTS)                                               \
    FIELD(POSTED_INTERRUPT_DESCRIPTOR, PIN, PIN_POSTED_INTERRUPTS)                                           \
    FIELD(VPID, PROC2, PROC2_ENABLE_VPID)                                                                    \
    FIELD(EPT_POINTER, PROC2, PROC2_ENABLE_EPT)                                                              \
    FIELD(PML_ADDRESS, PROC2, PROC2_ENABLE_PML)                                                              \
    FIELD(SPP_TABLE_POINTER, PROC2, PROC2_SUB_PAGE_WRITE)                                                    \
    FIELD(VM_FUNCTION_CONTROLS, PROC2, PROC2_ENABLE_VM_FUNCTIONS)                                            \
    FIELD(EPTP_LIST_ADDRESS, PROC2, PROC2_ENABLE_VM_FUNCTIONS)                                               \
    FIELD(VMREAD_BITMAP, PROC2, PROC2_VMCS_SHADOWING)                                                        \
    FIELD(VMWRITE_BITMAP, PROC2, PROC2_VMCS_SHADOWING)                                                       \
    FIELD(VIRT_EXCEPTION_INFO_ADDRESS, PROC2, PROC2_EPT_VIOLATION_VE)                                        \
    FIELD(TSC_MULTIPLIER, PROC2, PROC2_USE_TSC_SCALING)                                                      \
    FIELD(EXIT_MSR_STORE_COUNT, ALWAYS, 0)                                                                   \
    FIELD(EXIT_MSR_STORE_ADDRESS, ALWAYS, 0)                                                                 \
    FIELD(EXIT_MSR_LOAD_COUNT, ALWAYS, 0)                                                                    \
    FIELD(EXIT_MSR_LOAD_ADDRESS, ALWAYS, 0)                                                                  \
    FIELD(ENTRY_MSR_LOAD_COUNT, ALWAYS, 0)                                                                   \
    FIELD(ENTRY_MSR_LOAD_ADDRESS, ALWAYS, 0)                                                                 \
    FIELD(ENTRY_INTR_INFO, ALWAYS, 0)                                                                        \
    FIELD(ENTRY_EXCEPTION_ERROR, ALWAYS, 0)                                                                  \
    FIELD(ENTRY_INSN_LEN, ALWAYS, 0)                                                                         \
    FIELD(HOST_CR0, ALWAYS, 0)                                                                               \
    FIELD(HOST_CR3, ALWAYS, 0)                                                                               \
    FIELD(HOST_CR4, ALWAYS, 0)                                                                               \
    FIELD(HOST_SYSENTER_ESP, ALWAYS, 0)                                                                      \
    FIELD(HOST_SYSENTER_EIP, ALWAYS, 0)                                                                      \
    FIELD(HOST_PAT, EXIT, EXIT_CTL_LOAD_PAT)                                                                 \
    FIELD(HOST_EFER, EXIT, EXIT_CTL_LOAD_EFER)                                                               \
    FIELD(HOST_S_CET, EXIT, EXIT_CTL_LOAD_CET)                                                               \
    FIELD(HOST_SSP, EXIT, EXIT_CTL_LOAD_CET)                                                                 \
    FIELD(HOST_SSP_TABLE, EXIT, EXIT_CTL_LOAD_CET)                                                           \
    FIELD(HOST_PKRS, EXIT, EXIT_CTL_LOAD_PKRS)                                                               \
    FIELD(HOST_ES_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_CS_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_SS_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_DS_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_FS_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_GS_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_TR_SELECTOR, ALWAYS, 0)                                                                       \
    FIELD(HOST_FS_BASE, ALWAYS, 0)                                                                           \
    FIELD(HOST_GS_BASE, ALWAYS, 0)                                                                           \
    FIELD(HOST_TR_BASE, ALWAYS, 0)                                                                           \
    FIELD(HOST_GDTR_BASE, ALWAYS, 0)                                                                         \
    FIELD(HOST_IDTR_BASE, ALWAYS, 0)                                                                         \
    FIELD(HOST_RIP, ALWAYS, 0)                                                                               \
    FIELD(GUEST_CR0, ALWAYS, 0)                                                                              \
    FIELD(GUEST_CR3, ALWAYS, 0)                                                                              \
    FIELD(GUEST_CR4, ALWAYS, 0)                                                                              \
    FIELD(GUEST_DR7, ALWAYS, 0)                                                                              \
    FIELD(GUEST_DEBUGCTL, ALWAYS, 0)                                                                         \
    FIELD(GUEST_SYSENTER_ESP, ALWAYS, 0)                                                                     \
    FIELD(GUEST_SYSENTER_EIP, ALWAYS, 0)                                                                     \
    FIELD(GUEST_PAT, ENTRY, ENTRY_CTL_LOAD_PAT)                                                              \
    FIELD(GUEST_EFER, ENTRY, ENTRY_CTL_LOAD_EFER)                                                            \
    FIELD(GUEST_BNDCFGS, ENTRY, ENTRY_CTL_LOAD_BNDCFGS)                                                      \
    FIELD(GUEST_S_CET, ENTRY, ENTRY_CTL_LOAD_CET)                                                            \
    FIELD(GUEST_SSP, ENTRY, ENTRY_CTL_LOAD_CET)                                                              \
    FIELD(GUEST_SSP_TABLE, ENTRY, ENTRY_CTL_LOAD_CET)                                                        \
    FIELD(GUEST_PKRS, ENTRY, ENTRY_CTL_LOAD_PKRS)                                                            \
    FIELD(GUEST_ES_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_CS_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_SS_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_DS_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_FS_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_GS_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_LDTR_SELECTOR, ALWAYS, 0)                                                                    \
    FIELD(GUEST_TR_SELECTOR, ALWAYS, 0)                                                                      \
    FIELD(GUEST_ES_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_CS_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_SS_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_DS_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_FS_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_GS_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_LDTR_BASE, ALWAYS, 0)                                                                        \
    FIELD(GUEST_TR_BASE, ALWAYS, 0)                                                                          \
    FIELD(GUEST_ES_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_CS_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_SS_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_DS_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_FS_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_GS_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_LDTR_LIMIT, ALWAYS, 0)                                                                       \
    FIELD(GUEST_TR_LIMIT, ALWAYS, 0)                                                                         \
    FIELD(GUEST_ES_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_CS_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_SS_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_DS_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_FS_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_GS_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_LDTR_ACCESS, ALWAYS, 0)                                                                      \
    FIELD(GUEST_TR_ACCESS, ALWAYS, 0)                                                                        \
    FIELD(GUEST_GDTR_BASE, ALWAYS, 0)                                                                        \
    FIELD(GUEST_GDTR_LIMIT, ALWAYS, 0)                                                                       \
    FIELD(GUEST_IDTR_BASE, ALWAYS, 0)                                                                        \
    FIELD(GUEST_IDTR_LIMIT, ALWAYS, 0)                                                                       \
    FIELD(GUEST_RIP, ALWAYS, 0)                                                                              \
    FIELD(GUEST_RFLAGS, ALWAYS, 0)                                                                           \
    FIELD(GUEST_ACTIVITY, ALWAYS, 0)                                                                         \
    FIELD(GUEST_INTERRUPTIBILITY, ALWAYS, 0)                                                                 \
    FIELD(GUEST_PENDING_DEBUG, ALWAYS, 0)                                                                    \
    FIELD(LINK_POINTER, ALWAYS, 0)                                                                           \
    FIELD(GUEST_PDPTE0, PROC2, PROC2_ENABLE_EPT)                                                             \
    FIELD(GUEST_PDPTE1, PROC2, PROC2_ENABLE_EPT)                                                             \
    FIELD(GUEST_PDPTE2, PROC2, PROC2_ENABLE_EPT)                                                             \
    FIELD(GUEST_PDPTE3, PROC2, PROC2_ENABLE_EPT)

enum vmx_check_field {
#define VMX_CHECK_ENUM(name, set, mask) VMX_F_##name,
    VMX_CHECK_FIELDS(VMX_CHECK_ENUM)
#undef VMX_CHECK_ENUM
        VMX_F_COUNT
};

/* The fields' values, zero-extended; those that do not exist are 0. */
struct vmx_check_state {
    uint64_t value[VMX_F_COUNT];
};

/* What the rules depend on beside the VMCS. */
struct vmx_check_machine {
    const struct vmx_caps_msrs *msrs;
    uint8_t physical_bits;             /* CPUID.80000008H:EAX[7:0] */
    uint8_t linear_bits;               /* CPUID.80000008H:EAX[15:8]: 48 or 57 */
    uint32_t cpuid_7_ebx, cpuid_7_ecx; /* CPUID.07H.0H; 0 when there is no such leaf */
};

/* The rule that is broken. The strings are static. */
struct vmx_check_finding {
    const char *field; /* "GUEST_CS_ACCESS" */
    uint64_t value;
    const char *rule;    /* what has to hold */
    const char *section; /* of SDM volume 3 */
};

/* Fills the state: reads every field that exists on this processor. */
void vmx_check_read(struct vmx_check_state *state, const struct vmx_caps_msrs *msrs,
                    uint64_t (*vmread)(void *ctx, vmcs_field_t field), void *ctx);

/* Checks in the processor's order: controls, host state, guest state. ERR_INVALID: *finding is the first
 * broken rule. STATUS_OK: no rule known here is broken. */
enum status vmx_check(const struct vmx_check_machine *machine, const struct vmx_check_state *state,
                      struct vmx_check_finding *finding);

const char *vmx_check_field_name(enum vmx_check_field field);
vmcs_field_t vmx_check_field_encoding(enum vmx_check_field field);
