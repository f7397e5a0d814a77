/* The local APIC: SDM volume 3, chapter "Advanced Programmable Interrupt Controller": registers, priorities,
 * the error status, the timer. */
#include "rules.h"

#define LOW_VECTOR          0x45u
#define HIGH_VECTOR         0xa5u
#define TIMER               0x55u
#define VECTOR_ERROR        0x65u
#define SVR_ON              0x1ffu
#define SVR_OFF             0x0ffu
#define LVT_PERIODIC        (1u << 17)
#define LVT_DEADLINE        (2u << 17)
#define DIVIDE_1            0xbu
#define DIVIDE_16           0x3u
#define ESR_SEND_ILLEGAL    0x20u
#define ESR_RECEIVE_ILLEGAL 0x40u
#define ESR_REGISTER        0x80u
#define MSR_DEADLINE        0x6e0u

static unsigned shown_isr, shown_ppr;

static void note_registers(struct cpu *cpu, unsigned vector)
{
    note_arrival(cpu, vector);
    shown_isr = apic_bit(APIC_ISR, vector);
    shown_ppr = apic_read(APIC_PPR);
}

static void registers(void)
{
    uint32_t version = apic_read(APIC_VERSION);
    check((version & 0xff) >= 0x10 && (version & 0xff) <= 0x15, "the version: %x", (uint64_t)version);
    check((version >> 16 & 0xff) >= 3, "the last LVT entry: %u", (uint64_t)(version >> 16 & 0xff));
    apic_write(APIC_VERSION, 0);
    check_equal(apic_read(APIC_VERSION), version, "the version is read-only");
    apic_write(APIC_TPR, 0xffffffff);
    check_equal(apic_read(APIC_TPR), 0xff, "TPR has 8 bits");
    check_equal(read_cr8(), 0xf, "CR8 is its upper half");
    write_cr8(5);
    check_equal(apic_read(APIC_TPR), 0x50, "CR8 writes TPR");
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LDR, 0xffffffff);
    check_equal(apic_read(APIC_LDR), 0xff000000, "LDR has its upper byte");
    apic_write(APIC_DFR, 0);
    check_equal(apic_read(APIC_DFR), 0x0fffffff, "DFR has its upper four bits");
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LINT1, 0xffffffff);
    check_equal(apic_read(APIC_LINT1) & ~0x5000u, 0x1a7ff, "LINT1: what can be written");
    apic_write(APIC_LINT1, LVT_MASKED);
    apic_write(APIC_LVT_TIMER, 0xffffffff);
    check_equal(apic_read(APIC_LVT_TIMER) & ~0x1000u & ~LVT_DEADLINE, 0x300ff & ~LVT_DEADLINE,
                "the timer's LVT");
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_SVR, SVR_OFF);
    apic_write(APIC_LINT1, 0x400);
    check_equal(apic_read(APIC_LINT1), LVT_MASKED | 0x400, "disabled by software, LVT entries stay masked");
    apic_write(APIC_SVR, SVR_ON);
    check_equal(apic_read(APIC_LINT1), LVT_MASKED | 0x400, "and are not unmasked by themselves");
    apic_write(APIC_LINT1, LVT_MASKED);
}

static void priorities(void)
{
    self_ipi(LOW_VECTOR);
    check(apic_bit(APIC_IRR, LOW_VECTOR), "IRR while interrupts are off");
    check(!apic_bit(APIC_ISR, LOW_VECTOR), "ISR while interrupts are off");
    self_ipi(HIGH_VECTOR);
    check_equal(taken_with(note_registers), (uint64_t)HIGH_VECTOR << 8 | LOW_VECTOR,
                "the higher vector first");
    check(shown_isr, "ISR in the handler");
    check_equal(shown_ppr, LOW_VECTOR & 0xf0, "PPR in the handler");
    check_equal(apic_read(APIC_PPR), 0, "PPR afterwards");
    write_cr8(HIGH_VECTOR >> 4);
    self_ipi(HIGH_VECTOR);
    check_equal(taken(), 0, "a class that TPR holds back");
    check_equal(apic_read(APIC_PPR), HIGH_VECTOR & 0xf0, "PPR is TPR");
    write_cr8((HIGH_VECTOR >> 4) - 1);
    check_equal(taken(), HIGH_VECTOR, "CR8 lets it through");
    self_ipi(HIGH_VECTOR);
    apic_write(APIC_TPR, 0xf0);
    check_equal(taken(), 0, "TPR holds back all");
    apic_write(APIC_TPR, 0);
    check_equal(taken(), HIGH_VECTOR, "TPR lets it through");
    self_ipi(LOW_VECTOR);
    self_ipi(LOW_VECTOR);
    check_equal(taken(), LOW_VECTOR, "twice the same is once");
}

static unsigned inner;

/* While one is served, of its class nothing, of a higher one everything. */
static void nest(struct cpu *cpu, unsigned vector)
{
    if (vector != LOW_VECTOR)
        return;
    self_ipi(LOW_VECTOR + 1);
    self_ipi(HIGH_VECTOR);
    uint64_t high = arrived(HIGH_VECTOR), same = arrived(LOW_VECTOR + 1);
    inner = (unsigned)(apic_bit(APIC_IRR, HIGH_VECTOR) && apic_bit(APIC_IRR, LOW_VECTOR + 1) &&
                       arrived(HIGH_VECTOR) == high && arrived(LOW_VECTOR + 1) == same);
}

static void service(void)
{
    uint64_t high = arrived(HIGH_VECTOR), same = arrived(LOW_VECTOR + 1);
    interrupt_hook = nest;
    self_ipi(LOW_VECTOR);
    take_interrupts();
    interrupt_hook = NULL;
    check(inner, "what comes in a handler with interrupts off waits in IRR");
    check(arrived(HIGH_VECTOR) == high + 1 && arrived(LOW_VECTOR + 1) == same + 1, "and comes later");
}

static void errors(void)
{
    apic_write(APIC_LVT_ERROR, VECTOR_ERROR);
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
    check_equal(apic_read(APIC_ESR), 0, "no errors at first");
    apic_send(0, ICR_ASSERT | 5); /* vectors 0..15 are illegal */
    check_equal(apic_read(APIC_ESR), 0, "ESR shows errors after a write only");
    apic_write(APIC_ESR, 0);
    check(apic_read(APIC_ESR) & (ESR_SEND_ILLEGAL | ESR_RECEIVE_ILLEGAL), "an illegal vector: ESR %x",
          (uint64_t)apic_read(APIC_ESR));
    check(comes(VECTOR_ERROR, 100), "an error interrupts");
    *(volatile uint32_t *)(APIC_PAGE + 0x40) = 0; /* there is no such register */
    apic_write(APIC_ESR, 0);
    check_equal(apic_read(APIC_ESR), ESR_REGISTER, "a register that is not there");
    take_interrupts();
    apic_write(APIC_ESR, 0);
    check_equal(apic_read(APIC_ESR), 0, "a second write clears");
    apic_write(APIC_LVT_ERROR, LVT_MASKED);
}

static void timer(void)
{
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_1);
    apic_write(APIC_LVT_TIMER, TIMER);
    apic_write(APIC_TIMER_COUNT, 100000);
    uint32_t a = apic_read(APIC_TIMER_NOW);
    check(a <= 100000 && a > 0, "the count: %u", (uint64_t)a);
    check(comes(TIMER, 50000), "one shot");
    check_equal(apic_read(APIC_TIMER_NOW), 0, "the count at the end");
    check(!comes(TIMER, 20000), "and only one");
    apic_write(APIC_LVT_TIMER, TIMER | LVT_PERIODIC);
    apic_write(APIC_TIMER_COUNT, 50000);
    unsigned count = 0;
    while (count < 4 && comes(TIMER, 50000))
        count++;
    check_equal(count, 4, "periodic");
    check(apic_read(APIC_TIMER_NOW) > 0, "periodic: it goes on counting");
    apic_write(APIC_LVT_TIMER, LVT_MASKED | TIMER | LVT_PERIODIC);
    take_interrupts();
    check(!comes(TIMER, 5000), "masked");
    apic_write(APIC_TIMER_COUNT, 0);
    check_equal(apic_read(APIC_TIMER_NOW), 0, "an initial count of 0 stops it");
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_16);
    apic_write(APIC_TIMER_COUNT, 0xffffffff);
    uint64_t begin = rdtsc();
    spin_us(2000);
    uint64_t slow = 0xffffffff - apic_read(APIC_TIMER_NOW), tsc = rdtsc() - begin;
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_1);
    apic_write(APIC_TIMER_COUNT, 0xffffffff);
    begin = rdtsc();
    spin_us(2000);
    uint64_t fast = 0xffffffff - apic_read(APIC_TIMER_NOW);
    fast = fast * tsc / (rdtsc() - begin);
    check(fast > slow * 15 && fast < slow * 17, "divided by 16: %u, by 1: %u", slow, fast);
    apic_write(APIC_TIMER_COUNT, 0);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

/* IA32_TSC_DEADLINE (section "TSC-Deadline Mode"). */
static void deadline(void)
{
    if (!cpu_has(1, 0, 2, 24)) {
        skipped("TSC deadline");
        return;
    }
    uint64_t v;
    apic_write(APIC_LVT_TIMER, TIMER);
    wrmsr(MSR_DEADLINE, rdtsc() + 1000);
    check(!comes(TIMER, 1000), "in another mode a deadline is ignored");
    check(try_rdmsr(MSR_DEADLINE, &v) == NO_FAULT && v == 0, "and reads 0: %x", v);
    apic_write(APIC_LVT_TIMER, TIMER | LVT_DEADLINE);
    __asm__ volatile("mfence" ::: "memory");
    apic_write(APIC_TIMER_COUNT, 1000);
    check_equal(apic_read(APIC_TIMER_COUNT), 0, "in this mode an initial count is ignored");
    uint64_t at = rdtsc() + tsc_hz / 1000;
    wrmsr(MSR_DEADLINE, at);
    check_equal(rdmsr(MSR_DEADLINE), at, "a deadline reads back while it is armed");
    check(comes(TIMER, 5000) && rdtsc() >= at, "a deadline is not early");
    check_equal(rdmsr(MSR_DEADLINE), 0, "and then reads 0");
    wrmsr(MSR_DEADLINE, rdtsc() - 1);
    check(comes(TIMER, 100), "a deadline in the past comes at once");
    wrmsr(MSR_DEADLINE, rdtsc() + tsc_hz / 1000);
    wrmsr(MSR_DEADLINE, 0);
    check(!comes(TIMER, 3000), "0 disarms");
    wrmsr(MSR_DEADLINE, rdtsc() + tsc_hz / 1000);
    apic_write(APIC_LVT_TIMER, TIMER);
    check(!comes(TIMER, 3000), "another mode disarms");
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

void rule_apic(void)
{
    registers();
    priorities();
    service();
    errors();
    timer();
    deadline();
}
