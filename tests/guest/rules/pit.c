/* The 8254 timer: data sheet "82C54 CHMOS Programmable Interval Timer". Counter 2 is looked at through port
 * 0x61, counter 0 through IRQ 0. */
#include "rules.h"

#define COUNTER0    0x40u
#define COUNTER2    0x42u
#define CONTROL     0x43u
#define PORT_B      0x61u
#define GATE2       0x01u
#define OUT2        0x20u
#define REFRESH     0x10u
#define READ_BACK   0xc0u
#define NO_COUNT    0x20u
#define NO_STATUS   0x10u
#define BOTH        0x30u
#define STATUS_OUT  0x80u
#define STATUS_NULL 0x40u
#define HZ          1193182ull
#define IRQ0        0x60u

static void program(unsigned counter, unsigned mode, unsigned count)
{
    out8(CONTROL, (uint8_t)(counter << 6 | BOTH | mode << 1));
    out8((uint16_t)(COUNTER0 + counter), (uint8_t)count);
    out8((uint16_t)(COUNTER0 + counter), (uint8_t)(count >> 8));
}

static unsigned latched(unsigned counter)
{
    out8(CONTROL, (uint8_t)(counter << 6));
    unsigned low = in8((uint16_t)(COUNTER0 + counter));
    return low | (unsigned)in8((uint16_t)(COUNTER0 + counter)) << 8;
}

static unsigned status_of(unsigned counter)
{
    out8(CONTROL, (uint8_t)(READ_BACK | NO_COUNT | 2u << counter));
    return in8((uint16_t)(COUNTER0 + counter));
}

static bool out2(void)
{
    return in8(PORT_B) & OUT2;
}

static void gate(bool on)
{
    out8(PORT_B, on ? GATE2 : 0);
}

static void wait_ticks(uint64_t ticks)
{
    uint64_t end = rdtsc() + ticks * tsc_hz / HZ;
    while (rdtsc() < end)
        relax();
}

/* Mode 0: OUT is low until the count is over, then high for good. */
static void terminal_count(void)
{
    gate(true);
    program(2, 0, 5000);
    check(!out2(), "mode 0: OUT is low at first");
    check_equal(status_of(2) & 0x3f, BOTH, "mode 0: status");
    wait_ticks(2500);
    unsigned a = latched(2);
    check(!out2() && a < 2600 && a > 1800, "mode 0: half way: count %u", (uint64_t)a);
    gate(false);
    unsigned b = latched(2);
    wait_ticks(500);
    check_equal(latched(2), b, "mode 0: the gate stops it");
    gate(true);
    wait_ticks(2600);
    check(out2() && (status_of(2) & STATUS_OUT), "mode 0: OUT is high after the count");
    wait_ticks(100);
    check(out2(), "mode 0: and stays");
    check(latched(2) > 0xf000, "mode 0: the count goes on from ffff");
}

/* Mode 1: the gate's rising edge starts a pulse. */
static void one_shot(void)
{
    gate(false);
    program(2, 1, 4000);
    check(out2(), "mode 1: OUT is high until the gate rises");
    wait_ticks(4100);
    check(out2(), "mode 1: nothing happens without the gate");
    gate(true);
    wait_ticks(100);
    check(!out2(), "mode 1: OUT is low in the pulse");
    wait_ticks(2500);
    gate(false);
    gate(true); /* again: the pulse begins anew */
    wait_ticks(2500);
    check(!out2(), "mode 1: triggered again, the pulse is longer");
    wait_ticks(2000);
    check(out2(), "mode 1: the end of the pulse");
}

/* Modes 2 and 3 repeat; their gate stops them and starts them anew. */
static void periodic(void)
{
    gate(true);
    program(2, 2, 10000);
    wait_ticks(12000);
    unsigned a = latched(2);
    check(a < 8200 && a > 7000, "mode 2: count %u after 1.2 periods", (uint64_t)a);
    check(out2(), "mode 2: OUT is high but for one tick");
    program(2, 3, 10000);
    wait_ticks(2500);
    check(out2(), "mode 3: high at first");
    wait_ticks(5000);
    check(!out2(), "mode 3: low in the second half");
    wait_ticks(5000);
    check(out2(), "mode 3: high again");
    gate(false);
    check(out2(), "mode 3: without the gate OUT is high");
    unsigned b = latched(2);
    wait_ticks(300);
    check_equal(latched(2), b, "mode 3: without the gate nothing counts");
    check((latched(2) & 1) == 0, "mode 3: counts by two");
}

/* Latches keep what they hold until it is read; a read-back command latches several at once. */
static void latches(void)
{
    gate(true);
    program(2, 2, 60000);
    out8(CONTROL, 2u << 6);
    wait_ticks(500);
    out8(CONTROL, 2u << 6); /* ignored: the first one was not read */
    unsigned low = in8(COUNTER2), old = low | (unsigned)in8(COUNTER2) << 8;
    unsigned now = latched(2);
    check(old > now && old - now >= 400, "a latch holds: %u, now %u", (uint64_t)old, (uint64_t)now);
    out8(CONTROL, READ_BACK | 8); /* status and count of counter 2 */
    unsigned status = in8(COUNTER2);
    low = in8(COUNTER2);
    unsigned count = low | (unsigned)in8(COUNTER2) << 8;
    check_equal(status & 0x3f, BOTH | 2 << 1, "read-back: the status comes first");
    check(count < now && now - count < 1000, "read-back: count %u after %u", (uint64_t)count, (uint64_t)now);
    out8(CONTROL, READ_BACK | NO_STATUS | NO_COUNT | 8);
    check(latched(2) < count, "read-back of nothing latches nothing");
    out8(CONTROL, 2u << 6 | BOTH | 2 << 1);
    check(status_of(2) & STATUS_NULL, "null count until a count is written");
    out8(COUNTER2, 0x10);
    out8(COUNTER2, 0x27);
    wait_ticks(10);
    check(!(status_of(2) & STATUS_NULL), "no null count once it counts");
    out8(CONTROL, 2u << 6 | 0x10 | 2 << 1); /* low byte only */
    out8(COUNTER2, 200);
    wait_ticks(30);
    check(in8(COUNTER2) <= 200, "the low byte alone");
    out8(CONTROL, 2u << 6 | BOTH | 2 << 1 | 1); /* BCD */
    out8(COUNTER2, 0x00);
    out8(COUNTER2, 0x50);
    wait_ticks(1000);
    unsigned bcd = latched(2);
    check(bcd < 0x4010 && bcd > 0x3000 && (bcd & 15) < 10 && (bcd >> 4 & 15) < 10,
          "BCD: %x after 1000 of 5000", (uint64_t)bcd);
}

static void rate(void)
{
    gate(true);
    program(2, 2, 0); /* 65536 */
    unsigned first = latched(2);
    uint64_t begin = rdtsc();
    wait_ticks(40000);
    unsigned last = latched(2);
    uint64_t expected = (rdtsc() - begin) * HZ / tsc_hz, found = (first - last) & 0xffff;
    check(found + 100 > expected && found < expected + 100, "%u ticks, the TSC says %u", found, expected);
    unsigned toggles = 0;
    uint8_t before = in8(PORT_B) & REFRESH;
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t now = in8(PORT_B) & REFRESH;
        toggles += now != before;
        before = now;
    }
    check(toggles > 10, "the refresh bit toggles: %u times", (uint64_t)toggles);
}

static void interrupts(void)
{
    pic_begin(IRQ0, IRQ0 + 8);
    program(0, 2, 11932); /* 10 ms */
    out8(PIC_MASTER_DATA, 0xfe);
    unsigned count = 0;
    uint64_t begin = rdtsc();
    while (count < 5 && comes(IRQ0, 50000)) {
        count++;
        out8(PIC_MASTER, PIC_EOI);
    }
    uint64_t us = (rdtsc() - begin) / (tsc_hz / 1000000);
    check(count == 5 && us > 38000 && us < 60000, "mode 2: %u interrupts in %u us", (uint64_t)count, us);
    program(0, 0, 11932);
    check(comes(IRQ0, 20000), "mode 0: an interrupt at its end");
    out8(PIC_MASTER, PIC_EOI);
    check(!comes(IRQ0, 30000), "mode 0: and only one");
    program(0, 4, 11932);
    check(comes(IRQ0, 20000), "mode 4: a strobe at its end");
    out8(PIC_MASTER, PIC_EOI);
    pic_end();
}

void rule_pit(void)
{
    terminal_count();
    one_shot();
    periodic();
    latches();
    rate();
    interrupts();
    gate(false);
}
