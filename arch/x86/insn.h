/* The instruction decoder and the semantics of the instructions that can reach emulated MMIO. Pure: bytes
 * in, description out; then operands in, result and flags out. It never touches guest state.
 *
 * insn_decode.c    prefixes, opcode tables, the rules about legality
 * insn_operands.c  ModRM, SIB, displacements, immediates; effective addresses
 * insn_execute.c   registers, results, flags
 * insn_rare.c      the same for what drivers do not do to a device */
#pragma once

#include "hv/lib/types.h"

#define INSN_MAX_LEN 15u

enum insn_mode { INSN_MODE_16, INSN_MODE_32, INSN_MODE_64 };

enum insn_op {
    INSN_MOV, /* store or load; MOVNTI too */
    INSN_MOVBE,
    INSN_MOVZX,
    INSN_MOVSX, /* and MOVSXD */
    INSN_MOVS,
    INSN_STOS,
    INSN_LODS,
    INSN_CMPS,
    INSN_SCAS,
    INSN_INS,
    INSN_OUTS,
    INSN_AND,
    INSN_OR,
    INSN_XOR,
    INSN_ADD,
    INSN_SUB,
    INSN_ADC,
    INSN_SBB,
    INSN_CMP,
    INSN_TEST,
    INSN_XCHG,
    INSN_CMPXCHG,
    INSN_XADD,
    INSN_INC,
    INSN_DEC,
    INSN_NOT,
    INSN_NEG,
    INSN_BT,
    INSN_BTS,
    INSN_BTR,
    INSN_BTC,
    INSN_ROL, /* the first one that insn_rare.c executes */
    INSN_ROR,
    INSN_RCL,
    INSN_RCR,
    INSN_SHL,
    INSN_SHR,
    INSN_SAR,
    INSN_SHLD,
    INSN_SHRD,
    INSN_CMOV, /* on condition `detail` */
    INSN_IMUL, /* of two or three operands */
    INSN_MUL,  /* to DIV: of rDX:rAX, or AX */
    INSN_IMUL_WIDE,
    INSN_DIV,
    INSN_IDIV,
    INSN_BSF,
    INSN_BSR,
    INSN_TZCNT, /* BSF and BSR on a processor that lacks TZCNT and LZCNT */
    INSN_LZCNT,
    INSN_POPCNT,
    INSN_CRC32,
    INSN_CMPXCHG8B,
    INSN_SET,  /* on condition `detail` */
    INSN_PUSH, /* the first one that insn_execute() leaves to its caller */
    INSN_CALL, /* near: to an immediate displacement, or through a memory operand */
    INSN_RET,  /* near */
    INSN_ENTER,
    INSN_LEAVE,
    INSN_JMP,     /* near, through a memory operand (FF /4) */
    INSN_JMP_FAR, /* FF /5 */
    INSN_CMPXCHG16B,
    INSN_LOAD_SEG, /* MOV Sreg, m16 */
    INSN_LMSW,
    INSN_LGDT,
    INSN_LIDT,
    INSN_LLDT,
    INSN_LTR,
    INSN_POP,       /* the first one that only writes a memory operand */
    INSN_STORE_SEG, /* MOV m16, Sreg */
    INSN_SMSW,
    INSN_SGDT,
    INSN_SIDT,
    INSN_SLDT,
    INSN_STR,
    INSN_VECTOR, /* a move from or to an XMM or MMX register, `detail` is its enum insn_vector */
    INSN_OP_COUNT
};

enum insn_operand_kind { INSN_NONE, INSN_REG, INSN_MEM, INSN_IMM, INSN_SREG, INSN_MMX, INSN_XMM };

/* Which part of the XMM register moves. A load with INSN_VECTOR_LOW clears what is above; the other two leave
 * the other half. MMX registers move as a whole. */
enum insn_vector { INSN_VECTOR_ALL, INSN_VECTOR_LOW, INSN_VECTOR_LOW_HALF, INSN_VECTOR_HIGH_HALF };

/* Segment numbers, as in the ModRM encoding of segment registers and in enum seg_name. */
enum insn_segment { INSN_ES, INSN_CS, INSN_SS, INSN_DS, INSN_FS, INSN_GS };

struct insn_operand {
    uint8_t kind;   /* enum insn_operand_kind */
    uint8_t size;   /* bytes: 1, 2, 4, 8; memory of the rare ones also 6, 10, 16 */
    uint8_t reg;    /* 0..15 */
    bool high_byte; /* AH, CH, DH, BH: reg is 0..3 */
    uint64_t imm;   /* sign-extended to 64 bits as the instruction defines; a bit offset (0F BA) is not */
};

/* Decoded instruction. dst/src in Intel order; at most one is INSN_MEM, but for MOVS and CMPS, which have
 * two: for them base, segment and disp describe the one at rSI, and the other is always at ES:rDI. */
struct insn {
    uint8_t length;
    uint8_t op;       /* enum insn_op */
    uint8_t opsize;   /* bytes: 1, 2, 4, 8 */
    uint8_t addrsize; /* bytes: 2, 4, 8 */
    bool lock;        /* the prefix; XCHG with memory is locked without it too */
    bool rep, repne;  /* string instructions only. Without CMPS and SCAS F2 repeats as F3 does: rep is set for
                         both */
    uint8_t segment;  /* effective segment of the memory operand: enum insn_segment */
    bool rip_relative;  /* disp counts from the next instruction */
    int8_t base, index; /* register numbers, -1 none */
    uint8_t scale;      /* 1, 2, 4, 8 */
    uint8_t detail; /* INSN_CMOV, INSN_SET: the condition's number (SDM volume 1, appendix B); INSN_VECTOR */
    bool aligned;   /* INSN_VECTOR: #GP where the address is not a multiple of 16 */
    int64_t disp;
    struct insn_operand dst, src;
    struct insn_operand third; /* SHLD, SHRD: the count; IMUL: the immediate; ENTER: the nesting level */
};

/* Decodes from `bytes` (at most 15 are looked at). ERR_RANGE: more bytes needed than given (and < 15 given).
 * ERR_UNSUPPORTED: not an instruction of this list. ERR_INVALID: the CPU would raise #UD (LOCK where it is
 * not allowed, a register where memory is required) or #GP (too long). On failure *out is unspecified. */
enum status insn_decode(struct span bytes, enum insn_mode mode, struct insn *out);

/* The guest's general registers in ModRM order (RAX RCX RDX RBX RSP RBP RSI RDI R8..R15). */
struct insn_regs {
    uint64_t gpr[16];
    uint64_t rip; /* of the instruction */
    uint64_t rflags;
};

/* Offset of the memory operand within its segment (truncated to the address size; BT* with a register bit
 * offset included; POP with rSP as its base counts from rSP after the pop). For string instructions: the
 * source (MOVS, LODS, CMPS, OUTS) or destination (STOS, SCAS, INS). */
uint64_t insn_effective_offset(const struct insn *insn, const struct insn_regs *regs);

/* Bytes of the memory operand; 0 when the instruction has none. */
uint8_t insn_memory_size(const struct insn *insn);

/* Reads/writes an operand register with x86's rules (32-bit writes clear the upper half). */
uint64_t insn_reg_read(const struct insn_operand *op, const struct insn_regs *regs);
void insn_reg_write(const struct insn_operand *op, struct insn_regs *regs, uint64_t value);

/* Does the instruction read / write its memory operand? (STOS: write only. MOVS: both, of two operands.) */
bool insn_reads_memory(const struct insn *insn);
bool insn_writes_memory(const struct insn *insn);

/* Executes everything but string instructions and those from INSN_PUSH on (ERR_UNSUPPORTED, nothing changed):
 * `mem_in` is the memory operand's old value (when read); sets *mem_out (when written), registers and RFLAGS
 * in regs. RIP is not moved. CMPXCHG writes the old value back on inequality, as the CPU does. ERR_RANGE: a
 * division that ends in #DE, nothing changed. Flags that the SDM calls undefined keep their old values: AF of
 * AND, OR, XOR, TEST; OF, SF, AF and PF of BT, BTS, BTR, BTC; see insn_rare.c for the others. */
enum status insn_execute(const struct insn *insn, struct insn_regs *regs, uint64_t mem_in, uint64_t *mem_out);

/* CMPXCHG16B on the 16 bytes of `memory`: they, RDX:RAX and ZF are changed. */
void insn_cmpxchg16b(struct insn_regs *regs, uint64_t memory[2]);

/* String instructions, one element at a time; the caller moves the data. */
bool insn_is_string(const struct insn *insn);
/* Elements still to do: rCX of the address size with a repeat prefix, else 1. */
uint64_t insn_string_count(const struct insn *insn, const struct insn_regs *regs);
/* Offset of the ES:rDI operand of MOVS, CMPS, STOS, SCAS, INS. */
uint64_t insn_string_di(const struct insn *insn, const struct insn_regs *regs);
/* Steps rSI and/or rDI over `count` elements in the direction of RFLAGS.DF, and counts rCX down when
 * repeating. */
void insn_string_advance(const struct insn *insn, struct insn_regs *regs, uint64_t count);
/* CMPS, SCAS: sets the flags of `first` - `second` (CMPS: rSI's and rDI's element, SCAS: accumulator and
 * rDI's). */
void insn_string_compare(const struct insn *insn, struct insn_regs *regs, uint64_t first, uint64_t second);
/* After insn_string_advance (and insn_string_compare): is there another element to do? */
bool insn_string_continues(const struct insn *insn, const struct insn_regs *regs);

const char *insn_op_name(enum insn_op op); /* "MOVZX", never NULL */
