/* Instructions that exit by themselves and touch only processor state. */
#include "arch/x86/cpu.h"
#include "arch/x86/virt.h"
#include "hv/exits/exit_table.h"
#include "hv/vm.h"
#include "hv/xstate.h"

#define LOW32(v) ((v)&0xffffffffull)

struct exit_result handle_cpuid(struct vcpu *vcpu, const struct exit *exit)
{
    struct cpuid_dynamic state = {
        .cr4 = virt_get(vcpu, VIRT_CR4),
        .xcr0 = vcpu->xcr0,
        .apic_id = vcpu->id,
        .apic_enabled = vcpu->lapic.base_msr & APIC_BASE_ENABLE,
    };
    struct cpuid_regs out;
    (void)exit;
    cpuid_policy_get(&vcpu->vm->cpuid, (uint32_t)vcpu->gpr[RAX], (uint32_t)vcpu->gpr[RCX], &state, &out);
    vcpu->gpr[RAX] = out.eax;
    vcpu->gpr[RBX] = out.ebx;
    vcpu->gpr[RCX] = out.ecx;
    vcpu->gpr[RDX] = out.edx;
    return exit_advance();
}

struct exit_result handle_hlt(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    vcpu_set_halted(vcpu, true);
    return exit_advance();
}

/* INVD and WBINVD: guest memory is coherent (no device bypasses the caches), so there is nothing to write
 * back, and dropping or flushing the host's caches would hurt the neighbours. INVD always exits and must not
 * drop dirty lines. */
struct exit_result handle_cache(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_advance();
}

/* INVLPG and INVPCID exit only when a control asks for it: flushing everything of this vCPU is always right.
 */
struct exit_result handle_invalidate(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    virt_flush_linear(vcpu);
    return exit_advance();
}

/* There are no performance counters (CPUID leaf 0xA is zero): every index is out of range, #GP(0). */
struct exit_result handle_rdpmc(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_inject_error(VECTOR_GP, 0);
}

struct exit_result handle_rdtsc(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    uint64_t tsc = host_tsc() + vcpu->tsc_offset;
    vcpu->gpr[RAX] = LOW32(tsc);
    vcpu->gpr[RDX] = tsc >> 32;
    return exit_advance();
}

/* Exits only with RDTSC exiting, which is off; TSC_AUX stays in the processor, so this answers what RDTSC
 * does. */
struct exit_result handle_rdtscp(struct vcpu *vcpu, const struct exit *exit)
{
    return vcpu->vm->cpuid.has_rdtscp ? handle_rdtsc(vcpu, exit) : exit_inject(VECTOR_UD);
}

static void __attribute__((noinline, cold))
note(struct vcpu *vcpu, const struct exit *exit, const char *answer)
{
    uint8_t *noted = &vcpu->vm->insns_noted[exit->reason % ARRAY_SIZE(vcpu->vm->insns_noted)];
    if (!__atomic_exchange_n(noted, 1, __ATOMIC_RELAXED))
        log_vcpu(LOG_DEBUG, vcpu, "%s (exit reason %u) is not offered: answered with %s",
                 exit_kind_name(exit->kind), exit->reason, answer);
}

/* What a guest tried that it is not offered, for the log: each exit reason once per VM. */
static inline void note_once(struct vcpu *vcpu, const struct exit *exit, const char *answer)
{
    const struct vm *vm = vcpu->vm;
    if (__builtin_expect(
            !__atomic_load_n(&vm->insns_noted[exit->reason % ARRAY_SIZE(vm->insns_noted)], __ATOMIC_RELAXED),
            0))
        note(vcpu, exit, answer);
}

/* No hypercall exists yet: every number is unknown and answers RAX = -1, at every privilege level. */
struct exit_result handle_hypercall(struct vcpu *vcpu, const struct exit *exit)
{
    note_once(vcpu, exit, "RAX = -1");
    vcpu->gpr[RAX] = UINT64_MAX;
    return exit_advance();
}

/* Instructions that this machine does not have. */
struct exit_result handle_undefined(struct vcpu *vcpu, const struct exit *exit)
{
    note_once(vcpu, exit, "#UD");
    return exit_inject(VECTOR_UD);
}

struct exit_result handle_pause(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_advance();
}

/* Descriptor-table exiting is off, because the guest owns its tables; a control that cannot be switched off
 * would bring us here, and then the VM cannot go on. */
struct exit_result handle_desc_access(struct vcpu *vcpu, const struct exit *exit)
{
    (void)vcpu;
    (void)exit;
    return exit_stop(STOP_UNHANDLED_EXIT);
}

struct exit_result handle_xsetbv(struct vcpu *vcpu, const struct exit *exit)
{
    (void)exit;
    /* The exit comes before the checks on CPL and ECX (SDM volume 3, 26.1.2: only #UD is checked before):
     * they are ours. */
    uint64_t value = (vcpu->gpr[RDX] << 32) | LOW32(vcpu->gpr[RAX]);
    bool user = (virt_get_seg(vcpu, SEG_SS).access >> 5 & 3) != 0;
    if (user || LOW32(vcpu->gpr[RCX]) != 0 || !xstate_xcr0_valid(value, vcpu->vm->xcr0_allowed))
        return exit_inject_error(VECTOR_GP, 0);
    virt_set_xcr0(vcpu, value);
    return exit_advance();
}
