/* The host's console: one serial port, and a screen when there is one, for all VMs, the core's own lines, and
 * Bulkhead's prompt (hv/console/prompt.h).
 *
 * Each VM's output goes into a ring of its own. The ring of the VM in front is the queue to the wire; what
 * the others print is kept, the newest CONSOLE_RING bytes, and shown when they come to the front. Before it
 * come the lines that were sent last, without what would steer the terminal once more, so that a VM that has
 * had nothing to say shows where it is. The core's
 * lines have a queue of their own and keep their place between a guest's lines, but do not wait for a guest
 * that floods. Nobody waits for the wire, except the vCPU of the VM in front that prints faster than the wire
 * takes it.
 *
 * Input goes to the VM in front, or to the prompt. Ctrl-A is the console's own key: CONSOLE_KEYS says what
 * follows. */
#pragma once

#include "hv/console/lines.h"
#include "hv/lib/lock.h"

struct vcpu;

enum console_listen {
    CONSOLE_LISTEN_NONE,
    CONSOLE_LISTEN_ROOM,  /* it has room for output, which shows whether interrupts arrive at all */
    CONSOLE_LISTEN_INPUT, /* somebody types */
};

/* The port (drivers/uart_hw.c). */
struct console_port {
    unsigned (*tx_room)(void); /* bytes that can be written now without waiting */
    void (*tx)(uint8_t byte);
    bool (*tx_idle)(void); /* everything has left the wire */
    int (*rx)(void);       /* a received byte, or -1 */
    /* Which interrupt it raises from now on. What it waits for may be so already. NULL: it raises none. */
    void (*listen)(enum console_listen what);
};

/* A copy of the output for the eyes of somebody without a serial port (drivers/fb). `put` gets what the wire
 * gets and is called with the console's lock held, for up to 16 bytes at a time: it only remembers. `refresh`
 * draws, from console_poll(), at most `budget` characters. */
struct console_screen {
    void (*put)(void *ctx, uint8_t byte);
    bool (*refresh)(void *ctx, unsigned budget); /* true: there is more to draw */
    void *ctx;
};

/* How often one CPU calls console_poll(), and how often while nothing moves and the port interrupts when
 * somebody types. */
#define CONSOLE_POLLS_PER_SECOND 1000u
#define CONSOLE_QUIET_PER_SECOND 100u

#define CONSOLE_RING  16384u /* bytes of output kept for a VM; a power of two */
#define CONSOLE_INPUT 1024u  /* typed bytes kept for a VM that does not take them; a power of two */

/* A VM's side of the console; struct vm has one. All zero is the empty one. */
struct console_vm {
    struct spinlock lock; /* guards the output; held for a few instructions. Inside the console's own lock */
    uint32_t head, tail;  /* free-running; head - tail bytes wait */
    uint32_t kept;        /* bytes up to `head` that are in the ring, those that were sent among them */
    uint64_t lost;        /* bytes that were overwritten and not yet reported */
    uint8_t ring[CONSOLE_RING];

    uint32_t input_head, input_tail; /* free-running; the CPU that polls */
    bool told_stopped; /* somebody typed and was told that it does not run. The CPU that polls */
    uint8_t input[CONSOLE_INPUT];
};

#define CONSOLE_KEY  0x01u /* Ctrl-A */
#define CONSOLE_KEYS "Ctrl-A 1..9: that VM; Ctrl-A h: Bulkhead's prompt; Ctrl-A a: a Ctrl-A for the guest"

/* Before lines that begin a scene: whatever a guest did to the terminal's colours ends there. */
#define CONSOLE_ATTRIBUTES_OFF "\033[0m"

void console_init(const struct console_port *port);
/* NULL: no screen. */
void console_set_screen(const struct console_screen *screen);

/* One byte from a guest's serial port. Any CPU that runs a vCPU of `vm`, under vm->devices. Never waits. */
void console_vm_put(struct vm *vm, uint8_t byte);
/* A VM begins a new life: what was shown of the one before is not shown again. Any CPU. */
void console_vm_begin(struct vm *vm);
/* VCPU_REQ_CONSOLE: the vCPU's VM is in front and prints faster than the wire. Holds up this vCPU, for at
 * most two milliseconds, and not beyond its next deadline or request. */
void console_throttle(struct vcpu *vcpu);

/* The core's own words, from any CPU: "\n" becomes CR LF. Never waits: what does not fit is left out. */
void console_write(const char *text);
/* A line (without its newline) that begins where a line begins. It is written whole or not at all; lines that
 * were left out are counted, and the log ring has them. */
void console_line(const char *line);
/* Shows what `lines` makes, when there is time for it and before anything the prompt prints; false: too many
 * wait already. For output that is too long for console_line(), e.g. a dump of a VM that has crashed. The
 * producer runs on the CPU that polls, so what it reads must stay as it is until then; console_flush() waits
 * for it. */
bool console_show(const struct lines *lines);

/* How many lines console_line() has written: the prompt draws itself anew when somebody else wrote. */
uint32_t console_lines(void);
/* Bytes of the core's own that still wait for the wire. */
size_t console_backlog(void);

/* Brings a VM to the front, with a banner, its last lines, and what it has printed meanwhile; NULL: nobody.
 * Leaves the prompt. Only the CPU that polls. */
void console_attach(struct vm *vm);
/* The VM in front; at the prompt the one that will be again. */
struct vm *console_front(void);
/* Somebody is at the prompt. Any CPU: an answer for now. */
bool console_at_prompt(void);
/* The digit that brings a VM to the front, 1..9. */
uint32_t console_digit(const struct vm *vm);
/* Brings the prompt to the front and takes it away; whoever was in front before is there again. Only the CPU
 * that polls. */
void console_enter_prompt(void);
void console_leave_prompt(void);

/* Drains output and takes input; called by one CPU, always the same, console_pause() after the last time.
 * Short, and waits for nobody. */
void console_poll(void);
/* TSC ticks. */
uint64_t console_pause(void);
/* The port's interrupts have a way to the CPU that polls: they are tried, and used once one has arrived. */
void console_listen(void);
/* One has arrived, at the CPU that polls; any context on it but console_poll(). The port is silent from here
 * on, and the poll is due. */
void console_interrupt(void);
/* Waits until all is on the wire (bounded: a few seconds at 115200 baud for full buffers). */
void console_flush(void);
/* The panic path: no locks. First what was still buffered, then directly to the port. */
void console_panic_begin(void);
void console_panic_write(const char *text);
void console_panic_flush(void); /* waits until it has left the wire, as long as that can take */
