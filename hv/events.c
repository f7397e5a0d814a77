/* The event decision. Sections are the SDM's, volume 3. */
#include "hv/events.h"

#define VECTOR_NMI 2u
#define VECTOR_DF  8u
#define VECTOR_DE  0u
#define VECTOR_TS  10u
#define VECTOR_NP  11u
#define VECTOR_SS  12u
#define VECTOR_GP  13u
#define VECTOR_PF  14u
#define VECTOR_VE  20u
#define VECTOR_CP  21u

#define SHADOW_INSTRUCTION (EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS)

enum exception_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT };

/* Table "Interrupt and Exception Classes". Interrupts, NMIs and software events are benign whatever their
 * vector. */
static enum exception_class classify(const struct event *event)
{
    if (event->type != EVENT_EXCEPTION)
        return CLASS_BENIGN;
    switch (event->vector) {
    case VECTOR_DE:
    case VECTOR_TS:
    case VECTOR_NP:
    case VECTOR_SS:
    case VECTOR_GP:
    case VECTOR_CP:
        return CLASS_CONTRIBUTORY;
    case VECTOR_PF:
    case VECTOR_VE:
        return CLASS_PAGE_FAULT;
    case VECTOR_DF:
        return CLASS_DOUBLE_FAULT;
    default:
        return CLASS_BENIGN;
    }
}

/* Table "Conditions for Generating a Double Fault". */
enum events_merge events_merge(const struct event *first, const struct event *second, struct event *out)
{
    enum exception_class a = classify(first), b = classify(second);
    if (a == CLASS_DOUBLE_FAULT && b != CLASS_BENIGN) {
        *out = (struct event){.valid = false};
        return EVENTS_SHUTDOWN;
    }
    if ((a == CLASS_CONTRIBUTORY && b == CLASS_CONTRIBUTORY) ||
        (a == CLASS_PAGE_FAULT && (b == CLASS_CONTRIBUTORY || b == CLASS_PAGE_FAULT))) {
        *out = (struct event){.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_DF, .has_error = true};
        return EVENTS_DOUBLE_FAULT;
    }
    *out = *second;
    return EVENTS_SERIAL;
}

/* Entry checks, "VM-Entry Control Fields": no error code is delivered in real mode. */
static void plan_inject(const struct events_state *state, struct events_plan *plan, const struct event *event,
                        enum events_source source)
{
    plan->inject = *event;
    plan->inject.valid = true;
    if (state->real_mode) {
        plan->inject.has_error = false;
        plan->inject.error = 0;
    }
    plan->source = (uint8_t)source;
    /* Delivery ends the shadow anyway; left in, an entry with RFLAGS.TF would be refused (SDM volume
     * 3, 27.3.1.5: blocking by STI or MOV SS with TF wants a pending single-step trap). */
    plan->shadow &= (uint8_t)~SHADOW_INSTRUCTION;
    plan->activity = VIRT_ACTIVE; /* "Activity State": delivery of an event ends HLT and shutdown */
}

/* INIT, and all that a vCPU waiting for a SIPI does. True: the plan is complete. */
static bool plan_init_sipi(const struct events_state *state, struct events_plan *plan)
{
    if (state->activity == VIRT_WAIT_SIPI) {
        /* "Activity State": everything but SIPIs is blocked; another INIT changes nothing. */
        bool start = state->pending & EVENTS_SIPI;
        plan->action = start ? EVENTS_START : EVENTS_WAIT;
        plan->activity = start ? VIRT_ACTIVE : VIRT_WAIT_SIPI;
        plan->pending &= ~(uint32_t)(EVENTS_SIPI | EVENTS_INIT);
        return true;
    }
    if (state->pending & EVENTS_INIT) {
        plan->action = EVENTS_RESET;
        plan->pending &= EVENTS_SIPI;
        return true;
    }
    plan->pending &= ~(uint32_t)EVENTS_SIPI; /* ignored by a processor that is not waiting for it */
    return false;
}

/* An exception to deliver, on its own or on top of an interrupted delivery. */
static void plan_fault(const struct events_state *state, struct events_plan *plan)
{
    struct event event = state->fault;
    plan->pending &= ~(uint32_t)(EVENTS_FAULT | EVENTS_VECTORING);
    if (state->pending & EVENTS_VECTORING) {
        if (events_merge(&state->vectoring, &state->fault, &event) == EVENTS_SHUTDOWN) {
            plan->action = EVENTS_TRIPLE_FAULT;
            return;
        }
        /* Exceptions recur when their instruction does; interrupts were acknowledged and would be lost. */
        if (state->vectoring.type == EVENT_EXTERNAL_INTERRUPT) {
            plan->hold = true;
            plan->pending |= EVENTS_HELD;
        } else if (state->vectoring.type == EVENT_NMI) {
            plan->pending |= EVENTS_NMI; /* NMIs are blocked now, and until the fault handler's IRET */
        }
    }
    plan_inject(state, plan, &event, EVENTS_FROM_FAULT);
}

/* "Information for VM Exits During Event Delivery": the interrupted delivery happens first. */
static void plan_vectoring(const struct events_state *state, struct events_plan *plan)
{
    /* The delivery had set blocking by NMI; an entry that injects an NMI must find it clear, and sets it
     * again. */
    if (state->vectoring.type == EVENT_NMI)
        plan->shadow &= (uint8_t)~EVENTS_SHADOW_NMI;
    plan->pending &= ~(uint32_t)EVENTS_VECTORING;
    plan_inject(state, plan, &state->vectoring, EVENTS_FROM_VECTORING);
}

/* NMI: blocked by an NMI in service, by MOV SS, and (some processors' entry check) by STI; and debug traps of
 * the previous instruction come first. */
static bool nmi_is_open(const struct events_state *state, const struct events_plan *plan)
{
    return !(plan->shadow & (EVENTS_SHADOW_NMI | SHADOW_INSTRUCTION)) && !state->pending_debug;
}

static bool interrupts_are_open(const struct events_state *state, const struct events_plan *plan)
{
    return state->interrupts_on && !(plan->shadow & SHADOW_INSTRUCTION) && !state->pending_debug &&
           state->activity != VIRT_SHUTDOWN;
}

/* NMI before maskable interrupts; of these a held one, then the PIC's, then the local APIC's. */
static void plan_interrupts(const struct events_state *state, struct events_plan *plan)
{
    if ((plan->pending & EVENTS_NMI) && nmi_is_open(state, plan)) {
        struct event nmi = {.type = EVENT_NMI, .vector = VECTOR_NMI};
        plan->pending &= ~(uint32_t)(plan->pending & EVENTS_NMI_AGAIN ? EVENTS_NMI_AGAIN : EVENTS_NMI);
        plan_inject(state, plan, &nmi, EVENTS_FROM_NMI);
    } else if (!interrupts_are_open(state, plan)) {
        return;
    } else if (plan->pending & EVENTS_HELD) {
        plan->pending &= ~(uint32_t)EVENTS_HELD;
        plan_inject(state, plan, &state->held, EVENTS_FROM_VECTORING);
    } else if (plan->pending & (EVENTS_EXTINT | EVENTS_VECTOR)) {
        bool extint = plan->pending & EVENTS_EXTINT;
        struct event interrupt = {.type = EVENT_EXTERNAL_INTERRUPT, .vector = extint ? 0 : state->vector};
        plan->pending &= ~(uint32_t)(extint ? EVENTS_EXTINT : EVENTS_VECTOR);
        plan_inject(state, plan, &interrupt, extint ? EVENTS_FROM_EXTINT : EVENTS_FROM_APIC);
    }
}

/* Exits to ask for, so that what stays pending gets its turn. */
static void plan_windows(struct events_plan *plan)
{
    plan->intr_window = plan->pending & (EVENTS_HELD | EVENTS_EXTINT | EVENTS_VECTOR);
    if (!(plan->pending & EVENTS_NMI))
        return;
    /* Processors differ in whether STI blocks the NMI window, so a window could open at once and forever.
     * STI's shadow implies IF = 1: the interrupt window opens one instruction later. */
    if ((plan->shadow & EVENTS_SHADOW_STI) && !plan->inject.valid)
        plan->intr_window = true;
    else
        plan->nmi_window = true;
}

struct events_plan events_decide(const struct events_state *state)
{
    struct events_plan plan = {
        .action = EVENTS_ENTER,
        .activity = state->activity,
        .shadow = state->shadow,
        .pending = state->pending & ~(uint32_t)EVENTS_NMI_REBLOCK,
    };
    if (plan_init_sipi(state, &plan))
        return plan;
    if (state->activity == VIRT_HALTED) {
        plan.shadow &= (uint8_t)~SHADOW_INSTRUCTION; /* HLT was the one instruction the shadow covered */
        if (state->pending_debug)
            plan.activity = VIRT_ACTIVE; /* the trap after HLT ends it */
    }
    /* "Basic VM-Exit Information", bit 12 of the interruption information: undefined during event delivery.
     */
    if ((state->pending & EVENTS_NMI_REBLOCK) && !(state->pending & EVENTS_VECTORING))
        plan.shadow |= EVENTS_SHADOW_NMI;

    if (state->pending & EVENTS_FAULT)
        plan_fault(state, &plan);
    else if (state->pending & EVENTS_VECTORING)
        plan_vectoring(state, &plan);
    else
        plan_interrupts(state, &plan);
    if (plan.action == EVENTS_TRIPLE_FAULT)
        return plan;
    if (plan.activity != VIRT_ACTIVE)
        plan.action = EVENTS_WAIT;
    plan_windows(&plan);
    return plan;
}
