#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/sysctl.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct sysctl sysctl;
static struct vdev *dev = &sysctl.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&sysctl, 0xff, sizeof(sysctl));
    fake_attach(&fake, dev, &sysctl_ops);
    return 0;
}

static void test_port_a(void **state)
{
    assert_int_equal(fake_in(dev, 0x92), 0x02);
    fake_out(dev, 0x92, 0x00);
    assert_int_equal(fake_in(dev, 0x92), 0x00);
    fake_out(dev, 0x92, 0xfe);
    assert_int_equal(fake_in(dev, 0x92), 0x02);
    assert_int_equal(fake.resets, 0);
    fake_out(dev, 0x92, 0x03);
    assert_int_equal(fake.resets, 1);
    assert_int_equal(fake.inits, 1);
    fake_out(dev, 0x92, 0x03); /* only the rising edge resets */
    assert_int_equal(fake.resets, 1);
}

/* Linux's BOOT_CF9_FORCE: first the kind, then the edge. */
static void test_reset_control(void **state)
{
    assert_int_equal(fake_in(dev, 0xcf9), 0);
    fake_out(dev, 0xcf9, 0x02);
    assert_int_equal(fake_in(dev, 0xcf9), 0x02);
    assert_int_equal(fake.resets, 0);
    fake_out(dev, 0xcf9, SYSCTL_RESET_VALUE);
    assert_int_equal(fake.resets, 1);
    assert_int_equal(fake_in(dev, 0xcf9), 0x0e);
    fake_out(dev, 0xcf9, 0x06);
    assert_int_equal(fake.resets, 1);
    fake_out(dev, 0xcf9, 0xf0);
    assert_int_equal(fake_in(dev, 0xcf9), 0);
    fake_out(dev, 0xcf9, 0x04);
    assert_int_equal(fake.resets, 2);
    assert_int_equal(fake.inits, 1); /* 4 is the processors' alone */
    assert_int_equal(fake.poweroffs, 0);
    sysctl_ops.reset(dev);
    assert_int_equal(fake_in(dev, 0xcf9), 0);
}

static void test_scratch_ports(void **state)
{
    fake_out(dev, 0x80, 0x42);
    assert_int_equal(fake_in(dev, 0x80), 0x42);
    fake_out(dev, 0xed, 0x42);
    assert_int_equal(fake_in(dev, 0xed), 0xff);
    assert_int_equal(fake_read(dev, 0x92, 2), 0xff02);
    fake_write(dev, 0x91, 4, 0x0100); /* bytes go to 0x91, 0x92, ... */
    assert_int_equal(fake.resets, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_port_a, setup),
        cmocka_unit_test_setup(test_reset_control, setup),
        cmocka_unit_test_setup(test_scratch_ports, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
