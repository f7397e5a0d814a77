/* Every MSR number is read and written, with nothing, everything and random bits. Those whose change would
 * end the run are put back at once. */
#include "hostile.h"

#define RANDOM_NUMBERS 2000u

struct msr_access {
    uint32_t msr;
    uint64_t value;
    bool write;
};

static uint64_t faults, reads, writes;

static void access(void *argument)
{
    struct msr_access *a = argument;
    if (a->write)
        wrmsr(a->msr, a->value);
    else
        a->value = rdmsr(a->msr);
}

static bool try_access(uint32_t msr, bool write, uint64_t *value)
{
    struct msr_access a = {msr, *value, write};
    unsigned vector = guarded(access, &a);
    *value = a.value;
    *(write ? &writes : &reads) += 1;
    if (vector == NO_FAULT)
        return true;
    faults++;
    if (vector != VECTOR_GP)
        print("hostile: msr: %s of %x ended with vector %u\n", write ? "write" : "read", (uint64_t)msr,
              (uint64_t)vector);
    return false;
}

/* What this program itself stands on: written only with what it holds. */
static bool is_floor(uint32_t msr)
{
    return msr == MSR_EFER;
}

static void probe(struct chance *c, uint32_t msr)
{
    uint64_t before = 0, value;
    bool readable = try_access(msr, false, &before);
    if (is_floor(msr)) {
        value = ~0ull;
        try_access(msr, true, &value);
        return;
    }
    uint64_t values[] = {0, ~0ull, chance_next(c), 1ull << chance_below(c, 64)};
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (try_access(msr, true, &values[i]) && readable) {
            value = before;
            try_access(msr, true, &value);
            uint64_t after = 0;
            try_access(msr, false, &after);
        }
    }
}

static void range(struct chance *c, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        probe(c, first + i);
}

void program_msr(unsigned step)
{
    static const uint32_t firsts[][2] = {{0, 0x2000},         {0xc0000000, 0x2000}, {0x40000000, 0x200},
                                         {0x80000000, 0x100}, {0xc0010000, 0x400},  {0x4b564d00, 0x20},
                                         {0x7fffff00, 0x200}, {0xffffff00, 0x100}};
    struct chance c = {option_number("seed", 1)};
    (void)step;
    for (unsigned i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++)
        range(&c, firsts[i][0], firsts[i][1]);
    for (unsigned i = 0; i < RANDOM_NUMBERS; i++)
        probe(&c, (uint32_t)chance_next(&c));
    apic_reset_mode();
    cpu_tables(this_cpu());
    bool alive = rdmsr(MSR_EFER) & 0x100;
    verdict("msr", alive && faults > reads, "%u reads, %u writes, %u refused", reads, writes, faults);
}
