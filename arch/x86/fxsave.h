/* XMM and MMX registers in an FXSAVE image (SDM volume 1, table 10-2 "Non-64-bit-mode layout of FXSAVE and
 * FXRSTOR memory region"; the registers lie where they lie in 64-bit mode, too). Pure. */
#pragma once

#include "arch/x86/insn.h"

#define FXSAVE_SIZE  512u
#define FXSAVE_ALIGN 16u

/* Is an unmasked x87 exception pending, which the next MMX instruction would raise as #MF? */
bool fxsave_x87_error(const uint8_t *image);
/* The part of register `number` that a store moves, and what a load puts into it. */
void fxsave_get(const uint8_t *image, bool mmx, unsigned number, enum insn_vector part, uint64_t value[2]);
void fxsave_set(uint8_t *image, bool mmx, unsigned number, enum insn_vector part, const uint64_t value[2]);
/* What every MMX instruction does beside: TOP becomes 0 and no register is empty (SDM volume 3, 12.2). Comes
 * after fxsave_set(). */
void fxsave_enter_mmx(uint8_t *image);
