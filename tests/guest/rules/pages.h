/* For rules about pages: accesses of three kinds to the page at LINEAR, which a table entry or a large page
 * maps as the rule wants it, and what came of them. */
#pragma once

#include "rules.h"

#define SLOT       504u /* of the first directory: nobody else needs these addresses */
#define LINEAR     (SLOT * LARGE_PAGE)
#define FREE_LARGE 0x600000ull /* memory behind the image */

#define ENTRY_P    1ull
#define ENTRY_RW   2ull
#define ENTRY_US   4ull
#define ENTRY_A    0x20ull
#define ENTRY_D    0x40ull
#define ENTRY_PS   0x80ull
#define ENTRY_NX   (1ull << 63)
#define ERROR_P    1u
#define ERROR_W    2u
#define ERROR_U    4u
#define ERROR_RSVD 8u
#define ERROR_I    16u
#define ERROR_PK   32u
#define CR0_WP     (1ull << 16)

enum access { READ, WRITE, FETCH };
extern const char *const access_names[];

/* What SLOT's entry may point at, and what one of its entries may: the first byte of both the page and the
 * large page is an INT3 during each access. */
extern uint64_t pages_table[512];
extern uint8_t pages_target[4096];

#define DONE ~0u /* what the next two answer when the code came to its end */
/* Runs code with LINEAR in RBX and an INT3 in AL: the error code of its page fault in that page, DONE, or
 * ~1 for anything else. */
uint32_t pages_run(enum lab_mode mode, const uint8_t *code, size_t size, uint64_t flags);
/* An access to the byte at LINEAR by code for 32 or 64 bits. Also ~1: it was the fault of another byte, or
 * went elsewhere. */
uint32_t pages_attempt(enum lab_mode mode, enum access access, uint64_t flags);
