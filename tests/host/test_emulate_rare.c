/* Instructions with an operand in a device that load segments, tables and vector registers: privilege,
 * descriptors that must be refused, and what the next entry to the guest needs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/exits/segment.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

#define DEV     0xd1000000ull
#define GDT     0x30000ull
#define GDT_END 0x80u

#define DATA32(dpl) (0x00cf93000000ffffull | (uint64_t)(dpl) << 45)
#define TSS(type)   (0x0000800000000067ull | (uint64_t)(type) << 40)

/* What it reads as, and what was written last. */
static uint8_t memory[16];
static uint64_t written, writes;
static struct vcpu *v;

static void dev_none(struct vdev *dev)
{
}

static void dev_access(struct vdev *dev, struct io_req *req)
{
    if (req->write) {
        written = req->value;
        writes++;
    } else {
        req->value = 0;
        memcpy(&req->value, memory + (req->addr - DEV), req->size);
    }
}

static const struct vdev_ops dev_ops = {
    .name = "test", .init = dev_none, .reset = dev_none, .access = dev_access};
static struct vdev dev = {.ops = &dev_ops, .deadline_ns = VDEV_NEVER};

static int setup(void **state)
{
    machine_init(1);
    v = &machine.vcpus[0];
    memset(memory, 0, sizeof(memory));
    written = writes = 0;
    assert_int_equal(bus_add_mmio(&machine.vm.bus, DEV, 0x1000, &dev), STATUS_OK);
    v->gpr[RBX] = DEV;
    virt_set(v, VIRT_GDTR_BASE, GDT);
    virt_set(v, VIRT_GDTR_LIMIT, GDT_END - 1);
    return 0;
}

static int teardown(void **state)
{
    return machine_guards_intact() ? 0 : -1;
}

static struct exit_result run_bytes(const uint8_t *bytes, size_t size)
{
    struct exit exit = {.kind = EXIT_NESTED_FAULT};
    exit.u.nested.address = gpa(DEV);
    machine_code(v, bytes, size);
    return emulate_mmio(v, &exit);
}
#define RUN(...) run_bytes((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

#define MOV_DS 0x8e, 0x1b
#define MOV_SS 0x8e, 0x13
#define LLDT   0x0f, 0x00, 0x13
#define LTR    0x0f, 0x00, 0x1b
#define SLDT   0x0f, 0x00, 0x03
#define STR    0x0f, 0x00, 0x0b
#define SGDT   0x0f, 0x01, 0x03
#define LGDT   0x0f, 0x01, 0x13
#define SMSW   0x0f, 0x01, 0x23
#define LMSW   0x0f, 0x01, 0x33

static void assert_fault(struct exit_result r, unsigned vector, unsigned error)
{
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_vector, vector);
    assert_true(r.event_has_error);
    assert_int_equal(r.event_error, error);
}

static void assert_undefined(struct exit_result r)
{
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_vector, VECTOR_UD);
}

static void assert_done(struct exit_result r)
{
    assert_int_equal(r.action, ACTION_ADVANCE);
}

static void choose(uint16_t selector)
{
    memcpy(memory, &selector, sizeof(selector));
}

static void describe(uint16_t selector, uint64_t low, uint64_t high)
{
    machine_write(GDT + (selector & ~7u), &low, sizeof(low));
    machine_write(GDT + (selector & ~7u) + 8, &high, sizeof(high));
}

static void set_privilege(unsigned cpl)
{
    struct seg ss = virt_get_seg(v, SEG_SS);
    ss.access = (ss.access & ~0x60u) | cpl << SEG_DPL_SHIFT;
    virt_set_seg(v, SEG_SS, &ss);
}

/* Ring 1 and 2 have supervisor's pages, but not its instructions. */
static void test_privileged(void **state)
{
    struct exit_result r;
    choose(0);
    for (unsigned cpl = 0; cpl < 4; cpl++) {
        set_privilege(cpl);
        r = RUN(LLDT);
        cpl ? assert_fault(r, VECTOR_GP, 0) : assert_done(r);
        r = RUN(LMSW);
        cpl ? assert_fault(r, VECTOR_GP, 0) : assert_done(r);
        r = RUN(LGDT);
        cpl ? assert_fault(r, VECTOR_GP, 0) : assert_done(r);
        virt_set(v, VIRT_GDTR_BASE, GDT);
        r = RUN(LTR);
        assert_fault(r, VECTOR_GP, 0); /* null anyway */
    }
}

static void test_umip(void **state)
{
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_UMIP);
    assert_done(RUN(SLDT));
    for (unsigned cpl = 1; cpl < 4; cpl++) {
        set_privilege(cpl);
        assert_fault(RUN(SLDT), VECTOR_GP, 0);
        assert_fault(RUN(STR), VECTOR_GP, 0);
        assert_fault(RUN(SGDT), VECTOR_GP, 0);
        assert_fault(RUN(SMSW), VECTOR_GP, 0);
    }
    virt_set(v, VIRT_CR4, CR4_PAE);
    assert_done(RUN(SLDT));
    assert_done(RUN(SMSW));
    machine_real_mode(v); /* what it does not know is #UD first */
    v->gpr[RBX] = 0;
    virt_set(v, VIRT_CR4, CR4_UMIP);
    virt_set(v, VIRT_CR0, CR0_PE | CR0_ET | CR0_NE);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_VM);
    machine_user(v);
    assert_undefined(RUN(0x0f, 0x00, 0x07)); /* SLDT [bx] */
    assert_fault(RUN(0x0f, 0x01, 0x27), VECTOR_GP, 0);
}

static void test_data_segment(void **state)
{
    machine_protected_mode(v);
    v->gpr[RBX] = (uint32_t)DEV;
    describe(0x08, DATA32(0), 0);
    choose(0x08);
    assert_done(RUN(MOV_DS));
    struct seg ds = virt_get_seg(v, SEG_DS);
    assert_int_equal(ds.selector, 0x08);
    assert_int_equal(ds.limit, UINT32_MAX);
    assert_int_equal(ds.access, 0xc093);
    choose(GDT_END); /* behind the end, with whatever RPL */
    assert_fault(RUN(MOV_DS), VECTOR_GP, GDT_END);
    choose(0x0b); /* RPL 3, DPL 0 */
    assert_fault(RUN(MOV_DS), VECTOR_GP, 0x08);
    describe(0x08, DATA32(0) & ~(1ull << 47), 0);
    choose(0x08);
    assert_fault(RUN(MOV_DS), VECTOR_NP, 0x08);
    assert_fault(RUN(MOV_SS), VECTOR_SS, 0x08);
    choose(0x0c); /* there is no LDT */
    struct seg none = {.access = SEG_ACCESS_UNUSABLE, .limit = UINT32_MAX};
    virt_set_seg(v, SEG_LDTR, &none);
    assert_fault(RUN(MOV_DS), VECTOR_GP, 0x0c);
    choose(3);
    assert_done(RUN(MOV_DS));
    assert_true(virt_get_seg(v, SEG_DS).access & SEG_ACCESS_UNUSABLE);
    ds = (struct seg){.limit = UINT32_MAX, .access = 0xc093};
    virt_set_seg(v, SEG_DS, &ds);
    assert_fault(RUN(MOV_SS), VECTOR_GP, 0);
}

/* Its accessed bit is set in memory, once. */
static void test_accessed(void **state)
{
    describe(0x10, DATA32(0) & ~(1ull << 40), 0);
    choose(0x10);
    assert_done(RUN(MOV_DS));
    assert_int_equal(virt_get_seg(v, SEG_DS).access, 0xc093);
    assert_int_equal(*machine_ram(GDT + 0x15), 0x93);
    *machine_pte(GDT) &= ~2ull;
    assert_done(RUN(MOV_DS));
    *machine_ram(GDT + 0x15) = 0x92;
    assert_fault(RUN(MOV_DS), VECTOR_PF, 3);
    assert_int_equal(virt_get(v, VIRT_CR2), GDT + 0x15);
}

/* The table is the processor's to read: neither CPL 3 nor a descriptor above 4 GiB are in its way. */
static void test_table_place(void **state)
{
    struct seg cs = virt_get_seg(v, SEG_CS);
    cs.access = 0xc09b; /* compatibility mode */
    virt_set_seg(v, SEG_CS, &cs);
    describe(0x08, DATA32(3), 0);
    choose(0x0b);
    set_privilege(3);
    *machine_pte(GDT) &= ~4ull;
    assert_done(RUN(MOV_DS));
    assert_int_equal(virt_get_seg(v, SEG_DS).access, 0xc0f3);
    uint64_t high = 1ull << 39; /* nothing is mapped there */
    virt_set(v, VIRT_GDTR_BASE, high + GDT);
    assert_fault(RUN(MOV_DS), VECTOR_PF, 0);
    assert_int_equal(virt_get(v, VIRT_CR2), high + GDT + 8);
}

/* What VM entry would refuse must not get that far (SDM volume 3, 27.3.1.2). */
static void test_long_mode_system(void **state)
{
    choose(0x20);
    describe(0x20, TSS(9), 0xffff8000);
    assert_done(RUN(LTR));
    struct seg tr = virt_get_seg(v, SEG_TR);
    assert_int_equal(tr.base, 0xffff800000000000ull);
    assert_int_equal(tr.access, 0x8b);
    assert_int_equal(*machine_ram(GDT + 0x25), 0x8b);
    assert_fault(RUN(LTR), VECTOR_GP, 0x20); /* busy */
    describe(0x20, TSS(1), 0);               /* of 16 bits */
    assert_fault(RUN(LTR), VECTOR_GP, 0x20);
    describe(0x20, TSS(9), 0x8000); /* not canonical */
    assert_fault(RUN(LTR), VECTOR_GP, 0x20);
    describe(0x20, TSS(2), 0x8000);
    assert_fault(RUN(LLDT), VECTOR_GP, 0x20);
    describe(0x20, TSS(9), 1ull << 40); /* a type where there must be none */
    assert_fault(RUN(LTR), VECTOR_GP, 0x20);
    choose(0x78); /* 16 bytes: beyond the limit */
    describe(0x78, TSS(9), 0);
    assert_fault(RUN(LTR), VECTOR_GP, 0x78);
    choose(0x24);
    assert_fault(RUN(LTR), VECTOR_GP, 0x24);
    assert_int_equal(virt_get_seg(v, SEG_TR).access, 0x8b);
    machine_protected_mode(v);
    choose(0x20);
    describe(0x20, TSS(1), 0);
    assert_done(RUN(LTR));
    assert_int_equal(virt_get_seg(v, SEG_TR).access, 0x83);
}

/* Linux has its descriptor table where nobody can write: what is accessed already is not written. */
static void test_far_jump_read_only_table(void **state)
{
    uint64_t code = 0x00af9b000000ffffull;
    describe(0x10, code, 0);
    uint32_t offset = 0x2000;
    memcpy(memory, &offset, sizeof(offset));
    memcpy(memory + 4, "\x10\0", 2);
    *machine_pte(GDT) &= ~2ull;
    assert_done(RUN(0xff, 0x2b));
    assert_int_equal(virt_get_seg(v, SEG_CS).selector, 0x10);
    describe(0x10, code & ~(1ull << 40), 0);
    assert_fault(RUN(0xff, 0x2b), VECTOR_PF, 3);
}

/* The next instruction loads the stack pointer; a single-step trap waits until then. */
static void test_stack_segment(void **state)
{
    describe(0x08, DATA32(0), 0);
    choose(0x08);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_STI);
    struct exit_result r = RUN(MOV_SS);
    assert_int_equal(r.action, ACTION_RETRY);
    assert_int_equal(virt_get(v, VIRT_RIP), v->rip + 2);
    assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), EVENTS_SHADOW_MOV_SS);
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), 0);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_TF | RFLAGS_RF);
    r = RUN(MOV_SS);
    assert_int_equal(r.action, ACTION_RETRY);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), RFLAGS_FIXED_1 | RFLAGS_TF);
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), DR6_BS);
}

/* A device is given the bytes of the access, and no others. */
static void test_narrow_stores(void **state)
{
    memset(fake_vcpu(v)->fx + 160, 0x5a, 16);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_OSFXSR);
    assert_done(RUN(0xf3, 0x0f, 0x11, 0x03)); /* MOVSS [rbx], xmm0 */
    assert_int_equal(written, 0x5a5a5a5a);
    assert_done(RUN(0x66, 0x0f, 0x7e, 0x03)); /* MOVD */
    assert_int_equal(written, 0x5a5a5a5a);
    struct seg cs = virt_get_seg(v, SEG_CS);
    cs.access = 0xc09b;
    virt_set_seg(v, SEG_CS, &cs);
    virt_set(v, VIRT_GDTR_BASE, 0xffff800000030000ull);
    assert_done(RUN(SGDT));
    assert_int_equal(written, 0x30000);
    virt_set(v, VIRT_RSP, DEV + 0x100);
    assert_done(RUN(0x6a, 0xff)); /* PUSH -1 */
    assert_int_equal(written, 0xffffffff);
}

/* The first of two stores takes away the page tables that led there: the second goes where it was to go. */
static void test_stores_on_own_table(void **state)
{
    uint64_t now[2], old[2];
    memcpy(old, machine_ram(MACHINE_TABLES), sizeof(old));
    memset(fake_vcpu(v)->fx + 160, 0x5a, 16);
    v->gpr[RBX] = MACHINE_TABLES;
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_OSFXSR);
    assert_done(RUN(SGDT));
    memcpy(now, machine_ram(MACHINE_TABLES), sizeof(now));
    assert_int_equal(now[0], GDT << 16 | (GDT_END - 1));
    assert_int_equal(now[1], GDT >> 48);

    old[0] |= 0x20; /* accessed: by the walk */
    machine_write(MACHINE_TABLES, old, sizeof(old));
    v->gpr[RAX] = old[0];
    v->gpr[RDX] = old[1];
    v->gpr[RCX] = 0x1234;
    assert_done(RUN(0x48, 0x0f, 0xc7, 0x0b)); /* CMPXCHG16B [rbx] */
    memcpy(now, machine_ram(MACHINE_TABLES), sizeof(now));
    assert_int_equal(now[0], MACHINE_TABLES);
    assert_int_equal(now[1], 0x1234);

    machine_write(MACHINE_TABLES, old, sizeof(old));
    assert_done(RUN(0x0f, 0x11, 0x03)); /* MOVUPS [rbx], xmm0 */
    memcpy(now, machine_ram(MACHINE_TABLES), sizeof(now));
    assert_int_equal(now[0], 0x5a5a5a5a5a5a5a5a);
    assert_int_equal(now[1], 0x5a5a5a5a5a5a5a5a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_privileged),
        T(test_umip),
        T(test_data_segment),
        T(test_accessed),
        T(test_table_place),
        T(test_long_mode_system),
        T(test_far_jump_read_only_table),
        T(test_stack_segment),
        T(test_narrow_stores),
        T(test_stores_on_own_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
