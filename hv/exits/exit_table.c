#include "hv/exits/exit_table.h"
#include "hv/lib/bits.h"

/* Kind -> name and handler: the one list of what Bulkhead does about an exit. */
const struct exit_row exit_table[EXIT_KIND_COUNT] = {
    [EXIT_EXCEPTION] = {"exception", handle_exception},
    [EXIT_NMI] = {"host NMI", handle_nmi},
    [EXIT_INTERRUPT] = {"host interrupt", handle_interrupt},
    [EXIT_TRIPLE_FAULT] = {"triple fault", handle_triple_fault},
    [EXIT_INIT] = {"INIT signal", handle_init_signal},
    [EXIT_SIPI] = {"SIPI", handle_sipi},
    [EXIT_INTR_WINDOW] = {"interrupt window", handle_window},
    [EXIT_NMI_WINDOW] = {"NMI window", handle_window},
    [EXIT_TASK_SWITCH] = {"task switch", handle_task_switch},
    [EXIT_CPUID] = {"CPUID", handle_cpuid},
    [EXIT_HLT] = {"HLT", handle_hlt},
    [EXIT_INVD] = {"INVD", handle_cache},
    [EXIT_WBINVD] = {"WBINVD", handle_cache},
    [EXIT_INVLPG] = {"INVLPG", handle_invalidate},
    [EXIT_INVPCID] = {"INVPCID", handle_invalidate},
    [EXIT_RDPMC] = {"RDPMC", handle_rdpmc},
    [EXIT_RDTSC] = {"RDTSC", handle_rdtsc},
    [EXIT_RDTSCP] = {"RDTSCP", handle_rdtscp},
    [EXIT_HYPERCALL] = {"hypercall", handle_hypercall},
    [EXIT_VIRT_INSN] = {"virtualization instruction", handle_undefined},
    [EXIT_CR_ACCESS] = {"control register access", handle_cr},
    [EXIT_DR_ACCESS] = {"debug register access", handle_dr},
    [EXIT_IO] = {"port access", handle_io},
    [EXIT_RDMSR] = {"RDMSR", handle_rdmsr},
    [EXIT_WRMSR] = {"WRMSR", handle_wrmsr},
    [EXIT_MWAIT] = {"MWAIT", handle_undefined},
    [EXIT_MONITOR] = {"MONITOR", handle_undefined},
    [EXIT_PAUSE] = {"PAUSE", handle_pause},
    [EXIT_TPR_BELOW] = {"TPR below threshold", handle_tpr_below},
    [EXIT_APIC_ACCESS] = {"APIC access", handle_apic_access},
    [EXIT_APIC_WRITE] = {"APIC write", handle_apic_write},
    [EXIT_APIC_EOI] = {"virtualized EOI", handle_apic_eoi},
    [EXIT_DESC_ACCESS] = {"descriptor-table access", handle_desc_access},
    [EXIT_NESTED_FAULT] = {"EPT violation", handle_nested_fault},
    [EXIT_NESTED_MISCONFIG] = {"EPT misconfiguration", handle_nested_misconfig},
    [EXIT_TIMER] = {"preemption timer", handle_timer},
    [EXIT_XSETBV] = {"XSETBV", handle_xsetbv},
    [EXIT_RDRAND] = {"RDRAND", handle_undefined},
    [EXIT_RDSEED] = {"RDSEED", handle_undefined},
    [EXIT_XSAVES] = {"XSAVES or XRSTORS", handle_undefined},
    [EXIT_UMWAIT] = {"UMWAIT or TPAUSE", handle_undefined},
    [EXIT_BUS_LOCK] = {"bus lock", handle_bus_lock},
    [EXIT_NOTIFY] = {"notify", handle_notify},
    [EXIT_ENTRY_FAILURE] = {"entry failure", handle_entry_failure},
    [EXIT_UNEXPECTED] = {"unexpected exit", handle_unexpected},
};

/* The kinds that a busy guest causes are called by name: a compare and a branch where the table needs an
 * indirect call, which a retpoline never lets the processor predict. */
#define CALLED_BY_NAME (BIT(EXIT_NESTED_FAULT) | BIT(EXIT_WRMSR) | BIT(EXIT_IO))
STATIC_ASSERT(EXIT_KIND_COUNT <= 64, "a bit for each kind");

struct exit_result __attribute__((noinline)) exit_dispatch(struct vcpu *vcpu, const struct exit *exit)
{
    if (!(CALLED_BY_NAME >> exit->kind & 1)) /* the others are not to pay for three comparisons */
        return exit_table[exit->kind].handle(vcpu, exit);
    switch (exit->kind) {
    case EXIT_NESTED_FAULT:
        return handle_nested_fault(vcpu, exit);
    case EXIT_WRMSR:
        return handle_wrmsr(vcpu, exit);
    default:
        return handle_io(vcpu, exit);
    }
}

const char *exit_kind_name(enum exit_kind kind)
{
    return (unsigned)kind < EXIT_KIND_COUNT ? exit_table[kind].name : "?";
}

const char *stop_reason_name(enum stop_reason why)
{
    static const char *const names[STOP_REASON_COUNT] = {
        [STOP_NONE] = "running",
        [STOP_POWEROFF] = "the guest powered off",
        [STOP_REBOOT] = "the guest asked for a reboot",
        [STOP_TRIPLE_FAULT] = "triple fault",
        [STOP_UNHANDLED_EXIT] = "an exit that nothing handles",
        [STOP_BAD_INSTRUCTION] = "an access to a device with an instruction that is not emulated",
        [STOP_ENTRY_FAILED] = "the processor refused the guest's state",
        [STOP_GUEST_MEMORY] = "inconsistent nested page tables",
        [STOP_REQUESTED] = "stopped on request",
        [STOP_OPERATOR] = "stopped by the operator",
        [STOP_OPERATOR_RESET] = "reset by the operator",
        [STOP_NOT_LOADED] = "its images could not be loaded",
        [STOP_LEFT] = "the guest left with a code",
    };
    return (unsigned)why < STOP_REASON_COUNT ? names[why] : "?";
}
