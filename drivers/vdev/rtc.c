#include "drivers/vdev/rtc.h"

enum rtc_reg {
    REG_SECONDS,
    REG_SECONDS_ALARM,
    REG_MINUTES,
    REG_MINUTES_ALARM,
    REG_HOURS,
    REG_HOURS_ALARM,
    REG_WEEKDAY, /* 1 = Sunday */
    REG_DAY,
    REG_MONTH,
    REG_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    /* CMOS memory as IBM and its successors laid it out. */
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE_KIB = 0x15,     /* 2 bytes */
    CMOS_EXTENDED_KIB = 0x17, /* 2 bytes, copied to 0x30 */
    CMOS_CHECKSUM = 0x2e,     /* of 0x10..0x2d, high byte first */
    CMOS_EXTENDED_KIB2 = 0x30,
    CMOS_ABOVE_16M = 0x34,  /* 2 bytes, in 64 KiB */
    CMOS_BOOT_ORDER = 0x3d, /* Bochs: 4 bits each, the first choice lowest */
    CMOS_ABOVE_4G = 0x5b,   /* 3 bytes, in 64 KiB */
    CMOS_PROCESSORS = 0x5f, /* Bochs: without the first one */
};
#define BOOT_HARD_DISK 2u
#define BOOT_CD        3u
#define CMOS_SUM_FIRST 0x10u
#define CMOS_SUM_LAST  0x2du

#define INDEX_MASK     0x7fu
#define INDEX_NMI_MASK 0x80u

#define A_UIP         0x80u
#define A_DIVIDER     0x70u
#define A_DIVIDER_RUN 0x20u /* 32768 Hz; 6 and 7 hold the divider in reset, the others do not run here */
#define A_RATE        0x0fu
#define A_DEFAULT     (A_DIVIDER_RUN | 6u) /* 1024 Hz */

#define B_SET    0x80u
#define B_PIE    0x40u
#define B_AIE    0x20u
#define B_UIE    0x10u
#define B_BINARY 0x04u
#define B_24H    0x02u

#define C_IRQF 0x80u
#define C_PF   0x40u
#define C_AF   0x20u
#define C_UF   0x10u

#define D_VRT     0x80u /* battery good */
#define HOUR_PM   0x80u
#define ALARM_ANY 0xc0u /* both bits set: matches everything */
#define EQUIPMENT 0x02u /* coprocessor; no floppy */

#define CLOCK_HZ 32768u
/* Update cycle (data sheet, "Update cycle"): UIP comes 244 us before it, it takes 1984 us. The time changes
 * at its end. */
#define UIP_TICKS ((244u + 1984u) * 32768u / 1000000u + 1)

#define SECONDS_PER_DAY  86400
#define FIRST_UPDATE_NS  (VDEV_NS_PER_S / 2) /* after the divider's reset ends */
#define DAYS_PER_400Y    146097
#define EPOCH_DAY_FROM_0 719468 /* days from 0000-03-01 to 1970-01-01 */
#define EPOCH_WEEKDAY    4      /* Thursday */

struct calendar {
    int64_t year;
    unsigned month, day, weekday; /* month 1..12, day 1..31, weekday 0 = Sunday */
};

static struct rtc *rtc_of(struct vdev *dev)
{
    return container_of(dev, struct rtc, dev);
}

/* a modulo b in 0..b-1, for b > 0. */
static int64_t modulo(int64_t a, int64_t b)
{
    int64_t r = a % b;
    return r < 0 ? r + b : r;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return (a - modulo(a, b)) / b;
}

/* Gregorian calendar in years that begin on 1 March, so that the leap day is the last. */
static struct calendar calendar_of(int64_t days)
{
    int64_t from_0 = days + EPOCH_DAY_FROM_0;
    int64_t era = floor_div(from_0, DAYS_PER_400Y);
    unsigned day = (unsigned)modulo(from_0, DAYS_PER_400Y);
    unsigned year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    unsigned day_of_year = day - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * day_of_year + 2) / 153; /* 0 = March */
    return (struct calendar){
        .year = era * 400 + year + (month >= 10),
        .month = month < 10 ? month + 3 : month - 9,
        .day = day_of_year - (153 * month + 2) / 5 + 1,
        .weekday = (unsigned)modulo(days + EPOCH_WEEKDAY, 7),
    };
}

static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = floor_div(year, 400);
    int64_t year_of_era = modulo(year, 400);
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * DAYS_PER_400Y + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           EPOCH_DAY_FROM_0;
}

static uint8_t encode(const struct rtc *r, unsigned value)
{
    return (uint8_t)(r->cmos[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *r, uint8_t raw)
{
    return r->cmos[REG_B] & B_BINARY ? raw : (raw >> 4) * 10u + (raw & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned hour)
{
    if (r->cmos[REG_B] & B_24H)
        return encode(r, hour);
    unsigned hour12 = hour % 12 ? hour % 12 : 12;
    return encode(r, hour12) | (hour >= 12 ? HOUR_PM : 0);
}

/* 0..23, or more when the register holds no hour. */
static unsigned decode_hour(const struct rtc *r, uint8_t raw)
{
    if (r->cmos[REG_B] & B_24H)
        return decode(r, raw);
    unsigned hour = decode(r, raw & (uint8_t)~HOUR_PM);
    if (hour < 1 || hour > 12)
        return UINT8_MAX;
    return hour % 12 + (raw & HOUR_PM ? 12 : 0);
}

/* Ticks of the 32768 Hz clock since base_ns: the divider chain that updates and periodic interrupts come
 * from. */
static uint64_t ticks_at(const struct rtc *r, uint64_t now_ns)
{
    return vdev_ns_to_ticks(now_ns - r->base_ns, CLOCK_HZ);
}

static int64_t seconds_at(const struct rtc *r, uint64_t now_ns)
{
    return r->base_seconds + (int64_t)((now_ns - r->base_ns) / VDEV_NS_PER_S);
}

static void time_to_registers(struct rtc *r, uint64_t now_ns)
{
    int64_t seconds = seconds_at(r, now_ns);
    int64_t days = floor_div(seconds, SECONDS_PER_DAY);
    unsigned second = (unsigned)modulo(seconds, SECONDS_PER_DAY);
    struct calendar c = calendar_of(days);
    unsigned year = (unsigned)modulo(c.year, 10000);
    r->cmos[REG_SECONDS] = encode(r, second % 60);
    r->cmos[REG_MINUTES] = encode(r, second / 60 % 60);
    r->cmos[REG_HOURS] = encode_hour(r, second / 3600);
    r->cmos[REG_WEEKDAY] = encode(r, (c.weekday + r->weekday_skew) % 7 + 1);
    r->cmos[REG_DAY] = encode(r, c.day);
    r->cmos[REG_MONTH] = encode(r, c.month);
    r->cmos[REG_YEAR] = encode(r, year % 100);
    r->cmos[RTC_CENTURY] = encode(r, year / 100);
}

static unsigned clamp(unsigned value, unsigned lowest, unsigned highest)
{
    return value < lowest ? lowest : value > highest ? highest : value;
}

/* The guest has set the registers: they are the time from now on. Nonsense is brought into range. */
static void time_from_registers(struct rtc *r, uint64_t now_ns)
{
    unsigned century = clamp(decode(r, r->cmos[RTC_CENTURY]), 0, 99);
    unsigned year = clamp(decode(r, r->cmos[REG_YEAR]), 0, 99);
    unsigned month = clamp(decode(r, r->cmos[REG_MONTH]), 1, 12);
    unsigned day = clamp(decode(r, r->cmos[REG_DAY]), 1, 31);
    int64_t days = days_of((int64_t)century * 100 + year, month, day);
    unsigned second = clamp(decode_hour(r, r->cmos[REG_HOURS]), 0, 23) * 3600;
    second += clamp(decode(r, r->cmos[REG_MINUTES]), 0, 59) * 60;
    second += clamp(decode(r, r->cmos[REG_SECONDS]), 0, 59);
    unsigned weekday = clamp(decode(r, r->cmos[REG_WEEKDAY]), 1, 7) - 1;
    r->weekday_skew = (uint8_t)modulo((int64_t)weekday - calendar_of(days).weekday, 7);

    /* The phase within the second stays, unless the divider was reset. */
    uint64_t phase = (now_ns - r->base_ns) % VDEV_NS_PER_S;
    if (r->divider_was_reset)
        phase = VDEV_NS_PER_S - FIRST_UPDATE_NS;
    r->base_seconds = days * SECONDS_PER_DAY + second;
    r->base_ns = now_ns - phase;
    r->guest_offset = r->base_seconds - r->dev.env->wall_seconds(r->dev.env->ctx);
    r->flags_tick = ticks_at(r, now_ns);
}

/* Period of the periodic interrupt in 32768 Hz ticks, 0 = off (data sheet, table of periodic rates). */
static uint32_t periodic_ticks(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;
    if (rate == 0)
        return 0;
    return rate <= 2 ? 64u << rate : 1u << (rate - 1);
}

/* The smallest value >= from that the alarm field matches, -1 for none up to limit - 1. */
static int next_match(bool any, unsigned field, unsigned from, unsigned limit)
{
    if (any)
        return from < limit ? (int)from : -1;
    return field >= from && field < limit ? (int)field : -1;
}

/* The first second of a day, >= from, at which the alarm matches; -1 when there is none left. */
static int alarm_in_day(const struct rtc *r, unsigned from)
{
    const uint8_t raw_h = r->cmos[REG_HOURS_ALARM], raw_m = r->cmos[REG_MINUTES_ALARM];
    const uint8_t raw_s = r->cmos[REG_SECONDS_ALARM];
    bool any_h = raw_h >= ALARM_ANY, any_m = raw_m >= ALARM_ANY, any_s = raw_s >= ALARM_ANY;
    unsigned h = decode_hour(r, raw_h), m = decode(r, raw_m), s = decode(r, raw_s);
    unsigned from_h = from / 3600, from_m = from / 60 % 60, from_s = from % 60;

    int hour = next_match(any_h, h, from_h, 24);
    if (hour == (int)from_h) {
        int minute = next_match(any_m, m, from_m, 60);
        if (minute == (int)from_m) {
            int second = next_match(any_s, s, from_s, 60);
            if (second >= 0)
                return hour * 3600 + minute * 60 + second;
            minute = next_match(any_m, m, from_m + 1, 60);
        }
        int second = next_match(any_s, s, 0, 60);
        if (minute >= 0 && second >= 0)
            return hour * 3600 + minute * 60 + second;
        hour = next_match(any_h, h, from_h + 1, 24);
    }
    int minute = next_match(any_m, m, 0, 60), second = next_match(any_s, s, 0, 60);
    return hour < 0 || minute < 0 || second < 0 ? -1 : hour * 3600 + minute * 60 + second;
}

/* Seconds from `seconds` to the alarm's next match after it, 1..86400; 0 = it can never match. */
static uint32_t alarm_delay(const struct rtc *r, int64_t seconds)
{
    unsigned now = (unsigned)modulo(seconds, SECONDS_PER_DAY);
    int match = now + 1 < SECONDS_PER_DAY ? alarm_in_day(r, now + 1) : -1;
    if (match >= 0)
        return (uint32_t)match - now;
    match = alarm_in_day(r, 0);
    return match < 0 ? 0 : (uint32_t)match + SECONDS_PER_DAY - now;
}

/* Sets the flags of everything that happened since the last look. */
static void collect_flags(struct rtc *r, uint64_t now_ns)
{
    if (r->stopped)
        return;
    uint64_t ticks = ticks_at(r, now_ns), before = r->flags_tick;
    r->flags_tick = ticks;
    uint32_t period = periodic_ticks(r);
    if (period && ticks / period != before / period)
        r->cmos[REG_C] |= C_PF;
    uint64_t updates = ticks / CLOCK_HZ - before / CLOCK_HZ;
    if (updates == 0)
        return;
    r->cmos[REG_C] |= C_UF;
    uint32_t delay = alarm_delay(r, r->base_seconds + (int64_t)(before / CLOCK_HZ));
    if (delay && delay <= updates)
        r->cmos[REG_C] |= C_AF;
}

/* Tick of the next event whose interrupt is enabled, VDEV_NEVER for none. */
static uint64_t next_event(const struct rtc *r)
{
    uint8_t enabled = r->cmos[REG_B];
    uint64_t tick = r->flags_tick, next = VDEV_NEVER;
    uint32_t period = periodic_ticks(r);
    if ((enabled & B_PIE) && period)
        next = (tick / period + 1) * period;
    uint64_t second = tick / CLOCK_HZ;
    uint32_t delay = 0;
    if (enabled & B_UIE)
        delay = 1;
    else if (enabled & B_AIE)
        delay = alarm_delay(r, r->base_seconds + (int64_t)second);
    if (delay && (second + delay) * CLOCK_HZ < next)
        next = (second + delay) * CLOCK_HZ;
    return next;
}

/* Brings flags, interrupt line and timer up to date. While the interrupt is pending no timer runs: a guest
 * that does not read register C gets no further interrupts, as on hardware. */
static void update(struct rtc *r, uint64_t now_ns)
{
    collect_flags(r, now_ns);
    bool line = r->cmos[REG_C] & r->cmos[REG_B] & (C_PF | C_AF | C_UF);
    r->cmos[REG_C] = (r->cmos[REG_C] & (uint8_t)~C_IRQF) | (line ? C_IRQF : 0);
    if (line != r->line) {
        r->line = line;
        vdev_set_irq(&r->dev, RTC_IRQ, line);
    }
    uint64_t next = line || r->stopped ? VDEV_NEVER : next_event(r), deadline = VDEV_NEVER;
    if (next != VDEV_NEVER)
        deadline = r->base_ns + vdev_ticks_to_ns(next, CLOCK_HZ);
    vdev_set_timer(&r->dev, deadline);
}

static void rtc_timer(struct vdev *dev, uint64_t now_ns)
{
    update(rtc_of(dev), now_ns);
}

/* Registers A and B stop and start the clock. */
static void set_control(struct rtc *r, enum rtc_reg reg, uint8_t value, uint64_t now_ns)
{
    collect_flags(r, now_ns);
    if (!r->stopped)
        time_to_registers(r, now_ns);
    uint8_t old_format = r->cmos[REG_B];
    r->cmos[reg] = value;
    bool divider_runs = (r->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_RUN;
    bool stopped = !divider_runs || (r->cmos[REG_B] & B_SET);
    if (!divider_runs)
        r->divider_was_reset = true;
    if (r->stopped && !stopped) {
        /* A guest that only looked under SET loses no time. */
        if (r->dirty || r->divider_was_reset)
            time_from_registers(r, now_ns);
        r->flags_tick = ticks_at(r, now_ns);
        r->dirty = r->divider_was_reset = false;
    } else if (r->stopped && ((old_format ^ r->cmos[REG_B]) & (B_BINARY | B_24H))) {
        r->dirty = true; /* the same bytes mean another time */
    }
    r->stopped = stopped;
    update(r, now_ns);
}

static void write_time(struct rtc *r, uint8_t index, uint8_t value, uint64_t now_ns)
{
    if (r->stopped) {
        r->cmos[index] = value;
        r->dirty = true;
        return;
    }
    collect_flags(r, now_ns);
    time_to_registers(r, now_ns);
    r->cmos[index] = value;
    time_from_registers(r, now_ns);
    update(r, now_ns);
}

static void write_data(struct rtc *r, uint8_t value)
{
    uint64_t now_ns = vdev_now(&r->dev);
    switch (r->index) {
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY:
    case REG_DAY:
    case REG_MONTH:
    case REG_YEAR:
    case RTC_CENTURY:
        write_time(r, r->index, value, now_ns);
        break;
    case REG_SECONDS_ALARM:
    case REG_MINUTES_ALARM:
    case REG_HOURS_ALARM:
        collect_flags(r, now_ns);
        r->cmos[r->index] = value;
        update(r, now_ns);
        break;
    case REG_A:
        set_control(r, REG_A, value & (uint8_t)~A_UIP, now_ns);
        break;
    case REG_B: /* SET clears UIE */
        set_control(r, REG_B, value & B_SET ? value & (uint8_t)~B_UIE : value, now_ns);
        break;
    case REG_C: /* read-only */
    case REG_D:
        break;
    default:
        r->cmos[r->index] = value;
        break;
    }
}

static uint8_t read_a(const struct rtc *r, uint64_t now_ns)
{
    bool updating = !r->stopped && ticks_at(r, now_ns) % CLOCK_HZ >= CLOCK_HZ - UIP_TICKS;
    return r->cmos[REG_A] | (updating ? A_UIP : 0);
}

static uint8_t read_data(struct rtc *r)
{
    uint64_t now_ns = vdev_now(&r->dev);
    uint8_t value;
    switch (r->index) {
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY:
    case REG_DAY:
    case REG_MONTH:
    case REG_YEAR:
    case RTC_CENTURY:
        if (!r->stopped)
            time_to_registers(r, now_ns);
        return r->cmos[r->index];
    case REG_A:
        return read_a(r, now_ns);
    case REG_C:
        update(r, now_ns);
        value = r->cmos[REG_C];
        r->cmos[REG_C] = 0;
        update(r, now_ns);
        return value;
    default:
        return r->cmos[r->index];
    }
}

static void rtc_access(struct vdev *dev, struct io_req *req)
{
    struct rtc *r = rtc_of(dev);
    if (req->size != 1) {
        vdev_split_bytes(dev, req);
    } else if (req->addr == RTC_DATA_PORT) {
        if (req->write)
            write_data(r, (uint8_t)req->value);
        else
            req->value = read_data(r);
    } else if (!req->write) {
        req->value = 0xff; /* the index register is write-only */
    } else if (req->addr == RTC_INDEX_PORT) {
        r->index = (uint8_t)req->value & INDEX_MASK;
        r->nmi_masked = req->value & INDEX_NMI_MASK;
    }
}

static void put_le(struct rtc *r, unsigned at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        r->cmos[at + i] = (uint8_t)(value >> (8 * i));
}

void rtc_set_memory(struct rtc *r, uint64_t below_4g, uint64_t above_4g)
{
    const uint64_t mib = 1u << 20, unit = 1u << 16;
    uint64_t extended = below_4g > mib ? (below_4g - mib) / 1024 : 0;
    uint64_t high = below_4g > 16 * mib ? (below_4g - 16 * mib) / unit : 0;
    extended = extended > UINT16_MAX ? UINT16_MAX : extended;
    put_le(r, CMOS_BASE_KIB, 640, 2);
    put_le(r, CMOS_EXTENDED_KIB, extended, 2);
    put_le(r, CMOS_EXTENDED_KIB2, extended, 2);
    put_le(r, CMOS_ABOVE_16M, high > UINT16_MAX ? UINT16_MAX : high, 2);
    put_le(r, CMOS_ABOVE_4G, above_4g / unit, 3);
    unsigned sum = 0;
    for (unsigned i = CMOS_SUM_FIRST; i <= CMOS_SUM_LAST; i++)
        sum += r->cmos[i];
    r->cmos[CMOS_CHECKSUM] = (uint8_t)(sum >> 8);
    r->cmos[CMOS_CHECKSUM + 1] = (uint8_t)sum;
}

void rtc_set_boot(struct rtc *r, unsigned processors)
{
    r->cmos[CMOS_BOOT_ORDER] = BOOT_HARD_DISK | BOOT_CD << 4;
    r->cmos[CMOS_PROCESSORS] = (uint8_t)(processors - 1);
}

/* Takes the time from the wall clock. Where the two agree, the clock runs on undisturbed: whole seconds are
 * all that env->wall_seconds() knows, and every reset would lose or gain a part of one. */
static void follow_wall_clock(struct rtc *r)
{
    uint64_t now_ns = vdev_now(&r->dev);
    int64_t expected = r->dev.env->wall_seconds(r->dev.env->ctx) + r->guest_offset;
    int64_t ahead = seconds_at(r, now_ns) - expected;
    if (ahead < -1 || ahead > 1) {
        r->base_ns = now_ns;
        r->base_seconds = expected;
    }
    r->flags_tick = ticks_at(r, now_ns);
}

/* The battery keeps the time and the memory: a reset ends interrupts and restores the power-on format. */
static void rtc_reset(struct vdev *dev)
{
    struct rtc *r = rtc_of(dev);
    r->index = 0;
    r->nmi_masked = r->line = r->stopped = r->dirty = r->divider_was_reset = false;
    r->cmos[REG_A] = A_DEFAULT;
    r->cmos[REG_B] = B_24H;
    r->cmos[REG_C] = 0;
    r->cmos[REG_D] = D_VRT;
    follow_wall_clock(r);
    vdev_set_timer(dev, VDEV_NEVER);
    vdev_set_irq(dev, RTC_IRQ, false);
}

static void rtc_init(struct vdev *dev)
{
    struct rtc *r = rtc_of(dev);
    for (unsigned i = 0; i < RTC_CMOS_SIZE; i++)
        r->cmos[i] = 0;
    r->cmos[CMOS_EQUIPMENT] = EQUIPMENT;
    r->guest_offset = 0;
    r->weekday_skew = 0;
    r->base_ns = vdev_now(dev);
    r->base_seconds = dev->env->wall_seconds(dev->env->ctx);
    rtc_reset(dev);
}

const struct vdev_ops rtc_ops = {
    .name = "rtc",
    .init = rtc_init,
    .reset = rtc_reset,
    .access = rtc_access,
    .timer = rtc_timer,
};
