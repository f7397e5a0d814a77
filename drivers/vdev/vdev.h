/* An emulated device: one file, one row in hv/pc/platform.c, one unit test, one fuzz target. A device gets
 * its whole world as a struct vdev_env; it includes neither arch/ nor hv/vm.h. All calls are made under the
 * VM's device lock, so a device has no locks of its own. Values from the guest are untrusted. */
#pragma once

#include "hv/lib/addr.h"

struct vdev;

/* One access. Reads set `value` (only the low `size` bytes count); nothing there reads as all-ones. */
struct io_req {
    uint64_t addr; /* port number or guest-physical address */
    uint64_t value;
    uint8_t size; /* ports 1, 2, 4; MMIO 1, 2, 4, 8 */
    bool write;
};

enum vdev_power {
    VDEV_POWEROFF,
    VDEV_RESET, /* of the whole machine */
    VDEV_INIT,  /* of the processors only; what follows is up to the firmware */
};

struct vdev_env {
    void *ctx;
    /* Level of an interrupt line: ISA IRQ 0..15 or GSI 16..23. Edges are made by calling with true, then
     * false. */
    void (*set_irq)(void *ctx, unsigned line, bool level);
    /* Nanoseconds since the VM started; monotonic. */
    uint64_t (*now_ns)(void *ctx);
    /* Calls dev->ops->timer(dev, now) once, soon after now_ns() reaches deadline_ns. UINT64_MAX: never.
     * Replaces the device's earlier deadline. May be called from within timer(). */
    void (*set_timer)(void *ctx, struct vdev *dev, uint64_t deadline_ns);
    /* Guest memory, all or nothing. */
    enum status (*gmem_read)(void *ctx, gpa_t addr, void *buf, size_t size);
    enum status (*gmem_write)(void *ctx, gpa_t addr, const void *buf, size_t size);
    void (*console_put)(void *ctx, uint8_t byte); /* output of the VM's first serial port */
    void (*power)(void *ctx, enum vdev_power what);
    int64_t (*wall_seconds)(void *ctx); /* UTC now, seconds since 1970 */
};

struct vdev_ops {
    const char *name;                /* "uart" */
    void (*init)(struct vdev *dev);  /* once, after dev->env is set; ends as reset does */
    void (*reset)(struct vdev *dev); /* power-on state; timers off, lines low */
    void (*access)(struct vdev *dev, struct io_req *req);
    void (*timer)(struct vdev *dev, uint64_t now_ns); /* NULL when the device has no timer */
};

struct vdev {
    const struct vdev_ops *ops;
    const struct vdev_env *env;
    uint64_t deadline_ns; /* owned by the environment */
};

#define VDEV_NEVER    UINT64_MAX
#define VDEV_NS_PER_S 1000000000ull

/* What a read of nothing returns. */
static inline uint64_t vdev_all_ones(unsigned size)
{
    return size >= 8 ? ~(uint64_t)0 : ((uint64_t)1 << (size * 8)) - 1;
}

/* Port access wider than the device's registers: the ISA bus makes byte cycles at consecutive ports out of
 * it, lowest first. Calls dev->ops->access once per byte with size 1; a device answers all-ones at ports that
 * are not its own. */
void vdev_split_bytes(struct vdev *dev, struct io_req *req);
/* `init` and `reset` of a device that has nothing to reset: no state, or it is another's. */
void vdev_keep(struct vdev *dev);

static inline uint64_t vdev_now(const struct vdev *dev)
{
    return dev->env->now_ns(dev->env->ctx);
}

static inline void vdev_set_irq(const struct vdev *dev, unsigned line, bool level)
{
    dev->env->set_irq(dev->env->ctx, line, level);
}

static inline void vdev_set_timer(struct vdev *dev, uint64_t deadline_ns)
{
    dev->env->set_timer(dev->env->ctx, dev, deadline_ns);
}

/* Complete ticks of a clock of `hz` (1 .. 4 GHz) in `ns` nanoseconds: exact, so that it does not drift
 * however long the VM runs. */
static inline uint64_t vdev_ns_to_ticks(uint64_t ns, uint32_t hz)
{
    return ns / VDEV_NS_PER_S * hz + ns % VDEV_NS_PER_S * hz / VDEV_NS_PER_S;
}

/* The first nanosecond at which vdev_ns_to_ticks() has reached `ticks`; VDEV_NEVER when it is beyond 64 bits.
 */
static inline uint64_t vdev_ticks_to_ns(uint64_t ticks, uint32_t hz)
{
    if (ticks / hz >= UINT64_MAX / VDEV_NS_PER_S)
        return VDEV_NEVER;
    return ticks / hz * VDEV_NS_PER_S + (ticks % hz * VDEV_NS_PER_S + hz - 1) / hz;
}
