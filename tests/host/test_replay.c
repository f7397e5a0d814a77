/* Real dumps run again: every exit is decoded and answered today as it was on the day. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "tests/host/replay.h"
#include "tests/host/run_path.h"

#define VECTORS TEST_SOURCE_DIR "/tests/vectors/dumps/"

static struct dump dump;

static void load(const char *name)
{
    static char text[1u << 20];
    char path[300], why[400] = "";
    size_t at = 0;
    snprintf(path, sizeof(path), VECTORS "%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof(text), file);
    fclose(file);
    assert_true(size < sizeof(text));
    enum dump_found found = dump_read(text, size, &at, NULL, &dump, why, sizeof(why));
    if (found != DUMP_WHOLE)
        fail_msg("%s: %s", path, why);
}

/* Differences go to standard output. */
static void show(const struct dump_vcpu *vcpu)
{
    replay_vcpu(&dump, vcpu, stdout);
}

static void test_linux(void **state)
{
    load("linux.txt");
    struct replay sum = {0};
    for (uint32_t i = 0; i < dump.vcpu_count; i++) {
        struct replay r = replay_vcpu(&dump, &dump.vcpus[i], NULL);
        if (r.differ)
            show(&dump.vcpus[i]);
        assert_int_equal(r.same + r.decoded + r.differ, dump.vcpus[i].count);
        sum.same += r.same;
        sum.differ += r.differ;
    }
    assert_int_equal(sum.differ, 0);
    assert_true(sum.same > 500);
}

/* One exit of each kind below was changed in the file, and the checksum with it. */
static void test_altered(void **state)
{
    load("altered.txt");
    struct replay r = replay_vcpu(&dump, &dump.vcpus[0], NULL);
    if (r.differ != 3)
        show(&dump.vcpus[0]);
    assert_int_equal(r.differ, 3);
    assert_true(r.same > 10);
}

/* ---- every kind, by hand ---- */

static struct dump_vcpu *one(const struct recorder_entry *entry)
{
    static struct dump_vcpu vcpu;
    struct exit exit;
    memset(&vcpu, 0, offsetof(struct dump_vcpu, kept) + sizeof(vcpu.kept[0]));
    vcpu.count = 1;
    vcpu.kept[0].entry = *entry;
    vmx_decode(&entry->raw, &exit);
    strcpy(vcpu.kept[0].kind, exit_kind_name(exit.kind));
    memset(&dump, 0, offsetof(struct dump, vcpus));
    dump.vcpu_count = 1;
    dump.khz = 1000;
    return &vcpu;
}

enum verdict { SAME, DECODED, DIFFERS };

static enum verdict verdict(const struct recorder_entry *entry)
{
    struct replay r = replay_vcpu(&dump, one(entry), NULL);
    assert_int_equal(r.same + r.decoded + r.differ, 1);
    return r.same ? SAME : r.decoded ? DECODED : DIFFERS;
}

#define R(name) .raw.reason = VMX_REASON_##name
#define LEN(n)  .raw.insn_len = n
#define QUAL(n) .raw.qualification = n
#define DONE    .result = {.action = ACTION_ADVANCE}
#define AGAIN   .result = {.action = ACTION_RETRY}
#define STOP(w) .result = {.action = ACTION_STOP, .stop = w}
#define EXC(v)  .result = {.action = ACTION_INJECT, .event_type = EVENT_EXCEPTION, .event_vector = v}
#define EXC0(v)                                                                                              \
    .result = {                                                                                              \
        .action = ACTION_INJECT, .event_type = EVENT_EXCEPTION, .event_vector = v, .event_has_error = 1}

static const struct {
    struct recorder_entry entry;
    enum verdict verdict;
} rows[] = {
    {{R(CPUID), LEN(2), DONE}, SAME},
    {{R(CPUID), LEN(2), EXC(VECTOR_UD)}, DIFFERS},
    {{R(CPUID), LEN(2), .result = {.action = ACTION_ADVANCE, .length = 1}}, DIFFERS},
    {{R(CPUID), LEN(2), .result = {.action = ACTION_PENDING}}, DECODED},
    {{R(RDPMC), LEN(2), EXC0(VECTOR_GP)}, SAME},
    {{R(RDPMC), LEN(2), EXC(VECTOR_GP)}, DIFFERS},
    {{R(TRIPLE_FAULT), STOP(STOP_TRIPLE_FAULT)}, SAME},
    {{R(TRIPLE_FAULT), STOP(STOP_POWEROFF)}, DIFFERS},
    {{R(PREEMPTION_TIMER), AGAIN}, SAME},
    {{R(RDMSR), LEN(2), .rcx = 0x12345, EXC0(VECTOR_GP)}, SAME},
    {{R(RDMSR), LEN(2), .rcx = 0x12345, DONE}, DIFFERS},
    {{R(RDMSR), LEN(2), .rcx = 0x10a, DONE}, DECODED},
    {{R(RDMSR), LEN(2), .rcx = 0x48, DONE}, DECODED},
    {{R(WRMSR), LEN(2), .rcx = 0xc0000080, DONE}, DECODED},
    {{R(RDMSR), LEN(2), .rcx = 0x802, DONE}, DECODED}, /* no snapshot: xAPIC or x2APIC? */
    {{R(WRMSR), LEN(2), .rcx = 0x1b, .rax = 0xfee00d00, DONE}, SAME},
    {{R(IO_INSTRUCTION), LEN(1), QUAL(0x3fd0008), DONE}, SAME},
    {{R(IO_INSTRUCTION), LEN(1), QUAL(0xcf90000), .rax = 6, DONE}, SAME}, /* resets the VM, not the test */
    {{R(IO_INSTRUCTION), LEN(2), QUAL(0x3f80010), DONE}, DECODED},
    {{R(EPT_VIOLATION), QUAL(1), .raw.gpa = 0xfee00020, DONE}, DECODED},
    {{R(EPT_VIOLATION), QUAL(4), .raw.gpa = 0xfee00020, STOP(STOP_BAD_INSTRUCTION)}, SAME},
    {{R(CR_ACCESS), LEN(3), QUAL(0x8), .rax = 3, DONE}, SAME},
    {{R(CR_ACCESS), LEN(3), QUAL(0x8), .rax = 16, EXC0(VECTOR_GP)}, SAME},
    {{R(CR_ACCESS), LEN(3), QUAL(0x608), DONE}, DECODED},
    {{R(CR_ACCESS), LEN(3), QUAL(0x0), DONE}, DECODED},
    {{R(CR_ACCESS), LEN(2), QUAL(0x20), DONE}, SAME},
    {{R(MOV_DR), LEN(3), DONE}, DECODED},
    {{R(XSETBV), LEN(3), DONE}, DECODED},
    {{R(RDTSCP), LEN(3), DONE}, DECODED},
    {{R(APIC_ACCESS), DONE}, DECODED},
    {{R(EXCEPTION_OR_NMI), .raw.intr_info = 0x80000312, .result = {.action = ACTION_RETRY}},
     DIFFERS}, /* #MC */
    {{.raw.reason = 4711, STOP(STOP_UNHANDLED_EXIT)}, SAME},
};

static void test_verdicts(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (verdict(&rows[i].entry) != rows[i].verdict)
            fail_msg("row %u: verdict %d", i, verdict(&rows[i].entry));
}

/* A decoder that sees another kind than the core did is a difference, whatever the answer. */
static void test_another_kind(void **state)
{
    struct recorder_entry entry = {R(CPUID), LEN(2), DONE};
    struct dump_vcpu *vcpu = one(&entry);
    assert_int_equal(replay_vcpu(&dump, vcpu, NULL).same, 1);
    strcpy(vcpu->kept[0].kind, "HLT");
    assert_int_equal(replay_vcpu(&dump, vcpu, NULL).differ, 1);
}

/* The APIC's mode: from the registers, or from the write that is about to come. */
static void test_apic_mode(void **state)
{
    struct recorder_entry read = {R(RDMSR), LEN(2), .rcx = 0x802, DONE};
    struct dump_vcpu *vcpu = one(&read);
    vcpu->has_snapshot = true;
    vcpu->snapshot.apic_base = 0xfee00d00;
    assert_int_equal(replay_vcpu(&dump, vcpu, NULL).same, 1);
    vcpu->snapshot.apic_base = 0xfee00900;
    assert_int_equal(replay_vcpu(&dump, vcpu, NULL).differ, 1);
    vcpu->has_snapshot = false;
    vcpu->kept[1] = vcpu->kept[0];
    vcpu->kept[0].entry = (struct recorder_entry){R(WRMSR), LEN(2), .rcx = 0x1b, .rax = 0xfee00d00, DONE};
    strcpy(vcpu->kept[0].kind, "WRMSR");
    vcpu->count = 2;
    assert_int_equal(replay_vcpu(&dump, vcpu, NULL).same, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linux),     cmocka_unit_test(test_altered),
        cmocka_unit_test(test_verdicts),  cmocka_unit_test(test_another_kind),
        cmocka_unit_test(test_apic_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
