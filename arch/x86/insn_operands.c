/* Operands: ModRM, SIB, displacements and immediates (SDM volume 2, chapter "Instruction format"). */
#include "arch/x86/insn_decode.h"
#include "hv/lib/bits.h"

enum { REG_AX = 0, REG_CX = 1, REG_DX = 2, REG_BX = 3, REG_SP = 4, REG_BP = 5, REG_SI = 6, REG_DI = 7 };

#define MOD_REGISTER 3u
#define RM_SIB       4u /* rm = 100b: a SIB byte follows */
#define RM_DISP      5u /* rm or base = 101b with mod 0: a displacement and no base */
#define RM16_DISP    6u /* the same in 16-bit addressing */
#define SIB_NO_INDEX 4  /* index = 100b without REX.X */

/* `size` bytes as a number, sign-extended to 64 bits; size is 1, 2, 4 or 8. */
static enum status read_signed(struct insn_cursor *c, unsigned size, uint64_t *value)
{
    const uint8_t *from = c->data + c->pos;
    int32_t doubleword;
    int16_t word;
    if (c->end - c->pos < (int)size)
        return insn_out_of_bytes(c);
    c->pos = (uint8_t)(c->pos + size);
    switch (size) {
    case 1:
        *value = (uint64_t)(int8_t)*from;
        break;
    case 2:
        __builtin_memcpy(&word, from, sizeof(word));
        *value = (uint64_t)word;
        break;
    case 4:
        __builtin_memcpy(&doubleword, from, sizeof(doubleword));
        *value = (uint64_t)doubleword;
        break;
    default:
        __builtin_memcpy(value, from, sizeof(*value));
        break;
    }
    return STATUS_OK;
}

enum status insn_read_modrm(struct insn_cursor *c)
{
    uint8_t modrm;
    enum status s = insn_next(c, &modrm);
    if (s != STATUS_OK)
        return s;
    c->mod = modrm >> 6;
    c->reg = (modrm >> 3) & 7;
    c->rm = modrm & 7;
    return STATUS_OK;
}

static void set_reg(struct insn_operand *op, const struct insn_cursor *c, unsigned number, unsigned size)
{
    op->kind = INSN_REG;
    op->size = (uint8_t)size;
    /* Without any REX prefix the byte registers 4..7 are AH, CH, DH, BH (SDM volume 2, 2.2.1.2). */
    op->high_byte = size == 1 && !c->rex && number >= REG_SP;
    op->reg = (uint8_t)(op->high_byte ? number - REG_SP : number);
}

static void set_mem(struct insn_operand *op, unsigned size)
{
    op->kind = INSN_MEM;
    op->size = (uint8_t)size;
}

static void set_imm(struct insn_operand *op, unsigned size, uint64_t value)
{
    op->kind = INSN_IMM;
    op->size = (uint8_t)size;
    op->imm = value;
}

static enum status read_disp(struct insn_cursor *c, unsigned size, struct insn *insn)
{
    uint64_t disp = 0;
    enum status s = size ? read_signed(c, size, &disp) : STATUS_OK;
    insn->disp = (int64_t)disp;
    return s;
}

/* SDM volume 2, table 2-1 "16-bit addressing forms with the ModR/M byte". */
static enum status read_memory16(struct insn_cursor *c, struct insn *insn)
{
    static const struct {
        int8_t base, index;
    } forms[8] = {{REG_BX, REG_SI}, {REG_BX, REG_DI}, {REG_BP, REG_SI}, {REG_BP, REG_DI},
                  {REG_SI, -1},     {REG_DI, -1},     {REG_BP, -1},     {REG_BX, -1}};
    if (c->mod == 0 && c->rm == RM16_DISP)
        return read_disp(c, 2, insn);
    insn->base = forms[c->rm].base;
    insn->index = forms[c->rm].index;
    return read_disp(c, c->mod, insn);
}

/* SDM volume 2, tables 2-2 and 2-3: 32-bit forms, and with REX the 64-bit forms. */
static enum status read_memory32(struct insn_cursor *c, struct insn *insn)
{
    static const uint8_t disp_size[3] = {0, 1, 4};
    unsigned base = c->rm;
    if (c->rm == RM_SIB) {
        uint8_t sib;
        enum status s = insn_next(c, &sib);
        if (s != STATUS_OK)
            return s;
        int index = ((sib >> 3) & 7) | (c->rex & REX_X ? 8 : 0);
        if (index != SIB_NO_INDEX) {
            insn->index = (int8_t)index;
            insn->scale = (uint8_t)(1u << (sib >> 6));
        }
        base = sib & 7;
    }
    if (c->mod == 0 && base == RM_DISP) {
        /* The SIB form stays absolute in 64-bit mode, the short form became RIP-relative (2.2.1.6). */
        insn->rip_relative = c->rm == RM_DISP && c->mode == INSN_MODE_64;
        return read_disp(c, 4, insn);
    }
    insn->base = (int8_t)(base | (c->rex & REX_B ? 8u : 0));
    return read_disp(c, disp_size[c->mod], insn);
}

/* The operand named by mod and rm. */
static enum status read_rm(struct insn_cursor *c, struct insn *insn, struct insn_operand *op, unsigned size)
{
    if (c->mod == MOD_REGISTER) {
        set_reg(op, c, c->rm | (c->rex & REX_B ? 8u : 0), size);
        return STATUS_OK;
    }
    set_mem(op, size);
    enum status s = insn->addrsize == 2 ? read_memory16(c, insn) : read_memory32(c, insn);
    if (c->segment != INSN_NO_SEGMENT)
        insn->segment = c->segment;
    else /* SDM volume 1, table 3-5: rSP and rBP as base mean the stack; R12 and R13 do not */
        insn->segment = insn->base == REG_SP || insn->base == REG_BP ? INSN_SS : INSN_DS;
    return s;
}

static enum status read_rm_reg(struct insn_cursor *c, struct insn *insn, struct insn_operand *rm,
                               unsigned rm_size, struct insn_operand *reg)
{
    set_reg(reg, c, c->reg | (c->rex & REX_R ? 8u : 0), insn->opsize);
    return read_rm(c, insn, rm, rm_size);
}

/* Iz: an immediate of the operand's size, but never more than 4 bytes, sign-extended. */
static enum status read_imm(struct insn_cursor *c, struct insn *insn, unsigned size)
{
    uint64_t value;
    enum status s = read_signed(c, size < 4 ? size : 4, &value);
    if (s == STATUS_OK)
        set_imm(&insn->src, insn->opsize, value);
    return s;
}

static enum status read_rm_imm(struct insn_cursor *c, enum insn_form form, struct insn *insn)
{
    enum status s = read_rm(c, insn, &insn->dst, insn->opsize);
    if (s != STATUS_OK)
        return s;
    if (form == FORM_RM_IMM)
        return read_imm(c, insn, insn->opsize);
    if (form == FORM_RM_IMM8)
        return read_imm(c, insn, 1);
    uint8_t bit;
    s = insn_next(c, &bit);
    if (s == STATUS_OK)
        set_imm(&insn->src, 1, bit);
    return s;
}

static enum status read_moffs(struct insn_cursor *c, struct insn *insn, struct insn_operand *mem,
                              struct insn_operand *acc)
{
    uint64_t offset;
    enum status s = read_signed(c, insn->addrsize, &offset);
    if (s != STATUS_OK)
        return s;
    insn->disp = (int64_t)bits_low_bytes(offset, insn->addrsize);
    insn->segment = c->segment != INSN_NO_SEGMENT ? c->segment : INSN_DS;
    set_mem(mem, insn->opsize);
    set_reg(acc, c, REG_AX, insn->opsize);
    return STATUS_OK;
}

/* Implicit operands. An override moves the source only; the destination is always in ES (SDM volume
 * 1, 7.3.9). */
static void set_string_operands(const struct insn_cursor *c, enum insn_form form, struct insn *insn)
{
    struct insn_operand *dst = &insn->dst, *src = &insn->src;
    bool from_si = form == FORM_MOVS || form == FORM_CMPS || form == FORM_LODS || form == FORM_OUTS;
    insn->base = from_si ? REG_SI : REG_DI;
    insn->segment = INSN_ES;
    if (from_si)
        insn->segment = c->segment != INSN_NO_SEGMENT ? c->segment : INSN_DS;
    set_mem(dst, insn->opsize);
    set_mem(src, insn->opsize);
    if (form == FORM_STOS)
        set_reg(src, c, REG_AX, insn->opsize);
    else if (form == FORM_LODS || form == FORM_SCAS)
        set_reg(dst, c, REG_AX, insn->opsize);
    else if (form == FORM_INS)
        set_reg(src, c, REG_DX, 2);
    else if (form == FORM_OUTS)
        set_reg(dst, c, REG_DX, 2);
}

/* SHLD, SHRD, and IMUL of three operands: the last one. */
static enum status read_third(struct insn_cursor *c, enum insn_form form, struct insn *insn)
{
    uint64_t value = 0;
    if (form == FORM_RM_R_CL) {
        set_reg(&insn->third, c, REG_CX, 1);
        return STATUS_OK;
    }
    unsigned size = form == FORM_R_RM_IMM ? insn->opsize : 1;
    enum status s = read_signed(c, size < 4 ? size : 4, &value);
    if (form == FORM_RM_R_IMM8)
        set_imm(&insn->third, 1, (uint8_t)value);
    else
        set_imm(&insn->third, insn->opsize, value);
    return s;
}

/* A segment register beside its memory operand. Only ES to GS exist, and CS cannot be loaded. */
static enum status read_sreg(struct insn_cursor *c, struct insn *insn, struct insn_operand *mem,
                             struct insn_operand *sreg)
{
    *sreg = (struct insn_operand){.kind = INSN_SREG, .size = 2, .reg = c->reg};
    enum status s = read_rm(c, insn, mem, 2);
    if (s == STATUS_OK && (c->reg > INSN_GS || (sreg == &insn->dst && c->reg == INSN_CS)))
        return ERR_INVALID;
    return s;
}

static enum status read_vector(struct insn_cursor *c, struct insn *insn, struct insn_operand *mem,
                               struct insn_operand *reg)
{
    const struct insn_vector_row *row = c->vector;
    bool xmm = row->kind == INSN_XMM;
    reg->kind = row->kind;
    reg->size = xmm ? 16 : 8;
    reg->reg = (uint8_t)(c->reg | (xmm && c->rex & REX_R ? 8u : 0)); /* eight MMX registers, REX or not */
    insn->detail = row->detail;
    insn->aligned = row->aligned;
    return read_rm(c, insn, mem, row->size ? row->size : c->rex & REX_W ? 8 : 4);
}

/* The forms of insn_rare.c's instructions. */
static enum status read_rare(struct insn_cursor *c, enum insn_form form, struct insn *insn)
{
    enum status s;
    switch (form) {
    case FORM_RM_R_IMM8:
    case FORM_RM_R_CL:
        s = read_rm_reg(c, insn, &insn->dst, insn->opsize, &insn->src);
        return s == STATUS_OK ? read_third(c, form, insn) : s;
    case FORM_R_RM_IMM:
    case FORM_R_RM_IMM8:
        s = read_rm_reg(c, insn, &insn->src, insn->opsize, &insn->dst);
        return s == STATUS_OK ? read_third(c, form, insn) : s;
    case FORM_CRC:
        s = read_rm_reg(c, insn, &insn->src, insn->opsize, &insn->dst);
        set_reg(&insn->dst, c, c->reg | (c->rex & REX_R ? 8u : 0), c->rex & REX_W ? 8 : 4);
        return s;
    case FORM_PAIR:
        if (c->rex & REX_W)
            insn->op = INSN_CMPXCHG16B;
        return read_rm(c, insn, &insn->dst, c->rex & REX_W ? 16 : 8);
    case FORM_DST16:
        return read_rm(c, insn, &insn->dst, 2);
    case FORM_SRC16:
        return read_rm(c, insn, &insn->src, 2);
    case FORM_DST_SREG:
        return read_sreg(c, insn, &insn->dst, &insn->src);
    case FORM_SRC_SREG:
        return read_sreg(c, insn, &insn->src, &insn->dst);
    case FORM_DST_TABLE:
        return read_rm(c, insn, &insn->dst, c->mode == INSN_MODE_64 ? 10 : 6);
    case FORM_SRC_TABLE:
        return read_rm(c, insn, &insn->src, c->mode == INSN_MODE_64 ? 10 : 6);
    case FORM_FAR:
        return read_rm(c, insn, &insn->src, insn->opsize + 2u);
    case FORM_VECTOR_DST:
        return read_vector(c, insn, &insn->dst, &insn->src);
    default:
        return read_vector(c, insn, &insn->src, &insn->dst);
    }
}

/* A little-endian word, not sign-extended. */
static enum status read_word(struct insn_cursor *c, struct insn *insn)
{
    uint64_t value = 0;
    enum status s = read_signed(c, 2, &value);
    set_imm(&insn->src, 2, (uint16_t)value);
    return s;
}

/* PUSH, POP, CALL, RET, ENTER, LEAVE, where no ModRM names a memory operand. */
static enum status read_stack(struct insn_cursor *c, enum insn_form form, struct insn *insn)
{
    enum status s;
    unsigned number = (c->opcode & 7) | (c->rex & REX_B ? 8u : 0);
    switch (form) {
    case FORM_OPCODE_DST:
        set_reg(&insn->dst, c, number, insn->opsize);
        return STATUS_OK;
    case FORM_OPCODE_SRC:
        set_reg(&insn->src, c, number, insn->opsize);
        return STATUS_OK;
    case FORM_IMM:
        return read_imm(c, insn, insn->opsize);
    case FORM_IMM8:
        return read_imm(c, insn, 1);
    case FORM_IMM16:
        return read_word(c, insn);
    case FORM_ENTER:
        s = read_word(c, insn);
        insn->third = (struct insn_operand){.kind = INSN_IMM, .size = 1};
        if (s == STATUS_OK) {
            uint8_t level;
            s = insn_next(c, &level);
            insn->third.imm = s == STATUS_OK ? level : 0;
        }
        return s;
    default: /* FORM_ALONE */
        return STATUS_OK;
    }
}

enum status insn_read_operands(struct insn_cursor *c, enum insn_form form, bool wide, struct insn *insn)
{
    switch (form) {
    case FORM_RM_R:
        return read_rm_reg(c, insn, &insn->dst, insn->opsize, &insn->src);
    case FORM_R_RM:
        return read_rm_reg(c, insn, &insn->src, insn->opsize, &insn->dst);
    case FORM_R_RM_NARROW:
        return read_rm_reg(c, insn, &insn->src, wide ? 2 : 1, &insn->dst);
    case FORM_R_RM_DWORD:
        /* Without REX.W it is a MOV of the operand size (SDM volume 2, "MOVSX/MOVSXD"). */
        return read_rm_reg(c, insn, &insn->src, insn->opsize < 4 ? insn->opsize : 4, &insn->dst);
    case FORM_RM:
        return read_rm(c, insn, &insn->dst, insn->opsize);
    case FORM_RM_SRC:
        return read_rm(c, insn, &insn->src, insn->opsize);
    case FORM_RM_IMM:
    case FORM_RM_IMM8:
    case FORM_RM_BIT:
        return read_rm_imm(c, form, insn);
    case FORM_RM_ONE:
        set_imm(&insn->src, 1, 1);
        return read_rm(c, insn, &insn->dst, insn->opsize);
    case FORM_RM_CL:
        set_reg(&insn->src, c, REG_CX, 1);
        return read_rm(c, insn, &insn->dst, insn->opsize);
    case FORM_ACC_IMM:
        set_reg(&insn->dst, c, REG_AX, insn->opsize);
        return read_imm(c, insn, insn->opsize);
    case FORM_ACC_MOFFS:
        return read_moffs(c, insn, &insn->src, &insn->dst);
    case FORM_MOFFS_ACC:
        return read_moffs(c, insn, &insn->dst, &insn->src);
    case FORM_NONE:
        return ERR_UNSUPPORTED;
    case FORM_MOVS:
    case FORM_CMPS:
    case FORM_STOS:
    case FORM_LODS:
    case FORM_SCAS:
    case FORM_INS:
    case FORM_OUTS:
        set_string_operands(c, form, insn);
        return STATUS_OK;
    default:
        return form >= FORM_RM_R_IMM8 && form <= FORM_VECTOR_SRC ? read_rare(c, form, insn)
                                                                 : read_stack(c, form, insn);
    }
}

/* A bit offset in a register reaches beyond the operand: it is signed and selects a whole operand-sized word
 * (SDM volume 2, section 3.1.1.9 "Bit(BitBase, BitOffset)"). */
static uint64_t bit_string_displacement(const struct insn *insn, const struct insn_regs *regs)
{
    if (insn->op < INSN_BT || insn->op > INSN_BTC || insn->src.kind != INSN_REG)
        return 0;
    int64_t bit = (int64_t)bits_sign_extend(insn_reg_read(&insn->src, regs), insn->opsize);
    uint64_t byte = (uint64_t)(bit >> 3);
    return byte & ~((uint64_t)insn->opsize - 1);
}

uint64_t insn_effective_offset(const struct insn *insn, const struct insn_regs *regs)
{
    uint64_t offset = (uint64_t)insn->disp;
    if (insn->base >= 0)
        offset += regs->gpr[insn->base];
    if (insn->index >= 0)
        offset += regs->gpr[insn->index] * insn->scale;
    if (insn->rip_relative)
        offset += regs->rip + insn->length;
    if (insn->op == INSN_POP && insn->base == REG_SP)
        offset += insn->opsize;
    offset += bit_string_displacement(insn, regs);
    return bits_low_bytes(offset, insn->addrsize);
}

uint8_t insn_memory_size(const struct insn *insn)
{
    if (insn->dst.kind == INSN_MEM)
        return insn->dst.size;
    return insn->src.kind == INSN_MEM ? insn->src.size : 0;
}

bool insn_reads_memory(const struct insn *insn)
{
    if (insn->src.kind == INSN_MEM)
        return true;
    if (insn->dst.kind != INSN_MEM)
        return false;
    switch (insn->op) {
    case INSN_MOV:
    case INSN_MOVBE:
    case INSN_STOS:
    case INSN_INS:
    case INSN_SET:
        return false;
    default:
        return insn->op < INSN_POP;
    }
}

bool insn_writes_memory(const struct insn *insn)
{
    if (insn->dst.kind != INSN_MEM)
        /* XCHG, XADD and CMPXCHG write both operands, but always have memory as their first one. */
        return false;
    switch (insn->op) {
    case INSN_CMP:
    case INSN_TEST:
    case INSN_BT:
    case INSN_CMPS:
        return false;
    default:
        return true;
    }
}
