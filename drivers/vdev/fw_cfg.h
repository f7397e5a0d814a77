/* QEMU's firmware configuration device (docs/specs/fw_cfg.rst), for `compat = qemu` and for a VM with a
 * firmware: items that a guest selects by a key and reads byte by byte. Files are found by name in a
 * directory. No DMA interface. */
#pragma once

#include "drivers/vdev/vdev.h"

#define FW_CFG_PORT       0x510u /* the selector, 16 bits, write-only; the data is at the next port */
#define FW_CFG_PORT_COUNT 2u
#define FW_CFG_NAME_MAX   56u    /* bytes of a file's name, with NUL */
#define FW_CFG_FILES_MAX  0x100u /* keys 0x20.. */

struct fw_cfg_file {
    const char *name;
    const uint8_t *data;
    uint32_t size; /* bytes */
};

struct fw_cfg {
    struct vdev dev;
    uint64_t ram_size; /* bytes; set before init, as is: */
    uint16_t cpus;
    uint16_t file_count; /* up to FW_CFG_FILES_MAX; constant while the VM runs, as is: */
    const struct fw_cfg_file *files;
    uint16_t key;
    uint32_t offset; /* of the next byte */
};

extern const struct vdev_ops fw_cfg_ops;
