/* CPUID as guests see it. Three hosts: one like Bochs' Skylake-X, one that claims every bit there is, and a
 * bare one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/policy/cpuid_policy.h"

static struct cpuid_host skylake, everything, bare;
static const struct cpuid_vm vm4 = {.vcpu_count = 4,
                                    .tsc_hz = 3504000000,
                                    .xcr0_allowed = UINT64_MAX,
                                    .xsaves = false,
                                    .spec_ctrl = true,
                                    .rdtscp = true,
                                    .invpcid = true};
static const struct cpuid_dynamic idle = {.cr4 = 0, .xcr0 = 1, .apic_id = 2, .apic_enabled = true};
static struct cpuid_table t;

static void add(struct cpuid_host *h, uint32_t leaf, uint32_t sub, uint32_t a, uint32_t b, uint32_t c,
                uint32_t d)
{
    assert_true(h->count < CPUID_HOST_MAX);
    h->leaves[h->count++] = (struct cpuid_leaf){leaf, sub, a, b, c, d};
}

static void add_text(struct cpuid_host *h, uint32_t leaf, const char *text)
{
    uint32_t r[4];
    memcpy(r, text, 16);
    add(h, leaf, 0, r[0], r[1], r[2], r[3]);
}

static int setup(void **state)
{
    (void)state;
    struct cpuid_host *h = &skylake;
    add(h, 0, 0, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69); /* GenuineIntel */
    add(h, 1, 0, 0x00050654, 0x05040800, 0x7ffefbff, 0xbfebfbff);
    add(h, 2, 0, 0x76036301, 0x00f0b5ff, 0, 0x00c30000);
    add(h, 4, 0, 0x1c004121, 0x01c0003f, 63, 0);
    add(h, 4, 1, 0x1c004122, 0x01c0003f, 63, 0);
    add(h, 4, 2, 0x1c004143, 0x03c0003f, 1023, 0);
    add(h, 4, 3, 0x1c03c163, 0x0280003f, 12287, 4);
    add(h, 4, 4, 0, 0, 0, 0);
    add(h, 7, 0, 0, 0xd39ffffb, 0, 0x0c000000);
    add(h, 0xd, 0, 0x2ff, 2696, 2696, 0);
    add(h, 0xd, 1, 0xf, 2568, 0, 0);
    add(h, 0xd, 2, 256, 576, 0, 0);
    add(h, 0xd, 3, 64, 960, 0, 0);
    add(h, 0xd, 4, 64, 1024, 0, 0);
    add(h, 0xd, 5, 64, 1088, 0, 0);
    add(h, 0xd, 6, 512, 1152, 0, 0);
    add(h, 0xd, 7, 1024, 1664, 0, 0);
    add(h, 0xd, 9, 8, 2688, 0, 0);
    add(h, 0x80000000, 0, 0x80000008, 0, 0, 0);
    add(h, 0x80000001, 0, 0, 0, 0x121, 0x2c100800);
    add_text(h, 0x80000002, "Intel(R) Core(TM");
    add_text(h, 0x80000003, ") i7-7800X CPU @");
    add_text(h, 0x80000004, " 3.50GHz\0\0\0\0\0\0\0");
    add(h, 0x80000006, 0, 0, 0, 0x01006040, 0);
    add(h, 0x80000007, 0, 0, 0, 0, 0x100);
    add(h, 0x80000008, 0, 0x302e, 0, 0, 0);

    static const uint32_t leaves[] = {0,          1,          2,          0x80000000, 0x80000001, 0x80000002,
                                      0x80000003, 0x80000004, 0x80000006, 0x80000007, 0x80000008};
    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
        add(&everything, leaves[i], 0, ~0u, ~0u, ~0u, ~0u);
    for (uint32_t i = 0; i < CPUID_CACHES; i++)
        add(&everything, 4, i, ~0u, ~0u, ~0u, ~0u);
    for (uint32_t i = 0; i < 3; i++)
        add(&everything, 7, i, ~0u, ~0u, ~0u, ~0u);
    for (uint32_t i = 0; i < XSTATE_COMPONENTS; i++)
        add(&everything, 0xd, i, i < 2 ? ~0u : 64, i < 2 ? ~0u : 576 + 64 * i, ~0u, ~0u);

    add(&bare, 0, 0, 1, 0x756e6547, 0x6c65746e, 0x49656e69);
    add(&bare, 1, 0, 0x600, 0, 0, 0);
    return 0;
}

static struct cpuid_regs get(uint32_t leaf, uint32_t sub, const struct cpuid_dynamic *d)
{
    struct cpuid_regs r;
    memset(&r, 0xcc, sizeof(r));
    cpuid_policy_get(&t, leaf, sub, d, &r);
    return r;
}

static void test_identity(void **state)
{
    (void)state;
    cpuid_policy_build(&skylake, &vm4, &t);
    struct cpuid_regs r = get(0, 0, &idle);
    assert_int_equal(r.eax, 0x1f);
    assert_int_equal(r.ebx, 0x756e6547);
    r = get(0x40000000, 0, &idle);
    assert_int_equal(r.eax, 0x40000000);
    assert_memory_equal(&r.ebx, "BulkheadBulk", 12);
    STATIC_ASSERT(offsetof(struct cpuid_regs, edx) == offsetof(struct cpuid_regs, ebx) + 8, "three in a row");
    r = get(0x80000000, 0, &idle);
    assert_int_equal(r.eax, 0x80000008);
    assert_int_equal(r.ebx | r.ecx | r.edx, 0);
    r = get(0x80000003, 0, &idle);
    assert_memory_equal(&r, ") i7-7800X CPU @", 16);
    r = get(0x80000008, 0, &idle);
    assert_int_equal(r.eax, 0x302e);
    assert_int_equal(t.phys_bits, 46);
    assert_int_equal(get(1, 0, &idle).eax, 0x50654);
    assert_int_equal(get(0x80000007, 0, &idle).edx, 0x100);
    assert_int_equal(get(0x80000006, 0, &idle).ecx, 0x01006040);
}

/* Leaves that must be empty whatever the host has. */
static void test_silent_leaves(void **state)
{
    (void)state;
    static const uint32_t zero[] = {3,          5,          8,          9,          0xa,        0xc,
                                    0xe,        0xf,        0x10,       0x11,       0x12,       0x13,
                                    0x14,       0x17,       0x18,       0x19,       0x1a,       0x1b,
                                    0x1c,       0x1d,       0x1e,       0x20,       0x21,       0x23,
                                    0x24,       0x40000001, 0x40000010, 0x3fffffff, 0x80000005, 0x80000009,
                                    0x8000001f, 0x80860000, 0xc0000000, 0xffffffff};
    struct cpuid_dynamic d = {UINT64_MAX, UINT64_MAX, ~0u, true};
    cpuid_policy_build(&everything, &vm4, &t);
    for (size_t i = 0; i < ARRAY_SIZE(zero); i++) {
        struct cpuid_regs r = get(zero[i], 0, &d);
        assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
    }
    for (uint32_t sub = 3; sub < 10; sub++) {
        struct cpuid_regs r = get(7, sub, &d);
        assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
    }
    struct cpuid_regs r = get(6, 0, &d);
    assert_int_equal(r.eax, 4);
    assert_int_equal(r.ebx | r.ecx | r.edx, 0);
}

/* A host that claims everything: the exact set of bits that may be seen. Written down a second time, by
 * number, on purpose. */
static void test_default_deny(void **state)
{
    (void)state;
    struct cpuid_vm vm = vm4;
    vm.xsaves = true;
    struct cpuid_dynamic d = idle;
    cpuid_policy_build(&everything, &vm, &t);
    assert_int_equal(get(1, 0, &d).ecx, 0xf7fa3203); /* OSXSAVE (27) needs CR4 */
    assert_int_equal(get(1, 0, &d).edx, 0x1f8bfbff);
    assert_int_equal(get(7, 0, &d).eax, 2);
    assert_int_equal(get(7, 0, &d).ebx, 0xfdbf27eb);
    assert_int_equal(get(7, 0, &d).ecx, 0x1a405f4f);
    assert_int_equal(get(7, 0, &d).edx, 0xbc80451c);
    assert_int_equal(get(7, 1, &d).eax, 0x00801cb7);
    assert_int_equal(get(7, 1, &d).edx, 0x00004430);
    assert_int_equal(get(7, 1, &d).ebx | get(7, 1, &d).ecx, 0);
    assert_int_equal(get(7, 2, &d).edx, 0x3f);
    assert_int_equal(get(7, 2, &d).eax | get(7, 2, &d).ebx | get(7, 2, &d).ecx, 0);
    assert_int_equal(get(0xd, 1, &d).eax, 0xf);
    assert_int_equal(get(0x80000001, 0, &d).ecx, 0x121);
    assert_int_equal(get(0x80000001, 0, &d).edx, 0x2c100800);
    assert_int_equal(get(0x80000007, 0, &d).edx, 0x100);
    assert_int_equal(get(0x80000007, 0, &d).eax | get(0x80000007, 0, &d).ebx | get(0x80000007, 0, &d).ecx, 0);
    assert_int_equal(get(0x80000008, 0, &d).eax, 48 << 8 | 48);
    assert_int_equal(get(0x80000008, 0, &d).ebx, 0x200);
    assert_int_equal(get(0x80000008, 0, &d).ecx | get(0x80000008, 0, &d).edx, 0);
    assert_int_equal(t.cr4_allowed, CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE |
                                        CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP |
                                        CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |
                                        CR4_PKE);
    assert_int_equal(t.efer_allowed, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE);
    assert_int_equal(t.spec_ctrl_allowed, 0x5ff);
    assert_int_equal(t.xcr0_allowed, 0x2e7);
    assert_true(t.has_pred_cmd && t.has_flush_cmd && t.has_arch_capabilities && t.has_rdtscp && t.has_xsaves);
}

/* Nothing is offered without the state behind it. */
static void test_features_follow_the_state(void **state)
{
    (void)state;
    struct cpuid_vm vm = vm4;
    vm.xcr0_allowed = 7; /* AVX, no AVX-512, no PKRU */
    vm.spec_ctrl = vm.rdtscp = vm.invpcid = false;
    cpuid_policy_build(&everything, &vm, &t);
    assert_int_equal(t.xcr0_allowed, 7);
    assert_int_equal(get(7, 0, &idle).ebx & 0xdc230400, 0); /* AVX-512*, INVPCID */
    assert_int_equal(get(7, 0, &idle).ebx & CPUID_07_EBX_AVX2, CPUID_07_EBX_AVX2);
    assert_int_equal(get(7, 0, &idle).ecx & (0x5842 | CPUID_07_ECX_PKU | CPUID_07_ECX_RDPID), 0);
    assert_int_equal(get(7, 0, &idle).edx, 0x20004410);
    assert_int_equal(get(7, 1, &idle).eax & 1 << 5, 0);
    assert_int_equal(get(7, 2, &idle).edx, 1 << 5);
    assert_int_equal(get(0x80000001, 0, &idle).edx & CPUID_80000001_EDX_RDTSCP, 0);
    assert_int_equal(t.spec_ctrl_allowed, 0);
    assert_false(t.has_pred_cmd || t.has_flush_cmd || t.has_rdtscp || t.has_xsaves);
    assert_int_equal(t.cr4_allowed & CR4_PKE, 0);
    assert_int_equal(get(0xd, 0, &idle).eax, 7);
    assert_int_equal(get(0xd, 9, &idle).eax, 0);
    vm.xcr0_allowed = 0; /* no XSAVE at all */
    cpuid_policy_build(&everything, &vm, &t);
    assert_int_equal(get(1, 0, &idle).ecx & (CPUID_01_ECX_XSAVE | CPUID_01_ECX_AVX | CPUID_01_ECX_FMA), 0);
    assert_int_equal(get(7, 0, &idle).ebx & CPUID_07_EBX_AVX2, 0);
    assert_int_equal(get(7, 0, &idle).ecx & (CPUID_07_ECX_VAES | CPUID_07_ECX_VPCLMULQDQ), 0);
    for (uint32_t sub = 0; sub < 22; sub++) {
        struct cpuid_regs r = get(0xd, sub, &idle);
        assert_int_equal(r.eax | r.ebx | r.ecx | r.edx, 0);
    }
    assert_int_equal(t.cr4_allowed & CR4_OSXSAVE, 0);
}

/* What we emulate is there even when the host lacks it; what we don't is not invented. */
static void test_bare_host(void **state)
{
    (void)state;
    struct cpuid_vm vm = vm4;
    vm.vcpu_count = 1;
    cpuid_policy_build(&bare, &vm, &t);
    assert_int_equal(get(1, 0, &idle).ecx,
                     CPUID_01_ECX_X2APIC | CPUID_01_ECX_TSC_DEADLINE | CPUID_01_ECX_HYPERVISOR);
    assert_int_equal(get(1, 0, &idle).edx,
                     CPUID_01_EDX_APIC | CPUID_01_EDX_MTRR | CPUID_01_EDX_MCE | CPUID_01_EDX_MCA);
    assert_int_equal(get(7, 0, &idle).ebx, CPUID_07_EBX_TSC_ADJUST);
    assert_int_equal(get(0x80000007, 0, &idle).edx,
                     0); /* invariant TSC is never claimed for a host without it */
    assert_int_equal(t.phys_bits, 36);
    assert_int_equal(t.xcr0_allowed, 0);
    assert_int_equal(t.efer_allowed, 0);
}

static void test_dynamic_bits(void **state)
{
    (void)state;
    cpuid_policy_build(&everything, &vm4, &t);
    struct cpuid_dynamic d = idle;
    assert_int_equal(get(1, 0, &d).ecx & CPUID_01_ECX_OSXSAVE, 0);
    assert_int_equal(get(7, 0, &d).ecx & CPUID_07_ECX_OSPKE, 0);
    assert_int_equal(get(1, 0, &d).edx & CPUID_01_EDX_APIC, CPUID_01_EDX_APIC);
    assert_int_equal(get(1, 0, &d).ebx >> 24, 2);
    d = (struct cpuid_dynamic){.cr4 = CR4_OSXSAVE | CR4_PKE, .xcr0 = 7, .apic_id = 1, .apic_enabled = false};
    assert_int_equal(get(1, 0, &d).ecx & CPUID_01_ECX_OSXSAVE, CPUID_01_ECX_OSXSAVE);
    assert_int_equal(get(7, 0, &d).ecx & CPUID_07_ECX_OSPKE, CPUID_07_ECX_OSPKE);
    assert_int_equal(get(7, 1, &d).ecx, 0);
    assert_int_equal(get(1, 0, &d).edx & CPUID_01_EDX_APIC, 0);
    assert_int_equal(get(1, 0, &d).ebx >> 24, 1);
}

static void test_no_x2apic(void **state)
{
    struct cpuid_vm without = vm4;
    (void)state;
    cpuid_policy_build(&everything, &vm4, &t);
    uint32_t with = get(1, 0, &idle).ecx;
    without.no_x2apic = true;
    cpuid_policy_build(&everything, &without, &t);
    assert_int_equal(get(1, 0, &idle).ecx, with & ~CPUID_01_ECX_X2APIC);
    assert_int_equal(with & CPUID_01_ECX_X2APIC, CPUID_01_ECX_X2APIC);
}

static void test_xsave_leaf(void **state)
{
    (void)state;
    cpuid_policy_build(&skylake, &vm4, &t);
    struct cpuid_dynamic d = idle;
    struct cpuid_regs r = get(0xd, 0, &d);
    assert_int_equal(r.eax, 0x2e7); /* MPX is gone */
    assert_int_equal(r.ebx, 576);
    assert_int_equal(r.ecx, 2696);
    d.xcr0 = 0xe7;
    assert_int_equal(get(0xd, 0, &d).ebx, 2688);
    r = get(0xd, 1, &d);
    assert_int_equal(r.eax, 7); /* no XSAVES: not asked for */
    assert_int_equal(r.ebx, 576 + 256 + 64 + 512 + 1024);
    assert_int_equal(r.ecx | r.edx, 0);
    r = get(0xd, 6, &d);
    assert_int_equal(r.eax, 512);
    assert_int_equal(r.ebx, 1152);
    assert_int_equal(get(0xd, 3, &d).eax, 0); /* MPX */
    assert_int_equal(get(0xd, 19, &d).eax | get(0xd, 20, &d).eax | get(0xd, 63, &d).eax, 0);
}

static void test_topology(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 64; n++) {
        struct cpuid_vm vm = vm4;
        vm.vcpu_count = n;
        cpuid_policy_build(&skylake, &vm, &t);
        struct cpuid_dynamic d = idle;
        uint32_t ids = get(1, 0, &d).ebx >> 16 & 0xff;
        assert_true(ids >= n && ids < 2 * n && (ids & (ids - 1)) == 0);
        assert_int_equal(!!(get(1, 0, &d).edx & CPUID_01_EDX_HTT), n > 1);
        for (d.apic_id = 0; d.apic_id < n; d.apic_id++) {
            for (uint32_t leaf = 0xb; leaf <= 0x1f; leaf += 0x1f - 0xb) {
                struct cpuid_regs thread = get(leaf, 0, &d), core = get(leaf, 1, &d), none = get(leaf, 2, &d);
                assert_int_equal(thread.eax, 0); /* every APIC ID is a core of its own */
                assert_int_equal(thread.ebx, 1);
                assert_int_equal(thread.ecx, 0x100);
                assert_int_equal(1u << core.eax, ids);
                assert_int_equal(core.ebx, n);
                assert_int_equal(core.ecx, 0x201);
                assert_int_equal(none.eax | none.ebx, 0);
                assert_int_equal(none.ecx, 2);
                assert_int_equal(thread.edx, d.apic_id);
                assert_int_equal(core.edx, d.apic_id);
                assert_int_equal(none.edx, d.apic_id);
                assert_int_equal(d.apic_id >> core.eax, 0); /* one package */
            }
        }
        for (uint32_t i = 0; i < 4; i++) {
            struct cpuid_regs c = get(4, i, &d), host = cpuid_host_get(&skylake, 4, i);
            assert_int_equal((c.eax >> 26) + 1, ids);
            assert_int_equal((c.eax >> 14 & 0xfff) + 1, i == 3 ? ids : 1);
            assert_int_equal(c.eax & 0x3fff, host.eax & 0x3fff);
            assert_int_equal(c.ebx, host.ebx);
            assert_int_equal(c.ecx, host.ecx);
        }
        assert_int_equal(get(4, 4, &d).eax | get(4, 5, &d).eax | get(4, ~0u, &d).eax, 0);
    }
}

/* What Linux computes from leaf 0x15 (native_calibrate_tsc: unsigned int all along) is the frequency, to the
 * kHz. */
static void test_tsc_as_linux_reads_it(void **state)
{
    (void)state;
    static const uint64_t hz[] = {1000000,    4000000,    50000000,    100000000,  400000000,  999999999,
                                  1000000007, 2100000000, 2099999999,  2394374000, 2893202311, 3504000000,
                                  3503999871, 3600000001, 4200000000,  4294967295, 4294967296, 5500000123,
                                  6000000000, 9999999967, 100000000000};
    for (size_t i = 0; i < ARRAY_SIZE(hz); i++) {
        struct cpuid_vm vm = vm4;
        vm.tsc_hz = hz[i];
        cpuid_policy_build(&skylake, &vm, &t);
        struct cpuid_regs r = get(0x15, 0, &idle);
        uint32_t crystal_khz = r.ecx / 1000;
        assert_int_equal(r.ecx % 1000, 0);
        assert_int_equal(r.ecx, t.crystal_hz);
        assert_in_range(crystal_khz, 24000, 50000);
        assert_true((uint64_t)crystal_khz * r.ebx <= UINT32_MAX);
        uint32_t linux_khz = crystal_khz * r.ebx / r.eax;
        assert_int_equal(linux_khz, (hz[i] + 500) / 1000);
        /* And in Hz, for those who compute it wider: within 1 kHz, exactly when the frequency is whole MHz.
         */
        uint64_t exact = (uint64_t)r.ecx * r.ebx / r.eax;
        uint64_t error = exact > hz[i] ? exact - hz[i] : hz[i] - exact;
        assert_true(error < 1000);
        if (hz[i] % 1000000 == 0)
            assert_int_equal(error, 0);
        r = get(0x16, 0, &idle);
        assert_int_equal(r.eax, (hz[i] + 500000) / 1000000 & 0xffff);
        assert_int_equal(r.ecx, 100);
    }
}

/* ---- capture ---- */

static uint32_t max_basic, max_ext;
static unsigned beyond;

static void fake_cpuid(uint32_t leaf, uint32_t subleaf, struct cpuid_regs *out)
{
    if (leaf >= 0x80000000 ? leaf > max_ext && leaf != 0x80000000 : leaf > max_basic)
        beyond++;
    *out = (struct cpuid_regs){leaf == 0 ? max_basic : leaf == 0x80000000 ? max_ext : leaf, subleaf, 7, 8};
}

static void test_capture(void **state)
{
    (void)state;
    struct cpuid_host h;
    max_basic = 0x16;
    max_ext = 0x80000008;
    beyond = 0;
    cpuid_host_capture(&h, fake_cpuid);
    assert_int_equal(beyond, 0);
    assert_int_equal(h.count, 12 + CPUID_CACHES + 3 + XSTATE_COMPONENTS - 1);
    assert_int_equal(cpuid_host_get(&h, 0xd, 19).ebx, 19);
    assert_int_equal(cpuid_host_get(&h, 0x80000008, 0).eax, 0x80000008);
    max_basic = 2;
    max_ext = 0; /* no extended leaves: 0x80000000 answers something small */
    cpuid_host_capture(&h, fake_cpuid);
    assert_int_equal(beyond, 0);
    assert_int_equal(h.count, 3);
    assert_int_equal(cpuid_host_get(&h, 7, 0).ebx, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),     cmocka_unit_test(test_silent_leaves),
        cmocka_unit_test(test_default_deny), cmocka_unit_test(test_features_follow_the_state),
        cmocka_unit_test(test_bare_host),    cmocka_unit_test(test_dynamic_bits),
        cmocka_unit_test(test_no_x2apic),    cmocka_unit_test(test_xsave_leaf),
        cmocka_unit_test(test_topology),     cmocka_unit_test(test_tsc_as_linux_reads_it),
        cmocka_unit_test(test_capture),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
