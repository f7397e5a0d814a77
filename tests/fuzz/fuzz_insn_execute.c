/* Decoder and semantics against the host's processor: any 64-bit instruction of our list that works on
 * registers, or on memory at RDI, must leave the same registers, memory and defined flags as it does
 * natively. The first 15 bytes are the instruction, the rest makes the operands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/native_insn.h"

enum { REG_SP = 4, REG_DI = 7 };

#define BUFFER_SIZE 4096u
#define MIDDLE      (BUFFER_SIZE / 2)
#define DISP_LIMIT  512
#define BIT_LIMIT   4095u /* bit offsets stay within the buffer */
#define CACHE_LINE  64u

static uint8_t native_memory[BUFFER_SIZE] __attribute__((aligned(64)));
static uint8_t our_memory[BUFFER_SIZE];

static void check(bool ok, const char *what, const struct insn *insn)
{
    if (ok)
        return;
    fprintf(stderr, "%s of %u bytes differs from the processor: %s\n", insn_op_name(insn->op), insn->opsize,
            what);
    abort();
}

static bool uses_rsp(const struct insn_operand *op)
{
    return op->kind == INSN_REG && op->reg == REG_SP && !op->high_byte;
}

/* May it run natively? */
static bool runnable(const struct insn *insn)
{
    if (insn_is_string(insn) || insn->op >= INSN_PUSH)
        return false;
    if (uses_rsp(&insn->dst) || uses_rsp(&insn->src) || uses_rsp(&insn->third) ||
        !native_insn_supported(insn))
        return false;
    if (insn->op == INSN_MOVSX && insn->opsize == 2 && insn->src.size == 2)
        return false; /* MOVSXD with 66 differs between vendors */
    if (!insn_memory_size(insn))
        return true;
    return insn->base == REG_DI && insn->index < 0 && insn->addrsize == 8 && insn->segment == INSN_DS &&
           insn->disp >= -DISP_LIMIT && insn->disp <= DISP_LIMIT;
}

/* A locked access to two cache lines: processors can be told to raise #AC for it (SDM volume 3, "Features to
 * Disable Bus Locks"), and Linux makes that a long wait, or a signal. */
static bool splits_lock(const struct insn *insn, const struct insn_regs *regs)
{
    uint8_t size = insn_memory_size(insn);
    uint64_t in_line = insn_effective_offset(insn, regs) % CACHE_LINE;
    return size && (insn->lock || insn->op == INSN_XCHG) && in_line + size > CACHE_LINE;
}

static uint64_t value(const uint8_t *data, size_t size, size_t n)
{
    static const uint64_t corners[] = {0,
                                       1,
                                       0x7f,
                                       0x80,
                                       0xff,
                                       0x7fff,
                                       0x8000,
                                       0xffff,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       ~0ull,
                                       0x0f,
                                       0x10};
    uint64_t v = 0;
    if (n * 8 + 8 <= size)
        memcpy(&v, data + n * 8, 8);
    else if (size)
        v = corners[(data[n % size] + n) % ARRAY_SIZE(corners)];
    return v;
}

static void set_up(const struct insn *insn, const uint8_t *data, size_t size, struct insn_regs *regs)
{
    for (unsigned i = 0; i < 16; i++)
        regs->gpr[i] = value(data, size, i);
    regs->rflags = value(data, size, 16) & NATIVE_STATUS_FLAGS;
    if (insn_memory_size(insn)) {
        regs->gpr[REG_DI] = (uint64_t)(uintptr_t)(native_memory + MIDDLE);
        bool bit_string = insn->op >= INSN_BT && insn->op <= INSN_BTC && insn->src.kind == INSN_REG;
        if (bit_string && insn->src.reg != REG_DI) {
            int64_t bit = (int64_t)(regs->gpr[insn->src.reg] & BIT_LIMIT);
            regs->gpr[insn->src.reg] = (uint64_t)(regs->gpr[insn->src.reg] & 0x8000 ? -bit : bit);
        }
    }
    for (unsigned i = 0; i < BUFFER_SIZE; i += 8) {
        uint64_t v = value(data, size, i / 8 % 24) ^ (uint64_t)i << 32;
        memcpy(native_memory + i, &v, 8);
    }
    memcpy(our_memory, native_memory, BUFFER_SIZE);
}

/* Our side, with the buffer as the device. False: #DE. */
static bool execute(const struct insn *insn, struct insn_regs *regs)
{
    uint64_t in = 0, out = 0, at = 0;
    uint8_t size = insn_memory_size(insn);
    if (size) {
        at = insn_effective_offset(insn, regs) - (uint64_t)(uintptr_t)native_memory;
        check(at <= BUFFER_SIZE - size, "effective address", insn);
        if (insn_reads_memory(insn))
            memcpy(&in, our_memory + at, size);
    }
    struct insn_regs before = *regs;
    enum status s = insn_execute(insn, regs, in, &out);
    if (s == ERR_RANGE) {
        check(insn->op == INSN_DIV || insn->op == INSN_IDIV, "#DE", insn);
        check(memcmp(&before, regs, sizeof(before)) == 0, "#DE changed registers", insn);
        return false;
    }
    check(s == STATUS_OK, "not executed", insn);
    if (insn_writes_memory(insn))
        memcpy(our_memory + at, &out, size);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct insn insn;
    size_t limit = size < INSN_MAX_LEN ? size : INSN_MAX_LEN;
    if (insn_decode((struct span){data, limit}, INSN_MODE_64, &insn) != STATUS_OK || !runnable(&insn))
        return 0;
    bool bit_string = insn.op >= INSN_BT && insn.op <= INSN_BTC && insn.src.kind == INSN_REG;
    if (insn_memory_size(&insn) && bit_string && insn.src.reg == REG_DI)
        return 0;

    struct insn_regs ours, theirs;
    set_up(&insn, data + limit, size - limit, &ours);
    ours.rip = 0;
    if (!native_insn_defined_result(&insn, &ours) || splits_lock(&insn, &ours))
        return 0;
    struct insn_regs before = theirs = ours;
    bool done = execute(&insn, &ours);
    enum native_result result = native_insn_run((struct span){data, insn.length}, &theirs);
    if (result == NATIVE_FORBIDDEN)
        return 0;
    check(done == (result == NATIVE_DONE), "#DE", &insn);
    if (!done)
        return 0;
    native_insn_settle(&insn, &before, &theirs);
    check(memcmp(ours.gpr, theirs.gpr, sizeof(ours.gpr)) == 0, "registers", &insn);
    check(((ours.rflags ^ theirs.rflags) & native_insn_defined_flags(&insn, &before)) == 0, "flags", &insn);
    check(memcmp(our_memory, native_memory, BUFFER_SIZE) == 0, "memory", &insn);
    return 0;
}
