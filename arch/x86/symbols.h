/* Names of the core's own functions, for panics: a table that scripts/lib/symbols.py writes into the linked
 * core. Pure. */
#pragma once

#include "hv/lib/types.h"

#ifndef SYMBOLS_ROOM /* bytes of the image: core.cmake says it to the core */
#define SYMBOLS_ROOM 4096u
#endif
#define SYMBOLS_MAGIC 0x6d797342u /* "Bsym" */
#define SYMBOLS_NAME  64u         /* bytes of the longest name, with its NUL */

/* Then, for each of `count` functions, ascending, what differs from the one before (the first: from an empty
 * name at the core's first byte): its distance, 7 bits in a byte, the lowest first, bit 7 where more follow;
 * a byte with the number of characters that its name has in common with the other's beginning; and the rest
 * of the name, with NUL. */
struct symbols_table {
    uint32_t magic, count;
    uint8_t rest[SYMBOLS_ROOM - 8];
};

/* The core's own, in symbols_room.asm. */
extern const struct symbols_table symbols_core;
/* "vcpu_handle_exit+0x3a" for a byte of the core (its offset from the core's start); false: the table is not
 * there or damaged, or the offset lies before its first symbol. */
bool symbols_describe(const struct symbols_table *table, uint64_t offset, char *text, size_t size);
