#include "hv/record/stats.h"
#include "hv/clock.h"
#include "hv/console/lines.h"
#include "hv/exits/exit_table.h"
#include "hv/lib/fmt.h"
#include "hv/vm.h"

#define LL(v)      ((unsigned long long)(v))
#define PER_MILLE  1000u
#define US_PER_SEC 1000000u
#define READ(x)    __atomic_load_n(&(x), __ATOMIC_RELAXED)

void stats_enter_loop(struct vcpu_times *times, uint64_t now)
{
    __atomic_store_n(&times->loop_since, now, __ATOMIC_RELAXED);
}

void stats_leave_loop(struct vcpu_times *times, uint64_t now)
{
    times->loop_done += now - times->loop_since;
    __atomic_store_n(&times->loop_since, 0, __ATOMIC_RELAXED);
}

/* Ticks since then; another CPU's TSC may be a little behind. */
static uint64_t since(uint64_t then, uint64_t now)
{
    return then && now > then ? now - then : 0;
}

/* The fields are read one after the other while they change: a difference may come out a little below 0. */
static uint64_t less(uint64_t from, uint64_t what)
{
    return from > what ? from - what : 0;
}

struct vcpu_split stats_split(const struct vcpu_times *times, uint64_t now)
{
    uint64_t total = READ(times->loop_done) + since(READ(times->loop_since), now);
    uint64_t waiting = since(READ(times->waiting_since), now);
    uint64_t host = READ(times->host), waited = READ(times->waited);
    return (struct vcpu_split){
        .guest = less(total, host + waiting),
        .host = less(host, waited),
        .waited = waited + waiting,
    };
}

static uint64_t microseconds(uint64_t ticks)
{
    return clock_ticks_to_ns(ticks) / 1000;
}

/* "12.345678 s (99.8 %)" */
static size_t format_share(char *buf, size_t size, uint64_t us, uint64_t all_us)
{
    uint64_t share = all_us ? us * PER_MILLE / all_us : 0; /* us: half a million years fit */
    return fmt_format(buf, size, "%llu.%06llu s (%llu.%llu %%)", LL(us / US_PER_SEC), LL(us % US_PER_SEC),
                      LL(share / 10), LL(share % 10));
}

static void vm_line(const struct vm *vm, char *line, size_t size)
{
    fmt_format(line, size, "%s: %u vCPUs, %u restarts", vm->name, vm->vcpu_count, READ(vm->restarts));
}

static uint64_t exits_of(const struct vcpu *vcpu)
{
    uint64_t sum = 0;
    for (unsigned kind = 0; kind < EXIT_KIND_COUNT; kind++)
        sum += READ(vcpu->exits[kind]);
    return sum;
}

static void vcpu_line(const struct vcpu *vcpu, char *line, size_t size)
{
    struct vcpu_split split = stats_split(&vcpu->times, host_tsc());
    uint64_t guest = microseconds(split.guest), host = microseconds(split.host);
    uint64_t waited = microseconds(split.waited), all = guest + host + waited;
    char text[3][48];
    format_share(text[0], sizeof(text[0]), guest, all);
    format_share(text[1], sizeof(text[1]), host, all);
    format_share(text[2], sizeof(text[2]), waited, all);
    fmt_format(line, size,
               "vCPU %u on CPU %u: in the guest %s, in the host %s, waiting to be started %s; %llu exits, "
               "%llu interrupts injected",
               vcpu->id, vcpu->cpu->index, text[0], text[1], text[2], LL(exits_of(vcpu)),
               LL(READ(vcpu->injected)));
}

static void kind_line(uint64_t count, uint64_t all, enum exit_kind kind, char *line, size_t size)
{
    uint64_t share = all ? count * PER_MILLE / all : 0;
    fmt_format(line, size, "  %-28s %12llu  %3llu.%llu %%", exit_kind_name(kind), LL(count), LL(share / 10),
               LL(share % 10));
}

/* Steps: 0 the VM, then for each vCPU one line of its own and one for each kind of exit it had; `at` is the
 * kind that comes next. */
bool stats_next(struct lines *self, char *line, size_t size)
{
    const struct vm *vm = self->vm;
    if (self->step == 0) {
        self->step = 1;
        self->vcpu = 0;
        vm_line(vm, line, size);
        return true;
    }
    while (self->vcpu < vm->vcpu_count) {
        const struct vcpu *vcpu = vm->vcpus[self->vcpu];
        if (self->step == 1) {
            self->step = 2;
            self->at = 0;
            vcpu_line(vcpu, line, size);
            return true;
        }
        while (self->at < EXIT_KIND_COUNT) {
            enum exit_kind kind = (enum exit_kind)self->at++;
            uint64_t count = READ(vcpu->exits[kind]);
            if (count) {
                kind_line(count, exits_of(vcpu), kind, line, size);
                return true;
            }
        }
        self->step = 1;
        self->vcpu++;
    }
    return false;
}
