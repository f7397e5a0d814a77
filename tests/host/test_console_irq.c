/* The serial port's interrupt on its way to the boot CPU: with and without an IOMMU, and each reason for
 * which the port stays polled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/irqchip/irqchip.h"
#include "hv/assign/devices.h"
#include "hv/console/console.h"
#include "hv/console/console_irq.h"
#include "hv/core.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_vtd.h"

#define TABLE   0x7fe0000u
#define BOOT_ID 2u /* of the boot CPU's local APIC */

static struct fake_vtd vtd;
static struct acpi_dmar dmar;
static struct acpi_tables tables;
static uint8_t madt[44 + 12 + 8];
static uint8_t pool_memory[64 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static uint32_t selected, inputs[2 * 24], version;
static bool maps;
static enum console_listen listens;

static enum status read_table(void *ctx, hpa_t addr, void *buf, size_t size)
{
    (void)ctx;
    assert_true(addr.v >= TABLE && addr.v - TABLE + size <= sizeof(madt));
    memcpy(buf, madt + (addr.v - TABLE), size);
    return STATUS_OK;
}

static uint32_t chip_read(void *ctx, uint64_t offset)
{
    (void)ctx;
    (void)offset;
    return selected == 1 ? version : inputs[selected - 0x10];
}

static void chip_write(void *ctx, uint64_t offset, uint32_t value)
{
    (void)ctx;
    if (offset == 0)
        selected = value;
    else
        inputs[selected - 0x10] = value;
}

static bool map(void *ctx, hpa_t base, uint64_t size, struct mmio *out)
{
    (void)ctx;
    assert_int_equal(base.v, 0xfec00000);
    assert_true(size >= 0x14);
    *out = (struct mmio){.size = size, .read32 = chip_read, .write32 = chip_write};
    return maps;
}

static unsigned port_room(void)
{
    return 16;
}
static void port_tx(uint8_t byte)
{
    (void)byte;
}
static bool port_idle(void)
{
    return true;
}
static int port_rx(void)
{
    return -1;
}
static void port_listen(enum console_listen what)
{
    listens = what;
}
static const struct console_port port = {port_room, port_tx, port_idle, port_rx, port_listen};

static void put(unsigned at, uint32_t value)
{
    memcpy(madt + at, &value, 4);
}

static int setup(void **state)
{
    (void)state;
    fake_host_init();
    console_init(&port);
    memset(inputs, 0, sizeof(inputs));
    memset(&host_devices, 0, sizeof(host_devices));
    memset(madt, 0, sizeof(madt));
    assert_int_equal(pool_init(&core.pool, pool_memory, hpa(0), sizeof(pool_memory), 0), STATUS_OK);
    put(44, 1 | 12 << 8 | 8 << 16); /* IOAPIC 8 */
    put(48, 0xfec00000);
    madt[56] = 0x7f; /* something unknown */
    madt[57] = 8;
    tables = (struct acpi_tables){
        .reader.read = read_table, .count = 1, .tables = {{"APIC", hpa(TABLE), sizeof(madt)}}};
    core.cpus[0].apic_id = BOOT_ID;
    host_devices.iommu_env.map = map;
    maps = true;
    version = 23 << 16 | 0x20;
    listens = CONSOLE_LISTEN_NONE;
    return 0;
}

static void with_iommu(bool names_ioapic)
{
    static const uint8_t path[] = {0, 0};
    char why[200];
    fake_vtd_init(&vtd, 1, FAKE_VTD_CAP, FAKE_VTD_ECAP);
    fake_vtd_dmar(&vtd, &dmar);
    dmar.units[0].scopes.first =
        fake_vtd_scope(&dmar, names_ioapic ? ACPI_DMAR_IOAPIC : ACPI_DMAR_HPET, 0xff, 1, path);
    dmar.units[0].scopes.count = 1;
    dmar.scopes[0].enumeration = 8;
    assert_int_equal(iommu_init(&host_devices.iommu, &dmar, &vtd.config, &vtd.env, why, sizeof(why)),
                     STATUS_OK);
    core.iommu = &host_devices.iommu;
}

static void assert_polled(const char *why)
{
    uint64_t before = pool_pages_free(&core.pool);
    console_irq_start(&tables);
    assert_int_equal(listens, CONSOLE_LISTEN_NONE);
    assert_true(fake_host_logged("the serial port is polled 1000 times a second"));
    assert_true(fake_host_logged(why));
    assert_int_equal(pool_pages_free(&core.pool), before);
}

static void test_plain(void **state)
{
    (void)state;
    uint64_t before = pool_pages_free(&core.pool);
    console_irq_start(&tables);
    assert_int_equal(listens, CONSOLE_LISTEN_ROOM);
    assert_int_equal(inputs[8], HOST_VECTOR_CONSOLE);
    assert_int_equal(inputs[9], BOOT_ID << 24);
    assert_int_equal(pool_pages_free(&core.pool), before);
}

/* The message goes through the IOMMU, in the IOAPIC's name and in no other one. */
static void test_remapped(void **state)
{
    uint32_t to = 0;
    uint8_t vector = 0;
    (void)state;
    with_iommu(true);
    console_irq_start(&tables);
    assert_int_equal(listens, CONSOLE_LISTEN_ROOM);
    assert_int_equal(inputs[8], HOST_VECTOR_CONSOLE);
    assert_true(inputs[9] & 1u << 16);
    uint64_t address = 0xfee00000u | (inputs[9] >> 17) << 5 | 1u << 4;
    assert_true(fake_vtd_interrupt(&vtd, 0, PCI_BDF(0xff, 0, 0), address, 0, &to, &vector));
    assert_int_equal(vector, HOST_VECTOR_CONSOLE);
    assert_false(fake_vtd_interrupt(&vtd, 0, PCI_BDF(1, 0, 0), address, 0, &to, &vector));
    assert_null(vtd.breach);
    fake_vtd_free(&vtd);
}

static void test_polled(void **state)
{
    (void)state;
    console_irq_start(NULL);
    assert_true(fake_host_logged("no ACPI tables"));
    core.cpus[0].apic_id = 300;
    assert_polled("cannot name the boot CPU");
    core.cpus[0].apic_id = BOOT_ID;
    maps = false;
    assert_polled("cannot be mapped");
    maps = true;
    version = UINT32_MAX;
    assert_polled("does not answer");
    madt[44] = 0x7f;
    assert_polled("no IOAPIC has interrupt 4");
    tables.count = 0;
    assert_polled("table of interrupt controllers");
}

static void test_polled_without_a_page(void **state)
{
    (void)state;
    while (pool_alloc_pages(&core.pool, 1))
        ;
    assert_polled("memory is used up");
}

static void test_polled_behind_an_iommu(void **state)
{
    uint32_t handle;
    (void)state;
    with_iommu(false);
    assert_polled("does not name its IOAPIC");
    fake_vtd_free(&vtd);
    with_iommu(true);
    while (iommu_irq_alloc(core.iommu, PCI_BDF(1, 0, 0), PCI_BDF(1, 0, 0), 1, &handle) == STATUS_OK)
        ;
    assert_polled("no entry for it");
    fake_vtd_free(&vtd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_plain, setup),
        cmocka_unit_test_setup(test_remapped, setup),
        cmocka_unit_test_setup(test_polled, setup),
        cmocka_unit_test_setup(test_polled_without_a_page, setup),
        cmocka_unit_test_setup(test_polled_behind_an_iommu, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
