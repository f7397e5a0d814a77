/* A device of the machine in a VM: the function, what its guest sees of it (drivers/vdev/vpci.h), its
 * interrupts, and how it is handed over (hv/assign/assign.h). */
#pragma once

#include "drivers/vdev/vpci.h"
#include "hv/assign/assign.h"
#include "hv/assign/devices.h"
#include "hv/assign/faults.h"
#include "hv/assign/msi.h"

#define VM_DEVICE_IRQ_CHUNK  32u /* as many as iommu_irq_alloc() gives at once */
#define VM_DEVICE_IRQ_CHUNKS (MSIX_MAX_ENTRIES / VM_DEVICE_IRQ_CHUNK)

struct vm_device {
    struct vm *vm;                          /* C */
    const struct config_assign *config;     /* C */
    char name[32];                          /* C. "net0, VF 01:10.2" */
    const char *what;                       /* C. "VF" or "function" */
    uint16_t bdf, pf_bdf;                   /* C. pf_bdf: bdf itself for a whole function */
    struct pci_device *dev;                 /* C */
    struct devices_pf *pf;                  /* C. NULL: a whole function */
    struct iommu_domain *domain;            /* C. the VM's */
    struct vpci_env env;                    /* C */
    struct vpci_setup setup;                /* C */
    struct mmio trapped;                    /* C. the pages of the BAR that holds the MSI-X table */
    uint64_t trapped_first;                 /* C. where they begin in the BAR */
    uint32_t irq_count;                     /* C. interrupts that it can have */
    uint32_t handles[VM_DEVICE_IRQ_CHUNKS]; /* C. of the IOMMU; each for a chunk of them */

    struct vpci vpci;     /* vm->devices, as is: */
    struct assign assign; /* while the VM runs; else its CPU that starts or stops it */
    struct pci_reset reset;
    bool attached;   /* to the domain */
    uint32_t resets; /* that its guest asked for */
    struct msi_irq irqs[MSIX_MAX_ENTRIES];

    struct spinlock lock; /* guards the rest; innermost but for the log */
    bool cut_off;         /* no bus mastering until it is reset: a storm of faults */
    bool mastering;       /* what the guest wants */
    bool resetting;       /* its configuration space is not to be touched by others */
    struct fault_watch faults;
};

/* Reads what the real function is. `slot`: which of the VM's devices, from 0. The BARs are not placed yet.
 * ERR_* with a sentence in `why`: it cannot be given to a VM. */
enum status vm_device_describe(struct vm_device *d, unsigned slot, char *why, size_t size);
/* All that is needed to run it: registers mapped, interrupts taken from the IOMMU, the guest's view made. The
 * BARs are placed. */
enum status vm_device_create(struct vm_device *d, char *why, size_t size);
/* Gives that back. The VM never ran. */
void vm_device_destroy(struct vm_device *d);
/* Was its bus mastering taken from it? */
bool vm_device_is_cut_off(struct vm_device *d);
/* A fault of its DMA or interrupts, under its own id or one that it has made up. Boot CPU's poll; waits for
 * nothing but `lock`. */
void vm_device_fault(struct vm_device *d, const struct iommu_fault *fault, uint64_t now_us);
