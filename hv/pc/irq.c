/* Interrupt routing in a VM: lines to PIC and IOAPIC, messages and IPIs to local APICs. */
#include "hv/lib/log.h"
#include "hv/vm.h"

#define ISA_LINES       16u
#define TIMER_LINE      0u
#define TIMER_PIN       2u /* the ACPI interrupt source override 0 -> 2 */
#define NO_PIN_OF_LINE2 2u /* the PIC's cascade */

void irq_set_line(struct vm *vm, unsigned line, bool level)
{
    struct platform *p = &vm->platform;
    if (line < ISA_LINES)
        pic_set_irq(&p->pic, line, level);
    if (line != NO_PIN_OF_LINE2)
        ioapic_set_pin(&p->ioapic, line == TIMER_LINE ? TIMER_PIN : line, level);
}

/* Hands a message to one local APIC. */
static bool deliver_to(struct vcpu *vcpu, uint8_t mode, uint8_t vector, bool level)
{
    switch (mode) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
        if (!lapic_post(&vcpu->lapic, vector, level))
            return false;
        vcpu_request(vcpu, VCPU_REQ_EVENT);
        return true;
    case LAPIC_NMI:
        vcpu_request_nmi(vcpu);
        return true;
    case LAPIC_INIT:
        __atomic_and_fetch(&vcpu->requests, ~(uint32_t)VCPU_REQ_SIPI,
                           __ATOMIC_SEQ_CST); /* older SIPIs are void */
        vcpu_request(vcpu, VCPU_REQ_INIT);
        return true;
    case LAPIC_SIPI:
        __atomic_store_n(&vcpu->sipi_vector, vector, __ATOMIC_RELEASE);
        vcpu_request(vcpu, VCPU_REQ_SIPI);
        return true;
    default: /* SMI: no SMM in this machine; ExtINT by message: the PIC is wired to LINT0 of vCPU 0 */
        return false;
    }
}

/* Lowest priority goes to the matching APIC with the least task priority, the lowest ID among equals (SDM
 * volume 3, "Lowest Priority Delivery Mode"). An APIC disabled by software does not compete ("Local APIC
 * State After It Has Been Software Disabled"). */
static bool deliver_lowest(struct vm *vm, const struct vcpu *except, const struct lapic_ipi *ipi, bool level)
{
    struct vcpu *best = NULL;
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];
        if (v == except || !lapic_matches(&v->lapic, ipi) || !lapic_accepts_fixed(&v->lapic))
            continue;
        if (!best || v->lapic.tpr < best->lapic.tpr)
            best = v;
    }
    return best && deliver_to(best, LAPIC_LOWEST, ipi->vector, level);
}

bool irq_deliver(struct vm *vm, uint32_t dest, bool logical, uint8_t mode, uint8_t vector, bool level)
{
    struct lapic_ipi ipi = {.dest = dest, .vector = vector, .mode = mode, .logical = logical, .assert = true};
    bool accepted = false;
    if (mode == LAPIC_LOWEST)
        return deliver_lowest(vm, NULL, &ipi, level);
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        if (lapic_matches(&vm->vcpus[i]->lapic, &ipi))
            accepted |= deliver_to(vm->vcpus[i], mode, vector, level);
    }
    return accepted;
}

void irq_send_ipi(struct vcpu *from, const struct lapic_ipi *ipi)
{
    struct vm *vm = from->vm;
    if (ipi->mode == LAPIC_LOWEST) {
        deliver_lowest(vm, ipi->shorthand == LAPIC_DEST_OTHERS ? from : NULL, ipi, false);
        return;
    }
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        struct vcpu *v = vm->vcpus[i];
        bool self = v == from;
        bool named = ipi->shorthand == LAPIC_DEST_SELF ? self : lapic_matches(&v->lapic, ipi);
        if (ipi->shorthand == LAPIC_DEST_OTHERS && self)
            named = false;
        if (named)
            deliver_to(v, ipi->mode, ipi->vector, false);
    }
}
