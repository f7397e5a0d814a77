/* The black box: what a panic leaves behind in memory that a warm reset does not clear. The core writes it,
 * the loader of the next start finds it, shows it, puts it into a file and clears it. Pure; used by both. */
#pragma once

#include <stdarg.h>
#include "hv/lib/types.h"

#define BLACKBOX_SIZE (32u * 1024u) /* bytes, whole pages */

/* Where the loader puts it, if it can: the first of these host-physical addresses that is free. Fixed, so
 * that the next start looks at the same place, and at no other: guests may have had those. Firmware works
 * below and far above them. */
#define BLACKBOX_PLACES                                                                                      \
    {                                                                                                        \
        0x4000000, 0x8000000, 0x6000000, 0x2000000, 0xc000000, 0x10000000                                    \
    }

/* A text that grows; what does not fit is cut. `memory` is BLACKBOX_SIZE bytes. */
struct blackbox {
    uint8_t *memory;
    size_t length; /* of the text */
};

/* Forgets what was there. */
void blackbox_begin(struct blackbox *b, void *memory);
void blackbox_print(struct blackbox *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void blackbox_vprint(struct blackbox *b, const char *format, va_list args);
void blackbox_write(struct blackbox *b, const char *text, size_t size);
/* Makes what was written so far valid for blackbox_find(). May be called again and again: if the panic itself
 * dies on the way, the last state that was sealed is found. */
void blackbox_seal(struct blackbox *b);
const char *blackbox_text(const struct blackbox *b);

/* The text of a sealed black box, printable ASCII and newlines; false: there is none, or it is damaged. Reads
 * `memory` (BLACKBOX_SIZE bytes, from anybody) only. */
bool blackbox_find(const void *memory, struct span *text);
void blackbox_clear(void *memory);
