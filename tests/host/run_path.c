#include "tests/host/run_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"

#define SVR_MSR_ENABLED 0x1ffu

static void apic_changed(void *ctx)
{
    vcpu_request(ctx, VCPU_REQ_EVENT);
}

static uint64_t apic_now(void *ctx)
{
    const struct vcpu *vcpu = ctx;
    return host_tsc() + vcpu->tsc_offset;
}

static void capture(uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out)
{
    uint32_t r[4];
    virt_host_cpuid(leaf, subleaf, r);
    *out = (struct cpuid_regs){r[0], r[1], r[2], r[3]};
}

static void build_cpuid(struct vm *vm)
{
    static struct cpuid_host host;
    struct cpuid_vm params = {.vcpu_count = vm->vcpu_count,
                              .tsc_hz = FAKE_TSC_HZ,
                              .xcr0_allowed = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX,
                              .spec_ctrl = true,
                              .rdtscp = true,
                              .invpcid = true};
    cpuid_host_capture(&host, capture);
    cpuid_policy_build(&host, &params, &vm->cpuid);
    vm->xcr0_allowed = params.xcr0_allowed;
}

void run_path_init(unsigned vcpus)
{
    machine_init(vcpus);
    struct vm *vm = &machine.vm;
    build_cpuid(vm);
    for (unsigned i = 0; i < vcpus; i++) {
        struct vcpu *vcpu = VCPU(i);
        vcpu->lapic_env.state_changed = apic_changed;
        vcpu->lapic_env.now_tsc = apic_now;
        lapic_set_maxphyaddr(&vcpu->lapic, vm->cpuid.phys_bits);
        msr_store_init(&vcpu->msrs, &vm->cpuid, virt_host_arch_capabilities(), virt_host_microcode());
        vcpu->xcr0 = XSTATE_X87;
        virt_set(vcpu, VIRT_RIP, vcpu->rip);
        virt_set(vcpu, VIRT_DR7, DR7_RESET);
        virt_set(vcpu, VIRT_DR6, DR6_RESET);
        struct seg tr = {.limit = 0x67, .access = 0x8b};
        virt_set_seg(vcpu, SEG_TR, &tr);
        vcpu_update_deadline(vcpu);
        vcpu->requests = 0;
        fake_vcpu_forget(vcpu);
    }
}

struct exit_result run_path_handle(struct vcpu *vcpu, const struct exit *exit)
{
    assert_non_null(exit_table[exit->kind].handle);
    return exit_table[exit->kind].handle(vcpu, exit);
}

bool run_path_exit(struct vcpu *vcpu, const struct exit *exit)
{
    vcpu->rip = virt_get(vcpu, VIRT_RIP);
    struct recorder_entry *entry = vcpu->recorder.next;
    recorder_take(&vcpu->recorder, entry);
    return vcpu_handle_exit(vcpu, exit, entry);
}

bool run_path_insn(struct vcpu *vcpu, enum exit_kind kind, uint8_t length)
{
    struct exit exit = {.kind = kind, .insn_len = length};
    return run_path_exit(vcpu, &exit);
}

struct event run_path_enter(struct vcpu *vcpu)
{
    assert_true(vcpu_prepare_entry(vcpu));
    return fake_vcpu_take_event(vcpu);
}

void run_path_post(struct vcpu *vcpu, uint8_t vector)
{
    lapic_mmio_write(&vcpu->lapic, 0xf0, 4, SVR_MSR_ENABLED);
    assert_true(lapic_post(&vcpu->lapic, vector, false));
    vcpu_request(vcpu, VCPU_REQ_EVENT);
}

void assert_advances(struct exit_result result)
{
    assert_int_equal(result.action, ACTION_ADVANCE);
    assert_int_equal(result.length, 0);
}

void assert_injects(struct exit_result result, uint8_t vector)
{
    assert_int_equal(result.action, ACTION_INJECT);
    assert_int_equal(result.event_type, EVENT_EXCEPTION);
    assert_int_equal(result.event_vector, vector);
    assert_false(result.event_has_error);
}

void assert_injects_error(struct exit_result result, uint8_t vector, uint32_t error)
{
    assert_int_equal(result.action, ACTION_INJECT);
    assert_int_equal(result.event_type, EVENT_EXCEPTION);
    assert_int_equal(result.event_vector, vector);
    assert_true(result.event_has_error);
    assert_int_equal(result.event_error, error);
}

void assert_stops(struct exit_result result, enum stop_reason why)
{
    assert_int_equal(result.action, ACTION_STOP);
    assert_int_equal(result.stop, why);
}
