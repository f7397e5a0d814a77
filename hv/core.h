/* The one instance of everything: what main.c wires together. */
#pragma once

#include "boot/boot_info.h"
#include "hv/pmem.h"
#include "hv/pool.h"
#include "hv/vm.h"

struct core {
    struct boot_info *info; /* C */
    struct pool pool;       /* has its own lock */
    struct pmem pmem;       /* has its own lock */
    struct pt_env pt_env;   /* C. tables from the pool */
    uint32_t cpu_count;     /* C */
    struct cpu cpus[BOOT_MAX_CPUS];
    struct vm *vms[CONFIG_MAX_VMS]; /* C after start-up */
    struct spinlock loading;        /* one VM's images are loaded at a time; outermost */
};
extern struct core core;

/* The core's entry in C; the loader's hand-over is at `info`. Does not return. */
void core_main(struct boot_info *info) __attribute__((noreturn));

/* UTC now, in seconds since 1970; counts from 0 where the firmware had no clock. */
int64_t core_wall_seconds(void);
/* A VM has stopped for good: when it was the last one, does what `on_idle` says. */
void core_vm_stopped(void);

/* A CPU's life (hv/sched.c): runs what it is given, sleeps otherwise. Does not return. */
void sched_run(struct cpu *cpu) __attribute__((noreturn));
