/* The machine's IOAPICs: which input an ISA interrupt has, what is written, and in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/irqchip/irqchip.h"

#define PINS   24u
#define MASKED 0x10000u
#define SMI    0x200u

/* An IOAPIC that notes how often an input was open with half a message. */
static struct {
    uint32_t select, version, low[PINS], high[PINS];
    unsigned half;
} chip;

static uint32_t chip_read(void *ctx, uint64_t offset)
{
    (void)ctx;
    assert_int_equal(offset, 0x10);
    if (chip.select == 1)
        return chip.version;
    uint32_t pin = (chip.select - 0x10) / 2;
    assert_true(chip.select >= 0x10 && pin < PINS);
    return chip.select & 1 ? chip.high[pin] : chip.low[pin];
}

static void chip_write(void *ctx, uint64_t offset, uint32_t value)
{
    (void)ctx;
    if (offset == 0) {
        chip.select = value;
        return;
    }
    assert_int_equal(offset, 0x10);
    uint32_t pin = (chip.select - 0x10) / 2;
    assert_true(chip.select >= 0x10 && pin < PINS);
    if (chip.select & 1) {
        chip.half += !(chip.low[pin] & MASKED);
        chip.high[pin] = value;
    } else {
        chip.low[pin] = value;
    }
}

static const struct mmio registers = {.size = IRQCHIP_SIZE, .read32 = chip_read, .write32 = chip_write};
static struct acpi_madt madt;

static int setup(void **state)
{
    (void)state;
    memset(&chip, 0, sizeof(chip));
    memset(&madt, 0, sizeof(madt));
    chip.version = (PINS - 1) << 16 | 0x20;
    madt.ioapic_count = 2;
    madt.ioapics[0] = (struct acpi_ioapic){.addr = hpa(0xfec00000), .gsi_base = 0, .id = 8};
    madt.ioapics[1] = (struct acpi_ioapic){.addr = hpa(0xfec01000), .gsi_base = 24, .id = 9};
    return 0;
}

static void test_find(void **state)
{
    struct irqchip_input in;
    (void)state;
    assert_int_equal(irqchip_find(&madt, 4, &in), STATUS_OK);
    assert_int_equal(in.chip.v, 0xfec00000);
    assert_int_equal(in.id, 8);
    assert_int_equal(in.pin, 4);
    assert_false(in.low);
    madt.override_count = 2;
    madt.overrides[0] = (struct acpi_override){.irq = 0, .gsi = 2};
    madt.overrides[1] = (struct acpi_override){.irq = 4, .gsi = 30, .flags = 0x7}; /* low, edge */
    assert_int_equal(irqchip_find(&madt, 4, &in), STATUS_OK);
    assert_int_equal(in.chip.v, 0xfec01000);
    assert_int_equal(in.id, 9);
    assert_int_equal(in.pin, 6);
    assert_true(in.low);
    madt.overrides[1].flags = 0xd; /* level */
    assert_int_equal(irqchip_find(&madt, 4, &in), ERR_UNSUPPORTED);
    madt.overrides[1] = (struct acpi_override){.irq = 4, .gsi = 4000};
    assert_int_equal(irqchip_find(&madt, 4, &in), ERR_NOT_FOUND);
    madt.override_count = 0;
    madt.ioapics[0].gsi_base = 48;
    assert_int_equal(irqchip_find(&madt, 4, &in), ERR_NOT_FOUND);
    madt.ioapic_count = 0;
    assert_int_equal(irqchip_find(&madt, 4, &in), ERR_NOT_FOUND);
}

/* 82093AA 3.2.4; VT-d specification 4.1, 5.1.5.1 */
static void test_messages(void **state)
{
    (void)state;
    assert_int_equal(irqchip_message(0xf2, 3), 0x03000000000000f2);
    assert_int_equal(irqchip_remapped(0, 0xf2), 0x00010000000000f2);
    assert_int_equal(irqchip_remapped(0x1234, 0xf2), 0x24690000000000f2);
    assert_int_equal(irqchip_remapped(0x8001, 0xf2), 0x00030000000008f2);
}

static void test_open(void **state)
{
    struct irqchip_input in = {.pin = 4};
    (void)state;
    chip.low[2] = 0x30;
    chip.low[9] = 0xa031;
    chip.low[11] = SMI;
    assert_int_equal(irqchip_open(&registers, &in, irqchip_message(0xf2, 3)), STATUS_OK);
    for (unsigned pin = 0; pin < PINS; pin++)
        assert_int_equal(chip.low[pin] & MASKED, pin == 4 || pin == 11 ? 0 : MASKED);
    assert_int_equal(chip.low[4], 0xf2);
    assert_int_equal(chip.high[4], 0x03000000);
    assert_int_equal(chip.half, 0);
    in.low = true;
    assert_int_equal(irqchip_open(&registers, &in, irqchip_remapped(5, 0xf2)), STATUS_OK);
    assert_int_equal(chip.low[4], 0x20f2);
    assert_int_equal(chip.high[4], 0x000b0000);
    assert_int_equal(chip.half, 0);
}

static void test_open_refuses(void **state)
{
    struct irqchip_input in = {.pin = PINS};
    (void)state;
    assert_int_equal(irqchip_open(&registers, &in, 0), ERR_RANGE);
    in.pin = 4;
    chip.version = 0xffffffff;
    assert_int_equal(irqchip_open(&registers, &in, 0), ERR_NOT_FOUND);
    chip.version = 0;
    assert_int_equal(irqchip_open(&registers, &in, 0), ERR_NOT_FOUND);
    chip.version = 0xfe0020; /* more than registers have numbers */
    assert_int_equal(irqchip_open(&registers, &in, 0), ERR_RANGE);
    assert_int_equal(chip.low[0], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_find, setup),
        cmocka_unit_test_setup(test_messages, setup),
        cmocka_unit_test_setup(test_open, setup),
        cmocka_unit_test_setup(test_open_refuses, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
