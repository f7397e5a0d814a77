/* A struct vdev_env that records what a device does, with a clock the test moves. Shared by the device tests
 * and fuzzers. Broken promises of a device (a line beyond 23, a timer that fires for ever) abort. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include "drivers/vdev/vdev.h"

/* For fuzzers: a property that must hold. */
#define FAKE_REQUIRE(cond)                                                                                   \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define FAKE_LINES   24u
#define FAKE_DEVICES 8u
#define FAKE_MEMORY  65536u
#define FAKE_CONSOLE 4096u
#define FAKE_EVENTS  1024u

struct fake_event {
    uint64_t now_ns;
    uint8_t line;
    bool level;
};

struct fake_vdev_env {
    struct vdev_env env;
    uint64_t now_ns;
    int64_t wall_at_0; /* wall_seconds() is this plus now_ns in seconds */
    struct vdev *devices[FAKE_DEVICES];
    unsigned device_count;
    /* Interrupt lines: levels, rising edges seen, and the first FAKE_EVENTS changes in order. */
    bool level[FAKE_LINES];
    unsigned rises[FAKE_LINES];
    struct fake_event events[FAKE_EVENTS];
    unsigned event_count;
    unsigned timer_calls, set_timer_calls;
    unsigned poweroffs, resets; /* resets of any kind; */
    unsigned inits;             /* those of the processors only */
    uint8_t console[FAKE_CONSOLE];
    size_t console_size;         /* bytes written; those beyond FAKE_CONSOLE are only counted */
    uint8_t memory[FAKE_MEMORY]; /* guest memory from address 0 */
};

void fake_vdev_env_init(struct fake_vdev_env *fake);
/* Connects a device and calls its init. Wiring fields of the device are set before. */
void fake_attach(struct fake_vdev_env *fake, struct vdev *dev, const struct vdev_ops *ops);
/* Moves the clock, and calls the timers that become due on the way, each at its own time. */
void fake_advance(struct fake_vdev_env *fake, uint64_t ns);
/* Moves the clock in one step: timers are called late, once, at the end. */
void fake_jump(struct fake_vdev_env *fake, uint64_t ns);

/* Accesses. Reads check that the device answers no more than `size` bytes. */
uint64_t fake_read(struct vdev *dev, uint64_t addr, unsigned size);
void fake_write(struct vdev *dev, uint64_t addr, unsigned size, uint64_t value);
static inline uint8_t fake_in(struct vdev *dev, uint64_t port)
{
    return (uint8_t)fake_read(dev, port, 1);
}
static inline void fake_out(struct vdev *dev, uint64_t port, uint8_t value)
{
    fake_write(dev, port, 1, value);
}

/* Bytes of a fuzzer's input, one after the other; zeros when it is used up. */
struct fake_input {
    const uint8_t *data;
    size_t size, at;
};
bool fake_input_left(const struct fake_input *in);
uint8_t fake_input_u8(struct fake_input *in);
uint64_t fake_input_u64(struct fake_input *in);
/* A time step that is often short and sometimes very long, in ns. */
uint64_t fake_input_step(struct fake_input *in);
