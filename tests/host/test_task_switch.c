/* Hardware task switches, rule by rule: what is saved and loaded, what is refused before the switch, what
 * faults in the new task, and what becomes of the event that came through a task gate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86/cpu.h"
#include "hv/exits/exit_table.h"
#include "hv/exits/task_switch.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

/* Where things lie in the guest. */
#define GDT   0x3000ull
#define OLD   0x4000ull
#define NEW   0x5000ull
#define NEW16 0x6000ull
#define LDT   0x7000ull
#define STACK 0x9000u

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
       ABSENT_DATA = 0x50,
       ABSENT_CODE = 0x58,
       ABSENT_LDT = 0x60,
       READ_ONLY = 0x68,
       EXECUTE_ONLY = 0x70,
       BUSY16 = 0x78,
       BIG_TSS = 0x80,
       GDT_END = 0x88,
       LOCAL_DATA = 0x04,
};

/* Offsets in the 32-bit TSS. */
enum {
    T_LINK = 0,
    T_CR3 = 28,
    T_EIP = 32,
    T_FLAGS = 36,
    T_EAX = 40,
    T_ESP = 56,
    T_EBP = 60,
    T_EDI = 68,
    T_ES = 72,
    T_CS = 76,
    T_SS = 80,
    T_DS = 84,
    T_FS = 88,
    T_GS = 92,
    T_LDT = 96,
    T_TRAP = 100
};

static struct vcpu *v;

static void descriptor(uint64_t at, uint32_t base, uint32_t limit, uint32_t access)
{
    uint64_t raw = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(access & 0xff) << 40 |
                   (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(access >> 12 & 15) << 52 |
                   (uint64_t)(base >> 24) << 56;
    machine_write(at, &raw, sizeof(raw));
}

static void put(uint64_t tss, unsigned at, unsigned size, uint32_t value)
{
    machine_write(tss + at, &value, size);
}

static uint32_t get(uint64_t tss, unsigned at, unsigned size)
{
    uint32_t value = 0;
    memcpy(&value, machine_ram(tss + at), size);
    return value;
}

static uint8_t type_of(unsigned selector)
{
    return *machine_ram(GDT + (selector & ~7u) + 5);
}

static void put_task(uint64_t tss)
{
    put(tss, T_EIP, 4, 0x8000);
    put(tss, T_FLAGS, 4, 0x202);
    for (unsigned i = 0; i < 8; i++)
        put(tss, T_EAX + 4 * i, 4, 0xa0000000 + i);
    put(tss, T_ESP, 4, STACK);
    for (unsigned at = T_ES; at <= T_GS; at += 4)
        put(tss, at, 4, DATA);
    put(tss, T_CS, 4, CODE);
    put(tss, T_LDT, 4, 0);
    put(tss, T_CR3, 4, 0x12345000);
}

static int setup(void **state)
{
    machine_init(1);
    v = &machine.vcpus[0];
    machine_protected_mode(v);
    virt_set(v, VIRT_GDTR_BASE, GDT);
    virt_set(v, VIRT_GDTR_LIMIT, GDT_END - 1);
    descriptor(GDT + CODE, 0, 0xfffff, 0xc09a); /* not yet accessed */
    descriptor(GDT + DATA, 0, 0xfffff, 0xc092);
    descriptor(GDT + OLD_TSS, OLD, 103, 0x8b);
    descriptor(GDT + NEW_TSS, NEW, 103, 0x89);
    descriptor(GDT + TSS16, NEW16, 43, 0x81);
    descriptor(GDT + LDT_SEG, LDT, 0xff, 0x82);
    descriptor(GDT + USER_CODE, 0, 0xfffff, 0xc0fb);
    descriptor(GDT + USER_DATA, 0, 0xfffff, 0xc0f3);
    descriptor(GDT + CONFORMING, 0, 0xfffff, 0xc09f);
    descriptor(GDT + ABSENT_DATA, 0, 0xfffff, 0xc013);
    descriptor(GDT + ABSENT_CODE, 0, 0xfffff, 0xc01b);
    descriptor(GDT + ABSENT_LDT, LDT, 0xff, 0x02);
    descriptor(GDT + READ_ONLY, 0, 0xfffff, 0xc091);
    descriptor(GDT + EXECUTE_ONLY, 0, 0xfffff, 0xc099);
    descriptor(GDT + BUSY16, NEW16, 43, 0x83);
    descriptor(GDT + BIG_TSS, NEW, 0x12fff, 0x89);
    descriptor(LDT, 0x100000, 0xfff, 0x4092);
    put_task(NEW);
    struct seg tr = {.selector = OLD_TSS, .base = OLD, .limit = 103, .access = 0x8b};
    virt_set_seg(v, SEG_TR, &tr);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        struct seg seg = virt_get_seg(v, (enum seg_name)i);
        seg.selector = (uint16_t)(0x100 + 8 * i);
        virt_set_seg(v, (enum seg_name)i, &seg);
    }
    for (unsigned i = 0; i < 8; i++)
        v->gpr[i] = 0x1000 + i;
    virt_set(v, VIRT_RSP, 0x7f00);
    virt_set(v, VIRT_RFLAGS, 0x4046); /* NT */
    v->rip = 0x1234;
    fake_vcpu(v)->debug_status = 0;
    return 0;
}

static int teardown(void **state)
{
    return machine_guards_intact() ? 0 : -1;
}

static struct exit_result go(unsigned source, unsigned selector)
{
    struct exit exit = {.kind = EXIT_TASK_SWITCH, .insn_len = source == TASK_SWITCH_GATE ? 0 : 7};
    exit.u.task_switch = (struct exit_task_switch){.selector = (uint16_t)selector, .source = (uint8_t)source};
    return handle_task_switch(v, &exit);
}

/* Through a task gate, of which an event told. */
static struct exit_result gate(unsigned type, unsigned vector, int error, unsigned length)
{
    struct exit exit = {.kind = EXIT_TASK_SWITCH};
    exit.u.task_switch = (struct exit_task_switch){.selector = NEW_TSS, .source = TASK_SWITCH_GATE};
    exit.vectoring = (struct event){.valid = true,
                                    .type = (uint8_t)type,
                                    .vector = (uint8_t)vector,
                                    .has_error = error >= 0,
                                    .error = error >= 0 ? (uint32_t)error : 0,
                                    .insn_len = (uint8_t)length};
    v->events.vectoring = exit.vectoring;
    v->events.pending |= EVENTS_VECTORING;
    return handle_task_switch(v, &exit);
}

static void assert_switched(struct exit_result r)
{
    assert_int_equal(r.action, ACTION_RETRY);
    assert_int_equal(v->events.pending & EVENTS_VECTORING, 0);
}

static void assert_fault(struct exit_result r, unsigned vector, unsigned error)
{
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_type, EVENT_EXCEPTION);
    assert_int_equal(r.event_vector, vector);
    assert_true(r.event_has_error);
    assert_int_equal(r.event_error, error);
}

/* Faults of the old task: nothing has changed. */
static void assert_not_begun(void)
{
    assert_int_equal(virt_get_seg(v, SEG_TR).selector, OLD_TSS);
    assert_int_equal(type_of(OLD_TSS), 0x8b);
    assert_int_equal(get(OLD, T_EIP, 4), 0);
    assert_int_equal(v->gpr[RCX], 0x1001);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x4046);
}

/* Faults of the new one: all of it but the segments is there. */
static void assert_begun(void)
{
    assert_int_equal(virt_get_seg(v, SEG_TR).selector, NEW_TSS);
    assert_int_equal(virt_get(v, VIRT_RIP), 0x8000);
    assert_int_equal(v->gpr[RCX], 0xa0000001);
    assert_true(virt_get(v, VIRT_CR0) & CR0_TS);
}

static void test_call(void **state)
{
    virt_set(v, VIRT_DR7, 0x7ff);
    assert_switched(go(TASK_SWITCH_CALL, NEW_TSS));
    /* the old task is saved, and goes on after the CALL */
    assert_int_equal(get(OLD, T_EIP, 4), 0x1234 + 7);
    assert_int_equal(get(OLD, T_FLAGS, 4), 0x4046);
    assert_int_equal(get(OLD, T_EAX, 4), 0x1000);
    assert_int_equal(get(OLD, T_ESP, 4), 0x7f00);
    assert_int_equal(get(OLD, T_EBP, 4), 0x1005);
    assert_int_equal(get(OLD, T_EDI, 4), 0x1007);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(get(OLD, T_ES + 4 * i, 2), 0x100 + 8 * i);
    assert_int_equal(get(OLD, T_CR3, 4), 0); /* not saved */
    assert_int_equal(get(OLD, T_LDT, 4), 0);
    /* nested: both busy, with a link and NT */
    assert_int_equal(type_of(OLD_TSS), 0x8b);
    assert_int_equal(type_of(NEW_TSS), 0x8b);
    assert_int_equal(get(NEW, T_LINK, 2), OLD_TSS);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x4202);
    /* the new one is loaded */
    assert_int_equal(virt_get(v, VIRT_RIP), 0x8000);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(v->gpr[i], i == RSP ? STACK : 0xa0000000 + i);
    struct seg cs = virt_get_seg(v, SEG_CS), ss = virt_get_seg(v, SEG_SS), tr = virt_get_seg(v, SEG_TR);
    assert_int_equal(cs.selector, CODE);
    assert_int_equal(cs.access, 0xc09b);
    assert_int_equal(cs.limit, UINT32_MAX);
    assert_int_equal(ss.selector, DATA);
    assert_int_equal(ss.access, 0xc093);
    assert_int_equal(tr.selector, NEW_TSS);
    assert_int_equal(tr.base, NEW);
    assert_int_equal(tr.limit, 103);
    assert_int_equal(tr.access, 0x8b);
    assert_int_equal(virt_get_seg(v, SEG_LDTR).access, SEG_ACCESS_UNUSABLE);
    assert_int_equal(type_of(CODE), 0x9b); /* accessed */
    assert_true(virt_get(v, VIRT_CR0) & CR0_TS);
    assert_int_equal(virt_get(v, VIRT_DR7), 0x7ff & ~0x155);
}

static void test_jump_and_return(void **state)
{
    put(NEW, T_LINK, 2, 0x7777);
    assert_switched(go(TASK_SWITCH_JMP, NEW_TSS));
    assert_int_equal(type_of(OLD_TSS), 0x89);
    assert_int_equal(type_of(NEW_TSS), 0x8b);
    assert_int_equal(get(NEW, T_LINK, 2), 0x7777);
    assert_int_equal(get(OLD, T_FLAGS, 4), 0x4046);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x202);
    /* and back, as by IRET: the one that returns is free, and its saved NT is 0 */
    virt_set(v, VIRT_RFLAGS, 0x4246);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_NMI | EVENTS_SHADOW_STI);
    descriptor(GDT + OLD_TSS, OLD, 103, 0x8b);
    v->rip = 0x8005;
    struct exit exit = {.kind = EXIT_TASK_SWITCH, .insn_len = 1};
    exit.u.task_switch = (struct exit_task_switch){.selector = OLD_TSS, .source = TASK_SWITCH_IRET};
    put(OLD, T_CS, 4, CODE);
    for (unsigned at = T_ES; at <= T_GS; at += 4)
        put(OLD, at, 4, at == T_CS ? CODE : DATA);
    assert_switched(handle_task_switch(v, &exit));
    assert_int_equal(type_of(NEW_TSS), 0x89);
    assert_int_equal(type_of(OLD_TSS), 0x8b);
    assert_int_equal(get(NEW, T_EIP, 4), 0x8006);
    assert_int_equal(get(NEW, T_FLAGS, 4), 0x246);
    assert_int_equal(virt_get(v, VIRT_RIP), 0x1234 + 7);
    assert_int_equal(virt_get(v, VIRT_RSP), 0x7f00);
    assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), 0);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x4046);
}

/* SDM table 8-1, as far as the fault is the old task's. */
static void test_refused(void **state)
{
    assert_fault(go(TASK_SWITCH_CALL, 0), VECTOR_GP, 0);
    assert_fault(go(TASK_SWITCH_IRET, 3), VECTOR_TS, 0);
    assert_fault(go(TASK_SWITCH_JMP, NEW_TSS | 4), VECTOR_GP, NEW_TSS | 4); /* in the LDT */
    assert_fault(go(TASK_SWITCH_CALL, GDT_END), VECTOR_GP, GDT_END);
    assert_fault(go(TASK_SWITCH_IRET, GDT_END | 3), VECTOR_TS, GDT_END);
    assert_fault(go(TASK_SWITCH_CALL, DATA), VECTOR_GP, DATA);
    assert_fault(go(TASK_SWITCH_JMP, OLD_TSS), VECTOR_GP, OLD_TSS);  /* busy */
    assert_fault(go(TASK_SWITCH_IRET, NEW_TSS), VECTOR_TS, NEW_TSS); /* not busy */
    descriptor(GDT + NEW_TSS, NEW, 103, 0x09);
    assert_fault(go(TASK_SWITCH_CALL, NEW_TSS), VECTOR_NP, NEW_TSS);
    descriptor(GDT + NEW_TSS, NEW, 102, 0x89);
    assert_fault(go(TASK_SWITCH_CALL, NEW_TSS), VECTOR_TS, NEW_TSS);
    assert_fault(gate(EVENT_EXTERNAL_INTERRUPT, 0x40, -1, 0), VECTOR_TS, NEW_TSS | 1);
    assert_fault(gate(EVENT_SOFT_INTERRUPT, 0x40, -1, 2), VECTOR_TS, NEW_TSS);
    assert_fault(gate(EVENT_PRIV_SOFT_EXCEPTION, 1, -1, 1), VECTOR_TS, NEW_TSS | 1);
    assert_true(v->events.pending & EVENTS_VECTORING);
    descriptor(GDT + TSS16, NEW16, 42, 0x81);
    assert_fault(go(TASK_SWITCH_JMP, TSS16), VECTOR_TS, TSS16);
    descriptor(GDT + NEW_TSS, NEW, 103, 0x89);
    struct seg small = {.selector = OLD_TSS, .base = OLD, .limit = 102, .access = 0x8b};
    virt_set_seg(v, SEG_TR, &small);
    assert_fault(go(TASK_SWITCH_JMP, NEW_TSS), VECTOR_TS, OLD_TSS);
    assert_not_begun();
    assert_int_equal(type_of(NEW_TSS), 0x89);
}

/* The switch touches what cannot be written: a page fault of the old task, and nothing was done. */
static void test_page_faults(void **state)
{
    static const uint64_t pages[] = {OLD, NEW, GDT};
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        setup(NULL);
        uint32_t pde = 0xb003; /* 32-bit paging: the first 4 MiB onto themselves */
        machine_write(0xa000, &pde, 4);
        for (uint32_t n = 0; n < 1024; n++) {
            uint32_t pte = n << 12 | (n == pages[i] >> 12 ? 1 : 3);
            machine_write(0xb000 + 4 * n, &pte, 4);
        }
        virt_set(v, VIRT_CR0, CR0_PE | CR0_ET | CR0_NE | CR0_PG | CR0_WP);
        virt_set(v, VIRT_CR3, 0xa000);
        unsigned error = 3;
        struct exit_result r = go(TASK_SWITCH_CALL, NEW_TSS);
        assert_fault(r, VECTOR_PF, error);
        assert_int_equal(virt_get(v, VIRT_CR2) & ~0xfffull, pages[i]);
        assert_not_begun();
    }
}

struct bad_segment {
    unsigned at, selector, vector, error;
};

/* The new task's segments: faults in its context. */
static void test_segments(void **state)
{
    static const struct bad_segment rows[] = {
        {T_LDT, DATA, VECTOR_TS, DATA},
        {T_LDT, LDT_SEG | 4, VECTOR_TS, LDT_SEG | 4},
        {T_LDT, ABSENT_LDT, VECTOR_TS, ABSENT_LDT},
        {T_LDT, GDT_END, VECTOR_TS, GDT_END},
        {T_CS, 0, VECTOR_TS, 0},
        {T_CS, DATA, VECTOR_TS, DATA},
        {T_CS, CODE | 3, VECTOR_TS, CODE}, /* DPL is not RPL */
        {T_CS, USER_CODE, VECTOR_TS, USER_CODE},
        {T_CS, ABSENT_CODE, VECTOR_NP, ABSENT_CODE},
        {T_CS, NEW_TSS, VECTOR_TS, NEW_TSS},
        {T_CS, LOCAL_DATA, VECTOR_TS, LOCAL_DATA}, /* no LDT */
        {T_SS, 0, VECTOR_TS, 0},
        {T_SS, CODE, VECTOR_TS, CODE},
        {T_SS, READ_ONLY, VECTOR_TS, READ_ONLY},
        {T_SS, USER_DATA, VECTOR_TS, USER_DATA},
        {T_SS, DATA | 1, VECTOR_TS, DATA},
        {T_SS, ABSENT_DATA, VECTOR_SS, ABSENT_DATA},
        {T_DS, EXECUTE_ONLY, VECTOR_TS, EXECUTE_ONLY},
        {T_ES, DATA | 3, VECTOR_TS, DATA},
        {T_FS, ABSENT_DATA, VECTOR_NP, ABSENT_DATA},
        {T_GS, GDT_END, VECTOR_TS, GDT_END},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        setup(NULL);
        put(NEW, rows[i].at, 4, rows[i].selector);
        assert_fault(go(TASK_SWITCH_JMP, NEW_TSS), rows[i].vector, rows[i].error);
        assert_begun();
        /* what was not reached is there by name only */
        assert_int_equal(virt_get_seg(v, SEG_CS).selector, get(NEW, T_CS, 2));
        assert_int_equal(virt_get_seg(v, SEG_GS).selector, get(NEW, T_GS, 2));
        if (rows[i].at != T_LDT)
            continue;
        assert_int_equal(virt_get_seg(v, SEG_DS).access, SEG_ACCESS_UNUSABLE);
        assert_int_equal(virt_get_seg(v, SEG_CS).access, 0x9b); /* an entry must be possible */
    }
}

static void test_good_segments(void **state)
{
    put(NEW, T_LDT, 4, LDT_SEG);
    put(NEW, T_DS, 4, LOCAL_DATA);
    put(NEW, T_ES, 4, 0);
    put(NEW, T_FS, 4, CONFORMING | 3); /* conforming: no privilege counts */
    put(NEW, T_CS, 4, USER_CODE | 3);
    put(NEW, T_SS, 4, USER_DATA | 3);
    put(NEW, T_GS, 4, USER_DATA);
    descriptor(LDT, 0x100000, 0xfff, 0x40f2);
    assert_switched(go(TASK_SWITCH_CALL, NEW_TSS));
    struct seg ds = virt_get_seg(v, SEG_DS), ldtr = virt_get_seg(v, SEG_LDTR);
    assert_int_equal(ds.base, 0x100000);
    assert_int_equal(ds.limit, 0xfff);
    assert_int_equal(ds.access, 0x40f3);
    assert_int_equal(*machine_ram(LDT + 5), 0xf3);
    assert_int_equal(ldtr.base, LDT);
    assert_int_equal(ldtr.access, 0x82);
    assert_int_equal(virt_get_seg(v, SEG_ES).access, SEG_ACCESS_UNUSABLE);
    assert_int_equal(virt_get_seg(v, SEG_CS).selector, USER_CODE | 3);
    assert_int_equal(virt_get_seg(v, SEG_FS).access, 0xc09f);
}

static void test_16_bits(void **state)
{
    static const uint16_t fields[] = {0x8000, 0x246, 1, 2, 3, 4, 0x500, 6, 7, 8, DATA, CODE, DATA, DATA, 0};
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
        put(NEW16, 14 + 2 * i, 2, fields[i]);
    assert_switched(go(TASK_SWITCH_CALL, TSS16));
    assert_int_equal(virt_get(v, VIRT_RIP), 0x8000);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x4246);
    assert_int_equal(v->gpr[RDX], 3);
    assert_int_equal(virt_get(v, VIRT_RSP), 0x500);
    assert_int_equal(virt_get_seg(v, SEG_DS).selector, DATA);
    assert_int_equal(virt_get_seg(v, SEG_GS).access, SEG_ACCESS_UNUSABLE);
    assert_int_equal(type_of(TSS16), 0x83);
    assert_int_equal(get(NEW16, 0, 2), OLD_TSS);
    /* and out of it: 16 bits of everything are saved */
    v->gpr[RAX] = 0x12345678;
    v->rip = 0x8123;
    assert_switched(go(TASK_SWITCH_JMP, NEW_TSS));
    assert_int_equal(get(NEW16, 14, 2), 0x8123 + 7);
    assert_int_equal(get(NEW16, 18, 2), 0x5678);
    assert_int_equal(get(NEW16, 20, 2), 2);
    assert_int_equal(get(NEW16, 36, 2), CODE);
    assert_int_equal(get(NEW16, 42, 2), 0);
    assert_int_equal(type_of(TSS16), 0x81);
}

static void test_events(void **state)
{
    /* an error code, on the new stack; a fault repeats its instruction, with RF */
    assert_switched(gate(EVENT_EXCEPTION, VECTOR_GP, 0x1234, 0));
    assert_int_equal(virt_get(v, VIRT_RSP), STACK - 4);
    assert_int_equal(get(STACK - 4, 0, 4), 0x1234);
    assert_int_equal(get(OLD, T_EIP, 4), 0x1234);
    assert_int_equal(get(OLD, T_FLAGS, 4), 0x14046);
    assert_int_equal(get(NEW, T_LINK, 2), OLD_TSS);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x4202);
    setup(NULL);
    assert_switched(gate(EVENT_SOFT_INTERRUPT, 0x80, -1, 2));
    assert_int_equal(get(OLD, T_EIP, 4), 0x1236);
    assert_int_equal(get(OLD, T_FLAGS, 4), 0x4046);
    assert_int_equal(virt_get(v, VIRT_RSP), STACK);
    setup(NULL);
    assert_switched(gate(EVENT_EXTERNAL_INTERRUPT, 0x40, -1, 0));
    assert_int_equal(get(OLD, T_EIP, 4), 0x1234);
    assert_int_equal(get(OLD, T_FLAGS, 4), 0x4046);
    setup(NULL);
    assert_switched(gate(EVENT_NMI, VECTOR_NMI, -1, 0));
    assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), EVENTS_SHADOW_NMI);
    setup(NULL); /* a 16-bit stack and a 16-bit TSS's neighbours stay */
    descriptor(GDT + DATA, 0, 0xffff, 0x93);
    put(NEW, T_ESP, 4, 0x10000);
    assert_switched(gate(EVENT_EXCEPTION, VECTOR_TS, 0x55, 0)); /* wraps below 0 */
    assert_int_equal(virt_get(v, VIRT_RSP), 0x1fffc);
}

/* Faults while an event is delivered: exceptions may become double faults, interrupts have arrived. */
static void test_events_that_fault(void **state)
{
    put(NEW, T_SS, 4, ABSENT_DATA);
    assert_fault(gate(EVENT_EXCEPTION, VECTOR_GP, 0, 0), VECTOR_SS, ABSENT_DATA | 1);
    assert_true(v->events.pending & EVENTS_VECTORING);
    assert_begun();
    setup(NULL);
    put(NEW, T_SS, 4, ABSENT_DATA);
    assert_fault(gate(EVENT_EXTERNAL_INTERRUPT, 0x40, -1, 0), VECTOR_SS, ABSENT_DATA | 1);
    assert_false(v->events.pending & EVENTS_VECTORING);
    setup(NULL); /* the error code does not fit on the stack */
    descriptor(GDT + DATA, 0, 0xfff, 0x4093);
    assert_fault(gate(EVENT_EXCEPTION, VECTOR_GP, 0, 0), VECTOR_SS, 0);
    assert_begun();
}

static void test_debug_trap(void **state)
{
    put(NEW, T_TRAP, 2, 1);
    struct exit_result r = go(TASK_SWITCH_CALL, NEW_TSS);
    assert_int_equal(r.action, ACTION_INJECT);
    assert_int_equal(r.event_vector, VECTOR_DB);
    assert_false(r.event_has_error);
    assert_int_equal(fake_vcpu(v)->debug_status, DR6_BT);
    assert_begun();
}

static void test_virtual_8086(void **state)
{
    put(NEW, T_FLAGS, 4, 0x23202);
    put(NEW, T_CS, 4, 0x1234);
    put(NEW, T_SS, 4, 0x2000);
    assert_switched(go(TASK_SWITCH_CALL, NEW_TSS));
    struct seg cs = virt_get_seg(v, SEG_CS);
    assert_int_equal(cs.base, 0x12340);
    assert_int_equal(cs.limit, 0xffff);
    assert_int_equal(cs.access, 0xf3);
    assert_int_equal(virt_get_seg(v, SEG_SS).selector, 0x2000);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x27202);
    setup(NULL); /* an LDT that cannot be loaded: its fault comes in virtual-8086 mode, which is all there */
    put(NEW, T_FLAGS, 4, 0x23202);
    put(NEW, T_CS, 4, 0x1234);
    put(NEW, T_LDT, 4, ABSENT_LDT);
    assert_fault(go(TASK_SWITCH_CALL, NEW_TSS), VECTOR_TS, ABSENT_LDT);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 0x27202);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        struct seg seg = virt_get_seg(v, (enum seg_name)i);
        assert_int_equal(seg.base, (uint64_t)seg.selector << 4);
        assert_int_equal(seg.limit, 0xffff);
        assert_int_equal(seg.access, 0xf3);
    }
    setup(NULL);
    put(NEW, T_FLAGS, 4, 0x23202);
    put(NEW, T_CS, 4, 0x1234);
    assert_switched(go(TASK_SWITCH_CALL, NEW_TSS));
    /* back, through a gate: the selectors of virtual-8086 mode are saved as they are */
    put_task(OLD);
    v->rip = 0x100;
    virt_set(v, VIRT_RFLAGS, 0x23202);
    struct exit exit = {.kind = EXIT_TASK_SWITCH, .insn_len = 2};
    exit.u.task_switch = (struct exit_task_switch){.selector = OLD_TSS, .source = TASK_SWITCH_IRET};
    assert_switched(handle_task_switch(v, &exit));
    assert_int_equal(get(NEW, T_CS, 2), 0x1234);
    assert_int_equal(virt_get_seg(v, SEG_CS).access, 0xc09b);
}

static void test_page_tables(void **state)
{
    virt_set(v, VIRT_CR3, 0x11000);
    assert_switched(go(TASK_SWITCH_JMP, NEW_TSS)); /* without paging CR3 stays */
    assert_int_equal(virt_get(v, VIRT_CR3), 0x11000);
    assert_int_equal(fake_vcpu(v)->linear_flushes, 0);
    setup(NULL);
    /* 32-bit paging: both directories map the first 4 MiB onto themselves */
    uint32_t entry = 0x83;
    machine_write(0xa000, &entry, 4);
    machine_write(0xb000, &entry, 4);
    virt_set(v, VIRT_CR0, CR0_PE | CR0_ET | CR0_NE | CR0_PG);
    virt_set(v, VIRT_CR4, CR4_PSE);
    virt_set(v, VIRT_CR3, 0xa000);
    put(NEW, T_CR3, 4, 0xb000);
    assert_switched(go(TASK_SWITCH_JMP, NEW_TSS));
    assert_int_equal(virt_get(v, VIRT_CR3), 0xb000);
    assert_int_equal(fake_vcpu(v)->linear_flushes, 1);
    assert_true(*machine_ram(0xb000) & 0x20); /* the new segments were read through the new tables */
}

/* PAE: entries with reserved bits cannot be loaded. */
static void test_bad_page_tables(void **state)
{
    uint64_t pdpte = 0xb000 | 1, pde = 0x83, bad = 0x1e7;
    machine_write(0xa000, &pdpte, 8);
    machine_write(0xb000, &pde, 8);
    machine_write(0xc000, &bad, 8);
    virt_set(v, VIRT_CR0, CR0_PE | CR0_ET | CR0_NE | CR0_PG);
    virt_set(v, VIRT_CR4, CR4_PAE);
    virt_set(v, VIRT_CR3, 0xa000);
    virt_set(v, VIRT_PDPTE0, pdpte);
    put(NEW, T_CR3, 4, 0xc000);
    assert_fault(go(TASK_SWITCH_JMP, NEW_TSS), VECTOR_GP, 0);
    assert_begun();
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_call),
        T(test_jump_and_return),
        T(test_refused),
        T(test_page_faults),
        T(test_segments),
        T(test_good_segments),
        T(test_16_bits),
        T(test_events),
        T(test_events_that_fault),
        T(test_debug_trap),
        T(test_virtual_8086),
        T(test_page_tables),
        T(test_bad_page_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
