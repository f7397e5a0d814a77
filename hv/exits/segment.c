#include "hv/exits/segment.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/lib/bits.h"

#define DESCRIPTOR_SIZE   8u
#define DESCRIPTOR_TYPE   5u              /* byte in the descriptor that holds type, S, DPL and P */
#define HIGH_TYPE         (0x1full << 40) /* in the second half of 16 bytes: must be 0 (SDM volume 3, figure 8-4) */
#define REAL_LIMIT        0xffffu
#define LIMIT_GRANULARITY 0xfffu
#define SEG_ACCESS_G      (1u << 15)

struct system_rights {
    bool user;
    uint64_t rflags;
};

static struct system_rights take_system_rights(struct emulation *e)
{
    struct system_rights old = {e->user, e->paging.rflags};
    e->user = false;
    e->paging.rflags = 0;
    return old;
}

static void give_back(struct emulation *e, struct system_rights old)
{
    e->user = old.user;
    e->paging.rflags = old.rflags;
}

bool segment_access(struct emulation *e, gva_t linear, unsigned size, bool write, uint64_t *value)
{
    struct system_rights old = take_system_rights(e);
    bool ok = emulation_access(e, linear, size, write, value);
    give_back(e, old);
    return ok;
}

bool segment_probe(struct emulation *e, gva_t linear, unsigned size, bool write)
{
    struct system_rights old = take_system_rights(e);
    bool ok = emulation_probe(e, linear, size, write);
    give_back(e, old);
    return ok;
}

/* The error code names the selector (SDM volume 3, 6.13 "Error code"). */
static bool refuse(struct emulation *e, const struct segment_load *load, uint8_t vector, uint16_t selector)
{
    uint16_t index = selector & (uint16_t)~SELECTOR_RPL;
    e->failure = exit_inject_error(vector, index | load->external);
    return false;
}

static bool is_long(const struct emulation *e)
{
    return e->paging.efer & EFER_LMA;
}

/* In compatibility mode, too, the tables lie anywhere in 64 bits (SDM volume 3, 2.1.1.1). */
static gva_t table_at(const struct emulation *e, uint64_t linear)
{
    return gva(is_long(e) ? linear : (uint32_t)linear);
}

static struct seg from_descriptor(uint64_t raw, uint16_t selector)
{
    struct seg seg = {.selector = selector};
    seg.base = bits_get(raw, 39, 16) | bits_get(raw, 63, 56) << 24;
    seg.limit = (uint32_t)(bits_get(raw, 15, 0) | bits_get(raw, 51, 48) << 16);
    seg.access = (uint32_t)(bits_get(raw, 47, 40) | bits_get(raw, 55, 52) << 12);
    if (seg.access & SEG_ACCESS_G)
        seg.limit = seg.limit << 12 | LIMIT_GRANULARITY;
    return seg;
}

bool segment_read(struct emulation *e, const struct segment_load *load, struct seg *out, gva_t *at)
{
    uint16_t offset = load->selector & (uint16_t) ~(SELECTOR_RPL | SELECTOR_LOCAL);
    bool is_system = load->name == SEG_LDTR || load->name == SEG_TR;
    unsigned size = is_system && is_long(e) ? 2 * DESCRIPTOR_SIZE : DESCRIPTOR_SIZE;
    struct seg table = {.base = virt_get(e->vcpu, VIRT_GDTR_BASE),
                        .limit = (uint32_t)virt_get(e->vcpu, VIRT_GDTR_LIMIT)};
    if (load->selector & SELECTOR_LOCAL)
        table = virt_get_seg(e->vcpu, SEG_LDTR);
    if (table.access & SEG_ACCESS_UNUSABLE || (uint64_t)offset + size - 1 > table.limit)
        return refuse(e, load, load->invalid, load->selector);
    uint64_t raw, high = 0;
    *at = table_at(e, table.base + offset);
    if (!segment_access(e, *at, DESCRIPTOR_SIZE, false, &raw))
        return false;
    if (size > DESCRIPTOR_SIZE &&
        !segment_access(e, table_at(e, at->v + DESCRIPTOR_SIZE), DESCRIPTOR_SIZE, false, &high))
        return false;
    *out = from_descriptor(raw, load->selector);
    out->base |= high << 32;
    if (high & HIGH_TYPE || bits_sign_extend(out->base, 6) != out->base)
        return refuse(e, load, load->invalid, load->selector);
    return true;
}

bool segment_mark(struct emulation *e, gva_t at, uint8_t set, uint8_t clear)
{
    uint64_t byte;
    gva_t where = table_at(e, at.v + DESCRIPTOR_TYPE);
    if (!segment_access(e, where, 1, false, &byte))
        return false;
    byte = (byte & ~(uint64_t)clear) | set;
    return segment_access(e, where, 1, true, &byte);
}

/* May a segment with these rights be loaded there (SDM volume 3, 5.5 to 5.8, 5.12)? Presence comes after. */
static bool is_allowed(const struct emulation *e, const struct segment_load *load, uint32_t access)
{
    unsigned dpl = segment_dpl(access), rpl = load->selector & SELECTOR_RPL;
    bool code = access & SEG_TYPE_CODE, conforming = code && access & SEG_TYPE_CONFORMING;
    if (load->name == SEG_LDTR)
        return (access & (SEG_TYPE_MASK | SEG_NOT_SYSTEM)) == SEG_TYPE_LDT;
    if (load->name == SEG_TR)
        return (access & (SEG_TYPE_MASK | SEG_NOT_SYSTEM)) == SEG_TYPE_TSS32 ||
               (!is_long(e) && (access & (SEG_TYPE_MASK | SEG_NOT_SYSTEM)) == SEG_TYPE_TSS16);
    if (!(access & SEG_NOT_SYSTEM))
        return false;
    switch (load->name) {
    case SEG_CS: /* in a task switch: its RPL is the new CPL */
        return code && (conforming ? dpl <= rpl : dpl == rpl);
    case SEG_SS:
        return !code && access & SEG_TYPE_READABLE && rpl == load->cpl && dpl == load->cpl;
    default:
        if (code && !(access & SEG_TYPE_READABLE))
            return false;
        return conforming || (dpl >= rpl && dpl >= load->cpl);
    }
}

static bool load_null(struct emulation *e, const struct segment_load *load, struct seg *out)
{
    bool is_stack = load->name == SEG_SS;
    /* In 64-bit mode a stack segment may be null below CPL 3 (SDM volume 3, 3.4.2). */
    bool allowed = is_stack && e->mode == GUEST_MODE_LONG && load->cpl < 3 && load->selector == load->cpl;
    if (load->name == SEG_CS || load->name == SEG_TR || (is_stack && !allowed))
        return refuse(e, load, load->invalid, 0);
    *out =
        (struct seg){.selector = load->selector,
                     .access = SEG_ACCESS_UNUSABLE | (is_stack ? (uint32_t)load->cpl << SEG_DPL_SHIFT : 0)};
    return true;
}

bool segment_load(struct emulation *e, const struct segment_load *load, struct seg *out)
{
    bool is_system = load->name == SEG_LDTR || load->name == SEG_TR;
    gva_t at;
    if (load->selector <= SELECTOR_RPL)
        return load_null(e, load, out);
    if (is_system && load->selector & SELECTOR_LOCAL)
        return refuse(e, load, load->invalid, load->selector);
    if (!segment_read(e, load, out, &at))
        return false;
    if (!is_allowed(e, load, out->access))
        return refuse(e, load, load->invalid, load->selector);
    if (!(out->access & SEG_PRESENT)) {
        bool in_switch = load->name == SEG_LDTR && load->invalid == VECTOR_TS;
        uint8_t vector = load->name == SEG_SS ? VECTOR_SS : in_switch ? VECTOR_TS : VECTOR_NP;
        return refuse(e, load, vector, load->selector);
    }
    if (load->name == SEG_LDTR)
        return true;
    uint8_t mark = is_system ? SEG_TYPE_TSS_BUSY : SEG_TYPE_ACCESSED;
    bool marked = out->access & mark;
    out->access |= mark;
    return marked || segment_mark(e, at, mark, 0);
}

struct seg segment_real(uint16_t selector, uint32_t access)
{
    return (struct seg){
        .selector = selector, .base = (uint64_t)selector << 4, .limit = REAL_LIMIT, .access = access};
}
