/* RDMSR and WRMSR: each class of the policy, what reaches the hardware, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/lib/log.h"
#include "tests/host/run_path.h"

#define HIGH_RUBBISH 0xdeadbeef00000000ull

static struct vcpu *v;
static struct fake_vcpu *f;

static int setup(void **state)
{
    (void)state;
    run_path_init(1);
    v = VCPU(0);
    f = fake_vcpu(v);
    return 0;
}

static struct exit_result read_result(uint32_t msr)
{
    struct exit exit = {.kind = EXIT_RDMSR, .insn_len = 2};
    v->gpr[RCX] = HIGH_RUBBISH | msr;
    v->gpr[RAX] = v->gpr[RDX] = UINT64_MAX;
    return run_path_handle(v, &exit);
}

static uint64_t read_msr(uint32_t msr)
{
    assert_advances(read_result(msr));
    assert_int_equal((v->gpr[RAX] | v->gpr[RDX]) >> 32, 0);
    return v->gpr[RDX] << 32 | v->gpr[RAX];
}

static struct exit_result write_msr(uint32_t msr, uint64_t value)
{
    struct exit exit = {.kind = EXIT_WRMSR, .insn_len = 2};
    v->gpr[RCX] = HIGH_RUBBISH | msr;
    v->gpr[RAX] = HIGH_RUBBISH | (uint32_t)value;
    v->gpr[RDX] = HIGH_RUBBISH | value >> 32;
    return run_path_handle(v, &exit);
}

static void assert_read_refused(uint32_t msr)
{
    assert_injects_error(read_result(msr), VECTOR_GP, 0);
    assert_int_equal(v->gpr[RAX], UINT64_MAX); /* the registers stay */
    assert_int_equal(v->gpr[RDX], UINT64_MAX);
}

static void assert_write_refused(uint32_t msr, uint64_t value)
{
    unsigned writes = f->writes, spec = f->spec_writes;
    assert_injects_error(write_msr(msr, value), VECTOR_GP, 0);
    assert_int_equal(f->writes, writes);
    assert_int_equal(f->spec_writes, spec);
}

static void test_unknown(void **state)
{
    (void)state;
    assert_read_refused(0x4711);
    assert_write_refused(0x4711, 1);
    assert_read_refused(0xffffffff);
    assert_read_refused(MSR_IA32_VMX_BASIC);
    assert_read_refused(MSR_IA32_LSTAR); /* the guest's own: never exits */
    assert_write_refused(MSR_IA32_LSTAR, 0);
    assert_true(fake_host_logged("RDMSR of MSR 0x4711 (?)"));
    assert_true(fake_host_logged("WRMSR of MSR 0x4711 (?), value 0x1"));
    assert_true(fake_host_logged("IA32_VMX_*"));
}

/* One line for each MSR and direction. */
static void test_logged_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        assert_read_refused(0x4711);
        assert_write_refused(0x4711, i);
        assert_read_refused(0x4712);
    }
    assert_int_equal(fake_host.log_lines, 3);
}

static void test_apic_base(void **state)
{
    (void)state;
    assert_int_equal(read_msr(MSR_IA32_APIC_BASE), LAPIC_BASE_DEFAULT | APIC_BASE_ENABLE | APIC_BASE_BSP);
    assert_read_refused(0x802); /* not in x2APIC mode */
    assert_write_refused(MSR_IA32_APIC_BASE, LAPIC_BASE_DEFAULT | APIC_BASE_X2APIC);
    assert_advances(write_msr(MSR_IA32_APIC_BASE,
                              LAPIC_BASE_DEFAULT | APIC_BASE_ENABLE | APIC_BASE_X2APIC | APIC_BASE_BSP));
    assert_int_equal(read_msr(0x802), 0);
    assert_advances(write_msr(0x808, 0x20));
    assert_int_equal(read_msr(0x808), 0x20);
    assert_write_refused(0x808, 0x100);
}

static void test_tsc_deadline(void **state)
{
    (void)state;
    lapic_mmio_write(&v->lapic, 0xf0, 4, 0x1ff);
    lapic_mmio_write(&v->lapic, 0x320, 4, 2u << 17 | 0x40);
    v->tsc_offset = 500;
    assert_advances(write_msr(MSR_IA32_TSC_DEADLINE, fake_host.tsc + 10500));
    assert_int_equal(v->deadline_tsc, fake_host.tsc + 10000); /* the host's clock */
    assert_int_equal(read_msr(MSR_IA32_TSC_DEADLINE), fake_host.tsc + 10500);
    assert_advances(write_msr(MSR_IA32_TSC_DEADLINE, 0));
    assert_int_equal(v->deadline_tsc, UINT64_MAX);
}

/* SDM volume 3, "Time-Stamp Counter Adjustment": each of the two registers moves the other. */
static void test_tsc_and_adjust(void **state)
{
    (void)state;
    fake_host.tsc = 1000000;
    assert_int_equal(read_msr(MSR_IA32_TSC), 1000000);
    assert_int_equal(read_msr(MSR_IA32_TSC_ADJUST), 0);
    assert_advances(write_msr(MSR_IA32_TSC, 5000));
    assert_int_equal(read_msr(MSR_IA32_TSC), 5000);
    assert_int_equal(read_msr(MSR_IA32_TSC_ADJUST), (uint64_t)5000 - 1000000);
    assert_int_equal(virt_get(v, VIRT_TSC_OFFSET), v->tsc_offset);
    assert_advances(write_msr(MSR_IA32_TSC_ADJUST, 0));
    assert_int_equal(read_msr(MSR_IA32_TSC), 1000000);
    assert_advances(write_msr(MSR_IA32_TSC_ADJUST, 77));
    assert_int_equal(read_msr(MSR_IA32_TSC), 1000077);
    assert_int_equal(virt_get(v, VIRT_TSC_OFFSET), 77);
}

/* A timer that counts keeps its time when the TSC jumps; a TSC deadline follows the TSC. */
static void test_tsc_moves_the_deadline(void **state)
{
    (void)state;
    uint64_t now = fake_host.tsc;
    lapic_mmio_write(&v->lapic, 0xf0, 4, 0x1ff);
    lapic_mmio_write(&v->lapic, 0x3e0, 4, 0xb); /* divide by 1 */
    lapic_mmio_write(&v->lapic, 0x320, 4, 0x40);
    lapic_mmio_write(&v->lapic, 0x380, 4, 1000);
    uint64_t span = v->deadline_tsc - now;
    assert_true(span >= 1000);
    assert_advances(write_msr(MSR_IA32_TSC, now + 1000000000));
    assert_int_equal(v->deadline_tsc, now + span);
    lapic_mmio_write(&v->lapic, 0x320, 4, 2u << 17 | 0x40);
    assert_advances(write_msr(MSR_IA32_TSC_DEADLINE, now + 1000005000));
    assert_int_equal(v->deadline_tsc, now + 5000);
    assert_advances(write_msr(MSR_IA32_TSC, now));
    assert_int_equal(v->deadline_tsc, now + 1000005000);
}

static void test_store(void **state)
{
    (void)state;
    assert_int_equal(read_msr(MSR_IA32_BIOS_SIGN_ID), 0x4200000000ull);
    assert_int_equal(read_msr(MSR_IA32_FEATURE_CONTROL), 1);
    assert_write_refused(MSR_IA32_FEATURE_CONTROL, 5); /* locked, and not there to be written */
    assert_advances(write_msr(MSR_IA32_MTRR_DEF_TYPE, 0xc06));
    assert_int_equal(read_msr(MSR_IA32_MTRR_DEF_TYPE), 0xc06);
    assert_write_refused(MSR_IA32_MTRR_DEF_TYPE, 0xc02); /* no such type */
    assert_int_equal(read_msr(MSR_IA32_MTRR_DEF_TYPE), 0xc06);
}

static void test_efer(void **state)
{
    (void)state;
    uint64_t efer = EFER_LME | EFER_LMA | EFER_NXE;
    assert_int_equal(read_msr(MSR_IA32_EFER), efer);
    assert_advances(write_msr(MSR_IA32_EFER, EFER_LME | EFER_SCE)); /* LMA is read-only: kept */
    assert_int_equal(virt_get(v, VIRT_EFER), EFER_LME | EFER_LMA | EFER_SCE);
    assert_write_refused(MSR_IA32_EFER, EFER_SCE);          /* LME cannot change with paging on */
    assert_write_refused(MSR_IA32_EFER, EFER_LME | BIT(2)); /* reserved */
    machine_protected_mode(v);
    assert_advances(write_msr(MSR_IA32_EFER, EFER_LME | EFER_LMA)); /* nor can it be set */
    assert_int_equal(virt_get(v, VIRT_EFER), EFER_LME);
}

static void test_registers_of_the_hardware(void **state)
{
    (void)state;
    static const struct {
        uint32_t msr;
        enum virt_reg reg;
        uint64_t good, bad; /* bad 0: every value is good */
    } rows[] = {
        {MSR_IA32_PAT, VIRT_PAT, 0x0007040600070406, 0x0007040600070403},
        {MSR_IA32_SYSENTER_CS, VIRT_SYSENTER_CS, 0x10, 0},
        {MSR_IA32_SYSENTER_ESP, VIRT_SYSENTER_ESP, 0xffff800000001000, 0x0000800000000000},
        {MSR_IA32_SYSENTER_EIP, VIRT_SYSENTER_EIP, 0x00007fffffffffff, 0xffff7fffffffffff},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_advances(write_msr(rows[i].msr, rows[i].good));
        assert_int_equal(virt_get(v, rows[i].reg), rows[i].good);
        assert_int_equal(read_msr(rows[i].msr), rows[i].good);
        if (rows[i].bad)
            assert_write_refused(rows[i].msr, rows[i].bad);
    }
}

static void test_segment_bases(void **state)
{
    (void)state;
    static const struct {
        uint32_t msr;
        enum seg_name name;
    } rows[] = {{MSR_IA32_FS_BASE, SEG_FS}, {MSR_IA32_GS_BASE, SEG_GS}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct seg before = virt_get_seg(v, rows[i].name);
        assert_advances(write_msr(rows[i].msr, 0xffff888000000000 + i));
        struct seg after = virt_get_seg(v, rows[i].name);
        assert_int_equal(after.base, 0xffff888000000000 + i);
        assert_int_equal(after.access, before.access);
        assert_int_equal(after.limit, before.limit);
        assert_int_equal(read_msr(rows[i].msr), after.base);
        assert_write_refused(rows[i].msr, 0x1000000000000000);
    }
    assert_int_equal(virt_get_seg(v, SEG_DS).base, 0);
}

static void test_speculation(void **state)
{
    (void)state;
    uint64_t allowed = machine.vm.cpuid.spec_ctrl_allowed;
    assert_true(allowed & 1);
    assert_advances(write_msr(MSR_IA32_SPEC_CTRL, allowed));
    assert_int_equal(f->spec[0].msr, MSR_IA32_SPEC_CTRL);
    assert_int_equal(f->spec[0].value, allowed);
    assert_int_equal(read_msr(MSR_IA32_SPEC_CTRL), allowed);
    assert_write_refused(MSR_IA32_SPEC_CTRL, allowed | BIT(40));
    assert_advances(write_msr(MSR_IA32_PRED_CMD, 1));
    assert_int_equal(f->spec[1].msr, MSR_IA32_PRED_CMD);
    assert_write_refused(MSR_IA32_PRED_CMD, 2);
    assert_read_refused(MSR_IA32_PRED_CMD); /* a command */
    machine.vm.cpuid.spec_ctrl_allowed = 0;
    assert_write_refused(MSR_IA32_SPEC_CTRL, 0);
    assert_read_refused(MSR_IA32_SPEC_CTRL);
    assert_int_equal(f->spec_reads, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_unknown, setup),
        cmocka_unit_test_setup(test_logged_once, setup),
        cmocka_unit_test_setup(test_apic_base, setup),
        cmocka_unit_test_setup(test_tsc_deadline, setup),
        cmocka_unit_test_setup(test_tsc_and_adjust, setup),
        cmocka_unit_test_setup(test_tsc_moves_the_deadline, setup),
        cmocka_unit_test_setup(test_store, setup),
        cmocka_unit_test_setup(test_efer, setup),
        cmocka_unit_test_setup(test_registers_of_the_hardware, setup),
        cmocka_unit_test_setup(test_segment_bases, setup),
        cmocka_unit_test_setup(test_speculation, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
