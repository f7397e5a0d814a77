/* The processor's architectural bits by their SDM names: control registers, flags, exceptions, CPUID.
 * Pure code and hardware code share them; nothing here executes an instruction. EFER is in msr.h. */
#pragma once

#include "hv/lib/bits.h"

/* CR0, SDM volume 3, 2.5 */
#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)
#define CR0_DEFINED                                                                                          \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* CR3: with CR4.PCIDE, bit 63 of the source of MOV to CR3 asks to keep translations (it is not stored). */
#define CR3_NO_FLUSH  BIT(63)
#define CR3_PCID_MASK ((uint64_t)0xfff)
#define CR3_LAM_U57   BIT(61)
#define CR3_LAM_U48   BIT(62)

/* CR4 */
#define CR4_VME        BIT(0)
#define CR4_PVI        BIT(1)
#define CR4_TSD        BIT(2)
#define CR4_DE         BIT(3)
#define CR4_PSE        BIT(4)
#define CR4_PAE        BIT(5)
#define CR4_MCE        BIT(6)
#define CR4_PGE        BIT(7)
#define CR4_PCE        BIT(8)
#define CR4_OSFXSR     BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP       BIT(11)
#define CR4_LA57       BIT(12)
#define CR4_VMXE       BIT(13)
#define CR4_SMXE       BIT(14)
#define CR4_FSGSBASE   BIT(16)
#define CR4_PCIDE      BIT(17)
#define CR4_OSXSAVE    BIT(18)
#define CR4_KL         BIT(19)
#define CR4_SMEP       BIT(20)
#define CR4_SMAP       BIT(21)
#define CR4_PKE        BIT(22)
#define CR4_CET        BIT(23)
#define CR4_PKS        BIT(24)
#define CR4_UINTR      BIT(25)
#define CR4_LASS       BIT(27)
#define CR4_LAM_SUP    BIT(28)
#define CR4_FRED       BIT(32)

/* RFLAGS */
#define RFLAGS_CF       BIT(0)
#define RFLAGS_FIXED_1  BIT(1)
#define RFLAGS_PF       BIT(2)
#define RFLAGS_AF       BIT(4)
#define RFLAGS_ZF       BIT(6)
#define RFLAGS_SF       BIT(7)
#define RFLAGS_TF       BIT(8)
#define RFLAGS_IF       BIT(9)
#define RFLAGS_DF       BIT(10)
#define RFLAGS_OF       BIT(11)
#define RFLAGS_IOPL     (BIT(12) | BIT(13))
#define RFLAGS_NT       BIT(14)
#define RFLAGS_RF       BIT(16)
#define RFLAGS_VM       BIT(17)
#define RFLAGS_AC       BIT(18)
#define RFLAGS_VIF      BIT(19)
#define RFLAGS_VIP      BIT(20)
#define RFLAGS_ID       BIT(21)
#define RFLAGS_RESERVED (~(uint64_t)0x3f7fd7) /* must be 0 */

/* DR6 and DR7: values at reset, and the bits that are always 1. */
#define DR6_RESET    ((uint64_t)0xffff0ff0)
#define DR6_BD       BIT(13)
#define DR6_BS       BIT(14)
#define DR6_BT       BIT(15)
#define DR6_RTM      BIT(16)
#define DR6_BUS_LOCK BIT(11)
#define DR7_RESET    ((uint64_t)0x400)
#define DR7_GD       BIT(13)

/* XCR0, SDM volume 1, 13.3 */
#define XCR0_X87       BIT(0)
#define XCR0_SSE       BIT(1)
#define XCR0_AVX       BIT(2)
#define XCR0_BNDREGS   BIT(3)
#define XCR0_BNDCSR    BIT(4)
#define XCR0_OPMASK    BIT(5)
#define XCR0_ZMM_HI256 BIT(6)
#define XCR0_HI16_ZMM  BIT(7)
#define XCR0_PKRU      BIT(9)
#define XCR0_TILECFG   BIT(17)
#define XCR0_TILEDATA  BIT(18)
#define XCR0_AVX512    (XCR0_OPMASK | XCR0_ZMM_HI256 | XCR0_HI16_ZMM)

/* Exception vectors, SDM table 6-1 */
enum x86_vector {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_MC = 18,
    VECTOR_XM = 19,
    VECTOR_VE = 20,
    VECTOR_CP = 21,
};

/* Exceptions that push an error code (protected mode). */
#define VECTORS_WITH_ERROR                                                                                   \
    (1u << VECTOR_DF | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP |               \
     1u << VECTOR_PF | 1u << VECTOR_AC | 1u << VECTOR_CP)

/* Page-fault error code, SDM volume 3, 4.7 */
#define PF_P     (1u << 0)
#define PF_W     (1u << 1)
#define PF_U     (1u << 2)
#define PF_RSVD  (1u << 3)
#define PF_FETCH (1u << 4)
#define PF_PK    (1u << 5)

/* Memory types, SDM volume 3, 12.11: MTRRs, PAT entries and EPT share the encoding (UC- in the PAT only). */
enum memory_type { MT_UC = 0, MT_WC = 1, MT_WT = 4, MT_WP = 5, MT_WB = 6, MT_UC_MINUS = 7 };

/* CPUID feature bits: CPUID_<leaf>[_<subleaf>]_<register>_<name>; masks of the 32-bit register. */
#define CPUID_01_ECX_SSE3         (1u << 0)
#define CPUID_01_ECX_PCLMULQDQ    (1u << 1)
#define CPUID_01_ECX_DTES64       (1u << 2)
#define CPUID_01_ECX_MONITOR      (1u << 3)
#define CPUID_01_ECX_DS_CPL       (1u << 4)
#define CPUID_01_ECX_VMX          (1u << 5)
#define CPUID_01_ECX_SMX          (1u << 6)
#define CPUID_01_ECX_EIST         (1u << 7)
#define CPUID_01_ECX_TM2          (1u << 8)
#define CPUID_01_ECX_SSSE3        (1u << 9)
#define CPUID_01_ECX_SDBG         (1u << 11)
#define CPUID_01_ECX_FMA          (1u << 12)
#define CPUID_01_ECX_CMPXCHG16B   (1u << 13)
#define CPUID_01_ECX_XTPR         (1u << 14)
#define CPUID_01_ECX_PDCM         (1u << 15)
#define CPUID_01_ECX_PCID         (1u << 17)
#define CPUID_01_ECX_DCA          (1u << 18)
#define CPUID_01_ECX_SSE4_1       (1u << 19)
#define CPUID_01_ECX_SSE4_2       (1u << 20)
#define CPUID_01_ECX_X2APIC       (1u << 21)
#define CPUID_01_ECX_MOVBE        (1u << 22)
#define CPUID_01_ECX_POPCNT       (1u << 23)
#define CPUID_01_ECX_TSC_DEADLINE (1u << 24)
#define CPUID_01_ECX_AES          (1u << 25)
#define CPUID_01_ECX_XSAVE        (1u << 26)
#define CPUID_01_ECX_OSXSAVE      (1u << 27)
#define CPUID_01_ECX_AVX          (1u << 28)
#define CPUID_01_ECX_F16C         (1u << 29)
#define CPUID_01_ECX_RDRAND       (1u << 30)
#define CPUID_01_ECX_HYPERVISOR   (1u << 31)

#define CPUID_01_EDX_FPU   (1u << 0)
#define CPUID_01_EDX_VME   (1u << 1)
#define CPUID_01_EDX_DE    (1u << 2)
#define CPUID_01_EDX_PSE   (1u << 3)
#define CPUID_01_EDX_TSC   (1u << 4)
#define CPUID_01_EDX_MSR   (1u << 5)
#define CPUID_01_EDX_PAE   (1u << 6)
#define CPUID_01_EDX_MCE   (1u << 7)
#define CPUID_01_EDX_CX8   (1u << 8)
#define CPUID_01_EDX_APIC  (1u << 9)
#define CPUID_01_EDX_SEP   (1u << 11)
#define CPUID_01_EDX_MTRR  (1u << 12)
#define CPUID_01_EDX_PGE   (1u << 13)
#define CPUID_01_EDX_MCA   (1u << 14)
#define CPUID_01_EDX_CMOV  (1u << 15)
#define CPUID_01_EDX_PAT   (1u << 16)
#define CPUID_01_EDX_PSE36 (1u << 17)
#define CPUID_01_EDX_PSN   (1u << 18)
#define CPUID_01_EDX_CLFSH (1u << 19)
#define CPUID_01_EDX_DS    (1u << 21)
#define CPUID_01_EDX_ACPI  (1u << 22)
#define CPUID_01_EDX_MMX   (1u << 23)
#define CPUID_01_EDX_FXSR  (1u << 24)
#define CPUID_01_EDX_SSE   (1u << 25)
#define CPUID_01_EDX_SSE2  (1u << 26)
#define CPUID_01_EDX_SS    (1u << 27)
#define CPUID_01_EDX_HTT   (1u << 28)
#define CPUID_01_EDX_TM    (1u << 29)
#define CPUID_01_EDX_PBE   (1u << 31)

#define CPUID_06_EAX_ARAT (1u << 2)

#define CPUID_07_EBX_FSGSBASE   (1u << 0)
#define CPUID_07_EBX_TSC_ADJUST (1u << 1)
#define CPUID_07_EBX_SGX        (1u << 2)
#define CPUID_07_EBX_BMI1       (1u << 3)
#define CPUID_07_EBX_HLE        (1u << 4)
#define CPUID_07_EBX_AVX2       (1u << 5)
#define CPUID_07_EBX_FDP_EXCPTN (1u << 6)
#define CPUID_07_EBX_SMEP       (1u << 7)
#define CPUID_07_EBX_BMI2       (1u << 8)
#define CPUID_07_EBX_ERMS       (1u << 9)
#define CPUID_07_EBX_INVPCID    (1u << 10)
#define CPUID_07_EBX_RTM        (1u << 11)
#define CPUID_07_EBX_PQM        (1u << 12)
#define CPUID_07_EBX_NO_FPU_SEL (1u << 13)
#define CPUID_07_EBX_MPX        (1u << 14)
#define CPUID_07_EBX_PQE        (1u << 15)
#define CPUID_07_EBX_AVX512F    (1u << 16)
#define CPUID_07_EBX_AVX512DQ   (1u << 17)
#define CPUID_07_EBX_RDSEED     (1u << 18)
#define CPUID_07_EBX_ADX        (1u << 19)
#define CPUID_07_EBX_SMAP       (1u << 20)
#define CPUID_07_EBX_AVX512IFMA (1u << 21)
#define CPUID_07_EBX_CLFLUSHOPT (1u << 23)
#define CPUID_07_EBX_CLWB       (1u << 24)
#define CPUID_07_EBX_PT         (1u << 25)
#define CPUID_07_EBX_AVX512PF   (1u << 26)
#define CPUID_07_EBX_AVX512ER   (1u << 27)
#define CPUID_07_EBX_AVX512CD   (1u << 28)
#define CPUID_07_EBX_SHA        (1u << 29)
#define CPUID_07_EBX_AVX512BW   (1u << 30)
#define CPUID_07_EBX_AVX512VL   (1u << 31)

#define CPUID_07_ECX_PREFETCHWT1   (1u << 0)
#define CPUID_07_ECX_AVX512VBMI    (1u << 1)
#define CPUID_07_ECX_UMIP          (1u << 2)
#define CPUID_07_ECX_PKU           (1u << 3)
#define CPUID_07_ECX_OSPKE         (1u << 4)
#define CPUID_07_ECX_WAITPKG       (1u << 5)
#define CPUID_07_ECX_AVX512VBMI2   (1u << 6)
#define CPUID_07_ECX_CET_SS        (1u << 7)
#define CPUID_07_ECX_GFNI          (1u << 8)
#define CPUID_07_ECX_VAES          (1u << 9)
#define CPUID_07_ECX_VPCLMULQDQ    (1u << 10)
#define CPUID_07_ECX_AVX512VNNI    (1u << 11)
#define CPUID_07_ECX_AVX512BITALG  (1u << 12)
#define CPUID_07_ECX_TME           (1u << 13)
#define CPUID_07_ECX_AVX512VPOPCNT (1u << 14)
#define CPUID_07_ECX_LA57          (1u << 16)
#define CPUID_07_ECX_RDPID         (1u << 22)
#define CPUID_07_ECX_KL            (1u << 23)
#define CPUID_07_ECX_BUS_LOCK      (1u << 24)
#define CPUID_07_ECX_CLDEMOTE      (1u << 25)
#define CPUID_07_ECX_MOVDIRI       (1u << 27)
#define CPUID_07_ECX_MOVDIR64B     (1u << 28)
#define CPUID_07_ECX_ENQCMD        (1u << 29)
#define CPUID_07_ECX_SGX_LC        (1u << 30)
#define CPUID_07_ECX_PKS           (1u << 31)

#define CPUID_07_EDX_FSRM         (1u << 4)
#define CPUID_07_EDX_UINTR        (1u << 5)
#define CPUID_07_EDX_VP2INTERSECT (1u << 8)
#define CPUID_07_EDX_MD_CLEAR     (1u << 10)
#define CPUID_07_EDX_SERIALIZE    (1u << 14)
#define CPUID_07_EDX_HYBRID       (1u << 15)
#define CPUID_07_EDX_PCONFIG      (1u << 18)
#define CPUID_07_EDX_CET_IBT      (1u << 20)
#define CPUID_07_EDX_AMX_BF16     (1u << 22)
#define CPUID_07_EDX_AVX512FP16   (1u << 23)
#define CPUID_07_EDX_AMX_TILE     (1u << 24)
#define CPUID_07_EDX_AMX_INT8     (1u << 25)
#define CPUID_07_EDX_IBRS_IBPB    (1u << 26)
#define CPUID_07_EDX_STIBP        (1u << 27)
#define CPUID_07_EDX_L1D_FLUSH    (1u << 28)
#define CPUID_07_EDX_ARCH_CAP     (1u << 29)
#define CPUID_07_EDX_CORE_CAP     (1u << 30)
#define CPUID_07_EDX_SSBD         (1u << 31)

#define CPUID_0D_1_EAX_XSAVEOPT (1u << 0)
#define CPUID_0D_1_EAX_XSAVEC   (1u << 1)
#define CPUID_0D_1_EAX_XGETBV1  (1u << 2)
#define CPUID_0D_1_EAX_XSAVES   (1u << 3)
#define CPUID_0D_1_EAX_XFD      (1u << 4)

#define CPUID_80000001_ECX_LAHF64    (1u << 0)
#define CPUID_80000001_ECX_LZCNT     (1u << 5)
#define CPUID_80000001_ECX_PREFETCHW (1u << 8)

#define CPUID_80000001_EDX_SYSCALL (1u << 11)
#define CPUID_80000001_EDX_NX      (1u << 20)
#define CPUID_80000001_EDX_1G      (1u << 26)
#define CPUID_80000001_EDX_RDTSCP  (1u << 27)
#define CPUID_80000001_EDX_LM      (1u << 29)

#define CPUID_80000007_EDX_INVARIANT_TSC (1u << 8)

/* Linear addresses with 4-level paging: LA57 is off in the host, and hidden from guests. Bits 63 to 47 are
 * alike (SDM volume 1, "Canonical Addressing"). */
#define CPU_LINEAR_BITS 48u
static inline bool cpu_is_canonical(uint64_t linear)
{
    return bits_sign_extend(linear, CPU_LINEAR_BITS / 8) == linear;
}
