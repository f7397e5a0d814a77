/* Interrupt storms: every device that can interrupt does so as fast as it can, alone and all together;
 * through the IOAPIC and through the PIC. This processor has to get on in between. */
#include "hostile.h"

#define STORM_US       20000u
#define FIRST_VECTOR   0x50u
#define IOAPIC_PINS    24u
#define RTE_LEVEL      (1u << 15)
#define RTE_MASKED     (1u << 16)
#define TIMER_PERIODIC (1u << 17)
#define LINT_MASKED    (1u << 16)
#define LINT_EXTINT    (7u << 8)

static void ioapic_write(uint8_t index, uint32_t v)
{
    *(volatile uint32_t *)IOAPIC_PAGE = index;
    *(volatile uint32_t *)(IOAPIC_PAGE + 0x10) = v;
}

static void pins(bool on, bool level)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        ioapic_write((uint8_t)(0x11 + 2 * pin), 0);
        ioapic_write((uint8_t)(0x10 + 2 * pin),
                     (FIRST_VECTOR + pin) | (level ? RTE_LEVEL : 0) | (on ? 0 : RTE_MASKED));
    }
}

static void cmos(uint8_t index, uint8_t v)
{
    out8(0x70, index);
    out8(0x71, v);
}

static void start_pit(uint8_t mode, uint16_t count)
{
    out8(0x43, (uint8_t)(0x30 | mode << 1));
    out8(0x40, (uint8_t)count);
    out8(0x40, (uint8_t)(count >> 8));
}

static void start_rtc(uint8_t rate)
{
    cmos(0x0a, (uint8_t)(0x20 | rate));
    cmos(0x0b, 0x72); /* periodic, alarm, update-ended; 24 h */
    cmos(1, 0xff);
    cmos(3, 0xff);
    cmos(5, 0xff);
}

static void stop_devices(void)
{
    start_pit(0, 0);
    cmos(0x0b, 0x02);
    out8(COM1 + 1, 0);
    out16(0x602, 0);
    apic_timer(LINT_MASKED, 0xb, 0);
}

static uint64_t storm_end; /* TSC */

/* Ends the storm as well: while interrupts come faster than they are served, nothing else runs. */
static void on_interrupt(struct cpu *cpu, unsigned vector)
{
    (void)cpu;
    bool over = rdtsc() > storm_end;
    if (over)
        stop_devices();
    if (vector == FIRST_VECTOR + 8 || vector == FIRST_VECTOR + 28) {
        out8(0x70, 0x0c); /* the RTC wants to be read before it interrupts again */
        (void)in8(0x71);
    }
    if (vector >= FIRST_VECTOR + 20 + 4) /* the PIC's */
        out8(0xa0, 0x20), out8(0x20, 0x20);
    if (vector == FIRST_VECTOR + 4 && !over) {
        (void)in8(COM1 + 2);
        out8(COM1 + 1, 0); /* off and on: the transmitter is empty again */
        out8(COM1 + 1, 2);
    }
}

/* How many arrive, and how many rounds this loop makes meanwhile. */
static bool storm(const char *what, uint64_t *total)
{
    uint64_t before = 0, after = 0, rounds = 0;
    storm_end = rdtsc() + STORM_US * (tsc_hz / 1000000);
    for (unsigned i = 32; i < 256; i++)
        before += this_cpu()->interrupts[i];
    while (rdtsc() < storm_end) {
        interrupts_on();
        relax();
        interrupts_off();
        rounds++;
    }
    for (unsigned i = 32; i < 256; i++)
        after += this_cpu()->interrupts[i];
    stop_devices();
    *total += after - before;
    if (after == before)
        print("hostile: storm: %s: no interrupt in %u rounds\n", what, rounds);
    return after > before && rounds > 0;
}

static void pic_on(void)
{
    out8(0x20, 0x11), out8(0xa0, 0x11);
    out8(0x21, FIRST_VECTOR + 24), out8(0xa1, FIRST_VECTOR + 32);
    out8(0x21, 4), out8(0xa1, 2);
    out8(0x21, 1), out8(0xa1, 1);
    out8(0x21, 0), out8(0xa1, 0);
}

void program_storm(unsigned step)
{
    static const uint16_t counts[] = {1, 2, 3, 100, 0};
    uint64_t total = 0;
    bool good = true;
    (void)step;
    interrupt_hook = on_interrupt;
    pins(true, false);
    for (uint8_t mode = 2; mode <= 3; mode++) {
        for (unsigned i = 0; i < 4; i++) {
            start_pit(mode, counts[i]);
            bool some = storm("PIT", &total);
            good &= some || counts[i] == 1; /* 1 is not a count for these modes */
        }
    }
    start_rtc(3);
    good &= storm("RTC", &total);
    out8(COM1 + 1, 2);
    out8(COM1 + 4, 0x0b);
    good &= storm("UART", &total);
    out8(COM1 + 4, 0);
    pins(false, false);
    for (unsigned divide = 0; divide < 16; divide++) {
        apic_timer(VECTOR_TIMER | TIMER_PERIODIC, divide, 1);
        good &= storm("APIC timer", &total);
    }
    apic_write(APIC_LVT_LINT0, LINT_EXTINT);
    pic_on();
    start_pit(2, 2);
    start_rtc(1);
    good &= storm("PIC", &total);
    pins(true, true); /* level: lines that stay up */
    start_pit(2, 2);
    start_rtc(3);
    out8(COM1 + 1, 2);
    out16(0x602, 0xffff);
    apic_timer(VECTOR_TIMER | TIMER_PERIODIC, 0xb, 1);
    good &= storm("all", &total);
    out8(0x21, 0xff), out8(0xa1, 0xff);
    apic_write(APIC_LVT_LINT0, LINT_MASKED);
    pins(false, false);
    interrupt_hook = NULL;
    verdict("storm", good, "%u interrupts", total);
}
