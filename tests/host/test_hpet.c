/* The HPET, against the register descriptions of the IA-PC HPET specification 1.0a, section 2.3. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/hpet.h"
#include "tests/host/fake_vdev_env.h"

#define CAPS         HPET_BASE
#define CONF         (HPET_BASE + 0x10)
#define STATUS       (HPET_BASE + 0x20)
#define COUNTER      (HPET_BASE + 0xf0)
#define T_CONF(n)    (HPET_BASE + 0x100 + 0x20 * (n))
#define T_COMPARE(n) (T_CONF(n) + 8)

#define ENABLE   1u
#define LEGACY   2u
#define LEVEL    0x002u
#define INT_ENB  0x004u
#define PERIODIC 0x008u
#define VAL_SET  0x040u
#define NARROW   0x100u
#define ROUTE(n) ((n) << 9)

#define TICK 10u /* ns */

static struct fake_vdev_env fake;
static struct hpet hpet;
static struct vdev *dev = &hpet.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    fake.now_ns = 12345;
    memset(&hpet, 0, sizeof(hpet));
    fake_attach(&fake, dev, &hpet_ops);
    return 0;
}

static void w(uint64_t addr, uint64_t value)
{
    fake_write(dev, addr, 8, value);
}

static uint64_t r(uint64_t addr)
{
    return fake_read(dev, addr, 8);
}

static void test_identity(void **state)
{
    assert_int_equal(r(CAPS), 10000000ull << 32 | 0x8086a201); /* 10 ns in fs; 3 timers, 64 bits, legacy */
    w(CAPS, 0);
    assert_int_equal(fake_read(dev, CAPS + 4, 4), 10000000);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        assert_int_equal(r(T_CONF(n)), 0x00f00000ull << 32 | 0x30);
        assert_int_equal(r(T_COMPARE(n)), UINT64_MAX);
    }
    assert_int_equal(r(T_CONF(HPET_TIMERS)), 0);
    assert_int_equal(r(T_CONF(0) + 0x10), 0); /* no FSB route */
}

static void test_counter(void **state)
{
    fake_advance(&fake, 1000);
    assert_int_equal(r(COUNTER), 0); /* it stands until it is enabled */
    w(COUNTER, 0x1fffffff0);
    w(CONF, ENABLE);
    fake_advance(&fake, 32 * TICK);
    assert_int_equal(r(COUNTER), 0x200000010);
    w(COUNTER, 5); /* not while it runs */
    assert_int_equal(r(COUNTER), 0x200000010);
    w(CONF, 0);
    fake_advance(&fake, 1000);
    assert_int_equal(r(COUNTER), 0x200000010);
    fake_write(dev, COUNTER, 4, 7);
    fake_write(dev, COUNTER + 4, 4, 9);
    assert_int_equal(r(COUNTER), 0x900000007);
    w(CONF, ENABLE);
    fake_advance(&fake, 3 * TICK);
    assert_int_equal(fake_read(dev, COUNTER, 4), 10);
    w(CONF, ~0ull);
    assert_int_equal(r(CONF), ENABLE | LEGACY); /* the rest is reserved */
}

/* Widths and alignments that the specification does not allow. */
static void test_accesses(void **state)
{
    assert_int_equal(fake_read(dev, CAPS + 4, 8), UINT64_MAX);
    assert_int_equal(fake_read(dev, CAPS + 1, 4), 0xffffffff);
    assert_int_equal(fake_read(dev, CAPS, 1), 0x01);
    assert_int_equal(fake_read(dev, CAPS + 2, 2), 0x8086);
    fake_write(dev, CONF, 1, ENABLE);
    fake_write(dev, CONF, 2, ENABLE);
    assert_int_equal(r(CONF), 0);
    fake_write(dev, HPET_BASE + HPET_SIZE - 4, 8, 1);
    assert_int_equal(fake_read(dev, HPET_BASE + HPET_SIZE - 4, 4), 0);
    assert_int_equal(fake_read(dev, HPET_BASE + HPET_SIZE, 4), 0xffffffff);
}

static void test_one_shot(void **state)
{
    w(T_CONF(2), INT_ENB | ROUTE(21));
    w(T_COMPARE(2), 1000);
    w(CONF, ENABLE);
    fake_advance(&fake, 999 * TICK);
    assert_int_equal(fake.rises[21], 0);
    fake_advance(&fake, TICK);
    assert_int_equal(fake.rises[21], 1);
    assert_false(fake.level[21]); /* an edge */
    fake_advance(&fake, 100000 * TICK);
    assert_int_equal(fake.rises[21], 1);
    w(T_COMPARE(2), 500); /* passed: around 64 bits */
    fake_advance(&fake, 100000 * TICK);
    assert_int_equal(fake.rises[21], 1);
    assert_int_equal(r(STATUS), 0); /* edges leave no status */
    w(T_COMPARE(2), r(COUNTER) + 10);
    w(T_CONF(2), ROUTE(21)); /* switched off: it passes unseen */
    fake_advance(&fake, 100 * TICK);
    assert_int_equal(fake.rises[21], 1);
}

/* A comparator of 32 bits meets the counter's lower half again and again. */
static void test_narrow(void **state)
{
    w(COUNTER, 0x3fffffff0);
    w(T_CONF(0), INT_ENB | NARROW | ROUTE(20));
    w(T_COMPARE(0), 0x123400000010);
    assert_int_equal(fake_read(dev, T_COMPARE(0), 4), 0x10);
    w(CONF, ENABLE);
    fake_advance(&fake, 0x20 * TICK);
    assert_int_equal(fake.rises[20], 1);
    fake_advance(&fake, (1ull << 32) * TICK);
    assert_int_equal(fake.rises[20], 2);
}

static void test_periodic(void **state)
{
    /* As Linux does it: the first event, then the period. */
    w(T_CONF(0), INT_ENB | PERIODIC | VAL_SET | ROUTE(22));
    assert_int_equal(r(T_CONF(0)) & VAL_SET, VAL_SET);
    w(T_COMPARE(0), 5000);
    assert_int_equal(r(T_CONF(0)) & VAL_SET, 0);
    w(T_COMPARE(0), 2000);
    assert_int_equal(r(T_COMPARE(0)), 5000);
    w(CONF, ENABLE);
    fake_advance(&fake, 4999 * TICK);
    assert_int_equal(fake.rises[22], 0);
    fake_advance(&fake, TICK);
    assert_int_equal(fake.rises[22], 1);
    assert_int_equal(r(T_COMPARE(0)), 7000);
    fake_advance(&fake, 10 * 2000 * TICK);
    assert_int_equal(fake.rises[22], 11);
    /* Beats that are missed are one, and the grid stays. */
    fake_jump(&fake, 5 * 2000 * TICK + 30);
    assert_int_equal(fake.rises[22], 12);
    assert_int_equal(r(T_COMPARE(0)), 5000 + 16 * 2000);
    /* A write to another comparator in between loses nothing that is due. */
    fake.now_ns += 2000 * TICK;
    w(T_COMPARE(1), 1);
    assert_int_equal(fake.rises[22], 13);
    /* Beats nobody could serve are thinned out; what is left keeps to the grid. */
    w(T_COMPARE(0), 3);
    unsigned calls = fake.timer_calls;
    fake_advance(&fake, 1000000);
    assert_in_range(fake.timer_calls - calls, 50, 102);
    w(T_COMPARE(0), 0); /* no period: once more, never again */
    fake_advance(&fake, 1000000);
    calls = fake.timer_calls;
    fake_advance(&fake, 1000000);
    assert_int_equal(fake.timer_calls, calls);
}

static void test_narrow_periodic(void **state)
{
    w(COUNTER, 0xffffff00);
    w(T_CONF(1), INT_ENB | PERIODIC | NARROW | VAL_SET | ROUTE(23));
    w(T_COMPARE(1), 0xffffff80);
    w(T_COMPARE(1), 0x1000);
    w(CONF, ENABLE);
    fake_advance(&fake, 0x80 * TICK);
    assert_int_equal(fake.rises[23], 1);
    assert_int_equal(r(T_COMPARE(1)), 0xf80); /* around 32 bits */
    fake_advance(&fake, 0x1000 * TICK);
    assert_int_equal(fake.rises[23], 2);
}

static void test_level(void **state)
{
    w(T_CONF(0), INT_ENB | LEVEL | ROUTE(20));
    w(T_CONF(1), LEVEL | ROUTE(20)); /* not enabled: its status tells */
    w(T_COMPARE(0), 100);
    w(T_COMPARE(1), 200);
    w(CONF, ENABLE);
    fake_advance(&fake, 150 * TICK);
    assert_true(fake.level[20]);
    assert_int_equal(r(STATUS), 1);
    fake_advance(&fake, 100 * TICK);
    assert_int_equal(r(STATUS), 3);
    w(STATUS, 1);
    assert_int_equal(r(STATUS), 2);
    assert_false(fake.level[20]);
    w(T_CONF(1), INT_ENB | LEVEL | ROUTE(20));
    assert_true(fake.level[20]);
    w(T_CONF(1), INT_ENB | ROUTE(20)); /* edge-triggered from now on: nothing is held */
    assert_false(fake.level[20]);
    assert_int_equal(r(STATUS), 0);
}

static void test_routes(void **state)
{
    w(T_CONF(0), INT_ENB | ROUTE(4u)); /* not among those offered */
    w(T_CONF(2), INT_ENB | ROUTE(31u));
    w(T_COMPARE(0), 10);
    w(T_COMPARE(2), 10);
    w(CONF, ENABLE);
    fake_advance(&fake, 100 * TICK);
    for (unsigned line = 0; line < FAKE_LINES; line++)
        assert_int_equal(fake.rises[line], 0);
}

static void test_legacy(void **state)
{
    assert_false(hpet_replaces(&hpet, 0));
    dev->env->set_irq(dev->env->ctx, 0, true); /* as the PIT may have left it */
    w(T_CONF(0), INT_ENB | ROUTE(20));
    w(T_CONF(1), INT_ENB | ROUTE(20));
    w(T_CONF(2), INT_ENB | ROUTE(20));
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        w(T_COMPARE(n), 100);
    w(CONF, ENABLE | LEGACY);
    assert_true(hpet_replaces(&hpet, 0) && hpet_replaces(&hpet, 8));
    assert_false(hpet_replaces(&hpet, 20) || hpet_replaces(&hpet, 1));
    fake_advance(&fake, 100 * TICK);
    assert_int_equal(fake.rises[0], 2);
    assert_int_equal(fake.rises[8], 1);
    assert_int_equal(fake.rises[20], 1);
    w(CONF, ENABLE);
    assert_false(hpet_replaces(&hpet, 0) || hpet_replaces(&hpet, 8));
}

static void test_reset(void **state)
{
    w(T_CONF(0), INT_ENB | LEVEL | ROUTE(23));
    w(T_COMPARE(0), 100);
    w(CONF, ENABLE | LEGACY);
    w(T_CONF(2), INT_ENB | LEVEL | ROUTE(23));
    w(T_COMPARE(2), 100);
    fake_advance(&fake, 100 * TICK);
    assert_true(fake.level[23]);
    hpet_ops.reset(dev);
    assert_false(fake.level[23]);
    assert_int_equal(r(CONF), 0);
    assert_int_equal(r(STATUS), 0);
    assert_int_equal(r(COUNTER), 0);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    test_identity(state);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        T(test_identity), T(test_counter),  T(test_accesses),        T(test_one_shot),
        T(test_narrow),   T(test_periodic), T(test_narrow_periodic), T(test_level),
        T(test_routes),   T(test_legacy),   T(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
