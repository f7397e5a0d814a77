/* Power-up, INIT and SIPI: the SDM's table "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
 * INIT" (volume 3), row by row. Before each reset every register holds something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "tests/host/run_path.h"

#define DIRT 0x1122334455667788ull

static void soil(struct vcpu *vcpu)
{
    struct fake_vcpu *f = fake_vcpu(vcpu);
    for (unsigned i = 0; i < VIRT_REG_COUNT; i++)
        f->reg[i] = DIRT + i;
    f->reg[VIRT_CR0] = CR0_PG | CR0_PE | CR0_NE | CR0_WP | CR0_ET; /* caches on */
    for (unsigned i = 0; i < SEG_COUNT; i++)
        f->seg[i] = (struct seg){.base = DIRT, .limit = 0x1234, .access = 0xa09b, .selector = 0x33};
    for (unsigned i = 0; i < 16; i++)
        vcpu->gpr[i] = DIRT;
    vcpu->tsc_offset = 12345;
    vcpu->tsc_adjust = 77;
    vcpu->xcr0 = XSTATE_X87 | XSTATE_SSE;
    vcpu->msrs.misc_enable = DIRT;
    vcpu->stop = STOP_TRIPLE_FAULT;
    vcpu->events = (struct events_state){.activity = VIRT_HALTED,
                                         .pending = EVENTS_NMI | EVENTS_HELD,
                                         .held = {.valid = true, .vector = 0x61}};
    vcpu->requests = 0;
    run_path_post(vcpu, 0x55);
    lapic_set_cr8(&vcpu->lapic, 7);
}

static int setup(void **state)
{
    (void)state;
    run_path_init(2);
    machine.vm.start_tsc = 1000;
    soil(VCPU(0));
    soil(VCPU(1));
    fake_vcpu_forget(VCPU(0));
    fake_vcpu_forget(VCPU(1));
    VCPU(0)->requests = VCPU(1)->requests = 0;
    return 0;
}

struct expected {
    enum virt_reg reg;
    uint64_t value;
};

/* Rows that are the same after power-up and INIT. */
static const struct expected common[] = {
    {VIRT_RFLAGS, 2},
    {VIRT_RIP, 0xfff0},
    {VIRT_RSP, 0},
    {VIRT_CR2, 0},
    {VIRT_CR3, 0},
    {VIRT_CR4, 0},
    {VIRT_EFER, 0},
    {VIRT_DR0, 0},
    {VIRT_DR1, 0},
    {VIRT_DR2, 0},
    {VIRT_DR3, 0},
    {VIRT_DR6, 0xffff0ff0},
    {VIRT_DR7, 0x400},
    {VIRT_GDTR_BASE, 0},
    {VIRT_GDTR_LIMIT, 0xffff},
    {VIRT_IDTR_BASE, 0},
    {VIRT_IDTR_LIMIT, 0xffff},
    {VIRT_INTR_SHADOW, 0},
    {VIRT_PENDING_DEBUG, 0},
    {VIRT_ACTIVITY, VIRT_ACTIVE}, /* waiting for a SIPI is done in software */
    {VIRT_PDPTE0, 0},
    {VIRT_PDPTE3, 0},
};

static void check_seg(struct vcpu *vcpu, enum seg_name name, uint16_t selector, uint64_t base,
                      uint32_t access)
{
    struct seg seg = virt_get_seg(vcpu, name);
    assert_int_equal(seg.selector, selector);
    assert_int_equal(seg.base, base);
    assert_int_equal(seg.limit, 0xffff);
    assert_int_equal(seg.access, access);
}

static void check_common(struct vcpu *vcpu)
{
    for (unsigned i = 0; i < ARRAY_SIZE(common); i++) {
        if (virt_get(vcpu, common[i].reg) != common[i].value)
            fail_msg("register %d is %llx", common[i].reg, (unsigned long long)virt_get(vcpu, common[i].reg));
    }
    check_seg(vcpu, SEG_CS, 0xf000, 0xffff0000, 0x9b);
    check_seg(vcpu, SEG_SS, 0, 0, 0x93);
    check_seg(vcpu, SEG_DS, 0, 0, 0x93);
    check_seg(vcpu, SEG_ES, 0, 0, 0x93);
    check_seg(vcpu, SEG_FS, 0, 0, 0x93);
    check_seg(vcpu, SEG_GS, 0, 0, 0x93);
    check_seg(vcpu, SEG_LDTR, 0, 0, 0x82);
    check_seg(vcpu, SEG_TR, 0, 0, 0x8b);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(vcpu->gpr[i], i == RDX ? 0x600 : 0);
    assert_int_equal(lapic_cr8(&vcpu->lapic), 0);
    assert_int_equal(lapic_highest_irr(&vcpu->lapic), -1);
    assert_true(fake_vcpu(vcpu)->linear_flushes >= 1);
}

static void power_up(struct vcpu *vcpu)
{
    lapic_reset(&vcpu->lapic); /* vm_start() does this for all of a VM */
    vcpu_reset(vcpu, false);
}

static void test_power_up(void **state)
{
    (void)state;
    struct vcpu *vcpu = VCPU(0);
    struct fake_vcpu *f = fake_vcpu(vcpu);
    vcpu->intr_window = vcpu->nmi_window = f->intr_window = f->nmi_window = true;
    f->inject = (struct event){.valid = true, .vector = 14};
    power_up(vcpu);
    check_common(vcpu);
    assert_int_equal(virt_get(vcpu, VIRT_CR0), 0x60000010);
    assert_int_equal(virt_get(vcpu, VIRT_PAT), 0x0007040600070406);
    assert_int_equal(virt_get(vcpu, VIRT_SYSENTER_CS), 0);
    assert_int_equal(virt_get(vcpu, VIRT_SYSENTER_ESP), 0);
    assert_int_equal(virt_get(vcpu, VIRT_SYSENTER_EIP), 0);
    assert_int_equal(vcpu->xcr0, 1);
    assert_int_equal(f->clears, 1); /* x87, SSE, SYSCALL MSRs, SPEC_CTRL */
    /* The TSC counts from the VM's start. */
    assert_int_equal(vcpu->tsc_offset, (uint64_t)-1000);
    assert_int_equal(virt_get(vcpu, VIRT_TSC_OFFSET), (uint64_t)-1000);
    assert_int_equal(vcpu->tsc_adjust, 0);
    uint64_t misc;
    assert_int_equal(msr_store_read(&vcpu->msrs, MSR_IA32_MISC_ENABLE, &misc), STATUS_OK);
    assert_int_not_equal(misc, DIRT);
    /* Nothing of an earlier life waits. */
    assert_false(vcpu->intr_window || vcpu->nmi_window || f->intr_window || f->nmi_window);
    assert_false(f->inject.valid);
    assert_int_equal(vcpu->events.pending, 0);
    assert_int_equal(vcpu->stop, STOP_NONE);
    assert_int_equal(vcpu->events.activity, VIRT_ACTIVE);
}

static void test_init(void **state)
{
    (void)state;
    struct vcpu *vcpu = VCPU(1);
    uint64_t base = vcpu->lapic.base_msr;
    vcpu_reset(vcpu, true);
    check_common(vcpu);
    /* "Unchanged". */
    assert_int_equal(virt_get(vcpu, VIRT_PAT), DIRT + VIRT_PAT);
    assert_int_equal(virt_get(vcpu, VIRT_SYSENTER_CS), DIRT + VIRT_SYSENTER_CS);
    assert_int_equal(virt_get(vcpu, VIRT_SYSENTER_ESP), DIRT + VIRT_SYSENTER_ESP);
    assert_int_equal(virt_get(vcpu, VIRT_SYSENTER_EIP), DIRT + VIRT_SYSENTER_EIP);
    assert_int_equal(virt_get(vcpu, VIRT_TSC_OFFSET), DIRT + VIRT_TSC_OFFSET);
    assert_int_equal(vcpu->tsc_offset, 12345);
    assert_int_equal(vcpu->tsc_adjust, 77);
    assert_int_equal(vcpu->xcr0, XSTATE_X87 | XSTATE_SSE);
    assert_int_equal(vcpu->msrs.misc_enable, DIRT);
    assert_int_equal(fake_vcpu(vcpu)->clears, 0);
    assert_int_equal(vcpu->lapic.base_msr, base);
    assert_int_equal(vcpu->events.activity, VIRT_WAIT_SIPI);
}

/* Footnote of CR0: "The CD and NW flags are unchanged, bit 4 is set to 1, all other bits are cleared." */
static void test_init_leaves_the_caches_alone(void **state)
{
    (void)state;
    static const uint64_t bits[] = {0, CR0_CD, CR0_CD | CR0_NW};
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        fake_vcpu(VCPU(1))->reg[VIRT_CR0] = CR0_PG | CR0_PE | CR0_WP | CR0_TS | bits[i];
        vcpu_reset(VCPU(1), true);
        assert_int_equal(virt_get(VCPU(1), VIRT_CR0), CR0_ET | bits[i]);
    }
}

/* The processors but the first wait for their start-up message after both. */
static void test_who_waits(void **state)
{
    (void)state;
    lapic_reset(&VCPU(1)->lapic);
    VCPU(1)->requests = 0;
    vcpu_reset(VCPU(0), false);
    vcpu_reset(VCPU(1), false);
    assert_int_equal(VCPU(0)->events.activity, VIRT_ACTIVE);
    assert_int_equal(VCPU(1)->events.activity, VIRT_WAIT_SIPI);
    /* It must look before it enters. */
    assert_true(VCPU(1)->requests != 0);
}

static void test_sipi(void **state)
{
    (void)state;
    static const uint8_t vectors[] = {0x00, 0x01, 0x9a, 0xff};
    for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++) {
        vcpu_reset(VCPU(1), true);
        virt_set(VCPU(1), VIRT_ACTIVITY, VIRT_WAIT_SIPI);
        vcpu_start_sipi(VCPU(1), vectors[i]);
        check_seg(VCPU(1), SEG_CS, (uint16_t)(vectors[i] << 8), (uint64_t)vectors[i] << 12, 0x9b);
        assert_int_equal(virt_get(VCPU(1), VIRT_RIP), 0);
        assert_int_equal(virt_get(VCPU(1), VIRT_ACTIVITY), VIRT_ACTIVE);
        assert_int_equal(VCPU(1)->events.activity, VIRT_ACTIVE);
        check_seg(VCPU(1), SEG_DS, 0, 0, 0x93); /* the rest stays as INIT left it */
        assert_int_equal(virt_get(VCPU(1), VIRT_RFLAGS), 2);
    }
}

/* INIT ends the APIC's timer, and with it the deadline. */
static void test_init_disarms_the_timer(void **state)
{
    (void)state;
    struct vcpu *vcpu = VCPU(1);
    vcpu->tsc_offset = 0;
    lapic_mmio_write(&vcpu->lapic, 0x320, 4, 0x40);
    lapic_mmio_write(&vcpu->lapic, 0x380, 4, 1000);
    assert_true(vcpu->deadline_tsc != UINT64_MAX);
    vcpu_reset(vcpu, true);
    assert_int_equal(vcpu->deadline_tsc, UINT64_MAX);
    vcpu->deadline_tsc = 1; /* of an earlier life */
    vcpu_reset(vcpu, false);
    assert_int_equal(vcpu->deadline_tsc, UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_power_up, setup),
        cmocka_unit_test_setup(test_init, setup),
        cmocka_unit_test_setup(test_init_leaves_the_caches_alone, setup),
        cmocka_unit_test_setup(test_who_waits, setup),
        cmocka_unit_test_setup(test_sipi, setup),
        cmocka_unit_test_setup(test_init_disarms_the_timer, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
