/* The walker against a second, plainer one, on tables made of the input; segmentation against a check of each
 * byte; and instruction fetch against decoding of contiguous bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/guest_walk.h"

#define PAGES        8u
#define BIT_OF(v, n) (((v) >> (n)) & 1)

struct world {
    uint8_t memory[PAGES * 4096];
    uint64_t written_bits; /* all bits that cmpxchg has changed */
    unsigned swaps;
    gpa_t leaf;     /* the plain walker's last entry */
    bool leaf_only; /* no other entry was made dirty */
    bool interfere; /* another CPU changes the first entry that is to be marked */
};

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

static bool world_read(void *ctx, gpa_t at, void *entry, size_t size)
{
    struct world *w = ctx;
    check((size == 4 || size == 8) && at.v % size == 0, "aligned entry reads");
    if (at.v > sizeof(w->memory) - size)
        return false;
    memcpy(entry, w->memory + at.v, size);
    return true;
}

static enum status world_cmpxchg(void *ctx, gpa_t at, uint64_t old, uint64_t new_value, size_t size)
{
    struct world *w = ctx;
    uint64_t now = 0;
    check(at.v <= sizeof(w->memory) - size, "marks only what it has read");
    if (w->interfere) {
        w->interfere = false;
        w->memory[at.v] ^= 1; /* not present any more */
    }
    memcpy(&now, w->memory + at.v, size);
    if (now != old)
        return ERR_EXISTS;
    w->written_bits |= old ^ new_value;
    w->swaps++;
    if ((old ^ new_value) & 0x40 && at.v != w->leaf.v)
        w->leaf_only = false;
    memcpy(w->memory + at.v, &new_value, size);
    return STATUS_OK;
}

/* --- the plain walker: one function, explicit masks, no flags set. Answers WALK_OK with *out, or the reason.
 */
struct level {
    unsigned shift, bits;
};

static enum walk_status plain_fault(const struct walk_paging *p, const struct walk_request *r, uint32_t cause,
                                    struct walk_result *out)
{
    bool nx = BIT_OF(p->efer, 11) && (BIT_OF(p->efer, 10) || BIT_OF(p->cr4, 5));
    out->error = cause | (r->access == WALK_WRITE ? 2u : 0) | (r->user ? 4u : 0);
    if (r->access == WALK_FETCH && (nx || BIT_OF(p->cr4, 20)))
        out->error |= 16;
    return WALK_FAULT;
}

static uint64_t plain_reserved(const struct walk_paging *p, bool lma, bool pae, unsigned shift, bool ps)
{
    uint64_t r = 0;
    for (unsigned bit = p->maxphyaddr; (lma || pae) && bit < (lma ? 52u : 63u); bit++)
        r |= 1ull << bit;
    if ((lma || pae) && !BIT_OF(p->efer, 11))
        r |= 1ull << 63;
    if (lma && (shift == 39 || (shift == 30 && !p->has_1g)))
        r |= 1 << 7;
    else if (ps && shift == 30)
        r |= 0x3fffe000;
    else if (ps && shift == 21)
        r |= 0x1fe000;
    else if (ps && shift == 22)
        for (unsigned bit = 13; bit <= 21; bit++)
            r |= bit == 21 || bit + 19 >= p->maxphyaddr ? 1ull << bit : 0;
    return r;
}

static enum walk_status plain_rights(const struct walk_paging *p, const struct walk_request *r, uint64_t all,
                                     bool xd, uint64_t leaf, struct walk_result *out)
{
    bool us = BIT_OF(all, 2), rw = BIT_OF(all, 1), wp = BIT_OF(p->cr0, 16), ok;
    bool data = r->access != WALK_FETCH, wr = r->access == WALK_WRITE;
    if (r->user)
        ok = us && (!wr || rw) && (data || !xd);
    else if (data)
        ok = (!wr || rw || !wp) && !(us && BIT_OF(p->cr4, 21) && !BIT_OF(p->rflags, 18));
    else
        ok = !xd && !(us && BIT_OF(p->cr4, 20));
    bool key_bad = false;
    if (BIT_OF(p->efer, 10) && BIT_OF(p->cr4, 22) && us && data) {
        unsigned key = (leaf >> 59) & 15;
        bool ad = BIT_OF(p->pkru, 2 * key), wd = BIT_OF(p->pkru, 2 * key + 1);
        key_bad = ad || (wd && wr && (r->user || wp));
    }
    return ok && !key_bad ? WALK_OK : plain_fault(p, r, 1u | (key_bad ? 32u : 0), out);
}

static enum walk_status plain_walk(struct world *w, const struct walk_paging *p, const struct walk_request *r,
                                   struct walk_result *out)
{
    bool lma = BIT_OF(p->efer, 10), pae = !lma && BIT_OF(p->cr4, 5);
    uint64_t va = r->linear.v, mask = (1ull << p->maxphyaddr) - 4096, all = ~0ull, e = 0;
    const struct level l4[] = {{39, 9}, {30, 9}, {21, 9}, {12, 9}}, l2[] = {{22, 10}, {12, 10}};
    const struct level *level = lma ? l4 : pae ? l4 + 2 : l2;
    bool xd = false;
    if (!BIT_OF(p->cr0, 31)) {
        out->address = gpa(va & 0xffffffff);
        return WALK_OK;
    }
    if (lma && (va >> 47) != 0 && (va >> 47) != 0x1ffff)
        return WALK_NONCANONICAL;
    if (!lma)
        va &= 0xffffffff;
    uint64_t table = p->cr3 & (lma ? mask : 0xfffff000);
    if (pae) {
        e = p->pdpte[va >> 30];
        if (!(e & 1))
            return plain_fault(p, r, 0, out);
        table = e & mask;
    }
    for (;; level++) {
        size_t size = lma || pae ? 8 : 4;
        uint64_t at = table + ((va >> level->shift) & ((1u << level->bits) - 1)) * size;
        e = 0;
        w->leaf = gpa(at);
        if (!world_read(w, gpa(at), &e, size))
            return WALK_NO_MEMORY;
        if (!(e & 1))
            return plain_fault(p, r, 0, out);
        bool ps = BIT_OF(e, 7) && level->shift != 12 && (lma || pae || BIT_OF(p->cr4, 4));
        if (e & plain_reserved(p, lma, pae, level->shift, ps))
            return plain_fault(p, r, 9, out);
        all &= e;
        xd |= (lma || pae) && BIT_OF(p->efer, 11) && BIT_OF(e, 63);
        if (ps || level->shift == 12)
            break;
        table = e & ((lma || pae) ? mask : 0xfffff000);
    }
    uint64_t low = (1ull << level->shift) - 1;
    uint64_t page = e & ((lma || pae) ? mask : 0xfffff000) & ~low;
    if (level->shift == 22)
        page |= ((e >> 13) & 0xff) << 32;
    out->address = gpa(page | (va & low));
    out->page_size = low + 1;
    return plain_rights(p, r, all, xd, e, out);
}

/* --- input */
static uint64_t take(const uint8_t **data, size_t *size, size_t n)
{
    uint64_t v = 0;
    size_t have = *size < n ? *size : n;
    memcpy(&v, *data, have);
    *data += have;
    *size -= have;
    return v;
}

/* Entries sit at the indices that the walk will use, so that small inputs get far: for each page, the input
 * gives the entry at every level's index. */
static void fill(struct world *w, const struct walk_paging *p, uint64_t va, const uint8_t **data,
                 size_t *size)
{
    static const unsigned shifts64[] = {39, 30, 21, 12}, shifts32[] = {22, 12};
    bool narrow = !BIT_OF(p->efer, 10) && !BIT_OF(p->cr4, 5);
    for (unsigned page = 0; page < PAGES; page++)
        for (unsigned i = 0; i < (narrow ? 2u : 4u); i++) {
            uint64_t index = narrow ? (va >> shifts32[i]) & 1023 : (va >> shifts64[i]) & 511;
            uint64_t control = take(data, size, 2);
            uint64_t e = ((control & 0xfff) ^ 0x67) | (uint64_t)((control >> 12) & 7) << 12;
            if (control & 0x8000) { /* two bits more, for addresses, keys, reserved bits, XD */
                e ^= 1ull << (take(data, size, 1) & 63);
                e ^= 1ull << (take(data, size, 1) & 63);
            }
            memcpy(w->memory + page * 4096 + index * (narrow ? 4 : 8), &e, narrow ? 4 : 8);
        }
}

static void check_walk(struct world *w, const struct walk_paging *p, const struct walk_request *r)
{
    struct walk_env look = {w, world_read, NULL}, use = {w, world_read, world_cmpxchg};
    struct walk_result plain = {.page_size = 4096}, got, used, again;
    enum walk_status expected = plain_walk(w, p, r, &plain);
    enum walk_status s = guest_walk(&look, p, r, &got);
    check(s == expected, "same outcome as the plain walker");
    if (s == WALK_OK) {
        check(got.address.v == plain.address.v && got.page_size == plain.page_size, "same translation");
        check(((got.address.v ^ r->linear.v) & 0xfff) == 0, "same offset in the page");
    } else if (s == WALK_FAULT) {
        check(got.error == plain.error, "same error code");
        check(got.cr2.v == (BIT_OF(p->efer, 10) ? r->linear.v : (uint32_t)r->linear.v), "CR2");
    }
    bool interfere = w->interfere;
    enum walk_status u = guest_walk(&use, p, r, &used);
    if (interfere && !w->interfere) {
        check(u == WALK_FAULT && !(used.error & WALK_PF_P), "a changed entry is read again");
        return;
    }
    check(u == s && used.address.v == got.address.v && used.error == got.error, "marking changes no outcome");
    check((w->written_bits & ~0x60ull) == 0, "only accessed and dirty flags are written");
    check(s == WALK_OK || w->swaps == 0, "a fault writes nothing");
    check(r->access == WALK_WRITE || !(w->written_bits & 0x40), "dirty on writes only");
    check(w->leaf_only, "only the leaf gets dirty");
    w->swaps = 0;
    check(guest_walk(&use, p, r, &again) == u && w->swaps == 0, "marked once is marked");
}

/* --- segmentation, byte by byte */
static bool byte_allowed(enum guest_mode mode, enum seg_name name, const struct seg *seg, uint64_t at,
                         enum walk_access access)
{
    if (mode == GUEST_MODE_LONG) {
        uint64_t top = (at + (name >= SEG_FS && name <= SEG_GS ? seg->base : 0)) >> 47;
        return top == 0 || top == 0x1ffff;
    }
    bool code = BIT_OF(seg->access, 3), bit2 = BIT_OF(seg->access, 2), bit1 = BIT_OF(seg->access, 1);
    uint64_t upper = BIT_OF(seg->access, 14) ? 0xffffffff : 0xffff;
    if (BIT_OF(seg->access, 16))
        return false;
    if (!code && bit2 ? at <= seg->limit || at > upper : at > seg->limit)
        return false;
    if (mode == GUEST_MODE_REAL || access == WALK_FETCH)
        return true;
    if (code)
        return access == WALK_READ && bit1;
    return access == WALK_READ || bit1;
}

static void check_segment(const uint8_t **data, size_t *size)
{
    enum guest_mode mode = take(data, size, 1) % 3;
    enum seg_name name = take(data, size, 1) % 6;
    enum walk_access access = take(data, size, 1) % 3;
    struct seg seg = {.base = take(data, size, 8),
                      .limit = (uint32_t)take(data, size, 4),
                      .access = (uint32_t)take(data, size, 3)};
    uint64_t offset = take(data, size, mode == GUEST_MODE_LONG ? 8 : 4),
             length = take(data, size, 1) % 16 + 1;
    uint64_t near = take(data, size, 1);
    if (near & 1) /* an access around the limit, the canonical border, or 2^16 */
        offset = (near & 2 ? seg.limit : near & 4 ? 1ull << 47 : 0xffff) + (near >> 4) - 8;
    if (mode != GUEST_MODE_LONG)
        offset &= 0xffffffff;
    bool allowed = true;
    for (uint64_t i = 0; i < length; i++)
        allowed &= byte_allowed(mode, name, &seg, offset + i, access);
    gva_t linear;
    uint8_t vector = guest_linear(mode, name, &seg, offset, length, access, &linear);
    check(vector == (allowed ? 0 : name == SEG_SS ? 12 : 13), "segment check");
    if (vector)
        return;
    uint64_t sum = seg.base + offset;
    if (mode == GUEST_MODE_LONG)
        sum = name == SEG_FS || name == SEG_GS ? sum : offset;
    check(linear.v == (mode == GUEST_MODE_LONG ? sum : (uint32_t)sum), "linear address");
}

/* --- fetch */
struct code {
    uint8_t bytes[INSN_MAX_LEN];
    uint64_t start;
    bool second_missing, second_read;
};

static bool code_read(void *ctx, gva_t linear, void *bytes, size_t size)
{
    struct code *c = ctx;
    uint64_t from = linear.v - c->start;
    check(size > 0 && from + size <= INSN_MAX_LEN, "fetches 15 bytes at most");
    check((linear.v & 0xfff) + size <= 4096, "a fetch stays on its page");
    if (linear.v >> 12 != c->start >> 12) {
        c->second_read = true;
        if (c->second_missing)
            return false;
    }
    memcpy(bytes, c->bytes + from, size);
    return true;
}

static bool same_insn(const struct insn *a, const struct insn *b)
{
    return a->length == b->length && a->op == b->op && a->opsize == b->opsize && a->addrsize == b->addrsize &&
           a->lock == b->lock && a->rep == b->rep && a->segment == b->segment && a->base == b->base &&
           a->index == b->index && a->scale == b->scale && a->disp == b->disp && a->dst.kind == b->dst.kind &&
           a->dst.reg == b->dst.reg && a->src.kind == b->src.kind && a->src.reg == b->src.reg &&
           a->src.imm == b->src.imm;
}

static void check_fetch(const uint8_t **data, size_t *size)
{
    struct code c = {.start = 0x10000ff0 + take(data, size, 1) % 16};
    enum insn_mode mode = take(data, size, 1) % 3;
    uint64_t room = take(data, size, 1) % 20;
    c.second_missing = take(data, size, 1) & 1;
    for (unsigned i = 0; i < INSN_MAX_LEN; i++)
        c.bytes[i] = (uint8_t)take(data, size, 1);
    struct guest_fetch fetch = {&c, code_read};
    enum guest_mode guest = mode == INSN_MODE_64 ? GUEST_MODE_LONG : GUEST_MODE_PROTECTED;
    struct guest_insn got = {0};
    struct insn whole;
    uint64_t all = room < INSN_MAX_LEN ? room : INSN_MAX_LEN, first = 0x10001000 - c.start;
    enum status expected = insn_decode((struct span){c.bytes, all}, mode, &whole);
    bool crosses =
        insn_decode((struct span){c.bytes, first < all ? first : all}, mode, &whole) == ERR_RANGE &&
        first < all;
    /* Before, there was an instruction that differs in one byte, or in nothing but the place and the mode. */
    struct code before = c;
    struct guest_fetch fetch_before = {&before, code_read};
    before.start = 0x10000000;
    before.bytes[take(data, size, 1) % INSN_MAX_LEN] ^= (uint8_t)take(data, size, 1);
    guest_fetch_insn(&fetch_before, guest, take(data, size, 1) & 1 ? INSN_MODE_16 : mode, gva(before.start),
                     INSN_MAX_LEN, &got);
    enum status s = guest_fetch_insn(&fetch, guest, mode, gva(c.start), room, &got);
    check(c.second_read == crosses, "the second page is read only when needed");
    check(s == (crosses && c.second_missing ? ERR_NOT_FOUND : expected), "same as contiguous bytes");
    if (s != STATUS_OK)
        return;
    check(insn_decode((struct span){c.bytes, all}, mode, &whole) == STATUS_OK && same_insn(&whole, &got.insn),
          "same instruction as from contiguous bytes");
    check(got.insn.length <= got.count && memcmp(got.bytes, c.bytes, got.count) == 0, "bytes");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world w;
    uint64_t what = take(&data, &size, 1);
    if (what % 4 == 1) {
        check_segment(&data, &size);
        return 0;
    }
    if (what % 4 == 2) {
        check_fetch(&data, &size);
        return 0;
    }
    memset(&w, 0, sizeof(w));
    w.leaf_only = true;
    uint64_t bits = take(&data, &size, 2);
    struct walk_paging p = {.cr0 = 1 | BIT_OF(bits, 0) << 16 | (uint64_t) !!(bits & 0xf000) << 31,
                            .cr4 = BIT_OF(bits, 1) << 4 | BIT_OF(bits, 2) << 5 | BIT_OF(bits, 3) << 20 |
                                   BIT_OF(bits, 4) << 21 | BIT_OF(bits, 5) << 22,
                            .rflags = BIT_OF(bits, 6) << 18,
                            .has_1g = BIT_OF(bits, 7)};
    p.efer = BIT_OF(bits, 8) << 11;
    if (BIT_OF(bits, 9)) { /* IA-32e mode implies PAE */
        p.efer |= 1 << 10;
        p.cr4 |= 1 << 5;
    }
    w.interfere = BIT_OF(bits, 10);
    p.maxphyaddr = (uint8_t)(36 + take(&data, &size, 1) % 17);
    p.cr3 = take(&data, &size, 1) % PAGES << 12 | BIT_OF(bits, 11) << 3;
    p.pkru = (uint32_t)take(&data, &size, 4);
    for (unsigned i = 0; i < 4; i++)
        p.pdpte[i] = take(&data, &size, 2) & 0x7fff;
    uint64_t how = take(&data, &size, 1);
    struct walk_request r = {
        .linear = gva(take(&data, &size, 8)), .access = (uint8_t)(how % 3), .user = how & 0x80};
    if (how & 0x40) /* mostly canonical */
        r.linear.v = (uint64_t)((int64_t)(r.linear.v << 16) >> 16);
    fill(&w, &p, r.linear.v, &data, &size);
    check_walk(&w, &p, &r);
    return 0;
}
