#include "arch/x86/vmx/vmx_check.h"

#include "arch/x86/cpu.h"
#include "arch/x86/vmx/vmx_check_rules.h"
#include "hv/exits/exit.h"

#define ALWAYS VMX_SET_COUNT

/* Fixed by the SDM, not by a capability MSR. */
#define MSR_AREA_ALIGN    16u /* bytes */
#define MSR_AREA_ENTRY    16u /* bytes of one entry */
#define TPR_THRESHOLD_MAX 15u

static const struct {
    vmcs_field_t encoding;
    uint8_t set; /* enum vmx_control_set, or ALWAYS */
    uint32_t mask;
    const char *name;
} fields[VMX_F_COUNT] = {
#define SET_ALWAYS ALWAYS
#define SET_PIN    VMX_SET_PIN
#define SET_PROC   VMX_SET_PROC
#define SET_PROC2  VMX_SET_PROC2
#define SET_EXIT   VMX_SET_EXIT
#define SET_ENTRY  VMX_SET_ENTRY
#define FIELD_ROW(field, control_set, bit)                                                                   \
    [VMX_F_##field] = {.encoding = VMCS_##field, .set = SET_##control_set, .mask = (bit), .name = #field},
    VMX_CHECK_FIELDS(FIELD_ROW)};

const char *vmx_check_field_name(enum vmx_check_field field)
{
    return fields[field].name;
}

vmcs_field_t vmx_check_field_encoding(enum vmx_check_field field)
{
    return fields[field].encoding;
}

void vmx_check_read(struct vmx_check_state *state, const struct vmx_caps_msrs *msrs,
                    uint64_t (*vmread)(void *ctx, vmcs_field_t field), void *ctx)
{
    for (unsigned i = 0; i < VMX_F_COUNT; i++) {
        bool exists = fields[i].set == ALWAYS ||
                      (vmx_caps_pair(msrs, (enum vmx_control_set)fields[i].set) >> 32 & fields[i].mask);
        state->value[i] = exists ? vmread(ctx, fields[i].encoding) : 0;
    }
}

/* Bits that must be 1 are, and bits that must be 0 are not (SDM A.3 to A.5). */
static bool allowed(const struct check *c, enum vmx_control_set set, uint64_t value)
{
    uint64_t pair = vmx_caps_pair(c->machine->msrs, set);
    uint32_t must = (uint32_t)pair, may = (uint32_t)(pair >> 32);
    return (value & must) == must && !(value & ~(uint64_t)may);
}

/* A physical address with the alignment, inside the address width; alignment is a power of two. */
static bool aligned(const struct check *c, uint64_t address, uint64_t alignment)
{
    return !(address & (alignment - 1)) && check_physical(c, address);
}

static bool check_reserved_controls(const struct check *c)
{
    const char *text = "controls must be among the allowed settings of the capability MSRs";
    RULE(c, allowed(c, VMX_SET_PIN, V(c, PIN_CONTROLS)), PIN_CONTROLS, "27.2.1.1", text);
    RULE(c, allowed(c, VMX_SET_PROC, V(c, PROC_CONTROLS)), PROC_CONTROLS, "27.2.1.1", text);
    if (c->proc & PROC_ACTIVATE_SECONDARY)
        RULE(c, allowed(c, VMX_SET_PROC2, V(c, PROC2_CONTROLS)), PROC2_CONTROLS, "27.2.1.1", text);
    if (c->proc & PROC_ACTIVATE_TERTIARY)
        RULE(c, !(V(c, PROC3_CONTROLS) & ~c->machine->msrs->procbased3), PROC3_CONTROLS, "27.2.1.1", text);
    RULE(c, allowed(c, VMX_SET_EXIT, V(c, EXIT_CONTROLS)), EXIT_CONTROLS, "27.2.1.2", text);
    if (c->exit & EXIT_CTL_ACTIVATE_SECONDARY)
        RULE(c, !(V(c, EXIT2_CONTROLS) & ~c->machine->msrs->exit2), EXIT2_CONTROLS, "27.2.1.2", text);
    RULE(c, allowed(c, VMX_SET_ENTRY, V(c, ENTRY_CONTROLS)), ENTRY_CONTROLS, "27.2.1.3", text);
    return true;
}

static bool check_bitmaps_and_nmis(const struct check *c)
{
    const char *page = "must be 4 KiB aligned and inside the physical-address width";
    RULE(c, V(c, CR3_TARGET_COUNT) <= VMX_MISC_CR3_TARGETS(c->machine->msrs->misc), CR3_TARGET_COUNT,
         "27.2.1.1", "at most as many CR3 targets as IA32_VMX_MISC says");
    if (c->proc & PROC_USE_IO_BITMAPS) {
        RULE(c, aligned(c, V(c, IO_BITMAP_A), PAGE_SIZE), IO_BITMAP_A, "27.2.1.1", page);
        RULE(c, aligned(c, V(c, IO_BITMAP_B), PAGE_SIZE), IO_BITMAP_B, "27.2.1.1", page);
    }
    if (c->proc & PROC_USE_MSR_BITMAPS)
        RULE(c, aligned(c, V(c, MSR_BITMAPS), PAGE_SIZE), MSR_BITMAPS, "27.2.1.1", page);
    if (!(c->pin & PIN_NMI_EXITING))
        RULE(c, !(c->pin & PIN_VIRTUAL_NMIS), PIN_CONTROLS, "27.2.1.1", "virtual NMIs need NMI exiting");
    if (!(c->pin & PIN_VIRTUAL_NMIS))
        RULE(c, !(c->proc & PROC_NMI_WINDOW_EXITING), PROC_CONTROLS, "27.2.1.1",
             "NMI-window exiting needs virtual NMIs");
    return true;
}

static bool check_apic_controls(const struct check *c)
{
    const char *page = "must be 4 KiB aligned and inside the physical-address width";
    if (c->proc & PROC_USE_TPR_SHADOW) {
        RULE(c, aligned(c, V(c, VIRTUAL_APIC_ADDRESS), PAGE_SIZE), VIRTUAL_APIC_ADDRESS, "27.2.1.1", page);
        if (!(c->proc2 & PROC2_VIRTUAL_INTERRUPT_DELIVERY))
            RULE(c, V(c, TPR_THRESHOLD) <= TPR_THRESHOLD_MAX, TPR_THRESHOLD, "27.2.1.1",
                 "bits 31:4 must be 0 without virtual-interrupt delivery");
    } else {
        RULE(c,
             !(c->proc2 & (PROC2_VIRTUALIZE_X2APIC | PROC2_APIC_REGISTER_VIRTUALIZATION |
                           PROC2_VIRTUAL_INTERRUPT_DELIVERY)),
             PROC2_CONTROLS, "27.2.1.1", "APIC virtualization needs the TPR shadow");
    }
    if (c->proc2 & PROC2_VIRTUALIZE_APIC_ACCESSES) {
        RULE(c, aligned(c, V(c, APIC_ACCESS_ADDRESS), PAGE_SIZE), APIC_ACCESS_ADDRESS, "27.2.1.1", page);
        RULE(c, !(c->proc2 & PROC2_VIRTUALIZE_X2APIC), PROC2_CONTROLS, "27.2.1.1",
             "APIC accesses and x2APIC mode cannot be virtualized together");
    }
    if (c->proc2 & PROC2_VIRTUAL_INTERRUPT_DELIVERY)
        RULE(c, c->pin & PIN_EXTERNAL_INTERRUPT_EXITING, PIN_CONTROLS, "27.2.1.1",
             "virtual-interrupt delivery needs external-interrupt exiting");
    if (c->pin & PIN_POSTED_INTERRUPTS) {
        RULE(c, c->proc2 & PROC2_VIRTUAL_INTERRUPT_DELIVERY, PIN_CONTROLS, "27.2.1.1",
             "posted interrupts need virtual-interrupt delivery");
        RULE(c, c->exit & EXIT_CTL_ACK_INTERRUPT, EXIT_CONTROLS, "27.2.1.1",
             "posted interrupts need acknowledge interrupt on exit");
        RULE(c, V(c, POSTED_INTERRUPT_VECTOR) <= 255, POSTED_INTERRUPT_VECTOR, "27.2.1.1",
             "must be a vector, 0 to 255");
        RULE(c, aligned(c, V(c, POSTED_INTERRUPT_DESCRIPTOR), 64), POSTED_INTERRUPT_DESCRIPTOR, "27.2.1.1",
             "must be 64-byte aligned and inside the physical-address width");
    }
    return true;
}

/* SDM 25.6.11 and A.10 */
static bool check_ept_pointer(const struct check *c)
{
    uint64_t eptp = V(c, EPT_POINTER), caps = c->machine->msrs->ept_vpid;
    uint64_t type = eptp & EPTP_MEMORY_TYPE, walk = bits_get(eptp, 5, 3);
    RULE(c, (type == MT_UC && (caps & EPT_CAP_UC)) || (type == MT_WB && (caps & EPT_CAP_WB)), EPT_POINTER,
         "27.2.1.1", "memory type (bits 2:0) must be one that IA32_VMX_EPT_VPID_CAP offers");
    RULE(c, (walk == 3 && (caps & EPT_CAP_WALK_4)) || (walk == 4 && (caps & EPT_CAP_WALK_5)), EPT_POINTER,
         "27.2.1.1", "page-walk length minus 1 (bits 5:3) must be 3 or 4, as the processor offers");
    RULE(c, !(eptp & EPTP_AD) || (caps & EPT_CAP_AD), EPT_POINTER, "27.2.1.1",
         "accessed and dirty flags (bit 6) are not offered");
    RULE(c, !(eptp & BIT(7)) || (caps & EPT_CAP_SSS), EPT_POINTER, "27.2.1.1",
         "supervisor shadow-stack control (bit 7) is not offered");
    RULE(c, !(eptp & 0xf00) && check_physical(c, eptp), EPT_POINTER, "27.2.1.1",
         "bits 11:8 and those above the physical-address width must be 0");
    return true;
}

static bool check_memory_controls(const struct check *c)
{
    const char *page = "must be 4 KiB aligned and inside the physical-address width";
    if (c->proc2 & PROC2_ENABLE_VPID)
        RULE(c, V(c, VPID) != 0, VPID, "27.2.1.1", "must not be 0");
    if (c->proc2 & PROC2_ENABLE_EPT) {
        if (!check_ept_pointer(c))
            return false;
    } else {
        RULE(c,
             !(c->proc2 & (PROC2_UNRESTRICTED_GUEST | PROC2_MODE_BASED_EXECUTE | PROC2_ENABLE_PML |
                           PROC2_SUB_PAGE_WRITE | PROC2_PT_USES_GPA)),
             PROC2_CONTROLS, "27.2.1.1",
             "unrestricted guest, mode-based execute, PML, sub-page writes and PT with guest addresses need "
             "EPT");
    }
    if (c->proc2 & PROC2_ENABLE_PML)
        RULE(c, aligned(c, V(c, PML_ADDRESS), PAGE_SIZE), PML_ADDRESS, "27.2.1.1", page);
    if (c->proc2 & PROC2_SUB_PAGE_WRITE)
        RULE(c, aligned(c, V(c, SPP_TABLE_POINTER), PAGE_SIZE), SPP_TABLE_POINTER, "27.2.1.1", page);
    if (c->proc2 & PROC2_ENABLE_VM_FUNCTIONS) {
        uint64_t functions = V(c, VM_FUNCTION_CONTROLS);
        RULE(c, !(functions & ~c->machine->msrs->vmfunc), VM_FUNCTION_CONTROLS, "27.2.1.1",
             "only VM functions that IA32_VMX_VMFUNC offers");
        if (functions & 1) {
            RULE(c, c->proc2 & PROC2_ENABLE_EPT, PROC2_CONTROLS, "27.2.1.1", "EPTP switching needs EPT");
            RULE(c, aligned(c, V(c, EPTP_LIST_ADDRESS), PAGE_SIZE), EPTP_LIST_ADDRESS, "27.2.1.1", page);
        }
    }
    if (c->proc2 & PROC2_VMCS_SHADOWING) {
        RULE(c, aligned(c, V(c, VMREAD_BITMAP), PAGE_SIZE), VMREAD_BITMAP, "27.2.1.1", page);
        RULE(c, aligned(c, V(c, VMWRITE_BITMAP), PAGE_SIZE), VMWRITE_BITMAP, "27.2.1.1", page);
    }
    if (c->proc2 & PROC2_EPT_VIOLATION_VE)
        RULE(c, aligned(c, V(c, VIRT_EXCEPTION_INFO_ADDRESS), PAGE_SIZE), VIRT_EXCEPTION_INFO_ADDRESS,
             "27.2.1.1", page);
    if (c->proc2 & PROC2_USE_TSC_SCALING)
        RULE(c, V(c, TSC_MULTIPLIER) != 0, TSC_MULTIPLIER, "27.2.1.1", "must not be 0");
    return true;
}

static bool check_msr_area(const struct check *c, enum vmx_check_field count, enum vmx_check_field address,
                           const char *section)
{
    uint64_t start = c->v[address];
    if (c->v[count] == 0)
        return true;
    RULE_AT(c, aligned(c, start, MSR_AREA_ALIGN), address, section,
            "must be 16-byte aligned and inside the physical-address width");
    RULE_AT(c, check_physical(c, start + c->v[count] * MSR_AREA_ENTRY - 1), address, section,
            "the last byte of the area must be inside the physical-address width");
    return true;
}

/* SDM 27.2.1.3; the error code is delivered exactly when the exception has one. */
static bool check_entry_error_code(const struct check *c, uint64_t info)
{
    unsigned vector = info & INTR_INFO_VECTOR;
    bool deliver = info & INTR_INFO_ERROR_VALID;
    bool exception = INTR_INFO_TYPE(info) == EVENT_EXCEPTION;
    bool protected = !(c->proc2 & PROC2_UNRESTRICTED_GUEST) || (V(c, GUEST_CR0) & CR0_PE);
    if (!exception || !protected) {
        RULE(c, !deliver, ENTRY_INTR_INFO, "27.2.1.3",
             "an error code goes only with a hardware exception in protected mode");
    } else if (!(c->machine->msrs->basic & VMX_BASIC_ANY_ERROR_CODE)) {
        /* #CP is not in this list: processors that have it have the bit, too. */
        bool has_error = (VECTORS_WITH_ERROR & ~(1u << VECTOR_CP)) >> vector & 1;
        RULE(c, deliver == has_error, ENTRY_INTR_INFO, "27.2.1.3",
             "an error code must be delivered exactly for #DF, #TS, #NP, #SS, #GP, #PF and #AC");
    }
    if (deliver)
        RULE(c, !(V(c, ENTRY_EXCEPTION_ERROR) >> 16), ENTRY_EXCEPTION_ERROR, "27.2.1.3",
             "bits 31:16 must be 0");
    return true;
}

static bool check_entry_event(const struct check *c)
{
    uint64_t info = V(c, ENTRY_INTR_INFO), length = V(c, ENTRY_INSN_LEN);
    unsigned type = INTR_INFO_TYPE(info), vector = info & INTR_INFO_VECTOR;
    if (!(info & INTR_INFO_VALID))
        return true;
    RULE(c, type != 1, ENTRY_INTR_INFO, "27.2.1.3", "event type 1 is reserved");
    RULE(c, type != EVENT_NMI || vector == VECTOR_NMI, ENTRY_INTR_INFO, "27.2.1.3", "an NMI has vector 2");
    RULE(c, type != EVENT_EXCEPTION || vector <= 31, ENTRY_INTR_INFO, "27.2.1.3",
         "a hardware exception has a vector up to 31");
    RULE(c, type != 7 || vector == 0, ENTRY_INTR_INFO, "27.2.1.3", "event type 7 has vector 0");
    RULE(c, !(info & 0x7ffff000), ENTRY_INTR_INFO, "27.2.1.3", "bits 30:12 must be 0");
    if (!check_entry_error_code(c, info))
        return false;
    if (type >= EVENT_SOFT_INTERRUPT && type <= EVENT_SOFT_EXCEPTION) {
        RULE(c, length <= 15, ENTRY_INSN_LEN, "27.2.1.3", "a software event needs a length up to 15");
        RULE(c, length != 0 || (c->machine->msrs->misc & VMX_MISC_INSN_LEN_0), ENTRY_INSN_LEN, "27.2.1.3",
             "a software event needs a length");
    }
    return true;
}

static bool check_exit_and_entry_controls(const struct check *c)
{
    RULE(c, (c->pin & PIN_PREEMPTION_TIMER) || !(c->exit & EXIT_CTL_SAVE_PREEMPTION_TIMER), EXIT_CONTROLS,
         "27.2.1.2", "saving the preemption timer needs the timer");
    RULE(c, !(c->entry & (ENTRY_CTL_ENTRY_TO_SMM | ENTRY_CTL_DEACTIVATE_DUAL_MONITOR)), ENTRY_CONTROLS,
         "27.2.1.3", "entry to SMM and deactivate dual-monitor treatment must be 0 outside SMM");
    return check_msr_area(c, VMX_F_EXIT_MSR_STORE_COUNT, VMX_F_EXIT_MSR_STORE_ADDRESS, "27.2.1.2") &&
           check_msr_area(c, VMX_F_EXIT_MSR_LOAD_COUNT, VMX_F_EXIT_MSR_LOAD_ADDRESS, "27.2.1.2") &&
           check_msr_area(c, VMX_F_ENTRY_MSR_LOAD_COUNT, VMX_F_ENTRY_MSR_LOAD_ADDRESS, "27.2.1.3") &&
           check_entry_event(c);
}

static bool check_host_control_registers(const struct check *c)
{
    const struct vmx_caps_msrs *msrs = c->machine->msrs;
    const char *fixed = "must respect the fixed bits of the capability MSRs";
    const char *canonical = "must be canonical";
    uint64_t cr0 = V(c, HOST_CR0), cr4 = V(c, HOST_CR4);
    RULE(c, cr0 == vmx_cr0_for_root(msrs, cr0), HOST_CR0, "27.2.2", fixed);
    RULE(c, cr4 == vmx_cr4_for_root(msrs, cr4), HOST_CR4, "27.2.2", fixed);
    RULE(c, !(cr4 & CR4_CET) || (cr0 & CR0_WP), HOST_CR4, "27.2.2", "CET needs CR0.WP");
    RULE(c, check_physical(c, V(c, HOST_CR3)), HOST_CR3, "27.2.2",
         "no bits above the physical-address width");
    RULE(c, check_canonical(c, V(c, HOST_SYSENTER_ESP)), HOST_SYSENTER_ESP, "27.2.2", canonical);
    RULE(c, check_canonical(c, V(c, HOST_SYSENTER_EIP)), HOST_SYSENTER_EIP, "27.2.2", canonical);
    if (c->exit & EXIT_CTL_LOAD_PAT)
        RULE(c, check_pat(V(c, HOST_PAT)), HOST_PAT, "27.2.2", "every byte must be a memory type");
    if (c->exit & EXIT_CTL_LOAD_EFER) {
        uint64_t efer = V(c, HOST_EFER);
        bool lma = efer & EFER_LMA, lme = efer & EFER_LME, host64 = c->exit & EXIT_CTL_HOST_64BIT;
        RULE(c, !(efer & ~CHECK_EFER_DEFINED), HOST_EFER, "27.2.2", "reserved bits must be 0");
        RULE(c, lma == host64 && lme == host64, HOST_EFER, "27.2.2",
             "LMA and LME must equal host address-space size");
    }
    if (c->exit & EXIT_CTL_LOAD_CET) {
        RULE(c, check_canonical(c, V(c, HOST_S_CET)), HOST_S_CET, "27.2.2", canonical);
        RULE(c, check_canonical(c, V(c, HOST_SSP)) && !(V(c, HOST_SSP) & 3), HOST_SSP, "27.2.2",
             "must be canonical and 4-byte aligned");
        RULE(c, check_canonical(c, V(c, HOST_SSP_TABLE)), HOST_SSP_TABLE, "27.2.2", canonical);
    }
    if (c->exit & EXIT_CTL_LOAD_PKRS)
        RULE(c, !(V(c, HOST_PKRS) >> 32), HOST_PKRS, "27.2.2", "bits 63:32 must be 0");
    return true;
}

static bool check_host_segments(const struct check *c)
{
    for (unsigned f = VMX_F_HOST_ES_SELECTOR; f <= VMX_F_HOST_TR_SELECTOR; f++)
        RULE_AT(c, !(c->v[f] & 7), (enum vmx_check_field)f, "27.2.3", "RPL and TI must be 0");
    RULE(c, V(c, HOST_CS_SELECTOR) != 0, HOST_CS_SELECTOR, "27.2.3", "must not be 0");
    RULE(c, V(c, HOST_TR_SELECTOR) != 0, HOST_TR_SELECTOR, "27.2.3", "must not be 0");
    for (unsigned f = VMX_F_HOST_FS_BASE; f <= VMX_F_HOST_IDTR_BASE; f++)
        RULE_AT(c, check_canonical(c, c->v[f]), (enum vmx_check_field)f, "27.2.3", "must be canonical");
    return true;
}

/* Bulkhead is always in IA-32e mode, so the rules for other hosts have no place here. */
static bool check_host_address_space(const struct check *c)
{
    RULE(c, c->exit & EXIT_CTL_HOST_64BIT, EXIT_CONTROLS, "27.2.4",
         "host address-space size must be 1 while the processor is in IA-32e mode");
    RULE(c, V(c, HOST_CR4) & CR4_PAE, HOST_CR4, "27.2.4", "PAE must be 1 for a 64-bit host");
    RULE(c, check_canonical(c, V(c, HOST_RIP)), HOST_RIP, "27.2.4", "must be canonical");
    return true;
}

enum status vmx_check(const struct vmx_check_machine *machine, const struct vmx_check_state *state,
                      struct vmx_check_finding *finding)
{
    const uint64_t *v = state->value;
    bool secondary = v[VMX_F_PROC_CONTROLS] & PROC_ACTIVATE_SECONDARY;
    const struct check c = {
        .machine = machine,
        .v = v,
        .finding = finding,
        .pin = (uint32_t)v[VMX_F_PIN_CONTROLS],
        .proc = (uint32_t)v[VMX_F_PROC_CONTROLS],
        .proc2 = secondary ? (uint32_t)v[VMX_F_PROC2_CONTROLS] : 0,
        .exit = (uint32_t)v[VMX_F_EXIT_CONTROLS],
        .entry = (uint32_t)v[VMX_F_ENTRY_CONTROLS],
    };
    bool ok = check_reserved_controls(&c) && check_bitmaps_and_nmis(&c) && check_apic_controls(&c) &&
              check_memory_controls(&c) && check_exit_and_entry_controls(&c) &&
              check_host_control_registers(&c) && check_host_segments(&c) && check_host_address_space(&c) &&
              vmx_check_guest(&c);
    return ok ? STATUS_OK : ERR_INVALID;
}
