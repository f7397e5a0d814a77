/* What a VM is made of: created once, loaded from pristine images for each of its lives (hv/vm_life.c). */
#include "hv/vm.h"
#include "arch/x86/virt.h"
#include "hv/assign/msi.h"
#include "hv/assign/vm_assign.h"
#include "hv/clock.h"
#include "hv/core.h"
#include "hv/guest/acpi_build.h"
#include "hv/guest/pci_place.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/pc/bios.h"
#include "hv/pc/flash.h"
#include "hv/pc/vm_disks.h"
#include "hv/pc/warm_reset.h"
#include "hv/sched.h"

#define VCPU_PAGES        ((sizeof(struct vcpu) + PAGE_SIZE - 1) / PAGE_SIZE)
#define ACPI_PAGES        (ACPI_BUILD_SIZE / PAGE_SIZE)
#define LOCAL_APIC_HZ(vm) ((vm)->cpuid.crystal_hz)

uint64_t vm_now_ns(const struct vm *vm)
{
    uint64_t now = host_tsc(); /* a CPU whose TSC lags must not see time wrap */
    return now > vm->start_tsc ? clock_ticks_to_ns(now - vm->start_tsc) : 0;
}

/* ---- creating ---- */

/* Several windows, so that the page tables on the way to an instruction stay mapped from one exit to the
 * next. */
static void *map_guest_page(void *ctx, hpa_t page)
{
    (void)ctx;
    return host_window(page, HOST_WINDOW_GUEST + (page.v >> PAGE_SHIFT) % HOST_WINDOW_GUESTS);
}

static enum status create_memory(struct vm *vm, char *why, size_t why_size)
{
    struct guest_layout layout;
    bool has_2m, has_1g;
    enum status s = guest_layout_init(&layout, vm->config->memory);
    if (s == STATUS_OK)
        s = pmem_alloc(&core.pmem, vm->config->memory, vm->extents, &vm->extent_count);
    if (s != STATUS_OK) {
        fmt_format(why, why_size, "no %llu MiB of memory for it (%s; %llu MiB are free)",
                   (unsigned long long)(vm->config->memory >> 20), status_name(s),
                   (unsigned long long)(pmem_free_bytes(&core.pmem) >> 20));
        return s;
    }
    gmem_init(&vm->gmem, map_guest_page, NULL);
    s = guest_layout_fill(&layout, vm->extents, vm->extent_count, &vm->gmem);
    virt_page_sizes(&has_2m, &has_1g);
    if (s == STATUS_OK)
        s = ept_init(&vm->ept, &core.pt_env, has_2m, has_1g);
    vm->ept.nx_large = virt_features().nx_large;
    for (uint32_t i = 0; i < vm->gmem.count && s == STATUS_OK; i++) {
        const struct gmem_extent *e = &vm->gmem.extents[i];
        s = ept_map(&vm->ept, gpa(e->gpa), hpa(e->hpa), e->size, EPT_READ | EPT_WRITE | EPT_EXEC, EPT_WB);
    }
    if (s == STATUS_OK && vm_has_firmware(vm))
        s = flash_create(vm);
    if (s != STATUS_OK)
        fmt_format(why, why_size, "its memory cannot be mapped: %s", status_name(s));
    vm->layout = layout;
    return s;
}

static void capture_cpuid(uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out)
{
    uint32_t r[4];
    virt_host_cpuid(leaf, subleaf, r);
    *out = (struct cpuid_regs){r[0], r[1], r[2], r[3]};
}

static void create_cpuid(struct vm *vm, uint32_t vcpu_count)
{
    static struct cpuid_host host; /* boot CPU only; too large for the stack */
    struct xstate_layout layout;
    uint64_t host_xcr0;
    cpuid_host_capture(&host, capture_cpuid);
    cpuid_host_xstate(&host, &layout, &host_xcr0);
    struct virt_features features = virt_features();
    struct cpuid_vm params = {
        .vcpu_count = vcpu_count,
        .tsc_hz = clock_hz(),
        .xcr0_allowed = xstate_allowed(host_xcr0),
        .xsaves = false, /* no supervisor state is switched */
        .spec_ctrl = features.spec_ctrl,
        .rdtscp = features.rdtscp,
        .invpcid = features.invpcid,
        .no_x2apic = vm->config->no_x2apic,
    };
    vm->xcr0_allowed = params.xcr0_allowed;
    cpuid_policy_build(&host, &params, &vm->cpuid);
}

static uint64_t lapic_now(void *ctx)
{
    const struct vcpu *vcpu = ctx;
    return host_tsc() + vcpu->tsc_offset;
}

static void lapic_timer_changed(void *ctx)
{
    vcpu_update_deadline(ctx);
}

static void lapic_send(void *ctx, const struct lapic_ipi *ipi)
{
    irq_send_ipi(ctx, ipi);
}

static void lapic_ended(void *ctx, uint8_t vector)
{
    struct vcpu *vcpu = ctx;
    vm_lock_devices(vcpu->vm);
    ioapic_eoi(&vcpu->vm->platform.ioapic, vector);
    spin_unlock(&vcpu->vm->devices);
}

static void lapic_changed(void *ctx)
{
    vcpu_request(ctx, VCPU_REQ_EVENT);
}

static enum status create_recorder(struct vcpu *vcpu)
{
    uint32_t vcpus = 0;
    for (uint32_t i = 0; i < core.info->config.vm_count; i++)
        vcpus += bits_count(core.info->config.vms[i].cpus);
    uint32_t slots = recorder_slots(vcpus);
    struct recorder_entry *entries = pool_alloc_pages(&core.pool, recorder_pages(slots));
    if (!entries)
        return ERR_NO_MEMORY;
    recorder_init(&vcpu->recorder, entries, slots);
    return STATUS_OK;
}

static enum status create_vcpu(struct vm *vm, uint32_t id, struct cpu *cpu)
{
    struct vcpu *vcpu = pool_alloc_pages(&core.pool, VCPU_PAGES);
    if (!vcpu)
        return ERR_NO_MEMORY;
    vm->vcpus[id] = vcpu; /* from here on destroy() finds it */
    vm->vcpu_count = id + 1;
    vcpu->vm = vm;
    vcpu->id = id;
    vcpu->cpu = cpu;
    vcpu->deadline_tsc = UINT64_MAX;
    vcpu->xcr0 = XSTATE_X87;
    vcpu->lapic_env = (struct lapic_env){
        .ctx = vcpu,
        .now_tsc = lapic_now,
        .timer_changed = lapic_timer_changed,
        .send_ipi = lapic_send,
        .eoi = lapic_ended,
        .state_changed = lapic_changed,
    };
    lapic_init(&vcpu->lapic, &vcpu->lapic_env, id, id == 0, LOCAL_APIC_HZ(vm), vm->cpuid.tsc_hz);
    lapic_set_maxphyaddr(&vcpu->lapic, vm->cpuid.phys_bits);
    if (vm->config->no_x2apic)
        lapic_hide_x2apic(&vcpu->lapic);
    enum status s = create_recorder(vcpu);
    return s == STATUS_OK ? virt_vcpu_create(vcpu) : s;
}

static enum status create_vcpus(struct vm *vm, char *why, size_t why_size)
{
    uint32_t id = 0;
    for (uint32_t i = 0; i < CONFIG_MAX_CPUS; i++) {
        if (!(vm->config->cpus >> i & 1))
            continue;
        if (i >= core.cpu_count || !core.cpus[i].online) {
            fmt_format(why, why_size, "CPU %u did not start", i);
            return ERR_NOT_FOUND;
        }
        enum status s = id < VM_MAX_VCPUS ? create_vcpu(vm, id, &core.cpus[i]) : ERR_RANGE;
        if (s != STATUS_OK) {
            fmt_format(why, why_size, "vCPU %u cannot be made: %s", id, status_name(s));
            return s;
        }
        id++;
    }
    if (id == 0)
        fmt_format(why, why_size, "no CPU is given to it");
    return id ? STATUS_OK : ERR_INVALID;
}

/* Gives back what a creation that failed had taken. No vCPU of it was ever loaded. */
static void destroy(struct vm *vm)
{
    vm_assign_destroy(vm);
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        const struct recorder *r = &vm->vcpus[i]->recorder;
        virt_vcpu_destroy(vm->vcpus[i]);
        if (r->first)
            (void)pool_free_pages(&core.pool, r->first, recorder_pages((uint32_t)recorder_kept(r) + 1));
        (void)pool_free_pages(&core.pool, vm->vcpus[i], VCPU_PAGES);
        vm->vcpus[i] = NULL;
    }
    vm->vcpu_count = 0;
    if (vm->platform.testdev.ram)
        (void)pool_free_pages(&core.pool, vm->platform.testdev.ram, TESTDEV_RAM_SIZE / PAGE_SIZE);
    vm->platform.testdev.ram = NULL;
    vm_disks_destroy(vm);
    if (vm->acpi)
        (void)pool_free_pages(&core.pool, vm->acpi, ACPI_PAGES);
    vm->acpi = NULL;
    if (vm->ept.env)
        ept_destroy(&vm->ept);
    vm->ept.env = NULL;
    if (vm->extent_count)
        (void)pmem_free(&core.pmem, vm->extents, vm->extent_count);
    vm->extent_count = 0;
    vm->gmem.count = 0;
}

static enum status create_parts(struct vm *vm, char *why, size_t why_size)
{
    create_cpuid(vm, bits_count(vm->config->cpus));
    enum status s = create_memory(vm, why, why_size);
    if (s != STATUS_OK)
        return s;
    vm->acpi = pool_alloc_pages(&core.pool, ACPI_PAGES);
    if (vm->config->compat == COMPAT_QEMU)
        vm->platform.testdev.ram = pool_alloc_pages(&core.pool, TESTDEV_RAM_SIZE / PAGE_SIZE);
    if (!vm->acpi || (vm->config->compat == COMPAT_QEMU && !vm->platform.testdev.ram)) {
        fmt_format(why, why_size, "Bulkhead's own memory is used up");
        return ERR_NO_MEMORY;
    }
    s = create_vcpus(vm, why, why_size);
    if (s != STATUS_OK)
        return s;
    if (vm->config->compat == COMPAT_QEMU)
        s = msi_create_tables(vm, why, why_size);
    if (s != STATUS_OK)
        return s;
    s = platform_init(vm);
    if (s != STATUS_OK) {
        fmt_format(why, why_size, "its devices cannot be placed: %s", status_name(s));
        return s;
    }
    s = vm_disks_create(vm, why, why_size);
    return s == STATUS_OK ? vm_assign_create(vm, why, why_size) : s;
}

enum status vm_create(struct vm *vm, uint32_t id, char *why, size_t why_size)
{
    vm->id = id;
    vm->config = &core.info->config.vms[id];
    vm->name = vm->config->name;
    log_source_init(&vm->log, vm->name, vm->config->log);
    enum status s = create_parts(vm, why, why_size);
    if (s != STATUS_OK) {
        destroy(vm);
        vm->state = VM_FAILED;
    }
    return s;
}

/* ---- loading ---- */

/* A pristine file in host memory, seen through its own window. */
static const void *map_file(void *ctx, uint64_t offset, size_t *length)
{
    const struct boot_file *file = ctx;
    sched_breathe(); /* a large file takes long; nobody holds a window now */
    uint64_t at = file->hpa + offset;
    const uint8_t *page = host_window(hpa(align_down(at, PAGE_SIZE)), HOST_WINDOW_FILE);
    uint64_t room = PAGE_SIZE - (at & PAGE_MASK);
    uint64_t left = file->size - offset;
    *length = (size_t)(left < room ? left : room);
    return page + (at & PAGE_MASK);
}

static struct guest_source source_of(struct boot_file *file)
{
    return (struct guest_source){.ctx = file, .size = file->size, .map = map_file};
}

static void find_files(struct vm *vm, struct guest_files *files)
{
    struct boot_info *info = core.info;

    *files = (struct guest_files){
        .kernel = source_of(&info->kernels[vm->id]),
        .initrd = source_of(&info->initrds[vm->id]),
        .module_count = vm->config->module_count,
        .cmdline = vm->config->cmdline,
        .load = vm->config->load,
        .flash_max = guest_flash_max(vm->config),
    };
    for (uint32_t i = 0; i < files->module_count; i++) {
        files->modules[i].source = source_of(&info->modules[vm->id][i]);
        guest_module_string(&vm->config->modules[i], files->modules[i].string);
    }
}

/* The image is where it is for all lives, and cannot be changed; RAM is the firmware's to fill. */
static enum status load_firmware(struct vm *vm, const struct acpi_build *params, char *why, size_t why_size)
{
    struct platform *p = &vm->platform;
    flash_restore(vm);
    enum status s = firmware_build(params, &vm->layout, vm->acpi, ACPI_BUILD_SIZE, p->files);
    if (s != STATUS_OK)
        fmt_format(why, why_size, "what its firmware is told cannot be built: %s", status_name(s));
    p->fw_cfg.files = p->files;
    p->fw_cfg.file_count = s == STATUS_OK ? FIRMWARE_FILES : 0;
    return s;
}

enum status vm_load(struct vm *vm, char *why, size_t why_size)
{
    struct acpi_build params = {.vcpu_count = vm->vcpu_count, .base = gpa(GUEST_ACPI)};
    struct vpci_window windows[VPCI_WINDOWS];
    struct acpi_built built;
    struct guest_files files;

    pci_place_windows(&vm->layout, vm->cpuid.phys_bits, windows);
    params.windows = vm->assign ? vm->assign->used : windows; /* only where BARs can be mapped */
    find_files(vm, &files);
    enum status s = guest_prepare(&files, &vm->layout, &vm->image, why, why_size);
    if (s != STATUS_OK)
        return s;
    memset(vm->acpi, 0, ACPI_BUILD_SIZE);
    guest_entry(&vm->image, &vm->entry);
    if (vm_has_firmware(vm))
        return load_firmware(vm, &params, why, why_size);
    s = acpi_build(&params, vm->acpi, ACPI_BUILD_SIZE, &built);
    if (s == STATUS_OK)
        s = guest_load(&vm->image, &files, &vm->gmem, built.rsdp);
    if (s == STATUS_OK)
        s = gmem_write(&vm->gmem, params.base, vm->acpi, built.size);
    if (s == STATUS_OK)
        s = guest_put_rsdp(&vm->image, &vm->gmem, built.rsdp);
    if (s == STATUS_OK)
        s = warm_reset_write_rom(vm);
    if (s == STATUS_OK && bios_was_there(&vm->image))
        s = bios_write_vectors(vm);
    if (s != STATUS_OK)
        fmt_format(why, why_size, "its images cannot be loaded: %s", status_name(s));
    return s;
}

#define ACCESS_FLAT_DATA   0xc093u /* in VMX format: 4 GiB, accessed, present */
#define ACCESS_FLAT_CODE32 0xc09bu
#define ACCESS_FLAT_CODE64 0xa09bu

static void apply_flat_entry(struct vcpu *vcpu, const struct guest_entry *entry)
{
    static const enum seg_name data[] = {SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
    struct seg seg = {.limit = UINT32_MAX, .selector = entry->ds, .access = ACCESS_FLAT_DATA};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
        virt_set_seg(vcpu, data[i], &seg);
    seg = (struct seg){.limit = UINT32_MAX,
                       .selector = entry->cs,
                       .access = entry->long_mode ? ACCESS_FLAT_CODE64 : ACCESS_FLAT_CODE32};
    virt_set_seg(vcpu, SEG_CS, &seg);
    virt_set(vcpu, VIRT_GDTR_BASE, entry->gdt_base);
    virt_set(vcpu, VIRT_GDTR_LIMIT, entry->gdt_limit);
    virt_set(vcpu, VIRT_CR3, entry->cr3);
    virt_set(vcpu, VIRT_CR4, entry->cr4);
    virt_set(vcpu, VIRT_CR0, entry->cr0);
    virt_set(vcpu, VIRT_EFER, entry->efer);
    virt_set(vcpu, VIRT_RFLAGS, entry->rflags);
    virt_set(vcpu, VIRT_RIP, entry->rip);
}

static void apply_entry(struct vcpu *vcpu, const struct guest_entry *entry)
{
    if (entry->real_mode)
        vcpu_start_real_mode(vcpu, entry->cs, (uint16_t)entry->rip);
    else
        apply_flat_entry(vcpu, entry);
    memcpy(vcpu->gpr, entry->gpr, sizeof(entry->gpr));
    virt_set(vcpu, VIRT_RSP, entry->rsp);
}

void vm_begin_vcpu(struct vcpu *vcpu)
{
    vcpu_reset(vcpu, false);
    if (vcpu->id == 0 && !vcpu->vm->entry.reset_vector) {
        apply_entry(vcpu, &vcpu->vm->entry);
        if (bios_was_there(&vcpu->vm->image))
            bios_set_devices(vcpu->vm);
    }
    vcpu_update_deadline(vcpu);
}
