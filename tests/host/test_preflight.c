#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "boot/preflight.h"
#include "hv/lib/bits.h"

static struct preflight_input in;
static struct preflight_row rows[PREFLIGHT_MAX_ROWS];
static size_t count;

/* A machine that has everything (SDM volume 3, appendix A; bits 63:32 of the control MSRs: may be 1). */
static int setup(void **state)
{
    in = (struct preflight_input){
        .cpuid_1_eax = 0x606a6,      /* Ice Lake-X */
        .arch_capabilities = BIT(6), /* PSCHANGE_MC_NO */
        .cpuid_1_ecx = (uint32_t)(BIT(5) | BIT(21) | BIT(26)),
        .cpuid_80000001_edx = (uint32_t)BIT(20),
        .cpuid_80000007_edx = (uint32_t)BIT(8),
        .feature_control = 5,
        .vmx_pin = BIT(32 + 0) | BIT(32 + 3) | BIT(32 + 5) | BIT(32 + 6) | BIT(32 + 7),
        .vmx_proc = BIT(32 + 21) | BIT(32 + 25) | BIT(32 + 28) | BIT(63),
        .vmx_proc2 =
            BIT(32 + 0) | BIT(32 + 1) | BIT(32 + 4) | BIT(32 + 5) | BIT(32 + 7) | BIT(32 + 8) | BIT(32 + 9),
        .vmx_ept_vpid_cap =
            BIT(6) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(25) | BIT(26) | BIT(32) | BIT(41) | BIT(42),
        .cpus_found = 4,
        .cpus_needed = 2,
        .cpu_source = "MP Services",
        .memory_free = 1024ull << 20,
        .memory_needed = 384ull << 20,
        .memory_kept = 0x781234,
        .has_acpi = true,
        .has_dmar = true,
        .has_mcfg = true,
        .iommu_units = 2,
        .iommu_remaps = true,
        .pci_functions = 15,
        .pci_assignable = 4,
        .pci_sriov = 3,
        .pci_vfs = 18,
    };
    return 0;
}

static const struct preflight_row *find(const char *name)
{
    count = preflight_check(&in, rows);
    assert_true(count <= PREFLIGHT_MAX_ROWS);
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    fail_msg("no row '%s'", name);
    return NULL;
}

/* Exactly this row is not ok, and of this state; then the input is restored. */
static void only(const char *name, enum preflight_state state, const char *advice)
{
    const struct preflight_row *row = find(name);
    assert_int_equal(row->state, state);
    if (advice) {
        assert_non_null(row->advice);
        if (!strstr(row->advice, advice))
            fail_msg("%s: advice is '%s'", name, row->advice);
    } else {
        assert_null(row->advice);
    }
    for (size_t i = 0; i < count; i++)
        if (&rows[i] != row && rows[i].state != PREFLIGHT_OK)
            fail_msg("%s is not ok together with %s", rows[i].name, name);
    assert_int_equal(preflight_passed(rows, count), state != PREFLIGHT_MISSING);
    setup(NULL);
}

static void test_all_good(void **state)
{
    count = preflight_check(&in, rows);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].state != PREFLIGHT_OK || rows[i].advice || !rows[i].text[0])
            fail_msg("%s", rows[i].name);
    }
    assert_true(count > 20);
    assert_true(preflight_passed(rows, count));
    assert_string_equal(find("CPUs")->text, "4 found (MP Services), 2 needed");
    assert_string_equal(find("memory for VMs")->text, "1024 MiB free, 384 MiB needed");
    assert_string_equal(find("memory for Bulkhead")->text, "8 MiB");
}

static void test_no_vmx(void **state)
{
    in.cpuid_1_ecx &= ~(uint32_t)BIT(5);
    in.vmx_pin = in.vmx_proc = in.vmx_proc2 = in.vmx_ept_vpid_cap = 0;
    only("VT-x", PREFLIGHT_MISSING, "enable Intel VT-x in the firmware setup");
    in.cpuid_1_ecx = (uint32_t)(BIT(31) | BIT(21) | BIT(26));
    only("VT-x", PREFLIGHT_MISSING, "nested virtualization");
}

static void test_feature_control(void **state)
{
    in.feature_control = 1; /* locked, off */
    only("VT-x switched on", PREFLIGHT_MISSING, "enable Intel VT-x in the firmware setup");
    in.feature_control = 3; /* locked, only within SMX */
    only("VT-x switched on", PREFLIGHT_MISSING, "enable Intel VT-x");
    in.feature_control = 1;
    in.cpuid_1_ecx |= (uint32_t)BIT(31);
    only("VT-x switched on", PREFLIGHT_MISSING, "nested virtualization");
    in.feature_control = 0;
    assert_int_equal(find("VT-x switched on")->state, PREFLIGHT_OK);
    assert_true(preflight_passed(rows, count));
}

/* Each capability bit that is needed, taken away alone. */
static void test_required_bits(void **state)
{
    const struct {
        uint64_t *word, bit;
        const char *row;
    } cases[] = {
        {&in.vmx_pin, BIT(32), "interrupt and NMI exiting"},
        {&in.vmx_pin, BIT(35), "interrupt and NMI exiting"},
        {&in.vmx_pin, BIT(37), "interrupt and NMI exiting"},
        {&in.vmx_pin, BIT(38), "preemption timer"},
        {&in.vmx_proc, BIT(57), "I/O and MSR bitmaps"},
        {&in.vmx_proc, BIT(60), "I/O and MSR bitmaps"},
        {&in.vmx_proc2, BIT(33), "EPT, 4 levels, write-back"},
        {&in.vmx_ept_vpid_cap, BIT(6), "EPT, 4 levels, write-back"},
        {&in.vmx_ept_vpid_cap, BIT(14), "EPT, 4 levels, write-back"},
        {&in.vmx_ept_vpid_cap, BIT(20), "INVEPT"},
        {&in.vmx_ept_vpid_cap, BIT(26), "INVEPT"},
        {&in.vmx_proc2, BIT(39), "unrestricted guest"},
        {&in.vmx_proc2, BIT(37), "VPID"},
        {&in.vmx_ept_vpid_cap, BIT(32), "INVVPID"},
        {&in.vmx_ept_vpid_cap, BIT(41), "INVVPID"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        *cases[i].word &= ~cases[i].bit;
        only(cases[i].row, PREFLIGHT_MISSING, "newer processor");
        *cases[i].word &= ~cases[i].bit;
        in.cpuid_1_ecx |= (uint32_t)BIT(31);
        only(cases[i].row, PREFLIGHT_MISSING, "hypervisor under us");
    }
    /* The core asks for all-context INVEPT and single-context INVVPID (vmx_caps.c); the other types are a
     * bonus. */
    in.vmx_ept_vpid_cap &= ~(BIT(25) | BIT(42));
    assert_int_equal(find("INVEPT")->state, PREFLIGHT_OK);
    assert_int_equal(find("INVVPID")->state, PREFLIGHT_OK);
}

static void test_no_secondary_controls(void **state)
{
    in.vmx_proc &= ~BIT(63);
    assert_int_equal(find("unrestricted guest")->state, PREFLIGHT_MISSING);
    assert_int_equal(find("VPID")->state, PREFLIGHT_MISSING);
}

static void test_optional_bits(void **state)
{
    const struct {
        uint64_t *word, bit;
        const char *row;
    } cases[] = {
        {&in.vmx_ept_vpid_cap, BIT(16), "EPT pages of 2 MiB"},
        {&in.vmx_ept_vpid_cap, BIT(17), "EPT pages of 1 GiB"},
        {&in.vmx_proc, BIT(53), "TPR shadow"},
        {&in.vmx_proc2, BIT(32), "APIC access, x2APIC (APICv)"},
        {&in.vmx_proc2, BIT(36), "APIC access, x2APIC (APICv)"},
        {&in.vmx_proc2, BIT(40), "APIC registers (APICv)"},
        {&in.vmx_proc2, BIT(41), "interrupt delivery (APICv)"},
        {&in.vmx_pin, BIT(39), "posted interrupts (APICv)"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        *cases[i].word &= ~cases[i].bit;
        only(cases[i].row, PREFLIGHT_OPTIONAL, NULL);
    }
    in.cpuid_80000007_edx = 0;
    only("invariant TSC", PREFLIGHT_OPTIONAL, NULL);
    in.has_acpi = false;
    only("ACPI tables", PREFLIGHT_OPTIONAL, NULL);
    in.has_dmar = false;
    only("VT-d (DMAR table)", PREFLIGHT_OPTIONAL, NULL);
    assert_string_equal(find("VT-d (DMAR table)")->text, "2 units, interrupt remapping");
    in.dmar_fault = "a unit's structure is too short";
    assert_string_equal(find("VT-d (DMAR table)")->text, "not usable: a unit's structure is too short");
    only("VT-d (DMAR table)", PREFLIGHT_OPTIONAL, NULL);
    in.iommu_remaps = false;
    in.iommu_units = 1;
    assert_string_equal(find("VT-d (DMAR table)")->text,
                        "1 unit, no interrupt remapping: no devices can be given to VMs");
    only("VT-d (DMAR table)", PREFLIGHT_OPTIONAL, NULL);
    in.has_mcfg = false;
    only("PCI Express (MCFG table)", PREFLIGHT_OPTIONAL, NULL);
    in.pci_sriov = 0;
    assert_string_equal(find("PCI functions")->text, "15, of which 4 assignable; none with SR-IOV");
    only("PCI functions", PREFLIGHT_OPTIONAL, NULL);
    assert_string_equal(find("PCI functions")->text, "15, of which 4 assignable; 3 with SR-IOV (18 VFs)");
}

static void test_cpu_features(void **state)
{
    in.cpuid_1_ecx &= ~(uint32_t)BIT(26);
    only("XSAVE", PREFLIGHT_MISSING, "newer processor");
    in.cpuid_1_ecx &= ~(uint32_t)BIT(21);
    only("x2APIC", PREFLIGHT_MISSING, "newer processor");
    in.cpuid_80000001_edx = 0;
    only("execute-disable (NX)", PREFLIGHT_MISSING, "Execute Disable");
    in.la57 = true;
    only("4-level paging", PREFLIGHT_MISSING, "5-level paging");
}

static void test_machine(void **state)
{
    in.cpus_found = 1;
    only("CPUs", PREFLIGHT_MISSING, "'cpus' in bulkhead.conf");
    in.cpus_needed = 0;
    in.cpus_found = 1;
    assert_string_equal(find("CPUs")->text, "1 found (MP Services)");
    assert_int_equal(find("CPUs")->state, PREFLIGHT_OK);
    setup(state);
    in.memory_needed = in.memory_free + 1;
    only("memory for VMs", PREFLIGHT_MISSING, "'memory' in bulkhead.conf");
    setup(state);
    in.keeps_too_much = true;
    only("memory for Bulkhead", PREFLIGHT_MISSING, "fewer VMs");
}

static void test_small_pages(void **state)
{
    assert_false(preflight_small_pages(&in));
    in.vmx_ept_vpid_cap &= ~BIT(16);
    assert_true(preflight_small_pages(&in));
    setup(state);
    in.arch_capabilities = 0; /* iTLB multihit: code is mapped by 4 KiB */
    assert_true(preflight_small_pages(&in));
    in.vmx_ept_vpid_cap = 0; /* no EPT: nothing will start */
    assert_false(preflight_small_pages(&in));
}

static void test_state_names(void **state)
{
    assert_string_equal(preflight_state_name(PREFLIGHT_OK), "ok");
    assert_string_equal(preflight_state_name(PREFLIGHT_MISSING), "MISSING");
    assert_string_equal(preflight_state_name(PREFLIGHT_OPTIONAL), "optional");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all_good, setup),
        cmocka_unit_test_setup(test_no_vmx, setup),
        cmocka_unit_test_setup(test_feature_control, setup),
        cmocka_unit_test_setup(test_required_bits, setup),
        cmocka_unit_test_setup(test_no_secondary_controls, setup),
        cmocka_unit_test_setup(test_optional_bits, setup),
        cmocka_unit_test_setup(test_cpu_features, setup),
        cmocka_unit_test_setup(test_machine, setup),
        cmocka_unit_test_setup(test_small_pages, setup),
        cmocka_unit_test_setup(test_state_names, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
