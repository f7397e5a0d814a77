#include "hv/guest/e820.h"

uint32_t e820_build(const struct guest_layout *layout, struct e820_entry out[E820_MAX])
{
    uint32_t n = 0;
    out[n++] = (struct e820_entry){0, GUEST_EBDA, E820_RAM};
    out[n++] = (struct e820_entry){GUEST_EBDA, GUEST_VGA - GUEST_EBDA, E820_RESERVED};
    /* ROMs and ACPI tables: memory, but not for use. */
    out[n++] = (struct e820_entry){GUEST_ROM, GUEST_ONE_MIB - GUEST_ROM, E820_RESERVED};
    out[n++] = (struct e820_entry){GUEST_ONE_MIB, layout->low_end - GUEST_ONE_MIB, E820_RAM};
    /* Linux uses ECAM only when it is reserved here (or in the DSDT). */
    out[n++] = (struct e820_entry){GUEST_ECAM, GUEST_ECAM_SIZE, E820_RESERVED};
    /* IOAPIC, local APIC and the rest of the hole. */
    out[n++] = (struct e820_entry){GUEST_IOAPIC, GUEST_FOUR_GIB - GUEST_IOAPIC, E820_RESERVED};
    if (layout->high_end > GUEST_FOUR_GIB)
        out[n++] = (struct e820_entry){GUEST_FOUR_GIB, layout->high_end - GUEST_FOUR_GIB, E820_RAM};
    return n;
}
