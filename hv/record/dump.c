#include "hv/record/dump.h"
#include "hv/clock.h"
#include "hv/console/lines.h"
#include "hv/core.h"
#include "hv/exits/emulate.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"
#include "hv/vm.h"

#define LL(v)          ((unsigned long long)(v))
#define FNV_PRIME      0x100000001b3ull
#define SNAPSHOT_TRIES 3u
#define REGS_PER_LINE  4u
#define CONTENT_MAX    200u /* with DUMP_TAG, the longest name and a number it stays below LINES_MAX */
#define COPY_SLICE     128u /* exits that are copied in one call: some microseconds */
#define APIC_WORDS     8u   /* IRR and ISR: 256 bits */

enum phase {
    PHASE_BEGIN,
    PHASE_VCPU,
    PHASE_WAIT,
    PHASE_COPY,
    PHASE_STATE,
    PHASE_EXITS,
    PHASE_END,
    PHASE_OVER
};

/* The dump being made. */
static struct {
    struct spinlock lock; /* guards all below */
    uint64_t ticket;      /* of the struct lines that it belongs to; 0: none */
    uint64_t used_tsc;    /* when its last line was asked for */
    enum phase phase;
    uint32_t vcpu;
    uint32_t item;      /* next of PHASE_STATE's lines */
    bool continued;     /* PHASE_EXITS: the second line of exit `next` is due */
    uint64_t deadline;  /* PHASE_WAIT: host TSC */
    uint64_t next, end; /* exits by number, [next, end) are copied */
    uint64_t oldest;    /* PHASE_COPY: the last one to copy */
    uint64_t lines, checksum;
    bool has_snapshot;
    struct vcpu_snapshot snapshot;
    struct recorder_entry *entries; /* a copy of one vCPU's recorder: its vCPU goes on meanwhile */
    uint32_t entries_pages;
} job;
static uint64_t tickets; /* given out ever; under job.lock */

uint64_t dump_checksum(uint64_t sum, const char *content)
{
    for (; *content; content++)
        sum = (sum ^ (uint8_t)*content) * FNV_PRIME;
    return (sum ^ '\n') * FNV_PRIME;
}

/* ---- snapshots ---- */

static void copy_state(struct vcpu *vcpu, struct vcpu_snapshot *s)
{
    const struct lapic *l = &vcpu->lapic;
    s->tsc = host_tsc();
    memcpy(s->gpr, vcpu->gpr, sizeof(s->gpr));
    for (unsigned i = 0; i < VIRT_REG_COUNT; i++)
        s->reg[i] = virt_get(vcpu, (enum virt_reg)i);
    for (unsigned i = 0; i < SEG_COUNT; i++)
        s->seg[i] = virt_get_seg(vcpu, (enum seg_name)i);
    s->gpr[RSP] = s->reg[VIRT_RSP];
    uint64_t rip = vcpu->rip; /* of the last exit: the guest may be past it */
    vcpu->rip = s->reg[VIRT_RIP];
    s->code_size = (uint32_t)emulate_peek_code(vcpu, s->code, sizeof(s->code));
    vcpu->rip = rip;
    s->apic_base = l->base_msr;
    s->apic_tpr = l->tpr;
    s->apic_svr = l->svr;
    for (unsigned i = 0; i < APIC_WORDS; i++) {
        s->apic_irr[i] = __atomic_load_n(&l->irr[i], __ATOMIC_RELAXED);
        s->apic_isr[i] = l->isr[i];
    }
}

void dump_take_snapshot(struct vcpu *vcpu)
{
    struct vcpu_snapshot *s = &vcpu->snapshot;
    uint32_t wanted = __atomic_load_n(&s->wanted, __ATOMIC_ACQUIRE);
    __atomic_fetch_add(&s->taken, 1, __ATOMIC_SEQ_CST);
    copy_state(vcpu, s);
    __atomic_store_n(&s->served, wanted, __ATOMIC_RELAXED);
    __atomic_fetch_add(&s->taken, 1, __ATOMIC_SEQ_CST);
}

/* False: there is none, or it is being written again and again. */
static bool read_snapshot(const struct vcpu *vcpu, struct vcpu_snapshot *out)
{
    const struct vcpu_snapshot *s = &vcpu->snapshot;
    for (unsigned i = 0; i < SNAPSHOT_TRIES; i++) {
        uint32_t before = __atomic_load_n(&s->taken, __ATOMIC_ACQUIRE);
        *out = *s;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (before && !(before & 1) && __atomic_load_n(&s->taken, __ATOMIC_RELAXED) == before)
            return true;
    }
    return false;
}

static bool answered(const struct vcpu *vcpu)
{
    const struct vcpu_snapshot *s = &vcpu->snapshot;
    return __atomic_load_n(&s->served, __ATOMIC_ACQUIRE) == __atomic_load_n(&s->wanted, __ATOMIC_RELAXED);
}

/* ---- one line ---- */

static void __attribute__((format(printf, 4, 5)))
put(const struct vm *vm, char *line, size_t size, const char *format, ...)
{
    char content[CONTENT_MAX];
    va_list args;
    va_start(args, format);
    fmt_vformat(content, sizeof(content), format, args);
    va_end(args);
    fmt_format(line, size, DUMP_TAG "%s %llu: %s", vm->name, LL(job.lines), content);
    job.checksum = dump_checksum(job.checksum, content);
    job.lines++;
}

static const char *const reg_names[VIRT_REG_COUNT] = {
    [VIRT_RIP] = "rip",
    [VIRT_RSP] = "rsp",
    [VIRT_RFLAGS] = "rflags",
    [VIRT_CR0] = "cr0",
    [VIRT_CR3] = "cr3",
    [VIRT_CR4] = "cr4",
    [VIRT_EFER] = "efer",
    [VIRT_PAT] = "pat",
    [VIRT_DR7] = "dr7",
    [VIRT_SYSENTER_CS] = "sysenter_cs",
    [VIRT_SYSENTER_ESP] = "sysenter_esp",
    [VIRT_SYSENTER_EIP] = "sysenter_eip",
    [VIRT_GDTR_BASE] = "gdtr_base",
    [VIRT_GDTR_LIMIT] = "gdtr_limit",
    [VIRT_IDTR_BASE] = "idtr_base",
    [VIRT_IDTR_LIMIT] = "idtr_limit",
    [VIRT_INTR_SHADOW] = "shadow",
    [VIRT_PENDING_DEBUG] = "pending_debug",
    [VIRT_ACTIVITY] = "activity",
    [VIRT_TSC_OFFSET] = "tsc_offset",
    [VIRT_PDPTE0] = "pdpte0",
    [VIRT_PDPTE1] = "pdpte1",
    [VIRT_PDPTE2] = "pdpte2",
    [VIRT_PDPTE3] = "pdpte3",
    [VIRT_CR2] = "cr2",
    [VIRT_DR0] = "dr0",
    [VIRT_DR1] = "dr1",
    [VIRT_DR2] = "dr2",
    [VIRT_DR3] = "dr3",
    [VIRT_DR6] = "dr6",
    [VIRT_PKRU] = "pkru",
};
static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const seg_names[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

#define GPR_LINES   (16u / REGS_PER_LINE)
#define REG_LINES   ((VIRT_REG_COUNT + REGS_PER_LINE - 1) / REGS_PER_LINE)
#define FIRST_REG   (1 + GPR_LINES)
#define FIRST_SEG   (FIRST_REG + REG_LINES)
#define CODE_LINE   (FIRST_SEG + SEG_COUNT)
#define APIC_LINE   (CODE_LINE + 1)
#define STATE_LINES (APIC_LINE + 1)

static void regs_line(const struct vm *vm, const char *const *names, const uint64_t *values, unsigned first,
                      unsigned count, char *line, size_t size)
{
    char text[CONTENT_MAX] = "";
    size_t n = 0;
    for (unsigned i = first; i < first + REGS_PER_LINE && i < count; i++)
        n += fmt_format(text + n, sizeof(text) - n, " %s=%llx", names[i], LL(values[i]));
    put(vm, line, size, "reg%s", text);
}

static void code_line(const struct vm *vm, const struct vcpu_snapshot *s, char *line, size_t size)
{
    char text[3 * DUMP_CODE + 1] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < s->code_size; i++)
        n += fmt_format(text + n, sizeof(text) - n, " %02x", s->code[i]);
    put(vm, line, size, "code%s", text);
}

static void format_bits(char *text, const uint32_t words[APIC_WORDS])
{
    for (unsigned i = 0; i < APIC_WORDS; i++)
        fmt_format(text + 8 * i, 9, "%08x", words[APIC_WORDS - 1 - i]);
}

static void apic_line(const struct vm *vm, const struct vcpu_snapshot *s, char *line, size_t size)
{
    char irr[8 * APIC_WORDS + 1], isr[8 * APIC_WORDS + 1];
    format_bits(irr, s->apic_irr);
    format_bits(isr, s->apic_isr);
    put(vm, line, size, "apic base=%llx tpr=%x svr=%x irr=%s isr=%s", LL(s->apic_base), s->apic_tpr,
        s->apic_svr, irr, isr);
}

static void state_line(const struct vm *vm, unsigned item, char *line, size_t size)
{
    const struct vcpu_snapshot *s = &job.snapshot;
    if (item == 0) {
        put(vm, line, size, "snapshot tsc %llx", LL(s->tsc));
    } else if (item < FIRST_REG) {
        regs_line(vm, gpr_names, s->gpr, (item - 1) * REGS_PER_LINE, 16, line, size);
    } else if (item < FIRST_SEG) {
        regs_line(vm, reg_names, s->reg, (item - FIRST_REG) * REGS_PER_LINE, VIRT_REG_COUNT, line, size);
    } else if (item < CODE_LINE) {
        const struct seg *seg = &s->seg[item - FIRST_SEG];
        put(vm, line, size, "seg %s=%x,%llx,%x,%x", seg_names[item - FIRST_SEG], seg->selector, LL(seg->base),
            seg->limit, seg->access);
    } else if (item == CODE_LINE) {
        code_line(vm, s, line, size);
    } else {
        apic_line(vm, s, line, size);
    }
}

static void exit_line(const struct vm *vm, uint64_t number, const struct recorder_entry *e, char *line,
                      size_t size)
{
    uint64_t result;
    struct exit exit;
    STATIC_ASSERT(sizeof(result) == sizeof(e->result), "a result is dumped as one number");
    memcpy(&result, &e->result, sizeof(result));
    vmx_decode(&e->raw, &exit); /* its failure is EXIT_UNEXPECTED */
    put(vm, line, size, "x %llu t%llx r%x i%llx a%llx c%llx d%llx b%llx =%llx %s", LL(number), LL(e->tsc),
        e->raw.reason, LL(e->raw.rip), LL(e->rax), LL(e->rcx), LL(e->rdx), LL(e->rbx), LL(result),
        exit_kind_name(exit.kind));
}

/* False: the exit has no more to say. */
static bool rest_line(const struct vm *vm, const struct vmx_raw *raw, char *line, size_t size)
{
    const struct {
        char key;
        uint64_t value;
    } rest[] = {{'l', raw->insn_len},      {'n', raw->insn_info}, {'v', raw->intr_info},
                {'w', raw->intr_error},    {'y', raw->idt_info},  {'z', raw->idt_error},
                {'q', raw->qualification}, {'p', raw->gpa},       {'g', raw->gla}};
    char text[CONTENT_MAX] = "";
    size_t n = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(rest); i++) {
        if (rest[i].value)
            n += fmt_format(text + n, sizeof(text) - n, " %c%llx", rest[i].key, LL(rest[i].value));
    }
    if (n)
        put(vm, line, size, "+%s", text);
    return n > 0;
}

/* ---- one dump ---- */

static void forget_entries(void)
{
    if (job.entries)
        pool_free_pages(&core.pool, job.entries, job.entries_pages);
    job.entries = NULL;
}

/* False: another dump is being made. */
static bool take_job(struct lines *self, uint64_t now)
{
    if (job.ticket && now - job.used_tsc < clock_ns_to_ticks((uint64_t)DUMP_ABANDONED_MS * NS_PER_MS))
        return false;
    forget_entries();
    job.ticket = ++tickets;
    job.phase = PHASE_BEGIN;
    job.vcpu = 0;
    job.lines = 0;
    job.checksum = DUMP_CHECKSUM_START;
    self->at = job.ticket;
    self->step = 1;
    return true;
}

static bool in_loop(const struct vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->times.loop_since, __ATOMIC_ACQUIRE) != 0;
}

/* The vCPU's exits as they are now: while they are printed it may make thousands more. */
static void begin_copy(const struct vcpu *vcpu)
{
    const struct recorder *r = &vcpu->recorder;
    uint64_t count = recorder_count(r), kept = recorder_kept(r);
    if (!job.entries) {
        job.entries_pages = recorder_pages((uint32_t)kept);
        job.entries = pool_alloc_pages(&core.pool, job.entries_pages);
    }
    if (!job.entries)
        kept = 0;
    job.end = job.next = count;
    job.oldest = count > kept ? count - kept : 0;
    job.phase = PHASE_COPY;
}

/* The next slice, newest first: a vCPU that goes on overtakes the oldest. True: that was the last one. */
static bool copy_exits(const struct vcpu *vcpu)
{
    const struct recorder *r = &vcpu->recorder;
    uint64_t kept = recorder_kept(r);
    for (unsigned i = 0; i < COPY_SLICE && job.next > job.oldest; i++) {
        if (!recorder_copy(r, job.next - 1, &job.entries[(job.next - 1) % kept]))
            return true; /* overtaken, and with it all before it */
        job.next--;
    }
    return job.next == job.oldest;
}

/* The vCPU was asked, or stands still: what there is of it. */
static void begin_vcpu(const struct vcpu *vcpu)
{
    job.has_snapshot = (!in_loop(vcpu) || answered(vcpu)) && read_snapshot(vcpu, &job.snapshot);
    begin_copy(vcpu);
}

static void vcpu_line(const struct vm *vm, const struct vcpu *vcpu, char *line, size_t size)
{
    put(vm, line, size, "vcpu %u cpu %u exits %llu kept %llu", vcpu->id, vcpu->cpu->index, LL(job.end),
        LL(job.end - job.next));
    job.item = 0;
    job.continued = false;
    job.phase = PHASE_STATE;
}

/* Asks for the registers; on its own CPU they are there at once. */
static void ask(struct vcpu *vcpu, uint64_t now)
{
    job.deadline = now + clock_ns_to_ticks((uint64_t)DUMP_WAIT_MS * NS_PER_MS);
    job.phase = PHASE_WAIT;
    if (!in_loop(vcpu))
        return;
    __atomic_fetch_add(&vcpu->snapshot.wanted, 1, __ATOMIC_SEQ_CST);
    if (vcpu->cpu == host_cpu())
        dump_take_snapshot(vcpu);
    else
        vcpu_request(vcpu, VCPU_REQ_SNAPSHOT);
}

static const char *why_no_snapshot(const struct vcpu *vcpu)
{
    if (in_loop(vcpu))
        return "its CPU did not answer in time";
    return recorder_count(&vcpu->recorder) == 0 ? "it has not run yet" : "it was just starting or stopping";
}

static void next_state(const struct vm *vm, const struct vcpu *vcpu, char *line, size_t size)
{
    if (job.has_snapshot) {
        state_line(vm, job.item++, line, size);
    } else {
        put(vm, line, size, "nosnapshot %s", why_no_snapshot(vcpu));
        job.item = STATE_LINES;
    }
    if (job.item >= STATE_LINES)
        job.phase = PHASE_EXITS;
}

/* False: no line, the phase is over. */
static bool next_exit(const struct vm *vm, const struct vcpu *vcpu, char *line, size_t size)
{
    while (job.next < job.end) {
        const struct recorder_entry *e = &job.entries[job.next % recorder_kept(&vcpu->recorder)];
        if (!job.continued) {
            exit_line(vm, job.next, e, line, size);
            job.continued = true;
            return true;
        }
        job.continued = false;
        job.next++;
        if (rest_line(vm, &e->raw, line, size))
            return true;
    }
    return false;
}

static void end_line(const struct vm *vm, char *line, size_t size)
{
    fmt_format(line, size, DUMP_TAG "%s %llu: end lines %llu checksum %016llx", vm->name, LL(job.lines),
               LL(job.lines), LL(job.checksum));
}

static void begin_line(const struct vm *vm, uint64_t now, char *line, size_t size)
{
    put(vm, line, size, "bulkhead-dump %u vcpus %u tsc %llx khz %llu state %s", DUMP_VERSION, vm->vcpu_count,
        LL(now), LL(clock_hz() / 1000), stop_reason_name(vm->stop));
}

/* One step. False: the dump is over. No line made: `line` stays empty. */
static bool advance(struct vm *vm, uint64_t now, char *line, size_t size)
{
    struct vcpu *vcpu = job.vcpu < vm->vcpu_count ? vm->vcpus[job.vcpu] : NULL;
    if (!vcpu && job.phase > PHASE_BEGIN && job.phase < PHASE_END)
        job.phase = PHASE_END; /* that was the last one */
    switch (job.phase) {
    case PHASE_BEGIN:
        begin_line(vm, now, line, size);
        job.phase = PHASE_VCPU;
        return true;
    case PHASE_VCPU:
        ask(vcpu, now);
        return true;
    case PHASE_WAIT:
        if (!in_loop(vcpu) || answered(vcpu) || now >= job.deadline)
            begin_vcpu(vcpu);
        return true;
    case PHASE_COPY:
        if (copy_exits(vcpu))
            vcpu_line(vm, vcpu, line, size);
        return true;
    case PHASE_STATE:
        next_state(vm, vcpu, line, size);
        return true;
    case PHASE_EXITS:
        if (!next_exit(vm, vcpu, line, size)) {
            job.phase = PHASE_VCPU;
            job.vcpu++;
        }
        return true;
    case PHASE_END:
        end_line(vm, line, size);
        job.phase = PHASE_OVER;
        return true;
    default:
        forget_entries();
        job.ticket = 0;
        return false;
    }
}

bool dump_next(struct lines *self, char *line, size_t size)
{
    uint64_t now = host_tsc();
    bool more = true;
    line[0] = 0;
    if (!spin_trylock(&job.lock))
        return true;
    if (self->step != 0 && self->at != job.ticket)
        more = false; /* given up, and another dump has begun since */
    else if (self->step != 0 || take_job(self, now)) {
        job.used_tsc = now;
        more = advance(self->vm, now, line, size);
    }
    spin_unlock(&job.lock);
    return more;
}
