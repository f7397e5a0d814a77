/* The snapshot of a VM exit, as VMX gives it. vmx_hw.c fills exactly the fields that vmx_needs() asks for;
 * the others are zero. It is what the flight recorder keeps and what unit tests replay. */
#pragma once

#include "hv/exit.h"

/* Which VMCS fields a reason needs beyond `reason` and `rip`. */
enum vmx_need {
    VMX_NEED_QUALIFICATION = 1 << 0,
    VMX_NEED_INSN_LEN = 1 << 1,
    VMX_NEED_INSN_INFO = 1 << 2,
    VMX_NEED_INTR_INFO = 1 << 3, /* VM-exit interruption information and error code */
    VMX_NEED_GPA = 1 << 4,
    VMX_NEED_GLA = 1 << 5,
    VMX_NEED_IDT_INFO = 1 << 6, /* IDT-vectoring information and error code: exits that can hit event delivery */
};

struct vmx_raw {
    uint32_t reason;        /* whole field; bit 31: entry failure */
    uint32_t insn_len;
    uint32_t insn_info;
    uint32_t intr_info, intr_error;
    uint32_t idt_info, idt_error;
    uint64_t qualification;
    uint64_t gpa, gla;
    uint64_t rip;
};

/* The needs-mask of a basic exit reason (0..65535): one table row each, constant time; unknown: everything. */
unsigned vmx_needs(uint32_t basic_reason);

/* Pure. ERR_INVALID: the snapshot contradicts the SDM (out->kind is then EXIT_UNEXPECTED, out->reason set). */
enum status vmx_decode(const struct vmx_raw *raw, struct exit *out);

/* Name of a basic exit reason as in the SDM's appendix C, "EPT_VIOLATION"; "?" when unknown. */
const char *vmx_reason_name(uint32_t basic_reason);
