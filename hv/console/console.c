#include "hv/console/console.h"
#include "hv/clock.h"
#include "hv/console/console_input.h"
#include "hv/console/console_ring.h"
#include "hv/console/prompt.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"
#include "hv/lib/lock.h"
#include "hv/lib/string.h"

#define OUTPUT_SIZE  32768u /* bytes of the core's own that wait; a power of two */
#define OUTPUT_SPARE 128u   /* kept free for the line that says how many were left out */
#define CHUNK        16u    /* bytes moved at a time: a port's FIFO */
#define FLUSH_TRIES  (1u << 28)
#define STUCK_TRIES  (1u << 22) /* looks at the port, seconds: a byte of the slowest line takes less */

#define HIGH_WATER       (CONSOLE_RING / 2) /* the rest is for one exit's output of each vCPU (REP OUTSB) */
#define THROTTLE_US      2000u
#define CORE_WAITS_POLLS 500u /* so long the core's lines keep their place behind a guest's */
#define INPUT_PER_POLL   64u  /* bytes: four times what the wire brings in a millisecond */
#define REFRESH_BUDGET   16u  /* characters drawn on the screen in a poll: a few microseconds */
#define SETTLE_POLLS     256u
#define CALM_POLLS       128u /* in which nothing moved: then the port may interrupt, and is looked at less */
#define MISSED_MAX       8u   /* times that input was there without an interrupt */
#define SHOW_BACKLOG     256u /* bytes that keep the wire busy until the next poll and beyond */

static struct spinlock lock; /* guards the next group */
static const struct console_port *port;
static const struct console_screen *screen;
static uint8_t output[OUTPUT_SIZE];
static uint32_t output_head, output_tail; /* free-running; head - tail bytes wait */
static bool output_fresh = true;          /* the last byte put in ended a line */
static uint32_t left_out;                 /* lines that did not fit, not yet reported */
static const char *inject = "";           /* goes out before anything else */
static bool core_spoke = true;            /* who sent the last byte */
static bool wire_fresh = true;            /* it ended a line */
/* While `ordered`, the core's lines wait until the ring in front was sent up to `place`, or for so many
 * polls. */
static bool ordered;
static uint32_t place, ordered_polls;
static struct console_recall recall; /* of the ring that is shown */
static bool closing; /* console_flush(): of the ring in front only what came before `last_place` */
static uint32_t last_place;
static struct lines shows[CONFIG_MAX_VMS]; /* console_show(): the first is being made */

static struct spinlock showing; /* guards the making: one CPU at a time calls shows[0].next */
static uint32_t show_count;     /* atomic; changed under `lock` */
static struct vm *front;        /* atomic; changed under `lock` */
static struct vm *shown;        /* front, or NULL at the prompt. As front */
static uint32_t line_count;     /* atomic. console_line()s ever */

static bool port_stuck; /* in a panic: the port takes no bytes. The CPU that panics */

static bool at_prompt; /* atomic; changed by the CPU that polls */

/* The CPU that polls. */
static uint32_t polls;
static enum {
    LINE_POLLED, /* the port does not interrupt */
    LINE_TRIED,  /* it has been asked to, and polled as well */
    LINE_BUSY,   /* it could: something moves, so it is polled */
    LINE_QUIET,  /* it interrupts when somebody types */
} line_state;
static uint32_t calm, missed;

void console_init(const struct console_port *the_port)
{
    port = the_port;
    at_prompt = port_stuck = false;
    polls = calm = missed = 0;
    line_state = LINE_POLLED;
    console_input_init();
    prompt_init();
}

void console_set_screen(const struct console_screen *the_screen)
{
    spin_lock(&lock);
    screen = the_screen;
    spin_unlock(&lock);
}

static struct vm *get_shown(void)
{
    return __atomic_load_n(&shown, __ATOMIC_RELAXED);
}

struct vm *console_front(void)
{
    return __atomic_load_n(&front, __ATOMIC_RELAXED);
}

bool console_at_prompt(void)
{
    return __atomic_load_n(&at_prompt, __ATOMIC_RELAXED);
}

/* ---- the core's queue; all under `lock` ---- */

size_t console_backlog(void)
{
    return __atomic_load_n(&output_head, __ATOMIC_RELAXED) - __atomic_load_n(&output_tail, __ATOMIC_RELAXED);
}

static void queue_byte(uint8_t byte)
{
    if (output_head - output_tail == OUTPUT_SIZE)
        return;
    output[output_head % OUTPUT_SIZE] = byte;
    __atomic_store_n(&output_head, output_head + 1, __ATOMIC_RELAXED);
    output_fresh = byte == '\n';
}

/* What is put into the empty queue belongs behind what the VM in front has printed so far. */
static void queue_begin(void)
{
    if (output_head != output_tail || !shown)
        return;
    ordered = true;
    ordered_polls = 0;
    place = __atomic_load_n(&shown->console.head, __ATOMIC_RELAXED);
}

static void queue_text(const char *text)
{
    queue_begin();
    for (; *text; text++) {
        if (*text == '\n')
            queue_byte('\r');
        queue_byte((uint8_t)*text);
    }
}

static bool queue_line(const char *line)
{
    if (OUTPUT_SIZE - (output_head - output_tail) < str_length(line) + OUTPUT_SPARE)
        return false;
    queue_begin();
    if (!output_fresh)
        queue_text("\n");
    queue_text(line);
    queue_text("\n");
    __atomic_fetch_add(&line_count, 1, __ATOMIC_RELAXED);
    return true;
}

static void report_left_out(void)
{
    char text[OUTPUT_SPARE];
    if (left_out == 0 || output_head - output_tail > OUTPUT_SIZE / 2)
        return;
    fmt_format(text, sizeof(text), "--- %u line%s not shown, the console is too slow: `log` has them ---",
               left_out, left_out == 1 ? "" : "s");
    if (queue_line(text))
        left_out = 0;
}

/* What a VM's ring has lost is said when it comes to the front, or when a flood is over. */
static void report_lost(struct vm *vm)
{
    char text[OUTPUT_SPARE];
    if (__atomic_load_n(&vm->console.lost, __ATOMIC_RELAXED) == 0 ||
        output_head - output_tail > OUTPUT_SIZE / 2)
        return;
    uint64_t lost = console_ring_take_lost(&vm->console);
    fmt_format(text, sizeof(text), "--- %s: %llu bytes of output lost ---", vm->name,
               (unsigned long long)lost);
    queue_line(text);
}

/* ---- to the wire; all under `lock` ---- */

static bool core_has_turn(void)
{
    if (output_head == output_tail)
        return false;
    if (ordered && shown && ordered_polls < CORE_WAITS_POLLS &&
        (int32_t)(console_ring_tail(&shown->console) - place) < 0)
        return false;
    ordered = false;
    return true;
}

static unsigned take_core(uint8_t *to, unsigned max)
{
    unsigned n = 0;
    while (n < max && output_tail != output_head) {
        to[n++] = output[output_tail % OUTPUT_SIZE];
        __atomic_store_n(&output_tail, output_tail + 1, __ATOMIC_RELAXED);
    }
    return n;
}

/* The next bytes for the wire, all of one speaker. */
static unsigned next_bytes(uint8_t *to, unsigned max)
{
    unsigned n = 0;
    bool turn = core_has_turn();
    if (turn && !core_spoke && !wire_fresh)
        inject = "\r\n"; /* a guest's line is cut: the core's begins at the margin */
    if (*inject) {
        while (n < max && *inject)
            to[n++] = (uint8_t)*inject++;
        core_spoke = true;
        return n;
    }
    if (turn) {
        n = take_core(to, max);
        core_spoke = true;
    } else if (shown) {
        const uint32_t *until = ordered ? &place : closing ? &last_place : NULL;
        n = console_ring_recall(&shown->console, &recall, to, max);
        if (n == 0)
            n = console_ring_take(&shown->console, to, max, until);
        core_spoke = core_spoke && n == 0;
    }
    return n;
}

/* Without the lock it is a glance. */
static bool anything_waits(void)
{
    const struct vm *vm = get_shown();
    return *inject || console_backlog() ||
           (vm && (recall.at != recall.end || console_ring_waiting(&vm->console)));
}

/* Moves what the port takes now. False: nothing. */
static bool drain(void)
{
    uint8_t bytes[CHUNK];
    bool moved = false;
    if (!anything_waits()) /* looking at the port costs a microsecond on real hardware */
        return false;
    unsigned room = port->tx_room();
    while (room) {
        unsigned n = next_bytes(bytes, room < CHUNK ? room : CHUNK);
        if (n == 0)
            break;
        for (unsigned i = 0; i < n; i++) {
            port->tx(bytes[i]);
            if (screen)
                screen->put(screen->ctx, bytes[i]);
        }
        wire_fresh = bytes[n - 1] == '\n';
        room -= n;
        moved = true;
    }
    return moved;
}

static void try_drain(void)
{
    if (!spin_trylock(&lock))
        return;
    drain();
    spin_unlock(&lock);
}

/* ---- who speaks ---- */

void console_vm_put(struct vm *vm, uint8_t byte)
{
    uint32_t waiting = console_ring_put(&vm->console, byte);
    if (get_shown() != vm)
        return;
    if (byte == '\n') /* otherwise the poll does it */
        try_drain();
    if (waiting <= HIGH_WATER)
        return;
    struct vcpu *vcpu = host_cpu()->vcpu;
    if (vcpu && vcpu->vm == vm)
        vcpu_request(vcpu, VCPU_REQ_CONSOLE);
}

void console_vm_begin(struct vm *vm)
{
    console_ring_forget(&vm->console);
}

void console_throttle(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    uint64_t end = host_tsc() + clock_hz() / 1000000u * THROTTLE_US;
    if (vcpu->deadline_tsc < end)
        end = vcpu->deadline_tsc;
    while (get_shown() == vm && console_ring_waiting(&vm->console) > HIGH_WATER && host_tsc() < end &&
           __atomic_load_n(&vcpu->requests, __ATOMIC_SEQ_CST) == 0) {
        try_drain();
        __builtin_ia32_pause();
    }
}

void console_write(const char *text)
{
    spin_lock(&lock);
    queue_text(text);
    drain();
    spin_unlock(&lock);
}

void console_line(const char *line)
{
    spin_lock(&lock);
    report_left_out();
    if (!queue_line(line))
        left_out++;
    drain();
    spin_unlock(&lock);
}

uint32_t console_lines(void)
{
    return __atomic_load_n(&line_count, __ATOMIC_RELAXED);
}

bool console_show(const struct lines *lines)
{
    spin_lock(&lock);
    bool fits = show_count < ARRAY_SIZE(shows);
    if (fits) {
        shows[show_count] = *lines;
        __atomic_store_n(&show_count, show_count + 1, __ATOMIC_RELEASE);
    }
    spin_unlock(&lock);
    return fits;
}

/* One line of what console_show() was given. False: there is nothing, or somebody else makes it. */
static bool step_show(void)
{
    char line[LINES_MAX] = "";
    if (__atomic_load_n(&show_count, __ATOMIC_ACQUIRE) == 0 || !spin_trylock(&showing))
        return false;
    if (console_backlog() <= SHOW_BACKLOG && __atomic_load_n(&show_count, __ATOMIC_ACQUIRE)) {
        if (!shows[0].next(&shows[0], line, sizeof(line))) {
            spin_lock(&lock);
            memmove(&shows[0], &shows[1], (show_count - 1) * sizeof(shows[0]));
            __atomic_store_n(&show_count, show_count - 1, __ATOMIC_RELEASE);
            spin_unlock(&lock);
        } else if (line[0]) {
            console_line(line);
        }
    }
    spin_unlock(&showing);
    return true;
}

/* ---- who is in front ---- */

uint32_t console_digit(const struct vm *vm)
{
    return vm->config->console;
}

static void set_front(struct vm *vm, bool prompt)
{
    __atomic_store_n(&front, vm, __ATOMIC_RELAXED);
    __atomic_store_n(&shown, prompt ? NULL : vm, __ATOMIC_RELAXED);
    ordered = false; /* what the core has to say comes before what the new one has kept */
}

void console_attach(struct vm *vm)
{
    char text[OUTPUT_SPARE];
    __atomic_store_n(&at_prompt, false, __ATOMIC_RELAXED);
    spin_lock(&lock);
    set_front(NULL, false); /* the banner comes first */
    if (vm) {
        fmt_format(text, sizeof(text), CONSOLE_ATTRIBUTES_OFF "--- %s (%u), %s: Ctrl-A ? shows the keys ---",
                   vm->name, console_digit(vm), vm_state_name(__atomic_load_n(&vm->state, __ATOMIC_RELAXED)));
        queue_line(text);
        report_lost(vm);
    }
    set_front(vm, false);
    if (vm)
        recall = console_ring_begin_recall(&vm->console);
    drain();
    spin_unlock(&lock);
}

void console_enter_prompt(void)
{
    __atomic_store_n(&at_prompt, true, __ATOMIC_RELAXED);
    spin_lock(&lock);
    set_front(front, true);
    spin_unlock(&lock);
    prompt_show();
}

void console_leave_prompt(void)
{
    console_attach(console_front());
}

/* ---- the port's input ---- */

static bool take_input(void)
{
    for (unsigned i = 0; i < INPUT_PER_POLL; i++) {
        int byte = port->rx();
        if (byte < 0)
            return i > 0;
        console_input_take((uint8_t)byte);
    }
    return true;
}

/* ---- the port's interrupt ---- */

static void set_line(unsigned state, enum console_listen what)
{
    line_state = state;
    calm = 0;
    port->listen(what);
}

void console_listen(void)
{
    if (port->listen)
        set_line(LINE_TRIED, CONSOLE_LISTEN_ROOM);
}

void console_interrupt(void)
{
    struct cpu *cpu = host_cpu();
    if (line_state == LINE_POLLED)
        return;
    if (line_state == LINE_TRIED)
        log_line(LOG_DEBUG, "core", "the serial port's interrupts arrive: it is polled %u times a second",
                 CONSOLE_QUIET_PER_SECOND);
    missed = 0;
    set_line(LINE_BUSY, CONSOLE_LISTEN_NONE);
    cpu->poll_tsc = 0;
    if (cpu->vcpu)
        cpu->vcpu->deadline_tsc = 0; /* so that the poll comes before the guest goes on */
}

/* Input that no interrupt announced: now and then it has just arrived; when it is the rule, interrupts get
 * lost, and pasted text would too. */
static void count_missed(void)
{
    if (++missed < MISSED_MAX)
        return;
    set_line(LINE_POLLED, CONSOLE_LISTEN_NONE);
    log_line(LOG_WARN, "core", "the serial port's interrupts do not arrive any more: it is polled");
}

/* While something moves, interrupts would only come on top of the polls. */
static void watch_line(bool typed, bool moves)
{
    if (line_state == LINE_QUIET && (typed || moves)) {
        set_line(LINE_BUSY, CONSOLE_LISTEN_NONE);
        if (typed)
            count_missed();
    } else if (line_state == LINE_BUSY) {
        calm = typed || moves ? 0 : calm + 1;
        if (calm == CALM_POLLS)
            set_line(LINE_QUIET, CONSOLE_LISTEN_INPUT);
    }
}

uint64_t console_pause(void)
{
    return clock_hz() / (line_state == LINE_QUIET ? CONSOLE_QUIET_PER_SECOND : CONSOLE_POLLS_PER_SECOND);
}

/* ---- the poll ---- */

static void poll_output(void)
{
    const struct vm *vm = get_shown();
    /* A glance without the lock: whatever appears now is seen by the next poll. */
    if (!left_out && !anything_waits() && !(vm && __atomic_load_n(&vm->console.lost, __ATOMIC_RELAXED)))
        return;
    /* The CPU that polls runs a guest too: another that keeps the lock busy does the work. */
    if (!spin_trylock(&lock))
        return;
    ordered_polls += ordered;
    if (left_out)
        report_left_out();
    if (shown && console_ring_waiting(&shown->console) == 0)
        report_lost(shown);
    drain();
    spin_unlock(&lock);
}

static void settle_logs(void)
{
    for (uint32_t i = 0; core.info && i < core.info->config.vm_count; i++)
        if (core.vms[i])
            log_settle(&core.vms[i]->log);
}

void console_poll(void)
{
    bool moves = left_out || anything_waits();
    poll_output();
    if (screen && screen->refresh(screen->ctx, REFRESH_BUDGET))
        moves = true;
    bool typed = take_input();
    watch_line(typed, moves || console_input_waits() || show_count);
    if (console_input_waits())
        console_input_deliver();
    if (!step_show() && at_prompt)
        prompt_poll();
    if (++polls % SETTLE_POLLS == 0)
        settle_logs();
}

/* ---- the end ---- */

/* All that had been said when the flush began is on the wire. */
static bool is_flushed(const struct vm *vm)
{
    bool guest = shown && shown == vm && console_ring_waiting(&vm->console) &&
                 (int32_t)(console_ring_tail(&vm->console) - last_place) < 0;
    return !guest && output_head == output_tail && !*inject && port->tx_idle();
}

void console_flush(void)
{
    spin_lock(&lock);
    struct vm *vm = shown;
    closing = true;
    last_place = vm ? __atomic_load_n(&vm->console.head, __ATOMIC_RELAXED) : 0;
    spin_unlock(&lock);
    for (unsigned tries = 0, still = 0; tries < FLUSH_TRIES && still < STUCK_TRIES; tries++) {
        step_show();
        spin_lock(&lock);
        bool moved = drain();
        still = moved ? 0 : still + 1;
        bool done = is_flushed(vm);
        spin_unlock(&lock);
        if (done && __atomic_load_n(&show_count, __ATOMIC_ACQUIRE) == 0)
            break;
    }
    closing = false;
}

/* A port that takes nothing any more must not keep a panic from the screen and the black box. */
static void panic_put(uint8_t byte)
{
    for (unsigned tries = 0; !port_stuck && !port->tx_room(); tries++) {
        __builtin_ia32_pause();
        port_stuck = tries == STUCK_TRIES;
    }
    if (!port_stuck)
        port->tx(byte);
}

void console_panic_begin(void)
{
    while (output_tail != output_head)
        panic_put(output[output_tail++ % OUTPUT_SIZE]);
    struct console_vm *c = shown ? &shown->console : NULL;
    for (unsigned i = 0; c && i < CONSOLE_RING && c->tail != c->head; i++)
        panic_put(c->ring[c->tail++ % CONSOLE_RING]);
}

void console_panic_write(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            panic_put('\r');
        panic_put((uint8_t)*text);
    }
}

void console_panic_flush(void)
{
    for (unsigned tries = 0; !port_stuck && tries < STUCK_TRIES && !port->tx_idle(); tries++)
        __builtin_ia32_pause();
}
