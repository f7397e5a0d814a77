/* Exits of APIC virtualization. Bulkhead emulates the local APIC in software and leaves these controls off;
 * the handlers exist because some processors may force one on, and they do what the architecture says. */
#include "hv/exits/emulate.h"
#include "hv/exits/exit_table.h"
#include "hv/vm.h"

/* Access types of APIC-access exits. */
enum { APIC_LINEAR_READ = 0, APIC_LINEAR_WRITE = 1 };

/* TPR fell below the threshold: something may be deliverable now. */
struct exit_result handle_tpr_below(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    __atomic_or_fetch(&vcpu->requests, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
    return exit_retry();
}

/* An access to the APIC-access page: what an EPT violation on the APIC's page is elsewhere. Fetching code
 * from it, or delivering events through it, makes no sense (SDM table "exit qualification for APIC-access VM
 * exits"). */
struct exit_result handle_apic_access(struct vcpu *vcpu, const struct exit *exit)
{
    if (exit->u.apic.access > APIC_LINEAR_WRITE || exit->vectoring.valid)
        return exit_stop(STOP_UNHANDLED_EXIT);
    struct exit mmio = *exit;
    mmio.u.nested = (struct exit_nested){
        .address = gpa(lapic_mmio_base(&vcpu->lapic).v + exit->u.apic.offset),
        .read = exit->u.apic.access == APIC_LINEAR_READ,
        .write = exit->u.apic.access == APIC_LINEAR_WRITE,
    };
    return emulate_mmio(vcpu, &mmio);
}

/* Trap-like, with the value in a virtual-APIC page: we have none, so nothing can be made of it. */
struct exit_result handle_apic_write(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_stop(STOP_UNHANDLED_EXIT);
}

/* Trap-like: the EOI is done, the IOAPIC is to hear of it. */
struct exit_result handle_apic_eoi(struct vcpu *vcpu, const struct exit *exit)
{
    vcpu->lapic.env->eoi(vcpu->lapic.env->ctx, exit->u.interrupt);
    return exit_retry();
}
