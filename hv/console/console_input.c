#include "hv/console/console_input.h"
#include "hv/console/prompt.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"
#include "hv/lib/lock.h"

#define ANSWER_MAX 128u /* bytes of a line about what was typed */

static bool after_key;       /* the last byte was CONSOLE_KEY */
static uint32_t input_waits; /* bit n: typed bytes wait for VM n */

void console_input_init(void)
{
    after_key = false;
    input_waits = 0;
}

bool console_input_waits(void)
{
    return input_waits;
}

static void tell_stopped(struct vm *vm)
{
    char text[ANSWER_MAX];
    if (vm->console.told_stopped || life_is_live(__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE)))
        return;
    vm->console.told_stopped = true;
    fmt_format(text, sizeof(text), "--- %s does not run: Ctrl-A h, then `start %s` ---", vm->name, vm->name);
    console_line(text);
}

/* Keeps a typed byte for a VM until its serial port takes it. */
static void keep_input(struct vm *vm, uint8_t byte)
{
    struct console_vm *c = &vm->console;
    tell_stopped(vm);
    if (!life_is_live(__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE)))
        return;
    if (c->input_head - c->input_tail == CONSOLE_INPUT) {
        console_write("\a"); /* as terminals do */
        return;
    }
    c->input[c->input_head++ % CONSOLE_INPUT] = byte;
    input_waits |= 1u << vm->id;
}

static bool is_running(const struct vm *vm)
{
    return __atomic_load_n(&vm->state, __ATOMIC_ACQUIRE) == VM_RUNNING;
}

/* Gives a VM's port what it has room for. Lock order: devices before console, so this is done without the
 * console's; a VM that keeps its lock busy must not hold up the CPU that polls. */
static void deliver(struct vm *vm)
{
    uint8_t bytes[UART_FIFO_SIZE];
    struct console_vm *c = &vm->console;
    if (!life_is_live(__atomic_load_n(&vm->state, __ATOMIC_ACQUIRE))) {
        c->input_tail = c->input_head; /* typed for a life that is over, and not for the next one */
        input_waits &= ~(1u << vm->id);
        return;
    }
    if (!is_running(vm) || !spin_trylock(&vm->devices))
        return;
    c->told_stopped = false;
    size_t n = 0, room = uart_room(&vm->platform.uart);
    if (room > sizeof(bytes))
        room = sizeof(bytes);
    for (; n < room && c->input_tail != c->input_head; n++)
        bytes[n] = c->input[c->input_tail++ % CONSOLE_INPUT];
    if (n)
        uart_receive(&vm->platform.uart, bytes, n);
    spin_unlock(&vm->devices);
    if (c->input_tail == c->input_head)
        input_waits &= ~(1u << vm->id);
}

static struct vm *vm_of_digit(unsigned digit)
{
    for (uint32_t i = 0; core.info && i < core.info->config.vm_count; i++)
        if (core.vms[i] && console_digit(core.vms[i]) == digit)
            return core.vms[i];
    return NULL;
}

static void switch_to(unsigned digit)
{
    char text[ANSWER_MAX];
    struct vm *vm = vm_of_digit(digit);
    if (vm) {
        console_attach(vm);
        return;
    }
    fmt_format(text, sizeof(text), "--- no VM has the digit %u ---", digit);
    console_line(text);
}

/* The byte behind a Ctrl-A. */
static void command_key(uint8_t byte)
{
    struct vm *vm = console_front();
    if (byte >= '1' && byte <= '9')
        switch_to(byte - '0');
    else if (byte == 'h' || byte == 'H')
        console_enter_prompt();
    else if ((byte == 'a' || byte == 'A' || byte == CONSOLE_KEY) && vm && !console_at_prompt())
        keep_input(vm, CONSOLE_KEY);
    else
        console_line("--- " CONSOLE_KEYS " ---");
}

void console_input_take(uint8_t byte)
{
    struct vm *vm = console_front();
    if (after_key) {
        after_key = false;
        command_key(byte);
    } else if (byte == CONSOLE_KEY) {
        after_key = true;
    } else if (console_at_prompt()) {
        prompt_input(byte);
    } else if (vm) {
        keep_input(vm, byte);
    }
}

void console_input_deliver(void)
{
    for (uint32_t i = 0; input_waits >> i; i++)
        if (input_waits >> i & 1)
            deliver(core.vms[i]);
}
