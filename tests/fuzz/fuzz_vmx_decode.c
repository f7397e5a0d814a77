/* vmx_decode() on arbitrary snapshots: what it accepts has to be within the ranges that the handlers rely on,
 * fields that it was not to read may not change the answer, and the same snapshot gives the same answer. */
#include <stdlib.h>
#include <string.h>

#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_raw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_event(const struct event *event)
{
    MUST(event->type <= EVENT_SOFT_EXCEPTION && event->type != 1);
    MUST(event->type != EVENT_NMI || event->vector == 2);
    MUST(event->type != EVENT_EXCEPTION || event->vector < 32);
    MUST(!event->has_error || event->type == EVENT_EXCEPTION);
    MUST((event->type >= EVENT_SOFT_INTERRUPT) == (event->insn_len != 0) && event->insn_len <= 15);
}

static void check_io(const struct exit_io *io)
{
    MUST(io->size == 1 || io->size == 2 || io->size == 4);
    MUST(io->string || !(io->rep || io->has_string_info));
    if (io->has_string_info) {
        MUST(io->segment <= SEG_GS && (io->write || io->segment == SEG_ES));
        MUST(io->address_size == 2 || io->address_size == 4 || io->address_size == 8);
    }
}

static void check(const struct vmx_raw *raw, enum status status, const struct exit *exit)
{
    MUST(status == STATUS_OK || (status == ERR_INVALID && exit->kind == EXIT_UNEXPECTED));
    MUST(exit->reason == (raw->reason & EXIT_REASON_BASIC) && exit->kind < EXIT_KIND_COUNT);
    if (status != STATUS_OK)
        return;
    MUST(exit->insn_len <= 15);
    MUST(!exit->vectoring.valid || !exit->nmi_unblocked);
    if (exit->vectoring.valid)
        check_event(&exit->vectoring);
    if (exit->kind == EXIT_EXCEPTION)
        check_event(&exit->u.exception);
    else if (exit->kind == EXIT_IO)
        check_io(&exit->u.io);
    else if (exit->kind == EXIT_CR_ACCESS)
        MUST(exit->u.cr.op <= CR_LMSW && exit->u.cr.gpr <= 15 && exit->u.cr.cr <= 8);
    else if (exit->kind == EXIT_DR_ACCESS)
        MUST(exit->u.dr.dr <= 7 && exit->u.dr.gpr <= 15);
    else if (exit->kind == EXIT_NESTED_FAULT)
        MUST(exit->u.nested.read || exit->u.nested.write || exit->u.nested.fetch);
    else if (exit->kind == EXIT_ENTRY_FAILURE)
        MUST(raw->reason & EXIT_REASON_ENTRY_FAILURE);
}

/* Replaces what the exit path would not have read. */
static void spoil(struct vmx_raw *raw, unsigned read)
{
    if (!(read & VMX_NEED_QUALIFICATION))
        raw->qualification = ~raw->qualification;
    if (!(read & VMX_NEED_INSN_LEN))
        raw->insn_len = ~raw->insn_len;
    if (!(read & VMX_NEED_INSN_INFO))
        raw->insn_info = ~raw->insn_info;
    if (!(read & VMX_NEED_INTR_INFO))
        raw->intr_info = ~raw->intr_info;
    if (!(read & VMX_NEED_INTR_ERROR))
        raw->intr_error = ~raw->intr_error;
    if (!(read & VMX_NEED_IDT_INFO))
        raw->idt_info = ~raw->idt_info;
    if (!(read & VMX_NEED_IDT_ERROR))
        raw->idt_error = ~raw->idt_error;
    if (!(read & VMX_NEED_GPA))
        raw->gpa = ~raw->gpa;
    if (!(read & VMX_NEED_GLA))
        raw->gla = ~raw->gla;
    raw->rip = ~raw->rip;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vmx_raw raw;
    struct exit first, second;
    if (size < sizeof(raw))
        return 0;
    memcpy(&raw, data, sizeof(raw));
    if (size > sizeof(raw) && data[sizeof(raw)] & 1) /* mostly reasons that exist */
        raw.reason &= 0x7f | EXIT_REASON_ENTRY_FAILURE;
    memset(&first, 0, sizeof(first));
    memset(&second, 0, sizeof(second));
    enum status status = vmx_decode(&raw, &first);
    check(&raw, status, &first);

    uint32_t basic = raw.reason & EXIT_REASON_BASIC;
    unsigned needs = vmx_needs(basic);
    MUST((vmx_reason_row(basic) == NULL) == (strcmp(vmx_reason_name(basic), "?") == 0));
    spoil(&raw, needs | vmx_needs_more(&raw, needs));
    MUST(vmx_decode(&raw, &second) == status && memcmp(&first, &second, sizeof(first)) == 0);
    return 0;
}
