#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/pit.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct pit pit;
static struct vdev *dev = &pit.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&pit, 0x77, sizeof(pit));
    fake_attach(&fake, dev, &pit_ops);
    return 0;
}

/* Moves the clock to the first nanosecond of a tick of the 1.193182 MHz clock. */
static void to_tick(uint64_t tick)
{
    uint64_t ns = vdev_ticks_to_ns(tick, PIT_HZ);
    assert_true(ns >= fake.now_ns);
    fake_advance(&fake, ns - fake.now_ns);
}

/* Control word for `counter` with two-byte access, then the count. */
static void program(unsigned counter, unsigned mode, uint16_t count)
{
    fake_out(dev, PIT_CONTROL_PORT, (uint8_t)(counter << 6 | 0x30 | mode << 1));
    fake_out(dev, PIT_PORT + counter, (uint8_t)count);
    fake_out(dev, PIT_PORT + counter, (uint8_t)(count >> 8));
}

static uint16_t read_count(unsigned counter)
{
    fake_out(dev, PIT_CONTROL_PORT, (uint8_t)(counter << 6));
    uint8_t low = fake_in(dev, PIT_PORT + counter);
    return (uint16_t)(low | fake_in(dev, PIT_PORT + counter) << 8);
}

static uint8_t read_status(unsigned counter)
{
    fake_out(dev, PIT_CONTROL_PORT, (uint8_t)(0xe0 | 2u << counter));
    return fake_in(dev, PIT_PORT + counter);
}

static bool out2(void)
{
    return fake_in(dev, PIT_PORT_B) & 0x20;
}

static bool irq0(void)
{
    return fake.level[0];
}

static void test_exact_arithmetic(void **state)
{
    assert_int_equal(vdev_ns_to_ticks(1000000000, PIT_HZ), PIT_HZ);
    assert_int_equal(vdev_ns_to_ticks(999999999, PIT_HZ), PIT_HZ - 1);
    /* A hundred years. */
    const uint64_t seconds = 3155760000ull;
    assert_int_equal(vdev_ns_to_ticks(seconds * 1000000000, PIT_HZ), seconds * PIT_HZ);
    for (uint64_t tick = seconds * PIT_HZ; tick < seconds * PIT_HZ + 1000; tick++) {
        uint64_t ns = vdev_ticks_to_ns(tick, PIT_HZ);
        assert_int_equal(vdev_ns_to_ticks(ns, PIT_HZ), tick);
        assert_int_equal(vdev_ns_to_ticks(ns - 1, PIT_HZ), tick - 1);
    }
    assert_int_equal(vdev_ticks_to_ns(UINT64_MAX, PIT_HZ), VDEV_NEVER);
}

static void test_mode0(void **state)
{
    program(0, 0, 1000);
    assert_false(irq0());
    to_tick(1);
    assert_int_equal(read_count(0), 1000);
    to_tick(501);
    assert_int_equal(read_count(0), 500);
    to_tick(1000);
    assert_false(irq0());
    assert_int_equal(read_status(0), 0x30);
    to_tick(1001); /* N + 1 clocks after the write */
    assert_true(irq0());
    assert_int_equal(fake.events[0].now_ns, vdev_ticks_to_ns(1001, PIT_HZ));
    assert_int_equal(read_status(0), 0xb0);
    assert_int_equal(read_count(0), 0);
    to_tick(1002);
    assert_int_equal(read_count(0), 0xffff); /* runs on */
    to_tick(1001 + 3 * 65536);
    assert_int_equal(read_count(0), 0);
    assert_int_equal(fake.rises[0], 1);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    /* A new count: the first byte stops and lowers OUT. */
    fake_out(dev, 0x40, 100);
    assert_false(irq0());
    fake_advance(&fake, 1000000);
    assert_int_equal(read_count(0), 0);
    assert_int_equal(read_status(0), 0x30); /* the old count stands still */
    fake_out(dev, 0x40, 0);
    fake_advance(&fake, 101 * 839);
    assert_true(irq0());
    assert_int_equal(fake.rises[0], 2);
}

static void test_mode2_is_periodic(void **state)
{
    program(0, 2, 1193); /* about 1 kHz */
    assert_true(irq0()); /* OUT goes high with the control word */
    unsigned before = fake.rises[0];
    to_tick(1);
    assert_int_equal(read_count(0), 1193);
    to_tick(1193);
    assert_int_equal(read_count(0), 1);
    assert_int_equal(read_status(0) & 0x80, 0);
    to_tick(1194);
    assert_int_equal(read_count(0), 1193);
    assert_int_equal(fake.rises[0], before + 1);
    /* No drift: in 1000 seconds exactly as many as the clock says. */
    to_tick(1 + 1193ull * 1000000);
    assert_int_equal(fake.rises[0], before + 1000000);
    assert_int_equal(fake.set_timer_calls, fake.timer_calls + 4);
}

static void test_mode3(void **state)
{
    program(0, 3, 10);
    unsigned before = fake.rises[0];
    static const uint8_t even[] = {10, 8, 6, 4, 2, 10, 8, 6, 4, 2};
    for (unsigned i = 0; i < 20; i++) {
        to_tick(1 + i);
        assert_int_equal(read_count(0), even[i % 10]);
        assert_int_equal(read_status(0) & 0x80, i % 10 < 5 ? 0x80 : 0);
    }
    program(2, 3, 7); /* odd: 4 high, 3 low; gate is low */
    fake_out(dev, PIT_PORT_B, 1);
    uint64_t start = vdev_ns_to_ticks(fake.now_ns, PIT_HZ) + 1;
    static const uint8_t odd[] = {6, 4, 2, 0, 6, 4, 2};
    for (unsigned i = 0; i < 14; i++) {
        to_tick(start + i);
        assert_int_equal(read_count(2), odd[i % 7]);
        assert_int_equal(out2(), i % 7 < 4);
    }
    assert_true(fake.rises[0] > before);
    /* 100 Hz for a minute. */
    program(0, 3, 11932);
    before = fake.rises[0];
    fake_advance(&fake, 60000000000ull);
    assert_in_range(fake.rises[0] - before, 5999, 6000);
}

static void test_new_count_waits(void **state)
{
    program(0, 2, 100);
    unsigned before = fake.rises[0];
    to_tick(51);
    fake_out(dev, 0x40, 200);
    assert_int_equal(read_status(0) & 0x40, 0);
    fake_out(dev, 0x40, 0);
    assert_int_equal(read_status(0) & 0x40, 0x40); /* null count: not loaded yet */
    assert_int_equal(read_count(0), 50);
    to_tick(101);
    assert_int_equal(fake.rises[0], before + 1);
    assert_int_equal(read_count(0), 200);
    assert_int_equal(read_status(0) & 0x40, 0);
    to_tick(300);
    assert_int_equal(fake.rises[0], before + 1);
    to_tick(301);
    assert_int_equal(fake.rises[0], before + 2);
    /* Mode 3 changes with the half: 100 = 50 high, then 15 low of 30. */
    program(0, 3, 100);
    before = fake.rises[0];
    to_tick(310);
    fake_out(dev, 0x40, 30);
    fake_out(dev, 0x40, 0);
    to_tick(302 + 49);
    assert_int_equal(read_status(0) & 0x80, 0x80);
    to_tick(302 + 50);
    assert_int_equal(read_status(0) & 0xc0, 0);
    assert_int_equal(read_count(0), 30);
    to_tick(302 + 64);
    assert_int_equal(fake.rises[0], before);
    to_tick(302 + 65);
    assert_int_equal(fake.rises[0], before + 1);
    to_tick(302 + 95);
    assert_int_equal(fake.rises[0], before + 2);
    /* Written in the low half, it waits for the period's end. */
    to_tick(302 + 115);
    fake_out(dev, 0x40, 60);
    fake_out(dev, 0x40, 0);
    to_tick(302 + 125);
    assert_int_equal(fake.rises[0], before + 3);
    assert_int_equal(read_count(0), 60);
}

static void test_mode4_and_linux_oneshot(void **state)
{
    program(0, 4, 500);
    assert_true(irq0());
    unsigned before = fake.rises[0];
    to_tick(501);
    assert_int_equal(read_status(0) & 0x80, 0); /* one clock low */
    to_tick(502);
    assert_int_equal(fake.rises[0], before + 1);
    assert_int_equal(read_status(0) & 0x80, 0x80);
    to_tick(100000);
    assert_int_equal(fake.rises[0], before + 1);
    /* Written again while it counts: starts over, no interrupt in between. */
    fake_out(dev, 0x40, 0xe8);
    fake_out(dev, 0x40, 0x03);
    to_tick(100500);
    fake_out(dev, 0x40, 0xe8);
    fake_out(dev, 0x40, 0x03);
    to_tick(101501);
    assert_int_equal(fake.rises[0], before + 1);
    to_tick(101502);
    assert_int_equal(fake.rises[0], before + 2);
    /* Linux's pit_shutdown(): mode 0, count 0. */
    program(0, 0, 0);
    assert_false(irq0());
    to_tick(101502 + 65537);
    assert_int_equal(fake.rises[0], before + 3);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
}

static void test_triggered_modes(void **state)
{
    program(0, 1, 10); /* gate 0 never rises */
    fake_advance(&fake, 1000000);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    assert_int_equal(read_status(0), 0xf2);

    program(2, 1, 100);
    assert_true(out2());
    uint64_t t = vdev_ns_to_ticks(fake.now_ns, PIT_HZ) + 1000;
    to_tick(t);
    assert_int_equal(read_status(2) & 0xc0, 0xc0);
    fake_out(dev, PIT_PORT_B, 1); /* trigger */
    to_tick(t + 1);
    assert_false(out2());
    assert_int_equal(read_status(2) & 0xc0, 0);
    to_tick(t + 100);
    assert_false(out2());
    fake_out(dev, PIT_PORT_B, 0); /* the gate's level does not matter */
    to_tick(t + 101);
    assert_true(out2());
    fake_out(dev, PIT_PORT_B, 1);
    to_tick(t + 151);
    fake_out(dev, PIT_PORT_B, 0);
    fake_out(dev, PIT_PORT_B, 1); /* again: the pulse is prolonged */
    to_tick(t + 251);
    assert_false(out2());
    to_tick(t + 252);
    assert_true(out2());

    fake_out(dev, PIT_PORT_B, 0);
    program(2, 5, 20);
    to_tick(t + 300);
    assert_true(out2());
    fake_out(dev, PIT_PORT_B, 1);
    to_tick(t + 320);
    assert_true(out2());
    to_tick(t + 321);
    assert_false(out2());
    to_tick(t + 322);
    assert_true(out2());
    fake_out(dev, PIT_CONTROL_PORT, 0xba); /* without a count a trigger does nothing */
    fake_out(dev, PIT_PORT_B, 0);
    fake_out(dev, PIT_PORT_B, 1);
    to_tick(t + 1000);
    assert_true(out2());
}

/* Linux's pit_calibrate_tsc(): counter 2 in mode 0, wait for OUT2. */
static void test_gate2(void **state)
{
    fake_out(dev, PIT_PORT_B, 0x01);
    program(2, 0, 11931);
    to_tick(11931);
    assert_false(out2());
    to_tick(11932);
    assert_true(out2());
    /* Gate low stops modes 0 and 4, and goes on where it was. */
    program(2, 0, 1000);
    to_tick(11932 + 401);
    fake_out(dev, PIT_PORT_B, 0x02);
    assert_int_equal(fake_in(dev, PIT_PORT_B) & 0x0f, 0x02);
    assert_int_equal(read_count(2), 600);
    to_tick(50000);
    assert_int_equal(read_count(2), 600);
    fake_out(dev, PIT_PORT_B, 0xff);
    assert_int_equal(fake_in(dev, PIT_PORT_B) & 0xcf, 0x0f);
    to_tick(50599);
    assert_false(out2());
    to_tick(50600);
    assert_true(out2());
    /* A count written while the gate is low waits for it. */
    fake_out(dev, PIT_PORT_B, 0);
    program(2, 4, 10);
    to_tick(60000);
    assert_int_equal(read_count(2), 10);
    fake_out(dev, PIT_PORT_B, 1);
    to_tick(60010);
    assert_false(out2());
    /* Modes 2 and 3: low makes OUT high, the rising edge starts the period anew. */
    program(2, 2, 10);
    to_tick(60020);
    assert_false(out2());
    fake_out(dev, PIT_PORT_B, 0);
    assert_true(out2());
    to_tick(60100);
    assert_int_equal(read_count(2), 1);
    fake_out(dev, PIT_PORT_B, 1);
    to_tick(60101);
    assert_int_equal(read_count(2), 10);
    program(2, 3, 10);
    to_tick(60107);
    assert_false(out2());
    fake_out(dev, PIT_PORT_B, 0);
    assert_true(out2());
}

static void test_refresh_toggle(void **state)
{
    unsigned toggles = 0;
    uint8_t last = fake_in(dev, PIT_PORT_B) & 0x10;
    for (uint64_t tick = 1; tick <= 18 * 100; tick++) {
        to_tick(tick);
        uint8_t now = fake_in(dev, PIT_PORT_B) & 0x10;
        toggles += now != last;
        last = now;
    }
    assert_int_equal(toggles, 100);
}

static void test_latch_and_read_back(void **state)
{
    program(0, 2, 1000);
    to_tick(101);
    fake_out(dev, PIT_CONTROL_PORT, 0x00);
    to_tick(301);
    fake_out(dev, PIT_CONTROL_PORT, 0x00); /* the first latch holds */
    assert_int_equal(fake_in(dev, 0x40), 900 & 0xff);
    assert_int_equal(fake_in(dev, 0x40), 900 >> 8);
    assert_int_equal(fake_in(dev, 0x40), 700 & 0xff);
    assert_int_equal(fake_in(dev, 0x40), 700 >> 8);
    program(1, 2, 18);
    fake_out(dev, PIT_CONTROL_PORT, 0xc6); /* count and status of 0 and 1 */
    to_tick(401);
    fake_out(dev, PIT_CONTROL_PORT, 0xe2); /* ignored: latched already */
    assert_int_equal(fake_in(dev, 0x40), 0xb4);
    assert_int_equal(fake_in(dev, 0x40), 700 & 0xff);
    assert_int_equal(fake_in(dev, 0x40), 700 >> 8);
    assert_int_equal(fake_in(dev, 0x41), 0xf4); /* not loaded before the next clock */
    fake_out(dev, PIT_CONTROL_PORT, 0xd2);      /* count only */
    assert_int_equal(fake_in(dev, 0x40), 600 & 0xff);
    /* A control word forgets latches and half-done accesses. */
    fake_out(dev, PIT_CONTROL_PORT, 0x34);
    assert_int_equal(read_status(0), 0xf4);
    assert_int_equal(fake_in(dev, PIT_CONTROL_PORT), 0xff);
    assert_int_equal(fake_in(dev, 0x44), 0xff);
    fake_out(dev, 0x44, 0);
}

static void test_access_modes(void **state)
{
    fake_out(dev, PIT_CONTROL_PORT, 0x14); /* low byte only */
    fake_out(dev, 0x40, 0x50);
    to_tick(1);
    assert_int_equal(fake_in(dev, 0x40), 0x50);
    assert_int_equal(fake_in(dev, 0x40), 0x50);
    fake_out(dev, PIT_CONTROL_PORT, 0x00);
    assert_int_equal(fake_in(dev, 0x40), 0x50);
    fake_out(dev, PIT_CONTROL_PORT, 0x24); /* high byte only */
    fake_out(dev, 0x40, 0x50);
    to_tick(2);
    assert_int_equal(fake_in(dev, 0x40), 0x50);
    fake_out(dev, PIT_CONTROL_PORT, 0x3c); /* mode 6 is mode 2 */
    fake_out(dev, 0x40, 0x10);
    fake_out(dev, 0x40, 0x00);
    to_tick(3);
    assert_int_equal(fake_in(dev, 0x40), 0x10);
    assert_int_equal(fake_in(dev, 0x40), 0x00);
    assert_int_equal(read_status(0), 0xbc); /* as written */
    assert_int_equal(fake_read(dev, 0x40, 2) & 0xff, 0x10);
}

static void test_bcd(void **state)
{
    fake_out(dev, PIT_CONTROL_PORT, 0x35);
    fake_out(dev, 0x40, 0x34);
    fake_out(dev, 0x40, 0x12);
    to_tick(1);
    assert_int_equal(read_count(0), 0x1234);
    to_tick(36);
    assert_int_equal(read_count(0), 0x1199);
    fake_out(dev, PIT_CONTROL_PORT, 0x31); /* mode 0, count 0 = 10000 */
    fake_out(dev, 0x40, 0);
    fake_out(dev, 0x40, 0);
    to_tick(37);
    assert_int_equal(read_count(0), 0);
    to_tick(38);
    assert_int_equal(read_count(0), 0x9999);
    unsigned before = fake.rises[0];
    to_tick(36 + 10000);
    assert_int_equal(fake.rises[0], before);
    to_tick(36 + 10001);
    assert_int_equal(fake.rises[0], before + 1);
    fake_out(dev, PIT_CONTROL_PORT, 0x31);
    fake_out(dev, 0x40, 0xff); /* no digits; must only stay sane */
    fake_out(dev, 0x40, 0xff);
    fake_advance(&fake, 1000);
    (void)read_count(0);
}

static void test_missed_interrupts_are_one(void **state)
{
    program(0, 2, 1193);
    unsigned before = fake.rises[0];
    fake_jump(&fake, 5000000000ull);
    assert_int_equal(fake.rises[0], before + 1);
    /* Still on the grid of the period. */
    uint64_t tick = vdev_ns_to_ticks(dev->deadline_ns, PIT_HZ);
    assert_int_equal((tick - 1) % 1193, 0);
    /* The shortest period must not be all the machine does. */
    program(0, 2, 1);
    unsigned calls = fake.timer_calls;
    fake_advance(&fake, 1000000000);
    assert_in_range(fake.timer_calls - calls, 1000, 100000);
    /* An interrupt that came due is not lost by programming anew. */
    program(0, 0, 100);
    assert_false(irq0());
    before = fake.rises[0];
    fake.now_ns += 1000000;
    program(0, 0, 100);
    assert_int_equal(fake.rises[0], before + 1);
    assert_false(irq0());
    /* A timer that comes early does no harm. */
    pit_ops.timer(dev, fake.now_ns);
    assert_int_equal(fake.rises[0], before + 1);
    fake_advance(&fake, 1000000);
    assert_int_equal(fake.rises[0], before + 2);
}

static void test_reset(void **state)
{
    program(0, 2, 100);
    program(2, 3, 100);
    fake_out(dev, PIT_PORT_B, 3);
    pit_ops.reset(dev);
    assert_false(irq0());
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    assert_int_equal(fake_in(dev, PIT_PORT_B) & 0x2f, 0);
    fake_out(dev, PIT_PORT_B, 1); /* the gate rises before anything was programmed */
    assert_false(out2());
    fake_out(dev, PIT_PORT_B, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_exact_arithmetic, setup),
        cmocka_unit_test_setup(test_mode0, setup),
        cmocka_unit_test_setup(test_mode2_is_periodic, setup),
        cmocka_unit_test_setup(test_mode3, setup),
        cmocka_unit_test_setup(test_new_count_waits, setup),
        cmocka_unit_test_setup(test_mode4_and_linux_oneshot, setup),
        cmocka_unit_test_setup(test_triggered_modes, setup),
        cmocka_unit_test_setup(test_gate2, setup),
        cmocka_unit_test_setup(test_refresh_toggle, setup),
        cmocka_unit_test_setup(test_latch_and_read_back, setup),
        cmocka_unit_test_setup(test_access_modes, setup),
        cmocka_unit_test_setup(test_bcd, setup),
        cmocka_unit_test_setup(test_missed_interrupts_are_one, setup),
        cmocka_unit_test_setup(test_reset, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
