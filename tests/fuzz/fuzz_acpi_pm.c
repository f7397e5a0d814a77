/* Random port accesses and time for ACPI power management. The SCI follows status and enable, the timer
 * counts as its frequency says, power-off happens for S5 only, and wide reads are made of the same bytes as
 * narrow ones. */
#include <string.h>
#include "drivers/vdev/acpi_pm.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct acpi_pm pm;

static void check(void)
{
    uint32_t event = (uint32_t)fake_read(&pm.dev, ACPI_PM_EVT_PORT, 4);
    uint16_t control = (uint16_t)fake_read(&pm.dev, ACPI_PM_CNT_PORT, 2);
    FAKE_REQUIRE(fake.level[9] == ((control & 1) && (event & event >> 16 & 0xffff)));
    FAKE_REQUIRE((control & 0xe3fc) == 0);
    FAKE_REQUIRE((event & ~0x05210101u) == 0);
    uint32_t timer = (uint32_t)fake_read(&pm.dev, ACPI_PM_TMR_PORT, 4);
    FAKE_REQUIRE(timer == (uint32_t)vdev_ns_to_ticks(fake.now_ns, ACPI_PM_TMR_HZ));
    /* A timer event that is enabled and has not happened is on its way. */
    if ((control & 1) && (event & 0x10000) && !(event & 1))
        FAKE_REQUIRE(pm.dev.deadline_ns != VDEV_NEVER && pm.dev.deadline_ns > fake.now_ns);
    for (unsigned i = 0; i < 16; i += 4) {
        uint32_t bytes = 0;
        for (unsigned k = 0; k < 4; k++)
            bytes |= (uint32_t)fake_in(&pm.dev, ACPI_PM_BASE + i + k) << (8 * k);
        FAKE_REQUIRE(fake_read(&pm.dev, ACPI_PM_BASE + i, 4) == bytes);
    }
}

static void write_any(struct fake_input *in, uint8_t op)
{
    uint64_t port = ACPI_PM_BASE - 2 + (op & 15), value = fake_input_u64(in);
    unsigned size = 1u << (op >> 4 & 3) % 3, before = fake.poweroffs;
    fake_write(&pm.dev, port, size, value);
    if (fake.poweroffs != before) {
        FAKE_REQUIRE(port <= 0x605 && port + size > 0x605);
        FAKE_REQUIRE((value >> 8 * (0x605 - port) & 0x3c) == 0x3c);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    fake_vdev_env_init(&fake);
    memset(&pm, 0, sizeof(pm));
    fake_attach(&fake, &pm.dev, &acpi_pm_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        switch (op >> 6) {
        case 0:
            write_any(&in, op);
            break;
        case 1:
            fake_out(&pm.dev, 0xb1 + (op & 3), op & 4 ? ACPI_PM_ENABLE : fake_input_u8(&in));
            break;
        case 2:
            if (op & 1)
                acpi_pm_power_button(&pm);
            else
                fake_write(&pm.dev, ACPI_PM_EVT_PORT, 4, fake_input_u64(&in));
            break;
        default:
            if (op & 1)
                fake_advance(&fake, fake_input_step(&in));
            else
                fake_jump(&fake, fake_input_step(&in));
            break;
        }
        check();
    }
    FAKE_REQUIRE(fake.resets == 0);
    return 0;
}
