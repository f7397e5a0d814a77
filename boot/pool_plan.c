#include "boot/pool_plan.h"
#include "arch/x86/layout.h"
#include "drivers/vdev/ata.h"
#include "hv/guest/acpi_build.h"
#include "hv/lib/bits.h"
#include "hv/record/recorder.h"
#include "hv/vm.h"

#define MIB            ((uint64_t)1 << 20)
#define TABLE_ENTRIES  512u
#define ADDRESS_LEVELS 4u
/* What does not depend on the configuration, generously: hand-over and the host's tables, devices, IOMMUs'
 * tables, drivers of physical functions, and the copy of a recorder that a dump is written from. */
#define FIXED        (2 * MIB)
#define PER_CPU      (16 * PAGE_SIZE) /* stacks, VMXON region, interrupts of devices */
#define VCPU_BACKEND (8 * PAGE_SIZE)  /* VMCS, MSR bitmap, and extended state with AMX (11 KiB) */
#define PER_DEVICE                                                                                           \
    (4 * PAGE_SIZE) /* of a VM: its description, its emulated registers, tables for its BARs                 \
                     */
/* Tables for the pages of a firmware's flash, and for the ROM area; copies of pages that are written to. */
#define FIRMWARE_PAGES ((FIRMWARE_MAX / SIZE_2M + 2 + FLASH_COPIES) * PAGE_SIZE)

static uint64_t pages(uint64_t bytes)
{
    return align_up(bytes, PAGE_SIZE);
}

/* Tables that map `memory` bytes, in leaves of `leaf` bytes: their pages, each level's last one begun.
 * Guests' memory has a hole below 4 GiB and begins anew above it, which may take one more of each. */
static uint64_t tables(uint64_t memory, uint64_t leaf)
{
    uint64_t sum = 0, reach = leaf;
    for (unsigned level = 0; level < ADDRESS_LEVELS; level++) {
        reach *= TABLE_ENTRIES; /* of one table */
        sum += (memory / reach + 2) * PAGE_SIZE;
    }
    return sum;
}

static uint64_t of_vm(const struct config_vm *vm, const struct pool_plan_in *in, uint32_t vcpus)
{
    uint64_t maps = tables(vm->memory, in->small_pages ? PAGE_SIZE : SIZE_2M);
    uint64_t recorder = (uint64_t)recorder_pages(recorder_slots(vcpus)) * PAGE_SIZE;
    uint64_t sum = pages(sizeof(struct vm)) + ACPI_BUILD_SIZE + maps;
    sum += bits_count(vm->cpus) * (pages(sizeof(struct vcpu)) + VCPU_BACKEND + recorder);
    if (vm->compat == COMPAT_QEMU)
        sum += TESTDEV_RAM_SIZE;
    if (vm->disk_count > 0 || vm->firmware)
        sum += pages(sizeof(struct ata));
    if (vm->firmware)
        sum += FIRMWARE_PAGES;
    if (vm->assigned_count > 0)
        sum += tables(vm->memory, SIZE_2M) + vm->assigned_count * PER_DEVICE;
    return sum;
}

uint64_t pool_plan(const struct pool_plan_in *in)
{
    uint64_t sum = FIXED + in->cpus * PER_CPU;
    uint32_t vcpus = 0;
    for (uint32_t i = 0; i < in->config->vm_count; i++)
        vcpus += bits_count(in->config->vms[i].cpus);
    if (vcpus == 0)
        return LAYOUT_POOL_MIN; /* there is no VM; a configuration always has one */
    for (uint32_t i = 0; i < in->config->vm_count; i++)
        sum += of_vm(&in->config->vms[i], in, vcpus);
    sum = align_up(sum, MIB);
    return sum > LAYOUT_POOL_MIN ? sum : LAYOUT_POOL_MIN;
}
