#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/pic.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct pic pic;
static struct vdev *dev = &pic.dev;
static unsigned changes;
static bool last_output;

static void output_changed(void *ctx, bool level)
{
    assert_ptr_equal(ctx, &fake);
    assert_int_not_equal(level, last_output);
    last_output = level;
    changes++;
}

static void program(uint8_t icw4_master, uint8_t icw4_slave)
{
    fake_out(dev, 0x20, 0x11);
    fake_out(dev, 0x21, 0x30);
    fake_out(dev, 0x21, 0x04);
    fake_out(dev, 0x21, icw4_master);
    fake_out(dev, 0xa0, 0x11);
    fake_out(dev, 0xa1, 0x38);
    fake_out(dev, 0xa1, 0x02);
    fake_out(dev, 0xa1, icw4_slave);
}

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&pic, 0, sizeof(pic));
    changes = 0;
    last_output = false;
    pic.output_changed = output_changed;
    pic.output_ctx = &fake;
    fake_attach(&fake, dev, &pic_ops);
    program(0x01, 0x01);
    return 0;
}

static void edge(unsigned irq)
{
    pic_set_irq(&pic, irq, true);
    pic_set_irq(&pic, irq, false);
}

static uint8_t master_isr(void)
{
    fake_out(dev, 0x20, 0x0b);
    return fake_in(dev, 0x20);
}

static uint8_t master_irr(void)
{
    fake_out(dev, 0x20, 0x0a);
    return fake_in(dev, 0x20);
}

static uint8_t slave_isr(void)
{
    fake_out(dev, 0xa0, 0x0b);
    return fake_in(dev, 0xa0);
}

static void test_before_initialization(void **state)
{
    pic_ops.reset(dev);
    assert_int_equal(fake_in(dev, 0x21), 0xff);
    assert_int_equal(fake_in(dev, 0xa1), 0xff);
    fake_out(dev, 0x21, 0xfb); /* Linux's probe_8259A() */
    assert_int_equal(fake_in(dev, 0x21), 0xfb);
    fake_out(dev, 0x21, 0);
    fake_out(dev, 0xa1, 0);
    edge(0);
    edge(9);
    assert_false(pic_output(&pic)); /* no vectors are known yet */
    fake_out(dev, 0x20, 0x11);
    edge(0);
    assert_false(pic_output(&pic));
    fake_out(dev, 0x21, 0x30);
    fake_out(dev, 0x21, 0x04);
    edge(0);
    assert_false(pic_output(&pic));
    fake_out(dev, 0x21, 0x01);
    assert_true(pic_output(&pic));
}

static void test_edge_ack_eoi(void **state)
{
    edge(4);
    assert_true(pic_output(&pic));
    assert_int_equal(master_irr(), 0x10);
    assert_int_equal(pic_acknowledge(&pic), 0x34);
    assert_false(pic_output(&pic));
    assert_int_equal(master_irr(), 0);
    assert_int_equal(master_isr(), 0x10);
    edge(4); /* same level waits for EOI */
    assert_false(pic_output(&pic));
    edge(5);
    assert_false(pic_output(&pic));
    edge(1); /* higher priority nests */
    assert_true(pic_output(&pic));
    assert_int_equal(pic_acknowledge(&pic), 0x31);
    fake_out(dev, 0x20, 0x20);
    assert_int_equal(master_isr(), 0x10);
    fake_out(dev, 0x20, 0x20);
    assert_int_equal(pic_acknowledge(&pic), 0x34);
    fake_out(dev, 0x20, 0x64); /* specific EOI */
    assert_int_equal(pic_acknowledge(&pic), 0x35);
    fake_out(dev, 0x20, 0x20);
    fake_out(dev, 0x20, 0x20); /* nothing in service: no harm */
    assert_int_equal(master_isr(), 0);
    assert_int_equal(changes % 2, 0);
}

static void test_line_held_high_is_one_edge(void **state)
{
    pic_set_irq(&pic, 3, true);
    assert_int_equal(pic_acknowledge(&pic), 0x33);
    fake_out(dev, 0x20, 0x20);
    pic_set_irq(&pic, 3, true);
    assert_false(pic_output(&pic));
    pic_set_irq(&pic, 3, false);
    pic_set_irq(&pic, 3, true);
    assert_true(pic_output(&pic));
    pic_set_irq(&pic, 2, true); /* the cascade and nonsense are no inputs */
    pic_set_irq(&pic, 16, true);
    assert_int_equal(master_irr(), 0x08);
}

static void test_mask(void **state)
{
    fake_out(dev, 0x21, 0x10);
    edge(4);
    assert_false(pic_output(&pic));
    assert_int_equal(master_irr(), 0x10); /* latched all the same */
    fake_out(dev, 0x21, 0);
    assert_true(pic_output(&pic));
    fake_out(dev, 0x21, 0xff);
    assert_false(pic_output(&pic));
    assert_int_equal(fake_in(dev, 0x21), 0xff);
    assert_int_equal(pic_acknowledge(&pic), 0x37); /* spurious */
    assert_int_equal(master_isr(), 0);
}

static void test_cascade(void **state)
{
    edge(12);
    assert_true(pic_output(&pic));
    assert_int_equal(master_irr(), 0x04);
    assert_int_equal(pic_acknowledge(&pic), 0x3c);
    assert_int_equal(master_isr(), 0x04);
    assert_int_equal(slave_isr(), 0x10);
    edge(9); /* higher in the slave, but the master is serving the slave */
    assert_false(pic_output(&pic));
    edge(3);
    assert_false(pic_output(&pic));
    edge(0);
    assert_int_equal(pic_acknowledge(&pic), 0x30);
    fake_out(dev, 0x20, 0x60);
    fake_out(dev, 0xa0, 0x20);
    assert_int_equal(slave_isr(), 0);
    assert_false(pic_output(&pic));
    fake_out(dev, 0x20, 0x62);
    assert_int_equal(pic_acknowledge(&pic), 0x39);
    fake_out(dev, 0xa0, 0x61);
    fake_out(dev, 0x20, 0x62);
    assert_int_equal(pic_acknowledge(&pic), 0x33);
}

static void test_special_fully_nested(void **state)
{
    program(0x11, 0x01);
    edge(12);
    assert_int_equal(pic_acknowledge(&pic), 0x3c);
    edge(14);
    assert_false(pic_output(&pic));
    edge(3); /* below the slave: still held back */
    assert_false(pic_output(&pic));
    edge(9);
    assert_true(pic_output(&pic));
    assert_int_equal(pic_acknowledge(&pic), 0x39);
    assert_int_equal(slave_isr(), 0x12);
    edge(1); /* what is above the slave holds it back as ever */
    assert_int_equal(pic_acknowledge(&pic), 0x31);
    edge(8);
    assert_false(pic_output(&pic));
}

static void test_level(void **state)
{
    fake_out(dev, 0x4d0, 0xff);
    fake_out(dev, 0x4d1, 0xff);
    assert_int_equal(fake_in(dev, 0x4d0), 0xf8);
    assert_int_equal(fake_in(dev, 0x4d1), 0xde);
    pic_set_irq(&pic, 5, true);
    assert_int_equal(pic_acknowledge(&pic), 0x35);
    assert_int_equal(master_irr(), 0x20);
    fake_out(dev, 0x20, 0x20);
    assert_true(pic_output(&pic)); /* the line is still high */
    pic_set_irq(&pic, 5, false);
    assert_false(pic_output(&pic));
    /* Initialization forgets edges, not levels. */
    pic_set_irq(&pic, 5, true);
    edge(1);
    program(1, 1);
    assert_int_equal(master_irr(), 0x20);
    pic_set_irq(&pic, 10, true);
    fake_out(dev, 0x4d1, 0); /* to edge: the request stays */
    pic_set_irq(&pic, 10, false);
    assert_int_equal(pic_acknowledge(&pic), 0x3a);
    edge(11);
    fake_out(dev, 0x4d1, 0x08); /* to level: the line is low, so there is no request */
    fake_out(dev, 0xa0, 0x0a);
    assert_int_equal(fake_in(dev, 0xa0), 0);
}

static void test_spurious(void **state)
{
    fake_out(dev, 0x4d0, 0x20);
    fake_out(dev, 0x4d1, 0x04);
    pic_set_irq(&pic, 5, true);
    pic_set_irq(&pic, 5, false);
    assert_int_equal(pic_acknowledge(&pic), 0x37);
    assert_int_equal(master_isr(), 0);
    /* From the slave: the master has its ISR bit set, the slave has not. */
    pic_set_irq(&pic, 10, true);
    pic_set_irq(&pic, 10, false);
    assert_true(pic_output(&pic));
    assert_int_equal(pic_acknowledge(&pic), 0x3f);
    assert_int_equal(master_isr(), 0x04);
    assert_int_equal(slave_isr(), 0);
    fake_out(dev, 0x20, 0x62);
    assert_false(pic_output(&pic));
    /* What the guest masks itself is not spurious. */
    edge(12);
    fake_out(dev, 0xa1, 0x10);
    assert_false(pic_output(&pic));
    assert_int_equal(master_irr(), 0);
    fake_out(dev, 0xa1, 0);
    assert_int_equal(pic_acknowledge(&pic), 0x3c);
}

static void test_rotation(void **state)
{
    fake_out(dev, 0x20, 0xc4); /* 4 lowest: 5 highest */
    edge(4);
    edge(6);
    edge(0);
    assert_int_equal(pic_acknowledge(&pic), 0x36);
    fake_out(dev, 0x20, 0xa0); /* rotate on non-specific EOI: 6 lowest */
    assert_int_equal(pic_acknowledge(&pic), 0x30);
    fake_out(dev, 0x20, 0xe3); /* rotate on specific EOI of 3, which is not in service */
    assert_int_equal(master_isr(), 0x01);
    assert_int_equal(pic_acknowledge(&pic), 0x34); /* now 4 is highest */
    fake_out(dev, 0x20, 0x40);                     /* no operation */
    fake_out(dev, 0x20, 0x20);
    assert_int_equal(master_isr(), 0x01);
}

static void test_auto_eoi(void **state)
{
    program(0x03, 0x03);
    edge(3);
    edge(10);
    edge(11);
    assert_int_equal(pic_acknowledge(&pic), 0x3a);
    assert_int_equal(master_isr(), 0);
    assert_int_equal(slave_isr(), 0);
    assert_int_equal(pic_acknowledge(&pic), 0x3b); /* the slave asks again at once */
    assert_int_equal(pic_acknowledge(&pic), 0x33);
    fake_out(dev, 0x20, 0x80); /* rotate in automatic EOI mode */
    edge(3);
    assert_int_equal(pic_acknowledge(&pic), 0x33);
    edge(3);
    edge(4);
    assert_int_equal(pic_acknowledge(&pic), 0x34);
    fake_out(dev, 0x20, 0x00);
    assert_int_equal(pic_acknowledge(&pic), 0x33);
    edge(3);
    edge(5);
    assert_int_equal(pic_acknowledge(&pic), 0x35); /* as rotated before: 4 is the lowest */
}

static void test_special_mask(void **state)
{
    edge(1);
    assert_int_equal(pic_acknowledge(&pic), 0x31);
    fake_out(dev, 0x20, 0x68); /* special mask mode */
    fake_out(dev, 0x21, 0x02);
    edge(5);
    assert_int_equal(pic_acknowledge(&pic), 0x35); /* below a level in service, which is masked */
    fake_out(dev, 0x20, 0x20);
    assert_int_equal(master_isr(), 0x02); /* the masked level is not ended */
    fake_out(dev, 0x20, 0x20);
    assert_int_equal(master_isr(), 0x02);
    fake_out(dev, 0x20, 0x28); /* ESMM = 0: no change */
    edge(5);
    assert_true(pic_output(&pic));
    fake_out(dev, 0x20, 0x48);
    assert_false(pic_output(&pic));
}

static void test_poll(void **state)
{
    fake_out(dev, 0x20, 0x0c);
    assert_int_equal(fake_in(dev, 0x20), 0);
    edge(6);
    fake_out(dev, 0x20, 0x0c);
    assert_int_equal(fake_in(dev, 0x20), 0x86);
    assert_false(pic_output(&pic));
    assert_int_equal(master_isr(), 0x40);
    fake_out(dev, 0x20, 0x20);
    edge(13);
    fake_out(dev, 0x20, 0x0c);
    assert_int_equal(fake_in(dev, 0x21), 0x82); /* either port */
    fake_out(dev, 0xa0, 0x0c);
    assert_int_equal(fake_in(dev, 0xa0), 0x85);
    assert_int_equal(slave_isr(), 0x20);
    fake_out(dev, 0xa0, 0x20);
    fake_out(dev, 0x20, 0x20);
    assert_false(pic_output(&pic));
}

static void test_short_sequences(void **state)
{
    fake_out(dev, 0x20, 0x10); /* no ICW4 */
    fake_out(dev, 0x21, 0x47);
    fake_out(dev, 0x21, 0x04);
    fake_out(dev, 0x21, 0x01); /* OCW1 already */
    assert_int_equal(fake_in(dev, 0x21), 0x01);
    edge(3);
    assert_int_equal(pic_acknowledge(&pic), 0x43);
    fake_out(dev, 0x20, 0x12); /* single, no ICW4 */
    fake_out(dev, 0x21, 0x50);
    fake_out(dev, 0x21, 0x02);
    assert_int_equal(fake_in(dev, 0x21), 0x02);
    fake_out(dev, 0x20, 0x13); /* single, ICW4 */
    fake_out(dev, 0x21, 0x60);
    fake_out(dev, 0x21, 0x03);
    assert_int_equal(fake_in(dev, 0x21), 0x00);
    edge(3);
    assert_int_equal(pic_acknowledge(&pic), 0x63);
    assert_int_equal(master_isr(), 0);
}

static void test_master_initialized_while_slave_asks(void **state)
{
    edge(9);
    fake_out(dev, 0x20, 0x11);
    assert_false(pic_output(&pic));
    fake_out(dev, 0x21, 0x30);
    fake_out(dev, 0x21, 0x04);
    fake_out(dev, 0x21, 0x01);
    assert_true(pic_output(&pic));
    assert_int_equal(pic_acknowledge(&pic), 0x39);
}

static void test_ports(void **state)
{
    assert_int_equal(fake_in(dev, 0x22), 0xff);
    fake_out(dev, 0x22, 0x11);
    fake_write(dev, 0x20, 2, 0xaa20); /* EOI, then the mask */
    assert_int_equal(fake_read(dev, 0x20, 2), 0xaa00);
    assert_int_equal(fake_read(dev, 0x4d0, 2), 0);
    pic.output_changed = NULL;
    edge(0);
    assert_true(pic_output(&pic));
    pic_ops.reset(dev);
    assert_false(pic_output(&pic));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_before_initialization, setup),
        cmocka_unit_test_setup(test_edge_ack_eoi, setup),
        cmocka_unit_test_setup(test_line_held_high_is_one_edge, setup),
        cmocka_unit_test_setup(test_mask, setup),
        cmocka_unit_test_setup(test_cascade, setup),
        cmocka_unit_test_setup(test_special_fully_nested, setup),
        cmocka_unit_test_setup(test_level, setup),
        cmocka_unit_test_setup(test_spurious, setup),
        cmocka_unit_test_setup(test_rotation, setup),
        cmocka_unit_test_setup(test_auto_eoi, setup),
        cmocka_unit_test_setup(test_special_mask, setup),
        cmocka_unit_test_setup(test_poll, setup),
        cmocka_unit_test_setup(test_short_sequences, setup),
        cmocka_unit_test_setup(test_master_initialized_while_slave_asks, setup),
        cmocka_unit_test_setup(test_ports, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
