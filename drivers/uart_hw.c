/* National Semiconductor PC16550D data sheet. */
#include "drivers/uart_hw.h"
#include "arch/x86/cpu_hw.h"

#define PORT_BASE 0x3f8u

enum { REG_DATA = 0, REG_IER = 1, REG_FCR = 2, REG_LCR = 3, REG_MCR = 4, REG_LSR = 5, REG_SCRATCH = 7 };
enum { DIVISOR_LOW = 0, DIVISOR_HIGH = 1 };

#define LCR_8N1        0x03u
#define LCR_DLAB       0x80u
#define FCR_ENABLE     0x07u /* FIFOs on and cleared */
#define IER_RX         0x01u
#define IER_THRE       0x02u
#define MCR_MODEM      0x0bu /* DTR, RTS, and OUT2, which on a PC lets the interrupt out */
#define LSR_DATA_READY 0x01u
#define LSR_THRE       0x20u
#define LSR_TEMT       0x40u
#define FIFO_SIZE      16u
#define DIVISOR_115200 1u
#define TEMT_TRIES     (1u << 20)
#define STUCK_LOOKS    (1u << 22) /* several seconds: a look takes about a microsecond */

static bool present;

/* A port whose transmitter never empties is broken: given up, so that nobody waits for it for ever. */
static unsigned tx_room(void)
{
    static uint32_t stuck;
    if (!present)
        return FIFO_SIZE;
    if (cpu_in8(PORT_BASE + REG_LSR) & LSR_THRE) {
        stuck = 0;
        return FIFO_SIZE;
    }
    if (++stuck > STUCK_LOOKS)
        present = false;
    return 0;
}

static void tx(uint8_t byte)
{
    if (present)
        cpu_out8(PORT_BASE + REG_DATA, byte);
}

static bool tx_idle(void)
{
    return !present || (cpu_in8(PORT_BASE + REG_LSR) & LSR_TEMT);
}

static int rx(void)
{
    if (!present || !(cpu_in8(PORT_BASE + REG_LSR) & LSR_DATA_READY))
        return -1;
    return cpu_in8(PORT_BASE + REG_DATA);
}

static void listen(enum console_listen what)
{
    static const uint8_t enables[] = {[CONSOLE_LISTEN_ROOM] = IER_THRE, [CONSOLE_LISTEN_INPUT] = IER_RX};
    if (present)
        cpu_out8(PORT_BASE + REG_IER, enables[what]);
}

static const struct console_port com1 = {
    .tx_room = tx_room, .tx = tx, .tx_idle = tx_idle, .rx = rx, .listen = listen};

const struct console_port *uart_hw_init(void)
{
    cpu_out8(PORT_BASE + REG_SCRATCH, 0x5a);
    present = cpu_in8(PORT_BASE + REG_SCRATCH) == 0x5a;
    if (!present)
        return &com1;
    for (unsigned i = 0; i < TEMT_TRIES && !tx_idle(); i++)
        ; /* the firmware's last words: clearing the FIFO would lose them */
    cpu_out8(PORT_BASE + REG_IER, 0);
    cpu_out8(PORT_BASE + REG_LCR, LCR_DLAB | LCR_8N1);
    cpu_out8(PORT_BASE + DIVISOR_LOW, DIVISOR_115200);
    cpu_out8(PORT_BASE + DIVISOR_HIGH, 0);
    cpu_out8(PORT_BASE + REG_LCR, LCR_8N1);
    cpu_out8(PORT_BASE + REG_FCR, FCR_ENABLE);
    cpu_out8(PORT_BASE + REG_MCR, MCR_MODEM);
    return &com1;
}
