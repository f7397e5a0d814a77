#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/virt.h"
#include "arch/x86/vmx/vmx_raw.h"
#include "tests/tools/exits_doc.h"

#define VALID               INTR_INFO_VALID
#define EVENT(type, vector) (VALID | (uint32_t)(type) << 8 | (vector))
#define ENTRY_FAILED        EXIT_REASON_ENTRY_FAILURE

static struct exit out;

/* Decodes into a struct full of junk, so that a field that was forgotten shows. */
static enum status decode(struct vmx_raw raw)
{
    memset(&out, 0xa5, sizeof(out));
    return vmx_decode(&raw, &out);
}

static void expect_ok(struct vmx_raw raw, enum exit_kind kind)
{
    assert_int_equal(decode(raw), STATUS_OK);
    assert_int_equal(out.kind, kind);
    assert_int_equal(out.reason, raw.reason & 0xffff);
}

static void expect_invalid(struct vmx_raw raw)
{
    assert_int_equal(decode(raw), ERR_INVALID);
    assert_int_equal(out.kind, EXIT_UNEXPECTED);
    assert_int_equal(out.reason, raw.reason & 0xffff);
}
#define OK(kind, ...) expect_ok((struct vmx_raw){__VA_ARGS__}, kind)
#define INVALID(...)  expect_invalid((struct vmx_raw){__VA_ARGS__})

static void test_instructions(void **state)
{
    static const struct {
        uint32_t reason;
        enum exit_kind kind;
    } rows[] = {
        {10, EXIT_CPUID},     {11, EXIT_VIRT_INSN}, {12, EXIT_HLT},         {13, EXIT_INVD},
        {15, EXIT_RDPMC},     {16, EXIT_RDTSC},     {17, EXIT_VIRT_INSN},   {18, EXIT_HYPERCALL},
        {19, EXIT_VIRT_INSN}, {20, EXIT_VIRT_INSN}, {21, EXIT_VIRT_INSN},   {22, EXIT_VIRT_INSN},
        {23, EXIT_VIRT_INSN}, {24, EXIT_VIRT_INSN}, {25, EXIT_VIRT_INSN},   {26, EXIT_VIRT_INSN},
        {27, EXIT_VIRT_INSN}, {31, EXIT_RDMSR},     {32, EXIT_WRMSR},       {36, EXIT_MWAIT},
        {39, EXIT_MONITOR},   {40, EXIT_PAUSE},     {46, EXIT_DESC_ACCESS}, {47, EXIT_DESC_ACCESS},
        {50, EXIT_VIRT_INSN}, {51, EXIT_RDTSCP},    {53, EXIT_VIRT_INSN},   {54, EXIT_WBINVD},
        {55, EXIT_XSETBV},    {57, EXIT_RDRAND},    {58, EXIT_INVPCID},     {59, EXIT_VIRT_INSN},
        {60, EXIT_VIRT_INSN}, {61, EXIT_RDSEED},    {63, EXIT_XSAVES},      {64, EXIT_XSAVES},
        {65, EXIT_VIRT_INSN}, {67, EXIT_UMWAIT},    {68, EXIT_UMWAIT},      {69, EXIT_VIRT_INSN},
        {70, EXIT_VIRT_INSN}, {76, EXIT_VIRT_INSN}, {77, EXIT_VIRT_INSN},   {78, EXIT_VIRT_INSN},
        {79, EXIT_VIRT_INSN}, {80, EXIT_VIRT_INSN}, {81, EXIT_VIRT_INSN},   {84, EXIT_VIRT_INSN},
        {85, EXIT_VIRT_INSN},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(vmx_needs(rows[i].reason), VMX_NEED_INSN_LEN);
        OK(rows[i].kind, .reason = rows[i].reason, .insn_len = 2);
        assert_int_equal(out.insn_len, 2);
        assert_false(out.vectoring.valid || out.nmi_unblocked);
        OK(rows[i].kind, .reason = rows[i].reason, .insn_len = 15);
        INVALID(.reason = rows[i].reason, .insn_len = 16);
        INVALID(.reason = rows[i].reason, .insn_len = 0);
    }
}

static void test_plain_reasons(void **state)
{
    static const struct {
        uint32_t reason;
        enum exit_kind kind;
    } rows[] = {
        {2, EXIT_TRIPLE_FAULT}, {3, EXIT_INIT},        {5, EXIT_UNEXPECTED},  {6, EXIT_UNEXPECTED},
        {7, EXIT_INTR_WINDOW},  {8, EXIT_NMI_WINDOW},  {37, EXIT_UNEXPECTED}, {43, EXIT_TPR_BELOW},
        {52, EXIT_TIMER},       {62, EXIT_UNEXPECTED}, {66, EXIT_UNEXPECTED}, {72, EXIT_UNEXPECTED},
        {73, EXIT_UNEXPECTED},  {74, EXIT_BUS_LOCK},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(vmx_needs(rows[i].reason), 0);
        /* Whatever else is in the snapshot is left over from another exit. */
        OK(rows[i].kind, .reason = rows[i].reason, .idt_info = EVENT(0, 99), .insn_len = 77,
           .qualification = 1u << 12);
        assert_int_equal(out.insn_len, 0);
        assert_false(out.vectoring.valid || out.nmi_unblocked);
    }
}

static void test_unknown_reasons(void **state)
{
    static const uint32_t reasons[] = {35, 38, 42, 71, 82, 83, 86, 1000, 0xffff};
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
        OK(EXIT_UNEXPECTED, .reason = reasons[i]);
        assert_int_equal(vmx_needs(reasons[i]), VMX_NEED_EVERYTHING);
        assert_null(vmx_reason_row(reasons[i]));
        assert_string_equal(vmx_reason_name(reasons[i]), "?");
    }
}

static void test_reason_flags(void **state)
{
    OK(EXIT_CPUID, .reason = 10 | EXIT_REASON_BUS_LOCK, .insn_len = 2);
    static const uint32_t flags[] = {
        1u << 16, 1u << 25, EXIT_REASON_ENCLAVE, EXIT_REASON_PENDING_MTF, EXIT_REASON_FROM_ROOT, 1u << 30};
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        INVALID(.reason = 10 | flags[i], .insn_len = 2);
}

static void test_entry_failures(void **state)
{
    static const uint32_t reasons[] = {33, 34, 41};
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
        OK(EXIT_ENTRY_FAILURE, .reason = ENTRY_FAILED | reasons[i], .qualification = 4);
        assert_int_equal(out.u.entry_failure.qualification, 4);
        INVALID(.reason = reasons[i], .qualification = 4);
    }
    INVALID(.reason = ENTRY_FAILED | 10, .insn_len = 2);
    INVALID(.reason = ENTRY_FAILED | 999);
}

static void test_exceptions(void **state)
{
    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_PF) | INTR_INFO_ERROR_VALID, .intr_error = 6,
       .qualification = 0xdead000);
    assert_true(out.u.exception.valid && out.u.exception.has_error);
    assert_int_equal(out.u.exception.vector, VECTOR_PF);
    assert_int_equal(out.u.exception.type, EVENT_EXCEPTION);
    assert_int_equal(out.u.exception.error, 6);
    assert_int_equal(out.exception_info, 0xdead000);
    assert_int_equal(out.insn_len, 0);

    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_DB), .intr_error = 6, .qualification = DR6_BS);
    assert_int_equal(out.exception_info, DR6_BS);
    assert_false(out.u.exception.has_error);
    assert_int_equal(out.u.exception.error, 0);

    OK(EXIT_EXCEPTION, .intr_info = EVENT(6, VECTOR_BP), .insn_len = 1, .qualification = 5);
    assert_int_equal(out.u.exception.insn_len, 1);
    assert_int_equal(out.exception_info, 0);
    OK(EXIT_EXCEPTION, .intr_info = EVENT(5, VECTOR_DB), .insn_len = 1);
    assert_int_equal(out.u.exception.type, EVENT_PRIV_SOFT_EXCEPTION);
    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_UD), .insn_len = 9);
    assert_int_equal(out.u.exception.insn_len, 0);

    OK(EXIT_NMI, .intr_info = EVENT(2, 2));
    OK(EXIT_NMI, .intr_info = EVENT(2, 2) | INTR_INFO_NMI_UNBLOCKED);
    assert_false(out.nmi_unblocked);
}

static void test_impossible_exceptions(void **state)
{
    INVALID(.intr_info = EVENT(3, VECTOR_PF) & ~VALID);
    INVALID(.intr_info = EVENT(0, 40));                /* an interrupt is another reason */
    INVALID(.intr_info = EVENT(4, 40), .insn_len = 2); /* so is INT n */
    INVALID(.intr_info = EVENT(1, 3));                 /* reserved types */
    INVALID(.intr_info = EVENT(7, 3));
    INVALID(.intr_info = EVENT(2, 3));  /* NMI with another vector */
    INVALID(.intr_info = EVENT(3, 32)); /* exceptions end at 31 */
    INVALID(.intr_info = EVENT(3, VECTOR_NMI));
    INVALID(.intr_info = EVENT(5, VECTOR_BP), .insn_len = 1);
    INVALID(.intr_info = EVENT(6, VECTOR_DB), .insn_len = 1);
    INVALID(.intr_info = EVENT(6, VECTOR_BP), .insn_len = 0);
    INVALID(.intr_info = EVENT(6, VECTOR_OF), .insn_len = 16);
    INVALID(.intr_info = EVENT(6, VECTOR_BP) | INTR_INFO_ERROR_VALID, .insn_len = 1);
    INVALID(.intr_info = EVENT(3, VECTOR_GP), .idt_info = EVENT(7, 0));
}

static void test_nmi_unblocking_by_faults(void **state)
{
    uint32_t unblocked = INTR_INFO_NMI_UNBLOCKED;
    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_GP) | unblocked);
    assert_true(out.nmi_unblocked);
    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_GP));
    assert_false(out.nmi_unblocked);
    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_DF) | unblocked); /* undefined there */
    assert_false(out.nmi_unblocked);
    OK(EXIT_EXCEPTION, .intr_info = EVENT(3, VECTOR_GP) | unblocked,
       .idt_info = EVENT(0, 40)); /* and there */
    assert_false(out.nmi_unblocked);
}

/* Every reason that can interrupt event delivery takes the event over; no other one does. */
static void test_vectoring(void **state)
{
    static const struct vmx_raw interrupting[] = {
        {.reason = 0, .intr_info = EVENT(3, VECTOR_PF)},
        {.reason = 9, .qualification = 3ull << 30 | 0x28},
        {.reason = 44},
        {.reason = 48, .qualification = 1},
        {.reason = 49},
        {.reason = 75},
    };
    unsigned count = 0;
    for (uint32_t reason = 0; reason < VMX_REASON_COUNT; reason++)
        count += vmx_reason_row(reason) && vmx_needs(reason) & VMX_NEED_IDT_INFO;
    assert_int_equal(count, ARRAY_SIZE(interrupting));
    for (size_t i = 0; i < ARRAY_SIZE(interrupting); i++) {
        struct vmx_raw raw = interrupting[i];
        assert_true(vmx_needs(raw.reason) & VMX_NEED_IDT_INFO);
        assert_int_equal(decode(raw), STATUS_OK);
        assert_false(out.vectoring.valid);
        raw.idt_info = EVENT(3, VECTOR_GP) | INTR_INFO_ERROR_VALID;
        raw.idt_error = 0x18;
        assert_int_equal(decode(raw), STATUS_OK);
        assert_true(out.vectoring.valid && out.vectoring.has_error);
        assert_int_equal(out.vectoring.vector, VECTOR_GP);
        assert_int_equal(out.vectoring.error, 0x18);
        raw.idt_info = EVENT(4, 0x80);
        raw.insn_len = 2;
        assert_int_equal(decode(raw), STATUS_OK);
        assert_int_equal(out.vectoring.type, EVENT_SOFT_INTERRUPT);
        assert_int_equal(out.vectoring.insn_len, 2);
        assert_int_equal(out.vectoring.error, 0);
        assert_int_equal(out.insn_len, 0);
        raw.insn_len = 0;
        expect_invalid(raw);
        raw.idt_info = EVENT(1, 3);
        expect_invalid(raw);
        raw.idt_info = EVENT(0, 0x31) | INTR_INFO_ERROR_VALID; /* only exceptions have error codes */
        expect_invalid(raw);
    }
}

static void test_interrupt_and_sipi(void **state)
{
    OK(EXIT_INTERRUPT, .reason = 1, .intr_info = EVENT(0, 0xef));
    assert_int_equal(out.u.interrupt, 0xef);
    INVALID(.reason = 1, .intr_info = 0xef);
    INVALID(.reason = 1, .intr_info = EVENT(2, 2));
    OK(EXIT_SIPI, .reason = 4, .qualification = 0x9a);
    assert_int_equal(out.u.sipi, 0x9a);
    OK(EXIT_INVLPG, .reason = 14, .qualification = 0xffff800000001234, .insn_len = 3);
    assert_int_equal(out.u.invlpg.v, 0xffff800000001234);
    INVALID(.reason = 14);
}

static void test_task_switch(void **state)
{
    OK(EXIT_TASK_SWITCH, .reason = 9, .qualification = 3ull << 30 | 0x28);
    assert_int_equal(out.u.task_switch.selector, 0x28);
    assert_int_equal(out.u.task_switch.source, 3);
    OK(EXIT_TASK_SWITCH, .reason = 9, .qualification = 1ull << 30 | 0xfff8, .insn_len = 2);
    assert_int_equal(out.insn_len, 2);
    assert_int_equal(out.u.task_switch.selector, 0xfff8);
    assert_int_equal(out.u.task_switch.source, 1);
}

static void test_cr(void **state)
{
    OK(EXIT_CR_ACCESS, .reason = 28, .insn_len = 3, .qualification = 0 | 0 << 4 | 15 << 8);
    assert_int_equal(out.u.cr.op, CR_MOV_TO);
    assert_int_equal(out.u.cr.cr, 0);
    assert_int_equal(out.u.cr.gpr, 15);
    assert_int_equal(out.insn_len, 3);
    OK(EXIT_CR_ACCESS, .reason = 28, .insn_len = 4, .qualification = 8 | 1 << 4 | 9 << 8);
    assert_int_equal(out.u.cr.op, CR_MOV_FROM);
    assert_int_equal(out.u.cr.cr, 8);
    OK(EXIT_CR_ACCESS, .reason = 28, .insn_len = 2, .qualification = 2 << 4);
    assert_int_equal(out.u.cr.op, CR_CLTS);
    OK(EXIT_CR_ACCESS, .reason = 28, .insn_len = 3, .qualification = 3 << 4 | 1 << 6 | 0xabcd0000ull);
    assert_int_equal(out.u.cr.op, CR_LMSW);
    assert_true(out.u.cr.lmsw_memory);
    assert_int_equal(out.u.cr.lmsw_source, 0xabcd);
    OK(EXIT_CR_ACCESS, .reason = 28, .insn_len = 3, .qualification = 3 << 4 | 0x10000);
    assert_false(out.u.cr.lmsw_memory);
    for (unsigned cr = 0; cr < 16; cr++) {
        bool to = cr == 0 || cr == 3 || cr == 4 || cr == 8, from = cr == 3 || cr == 8;
        struct vmx_raw raw = {.reason = 28, .insn_len = 3, .qualification = cr};
        assert_int_equal(decode(raw), to ? STATUS_OK : ERR_INVALID);
        raw.qualification = cr | 1 << 4;
        assert_int_equal(decode(raw), from ? STATUS_OK : ERR_INVALID);
        raw.qualification = cr | 2 << 4;
        assert_int_equal(decode(raw), cr == 0 ? STATUS_OK : ERR_INVALID);
        raw.qualification = cr | 3 << 4;
        assert_int_equal(decode(raw), cr == 0 ? STATUS_OK : ERR_INVALID);
    }
    INVALID(.reason = 28, .insn_len = 0);
}

static void test_dr(void **state)
{
    OK(EXIT_DR_ACCESS, .reason = 29, .insn_len = 3, .qualification = 7 | 12 << 8);
    assert_int_equal(out.u.dr.dr, 7);
    assert_int_equal(out.u.dr.gpr, 12);
    assert_true(out.u.dr.write);
    OK(EXIT_DR_ACCESS, .reason = 29, .insn_len = 3, .qualification = 6 | 1 << 4);
    assert_false(out.u.dr.write);
    INVALID(.reason = 29, .insn_len = 0);
}

static void test_io(void **state)
{
    /* IN EAX, DX: what another exit left in the other fields does not matter */
    OK(EXIT_IO, .reason = 30, .insn_len = 1, .qualification = 0x0cfcull << 16 | 1 << 3 | 3, .gla = 5,
       .insn_info = ~0u);
    assert_int_equal(out.u.io.port, 0xcfc);
    assert_int_equal(out.u.io.size, 4);
    assert_false(out.u.io.write || out.u.io.string || out.u.io.rep || out.u.io.has_string_info);
    assert_int_equal(out.u.io.linear.v, 0);
    /* OUT 0x61, AL */
    OK(EXIT_IO, .reason = 30, .insn_len = 2, .qualification = 0x61ull << 16 | 1 << 6);
    assert_true(out.u.io.write);
    assert_int_equal(out.u.io.size, 1);
    /* REP OUTSW from FS with 64-bit addresses */
    OK(EXIT_IO, .reason = 30, .insn_len = 4, .qualification = 0x1f0ull << 16 | 1 << 4 | 1 << 5 | 1,
       .gla = 0x7fff12345678, .insn_info = 4u << 15 | 2u << 7);
    assert_true(out.u.io.string && out.u.io.rep && out.u.io.has_string_info && out.u.io.write);
    assert_int_equal(out.u.io.segment, SEG_FS);
    assert_int_equal(out.u.io.address_size, 8);
    assert_int_equal(out.u.io.size, 2);
    assert_int_equal(out.u.io.linear.v, 0x7fff12345678);
    /* INSB: the segment field is undefined, it is always ES */
    OK(EXIT_IO, .reason = 30, .insn_len = 1, .qualification = 0x1f0ull << 16 | 1 << 4 | 1 << 3,
       .insn_info = 7u << 15);
    assert_int_equal(out.u.io.segment, SEG_ES);
    assert_int_equal(out.u.io.address_size, 2);
    assert_false(out.u.io.rep);

    INVALID(.reason = 30, .insn_len = 1, .qualification = 2); /* three bytes */
    INVALID(.reason = 30, .insn_len = 1, .qualification = 7);
    INVALID(.reason = 30, .insn_len = 0, .qualification = 0);
    INVALID(.reason = 30, .insn_len = 1, .qualification = 1 << 4, .insn_info = 3u << 7);
    INVALID(.reason = 30, .insn_len = 1, .qualification = 1 << 4, .insn_info = 6u << 15);
}

static void test_ept(void **state)
{
    OK(EXIT_NESTED_FAULT, .reason = 48, .qualification = 1 << 1 | 1 << 7 | 1 << 8, .gpa = 0xfee00300,
       .gla = 0xffff1234);
    assert_int_equal(out.u.nested.address.v, 0xfee00300);
    assert_int_equal(out.u.nested.linear.v, 0xffff1234);
    assert_true(out.u.nested.linear_valid && out.u.nested.write);
    assert_false(out.u.nested.read || out.u.nested.fetch || out.u.nested.present || out.u.nested.during_walk);
    /* a guest page-table entry in a hole */
    OK(EXIT_NESTED_FAULT, .reason = 48, .qualification = 1 | 1 << 7, .gpa = 0x5000);
    assert_true(out.u.nested.during_walk && out.u.nested.read);
    /* a fetch from a readable page, no linear address */
    OK(EXIT_NESTED_FAULT, .reason = 48, .qualification = 1 << 2 | 1 << 3, .gla = 99);
    assert_true(out.u.nested.fetch && out.u.nested.present);
    assert_false(out.u.nested.linear_valid || out.u.nested.during_walk);
    assert_int_equal(out.u.nested.linear.v, 0);
    OK(EXIT_NESTED_FAULT, .reason = 48, .qualification = 1 | 1 << 5);
    assert_true(out.u.nested.present);
    INVALID(.reason = 48, .qualification = 1 << 3);

    OK(EXIT_NESTED_FAULT, .reason = 48, .qualification = 1 | 1 << 12);
    assert_true(out.nmi_unblocked);
    OK(EXIT_NESTED_FAULT, .reason = 48, .qualification = 1 | 1 << 12, .idt_info = EVENT(0, 40));
    assert_false(out.nmi_unblocked);

    OK(EXIT_NESTED_MISCONFIG, .reason = 49, .gpa = 0x123000, .qualification = 1 << 12, .gla = 7);
    assert_int_equal(out.u.nested.address.v, 0x123000);
    assert_false(out.u.nested.linear_valid || out.nmi_unblocked);
}

static void test_apic(void **state)
{
    OK(EXIT_APIC_ACCESS, .reason = 44, .qualification = 0x1300);
    assert_int_equal(out.u.apic.offset, 0x300);
    assert_int_equal(out.u.apic.access, 1);
    OK(EXIT_APIC_WRITE, .reason = 56, .qualification = 0xf80);
    assert_int_equal(out.u.apic.offset, 0xf80);
    assert_int_equal(out.u.apic.access, 0);
    OK(EXIT_APIC_EOI, .reason = 45, .qualification = 0x31);
    assert_int_equal(out.u.interrupt, 0x31);
}

static void test_notify(void **state)
{
    OK(EXIT_NOTIFY, .reason = 75);
    assert_false(out.nmi_unblocked);
    OK(EXIT_NOTIFY, .reason = 75, .qualification = 1 << 12);
    assert_true(out.nmi_unblocked);
    OK(EXIT_UNEXPECTED, .reason = 75, .qualification = 1); /* the guest's state is lost */
}

static void test_needs_more(void **state)
{
    struct vmx_raw raw = {.reason = 30, .qualification = 0xffef0000};
    unsigned needs = vmx_needs(30);
    assert_int_equal(needs, VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN);
    assert_int_equal(vmx_needs_more(&raw, needs), 0);
    raw.qualification |= VMX_IO_STRING;
    assert_int_equal(vmx_needs_more(&raw, needs), VMX_NEED_INSN_INFO | VMX_NEED_GLA);
    raw.reason = 10; /* the qualification is left over */
    assert_int_equal(vmx_needs_more(&raw, vmx_needs(10)), 0);

    raw = (struct vmx_raw){.reason = 48, .intr_info = EVENT(6, 3) | INTR_INFO_ERROR_VALID};
    needs = vmx_needs(48);
    assert_int_equal(vmx_needs_more(&raw, needs), 0); /* not asked for, so not read */
    raw.idt_info = EVENT(0, 40);
    assert_int_equal(vmx_needs_more(&raw, needs), 0);
    raw.idt_info = EVENT(4, 0x80);
    assert_int_equal(vmx_needs_more(&raw, needs), VMX_NEED_INSN_LEN);
    raw.idt_info = EVENT(3, VECTOR_PF) | INTR_INFO_ERROR_VALID;
    assert_int_equal(vmx_needs_more(&raw, needs), VMX_NEED_IDT_ERROR);

    raw = (struct vmx_raw){.intr_info = EVENT(3, VECTOR_PF) | INTR_INFO_ERROR_VALID};
    needs = vmx_needs(0);
    assert_int_equal(vmx_needs_more(&raw, needs), VMX_NEED_INTR_ERROR);
    raw.intr_info = EVENT(6, VECTOR_BP);
    assert_int_equal(vmx_needs_more(&raw, needs), VMX_NEED_INSN_LEN);
    raw.intr_info &= ~VALID;
    assert_int_equal(vmx_needs_more(&raw, needs), 0);
}

/* The budget of the hot exits: fields read beside reason and RIP. */
static void test_hot_exits_read_little(void **state)
{
    static const struct {
        uint32_t reason;
        int fields;
    } hot[] = {{10, 1}, {12, 1}, {31, 1}, {32, 1}, {18, 1}, {55, 1},
               {30, 2}, {1, 1},  {52, 0}, {7, 0},  {48, 4}};
    for (size_t i = 0; i < ARRAY_SIZE(hot); i++)
        assert_int_equal(__builtin_popcount(vmx_needs(hot[i].reason)), hot[i].fields);
}

static void test_names(void **state)
{
    assert_string_equal(vmx_reason_name(48), "EPT_VIOLATION");
    assert_string_equal(vmx_reason_name(0), "EXCEPTION_OR_NMI");
    assert_string_equal(vmx_reason_row(10)->kind, "EXIT_CPUID");
    for (uint32_t i = 0; i < VMX_REASON_COUNT; i++) {
        const struct vmx_reason_row *row = vmx_reason_row(i);
        if (row)
            assert_true(strlen(row->handling) > 5 && strlen(row->name) > 2);
    }
}

static void test_document_is_current(void **state)
{
    char *made = NULL;
    size_t made_size = 0;
    FILE *f = open_memstream(&made, &made_size);
    exits_doc_write(f);
    fclose(f);
    f = fopen(TEST_SOURCE_DIR "/docs/exits.md", "r");
    assert_non_null(f);
    char *have = calloc(1, made_size + 2);
    size_t have_size = fread(have, 1, made_size + 1, f);
    fclose(f);
    if (have_size != made_size || memcmp(have, made, made_size) != 0)
        fail_msg("docs/exits.md is out of date: write the output of gen_exits_doc into it");
    free(have);
    free(made);
}

/* The short way must answer what the long one does, for every reason that may take it. */
static void test_plain(void **state)
{
    unsigned plain = 0;
    for (uint32_t reason = 0; reason < 0x20000; reason++) {
        if (!vmx_is_plain(reason))
            continue;
        struct vmx_raw raw = {.reason = reason, .insn_len = vmx_needs(reason) ? 3 : 0};
        struct exit slow = {.kind = EXIT_KIND_COUNT}, fast = {.kind = EXIT_KIND_COUNT};
        assert_int_equal(vmx_decode(&raw, &slow), STATUS_OK);
        vmx_decode_plain(raw.reason, raw.insn_len, &fast);
        assert_int_equal(fast.kind, slow.kind);
        assert_int_equal(fast.reason, slow.reason);
        assert_int_equal(fast.insn_len, slow.insn_len);
        assert_false(fast.nmi_unblocked || slow.nmi_unblocked || fast.vectoring.valid ||
                     slow.vectoring.valid);
        plain++;
    }
    assert_true(plain > 20);
    assert_true(vmx_is_plain(VMX_REASON_CPUID) && vmx_is_plain(VMX_REASON_PREEMPTION_TIMER));
    assert_false(vmx_is_plain(VMX_REASON_EPT_VIOLATION) ||
                 vmx_is_plain(VMX_REASON_CPUID | EXIT_REASON_ENTRY_FAILURE));
}

/* The short ways of vmx_run_hw.c: what they read is all that vmx_needs() asks for, and their answer
 * vmx_decode()'s. */
static void compare_short(const struct vmx_raw *raw)
{
    struct exit slow, fast;
    memset(&slow, 0, sizeof(slow));
    memset(&fast, 0, sizeof(fast));
    vmx_decode_plain(raw->reason, 0, &fast);
    bool valid = raw->reason == VMX_REASON_EXTERNAL_INTERRUPT ? vmx_decode_vector(raw->intr_info, &fast)
                 : raw->reason == VMX_REASON_IO_INSTRUCTION   ? vmx_decode_io(raw, &fast)
                                                              : vmx_decode_ept_violation(raw, &fast);
    assert_int_equal(vmx_decode(raw, &slow) == STATUS_OK, valid);
    if (valid)
        assert_memory_equal(&slow, &fast, sizeof(slow));
}

static void test_short_ways(void **state)
{
    static const uint32_t events[] = {0,          EVENT(0, 0x51), EVENT(2, 2), EVENT(3, 14), EVENT(4, 0x80),
                                      EVENT(1, 3)};
    assert_int_equal(vmx_needs(VMX_REASON_EXTERNAL_INTERRUPT), VMX_NEED_INTR_INFO);
    assert_int_equal(vmx_needs(VMX_REASON_IO_INSTRUCTION), VMX_NEED_QUALIFICATION | VMX_NEED_INSN_LEN);
    assert_int_equal(vmx_needs(VMX_REASON_EPT_VIOLATION),
                     VMX_NEED_QUALIFICATION | VMX_NEED_GPA | VMX_NEED_GLA | VMX_NEED_IDT_INFO);
    for (uint32_t i = 0; i < ARRAY_SIZE(events); i++)
        for (uint32_t qual = 0; qual < 0x2000; qual++) {
            struct vmx_raw raw = {.reason = VMX_REASON_EPT_VIOLATION,
                                  .qualification = qual,
                                  .idt_info = events[i],
                                  .insn_len = 2,
                                  .gpa = 0xfee00000,
                                  .gla = 0x1234};
            compare_short(&raw);
            raw.reason = VMX_REASON_IO_INSTRUCTION;
            raw.qualification = 0x3f80000 | qual;
            raw.insn_len = i * 4; /* of which 0 and 20 are none */
            compare_short(&raw);
        }
    for (uint32_t info = 0; info < 0x2000; info++) {
        struct vmx_raw raw = {.reason = VMX_REASON_EXTERNAL_INTERRUPT, .intr_info = info};
        compare_short(&raw);
        raw.intr_info |= INTR_INFO_VALID;
        compare_short(&raw);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_short_ways),
        cmocka_unit_test(test_instructions),
        cmocka_unit_test(test_plain_reasons),
        cmocka_unit_test(test_unknown_reasons),
        cmocka_unit_test(test_reason_flags),
        cmocka_unit_test(test_entry_failures),
        cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_impossible_exceptions),
        cmocka_unit_test(test_nmi_unblocking_by_faults),
        cmocka_unit_test(test_vectoring),
        cmocka_unit_test(test_interrupt_and_sipi),
        cmocka_unit_test(test_task_switch),
        cmocka_unit_test(test_cr),
        cmocka_unit_test(test_dr),
        cmocka_unit_test(test_io),
        cmocka_unit_test(test_ept),
        cmocka_unit_test(test_apic),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_needs_more),
        cmocka_unit_test(test_hot_exits_read_little),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_document_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
