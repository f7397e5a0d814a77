#include "drivers/vdev/uart.h"
#include "hv/lib/string.h"

enum uart_reg {
    REG_DATA, /* RBR, THR; DLL */
    REG_IER,  /* DLM */
    REG_IIR,  /* FCR on writes */
    REG_LCR,
    REG_MCR,
    REG_LSR,
    REG_MSR,
    REG_SCR,
};

#define IER_RDI  0x01u /* received data available, character time-out */
#define IER_THRI 0x02u
#define IER_RLSI 0x04u
#define IER_MSI  0x08u
#define IER_ALL  0x0fu

#define IIR_NONE    0x01u
#define IIR_MSI     0x00u
#define IIR_THRI    0x02u
#define IIR_RDI     0x04u
#define IIR_RLSI    0x06u
#define IIR_TIMEOUT 0x0cu
#define IIR_FIFOS   0xc0u

#define FCR_ENABLE    0x01u
#define FCR_CLEAR_RX  0x02u
#define FCR_DMA       0x08u
#define FCR_TRIGGER   0xc0u
#define TRIGGER_SHIFT 6

#define LCR_LENGTH 0x03u
#define LCR_STOP2  0x04u
#define LCR_PARITY 0x08u
#define LCR_DLAB   0x80u

#define MCR_DTR  0x01u
#define MCR_RTS  0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u /* on a PC it gates the interrupt line */
#define MCR_LOOP 0x10u
#define MCR_ALL  0x1fu

#define LSR_DR    0x01u
#define LSR_OE    0x02u
#define LSR_EMPTY 0x60u /* THRE and TEMT: always, since transmission takes no time */

#define MSR_DELTAS 0x0fu
#define MSR_CTS    0x10u
#define MSR_DSR    0x20u
#define MSR_RI     0x40u
#define MSR_DCD    0x80u
#define DELTA_RI   0x04u /* TERI: set by the trailing edge only */

#define TIMEOUT_CHARS 4u
/* One bit lasts divisor * 16 cycles of the 1.8432 MHz crystal. */
#define CRYSTAL_HZ        1843200u
#define CYCLES_PER_BIT(d) ((uint64_t)(d)*16)

static struct uart *uart_of(struct vdev *dev)
{
    return container_of(dev, struct uart, dev);
}

static unsigned trigger_level(const struct uart *u)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    return u->fcr & FCR_ENABLE ? levels[u->fcr >> TRIGGER_SHIFT] : 1;
}

static unsigned capacity(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? UART_FIFO_SIZE : 1;
}

/* Data sheet, table III: the source of the highest priority. */
static uint8_t identify(const struct uart *u)
{
    if ((u->ier & IER_RLSI) && (u->lsr & LSR_OE))
        return IIR_RLSI;
    if (u->ier & IER_RDI) {
        if (u->rx_count >= trigger_level(u))
            return IIR_RDI;
        if (u->timeout)
            return IIR_TIMEOUT;
    }
    if ((u->ier & IER_THRI) && u->thre_pending)
        return IIR_THRI;
    if ((u->ier & IER_MSI) && (u->msr & MSR_DELTAS))
        return IIR_MSI;
    return IIR_NONE;
}

static void update(struct uart *u)
{
    u->iir = identify(u);
    /* In loopback mode the OUT2 pin is inactive, so the gate is closed. */
    bool line = u->iir != IIR_NONE && (u->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    if (line != u->line) {
        u->line = line;
        vdev_set_irq(&u->dev, u->irq, line);
    }
}

static uint64_t char_ns(const struct uart *u)
{
    unsigned bits = 1 + 5 + (u->lcr & LCR_LENGTH) + 1;
    bits += !!(u->lcr & LCR_STOP2) + !!(u->lcr & LCR_PARITY);
    unsigned divisor = u->divisor ? u->divisor : 1;
    return bits * CYCLES_PER_BIT(divisor) * VDEV_NS_PER_S / CRYSTAL_HZ;
}

/* The FIFO was accessed: the time-out counts from now. A timer that is set already is left alone (it looks at
 * timeout_at when it fires), so that reading a burst costs no timer operation per character. */
static void restart_timeout(struct uart *u)
{
    u->timeout = false;
    if (!(u->fcr & FCR_ENABLE) || u->rx_count == 0)
        return;
    u->timeout_at = vdev_now(&u->dev) + TIMEOUT_CHARS * char_ns(u);
    if (!u->timer_armed) {
        u->timer_armed = true;
        vdev_set_timer(&u->dev, u->timeout_at);
    }
}

static void uart_timer(struct vdev *dev, uint64_t now_ns)
{
    struct uart *u = uart_of(dev);
    u->timer_armed = false;
    if (u->rx_count == 0 || u->timeout || !(u->fcr & FCR_ENABLE))
        return;
    if (now_ns < u->timeout_at) {
        u->timer_armed = true;
        vdev_set_timer(dev, u->timeout_at);
        return;
    }
    u->timeout = true;
    update(u);
}

static void push_rx(struct uart *u, uint8_t byte)
{
    if (u->rx_count == capacity(u)) {
        u->lsr |= LSR_OE;
        /* Without FIFO the new character overwrites the holding register; with it, only the shift register.
         */
        if (!(u->fcr & FCR_ENABLE))
            u->rx[u->rx_head] = byte;
        return;
    }
    u->rx[(u->rx_head + u->rx_count) % UART_FIFO_SIZE] = byte;
    u->rx_count++;
    u->lsr |= LSR_DR;
}

static uint8_t read_rbr(struct uart *u)
{
    uint8_t byte = u->rx[u->rx_head];
    if (u->rx_count == 0)
        return byte;
    if (u->fcr & FCR_ENABLE) /* otherwise the holding register keeps the byte */
        u->rx_head = (u->rx_head + 1) % UART_FIFO_SIZE;
    if (--u->rx_count == 0)
        u->lsr &= (uint8_t)~LSR_DR;
    restart_timeout(u);
    update(u);
    return byte;
}

static void clear_rx(struct uart *u)
{
    u->rx_count = 0;
    u->lsr &= (uint8_t)~LSR_DR;
    u->timeout = false;
}

static void write_thr(struct uart *u, uint8_t byte)
{
    if (u->mcr & MCR_LOOP) {
        push_rx(u, byte);
        restart_timeout(u);
        update(u);
    } else if (u->to_console) {
        u->dev.env->console_put(u->dev.env->ctx, byte);
    }
    if (!(u->ier & IER_THRI))
        return;
    /* The write ends the "transmitter empty" interrupt, the character's departure starts it anew. The line
     * has to show both: the interrupt controller looks for an edge, and may have ignored the one before. */
    if (u->thre_pending) {
        u->thre_pending = false;
        update(u);
    }
    u->thre_pending = true;
    update(u);
}

static void write_ier(struct uart *u, uint8_t value)
{
    value &= IER_ALL;
    /* Enabling the interrupt while the transmitter is empty raises it; drivers rely on this to start sending.
     */
    if ((value & IER_THRI) && !(u->ier & IER_THRI))
        u->thre_pending = true;
    u->ier = value;
    update(u);
}

static void write_fcr(struct uart *u, uint8_t value)
{
    /* Switching the FIFOs on or off empties them. */
    if ((value ^ u->fcr) & FCR_ENABLE)
        clear_rx(u);
    /* The other bits are only programmed while bit 0 is being written as 1. */
    if (value & FCR_ENABLE) {
        if (value & FCR_CLEAR_RX)
            clear_rx(u);
        u->fcr = value & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER);
    } else {
        u->fcr &= (uint8_t)~FCR_ENABLE;
    }
    update(u);
}

/* The modem lines: a ready peer, or in loopback mode our own outputs. */
static uint8_t modem_inputs(const struct uart *u)
{
    if (!(u->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
           (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_mcr(struct uart *u, uint8_t value)
{
    u->mcr = value & MCR_ALL;
    uint8_t inputs = modem_inputs(u);
    uint8_t deltas = (uint8_t)(inputs ^ u->msr) >> 4;
    if (inputs & MSR_RI)
        deltas &= (uint8_t)~DELTA_RI;
    u->msr = inputs | (u->msr & MSR_DELTAS) | deltas;
    update(u);
}

static uint8_t read_iir(struct uart *u)
{
    uint8_t value = u->iir | (u->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
    if (u->iir == IIR_THRI) {
        u->thre_pending = false;
        update(u);
    }
    return value;
}

static uint8_t read_lsr(struct uart *u)
{
    uint8_t value = u->lsr;
    if (value & LSR_OE) {
        u->lsr &= (uint8_t)~LSR_OE;
        update(u);
    }
    return value;
}

static uint8_t read_msr(struct uart *u)
{
    uint8_t value = u->msr;
    if (value & MSR_DELTAS) {
        u->msr &= (uint8_t)~MSR_DELTAS;
        update(u);
    }
    return value;
}

static uint8_t read_reg(struct uart *u, uint64_t reg)
{
    bool dlab = u->lcr & LCR_DLAB;
    switch (reg) {
    case REG_LSR:
        return read_lsr(u);
    case REG_IIR:
        return read_iir(u);
    case REG_DATA:
        return dlab ? (uint8_t)u->divisor : read_rbr(u);
    case REG_IER:
        return dlab ? (uint8_t)(u->divisor >> 8) : u->ier;
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_MSR:
        return read_msr(u);
    case REG_SCR:
        return u->scr;
    default:
        return 0xff;
    }
}

static void write_reg(struct uart *u, uint64_t reg, uint8_t value)
{
    bool dlab = u->lcr & LCR_DLAB;
    switch (reg) {
    case REG_DATA:
        if (dlab)
            u->divisor = (u->divisor & 0xff00) | value;
        else
            write_thr(u, value);
        break;
    case REG_IER:
        if (dlab)
            u->divisor = (uint16_t)((u->divisor & 0xff) | value << 8);
        else
            write_ier(u, value);
        break;
    case REG_IIR:
        write_fcr(u, value);
        break;
    case REG_LCR:
        u->lcr = value;
        break;
    case REG_MCR:
        write_mcr(u, value);
        break;
    case REG_SCR:
        u->scr = value;
        break;
    default: /* LSR and MSR are written in factory tests only */
        break;
    }
}

static void uart_access(struct vdev *dev, struct io_req *req)
{
    struct uart *u = uart_of(dev);
    if (req->size != 1)
        vdev_split_bytes(dev, req);
    else if (req->write)
        write_reg(u, req->addr - u->base, (uint8_t)req->value);
    else
        req->value = read_reg(u, req->addr - u->base);
}

static void uart_reset(struct vdev *dev)
{
    struct uart *u = uart_of(dev);
    u->ier = u->lcr = u->mcr = u->scr = u->fcr = 0;
    u->lsr = LSR_EMPTY;
    u->msr = modem_inputs(u);
    u->iir = IIR_NONE;
    u->divisor = 1; /* undefined on the chip */
    u->thre_pending = u->timeout = u->timer_armed = u->line = false;
    u->rx_head = u->rx_count = 0;
    memset(u->rx, 0, sizeof(u->rx));
    vdev_set_timer(dev, VDEV_NEVER);
    vdev_set_irq(dev, u->irq, false);
}

size_t uart_room(const struct uart *u)
{
    return u->mcr & MCR_LOOP ? 0 : capacity(u) - u->rx_count;
}

size_t uart_receive(struct uart *u, const uint8_t *bytes, size_t n)
{
    size_t room = uart_room(u);
    if (n > room)
        n = room;
    if (n == 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        push_rx(u, bytes[i]);
    restart_timeout(u);
    update(u);
    return n;
}

const struct vdev_ops uart_ops = {
    .name = "uart",
    .init = uart_reset,
    .reset = uart_reset,
    .access = uart_access,
    .timer = uart_timer,
};
