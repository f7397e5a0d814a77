/* The exit table: one row for each basic exit reason of SDM volume 3, appendix C. docs/exits.md is made from
 * it. */
#include "arch/x86/vmx/vmx_raw.h"

/* ROW(reason, fields needed, exit kind, shape, handling)
 *
 * IDT_INFO stands where an exit can interrupt the delivery of an event (SDM 28.2.4): exceptions, task
 * switches, EPT violations and misconfigurations, APIC accesses and notify exits. A triple fault, an external
 * interrupt or an instruction never does: their events have been delivered or lost by then.
 * Page-modification-log-full and SPP events could too, but cannot occur here. */
#define EXIT_TABLE(ROW)                                                                                      \
    ROW(EXCEPTION_OR_NMI, VMX_NEED_INTR_INFO | VMX_NEED_IDT_INFO | VMX_NEED_QUALIFICATION, EXCEPTION,        \
        EXCEPTION,                                                                                           \
        "A host NMI becomes EXIT_NMI and is served by the host. Of exceptions only those in "                \
        "the exception bitmap arrive: #MC is the host's, #DB and #AC (intercepted against "                  \
        "endless delivery) are given back to the guest.")                                                    \
    ROW(EXTERNAL_INTERRUPT, VMX_NEED_INTR_INFO, INTERRUPT, INTERRUPT,                                        \
        "The vector was acknowledged on exit; the host's handler for it runs, then the guest "               \
        "goes on.")                                                                                          \
    ROW(TRIPLE_FAULT, 0, TRIPLE_FAULT, PLAIN, "The VM stops with a report.")                                 \
    ROW(INIT_SIGNAL, 0, INIT, PLAIN,                                                                         \
        "A physical INIT. Guests cannot send one (their ICR is emulated): it is logged and "                 \
        "dropped, and the guest goes on.")                                                                   \
    ROW(SIPI, VMX_NEED_QUALIFICATION, SIPI, SIPI,                                                            \
        "Arrives only in the activity state wait-for-SIPI, which is never entered in "                       \
        "hardware: logged and dropped.")                                                                     \
    ROW(IO_SMI, 0, UNEXPECTED, PLAIN,                                                                        \
        "Cannot occur: only under dual-monitor treatment of SMM, which is not activated.")                   \
    ROW(OTHER_SMI, 0, UNEXPECTED, PLAIN,                                                                     \
        "Cannot occur: only under dual-monitor treatment of SMM, which is not activated.")                   \
    ROW(INTERRUPT_WINDOW, 0, INTR_WINDOW, PLAIN,                                                             \
        "The guest can take an interrupt now: the pending one is injected.")                                 \
    ROW(NMI_WINDOW, 0, NMI_WINDOW, PLAIN, "The guest can take an NMI now: the pending one is injected.")     \
    ROW(TASK_SWITCH, VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN | VMX_NEED_IDT_INFO, TASK_SWITCH,            \
        TASK_SWITCH, "The switch is done in software, with all its checks, also through a task gate.")       \
    ROW(CPUID, VMX_NEED_INSN_LEN, CPUID, INSN, "Answered from the VM's CPUID table.")                        \
    ROW(GETSEC, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered SMX.")                      \
    ROW(HLT, VMX_NEED_INSN_LEN, HLT, INSN, "The vCPU sleeps until an event for it arrives.")                 \
    ROW(INVD, VMX_NEED_INSN_LEN, INVD, INSN,                                                                 \
        "Nothing to do: guest memory is coherent, and dropping modified lines would lose "                   \
        "other people's data.")                                                                              \
    ROW(INVLPG, VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN, INVLPG, INVLPG,                                  \
        "Does not occur with INVLPG exiting off; if it did, the guest's TLB is flushed under "               \
        "its VPID.")                                                                                         \
    ROW(RDPMC, VMX_NEED_INSN_LEN, RDPMC, INSN, "#GP(0): guests are offered no performance counters.")        \
    ROW(RDTSC, VMX_NEED_INSN_LEN, RDTSC, INSN,                                                               \
        "Does not occur with RDTSC exiting off (the offset is added by the hardware); if it "                \
        "did, it is emulated.")                                                                              \
    ROW(RSM, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: a guest is never in SMM.")                            \
    ROW(VMCALL, VMX_NEED_INSN_LEN, HYPERCALL, INSN, "A hypercall; an unknown number answers RAX = -1.")      \
    ROW(VMCLEAR, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                     \
    ROW(VMLAUNCH, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                    \
    ROW(VMPTRLD, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                     \
    ROW(VMPTRST, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                     \
    ROW(VMREAD, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                      \
    ROW(VMRESUME, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                    \
    ROW(VMWRITE, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                     \
    ROW(VMXOFF, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                      \
    ROW(VMXON, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                       \
    ROW(CR_ACCESS, VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN, CR_ACCESS, CR,                                \
        "MOV to CR0 and CR4 (bits the host owns), MOV to and from CR8, CLTS and LMSW are "                   \
        "checked and emulated; MOV to and from CR3 does not exit, and is emulated if it does.")              \
    ROW(MOV_DR, VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN, DR_ACCESS, DR,                                   \
        "The guest owns its debug registers while it runs, so this does not exit; if it does, it is "        \
        "emulated on them.")                                                                                 \
    ROW(IO_INSTRUCTION, VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN, IO, IO,                                  \
        "Sent to the device model of the port; nothing there reads as all-ones. Strings and "                \
        "REP go element by element, and their address and segment are read only for them.")                  \
    ROW(RDMSR, VMX_NEED_INSN_LEN, RDMSR, INSN,                                                               \
        "Answered from the MSR policy; an MSR that is not in it gives #GP(0).")                              \
    ROW(WRMSR, VMX_NEED_INSN_LEN, WRMSR, INSN,                                                               \
        "Checked against the MSR policy and emulated; an MSR that is not in it gives #GP(0).")               \
    ROW(ENTRY_FAILURE_GUEST_STATE, VMX_NEED_QUALIFICATION, ENTRY_FAILURE, ENTRY_FAILURE,                     \
        "The VM stops with a report; vmx_check tells the field and the rule that was broken.")               \
    ROW(ENTRY_FAILURE_MSR_LOADING, VMX_NEED_QUALIFICATION, ENTRY_FAILURE, ENTRY_FAILURE,                     \
        "The VM stops; the report names the entry of the MSR-load area. No such area is used, "              \
        "so this is a bug of Bulkhead.")                                                                     \
    ROW(MWAIT, VMX_NEED_INSN_LEN, MWAIT, INSN, "#UD: guests are not offered MONITOR/MWAIT.")                 \
    ROW(MONITOR_TRAP_FLAG, 0, UNEXPECTED, PLAIN, "Cannot occur: the monitor trap flag is never set.")        \
    ROW(MONITOR, VMX_NEED_INSN_LEN, MONITOR, INSN, "#UD: guests are not offered MONITOR/MWAIT.")             \
    ROW(PAUSE, VMX_NEED_INSN_LEN, PAUSE, INSN,                                                               \
        "Does not occur with PAUSE exiting and PAUSE-loop exiting off; if it did, the guest "                \
        "goes on after it.")                                                                                 \
    ROW(ENTRY_FAILURE_MACHINE_CHECK, VMX_NEED_QUALIFICATION, ENTRY_FAILURE, ENTRY_FAILURE,                   \
        "A machine check during VM entry: the VM stops with a report.")                                      \
    ROW(TPR_BELOW_THRESHOLD, 0, TPR_BELOW, PLAIN,                                                            \
        "Does not occur without the TPR shadow; handled as a change of the priority: a "                     \
        "pending interrupt is injected.")                                                                    \
    ROW(APIC_ACCESS, VMX_NEED_QUALIFICATION | VMX_NEED_IDT_INFO, APIC_ACCESS, APIC_ACCESS,                   \
        "Does not occur without APIC-access virtualization: the APIC page is a hole in EPT "                 \
        "and arrives as an EPT violation. If it does, it is emulated as one.")                               \
    ROW(VIRTUALIZED_EOI, VMX_NEED_QUALIFICATION, APIC_EOI, APIC_EOI,                                         \
        "Does not occur without virtual-interrupt delivery; the EOI is passed to the IOAPIC.")               \
    ROW(GDTR_IDTR_ACCESS, VMX_NEED_INSN_LEN, DESC_ACCESS, INSN,                                              \
        "Does not occur with descriptor-table exiting off; if it did, the VM stops with a "                  \
        "report.")                                                                                           \
    ROW(LDTR_TR_ACCESS, VMX_NEED_INSN_LEN, DESC_ACCESS, INSN,                                                \
        "Does not occur with descriptor-table exiting off; if it did, the VM stops with a "                  \
        "report.")                                                                                           \
    ROW(EPT_VIOLATION, VMX_NEED_QUALIFICATION | VMX_NEED_GPA | VMX_NEED_GLA | VMX_NEED_IDT_INFO,             \
        NESTED_FAULT, EPT_VIOLATION,                                                                         \
        "MMIO: the instruction is fetched, decoded and sent to the device model; nothing "                   \
        "there reads as all-ones and swallows writes.")                                                      \
    ROW(EPT_MISCONFIGURATION, VMX_NEED_GPA | VMX_NEED_IDT_INFO, NESTED_MISCONFIG, EPT_MISCONFIG,             \
        "Cannot occur unless Bulkhead wrote a wrong EPT entry: the VM stops with a report.")                 \
    ROW(INVEPT, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                      \
    ROW(RDTSCP, VMX_NEED_INSN_LEN, RDTSCP, INSN,                                                             \
        "Does not occur with RDTSC exiting off; if it did, it is emulated.")                                 \
    ROW(PREEMPTION_TIMER, 0, TIMER, PLAIN,                                                                   \
        "The next deadline of the vCPU has come; deadlines are looked at before every entry, "               \
        "and this exit makes one happen.")                                                                   \
    ROW(INVVPID, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered VMX.")                     \
    ROW(WBINVD, VMX_NEED_INSN_LEN, WBINVD, INSN,                                                             \
        "Nothing to do, for WBNOINVD too: guest memory is coherent, and a flush would hurt "                 \
        "the neighbours.")                                                                                   \
    ROW(XSETBV, VMX_NEED_INSN_LEN, XSETBV, INSN,                                                             \
        "Checked against the features offered to the guest, then loaded; else #GP(0).")                      \
    ROW(APIC_WRITE, VMX_NEED_QUALIFICATION, APIC_WRITE, APIC_WRITE,                                          \
        "Does not occur without APIC-register virtualization.")                                              \
    ROW(RDRAND, VMX_NEED_INSN_LEN, RDRAND, INSN, "Does not occur with RDRAND exiting off; if it did, #UD.")  \
    ROW(INVPCID, VMX_NEED_INSN_LEN, INVPCID, INSN,                                                           \
        "Does not occur with INVLPG exiting off; if it did, the guest's TLB is flushed under "               \
        "its VPID.")                                                                                         \
    ROW(VMFUNC, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                          \
        "VM functions are off, so the hardware raises #UD by itself; if it exits, #UD.")                     \
    ROW(ENCLS, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                           \
        "#UD: guests are not offered SGX. ENCLS exiting is on, for all leaves, where the "                   \
        "processor has it.")                                                                                 \
    ROW(RDSEED, VMX_NEED_INSN_LEN, RDSEED, INSN, "Does not occur with RDSEED exiting off; if it did, #UD.")  \
    ROW(PML_FULL, 0, UNEXPECTED, PLAIN, "Cannot occur: page-modification logging is off.")                   \
    ROW(XSAVES, VMX_NEED_INSN_LEN, XSAVES, INSN,                                                             \
        "Does not occur with an empty XSS-exiting bitmap; if it did, #UD.")                                  \
    ROW(XRSTORS, VMX_NEED_INSN_LEN, XSAVES, INSN,                                                            \
        "Does not occur with an empty XSS-exiting bitmap; if it did, #UD.")                                  \
    ROW(PCONFIG, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                         \
        "PCONFIG is not enabled, so the hardware raises #UD by itself; if it exits, #UD.")                   \
    ROW(SPP_EVENT, 0, UNEXPECTED, PLAIN, "Cannot occur: sub-page write permissions are off.")                \
    ROW(UMWAIT, VMX_NEED_INSN_LEN, UMWAIT, INSN,                                                             \
        "User wait is not enabled, so the hardware raises #UD by itself; if it exits, #UD.")                 \
    ROW(TPAUSE, VMX_NEED_INSN_LEN, UMWAIT, INSN,                                                             \
        "User wait is not enabled, so the hardware raises #UD by itself; if it exits, #UD.")                 \
    ROW(LOADIWKEY, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                       \
        "Guests cannot set CR4.KL, so the hardware raises #UD by itself; if it exits, #UD.")                 \
    ROW(ENCLV, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                           \
        "#UD: guests are not offered SGX. ENCLV exiting is on, for all leaves, where the "                   \
        "processor has it.")                                                                                 \
    ROW(ENQCMD_PASID, 0, UNEXPECTED, PLAIN, "Cannot occur: PASID translation is off.")                       \
    ROW(ENQCMDS_PASID, 0, UNEXPECTED, PLAIN, "Cannot occur: PASID translation is off.")                      \
    ROW(BUS_LOCK, 0, BUS_LOCK, PLAIN, "Trap-like: the locked access is done, and the guest goes on.")        \
    ROW(NOTIFY, VMX_NEED_QUALIFICATION | VMX_NEED_IDT_INFO, NOTIFY, NOTIFY,                                  \
        "No instruction boundary within the time set: the guest goes on, so that the host "                  \
        "gets its turn. With an invalid context the VM stops with a report.")                                \
    ROW(SEAMCALL, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered TDX.")                    \
    ROW(TDCALL, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered TDX.")                      \
    ROW(RDMSRLIST, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                       \
        "MSR-list instructions are not enabled, so the hardware raises #UD by itself; if it "                \
        "exits, #UD.")                                                                                       \
    ROW(WRMSRLIST, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                       \
        "MSR-list instructions are not enabled, so the hardware raises #UD by itself; if it "                \
        "exits, #UD.")                                                                                       \
    ROW(URDMSR, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered user MSR access.")          \
    ROW(UWRMSR, VMX_NEED_INSN_LEN, VIRT_INSN, INSN, "#UD: guests are not offered user MSR access.")          \
    ROW(RDMSR_IMMEDIATE, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                 \
        "#UD: guests are not offered the immediate forms.")                                                  \
    ROW(WRMSR_IMMEDIATE, VMX_NEED_INSN_LEN, VIRT_INSN, INSN,                                                 \
        "#UD: guests are not offered the immediate forms.")

#define SHAPE_ROW(reason, need_mask, exit_kind, decode_shape, handling)                                      \
    [VMX_REASON_##reason] = {need_mask, EXIT_##exit_kind, VMX_SHAPE_##decode_shape},
#define RESERVED_ROW(reason) [reason] = {VMX_NEED_EVERYTHING, EXIT_UNEXPECTED, VMX_SHAPE_PLAIN}

const struct vmx_reason_shape vmx_reason_shapes[VMX_REASON_COUNT] = {
    EXIT_TABLE(SHAPE_ROW) RESERVED_ROW(35),
    RESERVED_ROW(38),
    RESERVED_ROW(42),
    RESERVED_ROW(71),
    RESERVED_ROW(82),
    RESERVED_ROW(83),
};

#define NAME_ROW(reason, need_mask, exit_kind, decode_shape, text) [VMX_REASON_##reason] = #reason,
static const char *const reason_names[VMX_REASON_COUNT] = {EXIT_TABLE(NAME_ROW)};

const char *vmx_reason_name(uint32_t basic_reason)
{
    if (basic_reason >= VMX_REASON_COUNT || !reason_names[basic_reason])
        return "?";
    return reason_names[basic_reason];
}

#if __STDC_HOSTED__ /* docs/exits.md and the tests need all the words, the core does not carry them */
#define WORDS_ROW(reason, need_mask, exit_kind, decode_shape, text)                                          \
    [VMX_REASON_##reason] = {#reason, "EXIT_" #exit_kind, text},

static const struct vmx_reason_row reason_rows[VMX_REASON_COUNT] = {EXIT_TABLE(WORDS_ROW)};

const struct vmx_reason_row *vmx_reason_row(uint32_t basic_reason)
{
    if (basic_reason >= VMX_REASON_COUNT || !reason_rows[basic_reason].name)
        return NULL;
    return &reason_rows[basic_reason];
}
#endif
