/* QEMU's firmware configuration device (docs/specs/fw_cfg.rst), for `compat = qemu`: items that a guest
 * selects by a key and reads byte by byte. No DMA interface, no files. */
#pragma once

#include "drivers/vdev/vdev.h"

#define FW_CFG_PORT       0x510u /* the selector, 16 bits, write-only; the data is at the next port */
#define FW_CFG_PORT_COUNT 2u

struct fw_cfg {
    struct vdev dev;
    uint64_t ram_size; /* bytes; set before init, as is: */
    uint16_t cpus;
    uint16_t key;
    uint32_t offset; /* of the next byte */
};

extern const struct vdev_ops fw_cfg_ops;
