#include "arch/x86/vmx/vmx_caps.h"

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/vmx/vmcs.h"

enum want {
    WANT_ON,       /* required */
    WANT_OPTIONAL, /* on where the processor has it */
    WANT_TOGGLED,  /* starts clear and is switched at run time: both settings are required */
    WANT_OFF,      /* clear where the processor allows it; handled, but slower, where it is forced on */
};

struct control_row {
    uint8_t set;  /* enum vmx_control_set */
    uint8_t want; /* enum want */
    uint32_t mask;
    const char *name;
    const char *meaning;
};

/* Every control that Bulkhead has an opinion of; all others stay clear. */
static const struct control_row control_rows[] = {
    {VMX_SET_PIN, WANT_ON, PIN_EXTERNAL_INTERRUPT_EXITING, "external-interrupt exiting",
     "the host's interrupts would be delivered to the guest"},
    {VMX_SET_PIN, WANT_ON, PIN_NMI_EXITING, "NMI exiting", "the host's NMIs would be delivered to the guest"},
    {VMX_SET_PIN, WANT_ON, PIN_VIRTUAL_NMIS, "virtual NMIs", "a guest's NMI blocking could not be tracked"},
    {VMX_SET_PIN, WANT_ON, PIN_PREEMPTION_TIMER, "VMX-preemption timer",
     "a guest could not be interrupted at a given time, so it would have no timer"},

    {VMX_SET_PROC, WANT_ON, PROC_ACTIVATE_SECONDARY, "activate secondary controls",
     "the processor is too old: it has neither EPT nor unrestricted guest"},
    {VMX_SET_PROC, WANT_ON, PROC_HLT_EXITING, "HLT exiting", "a halted guest would keep its CPU"},
    {VMX_SET_PROC, WANT_ON, PROC_USE_MSR_BITMAPS, "use MSR bitmaps",
     "MSR accesses could not be filtered one by one"},
    {VMX_SET_PROC, WANT_ON, PROC_USE_IO_BITMAPS, "use I/O bitmaps", "port accesses could not be filtered"},
    {VMX_SET_PROC, WANT_ON, PROC_CR8_LOAD_EXITING, "CR8-load exiting",
     "a guest's CR8 would change the priority of the host's interrupts"},
    {VMX_SET_PROC, WANT_ON, PROC_CR8_STORE_EXITING, "CR8-store exiting", "a guest would read the host's CR8"},
    {VMX_SET_PROC, WANT_ON, PROC_USE_TSC_OFFSETTING, "use TSC offsetting",
     "a guest's TSC could not start at its own value"},
    {VMX_SET_PROC, WANT_ON, PROC_MWAIT_EXITING, "MWAIT exiting",
     "a guest could put the CPU to sleep past its timer"},
    {VMX_SET_PROC, WANT_ON, PROC_MONITOR_EXITING, "MONITOR exiting",
     "a guest could use MONITOR, which it is not offered"},
    {VMX_SET_PROC, WANT_ON, PROC_RDPMC_EXITING, "RDPMC exiting",
     "a guest could read the host's performance counters"},
    {VMX_SET_PROC, WANT_TOGGLED, PROC_INTERRUPT_WINDOW_EXITING, "interrupt-window exiting",
     "a pending interrupt could not wait until the guest can take it"},
    {VMX_SET_PROC, WANT_TOGGLED, PROC_NMI_WINDOW_EXITING, "NMI-window exiting",
     "a pending NMI could not wait until the guest can take it"},
    {VMX_SET_PROC, WANT_OFF, PROC_CR3_LOAD_EXITING, "CR3-load exiting off",
     "every MOV to CR3 of a guest costs an exit"},
    {VMX_SET_PROC, WANT_OFF, PROC_MOV_DR_EXITING, "MOV-DR exiting off",
     "every access of a guest to a debug register costs an exit"},
    {VMX_SET_PROC, WANT_OFF, PROC_CR3_STORE_EXITING, "CR3-store exiting off",
     "every MOV from CR3 of a guest costs an exit"},

    {VMX_SET_PROC2, WANT_ON, PROC2_ENABLE_EPT, "enable EPT", "guest memory could not be isolated"},
    {VMX_SET_PROC2, WANT_ON, PROC2_ENABLE_VPID, "enable VPID", "every exit would flush the TLB"},
    {VMX_SET_PROC2, WANT_ON, PROC2_UNRESTRICTED_GUEST, "unrestricted guest",
     "guests could not run in real mode or without paging, and so could not start"},
    {VMX_SET_PROC2, WANT_ON, PROC2_WBINVD_EXITING, "WBINVD exiting",
     "a guest could flush the caches of everybody"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_ENABLE_RDTSCP, "enable RDTSCP", "guests are not offered RDTSCP"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_ENABLE_INVPCID, "enable INVPCID", "guests are not offered INVPCID"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_ENABLE_XSAVES, "enable XSAVES/XRSTORS",
     "guests are not offered XSAVES"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_ENCLS_EXITING, "ENCLS exiting", "the processor has no SGX to hide"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_ENCLV_EXITING, "ENCLV exiting", "the processor has no SGX to hide"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_BUS_LOCK_DETECTION, "VMM bus-lock detection",
     "a guest's bus locks are not noticed"},
    {VMX_SET_PROC2, WANT_OPTIONAL, PROC2_INSTRUCTION_TIMEOUT, "instruction timeout",
     "a guest that finds an endless instruction keeps its CPU"},

    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_HOST_64BIT, "host address-space size",
     "the processor has no 64-bit mode"},
    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_ACK_INTERRUPT, "acknowledge interrupt on exit",
     "the vector of a host interrupt would not be known"},
    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_SAVE_DEBUG_CONTROLS, "save debug controls",
     "a guest's DR7 would be lost"},
    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_SAVE_PAT, "save IA32_PAT", "a guest's PAT could not be kept apart"},
    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_LOAD_PAT, "load IA32_PAT on exit",
     "a guest's PAT would apply to the host"},
    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_SAVE_EFER, "save IA32_EFER", "a guest's EFER could not be kept apart"},
    {VMX_SET_EXIT, WANT_ON, EXIT_CTL_LOAD_EFER, "load IA32_EFER on exit",
     "a guest's EFER would apply to the host"},

    {VMX_SET_ENTRY, WANT_ON, ENTRY_CTL_LOAD_DEBUG_CONTROLS, "load debug controls",
     "a guest's DR7 would be lost"},
    {VMX_SET_ENTRY, WANT_ON, ENTRY_CTL_LOAD_PAT, "load IA32_PAT on entry",
     "the host's PAT would apply to the guest"},
    {VMX_SET_ENTRY, WANT_ON, ENTRY_CTL_LOAD_EFER, "load IA32_EFER on entry",
     "the host's EFER would apply to the guest"},
    {VMX_SET_ENTRY, WANT_TOGGLED, ENTRY_CTL_IA32E_GUEST, "IA-32e mode guest",
     "guests could not enter 64-bit mode"},
};

/* Controls that are not named above and yet must be 1: the default1 class of SDM A.2, by set. */
static const struct {
    uint32_t default1;
    const char *unknown; /* report line for a forced control outside of it */
} sets[VMX_SET_COUNT] = {
    [VMX_SET_PIN] = {0x00000016, "pin-based controls forced on"},
    [VMX_SET_PROC] = {0x0401e172, "primary processor-based controls forced on"},
    [VMX_SET_PROC2] = {0, "secondary processor-based controls forced on"},
    [VMX_SET_EXIT] = {0x00036dff, "VM-exit controls forced on"},
    [VMX_SET_ENTRY] = {0x000011ff, "VM-entry controls forced on"},
};

enum source { SOURCE_BASIC, SOURCE_EPT_VPID };

struct capability_row {
    uint8_t source; /* enum source */
    bool required;
    uint64_t mask;
    const char *name;
    const char *meaning;
};

static const struct capability_row capability_rows[] = {
    {SOURCE_BASIC, true, VMX_BASIC_INS_OUTS_INFO, "INS/OUTS information on exit",
     "string port accesses would come without address and segment"},
    {SOURCE_EPT_VPID, true, EPT_CAP_WALK_4, "EPT page-walk length 4",
     "the EPT tables would have no known form"},
    {SOURCE_EPT_VPID, true, EPT_CAP_WB, "EPT structures write-back", "page walks would be uncached"},
    {SOURCE_EPT_VPID, true, EPT_CAP_INVEPT, "INVEPT", "changes of guest memory could not take effect"},
    {SOURCE_EPT_VPID, true, EPT_CAP_INVEPT_ALL, "INVEPT all-context",
     "translations left by the firmware could not be flushed"},
    {SOURCE_EPT_VPID, false, EPT_CAP_INVEPT_SINGLE, "INVEPT single-context",
     "flushing one guest's memory flushes every guest's"},
    {SOURCE_EPT_VPID, true, VPID_CAP_INVVPID, "INVVPID", "a guest's TLB could not be flushed"},
    {SOURCE_EPT_VPID, true, VPID_CAP_SINGLE, "INVVPID single-context", "a guest's TLB could not be flushed"},
    {SOURCE_EPT_VPID, false, VPID_CAP_ADDRESS, "INVVPID individual-address",
     "flushing one address flushes the guest's whole TLB"},
    {SOURCE_EPT_VPID, false, VPID_CAP_SINGLE_KEEP_GLOBAL, "INVVPID single-context retaining globals",
     "CR3 changes that exit flush global translations too"},
    {SOURCE_EPT_VPID, false, EPT_CAP_2M, "EPT 2 MiB pages", "guest memory needs more tables and TLB entries"},
    {SOURCE_EPT_VPID, false, EPT_CAP_1G, "EPT 1 GiB pages", "guest memory needs more tables and TLB entries"},
};

STATIC_ASSERT(ARRAY_SIZE(control_rows) + ARRAY_SIZE(capability_rows) + VMX_SET_COUNT + 1 <= VMX_REPORT_MAX,
              "every row needs room in the report");

static uint32_t allowed_1(uint64_t pair)
{
    return (uint32_t)(pair >> 32);
}

void vmx_caps_read(struct vmx_caps_msrs *msrs, uint64_t (*rdmsr)(void *ctx, uint32_t msr), void *ctx)
{
    *msrs = (struct vmx_caps_msrs){
        .basic = rdmsr(ctx, MSR_IA32_VMX_BASIC),
        .misc = rdmsr(ctx, MSR_IA32_VMX_MISC),
        .vmcs_enum = rdmsr(ctx, MSR_IA32_VMX_VMCS_ENUM),
        .pinbased = rdmsr(ctx, MSR_IA32_VMX_PINBASED_CTLS),
        .procbased = rdmsr(ctx, MSR_IA32_VMX_PROCBASED_CTLS),
        .exit = rdmsr(ctx, MSR_IA32_VMX_EXIT_CTLS),
        .entry = rdmsr(ctx, MSR_IA32_VMX_ENTRY_CTLS),
        .cr0_fixed0 = rdmsr(ctx, MSR_IA32_VMX_CR0_FIXED0),
        .cr0_fixed1 = rdmsr(ctx, MSR_IA32_VMX_CR0_FIXED1),
        .cr4_fixed0 = rdmsr(ctx, MSR_IA32_VMX_CR4_FIXED0),
        .cr4_fixed1 = rdmsr(ctx, MSR_IA32_VMX_CR4_FIXED1),
    };
    if (msrs->basic & VMX_BASIC_TRUE_CONTROLS) {
        msrs->true_pinbased = rdmsr(ctx, MSR_IA32_VMX_TRUE_PINBASED_CTLS);
        msrs->true_procbased = rdmsr(ctx, MSR_IA32_VMX_TRUE_PROCBASED_CTLS);
        msrs->true_exit = rdmsr(ctx, MSR_IA32_VMX_TRUE_EXIT_CTLS);
        msrs->true_entry = rdmsr(ctx, MSR_IA32_VMX_TRUE_ENTRY_CTLS);
    }
    /* The others exist where a control that needs them can be 1 (SDM A.3.3 to A.11). */
    if (allowed_1(msrs->procbased) & PROC_ACTIVATE_SECONDARY)
        msrs->procbased2 = rdmsr(ctx, MSR_IA32_VMX_PROCBASED_CTLS2);
    if (allowed_1(msrs->procbased) & PROC_ACTIVATE_TERTIARY)
        msrs->procbased3 = rdmsr(ctx, MSR_IA32_VMX_PROCBASED_CTLS3);
    if (allowed_1(msrs->exit) & EXIT_CTL_ACTIVATE_SECONDARY)
        msrs->exit2 = rdmsr(ctx, MSR_IA32_VMX_EXIT_CTLS2);
    if (allowed_1(msrs->procbased2) & (PROC2_ENABLE_EPT | PROC2_ENABLE_VPID))
        msrs->ept_vpid = rdmsr(ctx, MSR_IA32_VMX_EPT_VPID_CAP);
    if (allowed_1(msrs->procbased2) & PROC2_ENABLE_VM_FUNCTIONS)
        msrs->vmfunc = rdmsr(ctx, MSR_IA32_VMX_VMFUNC);
}

enum vmx_lock vmx_lock_state(uint64_t feature_control)
{
    if (!(feature_control & FEATURE_CONTROL_LOCK))
        return VMX_LOCK_OPEN;
    return feature_control & FEATURE_CONTROL_VMX_OUTSIDE_SMX ? VMX_LOCK_ENABLED : VMX_LOCK_DISABLED;
}

uint64_t vmx_caps_pair(const struct vmx_caps_msrs *msrs, enum vmx_control_set set)
{
    bool has_true = msrs->basic & VMX_BASIC_TRUE_CONTROLS;
    switch (set) {
    case VMX_SET_PIN:
        return has_true ? msrs->true_pinbased : msrs->pinbased;
    case VMX_SET_PROC:
        return has_true ? msrs->true_procbased : msrs->procbased;
    case VMX_SET_PROC2:
        return msrs->procbased2;
    case VMX_SET_EXIT:
        return has_true ? msrs->true_exit : msrs->exit;
    default:
        return has_true ? msrs->true_entry : msrs->entry;
    }
}

static void add_line(struct vmx_caps_report *report, bool found, bool required, const char *name,
                     const char *meaning)
{
    enum vmx_finding finding = found ? VMX_FOUND : required ? VMX_MISSING : VMX_ABSENT_OPTIONAL;
    report->lines[report->count++] = (struct vmx_report_line){finding, name, meaning};
    if (finding == VMX_MISSING)
        report->missing++;
}

static void resolve_sets(const uint64_t pairs[VMX_SET_COUNT], uint32_t values[VMX_SET_COUNT],
                         struct vmx_caps_report *report)
{
    uint32_t known[VMX_SET_COUNT] = {0};
    for (unsigned set = 0; set < VMX_SET_COUNT; set++)
        values[set] = (uint32_t)pairs[set];
    for (size_t i = 0; i < ARRAY_SIZE(control_rows); i++) {
        const struct control_row *row = &control_rows[i];
        bool can_set = allowed_1(pairs[row->set]) & row->mask;
        bool can_clear = !((uint32_t)pairs[row->set] & row->mask);
        bool found = can_set;
        if (row->want == WANT_TOGGLED)
            found = can_set && can_clear;
        else if (row->want == WANT_OFF)
            found = can_clear;
        else if (can_set)
            values[row->set] |= row->mask;
        known[row->set] |= row->mask;
        add_line(report, found, row->want == WANT_ON || row->want == WANT_TOGGLED, row->name, row->meaning);
    }
    for (unsigned set = 0; set < VMX_SET_COUNT; set++) {
        if ((uint32_t)pairs[set] & ~known[set] & ~sets[set].default1)
            add_line(report, false, true, sets[set].unknown,
                     "the processor insists on controls that are not handled");
    }
}

static void check_capabilities(const struct vmx_caps_msrs *msrs, struct vmx_caps_report *report)
{
    for (size_t i = 0; i < ARRAY_SIZE(capability_rows); i++) {
        const struct capability_row *row = &capability_rows[i];
        uint64_t value = row->source == SOURCE_BASIC ? msrs->basic : msrs->ept_vpid;
        add_line(report, value & row->mask, row->required, row->name, row->meaning);
    }
    add_line(report, VMX_BASIC_MEMORY_TYPE(msrs->basic) == MT_WB, true, "VMCS memory type write-back",
             "the VMCS would have to be mapped uncached");
}

enum status vmx_resolve_controls(const struct vmx_caps_msrs *msrs, struct vmx_controls *out,
                                 struct vmx_caps_report *report)
{
    struct vmx_caps_report own;
    if (!report)
        report = &own;
    report->count = report->missing = 0;
    *out = (struct vmx_controls){0};

    uint64_t pairs[VMX_SET_COUNT];
    uint32_t values[VMX_SET_COUNT];
    for (unsigned set = 0; set < VMX_SET_COUNT; set++)
        pairs[set] = vmx_caps_pair(msrs, (enum vmx_control_set)set);
    resolve_sets(pairs, values, report);
    check_capabilities(msrs, report);
    if (report->missing)
        return ERR_UNSUPPORTED;

    *out = (struct vmx_controls){
        .pin = values[VMX_SET_PIN],
        .proc = values[VMX_SET_PROC],
        .proc2 = values[VMX_SET_PROC2],
        .exit = values[VMX_SET_EXIT],
        .entry = values[VMX_SET_ENTRY],
        .ept_2m = msrs->ept_vpid & EPT_CAP_2M,
        .ept_1g = msrs->ept_vpid & EPT_CAP_1G,
        .ept_exec_only = msrs->ept_vpid & EPT_CAP_EXEC_ONLY,
        .invept_single = msrs->ept_vpid & EPT_CAP_INVEPT_SINGLE,
        .invvpid_address = msrs->ept_vpid & VPID_CAP_ADDRESS,
        .invvpid_keep_global = msrs->ept_vpid & VPID_CAP_SINGLE_KEEP_GLOBAL,
        .timer_shift = (uint8_t)VMX_MISC_TIMER_SHIFT(msrs->misc),
        .revision = VMX_BASIC_REVISION(msrs->basic),
        .has_wait_sipi = msrs->misc & VMX_MISC_ACTIVITY_WAIT_SIPI,
    };
    return STATUS_OK;
}

struct vmx_cr_policy vmx_cr0_policy(const struct vmx_caps_msrs *msrs)
{
    /* SDM A.7 and 27.3.1.1: CR0_FIXED0 binds the guest in all but PE and PG once it is unrestricted. */
    uint64_t forced_1 = (msrs->cr0_fixed0 & ~(CR0_PE | CR0_PG)) | CR0_ET;
    uint64_t settable = CR0_DEFINED & msrs->cr0_fixed1;
    uint64_t owned = (CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM) & settable & ~forced_1;
    return (struct vmx_cr_policy){
        .mask = ~owned,
        .settable = settable,
        .forced_1 = forced_1,
        .hidden = CR0_CD | CR0_NW,
        .reads_1 = CR0_ET,
    };
}

struct vmx_cr_policy vmx_cr4_policy(const struct vmx_caps_msrs *msrs, uint64_t offered, uint64_t owned)
{
    /* A machine check with CR4.MCE = 0 shuts the whole processor down (SDM 16.3), so the guest's MCE is a
     * pretence: the real one stays 1, and the exception bitmap keeps #MC for the host. */
    uint64_t forced_1 = (msrs->cr4_fixed0 | CR4_MCE) & msrs->cr4_fixed1;
    uint64_t settable = offered & msrs->cr4_fixed1 & ~CR4_VMXE;
    return (struct vmx_cr_policy){
        .mask = ~(owned & settable & ~forced_1),
        .settable = settable,
        .forced_1 = forced_1,
    };
}

uint64_t vmx_cr_real(const struct vmx_cr_policy *policy, uint64_t value)
{
    return (value & policy->settable & ~policy->hidden) | policy->forced_1;
}

uint64_t vmx_cr_shadow(const struct vmx_cr_policy *policy, uint64_t value)
{
    return (value & policy->settable) | policy->reads_1;
}

uint64_t vmx_cr0_for_root(const struct vmx_caps_msrs *msrs, uint64_t value)
{
    return (value | msrs->cr0_fixed0) & msrs->cr0_fixed1;
}

uint64_t vmx_cr4_for_root(const struct vmx_caps_msrs *msrs, uint64_t value)
{
    return (value | msrs->cr4_fixed0) & msrs->cr4_fixed1;
}
