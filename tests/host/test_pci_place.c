/* Where BARs go: against a plain check of the result, for hand-made and for many random sets of functions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "hv/guest/pci_place.h"

#define FUNCS 8u

static struct vpci_setup funcs[FUNCS], *list[FUNCS];
static struct vpci_window windows[VPCI_WINDOWS];
static uint32_t which;
static unsigned bar;

static void machine(uint64_t memory, unsigned phys_bits)
{
    struct guest_layout layout;
    assert_int_equal(guest_layout_init(&layout, memory), STATUS_OK);
    pci_place_windows(&layout, phys_bits, windows);
    memset(funcs, 0, sizeof(funcs));
    for (unsigned i = 0; i < FUNCS; i++)
        list[i] = &funcs[i];
}

static void test_windows(void **state)
{
    machine(1ull << 30, 36);
    assert_int_equal(windows[0].first, 0xc0000000);
    assert_int_equal(windows[0].last, 0xdfffffff);
    assert_int_equal(windows[1].first, 0xf0000000);
    assert_int_equal(windows[1].last, 0xfebfffff);
    assert_int_equal(windows[2].first, 0x100000000);
    assert_int_equal(windows[2].last, 0xfffffffff);
    machine((3ull << 30) + (2 << 20), 39); /* 2 MiB above 4 GiB */
    assert_int_equal(windows[2].first, 0x140000000);
    assert_int_equal(windows[2].last, 0x7fffffffff);
    machine(1ull << 40, 40); /* RAM up to the end of all addresses, and beyond */
    assert_true(windows[2].first > windows[2].last);
    machine(1ull << 40, 52);
    assert_true(windows[2].first > 1ull << 40 && windows[2].first < windows[2].last);
}

/* All that a caller may rely on. */
static void check(void)
{
    for (unsigned i = 0; i < FUNCS; i++) {
        assert_memory_equal(funcs[i].windows, windows, sizeof(windows));
        for (unsigned b = 0; b < PCI_BARS; b++) {
            uint64_t at = funcs[i].bars[b].gpa, size = vpci_bar_size(&funcs[i], b);
            if (!size) {
                assert_int_equal(at, 0);
                continue;
            }
            assert_true(at && at % size == 0 && at % 4096 == 0);
            assert_true(vpci_bar_fits(&funcs[i], b, at));
            assert_true(funcs[i].bars[b].kind != PCI_BAR_MEM32 || at <= UINT32_MAX);
            for (unsigned n = 0; n < FUNCS * PCI_BARS; n++) {
                const struct vpci_setup *o = &funcs[n / PCI_BARS];
                uint64_t o_at = o->bars[n % PCI_BARS].gpa, o_size = vpci_bar_size(o, n % PCI_BARS);
                if (n != i * PCI_BARS + b && o_size)
                    assert_true(at + size <= o_at || o_at + o_size <= at);
            }
        }
    }
}

static void test_several_functions(void **state)
{
    machine(256ull << 20, 39);
    for (unsigned i = 0; i < 4; i++) { /* network VFs */
        funcs[i].bars[0] = (struct vpci_bar){0x4000, 77, PCI_BAR_MEM64};
        funcs[i].bars[3] = (struct vpci_bar){0x4000, 77, PCI_BAR_MEM64_PREFETCH};
    }
    funcs[4].bars[0] = (struct vpci_bar){0x4000, 0, PCI_BAR_MEM64};
    funcs[5].bars[0] = (struct vpci_bar){256, 0, PCI_BAR_MEM32};
    funcs[5].bars[1] = (struct vpci_bar){2048, 0, PCI_BAR_MEM32};
    funcs[5].bars[2] = (struct vpci_bar){32, 0, PCI_BAR_IO};
    assert_int_equal(pci_place(list, FUNCS, windows, &which, &bar), STATUS_OK);
    check();
    for (unsigned i = 0; i < FUNCS; i++)
        for (unsigned b = 0; b < PCI_BARS; b++)
            assert_true(funcs[i].bars[b].gpa <= UINT32_MAX); /* there was room */
    /* Dense: two pages of 32-bit BARs, nine of 16 KiB. */
    assert_int_equal(funcs[5].bars[0].gpa + funcs[5].bars[1].gpa, 2 * 0xc0000000ull + 0x1000);
    assert_int_equal(funcs[4].bars[0].gpa, 0xc0004000 + 8 * 0x4000);
}

static void test_large_bars_go_above(void **state)
{
    machine(8ull << 30, 39);
    funcs[0].bars[0] = (struct vpci_bar){512ull << 20, 0, PCI_BAR_MEM64_PREFETCH};
    funcs[1].bars[0] = (struct vpci_bar){256ull << 20, 0, PCI_BAR_MEM32};
    funcs[1].bars[2] = (struct vpci_bar){16ull << 30, 0, PCI_BAR_MEM64_PREFETCH};
    funcs[2].bars[4] = (struct vpci_bar){256ull << 20, 0, PCI_BAR_MEM64};
    assert_int_equal(pci_place(list, FUNCS, windows, &which, &bar), STATUS_OK);
    check();
    assert_int_equal(funcs[1].bars[0].gpa, 0xc0000000);
    assert_int_equal(funcs[2].bars[4].gpa, 0xd0000000);
    assert_int_equal(funcs[1].bars[2].gpa, 16ull << 30);
    assert_int_equal(funcs[0].bars[0].gpa, 9ull << 30); /* RAM ends there */
}

static void expect_no_room(uint32_t function, unsigned index)
{
    assert_int_equal(pci_place(list, FUNCS, windows, &which, &bar), ERR_NO_MEMORY);
    assert_int_equal(which, function);
    assert_int_equal(bar, index);
    for (unsigned i = 0; i < FUNCS; i++)
        for (unsigned b = 0; b < PCI_BARS; b++)
            assert_int_equal(funcs[i].bars[b].gpa, 0);
}

static void test_no_room(void **state)
{
    machine(1ull << 30, 36);
    funcs[0].bars[0] = (struct vpci_bar){0x1000, 0, PCI_BAR_MEM32};
    funcs[3].bars[2] = (struct vpci_bar){1ull << 30, 0, PCI_BAR_MEM32};
    expect_no_room(3, 2);
    funcs[3].bars[2].kind = PCI_BAR_MEM64;
    assert_int_equal(pci_place(list, FUNCS, windows, &which, &bar), STATUS_OK);
    funcs[3].bars[2].size = 64ull << 30; /* all that can be addressed */
    expect_no_room(3, 2);
    funcs[3].bars[2].size = 1ull << 63;
    expect_no_room(3, 2);
    funcs[3].bars[2].size = 32ull << 30; /* fits once */
    assert_int_equal(pci_place(list, FUNCS, windows, &which, &bar), STATUS_OK);
    funcs[6].bars[0] = funcs[3].bars[2];
    expect_no_room(6, 0);
    /* 32-bit BARs alone, exactly as many as there is room for. */
    machine(1ull << 40, 40);
    for (unsigned i = 0; i < 4; i++)
        funcs[i].bars[0] = (struct vpci_bar){128ull << 20, 0, PCI_BAR_MEM64};
    funcs[4].bars[5] = (struct vpci_bar){128ull << 20, 0, PCI_BAR_MEM32};
    assert_int_equal(pci_place(list, FUNCS, windows, &which, &bar), STATUS_OK);
    check();
    assert_int_equal(funcs[4].bars[5].gpa, 0xc0000000); /* though it is the last */
    assert_true(funcs[3].bars[0].gpa == 0xf0000000);
    funcs[5].bars[0] = (struct vpci_bar){128ull << 20, 0, PCI_BAR_MEM64};
    expect_no_room(5, 0);
}

static uint32_t seed = 1;
static uint32_t rnd(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static void test_random(void **state)
{
    unsigned fitted = 0;
    for (unsigned round = 0; round < 2000; round++) {
        machine((uint64_t)(4 + rnd(20000)) << 21, 36 + rnd(10));
        for (unsigned i = 0; i < FUNCS; i++)
            for (unsigned b = 0; b < PCI_BARS; b++) {
                unsigned kind = rnd(5);
                if (kind >= PCI_BAR_MEM64 && b == 5)
                    kind = 0;
                funcs[i].bars[b] =
                    (struct vpci_bar){16ull << rnd(kind == PCI_BAR_MEM32 ? 23 : 28), 5, (uint8_t)kind};
                if (kind >= PCI_BAR_MEM64)
                    funcs[i].bars[++b] = (struct vpci_bar){0};
            }
        enum status s = pci_place(list, FUNCS, windows, &which, &bar);
        assert_true(s == STATUS_OK || s == ERR_NO_MEMORY);
        if (s == STATUS_OK)
            check();
        fitted += s == STATUS_OK;
    }
    assert_true(fitted > 500);
    assert_int_equal(pci_place(list, 0, windows, &which, &bar), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_several_functions),
        cmocka_unit_test(test_large_bars_go_above),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
