#include "hv/config/config.h"
#include "hv/config/config_assign.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/lib/near.h"
#include "hv/lib/scan.h"
#include "hv/lib/string.h"

#define DISK_SECTOR 512u
#define CD_SECTOR   2048u

enum section { SECTION_NONE, SECTION_MACHINE, SECTION_VM };

struct parser {
    struct config *config;
    struct config_error *error;
    struct span line; /* the current one, without its end */
    uint32_t line_number;
    enum section section;
    bool seen_machine;
    uint32_t seen_keys;   /* bit n: keys[n] was given in this section */
    struct config_vm *vm; /* in SECTION_VM */
};

/* A key's value, with comment and blanks removed. */
struct value {
    const char *key;
    struct span name; /* the key as it stands in the file: net0 */
    struct span text;
    uint32_t column;
};

typedef bool (*value_fn)(struct parser *p, const struct value *value);

static bool fail(struct parser *p, enum config_rule rule, uint32_t column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static bool fail(struct parser *p, enum config_rule rule, uint32_t column, const char *format, ...)
{
    va_list args;

    *p->error = (struct config_error){.rule = rule, .line = p->line_number, .column = column};
    va_start(args, format);
    fmt_vformat(p->error->message, sizeof(p->error->message), format, args);
    va_end(args);
    return false;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct span skip(struct span s, size_t n)
{
    return (struct span){s.data + n, s.size - n};
}

static struct span trim(struct span s)
{
    while (s.size && is_blank(s.data[0]))
        s = skip(s, 1);
    while (s.size && is_blank(s.data[s.size - 1]))
        s.size--;
    return s;
}

/* Removes a comment: a '#' at the start or after a blank. */
static struct span without_comment(struct span s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] == '#' && (i == 0 || is_blank(s.data[i - 1]))) {
            s.size = i;
            break;
        }
    }
    return trim(s);
}

static uint32_t column_of(const struct parser *p, const uint8_t *at)
{
    return (uint32_t)(at - p->line.data) + 1;
}

/* ---- values ---- */

static bool parse_choice(struct parser *p, const struct value *v, const char *const *names, unsigned count,
                         const char *listed, unsigned *out)
{
    for (unsigned i = 0; i < count; i++) {
        if (span_equals(v->text, names[i])) {
            *out = i;
            return true;
        }
    }
    return fail(p, CONFIG_BAD_CHOICE, v->column, "%s cannot be '%s': use %s", v->key,
                config_quoted(v->text).text, listed);
}

static bool parse_console(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"serial", "screen"};
    static const enum config_console values[] = {CONSOLE_SERIAL, CONSOLE_SCREEN};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "serial or screen, or leave the line out for both",
                      &choice))
        return false;
    p->config->console = values[choice];
    return true;
}

static bool parse_log_level(struct parser *p, const struct value *v, enum log_level *out)
{
    static const char *const names[] = {
        [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "error, warn, info or debug", &choice))
        return false;
    *out = (enum log_level)choice;
    return true;
}

static bool parse_log(struct parser *p, const struct value *v)
{
    return parse_log_level(p, v, &p->config->log);
}

static bool parse_report(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"no", "yes"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "yes or no", &choice))
        return false;
    p->config->report = choice == 1;
    return true;
}

static bool parse_on_panic(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"stay", "reboot"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "stay or reboot", &choice))
        return false;
    p->config->on_panic = (enum config_on_panic)choice;
    return true;
}

static bool parse_on_idle(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"poweroff", "reboot", "stay"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "poweroff, reboot or stay", &choice))
        return false;
    p->config->on_idle = (enum config_on_idle)choice;
    return true;
}

static bool parse_on_reboot(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"stop", "restart"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "stop or restart", &choice))
        return false;
    p->vm->on_reboot = (enum config_on_stop)choice;
    return true;
}

static bool parse_on_crash(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"stop", "restart", "dump"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "stop, restart or dump", &choice))
        return false;
    p->vm->on_crash = (enum config_on_stop)choice;
    return true;
}

static bool parse_compat(struct parser *p, const struct value *v)
{
    static const char *const names[] = {[COMPAT_NONE] = "none", [COMPAT_QEMU] = "qemu"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "qemu, or leave the line out", &choice))
        return false;
    p->vm->compat = (enum config_compat)choice;
    return true;
}

static bool parse_x2apic(struct parser *p, const struct value *v)
{
    static const char *const names[] = {"on", "off"};
    unsigned choice;

    if (!parse_choice(p, v, names, ARRAY_SIZE(names), "on or off", &choice))
        return false;
    p->vm->no_x2apic = choice == 1;
    return true;
}

static bool parse_vm_log(struct parser *p, const struct value *v)
{
    p->vm->log_line = p->line_number;
    return parse_log_level(p, v, &p->vm->log);
}

static bool parse_vm_console(struct parser *p, const struct value *v)
{
    uint8_t digit = v->text.data[0] - '0';

    if (v->text.size != 1 || digit < 1 || digit > CONFIG_DIGITS)
        return fail(
            p, CONFIG_BAD_DIGIT, v->column,
            "a VM's console cannot be '%s': use a digit from 1 to %u, which Ctrl-A then brings to the front",
            config_quoted(v->text).text, CONFIG_DIGITS);
    for (uint32_t i = 0; i < p->config->vm_count; i++) {
        const struct config_vm *other = &p->config->vms[i];
        if (other->console == digit)
            return fail(p, CONFIG_DIGIT_TAKEN, v->column,
                        "console %u belongs to VM '%s' already (line %u): give each VM its own digit", digit,
                        other->name, other->console_line);
    }
    p->vm->console = digit;
    p->vm->console_line = p->line_number;
    return true;
}

/* Hexadecimal behind 0x, or decimal; all of `s`. */
static bool whole_number(struct span s, uint64_t *out)
{
    struct span hex = s;
    if (scan_char(&hex, '0') && (scan_char(&hex, 'x') || scan_char(&hex, 'X')))
        return scan_hex(&hex, 1, 16, out) && !hex.size;
    return scan_number(&s, out) && !s.size;
}

static bool parse_load(struct parser *p, const struct value *v)
{
    uint64_t load;

    if (!whole_number(v->text, &load) || load < CONFIG_LOAD_FIRST || load >= CONFIG_LOAD_END)
        return fail(
            p, CONFIG_BAD_LOAD, v->column,
            "'%s' is not an address for a raw image: write one from 0x500 to 0x9efff, 0x7c00 for a boot "
            "sector",
            config_quoted(v->text).text);
    p->vm->load = (uint32_t)load;
    return true;
}

static bool size_shift(struct span suffix, unsigned *shift)
{
    static const char suffixes[] = "KMG";

    *shift = 0;
    if (!suffix.size)
        return true;
    for (unsigned i = 0; suffixes[i] && suffix.size == 1; i++) {
        if ((suffix.data[0] & ~0x20u) == (uint8_t)suffixes[i]) {
            *shift = 10 * (i + 1);
            return true;
        }
    }
    return false;
}

static bool parse_size(struct parser *p, const struct value *v, uint64_t *out)
{
    struct span rest = v->text;
    uint64_t n;
    unsigned shift;

    if (!scan_number(&rest, &n) || !size_shift(rest, &shift) || n > UINT64_MAX >> shift)
        return fail(p, CONFIG_BAD_SIZE, v->column,
                    "'%s' is not a size: write a whole number with K, M or G, as in %s = 512M",
                    config_quoted(v->text).text, v->key);
    *out = n << shift;
    return true;
}

static bool parse_memory(struct parser *p, const struct value *v)
{
    uint64_t bytes = 0;

    if (!parse_size(p, v, &bytes))
        return false;
    if (bytes < CONFIG_MEMORY_MIN)
        return fail(p, CONFIG_MEMORY_TOO_SMALL, v->column, "a VM needs at least 8M of memory, '%s' is less%s",
                    config_quoted(v->text).text,
                    scan_is_digit(v->text.data[v->text.size - 1]) ? ": is an M missing?" : "");
    if (bytes > CONFIG_MEMORY_MAX)
        return fail(p, CONFIG_MEMORY_TOO_LARGE, v->column,
                    "a VM can have at most 1024G of memory, '%s' is more", config_quoted(v->text).text);
    if (bytes % CONFIG_MEMORY_UNIT)
        return fail(p, CONFIG_MEMORY_UNALIGNED, v->column,
                    "memory is given in multiples of 2M: '%s' is not one, %luM is",
                    config_quoted(v->text).text, (unsigned long)((bytes & ~(CONFIG_MEMORY_UNIT - 1)) >> 20));
    p->vm->memory = bytes;
    p->vm->memory_line = p->line_number;
    p->vm->memory_column = v->column;
    return true;
}

static bool add_cpu(struct parser *p, uint64_t cpu, uint32_t column, uint64_t *set)
{
    if (*set & BIT(cpu))
        return fail(p, CONFIG_CPU_TWICE_IN_LIST, column, "CPU %u is in this list already", (unsigned)cpu);
    for (uint32_t i = 0; i < p->config->vm_count; i++) {
        const struct config_vm *other = &p->config->vms[i];
        if (other->cpus & BIT(cpu)) /* our own are still in *set */
            return fail(p, CONFIG_CPU_TAKEN, column,
                        "CPU %u belongs to VM '%s' already (line %u): give each CPU to one VM", (unsigned)cpu,
                        other->name, other->cpus_line);
    }
    *set |= BIT(cpu);
    return true;
}

/* One element of a CPU list: "3" or "0-1". */
static bool parse_cpu_range(struct parser *p, struct span element, uint64_t *set)
{
    uint32_t column = column_of(p, element.data);
    struct span rest = element;
    uint64_t first, last;
    bool good = scan_number(&rest, &first);

    last = first;
    if (good && scan_char(&rest, '-'))
        good = scan_number(&rest, &last);
    if (!good || rest.size)
        return fail(p, CONFIG_BAD_CPU_LIST, column,
                    "'%s' is not a CPU or a range of CPUs: write a list as in cpus = 0-1,3",
                    config_quoted(element).text);
    if (last < first)
        return fail(p, CONFIG_BAD_CPU_LIST, column, "the range '%s' runs backwards",
                    config_quoted(element).text);
    if (last >= CONFIG_MAX_CPUS)
        return fail(p, CONFIG_CPU_OUT_OF_RANGE, column, "there is no CPU %lu: CPUs are numbered from 0 to %u",
                    (unsigned long)last, CONFIG_MAX_CPUS - 1);
    for (uint64_t cpu = first; cpu <= last; cpu++)
        if (!add_cpu(p, cpu, column, set))
            return false;
    return true;
}

static bool parse_cpus(struct parser *p, const struct value *v)
{
    struct span rest = v->text;
    uint64_t set = 0;

    p->vm->cpus_line = p->line_number;
    p->vm->cpus_column = v->column;
    for (;;) {
        size_t n = 0;
        while (n < rest.size && rest.data[n] != ',')
            n++;
        if (!parse_cpu_range(p, trim((struct span){rest.data, n}), &set))
            return false;
        if (n == rest.size)
            break;
        rest = skip(rest, n + 1);
    }
    unsigned count = 0;
    for (uint64_t left = set; left; left &= left - 1)
        count++;
    if (count > CONFIG_MAX_VCPUS)
        return fail(p, CONFIG_TOO_MANY_CPUS, v->column, "a VM can have at most %u CPUs, these are %u",
                    CONFIG_MAX_VCPUS, count);
    p->vm->cpus = set;
    return true;
}

/* What is wrong with one part of a path between slashes, or NULL. */
static const char *path_part_fault(struct span part)
{
    /* What FAT cannot store in a name. */
    static const char forbidden[] = "\"*:<>?|";

    if (!part.size)
        return "has an empty part";
    if (span_equals(part, ".") || span_equals(part, ".."))
        return "has a '.' or '..' in it";
    for (size_t i = 0; i < part.size; i++) {
        if (part.data[i] == '\\')
            return "has a backslash: write / between directories";
        if (part.data[i] < ' ' || part.data[i] >= 0x7f)
            return "has a character that is not printable ASCII";
        for (const char *c = forbidden; *c; c++)
            if (part.data[i] == (uint8_t)*c)
                return "has a character that a boot partition cannot store (one of \" * : < > ? |)";
    }
    return NULL;
}

static bool parse_path(struct parser *p, const struct value *v, char *out)
{
    const char *fault = NULL;
    struct span rest = v->text;

    if (rest.data[0] == '/')
        return fail(p, CONFIG_BAD_PATH, v->column, "'%s' is an absolute path: write it relative to this file",
                    config_quoted(v->text).text);
    for (bool more = true; more && !fault;) {
        size_t n = 0;
        while (n < rest.size && rest.data[n] != '/')
            n++;
        fault = path_part_fault((struct span){rest.data, n});
        more = n < rest.size;
        rest = skip(rest, more ? n + 1 : n);
    }
    if (fault)
        return fail(p, CONFIG_BAD_PATH, v->column, "the path '%s' %s", config_quoted(v->text).text, fault);
    if (v->text.size >= CONFIG_PATH_MAX)
        return fail(p, CONFIG_VALUE_TOO_LONG, v->column,
                    "this path has %u characters, at most %u are possible", (unsigned)v->text.size,
                    CONFIG_PATH_MAX - 1);
    memcpy(out, v->text.data, v->text.size);
    out[v->text.size] = 0;
    return true;
}

static bool parse_image(struct parser *p, const struct value *v, bool firmware)
{
    if (p->vm->kernel[0] && p->vm->firmware != firmware)
        return fail(
            p, CONFIG_KERNEL_AND_FIRMWARE, v->column,
            "VM '%s' has a %s already (line %u): a firmware finds its kernel on a disk, so give one of "
            "the two",
            p->vm->name, firmware ? "kernel" : "firmware", p->vm->kernel_line);
    p->vm->firmware = firmware;
    p->vm->kernel_line = p->line_number;
    p->vm->kernel_column = v->column;
    return parse_path(p, v, p->vm->kernel);
}

static bool parse_kernel(struct parser *p, const struct value *v)
{
    return parse_image(p, v, false);
}

static bool parse_firmware(struct parser *p, const struct value *v)
{
    return parse_image(p, v, true);
}

static bool parse_initrd(struct parser *p, const struct value *v)
{
    p->vm->initrd_line = p->line_number;
    p->vm->initrd_column = v->column;
    return parse_path(p, v, p->vm->initrd);
}

static bool parse_cmdline(struct parser *p, const struct value *v)
{
    if (v->text.size >= CONFIG_CMDLINE_MAX)
        return fail(p, CONFIG_VALUE_TOO_LONG, v->column,
                    "this command line has %u bytes, at most %u are possible", (unsigned)v->text.size,
                    CONFIG_CMDLINE_MAX - 1);
    memcpy(p->vm->cmdline, v->text.data, v->text.size);
    p->vm->cmdline[v->text.size] = 0;
    return true;
}

/* PATH, and what follows a blank. */
static bool parse_module(struct parser *p, const struct value *v)
{
    struct config_vm *vm = p->vm;
    struct value path = *v;
    size_t n = 0;

    if (vm->module_count == CONFIG_MAX_MODULES)
        return fail(p, CONFIG_TOO_MANY_MODULES, v->column, "a VM can have at most %u modules",
                    CONFIG_MAX_MODULES);
    while (n < v->text.size && !is_blank(v->text.data[n]))
        n++;
    path.text.size = n;
    struct config_module *module = &vm->modules[vm->module_count];
    if (!parse_path(p, &path, module->path))
        return false;
    struct span args = trim(skip(v->text, n));
    if (args.size >= CONFIG_ARGS_MAX)
        return fail(p, CONFIG_VALUE_TOO_LONG, column_of(p, args.data),
                    "this module's arguments have %u bytes, at most %u are possible", (unsigned)args.size,
                    CONFIG_ARGS_MAX - 1);
    memcpy(module->args, args.data, args.size);
    module->line = p->line_number;
    module->column = v->column;
    vm->module_count++;
    return true;
}

/* What both kinds of values have in common; `number`: of netN, diskN. */
static bool parse_assigned(struct parser *p, const struct value *v, enum config_assign_kind kind,
                           uint8_t number)
{
    struct config_vm *vm = p->vm;
    struct config_assign_error error;

    if (vm->assigned_count == CONFIG_MAX_ASSIGNED)
        return fail(p, CONFIG_TOO_MANY_ASSIGNED, v->column, "a VM can have at most %u devices",
                    CONFIG_MAX_ASSIGNED);
    struct config_assign *one = &vm->assigned[vm->assigned_count];
    one->kind = kind;
    one->number = number;
    if (config_assign_parse(v->name, v->text, one, &error) != STATUS_OK)
        return fail(p, error.rule, column_of(p, error.at), "%s", error.message);
    one->line = p->line_number;
    one->column = v->column;
    if (config_assign_check(p->config, vm, one, &error) != STATUS_OK)
        return fail(p, error.rule, v->column, "%s", error.message);
    vm->assigned_count++;
    return true;
}

static uint8_t last_digit(struct span name)
{
    return (uint8_t)(name.data[name.size - 1] - '0');
}

static bool parse_net(struct parser *p, const struct value *v)
{
    return parse_assigned(p, v, ASSIGN_NET_VF, last_digit(v->name));
}

/* Where an IDE drive is, with the name of the position. */
static const char *const positions[CONFIG_MAX_DISKS] = {"primary master", "primary slave", "secondary master",
                                                        "secondary slave"};

/* The value is "ramdisk PATH", and *rest then the path. */
static bool is_ramdisk(const struct value *v, struct value *rest)
{
    size_t n = 0;

    while (n < v->text.size && !is_blank(v->text.data[n]))
        n++;
    *rest = *v;
    rest->text = trim(skip(v->text, n));
    return span_equals((struct span){v->text.data, n}, "ramdisk");
}

static bool disk_is_free(struct parser *p, const struct value *v, const struct config_disk *disk)
{
    const struct config_vm *vm = p->vm;

    for (uint32_t i = 0; i < vm->disk_count; i++) {
        const struct config_disk *other = &vm->disks[i];
        if (other->cdrom == disk->cdrom && other->number == disk->number)
            return fail(p, CONFIG_DUPLICATE_KEY, v->column, "'%s' was given already in this section",
                        config_quoted(v->name).text);
        if (other->position == disk->position)
            return fail(
                p, CONFIG_DISK_TAKEN, v->column, "%s%u (line %u) is the %s already: use another number",
                other->cdrom ? "cdrom" : "disk", other->number, other->line, positions[disk->position]);
    }
    for (uint32_t i = 0; i < vm->assigned_count && !disk->cdrom; i++)
        if (vm->assigned[i].kind == ASSIGN_NVME_VF && vm->assigned[i].number == disk->number)
            return fail(p, CONFIG_DUPLICATE_KEY, v->column, "'%s' was given already in this section",
                        config_quoted(v->name).text);
    return true;
}

/* `path`: the value without its first word. CD-ROM drives begin at the secondary master, as on most PCs. */
static bool parse_ramdisk(struct parser *p, const struct value *path, bool cdrom)
{
    struct config_vm *vm = p->vm;
    uint8_t number = last_digit(path->name);
    struct config_disk disk = {.cdrom = cdrom,
                               .number = number,
                               .position = (uint8_t)((cdrom ? number + 2u : number) % CONFIG_MAX_DISKS),
                               .line = p->line_number};

    if (number >= CONFIG_MAX_DISKS)
        return fail(p, CONFIG_BAD_DISK, path->column, "'%s' cannot be a ramdisk: their numbers are 0 to %u",
                    config_quoted(path->name).text, CONFIG_MAX_DISKS - 1);
    if (!disk_is_free(p, path, &disk))
        return false;
    if (!path->text.size)
        return fail(p, CONFIG_EMPTY_VALUE, path->column,
                    "a ramdisk needs a file, as in %s = ramdisk disk.img", config_quoted(path->name).text);
    struct value v = *path;
    v.column = disk.column = column_of(p, path->text.data);
    if (!parse_path(p, &v, disk.path))
        return false;
    vm->disks[vm->disk_count++] = disk; /* there are as many as positions */
    return true;
}

static bool parse_disk(struct parser *p, const struct value *v)
{
    const struct config_vm *vm = p->vm;
    uint8_t number = last_digit(v->name);
    struct value path;

    if (is_ramdisk(v, &path))
        return parse_ramdisk(p, &path, false);
    for (uint32_t i = 0; i < vm->disk_count; i++)
        if (!vm->disks[i].cdrom && vm->disks[i].number == number)
            return fail(p, CONFIG_DUPLICATE_KEY, v->column, "'%s' was given already in this section",
                        config_quoted(v->name).text);
    return parse_assigned(p, v, ASSIGN_NVME_VF, number);
}

static bool parse_cdrom(struct parser *p, const struct value *v)
{
    struct value path;

    if (is_ramdisk(v, &path))
        return parse_ramdisk(p, &path, true);
    return fail(p, CONFIG_BAD_CHOICE, v->column, "%s cannot be '%s': use ramdisk, as in %s = ramdisk cd.iso",
                config_quoted(v->name).text, config_quoted(v->text).text, config_quoted(v->name).text);
}

const char *config_disk_fault(const struct config_disk *disk, uint64_t size)
{
    if (disk->cdrom)
        return size % CD_SECTOR ? "a CD's size must be a multiple of 2048 bytes, pad the file" : NULL;
    return size % DISK_SECTOR ? "a disk's size must be a multiple of 512 bytes, pad the file" : NULL;
}

static bool parse_pci(struct parser *p, const struct value *v)
{
    return parse_assigned(p, v, ASSIGN_PCI, 0);
}

/* A '#' at the end of a name stands for a digit. */
static const struct key {
    const char *name;
    enum section section;
    bool required;
    bool raw;  /* '#' and bytes that are not UTF-8 are part of the value */
    bool many; /* may be given several times */
    value_fn parse;
} keys[] = {
    {"console", SECTION_MACHINE, false, false, false, parse_console},
    {"log", SECTION_MACHINE, false, false, false, parse_log},
    {"report", SECTION_MACHINE, false, false, false, parse_report},
    {"on_idle", SECTION_MACHINE, false, false, false, parse_on_idle},
    {"on_panic", SECTION_MACHINE, false, false, false, parse_on_panic},
    {"cpus", SECTION_VM, true, false, false, parse_cpus},
    {"memory", SECTION_VM, true, false, false, parse_memory},
    {"kernel", SECTION_VM, false, false, false, parse_kernel},
    {"firmware", SECTION_VM, false, false, false, parse_firmware},
    {"load", SECTION_VM, false, false, false, parse_load},
    {"initrd", SECTION_VM, false, false, false, parse_initrd},
    {"cmdline", SECTION_VM, false, true, false, parse_cmdline},
    {"module", SECTION_VM, false, false, true, parse_module},
    {"on_reboot", SECTION_VM, false, false, false, parse_on_reboot},
    {"on_crash", SECTION_VM, false, false, false, parse_on_crash},
    {"console", SECTION_VM, false, false, false, parse_vm_console},
    {"log", SECTION_VM, false, false, false, parse_vm_log},
    {"compat", SECTION_VM, false, false, false, parse_compat},
    {"x2apic", SECTION_VM, false, false, false, parse_x2apic},
    {"net#", SECTION_VM, false, false, true, parse_net},
    {"disk#", SECTION_VM, false, false, true, parse_disk},
    {"cdrom#", SECTION_VM, false, false, true, parse_cdrom},
    {"pci", SECTION_VM, false, false, true, parse_pci},
};

static bool key_is(const struct key *key, struct span name)
{
    size_t n = str_length(key->name);

    if (key->name[n - 1] != '#')
        return span_equals(name, key->name);
    return name.size == n && memcmp(name.data, key->name, n - 1) == 0 && scan_is_digit(name.data[n - 1]);
}

/* As it is shown to people. */
static const char *key_text(const struct key *key)
{
    return key->parse == parse_net     ? "net0"
           : key->parse == parse_disk  ? "disk0"
           : key->parse == parse_cdrom ? "cdrom0"
                                       : key->name;
}

/* ---- sections ---- */

static bool check_image(struct parser *p)
{
    const struct config_vm *vm = p->vm;

    if (!vm->kernel[0]) {
        p->line_number = vm->line;
        return fail(p, CONFIG_MISSING_KEY, 1, "VM '%s' has no 'kernel' line (and no 'firmware'): add one",
                    vm->name);
    }
    if (!vm->firmware || !vm->assigned_count)
        return true;
    p->line_number = vm->assigned[0].line;
    return fail(
        p, CONFIG_FIRMWARE_DEVICES, vm->assigned[0].column,
        "VM '%s' has a firmware, which would move the device's registers where they cannot be: start a "
        "kernel to give it devices of the machine",
        vm->name);
}

/* The section that ends here must have had all its required keys. */
static bool end_section(struct parser *p)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        if (keys[i].section != p->section || !keys[i].required || (p->seen_keys & BIT(i)))
            continue;
        if (!p->vm) /* only VM sections have required keys */
            return true;
        p->line_number = p->vm->line;
        return fail(p, CONFIG_MISSING_KEY, 1, "VM '%s' has no '%s' line: add one", p->vm->name, keys[i].name);
    }
    return !p->vm || check_image(p);
}

static bool is_name_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || scan_is_digit(c) || c == '-';
}

static bool begin_vm(struct parser *p, struct span name, uint32_t column)
{
    struct config *config = p->config;
    bool good = name.size > 0 && name.size < CONFIG_NAME_MAX;

    for (size_t i = 0; good && i < name.size; i++)
        good = is_name_char(name.data[i]);
    if (!good)
        return fail(p, CONFIG_BAD_VM_NAME, column,
                    "'%s' cannot name a VM: use 1 to %u of the characters a-z, 0-9 and -, as in [vm web]",
                    config_quoted(name).text, CONFIG_NAME_MAX - 1);
    for (uint32_t i = 0; i < config->vm_count; i++)
        if (span_equals(name, config->vms[i].name))
            return fail(p, CONFIG_DUPLICATE_SECTION, column, "VM '%s' was described already (line %u)",
                        config->vms[i].name, config->vms[i].line);
    if (config->vm_count == CONFIG_MAX_VMS)
        return fail(p, CONFIG_TOO_MANY_VMS, column, "there can be at most %u VMs", CONFIG_MAX_VMS);
    p->vm = &config->vms[config->vm_count++];
    memcpy(p->vm->name, name.data, name.size);
    p->vm->line = p->line_number;
    p->vm->on_reboot = ON_STOP_RESTART;
    p->vm->on_crash = ON_STOP_STOP;
    p->section = SECTION_VM;
    return true;
}

static bool parse_section(struct parser *p, struct span text)
{
    uint32_t column = column_of(p, text.data);
    size_t n = 0;

    if (text.data[text.size - 1] != ']')
        return fail(p, CONFIG_BAD_SECTION, column,
                    "a section is one line in brackets, as in [machine] or [vm web]");
    uint32_t number = p->line_number;
    if (!end_section(p))
        return false;
    p->line_number = number;
    p->seen_keys = 0;
    struct span inner = trim((struct span){text.data + 1, text.size - 2});
    while (n < inner.size && !is_blank(inner.data[n]))
        n++;
    struct span kind = {inner.data, n}, name = trim(skip(inner, n));
    if (span_equals(kind, "vm"))
        return begin_vm(p, name, name.size ? column_of(p, name.data) : column);
    if (!span_equals(kind, "machine"))
        return fail(
            p, CONFIG_UNKNOWN_SECTION, column, "there is no section [%s]: %s", config_quoted(inner).text,
            near_miss(kind, "machine") ? "did you mean [machine]?" : "there are [machine] and [vm NAME]");
    if (name.size)
        return fail(p, CONFIG_BAD_SECTION, column_of(p, name.data), "[machine] takes no name");
    if (p->seen_machine)
        return fail(p, CONFIG_DUPLICATE_SECTION, column, "there can be only one [machine] section");
    p->seen_machine = true;
    p->section = SECTION_MACHINE;
    return true;
}

/* ---- lines ---- */

static bool unknown_key(struct parser *p, struct span name, uint32_t column)
{
    const char *where = p->section == SECTION_VM ? "[vm NAME]" : "[machine]";

    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (key_is(&keys[i], name))
            return fail(p, CONFIG_UNKNOWN_KEY, column, "'%s' belongs in a %s section, not here",
                        key_text(&keys[i]), keys[i].section == SECTION_VM ? "[vm NAME]" : "[machine]");
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].section == p->section && near_miss(name, key_text(&keys[i])))
            return fail(p, CONFIG_UNKNOWN_KEY, column, "there is no '%s' in a %s section: did you mean '%s'?",
                        config_quoted(name).text, where, key_text(&keys[i]));
    return fail(p, CONFIG_UNKNOWN_KEY, column, "there is no '%s' in a %s section: it takes %s",
                config_quoted(name).text, where,
                p->section == SECTION_VM
                    ? "cpus, memory, kernel, firmware, load, initrd, cmdline, module, on_reboot, "
                      "on_crash, console, log, compat, x2apic, net0, disk0, cdrom0 and pci"
                    : "console, log, report, on_idle and on_panic");
}

static const struct key *find_key(const struct parser *p, struct span name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].section == p->section && key_is(&keys[i], name))
            return &keys[i];
    return NULL;
}

static bool parse_assignment(struct parser *p, struct span text)
{
    uint32_t column = column_of(p, text.data);
    size_t n = 0;

    while (n < text.size && text.data[n] != '=')
        n++;
    if (n == text.size)
        return fail(p, CONFIG_NO_EQUALS, column, "'%s' is neither a [section] nor 'key = value'",
                    config_quoted(text).text);
    struct span name = trim((struct span){text.data, n});
    if (p->section == SECTION_NONE)
        return fail(p, CONFIG_KEY_OUTSIDE_SECTION, column,
                    "'%s' stands before any section: begin with [machine] or [vm NAME]",
                    config_quoted(name).text);
    const struct key *key = find_key(p, name);
    if (!key)
        return unknown_key(p, name, column);
    uint32_t bit = (uint32_t)BIT(key - keys);
    if (!key->many && (p->seen_keys & bit))
        return fail(p, CONFIG_DUPLICATE_KEY, column, "'%s' was given already in this section", key->name);
    p->seen_keys |= bit;
    struct span rest = skip(text, n + 1);
    struct value value = {
        .key = key_text(key), .name = name, .text = key->raw ? trim(rest) : without_comment(rest)};
    value.column = column_of(p, value.text.size ? value.text.data : rest.data);
    if (!value.text.size)
        return fail(p, CONFIG_EMPTY_VALUE, value.column, "'%s' has no value%s", key_text(key),
                    key->required ? "" : ": give it one, or leave the line out");
    return key->parse(p, &value);
}

/* Length of the UTF-8 sequence at s (1 to 4), 0: not UTF-8. Overlong forms and surrogates are not (RFC 3629).
 */
static size_t utf8_length(struct span s)
{
    uint8_t c = s.data[0];
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    if (n > s.size)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s.data[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && s.data[1] < 0xa0) || (c == 0xed && s.data[1] > 0x9f) ||
        (c == 0xf0 && s.data[1] < 0x90) || (c == 0xf4 && s.data[1] > 0x8f))
        return 0;
    return n;
}

/* Is the line of the form "cmdline = ..."? Its value may hold bytes of any character set. */
static bool is_raw_line(const struct parser *p, struct span text)
{
    size_t n = 0;

    while (n < text.size && text.data[n] != '=')
        n++;
    const struct key *key = find_key(p, trim((struct span){text.data, n}));
    return key && key->raw;
}

static bool check_bytes(struct parser *p)
{
    bool raw = is_raw_line(p, trim(p->line));
    size_t n;

    for (struct span s = p->line; s.size; s = skip(s, n)) {
        uint8_t c = s.data[0];
        n = utf8_length(s);
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return fail(p, CONFIG_BAD_BYTE, column_of(p, s.data),
                        "a control character (0x%02x): is this a text file?", c);
        if (!n && !raw)
            return fail(p, CONFIG_BAD_BYTE, column_of(p, s.data),
                        "byte 0x%02x is not UTF-8: save the file as UTF-8", c);
        if (!n)
            n = 1;
    }
    return true;
}

static bool parse_line(struct parser *p)
{
    if (p->line.size > CONFIG_LINE_MAX)
        return fail(p, CONFIG_LINE_TOO_LONG, CONFIG_LINE_MAX + 1, "this line is longer than %u bytes",
                    CONFIG_LINE_MAX);
    if (!check_bytes(p))
        return false;
    struct span text = trim(p->line);
    if (!text.size || text.data[0] == '#')
        return true;
    if (text.data[0] == '[')
        return parse_section(p, without_comment(text));
    return parse_assignment(p, text);
}

static struct span next_line(struct span *rest)
{
    struct span line = {rest->data, 0};

    while (line.size < rest->size && rest->data[line.size] != '\n')
        line.size++;
    *rest = skip(*rest, line.size < rest->size ? line.size + 1 : line.size);
    if (line.size && line.data[line.size - 1] == '\r')
        line.size--;
    return line;
}

/* What a VM did not say: depends on all sections, which come in any order. */
static void fill_defaults(struct config *config)
{
    uint32_t taken = 0;

    for (uint32_t i = 0; i < config->vm_count; i++)
        taken |= (uint32_t)BIT(config->vms[i].console);
    for (uint32_t i = 0; i < config->vm_count; i++) {
        struct config_vm *vm = &config->vms[i];
        if (!vm->log_line)
            vm->log = config->log;
        if (vm->console)
            continue;
        vm->console = 1;
        while (taken & BIT(vm->console)) /* there are as many digits as VMs */
            vm->console++;
        taken |= (uint32_t)BIT(vm->console);
    }
}
STATIC_ASSERT(CONFIG_DIGITS >= CONFIG_MAX_VMS, "each VM gets a digit");

enum status config_parse(struct span text, struct config *out, struct config_error *error)
{
    static const uint8_t bom[] = {0xef, 0xbb, 0xbf};
    struct parser p = {.config = out, .error = error};

    *out = (struct config){.console = CONSOLE_AUTO, .on_idle = ON_IDLE_POWEROFF, .log = LOG_INFO};
    *error = (struct config_error){.rule = CONFIG_OK};
    if (text.size > CONFIG_MAX_SIZE) {
        fail(&p, CONFIG_TOO_BIG, 0, "the file is larger than %u KiB: is it really the configuration?",
             CONFIG_MAX_SIZE >> 10);
        return ERR_INVALID;
    }
    if (text.size >= sizeof(bom) && memcmp(text.data, bom, sizeof(bom)) == 0)
        text = skip(text, sizeof(bom));
    while (text.size) {
        p.line = next_line(&text);
        p.line_number++;
        if (!parse_line(&p))
            return ERR_INVALID;
    }
    if (!end_section(&p))
        return ERR_INVALID;
    p.line_number = 0;
    if (!out->vm_count) {
        fail(&p, CONFIG_NO_VM, 0, "no VM is described: add a [vm NAME] section");
        return ERR_INVALID;
    }
    fill_defaults(out);
    return STATUS_OK;
}

enum status config_check_machine(const struct config *config, uint32_t cpu_count, uint64_t free_memory,
                                 struct config_error *error)
{
    struct parser p = {.error = error};
    uint64_t left = free_memory;

    *error = (struct config_error){.rule = CONFIG_OK};
    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        uint64_t absent = cpu_count >= CONFIG_MAX_CPUS ? 0 : vm->cpus & ~(BIT(cpu_count) - 1);
        if (absent) {
            p.line_number = vm->cpus_line;
            fail(&p, CONFIG_CPU_ABSENT, vm->cpus_column,
                 "VM '%s' wants CPU %u, but this machine has %u CPU%s, numbered from 0: correct 'cpus'",
                 vm->name, bits_highest(absent), cpu_count, cpu_count == 1 ? "" : "s");
            return ERR_INVALID;
        }
        if (vm->memory > left) {
            p.line_number = vm->memory_line;
            fail(&p, CONFIG_MEMORY_ABSENT, vm->memory_column,
                 "VM '%s' wants %lu MiB of memory, but this machine has only %lu MiB left for it: lower "
                 "'memory'",
                 vm->name, (unsigned long)(vm->memory >> 20), (unsigned long)(left >> 20));
            return ERR_INVALID;
        }
        left -= vm->memory;
    }
    return STATUS_OK;
}

const char *config_rule_name(enum config_rule rule)
{
    static const char *const names[] = {
        [CONFIG_OK] = "OK",
        [CONFIG_TOO_BIG] = "TOO_BIG",
        [CONFIG_BAD_BYTE] = "BAD_BYTE",
        [CONFIG_LINE_TOO_LONG] = "LINE_TOO_LONG",
        [CONFIG_BAD_SECTION] = "BAD_SECTION",
        [CONFIG_UNKNOWN_SECTION] = "UNKNOWN_SECTION",
        [CONFIG_DUPLICATE_SECTION] = "DUPLICATE_SECTION",
        [CONFIG_BAD_VM_NAME] = "BAD_VM_NAME",
        [CONFIG_TOO_MANY_VMS] = "TOO_MANY_VMS",
        [CONFIG_KEY_OUTSIDE_SECTION] = "KEY_OUTSIDE_SECTION",
        [CONFIG_NO_EQUALS] = "NO_EQUALS",
        [CONFIG_UNKNOWN_KEY] = "UNKNOWN_KEY",
        [CONFIG_DUPLICATE_KEY] = "DUPLICATE_KEY",
        [CONFIG_EMPTY_VALUE] = "EMPTY_VALUE",
        [CONFIG_VALUE_TOO_LONG] = "VALUE_TOO_LONG",
        [CONFIG_BAD_CHOICE] = "BAD_CHOICE",
        [CONFIG_BAD_SIZE] = "BAD_SIZE",
        [CONFIG_MEMORY_TOO_SMALL] = "MEMORY_TOO_SMALL",
        [CONFIG_MEMORY_TOO_LARGE] = "MEMORY_TOO_LARGE",
        [CONFIG_MEMORY_UNALIGNED] = "MEMORY_UNALIGNED",
        [CONFIG_BAD_CPU_LIST] = "BAD_CPU_LIST",
        [CONFIG_CPU_OUT_OF_RANGE] = "CPU_OUT_OF_RANGE",
        [CONFIG_CPU_TWICE_IN_LIST] = "CPU_TWICE_IN_LIST",
        [CONFIG_TOO_MANY_CPUS] = "TOO_MANY_CPUS",
        [CONFIG_CPU_TAKEN] = "CPU_TAKEN",
        [CONFIG_BAD_PATH] = "BAD_PATH",
        [CONFIG_TOO_MANY_MODULES] = "TOO_MANY_MODULES",
        [CONFIG_BAD_DISK] = "BAD_DISK",
        [CONFIG_DISK_TAKEN] = "DISK_TAKEN",
        [CONFIG_BAD_LOAD] = "BAD_LOAD",
        [CONFIG_BAD_DIGIT] = "BAD_DIGIT",
        [CONFIG_DIGIT_TAKEN] = "DIGIT_TAKEN",
        [CONFIG_TOO_MANY_ASSIGNED] = "TOO_MANY_ASSIGNED",
        [CONFIG_BAD_FUNCTION] = "BAD_FUNCTION",
        [CONFIG_FUNCTION_TAKEN] = "FUNCTION_TAKEN",
        [CONFIG_BAD_OPTION] = "BAD_OPTION",
        [CONFIG_MISSING_OPTION] = "MISSING_OPTION",
        [CONFIG_BAD_INDEX] = "BAD_INDEX",
        [CONFIG_INDEX_TAKEN] = "INDEX_TAKEN",
        [CONFIG_TOO_MANY_VFS] = "TOO_MANY_VFS",
        [CONFIG_BAD_MAC] = "BAD_MAC",
        [CONFIG_MAC_TAKEN] = "MAC_TAKEN",
        [CONFIG_BAD_VLAN] = "BAD_VLAN",
        [CONFIG_BAD_RATE] = "BAD_RATE",
        [CONFIG_BAD_NAMESPACE] = "BAD_NAMESPACE",
        [CONFIG_NAMESPACE_TAKEN] = "NAMESPACE_TAKEN",
        [CONFIG_KERNEL_AND_FIRMWARE] = "KERNEL_AND_FIRMWARE",
        [CONFIG_FIRMWARE_DEVICES] = "FIRMWARE_DEVICES",
        [CONFIG_MISSING_KEY] = "MISSING_KEY",
        [CONFIG_NO_VM] = "NO_VM",
        [CONFIG_CPU_ABSENT] = "CPU_ABSENT",
        [CONFIG_MEMORY_ABSENT] = "MEMORY_ABSENT",
    };
    STATIC_ASSERT(ARRAY_SIZE(names) == CONFIG_RULE_COUNT, "one name for each rule");
    return (unsigned)rule < CONFIG_RULE_COUNT ? names[rule] : "?";
}
