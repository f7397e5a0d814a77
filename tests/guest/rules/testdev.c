/* The devices by which test kernels end and check a machine under QEMU (compat = qemu): hw/misc/pc-testdev.c,
 * hw/char/debugcon.c and hw/misc/debugexit.c describe them. The exit itself is the Multiboot guest's. */
#include "rules.h"

#define ECHO          0xe0u
#define FLUSH         0xe4u
#define DEBUG         0xe9u
#define EXIT          0xf4u
#define BIOS          0x402u
#define LINES         0x2000u
#define RAM           0xff000000ull
#define RAM_SIZE      0x10000u
#define READ_IRR      0x0au
#define SLAVE_LINES   0x0cu /* 10 and 11 */
#define VECTOR_MASTER 0x60u

/* A register of 32 bits that is reached in any part. */
static void echo(void)
{
    out32(ECHO, 0x12345678);
    check_equal(in32(ECHO), 0x12345678, "echo: 32 bits");
    check_equal(in16(ECHO), 0x5678, "echo: its low half");
    check_equal(in16(ECHO + 2), 0x1234, "echo: its high half");
    check_equal(in16(ECHO + 1), 0x3456, "echo: the middle");
    for (uint16_t i = 0; i < 4; i++)
        check_equal(in8(ECHO + i), 0x12345678u >> 8 * i & 0xff, "echo: a byte");
    out8(ECHO + 1, 0xab);
    check_equal(in32(ECHO), 0x1234ab78, "echo: a byte is written");
    out16(ECHO + 2, 0xcdef);
    check_equal(in32(ECHO), 0xcdefab78, "echo: half of it is written");
    out32(FLUSH, 0);
    check_equal(in32(ECHO), 0xcdefab78, "the flush port is another");
}

static void fixed(void)
{
    check_equal(in8(DEBUG), DEBUG, "the debug port reads its own number");
    check_equal(in8(BIOS), DEBUG, "and the firmware's the same");
    check_equal(in8(EXIT), 0, "a read of the exit port does not end the VM");
    check_equal(in32(EXIT), 0, "nor one of 32 bits");
}

static unsigned slave_irr(void)
{
    out8(PIC_SLAVE, READ_IRR);
    return in8(PIC_SLAVE) & SLAVE_LINES;
}

static void lines(void)
{
    pic_begin(VECTOR_MASTER, VECTOR_MASTER + 8);
    set_line(10, false);
    set_line(11, false);
    check_equal(slave_irr(), 0, "lines: low");
    out8(LINES + 10, 0x80);
    check_equal(slave_irr(), 0x04, "lines: anything but 0 is high");
    out16(LINES + 10, 0x0101);
    check_equal(slave_irr(), SLAVE_LINES, "lines: 16 bits are two of them");
    check_equal(in8(LINES + 10), 0, "lines: they cannot be read");
    set_line(10, false);
    set_line(11, false);
    check_equal(in8(LINES + 24), 0xff, "lines: 24, no more");
    pic_end();
}

#define CELL(type, at) (*(volatile type *)(RAM + (at)))

static void memory(void)
{
    CELL(uint64_t, 0x100) = 0x1122334455667788;
    check_equal(CELL(uint64_t, 0x100), 0x1122334455667788, "memory: 64 bits");
    check_equal(CELL(uint32_t, 0x102), 0x33445566, "memory: 32 of them");
    check_equal(CELL(uint16_t, 0x107), 0x0011, "memory: 16");
    CELL(uint8_t, 0x103) = 0xee;
    check_equal(CELL(uint64_t, 0x100), 0x11223344ee667788, "memory: a byte is written");
    CELL(uint8_t, 0) = 0x01;
    CELL(uint8_t, RAM_SIZE - 1) = 0x02;
    check(CELL(uint8_t, 0) == 0x01 && CELL(uint8_t, RAM_SIZE - 1) == 0x02,
          "memory: its first byte and its last");
    CELL(uint8_t, RAM_SIZE) = 0x03;
    check_equal(CELL(uint8_t, RAM_SIZE), 0xff, "memory: nothing behind it");
    check_equal(CELL(uint8_t, 0), 0x01, "memory: nor is it the beginning");
}

void rule_testdev(void)
{
    echo();
    fixed();
    lines();
    memory();
}
