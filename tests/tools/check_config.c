/* scripts/check-config: the loader's parser and rules at the desk. Also checks what can be checked of the
 * files that the configuration names, relative to it. Messages are file:line:col: text, on standard error.
 * Exit status: 0 right, 1 wrong, 2 usage. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hv/config/config.h"
#include "hv/guest/image.h"
#include "hv/lib/bdf.h"

#define EXIT_WRONG 1
#define EXIT_USAGE 2

struct checker {
    const char *path; /* of the configuration */
    struct config config;
    bool list_files;        /* and nothing else */
    unsigned cpus;          /* of the machine; 0: not known */
    unsigned long long mib; /* that VMs can have together; 0: not known */
    unsigned errors;
};

/* A file that the configuration names, and where it does. */
struct named_file {
    const char *name;
    uint32_t line, column;
    uint64_t size; /* bytes, once opened */
    FILE *file;
};

static void complain(struct checker *c, uint32_t line, uint32_t column, const char *what, const char *why)
{
    if (line)
        fprintf(stderr, "%s:%u:%u: %s%s\n", c->path, line, column, what, why);
    else
        fprintf(stderr, "%s: %s%s\n", c->path, what, why);
    c->errors++;
}

/* The name as the configuration gives it, relative to the configuration's directory. */
static FILE *open_beside(const struct checker *c, const char *name)
{
    const char *slash = strrchr(c->path, '/');
    size_t directory = slash ? (size_t)(slash - c->path) + 1 : 0;
    char *full = malloc(directory + strlen(name) + 1);

    if (!full)
        return NULL;
    memcpy(full, c->path, directory);
    memcpy(full + directory, name, strlen(name) + 1);
    FILE *file = fopen(full, "rb");
    free(full);
    return file;
}

/* The caller closes f->file when it is not NULL. */
static bool open_named(struct checker *c, struct named_file *f, const char *what)
{
    struct stat st;
    char text[CONFIG_PATH_MAX + 32];

    snprintf(text, sizeof(text), "%s '%s': ", what, f->name);
    f->file = open_beside(c, f->name);
    if (!f->file || fstat(fileno(f->file), &st)) {
        complain(c, f->line, f->column, text, strerror(errno));
        return false;
    }
    const char *fault = !S_ISREG(st.st_mode) ? "not a file" : st.st_size == 0 ? "the file is empty" : NULL;
    f->size = (uint64_t)st.st_size;
    if (fault)
        complain(c, f->line, f->column, text, fault);
    return !fault;
}

/* Is the file there? *size: its bytes. */
static bool measure(struct checker *c, struct named_file f, const char *what, uint64_t *size)
{
    bool good = open_named(c, &f, what);

    if (f.file)
        fclose(f.file);
    *size = f.size;
    return good;
}

/* A piece of the file at a time. */
static const void *map_file(void *ctx, uint64_t offset, size_t *length)
{
    static uint8_t piece[4096];
    FILE *file = ctx;

    if (fseek(file, (long)offset, SEEK_SET))
        return NULL;
    *length = fread(piece, 1, sizeof(piece), file);
    return *length ? piece : NULL;
}

/* The same as the loader does: recognise the kernel, and place everything. */
static void check_guest(struct checker *c, const struct config_vm *vm, const struct guest_files *files)
{
    static struct guest_image image;
    struct guest_layout layout;
    char why[256] = "";

    if (guest_layout_init(&layout, vm->memory)) {
        complain(c, vm->memory_line, vm->memory_column, "", "this memory size cannot be laid out");
        return;
    }
    enum status status = guest_prepare(files, &layout, &image, why, sizeof(why));
    if (status == ERR_RANGE)
        complain(c, vm->memory_line, vm->memory_column, "", why);
    else if (status)
        complain(c, vm->kernel_line, vm->kernel_column, "", why);
}

static void check_disk(struct checker *c, const struct config_disk *disk)
{
    struct named_file f = {.name = disk->path, .line = disk->line, .column = disk->column};
    const char *what = disk->cdrom ? "CD" : "disk";
    char text[CONFIG_PATH_MAX + 32];
    uint64_t size;

    if (!measure(c, f, what, &size))
        return;
    const char *fault = config_disk_fault(disk, size);
    snprintf(text, sizeof(text), "%s '%s': ", what, disk->path);
    if (fault)
        complain(c, f.line, f.column, text, fault);
}

static void check_vm(struct checker *c, const struct config_vm *vm)
{
    struct named_file kernel = {.name = vm->kernel, .line = vm->kernel_line, .column = vm->kernel_column};
    struct named_file initrd = {.name = vm->initrd, .line = vm->initrd_line, .column = vm->initrd_column};
    struct guest_files files = {.module_count = vm->module_count,
                                .cmdline = vm->cmdline,
                                .load = vm->load,
                                .flash_max = guest_flash_max(vm)};

    bool good = open_named(c, &kernel, vm->firmware ? "firmware" : "kernel");
    if (vm->initrd[0])
        good = measure(c, initrd, "initrd", &files.initrd.size) && good;
    for (uint32_t i = 0; i < vm->module_count; i++) {
        const struct config_module *m = &vm->modules[i];
        struct named_file module = {.name = m->path, .line = m->line, .column = m->column};
        good = measure(c, module, "module", &files.modules[i].source.size) && good;
    }
    for (uint32_t i = 0; i < vm->disk_count; i++)
        check_disk(c, &vm->disks[i]);
    files.kernel = (struct guest_source){kernel.file, kernel.size, map_file};
    if (good)
        check_guest(c, vm, &files);
    if (kernel.file)
        fclose(kernel.file);
}

/* Reads and parses the configuration. */
static bool load(struct checker *c)
{
    static uint8_t text[CONFIG_MAX_SIZE + 1]; /* one more, so that the parser sees that a file is too big */
    struct config_error error;
    FILE *file = fopen(c->path, "rb");

    if (!file) {
        complain(c, 0, 0, "", strerror(errno));
        return false;
    }
    size_t size = fread(text, 1, sizeof(text), file);
    bool failed = ferror(file) != 0;
    int reason = errno;
    fclose(file);
    if (failed) {
        complain(c, 0, 0, "", strerror(reason));
        return false;
    }
    if (config_parse((struct span){text, size}, &c->config, &error) == STATUS_OK)
        return true;
    complain(c, error.line, error.column, "", error.message);
    return false;
}

static void format_cpus(uint64_t cpus, char *out, size_t size)
{
    size_t n = 0;

    out[0] = 0;
    for (unsigned first = 0; first < CONFIG_MAX_CPUS; first++) {
        if (!(cpus >> first & 1))
            continue;
        unsigned last = first;
        while (last + 1 < CONFIG_MAX_CPUS && (cpus >> (last + 1) & 1))
            last++;
        n += (size_t)snprintf(out + n, n < size ? size - n : 0, last > first ? "%s%u-%u" : "%s%u",
                              n ? "," : "", first, last);
        first = last;
    }
}

/* Against a machine that was described on the command line. */
static void check_machine(struct checker *c)
{
    struct config_error error;
    uint32_t cpus = c->cpus ? c->cpus : CONFIG_MAX_CPUS;
    uint64_t memory = c->mib ? (uint64_t)c->mib << 20 : UINT64_MAX;

    if (config_check_machine(&c->config, cpus, memory, &error) != STATUS_OK)
        complain(c, error.line, error.column, "", error.message);
}

/* "net0: VF of 01:00.0", one line for each device. */
static void print_assigned(const struct config_vm *vm)
{
    static const char *const kinds[] = {[ASSIGN_NET_VF] = "a VF of network card",
                                        [ASSIGN_NVME_VF] = "a VF of NVMe controller",
                                        [ASSIGN_PCI] = "function"};

    for (uint32_t i = 0; i < vm->disk_count; i++)
        printf("    %s %s as %s%u\n", vm->disks[i].cdrom ? "CD" : "disk", vm->disks[i].path,
               vm->disks[i].cdrom ? "cdrom" : "disk", vm->disks[i].number);
    for (uint32_t i = 0; i < vm->assigned_count; i++) {
        const struct config_assign *a = &vm->assigned[i];
        printf("    %s ", kinds[a->kind]);
        if (a->by_id)
            printf("%04x:%04x/%u", a->vendor, a->device, a->nth);
        else
            printf(BDF_FMT, BDF_ARGS(a->bdf));
        if (a->namespace)
            printf(" with namespace %u", a->namespace);
        printf("\n");
    }
}

static void print_table(const struct config *config)
{
    printf("%-16s %-7s %-10s %10s  %-24s %s\n", "VM", "console", "CPUs", "memory", "kernel",
           "initrd and modules");
    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        char cpus[256];
        format_cpus(vm->cpus, cpus, sizeof(cpus));
        printf("%-16s %-7u %-10s %6lu MiB  %-24s %s", vm->name, vm->console, cpus,
               (unsigned long)(vm->memory >> 20), vm->kernel,
               vm->initrd[0]      ? vm->initrd
               : vm->module_count ? ""
                                  : "-");
        for (uint32_t m = 0; m < vm->module_count; m++)
            printf("%s%s", m || vm->initrd[0] ? ", " : "", vm->modules[m].path);
        printf("\n");
        print_assigned(vm);
    }
}

#define FILES_PER_VM (2 + CONFIG_MAX_MODULES + CONFIG_MAX_DISKS)

/* File `index` of a VM, "" when it has none there. */
static const char *file_name(const struct config_vm *vm, unsigned index)
{
    if (index < 2)
        return index ? vm->initrd : vm->kernel;
    index -= 2;
    if (index < CONFIG_MAX_MODULES)
        return index < vm->module_count ? vm->modules[index].path : "";
    index -= CONFIG_MAX_MODULES;
    return index < vm->disk_count ? vm->disks[index].path : "";
}

/* Each file once, in the order of the configuration. */
static void print_files(const struct config *config)
{
    const char *seen[FILES_PER_VM * CONFIG_MAX_VMS];
    unsigned count = 0;

    for (uint32_t i = 0; i < FILES_PER_VM * config->vm_count; i++) {
        const char *name = file_name(&config->vms[i / FILES_PER_VM], i % FILES_PER_VM);
        bool new = name[0] != 0;
        for (unsigned j = 0; j < count; j++)
            new = new &&strcmp(seen[j], name) != 0;
        if (!new)
            continue;
        seen[count++] = name;
        printf("%s\n", name);
    }
}

/* A whole number from 1 to `max`. */
static bool parse_number(const char *text, unsigned long long max, unsigned long long *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0 && *out >= 1 && *out <= max;
}

static bool parse_arguments(struct checker *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        unsigned long long number;
        if (strcmp(argv[i], "--files") == 0) {
            c->list_files = true;
        } else if (strcmp(argv[i], "--cpus") == 0 && i + 1 < argc) {
            if (!parse_number(argv[++i], CONFIG_MAX_CPUS, &number))
                return false;
            c->cpus = (unsigned)number;
        } else if (strcmp(argv[i], "--mib") == 0 && i + 1 < argc) {
            if (!parse_number(argv[++i], CONFIG_MEMORY_MAX >> 20, &c->mib))
                return false;
        } else if (argv[i][0] == '-' || c->path) {
            return false;
        } else {
            c->path = argv[i];
        }
    }
    return c->path != NULL;
}

int main(int argc, char **argv)
{
    static struct checker checker;

    if (!parse_arguments(&checker, argc, argv)) {
        fprintf(stderr,
                "usage: %s [--files] [--cpus N] [--mib N] FILE\n"
                "Checks a bulkhead.conf and the files it names. --files: only lists those files. --cpus, "
                "--mib: also\n"
                "against a machine with so many CPUs (up to %u) and MiB of memory for VMs.\n",
                argv[0], CONFIG_MAX_CPUS);
        return EXIT_USAGE;
    }
    if (!load(&checker))
        return EXIT_WRONG;
    if (checker.list_files) {
        print_files(&checker.config);
        return EXIT_SUCCESS;
    }
    check_machine(&checker);
    for (uint32_t i = 0; i < checker.config.vm_count; i++)
        check_vm(&checker, &checker.config.vms[i]);
    if (checker.errors)
        return EXIT_WRONG;
    print_table(&checker.config);
    return EXIT_SUCCESS;
}
