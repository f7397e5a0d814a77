/* A VM entry was refused: which rule of the SDM the state breaks, in words. */
#include "arch/x86/cpu_hw.h"
#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_check.h"
#include "arch/x86/vmx/vmx_hw.h"
#include "hv/lib/log.h"
#include "hv/vm.h"

static uint64_t read_field(void *ctx, vmcs_field_t field)
{
    (void)ctx;
    return vmcs_read(field);
}

void virt_explain_entry_failure(struct vcpu *vcpu)
{
    struct vmx_check_state state;
    struct vmx_check_finding finding;
    uint32_t widths = cpu_cpuid(0x80000008, 0).eax;
    struct cpuid_result seven = cpu_cpuid(0, 0).eax >= 7 ? cpu_cpuid(7, 0) : (struct cpuid_result){0};
    struct vmx_check_machine machine = {
        .msrs = &vmx_host.msrs,
        .physical_bits = (uint8_t)widths,
        .linear_bits = (uint8_t)(widths >> 8),
        .cpuid_7_ebx = seven.ebx,
        .cpuid_7_ecx = seven.ecx,
    };
    vmx_check_read(&state, &vmx_host.msrs, read_field, NULL);
    if (vmx_check(&machine, &state, &finding) == STATUS_OK)
        log_vcpu(LOG_ERROR, vcpu, "the processor refused the VM entry, but no rule known here is broken");
    else
        log_vcpu(LOG_ERROR, vcpu, "the processor refused the VM entry: %s = 0x%llx, but %s (SDM %s)",
                 finding.field, (unsigned long long)finding.value, finding.rule, finding.section);
}
