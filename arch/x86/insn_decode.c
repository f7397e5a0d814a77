/* Prefixes and opcodes (SDM volume 2, chapter 2 "Instruction format" and appendix A "Opcode map"). */
#include "arch/x86/insn_decode.h"

#define OP_LOCKABLE  0x01u  /* LOCK is allowed with a memory destination */
#define OP_NO_BYTE   0x02u  /* the opcode's lowest bit does not mean "byte-sized" */
#define OP_ONLY_64   0x04u  /* another instruction outside 64-bit mode */
#define OP_NOT_64    0x08u  /* #UD in 64-bit mode */
#define OP_MEMORY    0x10u  /* the register form is #UD */
#define OP_STACK     0x20u  /* 64-bit operands by default in 64-bit mode */
#define OP_PORT      0x40u  /* operands of 4 bytes at most */
#define OP_MOVNTI    0x80u  /* never 16-bit; with 66, F2 or F3 it is not this instruction */
#define OP_BYTE      0x100u /* byte-sized whatever the opcode's lowest bit says */
#define OP_NEAR      0x200u /* 64-bit operands in 64-bit mode, whatever the prefixes say */
#define OP_ELSEWHERE 0x400u /* the register form exists, but is not in our list */

struct insn_opcode {
    uint8_t op;   /* enum insn_op, with FORM_GROUP below: number of the group */
    uint8_t form; /* enum insn_form */
    uint16_t flags;
};

/* ModRM.reg selects the instruction; a form of this table only. */
#define FORM_GROUP 0x80u

enum insn_group {
    GROUP_1,
    GROUP_1_IMM8,
    GROUP_1A,
    GROUP_2_IMM8,
    GROUP_2_ONE,
    GROUP_2_CL,
    GROUP_3,
    GROUP_4,
    GROUP_5,
    GROUP_6,
    GROUP_7,
    GROUP_8,
    GROUP_9,
    GROUP_11,
    GROUP_COUNT
};

#define GROUP_1_ROWS(form)                                                                                   \
    {                                                                                                        \
        {INSN_ADD, form, OP_LOCKABLE}, {INSN_OR, form, OP_LOCKABLE}, {INSN_ADC, form, OP_LOCKABLE},          \
            {INSN_SBB, form, OP_LOCKABLE}, {INSN_AND, form, OP_LOCKABLE}, {INSN_SUB, form, OP_LOCKABLE},     \
            {INSN_XOR, form, OP_LOCKABLE},                                                                   \
        {                                                                                                    \
            INSN_CMP, form, 0                                                                                \
        }                                                                                                    \
    }

/* 6 is not in the SDM, but every CPU has it as an alias of 4. */
#define GROUP_2_ROWS(form)                                                                                   \
    {                                                                                                        \
        {INSN_ROL, form, 0}, {INSN_ROR, form, 0}, {INSN_RCL, form, 0}, {INSN_RCR, form, 0},                  \
            {INSN_SHL, form, 0}, {INSN_SHR, form, 0}, {INSN_SHL, form, 0},                                   \
        {                                                                                                    \
            INSN_SAR, form, 0                                                                                \
        }                                                                                                    \
    }

static const struct insn_opcode groups[GROUP_COUNT][8] = {
    [GROUP_1] = GROUP_1_ROWS(FORM_RM_IMM),
    [GROUP_1_IMM8] = GROUP_1_ROWS(FORM_RM_IMM8),
    [GROUP_1A] = {[0] = {INSN_POP, FORM_RM, OP_STACK}}, /* 1..7 is AMD's XOP prefix */
    [GROUP_2_IMM8] = GROUP_2_ROWS(FORM_RM_BIT),
    [GROUP_2_ONE] = GROUP_2_ROWS(FORM_RM_ONE),
    [GROUP_2_CL] = GROUP_2_ROWS(FORM_RM_CL),
    [GROUP_3] = {[0] = {INSN_TEST, FORM_RM_IMM, 0},
                 [1] = {INSN_TEST, FORM_RM_IMM,
                        0}, /* not in the SDM, but every CPU has it as an alias of /0 */
                 [2] = {INSN_NOT, FORM_RM, OP_LOCKABLE},
                 [3] = {INSN_NEG, FORM_RM, OP_LOCKABLE},
                 [4] = {INSN_MUL, FORM_RM_SRC, 0},
                 [5] = {INSN_IMUL_WIDE, FORM_RM_SRC, 0},
                 [6] = {INSN_DIV, FORM_RM_SRC, 0},
                 [7] = {INSN_IDIV, FORM_RM_SRC, 0}},
    [GROUP_4] = {[0] = {INSN_INC, FORM_RM, OP_LOCKABLE}, [1] = {INSN_DEC, FORM_RM, OP_LOCKABLE}},
    [GROUP_5] = {[0] = {INSN_INC, FORM_RM, OP_LOCKABLE},
                 [1] = {INSN_DEC, FORM_RM, OP_LOCKABLE},
                 [2] = {INSN_CALL, FORM_RM_SRC, OP_NEAR | OP_ELSEWHERE},
                 [4] = {INSN_JMP, FORM_RM_SRC, OP_NEAR | OP_ELSEWHERE},
                 [5] = {INSN_JMP_FAR, FORM_FAR, OP_MEMORY},
                 [6] = {INSN_PUSH, FORM_RM_SRC, OP_STACK}},
    [GROUP_6] = {[0] = {INSN_SLDT, FORM_DST16, OP_NO_BYTE | OP_ELSEWHERE},
                 [1] = {INSN_STR, FORM_DST16, OP_NO_BYTE | OP_ELSEWHERE},
                 [2] = {INSN_LLDT, FORM_SRC16, OP_NO_BYTE | OP_ELSEWHERE},
                 [3] = {INSN_LTR, FORM_SRC16, OP_NO_BYTE | OP_ELSEWHERE}},
    [GROUP_7] = {[0] = {INSN_SGDT, FORM_DST_TABLE, OP_NO_BYTE | OP_ELSEWHERE},
                 [1] = {INSN_SIDT, FORM_DST_TABLE, OP_NO_BYTE | OP_ELSEWHERE},
                 [2] = {INSN_LGDT, FORM_SRC_TABLE, OP_NO_BYTE | OP_ELSEWHERE},
                 [3] = {INSN_LIDT, FORM_SRC_TABLE, OP_NO_BYTE | OP_ELSEWHERE},
                 [4] = {INSN_SMSW, FORM_DST16, OP_NO_BYTE | OP_ELSEWHERE},
                 [6] = {INSN_LMSW, FORM_SRC16, OP_NO_BYTE | OP_ELSEWHERE}},
    [GROUP_8] = {[4] = {INSN_BT, FORM_RM_BIT, OP_NO_BYTE},
                 [5] = {INSN_BTS, FORM_RM_BIT, OP_NO_BYTE | OP_LOCKABLE},
                 [6] = {INSN_BTR, FORM_RM_BIT, OP_NO_BYTE | OP_LOCKABLE},
                 [7] = {INSN_BTC, FORM_RM_BIT, OP_NO_BYTE | OP_LOCKABLE}},
    [GROUP_9] = {[1] = {INSN_CMPXCHG8B, FORM_PAIR, OP_NO_BYTE | OP_LOCKABLE | OP_MEMORY}},
    [GROUP_11] = {[0] = {INSN_MOV, FORM_RM_IMM, 0}}, /* 7 is XABORT and XBEGIN */
};

#define ROW_PAIR(first, op, form, flags) [first] = {op, form, flags}, [(first) + 1] = {op, form, flags}
#define ROW_FOUR(first, op, form, flags)                                                                     \
    ROW_PAIR(first, op, form, flags), ROW_PAIR((first) + 2, op, form, flags)
#define ROW_EIGHT(first, op, form, flags)                                                                    \
    ROW_FOUR(first, op, form, flags), ROW_FOUR((first) + 4, op, form, flags)
#define ROW_SIXTEEN(first, op, form, flags)                                                                  \
    ROW_FOUR(first, op, form, flags), ROW_FOUR((first) + 4, op, form, flags),                                \
        ROW_FOUR((first) + 8, op, form, flags), ROW_FOUR((first) + 12, op, form, flags)
#define ROW_GROUP_PAIR(first, group) ROW_PAIR(first, group, FORM_GROUP, 0)
#define ROW_ARITHMETIC(first, op, flags)                                                                     \
    ROW_PAIR(first, op, FORM_RM_R, flags), ROW_PAIR((first) + 2, op, FORM_R_RM, 0),                          \
        ROW_PAIR((first) + 4, op, FORM_ACC_IMM, 0)

static const struct insn_opcode one_byte[256] = {
    ROW_ARITHMETIC(0x00, INSN_ADD, OP_LOCKABLE),
    ROW_ARITHMETIC(0x08, INSN_OR, OP_LOCKABLE),
    ROW_ARITHMETIC(0x10, INSN_ADC, OP_LOCKABLE),
    ROW_ARITHMETIC(0x18, INSN_SBB, OP_LOCKABLE),
    ROW_ARITHMETIC(0x20, INSN_AND, OP_LOCKABLE),
    ROW_ARITHMETIC(0x28, INSN_SUB, OP_LOCKABLE),
    ROW_ARITHMETIC(0x30, INSN_XOR, OP_LOCKABLE),
    ROW_ARITHMETIC(0x38, INSN_CMP, 0),
    ROW_EIGHT(0x50, INSN_PUSH, FORM_OPCODE_SRC, OP_STACK | OP_NO_BYTE),
    ROW_EIGHT(0x58, INSN_POP, FORM_OPCODE_DST, OP_STACK | OP_NO_BYTE),
    [0x63] = {INSN_MOVSX, FORM_R_RM_DWORD, OP_ONLY_64}, /* ARPL elsewhere */
    ROW_PAIR(0x6c, INSN_INS, FORM_INS, OP_PORT),
    ROW_PAIR(0x6e, INSN_OUTS, FORM_OUTS, OP_PORT),
    [0x68] = {INSN_PUSH, FORM_IMM, OP_STACK | OP_NO_BYTE},
    [0x69] = {INSN_IMUL, FORM_R_RM_IMM, 0},
    [0x6a] = {INSN_PUSH, FORM_IMM8, OP_STACK | OP_NO_BYTE},
    [0x6b] = {INSN_IMUL, FORM_R_RM_IMM8, 0},
    ROW_GROUP_PAIR(0x80, GROUP_1),
    [0x82] = {GROUP_1, FORM_GROUP, OP_NOT_64},
    [0x83] = {GROUP_1_IMM8, FORM_GROUP, 0},
    ROW_PAIR(0x84, INSN_TEST, FORM_RM_R, 0),
    ROW_PAIR(0x86, INSN_XCHG, FORM_RM_R, OP_LOCKABLE),
    ROW_PAIR(0x88, INSN_MOV, FORM_RM_R, 0),
    ROW_PAIR(0x8a, INSN_MOV, FORM_R_RM, 0),
    [0x8c] = {INSN_STORE_SEG, FORM_DST_SREG, OP_NO_BYTE | OP_ELSEWHERE},
    [0x8e] = {INSN_LOAD_SEG, FORM_SRC_SREG, OP_NO_BYTE | OP_ELSEWHERE},
    [0x8f] = {GROUP_1A, FORM_GROUP, 0},
    ROW_PAIR(0xa0, INSN_MOV, FORM_ACC_MOFFS, 0),
    ROW_PAIR(0xa2, INSN_MOV, FORM_MOFFS_ACC, 0),
    ROW_PAIR(0xa4, INSN_MOVS, FORM_MOVS, 0),
    ROW_PAIR(0xa6, INSN_CMPS, FORM_CMPS, 0),
    ROW_PAIR(0xa8, INSN_TEST, FORM_ACC_IMM, 0),
    ROW_PAIR(0xaa, INSN_STOS, FORM_STOS, 0),
    ROW_PAIR(0xac, INSN_LODS, FORM_LODS, 0),
    ROW_PAIR(0xae, INSN_SCAS, FORM_SCAS, 0),
    ROW_GROUP_PAIR(0xc0, GROUP_2_IMM8),
    [0xc2] = {INSN_RET, FORM_IMM16, OP_NEAR | OP_NO_BYTE},
    [0xc3] = {INSN_RET, FORM_ALONE, OP_NEAR | OP_NO_BYTE},
    ROW_GROUP_PAIR(0xc6, GROUP_11),
    [0xc8] = {INSN_ENTER, FORM_ENTER, OP_STACK | OP_NO_BYTE},
    [0xc9] = {INSN_LEAVE, FORM_ALONE, OP_STACK | OP_NO_BYTE},
    ROW_GROUP_PAIR(0xd0, GROUP_2_ONE),
    ROW_GROUP_PAIR(0xd2, GROUP_2_CL),
    [0xe8] = {INSN_CALL, FORM_IMM, OP_NEAR | OP_NO_BYTE},
    ROW_GROUP_PAIR(0xf6, GROUP_3),
    [0xfe] = {GROUP_4, FORM_GROUP, 0},
    [0xff] = {GROUP_5, FORM_GROUP, 0},
};

/* 0F xx */
static const struct insn_opcode two_byte[256] = {
    [0x00] = {GROUP_6, FORM_GROUP, 0},
    [0x01] = {GROUP_7, FORM_GROUP, 0},
    ROW_SIXTEEN(0x40, INSN_CMOV, FORM_R_RM, OP_NO_BYTE),
    ROW_SIXTEEN(0x90, INSN_SET, FORM_RM, OP_BYTE),
    [0xa3] = {INSN_BT, FORM_RM_R, 0},
    [0xa4] = {INSN_SHLD, FORM_RM_R_IMM8, OP_NO_BYTE},
    [0xa5] = {INSN_SHLD, FORM_RM_R_CL, 0},
    [0xab] = {INSN_BTS, FORM_RM_R, OP_LOCKABLE},
    [0xac] = {INSN_SHRD, FORM_RM_R_IMM8, OP_NO_BYTE},
    [0xad] = {INSN_SHRD, FORM_RM_R_CL, 0},
    [0xaf] = {INSN_IMUL, FORM_R_RM, 0},
    ROW_PAIR(0xb0, INSN_CMPXCHG, FORM_RM_R, OP_LOCKABLE),
    [0xb3] = {INSN_BTR, FORM_RM_R, OP_LOCKABLE},
    ROW_PAIR(0xb6, INSN_MOVZX, FORM_R_RM_NARROW, OP_NO_BYTE),
    [0xba] = {GROUP_8, FORM_GROUP, 0},
    [0xbb] = {INSN_BTC, FORM_RM_R, OP_LOCKABLE},
    [0xbc] = {INSN_BSF, FORM_R_RM, OP_NO_BYTE},
    [0xbd] = {INSN_BSR, FORM_R_RM, OP_NO_BYTE},
    ROW_PAIR(0xbe, INSN_MOVSX, FORM_R_RM_NARROW, OP_NO_BYTE),
    ROW_PAIR(0xc0, INSN_XADD, FORM_RM_R, OP_LOCKABLE),
    [0xc3] = {INSN_MOV, FORM_RM_R, OP_MEMORY | OP_MOVNTI},
    [0xc7] = {GROUP_9, FORM_GROUP, 0},
};

/* F3 0F xx, where it is another instruction than without F3. */
static const struct insn_opcode popcnt = {INSN_POPCNT, FORM_R_RM, OP_NO_BYTE};
static const struct insn_opcode tzcnt = {INSN_TZCNT, FORM_R_RM, OP_NO_BYTE};
static const struct insn_opcode lzcnt = {INSN_LZCNT, FORM_R_RM, OP_NO_BYTE};

static const struct insn_opcode vector_load = {INSN_VECTOR, FORM_VECTOR_SRC, OP_NO_BYTE | OP_ELSEWHERE};
static const struct insn_opcode vector_store = {INSN_VECTOR, FORM_VECTOR_DST, OP_NO_BYTE | OP_ELSEWHERE};

#define LOAD(opcode, prefix, what, kind, size)                                                               \
    {                                                                                                        \
        opcode, prefix, 0, 0, INSN_VECTOR_##what, INSN_##kind, size                                          \
    }
#define STORE(opcode, prefix, what, kind, size)                                                              \
    {                                                                                                        \
        opcode, prefix, 1, 0, INSN_VECTOR_##what, INSN_##kind, size                                          \
    }
#define ALIGNED(opcode, prefix, store)                                                                       \
    {                                                                                                        \
        opcode, prefix, store, 1, INSN_VECTOR_ALL, INSN_XMM, 16                                              \
    }
#define BOTH(load, store, prefix, what, kind, size)                                                          \
    LOAD(load, prefix, what, kind, size), STORE(store, prefix, what, kind, size)

/* Vector moves (SDM volume 2, table A-3): those whose memory form leaves the data as it is. */
static const struct insn_vector_row vector_rows[] = {
    BOTH(0x10, 0x11, 0, ALL, XMM, 16),         /* MOVUPS */
    BOTH(0x10, 0x11, 0x66, ALL, XMM, 16),      /* MOVUPD */
    BOTH(0x10, 0x11, 0xf3, LOW, XMM, 4),       /* MOVSS */
    BOTH(0x10, 0x11, 0xf2, LOW, XMM, 8),       /* MOVSD */
    BOTH(0x12, 0x13, 0, LOW_HALF, XMM, 8),     /* MOVLPS */
    BOTH(0x12, 0x13, 0x66, LOW_HALF, XMM, 8),  /* MOVLPD */
    BOTH(0x16, 0x17, 0, HIGH_HALF, XMM, 8),    /* MOVHPS */
    BOTH(0x16, 0x17, 0x66, HIGH_HALF, XMM, 8), /* MOVHPD */
    ALIGNED(0x28, 0, 0),                       /* MOVAPS */
    ALIGNED(0x29, 0, 1),
    ALIGNED(0x28, 0x66, 0), /* MOVAPD */
    ALIGNED(0x29, 0x66, 1),
    ALIGNED(0x2b, 0, 1),              /* MOVNTPS */
    ALIGNED(0x2b, 0x66, 1),           /* MOVNTPD */
    BOTH(0x6e, 0x7e, 0, LOW, MMX, 0), /* MOVD, MOVQ */
    BOTH(0x6e, 0x7e, 0x66, LOW, XMM, 0),
    BOTH(0x6f, 0x7f, 0, ALL, MMX, 8), /* MOVQ */
    ALIGNED(0x6f, 0x66, 0),           /* MOVDQA */
    ALIGNED(0x7f, 0x66, 1),
    BOTH(0x6f, 0x7f, 0xf3, ALL, XMM, 16), /* MOVDQU */
    LOAD(0x7e, 0xf3, LOW, XMM, 8),        /* MOVQ */
    STORE(0xd6, 0x66, LOW, XMM, 8),
    STORE(0xe7, 0, ALL, MMX, 8),    /* MOVNTQ */
    ALIGNED(0xe7, 0x66, 1),         /* MOVNTDQ */
    LOAD(0xf0, 0xf2, ALL, XMM, 16), /* LDDQU */
};
static const struct insn_vector_row movntdqa = ALIGNED(0x2a, 0x66, 0);
#undef LOAD
#undef STORE
#undef ALIGNED
#undef BOTH

/* 0F 38 xx */
static const struct insn_opcode crc32_byte = {INSN_CRC32, FORM_CRC, OP_BYTE};
static const struct insn_opcode crc32 = {INSN_CRC32, FORM_CRC, OP_NO_BYTE};
static const struct insn_opcode movbe_load = {INSN_MOVBE, FORM_R_RM, OP_NO_BYTE | OP_MEMORY};
static const struct insn_opcode movbe_store = {INSN_MOVBE, FORM_RM_R, OP_NO_BYTE | OP_MEMORY};
static const struct insn_opcode unknown = {0, FORM_NONE, 0};

#define OPCODE_TWO_BYTE      0x0fu
#define OPCODE_THREE_BYTE_38 0x38u
#define OPCODE_MOVBE_LOAD    0xf0u
#define OPCODE_MOVBE_STORE   0xf1u
#define PREFIX_REPNE         0xf2u
#define PREFIX_REP           0xf3u
#define PREFIX_OPERAND       0x66u
#define OPCODE_POPCNT        0xb8u
#define OPCODE_BSF           0xbcu
#define OPCODE_BSR           0xbdu
#define CONDITION            0xfu /* of the opcodes of CMOVcc and SETcc */

/* Takes one legacy prefix into account; false: `byte` is none. */
static bool take_prefix(struct insn_cursor *c, uint8_t byte, struct insn *insn)
{
    switch (byte) {
    case 0x26: /* ES, CS, SS, DS: null prefixes in 64-bit mode; an FS or GS before them stays (volume
                  2, 2.2.1) */
    case 0x2e:
    case 0x36:
    case 0x3e:
        if (c->mode != INSN_MODE_64)
            c->segment = (byte >> 3) & 3;
        return true;
    case 0x64:
        c->segment = INSN_FS;
        return true;
    case 0x65:
        c->segment = INSN_GS;
        return true;
    case 0x66:
        c->operand_prefix = true;
        return true;
    case 0x67:
        c->address_prefix = true;
        return true;
    case 0xf0:
        insn->lock = true;
        return true;
    case PREFIX_REPNE:
    case PREFIX_REP:
        c->repeat = byte;
        return true;
    default:
        return false;
    }
}

/* Reads all prefixes and answers the first byte of the opcode. REX counts only directly before it (2.2.1). */
static enum status read_prefixes(struct insn_cursor *c, struct insn *insn, uint8_t *opcode)
{
    for (;;) {
        uint8_t byte;
        enum status s = insn_next(c, &byte);
        if (s != STATUS_OK)
            return s;
        if (c->mode == INSN_MODE_64 && (byte & 0xf0) == REX_PRESENT) {
            c->rex = byte;
            continue;
        }
        if (!take_prefix(c, byte, insn)) {
            *opcode = byte;
            return STATUS_OK;
        }
        c->rex = 0;
    }
}

static enum status read_opcode_38(struct insn_cursor *c, const struct insn_opcode **row)
{
    uint8_t byte;
    enum status s = insn_next(c, &byte);
    *row = &unknown;
    if (s != STATUS_OK || c->repeat == PREFIX_REP) /* F3 is reserved */
        return s;
    bool crc = c->repeat == PREFIX_REPNE;
    if (byte == OPCODE_MOVBE_LOAD)
        *row = crc ? &crc32_byte : &movbe_load;
    else if (byte == OPCODE_MOVBE_STORE)
        *row = crc ? &crc32 : &movbe_store;
    else if (byte == movntdqa.opcode && c->operand_prefix && !crc) {
        c->vector = &movntdqa;
        *row = &vector_load;
    }
    return STATUS_OK;
}

/* A two-byte opcode that is not in the table: a mandatory prefix may make an instruction of it. F2 and F3 go
 * before 66. */
static const struct insn_opcode *find_prefixed(struct insn_cursor *c, uint8_t byte)
{
    uint8_t prefix = c->repeat ? c->repeat : c->operand_prefix ? PREFIX_OPERAND : 0;
    for (unsigned i = 0; i < ARRAY_SIZE(vector_rows); i++) {
        if (vector_rows[i].opcode == byte && vector_rows[i].prefix == prefix) {
            c->vector = &vector_rows[i];
            return vector_rows[i].store ? &vector_store : &vector_load;
        }
    }
    return &unknown;
}

static const struct insn_opcode *find_two_byte(struct insn_cursor *c, uint8_t byte)
{
    if (c->repeat == PREFIX_REP) {
        if (byte == OPCODE_POPCNT)
            return &popcnt;
        if (byte == OPCODE_BSF)
            return &tzcnt;
        if (byte == OPCODE_BSR)
            return &lzcnt;
    }
    const struct insn_opcode *row = &two_byte[byte];
    return row->form == FORM_NONE ? find_prefixed(c, byte) : row;
}

/* Finds the opcode's row; *wide is its lowest bit. */
static enum status read_opcode(struct insn_cursor *c, uint8_t byte, const struct insn_opcode **row,
                               bool *wide)
{
    enum status s;
    *row = &one_byte[byte];
    if (byte == OPCODE_TWO_BYTE) {
        s = insn_next(c, &byte);
        if (s != STATUS_OK)
            return s;
        if (byte == OPCODE_THREE_BYTE_38)
            return read_opcode_38(c, row);
        *row = find_two_byte(c, byte);
    }
    *wide = byte & 1;
    c->opcode = byte;
    return STATUS_OK;
}

/* Does the opcode have a ModRM byte? */
static bool has_modrm(uint8_t form)
{
    return form == FORM_GROUP || (form >= FORM_RM_R && form <= FORM_VECTOR_SRC);
}

static uint8_t operand_size(const struct insn_cursor *c, const struct insn_opcode *row, bool wide)
{
    if ((!wide && !(row->flags & OP_NO_BYTE)) || row->flags & OP_BYTE)
        return 1;
    if (c->rex & REX_W)
        return row->flags & OP_PORT ? 4 : 8;
    if (c->mode == INSN_MODE_64 && row->flags & (OP_STACK | OP_NEAR))
        return c->operand_prefix && !(row->flags & OP_NEAR) ? 2 : 8;
    if (row->flags & OP_MOVNTI)
        return 4;
    return (c->mode == INSN_MODE_16) != c->operand_prefix ? 2 : 4;
}

static uint8_t address_size(const struct insn_cursor *c)
{
    if (c->mode == INSN_MODE_64)
        return c->address_prefix ? 4 : 8;
    return (c->mode == INSN_MODE_16) != c->address_prefix ? 2 : 4;
}

/* Reads the opcode and ModRM, and resolves groups. */
static enum status find_row(struct insn_cursor *c, uint8_t byte, const struct insn_opcode **row, bool *wide)
{
    enum status s = read_opcode(c, byte, row, wide);
    if (s != STATUS_OK)
        return s;
    if ((*row)->form == FORM_NONE)
        return ERR_UNSUPPORTED;
    if ((*row)->flags & (c->mode == INSN_MODE_64 ? OP_NOT_64 : OP_ONLY_64))
        return (*row)->flags & OP_NOT_64 ? ERR_INVALID : ERR_UNSUPPORTED;
    if ((*row)->flags & OP_MOVNTI && (c->operand_prefix || c->repeat))
        return ERR_UNSUPPORTED;
    if (!has_modrm((*row)->form))
        return STATUS_OK;
    s = insn_read_modrm(c);
    if (s == STATUS_OK && (*row)->form == FORM_GROUP) {
        *row = &groups[(*row)->op][c->reg];
        if ((*row)->form == FORM_NONE)
            return ERR_UNSUPPORTED;
    }
    return s;
}

static void set_repeat(const struct insn_cursor *c, struct insn *insn)
{
    if (!c->repeat || !insn_is_string(insn))
        return;
    bool compares = insn->op == INSN_CMPS || insn->op == INSN_SCAS;
    insn->repne = compares && c->repeat == PREFIX_REPNE;
    insn->rep = !insn->repne;
}

enum status insn_decode(struct span bytes, enum insn_mode mode, struct insn *out)
{
    struct insn_cursor c = {.data = bytes.data,
                            .end = (uint8_t)(bytes.size < INSN_MAX_LEN ? bytes.size : INSN_MAX_LEN),
                            .mode = (uint8_t)mode,
                            .segment = INSN_NO_SEGMENT};
    const struct insn_opcode *row;
    bool wide = false;
    uint8_t opcode;

    *out = (struct insn){.base = -1, .index = -1, .scale = 1, .segment = INSN_DS};
    enum status s = read_prefixes(&c, out, &opcode);
    if (s != STATUS_OK)
        return s;
    s = find_row(&c, opcode, &row, &wide);
    if (s != STATUS_OK)
        return s;
    out->op = row->op;
    out->detail = c.opcode & CONDITION;
    out->opsize = operand_size(&c, row, wide);
    out->addrsize = address_size(&c);
    s = insn_read_operands(&c, row->form, wide, out);
    if (s != STATUS_OK)
        return s;
    bool has_memory = out->dst.kind == INSN_MEM || out->src.kind == INSN_MEM;
    if (row->flags & (OP_MEMORY | OP_ELSEWHERE) && !has_memory)
        return row->flags & OP_MEMORY ? ERR_INVALID : ERR_UNSUPPORTED;
    if (out->lock && !(row->flags & OP_LOCKABLE && out->dst.kind == INSN_MEM))
        return ERR_INVALID;
    set_repeat(&c, out);
    out->length = c.pos;
    return STATUS_OK;
}

const char *insn_op_name(enum insn_op op)
{
    static const char *const names[INSN_OP_COUNT] = {[INSN_MOV] = "MOV",
                                                     [INSN_MOVBE] = "MOVBE",
                                                     [INSN_MOVZX] = "MOVZX",
                                                     [INSN_MOVSX] = "MOVSX",
                                                     [INSN_MOVS] = "MOVS",
                                                     [INSN_STOS] = "STOS",
                                                     [INSN_LODS] = "LODS",
                                                     [INSN_CMPS] = "CMPS",
                                                     [INSN_SCAS] = "SCAS",
                                                     [INSN_INS] = "INS",
                                                     [INSN_OUTS] = "OUTS",
                                                     [INSN_AND] = "AND",
                                                     [INSN_OR] = "OR",
                                                     [INSN_XOR] = "XOR",
                                                     [INSN_ADD] = "ADD",
                                                     [INSN_SUB] = "SUB",
                                                     [INSN_ADC] = "ADC",
                                                     [INSN_SBB] = "SBB",
                                                     [INSN_CMP] = "CMP",
                                                     [INSN_TEST] = "TEST",
                                                     [INSN_XCHG] = "XCHG",
                                                     [INSN_CMPXCHG] = "CMPXCHG",
                                                     [INSN_XADD] = "XADD",
                                                     [INSN_INC] = "INC",
                                                     [INSN_DEC] = "DEC",
                                                     [INSN_NOT] = "NOT",
                                                     [INSN_NEG] = "NEG",
                                                     [INSN_BT] = "BT",
                                                     [INSN_BTS] = "BTS",
                                                     [INSN_BTR] = "BTR",
                                                     [INSN_BTC] = "BTC",
                                                     [INSN_PUSH] = "PUSH",
                                                     [INSN_POP] = "POP",
                                                     [INSN_ROL] = "ROL",
                                                     [INSN_ROR] = "ROR",
                                                     [INSN_RCL] = "RCL",
                                                     [INSN_RCR] = "RCR",
                                                     [INSN_SHL] = "SHL",
                                                     [INSN_SHR] = "SHR",
                                                     [INSN_SAR] = "SAR",
                                                     [INSN_SHLD] = "SHLD",
                                                     [INSN_SHRD] = "SHRD",
                                                     [INSN_CMOV] = "CMOV",
                                                     [INSN_IMUL] = "IMUL",
                                                     [INSN_MUL] = "MUL",
                                                     [INSN_IMUL_WIDE] = "IMUL rDX:rAX",
                                                     [INSN_DIV] = "DIV",
                                                     [INSN_IDIV] = "IDIV",
                                                     [INSN_BSF] = "BSF",
                                                     [INSN_BSR] = "BSR",
                                                     [INSN_TZCNT] = "TZCNT",
                                                     [INSN_LZCNT] = "LZCNT",
                                                     [INSN_POPCNT] = "POPCNT",
                                                     [INSN_CRC32] = "CRC32",
                                                     [INSN_CMPXCHG8B] = "CMPXCHG8B",
                                                     [INSN_CMPXCHG16B] = "CMPXCHG16B",
                                                     [INSN_SET] = "SET",
                                                     [INSN_CALL] = "CALL",
                                                     [INSN_RET] = "RET",
                                                     [INSN_ENTER] = "ENTER",
                                                     [INSN_LEAVE] = "LEAVE",
                                                     [INSN_JMP_FAR] = "JMP far",
                                                     [INSN_JMP] = "JMP",
                                                     [INSN_LOAD_SEG] = "MOV Sreg, m",
                                                     [INSN_STORE_SEG] = "MOV m, Sreg",
                                                     [INSN_LMSW] = "LMSW",
                                                     [INSN_SMSW] = "SMSW",
                                                     [INSN_LGDT] = "LGDT",
                                                     [INSN_LIDT] = "LIDT",
                                                     [INSN_SGDT] = "SGDT",
                                                     [INSN_SIDT] = "SIDT",
                                                     [INSN_LLDT] = "LLDT",
                                                     [INSN_SLDT] = "SLDT",
                                                     [INSN_LTR] = "LTR",
                                                     [INSN_STR] = "STR",
                                                     [INSN_VECTOR] = "vector move"};
    return (unsigned)op < INSN_OP_COUNT ? names[op] : "?";
}
