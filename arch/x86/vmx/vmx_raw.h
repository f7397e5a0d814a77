/* The snapshot of a VM exit, as VMX gives it. vmx_hw.c fills exactly the fields that vmx_needs() and
 * vmx_needs_more() ask for; vmx_decode() reads no others, so they need not even be cleared. It is what the
 * flight recorder keeps and what unit tests replay. */
#pragma once

#include "arch/x86/vmx/vmcs.h"
#include "hv/exits/exit.h"

/* Basic exit reasons, SDM volume 3, appendix C, by its names. Numbers left out are reserved. */
enum vmx_reason {
    VMX_REASON_EXCEPTION_OR_NMI = 0,
    VMX_REASON_EXTERNAL_INTERRUPT = 1,
    VMX_REASON_TRIPLE_FAULT = 2,
    VMX_REASON_INIT_SIGNAL = 3,
    VMX_REASON_SIPI = 4,
    VMX_REASON_IO_SMI = 5,
    VMX_REASON_OTHER_SMI = 6,
    VMX_REASON_INTERRUPT_WINDOW = 7,
    VMX_REASON_NMI_WINDOW = 8,
    VMX_REASON_TASK_SWITCH = 9,
    VMX_REASON_CPUID = 10,
    VMX_REASON_GETSEC = 11,
    VMX_REASON_HLT = 12,
    VMX_REASON_INVD = 13,
    VMX_REASON_INVLPG = 14,
    VMX_REASON_RDPMC = 15,
    VMX_REASON_RDTSC = 16,
    VMX_REASON_RSM = 17,
    VMX_REASON_VMCALL = 18,
    VMX_REASON_VMCLEAR = 19,
    VMX_REASON_VMLAUNCH = 20,
    VMX_REASON_VMPTRLD = 21,
    VMX_REASON_VMPTRST = 22,
    VMX_REASON_VMREAD = 23,
    VMX_REASON_VMRESUME = 24,
    VMX_REASON_VMWRITE = 25,
    VMX_REASON_VMXOFF = 26,
    VMX_REASON_VMXON = 27,
    VMX_REASON_CR_ACCESS = 28,
    VMX_REASON_MOV_DR = 29,
    VMX_REASON_IO_INSTRUCTION = 30,
    VMX_REASON_RDMSR = 31,
    VMX_REASON_WRMSR = 32,
    VMX_REASON_ENTRY_FAILURE_GUEST_STATE = 33,
    VMX_REASON_ENTRY_FAILURE_MSR_LOADING = 34,
    VMX_REASON_MWAIT = 36,
    VMX_REASON_MONITOR_TRAP_FLAG = 37,
    VMX_REASON_MONITOR = 39,
    VMX_REASON_PAUSE = 40,
    VMX_REASON_ENTRY_FAILURE_MACHINE_CHECK = 41,
    VMX_REASON_TPR_BELOW_THRESHOLD = 43,
    VMX_REASON_APIC_ACCESS = 44,
    VMX_REASON_VIRTUALIZED_EOI = 45,
    VMX_REASON_GDTR_IDTR_ACCESS = 46,
    VMX_REASON_LDTR_TR_ACCESS = 47,
    VMX_REASON_EPT_VIOLATION = 48,
    VMX_REASON_EPT_MISCONFIGURATION = 49,
    VMX_REASON_INVEPT = 50,
    VMX_REASON_RDTSCP = 51,
    VMX_REASON_PREEMPTION_TIMER = 52,
    VMX_REASON_INVVPID = 53,
    VMX_REASON_WBINVD = 54,
    VMX_REASON_XSETBV = 55,
    VMX_REASON_APIC_WRITE = 56,
    VMX_REASON_RDRAND = 57,
    VMX_REASON_INVPCID = 58,
    VMX_REASON_VMFUNC = 59,
    VMX_REASON_ENCLS = 60,
    VMX_REASON_RDSEED = 61,
    VMX_REASON_PML_FULL = 62,
    VMX_REASON_XSAVES = 63,
    VMX_REASON_XRSTORS = 64,
    VMX_REASON_PCONFIG = 65,
    VMX_REASON_SPP_EVENT = 66,
    VMX_REASON_UMWAIT = 67,
    VMX_REASON_TPAUSE = 68,
    VMX_REASON_LOADIWKEY = 69,
    VMX_REASON_ENCLV = 70,
    VMX_REASON_ENQCMD_PASID = 72,
    VMX_REASON_ENQCMDS_PASID = 73,
    VMX_REASON_BUS_LOCK = 74,
    VMX_REASON_NOTIFY = 75,
    VMX_REASON_SEAMCALL = 76,
    VMX_REASON_TDCALL = 77,
    VMX_REASON_RDMSRLIST = 78,
    VMX_REASON_WRMSRLIST = 79,
    VMX_REASON_URDMSR = 80,
    VMX_REASON_UWRMSR = 81,
    VMX_REASON_RDMSR_IMMEDIATE = 84,
    VMX_REASON_WRMSR_IMMEDIATE = 85,
    VMX_REASON_COUNT = 86
};

/* Which VMCS fields a reason needs beyond `reason` and `rip`. */
enum vmx_need {
    VMX_NEED_QUALIFICATION = 1 << 0,
    VMX_NEED_INSN_LEN = 1 << 1,
    VMX_NEED_INSN_INFO = 1 << 2,
    VMX_NEED_INTR_INFO = 1 << 3, /* VM-exit interruption information */
    VMX_NEED_GPA = 1 << 4,
    VMX_NEED_GLA = 1 << 5,
    VMX_NEED_IDT_INFO = 1 << 6,   /* IDT-vectoring information: exits that can hit event delivery */
    VMX_NEED_INTR_ERROR = 1 << 7, /* only from vmx_needs_more() */
    VMX_NEED_IDT_ERROR = 1 << 8,  /* only from vmx_needs_more() */
};

struct vmx_raw {
    uint32_t reason; /* whole field; bit 31: entry failure */
    uint32_t insn_len;
    uint32_t insn_info;
    uint32_t intr_info, intr_error;
    uint32_t idt_info, idt_error;
    uint64_t qualification;
    uint64_t gpa, gla;
    uint64_t rip;
};

/* Exit qualification of I/O instructions, SDM table 28-5, bit 4: INS or OUTS. */
#define VMX_IO_STRING (1u << 4)

/* How vmx_decode() reads the snapshot of a reason. */
enum vmx_shape {
    VMX_SHAPE_PLAIN, /* nothing beyond the kind */
    VMX_SHAPE_INSN,  /* an instruction: its length */
    VMX_SHAPE_EXCEPTION,
    VMX_SHAPE_INTERRUPT,
    VMX_SHAPE_SIPI,
    VMX_SHAPE_TASK_SWITCH,
    VMX_SHAPE_INVLPG,
    VMX_SHAPE_CR,
    VMX_SHAPE_DR,
    VMX_SHAPE_IO,
    VMX_SHAPE_APIC_ACCESS,
    VMX_SHAPE_APIC_WRITE,
    VMX_SHAPE_APIC_EOI,
    VMX_SHAPE_EPT_VIOLATION,
    VMX_SHAPE_EPT_MISCONFIG,
    VMX_SHAPE_NOTIFY,
    VMX_SHAPE_ENTRY_FAILURE,
};

/* The half of the exit table that the exit path reads; the words are in struct vmx_reason_row. */
struct vmx_reason_shape {
    uint8_t needs; /* enum vmx_need */
    uint8_t kind;  /* enum exit_kind */
    uint8_t shape; /* enum vmx_shape */
};
extern const struct vmx_reason_shape vmx_reason_shapes[VMX_REASON_COUNT];
#define VMX_NEED_EVERYTHING 0x7fu

/* The needs-mask of a basic exit reason (0..65535): one table row each, constant time; unknown: everything.
 */
static inline unsigned vmx_needs(uint32_t basic_reason)
{
    return basic_reason < VMX_REASON_COUNT ? vmx_reason_shapes[basic_reason].needs : VMX_NEED_EVERYTHING;
}

/* Is this interruption information of a software event, whose instruction length belongs to it? */
static inline bool vmx_intr_info_is_soft(uint32_t info)
{
    return (info & INTR_INFO_VALID) && INTR_INFO_TYPE(info) >= EVENT_SOFT_INTERRUPT;
}

/* Fields that only the first batch can tell to be valid; call it once the fields of vmx_needs() are there,
 * and read what it asks for before vmx_decode(). This keeps the common exits short: a port access that is no
 * string instruction and an EPT violation outside event delivery cost no further VMREAD. */
static inline unsigned vmx_needs_more(const struct vmx_raw *raw, unsigned needs)
{
    unsigned more = 0;
    if ((needs & VMX_NEED_INTR_INFO) && (raw->intr_info & INTR_INFO_VALID)) {
        if (raw->intr_info & INTR_INFO_ERROR_VALID)
            more |= VMX_NEED_INTR_ERROR;
        if (vmx_intr_info_is_soft(raw->intr_info))
            more |= VMX_NEED_INSN_LEN;
    }
    if ((needs & VMX_NEED_IDT_INFO) && (raw->idt_info & INTR_INFO_VALID)) {
        if (raw->idt_info & INTR_INFO_ERROR_VALID)
            more |= VMX_NEED_IDT_ERROR;
        if (vmx_intr_info_is_soft(raw->idt_info))
            more |= VMX_NEED_INSN_LEN;
    }
    if ((raw->reason & EXIT_REASON_BASIC) == VMX_REASON_IO_INSTRUCTION &&
        (raw->qualification & VMX_IO_STRING))
        more |= VMX_NEED_INSN_INFO | VMX_NEED_GLA;
    return more & ~needs;
}

/* Pure. ERR_INVALID: the snapshot contradicts the SDM (out->kind is then EXIT_UNEXPECTED, out->reason set).
 * Sets kind, reason, insn_len, nmi_unblocked, vectoring.valid and the union member of the kind, nothing
 * else. */
enum status vmx_decode(const struct vmx_raw *raw, struct exit *out);

/* The fast way through vmx_decode() for exits that need nothing but the instruction's length (CPUID, RDMSR,
 * WRMSR, HLT ...) or not even that (preemption timer, windows): same result. `length` is 0 for the latter. */
static inline bool vmx_is_plain(uint32_t reason)
{
    return reason < VMX_REASON_COUNT && !(vmx_reason_shapes[reason].needs & ~(unsigned)VMX_NEED_INSN_LEN);
}
static inline void vmx_decode_plain(uint32_t reason, uint32_t length, struct exit *out)
{
    out->kind = (enum exit_kind)vmx_reason_shapes[reason].kind;
    out->reason = reason;
    out->insn_len = (uint8_t)length;
    out->nmi_unblocked = false;
    out->vectoring.valid = false;
}

/* What the interruption information adds to that for EXTERNAL_INTERRUPT. False: it is not of one, though
 * "acknowledge interrupt on exit" is set (SDM 28.2.2). */
static inline bool vmx_decode_vector(uint32_t intr_info, struct exit *out)
{
    if ((intr_info & (INTR_INFO_VALID | INTR_INFO_TYPE_MASK)) !=
        (INTR_INFO_VALID | EVENT_EXTERNAL_INTERRUPT << INTR_INFO_TYPE_SHIFT))
        return false;
    out->u.interrupt = intr_info & INTR_INFO_VECTOR;
    return true;
}

/* The same for two more reasons of busy guests, IO_INSTRUCTION and EPT_VIOLATION, whose fields are all there.
 * False: they contradict the SDM. */
bool vmx_decode_io(const struct vmx_raw *raw, struct exit *out);
bool vmx_decode_ept_violation(const struct vmx_raw *raw, struct exit *out);

/* Name of a basic exit reason as in the SDM's appendix C, "EPT_VIOLATION"; "?" when unknown. */
const char *vmx_reason_name(uint32_t basic_reason);

/* One row of the exit table, for docs/exits.md and tests; NULL: the SDM does not know the reason. */
struct vmx_reason_row {
    const char *name;     /* as in the SDM's appendix C, in capitals */
    const char *kind;     /* the enum exit_kind it decodes to, as text: "EXIT_CPUID" */
    const char *handling; /* how it is handled, or why it cannot occur with our controls */
};
const struct vmx_reason_row *vmx_reason_row(uint32_t basic_reason);
