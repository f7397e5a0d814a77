#include "drivers/iommu/vtd_hw.h"
#include "drivers/mmio_hw.h"

#define CACHE_LINE 64u /* bytes: of every processor with VT-d */

static bool map(void *ctx, hpa_t base, uint64_t size, struct mmio *out)
{
    (void)ctx;
    return mmio_map(base, size, out);
}

static void write_back(void *ctx, const void *at, size_t size)
{
    (void)ctx;
    const char *end = (const char *)at + size;
    for (const char *line = (const char *)align_down((uintptr_t)at, CACHE_LINE); line < end;
         line += CACHE_LINE)
        __asm__ volatile("clflush (%0)" ::"r"(line) : "memory");
    __asm__ volatile("mfence" ::: "memory");
}

void vtd_hw_env(struct iommu_env *env)
{
    env->map = map;
    env->write_back = write_back;
}
