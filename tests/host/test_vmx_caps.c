#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/vmx/vmcs.h"
#include "arch/x86/vmx/vmx_caps.h"

/* A processor of the Skylake server generation. */
static const struct vmx_caps_msrs skylake = {
    .basic = 0x00da040000000004,
    .misc = 0x00000000300481e5,
    .vmcs_enum = 0x2e,
    .pinbased = 0x0000007f00000016,
    .procbased = 0xfff9fffe0401e172,
    .exit = 0x01ffffff00036dff,
    .entry = 0x0003ffff000011ff,
    .true_pinbased = 0x0000007f00000016,
    .true_procbased = 0xfff9fffe04006172,
    .true_exit = 0x01ffffff00036dfb,
    .true_entry = 0x0003ffff000011fb,
    .procbased2 = 0x035fffff00000000,
    .cr0_fixed0 = 0x80000021,
    .cr0_fixed1 = 0xffffffff,
    .cr4_fixed0 = 0x2000,
    .cr4_fixed1 = 0x3727ff,
    .ept_vpid = 0x00000f0106734141,
    .vmfunc = 1,
};

static struct vmx_controls controls;
static struct vmx_caps_report report;

static const struct vmx_report_line *line(const char *name)
{
    for (uint32_t i = 0; i < report.count; i++) {
        if (strcmp(report.lines[i].name, name) == 0)
            return &report.lines[i];
    }
    fail_msg("no line \"%s\"", name);
    return NULL;
}

static void test_skylake(void **state)
{
    assert_int_equal(vmx_resolve_controls(&skylake, &controls, &report), STATUS_OK);
    assert_int_equal(controls.pin, 0x7f); /* default1 0x16 and ext-int, NMI, virtual NMI, timer */
    assert_int_equal(controls.proc, 0x04006172 | PROC_ACTIVATE_SECONDARY | PROC_HLT_EXITING |
                                        PROC_USE_MSR_BITMAPS | PROC_USE_IO_BITMAPS | PROC_CR8_LOAD_EXITING |
                                        PROC_CR8_STORE_EXITING | PROC_USE_TSC_OFFSETTING |
                                        PROC_MWAIT_EXITING | PROC_MONITOR_EXITING | PROC_RDPMC_EXITING);
    assert_int_equal(controls.proc2, PROC2_ENABLE_EPT | PROC2_ENABLE_VPID | PROC2_UNRESTRICTED_GUEST |
                                         PROC2_WBINVD_EXITING | PROC2_ENABLE_RDTSCP | PROC2_ENABLE_INVPCID |
                                         PROC2_ENABLE_XSAVES | PROC2_ENCLS_EXITING);
    assert_int_equal(controls.exit, 0x00036dff | EXIT_CTL_HOST_64BIT | EXIT_CTL_ACK_INTERRUPT |
                                        EXIT_CTL_SAVE_PAT | EXIT_CTL_LOAD_PAT | EXIT_CTL_SAVE_EFER |
                                        EXIT_CTL_LOAD_EFER);
    assert_int_equal(controls.entry, 0x000011ff | ENTRY_CTL_LOAD_PAT | ENTRY_CTL_LOAD_EFER);
    assert_int_equal(controls.proc3, 0);
    assert_true(controls.ept_2m && controls.ept_1g && controls.ept_exec_only && controls.invept_single);
    assert_true(controls.invvpid_address && controls.invvpid_keep_global && controls.has_wait_sipi);
    assert_int_equal(controls.timer_shift, 5);
    assert_int_equal(controls.revision, 4);
    assert_int_equal(report.missing, 0);
    assert_int_equal(line("enable EPT")->finding, VMX_FOUND);
    assert_int_equal(line("CR3-load exiting off")->finding, VMX_FOUND);
    assert_int_equal(line("VMM bus-lock detection")->finding, VMX_ABSENT_OPTIONAL);
    assert_int_equal(vmx_resolve_controls(&skylake, &controls, NULL), STATUS_OK);
}

static void test_optional_controls_are_taken(void **state)
{
    struct vmx_caps_msrs msrs = skylake;
    msrs.procbased2 |= (uint64_t)(PROC2_BUS_LOCK_DETECTION | PROC2_INSTRUCTION_TIMEOUT | PROC2_ENCLV_EXITING)
                       << 32;
    assert_int_equal(vmx_resolve_controls(&msrs, &controls, &report), STATUS_OK);
    assert_true(controls.proc2 & PROC2_BUS_LOCK_DETECTION && controls.proc2 & PROC2_INSTRUCTION_TIMEOUT);
    msrs.procbased2 &= ~((uint64_t)(PROC2_ENABLE_XSAVES | PROC2_ENABLE_RDTSCP | PROC2_ENABLE_INVPCID) << 32);
    msrs.ept_vpid &=
        ~(EPT_CAP_1G | EPT_CAP_2M | EPT_CAP_INVEPT_SINGLE | VPID_CAP_ADDRESS | VPID_CAP_SINGLE_KEEP_GLOBAL);
    assert_int_equal(vmx_resolve_controls(&msrs, &controls, &report), STATUS_OK);
    assert_false(controls.proc2 & (PROC2_ENABLE_XSAVES | PROC2_ENABLE_RDTSCP | PROC2_ENABLE_INVPCID));
    assert_false(controls.ept_2m || controls.ept_1g || controls.invept_single || controls.invvpid_address ||
                 controls.invvpid_keep_global);
    assert_int_equal(line("enable INVPCID")->finding, VMX_ABSENT_OPTIONAL);
    assert_string_equal(line("enable INVPCID")->meaning, "guests are not offered INVPCID");
}

/* The old MSRs, without the TRUE ones, force CR3 exits on: slower, but no reason to refuse. */
static void test_without_true_controls(void **state)
{
    struct vmx_caps_msrs msrs = skylake;
    msrs.basic &= ~VMX_BASIC_TRUE_CONTROLS;
    msrs.true_pinbased = msrs.true_procbased = msrs.true_exit = msrs.true_entry = 0;
    assert_int_equal(vmx_resolve_controls(&msrs, &controls, &report), STATUS_OK);
    assert_true(controls.proc & PROC_CR3_LOAD_EXITING && controls.proc & PROC_CR3_STORE_EXITING);
    assert_int_equal(line("CR3-load exiting off")->finding, VMX_ABSENT_OPTIONAL);
}

struct removal {
    size_t offset; /* of the MSR in struct vmx_caps_msrs */
    uint64_t mask; /* bits to clear (or, for must_clear, to set in the low half) */
    const char *name;
};
#define REMOVE(msr, mask, name)                                                                              \
    {                                                                                                        \
        offsetof(struct vmx_caps_msrs, msr), (mask), name                                                    \
    }
#define HIGH(mask) ((uint64_t)(mask) << 32)

static void test_each_required_one_is_missed(void **state)
{
    static const struct removal removals[] = {
        REMOVE(true_pinbased, HIGH(PIN_EXTERNAL_INTERRUPT_EXITING), "external-interrupt exiting"),
        REMOVE(true_pinbased, HIGH(PIN_NMI_EXITING), "NMI exiting"),
        REMOVE(true_pinbased, HIGH(PIN_VIRTUAL_NMIS), "virtual NMIs"),
        REMOVE(true_pinbased, HIGH(PIN_PREEMPTION_TIMER), "VMX-preemption timer"),
        REMOVE(true_procbased, HIGH(PROC_ACTIVATE_SECONDARY), "activate secondary controls"),
        REMOVE(true_procbased, HIGH(PROC_HLT_EXITING), "HLT exiting"),
        REMOVE(true_procbased, HIGH(PROC_USE_MSR_BITMAPS), "use MSR bitmaps"),
        REMOVE(true_procbased, HIGH(PROC_USE_IO_BITMAPS), "use I/O bitmaps"),
        REMOVE(true_procbased, HIGH(PROC_CR8_LOAD_EXITING), "CR8-load exiting"),
        REMOVE(true_procbased, HIGH(PROC_CR8_STORE_EXITING), "CR8-store exiting"),
        REMOVE(true_procbased, HIGH(PROC_USE_TSC_OFFSETTING), "use TSC offsetting"),
        REMOVE(true_procbased, HIGH(PROC_MWAIT_EXITING), "MWAIT exiting"),
        REMOVE(true_procbased, HIGH(PROC_MONITOR_EXITING), "MONITOR exiting"),
        REMOVE(true_procbased, HIGH(PROC_RDPMC_EXITING), "RDPMC exiting"),
        REMOVE(true_procbased, HIGH(PROC_INTERRUPT_WINDOW_EXITING), "interrupt-window exiting"),
        REMOVE(true_procbased, HIGH(PROC_NMI_WINDOW_EXITING), "NMI-window exiting"),
        REMOVE(procbased2, HIGH(PROC2_ENABLE_EPT), "enable EPT"),
        REMOVE(procbased2, HIGH(PROC2_ENABLE_VPID), "enable VPID"),
        REMOVE(procbased2, HIGH(PROC2_UNRESTRICTED_GUEST), "unrestricted guest"),
        REMOVE(procbased2, HIGH(PROC2_WBINVD_EXITING), "WBINVD exiting"),
        REMOVE(true_exit, HIGH(EXIT_CTL_HOST_64BIT), "host address-space size"),
        REMOVE(true_exit, HIGH(EXIT_CTL_ACK_INTERRUPT), "acknowledge interrupt on exit"),
        REMOVE(true_exit, HIGH(EXIT_CTL_SAVE_DEBUG_CONTROLS), "save debug controls"),
        REMOVE(true_exit, HIGH(EXIT_CTL_SAVE_PAT), "save IA32_PAT"),
        REMOVE(true_exit, HIGH(EXIT_CTL_LOAD_PAT), "load IA32_PAT on exit"),
        REMOVE(true_exit, HIGH(EXIT_CTL_SAVE_EFER), "save IA32_EFER"),
        REMOVE(true_exit, HIGH(EXIT_CTL_LOAD_EFER), "load IA32_EFER on exit"),
        REMOVE(true_entry, HIGH(ENTRY_CTL_LOAD_DEBUG_CONTROLS), "load debug controls"),
        REMOVE(true_entry, HIGH(ENTRY_CTL_LOAD_PAT), "load IA32_PAT on entry"),
        REMOVE(true_entry, HIGH(ENTRY_CTL_LOAD_EFER), "load IA32_EFER on entry"),
        REMOVE(true_entry, HIGH(ENTRY_CTL_IA32E_GUEST), "IA-32e mode guest"),
        REMOVE(basic, VMX_BASIC_INS_OUTS_INFO, "INS/OUTS information on exit"),
        REMOVE(basic, (uint64_t)6 << 50, "VMCS memory type write-back"),
        REMOVE(ept_vpid, EPT_CAP_WALK_4, "EPT page-walk length 4"),
        REMOVE(ept_vpid, EPT_CAP_WB, "EPT structures write-back"),
        REMOVE(ept_vpid, EPT_CAP_INVEPT, "INVEPT"),
        REMOVE(ept_vpid, EPT_CAP_INVEPT_ALL, "INVEPT all-context"),
        REMOVE(ept_vpid, VPID_CAP_INVVPID, "INVVPID"),
        REMOVE(ept_vpid, VPID_CAP_SINGLE, "INVVPID single-context"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(removals); i++) {
        struct vmx_caps_msrs msrs = skylake;
        uint64_t value;
        memcpy(&value, (char *)&msrs + removals[i].offset, sizeof(value));
        value &= ~removals[i].mask;
        memcpy((char *)&msrs + removals[i].offset, &value, sizeof(value));
        memset(&controls, 0xff, sizeof(controls));
        assert_int_equal(vmx_resolve_controls(&msrs, &controls, &report), ERR_UNSUPPORTED);
        assert_int_equal(report.missing, 1);
        assert_int_equal(line(removals[i].name)->finding, VMX_MISSING);
        assert_true(strlen(line(removals[i].name)->meaning) > 10);
        assert_int_equal(controls.pin | controls.proc | controls.proc2 | controls.exit | controls.entry, 0);
    }
}

static void test_controls_that_cannot_be_toggled(void **state)
{
    struct vmx_caps_msrs msrs = skylake;
    msrs.true_entry |= ENTRY_CTL_IA32E_GUEST; /* allowed-0 says it must be 1 */
    assert_int_equal(vmx_resolve_controls(&msrs, &controls, &report), ERR_UNSUPPORTED);
    assert_int_equal(line("IA-32e mode guest")->finding, VMX_MISSING);
}

static void test_unknown_forced_controls(void **state)
{
    static const struct removal forced[] = {
        REMOVE(true_pinbased, PIN_POSTED_INTERRUPTS, "pin-based controls forced on"),
        REMOVE(true_procbased, PROC_MONITOR_TRAP_FLAG, "primary processor-based controls forced on"),
        REMOVE(procbased2, PROC2_ENABLE_PML, "secondary processor-based controls forced on"),
        REMOVE(true_exit, EXIT_CTL_LOAD_CET, "VM-exit controls forced on"),
        REMOVE(true_entry, ENTRY_CTL_ENTRY_TO_SMM, "VM-entry controls forced on"),
    };
    for (size_t i = 0; i < ARRAY_SIZE(forced); i++) {
        struct vmx_caps_msrs msrs = skylake;
        uint64_t value;
        memcpy(&value, (char *)&msrs + forced[i].offset, sizeof(value));
        value |= forced[i].mask | forced[i].mask << 32;
        memcpy((char *)&msrs + forced[i].offset, &value, sizeof(value));
        assert_int_equal(vmx_resolve_controls(&msrs, &controls, &report), ERR_UNSUPPORTED);
        assert_int_equal(report.missing, 1);
        assert_int_equal(line(forced[i].name)->finding, VMX_MISSING);
    }
}

static void test_nothing_there(void **state)
{
    struct vmx_caps_msrs none = {0};
    assert_int_equal(vmx_resolve_controls(&none, &controls, &report), ERR_UNSUPPORTED);
    assert_true(report.missing > 30 && report.count <= VMX_REPORT_MAX);
}

/* A reader that knows which MSRs exist and fails the test for any other, as the processor would with #GP. */
struct reader {
    const struct vmx_caps_msrs *msrs;
    uint32_t seen[64];
    unsigned count;
};

static uint64_t read_msr(void *ctx, uint32_t msr)
{
    struct reader *r = ctx;
    const struct vmx_caps_msrs *m = r->msrs;
    r->seen[r->count++] = msr;
    assert_in_range(msr, 0x480, 0x493);
    const uint64_t values[] = {m->basic,      m->pinbased,      m->procbased,      m->exit,
                               m->entry,      m->misc,          m->cr0_fixed0,     m->cr0_fixed1,
                               m->cr4_fixed0, m->cr4_fixed1,    m->vmcs_enum,      m->procbased2,
                               m->ept_vpid,   m->true_pinbased, m->true_procbased, m->true_exit,
                               m->true_entry, m->vmfunc,        m->procbased3,     m->exit2};
    return values[msr - 0x480];
}

static bool was_read(const struct reader *r, uint32_t msr)
{
    for (unsigned i = 0; i < r->count; i++) {
        if (r->seen[i] == msr)
            return true;
    }
    return false;
}

static void test_read(void **state)
{
    struct vmx_caps_msrs source = skylake, got;
    struct reader r = {.msrs = &source};
    vmx_caps_read(&got, read_msr, &r);
    assert_memory_equal(&got, &source, sizeof(got));
    assert_false(was_read(&r, MSR_IA32_VMX_PROCBASED_CTLS3) || was_read(&r, MSR_IA32_VMX_EXIT_CTLS2));

    source.procbased |= HIGH(PROC_ACTIVATE_TERTIARY);
    source.exit |= HIGH(EXIT_CTL_ACTIVATE_SECONDARY);
    source.procbased3 = 0x11;
    source.exit2 = 8;
    r = (struct reader){.msrs = &source};
    vmx_caps_read(&got, read_msr, &r);
    assert_memory_equal(&got, &source, sizeof(got));

    source = (struct vmx_caps_msrs){.basic = 4, .procbased = 0x401e172};
    r = (struct reader){.msrs = &source};
    vmx_caps_read(&got, read_msr, &r);
    for (uint32_t msr = MSR_IA32_VMX_PROCBASED_CTLS2; msr <= MSR_IA32_VMX_EXIT_CTLS2; msr++)
        assert_false(was_read(&r, msr));
}

static void test_lock(void **state)
{
    assert_int_equal(vmx_lock_state(0), VMX_LOCK_OPEN);
    assert_int_equal(vmx_lock_state(FEATURE_CONTROL_VMX_OUTSIDE_SMX), VMX_LOCK_OPEN);
    assert_int_equal(vmx_lock_state(FEATURE_CONTROL_LOCK), VMX_LOCK_DISABLED);
    assert_int_equal(vmx_lock_state(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_IN_SMX), VMX_LOCK_DISABLED);
    assert_int_equal(vmx_lock_state(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX_OUTSIDE_SMX),
                     VMX_LOCK_ENABLED);
}

static void test_cr0_policy(void **state)
{
    struct vmx_cr_policy p = vmx_cr0_policy(&skylake);
    assert_int_equal(~p.mask, CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM);
    /* The state at reset, as the guest sees it and as it is. */
    uint64_t reset = CR0_CD | CR0_NW | CR0_ET;
    assert_int_equal(vmx_cr_real(&p, reset), CR0_NE | CR0_ET);
    assert_int_equal(vmx_cr_guest_view(&p, vmx_cr_real(&p, reset), vmx_cr_shadow(&p, reset)), reset);
    /* Linux: everything on, ET not mentioned. */
    uint64_t linux_cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_MP | CR0_PE;
    assert_int_equal(vmx_cr_real(&p, linux_cr0), linux_cr0 | CR0_ET);
    assert_int_equal(vmx_cr_shadow(&p, linux_cr0), linux_cr0 | CR0_ET);
    /* NE off is what the guest sees, and not what is. */
    assert_true(vmx_cr_real(&p, CR0_PE) & CR0_NE);
    assert_int_equal(vmx_cr_guest_view(&p, vmx_cr_real(&p, CR0_PE), vmx_cr_shadow(&p, CR0_PE)),
                     CR0_PE | CR0_ET);
    /* Undefined bits never arrive. */
    assert_int_equal(vmx_cr_real(&p, ~(uint64_t)0), CR0_DEFINED & ~(CR0_CD | CR0_NW));
    assert_int_equal(p.settable, CR0_DEFINED);
}

static void test_cr4_policy(void **state)
{
    uint64_t offered = CR4_PAE | CR4_PGE | CR4_OSXSAVE | CR4_MCE | CR4_VMXE | CR4_UMIP;
    struct vmx_cr_policy p = vmx_cr4_policy(&skylake, offered, CR4_PAE | CR4_PGE | CR4_MCE | CR4_SMEP);
    /* VMXE is not for guests, UMIP not of this processor. */
    assert_int_equal(p.settable, CR4_PAE | CR4_PGE | CR4_OSXSAVE | CR4_MCE);
    assert_int_equal(~p.mask, CR4_PAE | CR4_PGE);
    assert_int_equal(vmx_cr_real(&p, 0), CR4_VMXE | CR4_MCE);
    assert_int_equal(vmx_cr_guest_view(&p, vmx_cr_real(&p, 0), vmx_cr_shadow(&p, 0)), 0);
    assert_int_equal(vmx_cr_real(&p, CR4_PAE | CR4_SMXE), CR4_PAE | CR4_VMXE | CR4_MCE);
}

static void test_root_mode_values(void **state)
{
    assert_int_equal(vmx_cr0_for_root(&skylake, CR0_PE | CR0_PG), CR0_PE | CR0_PG | CR0_NE);
    assert_int_equal(vmx_cr4_for_root(&skylake, CR4_PAE | CR4_PKS), CR4_PAE | CR4_VMXE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_skylake),
        cmocka_unit_test(test_optional_controls_are_taken),
        cmocka_unit_test(test_without_true_controls),
        cmocka_unit_test(test_each_required_one_is_missed),
        cmocka_unit_test(test_controls_that_cannot_be_toggled),
        cmocka_unit_test(test_unknown_forced_controls),
        cmocka_unit_test(test_nothing_there),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_cr0_policy),
        cmocka_unit_test(test_cr4_policy),
        cmocka_unit_test(test_root_mode_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
