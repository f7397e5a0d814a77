#include "hv/guest/raw.h"
#include "hv/lib/fmt.h"

#define SEGMENT_SIZE 0x10000u
#define BOOT_SECTOR  0x7c00u
#define STACK_ROOM   0x1000u /* at least, between the BIOS data area and the stack's top */
#define FIRST_DISK   0x80u   /* DL, as a BIOS hands over to a boot sector */
#define REG_DX       2u

enum status raw_check(const struct guest_source *image, uint32_t load, char *why, size_t why_size)
{
    if (image->size == 0)
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel file is empty");
    if (load >= RAW_FIRST && load < RAW_END && image->size <= RAW_END - load)
        return STATUS_OK;
    return fmt_refuse(
        why, why_size, ERR_INVALID,
        "a raw image of %llu bytes at 0x%x does not end below 0x%llx: load it lower, or make it a "
        "Multiboot kernel",
        (unsigned long long)image->size, load, (unsigned long long)RAW_END);
}

enum status raw_load(const struct guest_source *image, uint32_t load, const struct gmem *g)
{
    struct guest_writer w = {g, STATUS_OK};
    entry_put_bios_data(&w);
    writer_put_source(&w, load, image, 0, image->size);
    return w.status;
}

void raw_entry_state(uint32_t load, struct guest_entry *out)
{
    bool near = load < SEGMENT_SIZE;
    *out = (struct guest_entry){
        .real_mode = true,
        .cs = (uint16_t)(near ? 0 : load >> 4),
        .rip = near ? load : load & 0xf,
        .rsp = near && load >= RAW_FIRST + STACK_ROOM ? load : BOOT_SECTOR,
        .gpr = {[REG_DX] = FIRST_DISK},
    };
}
