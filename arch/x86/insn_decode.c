/* Prefixes and opcodes (SDM volume 2, chapter 2 "Instruction format" and appendix A "Opcode map"). */
#include "arch/x86/insn_decode.h"

#define OP_LOCKABLE 0x01u /* LOCK is allowed with a memory destination */
#define OP_NO_BYTE  0x02u /* the opcode's lowest bit does not mean "byte-sized" */
#define OP_ONLY_64  0x04u /* another instruction outside 64-bit mode */
#define OP_NOT_64   0x08u /* #UD in 64-bit mode */
#define OP_MEMORY   0x10u /* the register form is #UD */
#define OP_STACK    0x20u /* 64-bit operands by default in 64-bit mode */
#define OP_PORT     0x40u /* operands of 4 bytes at most */
#define OP_MOVNTI   0x80u /* never 16-bit; with 66, F2 or F3 it is not this instruction */

struct insn_opcode {
    uint8_t op;   /* enum insn_op, with FORM_GROUP below: number of the group */
    uint8_t form; /* enum insn_form */
    uint8_t flags;
};

/* ModRM.reg selects the instruction; a form of this table only. */
#define FORM_GROUP 0x80u

enum insn_group {
    GROUP_1,
    GROUP_1_IMM8,
    GROUP_1A,
    GROUP_3,
    GROUP_4,
    GROUP_5,
    GROUP_8,
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

static const struct insn_opcode groups[GROUP_COUNT][8] = {
    [GROUP_1] = GROUP_1_ROWS(FORM_RM_IMM),
    [GROUP_1_IMM8] = GROUP_1_ROWS(FORM_RM_IMM8),
    [GROUP_1A] = {[0] = {INSN_POP, FORM_RM, OP_STACK}}, /* 1..7 is AMD's XOP prefix */
    [GROUP_3] = {[0] = {INSN_TEST, FORM_RM_IMM, 0},
                 [1] = {INSN_TEST, FORM_RM_IMM,
                        0}, /* not in the SDM, but every CPU has it as an alias of /0 */
                 [2] = {INSN_NOT, FORM_RM, OP_LOCKABLE},
                 [3] = {INSN_NEG, FORM_RM, OP_LOCKABLE}},
    [GROUP_4] = {[0] = {INSN_INC, FORM_RM, OP_LOCKABLE}, [1] = {INSN_DEC, FORM_RM, OP_LOCKABLE}},
    [GROUP_5] = {[0] = {INSN_INC, FORM_RM, OP_LOCKABLE},
                 [1] = {INSN_DEC, FORM_RM, OP_LOCKABLE},
                 [6] = {INSN_PUSH, FORM_RM_SRC, OP_STACK}},
    [GROUP_8] = {[4] = {INSN_BT, FORM_RM_BIT, OP_NO_BYTE},
                 [5] = {INSN_BTS, FORM_RM_BIT, OP_NO_BYTE | OP_LOCKABLE},
                 [6] = {INSN_BTR, FORM_RM_BIT, OP_NO_BYTE | OP_LOCKABLE},
                 [7] = {INSN_BTC, FORM_RM_BIT, OP_NO_BYTE | OP_LOCKABLE}},
    [GROUP_11] = {[0] = {INSN_MOV, FORM_RM_IMM, 0}}, /* 7 is XABORT and XBEGIN */
};

#define ROW_PAIR(first, op, form, flags) [first] = {op, form, flags}, [(first) + 1] = {op, form, flags}
#define ROW_GROUP_PAIR(first, group)     ROW_PAIR(first, group, FORM_GROUP, 0)
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
    [0x63] = {INSN_MOVSX, FORM_R_RM_DWORD, OP_ONLY_64}, /* ARPL elsewhere */
    ROW_PAIR(0x6c, INSN_INS, FORM_INS, OP_PORT),
    ROW_PAIR(0x6e, INSN_OUTS, FORM_OUTS, OP_PORT),
    ROW_GROUP_PAIR(0x80, GROUP_1),
    [0x82] = {GROUP_1, FORM_GROUP, OP_NOT_64},
    [0x83] = {GROUP_1_IMM8, FORM_GROUP, 0},
    ROW_PAIR(0x84, INSN_TEST, FORM_RM_R, 0),
    ROW_PAIR(0x86, INSN_XCHG, FORM_RM_R, OP_LOCKABLE),
    ROW_PAIR(0x88, INSN_MOV, FORM_RM_R, 0),
    ROW_PAIR(0x8a, INSN_MOV, FORM_R_RM, 0),
    [0x8f] = {GROUP_1A, FORM_GROUP, 0},
    ROW_PAIR(0xa0, INSN_MOV, FORM_ACC_MOFFS, 0),
    ROW_PAIR(0xa2, INSN_MOV, FORM_MOFFS_ACC, 0),
    ROW_PAIR(0xa4, INSN_MOVS, FORM_MOVS, 0),
    ROW_PAIR(0xa6, INSN_CMPS, FORM_CMPS, 0),
    ROW_PAIR(0xa8, INSN_TEST, FORM_ACC_IMM, 0),
    ROW_PAIR(0xaa, INSN_STOS, FORM_STOS, 0),
    ROW_PAIR(0xac, INSN_LODS, FORM_LODS, 0),
    ROW_PAIR(0xae, INSN_SCAS, FORM_SCAS, 0),
    ROW_GROUP_PAIR(0xc6, GROUP_11),
    ROW_GROUP_PAIR(0xf6, GROUP_3),
    [0xfe] = {GROUP_4, FORM_GROUP, 0},
    [0xff] = {GROUP_5, FORM_GROUP, 0},
};

/* 0F xx */
static const struct insn_opcode two_byte[256] = {
    [0xa3] = {INSN_BT, FORM_RM_R, 0},
    [0xab] = {INSN_BTS, FORM_RM_R, OP_LOCKABLE},
    ROW_PAIR(0xb0, INSN_CMPXCHG, FORM_RM_R, OP_LOCKABLE),
    [0xb3] = {INSN_BTR, FORM_RM_R, OP_LOCKABLE},
    ROW_PAIR(0xb6, INSN_MOVZX, FORM_R_RM_NARROW, OP_NO_BYTE),
    [0xba] = {GROUP_8, FORM_GROUP, 0},
    [0xbb] = {INSN_BTC, FORM_RM_R, OP_LOCKABLE},
    ROW_PAIR(0xbe, INSN_MOVSX, FORM_R_RM_NARROW, OP_NO_BYTE),
    ROW_PAIR(0xc0, INSN_XADD, FORM_RM_R, OP_LOCKABLE),
    [0xc3] = {INSN_MOV, FORM_RM_R, OP_MEMORY | OP_MOVNTI},
};

/* 0F 38 xx has only MOVBE for us. */
static const struct insn_opcode movbe_load = {INSN_MOVBE, FORM_R_RM, OP_NO_BYTE | OP_MEMORY};
static const struct insn_opcode movbe_store = {INSN_MOVBE, FORM_RM_R, OP_NO_BYTE | OP_MEMORY};
static const struct insn_opcode unknown = {0, FORM_NONE, 0};

#define OPCODE_TWO_BYTE      0x0fu
#define OPCODE_THREE_BYTE_38 0x38u
#define OPCODE_MOVBE_LOAD    0xf0u
#define OPCODE_MOVBE_STORE   0xf1u
#define PREFIX_REPNE         0xf2u
#define PREFIX_REP           0xf3u

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
    if (s != STATUS_OK || c->repeat) /* F2 makes it CRC32, F3 is reserved */
        return s;
    if (byte == OPCODE_MOVBE_LOAD)
        *row = &movbe_load;
    else if (byte == OPCODE_MOVBE_STORE)
        *row = &movbe_store;
    return STATUS_OK;
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
        *row = &two_byte[byte];
    }
    *wide = byte & 1;
    return STATUS_OK;
}

/* Does the opcode have a ModRM byte? */
static bool has_modrm(uint8_t form)
{
    return form == FORM_GROUP || (form >= FORM_RM_R && form <= FORM_RM_BIT);
}

static uint8_t operand_size(const struct insn_cursor *c, const struct insn_opcode *row, bool wide)
{
    if (!wide && !(row->flags & OP_NO_BYTE))
        return 1;
    if (c->rex & REX_W)
        return row->flags & OP_PORT ? 4 : 8;
    if (c->mode == INSN_MODE_64 && row->flags & OP_STACK)
        return c->operand_prefix ? 2 : 8;
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
    out->opsize = operand_size(&c, row, wide);
    out->addrsize = address_size(&c);
    s = insn_read_operands(&c, row->form, wide, out);
    if (s != STATUS_OK)
        return s;
    bool has_memory = out->dst.kind == INSN_MEM || out->src.kind == INSN_MEM;
    if (row->flags & OP_MEMORY && !has_memory)
        return ERR_INVALID;
    if (out->lock && !(row->flags & OP_LOCKABLE && out->dst.kind == INSN_MEM))
        return ERR_INVALID;
    set_repeat(&c, out);
    out->length = c.pos;
    return STATUS_OK;
}

const char *insn_op_name(enum insn_op op)
{
    static const char *const names[INSN_OP_COUNT] = {
        [INSN_MOV] = "MOV",   [INSN_MOVBE] = "MOVBE",     [INSN_MOVZX] = "MOVZX", [INSN_MOVSX] = "MOVSX",
        [INSN_MOVS] = "MOVS", [INSN_STOS] = "STOS",       [INSN_LODS] = "LODS",   [INSN_CMPS] = "CMPS",
        [INSN_SCAS] = "SCAS", [INSN_INS] = "INS",         [INSN_OUTS] = "OUTS",   [INSN_AND] = "AND",
        [INSN_OR] = "OR",     [INSN_XOR] = "XOR",         [INSN_ADD] = "ADD",     [INSN_SUB] = "SUB",
        [INSN_ADC] = "ADC",   [INSN_SBB] = "SBB",         [INSN_CMP] = "CMP",     [INSN_TEST] = "TEST",
        [INSN_XCHG] = "XCHG", [INSN_CMPXCHG] = "CMPXCHG", [INSN_XADD] = "XADD",   [INSN_INC] = "INC",
        [INSN_DEC] = "DEC",   [INSN_NOT] = "NOT",         [INSN_NEG] = "NEG",     [INSN_BT] = "BT",
        [INSN_BTS] = "BTS",   [INSN_BTR] = "BTR",         [INSN_BTC] = "BTC",     [INSN_PUSH] = "PUSH",
        [INSN_POP] = "POP"};
    return (unsigned)op < INSN_OP_COUNT ? names[op] : "?";
}
