/* Instruction semantics: a table of examples with every defined flag, string stepping, and a sweep of corner
 * values against the host's own processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/host/native_insn.h"

enum { CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, DF = 0x400, OF = 0x800, ALL = NATIVE_STATUS_FLAGS };
enum { AX = 0, CX = 1, DX = 2, BX = 3, SP = 4, SI = 6, DI = 7 };

/* Memory at [RDI] is `mem`, RAX is `rax`; `after`: what the memory holds then. */
struct example {
    uint8_t bytes[8], size;
    uint64_t mem, rax, flags;
    uint64_t after, rax_after, flags_after;
};

static const struct example examples[] = {
    /* MOV EAX, [RDI] clears the upper half; AX and AL leave the rest */
    {{0x8b, 0x07}, 2, 0x1122334455667788, ~0ull, ALL, 0x1122334455667788, 0x55667788, ALL},
    {{0x66, 0x8b, 0x07}, 3, 0x7788, ~0ull, 0, 0x7788, 0xffffffffffff7788, 0},
    {{0x8a, 0x07}, 2, 0x88, ~0ull, 0, 0x88, 0xffffffffffffff88, 0},
    {{0x8a, 0x27}, 2, 0x88, ~0ull, 0, 0x88, 0xffffffffffff88ff, 0}, /* AH */
    {{0x88, 0x27}, 2, 0, 0x1234, 0, 0x12, 0x1234, 0},
    {{0x48, 0x89, 0x07}, 3, 0, 0x1122334455667788, 0, 0x1122334455667788, 0x1122334455667788, 0},
    {{0x48, 0xc7, 0x07, 0, 0, 0, 0x80}, 7, 0, 0, 0, 0xffffffff80000000, 0, 0},
    {{0xc7, 0x07, 0, 0, 0, 0x80}, 6, 0, 0, 0, 0x80000000, 0, 0},
    /* MOVZX, MOVSX, MOVBE */
    {{0x0f, 0xb6, 0x07}, 3, 0x80, ~0ull, 0, 0x80, 0x80, 0},
    {{0x0f, 0xbe, 0x07}, 3, 0x80, 0, 0, 0x80, 0xffffff80, 0},
    {{0x48, 0x0f, 0xbf, 0x07}, 4, 0x8000, 0, 0, 0x8000, 0xffffffffffff8000, 0},
    {{0x48, 0x63, 0x07}, 3, 0x80000000, 0, 0, 0x80000000, 0xffffffff80000000, 0},
    {{0x0f, 0x38, 0xf0, 0x07}, 4, 0x11223344, ~0ull, 0, 0x11223344, 0x44332211, 0},
    {{0x66, 0x0f, 0x38, 0xf1, 0x07}, 5, 0, 0x1234, 0, 0x3412, 0x1234, 0},
    /* logic clears CF and OF; AF, undefined, stays */
    {{0x21, 0x07}, 2, 0xf0f0f0f0, 0x0ff00ff0, ALL, 0x00f000f0, 0x0ff00ff0, PF | AF},
    {{0x09, 0x07}, 2, 0x80000000, 1, CF | OF, 0x80000001, 1, SF},
    {{0x31, 0x07}, 2, 5, 5, CF | SF, 0, 5, ZF | PF},
    {{0x85, 0x07}, 2, 0x80000000, 0x80000003, CF, 0x80000000, 0x80000003, SF | PF},
    {{0xf6, 0x07, 0x03}, 3, 0x02, 0, ZF, 0x02, 0, 0},
    /* ADD, ADC */
    {{0x00, 0x07}, 2, 0x7f, 0x01, 0, 0x80, 0x01, OF | SF | AF},
    {{0x00, 0x07}, 2, 0xff, 0x01, 0, 0x00, 0x01, CF | ZF | AF | PF},
    {{0x00, 0x07}, 2, 0x80, 0x80, 0, 0x00, 0x80, CF | ZF | OF | PF},
    {{0x01, 0x07}, 2, 0xffffffff, 0, CF, 0xffffffff, 0, SF | PF},
    {{0x11, 0x07}, 2, 0xffffffff, 0, CF, 0, 0, CF | ZF | AF | PF},
    {{0x48, 0x11, 0x07}, 3, ~0ull, ~0ull, CF, ~0ull, ~0ull, CF | SF | AF | PF},
    {{0x83, 0x07, 0xff}, 3, 1, 0, 0, 0, 0, CF | ZF | AF | PF},
    /* SUB, SBB, CMP, NEG */
    {{0x28, 0x07}, 2, 0x00, 0x01, 0, 0xff, 0x01, CF | SF | AF | PF},
    {{0x28, 0x07}, 2, 0x80, 0x01, 0, 0x7f, 0x01, OF | AF},
    {{0x19, 0x07}, 2, 0, 0xffffffff, CF, 0, 0xffffffff, CF | ZF | AF | PF},
    {{0x48, 0x19, 0x07}, 3, 5, 4, CF, 0, 4, ZF | PF},
    {{0x39, 0x07}, 2, 1, 2, 0, 1, 2, CF | SF | AF | PF},
    {{0x3b, 0x07}, 2, 1, 2, CF, 1, 2, 0},
    {{0x83, 0x3f, 0xff}, 3, 0xffffffff, 0, 0, 0xffffffff, 0, ZF | PF},
    {{0xf6, 0x1f}, 2, 0x80, 0, 0, 0x80, 0, CF | OF | SF},
    {{0xf7, 0x1f}, 2, 0, 0, CF | SF, 0, 0, ZF | PF},
    /* INC and DEC keep CF, NOT keeps all */
    {{0xfe, 0x07}, 2, 0xff, 0, 0, 0x00, 0, ZF | AF | PF},
    {{0xff, 0x07}, 2, 0x7fffffff, 0, CF, 0x80000000, 0, CF | OF | SF | AF | PF},
    {{0xff, 0x0f}, 2, 0, 0, 0, 0xffffffff, 0, SF | AF | PF},
    {{0xf7, 0x17}, 2, 0x0f0f0f0f, 0, ALL, 0xf0f0f0f0, 0, ALL},
    /* XCHG, XADD, CMPXCHG */
    {{0x87, 0x07}, 2, 0x11111111, 0xffffffff22222222, ALL, 0x22222222, 0x11111111, ALL},
    {{0x0f, 0xc1, 0x07}, 3, 0xfffffffe, 3, 0, 1, 0xfffffffe, CF | AF},
    {{0x0f, 0xb1, 0x1f}, 3, 7, 7, 0, 0xbbbbbbbb, 7, ZF | PF},
    {{0x0f, 0xb1, 0x1f}, 3, 8, 7, ZF, 8, 8, CF | SF | AF | PF},
    {{0x0f, 0xb0, 0x1f}, 3, 8, 0xffffffffffffff07, ZF, 8, 0xffffffffffffff08, CF | SF | AF | PF},
    /* BT*: CF only, of the offset modulo the size */
    {{0x0f, 0xba, 0x27, 0x24}, 4, 0x10, 0, ZF | SF, 0x10, 0, CF | ZF | SF},
    {{0x0f, 0xba, 0x2f, 0x1f}, 4, 0, 0, CF, 0x80000000, 0, 0},
    {{0x48, 0x0f, 0xba, 0x37, 0x3f}, 5, ~0ull, 0, 0, 0x7fffffffffffffff, 0, CF},
    {{0x0f, 0xbb, 0x07}, 3, 0, 33, CF, 2, 33, 0},
};

static void table(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
        const struct example *e = &examples[i];
        struct insn insn;
        struct insn_regs regs = {.gpr = {[AX] = e->rax, [BX] = 0xbbbbbbbbbbbbbbbb},
                                 .rflags = e->flags | 0x202};
        uint64_t out = e->mem;
        assert_int_equal(insn_decode((struct span){e->bytes, e->size}, INSN_MODE_64, &insn), STATUS_OK);
        assert_int_equal(insn.length, e->size);
        assert_int_equal(insn_execute(&insn, &regs, e->mem, &out), STATUS_OK);
        assert_int_equal(out, e->after);
        assert_int_equal(regs.gpr[AX], e->rax_after);
        assert_int_equal(regs.rflags, e->flags_after | 0x202);
        assert_int_equal(regs.gpr[BX], 0xbbbbbbbbbbbbbbbb);
    }
}

static const uint64_t corners[] = {0,
                                   1,
                                   2,
                                   0x0f,
                                   0x10,
                                   0x7f,
                                   0x80,
                                   0xff,
                                   0x100,
                                   0x7fff,
                                   0x8000,
                                   0xffff,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x100000000,
                                   0x7fffffffffffffff,
                                   0x8000000000000000,
                                   ~0ull};
/* AL/AX/EAX/RAX and BL..RBX; the last byte is ModRM, or an immediate after it */
static const uint8_t forms[][5] = {{2, 0x00, 0xd8},
                                   {2, 0x02, 0xd8},
                                   {2, 0x08, 0xd8},
                                   {2, 0x10, 0xd8},
                                   {2, 0x18, 0xd8},
                                   {2, 0x20, 0xd8},
                                   {2, 0x28, 0xd8},
                                   {2, 0x30, 0xd8},
                                   {2, 0x38, 0xd8},
                                   {2, 0x84, 0xd8},
                                   {2, 0x86, 0xd8},
                                   {2, 0x88, 0xd8},
                                   {2, 0xf6, 0xd0},
                                   {2, 0xf6, 0xd8},
                                   {2, 0xfe, 0xc0},
                                   {2, 0xfe, 0xc8},
                                   {2, 0x00, 0xe0},
                                   {2, 0x28, 0xc4},
                                   {2, 0x01, 0xd8},
                                   {2, 0x09, 0xd8},
                                   {2, 0x11, 0xd8},
                                   {2, 0x13, 0xd8},
                                   {2, 0x19, 0xd8},
                                   {2, 0x1b, 0xd8},
                                   {2, 0x21, 0xd8},
                                   {2, 0x29, 0xd8},
                                   {2, 0x31, 0xd8},
                                   {2, 0x39, 0xd8},
                                   {2, 0x85, 0xd8},
                                   {2, 0x87, 0xd8},
                                   {2, 0x89, 0xd8},
                                   {2, 0xf7, 0xd0},
                                   {2, 0xf7, 0xd8},
                                   {2, 0xff, 0xc0},
                                   {2, 0xff, 0xc8},
                                   {3, 0x83, 0xd0, 0x80},
                                   {3, 0x83, 0xf8, 0x7f},
                                   {3, 0x0f, 0xb0, 0xcb},
                                   {3, 0x0f, 0xb1, 0xcb},
                                   {3, 0x0f, 0xc0, 0xd8},
                                   {3, 0x0f, 0xc1, 0xd8},
                                   {3, 0x0f, 0xc1, 0xc0},
                                   {3, 0x0f, 0xa3, 0xd8},
                                   {3, 0x0f, 0xab, 0xd8},
                                   {3, 0x0f, 0xb3, 0xd8},
                                   {3, 0x0f, 0xbb, 0xd8},
                                   {4, 0x0f, 0xba, 0xe8, 0x4f},
                                   {3, 0x0f, 0xb6, 0xc3},
                                   {3, 0x0f, 0xb7, 0xc3},
                                   {3, 0x0f, 0xbe, 0xc3},
                                   {3, 0x0f, 0xbf, 0xc3},
                                   {2, 0x04, 0x80},
                                   {2, 0xd0, 0xc0},
                                   {2, 0xd1, 0xc0},
                                   {2, 0xd2, 0xc0},
                                   {2, 0xd3, 0xc0},
                                   {3, 0xc0, 0xc0, 0x09},
                                   {3, 0xc1, 0xc3, 0x25},
                                   {2, 0xd0, 0xc8},
                                   {2, 0xd1, 0xc8},
                                   {2, 0xd2, 0xc8},
                                   {2, 0xd3, 0xc8},
                                   {3, 0xc0, 0xc8, 0x09},
                                   {3, 0xc1, 0xcb, 0x25},
                                   {2, 0xd0, 0xd0},
                                   {2, 0xd1, 0xd0},
                                   {2, 0xd2, 0xd0},
                                   {2, 0xd3, 0xd0},
                                   {3, 0xc0, 0xd0, 0x09},
                                   {3, 0xc1, 0xd3, 0x25},
                                   {2, 0xd0, 0xd8},
                                   {2, 0xd1, 0xd8},
                                   {2, 0xd2, 0xd8},
                                   {2, 0xd3, 0xd8},
                                   {3, 0xc0, 0xd8, 0x09},
                                   {3, 0xc1, 0xdb, 0x25},
                                   {2, 0xd0, 0xe0},
                                   {2, 0xd1, 0xe0},
                                   {2, 0xd2, 0xe0},
                                   {2, 0xd3, 0xe0},
                                   {3, 0xc0, 0xe0, 0x09},
                                   {3, 0xc1, 0xe3, 0x25},
                                   {2, 0xd0, 0xe8},
                                   {2, 0xd1, 0xe8},
                                   {2, 0xd2, 0xe8},
                                   {2, 0xd3, 0xe8},
                                   {3, 0xc0, 0xe8, 0x09},
                                   {3, 0xc1, 0xeb, 0x25},
                                   {2, 0xd0, 0xf0},
                                   {2, 0xd1, 0xf0},
                                   {2, 0xd2, 0xf0},
                                   {2, 0xd3, 0xf0},
                                   {3, 0xc0, 0xf0, 0x09},
                                   {3, 0xc1, 0xf3, 0x25},
                                   {2, 0xd0, 0xf8},
                                   {2, 0xd1, 0xf8},
                                   {2, 0xd2, 0xf8},
                                   {2, 0xd3, 0xf8},
                                   {3, 0xc0, 0xf8, 0x09},
                                   {3, 0xc1, 0xfb, 0x25},
                                   {3, 0x0f, 0xa5, 0xd8},
                                   {3, 0x0f, 0xad, 0xd8},
                                   {4, 0x0f, 0xa4, 0xd8, 0x01},
                                   {4, 0x0f, 0xa4, 0xd8, 0x0d},
                                   {4, 0x0f, 0xac, 0xd8, 0x01},
                                   {4, 0x0f, 0xac, 0xd8, 0x0d},
                                   {3, 0x0f, 0xaf, 0xc3},
                                   {3, 0x6b, 0xc3, 0x83},
                                   {2, 0xf6, 0xe3},
                                   {2, 0xf7, 0xe3},
                                   {2, 0xf6, 0xeb},
                                   {2, 0xf7, 0xeb},
                                   {2, 0xf6, 0xf3},
                                   {2, 0xf7, 0xf3},
                                   {2, 0xf6, 0xfb},
                                   {2, 0xf7, 0xfb},
                                   {2, 0xf6, 0xfc},
                                   {3, 0x0f, 0xbc, 0xc3},
                                   {3, 0x0f, 0xbd, 0xc3},
                                   {3, 0x0f, 0x40, 0xc3},
                                   {3, 0x0f, 0x90, 0xc0},
                                   {3, 0x0f, 0x41, 0xc3},
                                   {3, 0x0f, 0x91, 0xc0},
                                   {3, 0x0f, 0x42, 0xc3},
                                   {3, 0x0f, 0x92, 0xc0},
                                   {3, 0x0f, 0x43, 0xc3},
                                   {3, 0x0f, 0x93, 0xc0},
                                   {3, 0x0f, 0x44, 0xc3},
                                   {3, 0x0f, 0x94, 0xc0},
                                   {3, 0x0f, 0x45, 0xc3},
                                   {3, 0x0f, 0x95, 0xc0},
                                   {3, 0x0f, 0x46, 0xc3},
                                   {3, 0x0f, 0x96, 0xc0},
                                   {3, 0x0f, 0x47, 0xc3},
                                   {3, 0x0f, 0x97, 0xc0},
                                   {3, 0x0f, 0x48, 0xc3},
                                   {3, 0x0f, 0x98, 0xc0},
                                   {3, 0x0f, 0x49, 0xc3},
                                   {3, 0x0f, 0x99, 0xc0},
                                   {3, 0x0f, 0x4a, 0xc3},
                                   {3, 0x0f, 0x9a, 0xc0},
                                   {3, 0x0f, 0x4b, 0xc3},
                                   {3, 0x0f, 0x9b, 0xc0},
                                   {3, 0x0f, 0x4c, 0xc3},
                                   {3, 0x0f, 0x9c, 0xc0},
                                   {3, 0x0f, 0x4d, 0xc3},
                                   {3, 0x0f, 0x9d, 0xc0},
                                   {3, 0x0f, 0x4e, 0xc3},
                                   {3, 0x0f, 0x9e, 0xc0},
                                   {3, 0x0f, 0x4f, 0xc3},
                                   {3, 0x0f, 0x9f, 0xc0},
                                   {2, 0x0c, 0x80}};
/* Those whose prefixes must stand in a certain place. */
static const struct {
    uint8_t size, bytes[7];
} prefixed[] = {
    {4, {0xf3, 0x0f, 0xb8, 0xc3}},
    {5, {0xf3, 0x48, 0x0f, 0xb8, 0xc3}},
    {5, {0x66, 0xf3, 0x0f, 0xb8, 0xc3}},
    {4, {0xf3, 0x0f, 0xbc, 0xc3}},
    {5, {0xf3, 0x48, 0x0f, 0xbc, 0xc3}},
    {5, {0x66, 0xf3, 0x0f, 0xbc, 0xc3}},
    {4, {0xf3, 0x0f, 0xbd, 0xc3}},
    {5, {0xf3, 0x48, 0x0f, 0xbd, 0xc3}},
    {5, {0x66, 0xf3, 0x0f, 0xbd, 0xc3}},
    {5, {0xf2, 0x0f, 0x38, 0xf0, 0xc3}},
    {6, {0xf2, 0x48, 0x0f, 0x38, 0xf0, 0xc3}},
    {5, {0xf2, 0x0f, 0x38, 0xf1, 0xc3}},
    {6, {0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc3}},
    {6, {0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xc3}},
    {6, {0x69, 0xc3, 0x78, 0x56, 0x34, 0x92}},
    {7, {0x48, 0x69, 0xc3, 0x78, 0x56, 0x34, 0x92}},
    {5, {0x66, 0x69, 0xc3, 0x78, 0x96}},
};
static const uint8_t prefix[] = {0, 0x66, 0x48};

/* Over all pairs of corner values and both carries; false: the host forbids it. */
static bool sweep(struct span span, const struct insn *insn)
{
    for (size_t n = 0; n < ARRAY_SIZE(corners) * ARRAY_SIZE(corners) * 2; n++) {
        struct insn_regs ours = {.gpr = {[AX] = corners[n / 2 % ARRAY_SIZE(corners)],
                                         [CX] = n % 97, /* all counts, too */
                                         [DX] = n & 1 ? 0 : corners[n % ARRAY_SIZE(corners)],
                                         [BX] = corners[n / 2 / ARRAY_SIZE(corners)]},
                                 .rflags = n & 1 ? ALL : 0};
        struct insn_regs theirs = ours, before = ours;
        if (!native_insn_defined_result(insn, &before))
            continue;
        enum native_result result = native_insn_run(span, &theirs);
        if (result == NATIVE_FORBIDDEN)
            return false;
        assert_int_equal(insn_execute(insn, &ours, 0, NULL), result == NATIVE_DONE ? STATUS_OK : ERR_RANGE);
        native_insn_settle(insn, &before, &theirs);
        assert_memory_equal(ours.gpr, theirs.gpr, sizeof(ours.gpr));
        assert_int_equal((ours.rflags ^ theirs.rflags) & native_insn_defined_flags(insn, &before), 0);
        assert_int_equal(ours.rflags & ~(uint64_t)ALL, 0);
    }
    return true;
}

/* Every register form of the list in every size. */
static void against_the_processor(void **state)
{
    struct insn insn;
    for (size_t f = 0; f < ARRAY_SIZE(forms) * ARRAY_SIZE(prefix); f++) {
        uint8_t bytes[8] = {prefix[f % 3]};
        const uint8_t *form = forms[f / 3];
        size_t at = bytes[0] ? 1 : 0;
        memcpy(bytes + at, form + 1, form[0]);
        struct span span = {bytes, at + form[0]};
        assert_int_equal(insn_decode(span, INSN_MODE_64, &insn), STATUS_OK);
        assert_int_equal(insn.length, span.size);
        if (bytes[0] == 0x48 && (insn.dst.reg == SP || insn.src.reg == SP)) /* AH became SPL */
            continue;
        if (!sweep(span, &insn))
            skip();
    }
    for (size_t f = 0; f < ARRAY_SIZE(prefixed); f++) {
        struct span span = {prefixed[f].bytes, prefixed[f].size};
        assert_int_equal(insn_decode(span, INSN_MODE_64, &insn), STATUS_OK);
        assert_int_equal(insn.length, span.size);
        if (native_insn_supported(&insn) && !sweep(span, &insn))
            skip();
    }
}

/* The processor at hand shows one: both ways to leave the upper half are ours afterwards, and no third. */
static void upper_halves_are_settled(void **state)
{
    static const uint8_t rows[][3] = {{0x0f, 0xbc, 0xd9}, {0x0f, 0xb1, 0xcb}}; /* BSF, CMPXCHG EBX, ECX */
    const uint64_t old = 0x1122334455667788, cut = (uint32_t)old;
    struct insn_regs before = {.gpr = {[BX] = old}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct insn insn;
        struct insn_regs keeps = before, clears = before, changes = before;
        assert_int_equal(insn_decode((struct span){rows[i], 3}, INSN_MODE_64, &insn), STATUS_OK);
        keeps.rflags = clears.rflags = changes.rflags = i ? 0 : 0x40;
        clears.gpr[BX] = cut;
        changes.gpr[BX] = 1;
        native_insn_settle(&insn, &before, &keeps);
        native_insn_settle(&insn, &before, &clears);
        native_insn_settle(&insn, &before, &changes);
        assert_int_equal(keeps.gpr[BX], i ? cut : old);
        assert_int_equal(clears.gpr[BX], i ? cut : old);
        assert_int_equal(changes.gpr[BX], 1);
    }
}

static void others_are_refused(void **state)
{
    static const uint8_t rows[][2] = {{0xa5}, {0xab}, {0xad},       {0xa7},      {0xaf},
                                      {0x6d}, {0x6f}, {0xff, 0x37}, {0x8f, 0x07}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct insn insn;
        struct insn_regs regs = {.rflags = 0x246}, before = regs;
        uint64_t out = 0x1234;
        assert_int_equal(insn_decode((struct span){rows[i], 2}, INSN_MODE_64, &insn), STATUS_OK);
        assert_int_equal(insn_execute(&insn, &regs, 7, &out), ERR_UNSUPPORTED);
        assert_memory_equal(&regs, &before, sizeof(regs));
        assert_int_equal(out, 0x1234);
    }
}

static struct insn decoded(enum insn_mode mode, const uint8_t *bytes, size_t size)
{
    struct insn insn;
    assert_int_equal(insn_decode((struct span){bytes, size}, mode, &insn), STATUS_OK);
    assert_true(insn_is_string(&insn));
    return insn;
}
#define STRING(mode, ...)                                                                                    \
    decoded(mode, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void string_stepping(void **state)
{
    struct insn_regs regs = {.gpr = {[CX] = 5, [SI] = 0x1000, [DI] = 0x2000}};
    struct insn insn = STRING(INSN_MODE_64, 0xf3, 0x48, 0xa5); /* REP MOVSQ */
    assert_int_equal(insn_string_count(&insn, &regs), 5);
    assert_int_equal(insn_effective_offset(&insn, &regs), 0x1000);
    assert_int_equal(insn_string_di(&insn, &regs), 0x2000);
    insn_string_advance(&insn, &regs, 2);
    assert_int_equal(regs.gpr[SI], 0x1010);
    assert_int_equal(regs.gpr[DI], 0x2010);
    assert_int_equal(regs.gpr[CX], 3);
    assert_true(insn_string_continues(&insn, &regs));
    regs.rflags = DF; /* backwards */
    insn_string_advance(&insn, &regs, 3);
    assert_int_equal(regs.gpr[SI], 0xff8);
    assert_int_equal(regs.gpr[DI], 0x1ff8);
    assert_int_equal(regs.gpr[CX], 0);
    assert_false(insn_string_continues(&insn, &regs));

    insn = STRING(INSN_MODE_64, 0xaa); /* STOSB: rDI only, no counting */
    regs = (struct insn_regs){.gpr = {[CX] = 5, [SI] = 1, [DI] = ~0ull}};
    assert_int_equal(insn_string_count(&insn, &regs), 1);
    insn_string_advance(&insn, &regs, 1);
    assert_int_equal(regs.gpr[SI], 1);
    assert_int_equal(regs.gpr[DI], 0);
    assert_int_equal(regs.gpr[CX], 5);
    assert_false(insn_string_continues(&insn, &regs));

    insn = STRING(INSN_MODE_64, 0xf3, 0x6f); /* REP OUTSD: rSI only */
    regs = (struct insn_regs){.gpr = {[CX] = 1, [SI] = 4, [DI] = 9}};
    insn_string_advance(&insn, &regs, 1);
    assert_int_equal(regs.gpr[SI], 8);
    assert_int_equal(regs.gpr[DI], 9);
}

/* The address size decides how much of the registers takes part, and what happens to the rest. */
static void string_address_sizes(void **state)
{
    struct insn_regs regs = {.gpr = {[CX] = 0x10001, [SI] = 0x1fffe, [DI] = 0x2fffe}};
    struct insn insn = STRING(INSN_MODE_16, 0xf3, 0xa5);
    assert_int_equal(insn_string_count(&insn, &regs), 1);
    assert_int_equal(insn_effective_offset(&insn, &regs), 0xfffe);
    assert_int_equal(insn_string_di(&insn, &regs), 0xfffe);
    insn_string_advance(&insn, &regs, 1);
    assert_int_equal(regs.gpr[SI], 0x10000);
    assert_int_equal(regs.gpr[DI], 0x20000);
    assert_int_equal(regs.gpr[CX], 0x10000);

    insn = STRING(INSN_MODE_64, 0x67, 0xf3, 0xab); /* 32 bits: the upper half is cleared */
    regs = (struct insn_regs){.gpr = {[CX] = 0xf00000002, [DI] = 0xf00001000}};
    assert_int_equal(insn_string_count(&insn, &regs), 2);
    insn_string_advance(&insn, &regs, 1);
    assert_int_equal(regs.gpr[DI], 0x1004);
    assert_int_equal(regs.gpr[CX], 1);
}

static void string_comparison(void **state)
{
    struct insn_regs regs = {.gpr = {[CX] = 2}, .rflags = 0x202};
    struct insn insn = STRING(INSN_MODE_64, 0xf3, 0xa6); /* REPE CMPSB: on while equal */
    insn_string_compare(&insn, &regs, 5, 5);
    assert_int_equal(regs.rflags, 0x202 | ZF | PF);
    insn_string_advance(&insn, &regs, 1);
    assert_true(insn_string_continues(&insn, &regs));
    insn_string_compare(&insn, &regs, 4, 5);
    assert_int_equal(regs.rflags, 0x202 | CF | SF | AF | PF);
    assert_false(insn_string_continues(&insn, &regs));

    insn = STRING(INSN_MODE_64, 0xf2, 0xae); /* REPNE SCASB: on while unequal */
    assert_true(insn_string_continues(&insn, &regs));
    insn_string_compare(&insn, &regs, 5, 5);
    assert_false(insn_string_continues(&insn, &regs));
    insn_string_compare(&insn, &regs, 4, 5);
    insn_string_advance(&insn, &regs, 1);
    assert_false(insn_string_continues(&insn, &regs)); /* rCX is 0 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(against_the_processor),
        cmocka_unit_test(upper_halves_are_settled),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(string_stepping),
        cmocka_unit_test(string_address_sizes),
        cmocka_unit_test(string_comparison),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
