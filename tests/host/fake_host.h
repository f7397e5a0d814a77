/* hv/cpu.h's host_*() for tests: a clock that the test moves, kicks and sleeps that are recorded, windows on
 * a physical memory of the test's own, a console port, a log that can be searched, and ends of the machine
 * that can be caught. Also the one `struct core`, as hv/main.c is not linked into tests. */
#pragma once

#include <setjmp.h>
#include "hv/core.h"

#define FAKE_KICKS   64u
#define FAKE_IDLES   64u
#define FAKE_LOG     16384u
#define FAKE_TX      65536u
#define FAKE_RX      256u
#define FAKE_CPUS    8u          /* CPUs with windows of their own */
#define FAKE_TSC_HZ  1000000000u /* clock_init(): one tick is one nanosecond */
#define FAKE_TSC_NOW 1000000u    /* host_tsc() after fake_host_init() */

enum fake_end { FAKE_END_NONE, FAKE_END_POWEROFF, FAKE_END_REBOOT, FAKE_END_PANIC };

struct fake_host {
    uint64_t tsc;      /* what host_tsc() answers; the test's to move */
    uint64_t tsc_step; /* added to it by every host_tsc(), after answering */
    unsigned tsc_reads;
    struct cpu *cpu; /* what host_cpu() answers: &core.cpus[0] */

    unsigned kicks; /* all; the first FAKE_KICKS targets in order */
    const struct cpu *kicked[FAKE_KICKS];
    void (*on_kick)(const struct cpu *target); /* called by host_kick() when set */
    unsigned raised;                           /* host_raise() */
    uint8_t last_raised;
    unsigned idles;
    uint64_t idle_until[FAKE_IDLES];
    /* Called by host_idle() when set. Else the clock jumps to `until`, and a sleep without end aborts the
     * test: nobody would ever wake it. */
    void (*on_idle)(uint64_t until);
    unsigned interrupts, nmis; /* host_handle_*() */
    uint8_t last_interrupt;

    enum fake_end end; /* how the machine ended, with panic's message */
    char panic[256];
    bool catching;
    jmp_buf caught;

    int64_t wall_seconds;              /* core_wall_seconds() */
    unsigned vms_started, vms_stopped; /* calls of core_vm_started(), core_vm_stopped() */
    bool by_operator;                  /* the last argument of the latter */
    unsigned window_moves;             /* host_window() calls that needed a new mapping */

    char log[FAKE_LOG]; /* lines of every level, each ended by '\n' */
    size_t log_size;
    unsigned log_lines;

    uint8_t tx[FAKE_TX]; /* what the console's port was given */
    size_t tx_size;
    uint8_t rx[FAKE_RX]; /* what it will answer */
    size_t rx_size, rx_at;
};
extern struct fake_host fake_host;

/* Everything back to the beginning: zeroed core, clock_init(FAKE_TSC_HZ), log and console connected. */
void fake_host_init(void);
/* A machine of `cpus` CPUs that are online, with a VM to come and this memory free: zeroes `info` and `vm`.
 * Calls fake_host_init() and fake_virt_init(). */
void fake_host_with_vm(struct boot_info *info, struct vm *vm, const struct boot_region *free, uint32_t cpus);
/* The core's own memory, its first `used` bytes taken; as the core sees it from FAKE_POOL_HPA on. */
void fake_host_pool(void *pool, uint64_t size, uint64_t used);
#define FAKE_POOL_HPA 0x40000000ull
/* Physical memory [0, size) for host_window(), zeroed; size is a multiple of the page size. The pointer sees
 * all of it. A window sees only its page, and only until the slot is used again: a stale pointer then sees
 * the other page. */
uint8_t *fake_host_memory(uint64_t size);
/* Was a line with this text logged? */
bool fake_host_logged(const char *text);
void fake_host_type(const char *text); /* input for the console's port */

/* Runs a statement that ends in host_poweroff(), host_reboot() or host_panic(): how it ended, FAKE_END_NONE
 * when it came back. Without it an end aborts the test. */
#define fake_host_catch(statement)                                                                           \
    ({                                                                                                       \
        fake_host.end = FAKE_END_NONE;                                                                       \
        fake_host.catching = true;                                                                           \
        if (setjmp(fake_host.caught) == 0) {                                                                 \
            statement;                                                                                       \
        }                                                                                                    \
        fake_host.catching = false;                                                                          \
        fake_host.end;                                                                                       \
    })
