#include "drivers/vdev/pit.h"

/* Control word (8254 data sheet, "Programming the 8254"). */
#define CONTROL_BCD       0x01u
#define CONTROL_MODE(v)   (((v) >> 1) & 7u)
#define CONTROL_RW(v)     (((v) >> 4) & 3u)
#define CONTROL_KEPT      0x3fu
#define CONTROL_SELECT(v) ((v) >> 6)
#define SELECT_READ_BACK  3u
enum rw { RW_LATCH = 0, RW_LOW = 1, RW_HIGH = 2, RW_BOTH = 3 };

#define READ_BACK_NO_COUNT   0x20u
#define READ_BACK_NO_STATUS  0x10u
#define READ_BACK_COUNTER(n) (2u << (n))

#define STATUS_OUT  0x80u
#define STATUS_NULL 0x40u

#define PORT_B_GATE2   0x01u
#define PORT_B_KEPT    0x0fu
#define PORT_B_REFRESH 0x10u
#define PORT_B_OUT2    0x20u
/* Counter 1 of a PC refreshes memory every 18 ticks (15 us); the toggle is used as a crude clock. */
#define REFRESH_TICKS 18u

/* A guest can program periods down to 1.7 us. Interrupts closer together than this are merged: they could not
 * all be served, and the timer must not be all that a CPU does. */
#define MIN_INTERVAL_TICKS 12u /* 10 us */

static struct pit *pit_of(struct vdev *dev)
{
    return container_of(dev, struct pit, dev);
}

static uint64_t now_ticks(const struct pit *pit)
{
    return vdev_ns_to_ticks(vdev_now(&pit->dev), PIT_HZ);
}

static bool is_periodic(const struct pit_counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 start with a rising edge of the gate. */
static bool is_triggered(const struct pit_counter *c)
{
    return c->mode == 1 || c->mode == 5;
}

/* Length of a full period in modes 2 and 3. The data sheet forbids a count of 1; the shortest real period is
 * taken. */
static uint32_t period_of(uint32_t count)
{
    return count < 2 ? 2 : count;
}

/* Mode 3: OUT is high for the longer half. */
static uint32_t high_half(uint32_t count)
{
    return (period_of(count) + 1) / 2;
}

/* The count is loaded by the first clock pulse after it was written. */
static bool is_loaded(const struct pit_counter *c, uint64_t tick)
{
    return c->held || (int64_t)(tick - c->start) >= 0;
}

static uint64_t elapsed_at(const struct pit_counter *c, uint64_t tick)
{
    if (c->held)
        return c->elapsed;
    return is_loaded(c, tick) ? tick - c->start : 0;
}

/* Puts a count in force that was waiting for the end of the running period or half period. */
static void advance(struct pit_counter *c, uint64_t tick)
{
    if (!c->reload_waits || (int64_t)(tick - c->reload_at) < 0)
        return;
    c->reload_waits = c->null_count = false;
    c->count = c->reload;
    c->start = c->reload_at;
    /* In mode 3 the new count may come into force with the low half. */
    if (c->reload_low_half)
        c->start -= high_half(c->count);
}

static bool output_at(const struct pit_counter *c, uint64_t tick)
{
    uint64_t elapsed = elapsed_at(c, tick);
    switch (c->mode) {
    case 0:
        return c->armed && elapsed >= c->count;
    case 1:
        return !c->armed || !is_loaded(c, tick) || elapsed >= c->count;
    case 2:
        return !c->armed || !c->gate || elapsed % period_of(c->count) != period_of(c->count) - 1;
    case 3:
        return !c->armed || !c->gate || elapsed % period_of(c->count) < high_half(c->count);
    default: /* the strobe of modes 4 and 5 */
        return !c->armed || elapsed != c->count;
    }
}

/* What the counting element shows, in the counter's number system. */
static uint16_t value_at(const struct pit_counter *c, uint64_t tick)
{
    uint64_t elapsed = elapsed_at(c, tick);
    uint32_t modulus = c->control & CONTROL_BCD ? 10000 : 65536;
    uint32_t period = period_of(c->count), phase, value;
    switch (c->mode) {
    case 2:
        value = period - (uint32_t)(elapsed % period);
        break;
    case 3:
        /* Counts down by two, twice per period; an odd count is made even first. */
        phase = (uint32_t)(elapsed % period);
        if (phase >= high_half(c->count))
            phase -= high_half(c->count);
        value = (period & ~1u) - 2 * phase;
        break;
    default: /* runs on through zero */
        value = (uint32_t)((c->count % modulus + modulus - elapsed % modulus) % modulus);
        break;
    }
    value %= modulus;
    if (c->control & CONTROL_BCD)
        value = value / 1000 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10;
    return (uint16_t)value;
}

/* Freezes the counting element until the next load(). */
static void stop(struct pit_counter *c, uint64_t tick)
{
    c->elapsed = elapsed_at(c, tick);
    c->held = true;
    c->armed = c->reload_waits = false;
}

/* Starts counting with the count register's value. */
static void load(struct pit_counter *c, uint64_t tick)
{
    c->armed = true;
    c->reload_waits = c->null_count = false;
    c->count = c->reload;
    c->start = tick + 1;
    c->held = !c->gate && !is_triggered(c);
    c->elapsed = 0;
}

/* A complete count was written. */
static void write_count(struct pit_counter *c, uint16_t raw, uint64_t tick)
{
    c->reload = raw ? raw : 65536;
    if (c->control & CONTROL_BCD) {
        unsigned count = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
        c->reload = count ? count : 10000;
    }
    c->has_count = c->null_count = true;
    if (is_triggered(c))
        return; /* waits for the trigger */
    if (!is_periodic(c) || !c->armed || c->held) {
        load(c, tick);
        return;
    }
    advance(c, tick);
    uint32_t period = period_of(c->count);
    uint64_t elapsed = elapsed_at(c, tick);
    uint64_t phase = elapsed % period;
    c->reload_low_half = c->mode == 3 && phase < high_half(c->count);
    c->reload_at = c->start + elapsed - phase + (c->reload_low_half ? high_half(c->count) : period);
    c->reload_waits = true;
}

static void write_counter(struct pit_counter *c, uint8_t value, uint64_t tick)
{
    switch ((enum rw)CONTROL_RW(c->control)) {
    case RW_LOW:
        write_count(c, value, tick);
        break;
    case RW_HIGH:
        write_count(c, (uint16_t)(value << 8), tick);
        break;
    default:
        if (c->write_msb) {
            c->write_msb = false;
            write_count(c, (uint16_t)(value << 8 | c->write_low), tick);
            break;
        }
        c->write_msb = true;
        c->write_low = value;
        if (c->mode == 0)
            stop(c, tick); /* and OUT is low */
        break;
    }
}

static void latch_count(struct pit_counter *c, uint64_t tick)
{
    if (c->latch_bytes)
        return;
    advance(c, tick);
    c->latch = value_at(c, tick);
    c->latch_bytes = CONTROL_RW(c->control) == RW_BOTH ? 2 : 1;
}

static void latch_status(struct pit_counter *c, uint64_t tick)
{
    if (c->status_latched)
        return;
    advance(c, tick);
    bool null = c->null_count || !is_loaded(c, tick);
    c->status = (output_at(c, tick) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) | c->control;
    c->status_latched = true;
}

static uint8_t read_counter(struct pit_counter *c, uint64_t tick)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->latch;
    if (c->latch_bytes) {
        c->latch_bytes--;
    } else {
        advance(c, tick);
        value = value_at(c, tick);
    }
    bool high = CONTROL_RW(c->control) == RW_HIGH;
    if (CONTROL_RW(c->control) == RW_BOTH) {
        high = c->read_msb;
        c->read_msb = !c->read_msb;
    }
    return (uint8_t)(high ? value >> 8 : value);
}

static void write_control(struct pit_counter *c, uint8_t value, uint64_t tick)
{
    advance(c, tick);
    stop(c, tick);
    c->control = value & CONTROL_KEPT;
    /* Bit 2 of the mode does not count when bit 1 is set: 6 is 2, 7 is 3. */
    c->mode = CONTROL_MODE(value) > 5 ? CONTROL_MODE(value) - 4 : CONTROL_MODE(value);
    c->has_count = c->write_msb = c->read_msb = c->status_latched = false;
    c->null_count = true;
    c->latch_bytes = 0;
}

static void set_gate(struct pit_counter *c, bool gate, uint64_t tick)
{
    if (gate == c->gate)
        return;
    advance(c, tick);
    c->gate = gate;
    if (gate && (is_periodic(c) || is_triggered(c))) {
        if (c->has_count)
            load(c, tick);
    } else if (c->armed && !is_triggered(c)) {
        if (gate)
            c->start = tick - c->elapsed;
        else
            c->elapsed = elapsed_at(c, tick);
        c->held = !gate;
    }
}

/* Tick of OUT's next rising edge after `tick`, VDEV_NEVER for none. Counter 0, whose gate is always high. */
static uint64_t next_rise(const struct pit_counter *c, uint64_t tick)
{
    if (!c->armed || is_triggered(c))
        return VDEV_NEVER;
    if (is_periodic(c)) {
        if (c->reload_waits && c->reload_low_half)
            return c->reload_at + period_of(c->reload) - high_half(c->reload);
        uint32_t period = period_of(c->count);
        return c->start + (elapsed_at(c, tick) / period + 1) * period;
    }
    uint64_t rise = c->start + c->count + (c->mode == 4 ? 1 : 0);
    return rise > tick ? rise : VDEV_NEVER;
}

static void set_line(struct pit *pit, bool level)
{
    if (level != pit->line) {
        pit->line = level;
        vdev_set_irq(&pit->dev, PIT_IRQ, level);
    }
}

static void schedule(struct pit *pit, uint64_t tick)
{
    struct pit_counter *c = &pit->counter[0];
    advance(c, tick);
    pit->next_edge = next_rise(c, tick);
    if (pit->next_edge == VDEV_NEVER) {
        vdev_set_timer(&pit->dev, VDEV_NEVER);
        return;
    }
    uint64_t due = pit->next_edge;
    if (is_periodic(c) && due < pit->quiet_until)
        due = pit->quiet_until;
    vdev_set_timer(&pit->dev, vdev_ticks_to_ns(due, PIT_HZ));
}

/* Signals the edges of OUT0 up to `tick`; however many were missed, they are one interrupt. */
static void signal_edges(struct pit *pit, uint64_t tick)
{
    if (tick < pit->next_edge)
        return;
    set_line(pit, false);
    set_line(pit, true);
    pit->quiet_until = tick + MIN_INTERVAL_TICKS;
    schedule(pit, tick);
}

static void pit_timer(struct vdev *dev, uint64_t now_ns)
{
    struct pit *pit = pit_of(dev);
    uint64_t tick = vdev_ns_to_ticks(now_ns, PIT_HZ);
    if (tick < pit->next_edge)
        schedule(pit, tick);
    else
        signal_edges(pit, tick);
}

static void read_back(struct pit *pit, uint8_t value, uint64_t tick)
{
    for (unsigned i = 0; i < ARRAY_SIZE(pit->counter); i++) {
        if (!(value & READ_BACK_COUNTER(i)))
            continue;
        if (!(value & READ_BACK_NO_COUNT))
            latch_count(&pit->counter[i], tick);
        if (!(value & READ_BACK_NO_STATUS))
            latch_status(&pit->counter[i], tick);
    }
}

static void write_port(struct pit *pit, uint64_t port, uint8_t value)
{
    uint64_t tick = now_ticks(pit);
    unsigned select = port == PIT_CONTROL_PORT ? CONTROL_SELECT(value) : (unsigned)(port - PIT_PORT);
    if (select == SELECT_READ_BACK) {
        read_back(pit, value, tick);
        return;
    }
    if (port == PIT_CONTROL_PORT && CONTROL_RW(value) == RW_LATCH) {
        latch_count(&pit->counter[select], tick);
        return;
    }
    if (select == 0)
        signal_edges(pit, tick); /* of the programming that ends here */
    if (port == PIT_CONTROL_PORT)
        write_control(&pit->counter[select], value, tick);
    else
        write_counter(&pit->counter[select], value, tick);
    if (select == 0) {
        set_line(pit, output_at(&pit->counter[0], tick));
        schedule(pit, tick);
    }
}

static uint8_t read_port_b(struct pit *pit)
{
    uint64_t tick = now_ticks(pit);
    struct pit_counter *c = &pit->counter[2];
    advance(c, tick);
    return pit->port_b | (tick / REFRESH_TICKS & 1 ? PORT_B_REFRESH : 0) |
           (output_at(c, tick) ? PORT_B_OUT2 : 0);
}

static void write_port_b(struct pit *pit, uint8_t value)
{
    pit->port_b = value & PORT_B_KEPT;
    set_gate(&pit->counter[2], value & PORT_B_GATE2, now_ticks(pit));
}

static void pit_access(struct vdev *dev, struct io_req *req)
{
    struct pit *pit = pit_of(dev);
    uint64_t port = req->addr;
    if (req->size != 1) {
        vdev_split_bytes(dev, req);
    } else if (port == PIT_PORT_B) {
        if (req->write)
            write_port_b(pit, (uint8_t)req->value);
        else
            req->value = read_port_b(pit);
    } else if (port < PIT_PORT || port > PIT_CONTROL_PORT) {
        req->value = req->write ? req->value : 0xff;
    } else if (req->write) {
        write_port(pit, port, (uint8_t)req->value);
    } else if (port == PIT_CONTROL_PORT) {
        req->value = 0xff; /* the chip does not drive the bus */
    } else {
        req->value = read_counter(&pit->counter[port - PIT_PORT], now_ticks(pit));
    }
}

static void pit_reset(struct vdev *dev)
{
    struct pit *pit = pit_of(dev);
    for (unsigned i = 0; i < ARRAY_SIZE(pit->counter); i++) {
        /* Undefined until programmed; here: nothing counts and OUT is low. */
        pit->counter[i] = (struct pit_counter){
            .control = RW_BOTH << 4,
            .gate = i != 2,
            .held = true,
            .null_count = true,
            .count = 65536,
            .reload = 65536,
        };
    }
    pit->port_b = 0;
    pit->line = false;
    pit->next_edge = VDEV_NEVER;
    pit->quiet_until = 0;
    vdev_set_timer(dev, VDEV_NEVER);
    vdev_set_irq(dev, PIT_IRQ, false);
}

const struct vdev_ops pit_ops = {
    .name = "pit",
    .init = pit_reset,
    .reset = pit_reset,
    .access = pit_access,
    .timer = pit_timer,
};
