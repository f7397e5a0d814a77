/* Exits of APIC virtualization. Bulkhead emulates the local APIC in software and leaves these controls off;
 * the handlers exist because some processors may force one on, and they do what the architecture says. */
#include "hv/exit_table.h"
#include "hv/vm.h"

/* TPR fell below the threshold: something may be deliverable now. */
struct exit_result handle_tpr_below(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    __atomic_or_fetch(&vcpu->requests, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
    return exit_retry();
}

/* Without an APIC-access page this cannot come. */
struct exit_result handle_apic_access(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_stop(STOP_UNHANDLED_EXIT);
}

struct exit_result handle_apic_write(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_stop(STOP_UNHANDLED_EXIT);
}

struct exit_result handle_apic_eoi(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_stop(STOP_UNHANDLED_EXIT);
}
