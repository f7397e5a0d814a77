#include "hv/record/panic_text.h"
#include "arch/x86/cpu.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

#define LL(v)         ((unsigned long long)(v))
#define EXITS_SHOWN   8u
#define CALLERS_SHOWN 16u
#define LOG_SHOWN     6144u /* bytes of the log's tail */
#define CALL_RELATIVE 0xe8u
#define CALL_OVER                                                                                            \
    16 /* bytes: a call over less than that fills the return stack buffer, and never returns                 \
        */
#define CALL_LENGTH 5u

static const char *const names[PANIC_REGISTERS] = {
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp",    "r8",    "r9",  "r10",
    "r11", "r12", "r13", "r14", "r15", "rip", "cs",  "rflags", "error", "cr2", "cr3"};

static bool in_code(const struct panic_code *code, uint64_t address)
{
    return address - (uint64_t)(uintptr_t)code->begin < code->size;
}

/* "ffffffff80001234 vcpu_handle_exit+0x3a" */
static void print_place(struct blackbox *b, const struct panic_code *code, uint64_t address)
{
    char name[80];
    blackbox_print(b, "%016llx", LL(address));
    if (in_code(code, address) && symbols_describe(code->symbols, address - code->base, name, sizeof(name)))
        blackbox_print(b, " %s", name);
    blackbox_print(b, "\n");
}

/* A word of the stack that a CALL of ours pushed: the instruction before that place is a call into our code.
 * (Every call of the core is a relative one: indirect ones go through thunks.) What was left over by calls
 * that have ended looks the same, so this is a hint and not a proof. */
static bool is_return_address(const struct panic_code *code, uint64_t word)
{
    if (!in_code(code, word) || !in_code(code, word - CALL_LENGTH))
        return false;
    const uint8_t *call = code->begin + (word - CALL_LENGTH - (uint64_t)(uintptr_t)code->begin);
    int32_t distance;
    memcpy(&distance, call + 1, sizeof(distance));
    bool fills = distance >= 0 && distance < CALL_OVER;
    return call[0] == CALL_RELATIVE && !fills && in_code(code, word + (uint64_t)(int64_t)distance);
}

static void print_registers(struct blackbox *b, const uint64_t *registers)
{
    for (unsigned i = 0; i < PANIC_REGISTERS; i++)
        blackbox_print(b, "%s%-6s %016llx", i % 4 ? "  " : i ? "\n  " : "  ", names[i], LL(registers[i]));
    blackbox_print(b, "\n");
}

static void print_stack(struct blackbox *b, const struct panic_facts *facts)
{
    uint32_t shown = 0;
    blackbox_print(b, "called from (return addresses on the stack; some may be left over):\n");
    for (uint32_t i = 0; i < facts->stack_words && shown < CALLERS_SHOWN; i++) {
        if (!is_return_address(&facts->code, facts->stack[i]))
            continue;
        blackbox_print(b, "  ");
        print_place(b, &facts->code, facts->stack[i]);
        shown++;
    }
}

/* SDM volume 3, table 6-1. */
static const char *exception_name(uint64_t vector)
{
    static const char *const known[] = {[VECTOR_DE] = "#DE, divide error",
                                        [VECTOR_DB] = "#DB, debug",
                                        [VECTOR_BP] = "#BP, breakpoint",
                                        [VECTOR_UD] = "#UD, invalid opcode",
                                        [VECTOR_NM] = "#NM, no FPU",
                                        [VECTOR_DF] = "#DF, double fault: perhaps a stack that is too small",
                                        [VECTOR_TS] = "#TS, invalid TSS",
                                        [VECTOR_NP] = "#NP, segment not present",
                                        [VECTOR_SS] = "#SS, stack fault",
                                        [VECTOR_GP] = "#GP, general protection",
                                        [VECTOR_PF] = "#PF, page fault",
                                        [VECTOR_AC] = "#AC, alignment check",
                                        [VECTOR_MC] = "#MC, machine check: the hardware reports an error",
                                        [VECTOR_CP] = "#CP, control protection"};
    return vector < ARRAY_SIZE(known) && known[vector] ? known[vector] : "no name";
}

void panic_text_exception(uint64_t vector, char *reason, size_t size)
{
    fmt_format(reason, size, "host exception %llu (%s)%s", LL(vector), exception_name(vector),
               vector == VECTOR_MC ? "" : ": a bug in Bulkhead, not in a guest");
}

void panic_text_again(struct blackbox *b, const struct panic_code *code, const char *reason, uint64_t rip)
{
    blackbox_print(b, "\n(while this was written: %.120s, at ", reason);
    print_place(b, code, rip);
    blackbox_print(b, "The rest of this part is missing.)\n");
}

void panic_text_head(struct blackbox *b, const struct panic_facts *facts)
{
    blackbox_print(b, "bulkhead: PANIC: ");
    blackbox_write(b, facts->reason, str_length(facts->reason));
    blackbox_print(b, "\nbuild %s, CPU %u, %llu.%06llu s after the start\n", facts->build, facts->cpu,
                   LL(facts->now_us / 1000000), LL(facts->now_us % 1000000));
    if (facts->registers) {
        blackbox_print(b, "at ");
        print_place(b, &facts->code, facts->registers[PANIC_RIP]);
        print_registers(b, facts->registers);
    }
    print_stack(b, facts);
}

void panic_text_cpus(struct blackbox *b, const struct panic_code *code, const struct panic_stopped *stopped,
                     uint32_t count, uint32_t self)
{
    for (uint32_t i = 0; i < count; i++) {
        if (i == self)
            continue;
        blackbox_print(b, "CPU %u: ", i);
        if (!stopped[i].stopped)
            blackbox_print(b, "did not answer\n");
        else if (stopped[i].rip == 0)
            blackbox_print(b, "was running a guest\n");
        else
            print_place(b, code, stopped[i].rip);
    }
}

static void print_vcpu(struct blackbox *b, const struct vcpu *vcpu,
                       bool (*readable)(const void *at, size_t size))
{
    const struct recorder *r = &vcpu->recorder;
    char line[200];
    blackbox_print(b, "the last exits of vCPU %u, newest first (%llu in all):\n", vcpu->id, LL(r->count));
    if (r->last < r->first ||
        !readable(r->first, (size_t)((const char *)(r->last + 1) - (const char *)r->first))) {
        blackbox_print(b, "  the recorder is damaged\n");
        return;
    }
    for (uint32_t i = 0; i < EXITS_SHOWN; i++) {
        const struct recorder_entry *entry = recorder_at(r, i);
        if (!entry)
            break;
        recorder_describe_all(entry, line, sizeof(line));
        blackbox_print(b, "  %s\n", line);
    }
}

void panic_text_exits(struct blackbox *b, bool (*readable)(const void *at, size_t size))
{
    for (uint32_t i = 0; i < CONFIG_MAX_VMS; i++) {
        const struct vm *vm = core.vms[i];
        if (!vm)
            continue;
        if (!readable(vm, sizeof(*vm)) || vm->vcpu_count > VM_MAX_VCPUS) {
            blackbox_print(b, "VM %u: its structure is damaged\n", i);
            continue;
        }
        blackbox_print(b, "VM ");
        if (readable(vm->name, CONFIG_NAME_MAX))
            blackbox_print(b, "%.*s", (int)CONFIG_NAME_MAX, vm->name);
        blackbox_print(b, ", %u vCPUs\n", vm->vcpu_count);
        for (uint32_t v = 0; v < vm->vcpu_count; v++) {
            if (readable(vm->vcpus[v], sizeof(struct vcpu)))
                print_vcpu(b, vm->vcpus[v], readable);
        }
    }
}

void panic_text_log(struct blackbox *b)
{
    static char tail[LOG_SHOWN]; /* too large for a stack that may be the double fault's; one CPU panics */
    size_t size = log_tail(tail, sizeof(tail));
    blackbox_print(b, "the end of the log:\n");
    blackbox_write(b, tail, size);
}
