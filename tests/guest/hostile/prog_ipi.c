/* Interprocessor interrupts: every destination and vector, every delivery mode, xAPIC and x2APIC; NMI and
 * INIT storms between two processors. Nothing may leave the VM. */
#include "hostile.h"

#define SVR_ON      0x1ffu
#define STORM       2000u
#define ICR_LOGICAL (1u << 11)
#define ICR_LEVEL   (1u << 15)

static volatile uint64_t counter;

static void count_for_ever(void *argument)
{
    (void)argument;
    interrupts_on();
    for (;;) {
        counter++;
        relax();
    }
}

static uint64_t all_destinations(bool x2)
{
    uint64_t sent = 0;
    for (unsigned i = 0; i < (x2 ? 1024u : 256u); i++) {
        uint32_t destination = x2 && i >= 512 ? (uint32_t)0x10000 << (i & 15) | i : i;
        for (unsigned mode = 0; mode < 8; mode++) {
            bool self = destination == 0 || destination == 0xff || destination == 0xffffffff;
            if ((mode == 5 && self) || (mode == 6 && (destination == 1 || self)))
                continue; /* INIT to ourselves ends the VM: program_delivery */
            uint32_t vector = (sent * 7 + 32) & 0xff;
            if (vector == VECTOR_SPURIOUS || (mode == 5 && destination == 1))
                continue;
            apic_send(destination, mode << 8 | vector | ICR_ASSERT);
            if (mode != 5 && mode != 6)
                apic_send(destination, mode << 8 | vector | ICR_LOGICAL | ICR_LEVEL | ICR_ASSERT);
            sent += 2;
        }
    }
    return sent;
}

static uint64_t all_vectors(void)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        if (vector == VECTOR_SPURIOUS)
            continue;
        for (unsigned destination = 0; destination < 3; destination++)
            apic_send(destination, vector | ICR_ASSERT);
        for (uint32_t shorthand = 1; shorthand < 4; shorthand++)
            apic_send(0, vector | shorthand << 18 | ICR_ASSERT);
    }
    return 256 * 6;
}

/* Does this processor, and the other, still take interrupts? */
static bool alive(void)
{
    uint64_t before = this_cpu()->interrupts[0x50], counted = counter;
    apic_send(0, 0x50 | ICR_ASSERT | 1u << 18);
    spin_us(2000);
    return this_cpu()->interrupts[0x50] > before && counter > counted;
}

static bool run(const char *name, bool x2)
{
    bool second = cpu_start(1, count_for_ever, NULL);
    low_vectors(true);
    uint64_t here = 0, there = 0;
    interrupts_on();
    uint64_t sent = all_destinations(x2) + all_vectors();
    interrupts_off();
    second = second && cpu_start(1, count_for_ever, NULL);
    low_vectors(true); /* after a thousand odd messages */
    interrupts_on();
    for (unsigned i = 0; i < 256; i++) {
        here += cpus[0].interrupts[i];
        there += cpus[1].interrupts[i];
    }
    bool good = second && alive();
    interrupts_off();
    low_vectors(false);
    apic_send(1, ICR_INIT | ICR_ASSERT);
    verdict(name, good, "%u messages, %u arrived here, %u at the other processor", sent, here, there);
    return good;
}

void program_ipi(unsigned step)
{
    (void)step;
    run("ipi", false);
}

void program_ipi_x2(unsigned step)
{
    (void)step;
    if (!apic_enable_x2()) {
        verdict("ipi_x2", true, "there is no x2APIC");
        return;
    }
    apic_write(APIC_SVR, SVR_ON);
    run("ipi_x2", true);
    apic_reset_mode();
}

void program_ipi_storm(unsigned step)
{
    (void)step;
    bool good = cpu_start(1, count_for_ever, NULL);
    uint64_t nmis = cpus[1].interrupts[VECTOR_NMI];
    for (unsigned i = 0; i < STORM; i++)
        apic_send(1, ICR_NMI | ICR_ASSERT);
    spin_us(1000);
    nmis = cpus[1].interrupts[VECTOR_NMI] - nmis;
    for (unsigned i = 0; i < STORM; i++) {
        apic_send(1, ICR_INIT | ICR_ASSERT);
        apic_send(1, (i & 1 ? ICR_SIPI : ICR_NMI) | ICR_ASSERT | 1);
    }
    unsigned starts = 0;
    for (unsigned i = 0; i < 50; i++)
        starts += cpu_start(1, count_for_ever, NULL);
    uint64_t own = this_cpu()->interrupts[VECTOR_NMI];
    for (unsigned i = 0; i < STORM; i++)
        apic_send(0, ICR_NMI | ICR_ASSERT | 1u << 18);
    own = this_cpu()->interrupts[VECTOR_NMI] - own;
    interrupts_on();
    good = good && alive() && starts == 50 && nmis > 0 && own > 0;
    interrupts_off();
    apic_send(1, ICR_INIT | ICR_ASSERT);
    verdict("ipi_storm", good, "%u NMIs sent, %u taken; %u INITs, then %u of 50 starts; %u NMIs to itself",
            (uint64_t)STORM, nmis, (uint64_t)STORM, (uint64_t)starts, own);
}
