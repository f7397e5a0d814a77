/* The event decision: the SDM's tables row by row, then every combination of inputs against the entry checks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "hv/events.h"

static struct event exception(uint8_t vector)
{
    return (struct event){.valid = true, .type = EVENT_EXCEPTION, .vector = vector};
}
static struct event exception_error(uint8_t vector, uint32_t error)
{
    return (struct event){
        .valid = true, .type = EVENT_EXCEPTION, .vector = vector, .has_error = true, .error = error};
}
static struct event of_type(enum event_type type, uint8_t vector)
{
    return (struct event){.valid = true, .type = (uint8_t)type, .vector = vector};
}
/* A guest that runs with interrupts on, and `pending`. */
static struct events_state running(uint32_t pending)
{
    return (struct events_state){.pending = pending,
                                 .activity = VIRT_ACTIVE,
                                 .interrupts_on = true,
                                 .vector = 0x51,
                                 .sipi_vector = 0x9a};
}
static void assert_injects(const struct events_plan *plan, enum event_type type, uint8_t vector,
                           enum events_source source)
{
    assert_int_equal(plan->action, EVENTS_ENTER);
    assert_true(plan->inject.valid);
    assert_int_equal(plan->inject.type, type);
    assert_int_equal(plan->inject.vector, vector);
    assert_int_equal(plan->source, source);
    assert_int_equal(plan->activity, VIRT_ACTIVE);
}
static void assert_windows(const struct events_plan *plan, bool intr, bool nmi)
{
    assert_int_equal(plan->intr_window, intr);
    assert_int_equal(plan->nmi_window, nmi);
}

/* ---- merging ---- */

static void test_merge_table(void **state)
{
    enum { B, C, P, D };
    static const struct {
        uint8_t vector, class;
    } rows[] = {{1, B},  {3, B},  {4, B},  {5, B},  {6, B},  {7, B}, {9, B},  {16, B},
                {17, B}, {18, B}, {19, B}, {22, B}, {31, B}, {0, C}, {10, C}, {11, C},
                {12, C}, {13, C}, {21, C}, {14, P}, {20, P}, {8, D}};
    static const enum events_merge want[4][4] = {
        /* second: benign, contributory, page fault, double fault */
        [B] = {EVENTS_SERIAL, EVENTS_SERIAL, EVENTS_SERIAL, EVENTS_SERIAL},
        [C] = {EVENTS_SERIAL, EVENTS_DOUBLE_FAULT, EVENTS_SERIAL, EVENTS_SERIAL},
        [P] = {EVENTS_SERIAL, EVENTS_DOUBLE_FAULT, EVENTS_DOUBLE_FAULT, EVENTS_SERIAL},
        [D] = {EVENTS_SERIAL, EVENTS_SHUTDOWN, EVENTS_SHUTDOWN, EVENTS_SHUTDOWN},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (size_t j = 0; j < ARRAY_SIZE(rows); j++) {
            struct event a = exception(rows[i].vector), b = exception_error(rows[j].vector, 0x10), out;
            memset(&out, 0xa5, sizeof(out));
            enum events_merge got = events_merge(&a, &b, &out);
            assert_int_equal(got, want[rows[i].class][rows[j].class]);
            if (got == EVENTS_SHUTDOWN) {
                assert_false(out.valid);
            } else if (got == EVENTS_DOUBLE_FAULT) {
                assert_true(out.valid && out.has_error);
                assert_int_equal(out.type, EVENT_EXCEPTION);
                assert_int_equal(out.vector, 8);
                assert_int_equal(out.error, 0);
            } else {
                assert_memory_equal(&out, &b, sizeof(out));
            }
        }
}

/* INT 13, an external interrupt with a small vector, an NMI: benign whatever the number. */
static void test_merge_benign_types(void **state)
{
    static const enum event_type types[] = {EVENT_EXTERNAL_INTERRUPT, EVENT_NMI, EVENT_SOFT_INTERRUPT,
                                            EVENT_PRIV_SOFT_EXCEPTION, EVENT_SOFT_EXCEPTION};
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        struct event first = of_type(types[i], 14), second = exception_error(14, 2), out;
        assert_int_equal(events_merge(&first, &second, &out), EVENTS_SERIAL);
        assert_int_equal(out.vector, 14);
    }
}

/* ---- faults and re-injection ---- */

static void test_fault_alone(void **state)
{
    struct events_state s = running(EVENTS_FAULT);
    s.fault = exception_error(13, 0x18);
    s.shadow = EVENTS_SHADOW_STI;
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_EXCEPTION, 13, EVENTS_FROM_FAULT);
    assert_int_equal(p.inject.error, 0x18);
    assert_true(p.inject.has_error);
    assert_int_equal(p.pending, 0);
    assert_windows(&p, false, false);
    s.real_mode = true; /* no error codes there */
    p = events_decide(&s);
    assert_false(p.inject.has_error);
    assert_int_equal(p.inject.error, 0);
}

static void test_reinjection(void **state)
{
    struct events_state s = running(EVENTS_VECTORING | EVENTS_VECTOR);
    s.vectoring = (struct event){.valid = true, .type = EVENT_SOFT_INTERRUPT, .vector = 0x80, .insn_len = 2};
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_SOFT_INTERRUPT, 0x80, EVENTS_FROM_VECTORING);
    assert_int_equal(p.inject.insn_len, 2);
    assert_int_equal(p.pending, EVENTS_VECTOR);
    assert_windows(&p, true, false);

    s = running(EVENTS_VECTORING);
    s.vectoring = exception_error(14, 4);
    p = events_decide(&s);
    assert_injects(&p, EVENT_EXCEPTION, 14, EVENTS_FROM_VECTORING);
    assert_int_equal(p.inject.error, 4);
}

/* An entry that injects an NMI must find blocking by NMI clear, although the interrupted delivery had set it.
 */
static void test_nmi_reinjection(void **state)
{
    struct events_state s = running(EVENTS_VECTORING | EVENTS_NMI_REBLOCK);
    s.vectoring = of_type(EVENT_NMI, 2);
    s.shadow = EVENTS_SHADOW_NMI;
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_NMI, 2, EVENTS_FROM_VECTORING);
    assert_int_equal(p.shadow, 0);
    assert_int_equal(p.pending, 0);
}

static void test_fault_during_delivery(void **state)
{
    struct events_state s = running(EVENTS_VECTORING | EVENTS_FAULT);
    s.vectoring = exception_error(14, 0);
    s.fault = exception_error(14, 2);
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_EXCEPTION, 8, EVENTS_FROM_FAULT);
    assert_true(p.inject.has_error);
    assert_int_equal(p.pending, 0);

    s.vectoring = exception_error(8, 0);
    p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_TRIPLE_FAULT);
    assert_false(p.inject.valid);

    s.vectoring = exception(6); /* benign: the #UD recurs, the page fault is delivered */
    p = events_decide(&s);
    assert_injects(&p, EVENT_EXCEPTION, 14, EVENTS_FROM_FAULT);
    assert_int_equal(p.pending, 0);
    assert_false(p.hold);
}

/* An acknowledged interrupt that a fault displaced comes back when interrupts are on again, before any other.
 */
static void test_displaced_interrupt_is_held(void **state)
{
    struct events_state s = running(EVENTS_VECTORING | EVENTS_FAULT);
    s.vectoring = of_type(EVENT_EXTERNAL_INTERRUPT, 0xec);
    s.fault = exception_error(14, 2);
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_EXCEPTION, 14, EVENTS_FROM_FAULT);
    assert_true(p.hold);
    assert_windows(&p, true, false);
    events_commit(&s, &p);
    assert_int_equal(s.pending, EVENTS_HELD);

    s.interrupts_on = false; /* in the page-fault handler */
    s.pending |= EVENTS_VECTOR | EVENTS_EXTINT;
    p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_ENTER);
    assert_false(p.inject.valid);
    assert_windows(&p, true, false);
    events_commit(&s, &p);

    s.interrupts_on = true;
    p = events_decide(&s);
    assert_injects(&p, EVENT_EXTERNAL_INTERRUPT, 0xec, EVENTS_FROM_VECTORING);
    assert_int_equal(p.pending, EVENTS_VECTOR | EVENTS_EXTINT);
    assert_windows(&p, true, false);
}

static void test_displaced_nmi_is_pending_again(void **state)
{
    struct events_state s = running(EVENTS_VECTORING | EVENTS_FAULT);
    s.vectoring = of_type(EVENT_NMI, 2);
    s.fault = exception_error(14, 2);
    s.shadow = EVENTS_SHADOW_NMI;
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_EXCEPTION, 14, EVENTS_FROM_FAULT);
    assert_int_equal(p.pending, EVENTS_NMI);
    assert_int_equal(p.shadow, EVENTS_SHADOW_NMI); /* until the handler's IRET */
    assert_windows(&p, false, true);
}

/* ---- NMIs ---- */

static void test_nmi(void **state)
{
    struct events_state s = running(EVENTS_NMI | EVENTS_VECTOR);
    s.interrupts_on = false; /* does not matter to NMIs */
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_NMI, 2, EVENTS_FROM_NMI);
    assert_int_equal(p.pending, EVENTS_VECTOR);
    assert_windows(&p, true, false);
}

/* Of two the first goes in, and the second asks for its window. */
static void test_nmi_again(void **state)
{
    struct events_state s = running(EVENTS_NMI | EVENTS_NMI_AGAIN);
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_NMI, 2, EVENTS_FROM_NMI);
    assert_int_equal(p.pending, EVENTS_NMI);
    assert_windows(&p, false, true);
}

static void test_nmi_blocking(void **state)
{
    static const struct {
        uint8_t shadow;
        bool debug, intr, nmi;
    } rows[] = {
        {EVENTS_SHADOW_NMI, false, false, true},
        {EVENTS_SHADOW_MOV_SS, false, false, true},
        {EVENTS_SHADOW_STI, false, true, false}, /* by way of the interrupt window */
        {EVENTS_SHADOW_NMI | EVENTS_SHADOW_STI, false, true, false},
        {0, true, false, true}, /* a debug trap comes first */
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct events_state s = running(EVENTS_NMI);
        s.shadow = rows[i].shadow;
        s.pending_debug = rows[i].debug;
        struct events_plan p = events_decide(&s);
        assert_int_equal(p.action, EVENTS_ENTER);
        assert_false(p.inject.valid);
        assert_int_equal(p.pending, EVENTS_NMI);
        assert_int_equal(p.shadow, s.shadow);
        assert_windows(&p, rows[i].intr, rows[i].nmi);
    }
}

/* Interrupts may come while an NMI is held back by the one in service. */
static void test_interrupt_during_nmi(void **state)
{
    struct events_state s = running(EVENTS_NMI | EVENTS_VECTOR);
    s.shadow = EVENTS_SHADOW_NMI;
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_EXTERNAL_INTERRUPT, 0x51, EVENTS_FROM_APIC);
    assert_int_equal(p.pending, EVENTS_NMI);
    assert_windows(&p, false, true);
}

static void test_nmi_reblock(void **state)
{
    struct events_state s = running(EVENTS_NMI_REBLOCK | EVENTS_NMI);
    struct events_plan p = events_decide(&s);
    assert_int_equal(p.shadow, EVENTS_SHADOW_NMI);
    assert_false(p.inject.valid);
    assert_int_equal(p.pending, EVENTS_NMI);
    assert_windows(&p, false, true);
    /* Undefined during event delivery, so not believed. */
    s = running(EVENTS_NMI_REBLOCK | EVENTS_VECTORING);
    s.vectoring = exception(6);
    p = events_decide(&s);
    assert_int_equal(p.shadow, 0);
}

/* ---- interrupts ---- */

static void test_interrupts(void **state)
{
    struct events_state s = running(EVENTS_VECTOR);
    struct events_plan p = events_decide(&s);
    assert_injects(&p, EVENT_EXTERNAL_INTERRUPT, 0x51, EVENTS_FROM_APIC);
    assert_false(p.inject.has_error);
    assert_int_equal(p.pending, 0);
    assert_windows(&p, false, false);

    s = running(EVENTS_VECTOR | EVENTS_EXTINT); /* the PIC first */
    p = events_decide(&s);
    assert_injects(&p, EVENT_EXTERNAL_INTERRUPT, 0, EVENTS_FROM_EXTINT);
    assert_int_equal(p.pending, EVENTS_VECTOR);
    assert_windows(&p, true, false);
}

static void test_interrupts_blocked(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct events_state s = running(i & 1 ? EVENTS_EXTINT : EVENTS_VECTOR);
        if (i == 0)
            s.interrupts_on = false;
        s.shadow = i == 1 ? EVENTS_SHADOW_STI : i == 2 ? EVENTS_SHADOW_MOV_SS : 0;
        s.pending_debug = i == 3;
        struct events_plan p = events_decide(&s);
        assert_int_equal(p.action, EVENTS_ENTER);
        assert_false(p.inject.valid);
        assert_int_equal(p.pending, s.pending);
        assert_windows(&p, true, false);
    }
}

/* ---- activity ---- */

static void test_hlt(void **state)
{
    static const struct {
        uint32_t pending;
        bool interrupts_on, debug;
        uint8_t shadow, action;
    } rows[] = {
        {0, true, false, 0, EVENTS_WAIT},
        {EVENTS_VECTOR, true, false, 0, EVENTS_ENTER},
        {EVENTS_VECTOR, true, false, EVENTS_SHADOW_STI, EVENTS_ENTER}, /* STI; HLT: the shadow is over */
        {EVENTS_EXTINT, true, false, 0, EVENTS_ENTER},
        {EVENTS_VECTOR, false, false, 0, EVENTS_WAIT},
        {EVENTS_NMI, false, false, 0, EVENTS_ENTER},
        {EVENTS_NMI, false, false, EVENTS_SHADOW_NMI, EVENTS_WAIT},
        {EVENTS_SIPI, true, false, 0, EVENTS_WAIT},
        {0, false, true, 0, EVENTS_ENTER}, /* single-stepped */
        {EVENTS_INIT, true, false, 0, EVENTS_RESET},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct events_state s = running(rows[i].pending);
        s.activity = VIRT_HALTED;
        s.interrupts_on = rows[i].interrupts_on;
        s.pending_debug = rows[i].debug;
        s.shadow = rows[i].shadow;
        struct events_plan p = events_decide(&s);
        assert_int_equal(p.action, rows[i].action);
        if (p.action == EVENTS_ENTER) {
            assert_int_equal(p.activity, VIRT_ACTIVE);
            assert_int_equal(p.shadow, 0);
            assert_int_equal(p.inject.valid, rows[i].pending != 0);
        } else {
            assert_int_equal(p.activity, VIRT_HALTED);
        }
    }
}

static void test_shutdown(void **state)
{
    struct events_state s = running(EVENTS_VECTOR | EVENTS_EXTINT);
    s.activity = VIRT_SHUTDOWN;
    struct events_plan p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_WAIT);
    assert_int_equal(p.activity, VIRT_SHUTDOWN);
    s.pending |= EVENTS_NMI;
    p = events_decide(&s);
    assert_injects(&p, EVENT_NMI, 2, EVENTS_FROM_NMI);
}

static void test_init_and_sipi(void **state)
{
    /* Both arrived before the target looked: INIT first, then the SIPI starts it. */
    struct events_state s = running(EVENTS_INIT | EVENTS_SIPI | EVENTS_NMI | EVENTS_FAULT | EVENTS_VECTORING |
                                    EVENTS_HELD | EVENTS_VECTOR | EVENTS_EXTINT);
    struct events_plan p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_RESET);
    assert_false(p.inject.valid || p.intr_window || p.nmi_window);
    assert_int_equal(p.pending, EVENTS_SIPI);
    events_commit(&s, &p);
    s.activity = VIRT_WAIT_SIPI;
    p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_START);
    assert_int_equal(p.activity, VIRT_ACTIVE);
    assert_int_equal(p.pending, 0);
    events_commit(&s, &p);
    /* The customary second SIPI finds it running. */
    s.pending |= EVENTS_SIPI;
    p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_ENTER);
    assert_false(p.inject.valid);
    assert_int_equal(p.pending, 0);
}

static void test_wait_for_sipi(void **state)
{
    struct events_state s = running(EVENTS_NMI | EVENTS_VECTOR | EVENTS_INIT);
    s.activity = VIRT_WAIT_SIPI;
    struct events_plan p = events_decide(&s);
    assert_int_equal(p.action, EVENTS_WAIT);
    assert_int_equal(p.activity, VIRT_WAIT_SIPI);
    assert_int_equal(p.pending, EVENTS_NMI | EVENTS_VECTOR);
    assert_false(p.inject.valid);
}

static void test_idle(void **state)
{
    struct events_state s = running(0);
    assert_true(events_idle(&s));
    for (uint32_t bit = EVENTS_VECTORING; bit <= EVENTS_NMI_REBLOCK; bit <<= 1) {
        s.pending = bit;
        assert_false(events_idle(&s));
    }
    s.pending = 0;
    s.activity = VIRT_HALTED;
    assert_false(events_idle(&s));
    s.activity = VIRT_ACTIVE;
    s.shadow = EVENTS_SHADOW_NMI;
    struct events_plan p = events_decide(&s); /* idle means: decide() would have answered "just enter" */
    assert_int_equal(p.action, EVENTS_ENTER);
    assert_false(p.inject.valid || p.intr_window || p.nmi_window);
    assert_int_equal(p.shadow, s.shadow);
}

/* ---- every combination ---- */

static void check_entry_rules(const struct events_state *s, const struct events_plan *p)
{
    /* "Checks on Guest Non-Register State" */
    if (p->inject.valid && p->inject.type == EVENT_EXTERNAL_INTERRUPT) {
        assert_true(s->interrupts_on);
        assert_int_equal(p->shadow & (EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS), 0);
    }
    if (p->inject.valid && p->inject.type == EVENT_NMI)
        assert_int_equal(p->shadow & (EVENTS_SHADOW_NMI | EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS), 0);
    if (p->action == EVENTS_ENTER)
        assert_int_equal(p->activity, VIRT_ACTIVE);
    else
        assert_false(p->inject.valid);
    /* Nothing is both delivered and kept, and nothing deliverable is lost. */
    uint32_t sources = EVENTS_NMI | EVENTS_VECTOR | EVENTS_EXTINT | EVENTS_HELD;
    if (p->action == EVENTS_ENTER || p->action == EVENTS_WAIT) {
        uint32_t gone = s->pending & sources & ~p->pending;
        uint32_t want = p->source == EVENTS_FROM_NMI      ? EVENTS_NMI
                        : p->source == EVENTS_FROM_APIC   ? EVENTS_VECTOR
                        : p->source == EVENTS_FROM_EXTINT ? EVENTS_EXTINT
                        : p->source == EVENTS_FROM_VECTORING && !(s->pending & EVENTS_VECTORING) ? EVENTS_HELD
                                                                                                 : 0;
        assert_int_equal(gone, want);
    }
    /* What stays pending has a window, or cannot come by itself. */
    if (p->action == EVENTS_ENTER) {
        assert_true(!(p->pending & (EVENTS_VECTOR | EVENTS_EXTINT | EVENTS_HELD)) || p->intr_window);
        assert_true(!(p->pending & EVENTS_NMI) || p->nmi_window || (p->intr_window && s->interrupts_on));
    }
}

static void test_every_combination(void **state)
{
    static const enum event_type types[] = {EVENT_EXTERNAL_INTERRUPT, EVENT_NMI, EVENT_EXCEPTION,
                                            EVENT_SOFT_INTERRUPT};
    for (uint32_t pending = 0; pending < 0x200; pending++)
        for (uint8_t activity = VIRT_ACTIVE; activity <= VIRT_WAIT_SIPI; activity++)
            for (unsigned bits = 0; bits < 32; bits++)
                for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
                    struct events_state s = running(pending);
                    s.activity = activity;
                    s.interrupts_on = bits & 1;
                    s.shadow =
                        (uint8_t)((bits & 2 ? EVENTS_SHADOW_MOV_SS : 0) | (bits & 4 ? EVENTS_SHADOW_NMI : 0));
                    if ((bits & 8) && s.interrupts_on) /* STI's shadow implies IF = 1 */
                        s.shadow |= EVENTS_SHADOW_STI;
                    s.pending_debug = bits & 16;
                    s.vectoring = of_type(types[t], types[t] == EVENT_NMI ? 2 : 0x40);
                    s.held = of_type(EVENT_EXTERNAL_INTERRUPT, 0x41);
                    s.fault = exception_error(13, 0);
                    if ((pending & EVENTS_VECTORING) &&
                        types[t] <= EVENT_NMI) { /* as the hardware leaves them */
                        s.shadow &= EVENTS_SHADOW_NMI;
                        s.interrupts_on |= types[t] == EVENT_EXTERNAL_INTERRUPT;
                    }
                    struct events_plan p = events_decide(&s);
                    check_entry_rules(&s, &p);
                }
}

/* An exception passed on from within the shadow of STI or MOV SS: with RFLAGS.TF the entry would be refused
 * if the shadow stayed (SDM volume 3, 27.3.1.5). */
static void test_delivery_ends_shadow(void **state)
{
    static const uint8_t shadows[] = {EVENTS_SHADOW_STI, EVENTS_SHADOW_MOV_SS};
    for (unsigned i = 0; i < 2; i++) {
        struct events_state s = {
            .pending = EVENTS_FAULT,
            .activity = VIRT_ACTIVE,
            .interrupts_on = true,
            .shadow = shadows[i],
            .fault = {.valid = true, .type = EVENT_PRIV_SOFT_EXCEPTION, .vector = 1, .insn_len = 1}};
        struct events_plan p = events_decide(&s);
        assert_true(p.inject.valid && p.inject.vector == 1);
        assert_int_equal(p.shadow, 0);
    }
}

int main(void)
{
#define T(t) cmocka_unit_test(t)
    const struct CMUnitTest tests[] = {
        T(test_delivery_ends_shadow),
        T(test_merge_table),
        T(test_merge_benign_types),
        T(test_fault_alone),
        T(test_reinjection),
        T(test_nmi_reinjection),
        T(test_fault_during_delivery),
        T(test_displaced_interrupt_is_held),
        T(test_displaced_nmi_is_pending_again),
        T(test_nmi),
        T(test_nmi_again),
        T(test_nmi_blocking),
        T(test_interrupt_during_nmi),
        T(test_nmi_reblock),
        T(test_interrupts),
        T(test_interrupts_blocked),
        T(test_hlt),
        T(test_shutdown),
        T(test_init_and_sipi),
        T(test_wait_for_sipi),
        T(test_idle),
        T(test_every_combination),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
