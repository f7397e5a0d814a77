#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include "drivers/vdev/rtc.h"
#include "tests/host/fake_vdev_env.h"

/* 2024-02-28 23:59:58 UTC, a Wednesday before a leap day. */
#define START  1709164798
#define SECOND 1000000000ull

static struct fake_vdev_env fake;
static struct rtc rtc;
static struct vdev *dev = &rtc.dev;

static void start_at(int64_t wall)
{
    fake_vdev_env_init(&fake);
    fake.wall_at_0 = wall;
    memset(&rtc, 0x33, sizeof(rtc));
    fake_attach(&fake, dev, &rtc_ops);
}

static int setup(void **state)
{
    start_at(START);
    return 0;
}

static uint8_t get(unsigned reg)
{
    fake_out(dev, 0x70, (uint8_t)reg);
    return fake_in(dev, 0x71);
}

static void set(unsigned reg, uint8_t value)
{
    fake_out(dev, 0x70, (uint8_t)reg);
    fake_out(dev, 0x71, value);
}

static void assert_time(unsigned century, unsigned year, unsigned month, unsigned day, unsigned weekday,
                        unsigned hour, unsigned minute, unsigned second)
{
    assert_int_equal(get(0x32), century);
    assert_int_equal(get(9), year);
    assert_int_equal(get(8), month);
    assert_int_equal(get(7), day);
    assert_int_equal(get(6), weekday);
    assert_int_equal(get(4), hour);
    assert_int_equal(get(2), minute);
    assert_int_equal(get(0), second);
}

static bool irq8(void)
{
    return fake.level[8];
}

static void test_time_advances(void **state)
{
    assert_int_equal(get(0x0a), 0x26);
    assert_int_equal(get(0x0b), 0x02);
    assert_int_equal(get(0x0c), 0);
    assert_int_equal(get(0x0d), 0x80);
    assert_time(0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x58);
    fake_advance(&fake, SECOND);
    assert_time(0x20, 0x24, 0x02, 0x28, 4, 0x23, 0x59, 0x59);
    fake_advance(&fake, SECOND);
    assert_time(0x20, 0x24, 0x02, 0x29, 5, 0x00, 0x00, 0x00);
    fake_advance(&fake, 86400 * SECOND);
    assert_time(0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00);
    assert_int_equal(fake.timer_calls, 0); /* nobody asked for interrupts */
}

static void test_formats(void **state)
{
    set(0x0b, 0x06); /* binary, 24 hours */
    assert_time(20, 24, 2, 28, 4, 23, 59, 58);
    set(0x0b, 0x04); /* binary, 12 hours */
    assert_int_equal(get(4), 0x80 | 11);
    set(0x0b, 0x00);
    assert_int_equal(get(4), 0x80 | 0x11);
    fake_advance(&fake, 2 * SECOND);
    assert_int_equal(get(4), 0x12); /* midnight */
    fake_advance(&fake, 12 * 3600 * SECOND);
    assert_int_equal(get(4), 0x92); /* noon */
    fake_advance(&fake, 3600 * SECOND);
    assert_int_equal(get(4), 0x81);
}

/* Every day from 1970 to 2400 and around it, against the C library. */
static void test_calendar(void **state)
{
    for (int64_t day = -200 * 365; day < 430 * 366; day += 1) {
        int64_t t = day * 86400 + 45296;
        struct tm tm;
        time_t libc = (time_t)t;
        assert_non_null(gmtime_r(&libc, &tm));
        start_at(t);
        set(0x0b, 0x06);
        int year = tm.tm_year + 1900;
        assert_int_equal(get(0x32) * 100 + get(9), year);
        assert_int_equal(get(8), tm.tm_mon + 1);
        assert_int_equal(get(7), tm.tm_mday);
        assert_int_equal(get(6), tm.tm_wday + 1);
        assert_int_equal(get(4), 12);
        assert_int_equal(get(2), 34);
        assert_int_equal(get(0), 56);
        /* And back again: writing what was read changes nothing. */
        set(7, (uint8_t)tm.tm_mday);
        assert_int_equal(rtc.guest_offset, 0);
    }
}

/* Linux's mc146818_set_time(). */
static void test_linux_set_time(void **state)
{
    fake_advance(&fake, SECOND / 4);
    uint8_t control = get(0x0b), select = get(0x0a);
    set(0x0b, control | 0x80);
    set(0x0a, select | 0x70);
    set(9, 0x99);
    set(8, 0x12);
    set(7, 0x31);
    set(4, 0x23);
    set(2, 0x59);
    set(0, 0x59);
    set(0x32, 0x19);
    set(6, 0x06); /* Friday */
    set(0x0b, control);
    fake_advance(&fake, 10 * SECOND);
    assert_time(0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59); /* the divider is still in reset */
    assert_int_equal(get(0x0a) & 0x80, 0);
    set(0x0a, select);
    fake_advance(&fake, SECOND / 2 - 1);
    assert_time(0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59);
    fake_advance(&fake, 1); /* half a second after the divider's start */
    assert_time(0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00);
    /* The offset survives a reset, which takes the wall clock anew. */
    rtc_ops.reset(dev);
    fake.wall_at_0 += 100;
    assert_time(0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00);
    rtc_ops.reset(dev);
    assert_time(0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x01, 0x39); /* the wall clock tells no half seconds */
    /* Also when the VM's nanoseconds begin again with the reset. */
    fake.wall_at_0 += (int64_t)(fake.now_ns / SECOND);
    fake.now_ns = 0;
    rtc_ops.reset(dev);
    assert_time(0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x01, 0x39);
}

static void test_set_bit(void **state)
{
    fake_advance(&fake, SECOND / 4);
    set(0x0b, 0x92); /* SET, and UIE, which SET clears */
    assert_int_equal(get(0x0b), 0x82);
    fake_advance(&fake, 5 * SECOND);
    assert_int_equal(get(0), 0x58); /* stands still */
    assert_int_equal(get(0x0c) & 0x10, 0);
    set(0x0b, 0x02);
    assert_time(0x20, 0x24, 0x02, 0x29, 5, 0x00, 0x00, 0x03); /* only looked: nothing lost */
    set(0x0b, 0x82);
    set(2, 0x30);
    set(0x0b, 0x02);
    assert_int_equal(get(2), 0x30);
    fake_advance(&fake, SECOND * 3 / 4 - 1);
    assert_int_equal(get(0), 0x03);
    fake_advance(&fake, 1); /* the phase of the second was kept */
    assert_int_equal(get(0), 0x04);
    /* The same bytes in another format are another time. */
    set(0x0b, 0x82);
    set(0x0b, 0x86);
    set(0x0b, 0x06);
    assert_int_equal(get(2), 0x30);
    assert_int_equal(get(0x32), 0x20);
    /* Without SET every write counts at once. */
    set(4, 17);
    assert_int_equal(get(4), 17);
    assert_int_equal(get(2), 0x30);
    /* The day of the week is the guest's own. */
    uint8_t day = get(7);
    set(6, 2);
    fake_advance(&fake, 86400 * SECOND);
    assert_int_equal(get(6), 3);
    assert_int_equal(get(7), day + 1);
}

static void test_nonsense_is_clamped(void **state)
{
    static const uint8_t regs[] = {0, 2, 4, 6, 7, 8, 9, 0x32};
    set(0x0b, 0x82);
    for (unsigned i = 0; i < sizeof(regs); i++)
        set(regs[i], 0xff);
    set(0x0b, 0x02);
    assert_time(0x99, 0x99, 0x12, 0x31, 7, 0x23, 0x59, 0x59);
    fake_advance(&fake, SECOND);
    assert_time(0x00, 0x00, 0x01, 0x01, 1, 0x00, 0x00, 0x00);
    set(0x0b, 0x80);
    for (unsigned i = 0; i < sizeof(regs); i++)
        set(regs[i], 0);
    set(0x0b, 0x00);
    assert_int_equal(get(8), 1);
    assert_int_equal(get(7), 1);
    assert_int_equal(get(4), 0x80 | 0x11); /* no hour at all */
}

static void test_uip(void **state)
{
    const uint64_t window = 2228000; /* 244 + 1984 us */
    fake_advance(&fake, SECOND - window - 100000);
    assert_int_equal(get(0x0a), 0x26);
    fake_advance(&fake, 100000);
    assert_int_equal(get(0x0a), 0xa6);
    assert_int_equal(get(0), 0x58);
    fake_advance(&fake, window - 1);
    assert_int_equal(get(0x0a), 0xa6);
    assert_int_equal(get(0), 0x58);
    fake_advance(&fake, 1);
    assert_int_equal(get(0x0a), 0x26);
    assert_int_equal(get(0), 0x59);
    set(0x0a, 0xff); /* UIP is read-only, the divider in reset */
    assert_int_equal(get(0x0a), 0x7f);
    set(0x0a, 0x26);
    set(0x0b, 0x82);
    fake_advance(&fake, SECOND - window / 2);
    assert_int_equal(get(0x0a), 0x26);
}

static void test_update_interrupt(void **state)
{
    set(0x0b, 0x12);
    fake_advance(&fake, SECOND - 1);
    assert_false(irq8());
    fake_advance(&fake, 1);
    assert_true(irq8());
    assert_int_equal(fake.events[0].now_ns, SECOND);
    fake_advance(&fake, 10 * SECOND); /* not acknowledged: no storm, no timers */
    assert_int_equal(fake.rises[8], 1);
    assert_int_equal(fake.timer_calls, 1);
    assert_int_equal(get(0x0c) & 0x90, 0x90);
    assert_false(irq8());
    assert_int_equal(get(0x0c), 0);
    for (unsigned i = 0; i < 5; i++) {
        fake_advance(&fake, SECOND);
        assert_true(irq8());
        get(0x0c);
    }
    assert_int_equal(fake.rises[8], 6);
    set(0x0b, 0x02);
    fake_advance(&fake, 3 * SECOND);
    assert_false(irq8());
    assert_int_equal(get(0x0c) & 0x90, 0x10); /* the flag, but no interrupt */
    fake_advance(&fake, SECOND);
    set(0x0b, 0x12);
    assert_true(irq8()); /* enabling it with the flag set */
}

static void test_periodic(void **state)
{
    static const struct {
        uint8_t rate;
        unsigned hz;
    } rates[] = {{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {15, 2}};
    for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
        start_at(START);
        set(0x0a, 0x20 | rates[i].rate);
        set(0x0b, 0x42);
        unsigned count = 0;
        for (uint64_t ns = 0; ns < 2 * SECOND; ns += SECOND / 32768) {
            fake_advance(&fake, SECOND / 32768);
            if (irq8()) {
                count++;
                assert_int_equal(get(0x0c) & 0xc0, 0xc0);
            }
        }
        assert_in_range(count, 2 * rates[i].hz - 1, 2 * rates[i].hz);
    }
    set(0x0a, 0x20); /* off */
    get(0x0c);
    fake_advance(&fake, SECOND);
    assert_int_equal(get(0x0c) & 0x40, 0);
    /* Missed periods are one interrupt. */
    set(0x0a, 0x26);
    unsigned before = fake.rises[8];
    fake_jump(&fake, 10 * SECOND);
    assert_int_equal(fake.rises[8], before + 1);
}

static uint64_t time_to_alarm(uint8_t hour, uint8_t minute, uint8_t second)
{
    start_at(START);
    set(5, hour);
    set(3, minute);
    set(1, second);
    set(0x0b, 0x22);
    fake_advance(&fake, 3 * 86400 * SECOND);
    if (fake.event_count == 0) {
        assert_int_equal(get(0x0c) & 0x20, 0);
        return 0;
    }
    assert_int_equal(get(0x0c) & 0xa0, 0xa0);
    return fake.events[0].now_ns;
}

static void test_alarm(void **state)
{
    /* It is 23:59:58. */
    assert_int_equal(time_to_alarm(0x23, 0x59, 0x59), SECOND);
    assert_int_equal(time_to_alarm(0x00, 0x00, 0x00), 2 * SECOND);
    assert_int_equal(time_to_alarm(0x23, 0x59, 0x58), 86400 * SECOND);
    assert_int_equal(time_to_alarm(0xff, 0xff, 0xff), SECOND);
    assert_int_equal(time_to_alarm(0xff, 0xff, 0x30), 32 * SECOND);
    assert_int_equal(time_to_alarm(0xff, 0xff, 0x59), SECOND);
    assert_int_equal(time_to_alarm(0xff, 0x58, 0x00), (58 * 60 + 2) * SECOND);
    assert_int_equal(time_to_alarm(0xc0, 0x59, 0x10), (59 * 60 + 12) * SECOND);
    assert_int_equal(time_to_alarm(0x12, 0xff, 0xff), (12 * 3600 + 2) * SECOND);
    assert_int_equal(time_to_alarm(0x12, 0x30, 0xff), (12 * 3600 + 30 * 60 + 2) * SECOND);
    assert_int_equal(time_to_alarm(0x23, 0xff, 0x00), (23 * 3600 + 2) * SECOND);
    assert_int_equal(time_to_alarm(0x24, 0x00, 0x00), 0);
    assert_int_equal(time_to_alarm(0x00, 0x60, 0x00), 0);
    assert_int_equal(time_to_alarm(0x00, 0x00, 0x7f), 0);
}

/* Against the definition: a wildcard or an equal field, looked at every second. */
static void test_alarm_exhaustive(void **state)
{
    static const uint8_t hours[] = {0x00, 0x13, 0x23, 0xff}, others[] = {0x00, 0x31, 0x59, 0xff};
    for (unsigned n = 0; n < 64; n++) {
        uint8_t h = hours[n & 3], m = others[n >> 2 & 3], s = others[n >> 4];
        for (unsigned from = 0; from < 86400; from += 1111) {
            unsigned expected = 0;
            for (unsigned d = 1; d <= 86400 && !expected; d++) {
                unsigned t = (from + d) % 86400, hh = t / 3600, mm = t / 60 % 60, ss = t % 60;
                if ((h == 0xff || h == (hh / 10 << 4 | hh % 10)) &&
                    (m == 0xff || m == (mm / 10 << 4 | mm % 10)) &&
                    (s == 0xff || s == (ss / 10 << 4 | ss % 10)))
                    expected = d;
            }
            start_at((int64_t)86400 * 20000 + from);
            set(5, h);
            set(3, m);
            set(1, s);
            set(0x0b, 0x22);
            assert_int_equal(dev->deadline_ns, expected * SECOND);
        }
    }
}

static void test_alarm_in_12_hours(void **state)
{
    set(0x0b, 0x00);
    set(5, 0x12); /* midnight */
    set(3, 0x00);
    set(1, 0x01);
    set(0x0b, 0x20);
    fake_advance(&fake, 3 * SECOND);
    assert_true(irq8());
    set(5, 0x00); /* no hour */
    get(0x0c);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
}

static void test_cmos(void **state)
{
    rtc_set_memory(&rtc, 0xc0000000, 0x140000000);
    assert_int_equal(get(0x15) | get(0x16) << 8, 640);
    assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
    assert_int_equal(get(0x30) | get(0x31) << 8, 0xffff);
    assert_int_equal(get(0x34) | get(0x35) << 8, (0xc0000000 - 0x1000000) >> 16);
    assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0x140000000 >> 16);
    assert_int_equal(get(0x14), 0x02);
    unsigned sum = 0;
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum += get(i);
    assert_int_equal(get(0x2e) << 8 | get(0x2f), sum);
    rtc_set_memory(&rtc, 8 << 20, 0);
    assert_int_equal(get(0x17) | get(0x18) << 8, 7 * 1024);
    assert_int_equal(get(0x34) | get(0x35) << 8, 0);
    rtc_set_memory(&rtc, 0x80000, 0);
    assert_int_equal(get(0x17) | get(0x18) << 8, 0);
    set(0x0f, 0x0a); /* the shutdown byte survives a reset */
    set(0x7f, 0x55);
    rtc_ops.reset(dev);
    assert_int_equal(get(0x0f), 0x0a);
    assert_int_equal(get(0x7f), 0x55);
    set(0x0c, 0xff);
    set(0x0d, 0x00);
    assert_int_equal(get(0x0c), 0);
    assert_int_equal(get(0x0d), 0x80);
}

static void test_ports(void **state)
{
    fake_out(dev, 0x70, 0x8d);
    assert_true(rtc.nmi_masked);
    assert_int_equal(fake_in(dev, 0x71), 0x80);
    assert_int_equal(fake_in(dev, 0x70), 0xff);
    assert_int_equal(fake_in(dev, 0x72), 0xff);
    fake_out(dev, 0x72, 0);
    fake_write(dev, 0x70, 2, 0xaa50); /* index, then data */
    assert_false(rtc.nmi_masked);
    assert_int_equal(get(0x50), 0xaa);
}

static void test_reset_ends_interrupts(void **state)
{
    set(0x0b, 0x72);
    fake_advance(&fake, SECOND);
    assert_true(irq8());
    rtc_ops.reset(dev);
    assert_false(irq8());
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    assert_int_equal(get(0x0b), 0x02);
    assert_int_equal(get(0), 0x59);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_time_advances, setup),
        cmocka_unit_test_setup(test_formats, setup),
        cmocka_unit_test_setup(test_calendar, setup),
        cmocka_unit_test_setup(test_linux_set_time, setup),
        cmocka_unit_test_setup(test_set_bit, setup),
        cmocka_unit_test_setup(test_nonsense_is_clamped, setup),
        cmocka_unit_test_setup(test_uip, setup),
        cmocka_unit_test_setup(test_update_interrupt, setup),
        cmocka_unit_test_setup(test_periodic, setup),
        cmocka_unit_test_setup(test_alarm, setup),
        cmocka_unit_test_setup(test_alarm_exhaustive, setup),
        cmocka_unit_test_setup(test_alarm_in_12_hours, setup),
        cmocka_unit_test_setup(test_cmos, setup),
        cmocka_unit_test_setup(test_ports, setup),
        cmocka_unit_test_setup(test_reset_ends_interrupts, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
