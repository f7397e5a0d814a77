/* How vCPU 0 begins, whatever kind of guest it is. As after a reset; in real mode at cs:rip, all else as
 * after a reset; or with flat segments: base 0, limit 4 GiB. */
#pragma once

#include "hv/guest/source.h"

#define GUEST_GPRS 16u /* in the order of instruction encodings: RAX, RCX, RDX, RBX, RSP, ... */

struct guest_entry {
    uint64_t rip, rsp, rflags;
    uint64_t cr0, cr3, cr4, efer;
    uint64_t gdt_base;
    uint16_t gdt_limit;
    uint16_t cs, ds;          /* selectors; `ds` is that of all data segments */
    bool reset_vector;        /* nothing else counts */
    bool real_mode;           /* only cs, rip, rsp and gpr count */
    bool long_mode;           /* CS is a 64-bit segment; else a 32-bit one */
    uint64_t gpr[GUEST_GPRS]; /* RSP's place is not used */
};

/* What a PC's BIOS leaves behind, whatever is loaded: interrupt vectors (zeros: nobody is behind them), the
 * data area, the first byte of the EBDA, and zeros where ROMs are. Kernels look there for the end of low
 * memory. */
void entry_put_bios_data(struct guest_writer *w);

/* A descriptor table with flat 32-bit code and data, and what a guest begins with that uses it: protected
 * mode without paging, interrupts off, all registers but EIP 0. */
void entry_put_flat_gdt(struct guest_writer *w);
void entry_flat32(struct guest_entry *out, uint32_t rip);
