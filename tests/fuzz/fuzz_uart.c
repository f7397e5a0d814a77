/* Random port accesses, input and time for the UART. The bytes must come out in the order they went in, the
 * interrupt line must follow IIR, and waiting input must always lead to an interrupt. */
#include <string.h>
#include "drivers/vdev/uart.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct uart uart;
/* Bytes that must still come out of the receiver. */
static uint8_t expected[UART_FIFO_SIZE];
static unsigned expected_count;

static void check(void)
{
    FAKE_REQUIRE(uart.rx_count <= UART_FIFO_SIZE);
    FAKE_REQUIRE(uart.rx_head < UART_FIFO_SIZE);
    FAKE_REQUIRE((uart.lsr & 0x9c) == 0 && (uart.lsr & 0x60) == 0x60);
    FAKE_REQUIRE((uart.lsr & 1) == (uart.rx_count > 0));
    FAKE_REQUIRE(fake.level[4] == uart.line);
    FAKE_REQUIRE(uart.line == ((uart.iir & 1) == 0 && (uart.mcr & 0x18) == 0x08));
    FAKE_REQUIRE(uart.mcr & 0x10 || uart_room(&uart) <= UART_FIFO_SIZE);
    FAKE_REQUIRE(!(uart.iir & 0xf0));
    if (uart.rx_count == 0)
        expected_count = 0;
    else
        FAKE_REQUIRE(expected_count == uart.rx_count);
}

static void receive(struct fake_input *in)
{
    uint8_t bytes[32];
    size_t n = fake_input_u8(in) % sizeof(bytes);
    for (size_t i = 0; i < n; i++)
        bytes[i] = fake_input_u8(in);
    size_t room = uart_room(&uart), taken = uart_receive(&uart, bytes, n);
    FAKE_REQUIRE(taken == (n < room ? n : room));
    FAKE_REQUIRE(taken + expected_count <= UART_FIFO_SIZE);
    memcpy(expected + expected_count, bytes, taken);
    expected_count += (unsigned)taken;
    FAKE_REQUIRE(!(uart.lsr & 2) || taken == 0 || room > 0);
}

static void write_byte(uint64_t port, uint8_t value)
{
    bool thr = port == uart.base && !(uart.lcr & 0x80), loop = uart.mcr & 0x10;
    size_t before = fake.console_size;
    if (thr && loop) {
        if (expected_count < ((uart.fcr & 1) ? UART_FIFO_SIZE : 1))
            expected[expected_count++] = value;
        else if (!(uart.fcr & 1))
            expected[0] = value;
    }
    fake_out(&uart.dev, port, value);
    FAKE_REQUIRE(fake.console_size - before == (thr && !loop));
}

static void read_byte(uint64_t port)
{
    bool rbr = port == uart.base && !(uart.lcr & 0x80) && expected_count;
    uint8_t value = fake_in(&uart.dev, port);
    if (rbr) {
        FAKE_REQUIRE(value == expected[0]);
        memmove(expected, expected + 1, --expected_count);
    }
}

/* Input that waits makes itself known, whatever happened before. */
static void check_liveness(void)
{
    fake_out(&uart.dev, uart.base + 3, 0);
    fake_out(&uart.dev, uart.base + 4, 0x08);
    fake_out(&uart.dev, uart.base + 1, 0x01);
    fake_advance(&fake, 60 * VDEV_NS_PER_S);
    FAKE_REQUIRE(fake.level[4] == (uart.rx_count > 0));
    for (unsigned i = 0; i < UART_FIFO_SIZE; i++)
        read_byte(uart.base);
    FAKE_REQUIRE(!fake.level[4]);
    fake_advance(&fake, 60 * VDEV_NS_PER_S);
    FAKE_REQUIRE(uart.dev.deadline_ns == VDEV_NEVER);
    /* And the transmitter interrupts when asked to, with a new edge for every character. */
    fake_out(&uart.dev, uart.base + 1, 0x02);
    FAKE_REQUIRE(fake.level[4]);
    unsigned rises = fake.rises[4];
    fake_out(&uart.dev, uart.base, 'x');
    FAKE_REQUIRE(fake.level[4] && fake.rises[4] == rises + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    fake_vdev_env_init(&fake);
    memset(&uart, 0, sizeof(uart));
    uart.base = UART_COM1_PORT;
    uart.irq = UART_COM1_IRQ;
    uart.to_console = true;
    expected_count = 0;
    fake_attach(&fake, &uart.dev, &uart_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        uint64_t port = uart.base + (op & 7);
        switch (op >> 5) {
        case 0:
        case 1:
        case 2:
            write_byte(port, fake_input_u8(&in));
            break;
        case 3:
        case 4:
            read_byte(port);
            break;
        case 5:
            receive(&in);
            break;
        case 6:
            fake_advance(&fake, fake_input_step(&in));
            break;
        default: /* byte by byte, as read_byte() expects */
            fake_jump(&fake, fake_input_step(&in));
            break;
        }
        check();
    }
    check_liveness();
    return 0;
}
