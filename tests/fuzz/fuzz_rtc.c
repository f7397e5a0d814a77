/* Random register accesses and time for the RTC. Running, its registers always hold a valid date that moves
 * with the clock; what is read with UIP clear stays valid for 244 us; the line follows register C; interrupts
 * keep coming. */
#include <string.h>
#include "drivers/vdev/rtc.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct rtc rtc;

static uint8_t get(unsigned reg)
{
    fake_out(&rtc.dev, 0x70, (uint8_t)reg);
    return fake_in(&rtc.dev, 0x71);
}

static void set(unsigned reg, uint8_t value)
{
    fake_out(&rtc.dev, 0x70, (uint8_t)reg);
    fake_out(&rtc.dev, 0x71, value);
}

static unsigned number(uint8_t raw)
{
    if (rtc.cmos[0x0b] & 4)
        return raw;
    FAKE_REQUIRE((raw & 15) < 10 && raw >> 4 < 10);
    return (raw >> 4) * 10u + (raw & 15);
}

static void check(void)
{
    FAKE_REQUIRE(rtc.index < RTC_CMOS_SIZE);
    uint8_t c = rtc.cmos[0x0c], b = rtc.cmos[0x0b];
    FAKE_REQUIRE(fake.level[8] == rtc.line);
    FAKE_REQUIRE(rtc.line == ((c & b & 0x70) != 0));
    FAKE_REQUIRE(rtc.line == !!(c & 0x80));
    FAKE_REQUIRE(rtc.dev.deadline_ns == VDEV_NEVER || !rtc.line);
    FAKE_REQUIRE(rtc.stopped == ((b & 0x80) || (rtc.cmos[0x0a] & 0x70) != 0x20));
    if (rtc.stopped)
        return;
    uint8_t index = rtc.index;
    FAKE_REQUIRE(number(get(0)) < 60 && number(get(2)) < 60);
    uint8_t hour = get(4);
    FAKE_REQUIRE((b & 2) ? number(hour) < 24 : number(hour & 0x7f) >= 1 && number(hour & 0x7f) <= 12);
    FAKE_REQUIRE(number(get(6)) >= 1 && number(get(6)) <= 7);
    FAKE_REQUIRE(number(get(7)) >= 1 && number(get(7)) <= 31);
    FAKE_REQUIRE(number(get(8)) >= 1 && number(get(8)) <= 12);
    FAKE_REQUIRE(number(get(9)) < 100 && number(get(0x32)) < 100);
    if (!(get(0x0a) & 0x80)) {
        uint8_t second = get(0);
        uint64_t now = fake.now_ns;
        fake.now_ns += 244000; /* looks ahead; reading the time has no effects */
        FAKE_REQUIRE(get(0) == second);
        fake.now_ns = now;
    }
    fake_out(&rtc.dev, 0x70, index);
}

static void check_liveness(void)
{
    set(0x0a, 0x26);
    set(0x0b, 0x12);
    get(0x0c);
    uint64_t seconds = (uint64_t)(rtc.base_seconds + (int64_t)((fake.now_ns - rtc.base_ns) / VDEV_NS_PER_S));
    unsigned rises = fake.rises[8];
    for (unsigned i = 0; i < 10; i++) {
        fake_advance(&fake, VDEV_NS_PER_S);
        FAKE_REQUIRE((get(0x0c) & 0x90) == 0x90);
    }
    FAKE_REQUIRE(fake.rises[8] == rises + 10);
    uint64_t later = (uint64_t)(rtc.base_seconds + (int64_t)((fake.now_ns - rtc.base_ns) / VDEV_NS_PER_S));
    FAKE_REQUIRE(later == seconds + 10);
    /* An alarm at every minute's second 30. */
    set(0x0b, 0x26);
    set(1, 30);
    set(3, 0xff);
    set(5, 0xff);
    get(0x0c);
    fake_advance(&fake, 60 * VDEV_NS_PER_S);
    FAKE_REQUIRE((get(0x0c) & 0xa0) == 0xa0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    fake_vdev_env_init(&fake);
    fake.wall_at_0 = 1700000000;
    memset(&rtc, 0, sizeof(rtc));
    fake_attach(&fake, &rtc.dev, &rtc_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        unsigned rises = fake.rises[8];
        switch (op >> 5) {
        case 0:
        case 1:
            set(op & 15, fake_input_u8(&in));
            break;
        case 2:
            set(fake_input_u8(&in), fake_input_u8(&in));
            break;
        case 3:
            (void)get(op & 15);
            break;
        case 4:
            fake_write(&rtc.dev, 0x6f + (op & 3), 1u << (op >> 2 & 3) % 3, fake_input_u64(&in));
            break;
        case 5:
            set(0x0b, op & 0x72);
            set(0x0a, 0x20 | (fake_input_u8(&in) & 15));
            break;
        case 6:
            fake_jump(&fake, fake_input_step(&in));
            FAKE_REQUIRE(fake.rises[8] <= rises + 1);
            break;
        default:
            if (op & 1)
                rtc_set_memory(&rtc, fake_input_u64(&in), fake_input_u64(&in));
            else if (op & 2)
                rtc_ops.reset(&rtc.dev);
            else
                fake_advance(&fake, fake_input_step(&in));
            break;
        }
        check();
    }
    check_liveness();
    return 0;
}
