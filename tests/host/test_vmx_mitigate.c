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
    assert_string_equal(text, "retpolines, RSB filling at exits, guests' code in small pages");
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

#define SIGNATURE(model) (0x600u | ((model)&0xfu) << 4 | ((model) >> 4) << 16)
#define EDX              (1u << 26)  /* IBRS, IBPB */
#define EIBRS            (1ull << 1) /* IBRS_ALL */

/* iTLB multihit: all of family 6 but what the list names, until a processor says that it is not. */
static void test_multihit(void **state)
{
    assert_true(vmx_mitigate_multihit(SIGNATURE(0x55), 0));          /* Skylake-X, Cascade Lake */
    assert_false(vmx_mitigate_multihit(SIGNATURE(0x6a), 1ull << 6)); /* Ice Lake-X says so */
    assert_false(vmx_mitigate_multihit(SIGNATURE(0x5f), 0));         /* Denverton */
    assert_false(vmx_mitigate_multihit(SIGNATURE(0x1c), 0));
    assert_false(vmx_mitigate_multihit(SIGNATURE(0x85), 0));
    assert_true(vmx_mitigate_multihit(0xf5f, 0)); /* another family's model 5 */
    assert_true(vmx_mitigate_decide(&(struct vmx_mitigate_inputs){.cpuid_1_eax = SIGNATURE(0x55)}).nx_large);
    char text[240];
    struct vmx_mitigations m = {.nx_large = true};
    vmx_mitigate_describe(&m, text, sizeof(text));
    assert_string_equal(text, "retpolines, guests' code in small pages");
}

/* Branch history injection: the best that the processor has. */
static void test_branch_history(void **state)
{
    static const struct {
        uint32_t edx, edx2;
        uint64_t cap;
        bool bhi, rrsba, clear;
    } rows[] = {
        {EDX, 0, 0, false, false, false},                        /* no enhanced IBRS: retpolines do */
        {EDX, 0, EIBRS, false, false, true},                     /* nothing to set */
        {EDX, 1u << 4, EIBRS, true, false, false},               /* BHI_DIS_S */
        {EDX, 1u << 2, EIBRS, false, true, false},               /* RRSBA_DIS_S: retpolines do again */
        {EDX, 1u << 4 | 1u << 2, EIBRS, true, true, false},      /* both */
        {EDX, 1u << 4, EIBRS | 1ull << 20, false, false, false}, /* BHI_NO */
        {0, 1u << 4, EIBRS, false, false, false},                /* there is no IA32_SPEC_CTRL */
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vmx_mitigate_inputs in = {
            .cpuid_7_edx = rows[i].edx, .cpuid_7_2_edx = rows[i].edx2, .arch_capabilities = rows[i].cap};
        struct vmx_mitigations m = vmx_mitigate_decide(&in);
        assert_int_equal(m.bhi_dis_s, rows[i].bhi);
        assert_int_equal(m.rrsba_dis_s, rows[i].rrsba);
        assert_int_equal(m.clear_bhb, rows[i].clear);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bare),           cmocka_unit_test(test_skylake_with_microcode),
        cmocka_unit_test(test_immune),         cmocka_unit_test(test_multihit),
        cmocka_unit_test(test_branch_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
