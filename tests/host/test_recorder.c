/* The flight recorder: which exits it keeps, and how it words them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hv/recorder.h"

static struct recorder recorder;

static int setup(void **state)
{
    (void)state;
    memset(&recorder, 0, sizeof(recorder));
    return 0;
}

static void record(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        struct recorder_entry *entry = recorder_next(&recorder);
        entry->tsc = recorder.count;
    }
}

static void test_empty(void **state)
{
    (void)state;
    assert_null(recorder_at(&recorder, 0));
}

static void test_newest_first(void **state)
{
    (void)state;
    record(3);
    for (uint64_t back = 0; back < 3; back++)
        assert_int_equal(recorder_at(&recorder, back)->tsc, 3 - back);
    assert_null(recorder_at(&recorder, 3));
}

static void test_keeps_the_last(void **state)
{
    (void)state;
    record(RECORDER_SLOTS);
    assert_int_equal(recorder_at(&recorder, RECORDER_SLOTS - 1)->tsc, 1);
    record(1);
    assert_int_equal(recorder_at(&recorder, 0)->tsc, RECORDER_SLOTS + 1);
    assert_int_equal(recorder_at(&recorder, RECORDER_SLOTS - 1)->tsc, 2);
    assert_null(recorder_at(&recorder, RECORDER_SLOTS));
    assert_null(recorder_at(&recorder, UINT64_MAX));
}

static const char *describe(const struct vmx_raw *raw)
{
    static char text[200];
    struct recorder_entry entry = {.raw = *raw};
    memset(text, '#', sizeof(text));
    size_t length = recorder_describe(&entry, text, sizeof(text));
    assert_true(length < sizeof(text));
    assert_int_equal(strlen(text), length);
    return text;
}

static void test_words(void **state)
{
    (void)state;
    static const struct {
        struct vmx_raw raw;
        const char *text;
    } rows[] = {
        {{.reason = VMX_REASON_CPUID, .rip = 0xffffffff81000000, .qualification = 7},
         "CPUID                  (10) rip ffffffff81000000"},
        {{.reason = VMX_REASON_CR_ACCESS, .rip = 0x1000, .qualification = 0x302},
         "CR_ACCESS              (28) rip 0000000000001000  qualification 302"},
        {{.reason = VMX_REASON_EPT_VIOLATION, .rip = 1, .qualification = 0x182, .gpa = 0xfee000b0},
         "EPT_VIOLATION          (48) rip 0000000000000001  qualification 182  guest-physical fee000b0"},
        {{.reason = VMX_REASON_EPT_VIOLATION, .gpa = 1, .idt_info = INTR_INFO_VALID | 0x51},
         "EPT_VIOLATION          (48) rip 0000000000000000  qualification 0  guest-physical 1"
         "  while delivering vector 51"},
        {{.reason = VMX_REASON_EXTERNAL_INTERRUPT, .intr_info = INTR_INFO_VALID | 0xf0},
         "EXTERNAL_INTERRUPT     ( 1) rip 0000000000000000  vector f0"},
        {{.reason = VMX_REASON_EXTERNAL_INTERRUPT, .intr_info = 0xf0}, /* not valid */
         "EXTERNAL_INTERRUPT     ( 1) rip 0000000000000000"},
        {{.reason = VMX_REASON_ENTRY_FAILURE_GUEST_STATE | EXIT_REASON_ENTRY_FAILURE},
         "ENTRY_FAILURE_GUEST_STATE (33) rip 0000000000000000  qualification 0"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        assert_string_equal(describe(&rows[i].raw), rows[i].text);
}

/* A reason that nobody knows: everything was read for it, and everything is shown. */
static void test_unknown_reason(void **state)
{
    (void)state;
    struct vmx_raw raw = {.reason = 4711, .qualification = 0xabc, .gpa = 0xdef};
    const char *text = describe(&raw);
    assert_non_null(strstr(text, "4711"));
    assert_non_null(strstr(text, "qualification abc"));
    assert_non_null(strstr(text, "guest-physical def"));
}

static void test_stays_in_the_buffer(void **state)
{
    (void)state;
    struct recorder_entry entry = {.raw = {.reason = VMX_REASON_EPT_VIOLATION,
                                           .rip = UINT64_MAX,
                                           .qualification = UINT64_MAX,
                                           .gpa = UINT64_MAX,
                                           .idt_info = INTR_INFO_VALID | 0xff}};
    char whole[200], buf[200];
    size_t length = recorder_describe(&entry, whole, sizeof(whole));
    for (size_t size = 1; size <= length; size++) {
        memset(buf, '#', sizeof(buf));
        recorder_describe(&entry, buf, size);
        assert_int_equal(strlen(buf), size - 1);
        assert_memory_equal(buf, whole, size - 1);
        assert_int_equal(buf[size], '#');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_empty, setup),
        cmocka_unit_test_setup(test_newest_first, setup),
        cmocka_unit_test_setup(test_keeps_the_last, setup),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_unknown_reason),
        cmocka_unit_test(test_stays_in_the_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
