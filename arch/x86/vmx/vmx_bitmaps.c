#include "arch/x86/vmx/vmx_bitmaps.h"

#include "hv/lib/string.h"

/* Layout of the MSR bitmap, SDM 25.6.9: four bitmaps of 1 KiB, read low, read high, write low, write high. */
#define MSR_LOW_FIRST    0x00000000u
#define MSR_HIGH_FIRST   0xc0000000u
#define MSR_RANGE        0x2000u
#define MSR_HIGH_OFFSET  1024u
#define MSR_WRITE_OFFSET 2048u

void vmx_msr_bitmap_init(uint8_t page[VMX_BITMAP_SIZE])
{
    memset(page, 0xff, VMX_BITMAP_SIZE);
}

/* Byte that holds the read bit of an MSR, and its bit in there; false: no bitmap covers it. */
static bool locate(uint32_t msr, unsigned *byte, uint8_t *mask)
{
    unsigned base;
    if (msr - MSR_LOW_FIRST < MSR_RANGE)
        base = 0;
    else if (msr - MSR_HIGH_FIRST < MSR_RANGE)
        base = MSR_HIGH_OFFSET;
    else
        return false;
    *byte = base + (msr % MSR_RANGE) / 8;
    *mask = (uint8_t)(1u << (msr % 8));
    return true;
}

static void set_bit(uint8_t *byte, uint8_t mask, bool exits)
{
    *byte = (uint8_t)(exits ? *byte | mask : *byte & ~mask);
}

enum status vmx_msr_bitmap_pass(uint8_t page[VMX_BITMAP_SIZE], uint32_t msr, bool read, bool write)
{
    unsigned byte;
    uint8_t mask;
    if (!locate(msr, &byte, &mask))
        return ERR_RANGE;
    set_bit(&page[byte], mask, !read);
    set_bit(&page[byte + MSR_WRITE_OFFSET], mask, !write);
    return STATUS_OK;
}

bool vmx_msr_bitmap_exits(const uint8_t page[VMX_BITMAP_SIZE], uint32_t msr, bool write)
{
    unsigned byte;
    uint8_t mask;
    if (!locate(msr, &byte, &mask))
        return true;
    return page[byte + (write ? MSR_WRITE_OFFSET : 0)] & mask;
}

void vmx_io_bitmap_init(uint8_t a[VMX_BITMAP_SIZE], uint8_t b[VMX_BITMAP_SIZE])
{
    memset(a, 0xff, VMX_BITMAP_SIZE);
    memset(b, 0xff, VMX_BITMAP_SIZE);
}
