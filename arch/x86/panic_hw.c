/* A panic: one CPU tells everything that is known, to the serial port, the screen and the black box, section
 * by section, so that a panic that dies on the way has said what it could. */
#include "arch/x86/panic.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/layout.h"
#include "arch/x86/msr.h"
#include "drivers/fb/fb_hw.h"
#include "hv/clock.h"
#include "hv/console.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/panic_text.h"

#define OTHERS_TRIES 1000000u        /* pauses: some 10 ms and more */
#define STACK_REACH  (64ull * 1024u) /* bytes: more than any stack has */
#define NOBODY       UINT32_MAX

extern const uint8_t core_start[], core_text_end[], core_end[];

static uint8_t spare[BLACKBOX_SIZE]; /* until, and when, there is no black box */
static struct blackbox box;
static void *memory = spare;
static uint64_t start_tsc;
static enum config_on_panic on_panic;
static struct panic_stopped stopped[BOOT_MAX_CPUS];
static uint32_t panicking = NOBODY; /* index of the CPU that panicked first */
static bool nested;                 /* and did so again while it told of it */
static size_t told;                 /* bytes of the text that are on the serial port */

void panic_init(const struct boot_info *info)
{
    start_tsc = cpu_rdtsc();
    on_panic = info->config.on_panic;
    if (info->blackbox_hpa)
        memory = (void *)(uintptr_t)LAYOUT_BLACKBOX_VA;
}

static uint32_t this_cpu(void)
{
    return cpu_rdmsr(MSR_IA32_GS_BASE) ? cpu_this()->index : 0; /* GS is ours from cpu_init_load() on */
}

bool traps_panicking(void)
{
    return __atomic_load_n(&panicking, __ATOMIC_SEQ_CST) != NOBODY;
}

static void __attribute__((noreturn)) halt(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

void panic_stop_if_asked(uint64_t rip)
{
    if (!traps_panicking())
        return;
    struct panic_stopped *s = &stopped[this_cpu() % BOOT_MAX_CPUS];
    s->rip = rip;
    __atomic_store_n(&s->stopped, true, __ATOMIC_RELEASE);
    halt();
}

/* Memory of Bulkhead's own that is mapped for certain: the image and the pool. */
static bool readable(const void *at, size_t size)
{
    uint64_t first = (uint64_t)(uintptr_t)at;
    uint64_t image = (uint64_t)(core_end - core_start);
    return (first - LAYOUT_CORE_VA < image && size <= image - (first - LAYOUT_CORE_VA)) ||
           (first - LAYOUT_POOL_VA < LAYOUT_POOL_SIZE && size <= LAYOUT_POOL_SIZE - (first - LAYOUT_POOL_VA));
}

/* Words from `rsp` up to the stack's end, or else to the page's, so that no guard page is read. */
static uint32_t stack_words(uint64_t rsp)
{
    uint64_t end = (rsp | PAGE_MASK) + 1;
    if (rsp - LAYOUT_STACK_VA < LAYOUT_MMIO_VA - LAYOUT_STACK_VA && cpu_rdmsr(MSR_IA32_GS_BASE)) {
        uint64_t top = ((const struct cpu_hw *)cpu_this()->hw)->stack_top;
        if (top > rsp && top - rsp <= STACK_REACH)
            end = top;
    } else if (!readable((const void *)(uintptr_t)rsp, sizeof(uint64_t))) {
        return 0;
    }
    return (uint32_t)((end - rsp) / sizeof(uint64_t));
}

/* Seals what was written, and says it. */
static void tell(void)
{
    char piece[128];
    blackbox_seal(&box);
    const char *text = blackbox_text(&box);
    while (told < box.length) {
        size_t n = 0;
        while (n < sizeof(piece) - 1 && told < box.length)
            piece[n++] = text[told++];
        piece[n] = 0;
        console_panic_write(piece);
    }
}

static void wait_for_others(uint32_t self)
{
    for (unsigned tries = 0; tries < OTHERS_TRIES; tries++) {
        uint32_t missing = 0;
        for (uint32_t i = 0; i < core.cpu_count && i < BOOT_MAX_CPUS; i++)
            missing +=
                i != self && core.cpus[i].online && !__atomic_load_n(&stopped[i].stopped, __ATOMIC_ACQUIRE);
        if (!missing)
            return;
        cpu_pause();
    }
}

static void __attribute__((noreturn)) end(void)
{
    if (on_panic == ON_PANIC_REBOOT) {
        blackbox_print(&box, "The machine restarts (on_panic = reboot).\n");
        tell();
        fb_panic(blackbox_text(&box), box.length, 0);
        console_panic_flush();
        host_reboot();
    }
    blackbox_print(&box, "Please report this output. Reset the machine to start again.\n");
    tell();
    fb_panic_stay(blackbox_text(&box), box.length);
}

/* For the first CPU that panics, which then has the machine for itself. The others halt here, and the same
 * one when it panics a second time tells no more than it can. */
static void begin(uint32_t self)
{
    uint32_t nobody = NOBODY;
    if (__atomic_compare_exchange_n(&panicking, &nobody, self, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        log_break_lock();
        apic_broadcast_nmi();
        console_panic_begin();
        console_panic_write("\n");
        blackbox_begin(&box, memory);
        return;
    }
    if (nobody != self || nested)
        halt();
    nested = true;
    blackbox_print(&box, "\n(an exception while this was written: the rest is missing)\n");
    end();
}

static void __attribute__((noreturn)) report(const char *reason, const uint64_t *registers, uint64_t rsp)
{
    uint32_t self = this_cpu();
    begin(self);
    uint64_t aligned = rsp & ~7ull;
    const struct panic_facts facts = {
        .reason = reason,
        .build = BULKHEAD_BUILD,
        .now_us = start_tsc ? clock_ticks_to_ns(cpu_rdtsc() - start_tsc) / 1000 : 0,
        .cpu = self,
        .registers = registers,
        .stack = (const uint64_t *)(uintptr_t)aligned,
        .stack_words = stack_words(aligned),
        .code = {.begin = core_start,
                 .size = (size_t)(core_text_end - core_start),
                 .base = (uint64_t)(uintptr_t)core_start,
                 .symbols = &symbols_core},
    };
    panic_text_head(&box, &facts);
    tell();
    wait_for_others(self);
    panic_text_cpus(&box, &facts.code, stopped,
                    core.cpu_count < BOOT_MAX_CPUS ? core.cpu_count : BOOT_MAX_CPUS, self);
    tell();
    panic_text_exits(&box, readable);
    tell();
    panic_text_log(&box);
    tell();
    end();
}

void panic_trap(const struct trap_frame *f)
{
    char reason[96];
    const uint64_t registers[PANIC_REGISTERS] = {
        [PANIC_RAX] = f->rax,         [PANIC_RBX] = f->rbx,     [PANIC_RCX] = f->rcx,
        [PANIC_RDX] = f->rdx,         [PANIC_RSI] = f->rsi,     [PANIC_RDI] = f->rdi,
        [PANIC_RBP] = f->rbp,         [PANIC_RSP] = f->rsp,     [PANIC_R8] = f->r8,
        [PANIC_R9] = f->r9,           [PANIC_R10] = f->r10,     [PANIC_R11] = f->r11,
        [PANIC_R12] = f->r12,         [PANIC_R13] = f->r13,     [PANIC_R14] = f->r14,
        [PANIC_R15] = f->r15,         [PANIC_RIP] = f->rip,     [PANIC_CS] = f->cs,
        [PANIC_RFLAGS] = f->rflags,   [PANIC_ERROR] = f->error, [PANIC_CR2] = cpu_read_cr2(),
        [PANIC_CR3] = cpu_read_cr3(),
    };
    fmt_format(reason, sizeof(reason), "host exception %llu: a bug in Bulkhead, not in a guest",
               (unsigned long long)f->vector);
    report(reason, registers, f->rsp);
}

void host_panic(const char *format, ...)
{
    char reason[240];
    va_list args;
    va_start(args, format);
    fmt_vformat(reason, sizeof(reason), format, args);
    va_end(args);
    report(reason, NULL, (uint64_t)(uintptr_t)__builtin_frame_address(0));
}
