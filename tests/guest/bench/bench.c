/* A bare-metal guest that measures what exits cost. Where one CPU's time stamp counter counts instructions
 * (Bochs with clock: sync=none) the numbers are instructions and repeat exactly. Each is the smallest of many
 * repetitions, less the smallest of the same code without the operation. Nothing is printed before all is
 * measured. */
#include "tests/guest/bench/bench.h"

#define REPETITIONS  300
#define LATE_RUNS    50
#define LATE_TICKS   20000u
#define PAGES        512
#define BORDER_RUNS  1000u
#define BORDER_TICKS 2000u        /* longer than an exit and the next entry */
#define TOUCH_BASE   0x2000000ull /* nothing is below the end of memory here: 64 MiB are the least a VM has */
#define COM1         0x3f8
#define PM1A_CNT     0x604 /* Bulkhead's FADT says so */
#define PM1_SLEEP_S5 (7u << 10 | 1u << 13)

#define VECTOR_UD  6
#define VECTOR     0x40
#define VECTOR_EOI 0x41
#define MSI_PORT   0x2020 /* of the test device: address, data, raise */
#define CODE64     0x10   /* the boot protocol's __BOOT_CS */

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC(reg)  (0x800u + ((reg) >> 4))
#define APIC_BASE_X2APIC (1u << 10)
#define APIC_EOI         0xb0u
#define APIC_SVR         0xf0u
#define APIC_LVT_TIMER   0x320u
#define APIC_SELF_IPI    0x3f0u
#define SVR_ENABLE       0x1ffu
#define ICR_SELF         (1u << 18)
#define LVT_TSC_DEADLINE (2u << 17)
#define MSI_ADDRESS      0xfee00000u /* to the first processor */

extern const uint8_t fault_stubs[];
extern void handler_ud(void);
extern void handler_x2apic(void);
extern void handler_x2apic_eoi(void);
extern void handler_xapic(void);
void bench_main(void);
void bench_fault(uint64_t vector, uint64_t first, uint64_t second);

volatile uint32_t bench_tsc, bench_eoi_cost;
volatile uint64_t bench_xapic_eoi, bench_ud_rsp;
static volatile uint32_t *xapic; /* its registers */

static struct {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
} idt[256];

static struct result {
    const char *name;
    uint32_t cost;
} results[40];
static unsigned result_count;

/* ---- the machine ---- */

static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline void out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint8_t in8(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void print(const char *text)
{
    for (; *text; text++) {
        while (!(in8(COM1 + 5) & 0x20))
            ;
        out8(COM1, (uint8_t)*text);
    }
}

static void print_number(uint64_t v, unsigned base)
{
    char digits[24];
    unsigned at = sizeof(digits);
    digits[--at] = 0;
    do
        digits[--at] = "0123456789abcdef"[v % base];
    while (v /= base);
    print(digits + at);
}

static void power_off(void)
{
    __asm__ volatile("outw %0, %1" ::"a"((uint16_t)PM1_SLEEP_S5), "Nd"((uint16_t)PM1A_CNT));
}

void bench_fault(uint64_t vector, uint64_t first, uint64_t second)
{
    print("BENCH-FAULT vector ");
    print_number(vector, 10);
    print(", on the stack 0x");
    print_number(first, 16);
    print(" 0x");
    print_number(second, 16);
    print("\n");
    power_off();
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void gate(unsigned vector, const void *handler)
{
    uint64_t at = (uintptr_t)handler;
    idt[vector].offset_low = (uint16_t)at;
    idt[vector].selector = CODE64;
    idt[vector].type = 0x8e;
    idt[vector].offset_middle = (uint16_t)(at >> 16);
    idt[vector].offset_high = (uint32_t)(at >> 32);
}

static void set_up(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};
    for (unsigned i = 0; i < 32; i++)
        gate(i, fault_stubs + 16 * i);
    __asm__ volatile("lidt %0" ::"m"(pointer));
    out8(0x21, 0xff); /* no interrupts but the local APIC's */
    out8(0xa1, 0xff);
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4 | 1u << 18)); /* OSXSAVE, for XSETBV */
    xapic =
        (volatile uint32_t *)(rdmsr(MSR_APIC_BASE) & 0xffffff000ull); // NOLINT: the address is the hardware's
    bench_xapic_eoi = (uintptr_t)xapic + APIC_EOI;
}

/* ---- one exit ---- */

/* Two functions: the setup between two readings of the counter, with the operation and without. */
#define ONE(function, code)                                                                                  \
    static uint32_t function(void)                                                                           \
    {                                                                                                        \
        uint32_t ticks;                                                                                      \
        __asm__ volatile("rdtsc\n\tmov %%eax, %%r8d\n\t" code "rdtsc\n\tsub %%r8d, %%eax"                    \
                         : "=a"(ticks)                                                                       \
                         :                                                                                   \
                         : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "cc", "memory");                   \
        return ticks;                                                                                        \
    }
#define PROBE(name, setup, operation)                                                                        \
    ONE(with_##name, setup "\n\t" operation "\n\t") ONE(without_##name, setup "\n\t")

PROBE(cpuid, "xor %%eax, %%eax\n\txor %%ecx, %%ecx", "cpuid")
PROBE(cpuid_1, "mov $1, %%eax\n\txor %%ecx, %%ecx", "cpuid")
PROBE(cpuid_d_1, "mov $0xd, %%eax\n\tmov $1, %%ecx", "cpuid")
PROBE(cpuid_ext, "mov $0x80000001, %%eax\n\txor %%ecx, %%ecx", "cpuid")
PROBE(vmcall, "mov $0x7ffffff0, %%eax", "vmcall")
PROBE(rdmsr_apic_base, "mov $0x1b, %%ecx", "rdmsr")
PROBE(rdmsr_efer, "mov $0xc0000080, %%ecx", "rdmsr")
PROBE(rdmsr_misc_enable, "mov $0x1a0, %%ecx", "rdmsr")
PROBE(xsetbv, "xor %%ecx, %%ecx\n\txgetbv", "xsetbv")
PROBE(wbinvd, "", "wbinvd")
PROBE(in_61, "", "in $0x61, %%al")
PROBE(in_uart, "mov $0x3fd, %%edx", "in %%dx, %%al")
PROBE(out_80, "", "out %%al, $0x80")
PROBE(pm_timer, "mov $0x608, %%edx", "in %%dx, %%eax")
PROBE(cf8, "mov $0xcf8, %%edx", "in %%dx, %%eax")
PROBE(pit_read, "mov $0x40, %%edx", "in %%dx, %%al")
PROBE(rtc_read, "mov $0x71, %%edx", "in %%dx, %%al")
PROBE(lapic_mmio, "mov xapic(%%rip), %%rbx", "mov 0x30(%%rbx), %%eax")
PROBE(lapic_tpr_write, "mov xapic(%%rip), %%rbx\n\txor %%eax, %%eax", "mov %%eax, 0x80(%%rbx)")
PROBE(ioapic_write, "mov $0xfec00000, %%ebx\n\txor %%eax, %%eax", "mov %%eax, (%%rbx)")
PROBE(hpet_hole, "mov $0xfed00000, %%ebx", "mov (%%rbx), %%eax")
PROBE(x2apic_version, "mov $0x803, %%ecx", "rdmsr")
PROBE(x2apic_tpr_write, "mov $0x808, %%ecx\n\txor %%eax, %%eax\n\txor %%edx, %%edx", "wrmsr")
PROBE(tsc_deadline, "mov $0x6e0, %%ecx\n\tmov $-1, %%eax\n\tmov $0x7fff, %%edx", "wrmsr")
PROBE(tsc_deadline_off, "mov $0x6e0, %%ecx\n\txor %%eax, %%eax\n\txor %%edx, %%edx", "wrmsr")
PROBE(cr4_pge, "mov %%cr4, %%rbx\n\txor $0x80, %%rbx", "mov %%rbx, %%cr4")
PROBE(cr0_ts, "mov %%cr0, %%rbx\n\txor $8, %%rbx", "mov %%rbx, %%cr0")
PROBE(cr3, "mov %%cr3, %%rbx", "mov %%rbx, %%cr3")
PROBE(cr8, "xor %%ebx, %%ebx", "mov %%rbx, %%cr8")
PROBE(invlpg, "", "invlpg (%%rsp)")
PROBE(rdtsc, "", "rdtsc")

static void record(const char *name, uint32_t cost)
{
    results[result_count++] = (struct result){name, cost};
}

static uint32_t smallest(uint32_t (*one)(void))
{
    uint32_t best = UINT32_MAX;
    for (unsigned i = 0; i < REPETITIONS; i++) {
        uint32_t ticks = one();
        if (ticks < best)
            best = ticks;
    }
    return best;
}

#define MEASURE(name) record(#name, smallest(with_##name) - smallest(without_##name))

/* ---- interrupts ---- */

/* The frame of what a handler measures: from one reading to the next. */
static uint32_t frame(void)
{
    uint32_t ticks;
    __asm__ volatile("rdtsc\n\tmov %%eax, %%r8d\n\trdtsc\n\tsub %%r8d, %%eax"
                     : "=a"(ticks)::"rdx", "r8", "cc");
    return ticks;
}

/* From before an operation that interrupts its own CPU to the first instruction of the handler. */
static uint32_t x2apic_ipi(uint8_t vector)
{
    uint32_t start, msr = MSR_X2APIC(APIC_SELF_IPI);
    __asm__ volatile("rdtsc\n\t"
                     "mov %%eax, %%esi\n\t"
                     "mov %2, %%eax\n\t"
                     "xor %%edx, %%edx\n\t"
                     "wrmsr\n\t"
                     "nop"
                     : "=&S"(start), "+c"(msr)
                     : "r"((uint32_t)vector)
                     : "rax", "rdx", "r8", "cc", "memory");
    return bench_tsc - start;
}

static uint32_t x2apic_self_ipi(void)
{
    return x2apic_ipi(VECTOR) - 2; /* the two instructions that load EAX and EDX */
}

static uint32_t x2apic_eoi(void)
{
    x2apic_ipi(VECTOR_EOI);
    return bench_eoi_cost - 2;
}

/* A device's interrupt by way of the test device: from before the port's write to the handler, or to the next
 * instruction when only all else is done. What lies between is raising it, the exit, and the entry. */
static uint32_t msi_write(uint32_t raise)
{
    uint32_t start, after;
    __asm__ volatile("rdtsc\n\t"
                     "mov %%eax, %%esi\n\t"
                     "mov %2, %%eax\n\t"
                     "mov %3, %%edx\n\t"
                     "out %%eax, %%dx\n\t"
                     "rdtsc\n\t"
                     : "=&S"(start), "=&a"(after)
                     : "r"(raise), "i"(MSI_PORT + 8)
                     : "rcx", "rdx", "r8", "cc", "memory");
    return (raise ? bench_tsc : after) - start;
}

static uint32_t msi_with(void)
{
    return msi_write(1);
}

static uint32_t msi_without(void)
{
    return msi_write(0);
}

static uint32_t xapic_self_ipi(void)
{
    uint32_t start;
    __asm__ volatile("rdtsc\n\t"
                     "mov %%eax, %%esi\n\t"
                     "movl %1, 0x300(%%rbx)\n\t"
                     "nop"
                     : "=&S"(start)
                     : "i"(ICR_SELF | VECTOR), "b"(xapic)
                     : "rax", "rcx", "rdx", "cc", "memory");
    return bench_tsc - start;
}

static uint32_t late(uint32_t after, bool halted)
{
    uint64_t deadline = rdtsc() + after;
    __asm__ volatile("cli" ::: "memory");
    bench_tsc = 0;
    wrmsr(MSR_TSC_DEADLINE, deadline);
    if (halted)
        __asm__ volatile("sti\n\thlt" ::: "rax", "rcx", "rdx", "cc", "memory");
    else
        __asm__ volatile("sti\n"
                         "1:\tcmpl $0, bench_tsc(%%rip)\n\t"
                         "je 1b" ::
                             : "rax", "rcx", "rdx", "cc", "memory");
    return bench_tsc - (uint32_t)deadline;
}

static uint32_t late_spin(void)
{
    return late(LATE_TICKS, false);
}

static uint32_t late_halt(void)
{
    return late(LATE_TICKS, true);
}

static void measure_lateness(const char *name, uint32_t (*one)(void))
{
    uint32_t best = UINT32_MAX;
    for (unsigned i = 0; i < LATE_RUNS; i++) {
        uint32_t ticks = one();
        if (ticks < best)
            best = ticks;
    }
    record(name, best);
}

static uint32_t touch(void)
{
    uint32_t best = UINT32_MAX;
    for (unsigned i = 0; i < PAGES; i++) {
        volatile uint8_t *page =
            (volatile uint8_t *)(TOUCH_BASE + 4096ull * i); // NOLINT: unused memory of the VM
        uint32_t ticks;
        __asm__ volatile("rdtsc\n\tmov %%eax, %%r8d\n\tmovb $1, (%1)\n\trdtsc\n\tsub %%r8d, %%eax"
                         : "=&a"(ticks)
                         : "r"(page)
                         : "rdx", "r8", "cc", "memory");
        if (ticks < best)
            best = ticks;
    }
    return best;
}

/* ---- correctness ---- */

/* Exits right after the delivery of an exception, before the handler's first instruction, must save the
 * handler's RIP. The deadline makes them (no interrupt is taken: IF is 0), and moves along the loop. */
static void check_delivery(void)
{
    gate(VECTOR_UD, (const void *)handler_ud);
    bench_tsc = 0;
    for (uint32_t i = 0; i < BORDER_RUNS; i++) {
        uint64_t deadline = rdtsc() + BORDER_TICKS + i;
        wrmsr(MSR_TSC_DEADLINE, deadline);
        do
            __asm__ volatile("mov %%rsp, %%rax\n\t"
                             "and $-16, %%rax\n\t"
                             "sub $40, %%rax\n\t" /* SS, RSP, RFLAGS, CS, RIP */
                             "mov %%rax, bench_ud_rsp(%%rip)\n\t"
                             "ud2" ::
                                 : "rax", "cc", "memory");
        while (rdtsc() < deadline + BORDER_TICKS);
    }
    gate(VECTOR_UD, fault_stubs + 16 * VECTOR_UD);
    __asm__ volatile("sti\n\tnop\n\tcli" ::: "rax", "rcx", "rdx", "cc", "memory");
    if (!bench_tsc)
        bench_fault(VECTOR, 0, 0); /* the deadlines never came */
}

/* ---- the run ---- */

static void measure_exits(void)
{
    MEASURE(cpuid);
    MEASURE(cpuid_1);
    MEASURE(cpuid_d_1);
    MEASURE(cpuid_ext);
    MEASURE(vmcall);
    MEASURE(rdmsr_apic_base);
    MEASURE(rdmsr_efer);
    MEASURE(rdmsr_misc_enable);
    MEASURE(xsetbv);
    MEASURE(wbinvd);
    MEASURE(in_61);
    MEASURE(in_uart);
    MEASURE(out_80);
    MEASURE(pm_timer);
    MEASURE(cf8);
    MEASURE(pit_read);
    out8(0x70, 0);
    MEASURE(rtc_read);
    MEASURE(cr4_pge);
    MEASURE(cr0_ts);
    MEASURE(cr3);
    MEASURE(cr8);
    MEASURE(invlpg);
    MEASURE(rdtsc);
    MEASURE(ioapic_write);
    MEASURE(hpet_hole);
    record("touch_page", touch() - smallest(frame));
}

static void measure_xapic(void)
{
    gate(VECTOR, (const void *)handler_xapic);
    xapic[APIC_SVR / 4] = SVR_ENABLE;
    MEASURE(lapic_mmio);
    MEASURE(lapic_tpr_write);
    __asm__ volatile("sti");
    record("xapic_self_ipi", smallest(xapic_self_ipi) - smallest(frame));
    __asm__ volatile("cli");
}

static void measure_x2apic(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
    wrmsr(MSR_X2APIC(APIC_SVR), SVR_ENABLE);
    gate(VECTOR, (const void *)handler_x2apic);
    gate(VECTOR_EOI, (const void *)handler_x2apic_eoi);
    MEASURE(x2apic_version);
    MEASURE(x2apic_tpr_write);
    wrmsr(MSR_X2APIC(APIC_LVT_TIMER), LVT_TSC_DEADLINE | VECTOR);
    MEASURE(tsc_deadline);
    MEASURE(tsc_deadline_off);
    __asm__ volatile("sti");
    record("self_ipi", smallest(x2apic_self_ipi) - smallest(frame));
    out32(MSI_PORT, MSI_ADDRESS);
    out32(MSI_PORT + 4, VECTOR);
    record("msi", smallest(msi_with) - smallest(msi_without));
    record("x2apic_eoi", smallest(x2apic_eoi) - smallest(frame));
    measure_lateness("late_spin", late_spin);
    measure_lateness("late_halt", late_halt);
    __asm__ volatile("cli");
}

void bench_main(void)
{
    set_up();
    if (!lookup_set_up())
        bench_fault(VECTOR_UD, 0, 0);
    record("lookup_port", lookup_port_cost());
    record("lookup_mmio", lookup_mmio_cost());
    record("map_1g", mapping_cost());
    measure_exits();
    measure_xapic();
    measure_x2apic();
    check_delivery();
    print("BENCH-BEGIN\n");
    for (unsigned i = 0; i < result_count; i++) {
        print("BENCH ");
        print(results[i].name);
        print(" ");
        print_number(results[i].cost, 10);
        print("\n");
    }
    print("BENCH done\n");
    power_off();
}
