/* The i440FX's attribute map (82441FX data sheet, "PAM - Programmable Attribute Map Registers") and what a
 * firmware reads to know the chipset. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/acpi_pm.h"
#include "drivers/vdev/i440fx.h"
#include "hv/lib/bits.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct pci_host host;
static struct i440fx chipset;
static uint8_t now[I440FX_SEGMENTS];
static unsigned changes;

static void changed(void *ctx, unsigned segment, uint8_t attributes)
{
    assert_ptr_equal(ctx, &changes);
    assert_true(segment < I440FX_SEGMENTS);
    assert_int_not_equal(now[segment], attributes);
    now[segment] = attributes;
    changes++;
}

static int setup(void **state)
{
    fake_vdev_env_init(&fake);
    memset(&host, 0, sizeof(host));
    memset(now, 0, sizeof(now));
    changes = 0;
    pci_host_setup(&host, 0xe0000000);
    i440fx_setup(&chipset, &host, changed, &changes);
    fake_attach(&fake, &host.ports, &pci_host_port_ops);
    assert_int_equal(changes, 0);
    return 0;
}

static uint64_t in(unsigned reg, unsigned size)
{
    fake_write(&host.ports, 0xcf8, 4, 0x80000000u | (reg & 0xfc));
    return fake_read(&host.ports, 0xcfc + (reg & 3), size);
}

static void out(unsigned reg, unsigned size, uint64_t value)
{
    fake_write(&host.ports, 0xcf8, 4, 0x80000000u | (reg & 0xfc));
    fake_write(&host.ports, 0xcfc + (reg & 3), size, value);
}

static void test_identity(void **state)
{
    assert_int_equal(in(0x00, 4), 0x12378086);
    assert_int_equal(in(0x08, 4), 0x06000002);
    assert_int_equal(in(0x2c, 4), 0x11001af4); /* QEMU's */
}

/* The power management function: what a firmware finds the PM timer by, and that nothing moves it. */
static void test_pm(void **state)
{
    static const struct {
        uint8_t reg;
        uint32_t value;
    } rows[] = {
        {0x00, 0x71138086}, /* 82371AB, function 3 */
        {0x04, 0x02800001},
        {0x08, 0x06800003},
        {0x0c, 0}, /* another function's place for "multi-function": function 0 says it */
        {0x2c, 0x11001af4},
        {0x3c, 0x0109},
        {0x40, ACPI_PM_BASE | 1}, /* PMBA */
        {0x58, 0x02000000},       /* DEVACTB: APMC_EN */
        {0x80, 1},                /* PMREGMISC: PMIOSE */
        {0x90, 0},                /* SMBBA: no SMBus */
    };
    struct pci_func *pm = &chipset.pm;
    assert_int_equal(pm->bdf, PCI_BDF(0, 1, 3));
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        fake_write(&host.ports, 0xcf8, 4, 0x80000b00u | rows[i].reg);
        assert_int_equal(fake_read(&host.ports, 0xcfc, 4), rows[i].value);
        fake_write(&host.ports, 0xcfc, 4, ~rows[i].value);
        assert_int_equal(fake_read(&host.ports, 0xcfc, 4), rows[i].value);
    }
    assert_int_equal(pm->read(pm, 0xfc), 0);
    assert_int_equal(pm->read(pm, 0x100), 0xffffffff); /* by ECAM: it has 256 bytes */
}

static void test_segments(void **state)
{
    static const struct {
        uint32_t base, size;
        uint8_t reg, shift;
    } rows[] = {
        {0xc0000, 0x4000, 0x5a, 0},  {0xc4000, 0x4000, 0x5a, 4}, {0xc8000, 0x4000, 0x5b, 0},
        {0xcc000, 0x4000, 0x5b, 4},  {0xd0000, 0x4000, 0x5c, 0}, {0xd4000, 0x4000, 0x5c, 4},
        {0xd8000, 0x4000, 0x5d, 0},  {0xdc000, 0x4000, 0x5d, 4}, {0xe0000, 0x4000, 0x5e, 0},
        {0xe4000, 0x4000, 0x5e, 4},  {0xe8000, 0x4000, 0x5f, 0}, {0xec000, 0x4000, 0x5f, 4},
        {0xf0000, 0x10000, 0x59, 4},
    };
    STATIC_ASSERT(ARRAY_SIZE(rows) == I440FX_SEGMENTS, "each");
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(i440fx_segment_base(i), rows[i].base);
        assert_int_equal(i440fx_segment_size(i), rows[i].size);
        assert_int_equal(i440fx_segment_of(rows[i].base), i);
        assert_int_equal(i440fx_segment_of(rows[i].base + rows[i].size - 1), i);
        for (uint8_t attributes = 3; attributes < 4; attributes--) {
            unsigned before = changes;
            out(rows[i].reg, 1, (uint64_t)attributes << rows[i].shift);
            assert_int_equal(changes, before + 1);
            assert_int_equal(now[i], attributes);
            assert_int_equal(chipset.attributes[i], attributes);
            assert_int_equal(in(rows[i].reg, 1), attributes << rows[i].shift);
            out(rows[i].reg, 1, (uint64_t)attributes << rows[i].shift); /* again: nothing to tell */
            assert_int_equal(changes, before + 1);
        }
    }
}

static void test_registers(void **state)
{
    out(0x58, 4, 0xffffffff);
    out(0x5c, 4, 0xffffffff);
    assert_int_equal(in(0x58, 4), 0x33333000); /* reserved bits stay 0, 0x58 is another register */
    assert_int_equal(in(0x5c, 4), 0x33333333);
    for (unsigned i = 0; i < I440FX_SEGMENTS; i++)
        assert_int_equal(now[i], 3);
    assert_int_equal(changes, I440FX_SEGMENTS);
    for (unsigned reg = 0; reg < 256; reg += 4) {
        uint64_t before = in(reg, 4);
        if (reg == 0x58 || reg == 0x5c)
            continue;
        out(reg, 4, ~before);
        assert_int_equal(in(reg, 4), before);
    }
    pci_host_port_ops.reset(&host.ports);
    assert_int_equal(in(0x58, 4), 0);
    for (unsigned i = 0; i < I440FX_SEGMENTS; i++)
        assert_int_equal(now[i], 0);
    assert_int_equal(changes, 2 * I440FX_SEGMENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_identity, setup),
        cmocka_unit_test_setup(test_pm, setup),
        cmocka_unit_test_setup(test_segments, setup),
        cmocka_unit_test_setup(test_registers, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
