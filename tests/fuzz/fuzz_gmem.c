/* Guest memory against an oracle: a flat array of all guest-physical bytes, with a mark for what is RAM. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/gmem.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define PAGES 64u
#define SIZE  (PAGES * 4096u)
static uint8_t model[SIZE], host[SIZE];
static uint8_t host_page_of[PAGES]; /* guest page -> host page + 1, 0 = a hole */
static bool host_used[PAGES];

static void *map_page(void *ctx, hpa_t page)
{
    (void)ctx;
    CHECK(page.v % 4096 == 0 && page.v / 4096 < PAGES && host_used[page.v / 4096]);
    return host + page.v;
}

static bool is_ram(uint64_t addr, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        if (addr + i >= SIZE || addr + i < addr || !host_page_of[(addr + i) / 4096])
            return false;
    return true;
}

static void add(struct gmem *g, unsigned at, unsigned to, unsigned n)
{
    bool overlap = false;
    for (unsigned i = 0; i < n; i++) {
        if (at + i >= PAGES || to + i >= PAGES || host_used[to + i])
            return; /* the map of a test, not of a guest: host pages are used once */
        overlap |= host_page_of[at + i] != 0;
    }
    enum status status = gmem_add(g, gpa(at * 4096ull), hpa(to * 4096ull), n * 4096ull);
    if (n == 0)
        CHECK(status == ERR_INVALID);
    else if (overlap)
        CHECK(status == ERR_EXISTS);
    else
        CHECK(status == STATUS_OK || (status == ERR_NO_MEMORY && g->count == GMEM_MAX_EXTENTS));
    for (unsigned i = 0; status == STATUS_OK && i < n; i++) {
        host_page_of[at + i] = (uint8_t)(to + i + 1);
        host_used[to + i] = true;
    }
}

static void verify(const struct gmem *g)
{
    for (uint32_t i = 0; i < SIZE; i += 4096) {
        hpa_t h;
        uint64_t left;
        bool there = host_page_of[i / 4096] != 0;
        CHECK((gmem_translate(g, gpa(i + 5), &h, &left) == STATUS_OK) == there);
        if (!there)
            continue;
        CHECK(h.v == (host_page_of[i / 4096] - 1) * 4096ull + 5);
        CHECK(memcmp(model + i, host + h.v - 5, 4096) == 0);
    }
}

static void one_access(const struct gmem *g, const uint8_t *d)
{
    static uint8_t buf[SIZE];
    uint64_t addr = d[1] | d[2] << 8 | (d[3] & 7) << 16, size = d[4] | (d[5] & 0x3f) << 8, old;
    if (d[3] & 0x80)
        addr |= ~0xfffffull; /* the very top */
    if (d[3] & 0x40)
        size = UINT64_MAX - size;
    bool ram = size && size < SIZE && is_ram(addr, size);
    enum status want = ram || size == 0 ? STATUS_OK : ERR_RANGE;
    switch (d[0] & 3) {
    case 0:
        CHECK(gmem_read(g, gpa(addr), buf, size) == want);
        if (ram)
            CHECK(memcmp(buf, model + addr, size) == 0);
        break;
    case 1:
        for (uint64_t i = 0; ram && i < size; i++)
            model[addr + i] = buf[i] = (uint8_t)(d[6] + i);
        CHECK(gmem_write(g, gpa(addr), buf, size) == want);
        break;
    case 2:
        if (ram)
            memset(model + addr, d[6], size);
        CHECK(gmem_set(g, gpa(addr), d[6], size) == want);
        break;
    default: {
        unsigned n = d[5] & 1 ? 8 : 4;
        uint64_t was = 0, value = d[6] * 0x0102030405060708ull;
        if (addr % n) {
            CHECK(gmem_cmpxchg(g, gpa(addr), n, 0, 1, &old) == ERR_INVALID);
        } else if (!is_ram(addr, n)) {
            CHECK(gmem_cmpxchg(g, gpa(addr), n, 0, 1, &old) == ERR_RANGE);
        } else {
            memcpy(&was, model + addr, n);
            uint64_t expected = d[4] & 1 ? was : was + 1;
            CHECK(gmem_cmpxchg(g, gpa(addr), n, expected, value, &old) == STATUS_OK && old == was);
            if (expected == was)
                memcpy(model + addr, &value, n);
        }
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gmem g;
    memset(model, 0, sizeof(model));
    memset(host, 0, sizeof(host));
    memset(host_page_of, 0, sizeof(host_page_of));
    memset(host_used, 0, sizeof(host_used));
    gmem_init(&g, map_page, NULL);
    if (size < 1)
        return 0;
    unsigned extents = *data++ % 48;
    size--;
    for (; extents && size >= 3; extents--, data += 3, size -= 3)
        add(&g, data[0] % PAGES, data[1] % PAGES, data[2] % 9);
    for (; size >= 7; data += 7, size -= 7)
        one_access(&g, data);
    verify(&g);
    return 0;
}
