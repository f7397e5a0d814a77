/* The host's own processor as the oracle for instruction semantics. */
#pragma once

#include "arch/x86/insn.h"

/* Runs one 64-bit instruction with these general registers and status flags, and writes back what it left.
 * The instruction may not use RSP or jump, and may touch memory of the caller only. False: the host forbids
 * executable buffers, nothing was run. */
bool native_insn_run(struct span bytes, struct insn_regs *regs);

/* Can this processor run it at all? (MOVBE is optional.) */
bool native_insn_supported(const struct insn *insn);

/* The status flags that the SDM defines after this instruction. */
uint64_t native_insn_defined_flags(const struct insn *insn);

#define NATIVE_STATUS_FLAGS 0x8d5u /* OF SF ZF AF PF CF */
