/* Any descriptors, TSSs, page tables and events into a task switch. What must hold: it comes back after a
 * bounded number of accesses; only the guest's RAM is touched (the map of the fake aborts on anything else);
 * a fault before the new task begins changes no register and no memory, and is there exactly when SDM volume
 * 3, table 8-1 has one; what was saved, loaded, marked as busy and linked is what 8.3 and table 8-2 say; and
 * however it ends, but for a stop, the processor would enter the guest. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/cpu.h"
#include "arch/x86/guest_walk.h"
#include "arch/x86/msr.h"
#include "arch/x86/vmx/vmx_check.h"
#include "hv/exits/exit_table.h"
#include "hv/exits/segment.h"
#include "hv/exits/task_switch.h"
#include "hv/lib/bytes.h"
#include "tests/fuzz/fuzz_memory.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_vdev_env.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

/* Where things lie unless the input moves them. */
#define GDT          0x3000ull
#define OLD          0x4000ull
#define NEW          0x5000ull
#define NEW16        0x6000ull
#define LDT          0x7000ull
#define STACK        0x9000u
#define DIRECTORY    0xa000ull /* 32-bit paging: the first 4 MiB and a device */
#define TABLE        0xb000ull
#define DEVICE_TABLE 0xc000ull
#define PAE_POINTERS 0xd000ull /* PAE paging: machine_paging()'s directories */
#define DEV          0xd1000000ull
#define DEV_SIZE     0x2000ull

#define STEPS          3u
#define CHANGES        24u
#define TSS32_SIZE     104u
#define TSS16_SIZE     44u
#define ENTRY_ALL      7u
#define ENTRY_ACCESSED 0x20u
#define MAPS_MOST      6000u
#define DEVICE_MOST    600u

enum { /* selectors */
       CODE = 0x08,
       DATA = 0x10,
       OLD_TSS = 0x18,
       NEW_TSS = 0x20,
       TSS16 = 0x28,
       LDT_SEG = 0x30,
       USER_CODE = 0x38,
       USER_DATA = 0x40,
       CONFORMING = 0x48,
       BUSY32 = 0x50,
       BUSY16 = 0x58,
       GDT_END = 0x60,
       LOCAL_DATA = 0x04,
};

static unsigned device_accesses;
static struct vcpu *v;

/* ---- a device ---- */

static void dev_none(struct vdev *dev)
{
}

static void dev_access(struct vdev *dev, struct io_req *req)
{
    FAKE_REQUIRE(req->size == 1 || req->size == 2 || req->size == 4 || req->size == 8);
    FAKE_REQUIRE(req->addr >= DEV && req->addr + req->size <= DEV + DEV_SIZE);
    device_accesses++;
    if (!req->write)
        req->value = 0x8b00000010005067ull & vdev_all_ones(req->size);
}

static const struct vdev_ops dev_ops = {
    .name = "test", .init = dev_none, .reset = dev_none, .access = dev_access};
static struct vdev dev = {.ops = &dev_ops, .deadline_ns = VDEV_NEVER};

/* ---- the world ---- */

static uint64_t descriptor_of(uint32_t base, uint32_t limit, uint32_t access)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(access & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(access >> 12 & 15) << 52 |
           (uint64_t)(base >> 24) << 56;
}

static void put_descriptor(unsigned selector, uint32_t base, uint32_t limit, uint32_t access)
{
    uint64_t raw = descriptor_of(base, limit, access);
    memory_poke(GDT + selector, &raw, sizeof(raw));
}

/* Fields: EIP, EFLAGS, eight registers, ES, CS, SS, DS, FS, GS, LDT. */
static void put_task(uint64_t tss, unsigned first, unsigned word)
{
    static const uint32_t fields[] = {0x8000, 0x202, 1,    2,    3,    4,    STACK, 6, 7,
                                      8,      DATA,  CODE, DATA, DATA, DATA, DATA,  0};
    for (unsigned i = 0; i < ARRAY_SIZE(fields) - (word == 2 ? 2 : 0); i++)
        memory_poke(tss + first + i * word, &fields[i], word);
}

static void put_tables(void)
{
    for (uint32_t i = 0; i < 1024; i++) {
        uint32_t page = i << PAGE_SHIFT | ENTRY_ALL, device = (uint32_t)DEV + (i & 1) * PAGE_SIZE + ENTRY_ALL;
        memory_poke(TABLE + 4 * i, &page, sizeof(page));
        memory_poke(DEVICE_TABLE + 4 * i, &device, sizeof(device));
    }
    uint32_t low = TABLE | ENTRY_ALL, devices = DEVICE_TABLE | ENTRY_ALL;
    memory_poke(DIRECTORY, &low, sizeof(low));
    memory_poke(DIRECTORY + 4 * (DEV >> 22), &devices, sizeof(devices));
    for (unsigned i = 0; i < 4; i++) {
        uint64_t pointer = (MACHINE_TABLES + (2 + i) * PAGE_SIZE) | 1;
        memory_poke(PAE_POINTERS + 8 * i, &pointer, sizeof(pointer));
    }
}

static void put_world(void)
{
    put_descriptor(CODE, 0, 0xfffff, 0xc09a);
    put_descriptor(DATA, 0, 0xfffff, 0xc092);
    put_descriptor(OLD_TSS, OLD, TSS32_SIZE - 1, 0x8b);
    put_descriptor(NEW_TSS, NEW, TSS32_SIZE - 1, 0x89);
    put_descriptor(TSS16, NEW16, TSS16_SIZE - 1, 0x81);
    put_descriptor(LDT_SEG, LDT, 0xff, 0x82);
    put_descriptor(USER_CODE, 0, 0xfffff, 0xc0fa);
    put_descriptor(USER_DATA, 0, 0xfffff, 0xc0f2);
    put_descriptor(CONFORMING, 0, 0xfffff, 0xc09e);
    put_descriptor(BUSY32, NEW, TSS32_SIZE - 1, 0x8b);
    put_descriptor(BUSY16, NEW16, TSS16_SIZE - 1, 0x83);
    uint64_t local = descriptor_of(0x100000, 0xfff, 0x4092);
    memory_poke(LDT, &local, sizeof(local));
    put_task(OLD, 32, 4);
    put_task(NEW, 32, 4);
    put_task(NEW16, 14, 2);
    put_tables();
}

static void init_once(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    machine_init(1);
    v = &machine.vcpus[0];
    FAKE_REQUIRE(bus_add_mmio(&machine.vm.bus, DEV, DEV_SIZE, &dev) == STATUS_OK);
    put_world();
    memory_watch();
}

static void restore(void)
{
    memory_restore();
    memset(&machine.vm.bus.mmio_seen, 0, sizeof(machine.vm.bus.mmio_seen));
    memset(&v->events, 0, sizeof(v->events));
    struct fake_vcpu *f = fake_vcpu(v);
    memset(f->reg, 0, sizeof(f->reg));
    memset(f->seg, 0, sizeof(f->seg));
    machine_protected_mode(v);
    virt_set(v, VIRT_GDTR_BASE, GDT);
    virt_set(v, VIRT_GDTR_LIMIT, GDT_END - 1);
    virt_set(v, VIRT_DR7, 0x7ff);
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1);
    struct seg tr = {.selector = OLD_TSS, .base = OLD, .limit = TSS32_SIZE - 1, .access = 0x8b};
    virt_set_seg(v, SEG_TR, &tr);
    struct seg none = {.access = SEG_ACCESS_UNUSABLE};
    virt_set_seg(v, SEG_LDTR, &none);
    for (unsigned i = 0; i < 8; i++)
        v->gpr[i] = 0x01010101u * (i + 1);
    virt_set(v, VIRT_RSP, 0x7f00);
    v->rip = 0x1000;
    virt_set(v, VIRT_RIP, v->rip);
}

static void choose_mode(struct fake_input *in)
{
    uint8_t mode = fake_input_u8(in);
    uint64_t cr0 = virt_get(v, VIRT_CR0);
    if (mode % 3 == 1) {
        cr0 |= CR0_PG;
        virt_set(v, VIRT_CR3, DIRECTORY);
        virt_set(v, VIRT_CR4, CR4_PSE);
    } else if (mode % 3 == 2) {
        cr0 |= CR0_PG;
        virt_set(v, VIRT_CR3, PAE_POINTERS);
        virt_set(v, VIRT_CR4, CR4_PAE);
        for (unsigned i = 0; i < 4; i++)
            virt_set(v, (enum virt_reg)(VIRT_PDPTE0 + i), (MACHINE_TABLES + (2 + i) * PAGE_SIZE) | 1);
    }
    virt_set(v, VIRT_CR0, cr0 | (mode & 8 ? CR0_WP : 0));
    for (unsigned i = 0; i < 2; i++) {
        uint32_t cr3 = mode % 3 == 1 ? DIRECTORY : PAE_POINTERS;
        memory_poke((i ? OLD : NEW) + 28, &cr3, sizeof(cr3));
    }
    if (mode & 16)
        machine_user(v);
    if (mode & 32 && !(mode & 16)) { /* virtual-8086 */
        virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_VM);
        for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
            struct seg seg = segment_real((uint16_t)(0x100 * i), 0xf3);
            virt_set_seg(v, (enum seg_name)i, &seg);
        }
    }
}

static uint32_t address(struct fake_input *in)
{
    static const uint32_t places[] = {
        GDT,       OLD,          NEW, NEW16,           LDT, DIRECTORY,  TABLE,          DEVICE_TABLE,
        0x8000,    PAE_POINTERS, DEV, DEV + PAGE_SIZE, 0,   0xffffffff, MACHINE_TABLES, MACHINE_NOTHING,
        0xfee00000};
    uint8_t kind = fake_input_u8(in);
    if (kind >= 240)
        return (uint32_t)fake_input_u64(in);
    return places[kind % ARRAY_SIZE(places)] + (uint32_t)(int8_t)fake_input_u8(in) +
           (kind >= 160 ? PAGE_SIZE - 40 : 0);
}

static uint16_t choose_selector(struct fake_input *in)
{
    static const uint16_t selectors[] = {NEW_TSS, TSS16,   BUSY32,        BUSY16,     OLD_TSS,    CODE,
                                         DATA,    LDT_SEG, USER_CODE,     USER_DATA,  CONFORMING, LOCAL_DATA,
                                         0,       GDT_END, USER_CODE + 3, NEW_TSS | 4};
    uint8_t kind = fake_input_u8(in);
    return kind < 0xf0 ? selectors[kind % ARRAY_SIZE(selectors)]
                       : (uint16_t)(fake_input_u8(in) | fake_input_u8(in) << 8);
}

static void change_tss(struct fake_input *in)
{
    uint8_t which = fake_input_u8(in);
    uint64_t tss = which % 3 == 0 ? NEW : which % 3 == 1 ? NEW16 : OLD;
    unsigned word = tss == NEW16 ? 2 : 4, field = which / 3 % 19;
    uint64_t at = tss + (word == 2 ? 14 : 32) + field * word;
    uint32_t value = which & 0x80 ? address(in) : (uint32_t)fake_input_u64(in);
    if (field >= 10 && field <= 16)
        value = choose_selector(in);
    if (field == 18) /* of 32 bits: CR3; 17 is the trap bit */
        at = tss + 28;
    memory_poke(at, &value, word);
}

static void change_descriptor(struct fake_input *in)
{
    uint16_t selector = choose_selector(in) & 0x78;
    uint8_t what = fake_input_u8(in);
    uint32_t base = what & 1 ? address(in) : selector == NEW_TSS ? NEW : selector == TSS16 ? NEW16 : 0;
    uint32_t limit = what & 2 ? fake_input_u8(in) : what & 4 ? 0xfffff : TSS32_SIZE - 1;
    uint32_t access = fake_input_u8(in) | (uint32_t)(what & 0xf0) << 8;
    put_descriptor(selector, base, limit, access);
}

static void change_entry(struct fake_input *in)
{
    uint8_t what = fake_input_u8(in);
    uint32_t linear = address(in), flags = fake_input_u8(in);
    uint64_t entry = (address(in) & ~(uint64_t)PAGE_MASK) | flags;
    if (what & 1)
        memory_poke(TABLE + 4 * (linear >> PAGE_SHIFT & 1023), &entry, 4);
    else if (what & 2)
        memory_poke(DIRECTORY + 4 * (linear >> 22), &entry, 4);
    else if (what & 4)
        memory_poke(MACHINE_TABLES + 0x6000 + 8 * (linear >> PAGE_SHIFT & 511), &entry, 8);
    else
        memory_poke(MACHINE_TABLES + 0x2000 + 8 * (linear >> 21), &entry, 8);
}

static void change(struct fake_input *in)
{
    uint8_t what = fake_input_u8(in);
    struct seg seg;
    switch (what % 8) {
    case 0:
        seg = virt_get_seg(v, SEG_TR);
        seg.base = address(in);
        seg.limit = what & 8 ? fake_input_u8(in) : 0xffff;
        seg.access = what & 16 ? 0x83 : 0x8b;
        virt_set_seg(v, SEG_TR, &seg);
        break;
    case 1:
        virt_set(v, VIRT_GDTR_BASE, address(in));
        virt_set(v, VIRT_GDTR_LIMIT, what & 8 ? fake_input_u8(in) : 0xffff);
        break;
    case 2: {
        uint8_t byte = fake_input_u8(in);
        memory_poke(address(in), &byte, 1);
        break;
    }
    case 3:
        change_entry(in);
        break;
    case 6: /* the GDT as the old task's LDT, too */
        seg = (struct seg){.selector = LDT_SEG, .base = GDT, .limit = 0xffff, .access = 0x82};
        virt_set_seg(v, SEG_LDTR, &seg);
        break;
    case 4:
    case 5:
        change_descriptor(in);
        break;
    default:
        change_tss(in);
        break;
    }
}

/* As vmx_decode() makes them: a gate in the IDT comes with an event, the others without. */
static struct exit choose_exit(struct fake_input *in)
{
    static const struct event events[] = {
        {.valid = true, .type = EVENT_EXTERNAL_INTERRUPT, .vector = 0x40},
        {.valid = true, .type = EVENT_NMI, .vector = VECTOR_NMI},
        {.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_GP, .has_error = true, .error = 0x1234},
        {.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_DB},
        {.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_UD},
        {.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_DF, .has_error = true},
        {.valid = true, .type = EVENT_SOFT_INTERRUPT, .vector = 0x80, .insn_len = 2},
        {.valid = true, .type = EVENT_SOFT_EXCEPTION, .vector = VECTOR_BP, .insn_len = 1},
    };
    uint8_t what = fake_input_u8(in);
    struct exit exit = {.kind = EXIT_TASK_SWITCH};
    exit.u.task_switch = (struct exit_task_switch){.selector = choose_selector(in), .source = what & 3};
    if (exit.u.task_switch.source == TASK_SWITCH_GATE)
        exit.vectoring = events[(what >> 2) % ARRAY_SIZE(events)];
    else
        exit.insn_len = 1 + (what >> 2) % 15;
    if (exit.u.task_switch.source == TASK_SWITCH_IRET)
        virt_set(v, VIRT_RFLAGS, virt_get(v, VIRT_RFLAGS) | RFLAGS_NT);
    virt_set(v, VIRT_INTR_SHADOW, what & 0x80 ? EVENTS_SHADOW_NMI : what & 0x40 ? EVENTS_SHADOW_STI : 0);
    v->events.vectoring = exit.vectoring;
    v->events.pending = exit.vectoring.valid ? EVENTS_VECTORING : 0;
    return exit;
}

/* ---- where the switch will reach ---- */

struct piece {
    uint64_t at, size; /* guest-physical */
};

struct reach {
    struct piece piece[4]; /* of at most two pages each, table pages apart */
    unsigned count;
    bool present, in_ram;
};

static uint64_t entries[64]; /* what the walks to all of them read */
static unsigned entry_count;

static bool read_entry(void *ctx, gpa_t at, void *entry, size_t size)
{
    if (entry_count < ARRAY_SIZE(entries))
        entries[entry_count++] = at.v;
    return gmem_read(&machine.vm.gmem, at, entry, size) == STATUS_OK;
}

static struct reach reach_of(uint32_t linear, unsigned size, bool write)
{
    struct reach r = {.present = true, .in_ram = true};
    struct walk_paging paging = {.cr0 = virt_get(v, VIRT_CR0),
                                 .cr3 = virt_get(v, VIRT_CR3),
                                 .cr4 = virt_get(v, VIRT_CR4),
                                 .maxphyaddr = machine.vm.cpuid.phys_bits};
    struct walk_env env = {.read = read_entry};
    for (unsigned i = 0; i < 4; i++)
        paging.pdpte[i] = virt_get(v, (enum virt_reg)(VIRT_PDPTE0 + i));
    while (size) {
        unsigned in_page = PAGE_SIZE - (linear & PAGE_MASK), now = size < in_page ? size : in_page;
        struct walk_request request = {.linear = gva(linear), .access = write ? WALK_WRITE : WALK_READ};
        struct walk_result result;
        uint8_t bytes[TSS32_SIZE];
        if (guest_walk(&env, &paging, &request, &result) != WALK_OK) {
            r.present = r.in_ram = false;
            return r;
        }
        r.in_ram &= gmem_read(&machine.vm.gmem, result.address, bytes, now) == STATUS_OK;
        r.piece[r.count++] = (struct piece){result.address.v, now};
        linear += now;
        size -= now;
    }
    return r;
}

static bool meet(const struct reach *a, const struct reach *b)
{
    for (unsigned i = 0; i < a->count; i++)
        for (unsigned k = 0; k < b->count; k++)
            if (a->piece[i].at < b->piece[k].at + b->piece[k].size &&
                b->piece[k].at < a->piece[i].at + a->piece[i].size)
                return true;
    return false;
}

static bool meets_tables(const struct reach *r)
{
    for (unsigned i = 0; i < r->count; i++)
        for (unsigned k = 0; k < entry_count; k++) {
            uint64_t table = entries[k] & ~(uint64_t)PAGE_MASK;
            if (r->piece[i].at < table + PAGE_SIZE && table < r->piece[i].at + r->piece[i].size)
                return true;
        }
    return false;
}

static void copy(const struct reach *r, uint8_t *out)
{
    for (unsigned i = 0; i < r->count; out += r->piece[i++].size)
        FAKE_REQUIRE(gmem_read(&machine.vm.gmem, gpa(r->piece[i].at), out, r->piece[i].size) == STATUS_OK);
}

/* A copy as it is once all entries so far are marked as accessed: it may hold some of them itself. */
static void copy_walked(const struct reach *r, uint8_t *out)
{
    copy(r, out);
    for (unsigned i = 0; i < r->count; out += r->piece[i++].size)
        for (unsigned k = 0; k < entry_count; k++)
            if (entries[k] - r->piece[i].at < r->piece[i].size)
                out[entries[k] - r->piece[i].at] |= ENTRY_ACCESSED;
}

/* ---- what is expected ---- */

struct shot {
    uint64_t gpr[16], rip, reg[VIRT_REG_COUNT];
    struct seg seg[SEG_COUNT];
    uint32_t pending;
};

static struct shot take_shot(void)
{
    const struct fake_vcpu *f = fake_vcpu(v);
    struct shot s = {.rip = v->rip, .pending = v->events.pending};
    memcpy(s.gpr, v->gpr, sizeof(s.gpr));
    memcpy(s.reg, f->reg, sizeof(s.reg));
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s.seg[i] = f->seg[i];
    return s;
}

static bool same_seg(const struct seg *a, const struct seg *b)
{
    return a->selector == b->selector && a->base == b->base && a->limit == b->limit && a->access == b->access;
}

struct plan {
    const struct exit *exit;
    uint8_t source;
    bool wide_old, wide_new, links, ends, begins;
    struct shot was;
    struct seg tss;
    struct reach old, old_descriptor, new_tss, new_descriptor;
    uint8_t old_bytes[TSS32_SIZE], new_bytes[TSS32_SIZE];
    uint32_t faults;   /* bit per vector that the old task may get; 0: the switch must begin */
    bool apart;        /* nothing of this overlaps, and the page tables are elsewhere */
    bool all_readable; /* contents of all four are known */
    bool marks;        /* but the new task's segments and page tables may lie in all this */
};

/* SDM volume 3, table 8-1: the new TSS. False: there is no descriptor to go on with. */
static bool judge_descriptor(struct plan *p)
{
    uint16_t selector = p->exit->u.task_switch.selector;
    bool back = p->source == TASK_SWITCH_IRET;
    uint32_t invalid = 1u << (back ? VECTOR_TS : VECTOR_GP);
    if (selector < 4 || selector & 4 || (selector | 7u) > virt_get(v, VIRT_GDTR_LIMIT)) {
        p->faults = invalid;
        return false;
    }
    p->new_descriptor = reach_of((uint32_t)(p->was.reg[VIRT_GDTR_BASE] + (selector & ~7u)), 8, false);
    if (!p->new_descriptor.present)
        p->faults = 1u << VECTOR_PF;
    if (!p->new_descriptor.in_ram)
        return false;
    uint8_t raw[8];
    copy_walked(&p->new_descriptor, raw);
    unsigned type = raw[5] & 0x1f;
    p->wide_new = type & 8;
    p->tss = (struct seg){.selector = selector,
                          .base = raw[2] | raw[3] << 8 | raw[4] << 16 | (uint32_t)raw[7] << 24,
                          .limit = raw[0] | (uint32_t)raw[1] << 8 | (raw[6] & 15u) << 16,
                          .access = raw[5] | (raw[6] & 0xf0u) << 8};
    if (raw[6] & 0x80)
        p->tss.limit = p->tss.limit << 12 | 0xfff;
    bool good = back ? type == 3 || type == 11 : type == 1 || type == 9;
    if (!good)
        p->faults |= invalid;
    else if (!(raw[5] & 0x80))
        p->faults |= 1u << VECTOR_NP;
    else if (p->tss.limit < (p->wide_new ? TSS32_SIZE : TSS16_SIZE) - 1)
        p->faults |= 1u << VECTOR_TS;
    return p->faults == 0;
}

static void judge_access(struct plan *p)
{
    const struct seg *old = &p->was.seg[SEG_TR];
    unsigned old_size = p->wide_old ? TSS32_SIZE : TSS16_SIZE,
             new_size = p->wide_new ? TSS32_SIZE : TSS16_SIZE;
    unsigned first = p->wide_old ? 32 : 14;
    if (old->limit < old_size - 1)
        p->faults |= 1u << VECTOR_TS;
    /* What is saved ends before the LDT's selector. */
    p->old = reach_of((uint32_t)old->base + first, old_size - first - (p->wide_old ? 8 : 2), true);
    p->new_tss = reach_of((uint32_t)p->tss.base, new_size, false);
    struct reach link = reach_of((uint32_t)p->tss.base, 2, p->links);
    uint32_t gdt = (uint32_t)p->was.reg[VIRT_GDTR_BASE];
    p->old_descriptor = reach_of(gdt + (old->selector & ~7u), 8, p->ends);
    struct reach mark = reach_of(gdt + (p->tss.selector & ~7u), 8, p->begins);
    if (!p->old.present || !p->new_tss.present || !link.present || !mark.present ||
        (p->ends && !p->old_descriptor.present))
        p->faults |= 1u << VECTOR_PF;
}

static struct plan make_plan(const struct exit *exit)
{
    struct plan p = {.exit = exit, .source = exit->u.task_switch.source, .was = take_shot()};
    p.wide_old = p.was.seg[SEG_TR].access & 8;
    p.links = p.source == TASK_SWITCH_CALL || p.source == TASK_SWITCH_GATE;
    p.ends = p.source == TASK_SWITCH_JMP || p.source == TASK_SWITCH_IRET;
    p.begins = p.source != TASK_SWITCH_IRET;
    entry_count = 0;
    if (!judge_descriptor(&p))
        return p;
    judge_access(&p);
    p.all_readable = !p.faults && p.old.in_ram && p.new_tss.in_ram && p.old_descriptor.in_ram &&
                     entry_count < ARRAY_SIZE(entries);
    p.apart = p.all_readable && !meet(&p.old, &p.new_tss) && !meet(&p.old, &p.old_descriptor) &&
              !meet(&p.old, &p.new_descriptor) && !meet(&p.new_tss, &p.old_descriptor) &&
              !meet(&p.new_tss, &p.new_descriptor) && !meet(&p.old_descriptor, &p.new_descriptor) &&
              !meets_tables(&p.old) && !meets_tables(&p.new_tss) && !meets_tables(&p.old_descriptor) &&
              !meets_tables(&p.new_descriptor);
    if (p.all_readable) {
        copy(&p.old, p.old_bytes);
        copy(&p.new_tss, p.new_bytes);
        struct reach gdt = reach_of((uint32_t)p.was.reg[VIRT_GDTR_BASE], GDT_END, false);
        bool local = bytes_get16(p.new_bytes + (p.wide_new ? 96 : 42)) > SELECTOR_RPL;
        p.marks = local || p.was.reg[VIRT_CR0] & CR0_PG || p.was.reg[VIRT_GDTR_LIMIT] >= GDT_END ||
                  meet(&gdt, &p.old) || meet(&gdt, &p.new_tss);
    }
    return p;
}

/* ---- what must hold ---- */

static void check_not_begun(const struct plan *p, struct exit_result r)
{
    struct shot now = take_shot();
    if (r.action == ACTION_INJECT && r.event_vector == VECTOR_PF) {
        FAKE_REQUIRE(r.event_error < 0x20 && !(r.event_error & WALK_PF_U));
        now.reg[VIRT_CR2] = p->was.reg[VIRT_CR2];
    }
    FAKE_REQUIRE(memcmp(now.gpr, p->was.gpr, sizeof(now.gpr)) == 0 && now.rip == p->was.rip);
    FAKE_REQUIRE(memcmp(now.reg, p->was.reg, sizeof(now.reg)) == 0 && now.pending == p->was.pending);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        FAKE_REQUIRE(same_seg(&now.seg[i], &p->was.seg[i]));
    if (r.action == ACTION_STOP)
        return;
    FAKE_REQUIRE(r.action == ACTION_INJECT && r.event_type == EVENT_EXCEPTION && r.event_has_error);
    /* Only what overlaps may fault after the first write, as only there a write changes what was asked for.
     */
    FAKE_REQUIRE(!p->apart);
    if (p->faults) {
        FAKE_REQUIRE(p->faults & 1u << r.event_vector);
        FAKE_REQUIRE(memory_changed() == 0);
    }
}

static uint64_t saved_field(const struct plan *p, const uint8_t *bytes, unsigned field)
{
    unsigned word = p->wide_old ? 4 : 2;
    return bytes_get(bytes + field * word, field < 10 ? word : 2);
}

/* SDM volume 3, 8.3, steps 4 to 8, and table 8-2. Where the new task's segments or page tables may lie, a
 * mark in a descriptor or in an entry is allowed. */
static void check_memory(const struct plan *p)
{
    uint64_t marks = p->marks ? SEG_TYPE_ACCESSED | MEMORY_USED : 0;
    uint8_t saved[TSS32_SIZE], loaded[TSS32_SIZE], descriptor[8];
    uint64_t mask = ~(marks * 0x0101010101010101ull) & (p->wide_old ? 0xffffffff : 0xffff);
    copy(&p->old, saved);
    const struct event *event = &p->exit->vectoring;
    uint64_t rip = p->was.rip + (event->valid ? event->insn_len : p->exit->insn_len);
    uint64_t flags = p->was.reg[VIRT_RFLAGS];
    if (p->source == TASK_SWITCH_IRET)
        flags &= ~RFLAGS_NT;
    if (event->valid && event->type == EVENT_EXCEPTION && event->vector == VECTOR_UD)
        flags |= RFLAGS_RF;
    FAKE_REQUIRE(((saved_field(p, saved, 0) ^ rip) & mask) == 0);
    FAKE_REQUIRE(((saved_field(p, saved, 1) ^ flags) & mask) == 0);
    for (unsigned i = 0; i < 8; i++)
        FAKE_REQUIRE(
            ((saved_field(p, saved, 2 + i) ^ (i == RSP ? p->was.reg[VIRT_RSP] : p->was.gpr[i])) & mask) == 0);
    for (unsigned i = 0; i < (p->wide_old ? 6 : 4); i++)
        FAKE_REQUIRE(((saved_field(p, saved, 10 + i) ^ p->was.seg[i].selector) & mask & 0xffff) == 0);
    copy(&p->new_tss, loaded);
    uint16_t link = p->links ? p->was.seg[SEG_TR].selector : bytes_get16(p->new_bytes);
    FAKE_REQUIRE(((bytes_get16(loaded) ^ link) & mask & 0xffff) == 0);
    for (unsigned i = 2; i < (p->wide_new ? TSS32_SIZE : TSS16_SIZE); i++)
        FAKE_REQUIRE(((loaded[i] ^ p->new_bytes[i]) & ~marks) == 0);
    copy(&p->new_descriptor, descriptor);
    FAKE_REQUIRE(descriptor[5] & SEG_TYPE_TSS_BUSY);
    copy(&p->old_descriptor, descriptor);
    FAKE_REQUIRE(!p->ends || !(descriptor[5] & SEG_TYPE_TSS_BUSY));
}

static uint64_t loaded_field(const struct plan *p, unsigned field)
{
    unsigned word = p->wide_new ? 4 : 2;
    return bytes_get(p->new_bytes + (p->wide_new ? 32 : 14) + field * word, field < 10 ? word : 2);
}

/* The registers of the new task, as far as no error code was pushed. */
static void check_registers(const struct plan *p, struct exit_result r)
{
    struct shot now = take_shot();
    uint64_t flags = (loaded_field(p, 1) & ~RFLAGS_RESERVED) | RFLAGS_FIXED_1 | (p->links ? RFLAGS_NT : 0);
    bool vm86 = flags & RFLAGS_VM, pushed = p->exit->vectoring.has_error && r.action == ACTION_RETRY;
    FAKE_REQUIRE(now.rip == loaded_field(p, 0) && now.reg[VIRT_RIP] == now.rip);
    FAKE_REQUIRE(now.reg[VIRT_RFLAGS] == flags);
    for (unsigned i = 0; i < 8; i++) {
        FAKE_REQUIRE(now.gpr[i] == loaded_field(p, 2 + i));
        FAKE_REQUIRE(i != RSP || pushed || r.action == ACTION_INJECT || now.reg[VIRT_RSP] == now.gpr[i]);
    }
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        uint64_t selector = i < (p->wide_new ? 6u : 4u) ? loaded_field(p, 10 + i) : 0;
        FAKE_REQUIRE(now.seg[i].selector == selector);
        if (r.action == ACTION_RETRY && !vm86 && selector < 4)
            FAKE_REQUIRE(now.seg[i].access & SEG_ACCESS_UNUSABLE && i != SEG_CS && i != SEG_SS);
    }
    if (r.action == ACTION_RETRY && !vm86) {
        unsigned cpl = now.seg[SEG_CS].selector & 3;
        FAKE_REQUIRE((now.seg[SEG_SS].selector & 3) == cpl && segment_dpl(now.seg[SEG_SS].access) == cpl);
    }
    bool pages = p->wide_new && p->was.reg[VIRT_CR0] & CR0_PG, faulted = r.action == ACTION_INJECT;
    if (pages && !faulted)
        FAKE_REQUIRE(now.reg[VIRT_CR3] == bytes_get32(p->new_bytes + 28));
    if (!pages)
        FAKE_REQUIRE(now.reg[VIRT_CR3] == p->was.reg[VIRT_CR3]);
}

static void set_guest(struct vmx_check_state *state)
{
    static const struct {
        enum vmx_check_field field;
        enum virt_reg reg;
    } rows[] = {{VMX_F_GUEST_CR3, VIRT_CR3},
                {VMX_F_GUEST_DR7, VIRT_DR7},
                {VMX_F_GUEST_RFLAGS, VIRT_RFLAGS},
                {VMX_F_GUEST_RIP, VIRT_RIP},
                {VMX_F_GUEST_INTERRUPTIBILITY, VIRT_INTR_SHADOW},
                {VMX_F_GUEST_PENDING_DEBUG, VIRT_PENDING_DEBUG},
                {VMX_F_GUEST_PDPTE0, VIRT_PDPTE0},
                {VMX_F_GUEST_PDPTE1, VIRT_PDPTE1},
                {VMX_F_GUEST_PDPTE2, VIRT_PDPTE2},
                {VMX_F_GUEST_PDPTE3, VIRT_PDPTE3}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        state->value[rows[i].field] = virt_get(v, rows[i].reg);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        struct seg seg = virt_get_seg(v, (enum seg_name)i);
        state->value[VMX_F_GUEST_ES_SELECTOR + i] = seg.selector;
        state->value[VMX_F_GUEST_ES_BASE + i] = seg.base;
        state->value[VMX_F_GUEST_ES_LIMIT + i] = seg.limit;
        state->value[VMX_F_GUEST_ES_ACCESS + i] = seg.access;
    }
    state->value[VMX_F_GUEST_CR0] = virt_get(v, VIRT_CR0);
    state->value[VMX_F_GUEST_CR4] = virt_get(v, VIRT_CR4) | CR4_VMXE;
    state->value[VMX_F_GUEST_PAT] = PAT_RESET;
}

/* Would the processor enter it? All that is not the guest's state is plain and good. */
static void check_entry(void)
{
    static const struct vmx_caps_msrs msrs = {.basic = VMX_BASIC_TRUE_CONTROLS | (uint64_t)6 << 50,
                                              .misc = VMX_MISC_ACTIVITY_HLT | 4 << 16,
                                              .true_pinbased = 0xff00000016,
                                              .true_procbased = 0xfffbfffe04006172,
                                              .true_exit = 0xffffffff00036dfb,
                                              .true_entry = 0x01ffffff000011fb,
                                              .procbased2 = 0xffffffff00000000,
                                              .cr0_fixed0 = 0x80000021,
                                              .cr0_fixed1 = 0xffffffff,
                                              .cr4_fixed0 = 0x2000,
                                              .cr4_fixed1 = 0x1ff7fff,
                                              .ept_vpid = EPT_CAP_WALK_4 | EPT_CAP_WB};
    static const struct vmx_check_machine processor = {.msrs = &msrs, .physical_bits = 40, .linear_bits = 48};
    struct vmx_check_state state = {
        .value = {
            [VMX_F_PIN_CONTROLS] = 0x16 | PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS,
            [VMX_F_PROC_CONTROLS] = 0x04006172 | PROC_ACTIVATE_SECONDARY | PROC_HLT_EXITING,
            [VMX_F_PROC2_CONTROLS] = PROC2_ENABLE_EPT | PROC2_ENABLE_VPID | PROC2_UNRESTRICTED_GUEST,
            [VMX_F_EXIT_CONTROLS] = 0x36dff | EXIT_CTL_HOST_64BIT | EXIT_CTL_LOAD_PAT | EXIT_CTL_LOAD_EFER,
            [VMX_F_ENTRY_CONTROLS] = 0x11ff | ENTRY_CTL_LOAD_PAT | ENTRY_CTL_LOAD_EFER,
            [VMX_F_VPID] = 1,
            [VMX_F_EPT_POINTER] = 0x400000 | 6 | 3 << 3,
            [VMX_F_HOST_CR0] = CR0_PE | CR0_PG | CR0_NE | CR0_WP,
            [VMX_F_HOST_CR4] = CR4_PAE | CR4_VMXE,
            [VMX_F_HOST_PAT] = PAT_RESET,
            [VMX_F_HOST_EFER] = EFER_LMA | EFER_LME | EFER_NXE,
            [VMX_F_HOST_CS_SELECTOR] = 8,
            [VMX_F_HOST_TR_SELECTOR] = 0x18,
            [VMX_F_HOST_RIP] = 0xffffffff80001000,
            [VMX_F_LINK_POINTER] = VMCS_LINK_NONE}};
    struct vmx_check_finding finding = {0};
    set_guest(&state);
    if (vmx_check(&processor, &state, &finding) == STATUS_OK)
        return;
    fprintf(stderr, "the entry would fail: %s = %llx: %s\n", finding.field, (unsigned long long)finding.value,
            finding.rule);
    abort();
}

static void check_begun(const struct plan *p, struct exit_result r)
{
    static const uint32_t faults = 1u << VECTOR_DB | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS |
                                   1u << VECTOR_GP | 1u << VECTOR_PF;
    struct shot now = take_shot();
    FAKE_REQUIRE(p->faults == 0);
    FAKE_REQUIRE(now.reg[VIRT_CR0] == (p->was.reg[VIRT_CR0] | CR0_TS));
    FAKE_REQUIRE(now.reg[VIRT_DR7] == (p->was.reg[VIRT_DR7] & ~(uint64_t)0x155));
    FAKE_REQUIRE(!(now.reg[VIRT_INTR_SHADOW] & (EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS)));
    if (r.action == ACTION_INJECT) {
        FAKE_REQUIRE(r.event_type == EVENT_EXCEPTION && 1u << r.event_vector & faults);
        FAKE_REQUIRE(r.event_has_error == (r.event_vector != VECTOR_DB));
    }
    if (p->all_readable) {
        struct seg tr = p->tss;
        tr.access |= SEG_TYPE_TSS_BUSY;
        FAKE_REQUIRE(same_seg(&now.seg[SEG_TR], &tr));
    }
    if (r.action != ACTION_STOP)
        check_entry();
    if (!p->apart || r.action == ACTION_STOP)
        return;
    check_registers(p, r);
    if (!p->exit->vectoring.has_error) /* an error code may be pushed anywhere */
        check_memory(p);
}

static void step(struct fake_input *in)
{
    uint8_t changes = fake_input_u8(in) % CHANGES;
    if (changes & 1)
        choose_mode(in);
    for (unsigned i = 0; i < changes / 2; i++)
        change(in);
    struct exit exit = choose_exit(in);
    struct plan p = make_plan(&exit);
    struct fake_vcpu *f = fake_vcpu(v);
    fake_host.log_size = 0;
    memory.maps = device_accesses = f->seg_writes[SEG_TR] = 0;
    memory_remember();
    struct exit_result r = handle_task_switch(v, &exit);
    FAKE_REQUIRE(memory.maps <= MAPS_MOST && device_accesses <= DEVICE_MOST);
    FAKE_REQUIRE(r.action == ACTION_RETRY || r.action == ACTION_INJECT || r.action == ACTION_STOP);
    FAKE_REQUIRE(r.action != ACTION_STOP || (r.stop == STOP_BAD_INSTRUCTION && fake_host.log_size > 0));
    if (f->seg_writes[SEG_TR])
        check_begun(&p, r);
    else
        check_not_begun(&p, r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    init_once();
    restore();
    for (unsigned i = 0; i < STEPS && fake_input_left(&in); i++)
        step(&in);
    FAKE_REQUIRE(machine_guards_intact());
    return 0;
}
