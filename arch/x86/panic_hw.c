/* A panic: one CPU tells everything that is known, to the serial port, the screen and the black box, section
 * by section. An exception on the way ends its section only: the next one is told then. */
#include "arch/x86/panic.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/layout.h"
#include "arch/x86/msr.h"
#include "drivers/fb/fb_hw.h"
#include "hv/clock.h"
#include "hv/console/console.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/record/panic_text.h"

#define OTHERS_TRIES 1000000u /* pauses: some 10 ms and more */
#define NOBODY       UINT32_MAX

extern const uint8_t core_start[], core_text_end[], core_end[];

static uint8_t spare[BLACKBOX_SIZE]; /* until, and when, there is no black box */
static struct blackbox box;
static void *memory = spare;
static uint64_t start_tsc;
static enum config_on_panic on_panic;
static uint64_t pool_size;
static struct panic_stopped stopped[BOOT_MAX_CPUS];
static uint32_t panicking = NOBODY; /* index of the CPU that panicked first */
static struct panic_facts facts;
static uint32_t section; /* the next one to tell */
static size_t told;      /* bytes of the text that are on the serial port */

void panic_init(const struct boot_info *info)
{
    start_tsc = cpu_rdtsc();
    on_panic = info->config.on_panic;
    pool_size = info->pool_size;
    if (info->blackbox_hpa)
        memory = (void *)(uintptr_t)LAYOUT_BLACKBOX_VA;
}

/* GS is ours from cpu_init_load() on; what broke the host may have broken it, too. */
static uint32_t this_cpu(void)
{
    uint64_t offset = cpu_rdmsr(MSR_IA32_GS_BASE) - (uint64_t)(uintptr_t)core.cpus;
    return offset < sizeof(core.cpus) ? (uint32_t)(offset / sizeof(core.cpus[0])) : 0;
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

/* Notes where this CPU was and halts it. */
static void __attribute__((noreturn)) stop(uint32_t self, uint64_t rip)
{
    struct panic_stopped *s = &stopped[self];
    if (!s->stopped) /* else it came here by a panic of its own: that place tells more */
        s->rip = rip;
    __atomic_store_n(&s->stopped, true, __ATOMIC_RELEASE);
    halt();
}

void panic_stop_if_asked(uint64_t rip)
{
    uint32_t self = this_cpu(), who = __atomic_load_n(&panicking, __ATOMIC_SEQ_CST);
    if (who != NOBODY && who != self) /* an NMI of the machine's own must not end the report */
        stop(self, rip);
}

/* Memory of Bulkhead's own that is mapped for certain: the image and the pool. */
static bool readable(const void *at, size_t size)
{
    uint64_t first = (uint64_t)(uintptr_t)at;
    uint64_t image = (uint64_t)(core_end - core_start);
    return (first - LAYOUT_CORE_VA < image && size <= image - (first - LAYOUT_CORE_VA)) ||
           (first - LAYOUT_POOL_VA < pool_size && size <= pool_size - (first - LAYOUT_POOL_VA));
}

/* The words of the stack in use: from `rsp`, or from the stack's first word where it has overflowed, to its
 * end. Elsewhere in our memory (the start-up stack) to the page's end; none where `rsp` is no address of
 * ours. */
static void find_stack(uint64_t rsp)
{
    uint64_t end = (rsp | PAGE_MASK) + 1, first = rsp & ~7ull, bottom;
    if (cpu_init_find_stack(rsp, core.cpu_count, &bottom, &end))
        first = first < bottom ? bottom : first;
    else if (!readable((const void *)(uintptr_t)first, sizeof(uint64_t)))
        return;
    facts.stack = (const uint64_t *)(uintptr_t)first;
    facts.stack_words = (uint32_t)((end - first) / sizeof(uint64_t));
}

/* Seals what was written, and says it. A reset may come at any time, and clears the caches on real machines.
 */
static void tell(void)
{
    char piece[128];
    blackbox_seal(&box);
    cpu_wbinvd();
    const char *text = blackbox_text(&box);
    while (told < box.length) {
        size_t n = 0;
        while (n < sizeof(piece) - 1 && told < box.length)
            piece[n++] = text[told++];
        piece[n] = 0;
        console_panic_write(piece);
    }
}

static uint32_t cpu_count(void)
{
    return core.cpu_count < BOOT_MAX_CPUS ? core.cpu_count : BOOT_MAX_CPUS;
}

static void wait_for_others(void)
{
    for (unsigned tries = 0; tries < OTHERS_TRIES; tries++) {
        uint32_t missing = 0;
        for (uint32_t i = 0; i < cpu_count(); i++)
            missing += i != facts.cpu && core.cpus[i].online &&
                       !__atomic_load_n(&stopped[i].stopped, __ATOMIC_ACQUIRE);
        if (!missing)
            return;
        cpu_pause();
    }
}

/* ---- the sections ---- */

static void tell_head(void)
{
    panic_text_head(&box, &facts);
}

static void tell_cpus(void)
{
    wait_for_others();
    panic_text_cpus(&box, &facts.code, stopped, cpu_count(), facts.cpu);
}

static void tell_exits(void)
{
    panic_text_exits(&box, readable);
}

static void tell_log(void)
{
    panic_text_log(&box);
}

static void tell_what_next(void)
{
    blackbox_print(&box, on_panic == ON_PANIC_REBOOT
                             ? "The machine restarts (on_panic = reboot).\n"
                             : "Please report this output. Reset the machine to start again.\n");
}

static void show(void)
{
    if (on_panic == ON_PANIC_REBOOT)
        fb_panic(blackbox_text(&box), box.length, 0);
    else
        fb_panic_stay(blackbox_text(&box), box.length);
}

static void restart(void)
{
    if (on_panic != ON_PANIC_REBOOT)
        return;
    console_panic_flush();
    host_reboot();
}

/* When host_reboot() ended in an exception as well: one more, without a table of handlers, is a triple fault.
 */
static void restart_by_fault(void)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) empty = {0, 0};
    if (on_panic == ON_PANIC_REBOOT)
        __asm__ volatile("lidt %0; int3" ::"m"(empty));
}

static void __attribute__((noreturn)) go_on(void)
{
    static void (*const sections[])(void) = {
        console_panic_begin, tell_head, tell_cpus, tell_exits,      tell_log,
        tell_what_next,      show,      restart,   restart_by_fault};
    while (section < ARRAY_SIZE(sections)) {
        sections[section++]();
        tell();
    }
    halt();
}

/* The first CPU that panics has the machine for itself. The others halt here. The same one comes again when
 * there was an exception while it told. */
static void __attribute__((noreturn))
report(const char *reason, const uint64_t *registers, uint64_t rsp, uint64_t rip)
{
    uint32_t self = this_cpu(), nobody = NOBODY;
    if (!__atomic_compare_exchange_n(&panicking, &nobody, self, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        if (nobody != self)
            stop(self, rip);
        panic_text_again(&box, &facts.code, reason, rip);
        go_on();
    }
    log_break_lock();
    blackbox_begin(&box, memory);
    facts = (struct panic_facts){
        .reason = reason,
        .build = BULKHEAD_BUILD,
        .now_us = start_tsc ? clock_ticks_to_ns(cpu_rdtsc() - start_tsc) / 1000 : 0,
        .cpu = self,
        .registers = registers,
        .code = {.begin = core_start,
                 .size = (size_t)(core_text_end - core_start),
                 .base = (uint64_t)(uintptr_t)core_start,
                 .symbols = &symbols_core},
    };
    find_stack(rsp);
    apic_broadcast_nmi();
    go_on();
}

void panic_trap(const struct trap_frame *f)
{
    char reason[112];
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
    panic_text_exception(f->vector, reason, sizeof(reason));
    report(reason, registers, f->rsp, f->rip);
}

void host_panic(const char *format, ...)
{
    char reason[240];
    va_list args;
    va_start(args, format);
    fmt_vformat(reason, sizeof(reason), format, args);
    va_end(args);
    report(reason, NULL, (uint64_t)(uintptr_t)__builtin_frame_address(0),
           (uint64_t)(uintptr_t)__builtin_return_address(0));
}
