/* The host's PCI functions: machines from tests/vectors/pci, and the ways in which a device can lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/pci/pci.h"
#include "drivers/pci/pci_caps.h"
#include "drivers/pci/pci_read.h"
#include "tests/host/fake_pci.h"

#define MS 1000u

static struct fake_pci pci;
static struct pci_device devices[64];
static struct pci_inventory inv;
static char why[200];

static void scan(void)
{
    inv = (struct pci_inventory){.capacity = ARRAY_SIZE(devices), .devices = devices, .roots = {1, 0, 1, 0}};
    assert_int_equal(pci_scan(&inv, &pci.cfg), STATUS_OK);
    if (pci.faults)
        fail_msg("%s", pci.fault);
}

static void machine(const char *name)
{
    char path[300];
    snprintf(path, sizeof(path), TEST_SOURCE_DIR "/tests/vectors/pci/%s.txt", name);
    assert_true(fake_pci_load(&pci, path));
    scan();
}

static struct pci_device *at(unsigned bus, unsigned device, unsigned function)
{
    struct pci_device *dev = pci_find(&inv, PCI_BDF(bus, device, function));
    assert_non_null(dev);
    return dev;
}

static void expect_group(unsigned bus, unsigned device, unsigned function, uint16_t first)
{
    uint16_t group = at(bus, device, function)->group;
    if (inv.devices[group].bdf != first)
        fail_msg("%02x:%02x.%x is in the group of " BDF_FMT ", not of " BDF_FMT, bus, device, function,
                 BDF_ARGS(inv.devices[group].bdf), BDF_ARGS(first));
}

static void expect_verdict(struct pci_device *dev, const char *text)
{
    char line[120];
    bool good = pci_verdict(&inv, dev, line, sizeof(line));
    assert_string_equal(line, text);
    assert_int_equal(good, strncmp(text, "assignable", 10) == 0);
}

static void enable(struct pci_device *pf, uint16_t count)
{
    why[0] = 0;
    if (pci_sriov_enable(&inv, &pci.cfg, &pci.env, pf, count, why, sizeof(why)) != STATUS_OK)
        fail_msg("%s", why);
    if (pci.faults)
        fail_msg("%s", pci.fault);
}

static void expect_refusal(struct pci_device *pf, uint16_t count, enum status status, const char *sentence)
{
    uint32_t before = inv.count;
    assert_int_equal(pci_sriov_enable(&inv, &pci.cfg, &pci.env, pf, count, why, sizeof(why)), status);
    assert_string_equal(why, sentence);
    assert_int_equal(inv.count, before);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    if (f->sriov && pf->sriov.count == 0)
        assert_false(fake_pci_get(f, f->sriov + PCI_SRIOV_CONTROL, 2) & PCI_SRIOV_CONTROL_VFE);
}

/* ---- scanning ---- */

static void test_ovmf(void **state)
{
    static struct fake_pci before;
    machine("qemu-q35-ovmf");
    assert_int_equal(inv.count, 15);
    const struct pci_device *igb = at(1, 0, 0), *port = at(0, 2, 0), *nvme = at(3, 0, 0);
    assert_int_equal(igb->vendor, 0x8086);
    assert_int_equal(igb->device, 0x10c9);
    assert_int_equal(igb->subsystem_vendor, 0x1af4);
    assert_int_equal(igb->subsystem, 0x1100);
    assert_int_equal(igb->class_code, 0x020000);
    assert_int_equal(igb->revision, 1);
    assert_ptr_equal(&inv.devices[igb->parent], port);
    assert_int_equal(port->parent, PCI_NO_PARENT);
    assert_int_equal(port->secondary, 1);
    assert_int_equal(port->windows[PCI_WINDOW_IO].base, 0x9000);
    assert_int_equal(port->windows[PCI_WINDOW_IO].limit, 0x9fff);
    assert_int_equal(port->windows[PCI_WINDOW_MEMORY].base, 0x80800000);
    assert_int_equal(port->windows[PCI_WINDOW_MEMORY].limit, 0x809fffff);
    assert_int_equal(port->windows[PCI_WINDOW_PREFETCH].base, 0xc040000000);
    assert_int_equal(port->windows[PCI_WINDOW_PREFETCH].limit, 0xc040ffffff);
    assert_int_equal(igb->bars[0].base, 0x80820000);
    assert_int_equal(igb->bars[0].size, 0x20000);
    assert_int_equal(igb->bars[0].kind, PCI_BAR_MEM32);
    assert_int_equal(igb->bars[2].kind, PCI_BAR_IO);
    assert_int_equal(igb->bars[2].base, 0x9000);
    assert_int_equal(igb->bars[2].size, 0x20);
    assert_int_equal(igb->bars[3].kind, PCI_BAR_MEM64);
    assert_int_equal(igb->bars[3].size, 0x4000);
    assert_int_equal(igb->bars[4].kind, PCI_BAR_NONE);
    assert_int_equal(igb->pcie, 0xa0);
    assert_int_equal(igb->msix, 0x70);
    assert_int_equal(igb->msi, 0x50);
    assert_int_equal(igb->pm, 0x40);
    assert_int_equal(igb->ari, 0x150);
    assert_int_equal(igb->sriov_cap, 0x160);
    assert_true(igb->has_flr);
    assert_int_equal(igb->msix_count, 10);
    assert_int_equal(igb->msix_bar, 3);
    assert_int_equal(igb->msix_pba_offset, 0x2000);
    assert_int_equal(igb->sriov.total, 8);
    assert_int_equal(igb->sriov.vf_device, 0x10ca);
    assert_int_equal(igb->sriov.page_sizes, 0x553);
    assert_int_equal(igb->sriov.vf_bars[0].kind, PCI_BAR_MEM64_PREFETCH);
    assert_int_equal(igb->sriov.vf_bars[0].base, 0xc040020000);
    assert_int_equal(igb->sriov.vf_bars[3].size, 0x4000);
    assert_int_equal(nvme->sriov.total, 2);
    assert_int_equal(nvme->sriov.vf_bars[0].kind, PCI_BAR_MEM64);
    assert_int_equal(nvme->msix_count, 7);

    /* A second scan finds everything as it was, and gives the same answer. */
    static struct pci_device first[64];
    memcpy(first, devices, sizeof(first));
    before = pci;
    scan();
    assert_memory_equal(first, devices, sizeof(first));
    assert_memory_equal(before.f, pci.f, sizeof(pci.f));
}

static void test_verdicts(void **state)
{
    machine("qemu-q35-ovmf");
    expect_verdict(at(0, 0, 0), "stays with Bulkhead");
    expect_verdict(at(0, 2, 0), "stays with Bulkhead");
    expect_verdict(at(1, 0, 0), "assignable; 8 VFs");
    expect_verdict(at(3, 0, 0), "assignable; 2 VFs");
    struct pci_device *port = &inv.devices[at(3, 0, 0)->parent];
    uint8_t was = port->exp_type;
    port->exp_type = PCI_EXP_TO_PCI;
    expect_verdict(at(3, 0, 0),
                   "behind a bridge to conventional PCI: no IOMMU knows its requests from others'");
    port->exp_type = was;
    /* Its root port has no ACS, but there is nobody else below. */
    expect_group(4, 0, 0, PCI_BDF(0, 5, 0));
    expect_verdict(at(4, 0, 0), "assignable; 8 VFs");
    expect_verdict(at(5, 1, 0), "no MSI: its interrupts cannot be remapped");
    expect_group(5, 1, 0, PCI_BDF(0, 6, 0));
    expect_group(5, 2, 0, PCI_BDF(0, 6, 0));
    expect_group(0, 0x1f, 3, PCI_BDF(0, 0x1f, 0));

    /* VFs below the port without ACS could reach each other: */
    enable(at(4, 0, 0), 2);
    expect_verdict(pci_find_vf(&inv, PCI_BDF(4, 0, 0), 1), "needs ACS: shares a group with 04:00.0");
    expect_verdict(at(4, 0, 0), "needs ACS: shares a group with 04:10.0");
    enable(at(1, 0, 0), 2);
    expect_verdict(pci_find_vf(&inv, PCI_BDF(1, 0, 0), 1), "assignable");
}

static void test_server(void **state)
{
    machine("server");
    assert_int_equal(inv.count, 20);
    expect_group(0, 3, 0, PCI_BDF(0, 3, 0));
    expect_group(3, 0, 0, PCI_BDF(3, 0, 0));
    expect_group(0, 3, 1, PCI_BDF(0, 3, 1));
    /* Behind the port without ACS all is one, although a port of the switch has it. */
    expect_group(4, 0, 0, PCI_BDF(0, 3, 1));
    expect_group(6, 0, 0, PCI_BDF(0, 3, 1));
    expect_group(7, 0, 0, PCI_BDF(0, 3, 1));
    expect_verdict(at(6, 0, 0), "needs ACS: shares a group with 07:00.0");
    expect_verdict(at(0, 0x1f, 2), "needs ACS: shares a group with 00:1f.0");
    expect_verdict(at(0, 0x1b, 0), "assignable");
    expect_verdict(at(3, 0, 0), "assignable"); /* without FLR, but alone behind its port */
    expect_group(9, 2, 0, PCI_BDF(0, 0x1e, 0));
    expect_group(9, 4, 0, PCI_BDF(0, 0x1e, 0));
    /* Two functions without ACS that are known to keep apart. */
    expect_group(1, 0, 0, PCI_BDF(1, 0, 0));
    expect_group(1, 0, 1, PCI_BDF(1, 0, 1));
    fake_pci_put(fake_pci_find(&pci, PCI_BDF(1, 0, 0)), PCI_REG_ID, 4, 0x10d38086);
    fake_pci_put(fake_pci_find(&pci, PCI_BDF(1, 0, 1)), PCI_REG_ID, 4, 0x10d38086);
    scan();
    expect_group(1, 0, 1, PCI_BDF(1, 0, 0));
    const struct pci_device *mate = pci_group_mate(&inv, at(0, 0x1f, 2), NULL);
    assert_int_equal(mate->bdf, PCI_BDF(0, 0x1f, 0));
    mate = pci_group_mate(&inv, at(0, 0x1f, 2), mate);
    assert_int_equal(mate->bdf, PCI_BDF(0, 0x1f, 3));
    assert_null(pci_group_mate(&inv, at(0, 0x1f, 2), mate));
}

static void test_acs_enable(void **state)
{
    machine("server");
    struct fake_pci_function *port = fake_pci_find(&pci, PCI_BDF(0, 1, 0));
    uint16_t control = at(0, 1, 0)->acs + PCI_ACS_CONTROL;
    const uint16_t blocking = 2; /* translation blocking: not ours to change */
    port->mask[control] |= PCI_ACS_DT;
    fake_pci_put(port, control, 2, blocking | PCI_ACS_DT);
    pci_acs_enable(&inv, &pci.cfg);
    assert_int_equal(fake_pci_get(port, control, 2),
                     blocking | PCI_ACS_SV | PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_UF);
    expect_group(1, 0, 0, PCI_BDF(1, 0, 0));
    unsigned writes = pci.writes;
    pci_acs_enable(&inv, &pci.cfg); /* nothing left to do */
    assert_int_equal(pci.writes, writes);

    machine("server");
    port = fake_pci_find(&pci, PCI_BDF(0, 1, 0));
    memset(port->mask + control, 0, 2);
    pci_acs_enable(&inv, &pci.cfg);
    expect_group(1, 0, 0, PCI_BDF(0, 1, 0));
    port->mask[control] = 0x1f; /* all but DT sticks as it should */
    fake_pci_put(port, control, 2, PCI_ACS_DT);
    pci_acs_enable(&inv, &pci.cfg);
    expect_group(1, 0, 0, PCI_BDF(0, 1, 0));
    expect_verdict(at(1, 0, 0), "needs ACS: shares a group with 01:00.1");
    /* Redirection that is hard-wired has no bit. */
    machine("server");
    port = fake_pci_find(&pci, PCI_BDF(0, 1, 0));
    fake_pci_put(port, at(0, 1, 0)->acs + PCI_ACS_CAPS, 2, PCI_ACS_SV);
    scan();
    pci_acs_enable(&inv, &pci.cfg);
    expect_group(1, 0, 0, PCI_BDF(1, 0, 0));
}

static void test_passive(void **state)
{
    machine("qemu-q35-ovmf");
    pci.writes = 0;
    inv.passive = true;
    assert_int_equal(pci_scan(&inv, &pci.cfg), STATUS_OK);
    assert_int_equal(pci.writes, 0);
    const struct pci_device *igb = at(1, 0, 0);
    assert_int_equal(igb->bars[0].base, 0x80820000);
    assert_int_equal(igb->bars[0].size, 0);
    assert_int_equal(igb->bars[5].kind, PCI_BAR_NONE);
    assert_int_equal(igb->sriov.total, 8);
    assert_int_equal(igb->msix_count, 10);
    expect_verdict(at(1, 0, 0), "assignable; 8 VFs");
}

static void test_roots(void **state)
{
    machine("server");
    assert_non_null(pci_find(&inv, PCI_BDF(0x80, 0, 0)));
    pci.reads = 0;
    inv.roots[2] = 0;
    assert_int_equal(pci_scan(&inv, &pci.cfg), STATUS_OK);
    assert_null(pci_find(&inv, PCI_BDF(0x80, 0, 0)));
    assert_true(pci.reads < 1500);
    inv.roots[0] = 0; /* not known: all are tried */
    assert_int_equal(pci_scan(&inv, &pci.cfg), STATUS_OK);
    assert_int_equal(inv.count, 20);
    for (uint32_t i = 0; i < inv.count; i++)
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(inv.devices[i].bdf, inv.devices[k].bdf);
}

static void test_capacity(void **state)
{
    machine("server");
    inv.capacity = 7;
    assert_int_equal(pci_scan(&inv, &pci.cfg), ERR_NO_MEMORY);
    assert_int_equal(inv.count, 7);
    assert_true(inv.dropped > 0);
    inv.capacity = 0;
    assert_int_equal(pci_scan(&inv, &pci.cfg), ERR_NO_MEMORY);
    assert_int_equal(inv.count, 0);
}

static void test_find(void **state)
{
    machine("server");
    assert_int_equal(pci_find_id(&inv, 0x8086, 0x10c9, 1)->bdf, PCI_BDF(1, 0, 1));
    assert_null(pci_find_id(&inv, 0x8086, 0x10c9, 2));
    assert_null(pci_find_id(&inv, 0x8086, 0x10ca, 0));
    assert_null(pci_find(&inv, 0x7777));
    enable(at(1, 0, 0), 3);
    assert_null(pci_find_id(&inv, 0x8086, 0x10ca, 0)); /* a VF is named by its PF */
    assert_int_equal(pci_find_vf(&inv, PCI_BDF(1, 0, 0), 2)->vf_index, 2);
    assert_null(pci_find_vf(&inv, PCI_BDF(1, 0, 0), 3));
    assert_null(pci_find_vf(&inv, PCI_BDF(1, 0, 1), 0));
}

/* Bridges that lead to themselves, to each other, nowhere, or back up. */
static void test_bridges(void **state)
{
    static const struct {
        uint8_t secondary, subordinate;
        uint8_t kept;
    } cases[] = {{0, 0, 0}, {0, 5, 0}, {3, 2, 0}, {1, 1, 1}, {2, 2, 2}, {255, 255, 255}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        fake_pci_init(&pci);
        struct fake_pci_function *one = fake_pci_add(&pci, PCI_BDF(0, 1, 0), 1, 1, 0x060400, 1);
        struct fake_pci_function *two = fake_pci_add(&pci, PCI_BDF(1, 0, 0), 1, 1, 0x060400, 1);
        fake_pci_put(one, PCI_REG_BUSES, 4, 0x00010100);
        fake_pci_put(two, PCI_REG_BUSES, 4,
                     (uint32_t)cases[i].subordinate << 16 | cases[i].secondary << 8 | 1);
        scan();
        assert_int_equal(inv.count, 2);
        assert_int_equal(at(1, 0, 0)->secondary, cases[i].kept);
    }
    fake_pci_init(&pci);
    struct fake_pci_function *self = fake_pci_add(&pci, PCI_BDF(0, 1, 0), 1, 1, 0x060400, 1);
    fake_pci_put(self, PCI_REG_BUSES, 4, 0x00ff0000);
    scan();
    assert_int_equal(inv.count, 1);
}

static void test_odd_headers(void **state)
{
    fake_pci_init(&pci);
    struct fake_pci_function *f = fake_pci_add(&pci, PCI_BDF(0, 1, 0), 0x104c, 0xac56, 0x060700, 2);
    memset(f->space + PCI_REG_BAR0, 0x5a, 24);
    f = fake_pci_add(&pci, PCI_BDF(0, 2, 0), 1, 2, 0x020000, 0x7f);
    f = fake_pci_add(&pci, PCI_BDF(0, 3, 0), 1, 2, 0x020000, 0);
    fake_pci_put(f, PCI_REG_BAR0, 4, 0x2);                 /* below 1 MiB */
    fake_pci_put(f, PCI_REG_BAR0 + 4, 4, 0x6);             /* reserved */
    fake_pci_put(f, PCI_REG_BAR0 + 8, 4, PCI_BAR_FLAG_64); /* 8 GiB */
    fake_pci_put(f, PCI_REG_BAR0 + 12, 4, 4);
    fake_pci_put(f, PCI_REG_BAR0 + 20, 4, PCI_BAR_FLAG_64); /* no upper half */
    fake_pci_bar(f, PCI_REG_BAR0 + 8, 8ull << 30);
    fake_pci_bar(f, PCI_REG_BAR0 + 20, 0x1000);
    fake_pci_add(&pci, PCI_BDF(0, 4, 1), 1, 2, 0x020000, 0); /* no function 0: not there */
    fake_pci_add(&pci, PCI_BDF(0, 5, 0), 1, 2, 0x020000, 0);
    fake_pci_add(&pci, PCI_BDF(0, 5, 1), 1, 2, 0x020000, 0); /* not multi-function */
    scan();
    assert_int_equal(inv.count, 4);
    const struct pci_device *dev = at(0, 3, 0);
    for (unsigned i = 0; i < PCI_BARS; i++)
        assert_int_equal(dev->bars[i].kind, i == 2 ? PCI_BAR_MEM64 : PCI_BAR_NONE);
    assert_int_equal(dev->bars[2].size, 8ull << 30);
    assert_int_equal(dev->bars[2].base, 4ull << 32);
    expect_verdict(at(0, 1, 0), "stays with Bulkhead");
}

/* Function numbers above 7, which a device behind a port lists itself. */
static void test_ari(void **state)
{
    fake_pci_init(&pci);
    struct fake_pci_function *port = fake_pci_add(&pci, PCI_BDF(0, 1, 0), 1, 1, 0x060400, 1);
    static const uint8_t numbers[] = {0, 9, 0x80, 0xff};
    port->space[0x34] = 0x40;
    port->space[6] = 0x10;
    fake_pci_put(port, 0x40, 4, PCI_EXP_ROOT_PORT << 20 | 2u << 16 | PCI_CAP_PCIE);
    fake_pci_put(port, PCI_REG_BUSES, 4, 0x00010100);
    for (unsigned i = 0; i < 4; i++) {
        struct fake_pci_function *f =
            fake_pci_add(&pci, (uint16_t)(0x100 | numbers[i]), 1, (uint16_t)(10 + i), 0x020000, 0);
        fake_pci_put(f, 0x100, 4, 0x10000 | PCI_EXT_ARI);
        f->space[0x105] = numbers[(i + 1) % 4];
    }
    fake_pci_add(&pci, PCI_BDF(1, 1, 0), 1, 99, 0x020000, 0); /* a ghost: a link has one device */
    scan();
    assert_int_equal(inv.count, 5);
    assert_int_equal(inv.devices[4].bdf, 0x1ff);
    assert_int_equal(inv.devices[2].bdf, 0x109);
    fake_pci_find(&pci, 0x180)->space[0x105] = 9; /* back down: a loop */
    scan();
    assert_int_equal(inv.count, 4);
}

/* ---- capabilities ---- */

static struct fake_pci_function *card(void)
{
    fake_pci_init(&pci);
    struct fake_pci_function *f = fake_pci_add(&pci, PCI_BDF(0, 1, 0), 1, 1, 0x020000, 0);
    f->space[6] = 0x10;
    return f;
}

static unsigned walk(bool extended)
{
    struct pci_cap_walk w = pci_caps_walk(&pci.cfg, PCI_BDF(0, 1, 0), extended);
    unsigned n = 0;
    while (pci_caps_next(&w)) {
        assert_int_equal(w.offset % 4, 0);
        assert_in_range(w.offset, extended ? 0x100 : 0x40, extended ? 0xffc : 0xfc);
        n++;
    }
    return n;
}

static void test_caps(void **state)
{
    struct fake_pci_function *f = card();
    assert_int_equal(walk(false), 0);
    f->space[0x34] = 0x43; /* the low bits are reserved */
    fake_pci_put(f, 0x40, 2, 0xfc00 | PCI_CAP_PM);
    fake_pci_put(f, 0xfc, 2, PCI_CAP_VENDOR);
    assert_int_equal(walk(false), 2);
    assert_int_equal(pci_caps_find(&pci.cfg, PCI_BDF(0, 1, 0), false, PCI_CAP_VENDOR, 4), 0xfc);
    assert_int_equal(pci_caps_find(&pci.cfg, PCI_BDF(0, 1, 0), false, PCI_CAP_VENDOR, 5), 0);
    f->space[0x41] = 0x40; /* itself */
    assert_int_equal(walk(false), 48);
    f->space[0x41] = 0x3c; /* into the header */
    assert_int_equal(walk(false), 1);
    f->space[6] = 0;
    assert_int_equal(walk(false), 0);

    f = card();
    assert_int_equal(walk(true), 0);
    fake_pci_put(f, 0x100, 4, 0xffc0000u | 0x10000 | PCI_EXT_ACS);
    fake_pci_put(f, 0x100, 4, 0xffc10000u | PCI_EXT_ACS);
    fake_pci_put(f, 0xffc, 4, 0x00010000 | PCI_EXT_ARI);
    assert_int_equal(walk(true), 2);
    assert_int_equal(pci_caps_find(&pci.cfg, PCI_BDF(0, 1, 0), true, PCI_EXT_ARI, 4), 0xffc);
    assert_int_equal(pci_caps_find(&pci.cfg, PCI_BDF(0, 1, 0), true, PCI_EXT_ARI, 8), 0);
    fake_pci_put(f, 0xffc, 4, 0x10010000 | PCI_EXT_ARI);
    assert_int_equal(walk(true), 960);
    fake_pci_put(f, 0xffc, 4, 0x0fc10000 | PCI_EXT_ARI);
    assert_int_equal(walk(true), 2);
    pci.no_extended = true;
    assert_int_equal(walk(true), 0);
}

/* Structures that do not fit where the device says they are. */
static void test_bad_caps(void **state)
{
    static const struct {
        uint32_t table, pba;
        uint16_t control, count;
    } cases[] = {{0x0000, 0x0800, 7, 8},     {0x0f80, 0x0800, 7, 8}, {0x0f90, 0x0800, 7, 0},
                 {0x0000, 0x0ff8, 7, 8},     {0x0000, 0x1000, 7, 0}, {0xfffffff8, 0, 7, 0},
                 {0x0001, 0x0800, 7, 0},     {0x0006, 0x0800, 7, 0}, {0x0007, 0x0800, 7, 0},
                 {0x0000, 0x0801, 7, 0},     {0x0002, 0x0800, 7, 0}, {0x0000, 0xf00, 0x7ff, 0},
                 {0x0000, 0x0800, 0xf800, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fake_pci_function *f = card();
        fake_pci_put(f, PCI_REG_BAR0, 4, 0xe0000000);
        fake_pci_bar(f, PCI_REG_BAR0, 0x1000);
        fake_pci_put(f, PCI_REG_BAR0 + 8, 4, 0xe001);
        fake_pci_bar(f, PCI_REG_BAR0 + 8, 0x20);
        f->space[0x34] = 0x40;
        fake_pci_put(f, 0x40, 4, (uint32_t)cases[i].control << 16 | PCI_CAP_MSIX);
        fake_pci_put(f, 0x44, 4, cases[i].table);
        fake_pci_put(f, 0x48, 4, cases[i].pba);
        scan();
        assert_int_equal(at(0, 1, 0)->msix, 0x40);
        assert_int_equal(at(0, 1, 0)->msix_count, cases[i].count);
    }
    struct fake_pci_function *f = card();
    f->space[0x34] = 0xf8; /* ends beyond the space */
    fake_pci_put(f, 0xf8, 2, PCI_CAP_MSIX);
    scan();
    assert_int_equal(at(0, 1, 0)->msix, 0);
}

/* ---- virtual functions ---- */

static void expect_vf(uint16_t pf, unsigned index, uint16_t bdf, uint64_t bar0, uint64_t bar3)
{
    const struct pci_device *vf = pci_find_vf(&inv, pf, (uint16_t)index);
    assert_non_null(vf);
    assert_int_equal(vf->bdf, bdf);
    assert_true(vf->is_vf && vf->has_flr);
    assert_int_equal(vf->vendor, 0x8086);
    assert_int_equal(vf->device, 0x10ca);
    assert_int_equal(vf->class_code, 0x020000);
    assert_int_equal(vf->bars[0].base, bar0);
    assert_int_equal(vf->bars[0].size, 0x4000);
    assert_int_equal(vf->bars[3].base, bar3);
    assert_int_equal(vf->msix_count, 3);
    assert_int_equal(vf->msix_bar, 3);
    assert_int_equal(vf->sriov.total, 0);
    assert_int_equal(vf->parent, pci_find(&inv, pf)->parent);
    uint32_t command = fake_pci_get(fake_pci_find(&pci, bdf), PCI_REG_COMMAND, 2);
    assert_int_equal(command, PCI_COMMAND_MEMORY);
}

static void test_sriov_kept(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    uint64_t begin = pci.now_us;
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_PAGE, 4, 2);
    enable(pf, 7);
    assert_in_range(pci.now_us - begin, 100 * MS, 200 * MS);
    assert_int_equal(inv.count, 22);
    assert_int_equal(pf->sriov.count, 7);
    for (unsigned i = 0; i < 7; i++)
        expect_vf(pf->bdf, i, (uint16_t)(0x180 + 2 * i), 0xc040020000 + i * 0x4000,
                  0xc040000000 + i * 0x4000);
    assert_int_equal(fake_pci_get(f, pf->sriov_cap + PCI_SRIOV_CONTROL, 2),
                     PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE | PCI_SRIOV_CONTROL_ARI);
    assert_int_equal(fake_pci_get(f, pf->sriov_cap + PCI_SRIOV_PAGE, 4), 1);
    assert_true(fake_pci_get(fake_pci_find(&pci, PCI_BDF(0, 2, 0)), 0x54 + PCI_EXP_DEVCTL2, 2) &
                PCI_EXP_DEVCTL2_ARI);
    expect_refusal(pf, 7, ERR_EXISTS, "the virtual functions of 01:00.0 are on already");

    /* Another PF's VFs stay when these go. */
    enable(at(3, 0, 0), 2);
    assert_int_equal(pci_find_vf(&inv, PCI_BDF(3, 0, 0), 1)->bdf, PCI_BDF(3, 0, 2));
    assert_int_equal(pci_find_vf(&inv, PCI_BDF(3, 0, 0), 1)->bars[0].base, 0x80404000 + 0x4000);
    begin = pci.now_us;
    pci_sriov_disable(&inv, &pci.cfg, &pci.env, pf);
    assert_true(pci.now_us - begin >= 1000 * MS);
    assert_int_equal(inv.count, 17);
    assert_null(pci_find(&inv, 0x180));
    assert_int_equal(fake_pci_get(f, pf->sriov_cap + PCI_SRIOV_CONTROL, 2), PCI_SRIOV_CONTROL_ARI);
    assert_non_null(pci_find_vf(&inv, PCI_BDF(3, 0, 0), 0));
    pci_sriov_disable(&inv, &pci.cfg, &pci.env, pf); /* nothing to do */
    enable(pf, 1);
    assert_int_equal(inv.count, 18);
    assert_int_equal(pci.faults, 0);
}

static void test_sriov_placed(void **state)
{
    machine("qemu-q35-seabios");
    struct pci_device *pf = at(1, 0, 0);
    assert_int_equal(pf->sriov.vf_bars[0].base, 0);
    enable(pf, 8);
    expect_vf(pf->bdf, 7, 0x18e, 0xfd800000 + 7 * 0x4000, 0xfd820000 + 7 * 0x4000);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    assert_int_equal(fake_pci_get(f, pf->sriov_cap + PCI_SRIOV_BAR0, 4), 0xfd80000c);
    assert_int_equal(fake_pci_get(f, pf->sriov_cap + PCI_SRIOV_BAR0 + 4, 4), 0);
    /* Not prefetchable: between the PF's own BARs, in the window below 4 GiB. */
    enable(at(3, 0, 0), 2);
    assert_int_equal(pci_find_vf(&inv, PCI_BDF(3, 0, 0), 0)->bars[0].base, 0xfb004000);
    assert_int_equal(pci.faults, 0);
}

/* A BAR that firmware placed, but not well, moves. */
static void test_sriov_moved(void **state)
{
    static const struct {
        uint64_t bar0, lands;
    } cases[] = {{0xc040ff0000, 0xc040020000}, /* the last VF is outside: 0xc040000000 is BAR 3's */
                 {0xc041020000, 0xc040020000}, /* in a neighbour's window */
                 {0x0000000000, 0xc040020000}, /* nowhere */
                 {0x80840000, 0xc040020000},   /* over the PF's own BAR 3, and not prefetchable there */
                 {0xc040004000, 0xc040020000}, /* over VF BAR 3 */
                 {0xfffffffffffe0000, 0xc040020000}, {0xc040020000, 0xc040020000}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        machine("qemu-q35-ovmf");
        struct pci_device *pf = at(1, 0, 0);
        struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
        fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_BAR0, 4, (uint32_t)cases[i].bar0 | 0xc);
        fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_BAR0 + 4, 4, (uint32_t)(cases[i].bar0 >> 32));
        scan();
        enable(pf, 8);
        assert_int_equal(pf->sriov.vf_bars[0].base, cases[i].lands);
        assert_int_equal(fake_pci_get(f, pf->sriov_cap + PCI_SRIOV_BAR0 + 4, 4), 0xc0);
    }
}

/* A bridge may have registers of its own in the middle of what it forwards: no VF is put over them. */
static void test_sriov_beside_bridge(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct pci_bar *own = inv.devices[pf->parent].bars;
    own[0] = (struct pci_bar){0xc040020000, 0x1000, PCI_BAR_MEM64};
    enable(pf, 8); /* BAR 0 was there: it moves; BAR 3 stays at 0xc040000000 */
    assert_int_equal(pf->sriov.vf_bars[0].base, 0xc040024000);
    assert_int_equal(pf->sriov.vf_bars[3].base, 0xc040000000);
    assert_int_equal(pci.faults, 0);
}

static void test_sriov_bus(void **state)
{
    machine("server");
    struct pci_device *pf = at(1, 0, 0);
    enable(pf, 8);
    assert_int_equal(pci_find_vf(&inv, pf->bdf, 0)->bdf, PCI_BDF(2, 0x10, 0));
    enable(at(1, 0, 1), 8);
    assert_int_equal(pci_find_vf(&inv, PCI_BDF(1, 0, 1), 7)->bdf, PCI_BDF(2, 0x11, 7));
    expect_verdict(pci_find_vf(&inv, pf->bdf, 0), "assignable");
    assert_int_equal(pci.faults, 0);

    machine("server"); /* the bridge above leads to bus 1 only */
    fake_pci_put(fake_pci_find(&pci, PCI_BDF(0, 1, 0)), PCI_REG_BUSES, 4, 0x00010100);
    scan();
    expect_refusal(at(1, 0, 0), 1, ERR_NO_MEMORY,
                   "VF 0 of 01:00.0 would be on bus 02, which the bridge above does not lead to");
    /* With ARI forwarding they all fit on bus 1: the offset is read again after ARI is on. */
    struct fake_pci_function *port = fake_pci_find(&pci, PCI_BDF(0, 1, 0));
    fake_pci_put(port, 0x40 + PCI_EXP_DEVCAP2, 4, PCI_EXP_DEVCAP2_ARI);
    enable(at(1, 0, 0), 8);
    assert_int_equal(pci_find_vf(&inv, PCI_BDF(1, 0, 0), 0)->bdf, PCI_BDF(1, 0x10, 0));

    machine("server"); /* bus 2 belongs to a bridge beside the PF */
    struct fake_pci_function *f = fake_pci_add(&pci, PCI_BDF(1, 0, 2), 1, 1, 0x060400, 1);
    fake_pci_put(f, PCI_REG_BUSES, 4, 0x00020201);
    scan();
    expect_refusal(at(1, 0, 0), 1, ERR_NO_MEMORY,
                   "VF 0 of 01:00.0 would be on bus 02, which the bridge above does not lead to");
}

static void test_sriov_refused(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    expect_refusal(at(2, 0, 0), 1, ERR_UNSUPPORTED, "02:00.0 has no SR-IOV");
    expect_refusal(pf, 0, ERR_RANGE, "01:00.0 has 8 virtual functions, not 0");
    expect_refusal(pf, 9, ERR_RANGE, "01:00.0 has 8 virtual functions, not 9");
    inv.capacity = inv.count + 3;
    expect_refusal(pf, 4, ERR_NO_MEMORY, "no room in the list of devices for 4 virtual functions");
    inv.capacity = ARRAY_SIZE(devices);
    pf->sriov.page_sizes = 2;
    expect_refusal(pf, 4, ERR_UNSUPPORTED, "01:00.0 does not know pages of 4 KiB");
    pf->sriov.page_sizes = 1;
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_OFFSET, 2, 0);
    expect_refusal(pf, 1, ERR_RANGE, "01:00.0 gives its virtual functions no addresses");
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_OFFSET, 2, 0x80);
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_STRIDE, 2, 0);
    expect_refusal(pf, 2, ERR_RANGE, "01:00.0 gives its virtual functions no addresses");
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_STRIDE, 2, 0xffff);
    expect_refusal(pf, 2, ERR_NO_MEMORY,
                   "VF 1 of 01:00.0 would be on bus 101, which the bridge above does not lead to");
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_STRIDE, 2, 2);
    fake_pci_add(&pci, PCI_BDF(1, 0x10, 2), 1, 1, 0, 0);
    devices[inv.count] = (struct pci_device){.bdf = PCI_BDF(1, 0x10, 2), .parent = PCI_NO_PARENT};
    inv.count++;
    expect_refusal(pf, 2, ERR_NO_MEMORY, "VF 1 of 01:00.0 would be at 01:10.2, where another device is");
    inv.count--;
    pci.count--;
    f->refuses_vfs = true;
    expect_refusal(pf, 2, ERR_RANGE, "01:00.0 refuses to switch 2 virtual functions on");
    f->refuses_vfs = false;
    fake_pci_bar(f, pf->sriov_cap + PCI_SRIOV_BAR0, 0x800);
    expect_refusal(pf, 2, ERR_UNSUPPORTED, "VF BAR 0 of 01:00.0 is not what the specification allows");
    fake_pci_bar(f, pf->sriov_cap + PCI_SRIOV_BAR0, 0x4000);
    enable(pf, 2);

    machine("qemu-q35-seabios"); /* no window, no room */
    struct pci_device *port = at(0, 2, 0);
    port->windows[PCI_WINDOW_PREFETCH].limit = port->windows[PCI_WINDOW_PREFETCH].base + 0x3fff;
    port->windows[PCI_WINDOW_MEMORY].limit = port->windows[PCI_WINDOW_MEMORY].base + 0x47fff;
    expect_refusal(at(1, 0, 0), 2, ERR_NO_MEMORY,
                   "no room for BAR 0 of 2 VFs of 01:00.0 (32 KiB): enable SR-IOV in the firmware setup");

    machine("qemu-q35-ovmf"); /* on a root bus, below 4 GiB: room for two, not for three */
    pf = at(1, 0, 0);
    f = fake_pci_find(&pci, pf->bdf);
    memset(inv.devices[pf->parent].bars, 0, sizeof(pf->bars));
    inv.devices[pf->parent].header = 0;
    pf->parent = PCI_NO_PARENT;
    fake_pci_bar(f, pf->sriov_cap + PCI_SRIOV_BAR0 + 8, 0x4000);
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_BAR0 + 8, 4, 0xffff8000);
    expect_refusal(pf, 3, ERR_NO_MEMORY,
                   "no room for BAR 2 of 3 VFs of 01:00.0 (48 KiB): enable SR-IOV in the firmware setup");
    fake_pci_put(f, pf->sriov_cap + PCI_SRIOV_BAR0 + 8, 4, 0xffff8000);
    enable(pf, 2);
    assert_int_equal(pf->sriov.vf_bars[2].base, 0xffff8000);
}

/* A VF that never shows up. */
static void test_sriov_dead(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    memset(f->vf_space, 0xff, sizeof(f->vf_space));
    uint64_t begin = pci.now_us;
    expect_refusal(pf, 2, ERR_NOT_FOUND, "VF 0 of 01:00.0 does not answer at 01:10.0");
    assert_in_range(pci.now_us - begin, 1000 * MS, 4000 * MS);
    assert_int_equal(pci.faults, 0);
}

/* VFs that firmware left on are switched off first, and are no bus masters after pci_quiesce(). */
static void test_sriov_left_on(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    enable(pf, 4);
    for (unsigned again = 0; again < 2; again++) {
        scan();
        assert_int_equal(inv.count, 15); /* a VF's vendor is ffff: it is not found */
        pf = at(1, 0, 0);
        assert_int_equal(pf->sriov.count, 0);
        assert_int_equal(pf->sriov.vf_bars[0].size, 0);
        if (again) {
            pci_quiesce(&inv, &pci.cfg, false);
            assert_null(fake_pci_find(&pci, 0x180));
            pci.now_us += 1000 * MS;
        }
        enable(pf, 7);
        expect_vf(pf->bdf, 6, 0x18c, 0xc040020000 + 6 * 0x4000, 0xc040000000 + 6 * 0x4000);
    }
}

/* ---- control ---- */

static uint32_t command_of(unsigned bus, unsigned device, unsigned function)
{
    return fake_pci_get(fake_pci_find(&pci, PCI_BDF(bus, device, function)), PCI_REG_COMMAND, 2);
}

static void test_quiesce(void **state)
{
    machine("qemu-q35-ovmf");
    struct fake_pci_function *vga = fake_pci_find(&pci, PCI_BDF(5, 2, 0));
    vga->space[0xb] = PCI_CLASS_DISPLAY;
    fake_pci_put(vga, 6, 2, 0xf900); /* status bits that a 1 clears must get 0 */
    vga->mask[7] = 0xf9;
    scan();
    unsigned masters = 0;
    for (uint32_t i = 0; i < inv.count; i++)
        masters += inv.devices[i].header == 0 && inv.devices[i].class_code >> 16 != PCI_CLASS_BRIDGE &&
                   (command_of(BDF_BUS(inv.devices[i].bdf), BDF_DEVICE(inv.devices[i].bdf),
                               BDF_FUNCTION(inv.devices[i].bdf)) &
                    PCI_COMMAND_MASTER);
    assert_int_equal(masters, 8);
    assert_int_equal(pci_quiesce(&inv, &pci.cfg, false), masters - 1);
    assert_int_equal(command_of(1, 0, 0), PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
    assert_true(command_of(5, 2, 0) & PCI_COMMAND_MASTER);
    assert_true(command_of(0, 2, 0) & PCI_COMMAND_MASTER);
    assert_int_equal(pci_quiesce(&inv, &pci.cfg, true), 1);
    assert_false(command_of(5, 2, 0) & PCI_COMMAND_MASTER);
    assert_int_equal(fake_pci_get(vga, 6, 2), 0xf900);
    assert_int_equal(pci_quiesce(&inv, &pci.cfg, true), 0);

    pci_master(&pci.cfg, at(0, 2, 0), false);
    pci_master_path(&inv, &pci.cfg, at(1, 0, 0));
    assert_true(command_of(0, 2, 0) & PCI_COMMAND_MASTER);
    assert_false(command_of(1, 0, 0) & PCI_COMMAND_MASTER);
    pci_master(&pci.cfg, at(1, 0, 0), true);
    pci_memory(&pci.cfg, at(1, 0, 0), false);
    assert_int_equal(command_of(1, 0, 0), PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    unsigned writes = pci.writes; /* gone: nothing to change */
    fake_pci_find(&pci, PCI_BDF(1, 0, 0))->removed = true;
    pci_master(&pci.cfg, at(1, 0, 0), true);
    assert_int_equal(pci.writes, writes);
}

static enum status flr(struct pci_device *dev)
{
    why[0] = 0;
    return pci_reset(&inv, &pci.cfg, &pci.env, dev, why, sizeof(why));
}

static void test_flr_pf(void **state)
{
    static uint8_t before[4096];
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    f->space[PCI_REG_HEADER] = 0x10;
    fake_pci_put(f, pf->pcie + PCI_EXP_DEVCTL, 2, 0x2830);
    fake_pci_put(f, pf->pcie + PCI_EXP_LNKCTL, 2, 0x40);
    fake_pci_put(f, pf->pcie + PCI_EXP_DEVCTL2, 2, 0x06);
    pci_read_caps(&pci.cfg, pf);
    memcpy(before, f->space, sizeof(before));
    fake_pci_put(f, pf->pcie + PCI_EXP_DEVCTL, 2,
                 0x28b0);                                /* its last owner: payloads that the port rejects, */
    fake_pci_put(f, pf->pcie + PCI_EXP_LNKCTL, 2, 0x50); /* a link that is off, */
    fake_pci_put(f, pf->pcie + PCI_EXP_DEVCTL2, 2, 0x1f); /* no time for completions */
    f->pending_us = 300 * MS;
    f->reset_us = 700 * MS;
    uint64_t begin = pci.now_us;
    assert_int_equal(flr(pf), STATUS_OK);
    assert_int_equal(f->resets, 1);
    assert_int_equal(pci.faults, 0);
    assert_in_range(pci.now_us - begin, 1000 * MS, 1100 * MS);
    before[PCI_REG_COMMAND] &= (uint8_t)~PCI_COMMAND_MASTER;
    before[PCI_REG_COMMAND + 1] |= PCI_COMMAND_INTX_OFF >> 8;
    assert_memory_equal(before, f->space, PCI_LEGACY_SIZE);

    enable(pf, 2);
    assert_int_equal(flr(pf), ERR_EXISTS);
    assert_string_equal(why, "01:00.0 has virtual functions, which a reset would take");
}

static void test_flr_vf(void **state)
{
    machine("server"); /* whose VFs do not announce FLR, but must have it */
    enable(at(1, 0, 0), 2);
    struct pci_device *vf = pci_find_vf(&inv, PCI_BDF(1, 0, 0), 1);
    struct fake_pci_function *f = fake_pci_find(&pci, vf->bdf);
    pci_master(&pci.cfg, vf, true);
    pci_memory(&pci.cfg, vf, false); /* it comes back with it all the same */
    fake_pci_put(f, vf->msix + PCI_MSIX_CONTROL, 2, 0x8002);
    assert_int_equal(flr(vf), STATUS_OK);
    assert_int_equal(f->resets, 1);
    assert_int_equal(fake_pci_get(f, PCI_REG_COMMAND, 2), PCI_COMMAND_MEMORY);
    assert_int_equal(fake_pci_get(f, vf->msix + PCI_MSIX_CONTROL, 2), 2);
    assert_int_equal(pci.faults, 0);

    f->never_returns = true;
    uint64_t begin = pci.now_us;
    assert_int_equal(flr(vf), ERR_NOT_FOUND);
    assert_string_equal(
        why,
        "02:10.2 does not answer 10 s after its reset: it must not be used until the machine is restarted");
    assert_in_range(pci.now_us - begin, 10000 * MS, 12000 * MS);
    assert_int_equal(flr(vf), ERR_NOT_FOUND);
    assert_string_equal(why, "02:10.2 does not answer: nothing to reset");
}

static void (*write_through)(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value);
static unsigned odd_commands; /* writes of Command that are not of its 16 bits */

static void watch_command(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    odd_commands += offset == PCI_REG_COMMAND && size != 2;
    write_through(ctx, bdf, offset, size, value);
}

/* It had PCIe's when it was found, and says otherwise now: Command is not taken for an AF capability at 0. */
static void test_flr_denied(void **state)
{
    machine("server");
    struct pci_device *audio = at(0, 0x1b, 0);
    fake_pci_put(fake_pci_find(&pci, audio->bdf), audio->pcie + PCI_EXP_DEVCAP, 4, 0);
    write_through = pci.cfg.write;
    pci.cfg.write = watch_command;
    odd_commands = 0;
    (void)flr(audio);
    assert_int_equal(odd_commands, 0);
    assert_int_equal(pci.faults, 0);
}

static void test_flr_others(void **state)
{
    machine("server");
    struct pci_device *sata = at(0, 0x1f, 2); /* conventional, with Advanced Features */
    struct fake_pci_function *f = fake_pci_find(&pci, sata->bdf);
    f->pending_us = 50 * MS;
    assert_true(sata->has_flr);
    assert_int_equal(flr(sata), STATUS_OK);
    assert_int_equal(f->resets, 1);
    assert_int_equal(fake_pci_get(f, PCI_REG_BAR0 + 20, 4), 0xfb904000);
    f->pending_us = 5000 * MS; /* it is reset all the same, after 1 s */
    pci_master(&pci.cfg, sata, true);
    uint64_t begin = pci.now_us;
    assert_int_equal(flr(sata), STATUS_OK);
    assert_in_range(pci.now_us - begin, 1100 * MS, 1200 * MS);
    assert_int_equal(f->resets, 2);

    assert_int_equal(flr(at(0, 0x1b, 0)), STATUS_OK); /* in the root complex: no link */
    assert_int_equal(flr(at(0, 1, 0)), ERR_UNSUPPORTED);
    assert_int_equal(flr(at(0, 0x1f, 3)), ERR_UNSUPPORTED);
    assert_string_equal(why, "00:1f.3 has no function level reset, and is not alone behind a port");
    assert_int_equal(pci.faults, 1); /* that reset while transactions were pending */
}

/* By the port above, when nobody else is behind it. */
static void test_bus_reset(void **state)
{
    static uint8_t before[4096];
    machine("server");
    struct fake_pci_function *f = fake_pci_find(&pci, PCI_BDF(3, 0, 0));
    f->pending_us = 200 * MS;
    f->reset_us = 400 * MS;
    memcpy(before, f->space, sizeof(before));
    /* Its last owner moved its registers to where somebody else's are. */
    uint32_t bar = fake_pci_get(f, PCI_REG_BAR0, 4);
    assert_int_not_equal(bar & ~0xfu, 0);
    fake_pci_put(f, PCI_REG_BAR0, 4, bar ^ 0x10000000);
    assert_int_equal(flr(at(3, 0, 0)), STATUS_OK);
    assert_int_equal(f->resets, 1);
    before[PCI_REG_COMMAND] &= (uint8_t)~PCI_COMMAND_MASTER;
    before[PCI_REG_COMMAND + 1] |= PCI_COMMAND_INTX_OFF >> 8;
    assert_memory_equal(before, f->space, PCI_LEGACY_SIZE);
    struct fake_pci_function *port = fake_pci_find(&pci, PCI_BDF(0, 3, 0));
    assert_false(fake_pci_get(port, PCI_REG_BRIDGE_CONTROL, 2) & PCI_BRIDGE_CONTROL_RESET);
    assert_int_equal(pci.faults, 0);
    fake_pci_add(&pci, PCI_BDF(3, 0, 1), 1, 1, 0x020000, 0);
    f->space[0xe] = PCI_HEADER_MULTI;
    scan();
    assert_int_equal(flr(at(3, 0, 0)), ERR_UNSUPPORTED);
    expect_verdict(at(3, 0, 0), "cannot be reset alone: it could not change its owner");
}

/* Step by step: whoever continues it too early touches nothing, and each step takes the time that it must. */
static void reset_in_steps(struct pci_device *dev, uint64_t wanted_us, enum status wanted)
{
    struct pci_reset r;
    uint64_t begin = pci.now_us;
    why[0] = 0;
    assert_int_equal(pci_reset_begin(&inv, &pci.cfg, &pci.env, dev, &r, why, sizeof(why)), STATUS_OK);
    assert_int_equal(pci.now_us, begin); /* it has not waited */
    assert_true(pci_reset_runs(&r));
    for (bool ended = false; !ended;) {
        unsigned touched = pci.reads + pci.writes;
        uint64_t due = r.due_us;
        assert_in_range(due, pci.now_us + 1, pci.now_us + 100 * MS + 1);
        pci.now_us = due - 1;
        assert_false(pci_reset_continue(&inv, &pci.cfg, &pci.env, dev, &r));
        assert_int_equal(pci.reads + pci.writes, touched);
        pci.now_us = due;
        ended = pci_reset_continue(&inv, &pci.cfg, &pci.env, dev, &r);
        assert_int_equal(pci.now_us, due);
        assert_true(pci.reads + pci.writes > touched);
    }
    assert_false(pci_reset_runs(&r));
    assert_int_equal(pci_reset_result(dev, &r, why, sizeof(why)), wanted);
    assert_in_range(pci.now_us - begin, wanted_us, wanted_us + 20 * MS);
    unsigned touched = pci.reads + pci.writes;
    assert_true(pci_reset_continue(&inv, &pci.cfg, &pci.env, dev, &r)); /* and stays ended */
    assert_int_equal(pci.reads + pci.writes, touched);
    assert_int_equal(pci.faults, 0);
}

static void test_reset_in_steps(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    reset_in_steps(pf, 100 * MS, STATUS_OK);
    pci_master(&pci.cfg, pf, true);
    f->pending_us = 300 * MS;
    f->reset_us = 700 * MS;
    reset_in_steps(pf, 1000 * MS, STATUS_OK);
    f->pending_us = 0;
    f->never_returns = true;
    reset_in_steps(pf, 10090 * MS, ERR_NOT_FOUND);
    assert_non_null(strstr(why, "01:00.0 does not answer 10 s after its reset"));

    machine("server");
    f = fake_pci_find(&pci, PCI_BDF(3, 0, 0));
    struct fake_pci_function *port = fake_pci_find(&pci, PCI_BDF(0, 3, 0));
    reset_in_steps(at(3, 0, 0), 102 * MS, STATUS_OK);
    assert_int_equal(f->resets, 1);
    assert_false(fake_pci_get(port, PCI_REG_BRIDGE_CONTROL, 2) & PCI_BRIDGE_CONTROL_RESET);
    /* Somebody who cannot go on step by step takes it over in the middle. */
    struct pci_reset r;
    assert_int_equal(pci_reset_begin(&inv, &pci.cfg, &pci.env, at(3, 0, 0), &r, why, sizeof(why)), STATUS_OK);
    assert_true(fake_pci_get(port, PCI_REG_BRIDGE_CONTROL, 2) & PCI_BRIDGE_CONTROL_RESET);
    assert_int_equal(pci_reset_await(&inv, &pci.cfg, &pci.env, at(3, 0, 0), &r, why, sizeof(why)), STATUS_OK);
    assert_int_equal(f->resets, 2);
    assert_int_equal(pci.faults, 0);
}

/* Whatever its last owner did to it by a way of its own. */
static void test_reset_takes_all(void **state)
{
    machine("qemu-q35-ovmf");
    struct pci_device *pf = at(1, 0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, pf->bdf);
    assert_int_not_equal(pf->pm, 0);
    fake_pci_put(f, pf->pm + PCI_PM_CONTROL, 2, PCI_PM_D3HOT); /* asleep, */
    reset_in_steps(pf, 110 * MS, STATUS_OK);
    assert_int_equal(fake_pci_get(f, pf->pm + PCI_PM_CONTROL, 2) & PCI_PM_CONTROL_STATE, 0);
    assert_int_equal(fake_pci_get(f, PCI_REG_BAR0, 4) & ~0xfu, (uint32_t)pf->bars[0].base);

    /* with VFs that nobody asked for, and that survive its reset, */
    uint32_t control = f->sriov + PCI_SRIOV_CONTROL;
    f->keeps_vfs = true;
    pci.cfg.write(pci.cfg.ctx, pf->bdf, f->sriov + PCI_SRIOV_NUM, 2, 2);
    pci.cfg.write(pci.cfg.ctx, pf->bdf, control, 2, PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE);
    assert_non_null(fake_pci_find(&pci, PCI_BDF(1, 0x10, 0)));
    reset_in_steps(pf, 100 * MS, STATUS_OK);
    assert_int_equal(fake_pci_get(f, control, 2) & (PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE), 0);
    assert_null(fake_pci_find(&pci, PCI_BDF(1, 0x10, 0)));

    f->bars_stuck = true; /* or broken. */
    reset_in_steps(pf, 100 * MS, ERR_NOT_FOUND);
    assert_string_equal(why, "01:00.0 does not take its BARs back after its reset");
    assert_false(fake_pci_get(f, PCI_REG_COMMAND, 2) & PCI_COMMAND_MEMORY);
}

static void test_names(void **state)
{
    char line[120];
    machine("qemu-q35-ovmf");
    pci_describe(&inv, at(0, 2, 0), NULL, line, sizeof(line));
    assert_string_equal(line, "00:02.0  1b36:000c  PCI bridge               group 1   to bus 01");
    pci_describe(&inv, at(1, 0, 0), NULL, line, sizeof(line));
    assert_string_equal(line, "01:00.0  8086:10c9  Ethernet controller      group 9   assignable; 8 VFs");
    enable(at(1, 0, 0), 2);
    pci_describe(&inv, at(1, 0, 0), NULL, line, sizeof(line));
    assert_string_equal(line, "01:00.0  8086:10c9  Ethernet controller      group 9   2 of 8 VFs on");
    pci_describe(&inv, at(1, 0x10, 2), NULL, line, sizeof(line));
    assert_string_equal(line,
                        "01:10.2  8086:10ca  Ethernet controller      group 16  VF 1 of 01:00.0: assignable");
    pci_describe(&inv, at(1, 0x10, 2), "web", line, sizeof(line));
    assert_string_equal(
        line, "01:10.2  8086:10ca  Ethernet controller      group 16  VF 1 of 01:00.0: given to web");
    pci_describe(&inv, at(3, 0, 0), "a name that is as long", line, sizeof(line));
    assert_non_null(strstr(line, " given to a name that is as long"));
    assert_true(pci_detail(&inv, at(1, 0x10, 2), "web", 0, line, sizeof(line)));
    assert_non_null(strstr(line, ": given to web"));
    assert_string_equal(pci_class_name(0x020000), "Ethernet controller");
    assert_string_equal(pci_class_name(0x010802), "NVMe controller");
    assert_string_equal(pci_class_name(0x0c03fe), "USB controller");
    assert_string_equal(pci_class_name(0x0209ff), "Network controller");
    assert_string_equal(pci_class_name(0x0d0000), "Device");
    assert_string_equal(pci_class_name(0xffffff), "Device");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ovmf),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_server),
        cmocka_unit_test(test_acs_enable),
        cmocka_unit_test(test_passive),
        cmocka_unit_test(test_roots),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_bridges),
        cmocka_unit_test(test_odd_headers),
        cmocka_unit_test(test_ari),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_bad_caps),
        cmocka_unit_test(test_sriov_kept),
        cmocka_unit_test(test_sriov_placed),
        cmocka_unit_test(test_sriov_moved),
        cmocka_unit_test(test_sriov_beside_bridge),
        cmocka_unit_test(test_sriov_bus),
        cmocka_unit_test(test_sriov_refused),
        cmocka_unit_test(test_sriov_dead),
        cmocka_unit_test(test_sriov_left_on),
        cmocka_unit_test(test_quiesce),
        cmocka_unit_test(test_flr_pf),
        cmocka_unit_test(test_flr_vf),
        cmocka_unit_test(test_flr_denied),
        cmocka_unit_test(test_flr_others),
        cmocka_unit_test(test_bus_reset),
        cmocka_unit_test(test_reset_in_steps),
        cmocka_unit_test(test_reset_takes_all),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
