/* The devices with which test kernels end and check a machine under QEMU, for `compat = qemu`:
 *   0xe0..0xe3      pc-testdev: a 32-bit register that reads back what was written, in any part
 *   0xe4..0xe7      pc-testdev: flushes a page's translation
 *   0xe9            isa-debugcon: bytes for the VM's console; reads 0xe9
 *   0x402           the same for a firmware's messages, shown by lines: meanwhile it writes to a screen
 *   0xf4..0xf7      isa-debug-exit: a write ends the VM with a code; reads 0
 *   0x2000..0x2017  pc-testdev: level of interrupt line n
 *   0xff000000      pc-testdev: 64 KiB of memory that is reached by emulated accesses only
 *
 * and one that QEMU has not:
 *   0x2020..0x2027  address (32 bits) and data of an MSI
 *   0x2028          a write of 32 bits raises it as a device of the machine would, or with bit 0 clear does
 *                   all but that: so what such an interrupt costs can be measured where no device is */
#pragma once

#include "drivers/vdev/vdev.h"

#define TESTDEV_ECHO_PORT  0xe0u
#define TESTDEV_FLUSH_PORT 0xe4u
#define TESTDEV_DEBUG_PORT 0xe9u
#define TESTDEV_BIOS_PORT  0x402u
#define TESTDEV_LINE_MAX   128u
#define TESTDEV_EXIT_PORT  0xf4u
#define TESTDEV_WIDE_PORTS 4u /* at each of the echo, flush and exit ports */
#define TESTDEV_IRQ_PORT   0x2000u
#define TESTDEV_LINES      24u
#define TESTDEV_MSI_PORT   0x2020u /* 8 bytes of message, then: */
#define TESTDEV_MSI_RAISE  0x2028u
#define TESTDEV_MSI_PORTS  12u
#define TESTDEV_RAM        0xff000000ull
#define TESTDEV_RAM_SIZE   0x10000u

struct testdev {
    struct vdev dev;
    uint8_t *ram; /* TESTDEV_RAM_SIZE bytes; set before init */
    void (*leave)(void *ctx, uint32_t code);
    void *leave_ctx;
    void (*send_msi)(void *ctx, uint32_t address, uint32_t data, bool raise); /* under the device lock */
    void *send_ctx;
    uint32_t lines; /* bit n: interrupt line n is held high */
    uint8_t echo[TESTDEV_WIDE_PORTS];
    uint8_t message[TESTDEV_MSI_RAISE - TESTDEV_MSI_PORT];
    uint8_t line_length;
    uint8_t line[TESTDEV_LINE_MAX]; /* of the firmware's messages, as far as it is known */
};

extern const struct vdev_ops testdev_ops;
