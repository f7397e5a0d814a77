/* The handler of every kind of exit. A handler decides; vcpu_apply_result() acts. */
#pragma once

#include "hv/vcpu.h"

typedef struct exit_result (*exit_handler)(struct vcpu *vcpu, const struct exit *exit);

struct exit_row {
    const char *name;
    exit_handler handle; /* never NULL */
};
extern const struct exit_row exit_table[EXIT_KIND_COUNT];

/* Calls the handler of this exit's kind. */
struct exit_result exit_dispatch(struct vcpu *vcpu, const struct exit *exit);

/* hv/exits/handle_cpu.c */
struct exit_result handle_cpuid(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_hlt(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_cache(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_invalidate(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_rdpmc(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_rdtsc(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_rdtscp(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_hypercall(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_undefined(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_pause(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_desc_access(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_xsetbv(struct vcpu *vcpu, const struct exit *exit);
/* hv/exits/handle_event.c */
struct exit_result handle_exception(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_nmi(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_interrupt(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_triple_fault(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_init_signal(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_sipi(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_window(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_task_switch(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_timer(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_bus_lock(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_notify(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_entry_failure(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_unexpected(struct vcpu *vcpu, const struct exit *exit);
/* hv/exits/handle_apic.c */
struct exit_result handle_tpr_below(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_apic_access(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_apic_write(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_apic_eoi(struct vcpu *vcpu, const struct exit *exit);
/* hv/exits/handle_cr.c */
struct exit_result handle_cr(struct vcpu *vcpu, const struct exit *exit);
/* MOV to CR3, but for the choice of what to flush. False: #GP(0). */
bool handle_cr_load_cr3(struct vcpu *vcpu, uint64_t value);
struct exit_result handle_dr(struct vcpu *vcpu, const struct exit *exit);
/* hv/exits/handle_msr.c */
struct exit_result handle_rdmsr(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_wrmsr(struct vcpu *vcpu, const struct exit *exit);
/* hv/exits/handle_io.c */
struct exit_result handle_io(struct vcpu *vcpu, const struct exit *exit);
/* hv/exits/handle_memory.c */
struct exit_result handle_nested_fault(struct vcpu *vcpu, const struct exit *exit);
struct exit_result handle_nested_misconfig(struct vcpu *vcpu, const struct exit *exit);
