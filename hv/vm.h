/* A virtual machine.
 *
 * Lock order (outer first): vm->devices, vm->life, log, console, vm->console, pool. The locks of
 * the IOMMU, of a PF's driver and of a struct vm_device come between vm->devices and the log. vm->life guards
 * the VM's state machine, vm->devices every struct vdev of the VM, interrupt routing, and the device timers.
 * The local APIC has no lock: see drivers/vdev/lapic.h. */
#pragma once

#include "arch/x86/ept.h"
#include "drivers/vdev/acpi_pm.h"
#include "drivers/vdev/fw_cfg.h"
#include "drivers/vdev/hpet.h"
#include "drivers/vdev/i440fx.h"
#include "drivers/vdev/ioapic.h"
#include "drivers/vdev/kbd.h"
#include "drivers/vdev/pci_host.h"
#include "drivers/vdev/pic.h"
#include "drivers/vdev/pit.h"
#include "drivers/vdev/rtc.h"
#include "drivers/vdev/sysctl.h"
#include "drivers/vdev/testdev.h"
#include "drivers/vdev/uart.h"
#include "hv/config/config.h"
#include "hv/console/console.h"
#include "hv/gmem.h"
#include "hv/guest/image.h"
#include "hv/lib/lock.h"
#include "hv/lib/log.h"
#include "hv/life.h"
#include "hv/pc/bus.h"
#include "hv/pc/flash.h"
#include "hv/pmem.h"
#include "hv/sched.h"
#include "hv/vcpu.h"

#define VM_MAX_VCPUS 16u

struct vm_assign;
struct ata;

#define PLATFORM_DEVICES 16u
#define PLATFORM_ADDED   2u /* by platform_add(): disks, devices of the machine */

struct platform {
    struct uart uart;
    struct pic pic;
    struct pit pit;
    struct hpet hpet;
    struct rtc rtc;
    struct kbd kbd;
    struct sysctl sysctl;
    struct acpi_pm acpi_pm;
    struct ioapic ioapic;
    struct pci_host pci;
    struct fw_cfg fw_cfg; /* compat = qemu, or a firmware */
    struct fw_cfg_file files[FIRMWARE_FILES];
    struct testdev testdev; /* compat = qemu */
    struct i440fx chipset;  /* a firmware, as is: */
    struct flash flash;
    struct ata *ata;                        /* C. NULL: it has no disks */
    uint32_t device_count;                  /* C */
    struct vdev *devices[PLATFORM_DEVICES]; /* C. those that this VM has, in start-up order */
    struct vdev_env env;
    struct vdev_env legacy_env; /* of PIT and RTC, whose lines the HPET may take over */
    bool init_only;          /* what restarts it reset the processors only, and the chipset kept its state */
    uint64_t next_timer_tsc; /* A. host TSC of the earliest device deadline, UINT64_MAX = none */
};

struct vm {
    uint32_t id;                    /* C */
    const struct config_vm *config; /* C */
    const char *name;               /* C */
    struct log_source log;          /* has its own lock */
    struct console_vm console;      /* has its own lock */

    struct spinlock life;
    uint64_t reports_since; /* life. when the first of these full reports of crashes was made, host TSC */
    uint32_t reports;       /* life */
    enum vm_state state;    /* life */
    enum stop_reason stop;  /* life. why it is stopping: the first reason wins */
    uint32_t exit_code;     /* life. with STOP_LEFT: what the guest gave */
    enum life_wish wish;    /* life. the operator's, until the work under way has ended */
    uint32_t vcpus_in_loop; /* life. vCPUs that have not yet left the run loop */
    bool started;           /* life. its first start has ended, well or not */
    uint32_t preparing;     /* A. CPUs that still work on the start */
    uint64_t zeroed;        /* A. bytes of memory that were zeroed, or are just being */

    struct spinlock devices;
    struct platform platform; /* devices */
    struct bus bus;           /* C after platform_init */

    struct pmem_extent extents[PMEM_MAX_EXTENTS]; /* C. its memory as it came from pmem */
    uint32_t extent_count;                        /* C */
    struct gmem gmem;                             /* C, but for what a firmware's ROM area shows: devices */
    struct ept ept;           /* C, but for that and assigned devices' registers: devices */
    struct cpuid_table cpuid; /* C */
    uint64_t xcr0_allowed;    /* C */

    struct guest_layout layout; /* C */
    struct guest_image image;   /* C while running. what its files are, and where they go */
    struct guest_entry entry;   /* C while running. how vCPU 0 begins */
    struct vm_assign *assign;   /* C. devices of the machine that it has; NULL: none */
    uint8_t *acpi;              /* C while running. ACPI_BUILD_SIZE bytes in which its tables are built */
    uint64_t start_tsc;         /* C while running: host TSC when the VM's time was 0 */
    int64_t start_wall;         /* C while running: UTC seconds at that moment */

    struct once msrs_seen;            /* refused ones that the log has: MSR number, bit 32 set for writes */
    uint32_t restarts, quick_crashes; /* life */
    uint8_t insns_noted[128];         /* A. by exit reason: what was refused and is in the log */

    uint32_t vcpu_count; /* C */
    struct vcpu *vcpus[VM_MAX_VCPUS];
};

/* Log lines about a VM, and about one of its vCPUs (hv/lib/log.h). */
#define log_vm(level, vm, ...)     log_from(&(vm)->log, LOG_NO_VCPU, level, __VA_ARGS__)
#define log_vcpu(level, vcpu, ...) log_from(&(vcpu)->vm->log, (vcpu)->id, level, __VA_ARGS__)

/* Interrupt lines and messages (hv/pc/irq.c); all under vm->devices. */
void irq_set_line(struct vm *vm, unsigned line, bool level);
bool irq_deliver(struct vm *vm, uint32_t dest, bool logical, uint8_t mode, uint8_t vector, bool level);
void irq_send_ipi(struct vcpu *from, const struct lapic_ipi *ipi);

/* Devices (hv/pc/platform.c). */
enum status platform_init(struct vm *vm);
/* One more, behind the others: PLATFORM_ADDED at most, before the VM runs. */
void platform_add(struct vm *vm, struct vdev *dev, const struct vdev_ops *ops);
void platform_reset(struct vm *vm);
/* Fires what is due, under vm->devices. */
void platform_run_timers(struct vm *vm);

/* Takes vm->devices. A device may hold it for long (a PF that is to be told of a reset): what cannot wait is
 * done meanwhile. */
static inline void vm_lock_devices(struct vm *vm)
{
    spin_lock_with(&vm->devices, sched_breathe);
}

/* Making (hv/vm.c). */
/* Everything a VM needs, once: memory, nested tables, vCPUs, devices. ERR_* with a sentence in `why`: all
 * that was taken has been given back, and the VM is VM_FAILED. */
enum status vm_create(struct vm *vm, uint32_t id, char *why, size_t why_size);
/* Loads the pristine images and the ACPI tables into memory. ERR_* with a sentence in `why`. */
enum status vm_load(struct vm *vm, char *why, size_t why_size);
/* Sets a vCPU that has just been loaded to the state it begins with. */
void vm_begin_vcpu(struct vcpu *vcpu);

/* Life (hv/vm_life.c); the decisions are in hv/life.c. All of it is asynchronous: who asks goes on at once,
 * the VM's own CPUs do the work, and no other VM's CPU waits. */
/* The operator's order, from any CPU. False with a sentence in `why` when the state does not allow it. */
bool vm_order(struct vm *vm, enum vm_order order, char *why, size_t why_size);
/* A reason to stop, from a vCPU or a device: the first one wins, and every vCPU leaves its loop. Any CPU. */
void vm_stop(struct vm *vm, enum stop_reason why);
/* The same for a guest that ends itself with a code (STOP_LEFT). */
void vm_leave(struct vm *vm, uint32_t code);
/* What a CPU of the VM does when it was given a vCPU: true when that is the work of starting. */
bool vm_is_starting(const struct vm *vm);
/* This CPU's share of the work of starting: zeroes memory, but not for a VM that reboots; the CPU that is
 * ready last loads the images, resets the devices and lets the vCPUs run. */
void vm_prepare(struct vcpu *vcpu);
/* A vCPU has left its loop; the last one decides what becomes of the VM. */
void vm_vcpu_left(struct vcpu *vcpu);

/* Does it begin with a firmware of its own? */
static inline bool vm_has_firmware(const struct vm *vm)
{
    return vm->config->firmware;
}

/* Guest time. */
uint64_t vm_now_ns(const struct vm *vm);
