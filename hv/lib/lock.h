/* A ticket spinlock: fair, so that no CPU of a VM starves another. Never taken with guest code running on the
 * same CPU; Bulkhead runs with interrupts off, so there is no interrupt variant. Lock order: hv/vm.h. */
#pragma once

#include "hv/lib/types.h"

struct spinlock {
    uint32_t next;    /* next ticket to hand out */
    uint32_t serving; /* ticket that holds the lock */
};

static inline void spin_lock(struct spinlock *l)
{
    uint32_t mine = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&l->serving, __ATOMIC_ACQUIRE) != mine)
        __builtin_ia32_pause();
}

/* The same, for a lock that may be held long: calls `meanwhile` again and again while it waits, its turn kept.
 * That must not wait for this lock itself. */
static inline void spin_lock_with(struct spinlock *l, void (*meanwhile)(void))
{
    uint32_t mine = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
    while (__builtin_expect(__atomic_load_n(&l->serving, __ATOMIC_ACQUIRE) != mine, 0)) {
        meanwhile();
        __builtin_ia32_pause();
    }
}

/* Takes the lock when it is free; never waits. */
static inline bool spin_trylock(struct spinlock *l)
{
    uint32_t serving = __atomic_load_n(&l->serving, __ATOMIC_ACQUIRE), free = serving;
    return __atomic_compare_exchange_n(&l->next, &free, serving + 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static inline void spin_unlock(struct spinlock *l)
{
    __atomic_store_n(&l->serving, l->serving + 1, __ATOMIC_RELEASE);
}
