#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/kbd.h"
#include "tests/host/fake_vdev_env.h"

#define OBF 0x01

static struct fake_vdev_env fake;
static struct kbd kbd;
static struct vdev *dev = &kbd.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&kbd, 0x44, sizeof(kbd));
    fake_attach(&fake, dev, &kbd_ops);
    return 0;
}

static uint8_t status(void)
{
    return fake_in(dev, 0x64);
}

/* Controller command with an answer. */
static uint8_t ask(uint8_t command)
{
    fake_out(dev, 0x64, command);
    assert_true(status() & OBF);
    uint8_t value = fake_in(dev, 0x60);
    assert_false(status() & OBF);
    return value;
}

static void tell(uint8_t command, uint8_t value)
{
    fake_out(dev, 0x64, command);
    assert_false(status() & OBF);
    fake_out(dev, 0x60, value);
}

static void assert_bytes(const char *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(status() & OBF);
        assert_int_equal(fake_in(dev, 0x60), (uint8_t)expected[i]);
    }
    assert_false(status() & OBF);
}
#define ASSERT_BYTES(text) assert_bytes(text, sizeof(text) - 1)

/* What Linux's i8042 driver does, with the expected findings: a keyboard port, no AUX port. */
static void test_linux_probe(void **state)
{
    assert_int_equal(status(), 0x14);
    assert_int_equal(ask(0xaa), 0x55);
    uint8_t control = ask(0x20);
    assert_int_equal(control & 0x14, 0x14);
    tell(0x60, control & 0xfe);
    assert_int_equal(ask(0x20), control & 0xfe);
    tell(0xd3, 0x5a); /* AUX loop: the byte comes back, but not as the AUX port's */
    assert_int_equal(status() & 0x21, 0x01);
    assert_int_equal(fake_in(dev, 0x60), 0x5a);
    uint8_t aux = ask(0xa9);
    assert_true(aux != 0 && aux != 0xfa && aux != 0xff);
    assert_int_equal(ask(0xab), 0x00);
    fake_out(dev, 0x64, 0xa7);
    assert_int_equal(ask(0x20) & 0x20, 0x20);
    fake_out(dev, 0x64, 0xa8);
    assert_int_equal(ask(0x20) & 0x20, 0);
    fake_out(dev, 0x64, 0xae);
    assert_int_equal(ask(0x20) & 0x10, 0);
    fake_out(dev, 0x64, 0xad);
    assert_int_equal(ask(0x20) & 0x10, 0x10);
    assert_int_equal(fake.rises[1], 0); /* interrupts are off */
}

static void test_keyboard_commands(void **state)
{
    tell(0x60, 0x01); /* interrupts on, translation off */
    fake_out(dev, 0x60, 0xff);
    assert_true(fake.level[1]);
    ASSERT_BYTES("\xfa\xaa");
    assert_false(fake.level[1]);
    assert_int_equal(fake.rises[1], 2); /* one edge per byte */
    fake_out(dev, 0x60, 0xf2);
    ASSERT_BYTES("\xfa\xab\x83");
    fake_out(dev, 0x60, 0xed);
    ASSERT_BYTES("\xfa");
    fake_out(dev, 0x60, 0x07);
    ASSERT_BYTES("\xfa");
    assert_int_equal(kbd.leds, 7);
    fake_out(dev, 0x60, 0xf3);
    fake_out(dev, 0x60, 0x00);
    ASSERT_BYTES("\xfa\xfa");
    fake_out(dev, 0x60, 0xf0);
    fake_out(dev, 0x60, 0x00);
    ASSERT_BYTES("\xfa\xfa\x02");
    fake_out(dev, 0x60, 0xf0);
    fake_out(dev, 0x60, 0x01);
    ASSERT_BYTES("\xfa\xfa");
    fake_out(dev, 0x60, 0xf0);
    fake_out(dev, 0x60, 0x00);
    ASSERT_BYTES("\xfa\xfa\x01");
    fake_out(dev, 0x60, 0xf0);
    fake_out(dev, 0x60, 0x03); /* no set 3 */
    ASSERT_BYTES("\xfa\xfe");
    fake_out(dev, 0x60, 0xee);
    ASSERT_BYTES("\xee");
    fake_out(dev, 0x60, 0xfe); /* resend */
    ASSERT_BYTES("\xee");
    fake_out(dev, 0x60, 0xf4);
    fake_out(dev, 0x60, 0xf6);
    ASSERT_BYTES("\xfa\xfa");
    assert_int_equal(kbd.scancode_set, 2);
    fake_out(dev, 0x60, 0x55); /* not a command */
    ASSERT_BYTES("\xfe");
    fake_out(dev, 0x60, 0xed);
    fake_out(dev, 0x60, 0xf4); /* a command instead of the argument */
    ASSERT_BYTES("\xfa\xfa");
    fake_out(dev, 0x60, 0x02);
    ASSERT_BYTES("\xfe");
    assert_int_equal(kbd.leds, 7);
    fake_out(dev, 0x60, 0xf5);
    ASSERT_BYTES("\xfa");
    assert_false(kbd_key(&kbd, 0x1c, false, true));
}

static void test_keys(void **state)
{
    tell(0x60, 0x01);
    assert_true(kbd_key(&kbd, 0x1c, false, true)); /* A */
    assert_true(kbd_key(&kbd, 0x1c, false, false));
    assert_true(kbd_key(&kbd, 0x75, true, true)); /* up */
    assert_true(kbd_key(&kbd, 0x75, true, false));
    ASSERT_BYTES("\x1c\xf0\x1c\xe0\x75\xe0\xf0\x75");
    tell(0x60, 0x41); /* translated */
    kbd_key(&kbd, 0x1c, false, true);
    kbd_key(&kbd, 0x1c, false, false);
    kbd_key(&kbd, 0x75, true, true);
    kbd_key(&kbd, 0x75, true, false);
    kbd_key(&kbd, 0x83, false, true); /* F7 */
    ASSERT_BYTES("\x1e\x9e\xe0\x48\xe0\xc8\x41");
    fake_out(dev, 0x60, 0xf2);
    ASSERT_BYTES("\xfa\xab\x41");
    /* Set 1 made by the keyboard itself. */
    tell(0x60, 0x01);
    fake_out(dev, 0x60, 0xf0);
    fake_out(dev, 0x60, 0x01);
    ASSERT_BYTES("\xfa\xfa");
    kbd_key(&kbd, 0x1c, false, true);
    kbd_key(&kbd, 0x75, true, false);
    ASSERT_BYTES("\x1e\xe0\xc8");
    assert_false(kbd_key(&kbd, 0, false, true));
}

static void test_queue_limits(void **state)
{
    tell(0x60, 0x01);
    unsigned taken = 0;
    while (kbd_key(&kbd, 0x1c, false, true))
        taken++;
    assert_int_equal(taken, KBD_QUEUE_SIZE - 1); /* a whole sequence must fit; one is in the output buffer */
    for (unsigned i = 0; i < 100; i++)
        fake_out(dev, 0x60, 0xf2); /* nobody reads the answers */
    assert_true(kbd.count <= KBD_QUEUE_SIZE);
    unsigned bytes = 0;
    while (status() & OBF) {
        fake_in(dev, 0x60);
        bytes++;
    }
    assert_int_equal(bytes, KBD_QUEUE_SIZE + 1);
    fake_out(dev, 0x60, 0xf2);
    ASSERT_BYTES("\xfa\xab\x83");
}

static void test_disable_holds_keys(void **state)
{
    tell(0x60, 0x11);
    kbd_key(&kbd, 0x1c, false, true);
    assert_false(status() & OBF);
    assert_int_equal(ask(0x20), 0x11); /* answers of the controller pass */
    fake_out(dev, 0x64, 0xae);
    ASSERT_BYTES("\x1c");
    fake_out(dev, 0x64, 0xad);
    fake_out(dev, 0x60, 0xee); /* talking to the keyboard enables it */
    ASSERT_BYTES("\xee");
    assert_int_equal(ask(0x20) & 0x10, 0);
    /* An answer does not overwrite what is in the output buffer, and overtakes what is behind it. */
    kbd_key(&kbd, 0x1c, false, true);
    kbd_key(&kbd, 0x32, false, true);
    fake_out(dev, 0x64, 0xab);
    ASSERT_BYTES("\x1c\x00\x32");
}

static void test_interrupt_bit(void **state)
{
    tell(0x60, 0x00);
    kbd_key(&kbd, 0x1c, false, true);
    assert_false(fake.level[1]);
    fake_out(dev, 0x64, 0x60);
    fake_out(dev, 0x60, 0x05);
    assert_true(fake.level[1]);
    assert_int_equal(status() & 0x0d, 0x05); /* OBF, SYS, last write was data */
    fake_out(dev, 0x64, 0xae);
    assert_int_equal(status() & 0x08, 0x08);
    assert_int_equal(fake_in(dev, 0x60), 0x1c);
    assert_int_equal(fake_in(dev, 0x60), 0x1c); /* empty: the last byte again */
}

static void test_controller_commands(void **state)
{
    tell(0x65, 0x77); /* RAM */
    assert_int_equal(ask(0x25), 0x77);
    assert_int_equal(ask(0x3f), 0);
    assert_int_equal(ask(0xa4), 0xf1);
    assert_int_equal(ask(0xc0) & 0x80, 0x80);
    assert_int_equal(ask(0xd0) & 0x03, 0x03);
    tell(0xd1, 0x01); /* A20 off: remembered */
    assert_int_equal(ask(0xd0) & 0x03, 0x01);
    tell(0xd2, 0x99);
    ASSERT_BYTES("\x99");
    assert_int_equal(ask(0xe0), 0);
    tell(0xd4, 0xff);
    assert_int_equal(status() & 0x41, 0x41); /* time-out */
    ASSERT_BYTES("\xfe");
    assert_int_equal(ask(0xab), 0);
    assert_int_equal(status() & 0x40, 0);
    fake_out(dev, 0x64, 0x99); /* unknown */
    assert_false(status() & OBF);
    fake_out(dev, 0x64, 0xd1); /* a new command forgets the one that waits */
    fake_out(dev, 0x64, 0xae);
    fake_out(dev, 0x60, 0xee);
    ASSERT_BYTES("\xee");
}

static void test_reset_requests(void **state)
{
    fake_out(dev, 0x64, 0xff); /* pulses nothing */
    assert_int_equal(fake.resets, 0);
    fake_out(dev, 0x64, 0xfe);
    assert_int_equal(fake.resets, 1);
    fake_out(dev, 0x64, 0xf0);
    assert_int_equal(fake.resets, 2);
    tell(0xd1, 0x02);
    assert_int_equal(fake.resets, 3);
    assert_int_equal(fake.inits, 3);
    tell(0xd1, 0x03);
    assert_int_equal(fake.resets, 3);
    assert_int_equal(fake.poweroffs, 0);
}

static void test_ports_and_reset(void **state)
{
    assert_int_equal(fake_in(dev, 0x61), 0xff);
    fake_out(dev, 0x61, 0xff);
    tell(0x60, 0x01);
    fake_out(dev, 0x60, 0xf2);
    assert_int_equal(fake_read(dev, 0x60, 2), 0xfffa);
    assert_true(fake.level[1]);
    kbd_ops.reset(dev);
    assert_false(fake.level[1]);
    assert_int_equal(status(), 0x14);
    assert_int_equal(ask(0x20), 0x64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_linux_probe, setup),
        cmocka_unit_test_setup(test_keyboard_commands, setup),
        cmocka_unit_test_setup(test_keys, setup),
        cmocka_unit_test_setup(test_queue_limits, setup),
        cmocka_unit_test_setup(test_disable_holds_keys, setup),
        cmocka_unit_test_setup(test_interrupt_bit, setup),
        cmocka_unit_test_setup(test_controller_commands, setup),
        cmocka_unit_test_setup(test_reset_requests, setup),
        cmocka_unit_test_setup(test_ports_and_reset, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
