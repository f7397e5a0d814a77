#include "hv/guest/layout.h"

enum status guest_layout_init(struct guest_layout *layout, uint64_t memory)
{
    if (memory < GUEST_MEMORY_MIN || memory > GUEST_MEMORY_MAX)
        return ERR_RANGE;
    if (memory % PMEM_UNIT)
        return ERR_INVALID;
    layout->memory = memory;
    layout->low_end = memory < GUEST_PCI_HOLE ? memory : GUEST_PCI_HOLE;
    layout->high_end = GUEST_FOUR_GIB + (memory - layout->low_end);
    return STATUS_OK;
}

/* Adds [addr, addr+size) without what lies behind the VGA window. */
static enum status add_around_vga(struct gmem *g, uint64_t addr, uint64_t host, uint64_t size)
{
    uint64_t end = addr + size;
    if (addr < GUEST_VGA) {
        uint64_t stop = end < GUEST_VGA ? end : GUEST_VGA;
        enum status status = gmem_add(g, gpa(addr), hpa(host), stop - addr);
        if (status != STATUS_OK)
            return status;
    }
    uint64_t start = addr > GUEST_ROM ? addr : GUEST_ROM;
    return start < end ? gmem_add(g, gpa(start), hpa(host + (start - addr)), end - start) : STATUS_OK;
}

enum status guest_layout_fill(const struct guest_layout *layout, const struct pmem_extent *extents,
                              uint32_t count, struct gmem *g)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (extents[i].size == 0 || extents[i].size % PMEM_UNIT || extents[i].size > layout->memory - sum)
            return ERR_INVALID;
        sum += extents[i].size;
    }
    if (sum != layout->memory)
        return ERR_INVALID;
    uint64_t at = 0; /* guest-physical */
    for (uint32_t i = 0; i < count; i++) {
        uint64_t done = 0;
        while (done < extents[i].size) {
            uint64_t end = at < layout->low_end ? layout->low_end : layout->high_end;
            uint64_t n = extents[i].size - done;
            if (n > end - at)
                n = end - at;
            enum status status = add_around_vga(g, at, extents[i].base + done, n);
            if (status != STATUS_OK)
                return status;
            done += n;
            at += n;
            if (at == layout->low_end)
                at = GUEST_FOUR_GIB;
        }
    }
    return STATUS_OK;
}
