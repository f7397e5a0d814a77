/* The prompt's commands, and the table of them. */
#include "hv/assign/devices.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/console/prompt.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"
#include "hv/record/dump.h"
#include "hv/record/stats.h"

#define LOG_LINES  40u
#define NUMBER_MAX 1000000u

#define REPLY(...) fmt_format(call->reply, sizeof(call->reply), __VA_ARGS__)

/* ---- words ---- */

/* A decimal number up to NUMBER_MAX. */
static bool parse_number(const char *word, uint32_t *out)
{
    uint32_t n = 0;
    for (const char *c = word; *c; c++) {
        if (*c < '0' || *c > '9' || n > NUMBER_MAX)
            return false;
        n = n * 10 + (uint32_t)(*c - '0');
    }
    *out = n;
    return *word && n <= NUMBER_MAX;
}

static bool number_or_reply(struct prompt_call *call, uint32_t at, const char *what, uint32_t *out)
{
    if (at >= call->count || parse_number(call->words[at], out))
        return true;
    REPLY("'%s' is not %s", call->words[at], what);
    return false;
}

static struct vm *vm_at(uint32_t i)
{
    return core.info && i < core.info->config.vm_count ? core.vms[i] : NULL;
}

/* The VM that a word names, by its name or its digit. */
static struct vm *find_vm(const char *word)
{
    uint32_t digit;
    for (uint32_t i = 0; i < CONFIG_MAX_VMS; i++)
        if (vm_at(i) && str_equal(vm_at(i)->name, word))
            return vm_at(i);
    for (uint32_t i = 0; i < CONFIG_MAX_VMS; i++)
        if (vm_at(i) && parse_number(word, &digit) && console_digit(vm_at(i)) == digit)
            return vm_at(i);
    return NULL;
}

/* The VM that words[1] names; NULL with a reply. */
static struct vm *vm_or_reply(struct prompt_call *call)
{
    struct vm *vm = call->count > 1 ? find_vm(call->words[1]) : NULL;
    if (call->count < 2)
        REPLY("which VM? `%s NAME`; `vms` lists them", call->words[0]);
    else if (!vm)
        REPLY("there is no VM '%s': `vms` lists them", call->words[1]);
    return vm;
}

/* ---- help, vms, log ---- */

static bool help_next(struct lines *self, char *line, size_t size)
{
    if (self->step == prompt_command_count) {
        fmt_format(line, size, "  %s", CONSOLE_KEYS);
        self->step++;
        return true;
    }
    if (self->step > prompt_command_count)
        return false;
    const struct prompt_command *c = &prompt_commands[self->step++];
    fmt_format(line, size, "  %-9s %-14s %s", c->name, c->arguments, c->help);
    return true;
}

static void run_help(struct prompt_call *call)
{
    call->lines.next = help_next;
}

/* CPU numbers as in the configuration: "0-1,3". */
static void describe_cpus(uint64_t cpus, char *text, size_t size)
{
    size_t n = 0;
    text[0] = 0;
    for (unsigned first = 0; first < CONFIG_MAX_CPUS && n < size; first++) {
        unsigned last = first;
        if (!(cpus >> first & 1))
            continue;
        while (last + 1 < CONFIG_MAX_CPUS && (cpus >> (last + 1) & 1))
            last++;
        n += fmt_format(text + n, size - n, n ? ",%u" : "%u", first);
        if (last > first && n < size)
            n += fmt_format(text + n, size - n, "-%u", last);
        first = last;
    }
}

/* How long it has run, or why it does not. */
static void describe_life(const struct vm *vm, char *text, size_t size)
{
    uint64_t seconds = vm_now_ns(vm) / 1000000000u;
    text[0] = 0;
    if (__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE) == VM_RUNNING)
        fmt_format(text, size, "%llu:%02u:%02u", (unsigned long long)(seconds / 3600),
                   (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
    else if (vm->stop != STOP_NONE)
        fmt_format(text, size, "%s", stop_reason_name(vm->stop));
}

static void describe_vm(const struct vm *vm, char *line, size_t size)
{
    char cpus[40], life[80];
    describe_cpus(vm->config->cpus, cpus, sizeof(cpus));
    describe_life(vm, life, sizeof(life));
    fmt_format(line, size, "%c %u  %-16s %-9s %-8s %7llu MiB %9u  %s", vm == console_front() ? '*' : ' ',
               console_digit(vm), vm->name, vm_state_name(__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE)),
               cpus, (unsigned long long)(vm->config->memory >> 20), vm->restarts, life);
}

static bool vms_next(struct lines *self, char *line, size_t size)
{
    if (self->step == 0) {
        fmt_format(line, size, "  #  %-16s %-9s %-8s %11s %9s  %s", "name", "state", "CPUs", "memory",
                   "restarts", "up");
    } else {
        while (self->step <= CONFIG_MAX_VMS && !vm_at(self->step - 1))
            self->step++;
        if (self->step > CONFIG_MAX_VMS)
            return false;
        describe_vm(vm_at(self->step - 1), line, size);
    }
    self->step++;
    return true;
}

static void run_vms(struct prompt_call *call)
{
    call->lines.next = vms_next;
}

/* What is logged meanwhile is not waited for: `count` lines, then it ends. */
static bool log_lines_next(struct lines *self, char *line, size_t size)
{
    if (self->count == 0)
        return false;
    self->count--;
    return log_next(&self->at, line, size);
}

static void run_log(struct prompt_call *call)
{
    uint32_t count = LOG_LINES;
    if (!number_or_reply(call, 1, "a number of lines", &count))
        return;
    call->lines = (struct lines){.next = log_lines_next, .at = log_position(count), .count = count};
}

/* ---- what VMs do ---- */

/* The next VM's part of `stats`; call->step is the index of the next VM. */
static bool more_stats(struct prompt_call *call)
{
    while (call->step < CONFIG_MAX_VMS) {
        struct vm *vm = vm_at(call->step++);
        if (!vm)
            continue;
        call->lines = (struct lines){.next = stats_next, .vm = vm};
        return true;
    }
    return false;
}

static void run_stats(struct prompt_call *call)
{
    if (call->count == 1) {
        call->more = more_stats;
        more_stats(call);
        return;
    }
    struct vm *vm = vm_or_reply(call);
    if (vm)
        call->lines = (struct lines){.next = stats_next, .vm = vm};
}

/* The next vCPU's part of `trace VM`. */
static bool more_trace(struct prompt_call *call)
{
    struct vm *vm = call->lines.vm;
    uint32_t next = call->lines.vcpu + 1;
    if (next >= vm->vcpu_count)
        return false;
    call->lines = (struct lines){.next = trace_next, .vm = vm, .vcpu = next};
    return true;
}

static void run_trace(struct prompt_call *call)
{
    uint32_t vcpu = 0, count = 0;
    struct vm *vm = vm_or_reply(call);
    if (!vm || !number_or_reply(call, 2, "the number of a vCPU", &vcpu) ||
        !number_or_reply(call, 3, "a number of exits", &count))
        return;
    if (vcpu >= vm->vcpu_count) {
        REPLY("%s has %u vCPUs, the first is 0", vm->name, vm->vcpu_count);
        return;
    }
    call->lines = (struct lines){.next = trace_next, .vm = vm, .vcpu = vcpu, .count = count};
    if (call->count == 2)
        call->more = more_trace;
}

static void run_dump(struct prompt_call *call)
{
    struct vm *vm = vm_or_reply(call);
    if (vm)
        call->lines = (struct lines){.next = dump_next, .vm = vm};
}

static void run_vfs(struct prompt_call *call)
{
    call->lines.next = devices_vfs_next;
}

static bool iommu_lines_next(struct lines *self, char *line, size_t size)
{
    return iommu_line(core.iommu, self->step++, line, size);
}

static void run_iommu(struct prompt_call *call)
{
    if (core.iommu)
        call->lines.next = iommu_lines_next;
    else
        REPLY("no IOMMU is in use, so no device can be given to a VM: %s", host_devices.iommu_why);
}

/* ---- a VM's life ---- */

static void give_order(struct prompt_call *call, enum vm_order order)
{
    struct vm *vm = vm_or_reply(call);
    if (vm && vm_order(vm, order, call->reply, sizeof(call->reply)))
        log_line(LOG_WARN, vm->name, "the operator's order: %s", call->words[0]);
}

static void run_start(struct prompt_call *call)
{
    give_order(call, VM_ORDER_START);
}

static void run_stop(struct prompt_call *call)
{
    give_order(call, VM_ORDER_STOP);
}

static void run_reset(struct prompt_call *call)
{
    give_order(call, VM_ORDER_RESET);
}

/* ---- the machine ---- */

static void run_attach(struct prompt_call *call)
{
    struct vm *vm = vm_or_reply(call);
    if (vm)
        console_attach(vm);
}

static void run_exit(struct prompt_call *call)
{
    console_leave_prompt();
}

static bool said_yes(const struct prompt_call *call)
{
    return call->count == 2 && str_equal(call->words[1], "yes");
}

/* What ends the VMs that run is not for a slip of the finger. */
static bool may_end_machine(struct prompt_call *call)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < CONFIG_MAX_VMS; i++)
        live += vm_at(i) && life_is_live(__atomic_load_n(&vm_at(i)->state, __ATOMIC_ACQUIRE));
    if (live == 0 || said_yes(call))
        return true;
    REPLY("%u VM%s running and would end at once: if that is what you want, say `%s yes`", live,
          live == 1 ? " is" : "s are", call->words[0]);
    return false;
}

static void run_reboot(struct prompt_call *call)
{
    if (!may_end_machine(call))
        return;
    log_line(LOG_WARN, "core", "the operator reboots the machine");
    host_reboot();
}

static void run_poweroff(struct prompt_call *call)
{
    if (!may_end_machine(call))
        return;
    log_line(LOG_WARN, "core", "the operator powers the machine off");
    host_poweroff();
}

static void run_crash(struct prompt_call *call)
{
    if (said_yes(call))
        host_panic("the operator asked for it: `crash yes`");
    REPLY("this panics the host, and with it every VM: if that is what you want, say `crash yes`");
}

const struct prompt_command prompt_commands[] = {
    {"help", "", "this list", run_help},
    {"vms", "", "all VMs: console digit, state, CPUs, memory, time since the start", run_vms},
    {"log", "[N]", "the newest N lines of the log (40), also those that the console did not show", run_log},
    {"stats", "[VM]", "exits by reason, injected interrupts, time in guest and host, per vCPU", run_stats},
    {"trace", "VM [vCPU] [N]", "the last N exits (20) of a vCPU, in words; without vCPU: of each", run_trace},
    {"dump", "VM", "registers and all recorded exits; scripts/replay FILE runs them again", run_dump},
    {"vfs", "", "VFs: owner, MAC, VLAN, link, packets, drops, faults", run_vfs},
    {"start", "VM", "starts a stopped VM from its pristine images", run_start},
    {"stop", "VM", "stops a VM at once, as if its plug were pulled", run_stop},
    {"reset", "VM", "stops a VM at once and starts it again", run_reset},
    {"pci", "[B:D.F]", "the machine's PCI functions, and which of them a VM could be given", prompt_run_pci},
    {"iommu", "", "VT-d units, what they can do, who is in which domain, interrupts, faults", run_iommu},
    {"attach", "VM", "brings a VM to the front, as Ctrl-A and its digit do", run_attach},
    {"exit", "", "back to the VM in front; also Ctrl-D", run_exit},
    {"reboot", "[yes]", "resets the machine; `yes` when VMs are running, which end with it", run_reboot},
    {"poweroff", "[yes]", "powers the machine off; `yes` when VMs are running", run_poweroff},
    {"crash", "yes", "panics the host on purpose, to see what is kept of it", run_crash},
};
const uint32_t prompt_command_count = ARRAY_SIZE(prompt_commands);
