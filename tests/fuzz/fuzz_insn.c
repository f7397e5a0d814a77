/* The decoder against Zydis, both ways: what we accept, Zydis must accept with the same meaning; what Zydis
 * calls an instruction of our list, we must accept. The first byte of the input selects the mode. */
#include <Zydis/Zydis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/insn.h"
#include "hv/lib/bits.h"

static const uint8_t *input;
static size_t input_size;

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "differs from Zydis: %s; bytes:", what);
    for (size_t i = 0; i < input_size; i++)
        fprintf(stderr, " %02x", input[i]);
    fprintf(stderr, "\n");
    abort();
}

struct op_map {
    ZydisMnemonic mnemonic;
    enum insn_op op;
};

static const struct op_map op_maps[] = {
    {ZYDIS_MNEMONIC_MOV, INSN_MOV},
    {ZYDIS_MNEMONIC_MOVNTI, INSN_MOV},
    {ZYDIS_MNEMONIC_MOVBE, INSN_MOVBE},
    {ZYDIS_MNEMONIC_MOVZX, INSN_MOVZX},
    {ZYDIS_MNEMONIC_MOVSX, INSN_MOVSX},
    {ZYDIS_MNEMONIC_MOVSXD, INSN_MOVSX},
    {ZYDIS_MNEMONIC_MOVSB, INSN_MOVS},
    {ZYDIS_MNEMONIC_MOVSW, INSN_MOVS},
    {ZYDIS_MNEMONIC_MOVSD, INSN_MOVS},
    {ZYDIS_MNEMONIC_MOVSQ, INSN_MOVS},
    {ZYDIS_MNEMONIC_STOSB, INSN_STOS},
    {ZYDIS_MNEMONIC_STOSW, INSN_STOS},
    {ZYDIS_MNEMONIC_STOSD, INSN_STOS},
    {ZYDIS_MNEMONIC_STOSQ, INSN_STOS},
    {ZYDIS_MNEMONIC_LODSB, INSN_LODS},
    {ZYDIS_MNEMONIC_LODSW, INSN_LODS},
    {ZYDIS_MNEMONIC_LODSD, INSN_LODS},
    {ZYDIS_MNEMONIC_LODSQ, INSN_LODS},
    {ZYDIS_MNEMONIC_CMPSB, INSN_CMPS},
    {ZYDIS_MNEMONIC_CMPSW, INSN_CMPS},
    {ZYDIS_MNEMONIC_CMPSD, INSN_CMPS},
    {ZYDIS_MNEMONIC_CMPSQ, INSN_CMPS},
    {ZYDIS_MNEMONIC_SCASB, INSN_SCAS},
    {ZYDIS_MNEMONIC_SCASW, INSN_SCAS},
    {ZYDIS_MNEMONIC_SCASD, INSN_SCAS},
    {ZYDIS_MNEMONIC_SCASQ, INSN_SCAS},
    {ZYDIS_MNEMONIC_INSB, INSN_INS},
    {ZYDIS_MNEMONIC_INSW, INSN_INS},
    {ZYDIS_MNEMONIC_INSD, INSN_INS},
    {ZYDIS_MNEMONIC_OUTSB, INSN_OUTS},
    {ZYDIS_MNEMONIC_OUTSW, INSN_OUTS},
    {ZYDIS_MNEMONIC_OUTSD, INSN_OUTS},
    {ZYDIS_MNEMONIC_AND, INSN_AND},
    {ZYDIS_MNEMONIC_OR, INSN_OR},
    {ZYDIS_MNEMONIC_XOR, INSN_XOR},
    {ZYDIS_MNEMONIC_ADD, INSN_ADD},
    {ZYDIS_MNEMONIC_SUB, INSN_SUB},
    {ZYDIS_MNEMONIC_ADC, INSN_ADC},
    {ZYDIS_MNEMONIC_SBB, INSN_SBB},
    {ZYDIS_MNEMONIC_CMP, INSN_CMP},
    {ZYDIS_MNEMONIC_TEST, INSN_TEST},
    {ZYDIS_MNEMONIC_XCHG, INSN_XCHG},
    {ZYDIS_MNEMONIC_XADD, INSN_XADD},
    {ZYDIS_MNEMONIC_CMPXCHG, INSN_CMPXCHG},
    {ZYDIS_MNEMONIC_INC, INSN_INC},
    {ZYDIS_MNEMONIC_DEC, INSN_DEC},
    {ZYDIS_MNEMONIC_NOT, INSN_NOT},
    {ZYDIS_MNEMONIC_NEG, INSN_NEG},
    {ZYDIS_MNEMONIC_BT, INSN_BT},
    {ZYDIS_MNEMONIC_BTS, INSN_BTS},
    {ZYDIS_MNEMONIC_BTR, INSN_BTR},
    {ZYDIS_MNEMONIC_BTC, INSN_BTC},
    {ZYDIS_MNEMONIC_PUSH, INSN_PUSH},
    {ZYDIS_MNEMONIC_POP, INSN_POP},
    {ZYDIS_MNEMONIC_ROL, INSN_ROL},
    {ZYDIS_MNEMONIC_ROR, INSN_ROR},
    {ZYDIS_MNEMONIC_RCL, INSN_RCL},
    {ZYDIS_MNEMONIC_RCR, INSN_RCR},
    {ZYDIS_MNEMONIC_SHL, INSN_SHL},
    {ZYDIS_MNEMONIC_SHR, INSN_SHR},
    {ZYDIS_MNEMONIC_SAR, INSN_SAR},
    {ZYDIS_MNEMONIC_SHLD, INSN_SHLD},
    {ZYDIS_MNEMONIC_SHRD, INSN_SHRD},
    {ZYDIS_MNEMONIC_IMUL, INSN_IMUL},
    {ZYDIS_MNEMONIC_MUL, INSN_MUL},
    {ZYDIS_MNEMONIC_DIV, INSN_DIV},
    {ZYDIS_MNEMONIC_IDIV, INSN_IDIV},
    {ZYDIS_MNEMONIC_BSF, INSN_BSF},
    {ZYDIS_MNEMONIC_BSR, INSN_BSR},
    {ZYDIS_MNEMONIC_TZCNT, INSN_TZCNT},
    {ZYDIS_MNEMONIC_LZCNT, INSN_LZCNT},
    {ZYDIS_MNEMONIC_POPCNT, INSN_POPCNT},
    {ZYDIS_MNEMONIC_CRC32, INSN_CRC32},
    {ZYDIS_MNEMONIC_CMPXCHG8B, INSN_CMPXCHG8B},
    {ZYDIS_MNEMONIC_CMPXCHG16B, INSN_CMPXCHG16B},
    {ZYDIS_MNEMONIC_RET, INSN_RET},
    {ZYDIS_MNEMONIC_ENTER, INSN_ENTER},
    {ZYDIS_MNEMONIC_LEAVE, INSN_LEAVE},
    {ZYDIS_MNEMONIC_CALL, INSN_CALL},
    {ZYDIS_MNEMONIC_JMP, INSN_JMP},
    {ZYDIS_MNEMONIC_LMSW, INSN_LMSW},
    {ZYDIS_MNEMONIC_LGDT, INSN_LGDT},
    {ZYDIS_MNEMONIC_LIDT, INSN_LIDT},
    {ZYDIS_MNEMONIC_LLDT, INSN_LLDT},
    {ZYDIS_MNEMONIC_LTR, INSN_LTR},
    {ZYDIS_MNEMONIC_SMSW, INSN_SMSW},
    {ZYDIS_MNEMONIC_SGDT, INSN_SGDT},
    {ZYDIS_MNEMONIC_SIDT, INSN_SIDT},
    {ZYDIS_MNEMONIC_SLDT, INSN_SLDT},
    {ZYDIS_MNEMONIC_STR, INSN_STR},
    {ZYDIS_MNEMONIC_MOVUPS, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVUPD, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVSS, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVLPS, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVLPD, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVHPS, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVHPD, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVAPS, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVAPD, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVNTPS, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVNTPD, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVD, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVQ, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVDQA, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVDQU, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVNTQ, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVNTDQ, INSN_VECTOR},
    {ZYDIS_MNEMONIC_LDDQU, INSN_VECTOR},
    {ZYDIS_MNEMONIC_MOVNTDQA, INSN_VECTOR},
};

static int op_of(const ZydisDecodedInstruction *z)
{
    /* CMPSD and MOVSD are SSE2 instructions too. */
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode == 0xc2))
        return -1;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && (z->opcode == 0x10 || z->opcode == 0x11))
        return INSN_VECTOR;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode >> 4 == 4)
        return INSN_CMOV;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F && z->opcode >> 4 == 9)
        return INSN_SET;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode == 0x8c)
        return INSN_STORE_SEG;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode == 0x8e)
        return INSN_LOAD_SEG;
    if (z->mnemonic == ZYDIS_MNEMONIC_JMP && z->opcode == 0xff && z->raw.modrm.reg == 5)
        return INSN_JMP_FAR;
    if (z->mnemonic == ZYDIS_MNEMONIC_IMUL && (z->opcode == 0xf6 || z->opcode == 0xf7))
        return INSN_IMUL_WIDE;
    for (size_t i = 0; i < ARRAY_SIZE(op_maps); i++)
        if (op_maps[i].mnemonic == z->mnemonic)
            return op_maps[i].op;
    return -1;
}

/* Forms that cannot touch memory and are therefore not in our list: the opcode holds the register, or the
 * operand is a segment, control, debug or vector register. Far calls and jumps are not in it, either. */
static bool outside_list(const ZydisDecodedInstruction *z)
{
    uint8_t o = z->opcode;
    int op = op_of(z);
    if (op == INSN_CALL || op == INSN_JMP) {
        unsigned which = z->raw.modrm.reg;
        if (o == 0xe8 && op == INSN_CALL)
            return false;
        return o != 0xff || (which != 2 && which != 4 && which != 5) || z->raw.modrm.mod == 3;
    }
    if (op == INSN_RET)
        return o != 0xc2 && o != 0xc3;
    if (op >= INSN_LOAD_SEG && op != INSN_POP && z->raw.modrm.mod == 3)
        return true;
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F)
        return (o >= 0x20 && o <= 0x26) || o == 0xa0 || o == 0xa1 || o == 0xa8 || o == 0xa9;
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    if (o >= 0x40 && o <= 0x4f)
        return true;
    if ((o >= 0x90 && o <= 0x97) || (o >= 0xb0 && o <= 0xbf))
        return true;
    return o < 0x40 && (o & 7) >= 6; /* PUSH and POP of segment registers */
}

static int segment_of(ZydisRegister r)
{
    return ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_SEGMENT ? ZydisRegisterGetId(r) : -1;
}

/* The general register's number, or -1. */
static int gpr_of(ZydisRegister r)
{
    return r == ZYDIS_REGISTER_NONE
               ? -1
               : ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r));
}

/* MOVSXD with a 66 prefix reads 4 bytes on AMD's processors, which Zydis follows, and 2 on Intel's (SDM
 * volume 2, "MOVSX/MOVSXD"). */
static bool same_size(const struct insn *insn, const struct insn_operand *op, const ZydisDecodedOperand *z)
{
    if (insn->op == INSN_MOVSX && op == &insn->src && insn->opsize == 2 && z->size == 32)
        return op->size == 2;
    return op->size * 8 == z->size;
}

static void check_register(const struct insn *insn, const struct insn_operand *op,
                           const ZydisDecodedOperand *z)
{
    ZydisRegister r = z->reg.value;
    int class = ZydisRegisterGetClass(r);
    if (class == ZYDIS_REGCLASS_SEGMENT || class == ZYDIS_REGCLASS_MMX || class == ZYDIS_REGCLASS_XMM) {
        int kind = class == ZYDIS_REGCLASS_SEGMENT ? INSN_SREG
                   : class == ZYDIS_REGCLASS_MMX   ? INSN_MMX
                                                   : INSN_XMM;
        check(op->kind == kind, "kind of register");
        check(op->reg == ZydisRegisterGetId(r), "segment or vector register");
        return;
    }
    check(op->kind == INSN_REG, "a register operand");
    bool high = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
    check(op->high_byte == high, "high byte register");
    check(same_size(insn, op, z), "register size");
    check(high ? op->reg == r - ZYDIS_REGISTER_AH : op->reg == gpr_of(r), "register number");
}

static void check_memory(const struct insn *insn, const struct insn_operand *op, const ZydisDecodedOperand *z,
                         bool di)
{
    check(op->kind == INSN_MEM, "a memory operand");
    check(same_size(insn, op, z), "memory size");
    if (di) { /* the ES:rDI operand of an instruction with two */
        check(gpr_of(z->mem.base) == 7 && segment_of(z->mem.segment) == INSN_ES, "ES:rDI");
        return;
    }
    bool rip = z->mem.base == ZYDIS_REGISTER_RIP || z->mem.base == ZYDIS_REGISTER_EIP;
    check(insn->rip_relative == rip, "RIP-relative");
    /* A fault of Zydis 4.0: with 67 and REX.B it takes SIB base 101 with mod 00 for [R13D] without
     * displacement, which no encoding gives (SDM volume 2, table 2-5: REX.B is not decoded there, a
     * displacement follows, there is no base). */
    bool impossible = z->mem.base == ZYDIS_REGISTER_R13D && !z->mem.disp.has_displacement;
    check(insn->base == (rip || impossible ? -1 : gpr_of(z->mem.base)), "base");
    check(insn->index == gpr_of(z->mem.index), "index");
    if (insn->index >= 0 && insn->addrsize != 2)
        check(insn->scale == z->mem.scale, "scale");
    /* Before CALL and JMP Zydis takes 3E for NOTRACK alone; it overrides the segment as well. */
    bool notrack = insn->op == INSN_CALL || insn->op == INSN_JMP;
    if (!notrack || insn->segment != INSN_DS)
        check(insn->segment == segment_of(z->mem.segment), "segment");
    if (impossible)
        return;
    int64_t disp = z->mem.disp.has_displacement ? z->mem.disp.value : 0;
    check(bits_low_bytes((uint64_t)insn->disp ^ (uint64_t)disp, insn->addrsize) == 0, "displacement");
}

static void check_immediate(const struct insn *insn, const struct insn_operand *op,
                            const ZydisDecodedOperand *z)
{
    check(op->kind == INSN_IMM, "an immediate operand");
    check(bits_low_bytes(op->imm ^ z->imm.value.u, op->size) == 0, "immediate");
    if ((insn->op >= INSN_BT && insn->op <= INSN_BTC) || (insn->op >= INSN_ROL && insn->op <= INSN_SHRD))
        check(op->imm <= 0xff, "bit offset");
    else
        check(op->imm == bits_sign_extend(op->imm, op->size), "sign extension");
}

static void check_operand(const struct insn *insn, const struct insn_operand *op,
                          const ZydisDecodedOperand *z, bool di)
{
    if (z->type == ZYDIS_OPERAND_TYPE_REGISTER)
        check_register(insn, op, z);
    else if (z->type == ZYDIS_OPERAND_TYPE_MEMORY)
        check_memory(insn, op, z, di);
    else if (z->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        check_immediate(insn, op, z);
    else
        check(false, "operand type");
}

static void check_operands(const struct insn *insn, const ZydisDecodedInstruction *zi,
                           const ZydisDecodedOperand *z)
{
    if (insn->op == INSN_RET || insn->op == INSN_ENTER || insn->op == INSN_LEAVE) {
        check(zi->operand_count_visible == (insn->third.kind ? 2 : insn->src.kind ? 1 : 0), "operands");
        if (insn->src.kind)
            check((uint16_t)z[0].imm.value.u == insn->src.imm, "immediate word");
        if (insn->third.kind)
            check((uint8_t)z[1].imm.value.u == insn->third.imm, "nesting level");
        return;
    }
    bool only_source = (insn->op >= INSN_MUL && insn->op <= INSN_IDIV) ||
                       (insn->op >= INSN_PUSH && insn->op < INSN_POP && insn->op != INSN_CMPXCHG16B &&
                        insn->op != INSN_LOAD_SEG);
    if (only_source) {
        check_operand(insn, &insn->src, &z[0], false);
        check(insn->dst.kind == INSN_NONE, "it has one operand");
        return;
    }
    bool third = zi->operand_count_visible == 3;
    check(third == (insn->third.kind != INSN_NONE), "three operands");
    if (third)
        check_operand(insn, &insn->third, &z[2], false);
    check_operand(insn, &insn->dst, &z[0], insn->op == INSN_MOVS);
    bool one = insn->op == INSN_INC || insn->op == INSN_DEC || insn->op == INSN_NOT || insn->op == INSN_NEG ||
               insn->op == INSN_POP || insn->op == INSN_SET || insn->op == INSN_CMPXCHG8B ||
               insn->op == INSN_CMPXCHG16B || (insn->op >= INSN_SMSW && insn->op <= INSN_STR);
    if (one)
        check(insn->src.kind == INSN_NONE, "one operand");
    else
        check_operand(insn, &insn->src, &z[1], insn->op == INSN_CMPS);
}

static void check_prefixes(const struct insn *insn, const ZydisDecodedInstruction *z)
{
    uint8_t last = 0;
    bool lock = false;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        uint8_t p = z->raw.prefixes[i].value;
        lock |= p == 0xf0;
        if (p == 0xf2 || p == 0xf3)
            last = p;
    }
    check(insn->lock == lock, "LOCK");
    bool compares = insn->op == INSN_CMPS || insn->op == INSN_SCAS;
    bool repne = compares && last == 0xf2;
    check(insn->repne == repne, "REPNE");
    check(insn->rep == (insn_is_string(insn) && last && !repne), "REP");
}

static void check_same(const struct insn *insn, const ZydisDecodedInstruction *z,
                       const ZydisDecodedOperand *ops)
{
    check(insn->length == z->length, "length");
    check(op_of(z) == insn->op, "mnemonic");
    check(!outside_list(z), "form outside the list");
    check(insn->addrsize * 8 == z->address_width, "address width");
    check_prefixes(insn, z);
    check_operands(insn, z, ops);
    if (insn->op == INSN_CMOV || insn->op == INSN_SET)
        check(insn->detail == (z->opcode & 15), "condition");
    /* Zydis counts INS and OUTS with REX.W as 64 bits wide and MOVNTI in 16-bit code as 16, though it gives
     * the operands the 32 bits that they have. */
    bool counts =
        insn->op < INSN_CRC32 || insn->op == INSN_CALL || insn->op == INSN_JMP || insn->op == INSN_RET;
    if (counts && insn->op != INSN_INS && insn->op != INSN_OUTS && z->mnemonic != ZYDIS_MNEMONIC_MOVNTI)
        check(insn->opsize * 8 == z->operand_width, "operand width");
}

/* What any caller may rely on. */
static void check_invariants(const struct insn *insn, struct span bytes)
{
    check(insn->length >= 1 && insn->length <= INSN_MAX_LEN && insn->length <= bytes.size,
          "length in bounds");
    check(insn->op < INSN_OP_COUNT, "op in bounds");
    check(insn->base < 16 && insn->index < 16 && insn->dst.reg < 16 && insn->src.reg < 16,
          "registers in bounds");
    bool memory = insn_memory_size(insn) != 0;
    check(memory == (insn->dst.kind == INSN_MEM || insn->src.kind == INSN_MEM), "memory size");
    check(memory == (insn_reads_memory(insn) || insn_writes_memory(insn)), "an access");
}

/* A prefix of a decodable instruction asks for more bytes, and never decodes as something shorter. */
static void check_truncation(const struct insn *insn, struct span bytes, enum insn_mode mode)
{
    struct insn cut;
    for (size_t n = 0; n < insn->length; n++)
        check(insn_decode((struct span){bytes.data, n}, mode, &cut) == ERR_RANGE, "a truncated instruction");
    check(insn_decode((struct span){bytes.data, insn->length}, mode, &cut) == STATUS_OK &&
              cut.length == insn->length,
          "its own bytes suffice");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        ZydisMachineMode machine;
        ZydisStackWidth stack;
    } modes[3] = {{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
                  {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
                  {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64}};
    if (size < 1)
        return 0;
    enum insn_mode mode = data[0] % 3;
    struct span bytes = {data + 1, size - 1};
    input = data;
    input_size = size;

    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, modes[mode].machine, modes[mode].stack);
    bool theirs = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes.data, bytes.size, &z, operands));

    struct insn insn;
    if (insn_decode(bytes, mode, &insn) == STATUS_OK) {
        check(theirs, "Zydis rejects it");
        check_invariants(&insn, bytes);
        check_truncation(&insn, bytes, mode);
        check_same(&insn, &z, operands);
    } else if (theirs) {
        check(op_of(&z) < 0 || outside_list(&z), "Zydis accepts it, we do not");
    }
    return 0;
}
