/* Bringing a host CPU into its final state: segments, interrupt table, stacks, control registers, windows. */
#pragma once

#include "arch/x86/pt_env.h"
#include "hv/cpu.h"

#define SEL_CODE 0x08u
#define SEL_DATA 0x10u
#define SEL_TSS  0x18u

/* Interrupt-stack-table slots (SDM volume 3, "Interrupt Stack Table"). */
enum cpu_ist { IST_NMI = 1, IST_DOUBLE_FAULT = 2, IST_MACHINE_CHECK = 3 };

/* Vectors of the host's own interrupts. */
#define HOST_VECTOR_KICK     0xf0u
#define HOST_VECTOR_TIMER    0xf1u
#define HOST_VECTOR_SPURIOUS 0xffu

/* SDM volume 3, figure "64-Bit TSS Format". */
struct cpu_tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3, iomap;
} __attribute__((packed));

struct cpu_hw {
    uint64_t gdt[5]; /* null, code, data, TSS (two entries) */
    struct cpu_tss tss;
    uint64_t stack_top;                   /* of the stack the CPU runs on */
    uint64_t *window_entry[HOST_WINDOWS]; /* page-table entry behind each window */
    uint64_t window_value[HOST_WINDOWS];  /* what it holds, to skip needless invalidations */
    hpa_t vmxon;                          /* VMXON region, 0 = not in VMX operation */
};

/* Allocates and maps everything `cpu` needs (stacks with guard pages, windows). On the boot CPU, before any
 * other. */
enum status cpu_init_prepare(struct cpu *cpu, const struct pt_env *env, hpa_t root);
/* The first and the last byte + 1 of the stack that `rsp` belongs to, also when it points into the guard
 * below; false: to none of these CPUs'. */
bool cpu_init_find_stack(uint64_t rsp, uint32_t cpus, uint64_t *bottom, uint64_t *end);
/* Makes this CPU use it. Afterwards cpu_this() works. */
void cpu_init_load(struct cpu *cpu);

/* The CPU we are on. */
static inline struct cpu *cpu_this(void)
{
    struct cpu *self;
    __asm__("mov %%gs:0, %0" : "=r"(self));
    return self;
}

/* Maps a device's registers uncached; NULL: no room. Boot CPU, before the others are started. */
void *cpu_init_map_device(const struct pt_env *env, hpa_t root, hpa_t base, uint64_t size, unsigned flags);
