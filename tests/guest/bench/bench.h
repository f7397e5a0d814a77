/* What the parts of the bench guest know of each other. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 30 devices get ports and memory. False: they do not fit. */
bool lookup_set_up(void);
/* The most instructions that finding the device of an access takes; UINT32_MAX and the like: a wrong one was
 * found. */
uint32_t lookup_port_cost(void);
uint32_t lookup_mmio_cost(void);
