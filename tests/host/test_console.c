/* The host's console: buffering, backpressure, input to the VM in front, and the panic path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/console.h"
#include "tests/host/fake_host.h"
#include "tests/host/machine.h"

#define BUFFER 32768u /* bytes that wait at most */

/* A wire that takes `room` bytes, and `refill` more each time it was found full. */
static unsigned room, refill, idle_after, idle_asked;
static uint8_t wire[4 * BUFFER];
static size_t sent;
static const char *typed;
static unsigned rx_calls;

static unsigned wire_room(void)
{
    unsigned now = room;
    if (!room)
        room = refill;
    return now;
}

static void wire_tx(uint8_t byte)
{
    assert_true(room > 0 && sent < sizeof(wire)); /* never more than there was room for */
    room--;
    wire[sent++] = byte;
}

static bool wire_idle(void)
{
    return idle_asked++ >= idle_after;
}

static int wire_rx(void)
{
    rx_calls++;
    return *typed ? (uint8_t)*typed++ : -1;
}

static const struct console_port port = {
    .tx_room = wire_room, .tx = wire_tx, .tx_idle = wire_idle, .rx = wire_rx};

static int setup(void **state)
{
    machine_init(1);
    console_init(&port);
    room = UINT32_MAX;
    console_attach(NULL);
    console_flush(); /* what an earlier test left */
    sent = 0;
    refill = idle_after = idle_asked = rx_calls = 0;
    typed = "";
    return 0;
}

static void assert_sent(const char *text)
{
    assert_int_equal(sent, strlen(text));
    assert_memory_equal(wire, text, sent);
}

static void put(const char *text)
{
    while (*text)
        console_put((uint8_t)*text++);
}

/* ---- output ---- */

static void test_put_waits_for_the_line(void **state)
{
    put("abc");
    assert_sent("");
    put("\n");
    assert_sent("abc\n"); /* a guest's bytes as they are */
    put("login: ");
    console_poll();
    assert_sent("abc\nlogin: ");
}

static void test_write(void **state)
{
    console_write("one\ntwo");
    assert_sent("one\r\ntwo");
}

static void test_slow_wire(void **state)
{
    room = 3;
    console_write("0123456789");
    assert_sent("012");
    console_poll();
    assert_sent("012");
    room = 5;
    put("ab\n");
    assert_sent("01234567");
    room = 100;
    console_poll();
    assert_sent("0123456789ab\n");
}

static void test_half_full_drains(void **state)
{
    for (unsigned i = 0; i < BUFFER / 2; i++)
        console_put('x');
    assert_int_equal(sent, 0);
    console_put('y');
    assert_int_equal(sent, BUFFER / 2 + 1);
}

/* When the buffer is full, who speaks waits for the wire; nothing is lost, and nothing overtakes. */
static void test_full_buffer_waits(void **state)
{
    room = 0;
    for (unsigned i = 0; i < BUFFER; i++)
        console_put((uint8_t)i);
    assert_int_equal(sent, 0);
    refill = 16;
    for (unsigned i = 0; i < BUFFER; i++)
        console_put((uint8_t)i);
    assert_true(sent >= BUFFER);
    room = UINT32_MAX;
    console_flush();
    assert_int_equal(sent, 2 * BUFFER);
    for (unsigned i = 0; i < 2 * BUFFER; i++)
        assert_int_equal(wire[i], i & 0xff);
}

static void test_flush(void **state)
{
    put("tail");
    room = 0;
    refill = 1;
    idle_after = 3;
    console_flush();
    assert_sent("tail");
    assert_int_equal(idle_asked, 4); /* the last byte has left the wire too */
}

/* ---- input ---- */

static size_t guest_reads(char *to, size_t max)
{
    size_t n = 0;
    for (; n < max; n++) {
        struct io_req req = {.addr = UART_COM1_PORT + 5, .size = 1};
        emulate_port_access(&machine.vcpus[0], &req);
        if (!(req.value & 1))
            break;
        req = (struct io_req){.addr = UART_COM1_PORT, .size = 1};
        emulate_port_access(&machine.vcpus[0], &req);
        to[n] = (char)req.value;
    }
    return n;
}

static void test_input_to_the_front(void **state)
{
    char got[64];
    typed = "ls\r";
    console_poll();
    assert_int_equal(rx_calls, 0); /* nobody in front: it waits in the port */
    console_attach(&machine.vm);
    console_poll();
    assert_int_equal(guest_reads(got, sizeof(got)), 1); /* no FIFO: one at a time */
    assert_int_equal(got[0], 'l');
    assert_string_equal(typed, "s\r");
    console_poll();
    assert_int_equal(guest_reads(got, sizeof(got)), 1);
    assert_int_equal(got[0], 's');
}

static void test_input_with_fifo(void **state)
{
    char got[64];
    struct io_req fifo = {.addr = UART_COM1_PORT + 2, .value = 1, .size = 1, .write = true};
    emulate_port_access(&machine.vcpus[0], &fifo);
    console_attach(&machine.vm);
    typed = "0123456789abcdefghij";
    console_poll();
    assert_string_equal(typed, "ghij"); /* as much as the FIFO holds */
    console_poll();
    assert_string_equal(typed, "ghij");
    assert_int_equal(guest_reads(got, sizeof(got)), 16);
    assert_memory_equal(got, "0123456789abcdef", 16);
    console_poll();
    assert_int_equal(guest_reads(got, sizeof(got)), 4);
    assert_memory_equal(got, "ghij", 4);
    assert_int_equal(machine.vm.devices.next, machine.vm.devices.serving);
}

/* The guest's output goes the same way. */
static void test_guest_output(void **state)
{
    const char *text = "hi\n";
    for (; *text; text++) {
        struct io_req req = {.addr = UART_COM1_PORT, .value = (uint8_t)*text, .size = 1, .write = true};
        emulate_port_access(&machine.vcpus[0], &req);
    }
    assert_sent("hi\n");
}

/* ---- panic ---- */

static void test_panic(void **state)
{
    room = 0;
    put("last words");
    refill = 1;
    console_panic_begin();
    assert_sent("last words");
    console_panic_write("\nPANIC\n");
    assert_sent("last words\r\nPANIC\r\n");
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_put_waits_for_the_line), T(test_write), T(test_slow_wire),          T(test_half_full_drains),
        T(test_full_buffer_waits),      T(test_flush), T(test_input_to_the_front), T(test_input_with_fifo),
        T(test_guest_output),           T(test_panic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
