#include "hv/config/config_internal.h"
#include "hv/lib/bits.h"

/* ---- between VMs ---- */

bool config_check_cpu(struct config_parser *p, unsigned cpu, uint32_t column)
{
    for (uint32_t i = 0; i < p->config->vm_count; i++) {
        const struct config_vm *other = &p->config->vms[i];
        if (other->cpus & BIT(cpu))
            return config_fail(p, CONFIG_CPU_TAKEN, column,
                               "CPU %u belongs to VM '%s' already (line %u): give each CPU to one VM", cpu,
                               other->name, other->cpus_line);
    }
    return true;
}

bool config_check_digit(struct config_parser *p, unsigned digit, uint32_t column)
{
    for (uint32_t i = 0; i < p->config->vm_count; i++) {
        const struct config_vm *other = &p->config->vms[i];
        if (other->console == digit)
            return config_fail(p, CONFIG_DIGIT_TAKEN, column,
                               "console %u belongs to VM '%s' already (line %u): give each VM its own digit",
                               digit, other->name, other->console_line);
    }
    return true;
}

/* ---- in a section ---- */

static bool check_image(struct config_parser *p)
{
    const struct config_vm *vm = p->vm;

    if (!vm->kernel[0]) {
        p->line_number = vm->line;
        return config_fail(p, CONFIG_MISSING_KEY, 1,
                           "VM '%s' has no 'kernel' line (and no 'firmware'): add one", vm->name);
    }
    if (!vm->firmware || !vm->assigned_count)
        return true;
    p->line_number = vm->assigned[0].line;
    return config_fail(
        p, CONFIG_FIRMWARE_DEVICES, vm->assigned[0].column,
        "VM '%s' has a firmware, which would move the device's registers where they cannot be: start a "
        "kernel to give it devices of the machine",
        vm->name);
}

bool config_check_section(struct config_parser *p)
{
    if (!p->vm) /* only VMs must have anything */
        return true;
    const struct config_key *missing = config_keys_missing(p->section, p->seen_keys);
    if (!missing)
        return check_image(p);
    p->line_number = p->vm->line;
    return config_fail(p, CONFIG_MISSING_KEY, 1, "VM '%s' has no '%s' line: add one", p->vm->name,
                       missing->name);
}

/* ---- the file, and the machine ---- */

bool config_check_file(struct config_parser *p)
{
    p->line_number = 0;
    if (p->config->vm_count)
        return true;
    return config_fail(p, CONFIG_NO_VM, 0, "no VM is described: add a [vm NAME] section");
}

enum status config_check_machine(const struct config *config, uint32_t cpu_count, uint64_t free_memory,
                                 struct config_error *error)
{
    struct config_parser p = {.error = error};
    uint64_t left = free_memory;

    *error = (struct config_error){.rule = CONFIG_OK};
    for (uint32_t i = 0; i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        uint64_t absent = cpu_count >= CONFIG_MAX_CPUS ? 0 : vm->cpus & ~(BIT(cpu_count) - 1);
        if (absent) {
            p.line_number = vm->cpus_line;
            config_fail(
                &p, CONFIG_CPU_ABSENT, vm->cpus_column,
                "VM '%s' wants CPU %u, but this machine has %u CPU%s, numbered from 0: correct 'cpus'",
                vm->name, bits_highest(absent), cpu_count, cpu_count == 1 ? "" : "s");
            return ERR_INVALID;
        }
        if (vm->memory > left) {
            p.line_number = vm->memory_line;
            config_fail(
                &p, CONFIG_MEMORY_ABSENT, vm->memory_column,
                "VM '%s' wants %lu MiB of memory, but this machine has only %lu MiB left for it: lower "
                "'memory'",
                vm->name, (unsigned long)(vm->memory >> 20), (unsigned long)(left >> 20));
            return ERR_INVALID;
        }
        left -= vm->memory;
    }
    return STATUS_OK;
}
