#include "tests/guest/runtime/lab.h"

#define CR0_PE        1ull
#define CR0_BASE      0x33ull /* PE, MP, ET, NE */
#define CR0_PG        (1ull << 31)
#define CR4_PSE       0x10ull
#define CR4_PAE       0x20ull
#define FLAGS_FIXED   2ull
#define SEGMENT       0x600u /* of real mode and virtual-8086: what they reach is behind the lab */
#define SEGMENT_STACK 0x7000u
#define FLAGS_IOPL3   0x3000ull
#define FLAGS_VM      0x20000ull
#define EFER_LMA      (1ull << 10)
#define TSS32_IO_MAP  104u
#define IO_MAP_SIZE   8193u

extern uint8_t lab_stubs32[], lab_stubs16[], lab_stack16_top[];
void lab_run(void);
void lab_resume(void);

const char *const lab_mode_names[MODE_COUNT] = {
    "64-bit",
    "64-bit user",
    "compatibility",
    "compatibility user",
    "16-bit compatibility user",
    "protected",
    "user",
    "16-bit",
    "paged",
    "PAE",
    "PAE user",
    "virtual-8086",
    "real",
};

static const struct {
    uint8_t kind;
    uint16_t cs, ss;
    uint64_t cr0, cr4, flags;
} modes[MODE_COUNT] = {
    [MODE_LONG] = {LAB_LONG, SEL_CODE64, SEL_DATA32, 0, 0, 0},
    [MODE_LONG_USER] = {LAB_LONG, SEL_USER_CODE64, SEL_USER_DATA32, 0, 0, FLAGS_IOPL3},
    [MODE_COMPAT] = {LAB_LONG, SEL_CODE32, SEL_DATA32, 0, 0, 0},
    [MODE_COMPAT_USER] = {LAB_LONG, SEL_USER_CODE32, SEL_USER_DATA32, 0, 0, 0},
    [MODE_COMPAT16_USER] = {LAB_LONG, SEL_USER_CODE16, SEL_USER_DATA16, 0, 0, FLAGS_IOPL3},
    [MODE_PROTECTED] = {LAB_PROTECTED, SEL_CODE32, SEL_DATA32, CR0_BASE, 0, 0},
    [MODE_PROTECTED_USER] = {LAB_PROTECTED, SEL_USER_CODE32, SEL_USER_DATA32, CR0_BASE, 0, 0},
    [MODE_PROTECTED16] = {LAB_PROTECTED, SEL_CODE16, SEL_DATA16, CR0_BASE, 0, 0},
    [MODE_PAGED] = {LAB_PROTECTED, SEL_CODE32, SEL_DATA32, CR0_BASE | CR0_PG, CR4_PSE, 0},
    [MODE_PAE] = {LAB_PROTECTED, SEL_CODE32, SEL_DATA32, CR0_BASE | CR0_PG, CR4_PAE, 0},
    [MODE_PAE_USER] = {LAB_PROTECTED, SEL_USER_CODE32, SEL_USER_DATA32, CR0_BASE | CR0_PG, CR4_PAE,
                       FLAGS_IOPL3},
    [MODE_V86] = {LAB_PROTECTED, SEGMENT, SEGMENT, CR0_BASE, 0, FLAGS_VM | FLAGS_IOPL3},
    [MODE_REAL] = {LAB_REAL, SEGMENT, SEGMENT, CR0_BASE & ~CR0_PE, 0, 0},
};

static uint32_t directory[1024] __attribute__((aligned(4096))); /* 4 GiB in 4 MiB pages */
static uint64_t pdptes[4] __attribute__((aligned(4096)));       /* the same, for PAE */
uint8_t lab_tss32[TSS32_IO_MAP + IO_MAP_SIZE];
bool lab_devices = true;
uint64_t lab_cr3, lab_low_directory, lab_more_cr0, lab_more_cr4;
static uint32_t owner; /* the processor that runs code here */

bool lab_is_user(enum lab_mode mode)
{
    return modes[mode].cs & 3 || mode == MODE_V86;
}

bool lab_is_long(enum lab_mode mode)
{
    return modes[mode].kind == LAB_LONG;
}

static void put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof(v));
}

static void pointer(uint8_t *at, uint16_t limit, uint32_t base)
{
    memcpy(at, &limit, sizeof(limit));
    memcpy(at + 2, &base, sizeof(base));
}

/* The tables that the legacy modes need; code under test may have written over them, so they are made each
 * time. */
static void make_tables(struct cpu *cpu, enum lab_mode mode)
{
    pointer(lab.idt64, sizeof(idt) - 1, (uint32_t)(uintptr_t)idt);
    pointer(lab.gdtr, sizeof(cpu->gdt) - 1, (uint32_t)(uintptr_t)cpu->gdt);
    lab.gdt = (uintptr_t)cpu->gdt;
    if (lab_is_long(mode))
        return;
    for (unsigned i = 0; i < 256; i++) {
        uint32_t handler = (uint32_t)(uintptr_t)lab_stubs32 + 16 * i;
        put32(lab_idt32 + 8 * i, (handler & 0xffff) | SEL_CODE32 << 16);
        put32(lab_idt32 + 8 * i + 4, (handler & 0xffff0000) | (i == VECTOR_BP ? 0xee00u : 0x8e00u));
        uint32_t vector = (uint32_t)(uintptr_t)lab_stubs16 + 8 * i; /* segment 0 */
        put32(low_memory + 4 * i, vector);
    }
    unsigned mapped = lab_devices ? 1024 : (unsigned)((memory_top + 0x3fffff) >> 22);
    for (unsigned i = 0; i < 1024 && mode == MODE_PAGED; i++)
        directory[i] = i < mapped ? i << 22 | 0x87 : 0;
    for (unsigned i = 0; i < 4; i++)
        pdptes[i] = (i || !lab_low_directory ? (uint64_t)(uintptr_t)page_pds[i] : lab_low_directory) | 1;
    put32(lab_tss32 + 4, (uint32_t)(uintptr_t)lab_stack16_top - 1024); /* ESP0, SS0 */
    put32(lab_tss32 + 8, SEL_DATA32);
    put32(lab_tss32 + 100, TSS32_IO_MAP << 16);
    lab_tss32[sizeof(lab_tss32) - 1] = 0xff;
    uint64_t base = (uintptr_t)lab_tss32, limit = sizeof(lab_tss32) - 1;
    cpu->gdt[SEL_TSS32 / 8] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    pointer(lab.ivt, 0x3ff, 0);
    pointer(lab.idt32, 256 * 8 - 1, (uint32_t)(uintptr_t)lab_idt32);
}

void lab_clear(void)
{
    for (unsigned i = 0; i < 16; i++)
        lab.gpr[i] = 0;
    lab.gpr[4] = (uintptr_t)lab_stack16_top;
}

unsigned lab_execute(enum lab_mode mode, const void *code, size_t size)
{
    return lab_execute_flags(mode, code, size, 0);
}

unsigned lab_execute_flags(enum lab_mode mode, const void *code, size_t size, uint64_t flags)
{
    owner = this_cpu()->index;
    make_tables(this_cpu(), mode);
    memcpy(lab_code, code, size);
    memset(lab_code + size, 0xcc, sizeof(lab_code) - size);
    bool segmented = modes[mode].cs == SEGMENT;
    if (segmented) {
        memcpy(low_memory + SEGMENT * 16, lab_code, sizeof(lab_code));
        lab.gpr[4] = SEGMENT_STACK;
    }
    lab.kind = modes[mode].kind;
    lab.cs = modes[mode].cs;
    lab.ss = lab.ds = lab.es = modes[mode].ss;
    lab.cr0 = modes[mode].cr0 | lab_more_cr0;
    lab.cr4 = modes[mode].cr4 | lab_more_cr4;
    lab.cr3 = (uintptr_t)(mode == MODE_PAGED ? (void *)directory : (void *)pdptes);
    if (lab_is_long(mode))
        lab.cr3 = lab_cr3 ? lab_cr3 : read_cr3();
    lab.flags = modes[mode].flags | FLAGS_FIXED | flags;
    lab.ip = segmented ? 0 : (uintptr_t)lab_code;
    lab.vector = NO_FAULT;
    lab_run();
    return lab.vector;
}

void lab_caught(struct cpu *cpu, struct frame *frame)
{
    if (!lab.active || cpu->index != owner)
        return;
    const uint64_t gpr[16] = {frame->rax, frame->rcx, frame->rdx, frame->rbx, frame->rsp, frame->rbp,
                              frame->rsi, frame->rdi, frame->r8,  frame->r9,  frame->r10, frame->r11,
                              frame->r12, frame->r13, frame->r14, frame->r15};
    memcpy(lab.gpr, gpr, sizeof(gpr));
    lab.ip = frame->rip;
    lab.flags = frame->rflags;
    lab.vector = (uint32_t)frame->vector;
    lab.error = (uint32_t)frame->error;
    /* What the code may have changed: first what guards the rest. */
    write_cr0(lab.save_cr0);
    if (read_cr4() != lab.save_cr4)
        write_cr4(lab.save_cr4);
    if (rdmsr(MSR_EFER) != lab.save_efer)
        wrmsr(MSR_EFER, lab.save_efer & ~EFER_LMA);
    load_gdt(cpu);
    lab_resume();
}
