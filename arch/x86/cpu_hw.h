/* Instructions that C has no words for. Included by *_hw.c files only. */
#pragma once

#include "hv/lib/types.h"

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};

/* What LGDT, LIDT and SIDT take. */
struct __attribute__((packed)) table_register {
    uint16_t limit;
    uint64_t base;
};

static inline struct cpuid_result cpu_cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
static inline uint64_t cpu_rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return ((uint64_t)hi << 32) | lo;
}
static inline void cpu_wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}
static inline __attribute__((always_inline)) uint64_t cpu_rdtsc(void)
{
    uint64_t lo, hi; /* the upper halves of RAX and RDX are cleared */
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return hi << 32 | lo;
}
static inline uint8_t cpu_in8(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void cpu_out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint16_t cpu_in16(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void cpu_out16(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint32_t cpu_in32(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void cpu_out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
#define CPU_CR_ACCESSORS(n)                                                                                  \
    static inline uint64_t cpu_read_cr##n(void)                                                              \
    {                                                                                                        \
        uint64_t v;                                                                                          \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v));                                                    \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void cpu_write_cr##n(uint64_t v)                                                           \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%cr" #n ::"r"(v) : "memory");                                             \
    }
CPU_CR_ACCESSORS(0)
CPU_CR_ACCESSORS(2)
CPU_CR_ACCESSORS(3)
CPU_CR_ACCESSORS(4)
#define CPU_DR_ACCESSORS(n)                                                                                  \
    static inline uint64_t cpu_read_dr##n(void)                                                              \
    {                                                                                                        \
        uint64_t v;                                                                                          \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(v));                                                    \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void cpu_write_dr##n(uint64_t v)                                                           \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%dr" #n ::"r"(v));                                                        \
    }
CPU_DR_ACCESSORS(0)
CPU_DR_ACCESSORS(1)
CPU_DR_ACCESSORS(2)
CPU_DR_ACCESSORS(3)
CPU_DR_ACCESSORS(6)
CPU_DR_ACCESSORS(7)

static inline void cpu_invlpg(const void *va)
{
    __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory");
}
static inline void cpu_xsetbv(uint32_t index, uint64_t value)
{
    __asm__ volatile("xsetbv" ::"c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}
static inline uint64_t cpu_xgetbv(uint32_t index)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
    return ((uint64_t)hi << 32) | lo;
}
/* Protection-key rights; 0 where CR4.PKE is off. */
static inline uint32_t cpu_rdpkru(void)
{
    uint32_t value, zero;
    if (!(cpu_read_cr4() & (1ull << 22)))
        return 0;
    __asm__ volatile("rdpkru" : "=a"(value), "=d"(zero) : "c"(0));
    return value;
}
static inline void cpu_fxsave64(void *image)
{
    __asm__ volatile("fxsave64 (%0)" ::"r"(image) : "memory");
}
static inline void cpu_fxrstor64(const void *image)
{
    __asm__ volatile("fxrstor64 (%0)" ::"r"(image) : "memory");
}
static inline void cpu_xsave64(void *area, uint64_t mask)
{
    __asm__ volatile("xsave64 (%0)" ::"r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32)) : "memory");
}
static inline void cpu_xrstor64(const void *area, uint64_t mask)
{
    __asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
                     : "memory");
}
static inline void cpu_pause(void)
{
    __asm__ volatile("pause");
}
static inline void cpu_cli(void)
{
    __asm__ volatile("cli" ::: "memory");
}
/* Sleeps until an interrupt; STI's shadow makes the pair atomic. Returns with interrupts off. */
static inline void cpu_wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" ::: "memory");
}
static inline void cpu_wbinvd(void)
{
    __asm__ volatile("wbinvd" ::: "memory");
}
