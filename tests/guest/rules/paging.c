/* Access rights of pages: SDM volume 3, section 4.6 "Access Rights" and 4.7 "Page-Fault Exceptions". Every
 * combination of the bits of a directory entry and a table entry, of accesses, privilege, CR0.WP, SMEP, SMAP
 * and EFLAGS.AC, with 4-level and with PAE paging, against the rules as a function. */
#include "pages.h"

#define LARGE_RESERVED (1ull << 13)
#define CR4_SMEP       (1ull << 20)
#define CR4_SMAP       (1ull << 21)
#define FLAGS_AC       (1ull << 18)
#define RIGHTS         16u /* combinations of P, RW, US, NX */

struct setting {
    enum lab_mode mode;
    bool wp, smep, smap, ac;
};

static uint64_t rights(unsigned combination)
{
    return (combination & 7) | (combination & 8 ? ENTRY_NX : 0);
}

/* The error code of the page fault, or DONE. */
static uint32_t expected(const struct setting *s, enum access access, uint64_t pde, uint64_t pte)
{
    bool user = lab_is_user(s->mode), present = pde & pte & ENTRY_P;
    bool user_page = pde & pte & ENTRY_US, writable = pde & pte & ENTRY_RW,
         no_execute = (pde | pte) & ENTRY_NX;
    uint32_t error = (access == WRITE ? ERROR_W : 0) | (user ? ERROR_U : 0) | (access == FETCH ? ERROR_I : 0);
    if (!present)
        return error;
    bool refused;
    if (user)
        refused = !user_page || (access == WRITE && !writable) || (access == FETCH && no_execute);
    else if (access == FETCH)
        refused = no_execute || (s->smep && user_page);
    else
        refused = (s->smap && user_page && !s->ac) || (access == WRITE && s->wp && !writable);
    return refused ? error | ERROR_P : DONE;
}

static void flush(void)
{
    write_cr3(read_cr3());
}

static uint32_t attempt(const struct setting *s, enum access access)
{
    flush();
    return pages_attempt(s->mode, access, s->ac ? FLAGS_AC : 0);
}

static void one(const struct setting *s, enum access access, uint64_t pde, uint64_t pte, bool large)
{
    uint64_t *entry = large ? &page_pds[0][SLOT] : &pages_table[0];
    page_pds[0][SLOT] = large ? FREE_LARGE | pde | ENTRY_PS : (uintptr_t)pages_table | pde;
    pages_table[0] = (uintptr_t)pages_target | pte;
    uint32_t found = attempt(s, access), wanted = expected(s, access, pde, large ? pde : pte);
    bool dirty = *entry & ENTRY_D, accessed = *entry & ENTRY_A;
    check(found == wanted, "%s: %s, pde %x pte %x wp %u smep %u smap %u ac %u: error %x, expected %x",
          lab_mode_names[s->mode], access_names[access], pde, large ? ENTRY_PS : pte, (uint64_t)s->wp,
          (uint64_t)s->smep, (uint64_t)s->smap, (uint64_t)s->ac, (uint64_t)found, (uint64_t)wanted);
    bool done = wanted == DONE;
    check(dirty == (done && access == WRITE) && (accessed || !done),
          "%s: %s, pde %x pte %x: the entry became %x", lab_mode_names[s->mode], access_names[access], pde,
          pte, *entry);
}

static void every_entry(const struct setting *s)
{
    for (unsigned access = READ; access <= FETCH; access++) {
        for (unsigned a = 0; a < RIGHTS; a++) {
            for (unsigned b = 0; b < RIGHTS; b++)
                one(s, access, rights(a), rights(b), false);
            one(s, access, rights(a), 0, true);
        }
    }
}

static void with_setting(const struct setting *s)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4(), low = page_pds[0][0];
    bool user = lab_is_user(s->mode);
    if (!user)
        page_pds[0][0] = low & ~ENTRY_US; /* the lab itself is there */
    flush();
    lab_more_cr0 = s->wp ? CR0_WP : 0;
    lab_more_cr4 = (s->smep ? CR4_SMEP : 0) | (s->smap ? CR4_SMAP : 0);
    if (lab_is_long(s->mode)) {
        write_cr0((cr0 & ~CR0_WP) | lab_more_cr0);
        /* lab_caught() restores CR4 to what it was before the code ran. */
        write_cr4(cr4 | lab_more_cr4);
    }
    every_entry(s);
    write_cr0(cr0);
    write_cr4(cr4);
    lab_more_cr0 = lab_more_cr4 = 0;
    page_pds[0][0] = low;
    flush();
}

static void all_settings(enum lab_mode mode)
{
    bool smep = cpu_has(7, 0, 1, 7), smap = cpu_has(7, 0, 1, 20);
    for (unsigned bits = 0; bits < 16; bits++) {
        struct setting s = {mode, bits & 1, bits & 2, bits & 4, bits & 8};
        if ((s.smep && !smep) || (s.smap && !smap) || (s.ac && !s.smap))
            continue;
        /* Of a user, SMEP and SMAP concern the lab's own handlers only. */
        if (!lab_is_user(mode) || !(bits & ~1u))
            with_setting(&s);
    }
}

/* Reserved bits: beyond MAXPHYADDR, the low address bits of a large page, NX without EFER.NXE. */
static void reserved(void)
{
    static const struct setting s = {MODE_LONG, false, false, false, false};
    const uint64_t all = ENTRY_P | ENTRY_RW | ENTRY_US;
    const uint32_t fault = ERROR_P | ERROR_RSVD;
    for (unsigned bit = physical_bits; bit < 52; bit++) {
        page_pds[0][SLOT] = (uintptr_t)pages_table | all;
        pages_table[0] = (uintptr_t)pages_target | all | 1ull << bit;
        check(attempt(&s, READ) == fault, "bit %u of a table entry is reserved", (uint64_t)bit);
        page_pds[0][SLOT] |= 1ull << bit;
        pages_table[0] = (uintptr_t)pages_target | all;
        check(attempt(&s, READ) == fault, "bit %u of a directory entry is reserved", (uint64_t)bit);
    }
    page_pds[0][SLOT] = FREE_LARGE | all | ENTRY_PS | LARGE_RESERVED;
    check_equal(attempt(&s, READ), fault, "bit 13 of a large page");
    page_pds[0][SLOT] = (uintptr_t)pages_table | all;
    pages_table[0] = (uintptr_t)pages_target | all | ENTRY_NX;
    uint64_t efer = rdmsr(MSR_EFER);
    wrmsr(MSR_EFER, efer & ~(1ull << 11));
    check_equal(attempt(&s, READ), fault, "NX without EFER.NXE");
    wrmsr(MSR_EFER, efer);
    pages_table[0] = (uintptr_t)pages_target | ENTRY_P;
}

SNIPPET(load_cr3, 32, "mov %cr3, %ecx; mov %eax, %cr3; mov %ecx, %cr3");
SNIPPET(load_cr3_bad, 32, "mov %eax, %cr3");

/* With PAE paging MOV to CR3 loads the four PDPTEs and refuses reserved bits in those that are present
 * (section 4.4.1). */
static void pdptes(void)
{
    static uint64_t own[4] __attribute__((aligned(4096)));
    static const unsigned bits[] = {1, 2, 5, 6, 7, 8, 63};
    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        for (unsigned n = 0; n < 4; n++)
            own[n] = (uintptr_t)page_pds[n] | ENTRY_P;
        lab_clear();
        lab.gpr[0] = (uintptr_t)own;
        check_equal(RUN(MODE_PAE, load_cr3), VECTOR_BP, "good PDPTEs");
        own[2] |= 1ull << bits[i];
        lab_clear();
        lab.gpr[0] = (uintptr_t)own;
        check(RUN(MODE_PAE, load_cr3_bad) == VECTOR_GP && lab.error == 0,
              "bit %u of a PDPTE is reserved: vector %u", (uint64_t)bits[i], (uint64_t)lab.vector);
        own[2] &= ~ENTRY_P;
        lab_clear();
        lab.gpr[0] = (uintptr_t)own;
        check(RUN(MODE_PAE, load_cr3) == VECTOR_BP, "bit %u of a PDPTE that is not present: vector %u",
              (uint64_t)bits[i], (uint64_t)lab.vector);
    }
}

void rule_paging(void)
{
    static const enum lab_mode modes[] = {MODE_LONG, MODE_LONG_USER, MODE_PAE, MODE_PAE_USER};
    uint64_t before = page_pds[0][SLOT];
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        all_settings(modes[i]);
    reserved();
    pdptes();
    page_pds[0][SLOT] = before;
    flush();
}
