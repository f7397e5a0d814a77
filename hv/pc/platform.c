/* The PC around a VM's CPUs: which devices there are, in which order they start, where they answer. */
#include "hv/assign/msi.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/guest/layout.h"
#include "hv/lib/log.h"
#include "hv/pc/flash.h"
#include "hv/pc/warm_reset.h"
#include "hv/vm.h"

#define GUEST_TURN_NS 5000u /* between two rounds of device timers, at least */

static struct vm *vm_of(void *ctx)
{
    return ctx;
}

static void env_set_irq(void *ctx, unsigned line, bool level)
{
    irq_set_line(ctx, line, level);
}

/* PIT and RTC are cut off while the HPET replaces them. */
static void env_set_legacy_irq(void *ctx, unsigned line, bool level)
{
    if (!hpet_replaces(&vm_of(ctx)->platform.hpet, line))
        irq_set_line(ctx, line, level);
}

static uint64_t env_now_ns(void *ctx)
{
    return vm_now_ns(ctx);
}

static void env_console_put(void *ctx, uint8_t byte)
{
    console_vm_put(ctx, byte);
}

static enum status env_gmem_read(void *ctx, gpa_t addr, void *buf, size_t size)
{
    return gmem_read(&vm_of(ctx)->gmem, addr, buf, size);
}

static enum status env_gmem_write(void *ctx, gpa_t addr, const void *buf, size_t size)
{
    return gmem_write(&vm_of(ctx)->gmem, addr, buf, size);
}

static void env_power(void *ctx, enum vdev_power what)
{
    struct vm *vm = ctx;
    if (what == VDEV_INIT && warm_reset(vm))
        return;
    vm->platform.init_only = what == VDEV_INIT;
    vm_stop(vm, what == VDEV_POWEROFF ? STOP_POWEROFF : STOP_REBOOT);
}

static void testdev_leave(void *ctx, uint32_t code)
{
    vm_leave(ctx, code);
}

static void testdev_send_msi(void *ctx, uint32_t address, uint32_t data, bool raise)
{
    msi_send_test(ctx, address, data, raise);
}

static int64_t env_wall_seconds(void *ctx)
{
    const struct vm *vm = ctx;
    return vm->start_wall + (int64_t)(vm_now_ns(vm) / 1000000000u);
}

/* The devices in start-up order; the PIC and IOAPIC come first because others raise lines at reset, those
 * that not every VM has come last. */
struct platform_row {
    size_t offset;
    const struct vdev_ops *ops;
};
#define ROW(member, device_ops)                                                                              \
    {                                                                                                        \
        offsetof(struct platform, member), &(device_ops)                                                     \
    }
static const struct platform_row rows[] = {
    ROW(pic.dev, pic_ops),         ROW(ioapic.dev, ioapic_ops), ROW(pit.dev, pit_ops),
    ROW(rtc.dev, rtc_ops),         ROW(kbd.dev, kbd_ops),       ROW(uart.dev, uart_ops),
    ROW(acpi_pm.dev, acpi_pm_ops), ROW(sysctl.dev, sysctl_ops), ROW(pci.ports, pci_host_port_ops),
    ROW(hpet.dev, hpet_ops),       ROW(fw_cfg.dev, fw_cfg_ops), ROW(testdev.dev, testdev_ops),
};
#define OPTIONAL_ROWS 2u /* fw_cfg, for both kinds of VMs that have more, and testdev */
STATIC_ASSERT(ARRAY_SIZE(rows) + PLATFORM_ADDED <= PLATFORM_DEVICES, "room for every device");

static struct vdev *row_device(struct platform *p, const struct platform_row *row)
{
    return (struct vdev *)((char *)p + row->offset);
}

/* Where each device answers. */
struct platform_ports {
    size_t offset;
    uint16_t first, count;
};
#define PORTS(member, first, count)                                                                          \
    {                                                                                                        \
        offsetof(struct platform, member), first, count                                                      \
    }
static const struct platform_ports ports[] = {
    PORTS(pic.dev, PIC_MASTER_PORT, 2),
    PORTS(pic.dev, PIC_SLAVE_PORT, 2),
    PORTS(pic.dev, PIC_ELCR_PORT, 2),
    PORTS(pit.dev, PIT_PORT, PIT_PORT_COUNT),
    PORTS(pit.dev, PIT_PORT_B, 1),
    PORTS(rtc.dev, RTC_INDEX_PORT, 2),
    PORTS(kbd.dev, KBD_DATA_PORT, 1),
    PORTS(kbd.dev, KBD_COMMAND_PORT, 1),
    PORTS(uart.dev, UART_COM1_PORT, UART_PORT_COUNT),
    PORTS(acpi_pm.dev, ACPI_PM_BASE, ACPI_PM_PORT_COUNT),
    PORTS(acpi_pm.dev, ACPI_PM_SMI_CMD_PORT, 2),
    PORTS(sysctl.dev, SYSCTL_POST_PORT, 1),
    PORTS(sysctl.dev, SYSCTL_PORT_A, 1),
    PORTS(sysctl.dev, SYSCTL_DELAY_PORT, 1),
    PORTS(sysctl.dev, SYSCTL_RESET_PORT, 1),
    PORTS(pci.ports, PCI_HOST_PORT_ADDRESS, 1),
    PORTS(pci.ports, PCI_HOST_PORT_ADDRESS + 2, 2),
    PORTS(pci.ports, PCI_HOST_PORT_DATA, 4),
};
static const struct platform_ports fw_cfg_ports[] = {
    PORTS(fw_cfg.dev, FW_CFG_PORT, FW_CFG_PORT_COUNT),
};
static const struct platform_ports compat_ports[] = {
    PORTS(testdev.dev, TESTDEV_ECHO_PORT, TESTDEV_WIDE_PORTS),
    PORTS(testdev.dev, TESTDEV_FLUSH_PORT, TESTDEV_WIDE_PORTS),
    PORTS(testdev.dev, TESTDEV_DEBUG_PORT, 1),
    PORTS(testdev.dev, TESTDEV_BIOS_PORT, 1),
    PORTS(testdev.dev, TESTDEV_EXIT_PORT, TESTDEV_WIDE_PORTS),
    PORTS(testdev.dev, TESTDEV_IRQ_PORT, TESTDEV_LINES),
    PORTS(testdev.dev, TESTDEV_MSI_PORT, TESTDEV_MSI_PORTS),
};

/* The earliest deadline of all devices, as the host's TSC, for vCPU 0. */
static void update_next_timer(struct vm *vm)
{
    struct platform *p = &vm->platform;
    uint64_t next = VDEV_NEVER;
    for (unsigned i = 0; i < p->device_count; i++) {
        const struct vdev *dev = p->devices[i];
        if (dev->deadline_ns < next)
            next = dev->deadline_ns;
    }
    uint64_t tsc = UINT64_MAX;
    if (next != VDEV_NEVER) /* late rather than early, by what both conversions may be low: now_ns() must have
                               reached the deadline, or the vCPU would exit at once again */
        tsc = vm->start_tsc + clock_ns_to_ticks(next) + clock_ns_to_ticks(2) + 3;
    __atomic_store_n(&p->next_timer_tsc, tsc, __ATOMIC_RELAXED);
}

static void env_set_timer(void *ctx, struct vdev *dev, uint64_t deadline_ns)
{
    struct vm *vm = ctx;
    if (dev->deadline_ns == deadline_ns)
        return;
    dev->deadline_ns = deadline_ns;
    update_next_timer(vm);
    if (vm->state == VM_RUNNING)
        vcpu_request(vm->vcpus[0], VCPU_REQ_TIMER);
}

void platform_run_timers(struct vm *vm)
{
    struct platform *p = &vm->platform;
    vm_lock_devices(vm);
    uint64_t now = vm_now_ns(vm);
    bool fired = false;
    for (unsigned i = 0; i < p->device_count; i++) {
        struct vdev *dev = p->devices[i];
        if (dev->deadline_ns <= now) {
            dev->deadline_ns = VDEV_NEVER;
            dev->ops->timer(dev, now);
            fired = true;
        }
    }
    update_next_timer(vm);
    /* A guest chooses how often a device's timer fires, and what there is to do each time: whatever that
     * took, the guest gets on before the next time. */
    uint64_t soonest = host_tsc() + clock_ns_to_ticks(GUEST_TURN_NS);
    if (fired && p->next_timer_tsc < soonest)
        __atomic_store_n(&p->next_timer_tsc, soonest, __ATOMIC_RELAXED);
    spin_unlock(&vm->devices);
}

static bool deliver_message(void *ctx, uint8_t dest, bool logical, uint8_t mode, uint8_t vector, bool level)
{
    return irq_deliver(ctx, dest, logical, mode, vector, level);
}

static void pic_output_changed(void *ctx, bool level)
{
    if (level)
        vcpu_request(vm_of(ctx)->vcpus[0], VCPU_REQ_EVENT);
}

static bool has_compat(const struct vm *vm)
{
    return vm->config->compat == COMPAT_QEMU;
}

static enum status claim_ports(struct vm *vm, const struct platform_ports *table, unsigned count)
{
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < count && s == STATUS_OK; i++) {
        struct vdev *dev = (struct vdev *)((char *)&vm->platform + table[i].offset);
        s = bus_add_ports(&vm->bus, table[i].first, table[i].count, dev);
    }
    return s;
}

static void connect(struct platform *p, struct vdev *dev, const struct vdev_ops *ops)
{
    *dev = (struct vdev){.ops = ops, .env = &p->env, .deadline_ns = VDEV_NEVER};
    p->devices[p->device_count++] = dev;
}

void platform_add(struct vm *vm, struct vdev *dev, const struct vdev_ops *ops)
{
    connect(&vm->platform, dev, ops);
    ops->init(dev);
}

enum status platform_init(struct vm *vm)
{
    struct platform *p = &vm->platform;
    p->env = (struct vdev_env){
        .ctx = vm,
        .set_irq = env_set_irq,
        .now_ns = env_now_ns,
        .set_timer = env_set_timer,
        .gmem_read = env_gmem_read,
        .gmem_write = env_gmem_write,
        .console_put = env_console_put,
        .power = env_power,
        .wall_seconds = env_wall_seconds,
    };
    p->legacy_env = p->env;
    p->legacy_env.set_irq = env_set_legacy_irq;
    p->uart.base = UART_COM1_PORT;
    p->uart.irq = UART_COM1_IRQ;
    p->uart.to_console = true;
    p->pic.output_changed = pic_output_changed;
    p->pic.output_ctx = vm;
    p->next_timer_tsc = UINT64_MAX;
    p->device_count = 0;
    p->testdev.leave = testdev_leave;
    p->testdev.leave_ctx = vm;
    p->testdev.send_msi = testdev_send_msi;
    p->testdev.send_ctx = vm;
    p->fw_cfg.cpus = (uint16_t)vm->vcpu_count;
    p->fw_cfg.ram_size = vm->layout.memory;
    ioapic_connect(&p->ioapic, deliver_message, vm);
    pci_host_setup(&p->pci, GUEST_ECAM);
    if (vm_has_firmware(vm))
        i440fx_setup(&p->chipset, &p->pci, flash_changed, vm);
    p->pci.ecam = (struct vdev){.ops = &pci_host_ecam_ops, .env = &p->env, .deadline_ns = VDEV_NEVER};
    unsigned count = ARRAY_SIZE(rows) - OPTIONAL_ROWS + (has_compat(vm) ? 2 : vm_has_firmware(vm) ? 1 : 0);
    for (unsigned i = 0; i < count; i++)
        connect(p, row_device(p, &rows[i]), rows[i].ops);
    p->pit.dev.env = p->rtc.dev.env = &p->legacy_env;
    for (unsigned i = 0; i < p->device_count; i++)
        p->devices[i]->ops->init(p->devices[i]);
    enum status s = claim_ports(vm, ports, ARRAY_SIZE(ports));
    if (s == STATUS_OK && has_compat(vm))
        s = claim_ports(vm, compat_ports, ARRAY_SIZE(compat_ports));
    if (s == STATUS_OK && (has_compat(vm) || vm_has_firmware(vm)))
        s = claim_ports(vm, fw_cfg_ports, ARRAY_SIZE(fw_cfg_ports));
    if (s == STATUS_OK && vm_has_firmware(vm))
        s = flash_claim(vm);
    if (s == STATUS_OK && has_compat(vm))
        s = bus_add_mmio(&vm->bus, TESTDEV_RAM, TESTDEV_RAM_SIZE, &p->testdev.dev);
    if (s == STATUS_OK)
        s = bus_add_mmio(&vm->bus, HPET_BASE, HPET_SIZE, &p->hpet.dev);
    if (s == STATUS_OK)
        s = bus_add_mmio(&vm->bus, IOAPIC_BASE, IOAPIC_SIZE, &p->ioapic.dev);
    return s == STATUS_OK ? bus_add_mmio(&vm->bus, GUEST_ECAM, GUEST_ECAM_SIZE, &p->pci.ecam) : s;
}

void platform_reset(struct vm *vm)
{
    struct platform *p = &vm->platform;
    vm_lock_devices(vm);
    uint8_t port_a = p->sysctl.port_a;
    for (unsigned i = 0; i < p->device_count; i++) {
        struct vdev *dev = p->devices[i];
        dev->ops->reset(dev);
    }
    if (p->init_only) /* a BIOS sets every device anew but this one, by which a program knows a real reset */
        p->sysctl.port_a = port_a;
    p->init_only = false;
    p->rtc.cmos[RTC_SHUTDOWN] = 0; /* as a BIOS does it */
    uint64_t low = vm->layout.low_end;
    uint64_t high = vm->layout.high_end > GUEST_FOUR_GIB ? vm->layout.high_end - GUEST_FOUR_GIB : 0;
    rtc_set_memory(&p->rtc, low, high);
    if (vm_has_firmware(vm))
        rtc_set_boot(&p->rtc, vm->vcpu_count);
    update_next_timer(vm);
    spin_unlock(&vm->devices);
}
