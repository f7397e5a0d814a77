/* Instructions that no driver uses on a device, done there all the same: the stack, branches, segment and
 * system registers, vector moves. The device is 8 KiB of memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86/cpu.h"
#include "arch/x86/fxsave.h"
#include "hv/exits/exit_table.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

#define DEV      0xd1000000ull
#define DEV_SIZE 0x2000ull
#define CODE     0x1000ull
#define STACK    0x8000ull
#define GDT      0x3000ull

enum {
    SEL_CODE64 = 8,
    SEL_DATA = 16,
    SEL_TSS = 24,
    SEL_LDT = 40,
    SEL_ABSENT = 56,
    SEL_CODE32 = 64,
    SEL_GATE = 72,
    SEL_END = 80
};

static uint8_t device[DEV_SIZE];
static unsigned accesses;
static struct vcpu *v;

static void dev_none(struct vdev *dev)
{
}

static void dev_access(struct vdev *dev, struct io_req *req)
{
    uint64_t at = req->addr - DEV;
    accesses++;
    assert_true(at + req->size <= DEV_SIZE);
    if (req->write)
        memcpy(device + at, &req->value, req->size);
    else
        memcpy(&req->value, device + at, req->size);
}

static const struct vdev_ops dev_ops = {
    .name = "memory", .init = dev_none, .reset = dev_none, .access = dev_access};
static struct vdev dev = {.ops = &dev_ops, .deadline_ns = VDEV_NEVER};

static void descriptor(unsigned selector, uint32_t base, uint32_t limit, uint32_t access)
{
    uint64_t raw = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(access & 0xff) << 40 |
                   (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(access >> 12 & 15) << 52 |
                   (uint64_t)(base >> 24) << 56;
    machine_write(GDT + selector, &raw, sizeof(raw));
}

static int setup(void **state)
{
    machine_init(1);
    v = &machine.vcpus[0];
    accesses = 0;
    assert_int_equal(bus_add_mmio(&machine.vm.bus, DEV, DEV_SIZE, &dev), STATUS_OK);
    for (unsigned i = 0; i < DEV_SIZE; i++)
        device[i] = (uint8_t)(i + 1);
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0x1111111111111111ull * i;
    v->gpr[RBX] = DEV;
    virt_set(v, VIRT_RSP, STACK);
    virt_set(v, VIRT_CR4, virt_get(v, VIRT_CR4) | CR4_OSFXSR);
    virt_set(v, VIRT_GDTR_BASE, GDT);
    virt_set(v, VIRT_GDTR_LIMIT, SEL_END - 1);
    descriptor(SEL_CODE64, 0, 0xfffff, 0xa09a);
    descriptor(SEL_DATA, 0, 0xfffff, 0xc092);
    descriptor(SEL_TSS, 0x5000, 0x67, 0x89);
    descriptor(SEL_LDT, 0x6000, 0xff, 0x82);
    descriptor(SEL_ABSENT, 0, 0xfffff, 0xa01a);
    descriptor(SEL_CODE32, 0x10000, 0xffff, 0x409a);
    descriptor(SEL_GATE, 0, 0, 0x8c);
    memset(fake_vcpu(v)->fx, 0, sizeof(fake_vcpu(v)->fx));
    return 0;
}

static int teardown(void **state)
{
    return machine_guards_intact() ? 0 : -1;
}

static struct exit_result run(const uint8_t *bytes, size_t size)
{
    struct exit exit = {.kind = EXIT_NESTED_FAULT};
    machine_code(v, bytes, size);
    return emulate_mmio(v, &exit);
}
#define RUN(...) run((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* It was the whole instruction. */
#define DONE(...)                                                                                            \
    do {                                                                                                     \
        struct exit_result r_ = RUN(__VA_ARGS__);                                                            \
        assert_int_equal(r_.action, ACTION_ADVANCE);                                                         \
        assert_int_equal(r_.length, sizeof((const uint8_t[]){__VA_ARGS__}));                                 \
    } while (0)

static void assert_fault(struct exit_result r, unsigned vector, int error)
{
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_vector, vector);
    assert_int_equal(r.event_has_error, error >= 0);
    if (error >= 0)
        assert_int_equal(r.event_error, error);
}

static uint64_t dev64(unsigned at)
{
    uint64_t value;
    memcpy(&value, device + at, sizeof(value));
    return value;
}

static void set_dev64(unsigned at, uint64_t value)
{
    memcpy(device + at, &value, sizeof(value));
}

static void test_arithmetic(void **state)
{
    set_dev64(0, 0x80000001);
    DONE(0xd1, 0x23); /* shl dword [rbx], 1 */
    assert_int_equal(dev64(0), 2);
    assert_int_equal(virt_get(v, VIRT_RFLAGS) & RFLAGS_CF, RFLAGS_CF);
    v->gpr[RAX] = 101;
    v->gpr[RDX] = 0;
    set_dev64(0, 10);
    DONE(0xf7, 0x33); /* div dword [rbx] */
    assert_int_equal(v->gpr[RAX], 10);
    assert_int_equal(v->gpr[RDX], 1);
    set_dev64(0, 0);
    assert_fault(RUN(0xf7, 0x33), VECTOR_DE, -1);
    assert_int_equal(v->gpr[RAX], 10);
    v->gpr[RCX] = (uint64_t)-1; /* the bit before the operand */
    v->gpr[RBX] = DEV + 0x100;
    device[0xff] = 0;
    DONE(0x48, 0x0f, 0xab, 0x0b); /* bts [rbx], rcx */
    assert_int_equal(device[0xff], 0x80);
    DONE(0x0f, 0x92, 0x03); /* setb [rbx] */
    assert_int_equal(device[0x100], 0);
}

/* Without TZCNT and LZCNT the processor does BSF and BSR. */
static void test_scans(void **state)
{
    set_dev64(0, 0x10);
    machine.vm.cpuid.features[0].ebx |= CPUID_07_EBX_BMI1;
    machine.vm.cpuid.ext[1].ecx |= CPUID_80000001_ECX_LZCNT;
    DONE(0xf3, 0x0f, 0xbd, 0x03);
    assert_int_equal(v->gpr[RAX], 27);
    machine.vm.cpuid.features[0].ebx &= ~CPUID_07_EBX_BMI1;
    machine.vm.cpuid.ext[1].ecx &= ~CPUID_80000001_ECX_LZCNT;
    v->rip = CODE + 0x40;
    DONE(0xf3, 0x0f, 0xbd, 0x03);
    assert_int_equal(v->gpr[RAX], 4);
    set_dev64(0, 0);
    DONE(0xf3, 0x0f, 0xbc, 0x03);
    assert_int_equal(v->gpr[RAX], 4); /* BSF leaves it, TZCNT would say 32 */
}

static void test_stack_in_a_device(void **state)
{
    virt_set(v, VIRT_RSP, DEV + 0x1000);
    v->gpr[RCX] = 0x1234;
    DONE(0x51); /* push rcx */
    DONE(0x6a, 0xf9);
    DONE(0x68, 0, 0, 0, 0x80);
    assert_int_equal(dev64(0xff8), 0x1234);
    assert_int_equal(dev64(0xff0), (uint64_t)-7);
    assert_int_equal(dev64(0xfe8), 0xffffffff80000000ull);
    DONE(0x41, 0x58); /* pop r8 */
    assert_int_equal(v->gpr[R8], 0xffffffff80000000ull);
    DONE(0x66, 0x59); /* pop cx */
    assert_int_equal(v->gpr[RCX], 0xfff9);
    assert_int_equal(virt_get(v, VIRT_RSP), DEV + 0xff2);
    DONE(0x54); /* push rsp: as it was before */
    assert_int_equal(dev64(0xfea), DEV + 0xff2);
    DONE(0x5c); /* pop rsp: what was popped */
    assert_int_equal(virt_get(v, VIRT_RSP), DEV + 0xff2);
}

static void test_frames(void **state)
{
    virt_set(v, VIRT_RSP, DEV + 0x1004); /* across two pages */
    v->gpr[RBP] = 0x1122334455667788ull;
    DONE(0xc8, 0x34, 0x02, 0); /* enter 0x234, 0 */
    assert_int_equal(dev64(0xffc), 0x1122334455667788ull);
    assert_int_equal(v->gpr[RBP], DEV + 0xffc);
    assert_int_equal(virt_get(v, VIRT_RSP), DEV + 0xffc - 0x234);
    DONE(0xc9); /* leave */
    assert_int_equal(v->gpr[RBP], 0x1122334455667788ull);
    assert_int_equal(virt_get(v, VIRT_RSP), DEV + 0x1004);
    *machine_pde(DEV - 0x1000) = 0; /* the end of the new frame is not there: nothing has changed */
    virt_set(v, VIRT_RSP, DEV + 0x100);
    uint64_t below = dev64(0xf8);
    assert_int_not_equal(below, v->gpr[RBP]);
    assert_fault(RUN(0xc8, 0, 0x10, 0), VECTOR_PF, 2);
    assert_int_equal(dev64(0xf8), below);
    assert_int_equal(v->gpr[RBP], 0x1122334455667788ull);
    assert_int_equal(virt_get(v, VIRT_RSP), DEV + 0x100);
    assert_int_equal(RUN(0xc8, 0, 0, 1).action, ACTION_STOP);
}

/* Where the vCPU goes on. */
static uint64_t target(const uint8_t *bytes, size_t size)
{
    struct exit_result r = run(bytes, size);
    struct exit exit = {.kind = EXIT_NESTED_FAULT};
    assert_int_equal(r.action, ACTION_ADVANCE);
    assert_true(vcpu_apply_result(v, &exit, r));
    v->rip = CODE;
    return virt_get(v, VIRT_RIP);
}
#define TARGET(...) target((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_branches(void **state)
{
    uint64_t pushed;
    set_dev64(0, 0xffff800000001234ull);
    assert_int_equal(TARGET(0xff, 0x23), 0xffff800000001234ull); /* jmp [rbx] */
    assert_int_equal(TARGET(0xff, 0x13), 0xffff800000001234ull); /* call [rbx] */
    memcpy(&pushed, machine_ram(STACK - 8), sizeof(pushed));
    assert_int_equal(pushed, CODE + 2);
    set_dev64(0, 0x800000000000ull);
    assert_fault(RUN(0xff, 0x13), VECTOR_GP, 0);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK - 8);
    virt_set(v, VIRT_RSP, DEV + 0x10);
    assert_int_equal(TARGET(0xe8, 0xfb, 0x0f, 0, 0), CODE + 0x1000); /* call +0xffb */
    assert_int_equal(dev64(8), CODE + 5);
    assert_int_equal(TARGET(0xc2, 0x20, 0), CODE + 5); /* ret 0x20 */
    assert_int_equal(virt_get(v, VIRT_RSP), DEV + 0x30);
    machine_protected_mode(v);
    v->gpr[RBX] = (uint32_t)DEV;
    virt_set(v, VIRT_RSP, STACK);
    set_dev64(0, 0x2345678);
    assert_int_equal(TARGET(0xff, 0x23), 0x2345678);
    assert_int_equal(TARGET(0x66, 0xff, 0x23), 0x5678); /* 16 bits of EIP */
    struct seg cs = virt_get_seg(v, SEG_CS);
    cs.limit = 0xfffff;
    virt_set_seg(v, SEG_CS, &cs);
    assert_fault(RUN(0xff, 0x23), VECTOR_GP, 0);
}

static void far_pointer(uint64_t offset, unsigned size, uint16_t selector)
{
    memcpy(device, &offset, size);
    memcpy(device + size, &selector, 2);
}

static void test_far_jump(void **state)
{
    far_pointer(0x123456789, 8, SEL_CODE64);
    assert_int_equal(TARGET(0x48, 0xff, 0x2b), 0x123456789);
    struct seg cs = virt_get_seg(v, SEG_CS);
    assert_int_equal(cs.selector, SEL_CODE64);
    assert_int_equal(cs.access, 0xa09b);
    assert_int_equal(*machine_ram(GDT + SEL_CODE64 + 5), 0x9b);
    far_pointer(0x800, 4, SEL_CODE32);
    assert_int_equal(TARGET(0xff, 0x2b), 0x800);
    assert_int_equal(virt_get_seg(v, SEG_CS).base, 0x10000);
    setup(NULL);
    far_pointer(0x10000, 4, SEL_CODE32); /* beyond the limit */
    assert_fault(RUN(0xff, 0x2b), VECTOR_GP, 0);
    far_pointer(0, 4, SEL_DATA);
    assert_fault(RUN(0xff, 0x2b), VECTOR_GP, SEL_DATA);
    far_pointer(0, 4, SEL_CODE64 | 3);
    assert_fault(RUN(0xff, 0x2b), VECTOR_GP, SEL_CODE64);
    far_pointer(0, 4, 3);
    assert_fault(RUN(0xff, 0x2b), VECTOR_GP, 0);
    far_pointer(0, 4, SEL_ABSENT);
    assert_fault(RUN(0xff, 0x2b), VECTOR_NP, SEL_ABSENT);
    far_pointer(0, 4, SEL_GATE);
    assert_int_equal(RUN(0xff, 0x2b).action, ACTION_STOP);
    machine_real_mode(v);
    v->rip = CODE;
    struct seg ds = virt_get_seg(v, SEG_DS);
    ds.base = DEV;
    virt_set_seg(v, SEG_DS, &ds);
    far_pointer(0x10, 2, 0x1234);
    assert_int_equal(TARGET(0xff, 0x2e, 0, 0), 0x10);
    assert_int_equal(virt_get_seg(v, SEG_CS).base, 0x12340);
    assert_int_equal(virt_get_seg(v, SEG_CS).selector, 0x1234);
}

static void test_cmpxchg16b(void **state)
{
    v->gpr[RAX] = dev64(0x100);
    v->gpr[RDX] = dev64(0x108) + 1;
    v->gpr[RCX] = 0xcccc;
    v->gpr[RBX] = DEV + 0x100;
    DONE(0xf0, 0x48, 0x0f, 0xc7, 0x0b);
    assert_int_equal(v->gpr[RDX], dev64(0x108));
    assert_int_equal(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF, 0);
    DONE(0xf0, 0x48, 0x0f, 0xc7, 0x0b);
    assert_int_equal(virt_get(v, VIRT_RFLAGS) & RFLAGS_ZF, RFLAGS_ZF);
    assert_int_equal(dev64(0x100), DEV + 0x100);
    assert_int_equal(dev64(0x108), 0xcccc);
    v->gpr[RBX] = DEV + 8;
    assert_fault(RUN(0x48, 0x0f, 0xc7, 0x0b), VECTOR_GP, 0);
    *machine_pde(DEV) &= ~2ull;
    v->gpr[RBX] = DEV;
    accesses = 0;
    assert_fault(RUN(0x48, 0x0f, 0xc7, 0x0b), VECTOR_PF, 3);
    assert_int_equal(accesses, 0);
}

static void test_segment_registers(void **state)
{
    set_dev64(0, SEL_DATA);
    DONE(0x8e, 0x1b); /* mov ds, [rbx] */
    assert_int_equal(virt_get_seg(v, SEG_DS).selector, SEL_DATA);
    assert_int_equal(virt_get_seg(v, SEG_DS).access, 0xc093);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_STI);
    assert_int_equal(RUN(0x8e, 0x13).action, ACTION_RETRY); /* mov ss: stepped over, with its shadow */
    assert_int_equal(virt_get(v, VIRT_RIP), CODE + 2);
    assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), EVENTS_SHADOW_MOV_SS);
    set_dev64(0, 0);
    DONE(0x8e, 0x03); /* mov es, null */
    assert_int_equal(virt_get_seg(v, SEG_ES).access, SEG_ACCESS_UNUSABLE);
    assert_int_equal(RUN(0x8e, 0x13).action, ACTION_RETRY); /* a null SS in 64-bit mode */
    assert_int_equal(virt_get_seg(v, SEG_SS).access, SEG_ACCESS_UNUSABLE);
    set_dev64(0, 1);
    assert_fault(RUN(0x8e, 0x13), VECTOR_GP, 0);
    set_dev64(0, SEL_END);
    assert_fault(RUN(0x8e, 0x1b), VECTOR_GP, SEL_END);
    set_dev64(0, SEL_CODE64 | 4); /* there is no LDT */
    assert_fault(RUN(0x8e, 0x1b), VECTOR_GP, SEL_CODE64 | 4);
    set_dev64(0, SEL_ABSENT);
    assert_fault(RUN(0x8e, 0x23), VECTOR_NP, SEL_ABSENT);
    DONE(0x8c, 0x1b); /* mov [rbx], ds: 16 bits */
    assert_int_equal(dev64(0), SEL_DATA);
    machine_real_mode(v);
    struct seg ds = virt_get_seg(v, SEG_DS);
    ds.base = DEV;
    ds.limit = 0xfffff; /* as left over from protected mode */
    virt_set_seg(v, SEG_DS, &ds);
    virt_set_seg(v, SEG_ES, &ds);
    set_dev64(0, 0x4321);
    DONE(0x8e, 0x06, 0, 0);
    assert_int_equal(virt_get_seg(v, SEG_ES).base, 0x43210);
    assert_int_equal(virt_get_seg(v, SEG_ES).limit, 0xfffff);
}

static void test_descriptor_tables(void **state)
{
    uint64_t base = 0xffff800000123456ull;
    memcpy(device + 2, &base, 8);
    device[0] = 0xff;
    device[1] = 0;
    DONE(0x0f, 0x01, 0x1b); /* lidt */
    assert_int_equal(virt_get(v, VIRT_IDTR_BASE), base);
    assert_int_equal(virt_get(v, VIRT_IDTR_LIMIT), 0xff);
    v->gpr[RBX] = DEV + 0xffb; /* across two pages */
    DONE(0x0f, 0x01, 0x0b);    /* sidt */
    assert_int_equal(dev64(0xffd), base);
    assert_int_equal(device[0xffb], 0xff);
    base = 0x800000000000ull;
    memcpy(device + 0xffd, &base, 8);
    assert_fault(RUN(0x0f, 0x01, 0x13), VECTOR_GP, 0); /* lgdt: not canonical */
    assert_int_equal(virt_get(v, VIRT_GDTR_BASE), GDT);
    machine_protected_mode(v);
    v->gpr[RBX] = (uint32_t)DEV;
    base = 0x89abcdef;
    memcpy(device + 2, &base, 8);
    DONE(0x66, 0x0f, 0x01, 0x1b); /* 24 bits of base */
    assert_int_equal(virt_get(v, VIRT_IDTR_BASE), 0xabcdef);
    DONE(0x0f, 0x01, 0x13);
    assert_int_equal(virt_get(v, VIRT_GDTR_BASE), 0x89abcdef);
    device[6] = 0x77;
    DONE(0x0f, 0x01, 0x03); /* sgdt writes six bytes */
    assert_int_equal(device[6], 0x77);
}

static void test_system_segments(void **state)
{
    uint64_t high = 0xffff8000ull;
    machine_write(GDT + SEL_TSS + 8, &high, 8);
    set_dev64(0, SEL_TSS);
    DONE(0x0f, 0x00, 0x1b); /* ltr */
    assert_int_equal(virt_get_seg(v, SEG_TR).base, 0xffff800000005000ull);
    assert_int_equal(virt_get_seg(v, SEG_TR).access, 0x8b);
    assert_int_equal(*machine_ram(GDT + SEL_TSS + 5), 0x8b);
    assert_fault(RUN(0x0f, 0x00, 0x1b), VECTOR_GP, SEL_TSS); /* busy now */
    set_dev64(0, SEL_LDT);
    DONE(0x0f, 0x00, 0x13); /* lldt */
    assert_int_equal(virt_get_seg(v, SEG_LDTR).base, 0x6000);
    set_dev64(0, SEL_LDT | 4);
    assert_fault(RUN(0x0f, 0x00, 0x13), VECTOR_GP, SEL_LDT | 4);
    set_dev64(0, 0);
    assert_fault(RUN(0x0f, 0x00, 0x1b), VECTOR_GP, 0);
    DONE(0x0f, 0x00, 0x0b); /* str */
    assert_int_equal(dev64(0), SEL_TSS);
    DONE(0x0f, 0x00, 0x03); /* sldt */
    assert_int_equal(dev64(0), SEL_LDT);
    machine_real_mode(v);
    struct seg ds = virt_get_seg(v, SEG_DS);
    ds.base = DEV;
    virt_set_seg(v, SEG_DS, &ds);
    assert_fault(RUN(0x0f, 0x00, 0x1e, 0, 0), VECTOR_UD, -1);
    assert_fault(RUN(0x0f, 0x00, 0x0e, 0, 0), VECTOR_UD, -1);
}

static void test_machine_status(void **state)
{
    uint64_t cr0 = virt_get(v, VIRT_CR0);
    set_dev64(0, ~0ull);
    DONE(0x0f, 0x01, 0x23); /* smsw */
    assert_int_equal(dev64(0), 0xffffffffffff0000ull | (cr0 & 0xffff));
    set_dev64(0, CR0_TS);
    DONE(0x0f, 0x01, 0x33); /* lmsw: PE stays */
    assert_int_equal(virt_get(v, VIRT_CR0), (cr0 & ~(CR0_MP | CR0_EM)) | CR0_TS);
}

static void test_privilege(void **state)
{
    machine_user(v);
    assert_fault(RUN(0x0f, 0x01, 0x33), VECTOR_GP, 0); /* lmsw */
    assert_fault(RUN(0x0f, 0x01, 0x13), VECTOR_GP, 0); /* lgdt */
    assert_fault(RUN(0x0f, 0x00, 0x1b), VECTOR_GP, 0); /* ltr */
    assert_int_equal(accesses, 0);
    DONE(0x0f, 0x01, 0x23); /* smsw */
    DONE(0x0f, 0x01, 0x03); /* sgdt */
    virt_set(v, VIRT_CR4, virt_get(v, VIRT_CR4) | CR4_UMIP);
    assert_fault(RUN(0x0f, 0x01, 0x23), VECTOR_GP, 0);
    assert_fault(RUN(0x0f, 0x01, 0x03), VECTOR_GP, 0);
    assert_fault(RUN(0x0f, 0x00, 0x0b), VECTOR_GP, 0);
}

static uint64_t *xmm(unsigned number)
{
    return (uint64_t *)(void *)(fake_vcpu(v)->fx + 160 + 16 * number);
}

static void test_vector_loads(void **state)
{
    xmm(9)[0] = xmm(9)[1] = ~0ull;
    DONE(0x44, 0x0f, 0x10, 0x0b); /* movups xmm9, [rbx] */
    assert_int_equal(xmm(9)[0], dev64(0));
    assert_int_equal(xmm(9)[1], dev64(8));
    DONE(0xf3, 0x0f, 0x10, 0x03); /* movss: the rest is cleared */
    assert_int_equal(xmm(0)[0], 0x04030201);
    xmm(1)[0] = xmm(1)[1] = ~0ull;
    DONE(0x0f, 0x12, 0x0b); /* movlps, movhps: the other half stays */
    assert_int_equal(xmm(1)[0], dev64(0));
    assert_int_equal(xmm(1)[1], ~0ull);
    xmm(1)[0] = ~0ull;
    DONE(0x0f, 0x16, 0x0b);
    assert_int_equal(xmm(1)[1], dev64(0));
    assert_int_equal(xmm(1)[0], ~0ull);
    DONE(0x66, 0x48, 0x0f, 0x6e, 0x0b); /* movq xmm1 */
    assert_int_equal(xmm(1)[0], dev64(0));
    assert_int_equal(xmm(1)[1], 0);
    v->gpr[RBX] = DEV + 0xff9;
    DONE(0xf3, 0x0f, 0x6f, 0x13); /* movdqu across two pages */
    assert_int_equal(xmm(2)[0], dev64(0xff9));
    assert_int_equal(xmm(2)[1], dev64(0x1001));
    assert_fault(RUN(0x66, 0x0f, 0x6f, 0x13), VECTOR_GP, 0); /* movdqa */
    *machine_pde(DEV) = 0;
    assert_fault(RUN(0xf3, 0x0f, 0x6f, 0x13), VECTOR_PF, 0);
}

static void test_vector_stores(void **state)
{
    xmm(3)[0] = 0x1122334455667788ull;
    xmm(3)[1] = 0x99aabbccddeeff00ull;
    DONE(0x66, 0x0f, 0xe7, 0x1b); /* movntdq */
    assert_int_equal(dev64(0), xmm(3)[0]);
    assert_int_equal(dev64(8), xmm(3)[1]);
    DONE(0x0f, 0x17, 0x5b, 0x20); /* movhps */
    assert_int_equal(dev64(0x20), xmm(3)[1]);
    set_dev64(0x28, 0);
    DONE(0xf3, 0x0f, 0x11, 0x5b, 0x28); /* movss */
    assert_int_equal(dev64(0x28), 0x55667788);
    DONE(0x66, 0x0f, 0xd6, 0x5b, 0x30); /* movq */
    assert_int_equal(dev64(0x30), xmm(3)[0]);
    *machine_pde(DEV) &= ~2ull;
    accesses = 0;
    assert_fault(RUN(0x0f, 0x11, 0x1b), VECTOR_PF, 3);
    assert_int_equal(accesses, 0);
}

/* MMX registers are the x87's, by their place and not by the stack's top; the first MMX instruction makes the
 * top 0 and all registers valid. */
static void test_mmx(void **state)
{
    uint8_t *fx = fake_vcpu(v)->fx;
    fx[3] = 5 << 3; /* TOP = 5: MM0 is ST(3) */
    memset(fx + 32 + 3 * 16, 0x5a, 8);
    DONE(0x0f, 0x7f, 0x03); /* movq [rbx], mm0 */
    assert_int_equal(dev64(0), 0x5a5a5a5a5a5a5a5aull);
    assert_int_equal(fx[3], 0);
    assert_int_equal(fx[4], 0xff);
    assert_int_equal(fx[32], 0x5a);
    DONE(0x0f, 0x6e, 0x53, 0x10); /* movd mm2, [rbx + 0x10] */
    assert_int_equal(*(uint64_t *)(void *)(fx + 32 + 2 * 16), 0x14131211);
    assert_int_equal(fx[32 + 2 * 16 + 9], 0xff);
    fx[2] = 0x80; /* an exception is pending */
    assert_fault(RUN(0x0f, 0x7f, 0x03), VECTOR_MF, -1);
    DONE(0x0f, 0x11, 0x03); /* SSE does not care */
}

static void test_vector_disabled(void **state)
{
    uint64_t cr0 = virt_get(v, VIRT_CR0);
    virt_set(v, VIRT_CR0, cr0 | CR0_TS);
    assert_fault(RUN(0x0f, 0x10, 0x03), VECTOR_NM, -1);
    virt_set(v, VIRT_CR0, cr0 | CR0_TS | CR0_EM);
    assert_fault(RUN(0x0f, 0x6f, 0x03), VECTOR_UD, -1);
    virt_set(v, VIRT_CR0, cr0);
    virt_set(v, VIRT_CR4, virt_get(v, VIRT_CR4) & ~CR4_OSFXSR);
    assert_fault(RUN(0x0f, 0x10, 0x03), VECTOR_UD, -1);
    DONE(0x0f, 0x6f, 0x03); /* MMX needs no OSFXSR */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_arithmetic),
        T(test_scans),
        T(test_stack_in_a_device),
        T(test_frames),
        T(test_branches),
        T(test_far_jump),
        T(test_cmpxchg16b),
        T(test_segment_registers),
        T(test_descriptor_tables),
        T(test_system_segments),
        T(test_machine_status),
        T(test_privilege),
        T(test_vector_loads),
        T(test_vector_stores),
        T(test_mmx),
        T(test_vector_disabled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
