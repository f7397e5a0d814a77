/* The 8042 keyboard controller and a PS/2 keyboard behind it. There is no auxiliary (mouse) port. */
#pragma once

#include "drivers/vdev/vdev.h"

#define KBD_DATA_PORT    0x60u
#define KBD_COMMAND_PORT 0x64u
#define KBD_IRQ          1u
#define KBD_QUEUE_SIZE   16u
#define KBD_RAM_SIZE     32u

struct kbd {
    struct vdev dev;
    /* Controller. ram[0] is the command byte. */
    uint8_t ram[KBD_RAM_SIZE];
    uint8_t output;      /* output buffer */
    uint8_t status;      /* bits 0, 2, 3, 6 of the status register */
    uint8_t output_port; /* bits 1:0: reset (active low), A20 */
    uint8_t pending;     /* command that waits for its data byte, 0 = none */
    uint8_t reply;       /* answer of the controller that waits for the output buffer */
    bool has_reply, reply_timeout;
    bool breaking; /* translation: the last byte was the break prefix */
    bool line;     /* level of IRQ 1 */
    /* Keyboard. */
    uint8_t key_command;  /* keyboard command that waits for its data byte, 0 = none */
    uint8_t scancode_set; /* 1 or 2 */
    uint8_t leds;
    uint8_t last_sent;
    bool scanning;
    uint8_t queue[KBD_QUEUE_SIZE];
    uint8_t head, count;
};

extern const struct vdev_ops kbd_ops;

/* A key goes down or up. `code` is its make code in scan code set 2 (1..0x83), `extended` those that E0
 * precedes. False: not taken (scanning is off, or the queue is full). */
bool kbd_key(struct kbd *kbd, uint8_t code, bool extended, bool down);
