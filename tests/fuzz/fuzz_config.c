/* The configuration parser: whatever the text, it answers one of its rules with a position inside the text
 * and a message a terminal can show, and what it accepts keeps every promise of hv/config/config.h. */
#include <stdlib.h>
#include <string.h>

#include "hv/config/config_assign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* The length of line `number` (from 1), or -1: there is none. */
static long line_length(const uint8_t *data, size_t size, uint32_t number)
{
    size_t at = 0;

    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
        at = 3;
    for (uint32_t line = 1; at < size; line++) {
        size_t end = at;
        while (end < size && data[end] != '\n')
            end++;
        if (line == number)
            return (long)(end - at);
        at = end + 1;
    }
    return -1;
}

static void check_error(const uint8_t *data, size_t size, const struct config_error *e)
{
    CHECK(e->rule > CONFIG_OK && e->rule < CONFIG_RULE_COUNT);
    size_t length = strnlen(e->message, sizeof(e->message));
    CHECK(length > 0 && length < sizeof(e->message) - 1); /* never cut */
    for (size_t i = 0; i < length; i++)
        CHECK(e->message[i] >= ' ' && e->message[i] < 0x7f);
    if (e->line == 0) {
        CHECK(e->column == 0 && (e->rule == CONFIG_TOO_BIG || e->rule == CONFIG_NO_VM));
        return;
    }
    long line = line_length(data, size, e->line);
    CHECK(line >= 0 && e->column >= 1 && (long)e->column <= line + 1);
}

static void check_path(const char *path)
{
    size_t length = strnlen(path, CONFIG_PATH_MAX);
    CHECK(length < CONFIG_PATH_MAX && path[0] != '/' && !strchr(path, '\\') && !strchr(path, ':'));
    CHECK(strcmp(path, "..") && strncmp(path, "../", 3) && !strstr(path, "/../") && !strstr(path, "//"));
    CHECK(length < 3 || strcmp(path + length - 3, "/.."));
}

static void check_modules(const struct config_vm *vm)
{
    CHECK(vm->module_count <= CONFIG_MAX_MODULES);
    for (uint32_t i = 0; i < vm->module_count; i++) {
        const struct config_module *m = &vm->modules[i];
        CHECK(m->path[0] && !strchr(m->path, ' ') && m->line > (i ? m[-1].line : vm->line) && m->column);
        check_path(m->path);
        CHECK(strnlen(m->args, CONFIG_ARGS_MAX) < CONFIG_ARGS_MAX);
    }
}

static void check_assigned(const struct config *c, const struct config_vm *vm)
{
    CHECK(vm->assigned_count <= CONFIG_MAX_ASSIGNED);
    for (uint32_t i = 0; i < vm->assigned_count; i++) {
        const struct config_assign *a = &vm->assigned[i];
        struct config_assign_error error;
        CHECK(a->kind <= ASSIGN_PCI && a->number <= 9 && a->line > vm->line && a->column);
        CHECK(a->by_id ? a->bdf == 0 : !(a->vendor | a->device | a->nth));
        CHECK(a->index >= -1 && a->index < (int)CONFIG_VFS_MAX && a->vlan <= 4094 && a->rate <= 100000);
        CHECK((a->kind == ASSIGN_NVME_VF) == (a->namespace != 0));
        CHECK(!a->has_mac || (a->kind == ASSIGN_NET_VF && !(a->mac[0] & 1)));
        CHECK(config_assign_check(c, vm, a, &error) == STATUS_OK);
    }
}

static void check_config(const struct config *c)
{
    uint64_t taken = 0;

    CHECK(c->vm_count >= 1 && c->vm_count <= CONFIG_MAX_VMS);
    CHECK(c->console <= CONSOLE_SCREEN && c->on_idle <= ON_IDLE_STAY && c->on_panic <= ON_PANIC_REBOOT);
    CHECK(c->log <= LOG_DEBUG);
    for (uint32_t i = 0; i < c->vm_count; i++) {
        const struct config_vm *vm = &c->vms[i];
        size_t name = strnlen(vm->name, CONFIG_NAME_MAX);
        CHECK(name > 0 && name < CONFIG_NAME_MAX &&
              strspn(vm->name, "abcdefghijklmnopqrstuvwxyz0123456789-") == name);
        for (uint32_t j = 0; j < i; j++)
            CHECK(strcmp(vm->name, c->vms[j].name) && vm->line > c->vms[j].line &&
                  vm->console != c->vms[j].console);
        CHECK(vm->cpus && !(vm->cpus & taken) && __builtin_popcountll(vm->cpus) <= (int)CONFIG_MAX_VCPUS);
        taken |= vm->cpus;
        CHECK(vm->memory >= CONFIG_MEMORY_MIN && vm->memory <= CONFIG_MEMORY_MAX &&
              vm->memory % CONFIG_MEMORY_UNIT == 0);
        CHECK(vm->kernel[0] && vm->kernel_line > vm->line && vm->cpus_line > vm->line &&
              vm->memory_line > vm->line);
        CHECK((vm->initrd[0] != 0) == (vm->initrd_line != 0));
        check_path(vm->kernel);
        check_path(vm->initrd);
        CHECK(strnlen(vm->cmdline, CONFIG_CMDLINE_MAX) < CONFIG_CMDLINE_MAX);
        CHECK(vm->on_reboot <= ON_STOP_RESTART && vm->on_crash <= ON_STOP_DUMP);
        CHECK(vm->console >= 1 && vm->console <= CONFIG_DIGITS && vm->log <= LOG_DEBUG);
        CHECK(vm->log_line || vm->log == c->log);
        check_modules(vm);
        check_assigned(c, vm);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config, again;
    struct config_error error;

    if (config_parse((struct span){data, size}, &config, &error) != STATUS_OK) {
        check_error(data, size, &error);
        return 0;
    }
    CHECK(error.rule == CONFIG_OK);
    check_config(&config);
    /* Enough of everything is enough; nothing of anything is not. */
    CHECK(config_check_machine(&config, CONFIG_MAX_CPUS, UINT64_MAX, &error) == STATUS_OK);
    CHECK(config_check_machine(&config, CONFIG_MAX_CPUS, 0, &error) == ERR_INVALID);
    CHECK(config_check_machine(&config, 0, UINT64_MAX, &error) == ERR_INVALID);
    /* A comment at the end changes nothing. */
    static const char comment[] = "\n# x\n";
    if (size <= CONFIG_MAX_SIZE - sizeof(comment)) {
        static uint8_t longer[CONFIG_MAX_SIZE];
        memcpy(longer, data, size);
        memcpy(longer + size, comment, sizeof(comment) - 1);
        CHECK(config_parse((struct span){longer, size + sizeof(comment) - 1}, &again, &error) == STATUS_OK);
        CHECK(memcmp(&config, &again, sizeof(config)) == 0);
    }
    return 0;
}
