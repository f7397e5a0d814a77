/* The smallest Multiboot guest: says over COM1 what it was given, checks what can be checked from inside, and
 * ends as the last word of its command line says: poweroff, reboot, triple (a triple fault), exit (through
 * `compat = qemu`'s debug exit, after a word at the debug port), or forge (all its memory full of what looks
 * like the black box of a panic of Bulkhead's, then poweroff), or state (looks at the processor's registers,
 * makes them dirty, reboots, looks again, powers off). The rig reads the lines
 * (tests/rig/rig_multiboot.py). */
#include <stddef.h>
#include <stdint.h>

#define COM1          0x3f8u
#define COM_LSR       5u
#define LSR_THR_EMPTY 0x20u
#define PM1_CONTROL   0x604u /* as the FADT says */
#define SLEEP_S5      (7u << 10 | 1u << 13)
#define RESET_CONTROL 0xcf9u
#define RESET_HARD    0x06u
#define BOOT_MAGIC    0x2badb002u
#define HAS_MODULES   0x008u
#define HAS_MAP       0x040u
#define RAM           1u
#define ONE_MIB       0x100000u
#define FOUR_GIB      0x100000000ull
#define RSDP_START    0xe0000u
#define RSDP_END      0x100000u
#define RSDP_STEP     16u
#define RSDP_CHECKED  20u /* bytes that the first checksum covers */
#define BSS_WORDS     4096u
#define PATTERN       0x5aa5c33cu
#define EFLAGS_IF     0x200u
#define DEBUG_PORT    0xe9u
#define DEBUG_EXIT    0xf4u
#define EXIT_CODE     21u /* scripts/run makes 43 of it */
#define PAGE          0x1000u
#define FORGED_LENGTH 18u
#define CR4_OSFXSR    0x200u
#define CR4_OSXSAVE   0x40000u
#define CR4_PKE       0x400000u
#define HAS_PKU       8u /* CPUID.7:ECX */
#define XCR0_ALL      0x207u
#define CR0_PE        0x1u
#define CR0_PG        0x80000000u

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, loader_name;
};

struct module {
    uint32_t start, end, string, reserved;
};

struct map_entry {
    uint32_t size;
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

extern uint8_t guest_end[];
void hello_main(uint32_t magic, const struct info *info, uint32_t eflags);

static uint32_t bss[BSS_WORDS];         /* the loader zeroes it */
static uint32_t data[2] = {PATTERN, 1}; /* and loads this */

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void out16(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* ---- text ---- */

static void put(char c)
{
    while (!(in8(COM1 + COM_LSR) & LSR_THR_EMPTY))
        ;
    out8(COM1, (uint8_t)c);
}

static void print(const char *s)
{
    for (; *s; s++)
        put(*s);
}

static void print_hex(uint64_t v)
{
    unsigned shift = 60;

    while (shift && !(v >> shift))
        shift -= 4;
    print("0x");
    for (;; shift -= 4) {
        put("0123456789abcdef"[v >> shift & 15]);
        if (!shift)
            break;
    }
}

static void print_pair(const char *name, uint64_t v)
{
    print(name);
    print_hex(v);
}

static void check(const char *what, int good)
{
    print(good ? "check ok: " : "check FAILED: ");
    print(what);
    print("\r\n");
}

/* ---- checks ---- */

static void check_state(uint32_t magic, uint32_t eflags)
{
    uint32_t cr0, bad = 0;
    uint16_t cs, ds, ss;

    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    __asm__ volatile("mov %%cs, %0; mov %%ds, %1; mov %%ss, %2" : "=r"(cs), "=r"(ds), "=r"(ss));
    check("EAX has the magic number", magic == BOOT_MAGIC);
    check("protected mode, no paging", (cr0 & (CR0_PE | CR0_PG)) == CR0_PE);
    check("interrupts off", !(eflags & EFLAGS_IF));
    check("segments", cs && ds && ds == ss);
    for (unsigned i = 0; i < BSS_WORDS; i++)
        bad |= bss[i];
    check("bss is zero, data is loaded", !bad && data[0] == PATTERN && data[1] == 1);
    /* So that a restart finds something else than zeros here, were they not made new. */
    for (unsigned i = 0; i < BSS_WORDS; i++)
        bss[i] = PATTERN;
    data[1] = 0;
    volatile uint32_t *low = (uint32_t *)(4 * ONE_MIB), *high = (uint32_t *)(5 * ONE_MIB);
    *low = 1;
    *high = 2;
    check("A20 is on", *low == 1); /* they differ in bit 20 only */
}

static int is_memory(uint32_t at)
{
    volatile uint32_t *p = (uint32_t *)at;
    uint32_t before = *p;

    *p = ~before;
    int good = *p == ~before;
    *p = before;
    return good;
}

static void show_map(const struct info *info)
{
    uint64_t last = 0, memory = 0;
    int sorted = 1, real = 1, holds_us = 0;

    for (uint32_t at = info->mmap_addr; at < info->mmap_addr + info->mmap_length;) {
        const struct map_entry *e = (const void *)at;
        print_pair("map ", e->base);
        print_pair(" ", e->length);
        print_pair(" type ", e->type);
        print("\r\n");
        sorted &= e->base >= last && e->length != 0;
        last = e->base + e->length;
        if (e->type == RAM) {
            memory += e->length;
            if (last <= FOUR_GIB) /* both ends are there */
                real &= is_memory((uint32_t)e->base) && is_memory((uint32_t)last - 4);
            holds_us |= e->base == ONE_MIB && last >= (uint32_t)guest_end;
            if (e->base == ONE_MIB)
                check("mem_upper is the memory from 1 MiB on", info->mem_upper == e->length >> 10);
            if (e->base == 0)
                check("mem_lower is the memory from 0 on", info->mem_lower == e->length >> 10);
        }
        at += e->size + sizeof(e->size);
    }
    print_pair("memory ", memory);
    print("\r\n");
    check("the map is sorted", sorted);
    check("what the map calls memory is memory", real);
    check("the map holds this program", holds_us);
}

static void show_modules(const struct info *info)
{
    const struct module *m = (const void *)info->mods_addr;

    for (uint32_t i = 0; i < info->mods_count; i++) {
        uint32_t sum = 0;
        for (const uint8_t *p = (const uint8_t *)m[i].start; p < (const uint8_t *)m[i].end; p++)
            sum = (sum << 1 | sum >> 31) ^ *p;
        print_pair("module at ", m[i].start);
        print_pair(" size ", m[i].end - m[i].start);
        print_pair(" sum ", sum);
        print(" string '");
        print((const char *)m[i].string);
        print("'\r\n");
        check("the module is on a page, behind the kernel",
              !(m[i].start & 0xfff) && m[i].start >= (uint32_t)guest_end && !m[i].reserved);
    }
}

static void check_rsdp(void)
{
    static const char mark[] = "RSD PTR ";

    for (uint32_t at = RSDP_START; at < RSDP_END; at += RSDP_STEP) {
        const uint8_t *p = (const uint8_t *)at;
        unsigned same = 0;
        uint8_t sum = 0;
        while (same < sizeof(mark) - 1 && p[same] == (uint8_t)mark[same])
            same++;
        if (same < sizeof(mark) - 1)
            continue;
        for (unsigned i = 0; i < RSDP_CHECKED; i++)
            sum = (uint8_t)(sum + p[i]);
        check("the RSDP is where a PC has it", sum == 0);
        return;
    }
    check("the RSDP is where a PC has it", 0);
}

/* ---- the processor's state ---- */

/* Values after power-up (SDM volume 3, table "IA-32 and Intel 64 Processor States Following Power-up, Reset,
 * or INIT"), and others. */
static const struct {
    uint32_t msr;
    const char *name;
    uint64_t reset, dirty;
} msrs[] = {
    {0x174, "SYSENTER_CS", 0, 8},         {0x175, "SYSENTER_ESP", 0, 0x1234},
    {0x176, "SYSENTER_EIP", 0, 0x5678},   {0x277, "PAT", 0x0007040600070406, 0x0606060606060606},
    {0x3b, "TSC_ADJUST", 0, 0x100000},    {0x1b, "APIC_BASE", 0xfee00900, 0xfee00d00},
    {0xc0000080, "EFER", 0, 1},           {0xc0000081, "STAR", 0, 0x1b000800000000},
    {0xc0000082, "LSTAR", 0, 0x123456},   {0xc0000083, "CSTAR", 0, 0x654321},
    {0xc0000084, "FMASK", 0, 0x47700},    {0xc0000100, "FS_BASE", 0, 0x111000},
    {0xc0000101, "GS_BASE", 0, 0x222000}, {0xc0000102, "KERNEL_GS_BASE", 0, 0x333000},
};
#define MSRS (sizeof(msrs) / sizeof(msrs[0]))

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

#define READ(what, to)    __asm__ volatile("mov %%" what ", %0" : "=r"(to))
#define WRITE(what, from) __asm__ volatile("mov %0, %%" what : : "r"(from))

static uint32_t has_pku(void)
{
    uint32_t leaf = 7, ecx = 0;
    __asm__ volatile("cpuid" : "+a"(leaf), "+c"(ecx) : : "ebx", "edx");
    return ecx & HAS_PKU;
}

/* What only CR4 makes readable. */
static void check_extended(void)
{
    uint32_t xcr0, pkru, high;

    WRITE("cr4", CR4_OSFXSR | CR4_OSXSAVE | (has_pku() ? CR4_PKE : 0));
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    check("XCR0", xcr0 == 1 && !high);
    if (!has_pku())
        return;
    __asm__ volatile("rdpkru" : "=a"(pkru), "=d"(high) : "c"(0));
    check("PKRU", !pkru);
}

static void check_registers(void)
{
    uint32_t dr[4], dr6, dr7, cr2, cr4, xmm, mxcsr;
    uint16_t fcw;

    READ("dr0", dr[0]);
    READ("dr1", dr[1]);
    READ("dr2", dr[2]);
    READ("dr3", dr[3]);
    READ("dr6", dr6);
    READ("dr7", dr7);
    READ("cr2", cr2);
    READ("cr4", cr4);
    check("DR0 to DR3 are 0", !(dr[0] | dr[1] | dr[2] | dr[3]));
    check("DR6 and DR7", dr6 == 0xffff0ff0 && dr7 == 0x400);
    check("CR2 and CR4 are 0", !cr2 && !cr4);
    WRITE("cr4", CR4_OSFXSR);
    __asm__ volatile("fnstcw %0; movd %%xmm7, %1; stmxcsr %2" : "=m"(fcw), "=r"(xmm), "=m"(mxcsr));
    check("x87 and SSE", fcw == 0x40 && !xmm && mxcsr == 0x1f80);
    check_extended();
    for (unsigned i = 0; i < MSRS; i++)
        check(msrs[i].name, rdmsr(msrs[i].msr) == msrs[i].reset);
}

static void make_dirty(void)
{
    const uint32_t other = PATTERN, mxcsr = 0x1fc0;

    WRITE("dr0", other);
    WRITE("dr1", other);
    WRITE("dr2", other);
    WRITE("dr3", other);
    WRITE("dr6", 0xffff0fff);
    WRITE("dr7", 0x4aa);
    WRITE("cr2", other);
    __asm__ volatile("fninit; movd %0, %%xmm7; ldmxcsr %1" : : "r"(other), "m"(mxcsr));
    if (has_pku()) {
        __asm__ volatile("xsetbv" : : "a"(XCR0_ALL), "d"(0), "c"(0));
        __asm__ volatile("wrpkru" : : "a"(other), "d"(0), "c"(0));
    }
    for (unsigned i = 0; i < MSRS; i++)
        wrmsr(msrs[i].msr, msrs[i].dirty);
}

/* Two lives; memory survives the reset between them, and says so in the second. */
static void state(void)
{
    volatile uint32_t *life = (uint32_t *)(6 * ONE_MIB);

    print_pair("life ", ++*life);
    print("\r\n");
    check_registers();
    if (*life > 1) {
        print("both lives\r\n");
        out16(PM1_CONTROL, SLEEP_S5);
    }
    make_dirty();
    out8(RESET_CONTROL, RESET_HARD);
}

/* ---- lies ---- */

/* As hv/record/blackbox.c has it. */
struct black_box {
    uint64_t magic;
    uint32_t version, length, crc, pad;
    char text[FORGED_LENGTH];
};

static uint32_t crc32(const char *bytes, unsigned size)
{
    uint32_t crc = ~0u;

    for (unsigned i = 0; i < size; i++) {
        crc ^= (uint8_t)bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* The loader of the machine's next start must not take a guest's word for the host's. */
static void forge(uint32_t from, uint32_t to)
{
    static const char text[FORGED_LENGTH] = "forged by a guest\n";
    struct black_box forged = {0x786f626b63616c62ull, 1, FORGED_LENGTH, crc32(text, FORGED_LENGTH), 0, ""};

    for (unsigned i = 0; i < FORGED_LENGTH; i++)
        forged.text[i] = text[i];
    for (uint32_t page = (from + PAGE - 1) & ~(PAGE - 1); page < to; page += PAGE)
        *(volatile struct black_box *)page = forged;
}

/* ---- the end ---- */

static int ends_with(const char *text, const char *word)
{
    const char *t = text, *w = word;

    while (*t)
        t++;
    while (*w)
        w++;
    while (w > word && t > text && t[-1] == w[-1]) {
        t--;
        w--;
    }
    return w == word;
}

void hello_main(uint32_t magic, const struct info *info, uint32_t eflags)
{
    static const struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } no_idt = {0, 0};
    const char *cmdline = (const char *)info->cmdline;

    print("\r\nhello\r\n");
    check_state(magic, eflags);
    print_pair("flags ", info->flags);
    print("\r\nloader '");
    print((const char *)info->loader_name);
    print("'\r\ncmdline '");
    print(cmdline);
    print("'\r\n");
    check("modules and map are given", (info->flags & (HAS_MODULES | HAS_MAP)) == (HAS_MODULES | HAS_MAP));
    show_map(info);
    show_modules(info);
    check_rsdp();
    print("bye\r\n");
    if (ends_with(cmdline, "state"))
        state();
    if (ends_with(cmdline, "forge")) {
        forge((uint32_t)guest_end, (info->mem_upper << 10) + ONE_MIB);
        print("forged\r\n");
    }
    if (ends_with(cmdline, "poweroff") || ends_with(cmdline, "forge"))
        out16(PM1_CONTROL, SLEEP_S5);
    if (ends_with(cmdline, "reboot"))
        out8(RESET_CONTROL, RESET_HARD);
    if (ends_with(cmdline, "exit")) {
        check("the debug port is there", in8(DEBUG_PORT) == DEBUG_PORT);
        for (const char *s = "by the debug port\r\n"; *s; s++)
            out8(DEBUG_PORT, (uint8_t)*s);
        out8(DEBUG_EXIT, EXIT_CODE);
    }
    if (ends_with(cmdline, "triple"))
        __asm__ volatile("lidt %0; ud2" : : "m"(no_idt));
}
