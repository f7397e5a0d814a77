/* From a guest's segment and offset to its linear address, and from there to its physical address, as the
 * guest's own CPU would go (SDM volume 3, chapters "Protection" and "Paging"). Pure: guest memory is reached
 * through callbacks. */
#pragma once

#include "arch/x86/insn.h"
#include "arch/x86/virt.h"

enum walk_access { WALK_READ, WALK_WRITE, WALK_FETCH };

struct walk_request {
    gva_t linear;
    uint8_t access; /* enum walk_access */
    bool user;      /* CPL 3, and not an implicit supervisor access */
};

/* The guest's registers that decide about paging. */
struct walk_paging {
    uint64_t cr0, cr3, cr4, efer;
    uint64_t rflags;    /* AC; pass 0 for an implicit supervisor access (to a descriptor table) */
    uint64_t pdpte[4];  /* PAE paging only: the CPU's own copies (with EPT: from the VMCS) */
    uint32_t pkru;      /* when CR4.PKE */
    uint8_t maxphyaddr; /* of the processor: bits above are reserved in entries; 32..52 */
    bool has_1g;        /* the processor knows 1-GByte pages; else PS is reserved in a PDPTE */
};

struct walk_env {
    void *ctx;
    /* Copies `size` (4 or 8) bytes of a paging-structure entry; false: no memory there. */
    bool (*read)(void *ctx, gpa_t at, void *entry, size_t size);
    /* Replaces an entry, atomically. ERR_EXISTS: it is no longer `old`; any other failure: it cannot be
     * written. NULL: accessed and dirty flags are left alone (for looking without being seen). */
    enum status (*cmpxchg)(void *ctx, gpa_t at, uint64_t old, uint64_t new_value, size_t size);
};

enum walk_status {
    WALK_OK,
    WALK_FAULT,        /* #PF: error and cr2 are set */
    WALK_NONCANONICAL, /* 4-level paging and not a canonical address: the caller should have asked
                          guest_linear */
    WALK_NO_MEMORY, /* a paging structure lies where no memory is, or cannot be written: `table` says where */
    WALK_RETRY,     /* the entries changed again and again: let the guest execute the instruction once more */
};

struct walk_result {
    gpa_t address;      /* WALK_OK: of request->linear */
    uint64_t page_size; /* WALK_OK: bytes, 4 KiB to 1 GiB; 4 KiB without paging */
    uint32_t error;     /* WALK_FAULT: the page-fault error code */
    gva_t cr2;          /* WALK_FAULT */
    gpa_t table;        /* WALK_NO_MEMORY: the entry */
};

/* Page-fault error code (SDM volume 3, 4.7 "Page-fault exceptions"). */
#define WALK_PF_P    (1u << 0)
#define WALK_PF_W    (1u << 1)
#define WALK_PF_U    (1u << 2)
#define WALK_PF_RSVD (1u << 3)
#define WALK_PF_I    (1u << 4)
#define WALK_PF_PK   (1u << 5)

/* Translates one linear address. On WALK_OK accessed flags are set at every level, and on a write the dirty
 * flag at the leaf; a fault leaves them alone. Valid for the page only: an access that crosses it
 * needs a second walk. */
enum walk_status guest_walk(const struct walk_env *env, const struct walk_paging *paging,
                            const struct walk_request *request, struct walk_result *result);

enum guest_mode {
    GUEST_MODE_REAL,      /* real-address or virtual-8086 mode: limits, but no types */
    GUEST_MODE_PROTECTED, /* protected or compatibility mode */
    GUEST_MODE_LONG,      /* 64-bit mode: flat */
};

/* The mode from CR0, EFER, RFLAGS and the access rights of CS, and what the decoder calls it. */
enum guest_mode guest_mode(uint64_t cr0, uint64_t efer, uint64_t rflags, uint32_t cs_access);
enum insn_mode guest_insn_mode(enum guest_mode mode, uint32_t cs_access);

/* Segmentation: checks [offset, offset+size) of segment `name` for the access and answers its first linear
 * address. 0: allowed; else the vector of the exception to inject, 13 (#GP) or 12 (#SS), with error code 0.
 * `size` is 1..4096. With a 4-GByte limit an access that wraps at 2^32 is refused (the SDM leaves it to the
 * implementation). */
uint8_t guest_linear(enum guest_mode mode, enum seg_name name, const struct seg *seg, uint64_t offset,
                     uint64_t size, enum walk_access access, gva_t *linear);

/* Bytes of code that can be fetched at this offset of CS, at most `max`; 0: #GP. */
uint64_t guest_code_room(enum guest_mode mode, const struct seg *cs, uint64_t offset, uint64_t max);

/* The linear address `delta` bytes on: outside 64-bit mode it wraps at 2^32. */
gva_t guest_linear_add(enum guest_mode mode, gva_t linear, uint64_t delta);

struct guest_fetch {
    void *ctx;
    /* Copies code bytes, which do not cross a page. False: a fault, of which the callback keeps the details.
     */
    bool (*read)(void *ctx, gva_t linear, void *bytes, size_t size);
};

/* An instruction and the bytes it was made from. Starts zeroed; when it is kept from one call to the next, an
 * instruction with the same bytes is not decoded again (guests reach their APIC from few places). */
struct guest_insn {
    uint8_t bytes[16]; /* INSN_MAX_LEN and one to spare */
    uint8_t count;     /* bytes that were read; also on failure, for reports */
    uint8_t mode;      /* enum insn_mode, when decoded */
    bool decoded;      /* insn is valid */
    struct insn insn;
};

/* Is the instruction at `code`, where 16 bytes can be read, the one that `known` holds for this mode? */
bool guest_same_insn(const struct guest_insn *known, enum insn_mode mode, const uint8_t *code);

/* Reads and decodes the instruction at `linear`. The next page is touched only when the instruction extends
 * into it. `room`: from guest_code_room. ERR_NOT_FOUND: `read` failed; ERR_RANGE: it runs past the segment's
 * end (#GP); ERR_INVALID, ERR_UNSUPPORTED: as insn_decode. On failure out->insn is unspecified. */
enum status guest_fetch_insn(const struct guest_fetch *fetch, enum guest_mode mode, enum insn_mode insn_mode,
                             gva_t linear, uint64_t room, struct guest_insn *out);
