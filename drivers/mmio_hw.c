#include "drivers/mmio_hw.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/hostpt.h"

#define CR3_ADDRESS 0x000ffffffffff000ull

static const struct pt_env *tables;

static uint32_t read32(void *ctx, uint64_t offset)
{
    return *(volatile uint32_t *)((uint8_t *)ctx + offset);
}

static void write32(void *ctx, uint64_t offset, uint32_t value)
{
    *(volatile uint32_t *)((uint8_t *)ctx + offset) = value;
}

static uint64_t read64(void *ctx, uint64_t offset)
{
    return *(volatile uint64_t *)((uint8_t *)ctx + offset);
}

static void write64(void *ctx, uint64_t offset, uint64_t value)
{
    *(volatile uint64_t *)((uint8_t *)ctx + offset) = value;
}

void mmio_hw_init(const struct pt_env *env)
{
    tables = env;
}

bool mmio_map(hpa_t base, uint64_t size, struct mmio *out)
{
    if (!tables || size == 0 || base.v + size < base.v)
        return false;
    void *at = cpu_init_map_device(tables, hpa(cpu_read_cr3() & CR3_ADDRESS), base, size,
                                   HOSTPT_WRITE | HOSTPT_UNCACHED);
    if (!at)
        return false;
    *out = (struct mmio){at, size, read32, write32, read64, write64};
    return true;
}
