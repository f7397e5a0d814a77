/* The MSR bitmap and the I/O bitmaps of a VM (SDM 25.6.4 and 25.6.9). Pure: they only fill pages. A set bit
 * means "exit"; all bits are set at first, so what nobody thought about is intercepted. */
#pragma once

#include "hv/lib/types.h"

#define VMX_BITMAP_SIZE 4096u /* bytes; each bitmap is one page-aligned page */

/* Every MSR access exits. */
void vmx_msr_bitmap_init(uint8_t page[VMX_BITMAP_SIZE]);

/* Lets reads and writes of one MSR pass without exit, or not: both directions are set as told. ERR_RANGE: the
 * MSR is outside 0..0x1fff and 0xc0000000..0xc0001fff; the hardware always exits for those, and the page is
 * untouched. */
enum status vmx_msr_bitmap_pass(uint8_t page[VMX_BITMAP_SIZE], uint32_t msr, bool read, bool write);

/* Would an access exit? (What the hardware does with this page: for tests and for checks at run time.) */
bool vmx_msr_bitmap_exits(const uint8_t page[VMX_BITMAP_SIZE], uint32_t msr, bool write);

/* Every port access exits. a: ports 0..0x7fff, b: ports 0x8000..0xffff. */
void vmx_io_bitmap_init(uint8_t a[VMX_BITMAP_SIZE], uint8_t b[VMX_BITMAP_SIZE]);
