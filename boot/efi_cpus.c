#include "boot/efi_cpu.h"
#include "boot/efi_loader.h"
#include "boot/efi_mp.h"

#define CPUID_1_EBX_APIC_ID(ebx) ((ebx) >> 24)
#define CPUID_TOPOLOGY_LEAF      0xbu

struct list {
    struct boot_cpu *cpus;
    uint32_t count;
};

/* This CPU's APIC ID: the loader runs on the BSP. */
static uint32_t own_apic_id(void)
{
    if (efi_cpuid(0).eax >= CPUID_TOPOLOGY_LEAF) {
        struct efi_cpuid topology = efi_cpuid(CPUID_TOPOLOGY_LEAF);
        if (topology.ebx)
            return topology.edx;
    }
    return CPUID_1_EBX_APIC_ID(efi_cpuid(1).ebx);
}

/* The BSP is in the list already; CPUs that do not fit or are there twice are left out. */
static void add(struct list *list, uint32_t apic_id)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->cpus[i].apic_id == apic_id)
            return;
    if (list->count < BOOT_MAX_CPUS)
        list->cpus[list->count++] = (struct boot_cpu){.apic_id = apic_id};
}

static bool from_mp_services(struct list *list)
{
    static EFI_GUID guid = EFI_MP_SERVICES_GUID;
    struct efi_mp_services *mp;
    UINTN count, enabled;
    void *interface;

    if (EFI_ERROR(efi_bs->LocateProtocol(&guid, NULL, &interface)))
        return false;
    mp = interface;
    if (EFI_ERROR(mp->get_number(mp, &count, &enabled)))
        return false;
    for (UINTN i = 0; i < count; i++) {
        struct efi_processor_info info;
        const uint32_t usable = EFI_PROCESSOR_ENABLED | EFI_PROCESSOR_HEALTHY;
        if (!EFI_ERROR(mp->get_info(mp, i, &info)) && (info.status & usable) == usable &&
            !(info.processor_id >> 32))
            add(list, (uint32_t)info.processor_id);
    }
    return true;
}

static bool from_madt(struct list *list)
{
    static struct acpi_madt madt;
    const struct acpi_tables *tables = efi_acpi_tables();

    if (!tables || acpi_read_madt(tables, &madt))
        return false;
    for (uint32_t i = 0; i < madt.cpu_count; i++)
        if (madt.cpus[i].enabled)
            add(list, madt.cpus[i].apic_id);
    return true;
}

const char *efi_find_cpus(struct boot_cpu *cpus, uint32_t *count)
{
    struct list list = {.cpus = cpus, .count = 1};
    const char *source = "no MP Services, no MADT: only this one is known";

    cpus[0] = (struct boot_cpu){.apic_id = own_apic_id(), .is_bsp = 1};
    if (from_mp_services(&list))
        source = "MP Services";
    else if (from_madt(&list))
        source = "ACPI MADT, no MP Services";
    *count = list.count;
    return source;
}
