/* Between an exit and the next entry: what vcpu.c does with a handler's answer, and all that is due before
 * the guest runs again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/pc/warm_reset.h"
#include "tests/host/run_path.h"

#define IF_ON  (RFLAGS_FIXED_1 | RFLAGS_IF)
#define IF_OFF RFLAGS_FIXED_1

/* Local APIC registers. */
#define APIC_SVR       0xf0u
#define APIC_LVT_TIMER 0x320u
#define APIC_LVT_LINT0 0x350u
#define APIC_COUNT     0x380u
#define APIC_DIVIDE    0x3e0u
#define LVT_EXTINT     0x700u
#define LVT_MASKED     0x10000u
#define TIMER_PERIODIC (1u << 17)
#define TIMER_DEADLINE (2u << 17)
#define DIVIDE_BY_1    0xbu

static struct vcpu *v, *ap;
static struct fake_vcpu *f, *fap;

static int setup(void **state)
{
    (void)state;
    run_path_init(2);
    v = VCPU(0);
    ap = VCPU(1);
    f = fake_vcpu(v);
    fap = fake_vcpu(ap);
    return 0;
}

static void on_cpu(unsigned n)
{
    fake_host.cpu = &core.cpus[n];
}

static void interrupts(struct vcpu *vcpu, bool on)
{
    virt_set(vcpu, VIRT_RFLAGS, on ? IF_ON : IF_OFF);
}

static bool apply(struct exit_result result, uint8_t insn_len)
{
    struct exit exit = {.kind = EXIT_CPUID, .insn_len = insn_len};
    v->rip = virt_get(v, VIRT_RIP);
    return vcpu_apply_result(v, &exit, result);
}

static void set_rip(uint64_t rip)
{
    virt_set(v, VIRT_RIP, rip);
}

static uint64_t rip(void)
{
    return virt_get(v, VIRT_RIP);
}

static void assert_event(struct event event, enum event_type type, uint8_t vector)
{
    assert_true(event.valid);
    assert_int_equal(event.type, type);
    assert_int_equal(event.vector, vector);
}

static void assert_no_event(struct event event)
{
    assert_false(event.valid);
}

/* ---- ADVANCE ---- */

static void test_advance(void **state)
{
    (void)state;
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(rip(), 0x1002);
    assert_true(apply(exit_advance_by(15), 2)); /* the handler knows better */
    assert_int_equal(rip(), 0x1011);
}

static void test_advance_writes_only_rip(void **state)
{
    (void)state;
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(f->writes, 1);
    assert_int_equal(f->reg_writes[VIRT_RIP], 1);
}

static void test_advance_wraps_at_4_gib_outside_64_bit_mode(void **state)
{
    (void)state;
    set_rip(0xfffffffe);
    assert_true(apply(exit_advance(), 3));
    assert_int_equal(rip(), 0x100000001); /* 64-bit mode goes on */
    f->seg[SEG_CS].access = 0xc09b;       /* compatibility mode */
    set_rip(0xfffffffe);
    assert_true(apply(exit_advance(), 3));
    assert_int_equal(rip(), 1);
    machine_protected_mode(v);
    set_rip(0xffffffff);
    assert_true(apply(exit_advance(), 1));
    assert_int_equal(rip(), 0);
    machine_real_mode(v);
    f->seg[SEG_CS].access = 0x209b; /* L means nothing without IA-32e mode */
    set_rip(0xffffffff);
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(rip(), 1);
}

static void test_advance_in_the_upper_half(void **state)
{
    (void)state;
    set_rip(0xffffffff80ffffff);
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(rip(), 0xffffffff81000001);
    set_rip(0xfffffffffffffffe);
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(rip(), 0);
}

static void test_advance_ends_the_shadow(void **state)
{
    (void)state;
    static const uint64_t shadows[] = {EVENTS_SHADOW_STI, EVENTS_SHADOW_MOV_SS};
    for (unsigned i = 0; i < ARRAY_SIZE(shadows); i++) {
        virt_set(v, VIRT_INTR_SHADOW, shadows[i] | EVENTS_SHADOW_NMI);
        assert_true(apply(exit_advance(), 2));
        assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), EVENTS_SHADOW_NMI); /* an NMI handler goes on */
    }
}

static void test_advance_single_steps(void **state)
{
    (void)state;
    virt_set(v, VIRT_RFLAGS, IF_ON | RFLAGS_TF);
    virt_set(v, VIRT_PENDING_DEBUG, 2);
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), DR6_BS | 2);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), IF_ON | RFLAGS_TF);
}

static void test_advance_clears_rf(void **state)
{
    (void)state;
    virt_set(v, VIRT_RFLAGS, IF_ON | RFLAGS_RF);
    assert_true(apply(exit_advance(), 2));
    assert_int_equal(virt_get(v, VIRT_RFLAGS), IF_ON);
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), 0);
}

/* ---- RETRY, INJECT, STOP ---- */

static void test_retry_changes_nothing(void **state)
{
    (void)state;
    virt_set(v, VIRT_RFLAGS, IF_ON | RFLAGS_TF | RFLAGS_RF);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_STI);
    fake_vcpu_forget(v);
    assert_true(apply(exit_retry(), 2));
    assert_int_equal(f->writes, 0);
    assert_int_equal(v->events.pending, 0);
}

static void test_inject(void **state)
{
    (void)state;
    assert_true(apply(exit_inject_error(VECTOR_GP, 0x18), 2));
    assert_int_equal(rip(), 0x1000);
    assert_int_equal(f->injections, 0); /* it waits for the entry */
    struct event event = run_path_enter(v);
    assert_event(event, EVENT_EXCEPTION, VECTOR_GP);
    assert_true(event.has_error);
    assert_int_equal(event.error, 0x18);
    assert_no_event(run_path_enter(v));
}

/* The flags image of a fault has RF set, so that a breakpoint on the instruction does not strike again after
 * it. */
static void test_inject_sets_rf(void **state)
{
    (void)state;
    assert_true(apply(exit_inject(VECTOR_UD), 2));
    assert_int_equal(virt_get(v, VIRT_RFLAGS), IF_OFF | RFLAGS_RF);
    assert_event(run_path_enter(v), EVENT_EXCEPTION, VECTOR_UD);
    interrupts(v, false);
    assert_true(apply(exit_inject(VECTOR_DB), 2));
    assert_int_equal(virt_get(v, VIRT_RFLAGS), IF_OFF); /* the processor decided for these */
}

static void test_inject_in_real_mode_has_no_error_code(void **state)
{
    (void)state;
    machine_real_mode(v);
    assert_true(apply(exit_inject_error(VECTOR_GP, 0), 2));
    struct event event = run_path_enter(v);
    assert_event(event, EVENT_EXCEPTION, VECTOR_GP);
    assert_false(event.has_error);
}

static void test_stop(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_DESC_ACCESS, .reason = 46, .insn_len = 3};
    assert_false(run_path_exit(v, &exit));
    assert_int_equal(v->stop, STOP_UNHANDLED_EXIT);
    assert_int_equal(v->last_exit.reason, 46);
    assert_int_equal(machine.vm.stop, STOP_UNHANDLED_EXIT);
    assert_int_equal(machine.vm.state, VM_STOPPING);
    assert_int_equal(rip(), 0x1000);
    /* The others of the VM leave too. */
    assert_int_equal(fake_host.kicks, 1);
    assert_ptr_equal(fake_host.kicked[0], ap->cpu);
    on_cpu(1);
    assert_false(vcpu_prepare_entry(ap));
    assert_int_equal(ap->stop, STOP_NONE);
    assert_int_equal(fap->injections, 0);
}

static void test_unexpected_exit_stops(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_UNEXPECTED, .reason = 35};
    assert_false(run_path_exit(v, &exit));
    assert_int_equal(v->stop, STOP_UNHANDLED_EXIT);
    assert_int_equal(v->exits[EXIT_UNEXPECTED], 1);
}

static void test_exits_are_counted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_true(run_path_insn(v, EXIT_PAUSE, 2));
    assert_true(run_path_insn(v, EXIT_CPUID, 2));
    assert_int_equal(v->exits[EXIT_PAUSE], 3);
    assert_int_equal(v->exits[EXIT_CPUID], 1);
    assert_int_equal(rip(), 0x1008);
}

/* ---- the fast way ---- */

static void test_nothing_due_costs_nothing(void **state)
{
    (void)state;
    fake_host.tsc_reads = 0;
    fake_host.tsc = 5000000;
    assert_true(vcpu_prepare_entry(v));
    for (unsigned i = 0; i < VIRT_REG_COUNT; i++)
        assert_int_equal(f->reg_reads[i], 0);
    assert_int_equal(f->writes, 0);
    assert_int_equal(f->injections + f->intr_window_calls + f->nmi_window_calls, 0);
    assert_int_equal(fake_host.tsc_reads, 1);
    assert_int_equal(v->entry_tsc, 5000000);
}

/* ---- deadlines ---- */

static void start_timer(struct vcpu *vcpu, uint32_t mode, uint32_t count)
{
    lapic_mmio_write(&vcpu->lapic, APIC_SVR, 4, 0x1ff);
    lapic_mmio_write(&vcpu->lapic, APIC_DIVIDE, 4, DIVIDE_BY_1);
    lapic_mmio_write(&vcpu->lapic, APIC_LVT_TIMER, 4, mode | 0x40);
    if (count)
        lapic_mmio_write(&vcpu->lapic, APIC_COUNT, 4, count);
}

static void set_tsc_deadline(struct vcpu *vcpu, uint64_t guest_tsc)
{
    start_timer(vcpu, TIMER_DEADLINE, 0);
    assert_int_equal(lapic_tsc_deadline_write(&vcpu->lapic, guest_tsc), STATUS_OK);
}

static void test_deadline_is_the_earliest(void **state)
{
    (void)state;
    uint64_t now = fake_host.tsc;
    vcpu_update_deadline(v);
    assert_int_equal(v->deadline_tsc, machine.vm.platform.next_timer_tsc);
    machine.vm.platform.next_timer_tsc = now + 3000;
    v->cpu->poll_tsc = now + 2000;
    vcpu_update_deadline(v);
    assert_int_equal(v->deadline_tsc, now + 3000); /* this CPU has no console */
    v->cpu->polls_console = true;
    vcpu_update_deadline(v);
    assert_int_equal(v->deadline_tsc, now + 2000);
    set_tsc_deadline(v, now + 1000);
    assert_int_equal(v->deadline_tsc, now + 1000);
    set_tsc_deadline(v, now + 2500);
    assert_int_equal(v->deadline_tsc, now + 2000);
    /* Devices are the first vCPU's business. */
    vcpu_update_deadline(ap);
    assert_int_equal(ap->deadline_tsc, UINT64_MAX);
}

static void test_deadline_in_host_time(void **state)
{
    (void)state;
    static const struct {
        uint64_t guest_now, guest_deadline, ahead;
    } rows[] = {
        {1000, 6000, 5000},
        {UINT64_MAX - 10000, UINT64_MAX - 5000, 5000},
        {1ull << 63, (1ull << 63) + 7, 7},
        {1ull << 62, (1ull << 63) + 5, (1ull << 62) + 5},
        {0, 1ull << 63, 1ull << 63},
        {5, (1ull << 63) + 6, (1ull << 63) + 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        ap->tsc_offset = rows[i].guest_now - fake_host.tsc;
        set_tsc_deadline(ap, rows[i].guest_deadline);
        assert_int_equal(ap->deadline_tsc, fake_host.tsc + rows[i].ahead);
    }
    /* Past: at once. */
    ap->tsc_offset = 1000 - fake_host.tsc;
    set_tsc_deadline(ap, 999);
    assert_true(ap->deadline_tsc <= fake_host.tsc);
    /* Beyond the end of the host's clock: never. */
    ap->tsc_offset = (uint64_t)0 - fake_host.tsc;
    set_tsc_deadline(ap, UINT64_MAX - 1);
    assert_true(ap->deadline_tsc >= UINT64_MAX - 1);
}

/* Whatever a guest writes, it is left alone until the time has come: a deadline that was due again and again
 * without its timer firing would keep the vCPU from ever running. */
static void test_no_deadline_livelocks(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 128; shift++) {
        uint64_t value = shift < 64 ? 1ull << shift : ~(UINT64_MAX >> (shift - 64));
        for (int delta = -2; delta <= 2; delta++) {
            set_tsc_deadline(v, value + (uint64_t)delta);
            run_path_enter(v);
            assert_true(v->deadline_tsc > fake_host.tsc);
        }
    }
}

static void test_timer_fires_when_it_is_due(void **state)
{
    (void)state;
    interrupts(v, true);
    machine.vm.platform.next_timer_tsc = UINT64_MAX;
    start_timer(v, 0, 5000);
    run_path_enter(v);
    uint64_t due = v->deadline_tsc;
    fake_host.tsc = due - 1;
    assert_no_event(run_path_enter(v));
    fake_host.tsc = due;
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x40);
    assert_int_equal(v->deadline_tsc, UINT64_MAX); /* one shot */
    assert_int_equal(v->injected, 1);
}

/* The timer runs on the guest's TSC, and the entry's time is that of the end of it all. */
static void test_timer_with_an_offset(void **state)
{
    (void)state;
    interrupts(ap, true);
    on_cpu(1);
    ap->tsc_offset = 1000;
    set_tsc_deadline(ap, fake_host.tsc + ap->tsc_offset + 500);
    run_path_enter(ap);
    fake_host.tsc += 500;
    fake_host.tsc_step = 1;
    machine.vm.platform.next_timer_tsc = 1; /* not this vCPU's */
    assert_event(run_path_enter(ap), EVENT_EXTERNAL_INTERRUPT, 0x40);
    assert_int_equal(ap->entry_tsc, fake_host.tsc - 1);
    assert_int_equal(machine.vm.platform.next_timer_tsc, 1);
    assert_int_equal(fake_host.rx_at, 0);
}

static void test_entry_time_is_taken_last(void **state)
{
    (void)state;
    uint64_t began = fake_host.tsc;
    fake_host.tsc_step = 1;
    vcpu_request(v, VCPU_REQ_NMI);
    assert_event(run_path_enter(v), EVENT_NMI, VECTOR_NMI);
    assert_true(v->entry_tsc > began);
    assert_int_equal(v->entry_tsc, fake_host.tsc - 1);
    fake_host.tsc_step = 0;
    machine.vm.platform.next_timer_tsc = fake_host.tsc;
    vcpu_update_deadline(v);
    v->requests = 0;
    fake_host.tsc_step = 1;
    assert_true(vcpu_prepare_entry(v));
    assert_int_equal(v->entry_tsc, fake_host.tsc - 1);
}

static void test_periodic_timer(void **state)
{
    (void)state;
    interrupts(v, true);
    machine.vm.platform.next_timer_tsc = UINT64_MAX;
    start_timer(v, TIMER_PERIODIC, 1000000);
    run_path_enter(v);
    uint64_t first = v->deadline_tsc;
    for (unsigned i = 0; i < 5; i++) {
        fake_host.tsc = first + i * 1000000;
        assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x40);
        assert_int_equal(v->deadline_tsc, first + (i + 1) * 1000000);
        lapic_mmio_write(&v->lapic, 0xb0, 4, 0); /* EOI */
    }
}

static void test_device_timers_belong_to_the_first_vcpu(void **state)
{
    (void)state;
    struct platform *p = &machine.vm.platform;
    struct io_req req = {
        .addr = PIT_PORT + 3, .size = 1, .write = true, .value = 0x34}; /* counter 0, mode 2 */
    pit_ops.access(&p->pit.dev, &req);
    req = (struct io_req){.addr = PIT_PORT, .size = 1, .write = true, .value = 0xe8};
    pit_ops.access(&p->pit.dev, &req);
    req.value = 0x03;
    pit_ops.access(&p->pit.dev, &req); /* every 1000 counts, 838 us */
    assert_true(v->requests & VCPU_REQ_TIMER);
    run_path_enter(v);
    uint64_t due = v->deadline_tsc;
    assert_true(due > fake_host.tsc && due < fake_host.tsc + 2000000);
    fake_host.tsc = due;
    on_cpu(1);
    vcpu_prepare_entry(ap);
    assert_int_equal(p->next_timer_tsc, due);
    on_cpu(0);
    run_path_enter(v);
    assert_true(p->next_timer_tsc > due);
    assert_true(p->pic.chip[0].irr & 1); /* the PIT's line was raised */
}

static void test_console_is_polled(void **state)
{
    (void)state;
    console_attach(&machine.vm);
    v->cpu->polls_console = true;
    v->cpu->poll_tsc = fake_host.tsc + 100;
    vcpu_update_deadline(v);
    fake_host_type("x");
    assert_true(vcpu_prepare_entry(v));
    assert_int_equal(fake_host.rx_at, 0);
    machine.vm.platform.next_timer_tsc =
        fake_host.tsc + 50; /* something else is due: not yet the console's turn */
    vcpu_update_deadline(v);
    fake_host.tsc += 50;
    assert_true(vcpu_prepare_entry(v));
    assert_int_equal(fake_host.rx_at, 0);
    fake_host.tsc += 50;
    assert_true(vcpu_prepare_entry(v));
    assert_int_equal(fake_host.rx_at, 1);
    assert_int_equal(v->cpu->poll_tsc, fake_host.tsc + clock_hz() / 1000);
    assert_int_equal(v->deadline_tsc, v->cpu->poll_tsc);
    assert_int_equal(v->entry_tsc, fake_host.tsc);
}

/* ---- requests ---- */

static void test_request_kicks_once(void **state)
{
    (void)state;
    vcpu_request(ap, VCPU_REQ_EVENT);
    vcpu_request(ap, VCPU_REQ_NMI); /* it has not looked yet: it is on its way */
    assert_int_equal(fake_host.kicks, 1);
    assert_ptr_equal(fake_host.kicked[0], ap->cpu);
    vcpu_request(v, VCPU_REQ_EVENT); /* our own CPU: looks before it enters */
    assert_int_equal(fake_host.kicks, 1);
    on_cpu(1);
    run_path_enter(ap);
    on_cpu(0);
    assert_int_equal(ap->requests, 0);
    vcpu_request(ap, VCPU_REQ_EVENT);
    assert_int_equal(fake_host.kicks, 2);
}

static void test_timer_request(void **state)
{
    (void)state;
    machine.vm.platform.next_timer_tsc = fake_host.tsc + 77;
    vcpu_request(v, VCPU_REQ_TIMER);
    run_path_enter(v);
    assert_int_equal(v->deadline_tsc, fake_host.tsc + 77);
}

/* What is behind guest-physical addresses has changed: nothing that was found there is believed. */
static void test_flush_request(void **state)
{
    (void)state;
    v->fetched.levels = 4;
    vcpu_request(v, VCPU_REQ_FLUSH);
    run_path_enter(v);
    assert_int_equal(fake_vcpu(v)->nested_flushes, 1);
    assert_int_equal(v->fetched.levels, 0);
}

static void test_stop_request_wins(void **state)
{
    (void)state;
    interrupts(v, true);
    run_path_post(v, 0x51);
    vcpu_request(v, VCPU_REQ_NMI);
    vcpu_request(v, VCPU_REQ_STOP);
    assert_false(vcpu_prepare_entry(v));
    assert_int_equal(f->injections, 0);
    assert_int_equal(lapic_pending(&v->lapic), 0x51); /* nothing was acknowledged */
}

/* ---- interrupts from the local APIC ---- */

static void test_interrupt_is_injected(void **state)
{
    (void)state;
    interrupts(v, true);
    run_path_post(v, 0x51);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
    assert_int_equal(v->lapic.highest_isr, 0x51);
    assert_int_equal(v->injected, 1);
    assert_int_equal(f->intr_window_calls, 0);
    assert_no_event(run_path_enter(v));
}

static void test_interrupts_off_open_a_window(void **state)
{
    (void)state;
    run_path_post(v, 0x51);
    assert_no_event(run_path_enter(v));
    assert_true(f->intr_window);
    assert_int_equal(v->lapic.highest_isr, 0);
    /* Other exits do not look again: nothing has changed. */
    assert_true(run_path_insn(v, EXIT_CPUID, 2));
    assert_int_equal(f->intr_window_calls, 1);
    interrupts(v, true);
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
    assert_false(f->intr_window);
}

static void test_shadow_holds_interrupts_back(void **state)
{
    (void)state;
    static const uint64_t shadows[] = {EVENTS_SHADOW_STI, EVENTS_SHADOW_MOV_SS};
    for (unsigned i = 0; i < ARRAY_SIZE(shadows); i++) {
        setup(NULL);
        interrupts(v, true);
        virt_set(v, VIRT_INTR_SHADOW, shadows[i]);
        run_path_post(v, 0x51);
        assert_no_event(run_path_enter(v));
        assert_true(f->intr_window);
        /* The instruction under the shadow exits and is completed: now. */
        vcpu_request(v, VCPU_REQ_EVENT);
        assert_true(run_path_insn(v, EXIT_CPUID, 2));
        assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
        assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), 0);
    }
}

static void test_window_closes_when_nothing_is_left(void **state)
{
    (void)state;
    run_path_post(v, 0x51);
    run_path_enter(v);
    assert_true(f->intr_window);
    lapic_set_cr8(&v->lapic, 15); /* the guest raises its priority meanwhile */
    interrupts(v, true);
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_no_event(fake_vcpu_take_event(v));
    assert_false(f->intr_window);
    lapic_set_cr8(&v->lapic, 0);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
}

static void test_fault_comes_before_an_interrupt(void **state)
{
    (void)state;
    interrupts(v, true);
    run_path_post(v, 0x51);
    assert_true(run_path_insn(v, EXIT_VIRT_INSN, 3));
    assert_event(fake_vcpu_take_event(v), EVENT_EXCEPTION, VECTOR_UD);
    assert_true(f->intr_window); /* for the other */
    assert_int_equal(f->replaced, 0);
}

/* A single-step trap of the last instruction comes first, and must not be lost by an injection. */
static void test_trap_comes_before_an_interrupt(void **state)
{
    (void)state;
    virt_set(v, VIRT_RFLAGS, IF_ON | RFLAGS_TF);
    run_path_post(v, 0x51);
    assert_true(run_path_insn(v, EXIT_CPUID, 2));
    assert_no_event(fake_vcpu_take_event(v));
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), DR6_BS);
    assert_true(f->intr_window);
    /* A breakpoint's condition alone, without its being enabled, is no trap. */
    virt_set(v, VIRT_PENDING_DEBUG, 1);
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
}

/* ---- interrupts from the PIC ---- */

static void pic_out(uint16_t port, uint8_t value)
{
    struct io_req req = {.addr = port, .size = 1, .write = true, .value = value};
    pic_ops.access(&machine.vm.platform.pic.dev, &req);
}

static void start_pic(void)
{
    static const uint8_t words[] = {0x11, 0x20, 0x04, 0x01}; /* vectors from 0x20 */
    for (unsigned i = 0; i < 4; i++)
        pic_out(i ? PIC_MASTER_PORT + 1 : PIC_MASTER_PORT, words[i]);
    pic_out(PIC_MASTER_PORT + 1, 0);
    lapic_mmio_write(&v->lapic, APIC_SVR, 4, 0x1ff);
    v->requests = 0;
}

static void pulse(unsigned irq)
{
    pic_set_irq(&machine.vm.platform.pic, irq, true);
    pic_set_irq(&machine.vm.platform.pic, irq, false);
}

static void test_extint(void **state)
{
    (void)state;
    start_pic();
    lapic_mmio_write(&v->lapic, APIC_LVT_LINT0, 4, LVT_EXTINT);
    interrupts(v, true);
    pulse(4);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x24);
    assert_int_equal(machine.vm.platform.pic.chip[0].isr, 1 << 4);
    assert_int_equal(v->injected, 1);
    assert_int_equal(v->lapic.highest_isr, 0); /* not through the local APIC */
    assert_int_equal(machine.vm.devices.next, machine.vm.devices.serving);
    assert_no_event(run_path_enter(v));
    pulse(3); /* higher priority than what is in service */
    interrupts(v, false);
    assert_no_event(run_path_enter(v));
    assert_true(f->intr_window);
    assert_int_equal(machine.vm.platform.pic.chip[0].isr, 1 << 4); /* not acknowledged yet */
    interrupts(v, true);
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x23);
}

static void test_extint_needs_lint0(void **state)
{
    (void)state;
    start_pic();
    interrupts(v, true);
    pulse(4); /* LINT0 is masked after reset */
    assert_no_event(run_path_enter(v));
    assert_false(f->intr_window);
    /* The PIC still asks when the guest lets it through. */
    lapic_mmio_write(&v->lapic, APIC_LVT_LINT0, 4, LVT_EXTINT);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x24);
}

static void test_extint_is_for_the_first_vcpu(void **state)
{
    (void)state;
    start_pic();
    lapic_mmio_write(&ap->lapic, APIC_SVR, 4, 0x1ff);
    lapic_mmio_write(&ap->lapic, APIC_LVT_LINT0, 4, LVT_EXTINT);
    interrupts(ap, true);
    pulse(4);
    on_cpu(1);
    vcpu_request(ap, VCPU_REQ_EVENT);
    assert_no_event(run_path_enter(ap));
}

/* INTR stays up while a request of higher priority than the one in service waits: no edge tells of it. */
static void test_extint_more_of_them(void **state)
{
    (void)state;
    start_pic();
    lapic_mmio_write(&v->lapic, APIC_LVT_LINT0, 4, LVT_EXTINT);
    interrupts(v, true);
    pulse(4);
    run_path_enter(v);
    pulse(1);
    pulse(0);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x20);
    pic_out(PIC_MASTER_PORT, 0x20); /* EOI of 0: 1 may come now */
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x21);
    pic_out(PIC_MASTER_PORT, 0x20);
    pic_out(PIC_MASTER_PORT, 0x20);
    assert_int_equal(machine.vm.platform.pic.chip[0].isr, 0);
}

/* Automatic EOI: the next request keeps INTR asserted through the acknowledge cycle. */
static void test_extint_with_automatic_eoi(void **state)
{
    (void)state;
    start_pic();
    static const uint8_t words[] = {0x11, 0x20, 0x04, 0x03};
    for (unsigned i = 0; i < 4; i++)
        pic_out(i ? PIC_MASTER_PORT + 1 : PIC_MASTER_PORT, words[i]);
    pic_out(PIC_MASTER_PORT + 1, 0);
    lapic_mmio_write(&v->lapic, APIC_LVT_LINT0, 4, LVT_EXTINT);
    interrupts(v, true);
    pulse(1);
    pulse(4);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x21);
    assert_true(f->intr_window); /* or the second would wait for the next request */
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x24);
    assert_false(f->intr_window);
}

static void test_extint_before_the_local_apic(void **state)
{
    (void)state;
    start_pic();
    lapic_mmio_write(&v->lapic, APIC_LVT_LINT0, 4, LVT_EXTINT);
    interrupts(v, true);
    pulse(4);
    run_path_post(v, 0x91);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x24);
    assert_true(f->intr_window);
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x91);
}

/* ---- NMI ---- */

static void test_nmi(void **state)
{
    (void)state;
    interrupts(v, true);
    run_path_post(v, 0x51);
    vcpu_request(v, VCPU_REQ_NMI);
    assert_event(run_path_enter(v), EVENT_NMI, VECTOR_NMI);
    assert_true(f->intr_window); /* the interrupt waits */
    /* In its handler NMIs are blocked: one is remembered, and asked for. */
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_NMI);
    interrupts(v, false);
    vcpu_request(v, VCPU_REQ_NMI);
    vcpu_request(v, VCPU_REQ_NMI);
    assert_no_event(run_path_enter(v));
    assert_true(f->nmi_window);
    virt_set(v, VIRT_INTR_SHADOW, 0);
    assert_true(run_path_insn(v, EXIT_NMI_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_NMI, VECTOR_NMI);
    assert_false(f->nmi_window);
    assert_int_equal(v->events.pending, 0);
}

/* Two that come together are both delivered, the second after the first one's IRET; a third is lost. */
static void test_two_nmis(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        vcpu_request_nmi(v);
    assert_event(run_path_enter(v), EVENT_NMI, VECTOR_NMI);
    assert_true(f->nmi_window);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_NMI);
    vcpu_request_nmi(v);
    vcpu_request_nmi(v);
    assert_no_event(run_path_enter(v));
    virt_set(v, VIRT_INTR_SHADOW, 0);
    assert_true(run_path_insn(v, EXIT_NMI_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_NMI, VECTOR_NMI);
    assert_false(f->nmi_window);
    assert_int_equal(v->events.pending, 0);
}

/* An exit during an IRET that had ended the blocking: it is undone, and so is that. */
static void test_nmi_blocking_is_restored(void **state)
{
    (void)state;
    struct exit exit = {
        .kind = EXIT_EXCEPTION,
        .nmi_unblocked = true,
        .u.exception = {.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_AC, .has_error = true}};
    assert_true(run_path_exit(v, &exit));
    assert_event(fake_vcpu_take_event(v), EVENT_EXCEPTION, VECTOR_AC);
    assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), EVENTS_SHADOW_NMI);
}

/* ---- events that an exit interrupted ---- */

static struct exit interrupted(enum event_type type, uint8_t vector)
{
    return (struct exit){
        .kind = EXIT_NOTIFY,
        .vectoring = {.valid = true, .type = (uint8_t)type, .vector = vector, .insn_len = 2}};
}

static void test_interrupted_delivery_is_repeated(void **state)
{
    (void)state;
    struct exit exit = interrupted(EVENT_SOFT_INTERRUPT, 0x80);
    assert_true(run_path_exit(v, &exit));
    struct event event = fake_vcpu_take_event(v);
    assert_event(event, EVENT_SOFT_INTERRUPT, 0x80);
    assert_int_equal(event.insn_len, 2);
    assert_int_equal(v->events.pending, 0);
    assert_int_equal(rip(), 0x1000);
}

static void test_interrupted_interrupt_is_not_lost_to_a_fault(void **state)
{
    (void)state;
    struct exit exit = interrupted(EVENT_EXTERNAL_INTERRUPT, 0x51);
    exit.kind = EXIT_EXCEPTION;
    exit.u.exception =
        (struct event){.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_AC, .has_error = true};
    interrupts(v, true);
    assert_true(run_path_exit(v, &exit));
    assert_event(fake_vcpu_take_event(v), EVENT_EXCEPTION, VECTOR_AC);
    assert_true(f->intr_window);
    assert_true(run_path_insn(v, EXIT_INTR_WINDOW, 0));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
    assert_int_equal(v->lapic.highest_isr, 0); /* it had been taken before */
}

/* A contributory exception while #DF is delivered: shutdown, and that ends the VM. */
static void test_triple_fault(void **state)
{
    (void)state;
    struct exit exit = interrupted(EVENT_EXCEPTION, VECTOR_DF);
    exit.vectoring.has_error = true;
    exit.kind = EXIT_EXCEPTION;
    exit.u.exception =
        (struct event){.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_GP, .has_error = true};
    assert_false(run_path_exit(v, &exit));
    assert_int_equal(v->stop, STOP_TRIPLE_FAULT);
    assert_int_equal(machine.vm.stop, STOP_TRIPLE_FAULT);
    assert_int_equal(f->injections, 0);
}

static void test_double_fault(void **state)
{
    (void)state;
    struct exit exit = interrupted(EVENT_EXCEPTION, VECTOR_GP);
    exit.vectoring.has_error = true;
    exit.kind = EXIT_EXCEPTION;
    exit.u.exception =
        (struct event){.valid = true, .type = EVENT_EXCEPTION, .vector = VECTOR_NP, .has_error = true};
    assert_true(run_path_exit(v, &exit));
    struct event event = fake_vcpu_take_event(v);
    assert_event(event, EVENT_EXCEPTION, VECTOR_DF);
    assert_true(event.has_error);
    assert_int_equal(event.error, 0);
}

/* ---- HLT ---- */

static void test_halt_and_wake(void **state)
{
    (void)state;
    interrupts(v, true);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_STI); /* STI; HLT */
    assert_true(run_path_insn(v, EXIT_HLT, 1));
    assert_no_event(fake_vcpu_take_event(v));
    assert_int_equal(rip(), 0x1001);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_HALTED);
    assert_int_equal(virt_get(v, VIRT_INTR_SHADOW), 0); /* VM entry refuses a halted processor in a shadow */
    /* Exits that bring nothing leave it halted. */
    struct exit timer = {.kind = EXIT_TIMER};
    assert_true(run_path_exit(v, &timer));
    vcpu_request(v, VCPU_REQ_EVENT);
    assert_no_event(run_path_enter(v));
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_HALTED);
    on_cpu(1); /* an IPI */
    run_path_post(v, 0x51);
    on_cpu(0);
    assert_int_equal(fake_host.kicks, 1);
    assert_event(run_path_enter(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_ACTIVE);
    assert_int_equal(v->events.activity, VIRT_ACTIVE);
}

static void test_halt_with_something_pending(void **state)
{
    (void)state;
    interrupts(v, true);
    virt_set(v, VIRT_INTR_SHADOW, EVENTS_SHADOW_STI);
    run_path_post(v, 0x51);
    assert_no_event(run_path_enter(v)); /* held back by STI */
    assert_true(run_path_insn(v, EXIT_HLT, 1));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x51);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_ACTIVE);
    assert_int_equal(rip(), 0x1001); /* it returns behind HLT */
}

/* CLI; HLT: only an NMI ends it. */
static void test_halt_with_interrupts_off(void **state)
{
    (void)state;
    run_path_post(v, 0x51);
    assert_true(run_path_insn(v, EXIT_HLT, 1));
    assert_no_event(fake_vcpu_take_event(v));
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_HALTED);
    vcpu_request(v, VCPU_REQ_NMI);
    assert_event(run_path_enter(v), EVENT_NMI, VECTOR_NMI);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_ACTIVE);
}

static void test_single_step_over_halt(void **state)
{
    (void)state;
    virt_set(v, VIRT_RFLAGS, IF_ON | RFLAGS_TF);
    assert_true(run_path_insn(v, EXIT_HLT, 1));
    assert_int_equal(virt_get(v, VIRT_PENDING_DEBUG), DR6_BS);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_ACTIVE);
}

static void test_timer_wakes_from_halt(void **state)
{
    (void)state;
    interrupts(v, true);
    machine.vm.platform.next_timer_tsc = UINT64_MAX;
    start_timer(v, 0, 5000);
    assert_true(run_path_insn(v, EXIT_HLT, 1));
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_HALTED);
    fake_host.tsc = v->deadline_tsc;
    struct exit timer = {.kind = EXIT_TIMER};
    assert_true(run_path_exit(v, &timer));
    assert_event(fake_vcpu_take_event(v), EVENT_EXTERNAL_INTERRUPT, 0x40);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_ACTIVE);
}

/* ---- INIT and SIPI ---- */

static void send(uint8_t mode, uint8_t vector)
{
    struct lapic_ipi ipi = {.dest = 1, .mode = mode, .vector = vector, .assert = true};
    struct cpu *self = fake_host.cpu;
    on_cpu(0);
    irq_send_ipi(v, &ipi);
    fake_host.cpu = self;
}

static unsigned sleeps;
static void wake_with_sipi(uint64_t until)
{
    (void)until;
    if (++sleeps == 3)
        send(LAPIC_SIPI, 0x9a);
}

static void sleep_till_then_sipi(uint64_t until)
{
    fake_host.tsc = until;
    wake_with_sipi(until);
}

static void wake_with_stop(uint64_t until)
{
    (void)until;
    vm_stop(&machine.vm, STOP_POWEROFF);
}

static void wake_with_init_and_sipi(uint64_t until)
{
    (void)until;
    send(LAPIC_INIT, 0);
    send(LAPIC_SIPI, 0x12);
}

static void test_init_waits_for_sipi_in_the_host(void **state)
{
    (void)state;
    sleeps = 0;
    send(LAPIC_INIT, 0);
    assert_int_equal(fake_host.kicks, 1);
    on_cpu(1);
    fake_host.on_idle = wake_with_sipi;
    assert_no_event(run_path_enter(ap));
    assert_int_equal(fake_host.idles, 3);
    assert_int_equal(fake_host.idle_until[0], UINT64_MAX);
    assert_int_equal(virt_get_seg(ap, SEG_CS).selector, 0x9a00);
    assert_int_equal(virt_get_seg(ap, SEG_CS).base, 0x9a000);
    assert_int_equal(virt_get(ap, VIRT_RIP), 0);
    assert_int_equal(virt_get(ap, VIRT_CR0) & (CR0_PE | CR0_PG), 0);
    assert_int_equal(virt_get(ap, VIRT_ACTIVITY), VIRT_ACTIVE);
    /* A second SIPI finds it running: ignored. */
    send(LAPIC_SIPI, 0x55);
    virt_set(ap, VIRT_RIP, 0x123);
    assert_no_event(run_path_enter(ap));
    assert_int_equal(virt_get(ap, VIRT_RIP), 0x123);
    assert_int_equal(ap->events.pending, 0);
}

static void test_init_and_sipi_at_once(void **state)
{
    (void)state;
    send(LAPIC_SIPI, 0x33); /* older than the INIT: void */
    send(LAPIC_INIT, 0);
    send(LAPIC_SIPI, 0x9a);
    on_cpu(1);
    assert_no_event(run_path_enter(ap));
    assert_int_equal(fake_host.idles, 0);
    assert_int_equal(virt_get_seg(ap, SEG_CS).base, 0x9a000);
}

static void test_init_voids_an_older_sipi(void **state)
{
    (void)state;
    send(LAPIC_SIPI, 0x33);
    send(LAPIC_INIT, 0);
    sleeps = 0;
    on_cpu(1);
    fake_host.on_idle = wake_with_sipi;
    run_path_enter(ap);
    assert_int_equal(fake_host.idles, 3); /* it waited for the next */
    assert_int_equal(virt_get_seg(ap, SEG_CS).base, 0x9a000);
}

static void test_init_while_waiting(void **state)
{
    (void)state;
    send(LAPIC_INIT, 0);
    on_cpu(1);
    fake_host.on_idle = wake_with_init_and_sipi;
    run_path_enter(ap);
    assert_int_equal(virt_get_seg(ap, SEG_CS).base, 0x12000);
}

static void test_init_drops_what_was_pending(void **state)
{
    (void)state;
    interrupts(ap, true);
    run_path_post(ap, 0x51);
    vcpu_request(ap, VCPU_REQ_NMI);
    ap->events.held = (struct event){.valid = true, .vector = 0x61};
    ap->events.pending |= EVENTS_HELD;
    send(LAPIC_INIT, 0);
    send(LAPIC_SIPI, 0x9a);
    on_cpu(1);
    assert_no_event(run_path_enter(ap));
    assert_int_equal(ap->events.pending, 0);
    assert_int_equal(fap->injections, 0);
    assert_false(fap->intr_window || fap->nmi_window);
}

static void test_stop_while_waiting_for_sipi(void **state)
{
    (void)state;
    send(LAPIC_INIT, 0);
    on_cpu(1);
    fake_host.on_idle = wake_with_stop;
    assert_false(vcpu_prepare_entry(ap));
    assert_int_equal(fake_host.idles, 1);
}

/* A CPU that looks at the console does so while its vCPU waits, and what the sleep took is not missing from
 * the time of the entry: the backend counts from it to the deadline. */
static void test_waiting_keeps_time(void **state)
{
    (void)state;
    send(LAPIC_INIT, 0);
    on_cpu(1);
    core.cpus[1].polls_console = true;
    core.cpus[1].poll_tsc = fake_host.tsc + 1000;
    vcpu_update_deadline(ap);
    uint64_t began = fake_host.tsc;
    sleeps = 0;
    fake_host.on_idle = sleep_till_then_sipi;
    assert_no_event(run_path_enter(ap));
    assert_int_equal(fake_host.idle_until[0], began + 1000);
    assert_int_equal(fake_host.idle_until[1], began + 1000 + clock_hz() / 1000);
    assert_int_equal(fake_host.tsc, began + 1000 + 2 * (clock_hz() / 1000));
    assert_int_equal(ap->entry_tsc, fake_host.tsc);
}

/* INIT for the boot processor is what resets a machine. */
static void test_init_of_the_first_vcpu_reboots(void **state)
{
    (void)state;
    vcpu_request(v, VCPU_REQ_INIT);
    assert_false(vcpu_prepare_entry(v));
    assert_int_equal(machine.vm.stop, STOP_REBOOT);
    assert_int_equal(v->stop, STOP_REBOOT);
}

/* ... but for a program that only wants out of protected mode: hv/pc/warm_reset.h. */
static void test_warm_reset(void **state)
{
    (void)state;
    uint16_t vector[2] = {0x1234, 0xabcd}, segment, offset;
    uint8_t *code = &machine.vm.platform.rtc.cmos[RTC_SHUTDOWN];
    assert_int_equal(gmem_write(&machine.vm.gmem, gpa(0x467), vector, sizeof(vector)), STATUS_OK);
    for (unsigned value = 0; value < 256; value++) {
        *code = (uint8_t)value;
        assert_int_equal(warm_reset_take(&machine.vm, &segment, &offset), value == 5 || value == 10);
    }
    *code = 10;
    virt_set(v, VIRT_CR0, 0x80000011);
    vcpu_request(v, VCPU_REQ_INIT);
    assert_no_event(run_path_enter(v));
    assert_int_equal(virt_get(v, VIRT_RIP), 0x1234);
    struct seg cs = virt_get_seg(v, SEG_CS);
    assert_int_equal(cs.selector, 0xabcd);
    assert_int_equal(cs.base, 0xabcd0);
    assert_int_equal(virt_get(v, VIRT_CR0), 0x10);
    assert_int_equal(*code, 0); /* once */
    assert_int_equal(v->stop, STOP_NONE);
}

/* A triple fault resets the processors, too: all of them. */
static void test_warm_reset_by_triple_fault(void **state)
{
    (void)state;
    uint16_t vector[2] = {0x7c00, 0};
    struct exit exit = {.kind = EXIT_TRIPLE_FAULT};
    assert_int_equal(gmem_write(&machine.vm.gmem, gpa(0x467), vector, sizeof(vector)), STATUS_OK);
    machine.vm.platform.rtc.cmos[RTC_SHUTDOWN] = 5;
    assert_true(run_path_exit(v, &exit));
    assert_int_equal(virt_get(v, VIRT_RIP), 0x7c00);
    assert_int_equal(ap->requests & VCPU_REQ_INIT, VCPU_REQ_INIT);
    assert_int_equal(machine.vm.state, VM_RUNNING);
    assert_false(run_path_exit(v, &exit)); /* the code is gone */
    assert_int_equal(machine.vm.stop, STOP_TRIPLE_FAULT);
}

/* ---- the short way to an interrupt ---- */

#define CASES    (64u * 36u)
#define CASE_TPR 0x80u

/* One combination of what decides about an interrupt. */
struct interrupt_case {
    bool on, posted, masked, intr_window, nmi_window;
    uint32_t pending;
    uint8_t activity;
    uint64_t shadow, debug;
};

static struct interrupt_case interrupt_case(unsigned n)
{
    static const uint8_t shadows[] = {0, EVENTS_SHADOW_STI, EVENTS_SHADOW_MOV_SS, EVENTS_SHADOW_NMI};
    static const uint16_t debugs[] = {0, DR6_BS, 1};
    static const uint8_t activities[] = {VIRT_ACTIVE, VIRT_HALTED, VIRT_SHUTDOWN};
    unsigned rest = n / 64;
    return (struct interrupt_case){.on = n & 1,
                                   .posted = n & 2,
                                   .masked = n & 4,
                                   .intr_window = n & 8,
                                   .nmi_window = n & 16,
                                   .pending = n & 32 ? EVENTS_NMI : 0,
                                   .shadow = shadows[rest % 4],
                                   .debug = debugs[rest / 4 % 3],
                                   .activity = activities[rest / 12]};
}

static void prepare_case(const struct interrupt_case *c)
{
    setup(NULL);
    if (c->posted)
        run_path_post(v, 0x51);
    v->lapic.tpr = c->masked ? CASE_TPR : 0;
    virt_set(v, VIRT_RFLAGS, c->on ? IF_ON : IF_OFF);
    virt_set(v, VIRT_INTR_SHADOW, c->shadow);
    virt_set(v, VIRT_PENDING_DEBUG, c->debug);
    virt_set(v, VIRT_ACTIVITY, c->activity);
    v->events.activity = c->activity;
    v->events.pending = c->pending;
    v->intr_window = f->intr_window = c->intr_window;
    v->nmi_window = f->nmi_window = c->nmi_window;
    v->requests = VCPU_REQ_EVENT;
}

/* What vcpu.c does without asking events_decide() is what events_decide() would have said. */
static void test_interrupts_as_events_decide(void **state)
{
    (void)state;
    for (unsigned n = 0; n < CASES; n++) {
        struct interrupt_case c = interrupt_case(n);
        prepare_case(&c);
        struct events_state seen = v->events;
        seen.shadow = (uint8_t)c.shadow;
        seen.interrupts_on = c.on;
        seen.pending_debug = c.debug & DR6_BS;
        seen.vector = 0x51;
        seen.pending |= c.posted && !c.masked ? EVENTS_VECTOR : 0;
        struct events_plan plan = events_decide(&seen);
        assert_true(vcpu_prepare_entry(v));
        assert_int_equal(f->inject.valid, plan.inject.valid);
        if (plan.inject.valid)
            assert_event(f->inject, (enum event_type)plan.inject.type, plan.inject.vector);
        bool taken = plan.source == EVENTS_FROM_APIC;
        assert_int_equal(v->injected, taken);
        assert_int_equal(v->lapic.highest_isr, taken ? 0x51 : 0);
        assert_int_equal(lapic_highest_irr(&v->lapic), c.posted && !taken ? 0x51 : -1);
        assert_int_equal(f->intr_window, plan.intr_window);
        assert_int_equal(v->intr_window, plan.intr_window);
        assert_int_equal(f->nmi_window, plan.nmi_window);
        assert_int_equal(v->events.activity, plan.activity);
        assert_int_equal(f->reg[VIRT_ACTIVITY], plan.activity);
        assert_int_equal(f->reg[VIRT_INTR_SHADOW], plan.shadow);
        assert_int_equal(v->events.pending, plan.pending & ~(uint32_t)EVENTS_VECTOR);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(test_advance),
        TEST(test_advance_writes_only_rip),
        TEST(test_advance_wraps_at_4_gib_outside_64_bit_mode),
        TEST(test_advance_in_the_upper_half),
        TEST(test_advance_ends_the_shadow),
        TEST(test_advance_single_steps),
        TEST(test_advance_clears_rf),
        TEST(test_retry_changes_nothing),
        TEST(test_inject),
        TEST(test_inject_sets_rf),
        TEST(test_inject_in_real_mode_has_no_error_code),
        TEST(test_stop),
        TEST(test_unexpected_exit_stops),
        TEST(test_exits_are_counted),
        TEST(test_nothing_due_costs_nothing),
        TEST(test_deadline_is_the_earliest),
        TEST(test_deadline_in_host_time),
        TEST(test_no_deadline_livelocks),
        TEST(test_timer_fires_when_it_is_due),
        TEST(test_timer_with_an_offset),
        TEST(test_entry_time_is_taken_last),
        TEST(test_periodic_timer),
        TEST(test_device_timers_belong_to_the_first_vcpu),
        TEST(test_console_is_polled),
        TEST(test_request_kicks_once),
        TEST(test_timer_request),
        TEST(test_flush_request),
        TEST(test_stop_request_wins),
        TEST(test_interrupt_is_injected),
        TEST(test_interrupts_off_open_a_window),
        TEST(test_shadow_holds_interrupts_back),
        TEST(test_window_closes_when_nothing_is_left),
        TEST(test_fault_comes_before_an_interrupt),
        TEST(test_trap_comes_before_an_interrupt),
        TEST(test_extint),
        TEST(test_extint_needs_lint0),
        TEST(test_extint_is_for_the_first_vcpu),
        TEST(test_extint_more_of_them),
        TEST(test_extint_with_automatic_eoi),
        TEST(test_extint_before_the_local_apic),
        TEST(test_nmi),
        TEST(test_two_nmis),
        TEST(test_nmi_blocking_is_restored),
        TEST(test_interrupted_delivery_is_repeated),
        TEST(test_interrupted_interrupt_is_not_lost_to_a_fault),
        TEST(test_triple_fault),
        TEST(test_double_fault),
        TEST(test_halt_and_wake),
        TEST(test_halt_with_something_pending),
        TEST(test_halt_with_interrupts_off),
        TEST(test_single_step_over_halt),
        TEST(test_timer_wakes_from_halt),
        TEST(test_init_waits_for_sipi_in_the_host),
        TEST(test_init_and_sipi_at_once),
        TEST(test_init_voids_an_older_sipi),
        TEST(test_init_while_waiting),
        TEST(test_init_drops_what_was_pending),
        TEST(test_stop_while_waiting_for_sipi),
        TEST(test_waiting_keeps_time),
        TEST(test_init_of_the_first_vcpu_reboots),
        TEST(test_warm_reset),
        TEST(test_warm_reset_by_triple_fault),
        TEST(test_interrupts_as_events_decide),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
