/* The memory map a guest's kernel is told. */
#pragma once

#include "hv/guest/layout.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2 };

#define E820_MAX 8u

/* As it stands in the zero page (20 bytes, ACPI specification "INT 15H, E820H"). */
struct e820_entry {
    uint64_t base, size; /* bytes */
    uint32_t type;       /* enum e820_type */
} __attribute__((packed));

/* Sorted, not overlapping; returns the number of entries, at most E820_MAX. */
uint32_t e820_build(const struct guest_layout *layout, struct e820_entry out[E820_MAX]);
