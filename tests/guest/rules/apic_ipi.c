/* Interrupts from processor to processor: SDM volume 3, "Issuing Interprocessor Interrupts", "Determining IPI
 * Destination"; two processors, xAPIC and x2APIC mode. */
#include "rules.h"

#define VECTOR_A 0x47u
#define OTHER    1u
#define WAIT_US  2000u
#define FLAT     0xffffffffu
#define CLUSTER  0x0fffffffu

static volatile uint32_t order_logical, order_model;
static volatile bool leave, ready;

/* What the other processor does: interrupts on, with a logical address of its own. */
static void listen(void *argument)
{
    if (argument && !apic_enable_x2())
        return;
    if (!argument) {
        apic_write(APIC_DFR, order_model);
        apic_write(APIC_LDR, order_logical);
    }
    apic_write(APIC_SVR, 0x1ff);
    ready = true;
    while (!leave)
        __asm__ volatile("sti; pause; cli" ::: "memory");
    if (argument)
        apic_reset_mode();
}

static bool start(bool x2, uint32_t model, uint32_t logical)
{
    leave = ready = false;
    order_model = model;
    order_logical = logical;
    bool up = cpu_start(OTHER, listen, x2 ? (void *)1 : NULL);
    for (unsigned i = 0; i < 1000 && !ready; i++)
        spin_us(10);
    return up && ready;
}

static void stop(void)
{
    leave = true;
    check(cpu_wait(OTHER, 1000000), "the other processor ends");
}

/* Sends, and counts what arrives here and there. */
static void expect_at(const char *what, uint32_t destination, uint32_t low, unsigned here, unsigned there)
{
    uint64_t mine = arrived(VECTOR_A), its = cpus[OTHER].interrupts[VECTOR_A],
             end = rdtsc() + WAIT_US * (tsc_hz / 1000000);
    apic_send(destination, low | VECTOR_A | ICR_ASSERT);
    do
        take_interrupts();
    while (rdtsc() < end && !(arrived(VECTOR_A) - mine == here &&
                              cpus[OTHER].interrupts[VECTOR_A] - its == there && here + there));
    take_interrupts();
    check(arrived(VECTOR_A) - mine == here && cpus[OTHER].interrupts[VECTOR_A] - its == there,
          "%s: %u here, %u there, expected %u and %u", what, arrived(VECTOR_A) - mine,
          cpus[OTHER].interrupts[VECTOR_A] - its, (uint64_t)here, (uint64_t)there);
}

static void shorthands(const char *mode)
{
    expect_at(mode, 0, ICR_SELF, 1, 0);
    expect_at(mode, 0, ICR_ALL, 1, 1);
    expect_at(mode, 0, ICR_OTHERS, 0, 1);
}

static void xapic(void)
{
    apic_write(APIC_DFR, FLAT);
    apic_write(APIC_LDR, 0x01000000);
    if (!check(start(false, FLAT, 0x02000000), "the other processor starts"))
        return;
    expect_at("physical, here", 0, 0, 1, 0);
    expect_at("physical, there", 1, 0, 0, 1);
    expect_at("physical, nobody", 7, 0, 0, 0);
    expect_at("physical, all", 0xff, 0, 1, 1);
    expect_at("flat, both", 3, ICR_LOGICAL, 1, 1);
    expect_at("flat, there", 2, ICR_LOGICAL, 0, 1);
    expect_at("flat, nobody", 0xfc, ICR_LOGICAL, 0, 0);
    expect_at("flat, all", 0xff, ICR_LOGICAL, 1, 1);
    expect_at("lowest priority, there", 2, ICR_LOGICAL | 1u << 8, 0, 1);
    shorthands("shorthand");
    stop();
    apic_write(APIC_DFR, CLUSTER);
    apic_write(APIC_LDR, 0x11000000);
    if (!check(start(false, CLUSTER, 0x22000000), "the other processor starts again"))
        return;
    expect_at("cluster 1", 0x1f, ICR_LOGICAL, 1, 0);
    expect_at("cluster 2", 0x22, ICR_LOGICAL, 0, 1);
    expect_at("cluster 2, another member", 0x21, ICR_LOGICAL, 0, 0);
    expect_at("every cluster", 0xff, ICR_LOGICAL, 1, 1);
    expect_at("only all ones are every cluster", 0xf2, ICR_LOGICAL, 0, 0);
    stop();
    apic_write(APIC_DFR, FLAT);
}

static void x2apic(void)
{
    if (!apic_enable_x2()) {
        skipped("x2APIC");
        return;
    }
    apic_write(APIC_SVR, 0x1ff);
    if (check(start(true, 0, 0), "the other processor starts in x2APIC mode")) {
        expect_at("x2APIC physical, here", 0, 0, 1, 0);
        expect_at("x2APIC physical, there", 1, 0, 0, 1);
        expect_at("x2APIC physical, nobody", 0xff, 0, 0, 0);
        expect_at("x2APIC physical, all", 0xffffffff, 0, 1, 1);
        expect_at("x2APIC logical, both", 3, ICR_LOGICAL, 1, 1);
        expect_at("x2APIC logical, there", 2, ICR_LOGICAL, 0, 1);
        expect_at("x2APIC logical, another cluster", 0x10003, ICR_LOGICAL, 0, 0);
        expect_at("x2APIC logical, all", 0xffffffff, ICR_LOGICAL, 1, 1);
        shorthands("x2APIC shorthand");
        stop();
    }
    apic_reset_mode();
}

/* NMI and INIT reach a processor that has interrupts off; a second start-up IPI is ignored. */
static void nap(void *argument)
{
    ready = true;
    while (!leave)
        relax();
}

static void special(void)
{
    leave = ready = false;
    if (!check(cpu_start(OTHER, nap, NULL), "the other processor starts with interrupts off"))
        return;
    uint64_t before = cpus[OTHER].interrupts[VECTOR_NMI], end = rdtsc() + WAIT_US * (tsc_hz / 1000000);
    apic_send(OTHER, ICR_NMI | ICR_ASSERT);
    while (cpus[OTHER].interrupts[VECTOR_NMI] == before && rdtsc() < end)
        relax();
    check_equal(cpus[OTHER].interrupts[VECTOR_NMI] - before, 1, "NMI");
    apic_send(OTHER, ICR_SIPI | ICR_ASSERT | 1);
    spin_us(100);
    stop();
}

void rule_apic_ipi(void)
{
    xapic();
    x2apic();
    special();
}
