/* What the parts of the bench guest know of each other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The low half of the time-stamp counter: instructions, in the emulator. */
static inline uint32_t bench_now(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return low;
}

/* 30 devices get ports and memory. False: they do not fit. */
bool lookup_set_up(void);
/* The most instructions that finding the device of an access takes; UINT32_MAX and the like: a wrong one was
 * found. */
uint32_t lookup_port_cost(void);
uint32_t lookup_mmio_cost(void);

/* Instructions for mapping 1 GiB for devices; UINT32_MAX: the tables were wrong. */
uint32_t mapping_cost(void);
