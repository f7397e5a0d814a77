#include "hv/policy/cpuid_policy.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/lib/string.h"

/* ---- what the host has ---- */

/* The leaves the policy looks at; subleaves 0 .. subleaves-1. */
static const struct {
    uint32_t leaf;
    uint8_t subleaves;
} wanted[] = {
    {0x0, 1},        {0x1, 1},
    {0x2, 1},        {0x4, CPUID_CACHES},
    {0x7, 3},        {0xd, XSTATE_COMPONENTS},
    {0x80000000, 1}, {0x80000001, 1},
    {0x80000002, 1}, {0x80000003, 1},
    {0x80000004, 1}, {0x80000006, 1},
    {0x80000007, 1}, {0x80000008, 1},
};

void cpuid_host_capture(struct cpuid_host *out,
                        void (*cpuid)(uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out))
{
    memset(out, 0, sizeof(*out));
    struct cpuid_regs r;
    cpuid(0, 0, &r);
    uint32_t max_basic = r.eax;
    cpuid(CPUID_EXT_BASE, 0, &r);
    uint32_t max_ext = r.eax;
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        uint32_t leaf = wanted[i].leaf;
        if (leaf > (leaf >= CPUID_EXT_BASE ? max_ext : max_basic))
            continue;
        for (uint32_t sub = 0; sub < wanted[i].subleaves && out->count < CPUID_HOST_MAX; sub++) {
            cpuid(leaf, sub, &r);
            out->leaves[out->count++] = (struct cpuid_leaf){leaf, sub, r.eax, r.ebx, r.ecx, r.edx};
        }
    }
}

struct cpuid_regs cpuid_host_get(const struct cpuid_host *host, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < host->count && i < CPUID_HOST_MAX; i++) {
        const struct cpuid_leaf *l = &host->leaves[i];
        if (l->leaf == leaf && l->subleaf == subleaf)
            return (struct cpuid_regs){l->eax, l->ebx, l->ecx, l->edx};
    }
    return (struct cpuid_regs){0, 0, 0, 0};
}

void cpuid_host_xstate(const struct cpuid_host *host, struct xstate_layout *layout, uint64_t *xcr0)
{
    memset(layout, 0, sizeof(*layout));
    *xcr0 = 0;
    if (!(cpuid_host_get(host, 1, 0).ecx & CPUID_01_ECX_XSAVE))
        return;
    struct cpuid_regs main = cpuid_host_get(host, 0xd, 0);
    *xcr0 = (uint64_t)main.edx << 32 | main.eax;
    for (uint32_t i = 2; i < XSTATE_COMPONENTS; i++) {
        struct cpuid_regs r = cpuid_host_get(host, 0xd, i);
        layout->size[i] = r.eax;
        layout->offset[i] = r.ebx;
        layout->align64[i] = r.ecx & 2;
    }
}

/* ---- features: default deny ---- */

enum cpuid_reg { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

/* What a guest may see of one register of feature bits (SDM volume 2, "CPUID - CPU identification"). Bits in
 * neither `host` nor `always` are not shown. */
struct rule {
    uint32_t leaf;
    uint8_t subleaf, reg;
    uint32_t host;   /* shown when the host has them: no state, or state that is switched */
    uint32_t always; /* emulated by us, whatever the host has */
    uint32_t avx;    /* of `host`: meaningless without AVX state */
    uint32_t avx512; /* of `host`: meaningless without AVX-512 state */
};

/* Bits of `host` that arch/x86/cpu.h does not name. */
#define F07_EDX_AVX512_4VNNIW  (1u << 2)
#define F07_EDX_AVX512_4FMAPS  (1u << 3)
#define F71_EAX_SHA512         (1u << 0)
#define F71_EAX_SM3            (1u << 1)
#define F71_EAX_SM4            (1u << 2)
#define F71_EAX_AVX_VNNI       (1u << 4)
#define F71_EAX_AVX512_BF16    (1u << 5)
#define F71_EAX_CMPCCXADD      (1u << 7)
#define F71_EAX_FZRM           (1u << 10)
#define F71_EAX_FSRS           (1u << 11)
#define F71_EAX_FSRCS          (1u << 12)
#define F71_EAX_AVX_IFMA       (1u << 23)
#define F71_EDX_AVX_VNNI_INT8  (1u << 4)
#define F71_EDX_AVX_NE_CONV    (1u << 5)
#define F71_EDX_AVX_VNNI_I16   (1u << 10)
#define F71_EDX_PREFETCHI      (1u << 14)
#define F72_EDX_PSFD           (1u << 0)
#define F72_EDX_IPRED_CTRL     (1u << 1)
#define F72_EDX_RRSBA_CTRL     (1u << 2)
#define F72_EDX_DDPD_U         (1u << 3)
#define F72_EDX_BHI_CTRL       (1u << 4)
#define F72_EDX_MCDT_NO        (1u << 5)
#define F80000008_EBX_WBNOINVD (1u << 9)

#define AVX512_EBX                                                                                           \
    (CPUID_07_EBX_AVX512F | CPUID_07_EBX_AVX512DQ | CPUID_07_EBX_AVX512IFMA | CPUID_07_EBX_AVX512PF |        \
     CPUID_07_EBX_AVX512ER | CPUID_07_EBX_AVX512CD | CPUID_07_EBX_AVX512BW | CPUID_07_EBX_AVX512VL)
#define AVX512_ECX                                                                                           \
    (CPUID_07_ECX_AVX512VBMI | CPUID_07_ECX_AVX512VBMI2 | CPUID_07_ECX_AVX512VNNI |                          \
     CPUID_07_ECX_AVX512BITALG | CPUID_07_ECX_AVX512VPOPCNT)
#define AVX512_EDX                                                                                           \
    (F07_EDX_AVX512_4VNNIW | F07_EDX_AVX512_4FMAPS | CPUID_07_EDX_VP2INTERSECT | CPUID_07_EDX_AVX512FP16)
#define AVX_71_EAX (F71_EAX_SHA512 | F71_EAX_SM3 | F71_EAX_SM4 | F71_EAX_AVX_VNNI | F71_EAX_AVX_IFMA)
#define AVX_71_EDX (F71_EDX_AVX_VNNI_INT8 | F71_EDX_AVX_NE_CONV | F71_EDX_AVX_VNNI_I16)
#define SPEC_EDX   (CPUID_07_EDX_IBRS_IBPB | CPUID_07_EDX_STIBP | CPUID_07_EDX_L1D_FLUSH | CPUID_07_EDX_SSBD)
#define SPEC_72_EDX                                                                                          \
    (F72_EDX_PSFD | F72_EDX_IPRED_CTRL | F72_EDX_RRSBA_CTRL | F72_EDX_DDPD_U | F72_EDX_BHI_CTRL)

static const struct rule rules[] = {
    /* Not DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, SDBG, xTPR, PDCM, DCA. */
    {.leaf = 1,
     .reg = REG_ECX,
     .host = CPUID_01_ECX_SSE3 | CPUID_01_ECX_PCLMULQDQ | CPUID_01_ECX_SSSE3 | CPUID_01_ECX_FMA |
             CPUID_01_ECX_CMPXCHG16B | CPUID_01_ECX_PCID | CPUID_01_ECX_SSE4_1 | CPUID_01_ECX_SSE4_2 |
             CPUID_01_ECX_MOVBE | CPUID_01_ECX_POPCNT | CPUID_01_ECX_AES | CPUID_01_ECX_XSAVE |
             CPUID_01_ECX_AVX | CPUID_01_ECX_F16C | CPUID_01_ECX_RDRAND,
     .always = CPUID_01_ECX_X2APIC | CPUID_01_ECX_TSC_DEADLINE | CPUID_01_ECX_HYPERVISOR,
     .avx = CPUID_01_ECX_AVX | CPUID_01_ECX_FMA | CPUID_01_ECX_F16C},
    /* Not PSN, DS, ACPI, TM, PBE. Machine check is there, with no banks to report. HTT depends on the vCPU
       count. */
    {.leaf = 1,
     .reg = REG_EDX,
     .host = CPUID_01_EDX_FPU | CPUID_01_EDX_VME | CPUID_01_EDX_DE | CPUID_01_EDX_PSE | CPUID_01_EDX_TSC |
             CPUID_01_EDX_MSR | CPUID_01_EDX_PAE | CPUID_01_EDX_CX8 | CPUID_01_EDX_SEP | CPUID_01_EDX_PGE |
             CPUID_01_EDX_CMOV | CPUID_01_EDX_PAT | CPUID_01_EDX_PSE36 | CPUID_01_EDX_CLFSH |
             CPUID_01_EDX_MMX | CPUID_01_EDX_FXSR | CPUID_01_EDX_SSE | CPUID_01_EDX_SSE2 | CPUID_01_EDX_SS,
     .always = CPUID_01_EDX_APIC | CPUID_01_EDX_MTRR | CPUID_01_EDX_MCE | CPUID_01_EDX_MCA},
    /* The APIC timer never stops. No turbo, HWP, digital sensor, APERF/MPERF, energy bias. */
    {.leaf = 6, .reg = REG_EAX, .always = CPUID_06_EAX_ARAT},
    /* Not SGX, HLE, RTM, PQM, MPX, PQE, PT. */
    {.leaf = 7,
     .reg = REG_EBX,
     .host = CPUID_07_EBX_FSGSBASE | CPUID_07_EBX_BMI1 | CPUID_07_EBX_AVX2 | CPUID_07_EBX_FDP_EXCPTN |
             CPUID_07_EBX_SMEP | CPUID_07_EBX_BMI2 | CPUID_07_EBX_ERMS | CPUID_07_EBX_INVPCID |
             CPUID_07_EBX_NO_FPU_SEL | CPUID_07_EBX_RDSEED | CPUID_07_EBX_ADX | CPUID_07_EBX_SMAP |
             CPUID_07_EBX_CLFLUSHOPT | CPUID_07_EBX_CLWB | CPUID_07_EBX_SHA | AVX512_EBX,
     .always = CPUID_07_EBX_TSC_ADJUST,
     .avx = CPUID_07_EBX_AVX2,
     .avx512 = AVX512_EBX},
    /* Not WAITPKG, CET, TME, LA57, KL, bus-lock detection, ENQCMD, SGX_LC, PKS. */
    {.leaf = 7,
     .reg = REG_ECX,
     .host = CPUID_07_ECX_PREFETCHWT1 | CPUID_07_ECX_UMIP | CPUID_07_ECX_PKU | CPUID_07_ECX_GFNI |
             CPUID_07_ECX_VAES | CPUID_07_ECX_VPCLMULQDQ | CPUID_07_ECX_RDPID | CPUID_07_ECX_CLDEMOTE |
             CPUID_07_ECX_MOVDIRI | CPUID_07_ECX_MOVDIR64B | AVX512_ECX,
     .avx = CPUID_07_ECX_VAES | CPUID_07_ECX_VPCLMULQDQ,
     .avx512 = AVX512_ECX},
    /* Not UINTR, SRBDS_CTRL, the TSX bits, HYBRID, PCONFIG, architectural LBRs, CET_IBT, AMX,
       CORE_CAPABILITIES. */
    {.leaf = 7,
     .reg = REG_EDX,
     .host = CPUID_07_EDX_FSRM | CPUID_07_EDX_MD_CLEAR | CPUID_07_EDX_SERIALIZE | CPUID_07_EDX_ARCH_CAP |
             SPEC_EDX | AVX512_EDX,
     .avx512 = AVX512_EDX},
    /* Not RAO-INT, FRED, LKGS, WRMSRNS, AMX-FP16, HRESET, LAM. */
    {.leaf = 7,
     .subleaf = 1,
     .reg = REG_EAX,
     .host =
         F71_EAX_CMPCCXADD | F71_EAX_FZRM | F71_EAX_FSRS | F71_EAX_FSRCS | F71_EAX_AVX512_BF16 | AVX_71_EAX,
     .avx = AVX_71_EAX,
     .avx512 = F71_EAX_AVX512_BF16},
    {.leaf = 7, .subleaf = 1, .reg = REG_EDX, .host = F71_EDX_PREFETCHI | AVX_71_EDX, .avx = AVX_71_EDX},
    {.leaf = 7, .subleaf = 2, .reg = REG_EDX, .host = F72_EDX_MCDT_NO | SPEC_72_EDX},
    /* XSAVES is decided by build_xsave(). Not XFD. */
    {.leaf = 0xd,
     .subleaf = 1,
     .reg = REG_EAX,
     .host =
         CPUID_0D_1_EAX_XSAVEOPT | CPUID_0D_1_EAX_XSAVEC | CPUID_0D_1_EAX_XGETBV1 | CPUID_0D_1_EAX_XSAVES},
    {.leaf = 0x80000001,
     .reg = REG_ECX,
     .host = CPUID_80000001_ECX_LAHF64 | CPUID_80000001_ECX_LZCNT | CPUID_80000001_ECX_PREFETCHW},
    {.leaf = 0x80000001,
     .reg = REG_EDX,
     .host = CPUID_80000001_EDX_SYSCALL | CPUID_80000001_EDX_NX | CPUID_80000001_EDX_1G |
             CPUID_80000001_EDX_RDTSCP | CPUID_80000001_EDX_LM},
    {.leaf = 0x80000007, .reg = REG_EDX, .host = CPUID_80000007_EDX_INVARIANT_TSC},
    {.leaf = 0x80000008, .reg = REG_EBX, .host = F80000008_EBX_WBNOINVD},
};

/* Where the table keeps a (leaf, subleaf) that has a rule. */
static struct cpuid_regs *slot(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    if (leaf == 7)
        return &t->features[subleaf];
    if (leaf == 0xd)
        return &t->xsave1;
    if (leaf < CPUID_BASIC_COUNT)
        return &t->basic[leaf];
    return &t->ext[leaf - CPUID_EXT_BASE];
}

static uint32_t *reg_of(struct cpuid_regs *r, uint8_t reg)
{
    uint32_t *const regs[] = {&r->eax, &r->ebx, &r->ecx, &r->edx};
    return regs[reg];
}

static void apply_rules(const struct cpuid_host *host, uint64_t xcr0, struct cpuid_table *t)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        const struct rule *r = &rules[i];
        struct cpuid_regs have = cpuid_host_get(host, r->leaf, r->subleaf);
        uint32_t shown = *reg_of(&have, r->reg) & r->host;
        if (!(xcr0 & XSTATE_AVX))
            shown &= ~r->avx;
        if (!(xcr0 & XSTATE_OPMASK))
            shown &= ~r->avx512;
        *reg_of(slot(t, r->leaf, r->subleaf), r->reg) = shown | r->always;
    }
}

/* Features that hang on what the core does for this VM. */
static void apply_vm(const struct cpuid_vm *vm, uint64_t xcr0, struct cpuid_table *t)
{
    if (!xcr0)
        t->basic[1].ecx &= ~CPUID_01_ECX_XSAVE;
    if (!(xcr0 & XSTATE_PKRU))
        t->features[0].ecx &= ~CPUID_07_ECX_PKU;
    if (!vm->rdtscp) {
        t->features[0].ecx &= ~CPUID_07_ECX_RDPID;
        t->ext[1].edx &= ~CPUID_80000001_EDX_RDTSCP;
    }
    if (!vm->invpcid)
        t->features[0].ebx &= ~CPUID_07_EBX_INVPCID;
    if (!vm->spec_ctrl) {
        t->features[0].edx &= ~SPEC_EDX;
        t->features[2].edx &= ~SPEC_72_EDX;
    }
    if (vm->vcpu_count > 1)
        t->basic[1].edx |= CPUID_01_EDX_HTT;
    t->features[0].eax = 2; /* highest subleaf */
}

/* ---- topology: one package, every vCPU a core of its own ---- */

/* Smallest n with 2^n >= count. */
static uint32_t id_bits(uint32_t count)
{
    uint32_t n = 0;
    while ((1u << n) < count)
        n++;
    return n;
}

/* Leaf 4 EAX: 31:26 core IDs in the package - 1, 25:14 logical IDs sharing this cache - 1, 13:0 as on the
 * host. */
static void build_caches(const struct cpuid_host *host, uint32_t ids, struct cpuid_table *t)
{
    uint32_t cores = ids > 64 ? 63 : ids - 1;
    for (uint32_t i = 0; i < CPUID_CACHES; i++) {
        struct cpuid_regs r = cpuid_host_get(host, 4, i);
        uint32_t type = r.eax & 0x1f, level = r.eax >> 5 & 7;
        if (type == 0)
            break;
        uint32_t sharing = level >= 3 ? ids - 1 : 0;
        r.eax = (r.eax & 0x3fff) | sharing << 14 | cores << 26;
        t->caches[i] = r;
    }
}

static void build_topology(const struct cpuid_host *host, uint32_t vcpus, struct cpuid_table *t)
{
    uint32_t bits = id_bits(vcpus);
    struct cpuid_regs one = cpuid_host_get(host, 1, 0);
    t->basic[1].eax = one.eax; /* family, model, stepping */
    t->basic[1].ebx = (one.ebx & 0xff00) | (1u << bits) << 16;
    build_caches(host, 1u << bits, t);
    /* Leaves 0xB and 0x1F: EAX shift to the next level, EBX CPUs at this level, ECX 15:8 level type (1
     * thread, 2 core), 7:0 subleaf. */
    t->topology[0] = (struct cpuid_regs){.eax = 0, .ebx = 1, .ecx = 1 << 8};
    t->topology[1] = (struct cpuid_regs){.eax = bits, .ebx = vcpus, .ecx = 2 << 8 | 1};
}

/* ---- time ---- */

/* Leaf 0x15: TSC = crystal * EBX / EAX. Linux computes crystal_khz * EBX / EAX in 32 bits and takes the
 * result as known, so the product may not overflow and the crystal must be whole kHz. Searches the crystal
 * that represents the TSC best; the range is that of real APIC timers. */
#define CRYSTAL_MIN_KHZ 24000u
#define CRYSTAL_MAX_KHZ 50000u

static void build_tsc(uint64_t hz, struct cpuid_table *t)
{
    uint64_t khz = (hz + 500) / 1000;
    uint64_t den = 1024;
    while (den > 1 && khz * den + CRYSTAL_MAX_KHZ > UINT32_MAX)
        den /= 2;
    uint64_t best = UINT64_MAX, best_crystal = CRYSTAL_MIN_KHZ, best_num = 1;
    for (uint64_t crystal = CRYSTAL_MIN_KHZ; crystal <= CRYSTAL_MAX_KHZ && best; crystal++) {
        uint64_t num = (khz * den + crystal / 2) / crystal;
        if (num == 0)
            num = 1;
        uint64_t is = crystal * 1000 * num, want = hz * den;
        uint64_t error = is > want ? is - want : want - is;
        if (crystal * num / den != khz) /* what Linux would compute: a last resort */
            error += hz * den;
        if (error < best) {
            best = error;
            best_crystal = crystal;
            best_num = num;
        }
    }
    t->tsc_hz = hz;
    t->crystal_hz = best_crystal * 1000;
    t->basic[0x15] = (struct cpuid_regs){(uint32_t)den, (uint32_t)best_num, (uint32_t)t->crystal_hz, 0};
    uint32_t mhz = (uint32_t)((hz + 500000) / 1000000) & 0xffff;
    t->basic[0x16] = (struct cpuid_regs){mhz, mhz, 100, 0}; /* base, maximum, bus: MHz */
}

/* ---- the rest ---- */

/* EPT with four levels translates 48 bits: a wider guest-physical address could not be mapped. */
#define MAX_PHYS_BITS 48u
#define LINEAR_BITS   48u /* no LA57 */

static void build_xsave(const struct cpuid_host *host, const struct cpuid_vm *vm, uint64_t xcr0,
                        struct cpuid_table *t)
{
    uint64_t host_xcr0;
    if (!xcr0) {
        t->xsave1 = (struct cpuid_regs){0, 0, 0, 0};
        return;
    }
    if (!vm->xsaves)
        t->xsave1.eax &= ~CPUID_0D_1_EAX_XSAVES;
    cpuid_host_xstate(host, &t->xstate, &host_xcr0);
    for (unsigned i = 0; i < XSTATE_COMPONENTS; i++) {
        if (xcr0 >> i & 1)
            continue;
        t->xstate.size[i] = t->xstate.offset[i] = 0;
        t->xstate.align64[i] = false;
    }
    t->basic[0xd] = (struct cpuid_regs){
        .eax = (uint32_t)xcr0, .ecx = xstate_size(&t->xstate, xcr0), .edx = (uint32_t)(xcr0 >> 32)};
}

static void build_identity(const struct cpuid_host *host, struct cpuid_table *t)
{
    t->basic[0] = cpuid_host_get(host, 0, 0); /* vendor */
    t->basic[0].eax = CPUID_BASIC_COUNT - 1;
    t->basic[2] = cpuid_host_get(host, 2, 0); /* cache and TLB descriptors */
    t->ext[0] = (struct cpuid_regs){.eax = CPUID_EXT_BASE + CPUID_EXT_COUNT - 1};
    for (uint32_t i = 2; i <= 4; i++) /* brand string */
        t->ext[i] = cpuid_host_get(host, CPUID_EXT_BASE + i, 0);
    t->ext[6].ecx = cpuid_host_get(host, CPUID_EXT_BASE + 6, 0).ecx; /* L2 cache */
    uint32_t phys = cpuid_host_get(host, CPUID_EXT_BASE + 8, 0).eax & 0xff;
    if (phys == 0)
        phys = 36; /* SDM volume 3, 4.1.4: what a CPU without the leaf has */
    if (phys > MAX_PHYS_BITS)
        phys = MAX_PHYS_BITS;
    t->phys_bits = (uint8_t)phys;
    t->ext[8].eax = phys | LINEAR_BITS << 8;
    t->hyper[0].eax = CPUID_HYPER_BASE + CPUID_HYPER_COUNT - 1;
    memcpy(&t->hyper[0].ebx, CPUID_SIGNATURE, 4);
    memcpy(&t->hyper[0].ecx, &CPUID_SIGNATURE[4], 4);
    memcpy(&t->hyper[0].edx, &CPUID_SIGNATURE[8], 4);
}

/* CR4 bit for feature bit, SDM volume 3, 2.5. */
static uint64_t cr4_bits(const struct cpuid_table *t)
{
    const struct {
        uint32_t have, bit;
        uint64_t cr4;
    } map[] = {
        {t->basic[1].edx, CPUID_01_EDX_VME, CR4_VME | CR4_PVI},
        {t->basic[1].edx, CPUID_01_EDX_TSC, CR4_TSD},
        {t->basic[1].edx, CPUID_01_EDX_DE, CR4_DE},
        {t->basic[1].edx, CPUID_01_EDX_PSE, CR4_PSE},
        {t->basic[1].edx, CPUID_01_EDX_PAE, CR4_PAE},
        {t->basic[1].edx, CPUID_01_EDX_MCE, CR4_MCE},
        {t->basic[1].edx, CPUID_01_EDX_PGE, CR4_PGE},
        {t->basic[1].edx, CPUID_01_EDX_FXSR, CR4_OSFXSR},
        {t->basic[1].edx, CPUID_01_EDX_SSE, CR4_OSXMMEXCPT},
        {t->basic[1].ecx, CPUID_01_ECX_PCID, CR4_PCIDE},
        {t->basic[1].ecx, CPUID_01_ECX_XSAVE, CR4_OSXSAVE},
        {t->features[0].ebx, CPUID_07_EBX_FSGSBASE, CR4_FSGSBASE},
        {t->features[0].ebx, CPUID_07_EBX_SMEP, CR4_SMEP},
        {t->features[0].ebx, CPUID_07_EBX_SMAP, CR4_SMAP},
        {t->features[0].ecx, CPUID_07_ECX_UMIP, CR4_UMIP},
        {t->features[0].ecx, CPUID_07_ECX_PKU, CR4_PKE},
    };
    uint64_t bits = CR4_PCE; /* no feature bit; RDPMC itself is refused */
    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (map[i].have & map[i].bit)
            bits |= map[i].cr4;
    return bits;
}

/* Bits of IA32_SPEC_CTRL (SDM volume 4, table 2-2) that the shown features define. */
static uint64_t spec_ctrl_bits(const struct cpuid_table *t)
{
    const struct {
        uint32_t have, bit;
        uint64_t msr;
    } map[] = {
        {t->features[0].edx, CPUID_07_EDX_IBRS_IBPB, SPEC_CTRL_IBRS | SPEC_CTRL_STIBP},
        {t->features[0].edx, CPUID_07_EDX_STIBP, SPEC_CTRL_STIBP},
        {t->features[0].edx, CPUID_07_EDX_SSBD, SPEC_CTRL_SSBD},
        {t->features[2].edx, F72_EDX_IPRED_CTRL, BIT(3) | BIT(4)},
        {t->features[2].edx, F72_EDX_RRSBA_CTRL, BIT(5) | BIT(6)},
        {t->features[2].edx, F72_EDX_PSFD, BIT(7)},
        {t->features[2].edx, F72_EDX_DDPD_U, BIT(8)},
        {t->features[2].edx, F72_EDX_BHI_CTRL, BIT(10)},
    };
    uint64_t bits = 0;
    for (size_t i = 0; i < ARRAY_SIZE(map); i++)
        if (map[i].have & map[i].bit)
            bits |= map[i].msr;
    return bits;
}

static void build_consequences(struct cpuid_table *t)
{
    uint32_t edx = t->ext[1].edx;
    t->cr4_allowed = cr4_bits(t);
    t->efer_allowed = (edx & CPUID_80000001_EDX_SYSCALL ? EFER_SCE : 0) |
                      (edx & CPUID_80000001_EDX_LM ? EFER_LME | EFER_LMA : 0) |
                      (edx & CPUID_80000001_EDX_NX ? EFER_NXE : 0);
    t->spec_ctrl_allowed = spec_ctrl_bits(t);
    t->has_pred_cmd = t->features[0].edx & CPUID_07_EDX_IBRS_IBPB;
    t->has_flush_cmd = t->features[0].edx & CPUID_07_EDX_L1D_FLUSH;
    t->has_arch_capabilities = t->features[0].edx & CPUID_07_EDX_ARCH_CAP;
    t->has_rdtscp = edx & CPUID_80000001_EDX_RDTSCP;
    t->has_xsaves = t->xsave1.eax & CPUID_0D_1_EAX_XSAVES;
}

enum leaf_kind { KIND_PLAIN, KIND_ONE, KIND_CACHES, KIND_FEATURES, KIND_TOPOLOGY, KIND_XSAVE };

void cpuid_policy_build(const struct cpuid_host *host, const struct cpuid_vm *vm, struct cpuid_table *out)
{
    struct xstate_layout layout;
    uint64_t host_xcr0;
    memset(out, 0, sizeof(*out));
    cpuid_host_xstate(host, &layout, &host_xcr0);
    uint64_t xcr0 = xstate_allowed(host_xcr0) & xstate_allowed(vm->xcr0_allowed);
    apply_rules(host, xcr0, out);
    apply_vm(vm, xcr0, out);
    if (vm->no_x2apic)
        out->basic[1].ecx &= ~CPUID_01_ECX_X2APIC;
    build_identity(host, out);
    build_topology(host, vm->vcpu_count, out);
    build_tsc(vm->tsc_hz, out);
    build_xsave(host, vm, xcr0, out);
    out->xcr0_allowed = xcr0;
    build_consequences(out);
    out->kind[1] = KIND_ONE;
    out->kind[4] = KIND_CACHES;
    out->kind[7] = KIND_FEATURES;
    out->kind[0xb] = out->kind[0x1f] = KIND_TOPOLOGY;
    out->kind[0xd] = KIND_XSAVE;
}

/* ---- at run time ---- */

static struct cpuid_regs leaf_xsave(const struct cpuid_table *t, uint32_t subleaf,
                                    const struct cpuid_dynamic *state)
{
    struct cpuid_regs r = {0, 0, 0, 0};
    if (!t->xcr0_allowed)
        return r;
    if (subleaf == 0) {
        r = t->basic[0xd];
        r.ebx = xstate_size(&t->xstate, state->xcr0);
    } else if (subleaf == 1) {
        r = t->xsave1;
        if (r.eax & (CPUID_0D_1_EAX_XSAVEC | CPUID_0D_1_EAX_XSAVES))
            r.ebx = xstate_compact_size(&t->xstate, state->xcr0); /* IA32_XSS is 0 */
    } else if (subleaf < XSTATE_COMPONENTS && t->xstate.size[subleaf]) {
        r.eax = t->xstate.size[subleaf];
        r.ebx = t->xstate.offset[subleaf];
        r.ecx = t->xstate.align64[subleaf] ? 2 : 0;
    }
    return r;
}

static struct cpuid_regs leaf_topology(const struct cpuid_table *t, uint32_t subleaf, uint32_t apic_id)
{
    struct cpuid_regs r = {.ecx = subleaf & 0xff};
    if (subleaf < ARRAY_SIZE(t->topology))
        r = t->topology[subleaf];
    r.edx = apic_id;
    return r;
}

static struct cpuid_regs leaf_special(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf,
                                      const struct cpuid_dynamic *state)
{
    struct cpuid_regs r = {0, 0, 0, 0};
    switch (t->kind[leaf]) {
    case KIND_ONE:
        r = t->basic[1];
        r.ebx |= state->apic_id << 24;
        if (state->cr4 & CR4_OSXSAVE)
            r.ecx |= CPUID_01_ECX_OSXSAVE;
        if (!state->apic_enabled)
            r.edx &= ~CPUID_01_EDX_APIC;
        break;
    case KIND_CACHES:
        if (subleaf < CPUID_CACHES)
            r = t->caches[subleaf];
        break;
    case KIND_FEATURES:
        if (subleaf < ARRAY_SIZE(t->features))
            r = t->features[subleaf];
        if (subleaf == 0 && (state->cr4 & CR4_PKE))
            r.ecx |= CPUID_07_ECX_OSPKE;
        break;
    case KIND_TOPOLOGY:
        r = leaf_topology(t, subleaf, state->apic_id);
        break;
    default: /* KIND_XSAVE */
        r = leaf_xsave(t, subleaf, state);
        break;
    }
    return r;
}

void cpuid_policy_get(const struct cpuid_table *table, uint32_t leaf, uint32_t subleaf,
                      const struct cpuid_dynamic *state, struct cpuid_regs *out)
{
    if (leaf < CPUID_BASIC_COUNT) {
        if (table->kind[leaf] == KIND_PLAIN)
            *out = table->basic[leaf];
        else
            *out = leaf_special(table, leaf, subleaf, state);
        return;
    }
    if (leaf - CPUID_EXT_BASE < CPUID_EXT_COUNT)
        *out = table->ext[leaf - CPUID_EXT_BASE];
    else if (leaf - CPUID_HYPER_BASE < CPUID_HYPER_COUNT)
        *out = table->hyper[leaf - CPUID_HYPER_BASE];
    else
        memset(out, 0, sizeof(*out));
}
