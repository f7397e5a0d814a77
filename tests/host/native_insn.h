/* The host's own processor as the oracle for instruction semantics. */
#pragma once

#include "arch/x86/insn.h"

enum native_result {
    NATIVE_FORBIDDEN, /* the host allows no executable buffers: nothing was run */
    NATIVE_DONE,
    NATIVE_DIVIDE_ERROR, /* #DE, the registers are as they were */
};

/* Runs one 64-bit instruction with these general registers and status flags, and writes back what it left.
 * The instruction may not use RSP or jump, and may touch memory of the caller only. */
enum native_result native_insn_run(struct span bytes, struct insn_regs *regs);

/* Can this processor run it at all? (MOVBE and some others are optional.) */
bool native_insn_supported(const struct insn *insn);

/* The status flags that the SDM defines after this instruction, run with `regs`. */
uint64_t native_insn_defined_flags(const struct insn *insn, const struct insn_regs *regs);
/* Does the SDM define its result? (A 16-bit SHLD by more than 16 has none.) */
bool native_insn_defined_result(const struct insn *insn, const struct insn_regs *regs);
/* Processors differ in the upper half of a 32-bit destination that an instruction does not change: whichever
 * it is, `after` has then what insn_execute() promises. */
void native_insn_settle(const struct insn *insn, const struct insn_regs *before, struct insn_regs *after);

#define NATIVE_STATUS_FLAGS 0x8d5u /* OF SF ZF AF PF CF */
