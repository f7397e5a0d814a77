/* Loading a segment register of a guest from its descriptor tables, as its CPU would (SDM volume 3, chapter
 * "Protection"). */
#pragma once

#include "hv/exits/emulation.h"

#define SELECTOR_RPL   3u
#define SELECTOR_LOCAL 4u /* TI: in the LDT */

/* Bits of seg.access. */
#define SEG_TYPE_ACCESSED   1u /* of code and data */
#define SEG_TYPE_READABLE   2u /* of code; of data: writable */
#define SEG_TYPE_CONFORMING 4u /* of code */
#define SEG_TYPE_CODE       8u
#define SEG_TYPE_MASK       0xfu
#define SEG_TYPE_LDT        2u
#define SEG_TYPE_TSS16      1u
#define SEG_TYPE_TSS32      9u
#define SEG_TYPE_TSS_BUSY   2u /* the bit that makes either of them busy */
#define SEG_NOT_SYSTEM      (1u << 4)
#define SEG_DPL_SHIFT       5
#define SEG_PRESENT         (1u << 7)

struct segment_load {
    uint8_t name; /* enum seg_name */
    uint8_t cpl;
    uint8_t invalid;  /* vector for what may not be loaded: #GP, or #TS in a task switch */
    uint8_t external; /* 1: EXT in error codes, the program did not cause this */
    uint16_t selector;
};

static inline unsigned segment_dpl(uint32_t access)
{
    return access >> SEG_DPL_SHIFT & 3;
}

/* Checks the selector and its descriptor and makes *out, marking the descriptor as accessed, or, a TSS's
 * (LTR), as busy; the register is not set. Not for real-address and virtual-8086 mode. False: e->failure says
 * what to do. */
bool segment_load(struct emulation *e, const struct segment_load *load, struct seg *out);
/* Reads a descriptor without judging it: its place in *at. False as above, e->failure the load's `invalid`
 * fault when it lies outside its table. */
bool segment_read(struct emulation *e, const struct segment_load *load, struct seg *out, gva_t *at);
/* Sets or clears bits of the type in the descriptor at `at`. */
bool segment_mark(struct emulation *e, gva_t at, uint8_t set, uint8_t clear);
/* Accesses and probes as the processor makes for itself: with supervisor rights, whatever the CPL. */
bool segment_access(struct emulation *e, gva_t linear, unsigned size, bool write, uint64_t *value);
bool segment_probe(struct emulation *e, gva_t linear, unsigned size, bool write);
/* The segment register as real-address and virtual-8086 mode (`access`) have it. */
struct seg segment_real(uint16_t selector, uint32_t access);
