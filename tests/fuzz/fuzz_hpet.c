/* Random accesses and time for the HPET. The counter runs at its frequency while it is enabled and stands
 * otherwise, reserved bits stay zero, only lines that are offered move, held lines have a status bit behind
 * them, and no program makes a storm of timer calls (fake_advance aborts on one). */
#include <string.h>
#include "drivers/vdev/hpet.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct hpet hpet;

#define OFFERED 0x00f00101u /* inputs 20..23, and the lines of PIT and RTC */
#define CALLS   100000u     /* of timers, after which a run ends: more take seconds and show nothing new */

static uint64_t count(void)
{
    return fake_read(&hpet.dev, HPET_BASE + 0xf0, 8);
}

static void check(void)
{
    uint64_t conf = fake_read(&hpet.dev, HPET_BASE + 0x10, 8),
             status = fake_read(&hpet.dev, HPET_BASE + 0x20, 8);
    FAKE_REQUIRE(conf <= 3 && status <= 7);
    FAKE_REQUIRE((fake_read(&hpet.dev, HPET_BASE, 8) & UINT32_MAX) == HPET_BLOCK_ID);
    uint32_t held = 0;
    for (unsigned line = 0; line < FAKE_LINES; line++) {
        FAKE_REQUIRE(!fake.rises[line] || OFFERED >> line & 1);
        held |= (uint32_t)fake.level[line] << line;
    }
    FAKE_REQUIRE(!held || status);
    FAKE_REQUIRE(conf & 1 || hpet.dev.deadline_ns == VDEV_NEVER);
    FAKE_REQUIRE(hpet.dev.deadline_ns == VDEV_NEVER || hpet.dev.deadline_ns + 10 > fake.now_ns);
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        FAKE_REQUIRE((fake_read(&hpet.dev, HPET_BASE + 0x100 + 0x20 * n, 8) & 0xfffffffful & ~0x3f7eul) == 0);
}

static void pass_time(struct fake_input *in, bool late)
{
    uint64_t before = count(), from = fake.now_ns, step = fake_input_step(in) % (1ull << 40);
    bool runs = fake_read(&hpet.dev, HPET_BASE + 0x10, 4) & 1;
    if (late)
        fake_jump(&fake, step);
    else
        fake_advance(&fake, step % 1000000000);
    uint64_t ticks = count() - before, ns = fake.now_ns - from;
    FAKE_REQUIRE(runs ? ticks >= ns / 10 && ticks <= ns / 10 + 1 : ticks == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    fake_vdev_env_init(&fake);
    memset(&hpet, 0, sizeof(hpet));
    fake_attach(&fake, &hpet.dev, &hpet_ops);
    while (fake_input_left(&in) && fake.timer_calls < CALLS) {
        uint8_t op = fake_input_u8(&in);
        uint64_t reg = (uint64_t)(op & 0x1f) * 8 + (op & 1 ? 0xf0 : 0);
        if (op >> 6 == 0)
            fake_write(&hpet.dev, HPET_BASE + reg, 8, fake_input_u64(&in));
        else if (op >> 6 == 1)
            fake_write(&hpet.dev, HPET_BASE + fake_input_u64(&in) % (HPET_SIZE + 8), 1u << (op & 3),
                       fake_input_u64(&in));
        else
            pass_time(&in, op & 1);
        check();
    }
    return 0;
}
