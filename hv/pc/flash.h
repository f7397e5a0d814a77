/* The ROM area of a VM with a firmware: its flash image just below 4 GiB, and C0000..FFFFF, where the
 * chipset's attribute map chooses between the flash's last 128 KiB and RAM (drivers/vdev/i440fx.h). The guest
 * reads and runs both without an exit; what it writes to ROM comes to a device, which ignores it. */
#pragma once

#include "drivers/vdev/vdev.h"

struct vm;

/* Pages of ROM that the processor itself may have written to, in one life of a VM. */
#define FLASH_COPIES 4u

struct flash_copy {
    uint64_t gpa, rom; /* of the page, and of what it is a copy of in host memory */
    void *page;        /* in the pool; NULL: unused */
};

struct flash {
    struct vdev dev;
    struct flash_copy copies[FLASH_COPIES];
};

extern const struct vdev_ops flash_ops;

/* For a VM with a firmware, once, when its RAM is mapped: maps the flash, and shows it in the ROM area. */
enum status flash_create(struct vm *vm);
/* `changed` of struct i440fx, with the VM as its ctx. */
void flash_changed(void *vm, unsigned segment, uint8_t attributes);
/* The pristine image is seen again everywhere; before a life. */
void flash_restore(struct vm *vm);
/* The processor writes to a descriptor or a page table in ROM: the accessed and busy bits of what it loads,
 * with any instruction. A chipset would ignore the write; here the page becomes RAM, a copy, for the rest of
 * this life, as the instruction cannot go on without it. False: it is no ROM, or there are too many. */
bool flash_take_write(struct vm *vm, gpa_t at);
/* Claims what the device answers. */
enum status flash_claim(struct vm *vm);
