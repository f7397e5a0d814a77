/* The state machine of a VM's life: every event in every state, with every wish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hv/lib/bits.h"
#include "hv/life.h"

enum life_event {
    START,
    STOP,
    RESET,
    REASON,
    LEFT,
    LEFT_RESTART,
    LOADED,
    NOT_LOADED,
    BROKEN_OFF,
    EVENT_COUNT
};

#define WISHES 3u

struct row {
    enum vm_state state;
    enum life_wish wish;
    enum life_event event;
    enum life_action action;
    enum vm_state next;
    enum life_wish next_wish;
    enum stop_reason next_stop;
};

/* `stop` before the event is STOP_REBOOT, so that it shows whether it is kept. What is not listed changes
 * nothing: an order is refused, everything else is ignored. */
#define KEPT STOP_REBOOT
static const struct row rows[] = {
    {VM_CREATED, WISH_NONE, START, LIFE_BEGIN, VM_STARTING, WISH_NONE, STOP_NONE},
    {VM_STOPPED, WISH_NONE, START, LIFE_BEGIN, VM_STARTING, WISH_NONE, STOP_NONE},
    {VM_STOPPED, WISH_STOP, START, LIFE_BEGIN, VM_STARTING, WISH_NONE, STOP_NONE},

    {VM_STARTING, WISH_STOP, START, LIFE_NOTHING, VM_STARTING, WISH_NONE, KEPT},
    {VM_STARTING, WISH_NONE, STOP, LIFE_NOTHING, VM_STARTING, WISH_STOP, KEPT},
    {VM_STARTING, WISH_NONE, RESET, LIFE_NOTHING, VM_STARTING, WISH_NONE, KEPT},
    {VM_STARTING, WISH_STOP, RESET, LIFE_NOTHING, VM_STARTING, WISH_NONE, KEPT},
    {VM_STARTING, WISH_NONE, LOADED, LIFE_RUN, VM_RUNNING, WISH_NONE, STOP_NONE},
    {VM_STARTING, WISH_STOP, LOADED, LIFE_ENDED, VM_STOPPED, WISH_STOP, STOP_OPERATOR},
    {VM_STARTING, WISH_NONE, NOT_LOADED, LIFE_ENDED, VM_STOPPED, WISH_NONE, STOP_NOT_LOADED},
    {VM_STARTING, WISH_STOP, NOT_LOADED, LIFE_ENDED, VM_STOPPED, WISH_STOP, STOP_OPERATOR},
    {VM_STARTING, WISH_STOP, BROKEN_OFF, LIFE_ENDED, VM_STOPPED, WISH_STOP, STOP_OPERATOR},
    {VM_STARTING, WISH_NONE, BROKEN_OFF, LIFE_BEGIN, VM_STARTING, WISH_NONE, KEPT},

    {VM_RUNNING, WISH_NONE, STOP, LIFE_ASK, VM_STOPPING, WISH_STOP, STOP_OPERATOR},
    {VM_RUNNING, WISH_NONE, RESET, LIFE_ASK, VM_STOPPING, WISH_RUN, STOP_OPERATOR_RESET},
    {VM_RUNNING, WISH_NONE, REASON, LIFE_ASK, VM_STOPPING, WISH_NONE, STOP_TRIPLE_FAULT},

    {VM_STOPPING, WISH_NONE, START, LIFE_NOTHING, VM_STOPPING, WISH_RUN, KEPT},
    {VM_STOPPING, WISH_STOP, START, LIFE_NOTHING, VM_STOPPING, WISH_RUN, KEPT},
    {VM_STOPPING, WISH_RUN, START, LIFE_NOTHING, VM_STOPPING, WISH_RUN, KEPT},
    {VM_STOPPING, WISH_NONE, STOP, LIFE_NOTHING, VM_STOPPING, WISH_STOP, KEPT},
    {VM_STOPPING, WISH_RUN, STOP, LIFE_NOTHING, VM_STOPPING, WISH_STOP, KEPT},
    {VM_STOPPING, WISH_NONE, RESET, LIFE_NOTHING, VM_STOPPING, WISH_RUN, KEPT},
    {VM_STOPPING, WISH_STOP, RESET, LIFE_NOTHING, VM_STOPPING, WISH_RUN, KEPT},
    {VM_STOPPING, WISH_RUN, RESET, LIFE_NOTHING, VM_STOPPING, WISH_RUN, KEPT},
    {VM_STOPPING, WISH_NONE, LEFT, LIFE_ENDED, VM_STOPPED, WISH_NONE, KEPT},
    {VM_STOPPING, WISH_STOP, LEFT, LIFE_ENDED, VM_STOPPED, WISH_STOP, KEPT},
    {VM_STOPPING, WISH_RUN, LEFT, LIFE_BEGIN, VM_STARTING, WISH_NONE, KEPT},
    {VM_STOPPING, WISH_NONE, LEFT_RESTART, LIFE_BEGIN, VM_STARTING, WISH_NONE, KEPT},
    {VM_STOPPING, WISH_STOP, LEFT_RESTART, LIFE_ENDED, VM_STOPPED, WISH_STOP, KEPT},
    {VM_STOPPING, WISH_RUN, LEFT_RESTART, LIFE_BEGIN, VM_STARTING, WISH_NONE, KEPT},
};

/* Which wishes a state can have: the others never come up, which test_reachable() proves. */
static bool possible(enum vm_state state, enum life_wish wish)
{
    switch (state) {
    case VM_STOPPING:
        return true;
    case VM_STARTING:
    case VM_STOPPED:
        return wish != WISH_RUN;
    default:
        return wish == WISH_NONE;
    }
}

static enum life_action happen(struct life *life, enum life_event event, const char **why)
{
    switch (event) {
    case START:
    case STOP:
    case RESET:
        return life_order(life, (enum vm_order)event, why);
    case REASON:
        return life_stop(life, STOP_TRIPLE_FAULT);
    case LEFT:
    case LEFT_RESTART:
        return life_left(life, event == LEFT_RESTART);
    default:
        return life_loaded(life, (enum life_load)(event - LOADED));
    }
}

static const struct row *find(enum vm_state state, enum life_wish wish, enum life_event event)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].state == state && rows[i].wish == wish && rows[i].event == event)
            return &rows[i];
    return NULL;
}

static void check(enum vm_state state, enum life_wish wish, enum life_event event)
{
    struct life life = {.state = state, .stop = KEPT, .wish = wish};
    const char *why = NULL;
    const struct row *row = find(state, wish, event);
    struct row same = {state, wish, event, event <= RESET ? LIFE_REFUSE : LIFE_NOTHING, state, wish, KEPT};
    enum life_action action = happen(&life, event, &why);
    if (!row)
        row = &same;
    if (action != row->action || life.state != row->next || life.wish != row->next_wish ||
        life.stop != row->next_stop)
        fail_msg("%s, wish %d, event %d: action %d, then %s, wish %d, stop %d", vm_state_name(state), wish,
                 event, action, vm_state_name(life.state), life.wish, life.stop);
    assert_int_equal(why != NULL, action == LIFE_REFUSE); /* a refusal says why, nothing else does */
}

static void test_every_event_in_every_state(void **state)
{
    for (unsigned s = 0; s < VM_STATE_COUNT; s++)
        for (unsigned w = 0; w < WISHES; w++)
            for (unsigned e = 0; e < EVENT_COUNT && possible(s, w); e++)
                check(s, w, e);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        assert_true(possible(rows[i].state, rows[i].wish)); /* no row is dead */
}

/* From the beginning, by any events: no state has a wish that it cannot have, and whatever was begun ends:
 * from every state that is reached a stopped VM is reached. */
static void test_reachable(void **state)
{
    bool seen[VM_STATE_COUNT][WISHES] = {{false}};
    seen[VM_CREATED][WISH_NONE] = true;
    for (bool grew = true; grew;) {
        grew = false;
        for (unsigned i = 0; i < VM_STATE_COUNT * WISHES * EVENT_COUNT; i++) {
            struct life life = {.state = i / EVENT_COUNT / WISHES, .wish = i / EVENT_COUNT % WISHES};
            const char *why;
            if (!seen[life.state][life.wish])
                continue;
            assert_true(possible(life.state, life.wish));
            happen(&life, i % EVENT_COUNT, &why);
            if (!seen[life.state][life.wish])
                grew = seen[life.state][life.wish] = true;
        }
    }
    for (unsigned s = 0; s < VM_STATE_COUNT; s++)
        for (unsigned w = 0; w < WISHES; w++)
            assert_int_equal(seen[s][w], possible(s, w) && s != VM_FAILED);
}

static void test_refusals_are_sentences(void **state)
{
    static const struct {
        enum vm_state state;
        enum vm_order order;
        const char *why;
    } cases[] = {
        {VM_RUNNING, VM_ORDER_START, "is running already"},
        {VM_STARTING, VM_ORDER_START, "is starting already"},
        {VM_STOPPED, VM_ORDER_STOP, "does not run"},
        {VM_CREATED, VM_ORDER_STOP, "does not run"},
        {VM_STOPPED, VM_ORDER_RESET, "does not run: start it"},
        {VM_FAILED, VM_ORDER_START, "could not be created: see the log"},
        {VM_FAILED, VM_ORDER_STOP, "could not be created: see the log"},
        {VM_FAILED, VM_ORDER_RESET, "could not be created: see the log"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct life life = {.state = cases[i].state};
        const char *why = "";
        assert_int_equal(life_order(&life, cases[i].order, &why), LIFE_REFUSE);
        assert_string_equal(why, cases[i].why);
    }
}

static void test_crashes(void **state)
{
    for (enum stop_reason r = STOP_NONE; r < STOP_REASON_COUNT; r++) {
        bool crash = r == STOP_TRIPLE_FAULT || r == STOP_UNHANDLED_EXIT || r == STOP_BAD_INSTRUCTION ||
                     r == STOP_ENTRY_FAILED || r == STOP_GUEST_MEMORY;
        uint32_t quick = 0;
        assert_int_equal(stop_is_crash(r), crash);
        assert_int_equal(life_restarts(r, ON_STOP_STOP, ON_STOP_RESTART, 0, &quick), crash);
        assert_int_equal(quick, crash);
        assert_int_equal(life_restarts(r, ON_STOP_RESTART, ON_STOP_STOP, 0, &quick), r == STOP_REBOOT);
        assert_false(life_restarts(r, ON_STOP_STOP, ON_STOP_DUMP, 0, &quick));
    }
}

static void test_quick_crashes(void **state)
{
    uint32_t quick = 0;
    for (unsigned i = 1; i < QUICK_CRASH_LIMIT; i++)
        assert_true(
            life_restarts(STOP_TRIPLE_FAULT, ON_STOP_STOP, ON_STOP_RESTART, QUICK_CRASH_NS - 1, &quick));
    assert_false(life_restarts(STOP_TRIPLE_FAULT, ON_STOP_STOP, ON_STOP_RESTART, QUICK_CRASH_NS - 1, &quick));
    quick = QUICK_CRASH_LIMIT - 1;
    assert_true(life_restarts(STOP_TRIPLE_FAULT, ON_STOP_STOP, ON_STOP_RESTART, QUICK_CRASH_NS, &quick));
    assert_int_equal(quick, 0);
}

static void test_idle(void **state)
{
    static const enum life_idle by_itself[] = {
        [ON_IDLE_POWEROFF] = IDLE_POWEROFF, [ON_IDLE_REBOOT] = IDLE_REBOOT, [ON_IDLE_STAY] = IDLE_STAY};
    for (unsigned i = 0; i < ARRAY_SIZE(by_itself); i++) {
        assert_int_equal(life_idle(false, false, i), by_itself[i]);
        assert_int_equal(life_idle(false, true, i), IDLE_OPERATOR);
        assert_int_equal(life_idle(true, false, i), IDLE_BUSY);
        assert_int_equal(life_idle(true, true, i), IDLE_BUSY);
    }
}

static void test_names(void **state)
{
    static const struct {
        enum vm_state state;
        const char *name;
        bool live;
    } cases[] = {{VM_CREATED, "created", false}, {VM_STARTING, "starting", true},
                 {VM_RUNNING, "running", true},  {VM_STOPPING, "stopping", true},
                 {VM_STOPPED, "stopped", false}, {VM_FAILED, "failed", false}};
    assert_int_equal(ARRAY_SIZE(cases), VM_STATE_COUNT);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_string_equal(vm_state_name(cases[i].state), cases[i].name);
        assert_int_equal(life_is_live(cases[i].state), cases[i].live);
    }
    assert_string_equal(vm_state_name(VM_STATE_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_event_in_every_state),
        cmocka_unit_test(test_reachable),
        cmocka_unit_test(test_refusals_are_sentences),
        cmocka_unit_test(test_crashes),
        cmocka_unit_test(test_quick_crashes),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
