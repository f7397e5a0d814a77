#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hv/assign/msi.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "tests/host/fake_host.h"
#include "tests/host/machine.h"

#define ADDRESS(dest) (0xfee00000ull | (uint64_t)(dest) << 12)
#define LOGICAL       BIT(2)
#define RH            BIT(3)
#define SVR           0xf0u
#define LDR           0xd0u

static struct msi_cpu tables[MACHINE_VCPUS];
static struct msi_irq irq;

static int setup(void **state)
{
    machine_init(MACHINE_VCPUS);
    memset(tables, 0, sizeof(tables));
    for (unsigned i = 0; i < MACHINE_VCPUS; i++) {
        struct vcpu *v = machine.vm.vcpus[i];
        v->cpu->msi = &tables[i];
        lapic_mmio_write(&v->lapic, SVR, 4, 0x1ff);
        lapic_mmio_write(&v->lapic, LDR, 4, 1u << (24 + i)); /* flat: CPU i is bit i */
        v->requests = 0;
    }
    irq = (struct msi_irq){.vm = &machine.vm};
    return 0;
}

static bool waits(unsigned vcpu, uint8_t vector)
{
    const struct lapic *l = &machine.vm.vcpus[vcpu]->lapic;
    return l->irr[vector / 32] & BIT(vector % 32);
}

/* Which vCPUs have the vector. */
static unsigned who(uint8_t vector)
{
    unsigned set = 0;
    for (unsigned i = 0; i < MACHINE_VCPUS; i++)
        set |= waits(i, vector) ? 1u << i : 0;
    return set;
}

static void test_physical(void **state)
{
    struct vcpu *where = NULL;
    uint8_t vector;
    assert_true(msi_set_message(&irq, ADDRESS(2), 0x51, &where));
    assert_ptr_equal(where, machine.vm.vcpus[2]);
    assert_int_equal(msi_take_vector(&irq, where->cpu, &vector), STATUS_OK);
    assert_int_equal(vector, MSI_FIRST_VECTOR);
    assert_false(msi_fire(machine.vm.vcpus[1]->cpu, vector)); /* another CPU's table */
    assert_true(msi_fire(where->cpu, vector));
    assert_int_equal(who(0x51), 1u << 2);
    assert_int_equal(where->requests, VCPU_REQ_EVENT);
    assert_int_equal(irq.fired, 1);
}

static void test_several(void **state)
{
    struct vcpu *where = NULL;
    uint8_t vector;
    assert_true(msi_set_message(&irq, ADDRESS(0x0a) | LOGICAL, 0x60, &where)); /* CPUs 1 and 3 */
    assert_ptr_equal(where, machine.vm.vcpus[1]);
    assert_int_equal(msi_take_vector(&irq, where->cpu, &vector), STATUS_OK);
    assert_true(msi_fire(where->cpu, vector));
    assert_int_equal(who(0x60), 0x0a);

    assert_true(msi_set_message(&irq, ADDRESS(0x0c) | LOGICAL | RH, 0x61, &where)); /* lowest: one of 2, 3 */
    assert_true(msi_fire(machine.vm.vcpus[1]->cpu, vector));
    assert_int_equal(who(0x61), 1u << 2);
    assert_true(msi_set_message(&irq, ADDRESS(0x0c) | LOGICAL, 0x162, &where)); /* the same by its mode */
    machine.vm.vcpus[2]->lapic.tpr = 0x80;
    assert_true(msi_fire(machine.vm.vcpus[1]->cpu, vector));
    assert_int_equal(who(0x62), 1u << 3);

    assert_true(msi_set_message(&irq, ADDRESS(0xff), 0x63, &where)); /* all */
    assert_true(msi_fire(machine.vm.vcpus[1]->cpu, vector));
    assert_int_equal(who(0x63), 0x0f);
}

/* Nobody is named yet: the guest sets its APICs up later. */
static void test_nobody(void **state)
{
    struct vcpu *where = NULL;
    uint8_t vector;
    assert_true(msi_set_message(&irq, ADDRESS(0x40) | LOGICAL, 0x70, &where));
    assert_ptr_equal(where, machine.vm.vcpus[0]);
    assert_int_equal(msi_take_vector(&irq, where->cpu, &vector), STATUS_OK);
    assert_true(msi_fire(where->cpu, vector));
    assert_int_equal(who(0x70), 0);
    lapic_mmio_write(&machine.vm.vcpus[3]->lapic, LDR, 4, 0x40u << 24);
    assert_true(msi_fire(where->cpu, vector));
    assert_int_equal(who(0x70), 1u << 3);
}

static void test_refused(void **state)
{
    static const struct {
        uint64_t address;
        uint32_t data;
    } bad[] = {
        {0xfed00000, 0x51},  {0x1fee00000, 0x51}, {0, 0x51},
        {ADDRESS(0), 0x0f},  {ADDRESS(0), 0},     {ADDRESS(0), 0x251}, /* SMI */
        {ADDRESS(0), 0x451},                                           /* NMI */
        {ADDRESS(0), 0x551},                                           /* INIT */
        {ADDRESS(0), 0x751},                                           /* ExtINT */
    };
    struct vcpu *where = NULL;
    uint8_t vector;
    assert_int_equal(msi_take_vector(&irq, machine.vm.vcpus[0]->cpu, &vector), STATUS_OK);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_true(msi_set_message(&irq, ADDRESS(0), 0x44, &where));
        assert_false(msi_set_message(&irq, bad[i].address, bad[i].data, &where));
        assert_true(msi_fire(machine.vm.vcpus[0]->cpu, vector)); /* ours, and swallowed */
        assert_int_equal(who(0x44), 0);
        assert_int_equal(who((uint8_t)bad[i].data), 0);
    }
}

/* An affinity change while interrupts flow: what is under way to the old vector arrives, where the guest
 * wants it now. */
static void test_move(void **state)
{
    struct vcpu *where = NULL;
    uint8_t old, new;
    assert_true(msi_set_message(&irq, ADDRESS(0), 0x51, &where));
    assert_int_equal(msi_take_vector(&irq, where->cpu, &old), STATUS_OK);
    struct cpu *from = where->cpu;
    assert_true(msi_set_message(&irq, ADDRESS(1), 0x52, &where));
    assert_int_equal(msi_take_vector(&irq, where->cpu, &new), STATUS_OK);
    msi_retire(from, old);
    assert_true(msi_fire(from, old));
    assert_int_equal(who(0x52), 1u << 1);
    assert_true(msi_fire(where->cpu, new));
    assert_int_equal(irq.fired, 2);

    /* The vector goes to somebody else only after all the others had been taken. */
    struct msi_irq other = {.vm = &machine.vm};
    uint8_t vector;
    for (unsigned i = 0; i < MSI_VECTORS - 1; i++) {
        assert_int_equal(msi_take_vector(&other, from, &vector), STATUS_OK);
        assert_int_not_equal(vector, old);
        assert_true(vector >= MSI_FIRST_VECTOR && vector <= MSI_LAST_VECTOR);
    }
    assert_int_equal(msi_take_vector(&other, from, &vector), STATUS_OK);
    assert_int_equal(vector, old);
    assert_int_equal(msi_take_vector(&other, from, &vector), ERR_NO_MEMORY);
    msi_retire(from, MSI_LAST_VECTOR);
    assert_int_equal(msi_take_vector(&other, from, &vector), STATUS_OK);
    assert_int_equal(vector, MSI_LAST_VECTOR);
}

static void test_edges(void **state)
{
    struct cpu *cpu = machine.vm.vcpus[0]->cpu;
    uint8_t vector;
    for (unsigned v = 0; v < 256; v++)
        assert_false(msi_fire(cpu, (uint8_t)v)); /* nobody has any */
    msi_retire(cpu, 0);
    msi_retire(cpu, 0xff);
    cpu->msi = NULL;
    assert_int_equal(msi_take_vector(&irq, cpu, &vector), ERR_NO_MEMORY);
    msi_retire(cpu, MSI_FIRST_VECTOR);
    assert_false(msi_fire(cpu, MSI_FIRST_VECTOR));
}

/* What `compat = qemu` lets a test kernel do: as from a device, at the CPU that asks. */
static void test_by_test_device(void **state)
{
    struct cpu *cpu = machine.vm.vcpus[1]->cpu;
    fake_host.cpu = cpu;
    fake_host.raised = 0;
    msi_send_test(&machine.vm, (uint32_t)ADDRESS(1), 0x51, false);
    assert_int_equal(fake_host.raised, 0);
    msi_send_test(&machine.vm, (uint32_t)ADDRESS(1), 0x52, true);
    assert_int_equal(fake_host.raised, 1);
    uint8_t vector = fake_host.last_raised;
    assert_int_equal(vector, MSI_FIRST_VECTOR);
    assert_int_equal(who(0x51) | who(0x52), 0); /* it has not arrived yet */
    assert_true(msi_fire(cpu, vector));
    assert_int_equal(who(0x52), 2);
    assert_int_equal(who(0x51), 0);
    msi_send_test(&machine.vm, (uint32_t)ADDRESS(3), 0x53,
                  true); /* of another vCPU, and with the same vector */
    assert_int_equal(fake_host.last_raised, vector);
    assert_true(msi_fire(cpu, vector));
    assert_int_equal(who(0x53), 8);
    msi_send_test(&machine.vm, 0xfed00000, 0x54, true); /* no message: it comes, and nothing is delivered */
    assert_int_equal(fake_host.raised, 3);
    assert_true(msi_fire(cpu, vector));
    assert_int_equal(who(0x54), 0);
}

static void test_by_test_device_without_vectors(void **state)
{
    struct cpu *cpu = machine.vm.vcpus[0]->cpu;
    uint8_t vector;
    fake_host.cpu = cpu;
    fake_host.raised = 0;
    while (msi_take_vector(&irq, cpu, &vector) == STATUS_OK)
        ;
    msi_send_test(&machine.vm, (uint32_t)ADDRESS(0), 0x51, true);
    assert_int_equal(fake_host.raised, 0);
}

static void test_silence(void **state)
{
    struct vcpu *where = NULL;
    uint8_t vector;
    assert_true(msi_set_message(&irq, ADDRESS(0), 0x51, &where));
    assert_int_equal(msi_take_vector(&irq, where->cpu, &vector), STATUS_OK);
    msi_silence(&irq);
    assert_true(msi_fire(where->cpu, vector));
    assert_int_equal(who(0x51), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_physical, setup),
        cmocka_unit_test_setup(test_several, setup),
        cmocka_unit_test_setup(test_nobody, setup),
        cmocka_unit_test_setup(test_refused, setup),
        cmocka_unit_test_setup(test_move, setup),
        cmocka_unit_test_setup(test_edges, setup),
        cmocka_unit_test_setup(test_silence, setup),
        cmocka_unit_test_setup(test_by_test_device, setup),
        cmocka_unit_test_setup(test_by_test_device_without_vectors, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
