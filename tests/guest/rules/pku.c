/* Protection keys of user-mode pages: SDM volume 3, section 4.6.2 "Protection Keys", and 4.7 for bit 5 of a
 * page fault's error code: with 4-level paging and CR4.PKE, PKRU may take away the right to read (AD) or to
 * write (WD) the user-mode pages of a key, from the supervisor, too. It concerns neither supervisor-mode
 * pages nor fetches. */
#include "pages.h"

#define KEY_SHIFT 59
#define CR4_PKE   (1ull << 22)
#define XCR0_PKRU (1ull << 9)
#define KEY       6u
#define AD        1u
#define WD        2u
#define OSPKE     4u /* bit of CPUID.7:ECX */

static uint8_t area[4096] __attribute__((aligned(64))); /* of XSAVE */

SNIPPET(push64, 64, "lea 64(%rbx), %rsp; push %rax; pop %rax");
SNIPPET(cpuid64, 64, "xor %eax, %eax; push %rbx; cpuid; pop %rbx; mov (%rbx), %al");
SNIPPET(rdpkru, 32, "rdpkru");
SNIPPET(wrpkru, 32, "wrpkru");
/* Who reads for them, or writes, is Bulkhead. */
SNIPPET(outs64, 64, "mov %rbx, %rsi; mov $0x80, %edx; outsb");
SNIPPET(ins64, 64, "mov %rbx, %rdi; mov $0x80, %edx; insb");
SNIPPET(device_to64, 64, "mov %rbx, %rdi; mov $0xfec00000, %esi; movsl");
SNIPPET(device_from64, 64, "mov %rbx, %rsi; mov $0xfec00000, %edi; movsl");

struct setting {
    enum lab_mode mode;
    bool user_page, writable, wp, on;
    unsigned key, rights; /* AD and WD of that key */
};

static uint32_t read_pkru(void)
{
    uint32_t v, zero;
    __asm__ volatile("rdpkru" : "=a"(v), "=d"(zero) : "c"(0));
    return v;
}

static void write_pkru(uint32_t v)
{
    __asm__ volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory");
}

/* The error code of the page fault, or DONE. */
static uint32_t expected(const struct setting *s, enum access access)
{
    bool user = lab_is_user(s->mode), keys = s->on && lab_is_long(s->mode);
    uint32_t error = ERROR_P | (access == WRITE ? ERROR_W : 0) | (user ? ERROR_U : 0);
    bool by_key = keys && s->user_page && access != FETCH &&
                  (s->rights & AD || (s->rights & WD && access == WRITE && (user || s->wp)));
    bool by_entry = (user && !s->user_page) || (access == WRITE && !s->writable && (user || s->wp));
    if (!by_key && !by_entry)
        return DONE;
    return error | (by_key ? ERROR_PK : 0) | (access == FETCH ? ERROR_I : 0);
}

static void map(const struct setting *s, bool large)
{
    uint64_t bits = ENTRY_P | (s->writable ? ENTRY_RW : 0) | (s->user_page ? ENTRY_US : 0) |
                    (uint64_t)s->key << KEY_SHIFT;
    page_pds[0][SLOT] =
        large ? FREE_LARGE | bits | ENTRY_PS : (uintptr_t)pages_table | ENTRY_P | ENTRY_RW | ENTRY_US;
    pages_table[0] = (uintptr_t)pages_target | bits;
    write_cr3(read_cr3());
}

static void one(const struct setting *s, bool large)
{
    map(s, large);
    for (unsigned access = READ; access <= FETCH; access++) {
        uint32_t found = pages_attempt(s->mode, access, 0), wanted = expected(s, access);
        check(found == wanted,
              "%s: %s, key %u rights %u, user page %u writable %u wp %u pke %u: error %x, expected %x",
              lab_mode_names[s->mode], access_names[access], (uint64_t)s->key, (uint64_t)s->rights,
              (uint64_t)s->user_page, (uint64_t)s->writable, (uint64_t)s->wp, (uint64_t)s->on,
              (uint64_t)found, (uint64_t)wanted);
    }
}

/* All pages, rights and modes. The key of everything else is 0, to which nothing is denied. */
static void rights(bool on)
{
    static const enum lab_mode modes[] = {MODE_LONG, MODE_LONG_USER, MODE_COMPAT, MODE_COMPAT_USER};
    static const unsigned keys[] = {1, KEY, 15};
    uint64_t cr0 = read_cr0();
    for (unsigned m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
        for (unsigned bits = 0; bits < 32; bits++) {
            for (unsigned k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
                struct setting s = {modes[m], bits & 1, bits & 2, bits & 4, on, keys[k], bits >> 3};
                write_cr0(s.wp ? cr0 | CR0_WP : cr0 & ~CR0_WP);
                if (on)
                    write_pkru(s.rights << 2 * s.key);
                one(&s, false);
                one(&s, true);
            }
        }
    }
    write_cr0(cr0);
}

/* What is denied to one key is denied to no other. */
static void neighbours(void)
{
    for (unsigned key = 1; key < 16; key++) {
        const struct setting s = {MODE_LONG_USER, true, true, true, true, key, 0};
        write_pkru(~(3u << 2 * key) & ~3u);
        one(&s, false);
        const struct setting other = {MODE_LONG_USER, true, true, true, true, key, AD | WD};
        write_pkru(3u << 2 * key);
        one(&other, false);
    }
}

/* RDPKRU and WRPKRU (SDM volume 2): #UD without CR4.PKE, #GP(0) where ECX is not 0, or EDX of WRPKRU; any
 * CPL. */
static void instructions(bool on)
{
    static const enum lab_mode modes[] = {MODE_LONG, MODE_LONG_USER, MODE_COMPAT_USER, MODE_PROTECTED_USER,
                                          MODE_PAE};
    lab_more_cr4 = on ? CR4_PKE : 0;
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        for (unsigned wrong = 0; wrong < 4; wrong++) {
            lab_clear();
            lab.gpr[1] = wrong & 1;
            lab.gpr[2] = wrong & 2;
            if (on)
                write_pkru(0x55540);
            unsigned vector = RUN(modes[i], rdpkru);
            check(vector == (!on         ? VECTOR_UD
                             : wrong & 1 ? VECTOR_GP
                                         : VECTOR_BP),
                  "%s: RDPKRU: vector %u", lab_mode_names[modes[i]], (uint64_t)vector);
            check(vector != VECTOR_BP || (lab.gpr[0] == 0x55540 && lab.gpr[2] == 0), "RDPKRU: %x, %x",
                  lab.gpr[0], lab.gpr[2]);
            lab_clear();
            lab.gpr[0] = 0xfff0;
            lab.gpr[1] = wrong & 1;
            lab.gpr[2] = wrong & 2;
            vector = RUN(modes[i], wrpkru);
            check(vector == (!on     ? VECTOR_UD
                             : wrong ? VECTOR_GP
                                     : VECTOR_BP),
                  "%s: WRPKRU: vector %u", lab_mode_names[modes[i]], (uint64_t)vector);
            check(!on || read_pkru() == (wrong ? 0x55540 : 0xfff0), "WRPKRU: PKRU is %x",
                  (uint64_t)(on ? read_pkru() : 0));
        }
    }
    lab_more_cr4 = 0;
    uint32_t r[4];
    cpuid(7, 0, r);
    check((r[2] >> OSPKE & 1) == on, "OSPKE in CPUID");
}

/* Accesses of other kinds: the stack's, one after an exit, and those that Bulkhead does for the guest. */
static void other_accesses(void)
{
    static const struct {
        const char *name;
        const uint8_t *code, *end;
        bool write;
    } rows[] = {
        {"PUSH", push64, push64_end, true},
        {"a read after CPUID", cpuid64, cpuid64_end, false},
        {"OUTS", outs64, outs64_end, false},
        {"INS", ins64, ins64_end, true},
        {"MOVS from a device", device_to64, device_to64_end, true},
        {"MOVS to a device", device_from64, device_from64_end, false},
    };
    uint64_t cr0 = read_cr0();
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned bits = 0; bits < 16; bits++) {
            struct setting s = {MODE_LONG, bits & 1, true, bits & 2, true, KEY, bits >> 2};
            map(&s, false);
            write_cr0(s.wp ? cr0 | CR0_WP : cr0 & ~CR0_WP);
            write_pkru(s.rights << 2 * KEY);
            uint32_t wanted = expected(&s, rows[i].write ? WRITE : READ),
                     found = pages_run(MODE_LONG, rows[i].code, (size_t)(rows[i].end - rows[i].code), 0);
            check(found == wanted, "%s: rights %u, user page %u, wp %u: error %x, expected %x", rows[i].name,
                  (uint64_t)s.rights, (uint64_t)s.user_page, (uint64_t)s.wp, (uint64_t)found,
                  (uint64_t)wanted);
        }
    }
    write_cr0(cr0);
}

/* A change of PKRU counts at once, also for what the TLB has, and lasts. */
static void at_once(void)
{
    const struct setting s = {MODE_LONG, true, true, true, true, KEY, 0};
    map(&s, false);
    volatile uint8_t *p = (volatile uint8_t *)LINEAR;
    for (unsigned i = 0; i < 8; i++) {
        write_pkru(0);
        *p = (uint8_t)i; /* now the TLB has it */
        write_pkru((i & 1 ? WD : AD) << 2 * KEY);
        check_equal(pages_attempt(MODE_LONG, i & 1 ? WRITE : READ, 0),
                    ERROR_P | ERROR_PK | (i & 1 ? ERROR_W : 0), "right after WRPKRU");
        sleep_ms(1); /* exits of many kinds */
        check_equal(read_pkru(), (i & 1 ? WD : AD) << 2 * KEY, "PKRU after exits");
    }
    write_pkru(0);
}

static void do_xsave(uint64_t components)
{
    __asm__ volatile("xsave64 (%0)" ::"r"(area), "a"((uint32_t)components), "d"(0) : "memory");
}

static void do_xrstor(uint64_t components)
{
    __asm__ volatile("xrstor64 (%0)" ::"r"(area), "a"((uint32_t)components), "d"(0) : "memory");
}

/* PKRU is component 9 of the extended state (SDM volume 1, section 13.5.7). */
static void extended_state(void)
{
    uint32_t r[4];
    cpuid(0xd, 0, r);
    check(r[0] >> 9 & 1, "XCR0 may have PKRU");
    cpuid(0xd, 9, r);
    check(r[0] == 8 && r[1] >= 576, "PKRU's component: %u bytes at %u", (uint64_t)r[0], (uint64_t)r[1]);
    uint32_t offset = r[1];
    uint64_t cr4 = read_cr4();
    write_cr4(cr4 | CR4_OSXSAVE);
    __asm__ volatile("xsetbv" ::"a"((uint32_t)(XCR0_PKRU | 1)), "d"(0), "c"(0));
    write_pkru(0x3c0);
    do_xsave(XCR0_PKRU);
    check_equal(*(uint32_t *)(area + offset), 0x3c0, "XSAVE has PKRU");
    check_equal(*(uint64_t *)(area + 512), XCR0_PKRU, "and says so");
    write_pkru(0);
    do_xrstor(XCR0_PKRU);
    check_equal(read_pkru(), 0x3c0, "XRSTOR loads PKRU");
    *(uint64_t *)(area + 512) = 0;
    do_xrstor(XCR0_PKRU);
    check_equal(read_pkru(), 0, "or its initial value");
    __asm__ volatile("xsetbv" ::"a"(1), "d"(0), "c"(0));
    write_cr4(cr4);
}

void rule_pku(void)
{
    uint64_t before = page_pds[0][SLOT], cr4 = read_cr4();
    check(!(cr4 & CR4_PKE), "CR4.PKE is 0 at first");
    instructions(false);
    if (!cpu_has(7, 0, 2, 3)) {
        skipped("PKU");
        return;
    }
    rights(false);
    write_cr4(cr4 | CR4_PKE);
    check_equal(read_pkru(), 0, "PKRU at first");
    instructions(true);
    rights(true);
    neighbours();
    other_accesses();
    at_once();
    extended_state();
    write_pkru(0);
    write_cr4(cr4);
    page_pds[0][SLOT] = before;
    write_cr3(read_cr3());
}
