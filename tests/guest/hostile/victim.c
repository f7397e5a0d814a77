/* The neighbour that must not notice anything: counts the ticks of a timer against the time stamp counter,
 * the real-time clock against both, and looks after a memory filled with a pattern. One line each emulated
 * second. hz=N: that many ticks a second, a multiple of 10. */
#include "tests/guest/runtime/runtime.h"

#define DEFAULT_HZ       1000u
#define READS_PER_SECOND 10u /* of the other clocks */
#define TIMER_PERIODIC   (1u << 17)
#define DIVIDE_BY_1      0xbu
#define PAGES            512u
#define MEMORY_AT        0x400000ull
#define RTC_SECONDS      0u
#define PM_TIMER         0x608u
#define PM_TIMER_HZ      3579545u
#define PM_TIMER_MASK    0xffffffu

static volatile uint64_t ticks, last_tsc, worst_gap, worst_at, late;
static uint64_t period; /* TSC ticks from one tick to the next */

static void on_tick(struct cpu *cpu, unsigned vector)
{
    (void)cpu;
    if (vector != VECTOR_TIMER)
        return;
    uint64_t now = rdtsc(), gap = now - last_tsc;
    if (ticks && gap > worst_gap) {
        worst_gap = gap;
        worst_at = now;
    }
    if (ticks && gap >= 2 * period)
        late++;
    last_tsc = now;
    ticks++;
}

/* The APIC timer's frequency, against the TSC. */
static uint32_t timer_hz(void)
{
    apic_timer(1u << 16, DIVIDE_BY_1, UINT32_MAX);
    uint64_t begin = rdtsc();
    uint32_t first = apic_read(APIC_TIMER_NOW);
    while (rdtsc() - begin < tsc_hz / 20)
        ;
    uint32_t counted = first - apic_read(APIC_TIMER_NOW);
    return (uint32_t)((uint64_t)counted * tsc_hz / (rdtsc() - begin));
}

static uint64_t pattern(uint64_t word, uint64_t seed)
{
    struct chance c = {seed ^ word << 20};
    return chance_next(&c);
}

static uint64_t checksum(void)
{
    uint64_t sum = 0;
    const uint64_t *memory = (const uint64_t *)MEMORY_AT;
    for (uint64_t i = 0; i < PAGES * PAGE / 8; i++)
        sum = (sum << 1 | sum >> 63) ^ memory[i];
    return sum;
}

static unsigned rtc_second(void)
{
    out8(0x70, RTC_SECONDS);
    unsigned v = in8(0x71);
    return (v >> 4) * 10 + (v & 15);
}

const char guest_name[] = "victim";

void guest_main(void)
{
    uint64_t seed = option_number("seed", 1), seconds = option_number("seconds", 0);
    uint64_t per_second = option_number("hz", DEFAULT_HZ), *memory = (uint64_t *)MEMORY_AT;
    for (uint64_t i = 0; i < PAGES * PAGE / 8; i++)
        memory[i] = pattern(i, seed);
    uint64_t sum = checksum();
    uint32_t hz = timer_hz(), count = (uint32_t)(hz / per_second);
    period = (uint64_t)count * tsc_hz / hz;
    print("victim: up, TSC %u kHz, timer %u kHz, boot %u\n", tsc_hz / 1000, (uint64_t)hz / 1000,
          progress->boots);
    interrupt_hook = on_tick;
    uint64_t begin = rdtsc();
    uint32_t pm_last = in32(PM_TIMER);
    uint64_t pm = 0, wall = 0;
    unsigned second = rtc_second();
    apic_timer(VECTOR_TIMER | TIMER_PERIODIC, DIVIDE_BY_1, count);
    for (uint64_t n = 1; !seconds || n <= seconds; n++) {
        while (ticks < n * per_second) {
            wait_interrupt();
            if (ticks % (per_second / READS_PER_SECOND) == 0) {
                unsigned now_second = rtc_second();
                wall += (now_second + 60 - second) % 60;
                second = now_second;
                uint32_t now = in32(PM_TIMER);
                pm += (now - pm_last) & PM_TIMER_MASK;
                pm_last = now;
            }
        }
        interrupts_on(); /* what follows takes longer than a tick */
        uint64_t elapsed = rdtsc() - begin, ms = elapsed / (tsc_hz / 1000);
        uint64_t expected = elapsed / period;
        uint64_t pm_ms = pm * 1000 / PM_TIMER_HZ;
        bool clock =
            wall * 1000 <= ms + 2000 && ms <= wall * 1000 + 2000 && pm_ms <= ms + 200 && ms <= pm_ms + 200;
        uint64_t lost = expected > ticks + 1 ? expected - ticks - 1 : 0;
        print("victim: tick %u clock %s sum %s worst-gap %u us at %u ms lost %u\n", ticks,
              clock ? "ok" : "BAD", checksum() == sum ? "ok" : "BAD", worst_gap / (tsc_hz / 1000000),
              worst_at / (tsc_hz / 1000), lost + late);
        interrupts_off();
    }
}
