/* Model-specific registers: what can be read and written, and what is refused with #GP(0): SDM volume 4 and,
 * for WRMSR, volume 2: reserved bits, addresses that are not canonical, memory types that do not exist. */
#include "rules.h"

#define NONCANONICAL 0x0000800000000000ull
#define CANONICAL    0xffff800012345678ull
#define EFER_SCE     1ull
#define EFER_LME     (1ull << 8)
#define EFER_NXE     (1ull << 11)

static void addresses(void)
{
    static const struct {
        uint32_t msr;
        const char *name;
    } rows[] = {{0x175, "SYSENTER_ESP"},       {0x176, "SYSENTER_EIP"}, {0xc0000082, "LSTAR"},
                {0xc0000083, "CSTAR"},         {0xc0000100, "FS_BASE"}, {0xc0000101, "GS_BASE"},
                {0xc0000102, "KERNEL_GS_BASE"}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t before = rdmsr(rows[i].msr), v;
        check(try_wrmsr(rows[i].msr, NONCANONICAL) == VECTOR_GP, "%s: an address that is not canonical",
              rows[i].name);
        check(try_wrmsr(rows[i].msr, ~NONCANONICAL) == VECTOR_GP, "%s: its complement", rows[i].name);
        check(rdmsr(rows[i].msr) == before, "%s: a refused write changes nothing", rows[i].name);
        check(try_wrmsr(rows[i].msr, CANONICAL) == NO_FAULT && try_rdmsr(rows[i].msr, &v) == NO_FAULT &&
                  v == CANONICAL,
              "%s: an address", rows[i].name);
        wrmsr(rows[i].msr, before);
    }
}

static void efer(void)
{
    uint64_t now = rdmsr(MSR_EFER);
    for (unsigned bit = 0; bit < 64; bit++) {
        bool known = bit == 0 || bit == 8 || bit == 10 || bit == 11;
        if (known)
            continue;
        check(try_wrmsr(MSR_EFER, now | 1ull << bit) == VECTOR_GP, "EFER: bit %u is reserved", (uint64_t)bit);
    }
    check(try_wrmsr(MSR_EFER, now & ~EFER_LME) == VECTOR_GP, "EFER.LME is not changed while there is paging");
    check(try_wrmsr(MSR_EFER, now ^ EFER_SCE) == NO_FAULT, "EFER.SCE is changed");
    check_equal(rdmsr(MSR_EFER), now ^ EFER_SCE, "EFER");
    wrmsr(MSR_EFER, now & ~(1ull << 10));
    check_equal(rdmsr(MSR_EFER), now, "EFER.LMA is read-only");
}

/* Memory types: 0, 1, 4, 5, 6, and in the PAT also 7. */
static bool is_type(unsigned v, bool pat)
{
    return v == 0 || v == 1 || v == 4 || v == 5 || v == 6 || (pat && v == 7);
}

static void memory_types(void)
{
    uint64_t pat = rdmsr(0x277), fixed = rdmsr(0x250), def = rdmsr(0x2ff), cap = rdmsr(0xfe),
             base0 = rdmsr(0x200), mask0 = rdmsr(0x201);
    for (unsigned v = 0; v < 256; v++) {
        for (unsigned at = 0; at < 64; at += 24) {
            uint64_t with = (pat & ~(0xffull << at)) | (uint64_t)v << at;
            check((try_wrmsr(0x277, with) == NO_FAULT) == is_type(v, true), "PAT: type %u at bit %u",
                  (uint64_t)v, (uint64_t)at);
            wrmsr(0x277, pat);
            with = (fixed & ~(0xffull << at)) | (uint64_t)v << at;
            check((try_wrmsr(0x250, with) == NO_FAULT) == is_type(v, false), "fixed range: type %u at bit %u",
                  (uint64_t)v, (uint64_t)at);
            wrmsr(0x250, fixed);
        }
        check((try_wrmsr(0x2ff, (def & ~0xffull) | v) == NO_FAULT) == is_type(v, false), "default type %u",
              (uint64_t)v);
        wrmsr(0x2ff, def);
        check((try_wrmsr(0x200, (base0 & ~0xffull) | v) == NO_FAULT) == is_type(v, false),
              "variable range: type %u", (uint64_t)v);
        wrmsr(0x200, base0);
    }
    check(try_wrmsr(0x2ff, def | 1ull << 8) == VECTOR_GP, "default type: bit 8 is reserved");
    check(try_wrmsr(0x200, base0 | 1ull << 8) == VECTOR_GP, "variable range, base: bit 8 is reserved");
    check(try_wrmsr(0x201, mask0 | 1) == VECTOR_GP, "variable range, mask: bit 0 is reserved");
    check(try_wrmsr(0x200, 1ull << physical_bits) == VECTOR_GP, "variable range: beyond the address width");
    check(try_wrmsr(0xfe, cap) == VECTOR_GP, "MTRRCAP is read-only");
    uint64_t v;
    unsigned ranges = cap & 0xff;
    check(try_rdmsr(0x200 + 2 * ranges - 1, &v) == NO_FAULT, "the last variable range");
    check(try_rdmsr(0x200 + 2 * ranges, &v) == VECTOR_GP, "none behind it");
}

static void unknown(void)
{
    static const uint32_t rows[] = {0x3,        0x9f,       0x1fff,     0x2000,     0x12345,
                                    0x40000000, 0x7fffffff, 0xbfffffff, 0xc0001fff, 0xc0002000,
                                    0xc0010015, 0xdeadbeef, 0xffffffff, 0x480,      0x48b};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t v;
        check(try_rdmsr(rows[i], &v) == VECTOR_GP && this_cpu()->fault.error == 0, "MSR %x: a read",
              (uint64_t)rows[i]);
        check(try_wrmsr(rows[i], 0) == VECTOR_GP && this_cpu()->fault.error == 0, "MSR %x: a write",
              (uint64_t)rows[i]);
    }
}

SNIPPET(clears, 64, "mov $-1, %rax; mov $-1, %rdx; mov $0xffffffff0000001b, %rcx; rdmsr");
SNIPPET(gs_base, 64, "swapgs; swapgs");
SNIPPET(in_real, 16, "mov $0x1b, %ecx; rdmsr");

/* RDMSR looks at ECX alone, and clears the upper halves of RAX and RDX. */
static void widths(void)
{
    lab_clear();
    check_equal(RUN(MODE_LONG, clears), VECTOR_BP, "RDMSR with a full RCX");
    check(lab.gpr[0] >> 32 == 0 && lab.gpr[2] >> 32 == 0, "RDMSR clears the upper halves: %x %x", lab.gpr[0],
          lab.gpr[2]);
    check_equal(lab.gpr[0] | lab.gpr[2] << 32, rdmsr(MSR_APIC_BASE), "RDMSR of APIC_BASE");
    lab_clear();
    check_equal(RUN(MODE_REAL, in_real), VECTOR_BP, "RDMSR in real mode");
    lab_clear();
    check_equal(RUN(MODE_LONG, gs_base), VECTOR_BP, "SWAPGS");
    wrmsr(0xc0000101, 0x1111);
    wrmsr(0xc0000102, 0x2222);
    __asm__ volatile("swapgs" ::: "memory");
    check(rdmsr(0xc0000101) == 0x2222 && rdmsr(0xc0000102) == 0x1111, "SWAPGS exchanges both");
    wrmsr(0xc0000101, 0);
    wrmsr(0xc0000102, 0);
}

void rule_msr(void)
{
    addresses();
    efer();
    memory_types();
    unknown();
    widths();
}
