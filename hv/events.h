/* What is delivered to a guest at the next entry: one pure decision over a snapshot of all that is pending
 * (SDM volume 3, sections "Priority among concurrent events", "Double fault", "VM-entry event injection",
 * "Event blocking").
 *
 * The integrator keeps one struct events_state in each vCPU. Exits and handlers set bits in `pending`; before
 * an entry:
 *
 *     if (events_idle(&vcpu->events)) enter;                 // no windows were asked for, see below
 *     refresh activity, shadow, interrupts_on, real_mode, pending_debug, vector/EXTINT bits
 *     plan = events_decide(&vcpu->events)
 *     switch (plan.action) ...; lapic_take()/pic_ack() as plan.source says
 *     write plan.activity, plan.shadow, both windows, inject
 *     events_commit(&vcpu->events, &plan)
 *
 * A window that was requested stays on until a later plan answers without it: call events_decide() after a
 * window exit. */
#pragma once

#include "arch/x86/virt.h"
#include "hv/exits/exit.h"

/* Bits of events_state.pending. */
enum events_pending {
    EVENTS_VECTORING = 1 << 0, /* `vectoring`: its delivery was interrupted by an exit */
    EVENTS_FAULT = 1 << 1,     /* `fault`: a handler's answer, or an intercepted exception to pass on */
    EVENTS_HELD =
        1 << 2, /* `held`: an acknowledged interrupt displaced by a fault; only set by events_commit */
    EVENTS_NMI = 1 << 3,    /* an NMI is latched */
    EVENTS_VECTOR = 1 << 4, /* `vector`: the local APIC has an interrupt above PPR */
    EVENTS_EXTINT = 1 << 5, /* the PIC's output is up and LINT0 lets it through */
    EVENTS_INIT = 1 << 6,   /* an INIT arrived. Who sets it clears EVENTS_SIPI first: older SIPIs are void */
    EVENTS_SIPI = 1 << 7,   /* a SIPI with `sipi_vector` arrived */
    EVENTS_NMI_REBLOCK = 1 << 8, /* exit.nmi_unblocked: an IRET was undone, NMIs are to be blocked again */
    EVENTS_NMI_AGAIN = 1 << 9,   /* with EVENTS_NMI, while none is in service: a second one waits behind it */
};

/* Bits of `shadow`, as VIRT_INTR_SHADOW. */
#define EVENTS_SHADOW_STI    (1u << 0)
#define EVENTS_SHADOW_MOV_SS (1u << 1)
#define EVENTS_SHADOW_NMI    (1u << 3)

struct events_state {
    uint32_t pending;   /* enum events_pending */
    uint8_t activity;   /* enum virt_activity */
    uint8_t shadow;     /* EVENTS_SHADOW_*; other bits are passed through */
    bool interrupts_on; /* RFLAGS.IF */
    bool real_mode;     /* CR0.PE = 0: exceptions push no error codes */
    bool pending_debug; /* VIRT_PENDING_DEBUG is not zero: debug traps come before NMIs and interrupts */
    uint8_t vector, sipi_vector;
    struct event vectoring, fault, held;
};

enum events_action {
    EVENTS_ENTER,        /* enter the guest, with `inject` if it is valid */
    EVENTS_WAIT,         /* halted, shut down or waiting for a SIPI, and nothing here ends it */
    EVENTS_RESET,        /* INIT: put the vCPU in its INIT state (then decide again: a SIPI may follow) */
    EVENTS_START,        /* SIPI: start at sipi_vector << 12 */
    EVENTS_TRIPLE_FAULT, /* stop the VM */
};

/* Where the injected event came from; says what the integrator acknowledges. */
enum events_source {
    EVENTS_FROM_NONE,
    EVENTS_FROM_VECTORING, /* again: nothing to acknowledge */
    EVENTS_FROM_FAULT,
    EVENTS_FROM_NMI,
    EVENTS_FROM_APIC,   /* lapic_take(inject.vector) */
    EVENTS_FROM_EXTINT, /* inject.vector = the PIC's answer to its acknowledge cycle; decide() cannot know it
                         */
};

struct events_plan {
    uint8_t action;   /* enum events_action */
    uint8_t source;   /* enum events_source */
    uint8_t activity; /* to write back: enum virt_activity */
    uint8_t shadow;   /* to write back: VIRT_INTR_SHADOW */
    bool intr_window, nmi_window;
    bool hold;        /* events_commit() moves `vectoring` to `held` */
    uint32_t pending; /* what stays pending once the plan is carried out */
    struct event inject;
};

struct events_plan events_decide(const struct events_state *state);

/* Books the plan: what stays pending, and what is held for later. */
static inline void events_commit(struct events_state *state, const struct events_plan *plan)
{
    if (plan->hold)
        state->held = state->vectoring;
    state->pending = plan->pending;
    state->activity = plan->activity;
    state->shadow = plan->shadow;
}

/* Nothing to decide: running, and nothing pending. (Turn windows off before relying on it.) */
static inline bool events_idle(const struct events_state *state)
{
    return state->pending == 0 && state->activity == VIRT_ACTIVE;
}

enum events_merge {
    EVENTS_SERIAL,       /* *out = second; the first recurs by itself, unless it is an interrupt or NMI */
    EVENTS_DOUBLE_FAULT, /* *out = #DF(0) */
    EVENTS_SHUTDOWN,     /* triple fault; *out is not valid */
};

/* An exception `second` occurred while `first` was being delivered (SDM, "Interrupt 8 - Double Fault
 * Exception"). */
enum events_merge events_merge(const struct event *first, const struct event *second, struct event *out);
