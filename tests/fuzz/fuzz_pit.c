/* Random programming and time for the PIT. Three views of counter 0 must agree: OUT as its status shows it
 * tick by tick, the interrupts it makes, and where the next one is announced. Nothing may fire for ever or
 * get stuck. */
#include <string.h>
#include "drivers/vdev/pit.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct pit pit;

static void check(void)
{
    for (unsigned i = 0; i < 3; i++) {
        const struct pit_counter *c = &pit.counter[i];
        FAKE_REQUIRE(c->mode < 6 && c->latch_bytes <= 2);
        FAKE_REQUIRE(c->count >= 1 && c->count <= 65536 && c->reload >= 1 && c->reload <= 65536);
        FAKE_REQUIRE(!c->reload_waits || c->mode == 2 || c->mode == 3);
    }
    FAKE_REQUIRE(pit.counter[0].gate && pit.counter[1].gate);
    FAKE_REQUIRE(fake.level[0] == pit.line);
    FAKE_REQUIRE((pit.next_edge == VDEV_NEVER) == (pit.dev.deadline_ns == VDEV_NEVER));
}

/* OUT of counter 0 now. Looks at a copy, so that looking changes nothing. */
static bool look(void)
{
    struct pit copy = pit;
    struct pit_counter *c = &copy.counter[0];
    c->status_latched = false;
    c->latch_bytes = 0;
    fake_out(&copy.dev, PIT_CONTROL_PORT, 0xc2); /* read-back of status and count */
    /* In modes 2 and 3 the count stays within 1..N; mode 3 ends at 0 with an odd N. 65536 shows as 0. */
    if ((c->mode == 2 || c->mode == 3) && c->armed && !(c->control & 1) && c->count > 1 && c->count < 65536)
        FAKE_REQUIRE(c->latch <= c->count && (c->latch > 0 || (c->mode == 3 && (c->count & 1))));
    return fake_in(&copy.dev, PIT_PORT) & 0x80;
}

static void step_ticks(unsigned ticks)
{
    uint64_t tick = vdev_ns_to_ticks(fake.now_ns, PIT_HZ);
    bool out = look();
    for (unsigned i = 0; i < ticks; i++) {
        unsigned rises = fake.rises[0];
        uint64_t quiet_until = pit.quiet_until;
        tick++;
        fake_advance(&fake, vdev_ticks_to_ns(tick, PIT_HZ) - fake.now_ns);
        bool now = look(), rose = now && !out;
        if (fake.rises[0] != rises)
            FAKE_REQUIRE(fake.rises[0] == rises + 1 && (rose || tick == quiet_until));
        else
            FAKE_REQUIRE(!rose || tick < quiet_until);
        out = now;
    }
}

static void write_any(struct fake_input *in, uint8_t op)
{
    uint8_t value = fake_input_u8(in);
    fake_out(&pit.dev, op & 4 ? PIT_PORT_B : PIT_PORT + (op & 3), value);
}

/* Programs counter 0 for 100 Hz: exactly the right number of interrupts, whatever was before. */
static void check_liveness(void)
{
    fake_out(&pit.dev, PIT_CONTROL_PORT, 0x34);
    fake_out(&pit.dev, PIT_PORT, 0x9c);
    fake_out(&pit.dev, PIT_PORT, 0x2e);
    fake_advance(&fake, vdev_ticks_to_ns(vdev_ns_to_ticks(fake.now_ns, PIT_HZ) + 1, PIT_HZ) - fake.now_ns);
    uint64_t tick = vdev_ns_to_ticks(fake.now_ns, PIT_HZ);
    unsigned before = fake.rises[0];
    fake_advance(&fake, vdev_ticks_to_ns(tick + 10 * 11932 - 1, PIT_HZ) - fake.now_ns);
    FAKE_REQUIRE(fake.rises[0] == before + 9);
    fake_advance(&fake, vdev_ticks_to_ns(tick + 10 * 11932, PIT_HZ) - fake.now_ns);
    FAKE_REQUIRE(fake.rises[0] == before + 10);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    unsigned budget = 20000; /* ticks to step through in one run */
    fake_vdev_env_init(&fake);
    memset(&pit, 0, sizeof(pit));
    fake_attach(&fake, &pit.dev, &pit_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        unsigned rises = fake.rises[0], ticks;
        switch (op >> 5) {
        case 0:
        case 1:
        case 2:
            write_any(&in, op);
            break;
        case 3:
            (void)fake_read(&pit.dev, 0x3f + (op & 7), 1u << (op >> 3 & 3) % 3);
            (void)fake_in(&pit.dev, PIT_PORT_B);
            break;
        case 4:
            fake_write(&pit.dev, 0x3f + (op & 7), 1u << (op >> 3 & 3) % 3, fake_input_u64(&in));
            break;
        case 5: /* small counts, so that much happens */
            fake_out(&pit.dev, PIT_CONTROL_PORT,
                     (uint8_t)((op & 3) % 3 << 6 | 0x10 | (fake_input_u8(&in) & 0x0f)));
            fake_out(&pit.dev, PIT_PORT + (op & 3) % 3, fake_input_u8(&in));
            break;
        case 6:
            fake_jump(&fake, fake_input_step(&in));
            FAKE_REQUIRE(fake.rises[0] <= rises + 1); /* missed interrupts are one */
            break;
        default:
            ticks = (op & 31) * 16u;
            ticks = ticks < budget ? ticks : budget;
            budget -= ticks;
            step_ticks(ticks);
            break;
        }
        check();
    }
    check_liveness();
    return 0;
}
