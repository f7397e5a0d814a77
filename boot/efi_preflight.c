#include "boot/efi_cpu.h"
#include "boot/efi_loader.h"
#include "drivers/acpi/acpi_dmar.h"
#include "hv/lib/bits.h"
#include "hv/lib/string.h"

/* SDM volume 4. */
#define MSR_FEATURE_CONTROL     0x3au
#define MSR_VMX_BASIC           0x480u
#define MSR_VMX_PIN             0x481u
#define MSR_VMX_PROC            0x482u
#define MSR_VMX_PROC2           0x48bu
#define MSR_VMX_EPT_VPID_CAP    0x48cu
#define MSR_VMX_TRUE_PIN        0x48du
#define MSR_VMX_TRUE_PROC       0x48eu
#define VMX_BASIC_TRUE_CONTROLS BIT(55)
#define VMX_PROC_SECONDARY      BIT(32 + 31)
#define VMX_PROC2_EPT           BIT(32 + 1)
#define VMX_PROC2_VPID          BIT(32 + 5)
#define MSR_ARCH_CAPABILITIES   0x10au
#define CPUID_1_ECX_VMX         BIT(5)
#define CPUID_7_EDX_ARCH_CAPS   BIT(29)
#define CR4_LA57                BIT(12)

#define CPUID_EXT_MAX   0x80000000u
#define CPUID_EXT_1     0x80000001u
#define CPUID_EXT_BRAND 0x80000002u
#define CPUID_EXT_APM   0x80000007u

/* Each MSR is read only when the one before it says that it exists (SDM volume 3, appendix A): else it is
 * #GP. */
static void capture_vmx(struct preflight_input *in)
{
    in->feature_control = efi_rdmsr(MSR_FEATURE_CONTROL);
    bool has_true = efi_rdmsr(MSR_VMX_BASIC) & VMX_BASIC_TRUE_CONTROLS;
    in->vmx_pin = efi_rdmsr(has_true ? MSR_VMX_TRUE_PIN : MSR_VMX_PIN);
    in->vmx_proc = efi_rdmsr(has_true ? MSR_VMX_TRUE_PROC : MSR_VMX_PROC);
    if (in->vmx_proc & VMX_PROC_SECONDARY)
        in->vmx_proc2 = efi_rdmsr(MSR_VMX_PROC2);
    if (in->vmx_proc2 & (VMX_PROC2_EPT | VMX_PROC2_VPID))
        in->vmx_ept_vpid_cap = efi_rdmsr(MSR_VMX_EPT_VPID_CAP);
}

static void capture_iommu(struct preflight_input *in, const struct acpi_tables *tables)
{
    static struct acpi_dmar dmar; /* too large for the stack */
    in->has_dmar = tables && acpi_has_dmar(tables);
    const char *why = NULL;
    if (!in->has_dmar)
        return;
    if (acpi_read_dmar(tables, &dmar, &why) != STATUS_OK) {
        in->dmar_fault = why ? why : "it cannot be read";
        return;
    }
    in->iommu_units = dmar.unit_count;
    in->iommu_remaps = dmar.can_remap_interrupts;
}

static void capture_pci(struct preflight_input *in)
{
    const struct pci_inventory *inv = efi_pci_scan();
    char text[96];
    in->pci_functions = inv->count + inv->dropped;
    for (uint32_t i = 0; i < inv->count; i++) {
        const struct pci_device *dev = &inv->devices[i];
        in->pci_assignable += pci_verdict(inv, dev, text, sizeof(text));
        in->pci_sriov += dev->sriov.total != 0;
        in->pci_vfs += dev->sriov.total;
    }
}

void efi_preflight_capture(struct preflight_input *in)
{
    uint32_t max_ext = efi_cpuid(CPUID_EXT_MAX).eax;
    struct efi_cpuid r = efi_cpuid(1);

    in->cpuid_1_eax = r.eax;
    in->cpuid_1_ecx = r.ecx;
    if (efi_cpuid(0).eax >= 7 && (efi_cpuid(7).edx & CPUID_7_EDX_ARCH_CAPS))
        in->arch_capabilities = efi_rdmsr(MSR_ARCH_CAPABILITIES);
    if (max_ext >= CPUID_EXT_1)
        in->cpuid_80000001_edx = efi_cpuid(CPUID_EXT_1).edx;
    if (max_ext >= CPUID_EXT_APM)
        in->cpuid_80000007_edx = efi_cpuid(CPUID_EXT_APM).edx;
    for (uint32_t i = 0; i < 3 && max_ext >= CPUID_EXT_BRAND + 2; i++) {
        r = efi_cpuid(CPUID_EXT_BRAND + i);
        memcpy(in->brand + i * sizeof(r), &r, sizeof(r));
    }
    in->la57 = efi_read_cr4() & CR4_LA57;
    if (in->cpuid_1_ecx & CPUID_1_ECX_VMX)
        capture_vmx(in);
    const struct acpi_tables *tables = efi_acpi_tables();
    in->has_acpi = tables != NULL;
    capture_iommu(in, tables);
    in->has_mcfg = tables && acpi_find(tables, "MCFG", 0);
    capture_pci(in);
}

void efi_preflight_print(const struct preflight_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        efi_print("  %-8s  %-28s  %s\n", preflight_state_name(rows[i].state), rows[i].name, rows[i].text);
        if (rows[i].advice)
            efi_print("  %-8s  %-28s  -> %s\n", "", "", rows[i].advice);
    }
}
