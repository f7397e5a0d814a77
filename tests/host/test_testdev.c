/* The test kernels' devices, against QEMU's hw/misc/pc-testdev.c, debugexit.c and hw/char/debugcon.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/testdev.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct testdev testdev;
static struct vdev *dev = &testdev.dev;
static uint8_t ram[TESTDEV_RAM_SIZE];
static unsigned left;
static uint32_t code;

static void leave(void *ctx, uint32_t value)
{
    assert_ptr_equal(ctx, &left);
    left++;
    code = value;
}

static unsigned sent;
static uint32_t sent_address, sent_data;
static bool raised;

static void send(void *ctx, uint32_t address, uint32_t data, bool raise)
{
    assert_ptr_equal(ctx, &sent);
    sent++;
    sent_address = address;
    sent_data = data;
    raised = raise;
}

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&testdev, 0xff, sizeof(testdev));
    memset(ram, 0xff, sizeof(ram));
    testdev.ram = ram;
    testdev.leave = leave;
    testdev.leave_ctx = &left;
    testdev.send_msi = send;
    testdev.send_ctx = &sent;
    left = sent = 0;
    fake_attach(&fake, dev, &testdev_ops);
    return 0;
}

static void test_exit(void **state)
{
    assert_int_equal(fake_read(dev, 0xf4, 1), 0);
    assert_int_equal(fake_read(dev, 0xf4, 4), 0);
    assert_int_equal(left, 0);
    fake_write(dev, 0xf4, 4, 0xfedcba9876543210ull);
    assert_int_equal(left, 1);
    assert_int_equal(code, 0x76543210);
    fake_write(dev, 0xf4, 1, 0x1ff);
    assert_int_equal(left, 2);
    assert_int_equal(code, 0xff);
    fake_write(dev, 0xf7, 1, 3);
    assert_int_equal(left, 3);
    fake_write(dev, 0xf6, 4, 3); /* beyond it */
    fake_write(dev, 0xf3, 1, 3);
    fake_write(dev, 0xf8, 1, 3);
    assert_int_equal(left, 3);
}

static void test_firmware_messages(void **state)
{
    assert_int_equal(fake_in(dev, 0x402), 0xe9);
    for (const char *c = "Hello"; *c; c++)
        fake_out(dev, 0x402, (uint8_t)*c);
    fake_out(dev, 0xe9, '-'); /* another one's output does not wait */
    assert_int_equal(fake.console_size, 1);
    fake_out(dev, 0x402, '\n');
    assert_int_equal(fake.console_size, 7);
    assert_memory_equal(fake.console, "-Hello\n", 7);
    for (unsigned i = 0; i < 128; i++) { /* a line of any length */
        assert_int_equal(fake.console_size, 7);
        fake_out(dev, 0x402, 'x');
    }
    assert_int_equal(fake.console_size, 7 + 128);
    fake_out(dev, 0x402, 'y');
    dev->ops->reset(dev); /* forgets what was begun */
    fake_out(dev, 0x402, '\n');
    assert_int_equal(fake.console_size, 7 + 129);
}

static void test_debug_port(void **state)
{
    assert_int_equal(fake_in(dev, 0xe9), 0xe9);
    assert_int_equal(fake_read(dev, 0xe9, 2), 0xffff);
    fake_out(dev, 0xe9, 'H');
    fake_out(dev, 0xe9, 'i');
    fake_write(dev, 0xe9, 2, 'x');
    assert_int_equal(fake.console_size, 2);
    assert_memory_equal(fake.console, "Hi", 2);
}

static void test_echo(void **state)
{
    assert_int_equal(fake_read(dev, 0xe0, 4), 0);
    fake_write(dev, 0xe0, 4, 0x12345678);
    assert_int_equal(fake_read(dev, 0xe0, 4), 0x12345678);
    assert_int_equal(fake_read(dev, 0xe0, 2), 0x5678);
    assert_int_equal(fake_read(dev, 0xe2, 2), 0x1234);
    assert_int_equal(fake_read(dev, 0xe1, 1), 0x56);
    fake_write(dev, 0xe1, 1, 0xab);
    fake_write(dev, 0xe2, 2, 0xcdef);
    assert_int_equal(fake_read(dev, 0xe0, 4), 0xcdefab78);
    assert_int_equal(fake_read(dev, 0xe3, 2), 0xffff); /* not all of it is there */
    fake_write(dev, 0xe2, 4, 0);
    assert_int_equal(fake_read(dev, 0xe0, 4), 0xcdefab78);
}

static void test_flush(void **state)
{
    fake_write(dev, 0xe4, 4, 0x12345000);
    assert_int_equal(fake_read(dev, 0xe4, 4), 0xffffffff);
    assert_int_equal(fake_read(dev, 0xe0, 4), 0);
}

static void test_lines(void **state)
{
    for (unsigned line = 0; line < 24; line++) {
        fake_out(dev, 0x2000 + line, 1);
        assert_true(fake.level[line]);
        assert_int_equal(fake.event_count, 2 * line + 1);
        assert_int_equal(fake_in(dev, 0x2000 + line), 0);
        fake_out(dev, 0x2000 + line, 0);
        assert_false(fake.level[line]);
    }
    fake_out(dev, 0x2018, 1);
    fake_write(dev, 0x2016, 4, 0x01010101); /* not all of it is there */
    fake_write(dev, 0x2000, 1, 0x100);
    assert_int_equal(fake.event_count, 48);
    fake_write(dev, 0x200b, 4, 0x01000001); /* four lines */
    assert_true(fake.level[11] && fake.level[14] && !fake.level[12] && !fake.level[13]);
    assert_int_equal(fake_read(dev, 0x200b, 4), 0);
    fake_write(dev, 0x200b, 4, 0);
    assert_int_equal(fake.event_count, 52);
    assert_int_equal(fake_in(dev, 0x2018), 0xff);
}

static void test_msi(void **state)
{
    fake_write(dev, 0x2020, 4, 0xfee01000);
    fake_write(dev, 0x2024, 4, 0x12345678);
    fake_write(dev, 0x2025, 1, 0x41);
    assert_int_equal(fake_read(dev, 0x2020, 4), 0xfee01000);
    assert_int_equal(fake_read(dev, 0x2024, 4), 0x12344178);
    assert_int_equal(sent, 0);
    fake_write(dev, 0x2028, 4, 0xfffffffe);
    assert_int_equal(sent, 1);
    assert_int_equal(sent_address, 0xfee01000);
    assert_int_equal(sent_data, 0x12344178);
    assert_false(raised);
    fake_write(dev, 0x2028, 4, 1);
    assert_int_equal(sent, 2);
    assert_true(raised);
    assert_int_equal(fake_read(dev, 0x2028, 4), 0);
    fake_write(dev, 0x2028, 1, 1); /* 32 bits only, and all of them */
    fake_write(dev, 0x2026, 4, 1);
    fake_write(dev, 0x202a, 2, 1);
    assert_int_equal(sent, 2);
    dev->ops->reset(dev);
    fake_write(dev, 0x2028, 4, 1);
    assert_int_equal(sent_address | sent_data, 0);
}

static void test_ram(void **state)
{
    assert_int_equal(fake_read(dev, 0xff000000, 8), 0);
    fake_write(dev, 0xff000ffd, 8, 0x1122334455667788ull);
    assert_int_equal(fake_read(dev, 0xff000ffd, 8), 0x1122334455667788ull);
    assert_int_equal(fake_read(dev, 0xff001000, 1), 0x55);
    assert_int_equal(ram[0x1001], 0x44);
    fake_write(dev, 0xff00fffe, 2, 0xbeef);
    assert_int_equal(fake_read(dev, 0xff00fffc, 4), 0xbeef0000);
    fake_write(dev, 0xff00fffc, 8, 0);
    assert_int_equal(fake_read(dev, 0xff00fffc, 4), 0xbeef0000);
    assert_int_equal(fake_read(dev, 0xff00ffff, 2), 0xffff);
    assert_int_equal(fake_read(dev, 0xff010000, 4), 0xffffffff);
}

static void test_reset(void **state)
{
    fake_out(dev, 0x2005, 1);
    fake_out(dev, 0x2017, 1);
    fake_write(dev, 0xe0, 4, 1);
    fake_write(dev, 0xff000010, 1, 1);
    fake_out(dev, 0x2017, 0);
    fake.event_count = 0;
    dev->ops->reset(dev);
    assert_int_equal(fake.event_count, 1); /* only what it held itself */
    assert_false(fake.level[5]);
    assert_int_equal(fake_read(dev, 0xe0, 4), 0);
    assert_int_equal(fake_read(dev, 0xff000010, 1), 0);
    dev->ops->reset(dev);
    assert_int_equal(fake.event_count, 1);
    assert_int_equal(left, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_exit, setup),  cmocka_unit_test_setup(test_debug_port, setup),
        cmocka_unit_test_setup(test_echo, setup),  cmocka_unit_test_setup(test_flush, setup),
        cmocka_unit_test_setup(test_lines, setup), cmocka_unit_test_setup(test_ram, setup),
        cmocka_unit_test_setup(test_reset, setup), cmocka_unit_test_setup(test_firmware_messages, setup),
        cmocka_unit_test_setup(test_msi, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
