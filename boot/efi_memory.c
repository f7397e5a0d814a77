#include "boot/efi_loader.h"
#include "hv/lib/string.h"

#define MAP_SLACK       16u /* descriptors that our own later calls may add */
#define EXIT_TRIES      8u
#define LEGACY_BIOS     0xe0000ull /* where firmware with a BIOS heritage keeps its RSDP */
#define LEGACY_BIOS_END 0x100000ull

static struct {
    uint8_t *buffer;
    UINTN capacity;
} map;

EFI_STATUS efi_alloc(uint64_t size, uint64_t align, uint64_t limit, uint64_t *hpa)
{
    uint64_t spare = align - PAGE_SIZE;
    EFI_PHYSICAL_ADDRESS at = limit ? limit - 1 : 0;

    size = align_up(size, PAGE_SIZE);
    EFI_STATUS s = efi_bs->AllocatePages(limit ? AllocateMaxAddress : AllocateAnyPages, EfiLoaderData,
                                         (size + spare) / PAGE_SIZE, &at);
    if (EFI_ERROR(s))
        return s;
    uint64_t begin = align_up(at, align), before = begin - at, behind = spare - before;
    if (before)
        efi_bs->FreePages(at, before / PAGE_SIZE);
    if (behind)
        efi_bs->FreePages(begin + size, behind / PAGE_SIZE);
    *hpa = begin;
    return EFI_SUCCESS;
}

EFI_STATUS efi_memory_map(struct span *out, size_t *desc_size, UINTN *key)
{
    for (;;) {
        UINTN size = map.capacity, step = 0;
        UINT32 version;
        EFI_STATUS s =
            efi_bs->GetMemoryMap(&size, (EFI_MEMORY_DESCRIPTOR *)(void *)map.buffer, key, &step, &version);
        if (s == EFI_SUCCESS) {
            *out = (struct span){map.buffer, size};
            *desc_size = step;
            return s;
        }
        if (s != EFI_BUFFER_TOO_SMALL)
            return s;
        if (map.buffer)
            efi_bs->FreePool(map.buffer);
        map.buffer = NULL;
        map.capacity = size + MAP_SLACK * step;
        void *buffer;
        s = efi_bs->AllocatePool(EfiLoaderData, map.capacity, &buffer);
        if (EFI_ERROR(s)) {
            map.capacity = 0;
            return s;
        }
        map.buffer = buffer;
    }
}

static bool is_memory_type(uint32_t type)
{
    return type != EfiUnusableMemory && type != EfiMemoryMappedIO && type != EfiMemoryMappedIOPortSpace;
}

bool efi_is_memory(uint64_t hpa, uint64_t size)
{
    struct span text;
    size_t step;
    UINTN key;

    if (hpa >= LEGACY_BIOS && hpa < LEGACY_BIOS_END && size <= LEGACY_BIOS_END - hpa)
        return true;
    if (EFI_ERROR(efi_memory_map(&text, &step, &key)) || step < sizeof(EFI_MEMORY_DESCRIPTOR))
        return false;
    for (size_t at = 0; text.size - at >= step; at += step) {
        EFI_MEMORY_DESCRIPTOR d;
        memcpy(&d, text.data + at, sizeof(d));
        uint64_t bytes = d.NumberOfPages * PAGE_SIZE;
        if (is_memory_type(d.Type) && hpa >= d.PhysicalStart && hpa - d.PhysicalStart < bytes &&
            size <= bytes - (hpa - d.PhysicalStart))
            return true;
    }
    return false;
}

void efi_exit_boot_services(struct span *out, size_t *desc_size)
{
    UINTN key;

    /* The map can change between the two calls (a timer's callback allocates): then the key is refused. After
     * the first try only these two services may be called. */
    for (unsigned i = 0; i < EXIT_TRIES; i++) {
        if (EFI_ERROR(efi_memory_map(out, desc_size, &key)))
            break;
        if (efi_bs->ExitBootServices(efi_image, key) == EFI_SUCCESS)
            return;
    }
    efi_die("the firmware does not let go of the machine (ExitBootServices failed)");
}
