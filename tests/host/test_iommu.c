/* The IOMMU against a model of VT-d (fake_vtd.h) that keeps everything it has cached until it is told to
 * forget it: a flush that is missing, or in the wrong order, shows as a translation that should not be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/iommu/vtd.h"
#include "tests/host/fake_vtd.h"

#define NIC   PCI_BDF(1, 0, 0)
#define VF    PCI_BDF(1, 16, 0)
#define OTHER PCI_BDF(2, 0, 0)
#define DISK  PCI_BDF(0, 0x1f, 2)
#define USB   PCI_BDF(0, 0x14, 0)
#define PORT  PCI_BDF(0, 2, 0)

#define GIB SIZE_1G
#define MIB ((uint64_t)1 << 20)
#define RW  (IOMMU_READ | IOMMU_WRITE)

static struct fake_vtd f;
static struct acpi_dmar dmar;
static struct iommu iommu;
static char why[200];

static void machine(uint32_t units, uint64_t cap, uint64_t ecap)
{
    fake_vtd_init(&f, units, cap, ecap);
    fake_vtd_add_bridge(&f, PORT, 1, 1);
    fake_vtd_add_device(&f, NIC, 0x020000);
    fake_vtd_add_device(&f, OTHER, 0x010802);
    fake_vtd_add_device(&f, DISK, 0x010601);
    fake_vtd_add_device(&f, USB, 0x0c0330);
    fake_vtd_dmar(&f, &dmar);
}

static enum status init(void)
{
    why[0] = 0;
    return iommu_init(&iommu, &dmar, &f.config, &f.env, why, sizeof(why));
}

static void started(uint32_t units, uint64_t cap, uint64_t ecap)
{
    machine(units, cap, ecap);
    assert_int_equal(init(), STATUS_OK);
    assert_true(iommu_present(&iommu));
    assert_null(f.breach);
}

static int teardown(void **state)
{
    (void)state;
    const char *breach = f.breach;
    if (f.cpu)
        fake_vtd_free(&f);
    if (breach)
        print_message("breach: %s\n", breach);
    return breach ? -1 : 0;
}

static bool reads(unsigned unit, uint16_t bdf, uint64_t iova, uint64_t want)
{
    uint64_t at;
    return fake_vtd_dma(&f, unit, bdf, iova, false, &at) && at == want;
}

static bool blocked(unsigned unit, uint16_t bdf, uint64_t iova)
{
    uint64_t at;
    return !fake_vtd_dma(&f, unit, bdf, iova, false, &at) && !fake_vtd_dma(&f, unit, bdf, iova, true, &at);
}

static void create(struct iommu_domain *d)
{
    assert_int_equal(iommu_domain_create(&iommu, d, why, sizeof(why)), STATUS_OK);
}

static void test_smoke(void **state)
{
    (void)state;
    struct iommu_domain d;
    started(1, FAKE_VTD_CAP, FAKE_VTD_ECAP);
    assert_true(blocked(0, VF, 0x1000));
    create(&d);
    assert_int_equal(iommu_map(&d, 0, hpa(4 * GIB), GIB, RW), STATUS_OK);
    assert_true(blocked(0, VF, 0x1000));
    assert_int_equal(iommu_attach(&iommu, VF, NIC, &d), STATUS_OK);
    assert_true(reads(0, VF, 0x1234, 4 * GIB + 0x1234));
    assert_true(blocked(0, NIC, 0x1000));
    assert_int_equal(iommu_detach(&iommu, VF, NIC, &d), STATUS_OK);
    assert_true(blocked(0, VF, 0x1234));
    assert_int_equal(iommu_domain_destroy(&d), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_smoke, teardown),
    };
    return cmocka_run_group_tests_name("iommu", tests, NULL, NULL);
}
