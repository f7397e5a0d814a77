/* The loader: from the firmware to the core. Everything that can fail does so before ExitBootServices, with a
 * message, and goes back to the firmware. */
#include "arch/x86/layout.h"
#include "boot/efi_loader.h"
#include "boot/handover.h"
#include "boot/memmap.h"
#include "boot/pool_plan.h"
#include "hv/lib/bits.h"
#include "hv/lib/string.h"
#include "hv/pmem.h"
#include "hv/record/blackbox.h"

#define LOW_MEMORY_END ((uint64_t)1 << 20)
#define FOUR_GIB       ((uint64_t)1 << 32)
#define RETURN_SECONDS 10u
/* What a VM may lose of the memory that guests could have, because it gets whole 2 MiB. */
#define OVERHEAD_PER_VM SIZE_2M

EFI_HANDLE efi_image;
EFI_SYSTEM_TABLE *efi_st;
EFI_BOOT_SERVICES *efi_bs;

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *st);

static struct {
    struct config config;
    struct boot_info info; /* collects what the final one in the pool is to say */
    struct elf_image core;
    struct boot_region regions[BOOT_MAX_REGIONS];
    struct handover handover;
    struct preflight_input machine;
    uint64_t pool_size; /* bytes */
} loader;

static EFI_STATUS config_fail(const struct config_error *e)
{
    if (e->line)
        return efi_fail(EFI_INVALID_PARAMETER, "%s:%u:%u: %s", EFI_CONFIG_NAME, e->line, e->column,
                        e->message);
    return efi_fail(EFI_INVALID_PARAMETER, "%s: %s", EFI_CONFIG_NAME, e->message);
}

static EFI_STATUS parse_core(struct span *file)
{
    const char *why;

    *file = (struct span){efi_core_begin, (size_t)(efi_core_end - efi_core_begin)};
    if (elf_parse(*file, LAYOUT_CORE_VA, LAYOUT_POOL_VA, &loader.core, &why))
        return efi_fail(EFI_LOAD_ERROR, "the core in this file is damaged: %s", why);
    return EFI_SUCCESS;
}

/* Bytes that VMs can have together, as the memory map stands now. */
static EFI_STATUS free_memory(uint64_t *out)
{
    struct memmap map = {.regions = loader.regions, .capacity = BOOT_MAX_REGIONS};
    struct span descriptors;
    size_t step;
    UINTN key;

    EFI_STATUS s = efi_memory_map(&descriptors, &step, &key);
    if (EFI_ERROR(s))
        return efi_fail(s, "cannot read the firmware's memory map: %s", efi_status_text(s));
    if (memmap_from_efi(&map, descriptors, step))
        return efi_fail(EFI_UNSUPPORTED, "the firmware's memory map has more than %u pieces",
                        BOOT_MAX_REGIONS);
    *out = pmem_available(map.regions, map.count);
    return EFI_SUCCESS;
}

static uint64_t overhead(void)
{
    return loader.config.vm_count * OVERHEAD_PER_VM;
}

static uint64_t memory_needed(void)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < loader.config.vm_count; i++)
        total += loader.config.vms[i].memory;
    return total;
}

static uint32_t cpus_needed(void)
{
    uint64_t all = 0;
    for (uint32_t i = 0; i < loader.config.vm_count; i++)
        all |= loader.config.vms[i].cpus;
    return all ? bits_highest(all) + 1 : 0;
}

/* What the machine is, and how much of it Bulkhead keeps for itself. */
static void look_at_machine(void)
{
    struct preflight_input *in = &loader.machine;

    efi_preflight_capture(in);
    in->cpu_source = efi_find_cpus(loader.info.cpus, &loader.info.cpu_count);
    in->cpus_found = loader.info.cpu_count;
    in->cpus_needed = cpus_needed();
    in->memory_needed = memory_needed();
    const struct pool_plan_in plan = {
        .config = &loader.config, .cpus = in->cpus_found, .small_pages = preflight_small_pages(in)};
    loader.pool_size = pool_plan(&plan);
    in->memory_kept = loader.pool_size + loader.core.size;
    in->keeps_too_much = loader.pool_size > LAYOUT_POOL_MAX;
}

/* Prints the report. `available`: bytes for VMs. */
static EFI_STATUS preflight(uint64_t available)
{
    static struct preflight_row rows[PREFLIGHT_MAX_ROWS];
    struct preflight_input *in = &loader.machine;

    in->memory_free = available;
    const char *brand = in->brand;
    while (*brand == ' ') /* some are right-aligned */
        brand++;
    efi_print("\nPreflight: %s\n", *brand ? brand : "unnamed CPU");
    size_t count = preflight_check(in, rows);
    efi_preflight_print(rows, count);
    if (in->has_dmar)
        efi_pci_print(efi_pci_scan());
    efi_print("\n");
    if (!preflight_passed(rows, count))
        return efi_fail(EFI_UNSUPPORTED,
                        "this machine lacks something that Bulkhead needs: see MISSING above");
    return EFI_SUCCESS;
}

static EFI_STATUS load_config(void)
{
    struct config_error error;
    struct span text = {NULL, 0};

    EFI_STATUS s = efi_files_init();
    efi_blackbox_save();
    if (!EFI_ERROR(s))
        s = efi_read_config(&text);
    if (!EFI_ERROR(s) && config_parse(text, &loader.config, &error)) {
        loader.config.vm_count = 0; /* half of a configuration is none */
        s = config_fail(&error);
    }
    return s;
}

/* Configuration, files and machine against each other. The report is printed even when the configuration is
 * no good: it is wanted most when something is wrong. */
static EFI_STATUS check_all(void)
{
    uint64_t available = 0, files = 0;
    struct config_error error;

    EFI_STATUS config_status = load_config();
    if (!EFI_ERROR(config_status))
        config_status = efi_check_files(&loader.config, &files);
    EFI_STATUS s = free_memory(&available);
    if (EFI_ERROR(s))
        return s;
    look_at_machine();
    uint64_t taken = overhead() + files + loader.machine.memory_kept;
    available = available > taken ? available - taken : 0;
    s = preflight(available);
    if (EFI_ERROR(config_status))
        return config_status;
    if (config_check_machine(&loader.config, loader.info.cpu_count, available, &error))
        return config_fail(&error);
    return s;
}

static EFI_STATUS allocate(uint64_t *core, uint64_t *pool)
{
    EFI_STATUS s = efi_alloc(loader.core.size, PAGE_SIZE, 0, core);
    if (EFI_ERROR(s))
        return efi_fail(s, "no memory for the core: %s", efi_status_text(s));
    /* Below 4 GiB: a starting CPU loads CR3 in 32-bit mode. In 2 MiB pages: they cost the least TLB entries.
     */
    s = efi_alloc(loader.pool_size, SIZE_2M, FOUR_GIB, pool);
    if (EFI_ERROR(s))
        return efi_fail(s, "no contiguous %u MiB below 4 GiB: %s", (unsigned)(loader.pool_size >> 20),
                        efi_status_text(s));
    s = efi_alloc(PAGE_SIZE, PAGE_SIZE, LOW_MEMORY_END, &loader.info.trampoline_hpa);
    if (EFI_ERROR(s))
        return efi_fail(s, "no free page below 1 MiB for starting the other CPUs: %s", efi_status_text(s));
    return EFI_SUCCESS;
}

/* Loads the core and prepares its address space. */
static EFI_STATUS build(struct span core_file)
{
    struct handover_in in = {.core = &loader.core,
                             .pool_size = loader.pool_size,
                             .switch_page = hpa((uintptr_t)efi_switch_page),
                             .blackbox_hpa = hpa(loader.info.blackbox_hpa)};

    EFI_STATUS s = allocate(&in.core_hpa.v, &in.pool_hpa.v);
    if (EFI_ERROR(s))
        return s;
    in.pool = (uint8_t *)in.pool_hpa.v;
    elf_load(&loader.core, core_file, (uint8_t *)in.core_hpa.v);
    if (handover_build(&in, &loader.handover))
        return efi_fail(EFI_LOAD_ERROR, "cannot build the core's page tables");
    return EFI_SUCCESS;
}

/* Everything that the firmware must be asked while it still answers. */
static EFI_STATUS fill_info(void)
{
    struct boot_info *info = loader.handover.info;
    enum boot_tsc_source source;

    info->trampoline_hpa = loader.info.trampoline_hpa;
    info->blackbox_hpa = loader.info.blackbox_hpa;
    info->rsdp_hpa = efi_acpi_tables() ? efi_find_rsdp() : 0;
    memcpy(info->pci_roots, efi_pci_scan()->roots, sizeof(info->pci_roots));
    info->cpu_count = loader.info.cpu_count;
    memcpy(info->cpus, loader.info.cpus, sizeof(info->cpus));
    info->config = loader.config;
    memcpy(info->kernels, loader.info.kernels, sizeof(info->kernels));
    memcpy(info->initrds, loader.info.initrds, sizeof(info->initrds));
    memcpy(info->modules, loader.info.modules, sizeof(info->modules));
    memcpy(info->disks, loader.info.disks, sizeof(info->disks));
    info->framebuffer = efi_framebuffer();
    info->tsc_hz = efi_tsc_hz(&source);
    info->tsc_source = source;
    info->wall = efi_wall_clock();
    if (!info->tsc_hz)
        return efi_fail(EFI_UNSUPPORTED, "cannot find out how fast the time stamp counter runs");
    return EFI_SUCCESS;
}

static enum status set_image(struct memmap *map, const struct boot_file *f)
{
    return memmap_set(map, f->hpa, align_up(f->size, PAGE_SIZE), BOOT_REGION_IMAGE);
}

/* The final regions. The loader itself becomes free memory, but for the page that is still running at the
 * end. */
static enum status fill_regions(struct span descriptors, size_t step)
{
    struct boot_info *info = loader.handover.info;
    struct memmap map = {.regions = info->regions, .capacity = BOOT_MAX_REGIONS};
    enum status s = memmap_from_efi(&map, descriptors, step);

    if (!s)
        s = memmap_set(&map, info->core_hpa, info->core_size, BOOT_REGION_BULKHEAD);
    if (!s)
        s = memmap_set(&map, info->pool_hpa, info->pool_size, BOOT_REGION_BULKHEAD);
    if (!s)
        s = memmap_set(&map, info->trampoline_hpa, PAGE_SIZE, BOOT_REGION_BULKHEAD);
    if (!s && info->blackbox_hpa)
        s = memmap_set(&map, info->blackbox_hpa, BLACKBOX_SIZE, BOOT_REGION_BULKHEAD);
    if (!s)
        s = memmap_set(&map, (uintptr_t)efi_switch_page, PAGE_SIZE, BOOT_REGION_BULKHEAD);
    for (uint32_t i = 0; !s && i < info->config.vm_count; i++) {
        s = set_image(&map, &info->kernels[i]);
        if (!s)
            s = set_image(&map, &info->initrds[i]);
        for (uint32_t j = 0; !s && j < info->config.vms[i].module_count; j++)
            s = set_image(&map, &info->modules[i][j]);
        for (uint32_t j = 0; !s && j < info->config.vms[i].disk_count; j++)
            s = set_image(&map, &info->disks[i][j]);
    }
    info->region_count = map.count;
    return s;
}

/* The same as after ExitBootServices, while a failure can still be explained. */
static EFI_STATUS rehearse(void)
{
    const struct boot_info *info = loader.handover.info;
    struct config_error error;
    struct span descriptors;
    const char *why;
    size_t step;
    UINTN key;

    EFI_STATUS s = efi_memory_map(&descriptors, &step, &key);
    if (EFI_ERROR(s))
        return efi_fail(s, "cannot read the firmware's memory map: %s", efi_status_text(s));
    if (fill_regions(descriptors, step))
        return efi_fail(EFI_UNSUPPORTED, "the memory map has more than %u pieces", BOOT_MAX_REGIONS);
    if (boot_info_check(info, &why))
        return efi_fail(EFI_UNSUPPORTED, "cannot start the core: %s", why);
    uint64_t free = pmem_available(info->regions, info->region_count), lost = overhead();
    if (config_check_machine(&info->config, info->cpu_count, free > lost ? free - lost : 0, &error))
        return config_fail(&error);
    return EFI_SUCCESS;
}

static EFI_STATUS prepare(void)
{
    struct span core_file;

    EFI_STATUS s = parse_core(&core_file);
    if (!EFI_ERROR(s))
        s = check_all();
    if (EFI_ERROR(s))
        return s;
    efi_print("Loading\n");
    s = efi_load_files(&loader.config, &loader.info);
    if (!EFI_ERROR(s))
        s = build(core_file);
    if (!EFI_ERROR(s))
        s = fill_info();
    return EFI_ERROR(s) ? s : rehearse();
}

static _Noreturn void start_core(void)
{
    struct span descriptors;
    const char *why;
    size_t step;

    efi_exit_boot_services(&descriptors, &step);
    if (fill_regions(descriptors, step))
        efi_die("the final memory map has too many pieces");
    if (boot_info_check(loader.handover.info, &why))
        efi_die(why);
    efi_switch(loader.handover.cr3.v, loader.handover.entry, loader.handover.stack_top,
               loader.handover.info_va);
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *st)
{
    efi_image = image;
    efi_st = st;
    efi_bs = st->BootServices;
    efi_console_init();
    efi_print("\nBulkhead loader\n");
    efi_bs->SetWatchdogTimer(0, 0, 0, NULL); /* else the firmware restarts the machine after five minutes */
    loader.info.blackbox_hpa = efi_blackbox_place();
    efi_blackbox_show();
    EFI_STATUS s = prepare();
    if (EFI_ERROR(s)) {
        efi_print_failures();
        if (loader.config.report)
            efi_report_save();
        efi_print("\nBulkhead does not start. Back to the firmware in %u seconds, or at a key.\n",
                  RETURN_SECONDS);
        efi_console_wait(RETURN_SECONDS);
        return s;
    }
    const struct boot_info *info = loader.handover.info;
    efi_print("Starting the core (%lu KiB) on %u of %u CPUs, TSC at %lu.%03lu MHz\n\n",
              (unsigned long)(info->core_size >> 10), cpus_needed(), info->cpu_count,
              (unsigned long)(info->tsc_hz / 1000000), (unsigned long)(info->tsc_hz / 1000 % 1000));
    if (info->config.report)
        efi_report_save();
    start_core();
}
