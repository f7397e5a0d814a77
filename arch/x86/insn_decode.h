/* Between insn_decode.c and insn_operands.c: the decoder's cursor. Nobody else includes this. */
#pragma once

#include "arch/x86/insn.h"

/* How an opcode names its operands (SDM volume 2, appendix A "Opcode map"). */
enum insn_form {
    FORM_NONE,        /* not in our list */
    FORM_RM_R,        /* Ev,Gv */
    FORM_R_RM,        /* Gv,Ev */
    FORM_R_RM_NARROW, /* Gv,Eb or Gv,Ew: MOVZX, MOVSX */
    FORM_R_RM_DWORD,  /* Gv,Ed: MOVSXD */
    FORM_RM,          /* Ev */
    FORM_RM_SRC,      /* Ev, which is only read: PUSH */
    FORM_RM_IMM,      /* Ev,Iz */
    FORM_RM_IMM8,     /* Ev,Ib sign-extended */
    FORM_RM_BIT,      /* Ev,Ib as a bit offset, or as a count */
    FORM_RM_ONE,      /* Ev,1 */
    FORM_RM_CL,       /* Ev,CL */
    FORM_RM_R_IMM8,   /* Ev,Gv,Ib */
    FORM_RM_R_CL,     /* Ev,Gv,CL */
    FORM_R_RM_IMM,    /* Gv,Ev,Iz */
    FORM_R_RM_IMM8,   /* Gv,Ev,Ib sign-extended */
    FORM_CRC,         /* Gd,Eb or Gd,Ev */
    FORM_PAIR,        /* Mp of two operands' size: CMPXCHG8B, CMPXCHG16B */
    FORM_DST16,       /* Mw, which is only written: SMSW, SLDT, STR */
    FORM_SRC16,       /* Mw, which is only read: LMSW, LLDT, LTR */
    FORM_DST_SREG,    /* Mw,Sw */
    FORM_SRC_SREG,    /* Sw,Mw */
    FORM_DST_TABLE,   /* Ms, a limit and a base: SGDT, SIDT */
    FORM_SRC_TABLE,   /* Ms: LGDT, LIDT */
    FORM_FAR,         /* Mp, an offset and a selector */
    FORM_VECTOR_DST,  /* an XMM or MMX register to memory, and back: struct insn_vector_row says which */
    FORM_VECTOR_SRC,
    FORM_ACC_IMM,    /* rAX,Iz */
    FORM_OPCODE_DST, /* the register in the opcode: POP */
    FORM_OPCODE_SRC, /* PUSH */
    FORM_IMM,        /* Iz: PUSH, CALL */
    FORM_IMM8,       /* Ib sign-extended */
    FORM_ALONE,      /* RET, LEAVE */
    FORM_IMM16,      /* Iw: RET */
    FORM_ENTER,      /* Iw,Ib */
    FORM_ACC_MOFFS,  /* rAX,Ov */
    FORM_MOFFS_ACC,  /* Ov,rAX */
    FORM_MOVS,       /* Yv,Xv */
    FORM_CMPS,       /* Xv,Yv */
    FORM_STOS,       /* Yv,rAX */
    FORM_LODS,       /* rAX,Xv */
    FORM_SCAS,       /* rAX,Yv */
    FORM_INS,        /* Yv,DX */
    FORM_OUTS,       /* DX,Xv */
};

#define INSN_NO_SEGMENT 0xffu /* no segment-override prefix */

#define REX_PRESENT 0x40u
#define REX_W       8u
#define REX_R       4u
#define REX_X       2u
#define REX_B       1u

/* A vector move: its 0F opcode and the 66, F2 or F3 prefix that belongs to it. */
struct insn_vector_row {
    uint8_t opcode, prefix; /* prefix: 0 none */
    uint8_t store : 1, aligned : 1;
    uint8_t detail : 2; /* enum insn_vector */
    uint8_t kind : 4;   /* of the register: INSN_MMX, INSN_XMM */
    uint8_t size;       /* bytes in memory; 0: 4, or 8 with REX.W */
};

/* What has been read so far. */
struct insn_cursor {
    const uint8_t *data;
    uint8_t pos, end;                     /* bytes read, bytes there (at most 15) */
    uint8_t mode;                         /* enum insn_mode */
    uint8_t rex;                          /* 0, or the whole prefix */
    uint8_t segment;                      /* override, INSN_NO_SEGMENT: none */
    uint8_t repeat;                       /* 0xf2 or 0xf3, the last one given */
    bool operand_prefix, address_prefix;  /* 66, 67 */
    uint8_t mod, reg, rm;                 /* ModRM, without REX */
    uint8_t opcode;                       /* its last byte */
    const struct insn_vector_row *vector; /* of a FORM_VECTOR_* */
};

/* With 15 bytes it is the CPU that objects to a 16th (#GP); with fewer it is the caller who has to bring
 * more. */
static inline enum status insn_out_of_bytes(const struct insn_cursor *c)
{
    return c->end >= INSN_MAX_LEN ? ERR_INVALID : ERR_RANGE;
}

static inline enum status insn_next(struct insn_cursor *c, uint8_t *byte)
{
    if (c->pos >= c->end)
        return insn_out_of_bytes(c);
    *byte = c->data[c->pos++];
    return STATUS_OK;
}

/* Reads ModRM into the cursor. */
enum status insn_read_modrm(struct insn_cursor *c);
/* Reads what `form` needs beyond ModRM and fills dst, src and the memory operand of `insn`, whose op, opsize
 * and addrsize are set. `wide` is the opcode's lowest bit. */
enum status insn_read_operands(struct insn_cursor *c, enum insn_form form, bool wide, struct insn *insn);
