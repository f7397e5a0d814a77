/* CR0, CR4, EFER and XCR0: every bit alone, every pair, in 64-bit and in legacy modes; CR3, CR8; LMSW and
 * CLTS. */
#include "hostile.h"

#define EFER_BITS 64u

static uint64_t accepted, refused;

struct cr_write {
    unsigned which;
    uint64_t value;
};

static void write_register(void *argument)
{
    const struct cr_write *w = argument;
    switch (w->which) {
    case 0:
        write_cr0(w->value);
        break;
    case 4:
        write_cr4(w->value);
        break;
    case 8:
        write_cr8(w->value);
        break;
    default:
        wrmsr(MSR_EFER, w->value);
    }
}

static void try_write(unsigned which, uint64_t value, uint64_t restore)
{
    struct cr_write w = {which, value}, back = {which, restore};
    if (guarded(write_register, &w) == NO_FAULT) {
        accepted++;
        guarded(write_register, &back);
    } else {
        refused++;
    }
}

/* Bits that this code cannot lose while it stands on them. */
static bool is_floor(unsigned which, unsigned bit)
{
    return (which == 0 && (bit == 31 || bit == 0)) || (which == 4 && (bit == 5 || bit == 12 || bit == 17)) ||
           (which == 0xe && (bit == 8 || bit == 11));
}

static void sweep(unsigned which, uint64_t now)
{
    for (unsigned a = 0; a < 64; a++) {
        for (unsigned b = a; b < 64; b++) {
            if (is_floor(which, a) || is_floor(which, b))
                continue;
            uint64_t bits = 1ull << a | 1ull << b;
            /* SMEP and SMAP would fault on our own user pages. */
            if (which == 4 && (bits & (1ull << 20 | 1ull << 21 | 1ull << 22 | 1ull << 23 | 1ull << 24)))
                continue;
            try_write(which, now ^ bits, now);
        }
    }
}

/* The same in the legacy modes, where the lab survives what the code leaves behind. */
static void legacy(void)
{
    static const enum lab_mode in[] = {MODE_REAL,  MODE_PROTECTED, MODE_PROTECTED16,
                                       MODE_PAGED, MODE_PAE,       MODE_COMPAT};
    for (unsigned m = 0; m < sizeof(in) / sizeof(in[0]); m++) {
        for (unsigned which = 0; which <= 4; which += 4) {
            for (unsigned bit = 0; bit < 32; bit++) {
                /* mov eax, crN; xor eax, edx; mov crN, eax; mov eax, crN; xor eax, edx; mov crN, eax */
                const uint8_t reg = (uint8_t)(0xc0 | which << 3);
                const uint8_t code16[] = {0x0f, 0x20, reg, 0x66, 0x31, 0xd0, 0x0f, 0x22, reg,
                                          0x0f, 0x20, reg, 0x66, 0x31, 0xd0, 0x0f, 0x22, reg};
                const uint8_t code32[] = {0x0f, 0x20, reg, 0x31, 0xd0, 0x0f, 0x22, reg,
                                          0x0f, 0x20, reg, 0x31, 0xd0, 0x0f, 0x22, reg};
                bool small = in[m] == MODE_REAL || in[m] == MODE_PROTECTED16;
                bool paged = in[m] == MODE_PAGED || in[m] == MODE_PAE || in[m] == MODE_COMPAT;
                if (which == 0 && (bit == 0 || bit == 31))
                    continue; /* the way on from there is another piece of code */
                if (which == 4 && paged && (bit == 4 || bit == 5 || bit >= 20))
                    continue;
                lab_clear();
                lab.gpr[2] = 1u << bit;
                unsigned vector = small ? lab_execute(in[m], code16, sizeof(code16))
                                        : lab_execute(in[m], code32, sizeof(code32));
                vector == VECTOR_BP ? accepted++ : refused++;
            }
        }
    }
}

static void words(void)
{
    for (unsigned i = 0; i < 0x10000; i += 7) {
        uint8_t lmsw[] = {0x0f, 0x01, 0xf0, 0x0f, 0x06}; /* LMSW EAX; CLTS */
        lab_clear();
        lab.gpr[0] = i | 1;
        lab_execute(MODE_LONG, lmsw, sizeof(lmsw)) == VECTOR_BP ? accepted++ : refused++;
    }
}

void program_control(unsigned step)
{
    (void)step;
    uint64_t cr0 = read_cr0(), cr4 = read_cr4(), efer = rdmsr(MSR_EFER);
    sweep(0, cr0);
    sweep(4, cr4);
    sweep(0xe, efer);
    for (unsigned i = 0; i < 64; i++)
        try_write(8, 1ull << i, 0);
    legacy();
    words();
    bool same = read_cr0() == cr0 && read_cr4() == cr4 && rdmsr(MSR_EFER) == efer;
    verdict("control", same && refused > 0 && accepted > 0, "%u values accepted, %u refused", accepted,
            refused);
}

struct xsetbv {
    uint32_t index;
    uint64_t value;
};

static void set_xcr(void *argument)
{
    const struct xsetbv *x = argument;
    __asm__ volatile("xsetbv" ::"c"(x->index), "a"((uint32_t)x->value), "d"((uint32_t)(x->value >> 32)));
}

static void get_xcr(void *argument)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(*(uint32_t *)argument));
}

void program_xcr0(unsigned step)
{
    (void)step;
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 26)) {
        verdict("xcr0", true, "there is no XSAVE");
        return;
    }
    accepted = refused = 0;
    write_cr4(read_cr4() | CR4_OSXSAVE);
    struct xsetbv x = {0, 0};
    for (uint64_t low = 0; low < 0x400; low++) {
        x.value = low;
        guarded(set_xcr, &x) == NO_FAULT ? accepted++ : refused++;
    }
    for (unsigned bit = 8; bit < 64; bit++) {
        x.value = 1ull << bit | 1;
        guarded(set_xcr, &x) == NO_FAULT ? accepted++ : refused++;
    }
    for (uint32_t index = 1; index; index <<= 1) {
        x = (struct xsetbv){index, 1};
        guarded(set_xcr, &x) == NO_FAULT ? accepted++ : refused++;
        guarded(get_xcr, &index);
    }
    static const uint8_t code[] = {0x0f, 0x01, 0xd1};
    for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
        lab_clear();
        lab.gpr[0] = 3;
        lab_execute(mode, code, sizeof(code)) == VECTOR_BP ? accepted++ : refused++;
    }
    x = (struct xsetbv){0, 3};
    bool good = guarded(set_xcr, &x) == NO_FAULT;
    verdict("xcr0", good && refused > 900, "%u values accepted, %u refused", accepted, refused);
}
