#include "boot/boot_info.h"
#include "arch/x86/layout.h"
#include "hv/record/blackbox.h"

#define LOW_MEMORY_END ((uint64_t)1 << 20)
#define FOUR_GIB       ((uint64_t)1 << 32)
#define TSC_HZ_MIN     1000000ull /* 1 MHz: an emulator can be slow, zero would divide */

static bool is_page_aligned(uint64_t v)
{
    return !(v & PAGE_MASK);
}

/* Does [base, base+size) lie in memory of this kind? Regions are merged, so it must lie in a single one. */
static bool lies_in(const struct boot_info *info, uint64_t base, uint64_t size, enum boot_region_kind kind)
{
    for (uint32_t i = 0; i < info->region_count; i++) {
        const struct boot_region *r = &info->regions[i];
        if (r->kind == kind && base >= r->base && base - r->base < r->size &&
            size <= r->size - (base - r->base))
            return true;
    }
    return false;
}

static const char *check_regions(const struct boot_info *info)
{
    uint64_t end = 0;

    if (!info->region_count || info->region_count > BOOT_MAX_REGIONS)
        return "the number of memory regions is out of range";
    for (uint32_t i = 0; i < info->region_count; i++) {
        const struct boot_region *r = &info->regions[i];
        if (!r->size || !is_page_aligned(r->base | r->size) || r->base + r->size < r->base)
            return "a memory region is not made of whole pages";
        if (r->base < end)
            return "memory regions overlap or are not sorted";
        if (r->kind > BOOT_REGION_RESERVED)
            return "a memory region is of an unknown kind";
        if (r->kind == BOOT_REGION_FREE && r->base < LOW_MEMORY_END)
            return "memory below 1 MiB is marked free";
        end = r->base + r->size;
    }
    return NULL;
}

static const char *check_cpus(const struct boot_info *info)
{
    if (!info->cpu_count || info->cpu_count > BOOT_MAX_CPUS)
        return "the number of CPUs is out of range";
    for (uint32_t i = 0; i < info->cpu_count; i++) {
        if ((info->cpus[i].is_bsp != 0) != (i == 0))
            return "the first CPU, and only it, must be the BSP";
        for (uint32_t j = 0; j < i; j++)
            if (info->cpus[i].apic_id == info->cpus[j].apic_id)
                return "two CPUs have the same APIC ID";
    }
    return NULL;
}

static const char *check_own_memory(const struct boot_info *info)
{
    if (!info->core_size || !is_page_aligned(info->core_hpa | info->core_size) ||
        !lies_in(info, info->core_hpa, info->core_size, BOOT_REGION_BULKHEAD))
        return "the core's image is not in memory marked as Bulkhead's";
    if (info->pool_size < LAYOUT_POOL_MIN || info->pool_size > LAYOUT_POOL_MAX ||
        !is_page_aligned(info->pool_hpa | info->pool_size) ||
        !lies_in(info, info->pool_hpa, info->pool_size, BOOT_REGION_BULKHEAD))
        return "the pool is not in memory marked as Bulkhead's";
    if (info->pool_hpa + info->pool_size > FOUR_GIB)
        return "the pool lies above 4 GiB, where CPUs that start in 32-bit mode cannot load CR3 from";
    if (!is_page_aligned(info->pool_used) || info->pool_used > info->pool_size)
        return "more of the pool is used than there is";
    if (!is_page_aligned(info->cr3) || info->cr3 < info->pool_hpa ||
        info->cr3 - info->pool_hpa >= info->pool_used)
        return "the page tables are not in the pool";
    if (!is_page_aligned(info->trampoline_hpa) || info->trampoline_hpa >= LOW_MEMORY_END ||
        !lies_in(info, info->trampoline_hpa, PAGE_SIZE, BOOT_REGION_BULKHEAD))
        return "the trampoline is not a page below 1 MiB marked as Bulkhead's";
    if (info->blackbox_hpa && (!is_page_aligned(info->blackbox_hpa) ||
                               !lies_in(info, info->blackbox_hpa, BLACKBOX_SIZE, BOOT_REGION_BULKHEAD)))
        return "the black box is not in memory marked as Bulkhead's";
    return NULL;
}

static bool file_is_good(const struct boot_info *info, const struct boot_file *f)
{
    return f->size <= UINT64_MAX - PAGE_SIZE && is_page_aligned(f->hpa) &&
           lies_in(info, f->hpa, align_up(f->size, PAGE_SIZE), BOOT_REGION_IMAGE);
}

static bool disk_is_good(const struct boot_info *info, const struct config_disk *disk,
                         const struct boot_file *f)
{
    return f->size && !config_disk_fault(disk, f->size) && disk->position < CONFIG_MAX_DISKS &&
           file_is_good(info, f);
}

static const char *check_files(const struct boot_info *info)
{
    if (!info->config.vm_count || info->config.vm_count > CONFIG_MAX_VMS)
        return "the number of VMs is out of range";
    for (uint32_t i = 0; i < info->config.vm_count; i++) {
        if (!info->kernels[i].size || !file_is_good(info, &info->kernels[i]))
            return "a kernel is not in memory marked as an image";
        if (info->initrds[i].size && !file_is_good(info, &info->initrds[i]))
            return "an initrd is not in memory marked as an image";
        if (info->config.vms[i].module_count > CONFIG_MAX_MODULES)
            return "the number of modules is out of range";
        for (uint32_t j = 0; j < info->config.vms[i].module_count; j++)
            if (!info->modules[i][j].size || !file_is_good(info, &info->modules[i][j]))
                return "a module is not in memory marked as an image";
        if (info->config.vms[i].disk_count > CONFIG_MAX_DISKS)
            return "the number of disks is out of range";
        for (uint32_t j = 0; j < info->config.vms[i].disk_count; j++)
            if (!disk_is_good(info, &info->config.vms[i].disks[j], &info->disks[i][j]))
                return "a disk is not in memory marked as an image";
    }
    return NULL;
}

enum status boot_info_check(const struct boot_info *info, const char **why)
{
    static const char *(*const checks[])(const struct boot_info *) = {check_regions, check_cpus,
                                                                      check_own_memory, check_files};

    *why = NULL;
    if (info->magic != BOOT_INFO_MAGIC || info->version != BOOT_INFO_VERSION || info->size != sizeof(*info))
        *why = "loader and core are not of the same version";
    else if (info->tsc_hz < TSC_HZ_MIN || info->tsc_source > BOOT_TSC_MEASURED)
        *why = "the TSC frequency is missing";
    else if (info->framebuffer.pixel > BOOT_PIXEL_BGRX ||
             (info->framebuffer.pixel && info->framebuffer.stride < info->framebuffer.width))
        *why = "the framebuffer's description makes no sense";
    for (size_t i = 0; !*why && i < ARRAY_SIZE(checks); i++)
        *why = checks[i](info);
    return *why ? ERR_INVALID : STATUS_OK;
}
