/* What several rules need to make interrupts and to see them come. */
#include "rules.h"

#define LINES   0x2000u
#define ICW1    0x11u
#define ICW4    0x01u
#define LONG_US 100000u

uint64_t arrived(unsigned vector)
{
    return __atomic_load_n(&cpus[0].interrupts[vector], __ATOMIC_SEQ_CST);
}

void take_interrupts(void)
{
    for (unsigned i = 0; i < 4; i++)
        __asm__ volatile("sti; nop; nop; pause; cli" ::: "memory");
}

uint64_t arrivals;

void note_arrival(struct cpu *cpu, unsigned vector)
{
    arrivals = arrivals << 8 | vector;
}

uint64_t taken_with(void (*hook)(struct cpu *, unsigned))
{
    arrivals = 0;
    interrupt_hook = hook;
    take_interrupts();
    interrupt_hook = NULL;
    return arrivals;
}

uint64_t taken(void)
{
    return taken_with(note_arrival);
}

bool comes(unsigned vector, uint64_t us)
{
    uint64_t before = arrived(vector), end = rdtsc() + us * (tsc_hz / 1000000);
    do
        if (us >= LONG_US)
            sleep_ms(1); /* an emulator skips what nobody does */
        else
            take_interrupts();
    while (arrived(vector) == before && rdtsc() < end);
    return arrived(vector) != before;
}

void set_line(unsigned irq, bool high)
{
    out8((uint16_t)(LINES + irq), high);
}

void pic_begin(uint8_t master, uint8_t slave)
{
    out8(PIC_MASTER, ICW1);
    out8(PIC_MASTER_DATA, master);
    out8(PIC_MASTER_DATA, 1u << 2);
    out8(PIC_MASTER_DATA, ICW4);
    out8(PIC_SLAVE, ICW1);
    out8(PIC_SLAVE_DATA, slave);
    out8(PIC_SLAVE_DATA, 2);
    out8(PIC_SLAVE_DATA, ICW4);
    out8(PIC_MASTER_DATA, 0xff);
    out8(PIC_SLAVE_DATA, 0xff);
    apic_write(APIC_LVT_LINT0, LVT_EXTINT);
}

void pic_end(void)
{
    out8(PIC_MASTER_DATA, 0xff);
    out8(PIC_SLAVE_DATA, 0xff);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
}

bool apic_bit(enum apic_register first, unsigned vector)
{
    return apic_read((enum apic_register)((unsigned)first + vector / 32 * 0x10)) >> (vector % 32) & 1;
}

void self_ipi(unsigned vector)
{
    apic_send(0, ICR_SELF | ICR_ASSERT | vector);
}
