#include "arch/x86/guest_walk.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/lib/bits.h"

/* Paging-structure entries (SDM volume 3, figures 4-4, 4-7 and 4-11). */
#define ENTRY_P         BIT(0)
#define ENTRY_RW        BIT(1)
#define ENTRY_US        BIT(2)
#define ENTRY_A         BIT(5)
#define ENTRY_D         BIT(6)
#define ENTRY_PS        BIT(7)
#define ENTRY_XD        BIT(63)
#define ENTRY_KEY_SHIFT 59
#define ENTRY_KEY_MASK  0xfu

/* A 4-MByte page: address bits 39:32 in entry bits 20:13 (PSE-36), bit 21 reserved. */
#define PSE36_HIGH_SHIFT 13
#define PSE36_HIGH_BITS  8u
#define PSE_RESERVED     BIT(21)
#define PSE_PAGE_SHIFT   22u

#define MAX_LEVELS 4u
#define MAX_RESTARTS                                                                                         \
    8 /* another CPU that changes the same entries this often in a row is up to something                    \
       */

enum walk_format { FORMAT_32, FORMAT_PAE, FORMAT_LONG };

/* One entry as it was read. */
struct walk_step {
    gpa_t at;
    uint64_t entry;
};

struct walk {
    const struct walk_env *env;
    const struct walk_paging *paging;
    const struct walk_request *request;
    struct walk_result *result;
    enum walk_format format;
    bool writable, user, executable; /* combined over the levels */
    unsigned shift;                  /* log2 of what one entry of the current level maps */
    uint64_t entry;                  /* the current one */
    unsigned count;
    struct walk_step steps[MAX_LEVELS];
};

static size_t entry_size(const struct walk *w)
{
    return w->format == FORMAT_32 ? 4 : 8;
}

static bool nx_enabled(const struct walk *w)
{
    return w->format != FORMAT_32 && w->paging->efer & EFER_NXE;
}

static enum walk_status page_fault(struct walk *w, uint32_t cause)
{
    uint32_t error = cause;
    if (w->request->access == WALK_WRITE)
        error |= WALK_PF_W;
    if (w->request->user)
        error |= WALK_PF_U;
    if (w->request->access == WALK_FETCH && (nx_enabled(w) || w->paging->cr4 & CR4_SMEP))
        error |= WALK_PF_I;
    w->result->error = error;
    w->result->cr2 = w->request->linear;
    return WALK_FAULT;
}

/* Address bits of an entry: from bit 12 to the processor's last. */
static uint64_t address_mask(const struct walk *w)
{
    return (BIT(w->paging->maxphyaddr) - 1) & ~PAGE_MASK;
}

/* Does the entry map a page, and not a table? `shift` is 12, 21, 22, 30 or 39. */
static bool is_leaf(const struct walk *w)
{
    if (w->shift == PAGE_SHIFT)
        return true;
    if (!(w->entry & ENTRY_PS))
        return false;
    if (w->format == FORMAT_32)
        return w->paging->cr4 & CR4_PSE;
    /* In a PML4E, and in a PDPTE of a processor without 1-GByte pages, PS is reserved; reserved_bits says so.
     */
    return w->shift == 21 || (w->shift == 30 && w->paging->has_1g);
}

static uint64_t reserved_bits(const struct walk *w)
{
    if (w->format == FORMAT_32) {
        if (w->shift == PAGE_SHIFT || !is_leaf(w))
            return 0;
        unsigned high = w->paging->maxphyaddr < 40 ? w->paging->maxphyaddr - 32u : PSE36_HIGH_BITS;
        return PSE_RESERVED | (BIT(PSE36_HIGH_SHIFT + PSE36_HIGH_BITS) - BIT(PSE36_HIGH_SHIFT + high));
    }
    /* Bits 62:52 are ignored or hold the protection key with 4-level paging, and are reserved with PAE
     * paging. */
    uint64_t end = w->format == FORMAT_PAE ? BIT(63) : BIT(52);
    uint64_t reserved = end - BIT(w->paging->maxphyaddr);
    if (!nx_enabled(w))
        reserved |= ENTRY_XD;
    if (w->shift == PAGE_SHIFT)
        return reserved;
    if (is_leaf(w)) /* the address starts at the page's size; bit 12 is PAT */
        return reserved | (BIT(w->shift) - BIT(PAGE_SHIFT + 1));
    return w->shift > 21 ? reserved | ENTRY_PS : reserved;
}

static bool read_entry(struct walk *w, gpa_t at)
{
    uint32_t narrow;
    if (w->format == FORMAT_32) {
        if (!w->env->read(w->env->ctx, at, &narrow, sizeof(narrow)))
            return false;
        w->entry = narrow;
        return true;
    }
    return w->env->read(w->env->ctx, at, &w->entry, sizeof(w->entry));
}

/* Reads the entry of the current level from `table`, and combines its permissions. */
static enum walk_status step(struct walk *w, uint64_t table)
{
    unsigned index_bits = w->format == FORMAT_32 ? 10 : 9;
    uint64_t index = (w->request->linear.v >> w->shift) & (BIT(index_bits) - 1);
    gpa_t at = gpa(table + index * entry_size(w));
    if (!read_entry(w, at)) {
        w->result->table = at;
        return WALK_NO_MEMORY;
    }
    if (!(w->entry & ENTRY_P))
        return page_fault(w, 0);
    if (w->entry & reserved_bits(w))
        return page_fault(w, WALK_PF_P | WALK_PF_RSVD);
    w->writable = w->writable && w->entry & ENTRY_RW;
    w->user = w->user && w->entry & ENTRY_US;
    w->executable = w->executable && !(nx_enabled(w) && w->entry & ENTRY_XD);
    w->steps[w->count++] = (struct walk_step){at, w->entry};
    return WALK_OK;
}

/* SDM volume 3, 4.6.2 "Protection keys": data accesses to user-mode addresses only. */
static bool key_allows(const struct walk *w)
{
    if (w->format != FORMAT_LONG || !(w->paging->cr4 & CR4_PKE) || !w->user ||
        w->request->access == WALK_FETCH)
        return true;
    unsigned key = (unsigned)(w->entry >> ENTRY_KEY_SHIFT) & ENTRY_KEY_MASK;
    unsigned denied = w->paging->pkru >> (2 * key);
    if (denied & 1) /* ADi */
        return false;
    bool write_protected = w->request->user || w->paging->cr0 & CR0_WP;
    return !(denied & 2 && w->request->access == WALK_WRITE && write_protected); /* WDi */
}

/* SDM volume 3, 4.6.1 "Determination of access rights". */
static bool rights_allow(const struct walk *w)
{
    const struct walk_paging *p = w->paging;
    if (w->request->access == WALK_FETCH) {
        if (!w->executable)
            return false;
        return w->request->user ? w->user : !(w->user && p->cr4 & CR4_SMEP);
    }
    bool write = w->request->access == WALK_WRITE;
    if (w->request->user)
        return w->user && (!write || w->writable);
    if (w->user && p->cr4 & CR4_SMAP && !(p->rflags & RFLAGS_AC))
        return false;
    return !write || w->writable || !(p->cr0 & CR0_WP);
}

/* Sets the accessed flags, and the dirty flag of the leaf (SDM volume 3, 4.8). ERR_EXISTS: walk again. */
static enum status mark_used(struct walk *w)
{
    if (!w->env->cmpxchg)
        return STATUS_OK;
    for (unsigned i = 0; i < w->count; i++) {
        uint64_t flags = ENTRY_A;
        if (i + 1 == w->count && w->request->access == WALK_WRITE)
            flags |= ENTRY_D;
        uint64_t old = w->steps[i].entry;
        if ((old & flags) == flags)
            continue;
        w->result->table = w->steps[i].at;
        enum status s = w->env->cmpxchg(w->env->ctx, w->steps[i].at, old, old | flags, entry_size(w));
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

static uint64_t leaf_address(const struct walk *w)
{
    uint64_t page = w->entry & address_mask(w);
    if (w->shift == PSE_PAGE_SHIFT)
        page = (w->entry & 0xffc00000u) | bits_get(w->entry, 20, PSE36_HIGH_SHIFT) << 32;
    uint64_t offset_mask = BIT(w->shift) - 1;
    return (page & ~offset_mask) | (w->request->linear.v & offset_mask);
}

/* Where the walk begins: the first table and the size of its entries. */
static enum walk_status find_root(struct walk *w, uint64_t *table)
{
    const struct walk_paging *p = w->paging;
    uint64_t linear = w->request->linear.v;
    if (w->format == FORMAT_LONG) {
        w->shift = 39;
        *table = p->cr3 & address_mask(w);
    } else if (w->format == FORMAT_PAE) {
        /* PDPTEs have no permissions, and their reserved bits were checked when they were loaded. */
        uint64_t pdpte = p->pdpte[bits_get(linear, 31, 30)];
        if (!(pdpte & ENTRY_P))
            return page_fault(w, 0);
        w->shift = 21;
        *table = pdpte & address_mask(w);
    } else {
        w->shift = PSE_PAGE_SHIFT;
        *table = p->cr3 & 0xfffff000u;
    }
    return WALK_OK;
}

static enum walk_status walk_tables(struct walk *w)
{
    uint64_t table = 0;
    w->writable = w->user = w->executable = true;
    w->count = 0;
    enum walk_status s = find_root(w, &table);
    while (s == WALK_OK) {
        s = step(w, table);
        if (s != WALK_OK || is_leaf(w))
            break;
        table = w->entry & address_mask(w);
        w->shift -= w->format == FORMAT_32 ? 10 : 9;
    }
    if (s != WALK_OK)
        return s;
    /* The error code names the key also when another right is missing (SDM volume 3, 4.7). */
    if (!key_allows(w))
        return page_fault(w, WALK_PF_P | WALK_PF_PK);
    return rights_allow(w) ? WALK_OK : page_fault(w, WALK_PF_P);
}

static enum walk_status walk_general(const struct walk_env *env, const struct walk_paging *paging,
                                     const struct walk_request *request, struct walk_result *result)
{
    struct walk_request narrowed = *request;
    struct walk w = {.env = env, .paging = paging, .request = &narrowed, .result = result};
    *result = (struct walk_result){.page_size = PAGE_SIZE};
    if (!(paging->cr0 & CR0_PG)) {
        result->address = gpa((uint32_t)request->linear.v);
        return WALK_OK;
    }
    if (paging->efer & EFER_LMA) {
        w.format = FORMAT_LONG;
        if (!cpu_is_canonical(request->linear.v))
            return WALK_NONCANONICAL;
    } else {
        w.format = paging->cr4 & CR4_PAE ? FORMAT_PAE : FORMAT_32;
        narrowed.linear = gva((uint32_t)request->linear.v);
    }
    for (int i = 0; i < MAX_RESTARTS; i++) {
        enum walk_status s = walk_tables(&w);
        if (s != WALK_OK)
            return s;
        enum status marked = mark_used(&w);
        if (marked == ERR_EXISTS)
            continue;
        if (marked != STATUS_OK)
            return WALK_NO_MEMORY;
        result->address = gpa(leaf_address(&w));
        result->page_size = BIT(w.shift);
        return WALK_OK;
    }
    return WALK_RETRY;
}

/* The rights of a walk whose entries have `all` set in every one of them, for the plain cases only: false
 * leaves the judgement to rights_allow() and key_allows(). */
static bool plainly_allowed(const struct walk_paging *paging, const struct walk_request *request,
                            uint64_t all, bool no_execute, uint64_t leaf)
{
    bool user_page = all & ENTRY_US;
    if (user_page != request->user || (user_page && (paging->cr4 & CR4_PKE)))
        return false;
    if (request->access == WALK_FETCH)
        return !no_execute;
    return request->access == WALK_READ || ((all & ENTRY_RW) && (leaf & ENTRY_D));
}

/* The common walk, made short because every access to emulated MMIO needs one: 4-level paging, all entries
 * present and marked as used, nothing reserved, rights beyond doubt. False: nothing is decided, the general
 * walk does it. */
static bool walk_long_plain(const struct walk_env *env, const struct walk_paging *paging,
                            const struct walk_request *request, struct walk_result *result)
{
    const uint64_t must = ENTRY_P | ENTRY_A;
    const uint64_t address = BIT(52) - PAGE_SIZE;
    const uint64_t reserved =
        (address & ~(BIT(paging->maxphyaddr) - 1)) | (paging->efer & EFER_NXE ? 0 : ENTRY_XD);
    uint64_t linear = request->linear.v, all = ~(uint64_t)0, any = 0, entry;
    uint64_t table = paging->cr3 & address & (BIT(paging->maxphyaddr) - 1);
    unsigned shift = 39;
    for (;; shift -= 9) {
        if (!env->read(env->ctx, gpa(table + (linear >> shift & 511) * 8), &entry, sizeof(entry)))
            return false;
        if ((entry & must) != must || (entry & reserved))
            return false;
        all &= entry;
        any |= entry;
        if (shift == PAGE_SHIFT)
            break;
        if (entry & ENTRY_PS) {
            if (shift == 39 || (shift == 30 && !paging->has_1g) || (entry & (BIT(shift) - BIT(13))))
                return false;
            break;
        }
        table = entry & address;
    }
    if (!plainly_allowed(paging, request, all, any & ENTRY_XD, entry))
        return false;
    uint64_t offset_mask = BIT(shift) - 1;
    *result = (struct walk_result){.address = gpa((entry & address & ~offset_mask) | (linear & offset_mask)),
                                   .page_size = BIT(shift)};
    return true;
}

enum walk_status guest_walk(const struct walk_env *env, const struct walk_paging *paging,
                            const struct walk_request *request, struct walk_result *result)
{
    if ((paging->cr0 & CR0_PG) && (paging->efer & EFER_LMA) && cpu_is_canonical(request->linear.v) &&
        walk_long_plain(env, paging, request, result))
        return WALK_OK;
    return walk_general(env, paging, request, result);
}
enum guest_mode guest_mode(uint64_t cr0, uint64_t efer, uint64_t rflags, uint32_t cs_access)
{
    if (!(cr0 & CR0_PE) || rflags & RFLAGS_VM)
        return GUEST_MODE_REAL;
    return efer & EFER_LMA && cs_access & SEG_ACCESS_L ? GUEST_MODE_LONG : GUEST_MODE_PROTECTED;
}

enum insn_mode guest_insn_mode(enum guest_mode mode, uint32_t cs_access)
{
    if (mode == GUEST_MODE_LONG)
        return INSN_MODE_64;
    return cs_access & SEG_ACCESS_DB ? INSN_MODE_32 : INSN_MODE_16;
}

/* Segment types (SDM volume 3, table 3-1): bit 3 code; data: bit 2 expand-down, bit 1 writable; code: bit 1
 * readable. */
#define TYPE_CODE        (1u << 3)
#define TYPE_EXPAND_DOWN (1u << 2)
#define TYPE_RW          (1u << 1)

static bool type_allows(const struct seg *seg, enum walk_access access)
{
    if (access == WALK_FETCH)
        return true;
    if (seg->access & TYPE_CODE)
        return access == WALK_READ && seg->access & TYPE_RW;
    return access == WALK_READ || seg->access & TYPE_RW;
}

/* Bytes that the limit allows from `offset` on (SDM volume 3, 5.3 "Limit checking"). */
static uint64_t room_in_limit(const struct seg *seg, uint64_t offset)
{
    uint64_t last = seg->limit;
    if ((seg->access & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN) {
        if (offset <= seg->limit)
            return 0;
        last = seg->access & SEG_ACCESS_DB ? UINT32_MAX : UINT16_MAX;
    }
    return offset <= last ? last - offset + 1 : 0;
}

static bool linear_long(enum seg_name name, const struct seg *seg, uint64_t offset, uint64_t size,
                        gva_t *linear)
{
    uint64_t base = name == SEG_FS || name == SEG_GS ? seg->base : 0;
    *linear = gva(base + offset);
    return cpu_is_canonical(linear->v) && cpu_is_canonical(linear->v + size - 1);
}

uint8_t guest_linear(enum guest_mode mode, enum seg_name name, const struct seg *seg, uint64_t offset,
                     uint64_t size, enum walk_access access, gva_t *linear)
{
    uint8_t fault = name == SEG_SS ? VECTOR_SS : VECTOR_GP;
    if (mode == GUEST_MODE_LONG)
        return linear_long(name, seg, offset, size, linear) ? 0 : fault;
    if (seg->access & SEG_ACCESS_UNUSABLE || room_in_limit(seg, offset) < size)
        return fault;
    if (mode == GUEST_MODE_PROTECTED && !type_allows(seg, access))
        return fault;
    *linear = gva((uint32_t)(seg->base + offset));
    return 0;
}

uint64_t guest_code_room(enum guest_mode mode, const struct seg *cs, uint64_t offset, uint64_t max)
{
    uint64_t room;
    if (mode != GUEST_MODE_LONG)
        room = room_in_limit(cs, offset);
    else if (!cpu_is_canonical(offset))
        room = 0;
    else /* up to the end of this half of the address space; the upper one ends at 2^64 */
        room = (offset >> 63 ? 0 : BIT(CPU_LINEAR_BITS - 1)) - offset;
    return room < max ? room : max;
}

gva_t guest_linear_add(enum guest_mode mode, gva_t linear, uint64_t delta)
{
    uint64_t sum = linear.v + delta;
    return gva(mode == GUEST_MODE_LONG ? sum : (uint32_t)sum);
}

/* Are the first `length` bytes the same? Both arrays have 16. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, unsigned length)
{
    uint64_t x[2], y[2];
    __builtin_memcpy(x, a, sizeof(x));
    __builtin_memcpy(y, b, sizeof(y));
    if (length <= 8)
        return bits_low_bytes(x[0] ^ y[0], length) == 0;
    return x[0] == y[0] && bits_low_bytes(x[1] ^ y[1], length - 8) == 0;
}

bool guest_same_insn(const struct guest_insn *known, enum insn_mode mode, const uint8_t *code)
{
    return known->decoded && known->mode == mode && same_bytes(code, known->bytes, known->insn.length);
}

static enum status decode_fetched(struct guest_insn *out, enum insn_mode mode, uint64_t count)
{
    out->count = (uint8_t)count;
    out->mode = (uint8_t)mode;
    enum status s = insn_decode((struct span){out->bytes, count}, mode, &out->insn);
    out->decoded = s == STATUS_OK;
    return s;
}

enum status guest_fetch_insn(const struct guest_fetch *fetch, enum guest_mode mode, enum insn_mode insn_mode,
                             gva_t linear, uint64_t room, struct guest_insn *out)
{
    uint64_t on_page = PAGE_SIZE - (linear.v & PAGE_MASK);
    uint64_t want = room < INSN_MAX_LEN ? room : INSN_MAX_LEN;
    uint64_t first = want < on_page ? want : on_page;
    uint8_t bytes[sizeof(out->bytes)] = {0};
    if (first == 0 || !fetch->read(fetch->ctx, linear, bytes, first)) {
        out->count = 0;
        out->decoded = false;
        return first == 0 ? ERR_RANGE : ERR_NOT_FOUND;
    }
    /* What decoding gives depends on the mode and the instruction's own bytes only. */
    bool known = out->decoded && out->mode == insn_mode && out->insn.length <= first &&
                 same_bytes(bytes, out->bytes, out->insn.length);
    __builtin_memcpy(out->bytes, bytes, sizeof(bytes));
    out->count = (uint8_t)first;
    if (known)
        return STATUS_OK;
    enum status s = decode_fetched(out, insn_mode, first);
    if (s != ERR_RANGE || first == want)
        return s;
    if (!fetch->read(fetch->ctx, guest_linear_add(mode, linear, first), out->bytes + first, want - first))
        return ERR_NOT_FOUND;
    return decode_fetched(out, insn_mode, want);
}
