#include "hv/record/report.h"
#include "arch/x86/virt.h"
#include "hv/clock.h"
#include "hv/exits/emulate.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/vm.h"

#define EXITS_SHOWN 16u
#define CODE_SHOWN  16u

#define REPORTS_MAX       3u             /* full ones, of a VM */
#define REPORTS_PERIOD_NS 60000000000ull /* within this time */

#define LL(v)    ((unsigned long long)(v))
#define SAY(...) log_vcpu(LOG_ERROR, vcpu, __VA_ARGS__)

static void print_registers(struct vcpu *vcpu)
{
    const uint64_t *g = vcpu->gpr;
    SAY("  rip %016llx  rsp %016llx  rflags %llx", LL(vcpu->rip), LL(virt_get(vcpu, VIRT_RSP)),
        LL(virt_get(vcpu, VIRT_RFLAGS)));
    SAY("  rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx", LL(g[RAX]), LL(g[RBX]), LL(g[RCX]),
        LL(g[RDX]));
    SAY("  rsi %016llx  rdi %016llx  rbp %016llx  r8  %016llx", LL(g[RSI]), LL(g[RDI]), LL(g[RBP]),
        LL(g[R8]));
    SAY("  r9  %016llx  r10 %016llx  r11 %016llx  r12 %016llx", LL(g[R9]), LL(g[R10]), LL(g[R11]),
        LL(g[R12]));
    SAY("  r13 %016llx  r14 %016llx  r15 %016llx  cr2 %016llx", LL(g[R13]), LL(g[R14]), LL(g[R15]),
        LL(virt_get(vcpu, VIRT_CR2)));
    SAY("  cr0 %llx  cr3 %llx  cr4 %llx  efer %llx", LL(virt_get(vcpu, VIRT_CR0)),
        LL(virt_get(vcpu, VIRT_CR3)), LL(virt_get(vcpu, VIRT_CR4)), LL(virt_get(vcpu, VIRT_EFER)));
    static const char *const names[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        struct seg s = virt_get_seg(vcpu, (enum seg_name)i);
        SAY("  %-4s %04x  base %016llx  limit %08x  access %05x", names[i], s.selector, LL(s.base), s.limit,
            s.access);
    }
}

/* The bytes at RIP, through the guest's page tables, without a trace in them. */
static void print_code(struct vcpu *vcpu)
{
    uint8_t bytes[CODE_SHOWN];
    char text[3 * CODE_SHOWN + 1] = "";
    size_t count = emulate_peek_code(vcpu, bytes, sizeof(bytes)), n = 0;
    for (size_t i = 0; i < count; i++)
        n += fmt_format(text + n, sizeof(text) - n, "%02x ", bytes[i]);
    SAY("  code at rip: %s", count ? text : "not readable");
}

/* A VM that crashes and starts again and again must not keep the console busy. */
static bool is_due(struct vm *vm)
{
    uint64_t now = host_tsc();
    spin_lock(&vm->life);
    if (vm->reports == 0 || now - vm->reports_since > clock_ns_to_ticks(REPORTS_PERIOD_NS)) {
        vm->reports_since = now;
        vm->reports = 0;
    }
    bool due = vm->reports < REPORTS_MAX;
    vm->reports += due;
    spin_unlock(&vm->life);
    return due;
}

void report_vcpu(struct vcpu *vcpu)
{
    if (!is_due(vcpu->vm)) {
        SAY("%s at rip %llx; no report: there were %u within a minute (`trace` and `dump` have it)",
            stop_reason_name(vcpu->stop), LL(vcpu->rip), REPORTS_MAX);
        return;
    }
    SAY("%s", stop_reason_name(vcpu->stop));
    print_registers(vcpu);
    print_code(vcpu);
    SAY("  the last exits, newest first:");
    for (unsigned i = 0; i < EXITS_SHOWN; i++) {
        char line[200];
        const struct recorder_entry *entry = recorder_at(&vcpu->recorder, i);
        if (!entry)
            break;
        recorder_describe_all(entry, line, sizeof(line));
        SAY("  %2u  %s", i, line);
    }
}
