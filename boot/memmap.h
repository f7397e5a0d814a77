/* From the firmware's memory map to boot_info's regions. Pure. */
#pragma once

#include "boot/boot_info.h"

/* Sorted, page-aligned, non-overlapping, adjacent equals merged, after every call. */
struct memmap {
    struct boot_region *regions;
    uint32_t count, capacity;
};

/* Gives [base, base+size) this kind, whatever it was before; page-aligned. ERR_NO_MEMORY: the table is full;
 * ERR_INVALID: not page-aligned, or wraps. Either way nothing has changed. */
enum status memmap_set(struct memmap *map, uint64_t base, uint64_t size, enum boot_region_kind kind);

/* Fills the map from EFI memory descriptors (UEFI spec, GetMemoryMap), each desc_size bytes apart, as it will
 * be after ExitBootServices: conventional memory and what boot services and the loader used is FREE, all
 * other is RESERVED, and so is everything below 1 MiB. Where descriptors overlap, RESERVED wins. Descriptors
 * that make no sense are skipped, which leaves their memory unused. ERR_INVALID: desc_size is too small;
 * ERR_NO_MEMORY: too many regions. */
enum status memmap_from_efi(struct memmap *map, struct span descriptors, size_t desc_size);
