#include "tests/host/dump_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 512u

/* A text that is taken apart from the left. */
struct scan {
    const char *at;
};

static bool literal(struct scan *s, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(s->at, text, n) != 0)
        return false;
    s->at += n;
    return true;
}

/* Digits of `base`, at most 64 bits. */
static bool number(struct scan *s, unsigned base, uint64_t *out)
{
    const char *begin = s->at;
    uint64_t n = 0;
    for (;; s->at++) {
        char c = *s->at;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                                                : 99;
        if (digit >= base)
            break;
        if (n > (UINT64_MAX - digit) / base)
            return false;
        n = n * base + digit;
    }
    *out = n;
    return s->at > begin;
}

static bool hex(struct scan *s, const char *before, uint64_t *out)
{
    return literal(s, before) && number(s, 16, out);
}

static bool hex32(struct scan *s, const char *before, uint32_t *out)
{
    uint64_t n;
    if (!hex(s, before, &n) || n > UINT32_MAX)
        return false;
    *out = (uint32_t)n;
    return true;
}

static bool decimal(struct scan *s, const char *before, uint64_t *out)
{
    return literal(s, before) && number(s, 10, out);
}

static bool at_end(const struct scan *s)
{
    return *s->at == 0;
}

/* ---- the kinds of lines ---- */

static bool read_header(struct scan *s, struct dump *d)
{
    uint64_t version, vcpus;
    if (!decimal(s, "bulkhead-dump ", &version) || version != DUMP_VERSION)
        return false;
    if (!decimal(s, " vcpus ", &vcpus) || vcpus < 1 || vcpus > VM_MAX_VCPUS)
        return false;
    d->promised = (uint32_t)vcpus;
    if (!hex(s, " tsc ", &d->tsc) || !decimal(s, " khz ", &d->khz) || d->khz == 0 || !literal(s, " state "))
        return false;
    snprintf(d->state, sizeof(d->state), "%s", s->at);
    return true;
}

static bool read_vcpu(struct scan *s, struct dump *d)
{
    uint64_t id, cpu, exits, kept;
    if (!decimal(s, "vcpu ", &id) || !decimal(s, " cpu ", &cpu) || !decimal(s, " exits ", &exits) ||
        !decimal(s, " kept ", &kept) || !at_end(s))
        return false;
    if (d->vcpu_count == d->promised || id != d->vcpu_count || cpu > UINT32_MAX || kept > RECORDER_KEEPS)
        return false;
    struct dump_vcpu *v = &d->vcpus[d->vcpu_count++];
    memset(v, 0, sizeof(*v));
    v->id = (uint32_t)id;
    v->cpu = (uint32_t)cpu;
    v->exits = exits;
    return true;
}

static const char *const gprs[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const regs[VIRT_REG_COUNT] = {
    "rip",       "rsp",        "rflags",      "cr0",           "cr3",          "cr4",        "efer",
    "pat",       "dr7",        "sysenter_cs", "sysenter_esp",  "sysenter_eip", "gdtr_base",  "gdtr_limit",
    "idtr_base", "idtr_limit", "shadow",      "pending_debug", "activity",     "tsc_offset", "pdpte0",
    "pdpte1",    "pdpte2",     "pdpte3",      "cr2",           "dr0",          "dr1",        "dr2",
    "dr3",       "dr6",        "pkru"};
static const char *const segs[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};

/* "NAME=" of a list: its index, or -1. */
static int name_of(struct scan *s, const char *const *names, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        size_t n = strlen(names[i]);
        if (strncmp(s->at, names[i], n) == 0 && s->at[n] == '=') {
            s->at += n + 1;
            return (int)i;
        }
    }
    return -1;
}

static bool read_regs(struct scan *s, struct vcpu_snapshot *snap)
{
    while (literal(s, " ")) {
        /* RSP is in both lists, with the same value: the first list takes it. */
        int i = name_of(s, gprs, 16);
        uint64_t *to = i >= 0 ? &snap->gpr[i] : NULL;
        if (!to && (i = name_of(s, regs, VIRT_REG_COUNT)) >= 0)
            to = &snap->reg[i];
        if (!to || !number(s, 16, to))
            return false;
        if (i == RSP && to == &snap->gpr[RSP])
            snap->reg[VIRT_RSP] = *to;
    }
    return at_end(s);
}

static bool read_seg(struct scan *s, struct vcpu_snapshot *snap)
{
    uint64_t selector;
    int i = name_of(s, segs, SEG_COUNT);
    if (i < 0)
        return false;
    struct seg *seg = &snap->seg[i];
    if (!number(s, 16, &selector) || selector > UINT16_MAX || !hex(s, ",", &seg->base) ||
        !hex32(s, ",", &seg->limit) || !hex32(s, ",", &seg->access))
        return false;
    seg->selector = (uint16_t)selector;
    return at_end(s);
}

static bool read_code(struct scan *s, struct vcpu_snapshot *snap)
{
    snap->code_size = 0;
    while (!at_end(s)) {
        uint64_t byte;
        if (snap->code_size == DUMP_CODE || !hex(s, " ", &byte) || byte > UINT8_MAX)
            return false;
        snap->code[snap->code_size++] = (uint8_t)byte;
    }
    return true;
}

static bool read_bits(struct scan *s, const char *before, uint32_t words[8])
{
    if (!literal(s, before))
        return false;
    for (unsigned i = 8; i-- > 0;) {
        char digits[9] = "";
        uint64_t word;
        strncpy(digits, s->at, 8);
        struct scan inner = {digits};
        if (!number(&inner, 16, &word) || inner.at != digits + 8)
            return false;
        words[i] = (uint32_t)word;
        s->at += 8;
    }
    return true;
}

static bool read_apic(struct scan *s, struct vcpu_snapshot *snap)
{
    return hex(s, "base=", &snap->apic_base) && hex32(s, " tpr=", &snap->apic_tpr) &&
           hex32(s, " svr=", &snap->apic_svr) && read_bits(s, " irr=", snap->apic_irr) &&
           read_bits(s, " isr=", snap->apic_isr) && at_end(s);
}

static bool read_exit(struct scan *s, struct dump_vcpu *v)
{
    uint64_t result;
    if (v->count == RECORDER_KEEPS)
        return false;
    struct dump_exit *x = &v->kept[v->count];
    struct recorder_entry *e = &x->entry;
    memset(x, 0, sizeof(*x));
    if (!number(s, 10, &x->number) || !hex(s, " t", &e->tsc) || !hex32(s, " r", &e->raw.reason) ||
        !hex(s, " i", &e->raw.rip) || !hex(s, " a", &e->rax) || !hex(s, " c", &e->rcx) ||
        !hex(s, " d", &e->rdx) || !hex(s, " b", &e->rbx) || !hex(s, " =", &result) || !literal(s, " "))
        return false;
    memcpy(&e->result, &result, sizeof(e->result));
    snprintf(x->kind, sizeof(x->kind), "%s", s->at);
    v->count++;
    return true;
}

static bool read_rest(struct scan *s, struct dump_vcpu *v)
{
    if (v->count == 0)
        return false;
    struct vmx_raw *raw = &v->kept[v->count - 1].entry.raw;
    while (literal(s, " ")) {
        const struct {
            const char *key;
            uint32_t *narrow;
            uint64_t *wide;
        } rest[] = {
            {"l", &raw->insn_len, NULL},      {"n", &raw->insn_info, NULL}, {"v", &raw->intr_info, NULL},
            {"w", &raw->intr_error, NULL},    {"y", &raw->idt_info, NULL},  {"z", &raw->idt_error, NULL},
            {"q", NULL, &raw->qualification}, {"p", NULL, &raw->gpa},       {"g", NULL, &raw->gla}};
        unsigned i = 0;
        while (i < ARRAY_SIZE(rest) && *s->at != rest[i].key[0])
            i++;
        if (i == ARRAY_SIZE(rest) ||
            !(rest[i].wide ? hex(s, rest[i].key, rest[i].wide) : hex32(s, rest[i].key, rest[i].narrow)))
            return false;
    }
    return at_end(s);
}

/* A line between the first and the last. */
static bool read_content(const char *content, struct dump *d)
{
    struct scan s = {content};
    if (strncmp(content, "vcpu ", 5) == 0)
        return read_vcpu(&s, d);
    if (d->vcpu_count == 0)
        return false;
    struct dump_vcpu *v = &d->vcpus[d->vcpu_count - 1];
    if (hex(&s, "snapshot tsc ", &v->snapshot.tsc)) {
        v->has_snapshot = true;
        return at_end(&s);
    }
    if (literal(&s, "nosnapshot ")) {
        snprintf(v->why_not, sizeof(v->why_not), "%s", s.at);
        return true;
    }
    if (literal(&s, "reg"))
        return read_regs(&s, &v->snapshot);
    if (literal(&s, "seg "))
        return read_seg(&s, &v->snapshot);
    if (literal(&s, "code"))
        return read_code(&s, &v->snapshot);
    if (literal(&s, "apic "))
        return read_apic(&s, &v->snapshot);
    if (literal(&s, "x "))
        return read_exit(&s, v);
    if (literal(&s, "+"))
        return read_rest(&s, v);
    return false;
}

/* ---- lines in a transcript ---- */

/* The next line with a dump's tag: its VM's name, number and content, cut out of `text`. False: no more. */
static bool next_line(const char *text, size_t size, size_t *at, char line[LINE_MAX_BYTES], const char **vm,
                      uint64_t *seq, const char **content)
{
    while (*at < size) {
        const char *begin = text + *at;
        const char *end = memchr(begin, '\n', size - *at);
        size_t length = end ? (size_t)(end - begin) : size - *at;
        *at += length + (end != NULL);
        if (length >= LINE_MAX_BYTES || memchr(begin, 0, length))
            continue;
        memcpy(line, begin, length);
        line[length] = 0;
        while (length && line[length - 1] == '\r')
            line[--length] = 0;
        char *tag = strstr(line, DUMP_TAG);
        char *space = tag ? strchr(tag + strlen(DUMP_TAG), ' ') : NULL;
        if (!space)
            continue;
        struct scan s = {space + 1};
        if (!number(&s, 10, seq) || !literal(&s, ": "))
            continue;
        *space = 0;
        *vm = tag + strlen(DUMP_TAG);
        *content = s.at;
        return true;
    }
    return false;
}

static bool read_end(const char *content, uint64_t lines, uint64_t checksum, char *why, size_t why_size)
{
    struct scan s = {content};
    uint64_t said_lines, said_checksum;
    if (!decimal(&s, "end lines ", &said_lines) || !hex(&s, " checksum ", &said_checksum) || !at_end(&s))
        snprintf(why, why_size, "its last line cannot be read: %s", content);
    else if (said_lines != lines)
        snprintf(why, why_size, "it has %llu lines and says that there are %llu", (unsigned long long)lines,
                 (unsigned long long)said_lines);
    else if (said_checksum != checksum)
        snprintf(why, why_size, "its checksum is %016llx and should be %016llx: it was changed or damaged",
                 (unsigned long long)checksum, (unsigned long long)said_checksum);
    else
        return true;
    return false;
}

/* The lines after the first. */
static enum dump_found read_body(const char *text, size_t size, size_t *at, uint64_t checksum,
                                 struct dump *out, char *why, size_t why_size)
{
    char line[LINE_MAX_BYTES];
    const char *name, *content;
    uint64_t seq;
    for (uint64_t lines = 1;; lines++) {
        size_t before = *at;
        do {
            before = *at;
            if (!next_line(text, size, at, line, &name, &seq, &content)) {
                snprintf(why, why_size, "it ends after line %llu, without its last line",
                         (unsigned long long)lines - 1);
                return DUMP_BROKEN;
            }
        } while (strcmp(name, out->vm) != 0);
        if (seq != lines) {
            *at = before; /* another dump may begin here */
            snprintf(why, why_size, "after line %llu comes line %llu: lines are missing",
                     (unsigned long long)lines - 1, (unsigned long long)seq);
            return DUMP_BROKEN;
        }
        if (strncmp(content, "end ", 4) == 0) {
            if (!read_end(content, lines, checksum, why, why_size))
                return DUMP_BROKEN;
            if (out->vcpu_count == out->promised)
                return DUMP_WHOLE;
            snprintf(why, why_size, "it has %u vCPUs and says that there are %u", out->vcpu_count,
                     out->promised);
            return DUMP_BROKEN;
        }
        checksum = dump_checksum(checksum, content);
        if (!read_content(content, out)) {
            snprintf(why, why_size, "line %llu cannot be read: %s", (unsigned long long)lines, content);
            return DUMP_BROKEN;
        }
    }
}

enum dump_found dump_read(const char *text, size_t size, size_t *at, const char *vm, struct dump *out,
                          char *why, size_t why_size)
{
    char line[LINE_MAX_BYTES];
    const char *name, *content;
    uint64_t seq;
    while (next_line(text, size, at, line, &name, &seq, &content)) {
        if (seq != 0 || (vm && strcmp(name, vm) != 0) || strlen(name) >= sizeof(out->vm))
            continue;
        memset(out, 0, offsetof(struct dump, vcpus));
        strcpy(out->vm, name);
        struct scan s = {content};
        if (!read_header(&s, out)) {
            snprintf(why, why_size, "its first line cannot be read, or is of another version than %u: %s",
                     DUMP_VERSION, content);
            return DUMP_BROKEN;
        }
        return read_body(text, size, at, dump_checksum(DUMP_CHECKSUM_START, content), out, why, why_size);
    }
    return DUMP_NONE;
}
