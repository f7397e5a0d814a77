/* Model-specific registers: numbers and bits by their SDM names (volume 4, chapter 2). Numbers only, no
 * accessors. */
#pragma once

#include "hv/lib/bits.h"

#define MSR_IA32_TSC                 0x010u
#define MSR_IA32_PLATFORM_ID         0x017u
#define MSR_IA32_APIC_BASE           0x01bu
#define MSR_IA32_FEATURE_CONTROL     0x03au
#define MSR_IA32_TSC_ADJUST          0x03bu
#define MSR_IA32_SPEC_CTRL           0x048u
#define MSR_IA32_PRED_CMD            0x049u
#define MSR_IA32_BIOS_UPDT_TRIG      0x079u
#define MSR_IA32_BIOS_SIGN_ID        0x08bu
#define MSR_PLATFORM_INFO            0x0ceu
#define MSR_IA32_UMWAIT_CONTROL      0x0e1u
#define MSR_IA32_MPERF               0x0e7u
#define MSR_IA32_APERF               0x0e8u
#define MSR_IA32_MTRRCAP             0x0feu
#define MSR_IA32_ARCH_CAPABILITIES   0x10au
#define MSR_IA32_FLUSH_CMD           0x10bu
#define MSR_IA32_TSX_CTRL            0x122u
#define MSR_IA32_SYSENTER_CS         0x174u
#define MSR_IA32_SYSENTER_ESP        0x175u
#define MSR_IA32_SYSENTER_EIP        0x176u
#define MSR_IA32_MCG_CAP             0x179u
#define MSR_IA32_MCG_STATUS          0x17au
#define MSR_IA32_MCG_CTL             0x17bu
#define MSR_IA32_PERFEVTSEL0         0x186u
#define MSR_IA32_PERF_STATUS         0x198u
#define MSR_IA32_PERF_CTL            0x199u
#define MSR_IA32_CLOCK_MODULATION    0x19au
#define MSR_IA32_THERM_INTERRUPT     0x19bu
#define MSR_IA32_THERM_STATUS        0x19cu
#define MSR_IA32_MISC_ENABLE         0x1a0u
#define MSR_IA32_ENERGY_PERF_BIAS    0x1b0u
#define MSR_IA32_DEBUGCTL            0x1d9u
#define MSR_IA32_MTRR_PHYSBASE0      0x200u /* base n at 0x200 + 2n, mask n at 0x201 + 2n */
#define MSR_IA32_MTRR_PHYSMASK0      0x201u
#define MSR_IA32_MTRR_FIX64K_00000   0x250u
#define MSR_IA32_MTRR_FIX16K_80000   0x258u
#define MSR_IA32_MTRR_FIX16K_A0000   0x259u
#define MSR_IA32_MTRR_FIX4K_C0000    0x268u /* eight registers up to FIX4K_F8000 */
#define MSR_IA32_MTRR_FIX4K_F8000    0x26fu
#define MSR_IA32_PAT                 0x277u
#define MSR_IA32_MTRR_DEF_TYPE       0x2ffu
#define MSR_IA32_PERF_CAPABILITIES   0x345u
#define MSR_IA32_FIXED_CTR_CTRL      0x38du
#define MSR_IA32_PERF_GLOBAL_STATUS  0x38eu
#define MSR_IA32_PERF_GLOBAL_CTRL    0x38fu
#define MSR_IA32_MC0_CTL             0x400u /* four registers a bank: CTL, STATUS, ADDR, MISC */
#define MSR_IA32_U_CET               0x6a0u
#define MSR_IA32_S_CET               0x6a2u
#define MSR_IA32_PL0_SSP             0x6a4u
#define MSR_IA32_INTERRUPT_SSP_TABLE 0x6a8u
#define MSR_IA32_TSC_DEADLINE        0x6e0u
#define MSR_IA32_PKRS                0x6e1u
#define MSR_IA32_X2APIC_FIRST        0x800u /* register at MMIO offset o is MSR 0x800 + o/16 */
#define MSR_IA32_X2APIC_TPR          0x808u
#define MSR_IA32_X2APIC_EOI          0x80bu
#define MSR_IA32_X2APIC_ICR          0x830u
#define MSR_IA32_X2APIC_SELF_IPI     0x83fu
#define MSR_IA32_X2APIC_LAST         0x8ffu
#define MSR_IA32_XSS                 0xda0u

#define MSR_IA32_EFER           0xc0000080u
#define MSR_IA32_STAR           0xc0000081u
#define MSR_IA32_LSTAR          0xc0000082u
#define MSR_IA32_CSTAR          0xc0000083u
#define MSR_IA32_FMASK          0xc0000084u
#define MSR_IA32_FS_BASE        0xc0000100u
#define MSR_IA32_GS_BASE        0xc0000101u
#define MSR_IA32_KERNEL_GS_BASE 0xc0000102u
#define MSR_IA32_TSC_AUX        0xc0000103u

/* VMX capability MSRs, SDM volume 3, appendix A. */
#define MSR_IA32_VMX_BASIC               0x480u
#define MSR_IA32_VMX_PINBASED_CTLS       0x481u
#define MSR_IA32_VMX_PROCBASED_CTLS      0x482u
#define MSR_IA32_VMX_EXIT_CTLS           0x483u
#define MSR_IA32_VMX_ENTRY_CTLS          0x484u
#define MSR_IA32_VMX_MISC                0x485u
#define MSR_IA32_VMX_CR0_FIXED0          0x486u
#define MSR_IA32_VMX_CR0_FIXED1          0x487u
#define MSR_IA32_VMX_CR4_FIXED0          0x488u
#define MSR_IA32_VMX_CR4_FIXED1          0x489u
#define MSR_IA32_VMX_VMCS_ENUM           0x48au
#define MSR_IA32_VMX_PROCBASED_CTLS2     0x48bu
#define MSR_IA32_VMX_EPT_VPID_CAP        0x48cu
#define MSR_IA32_VMX_TRUE_PINBASED_CTLS  0x48du
#define MSR_IA32_VMX_TRUE_PROCBASED_CTLS 0x48eu
#define MSR_IA32_VMX_TRUE_EXIT_CTLS      0x48fu
#define MSR_IA32_VMX_TRUE_ENTRY_CTLS     0x490u
#define MSR_IA32_VMX_VMFUNC              0x491u
#define MSR_IA32_VMX_PROCBASED_CTLS3     0x492u
#define MSR_IA32_VMX_EXIT_CTLS2          0x493u

/* IA32_FEATURE_CONTROL, SDM 24.7 "Enabling and entering VMX operation". */
#define FEATURE_CONTROL_LOCK            BIT(0)
#define FEATURE_CONTROL_VMX_IN_SMX      BIT(1)
#define FEATURE_CONTROL_VMX_OUTSIDE_SMX BIT(2)

/* IA32_EFER */
#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

/* IA32_SPEC_CTRL, IA32_PRED_CMD, IA32_FLUSH_CMD */
#define SPEC_CTRL_IBRS        BIT(0)
#define SPEC_CTRL_RRSBA_DIS_S BIT(6)
#define SPEC_CTRL_BHI_DIS_S   BIT(10)
#define SPEC_CTRL_STIBP       BIT(1)
#define SPEC_CTRL_SSBD        BIT(2)
#define PRED_CMD_IBPB         BIT(0)
#define FLUSH_CMD_L1D_FLUSH   BIT(0)

/* IA32_ARCH_CAPABILITIES */
#define ARCH_CAP_RDCL_NO            BIT(0)
#define ARCH_CAP_IBRS_ALL           BIT(1)
#define ARCH_CAP_RSBA               BIT(2)
#define ARCH_CAP_SKIP_L1DFL_VMENTRY BIT(3)
#define ARCH_CAP_SSB_NO             BIT(4)
#define ARCH_CAP_MDS_NO             BIT(5)
#define ARCH_CAP_IF_PSCHANGE_MC_NO  BIT(6)
#define ARCH_CAP_TSX_CTRL           BIT(7)
#define ARCH_CAP_TAA_NO             BIT(8)
#define ARCH_CAP_SBDR_SSDP_NO       BIT(13)
#define ARCH_CAP_FBSDP_NO           BIT(14)
#define ARCH_CAP_PSDP_NO            BIT(15)
#define ARCH_CAP_FB_CLEAR           BIT(17)
#define ARCH_CAP_RRSBA              BIT(19)
#define ARCH_CAP_BHI_NO             BIT(20)
#define ARCH_CAP_PBRSB_NO           BIT(24)
#define ARCH_CAP_GDS_NO             BIT(26)
#define ARCH_CAP_RFDS_NO            BIT(27)

/* IA32_MISC_ENABLE */
#define MISC_ENABLE_FAST_STRING  BIT(0)
#define MISC_ENABLE_THERMAL      BIT(3) /* automatic thermal control circuit */
#define MISC_ENABLE_BTS_UNAVAIL  BIT(11)
#define MISC_ENABLE_PEBS_UNAVAIL BIT(12)
#define MISC_ENABLE_SPEEDSTEP    BIT(16)
#define MISC_ENABLE_MWAIT        BIT(18)
#define MISC_ENABLE_LIMIT_CPUID  BIT(22)
#define MISC_ENABLE_XTPR_OFF     BIT(23)
#define MISC_ENABLE_XD_DISABLE   BIT(34)

/* IA32_DEBUGCTL */
#define DEBUGCTL_LBR           BIT(0)
#define DEBUGCTL_BTF           BIT(1)
#define DEBUGCTL_BUS_LOCK_TRAP BIT(2)
#define DEBUGCTL_RTM           BIT(15)
#define DEBUGCTL_RESERVED      (~(uint64_t)0xffc7) /* bits the SDM has not defined: 5:3 and 63:16 */

/* IA32_MTRRCAP, IA32_MTRR_DEF_TYPE */
#define MTRRCAP_VCNT        ((uint64_t)0xff)
#define MTRRCAP_FIX         BIT(8)
#define MTRRCAP_WC          BIT(10)
#define MTRR_DEF_TYPE_FE    BIT(10)
#define MTRR_DEF_TYPE_E     BIT(11)
#define MTRR_PHYSMASK_VALID BIT(11)

/* IA32_PAT: its value at reset (SDM 12.12.4): WB WT UC- UC WB WT UC- UC. */
#define PAT_RESET ((uint64_t)0x0007040600070406)

/* IA32_VMX_BASIC, SDM A.1 */
#define VMX_BASIC_REVISION(v)     ((uint32_t)((v)&0x7fffffffu))
#define VMX_BASIC_REGION_SIZE(v)  bits_get((v), 44, 32)
#define VMX_BASIC_32BIT_ADDRESSES BIT(48)
#define VMX_BASIC_MEMORY_TYPE(v)  bits_get((v), 53, 50)
#define VMX_BASIC_INS_OUTS_INFO   BIT(54)
#define VMX_BASIC_TRUE_CONTROLS   BIT(55)
#define VMX_BASIC_ANY_ERROR_CODE  BIT(56)

/* IA32_VMX_MISC, SDM A.6 */
#define VMX_MISC_TIMER_SHIFT(v)     ((unsigned)((v)&0x1f)) /* the timer counts at TSC >> shift */
#define VMX_MISC_EXIT_SAVES_LMA     BIT(5)
#define VMX_MISC_ACTIVITY_HLT       BIT(6)
#define VMX_MISC_ACTIVITY_SHUTDOWN  BIT(7)
#define VMX_MISC_ACTIVITY_WAIT_SIPI BIT(8)
#define VMX_MISC_CR3_TARGETS(v)     ((unsigned)bits_get((v), 24, 16))
#define VMX_MISC_MSR_LIST_MAX(v)    (512u * ((unsigned)bits_get((v), 27, 25) + 1u))
#define VMX_MISC_VMWRITE_ANY        BIT(29)
#define VMX_MISC_INSN_LEN_0         BIT(30)

/* IA32_VMX_EPT_VPID_CAP, SDM A.10 */
#define EPT_CAP_EXEC_ONLY           BIT(0)
#define EPT_CAP_WALK_4              BIT(6)
#define EPT_CAP_WALK_5              BIT(7)
#define EPT_CAP_UC                  BIT(8)
#define EPT_CAP_WB                  BIT(14)
#define EPT_CAP_2M                  BIT(16)
#define EPT_CAP_1G                  BIT(17)
#define EPT_CAP_INVEPT              BIT(20)
#define EPT_CAP_AD                  BIT(21)
#define EPT_CAP_ADVANCED_EXIT       BIT(22)
#define EPT_CAP_SSS                 BIT(23)
#define EPT_CAP_INVEPT_SINGLE       BIT(25)
#define EPT_CAP_INVEPT_ALL          BIT(26)
#define VPID_CAP_INVVPID            BIT(32)
#define VPID_CAP_ADDRESS            BIT(40)
#define VPID_CAP_SINGLE             BIT(41)
#define VPID_CAP_ALL                BIT(42)
#define VPID_CAP_SINGLE_KEEP_GLOBAL BIT(43)
