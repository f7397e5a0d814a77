/* Who runs on a CPU, and what is done meanwhile when it has to wait. */
#pragma once

struct cpu;

/* A CPU's life: runs what it is given, sleeps otherwise. Does not return. */
void sched_run(struct cpu *cpu) __attribute__((noreturn));
/* The console's and the devices' polls; sets when they are due next. The CPU that polls. */
void sched_poll(struct cpu *cpu);
/* For work that takes long, and for a CPU that waits for another's: does what cannot wait, the console's and
 * the devices' polls. The locks held are one VM's `devices` (or a turn in its queue) at most; no window is in
 * use. */
void sched_breathe(void);
