#include "arch/x86/vmx/vmx_raw.h"

#include "arch/x86/cpu.h"
#include "arch/x86/virt.h"
#include "hv/lib/bits.h"

#define INSN_LEN_MAX 15u /* bytes, SDM volume 2, 2.3.11 */

/* Reason flags that our controls allow beside the basic reason: bus-lock detection can add its bit to any
 * exit. */
#define REASON_ALLOWED (EXIT_REASON_BASIC | EXIT_REASON_BUS_LOCK)

/* Exit qualification of EPT violations, SDM table 28-7. */
#define EPT_QUAL_READ         BIT(0)
#define EPT_QUAL_WRITE        BIT(1)
#define EPT_QUAL_FETCH        BIT(2)
#define EPT_QUAL_PERMISSIONS  (BIT(3) | BIT(4) | BIT(5))
#define EPT_QUAL_LINEAR_VALID BIT(7)
#define EPT_QUAL_FINAL        BIT(8)
/* "NMI unblocking due to IRET" has the same place in all qualifications that have it, and in the exit
 * interruption information (SDM 28.2.3). */
#define QUAL_NMI_UNBLOCKED BIT(12)

/* Exit qualification of notify exits, SDM table 28-15. */
#define NOTIFY_QUAL_CONTEXT_INVALID BIT(0)

static enum status invalid(struct exit *out)
{
    out->kind = EXIT_UNEXPECTED;
    return ERR_INVALID;
}

static bool decode_insn_len(const struct vmx_raw *raw, struct exit *out)
{
    out->insn_len = (uint8_t)raw->insn_len;
    return raw->insn_len - 1 < INSN_LEN_MAX;
}

/* An interruption-information field whose valid bit is set. `length` counts for soft events only. */
static bool decode_event(uint32_t info, uint32_t error, uint32_t length, struct event *out)
{
    uint8_t vector = info & INTR_INFO_VECTOR;
    bool has_error = info & INTR_INFO_ERROR_VALID;
    bool soft = false;
    switch (INTR_INFO_TYPE(info)) {
    case EVENT_EXTERNAL_INTERRUPT:
        break;
    case EVENT_NMI:
        if (vector != VECTOR_NMI)
            return false;
        break;
    case EVENT_EXCEPTION:
        if (vector > 31 || vector == VECTOR_NMI)
            return false;
        break;
    case EVENT_SOFT_INTERRUPT:
        soft = true;
        break;
    case EVENT_PRIV_SOFT_EXCEPTION:
        if (vector != VECTOR_DB)
            return false;
        soft = true;
        break;
    case EVENT_SOFT_EXCEPTION:
        if (vector != VECTOR_BP && vector != VECTOR_OF)
            return false;
        soft = true;
        break;
    default:
        return false;
    }
    if (has_error && INTR_INFO_TYPE(info) != EVENT_EXCEPTION)
        return false;
    if (soft && length - 1 >= INSN_LEN_MAX)
        return false;
    *out = (struct event){
        .valid = true,
        .has_error = has_error,
        .type = (uint8_t)INTR_INFO_TYPE(info),
        .vector = vector,
        .error = has_error ? error : 0,
        .insn_len = soft ? (uint8_t)length : 0,
    };
    return true;
}

static bool decode_vectoring(const struct vmx_raw *raw, struct exit *out)
{
    if (!(raw->idt_info & INTR_INFO_VALID))
        return true;
    return decode_event(raw->idt_info, raw->idt_error, raw->insn_len, &out->vectoring);
}

static bool decode_exception(const struct vmx_raw *raw, struct exit *out)
{
    struct event *event = &out->u.exception;
    if (!(raw->intr_info & INTR_INFO_VALID) || !decode_vectoring(raw, out) ||
        !decode_event(raw->intr_info, raw->intr_error, raw->insn_len, event))
        return false;
    if (event->type == EVENT_EXTERNAL_INTERRUPT || event->type == EVENT_SOFT_INTERRUPT)
        return false;
    if (event->type == EVENT_NMI) {
        out->kind = EXIT_NMI;
        return true;
    }
    bool has_info = event->vector == VECTOR_DB || event->vector == VECTOR_PF;
    out->exception_info = has_info ? raw->qualification : 0;
    /* The bit is undefined after a double fault and during event delivery (SDM 28.2.3). */
    out->nmi_unblocked =
        (raw->intr_info & INTR_INFO_NMI_UNBLOCKED) && event->vector != VECTOR_DF && !out->vectoring.valid;
    return true;
}

#define TASK_SOURCE_GATE 3u /* SDM table 28-2 */

static bool decode_task_switch(const struct vmx_raw *raw, struct exit *out)
{
    out->u.task_switch = (struct exit_task_switch){
        .selector = (uint16_t)raw->qualification,
        .source = (uint8_t)bits_get(raw->qualification, 31, 30),
    };
    /* Through a task gate in the IDT there is a length of soft events only: it is in `vectoring`. */
    bool is_insn = out->u.task_switch.source != TASK_SOURCE_GATE;
    return decode_vectoring(raw, out) && (!is_insn || decode_insn_len(raw, out));
}

/* SDM table 28-3 */
static bool decode_cr(const struct vmx_raw *raw, struct exit *out)
{
    uint64_t qual = raw->qualification;
    struct exit_cr cr = {
        .op = (uint8_t)bits_get(qual, 5, 4),
        .cr = (uint8_t)bits_get(qual, 3, 0),
    };
    switch (cr.op) {
    case CR_MOV_TO:
        if (cr.cr != 0 && cr.cr != 3 && cr.cr != 4 && cr.cr != 8)
            return false;
        cr.gpr = (uint8_t)bits_get(qual, 11, 8);
        break;
    case CR_MOV_FROM:
        /* Reads of CR0 and CR4 take the shadow and never exit. */
        if (cr.cr != 3 && cr.cr != 8)
            return false;
        cr.gpr = (uint8_t)bits_get(qual, 11, 8);
        break;
    case CR_CLTS:
        if (cr.cr != 0)
            return false;
        break;
    case CR_LMSW:
        if (cr.cr != 0)
            return false;
        cr.lmsw_memory = qual & BIT(6);
        cr.lmsw_source = (uint16_t)bits_get(qual, 31, 16);
        break;
    }
    out->u.cr = cr;
    return decode_insn_len(raw, out);
}

/* SDM table 28-4 */
static bool decode_dr(const struct vmx_raw *raw, struct exit *out)
{
    out->u.dr = (struct exit_dr){
        .dr = (uint8_t)bits_get(raw->qualification, 2, 0),
        .write = !(raw->qualification & BIT(4)),
        .gpr = (uint8_t)bits_get(raw->qualification, 11, 8),
    };
    return decode_insn_len(raw, out);
}

/* The VM-exit instruction information of INS and OUTS, SDM table 28-16. */
static bool decode_io_string(const struct vmx_raw *raw, struct exit_io *io)
{
    unsigned address_size = (unsigned)bits_get(raw->insn_info, 9, 7);
    unsigned segment = (unsigned)bits_get(raw->insn_info, 17, 15);
    if (io->size == 0 || address_size > 2 || (io->write && segment > SEG_GS))
        return false;
    io->string = true;
    io->rep = raw->qualification & BIT(5);
    io->has_string_info = true;
    io->segment = io->write ? (uint8_t)segment : SEG_ES;
    io->address_size = (uint8_t)(2u << address_size);
    io->linear = gva(raw->gla);
    return true;
}

/* SDM table 28-5 */
bool vmx_decode_io(const struct vmx_raw *raw, struct exit *out)
{
    uint32_t qual = (uint32_t)raw->qualification;
    uint32_t size = (qual & 7) + 1;
    if (size != 1 && size != 2 && size != 4)
        return false;
    out->u.io = (struct exit_io){
        .port = (uint16_t)(qual >> 16),
        .size = (uint8_t)size,
        .write = !(qual & BIT(3)),
    };
    if ((qual & VMX_IO_STRING) && !decode_io_string(raw, &out->u.io))
        return false;
    return decode_insn_len(raw, out);
}

bool vmx_decode_ept_violation(const struct vmx_raw *raw, struct exit *out)
{
    uint64_t qual = raw->qualification;
    bool linear_valid = qual & EPT_QUAL_LINEAR_VALID;
    if (!(qual & (EPT_QUAL_READ | EPT_QUAL_WRITE | EPT_QUAL_FETCH)))
        return false;
    out->u.nested = (struct exit_nested){
        .address = gpa(raw->gpa),
        .linear = gva(linear_valid ? raw->gla : 0),
        .linear_valid = linear_valid,
        .read = qual & EPT_QUAL_READ,
        .write = qual & EPT_QUAL_WRITE,
        .fetch = qual & EPT_QUAL_FETCH,
        .present = qual & EPT_QUAL_PERMISSIONS,
        .during_walk = linear_valid && !(qual & EPT_QUAL_FINAL),
    };
    if (!decode_vectoring(raw, out))
        return false;
    out->nmi_unblocked = (qual & QUAL_NMI_UNBLOCKED) && !out->vectoring.valid;
    return true;
}

static bool decode_notify(const struct vmx_raw *raw, struct exit *out)
{
    if (!decode_vectoring(raw, out))
        return false;
    /* What the VMCS says of the guest is not to be trusted then: the VM has to stop. */
    if (raw->qualification & NOTIFY_QUAL_CONTEXT_INVALID)
        out->kind = EXIT_UNEXPECTED;
    out->nmi_unblocked = (raw->qualification & QUAL_NMI_UNBLOCKED) && !out->vectoring.valid;
    return true;
}

static bool decode_apic_access(const struct vmx_raw *raw, struct exit *out)
{
    out->u.apic = (struct exit_apic){
        .offset = (uint16_t)bits_get(raw->qualification, 11, 0),
        .access = (uint8_t)bits_get(raw->qualification, 15, 12),
    };
    return decode_vectoring(raw, out);
}

static bool decode_shape(const struct vmx_raw *raw, enum vmx_shape shape, struct exit *out)
{
    switch (shape) {
    case VMX_SHAPE_PLAIN:
        return true;
    case VMX_SHAPE_INSN:
        return decode_insn_len(raw, out);
    case VMX_SHAPE_EXCEPTION:
        return decode_exception(raw, out);
    case VMX_SHAPE_INTERRUPT:
        return vmx_decode_vector(raw->intr_info, out);
    case VMX_SHAPE_SIPI:
        out->u.sipi = (uint8_t)raw->qualification;
        return true;
    case VMX_SHAPE_TASK_SWITCH:
        return decode_task_switch(raw, out);
    case VMX_SHAPE_INVLPG:
        out->u.invlpg = gva(raw->qualification);
        return decode_insn_len(raw, out);
    case VMX_SHAPE_CR:
        return decode_cr(raw, out);
    case VMX_SHAPE_DR:
        return decode_dr(raw, out);
    case VMX_SHAPE_IO:
        return vmx_decode_io(raw, out);
    case VMX_SHAPE_APIC_ACCESS:
        return decode_apic_access(raw, out);
    case VMX_SHAPE_APIC_WRITE:
        out->u.apic = (struct exit_apic){.offset = (uint16_t)bits_get(raw->qualification, 11, 0)};
        return true;
    case VMX_SHAPE_APIC_EOI:
        out->u.interrupt = (uint8_t)raw->qualification;
        return true;
    case VMX_SHAPE_EPT_VIOLATION:
        return vmx_decode_ept_violation(raw, out);
    case VMX_SHAPE_EPT_MISCONFIG:
        out->u.nested = (struct exit_nested){.address = gpa(raw->gpa)};
        return decode_vectoring(raw, out);
    case VMX_SHAPE_NOTIFY:
        return decode_notify(raw, out);
    case VMX_SHAPE_ENTRY_FAILURE:
        break; /* without bit 31: the SDM knows no such exit */
    }
    return false;
}

/* Bit 31: VM entry failed after the state of the guest had begun to be loaded (SDM 27.8). */
static enum status decode_entry_failure(const struct vmx_raw *raw, uint32_t basic, struct exit *out)
{
    if (basic >= VMX_REASON_COUNT || vmx_reason_shapes[basic].shape != VMX_SHAPE_ENTRY_FAILURE)
        return invalid(out);
    out->kind = EXIT_ENTRY_FAILURE;
    out->u.entry_failure.qualification = raw->qualification;
    return STATUS_OK;
}

enum status vmx_decode(const struct vmx_raw *raw, struct exit *out)
{
    uint32_t basic = raw->reason & EXIT_REASON_BASIC;
    out->reason = basic;
    out->insn_len = 0;
    out->nmi_unblocked = false;
    out->vectoring.valid = false;
    if (raw->reason & ~REASON_ALLOWED) {
        if ((raw->reason & ~REASON_ALLOWED) == EXIT_REASON_ENTRY_FAILURE)
            return decode_entry_failure(raw, basic, out);
        return invalid(out);
    }
    if (basic >= VMX_REASON_COUNT) {
        out->kind = EXIT_UNEXPECTED;
        return STATUS_OK;
    }
    const struct vmx_reason_shape *row = &vmx_reason_shapes[basic];
    out->kind = (enum exit_kind)row->kind;
    if (!decode_shape(raw, (enum vmx_shape)row->shape, out))
        return invalid(out);
    return STATUS_OK;
}
