/* The flight recorder: which exits it keeps, what another CPU may read of them, and how it words them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "hv/console/lines.h"
#include "tests/host/run_path.h"

#define SLOTS 8u /* seven exits are kept */

static struct recorder recorder;
static struct recorder_entry entries[SLOTS];

static int setup(void **state)
{
    (void)state;
    memset(entries, 0, sizeof(entries));
    recorder_init(&recorder, entries, SLOTS);
    run_path_init(2);
    return 0;
}

static struct recorder_entry *take(struct recorder *r)
{
    struct recorder_entry *entry = r->next;
    recorder_take(r, entry);
    return entry;
}

/* Exits whose TSC is their number. */
static void record(struct recorder *r, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct recorder_entry *entry = take(r);
        *entry = (struct recorder_entry){.tsc = r->count - 1, .result = exit_retry()};
        entry->raw.reason = VMX_REASON_PREEMPTION_TIMER;
    }
}

static void test_empty(void **state)
{
    struct recorder_entry copy;
    assert_null(recorder_at(&recorder, 0));
    assert_false(recorder_copy(&recorder, 0, &copy));
    assert_int_equal(recorder_count(&recorder), 0);
}

static void test_newest_first(void **state)
{
    record(&recorder, 3);
    for (uint64_t back = 0; back < 3; back++)
        assert_int_equal(recorder_at(&recorder, back)->tsc, 2 - back);
    assert_null(recorder_at(&recorder, 3));
}

static void test_keeps_the_last(void **state)
{
    struct recorder_entry copy;
    for (unsigned count = SLOTS - 1; count < 5 * SLOTS; count++) {
        setup(NULL);
        record(&recorder, count);
        assert_int_equal(recorder_count(&recorder), count);
        for (unsigned back = 0; back < SLOTS - 1; back++) {
            assert_int_equal(recorder_at(&recorder, back)->tsc, count - 1 - back);
            assert_true(recorder_copy(&recorder, count - 1 - back, &copy));
            assert_int_equal(copy.tsc, count - 1 - back);
        }
        assert_null(recorder_at(&recorder, SLOTS - 1));
        assert_null(recorder_at(&recorder, UINT64_MAX));
        assert_false(recorder_copy(&recorder, count, &copy));
        if (count >= SLOTS)
            assert_false(recorder_copy(&recorder, count - SLOTS, &copy));
    }
}

/* The entry code writes into the next slot before the exit is counted: nobody may read it. */
static void test_the_slot_being_filled_is_nobodys(void **state)
{
    struct recorder_entry copy;
    record(&recorder, 3 * SLOTS);
    recorder.next->rax = 0xdead;
    for (uint64_t n = 0; n < 3 * SLOTS; n++)
        assert_true(!recorder_copy(&recorder, n, &copy) || copy.rax == 0);
}

/* An exit in progress has no answer, not that of the exit that had its slot before. */
static void test_no_answer_yet(void **state)
{
    struct recorder_entry copy;
    char text[80];
    record(&recorder, 2 * SLOTS);
    take(&recorder)->raw.reason = VMX_REASON_CPUID;
    assert_true(recorder_copy(&recorder, 2 * SLOTS, &copy));
    assert_int_equal(copy.result.action, ACTION_PENDING);
    recorder_describe_result(&copy, text, sizeof(text));
    assert_string_equal(text, "not answered yet");
}

static void test_memory(void **state)
{
    assert_int_equal(recorder_slots(1), 1025);
    assert_int_equal(recorder_slots(36), 1025);
    assert_true(recorder_slots(64) >= 512 && recorder_slots(64) < 1025);
    for (uint32_t vcpus = 1; vcpus <= 144; vcpus++) {
        assert_true(recorder_slots(vcpus) > 200);
        assert_true(vcpus * recorder_slots(vcpus) * sizeof(struct recorder_entry) <= RECORDER_BUDGET);
        assert_true((uint64_t)recorder_pages(recorder_slots(vcpus)) * PAGE_SIZE >=
                    recorder_slots(vcpus) * sizeof(struct recorder_entry));
    }
}

/* Fields that the exit did not read hold those of an older exit. */
static void test_copies_only_what_was_read(void **state)
{
    struct recorder_entry copy, *entry = take(&recorder);
    memset(entry, 0xff, sizeof(*entry));
    entry->raw.reason = VMX_REASON_PREEMPTION_TIMER;
    assert_true(recorder_copy(&recorder, 0, &copy));
    struct vmx_raw expected = {.reason = VMX_REASON_PREEMPTION_TIMER, .rip = UINT64_MAX};
    assert_memory_equal(&copy.raw, &expected, offsetof(struct vmx_raw, idt_error) + 4);
    assert_int_equal(copy.raw.qualification, 0);
    assert_int_equal(copy.raw.gpa, 0);
    assert_int_equal(copy.raw.gla, 0);
    assert_int_equal(copy.raw.rip, UINT64_MAX);
    assert_int_equal(copy.rax, UINT64_MAX);
    entry->raw = (struct vmx_raw){.reason = 4711, .qualification = 1, .insn_len = 2, .gpa = 3, .gla = 4};
    assert_true(recorder_copy(&recorder, 0, &copy)); /* unknown: everything was read */
    assert_int_equal(copy.raw.qualification + copy.raw.insn_len + copy.raw.gpa + copy.raw.gla, 10);
}

/* ---- words ---- */

#define R(name) .reason = VMX_REASON_##name
#define SOFT    (INTR_INFO_VALID | EVENT_SOFT_INTERRUPT << INTR_INFO_TYPE_SHIFT)
#define HARD    (INTR_INFO_VALID | EVENT_EXCEPTION << INTR_INFO_TYPE_SHIFT)

/* rax 1_00000011, rcx 1b, rdx 22, rbx 33 */
static const struct {
    struct vmx_raw raw;
    const char *words;
} rows[] = {
    {{R(CPUID), .insn_len = 2}, "CPUID (10)  leaf 11, subleaf 1b"},
    {{R(HLT), .insn_len = 1}, "HLT (12)"},
    {{R(RDMSR), .insn_len = 2}, "RDMSR (31)  MSR 0x1b (IA32_APIC_BASE)"},
    {{R(WRMSR), .insn_len = 2}, "WRMSR (32)  MSR 0x1b (IA32_APIC_BASE) = 2200000011"},
    {{R(VMCALL), .insn_len = 3}, "VMCALL (18)  number 100000011, RBX 33, RCX 1b, RDX 22"},
    {{R(XSETBV), .insn_len = 3}, "XSETBV (55)  XCR27 = 2200000011"},
    {{R(RDPMC), .insn_len = 2}, "RDPMC (15)  counter 1b"},
    {{R(INVLPG), .insn_len = 3, .qualification = 0x123000}, "INVLPG (14)  linear 123000"},
    {{R(IO_INSTRUCTION), .insn_len = 1, .qualification = 0x3fd0008},
     "IO_INSTRUCTION (30)  IN from port 0x3fd, 1 byte"},
    {{R(IO_INSTRUCTION), .insn_len = 1, .qualification = 0xcf80003},
     "IO_INSTRUCTION (30)  OUT to port 0xcf8, 4 bytes: 11"},
    {{R(IO_INSTRUCTION), .insn_len = 2, .qualification = 0x3f80030, .insn_info = 3 << 15 | 2 << 7,
      .gla = 0x7000},
     "IO_INSTRUCTION (30)  REP OUTS to port 0x3f8, 1 byte, memory at linear 7000"},
    {{R(IO_INSTRUCTION), .insn_len = 2, .qualification = 0x600019, .insn_info = 2 << 7, .gla = 0x7000},
     "IO_INSTRUCTION (30)  INS from port 0x60, 2 bytes, memory at linear 7000"},
    {{R(CR_ACCESS), .insn_len = 3, .qualification = 0x304}, "CR_ACCESS (28)  MOV to CR4 from RBX = 33"},
    {{R(CR_ACCESS), .insn_len = 3, .qualification = 0x704}, "CR_ACCESS (28)  MOV to CR4 from RDI"},
    {{R(CR_ACCESS), .insn_len = 3, .qualification = 0x118}, "CR_ACCESS (28)  MOV from CR8 to RCX"},
    {{R(CR_ACCESS), .insn_len = 2, .qualification = 0x20}, "CR_ACCESS (28)  CLTS"},
    {{R(CR_ACCESS), .insn_len = 3, .qualification = 0x10030}, "CR_ACCESS (28)  LMSW 0001"},
    {{R(MOV_DR), .insn_len = 3, .qualification = 0x007}, "MOV_DR (29)  MOV to DR7 from RAX = 100000011"},
    {{R(MOV_DR), .insn_len = 3, .qualification = 0x216}, "MOV_DR (29)  MOV from DR6 to RDX"},
    {{R(EPT_VIOLATION), .qualification = 0x182, .gpa = 0xfee000b0, .gla = 0xffff0b0},
     "EPT_VIOLATION (48)  write at guest-physical fee000b0, linear ffff0b0"},
    {{R(EPT_VIOLATION), .qualification = 0x83, .gpa = 0x1000, .gla = 0x2000},
     "EPT_VIOLATION (48)  read write at guest-physical 1000, linear 2000, by the walk of the page tables"},
    {{R(EPT_VIOLATION), .qualification = 0x4, .gpa = 0x1000},
     "EPT_VIOLATION (48)  fetch at guest-physical 1000"},
    {{R(EPT_VIOLATION), .qualification = 1, .gpa = 1, .insn_len = 2, .idt_info = SOFT | 0x51},
     "EPT_VIOLATION (48)  read at guest-physical 1  while delivering vector 51"},
    {{R(EPT_MISCONFIGURATION), .gpa = 0x5000, .idt_info = HARD | INTR_INFO_ERROR_VALID | 14, .idt_error = 7},
     "EPT_MISCONFIGURATION (49)  at guest-physical 5000  while delivering vector 0e, error 7"},
    {{R(EXTERNAL_INTERRUPT), .intr_info = INTR_INFO_VALID | 0xf0}, "EXTERNAL_INTERRUPT (1)  vector f0"},
    {{R(EXCEPTION_OR_NMI), .intr_info = HARD | VECTOR_DB, .qualification = 0x4000},
     "EXCEPTION_OR_NMI (0)  vector 01"},
    {{R(SIPI), .qualification = 0x9a}, "SIPI (4)  vector 9a"},
    {{R(TASK_SWITCH), .qualification = 0x40000028, .insn_len = 1}, "TASK_SWITCH (9)  to selector 0028"},
    {{R(APIC_ACCESS), .qualification = 0x10b0}, "APIC_ACCESS (44)  offset b0"},
    {{R(VIRTUALIZED_EOI), .qualification = 0x41}, "VIRTUALIZED_EOI (45)  vector 41"},
    {{.reason = VMX_REASON_ENTRY_FAILURE_GUEST_STATE | EXIT_REASON_ENTRY_FAILURE, .qualification = 4},
     "ENTRY_FAILURE_GUEST_STATE (33)  qualification 4"},
    /* Contradicts the SDM (an interrupt that is not valid), and a reason that nobody knows. */
    {{R(EXTERNAL_INTERRUPT), .intr_info = 0xf0},
     "EXTERNAL_INTERRUPT (1)  reason field 1, qualification 0, guest-physical 0"},
    {{.reason = 4711, .qualification = 0xabc, .gpa = 0xdef},
     "? (4711)  reason field 1267, qualification abc, guest-physical def"},
};

/* "NAME (number)  words" out of the columns and the RIP of a line. */
static void squeeze(const char *line, char *out, size_t size)
{
    char name[64], rest[300] = "";
    unsigned number;
    unsigned long long rip;
    int end = 0;
    assert_int_equal(sscanf(line, "%63s (%u) rip %16llx%n", name, &number, &rip, &end), 3);
    assert_true(rip == 0xffffffff81000000);
    snprintf(rest, sizeof(rest), "%s", line + end);
    snprintf(out, size, "%s (%u)%s", name, number, rest);
}

static struct recorder_entry entry_of(const struct vmx_raw *raw)
{
    struct recorder_entry entry = {.raw = *raw, .rax = 0x100000011, .rcx = 0x1b, .rdx = 0x22, .rbx = 0x33};
    entry.raw.rip = 0xffffffff81000000;
    return entry;
}

static void test_words(void **state)
{
    char line[300], words[400];
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct recorder_entry entry = entry_of(&rows[i].raw);
        memset(line, '#', sizeof(line));
        size_t length = recorder_describe(&entry, line, sizeof(line));
        assert_int_equal(strlen(line), length);
        squeeze(line, words, sizeof(words));
        assert_string_equal(words, rows[i].words);
    }
}

static void test_shape(void **state)
{
    char line[300];
    struct recorder_entry entry = entry_of(&rows[0].raw);
    recorder_describe_all(&entry, line, sizeof(line));
    assert_string_equal(line,
                        "CPUID                  (10) rip ffffffff81000000  leaf 11, subleaf 1b -> done");
}

/* What was left in a field by an older exit is not shown. */
static void test_ignores_stale_fields(void **state)
{
    char clean[300], stale[300];
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct recorder_entry entry = entry_of(&rows[i].raw);
        recorder_describe(&entry, clean, sizeof(clean));
        unsigned needs = vmx_needs(entry.raw.reason & EXIT_REASON_BASIC);
        if (!(needs & VMX_NEED_GPA))
            entry.raw.gpa = 0x5a5a5a5a;
        if (!(needs & VMX_NEED_IDT_INFO))
            entry.raw.idt_info = HARD | VECTOR_UD;
        if (!(needs & VMX_NEED_QUALIFICATION))
            entry.raw.qualification = 0x5b5b5b5b;
        recorder_describe(&entry, stale, sizeof(stale));
        assert_string_equal(clean, stale);
    }
}

static void test_stays_in_the_buffer(void **state)
{
    char whole[400], buf[400];
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct recorder_entry entry = entry_of(&rows[i].raw);
        entry.result = exit_inject_error(VECTOR_GP, 0);
        size_t length = recorder_describe_all(&entry, whole, sizeof(whole));
        assert_int_equal(strlen(whole), length);
        for (size_t size = 1; size <= length; size++) {
            memset(buf, '#', sizeof(buf));
            assert_int_equal(recorder_describe_all(&entry, buf, size), length);
            assert_int_equal(strlen(buf), size - 1);
            assert_memory_equal(buf, whole, size - 1);
            assert_int_equal(buf[size], '#');
        }
    }
}

static void test_results(void **state)
{
    static const struct {
        struct exit_result result;
        const char *text;
    } results[] = {
        {{.action = ACTION_ADVANCE}, "done"},
        {{.action = ACTION_RETRY}, "resumed"},
        {{.action = ACTION_INJECT, .event_type = EVENT_EXCEPTION, .event_vector = VECTOR_UD},
         "#UD, vector 06"},
        {{.action = ACTION_INJECT, .event_has_error = 1, .event_vector = VECTOR_GP, .event_error = 0x10},
         "#GP(10), vector 0d"},
        {{.action = ACTION_INJECT, .event_vector = 0xee}, "an event, vector ee"},
        {{.action = ACTION_STOP, .stop = STOP_TRIPLE_FAULT}, "stopped: triple fault"},
        {{.action = ACTION_STOP, .stop = 0xff}, "stopped: ?"},
        {{.action = 0xff}, "not answered yet"},
    };
    char text[100];
    for (unsigned i = 0; i < ARRAY_SIZE(results); i++) {
        struct recorder_entry entry = {.result = results[i].result};
        assert_int_equal(recorder_describe_result(&entry, text, sizeof(text)), strlen(results[i].text));
        assert_string_equal(text, results[i].text);
    }
}

/* ---- the exit path and the trace ---- */

static void test_the_exit_path_records_the_answer(void **state)
{
    struct vcpu *v = VCPU(0);
    v->gpr[RAX] = 0x40000000;
    assert_true(run_path_insn(v, EXIT_CPUID, 2));
    assert_int_equal(recorder_at(&v->recorder, 0)->result.action, ACTION_ADVANCE);
    assert_true(run_path_insn(v, EXIT_MWAIT, 3));
    assert_int_equal(recorder_at(&v->recorder, 0)->result.action, ACTION_INJECT);
    assert_int_equal(recorder_at(&v->recorder, 0)->result.event_vector, VECTOR_UD);
    assert_true(run_path_insn(v, EXIT_TIMER, 0));
    assert_int_equal(recorder_at(&v->recorder, 0)->result.action, ACTION_RETRY);
    assert_false(run_path_insn(v, EXIT_TRIPLE_FAULT, 0));
    assert_int_equal(recorder_at(&v->recorder, 0)->result.action, ACTION_STOP);
    assert_int_equal(recorder_at(&v->recorder, 0)->result.stop, STOP_TRIPLE_FAULT);
    assert_int_equal(recorder_count(&v->recorder), 4);
}

static char text[LINES_MAX];

static bool next(struct lines *lines)
{
    memset(text, '#', sizeof(text));
    return trace_next(lines, text, sizeof(text));
}

static void test_trace(void **state)
{
    struct lines lines = {.vm = &machine.vm, .vcpu = 1, .count = 3};
    for (unsigned i = 0; i < 5; i++) {
        struct recorder_entry *entry = take(&VCPU(1)->recorder);
        *entry = (struct recorder_entry){.raw = {R(CPUID), .insn_len = 2, .rip = i}, .tsc = i * i * 1500};
    }
    assert_true(next(&lines));
    assert_string_equal(text,
                        "test/1: the last 3 of 5 exits, oldest first; + is the time since the one before");
    for (unsigned i = 2; i < 5; i++) {
        char expected[100];
        snprintf(expected, sizeof(expected),
                 "+%9u.%03u us  CPUID                  (10) rip %016x  leaf 0, subleaf 0",
                 (2 * i - 1) * 1500 / 1000, (2 * i - 1) * 1500 % 1000, i);
        assert_true(next(&lines));
        /* clock_ticks_to_ns() may be two low */
        text[13] = expected[13] = text[12] = expected[12] = '.';
        if (strncmp(text, expected, 8) == 0)
            memcpy(text, expected, 14);
        assert_memory_equal(text, expected, strlen(expected));
        assert_string_equal(text + strlen(expected), " -> done");
    }
    assert_false(next(&lines));
    assert_false(next(&lines));
}

static unsigned count_lines(struct lines *lines)
{
    unsigned n = 0;
    while (next(lines) && n < 10000)
        n++;
    return n;
}

static void test_trace_counts(void **state)
{
    struct lines lines = {.vm = &machine.vm, .vcpu = 0};
    assert_int_equal(count_lines(&lines), 1); /* no exits yet: the header only */
    record(&VCPU(0)->recorder, 50);
    lines = (struct lines){.vm = &machine.vm};
    assert_int_equal(count_lines(&lines), 1 + RECORDER_TRACE_DEFAULT);
    lines = (struct lines){.vm = &machine.vm, .count = 1000000};
    assert_int_equal(count_lines(&lines), 1 + 50);
    record(&VCPU(0)->recorder, 5000);
    lines = (struct lines){.vm = &machine.vm, .count = 1000000};
    assert_int_equal(count_lines(&lines), 1 + RECORDER_KEEPS);
    lines = (struct lines){.vm = &machine.vm, .vcpu = 2};
    assert_false(next(&lines)); /* there is no such vCPU */
}

/* The vCPU goes on while its exits are printed. */
static void test_trace_is_overtaken(void **state)
{
    struct lines lines = {.vm = &machine.vm, .count = 4};
    record(&VCPU(0)->recorder, 4);
    assert_true(next(&lines));
    record(&VCPU(0)->recorder, RECORDER_KEEPS - 1);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(next(&lines));
        assert_non_null(strstr(text, "overwritten"));
    }
    assert_true(next(&lines));
    assert_null(strstr(text, "overwritten"));
    assert_non_null(strstr(text, "PREEMPTION_TIMER"));
    assert_int_equal(text[0], ' '); /* the one before it is gone: no time */
    assert_false(next(&lines));
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_empty),
        T(test_newest_first),
        T(test_keeps_the_last),
        T(test_the_slot_being_filled_is_nobodys),
        T(test_no_answer_yet),
        T(test_memory),
        T(test_copies_only_what_was_read),
        T(test_words),
        T(test_shape),
        T(test_ignores_stale_fields),
        T(test_stays_in_the_buffer),
        T(test_results),
        T(test_the_exit_path_records_the_answer),
        T(test_trace),
        T(test_trace_counts),
        T(test_trace_is_overtaken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
