#include <string.h>
#include "tests/host/fake_vdev_env.h"

/* More timer calls than this in one step of time are a storm. */
#define STORM 20000000u

static void set_irq(void *ctx, unsigned line, bool level)
{
    struct fake_vdev_env *f = ctx;
    FAKE_REQUIRE(line < FAKE_LINES);
    if (level && !f->level[line])
        f->rises[line]++;
    if (level != f->level[line] && f->event_count < FAKE_EVENTS)
        f->events[f->event_count++] = (struct fake_event){f->now_ns, (uint8_t)line, level};
    f->level[line] = level;
}

static uint64_t now_ns(void *ctx)
{
    return ((struct fake_vdev_env *)ctx)->now_ns;
}

static void set_timer(void *ctx, struct vdev *dev, uint64_t deadline_ns)
{
    struct fake_vdev_env *f = ctx;
    f->set_timer_calls++;
    FAKE_REQUIRE(deadline_ns == VDEV_NEVER || dev->ops->timer);
    dev->deadline_ns = deadline_ns;
}

static enum status gmem_read(void *ctx, gpa_t addr, void *buf, size_t size)
{
    struct fake_vdev_env *f = ctx;
    if (addr.v > FAKE_MEMORY || size > FAKE_MEMORY - addr.v)
        return ERR_RANGE;
    memcpy(buf, f->memory + addr.v, size);
    return STATUS_OK;
}

static enum status gmem_write(void *ctx, gpa_t addr, const void *buf, size_t size)
{
    struct fake_vdev_env *f = ctx;
    if (addr.v > FAKE_MEMORY || size > FAKE_MEMORY - addr.v)
        return ERR_RANGE;
    memcpy(f->memory + addr.v, buf, size);
    return STATUS_OK;
}

static void console_put(void *ctx, uint8_t byte)
{
    struct fake_vdev_env *f = ctx;
    if (f->console_size < FAKE_CONSOLE)
        f->console[f->console_size] = byte;
    f->console_size++;
}

static void power(void *ctx, enum vdev_power what)
{
    struct fake_vdev_env *f = ctx;
    if (what == VDEV_POWEROFF)
        f->poweroffs++;
    else
        f->resets++;
    if (what == VDEV_INIT)
        f->inits++;
}

static int64_t wall_seconds(void *ctx)
{
    const struct fake_vdev_env *f = ctx;
    return f->wall_at_0 + (int64_t)(f->now_ns / VDEV_NS_PER_S);
}

void fake_vdev_env_init(struct fake_vdev_env *f)
{
    memset(f, 0, sizeof(*f));
    f->env = (struct vdev_env){
        .ctx = f,
        .set_irq = set_irq,
        .now_ns = now_ns,
        .set_timer = set_timer,
        .gmem_read = gmem_read,
        .gmem_write = gmem_write,
        .console_put = console_put,
        .power = power,
        .wall_seconds = wall_seconds,
    };
}

void fake_attach(struct fake_vdev_env *f, struct vdev *dev, const struct vdev_ops *ops)
{
    FAKE_REQUIRE(f->device_count < FAKE_DEVICES);
    f->devices[f->device_count++] = dev;
    dev->ops = ops;
    dev->env = &f->env;
    dev->deadline_ns = VDEV_NEVER;
    ops->init(dev);
}

static struct vdev *earliest(struct fake_vdev_env *f)
{
    struct vdev *first = NULL;
    for (unsigned i = 0; i < f->device_count; i++) {
        if (f->devices[i]->deadline_ns != VDEV_NEVER &&
            (!first || f->devices[i]->deadline_ns < first->deadline_ns))
            first = f->devices[i];
    }
    return first;
}

static void fire(struct fake_vdev_env *f, struct vdev *dev)
{
    dev->deadline_ns = VDEV_NEVER;
    f->timer_calls++;
    dev->ops->timer(dev, f->now_ns);
}

void fake_advance(struct fake_vdev_env *f, uint64_t ns)
{
    uint64_t end = f->now_ns + ns;
    for (unsigned calls = 0;; calls++) {
        struct vdev *dev = earliest(f);
        if (!dev || dev->deadline_ns > end)
            break;
        FAKE_REQUIRE(calls < STORM);
        if (dev->deadline_ns > f->now_ns)
            f->now_ns = dev->deadline_ns;
        fire(f, dev);
    }
    f->now_ns = end;
}

void fake_jump(struct fake_vdev_env *f, uint64_t ns)
{
    f->now_ns += ns;
    for (unsigned i = 0; i < f->device_count; i++) {
        if (f->devices[i]->deadline_ns <= f->now_ns)
            fire(f, f->devices[i]);
        /* Whatever was missed is history: no second call is due at the same moment. */
        FAKE_REQUIRE(f->devices[i]->deadline_ns > f->now_ns);
    }
}

uint64_t fake_read(struct vdev *dev, uint64_t addr, unsigned size)
{
    struct io_req req = {.addr = addr, .size = (uint8_t)size, .value = 0xa5a5a5a5a5a5a5a5ull};
    dev->ops->access(dev, &req);
    FAKE_REQUIRE(req.value <= vdev_all_ones(size));
    return req.value;
}

void fake_write(struct vdev *dev, uint64_t addr, unsigned size, uint64_t value)
{
    struct io_req req = {.addr = addr, .size = (uint8_t)size, .value = value, .write = true};
    dev->ops->access(dev, &req);
}

bool fake_input_left(const struct fake_input *in)
{
    return in->at < in->size;
}

uint8_t fake_input_u8(struct fake_input *in)
{
    return in->at < in->size ? in->data[in->at++] : 0;
}

uint64_t fake_input_u64(struct fake_input *in)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)fake_input_u8(in) << (8 * i);
    return v;
}

uint64_t fake_input_step(struct fake_input *in)
{
    /* A mantissa of 4 bits and an exponent up to 2^47 ns (39 hours). */
    uint8_t v = fake_input_u8(in);
    return (uint64_t)(v & 15) << (v >> 4) * 3;
}
