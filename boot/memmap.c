#include "boot/memmap.h"
#include "hv/lib/bits.h"
#include "hv/lib/string.h"

#define LOW_MEMORY_END ((uint64_t)1 << 20)
#define PHYS_LIMIT     BIT(52) /* x86-64 has no more (SDM volume 3, "Paging") */

/* UEFI specification, EFI_MEMORY_DESCRIPTOR. */
struct efi_descriptor {
    uint32_t type, pad;
    uint64_t base, virtual_base, pages, attribute;
};
enum {
    EFI_TYPE_LOADER_CODE = 1,
    EFI_TYPE_LOADER_DATA = 2,
    EFI_TYPE_BOOT_CODE = 3,
    EFI_TYPE_BOOT_DATA = 4,
    EFI_TYPE_CONVENTIONAL = 7,
};
#define EFI_ATTR_WB      BIT(3)  /* can be cached write-back */
#define EFI_ATTR_NV      BIT(15) /* persistent */
#define EFI_ATTR_SP      BIT(18) /* specific-purpose memory: not for general use */
#define EFI_ATTR_RUNTIME BIT(63)

static uint64_t end_of(const struct boot_region *r)
{
    return r->base + r->size;
}

/* Appends to `out`, merging with its last region where they touch and agree. */
static void append(struct boot_region *out, uint32_t *count, uint64_t base, uint64_t end, uint32_t kind)
{
    if (base >= end)
        return;
    struct boot_region *last = *count ? &out[*count - 1] : NULL;
    if (last && last->kind == kind && end_of(last) == base) {
        last->size += end - base;
        return;
    }
    out[(*count)++] = (struct boot_region){.base = base, .size = end - base, .kind = kind};
}

enum status memmap_set(struct memmap *map, uint64_t base, uint64_t size, enum boot_region_kind kind)
{
    struct boot_region around[3]; /* the new region, with what remains of a region before and behind it */
    uint64_t end = base + size;
    uint32_t first = 0, count = 0;

    if (((base | size) & PAGE_MASK) || end < base)
        return ERR_INVALID;
    if (!size)
        return STATUS_OK;
    while (first < map->count && end_of(&map->regions[first]) < base)
        first++;
    uint32_t last = first; /* regions first..last-1 touch the new one */
    while (last < map->count && map->regions[last].base <= end)
        last++;
    if (first < last)
        append(around, &count, map->regions[first].base, base, map->regions[first].kind);
    append(around, &count, base, end, kind);
    if (first < last)
        append(around, &count, end, end_of(&map->regions[last - 1]), map->regions[last - 1].kind);
    if (map->count - (last - first) + count > map->capacity)
        return ERR_NO_MEMORY;
    memmove(&map->regions[first + count], &map->regions[last], (map->count - last) * sizeof(*map->regions));
    memcpy(&map->regions[first], around, count * sizeof(*around));
    map->count = map->count - (last - first) + count;
    return STATUS_OK;
}

static enum boot_region_kind kind_of(const struct efi_descriptor *d)
{
    switch (d->type) {
    case EFI_TYPE_LOADER_CODE:
    case EFI_TYPE_LOADER_DATA:
    case EFI_TYPE_BOOT_CODE:
    case EFI_TYPE_BOOT_DATA:
    case EFI_TYPE_CONVENTIONAL:
        break;
    default:
        return BOOT_REGION_RESERVED;
    }
    if (!(d->attribute & EFI_ATTR_WB) || (d->attribute & (EFI_ATTR_NV | EFI_ATTR_SP | EFI_ATTR_RUNTIME)))
        return BOOT_REGION_RESERVED;
    return BOOT_REGION_FREE;
}

/* Firmware is not always right: a descriptor that cannot be is left out. */
static bool is_sane(const struct efi_descriptor *d)
{
    return !(d->base & PAGE_MASK) && d->base < PHYS_LIMIT && d->pages > 0 &&
           d->pages <= (PHYS_LIMIT - d->base) / PAGE_SIZE;
}

/* Low memory is listed, but firmware and devices have too many old habits there for it to be given away. */
static enum status add(struct memmap *map, uint64_t base, uint64_t end, enum boot_region_kind kind)
{
    enum status s = STATUS_OK;

    if (base < LOW_MEMORY_END) {
        uint64_t low_end = end < LOW_MEMORY_END ? end : LOW_MEMORY_END;
        s = memmap_set(map, base, low_end - base, BOOT_REGION_RESERVED);
        base = low_end;
    }
    return s ? s : memmap_set(map, base, end - base, kind);
}

static enum status add_all(struct memmap *map, struct span descriptors, size_t desc_size,
                           enum boot_region_kind kind)
{
    for (size_t at = 0; descriptors.size - at >= desc_size; at += desc_size) {
        struct efi_descriptor d;
        memcpy(&d, descriptors.data + at, sizeof(d));
        if (!is_sane(&d) || kind_of(&d) != kind)
            continue;
        enum status s = add(map, d.base, d.base + d.pages * PAGE_SIZE, kind);
        if (s)
            return s;
    }
    return STATUS_OK;
}

enum status memmap_from_efi(struct memmap *map, struct span descriptors, size_t desc_size)
{
    if (desc_size < sizeof(struct efi_descriptor))
        return ERR_INVALID;
    map->count = 0;
    enum status s = add_all(map, descriptors, desc_size, BOOT_REGION_FREE);
    return s ? s : add_all(map, descriptors, desc_size, BOOT_REGION_RESERVED);
}
