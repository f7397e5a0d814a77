/* The instruction decoder: each form, prefix and rule by example. (fuzz_insn compares with Zydis at large.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "arch/x86/insn.h"

#define B(...) ((struct span){(const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})})

static void print_operand(const struct insn *insn, const struct insn_operand *op, char *text, size_t size)
{
    static const char *const segments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    if (op->kind == INSN_NONE)
        snprintf(text, size, "-");
    else if (op->kind == INSN_REG)
        snprintf(text, size, "%s%u:%u", op->high_byte ? "h" : "r", op->reg, op->size);
    else if (op->kind > INSN_IMM)
        snprintf(text, size, "%c%u:%u", "smx"[op->kind - INSN_SREG], op -> reg, op -> size);
    else if (op->kind == INSN_IMM)
        snprintf(text, size, "%#llx", (unsigned long long)op->imm);
    else
        snprintf(text, size, "%s[%sb%d i%d*%u%+lld]:%u", segments[insn->segment],
                 insn->rip_relative ? "rip " : "", insn->base, insn->index, insn->scale,
                 (long long)insn->disp, op->size);
}

/* "[lock |rep |repne ]OP.opsize/addrsize dst,src (length)" */
static const char *decode(enum insn_mode mode, struct span bytes)
{
    static char text[160];
    char dst[64], src[64];
    struct insn insn;
    enum status s = insn_decode(bytes, mode, &insn);
    if (s != STATUS_OK)
        return status_name(s);
    print_operand(&insn, &insn.dst, dst, sizeof(dst));
    print_operand(&insn, &insn.src, src, sizeof(src));
    snprintf(text, sizeof(text), "%s%s%s%s.%u/%u %s,%s (%u)", insn.lock ? "lock " : "",
             insn.rep ? "rep " : "", insn.repne ? "repne " : "", insn_op_name(insn.op), insn.opsize,
             insn.addrsize, dst, src, insn.length);
    return text;
}

#define EXPECT16(text, ...) assert_string_equal(decode(INSN_MODE_16, B(__VA_ARGS__)), text)
#define EXPECT32(text, ...) assert_string_equal(decode(INSN_MODE_32, B(__VA_ARGS__)), text)
#define EXPECT64(text, ...) assert_string_equal(decode(INSN_MODE_64, B(__VA_ARGS__)), text)

static void moves(void **state)
{
    EXPECT64("MOV.4/8 ds[b7 i-1*1+0]:4,r0:4 (2)", 0x89, 0x07);
    EXPECT64("MOV.8/8 r0:8,ds[b0 i-1*1+32]:8 (4)", 0x48, 0x8b, 0x40, 0x20);
    EXPECT64("MOV.1/8 ds[b1 i-1*1+0]:1,r2:1 (2)", 0x88, 0x11);
    EXPECT64("MOV.2/8 ds[b1 i-1*1+0]:2,r2:2 (3)", 0x66, 0x89, 0x11);
    EXPECT64("MOV.4/8 ds[b7 i-1*1+128]:4,0x12345678 (10)", 0xc7, 0x87, 0x80, 0, 0, 0, 0x78, 0x56, 0x34, 0x12);
    EXPECT64("MOV.8/8 ds[b7 i-1*1+0]:8,0xffffffff80000000 (7)", 0x48, 0xc7, 0x07, 0, 0, 0, 0x80);
    EXPECT64("MOV.2/8 ds[b7 i-1*1+0]:2,0xffffffffffff8000 (5)", 0x66, 0xc7, 0x07, 0, 0x80);
    EXPECT64("MOV.1/8 ds[b7 i-1*1+0]:1,0xffffffffffffff80 (3)", 0xc6, 0x07, 0x80);
    EXPECT64("MOV.4/8 r0:4,ds[b-1 i-1*1+1234605616436508552]:4 (9)", 0xa1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33,
             0x22, 0x11);
    EXPECT64("MOV.1/4 gs[b-1 i-1*1+4276093184]:1,r0:1 (7)", 0x65, 0x67, 0xa2, 0x00, 0x01, 0xe0, 0xfe);
    EXPECT32("MOV.4/4 r0:4,ds[b-1 i-1*1+4276093184]:4 (5)", 0xa1, 0x00, 0x01, 0xe0, 0xfe);
    EXPECT16("MOV.2/2 es[b-1 i-1*1+65520]:2,r0:2 (4)", 0x26, 0xa3, 0xf0, 0xff);
    EXPECT64("MOV.8/8 ds[b7 i-1*1+0]:8,r0:8 (4)", 0x48, 0x0f, 0xc3, 0x07); /* MOVNTI */
    EXPECT16("MOV.4/2 ds[b3 i-1*1+0]:4,r0:4 (3)", 0x0f, 0xc3, 0x07);
    EXPECT64("unsupported", 0x66, 0x0f, 0xc3, 0x07);
    EXPECT64("invalid", 0x0f, 0xc3, 0xc0);
    EXPECT64("MOVBE.4/8 r0:4,ds[b7 i-1*1+0]:4 (4)", 0x0f, 0x38, 0xf0, 0x07);
    EXPECT64("MOVBE.2/8 ds[b7 i-1*1+0]:2,r0:2 (5)", 0x66, 0x0f, 0x38, 0xf1, 0x07);
    EXPECT64("invalid", 0x0f, 0x38, 0xf0, 0xc0);
    EXPECT64("unsupported", 0x0f, 0x38, 0xf2, 0x07);
}

static void extending_moves(void **state)
{
    EXPECT64("MOVZX.4/8 r0:4,ds[b7 i-1*1+0]:1 (3)", 0x0f, 0xb6, 0x07);
    EXPECT64("MOVZX.8/8 r0:8,ds[b7 i-1*1+0]:2 (4)", 0x48, 0x0f, 0xb7, 0x07);
    EXPECT64("MOVSX.2/8 r0:2,h0:1 (4)", 0x66, 0x0f, 0xbe, 0xc4);
    EXPECT64("MOVSX.4/8 r0:4,ds[b7 i-1*1+0]:2 (3)", 0x0f, 0xbf, 0x07);
    EXPECT64("MOVSX.8/8 r0:8,ds[b7 i-1*1+0]:4 (3)", 0x48, 0x63, 0x07);
    EXPECT64("MOVSX.4/8 r0:4,ds[b7 i-1*1+0]:4 (2)", 0x63, 0x07);
    EXPECT64("MOVSX.2/8 r0:2,ds[b7 i-1*1+0]:2 (3)", 0x66, 0x63, 0x07); /* Intel's, not AMD's */
    EXPECT32("unsupported", 0x63, 0x07);                               /* ARPL */
}

static void arithmetic(void **state)
{
    static const char *const names[] = {"ADD", "OR", "ADC", "SBB", "AND", "SUB", "XOR", "CMP"};
    char text[80];
    for (uint8_t i = 0; i < 8; i++) {
        snprintf(text, sizeof(text), "%s.1/8 ds[b7 i-1*1+0]:1,r2:1 (2)", names[i]);
        EXPECT64(text, (uint8_t)(i * 8), 0x17);
        snprintf(text, sizeof(text), "%s.4/8 r2:4,ds[b7 i-1*1+0]:4 (2)", names[i]);
        EXPECT64(text, (uint8_t)(i * 8 + 3), 0x17);
        snprintf(text, sizeof(text), "%s.1/8 r0:1,0x7f (2)", names[i]);
        EXPECT64(text, (uint8_t)(i * 8 + 4), 0x7f);
        snprintf(text, sizeof(text), "%s.8/8 r0:8,0xfffffffffffffffe (6)", names[i]);
        EXPECT64(text, 0x48, (uint8_t)(i * 8 + 5), 0xfe, 0xff, 0xff, 0xff);
        snprintf(text, sizeof(text), "%s.4/8 ds[b7 i-1*1+0]:4,0xffffffffffffffff (3)", names[i]);
        EXPECT64(text, 0x83, (uint8_t)(i * 8 + 7), 0xff);
        snprintf(text, sizeof(text), "%s.4/8 ds[b7 i-1*1+0]:4,0x1000 (6)", names[i]);
        EXPECT64(text, 0x81, (uint8_t)(i * 8 + 7), 0, 0x10, 0, 0);
    }
    EXPECT32("ADD.1/4 ds[b7 i-1*1+0]:1,0x5 (3)", 0x82, 0x07, 0x05); /* an alias of 80 */
    EXPECT64("invalid", 0x82, 0x07, 0x05);
    EXPECT64("TEST.4/8 ds[b7 i-1*1+0]:4,r0:4 (2)", 0x85, 0x07);
    EXPECT64("TEST.1/8 r0:1,0x1 (2)", 0xa8, 0x01);
    EXPECT64("TEST.2/8 ds[b7 i-1*1+0]:2,0x1 (5)", 0x66, 0xf7, 0x07, 0x01, 0x00);
    EXPECT64("TEST.1/8 ds[b7 i-1*1+0]:1,0x1 (3)", 0xf6, 0x0f, 0x01); /* /1 */
    EXPECT64("NOT.4/8 ds[b7 i-1*1+0]:4,- (2)", 0xf7, 0x17);
    EXPECT64("NEG.1/8 ds[b7 i-1*1+0]:1,- (2)", 0xf6, 0x1f);
    EXPECT64("INC.1/8 ds[b7 i-1*1+0]:1,- (2)", 0xfe, 0x07);
    EXPECT64("DEC.4/8 ds[b7 i-1*1+0]:4,- (2)", 0xff, 0x0f);
    EXPECT64("XCHG.4/8 ds[b7 i-1*1+0]:4,r0:4 (2)", 0x87, 0x07);
    EXPECT64("XADD.1/8 ds[b7 i-1*1+0]:1,r0:1 (3)", 0x0f, 0xc0, 0x07);
    EXPECT64("CMPXCHG.8/8 ds[b7 i-1*1+0]:8,r1:8 (4)", 0x48, 0x0f, 0xb1, 0x0f);
}

static void bits_and_stack(void **state)
{
    EXPECT64("BT.4/8 ds[b7 i-1*1+0]:4,r0:4 (3)", 0x0f, 0xa3, 0x07);
    EXPECT64("BTS.8/8 ds[b7 i-1*1+0]:8,r0:8 (4)", 0x48, 0x0f, 0xab, 0x07);
    EXPECT64("BTR.2/8 ds[b7 i-1*1+0]:2,r0:2 (4)", 0x66, 0x0f, 0xb3, 0x07);
    EXPECT64("BTC.4/8 ds[b7 i-1*1+0]:4,r0:4 (3)", 0x0f, 0xbb, 0x07);
    EXPECT64("BT.4/8 ds[b7 i-1*1+0]:4,0xff (4)", 0x0f, 0xba, 0x27, 0xff); /* an offset, not a number */
    EXPECT64("BTC.8/8 ds[b7 i-1*1+0]:8,0x3 (5)", 0x48, 0x0f, 0xba, 0x3f, 0x03);
    EXPECT64("unsupported", 0x0f, 0xba, 0x1f, 0x03);
    EXPECT64("PUSH.8/8 -,ds[b7 i-1*1+0]:8 (2)", 0xff, 0x37);
    EXPECT64("PUSH.2/8 -,ds[b7 i-1*1+0]:2 (3)", 0x66, 0xff, 0x37);
    EXPECT64("PUSH.8/8 -,ds[b7 i-1*1+0]:8 (4)", 0x66, 0x48, 0xff, 0x37);
    EXPECT32("POP.4/4 ds[b7 i-1*1+0]:4,- (2)", 0x8f, 0x07);
    EXPECT16("POP.2/2 ds[b3 i-1*1+0]:2,- (2)", 0x8f, 0x07);
    EXPECT64("unsupported", 0x8f, 0x0f); /* XOP */
}

static void strings(void **state)
{
    EXPECT64("rep MOVS.4/8 ds[b6 i-1*1+0]:4,ds[b6 i-1*1+0]:4 (2)", 0xf3, 0xa5);
    EXPECT64("rep MOVS.1/8 gs[b6 i-1*1+0]:1,gs[b6 i-1*1+0]:1 (3)", 0x65, 0xf2, 0xa4); /* F2 repeats too */
    EXPECT64("rep STOS.8/8 es[b7 i-1*1+0]:8,r0:8 (3)", 0xf3, 0x48, 0xab);
    EXPECT32("STOS.1/4 es[b7 i-1*1+0]:1,r0:1 (2)", 0x2e, 0xaa); /* ES cannot be overridden */
    EXPECT64("LODS.2/4 r0:2,ds[b6 i-1*1+0]:2 (3)", 0x67, 0x66, 0xad);
    EXPECT64("repne SCAS.1/8 r0:1,es[b7 i-1*1+0]:1 (2)", 0xf2, 0xae);
    EXPECT64("rep CMPS.4/8 ds[b6 i-1*1+0]:4,ds[b6 i-1*1+0]:4 (2)", 0xf3, 0xa7);
    EXPECT64("rep CMPS.4/8 ds[b6 i-1*1+0]:4,ds[b6 i-1*1+0]:4 (3)", 0xf2, 0xf3,
             0xa7); /* the last one counts */
    EXPECT64("rep INS.4/8 es[b7 i-1*1+0]:4,r2:2 (2)", 0xf3, 0x6d);
    EXPECT64("OUTS.4/8 r2:2,ds[b6 i-1*1+0]:4 (2)", 0x48, 0x6f); /* never 8 bytes */
}

static void addressing(void **state)
{
    /* 16-bit */
    EXPECT16("MOV.2/2 r0:2,ds[b3 i6*1+0]:2 (2)", 0x8b, 0x00);
    EXPECT16("MOV.2/2 r0:2,ds[b3 i7*1+0]:2 (2)", 0x8b, 0x01);
    EXPECT16("MOV.2/2 r0:2,ss[b5 i6*1+0]:2 (2)", 0x8b, 0x02);
    EXPECT16("MOV.2/2 r0:2,ss[b5 i7*1+0]:2 (2)", 0x8b, 0x03);
    EXPECT16("MOV.2/2 r0:2,ds[b6 i-1*1+0]:2 (2)", 0x8b, 0x04);
    EXPECT16("MOV.2/2 r0:2,ds[b7 i-1*1+0]:2 (2)", 0x8b, 0x05);
    EXPECT16("MOV.2/2 r0:2,ds[b-1 i-1*1+4660]:2 (4)", 0x8b, 0x06, 0x34, 0x12);
    EXPECT16("MOV.2/2 r0:2,ss[b5 i-1*1-1]:2 (3)", 0x8b, 0x46, 0xff);
    EXPECT16("MOV.2/2 r0:2,ds[b3 i-1*1-32768]:2 (4)", 0x8b, 0x87, 0x00, 0x80);
    EXPECT16("MOV.4/4 r0:4,ds[b0 i-1*1+0]:4 (4)", 0x66, 0x67, 0x8b, 0x00);
    EXPECT32("MOV.4/2 r0:4,ds[b6 i-1*1+0]:4 (3)", 0x67, 0x8b, 0x04);
    /* 32 and 64 bits */
    EXPECT32("MOV.4/4 r0:4,ds[b-1 i-1*1-16]:4 (6)", 0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff);
    EXPECT64("MOV.4/8 r0:4,ds[rip b-1 i-1*1-16]:4 (6)", 0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff);
    EXPECT64("MOV.4/4 r0:4,ds[rip b-1 i-1*1+0]:4 (8)", 0x67, 0x41, 0x8b, 0x05, 0, 0, 0, 0);
    EXPECT64("MOV.4/8 r0:4,ds[b-1 i-1*1-16]:4 (7)", 0x8b, 0x04, 0x25, 0xf0, 0xff, 0xff, 0xff);
    EXPECT64("MOV.4/8 r0:4,ds[b-1 i1*8+256]:4 (7)", 0x8b, 0x04, 0xcd, 0, 1, 0, 0);
    EXPECT64("MOV.4/8 r0:4,ss[b4 i-1*1+0]:4 (3)", 0x8b, 0x04, 0x24);
    EXPECT64("MOV.4/8 r0:4,ss[b5 i-1*1+0]:4 (4)", 0x8b, 0x44, 0x25, 0);
    EXPECT64("MOV.4/8 r0:4,ss[b5 i-1*1-128]:4 (3)", 0x8b, 0x45, 0x80);
    /* REX: R12 needs SIB as RSP does, R13 a displacement as RBP does, and neither means the stack */
    EXPECT64("MOV.4/8 r0:4,ds[b12 i-1*1+0]:4 (4)", 0x41, 0x8b, 0x04, 0x24);
    EXPECT64("MOV.4/8 r0:4,ds[b13 i-1*1+0]:4 (4)", 0x41, 0x8b, 0x45, 0);
    EXPECT64("MOV.4/8 r0:4,ds[b0 i12*4+0]:4 (4)", 0x42, 0x8b, 0x04, 0xa0);
    EXPECT64("MOV.8/8 r15:8,ds[b8 i15*2+0]:8 (4)", 0x4f, 0x8b, 0x3c, 0x78);
}

static void registers(void **state)
{
    EXPECT64("MOV.1/8 h0:1,h3:1 (2)", 0x88, 0xfc);        /* MOV AH, BH */
    EXPECT64("MOV.1/8 r4:1,r7:1 (3)", 0x40, 0x88, 0xfc);  /* MOV SPL, DIL */
    EXPECT64("MOV.1/8 r12:1,r7:1 (3)", 0x41, 0x88, 0xfc); /* MOV R12B, DIL */
    EXPECT64("MOV.4/8 r8:4,r15:4 (3)", 0x45, 0x89, 0xf8);
    EXPECT32("unsupported", 0x40, 0x88, 0xfc); /* INC EAX: no memory, not ours */
}

static void prefixes(void **state)
{
    EXPECT64("MOV.4/8 fs[b0 i-1*1+0]:4,r0:4 (3)", 0x64, 0x89, 0x00);
    EXPECT64("MOV.4/8 gs[b0 i-1*1+0]:4,r0:4 (4)", 0x64, 0x65, 0x89, 0x00); /* the last one counts */
    EXPECT64("MOV.4/8 fs[b0 i-1*1+0]:4,r0:4 (4)", 0x64, 0x2e, 0x89, 0x00); /* null prefixes */
    EXPECT64("MOV.4/8 ds[b0 i-1*1+0]:4,r0:4 (6)", 0x26, 0x2e, 0x36, 0x3e, 0x89, 0x00);
    EXPECT32("MOV.4/4 es[b0 i-1*1+0]:4,r0:4 (3)", 0x26, 0x89, 0x00);
    EXPECT32("MOV.4/4 cs[b5 i-1*1+0]:4,r0:4 (4)", 0x2e, 0x89, 0x45, 0x00);
    EXPECT32("MOV.4/4 ss[b0 i-1*1+0]:4,r0:4 (3)", 0x36, 0x89, 0x00);
    EXPECT32("MOV.4/4 ds[b5 i-1*1+0]:4,r0:4 (5)", 0x36, 0x3e, 0x89, 0x45, 0x00);
    EXPECT64("MOV.2/8 ds[b0 i-1*1+0]:2,r0:2 (4)", 0x66, 0x66, 0x89, 0x00);
    EXPECT64("MOV.8/8 ds[b0 i-1*1+0]:8,r0:8 (4)", 0x66, 0x48, 0x89, 0x00); /* REX.W beats 66 */
    EXPECT64("MOV.2/8 ds[b0 i-1*1+0]:2,r0:2 (4)", 0x48, 0x66, 0x89,
             0x00); /* a REX that is not last is lost */
    EXPECT64("MOV.4/8 ds[b8 i-1*1+0]:4,r0:4 (4)", 0x48, 0x41, 0x89, 0x00); /* the last REX counts */
    EXPECT64("MOV.4/8 ds[b0 i-1*1+0]:4,r0:4 (3)", 0xf3, 0x89, 0x00);       /* XRELEASE: no repetition */
    EXPECT16("MOV.4/2 ds[b3 i-1*1+0]:4,r0:4 (3)", 0x66, 0x89, 0x07);
    EXPECT32("MOV.2/4 ds[b7 i-1*1+0]:2,r0:2 (3)", 0x66, 0x89, 0x07);
}

static void lock_rules(void **state)
{
    static const uint8_t lockable[][4] = {
        {2, 0x01, 0x07},       {2, 0x09, 0x07},       {2, 0x11, 0x07},       {2, 0x19, 0x07},
        {2, 0x21, 0x07},       {2, 0x29, 0x07},       {2, 0x31, 0x07},       {2, 0x87, 0x07},
        {2, 0xf7, 0x17},       {2, 0xf7, 0x1f},       {2, 0xff, 0x07},       {2, 0xff, 0x0f},
        {3, 0x83, 0x07, 0x01}, {3, 0x0f, 0xab, 0x07}, {3, 0x0f, 0xb3, 0x07}, {3, 0x0f, 0xbb, 0x07},
        {3, 0x0f, 0xb1, 0x07}, {3, 0x0f, 0xc1, 0x07}};
    for (size_t i = 0; i < ARRAY_SIZE(lockable); i++) {
        uint8_t bytes[4] = {0xf0};
        struct insn insn;
        memcpy(bytes + 1, lockable[i] + 1, lockable[i][0]);
        struct span span = {bytes, lockable[i][0] + 1u};
        assert_int_equal(insn_decode(span, INSN_MODE_64, &insn), STATUS_OK);
        assert_true(insn.lock);
        size_t modrm = bytes[1] == 0x0f ? 3 : 2;
        bytes[modrm] |= 0xc0; /* with a register as destination */
        assert_int_equal(insn_decode(span, INSN_MODE_64, &insn), ERR_INVALID);
    }
    EXPECT64("lock BTS.4/8 ds[b7 i-1*1+0]:4,0x1 (5)", 0xf0, 0x0f, 0xba, 0x2f, 0x01);
    EXPECT64("invalid", 0xf0, 0x0f, 0xba, 0x27, 0x01); /* BT */
    EXPECT64("invalid", 0xf0, 0x0f, 0xa3, 0x07);
    EXPECT64("invalid", 0xf0, 0x03, 0x07); /* ADD to a register */
    EXPECT64("invalid", 0xf0, 0x39, 0x07); /* CMP */
    EXPECT64("invalid", 0xf0, 0x83, 0x3f, 0x01);
    EXPECT64("invalid", 0xf0, 0x85, 0x07); /* TEST */
    EXPECT64("invalid", 0xf0, 0x89, 0x07); /* MOV */
    EXPECT64("invalid", 0xf0, 0xa5);       /* MOVS */
    EXPECT64("invalid", 0xf0, 0x0f, 0xc3, 0x07);
    EXPECT64("invalid", 0xf0, 0x04, 0x01);
}

static void lengths(void **state)
{
    uint8_t bytes[20];
    struct insn insn;
    memset(bytes, 0x66, sizeof(bytes));
    assert_int_equal(insn_decode((struct span){bytes, 14}, INSN_MODE_64, &insn), ERR_RANGE);
    assert_int_equal(insn_decode((struct span){bytes, 15}, INSN_MODE_64, &insn), ERR_INVALID);
    bytes[13] = 0x89;
    bytes[14] = 0x07;
    assert_int_equal(insn_decode((struct span){bytes, 20}, INSN_MODE_64, &insn), STATUS_OK);
    assert_int_equal(insn.length, 15);
    memset(bytes, 0x66, sizeof(bytes)); /* 16 bytes: one prefix too many */
    bytes[14] = 0x89;
    bytes[15] = 0x07;
    assert_int_equal(insn_decode((struct span){bytes, 20}, INSN_MODE_64, &insn), ERR_INVALID);
    /* cut anywhere, each part asks for more */
    static const uint8_t longest[] = {0x65, 0x66, 0x41, 0x81, 0x84, 0xcd, 1, 2, 3, 4, 5, 6};
    static const uint8_t moffs[] = {0x48, 0xa3, 1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t group8[] = {0x0f, 0xba, 0x6c, 0x24, 0x08, 0x05};
    static const uint8_t movbe[] = {0x0f, 0x38, 0xf1, 0x46, 0x08};
    static const struct span all[] = {
        {longest, sizeof(longest)}, {moffs, sizeof(moffs)}, {group8, sizeof(group8)}, {movbe, sizeof(movbe)}};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        for (size_t n = 0; n < all[i].size; n++)
            assert_int_equal(insn_decode((struct span){all[i].data, n}, INSN_MODE_64, &insn), ERR_RANGE);
        assert_int_equal(insn_decode(all[i], INSN_MODE_64, &insn), STATUS_OK);
        assert_int_equal(insn.length, all[i].size);
    }
    assert_int_equal(insn_decode((struct span){NULL, 0}, INSN_MODE_64, &insn), ERR_RANGE);
}

static void refusals(void **state)
{
    EXPECT64("unsupported", 0x90);                         /* NOP */
    EXPECT64("unsupported", 0x0f, 0x05);                   /* SYSCALL */
    EXPECT64("unsupported", 0x0f, 0x6f, 0xc7);             /* MOVQ mm, mm */
    EXPECT64("unsupported", 0x0f, 0x58, 0x07);             /* ADDPS */
    EXPECT64("unsupported", 0xff, 0x1f);                   /* CALL far */
    EXPECT64("unsupported", 0xff, 0xd0);                   /* CALL rax */
    EXPECT64("unsupported", 0xc5, 0xf8, 0x10, 0x07);       /* VEX */
    EXPECT64("unsupported", 0x62, 0xf1, 0x7c, 0x48, 0x10); /* EVEX */
    EXPECT64("unsupported", 0xc7, 0xf8, 0, 0, 0, 0);       /* XBEGIN */
    EXPECT64("unsupported", 0xc6, 0xf8, 0);                /* XABORT */
}

static void rare_arithmetic(void **state)
{
    EXPECT64("SHL.4/8 ds[b7 i-1*1+0]:4,0x1 (2)", 0xd1, 0x27);
    EXPECT64("SHL.1/8 ds[b7 i-1*1+0]:1,0xff (3)", 0xc0, 0x37, 0xff); /* /6 */
    EXPECT64("SAR.8/8 ds[b7 i-1*1+0]:8,r1:1 (3)", 0x48, 0xd3, 0x3f);
    EXPECT64("RCL.2/8 ds[b7 i-1*1+0]:2,0x81 (4)", 0x66, 0xc1, 0x17, 0x81);
    EXPECT64("SHLD.4/8 ds[b7 i-1*1+0]:4,r0:4 (4)", 0x0f, 0xa4, 0x07, 0x05);
    EXPECT64("SHRD.8/8 ds[b7 i-1*1+0]:8,r8:8 (4)", 0x4c, 0x0f, 0xad, 0x07);
    EXPECT64("IMUL.4/8 r0:4,ds[b7 i-1*1+0]:4 (3)", 0x6b, 0x07, 0xfe);
    EXPECT64("IMUL.2/8 r0:2,ds[b7 i-1*1+0]:2 (5)", 0x66, 0x69, 0x07, 0x34, 0x12);
    EXPECT64("IMUL.8/8 r0:8,ds[b7 i-1*1+0]:8 (4)", 0x48, 0x0f, 0xaf, 0x07);
    EXPECT64("MUL.4/8 -,ds[b7 i-1*1+0]:4 (2)", 0xf7, 0x27);
    EXPECT64("IDIV.1/8 -,ds[b7 i-1*1+0]:1 (2)", 0xf6, 0x3f);
    EXPECT64("CMOV.8/8 r0:8,ds[b7 i-1*1+0]:8 (4)", 0x48, 0x0f, 0x44, 0x07);
    EXPECT64("SET.1/8 ds[b7 i-1*1+0]:1,- (3)", 0x0f, 0x9f, 0x07);
    EXPECT64("BSF.4/8 r0:4,ds[b7 i-1*1+0]:4 (3)", 0x0f, 0xbc, 0x07);
    EXPECT64("BSR.4/8 r0:4,ds[b7 i-1*1+0]:4 (4)", 0xf2, 0x0f, 0xbd, 0x07);
    EXPECT64("TZCNT.2/8 r0:2,ds[b7 i-1*1+0]:2 (5)", 0x66, 0xf3, 0x0f, 0xbc, 0x07);
    EXPECT64("LZCNT.4/8 r0:4,ds[b7 i-1*1+0]:4 (4)", 0xf3, 0x0f, 0xbd, 0x07);
    EXPECT64("POPCNT.4/8 r0:4,ds[b7 i-1*1+0]:4 (4)", 0xf3, 0x0f, 0xb8, 0x07);
    EXPECT64("unsupported", 0x0f, 0xb8, 0x07);
    EXPECT64("CRC32.1/8 r0:4,ds[b7 i-1*1+0]:1 (5)", 0xf2, 0x0f, 0x38, 0xf0, 0x07);
    EXPECT64("CRC32.2/8 r0:4,ds[b7 i-1*1+0]:2 (6)", 0x66, 0xf2, 0x0f, 0x38, 0xf1, 0x07);
    EXPECT64("CRC32.8/8 r0:8,ds[b7 i-1*1+0]:8 (6)", 0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x07);
    EXPECT64("CMPXCHG8B.4/8 ds[b7 i-1*1+0]:8,- (3)", 0x0f, 0xc7, 0x0f);
    EXPECT64("lock CMPXCHG16B.8/8 ds[b7 i-1*1+0]:16,- (5)", 0xf0, 0x48, 0x0f, 0xc7, 0x0f);
    EXPECT64("invalid", 0x0f, 0xc7, 0xc8);
    EXPECT64("invalid", 0xf0, 0xd1, 0x27); /* LOCK SHL, LOCK CMOV, LOCK SETcc */
    EXPECT64("invalid", 0xf0, 0x0f, 0x44, 0x07);
    EXPECT64("invalid", 0xf0, 0x0f, 0x94, 0x07);
}

static void system_forms(void **state)
{
    EXPECT64("CALL.8/8 -,ds[b7 i-1*1+0]:8 (3)", 0x66, 0xff, 0x17); /* the prefix is ignored */
    EXPECT32("JMP.2/4 -,ds[b7 i-1*1+0]:2 (3)", 0x66, 0xff, 0x27);
    EXPECT64("MOV Sreg, m.4/8 s3:2,ds[b7 i-1*1+0]:2 (2)", 0x8e, 0x1f);
    EXPECT64("MOV m, Sreg.8/8 ds[b7 i-1*1+0]:2,s2:2 (3)", 0x48, 0x8c, 0x17);
    EXPECT64("invalid", 0x8e, 0x0f); /* CS */
    EXPECT64("MOV m, Sreg.4/8 ds[b7 i-1*1+0]:2,s1:2 (2)", 0x8c, 0x0f);
    EXPECT64("invalid", 0x8c, 0x37);
    EXPECT64("unsupported", 0x8e, 0xd8);
    EXPECT64("SMSW.4/8 ds[b7 i-1*1+0]:2,- (3)", 0x0f, 0x01, 0x27);
    EXPECT64("LMSW.4/8 -,ds[b7 i-1*1+0]:2 (3)", 0x0f, 0x01, 0x37);
    EXPECT64("LGDT.4/8 -,ds[b7 i-1*1+0]:10 (3)", 0x0f, 0x01, 0x17);
    EXPECT32("SIDT.4/4 ds[b7 i-1*1+0]:6,- (3)", 0x0f, 0x01, 0x0f);
    EXPECT64("LTR.4/8 -,ds[b7 i-1*1+0]:2 (3)", 0x0f, 0x00, 0x1f);
    EXPECT64("SLDT.4/8 ds[b7 i-1*1+0]:2,- (3)", 0x0f, 0x00, 0x07);
    EXPECT64("unsupported", 0x0f, 0x01, 0xd0); /* XGETBV */
    EXPECT64("JMP far.8/8 -,ds[b7 i-1*1+0]:10 (3)", 0x48, 0xff, 0x2f);
    EXPECT16("JMP far.2/2 -,ds[b3 i-1*1+0]:4 (2)", 0xff, 0x2f);
    EXPECT64("invalid", 0xff, 0xe8);
}

/* The stack itself may lie in a device. */
static void stack_forms(void **state)
{
    EXPECT64("PUSH.8/8 -,r12:8 (2)", 0x41, 0x54);
    EXPECT64("POP.2/8 r0:2,- (2)", 0x66, 0x58);
    EXPECT64("PUSH.8/8 -,0xffffffffffffff80 (2)", 0x6a, 0x80);
    EXPECT32("PUSH.4/4 -,0xffffffff80000000 (5)", 0x68, 0, 0, 0, 0x80);
    EXPECT16("PUSH.2/2 -,0x1234 (3)", 0x68, 0x34, 0x12);
    EXPECT64("CALL.8/8 -,0xfffffffffffffffb (6)", 0x66, 0xe8, 0xfb, 0xff, 0xff, 0xff);
    EXPECT16("CALL.2/2 -,0x10 (3)", 0xe8, 0x10, 0);
    EXPECT64("RET.8/8 -,- (1)", 0xc3);
    EXPECT64("RET.8/8 -,0xff00 (3)", 0xc2, 0x00, 0xff);
    EXPECT64("ENTER.8/8 -,0x8000 (4)", 0xc8, 0x00, 0x80, 0x00);
    EXPECT32("LEAVE.4/4 -,- (1)", 0xc9);
    EXPECT64("invalid", 0xf0, 0x50);
}

static void vector_moves(void **state)
{
    EXPECT64("vector move.4/8 x0:16,ds[b7 i-1*1+0]:16 (3)", 0x0f, 0x10, 0x07);
    EXPECT64("vector move.2/8 ds[b7 i-1*1+0]:16,x9:16 (5)", 0x66, 0x44, 0x0f, 0x7f, 0x0f);
    EXPECT64("vector move.4/8 x0:16,ds[b7 i-1*1+0]:4 (4)", 0xf3, 0x0f, 0x10, 0x07);
    EXPECT64("vector move.4/8 ds[b7 i-1*1+0]:8,x0:16 (4)", 0xf2, 0x0f, 0x11, 0x07);
    EXPECT64("vector move.4/8 m1:8,ds[b7 i-1*1+0]:4 (4)", 0x44, 0x0f, 0x6e, 0x0f);
    EXPECT64("vector move.8/8 x1:16,ds[b7 i-1*1+0]:8 (5)", 0x66, 0x48, 0x0f, 0x6e, 0x0f);
    EXPECT64("vector move.2/8 x0:16,ds[b7 i-1*1+0]:16 (5)", 0x66, 0x0f, 0x38, 0x2a, 0x07);
    EXPECT64("unsupported", 0x0f, 0x38, 0x2a, 0x07);
    EXPECT64("unsupported", 0xf3, 0x0f, 0x12, 0x07); /* MOVSLDUP */
    EXPECT64("invalid", 0xf0, 0x0f, 0x11, 0x07);
}

/* Which of the two, for every kind of operand order. */
static void access_directions(void **state)
{
    static const struct {
        uint8_t bytes[4], size;
        bool reads, writes;
        uint8_t width;
    } rows[] = {
        {{0x89, 0x07}, 2, false, true, 4},
        {{0x8b, 0x07}, 2, true, false, 4},
        {{0xc6, 0x07, 1}, 3, false, true, 1},
        {{0x0f, 0xb6, 0x07}, 3, true, false, 1},
        {{0x01, 0x07}, 2, true, true, 4},
        {{0x03, 0x07}, 2, true, false, 4},
        {{0x39, 0x07}, 2, true, false, 4},
        {{0x85, 0x07}, 2, true, false, 4},
        {{0x0f, 0xa3, 0x07}, 3, true, false, 4},
        {{0x0f, 0xab, 0x07}, 3, true, true, 4},
        {{0x87, 0x07}, 2, true, true, 4},
        {{0x0f, 0xb0, 0x07}, 3, true, true, 1},
        {{0xf7, 0x17}, 2, true, true, 4},
        {{0xff, 0x37}, 2, true, false, 8},
        {{0x8f, 0x07}, 2, false, true, 8},
        {{0xaa}, 1, false, true, 1},
        {{0xa5}, 1, true, true, 4},
        {{0xa7}, 1, true, false, 4},
        {{0xad}, 1, true, false, 4},
        {{0xae}, 1, true, false, 1},
        {{0x6d}, 1, false, true, 4},
        {{0x6f}, 1, true, false, 4},
        {{0x89, 0xc0}, 2, false, false, 0},
        {{0x0f, 0x38, 0xf1, 0x07}, 4, false, true, 4},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct insn insn;
        assert_int_equal(insn_decode((struct span){rows[i].bytes, rows[i].size}, INSN_MODE_64, &insn),
                         STATUS_OK);
        assert_int_equal(insn_reads_memory(&insn), rows[i].reads);
        assert_int_equal(insn_writes_memory(&insn), rows[i].writes);
        assert_int_equal(insn_memory_size(&insn), rows[i].width);
    }
}

static uint64_t offset_of(enum insn_mode mode, struct span bytes, const struct insn_regs *regs)
{
    struct insn insn;
    assert_int_equal(insn_decode(bytes, mode, &insn), STATUS_OK);
    return insn_effective_offset(&insn, regs);
}

static void effective_offsets(void **state)
{
    struct insn_regs regs = {.rip = 0xfffffff0};
    for (unsigned i = 0; i < 16; i++)
        regs.gpr[i] = 0x100000000ull * (i + 1) + 0x1000 * i;
    /* MOV EAX, [RBX+RSI*4-8], then with 67 */
    assert_int_equal(offset_of(INSN_MODE_64, B(0x8b, 0x44, 0xb3, 0xf8), &regs), 0x2000000000ull + 0x1aff8);
    assert_int_equal(offset_of(INSN_MODE_64, B(0x67, 0x8b, 0x44, 0xb3, 0xf8), &regs), 0x1aff8);
    /* [BX+SI-1] wraps at 64 KiB */
    regs.gpr[3] = 0xffff;
    regs.gpr[6] = 0x10003;
    assert_int_equal(offset_of(INSN_MODE_16, B(0x8b, 0x40, 0xff), &regs), 1);
    /* RIP-relative counts from the next instruction; with 67 it wraps at 4 GiB */
    assert_int_equal(offset_of(INSN_MODE_64, B(0x8b, 0x05, 0x10, 0, 0, 0), &regs), 0x100000006ull);
    assert_int_equal(offset_of(INSN_MODE_64, B(0x67, 0x8b, 0x05, 0x10, 0, 0, 0), &regs), 7);
    assert_int_equal(offset_of(INSN_MODE_64, B(0xa1, 1, 2, 3, 4, 5, 6, 7, 0x88), &regs),
                     0x8807060504030201ull);
    /* POP [RSP+8] counts from RSP after the pop (SDM volume 2, "POP") */
    regs.gpr[4] = 0x2000;
    assert_int_equal(offset_of(INSN_MODE_64, B(0x8f, 0x44, 0x24, 8), &regs), 0x2010);
    assert_int_equal(offset_of(INSN_MODE_32, B(0x8f, 0x44, 0x24, 8), &regs), 0x200c);
    assert_int_equal(offset_of(INSN_MODE_64, B(0xff, 0x74, 0x24, 8), &regs), 0x2008); /* PUSH */
}

static void bit_strings(void **state)
{
    struct insn_regs regs = {.gpr = {[7] = 0x8000}};
    regs.gpr[0] = 100; /* BTS [RDI], EAX: bit 4 of the fourth doubleword */
    assert_int_equal(offset_of(INSN_MODE_64, B(0x0f, 0xab, 0x07), &regs), 0x800c);
    assert_int_equal(offset_of(INSN_MODE_64, B(0x66, 0x0f, 0xab, 0x07), &regs), 0x800c);
    assert_int_equal(offset_of(INSN_MODE_64, B(0x48, 0x0f, 0xab, 0x07), &regs), 0x8008);
    regs.gpr[0] = 0xffffffff; /* -1 as a doubleword, a large number as a quadword */
    assert_int_equal(offset_of(INSN_MODE_64, B(0x0f, 0xab, 0x07), &regs), 0x7ffc);
    assert_int_equal(offset_of(INSN_MODE_64, B(0x48, 0x0f, 0xab, 0x07), &regs), 0x8000 + 0x1ffffff8);
    assert_int_equal(offset_of(INSN_MODE_64, B(0x0f, 0xba, 0x2f, 0xff), &regs),
                     0x8000); /* an immediate stays */
    assert_int_equal(offset_of(INSN_MODE_64, B(0x01, 0x07), &regs), 0x8000);
}

static void names(void **state)
{
    for (unsigned op = 0; op < INSN_OP_COUNT; op++) {
        assert_non_null(insn_op_name(op));
        for (unsigned other = 0; other < op; other++)
            assert_string_not_equal(insn_op_name(op), insn_op_name(other));
    }
    assert_string_equal(insn_op_name(INSN_OP_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves),
        cmocka_unit_test(extending_moves),
        cmocka_unit_test(arithmetic),
        cmocka_unit_test(strings),
        cmocka_unit_test(bits_and_stack),
        cmocka_unit_test(addressing),
        cmocka_unit_test(registers),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(lock_rules),
        cmocka_unit_test(lengths),
        cmocka_unit_test(refusals),
        cmocka_unit_test(rare_arithmetic),
        cmocka_unit_test(system_forms),
        cmocka_unit_test(stack_forms),
        cmocka_unit_test(vector_moves),
        cmocka_unit_test(access_directions),
        cmocka_unit_test(effective_offsets),
        cmocka_unit_test(bit_strings),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
