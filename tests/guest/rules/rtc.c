/* The MC146818 real-time clock: its data sheet, sections "Registers" and "Interrupts"; IRQ 8. */
#include "rules.h"

#define INDEX         0x70u
#define DATA          0x71u
#define SECONDS       0x00u
#define ALARM_SECONDS 0x01u
#define MINUTES       0x02u
#define ALARM_MINUTES 0x03u
#define HOURS         0x04u
#define ALARM_HOURS   0x05u
#define WEEKDAY       0x06u
#define DAY           0x07u
#define MONTH         0x08u
#define YEAR          0x09u
#define REG_A         0x0au
#define REG_B         0x0bu
#define REG_C         0x0cu
#define REG_D         0x0du
#define B_SET         0x80u
#define B_PIE         0x40u
#define B_AIE         0x20u
#define B_UIE         0x10u
#define B_BINARY      0x04u
#define B_24          0x02u
#define C_IRQF        0x80u
#define C_PF          0x40u
#define C_AF          0x20u
#define C_UF          0x10u
#define A_UIP         0x80u
#define RATE_1024     0x26u
#define RATE_256      0x28u
#define ALARM_ANY     0xc0u
#define VECTOR_RTC    0x68u
#define CMOS_FREE     0x60u

static uint8_t get(uint8_t reg)
{
    out8(INDEX, reg);
    return in8(DATA);
}

static void put(uint8_t reg, uint8_t v)
{
    out8(INDEX, reg);
    out8(DATA, v);
}

static void end_both(void)
{
    out8(PIC_SLAVE, PIC_EOI);
    out8(PIC_MASTER, PIC_EOI);
}

static void set_time(uint8_t mode, uint8_t hours, uint8_t minutes, uint8_t seconds)
{
    put(REG_B, B_SET | mode);
    put(SECONDS, seconds);
    put(MINUTES, minutes);
    put(HOURS, hours);
    put(REG_B, mode);
}

/* Waits for the next second; false: it does not come within two. */
static bool next_second(void)
{
    uint64_t end = rdtsc() + 2 * tsc_hz;
    uint8_t now = get(SECONDS);
    while (get(SECONDS) == now) {
        if (rdtsc() > end)
            return false;
        sleep_ms(2);
    }
    return true;
}

static void memory(void)
{
    uint8_t before = get(CMOS_FREE);
    put(CMOS_FREE, 0xa5);
    check_equal(get(CMOS_FREE), 0xa5, "CMOS memory");
    check_equal(get(CMOS_FREE | 0x80), 0xa5, "the NMI bit is no part of the index");
    put(CMOS_FREE, before);
    check_equal(get(REG_D), 0x80, "register D: valid RAM and time");
    check_equal(get(REG_A) & 0x7f, RATE_1024, "register A: 32768 Hz, 1024 Hz");
}

/* The formats; and the turn of a year, of hours, of a day. */
static void formats(void)
{
    set_time(B_24 | B_BINARY, 23, 59, 58);
    check_equal(get(HOURS), 23, "binary, 24 hours");
    put(REG_B, B_SET | B_24 | B_BINARY);
    put(DAY, 31);
    put(MONTH, 12);
    put(YEAR, 25);
    put(WEEKDAY, 4);
    put(SECONDS, 59);
    put(REG_B, B_24 | B_BINARY);
    check(next_second(), "a second passes");
    check(get(SECONDS) == 0 && get(MINUTES) == 0 && get(HOURS) == 0, "midnight: %u:%u:%u",
          (uint64_t)get(HOURS), (uint64_t)get(MINUTES), (uint64_t)get(SECONDS));
    check(get(DAY) == 1 && get(MONTH) == 1 && get(YEAR) == 26, "the new year: %u.%u.%u", (uint64_t)get(DAY),
          (uint64_t)get(MONTH), (uint64_t)get(YEAR));
    put(REG_B, B_SET | B_24);
    put(SECONDS, 0x59);
    put(MINUTES, 0x29);
    put(HOURS, 0x12);
    put(REG_B, B_24);
    check(next_second(), "a second passes in BCD");
    check_equal(get(MINUTES), 0x30, "BCD minutes");
    set_time(0, 0x92, 0x00, 0x00);
    check_equal(get(HOURS), 0x92, "12 hours, PM, BCD: noon");
    put(REG_B, B_SET);
    uint8_t frozen = get(SECONDS);
    sleep_ms(1200);
    check_equal(get(SECONDS), frozen, "SET stops the time");
    put(REG_B, B_24);
}

/* Flags appear whether they interrupt or not, and a read of register C takes them. */
static void flags(void)
{
    put(REG_B, B_24);
    put(REG_A, RATE_1024);
    get(REG_C);
    spin_us(3000);
    check_equal(get(REG_C) & (C_IRQF | C_PF), C_PF, "PF without PIE");
    check_equal(get(REG_C) & C_PF, 0, "a read takes it");
    uint64_t end = rdtsc() + 2 * tsc_hz;
    while (!(get(REG_C) & C_UF) && rdtsc() < end)
        sleep_ms(2);
    check(rdtsc() < end, "UF once a second");
    end = rdtsc() + 2 * tsc_hz;
    while (!(get(REG_A) & A_UIP) && rdtsc() < end)
        ;
    uint64_t begin = rdtsc();
    while ((get(REG_A) & A_UIP) && rdtsc() < end)
        ;
    uint64_t us = (rdtsc() - begin) / (tsc_hz / 1000000);
    check(us > 1000 && us < 2600, "UIP for %u us", us);
}

static void periodic(void)
{
    put(REG_A, RATE_256);
    get(REG_C);
    put(REG_B, B_24 | B_PIE);
    unsigned count = 0;
    uint64_t begin = rdtsc();
    while (count < 8 && comes(VECTOR_RTC, 20000)) {
        count++;
        uint8_t c = get(REG_C);
        check((c & (C_IRQF | C_PF)) == (C_IRQF | C_PF), "a periodic interrupt: C %x", (uint64_t)c);
        end_both();
    }
    uint64_t us = (rdtsc() - begin) / (tsc_hz / 1000000);
    check(count == 8 && us > 26000 && us < 40000, "256 Hz: %u interrupts in %u us", (uint64_t)count, us);
    check(comes(VECTOR_RTC, 20000), "one more");
    end_both();
    check(!comes(VECTOR_RTC, 20000), "none as long as C is not read");
    put(REG_B, B_24);
    get(REG_C);
    take_interrupts();
    end_both();
    put(REG_A, RATE_1024);
}

static void alarms(void)
{
    get(REG_C);
    set_time(B_24, 0x10, 0x20, 0x29);
    put(ALARM_HOURS, 0x10);
    put(ALARM_MINUTES, 0x20);
    put(ALARM_SECONDS, 0x31);
    put(REG_B, B_24 | B_AIE);
    check(comes(VECTOR_RTC, 3500000), "an alarm");
    check_equal(get(SECONDS), 0x31, "an alarm: when");
    check_equal(get(REG_C) & (C_IRQF | C_AF), C_IRQF | C_AF, "an alarm: C");
    end_both();
    put(ALARM_SECONDS, ALARM_ANY);
    check(comes(VECTOR_RTC, 1500000) && (get(REG_C) & C_AF), "an alarm each second");
    end_both();
    put(ALARM_HOURS, 0x11);
    check(!comes(VECTOR_RTC, 1500000), "no alarm in another hour");
    get(REG_C);
    put(REG_B, B_24 | B_UIE);
    check(comes(VECTOR_RTC, 1500000), "an update-ended interrupt");
    check_equal(get(REG_C) & (C_IRQF | C_UF), C_IRQF | C_UF, "an update-ended interrupt: C");
    end_both();
    put(REG_B, B_24);
    get(REG_C);
}

void rule_rtc(void)
{
    memory();
    formats();
    flags();
    pic_begin(VECTOR_RTC - 8, VECTOR_RTC);
    out8(PIC_MASTER_DATA, 0xfb);
    out8(PIC_SLAVE_DATA, 0xfe);
    periodic();
    alarms();
    pic_end();
}
