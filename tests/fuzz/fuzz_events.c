/* The event decision driven through long histories of a guest that is interrupted, faults, halts and returns:
 * each plan obeys the entry checks, and no acknowledged interrupt and no NMI is ever lost. */
#include <stdlib.h>
#include <string.h>

#include "hv/events.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

#define SHADOW_INSTRUCTION (EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS)

struct model {
    struct events_state s;
    unsigned acknowledged, delivered; /* external interrupts */
    bool nmi_owed;                    /* at least one NMI arrived and was not delivered to its end */
};

static void check_plan(const struct events_state *s, const struct events_plan *p)
{
    if (p->inject.valid && p->inject.type == EVENT_EXTERNAL_INTERRUPT)
        CHECK(s->interrupts_on && !(p->shadow & SHADOW_INSTRUCTION));
    if (p->inject.valid && p->inject.type == EVENT_NMI)
        CHECK(!(p->shadow & (SHADOW_INSTRUCTION | EVENTS_SHADOW_NMI)));
    if (s->real_mode)
        CHECK(!p->inject.has_error);
    CHECK(p->inject.valid == (p->source != EVENTS_FROM_NONE));
    CHECK(!p->inject.valid || (p->action == EVENTS_ENTER && p->activity == VIRT_ACTIVE));
    CHECK(!(p->pending & (EVENTS_VECTORING | EVENTS_FAULT | EVENTS_NMI_REBLOCK)) ||
          s->activity == VIRT_WAIT_SIPI);
    if (p->action == EVENTS_ENTER)
        CHECK(!(p->pending & (EVENTS_VECTOR | EVENTS_EXTINT | EVENTS_HELD)) || p->intr_window);
    if (events_idle(s))
        CHECK(p->action == EVENTS_ENTER && !p->inject.valid && !p->intr_window && !p->nmi_window);
}

static void reset(struct model *m, uint8_t activity)
{
    m->s.shadow = 0;
    m->s.interrupts_on = false;
    m->s.activity = activity;
    m->acknowledged = m->delivered = 0;
    m->nmi_owed = false;
}

/* The entry: the injected event is delivered, or an exit interrupts its delivery (`interrupted`), maybe with
 * a fault. */
static void enter(struct model *m, const struct events_plan *p, uint8_t choice)
{
    struct events_state *s = &m->s;
    if (p->source == EVENTS_FROM_APIC || p->source == EVENTS_FROM_EXTINT)
        m->acknowledged++;
    if (!p->inject.valid)
        return;
    s->shadow &= (uint8_t)~SHADOW_INSTRUCTION;
    if (p->inject.type == EVENT_NMI)
        s->shadow |= EVENTS_SHADOW_NMI;
    if (choice & 1) { /* EPT violation on the IDT, say */
        s->vectoring = p->inject;
        s->pending |= EVENTS_VECTORING;
        if (choice & 2) {
            s->fault = (struct event){
                .valid = true, .type = EVENT_EXCEPTION, .vector = choice >> 3, .has_error = choice & 4};
            s->pending |= EVENTS_FAULT;
        }
        return;
    }
    if (p->inject.type == EVENT_EXTERNAL_INTERRUPT)
        m->delivered++;
    if (p->inject.type == EVENT_NMI)
        m->nmi_owed = false;
    s->interrupts_on = choice & 2; /* trap or interrupt gate */
}

/* What the guest or the world does between two entries. False: this cannot happen now. */
static void world(struct model *m, uint8_t op, uint8_t value)
{
    struct events_state *s = &m->s;
    bool runs = s->activity == VIRT_ACTIVE && !(s->pending & EVENTS_VECTORING);
    switch (op % 12) {
    case 0:
        s->pending |= EVENTS_VECTOR;
        s->vector = value;
        break;
    case 1:
        s->pending ^= EVENTS_EXTINT;
        break;
    case 2:
        s->pending |= EVENTS_NMI | (value & 1 && !(s->shadow & EVENTS_SHADOW_NMI) ? EVENTS_NMI_AGAIN : 0);
        m->nmi_owed = true;
        break;
    case 3: /* INIT, perhaps with its SIPI right behind */
        s->pending = (s->pending & ~(uint32_t)EVENTS_SIPI) | EVENTS_INIT | (value & 1 ? EVENTS_SIPI : 0);
        break;
    case 4:
        s->pending |= EVENTS_SIPI;
        break;
    case 5:
        if (runs && s->interrupts_on)
            s->activity = VIRT_HALTED;
        break;
    case 6:
        if (runs) { /* CLI, STI, MOV SS */
            s->interrupts_on = value & 1;
            s->shadow &= (uint8_t)~SHADOW_INSTRUCTION;
            s->shadow |= value & 1 && value & 2 ? EVENTS_SHADOW_STI : value & 4 ? EVENTS_SHADOW_MOV_SS : 0;
        }
        break;
    case 7:
        if (runs) /* an instruction later */
            s->shadow &= (uint8_t)~SHADOW_INSTRUCTION;
        break;
    case 8:
        if (runs) { /* IRET, undone by an exit or not */
            if (value & 1 && s->shadow & EVENTS_SHADOW_NMI)
                s->pending |= EVENTS_NMI_REBLOCK;
            s->shadow &= (uint8_t)~EVENTS_SHADOW_NMI;
            s->interrupts_on |= value & 2;
        }
        break;
    case 9:
        if (runs) {
            s->pending |= EVENTS_FAULT;
            s->fault = (struct event){
                .valid = true, .type = EVENT_EXCEPTION, .vector = value & 31, .has_error = value & 32};
        }
        break;
    case 10:
        if (runs)
            s->pending_debug = value & 1;
        break;
    default:
        if (runs)
            s->real_mode = value & 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model m = {.s = {.activity = VIRT_ACTIVE}};
    for (; size >= 3; data += 3, size -= 3) {
        world(&m, data[0], data[1]);
        struct events_plan p = events_decide(&m.s);
        check_plan(&m.s, &p);
        CHECK(!p.hold || !(m.s.pending & EVENTS_HELD)); /* one slot is enough */
        events_commit(&m.s, &p);
        if (p.action == EVENTS_TRIPLE_FAULT)
            return 0;
        if (p.action == EVENTS_RESET)
            reset(&m, VIRT_WAIT_SIPI);
        else if (p.action == EVENTS_START)
            reset(&m, VIRT_ACTIVE);
        else if (p.action == EVENTS_ENTER)
            enter(&m, &p, data[2]);
        /* The books balance: what was acknowledged is delivered, held, or in the middle of its delivery. */
        bool in_delivery = (m.s.pending & EVENTS_VECTORING) && m.s.vectoring.type == EVENT_EXTERNAL_INTERRUPT;
        CHECK(m.acknowledged == m.delivered + !!(m.s.pending & EVENTS_HELD) + in_delivery);
        bool nmi_somewhere = (m.s.pending & EVENTS_NMI) ||
                             ((m.s.pending & EVENTS_VECTORING) && m.s.vectoring.type == EVENT_NMI);
        CHECK(!m.nmi_owed || nmi_somewhere);
    }
    return 0;
}
