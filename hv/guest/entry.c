#include "hv/guest/entry.h"
#include "arch/x86/cpu.h"
#include "hv/guest/layout.h"

#define FLAT_CS 0x10u
#define FLAT_DS 0x18u

/* Code and data: base 0, limit 4 GiB, accessed, present, ring 0. */
static const uint64_t flat_gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};

void entry_put_flat_gdt(struct guest_writer *w)
{
    writer_put(w, GUEST_BOOT_GDT, flat_gdt, sizeof(flat_gdt));
}

void entry_flat32(struct guest_entry *out, uint32_t rip)
{
    *out = (struct guest_entry){
        .rip = rip,
        .rflags = RFLAGS_FIXED_1,
        .cr0 = CR0_PE | CR0_ET | CR0_NE,
        .gdt_base = GUEST_BOOT_GDT,
        .gdt_limit = sizeof(flat_gdt) - 1,
        .cs = FLAT_CS,
        .ds = FLAT_DS,
    };
}
