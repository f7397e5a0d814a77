/* Any memory map and any sequence of allocations: a byte map is the oracle. Nothing is given twice, nothing
 * outside FREE regions or in the first MiB is given, failures change nothing, and everything comes back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/pmem.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define UNITS 4096u /* 8 GiB of 2 MiB units */
enum { NOT_OURS, FREE, TAKEN };
static uint8_t state[UNITS];
static struct pmem p;

static uint64_t build_map(const uint8_t **data, size_t *size)
{
    struct boot_region regions[32];
    uint32_t n = 0;
    uint64_t at = 0;
    uint8_t count = (*data)[0] % 32;
    (*data)++;
    (*size)--;
    memset(state, NOT_OURS, sizeof(state));
    while (n < count && *size >= 4) {
        const uint8_t *d = *data;
        /* Pages, so that edges fall anywhere in a unit; sometimes whole gibibytes. */
        uint64_t gap = d[1] & 0x80 ? 0 : (uint64_t)d[1] * 16 * 4096;
        uint64_t length =
            (d[0] & 0x80 ? (uint64_t)(d[2] % 3 + 1) << 30 : (uint64_t)d[2] << 20) + d[3] * 4096ull;
        at += gap;
        if (at + length > (uint64_t)UNITS * PMEM_UNIT)
            break;
        regions[n++] = (struct boot_region){.base = at, .size = length, .kind = d[0] & 3};
        if ((d[0] & 3) == BOOT_REGION_FREE)
            for (uint64_t u = align_up(at, PMEM_UNIT); u + PMEM_UNIT <= at + length; u += PMEM_UNIT)
                if (u >= (1u << 20))
                    state[u / PMEM_UNIT] = FREE;
        at += length;
        *data += 4;
        *size -= 4;
    }
    uint64_t expected = 0;
    for (uint32_t i = 0; i < UNITS; i++)
        expected += state[i] == FREE ? PMEM_UNIT : 0;
    CHECK(pmem_available(regions, n) == expected);
    pmem_init(&p, regions, n);
    CHECK(pmem_free_bytes(&p) == expected);
    return expected;
}

static void change(const struct pmem_extent *e, uint8_t from, uint8_t to)
{
    CHECK(e->size && e->base % PMEM_UNIT == 0 && e->size % PMEM_UNIT == 0);
    for (uint64_t u = e->base; u < e->base + e->size; u += PMEM_UNIT) {
        CHECK(u / PMEM_UNIT < UNITS && state[u / PMEM_UNIT] == from);
        state[u / PMEM_UNIT] = to;
    }
}

static void check_list(void)
{
    uint64_t sum = 0, end = 0;
    for (uint32_t i = 0; i < p.count; i++) {
        CHECK(i == 0 || p.ranges[i].base > end);
        end = p.ranges[i].base + p.ranges[i].size;
        sum += p.ranges[i].size;
        for (uint64_t u = p.ranges[i].base; u < end; u += PMEM_UNIT)
            CHECK(state[u / PMEM_UNIT] == FREE);
    }
    CHECK(sum == p.free_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct {
        struct pmem_extent e[PMEM_MAX_EXTENTS];
        uint32_t n;
    } held[16];
    memset(held, 0, sizeof(held));
    if (size < 1)
        return 0;
    uint64_t total = build_map(&data, &size), in_use = 0;
    for (; size >= 3; data += 3, size -= 3) {
        unsigned slot = data[0] & 15;
        uint64_t want = ((uint64_t)(data[1] | (data[2] & 0x0f) << 8)) * PMEM_UNIT;
        if (held[slot].n) {
            for (uint32_t i = 0; i < held[slot].n; i++) {
                change(&held[slot].e[i], TAKEN, FREE);
                in_use -= held[slot].e[i].size;
            }
            CHECK(pmem_free(&p, held[slot].e, held[slot].n) == STATUS_OK);
            CHECK(pmem_free(&p, held[slot].e, held[slot].n) == ERR_INVALID);
            held[slot].n = 0;
        } else if (pmem_alloc(&p, want, held[slot].e, &held[slot].n) == STATUS_OK) {
            uint64_t got = 0;
            CHECK(held[slot].n && held[slot].n <= PMEM_MAX_EXTENTS);
            for (uint32_t i = 0; i < held[slot].n; i++) {
                change(&held[slot].e[i], FREE, TAKEN);
                got += held[slot].e[i].size;
            }
            CHECK(got == want);
            in_use += got;
        } else {
            held[slot].n = 0;
        }
        CHECK(pmem_free_bytes(&p) == total - in_use);
        check_list();
    }
    for (unsigned slot = 0; slot < 16; slot++) {
        for (uint32_t i = 0; i < held[slot].n; i++)
            change(&held[slot].e[i], TAKEN, FREE);
        if (held[slot].n)
            CHECK(pmem_free(&p, held[slot].e, held[slot].n) == STATUS_OK);
    }
    CHECK(pmem_free_bytes(&p) == total);
    check_list();
    return 0;
}
