/* The VMCS: every field encoding of SDM volume 3, appendix B, and the control bits of chapter 25 (sections as
 * numbered in the editions with "VM entries" as chapter 27). Encodings are wrapped: a field number where a
 * value is meant must not compile. */
#pragma once

#include "hv/lib/types.h"

typedef struct {
    uint32_t encoding;
} vmcs_field_t;

#define VMCS_FIELD(n) ((vmcs_field_t){n})

/* Parts of an encoding, SDM table 25-21. */
enum vmcs_width { VMCS_WIDTH_16, VMCS_WIDTH_64, VMCS_WIDTH_32, VMCS_WIDTH_NATURAL };
enum vmcs_type { VMCS_TYPE_CONTROL, VMCS_TYPE_READ_ONLY, VMCS_TYPE_GUEST, VMCS_TYPE_HOST };

static inline enum vmcs_width vmcs_field_width(vmcs_field_t field)
{
    return (enum vmcs_width)(field.encoding >> 13 & 3);
}
static inline enum vmcs_type vmcs_field_type(vmcs_field_t field)
{
    return (enum vmcs_type)(field.encoding >> 10 & 3);
}

/* 16-bit control fields */
#define VMCS_VPID                    VMCS_FIELD(0x0000)
#define VMCS_POSTED_INTERRUPT_VECTOR VMCS_FIELD(0x0002)
#define VMCS_EPTP_INDEX              VMCS_FIELD(0x0004)
#define VMCS_HLAT_PREFIX_SIZE        VMCS_FIELD(0x0006)
#define VMCS_LAST_PID_POINTER_INDEX  VMCS_FIELD(0x0008)
#define VMCS_VIRTUAL_TIMER_VECTOR    VMCS_FIELD(0x000a)

/* 16-bit guest-state fields */
#define VMCS_GUEST_ES_SELECTOR      VMCS_FIELD(0x0800)
#define VMCS_GUEST_CS_SELECTOR      VMCS_FIELD(0x0802)
#define VMCS_GUEST_SS_SELECTOR      VMCS_FIELD(0x0804)
#define VMCS_GUEST_DS_SELECTOR      VMCS_FIELD(0x0806)
#define VMCS_GUEST_FS_SELECTOR      VMCS_FIELD(0x0808)
#define VMCS_GUEST_GS_SELECTOR      VMCS_FIELD(0x080a)
#define VMCS_GUEST_LDTR_SELECTOR    VMCS_FIELD(0x080c)
#define VMCS_GUEST_TR_SELECTOR      VMCS_FIELD(0x080e)
#define VMCS_GUEST_INTERRUPT_STATUS VMCS_FIELD(0x0810)
#define VMCS_GUEST_PML_INDEX        VMCS_FIELD(0x0812)
#define VMCS_GUEST_UINV             VMCS_FIELD(0x0814)

/* 16-bit host-state fields */
#define VMCS_HOST_ES_SELECTOR VMCS_FIELD(0x0c00)
#define VMCS_HOST_CS_SELECTOR VMCS_FIELD(0x0c02)
#define VMCS_HOST_SS_SELECTOR VMCS_FIELD(0x0c04)
#define VMCS_HOST_DS_SELECTOR VMCS_FIELD(0x0c06)
#define VMCS_HOST_FS_SELECTOR VMCS_FIELD(0x0c08)
#define VMCS_HOST_GS_SELECTOR VMCS_FIELD(0x0c0a)
#define VMCS_HOST_TR_SELECTOR VMCS_FIELD(0x0c0c)

/* 64-bit control fields */
#define VMCS_IO_BITMAP_A                 VMCS_FIELD(0x2000)
#define VMCS_IO_BITMAP_B                 VMCS_FIELD(0x2002)
#define VMCS_MSR_BITMAPS                 VMCS_FIELD(0x2004)
#define VMCS_EXIT_MSR_STORE_ADDRESS      VMCS_FIELD(0x2006)
#define VMCS_EXIT_MSR_LOAD_ADDRESS       VMCS_FIELD(0x2008)
#define VMCS_ENTRY_MSR_LOAD_ADDRESS      VMCS_FIELD(0x200a)
#define VMCS_EXECUTIVE_VMCS_POINTER      VMCS_FIELD(0x200c)
#define VMCS_PML_ADDRESS                 VMCS_FIELD(0x200e)
#define VMCS_TSC_OFFSET                  VMCS_FIELD(0x2010)
#define VMCS_VIRTUAL_APIC_ADDRESS        VMCS_FIELD(0x2012)
#define VMCS_APIC_ACCESS_ADDRESS         VMCS_FIELD(0x2014)
#define VMCS_POSTED_INTERRUPT_DESCRIPTOR VMCS_FIELD(0x2016)
#define VMCS_VM_FUNCTION_CONTROLS        VMCS_FIELD(0x2018)
#define VMCS_EPT_POINTER                 VMCS_FIELD(0x201a)
#define VMCS_EOI_EXIT_BITMAP0            VMCS_FIELD(0x201c)
#define VMCS_EOI_EXIT_BITMAP1            VMCS_FIELD(0x201e)
#define VMCS_EOI_EXIT_BITMAP2            VMCS_FIELD(0x2020)
#define VMCS_EOI_EXIT_BITMAP3            VMCS_FIELD(0x2022)
#define VMCS_EPTP_LIST_ADDRESS           VMCS_FIELD(0x2024)
#define VMCS_VMREAD_BITMAP               VMCS_FIELD(0x2026)
#define VMCS_VMWRITE_BITMAP              VMCS_FIELD(0x2028)
#define VMCS_VIRT_EXCEPTION_INFO_ADDRESS VMCS_FIELD(0x202a)
#define VMCS_XSS_EXITING_BITMAP          VMCS_FIELD(0x202c)
#define VMCS_ENCLS_EXITING_BITMAP        VMCS_FIELD(0x202e)
#define VMCS_SPP_TABLE_POINTER           VMCS_FIELD(0x2030)
#define VMCS_TSC_MULTIPLIER              VMCS_FIELD(0x2032)
#define VMCS_PROC3_CONTROLS              VMCS_FIELD(0x2034)
#define VMCS_ENCLV_EXITING_BITMAP        VMCS_FIELD(0x2036)
#define VMCS_LOW_PASID_DIRECTORY         VMCS_FIELD(0x2038)
#define VMCS_HIGH_PASID_DIRECTORY        VMCS_FIELD(0x203a)
#define VMCS_SHARED_EPT_POINTER          VMCS_FIELD(0x203c)
#define VMCS_PCONFIG_EXITING_BITMAP      VMCS_FIELD(0x203e)
#define VMCS_HLAT_POINTER                VMCS_FIELD(0x2040)
#define VMCS_PID_POINTER_TABLE           VMCS_FIELD(0x2042)
#define VMCS_EXIT2_CONTROLS              VMCS_FIELD(0x2044)
#define VMCS_SPEC_CTRL_MASK              VMCS_FIELD(0x204a)
#define VMCS_SPEC_CTRL_SHADOW            VMCS_FIELD(0x204c)
#define VMCS_GUEST_DEADLINE_SHADOW       VMCS_FIELD(0x204e)
#define VMCS_INJECTED_EVENT_DATA         VMCS_FIELD(0x2052)

/* 64-bit read-only fields */
#define VMCS_GUEST_PHYSICAL_ADDRESS VMCS_FIELD(0x2400)
#define VMCS_MSR_DATA               VMCS_FIELD(0x2402)
#define VMCS_ORIGINAL_EVENT_DATA    VMCS_FIELD(0x2404)

/* 64-bit guest-state fields */
#define VMCS_LINK_POINTER           VMCS_FIELD(0x2800)
#define VMCS_GUEST_DEBUGCTL         VMCS_FIELD(0x2802)
#define VMCS_GUEST_PAT              VMCS_FIELD(0x2804)
#define VMCS_GUEST_EFER             VMCS_FIELD(0x2806)
#define VMCS_GUEST_PERF_GLOBAL_CTRL VMCS_FIELD(0x2808)
#define VMCS_GUEST_PDPTE0           VMCS_FIELD(0x280a)
#define VMCS_GUEST_PDPTE1           VMCS_FIELD(0x280c)
#define VMCS_GUEST_PDPTE2           VMCS_FIELD(0x280e)
#define VMCS_GUEST_PDPTE3           VMCS_FIELD(0x2810)
#define VMCS_GUEST_BNDCFGS          VMCS_FIELD(0x2812)
#define VMCS_GUEST_RTIT_CTL         VMCS_FIELD(0x2814)
#define VMCS_GUEST_LBR_CTL          VMCS_FIELD(0x2816)
#define VMCS_GUEST_PKRS             VMCS_FIELD(0x2818)
#define VMCS_GUEST_FRED_CONFIG      VMCS_FIELD(0x281a)
#define VMCS_GUEST_FRED_RSP1        VMCS_FIELD(0x281c)
#define VMCS_GUEST_FRED_RSP2        VMCS_FIELD(0x281e)
#define VMCS_GUEST_FRED_RSP3        VMCS_FIELD(0x2820)
#define VMCS_GUEST_FRED_STKLVLS     VMCS_FIELD(0x2822)
#define VMCS_GUEST_FRED_SSP1        VMCS_FIELD(0x2824)
#define VMCS_GUEST_FRED_SSP2        VMCS_FIELD(0x2826)
#define VMCS_GUEST_FRED_SSP3        VMCS_FIELD(0x2828)
#define VMCS_GUEST_SPEC_CTRL        VMCS_FIELD(0x282e)
#define VMCS_GUEST_DEADLINE         VMCS_FIELD(0x2830)

/* 64-bit host-state fields */
#define VMCS_HOST_PAT              VMCS_FIELD(0x2c00)
#define VMCS_HOST_EFER             VMCS_FIELD(0x2c02)
#define VMCS_HOST_PERF_GLOBAL_CTRL VMCS_FIELD(0x2c04)
#define VMCS_HOST_PKRS             VMCS_FIELD(0x2c06)
#define VMCS_HOST_FRED_CONFIG      VMCS_FIELD(0x2c08)
#define VMCS_HOST_FRED_RSP1        VMCS_FIELD(0x2c0a)
#define VMCS_HOST_FRED_RSP2        VMCS_FIELD(0x2c0c)
#define VMCS_HOST_FRED_RSP3        VMCS_FIELD(0x2c0e)
#define VMCS_HOST_FRED_STKLVLS     VMCS_FIELD(0x2c10)
#define VMCS_HOST_FRED_SSP1        VMCS_FIELD(0x2c12)
#define VMCS_HOST_FRED_SSP2        VMCS_FIELD(0x2c14)
#define VMCS_HOST_FRED_SSP3        VMCS_FIELD(0x2c16)
#define VMCS_HOST_SPEC_CTRL        VMCS_FIELD(0x2c1a)

/* 32-bit control fields */
#define VMCS_PIN_CONTROLS           VMCS_FIELD(0x4000)
#define VMCS_PROC_CONTROLS          VMCS_FIELD(0x4002)
#define VMCS_EXCEPTION_BITMAP       VMCS_FIELD(0x4004)
#define VMCS_PAGE_FAULT_ERROR_MASK  VMCS_FIELD(0x4006)
#define VMCS_PAGE_FAULT_ERROR_MATCH VMCS_FIELD(0x4008)
#define VMCS_CR3_TARGET_COUNT       VMCS_FIELD(0x400a)
#define VMCS_EXIT_CONTROLS          VMCS_FIELD(0x400c)
#define VMCS_EXIT_MSR_STORE_COUNT   VMCS_FIELD(0x400e)
#define VMCS_EXIT_MSR_LOAD_COUNT    VMCS_FIELD(0x4010)
#define VMCS_ENTRY_CONTROLS         VMCS_FIELD(0x4012)
#define VMCS_ENTRY_MSR_LOAD_COUNT   VMCS_FIELD(0x4014)
#define VMCS_ENTRY_INTR_INFO        VMCS_FIELD(0x4016)
#define VMCS_ENTRY_EXCEPTION_ERROR  VMCS_FIELD(0x4018)
#define VMCS_ENTRY_INSN_LEN         VMCS_FIELD(0x401a)
#define VMCS_TPR_THRESHOLD          VMCS_FIELD(0x401c)
#define VMCS_PROC2_CONTROLS         VMCS_FIELD(0x401e)
#define VMCS_PLE_GAP                VMCS_FIELD(0x4020)
#define VMCS_PLE_WINDOW             VMCS_FIELD(0x4022)
#define VMCS_INSTRUCTION_TIMEOUT    VMCS_FIELD(0x4024)

/* 32-bit read-only fields */
#define VMCS_INSTRUCTION_ERROR   VMCS_FIELD(0x4400)
#define VMCS_EXIT_REASON         VMCS_FIELD(0x4402)
#define VMCS_EXIT_INTR_INFO      VMCS_FIELD(0x4404)
#define VMCS_EXIT_INTR_ERROR     VMCS_FIELD(0x4406)
#define VMCS_IDT_VECTORING_INFO  VMCS_FIELD(0x4408)
#define VMCS_IDT_VECTORING_ERROR VMCS_FIELD(0x440a)
#define VMCS_EXIT_INSN_LEN       VMCS_FIELD(0x440c)
#define VMCS_EXIT_INSN_INFO      VMCS_FIELD(0x440e)

/* 32-bit guest-state fields */
#define VMCS_GUEST_ES_LIMIT         VMCS_FIELD(0x4800)
#define VMCS_GUEST_CS_LIMIT         VMCS_FIELD(0x4802)
#define VMCS_GUEST_SS_LIMIT         VMCS_FIELD(0x4804)
#define VMCS_GUEST_DS_LIMIT         VMCS_FIELD(0x4806)
#define VMCS_GUEST_FS_LIMIT         VMCS_FIELD(0x4808)
#define VMCS_GUEST_GS_LIMIT         VMCS_FIELD(0x480a)
#define VMCS_GUEST_LDTR_LIMIT       VMCS_FIELD(0x480c)
#define VMCS_GUEST_TR_LIMIT         VMCS_FIELD(0x480e)
#define VMCS_GUEST_GDTR_LIMIT       VMCS_FIELD(0x4810)
#define VMCS_GUEST_IDTR_LIMIT       VMCS_FIELD(0x4812)
#define VMCS_GUEST_ES_ACCESS        VMCS_FIELD(0x4814)
#define VMCS_GUEST_CS_ACCESS        VMCS_FIELD(0x4816)
#define VMCS_GUEST_SS_ACCESS        VMCS_FIELD(0x4818)
#define VMCS_GUEST_DS_ACCESS        VMCS_FIELD(0x481a)
#define VMCS_GUEST_FS_ACCESS        VMCS_FIELD(0x481c)
#define VMCS_GUEST_GS_ACCESS        VMCS_FIELD(0x481e)
#define VMCS_GUEST_LDTR_ACCESS      VMCS_FIELD(0x4820)
#define VMCS_GUEST_TR_ACCESS        VMCS_FIELD(0x4822)
#define VMCS_GUEST_INTERRUPTIBILITY VMCS_FIELD(0x4824)
#define VMCS_GUEST_ACTIVITY         VMCS_FIELD(0x4826)
#define VMCS_GUEST_SMBASE           VMCS_FIELD(0x4828)
#define VMCS_GUEST_SYSENTER_CS      VMCS_FIELD(0x482a)
#define VMCS_PREEMPTION_TIMER       VMCS_FIELD(0x482e)

/* 32-bit host-state field */
#define VMCS_HOST_SYSENTER_CS VMCS_FIELD(0x4c00)

/* Natural-width control fields */
#define VMCS_CR0_MASK    VMCS_FIELD(0x6000)
#define VMCS_CR4_MASK    VMCS_FIELD(0x6002)
#define VMCS_CR0_SHADOW  VMCS_FIELD(0x6004)
#define VMCS_CR4_SHADOW  VMCS_FIELD(0x6006)
#define VMCS_CR3_TARGET0 VMCS_FIELD(0x6008)
#define VMCS_CR3_TARGET1 VMCS_FIELD(0x600a)
#define VMCS_CR3_TARGET2 VMCS_FIELD(0x600c)
#define VMCS_CR3_TARGET3 VMCS_FIELD(0x600e)

/* Natural-width read-only fields */
#define VMCS_EXIT_QUALIFICATION   VMCS_FIELD(0x6400)
#define VMCS_IO_RCX               VMCS_FIELD(0x6402)
#define VMCS_IO_RSI               VMCS_FIELD(0x6404)
#define VMCS_IO_RDI               VMCS_FIELD(0x6406)
#define VMCS_IO_RIP               VMCS_FIELD(0x6408)
#define VMCS_GUEST_LINEAR_ADDRESS VMCS_FIELD(0x640a)

/* Natural-width guest-state fields */
#define VMCS_GUEST_CR0           VMCS_FIELD(0x6800)
#define VMCS_GUEST_CR3           VMCS_FIELD(0x6802)
#define VMCS_GUEST_CR4           VMCS_FIELD(0x6804)
#define VMCS_GUEST_ES_BASE       VMCS_FIELD(0x6806)
#define VMCS_GUEST_CS_BASE       VMCS_FIELD(0x6808)
#define VMCS_GUEST_SS_BASE       VMCS_FIELD(0x680a)
#define VMCS_GUEST_DS_BASE       VMCS_FIELD(0x680c)
#define VMCS_GUEST_FS_BASE       VMCS_FIELD(0x680e)
#define VMCS_GUEST_GS_BASE       VMCS_FIELD(0x6810)
#define VMCS_GUEST_LDTR_BASE     VMCS_FIELD(0x6812)
#define VMCS_GUEST_TR_BASE       VMCS_FIELD(0x6814)
#define VMCS_GUEST_GDTR_BASE     VMCS_FIELD(0x6816)
#define VMCS_GUEST_IDTR_BASE     VMCS_FIELD(0x6818)
#define VMCS_GUEST_DR7           VMCS_FIELD(0x681a)
#define VMCS_GUEST_RSP           VMCS_FIELD(0x681c)
#define VMCS_GUEST_RIP           VMCS_FIELD(0x681e)
#define VMCS_GUEST_RFLAGS        VMCS_FIELD(0x6820)
#define VMCS_GUEST_PENDING_DEBUG VMCS_FIELD(0x6822)
#define VMCS_GUEST_SYSENTER_ESP  VMCS_FIELD(0x6824)
#define VMCS_GUEST_SYSENTER_EIP  VMCS_FIELD(0x6826)
#define VMCS_GUEST_S_CET         VMCS_FIELD(0x6828)
#define VMCS_GUEST_SSP           VMCS_FIELD(0x682a)
#define VMCS_GUEST_SSP_TABLE     VMCS_FIELD(0x682c)

/* Natural-width host-state fields */
#define VMCS_HOST_CR0          VMCS_FIELD(0x6c00)
#define VMCS_HOST_CR3          VMCS_FIELD(0x6c02)
#define VMCS_HOST_CR4          VMCS_FIELD(0x6c04)
#define VMCS_HOST_FS_BASE      VMCS_FIELD(0x6c06)
#define VMCS_HOST_GS_BASE      VMCS_FIELD(0x6c08)
#define VMCS_HOST_TR_BASE      VMCS_FIELD(0x6c0a)
#define VMCS_HOST_GDTR_BASE    VMCS_FIELD(0x6c0c)
#define VMCS_HOST_IDTR_BASE    VMCS_FIELD(0x6c0e)
#define VMCS_HOST_SYSENTER_ESP VMCS_FIELD(0x6c10)
#define VMCS_HOST_SYSENTER_EIP VMCS_FIELD(0x6c12)
#define VMCS_HOST_RSP          VMCS_FIELD(0x6c14)
#define VMCS_HOST_RIP          VMCS_FIELD(0x6c16)
#define VMCS_HOST_S_CET        VMCS_FIELD(0x6c18)
#define VMCS_HOST_SSP          VMCS_FIELD(0x6c1a)
#define VMCS_HOST_SSP_TABLE    VMCS_FIELD(0x6c1c)

/* Pin-based VM-execution controls, SDM 25.6.1 */
#define PIN_EXTERNAL_INTERRUPT_EXITING (1u << 0)
#define PIN_NMI_EXITING                (1u << 3)
#define PIN_VIRTUAL_NMIS               (1u << 5)
#define PIN_PREEMPTION_TIMER           (1u << 6)
#define PIN_POSTED_INTERRUPTS          (1u << 7)

/* Primary processor-based VM-execution controls, SDM 25.6.2 */
#define PROC_INTERRUPT_WINDOW_EXITING (1u << 2)
#define PROC_USE_TSC_OFFSETTING       (1u << 3)
#define PROC_HLT_EXITING              (1u << 7)
#define PROC_INVLPG_EXITING           (1u << 9)
#define PROC_MWAIT_EXITING            (1u << 10)
#define PROC_RDPMC_EXITING            (1u << 11)
#define PROC_RDTSC_EXITING            (1u << 12)
#define PROC_CR3_LOAD_EXITING         (1u << 15)
#define PROC_CR3_STORE_EXITING        (1u << 16)
#define PROC_ACTIVATE_TERTIARY        (1u << 17)
#define PROC_CR8_LOAD_EXITING         (1u << 19)
#define PROC_CR8_STORE_EXITING        (1u << 20)
#define PROC_USE_TPR_SHADOW           (1u << 21)
#define PROC_NMI_WINDOW_EXITING       (1u << 22)
#define PROC_MOV_DR_EXITING           (1u << 23)
#define PROC_UNCONDITIONAL_IO_EXITING (1u << 24)
#define PROC_USE_IO_BITMAPS           (1u << 25)
#define PROC_MONITOR_TRAP_FLAG        (1u << 27)
#define PROC_USE_MSR_BITMAPS          (1u << 28)
#define PROC_MONITOR_EXITING          (1u << 29)
#define PROC_PAUSE_EXITING            (1u << 30)
#define PROC_ACTIVATE_SECONDARY       (1u << 31)

/* Secondary processor-based VM-execution controls, SDM 25.6.2 */
#define PROC2_VIRTUALIZE_APIC_ACCESSES     (1u << 0)
#define PROC2_ENABLE_EPT                   (1u << 1)
#define PROC2_DESCRIPTOR_TABLE_EXITING     (1u << 2)
#define PROC2_ENABLE_RDTSCP                (1u << 3)
#define PROC2_VIRTUALIZE_X2APIC            (1u << 4)
#define PROC2_ENABLE_VPID                  (1u << 5)
#define PROC2_WBINVD_EXITING               (1u << 6)
#define PROC2_UNRESTRICTED_GUEST           (1u << 7)
#define PROC2_APIC_REGISTER_VIRTUALIZATION (1u << 8)
#define PROC2_VIRTUAL_INTERRUPT_DELIVERY   (1u << 9)
#define PROC2_PAUSE_LOOP_EXITING           (1u << 10)
#define PROC2_RDRAND_EXITING               (1u << 11)
#define PROC2_ENABLE_INVPCID               (1u << 12)
#define PROC2_ENABLE_VM_FUNCTIONS          (1u << 13)
#define PROC2_VMCS_SHADOWING               (1u << 14)
#define PROC2_ENCLS_EXITING                (1u << 15)
#define PROC2_RDSEED_EXITING               (1u << 16)
#define PROC2_ENABLE_PML                   (1u << 17)
#define PROC2_EPT_VIOLATION_VE             (1u << 18)
#define PROC2_CONCEAL_FROM_PT              (1u << 19)
#define PROC2_ENABLE_XSAVES                (1u << 20)
#define PROC2_PASID_TRANSLATION            (1u << 21)
#define PROC2_MODE_BASED_EXECUTE           (1u << 22)
#define PROC2_SUB_PAGE_WRITE               (1u << 23)
#define PROC2_PT_USES_GPA                  (1u << 24)
#define PROC2_USE_TSC_SCALING              (1u << 25)
#define PROC2_ENABLE_USER_WAIT             (1u << 26)
#define PROC2_ENABLE_PCONFIG               (1u << 27)
#define PROC2_ENCLV_EXITING                (1u << 28)
#define PROC2_BUS_LOCK_DETECTION           (1u << 30)
#define PROC2_INSTRUCTION_TIMEOUT          (1u << 31)

/* Tertiary processor-based VM-execution controls, SDM 25.6.2 (64 bits, allowed-1 only) */
#define PROC3_LOADIWKEY_EXITING         ((uint64_t)1 << 0)
#define PROC3_ENABLE_HLAT               ((uint64_t)1 << 1)
#define PROC3_EPT_PAGING_WRITE          ((uint64_t)1 << 2)
#define PROC3_GUEST_PAGING_VERIFICATION ((uint64_t)1 << 3)
#define PROC3_IPI_VIRTUALIZATION        ((uint64_t)1 << 4)
#define PROC3_ENABLE_MSR_LIST           ((uint64_t)1 << 6)
#define PROC3_VIRTUALIZE_SPEC_CTRL      ((uint64_t)1 << 7)
#define PROC3_APIC_TIMER_VIRTUALIZATION ((uint64_t)1 << 8)

/* Primary VM-exit controls, SDM 25.7.1 */
#define EXIT_CTL_SAVE_DEBUG_CONTROLS   (1u << 2)
#define EXIT_CTL_HOST_64BIT            (1u << 9)
#define EXIT_CTL_LOAD_PERF_GLOBAL_CTRL (1u << 12)
#define EXIT_CTL_ACK_INTERRUPT         (1u << 15)
#define EXIT_CTL_SAVE_PAT              (1u << 18)
#define EXIT_CTL_LOAD_PAT              (1u << 19)
#define EXIT_CTL_SAVE_EFER             (1u << 20)
#define EXIT_CTL_LOAD_EFER             (1u << 21)
#define EXIT_CTL_SAVE_PREEMPTION_TIMER (1u << 22)
#define EXIT_CTL_CLEAR_BNDCFGS         (1u << 23)
#define EXIT_CTL_CONCEAL_FROM_PT       (1u << 24)
#define EXIT_CTL_CLEAR_RTIT_CTL        (1u << 25)
#define EXIT_CTL_CLEAR_LBR_CTL         (1u << 26)
#define EXIT_CTL_CLEAR_UINV            (1u << 27)
#define EXIT_CTL_LOAD_CET              (1u << 28)
#define EXIT_CTL_LOAD_PKRS             (1u << 29)
#define EXIT_CTL_SAVE_PERF_GLOBAL_CTRL (1u << 30)
#define EXIT_CTL_ACTIVATE_SECONDARY    (1u << 31)

/* Secondary VM-exit controls, SDM 25.7.1 (64 bits, allowed-1 only) */
#define EXIT2_CTL_SAVE_FRED                     ((uint64_t)1 << 0)
#define EXIT2_CTL_LOAD_FRED                     ((uint64_t)1 << 1)
#define EXIT2_CTL_LOAD_SPEC_CTRL                ((uint64_t)1 << 2)
#define EXIT2_CTL_PREMATURELY_BUSY_SHADOW_STACK ((uint64_t)1 << 3)

/* VM-entry controls, SDM 25.8.1 */
#define ENTRY_CTL_LOAD_DEBUG_CONTROLS     (1u << 2)
#define ENTRY_CTL_IA32E_GUEST             (1u << 9)
#define ENTRY_CTL_ENTRY_TO_SMM            (1u << 10)
#define ENTRY_CTL_DEACTIVATE_DUAL_MONITOR (1u << 11)
#define ENTRY_CTL_LOAD_PERF_GLOBAL_CTRL   (1u << 13)
#define ENTRY_CTL_LOAD_PAT                (1u << 14)
#define ENTRY_CTL_LOAD_EFER               (1u << 15)
#define ENTRY_CTL_LOAD_BNDCFGS            (1u << 16)
#define ENTRY_CTL_CONCEAL_FROM_PT         (1u << 17)
#define ENTRY_CTL_LOAD_RTIT_CTL           (1u << 18)
#define ENTRY_CTL_LOAD_UINV               (1u << 19)
#define ENTRY_CTL_LOAD_CET                (1u << 20)
#define ENTRY_CTL_LOAD_LBR_CTL            (1u << 21)
#define ENTRY_CTL_LOAD_PKRS               (1u << 22)
#define ENTRY_CTL_LOAD_FRED               (1u << 23)
#define ENTRY_CTL_LOAD_SPEC_CTRL          (1u << 24)

/* Interruption information: VM-entry (SDM 25.8.3), VM-exit (25.9.2) and IDT-vectoring (25.9.3) share the
 * layout. */
#define INTR_INFO_VECTOR        0xffu
#define INTR_INFO_TYPE_SHIFT    8
#define INTR_INFO_TYPE_MASK     (7u << INTR_INFO_TYPE_SHIFT)
#define INTR_INFO_ERROR_VALID   (1u << 11)
#define INTR_INFO_NMI_UNBLOCKED (1u << 12) /* VM-exit only: "NMI unblocking due to IRET" */
#define INTR_INFO_VALID         (1u << 31)
#define INTR_INFO_TYPE(info)    ((info) >> INTR_INFO_TYPE_SHIFT & 7u)

/* Exit reason field, SDM 25.9.1 */
#define EXIT_REASON_BASIC         0xffffu
#define EXIT_REASON_BUS_LOCK      (1u << 26)
#define EXIT_REASON_ENCLAVE       (1u << 27)
#define EXIT_REASON_PENDING_MTF   (1u << 28)
#define EXIT_REASON_FROM_ROOT     (1u << 29)
#define EXIT_REASON_ENTRY_FAILURE (1u << 31)

/* Guest interruptibility state, SDM 25.4.2 */
#define INTERRUPTIBILITY_STI     (1u << 0)
#define INTERRUPTIBILITY_MOV_SS  (1u << 1)
#define INTERRUPTIBILITY_SMI     (1u << 2)
#define INTERRUPTIBILITY_NMI     (1u << 3)
#define INTERRUPTIBILITY_ENCLAVE (1u << 4)

/* Guest activity state, SDM 25.4.2 */
enum vmcs_activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_SIPI };

/* Pending debug exceptions, SDM 25.4.2 */
#define PENDING_DEBUG_B0_B3      0xfull
#define PENDING_DEBUG_BUS_LOCK   (1ull << 11)
#define PENDING_DEBUG_ENABLED_BP (1ull << 12)
#define PENDING_DEBUG_BS         (1ull << 14)
#define PENDING_DEBUG_RTM        (1ull << 16)

/* Segment access rights, SDM table 25-2 */
#define ACCESS_TYPE     0xfu
#define ACCESS_S        (1u << 4)
#define ACCESS_DPL      (3u << 5)
#define ACCESS_P        (1u << 7)
#define ACCESS_AVL      (1u << 12)
#define ACCESS_L        (1u << 13)
#define ACCESS_DB       (1u << 14)
#define ACCESS_G        (1u << 15)
#define ACCESS_UNUSABLE (1u << 16)
#define ACCESS_RESERVED (~0x1f0ffu)

/* EPT pointer, SDM 25.6.11 */
#define EPTP_MEMORY_TYPE 7ull
#define EPTP_WALK_4      (3ull << 3) /* page-walk length minus 1 */
#define EPTP_AD          (1ull << 6)

/* The VMCS link pointer of a VMCS that links nothing. */
#define VMCS_LINK_NONE (~(uint64_t)0)

/* INVEPT and INVVPID types, SDM 31.3 */
enum invept_type { INVEPT_SINGLE = 1, INVEPT_ALL = 2 };
enum invvpid_type { INVVPID_ADDRESS, INVVPID_SINGLE, INVVPID_ALL, INVVPID_SINGLE_KEEP_GLOBAL };
