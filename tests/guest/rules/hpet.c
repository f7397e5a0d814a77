/* The HPET: IA-PC HPET specification 1.0a, section 2.3 "Memory Mapped Registers". Interrupts come by the
 * IOAPIC. */
#include "rules.h"

#define HPET         0xfed00000ull
#define CAPABILITIES 0x000u
#define CONFIG       0x010u
#define STATUS       0x020u
#define COUNTER      0x0f0u
#define TIMER(n)     (0x100u + 0x20u * (n))
#define COMPARE(n)   (0x108u + 0x20u * (n))
#define ENABLE       1u
#define LEGACY       2u
#define T_LEVEL      (1u << 1)
#define T_ENABLE     (1u << 2)
#define T_PERIODIC   (1u << 3)
#define T_CAN_REPEAT (1u << 4)
#define T_CAN_64     (1u << 5)
#define T_SET        (1u << 6)
#define T_32         (1u << 8)
#define T_ROUTE(n)   ((uint64_t)(n) << 9)
#define FEMTOSECONDS 1000000000000000ull
#define VECTOR_TICK  0x91u
#define ENTRY_LEVEL  (1u << 15)
#define MASKED       (1u << 16)

static volatile uint64_t *reg(unsigned at)
{
    return (volatile uint64_t *)(HPET + at);
}

static volatile uint32_t *reg32(unsigned at)
{
    return (volatile uint32_t *)(HPET + at);
}

static uint64_t hz(void)
{
    return FEMTOSECONDS / (*reg(CAPABILITIES) >> 32);
}

static void route(unsigned pin, uint32_t low)
{
    volatile uint32_t *ioapic = (volatile uint32_t *)IOAPIC_PAGE;
    ioapic[0] = 0x11 + 2 * pin;
    ioapic[4] = 0;
    ioapic[0] = 0x10 + 2 * pin;
    ioapic[4] = low;
}

/* The lowest input that timer n may have. */
static unsigned input_of(unsigned n)
{
    uint32_t inputs = (uint32_t)(*reg(TIMER(n)) >> 32);
    return inputs ? (unsigned)__builtin_ctz(inputs) : 0;
}

static void counting(void)
{
    uint64_t capabilities = *reg(CAPABILITIES);
    check((capabilities >> 32) > 0 && (capabilities >> 32) <= 0x05f5e100, "the tick: %u fs",
          capabilities >> 32);
    check((capabilities & 0xff) != 0, "the revision is not 0");
    check((capabilities >> 8 & 0x1f) >= 2, "three comparators: the last is %u", capabilities >> 8 & 0x1f);
    *reg(CONFIG) = 0;
    *reg(COUNTER) = 0x123456789ull;
    check_equal(*reg(COUNTER), 0x123456789ull, "the counter is written while it stands");
    spin_us(100);
    check_equal(*reg(COUNTER), 0x123456789ull, "it stands");
    check_equal(*reg32(COUNTER + 4), 1, "its upper half");
    *reg(COUNTER) = 0xfffffff0ull;
    *reg(CONFIG) = ENABLE;
    uint64_t first = *reg(COUNTER), begin = rdtsc();
    spin_us(20000);
    uint64_t found = *reg(COUNTER) - first, expected = (rdtsc() - begin) * (hz() / 1000) / (tsc_hz / 1000);
    check(found + found / 100 > expected && found < expected + expected / 100, "%u ticks, the TSC says %u",
          found, expected);
    check(first + found > 0x100000000ull, "it carries into the upper half");
}

static bool tick(uint64_t us)
{
    return comes(VECTOR_TICK, us);
}

static void one_shot(void)
{
    unsigned pin = input_of(0);
    route(pin, VECTOR_TICK);
    *reg(TIMER(0)) = T_ENABLE | T_ROUTE(pin);
    check_equal(*reg(TIMER(0)) & (T_ENABLE | T_ROUTE(31)), T_ENABLE | T_ROUTE(pin),
                "the configuration reads back");
    uint64_t begin = rdtsc();
    *reg(COMPARE(0)) = *reg(COUNTER) + hz() / 100;
    check(tick(30000), "one shot");
    uint64_t us = (rdtsc() - begin) / (tsc_hz / 1000000);
    check(us >= 9900 && us < 15000, "one shot after %u us", us);
    check(!tick(20000), "and only one");
    *reg(TIMER(0)) = T_ROUTE(pin);
    *reg(COMPARE(0)) = *reg(COUNTER) + hz() / 100;
    check(!tick(20000), "not enabled");
    *reg(TIMER(0)) = T_ENABLE | T_ROUTE(pin);
    *reg(CONFIG) = 0;
    *reg(COMPARE(0)) = *reg(COUNTER) + hz() / 100;
    check(!tick(20000), "the counter stands");
    *reg(CONFIG) = ENABLE;
    check(tick(30000), "the counter runs again");
}

static void periodic(void)
{
    if (!(*reg(TIMER(0)) & T_CAN_REPEAT)) {
        skipped("periodic timers");
        return;
    }
    unsigned pin = input_of(0), count = 0;
    *reg(TIMER(0)) = T_ENABLE | T_PERIODIC | T_SET | T_ROUTE(pin);
    *reg(COMPARE(0)) = *reg(COUNTER) + hz() / 100;
    *reg(COMPARE(0)) = hz() / 100;
    uint64_t begin = rdtsc();
    while (count < 5 && tick(30000))
        count++;
    uint64_t us = (rdtsc() - begin) / (tsc_hz / 1000000);
    check(count == 5 && us > 48000 && us < 60000, "periodic: %u in %u us", (uint64_t)count, us);
    *reg(TIMER(0)) = T_ROUTE(pin);
}

/* Level-triggered: the status bit holds the line until it is cleared by writing 1. */
static void levels(void)
{
    unsigned pin = input_of(1);
    route(pin, VECTOR_TICK | ENTRY_LEVEL | MASKED);
    *reg(STATUS) = ~0ull;
    *reg(TIMER(1)) = T_ENABLE | T_LEVEL | T_ROUTE(pin);
    *reg(COMPARE(1)) = *reg(COUNTER) + hz() / 1000;
    spin_us(5000);
    check_equal(*reg(STATUS) & 7, 2, "the status of timer 1");
    *reg(STATUS) = 1;
    check_equal(*reg(STATUS) & 7, 2, "other bits leave it");
    *reg(STATUS) = 2;
    check_equal(*reg(STATUS) & 7, 0, "writing 1 clears it");
    *reg(TIMER(1)) = 0;
    route(pin, MASKED);
}

/* A comparator of 32 bits, and the registers in halves. */
static void narrow(void)
{
    *reg(TIMER(0)) = T_32;
    check(*reg(TIMER(0)) & T_32, "32-bit mode");
    *reg(COMPARE(0)) = 0x1122334455667788ull;
    check_equal(*reg32(COMPARE(0)), 0x55667788, "a comparator's lower half");
    *reg(TIMER(0)) = 0;
    *reg(COMPARE(2)) = 0;
    *reg32(COMPARE(2)) = 0xaabbccdd;
    check_equal(*reg32(COMPARE(2)), 0xaabbccdd, "half a comparator written");
    uint64_t capabilities = *reg(CAPABILITIES);
    *reg(CAPABILITIES) = 0;
    check_equal(*reg(CAPABILITIES), capabilities, "capabilities are read-only");
}

void rule_hpet(void)
{
    counting();
    one_shot();
    periodic();
    levels();
    narrow();
    route(input_of(0), MASKED);
    *reg(CONFIG) = 0;
}
