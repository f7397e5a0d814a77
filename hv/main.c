/* Start-up order, and nothing else. */
#include "arch/x86/host.h"
#include "arch/x86/layout.h"
#include "arch/x86/panic.h"
#include "arch/x86/virt.h"
#include "drivers/acpi/acpi.h"
#include "drivers/fb/fb_hw.h"
#include "drivers/iommu/vtd_hw.h"
#include "drivers/mmio_hw.h"
#include "drivers/pci/pci_config_hw.h"
#include "drivers/uart_hw.h"
#include "hv/assign/devices.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/console/console_irq.h"
#include "hv/core.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/sched.h"

#define MAX_DEVICES 256u /* PCI functions, VFs included */

#define MIB(bytes) ((unsigned long long)((bytes) >> 20))

struct core core;
static uint64_t start_tsc;

static void log_to_console(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    console_line(line);
}

static uint64_t log_now_us(void)
{
    uint64_t now = host_tsc();
    return now > start_tsc ? clock_ticks_to_ns(now - start_tsc) / 1000 : 0;
}

int64_t core_wall_seconds(void)
{
    const struct boot_wall_clock *wall = &core.info->wall;
    uint64_t since = clock_ticks_to_ns(host_tsc() - wall->tsc_at) / 1000000000u;
    return (int64_t)((wall->valid ? wall->unix_seconds : 0) + since);
}

void core_vm_started(void)
{
    if (__atomic_sub_fetch(&core.starting, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    unsigned long long free = pool_pages_free(&core.pool) * (PAGE_SIZE / 1024);
    log_line(LOG_INFO, "core",
             "ready after %llu thousand TSC ticks; own memory: %llu KiB used, %llu KiB free",
             (unsigned long long)(host_tsc() - start_tsc) / 1000,
             (unsigned long long)(core.info->core_size + core.info->pool_size) / 1024 - free, free);
}

static bool any_vm_lives(void)
{
    for (uint32_t i = 0; i < core.info->config.vm_count; i++)
        if (core.vms[i] && life_is_live(__atomic_load_n(&core.vms[i]->state, __ATOMIC_ACQUIRE)))
            return true;
    return false;
}

void core_vm_stopped(bool by_operator)
{
    enum life_idle idle = life_idle(any_vm_lives(), by_operator, core.info->config.on_idle);
    bool ends = idle == IDLE_POWEROFF || idle == IDLE_REBOOT;
    if (ends && __atomic_exchange_n(&core.ending, 1, __ATOMIC_ACQ_REL))
        return; /* two were the last, at the same time */
    switch (idle) {
    case IDLE_POWEROFF:
        log_line(LOG_ALWAYS, "core", "every VM has stopped: powering off");
        host_poweroff();
    case IDLE_REBOOT:
        log_line(LOG_ALWAYS, "core", "every VM has stopped: rebooting the machine");
        host_reboot();
    case IDLE_OPERATOR:
        log_line(LOG_ALWAYS, "core", "every VM has stopped, the last one by the operator's order: waiting");
        return;
    case IDLE_STAY:
        log_line(LOG_ALWAYS, "core", "every VM has stopped: idle (on_idle = stay)");
        return;
    case IDLE_BUSY:
        return;
    }
}

/* The processors after the first begin here, each on its own stack. */
static void run_ap(struct cpu *cpu)
{
    enum status s = virt_cpu_start(cpu);
    if (s != STATUS_OK) {
        log_line(LOG_ERROR, "core", "CPU %u: VMX cannot be switched on: %s", cpu->index, status_name(s));
        for (;;)
            host_idle(UINT64_MAX);
    }
    __atomic_store_n(&cpu->online, 1, __ATOMIC_RELEASE);
    sched_run(cpu);
}

/* The firmware's tables, opened once; boot CPU only, too large for the stack. NULL: none that can be used. */
static const struct acpi_tables *find_tables(void)
{
    static struct acpi_tables tables;
    struct acpi_reader reader = {.read = host_read_physical};
    if (core.info->rsdp_hpa == 0)
        return NULL;
    enum status s = acpi_open(&tables, &reader, hpa(core.info->rsdp_hpa));
    if (s == STATUS_OK)
        return &tables;
    log_line(LOG_WARN, "core", "the firmware's ACPI tables are not usable: %s", status_name(s));
    return NULL;
}

static void find_power_controls(const struct acpi_tables *tables)
{
    static struct acpi_fadt fadt;
    enum status s = tables ? acpi_read_fadt(tables, &fadt) : ERR_NOT_FOUND;
    if (s == STATUS_OK)
        host_set_power(&fadt);
    else if (s == ERR_NOT_FOUND && (tables || core.info->rsdp_hpa == 0))
        host_set_power(NULL); /* tables, but not the one that describes the machine, are as good as none */
    else
        log_line(LOG_WARN, "core", "power-off may not work: %s", status_name(s));
    if (fadt.reset_fault)
        log_line(LOG_WARN, "core",
                 "the machine's reset register (FADT) is left alone: %s; reboots go by port CF9",
                 fadt.reset_fault);
}

/* Which PCI functions there are. None of them masters the bus from here on: a device that still writes to the
 * memory its firmware driver had would write into a guest's. */
static void find_devices(const struct acpi_tables *tables)
{
    struct pci_inventory *inv = &core.pci;
    uint32_t pages = (uint32_t)align_up(MAX_DEVICES * sizeof(*inv->devices), PAGE_SIZE) >> PAGE_SHIFT;
    bool described = tables && acpi_read_mcfg(tables, &core.mcfg) == STATUS_OK;
    mmio_hw_init(&core.pt_env);
    core.has_ecam = pci_config_hw_init(described ? &core.mcfg : NULL, &core.pt_env, &core.pci_config);
    inv->devices = pool_alloc_pages(&core.pool, pages);
    if (!inv->devices)
        host_panic("Bulkhead's own memory is used up: no room for the list of devices");
    inv->capacity = MAX_DEVICES;
    memcpy(inv->roots, core.info->pci_roots, sizeof(inv->roots));
    if (pci_scan(inv, &core.pci_config) != STATUS_OK)
        log_line(LOG_WARN, "core", "%u PCI functions too many: those may still write to memory",
                 inv->dropped);
    pci_acs_enable(inv, &core.pci_config);
    log_line(LOG_INFO, "core", "%u PCI functions; bus mastering taken from %u that firmware had used",
             inv->count, pci_quiesce(inv, &core.pci_config, false));
}

static void create_vms(void)
{
    char why[200];
    const struct config *config = &core.info->config;
    for (uint32_t i = 0; i < config->vm_count; i++) {
        struct vm *vm = pool_alloc_pages(&core.pool, (sizeof(struct vm) + PAGE_SIZE - 1) / PAGE_SIZE);
        if (!vm)
            host_panic("Bulkhead's own memory is used up: %llu KiB for %u VMs",
                       MIB(core.info->pool_size << 10), config->vm_count);
        core.vms[i] = vm;
        if (vm_create(vm, i, why, sizeof(why)) != STATUS_OK) {
            log_vm(LOG_ERROR, vm, "cannot be created: %s", why);
            continue;
        }
        core.starting++;
        log_vm(LOG_INFO, vm, "%u vCPUs, %llu MiB", vm->vcpu_count, MIB(vm->config->memory));
    }
}

/* The VM with the lowest digit gets the keyboard. */
static void attach_first(void)
{
    struct vm *first = core.vms[0];
    for (uint32_t i = 1; i < core.info->config.vm_count; i++)
        if (console_digit(core.vms[i]) < console_digit(first))
            first = core.vms[i];
    console_attach(first);
}

/* Their own CPUs do the work, all VMs at once. */
static void start_vms(void)
{
    char why[200];
    if (core.starting == 0)
        core_vm_stopped(false);
    for (uint32_t i = 0; i < core.info->config.vm_count; i++)
        (void)vm_order(core.vms[i], VM_ORDER_START, why,
                       sizeof(why)); /* refused: not created, which was said */
    attach_first();
}

/* The boot CPU goes on here, on its own guarded stack. */
static void run_boot_cpu(void *argument)
{
    char why[200];
    struct cpu *cpu = argument;
    if (virt_init(&core.pool, why, sizeof(why)) != STATUS_OK)
        host_panic("%s", why);
    enum status s = virt_cpu_start(cpu);
    if (s != STATUS_OK)
        host_panic("VMX cannot be switched on: %s", status_name(s));
    cpu->online = 1;
    uint32_t online = host_start_others(core.info, core.cpus, core.cpu_count, &core.pt_env, run_ap);
    log_line(online == core.cpu_count ? LOG_INFO : LOG_WARN, "core", "%u of %u CPUs in VMX operation", online,
             core.cpu_count);
    const struct acpi_tables *tables = find_tables();
    find_power_controls(tables);
    find_devices(tables);
    vtd_hw_env(&host_devices.iommu_env);
    devices_fence(tables);
    console_irq_start(tables);
    devices_start_pfs();
    pmem_init(&core.pmem, core.info->regions, core.info->region_count);
    create_vms();
    host_devices.breathes = true;
    start_vms();
    sched_run(cpu);
}

void core_main(struct boot_info *info)
{
    const char *why = NULL;
    start_tsc = host_tsc();
    console_init(uart_hw_init());
    core.info = info;
    if (boot_info_check(info, &why) != STATUS_OK)
        host_panic("the loader's hand-over is broken: %s", why);
    clock_init(info->tsc_hz);
    panic_init(info);
    log_set_clock(log_now_us);
    log_set_sink(log_to_console, NULL);
    log_set_level(info->config.log);
    log_line(LOG_INFO, "core", "Bulkhead's core is running: %u CPUs, TSC at %llu kHz", info->cpu_count,
             (unsigned long long)info->tsc_hz / 1000);

    enum status s = pool_init(&core.pool, (void *)(uintptr_t)LAYOUT_POOL_VA, hpa(info->pool_hpa),
                              info->pool_size, info->pool_used);
    if (s != STATUS_OK)
        host_panic("Bulkhead's own memory is not usable: %s", status_name(s));
    pool_pt_env(&core.pool, &core.pt_env);
    core.cpu_count = info->cpu_count;
    for (uint32_t i = 0; i < core.cpu_count; i++) {
        core.cpus[i].index = i;
        core.cpus[i].apic_id = info->cpus[i].apic_id;
    }
    core.cpus[0].polls_console = true;
    s = host_init(info, core.cpus, core.cpu_count, &core.pt_env);
    if (s != STATUS_OK)
        host_panic("the processors' tables cannot be set up: %s", status_name(s));
    fb_hw_init(info, &core.pt_env);
    host_run_on_own_stack(&core.cpus[0], run_boot_cpu);
}
