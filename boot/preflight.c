#include "boot/preflight.h"
#include "arch/x86/vmx/vmx_mitigate.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

/* SDM volume 2, CPUID. */
#define CPUID_1_ECX_VMX         BIT(5)
#define CPUID_1_ECX_X2APIC      BIT(21)
#define CPUID_1_ECX_XSAVE       BIT(26)
#define CPUID_1_ECX_HYPERVISOR  BIT(31)
#define CPUID_EXT_EDX_NX        BIT(20)
#define CPUID_80000007_EDX_ITSC BIT(8)

/* SDM volume 4, IA32_FEATURE_CONTROL. */
#define FEATURE_LOCKED      BIT(0)
#define FEATURE_VMX_OUTSIDE BIT(2) /* VMX outside SMX operation */

/* SDM volume 3, appendix A: in the control MSRs bit 32+n says that control n may be 1. */
#define MAY(n)                BIT(32 + (n))
#define PIN_INTERRUPT_EXIT    MAY(0)
#define PIN_NMI_EXIT          MAY(3)
#define PIN_VIRTUAL_NMIS      MAY(5)
#define PIN_PREEMPTION_TIMER  MAY(6)
#define PIN_POSTED_INTERRUPTS MAY(7)
#define PROC_TPR_SHADOW       MAY(21)
#define PROC_IO_BITMAPS       MAY(25)
#define PROC_MSR_BITMAPS      MAY(28)
#define PROC_SECONDARY        MAY(31)
#define PROC2_APIC_ACCESS     MAY(0)
#define PROC2_EPT             MAY(1)
#define PROC2_X2APIC          MAY(4)
#define PROC2_VPID            MAY(5)
#define PROC2_UNRESTRICTED    MAY(7)
#define PROC2_APIC_REGISTERS  MAY(8)
#define PROC2_INTR_DELIVERY   MAY(9)

/* IA32_VMX_EPT_VPID_CAP, appendix A.10. */
#define EPT_4_LEVEL        BIT(6)
#define EPT_WB             BIT(14)
#define EPT_2M             BIT(16)
#define EPT_1G             BIT(17)
#define EPT_INVEPT         BIT(20)
#define EPT_INVEPT_ALL     BIT(26)
#define EPT_INVVPID        BIT(32)
#define EPT_INVVPID_SINGLE BIT(41)

#define MIB ((uint64_t)1 << 20)

struct table {
    struct preflight_row *rows;
    size_t count;
    const struct preflight_input *in;
};

static void add(struct table *t, const char *name, enum preflight_state state, const char *advice,
                const char *format, ...) __attribute__((format(printf, 5, 6)));

static void add(struct table *t, const char *name, enum preflight_state state, const char *advice,
                const char *format, ...)
{
    va_list args;

    if (t->count == PREFLIGHT_MAX_ROWS)
        return;
    struct preflight_row *row = &t->rows[t->count++];
    *row = (struct preflight_row){
        .name = name, .state = state, .advice = state == PREFLIGHT_MISSING ? advice : NULL};
    va_start(args, format);
    fmt_vformat(row->text, sizeof(row->text), format, args);
    va_end(args);
}

static bool all(uint64_t v, uint64_t bits)
{
    return (v & bits) == bits;
}

static bool in_vm(const struct table *t)
{
    return t->in->cpuid_1_ecx & CPUID_1_ECX_HYPERVISOR;
}

/* A VMX feature that Bulkhead cannot do without. */
static void need(struct table *t, const char *name, bool there)
{
    add(t, name, there ? PREFLIGHT_OK : PREFLIGHT_MISSING,
        in_vm(t) ? "let the hypervisor under us offer it (a CPU model of the host, nested virtualization)"
                 : "use a newer processor: this one cannot do it",
        "%s", there ? "available" : "not offered by this CPU");
}

static void want(struct table *t, const char *name, bool there, const char *without)
{
    add(t, name, there ? PREFLIGHT_OK : PREFLIGHT_OPTIONAL, NULL, "%s", there ? "available" : without);
}

/* False: there is no VMX to look at. */
static bool check_vmx(struct table *t)
{
    uint64_t control = t->in->feature_control;
    bool vmx = t->in->cpuid_1_ecx & CPUID_1_ECX_VMX;
    const char *enable = in_vm(t) ? "switch on nested virtualization in the hypervisor under us"
                                  : "enable Intel VT-x in the firmware setup";

    add(t, "VT-x", vmx ? PREFLIGHT_OK : PREFLIGHT_MISSING,
        in_vm(t) ? enable : "enable Intel VT-x in the firmware setup, or use a processor that has it", "%s",
        vmx ? "available" : "this CPU does not show VMX");
    if (!vmx)
        return false;
    if (control & FEATURE_LOCKED)
        add(t, "VT-x switched on", control & FEATURE_VMX_OUTSIDE ? PREFLIGHT_OK : PREFLIGHT_MISSING, enable,
            "IA32_FEATURE_CONTROL is locked, VMX is %s", control & FEATURE_VMX_OUTSIDE ? "on" : "off");
    else
        add(t, "VT-x switched on", PREFLIGHT_OK, NULL,
            "IA32_FEATURE_CONTROL is not locked, Bulkhead will set it");
    return true;
}

static void check_controls(struct table *t)
{
    const struct preflight_input *in = t->in;
    uint64_t proc2 = all(in->vmx_proc, PROC_SECONDARY) ? in->vmx_proc2 : 0;
    uint64_t ept = in->vmx_ept_vpid_cap;

    need(t, "interrupt and NMI exiting",
         all(in->vmx_pin, PIN_INTERRUPT_EXIT | PIN_NMI_EXIT | PIN_VIRTUAL_NMIS));
    need(t, "I/O and MSR bitmaps", all(in->vmx_proc, PROC_IO_BITMAPS | PROC_MSR_BITMAPS));
    need(t, "preemption timer", all(in->vmx_pin, PIN_PREEMPTION_TIMER));
    need(t, "EPT, 4 levels, write-back", all(proc2, PROC2_EPT) && all(ept, EPT_4_LEVEL | EPT_WB));
    need(t, "INVEPT", all(ept, EPT_INVEPT | EPT_INVEPT_ALL));
    need(t, "unrestricted guest", all(proc2, PROC2_UNRESTRICTED));
    need(t, "VPID", all(proc2, PROC2_VPID));
    need(t, "INVVPID", all(ept, EPT_INVVPID | EPT_INVVPID_SINGLE));
    want(t, "EPT pages of 2 MiB", all(ept, EPT_2M),
         "absent: guests' memory is mapped by 4 KiB, which is slower");
    want(t, "EPT pages of 1 GiB", all(ept, EPT_1G), "absent: guests' memory is mapped by 2 MiB");
    want(t, "TPR shadow", all(in->vmx_proc, PROC_TPR_SHADOW), "absent: task-priority writes exit");
    want(t, "APIC access, x2APIC (APICv)", all(proc2, PROC2_APIC_ACCESS | PROC2_X2APIC),
         "absent: APIC accesses exit");
    want(t, "APIC registers (APICv)", all(proc2, PROC2_APIC_REGISTERS), "absent: APIC reads exit");
    want(t, "interrupt delivery (APICv)", all(proc2, PROC2_INTR_DELIVERY), "absent: each EOI exits");
    want(t, "posted interrupts (APICv)", all(in->vmx_pin, PIN_POSTED_INTERRUPTS),
         "absent: an interrupt stops a running guest for a moment");
}

static void check_cpu(struct table *t)
{
    const struct preflight_input *in = t->in;

    need(t, "XSAVE", in->cpuid_1_ecx & CPUID_1_ECX_XSAVE);
    need(t, "x2APIC", in->cpuid_1_ecx & CPUID_1_ECX_X2APIC);
    add(t, "execute-disable (NX)",
        in->cpuid_80000001_edx & CPUID_EXT_EDX_NX ? PREFLIGHT_OK : PREFLIGHT_MISSING,
        "enable Execute Disable in the firmware setup", "%s",
        in->cpuid_80000001_edx & CPUID_EXT_EDX_NX ? "available" : "switched off");
    add(t, "4-level paging", in->la57 ? PREFLIGHT_MISSING : PREFLIGHT_OK,
        "switch off 5-level paging in the firmware setup", "%s",
        in->la57 ? "the firmware uses 5-level paging" : "in use");
    want(t, "invariant TSC", in->cpuid_80000007_edx & CPUID_80000007_EDX_ITSC,
         "not promised: time may drift when the CPU changes its clock");
}

static void check_iommu(struct table *t)
{
    const struct preflight_input *in = t->in;
    const char *units = in->iommu_units == 1 ? "unit" : "units", *row = "VT-d (DMAR table)";
    const char *lost = "no devices can be given to VMs";

    if (!in->has_dmar)
        add(t, row, PREFLIGHT_OPTIONAL, NULL, "absent: %s", lost);
    else if (in->dmar_fault)
        add(t, row, PREFLIGHT_OPTIONAL, NULL, "not usable: %s", in->dmar_fault);
    else if (!in->iommu_remaps)
        add(t, row, PREFLIGHT_OPTIONAL, NULL, "%u %s, no interrupt remapping: %s", in->iommu_units, units,
            lost);
    else
        add(t, row, PREFLIGHT_OK, NULL, "%u %s, interrupt remapping", in->iommu_units, units);
}

static void check_machine(struct table *t)
{
    const struct preflight_input *in = t->in;

    if (in->cpus_needed)
        add(t, "CPUs", in->cpus_found >= in->cpus_needed ? PREFLIGHT_OK : PREFLIGHT_MISSING,
            "correct 'cpus' in bulkhead.conf", "%u found (%s), %u needed", in->cpus_found, in->cpu_source,
            in->cpus_needed);
    else
        add(t, "CPUs", PREFLIGHT_OK, NULL, "%u found (%s)", in->cpus_found, in->cpu_source);
    add(t, "memory for VMs", in->memory_free >= in->memory_needed ? PREFLIGHT_OK : PREFLIGHT_MISSING,
        "lower 'memory' in bulkhead.conf", "%lu MiB free, %lu MiB needed",
        (unsigned long)(in->memory_free >> 20), (unsigned long)(in->memory_needed >> 20));
    add(t, "memory for Bulkhead", in->keeps_too_much ? PREFLIGHT_MISSING : PREFLIGHT_OK,
        "lower 'memory' in bulkhead.conf, or have fewer VMs or vCPUs", "%lu MiB%s",
        (unsigned long)((in->memory_kept + MIB - 1) >> 20),
        in->keeps_too_much ? ", more than there is room for in its address space" : "");
    want(t, "ACPI tables", in->has_acpi, "absent: this firmware has none");
    check_iommu(t);
    want(t, "PCI Express (MCFG table)", in->has_mcfg, "absent: no virtual functions");
    if (in->pci_sriov)
        add(t, "PCI functions", PREFLIGHT_OK, NULL, "%u, of which %u assignable; %u with SR-IOV (%u VFs)",
            in->pci_functions, in->pci_assignable, in->pci_sriov, in->pci_vfs);
    else
        add(t, "PCI functions", PREFLIGHT_OPTIONAL, NULL, "%u, of which %u assignable; none with SR-IOV",
            in->pci_functions, in->pci_assignable);
}

size_t preflight_check(const struct preflight_input *in, struct preflight_row rows[PREFLIGHT_MAX_ROWS])
{
    struct table t = {.rows = rows, .in = in};

    if (check_vmx(&t))
        check_controls(&t);
    check_cpu(&t);
    check_machine(&t);
    return t.count;
}

bool preflight_small_pages(const struct preflight_input *in)
{
    return in->vmx_ept_vpid_cap && (!all(in->vmx_ept_vpid_cap, EPT_2M) ||
                                    vmx_mitigate_multihit(in->cpuid_1_eax, in->arch_capabilities));
}

bool preflight_passed(const struct preflight_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].state == PREFLIGHT_MISSING)
            return false;
    return true;
}

const char *preflight_state_name(enum preflight_state state)
{
    switch (state) {
    case PREFLIGHT_OK:
        return "ok";
    case PREFLIGHT_MISSING:
        return "MISSING";
    default:
        return "optional";
    }
}
