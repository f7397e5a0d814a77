/* What happens between an exit and the next entry. */
#include "hv/vcpu.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "hv/assign/devices.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/exits/exit_table.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"
#include "hv/pc/warm_reset.h"
#include "hv/sched.h"
#include "hv/vm.h"

#define SHADOW_INTERRUPTS (EVENTS_SHADOW_STI | EVENTS_SHADOW_MOV_SS)
#define NEVER             UINT64_MAX
/* Pending debug exceptions that lead to a #DB (SDM table "format of pending-debug-exceptions"): enabled
 * breakpoint, BS, RTM. B0..B3 alone only say which condition was met. */
#define PENDING_DEBUG_DELIVERS (BIT(12) | DR6_BS | DR6_RTM)

/* Answers which requests were unread before. */
static uint32_t request(struct vcpu *vcpu, enum vcpu_request what)
{
    uint32_t old = __atomic_fetch_or(&vcpu->requests, what, __ATOMIC_SEQ_CST);
    /* While a request is unread, the CPU looks before it enters, or was kicked by who set it. */
    if (old == 0 && vcpu->cpu != host_cpu())
        host_kick(vcpu->cpu);
    return old;
}

void vcpu_request(struct vcpu *vcpu, enum vcpu_request what)
{
    if (vcpu->cpu == host_cpu())
        (void)__atomic_or_fetch(&vcpu->requests, what, __ATOMIC_SEQ_CST); /* one instruction */
    else
        request(vcpu, what);
}

void vcpu_request_nmi(struct vcpu *vcpu)
{
    if (request(vcpu, VCPU_REQ_NMI) & VCPU_REQ_NMI)
        request(vcpu, VCPU_REQ_NMI_AGAIN); /* when the first was taken meanwhile, this is the next one */
}

void vcpu_set_halted(struct vcpu *vcpu, bool halted)
{
    vcpu->events.activity = halted ? VIRT_HALTED : VIRT_ACTIVE;
    virt_set(vcpu, VIRT_ACTIVITY, vcpu->events.activity);
    vcpu_request(vcpu, VCPU_REQ_EVENT);
}

/* When the APIC's timer expires, as the host's TSC at or after `now`; 0: it is due. The guest's TSC is
 * compared as the processor and lapic_timer_expired() do it, unsigned: a deadline that is due here must be
 * due there, or the vCPU would leave and enter for ever. */
static uint64_t host_deadline(const struct vcpu *vcpu, uint64_t now)
{
    uint64_t deadline = lapic_deadline(&vcpu->lapic);
    if (deadline == LAPIC_NEVER)
        return NEVER;
    uint64_t guest_now = now + vcpu->tsc_offset;
    if (deadline <= guest_now)
        return 0;
    uint64_t ahead = deadline - guest_now;
    return ahead < NEVER - now ? now + ahead : NEVER;
}

void vcpu_update_deadline(struct vcpu *vcpu)
{
    uint64_t deadline = host_deadline(vcpu, host_tsc());
    if (vcpu->id == 0) {
        uint64_t devices = __atomic_load_n(&vcpu->vm->platform.next_timer_tsc, __ATOMIC_RELAXED);
        if (devices < deadline)
            deadline = devices;
    }
    if (vcpu->cpu->polls_console && vcpu->cpu->poll_tsc < deadline)
        deadline = vcpu->cpu->poll_tsc;
    vcpu->deadline_tsc = deadline;
}

/* Something's time has come. */
static void __attribute__((noinline)) run_timers(struct vcpu *vcpu, uint64_t now)
{
    if (host_deadline(vcpu, now) == 0) {
        lapic_timer_expired(&vcpu->lapic, now + vcpu->tsc_offset);
        vcpu_request(vcpu, VCPU_REQ_EVENT);
    }
    if (vcpu->id == 0 && __atomic_load_n(&vcpu->vm->platform.next_timer_tsc, __ATOMIC_RELAXED) <= now)
        platform_run_timers(vcpu->vm);
    if (vcpu->cpu->polls_console && vcpu->cpu->poll_tsc <= now) {
        sched_poll(vcpu->cpu);
    }
    vcpu_update_deadline(vcpu);
    vcpu->entry_tsc = host_tsc();
}

/* One NMI is latched while another is in service; when none is, that one can begin as well (SDM volume 3,
 * "Handling Multiple NMIs"). */
static void latch_nmi(struct vcpu *vcpu)
{
    struct events_state *s = &vcpu->events;
    if (!(s->pending & EVENTS_NMI))
        s->pending |= EVENTS_NMI;
    else if (!(virt_get(vcpu, VIRT_INTR_SHADOW) & EVENTS_SHADOW_NMI))
        s->pending |= EVENTS_NMI_AGAIN;
}

/* False: the VM is stopping. */
static bool __attribute__((noinline)) take_rare_requests(struct vcpu *vcpu, uint32_t requests)
{
    struct events_state *s = &vcpu->events;
    if (requests & VCPU_REQ_SNAPSHOT)
        dump_take_snapshot(vcpu);
    if (requests & VCPU_REQ_STOP)
        return false;
    if (requests & VCPU_REQ_FLUSH) {
        virt_flush_nested(vcpu);
        vcpu->fetched.levels = 0; /* it believes that a page table's entries decide where code is */
    }
    if (requests & VCPU_REQ_NMI)
        latch_nmi(vcpu);
    if (requests & VCPU_REQ_NMI_AGAIN)
        latch_nmi(vcpu);
    if (requests & VCPU_REQ_INIT)
        s->pending = (s->pending & ~(uint32_t)EVENTS_SIPI) | EVENTS_INIT;
    if (requests & VCPU_REQ_SIPI) {
        s->pending |= EVENTS_SIPI;
        s->sipi_vector = vcpu->sipi_vector;
    }
    if (requests & VCPU_REQ_CONSOLE)
        console_throttle(vcpu);
    return true;
}

/* Takes what other CPUs asked for into the events' state. False: the VM is stopping. */
static bool take_requests(struct vcpu *vcpu)
{
    uint32_t requests = __atomic_exchange_n(&vcpu->requests, 0, __ATOMIC_SEQ_CST);
    if (__builtin_expect(requests & ~(uint32_t)(VCPU_REQ_EVENT | VCPU_REQ_TIMER), 0) &&
        !take_rare_requests(vcpu, requests))
        return false;
    if (requests & VCPU_REQ_TIMER)
        vcpu_update_deadline(vcpu);
    return true;
}

/* What the hardware and the interrupt controllers say now. */
static void refresh(struct vcpu *vcpu)
{
    struct events_state *s = &vcpu->events;
    s->shadow = (uint8_t)virt_get(vcpu, VIRT_INTR_SHADOW);
    s->interrupts_on = virt_get(vcpu, VIRT_RFLAGS) & RFLAGS_IF;
    s->real_mode = !(virt_get(vcpu, VIRT_CR0) & CR0_PE);
    s->pending_debug = virt_get(vcpu, VIRT_PENDING_DEBUG) & PENDING_DEBUG_DELIVERS;
    s->pending &= ~(uint32_t)(EVENTS_VECTOR | EVENTS_EXTINT);
    int vector = lapic_pending(&vcpu->lapic);
    if (vector >= 0) {
        s->vector = (uint8_t)vector;
        s->pending |= EVENTS_VECTOR;
    }
    if (vcpu->id == 0 && pic_output(&vcpu->vm->platform.pic) && lapic_accepts_extint(&vcpu->lapic))
        s->pending |= EVENTS_EXTINT;
}

static void acknowledge(struct vcpu *vcpu, struct events_plan *plan)
{
    if (plan->source == EVENTS_FROM_APIC) {
        lapic_take(&vcpu->lapic, plan->inject.vector);
        vcpu->injected++;
    } else if (plan->source == EVENTS_FROM_EXTINT) {
        vm_lock_devices(vcpu->vm);
        plan->inject.vector = (uint8_t)pic_acknowledge(&vcpu->vm->platform.pic);
        /* INTR stays up while more waits: no edge will tell, so ask for the next window. */
        if (pic_output(&vcpu->vm->platform.pic))
            plan->intr_window = true;
        spin_unlock(&vcpu->vm->devices);
        vcpu->injected++;
    }
}

/* Carries out a plan that ends in an entry. */
static void carry_out(struct vcpu *vcpu, struct events_plan *plan)
{
    struct events_state *s = &vcpu->events;
    acknowledge(vcpu, plan);
    if (plan->activity != s->activity)
        virt_set(vcpu, VIRT_ACTIVITY, plan->activity);
    if (plan->shadow != s->shadow)
        virt_set(vcpu, VIRT_INTR_SHADOW, plan->shadow);
    if (plan->inject.valid)
        virt_inject(vcpu, &plan->inject);
    if (plan->intr_window != vcpu->intr_window) {
        virt_set_intr_window(vcpu, plan->intr_window);
        vcpu->intr_window = plan->intr_window;
    }
    if (plan->nmi_window != vcpu->nmi_window) {
        virt_set_nmi_window(vcpu, plan->nmi_window);
        vcpu->nmi_window = plan->nmi_window;
    }
    events_commit(s, plan);
    /* Interrupts that must wait are looked up again when their window opens or the controllers change. */
    s->pending &= ~(uint32_t)(EVENTS_VECTOR | EVENTS_EXTINT);
}

/* A vCPU that waits for its start-up message sleeps in the host: the guest has nothing to execute. */
static void wait_for_sipi(struct vcpu *vcpu)
{
    struct vcpu_times *times = &vcpu->times;
    __atomic_store_n(&times->waiting_since, host_tsc(), __ATOMIC_RELAXED);
    while (__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) == 0) {
        host_idle(vcpu->deadline_tsc);
        uint64_t now = host_tsc();
        if (now >= vcpu->deadline_tsc)
            run_timers(vcpu, now);
    }
    times->waited += host_tsc() - times->waiting_since;
    __atomic_store_n(&times->waiting_since, 0, __ATOMIC_RELAXED);
}

/* INIT. The boot processor goes to the reset vector, where firmware would look whether this is a warm reset,
 * and start the machine anew when it is not; a VM's own firmware looks itself. False: the VM is stopping. */
static bool take_init(struct vcpu *vcpu)
{
    uint16_t segment = 0, offset = 0;
    if (vcpu->id == 0 && !warm_reset_take(vcpu->vm, &segment, &offset)) {
        vcpu->stop = STOP_REBOOT;
        vcpu->vm->platform.init_only = true;
        vm_stop(vcpu->vm, STOP_REBOOT);
        return false;
    }
    vcpu_reset(vcpu, true);
    if (vcpu->id == 0 && !vm_has_firmware(vcpu->vm))
        vcpu_start_real_mode(vcpu, segment, offset);
    return true;
}

/* What events_decide() answers when nothing waits but the local APIC's interrupt, or nothing at all, and
 * nothing holds it up. False: it is not that simple, and nothing has been done. */
static bool inject_interrupt(struct vcpu *vcpu)
{
    struct events_state *s = &vcpu->events;
    if (s->pending || s->activity > VIRT_HALTED || vcpu->nmi_window ||
        (vcpu->id == 0 && pic_output(&vcpu->vm->platform.pic)))
        return false;
    int vector = lapic_pending(&vcpu->lapic);
    if ((vector >= 0 || s->activity == VIRT_HALTED) &&
        ((virt_get(vcpu, VIRT_INTR_SHADOW) & SHADOW_INTERRUPTS) ||
         (virt_get(vcpu, VIRT_PENDING_DEBUG) & PENDING_DEBUG_DELIVERS)))
        return false;
    if (vector >= 0) {
        if (!(virt_get(vcpu, VIRT_RFLAGS) & RFLAGS_IF))
            return false;
        lapic_take(&vcpu->lapic, (uint8_t)vector);
        vcpu->injected++;
        virt_inject(vcpu, &(struct event){
                              .valid = true, .type = EVENT_EXTERNAL_INTERRUPT, .vector = (uint8_t)vector});
        if (s->activity != VIRT_ACTIVE)
            virt_set(vcpu, VIRT_ACTIVITY, VIRT_ACTIVE);
        s->activity = VIRT_ACTIVE;
    }
    if (vcpu->intr_window)
        virt_set_intr_window(vcpu, false);
    vcpu->intr_window = false;
    return true;
}

/* Carries out what events_decide() says. False: the VM is stopping. */
static bool __attribute__((noinline)) decide(struct vcpu *vcpu)
{
    do {
        refresh(vcpu);
        struct events_plan plan = events_decide(&vcpu->events);
        switch (plan.action) {
        case EVENTS_RESET:
            events_commit(&vcpu->events, &plan);
            if (!take_init(vcpu))
                return false;
            continue;
        case EVENTS_START:
            events_commit(&vcpu->events, &plan);
            vcpu_start_sipi(vcpu, vcpu->events.sipi_vector);
            continue;
        case EVENTS_TRIPLE_FAULT:
            if (warm_reset(vcpu->vm))
                continue;
            vcpu->stop = STOP_TRIPLE_FAULT;
            vm_stop(vcpu->vm, STOP_TRIPLE_FAULT);
            return false;
        case EVENTS_WAIT:
            if (plan.activity != VIRT_WAIT_SIPI)
                break; /* HLT: the hardware waits, with all its exits */
            events_commit(&vcpu->events, &plan);
            wait_for_sipi(vcpu);
            continue;
        default:
            break;
        }
        carry_out(vcpu, &plan);
        return true;
    } while (take_requests(vcpu));
    return false;
}

static bool __attribute__((noinline)) prepare_slow(struct vcpu *vcpu)
{
    if (vcpu->entry_tsc >= vcpu->deadline_tsc)
        run_timers(vcpu, vcpu->entry_tsc);
    if ((__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) | vcpu->events.pending) == 0)
        return true;
    if (!take_requests(vcpu) || (!inject_interrupt(vcpu) && !decide(vcpu)))
        return false;
    vcpu->entry_tsc = host_tsc(); /* this may have taken a while */
    return true;
}

static inline __attribute__((always_inline)) bool prepare_entry(struct vcpu *vcpu)
{
    bool quiet = (__atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) | vcpu->events.pending) == 0;
    uint64_t now = host_tsc();
    vcpu->entry_tsc = now;
    if (__builtin_expect(quiet && now < vcpu->deadline_tsc, 1))
        return true;
    return prepare_slow(vcpu);
}

bool vcpu_prepare_entry(struct vcpu *vcpu)
{
    return prepare_entry(vcpu);
}

/* Outside 64-bit mode EIP wraps at 4 GiB. */
static uint64_t __attribute__((noinline)) wrap_rip(struct vcpu *vcpu, uint64_t rip)
{
    bool in_64bit =
        (virt_get(vcpu, VIRT_EFER) & EFER_LMA) && (virt_get_seg_access(vcpu, SEG_CS) & SEG_ACCESS_L);
    return in_64bit ? rip : (uint32_t)rip;
}

static void __attribute__((noinline)) finish_step(struct vcpu *vcpu, uint64_t rflags)
{
    virt_set(vcpu, VIRT_RFLAGS, rflags & ~RFLAGS_RF);
    if (rflags & RFLAGS_TF)
        virt_set(vcpu, VIRT_PENDING_DEBUG, virt_get(vcpu, VIRT_PENDING_DEBUG) | DR6_BS);
}

/* The instruction is done: past it, out of its shadow, with its single-step trap (SDM volume 3, 26.3.3: these
 * are the hypervisor's duty for instructions it completes). */
static inline __attribute__((always_inline)) void advance(struct vcpu *vcpu, unsigned length)
{
    uint64_t rip = vcpu->rip + length;
    uint32_t eip;
    if (__builtin_expect(__builtin_add_overflow((uint32_t)vcpu->rip, length, &eip), 0))
        rip = wrap_rip(vcpu, rip);
    virt_set(vcpu, VIRT_RIP, rip);
    uint64_t shadow = virt_get(vcpu, VIRT_INTR_SHADOW);
    if (__builtin_expect(shadow & SHADOW_INTERRUPTS, 0))
        virt_set(vcpu, VIRT_INTR_SHADOW, shadow & ~(uint64_t)SHADOW_INTERRUPTS);
    uint64_t rflags = virt_get(vcpu, VIRT_RFLAGS);
    if (__builtin_expect(rflags & (RFLAGS_TF | RFLAGS_RF), 0))
        finish_step(vcpu, rflags);
}

/* INJECT: the event waits for the next entry, where it meets the others. */
static void __attribute__((noinline))
queue_fault(struct vcpu *vcpu, const struct exit *exit, struct exit_result result)
{
    vcpu->events.fault = (struct event){
        .valid = true,
        .type = result.event_type,
        .vector = result.event_vector,
        .has_error = result.event_has_error,
        .error = result.event_error,
        .insn_len = result.length ? result.length : exit->insn_len,
    };
    vcpu->events.pending |= EVENTS_FAULT;
    /* The saved RFLAGS of a fault have RF set (SDM volume 3, "Instruction-Breakpoint Exception Condition").
     */
    if (result.event_type == EVENT_EXCEPTION && result.event_vector != VECTOR_DB)
        virt_set(vcpu, VIRT_RFLAGS, virt_get(vcpu, VIRT_RFLAGS) | RFLAGS_RF);
}

static void __attribute__((noinline)) stop(struct vcpu *vcpu, const struct exit *exit, enum stop_reason why)
{
    vcpu->stop = why;
    vcpu->last_exit = *exit;
    vm_stop(vcpu->vm, why);
}

bool vcpu_apply_result(struct vcpu *vcpu, const struct exit *exit, struct exit_result result)
{
    switch (result.action) {
    case ACTION_ADVANCE:
        advance(vcpu, result.length ? result.length : exit->insn_len);
        return true;
    case ACTION_RETRY:
        return true;
    case ACTION_INJECT:
        queue_fault(vcpu, exit, result);
        return true;
    default:
        stop(vcpu, exit, (enum stop_reason)result.stop);
        return false;
    }
}

/* What the exit says beside its kind: an event whose delivery it interrupted, NMI blocking to restore. */
static void __attribute__((noinline)) keep_interrupted_event(struct vcpu *vcpu, const struct exit *exit)
{
    if (exit->vectoring.valid) {
        vcpu->events.vectoring = exit->vectoring;
        vcpu->events.pending |= EVENTS_VECTORING;
    }
    if (exit->nmi_unblocked)
        vcpu->events.pending |= EVENTS_NMI_REBLOCK;
}

bool vcpu_handle_exit(struct vcpu *vcpu, const struct exit *exit, struct recorder_entry *entry)
{
    vcpu->exits[exit->kind]++;
    if (__builtin_expect(exit->vectoring.valid | exit->nmi_unblocked, 0))
        keep_interrupted_event(vcpu, exit);
    entry->result = exit_dispatch(vcpu, exit);
    if (__builtin_expect(entry->result.action == ACTION_ADVANCE, 1))
        advance(vcpu, entry->result.length ? entry->result.length : exit->insn_len);
    else if (!vcpu_apply_result(vcpu, exit, entry->result))
        return false;
    return prepare_entry(vcpu);
}
