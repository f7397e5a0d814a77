/* The ROM area of a VM with a firmware: its flash image just below 4 GiB, and C0000..FFFFF, where the
 * chipset's attribute map chooses between the flash's last 128 KiB and RAM (drivers/vdev/i440fx.h). The guest
 * reads and runs both without an exit; what it writes to ROM comes to a device. */
#pragma once

#include "drivers/vdev/vdev.h"

struct vm;

extern const struct vdev_ops flash_ops;

/* For a VM with a firmware, once, when its RAM is mapped: maps the flash, and shows it in the ROM area. */
enum status flash_create(struct vm *vm);
/* `changed` of struct i440fx, with the VM as its ctx. */
void flash_changed(void *vm, unsigned segment, uint8_t attributes);
/* Claims what the device answers. */
enum status flash_claim(struct vm *vm);
