/* Between insn_execute.c and insn_rare.c: what instructions have in common. Nobody else includes this. */
#pragma once

#include "arch/x86/insn.h"
#include "hv/lib/bits.h"

#define FLAG_CF      BIT(0)
#define FLAG_PF      BIT(2)
#define FLAG_AF      BIT(4)
#define FLAG_ZF      BIT(6)
#define FLAG_SF      BIT(7)
#define FLAG_OF      BIT(11)
#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

static inline uint64_t insn_sign_of(uint64_t value, unsigned size)
{
    return (value >> (size * 8 - 1)) & 1;
}

static inline void insn_set_flags(struct insn_regs *regs, uint64_t mask, uint64_t flags)
{
    regs->rflags = (regs->rflags & ~mask) | (flags & mask);
}

/* SF, ZF and PF of a result. */
uint64_t insn_result_flags(uint64_t result, unsigned size);
/* To the register, or to *mem_out. */
void insn_write_operand(const struct insn_operand *op, struct insn_regs *regs, uint64_t value,
                        uint64_t *mem_out);
/* insn_execute() with the destination's value `a` and the source's `b`. */
enum status insn_execute_rare(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                              uint64_t *mem_out);
