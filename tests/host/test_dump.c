/* Dumps: what the core prints of a VM is what the reader finds in a transcript, and damage is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "hv/console/lines.h"
#include "tests/host/dump_reader.h"
#include "tests/host/run_path.h"

#define POOL_PAGES 64u
#define TEXT_SIZE  (1u << 20)

static uint8_t pool_memory[POOL_PAGES * PAGE_SIZE] __attribute__((aligned(4096)));
static char text[TEXT_SIZE];
static size_t text_size;
static struct dump dump;
static char why[400];

static int setup(void **state)
{
    run_path_init(2);
    assert_int_equal(pool_init(&core.pool, pool_memory, hpa(0), sizeof(pool_memory), 0), STATUS_OK);
    text_size = 0;
    return 0;
}

static void add_text(const char *before, const char *line)
{
    text_size += (size_t)snprintf(text + text_size, TEXT_SIZE - text_size, "%s%s\r\n", before, line);
}

/* All lines that come without anything happening; true: the dump is over. */
static bool collect(struct lines *lines, unsigned most)
{
    char line[LINES_MAX];
    for (unsigned i = 0; i < most; i++) {
        if (!dump_next(lines, line, sizeof(line)))
            return true;
        assert_true(strlen(line) < sizeof(line) - 1);
        if (line[0])
            add_text("", line);
    }
    return false;
}

static void make_dump(void)
{
    struct lines lines = {.vm = &machine.vm};
    text_size = 0;
    assert_true(collect(&lines, 100000));
}

static enum dump_found look(void)
{
    size_t at = 0;
    return dump_read(text, text_size, &at, NULL, &dump, why, sizeof(why));
}

static void record(struct vcpu *vcpu, unsigned count, uint64_t first)
{
    for (unsigned i = 0; i < count; i++) {
        struct recorder_entry *e = vcpu->recorder.next;
        recorder_take(&vcpu->recorder, e);
        *e = (struct recorder_entry){.tsc = first + i, .rax = i, .rcx = UINT64_MAX, .rdx = 3, .rbx = 4};
        e->raw = (struct vmx_raw){.reason = VMX_REASON_EPT_VIOLATION,
                                  .insn_len = 2,
                                  .idt_info = i % 2 ? 0x80000b0e : 0,
                                  .idt_error = i % 2 ? 7 : 0,
                                  .qualification = 0x182,
                                  .gpa = 0xfee00000,
                                  .gla = UINT64_MAX - i,
                                  .rip = UINT64_MAX};
        e->result = exit_inject_error(VECTOR_GP, i);
    }
}

static void assert_entry(const struct dump_exit *x, const struct recorder_entry *e)
{
    assert_int_equal(x->entry.tsc, e->tsc);
    assert_int_equal(x->entry.rax, e->rax);
    assert_int_equal(x->entry.rcx, e->rcx);
    assert_int_equal(x->entry.rdx, e->rdx);
    assert_int_equal(x->entry.rbx, e->rbx);
    assert_memory_equal(&x->entry.result, &e->result, sizeof(e->result));
    assert_int_equal(x->entry.raw.reason, e->raw.reason);
    assert_int_equal(x->entry.raw.qualification, e->raw.qualification);
    assert_int_equal(x->entry.raw.gpa, e->raw.gpa);
    assert_int_equal(x->entry.raw.gla, e->raw.gla);
    assert_int_equal(x->entry.raw.rip, e->raw.rip);
    assert_int_equal(x->entry.raw.idt_info, e->raw.idt_info);
    assert_int_equal(x->entry.raw.idt_error, e->raw.idt_error);
}

static void test_never_run(void **state)
{
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_string_equal(dump.vm, "test");
    assert_string_equal(dump.state, "running");
    assert_int_equal(dump.khz, FAKE_TSC_HZ / 1000);
    assert_int_equal(dump.vcpu_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(dump.vcpus[i].count, 0);
        assert_false(dump.vcpus[i].has_snapshot);
        assert_string_equal(dump.vcpus[i].why_not, "it has not run yet");
    }
}

static void test_exits(void **state)
{
    uint64_t before = pool_pages_free(&core.pool);
    record(VCPU(0), 5000, 1000);
    record(VCPU(1), 3, 7);
    VCPU(1)->recorder.first[1].raw = (struct vmx_raw){.reason = VMX_REASON_CPUID, .insn_len = 2, .gpa = 5};
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_int_equal(dump.vcpus[0].exits, 5000);
    assert_int_equal(dump.vcpus[0].count, RECORDER_KEEPS);
    for (unsigned i = 0; i < RECORDER_KEEPS; i++) {
        const struct dump_exit *x = &dump.vcpus[0].kept[i];
        assert_int_equal(x->number, 5000 - RECORDER_KEEPS + i);
        assert_string_equal(x->kind, "EPT violation");
        assert_entry(x, recorder_at(&VCPU(0)->recorder, RECORDER_KEEPS - 1 - i));
    }
    assert_int_equal(dump.vcpus[1].count, 3);
    assert_string_equal(dump.vcpus[1].kept[1].kind, "CPUID");
    assert_int_equal(dump.vcpus[1].kept[1].entry.raw.insn_len, 2);
    assert_int_equal(dump.vcpus[1].kept[1].entry.raw.gpa, 0); /* not read at a CPUID */
    assert_int_equal(pool_pages_free(&core.pool), before);
}

/* The copy is made in slices, between which the vCPU goes on: the newest exits are kept. */
static void test_overtaken_while_copied(void **state)
{
    struct lines lines = {.vm = &machine.vm};
    record(VCPU(0), RECORDER_KEEPS, 1000);
    text_size = 0;
    assert_false(collect(&lines, 5)); /* begun, asked, waited, and two slices */
    assert_null(strstr(text, "vcpu 0"));
    record(VCPU(0), 300, 5000);
    assert_true(collect(&lines, 100000));
    assert_int_equal(look(), DUMP_WHOLE);
    assert_int_equal(dump.vcpus[0].exits, RECORDER_KEEPS);
    assert_in_range(dump.vcpus[0].count, RECORDER_KEEPS - 301, RECORDER_KEEPS - 300);
    assert_int_equal(dump.vcpus[0].kept[dump.vcpus[0].count - 1].entry.tsc, 1000 + RECORDER_KEEPS - 1);
    assert_int_equal(dump.vcpus[0].kept[0].entry.tsc, 1000 + RECORDER_KEEPS - dump.vcpus[0].count);
}

/* "It has not run yet" is said only of a vCPU that has not. */
static void test_without_snapshot(void **state)
{
    record(VCPU(0), 3, 1000);
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_string_equal(dump.vcpus[0].why_not, "it was just starting or stopping");
    assert_string_equal(dump.vcpus[1].why_not, "it has not run yet");
}

static void test_no_memory_for_exits(void **state)
{
    memset(&core.pool, 0, sizeof(core.pool));
    record(VCPU(0), 10, 1000);
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_int_equal(dump.vcpus[0].exits, 10);
    assert_int_equal(dump.vcpus[0].count, 0);
}

/* ---- registers ---- */

static void fill(struct vcpu *v)
{
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0x1111111111111111ull * i;
    for (unsigned i = 0; i < VIRT_REG_COUNT; i++)
        if (i != VIRT_RIP && i != VIRT_CR0 && i != VIRT_CR3 && i != VIRT_CR4 && i != VIRT_EFER)
            virt_set(v, (enum virt_reg)i, UINT64_MAX - i);
    virt_set(v, VIRT_RIP, 0x1003);
    machine_write(0x1003, "\x0f\xa2\x90\xf4", 4);
    v->rip = 0x2000;
    v->lapic.irr[7] = 0x80000001;
    v->lapic.isr[1] = 0x2;
    v->lapic.tpr = 0x20;
}

static void assert_filled(struct vcpu *v, const struct vcpu_snapshot *s)
{
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(s->gpr[i], i == RSP ? UINT64_MAX - VIRT_RSP : v->gpr[i]);
    for (unsigned i = 0; i < VIRT_REG_COUNT; i++)
        assert_int_equal(s->reg[i], virt_get(v, (enum virt_reg)i));
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        struct seg seg = virt_get_seg(v, (enum seg_name)i);
        assert_int_equal(s->seg[i].selector, seg.selector);
        assert_int_equal(s->seg[i].base, seg.base);
        assert_int_equal(s->seg[i].limit, seg.limit);
        assert_int_equal(s->seg[i].access, seg.access);
    }
    assert_int_equal(s->code_size, DUMP_CODE);
    assert_memory_equal(s->code, "\x0f\xa2\x90\xf4\0\0\0\0\0\0\0\0\0\0\0\0", DUMP_CODE);
    assert_int_equal(s->apic_base, v->lapic.base_msr);
    assert_int_equal(s->apic_tpr, 0x20);
    assert_int_equal(s->apic_svr, v->lapic.svr);
    assert_memory_equal(s->apic_irr, v->lapic.irr, sizeof(s->apic_irr));
    assert_memory_equal(s->apic_isr, v->lapic.isr, sizeof(s->apic_isr));
}

/* A vCPU that has left the loop leaves its registers behind. */
static void test_registers_of_a_stopped_vcpu(void **state)
{
    fill(VCPU(1));
    fake_host.tsc = 0x123456789;
    dump_take_snapshot(VCPU(1));
    assert_int_equal(VCPU(1)->rip, 0x2000); /* that of the exit: the report's */
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_false(dump.vcpus[0].has_snapshot);
    assert_true(dump.vcpus[1].has_snapshot);
    assert_int_equal(dump.vcpus[1].snapshot.tsc, 0x123456789);
    assert_filled(VCPU(1), &dump.vcpus[1].snapshot);
    setup(NULL);
    virt_set(VCPU(1), VIRT_RIP, 0xffff000000000000ull);
    dump_take_snapshot(VCPU(1));
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_int_equal(dump.vcpus[1].snapshot.code_size, 0);
}

/* A running vCPU's registers come from its own CPU, and nobody else waits. */
static void test_asks_the_vcpus_cpu(void **state)
{
    struct lines lines = {.vm = &machine.vm};
    stats_enter_loop(&VCPU(1)->times, 1);
    fake_host.tsc_step = 1;
    assert_false(collect(&lines, 2000));
    assert_true(text_size > 0);
    assert_true(VCPU(1)->requests & VCPU_REQ_SNAPSHOT);
    assert_int_equal(fake_host.kicks, 1);
    assert_ptr_equal(fake_host.kicked[0], VCPU(1)->cpu);
    size_t waiting = text_size;
    assert_false(collect(&lines, 10));
    assert_int_equal(text_size, waiting); /* empty lines: not yet */

    fill(VCPU(1));
    fake_host.cpu = VCPU(1)->cpu;
    run_path_enter(VCPU(1)); /* between two entries it answers */
    assert_false(VCPU(1)->requests & VCPU_REQ_SNAPSHOT);
    fake_host.cpu = VCPU(0)->cpu;
    assert_true(collect(&lines, 2000));
    assert_int_equal(look(), DUMP_WHOLE);
    assert_true(dump.vcpus[1].has_snapshot);
    assert_int_equal(dump.vcpus[1].snapshot.gpr[R15], 0xffffffffffffffffull);
}

static void test_own_cpu_answers_at_once(void **state)
{
    stats_enter_loop(&VCPU(0)->times, 1);
    fill(VCPU(0));
    make_dump();
    assert_int_equal(fake_host.kicks, 0);
    assert_int_equal(look(), DUMP_WHOLE);
    assert_true(dump.vcpus[0].has_snapshot);
    assert_filled(VCPU(0), &dump.vcpus[0].snapshot);
}

static void test_no_answer(void **state)
{
    struct lines lines = {.vm = &machine.vm};
    fill(VCPU(1));
    dump_take_snapshot(VCPU(1)); /* an old one does not count */
    record(VCPU(1), 1, 5);
    stats_enter_loop(&VCPU(1)->times, 1);
    assert_false(collect(&lines, 2000));
    fake_host.tsc += FAKE_TSC_HZ / 1000 * 99;
    assert_false(collect(&lines, 10));
    fake_host.tsc += FAKE_TSC_HZ / 1000 * 2;
    assert_true(collect(&lines, 2000));
    assert_int_equal(look(), DUMP_WHOLE);
    assert_false(dump.vcpus[1].has_snapshot);
    assert_string_equal(dump.vcpus[1].why_not, "its CPU did not answer in time");
    assert_int_equal(dump.vcpus[1].count, 1); /* its exits are there all the same */
}

/* A snapshot that is being written is not read. */
static void test_torn_snapshot(void **state)
{
    dump_take_snapshot(VCPU(0));
    VCPU(0)->snapshot.taken++;
    make_dump();
    assert_int_equal(look(), DUMP_WHOLE);
    assert_false(dump.vcpus[0].has_snapshot);
}

/* ---- time passes ---- */

static void test_the_vcpu_goes_on_meanwhile(void **state)
{
    struct lines lines = {.vm = &machine.vm};
    record(VCPU(0), 100, 1000);
    assert_false(collect(&lines, 50));
    record(VCPU(0), 3000, 9000);
    assert_true(collect(&lines, 2000));
    assert_int_equal(look(), DUMP_WHOLE);
    assert_int_equal(dump.vcpus[0].count, 100);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(dump.vcpus[0].kept[i].entry.tsc, 1000 + i);
}

static void test_one_at_a_time(void **state)
{
    uint64_t before = pool_pages_free(&core.pool);
    struct lines first = {.vm = &machine.vm}, second = {.vm = &machine.vm};
    record(VCPU(0), 10, 1000);
    assert_false(collect(&first, 8));
    size_t size = text_size;
    assert_false(collect(&second, 50));
    assert_int_equal(text_size, size); /* "nothing yet" */
    assert_true(collect(&first, 2000));
    text_size = 0;
    assert_true(collect(&second, 2000));
    assert_int_equal(look(), DUMP_WHOLE);

    struct lines given_up = {.vm = &machine.vm}, third = {.vm = &machine.vm};
    assert_false(collect(&given_up, 8));
    fake_host.tsc += FAKE_TSC_HZ / 1000 * DUMP_ABANDONED_MS;
    text_size = 0;
    assert_false(collect(&third, 8));
    assert_true(collect(&given_up, 1));
    assert_true(collect(&third, 2000));
    assert_int_equal(look(), DUMP_WHOLE);
    assert_int_equal(pool_pages_free(&core.pool), before);
}

/* ---- transcripts ---- */

/* The transcript with something put before each line, and other lines between. */
static void test_among_other_lines(void **state)
{
    static char copy[TEXT_SIZE];
    record(VCPU(0), 20, 1000);
    dump_take_snapshot(VCPU(1));
    make_dump();
    memcpy(copy, text, text_size);
    copy[text_size] = 0;
    text_size = 0;
    add_text("", "[    0.000000] Linux version 6.1");
    add_text("", "=dump other 0: bulkhead-dump 1 vcpus 1 tsc 1 khz 1 state running");
    for (char *line = strtok(copy, "\r\n"); line; line = strtok(NULL, "\r\n")) {
        add_text("[   12.345678] test/0: ERROR: ", line);
        add_text("", "guest# =dump");
        add_text("", "=dump test nonsense");
        add_text("", "=dump other 1: vcpu 0 cpu 0 exits 0 kept 0");
    }
    size_t at = 0;
    assert_int_equal(dump_read(text, text_size, &at, "test", &dump, why, sizeof(why)), DUMP_WHOLE);
    assert_int_equal(dump.vcpus[0].count, 20);
    assert_true(dump.vcpus[1].has_snapshot);
    assert_int_equal(dump_read(text, text_size, &at, "test", &dump, why, sizeof(why)), DUMP_NONE);
    at = 0;
    assert_int_equal(dump_read(text, text_size, &at, "nobody", &dump, why, sizeof(why)), DUMP_NONE);
}

static void replace(const char *what, const char *by)
{
    static char copy[TEXT_SIZE];
    text[text_size] = 0;
    char *found = strstr(text, what);
    assert_non_null(found);
    strcpy(copy, found + strlen(what));
    sprintf(found, "%s%s", by, copy);
    text_size = strlen(text);
}

static void test_damage(void **state)
{
    static const struct {
        const char *what, *by, *why;
    } rows[] = {
        {"bulkhead-dump 1", "bulkhead-dump 2", "another version"},
        {"vcpus 2", "vcpus 17", "first line"},
        {"khz 1000000", "khz 0", "first line"},
        {"=dump test 5:", "=dumb test 5:", "after line 4 comes line 6"},
        {"a13 ", "a14 ", "checksum"},
        {"rflags=", "rflagz=", "cannot be read: reg"},
        {"=dump test 9: ", "=dump test 9: y", "line 9 cannot be read"},
        {" checksum ", " checksun ", "last line"},
        {": end lines ", ": end lines 1", "says that there are"},
        {"vcpu 1 cpu", "vcpu 7 cpu", "cannot be read: vcpu 7"},
        {": seg cs=", ": seg xs=", "cannot be read: seg"},
        {": code ", ": code 123 ", "cannot be read: code"},
        {" irr=", " irr=x", "cannot be read: apic"},
        {": x 0 t", ": x 99999999999999999999999 t", "cannot be read: x"},
        {": + ", ": + j1 ", "cannot be read: +"},
        {": end", ": e", "cannot be read"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        setup(NULL);
        record(VCPU(0), 20, 1000);
        dump_take_snapshot(VCPU(0));
        make_dump();
        assert_int_equal(look(), DUMP_WHOLE);
        replace(rows[i].what, rows[i].by);
        assert_int_equal(look(), DUMP_BROKEN);
        if (!strstr(why, rows[i].why))
            fail_msg("%s instead of %s: %s", rows[i].by, rows[i].what, why);
    }
}

/* Cut anywhere, it is never taken for whole. */
static void test_cut(void **state)
{
    record(VCPU(0), 3, 1000);
    make_dump();
    size_t whole = text_size - 2; /* the last newline does not matter */
    for (text_size = 1; text_size < whole; text_size++)
        assert_int_not_equal(look(), DUMP_WHOLE);
    assert_int_equal(look(), DUMP_WHOLE);
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_never_run),
        T(test_exits),
        T(test_no_memory_for_exits),
        T(test_overtaken_while_copied),
        T(test_without_snapshot),
        T(test_registers_of_a_stopped_vcpu),
        T(test_asks_the_vcpus_cpu),
        T(test_own_cpu_answers_at_once),
        T(test_no_answer),
        T(test_torn_snapshot),
        T(test_the_vcpu_goes_on_meanwhile),
        T(test_one_at_a_time),
        T(test_among_other_lines),
        T(test_damage),
        T(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
