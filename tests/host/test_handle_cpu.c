/* Instructions that exit by themselves, and the exits that are declined: what the guest's registers hold
 * afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "tests/host/run_path.h"

#define LEAVES_HIGH 0xdeadbeef00000000ull

static struct vcpu *v;
static struct fake_vcpu *f;

static int setup(void **state)
{
    (void)state;
    run_path_init(2);
    v = VCPU(0);
    f = fake_vcpu(v);
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = LEAVES_HIGH | i;
    return 0;
}

static struct exit_result handle(enum exit_kind kind)
{
    struct exit exit = {.kind = kind, .insn_len = 2};
    return run_path_handle(v, &exit);
}

/* No register but these has changed. */
static void assert_only(const uint64_t before[16], unsigned allowed)
{
    for (unsigned i = 0; i < 16; i++)
        if (!(allowed >> i & 1))
            assert_int_equal(v->gpr[i], before[i]);
}

/* ---- CPUID ---- */

static void cpuid(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf)
{
    uint64_t before[16];
    struct exit exit = {.kind = EXIT_CPUID, .insn_len = 2};
    vcpu->gpr[RAX] = LEAVES_HIGH | leaf;
    vcpu->gpr[RCX] = LEAVES_HIGH | subleaf;
    memcpy(before, vcpu->gpr, sizeof(before));
    assert_advances(run_path_handle(vcpu, &exit));
    for (unsigned i = RSP; i < 16; i++)
        assert_int_equal(vcpu->gpr[i], before[i]);
    for (unsigned i = RAX; i <= RBX; i++)
        assert_int_equal(vcpu->gpr[i] >> 32, 0);
}

static void test_cpuid_answers_from_the_table(void **state)
{
    (void)state;
    cpuid(v, 0x40000000, 0);
    char signature[13] = "";
    uint32_t words[3] = {(uint32_t)v->gpr[RBX], (uint32_t)v->gpr[RCX], (uint32_t)v->gpr[RDX]};
    memcpy(signature, words, 12);
    assert_string_equal(signature, CPUID_SIGNATURE);
    cpuid(v, 1, 0);
    assert_int_equal(v->gpr[RBX] >> 24, 0);
    assert_false(v->gpr[RCX] & CPUID_01_ECX_VMX);
    cpuid(VCPU(1), 1, 0);
    assert_int_equal(VCPU(1)->gpr[RBX] >> 24, 1); /* the APIC ID */
    cpuid(v, 0x12345678, 9);
    assert_int_equal(v->gpr[RAX] | v->gpr[RBX] | v->gpr[RCX] | v->gpr[RDX], 0);
}

static void test_cpuid_follows_the_vcpu(void **state)
{
    (void)state;
    cpuid(v, 1, 0);
    assert_false(v->gpr[RCX] & CPUID_01_ECX_OSXSAVE);
    assert_true(v->gpr[RDX] & CPUID_01_EDX_APIC);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_OSXSAVE);
    assert_int_equal(lapic_base_write(&v->lapic, LAPIC_BASE_DEFAULT | APIC_BASE_BSP), STATUS_OK);
    cpuid(v, 1, 0);
    assert_true(v->gpr[RCX] & CPUID_01_ECX_OSXSAVE);
    assert_false(v->gpr[RDX] & CPUID_01_EDX_APIC);
    cpuid(v, 0xd, 0);
    assert_int_equal(v->gpr[RBX], 576); /* what XCR0 enables now */
    v->xcr0 = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX;
    cpuid(v, 0xd, 0);
    assert_int_equal(v->gpr[RBX], 576 + 256);
}

/* ---- time ---- */

static void test_rdtsc(void **state)
{
    (void)state;
    uint64_t before[16];
    memcpy(before, v->gpr, sizeof(before));
    fake_host.tsc = 0x123456789;
    v->tsc_offset = 0x1000000000ull;
    assert_advances(handle(EXIT_RDTSC));
    assert_int_equal(v->gpr[RAX], 0x23456789);
    assert_int_equal(v->gpr[RDX], 0x11);
    assert_only(before, 1u << RAX | 1u << RDX);
}

static void test_rdtscp(void **state)
{
    (void)state;
    fake_host.tsc = 0x123456789;
    v->tsc_offset = (uint64_t)-0x123456789;
    assert_advances(handle(EXIT_RDTSCP));
    assert_int_equal(v->gpr[RAX] | v->gpr[RDX], 0);
    machine.vm.cpuid.has_rdtscp = false;
    assert_injects(handle(EXIT_RDTSCP), VECTOR_UD);
}

/* ---- HLT ---- */

static void test_hlt(void **state)
{
    (void)state;
    assert_advances(handle(EXIT_HLT));
    assert_int_equal(v->events.activity, VIRT_HALTED);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_HALTED);
    assert_true(v->requests & VCPU_REQ_EVENT); /* something may be there already */
    vcpu_set_halted(v, false);
    assert_int_equal(v->events.activity, VIRT_ACTIVE);
    assert_int_equal(virt_get(v, VIRT_ACTIVITY), VIRT_ACTIVE);
}

/* ---- what needs nothing ---- */

static void test_nothing_to_do(void **state)
{
    (void)state;
    static const enum exit_kind kinds[] = {EXIT_INVD, EXIT_WBINVD, EXIT_PAUSE};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        uint64_t before[16];
        memcpy(before, v->gpr, sizeof(before));
        assert_advances(handle(kinds[i]));
        assert_only(before, 0);
    }
    assert_int_equal(f->writes, 0);
}

static void test_invalidations_flush(void **state)
{
    (void)state;
    assert_advances(handle(EXIT_INVLPG));
    assert_advances(handle(EXIT_INVPCID));
    assert_int_equal(f->linear_flushes, 2);
    assert_int_equal(f->nested_flushes, 0);
}

static void test_hypercall(void **state)
{
    (void)state;
    uint64_t before[16];
    memcpy(before, v->gpr, sizeof(before));
    assert_advances(handle(EXIT_HYPERCALL));
    assert_int_equal(v->gpr[RAX], UINT64_MAX);
    assert_only(before, 1u << RAX);
    machine_user(v); /* at any privilege level */
    v->gpr[RAX] = 1;
    assert_advances(handle(EXIT_HYPERCALL));
    assert_int_equal(v->gpr[RAX], UINT64_MAX);
}

/* Each exit reason once per VM; reasons above 63 have bits of their own. */
static void test_refused_instructions_are_logged_once(void **state)
{
    struct exit exit = {.kind = EXIT_VIRT_INSN, .reason = 27, .insn_len = 3};
    for (unsigned i = 0; i < 3; i++)
        assert_injects(handle_undefined(v, &exit), VECTOR_UD);
    assert_int_equal(fake_host.log_lines, 1);
    assert_true(fake_host_logged("test/0: debug: "));
    assert_true(fake_host_logged("(exit reason 27) is not offered: answered with #UD"));
    exit.reason = 27 + 64;
    handle_undefined(v, &exit);
    assert_int_equal(fake_host.log_lines, 2);
    exit = (struct exit){.kind = EXIT_HYPERCALL, .reason = 18, .insn_len = 3};
    handle_hypercall(v, &exit);
    handle_hypercall(v, &exit);
    assert_int_equal(fake_host.log_lines, 3);
    assert_true(fake_host_logged("(exit reason 18) is not offered: answered with RAX = -1"));
}

static void test_instructions_that_are_not_there(void **state)
{
    (void)state;
    static const enum exit_kind kinds[] = {EXIT_VIRT_INSN, EXIT_MWAIT,  EXIT_MONITOR, EXIT_RDRAND,
                                           EXIT_RDSEED,    EXIT_XSAVES, EXIT_UMWAIT};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        assert_injects(handle(kinds[i]), VECTOR_UD);
    assert_injects_error(handle(EXIT_RDPMC), VECTOR_GP, 0);
    assert_int_equal(f->writes, 0);
}

/* ---- controls that are off, but might be forced on ---- */

static void test_descriptor_tables_and_apic_writes_stop(void **state)
{
    (void)state;
    assert_stops(handle(EXIT_DESC_ACCESS), STOP_UNHANDLED_EXIT);
    assert_stops(handle(EXIT_APIC_WRITE), STOP_UNHANDLED_EXIT);
}

static void test_tpr_below(void **state)
{
    (void)state;
    assert_int_equal(handle(EXIT_TPR_BELOW).action, ACTION_RETRY);
    assert_true(v->requests & VCPU_REQ_EVENT);
}

static struct exit apic_access(uint16_t offset, uint8_t access)
{
    return (struct exit){.kind = EXIT_APIC_ACCESS, .u.apic = {.offset = offset, .access = access}};
}

/* The instruction at RIP is carried out on the local APIC, as with an EPT violation. */
static void test_apic_access(void **state)
{
    (void)state;
    static const uint8_t store[] = {0x89, 0x08}; /* mov [rax], ecx */
    static const uint8_t load[] = {0x8b, 0x08};
    struct exit write = apic_access(0x80, 1), read = apic_access(0x80, 0);
    machine_code(v, store, sizeof(store));
    v->gpr[RAX] = LAPIC_BASE_DEFAULT + 0x80;
    v->gpr[RCX] = 0x30;
    struct exit_result result = run_path_handle(v, &write);
    assert_int_equal(result.action, ACTION_ADVANCE);
    assert_int_equal(result.length, 2);
    assert_int_equal(v->lapic.tpr, 0x30);
    machine_code(v, load, sizeof(load));
    v->gpr[RCX] = UINT64_MAX;
    assert_int_equal(run_path_handle(v, &read).action, ACTION_ADVANCE);
    assert_int_equal(v->gpr[RCX], 0x30);
    /* A fetch, a guest-physical access, an access while an event was delivered. */
    for (uint8_t access = 2; access < 16; access++) {
        struct exit other = apic_access(0x80, access);
        assert_stops(run_path_handle(v, &other), STOP_UNHANDLED_EXIT);
    }
    read.vectoring = (struct event){.valid = true, .vector = 0x41};
    assert_stops(run_path_handle(v, &read), STOP_UNHANDLED_EXIT);
}

static uint8_t ended;
static void note_eoi(void *ctx, uint8_t vector)
{
    (void)ctx;
    ended = vector;
}

static void test_virtualized_eoi(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_APIC_EOI, .u.interrupt = 0x61};
    v->lapic_env.eoi = note_eoi;
    assert_int_equal(run_path_handle(v, &exit).action, ACTION_RETRY);
    assert_int_equal(ended, 0x61);
}

/* ---- XSETBV ---- */

static struct exit_result xsetbv(uint64_t index, uint64_t value)
{
    v->gpr[RCX] = index;
    v->gpr[RAX] = LEAVES_HIGH | (uint32_t)value;
    v->gpr[RDX] = LEAVES_HIGH | value >> 32;
    return handle(EXIT_XSETBV);
}

static void test_xsetbv(void **state)
{
    (void)state;
    assert_advances(xsetbv(LEAVES_HIGH, XSTATE_X87 | XSTATE_SSE | XSTATE_AVX)); /* of RCX only ECX counts */
    assert_int_equal(v->xcr0, 7);
    assert_int_equal(f->xcr0_writes, 1);
    static const uint64_t wrong[] = {
        0, XSTATE_SSE, XSTATE_X87 | XSTATE_AVX, 7 | XSTATE_AVX512, 7 | XSTATE_PKRU, 7 | BIT(63), BIT(32) | 7};
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_injects_error(xsetbv(0, wrong[i]), VECTOR_GP, 0);
    assert_injects_error(xsetbv(1, 7), VECTOR_GP, 0); /* there is no XCR1 */
    machine_user(v);
    assert_injects_error(xsetbv(0, 7), VECTOR_GP, 0);
    assert_int_equal(v->xcr0, 7);
    assert_int_equal(f->xcr0_writes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_cpuid_answers_from_the_table, setup),
        cmocka_unit_test_setup(test_cpuid_follows_the_vcpu, setup),
        cmocka_unit_test_setup(test_rdtsc, setup),
        cmocka_unit_test_setup(test_rdtscp, setup),
        cmocka_unit_test_setup(test_hlt, setup),
        cmocka_unit_test_setup(test_nothing_to_do, setup),
        cmocka_unit_test_setup(test_invalidations_flush, setup),
        cmocka_unit_test_setup(test_hypercall, setup),
        cmocka_unit_test_setup(test_refused_instructions_are_logged_once, setup),
        cmocka_unit_test_setup(test_instructions_that_are_not_there, setup),
        cmocka_unit_test_setup(test_descriptor_tables_and_apic_writes_stop, setup),
        cmocka_unit_test_setup(test_tpr_below, setup),
        cmocka_unit_test_setup(test_apic_access, setup),
        cmocka_unit_test_setup(test_virtualized_eoi, setup),
        cmocka_unit_test_setup(test_xsetbv, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
