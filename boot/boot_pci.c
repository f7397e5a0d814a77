#include "boot/boot_pci.h"
#include "hv/lib/bytes.h"
#include "hv/lib/string.h"

/* ACPI 6.4, 6.4.3.5.1: QWord Address Space Descriptor; 6.4.2.9: End Tag. */
#define TAG_ADDRESS64  0x8au
#define TAG_LARGE      0x80u /* a tag with a length of two bytes behind it */
#define LARGE_HEADER   3u
#define ADDRESS64_SIZE 46u
#define RESOURCE_TYPE  3u
#define RESOURCE_BUS   2u
#define ADDRESS_MIN    14u
#define ADDRESS_MAX    22u
#define BUS_LIMIT      255u

bool boot_pci_buses(const uint8_t *list, size_t limit, uint8_t *first, uint8_t *last)
{
    /* The end tag is a small one, as is all that does not belong into such a list. */
    for (size_t at = 0; at + LARGE_HEADER <= limit && (list[at] & TAG_LARGE);) {
        const uint8_t *d = list + at;
        size_t size = LARGE_HEADER + bytes_get16(d + 1);
        if (size > limit - at)
            return false;
        if (d[0] == TAG_ADDRESS64 && size >= ADDRESS64_SIZE && d[RESOURCE_TYPE] == RESOURCE_BUS) {
            uint64_t low = bytes_get64(d + ADDRESS_MIN), high = bytes_get64(d + ADDRESS_MAX);
            *first = (uint8_t)low;
            *last = (uint8_t)high;
            return low <= high && high <= BUS_LIMIT;
        }
        at += size;
    }
    return false;
}
