/* Instructions that are legal on a device's registers, but that no driver uses there (SDM volume 2): stack
 * and branches, system registers, segment registers, vector moves. */
#include "arch/x86/cpu.h"
#include "arch/x86/fxsave.h"
#include "hv/exit_table.h"
#include "hv/lib/bits.h"
#include "hv/segment.h"
#include "hv/vm.h"

#define REAL_SEG_ACCESS 0x93u /* present, writable data, accessed */
#define MACHINE_WORD    0xffffu
#define BASE_24_BITS    0xffffffu

static struct exit_result general_protection(void)
{
    return exit_inject_error(VECTOR_GP, 0);
}

static unsigned privilege(const struct emulation *e)
{
    return segment_dpl(virt_get_seg_access(e->vcpu, SEG_SS));
}

/* Bytes of rSP that take part in stack accesses. */
static unsigned stack_width(struct emulation *e)
{
    if (e->mode == GUEST_MODE_LONG)
        return 8;
    return virt_get_seg_access(e->vcpu, SEG_SS) & SEG_ACCESS_DB ? 4 : 2;
}

static void set_stack_pointer(struct emulation *e, uint64_t value)
{
    unsigned width = stack_width(e);
    uint64_t *rsp = &e->regs.gpr[RSP];
    *rsp = (*rsp & ~bits_low_bytes(~(uint64_t)0, width)) | value;
}

static bool is_canonical(uint64_t linear)
{
    return bits_sign_extend(linear, 6) == linear;
}

/* PUSH m and POP m with the operand in a device. */
static struct exit_result run_stack(struct emulation *e, gva_t operand)
{
    const struct insn *in = &e->code->insn;
    unsigned size = in->opsize, width = stack_width(e);
    bool push = in->op == INSN_PUSH;
    uint64_t old = e->regs.gpr[RSP], value = 0;
    uint64_t moved = bits_low_bytes(push ? old - size : old + size, width);
    gva_t stack;
    if (!emulation_linear(e, SEG_SS, push ? moved : bits_low_bytes(old, width), size, push, &stack) ||
        !emulation_probe(e, push ? stack : operand, size, true) ||
        !emulation_access(e, push ? operand : stack, size, false, &value) ||
        !emulation_access(e, push ? stack : operand, size, true, &value))
        return e->failure;
    set_stack_pointer(e, moved);
    return emulation_finish(e, true);
}

/* Near CALL and JMP to where a device's register points. */
static struct exit_result run_branch(struct emulation *e, gva_t operand)
{
    const struct insn *in = &e->code->insn;
    unsigned size = in->opsize, width = stack_width(e);
    uint64_t target = 0, next = bits_low_bytes(e->regs.rip + in->length, size);
    uint64_t old = e->regs.gpr[RSP], moved = bits_low_bytes(old - size, width);
    gva_t stack = gva(0);
    bool call = in->op == INSN_CALL;
    if (call &&
        (!emulation_linear(e, SEG_SS, moved, size, true, &stack) || !emulation_probe(e, stack, size, true)))
        return e->failure;
    if (!emulation_access(e, operand, size, false, &target))
        return e->failure;
    if (e->mode == GUEST_MODE_LONG ? !is_canonical(target) : target > e->cs.limit)
        return general_protection();
    if (call) {
        if (!emulation_access(e, stack, size, true, &next))
            return e->failure;
        set_stack_pointer(e, moved);
    }
    e->vcpu->rip = target - in->length; /* what steps over the instruction arrives there */
    return emulation_finish(e, true);
}

static struct exit_result run_cmpxchg16b(struct emulation *e, gva_t operand)
{
    uint64_t memory[2] = {0, 0};
    gva_t second = guest_linear_add(e->mode, operand, sizeof(memory[0]));
    if (operand.v % sizeof(memory))
        return general_protection();
    if (!emulation_probe(e, operand, sizeof(memory), true) ||
        !emulation_access(e, operand, sizeof(memory[0]), false, &memory[0]) ||
        !emulation_access(e, second, sizeof(memory[1]), false, &memory[1]))
        return e->failure;
    insn_cmpxchg16b(&e->regs, memory);
    if (!emulation_access(e, operand, sizeof(memory[0]), true, &memory[0]) ||
        !emulation_access(e, second, sizeof(memory[1]), true, &memory[1]))
        return e->failure;
    return emulation_finish(e, true);
}

/* MOV Sreg, m16. */
static struct exit_result load_segment(struct emulation *e, uint16_t selector)
{
    struct vcpu *vcpu = e->vcpu;
    enum seg_name name = (enum seg_name)e->code->insn.dst.reg;
    struct seg seg = segment_real(selector, REAL_SEG_ACCESS);
    if (e->mode != GUEST_MODE_REAL) {
        struct segment_load load = {
            .name = (uint8_t)name, .cpl = (uint8_t)privilege(e), .invalid = VECTOR_GP, .selector = selector};
        if (!segment_load(e, &load, &seg))
            return e->failure;
    } else {
        /* Real-address mode leaves limit and rights as they are (SDM volume 3, 20.1.1). */
        struct seg old = virt_get_seg(vcpu, name);
        seg.limit = old.limit;
        seg.access = old.access;
    }
    virt_set_seg(vcpu, name, &seg);
    struct exit_result result = emulation_finish(e, true);
    if (name == SEG_SS) { /* the next instruction loads rSP: nothing comes between */
        virt_set(vcpu, VIRT_RIP,
                 e->mode == GUEST_MODE_LONG ? vcpu->rip + result.length
                                            : (uint32_t)(vcpu->rip + result.length));
        virt_set(vcpu, VIRT_RFLAGS, e->regs.rflags & ~RFLAGS_RF);
        if (e->regs.rflags & RFLAGS_TF) /* the trap waits; no entry without it (SDM volume 3, 27.3.1.5) */
            virt_set(vcpu, VIRT_PENDING_DEBUG, virt_get(vcpu, VIRT_PENDING_DEBUG) | DR6_BS);
        virt_set(vcpu, VIRT_INTR_SHADOW,
                 (virt_get(vcpu, VIRT_INTR_SHADOW) & ~(uint64_t)EVENTS_SHADOW_STI) | EVENTS_SHADOW_MOV_SS);
        return exit_retry();
    }
    return result;
}

/* LLDT, LTR. */
static struct exit_result load_system_segment(struct emulation *e, uint16_t selector)
{
    struct segment_load load = {.name = e->code->insn.op == INSN_LLDT ? SEG_LDTR : SEG_TR,
                                .invalid = VECTOR_GP,
                                .selector = selector};
    struct seg seg;
    if (!segment_load(e, &load, &seg))
        return e->failure;
    virt_set_seg(e->vcpu, (enum seg_name)load.name, &seg);
    return emulation_finish(e, true);
}

static struct exit_result load_machine_status(struct emulation *e, uint16_t value)
{
    struct exit exit = {.kind = EXIT_CR_ACCESS};
    exit.u.cr.op = CR_LMSW;
    exit.u.cr.lmsw_source = value;
    struct exit_result result = handle_cr(e->vcpu, &exit);
    return result.action == ACTION_ADVANCE ? emulation_finish(e, true) : result;
}

/* Those that read 16 bits. */
static struct exit_result run_load16(struct emulation *e, gva_t operand)
{
    uint64_t value = 0;
    const struct insn *in = &e->code->insn;
    bool system = in->op == INSN_LLDT || in->op == INSN_LTR;
    if (system && e->mode == GUEST_MODE_REAL)
        return exit_inject(VECTOR_UD);
    if (in->op != INSN_LOAD_SEG && privilege(e))
        return general_protection();
    if (!emulation_access(e, operand, 2, false, &value))
        return e->failure;
    if (in->op == INSN_LOAD_SEG)
        return load_segment(e, (uint16_t)value);
    if (in->op == INSN_LMSW)
        return load_machine_status(e, (uint16_t)value);
    return load_system_segment(e, (uint16_t)value);
}

/* Those that write 16 bits. */
static struct exit_result run_store16(struct emulation *e, gva_t operand)
{
    const struct insn *in = &e->code->insn;
    uint64_t value;
    if ((in->op == INSN_SLDT || in->op == INSN_STR) && e->mode == GUEST_MODE_REAL)
        return exit_inject(VECTOR_UD);
    if (in->op == INSN_SMSW)
        value = virt_get(e->vcpu, VIRT_CR0) & MACHINE_WORD;
    else if (in->op == INSN_STORE_SEG)
        value = virt_get_seg(e->vcpu, (enum seg_name)in->src.reg).selector;
    else
        value = virt_get_seg(e->vcpu, in->op == INSN_SLDT ? SEG_LDTR : SEG_TR).selector;
    if (!emulation_access(e, operand, 2, true, &value))
        return e->failure;
    return emulation_finish(e, true);
}

/* SGDT, SIDT, LGDT, LIDT: a 16-bit limit, then the base. */
static struct exit_result run_table(struct emulation *e, gva_t operand)
{
    const struct insn *in = &e->code->insn;
    bool global = in->op == INSN_SGDT || in->op == INSN_LGDT, store = insn_writes_memory(in);
    enum virt_reg base_reg = global ? VIRT_GDTR_BASE : VIRT_IDTR_BASE;
    enum virt_reg limit_reg = global ? VIRT_GDTR_LIMIT : VIRT_IDTR_LIMIT;
    unsigned size = insn_memory_size(in) - 2u;
    uint64_t limit = virt_get(e->vcpu, limit_reg), base = bits_low_bytes(virt_get(e->vcpu, base_reg), size);
    gva_t base_at = guest_linear_add(e->mode, operand, 2);
    if (!store && privilege(e))
        return general_protection();
    if (!emulation_probe(e, operand, size + 2, store) || !emulation_access(e, operand, 2, store, &limit) ||
        !emulation_access(e, base_at, size, store, &base))
        return e->failure;
    if (store)
        return emulation_finish(e, true);
    if (e->mode == GUEST_MODE_LONG && !is_canonical(base))
        return general_protection();
    if (e->mode != GUEST_MODE_LONG && in->opsize == 2)
        base &= BASE_24_BITS;
    virt_set(e->vcpu, limit_reg, limit);
    virt_set(e->vcpu, base_reg, base);
    return emulation_finish(e, true);
}

/* What the processor objects to before it looks at memory (SDM volume 3, table 2-2 and 13.1). 0: nothing. */
static uint8_t vector_fault(struct emulation *e, bool mmx, const uint8_t *image)
{
    if (e->paging.cr0 & CR0_EM || (!mmx && !(e->paging.cr4 & CR4_OSFXSR)))
        return VECTOR_UD;
    if (e->paging.cr0 & CR0_TS)
        return VECTOR_NM;
    return mmx && fxsave_x87_error(image) ? VECTOR_MF : 0;
}

/* The guest's vector registers are in the processor while its vCPU is loaded. */
static struct exit_result run_vector(struct emulation *e, gva_t operand)
{
    const struct insn *in = &e->code->insn;
    bool store = in->dst.kind == INSN_MEM;
    const struct insn_operand *reg = store ? &in->src : &in->dst;
    bool mmx = reg->kind == INSN_MMX;
    unsigned size = insn_memory_size(in), first = size > 8 ? 8 : size;
    uint64_t value[2] = {0, 0};
    uint8_t image[FXSAVE_SIZE] __attribute__((aligned(FXSAVE_ALIGN)));
    virt_fxsave(e->vcpu, image);
    uint8_t fault = vector_fault(e, mmx, image);
    if (fault)
        return exit_inject(fault);
    if (in->aligned && operand.v % size)
        return general_protection();
    gva_t second = guest_linear_add(e->mode, operand, 8);
    if (store)
        fxsave_get(image, mmx, reg->reg, (enum insn_vector)in->detail, value);
    value[0] = bits_low_bytes(value[0], first);
    if (!emulation_probe(e, operand, size, store) || !emulation_access(e, operand, first, store, &value[0]) ||
        (size > first && !emulation_access(e, second, size - first, store, &value[1])))
        return e->failure;
    if (!store)
        fxsave_set(image, mmx, reg->reg, (enum insn_vector)in->detail, value);
    if (!store || mmx) {
        if (mmx)
            fxsave_enter_mmx(image);
        virt_fxrstor(e->vcpu, image);
    }
    return emulation_finish(e, true);
}

/* Instructions that tell a program about the system: not with UMIP. */
static bool is_hidden(const struct emulation *e)
{
    uint8_t op = e->code->insn.op;
    if (op < INSN_SMSW || op > INSN_STR || !(e->paging.cr4 & CR4_UMIP))
        return false;
    bool unknown = e->mode == GUEST_MODE_REAL && (op == INSN_SLDT || op == INSN_STR); /* #UD comes first */
    return privilege(e) && !unknown;
}

struct exit_result emulation_run_rare(struct emulation *e, gva_t operand)
{
    if (is_hidden(e))
        return general_protection();
    switch (e->code->insn.op) {
    case INSN_PUSH:
    case INSN_POP:
        return run_stack(e, operand);
    case INSN_CALL:
    case INSN_JMP:
        return run_branch(e, operand);
    case INSN_CMPXCHG16B:
        return run_cmpxchg16b(e, operand);
    case INSN_LOAD_SEG:
    case INSN_LMSW:
    case INSN_LLDT:
    case INSN_LTR:
        return run_load16(e, operand);
    case INSN_LGDT:
    case INSN_LIDT:
    case INSN_SGDT:
    case INSN_SIDT:
        return run_table(e, operand);
    case INSN_VECTOR:
        return run_vector(e, operand);
    default:
        return run_store16(e, operand);
    }
}
