/* The lives of a VM: orders, starts, ends. What is to happen is decided in hv/life.c. */
#include "hv/assign/vm_assign.h"
#include "hv/console/console.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/record/dump.h"
#include "hv/sched.h"

/* Memory is zeroed in pieces of this size, by whichever of the VM's CPUs is free: about a millisecond each.
 */
#define ZERO_PIECE SIZE_2M

#define LL(v) ((unsigned long long)(v))

static struct life life_of(const struct vm *vm)
{
    return (struct life){.state = vm->state, .stop = vm->stop, .wish = vm->wish};
}

/* Others look at the state without the lock. */
static void set_life(struct vm *vm, const struct life *life)
{
    vm->stop = life->stop;
    __atomic_store_n(&vm->wish, life->wish, __ATOMIC_RELEASE);
    __atomic_store_n(&vm->state, life->state, __ATOMIC_RELEASE);
}

bool vm_is_starting(const struct vm *vm)
{
    return __atomic_load_n(&vm->state, __ATOMIC_ACQUIRE) == VM_STARTING;
}

/* ---- giving work to the VM's CPUs ---- */

static void post(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->cpu->assigned, vcpu, __ATOMIC_RELEASE);
    if (vcpu->cpu != host_cpu())
        host_kick(vcpu->cpu);
}

static bool all_zeroed(const struct vm *vm)
{
    return __atomic_load_n(&vm->zeroed, __ATOMIC_ACQUIRE) >= vm->layout.memory;
}

/* A VM that is started after it was stopped had its plug pulled: nothing of its last life is left. (One that
 * reboots finds its memory as it was, but for what is loaded, as after a reset of a real machine.) */
static void power_up(struct vm *vm)
{
    vm->platform.init_only = false; /* a reset of the processors that an order to stop overtook */
    if (all_zeroed(vm))             /* else no guest has had the memory yet, and what is zero stays so */
        vm->zeroed = 0;
}

/* The state has become VM_STARTING, and no CPU of the VM has anything to do. Zeroing is for all of them,
 * loading for one. */
static void begin(struct vm *vm)
{
    uint32_t workers = all_zeroed(vm) ? 1 : vm->vcpu_count;
    __atomic_store_n(&vm->preparing, workers, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < workers; i++)
        post(vm->vcpus[i]);
}

/* Under vm->life: a CPU that has just got its vCPU may already stop the VM, and ask the others. */
static void run(struct vm *vm)
{
    vm->vcpus_in_loop = vm->vcpu_count;
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        lapic_reset(&vm->vcpus[i]->lapic); /* all before the first runs: it may send to any */
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        __atomic_store_n(&vm->vcpus[i]->requests, 0, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        post(vm->vcpus[i]);
}

/* Under vm->life: a VM whose vCPUs all leave by themselves meanwhile must not run again before the last of
 * them was asked, or its next life would be told to stop. */
static void ask(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vcpu_request(vm->vcpus[i], VCPU_REQ_STOP);
}

static void ended(struct vm *vm, const struct life *life)
{
    struct lines dump = {.next = dump_next, .vm = vm};
    if (stop_is_crash(life->stop) && vm->config->on_crash == ON_STOP_DUMP && !console_show(&dump))
        log_vm(LOG_ERROR, vm, "its dump is left out: too many are being shown");
    /* Not limited in rate: only an order makes the next one possible. */
    if (life->stop == STOP_LEFT) /* scripts/run --exit-code reads these lines */
        log_line(LOG_ALWAYS, vm->name, "stopped: the guest left with code %u", vm->exit_code);
    else
        log_line(stop_is_crash(life->stop) ? LOG_ERROR : LOG_ALWAYS, vm->name, "stopped: %s",
                 stop_reason_name(life->stop));
    core_vm_stopped(life->wish == WISH_STOP);
}

/* ---- orders and reasons ---- */

bool vm_order(struct vm *vm, enum vm_order order, char *why, size_t why_size)
{
    const char *refusal = "";
    spin_lock(&vm->life);
    struct life life = life_of(vm);
    enum life_action action = life_order(&life, order, &refusal);
    if (action != LIFE_REFUSE) {
        set_life(vm, &life);
        vm->quick_crashes = 0; /* somebody looks after it */
    }
    if (action == LIFE_BEGIN) {
        power_up(vm);
        begin(vm);
    }
    if (action == LIFE_ASK)
        ask(vm);
    spin_unlock(&vm->life);
    if (action == LIFE_REFUSE)
        fmt_format(why, why_size, "%s %s", vm->name, refusal);
    return action != LIFE_REFUSE;
}

static void stop(struct vm *vm, enum stop_reason why, uint32_t code)
{
    spin_lock(&vm->life);
    struct life life = life_of(vm);
    enum life_action action = life_stop(&life, why);
    set_life(vm, &life);
    if (action == LIFE_ASK) {
        vm->exit_code = code;
        ask(vm);
    }
    spin_unlock(&vm->life);
}

void vm_stop(struct vm *vm, enum stop_reason why)
{
    stop(vm, why, 0);
}

void vm_leave(struct vm *vm, uint32_t code)
{
    stop(vm, STOP_LEFT, code);
}

/* ---- starting ---- */

/* The part of the VM's memory, as if its extents stood side by side, that is [from, to). */
static void zero_piece(const struct vm *vm, uint64_t from, uint64_t to)
{
    uint64_t base = 0;
    for (uint32_t i = 0; i < vm->extent_count; i++) {
        const struct pmem_extent *e = &vm->extents[i];
        uint64_t start = from > base ? from - base : 0;
        uint64_t end = to > base ? to - base : 0;
        if (end > e->size)
            end = e->size;
        if (start < end)
            host_zero_pages(hpa(e->base + start), (end - start) / PAGE_SIZE);
        base += e->size;
    }
}

static bool ordered_to_stop(const struct vm *vm)
{
    return __atomic_load_n(&vm->wish, __ATOMIC_ACQUIRE) == WISH_STOP;
}

/* Whatever an earlier owner left, this boot or before a reset. A piece that was taken is finished; after an
 * order to stop, the next start goes on with the others. */
static void zero_memory(struct vm *vm)
{
    while (!all_zeroed(vm) && !ordered_to_stop(vm)) {
        uint64_t from = __atomic_fetch_add(&vm->zeroed, ZERO_PIECE, __ATOMIC_ACQ_REL);
        zero_piece(vm, from, from + ZERO_PIECE);
        sched_breathe();
    }
}

static enum life_load load(struct vm *vm)
{
    char why[200];
    /* An order to stop may have ended the zeroing, and an order to start have taken it back since: nothing is
     * loaded before all memory is zero. */
    zero_memory(vm);
    if (!all_zeroed(vm) || ordered_to_stop(vm))
        return LOAD_BROKEN_OFF;
    if (vm_load(vm, why, sizeof(why)) != STATUS_OK) {
        log_vm(LOG_ERROR, vm, "cannot be started: %s", why);
        return LOAD_FAILED;
    }
    if (vm_assign_start(vm, why, sizeof(why)) != STATUS_OK) {
        log_vm(LOG_ERROR, vm, "cannot be started: %s", why);
        return LOAD_FAILED;
    }
    vm->start_tsc = host_tsc();
    vm->start_wall = core_wall_seconds();
    platform_reset(vm);
    console_vm_begin(vm);
    return LOAD_DONE;
}

void vm_prepare(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    zero_memory(vm);
    if (__atomic_sub_fetch(&vm->preparing, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    enum life_load how = load(vm);
    log_vm(LOG_DEBUG, vm, "own memory: %llu KiB free, guest memory: %llu MiB free",
           LL(pool_pages_free(&core.pool)) * (PAGE_SIZE / 1024), LL(pmem_free_bytes(&core.pmem)) >> 20);

    spin_lock(&vm->life);
    struct life life = life_of(vm);
    enum life_action action = life_loaded(&life, how);
    if (action != LIFE_RUN && how == LOAD_DONE && vm->assign) {
        spin_unlock(&vm->life); /* resets take long; nobody changes the state meanwhile, but the wish */
        vm_assign_stop(vm);
        spin_lock(&vm->life);
        life = life_of(vm);
        action = life_loaded(&life, LOAD_BROKEN_OFF);
    }
    set_life(vm, &life);
    bool first = !vm->started && action != LIFE_BEGIN;
    vm->started |= first;
    if (action == LIFE_BEGIN)
        begin(vm);
    if (action == LIFE_RUN)
        run(vm);
    spin_unlock(&vm->life);
    if (first)
        core_vm_started();
    if (action == LIFE_ENDED)
        ended(vm, &life);
}

/* ---- ends ---- */

void vm_vcpu_left(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    spin_lock(&vm->life);
    bool last = --vm->vcpus_in_loop == 0;
    spin_unlock(&vm->life);
    if (!last)
        return;
    vm_assign_stop(vm); /* nobody else decides about a VM that is stopping */
    spin_lock(&vm->life);
    struct life life = life_of(vm);
    uint32_t quick = vm->quick_crashes;
    bool restart = life_restarts(life.stop, vm->config->on_reboot, vm->config->on_crash, vm_now_ns(vm),
                                 &vm->quick_crashes);
    bool gives_up = !restart && vm->quick_crashes > quick;
    enum life_action action = life_left(&life, restart);
    set_life(vm, &life);
    uint32_t restarts = action == LIFE_BEGIN ? ++vm->restarts : 0;
    spin_unlock(&vm->life); /* while it is VM_STARTING, orders change the wish, and nothing else */

    if (gives_up)
        log_vm(LOG_ERROR, vm, "%u crashes in a row, each within %llu s of its start: not restarted any more",
               QUICK_CRASH_LIMIT, LL(QUICK_CRASH_NS / 1000000000u));
    if (action == LIFE_BEGIN) {
        log_vm(LOG_INFO, vm, "%s: restarting from pristine images (restart %u)", stop_reason_name(life.stop),
               restarts);
        begin(vm);
    } else if (action == LIFE_ENDED) {
        ended(vm, &life);
    }
}
