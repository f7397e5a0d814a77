/* Which mitigation each kind of processor gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/vmx/vmx_mitigate.h"

static struct vmx_mitigations decide(uint32_t edx, uint64_t cap)
{
    struct vmx_mitigate_inputs in = {.cpuid_7_edx = edx, .arch_capabilities = cap};
    return vmx_mitigate_decide(&in);
}

/* A processor without any microcode help: only what software can do. */
static void test_bare(void **state)
{
    struct vmx_mitigations m = decide(0, 0);
    char text[200];
    assert_true(m.fill_rsb);
    assert_false(m.verw || m.flush_l1d || m.ibpb || m.ibrs_all || m.spec_ctrl);
    vmx_mitigate_describe(&m, text, sizeof(text));
    assert_string_equal(text, "retpolines, RSB filling at exits");
}

/* Skylake with microcode: everything. */
static void test_skylake_with_microcode(void **state)
{
    struct vmx_mitigations m = decide(1u << 10 | 1u << 26 | 1u << 28, 0);
    char text[200];
    assert_true(m.fill_rsb && m.verw && m.flush_l1d && m.ibpb && m.spec_ctrl);
    assert_false(m.ibrs_all);
    vmx_mitigate_describe(&m, text, sizeof(text));
    assert_non_null(strstr(text, "VERW at entries"));
    assert_non_null(strstr(text, "L1D flush"));
    assert_non_null(strstr(text, "IBPB"));
}

/* Processors that say what they are immune to. */
static void test_immune(void **state)
{
    uint64_t cap = 1ull << 0 | 1ull << 1 | 1ull << 5 | 1ull << 8 | 1ull << 14 | 1ull << 24;
    struct vmx_mitigations m = decide(1u << 10 | 1u << 26 | 1u << 28, cap);
    assert_false(m.fill_rsb || m.verw || m.flush_l1d);
    assert_true(m.ibrs_all && m.ibpb && m.spec_ctrl);
    assert_true(decide(1u << 10, cap | 1ull << 28).verw);        /* RFDS needs it again */
    assert_true(decide(1u << 10, cap & ~(1ull << 8)).verw);      /* TAA */
    assert_true(decide(1u << 26, cap & ~(1ull << 24)).fill_rsb); /* post-barrier RSB */
    assert_false(decide(1u << 28, 1ull << 3).flush_l1d);         /* SKIP_L1DFL_VMENTRY */
    assert_false(decide(0, 1ull << 1).ibrs_all); /* without IA32_SPEC_CTRL there is nothing to set */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_skylake_with_microcode),
        cmocka_unit_test(test_immune),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
