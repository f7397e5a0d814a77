#include "hv/record/recorder.h"
#include "arch/x86/cpu.h"
#include "hv/clock.h"
#include "hv/console/lines.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/vm.h"

#define LL(v) ((unsigned long long)(v))

/* ---- keeping ---- */

void recorder_init(struct recorder *r, struct recorder_entry *entries, uint32_t slots)
{
    *r = (struct recorder){.next = entries, .first = entries, .last = entries + slots - 1};
}

/* The slot of exit number `number`. */
static const struct recorder_entry *slot_of(const struct recorder *r, uint64_t number)
{
    return r->first + number % (recorder_kept(r) + 1);
}

const struct recorder_entry *recorder_at(const struct recorder *r, uint64_t back)
{
    return back < r->count && back < recorder_kept(r) ? slot_of(r, r->count - 1 - back) : NULL;
}

uint64_t recorder_count(const struct recorder *r)
{
    return __atomic_load_n(&r->count, __ATOMIC_ACQUIRE);
}

/* Fields that were not read at the exit hold what an earlier one left there. */
static void forget_unread(struct vmx_raw *raw)
{
    unsigned needs = vmx_needs(raw->reason & EXIT_REASON_BASIC);
    needs |= vmx_needs_more(raw, needs);
    if (!(needs & VMX_NEED_QUALIFICATION))
        raw->qualification = 0;
    if (!(needs & VMX_NEED_INSN_LEN))
        raw->insn_len = 0;
    if (!(needs & VMX_NEED_INSN_INFO))
        raw->insn_info = 0;
    if (!(needs & VMX_NEED_INTR_INFO))
        raw->intr_info = 0;
    if (!(needs & VMX_NEED_GPA))
        raw->gpa = 0;
    if (!(needs & VMX_NEED_GLA))
        raw->gla = 0;
    if (!(needs & VMX_NEED_IDT_INFO))
        raw->idt_info = 0;
    if (!(needs & VMX_NEED_INTR_ERROR))
        raw->intr_error = 0;
    if (!(needs & VMX_NEED_IDT_ERROR))
        raw->idt_error = 0;
}

bool recorder_copy(const struct recorder *r, uint64_t number, struct recorder_entry *out)
{
    if (number >= recorder_count(r))
        return false;
    *out = *slot_of(r, number);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* loads stay in order too (SDM volume 3, 9.2.2) */
    if (recorder_count(r) - number > recorder_kept(r))
        return false; /* its slot may be taken already, before the count tells */
    forget_unread(&out->raw);
    return true;
}

/* ---- in words ---- */

struct text {
    char *buf;
    size_t size, length;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *t, const char *format, ...)
{
    va_list args;
    size_t at = t->length < t->size ? t->length : t->size;
    va_start(args, format);
    t->length += fmt_vformat(t->buf + at, t->size - at, format, args);
    va_end(args);
}

static const char *const gpr_names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

/* The register an instruction names, with its value where the recorder has it. */
static void add_gpr(struct text *t, const struct recorder_entry *entry, unsigned gpr, bool with_value)
{
    const uint64_t values[4] = {entry->rax, entry->rcx, entry->rdx, entry->rbx};
    add(t, "%s", gpr_names[gpr & 15]);
    if (with_value && gpr < ARRAY_SIZE(values))
        add(t, " = %llx", LL(values[gpr]));
}

static void add_cr(struct text *t, const struct recorder_entry *entry, const struct exit_cr *cr)
{
    switch (cr->op) {
    case CR_MOV_TO:
        add(t, "MOV to CR%u from ", cr->cr);
        add_gpr(t, entry, cr->gpr, true);
        break;
    case CR_MOV_FROM:
        add(t, "MOV from CR%u to ", cr->cr);
        add_gpr(t, entry, cr->gpr, false);
        break;
    case CR_CLTS:
        add(t, "CLTS");
        break;
    default:
        add(t, "LMSW %04x", cr->lmsw_source);
        break;
    }
}

static void add_dr(struct text *t, const struct recorder_entry *entry, const struct exit_dr *dr)
{
    add(t, "MOV %s DR%u %s ", dr->write ? "to" : "from", dr->dr, dr->write ? "from" : "to");
    add_gpr(t, entry, dr->gpr, dr->write);
}

static void add_io(struct text *t, const struct recorder_entry *entry, const struct exit_io *io)
{
    static const char *const names[2][2] = {{"IN from", "OUT to"}, {"INS from", "OUTS to"}};
    add(t, "%s%s port 0x%x, %u byte%s", io->rep ? "REP " : "", names[io->string][io->write], io->port,
        io->size, io->size == 1 ? "" : "s");
    if (io->string)
        add(t, ", memory at linear %llx", LL(io->linear.v));
    else if (io->write)
        add(t, ": %llx", LL(bits_low_bytes(entry->rax, io->size)));
}

static void add_nested(struct text *t, const struct exit_nested *n)
{
    add(t, "%s%s%sat guest-physical %llx", n->fetch ? "fetch " : "", n->read ? "read " : "",
        n->write ? "write " : "", LL(n->address.v));
    if (n->linear_valid)
        add(t, ", linear %llx", LL(n->linear.v));
    if (n->during_walk)
        add(t, ", by the walk of the page tables");
}

static void add_event(struct text *t, const struct event *e)
{
    if (e->has_error)
        add(t, "vector %02x, error %x", e->vector, e->error);
    else
        add(t, "vector %02x", e->vector);
}

static void add_msr(struct text *t, const struct recorder_entry *entry, bool write)
{
    uint32_t msr = (uint32_t)entry->rcx;
    add(t, "MSR 0x%x (%s)", msr, msr_policy_name(msr));
    if (write)
        add(t, " = %llx", LL(entry->rdx << 32 | (uint32_t)entry->rax));
}

/* False: `kind` is none of these. */
static bool add_access(struct text *t, const struct recorder_entry *entry, const struct exit *exit)
{
    switch (exit->kind) {
    case EXIT_RDMSR:
    case EXIT_WRMSR:
        add_msr(t, entry, exit->kind == EXIT_WRMSR);
        return true;
    case EXIT_IO:
        add_io(t, entry, &exit->u.io);
        return true;
    case EXIT_CR_ACCESS:
        add_cr(t, entry, &exit->u.cr);
        return true;
    case EXIT_DR_ACCESS:
        add_dr(t, entry, &exit->u.dr);
        return true;
    case EXIT_NESTED_FAULT:
    case EXIT_NESTED_MISCONFIG:
        add_nested(t, &exit->u.nested);
        return true;
    case EXIT_APIC_ACCESS:
    case EXIT_APIC_WRITE:
        add(t, "offset %x", exit->u.apic.offset);
        return true;
    case EXIT_EXCEPTION:
        add_event(t, &exit->u.exception);
        return true;
    default:
        return false;
    }
}

static void add_kind(struct text *t, const struct recorder_entry *entry, const struct exit *exit)
{
    size_t before = t->length;
    add(t, "  ");
    if (add_access(t, entry, exit))
        return;
    switch (exit->kind) {
    case EXIT_CPUID:
        add(t, "leaf %x, subleaf %x", (uint32_t)entry->rax, (uint32_t)entry->rcx);
        break;
    case EXIT_HYPERCALL:
        add(t, "number %llx, RBX %llx, RCX %llx, RDX %llx", LL(entry->rax), LL(entry->rbx), LL(entry->rcx),
            LL(entry->rdx));
        break;
    case EXIT_XSETBV:
        add(t, "XCR%u = %llx", (uint32_t)entry->rcx, LL(entry->rdx << 32 | (uint32_t)entry->rax));
        break;
    case EXIT_RDPMC:
        add(t, "counter %x", (uint32_t)entry->rcx);
        break;
    case EXIT_INTERRUPT:
    case EXIT_APIC_EOI:
        add(t, "vector %02x", exit->u.interrupt);
        break;
    case EXIT_SIPI:
        add(t, "vector %02x", exit->u.sipi);
        break;
    case EXIT_TASK_SWITCH:
        add(t, "to selector %04x", exit->u.task_switch.selector);
        break;
    case EXIT_INVLPG:
        add(t, "linear %llx", LL(exit->u.invlpg.v));
        break;
    case EXIT_ENTRY_FAILURE:
        add(t, "qualification %llx", LL(entry->raw.qualification));
        break;
    case EXIT_UNEXPECTED:
        add(t, "reason field %x, qualification %llx, guest-physical %llx", entry->raw.reason,
            LL(entry->raw.qualification), LL(entry->raw.gpa));
        break;
    default: /* the reason's name says it all */
        t->length = before;
        if (before < t->size)
            t->buf[before] = 0;
        break;
    }
}

size_t recorder_describe(const struct recorder_entry *entry, char *buf, size_t size)
{
    struct recorder_entry known = *entry;
    uint32_t basic = entry->raw.reason & EXIT_REASON_BASIC;
    struct text t = {buf, size, 0};
    struct exit exit;
    forget_unread(&known.raw);
    add(&t, "%-22s (%2u) rip %016llx", vmx_reason_name(basic), basic, LL(known.raw.rip));
    vmx_decode(&known.raw, &exit); /* a snapshot that contradicts the SDM is EXIT_UNEXPECTED */
    add_kind(&t, &known, &exit);
    if (exit.vectoring.valid) {
        add(&t, "  while delivering ");
        add_event(&t, &exit.vectoring);
    }
    return t.length;
}

static const char *exception_name(uint8_t vector)
{
    static const char *const names[] = {
        [VECTOR_DE] = "#DE", [VECTOR_DB] = "#DB", [VECTOR_BP] = "#BP", [VECTOR_OF] = "#OF",
        [VECTOR_UD] = "#UD", [VECTOR_NM] = "#NM", [VECTOR_DF] = "#DF", [VECTOR_GP] = "#GP",
        [VECTOR_PF] = "#PF", [VECTOR_AC] = "#AC"};
    return vector < ARRAY_SIZE(names) && names[vector] ? names[vector] : "an event";
}

size_t recorder_describe_result(const struct recorder_entry *entry, char *buf, size_t size)
{
    const struct exit_result *r = &entry->result;
    switch (r->action) {
    case ACTION_ADVANCE:
        return fmt_format(buf, size, "done");
    case ACTION_RETRY:
        return fmt_format(buf, size, "resumed");
    case ACTION_INJECT:
        if (r->event_has_error)
            return fmt_format(buf, size, "%s(%x), vector %02x", exception_name(r->event_vector),
                              r->event_error, r->event_vector);
        return fmt_format(buf, size, "%s, vector %02x", exception_name(r->event_vector), r->event_vector);
    case ACTION_STOP:
        return fmt_format(buf, size, "stopped: %s", stop_reason_name((enum stop_reason)r->stop));
    default:
        return fmt_format(buf, size, "not answered yet");
    }
}

size_t recorder_describe_all(const struct recorder_entry *entry, char *buf, size_t size)
{
    size_t n = recorder_describe(entry, buf, size), at = n < size ? n : size;
    n += fmt_format(buf + at, size - at, " -> ");
    at = n < size ? n : size;
    return n + recorder_describe_result(entry, buf + at, size - at);
}

/* ---- the trace ---- */

static void trace_header(struct lines *self, const struct vcpu *vcpu, char *line, size_t size)
{
    const struct recorder *r = &vcpu->recorder;
    uint64_t all = recorder_count(r), kept = recorder_kept(r);
    uint64_t wanted = self->count ? self->count : RECORDER_TRACE_DEFAULT;
    self->count = wanted < kept ? wanted : kept;
    if (self->count > all)
        self->count = all;
    self->at = all - self->count;
    fmt_format(line, size,
               "%s/%u: the last %llu of %llu exits, oldest first; + is the time since the one before",
               vcpu->vm->name, vcpu->id, LL(self->count), LL(all));
}

/* "+    12.345 us  EPT_VIOLATION ... -> done" */
static void trace_entry(const struct recorder *r, uint64_t number, const struct recorder_entry *entry,
                        char *line, size_t size)
{
    struct text t = {line, size, 0};
    struct recorder_entry before;
    if (number > 0 && recorder_copy(r, number - 1, &before) && before.tsc <= entry->tsc) {
        uint64_t ns = clock_ticks_to_ns(entry->tsc - before.tsc);
        add(&t, "+%9llu.%03llu us  ", LL(ns / 1000), LL(ns % 1000));
    } else {
        add(&t, "%17s", "");
    }
    size_t at = t.length < size ? t.length : size;
    recorder_describe_all(entry, line + at, size - at);
}

bool trace_next(struct lines *self, char *line, size_t size)
{
    struct recorder_entry entry;
    if (self->vcpu >= self->vm->vcpu_count)
        return false;
    const struct vcpu *vcpu = self->vm->vcpus[self->vcpu];
    if (self->step == 0) {
        self->step = 1;
        trace_header(self, vcpu, line, size);
        return true;
    }
    if (self->count == 0)
        return false;
    self->count--;
    uint64_t number = self->at++;
    if (recorder_copy(&vcpu->recorder, number, &entry))
        trace_entry(&vcpu->recorder, number, &entry, line, size);
    else
        fmt_format(line, size, "%17sexit %llu: overwritten meanwhile by newer ones", "", LL(number));
    return true;
}
