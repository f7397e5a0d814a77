/* Starting the other processors. */
#pragma once

#include "arch/x86/pt_env.h"
#include "boot/boot_info.h"
#include "hv/cpu.h"

/* Starts cpus[1..count-1] (prepared by cpu_init_prepare) all at once; each loads its state and calls run(cpu)
 * on its own stack, which must not return. Waits until each has set cpu->online, at most about 200 ms.
 * Returns how many of all `count` CPUs are online. */
uint32_t smp_start(const struct boot_info *info, struct cpu *cpus, uint32_t count, const struct pt_env *env,
                   void (*run)(struct cpu *cpu));
