/* Guest address translation: every paging mode, every right, each error-code bit, and segmentation's limit
 * rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86/guest_walk.h"

enum { P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, PS = 0x80, PAT = 0x1000 };
#define XD       (1ull << 63)
#define CR0_PG   (1ull << 31)
#define CR0_WP   (1ull << 16)
#define CR4_PSE  (1ull << 4)
#define CR4_PAE  (1ull << 5)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define CR4_PKE  (1ull << 22)
#define EFER_LMA (1ull << 10)
#define EFER_NXE (1ull << 11)
#define AC       (1ull << 18)

/* Tables at 0x1000 (root), 0x2000, 0x3000, 0x4000. */
#define TABLES 5u
static struct {
    uint8_t memory[TABLES * 4096];
    unsigned swaps, interferences; /* how many; how often another CPU is first */
    enum status swap_result;
} world;

static bool world_read(void *ctx, gpa_t at, void *entry, size_t size)
{
    if (at.v > sizeof(world.memory) - size)
        return false;
    memcpy(entry, world.memory + at.v, size);
    return true;
}

static enum status world_cmpxchg(void *ctx, gpa_t at, uint64_t old, uint64_t new_value, size_t size)
{
    uint64_t now = 0;
    memcpy(&now, world.memory + at.v, size);
    assert_true(now == old);
    if (world.interferences) {
        world.interferences--;
        return ERR_EXISTS;
    }
    if (world.swap_result != STATUS_OK)
        return world.swap_result;
    memcpy(world.memory + at.v, &new_value, size);
    world.swaps++;
    return STATUS_OK;
}

static const struct walk_env env = {NULL, world_read, world_cmpxchg};
static const struct walk_env peek = {NULL, world_read, NULL};

static void set64(uint64_t table, unsigned index, uint64_t entry)
{
    memcpy(world.memory + table + index * 8, &entry, 8);
}

static uint64_t get64(uint64_t table, unsigned index)
{
    uint64_t entry;
    memcpy(&entry, world.memory + table + index * 8, 8);
    return entry;
}

static void set32(uint64_t table, unsigned index, uint32_t entry)
{
    memcpy(world.memory + table + index * 4, &entry, 4);
}

/* 4-level paging; VA maps to 0xabcde123 through all four tables with every right. */
#define VA 0x0000008040201123ull
static struct walk_paging long_mode(void)
{
    memset(&world, 0, sizeof(world));
    set64(0x1000, 1, 0x2000 | P | RW | US);
    set64(0x2000, 1, 0x3000 | P | RW | US);
    set64(0x3000, 1, 0x4000 | P | RW | US);
    set64(0x4000, 1, 0xabcde000 | P | RW | US);
    return (struct walk_paging){.cr0 = CR0_PG | CR0_WP | 1,
                                .cr3 = 0x1000 | 0x18, /* PCID or PWT and PCD: no part of the address */
                                .cr4 = CR4_PAE,
                                .efer = EFER_LMA | EFER_NXE,
                                .maxphyaddr = 40,
                                .has_1g = true};
}

static struct walk_result result;

static enum walk_status walk(const struct walk_paging *paging, uint64_t va, enum walk_access access,
                             bool user)
{
    struct walk_request request = {gva(va), (uint8_t)access, user};
    return guest_walk(&env, paging, &request, &result);
}

static void expect_fault(const struct walk_paging *paging, enum walk_access access, bool user, uint32_t error)
{
    assert_int_equal(walk(paging, VA, access, user), WALK_FAULT);
    assert_int_equal(result.error, error);
    assert_int_equal(result.cr2.v, VA);
    assert_int_equal(world.swaps, 0);
}

static void expect_page(const struct walk_paging *paging, uint64_t va, uint64_t address, uint64_t size)
{
    assert_int_equal(walk(paging, va, WALK_READ, false), WALK_OK);
    assert_int_equal(result.address.v, address);
    assert_int_equal(result.page_size, size);
}

static void no_paging(void **state)
{
    struct walk_paging paging = {.cr0 = 1, .maxphyaddr = 40};
    expect_page(&paging, 0xfee00030, 0xfee00030, 4096);
    expect_page(&paging, 0x1fee00030, 0xfee00030, 4096);
}

static void four_levels(void **state)
{
    struct walk_paging paging = long_mode();
    expect_page(&paging, VA, 0xabcde123, 4096);
    set64(0x3000, 1, 0x40000000 | PS | PAT | P | RW);
    expect_page(&paging, VA, 0x40001123, SIZE_2M);
    set64(0x2000, 1, 0x80000000 | PS | PAT | P | RW);
    expect_page(&paging, VA, 0x80000000 | (VA & 0x3fffffff), SIZE_1G);
    /* the upper half */
    paging = long_mode();
    set64(0x1000, 511, 0x2000 | P);
    set64(0x2000, 511, 0x3000 | P);
    set64(0x3000, 511, 0x4000 | P);
    set64(0x4000, 511, 0xff00000000 | P);
    expect_page(&paging, ~0ull, 0xff00000fff, 4096);
    assert_int_equal(walk(&paging, 0x800000000000, WALK_READ, false), WALK_NONCANONICAL);
    assert_int_equal(walk(&paging, 0xffff7fffffffffff, WALK_READ, false), WALK_NONCANONICAL);
    /* bits 58:52 are software's */
    set64(0x4000, 511, 0x07f00000ff000000ull | P);
    expect_page(&paging, ~0ull, 0xff000fff, 4096);
}

static void not_present(void **state)
{
    for (unsigned level = 1; level <= 4; level++) {
        struct walk_paging paging = long_mode();
        uint64_t entry = get64(level * 0x1000, 1);
        set64(level * 0x1000, 1, entry & ~1ull);
        expect_fault(&paging, WALK_READ, false, 0);
        expect_fault(&paging, WALK_WRITE, true, WALK_PF_W | WALK_PF_U);
        expect_fault(&paging, WALK_FETCH, true, WALK_PF_I | WALK_PF_U);
        paging.efer &= ~EFER_NXE; /* bit 4 exists with NX or SMEP only */
        expect_fault(&paging, WALK_FETCH, false, 0);
        paging.cr4 |= CR4_SMEP;
        expect_fault(&paging, WALK_FETCH, false, WALK_PF_I);
        set64(level * 0x1000, 1, ~1ull); /* nothing else of such an entry is looked at */
        expect_fault(&paging, WALK_READ, false, 0);
    }
}

static void rights_of_users(void **state)
{
    for (unsigned level = 1; level <= 4; level++) {
        struct walk_paging paging = long_mode();
        uint64_t entry = get64(level * 0x1000, 1);
        set64(level * 0x1000, 1, entry & ~(uint64_t)US);
        expect_fault(&paging, WALK_READ, true, WALK_PF_P | WALK_PF_U);
        expect_fault(&paging, WALK_FETCH, true, WALK_PF_P | WALK_PF_U | WALK_PF_I);
        set64(level * 0x1000, 1, entry & ~(uint64_t)RW);
        expect_fault(&paging, WALK_WRITE, true, WALK_PF_P | WALK_PF_U | WALK_PF_W);
        paging.cr0 &= ~CR0_WP; /* WP is about supervisors only */
        expect_fault(&paging, WALK_WRITE, true, WALK_PF_P | WALK_PF_U | WALK_PF_W);
        set64(level * 0x1000, 1, entry | XD);
        expect_fault(&paging, WALK_FETCH, true, WALK_PF_P | WALK_PF_U | WALK_PF_I);
        assert_int_equal(walk(&paging, VA, WALK_WRITE, true), WALK_OK);
        set64(level * 0x1000, 1, entry);
        assert_int_equal(walk(&paging, VA, WALK_FETCH, true), WALK_OK);
    }
}

static void rights_of_supervisors(void **state)
{
    struct walk_paging paging = long_mode();
    set64(0x4000, 1, 0xabcde000 | P | US);
    expect_fault(&paging, WALK_WRITE, false, WALK_PF_P | WALK_PF_W);
    paging.cr4 |= CR4_SMEP;
    expect_fault(&paging, WALK_FETCH, false, WALK_PF_P | WALK_PF_I);
    paging.cr4 = CR4_PAE | CR4_SMAP;
    expect_fault(&paging, WALK_READ, false, WALK_PF_P);
    paging.rflags = AC;
    assert_int_equal(walk(&paging, VA, WALK_READ, false), WALK_OK);
    paging.cr0 &= ~CR0_WP;
    assert_int_equal(walk(&paging, VA, WALK_WRITE, false), WALK_OK);
    paging.cr4 |= CR4_SMEP;
    /* a supervisor page: SMEP and SMAP do not apply, XD does */
    paging.rflags = 0;
    set64(0x4000, 1, 0xabcde000 | P);
    assert_int_equal(walk(&paging, VA, WALK_READ, false), WALK_OK);
    assert_int_equal(walk(&paging, VA, WALK_FETCH, false), WALK_OK);
    world.swaps = 0;
    set64(0x4000, 1, 0xabcde000 | P | XD);
    expect_fault(&paging, WALK_FETCH, false, WALK_PF_P | WALK_PF_I);
}

static void protection_keys(void **state)
{
    struct walk_paging paging = long_mode();
    set64(0x4000, 1, 0xabcde000 | P | RW | US | 5ull << 59);
    paging.pkru = 1u << 10;                                        /* AD of key 5 */
    assert_int_equal(walk(&paging, VA, WALK_READ, true), WALK_OK); /* CR4.PKE is off */
    world.swaps = 0;
    paging.cr4 |= CR4_PKE;
    expect_fault(&paging, WALK_READ, true, WALK_PF_P | WALK_PF_U | WALK_PF_PK);
    expect_fault(&paging, WALK_READ, false, WALK_PF_P | WALK_PF_PK);
    assert_int_equal(walk(&paging, VA, WALK_FETCH, true), WALK_OK);
    world.swaps = 0;
    paging.pkru = 2u << 10; /* WD */
    assert_int_equal(walk(&paging, VA, WALK_READ, true), WALK_OK);
    expect_fault(&paging, WALK_WRITE, true, WALK_PF_P | WALK_PF_W | WALK_PF_U | WALK_PF_PK);
    expect_fault(&paging, WALK_WRITE, false, WALK_PF_P | WALK_PF_W | WALK_PF_PK);
    paging.cr0 &= ~CR0_WP;
    assert_int_equal(walk(&paging, VA, WALK_WRITE, false), WALK_OK);
    world.swaps = 0;
    expect_fault(&paging, WALK_WRITE, true, WALK_PF_P | WALK_PF_W | WALK_PF_U | WALK_PF_PK);
    set64(0x4000, 1, 0xabcde000 | P | RW | 5ull << 59); /* a supervisor page has no key */
    paging.pkru = ~0u;
    assert_int_equal(walk(&paging, VA, WALK_WRITE, false), WALK_OK);
}

static void reserved_in_long_mode(void **state)
{
    static const struct {
        uint64_t table, entry;
    } bad[] = {{0x1000, PS},         /* in a PML4E */
               {0x1000, 1ull << 40}, /* above MAXPHYADDR */
               {0x2000, 1ull << 51},
               {0x3000, 1ull << 40},
               {0x4000, 1ull << 40},
               {0x3000, PS | 1u << 13}, /* below the page's address */
               {0x3000, PS | 1u << 20},
               {0x2000, PS | 1u << 29}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct walk_paging paging = long_mode();
        uint64_t entry = bad[i].entry & PS ? P | RW | US : get64(bad[i].table, 1);
        set64(bad[i].table, 1, entry | bad[i].entry);
        expect_fault(&paging, WALK_READ, false, WALK_PF_P | WALK_PF_RSVD);
        expect_fault(&paging, WALK_WRITE, true, WALK_PF_P | WALK_PF_RSVD | WALK_PF_W | WALK_PF_U);
    }
    for (unsigned level = 1; level <= 4; level++) { /* XD without NXE */
        struct walk_paging paging = long_mode();
        paging.efer = EFER_LMA;
        set64(level * 0x1000, 1, get64(level * 0x1000, 1) | XD);
        expect_fault(&paging, WALK_READ, false, WALK_PF_P | WALK_PF_RSVD);
    }
    struct walk_paging paging = long_mode(); /* a processor without 1-GByte pages */
    paging.has_1g = false;
    set64(0x2000, 1, 0x80000000 | PS | P);
    expect_fault(&paging, WALK_READ, false, WALK_PF_P | WALK_PF_RSVD);
    paging = long_mode();
    paging.maxphyaddr = 52;
    set64(0x4000, 1, (0xfffffull << 32) | P);
    expect_page(&paging, VA, (0xfffffull << 32) | 0x123, 4096);
}

static void pae(void **state)
{
    struct walk_paging paging = long_mode();
    paging.efer = EFER_NXE;
    paging.pdpte[3] = 0x3000 | P;
    set64(0x3000, 1, 0x4000 | P | RW | US);
    set64(0x4000, 1, 0x12abcde000 | P | RW | US);
    expect_page(&paging, 0xc0201456, 0x12abcde456, 4096);
    expect_page(&paging, 0xffffffffc0201456, 0x12abcde456, 4096); /* the upper half is not looked at */
    assert_int_equal(walk(&paging, 0xffffffff40201456, WALK_READ, true), WALK_FAULT); /* pdpte[1] */
    assert_int_equal(result.error, WALK_PF_U);
    assert_int_equal(result.cr2.v, 0x40201456);
    set64(0x3000, 1, 0x1200000000 | PS | PAT | P);
    expect_page(&paging, 0xc0201456, 0x1200001456, SIZE_2M);
    set64(0x3000, 1, 0x1200000000 | PS | P | 1u << 14);
    assert_int_equal(walk(&paging, 0xc0201456, WALK_READ, false), WALK_FAULT);
    assert_int_equal(result.error, WALK_PF_P | WALK_PF_RSVD);
    set64(0x3000, 1, 0x4000 | P);
    for (unsigned bit = 40; bit <= 62; bit++) { /* all reserved, unlike in long mode */
        set64(0x4000, 1, 0xabcde000 | P | 1ull << bit);
        assert_int_equal(walk(&paging, 0xc0201456, WALK_READ, false), WALK_FAULT);
        assert_int_equal(result.error, WALK_PF_P | WALK_PF_RSVD);
    }
    set64(0x4000, 1, 0xabcde000 | P | XD);
    assert_int_equal(walk(&paging, 0xc0201456, WALK_FETCH, false), WALK_FAULT);
    assert_int_equal(result.error, WALK_PF_P | WALK_PF_I);
    assert_int_equal(walk(&paging, 0xc0201456, WALK_READ, false), WALK_OK);
}

static void thirty_two_bits(void **state)
{
    struct walk_paging paging = long_mode();
    paging.efer = EFER_NXE; /* without meaning here */
    paging.cr4 = 0;
    set32(0x1000, 0x3fb, 0x2000 | P | RW | US);
    set32(0x2000, 0x200, 0xfee00000 | P | RW | US);
    expect_page(&paging, 0xfee00030, 0xfee00030, 4096);
    assert_int_equal(walk(&paging, 0xfee00030, WALK_FETCH, true), WALK_OK);
    set32(0x2000, 0x200, 0xfee00000 | P | US);
    assert_int_equal(walk(&paging, 0xfee00030, WALK_FETCH, true), WALK_OK);
    assert_int_equal(walk(&paging, 0xfee00030, WALK_WRITE, true), WALK_FAULT);
    assert_int_equal(result.error, WALK_PF_P | WALK_PF_W | WALK_PF_U);
    set32(0x1000, 0x3fb, 0x2000 | PS | P | RW | US); /* PS means nothing without PSE */
    expect_page(&paging, 0xfee00030, 0xfee00030, 4096);
    paging.cr4 = CR4_PSE;
    set32(0x1000, 0x3fb, 0x80400000 | PS | PAT | P | RW | US);
    expect_page(&paging, 0xfee00030, 0x80600030, 4 << 20);
    set32(0x1000, 0x3fb, 0x80400000 | 0x95u << 13 | PS | P); /* PSE-36: bits 39:32 */
    expect_page(&paging, 0xfee00030, 0x9580600030, 4 << 20);
    set32(0x1000, 0x3fb, 0x80400000 | 1u << 21 | PS | P);
    assert_int_equal(walk(&paging, 0xfee00030, WALK_READ, false), WALK_FAULT);
    assert_int_equal(result.error, WALK_PF_P | WALK_PF_RSVD);
    paging.maxphyaddr = 36; /* then bits 20:17 are reserved too */
    for (unsigned bit = 17; bit <= 20; bit++) {
        set32(0x1000, 0x3fb, 0x80400000 | 1u << bit | PS | P);
        assert_int_equal(walk(&paging, 0xfee00030, WALK_READ, false), WALK_FAULT);
    }
    set32(0x1000, 0x3fb, 0x80400000 | 0xfu << 13 | PS | P);
    expect_page(&paging, 0xfee00030, 0xf80600030, 4 << 20);
}

static void accessed_and_dirty(void **state)
{
    struct walk_paging paging = long_mode();
    struct walk_request request = {gva(VA), WALK_WRITE, true};
    assert_int_equal(guest_walk(&peek, &paging, &request, &result), WALK_OK);
    assert_int_equal(get64(0x1000, 1), 0x2000 | P | RW | US);
    assert_int_equal(walk(&paging, VA, WALK_READ, true), WALK_OK);
    for (unsigned level = 1; level <= 4; level++)
        assert_int_equal(get64(level * 0x1000, 1) & (A | D), A);
    assert_int_equal(world.swaps, 4);
    assert_int_equal(walk(&paging, VA, WALK_FETCH, true), WALK_OK);
    assert_int_equal(world.swaps, 4);
    assert_int_equal(walk(&paging, VA, WALK_WRITE, true), WALK_OK);
    assert_int_equal(world.swaps, 5);
    assert_int_equal(get64(0x4000, 1), 0xabcde000 | P | RW | US | A | D);
    assert_int_equal(get64(0x3000, 1) & D, 0);
    /* a large page is a leaf too; 32-bit entries keep their size */
    paging.efer = 0;
    paging.cr4 = CR4_PSE;
    set32(0x1000, 5, 0x400000 | PS | P | RW);
    set32(0x1000, 6, 0xdeadbeef);
    assert_int_equal(walk(&paging, 5u << 22, WALK_WRITE, false), WALK_OK);
    assert_int_equal(get64(0x1000, 2) >> 32, 0x400000 | PS | P | RW | A | D);
    assert_int_equal(get64(0x1000, 3) & 0xffffffff, 0xdeadbeef);
}

static void other_cpus(void **state)
{
    struct walk_paging paging = long_mode();
    world.interferences = 3;
    assert_int_equal(walk(&paging, VA, WALK_READ, true), WALK_OK);
    assert_int_equal(world.swaps, 4);
    paging = long_mode();
    world.interferences = 1000;
    assert_int_equal(walk(&paging, VA, WALK_READ, true), WALK_RETRY);
    assert_true(world.interferences > 900);
}

static void missing_memory(void **state)
{
    struct walk_paging paging = long_mode();
    set64(0x3000, 1, 0x5000 | P | RW | US);
    assert_int_equal(walk(&paging, VA, WALK_READ, false), WALK_NO_MEMORY);
    assert_int_equal(result.table.v, 0x5008);
    assert_int_equal(world.swaps, 0);
    paging = long_mode();
    world.swap_result = ERR_RANGE; /* read-only memory */
    assert_int_equal(walk(&paging, VA, WALK_READ, false), WALK_NO_MEMORY);
    assert_int_equal(result.table.v, 0x1008);
}

/* --- segmentation */
enum {
    DATA_RW = 0x93,
    DATA_RO = 0x91,
    DOWN_RW = 0x97,
    CODE_RX = 0x9b,
    CODE_X = 0x99,
    CODE_CONFORMING = 0x9f
};
#define DB SEG_ACCESS_DB

static uint8_t check(enum guest_mode mode, enum seg_name name, uint32_t limit, uint32_t access,
                     uint64_t offset, uint64_t size, enum walk_access how)
{
    struct seg seg = {.base = 0x10000, .limit = limit, .access = access};
    gva_t linear = gva(0x5a5a);
    uint8_t vector = guest_linear(mode, name, &seg, offset, size, how, &linear);
    if (vector == 0)
        assert_int_equal(linear.v, mode == GUEST_MODE_LONG ? offset : (uint32_t)(0x10000 + offset));
    return vector;
}
#define PROTECTED(...) check(GUEST_MODE_PROTECTED, __VA_ARGS__)
#define REAL(...)      check(GUEST_MODE_REAL, __VA_ARGS__)
#define LONG(...)      check(GUEST_MODE_LONG, __VA_ARGS__)

static void segment_limits(void **state)
{
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DATA_RW, 0xffc, 4, WALK_WRITE), 0);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DATA_RW, 0xffd, 4, WALK_WRITE), 13);
    assert_int_equal(PROTECTED(SEG_SS, 0xfff, DATA_RW, 0xffd, 4, WALK_READ), 12);
    assert_int_equal(PROTECTED(SEG_DS, 0xffffffff, DATA_RW, 0xfffffffc, 4, WALK_READ), 0);
    assert_int_equal(PROTECTED(SEG_DS, 0xffffffff, DATA_RW, 0xfffffffd, 4, WALK_READ), 13);
    assert_int_equal(REAL(SEG_DS, 0xffff, DATA_RW, 0xfffe, 2, WALK_READ), 0);
    assert_int_equal(REAL(SEG_DS, 0xffff, DATA_RW, 0xffff, 2, WALK_READ), 13);
    assert_int_equal(REAL(SEG_SS, 0xffff, DATA_RW, 0xffff, 2, WALK_WRITE), 12);
    assert_int_equal(PROTECTED(SEG_CS, 0xffff, CODE_RX, 0xffff, 2, WALK_FETCH), 13);
    /* expand-down: above the limit, up to 2^16 or 2^32 */
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DOWN_RW, 0x1000, 4, WALK_WRITE), 0);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DOWN_RW, 0xfff, 1, WALK_WRITE), 13);
    assert_int_equal(PROTECTED(SEG_SS, 0xfff, DOWN_RW, 0xfff, 1, WALK_WRITE), 12);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DOWN_RW, 0xfffe, 2, WALK_WRITE), 0);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DOWN_RW, 0xffff, 2, WALK_WRITE), 13);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DOWN_RW | DB, 0xffff, 2, WALK_WRITE), 0);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DOWN_RW | DB, 0xffffffff, 2, WALK_WRITE), 13);
    /* conforming code is not expand-down */
    assert_int_equal(PROTECTED(SEG_CS, 0xfff, CODE_CONFORMING, 0x10, 4, WALK_READ), 0);
    assert_int_equal(PROTECTED(SEG_CS, 0xfff, CODE_CONFORMING, 0x1000, 4, WALK_READ), 13);
}

static void segment_types(void **state)
{
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DATA_RO, 0, 4, WALK_READ), 0);
    assert_int_equal(PROTECTED(SEG_DS, 0xfff, DATA_RO, 0, 4, WALK_WRITE), 13);
    assert_int_equal(PROTECTED(SEG_CS, 0xfff, CODE_RX, 0, 4, WALK_READ), 0);
    assert_int_equal(PROTECTED(SEG_CS, 0xfff, CODE_RX, 0, 4, WALK_WRITE), 13);
    assert_int_equal(PROTECTED(SEG_CS, 0xfff, CODE_X, 0, 4, WALK_READ), 13);
    assert_int_equal(PROTECTED(SEG_CS, 0xfff, CODE_X, 0, 4, WALK_FETCH), 0);
    assert_int_equal(REAL(SEG_CS, 0xfff, CODE_RX, 0, 4, WALK_WRITE), 0);
    assert_int_equal(PROTECTED(SEG_FS, 0xfff, DATA_RW | SEG_ACCESS_UNUSABLE, 0, 1, WALK_READ), 13);
    assert_int_equal(PROTECTED(SEG_SS, 0xfff, DATA_RW | SEG_ACCESS_UNUSABLE, 0, 1, WALK_READ), 12);
}

static void long_mode_is_flat(void **state)
{
    gva_t linear;
    struct seg seg = {.base = 0xffff888000000000, .access = SEG_ACCESS_UNUSABLE};
    assert_int_equal(LONG(SEG_DS, 0, SEG_ACCESS_UNUSABLE, 0x7ffffffffffc, 4, WALK_WRITE), 0);
    assert_int_equal(LONG(SEG_DS, 0, DATA_RO, 0x7ffffffffffd, 4, WALK_WRITE), 13);
    assert_int_equal(LONG(SEG_SS, 0, DATA_RO, 0x800000000000, 4, WALK_WRITE), 12);
    assert_int_equal(LONG(SEG_DS, 0, DATA_RO, 0xffff800000000000, 8, WALK_WRITE), 0);
    assert_int_equal(LONG(SEG_DS, 0, DATA_RO, 0xffff7fffffffffff, 8, WALK_WRITE), 13);
    assert_int_equal(LONG(SEG_CS, 0, CODE_RX, 0xfffffffffffffffc, 4, WALK_FETCH), 0);
    assert_int_equal(guest_linear(GUEST_MODE_LONG, SEG_GS, &seg, 0x1000, 8, WALK_READ, &linear), 0);
    assert_true(linear.v == 0xffff888000001000);
    assert_int_equal(guest_linear(GUEST_MODE_LONG, SEG_FS, &seg, 0xfffff70000000000, 8, WALK_READ, &linear),
                     13);
    assert_int_equal(guest_linear(GUEST_MODE_LONG, SEG_ES, &seg, 0x1000, 8, WALK_READ, &linear), 0);
    assert_int_equal(linear.v, 0x1000);
}

static void modes(void **state)
{
    assert_int_equal(guest_mode(0, 0, 2, DATA_RW), GUEST_MODE_REAL);
    assert_int_equal(guest_mode(1, 0, 2 | 1u << 17, 0xf3), GUEST_MODE_REAL);
    assert_int_equal(guest_mode(1, 0, 2, CODE_RX | SEG_ACCESS_L), GUEST_MODE_PROTECTED);
    assert_int_equal(guest_mode(1, EFER_LMA, 2, CODE_RX | DB), GUEST_MODE_PROTECTED);
    assert_int_equal(guest_mode(1, EFER_LMA, 2, CODE_RX | SEG_ACCESS_L), GUEST_MODE_LONG);
    assert_int_equal(guest_insn_mode(GUEST_MODE_LONG, CODE_RX | SEG_ACCESS_L), INSN_MODE_64);
    assert_int_equal(guest_insn_mode(GUEST_MODE_PROTECTED, CODE_RX | DB), INSN_MODE_32);
    assert_int_equal(guest_insn_mode(GUEST_MODE_PROTECTED, CODE_RX), INSN_MODE_16);
    assert_int_equal(guest_insn_mode(GUEST_MODE_REAL, DATA_RW), INSN_MODE_16);
    assert_int_equal(guest_linear_add(GUEST_MODE_LONG, gva(0xffffffff), 1).v, 0x100000000);
    assert_int_equal(guest_linear_add(GUEST_MODE_PROTECTED, gva(0xffffffff), 1).v, 0);
}

static void code_room(void **state)
{
    struct seg cs = {.base = 0xf0000, .limit = 0xffff, .access = CODE_RX};
    assert_int_equal(guest_code_room(GUEST_MODE_REAL, &cs, 0xfff0, 15), 15);
    assert_int_equal(guest_code_room(GUEST_MODE_REAL, &cs, 0xfffe, 15), 2);
    assert_int_equal(guest_code_room(GUEST_MODE_REAL, &cs, 0x10000, 15), 0);
    assert_int_equal(guest_code_room(GUEST_MODE_LONG, &cs, 0x10000, 15), 15);
    assert_int_equal(guest_code_room(GUEST_MODE_LONG, &cs, 0x7ffffffffffe, 15), 2);
    assert_int_equal(guest_code_room(GUEST_MODE_LONG, &cs, 0x800000000000, 15), 0);
    assert_int_equal(guest_code_room(GUEST_MODE_LONG, &cs, ~0ull, 15), 1);
}

/* --- fetch */
static struct {
    uint8_t bytes[16];
    uint64_t start, pages[2];
    unsigned reads, fail_at; /* fail_at: number of the read that faults, 0 = none */
} code;

static bool code_read(void *ctx, gva_t linear, void *bytes, size_t size)
{
    assert_true((linear.v & 0xfff) + size <= 4096);
    code.pages[code.reads++ & 1] = linear.v;
    if (code.reads == code.fail_at)
        return false;
    memcpy(bytes, code.bytes + (uint32_t)(linear.v - code.start), size);
    return true;
}

static enum status fetch(uint64_t start, uint64_t room, unsigned fail_at, struct guest_insn *out)
{
    static const struct guest_fetch callbacks = {NULL, code_read};
    static const uint8_t insn[10] = {0xc7, 0x87, 0x80, 0, 0, 0, 0x78, 0x56, 0x34, 0x12};
    memset(&code, 0, sizeof(code));
    memcpy(code.bytes, insn, sizeof(insn));
    code.start = start;
    code.fail_at = fail_at;
    memset(out, 0, sizeof(*out));
    return guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_32, gva(start), room, out);
}

static void fetching(void **state)
{
    struct guest_insn out;
    assert_int_equal(fetch(0x1000, 15, 0, &out), STATUS_OK);
    assert_int_equal(out.insn.length, 10);
    assert_int_equal(out.count, 15);
    assert_int_equal(code.reads, 1);
    /* ends exactly at the page's end: the next page is none of its business */
    assert_int_equal(fetch(0x1ff6, 15, 2, &out), STATUS_OK);
    assert_int_equal(code.reads, 1);
    assert_int_equal(out.count, 10);
    /* crosses */
    assert_int_equal(fetch(0x1ff7, 15, 0, &out), STATUS_OK);
    assert_int_equal(code.reads, 2);
    assert_int_equal(code.pages[1], 0x2000);
    assert_int_equal(out.insn.length, 10);
    assert_int_equal(out.insn.src.imm, 0x12345678);
    assert_int_equal(fetch(0x1ff7, 15, 2, &out), ERR_NOT_FOUND);
    assert_int_equal(out.count, 9);
    assert_int_equal(fetch(0x1ff7, 15, 1, &out), ERR_NOT_FOUND);
    assert_int_equal(out.count, 0);
    /* the segment ends first */
    assert_int_equal(fetch(0x1000, 9, 0, &out), ERR_RANGE);
    assert_int_equal(fetch(0x1000, 10, 0, &out), STATUS_OK);
    assert_int_equal(fetch(0x1ff7, 9, 0, &out), ERR_RANGE);
    assert_int_equal(code.reads, 1);
    assert_int_equal(fetch(0x1000, 0, 0, &out), ERR_RANGE);
    assert_int_equal(code.reads, 0);
    /* wraps at 4 GiB outside 64-bit mode */
    assert_int_equal(fetch(0xfffffffe, 15, 0, &out), STATUS_OK);
    assert_int_equal(code.pages[1], 0);
}

/* Kept between calls, an instruction is decoded once, but never mistaken for another one. */
static void fetching_again(void **state)
{
    static const struct guest_fetch callbacks = {NULL, code_read};
    struct guest_insn out;
    gva_t at = gva(0x1000);
    assert_int_equal(fetch(0x1000, 15, 0, &out), STATUS_OK);
    out.insn.disp = 4711;  /* a mark that decoding would remove */
    code.bytes[10] = 0xcc; /* beyond the instruction */
    assert_int_equal(guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_32, at, 15, &out),
                     STATUS_OK);
    assert_int_equal(out.insn.disp, 4711);
    assert_int_equal(out.bytes[10], 0xcc);
    for (unsigned i = 0; i < 10; i++) { /* each byte matters */
        struct guest_insn copy = out;
        code.bytes[i] ^= 1;
        if (guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_32, at, 15, &copy) == STATUS_OK)
            assert_int_not_equal(copy.insn.disp, 4711);
        else
            assert_false(copy.decoded);
        code.bytes[i] ^= 1;
    }
    struct guest_insn copy = out; /* and so does the mode */
    assert_int_equal(guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_16, at, 15, &copy),
                     STATUS_OK);
    assert_int_equal(copy.insn.addrsize, 2);
    code.bytes[9] = 0; /* and that all of it can be fetched, zeros too */
    assert_int_equal(guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_32, at, 15, &out),
                     STATUS_OK);
    copy = out;
    assert_int_equal(guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_32, at, 9, &copy),
                     ERR_RANGE);
    assert_false(copy.decoded);
    copy = out;
    code.reads = 0;
    code.fail_at = 1;
    assert_int_equal(guest_fetch_insn(&callbacks, GUEST_MODE_PROTECTED, INSN_MODE_32, at, 15, &copy),
                     ERR_NOT_FOUND);
    assert_false(copy.decoded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_paging),
        cmocka_unit_test(four_levels),
        cmocka_unit_test(not_present),
        cmocka_unit_test(rights_of_users),
        cmocka_unit_test(rights_of_supervisors),
        cmocka_unit_test(protection_keys),
        cmocka_unit_test(reserved_in_long_mode),
        cmocka_unit_test(pae),
        cmocka_unit_test(thirty_two_bits),
        cmocka_unit_test(accessed_and_dirty),
        cmocka_unit_test(other_cpus),
        cmocka_unit_test(missing_memory),
        cmocka_unit_test(segment_limits),
        cmocka_unit_test(segment_types),
        cmocka_unit_test(long_mode_is_flat),
        cmocka_unit_test(modes),
        cmocka_unit_test(code_room),
        cmocka_unit_test(fetching),
        cmocka_unit_test(fetching_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
