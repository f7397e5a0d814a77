#include "tests/host/replay.h"

#include <string.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "tests/host/run_path.h"

#define SAID_SIZE 300u

/* What a handler looks at beside the exit and the four registers; NULL: nothing, so that it can be run. */
static const char *msr_needs(const struct recorder_entry *entry, bool apic_known)
{
    uint32_t msr = (uint32_t)entry->rcx;
    switch (msr_policy_class(msr)) {
    case MSR_CLASS_LAPIC:
        return apic_known ? NULL : "needs the APIC's mode";
    case MSR_CLASS_VIRT:
        return "needs the VM's CPUID";
    case MSR_CLASS_SPEC:
        return "needs the processor's features";
    case MSR_CLASS_STORE:
        return msr == MSR_IA32_ARCH_CAPABILITIES || msr == MSR_IA32_XSS ? "needs the processor's features"
                                                                        : NULL;
    default:
        return NULL;
    }
}

static const char *needs(const struct recorder_entry *entry, const struct exit *exit, bool apic_known)
{
    const struct exit_cr *cr = &exit->u.cr;
    switch (exit->kind) {
    case EXIT_RDMSR:
    case EXIT_WRMSR:
        return msr_needs(entry, apic_known);
    case EXIT_IO:
        return exit->u.io.string ? "needs guest memory" : NULL;
    case EXIT_NESTED_FAULT:
        return exit->u.nested.fetch || exit->u.nested.during_walk || exit->vectoring.valid
                   ? NULL
                   : "needs guest memory";
    case EXIT_APIC_ACCESS:
        return "needs guest memory";
    case EXIT_CR_ACCESS:
        if (cr->op == CR_MOV_TO && cr->cr == 8)
            return cr->gpr <= RBX ? NULL : "needs more registers";
        return cr->op == CR_MOV_TO || cr->op == CR_LMSW ? "needs control registers" : NULL;
    case EXIT_DR_ACCESS:
        return "needs debug registers";
    case EXIT_XSETBV:
        return "needs the processor's features";
    case EXIT_RDTSCP:
        return "needs the VM's CPUID";
    default:
        return NULL;
    }
}

/* The state of the vCPU before its first recorded exit, as far as it can be known. False: not the APIC's
 * mode. */
static bool seed(struct vcpu *vcpu, const struct dump_vcpu *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        const struct recorder_entry *e = &from->kept[i].entry;
        if ((e->raw.reason & EXIT_REASON_BASIC) == VMX_REASON_WRMSR &&
            (uint32_t)e->rcx == LAPIC_MSR_APIC_BASE)
            return true; /* it was in the mode it comes up with, and the write will be run */
    }
    if (from->has_snapshot)
        vcpu->lapic.base_msr = from->snapshot.apic_base;
    return from->has_snapshot;
}

static bool same_result(const struct exit_result *a, const struct exit_result *b)
{
    if (a->action != b->action)
        return false;
    switch (a->action) {
    case ACTION_ADVANCE:
        return a->length == b->length;
    case ACTION_INJECT:
        return a->event_vector == b->event_vector && a->event_type == b->event_type &&
               a->event_has_error == b->event_has_error && a->event_error == b->event_error;
    case ACTION_STOP:
        return a->stop == b->stop;
    default:
        return true;
    }
}

static void run(struct vcpu *vcpu, const struct recorder_entry *entry, const struct exit *exit,
                struct exit_result *result)
{
    fake_host.tsc = entry->tsc;
    fake_host.tx_size = 0;
    fake_host.log_size = 0;
    vcpu->rip = entry->raw.rip;
    vcpu->gpr[RAX] = entry->rax;
    vcpu->gpr[RCX] = entry->rcx;
    vcpu->gpr[RDX] = entry->rdx;
    vcpu->gpr[RBX] = entry->rbx;
    *result = exit_dispatch(vcpu, exit);
}

/* One exit. `said` gets "same", or what differs, or why it was not run. */
static bool replay_exit(struct vcpu *vcpu, const struct dump_exit *x, bool apic_known, struct replay *sum,
                        char *said)
{
    struct exit exit;
    char text[120];
    struct recorder_entry now = x->entry;
    vmx_decode(&x->entry.raw, &exit); /* its failure is EXIT_UNEXPECTED */
    if (strcmp(exit_kind_name(exit.kind), x->kind) != 0) {
        snprintf(said, SAID_SIZE, "differs: it was decoded as %s, now as %s", x->kind,
                 exit_kind_name(exit.kind));
        sum->differ++;
        return false;
    }
    const char *missing = x->entry.result.action == ACTION_PENDING ? "it had no answer yet"
                                                                   : needs(&x->entry, &exit, apic_known);
    if (missing) {
        snprintf(said, SAID_SIZE, "decoded (%s)", missing);
        sum->decoded++;
        return true;
    }
    enum fake_end end = fake_host_catch(run(vcpu, &x->entry, &exit, &now.result));
    recorder_describe_result(&now, text, sizeof(text));
    if (end != FAKE_END_NONE)
        snprintf(said, SAID_SIZE, "differs: the handler now ends the machine");
    else if (!same_result(&now.result, &x->entry.result))
        snprintf(said, SAID_SIZE, "differs: the handler now answers: %s", text);
    else {
        strcpy(said, "same");
        sum->same++;
        return true;
    }
    sum->differ++;
    return false;
}

struct replay replay_vcpu(const struct dump *dump, const struct dump_vcpu *from, FILE *out)
{
    struct replay sum = {0};
    uint32_t vcpus = dump->vcpu_count < MACHINE_VCPUS ? dump->vcpu_count : MACHINE_VCPUS;
    run_path_init(vcpus);
    log_set_sink(NULL, NULL);
    struct vcpu *vcpu = VCPU(from->id < vcpus ? from->id : vcpus - 1);
    bool apic_known = seed(vcpu, from);
    for (uint32_t i = 0; i < from->count; i++) {
        char said[SAID_SIZE], words[300];
        const struct dump_exit *x = &from->kept[i];
        uint64_t before = i ? from->kept[i - 1].entry.tsc : x->entry.tsc;
        replay_exit(vcpu, x, apic_known, &sum, said);
        recorder_describe_all(&x->entry, words, sizeof(words));
        if (out)
            fprintf(out, "%8llu %+12.3f us  %s: %s\n", (unsigned long long)x->number,
                    (double)(int64_t)(x->entry.tsc - before) * 1000 / (double)dump->khz, words, said);
    }
    return sum;
}
