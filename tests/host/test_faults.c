#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hv/assign/faults.h"

#define SECOND 1000000u

static void test_few(void **state)
{
    struct fault_watch w = {0};
    for (unsigned second = 0; second < 5; second++) {
        uint64_t at = 7 + second * (uint64_t)SECOND;
        for (unsigned i = 1; i < FAULTS_SAID_PER_SECOND; i++)
            assert_int_equal(fault_watch_count(&w, at + i), FAULT_SAY);
        assert_int_equal(fault_watch_count(&w, at + 10), FAULT_SAY_LAST);
        assert_int_equal(fault_watch_count(&w, at + 11), FAULT_QUIET);
    }
    assert_int_equal(w.total, 5 * (FAULTS_SAID_PER_SECOND + 1));
    assert_false(w.storm);
}

static void test_storm(void **state)
{
    struct fault_watch w = {0};
    unsigned storms = 0;
    for (unsigned i = 0; i < 3 * FAULTS_STORM_PER_SECOND; i++) {
        enum fault_answer a = fault_watch_count(&w, 5);
        storms += a == FAULT_STORM;
        assert_int_equal(w.storm, i >= FAULTS_STORM_PER_SECOND);
        if (i > FAULTS_STORM_PER_SECOND)
            assert_int_equal(a, FAULT_QUIET);
    }
    assert_int_equal(storms, 1);
    assert_int_equal(fault_watch_count(&w, 10 * SECOND), FAULT_QUIET); /* nobody has reset it */
    fault_watch_reset(&w);
    assert_int_equal(fault_watch_count(&w, 10 * SECOND), FAULT_SAY);
}

/* Faults, a reset, faults, a reset ...: the device is stopped each time, but the log is not filled. */
static void test_storms_and_resets(void **state)
{
    struct fault_watch w = {0};
    unsigned storms = 0, said = 0;
    for (uint64_t now = 1; now < 10 * SECOND; now += 1000) {
        enum fault_answer a = fault_watch_count(&w, now);
        storms += a == FAULT_STORM;
        said += a == FAULT_SAY || a == FAULT_SAY_LAST || (a == FAULT_STORM && !w.quiet_storm);
        if (a == FAULT_STORM)
            fault_watch_reset(&w);
    }
    assert_in_range(storms, 150, 250);
    assert_in_range(said, 10, 10 * (FAULTS_SAID_PER_SECOND + 1) + 5);
}

/* Exactly as many as are allowed, second after second. */
static void test_at_the_limit(void **state)
{
    struct fault_watch w = {0};
    for (uint64_t second = 0; second < 20; second++)
        for (unsigned i = 0; i < FAULTS_STORM_PER_SECOND; i++)
            assert_int_not_equal(fault_watch_count(&w, second * SECOND + i), FAULT_STORM);
}

static void test_text(void **state)
{
    char text[200];
    struct iommu_fault f = {.bdf = PCI_BDF(1, 0x10, 2), .address = 0x40000000, .reason = 5, .write = true};
    fault_text(&f, "VM web, ", "VF", text, sizeof(text));
    assert_memory_equal(text, "VM web, VF 01:10.2: DMA write to 0x40000000 blocked: ", 53);
    assert_non_null(strstr(text, " (reason 5)"));
    f.write = false;
    fault_text(&f, "", "VF", text, sizeof(text));
    assert_memory_equal(text, "VF 01:10.2: DMA read from 0x40000000 blocked: ", 46);
    f = (struct iommu_fault){.bdf = PCI_BDF(1, 0x10, 2), .address = 7, .reason = 0x26, .interrupt = true};
    fault_text(&f, "", "VF", text, sizeof(text));
    assert_memory_equal(text, "VF 01:10.2: interrupt message, index 7, blocked: ", 49);
    assert_non_null(strstr(text, " (reason 38)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_storms_and_resets),
        cmocka_unit_test(test_at_the_limit),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
