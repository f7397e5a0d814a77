/* Two processors and a lock: who waits for it gets it, also when it is free for the time of one PAUSE only
 * and the loops of both take equally long (SDM volume 2B, "PAUSE": it gives way to the other one; SeaBIOS
 * starts its processors so). */
#include "rules.h"

#define OTHER   1u
#define LENGTHS 10u   /* of each loop, in turns round an inner one */
#define ROUNDS  1000u /* a fair machine needs some 10 */
#define WAIT_US 1000000u

static volatile uint32_t lock;
static volatile bool got;

static void delay(unsigned turns)
{
    if (turns)
        __asm__ volatile("1: dec %0; jnz 1b" : "+r"(turns)::"cc");
}

static void give_way(void)
{
    __asm__ volatile("pause" ::: "memory");
}

static void take(unsigned turns)
{
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
        give_way();
        delay(turns);
    }
}

static void release(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

static void other(void *argument)
{
    take((unsigned)(uintptr_t)argument);
    got = true;
    release();
}

static void one(unsigned mine, unsigned its)
{
    got = false;
    take(0);
    check(cpu_start(OTHER, other, (void *)(uintptr_t)its), "the other processor starts");
    unsigned rounds = 0;
    for (; rounds < ROUNDS && !got; rounds++) {
        delay(mine);
        release();
        give_way();
        take(0);
    }
    check(got, "loops of %u and %u turns: the other one never has the lock in %u rounds", (uint64_t)mine,
          (uint64_t)its, (uint64_t)rounds);
    release();
    check(cpu_wait(OTHER, WAIT_US), "the other processor ends");
}

void rule_fairness(void)
{
    for (unsigned mine = 0; mine < LENGTHS; mine++) {
        for (unsigned its = 0; its < LENGTHS; its++)
            one(mine, its);
    }
}
