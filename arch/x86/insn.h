/* The instruction decoder and the semantics of the few instructions that can reach emulated MMIO. Pure: bytes in,
 * description out; then operands in, result and flags out. It never touches guest state. */
#pragma once

#include "hv/lib/types.h"

#define INSN_MAX_LEN 15u

enum insn_mode { INSN_MODE_16, INSN_MODE_32, INSN_MODE_64 };

enum insn_op {
    INSN_MOV,     /* store or load */
    INSN_MOVZX, INSN_MOVSX, /* and MOVSXD */
    INSN_MOVS, INSN_STOS, INSN_LODS, INSN_CMPS, INSN_SCAS,
    INSN_INS, INSN_OUTS,
    INSN_AND, INSN_OR, INSN_XOR, INSN_ADD, INSN_SUB, INSN_ADC, INSN_SBB,
    INSN_CMP, INSN_TEST, INSN_XCHG, INSN_CMPXCHG, INSN_XADD,
    INSN_INC, INSN_DEC, INSN_NOT, INSN_NEG,
    INSN_BT, INSN_BTS, INSN_BTR, INSN_BTC,
    INSN_PUSH, INSN_POP,
    INSN_OP_COUNT
};

enum insn_operand_kind { INSN_NONE, INSN_REG, INSN_MEM, INSN_IMM };

struct insn_operand {
    uint8_t kind;  /* enum insn_operand_kind */
    uint8_t size;  /* bytes: 1, 2, 4, 8 */
    uint8_t reg;   /* 0..15 */
    bool high_byte; /* AH, CH, DH, BH: reg is 0..3 */
    uint64_t imm;  /* sign-extended to 64 bits as the instruction defines */
};

/* Decoded instruction. dst/src in Intel order; at most one is INSN_MEM (MOVS/CMPS have two, implicit). */
struct insn {
    uint8_t length;
    uint8_t op;          /* enum insn_op */
    uint8_t opsize;      /* bytes: 1, 2, 4, 8 */
    uint8_t addrsize;    /* bytes: 2, 4, 8 */
    bool lock, rep, repne;
    uint8_t segment;     /* effective segment of the memory operand: 0 ES 1 CS 2 SS 3 DS 4 FS 5 GS */
    bool rip_relative;
    int8_t base, index;  /* register numbers, -1 none */
    uint8_t scale;       /* 1, 2, 4, 8 */
    int64_t disp;
    struct insn_operand dst, src;
};

/* Decodes from `bytes` (at most 15 are looked at). ERR_RANGE: more bytes needed than given (and < 15 given).
 * ERR_UNSUPPORTED: not an instruction of this list. ERR_INVALID: the CPU would raise #UD or #GP (too long, LOCK
 * where it is not allowed). */
enum status insn_decode(struct span bytes, enum insn_mode mode, struct insn *out);

/* The guest's general registers in ModRM order (RAX RCX RDX RBX RSP RBP RSI RDI R8..R15). */
struct insn_regs {
    uint64_t gpr[16];
    uint64_t rip;    /* of the instruction */
    uint64_t rflags;
};

/* Offset of the memory operand within its segment (truncated to the address size; BT* with a register bit offset
 * included). For string instructions: the source (MOVS, LODS, CMPS, OUTS) or destination (STOS, SCAS, INS). */
uint64_t insn_effective_offset(const struct insn *insn, const struct insn_regs *regs);

/* Reads/writes an operand register with x86's rules (32-bit writes clear the upper half). */
uint64_t insn_reg_read(const struct insn_operand *op, const struct insn_regs *regs);
void insn_reg_write(const struct insn_operand *op, struct insn_regs *regs, uint64_t value);

/* Does the instruction read / write its memory operand? (STOS: write only. MOVS: see hv/emulate.c.) */
bool insn_reads_memory(const struct insn *insn);
bool insn_writes_memory(const struct insn *insn);

/* Executes everything but string instructions, PUSH and POP: `mem_in` is the memory operand's old value (when read);
 * sets *mem_out (when written), registers and RFLAGS in regs. RIP is not moved. CMPXCHG writes the old value back on
 * inequality, as the CPU does. */
enum status insn_execute(const struct insn *insn, struct insn_regs *regs, uint64_t mem_in, uint64_t *mem_out);

const char *insn_op_name(enum insn_op op);
