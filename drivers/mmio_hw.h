/* Real registers. */
#pragma once

#include "arch/x86/pt_env.h"
#include "drivers/mmio.h"

/* Where page tables come from; `env` stays the caller's. Once, before mmio_map(). */
void mmio_hw_init(const struct pt_env *env);
/* Maps [base, base + size) uncached in LAYOUT_MMIO_VA, for good. Boot CPU only, before VMs start. False: no
 * room, or nothing that can be mapped. */
bool mmio_map(hpa_t base, uint64_t size, struct mmio *out);
