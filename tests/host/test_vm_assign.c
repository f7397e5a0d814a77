/* Functions of the machine in VMs, with everything real but the hardware: QEMU's q35 as it was read out, a
 * model of VT-d that forgets nothing by itself, and one of the network card. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/iommu/vtd.h"
#include "hv/assign/devices.h"
#include "hv/assign/vm_assign.h"
#include "hv/core.h"
#include "hv/exits/emulate.h"
#include "hv/guest/pci_place.h"
#include "hv/lib/bits.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_igb.h"
#include "tests/host/fake_nvme.h"
#include "tests/host/fake_pci.h"
#include "tests/host/fake_virt.h"
#include "tests/host/fake_vtd.h"

#define MIB        (1ull << 20)
#define FREE_BASE  (2 * MIB)
#define FREE_SIZE  (70 * MIB)
#define MEMORY     (80 * MIB)
#define POOL_PAGES 700u
#define CPUS       4u
#define NET_PF     PCI_BDF(1, 0, 0)
#define VF0        PCI_BDF(1, 0x10, 0)
#define VF1        PCI_BDF(1, 0x10, 2)
#define NVME_PF    PCI_BDF(3, 0, 0)
#define PLAIN      PCI_BDF(2, 0, 0) /* an e1000e */
#define WHOLE      PCI_BDF(4, 0, 0) /* a second igb */
#define TABLE      4096u

static struct boot_info info;
static struct vm vms[2];
static struct fake_pci pci;
static struct fake_vtd vtd;
static struct fake_igb igb;
static struct fake_nvme nvme;
static struct mmio igb_real;
static uint8_t pool[POOL_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t *memory;
static char why[200];

/* ---- one clock for all models ---- */

static void tick(void)
{
    pci.now_us = fake_host.tsc / 1000;
    igb.now_us = fake_host.tsc / 1000;
    vtd.now = fake_host.tsc / 1000;
}

static uint32_t pci_read(void *ctx, uint16_t bdf, uint32_t offset, unsigned size)
{
    tick();
    return pci.cfg.read(pci.cfg.ctx, bdf, offset, size);
}

static void pci_write(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    tick();
    pci.cfg.write(pci.cfg.ctx, bdf, offset, size, value);
}

/* The NVMe card's part of SR-IOV follows what its configuration space says. */
static void nvme_tick(void)
{
    struct fake_pci_function *f = fake_pci_find(&pci, NVME_PF);
    uint32_t on = fake_pci_get(f, f->sriov + PCI_SRIOV_CONTROL, 2) & PCI_SRIOV_CONTROL_VFE
                      ? fake_pci_get(f, f->sriov + PCI_SRIOV_NUM, 2)
                      : 0;
    nvme.now_us = fake_host.tsc / 1000;
    (void)nvme.env.now_us(&nvme);
    if (nvme.vfs_on != on)
        fake_nvme_set_vfs(&nvme, on);
}

static uint32_t nvme_read32(void *ctx, uint64_t offset)
{
    nvme_tick();
    return nvme.regs.read32(&nvme, offset);
}

static void nvme_write32(void *ctx, uint64_t offset, uint32_t value)
{
    nvme_tick();
    nvme.regs.write32(&nvme, offset, value);
}

/* Its DMA goes through the IOMMU, to Bulkhead's pool. */
static void *nvme_dma(uint64_t at, uint64_t size)
{
    uint64_t where;
    void *memory_at;
    assert_true(fake_vtd_dma(&vtd, 0, NVME_PF, at, true, &where));
    assert_int_equal(pool_to_va(&core.pool, hpa(where), &memory_at), STATUS_OK);
    return memory_at;
}

static uint32_t igb_read32(void *ctx, uint64_t offset)
{
    tick();
    return igb_real.read32(igb_real.ctx, offset);
}

static void igb_write32(void *ctx, uint64_t offset, uint32_t value)
{
    tick();
    igb_real.write32(igb_real.ctx, offset, value);
}

/* ---- the pages that hold MSI-X tables, as the devices have them ---- */

static struct table {
    uint64_t base;
    uint8_t bytes[TABLE];
} tables[8];

static uint32_t table_read32(void *ctx, uint64_t offset)
{
    uint32_t v;
    memcpy(&v, ((struct table *)ctx)->bytes + offset, sizeof(v));
    return v;
}

static void table_write32(void *ctx, uint64_t offset, uint32_t value)
{
    memcpy(((struct table *)ctx)->bytes + offset, &value, sizeof(value));
}

static uint64_t table_read64(void *ctx, uint64_t offset)
{
    return table_read32(ctx, offset) | (uint64_t)table_read32(ctx, offset + 4) << 32;
}

static void table_write64(void *ctx, uint64_t offset, uint64_t value)
{
    table_write32(ctx, offset, (uint32_t)value);
    table_write32(ctx, offset + 4, (uint32_t)(value >> 32));
}

static bool no_room;

static bool map(void *ctx, hpa_t base, uint64_t size, struct mmio *out)
{
    if (no_room)
        return false;
    if (base.v == pci_find(&core.pci, NVME_PF)->bars[0].base) {
        *out = (struct mmio){&nvme, size, nvme_read32, nvme_write32, NULL, NULL};
        return true;
    }
    const struct pci_device *pf = pci_find(&core.pci, NET_PF);
    if (base.v == pf->bars[0].base) {
        *out = (struct mmio){&igb, size, igb_read32, igb_write32, NULL, NULL};
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
        if (tables[i].base && tables[i].base != base.v)
            continue;
        assert_true(size <= TABLE);
        tables[i].base = base.v;
        *out = (struct mmio){&tables[i], size, table_read32, table_write32, table_read64, table_write64};
        return true;
    }
    return false;
}

static void write_back(void *ctx, const void *at, size_t size)
{
}

/* ---- the machine ---- */

static struct config_vm *config_of(unsigned i)
{
    return &info.config.vms[i];
}

static struct config_assign *add(unsigned vm, enum config_assign_kind kind, uint16_t bdf)
{
    struct config_assign *a = &config_of(vm)->assigned[config_of(vm)->assigned_count++];
    *a = (struct config_assign){.kind = kind, .bdf = bdf, .index = -1, .spoofcheck = true};
    return a;
}

static void make_config(void)
{
    info.config.vm_count = 2;
    for (unsigned i = 0; i < 2; i++) {
        struct config_vm *c = config_of(i);
        strcpy(c->name, i ? "db" : "web");
        c->memory = 32 * MIB;
        c->cpus = i ? 0x4 : 0x3;
        c->log = LOG_DEBUG;
        c->console = (uint8_t)(i + 1);
    }
}

static void make_machine(uint64_t ecap)
{
    struct acpi_dmar dmar;
    assert_true(fake_pci_load(&pci, TEST_SOURCE_DIR "/tests/vectors/pci/qemu-q35-ovmf.txt"));
    core.pci_config = (struct pci_config){NULL, pci_read, pci_write};
    core.has_ecam = true;
    core.pci.devices = calloc(64, sizeof(*core.pci.devices));
    core.pci.capacity = 64;
    assert_int_equal(pci_scan(&core.pci, &core.pci_config), STATUS_OK);
    pci_acs_enable(&core.pci, &core.pci_config);
    pci_quiesce(&core.pci, &core.pci_config, false);
    fake_igb_init(&igb, 0x10c9);
    igb_real = igb.pf.bar;
    fake_nvme_init(&nvme, 2, 2);
    nvme.dma = nvme_dma;
    fake_vtd_init(&vtd, 1, FAKE_VTD_CAP, ecap);
    fake_vtd_dmar(&vtd, &dmar);
    memset(&host_devices, 0, sizeof(host_devices));
    host_devices.iommu_env.map = map;
    host_devices.iommu_env.write_back = write_back;
    if (ecap &&
        iommu_init(&host_devices.iommu, &dmar, &core.pci_config, &vtd.env, why, sizeof(why)) == STATUS_OK)
        core.iommu = &host_devices.iommu;
    host_devices.active = true;
}

static int setup_with(uint64_t ecap)
{
    static const struct boot_region region = {FREE_BASE, FREE_SIZE, BOOT_REGION_FREE, 0};
    fake_host_init();
    fake_virt_init();
    fake_host.tsc_step = 1000; /* a microsecond whenever somebody looks */
    if (!memory)
        memory = fake_host_memory(MEMORY);
    memset(vms, 0, sizeof(vms));
    memset(&info, 0, sizeof(info));
    memset(tables, 0, sizeof(tables));
    memset(pool, 0, sizeof(pool));
    core.info = &info;
    info.region_count = 1;
    info.regions[0] = region;
    core.cpu_count = CPUS;
    for (unsigned i = 0; i < 2; i++)
        core.vms[i] = &vms[i];
    for (unsigned i = 0; i < CPUS; i++) {
        core.cpus[i].online = 1;
        core.cpus[i].apic_id = i * 2;
    }
    pmem_init(&core.pmem, &region, 1);
    fake_host_pool(pool, sizeof(pool), 0);
    make_config();
    make_machine(ecap);
    why[0] = 0;
    no_room = false;
    return 0;
}

static int setup(void **state)
{
    return setup_with(FAKE_VTD_ECAP);
}

static void end(void)
{
    fake_vtd_free(&vtd);
    free(core.pci.devices);
    core.pci = (struct pci_inventory){0};
}

static int teardown(void **state)
{
    assert_null(vtd.breach);
    assert_int_equal(pci.faults, 0);
    end();
    return 0;
}

/* The VM is made; a vCPU of its runs when it asks for anything. */
static void create(unsigned i)
{
    if (vm_create(&vms[i], i, why, sizeof(why)) != STATUS_OK)
        fail_msg("%s", why);
}

/* After refusals. */
static void create_anew(unsigned i)
{
    memset(&vms[i], 0, sizeof(vms[i]));
    create(i);
}

static void refuse(unsigned i, const char *text)
{
    memset(&vms[i], 0, sizeof(vms[i]));
    uint64_t free_before = pool_pages_free(&core.pool);
    uint32_t irqs = core.iommu ? core.iommu->interrupts : 0, domains = core.iommu ? core.iommu->domains : 0;
    assert_true(text[0]); /* any sentence would do */
    why[0] = 0;           /* not the last one's */
    assert_int_not_equal(vm_create(&vms[i], i, why, sizeof(why)), STATUS_OK);
    if (!strstr(why, text))
        fail_msg("wanted \"%s\", got: %s", text, why);
    assert_null(vms[i].assign);
    assert_in_range(strlen(why), 1, 189);
    for (unsigned c = 0; c < CPUS; c++) /* tables of vectors stay with their CPUs */
        free_before -= core.cpus[c].msi && config_of(i)->cpus >> c & 1;
    if (core.iommu) {
        assert_int_equal(core.iommu->interrupts, irqs);
        assert_int_equal(core.iommu->domains, domains);
    }
    assert_in_range(pool_pages_free(&core.pool), free_before, POOL_PAGES);
}

static struct vm_device *device(unsigned vm, unsigned i)
{
    return &vms[vm].assign->devices[i];
}

static uint32_t guest_config(unsigned vm, uint16_t bdf, uint32_t offset)
{
    struct io_req req = {.addr = GUEST_ECAM + ((uint64_t)bdf << 12) + offset, .size = 4};
    emulate_mmio_access(vms[vm].vcpus[0], &req);
    return (uint32_t)req.value;
}

static void guest_config_write(unsigned vm, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    struct io_req req = {.addr = GUEST_ECAM + ((uint64_t)bdf << 12) + offset,
                         .size = (uint8_t)size,
                         .write = true,
                         .value = value};
    emulate_mmio_access(vms[vm].vcpus[0], &req);
}

static void guest_write(unsigned vm, uint64_t gpa_at, uint32_t value)
{
    struct io_req req = {.addr = gpa_at, .size = 4, .write = true, .value = value};
    emulate_mmio_access(vms[vm].vcpus[0], &req);
}

#define GUEST_VF PCI_BDF(0, 0x10, 0)

/* What igbvf does first: decoding and bus mastering on, MSI-X on, entry 0 to vCPU `vcpu` at `vector`. */
static void drive(unsigned vm, unsigned vcpu, uint8_t vector)
{
    struct vm_device *d = device(vm, 0);
    guest_config_write(vm, GUEST_VF, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    guest_config_write(vm, GUEST_VF, d->setup.msix + PCI_MSIX_CONTROL, 2, PCI_MSIX_CONTROL_ENABLE);
    uint64_t table = d->setup.bars[d->setup.msix_bar].gpa + d->setup.msix_offset;
    guest_write(vm, table + 12, 1);
    guest_write(vm, table, 0xfee00000u | vcpu << 12);
    guest_write(vm, table + 4, 0);
    guest_write(vm, table + 8, vector);
    guest_write(vm, table + 12, 0);
}

static bool is_master(uint16_t bdf)
{
    return pci_read(NULL, bdf, PCI_REG_COMMAND, 2) & PCI_COMMAND_MASTER;
}

/* Raises the message in d's entry 0, whatever its mask bit says; at which CPU and vector, or false. */
static bool raise_as(const struct vm_device *d, uint16_t bdf, uint32_t *apic, uint8_t *vector)
{
    uint64_t address;
    uint32_t data;
    iommu_irq_message(core.iommu, d->handles[0], &address, &data);
    return fake_vtd_interrupt(&vtd, 0, bdf, address, data, apic, vector);
}

static unsigned vectors_in_use(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CPUS; i++)
        for (unsigned w = 0; core.cpus[i].msi && w < ARRAY_SIZE(core.cpus[i].msi->used); w++)
            n += bits_count(core.cpus[i].msi->used[w]);
    return n;
}

/* The device raises its entry 0, as its table says; at which CPU and vector, or false. */
static bool raise(const struct vm_device *d, uint32_t *apic, uint8_t *vector)
{
    const uint8_t *entry = NULL;
    uint64_t address, base = d->dev->bars[d->setup.msix_bar].base;
    uint32_t data, control;
    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++)
        if (tables[i].base == base)
            entry = tables[i].bytes;
    assert_non_null(entry);
    memcpy(&address, entry, 8);
    memcpy(&data, entry + 8, 4);
    memcpy(&control, entry + 12, 4);
    return !(control & 1) && fake_vtd_interrupt(&vtd, 0, d->bdf, address, data, apic, vector);
}

static bool waits(unsigned vm, unsigned vcpu, uint8_t vector)
{
    return vms[vm].vcpus[vcpu]->lapic.irr[vector / 32] & BIT(vector % 32);
}

static void enable_apics(unsigned vm)
{
    for (unsigned i = 0; i < vms[vm].vcpu_count; i++)
        lapic_mmio_write(&vms[vm].vcpus[i]->lapic, 0xf0, 4, 0x1ff);
}

static void start(unsigned vm)
{
    vms[vm].zeroed = vms[vm].config->memory;
    if (vm_assign_start(&vms[vm], why, sizeof(why)) != STATUS_OK)
        fail_msg("%s", why);
}

/* VM 0 with one VF of the network card, and nothing else. */
static void create_with_vf(void)
{
    add(0, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    create(0);
}

static void start_with_vf(void)
{
    create_with_vf();
    start(0);
}

/* ---- tests ---- */

static void test_life(void **state)
{
    uint64_t at;
    uint32_t apic;
    uint8_t vector;
    add(0, ASSIGN_NET_VF, NET_PF)->has_mac = true;
    memcpy(config_of(0)->assigned[0].mac, "\x52\x54\0\xaa\0\1", 6);
    devices_start_pfs();
    create(0);
    struct vm_device *d = device(0, 0);
    assert_int_equal(d->bdf, VF0);
    assert_int_equal(guest_config(0, GUEST_VF, 0), 0x10ca8086);
    assert_int_equal(d->irq_count, 3);
    uint32_t irqs = core.iommu->interrupts, domains = core.iommu->domains;
    uint64_t pages = pool_pages_free(&core.pool), tables_used = vtd.in_use;

    for (unsigned life = 0; life < 4; life++) {
        const struct gmem_extent *ram = &vms[0].gmem.extents[0];
        assert_false(fake_vtd_dma(&vtd, 0, VF0, 0x1000, true, &at));
        start(0);
        assert_true(fake_host_logged(
            "net0, VF 01:10.0: given: isolation group checked, DMA quiet, FLR done, memory scrubbed"));
        assert_false(is_master(VF0));
        enable_apics(0);
        drive(0, 1, 0x55);
        assert_true(is_master(VF0));
        assert_true(fake_vtd_dma(&vtd, 0, VF0, 0x1234, true, &at));
        assert_int_equal(at, ram->hpa + 0x1234);
        assert_false(fake_vtd_dma(&vtd, 0, VF0, 32 * MIB, true, &at)); /* beyond its memory */
        assert_false(fake_vtd_dma(&vtd, 0, VF1, 0x1000, false, &at));  /* somebody else */

        assert_true(raise(d, &apic, &vector));
        assert_int_equal(apic, core.cpus[1].apic_id);
        assert_true(msi_fire(&core.cpus[1], vector));
        assert_false(raise_as(d, VF1, &apic, &vector)); /* the same message from somebody else */
        assert_true(waits(0, 1, 0x55));

        vms[0].zeroed = vms[0].config->memory;
        vm_assign_stop(&vms[0]);
        assert_int_equal(vms[0].zeroed, 0); /* memory is scrubbed before anything uses it again */
        assert_false(is_master(VF0));
        assert_false(fake_vtd_dma(&vtd, 0, VF0, 0x1234, true, &at));
        assert_false(raise_as(d, VF0, &apic, &vector)); /* even if it forgot its mask bit */
        assert_int_equal(vectors_in_use(), 0);
        assert_false(raise(d, &apic, &vector));
        assert_true(
            fake_host_logged("net0, VF 01:10.0: taken back: DMA quiet, interrupts torn down, FLR done"));
        assert_int_equal(d->assign.state, ASSIGN_HOST);
        assert_int_equal(core.iommu->interrupts, irqs);
        assert_int_equal(core.iommu->domains, domains);
        if (life == 0) { /* nested tables for its registers and its bus's context table stay */
            pages = pool_pages_free(&core.pool);
            tables_used = vtd.in_use;
        }
        assert_int_equal(pool_pages_free(&core.pool), pages);
        assert_int_equal(vtd.in_use, tables_used);
        vms[0].zeroed = vms[0].config->memory;
    }
}

/* BARs: mapped where the guest says, uncached, without the pages of the MSI-X table; gone when it says so. */
static void test_registers(void **state)
{
    hpa_t ha;
    uint64_t page;
    unsigned flags;
    enum ept_memory_type type;
    start_with_vf();
    struct vm_device *d = device(0, 0);
    uint64_t bar0 = d->setup.bars[0].gpa, bar3 = d->setup.bars[3].gpa;
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(bar0), &ha, &page, &flags, &type), ERR_NOT_FOUND);
    vms[0].vcpus[0]->requests = vms[0].vcpus[1]->requests = 0;
    drive(0, 0, 0x55);
    assert_int_equal(vms[0].vcpus[1]->requests & VCPU_REQ_FLUSH, VCPU_REQ_FLUSH);
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(bar0 + 0x2000), &ha, &page, &flags, &type), STATUS_OK);
    assert_int_equal(ha.v, d->dev->bars[0].base + 0x2000);
    assert_int_equal(flags, EPT_READ | EPT_WRITE);
    assert_int_equal(type, EPT_UC);
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(bar3), &ha, &page, &flags, &type), ERR_NOT_FOUND);
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(bar3 + 0x1000), &ha, &page, &flags, &type), STATUS_OK);

    guest_config_write(0, GUEST_VF, PCI_REG_COMMAND, 2, 0);
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(bar0), &ha, &page, &flags, &type), ERR_NOT_FOUND);
    assert_false(is_master(VF0));
    /* Over the guest's memory: it is not there. */
    guest_config_write(0, GUEST_VF, PCI_REG_BAR0, 4, 0x1000000);
    guest_config_write(0, GUEST_VF, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(0x1000000), &ha, &page, &flags, &type), STATUS_OK);
    assert_int_equal(type, EPT_WB);
    /* Elsewhere in the hole, where it would cost tables. */
    guest_config_write(0, GUEST_VF, PCI_REG_BAR0, 4, GUEST_PCI_HIGH + 0x4000000);
    assert_int_equal(ept_lookup(&vms[0].ept, gpa(GUEST_PCI_HIGH + 0x4000000), &ha, &page, &flags, &type),
                     ERR_NOT_FOUND);
    struct io_req req = {.addr = bar0, .size = 4};
    emulate_mmio_access(vms[0].vcpus[0], &req);
    assert_int_equal(req.value, 0xffffffff);
    vm_assign_stop(&vms[0]);
}

/* Every place that has an owner already: BARs are nowhere there, and what was there answers. */
static void test_bars_over_devices(void **state)
{
    start_with_vf();
    struct vm_device *d = device(0, 0);
    const uint64_t home = d->setup.bars[0].gpa, size = d->setup.bars[0].size;
    const uint64_t places[] = {0,
                               GUEST_ECAM,
                               GUEST_ECAM + ((uint64_t)GUEST_VF << 12) / size * size, /* its own registers */
                               GUEST_ECAM + GUEST_ECAM_SIZE - size,
                               GUEST_IOAPIC,
                               HPET_BASE,
                               GUEST_LAPIC,
                               TESTDEV_RAM,
                               GUEST_FOUR_GIB - size, /* a firmware's flash */
                               GUEST_ACPI,
                               32 * MIB - size,
                               GUEST_PCI_HOLE - size,
                               1ull << vms[0].cpuid.phys_bits};
    guest_config_write(0, GUEST_VF, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(d->vpci.mapped, 1 | 1 << 3);
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        guest_config_write(0, GUEST_VF, PCI_REG_BAR0, 4, (uint32_t)places[i]);
        guest_config_write(0, GUEST_VF, PCI_REG_BAR0 + 4, 4, (uint32_t)(places[i] >> 32));
        assert_int_equal(d->vpci.mapped, 1 << 3);
        for (uint64_t at = places[i]; at < places[i] + size; at += PAGE_SIZE) {
            hpa_t ha;
            uint64_t page;
            unsigned flags;
            enum ept_memory_type type;
            if (ept_lookup(&vms[0].ept, gpa(at), &ha, &page, &flags, &type) == STATUS_OK)
                assert_int_equal(type, EPT_WB); /* its memory, as before */
        }
        assert_int_equal(guest_config(0, GUEST_VF, 0), 0x10ca8086);
    }
    guest_config_write(0, GUEST_VF, PCI_REG_BAR0 + 4, 4, (uint32_t)(home >> 32));
    guest_config_write(0, GUEST_VF, PCI_REG_BAR0, 4, (uint32_t)home);
    assert_int_equal(d->vpci.mapped, 1 | 1 << 3);
    vm_assign_stop(&vms[0]);
}

/* The guest moves an interrupt from CPU to CPU while the device goes on. */
static void test_affinity(void **state)
{
    uint32_t apic;
    uint8_t old, vector;
    start_with_vf();
    enable_apics(0);
    struct vm_device *d = device(0, 0);
    drive(0, 0, 0x41);
    assert_true(raise(d, &apic, &old));
    assert_int_equal(apic, core.cpus[0].apic_id); /* under way */
    drive(0, 1, 0x42);
    assert_true(raise(d, &apic, &vector));
    assert_int_equal(apic, core.cpus[1].apic_id);
    assert_int_equal(vectors_in_use(), 1);
    assert_true(msi_fire(&core.cpus[0], old));
    assert_true(waits(0, 1, 0x42)); /* not lost */
    vms[0].vcpus[1]->lapic.irr[0x42 / 32] = 0;
    assert_true(msi_fire(&core.cpus[1], vector));
    assert_true(waits(0, 1, 0x42));
    assert_int_equal(d->irqs[0].fired, 2);

    /* A message that is none: the entry stays masked. */
    uint64_t table = d->setup.bars[3].gpa;
    guest_write(0, table + 12, 1);
    guest_write(0, table + 8, 0x442); /* NMI */
    guest_write(0, table + 12, 0);
    assert_false(raise(d, &apic, &vector));
    vm_assign_stop(&vms[0]);
}

static void guest_resets(const struct vm_device *d)
{
    guest_config_write(0, GUEST_VF, d->setup.pcie + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_FLR);
}

static void pass_us(uint64_t us)
{
    fake_host.tsc += us * 1000;
}

static bool registers_mapped(const struct vm_device *d)
{
    hpa_t where;
    uint64_t page;
    unsigned flags;
    enum ept_memory_type type;
    return ept_lookup(&vms[0].ept, gpa(d->setup.bars[0].gpa), &where, &page, &flags, &type) == STATUS_OK;
}

/* The guest that has asked for a reset goes on at once; its function answers when it is over, by whoever
 * comes first: a look of the guest's, or the timer. */
static void test_guest_reset(void **state)
{
    uint64_t at;
    uint32_t apic;
    uint8_t vector;
    start_with_vf();
    enable_apics(0);
    struct vm_device *d = device(0, 0);
    drive(0, 0, 0x41);
    struct fake_pci_function *f = fake_pci_find(&pci, VF0);
    unsigned resets = f->resets;
    uint64_t begin = fake_host.tsc;
    guest_resets(d);
    assert_in_range(fake_host.tsc - begin, 1, 1000000); /* 1 ms, with a clock that goes on when it is read */
    assert_int_equal(d->assign.state, ASSIGN_RESETTING);
    assert_int_equal(f->resets, resets + 1);
    assert_true(fake_host_logged("net0, VF 01:10.0: reset as the guest asks, 1 so far"));
    assert_false(raise(d, &apic, &vector));
    assert_int_equal(vectors_in_use(), 0);
    assert_false(registers_mapped(d));
    assert_int_equal(guest_config(0, GUEST_VF, PCI_REG_COMMAND), UINT32_MAX);
    drive(0, 0, 0x43); /* too early */
    guest_resets(d);
    assert_int_equal(d->assign.state, ASSIGN_RESETTING);
    assert_int_equal(f->resets, resets + 1);
    assert_false(registers_mapped(d));
    uint64_t due = vms[0].assign->window.deadline_ns;
    assert_in_range(due, vm_now_ns(&vms[0]) + 90000000, vm_now_ns(&vms[0]) + 101000000);
    pass_us(100000);
    assert_int_equal(guest_config(0, GUEST_VF, PCI_REG_COMMAND), 0x00100000);
    assert_int_equal(d->assign.state, ASSIGN_OWNED);
    assert_false(is_master(VF0));
    drive(0, 0, 0x43);
    assert_true(raise(d, &apic, &vector));
    assert_true(fake_vtd_dma(&vtd, 0, VF0, 0x1000, true, &at)); /* its memory is there still */
    platform_run_timers(&vms[0]); /* the one of the first reset: nothing is left to do */
    assert_int_equal(vms[0].assign->window.deadline_ns, VDEV_NEVER);

    /* The guest does not look at all. */
    guest_resets(d);
    pass_us(50000);
    platform_run_timers(&vms[0]);
    assert_int_equal(d->assign.state, ASSIGN_RESETTING);
    pass_us(52000);
    platform_run_timers(&vms[0]);
    assert_int_equal(d->assign.state, ASSIGN_OWNED);
    assert_int_equal(vms[0].assign->window.deadline_ns, VDEV_NEVER);
    assert_int_equal(pci.faults, 0);
    vm_assign_stop(&vms[0]);
}

/* Two devices of one VM, reset one after the other: each is over in its own time, and one timer does for
 * both.
 */
static void test_two_resets(void **state)
{
    add(0, ASSIGN_NET_VF, NET_PF);
    start_with_vf();
    drive(0, 0, 0x41);
    struct vm_device *a = device(0, 0), *b = device(0, 1);
    guest_resets(a);
    uint64_t first = vms[0].assign->window.deadline_ns;
    pass_us(50000);
    guest_config_write(0, b->setup.guest_bdf, b->setup.pcie + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_FLR);
    assert_in_range(vms[0].assign->window.deadline_ns, first - 50000,
                    first + 50000); /* 50 us: how often the clock was read */
    pass_us(52000);
    platform_run_timers(&vms[0]);
    assert_int_equal(a->assign.state, ASSIGN_OWNED);
    assert_int_equal(b->assign.state, ASSIGN_RESETTING);
    assert_in_range(vms[0].assign->window.deadline_ns, first + 45000000, first + 52000000);
    pass_us(50000);
    platform_run_timers(&vms[0]);
    assert_int_equal(b->assign.state, ASSIGN_OWNED);
    assert_int_equal(vms[0].assign->window.deadline_ns, VDEV_NEVER);
    vm_assign_stop(&vms[0]);
}

/* In the middle of a reset the VM is stopped: the next life finds the device fresh, and its driver heard of
 * the reset. */
static void test_stop_in_reset(void **state)
{
    create_with_vf();
    struct vm_device *d = device(0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, VF0);
    for (unsigned life = 0; life < 3; life++) {
        start(0);
        enable_apics(0);
        drive(0, 0, 0x41);
        f->pending_us = life == 2 ? 300000 : 0; /* its transactions are awaited still */
        unsigned resets = f->resets;
        guest_resets(d);
        if (life == 1)
            pass_us(99000);
        assert_int_equal(f->resets, life == 2 ? resets : resets + 1);
        vm_assign_stop(&vms[0]);
        assert_int_equal(f->resets, resets + 1);
        assert_int_equal(d->assign.state, ASSIGN_HOST);
        assert_true(fake_host_logged("taken back: DMA quiet, interrupts torn down, FLR done"));
        f->pending_us = 0;
        platform_run_timers(&vms[0]); /* a late one */
    }
    start(0);
    platform_reset(&vms[0]); /* as every start does it */
    assert_int_equal(vms[0].assign->window.deadline_ns, VDEV_NEVER);
    drive(0, 0, 0x41);
    assert_true(is_master(VF0));
    f->never_returns = true; /* and one that is dead when the VM stops */
    guest_resets(d);
    vm_assign_stop(&vms[0]);
    assert_int_equal(d->assign.state, ASSIGN_QUARANTINED);
}

/* A guest whose reset never ends has a dead function; one that resets without end has one that is reset ten
 * times a second, and few lines about it. */
static void test_dead_after_reset(void **state)
{
    uint64_t at;
    uint32_t apic;
    uint8_t vector;
    start_with_vf();
    struct vm_device *d = device(0, 0);
    struct fake_pci_function *f = fake_pci_find(&pci, VF0);
    fake_host.tsc_step = 50;
    unsigned lines = fake_host.log_lines, resets = f->resets;
    uint64_t begin = fake_host.tsc;
    while (fake_host.tsc - begin < 3000000000ull) {
        drive(0, 0, 0x41);
        guest_resets(d);
        pass_us(200);
    }
    assert_in_range(f->resets - resets, 28, 30);
    assert_int_equal(fake_host.log_lines - lines, 5);
    assert_true(fake_host_logged("net0, VF 01:10.0: reset as the guest asks, 16 so far"));
    pass_us(100000);
    drive(0, 0, 0x41);

    f->never_returns = true;
    guest_resets(d);
    for (unsigned i = 0; i < 1200 && d->assign.state == ASSIGN_RESETTING; i++) {
        pass_us(10100);
        platform_run_timers(&vms[0]);
    }
    assert_int_equal(d->assign.state, ASSIGN_QUARANTINED);
    assert_false(fake_vtd_dma(&vtd, 0, VF0, 0x1000, true, &at));
    assert_true(
        fake_host_logged("quarantined until the machine restarts: 01:10.0 does not answer 10 s after"));
    lines = fake_host.log_lines;
    for (unsigned i = 0; i < 10 * LOG_BURST; i++) /* a guest that does not take it for an answer */
        guest_resets(d);
    assert_int_equal(fake_host.log_lines, lines);

    f->never_returns = false; /* it comes to itself, and the guest goes on with it */
    f->ready_us = 0;
    drive(0, 0, 0x44);
    assert_int_equal(guest_config(0, GUEST_VF, 0), UINT32_MAX);
    d->env.master(d, true);
    d->env.map(d, 0, d->setup.bars[0].gpa, true);
    d->env.irq_set(d, 0, 0xfee00000, 0x44, false);
    assert_int_equal(d->env.mmio_read(d, 3, 0x800, 4), UINT32_MAX);
    d->env.mmio_write(d, 3, 0x800, 4, 0);
    assert_false(is_master(VF0));
    assert_false(raise_as(d, VF0, &apic, &vector));
    assert_int_equal(vectors_in_use(), 0);
    assert_false(registers_mapped(d));
    vm_assign_stop(&vms[0]);
    vms[0].zeroed = vms[0].config->memory;
    assert_int_not_equal(vm_assign_start(&vms[0], why, sizeof(why)), STATUS_OK);
    assert_non_null(strstr(why, "net0, VF 01:10.0: it is quarantined"));
}

static void test_faults(void **state)
{
    uint64_t at;
    start_with_vf();
    drive(0, 0, 0x41);
    assert_false(fake_vtd_dma(&vtd, 0, VF0, 0x40000000, true, &at));
    devices_poll_now();
    assert_true(fake_host_logged("VM web, VF 01:10.0: DMA write to 0x40000000 blocked:"));
    assert_true(fake_host_logged("(reason 5)"));
    assert_true(is_master(VF0));
    assert_false(fake_vtd_dma(&vtd, 0, PLAIN, 0x2000, false, &at));
    host_devices.faults_tsc = 0;
    devices_poll_now();
    assert_true(fake_host_logged("a device of no VM, 02:00.0: DMA read from 0x2000 blocked"));

    assert_false(fake_vtd_dma(&vtd, 0, NET_PF, 0x3000, true, &at));
    host_devices.faults_tsc = 0;
    devices_poll_now();
    assert_true(fake_host_logged("iommu: warning: PF 01:00.0: DMA write to 0x3000 blocked"));

    unsigned lines = fake_host.log_lines;
    for (unsigned i = 0; i <= FAULTS_STORM_PER_SECOND; i++) {
        assert_false(fake_vtd_dma(&vtd, 0, VF0, 0x40000000, true, &at));
        host_devices.faults_tsc = 0;
        devices_poll_now();
    }
    assert_false(is_master(VF0));
    assert_true(
        fake_host_logged("more than 50 blocked accesses in a second: its bus mastering is taken away"));
    assert_in_range(fake_host.log_lines - lines, 1, 8);
    /* It cannot be switched on again but by a reset. */
    guest_config_write(0, GUEST_VF, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY);
    guest_config_write(0, GUEST_VF, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_false(is_master(VF0));
    guest_resets(device(0, 0));
    for (unsigned i = 0; i < 2 * FAULTS_STORM_PER_SECOND; i++) { /* late ones: it is not touched */
        assert_false(fake_vtd_dma(&vtd, 0, VF0, 0x40000000, true, &at));
        host_devices.faults_tsc = 0;
        devices_poll_now();
    }
    pass_us(100000);
    drive(0, 0, 0x41);
    assert_true(is_master(VF0));
    vm_assign_stop(&vms[0]);
}

static void poll_faults_now(void)
{
    host_devices.faults_tsc = 0;
    devices_poll_now();
}

/* A whole function that makes up requester ids: it is named, and cut off, as if it had used its own. */
static void test_forged_ids(void **state)
{
    uint64_t at;
    const uint16_t forged = WHOLE | 5, elsewhere = PCI_BDF(9, 0, 1);
    add(0, ASSIGN_PCI, WHOLE);
    add(1, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    create(0);
    create(1);
    start(0);
    start(1);
    drive(0, 0, 0x41);
    drive(1, 0, 0x41);
    assert_true(is_master(WHOLE));
    assert_false(fake_vtd_dma(&vtd, 0, forged, 0x1000, true, &at)); /* memory that is its VM's */
    poll_faults_now();
    assert_true(fake_host_logged("VM web, function 04:00.0 as 04:00.5: DMA write to 0x1000 blocked:"));
    for (unsigned i = 0; i <= FAULTS_STORM_PER_SECOND; i++) {
        assert_false(fake_vtd_dma(&vtd, 0, forged, 0x1000, false, &at));
        poll_faults_now();
    }
    assert_false(is_master(WHOLE));
    assert_true(fake_host_logged("VM web, function 04:00.0: more than 50 blocked accesses in a second"));

    /* From elsewhere, and from a VF's neighbourhood, which a VF cannot forge: nobody suffers for it. */
    const uint16_t nobodys[] = {elsewhere, PCI_BDF(1, 0x11, 6), PCI_BDF(0, 0x1e, 3)};
    for (unsigned i = 0; i < 3 * (FAULTS_STORM_PER_SECOND + 1); i++) {
        assert_false(fake_vtd_dma(&vtd, 0, nobodys[i % 3], 0x1000, false, &at));
        poll_faults_now();
    }
    assert_true(is_master(VF0));
    assert_true(fake_host_logged("a device of no VM, 09:00.1: DMA read from 0x1000 blocked"));
    vm_assign_stop(&vms[0]);
    vm_assign_stop(&vms[1]);
}

/* Who of several it was cannot be known: of one VM's each is cut off in its turn; of two VMs' none is. */
static void test_forged_among_several(void **state)
{
    struct vm_device *d;
    add(0, ASSIGN_PCI, WHOLE);
    add(0, ASSIGN_PCI, PLAIN);
    add(1, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    create(0);
    create(1);
    struct pci_device other = *pci_find(&core.pci, PLAIN);
    device(0, 1)->dev = &other;
    device(0, 1)->bdf = WHOLE | 1;
    d = vm_assign_find_forger(WHOLE | 5);
    assert_ptr_equal(d, device(0, 0));
    d->cut_off = true;
    assert_ptr_equal(vm_assign_find_forger(WHOLE | 5), device(0, 1));
    assert_null(vm_assign_find_forger(WHOLE));       /* that is somebody */
    assert_null(vm_assign_find_forger(WHOLE + 256)); /* another bus */
    other.parent = PCI_NO_PARENT;                    /* in the root complex: phantom functions, no more */
    device(0, 0)->dev = NULL;
    assert_ptr_equal(vm_assign_find_forger(WHOLE | 5), device(0, 1));
    assert_null(vm_assign_find_forger(WHOLE | 8));
    device(0, 0)->dev = &other;
    device(1, 0)->dev = &other;
    device(1, 0)->bdf = WHOLE | 2;
    assert_null(vm_assign_find_forger(WHOLE | 5));
}

/* Messages that a device sends of its own accord, and entries beyond those that it has: what the IOMMU holds
 * for it alone arrives, and what it does not is in the log with its owner. */
static void test_forged_messages(void **state)
{
    uint64_t address;
    uint32_t data, apic;
    uint8_t vector;
    add(0, ASSIGN_NET_VF, NET_PF);
    add(1, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    create(0);
    create(1);
    start(0);
    start(1);
    enable_apics(0);
    enable_apics(1);
    drive(0, 0, 0x41);
    drive(1, 0, 0x41);
    const struct vm_device *d = device(0, 0), *theirs = device(1, 0);
    assert_int_equal(d->bdf, VF0);
    /* The guest writes one behind its table, where registers could be: a real entry, it may be. */
    uint64_t beyond = d->setup.bars[3].gpa + d->setup.msix_count * 16u;
    guest_write(0, beyond, 0xfee00000);
    guest_write(0, beyond + 8, 0x41);
    guest_write(0, beyond + 12, 0);
    assert_false(fake_vtd_interrupt(&vtd, 0, VF0, 0xfee00000, 0x41, &apic, &vector));
    poll_faults_now();
    assert_true(fake_host_logged(
        "VM web, VF 01:10.0: interrupt message, index 0, blocked: message of the old format (reason 37)"));
    iommu_irq_message(core.iommu, theirs->handles[0], &address, &data);
    assert_false(fake_vtd_interrupt(&vtd, 0, VF0, address, data, &apic, &vector));
    poll_faults_now();
    assert_true(fake_host_logged("blocked: interrupt of another function (reason 38)"));
    iommu_irq_message(core.iommu, d->handles[0] + d->irq_count + theirs->irq_count, &address, &data);
    assert_false(fake_vtd_interrupt(&vtd, 0, VF0, address, data, &apic, &vector));
    poll_faults_now();
    assert_true(fake_host_logged("blocked: interrupt that nobody gave it (reason 34)"));
    for (unsigned i = 0; i <= FAULTS_STORM_PER_SECOND; i++) {
        assert_false(fake_vtd_interrupt(&vtd, 0, VF0, address, data, &apic, &vector));
        poll_faults_now();
    }
    assert_false(is_master(VF0));
    assert_true(is_master(VF1));
    assert_true(raise(theirs, &apic, &vector));
    vm_assign_stop(&vms[0]);
    vm_assign_stop(&vms[1]);
}

/* Two VMs, one VF each: the VF that is named is not given to who takes any. */
static void test_two_vms(void **state)
{
    uint64_t at, other;
    add(0, ASSIGN_NET_VF, NET_PF);
    add(1, ASSIGN_NET_VF, NET_PF)->index = 0;
    devices_start_pfs();
    create(0);
    create(1);
    assert_int_equal(device(0, 0)->bdf, VF1);
    assert_int_equal(device(1, 0)->bdf, VF0);
    start(0);
    start(1);
    assert_true(fake_vtd_dma(&vtd, 0, VF1, 0x1000, true, &at));
    assert_true(fake_vtd_dma(&vtd, 0, VF0, 0x1000, true, &other));
    assert_int_not_equal(at, other);
    vm_assign_stop(&vms[0]);
    assert_false(fake_vtd_dma(&vtd, 0, VF1, 0x1000, true, &at));
    assert_true(fake_vtd_dma(&vtd, 0, VF0, 0x1000, true, &other));
    vm_assign_stop(&vms[1]);

    struct lines lines = {.next = devices_vfs_next};
    char line[LINES_MAX];
    unsigned n = 0;
    bool seen = false;
    while (lines.next(&lines, line, sizeof(line)) && n++ < 10)
        seen |= strstr(line, "01:10.0  db") != NULL;
    assert_int_equal(n, 3);
    assert_true(seen);
}

static void test_whole_function(void **state)
{
    uint64_t at;
    struct config_assign *a = add(0, ASSIGN_PCI, 0);
    a->by_id = true;
    a->vendor = 0x8086;
    a->device = 0x10c9;
    a->nth = 1;
    devices_start_pfs();
    create(0);
    start(0);
    assert_int_equal(device(0, 0)->bdf, WHOLE);
    assert_string_equal(device(0, 0)->name, "function 04:00.0");
    assert_int_equal(guest_config(0, GUEST_VF, 0), 0x10c98086);
    assert_true(fake_vtd_dma(&vtd, 0, WHOLE, 0x1000, true, &at));
    vm_assign_stop(&vms[0]);
    /* Twice, under another name. */
    add(1, ASSIGN_PCI, WHOLE);
    refuse(1, "04:00.0 belongs to VM web already");
    config_of(1)->assigned_count = 0;
    add(1, ASSIGN_PCI, PCI_BDF(0, 0x1f, 3));
    refuse(1, "00:1f.3 ");
    assert_non_null(strstr(why, "reset"));
    config_of(1)->assigned_count = 0;
    add(1, ASSIGN_PCI, PLAIN);
    pci_find(&core.pci, PLAIN)->class_code = 0x080020; /* an I/O APIC */
    refuse(1, "02:00.0 is part of the machine, and stays with Bulkhead");
}

static void test_refusals(void **state)
{
    add(0, ASSIGN_NET_VF, PCI_BDF(9, 0, 0));
    add(1, ASSIGN_NET_VF, PLAIN);
    devices_start_pfs();
    refuse(0, "this machine has no PCI function 09:00.0");
    refuse(1, "02:00.0 has no SR-IOV");
    assert_true(fake_host_logged("PF 02:00.0 gives no VFs: 02:00.0 has no SR-IOV"));
    config_of(0)->assigned_count = 0;
    struct config_assign *a = add(0, ASSIGN_PCI, 0);
    a->by_id = true;
    a->vendor = 0x1234;
    a->nth = 3;
    refuse(0, "this machine has no PCI function 1234:0000/3");
    config_of(0)->assigned_count = 0;
    add(0, ASSIGN_PCI, PCI_BDF(0, 2, 0));
    refuse(0, "00:02.0 is a bridge");
    config_of(0)->assigned_count = 0;
    add(0, ASSIGN_PCI, PCI_BDF(0, 0x1f, 2));
    refuse(0, "00:1f.2");
    assert_int_equal(vm_assign_find(NET_PF) == NULL, true);
}

static void test_too_high(void **state)
{
    add(0, ASSIGN_NET_VF, NET_PF)->index = 6;
    pci_find(&core.pci, NET_PF)->sriov.total = 3;
    add(1, ASSIGN_PCI, NET_PF);
    devices_start_pfs();
    refuse(0, "01:00.0 has no VF 6 for it: its VFs are 0 to 2");
    refuse(1, "01:00.0 is Bulkhead's: its VFs are what VMs get");
}

static void test_no_iommu(void **state)
{
    end();
    setup_with(0);
    strcpy(host_devices.iommu_why, "the firmware describes none");
    add(0, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    refuse(0, "devices can only be given to VMs behind an IOMMU: the firmware describes none");
    create(1); /* the other starts */
    assert_null(vms[1].assign);
    assert_true(fake_host_logged("PF 01:00.0 gives no VFs: there is no IOMMU that protects from it"));
}

static void test_no_remapping(void **state)
{
    end();
    setup_with(FAKE_VTD_ECAP & ~BIT(3));
    add(0, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    assert_non_null(core.iommu); /* translation alone is of use: it keeps devices out of memory */
    refuse(0, "the IOMMU does not remap interrupts");
}

static void test_not_isolated(void **state)
{
    add(0, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    struct pci_device *vf = pci_find(&core.pci, VF0);
    uint16_t group = vf->group;
    vf->group = pci_find(&core.pci, PLAIN)->group;
    refuse(0, "is not isolated (needs ACS): it shares a group with 02:00.0");
    vf->group = group;
}

static void test_no_memory(void **state)
{
    add(0, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    vtd.limit = vtd.in_use + 1;
    refuse(0, "its memory cannot be mapped for its devices: out of memory");
    vtd.limit = FAKE_VTD_PAGES;
}

static void test_dead_card(void **state)
{
    igb.dead = true;
    add(0, ASSIGN_NET_VF, NET_PF);
    devices_start_pfs();
    refuse(0, "the card at 01:00.0 does not answer");
    assert_true(fake_host_logged("PF 01:00.0 gives no VFs:"));
    assert_false(is_master(NET_PF));
    struct lines lines = {.next = devices_vfs_next};
    char line[LINES_MAX];
    assert_true(lines.next(&lines, line, sizeof(line)));
    assert_non_null(strstr(line, "PF 01:00.0: no VFs: "));
    assert_false(lines.next(&lines, line, sizeof(line)));
}

/* What the operator sees of it: how often the card is looked at, and what that takes. */
static void test_polling_is_counted(void **state)
{
    struct lines lines = {.next = devices_vfs_next};
    char line[LINES_MAX];
    create_with_vf();
    for (unsigned i = 0; i < 10000; i++) { /* 10 s */
        fake_host.tsc += FAKE_TSC_HZ / 1000;
        fake_host.tsc_step =
            1000; /* each look at the clock takes a microsecond: two for a poll, one or two in it */
        devices_poll_now();
        fake_host.tsc_step = 0;
    }
    assert_true(lines.next(&lines, line, sizeof(line)));
    const char *polled = strstr(line, "polled ");
    assert_non_null(polled);
    unsigned long times, ms, us;
    assert_int_equal(sscanf(polled, "polled %lu times in %lu ms, for %lu us in all", &times, &ms, &us), 3);
    assert_in_range(times, 325, 340); /* a hundred, then 25 a second, some of them a bit early */
    assert_in_range(ms, 10000, 10100);
    assert_in_range(us, times, 4 * times);
}

static void test_nvme(void **state)
{
    struct lines lines = {.next = devices_vfs_next};
    char line[LINES_MAX];
    add(0, ASSIGN_NVME_VF, NVME_PF)->namespace = 2;
    devices_start_pfs();
    create(0);
    for (unsigned life = 0; life < 2; life++) {
        assert_int_equal(nvme.namespaces[1].attached, 0);
        start(0);
        assert_true(fake_host_logged("disk0, VF 03:00.1: given"));
        assert_true(nvme.secondaries[0].online);
        assert_int_equal(nvme.namespaces[1].attached, 1u << nvme.secondaries[0].id);
        lines = (struct lines){.next = devices_vfs_next};
        assert_true(lines.next(&lines, line, sizeof(line)));
        assert_non_null(strstr(line, "PF 03:00.0: NVMe, 1 VF"));
        assert_true(lines.next(&lines, line, sizeof(line)));
        assert_non_null(strstr(line, "03:00.1  web"));
        assert_non_null(strstr(line, "namespace 2"));
        assert_false(lines.next(&lines, line, sizeof(line)));
        vm_assign_stop(&vms[0]);
        assert_false(nvme.secondaries[0].online);
    }
    devices_poll_now(); /* nothing of it is polled */
}

static void test_nvme_refusals(void **state)
{
    add(0, ASSIGN_NVME_VF, NVME_PF)->namespace = 7; /* of two */
    add(1, ASSIGN_NVME_VF, NET_PF)->namespace = 1;
    devices_start_pfs();
    create(0);
    vms[0].zeroed = vms[0].config->memory;
    assert_int_not_equal(vm_assign_start(&vms[0], why, sizeof(why)), STATUS_OK);
    assert_non_null(strstr(why, "disk0, VF 03:00.1: "));
    assert_int_equal(device(0, 0)->assign.state, ASSIGN_HOST);
    refuse(1, "01:00.0 is not an NVMe controller");
    config_of(1)->assigned_count = 0;
    add(1, ASSIGN_NET_VF, NVME_PF);
    refuse(1, "03:00.0 is an NVMe controller here");
    config_of(1)->assigned_count = 0;
    struct config_assign *second = add(1, ASSIGN_NVME_VF, NVME_PF);
    second->index = 0;
    second->trust = config_of(0)->assigned[0].trust = true;
    refuse(1, "VF 0 of 03:00.0 has an owner already");
}

/* A VF that manages namespaces could take the neighbour's: only VMs that trust each other share such a card.
 */
static void test_nvme_shared(void **state)
{
    struct config_assign *first = add(0, ASSIGN_NVME_VF, NVME_PF), *second = add(1, ASSIGN_NVME_VF, NVME_PF);
    first->namespace = 1;
    second->namespace = 2;
    devices_start_pfs();
    create(0);
    for (unsigned trust = 0; trust < 3; trust++) {
        first->trust = trust == 1;
        second->trust = trust == 2;
        refuse(1, "VM web has a VF of 03:00.0, whose VFs can take each other's namespaces");
    }
    first->trust = second->trust = true;
    memset(&vms[1], 0, sizeof(vms[1]));
    create(1);
    start(1);
    assert_true(fake_host_logged("disk0, VF 03:00.2: given"));
}

static void test_nvme_dead(void **state)
{
    struct lines lines = {.next = devices_vfs_next};
    char line[LINES_MAX];
    nvme.gone = true;
    add(0, ASSIGN_NVME_VF, NVME_PF)->namespace = 1;
    devices_start_pfs();
    assert_true(fake_host_logged("PF 03:00.0 gives no VFs: "));
    assert_false(is_master(NVME_PF));
    refuse(0, "no NVMe controller answers");
    assert_true(lines.next(&lines, line, sizeof(line)));
}

/* Registers that share the page of the MSI-X table. */
static void test_beside_the_table(void **state)
{
    static const unsigned sizes[] = {1, 2, 4, 8};
    start_with_vf();
    drive(0, 0, 0x41);
    struct vm_device *d = device(0, 0);
    uint64_t at = d->setup.bars[3].gpa + 0x800;
    uint8_t *real = tables[0].bytes + 0x800;
    assert_int_equal(tables[0].base, d->dev->bars[3].base);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (unsigned offset = 0; offset < 8; offset += sizes[i]) {
            uint64_t value = 0x1122334455667788, seen = 0;
            memset(real, 0xa5, 8);
            struct io_req req = {.addr = at + offset, .size = (uint8_t)sizes[i], .write = true};
            req.value = bits_low_bytes(value, sizes[i]);
            emulate_mmio_access(vms[0].vcpus[0], &req);
            memcpy(&seen, real + offset, sizes[i]);
            assert_int_equal(seen, bits_low_bytes(value, sizes[i]));
            for (unsigned b = 0; b < 8; b++)
                assert_true(real[b] == 0xa5 || (b >= offset && b < offset + sizes[i]));
            req.write = false;
            req.value = 0;
            emulate_mmio_access(vms[0].vcpus[0], &req);
            assert_int_equal(bits_low_bytes(req.value, sizes[i]), bits_low_bytes(value, sizes[i]));
        }
    }
    assert_int_equal(d->env.mmio_read(d, 0, 0, 4), UINT32_MAX); /* not this BAR */
    assert_int_equal(d->env.mmio_read(d, 3, TABLE - 4, 8), UINT64_MAX);
    d->env.mmio_write(d, 0, 0, 4, 0);
    vm_assign_stop(&vms[0]);
}

/* A function that has no MSI-X: its one message lies in configuration space. */
static void test_single_msi(void **state)
{
    uint64_t address;
    uint32_t data, apic;
    uint8_t vector;
    struct pci_device *dev = pci_find(&core.pci, WHOLE);
    dev->msix = 0;
    dev->msix_count = 0;
    struct fake_pci_function *f = fake_pci_find(&pci, WHOLE);
    memset(f->mask + dev->msi + 2, 0xff, 22);
    add(0, ASSIGN_PCI, WHOLE);
    devices_start_pfs();
    create(0);
    start(0);
    enable_apics(0);
    struct vm_device *d = device(0, 0);
    assert_int_equal(d->irq_count, 1);
    guest_config_write(0, GUEST_VF, PCI_REG_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    uint32_t msi = d->setup.msi;
    guest_config_write(0, GUEST_VF, msi + 4, 4, 0xfee01000);
    guest_config_write(0, GUEST_VF, msi + 8, 4, 0);
    guest_config_write(0, GUEST_VF, msi + 12, 2, 0x77);
    guest_config_write(0, GUEST_VF, msi + 2, 2, PCI_MSI_CONTROL_ENABLE);
    address = fake_pci_get(f, msi + 4, 4) | (uint64_t)fake_pci_get(f, msi + 8, 4) << 32;
    data = fake_pci_get(f, msi + 12, 2);
    assert_int_not_equal(data, 0x77);
    assert_true(fake_pci_get(f, msi + 2, 2) & PCI_MSI_CONTROL_ENABLE);
    assert_true(fake_vtd_interrupt(&vtd, 0, WHOLE, address, data, &apic, &vector));
    assert_int_equal(apic, core.cpus[1].apic_id);
    assert_true(msi_fire(&core.cpus[1], vector));
    assert_true(waits(0, 1, 0x77));
    /* A message that is none: it would be a write to somewhere, so it is not sent. */
    static const uint32_t none[][2] = {{0x1000, 0x77}, {0xfee01000, 0x477}, {0xfee01000, 15}, {0, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(none); i++) {
        guest_config_write(0, GUEST_VF, msi + 4, 4, none[i][0]);
        guest_config_write(0, GUEST_VF, msi + 12, 2, none[i][1]);
        assert_false(fake_pci_get(f, msi + 2, 2) & PCI_MSI_CONTROL_ENABLE);
        assert_true(guest_config(0, GUEST_VF, msi) >> 16 & PCI_MSI_CONTROL_ENABLE);
        guest_config_write(0, GUEST_VF, msi + 12, 2, 0x77);
        guest_config_write(0, GUEST_VF, msi + 4, 4, 0xfee01000);
        assert_true(fake_pci_get(f, msi + 2, 2) & PCI_MSI_CONTROL_ENABLE);
    }
    assert_true(fake_host_logged(
        "web: warning: function 04:00.0: interrupt 0 stays off: it wants a message that is none: 1000 77"));
    vm_assign_stop(&vms[0]);
    assert_false(fake_pci_get(f, msi + 2, 2) & PCI_MSI_CONTROL_ENABLE);
    assert_false(fake_vtd_interrupt(&vtd, 0, WHOLE, address, data, &apic, &vector));
}

/* A CPU of the VM resets the device, which takes as long as it takes; another one, which is also the one
 * that looks after the console and everybody's cards, wants something of the VM's devices meanwhile. */
static unsigned polls;

static bool poll_and_let_go(struct pf *pf)
{
    if (++polls == 3)
        spin_unlock(&vms[0].devices);
    return true;
}

static void test_waiting_cpu_polls(void **state)
{
    start_with_vf();
    struct pf_ops ops = *host_devices.pfs[0].pf.ops;
    ops.poll = poll_and_let_go;
    host_devices.pfs[0].pf.ops = &ops;
    core.cpus[0].polls_console = true;
    polls = 0;
    spin_lock(&vms[0].devices); /* the CPU that resets */
    assert_int_equal(guest_config(0, GUEST_VF, PCI_REG_ID), 0x10ca8086);
    assert_int_equal(polls, 3);
    core.cpus[0].polls_console = false;
    vm_assign_stop(&vms[0]);
}

/* On a root bus no bridge says what is a function's own. */
static void test_root_bars(void **state)
{
    add(0, ASSIGN_PCI, WHOLE);
    devices_start_pfs();
    struct pci_device *dev = pci_find(&core.pci, WHOLE), *port = &core.pci.devices[dev->parent];
    uint64_t size = dev->bars[0].size, old = dev->bars[0].base;
    assert_int_equal(port->secondary, 4);
    dev->parent = PCI_NO_PARENT;
    dev->has_flr = true;
    refuse(0, "claims addresses that are not its own"); /* in the window of what is a port beside it now */
    for (unsigned b = 0; b < PCI_BARS; b++)
        if (dev->bars[b].base)
            dev->bars[b].base += 0x7000000000;
    assert_false(devices_is_taken(dev->bars[0].base, size));
    info.region_count = 2;
    info.regions[1] =
        (struct boot_region){old + 0x7000000000 + size - PAGE_SIZE, PAGE_SIZE, BOOT_REGION_RESERVED, 0};
    refuse(0, "BAR 0 of 04:00.0 claims addresses that are not its own");
    info.region_count = 1;
    create_anew(0);
}

static void test_bad_bars(void **state)
{
    add(0, ASSIGN_PCI, WHOLE);
    devices_start_pfs();
    struct pci_bar *bars = pci_find(&core.pci, WHOLE)->bars, old = bars[0];
    bars[0].base = 0;
    refuse(0, "the firmware has not placed BAR 0 of 04:00.0");
    bars[0] = old;
    bars[0].size = 256;
    bars[0].base += 256;
    refuse(0, "BAR 0 of 04:00.0 does not have its pages for itself");
    bars[0].base = pci_find(&core.pci, PLAIN)->bars[0].base;
    refuse(0, "BAR 0 of 04:00.0 does not have its pages for itself");
    bars[0] = old;
    bars[0].size = 1ull << 50; /* other devices' registers are in there, too */
    refuse(0, "BAR 0 of 04:00.0 does not have its pages for itself");
    bars[0] = old;
    bars[0].base = FREE_BASE + MIB;
    refuse(0, "BAR 0 of 04:00.0 claims addresses that are not its own");
    bars[0].base = 0xfee00000;
    refuse(0, "BAR 0 of 04:00.0 claims addresses that are not its own: fee00000-fee");
    bars[0].base = 0x7000000000; /* not behind its port */
    refuse(0, "BAR 0 of 04:00.0 claims addresses that are not its own");
    struct pci_window *windows = core.pci.devices[pci_find(&core.pci, WHOLE)->parent].windows,
                      window = windows[2];
    windows[2] = (struct pci_window){0, UINT64_MAX}; /* the bridge would let anything pass, */
    bars[0].base = 0xff000000;                       /* but there is the firmware's flash, */
    refuse(0, "BAR 0 of 04:00.0 claims addresses that are not its own");
    core.mcfg.count = 1; /* and ECAM is the chipset's */
    core.mcfg.ecams[0] = (struct acpi_ecam){.base = hpa(0x7000000000), .first_bus = 2, .last_bus = 3};
    bars[0].base = 0x7000200000 - bars[0].size;
    assert_false(devices_is_machine(bars[0].base, bars[0].size));
    bars[0].base += bars[0].size;
    refuse(0, "claims addresses that are not its own: 7000200000-7000");
    bars[0].base = 0x7000400000 - bars[0].size;
    refuse(0, "claims addresses that are not its own");
    bars[0].base += bars[0].size;
    assert_false(devices_is_machine(bars[0].base, bars[0].size));
    core.iommu->units[0]->base = hpa(bars[0].base + PAGE_SIZE); /* not all are where QEMU's is */
    refuse(0, "claims addresses that are not its own");
    core.iommu->units[0]->base = hpa(FAKE_VTD_BASE);
    core.mcfg.count = 0;
    windows[2] = window;
    bars[0] = old;
    pci_find(&core.pci, WHOLE)->msix_offset = 0x3ff8;
    refuse(0, "04:00.0 contradicts itself");
    pci_find(&core.pci, WHOLE)->msix_offset = 0;
    no_room = true;
    refuse(0, "no room to map the MSI-X table");
}

/* Behind a bridge to conventional PCI all requests have the bridge's id. */
static void test_conventional(void **state)
{
    add(0, ASSIGN_PCI, WHOLE);
    devices_start_pfs();
    struct pci_device *port = &core.pci.devices[pci_find(&core.pci, WHOLE)->parent];
    port->exp_type = PCI_EXP_TO_PCI; /* it has a reset of its own */
    refuse(0, "04:00.0 is behind a bridge to conventional PCI");
    port->exp_type = PCI_EXP_ROOT_PORT;
    port->pcie = 0;
    refuse(0, "04:00.0 is behind a bridge to conventional PCI");
}

static void test_vectors_used_up(void **state)
{
    struct msi_irq other = {.vm = &vms[0]};
    uint32_t apic;
    uint8_t vector;
    start_with_vf();
    enable_apics(0);
    for (unsigned i = 0; i < MSI_VECTORS; i++)
        assert_int_equal(msi_take_vector(&other, &core.cpus[0], &vector), STATUS_OK);
    drive(0, 0, 0x41);
    assert_true(fake_host_logged("interrupt 0 has no way to CPU 0"));
    assert_false(raise(device(0, 0), &apic, &vector));
    drive(0, 1, 0x41);
    assert_true(raise(device(0, 0), &apic, &vector));
    device(0, 0)->env.irq_set(device(0, 0), 3, 0xfee00000, 0x41, false); /* there are three */
    vm_assign_stop(&vms[0]);
}

/* The IOMMU stops to answer while a device is taken back: it is never given away again. */
static void test_iommu_hangs(void **state)
{
    start_with_vf();
    drive(0, 0, 0x41);
    vtd.units[0].hangs = true;
    vm_assign_stop(&vms[0]);
    assert_int_equal(device(0, 0)->assign.state, ASSIGN_QUARANTINED);
    assert_false(is_master(VF0));
    assert_true(fake_host_logged("interrupt 0 cannot be masked"));
    assert_true(fake_host_logged("the IOMMU has not said that it forgot it"));
}

static void expect_no_vfs(unsigned vm, const char *text)
{
    devices_start_pfs();
    assert_true(fake_host_logged(text));
    refuse(vm, text);
}

static void test_no_ecam(void **state)
{
    add(0, ASSIGN_NET_VF, NET_PF);
    core.has_ecam = false;
    expect_no_vfs(0, "no extended configuration space");
}

static void test_unmappable(void **state)
{
    add(0, ASSIGN_NET_VF, NET_PF);
    no_room = true;
    expect_no_vfs(0, "the registers of 01:00.0 cannot be mapped");
}

static void test_foreign_card(void **state)
{
    struct pci_bar *bar = &pci_find(&core.pci, NVME_PF)->bars[0];
    assert_true(bar->size >= PAGE_SIZE);
    add(0, ASSIGN_NET_VF, NVME_PF);
    expect_no_vfs(0, "03:00.0 (1b36:0010) is not a card that Bulkhead can drive");
}

/* Each time fewer pages are left: whatever could not be had, it is said, and nothing hangs half-way. */
static void test_memory_runs_out(void **state)
{
    static void *held[POOL_PAGES];
    static uint32_t n; /* outlives a panic */
    add(0, ASSIGN_NVME_VF, NVME_PF)->namespace = 1;
    add(1, ASSIGN_NET_VF, NET_PF);
    for (uint32_t left = 1; left < 12; left++) {
        n = 0;
        teardown(NULL);
        memset(&info.config, 0, sizeof(info.config));
        setup_with(FAKE_VTD_ECAP);
        add(0, ASSIGN_NVME_VF, NVME_PF)->namespace = 1;
        add(1, ASSIGN_NET_VF, NET_PF);
        while (pool_pages_free(&core.pool) > left)
            held[n++] = pool_alloc(&core.pool);
        if (fake_host_catch(devices_start_pfs()) == FAKE_END_PANIC)
            continue; /* not even the list of PFs */
        for (uint32_t i = 0; i < host_devices.pf_count; i++) {
            const struct devices_pf *p = &host_devices.pfs[i];
            assert_true(p->vfs == 1 || strlen(p->why) > 10);
            assert_int_equal(is_master(p->bdf), p->vfs == 1);
        }
        while (n)
            (void)pool_free(&core.pool, held[--n]);
    }
    assert_int_equal(host_devices.pfs[0].vfs, 1);
}

/* ---- a guest that does anything ---- */

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % n;
}

static void random_config_write(const struct vm_device *d)
{
    static const unsigned sizes[] = {1, 2, 4};
    const uint32_t places[] = {PCI_REG_COMMAND, PCI_REG_BAR0 + 4 * random_below(PCI_BARS),
                               d->setup.msix + random_below(12), d->setup.pcie + random_below(32),
                               random_below(PCI_CONFIG_SIZE)};
    const uint32_t values[] = {0,
                               ~0u,
                               PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
                               PCI_MSIX_CONTROL_ENABLE,
                               (uint32_t)d->setup.bars[3 * random_below(2)].gpa + 0x1000 * random_below(8),
                               0x1000 * random_below(0x2000),
                               random_below(UINT32_MAX)};
    unsigned size = sizes[random_below(3)];
    guest_config_write(0, GUEST_VF, places[random_below(ARRAY_SIZE(places))] & ~(size - 1), size,
                       values[random_below(ARRAY_SIZE(values))]);
}

static void random_register_write(const struct vm_device *d)
{
    static const unsigned sizes[] = {1, 2, 4, 8};
    const uint64_t values[] = {0, 1, 0xfee00000u | random_below(1u << 20), random_below(UINT32_MAX)};
    unsigned size = sizes[random_below(4)];
    uint64_t at = d->setup.bars[3].gpa + (random_below(2) ? random_below(64) : random_below(0x4000));
    struct io_req req = {.addr = at & ~(uint64_t)(size - 1), .size = (uint8_t)size, .write = random_below(8)};
    req.value = bits_low_bytes(values[random_below(4)], size);
    emulate_mmio_access(vms[0].vcpus[random_below(2)], &req);
}

/* Nothing but the VM's own is where the guest, or its device, can get at it. */
static void check_walls(const struct vm_device *d)
{
    hpa_t ha;
    uint64_t page, at, other = 0x800000ull * random_below(512);
    unsigned flags;
    uint32_t apic = 0;
    uint8_t vector = 0;
    enum ept_memory_type type;
    for (unsigned i = 0; i < d->irq_count; i++) {
        uint64_t address;
        uint32_t data;
        memcpy(&address, tables[0].bytes + 16 * i, 8);
        memcpy(&data, tables[0].bytes + 16 * i + 8, 4);
        if (address == 0)
            continue; /* it never was unmasked */
        uint64_t ours;
        uint32_t our_data;
        iommu_irq_message(core.iommu, d->handles[0] + i, &ours, &our_data);
        assert_int_equal(address, ours);
        assert_int_equal(data, our_data);
        if (fake_vtd_interrupt(&vtd, 0, VF0, address, data, &apic, &vector)) {
            assert_true(apic == core.cpus[0].apic_id || apic == core.cpus[1].apic_id);
            assert_in_range(vector, MSI_FIRST_VECTOR, MSI_LAST_VECTOR);
            assert_true(msi_fire(&core.cpus[apic / 2], vector));
        }
    }
    assert_in_range(vectors_in_use(), 0, d->irq_count);
    if (fake_vtd_dma(&vtd, 0, VF0, other, true, &at)) {
        assert_int_equal(ept_lookup(&vms[0].ept, gpa(other), &ha, &page, &flags, &type), STATUS_OK);
        assert_int_equal(ha.v, at);
        assert_int_equal(type, EPT_WB);
    }
    for (uint64_t g = GUEST_PCI_HOLE; g < GUEST_PCI_HOLE + 0x20000; g += PAGE_SIZE) {
        if (ept_lookup(&vms[0].ept, gpa(g), &ha, &page, &flags, &type) != STATUS_OK)
            continue;
        const struct pci_bar *b = d->dev->bars;
        assert_true(ha.v - b[0].base < b[0].size ||
                    (ha.v - b[3].base < b[3].size && ha.v >= b[3].base + TABLE));
        assert_int_equal(flags, EPT_READ | EPT_WRITE);
        assert_int_equal(type, EPT_UC);
    }
}

static void test_hostile_guest(void **state)
{
    create_with_vf();
    struct vm_device *d = device(0, 0);
    fake_host.tsc_step = 20000;
    random_state = 1;
    for (unsigned life = 0; life < 10; life++) {
        start(0);
        enable_apics(0);
        drive(0, random_below(2), 0x41);
        for (unsigned i = 0; i < 2000; i++) {
            if (random_below(2))
                random_config_write(d);
            else
                random_register_write(d);
            if (i % 64 == 0)
                check_walls(d);
        }
        assert_true(d->assign.state == ASSIGN_OWNED || d->assign.state == ASSIGN_RESETTING);
        vm_assign_stop(&vms[0]);
        check_walls(d);
        assert_false(is_master(VF0));
        assert_int_equal(vectors_in_use(), 0);
    }
    assert_in_range(vms[0].ept.table_pages, 1, 12); /* however it moves its BARs */
}

/* ---- the fence ---- */

static uint8_t dmar_bytes[64];

static enum status read_dmar(void *ctx, hpa_t addr, void *buf, size_t size)
{
    if (addr.v < 0x1000 || addr.v - 0x1000 + size > sizeof(dmar_bytes))
        return ERR_RANGE;
    memcpy(buf, dmar_bytes + (addr.v - 0x1000), size);
    return STATUS_OK;
}

static void test_fence(void **state)
{
    struct acpi_tables t = {.reader = {.read = read_dmar}, .count = 1};
    uint64_t base = FAKE_VTD_BASE, pages;
    core.iommu = NULL;
    devices_fence(NULL);
    assert_null(core.iommu);
    assert_non_null(strstr(host_devices.iommu_why, "the firmware describes none"));
    memcpy(dmar_bytes, "DMAR", 4);
    dmar_bytes[4] = sizeof(dmar_bytes);
    dmar_bytes[36] = 47; /* address width */
    dmar_bytes[37] = 1;  /* INTR_REMAP */
    dmar_bytes[48 + 2] = 3;
    t.tables[0] = (struct acpi_table){{'D', 'M', 'A', 'R'}, hpa(0x1000), sizeof(dmar_bytes)};
    pages = pool_pages_free(&core.pool);
    devices_fence(&t);
    assert_null(core.iommu);
    assert_true(fake_host_logged("the firmware's DMAR table is not usable"));
    assert_int_equal(pool_pages_free(&core.pool), pages);
    dmar_bytes[48 + 2] = 16; /* a DRHD with everything */
    dmar_bytes[48 + 4] = 1;
    memcpy(dmar_bytes + 48 + 8, &base, 8);
    no_room = true; /* the model has no tables in the pool */
    devices_fence(&t);
    const struct iommu_env *env = &host_devices.iommu_env;
    assert_true(env->x2apic && env->pages == &core.pt_env);
    assert_true(env->is_guest_memory(env->ctx, FREE_BASE + 0x1000, 4096));
    assert_false(env->is_guest_memory(env->ctx, FREE_BASE + FREE_SIZE, 4096));
    assert_null(core.iommu);
    assert_true(strlen(host_devices.iommu_why) > 10);
}

static void test_nothing_assigned(void **state)
{
    struct lines lines = {.next = devices_vfs_next};
    char line[LINES_MAX];
    unsigned writes = pci.writes;
    devices_start_pfs();
    create(0);
    assert_null(vms[0].assign);
    start(0);
    vm_assign_stop(&vms[0]);
    assert_int_equal(pci.writes, writes);
    assert_true(lines.next(&lines, line, sizeof(line)));
    assert_string_equal(line, "no VF is given to any VM");
    assert_false(lines.next(&lines, line, sizeof(line)));
    for (unsigned i = 0; i < CPUS; i++)
        assert_null(core.cpus[i].msi);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life),
        TEST(test_registers),
        TEST(test_bars_over_devices),
        TEST(test_affinity),
        TEST(test_guest_reset),
        TEST(test_two_resets),
        TEST(test_stop_in_reset),
        TEST(test_dead_after_reset),
        TEST(test_faults),
        TEST(test_forged_ids),
        TEST(test_forged_among_several),
        TEST(test_forged_messages),
        TEST(test_two_vms),
        TEST(test_whole_function),
        TEST(test_refusals),
        TEST(test_too_high),
        TEST(test_no_iommu),
        TEST(test_no_remapping),
        TEST(test_not_isolated),
        TEST(test_no_memory),
        TEST(test_dead_card),
        TEST(test_nothing_assigned),
        TEST(test_polling_is_counted),
        TEST(test_nvme),
        TEST(test_nvme_refusals),
        TEST(test_nvme_dead),
        TEST(test_nvme_shared),
        TEST(test_beside_the_table),
        TEST(test_single_msi),
        TEST(test_waiting_cpu_polls),
        TEST(test_bad_bars),
        TEST(test_root_bars),
        TEST(test_conventional),
        TEST(test_vectors_used_up),
        TEST(test_iommu_hangs),
        TEST(test_fence),
        TEST(test_hostile_guest),
        TEST(test_no_ecam),
        TEST(test_unmappable),
        TEST(test_foreign_card),
        TEST(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
