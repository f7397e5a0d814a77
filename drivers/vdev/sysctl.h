/* The small system ports of a PC: port 0x92 (system control port A), the reset control register 0xCF9 (PIIX3
 * and later), the POST code port 0x80 and the delay port 0xED. */
#pragma once

#include "drivers/vdev/vdev.h"

#define SYSCTL_POST_PORT   0x80u
#define SYSCTL_PORT_A      0x92u
#define SYSCTL_DELAY_PORT  0xedu
#define SYSCTL_RESET_PORT  0xcf9u /* byte accesses only: dwords at 0xcf8 are PCI's */
#define SYSCTL_RESET_VALUE 0x0eu  /* full reset; for the FADT's RESET_VALUE */

struct sysctl {
    struct vdev dev;
    uint8_t port_a;
    uint8_t reset_control;
    uint8_t post; /* last POST code */
};

extern const struct vdev_ops sysctl_ops;
