/* The scheduler's simplest policy: every vCPU has a CPU of its own. pick -> run -> account, for ever. */
#include "hv/sched.h"
#include "arch/x86/virt.h"
#include "hv/assign/devices.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/core.h"
#include "hv/record/report.h"

static struct vcpu *pick(struct cpu *cpu)
{
    return __atomic_exchange_n(&cpu->assigned, NULL, __ATOMIC_ACQUIRE);
}

void sched_poll(struct cpu *cpu)
{
    console_poll();
    devices_poll();
    cpu->poll_tsc = host_tsc() + console_pause();
    if (host_devices.active && host_devices.poll_tsc < cpu->poll_tsc)
        cpu->poll_tsc = host_devices.poll_tsc;
}

static void idle(struct cpu *cpu)
{
    if (cpu->polls_console)
        sched_poll(cpu);
    host_idle(cpu->polls_console ? cpu->poll_tsc : UINT64_MAX);
}

void sched_breathe(void)
{
    struct cpu *cpu = host_cpu();
    if (!cpu->polls_console || host_tsc() < cpu->poll_tsc)
        return;
    sched_poll(cpu);
    /* The port's interrupts wait until this CPU runs its guest or sleeps. */
    cpu->poll_tsc = host_tsc() + clock_hz() / CONSOLE_POLLS_PER_SECOND;
}

void sched_run(struct cpu *cpu)
{
    for (;;) {
        struct vcpu *vcpu = pick(cpu);
        if (!vcpu) {
            idle(cpu);
            continue;
        }
        if (vm_is_starting(vcpu->vm)) {
            vm_prepare(vcpu);
            continue;
        }
        virt_vcpu_load(vcpu, cpu);
        vm_begin_vcpu(vcpu);
        stats_enter_loop(&vcpu->times, host_tsc());
        virt_run(vcpu);
        stats_leave_loop(&vcpu->times, host_tsc());
        dump_take_snapshot(vcpu);
        if (stop_is_crash(vcpu->stop)) {
            report_vcpu(vcpu);
            vm_stop(vcpu->vm, vcpu->stop);
        }
        virt_vcpu_put(vcpu);
        vm_vcpu_left(vcpu);
    }
}
