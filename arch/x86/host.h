/* Setting up the host's processors; called by hv/main.c in this order. */
#pragma once

#include "arch/x86/pt_env.h"
#include "boot/boot_info.h"
#include "drivers/acpi/acpi.h"
#include "hv/cpu.h"

/* Boot CPU: prepares every CPU's tables and stacks, takes the boot CPU over from the loader, silences the
 * legacy interrupt controllers, forgets the loader's mappings. */
enum status host_init(const struct boot_info *info, struct cpu *cpus, uint32_t count,
                      const struct pt_env *env);
/* Leaves the boot stack for good. */
void host_run_on_own_stack(struct cpu *cpu, void (*function)(void *cpu)) __attribute__((noreturn));
/* smp_start() behind this room's door: starts cpus[1..], each running run(cpu); how many of all are online.
 */
uint32_t host_start_others(const struct boot_info *info, struct cpu *cpus, uint32_t count,
                           const struct pt_env *env, void (*run)(struct cpu *cpu));
/* Copies host-physical memory through a window (struct acpi_reader). */
enum status host_read_physical(void *ctx, hpa_t addr, void *buf, size_t size);
/* How this machine is switched off and reset; NULL: it has no ACPI (then it is taken for an emulator). */
void host_set_power(const struct acpi_fadt *fadt);
