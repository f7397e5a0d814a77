#include "hv/exits/task_switch.h"
#include "arch/x86/cpu.h"
#include "hv/exits/exit_table.h"
#include "hv/exits/segment.h"
#include "hv/lib/bits.h"
#include "hv/lib/bytes.h"

/* The TSS (SDM volume 3, figures 8-2 and 8-10). Both begin with the link and have the registers in a row,
 * each in a field of `word` bytes: EIP, EFLAGS, eight general and four or six segment registers, the LDT
 * selector. */
#define DESCRIPTOR_SIZE 8u
#define TSS16_SIZE      44u
#define TSS32_SIZE      104u
#define TSS16_STATE     14u
#define TSS32_STATE     32u
#define TSS_LINK        0u
#define TSS32_CR3       28u
#define TSS32_TRAP      100u
#define FIELD_FLAGS     1u
#define FIELD_GPR       2u
#define FIELD_SEG       10u
#define GPR_COUNT       8u
#define TSS_IS_32BIT    8u /* of the descriptor's type */

#define DR7_LOCAL 0x155u /* L0 to L3 and LE */

/* Where a descriptor has not been loaded yet, an entry to the guest must still be possible. */
#define CODE_RIGHTS (SEG_PRESENT | SEG_NOT_SYSTEM | SEG_TYPE_CODE | SEG_TYPE_READABLE | SEG_TYPE_ACCESSED)
#define V86_RIGHTS  0xf3u /* SDM volume 3, 27.3.1.2: present writable data of DPL 3 */
#define CODE_LIMIT  0xffffu

/* Order of the segment fields, and of their checks but for SS and CS, which come first. */
#define SEG_FIELDS16 4u
#define SEG_FIELDS32 6u

struct switching {
    struct emulation e;
    const struct exit *exit;
    uint8_t source;   /* enum task_switch_source */
    uint8_t external; /* EXT in error codes */
    struct seg old, tss;
    gva_t descriptor; /* of the new task */
    uint8_t image[TSS32_SIZE];
};

static bool is_32bit(const struct seg *tss)
{
    return tss->access & TSS_IS_32BIT;
}

static unsigned size_of(const struct seg *tss)
{
    return is_32bit(tss) ? TSS32_SIZE : TSS16_SIZE;
}

static unsigned word_of(const struct seg *tss)
{
    return is_32bit(tss) ? 4 : 2;
}

static unsigned seg_fields(const struct seg *tss)
{
    return is_32bit(tss) ? SEG_FIELDS32 : SEG_FIELDS16;
}

/* Offset of a register's field. */
static unsigned field_at(const struct seg *tss, unsigned field)
{
    return (is_32bit(tss) ? TSS32_STATE : TSS16_STATE) + field * word_of(tss);
}

static gva_t place(const struct seg *tss, unsigned offset)
{
    return gva((uint32_t)(tss->base + offset));
}

static uint32_t new_field(const struct switching *s, unsigned field)
{
    return (uint32_t)bytes_get(s->image + field_at(&s->tss, field), word_of(&s->tss));
}

static uint16_t new_selector(const struct switching *s, unsigned field)
{
    return bytes_get16(s->image + field_at(&s->tss, field));
}

/* The new task will return to the old one: it gets the link to it, and NT. */
static bool is_nested(const struct switching *s)
{
    return s->source == TASK_SWITCH_CALL || s->source == TASK_SWITCH_GATE;
}

static bool refuse(struct switching *s, uint8_t vector, uint16_t selector)
{
    uint16_t index = selector & (uint16_t)~SELECTOR_RPL;
    s->e.failure = exit_inject_error(vector, index | s->external);
    return false;
}

/* SDM volume 3, table 8-1, as far as the new TSS itself goes. */
static bool check_new_task(struct switching *s)
{
    uint16_t selector = s->exit->u.task_switch.selector;
    bool back = s->source == TASK_SWITCH_IRET;
    uint8_t invalid = back ? VECTOR_TS : VECTOR_GP;
    struct segment_load load = {
        .name = SEG_TR, .invalid = invalid, .external = s->external, .selector = selector};
    if (selector < SELECTOR_LOCAL || selector & SELECTOR_LOCAL) /* null, or not in the GDT */
        return refuse(s, invalid, selector);
    if (!segment_read(&s->e, &load, &s->tss, &s->descriptor))
        return false;
    uint32_t type = s->tss.access & (SEG_TYPE_MASK | SEG_NOT_SYSTEM);
    if ((type & ~TSS_IS_32BIT) != (back ? SEG_TYPE_TSS16 | SEG_TYPE_TSS_BUSY : SEG_TYPE_TSS16))
        return refuse(s, invalid, selector);
    if (!(s->tss.access & SEG_PRESENT))
        return refuse(s, VECTOR_NP, selector);
    if (s->tss.limit < size_of(&s->tss) - 1)
        return refuse(s, VECTOR_TS, selector);
    return true;
}

/* Nothing may fail any more once the switch has begun: all pages that it touches are asked for now. */
static bool check_access(struct switching *s)
{
    const struct seg *old = &s->old;
    unsigned first = field_at(old, 0), end = field_at(old, FIELD_SEG + seg_fields(old));
    if (old->limit < size_of(old) - 1)
        return refuse(s, VECTOR_TS, old->selector);
    if (!segment_probe(&s->e, place(old, first), end - first, true) ||
        !segment_probe(&s->e, place(&s->tss, TSS_LINK), size_of(&s->tss), false))
        return false;
    if (is_nested(s) && !segment_probe(&s->e, place(&s->tss, TSS_LINK), 2, true))
        return false;
    gva_t old_descriptor =
        gva((uint32_t)(virt_get(s->e.vcpu, VIRT_GDTR_BASE) + (old->selector & (uint16_t)~SELECTOR_RPL)));
    bool ends = s->source == TASK_SWITCH_JMP || s->source == TASK_SWITCH_IRET;
    bool begins = s->source != TASK_SWITCH_IRET;
    if ((ends && !segment_probe(&s->e, old_descriptor, DESCRIPTOR_SIZE, true)) ||
        (begins && !segment_probe(&s->e, s->descriptor, DESCRIPTOR_SIZE, true)))
        return false;
    return (!ends || segment_mark(&s->e, old_descriptor, 0, SEG_TYPE_TSS_BUSY)) &&
           (!begins || segment_mark(&s->e, s->descriptor, SEG_TYPE_TSS_BUSY, 0));
}

static bool store(struct switching *s, unsigned offset, unsigned size, uint64_t value)
{
    return segment_access(&s->e, place(&s->old, offset), size, true, &value);
}

/* Where the old task goes on: after the instruction that left it, but a fault repeats its own. */
static uint32_t return_address(const struct switching *s)
{
    unsigned length = s->exit->vectoring.valid ? s->exit->vectoring.insn_len : s->exit->insn_len;
    return (uint32_t)(s->e.vcpu->rip + length);
}

static uint32_t saved_flags(const struct switching *s)
{
    const struct event *event = &s->exit->vectoring;
    uint64_t flags = s->e.regs.rflags;
    if (s->source == TASK_SWITCH_IRET)
        flags &= ~RFLAGS_NT;
    /* "Instruction-Breakpoint Exception Condition": faults are saved with RF set. */
    if (event->valid && event->type == EVENT_EXCEPTION && event->vector != VECTOR_DB &&
        event->vector != VECTOR_DF && event->vector != VECTOR_MC)
        flags |= RFLAGS_RF;
    return (uint32_t)flags;
}

static bool save_old_task(struct switching *s)
{
    const struct seg *old = &s->old;
    unsigned word = word_of(old);
    bool ok = store(s, field_at(old, 0), word, return_address(s)) &&
              store(s, field_at(old, FIELD_FLAGS), word, saved_flags(s));
    for (unsigned i = 0; ok && i < GPR_COUNT; i++)
        ok = store(s, field_at(old, FIELD_GPR + i), word, s->e.regs.gpr[i]);
    for (unsigned i = 0; ok && i < seg_fields(old); i++)
        ok = store(s, field_at(old, FIELD_SEG + i), 2,
                   virt_get_seg(s->e.vcpu, (enum seg_name)(SEG_ES + i)).selector);
    return ok;
}

/* The new task's TSS, after the old one's was written: they may overlap. */
static bool read_new_task(struct switching *s)
{
    for (unsigned i = 0; i < size_of(&s->tss); i += 2) {
        uint64_t value;
        if (!segment_access(&s->e, place(&s->tss, i), 2, false, &value))
            return false;
        s->image[i] = (uint8_t)value;
        s->image[i + 1] = (uint8_t)(value >> 8);
    }
    uint64_t link = s->old.selector;
    return !is_nested(s) || segment_access(&s->e, place(&s->tss, TSS_LINK), 2, true, &link);
}

static uint64_t new_flags(const struct switching *s)
{
    uint64_t flags = (new_field(s, FIELD_FLAGS) & ~RFLAGS_RESERVED) | RFLAGS_FIXED_1;
    if (is_nested(s))
        flags |= RFLAGS_NT;
    return flags;
}

/* Segment registers that name the new selectors: all there is to them in virtual-8086 mode, else with nothing
 * loaded behind them yet. A fault may lead to an entry to the guest from here on. */
static void name_segments(struct switching *s, unsigned cpl)
{
    struct vcpu *vcpu = s->e.vcpu;
    for (unsigned i = 0; i < SEG_FIELDS32; i++) {
        struct seg seg = {.selector = i < seg_fields(&s->tss) ? new_selector(s, FIELD_SEG + i) : 0,
                          .access = SEG_ACCESS_UNUSABLE | cpl << SEG_DPL_SHIFT};
        if (i == SEG_CS) {
            seg.access = CODE_RIGHTS | cpl << SEG_DPL_SHIFT;
            seg.limit = CODE_LIMIT;
        }
        if (new_flags(s) & RFLAGS_VM)
            seg = segment_real(seg.selector, V86_RIGHTS);
        virt_set_seg(vcpu, (enum seg_name)i, &seg);
    }
    struct seg none = {.selector = new_selector(s, FIELD_SEG + seg_fields(&s->tss)),
                       .access = SEG_ACCESS_UNUSABLE};
    virt_set_seg(vcpu, SEG_LDTR, &none);
}

static void end_blocking(struct switching *s)
{
    struct vcpu *vcpu = s->e.vcpu;
    const struct event *event = &s->exit->vectoring;
    uint64_t shadow = virt_get(vcpu, VIRT_INTR_SHADOW);
    shadow &= ~(uint64_t)(EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS);
    if (event->valid && event->type == EVENT_NMI)
        shadow |= EVENTS_SHADOW_NMI;
    else if (s->source == TASK_SWITCH_IRET)
        shadow &= ~(uint64_t)EVENTS_SHADOW_NMI;
    virt_set(vcpu, VIRT_INTR_SHADOW, shadow);
    virt_set(vcpu, VIRT_PENDING_DEBUG, 0);
    /* An exception counts as being delivered until its handler begins: a fault of the new task's segments may
     * make a double fault of it. Interrupts have arrived. */
    if (!event->valid || event->type != EVENT_EXCEPTION)
        vcpu->events.pending &= ~(uint32_t)EVENTS_VECTORING;
}

/* From here on faults are the new task's. False: its CR3 cannot be loaded. */
static bool begin_new_task(struct switching *s)
{
    struct vcpu *vcpu = s->e.vcpu;
    bool wide = is_32bit(&s->tss);
    uint64_t flags = new_flags(s), cr0 = virt_get(vcpu, VIRT_CR0);
    unsigned cpl = new_selector(s, FIELD_SEG + SEG_CS) & SELECTOR_RPL; /* but in virtual-8086 mode */
    s->tss.access |= SEG_TYPE_TSS_BUSY;
    virt_set_seg(vcpu, SEG_TR, &s->tss);
    virt_set(vcpu, VIRT_DR7, virt_get(vcpu, VIRT_DR7) & ~(uint64_t)DR7_LOCAL);
    virt_set(vcpu, VIRT_RFLAGS, flags);
    virt_set(vcpu, VIRT_RIP, new_field(s, 0));
    vcpu->rip = new_field(s, 0);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        vcpu->gpr[i] = new_field(s, FIELD_GPR + i);
    virt_set(vcpu, VIRT_RSP, vcpu->gpr[RSP]);
    name_segments(s, cpl);
    end_blocking(s);
    bool ok = !wide || !(cr0 & CR0_PG) || handle_cr_load_cr3(vcpu, bytes_get32(s->image + TSS32_CR3));
    virt_set(vcpu, VIRT_CR0, virt_get(vcpu, VIRT_CR0) | CR0_TS);
    emulation_begin(&s->e, vcpu);
    if (!ok)
        s->e.failure = exit_inject_error(VECTOR_GP, s->external);
    return ok;
}

static bool load_one(struct switching *s, enum seg_name name, uint16_t selector, unsigned cpl)
{
    struct seg seg;
    struct segment_load load = {.name = (uint8_t)name,
                                .cpl = (uint8_t)cpl,
                                .invalid = VECTOR_TS,
                                .external = s->external,
                                .selector = selector};
    if (!segment_load(&s->e, &load, &seg))
        return false;
    virt_set_seg(s->e.vcpu, name, &seg);
    return true;
}

/* The LDT first, as the other selectors may lie in it; then CS and SS, which decide about the CPL. */
static bool load_segments(struct switching *s)
{
    static const uint8_t order[SEG_FIELDS32] = {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    unsigned count = seg_fields(&s->tss), cpl = new_selector(s, FIELD_SEG + SEG_CS) & SELECTOR_RPL;
    if (!load_one(s, SEG_LDTR, new_selector(s, FIELD_SEG + count), 0))
        return false;
    for (unsigned i = 0; i < SEG_FIELDS32 && !(s->e.regs.rflags & RFLAGS_VM); i++) {
        enum seg_name name = (enum seg_name)order[i];
        if (!load_one(s, name, name < count ? new_selector(s, FIELD_SEG + name) : 0, cpl))
            return false;
    }
    emulation_begin(&s->e, s->e.vcpu);
    return true;
}

/* The exception's error code, on the new task's stack, as wide as its TSS. */
static bool push_error(struct switching *s)
{
    if (!emulation_push(&s->e, word_of(&s->tss), s->exit->vectoring.error))
        return false;
    virt_set(s->e.vcpu, VIRT_RSP, s->e.regs.gpr[RSP]);
    return true;
}

/* Did something other than the program cause this? The error codes say so. */
static bool is_external(const struct event *event)
{
    return event->valid && event->type != EVENT_SOFT_INTERRUPT && event->type != EVENT_SOFT_EXCEPTION;
}

struct exit_result task_switch(struct vcpu *vcpu, const struct exit *exit)
{
    struct switching s = {
        .exit = exit, .source = exit->u.task_switch.source, .external = is_external(&exit->vectoring)};
    emulation_begin(&s.e, vcpu);
    s.old = virt_get_seg(vcpu, SEG_TR);
    if (!check_new_task(&s) || !check_access(&s) || !save_old_task(&s) || !read_new_task(&s))
        return s.e.failure;
    bool has_error = exit->vectoring.valid && exit->vectoring.has_error;
    if (!begin_new_task(&s) || !load_segments(&s) || (has_error && !push_error(&s)))
        return s.e.failure;
    vcpu->events.pending &= ~(uint32_t)EVENTS_VECTORING;
    if (is_32bit(&s.tss) && s.image[TSS32_TRAP] & 1) {
        virt_debug_status(vcpu, DR6_BT);
        return exit_inject(VECTOR_DB);
    }
    return exit_retry();
}
