/* MSRs as guests see them: the default is #GP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/msr.h"
#include "hv/policy/msr_policy.h"

static struct cpuid_table cpuid;
static struct msr_store s;

static int setup(void **state)
{
    (void)state;
    cpuid = (struct cpuid_table){.phys_bits = 46,
                                 .tsc_hz = 3504000000,
                                 .efer_allowed = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE,
                                 .spec_ctrl_allowed = 7,
                                 .has_pred_cmd = true,
                                 .has_flush_cmd = true,
                                 .has_arch_capabilities = true,
                                 .has_rdtscp = true,
                                 .has_xsaves = true};
    msr_store_init(&s, &cpuid, UINT64_MAX, 0x2000065);
    return 0;
}

static uint64_t rd(uint32_t msr)
{
    uint64_t v = 0xdeadbeef;
    assert_int_equal(msr_store_read(&s, msr, &v), STATUS_OK);
    return v;
}

/* Every number in the ranges that CPUs use: few are answered, each by the class its row says. */
static void test_classes(void **state)
{
    (void)state;
    unsigned known = 0;
    for (uint32_t msr = 0; msr < 0x2000; msr++)
        known += msr_policy_class(msr) != MSR_CLASS_GP;
    for (uint32_t msr = 0xc0000000; msr < 0xc0002000; msr++)
        known += msr_policy_class(msr) != MSR_CLASS_GP;
    assert_int_equal(known, 319); /* 256 of them x2APIC; a new row has to be counted here */
    static const struct {
        uint32_t msr;
        enum msr_class class;
    } rows[] = {
        {MSR_IA32_TSC, MSR_CLASS_TSC},
        {MSR_IA32_TSC_ADJUST, MSR_CLASS_TSC},
        {MSR_IA32_APIC_BASE, MSR_CLASS_LAPIC},
        {MSR_IA32_TSC_DEADLINE, MSR_CLASS_LAPIC},
        {0x7ff, MSR_CLASS_GP},
        {0x800, MSR_CLASS_LAPIC},
        {0x83f, MSR_CLASS_LAPIC},
        {0x8ff, MSR_CLASS_LAPIC},
        {0x900, MSR_CLASS_GP},
        {MSR_IA32_EFER, MSR_CLASS_VIRT},
        {MSR_IA32_PAT, MSR_CLASS_VIRT},
        {MSR_IA32_SYSENTER_EIP, MSR_CLASS_VIRT},
        {MSR_IA32_FS_BASE, MSR_CLASS_VIRT},
        {MSR_IA32_KERNEL_GS_BASE, MSR_CLASS_SWITCHED},
        {MSR_IA32_STAR, MSR_CLASS_SWITCHED},
        {MSR_IA32_TSC_AUX, MSR_CLASS_SWITCHED},
        {MSR_IA32_SPEC_CTRL, MSR_CLASS_SPEC},
        {MSR_IA32_FLUSH_CMD, MSR_CLASS_SPEC},
        {MSR_IA32_MTRRCAP, MSR_CLASS_STORE},
        {0x200, MSR_CLASS_STORE},
        {0x20f, MSR_CLASS_STORE},
        {0x210, MSR_CLASS_GP},
        {0x250, MSR_CLASS_STORE},
        {0x251, MSR_CLASS_GP},
        {0x26f, MSR_CLASS_STORE},
        {0x270, MSR_CLASS_GP},
        {MSR_IA32_XSS, MSR_CLASS_STORE},
        {MSR_IA32_VMX_BASIC, MSR_CLASS_GP},
        {MSR_IA32_MC0_CTL, MSR_CLASS_GP},
        {MSR_IA32_PERF_CAPABILITIES, MSR_CLASS_GP},
        {0x40000000, MSR_CLASS_GP},
        {0xc0010015, MSR_CLASS_GP},
        {UINT32_MAX, MSR_CLASS_GP},
        {MSR_IA32_U_CET, MSR_CLASS_GP},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        assert_int_equal(msr_policy_class(rows[i].msr), rows[i].class);
    assert_string_equal(msr_policy_name(MSR_IA32_VMX_MISC), "IA32_VMX_*");
    assert_string_equal(msr_policy_name(MSR_IA32_TSC_DEADLINE), "IA32_TSC_DEADLINE");
    assert_string_equal(msr_policy_name(0x12345), "?");
}

/* Whatever the policy gives to the store, the store answers: no class without an implementation, and the
 * reverse. */
static void test_store_and_table_agree(void **state)
{
    (void)state;
    for (uint32_t msr = 0; msr < 0x2000; msr++) {
        uint64_t v;
        bool answers = msr_store_read(&s, msr, &v) == STATUS_OK ||
                       (msr_store_write(&s, msr, 0) == STATUS_OK); /* BIOS_UPDT_TRIG is write-only */
        assert_int_equal(answers, msr_policy_class(msr) == MSR_CLASS_STORE);
    }
}

static void test_passed_list(void **state)
{
    (void)state;
    size_t n;
    const struct msr_passed *p = msr_policy_passed(&n);
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++) {
        enum msr_class c = msr_policy_class(p[i].msr);
        assert_true(c == MSR_CLASS_VIRT || c == MSR_CLASS_SWITCHED);
        assert_true(p[i].read);
        assert_int_equal(p[i].write, p[i].msr != MSR_IA32_EFER);
        assert_int_equal(p[i].needs_rdtscp, p[i].msr == MSR_IA32_TSC_AUX);
    }
}

static void test_constants(void **state)
{
    (void)state;
    assert_int_equal(rd(MSR_IA32_FEATURE_CONTROL), FEATURE_CONTROL_LOCK);
    assert_int_equal(msr_store_write(&s, MSR_IA32_FEATURE_CONTROL, 5), ERR_NOT_FOUND);
    assert_int_equal(rd(MSR_IA32_MTRRCAP), 0x508);
    assert_true(msr_store_write(&s, MSR_IA32_MTRRCAP, 0x508) != STATUS_OK);
    assert_int_equal(rd(MSR_IA32_MCG_CAP), 0);
    assert_int_equal(rd(MSR_IA32_BIOS_SIGN_ID), 0x200006500000000);
    assert_int_equal(msr_store_write(&s, MSR_IA32_BIOS_SIGN_ID, 0), STATUS_OK);
    assert_int_equal(rd(MSR_IA32_BIOS_SIGN_ID), 0x200006500000000);
    assert_int_equal(rd(MSR_PLATFORM_INFO), 35 << 8);
    assert_int_equal(rd(MSR_IA32_PLATFORM_ID), 0);
    assert_int_equal(rd(0x34), 0);
    assert_int_equal(msr_store_write(&s, MSR_IA32_BIOS_UPDT_TRIG, 0xffff800000001234), STATUS_OK);
    uint64_t v;
    assert_true(msr_store_read(&s, MSR_IA32_BIOS_UPDT_TRIG, &v) != STATUS_OK);
}

static void test_arch_capabilities_are_sanitized(void **state)
{
    (void)state;
    assert_int_equal(rd(MSR_IA32_ARCH_CAPABILITIES), 0x1d1ae177);
    assert_true(msr_store_write(&s, MSR_IA32_ARCH_CAPABILITIES, 0) != STATUS_OK);
    cpuid.spec_ctrl_allowed = 0;
    msr_store_init(&s, &cpuid, UINT64_MAX, 0);
    assert_int_equal(rd(MSR_IA32_ARCH_CAPABILITIES) & ARCH_CAP_IBRS_ALL, 0);
    cpuid.has_arch_capabilities = false;
    msr_store_init(&s, &cpuid, UINT64_MAX, 0);
    uint64_t v;
    assert_true(msr_store_read(&s, MSR_IA32_ARCH_CAPABILITIES, &v) != STATUS_OK);
}

static void test_misc_enable_debugctl_xss(void **state)
{
    (void)state;
    assert_int_equal(rd(MSR_IA32_MISC_ENABLE), 0x1801);
    assert_int_equal(msr_store_write(&s, MSR_IA32_MISC_ENABLE, 0x1800), STATUS_OK);
    assert_int_equal(rd(MSR_IA32_MISC_ENABLE), 0x1800);
    assert_int_equal(msr_store_write(&s, MSR_IA32_MISC_ENABLE, 0x400c51809), STATUS_OK);
    assert_int_equal(rd(MSR_IA32_MISC_ENABLE), 0x400c51809);
    assert_true(msr_store_write(&s, MSR_IA32_MISC_ENABLE, 0x1800 | 1 << 7) != STATUS_OK); /* read-only */
    assert_true(msr_store_write(&s, MSR_IA32_MISC_ENABLE, 0x1800 | 1 << 1) != STATUS_OK); /* reserved */
    assert_true(msr_store_write(&s, MSR_IA32_MISC_ENABLE, 0) != STATUS_OK);
    assert_int_equal(rd(MSR_IA32_DEBUGCTL), 0);
    assert_int_equal(msr_store_write(&s, MSR_IA32_DEBUGCTL, 0), STATUS_OK);
    assert_true(msr_store_write(&s, MSR_IA32_DEBUGCTL, DEBUGCTL_LBR) != STATUS_OK);
    assert_int_equal(rd(MSR_IA32_XSS), 0);
    assert_int_equal(msr_store_write(&s, MSR_IA32_XSS, 0), STATUS_OK);
    assert_true(msr_store_write(&s, MSR_IA32_XSS, 1 << 8) != STATUS_OK);
    assert_int_equal(msr_store_write(&s, MSR_IA32_MCG_STATUS, 0), STATUS_OK);
    assert_true(msr_store_write(&s, MSR_IA32_MCG_STATUS, 4) != STATUS_OK);
    assert_int_equal(rd(MSR_IA32_MCG_STATUS), 0);
    cpuid.has_xsaves = false;
    msr_store_init(&s, &cpuid, 0, 0);
    uint64_t v;
    assert_true(msr_store_read(&s, MSR_IA32_XSS, &v) != STATUS_OK);
    assert_true(msr_store_write(&s, MSR_IA32_XSS, 0) != STATUS_OK);
}

/* The effective type of an address by the SDM's precedence (12.11.4.1), from the guest's registers. */
static unsigned type_of(uint64_t addr)
{
    uint64_t def = rd(MSR_IA32_MTRR_DEF_TYPE);
    assert_true(def & MTRR_DEF_TYPE_E);
    if (addr < 0x100000 && (def & MTRR_DEF_TYPE_FE)) {
        if (addr < 0x80000)
            return rd(0x250) >> (addr >> 16) * 8 & 0xff;
        if (addr < 0xc0000)
            return rd(0x258 + (addr >= 0xa0000)) >> (addr >> 14 & 7) * 8 & 0xff;
        return rd(0x268 + (uint32_t)((addr - 0xc0000) >> 15)) >> (addr >> 12 & 7) * 8 & 0xff;
    }
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t mask = rd(0x201 + 2 * i);
        if ((mask & MTRR_PHYSMASK_VALID) &&
            (addr & mask & ~0xfffull) == (rd(0x200 + 2 * i) & mask & ~0xfffull))
            return rd(0x200 + 2 * i) & 0xff;
    }
    return def & 0xff;
}

static void test_mtrrs_at_power_up(void **state)
{
    (void)state;
    enum { UC = 0, WB = 6 };
    assert_int_equal(type_of(0), WB);
    assert_int_equal(type_of(0x9ffff), WB);
    assert_int_equal(type_of(0xa0000), UC);
    assert_int_equal(type_of(0xbffff), UC);
    assert_int_equal(type_of(0xc0000), WB);
    assert_int_equal(type_of(0xfffff), WB);
    assert_int_equal(type_of(0xbfffffff), WB);
    assert_int_equal(type_of(0xc0000000), UC);
    assert_int_equal(type_of(0xfee00000), UC);
    assert_int_equal(type_of(0xffffffff), UC);
    assert_int_equal(type_of(0x100000000), WB);
    assert_int_equal(type_of(0x1c0000000), WB); /* the mask covers all address bits */
}

static void test_mtrr_writes(void **state)
{
    (void)state;
    static const uint64_t good_types[] = {0, 1, 4, 5, 6}, bad_types[] = {2, 3, 7, 8, 0xff};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(msr_store_write(&s, 0x202, 0x12345000 | good_types[i]), STATUS_OK);
        assert_int_equal(rd(0x202), 0x12345000 | good_types[i]);
        assert_int_equal(msr_store_write(&s, MSR_IA32_MTRR_DEF_TYPE, 0xc00 | good_types[i]), STATUS_OK);
        assert_int_equal(rd(MSR_IA32_MTRR_DEF_TYPE), 0xc00 | good_types[i]);
        assert_int_equal(msr_store_write(&s, 0x26f, good_types[i] << 56), STATUS_OK);
        assert_int_equal(rd(0x26f), good_types[i] << 56);
        uint64_t before = rd(0x202), def = rd(0x2ff), fix = rd(0x26f);
        assert_int_equal(msr_store_write(&s, 0x202, bad_types[i]), ERR_INVALID);
        assert_int_equal(msr_store_write(&s, 0x2ff, bad_types[i]), ERR_INVALID);
        assert_int_equal(msr_store_write(&s, 0x26f, bad_types[i] << 56), ERR_INVALID);
        assert_int_equal(msr_store_write(&s, 0x250, bad_types[i]), ERR_INVALID);
        assert_int_equal(rd(0x202), before);
        assert_int_equal(rd(0x2ff), def);
        assert_int_equal(rd(0x26f), fix);
    }
    assert_int_equal(msr_store_write(&s, 0x202, 0x100), ERR_INVALID);      /* reserved 11:8 */
    assert_int_equal(msr_store_write(&s, 0x202, 1ull << 46), ERR_INVALID); /* beyond MAXPHYADDR */
    assert_int_equal(msr_store_write(&s, 0x202, 1ull << 45 | 6), STATUS_OK);
    assert_int_equal(msr_store_write(&s, 0x20f, 1ull << 45 | 0x800), STATUS_OK);
    assert_int_equal(rd(0x20f), 1ull << 45 | 0x800);
    assert_int_equal(msr_store_write(&s, 0x20f, 0x400), ERR_INVALID);
    assert_int_equal(msr_store_write(&s, 0x20f, 1ull << 46), ERR_INVALID);
    assert_int_equal(msr_store_write(&s, 0x2ff, 0x1006), ERR_INVALID);
    assert_int_equal(msr_store_write(&s, 0x210, 0), ERR_NOT_FOUND);
}

static void test_efer_and_friends(void **state)
{
    (void)state;
    const uint64_t lm = EFER_LME | EFER_LMA;
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_EFER, EFER_NXE | EFER_SCE | lm, lm, true), STATUS_OK);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_EFER, EFER_LME, 0, false), STATUS_OK);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_EFER, EFER_LME, 0, true), ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_EFER, 0, lm, true), ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_EFER, 1 << 12, 0, false), ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_PAT, 0x0007040600070406, 0, false), STATUS_OK);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_PAT, 0x0007040600070402, 0, false), ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_PAT, 0x0807040600070406, 0, false), ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_FS_BASE, 0x00007fffffffffff, 0, false), STATUS_OK);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_FS_BASE, 0x0000800000000000, 0, false), ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_GS_BASE, 0xffff800000000000, 0, false), STATUS_OK);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_SYSENTER_EIP, 0x8000000000000000, 0, false),
                     ERR_INVALID);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_SYSENTER_CS, UINT64_MAX, 0, false), STATUS_OK);
    assert_int_equal(msr_virt_check(&cpuid, MSR_IA32_STAR, 0, 0, false), ERR_NOT_FOUND);
}

static void test_speculation_controls(void **state)
{
    (void)state;
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_SPEC_CTRL, false, 0), STATUS_OK);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_SPEC_CTRL, true, 7), STATUS_OK);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_SPEC_CTRL, true, 8), ERR_INVALID);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_PRED_CMD, true, 1), STATUS_OK);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_PRED_CMD, true, 2), ERR_INVALID);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_PRED_CMD, false, 0), ERR_INVALID); /* write-only */
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_FLUSH_CMD, true, 1), STATUS_OK);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_FLUSH_CMD, false, 0), ERR_INVALID);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_TSC, true, 0), ERR_NOT_FOUND);
    cpuid.spec_ctrl_allowed = 0;
    cpuid.has_pred_cmd = cpuid.has_flush_cmd = false;
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_SPEC_CTRL, false, 0), ERR_NOT_FOUND);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_PRED_CMD, true, 1), ERR_INVALID);
    assert_int_equal(msr_spec_check(&cpuid, MSR_IA32_FLUSH_CMD, true, 1), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_classes, setup),
        cmocka_unit_test_setup(test_store_and_table_agree, setup),
        cmocka_unit_test_setup(test_passed_list, setup),
        cmocka_unit_test_setup(test_constants, setup),
        cmocka_unit_test_setup(test_arch_capabilities_are_sanitized, setup),
        cmocka_unit_test_setup(test_misc_enable_debugctl_xss, setup),
        cmocka_unit_test_setup(test_mtrrs_at_power_up, setup),
        cmocka_unit_test_setup(test_mtrr_writes, setup),
        cmocka_unit_test_setup(test_efer_and_friends, setup),
        cmocka_unit_test_setup(test_speculation_controls, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
