#include "drivers/vdev/kbd.h"
#include "hv/lib/string.h"

/* Status register. */
#define STATUS_OBF      0x01u
#define STATUS_SYS      0x04u
#define STATUS_COMMAND  0x08u /* the last write went to the command port */
#define STATUS_UNLOCKED 0x10u
#define STATUS_TIMEOUT  0x40u

/* Command byte, ram[0]. */
#define CB_KBD_INT     0x01u
#define CB_SYS         0x04u
#define CB_KBD_DISABLE 0x10u
#define CB_AUX_DISABLE 0x20u
#define CB_TRANSLATE   0x40u

/* Output port. */
#define OUT_NOT_RESET 0x01u
#define OUT_A20       0x02u
#define OUT_KBD_FULL  0x10u
#define OUT_LINES     0xc0u /* keyboard clock and data */
/* Input port: the keyboard is not locked, colour display. */
#define INPUT_PORT 0xc0u

enum controller_command {
    CMD_READ_RAM = 0x20,  /* .. 0x3f */
    CMD_WRITE_RAM = 0x60, /* .. 0x7f */
    CMD_TEST_PASSWORD = 0xa4,
    CMD_AUX_DISABLE = 0xa7,
    CMD_AUX_ENABLE = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KBD_TEST = 0xab,
    CMD_KBD_DISABLE = 0xad,
    CMD_KBD_ENABLE = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_WRITE_KBD_BUFFER = 0xd2,
    CMD_WRITE_AUX_BUFFER = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_READ_TEST = 0xe0,
    CMD_PULSE = 0xf0, /* .. 0xff: bits 3:0 say which output port lines are NOT pulsed low */
};
#define RAM_INDEX         0x1fu
#define REPLY_SELF_TEST   0x55u
#define REPLY_KBD_TEST    0x00u
#define REPLY_AUX_TEST    0x03u /* data line stuck low: nothing is connected */
#define REPLY_NO_PASSWORD 0xf1u
#define REPLY_NO_AUX      0xfeu

enum keyboard_command {
    KEY_SET_LEDS = 0xed,
    KEY_ECHO = 0xee,
    KEY_SCANCODE_SET = 0xf0,
    KEY_IDENTIFY = 0xf2,
    KEY_SET_RATE = 0xf3,
    KEY_ENABLE = 0xf4,
    KEY_DISABLE = 0xf5,
    KEY_DEFAULTS = 0xf6,
    KEY_RESEND = 0xfe,
    KEY_RESET = 0xff,
};
#define KEY_FIRST_COMMAND KEY_SET_LEDS
#define KEY_ACK           0xfau
#define KEY_NAK           0xfeu /* "resend": also the answer to what it does not know */
#define KEY_TEST_PASSED   0xaau
#define KEY_ID_LOW        0xabu
#define KEY_ID_HIGH       0x83u
#define KEY_EXTENDED      0xe0u
#define KEY_BREAK         0xf0u
#define SET1_BREAK        0x80u /* set 1 marks the break in the code itself */
#define LED_ALL           0x07u
#define DEFAULT_SET       2u
/* A key's code is at most E0 F0 code; replies are at most three bytes. */
#define SEQUENCE_MAX 3u

/* Scan code set 2 to set 1, for 0x00..0x84; what lies above is passed as it is. */
static const uint8_t translation[] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
    0x80, 0x81, 0x82, 0x41, 0x54,                                                                   /* 80 */
};

static struct kbd *kbd_of(struct vdev *dev)
{
    return container_of(dev, struct kbd, dev);
}

static uint8_t to_set1(uint8_t code)
{
    return code < sizeof(translation) ? translation[code] : code;
}

static void update_line(struct kbd *k)
{
    bool line = (k->status & STATUS_OBF) && (k->ram[0] & CB_KBD_INT);
    if (line != k->line) {
        k->line = line;
        vdev_set_irq(&k->dev, KBD_IRQ, line);
    }
}

/* A byte from the keyboard enters the controller. False: translation swallowed it (the break prefix). */
static bool accept_key_byte(struct kbd *k, uint8_t byte)
{
    if (!(k->ram[0] & CB_TRANSLATE)) {
        k->breaking = false;
    } else if (byte == KEY_BREAK) {
        k->breaking = true;
        return false;
    } else {
        byte = to_set1(byte);
        byte |= k->breaking ? SET1_BREAK : 0;
        k->breaking = false;
    }
    k->output = byte;
    return true;
}

/* Fills the output buffer when it is free: answers of the controller first. */
static void fill_output(struct kbd *k)
{
    while (!(k->status & STATUS_OBF)) {
        if (k->has_reply) {
            k->has_reply = false;
            k->output = k->reply;
            k->status = (k->status & (uint8_t)~STATUS_TIMEOUT) | (k->reply_timeout ? STATUS_TIMEOUT : 0);
        } else if (k->count && !(k->ram[0] & CB_KBD_DISABLE)) {
            uint8_t byte = k->queue[k->head];
            k->head = (k->head + 1) % KBD_QUEUE_SIZE;
            k->count--;
            if (!accept_key_byte(k, byte))
                continue;
            k->status &= (uint8_t)~STATUS_TIMEOUT;
        } else {
            break;
        }
        k->status |= STATUS_OBF;
    }
    update_line(k);
}

static void reply(struct kbd *k, uint8_t byte)
{
    k->reply = byte;
    k->has_reply = true;
    k->reply_timeout = false;
}

/* The keyboard's side. A reply that does not fit is lost, as when a program does not read the answers. */
static void send(struct kbd *k, uint8_t byte)
{
    if (k->count == KBD_QUEUE_SIZE)
        return;
    k->queue[(k->head + k->count) % KBD_QUEUE_SIZE] = byte;
    k->count++;
    k->last_sent = byte;
}

static void set_defaults(struct kbd *k)
{
    k->scancode_set = DEFAULT_SET;
}

static void key_argument(struct kbd *k, uint8_t command, uint8_t value)
{
    switch (command) {
    case KEY_SET_LEDS:
        k->leds = value & LED_ALL;
        send(k, KEY_ACK);
        break;
    case KEY_SCANCODE_SET:
        /* Set 3 is an option of the PS/2 keyboards, which this one lacks. */
        if (value > 2) {
            send(k, KEY_NAK);
            break;
        }
        send(k, KEY_ACK);
        if (value == 0)
            send(k, k->scancode_set);
        else
            k->scancode_set = value;
        break;
    default: /* typematic rate: no key repeats by itself */
        send(k, KEY_ACK);
        break;
    }
}

static void key_command(struct kbd *k, uint8_t command)
{
    switch (command) {
    case KEY_ECHO:
        send(k, KEY_ECHO);
        return;
    case KEY_RESEND:
        send(k, k->last_sent);
        return;
    case KEY_SET_LEDS:
    case KEY_SCANCODE_SET:
    case KEY_SET_RATE:
        k->key_command = command;
        break;
    case KEY_IDENTIFY:
        send(k, KEY_ACK);
        send(k, KEY_ID_LOW);
        send(k, KEY_ID_HIGH);
        return;
    case KEY_ENABLE:
        k->scanning = true;
        break;
    case KEY_DISABLE:
        k->scanning = false;
        set_defaults(k);
        break;
    case KEY_DEFAULTS:
        set_defaults(k);
        break;
    case KEY_RESET:
        k->count = 0;
        k->leds = 0;
        k->scanning = true;
        set_defaults(k);
        send(k, KEY_ACK);
        send(k, KEY_TEST_PASSED);
        return;
    default:
        send(k, KEY_NAK);
        return;
    }
    send(k, KEY_ACK);
}

static void write_keyboard(struct kbd *k, uint8_t value)
{
    uint8_t command = k->key_command;
    k->key_command = 0;
    /* A command in place of an argument cancels the command before. */
    if (command && value < KEY_FIRST_COMMAND)
        key_argument(k, command, value);
    else
        key_command(k, value);
}

bool kbd_key(struct kbd *k, uint8_t code, bool extended, bool down)
{
    if (!k->scanning || code == 0 || KBD_QUEUE_SIZE - k->count < SEQUENCE_MAX)
        return false;
    if (extended)
        send(k, KEY_EXTENDED);
    if (k->scancode_set == 1) {
        send(k, to_set1(code) | (down ? 0 : SET1_BREAK));
    } else {
        if (!down)
            send(k, KEY_BREAK);
        send(k, code);
    }
    fill_output(k);
    return true;
}

static void write_output_port(struct kbd *k, uint8_t value)
{
    k->output_port = value & (OUT_NOT_RESET | OUT_A20);
    if (!(value & OUT_NOT_RESET))
        k->dev.env->power(k->dev.env->ctx, VDEV_INIT);
}

static uint8_t read_output_port(const struct kbd *k)
{
    return k->output_port | OUT_LINES | (k->status & STATUS_OBF ? OUT_KBD_FULL : 0);
}

static void write_ram(struct kbd *k, uint8_t index, uint8_t value)
{
    k->ram[index] = value;
    if (index == 0)
        k->status = (k->status & (uint8_t)~STATUS_SYS) | (value & CB_SYS ? STATUS_SYS : 0);
}

static void self_test(struct kbd *k)
{
    write_ram(k, 0, k->ram[0] | CB_SYS | CB_KBD_DISABLE | CB_AUX_DISABLE);
    reply(k, REPLY_SELF_TEST);
}

static void simple_command(struct kbd *k, uint8_t command)
{
    switch (command) {
    case CMD_TEST_PASSWORD:
        reply(k, REPLY_NO_PASSWORD);
        break;
    case CMD_AUX_DISABLE:
        k->ram[0] |= CB_AUX_DISABLE;
        break;
    case CMD_AUX_ENABLE:
        k->ram[0] &= (uint8_t)~CB_AUX_DISABLE;
        break;
    case CMD_AUX_TEST:
        reply(k, REPLY_AUX_TEST);
        break;
    case CMD_SELF_TEST:
        self_test(k);
        break;
    case CMD_KBD_TEST:
        reply(k, REPLY_KBD_TEST);
        break;
    case CMD_KBD_DISABLE:
        k->ram[0] |= CB_KBD_DISABLE;
        break;
    case CMD_KBD_ENABLE:
        k->ram[0] &= (uint8_t)~CB_KBD_DISABLE;
        break;
    case CMD_READ_INPUT:
        reply(k, INPUT_PORT);
        break;
    case CMD_READ_OUTPUT:
        reply(k, read_output_port(k));
        break;
    case CMD_READ_TEST:
        reply(k, 0);
        break;
    case CMD_WRITE_OUTPUT:
    case CMD_WRITE_KBD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
    case CMD_WRITE_AUX:
        k->pending = command;
        break;
    default: /* unknown commands do nothing */
        break;
    }
}

static void write_command(struct kbd *k, uint8_t command)
{
    k->status |= STATUS_COMMAND;
    k->pending = 0;
    if (command >= CMD_PULSE) {
        if (!(command & OUT_NOT_RESET))
            k->dev.env->power(k->dev.env->ctx, VDEV_INIT);
    } else if ((command & (uint8_t)~RAM_INDEX) == CMD_READ_RAM) {
        reply(k, k->ram[command & RAM_INDEX]);
    } else if ((command & (uint8_t)~RAM_INDEX) == CMD_WRITE_RAM) {
        k->pending = command;
    } else {
        simple_command(k, command);
    }
    fill_output(k);
}

static void write_data(struct kbd *k, uint8_t value)
{
    uint8_t command = k->pending;
    k->status &= (uint8_t)~STATUS_COMMAND;
    k->pending = 0;
    switch (command) {
    case 0:
        k->ram[0] &= (uint8_t)~CB_KBD_DISABLE; /* the controller enables the keyboard to talk to it */
        write_keyboard(k, value);
        break;
    case CMD_WRITE_OUTPUT:
        write_output_port(k, value);
        break;
    case CMD_WRITE_KBD_BUFFER:
    case CMD_WRITE_AUX_BUFFER: /* without an AUX port there is nothing to mark the byte with */
        reply(k, value);
        break;
    case CMD_WRITE_AUX:
        reply(k, REPLY_NO_AUX);
        k->reply_timeout = true;
        break;
    default:
        write_ram(k, command & RAM_INDEX, value);
        break;
    }
    fill_output(k);
}

static uint8_t read_data(struct kbd *k)
{
    uint8_t value = k->output;
    if (k->status & STATUS_OBF) {
        k->status &= (uint8_t)~STATUS_OBF;
        update_line(k); /* low first: the next byte is a new edge */
        fill_output(k);
    }
    return value;
}

static void kbd_access(struct vdev *dev, struct io_req *req)
{
    struct kbd *k = kbd_of(dev);
    if (req->size != 1) {
        vdev_split_bytes(dev, req);
    } else if (req->addr == KBD_DATA_PORT) {
        if (req->write)
            write_data(k, (uint8_t)req->value);
        else
            req->value = read_data(k);
    } else if (req->addr == KBD_COMMAND_PORT) {
        if (req->write)
            write_command(k, (uint8_t)req->value);
        else
            req->value = k->status | STATUS_UNLOCKED;
    } else if (!req->write) {
        req->value = 0xff;
    }
}

static void kbd_reset(struct vdev *dev)
{
    struct kbd *k = kbd_of(dev);
    memset(k->ram, 0, sizeof(k->ram));
    /* As firmware leaves it, since none runs: tested, keyboard on, translating, no AUX. */
    k->status = 0;
    write_ram(k, 0, CB_SYS | CB_TRANSLATE | CB_AUX_DISABLE);
    k->output = k->pending = k->reply = 0;
    k->output_port = OUT_NOT_RESET | OUT_A20;
    k->has_reply = k->reply_timeout = k->breaking = k->line = false;
    k->key_command = k->leds = k->last_sent = 0;
    k->scanning = true;
    k->head = k->count = 0;
    set_defaults(k);
    vdev_set_irq(dev, KBD_IRQ, false);
}

const struct vdev_ops kbd_ops = {
    .name = "kbd",
    .init = kbd_reset,
    .reset = kbd_reset,
    .access = kbd_access,
};
