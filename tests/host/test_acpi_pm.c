#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/acpi_pm.h"
#include "tests/host/fake_vdev_env.h"

#define STS ACPI_PM_EVT_PORT
#define EN  (ACPI_PM_EVT_PORT + 2)
#define CNT ACPI_PM_CNT_PORT
#define TMR ACPI_PM_TMR_PORT

static struct fake_vdev_env fake;
static struct acpi_pm pm;
static struct vdev *dev = &pm.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&pm, 0x99, sizeof(pm));
    fake_attach(&fake, dev, &acpi_pm_ops);
    return 0;
}

static void enable_acpi(void)
{
    fake_out(dev, ACPI_PM_SMI_CMD_PORT, ACPI_PM_ENABLE);
    assert_int_equal(fake_read(dev, CNT, 2) & 1, 1);
}

static bool sci(void)
{
    return fake.level[ACPI_PM_SCI_IRQ];
}

static void test_enable_disable(void **state)
{
    assert_int_equal(fake_read(dev, CNT, 2), 0);
    fake_write(dev, CNT, 2, 0x0001); /* the guest cannot set it itself */
    assert_int_equal(fake_read(dev, CNT, 2), 0);
    enable_acpi();
    fake_write(dev, CNT, 2, 0x0002);
    assert_int_equal(fake_read(dev, CNT, 2), 0x0003);
    assert_int_equal(fake_in(dev, 0xb2), ACPI_PM_ENABLE);
    fake_out(dev, 0xb2, 0x55); /* other commands do nothing */
    assert_int_equal(fake_read(dev, CNT, 2) & 1, 1);
    fake_out(dev, 0xb2, ACPI_PM_DISABLE);
    assert_int_equal(fake_read(dev, CNT, 2) & 1, 0);
    fake_out(dev, 0xb3, 0x12);
    assert_int_equal(fake_in(dev, 0xb3), 0x12);
}

static void test_power_off(void **state)
{
    enable_acpi();
    fake_write(dev, CNT, 2, 5u << 10 | 0x2000);
    assert_int_equal(fake.poweroffs, 0); /* not a state we offer */
    /* Linux writes SLP_TYP first, then SLP_TYP and SLP_EN. */
    fake_write(dev, CNT, 2, ACPI_PM_SLP_TYP_S5 << 10 | 1);
    assert_int_equal(fake.poweroffs, 0);
    fake_write(dev, CNT, 2, ACPI_PM_SLP_TYP_S5 << 10 | 0x2001);
    assert_int_equal(fake.poweroffs, 1);
    assert_int_equal(fake_read(dev, CNT, 4), ACPI_PM_SLP_TYP_S5 << 10 | 1); /* SLP_EN reads as 0 */
    fake_out(dev, CNT, 0xff);
    assert_int_equal(fake.poweroffs, 1);
    fake_out(dev, CNT + 1, ACPI_PM_SLP_TYP_S5 << 2 | 0x20); /* byte-wise, too */
    assert_int_equal(fake.poweroffs, 2);
    assert_int_equal(fake.resets, 0);
}

static void test_power_button(void **state)
{
    acpi_pm_power_button(&pm);
    assert_int_equal(fake_read(dev, STS, 2), 0x0100);
    assert_false(sci());
    fake_write(dev, EN, 2, 0x0100);
    assert_false(sci()); /* ACPI mode is off */
    enable_acpi();
    assert_true(sci());
    fake_write(dev, STS, 2, 0x0021); /* other bits */
    assert_true(sci());
    fake_write(dev, STS, 2, 0x0100); /* write one to clear */
    assert_false(sci());
    assert_int_equal(fake_read(dev, STS, 4), 0x01000000);
    acpi_pm_power_button(&pm);
    assert_true(sci());
    fake_out(dev, EN + 1, 0x00); /* byte access */
    assert_false(sci());
    assert_int_equal(fake_in(dev, STS + 1), 0x01);
    fake_out(dev, STS + 1, 0x01);
    assert_int_equal(fake_in(dev, STS + 1), 0x00);
    fake_write(dev, EN, 2, 0xffff); /* only what exists */
    assert_int_equal(fake_read(dev, EN, 2), 0x0521);
}

static void test_timer_counts(void **state)
{
    assert_int_equal(fake_read(dev, TMR, 4), 0);
    fake_advance(&fake, 1000000000);
    assert_int_equal(fake_read(dev, TMR, 4), 3579545);
    assert_int_equal(fake_in(dev, TMR + 1), 3579545 >> 8 & 0xff);
    assert_int_equal(fake_read(dev, TMR + 2, 2), 3579545 >> 16);
    fake_write(dev, TMR, 4, 0); /* read-only */
    fake_advance(&fake, 3600 * 1000000000ull);
    assert_int_equal(fake_read(dev, TMR, 4), (uint32_t)(3601ull * 3579545));
    assert_int_equal(fake.timer_calls, 0);
}

/* 2^31 ticks of 3.579545 MHz last 599.93 s. */
static void test_timer_status(void **state)
{
    uint64_t half = vdev_ticks_to_ns(1ull << 31, ACPI_PM_TMR_HZ);
    fake_advance(&fake, half - 1);
    assert_int_equal(fake_read(dev, STS, 2), 0);
    fake_advance(&fake, 1);
    assert_int_equal(fake_read(dev, STS, 2), 1);
    assert_int_equal(fake_read(dev, TMR, 4), 0x80000000);
    fake_write(dev, STS, 2, 1);
    assert_int_equal(fake_read(dev, STS, 2), 0);
    enable_acpi();
    fake_write(dev, EN, 2, 1);
    fake_advance(&fake, half - 2);
    assert_false(sci());
    fake_advance(&fake, 2);
    assert_true(sci());
    assert_int_equal(fake.timer_calls, 1);
    fake_advance(&fake, 4 * half); /* not cleared: nothing more happens */
    assert_int_equal(fake.timer_calls, 1);
    fake_write(dev, STS, 2, 1);
    assert_false(sci());
    assert_int_not_equal(dev->deadline_ns, VDEV_NEVER);
    fake_write(dev, EN, 2, 0);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
}

static void test_ports_and_reset(void **state)
{
    assert_int_equal(fake_in(dev, 0x60c), 0xff);
    fake_out(dev, 0x60c, 0);
    assert_int_equal(fake_read(dev, 0x606, 2), 0);
    assert_int_equal(fake_read(dev, 0x5ff, 2), 0x00ff);
    fake_write(dev, EN, 2, 0x0121);
    assert_int_equal(fake_read(dev, 0x601, 4), 0x00012100); /* unaligned: byte by byte */
    acpi_pm_power_button(&pm);
    enable_acpi();
    assert_true(sci());
    fake_advance(&fake, 700 * 1000000000ull);
    acpi_pm_ops.reset(dev);
    assert_false(sci());
    assert_int_equal(fake_read(dev, STS, 4), 0);
    assert_int_equal(fake_read(dev, CNT, 2), 0);
    assert_int_equal(fake_read(dev, 0xb2, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_enable_disable, setup),
        cmocka_unit_test_setup(test_power_off, setup),
        cmocka_unit_test_setup(test_power_button, setup),
        cmocka_unit_test_setup(test_timer_counts, setup),
        cmocka_unit_test_setup(test_timer_status, setup),
        cmocka_unit_test_setup(test_ports_and_reset, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
