/* Nested-paging exits. Guest RAM is mapped completely and with all rights, so what faults is a device, ROM
 * that is written, or nothing; or the first fetch from a large page, where the processor calls for that
 * (struct ept, nx_large). */
#include "hv/exits/emulate.h"
#include "hv/exits/exit_table.h"
#include "hv/lib/log.h"
#include "hv/pc/flash.h"
#include "hv/vm.h"

static enum status allow_fetch(struct vcpu *vcpu, gpa_t address)
{
    struct vm *vm = vcpu->vm;
    vm_lock_devices(vm); /* guards the tables */
    enum status s = ept_allow_exec(&vm->ept, address);
    spin_unlock(&vm->devices);
    return s;
}

struct exit_result handle_nested_fault(struct vcpu *vcpu, const struct exit *exit)
{
    const struct exit_nested *n = &exit->u.nested;
    if (n->fetch && !n->during_walk && vcpu->vm->ept.nx_large) {
        enum status s = allow_fetch(vcpu, n->address);
        if (s == STATUS_OK)
            return exit_retry();
        if (s == ERR_NO_MEMORY) {
            log_vcpu(LOG_ERROR, vcpu, "Bulkhead's own memory is used up: no table for its code");
            return exit_stop(STOP_GUEST_MEMORY);
        }
    }
    if (n->write && (n->during_walk || exit->vectoring.valid) && flash_take_write(vcpu->vm, n->address))
        return exit_retry();
    if (n->fetch || n->during_walk) {
        log_vcpu(LOG_ERROR, vcpu, "%s at guest-physical %llx, where no memory is",
                 n->fetch ? "code was fetched" : "a page table was looked for",
                 (unsigned long long)n->address.v);
        return exit_stop(STOP_BAD_INSTRUCTION);
    }
    if (exit->vectoring
            .valid) { /* SDM volume 3, 28.2.4: the access is the delivery's, not that of the code at RIP */
        log_vcpu(LOG_ERROR, vcpu, "delivery of vector %u reached guest-physical %llx, where no memory is",
                 exit->vectoring.vector, (unsigned long long)n->address.v);
        return exit_stop(STOP_BAD_INSTRUCTION);
    }
    return emulate_mmio(vcpu, exit);
}

/* Only a table entry that we wrote wrongly explains this. The VM is lost, the host is not. */
struct exit_result handle_nested_misconfig(struct vcpu *vcpu, const struct exit *exit)
{
    log_vcpu(LOG_ERROR, vcpu, "EPT misconfiguration at guest-physical %llx",
             (unsigned long long)exit->u.nested.address.v);
    return exit_stop(STOP_GUEST_MEMORY);
}
