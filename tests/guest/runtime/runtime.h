/* What the guests of the tests stand on: the machine's instructions, text on the serial port, faults that are
 * survived, other processors, and memory that outlives a restart. Bare metal, 64-bit, 4 GiB mapped one to
 * one. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Selectors of every processor's GDT. start.asm and lab.asm know them too. */
enum {
    SEL_CODE32 = 0x08,
    SEL_DATA32 = 0x10,
    SEL_CODE64 = 0x18,
    SEL_CODE16 = 0x20,
    SEL_DATA16 = 0x28,
    SEL_USER_CODE32 = 0x33,
    SEL_USER_DATA32 = 0x3b,
    SEL_USER_CODE64 = 0x43,
    SEL_USER_CODE16 = 0x4b,
    SEL_USER_DATA16 = 0x53,
    SEL_TSS32 = 0x58,
    SEL_TSS64 = 0x60,
    SEL_OTHER_TSS = 0x70, /* the target of task switches */
    SEL_TASK_GATE = 0x78,
};

#define STACK_SIZE 0x4000u
#define MAX_CPUS   2u
#define NO_FAULT   256u
#define PAGE       4096ull
#define LARGE_PAGE 0x200000ull

enum {
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_UD = 6,
    VECTOR_DF = 8,
    VECTOR_GP = 13,
    VECTOR_PF = 14
};
#define VECTOR_TIMER    0x40u
#define VECTOR_SPURIOUS 0xffu

#define COM1            0x3f8u
#define MSR_APIC_BASE   0x1bu
#define MSR_EFER        0xc0000080u
#define APIC_BASE_X2    (1u << 10)
#define APIC_PAGE       0xfee00000ull
#define IOAPIC_PAGE     0xfec00000ull
#define ECAM_PAGE       0xe0000000ull
#define CR4_OSXSAVE     (1ull << 18)
#define PHYSICAL_WINDOW 0x8000000000ull /* where map_physical() puts things */

enum apic_register {
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SVR = 0xf0,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_TIMER_COUNT = 0x380,
    APIC_TIMER_NOW = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
};
#define ICR_NMI    (4u << 8)
#define ICR_INIT   (5u << 8)
#define ICR_SIPI   (6u << 8)
#define ICR_ASSERT (1u << 14)

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

/* What vector_common pushes. */
struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct fault {
    unsigned vector; /* NO_FAULT: there was none */
    uint64_t error, rip, cr2;
};

struct cpu {
    uint32_t index;
    uint64_t guarded_stack;   /* not 0: a call_guarded() to return to */
    struct fault fault;       /* the last one that was caught */
    uint64_t interrupts[256]; /* that arrived, by vector; NMIs too */
    uint64_t gdt[18];
    struct {
        uint32_t reserved;
        uint64_t rsp[3];
        uint64_t reserved2;
        uint64_t ist[7];
        uint64_t reserved3;
        uint16_t reserved4, io_map;
    } __attribute__((packed)) tss;
    void (*work)(void *); /* an application processor's */
    void *work_argument;
    volatile uint32_t state; /* enum cpu_state */
};
enum cpu_state { CPU_ABSENT, CPU_IDLE, CPU_WORKING };

/* Memory that a restart of the VM leaves alone: what was done before. */
struct progress {
    uint64_t magic;
    uint64_t boots;
    uint64_t program, step; /* which is running */
    uint64_t seed, cases;   /* of the fuzzer */
    uint64_t totals[6];     /* the fuzzer's */
    uint8_t code[16];       /* of the case that runs */
    uint64_t code_size, code_mode;
};

extern struct cpu cpus[MAX_CPUS];
extern uint8_t stacks[MAX_CPUS][STACK_SIZE], ist_stacks[MAX_CPUS][STACK_SIZE];
extern struct gate idt[256];
extern uint64_t page_pml4[512], page_pdpt[512], page_pds[4][512];
extern struct progress *const progress;
extern char command_line[512];
extern uint64_t memory_top; /* bytes, of the VM's memory below 4 GiB */
extern uint64_t tsc_hz;
extern uint32_t physical_bits;

/* ---- instructions ---- */
static inline void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
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
static inline uint16_t in16(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t in32(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}
static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
}
#define READ_CR(n)                                                                                           \
    static inline uint64_t read_cr##n(void)                                                                  \
    {                                                                                                        \
        uint64_t v;                                                                                          \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v)::"memory");                                          \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void write_cr##n(uint64_t v)                                                               \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%cr" #n ::"r"(v) : "memory");                                             \
    }
READ_CR(0)
READ_CR(3)
READ_CR(4)
READ_CR(8)
static inline uint64_t read_cr2(void)
{
    uint64_t v;
    __asm__ volatile("mov %%cr2, %0" : "=r"(v)::"memory");
    return v;
}
static inline void interrupts_on(void)
{
    __asm__ volatile("sti" ::: "memory");
}
static inline void interrupts_off(void)
{
    __asm__ volatile("cli" ::: "memory");
}
/* Sleeps until an interrupt, which is taken. */
static inline void wait_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" ::: "memory");
}
static inline void relax(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* ---- text; %s %u %x %c, numbers are uint64_t ---- */
void print(const char *format, ...);
void print_list(const char *format, va_list list);
/* "GUEST: NAME: text: ok", or ": BAD" when `good` is false. */
void verdict(const char *name, bool good, const char *format, ...);
bool text_equals(const char *a, const char *b);
/* The value of `key=` on the command line, copied to `value`; false: it is not there. */
bool option_text(const char *key, char *value, size_t size);
uint64_t option_number(const char *key, uint64_t otherwise);

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);

/* ---- numbers by chance: the same seed gives the same ---- */
struct chance {
    uint64_t state;
};
uint64_t chance_next(struct chance *c);
uint32_t chance_below(struct chance *c, uint32_t end); /* 0 .. end - 1 */

/* ---- faults ---- */
/* Calls the function; the vector of the fault that ended it, or NO_FAULT. this_cpu()->fault tells the rest.
 */
unsigned guarded(void (*function)(void *), void *argument);
struct cpu *this_cpu(void);
/* Set: an unexpected fault ends not the VM but only what its processor did; of the first one, it resets the
 * VM. */
extern bool forgiving;
/* Called for vectors from 32 on, after counting, before the end of interrupt. */
extern void (*volatile interrupt_hook)(struct cpu *cpu, unsigned vector);

/* ---- machine ---- */
void cpu_tables(struct cpu *cpu); /* GDT, IDT and TSS anew */
void load_gdt(struct cpu *cpu);
/* One 2 MiB page at a guest-physical address, writable, executable. A second call moves the window. */
volatile uint8_t *map_physical(uint64_t address);
void idt_entry(unsigned vector, uint64_t handler, uint8_t type);
/* Vectors 0 to 31 are taken for interrupts, or for exceptions again. */
void low_vectors(bool interrupts);
bool apic_enable_x2(void);  /* false: not offered */
void apic_reset_mode(void); /* back to xAPIC */
void apic_hide(void);       /* from now on these functions use a linear address that nothing else finds */
uint32_t apic_read(enum apic_register at);
void apic_write(enum apic_register at, uint32_t v);
void apic_send(uint32_t destination, uint32_t low);
void apic_timer(uint32_t lvt, uint32_t divide, uint32_t count);
void spin_us(uint64_t us);
void sleep_ms(uint64_t ms); /* halted, with the APIC's timer */
void power_off(void) __attribute__((noreturn));

/* Starts (or, with INIT, restarts) a processor with `work`; false: it did not come up. */
bool cpu_start(uint32_t index, void (*work)(void *), void *argument);
/* Waits until it has returned from its work; false: not within `us`. */
bool cpu_wait(uint32_t index, uint64_t us);

/* ---- provided by each guest ---- */
extern const char guest_name[]; /* of its messages */
void guest_main(void);

/* ---- start.asm ---- */
extern const uint8_t vector_stubs[], interrupt_stubs[];
extern uint64_t ap_stack;
extern const uint8_t ap_nmi[];
extern uint8_t low_memory[]; /* address 0: real mode's vectors */
unsigned call_guarded(void (*function)(void *), void *argument, uint64_t *save);
void resume_at(uint64_t stack, unsigned result) __attribute__((noreturn));
void copy_low(void);
