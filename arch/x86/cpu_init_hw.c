#include "arch/x86/cpu_init.h"
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"
#include "arch/x86/msr.h"
#include "arch/x86/traps.h"
#include "hv/lib/string.h"

/* Every stack lies at the upper end of a slot; what is below it in the slot is unmapped: the guard. */
#define STACK_SLOT       (64ull << 10)
#define STACKS_PER_CPU   4u
#define RUN_STACK_SIZE   (16ull << 10)
#define EVENT_STACK_SIZE (8ull << 10)

#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_DATA   0x00cf93000000ffffull

/* PAT entries 0..3 as at power-up (WB, WT, UC-, UC), entry 4 = WC for the framebuffer (hostpt's HOSTPT_WC).
 */
#define HOST_PAT 0x0007040100070406ull

#define CPUID_7_EBX_SMEP  (1u << 7)
#define CPUID_7_EBX_SMAP  (1u << 20)
#define CPUID_7_ECX_UMIP  (1u << 2)
#define CPUID_7_ECX_PKU   (1u << 3)
#define CPUID_1_ECX_XSAVE (1u << 26)

extern void entry_load_segments(const void *gdtr, uint16_t code, uint16_t data, uint16_t tss);

static struct cpu_hw cpu_hws[64] __attribute__((aligned(64)));
static uint64_t device_next = LAYOUT_MMIO_VA;

/* Maps one stack into its slot; answers its top, 0 when memory is out. */
static uint64_t map_stack(const struct pt_env *env, hpa_t root, unsigned slot, uint64_t size)
{
    uint64_t top = LAYOUT_STACK_VA + (slot + 1) * STACK_SLOT;
    for (uint64_t va = top - size; va < top; va += PAGE_SIZE) {
        hpa_t page;
        if (!env->alloc(env->ctx, &page) ||
            hostpt_map(env, root, va, page, PAGE_SIZE, HOSTPT_WRITE) != STATUS_OK)
            return 0;
    }
    return top;
}

bool cpu_init_find_stack(uint64_t rsp, uint32_t cpus, uint64_t *bottom, uint64_t *end)
{
    uint64_t slot = (rsp - LAYOUT_STACK_VA) / STACK_SLOT;
    if (rsp < LAYOUT_STACK_VA || slot >= (uint64_t)cpus * STACKS_PER_CPU)
        return false;
    *end = LAYOUT_STACK_VA + (slot + 1) * STACK_SLOT;
    *bottom = *end - (slot % STACKS_PER_CPU ? EVENT_STACK_SIZE : RUN_STACK_SIZE);
    return true;
}

static void set_tss_descriptor(struct cpu_hw *hw)
{
    uint64_t base = (uint64_t)(uintptr_t)&hw->tss;
    uint64_t limit = sizeof(hw->tss) - 1;
    /* SDM volume 3, "TSS Descriptor in 64-bit mode": type 9 (available), present. */
    hw->gdt[3] = limit | ((base & 0xffffff) << 16) | (0x89ull << 40) | (((base >> 24) & 0xff) << 56);
    hw->gdt[4] = base >> 32;
}

enum status cpu_init_prepare(struct cpu *cpu, const struct pt_env *env, hpa_t root)
{
    struct cpu_hw *hw = &cpu_hws[cpu->index];
    cpu->hw = hw;
    cpu->self = cpu;
    hw->gdt[1] = GDT_CODE64;
    hw->gdt[2] = GDT_DATA;
    set_tss_descriptor(hw);

    unsigned slot = cpu->index * STACKS_PER_CPU;
    hw->stack_top = map_stack(env, root, slot, RUN_STACK_SIZE);
    hw->tss.ist[IST_NMI - 1] = map_stack(env, root, slot + 1, EVENT_STACK_SIZE);
    hw->tss.ist[IST_DOUBLE_FAULT - 1] = map_stack(env, root, slot + 2, EVENT_STACK_SIZE);
    hw->tss.ist[IST_MACHINE_CHECK - 1] = map_stack(env, root, slot + 3, EVENT_STACK_SIZE);
    hw->tss.iomap = sizeof(hw->tss);
    if (!hw->stack_top || !hw->tss.ist[0] || !hw->tss.ist[1] || !hw->tss.ist[2])
        return ERR_NO_MEMORY;

    for (unsigned i = 0; i < HOST_WINDOWS; i++) {
        uint64_t va = LAYOUT_WINDOW_VA + (cpu->index * HOST_WINDOWS + i) * PAGE_SIZE;
        enum status s = hostpt_leaf(env, root, va, &hw->window_entry[i]);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

void cpu_init_load(struct cpu *cpu)
{
    struct cpu_hw *hw = cpu->hw;
    struct table_register gdtr = {.limit = sizeof(hw->gdt) - 1, .base = (uint64_t)(uintptr_t)hw->gdt};
    hw->gdt[3] &= ~(0x2ull << 40); /* LTR wants an available TSS, and marks it busy */
    entry_load_segments(&gdtr, SEL_CODE, SEL_DATA, SEL_TSS);
    traps_load();
    cpu_wrmsr(MSR_IA32_GS_BASE, (uint64_t)(uintptr_t)cpu);

    uint64_t cr4 = CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR;
    struct cpuid_result seven = cpu_cpuid(7, 0);
    if (seven.ebx & CPUID_7_EBX_SMEP)
        cr4 |= CR4_SMEP;
    if (seven.ebx & CPUID_7_EBX_SMAP)
        cr4 |= CR4_SMAP;
    if (seven.ecx & CPUID_7_ECX_UMIP)
        cr4 |= CR4_UMIP;
    if (seven.ecx & CPUID_7_ECX_PKU)
        cr4 |= CR4_PKE; /* no effect on us, who have no user pages; RDPKRU wants it */
    if (cpu_cpuid(1, 0).ecx & CPUID_1_ECX_XSAVE)
        cr4 |= CR4_OSXSAVE;
    cpu_write_cr4(cr4);
    cpu_write_cr0(CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG);
    cpu_wrmsr(MSR_IA32_PAT, HOST_PAT);
    cpu_write_dr7(DR7_RESET);
}

void *cpu_init_map_device(const struct pt_env *env, hpa_t root, hpa_t base, uint64_t size, unsigned flags)
{
    uint64_t offset = base.v & PAGE_MASK;
    uint64_t bytes = align_up(offset + size, PAGE_SIZE);
    uint64_t va = device_next;
    if (hostpt_map(env, root, va, hpa(base.v - offset), bytes, flags) != STATUS_OK)
        return NULL;
    device_next += bytes + PAGE_SIZE; /* a hole between devices */
    return (void *)(uintptr_t)(va + offset);
}
