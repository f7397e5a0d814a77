/* The keyboard controller: the 8042's data sheet and IBM's "PS/2 Hardware Interface Technical Reference",
 * "Keyboard and Auxiliary Device Controller"; behind it a keyboard ("101- and 102-Key Keyboard"), whose IRQ
 * is 1. Commands that reset the machine are the raw image's (tests/guest/raw). */
#include "rules.h"

#define DATA    0x60u
#define CONTROL 0x64u

#define STATUS_FULL     0x01u
#define STATUS_INPUT    0x02u
#define STATUS_SYSTEM   0x04u
#define STATUS_COMMAND  0x08u
#define STATUS_UNLOCKED 0x10u
#define STATUS_TIMEOUT  0x40u

#define BYTE_INTERRUPT 0x01u
#define BYTE_SYSTEM    0x04u
#define BYTE_DISABLE   0x10u
#define BYTE_NO_MOUSE  0x20u
#define BYTE_TRANSLATE 0x40u
#define BYTE_PLAIN     (BYTE_SYSTEM | BYTE_NO_MOUSE)

#define READ_BYTE     0x20u
#define WRITE_BYTE    0x60u
#define LAST_CELL     0x1fu /* of the controller's memory; the first is the command byte */
#define PASSWORD      0xa4u
#define MOUSE_DISABLE 0xa7u
#define MOUSE_ENABLE  0xa8u
#define MOUSE_TEST    0xa9u
#define SELF_TEST     0xaau
#define KEY_TEST      0xabu
#define KEY_DISABLE   0xadu
#define KEY_ENABLE    0xaeu
#define READ_INPUT    0xc0u
#define READ_OUTPUT   0xd0u
#define WRITE_OUTPUT  0xd1u
#define WRITE_BUFFER  0xd2u
#define WRITE_MOUSE   0xd4u
#define PULSE_NONE    0xffu

#define OUTPUT_RUN  0x01u /* 0 resets the processor */
#define OUTPUT_A20  0x02u
#define OUTPUT_FULL 0x10u

#define ACK           0xfau
#define RESEND        0xfeu
#define VECTOR_MASTER 0x60u
#define VECTOR_KEY    0x61u
#define MIB           0x100000u

static uint8_t status(void)
{
    return in8(CONTROL);
}

static void command(uint8_t c)
{
    out8(CONTROL, c);
}

/* A command with its data byte. */
static void command_with(uint8_t c, uint8_t v)
{
    out8(CONTROL, c);
    out8(DATA, v);
}

/* A controller's command and its answer. */
static uint8_t ask(uint8_t c)
{
    out8(CONTROL, c);
    return in8(DATA);
}

/* All bytes that wait, the first in the highest byte; 0 for none. */
static uint64_t answers(void)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < 8 && (status() & STATUS_FULL); i++)
        all = all << 8 | in8(DATA);
    return all;
}

/* A byte to the keyboard, and all that it answers. */
static uint64_t key(uint8_t v)
{
    out8(DATA, v);
    return answers();
}

/* As firmware leaves it. */
static void beginning(void)
{
    check_equal(status() & (STATUS_FULL | STATUS_INPUT | STATUS_TIMEOUT), 0, "status: nothing waits");
    check_equal(status() & (STATUS_SYSTEM | STATUS_UNLOCKED), STATUS_SYSTEM | STATUS_UNLOCKED,
                "status: tested, not locked");
    check_equal(ask(READ_BYTE) & (BYTE_SYSTEM | BYTE_TRANSLATE | BYTE_DISABLE), BYTE_SYSTEM | BYTE_TRANSLATE,
                "command byte: tested, translating, the keyboard on");
}

static void tests(void)
{
    check_equal(ask(SELF_TEST), 0x55, "the self-test passes");
    check_equal(status() & STATUS_SYSTEM, STATUS_SYSTEM, "and sets the system flag");
    check_equal(ask(KEY_TEST), 0, "the keyboard's lines are good");
    check(ask(MOUSE_TEST) != 0, "the mouse's are not: there is none");
    check_equal(ask(PASSWORD), 0xf1, "no password is installed");
    check_equal(ask(READ_INPUT) & 0x80, 0x80, "input port: not locked");
    check_equal(answers(), 0, "one answer each");
}

static void states(void)
{
    command(READ_BYTE);
    check_equal(status() & (STATUS_FULL | STATUS_COMMAND), STATUS_FULL | STATUS_COMMAND,
                "status: an answer waits; the last write was a command");
    in8(DATA);
    check_equal(status() & STATUS_FULL, 0, "status: a read takes the answer");
    command_with(WRITE_BYTE, BYTE_PLAIN);
    check_equal(status() & (STATUS_FULL | STATUS_COMMAND), 0,
                "status: the last write was data, which has no answer");
    command_with(WRITE_BYTE, BYTE_NO_MOUSE);
    check_equal(status() & STATUS_SYSTEM, 0, "status: the system flag is the command byte's");
    command_with(WRITE_BYTE, BYTE_PLAIN);
    check_equal(status() & STATUS_SYSTEM, STATUS_SYSTEM, "status: and comes back with it");
    command(PULSE_NONE);
    check_equal(status() & STATUS_FULL, 0, "a pulse of no line does nothing");
}

static void memory(void)
{
    command_with(WRITE_BYTE, BYTE_PLAIN | BYTE_TRANSLATE);
    check_equal(ask(READ_BYTE), BYTE_PLAIN | BYTE_TRANSLATE, "the command byte reads back");
    command_with(WRITE_BYTE, BYTE_PLAIN);
    check_equal(ask(READ_BYTE), BYTE_PLAIN, "and again");
    command(KEY_DISABLE);
    check_equal(ask(READ_BYTE), BYTE_PLAIN | BYTE_DISABLE, "a disabled keyboard is seen in the command byte");
    command(KEY_ENABLE);
    check_equal(ask(READ_BYTE), BYTE_PLAIN, "and an enabled one");
    command(MOUSE_ENABLE);
    check_equal(ask(READ_BYTE), BYTE_SYSTEM, "an enabled mouse, too");
    command(MOUSE_DISABLE);
    check_equal(ask(READ_BYTE), BYTE_PLAIN, "and a disabled one");
    command_with(WRITE_BYTE | LAST_CELL, 0xa5);
    check_equal(ask(READ_BYTE | LAST_CELL), 0xa5, "the last cell of its memory");
    check_equal(ask(READ_BYTE), BYTE_PLAIN, "which is not the first");
}

/* Two addresses that A20 tells apart, and only it does. */
static bool apart(void)
{
    volatile uint32_t *low = (volatile uint32_t *)(4ul * MIB), *high = (volatile uint32_t *)(5ul * MIB);
    uint32_t before_low = *low, before_high = *high;
    *low = 1;
    *high = 2;
    bool good = *low == 1 && *high == 2;
    *low = before_low;
    *high = before_high;
    return good;
}

static void output_port(void)
{
    check_equal(ask(READ_OUTPUT) & (OUTPUT_RUN | OUTPUT_A20), OUTPUT_RUN | OUTPUT_A20,
                "output port: it runs, A20 is on");
    command_with(WRITE_OUTPUT, OUTPUT_RUN);
    check_equal(ask(READ_OUTPUT) & (OUTPUT_RUN | OUTPUT_A20), OUTPUT_RUN, "A20 off reads back");
    check(apart(), "but address line 20 is never masked: no guest starts without it");
    command_with(WRITE_OUTPUT, OUTPUT_RUN | OUTPUT_A20);
    check_equal(ask(READ_OUTPUT) & (OUTPUT_RUN | OUTPUT_A20), OUTPUT_RUN | OUTPUT_A20, "A20 on again");
    command_with(WRITE_BUFFER, 0x5a);
    check_equal(status() & STATUS_FULL, STATUS_FULL, "a byte in the output buffer, by the controller");
    command(READ_OUTPUT);
    check_equal(in8(DATA), 0x5a, "which the next answer does not overtake");
    check_equal(in8(DATA) & OUTPUT_FULL, OUTPUT_FULL, "output port: it was full");
    check_equal(ask(READ_OUTPUT) & OUTPUT_FULL, 0, "output port: it is empty");
}

static void no_mouse(void)
{
    command_with(WRITE_MOUSE, 0xff);
    check_equal(status() & (STATUS_FULL | STATUS_TIMEOUT), STATUS_FULL | STATUS_TIMEOUT,
                "a mouse that is not there: timeout");
    check_equal(in8(DATA), RESEND, "and its byte");
    command(KEY_TEST);
    check_equal(status() & STATUS_TIMEOUT, 0, "the next answer has no timeout");
    in8(DATA);
}

static void keyboard(void)
{
    command_with(WRITE_BYTE, BYTE_PLAIN);
    check_equal(key(0xff), ACK << 8 | 0xaa, "keyboard: reset");
    check_equal(key(0xee), 0xee, "keyboard: echo");
    check_equal(key(0xfe), 0xee, "keyboard: resend, of what came last");
    check_equal(key(0xf2), ACK << 16 | 0xab83, "keyboard: it identifies itself");
    check_equal(key(0xed), ACK, "keyboard: lights");
    check_equal(key(0x07), ACK, "keyboard: which");
    check_equal(key(0xf3), ACK, "keyboard: rate");
    check_equal(key(0x00), ACK, "keyboard: which");
    check_equal(key(0xf0), ACK, "keyboard: scan codes");
    check_equal(key(0x00), ACK << 8 | 2, "keyboard: set 2 by itself");
    key(0xf0);
    check_equal(key(0x01), ACK, "keyboard: set 1");
    key(0xf0);
    check_equal(key(0x00), ACK << 8 | 1, "keyboard: now it is set 1");
    check_equal(key(0xf6), ACK, "keyboard: defaults");
    key(0xf0);
    check_equal(key(0x00), ACK << 8 | 2, "keyboard: set 2 again");
    check_equal(key(0xf5), ACK, "keyboard: off");
    check_equal(key(0xf4), ACK, "keyboard: on");
    check_equal(key(0xef), RESEND, "keyboard: a command it does not know");
    key(0xed);
    check_equal(key(0xee), 0xee, "keyboard: a command in place of the lights");
    check_equal(key(0x07), RESEND, "keyboard: which ended the command before");
    command_with(WRITE_BYTE, BYTE_PLAIN | BYTE_TRANSLATE);
    check_equal(key(0xf2), ACK << 16 | 0xab41, "keyboard: its bytes are translated to set 1");
    command_with(WRITE_BYTE, BYTE_PLAIN);
}

/* Its lines are held: its bytes wait. */
static void held(void)
{
    command_with(WRITE_BUFFER, 0x11);
    out8(DATA, 0xee);
    command(KEY_DISABLE);
    check_equal(in8(DATA), 0x11, "the buffer's byte first");
    check_equal(status() & STATUS_FULL, 0, "a disabled keyboard says nothing");
    command(KEY_ENABLE);
    check_equal(answers(), 0xee, "enabled, it says what waited");
    command(KEY_DISABLE);
    check_equal(key(0xee), 0xee, "a byte for the keyboard enables it");
    check_equal(ask(READ_BYTE), BYTE_PLAIN, "and the command byte says so");
}

static void interrupts(void)
{
    pic_begin(VECTOR_MASTER, VECTOR_MASTER + 8);
    out8(PIC_MASTER_DATA, 0xfd);
    command_with(WRITE_BUFFER, 0x22);
    check_equal(taken(), 0, "no interrupt without its bit in the command byte");
    command_with(WRITE_BYTE, BYTE_PLAIN | BYTE_INTERRUPT);
    check_equal(taken(), VECTOR_KEY, "IRQ 1, as soon as it is allowed");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), 0, "once for a byte");
    check_equal(answers(), 0x22, "the byte is still there");
    check_equal(taken(), 0, "none for nothing");
    command_with(WRITE_BUFFER, 0x33);
    check_equal(taken(), VECTOR_KEY, "IRQ 1 by the controller's byte");
    out8(PIC_MASTER, PIC_EOI);
    in8(DATA);
    out8(DATA, 0xff);
    check_equal(taken(), VECTOR_KEY, "IRQ 1 by the keyboard's first byte");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(in8(DATA), ACK, "which is its ACK");
    check_equal(taken(), VECTOR_KEY, "IRQ 1 by its second, when the first is read");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(in8(DATA), 0xaa, "which says that its test passed");
    check_equal(taken(), 0, "and that was all");
    pic_end();
}

void rule_kbd(void)
{
    beginning();
    tests();
    states();
    memory();
    output_port();
    no_mouse();
    keyboard();
    held();
    interrupts();
    command_with(WRITE_BYTE, BYTE_PLAIN | BYTE_TRANSLATE);
}
