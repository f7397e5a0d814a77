/* The machine's devices behind its IOMMUs: fenced off once, before any VM is made; physical functions whose
 * virtual functions the configuration gives to VMs are started here, and looked after as long as the machine
 * runs.
 *
 * Where the configuration gives nothing to any VM, this only switches the IOMMUs on, deny-all; nothing is
 * polled afterwards but their fault registers. */
#pragma once

#include "drivers/iommu/iommu.h"
#include "drivers/nic/pf.h"
#include "drivers/nvme/nvme_pf.h"
#include "drivers/pci/pci.h"
#include "hv/assign/faults.h"
#include "hv/config/config.h"
#include "hv/console/lines.h"
#include "hv/cpu.h"

#define DEVICES_WHY 160u

/* A physical function that Bulkhead drives. */
struct devices_pf {
    uint16_t bdf;
    enum config_assign_kind kind; /* ASSIGN_NET_VF or ASSIGN_NVME_VF */
    uint16_t wanted, vfs;         /* by the configuration; that are on: 0: it does not work, see why */
    char why[DEVICES_WHY];
    uint8_t
        named[CONFIG_VFS_MAX / 8]; /* bit set: the configuration names that VF. Until the VMs start, as is: */
    uint8_t taken[CONFIG_VFS_MAX / 8]; /* bit set: it has an owner */
    struct pf pf;                      /* of a network card */
    struct nvme_pf *nvme;              /* of an NVMe controller */
    struct mmio bar;
    struct dev_env env;
    struct iommu_domain domain; /* NVMe: its admin queue's memory */
    uint64_t poll_tsc;          /* when a network card is looked at next. Boot CPU only, as is: */
    uint64_t polls, poll_ticks; /* how often it was, and how long that took, since `began_tsc` */
    uint64_t began_tsc;
    uint32_t idle_polls; /* that found nothing, since the last one that did */
};

struct devices {
    struct iommu_env
        iommu_env;      /* map and write_back: set by who starts all this (hv/main.c); the rest here */
    struct iommu iommu; /* core.iommu, when it is usable */
    char iommu_why[DEVICES_WHY]; /* C. why it is not */
    struct dev_env env;          /* C. time, and no memory */
    struct devices_pf *pfs;      /* C. pf_count of them */
    uint32_t pf_count;
    bool active;               /* C. there is something to poll */
    bool breathes;             /* C. set when waiting may let the console live */
    uint64_t poll_tsc;         /* boot CPU only, as is: when anything is looked at next */
    uint64_t faults_tsc;       /* when the faults are */
    struct fault_watch others; /* faults of devices that no VM has */
};
extern struct devices host_devices;

/* Switches the IOMMUs on, deny-all. The PCI functions were found, and none masters the bus. Boot CPU, once.
 */
void devices_fence(const struct acpi_tables *tables);
/* Starts the PFs whose VFs the configuration gives to VMs. What does not work is said, and kept for those who
 * ask for it. Boot CPU, once, behind the fence. */
void devices_start_pfs(void);

/* Registers of a device, uncached; false: no room. Boot CPU, before the VMs start. */
bool devices_map(hpa_t base, uint64_t size, struct mmio *out);

/* Is any of it memory that guests or Bulkhead may have? */
bool devices_is_memory(uint64_t base, uint64_t size);
/* Is any of it the machine's own: memory, configuration space, interrupt controllers, IOMMUs, the firmware's
 * flash? base + size does not wrap. */
bool devices_is_machine(uint64_t base, uint64_t size);
/* Is any of it in the firmware's map of memory, or what a bridge on a root bus forwards? For a function of a
 * root bus, of which no bridge says what is its own. */
bool devices_is_taken(uint64_t base, uint64_t size);

void devices_poll_now(void);
/* What has to be done now and then: mailboxes of PFs, faults of the IOMMUs. Boot CPU; never waits. */
static inline void devices_poll(void)
{
    if (__builtin_expect(host_devices.active, 0) && host_tsc() >= host_devices.poll_tsc)
        devices_poll_now();
}

/* The function that the configuration names, or NULL with a sentence in `why`. */
struct pci_device *devices_find(const struct config_assign *wanted, char *why, size_t size);
/* Takes a VF, or the function itself, for a VM: NULL with a sentence in `why`. *pf: who looks after it, NULL
 * for a whole function. */
struct pci_device *devices_claim(const struct config_assign *wanted, struct devices_pf **pf, char *why,
                                 size_t size);

/* The prompt's `vfs`. */
bool devices_vfs_next(struct lines *self, char *line, size_t size);
