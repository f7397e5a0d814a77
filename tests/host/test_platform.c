/* The PC around the CPUs: who answers where, what a reset leaves, and the device timers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/assign/msi.h"
#include "hv/clock.h"
#include "hv/guest/layout.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"
#include "tests/host/machine.h"

static struct vm *vm;
static struct platform *p;

static int setup(void **state)
{
    machine_init(2);
    vm = &machine.vm;
    p = &vm->platform;
    return 0;
}

static uint32_t in(uint16_t port, unsigned size)
{
    struct io_req req = {.addr = port, .size = (uint8_t)size};
    emulate_port_access(&machine.vcpus[0], &req);
    return (uint32_t)req.value;
}

static void out(uint16_t port, unsigned size, uint32_t value)
{
    struct io_req req = {.addr = port, .size = (uint8_t)size, .value = value, .write = true};
    emulate_port_access(&machine.vcpus[0], &req);
}

/* ---- who answers where ---- */

static void test_ports(void **state)
{
    static const struct {
        uint16_t first, last;
        const char *name;
    } owners[] = {
        {0x20, 0x21, "pic"},   {0x40, 0x43, "pit"},       {0x60, 0x60, "kbd"},    {0x61, 0x61, "pit"},
        {0x64, 0x64, "kbd"},   {0x70, 0x71, "rtc"},       {0x80, 0x80, "sysctl"}, {0x92, 0x92, "sysctl"},
        {0xa0, 0xa1, "pic"},   {0xb2, 0xb3, "acpi_pm"},   {0xed, 0xed, "sysctl"}, {0x3f8, 0x3ff, "uart"},
        {0x4d0, 0x4d1, "pic"}, {0x600, 0x60b, "acpi_pm"}, {0xcf8, 0xcf8, "pci"},  {0xcf9, 0xcf9, "sysctl"},
        {0xcfa, 0xcff, "pci"},
    };
    unsigned at = 0;
    for (uint32_t port = 0; port < BUS_PORTS; port++) {
        const struct vdev *dev = bus_find_port(&vm->bus, (uint16_t)port, 1);
        if (at < ARRAY_SIZE(owners) && port > owners[at].last)
            at++;
        if (at < ARRAY_SIZE(owners) && port >= owners[at].first) {
            assert_non_null(dev);
            assert_string_equal(dev->ops->name, owners[at].name);
        } else {
            assert_null(dev);
        }
    }
    assert_ptr_equal(bus_find_port(&vm->bus, 0xcf8, 4),
                     &p->pci.ports); /* although 0xcf9 is the reset port's */
    assert_ptr_equal(bus_find_port(&vm->bus, 0x608, 4), &p->acpi_pm.dev);
}

static void test_mmio(void **state)
{
    assert_ptr_equal(bus_find_mmio(&vm->bus, IOAPIC_BASE), &p->ioapic.dev);
    assert_ptr_equal(bus_find_mmio(&vm->bus, IOAPIC_BASE + IOAPIC_SIZE - 1), &p->ioapic.dev);
    assert_ptr_equal(bus_find_mmio(&vm->bus, GUEST_ECAM), &p->pci.ecam);
    assert_ptr_equal(bus_find_mmio(&vm->bus, GUEST_ECAM + GUEST_ECAM_SIZE - 1), &p->pci.ecam);
    assert_null(bus_find_mmio(&vm->bus, GUEST_ECAM - 1));
    assert_null(bus_find_mmio(&vm->bus, GUEST_ECAM + GUEST_ECAM_SIZE));
    assert_null(bus_find_mmio(&vm->bus, IOAPIC_BASE - 1));
    assert_null(bus_find_mmio(&vm->bus, IOAPIC_BASE + IOAPIC_SIZE));
    assert_ptr_equal(bus_find_mmio(&vm->bus, HPET_BASE), &p->hpet.dev);
    assert_null(bus_find_mmio(&vm->bus, GUEST_LAPIC)); /* each vCPU's own */
}

static void test_pci_both_ways(void **state)
{
    out(0xcf8, 4, 0x80000000);
    assert_int_equal(in(0xcf8, 4), 0x80000000);
    struct io_req req = {.addr = GUEST_ECAM, .size = 4};
    emulate_mmio_access(&machine.vcpus[0], &req);
    assert_int_equal(in(0xcfc, 4), req.value);
    assert_int_equal(in(0xcfe, 2), req.value >> 16);
    assert_int_not_equal(req.value, UINT32_MAX);
}

static void test_places_taken(void **state)
{
    static struct vdev other;
    memset(&vm->bus, 0, sizeof(vm->bus));
    assert_int_equal(bus_add_ports(&vm->bus, 0x64, 1, &other), STATUS_OK);
    assert_int_equal(platform_init(vm), ERR_EXISTS);
    memset(&vm->bus, 0, sizeof(vm->bus));
    assert_int_equal(bus_add_mmio(&vm->bus, IOAPIC_BASE + 0x800, 1, &other), STATUS_OK);
    assert_int_equal(platform_init(vm), ERR_EXISTS);
    memset(&vm->bus, 0, sizeof(vm->bus));
    assert_int_equal(bus_add_mmio(&vm->bus, GUEST_ECAM + GUEST_ECAM_SIZE - 1, 1, &other), STATUS_OK);
    assert_int_equal(platform_init(vm), ERR_EXISTS);
}

/* ---- reset ---- */

static void test_reset(void **state)
{
    out(0x20, 1, 0x11);
    out(0x21, 1, 0x20);
    out(0x21, 1, 4);
    out(0x21, 1, 1);
    out(0x21, 1, 0);
    out(0x43, 1, 0x34); /* counter 0 periodically */
    out(0x40, 1, 0x10);
    out(0x40, 1, 0x00);
    out(0x3f9, 1, 2); /* transmitter empty: IRQ 4 */
    out(0x3fc, 1, 8);
    assert_true(pic_output(&p->pic));
    assert_true(p->ioapic.asserted & 1u << 4);
    assert_true(p->next_timer_tsc != UINT64_MAX);
    p->ioapic.redirection[3] = 0x31;
    out(0xcf8, 4, 0x80000800);
    platform_reset(vm);
    assert_false(pic_output(&p->pic));
    assert_int_equal(p->ioapic.asserted, 0);
    assert_int_equal(p->ioapic.redirection[3], 1u << 16);
    assert_int_equal(p->next_timer_tsc, UINT64_MAX);
    assert_int_equal(in(0xcf8, 4), 0);
    assert_int_equal(vm->devices.next, vm->devices.serving);
}

static unsigned cmos(unsigned at)
{
    out(0x70, 1, at);
    return in(0x71, 1);
}

static void test_memory_in_cmos(void **state)
{
    vm->layout = (struct guest_layout){5ull << 30, GUEST_PCI_HOLE, GUEST_FOUR_GIB + (2ull << 30)};
    platform_reset(vm);
    assert_int_equal(cmos(0x34) | cmos(0x35) << 8, (GUEST_PCI_HOLE - (16u << 20)) >> 16);
    assert_int_equal(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, (2ull << 30) >> 16);
    vm->layout = (struct guest_layout){64u << 20, 64u << 20, GUEST_FOUR_GIB};
    platform_reset(vm);
    assert_int_equal(cmos(0x34) | cmos(0x35) << 8, (48u << 20) >> 16);
    assert_int_equal(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16, 0);
}

/* ---- what devices get ---- */

static void test_environment(void **state)
{
    const struct vdev_env *env = &p->env;
    uint32_t value = 0x12345678;
    assert_int_equal(env->gmem_write(env->ctx, gpa(0x20000), &value, 4), STATUS_OK);
    assert_memory_equal(machine_ram(0x20000), &value, 4);
    value = 0;
    assert_int_equal(env->gmem_read(env->ctx, gpa(0x20000), &value, 4), STATUS_OK);
    assert_int_equal(value, 0x12345678);
    assert_int_equal(env->gmem_read(env->ctx, gpa(MACHINE_HOLE - 2), &value, 4), ERR_RANGE);
    assert_int_equal(env->gmem_write(env->ctx, gpa(MACHINE_HOLE), &value, 4), ERR_RANGE);
    env->console_put(env->ctx, 'x');
    assert_int_equal(vm->console.ring[0], 'x');
    vm->start_wall = 1000;
    vm->start_tsc = fake_host.tsc;
    fake_host.tsc += 2500000000u;
    assert_int_equal(env->now_ns(env->ctx), 2500000000u);
    assert_int_equal(env->wall_seconds(env->ctx), 1002);
    fake_host.tsc = vm->start_tsc - 1; /* a CPU whose TSC lags */
    assert_int_equal(env->now_ns(env->ctx), 0);
}

static void assert_stopping(enum stop_reason why)
{
    assert_int_equal(vm->state, VM_STOPPING);
    assert_int_equal(vm->stop, why);
    for (unsigned i = 0; i < 2; i++)
        assert_true(machine.vcpus[i].requests & VCPU_REQ_STOP);
    setup(NULL);
}

/* Resets of the processors leave the machine as it is when a shutdown code says so, else only port 0x92: that
 * is how programs tell the one from the other. */
static void test_warm_resets(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } ways[] = {{0x92, 1}, {0x64, 0xfe}, {0xcf9, 4}};
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        out(0x70, 1, 0x0f);
        out(0x71, 1, 0x0a);
        out(ways[i].port, 1, ways[i].value);
        assert_int_equal(vm->state, VM_RUNNING);
        for (unsigned cpu = 0; cpu < 2; cpu++)
            assert_true(machine.vcpus[cpu].requests & VCPU_REQ_INIT);
        setup(NULL);
    }
    out(0x71, 1, 0x0a);
    out(0x92, 1, 3); /* CMOS byte 0: no code */
    out(0x64, 1, 0xfe);
    platform_reset(vm);
    assert_int_equal(in(0x92, 1), 3);
    platform_reset(vm);
    assert_int_equal(in(0x92, 1), 2);
    setup(NULL);
    out(0x70, 1, 0x0f);
    out(0x71, 1, 0x0a);
    out(0xcf9, 1, 6);
    assert_stopping(STOP_REBOOT); /* of the whole machine, code or not */
}

static void test_power(void **state)
{
    out(0xcf9, 1, 0x0e);
    assert_stopping(STOP_REBOOT);
    out(0x64, 1, 0xfe);
    assert_stopping(STOP_REBOOT);
    out(0x92, 1, 1);
    assert_stopping(STOP_REBOOT);
    out(0x604, 2, 0x3c00);
    assert_stopping(STOP_POWEROFF);
}

/* ---- compat = qemu ---- */

static void test_compat(void **state)
{
    static uint8_t ram[TESTDEV_RAM_SIZE];
    static const uint16_t ports[] = {0xe0, 0xe3,   0xe4,   0xe7,   0xe9,  0xf4,
                                     0xf7, 0x2000, 0x2017, 0x2020, 0x202b};
    assert_null(bus_find_mmio(&vm->bus, TESTDEV_RAM)); /* not without it: test_ports has the ports */
    memset(&vm->bus, 0, sizeof(vm->bus));
    machine.config.compat = COMPAT_QEMU;
    p->testdev.ram = ram;
    assert_int_equal(platform_init(vm), STATUS_OK);
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++)
        assert_ptr_equal(bus_find_port(&vm->bus, ports[i], 1), &p->testdev.dev);
    assert_ptr_equal(bus_find_mmio(&vm->bus, 0xff000000), &p->testdev.dev);
    assert_ptr_equal(bus_find_mmio(&vm->bus, 0xff00ffff), &p->testdev.dev);
    assert_ptr_equal(bus_find_port(&vm->bus, 0x510, 2), &p->fw_cfg.dev);
    out(0x510, 2, 5);
    assert_int_equal(in(0x511, 1), 2); /* vCPUs */
    out(0x510, 2, 3);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(in(0x511, 1), MACHINE_RAM_END >> 8 * i & 0xff);
    out(0xe0, 4, 7);
    ram[5] = 5;
    platform_reset(vm);
    assert_int_equal(in(0xe0, 4), 0);
    assert_int_equal(ram[5], 0);
    static struct msi_cpu table;
    fake_host.cpu->msi = &table;
    out(0x2020, 4, 0xfee00000);
    out(0x2024, 4, 0x51);
    out(0x2028, 4, 1);
    assert_int_equal(fake_host.raised, 1);
    assert_true(msi_fire(fake_host.cpu, fake_host.last_raised));
    out(0xf4, 4, 0x12345);
    assert_int_equal(vm->exit_code, 0x12345);
    out(0xf4, 4, 1); /* too late: the first counts */
    assert_int_equal(vm->exit_code, 0x12345);
    assert_stopping(STOP_LEFT);
}

/* ---- timers ---- */

static uint64_t ns_from_start(void)
{
    return fake_host.tsc - vm->start_tsc;
}

static void arm(struct vdev *dev, uint64_t deadline)
{
    p->env.set_timer(vm, dev, deadline);
}

static void test_earliest_deadline(void **state)
{
    arm(&p->rtc.dev, 5000);
    uint64_t rtc_only = p->next_timer_tsc;
    assert_in_range(rtc_only, vm->start_tsc + 5000, vm->start_tsc + 5010);
    arm(&p->pit.dev, 3000);
    assert_in_range(p->next_timer_tsc, vm->start_tsc + 3000, vm->start_tsc + 3010);
    arm(&p->pit.dev, 9000);
    assert_int_equal(p->next_timer_tsc, rtc_only);
    arm(&p->rtc.dev, VDEV_NEVER);
    arm(&p->pit.dev, VDEV_NEVER);
    assert_int_equal(p->next_timer_tsc, UINT64_MAX);
    arm(&p->pit.dev, VDEV_NEVER - 1); /* practically never, and not in the past */
    assert_true(p->next_timer_tsc > (uint64_t)1 << 62);
}

/* vCPU 0 looks after the devices: it hears of a new deadline, wherever that came from. */
static void test_new_deadline_is_told(void **state)
{
    fake_host.cpu = &core.cpus[1];
    arm(&p->pit.dev, 3000);
    assert_true(machine.vcpus[0].requests & VCPU_REQ_TIMER);
    assert_int_equal(machine.vcpus[1].requests, 0);
    assert_int_equal(fake_host.kicks, 1);
    machine.vcpus[0].requests = 0;
    arm(&p->pit.dev, 3000); /* nothing new */
    assert_int_equal(machine.vcpus[0].requests, 0);
    vm->state = VM_STOPPING;
    arm(&p->pit.dev, 4000);
    assert_int_equal(machine.vcpus[0].requests, 0);
    assert_in_range(p->next_timer_tsc, vm->start_tsc + 4000, vm->start_tsc + 4010);
}

static bool took_pit_interrupt(void)
{
    struct lapic *l = &machine.vcpus[1].lapic;
    if (!(l->irr[2] & 2))
        return false;
    lapic_take(l, 0x41);
    lapic_mmio_write(l, 0xb0, 4, 0);
    return true;
}

/* The PIT's counter 0 every 1193 ticks (1 ms), on pin 2 as an edge with vector 0x41 for vCPU 1. */
static void start_pit(void)
{
    p->ioapic.redirection[2] = (uint64_t)1 << 56 | 0x41;
    lapic_mmio_write(&machine.vcpus[1].lapic, 0xf0, 4, 0x1ff);
    out(0x43, 1, 0x34);
    out(0x40, 1, 1193 & 0xff);
    out(0x40, 1, 1193 >> 8);
    took_pit_interrupt(); /* OUT is high from the control word on: that was an edge */
}

static void test_timer_fires(void **state)
{
    start_pit();
    for (unsigned i = 1; i <= 100; i++) {
        uint64_t due = p->next_timer_tsc;
        assert_true(due > fake_host.tsc && due < fake_host.tsc + 1001000);
        fake_host.tsc = due - 10;
        platform_run_timers(vm); /* early: nothing */
        assert_false(took_pit_interrupt());
        assert_int_equal(p->next_timer_tsc, due);
        fake_host.tsc = due;
        platform_run_timers(vm);
        assert_true(took_pit_interrupt());
        assert_true(p->next_timer_tsc > fake_host.tsc);
    }
    /* 100 periods after one tick for loading: re-arming does not drift. */
    uint64_t expected = (100ull * 1193 + 1) * 1000000000 / PIT_HZ;
    assert_in_range(ns_from_start(), expected, expected + 1000);
    assert_int_equal(vm->devices.next, vm->devices.serving);
}

/* A device whose timer does what the test says. */
static unsigned calls;
static uint64_t rearm, called_at;
static void counting_timer(struct vdev *dev, uint64_t now_ns)
{
    calls++;
    called_at = now_ns;
    if (rearm)
        vdev_set_timer(dev, rearm);
}

static void test_timer_is_called_once(void **state)
{
    static const struct vdev_ops ops = {.name = "counting", .timer = counting_timer};
    calls = 0;
    rearm = 0;
    p->pit.dev.ops = &ops;
    arm(&p->pit.dev, 3000);
    arm(&p->rtc.dev, 9000);
    fake_host.tsc = vm->start_tsc + 3500;
    platform_run_timers(vm);
    assert_int_equal(calls, 1);
    assert_int_equal(called_at, 3500);
    assert_in_range(p->next_timer_tsc, vm->start_tsc + 9000, vm->start_tsc + 9010);
    platform_run_timers(vm); /* not armed again: not called again */
    assert_int_equal(calls, 1);
    arm(&p->rtc.dev, VDEV_NEVER);
    rearm = 4000;
    arm(&p->pit.dev, 3600);
    fake_host.tsc = vm->start_tsc + 4500; /* it arms itself for a time that has passed */
    platform_run_timers(vm);
    assert_int_equal(calls, 2);
    assert_int_equal(p->next_timer_tsc, fake_host.tsc + 5000); /* but first the guest gets on */
    rearm = 0;
    platform_run_timers(vm);
    assert_int_equal(calls, 3);
    assert_int_equal(p->next_timer_tsc, UINT64_MAX);
}

static void test_late_timer(void **state)
{
    start_pit();
    fake_host.tsc += 1000000000; /* a second late */
    unsigned runs = 0;
    do {
        platform_run_timers(vm);
        assert_true(++runs < 4); /* it does not work off all that was missed */
    } while (p->next_timer_tsc <= fake_host.tsc);
    assert_true(took_pit_interrupt());
    assert_true(p->next_timer_tsc < fake_host.tsc + 1001000);
}

/* When the hardware says the deadline has come, the device's clock must say so too, however long the VM has
 * been up and whatever the TSC's frequency: else the CPU would leave the guest again and again until it does.
 */
static void test_deadline_is_reached_at_its_tsc(void **state)
{
    static const uint64_t hz[] = {1000000,    999999937,  1000000000, 1193182000,
                                  2893299000, 3000000001, 5700000000, 8000000000};
    static const uint64_t days[] = {0, 1, 30, 365, 3650};
    for (unsigned i = 0; i < ARRAY_SIZE(hz); i++) {
        clock_init(hz[i]);
        for (unsigned d = 0; d < ARRAY_SIZE(days); d++) {
            for (uint64_t odd = 0; odd < 200; odd++) {
                uint64_t deadline = days[d] * 86400000000000ull + odd * 54925 + odd;
                arm(&p->pit.dev, deadline);
                fake_host.tsc = p->next_timer_tsc;
                assert_true(vm_now_ns(vm) >= deadline);
                assert_true(vm_now_ns(vm) <= deadline + 3000 + 10); /* a few ticks */
            }
        }
    }
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_ports),
        T(test_mmio),
        T(test_pci_both_ways),
        T(test_places_taken),
        T(test_reset),
        T(test_memory_in_cmos),
        T(test_environment),
        T(test_power),
        T(test_warm_resets),
        T(test_compat),
        T(test_earliest_deadline),
        T(test_new_deadline_is_told),
        T(test_timer_fires),
        T(test_timer_is_called_once),
        T(test_late_timer),
        T(test_deadline_is_reached_at_its_tsc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
