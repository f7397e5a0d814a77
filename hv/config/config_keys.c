#include "hv/config/config_internal.h"
#include "hv/config/config_assign.h"
#include "hv/lib/bits.h"
#include "hv/lib/near.h"
#include "hv/lib/scan.h"
#include "hv/lib/string.h"

/* ---- [machine] ---- */

static bool parse_console(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"serial", "screen"};
    static const enum config_console values[] = {CONSOLE_SERIAL, CONSOLE_SCREEN};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names),
                             "serial or screen, or leave the line out for both", &choice))
        return false;
    p->config->console = values[choice];
    return true;
}

static bool parse_log_level(struct config_parser *p, const struct config_value *v, enum log_level *out)
{
    static const char *const names[] = {
        [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "error, warn, info or debug", &choice))
        return false;
    *out = (enum log_level)choice;
    return true;
}

static bool parse_log(struct config_parser *p, const struct config_value *v)
{
    return parse_log_level(p, v, &p->config->log);
}

static bool parse_report(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"no", "yes"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "yes or no", &choice))
        return false;
    p->config->report = choice == 1;
    return true;
}

static bool parse_on_panic(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"stay", "reboot"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "stay or reboot", &choice))
        return false;
    p->config->on_panic = (enum config_on_panic)choice;
    return true;
}

static bool parse_on_idle(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"poweroff", "reboot", "stay"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "poweroff, reboot or stay", &choice))
        return false;
    p->config->on_idle = (enum config_on_idle)choice;
    return true;
}

/* ---- [vm NAME] ---- */

static bool parse_vm_log(struct config_parser *p, const struct config_value *v)
{
    p->vm->log_line = p->line_number;
    return parse_log_level(p, v, &p->vm->log);
}

static bool parse_vm_console(struct config_parser *p, const struct config_value *v)
{
    uint8_t digit = v->text.data[0] - '0';

    if (v->text.size != 1 || digit < 1 || digit > CONFIG_DIGITS)
        return config_fail(
            p, CONFIG_BAD_DIGIT, v->column,
            "a VM's console cannot be '%s': use a digit from 1 to %u, which Ctrl-A then brings to the front",
            config_text_quote(v->text).text, CONFIG_DIGITS);
    if (!config_check_digit(p, digit, v->column))
        return false;
    p->vm->console = digit;
    p->vm->console_line = p->line_number;
    return true;
}

static bool parse_on_reboot(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"stop", "restart"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "stop or restart", &choice))
        return false;
    p->vm->on_reboot = (enum config_on_stop)choice;
    return true;
}

static bool parse_on_crash(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"stop", "restart", "dump"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "stop, restart or dump", &choice))
        return false;
    p->vm->on_crash = (enum config_on_stop)choice;
    return true;
}

static bool parse_compat(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {[COMPAT_NONE] = "none", [COMPAT_QEMU] = "qemu"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "qemu, or leave the line out", &choice))
        return false;
    p->vm->compat = (enum config_compat)choice;
    return true;
}

static bool parse_x2apic(struct config_parser *p, const struct config_value *v)
{
    static const char *const names[] = {"on", "off"};
    unsigned choice;

    if (!config_value_choice(p, v, names, ARRAY_SIZE(names), "on or off", &choice))
        return false;
    p->vm->no_x2apic = choice == 1;
    return true;
}

static bool parse_load(struct config_parser *p, const struct config_value *v)
{
    uint64_t load;

    if (!config_value_number(v->text, &load) || load < CONFIG_LOAD_FIRST || load >= CONFIG_LOAD_END)
        return config_fail(
            p, CONFIG_BAD_LOAD, v->column,
            "'%s' is not an address for a raw image: write one from 0x500 to 0x9efff, 0x7c00 for a boot "
            "sector",
            config_text_quote(v->text).text);
    p->vm->load = (uint32_t)load;
    return true;
}

static bool parse_memory(struct config_parser *p, const struct config_value *v)
{
    uint64_t bytes = 0;

    if (!config_value_size(p, v, &bytes))
        return false;
    if (bytes < CONFIG_MEMORY_MIN)
        return config_fail(p, CONFIG_MEMORY_TOO_SMALL, v->column,
                           "a VM needs at least 8M of memory, '%s' is less%s",
                           config_text_quote(v->text).text,
                           scan_is_digit(v->text.data[v->text.size - 1]) ? ": is an M missing?" : "");
    if (bytes > CONFIG_MEMORY_MAX)
        return config_fail(p, CONFIG_MEMORY_TOO_LARGE, v->column,
                           "a VM can have at most 1024G of memory, '%s' is more",
                           config_text_quote(v->text).text);
    if (bytes % CONFIG_MEMORY_UNIT)
        return config_fail(p, CONFIG_MEMORY_UNALIGNED, v->column,
                           "memory is given in multiples of 2M: '%s' is not one, %luM is",
                           config_text_quote(v->text).text,
                           (unsigned long)((bytes & ~(CONFIG_MEMORY_UNIT - 1)) >> 20));
    p->vm->memory = bytes;
    p->vm->memory_line = p->line_number;
    p->vm->memory_column = v->column;
    return true;
}

static bool parse_cpus(struct config_parser *p, const struct config_value *v)
{
    p->vm->cpus_line = p->line_number;
    p->vm->cpus_column = v->column;
    return config_value_cpus(p, v, &p->vm->cpus);
}

static bool parse_image(struct config_parser *p, const struct config_value *v, bool firmware)
{
    if (p->vm->kernel[0] && p->vm->firmware != firmware)
        return config_fail(
            p, CONFIG_KERNEL_AND_FIRMWARE, v->column,
            "VM '%s' has a %s already (line %u): a firmware finds its kernel on a disk, so give one of "
            "the two",
            p->vm->name, firmware ? "kernel" : "firmware", p->vm->kernel_line);
    p->vm->firmware = firmware;
    p->vm->kernel_line = p->line_number;
    p->vm->kernel_column = v->column;
    return config_value_path(p, v, p->vm->kernel);
}

static bool parse_kernel(struct config_parser *p, const struct config_value *v)
{
    return parse_image(p, v, false);
}

static bool parse_firmware(struct config_parser *p, const struct config_value *v)
{
    return parse_image(p, v, true);
}

static bool parse_initrd(struct config_parser *p, const struct config_value *v)
{
    p->vm->initrd_line = p->line_number;
    p->vm->initrd_column = v->column;
    return config_value_path(p, v, p->vm->initrd);
}

static bool parse_cmdline(struct config_parser *p, const struct config_value *v)
{
    if (v->text.size >= CONFIG_CMDLINE_MAX)
        return config_fail(p, CONFIG_VALUE_TOO_LONG, v->column,
                           "this command line has %u bytes, at most %u are possible", (unsigned)v->text.size,
                           CONFIG_CMDLINE_MAX - 1);
    memcpy(p->vm->cmdline, v->text.data, v->text.size);
    p->vm->cmdline[v->text.size] = 0;
    return true;
}

/* PATH, and what follows a blank. */
static bool parse_module(struct config_parser *p, const struct config_value *v)
{
    struct config_vm *vm = p->vm;
    struct config_value path = *v;

    if (vm->module_count == CONFIG_MAX_MODULES)
        return config_fail(p, CONFIG_TOO_MANY_MODULES, v->column, "a VM can have at most %u modules",
                           CONFIG_MAX_MODULES);
    path.text = config_text_word(v->text);
    struct config_module *module = &vm->modules[vm->module_count];
    if (!config_value_path(p, &path, module->path))
        return false;
    struct span args = config_text_trim(config_text_skip(v->text, path.text.size));
    if (args.size >= CONFIG_ARGS_MAX)
        return config_fail(p, CONFIG_VALUE_TOO_LONG, config_column(p, args.data),
                           "this module's arguments have %u bytes, at most %u are possible",
                           (unsigned)args.size, CONFIG_ARGS_MAX - 1);
    memcpy(module->args, args.data, args.size);
    module->line = p->line_number;
    module->column = v->column;
    vm->module_count++;
    return true;
}

/* ---- [vm NAME]: devices and disks ---- */

/* What both kinds of values have in common; `number`: of netN, diskN. */
static bool parse_assigned(struct config_parser *p, const struct config_value *v,
                           enum config_assign_kind kind, uint8_t number)
{
    struct config_vm *vm = p->vm;
    struct config_assign_error error;

    if (vm->assigned_count == CONFIG_MAX_ASSIGNED)
        return config_fail(p, CONFIG_TOO_MANY_ASSIGNED, v->column, "a VM can have at most %u devices",
                           CONFIG_MAX_ASSIGNED);
    struct config_assign *one = &vm->assigned[vm->assigned_count];
    one->kind = kind;
    one->number = number;
    if (config_assign_parse(v->name, v->text, one, &error) != STATUS_OK)
        return config_fail(p, error.rule, config_column(p, error.at), "%s", error.message);
    one->line = p->line_number;
    one->column = v->column;
    if (config_assign_check(p->config, vm, one, &error) != STATUS_OK)
        return config_fail(p, error.rule, v->column, "%s", error.message);
    vm->assigned_count++;
    return true;
}

uint8_t config_keys_number(struct span name)
{
    return (uint8_t)(name.data[name.size - 1] - '0');
}

static bool parse_net(struct config_parser *p, const struct config_value *v)
{
    return parse_assigned(p, v, ASSIGN_NET_VF, config_keys_number(v->name));
}

static bool parse_disk(struct config_parser *p, const struct config_value *v)
{
    const struct config_vm *vm = p->vm;
    uint8_t number = config_keys_number(v->name);
    struct config_value path;

    if (config_disk_is_ramdisk(v, &path))
        return config_disk_parse(p, &path, false);
    for (uint32_t i = 0; i < vm->disk_count; i++)
        if (!vm->disks[i].cdrom && vm->disks[i].number == number)
            return config_fail(p, CONFIG_DUPLICATE_KEY, v->column, "'%s' was given already in this section",
                               config_text_quote(v->name).text);
    return parse_assigned(p, v, ASSIGN_NVME_VF, number);
}

static bool parse_cdrom(struct config_parser *p, const struct config_value *v)
{
    struct config_value path;

    if (config_disk_is_ramdisk(v, &path))
        return config_disk_parse(p, &path, true);
    return config_fail(
        p, CONFIG_BAD_CHOICE, v->column, "%s cannot be '%s': use ramdisk, as in %s = ramdisk cd.iso",
        config_text_quote(v->name).text, config_text_quote(v->text).text, config_text_quote(v->name).text);
}

static bool parse_pci(struct config_parser *p, const struct config_value *v)
{
    return parse_assigned(p, v, ASSIGN_PCI, 0);
}

/* ---- the table ---- */

static const struct config_key keys[] = {
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

static bool key_is(const struct config_key *key, struct span name)
{
    size_t n = str_length(key->name);

    if (key->name[n - 1] != '#')
        return span_equals(name, key->name);
    return name.size == n && memcmp(name.data, key->name, n - 1) == 0 && scan_is_digit(name.data[n - 1]);
}

const char *config_keys_text(const struct config_key *key)
{
    return key->parse == parse_net     ? "net0"
           : key->parse == parse_disk  ? "disk0"
           : key->parse == parse_cdrom ? "cdrom0"
                                       : key->name;
}

const struct config_key *config_keys_find(enum config_section section, struct span name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].section == section && key_is(&keys[i], name))
            return &keys[i];
    return NULL;
}

uint32_t config_keys_bit(const struct config_key *key)
{
    return (uint32_t)BIT(key - keys);
}
STATIC_ASSERT(ARRAY_SIZE(keys) <= 32, "a bit for each key");

const struct config_key *config_keys_missing(enum config_section section, uint32_t seen)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].section == section && keys[i].required && !(seen & config_keys_bit(&keys[i])))
            return &keys[i];
    return NULL;
}

bool config_keys_unknown(struct config_parser *p, struct span name, uint32_t column)
{
    const char *where = p->section == SECTION_VM ? "[vm NAME]" : "[machine]";

    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (key_is(&keys[i], name))
            return config_fail(p, CONFIG_UNKNOWN_KEY, column, "'%s' belongs in a %s section, not here",
                               config_keys_text(&keys[i]),
                               keys[i].section == SECTION_VM ? "[vm NAME]" : "[machine]");
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].section == p->section && near_miss(name, config_keys_text(&keys[i])))
            return config_fail(p, CONFIG_UNKNOWN_KEY, column,
                               "there is no '%s' in a %s section: did you mean '%s'?",
                               config_text_quote(name).text, where, config_keys_text(&keys[i]));
    return config_fail(p, CONFIG_UNKNOWN_KEY, column, "there is no '%s' in a %s section: it takes %s",
                       config_text_quote(name).text, where,
                       p->section == SECTION_VM
                           ? "cpus, memory, kernel, firmware, load, initrd, cmdline, module, on_reboot, "
                             "on_crash, console, log, compat, x2apic, net0, disk0, cdrom0 and pci"
                           : "console, log, report, on_idle and on_panic");
}
