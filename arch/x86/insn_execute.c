/* What the instructions do (SDM volume 2, chapters 3 to 5, and volume 1, appendix A "EFLAGS
 * cross-reference"). */
#include "arch/x86/insn_execute.h"
#include "hv/lib/bits.h"

#define FLAG_DF BIT(10)

enum { REG_AX = 0, REG_CX = 1, REG_SI = 6, REG_DI = 7 };

uint64_t insn_reg_read(const struct insn_operand *op, const struct insn_regs *regs)
{
    uint64_t value = regs->gpr[op->reg];
    return bits_low_bytes(op->high_byte ? value >> 8 : value, op->size);
}

/* Writes the low `size` bytes; 4 bytes clear the upper half, 1 and 2 leave the rest (SDM volume 1, 3.4.1.1).
 */
static void write_low(uint64_t *reg, unsigned size, uint64_t value)
{
    if (size == 8)
        *reg = value;
    else if (size == 4)
        *reg = (uint32_t)value;
    else
        *reg = (*reg & ~bits_low_bytes(~(uint64_t)0, size)) | bits_low_bytes(value, size);
}

void insn_reg_write(const struct insn_operand *op, struct insn_regs *regs, uint64_t value)
{
    uint64_t *reg = &regs->gpr[op->reg];
    if (op->high_byte)
        *reg = (*reg & ~(uint64_t)0xff00) | (value & 0xff) << 8;
    else
        write_low(reg, op->size, value);
}

static uint64_t read_operand(const struct insn_operand *op, const struct insn_regs *regs, uint64_t mem_in)
{
    if (op->kind == INSN_MEM)
        return bits_low_bytes(mem_in, op->size);
    return op->kind == INSN_REG ? insn_reg_read(op, regs) : op->imm;
}

void insn_write_operand(const struct insn_operand *op, struct insn_regs *regs, uint64_t value,
                        uint64_t *mem_out)
{
    if (op->kind == INSN_MEM)
        *mem_out = bits_low_bytes(value, op->size);
    else
        insn_reg_write(op, regs, value);
}

/* SF, ZF and PF of a result. */
uint64_t insn_result_flags(uint64_t result, unsigned size)
{
    /* Bit n of the constant: n has an even number of bits. No builtin: it may become a call to libgcc. */
    unsigned nibble = (unsigned)(result ^ (result >> 4)) & 0xf;
    uint64_t flags = (0x9669u >> nibble) & 1 ? FLAG_PF : 0;
    if (bits_low_bytes(result, size) == 0)
        flags |= FLAG_ZF;
    return insn_sign_of(result, size) ? flags | FLAG_SF : flags;
}

/* CF, AF and OF from the carries (or borrows) out of each bit position, and the result's own flags. */
static uint64_t carry_flags(uint64_t carries, uint64_t overflow, uint64_t result, unsigned size)
{
    uint64_t flags = insn_result_flags(result, size);
    if (insn_sign_of(carries, size))
        flags |= FLAG_CF;
    if (carries & BIT(3))
        flags |= FLAG_AF;
    return insn_sign_of(overflow, size) ? flags | FLAG_OF : flags;
}

static uint64_t add_with_carry(uint64_t a, uint64_t b, uint64_t carry, unsigned size, uint64_t *flags)
{
    uint64_t r = a + b + carry;
    *flags = carry_flags((a & b) | ((a | b) & ~r), (a ^ r) & (b ^ r), r, size);
    return r;
}

static uint64_t subtract_with_borrow(uint64_t a, uint64_t b, uint64_t borrow, unsigned size, uint64_t *flags)
{
    uint64_t r = a - b - borrow;
    *flags = carry_flags((~a & b) | ((~a | b) & r), (a ^ b) & (a ^ r), r, size);
    return r;
}

/* ADD to TEST. The result of CMP and TEST is dropped. */
static void execute_binary(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                           uint64_t *mem_out)
{
    uint64_t carry = regs->rflags & FLAG_CF, r, flags, mask = FLAGS_STATUS;
    switch (insn->op) {
    case INSN_ADD:
        r = add_with_carry(a, b, 0, insn->opsize, &flags);
        break;
    case INSN_ADC:
        r = add_with_carry(a, b, carry, insn->opsize, &flags);
        break;
    case INSN_SBB:
        r = subtract_with_borrow(a, b, carry, insn->opsize, &flags);
        break;
    case INSN_SUB:
    case INSN_CMP:
        r = subtract_with_borrow(a, b, 0, insn->opsize, &flags);
        break;
    default:
        r = insn->op == INSN_OR ? a | b : insn->op == INSN_XOR ? a ^ b : a & b;
        flags = insn_result_flags(r, insn->opsize); /* CF and OF are cleared, AF is undefined */
        mask &= ~FLAG_AF;
        break;
    }
    insn_set_flags(regs, mask, flags);
    if (insn->op != INSN_CMP && insn->op != INSN_TEST)
        insn_write_operand(&insn->dst, regs, r, mem_out);
}

static void execute_unary(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t *mem_out)
{
    uint64_t r, flags = 0, mask = 0;
    switch (insn->op) {
    case INSN_INC:
        r = add_with_carry(a, 1, 0, insn->opsize, &flags);
        mask = FLAGS_STATUS & ~FLAG_CF;
        break;
    case INSN_DEC:
        r = subtract_with_borrow(a, 1, 0, insn->opsize, &flags);
        mask = FLAGS_STATUS & ~FLAG_CF;
        break;
    case INSN_NEG:
        r = subtract_with_borrow(0, a, 0, insn->opsize, &flags);
        mask = FLAGS_STATUS;
        break;
    default: /* NOT */
        r = ~a;
        break;
    }
    insn_set_flags(regs, mask, flags);
    insn_write_operand(&insn->dst, regs, r, mem_out);
}

/* XCHG, XADD, CMPXCHG. The second operand is written first: XADD of a register with itself leaves the sum. */
static void execute_exchange(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                             uint64_t *mem_out)
{
    uint64_t flags, r = b;
    if (insn->op == INSN_CMPXCHG) {
        struct insn_operand acc = {.kind = INSN_REG, .size = insn->opsize, .reg = REG_AX};
        subtract_with_borrow(insn_reg_read(&acc, regs), a, 0, insn->opsize, &flags);
        insn_set_flags(regs, FLAGS_STATUS, flags);
        if (!(flags & FLAG_ZF)) {
            insn_reg_write(&acc, regs, a);
            r = a;
        }
    } else {
        if (insn->op == INSN_XADD) {
            r = add_with_carry(a, b, 0, insn->opsize, &flags);
            insn_set_flags(regs, FLAGS_STATUS, flags);
        }
        insn_write_operand(&insn->src, regs, a, mem_out);
    }
    insn_write_operand(&insn->dst, regs, r, mem_out);
}

/* BT, BTS, BTR, BTC on the word that holds the bit. */
static void execute_bit(const struct insn *insn, struct insn_regs *regs, uint64_t a, uint64_t b,
                        uint64_t *mem_out)
{
    uint64_t bit = BIT(b & (insn->opsize * 8u - 1));
    insn_set_flags(regs, FLAG_CF, a & bit ? FLAG_CF : 0);
    if (insn->op == INSN_BT)
        return;
    uint64_t r = insn->op == INSN_BTS ? a | bit : insn->op == INSN_BTR ? a & ~bit : a ^ bit;
    insn_write_operand(&insn->dst, regs, r, mem_out);
}

enum status insn_execute(const struct insn *insn, struct insn_regs *regs, uint64_t mem_in, uint64_t *mem_out)
{
    /* Device registers are nearly always reached with MOV. */
    uint64_t b = read_operand(&insn->src, regs, mem_in);
    if (insn->op == INSN_MOV || insn->op == INSN_MOVZX) {
        insn_write_operand(&insn->dst, regs, b, mem_out);
        return STATUS_OK;
    }
    uint64_t a = read_operand(&insn->dst, regs, mem_in);
    switch (insn->op) {
    case INSN_MOVSX:
        insn_write_operand(&insn->dst, regs, bits_sign_extend(b, insn->src.size), mem_out);
        return STATUS_OK;
    case INSN_MOVBE:
        insn_write_operand(&insn->dst, regs, __builtin_bswap64(b) >> (64 - 8 * insn->opsize), mem_out);
        return STATUS_OK;
    case INSN_AND:
    case INSN_OR:
    case INSN_XOR:
    case INSN_ADD:
    case INSN_SUB:
    case INSN_ADC:
    case INSN_SBB:
    case INSN_CMP:
    case INSN_TEST:
        execute_binary(insn, regs, a, b, mem_out);
        return STATUS_OK;
    case INSN_INC:
    case INSN_DEC:
    case INSN_NOT:
    case INSN_NEG:
        execute_unary(insn, regs, a, mem_out);
        return STATUS_OK;
    case INSN_XCHG:
    case INSN_XADD:
    case INSN_CMPXCHG:
        execute_exchange(insn, regs, a, b, mem_out);
        return STATUS_OK;
    case INSN_BT:
    case INSN_BTS:
    case INSN_BTR:
    case INSN_BTC:
        execute_bit(insn, regs, a, b, mem_out);
        return STATUS_OK;
    default:
        return insn_execute_rare(insn, regs, a, b, mem_out);
    }
}

bool insn_is_string(const struct insn *insn)
{
    return insn->op >= INSN_MOVS && insn->op <= INSN_OUTS;
}

static bool uses_si(const struct insn *insn)
{
    return insn->op == INSN_MOVS || insn->op == INSN_CMPS || insn->op == INSN_LODS || insn->op == INSN_OUTS;
}

static bool uses_di(const struct insn *insn)
{
    return insn->op != INSN_LODS && insn->op != INSN_OUTS;
}

uint64_t insn_string_count(const struct insn *insn, const struct insn_regs *regs)
{
    if (!insn->rep && !insn->repne)
        return 1;
    return bits_low_bytes(regs->gpr[REG_CX], insn->addrsize);
}

uint64_t insn_string_di(const struct insn *insn, const struct insn_regs *regs)
{
    return bits_low_bytes(regs->gpr[REG_DI], insn->addrsize);
}

void insn_string_advance(const struct insn *insn, struct insn_regs *regs, uint64_t count)
{
    uint64_t step = count * insn->opsize;
    if (regs->rflags & FLAG_DF)
        step = 0 - step;
    if (uses_si(insn))
        write_low(&regs->gpr[REG_SI], insn->addrsize, regs->gpr[REG_SI] + step);
    if (uses_di(insn))
        write_low(&regs->gpr[REG_DI], insn->addrsize, regs->gpr[REG_DI] + step);
    if (insn->rep || insn->repne)
        write_low(&regs->gpr[REG_CX], insn->addrsize, regs->gpr[REG_CX] - count);
}

void insn_string_compare(const struct insn *insn, struct insn_regs *regs, uint64_t first, uint64_t second)
{
    uint64_t flags;
    subtract_with_borrow(first, second, 0, insn->opsize, &flags);
    insn_set_flags(regs, FLAGS_STATUS, flags);
}

bool insn_string_continues(const struct insn *insn, const struct insn_regs *regs)
{
    if ((!insn->rep && !insn->repne) || insn_string_count(insn, regs) == 0)
        return false;
    if (insn->op != INSN_CMPS && insn->op != INSN_SCAS)
        return true;
    return !!(regs->rflags & FLAG_ZF) == insn->rep;
}
