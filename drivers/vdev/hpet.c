/* IA-PC HPET specification 1.0a, section 2.3 "Memory Mapped Registers". */
#include "drivers/vdev/hpet.h"

#include "hv/lib/bits.h"

/* Offsets of registers; comparators begin at REG_TIMER, REG_TIMER_STEP apart. */
enum hpet_reg {
    REG_CAPABILITIES = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_TIMER = 0x100,
    REG_TIMER_STEP = 0x20,
    REG_TIMER_COMPARE = 0x08, /* within a comparator's registers; its configuration is at 0 */
};

/* REG_CAPABILITIES: revision 1, three comparators, 64 bits, legacy replacement, and the tick in femtoseconds.
 */
#define FEMTOSECONDS 1000000000000000ull
#define CAPABILITIES (FEMTOSECONDS / HPET_HZ << 32 | HPET_BLOCK_ID)

/* REG_CONFIG */
#define CONFIG_ENABLE (1u << 0)
#define CONFIG_LEGACY (1u << 1)

/* A comparator's configuration. */
#define TIMER_LEVEL        (1u << 1)
#define TIMER_ENABLE       (1u << 2)
#define TIMER_PERIODIC     (1u << 3)
#define TIMER_CAN_REPEAT   (1u << 4)
#define TIMER_CAN_64       (1u << 5)
#define TIMER_SET          (1u << 6)
#define TIMER_32           (1u << 8)
#define TIMER_ROUTE_SHIFT  9
#define TIMER_ROUTE        (0x1fu << TIMER_ROUTE_SHIFT)
#define TIMER_WRITABLE     (TIMER_LEVEL | TIMER_ENABLE | TIMER_PERIODIC | TIMER_SET | TIMER_32 | TIMER_ROUTE)
#define TIMER_CAPABILITIES (TIMER_CAN_REPEAT | TIMER_CAN_64)
#define TIMER_ROUTES       0x00f00000u /* inputs 20..23: no ISA device has them */
#define LEGACY_TIMERS      2u
#define LINE_PIT           0u
#define LINE_RTC           8u
#define HPET_TICK_NS       (VDEV_NS_PER_S / HPET_HZ)
/* Shorter periods skip beats: nobody can serve them, and the vCPU would do nothing else than take them. */
#define MIN_PERIOD_TICKS (HPET_HZ / 100000u)
#define NARROW(timer)    ((timer)->config & TIMER_32)

static struct hpet *hpet_of(struct vdev *dev)
{
    return container_of(dev, struct hpet, dev);
}

/* Ticks since `since`. */
static uint64_t elapsed_at(const struct hpet *h, uint64_t now_ns)
{
    return h->config & CONFIG_ENABLE ? (now_ns - h->since) / HPET_TICK_NS : 0;
}

static uint64_t count_at(const struct hpet *h, uint64_t now_ns)
{
    return h->count + elapsed_at(h, now_ns);
}

bool hpet_replaces(const struct hpet *hpet, unsigned line)
{
    return (hpet->config & CONFIG_LEGACY) && (line == LINE_PIT || line == LINE_RTC);
}

/* Where a comparator's interrupt goes; false: nowhere that is wired. */
static bool line_of(const struct hpet *h, unsigned n, unsigned *line)
{
    if ((h->config & CONFIG_LEGACY) && n < LEGACY_TIMERS) {
        *line = n == 0 ? LINE_PIT : LINE_RTC;
        return true;
    }
    *line = (h->timers[n].config & TIMER_ROUTE) >> TIMER_ROUTE_SHIFT;
    return TIMER_ROUTES >> *line & 1;
}

static bool is_level(const struct hpet *h, unsigned n)
{
    return h->timers[n].config & TIMER_LEVEL;
}

/* Level-triggered comparators hold their lines while their status bits are set. */
static void update_lines(struct hpet *h)
{
    uint32_t lines = 0;
    unsigned line;
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        if ((h->status >> n & 1) && (h->timers[n].config & TIMER_ENABLE) && line_of(h, n, &line))
            lines |= 1u << line;
    uint32_t changed = lines ^ h->lines;
    h->lines = lines;
    for (unsigned n = 0; changed >> n; n++)
        if (changed >> n & 1)
            vdev_set_irq(&h->dev, n, lines >> n & 1);
}

/* Ticks from `count` until the counter equals the comparator again. What has passed comes around with the
 * counter's width: for 64 bits in 5,800 years. */
static uint64_t ticks_ahead(const struct hpet_timer *t, uint64_t count)
{
    uint64_t ahead = t->compare - count;
    if (!NARROW(t))
        return ahead ? ahead : UINT64_MAX;
    return (uint32_t)ahead ? (uint32_t)ahead : 1ull << 32;
}

static void schedule(const struct hpet *h, struct hpet_timer *t, uint64_t elapsed)
{
    uint64_t ahead = ticks_ahead(t, h->count + elapsed);
    t->due = ahead < HPET_NEVER - elapsed ? elapsed + ahead : HPET_NEVER;
}

static void update_deadline(struct hpet *h)
{
    uint64_t first = HPET_NEVER, ns;
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        if (h->timers[n].due < first)
            first = h->timers[n].due;
    ns = VDEV_NEVER;
    if ((h->config & CONFIG_ENABLE) && first != HPET_NEVER && first < (VDEV_NEVER - h->since) / HPET_TICK_NS)
        ns = h->since + first * HPET_TICK_NS;
    vdev_set_timer(&h->dev, ns);
}

/* Something changed: nothing due before now is made up for. */
static void rearm(struct hpet *h)
{
    uint64_t elapsed = elapsed_at(h, vdev_now(&h->dev));
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        schedule(h, &h->timers[n], elapsed);
    update_lines(h);
    update_deadline(h);
}

static void fire(struct hpet *h, unsigned n)
{
    unsigned line;
    if (is_level(h, n)) {
        h->status |= 1u << n;
    } else if ((h->timers[n].config & TIMER_ENABLE) && line_of(h, n, &line) && !(h->lines >> line & 1)) {
        vdev_set_irq(&h->dev, line, true);
        vdev_set_irq(&h->dev, line, false);
    }
}

/* The next beat of a periodic comparator; beats that were missed are one interrupt. */
static void advance(struct hpet_timer *t, uint64_t elapsed)
{
    uint64_t late = elapsed - t->due + (t->period < MIN_PERIOD_TICKS ? MIN_PERIOD_TICKS : 0);
    t->compare += (late / t->period + 1) * t->period;
    if (NARROW(t))
        t->compare = (uint32_t)t->compare;
}

/* Fires what is due until `now_ns`. */
static void run_due(struct hpet *h, uint64_t now_ns)
{
    uint64_t elapsed = elapsed_at(h, now_ns);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_timer *t = &h->timers[n];
        if (!(h->config & CONFIG_ENABLE) || t->due > elapsed)
            continue;
        fire(h, n);
        if ((t->config & TIMER_PERIODIC) && t->period)
            advance(t, elapsed);
        schedule(h, t, elapsed);
    }
}

static void hpet_timer(struct vdev *dev, uint64_t now_ns)
{
    struct hpet *h = hpet_of(dev);
    run_due(h, now_ns);
    update_lines(h);
    update_deadline(h);
}

static uint64_t read_timer(const struct hpet *h, unsigned n, uint64_t reg)
{
    const struct hpet_timer *t = &h->timers[n];
    if (reg == 0)
        return (uint64_t)TIMER_ROUTES << 32 | TIMER_CAPABILITIES | t->config;
    return reg == REG_TIMER_COMPARE ? t->compare : 0;
}

/* The 64-bit register at an offset that is a multiple of 8. */
static uint64_t read_register(const struct hpet *h, uint64_t offset)
{
    switch (offset) {
    case REG_CAPABILITIES:
        return CAPABILITIES;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return count_at(h, vdev_now(&h->dev));
    default:
        if (offset >= REG_TIMER && offset < REG_TIMER + HPET_TIMERS * REG_TIMER_STEP)
            return read_timer(h, (unsigned)(offset - REG_TIMER) / REG_TIMER_STEP, offset % REG_TIMER_STEP);
        return 0;
    }
}

static uint64_t merged(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

static void write_config(struct hpet *h, uint64_t value, uint64_t mask)
{
    uint64_t now = vdev_now(&h->dev);
    h->count = count_at(h, now);
    h->since = now;
    bool was_legacy = h->config & CONFIG_LEGACY;
    h->config = (uint32_t)merged(h->config, value, mask) & (CONFIG_ENABLE | CONFIG_LEGACY);
    if (was_legacy || !(h->config & CONFIG_LEGACY))
        return;
    vdev_set_irq(&h->dev, LINE_PIT, false); /* as PIT and RTC have left them: the next edge must be seen */
    vdev_set_irq(&h->dev, LINE_RTC, false);
}

/* In periodic mode a write sets the period; with TIMER_SET before it, the next event as well (2.3.9.2.2). */
static void write_compare(struct hpet_timer *t, uint64_t value, uint64_t mask)
{
    if (NARROW(t))
        mask &= UINT32_MAX;
    if (t->config & TIMER_PERIODIC)
        t->period = merged(t->period, value, mask);
    if (!(t->config & TIMER_PERIODIC) || (t->config & TIMER_SET))
        t->compare = merged(t->compare, value, mask);
    t->config &= ~TIMER_SET;
}

static void write_timer(struct hpet_timer *t, uint64_t reg, uint64_t value, uint64_t mask)
{
    if (reg == REG_TIMER_COMPARE) {
        write_compare(t, value, mask);
    } else if (reg == 0) {
        t->config = (uint32_t)merged(t->config, value, mask & TIMER_WRITABLE);
        if (NARROW(t)) {
            t->compare = (uint32_t)t->compare;
            t->period = (uint32_t)t->period;
        }
    }
}

static void write_register(struct hpet *h, uint64_t offset, uint64_t value, uint64_t mask)
{
    run_due(h, vdev_now(&h->dev)); /* by the rules until now */
    if (offset == REG_CONFIG)
        write_config(h, value, mask);
    else if (offset == REG_STATUS)
        h->status &= ~(uint32_t)(value & mask);
    else if (offset == REG_COUNTER && !(h->config & CONFIG_ENABLE)) /* "writes only while it is halted" */
        h->count = merged(h->count, value, mask);
    else if (offset >= REG_TIMER && offset < REG_TIMER + HPET_TIMERS * REG_TIMER_STEP)
        write_timer(&h->timers[(offset - REG_TIMER) / REG_TIMER_STEP], offset % REG_TIMER_STEP, value, mask);
    else
        return;
    /* A status bit is of a level-triggered comparator: when it becomes edge-triggered, it is gone. */
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        if (!is_level(h, n))
            h->status &= ~(1u << n);
    rearm(h);
}

/* Aligned dwords and quadwords are what the specification allows (2.3.2); narrower reads are parts of them,
 * narrower writes are ignored. */
static void hpet_access(struct vdev *dev, struct io_req *req)
{
    struct hpet *h = hpet_of(dev);
    uint64_t offset = req->addr - HPET_BASE, in_register = offset & 7;
    unsigned shift = (unsigned)in_register * 8;
    if (!req->write)
        req->value = vdev_all_ones(req->size);
    if (offset >= HPET_SIZE || in_register + req->size > 8 || (offset & (req->size - 1u)))
        return;
    if (!req->write)
        req->value = read_register(h, offset & ~7ull) >> shift & vdev_all_ones(req->size);
    else if (req->size >= 4)
        write_register(h, offset & ~7ull, req->value << shift, vdev_all_ones(req->size) << shift);
}

static void hpet_reset(struct vdev *dev)
{
    struct hpet *h = hpet_of(dev);
    h->config = h->status = 0;
    h->count = 0;
    h->since = vdev_now(dev);
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        h->timers[n] = (struct hpet_timer){.compare = UINT64_MAX, .due = HPET_NEVER};
    for (unsigned line = 0; h->lines >> line; line++)
        if (h->lines >> line & 1)
            vdev_set_irq(dev, line, false);
    h->lines = 0;
    vdev_set_timer(dev, VDEV_NEVER);
}

const struct vdev_ops hpet_ops = {
    .name = "hpet",
    .init = hpet_reset,
    .reset = hpet_reset,
    .access = hpet_access,
    .timer = hpet_timer,
};
