/* Interrupt routing: lines to the PIC and the IOAPIC, messages and inter-processor interrupts to local APICs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "tests/host/fake_host.h"
#include "tests/host/machine.h"

/* Local APIC registers and ICR fields (SDM volume 3, "Interrupt Command Register"). */
#define REG_LDR    0xd0u
#define REG_SVR    0xf0u
#define REG_EOI    0xb0u
#define REG_TPR    0x80u
#define REG_ICR_LO 0x300u
#define REG_ICR_HI 0x310u

#define ICR_MODE(mode)      ((uint32_t)(mode) << 8)
#define ICR_LOGICAL         (1u << 11)
#define ICR_ASSERT          (1u << 14)
#define ICR_LEVEL           (1u << 15)
#define ICR_SHORTHAND(kind) ((uint32_t)(kind) << 18)

#define RTE_LEVEL   (1ull << 15)
#define RTE_LOGICAL (1ull << 11)

#define VECTOR 0x41u

static struct vm *vm;

static void svr(unsigned cpu, uint32_t value)
{
    lapic_mmio_write(&machine.vcpus[cpu].lapic, REG_SVR, 4, value);
}

static int setup(void **state)
{
    machine_init(4);
    vm = &machine.vm;
    for (unsigned i = 0; i < 4; i++) {
        svr(i, 0x1ff);
        lapic_mmio_write(&machine.vcpus[i].lapic, REG_LDR, 4, 1u << (24 + i));
    }
    fake_host.cpu = &core.cpus[0];
    return 0;
}

static bool has(unsigned cpu, unsigned vector)
{
    return machine.vcpus[cpu].lapic.irr[vector / 32] >> (vector % 32) & 1;
}

/* Which APICs have VECTOR, as a mask. */
static unsigned who_has(unsigned vector)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < 4; i++)
        mask |= (unsigned)has(i, vector) << i;
    return mask;
}

/* Which vCPUs have been asked for it. */
static unsigned who_was_asked(uint32_t request)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < 4; i++)
        mask |= (machine.vcpus[i].requests & request ? 1u : 0) << i;
    return mask;
}

static unsigned who_was_kicked(void)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < fake_host.kicks; i++)
        mask |= 1u << fake_host.kicked[i]->index;
    return mask;
}

static void ipi(unsigned from, uint32_t dest, uint32_t command)
{
    fake_host.cpu = &core.cpus[from];
    fake_host.kicks = 0;
    lapic_mmio_write(&machine.vcpus[from].lapic, REG_ICR_HI, 4, dest << 24);
    lapic_mmio_write(&machine.vcpus[from].lapic, REG_ICR_LO, 4, command);
}

static void port(uint16_t at, uint8_t value)
{
    struct io_req req = {.addr = at, .value = value, .size = 1, .write = true};
    emulate_port_access(&machine.vcpus[0], &req);
}

static void pic_start(void)
{
    port(PIC_MASTER_PORT, 0x11);
    port(PIC_MASTER_PORT + 1, 0x20);
    port(PIC_MASTER_PORT + 1, 4);
    port(PIC_MASTER_PORT + 1, 1);
    port(PIC_SLAVE_PORT, 0x11);
    port(PIC_SLAVE_PORT + 1, 0x28);
    port(PIC_SLAVE_PORT + 1, 2);
    port(PIC_SLAVE_PORT + 1, 1);
    port(PIC_MASTER_PORT + 1, 0);
    port(PIC_SLAVE_PORT + 1, 0);
}

static void route(unsigned pin, uint64_t entry)
{
    struct io_req req = {.size = 4, .write = true};
    for (unsigned half = 2; half-- > 0;) {
        req.addr = IOAPIC_BASE;
        req.value = 0x10 + 2 * pin + half;
        emulate_mmio_access(&machine.vcpus[0], &req);
        req.addr = IOAPIC_BASE + 0x10;
        req.value = (uint32_t)(half ? entry >> 32 : entry);
        emulate_mmio_access(&machine.vcpus[0], &req);
    }
}

static uint64_t to(unsigned cpu)
{
    return (uint64_t)cpu << 56;
}

/* ---- lines ---- */

static void test_line_to_pic(void **state)
{
    pic_start();
    fake_host.cpu = &core.cpus[1];
    irq_set_line(vm, 4, true);
    assert_true(pic_output(&vm->platform.pic));
    assert_int_equal(who_was_asked(VCPU_REQ_EVENT), 1); /* the PIC is wired to vCPU 0 */
    assert_int_equal(who_was_kicked(), 1);
    assert_int_equal(pic_acknowledge(&vm->platform.pic), 0x24);
    irq_set_line(vm, 4, false);
    irq_set_line(vm, 12, true);
    port(PIC_MASTER_PORT, 0x20);
    assert_int_equal(pic_acknowledge(&vm->platform.pic), 0x2c);
    irq_set_line(vm, 2, true); /* no such line: the cascade */
    irq_set_line(vm, 18, true);
    port(PIC_SLAVE_PORT, 0x20);
    port(PIC_MASTER_PORT, 0x20);
    assert_false(pic_output(&vm->platform.pic));
}

static void test_line_to_ioapic(void **state)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        route(pin, to(1) | (0x30 + pin));
    for (unsigned line = 0; line < IOAPIC_PINS; line++) {
        unsigned pin = line == 0 ? 2 : line; /* the timer's override */
        unsigned before = fake_host.kicks;
        machine.vcpus[1].requests = 0;
        memset(machine.vcpus[1].lapic.irr, 0, sizeof(machine.vcpus[1].lapic.irr));
        irq_set_line(vm, line, true);
        irq_set_line(vm, line, false);
        assert_int_equal(has(1, 0x30 + pin), line != 2);
        assert_int_equal(fake_host.kicks - before, line != 2);
        for (unsigned other = 0; other < IOAPIC_PINS; other++)
            assert_false(other != pin && has(1, 0x30 + other));
    }
    irq_set_line(vm, IOAPIC_PINS, true); /* out of range */
    assert_int_equal(who_was_asked(VCPU_REQ_EVENT), 2);
}

static void test_level_line_until_eoi(void **state)
{
    struct vcpu *v = &machine.vcpus[2];
    route(9, to(2) | RTE_LEVEL | VECTOR);
    irq_set_line(vm, 9, true);
    assert_int_equal(who_has(VECTOR), 4);
    lapic_take(&v->lapic, VECTOR);
    irq_set_line(vm, 9, true);
    assert_int_equal(who_has(VECTOR), 0); /* accepted, and not ended yet */
    lapic_mmio_write(&v->lapic, REG_EOI, 4, 0);
    assert_int_equal(who_has(VECTOR), 4); /* the line is still up */
    lapic_take(&v->lapic, VECTOR);
    irq_set_line(vm, 9, false);
    lapic_mmio_write(&v->lapic, REG_EOI, 4, 0);
    assert_int_equal(who_has(VECTOR), 0);
}

static void test_ioapic_modes(void **state)
{
    route(20, to(3) | (uint64_t)LAPIC_NMI << 8);
    irq_set_line(vm, 20, true);
    assert_int_equal(who_was_asked(VCPU_REQ_NMI), 8);
    route(21, to(0xf) | RTE_LOGICAL | VECTOR);
    irq_set_line(vm, 21, true);
    assert_int_equal(who_has(VECTOR), 0xf);
    route(22, to(0xe) | RTE_LOGICAL | (uint64_t)LAPIC_LOWEST << 8 | 0x51);
    irq_set_line(vm, 22, true);
    assert_int_equal(who_has(0x51), 2);
    route(23, to(1) | (uint64_t)LAPIC_EXTINT << 8 | 0x52); /* the PIC is wired to LINT0, not to the IOAPIC */
    irq_set_line(vm, 23, true);
    assert_int_equal(who_has(0x52), 0);
    assert_int_equal(who_was_asked(VCPU_REQ_INIT | VCPU_REQ_SIPI), 0);
}

/* ---- messages ---- */

static void test_messages(void **state)
{
    assert_true(irq_deliver(vm, 1, false, LAPIC_FIXED, VECTOR, false));
    assert_int_equal(who_has(VECTOR), 2);
    assert_false(machine.vcpus[1].lapic.tmr[VECTOR / 32] >> (VECTOR % 32) & 1);
    assert_true(irq_deliver(vm, 0xff, false, LAPIC_FIXED, 0x60, true));
    assert_int_equal(who_has(0x60), 0xf);
    assert_true(machine.vcpus[3].lapic.tmr[3] & 1);
    assert_true(irq_deliver(vm, 0x5, true, LAPIC_FIXED, 0x61, false));
    assert_int_equal(who_has(0x61), 5);
    assert_false(irq_deliver(vm, 9, false, LAPIC_FIXED, 0x62, false)); /* nobody */
    assert_false(irq_deliver(vm, 0x10, true, LAPIC_LOWEST, 0x62, false));
    assert_false(irq_deliver(vm, 1, false, LAPIC_SMI, 0x62, false));
    assert_false(irq_deliver(vm, 1, false, LAPIC_EXTINT, 0x62, false));
    assert_false(irq_deliver(vm, 1, false, 3, 0x62, false)); /* reserved */
    assert_int_equal(who_has(0x62), 0);
    svr(1, 0xff);
    assert_false(irq_deliver(vm, 1, false, LAPIC_FIXED, 0x63, false));
    assert_true(irq_deliver(vm, 3, true, LAPIC_FIXED, 0x63, false)); /* one of two takes it */
    assert_int_equal(who_has(0x63), 1);
    assert_true(irq_deliver(vm, 1, false, LAPIC_NMI, 0, false)); /* these reach a software-disabled APIC */
    assert_true(irq_deliver(vm, 1, false, LAPIC_INIT, 0, false));
    assert_int_equal(who_was_asked(VCPU_REQ_NMI), 2);
    assert_int_equal(who_was_asked(VCPU_REQ_INIT), 2);
}

static void tpr(unsigned cpu, uint32_t value)
{
    lapic_mmio_write(&machine.vcpus[cpu].lapic, REG_TPR, 4, value);
}

static void test_lowest_priority(void **state)
{
    assert_true(irq_deliver(vm, 0xf, true, LAPIC_LOWEST, 0x50, false)); /* all equal: the lowest ID */
    assert_int_equal(who_has(0x50), 1);
    tpr(0, 0x40);
    tpr(1, 0x30);
    tpr(2, 0x20);
    tpr(3, 0x20);
    assert_true(irq_deliver(vm, 0xf, true, LAPIC_LOWEST, 0x51, false));
    assert_int_equal(who_has(0x51), 4);
    assert_true(irq_deliver(vm, 0x3, true, LAPIC_LOWEST, 0x52, true));
    assert_int_equal(who_has(0x52), 2);
    assert_true(machine.vcpus[1].lapic.tmr[2] >> 18 & 1);
    assert_true(irq_deliver(vm, 0, false, LAPIC_LOWEST, 0x53, false)); /* physical: just that one */
    assert_int_equal(who_has(0x53), 1);
    /* A software-disabled APIC takes no part (SDM volume 3, "Local APIC State After It Has Been Software
     * Disabled"). */
    svr(2, 0xff);
    assert_true(irq_deliver(vm, 0xff, false, LAPIC_LOWEST, 0x54, false));
    assert_int_equal(who_has(0x54), 8);
    for (unsigned i = 0; i < 4; i++)
        svr(i, 0xff);
    assert_false(irq_deliver(vm, 0xff, false, LAPIC_LOWEST, 0x55, false));
}

/* ---- inter-processor interrupts ---- */

static void test_ipi_destinations(void **state)
{
    ipi(0, 2, ICR_ASSERT | 0x50);
    assert_int_equal(who_has(0x50), 4);
    assert_int_equal(who_was_kicked(), 4);
    ipi(1, 0xff, ICR_ASSERT | 0x51);
    assert_int_equal(who_has(0x51), 0xf); /* broadcast: the sender too */
    ipi(1, 0x9, ICR_ASSERT | ICR_LOGICAL | 0x52);
    assert_int_equal(who_has(0x52), 9);
    ipi(2, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_SELF) | 0x53);
    assert_int_equal(who_has(0x53), 4);
    ipi(2, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_ALL) | 0x54);
    assert_int_equal(who_has(0x54), 0xf);
    ipi(2, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_OTHERS) | 0x55);
    assert_int_equal(who_has(0x55), 0xb);
    ipi(2, 7, ICR_ASSERT | 0x56); /* nobody */
    assert_int_equal(who_has(0x56), 0);
}

static void test_ipi_lowest(void **state)
{
    tpr(3, 0x10);
    tpr(2, 0x20);
    tpr(1, 0x20);
    tpr(0, 0);
    ipi(1, 0xe, ICR_ASSERT | ICR_LOGICAL | ICR_MODE(LAPIC_LOWEST) | 0x50);
    assert_int_equal(who_has(0x50), 8);
    ipi(0, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_OTHERS) | ICR_MODE(LAPIC_LOWEST) | 0x51);
    assert_int_equal(who_has(0x51), 8); /* not the sender, although its priority is the lowest */
    ipi(3, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_OTHERS) | ICR_MODE(LAPIC_LOWEST) | 0x52);
    assert_int_equal(who_has(0x52), 1);
}

static void test_ipi_x2apic(void **state)
{
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(lapic_base_write(&machine.vcpus[i].lapic, LAPIC_BASE_DEFAULT | APIC_BASE_ENABLE |
                                                                       APIC_BASE_X2APIC |
                                                                       (i == 0 ? APIC_BASE_BSP : 0)),
                         STATUS_OK);
    struct lapic *l = &machine.vcpus[0].lapic;
    assert_int_equal(lapic_msr_write(l, 0x830, 3ull << 32 | ICR_ASSERT | 0x50), STATUS_OK);
    assert_int_equal(who_has(0x50), 8);
    assert_int_equal(lapic_msr_write(l, 0x830, 0xffffffffull << 32 | ICR_ASSERT | 0x51), STATUS_OK);
    assert_int_equal(who_has(0x51), 0xf);
    assert_int_equal(lapic_msr_write(l, 0x830, 6ull << 32 | ICR_LOGICAL | ICR_ASSERT | 0x52), STATUS_OK);
    assert_int_equal(who_has(0x52), 6);
    assert_int_equal(lapic_msr_write(l, 0x830, 0xffull << 32 | ICR_ASSERT | 0x53), STATUS_OK);
    assert_int_equal(who_has(0x53), 0); /* 0xff is no broadcast here */
    /* Devices reach x2APICs with their 8 bits. */
    assert_true(irq_deliver(vm, 2, false, LAPIC_FIXED, 0x54, false));
    assert_int_equal(who_has(0x54), 4);
}

static void test_ipi_nmi(void **state)
{
    ipi(0, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_OTHERS) | ICR_MODE(LAPIC_NMI));
    assert_int_equal(who_was_asked(VCPU_REQ_NMI), 0xe);
    assert_int_equal(who_was_kicked(), 0xe);
    ipi(3, 0, ICR_ASSERT | ICR_MODE(LAPIC_NMI));
    assert_int_equal(who_was_asked(VCPU_REQ_NMI), 0xf);
}

static void test_init_and_sipi(void **state)
{
    ipi(0, 2, ICR_ASSERT | ICR_LEVEL | ICR_MODE(LAPIC_INIT));
    assert_int_equal(who_was_asked(VCPU_REQ_INIT), 4);
    ipi(0, 2, ICR_LEVEL | ICR_MODE(LAPIC_INIT)); /* de-assert: nothing */
    ipi(0, 2, ICR_ASSERT | ICR_MODE(LAPIC_SIPI) | 0x9a);
    assert_int_equal(who_was_asked(VCPU_REQ_SIPI), 4);
    assert_int_equal(who_was_asked(VCPU_REQ_INIT), 4);
    assert_int_equal(machine.vcpus[2].sipi_vector, 0x9a);
    /* A later INIT voids the SIPI that came before it. */
    ipi(0, 0, ICR_ASSERT | ICR_LEVEL | ICR_SHORTHAND(LAPIC_DEST_OTHERS) | ICR_MODE(LAPIC_INIT));
    assert_int_equal(who_was_asked(VCPU_REQ_INIT), 0xe);
    assert_int_equal(who_was_asked(VCPU_REQ_SIPI), 0);
    ipi(0, 0, ICR_ASSERT | ICR_SHORTHAND(LAPIC_DEST_OTHERS) | ICR_MODE(LAPIC_SIPI) | 0x08);
    assert_int_equal(who_was_asked(VCPU_REQ_SIPI), 0xe);
    assert_int_equal(machine.vcpus[3].sipi_vector, 8);
}

/* The request is what the vCPU's own loop makes of it. */
static void test_init_sipi_starts_a_vcpu(void **state)
{
    struct vcpu *v = &machine.vcpus[1];
    vcpu_reset(v, false);
    svr(1, 0x1ff);
    ipi(0, 1, ICR_ASSERT | ICR_LEVEL | ICR_MODE(LAPIC_INIT));
    ipi(0, 1, ICR_ASSERT | ICR_MODE(LAPIC_SIPI) | 0x9a);
    fake_host.cpu = &core.cpus[1];
    assert_true(vcpu_prepare_entry(v));
    assert_int_equal(virt_get_seg(v, SEG_CS).base, 0x9a000);
    assert_int_equal(virt_get(v, VIRT_RIP), 0);
    assert_int_equal(v->requests, 0);
}

/* A kick is for a CPU that is elsewhere and has not been asked yet. */
static void test_kicks(void **state)
{
    ipi(0, 1, ICR_ASSERT | 0x50);
    assert_int_equal(fake_host.kicks, 1);
    ipi(0, 1, ICR_ASSERT | 0x51);
    assert_int_equal(fake_host.kicks, 0); /* the first one is not read yet */
    machine.vcpus[1].requests = 0;
    ipi(1, 1, ICR_ASSERT | 0x52);
    assert_int_equal(fake_host.kicks, 0);
    assert_true(has(1, 0x52));
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_line_to_pic),
        T(test_line_to_ioapic),
        T(test_level_line_until_eoi),
        T(test_ioapic_modes),
        T(test_messages),
        T(test_lowest_priority),
        T(test_ipi_destinations),
        T(test_ipi_lowest),
        T(test_ipi_x2apic),
        T(test_ipi_nmi),
        T(test_init_and_sipi),
        T(test_init_sipi_starts_a_vcpu),
        T(test_kicks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
