/* Instructions on device memory do what they do on memory (SDM volume 2): each runs on RAM and on the I/O
 * memory of QEMU's test device (compat = qemu), with the same registers, and must leave the same registers,
 * flags and bytes. */
#include "rules.h"

#define IO_RAM    0xff000000ull
#define SIZE      0x2000u /* two pages */
#define MIDDLE    0x800u
#define STATUS    0x8d5ull /* OF SF ZF AF PF CF */
#define NO_AF     (STATUS & ~0x10ull)
#define CF_ZF     0x41ull
#define CF_OF     0x801ull
#define ONLY_CF   1ull
#define ONLY_ZF   0x40ull
#define NO_FLAGS  0ull
#define OSFXSR    0x200ull
#define BEFORE    64u /* bytes that are looked at, around the operand */
#define AROUND    192u
#define EDGE      0xffcu /* a 16-byte operand crosses into the second page */
#define DIRECTION 0x400ull

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

struct row {
    const char *name;
    uint8_t size, bytes[12];
    uint64_t flags; /* those that are defined afterwards */
};

/* RBX, RSI (MIDDLE - 8 below) and RDI point into the memory, RCX is 5, RDX 1, RAX 0x1234. */
#define ROW(name, flags, ...)                                                                                \
    {                                                                                                        \
        name, sizeof((uint8_t[]){__VA_ARGS__}), {__VA_ARGS__}, flags                                         \
    }
static const struct row rows[] = {
    ROW("MOV", STATUS, 0x89, 0x03, 0x8b, 0x4b, 0x11),
    ROW("MOVNTI", STATUS, 0x0f, 0xc3, 0x03),
    ROW("MOVBE", STATUS, 0x0f, 0x38, 0xf0, 0x03, 0x0f, 0x38, 0xf1, 0x53, 0x05),
    ROW("MOVZX, MOVSX", STATUS, 0x0f, 0xb6, 0x03, 0x0f, 0xbf, 0x53, 0x7e),
    ROW("ADD", STATUS, 0x01, 0x03),
    ROW("LOCK ADC", STATUS, 0xf9, 0xf0, 0x11, 0x03),
    ROW("SBB", STATUS, 0xf9, 0x18, 0x03),
    ROW("CMP", STATUS, 0x3b, 0x03),
    ROW("XOR", NO_AF, 0x31, 0x03),
    ROW("LOCK NEG", STATUS, 0xf0, 0xf7, 0x1b),
    ROW("XCHG", STATUS, 0x87, 0x03),
    ROW("XADD", STATUS, 0x0f, 0xc1, 0x03),
    ROW("CMPXCHG", STATUS, 0xf0, 0x0f, 0xb1, 0x0b, 0xf0, 0x0f, 0xb1, 0x0b),
    ROW("CMPXCHG8B", STATUS, 0xf0, 0x0f, 0xc7, 0x0b),
    ROW("SHL by 1", NO_AF, 0xd1, 0x23),
    ROW("SAR by CL", NO_AF & ~0x800ull, 0xd3, 0x3b),
    ROW("SHR by 7", NO_AF & ~0x800ull, 0xc0, 0x2b, 0x07),
    ROW("ROL by 1", STATUS, 0xd1, 0x03),
    ROW("ROR by CL", STATUS & ~0x800ull, 0xd2, 0x0b),
    ROW("RCL by 9", STATUS & ~0x800ull, 0xf9, 0xc1, 0x13, 0x09),
    ROW("RCR by 1", STATUS, 0xf8, 0xd1, 0x1b),
    ROW("SHLD", NO_AF & ~0x800ull, 0x0f, 0xa4, 0x03, 0x04),
    ROW("SHRD by CL", NO_AF & ~0x800ull, 0x0f, 0xad, 0x03),
    ROW("IMUL", CF_OF, 0x0f, 0xaf, 0x03),
    ROW("IMUL by a byte", CF_OF, 0x6b, 0x03, 0xfd),
    ROW("IMUL by a doubleword", CF_OF, 0x69, 0x03, 0x45, 0x23, 0x01, 0x80),
    ROW("MUL", CF_OF, 0xf7, 0x23),
    ROW("IMUL to EDX", CF_OF, 0xf7, 0x2b),
    ROW("DIV", NO_FLAGS, 0xf7, 0x33),
    ROW("IDIV", NO_FLAGS, 0xf7, 0x3b),
    ROW("DIV by 0", NO_FLAGS, 0xc6, 0x03, 0x00, 0xf6, 0x33),
    ROW("BSF, BSR", ONLY_ZF, 0x0f, 0xbc, 0x03, 0x0f, 0xbd, 0x4b, 0x04),
    ROW("BT", CF_ZF, 0x0f, 0xba, 0x23, 0x03),
    ROW("BTS before the operand", CF_ZF, 0xb9, 0xdd, 0xff, 0xff, 0xff, 0x0f, 0xab, 0x0b),
    ROW("BTC behind it", CF_ZF, 0xb9, 0x45, 0x00, 0x00, 0x00, 0x0f, 0xbb, 0x0b),
    ROW("CMOVcc", STATUS, 0xf9, 0x0f, 0x42, 0x03, 0x0f, 0x43, 0x53, 0x08),
    ROW("SETcc", STATUS, 0xf9, 0x0f, 0x92, 0x03, 0x0f, 0x93, 0x43, 0x01),
    ROW("PUSH, POP", STATUS, 0xff, 0x33, 0x8f, 0x43, 0x20),
    ROW("MOV from a segment register", STATUS, 0x8c, 0x1b),
    ROW("SMSW", STATUS, 0x0f, 0x01, 0x23),
    ROW("SIDT, LIDT", STATUS, 0x0f, 0x01, 0x0b, 0x0f, 0x01, 0x1b, 0x31, 0xc0, 0x89, 0x43, 0x02),
    ROW("MOVUPS", STATUS, 0x0f, 0x10, 0x03, 0x0f, 0x11, 0x43, 0x21),
    ROW("MOVAPS", STATUS, 0x0f, 0x28, 0x0b, 0x0f, 0x29, 0x4b, 0x20),
    ROW("MOVAPS, not aligned", STATUS, 0x0f, 0x28, 0x4b, 0x01),
    ROW("MOVDQU", STATUS, 0xf3, 0x0f, 0x6f, 0x13, 0xf3, 0x0f, 0x7f, 0x53, 0x2b),
    ROW("MOVNTDQ", STATUS, 0x66, 0x0f, 0x6f, 0x1b, 0x66, 0x0f, 0xe7, 0x5b, 0x30),
    ROW("MOVSS, MOVSD", STATUS, 0xf3, 0x0f, 0x10, 0x03, 0xf2, 0x0f, 0x11, 0x43, 0x28),
    ROW("MOVLPS, MOVHPS", STATUS, 0x0f, 0x12, 0x03, 0x0f, 0x16, 0x43, 0x09, 0x0f, 0x11, 0x43, 0x28),
    ROW("MOVD", STATUS, 0x66, 0x0f, 0x6e, 0x23, 0x66, 0x0f, 0x7e, 0x63, 0x19),
    ROW("MOVQ mm", STATUS, 0x0f, 0x6f, 0x2b, 0x0f, 0x7f, 0x6b, 0x21, 0x0f, 0x77),
    ROW("REP MOVS", STATUS, 0xf3, 0xa5),
    ROW("REP MOVS, down", STATUS, 0xfd, 0xf3, 0xa5, 0xfc),
    ROW("REP STOS", STATUS, 0xf3, 0xaa),
    ROW("REPE CMPS", STATUS, 0xf3, 0xa6),
    ROW("REPNE SCAS", STATUS, 0xf2, 0xaf),
    ROW("LODS", STATUS, 0xad),
    ROW("LOCK MOV", STATUS, 0xf0, 0x89, 0x03),
    ROW("LOCK ADD of a register", STATUS, 0xf0, 0x01, 0xc3),
    ROW("LOCK SHL", STATUS, 0xf0, 0xd1, 0x23),
};

static uint8_t ram[SIZE] __attribute__((aligned(4096)));

struct outcome {
    unsigned vector;
    uint64_t gpr[16], flags;
};

static struct outcome run_at(enum lab_mode mode, const struct row *row, uint64_t base, uint32_t offset)
{
    struct outcome o;
    lab_clear();
    lab.gpr[RAX] = 0x1234;
    lab.gpr[RCX] = 5;
    lab.gpr[RDX] = 1;
    lab.gpr[RBX] = lab.gpr[RDI] = base + offset;
    lab.gpr[RSI] = base + offset - 8;
    o.vector = lab_execute(mode, row->bytes, row->size);
    for (unsigned i = 0; i < 16; i++)
        o.gpr[i] = i == RBX || i == RSI || i == RDI ? lab.gpr[i] - base : lab.gpr[i];
    o.flags = lab.flags & (row->flags | DIRECTION);
    return o;
}

static void compare(enum lab_mode mode, const struct row *row, uint32_t offset)
{
    volatile uint8_t *io = (volatile uint8_t *)IO_RAM;
    for (unsigned i = offset - BEFORE; i < offset + AROUND; i++)
        ram[i] = io[i] = (uint8_t)(i * 7 + (i >> 8) + 0x11);
    struct outcome expected = run_at(mode, row, (uint64_t)(uintptr_t)ram, offset);
    struct outcome found = run_at(mode, row, IO_RAM, offset);
    const char *where = lab_mode_names[mode];
    check(found.vector == expected.vector, "%s at %x, %s: vector %u, expected %u", row->name,
          (uint64_t)offset, where, found.vector, expected.vector);
    if (expected.vector !=
        VECTOR_BP) /* the lab says nothing of the registers that a fault leaves in the handler */
        return;
    bool same = found.flags == expected.flags;
    for (unsigned i = 0; i < 16; i++)
        same &= found.gpr[i] == expected.gpr[i];
    check(same, "%s at %x, %s: registers or flags: rax %x, expected %x; flags %x, expected %x", row->name,
          (uint64_t)offset, where, found.gpr[RAX], expected.gpr[RAX], found.flags, expected.flags);
    unsigned differs = 0;
    for (unsigned i = offset + AROUND; i-- > offset - BEFORE;)
        differs = io[i] != ram[i] ? i + 1 : differs;
    check(!differs, "%s at %x, %s: memory differs from byte %x on", row->name, (uint64_t)offset, where,
          (uint64_t)differs - 1);
}

void rule_mmio(void)
{
    static const enum lab_mode modes[] = {MODE_LONG, MODE_PROTECTED, MODE_COMPAT, MODE_PAGED, MODE_PAE};
    static const uint32_t offsets[] = {MIDDLE, EDGE};
    lab_more_cr4 = OSFXSR;
    for (unsigned m = 0; m < sizeof(modes) / sizeof(modes[0]); m++)
        for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]) * 2; n++)
            compare(modes[m], &rows[n / 2], offsets[n % 2]);
    lab_more_cr4 = 0;
}
