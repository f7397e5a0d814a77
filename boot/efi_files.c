#include "boot/efi_loader.h"
#include "hv/guest/image.h"
#include "hv/lib/string.h"

#define CHUNK         (1ull << 20) /* bytes for one read: progress can be shown in between */
#define BIG_FILE      (4ull << 20) /* bytes from which it is */
#define PROGRESS_STEP 10u          /* percent */
#define WHY_SIZE      256u

static EFI_FILE_HANDLE root;

EFI_STATUS efi_files_init(void)
{
    static EFI_GUID loaded_image_guid = LOADED_IMAGE_PROTOCOL, file_system_guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
    void *interface;

    EFI_STATUS s = efi_bs->HandleProtocol(efi_image, &loaded_image_guid, &interface);
    if (EFI_ERROR(s))
        return efi_fail(s, "the firmware does not say where the loader came from");
    EFI_HANDLE device = ((EFI_LOADED_IMAGE *)interface)->DeviceHandle;
    s = device ? efi_bs->HandleProtocol(device, &file_system_guid, &interface) : EFI_NOT_FOUND;
    if (EFI_ERROR(s))
        return efi_fail(
            s, "the loader did not come from a disk with files: start it from a USB stick or disk that "
               "scripts/image made");
    EFI_FILE_IO_INTERFACE *volume = interface;
    s = volume->OpenVolume(volume, &root);
    if (EFI_ERROR(s))
        return efi_fail(s, "cannot open the boot volume: %s", efi_status_text(s));
    return EFI_SUCCESS;
}

EFI_FILE_HANDLE efi_files_root(void)
{
    return root;
}

/* Opens a file given with forward slashes, and answers its size. */
static EFI_STATUS open_file(const char *path, EFI_FILE_HANDLE *file, uint64_t *size)
{
    static EFI_GUID info_guid = EFI_FILE_INFO_ID;
    CHAR16 wide[CONFIG_PATH_MAX + 1];
    /* The structure ends in the file's name, which may be long. */
    _Alignas(EFI_FILE_INFO) uint8_t buffer[sizeof(EFI_FILE_INFO) + 2 * 256];
    const EFI_FILE_INFO *info = (const void *)buffer;
    UINTN n = 0, info_size = sizeof(buffer);

    wide[n++] = '\\';
    for (const char *p = path; *p && n < ARRAY_SIZE(wide) - 1; p++)
        wide[n++] = *p == '/' ? '\\' : (uint8_t)*p;
    wide[n] = 0;
    EFI_STATUS s = root->Open(root, file, wide, EFI_FILE_MODE_READ, 0);
    if (EFI_ERROR(s))
        return s;
    s = (*file)->GetInfo(*file, &info_guid, &info_size, buffer);
    if (!EFI_ERROR(s) && (info->Attribute & EFI_FILE_DIRECTORY))
        s = EFI_NOT_FOUND;
    if (EFI_ERROR(s)) {
        (*file)->Close(*file);
        return s;
    }
    *size = info->FileSize;
    return EFI_SUCCESS;
}

static EFI_STATUS read_exactly(EFI_FILE_HANDLE file, uint8_t *buf, uint64_t size)
{
    UINTN got = size;
    EFI_STATUS s = file->Read(file, &got, buf);

    if (EFI_ERROR(s))
        return s;
    return got == size ? EFI_SUCCESS : EFI_END_OF_FILE;
}

EFI_STATUS efi_read_config(struct span *text)
{
    static uint8_t buffer[CONFIG_MAX_SIZE + 1]; /* one more, so that the parser sees that a file is too big */
    EFI_FILE_HANDLE file;
    uint64_t size;

    EFI_STATUS s = open_file(EFI_CONFIG_NAME, &file, &size);
    if (s == EFI_NOT_FOUND)
        return efi_fail(
            s, "there is no \\%s on the boot volume: put one there, or make the medium with scripts/image",
            EFI_CONFIG_NAME);
    if (EFI_ERROR(s))
        return efi_fail(s, "cannot open \\%s: %s", EFI_CONFIG_NAME, efi_status_text(s));
    size = size < sizeof(buffer) ? size : sizeof(buffer);
    s = read_exactly(file, buffer, size);
    file->Close(file);
    if (EFI_ERROR(s))
        return efi_fail(s, "cannot read \\%s: %s", EFI_CONFIG_NAME, efi_status_text(s));
    *text = (struct span){buffer, size};
    return EFI_SUCCESS;
}

/* A file that the configuration names, and where it does. */
struct named_file {
    const char *path, *what;
    uint32_t line, column;
};

static EFI_STATUS fail_at(const struct named_file *f, EFI_STATUS s, const char *why)
{
    return efi_fail(s, "%s:%u:%u: %s '%s': %s", EFI_CONFIG_NAME, f->line, f->column, f->what, f->path, why);
}

static struct named_file kernel_of(const struct config_vm *vm)
{
    return (struct named_file){vm->kernel, vm->firmware ? "firmware" : "kernel", vm->kernel_line,
                               vm->kernel_column};
}

static struct named_file initrd_of(const struct config_vm *vm)
{
    return (struct named_file){vm->initrd, "initrd", vm->initrd_line, vm->initrd_column};
}

static struct named_file module_of(const struct config_module *module)
{
    return (struct named_file){module->path, "module", module->line, module->column};
}

static struct named_file disk_of(const struct config_disk *disk)
{
    return (struct named_file){disk->path, disk->cdrom ? "CD" : "disk", disk->line, disk->column};
}

static EFI_STATUS open_named(const struct named_file *f, EFI_FILE_HANDLE *file, uint64_t *size)
{
    EFI_STATUS s = open_file(f->path, file, size);

    if (s == EFI_NOT_FOUND)
        return fail_at(f, s, "there is no such file on the boot volume");
    if (EFI_ERROR(s))
        return fail_at(f, s, efi_status_text(s));
    if (*size)
        return EFI_SUCCESS;
    (*file)->Close(*file);
    return fail_at(f, EFI_LOAD_ERROR, "the file is empty");
}

static EFI_STATUS file_size(const struct named_file *f, uint64_t *size)
{
    EFI_FILE_HANDLE file;

    *size = 0;
    if (!f->path[0])
        return EFI_SUCCESS;
    EFI_STATUS s = open_named(f, &file, size);
    if (!EFI_ERROR(s))
        file->Close(file);
    return s;
}

/* Adds the file's size in whole pages to *total. */
static EFI_STATUS add_file(struct named_file f, uint64_t *total)
{
    uint64_t size;
    EFI_STATUS s = file_size(&f, &size);

    if (!EFI_ERROR(s))
        *total += align_up(size, PAGE_SIZE);
    return s;
}

static EFI_STATUS add_disk(const struct config_disk *disk, uint64_t *total)
{
    struct named_file f = disk_of(disk);
    uint64_t size;
    EFI_STATUS s = file_size(&f, &size);

    if (EFI_ERROR(s))
        return s;
    *total += align_up(size, PAGE_SIZE);
    const char *fault = config_disk_fault(disk, size);
    return fault ? fail_at(&f, EFI_UNSUPPORTED, fault) : EFI_SUCCESS;
}

EFI_STATUS efi_check_files(const struct config *config, uint64_t *total)
{
    *total = 0;
    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        EFI_STATUS s = add_file(kernel_of(vm), total);
        if (!EFI_ERROR(s))
            s = add_file(initrd_of(vm), total);
        for (uint32_t j = 0; !EFI_ERROR(s) && j < vm->module_count; j++)
            s = add_file(module_of(&vm->modules[j]), total);
        for (uint32_t j = 0; !EFI_ERROR(s) && j < vm->disk_count; j++)
            s = add_disk(&vm->disks[j], total);
        if (EFI_ERROR(s))
            return s;
    }
    return EFI_SUCCESS;
}

/* Reads the whole file; a big one with a line of percents. */
static EFI_STATUS read_with_progress(EFI_FILE_HANDLE file, uint8_t *to, uint64_t size)
{
    unsigned shown = 0;

    for (uint64_t done = 0; done < size;) {
        uint64_t n = size - done < CHUNK ? size - done : CHUNK;
        EFI_STATUS s = read_exactly(file, to + done, n);
        if (EFI_ERROR(s)) {
            efi_print("\n");
            return s;
        }
        done += n;
        unsigned percent = (unsigned)(done * 100 / size);
        if (size >= BIG_FILE && percent >= shown + PROGRESS_STEP) {
            shown = percent - percent % PROGRESS_STEP;
            efi_print(" %u%%", shown);
        }
    }
    efi_print("\n");
    return EFI_SUCCESS;
}

static EFI_STATUS load(const struct named_file *f, const char *vm, struct boot_file *out)
{
    EFI_FILE_HANDLE file;
    uint64_t size;

    EFI_STATUS s = open_named(f, &file, &size);
    if (EFI_ERROR(s))
        return s;
    efi_print("  %s: %s %s, %lu KiB", vm, f->what, f->path, (unsigned long)((size + 1023) / 1024));
    s = efi_alloc(size, PAGE_SIZE, 0, &out->hpa);
    if (EFI_ERROR(s)) {
        efi_print("\n");
        file->Close(file);
        return fail_at(f, s, "there is not enough memory to load it");
    }
    uint8_t *to = (uint8_t *)out->hpa;
    s = read_with_progress(file, to, size);
    file->Close(file);
    if (EFI_ERROR(s))
        return fail_at(f, s, efi_status_text(s));
    memset(to + size, 0, align_up(size, PAGE_SIZE) - size);
    out->size = size;
    return EFI_SUCCESS;
}

/* A file that has been read, all of it. */
static const void *map_loaded(void *ctx, uint64_t offset, size_t *length)
{
    const struct boot_file *file = ctx;

    *length = file->size - offset;
    return (const uint8_t *)file->hpa + offset;
}

/* Sees that the core will be able to start the VM, before megabytes are read for nothing: of the files but
 * the kernel, only the sizes are known yet. */
static EFI_STATUS check_guest(const struct config_vm *vm, struct boot_file *kernel)
{
    static struct guest_image image;
    static struct guest_files files;
    struct guest_layout layout;
    char why[WHY_SIZE] = "";
    struct named_file kernel_file = kernel_of(vm), initrd_file = initrd_of(vm);
    struct named_file f = {vm->name, "VM", vm->memory_line, vm->memory_column};

    files = (struct guest_files){.kernel = {kernel, kernel->size, map_loaded},
                                 .module_count = vm->module_count,
                                 .cmdline = vm->cmdline,
                                 .load = vm->load,
                                 .flash_max = guest_flash_max(vm)};
    EFI_STATUS s = file_size(&initrd_file, &files.initrd.size);
    for (uint32_t i = 0; !EFI_ERROR(s) && i < vm->module_count; i++) {
        struct named_file module_file = module_of(&vm->modules[i]);
        s = file_size(&module_file, &files.modules[i].source.size);
    }
    if (EFI_ERROR(s))
        return s;
    if (guest_layout_init(&layout, vm->memory))
        return fail_at(&f, EFI_UNSUPPORTED, "its memory size cannot be laid out");
    enum status status = guest_prepare(&files, &layout, &image, why, sizeof(why));
    /* A size that does not fit is the VM's matter, everything else the kernel's. */
    return status ? fail_at(status == ERR_RANGE ? &f : &kernel_file, EFI_UNSUPPORTED, why) : EFI_SUCCESS;
}

static EFI_STATUS load_vm(const struct config_vm *vm, uint32_t index, struct boot_info *info)
{
    struct named_file kernel_file = kernel_of(vm), initrd_file = initrd_of(vm);

    EFI_STATUS s = load(&kernel_file, vm->name, &info->kernels[index]);
    if (!EFI_ERROR(s))
        s = check_guest(vm, &info->kernels[index]);
    if (!EFI_ERROR(s) && vm->initrd[0])
        s = load(&initrd_file, vm->name, &info->initrds[index]);
    for (uint32_t i = 0; !EFI_ERROR(s) && i < vm->module_count; i++) {
        struct named_file module_file = module_of(&vm->modules[i]);
        s = load(&module_file, vm->name, &info->modules[index][i]);
    }
    for (uint32_t i = 0; !EFI_ERROR(s) && i < vm->disk_count; i++) {
        struct named_file disk_file = disk_of(&vm->disks[i]);
        s = load(&disk_file, vm->name, &info->disks[index][i]);
    }
    return s;
}

EFI_STATUS efi_load_files(const struct config *config, struct boot_info *info)
{
    for (uint32_t i = 0; i < config->vm_count; i++) {
        EFI_STATUS s = load_vm(&config->vms[i], i, info);
        if (EFI_ERROR(s))
            return s;
    }
    return EFI_SUCCESS;
}
