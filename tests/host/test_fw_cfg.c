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
    fw_cfg.file_count = 0;
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
        {0x8002, "\1\0\0\0\0\0\0\0\0\0\0\0"},     /* IRQ 0 is at the IOAPIC's input 2 */
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

static void test_files(void **state)
{
    static const uint8_t one[] = {0x11, 0x22, 0x33}, long_one[300] = {[299] = 0x77};
    static const struct fw_cfg_file files[] = {
        {"etc/one", one, sizeof(one)},
        {"0123456789012345678901234567890123456789012345678901234567", long_one, sizeof(long_one)},
    };
    static const uint8_t directory[] = "\0\0\0\2"
                                       "\0\0\0\3\0\x20\0\0"
                                       "etc/one\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                       "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                       "\0\0\1\x2c\0\x21\0\0" /* 56 bytes with NUL: cut */
                                       "0123456789012345678901234567890123456789012345678901234";
    fw_cfg.files = files;
    fw_cfg.file_count = 2;
    fake_write(dev, 0x510, 2, 0x19);
    STATIC_ASSERT(sizeof(directory) == 4 + 2 * 64, "with the last name's NUL");
    for (unsigned i = 0; i < sizeof(directory); i++)
        assert_int_equal(fake_in(dev, 0x511), directory[i]);
    assert_int_equal(fake_in(dev, 0x511), 0);
    fake_write(dev, 0x510, 2, 0x20);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(fake_in(dev, 0x511), i < 3 ? one[i] : 0);
    fake_write(dev, 0x510, 2, 0x4021);
    for (unsigned i = 0; i < 302; i++)
        assert_int_equal(fake_in(dev, 0x511), i == 299 ? 0x77 : 0);
    fake_write(dev, 0x510, 2, 0x22);
    assert_int_equal(fake_in(dev, 0x511), 0);
    fw_cfg.offset = UINT32_MAX; /* a guest that reads for hours does not start over */
    assert_int_equal(fake_in(dev, 0x511), 0);
    fw_cfg.key = 0x20;
    assert_int_equal(fake_in(dev, 0x511), 0);
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
        cmocka_unit_test_setup(test_files, setup),
        cmocka_unit_test_setup(test_selecting_starts_over, setup),
        cmocka_unit_test_setup(test_other_accesses, setup),
        cmocka_unit_test_setup(test_reset, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
