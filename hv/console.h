/* The host's console: one serial port. Output is buffered and drained as the port takes it, so that a guest
 * that prints does not wait for the wire; input goes to the VM in front. */
#pragma once

#include "hv/lib/types.h"

struct vm;

/* The port (drivers/uart_hw.c). */
struct console_port {
    unsigned (*tx_room)(void); /* bytes that can be written now without waiting */
    void (*tx)(uint8_t byte);
    bool (*tx_idle)(void); /* everything has left the wire */
    int (*rx)(void);       /* a received byte, or -1 */
};

/* How often one CPU calls console_poll(). */
#define CONSOLE_POLLS_PER_SECOND 1000u

void console_init(const struct console_port *port);
/* Bytes for the wire, from any CPU. When the buffer is full the caller waits for the wire. */
void console_put(uint8_t byte);
void console_write(const char *text);
/* The VM that gets the keyboard; NULL: nobody. */
void console_attach(struct vm *vm);
/* Drains output and takes input; called about every millisecond by one CPU. */
void console_poll(void);
/* Waits until all is on the wire (bounded: about two seconds at 115200 baud for a full buffer). */
void console_flush(void);
/* The panic path: no locks. First what was still buffered, then directly to the port. */
void console_panic_begin(void);
void console_panic_write(const char *text);
