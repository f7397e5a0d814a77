#include "tests/guest/runtime/lab.h"
#include "tests/guest/runtime/runtime.h"

#define MULTIBOOT_LOADED 0x2badb002u
#define INFO_MEMORY      0x1u
#define INFO_CMDLINE     0x4u
#define DEFAULT_MEMORY   (8u << 20)
#define PROGRESS_AT      0x700000u /* behind every image; the smallest VM has 8 MiB */
#define PROGRESS_MAGIC   0x626c6b6864686f73ull
#define LSR_EMPTY        0x20u
#define PM_TIMER         0x608u
#define PM_TIMER_HZ      3579545u
#define PM_TIMER_MASK    0xffffffu
#define PM1_CONTROL      0x604u
#define S5_BULKHEAD      (7u << 10 | 1u << 13) /* its FADT says so */
#define S5_QEMU          (1u << 13)
#define GATE_INTERRUPT   0x8e
#define GATE_USER        0xee
#define PIC_MASTER_DATA  0x21u
#define PIC_SLAVE_DATA   0xa1u
#define SVR_ENABLE       0x100u
#define IST_FAULT        1
#define IST_NMI          2
#define IST_DOUBLE       3
#define IST_SIZE         0x1000u
#define SLEEP_DIVIDE     0xbu
#define SLEEP_TICKS      100000u

struct cpu cpus[MAX_CPUS];
uint8_t stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(STACK_SIZE)));
/* Interrupt stacks: aligned, so that this_cpu() knows whose they are. */
uint8_t ist_stacks[MAX_CPUS][STACK_SIZE] __attribute__((aligned(STACK_SIZE)));
struct gate idt[256] __attribute__((aligned(16)));
uint64_t page_pml4[512] __attribute__((aligned(4096)));
uint64_t page_pdpt[512] __attribute__((aligned(4096)));
uint64_t page_pds[4][512] __attribute__((aligned(4096)));
static uint64_t window_pdpt[512] __attribute__((aligned(4096)));
static uint64_t window_pd[512] __attribute__((aligned(4096)));

struct progress *const progress = (struct progress *)PROGRESS_AT;
char command_line[512];
uint64_t memory_top;
uint64_t tsc_hz;
uint32_t physical_bits;
void (*volatile interrupt_hook)(struct cpu *cpu, unsigned vector);

void *memcpy(void *to, const void *from, size_t size)
{
    void *result = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
    return result;
}

void *memset(void *to, int byte, size_t size)
{
    void *result = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
    return result;
}

/* ---- text ---- */

static void put(char c)
{
    while (!(in8(COM1 + 5) & LSR_EMPTY))
        ;
    out8(COM1, (uint8_t)c);
}

static void put_text(const char *text)
{
    for (; *text; text++)
        put(*text);
}

static void put_number(uint64_t v, unsigned base)
{
    char digits[24];
    unsigned at = sizeof(digits);
    digits[--at] = 0;
    do
        digits[--at] = "0123456789abcdef"[v % base];
    while (v /= base);
    put_text(digits + at);
}

void print_list(const char *format, va_list list)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            put_text(va_arg(list, const char *));
            break;
        case 'c':
            put((char)va_arg(list, int));
            break;
        case 'u':
            put_number(va_arg(list, uint64_t), 10);
            break;
        case 'x':
            put_number(va_arg(list, uint64_t), 16);
            break;
        default:
            put(*format);
        }
    }
}

void print(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print_list(format, list);
    va_end(list);
}

void verdict(const char *name, bool good, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print("%s: %s: ", guest_name, name);
    print_list(format, list);
    print(": %s\n", good ? "ok" : "BAD");
    va_end(list);
}

bool text_equals(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

bool option_text(const char *key, char *value, size_t size)
{
    const char *at = command_line;
    while (*at) {
        size_t i = 0;
        while (key[i] && at[i] == key[i])
            i++;
        if (!key[i] && at[i] == '=') {
            size_t length = 0;
            for (at += i + 1; *at && *at != ' ' && length + 1 < size; at++)
                value[length++] = *at;
            value[length] = 0;
            return true;
        }
        while (*at && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return false;
}

uint64_t option_number(const char *key, uint64_t otherwise)
{
    char text[24];
    uint64_t v = 0;
    if (!option_text(key, text, sizeof(text)))
        return otherwise;
    for (const char *c = text; *c >= '0' && *c <= '9'; c++)
        v = v * 10 + (uint64_t)(*c - '0');
    return v;
}

/* splitmix64 */
uint64_t chance_next(struct chance *c)
{
    uint64_t z = c->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint32_t chance_below(struct chance *c, uint32_t end)
{
    return (uint32_t)((chance_next(c) >> 32) * end >> 32);
}

/* ---- processors ---- */

struct cpu *this_cpu(void)
{
    uint64_t stack = (uintptr_t)__builtin_frame_address(0);
    uint64_t normal = (stack - (uintptr_t)stacks) / STACK_SIZE;
    if (normal < MAX_CPUS)
        return &cpus[normal];
    return &cpus[(stack - (uintptr_t)ist_stacks) / STACK_SIZE % MAX_CPUS];
}

void idt_entry(unsigned vector, uint64_t handler, uint8_t type)
{
    idt[vector] = (struct gate){
        .offset_low = (uint16_t)handler,
        .selector = SEL_CODE64,
        .ist = vector == VECTOR_NMI  ? IST_NMI
               : vector == VECTOR_DF ? IST_DOUBLE
                                     : IST_FAULT,
        .type = type,
        .offset_middle = (uint16_t)(handler >> 16),
        .offset_high = (uint32_t)(handler >> 32),
    };
}

void low_vectors(bool interrupts)
{
    for (unsigned i = 0; i < 32; i++) {
        if (i != VECTOR_NMI)
            idt_entry(i, (uintptr_t)(interrupts ? interrupt_stubs : vector_stubs) + 16 * i, GATE_INTERRUPT);
    }
}

static uint64_t segment(uint8_t access, uint8_t flags)
{
    bool wide = flags != 0;
    return (wide ? 0xf000000000000ull : 0) | 0xffffull | (uint64_t)access << 40 | (uint64_t)flags << 52;
}

void load_gdt(struct cpu *cpu)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(cpu->gdt) - 1, (uintptr_t)cpu->gdt};
    __asm__ volatile("lgdt %0" ::"m"(pointer));
}

void cpu_tables(struct cpu *cpu)
{
    static const struct {
        uint8_t selector, access, flags;
    } segments[] = {
        {SEL_CODE32, 0x9b, 0xc},      {SEL_DATA32, 0x93, 0xc},      {SEL_CODE64, 0x9b, 0xa},
        {SEL_CODE16, 0x9b, 0},        {SEL_DATA16, 0x93, 0},        {SEL_USER_CODE32, 0xfb, 0xc},
        {SEL_USER_DATA32, 0xf3, 0xc}, {SEL_USER_CODE64, 0xfb, 0xa}, {SEL_USER_CODE16, 0xfb, 0},
        {SEL_USER_DATA16, 0xf3, 0},
    };
    memset(cpu->gdt, 0, sizeof(cpu->gdt));
    for (unsigned i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
        cpu->gdt[segments[i].selector / 8] = segment(segments[i].access, segments[i].flags);
    uint64_t base = (uintptr_t)&cpu->tss, limit = sizeof(cpu->tss) - 1;
    cpu->gdt[SEL_TSS64 / 8] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    cpu->gdt[SEL_TSS64 / 8 + 1] = base >> 32;
    uint64_t ist = (uintptr_t)ist_stacks[cpu->index] + STACK_SIZE - 64;
    memset(&cpu->tss, 0, sizeof(cpu->tss));
    cpu->tss.io_map = sizeof(cpu->tss);
    for (unsigned i = 0; i < 3; i++)
        cpu->tss.ist[i] = ist - i * IST_SIZE;
    cpu->tss.rsp[0] = ist - 3 * IST_SIZE;
    load_gdt(cpu);
    for (unsigned i = 0; i < 256; i++)
        idt_entry(i, (uintptr_t)vector_stubs + 16 * i, i == VECTOR_BP ? GATE_USER : GATE_INTERRUPT);
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};
    __asm__ volatile("lidt %0; ltr %w1" ::"m"(pointer), "r"(SEL_TSS64));
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss" ::"r"(SEL_DATA32));
}

unsigned guarded(void (*function)(void *), void *argument)
{
    struct cpu *cpu = this_cpu();
    uint64_t outer = cpu->guarded_stack;
    cpu->fault.vector = NO_FAULT;
    unsigned vector = call_guarded(function, argument, &cpu->guarded_stack);
    cpu->guarded_stack = outer;
    return vector;
}

bool forgiving;

static void __attribute__((noreturn)) broken(struct cpu *cpu, const struct frame *f)
{
    if (forgiving && cpu->index == 0)
        out8(0xcf9, 0x0e);
    while (forgiving)
        __asm__ volatile("cli; hlt");
    print("%s: BROKEN: unexpected vector %u error %x at %x:%x on processor %u, cr2 %x\n", guest_name,
          f->vector, f->error, f->cs, f->rip, (uint64_t)cpu->index, read_cr2());
    power_off();
}

void exception_c(struct frame *frame);
void exception_c(struct frame *frame)
{
    struct cpu *cpu = this_cpu();
    bool interrupt = frame->vector >= 32 || frame->vector == VECTOR_NMI;
    unsigned vector = (unsigned)frame->vector & 255;
    if (interrupt) {
        cpu->interrupts[vector]++;
        if (interrupt_hook)
            interrupt_hook(cpu, vector);
        if (vector != VECTOR_SPURIOUS && vector != VECTOR_NMI)
            apic_write(APIC_EOI, 0);
    }
    lab_caught(cpu, frame);
    if (interrupt)
        return;
    if (vector == VECTOR_DB && !cpu->guarded_stack) { /* a breakpoint that a program left */
        __asm__ volatile("mov %0, %%dr7" ::"r"(0x400ull));
        frame->rflags &= ~0x100ull;
        return;
    }
    if (!cpu->guarded_stack)
        broken(cpu, frame);
    cpu->fault = (struct fault){vector, frame->error, frame->rip, read_cr2()};
    resume_at(cpu->guarded_stack, vector);
}

/* ---- the local APIC ---- */

static uint64_t apic_linear = APIC_PAGE;

void apic_hide(void)
{
    apic_linear = (uintptr_t)map_physical(APIC_PAGE);
}

static bool x2apic(void)
{
    return rdmsr(MSR_APIC_BASE) & APIC_BASE_X2;
}

bool apic_enable_x2(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 21))
        return false;
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2);
    return true;
}

void apic_reset_mode(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    if (!(base & APIC_BASE_X2))
        return;
    wrmsr(MSR_APIC_BASE, base & ~0xc00ull); /* there is no other way back than through "disabled" */
    wrmsr(MSR_APIC_BASE, (base & ~0xc00ull) | 0x800);
    apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
}

uint32_t apic_read(enum apic_register at)
{
    return x2apic() ? (uint32_t)rdmsr(0x800u + ((unsigned)at >> 4))
                    : *(volatile uint32_t *)(apic_linear + at);
}

void apic_write(enum apic_register at, uint32_t v)
{
    if (x2apic())
        wrmsr(0x800u + ((unsigned)at >> 4), v);
    else
        *(volatile uint32_t *)(apic_linear + at) = v;
}

void apic_send(uint32_t destination, uint32_t low)
{
    if (x2apic()) {
        wrmsr(0x800u + (APIC_ICR >> 4), (uint64_t)destination << 32 | low);
        return;
    }
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR, low);
}

void apic_timer(uint32_t lvt, uint32_t divide, uint32_t count)
{
    apic_write(APIC_TIMER_DIVIDE, divide);
    apic_write(APIC_LVT_TIMER, lvt);
    apic_write(APIC_TIMER_COUNT, count);
}

/* ---- time, the end ---- */

static void measure_tsc(void)
{
    uint32_t r[4], count = PM_TIMER_HZ / 100;
    cpuid(0, 0, r);
    if (r[0] >= 0x15) {
        cpuid(0x15, 0, r);
        if (r[0] && r[1] && r[2]) {
            tsc_hz = (uint64_t)r[2] * r[1] / r[0];
            return;
        }
    }
    uint32_t begin = in32(PM_TIMER);
    uint64_t tsc = rdtsc();
    while (((in32(PM_TIMER) - begin) & PM_TIMER_MASK) < count)
        ;
    tsc_hz = (rdtsc() - tsc) * 100;
}

void spin_us(uint64_t us)
{
    uint64_t end = rdtsc() + us * (tsc_hz / 1000000);
    while (rdtsc() < end)
        relax();
}

void sleep_ms(uint64_t ms)
{
    uint64_t end = rdtsc() + ms * (tsc_hz / 1000);
    while (rdtsc() < end) {
        apic_timer(VECTOR_TIMER, SLEEP_DIVIDE, SLEEP_TICKS);
        wait_interrupt();
    }
    apic_timer(1u << 16, SLEEP_DIVIDE, 0);
}

void power_off(void)
{
    out16(PM1_CONTROL, S5_BULKHEAD);
    out16(PM1_CONTROL, S5_QEMU);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ---- memory ---- */

volatile uint8_t *map_physical(uint64_t address)
{
    uint64_t large = address & ~(LARGE_PAGE - 1);
    page_pml4[PHYSICAL_WINDOW >> 39 & 511] = (uintptr_t)window_pdpt | 7;
    window_pdpt[0] = (uintptr_t)window_pd | 7;
    window_pd[0] = large | 0x87;
    __asm__ volatile("invlpg (%0)" ::"r"(PHYSICAL_WINDOW) : "memory");
    return (volatile uint8_t *)(PHYSICAL_WINDOW + (address & (LARGE_PAGE - 1)));
}

/* ---- other processors ---- */

void ap_c(void);
void ap_c(void)
{
    struct cpu *cpu = this_cpu();
    cpu->guarded_stack = 0;
    cpu_tables(cpu);
    apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    __atomic_store_n(&cpu->state, CPU_WORKING, __ATOMIC_SEQ_CST);
    cpu->work(cpu->work_argument);
    __atomic_store_n(&cpu->state, CPU_IDLE, __ATOMIC_SEQ_CST);
    for (;;)
        __asm__ volatile("cli; hlt");
}

bool cpu_start(uint32_t index, void (*work)(void *), void *argument)
{
    struct cpu *cpu = &cpus[index];
    cpu->index = index;
    cpu->work = work;
    cpu->work_argument = argument;
    cpu->state = CPU_ABSENT;
    apic_send(index, ICR_INIT | ICR_ASSERT); /* first: what it does now must not see the next changes */
    spin_us(100);
    copy_low();
    uint32_t nmi = (uint32_t)(uintptr_t)ap_nmi; /* real mode: segment 0 */
    memcpy(low_memory + 4 * VECTOR_NMI, &nmi, sizeof(nmi));
    ap_stack = (uintptr_t)stacks[index] + STACK_SIZE - 64;
    apic_send(index, ICR_SIPI | ICR_ASSERT | 1);
    for (unsigned i = 0; i < 1000; i++) {
        if (__atomic_load_n(&cpu->state, __ATOMIC_SEQ_CST) != CPU_ABSENT)
            return true;
        spin_us(10);
    }
    return false;
}

bool cpu_wait(uint32_t index, uint64_t us)
{
    uint64_t end = rdtsc() + us * (tsc_hz / 1000000);
    while (__atomic_load_n(&cpus[index].state, __ATOMIC_SEQ_CST) != CPU_IDLE) {
        if (rdtsc() > end)
            return false;
        relax();
    }
    return true;
}

/* ---- the beginning ---- */

static void take_information(uint32_t magic, const uint8_t *information)
{
    uint32_t flags, upper_kib, at;
    memory_top = DEFAULT_MEMORY;
    if (magic != MULTIBOOT_LOADED)
        return;
    memcpy(&flags, information, 4);
    memcpy(&upper_kib, information + 8, 4);
    memcpy(&at, information + 16, 4);
    if (flags & INFO_MEMORY)
        memory_top = ((uint64_t)upper_kib + 1024) << 10;
    if (flags & INFO_CMDLINE) {
        const char *text = (const char *)(uintptr_t)at;
        for (unsigned i = 0; i + 1 < sizeof(command_line) && text[i]; i++)
            command_line[i] = text[i];
    }
}

void start_c(uint32_t magic, const uint8_t *information);
void start_c(uint32_t magic, const uint8_t *information)
{
    uint32_t r[4];
    take_information(magic, information);
    copy_low();
    cpu_tables(&cpus[0]);
    out8(PIC_MASTER_DATA, 0xff); /* no interrupts but the local APIC's, until a program wants them */
    out8(PIC_SLAVE_DATA, 0xff);
    apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    cpuid(0x80000008, 0, r);
    physical_bits = r[0] & 0xff;
    measure_tsc();
    if (progress->magic != PROGRESS_MAGIC) {
        memset(progress, 0, sizeof(*progress));
        progress->magic = PROGRESS_MAGIC;
    }
    progress->boots++;
    if (magic != MULTIBOOT_LOADED)
        print("%s: BAD: the loader's magic is %x\n", guest_name, (uint64_t)magic);
    guest_main();
    power_off();
}
