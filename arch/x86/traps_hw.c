/* The host's exceptions are bugs of ours (a guest's never arrive here): print all we know and stop. */
#include "arch/x86/traps.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/msr.h"
#include "drivers/fb/fb_hw.h"
#include "hv/console.h"
#include "hv/lib/fmt.h"

#define IDT_VECTORS    256u
#define STUB_SIZE      16u
#define GATE_INTERRUPT 0x8e00u /* present, DPL 0, 64-bit interrupt gate */

/* SDM volume 3, figure "64-Bit IDT Gate Descriptors". */
struct idt_gate {
    uint16_t offset_low, selector, ist_and_type_low, offset_mid;
    uint32_t offset_high, reserved;
};
STATIC_ASSERT(sizeof(struct idt_gate) == 16, "IDT gate layout");

static struct idt_gate idt[IDT_VECTORS] __attribute__((aligned(16)));
static bool panicking;

extern const uint8_t traps_stubs[], traps_rdmsr_at[], traps_wrmsr_at[], traps_msr_failed[];
void traps_handle(struct trap_frame *frame);

static void set_gate(unsigned vector, unsigned ist)
{
    uint64_t target = (uint64_t)(uintptr_t)(traps_stubs + vector * STUB_SIZE);
    /* The gate's second half-word pair is (IST in bits 2:0, type in 15:8). */
    idt[vector] = (struct idt_gate){
        .offset_low = (uint16_t)target,
        .selector = SEL_CODE,
        .ist_and_type_low = (uint16_t)(GATE_INTERRUPT | ist),
        .offset_mid = (uint16_t)(target >> 16),
        .offset_high = (uint32_t)(target >> 32),
    };
}

void traps_init(void)
{
    for (unsigned v = 0; v < IDT_VECTORS; v++)
        set_gate(v, 0);
    set_gate(VECTOR_NMI, IST_NMI);
    set_gate(VECTOR_DF, IST_DOUBLE_FAULT);
    set_gate(VECTOR_MC, IST_MACHINE_CHECK);
}

void traps_load(void)
{
    struct table_register idtr = {.limit = sizeof(idt) - 1, .base = (uint64_t)(uintptr_t)idt};
    __asm__ volatile("lidt %0" ::"m"(idtr));
}

/* What was said of a panic, for the screen. Only the CPU that panicked first writes it. */
static char report[4096];
static size_t report_size;

static void panic_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void panic_line(const char *format, ...)
{
    char line[240];
    va_list args;
    va_start(args, format);
    fmt_vformat(line, sizeof(line), format, args);
    va_end(args);
    console_panic_write(line);
    console_panic_write("\n");
    if (report_size < sizeof(report))
        report_size += fmt_format(report + report_size, sizeof(report) - report_size, "%s\n", line);
}

/* How far fmt_format() would have written is not how far it did. */
static size_t reported(void)
{
    return report_size < sizeof(report) ? report_size : sizeof(report) - 1;
}

static void print_stack(uint64_t rsp)
{
    /* Only our own stacks are mapped there; stop at a page's end, so that a guard page is never read. */
    const uint64_t *word = (const uint64_t *)(uintptr_t)(rsp & ~7ull);
    for (unsigned i = 0; i < 16 && ((uint64_t)(uintptr_t)(word + i) & 0xfff) != 0; i++)
        panic_line("  [rsp+%02x] %016llx", i * 8, (unsigned long long)word[i]);
}

bool traps_panicking(void)
{
    return __atomic_load_n(&panicking, __ATOMIC_SEQ_CST);
}

void traps_stop_machine(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* True for the first CPU that panics, which then has the machine for itself: the others halt in their NMI
 * handler, or at their next NMI exit. */
static bool begin_panic(void)
{
    if (__atomic_exchange_n(&panicking, true, __ATOMIC_SEQ_CST))
        return false;
    apic_broadcast_nmi();
    console_panic_begin();
    return true;
}

static void print_frame(const struct trap_frame *f)
{
    panic_line("  rip %016llx  cs %llx  rflags %llx  error %llx  cr2 %016llx", (unsigned long long)f->rip,
               (unsigned long long)f->cs, (unsigned long long)f->rflags, (unsigned long long)f->error,
               (unsigned long long)cpu_read_cr2());
    panic_line("  rax %016llx  rbx %016llx  rcx %016llx  rdx %016llx", (unsigned long long)f->rax,
               (unsigned long long)f->rbx, (unsigned long long)f->rcx, (unsigned long long)f->rdx);
    panic_line("  rsi %016llx  rdi %016llx  rbp %016llx  rsp %016llx", (unsigned long long)f->rsi,
               (unsigned long long)f->rdi, (unsigned long long)f->rbp, (unsigned long long)f->rsp);
    panic_line("  r8  %016llx  r9  %016llx  r10 %016llx  r11 %016llx", (unsigned long long)f->r8,
               (unsigned long long)f->r9, (unsigned long long)f->r10, (unsigned long long)f->r11);
    panic_line("  r12 %016llx  r13 %016llx  r14 %016llx  r15 %016llx", (unsigned long long)f->r12,
               (unsigned long long)f->r13, (unsigned long long)f->r14, (unsigned long long)f->r15);
}

static void __attribute__((noreturn)) panic_trap(const struct trap_frame *frame)
{
    if (begin_panic()) {
        console_panic_write("\n");
        panic_line("bulkhead: PANIC: host exception %llu on CPU %u: a bug in Bulkhead, not in a guest",
                   (unsigned long long)frame->vector,
                   cpu_rdmsr(MSR_IA32_GS_BASE) ? cpu_this()->index
                                               : 0); /* GS is ours from cpu_init_load() on */
        print_frame(frame);
        print_stack(frame->rsp);
        panic_line("Please report this output. Reset the machine to start again.");
        fb_panic_stay(report, reported());
    }
    traps_stop_machine();
}

void host_panic(const char *format, ...)
{
    char line[240];
    va_list args;
    va_start(args, format);
    fmt_vformat(line, sizeof(line), format, args);
    va_end(args);
    if (begin_panic()) {
        console_panic_write("\n");
        panic_line("bulkhead: PANIC: %s", line);
        print_stack((uint64_t)(uintptr_t)__builtin_frame_address(0));
        panic_line("Please report this output. Reset the machine to start again.");
        fb_panic_stay(report, reported());
    }
    traps_stop_machine();
}

void traps_handle(struct trap_frame *frame)
{
    switch (frame->vector) {
    case VECTOR_NMI:
        host_handle_nmi();
        return;
    case VECTOR_GP:
        if (frame->rip != (uint64_t)(uintptr_t)traps_rdmsr_at &&
            frame->rip != (uint64_t)(uintptr_t)traps_wrmsr_at)
            panic_trap(frame);
        frame->rip = (uint64_t)(uintptr_t)traps_msr_failed;
        return;
    default:
        if (frame->vector < 32)
            panic_trap(frame);
        host_handle_interrupt((uint8_t)frame->vector); /* its purpose was to end host_idle() */
    }
}
