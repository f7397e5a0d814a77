/* The ring with a VM's output: what waits to be sent, and before it what was sent last, which is kept to be
 * shown again. Any CPU; the ring's lock is taken inside, and may be taken under the console's own. Positions
 * are free-running. A part of hv/console/console.c. */
#pragma once

#include "hv/console/console.h"
#include "hv/lib/plain.h"

/* [at, end) of a ring was sent before and is to be sent again. All zero: nothing is. */
struct console_recall {
    uint32_t at, end;
    enum plain state;
};

/* Where the first byte is that waits. It moves also when a full ring loses its oldest byte. */
uint32_t console_ring_tail(const struct console_vm *c);
/* How many bytes wait: an answer for now. */
uint32_t console_ring_waiting(const struct console_vm *c);
/* Puts a byte in; answers how many wait. */
uint32_t console_ring_put(struct console_vm *c, uint8_t byte);
/* Takes up to `max` bytes, and none at or behind position *until, unless that is NULL. */
unsigned console_ring_take(struct console_vm *c, uint8_t *to, unsigned max, const uint32_t *until);
/* How many bytes were lost since the last question. */
uint64_t console_ring_take_lost(struct console_vm *c);
/* What was sent up to now is not shown again. */
void console_ring_forget(struct console_vm *c);

/* The last lines, as far as they were sent before. */
struct console_recall console_ring_begin_recall(struct console_vm *c);
/* The next bytes of it, up to `max`, without what would steer the terminal. 0: that was all. */
unsigned console_ring_recall(struct console_vm *c, struct console_recall *recall, uint8_t *to, unsigned max);
