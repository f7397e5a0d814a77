/* A VM's ramdisks: files that the loader read into memory, behind an emulated IDE controller. */
#pragma once

#include "hv/vm.h"

/* Adds the controller, when the VM has disks, after platform_init(). ERR_* with a sentence in `why`; what was
 * taken is given back by vm_disks_destroy(). */
enum status vm_disks_create(struct vm *vm, char *why, size_t why_size);
void vm_disks_destroy(struct vm *vm);
