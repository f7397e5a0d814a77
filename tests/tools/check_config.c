/* scripts/check-config: the loader's parser and rules at the desk. Also checks what can be checked of the
 * files that the configuration names, relative to it. Messages are file:line:col: text, on standard error.
 * Exit status: 0 right, 1 wrong, 2 usage. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hv/config.h"
#include "hv/guest/layout.h"
#include "hv/guest/linux.h"

#define EXIT_WRONG 1
#define EXIT_USAGE 2

struct checker {
    const char *path; /* of the configuration */
    struct config config;
    unsigned errors;
};

/* A file that the configuration names, and where it does. */
struct named_file {
    const char *name;
    uint32_t line, column;
    uint64_t size;                 /* bytes, once opened */
    uint8_t head[LINUX_HEAD_SIZE]; /* its first bytes */
    size_t head_size;
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

static bool read_head(struct checker *c, struct named_file *f, const char *what)
{
    struct stat st;
    char text[CONFIG_PATH_MAX + 32];
    FILE *file = open_beside(c, f->name);

    snprintf(text, sizeof(text), "%s '%s': ", what, f->name);
    if (!file || fstat(fileno(file), &st)) {
        complain(c, f->line, f->column, text, strerror(errno));
        if (file)
            fclose(file);
        return false;
    }
    const char *fault = !S_ISREG(st.st_mode) ? "not a file" : st.st_size == 0 ? "the file is empty" : NULL;
    f->size = (uint64_t)st.st_size;
    f->head_size = fault ? 0 : fread(f->head, 1, sizeof(f->head), file);
    if (!fault && ferror(file))
        fault = strerror(errno);
    fclose(file);
    if (fault)
        complain(c, f->line, f->column, text, fault);
    return !fault;
}

static void check_fit(struct checker *c, const struct config_vm *vm, const struct linux_image *image,
                      uint64_t initrd_size)
{
    struct guest_layout layout;
    struct linux_plan plan;
    char why[256] = "";

    if (guest_layout_init(&layout, vm->memory))
        complain(c, vm->memory_line, vm->memory_column, "", "this memory size cannot be laid out");
    else if (linux_plan(image, &layout, initrd_size, strlen(vm->cmdline), &plan, why, sizeof(why)))
        complain(c, vm->memory_line, vm->memory_column, "", why);
}

static void check_vm(struct checker *c, const struct config_vm *vm)
{
    struct named_file kernel = {.name = vm->kernel, .line = vm->kernel_line, .column = vm->kernel_column};
    struct named_file initrd = {.name = vm->initrd, .line = vm->initrd_line, .column = vm->initrd_column};
    struct linux_image image;
    char why[256] = "";

    bool good = read_head(c, &kernel, "kernel");
    if (good && linux_parse_image((struct span){kernel.head, kernel.head_size}, kernel.size, &image, why,
                                  sizeof(why))) {
        complain(c, vm->kernel_line, vm->kernel_column, "", why);
        good = false;
    }
    if (vm->initrd[0])
        good = read_head(c, &initrd, "initrd") && good;
    if (good)
        check_fit(c, vm, &image, initrd.size);
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

static void print_table(const struct config *config)
{
    printf("%-16s %-10s %10s  %-24s %s\n", "VM", "CPUs", "memory", "kernel", "initrd");
    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        char cpus[256];
        format_cpus(vm->cpus, cpus, sizeof(cpus));
        printf("%-16s %-10s %6lu MiB  %-24s %s\n", vm->name, cpus, (unsigned long)(vm->memory >> 20),
               vm->kernel, vm->initrd[0] ? vm->initrd : "-");
    }
}

/* Each file once, in the order of the configuration. */
static void print_files(const struct config *config)
{
    const char *seen[2 * CONFIG_MAX_VMS];
    unsigned count = 0;

    for (uint32_t i = 0; i < 2 * config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i / 2];
        const char *name = i % 2 ? vm->initrd : vm->kernel;
        bool new = name[0] != 0;
        for (unsigned j = 0; j < count; j++)
            new = new &&strcmp(seen[j], name) != 0;
        if (!new)
            continue;
        seen[count++] = name;
        printf("%s\n", name);
    }
}

int main(int argc, char **argv)
{
    static struct checker checker;
    bool files = argc == 3 && strcmp(argv[1], "--files") == 0;

    if (argc != (files ? 3 : 2) || argv[argc - 1][0] == '-') {
        fprintf(stderr,
                "usage: %s [--files] FILE\n"
                "Checks a bulkhead.conf and the files it names. --files: only lists those files.\n",
                argv[0]);
        return EXIT_USAGE;
    }
    checker.path = argv[argc - 1];
    if (!load(&checker))
        return EXIT_WRONG;
    if (files) {
        print_files(&checker.config);
        return EXIT_SUCCESS;
    }
    for (uint32_t i = 0; i < checker.config.vm_count; i++)
        check_vm(&checker, &checker.config.vms[i]);
    if (checker.errors)
        return EXIT_WRONG;
    print_table(&checker.config);
    return EXIT_SUCCESS;
}
