#include "hv/console.h"
#include "hv/lib/lock.h"
#include "hv/vm.h"

#define OUTPUT_SIZE 32768u /* bytes; a power of two */
#define FLUSH_TRIES (1u << 28)

static struct spinlock lock; /* guards all below */
static const struct console_port *port;
static uint8_t output[OUTPUT_SIZE];
static uint32_t output_head, output_tail; /* free-running; head - tail bytes wait */
static struct vm *front;

void console_init(const struct console_port *the_port)
{
    port = the_port;
}

/* Moves what the port takes now. */
static void drain(void)
{
    unsigned room = port->tx_room();
    while (room-- && output_tail != output_head)
        port->tx(output[output_tail++ % OUTPUT_SIZE]);
}

/* Waits for room when the wire is slower than the speaker, giving the others their turn at the lock. */
static void put_locked(uint8_t byte)
{
    while (output_head - output_tail == OUTPUT_SIZE) {
        drain();
        spin_unlock(&lock);
        __builtin_ia32_pause();
        spin_lock(&lock);
    }
    output[output_head++ % OUTPUT_SIZE] = byte;
}

void console_put(uint8_t byte)
{
    spin_lock(&lock);
    put_locked(byte);
    /* Looking at the port costs a microsecond on real hardware: often enough is when a line ends; the poll
     * does the rest. */
    if (byte == '\n' || output_head - output_tail > OUTPUT_SIZE / 2)
        drain();
    spin_unlock(&lock);
}

void console_write(const char *text)
{
    spin_lock(&lock);
    for (; *text; text++) {
        if (*text == '\n')
            put_locked('\r');
        put_locked((uint8_t)*text);
    }
    drain();
    spin_unlock(&lock);
}

void console_attach(struct vm *vm)
{
    spin_lock(&lock);
    front = vm;
    spin_unlock(&lock);
}

/* Lock order: devices before console, so the bytes are collected first and delivered without the console's
 * lock. */
void console_poll(void)
{
    uint8_t bytes[UART_FIFO_SIZE];
    size_t count = 0;
    /* The CPU that polls runs a guest too: another VM that keeps a lock busy must not hold it up. */
    if (!spin_trylock(&lock))
        return;
    drain();
    struct vm *vm = front;
    spin_unlock(&lock);
    if (!vm || !spin_trylock(&vm->devices))
        return;
    size_t room = uart_room(&vm->platform.uart);
    while (count < room && count < sizeof(bytes)) {
        int byte = port->rx();
        if (byte < 0)
            break;
        bytes[count++] = (uint8_t)byte;
    }
    if (count)
        uart_receive(&vm->platform.uart, bytes, count);
    spin_unlock(&vm->devices);
}

void console_flush(void)
{
    spin_lock(&lock);
    for (unsigned tries = 0; tries < FLUSH_TRIES && (output_tail != output_head || !port->tx_idle()); tries++)
        drain();
    spin_unlock(&lock);
}

static void panic_put(uint8_t byte)
{
    while (!port->tx_room())
        __builtin_ia32_pause();
    port->tx(byte);
}

void console_panic_begin(void)
{
    while (output_tail != output_head)
        panic_put(output[output_tail++ % OUTPUT_SIZE]);
}

void console_panic_write(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            panic_put('\r');
        panic_put((uint8_t)*text);
    }
}
