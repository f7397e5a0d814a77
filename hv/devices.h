/* The machine's devices: found and fenced off once, before any VM is made; physical functions whose virtual
 * functions the configuration gives to VMs are started here, and looked after as long as the machine runs.
 *
 * Where the configuration gives nothing to any VM, this only finds the functions, takes bus mastering away
 * and switches the IOMMUs on, deny-all; nothing is polled afterwards but the IOMMUs' fault registers. */
#pragma once

#include "drivers/iommu/iommu.h"
#include "drivers/nic/pf.h"
#include "drivers/nvme/nvme_pf.h"
#include "drivers/pci/pci.h"
#include "hv/config.h"
#include "hv/lines.h"

#define DEVICES_MAX_PFS 8u
#define DEVICES_MAX_PCI 160u /* functions of the machine, VFs included */
#define DEVICES_WHY     160u

/* A physical function that Bulkhead drives. */
struct devices_pf {
    uint16_t bdf;
    enum config_assign_kind kind; /* ASSIGN_NET_VF or ASSIGN_NVME_VF */
    uint16_t vfs;                 /* that are on; 0: it does not work, see why */
    char why[DEVICES_WHY];
    uint8_t taken[CONFIG_VFS_MAX / 8]; /* bit set: that VF has an owner. Before the VMs start only */
    struct pf pf;                      /* of a network card */
    struct nvme_pf *nvme;              /* of an NVMe controller */
    struct mmio bar;
    struct dev_env env;
    struct iommu_domain domain; /* NVMe: the admin queue's memory */
    uint64_t poll_us;           /* when a network card is looked at next. Boot CPU only */
};

struct devices {
    struct pci_config pci;       /* C */
    struct pci_inventory found;  /* C once the VMs start */
    struct iommu iommu;          /* has its own locks */
    char iommu_why[DEVICES_WHY]; /* C. why it is not present */
    struct dev_env env;          /* C. time, and no memory */
    struct devices_pf *pfs;      /* C. pf_count of them */
    uint32_t pf_count;
    bool active;      /* C. there is something to poll */
    uint64_t poll_us; /* boot CPU only: when the faults are looked at next */
};

extern struct devices devices;

/* Everything, in this order: PCI functions found, bus mastering taken, IOMMUs on, PFs started and their VFs
 * switched on. What does not work is said, and kept for those who ask for it. Boot CPU, once. */
void devices_init(void);
/* What has to be done now and then: mailboxes of PFs, faults of the IOMMUs. Boot CPU; never waits. */
void devices_poll(void);

/* The function that the configuration names, or NULL with a sentence in `why`. */
struct pci_device *devices_find(const struct config_assign *wanted, char *why, size_t size);
/* Takes a VF (or the function itself) for a VM: NULL with a sentence in `why`. *pf: who looks after it, NULL
 * for a whole function. */
struct pci_device *devices_claim(const struct config_assign *wanted, struct devices_pf **pf, char *why,
                                 size_t size);
