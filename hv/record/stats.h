/* What a VM's vCPUs did with their time: exits by reason, injected interrupts, time in guest and host. */
#pragma once

#include "hv/lib/types.h"

struct lines;
struct vm;

/* Host TSC ticks, written by the CPU that runs the vCPU. "In the loop" is between vm_begin_vcpu() and leaving
 * virt_run(). Time in the guest is what is left of it: a halted guest is in the guest. */
struct vcpu_times {
    uint64_t loop_since;    /* A. when the loop was entered; 0: it is not in it */
    uint64_t loop_done;     /* A. ticks in loops that have been left */
    uint64_t host;          /* A. of these, between an exit and the next entry */
    uint64_t waited;        /* A. of these again, waiting for a start-up IPI */
    uint64_t waiting_since; /* A. when such a wait began; 0: none */
};

void stats_enter_loop(struct vcpu_times *times, uint64_t now);
void stats_leave_loop(struct vcpu_times *times, uint64_t now);

/* The times now; `now` is the host's TSC. Any CPU. */
struct vcpu_split {
    uint64_t guest, host, waited;
};
struct vcpu_split stats_split(const struct vcpu_times *times, uint64_t now);

/* `stats VM`: a struct lines (vm set): all its vCPUs. */
bool stats_next(struct lines *self, char *line, size_t size);
