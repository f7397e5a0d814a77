/* What the loader hands to the core: one versioned struct. All addresses are host-physical. The loader checks
 * it, and boot_info_check() (pure) checks it again on the core's side. */
#pragma once

#include "hv/config/config.h"
#include "hv/lib/addr.h"

#define BOOT_INFO_MAGIC   0x4248495f31303030ull /* "000_IHB" */
#define BOOT_INFO_VERSION 6u
#define BOOT_MAX_REGIONS  512
#define BOOT_MAX_CPUS     64

enum boot_region_kind {
    BOOT_REGION_FREE,     /* conventional, or boot services' after exit: guests may have it */
    BOOT_REGION_BULKHEAD, /* core image, pool, trampoline, this struct */
    BOOT_REGION_IMAGE, /* a guest's kernel, initrd or module, kept pristine; a ramdisk, which it writes to */
    BOOT_REGION_RESERVED, /* firmware runtime, ACPI, MMIO, persistent, unusable: never given away */
};

/* Sorted by base, page-aligned, non-overlapping, adjacent equals merged. */
struct boot_region {
    uint64_t base, size; /* bytes */
    uint32_t kind;       /* enum boot_region_kind */
    uint32_t pad;
};

struct boot_cpu {
    uint32_t apic_id;
    uint32_t is_bsp; /* cpus[0] is the BSP */
};

struct boot_file {
    uint64_t hpa, size; /* bytes; size 0 = none. Page-aligned address, padded to a page with zeros */
};

enum boot_pixel { BOOT_PIXEL_NONE, BOOT_PIXEL_RGBX, BOOT_PIXEL_BGRX };

struct boot_framebuffer {
    uint64_t hpa;
    uint32_t width, height, stride; /* pixels; stride in pixels */
    uint32_t pixel;                 /* enum boot_pixel; NONE = no framebuffer */
};

enum boot_tsc_source { BOOT_TSC_CPUID_15, BOOT_TSC_CPUID_16, BOOT_TSC_MEASURED };

/* UTC at the moment of `tsc_at`, from the firmware's GetTime; valid = 0 when the firmware had none. */
struct boot_wall_clock {
    uint64_t unix_seconds;
    uint64_t tsc_at;
    uint32_t valid, pad;
};

struct boot_info {
    uint64_t magic;
    uint32_t version, size; /* sizeof(struct boot_info) */

    /* The core: its image as mapped at LAYOUT_CORE_VA, and its pool, mapped at LAYOUT_POOL_VA. The first
     * pool_used bytes hold the page tables in force (root at `cr3`), this struct and the boot stack. */
    uint64_t core_hpa, core_size;
    uint64_t pool_hpa, pool_size, pool_used;
    uint64_t cr3;
    uint64_t blackbox_hpa;   /* BLACKBOX_SIZE bytes, mapped at LAYOUT_BLACKBOX_VA; 0: there is none */
    uint64_t trampoline_hpa; /* one page below 1 MiB for starting the other CPUs, mapped nowhere yet */

    uint64_t rsdp_hpa; /* 0: the firmware has no ACPI tables */
    uint64_t tsc_hz;
    uint32_t tsc_source; /* enum boot_tsc_source */
    uint32_t region_count, cpu_count;
    uint64_t pci_roots[4]; /* bit b%64 of word b/64: b is a root bus. All 0: the firmware did not say */
    struct boot_wall_clock wall;
    struct boot_framebuffer framebuffer;
    struct boot_region regions[BOOT_MAX_REGIONS];
    struct boot_cpu cpus[BOOT_MAX_CPUS];

    struct config config;
    struct boot_file kernels[CONFIG_MAX_VMS]; /* by VM index; a firmware's flash image is one, too */
    struct boot_file initrds[CONFIG_MAX_VMS];
    struct boot_file modules[CONFIG_MAX_VMS][CONFIG_MAX_MODULES]; /* as config.vms[].modules */
    struct boot_file disks[CONFIG_MAX_VMS][CONFIG_MAX_DISKS];     /* as config.vms[].disks */
};

/* Checks magic, version, counts, order and containment. ERR_INVALID with *why set to a static text. */
enum status boot_info_check(const struct boot_info *info, const char **why);
