/* Arithmetic that is legal on a device's registers, though no driver is known to do it (SDM volume 2,
 * chapters 3 to 5). Flags that the SDM calls undefined keep their old values: AF of shifts; OF of those by
 * more than one; SF, ZF, AF and PF of IMUL and MUL; all of DIV and IDIV; all but ZF of BSF and BSR; all but
 * CF and ZF of TZCNT and LZCNT. */
#include "arch/x86/insn_execute.h"

enum { REG_AX = 0, REG_CX = 1, REG_DX = 2, REG_BX = 3 };

#define CRC32C_POLYNOMIAL 0x82f63b78u /* 11EDC6F41H, reflected */

/* Condition codes (SDM volume 1, appendix B). */
static bool condition(unsigned number, uint64_t rflags)
{
    bool cf = rflags & FLAG_CF, zf = rflags & FLAG_ZF, sf = rflags & FLAG_SF, of = rflags & FLAG_OF;
    bool holds;
    switch (number >> 1) {
    case 0:
        holds = of;
        break;
    case 1:
        holds = cf;
        break;
    case 2:
        holds = zf;
        break;
    case 3:
        holds = cf || zf;
        break;
    case 4:
        holds = sf;
        break;
    case 5:
        holds = rflags & FLAG_PF;
        break;
    case 6:
        holds = sf != of;
        break;
    default:
        holds = zf || sf != of;
        break;
    }
    return holds != (number & 1);
}

/* One bit to the left; *cf comes in when `in` does, and what falls out goes to it. */
static uint64_t left_by_one(uint64_t v, unsigned size, bool in, bool *cf)
{
    bool out = insn_sign_of(v, size);
    v = bits_low_bytes(v << 1, size) | in;
    *cf = out;
    return v;
}

static uint64_t right_by_one(uint64_t v, unsigned size, bool in, bool *cf)
{
    bool out = v & 1;
    v = v >> 1 | (uint64_t)in << (size * 8 - 1);
    *cf = out;
    return v;
}

/* Bit by bit, as the SDM has it: at most 63 steps, of an instruction that hardly occurs. */
static uint64_t shift(enum insn_op op, uint64_t v, unsigned size, unsigned count, bool *cf)
{
    for (; count; count--) {
        bool top = insn_sign_of(v, size);
        switch (op) {
        case INSN_ROL:
            v = left_by_one(v, size, top, cf);
            break;
        case INSN_ROR:
            v = right_by_one(v, size, v & 1, cf);
            break;
        case INSN_RCL:
            v = left_by_one(v, size, *cf, cf);
            break;
        case INSN_RCR:
            v = right_by_one(v, size, *cf, cf);
            break;
        case INSN_SHL:
            v = left_by_one(v, size, false, cf);
            break;
        case INSN_SHR:
            v = right_by_one(v, size, false, cf);
            break;
        default: /* SAR */
            v = right_by_one(v, size, top, cf);
            break;
        }
    }
    return v;
}

static void execute_shift(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                          uint64_t *mem_out)
{
    unsigned size = insn->opsize, count = b & (size == 8 ? 63 : 31);
    bool cf = regs->rflags & FLAG_CF;
    bool rotates = insn->op <= INSN_RCR;
    uint64_t r = shift((enum insn_op)insn->op, a, size, count, &cf);
    if (count) {
        uint64_t mask = FLAG_CF, flags = cf ? FLAG_CF : 0;
        if (count == 1) {
            /* to the left and SAR: did the sign change? RCR and SHR alike; ROR: of the two highest bits */
            mask |= FLAG_OF;
            uint64_t other = insn->op == INSN_ROR ? r << 1 : a;
            flags |= insn_sign_of(r ^ other, size) ? FLAG_OF : 0;
        }
        if (!rotates) {
            mask |= FLAG_SF | FLAG_ZF | FLAG_PF;
            flags |= insn_result_flags(r, size);
        }
        insn_set_flags(regs, mask, flags);
    }
    insn_write_operand(&insn->dst, regs, r, mem_out);
}

/* SHLD and SHRD: bits of the second operand follow. A 16-bit one by more than 16 has an undefined result. */
static void execute_double_shift(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                                 uint64_t *mem_out)
{
    unsigned size = insn->opsize;
    uint64_t by = insn->third.kind == INSN_REG ? insn_reg_read(&insn->third, regs) : insn->third.imm;
    unsigned count = by & (size == 8 ? 63 : 31);
    bool cf = false, in;
    uint64_t r = a;
    for (unsigned i = 0; i < count; i++) {
        if (insn->op == INSN_SHLD) {
            b = left_by_one(b, size, insn_sign_of(b, size), &in);
            r = left_by_one(r, size, in, &cf);
        } else {
            b = right_by_one(b, size, b & 1, &in);
            r = right_by_one(r, size, in, &cf);
        }
    }
    if (count) {
        uint64_t mask = FLAG_CF | FLAG_SF | FLAG_ZF | FLAG_PF | (count == 1 ? FLAG_OF : 0);
        uint64_t flags = insn_result_flags(r, size) | (cf ? FLAG_CF : 0);
        insn_set_flags(regs, mask, flags | (insn_sign_of(r ^ a, size) ? FLAG_OF : 0));
    }
    insn_write_operand(&insn->dst, regs, r, mem_out);
}

/* CF and OF of a multiplication: does the result need its upper half? */
static void set_overflow(struct insn_regs *regs, bool overflow)
{
    insn_set_flags(regs, FLAG_CF | FLAG_OF, overflow ? FLAG_CF | FLAG_OF : 0);
}

/* 64 x 64 bits. Of signed factors: the high half loses each factor once for the other one's sign. */
static uint64_t multiply(uint64_t a, uint64_t b, bool is_signed, uint64_t *high)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    *high = (uint64_t)(product >> 64);
    if (is_signed)
        *high -= ((a >> 63) ? b : 0) + ((b >> 63) ? a : 0);
    return (uint64_t)product;
}

static void execute_imul(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b)
{
    unsigned size = insn->opsize;
    uint64_t factor = insn->third.kind == INSN_IMM ? insn->third.imm : bits_sign_extend(a, size), high;
    uint64_t low = multiply(bits_sign_extend(b, size), factor, true, &high);
    uint64_t kept = bits_sign_extend(low, size);
    set_overflow(regs, kept != low || high != 0 - (kept >> 63));
    insn_write_operand(&insn->dst, regs, low, NULL);
}

/* The pair rDX:rAX, or AH:AL. */
static void write_pair(struct insn_regs *regs, unsigned size, uint64_t high, uint64_t low)
{
    struct insn_operand first = {.kind = INSN_REG, .size = (uint8_t)size, .reg = REG_AX};
    struct insn_operand second = {
        .kind = INSN_REG, .size = (uint8_t)size, .reg = size == 1 ? REG_AX : REG_DX, .high_byte = size == 1};
    insn_write_operand(&first, regs, low, NULL);
    insn_write_operand(&second, regs, high, NULL);
}

static void execute_multiply(const struct insn *insn, struct insn_regs *regs, uint64_t b)
{
    unsigned size = insn->opsize;
    bool is_signed = insn->op == INSN_IMUL_WIDE;
    uint64_t a = bits_low_bytes(regs->gpr[REG_AX], size), high;
    if (is_signed) {
        a = bits_sign_extend(a, size);
        b = bits_sign_extend(b, size);
    }
    uint64_t low = multiply(a, b, is_signed, &high);
    if (size < 8)
        high = low >> (size * 8);
    uint64_t unneeded = is_signed && insn_sign_of(low, size) ? bits_low_bytes(~(uint64_t)0, size) : 0;
    set_overflow(regs, bits_low_bytes(high, size) != unneeded);
    write_pair(regs, size, high, low);
}

/* high:low / b, 64 bits each; high < b. Bit by bit: a 128-bit division would be a call to libgcc. */
static uint64_t divide(uint64_t high, uint64_t low, uint64_t b, uint64_t *remainder)
{
    for (unsigned i = 0; i < 64; i++) {
        bool carry = high >> 63;
        high = high << 1 | low >> 63;
        low <<= 1;
        if (carry || high >= b) {
            high -= b;
            low |= 1;
        }
    }
    *remainder = high;
    return low;
}

/* ERR_RANGE: #DE. */
static enum status execute_divide(const struct insn *insn, struct insn_regs *regs, uint64_t b)
{
    unsigned size = insn->opsize;
    bool is_signed = insn->op == INSN_IDIV;
    uint64_t ones = bits_low_bytes(~(uint64_t)0, size), remainder;
    uint64_t low = bits_low_bytes(regs->gpr[REG_AX], size);
    uint64_t high = size == 1 ? regs->gpr[REG_AX] >> 8 & 0xff : bits_low_bytes(regs->gpr[REG_DX], size);
    bool negative = is_signed && insn_sign_of(high, size),
         divisor_negative = is_signed && insn_sign_of(b, size);
    if (negative) {
        low = bits_low_bytes(0 - low, size);
        high = ones & (~high + (low == 0));
    }
    if (divisor_negative)
        b = bits_low_bytes(0 - b, size);
    if (high >= b) /* also b == 0 */
        return ERR_RANGE;
    if (size < 8) {
        low |= high << (size * 8);
        high = 0;
    }
    uint64_t quotient = divide(high, low, b, &remainder);
    bool negates = negative != divisor_negative;
    if (is_signed && quotient > (ones >> 1) + negates)
        return ERR_RANGE;
    write_pair(regs, size, negative ? 0 - remainder : remainder, negates ? 0 - quotient : quotient);
    return STATUS_OK;
}

static void execute_scan(const struct insn *insn, struct insn_regs *regs, uint64_t b)
{
    unsigned bits = insn->opsize * 8u;
    uint64_t zero = b ? 0 : FLAG_ZF, r;
    bool forward = insn->op == INSN_BSF || insn->op == INSN_TZCNT;
    if (insn->op == INSN_POPCNT) {
        insn_set_flags(regs, FLAGS_STATUS, zero);
        r = bits_count(b);
    } else if (insn->op == INSN_BSF || insn->op == INSN_BSR) {
        insn_set_flags(regs, FLAG_ZF, zero);
        if (!b) /* the destination is as it was, on Intel's processors and AMD's */
            return;
        r = forward ? (unsigned)__builtin_ctzll(b) : bits_highest(b);
    } else {
        r = !b ? bits : forward ? (unsigned)__builtin_ctzll(b) : bits - 1 - bits_highest(b);
        insn_set_flags(regs, FLAG_CF | FLAG_ZF, (b ? 0 : FLAG_CF) | (r ? 0 : FLAG_ZF));
    }
    insn_write_operand(&insn->dst, regs, r, NULL);
}

static void execute_crc32(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b)
{
    uint32_t crc = (uint32_t)a;
    for (unsigned i = 0; i < insn->opsize * 8u; i++, b >>= 1)
        crc = crc >> 1 ^ ((crc ^ (uint32_t)b) & 1 ? CRC32C_POLYNOMIAL : 0);
    insn_write_operand(&insn->dst, regs, crc, NULL);
}

static void execute_cmpxchg8b(struct insn_regs *regs, uint64_t a, uint64_t *mem_out)
{
    uint64_t expected = regs->gpr[REG_DX] << 32 | (uint32_t)regs->gpr[REG_AX];
    bool equal = a == expected;
    insn_set_flags(regs, FLAG_ZF, equal ? FLAG_ZF : 0);
    *mem_out = equal ? regs->gpr[REG_CX] << 32 | (uint32_t)regs->gpr[REG_BX] : a;
    if (!equal) {
        regs->gpr[REG_AX] = (uint32_t)a;
        regs->gpr[REG_DX] = a >> 32;
    }
}

void insn_cmpxchg16b(struct insn_regs *regs, uint64_t memory[2])
{
    bool equal = memory[0] == regs->gpr[REG_AX] && memory[1] == regs->gpr[REG_DX];
    insn_set_flags(regs, FLAG_ZF, equal ? FLAG_ZF : 0);
    if (equal) {
        memory[0] = regs->gpr[REG_BX];
        memory[1] = regs->gpr[REG_CX];
    } else {
        regs->gpr[REG_AX] = memory[0];
        regs->gpr[REG_DX] = memory[1];
    }
}

enum status insn_execute_rare(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                              uint64_t *mem_out)
{
    if (insn->op < INSN_ROL || insn->op >= INSN_PUSH)
        return ERR_UNSUPPORTED; /* string instructions, and what is more than arithmetic */
    if (insn->op <= INSN_SAR)
        execute_shift(insn, regs, a, b, mem_out);
    else if (insn->op <= INSN_SHRD)
        execute_double_shift(insn, regs, a, b, mem_out);
    else if (insn->op == INSN_CMOV)
        insn_write_operand(&insn->dst, regs, condition(insn->detail, regs->rflags) ? b : a, mem_out);
    else if (insn->op == INSN_IMUL)
        execute_imul(insn, regs, a, b);
    else if (insn->op <= INSN_IMUL_WIDE)
        execute_multiply(insn, regs, b);
    else if (insn->op <= INSN_IDIV)
        return execute_divide(insn, regs, b);
    else if (insn->op <= INSN_POPCNT)
        execute_scan(insn, regs, b);
    else if (insn->op == INSN_CRC32)
        execute_crc32(insn, regs, a, b);
    else if (insn->op == INSN_CMPXCHG8B)
        execute_cmpxchg8b(regs, a, mem_out);
    else
        insn_write_operand(&insn->dst, regs, condition(insn->detail, regs->rflags), mem_out);
    return STATUS_OK;
}
