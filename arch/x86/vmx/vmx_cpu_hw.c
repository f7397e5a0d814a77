/* VMX root operation: finding out what the processor offers, entering and leaving (SDM volume 3, chapter
 * "Introduction to virtual machine extensions"). */
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/msr.h"
#include "arch/x86/traps.h"
#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_bitmaps.h"
#include "arch/x86/vmx/vmx_hw.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

#define CPUID_1_ECX_VMX       (1u << 5)
#define CPUID_1_ECX_XSAVE     (1u << 26)
#define CPUID_EXT_EDX_RDTSCP  (1u << 27)
#define CPUID_7_EDX_ARCH_CAPS (1u << 29)

struct vmx_host vmx_host;

static uint64_t read_msr(void *ctx, uint32_t msr)
{
    (void)ctx;
    return cpu_rdmsr(msr);
}

static enum status explain_missing(const struct vmx_caps_report *report, char *why, size_t size)
{
    for (uint32_t i = 0; i < report->count; i++) {
        if (report->lines[i].finding == VMX_MISSING) {
            fmt_format(why, size, "this processor lacks \"%s\" (%u missing in all): %s",
                       report->lines[i].name, report->missing, report->lines[i].meaning);
            return ERR_UNSUPPORTED;
        }
    }
    fmt_format(why, size, "the processor forces a VMX control that Bulkhead does not know");
    return ERR_UNSUPPORTED;
}

static void find_extended_state(void)
{
    vmx_host.has_xsave = cpu_cpuid(1, 0).ecx & CPUID_1_ECX_XSAVE;
    if (vmx_host.has_xsave) {
        struct cpuid_result d = cpu_cpuid(0xd, 0);
        vmx_host.host_xcr0 = ((uint64_t)d.edx << 32) | d.eax;
        vmx_host.xsave_size = d.ecx;
    }
    vmx_host.has_rdtscp = cpu_cpuid(0x80000001, 0).edx & CPUID_EXT_EDX_RDTSCP;
}

static void choose_mitigations(void)
{
    char text[240];
    struct cpuid_result features = cpu_cpuid(0, 0).eax >= 7 ? cpu_cpuid(7, 0) : (struct cpuid_result){0};
    struct vmx_mitigate_inputs in = {
        .cpuid_1_eax = cpu_cpuid(1, 0).eax,
        .cpuid_7_edx = features.edx,
        .cpuid_7_2_edx = features.eax >= 2 ? cpu_cpuid(7, 2).edx : 0,
        .arch_capabilities = virt_host_arch_capabilities(),
    };
    struct vmx_mitigations m = vmx_mitigate_decide(&in);
    vmx_host.mitigate = m;
    vmx_host.host_spec_ctrl = (m.ibrs_all ? SPEC_CTRL_IBRS : 0) | (m.bhi_dis_s ? SPEC_CTRL_BHI_DIS_S : 0) |
                              (m.rrsba_dis_s ? SPEC_CTRL_RRSBA_DIS_S : 0);
    vmx_exit_flags = (uint8_t)((m.fill_rsb ? VMX_EXIT_FILL_RSB : 0) | (m.clear_bhb ? VMX_EXIT_CLEAR_BHB : 0));
    vmx_entry_verw = m.verw;
    vmx_mitigate_describe(&m, text, sizeof(text));
    log_line(LOG_INFO, "core", "speculation mitigations: %s", text);
}

enum status virt_init(struct pool *pool, char *why, size_t why_size)
{
    static struct vmx_caps_report report; /* boot CPU only; too large for the stack */
    vmx_host.pool = pool;
    if (!(cpu_cpuid(1, 0).ecx & CPUID_1_ECX_VMX)) {
        fmt_format(why, why_size, "this processor has no Intel VT-x (CPUID.1:ECX.VMX is 0)");
        return ERR_UNSUPPORTED;
    }
    vmx_caps_read(&vmx_host.msrs, read_msr, NULL);
    if (vmx_resolve_controls(&vmx_host.msrs, &vmx_host.controls, &report) != STATUS_OK)
        return explain_missing(&report, why, why_size);
    find_extended_state();
    if (!vmx_host.has_xsave) {
        fmt_format(why, why_size,
                   "this processor has no XSAVE: floating-point state could not be kept apart");
        return ERR_UNSUPPORTED;
    }
    choose_mitigations();

    uint8_t *bitmaps = pool_alloc_pages(pool, 2);
    if (!bitmaps) {
        fmt_format(why, why_size, "Bulkhead's own memory is used up");
        return ERR_NO_MEMORY;
    }
    vmx_io_bitmap_init(bitmaps, bitmaps + VMX_BITMAP_SIZE);
    vmx_host.io_bitmap_a = pool_hpa(pool, bitmaps);
    vmx_host.io_bitmap_b = pool_hpa(pool, bitmaps + VMX_BITMAP_SIZE);
    return STATUS_OK;
}

enum status virt_cpu_start(struct cpu *cpu)
{
    uint64_t feature_control = cpu_rdmsr(MSR_IA32_FEATURE_CONTROL);
    switch (vmx_lock_state(feature_control)) {
    case VMX_LOCK_DISABLED:
        return ERR_UNSUPPORTED;
    case VMX_LOCK_OPEN:
        cpu_wrmsr(MSR_IA32_FEATURE_CONTROL,
                  feature_control | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_OUTSIDE_SMX);
        break;
    case VMX_LOCK_ENABLED:
        break;
    }
    struct cpu_hw *hw = cpu->hw;
    uint32_t *region = pool_alloc(vmx_host.pool);
    if (!region)
        return ERR_NO_MEMORY;
    *region = vmx_host.controls.revision;
    hw->vmxon = pool_hpa(vmx_host.pool, region);

    cpu_write_cr0(vmx_cr0_for_root(&vmx_host.msrs, cpu_read_cr0()));
    cpu_write_cr4(vmx_cr4_for_root(&vmx_host.msrs, cpu_read_cr4()));
    bool failed;
    __asm__ volatile("vmxon %1" : "=@ccbe"(failed) : "m"(hw->vmxon) : "memory");
    if (failed)
        return ERR_UNSUPPORTED;
    if (vmx_host.mitigate.spec_ctrl)
        cpu_wrmsr(MSR_IA32_SPEC_CTRL, vmx_host.host_spec_ctrl);
    cpu_xsetbv(0, vmx_host.host_xcr0 ? vmx_host.host_xcr0 & ~(XCR0_BNDREGS | XCR0_BNDCSR) : XCR0_X87);
    return STATUS_OK;
}

void virt_cpu_stop(struct cpu *cpu)
{
    struct cpu_hw *hw = cpu->hw;
    if (!hw->vmxon.v)
        return;
    __asm__ volatile("vmxoff" ::: "cc", "memory"); /* INIT is blocked in VMX root operation */
    cpu_write_cr4(cpu_read_cr4() & ~CR4_VMXE);
    hw->vmxon = hpa(0);
}

void virt_page_sizes(bool *has_2m, bool *has_1g)
{
    *has_2m = vmx_host.controls.ept_2m;
    *has_1g = vmx_host.controls.ept_1g;
}

void virt_host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    struct cpuid_result r = cpu_cpuid(leaf, subleaf);
    out[0] = r.eax;
    out[1] = r.ebx;
    out[2] = r.ecx;
    out[3] = r.edx;
}

uint32_t virt_host_microcode(void)
{
    /* SDM volume 3, "Determining the Signature": CPUID leaf 1 loads the revision into the upper half. */
    uint64_t value;
    if (!traps_wrmsr_safe(MSR_IA32_BIOS_SIGN_ID, 0))
        return 0;
    cpu_cpuid(1, 0);
    return traps_rdmsr_safe(MSR_IA32_BIOS_SIGN_ID, &value) ? (uint32_t)(value >> 32) : 0;
}

uint64_t virt_host_arch_capabilities(void)
{
    bool exists = cpu_cpuid(0, 0).eax >= 7 && (cpu_cpuid(7, 0).edx & CPUID_7_EDX_ARCH_CAPS);
    return exists ? cpu_rdmsr(MSR_IA32_ARCH_CAPABILITIES) : 0;
}

struct virt_features virt_features(void)
{
    return (struct virt_features){
        .spec_ctrl = vmx_host.mitigate.spec_ctrl,
        .nx_large = vmx_host.mitigate.nx_large,
        .rdtscp = vmx_host.has_rdtscp && (vmx_host.controls.proc2 & PROC2_ENABLE_RDTSCP),
        .invpcid = vmx_host.controls.proc2 & PROC2_ENABLE_INVPCID,
    };
}
