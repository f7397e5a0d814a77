/* The one instance of everything: what main.c wires together. */
#pragma once

#include "boot/boot_info.h"
#include "drivers/acpi/acpi.h"
#include "drivers/pci/pci.h"
#include "hv/pmem.h"
#include "hv/pool.h"
#include "hv/vm.h"

struct iommu;

struct core {
    struct boot_info *info; /* C */
    struct pool pool;       /* has its own lock */
    struct pmem pmem;       /* has its own lock */
    struct pt_env pt_env;   /* C. tables from the pool */
    uint32_t cpu_count;     /* C */
    struct cpu cpus[BOOT_MAX_CPUS];
    struct vm *vms[CONFIG_MAX_VMS]; /* C after start-up */
    struct pci_config pci_config;   /* C */
    struct acpi_mcfg mcfg;          /* C. where ECAM is, by the firmware's word */
    bool has_ecam;                  /* C. else pci_config reaches 256 bytes only: no SR-IOV */
    struct pci_inventory pci;       /* C after start-up, VFs included */
    struct iommu *iommu;            /* C after start-up; NULL: none that protects */
    uint32_t starting;              /* A. VMs whose first start has not ended */
    uint32_t ending;                /* A. set once: the machine is going down */
};
extern struct core core;

/* The core's entry in C; the loader's hand-over is at `info`. Does not return. */
void core_main(struct boot_info *info) __attribute__((noreturn));

/* UTC now, in seconds since 1970; counts from 0 where the firmware had no clock. */
int64_t core_wall_seconds(void);
/* A VM's first start has ended, well or not. */
void core_vm_started(void);
/* A VM has stopped: when it was the last one, and not by the operator's order, does what `on_idle` says. */
void core_vm_stopped(bool by_operator);
