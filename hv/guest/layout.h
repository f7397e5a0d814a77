/* The guest-physical address space: the one place that says what lives where.
 *
 *   0          .. 9f000     RAM; boot page tables, zero page, command line (hv/guest/linux.c)
 *   9f000      .. a0000     RAM, reserved (where a PC has its EBDA)
 *   a0000      .. c0000     nothing (VGA on a PC)
 *   c0000      .. 100000    RAM, reserved: zeros where a PC has ROMs, ACPI tables from e0000
 *   100000     .. low_end   RAM, at most up to c0000000
 *   c0000000   .. e0000000  PCI memory window
 *   e0000000   .. f0000000  PCI configuration space (ECAM), buses 0..255
 *   f0000000   .. fec00000  PCI memory window
 *   fec00000   .. 100000000 IOAPIC, local APIC, top of the hole
 *   100000000  .. high_end  RAM, what did not fit below
 *   next GiB   .. the end   PCI memory window (hv/guest/pci_place.h) */
#pragma once

#include "hv/gmem.h"
#include "hv/pmem.h"

#define GUEST_BIOS_END     0x500ull /* interrupt vectors and the BIOS data area */
#define GUEST_EBDA         0x9f000ull
#define GUEST_VGA          0xa0000ull
#define GUEST_ROM          0xc0000ull
#define GUEST_ACPI         0xe0000ull
#define GUEST_ACPI_SIZE    0x20000ull
#define GUEST_ONE_MIB      0x100000ull
#define GUEST_PCI_HOLE     0xc0000000ull
#define GUEST_PCI_LOW_END  0xe0000000ull
#define GUEST_ECAM         0xe0000000ull
#define GUEST_ECAM_SIZE    0x10000000ull
#define GUEST_PCI_HIGH     0xf0000000ull
#define GUEST_PCI_HIGH_END 0xfec00000ull
#define GUEST_IOAPIC       0xfec00000ull
#define GUEST_LAPIC        0xfee00000ull
#define GUEST_FOUR_GIB     0x100000000ull

/* What a loader leaves below GUEST_EBDA, for all protocols alike. No specification gives a stack; one is
 * better than none. */
#define GUEST_BOOT_GDT       0x1000u
#define GUEST_BOOT_STACK_TOP 0x2000u
#define GUEST_BOOT_FREE      0x2000u /* up to the next: for a kernel that wants to lie there */
#define GUEST_BOOT_INFO      0x10000u

#define GUEST_MEMORY_MIN (8ull << 20)
#define GUEST_MEMORY_MAX (1ull << 40) /* fits below every address width we show */

struct guest_layout {
    uint64_t memory;   /* bytes, as configured */
    uint64_t low_end;  /* end of RAM below the PCI hole */
    uint64_t high_end; /* end of RAM above 4 GiB; GUEST_FOUR_GIB: none there */
};

/* ERR_RANGE: less than GUEST_MEMORY_MIN, more than GUEST_MEMORY_MAX; ERR_INVALID: not a multiple of 2 MiB. */
enum status guest_layout_init(struct guest_layout *layout, uint64_t memory);
/* Places extents (as pmem_alloc gave them; together exactly layout->memory) as RAM into `g`, in order.
 * g->extents is then also what the EPT has to map. The 128 KiB behind the VGA window stay unused. */
enum status guest_layout_fill(const struct guest_layout *layout, const struct pmem_extent *extents,
                              uint32_t count, struct gmem *g);
