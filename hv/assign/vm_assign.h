/* All devices of the machine that one VM has: made with the VM, handed over at each start, taken back at each
 * stop. A VM without any has no struct vm_assign, and none of this costs it anything. */
#pragma once

#include "hv/assign/vm_device.h"

struct vm_assign {
    uint32_t pages;             /* C. that this takes */
    uint32_t made;              /* C. devices for which vm_device_create() was called */
    uint32_t count;             /* C */
    struct iommu_domain domain; /* C. the VM's memory, as the devices see it */
    struct vdev window; /* answers in the part of the PCI window where the devices are; times their resets */
    struct vpci_window used[VPCI_WINDOWS]; /* C. where BARs are, and can be moved; the guest's _CRS says so */
    struct vm_device devices[];
};

/* The devices that vm->config asks for. The VM's memory, vCPUs and platform are there. ERR_* with a sentence
 * in `why`: nothing is kept. Boot CPU. */
enum status vm_assign_create(struct vm *vm, char *why, size_t size);
/* Gives back what vm_assign_create() took; the VM never ran. */
void vm_assign_destroy(struct vm *vm);
/* The VM starts: every device is handed over, with a line in the log, or none. A CPU without a vCPU. */
enum status vm_assign_start(struct vm *vm, char *why, size_t size);
/* The VM has ended, no vCPU of it runs: every device is taken back, and the VM's memory is to be zeroed
 * before it is used again. */
void vm_assign_stop(struct vm *vm);
/* Resets of the VM's devices go on when they are due. After each step of one; device lock. */
void vm_assign_set_timer(struct vm *vm);
/* Is this function one of the VM's? */
bool vm_assign_owns(const struct vm *vm, uint16_t bdf);
/* The device with this requester id, of whatever VM, or NULL. */
struct vm_device *vm_assign_find(uint16_t bdf);
/* The whole function of a VM's that may be speaking under a requester id that is nobody's: NULL when there is
 * none, or when VMs share the place that it would come from. Of several of one VM, one that has its bus
 * mastering. */
struct vm_device *vm_assign_find_forger(uint16_t bdf);
