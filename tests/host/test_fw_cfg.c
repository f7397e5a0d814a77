/* QEMU's docs/specs/fw_cfg.rst. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/fw_cfg.h"
#include "hv/lib/bits.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct fw_cfg fw_cfg;
static struct vdev *dev = &fw_cfg.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&fw_cfg, 0xff, sizeof(fw_cfg));
    fw_cfg.cpus = 0x0103;
    fw_cfg.ram_size = 0x1122334455667788ull;
    fake_attach(&fake, dev, &fw_cfg_ops);
    return 0;
}

static void test_items(void **state)
{
    static const struct {
        uint16_t key;
        const char *bytes; /* 12 of them */
    } items[] = {
        {0x0000, "QEMU\0\0\0\0\0\0\0\0"},
        {0x0001, "\1\0\0\0\0\0\0\0\0\0\0\0"}, /* the two ports, no DMA */
        {0x0003, "\x88\x77\x66\x55\x44\x33\x22\x11\0\0\0\0"},
        {0x0005, "\x03\x01\0\0\0\0\0\0\0\0\0\0"},
        {0x000f, "\x03\x01\0\0\0\0\0\0\0\0\0\0"},
        {0x4005, "\x03\x01\0\0\0\0\0\0\0\0\0\0"}, /* for writing, which changes nothing */
        {0x0019, "\0\0\0\0\0\0\0\0\0\0\0\0"},     /* no files */
        {0x8005, "\0\0\0\0\0\0\0\0\0\0\0\0"},     /* not the architecture's */
        {0x0020, "\0\0\0\0\0\0\0\0\0\0\0\0"},
        {0xffff, "\0\0\0\0\0\0\0\0\0\0\0\0"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(items); i++) {
        fake_write(dev, 0x510, 2, items[i].key);
        for (unsigned at = 0; at < 12; at++)
            assert_int_equal(fake_in(dev, 0x511), (uint8_t)items[i].bytes[at]);
    }
}

static void test_selecting_starts_over(void **state)
{
    fake_write(dev, 0x510, 2, 0);
    assert_int_equal(fake_in(dev, 0x511), 'Q');
    assert_int_equal(fake_in(dev, 0x511), 'E');
    fake_write(dev, 0x510, 2, 0);
    assert_int_equal(fake_in(dev, 0x511), 'Q');
}

static void test_other_accesses(void **state)
{
    assert_int_equal(fake_in(dev, 0x511), 'Q');
    assert_int_equal(fake_in(dev, 0x510), 0xff); /* write-only */
    assert_int_equal(fake_read(dev, 0x510, 2), 0xffff);
    fake_write(dev, 0x510, 1, 5);
    fake_write(dev, 0x510, 4, 5);
    fake_write(dev, 0x511, 1, 5); /* data cannot be written since QEMU 2.4 */
    assert_int_equal(fake_in(dev, 0x511), 'E');
}

static void test_reset(void **state)
{
    fake_write(dev, 0x510, 2, 5);
    (void)fake_in(dev, 0x511);
    dev->ops->reset(dev);
    assert_int_equal(fake_in(dev, 0x511), 'Q');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_items, setup),
        cmocka_unit_test_setup(test_selecting_starts_over, setup),
        cmocka_unit_test_setup(test_other_accesses, setup),
        cmocka_unit_test_setup(test_reset, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
