#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/uart.h"
#include "tests/host/fake_vdev_env.h"

enum { DATA = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

static struct fake_vdev_env fake;
static struct uart uart;
static struct vdev *dev = &uart.dev;

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&uart, 0x5a, sizeof(uart));
    uart.base = UART_COM1_PORT;
    uart.irq = UART_COM1_IRQ;
    uart.to_console = true;
    fake_attach(&fake, dev, &uart_ops);
    return 0;
}

static bool irq(void)
{
    return fake.level[UART_COM1_IRQ];
}

static size_t receive(const char *text)
{
    return uart_receive(&uart, (const uint8_t *)text, strlen(text));
}

static void test_reset_values(void **state)
{
    assert_int_equal(fake_in(dev, IER), 0);
    assert_int_equal(fake_in(dev, IIR), 0x01);
    assert_int_equal(fake_in(dev, LCR), 0);
    assert_int_equal(fake_in(dev, MCR), 0);
    assert_int_equal(fake_in(dev, LSR), 0x60);
    assert_int_equal(fake_in(dev, MSR), 0xb0);
    assert_int_equal(fake_in(dev, 0x400), 0xff);
    fake_out(dev, 0x400, 1);
    assert_false(irq());
}

/* What Linux's 8250 driver does to recognise a 16550A. */
static void test_linux_autoconfig(void **state)
{
    fake_out(dev, IER, 0);
    assert_int_equal(fake_in(dev, IER) & 0x0f, 0);
    fake_out(dev, IER, 0x0f);
    assert_int_equal(fake_in(dev, IER), 0x0f);
    fake_out(dev, IER, 0x40);
    assert_int_equal(fake_in(dev, IER), 0); /* no XScale UUE, no sleep mode */
    fake_out(dev, MCR, 0x1a);
    assert_int_equal(fake_in(dev, MSR) & 0xf0, 0x90);
    fake_out(dev, MCR, 0);
    fake_out(dev, LCR, 0xbf); /* EFR of a 16650: here FCR, with DLAB set */
    fake_out(dev, FCR, 0);
    fake_out(dev, LCR, 0);
    fake_out(dev, FCR, 0x01);
    assert_int_equal(fake_in(dev, IIR) >> 6, 3);
    fake_out(dev, LCR, 0x80);
    assert_int_not_equal(fake_in(dev, FCR), 0);
    fake_out(dev, LCR, 0);
    fake_out(dev, FCR, 0x21); /* 16750's 64-byte FIFO must not answer */
    assert_int_equal(fake_in(dev, IIR) >> 5, 6);
    fake_out(dev, MCR, 0xff);
    assert_int_equal(fake_in(dev, MCR), 0x1f);
    fake_out(dev, SCR, 0x5a);
    assert_int_equal(fake_in(dev, SCR), 0x5a);
    fake_out(dev, LSR, 0);
    assert_int_equal(fake_in(dev, LSR), 0x60);
}

/* Linux's size_fifo(): 256 bytes into the loopback come back as 16, then an overrun. */
static void test_loopback_fifo_size(void **state)
{
    fake_out(dev, FCR, 0x07);
    fake_out(dev, MCR, 0x10);
    for (unsigned i = 0; i < 256; i++)
        fake_out(dev, DATA, (uint8_t)i);
    assert_int_equal(fake.console_size, 0);
    assert_int_equal(fake_in(dev, LSR), 0x63);
    assert_int_equal(fake_in(dev, LSR), 0x61); /* OE is cleared by reading */
    for (unsigned i = 0; i < 16; i++) {
        assert_true(fake_in(dev, LSR) & 1);
        assert_int_equal(fake_in(dev, DATA), i);
    }
    assert_int_equal(fake_in(dev, LSR), 0x60);
    /* Without FIFO the newest byte wins. */
    fake_out(dev, FCR, 0);
    fake_out(dev, DATA, 'a');
    fake_out(dev, DATA, 'b');
    assert_int_equal(fake_in(dev, LSR), 0x63);
    assert_int_equal(fake_in(dev, DATA), 'b');
    assert_int_equal(fake_in(dev, LSR), 0x60);
}

static void test_loopback_modem(void **state)
{
    fake_out(dev, IER, 0x08);
    fake_out(dev, MCR, 0x10); /* CTS, DSR, DCD fall */
    assert_int_equal(fake_in(dev, IIR), 0x00);
    assert_false(irq()); /* OUT2 is inactive in loopback */
    assert_int_equal(fake_in(dev, MSR), 0x0b);
    assert_int_equal(fake_in(dev, IIR), 0x01);
    fake_out(dev, MCR, 0x1f);
    assert_int_equal(fake_in(dev, MSR), 0xfb); /* RI: no delta for its leading edge */
    fake_out(dev, MCR, 0x1b);
    assert_int_equal(fake_in(dev, MSR), 0xb4); /* TERI */
    fake_out(dev, MCR, 0x11);
    assert_int_equal(fake_in(dev, MSR), 0x29);
    assert_int_equal(uart_room(&uart), 0);
    assert_int_equal(receive("x"), 0);
    fake_out(dev, MCR, 0x08);
    assert_true(irq()); /* deltas of the lines' return, gate open */
    assert_int_equal(fake_in(dev, MSR), 0xb9);
    assert_false(irq());
}

static void test_output_and_divisor(void **state)
{
    fake_out(dev, DATA, 'H');
    fake_out(dev, LCR, 0x83);
    fake_out(dev, DATA, 0x0c);
    fake_out(dev, IER, 0x01);
    assert_int_equal(fake_in(dev, DATA), 0x0c);
    assert_int_equal(fake_in(dev, IER), 0x01);
    fake_out(dev, LCR, 0x03);
    assert_int_equal(fake_in(dev, LCR), 0x03);
    fake_out(dev, DATA, 'i');
    assert_int_equal(fake_in(dev, IER), 0);
    assert_int_equal(fake.console_size, 2);
    assert_memory_equal(fake.console, "Hi", 2);
    assert_int_equal(fake.rises[UART_COM1_IRQ], 0);
}

static void test_no_console_on_other_ports(void **state)
{
    struct uart com2 = {.base = 0x2f8, .irq = 3};
    fake_attach(&fake, &com2.dev, &uart_ops);
    fake_out(&com2.dev, 0x2f8, 'x');
    assert_int_equal(fake.console_size, 0);
    fake_out(&com2.dev, 0x2fc, 0x08);
    fake_out(&com2.dev, 0x2f9, 0x02);
    assert_true(fake.level[3]);
    assert_false(irq());
    fake.device_count = 1;
}

/* Linux's serial8250_do_startup(): the THRE test. */
static void test_thre_interrupt(void **state)
{
    fake_out(dev, MCR, 0x08);
    fake_out(dev, IER, 0x02);
    assert_true(irq());
    assert_int_equal(fake_in(dev, LSR), 0x60);
    assert_int_equal(fake_in(dev, IIR), 0x02);
    assert_false(irq()); /* reading IIR cleared it */
    assert_int_equal(fake_in(dev, IIR), 0x01);
    fake_out(dev, IER, 0x02); /* still enabled: nothing new */
    assert_false(irq());
    fake_out(dev, IER, 0);
    fake_out(dev, IER, 0x02);
    assert_true(irq());
    unsigned before = fake.rises[UART_COM1_IRQ];
    fake_out(dev, DATA, 'x'); /* asserted already: must be an edge again */
    assert_true(irq());
    assert_int_equal(fake.rises[UART_COM1_IRQ], before + 1);
    assert_int_equal(fake_in(dev, IIR), 0x02);
    fake_out(dev, DATA, 'y');
    assert_true(irq());
    fake_out(dev, IER, 0);
    assert_false(irq());
}

static void test_out2_gates(void **state)
{
    fake_out(dev, IER, 0x02);
    assert_int_equal(fake.rises[UART_COM1_IRQ], 0);
    fake_out(dev, MCR, 0x08);
    assert_true(irq());
    fake_out(dev, MCR, 0x18);
    assert_false(irq());
    fake_out(dev, MCR, 0x00);
    assert_false(irq());
}

static void test_receive_without_fifo(void **state)
{
    fake_out(dev, MCR, 0x08);
    fake_out(dev, IER, 0x01);
    assert_int_equal(uart_room(&uart), 1);
    assert_int_equal(receive("ab"), 1);
    assert_int_equal(receive("b"), 0);
    assert_true(irq());
    assert_int_equal(fake_in(dev, IIR), 0x04);
    assert_int_equal(fake_in(dev, LSR), 0x61);
    assert_int_equal(fake_in(dev, DATA), 'a');
    assert_false(irq());
    assert_int_equal(fake_in(dev, DATA), 'a'); /* the holding register keeps it */
    assert_int_equal(fake_in(dev, LSR), 0x60);
    assert_int_equal(receive(""), 0);
    assert_int_equal(uart.dev.deadline_ns, VDEV_NEVER);
}

static void test_trigger_levels(void **state)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    fake_out(dev, MCR, 0x08);
    fake_out(dev, IER, 0x01);
    for (unsigned i = 0; i < 4; i++) {
        fake_out(dev, FCR, (uint8_t)(i << 6 | 3));
        assert_int_equal(uart_room(&uart), 16);
        for (unsigned n = 1; n <= 16; n++) {
            assert_int_equal(receive("x"), 1);
            assert_int_equal(irq(), n >= levels[i]);
        }
        assert_int_equal(receive("x"), 0);
        for (unsigned n = 15; n > 0; n--) {
            fake_in(dev, DATA);
            assert_int_equal(irq(), n >= levels[i]);
            assert_int_equal(fake_in(dev, IIR), n >= levels[i] ? 0xc4 : 0xc1);
        }
    }
    /* Trigger bits only count together with bit 0; switching off empties. */
    receive("abc");
    fake_out(dev, FCR, 0x00);
    assert_int_equal(fake_in(dev, LSR), 0x60);
    assert_int_equal(fake_in(dev, IIR), 0x01);
    receive("a");
    fake_out(dev, FCR, 0x01);
    assert_int_equal(fake_in(dev, LSR), 0x60);
    receive("abc");
    fake_out(dev, FCR, 0x05); /* clearing the transmitter leaves the receiver alone */
    assert_int_equal(fake_in(dev, LSR), 0x61);
}

static void test_timeout(void **state)
{
    /* 115200 8N1: four characters of ten bits last 347222 ns. */
    const uint64_t four = 347222;
    fake_out(dev, MCR, 0x08);
    fake_out(dev, LCR, 0x03);
    fake_out(dev, FCR, 0xc1);
    fake_out(dev, IER, 0x01);
    assert_int_equal(receive("abc"), 3);
    fake_advance(&fake, four - 10);
    assert_false(irq());
    fake_advance(&fake, 20);
    assert_true(irq());
    assert_int_equal(fake_in(dev, IIR), 0xcc);
    assert_int_equal(fake_in(dev, DATA), 'a'); /* ends it, and starts a new wait */
    assert_false(irq());
    fake_advance(&fake, four - 100);
    assert_int_equal(fake_in(dev, DATA), 'b'); /* so does this */
    fake_advance(&fake, four - 100);
    assert_false(irq());
    fake_advance(&fake, 200);
    assert_true(irq());
    /* More characters up to the trigger level outrank the time-out. */
    assert_int_equal(receive("0123456789abcdef"), 15);
    assert_int_equal(fake_in(dev, IIR), 0xc4);
    for (unsigned i = 0; i < 16; i++)
        fake_in(dev, DATA);
    assert_false(irq());
    fake_advance(&fake, 10 * four);
    assert_false(irq());
    assert_int_equal(uart.dev.deadline_ns, VDEV_NEVER);
}

static void test_timeout_follows_line_settings(void **state)
{
    fake_out(dev, FCR, 0xc1);
    fake_out(dev, LCR, 0x80);
    fake_out(dev, DATA, 12);
    fake_out(dev, LCR, 0x0f); /* 9600, 8 bits, parity, 2 stop bits: 12 bits */
    receive("a");
    assert_in_range(uart.dev.deadline_ns, 4999990, 5000010);
    fake_out(dev, LCR, 0x80);
    fake_out(dev, DATA, 0);
    fake_out(dev, LCR, 0);
    receive("a"); /* a divisor of 0 is taken as 1 */
    fake_advance(&fake, 5000010);
    assert_true(uart.timeout);
}

static void test_priorities(void **state)
{
    fake_out(dev, MCR, 0x10);
    fake_out(dev, FCR, 0x01);
    for (unsigned i = 0; i < 17; i++)
        fake_out(dev, DATA, 'x');
    fake_out(dev, IER, 0x0f);
    assert_int_equal(fake_in(dev, IIR), 0xc6);
    fake_in(dev, LSR);
    assert_int_equal(fake_in(dev, IIR), 0xc4);
    fake_out(dev, FCR, 0x03);
    assert_int_equal(fake_in(dev, IIR), 0xc2);
    assert_int_equal(fake_in(dev, IIR), 0xc0);
    fake_in(dev, MSR);
    assert_int_equal(fake_in(dev, IIR), 0xc1);
}

static void test_wide_access(void **state)
{
    fake_write(dev, IER, 2, 0x010f); /* IER, then FCR */
    assert_int_equal(fake_in(dev, IER), 0x0f);
    assert_int_equal(fake_in(dev, IIR), 0xc2);
    assert_int_equal(fake_read(dev, LSR, 4), 0xff00b060); /* LSR, MSR, SCR, beyond */
}

static void test_reset(void **state)
{
    fake_out(dev, MCR, 0x08);
    fake_out(dev, IER, 0x0f);
    fake_out(dev, FCR, 0xc1);
    receive("abc");
    assert_true(irq());
    uart_ops.reset(dev);
    assert_false(irq());
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    test_reset_values(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_reset_values, setup),
        cmocka_unit_test_setup(test_linux_autoconfig, setup),
        cmocka_unit_test_setup(test_loopback_fifo_size, setup),
        cmocka_unit_test_setup(test_loopback_modem, setup),
        cmocka_unit_test_setup(test_output_and_divisor, setup),
        cmocka_unit_test_setup(test_no_console_on_other_ports, setup),
        cmocka_unit_test_setup(test_thre_interrupt, setup),
        cmocka_unit_test_setup(test_out2_gates, setup),
        cmocka_unit_test_setup(test_receive_without_fifo, setup),
        cmocka_unit_test_setup(test_trigger_levels, setup),
        cmocka_unit_test_setup(test_timeout, setup),
        cmocka_unit_test_setup(test_timeout_follows_line_settings, setup),
        cmocka_unit_test_setup(test_priorities, setup),
        cmocka_unit_test_setup(test_wide_access, setup),
        cmocka_unit_test_setup(test_reset, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
