/* The I/O APIC: data sheet "82093AA I/O Advanced Programmable Interrupt Controller". Lines are raised with
 * the test device. */
#include "rules.h"

#define INDEX       0x00u
#define WINDOW      0x10u
#define REG_ID      0x00u
#define REG_VERSION 0x01u
#define REG_ARB     0x02u
#define REG_TABLE   0x10u
#define PINS        24u
#define PIN         10u
#define PIN2        11u
#define VECTOR_A    0x71u
#define VECTOR_B    0x81u
#define LEVEL       (1u << 15)
#define LOW_ACTIVE  (1u << 13)
#define LOGICAL     (1u << 11)
#define PENDING     (1u << 12)
#define REMOTE_IRR  (1u << 14)
#define MASKED      (1u << 16)

static volatile uint32_t *const page = (volatile uint32_t *)IOAPIC_PAGE;

static uint32_t get(uint8_t reg)
{
    page[INDEX / 4] = reg;
    return page[WINDOW / 4];
}

static void put(uint8_t reg, uint32_t v)
{
    page[INDEX / 4] = reg;
    page[WINDOW / 4] = v;
}

static uint32_t entry(unsigned pin)
{
    return get((uint8_t)(REG_TABLE + 2 * pin));
}

static void set_entry(unsigned pin, uint32_t low, uint8_t destination)
{
    put((uint8_t)(REG_TABLE + 2 * pin), MASKED);
    put((uint8_t)(REG_TABLE + 2 * pin + 1), (uint32_t)destination << 24);
    put((uint8_t)(REG_TABLE + 2 * pin), low);
}

static void pulse(unsigned pin)
{
    set_line(pin, true);
    set_line(pin, false);
}

static uint64_t count(unsigned vector)
{
    uint64_t before = arrived(vector);
    take_interrupts();
    return arrived(vector) - before;
}

static void registers(void)
{
    check_equal(get(REG_VERSION) >> 16 & 0xff, PINS - 1, "the last entry");
    uint32_t id = get(REG_ID);
    put(REG_ID, 0x05000000);
    check_equal(get(REG_ID), 0x05000000, "the ID is written");
    put(REG_ID, 0xffffffff);
    check_equal(get(REG_ID), 0x0f000000, "the ID has 4 bits");
    put(REG_ID, id);
    uint32_t version = get(REG_VERSION);
    put(REG_VERSION, 0);
    check_equal(get(REG_VERSION), version, "the version is read-only");
    page[INDEX / 4] = REG_TABLE + 2 * PIN;
    check_equal(page[INDEX / 4] & 0xff, REG_TABLE + 2 * PIN, "the index reads back");
    for (unsigned pin = 0; pin < PINS; pin++) {
        set_entry(pin, MASKED | LEVEL | LOGICAL | VECTOR_A, 0xa5);
        check(entry(pin) == (MASKED | LEVEL | LOGICAL | VECTOR_A), "entry %u reads %x", (uint64_t)pin,
              (uint64_t)entry(pin));
        check_equal(get((uint8_t)(REG_TABLE + 2 * pin + 1)), 0xa5000000, "a destination reads back");
        set_entry(pin, MASKED, 0);
    }
    put((uint8_t)(REG_TABLE + 2 * PIN), MASKED | REMOTE_IRR | PENDING | VECTOR_A);
    check_equal(entry(PIN), MASKED | VECTOR_A, "delivery status and remote IRR are read-only");
}

static void edges(void)
{
    set_line(PIN, false);
    set_entry(PIN, VECTOR_A, 0);
    check_equal(count(VECTOR_A), 0, "an edge: nothing before it");
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "an edge");
    set_line(PIN, true);
    set_line(PIN, true);
    check_equal(count(VECTOR_A), 1, "a line that stays high is one edge");
    check_equal(count(VECTOR_A), 0, "and only one");
    check_equal(entry(PIN) & REMOTE_IRR, 0, "an edge: no remote IRR");
    set_line(PIN, false);
    pulse(PIN);
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "two edges before the first is taken are one interrupt");
    /* A device asserts its line, whatever voltage the machine and its firmware agree upon for it. */
    set_entry(PIN, VECTOR_A | LOW_ACTIVE, 0);
    check_equal(entry(PIN), VECTOR_A | LOW_ACTIVE, "the polarity reads back");
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "an edge of an active low line");
    set_entry(PIN, VECTOR_A | MASKED, 0);
    pulse(PIN);
    check_equal(count(VECTOR_A), 0, "masked");
}

static unsigned nested;

/* Lowers the line in the handler, before its end of interrupt. */
static void lower_second(struct cpu *cpu, unsigned vector)
{
    check(entry(PIN) & REMOTE_IRR, "a level: remote IRR while it is served");
    if (++nested == 2)
        set_line(PIN, false);
}

static void lower_first(struct cpu *cpu, unsigned vector)
{
    nested++;
    set_line(PIN, false);
}

static void raise_again(struct cpu *cpu, unsigned vector)
{
    if (++nested == 1) {
        set_line(PIN, false);
        set_line(PIN, true);
        check(!apic_bit(APIC_IRR, VECTOR_A), "a level is not sent again before its end of interrupt");
    } else {
        set_line(PIN, false);
    }
}

static void levels(void)
{
    static const struct {
        const char *what;
        void (*hook)(struct cpu *, unsigned);
        uint64_t times;
    } cases[] = {
        {"a level that goes in its handler", lower_first, 1},
        {"a level that stays until the second", lower_second, 2},
        {"a level that goes and comes in its handler", raise_again, 2},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set_line(PIN, false);
        set_entry(PIN, VECTOR_A | LEVEL, 0);
        nested = 0;
        interrupt_hook = cases[i].hook;
        set_line(PIN, true);
        check(entry(PIN) & REMOTE_IRR, "%s: remote IRR before it is taken", cases[i].what);
        check_equal(count(VECTOR_A), cases[i].times, cases[i].what);
        interrupt_hook = NULL;
        check(!(entry(PIN) & REMOTE_IRR), "%s: no remote IRR afterwards", cases[i].what);
    }
    set_entry(PIN, VECTOR_A | LEVEL | MASKED, 0);
    set_line(PIN, true);
    check_equal(count(VECTOR_A), 0, "a masked level");
    interrupt_hook = lower_first;
    put(REG_TABLE + 2 * PIN, VECTOR_A | LEVEL);
    check_equal(count(VECTOR_A), 1, "unmasked: the level is still there");
    interrupt_hook = NULL;
    set_entry(PIN, VECTOR_A | LEVEL | MASKED, 0);
    set_line(PIN, true);
    set_line(PIN, false);
    put(REG_TABLE + 2 * PIN, VECTOR_A | LEVEL);
    check_equal(count(VECTOR_A), 0, "unmasked: the level has gone");
}

static void destinations(void)
{
    set_entry(PIN, VECTOR_A, 1); /* nobody in a VM of one processor */
    pulse(PIN);
    check_equal(count(VECTOR_A), 0, "physical, somebody else");
    set_entry(PIN, VECTOR_A, 0xff);
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "physical, all");
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0x04000000);
    set_entry(PIN, VECTOR_A | LOGICAL, 0x0c);
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "logical, flat: one of two bits");
    set_entry(PIN, VECTOR_A | LOGICAL, 0x03);
    pulse(PIN);
    check_equal(count(VECTOR_A), 0, "logical, flat: other bits");
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LDR, 0x24000000);
    set_entry(PIN, VECTOR_A | LOGICAL, 0x2c);
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "logical, cluster");
    set_entry(PIN, VECTOR_A | LOGICAL, 0x14);
    pulse(PIN);
    check_equal(count(VECTOR_A), 0, "logical, another cluster");
    apic_write(APIC_DFR, 0xffffffff);
    set_entry(PIN, VECTOR_A | 1u << 8, 0); /* lowest priority */
    pulse(PIN);
    check_equal(count(VECTOR_A), 1, "lowest priority");
    uint64_t nmis = arrived(VECTOR_NMI);
    set_entry(PIN, 4u << 8, 0);
    pulse(PIN);
    check_equal(arrived(VECTOR_NMI) - nmis, 1, "NMI, with interrupts off");
    /* The higher vector goes first, whatever came first. */
    set_entry(PIN, VECTOR_A, 0);
    set_entry(PIN2, VECTOR_B, 0);
    pulse(PIN);
    pulse(PIN2);
    check_equal(taken(), VECTOR_B << 8 | VECTOR_A, "the higher vector first");
    set_entry(PIN2, MASKED, 0);
    set_entry(PIN, MASKED, 0);
}

void rule_ioapic(void)
{
    registers();
    edges();
    levels();
    destinations();
    set_line(PIN, false);
}
