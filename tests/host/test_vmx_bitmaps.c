#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/msr.h"
#include "arch/x86/vmx/vmx_bitmaps.h"

static uint8_t page[VMX_BITMAP_SIZE], other[VMX_BITMAP_SIZE];

/* Checks the whole page: all ones but for these (offset, value) pairs; offset 0xffff ends the list. */
static void expect_bytes(const uint16_t *pairs)
{
    uint8_t want[VMX_BITMAP_SIZE];
    memset(want, 0xff, sizeof(want));
    for (; *pairs != 0xffff; pairs += 2)
        want[pairs[0]] = (uint8_t)pairs[1];
    assert_memory_equal(page, want, sizeof(want));
}
#define EXPECT(...) expect_bytes((const uint16_t[]){__VA_ARGS__, 0xffff})

static void test_default_is_all_intercepted(void **state)
{
    memset(page, 0, sizeof(page));
    vmx_msr_bitmap_init(page);
    EXPECT(0, 0xff);
    memset(page, 0, sizeof(page));
    memset(other, 0, sizeof(other));
    vmx_io_bitmap_init(page, other);
    EXPECT(0, 0xff);
    assert_memory_equal(page, other, sizeof(page));
}

static void test_exact_bytes(void **state)
{
    vmx_msr_bitmap_init(page);
    assert_int_equal(vmx_msr_bitmap_pass(page, MSR_IA32_TSC_DEADLINE, true, false), STATUS_OK);
    EXPECT(0x6e0 / 8, 0xfe);
    assert_int_equal(vmx_msr_bitmap_pass(page, MSR_IA32_TSC_DEADLINE, false, true), STATUS_OK);
    EXPECT(2048 + 0x6e0 / 8, 0xfe);
    assert_int_equal(vmx_msr_bitmap_pass(page, MSR_IA32_TSC_DEADLINE, false, false), STATUS_OK);
    EXPECT(0, 0xff);

    assert_int_equal(vmx_msr_bitmap_pass(page, MSR_IA32_GS_BASE, true, true), STATUS_OK);
    assert_int_equal(vmx_msr_bitmap_pass(page, MSR_IA32_FS_BASE, true, true), STATUS_OK);
    EXPECT(1024 + 0x100 / 8, 0xfc, 3072 + 0x100 / 8, 0xfc);
    assert_int_equal(vmx_msr_bitmap_pass(page, MSR_IA32_FS_BASE, true, false), STATUS_OK);
    EXPECT(1024 + 0x100 / 8, 0xfc, 3072 + 0x100 / 8, 0xfd);
}

static void test_ends_of_the_ranges(void **state)
{
    vmx_msr_bitmap_init(page);
    assert_int_equal(vmx_msr_bitmap_pass(page, 0, true, true), STATUS_OK);
    assert_int_equal(vmx_msr_bitmap_pass(page, 0x1fff, true, true), STATUS_OK);
    EXPECT(0, 0xfe, 1023, 0x7f, 2048, 0xfe, 3071, 0x7f);
    vmx_msr_bitmap_init(page);
    assert_int_equal(vmx_msr_bitmap_pass(page, 0xc0000000, true, true), STATUS_OK);
    assert_int_equal(vmx_msr_bitmap_pass(page, 0xc0001fff, true, true), STATUS_OK);
    EXPECT(1024, 0xfe, 2047, 0x7f, 3072, 0xfe, 4095, 0x7f);
}

static void test_uncovered_msrs_are_refused(void **state)
{
    static const uint32_t msrs[] = {0x2000, 0x40000000, 0xbfffffff, 0xc0002000, 0xffffffff};
    vmx_msr_bitmap_init(page);
    for (size_t i = 0; i < ARRAY_SIZE(msrs); i++) {
        assert_int_equal(vmx_msr_bitmap_pass(page, msrs[i], true, true), ERR_RANGE);
        assert_true(vmx_msr_bitmap_exits(page, msrs[i], false));
        assert_true(vmx_msr_bitmap_exits(page, msrs[i], true));
    }
    EXPECT(0, 0xff);
}

static void test_exits(void **state)
{
    vmx_msr_bitmap_init(page);
    assert_true(vmx_msr_bitmap_exits(page, MSR_IA32_EFER, false));
    vmx_msr_bitmap_pass(page, MSR_IA32_EFER, true, false);
    assert_false(vmx_msr_bitmap_exits(page, MSR_IA32_EFER, false));
    assert_true(vmx_msr_bitmap_exits(page, MSR_IA32_EFER, true));
    assert_true(vmx_msr_bitmap_exits(page, MSR_IA32_STAR, false));
    assert_true(vmx_msr_bitmap_exits(page, 0x80, false)); /* the same place in the other half */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_is_all_intercepted),
        cmocka_unit_test(test_exact_bytes),
        cmocka_unit_test(test_ends_of_the_ranges),
        cmocka_unit_test(test_uncovered_msrs_are_refused),
        cmocka_unit_test(test_exits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
