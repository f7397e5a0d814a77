#include "hv/console/console_ring.h"

#define RECALL_LINES 10u /* that were sent before and are sent again for who comes */
#define RECALL_BYTES 2048u

uint32_t console_ring_tail(const struct console_vm *c)
{
    return __atomic_load_n(&c->tail, __ATOMIC_RELAXED);
}

uint32_t console_ring_waiting(const struct console_vm *c)
{
    return __atomic_load_n(&c->head, __ATOMIC_RELAXED) - console_ring_tail(c);
}

uint32_t console_ring_put(struct console_vm *c, uint8_t byte)
{
    spin_lock(&c->lock);
    if (c->head - c->tail == CONSOLE_RING) {
        __atomic_store_n(&c->tail, c->tail + 1, __ATOMIC_RELAXED);
        c->lost++;
    }
    c->ring[c->head % CONSOLE_RING] = byte;
    __atomic_store_n(&c->head, c->head + 1, __ATOMIC_RELAXED);
    c->kept += c->kept < CONSOLE_RING;
    uint32_t waiting = c->head - c->tail;
    spin_unlock(&c->lock);
    return waiting;
}

unsigned console_ring_take(struct console_vm *c, uint8_t *to, unsigned max, const uint32_t *until)
{
    unsigned n = 0;
    spin_lock(&c->lock);
    while (n < max && c->tail != c->head && !(until && (int32_t)(c->tail - *until) >= 0)) {
        to[n++] = c->ring[c->tail % CONSOLE_RING];
        __atomic_store_n(&c->tail, c->tail + 1, __ATOMIC_RELAXED);
    }
    spin_unlock(&c->lock);
    return n;
}

STATIC_ASSERT(RECALL_BYTES < CONSOLE_RING, "what a full ring has lost is not looked at");

/* Where the newest RECALL_LINES lines begin, or as many as are kept and come to RECALL_BYTES at most. */
struct console_recall console_ring_begin_recall(struct console_vm *c)
{
    spin_lock(&c->lock);
    uint32_t lines = 0, most = c->kept < RECALL_BYTES ? c->kept : RECALL_BYTES;
    uint32_t from = c->head;
    for (uint32_t back = 1; back <= most && lines < RECALL_LINES; back++) {
        uint32_t at = c->head - back;
        /* The first byte ever begins a line, and the one behind an end of a line. */
        if (back < c->kept && c->ring[(at - 1) % CONSOLE_RING] != '\n')
            continue;
        from = at;
        lines++;
    }
    struct console_recall recall = {from, c->tail, PLAIN_TEXT};
    if ((int32_t)(recall.end - recall.at) < 0) /* all of it waits to be sent the first time */
        recall.at = recall.end;
    spin_unlock(&c->lock);
    return recall;
}

unsigned console_ring_recall(struct console_vm *c, struct console_recall *recall, uint8_t *to, unsigned max)
{
    unsigned n = 0;
    spin_lock(&c->lock);
    if (c->head - recall->at > CONSOLE_RING) /* overwritten meanwhile */
        recall->at = recall->end;
    while (n < max && recall->at != recall->end) {
        uint8_t byte = c->ring[recall->at++ % CONSOLE_RING];
        if (plain_is_text(&recall->state, byte))
            to[n++] = byte;
    }
    spin_unlock(&c->lock);
    return n;
}

uint64_t console_ring_take_lost(struct console_vm *c)
{
    spin_lock(&c->lock);
    uint64_t lost = c->lost;
    c->lost = 0;
    spin_unlock(&c->lock);
    return lost;
}

void console_ring_forget(struct console_vm *c)
{
    spin_lock(&c->lock);
    c->kept = c->head - c->tail;
    spin_unlock(&c->lock);
}
