/* Instructions that are legal on a device's registers, but that no driver uses there (SDM volume 2): stack
 * and branches, system registers, segment registers, vector moves. */
#include "arch/x86/cpu.h"
#include "arch/x86/fxsave.h"
#include "arch/x86/msr.h"
#include "hv/exits/exit_table.h"
#include "hv/exits/segment.h"
#include "hv/lib/bits.h"
#include "hv/vm.h"

#define REAL_SEG_ACCESS 0x93u /* present, writable data, accessed */
#define MACHINE_WORD    0xffffu
#define ENTER_LEVELS    31u
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

/* One step of the stack: an item of `size` bytes is pushed or popped; rSP moves. */
static bool step_stack(struct emulation *e, unsigned size, bool push, uint64_t *value)
{
    unsigned width = stack_width(e);
    uint64_t old = e->regs.gpr[RSP], moved = bits_low_bytes(push ? old - size : old + size, width);
    gva_t stack;
    if (!emulation_linear(e, SEG_SS, push ? moved : bits_low_bytes(old, width), size, push, &stack) ||
        !emulation_access(e, stack, size, push, value))
        return false;
    set_stack_pointer(e, moved);
    return true;
}

bool emulation_push(struct emulation *e, unsigned size, uint64_t value)
{
    return step_stack(e, size, true, &value);
}

static bool pop(struct emulation *e, uint64_t *value)
{
    return step_stack(e, e->code->insn.opsize, false, value);
}

/* A push without doing it: may the item be pushed? */
static bool probe_push(struct emulation *e)
{
    unsigned size = e->code->insn.opsize;
    uint64_t moved = bits_low_bytes(e->regs.gpr[RSP] - size, stack_width(e));
    gva_t stack;
    return emulation_linear(e, SEG_SS, moved, size, true, &stack) && emulation_probe(e, stack, size, true);
}

/* The source's value: a device's is read now. */
static bool read_source(struct emulation *e, gva_t operand, uint64_t *value)
{
    const struct insn_operand *src = &e->code->insn.src;
    if (src->kind == INSN_MEM)
        return emulation_access(e, operand, e->code->insn.opsize, false, value);
    *value = src->kind == INSN_REG ? insn_reg_read(src, &e->regs) : src->imm;
    return true;
}

static struct exit_result run_push(struct emulation *e, gva_t operand)
{
    uint64_t value = 0;
    if (!probe_push(e) || !read_source(e, operand, &value) || !emulation_push(e, e->code->insn.opsize, value))
        return e->failure;
    return emulation_finish(e, true);
}

static struct exit_result run_pop(struct emulation *e, gva_t operand)
{
    const struct insn_operand *dst = &e->code->insn.dst;
    uint64_t value = 0, top = bits_low_bytes(e->regs.gpr[RSP], stack_width(e));
    gva_t stack;
    if (dst->kind == INSN_MEM && (!emulation_linear(e, SEG_SS, top, dst->size, false, &stack) ||
                                  !emulation_probe(e, operand, dst->size, true)))
        return e->failure;
    if (!pop(e, &value))
        return e->failure;
    if (dst->kind != INSN_MEM)
        insn_reg_write(dst, &e->regs, value);
    else if (!emulation_access(e, operand, dst->size, true, &value))
        return e->failure;
    return emulation_finish(e, true);
}

/* rSP becomes rBP, which is popped. */
static struct exit_result run_leave(struct emulation *e)
{
    struct insn_operand frame = {.kind = INSN_REG, .size = e->code->insn.opsize, .reg = RBP};
    uint64_t value = 0;
    set_stack_pointer(e, bits_low_bytes(e->regs.gpr[RBP], stack_width(e)));
    if (!pop(e, &value))
        return e->failure;
    insn_reg_write(&frame, &e->regs, value);
    return emulation_finish(e, true);
}

static struct exit_result run_enter(struct emulation *e)
{
    const struct insn *in = &e->code->insn;
    struct insn_operand frame = {.kind = INSN_REG, .size = in->opsize, .reg = RBP};
    unsigned width = stack_width(e);
    uint64_t value = insn_reg_read(&frame, &e->regs);
    if (in->third.imm & ENTER_LEVELS) {
        emulation_stop(e, "ENTER with a nesting level");
        return e->failure;
    }
    /* The new end of the stack must be writable (SDM volume 2, ENTER); asked before anything is written. */
    uint64_t room = bits_low_bytes(e->regs.gpr[RSP] - in->opsize - in->src.imm, width);
    gva_t stack;
    if (!probe_push(e) || !emulation_linear(e, SEG_SS, room, in->opsize, true, &stack) ||
        !emulation_probe(e, stack, in->opsize, true) || !emulation_push(e, in->opsize, value))
        return e->failure;
    insn_reg_write(&frame, &e->regs, e->regs.gpr[RSP]);
    set_stack_pointer(e, room);
    return emulation_finish(e, true);
}

/* Continues at `target` of the code segment. */
static struct exit_result branch(struct emulation *e, uint64_t target)
{
    e->vcpu->rip = target - e->code->insn.length; /* what steps over the instruction arrives there */
    return emulation_finish(e, true);
}

static bool is_target(const struct emulation *e, const struct seg *cs, uint64_t target)
{
    bool is_64bit = e->paging.efer & EFER_LMA && cs->access & SEG_ACCESS_L;
    return is_64bit ? cpu_is_canonical(target) : target <= cs->limit;
}

/* Near CALL, RET and JMP. */
static struct exit_result run_branch(struct emulation *e, gva_t operand)
{
    const struct insn *in = &e->code->insn;
    uint64_t target = 0, next = bits_low_bytes(e->regs.rip + in->length, in->opsize);
    bool call = in->op == INSN_CALL;
    if (call && !probe_push(e))
        return e->failure;
    if (in->op == INSN_RET) {
        if (!pop(e, &target))
            return e->failure;
        set_stack_pointer(e, bits_low_bytes(e->regs.gpr[RSP] + in->src.imm, stack_width(e)));
    } else if (!read_source(e, operand, &target))
        return e->failure;
    if (call && in->src.kind == INSN_IMM)
        target = bits_low_bytes(target + next, in->opsize);
    if (!is_target(e, &e->cs, target))
        return general_protection();
    if (call && !emulation_push(e, in->opsize, next))
        return e->failure;
    return branch(e, target);
}

/* A code segment for a far jump (SDM volume 3, 5.8.1). Gates and TSSs are not for here. */
static bool read_code_segment(struct emulation *e, uint16_t selector, struct seg *cs, gva_t *at)
{
    unsigned cpl = privilege(e);
    struct segment_load load = {
        .name = SEG_CS, .cpl = (uint8_t)cpl, .invalid = VECTOR_GP, .selector = selector};
    uint16_t error = selector & (uint16_t)~SELECTOR_RPL;
    e->failure = exit_inject_error(VECTOR_GP, error);
    if (!error || !segment_read(e, &load, cs, at))
        return false;
    if (!(cs->access & SEG_NOT_SYSTEM)) {
        emulation_stop(e, "a far jump through a gate");
        return false;
    }
    bool conforming = cs->access & SEG_TYPE_CONFORMING;
    unsigned dpl = segment_dpl(cs->access);
    bool allowed = conforming ? dpl <= cpl : dpl == cpl && (selector & SELECTOR_RPL) <= cpl;
    bool both = e->paging.efer & EFER_LMA && cs->access & SEG_ACCESS_L && cs->access & SEG_ACCESS_DB;
    if (!(cs->access & SEG_TYPE_CODE) || !allowed || both)
        return false;
    if (!(cs->access & SEG_PRESENT)) {
        e->failure = exit_inject_error(VECTOR_NP, error);
        return false;
    }
    cs->selector = (uint16_t)(error | cpl);
    return true;
}

static struct exit_result run_far_jump(struct emulation *e, gva_t operand)
{
    unsigned size = e->code->insn.opsize;
    uint64_t target = 0, selector = 0;
    struct seg cs = e->cs; /* accessed, in real-address mode too */
    gva_t at = gva(0);
    struct emulation_place place;
    if (!emulation_find(e, operand, size + 2, false, &place))
        return e->failure;
    emulation_move(e, &place, 0, size, false, &target);
    emulation_move(e, &place, size, 2, false, &selector);
    if (e->mode == GUEST_MODE_REAL) {
        cs.selector = (uint16_t)selector;
        cs.base = selector << 4;
    } else if (!read_code_segment(e, (uint16_t)selector, &cs, &at))
        return e->failure;
    if (!is_target(e, &cs, target))
        return general_protection();
    /* A descriptor that is marked as accessed may lie where nobody can write. */
    if (!(cs.access & SEG_TYPE_ACCESSED) && !segment_mark(e, at, SEG_TYPE_ACCESSED, 0))
        return e->failure;
    cs.access |= SEG_TYPE_ACCESSED;
    virt_set_seg(e->vcpu, SEG_CS, &cs);
    return branch(e, target);
}

static struct exit_result run_cmpxchg16b(struct emulation *e, gva_t operand)
{
    uint64_t memory[2];
    struct emulation_place place;
    if (operand.v % sizeof(memory))
        return general_protection();
    if (!emulation_find(e, operand, sizeof(memory), true, &place))
        return e->failure;
    for (unsigned i = 0; i < 2; i++)
        emulation_move(e, &place, 8 * i, 8, false, &memory[i]);
    insn_cmpxchg16b(&e->regs, memory);
    for (unsigned i = 0; i < 2; i++)
        emulation_move(e, &place, 8 * i, 8, true, &memory[i]);
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
    uint64_t limit = virt_get(e->vcpu, limit_reg), base = virt_get(e->vcpu, base_reg);
    struct emulation_place place;
    if (!store && privilege(e))
        return general_protection();
    if (!emulation_find(e, operand, size + 2, store, &place))
        return e->failure;
    emulation_move(e, &place, 0, 2, store, &limit);
    emulation_move(e, &place, 2, size, store, &base);
    if (store)
        return emulation_finish(e, true);
    if (e->mode == GUEST_MODE_LONG && !cpu_is_canonical(base))
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
    struct emulation_place place;
    if (store)
        fxsave_get(image, mmx, reg->reg, (enum insn_vector)in->detail, value);
    if (!emulation_find(e, operand, size, store, &place))
        return e->failure;
    emulation_move(e, &place, 0, first, store, &value[0]);
    if (size > first)
        emulation_move(e, &place, first, size - first, store, &value[1]);
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

struct exit_result emulation_run_rare(struct emulation *e)
{
    const struct insn *in = &e->code->insn;
    unsigned size = insn_memory_size(in);
    gva_t operand = gva(0);
    if (is_hidden(e))
        return general_protection();
    if (size && !emulation_linear(e, (enum seg_name)in->segment, insn_effective_offset(in, &e->regs), size,
                                  insn_writes_memory(in), &operand))
        return e->failure;
    switch (in->op) {
    case INSN_PUSH:
        return run_push(e, operand);
    case INSN_POP:
        return run_pop(e, operand);
    case INSN_ENTER:
        return run_enter(e);
    case INSN_LEAVE:
        return run_leave(e);
    case INSN_CALL:
    case INSN_RET:
    case INSN_JMP:
        return run_branch(e, operand);
    case INSN_JMP_FAR:
        return run_far_jump(e, operand);
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
