#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/vmx/vmx_check.h"

#define HIGH(mask) ((uint64_t)(mask) << 32)

/* A processor that has everything that the rules speak of. */
static const struct vmx_caps_msrs rich = {
    .basic = VMX_BASIC_TRUE_CONTROLS | VMX_BASIC_INS_OUTS_INFO | (uint64_t)6 << 50,
    .misc = VMX_MISC_ACTIVITY_HLT | VMX_MISC_ACTIVITY_SHUTDOWN | VMX_MISC_ACTIVITY_WAIT_SIPI | 4 << 16,
    .true_pinbased = 0xff00000016,
    .true_procbased = 0xfffbfffe04006172,
    .true_exit = 0xffffffff00036dfb,
    .true_entry = 0x01ffffff000011fb,
    .procbased2 = 0xffffffff00000000,
    .procbased3 = 0x10,
    .exit2 = 8,
    .cr0_fixed0 = 0x80000021,
    .cr0_fixed1 = 0xffffffff,
    .cr4_fixed0 = 0x2000,
    .cr4_fixed1 = 0x1ff7fff,
    .ept_vpid = EPT_CAP_WALK_4 | EPT_CAP_WB,
    .vmfunc = 1,
};

static struct vmx_check_machine machine = {.msrs = &rich, .physical_bits = 39, .linear_bits = 48};
static struct vmx_check_state state;
static struct vmx_check_finding finding;

#define SET(field, v) (state.value[VMX_F_##field] = (v))
#define OR(field, v)  (state.value[VMX_F_##field] |= (v))
#define AND(field, v) (state.value[VMX_F_##field] &= (v))

static void set_segment(unsigned s, uint64_t selector, uint64_t base, uint64_t limit, uint64_t access)
{
    state.value[VMX_F_GUEST_ES_SELECTOR + s] = selector;
    state.value[VMX_F_GUEST_ES_BASE + s] = base;
    state.value[VMX_F_GUEST_ES_LIMIT + s] = limit;
    state.value[VMX_F_GUEST_ES_ACCESS + s] = access;
}

static void good_controls_and_host(void)
{
    memset(&state, 0, sizeof(state));
    SET(PIN_CONTROLS,
        0x16 | PIN_EXTERNAL_INTERRUPT_EXITING | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS | PIN_PREEMPTION_TIMER);
    SET(PROC_CONTROLS,
        0x04006172 | PROC_ACTIVATE_SECONDARY | PROC_USE_IO_BITMAPS | PROC_USE_MSR_BITMAPS | PROC_HLT_EXITING);
    SET(PROC2_CONTROLS, PROC2_ENABLE_EPT | PROC2_ENABLE_VPID | PROC2_UNRESTRICTED_GUEST);
    SET(EXIT_CONTROLS,
        0x36dff | EXIT_CTL_HOST_64BIT | EXIT_CTL_ACK_INTERRUPT | EXIT_CTL_LOAD_PAT | EXIT_CTL_LOAD_EFER);
    SET(ENTRY_CONTROLS, 0x11ff | ENTRY_CTL_LOAD_PAT | ENTRY_CTL_LOAD_EFER | ENTRY_CTL_IA32E_GUEST);
    SET(IO_BITMAP_A, 0x1000);
    SET(IO_BITMAP_B, 0x2000);
    SET(MSR_BITMAPS, 0x3000);
    SET(VPID, 1);
    SET(EPT_POINTER, 0x400000 | 6 | 3 << 3);
    SET(HOST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_WP);
    SET(HOST_CR4, CR4_PAE | CR4_VMXE);
    SET(HOST_PAT, PAT_RESET);
    SET(HOST_EFER, EFER_LMA | EFER_LME | EFER_NXE);
    SET(HOST_CS_SELECTOR, 8);
    SET(HOST_TR_SELECTOR, 0x18);
    SET(HOST_RIP, 0xffffffff80001000);
    SET(LINK_POINTER, VMCS_LINK_NONE);
}

/* A 64-bit guest in user mode. */
static void good(void)
{
    good_controls_and_host();
    SET(GUEST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_WP | CR0_ET);
    SET(GUEST_CR3, 0x5000);
    SET(GUEST_CR4, CR4_PAE | CR4_VMXE | CR4_PCIDE);
    SET(GUEST_EFER, EFER_LMA | EFER_LME | EFER_SCE | EFER_NXE);
    SET(GUEST_PAT, PAT_RESET);
    SET(GUEST_DR7, DR7_RESET);
    SET(GUEST_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_IF);
    SET(GUEST_RIP, 0x401000);
    for (unsigned s = 0; s < 6; s++)
        set_segment(s, 0x2b, 0, 0xffffffff, 0xc0f3);
    set_segment(1, 0x33, 0, 0xffffffff, 0xa0fb);
    set_segment(6, 0, 0, 0, ACCESS_UNUSABLE);
    set_segment(7, 0x40, 0xffff880000000000, 0x206f, 0x8b);
}

/* The state after reset. */
static void good_real_mode(void)
{
    good_controls_and_host();
    AND(ENTRY_CONTROLS, ~(uint64_t)ENTRY_CTL_IA32E_GUEST);
    SET(GUEST_CR0, CR0_ET | CR0_NE | CR0_CD | CR0_NW);
    SET(GUEST_CR4, CR4_VMXE);
    SET(GUEST_PAT, PAT_RESET);
    SET(GUEST_RFLAGS, RFLAGS_FIXED_1);
    SET(GUEST_RIP, 0xfff0);
    for (unsigned s = 0; s < 6; s++)
        set_segment(s, 0, 0, 0xffff, 0x93);
    set_segment(1, 0xf000, 0xffff0000, 0xffff, 0x9b);
    set_segment(6, 0, 0, 0xffff, 0x82);
    set_segment(7, 0, 0, 0xffff, 0x8b);
}

static void good_v86(void)
{
    good_controls_and_host();
    AND(ENTRY_CONTROLS, ~(uint64_t)ENTRY_CTL_IA32E_GUEST);
    SET(GUEST_CR0, CR0_PE | CR0_PG | CR0_NE);
    SET(GUEST_CR4, CR4_VMXE);
    SET(GUEST_PAT, PAT_RESET);
    SET(GUEST_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_VM);
    for (unsigned s = 0; s < 6; s++)
        set_segment(s, 0x1230, 0x12300, 0xffff, 0xf3);
    set_segment(6, 0, 0, 0, ACCESS_UNUSABLE);
    set_segment(7, 0x40, 0, 0x67, 0x8b);
}

/* Restricted guest: the rules that unrestricted guests are free of. */
static void good_restricted(void)
{
    good();
    AND(PROC2_CONTROLS, ~(uint64_t)PROC2_UNRESTRICTED_GUEST);
}

static void expect(const char *field, const char *section, int line)
{
    memset(&finding, 0, sizeof(finding));
    enum status status = vmx_check(&machine, &state, &finding);
    if (!field) {
        if (status != STATUS_OK)
            fail_msg("line %d: %s = %#llx: %s", line, finding.field, (unsigned long long)finding.value,
                     finding.rule);
        return;
    }
    if (status != ERR_INVALID)
        fail_msg("line %d: %s was accepted", line, field);
    if (strcmp(finding.field, field) != 0 || strcmp(finding.section, section) != 0)
        fail_msg("line %d: got %s (%s): %s", line, finding.field, finding.section, finding.rule);
    assert_true(strlen(finding.rule) > 10);
}

/* From a good state, after these changes, the rule about this field is broken. */
#define BROKEN(start, changes, field, section)                                                               \
    do {                                                                                                     \
        start();                                                                                             \
        changes;                                                                                             \
        expect(#field, section, __LINE__);                                                                   \
        assert_int_equal(finding.value, state.value[VMX_F_##field]);                                         \
    } while (0)
#define FINE(start, changes)                                                                                 \
    do {                                                                                                     \
        start();                                                                                             \
        changes;                                                                                             \
        expect(NULL, NULL, __LINE__);                                                                        \
    } while (0)

static void test_good_states(void **unused)
{
    FINE(good, );
    FINE(good_real_mode, );
    FINE(good_v86, );
    FINE(good_restricted, );
}

static void test_reserved_controls(void **unused)
{
    BROKEN(good, AND(PIN_CONTROLS, ~2ull), PIN_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PIN_CONTROLS, 1ull << 8), PIN_CONTROLS, "27.2.1.1");
    BROKEN(good, AND(PROC_CONTROLS, ~2ull), PROC_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(EXIT_CONTROLS, 1ull << 40), EXIT_CONTROLS, "27.2.1.2");
    BROKEN(good, OR(ENTRY_CONTROLS, 1ull << 30), ENTRY_CONTROLS, "27.2.1.3");
    BROKEN(good, OR(PROC2_CONTROLS, 1ull << 32), PROC2_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PROC_CONTROLS, PROC_ACTIVATE_TERTIARY);
           SET(PROC3_CONTROLS, 1), PROC3_CONTROLS, "27.2.1.1");
    FINE(good, OR(PROC_CONTROLS, PROC_ACTIVATE_TERTIARY); SET(PROC3_CONTROLS, 0x10));
    FINE(good, SET(PROC3_CONTROLS, 1)); /* not activated: not looked at */
    BROKEN(good, OR(EXIT_CONTROLS, EXIT_CTL_ACTIVATE_SECONDARY);
           SET(EXIT2_CONTROLS, 1), EXIT2_CONTROLS, "27.2.1.2");
    FINE(good, OR(EXIT_CONTROLS, EXIT_CTL_ACTIVATE_SECONDARY); SET(EXIT2_CONTROLS, 8));
}

static void test_execution_controls(void **unused)
{
    BROKEN(good, SET(CR3_TARGET_COUNT, 5), CR3_TARGET_COUNT, "27.2.1.1");
    BROKEN(good, SET(IO_BITMAP_A, 0x1800), IO_BITMAP_A, "27.2.1.1");
    BROKEN(good, SET(IO_BITMAP_B, 1ull << 39), IO_BITMAP_B, "27.2.1.1");
    BROKEN(good, SET(MSR_BITMAPS, 1), MSR_BITMAPS, "27.2.1.1");
    BROKEN(good, AND(PIN_CONTROLS, ~(uint64_t)PIN_NMI_EXITING), PIN_CONTROLS, "27.2.1.1");
    BROKEN(good, AND(PIN_CONTROLS, ~(uint64_t)PIN_VIRTUAL_NMIS);
           OR(PROC_CONTROLS, PROC_NMI_WINDOW_EXITING), PROC_CONTROLS, "27.2.1.1");
    BROKEN(good, SET(VPID, 0), VPID, "27.2.1.1");
    BROKEN(good, SET(EPT_POINTER, 0x400000 | 3 << 3), EPT_POINTER, "27.2.1.1");
    BROKEN(good, SET(EPT_POINTER, 0x400000 | 6 | 4 << 3), EPT_POINTER, "27.2.1.1");
    BROKEN(good, OR(EPT_POINTER, EPTP_AD), EPT_POINTER, "27.2.1.1");
    BROKEN(good, OR(EPT_POINTER, 1 << 7), EPT_POINTER, "27.2.1.1");
    BROKEN(good, OR(EPT_POINTER, 1 << 8), EPT_POINTER, "27.2.1.1");
    BROKEN(good, OR(EPT_POINTER, 1ull << 39), EPT_POINTER, "27.2.1.1");
    BROKEN(good, AND(PROC2_CONTROLS, ~(uint64_t)PROC2_ENABLE_EPT), PROC2_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_ENABLE_PML); SET(PML_ADDRESS, 8), PML_ADDRESS, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_SUB_PAGE_WRITE);
           SET(SPP_TABLE_POINTER, 8), SPP_TABLE_POINTER, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_ENABLE_VM_FUNCTIONS);
           SET(VM_FUNCTION_CONTROLS, 2), VM_FUNCTION_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_ENABLE_VM_FUNCTIONS); SET(VM_FUNCTION_CONTROLS, 1);
           SET(EPTP_LIST_ADDRESS, 8), EPTP_LIST_ADDRESS, "27.2.1.1");
    BROKEN(good_v86, SET(PROC2_CONTROLS, PROC2_ENABLE_VM_FUNCTIONS);
           SET(VM_FUNCTION_CONTROLS, 1), PROC2_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_VMCS_SHADOWING); SET(VMREAD_BITMAP, 8), VMREAD_BITMAP, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_VMCS_SHADOWING);
           SET(VMWRITE_BITMAP, 8), VMWRITE_BITMAP, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_EPT_VIOLATION_VE);
           SET(VIRT_EXCEPTION_INFO_ADDRESS, 8), VIRT_EXCEPTION_INFO_ADDRESS, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_USE_TSC_SCALING), TSC_MULTIPLIER, "27.2.1.1");
}

static void test_apic_controls(void **unused)
{
    BROKEN(good, OR(PROC_CONTROLS, PROC_USE_TPR_SHADOW);
           SET(VIRTUAL_APIC_ADDRESS, 8), VIRTUAL_APIC_ADDRESS, "27.2.1.1");
    BROKEN(good, OR(PROC_CONTROLS, PROC_USE_TPR_SHADOW); SET(TPR_THRESHOLD, 16), TPR_THRESHOLD, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_VIRTUALIZE_X2APIC), PROC2_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PROC2_CONTROLS, PROC2_VIRTUALIZE_APIC_ACCESSES);
           SET(APIC_ACCESS_ADDRESS, 8), APIC_ACCESS_ADDRESS, "27.2.1.1");
    BROKEN(good, OR(PROC_CONTROLS, PROC_USE_TPR_SHADOW);
           OR(PROC2_CONTROLS, PROC2_VIRTUALIZE_APIC_ACCESSES | PROC2_VIRTUALIZE_X2APIC), PROC2_CONTROLS,
           "27.2.1.1");
    BROKEN(good, OR(PROC_CONTROLS, PROC_USE_TPR_SHADOW); OR(PROC2_CONTROLS, PROC2_VIRTUAL_INTERRUPT_DELIVERY);
           AND(PIN_CONTROLS, ~1ull), PIN_CONTROLS, "27.2.1.1");
    BROKEN(good, OR(PIN_CONTROLS, PIN_POSTED_INTERRUPTS), PIN_CONTROLS, "27.2.1.1");
#define POSTED                                                                                               \
    OR(PROC_CONTROLS, PROC_USE_TPR_SHADOW);                                                                  \
    OR(PROC2_CONTROLS, PROC2_VIRTUAL_INTERRUPT_DELIVERY);                                                    \
    OR(PIN_CONTROLS, PIN_POSTED_INTERRUPTS)
    FINE(good, POSTED; SET(POSTED_INTERRUPT_DESCRIPTOR, 0x40));
    BROKEN(good, POSTED; AND(EXIT_CONTROLS, ~(uint64_t)EXIT_CTL_ACK_INTERRUPT), EXIT_CONTROLS, "27.2.1.1");
    BROKEN(good, POSTED; SET(POSTED_INTERRUPT_VECTOR, 256), POSTED_INTERRUPT_VECTOR, "27.2.1.1");
    BROKEN(good, POSTED; SET(POSTED_INTERRUPT_DESCRIPTOR, 0x20), POSTED_INTERRUPT_DESCRIPTOR, "27.2.1.1");
}

static void test_exit_and_entry_controls(void **unused)
{
    BROKEN(good, AND(PIN_CONTROLS, ~(uint64_t)PIN_PREEMPTION_TIMER);
           OR(EXIT_CONTROLS, EXIT_CTL_SAVE_PREEMPTION_TIMER), EXIT_CONTROLS, "27.2.1.2");
    BROKEN(good, SET(EXIT_MSR_STORE_COUNT, 1);
           SET(EXIT_MSR_STORE_ADDRESS, 8), EXIT_MSR_STORE_ADDRESS, "27.2.1.2");
    BROKEN(good, SET(EXIT_MSR_LOAD_COUNT, 1);
           SET(EXIT_MSR_LOAD_ADDRESS, 1ull << 39), EXIT_MSR_LOAD_ADDRESS, "27.2.1.2");
    BROKEN(good, SET(ENTRY_MSR_LOAD_COUNT, 2);
           SET(ENTRY_MSR_LOAD_ADDRESS, (1ull << 39) - 16), ENTRY_MSR_LOAD_ADDRESS, "27.2.1.3");
    FINE(good, SET(ENTRY_MSR_LOAD_COUNT, 1); SET(ENTRY_MSR_LOAD_ADDRESS, (1ull << 39) - 16));
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_ENTRY_TO_SMM), ENTRY_CONTROLS, "27.2.1.3");
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_DEACTIVATE_DUAL_MONITOR), ENTRY_CONTROLS, "27.2.1.3");
}

#define EVENT(type, vector) (INTR_INFO_VALID | (uint64_t)(type) << 8 | (vector))
#define WITH_ERROR          INTR_INFO_ERROR_VALID

static void test_injected_events(void **unused)
{
    FINE(good, SET(ENTRY_INTR_INFO, EVENT(0, 0x31)));
    FINE(good, SET(ENTRY_INTR_INFO, EVENT(3, 14) | WITH_ERROR); SET(ENTRY_EXCEPTION_ERROR, 7));
    FINE(good, SET(ENTRY_INTR_INFO, EVENT(4, 0x80)); SET(ENTRY_INSN_LEN, 2));
    FINE(good, SET(ENTRY_INTR_INFO, 0x7ffff700)); /* not valid: not looked at */
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(1, 3)), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(2, 3)), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(3, 32)), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(7, 1)), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(0, 0x31) | 1 << 12), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(0, 0x31) | WITH_ERROR), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(3, 6) | WITH_ERROR), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(3, 13)), ENTRY_INTR_INFO, "27.2.1.3");
    BROKEN(good_real_mode, SET(ENTRY_INTR_INFO, EVENT(3, 13) | WITH_ERROR), ENTRY_INTR_INFO, "27.2.1.3");
    FINE(good_real_mode, SET(ENTRY_INTR_INFO, EVENT(3, 13)));
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(3, 14) | WITH_ERROR);
           SET(ENTRY_EXCEPTION_ERROR, 0x10000), ENTRY_EXCEPTION_ERROR, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(6, 3)); SET(ENTRY_INSN_LEN, 16), ENTRY_INSN_LEN, "27.2.1.3");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(6, 3)), ENTRY_INSN_LEN, "27.2.1.3");

    struct vmx_caps_msrs newer = rich;
    newer.basic |= VMX_BASIC_ANY_ERROR_CODE;
    newer.misc |= VMX_MISC_INSN_LEN_0;
    machine.msrs = &newer;
    FINE(good, SET(ENTRY_INTR_INFO, EVENT(6, 3)));
    FINE(good, SET(ENTRY_INTR_INFO, EVENT(3, 21) | WITH_ERROR));
    machine.msrs = &rich;
}

static void test_host_state(void **unused)
{
    uint64_t crooked = 1ull << 47;
    BROKEN(good, AND(HOST_CR0, ~CR0_NE), HOST_CR0, "27.2.2");
    BROKEN(good, AND(HOST_CR4, ~CR4_VMXE), HOST_CR4, "27.2.2");
    BROKEN(good, OR(HOST_CR4, CR4_CET); AND(HOST_CR0, ~CR0_WP), HOST_CR4, "27.2.2");
    BROKEN(good, SET(HOST_CR3, 1ull << 39), HOST_CR3, "27.2.2");
    BROKEN(good, SET(HOST_SYSENTER_ESP, crooked), HOST_SYSENTER_ESP, "27.2.2");
    BROKEN(good, SET(HOST_SYSENTER_EIP, crooked), HOST_SYSENTER_EIP, "27.2.2");
    BROKEN(good, SET(HOST_PAT, 2), HOST_PAT, "27.2.2");
    BROKEN(good, SET(HOST_PAT, 0x0800000000000000), HOST_PAT, "27.2.2");
    BROKEN(good, OR(HOST_EFER, 2), HOST_EFER, "27.2.2");
    BROKEN(good, AND(HOST_EFER, ~EFER_LMA), HOST_EFER, "27.2.2");
    BROKEN(good, OR(EXIT_CONTROLS, EXIT_CTL_LOAD_CET); SET(HOST_S_CET, crooked), HOST_S_CET, "27.2.2");
    BROKEN(good, OR(EXIT_CONTROLS, EXIT_CTL_LOAD_CET); SET(HOST_SSP, 2), HOST_SSP, "27.2.2");
    BROKEN(good, OR(EXIT_CONTROLS, EXIT_CTL_LOAD_CET);
           SET(HOST_SSP_TABLE, crooked), HOST_SSP_TABLE, "27.2.2");
    BROKEN(good, OR(EXIT_CONTROLS, EXIT_CTL_LOAD_PKRS); SET(HOST_PKRS, 1ull << 32), HOST_PKRS, "27.2.2");
    BROKEN(good, SET(HOST_ES_SELECTOR, 0x13), HOST_ES_SELECTOR, "27.2.3");
    BROKEN(good, SET(HOST_TR_SELECTOR, 4), HOST_TR_SELECTOR, "27.2.3");
    BROKEN(good, SET(HOST_CS_SELECTOR, 0), HOST_CS_SELECTOR, "27.2.3");
    BROKEN(good, SET(HOST_TR_SELECTOR, 0), HOST_TR_SELECTOR, "27.2.3");
    BROKEN(good, SET(HOST_FS_BASE, crooked), HOST_FS_BASE, "27.2.3");
    BROKEN(good, SET(HOST_IDTR_BASE, crooked), HOST_IDTR_BASE, "27.2.3");
    BROKEN(good, AND(HOST_CR4, ~CR4_PAE), HOST_CR4, "27.2.4");
    BROKEN(good, SET(HOST_RIP, crooked), HOST_RIP, "27.2.4");
    BROKEN(good, AND(EXIT_CONTROLS, ~(uint64_t)(EXIT_CTL_HOST_64BIT));
           SET(HOST_EFER, 0), EXIT_CONTROLS, "27.2.4");
}

static void test_guest_control_registers(void **unused)
{
    BROKEN(good, AND(GUEST_CR0, ~CR0_NE), GUEST_CR0, "27.3.1.1");
    BROKEN(good_real_mode, OR(GUEST_CR0, CR0_PG), GUEST_CR0, "27.3.1.1");
    BROKEN(good_restricted, AND(GUEST_CR0, ~CR0_PG), GUEST_CR0, "27.3.1.1");
    BROKEN(good, AND(GUEST_CR0, ~CR0_PG), GUEST_CR0, "27.3.1.1");
    BROKEN(good, AND(GUEST_CR4, ~CR4_PAE), GUEST_CR4, "27.3.1.1");
    BROKEN(good, AND(GUEST_CR4, ~CR4_VMXE), GUEST_CR4, "27.3.1.1");
    BROKEN(good, OR(GUEST_CR4, 1ull << 40), GUEST_CR4, "27.3.1.1");
    BROKEN(good, OR(GUEST_CR4, CR4_CET); AND(GUEST_CR0, ~CR0_WP), GUEST_CR4, "27.3.1.1");
    BROKEN(good_real_mode, OR(GUEST_CR4, CR4_PCIDE), GUEST_CR4, "27.3.1.1");
    BROKEN(good, SET(GUEST_CR3, 1ull << 39), GUEST_CR3, "27.3.1.1");
    BROKEN(good, SET(GUEST_DEBUGCTL, 1 << 4), GUEST_DEBUGCTL, "27.3.1.1");
    BROKEN(good, SET(GUEST_DR7, 1ull << 32), GUEST_DR7, "27.3.1.1");
    FINE(good, AND(ENTRY_CONTROLS, ~(uint64_t)ENTRY_CTL_LOAD_DEBUG_CONTROLS); SET(GUEST_DR7, 1ull << 32));
    BROKEN(good, SET(GUEST_SYSENTER_ESP, 1ull << 47), GUEST_SYSENTER_ESP, "27.3.1.1");
    BROKEN(good, SET(GUEST_SYSENTER_EIP, 1ull << 63), GUEST_SYSENTER_EIP, "27.3.1.1");
    BROKEN(good, SET(GUEST_PAT, 3ull << 56), GUEST_PAT, "27.3.1.1");
    BROKEN(good, OR(GUEST_EFER, 1 << 12), GUEST_EFER, "27.3.1.1");
    BROKEN(good, AND(GUEST_EFER, ~EFER_LMA), GUEST_EFER, "27.3.1.1");
    BROKEN(good, AND(GUEST_EFER, ~EFER_LME), GUEST_EFER, "27.3.1.1");
    FINE(good_real_mode, SET(GUEST_EFER, EFER_LME)); /* without paging LME may be on alone */
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_LOAD_BNDCFGS);
           SET(GUEST_BNDCFGS, 4), GUEST_BNDCFGS, "27.3.1.1");
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_LOAD_CET);
           SET(GUEST_S_CET, 1ull << 50), GUEST_S_CET, "27.3.1.1");
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_LOAD_CET); SET(GUEST_SSP, 1), GUEST_SSP, "27.3.1.1");
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_LOAD_CET);
           SET(GUEST_SSP_TABLE, 1ull << 50), GUEST_SSP_TABLE, "27.3.1.1");
    BROKEN(good, OR(ENTRY_CONTROLS, ENTRY_CTL_LOAD_PKRS);
           SET(GUEST_PKRS, 1ull << 32), GUEST_PKRS, "27.3.1.1");
}

static void test_guest_selectors_bases_limits(void **unused)
{
    BROKEN(good, OR(GUEST_TR_SELECTOR, 4), GUEST_TR_SELECTOR, "27.3.1.2");
    BROKEN(good, set_segment(6, 0x4c, 0, 0xfff, 0x82), GUEST_LDTR_SELECTOR, "27.3.1.2");
    FINE(good, set_segment(6, 0x4c, 0, 0, ACCESS_UNUSABLE));
    BROKEN(good_restricted, SET(GUEST_SS_SELECTOR, 0x28), GUEST_SS_SELECTOR, "27.3.1.2");
    BROKEN(good, SET(GUEST_TR_BASE, 1ull << 47), GUEST_TR_BASE, "27.3.1.2");
    BROKEN(good, SET(GUEST_FS_BASE, 1ull << 47), GUEST_FS_BASE, "27.3.1.2");
    BROKEN(good, SET(GUEST_GS_BASE, 1ull << 47), GUEST_GS_BASE, "27.3.1.2");
    BROKEN(good, set_segment(6, 0x48, 1ull << 47, 0xfff, 0x82), GUEST_LDTR_BASE, "27.3.1.2");
    BROKEN(good, SET(GUEST_CS_BASE, 1ull << 32), GUEST_CS_BASE, "27.3.1.2");
    BROKEN(good, SET(GUEST_DS_BASE, 1ull << 32), GUEST_DS_BASE, "27.3.1.2");
    FINE(good, set_segment(3, 0, 1ull << 32, 0, ACCESS_UNUSABLE));
    BROKEN(good_v86, OR(GUEST_FS_BASE, 1), GUEST_FS_BASE, "27.3.1.2");
    BROKEN(good_v86, SET(GUEST_SS_LIMIT, 0xfffff), GUEST_SS_LIMIT, "27.3.1.2");
    BROKEN(good_v86, SET(GUEST_DS_ACCESS, 0x93), GUEST_DS_ACCESS, "27.3.1.2");
}

static void test_guest_access_rights(void **unused)
{
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xa0fa), GUEST_CS_ACCESS, "27.3.1.2");            /* not accessed */
    BROKEN(good_restricted, SET(GUEST_CS_ACCESS, 0xc0f3), GUEST_CS_ACCESS, "27.3.1.2"); /* data */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xc0f3), GUEST_CS_ACCESS, "27.3.1.2");            /* data with DPL 3 */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xa09b), GUEST_CS_ACCESS, "27.3.1.2");            /* DPL 0, SS has 3 */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xa0ff); SET(GUEST_SS_ACCESS, 0xc0b3), GUEST_CS_ACCESS, "27.3.1.2");
    FINE(good, SET(GUEST_CS_ACCESS, 0xa09f));                                   /* conforming, DPL 0 */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xe0fb), GUEST_CS_ACCESS, "27.3.1.2");    /* L and D */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xa0eb), GUEST_CS_ACCESS, "27.3.1.2");    /* S clear */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xa07b), GUEST_CS_ACCESS, "27.3.1.2");    /* not present */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0xa1fb), GUEST_CS_ACCESS, "27.3.1.2");    /* reserved */
    BROKEN(good, SET(GUEST_CS_ACCESS, 0x20fb), GUEST_CS_ACCESS, "27.3.1.2");    /* G clear, limit 4 GiB */
    BROKEN(good, SET(GUEST_CS_LIMIT, 0xffff0000), GUEST_CS_ACCESS, "27.3.1.2"); /* G set, limit no pages */
    BROKEN(good, SET(GUEST_SS_ACCESS, 0xc0f1), GUEST_SS_ACCESS, "27.3.1.2");    /* not writable */
    BROKEN(good_restricted, SET(GUEST_SS_SELECTOR, 0x28);
           SET(GUEST_CS_SELECTOR, 0x30), GUEST_SS_ACCESS, "27.3.1.2");
    BROKEN(good_real_mode, SET(GUEST_SS_ACCESS, 0xf3);
           SET(GUEST_CS_ACCESS, 0xfb), GUEST_SS_ACCESS, "27.3.1.2");
    FINE(good, SET(GUEST_SS_ACCESS, ACCESS_UNUSABLE | 0x60)); /* only its DPL counts */
    BROKEN(good, SET(GUEST_DS_ACCESS, 0xc0f2), GUEST_DS_ACCESS, "27.3.1.2");
    BROKEN(good, SET(GUEST_ES_ACCESS, 0xc0f9), GUEST_ES_ACCESS, "27.3.1.2");
    BROKEN(good_restricted, SET(GUEST_FS_ACCESS, 0xc093), GUEST_FS_ACCESS, "27.3.1.2");
    BROKEN(good, SET(GUEST_GS_ACCESS, 0xc073), GUEST_GS_ACCESS, "27.3.1.2");
    FINE(good, SET(GUEST_GS_ACCESS, ACCESS_UNUSABLE));
    BROKEN(good, SET(GUEST_TR_ACCESS, 0x8b | ACCESS_UNUSABLE), GUEST_TR_ACCESS, "27.3.1.2");
    BROKEN(good, SET(GUEST_TR_ACCESS, 0x83), GUEST_TR_ACCESS, "27.3.1.2");
    FINE(good_real_mode, SET(GUEST_TR_ACCESS, 0x83));
    BROKEN(good, SET(GUEST_TR_ACCESS, 0x9b), GUEST_TR_ACCESS, "27.3.1.2");
    BROKEN(good, set_segment(6, 0x48, 0, 0xfff, 0x83), GUEST_LDTR_ACCESS, "27.3.1.2");
    BROKEN(good, set_segment(6, 0x48, 0, 0xfff, 0x02), GUEST_LDTR_ACCESS, "27.3.1.2");
    FINE(good, set_segment(6, 0x48, 0, 0xfff, 0x82));
}

static void test_guest_tables_rip_rflags(void **unused)
{
    BROKEN(good, SET(GUEST_GDTR_BASE, 1ull << 47), GUEST_GDTR_BASE, "27.3.1.3");
    BROKEN(good, SET(GUEST_IDTR_BASE, 1ull << 47), GUEST_IDTR_BASE, "27.3.1.3");
    BROKEN(good, SET(GUEST_GDTR_LIMIT, 0x10000), GUEST_GDTR_LIMIT, "27.3.1.3");
    BROKEN(good, SET(GUEST_IDTR_LIMIT, 0x10000), GUEST_IDTR_LIMIT, "27.3.1.3");
    BROKEN(good_real_mode, SET(GUEST_RIP, 1ull << 32), GUEST_RIP, "27.3.1.4");
    BROKEN(good, SET(GUEST_RIP, 1ull << 48), GUEST_RIP, "27.3.1.4");
    FINE(good, SET(GUEST_RIP, 1ull << 47));
    FINE(good, SET(GUEST_RIP, ~0ull));
    BROKEN(good, AND(GUEST_RFLAGS, ~RFLAGS_FIXED_1), GUEST_RFLAGS, "27.3.1.4");
    BROKEN(good, OR(GUEST_RFLAGS, 1 << 15), GUEST_RFLAGS, "27.3.1.4");
    BROKEN(good_v86, AND(GUEST_CR0, ~(CR0_PE | CR0_PG)), GUEST_RFLAGS, "27.3.1.4");
    BROKEN(good, SET(ENTRY_INTR_INFO, EVENT(0, 0x31));
           AND(GUEST_RFLAGS, ~RFLAGS_IF), GUEST_RFLAGS, "27.3.1.4");
}

/* HLT is executed at privilege level 0. */
static void good_kernel(void)
{
    good();
    SET(GUEST_CS_ACCESS, 0xa09b);
    SET(GUEST_SS_ACCESS, 0xc093);
}

static void test_guest_activity(void **unused)
{
    FINE(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_HLT));
    BROKEN(good, SET(GUEST_ACTIVITY, 4), GUEST_ACTIVITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_ACTIVITY, ACTIVITY_HLT), GUEST_ACTIVITY, "27.3.1.5");
    BROKEN(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_HLT);
           SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI), GUEST_ACTIVITY, "27.3.1.5");
    FINE(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_HLT); SET(ENTRY_INTR_INFO, EVENT(0, 0x31)));
    FINE(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_HLT); SET(ENTRY_INTR_INFO, EVENT(3, VECTOR_DB)));
    BROKEN(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_HLT);
           SET(ENTRY_INTR_INFO, EVENT(3, VECTOR_UD)), GUEST_ACTIVITY, "27.3.1.5");
    FINE(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_SHUTDOWN); SET(ENTRY_INTR_INFO, EVENT(2, 2)));
    BROKEN(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_SHUTDOWN);
           SET(ENTRY_INTR_INFO, EVENT(0, 0x31)), GUEST_ACTIVITY, "27.3.1.5");
    FINE(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_WAIT_SIPI));
    BROKEN(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_WAIT_SIPI);
           SET(ENTRY_INTR_INFO, EVENT(2, 2)), GUEST_ACTIVITY, "27.3.1.5");
    struct vmx_caps_msrs poor = rich;
    poor.misc &= ~VMX_MISC_ACTIVITY_WAIT_SIPI;
    machine.msrs = &poor;
    BROKEN(good_kernel, SET(GUEST_ACTIVITY, ACTIVITY_WAIT_SIPI), GUEST_ACTIVITY, "27.3.1.5");
    machine.msrs = &rich;
}

static void test_guest_interruptibility(void **unused)
{
    FINE(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI));
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, 1 << 5), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS),
           GUEST_INTERRUPTIBILITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI);
           AND(GUEST_RFLAGS, ~RFLAGS_IF), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI);
           SET(ENTRY_INTR_INFO, EVENT(0, 0x31)), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_MOV_SS);
           SET(ENTRY_INTR_INFO, EVENT(2, 2)), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_NMI);
           SET(ENTRY_INTR_INFO, EVENT(2, 2)), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    FINE(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_NMI); SET(ENTRY_INTR_INFO, EVENT(0, 0x31)));
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_SMI), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_ENCLAVE), GUEST_INTERRUPTIBILITY, "27.3.1.5");
    machine.cpuid_7_ebx = CPUID_07_EBX_SGX;
    FINE(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_ENCLAVE));
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_ENCLAVE | INTERRUPTIBILITY_MOV_SS),
           GUEST_INTERRUPTIBILITY, "27.3.1.5");
    machine.cpuid_7_ebx = 0;
}

static void test_guest_pending_debug(void **unused)
{
    BROKEN(good, SET(GUEST_PENDING_DEBUG, 1 << 4), GUEST_PENDING_DEBUG, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI);
           OR(GUEST_RFLAGS, RFLAGS_TF), GUEST_PENDING_DEBUG, "27.3.1.5");
    BROKEN(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI);
           SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_BS), GUEST_PENDING_DEBUG, "27.3.1.5");
    FINE(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI); OR(GUEST_RFLAGS, RFLAGS_TF);
         SET(GUEST_DEBUGCTL, DEBUGCTL_BTF));
    FINE(good, SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_STI); OR(GUEST_RFLAGS, RFLAGS_TF);
         SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_BS | PENDING_DEBUG_ENABLED_BP));
}

static void test_guest_pending_debug_features(void **unused)
{
    BROKEN(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_BUS_LOCK), GUEST_PENDING_DEBUG, "27.3.1.5");
    BROKEN(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_RTM | PENDING_DEBUG_ENABLED_BP), GUEST_PENDING_DEBUG,
           "27.3.1.5");
    machine.cpuid_7_ecx = CPUID_07_ECX_BUS_LOCK;
    machine.cpuid_7_ebx = CPUID_07_EBX_RTM;
    FINE(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_BUS_LOCK));
    FINE(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_RTM | PENDING_DEBUG_ENABLED_BP));
    BROKEN(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_RTM), GUEST_PENDING_DEBUG, "27.3.1.5");
    BROKEN(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_RTM | PENDING_DEBUG_ENABLED_BP | PENDING_DEBUG_BS),
           GUEST_PENDING_DEBUG, "27.3.1.5");
    BROKEN(good, SET(GUEST_PENDING_DEBUG, PENDING_DEBUG_RTM | PENDING_DEBUG_ENABLED_BP);
           SET(GUEST_INTERRUPTIBILITY, INTERRUPTIBILITY_MOV_SS), GUEST_PENDING_DEBUG, "27.3.1.5");
    machine.cpuid_7_ecx = machine.cpuid_7_ebx = 0;
}

static void good_pae(void)
{
    good_real_mode();
    OR(GUEST_CR0, CR0_PE | CR0_PG);
    OR(GUEST_CR4, CR4_PAE);
}

static void test_guest_link_and_pdptes(void **unused)
{
    BROKEN(good, SET(LINK_POINTER, 8), LINK_POINTER, "27.3.1.5");
    BROKEN(good, SET(LINK_POINTER, 1ull << 39), LINK_POINTER, "27.3.1.5");
    FINE(good_pae, SET(GUEST_PDPTE0, 0x5001); SET(GUEST_PDPTE1, 0x1e6)); /* not present: not looked at */
    BROKEN(good_pae, SET(GUEST_PDPTE3, 0x5003), GUEST_PDPTE3, "27.3.1.6");
    BROKEN(good_pae, SET(GUEST_PDPTE0, 1ull << 39 | 1), GUEST_PDPTE0, "27.3.1.6");
    FINE(good, SET(GUEST_PDPTE0, 0x5003));
}

static unsigned reads;

static uint64_t fake_vmread(void *ctx, vmcs_field_t field)
{
    const struct vmx_caps_msrs *msrs = ctx;
    /* A field that does not exist fails on the processor. */
    if (field.encoding == VMCS_TSC_MULTIPLIER.encoding)
        assert_true(msrs->procbased2 >> 32 & PROC2_USE_TSC_SCALING);
    reads++;
    return field.encoding;
}

static void test_read(void **unused)
{
    struct vmx_caps_msrs msrs = rich;
    reads = 0;
    vmx_check_read(&state, &msrs, fake_vmread, &msrs);
    assert_int_equal(reads, VMX_F_COUNT);
    assert_int_equal(state.value[VMX_F_GUEST_RIP], 0x681e);
    assert_int_equal(state.value[VMX_F_TSC_MULTIPLIER], 0x2032);
    assert_int_equal(state.value[VMX_F_PROC3_CONTROLS], 0x2034);
    msrs.true_procbased &= ~HIGH(PROC_ACTIVATE_TERTIARY);
    msrs.procbased2 &= ~HIGH(PROC2_USE_TSC_SCALING);
    vmx_check_read(&state, &msrs, fake_vmread, &msrs);
    assert_int_equal(reads, 2 * VMX_F_COUNT - 2);
    assert_int_equal(state.value[VMX_F_TSC_MULTIPLIER] | state.value[VMX_F_PROC3_CONTROLS], 0);
    assert_string_equal(vmx_check_field_name(VMX_F_GUEST_CS_ACCESS), "GUEST_CS_ACCESS");
    assert_int_equal(vmx_check_field_encoding(VMX_F_GUEST_CS_ACCESS).encoding, 0x4816);
    for (unsigned i = 0; i < VMX_F_COUNT; i++)
        assert_non_null(vmx_check_field_name((enum vmx_check_field)i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_states),
        cmocka_unit_test(test_reserved_controls),
        cmocka_unit_test(test_execution_controls),
        cmocka_unit_test(test_apic_controls),
        cmocka_unit_test(test_exit_and_entry_controls),
        cmocka_unit_test(test_injected_events),
        cmocka_unit_test(test_host_state),
        cmocka_unit_test(test_guest_control_registers),
        cmocka_unit_test(test_guest_selectors_bases_limits),
        cmocka_unit_test(test_guest_access_rights),
        cmocka_unit_test(test_guest_tables_rip_rflags),
        cmocka_unit_test(test_guest_activity),
        cmocka_unit_test(test_guest_interruptibility),
        cmocka_unit_test(test_guest_pending_debug),
        cmocka_unit_test(test_guest_pending_debug_features),
        cmocka_unit_test(test_guest_link_and_pdptes),
        cmocka_unit_test(test_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
