#include "hv/guest/entry.h"
#include "arch/x86/cpu.h"
#include "hv/guest/layout.h"

#define FLAT_CS 0x10u
#define FLAT_DS 0x18u

/* Code and data: base 0, limit 4 GiB, accessed, present, ring 0. */
static const uint64_t flat_gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};

/* The BIOS data area at 0040:0000 ("IBM PS/2 and PC BIOS Interface Technical Reference", 1991, section 3). */
#define BDA_COM1         0x400u
#define BDA_EBDA_SEGMENT 0x40eu
#define BDA_EQUIPMENT    0x410u
#define BDA_BASE_MEMORY  0x413u /* KiB */
#define EQUIPMENT_FPU    0x0002u
#define EQUIPMENT_1_UART 0x0200u
#define COM1_PORT        0x3f8u

void entry_put_bios_data(struct guest_writer *w)
{
    writer_put_zeros(w, 0, GUEST_BIOS_END);
    writer_put_value(w, BDA_COM1, COM1_PORT, 2);
    writer_put_value(w, BDA_EBDA_SEGMENT, GUEST_EBDA >> 4, 2);
    writer_put_value(w, BDA_EQUIPMENT, EQUIPMENT_FPU | EQUIPMENT_1_UART, 2);
    writer_put_value(w, BDA_BASE_MEMORY, GUEST_EBDA >> 10, 2);
    writer_put_zeros(w, GUEST_EBDA, GUEST_VGA - GUEST_EBDA);
    writer_put_value(w, GUEST_EBDA, (GUEST_VGA - GUEST_EBDA) >> 10, 1); /* its size in KiB */
    writer_put_zeros(w, GUEST_ROM, GUEST_ONE_MIB - GUEST_ROM);
}

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
