/* The fixed ACPI hardware (ACPI 6.5, chapter 4): PM1a event and control blocks, PM timer, SMI command port.
 * There is no GPE block. The constants below are what the FADT and the DSDT must say; also set these FADT
 * flags: TMR_VAL_EXT (the timer has 32 bits), SLP_BUTTON and FIX_RTC (neither event exists here), not
 * PWR_BUTTON. */
#pragma once

#include "drivers/vdev/vdev.h"

#define ACPI_PM_BASE         0x600u
#define ACPI_PM_PORT_COUNT   12u
#define ACPI_PM_EVT_PORT     0x600u /* PM1a_EVT_BLK: status, enable */
#define ACPI_PM_EVT_LEN      4u
#define ACPI_PM_CNT_PORT     0x604u /* PM1a_CNT_BLK */
#define ACPI_PM_CNT_LEN      2u
#define ACPI_PM_TMR_PORT     0x608u /* PM_TMR_BLK */
#define ACPI_PM_TMR_LEN      4u
#define ACPI_PM_TMR_BITS     32u
#define ACPI_PM_TMR_HZ       3579545u
#define ACPI_PM_SMI_CMD_PORT 0xb2u /* and 0xb3, its scratch byte */
#define ACPI_PM_ENABLE       0xa1u /* FADT ACPI_ENABLE */
#define ACPI_PM_DISABLE      0xa0u /* FADT ACPI_DISABLE */
#define ACPI_PM_SLP_TYP_S5   7u    /* \_S5: Package { 7, 7, 0, 0 }; no other sleep state exists */
#define ACPI_PM_SCI_IRQ      9u    /* level-triggered, active high */

struct acpi_pm {
    struct vdev dev;
    uint16_t status; /* without TMR_STS, which is computed */
    uint16_t enable;
    uint16_t control;
    uint8_t smi_command, smi_status; /* last values at 0xb2, 0xb3 */
    bool line;                       /* level of the SCI */
    uint64_t timer_half;             /* PM timer's half-periods when TMR_STS was last cleared */
};

extern const struct vdev_ops acpi_pm_ops;

/* The power button is pressed: asks the guest's operating system to shut down. */
void acpi_pm_power_button(struct acpi_pm *pm);
