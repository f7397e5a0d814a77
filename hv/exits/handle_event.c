/* Exits that are events: interrupts and exceptions, windows, timers, and the ends of a VM. */
#include "arch/x86/cpu.h"
#include "arch/x86/virt.h"
#include "hv/exits/exit_table.h"
#include "hv/exits/task_switch.h"
#include "hv/lib/log.h"
#include "hv/pc/warm_reset.h"
#include "hv/vm.h"

#define NMI_LINES 8u /* logged per CPU, then silence */

/* #DB and #AC are intercepted against delivery loops (see vmx_vcpu_hw.c) and go on to the guest. */
struct exit_result handle_exception(struct vcpu *vcpu, const struct exit *exit)
{
    const struct event *e = &exit->u.exception;
    if (e->vector == VECTOR_MC)
        host_panic("machine check while %s vCPU %u ran", vcpu->vm->name, vcpu->id);
    if (e->vector == VECTOR_DB)
        virt_debug_status(vcpu, exit->exception_info);
    return (struct exit_result){.action = ACTION_INJECT,
                                .length = e->insn_len,
                                .event_type = e->type,
                                .event_vector = e->vector,
                                .event_has_error = e->has_error,
                                .event_error = e->error};
}

struct exit_result handle_nmi(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    host_handle_nmi();
    if (vcpu->cpu->nmis <= NMI_LINES)
        log_line(LOG_WARN, "core", "CPU %u: host NMI %u ignored", vcpu->cpu->index, vcpu->cpu->nmis);
    return exit_retry();
}

struct exit_result handle_interrupt(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    host_handle_interrupt(exit->u.interrupt);
    return exit_retry();
}

struct exit_result handle_triple_fault(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    return warm_reset(vcpu->vm) ? exit_retry() : exit_stop(STOP_TRIPLE_FAULT);
}

/* An INIT on the host's wires: nobody sends them to us; dropping it keeps the guest alive. */
struct exit_result handle_init_signal(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    log_vcpu(LOG_WARN, vcpu, "host INIT signal ignored");
    return exit_retry();
}

/* The activity state wait-for-SIPI is never entered in hardware: waiting is done in vcpu_prepare_entry(). */
struct exit_result handle_sipi(struct vcpu *vcpu, const struct exit *exit)
{
    log_vcpu(LOG_WARN, vcpu, "host SIPI %02x ignored", exit->u.sipi);
    return exit_retry();
}

/* The guest can take what waits now: vcpu_prepare_entry() looks. */
struct exit_result handle_window(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    __atomic_or_fetch(&vcpu->requests, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
    return exit_retry();
}

struct exit_result handle_task_switch(struct vcpu *vcpu, const struct exit *exit)
{
    return task_switch(vcpu, exit);
}

/* Deadlines are looked at before every entry; this exit only makes one happen. */
struct exit_result handle_timer(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_retry();
}

struct exit_result handle_bus_lock(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_retry(); /* trap-like: the locked access is done, its cost is now bounded by the exit */
}

struct exit_result handle_notify(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_retry(); /* the guest held off events for long; leaving it was the cure */
}

struct exit_result handle_entry_failure(struct vcpu *vcpu, const struct exit *exit)
{
    log_vcpu(LOG_ERROR, vcpu, "VM entry failed, reason %u, qualification %llu", exit->reason & 0xffff,
             (unsigned long long)exit->u.entry_failure.qualification);
    virt_explain_entry_failure(vcpu);
    return exit_stop(STOP_ENTRY_FAILED);
}

/* An exit that our controls rule out, or that the SDM does not know. */
struct exit_result handle_unexpected(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_stop(STOP_UNHANDLED_EXIT);
}
