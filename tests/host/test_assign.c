#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hv/assign/assign.h"

/* A device that keeps to the rules of hardware: it makes DMA whenever it may. Each callback may be told to
 * fail, and checks what must be true when it is called. */
static struct device {
    bool mastering, attached, provided, irqs, reset; /* reset: nothing happened since the last one */
    unsigned resetting;                              /* it takes so many looks yet */
    char order[64];                                  /* a letter per call */
    unsigned calls, fail_at, fail_also;              /* the nth call of those that can fail, 1.. */
    unsigned said[LOG_DEBUG + 1];
    char last[200];
} dev;

static void did(char what)
{
    size_t n = strlen(dev.order);
    assert_true(n + 1 < sizeof(dev.order));
    dev.order[n] = what;
}

static enum status may_fail(char what, char *why, size_t size)
{
    did(what);
    dev.calls++;
    if (dev.calls != dev.fail_at && dev.calls != dev.fail_also)
        return STATUS_OK;
    snprintf(why, size, "step %c failed", what);
    return ERR_NOT_FOUND;
}

static enum status isolated(void *ctx, char *why, size_t size)
{
    assert_false(dev.mastering);
    return may_fail('g', why, size);
}

static void master(void *ctx, bool on)
{
    assert_false(on); /* only the guest switches it on */
    dev.mastering = on;
    did('m');
}

static enum status reset(void *ctx, char *why, size_t size)
{
    assert_false(dev.mastering || dev.irqs);
    enum status s = may_fail('r', why, size);
    dev.reset = s == STATUS_OK;
    if (dev.reset)
        dev.provided = false;
    return s;
}

/* Whichever way a reset ends: it took from the device what it had of its PF. */
static enum status reset_ends(char *why, size_t size)
{
    dev.resetting = 0;
    return reset(NULL, why, size);
}

static enum status reset_now(void *ctx, char *why, size_t size)
{
    return reset_ends(why, size);
}

static enum status reset_begin(void *ctx, char *why, size_t size)
{
    assert_false(dev.mastering || dev.irqs || dev.resetting);
    enum status s = may_fail('b', why, size);
    dev.resetting = s == STATUS_OK ? 3 : 0;
    return s;
}

static bool reset_continue(void *ctx, enum status *result, char *why, size_t size)
{
    assert_int_not_equal(dev.resetting, 0);
    if (--dev.resetting)
        return false;
    *result = reset_ends(why, size);
    return true;
}

static enum status provide(void *ctx, char *why, size_t size)
{
    assert_true(dev.reset && !dev.mastering && !dev.resetting);
    enum status s = may_fail('p', why, size);
    dev.provided = s == STATUS_OK;
    return s;
}

static void withdraw(void *ctx)
{
    assert_false(dev.mastering || dev.attached);
    dev.provided = false;
    did('w');
}

static enum status attach(void *ctx, char *why, size_t size)
{
    assert_true(dev.reset && dev.provided && !dev.mastering);
    enum status s = may_fail('a', why, size);
    dev.attached = s == STATUS_OK;
    return s;
}

static enum status detach(void *ctx, char *why, size_t size)
{
    assert_false(dev.mastering || dev.irqs || dev.resetting);
    dev.attached = false;
    return may_fail('d', why, size);
}

static void interrupts_off(void *ctx)
{
    dev.irqs = false;
    did('i');
}

static void say(void *ctx, enum log_level level, const char *text)
{
    assert_ptr_equal(ctx, &dev);
    dev.said[level]++;
    snprintf(dev.last, sizeof(dev.last), "%s", text);
}

static const struct assign_ops ops = {.isolated = isolated,
                                      .master = master,
                                      .reset = reset_now,
                                      .reset_begin = reset_begin,
                                      .reset_continue = reset_continue,
                                      .provide = provide,
                                      .withdraw = withdraw,
                                      .attach = attach,
                                      .detach = detach,
                                      .interrupts_off = interrupts_off,
                                      .say = say};

static struct assign a;

static void fresh(void)
{
    dev = (struct device){0};
    a = (struct assign){.ops = &ops, .ctx = &dev, .how = "FLR done"};
}

/* What the guest does with its device. */
static void use(void)
{
    assert_true(dev.attached && dev.provided && dev.reset);
    dev.mastering = dev.irqs = true;
    dev.reset = false;
    dev.order[0] = 0;
    memset(dev.order, 0, sizeof(dev.order));
}

static void test_every_transition(void **state)
{
    /* Rows: states; columns: quiesce, build, give, begin reset, revoke, return, fail. */
    enum { H = ASSIGN_HOST, Q, B, O, T, R, X, _ };
    static const uint8_t expected[ASSIGN_STATES][ASSIGN_EVENTS] = {
        {Q, _, _, _, _, _, X}, {_, B, _, _, R, _, _}, {_, _, O, _, R, _, _}, {_, _, _, T, R, _, _},
        {_, _, O, _, R, _, _}, {_, _, _, _, _, H, X}, {_, _, _, _, _, _, _},
    };
    for (unsigned s = 0; s < ASSIGN_STATES; s++)
        for (unsigned e = 0; e < ASSIGN_EVENTS; e++)
            assert_int_equal(assign_next((enum assign_state)s, (enum assign_event)e), expected[s][e]);
    assert_int_equal(assign_next(ASSIGN_STATES, ASSIGN_DID_FAIL), ASSIGN_STATES);
    assert_string_equal(assign_state_name(ASSIGN_HOST), "host");
    assert_string_equal(assign_state_name(ASSIGN_RESETTING), "resetting");
    assert_string_equal(assign_state_name(ASSIGN_QUARANTINED), "quarantined");
    assert_string_equal(assign_state_name(ASSIGN_STATES), "?");
}

static void test_take_and_drop(void **state)
{
    char why[120] = "";
    fresh();
    for (unsigned life = 0; life < 3; life++) {
        memset(dev.order, 0, sizeof(dev.order));
        assert_int_equal(assign_take(&a, why, sizeof(why)), STATUS_OK);
        assert_string_equal(dev.order, "gmirpa");
        assert_int_equal(a.state, ASSIGN_OWNED);
        assert_false(dev.mastering);
        assert_non_null(strstr(dev.last, "FLR done"));
        assert_int_equal(assign_take(&a, why, sizeof(why)), ERR_EXISTS);
        assert_non_null(strstr(why, "owned"));
        use();
        assign_drop(&a);
        assert_string_equal(dev.order, "mirdw");
        assert_int_equal(a.state, ASSIGN_HOST);
        assert_non_null(strstr(dev.last, "IOTLB flushed"));
        assert_false(dev.mastering || dev.attached || dev.provided || dev.irqs);
    }
    assert_int_equal(dev.said[LOG_INFO], 6);
    assign_drop(&a);
    assert_int_equal(a.state, ASSIGN_HOST);
    assert_int_equal(dev.said[LOG_INFO], 6);
}

/* Asked for by its owner, and looked after until it is over. True: the owner has it again. */
static bool owner_resets(void)
{
    assign_reset(&a);
    for (unsigned i = 0; i < 10; i++)
        assign_continue(&a);
    assert_int_not_equal(a.state, ASSIGN_RESETTING);
    return a.state == ASSIGN_OWNED;
}

static void test_guest_reset(void **state)
{
    char why[120];
    fresh();
    assert_false(owner_resets());
    assert_string_equal(dev.order, "");
    assert_int_equal(assign_take(&a, why, sizeof(why)), STATUS_OK);
    use();
    assign_continue(&a);
    assert_string_equal(dev.order, "");
    assign_reset(&a);
    assert_string_equal(dev.order, "mib");
    assert_int_equal(a.state, ASSIGN_RESETTING);
    assign_reset(&a); /* again: one is enough */
    assign_continue(&a);
    assert_string_equal(dev.order, "mib");
    assert_int_equal(assign_take(&a, why, sizeof(why)), ERR_EXISTS);
    assert_string_equal(why, "it is resetting");
    assign_continue(&a);
    assign_continue(&a);
    assert_string_equal(dev.order, "mibrp");
    assert_int_equal(a.state, ASSIGN_OWNED);
    assign_continue(&a);
    assert_string_equal(dev.order, "mibrp");
    use();
    assign_drop(&a);
    assert_int_equal(a.state, ASSIGN_HOST);
}

/* It is taken back in the middle: the reset that is under way is awaited, and does. */
static void test_stop_while_resetting(void **state)
{
    char why[120];
    for (unsigned looks = 0; looks < 3; looks++) {
        fresh();
        assert_int_equal(assign_take(&a, why, sizeof(why)), STATUS_OK);
        use();
        assign_reset(&a);
        for (unsigned i = 0; i < looks; i++)
            assign_continue(&a);
        assign_drop(&a);
        assert_string_equal(dev.order, "mibmirdw");
        assert_int_equal(a.state, ASSIGN_HOST);
        assert_false(dev.attached || dev.provided || dev.resetting);
        assert_non_null(strstr(dev.last, "FLR done, IOTLB flushed"));
    }
}

/* take, use, reset, use, drop, take again: with the nth step failing, for each n. */
static void test_each_failure(void **state)
{
    for (unsigned n = 1; n <= 11; n++) {
        char why[120] = "";
        fresh();
        dev.fail_at = n;
        bool taken = assign_take(&a, why, sizeof(why)) == STATUS_OK;
        assert_int_equal(taken, n > 4);
        assert_true(taken || strstr(why, "failed"));
        bool reset_well = false;
        if (taken) {
            use();
            reset_well = owner_resets();
            assert_int_equal(reset_well, n < 5 || n > 7);
            if (reset_well)
                use();
            assign_drop(&a);
        }
        assert_false(dev.mastering || dev.irqs || dev.attached || dev.provided);
        /* Steps: group, reset, provide, attach, | begin, reset, provide, | reset, detach, | group ... */
        bool lost = n == 2 || (n >= 5 && n <= 9);
        assert_int_equal(a.state, lost ? ASSIGN_QUARANTINED : ASSIGN_HOST);
        assert_int_equal(dev.said[LOG_ERROR], lost);
        memset(dev.order, 0, sizeof(dev.order));
        dev.fail_at = 0;
        if (!lost) {
            assert_int_equal(assign_take(&a, why, sizeof(why)), STATUS_OK);
            continue;
        }
        assert_int_equal(assign_take(&a, why, sizeof(why)), ERR_UNSUPPORTED);
        assert_non_null(strstr(why, "quarantined: step"));
        assert_string_equal(dev.order, ""); /* not touched again */
    }
}

/* A hand-over that fails half-way, and whose way back fails as well. */
static void test_failure_on_the_way_back(void **state)
{
    for (unsigned first = 3; first <= 4; first++) {
        for (unsigned also = first + 1; also <= first + 2; also++) { /* reset, detach */
            char why[120] = "";
            fresh();
            dev.fail_at = first;
            dev.fail_also = also;
            assert_int_equal(assign_take(&a, why, sizeof(why)), ERR_NOT_FOUND);
            assert_non_null(strstr(why, first == 3 ? "step p" : "step a"));
            assert_int_equal(a.state, ASSIGN_QUARANTINED);
            assert_non_null(strstr(a.why, also == first + 1 ? "step r" : "step d"));
            assert_false(dev.attached || dev.provided || dev.mastering);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_transition), cmocka_unit_test(test_take_and_drop),
        cmocka_unit_test(test_guest_reset),      cmocka_unit_test(test_stop_while_resetting),
        cmocka_unit_test(test_each_failure),     cmocka_unit_test(test_failure_on_the_way_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
