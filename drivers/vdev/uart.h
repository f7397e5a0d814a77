/* A 16550A UART as a PC has it (National Semiconductor PC16550D data sheet). Transmission takes no time: the
 * transmitter is always empty. Received bytes pass through the 16-byte FIFO. One struct is one port. */
#pragma once

#include "drivers/vdev/vdev.h"

#define UART_COM1_PORT  0x3f8u
#define UART_COM1_IRQ   4u
#define UART_PORT_COUNT 8u
#define UART_FIFO_SIZE  16u

struct uart {
    struct vdev dev;
    /* Wiring, set before init. */
    uint16_t base;   /* first of UART_PORT_COUNT ports */
    uint8_t irq;     /* ISA IRQ */
    bool to_console; /* output goes to env->console_put; otherwise nothing is connected */
    /* Registers. */
    uint8_t ier, lcr, mcr, msr, scr, fcr, lsr;
    uint8_t iir; /* bits 3:0 as a read would show them now */
    uint16_t divisor;
    /* State behind the registers. */
    bool thre_pending; /* "transmitter empty" has not been reported yet; meaningful while it is enabled in IER
                        */
    bool timeout;      /* characters have been waiting for four character times */
    bool line;         /* level of the interrupt line */
    bool timer_armed;
    uint8_t rx[UART_FIFO_SIZE];
    uint8_t rx_head, rx_count;
    uint64_t timeout_at; /* ns: when `timeout` becomes true unless the FIFO is accessed before */
};

extern const struct vdev_ops uart_ops;

/* Characters from the outside; returns how many were taken. The rest is for the caller to keep and offer
 * again when uart_room() says so: a fast sender never causes an overrun. */
size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t n);
/* How many characters uart_receive() would take now. 0 in loopback mode, where the receiver is disconnected.
 */
size_t uart_room(const struct uart *uart);
