#include "drivers/vdev/acpi_pm.h"

/* PM1 status and enable (ACPI 6.5, 4.8.3.1). */
#define PM1_TMR    0x0001u
#define PM1_GBL    0x0020u
#define PM1_PWRBTN 0x0100u
#define PM1_RTC    0x0400u /* never raised, but drivers enable it and read it back */
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC) /* what the enable register holds */

/* PM1 control (4.8.3.2). */
#define CNT_SCI_EN        0x0001u /* changed through the SMI command port only */
#define CNT_BM_RLD        0x0002u
#define CNT_SLP_TYP_SHIFT 10
#define CNT_SLP_TYP       0x1c00u
#define CNT_SLP_EN        0x2000u /* reads as 0 */
#define CNT_KEPT          (CNT_BM_RLD | CNT_SLP_TYP)

/* Offsets of the dwords in the block. */
enum pm_dword { DWORD_EVT = 0, DWORD_CNT = 4, DWORD_TMR = 8 };

static struct acpi_pm *pm_of(struct vdev *dev)
{
    return container_of(dev, struct acpi_pm, dev);
}

static uint64_t ticks_now(const struct acpi_pm *pm)
{
    return vdev_ns_to_ticks(vdev_now(&pm->dev), ACPI_PM_TMR_HZ);
}

/* TMR_STS is set whenever the timer's highest bit changes (4.8.2.1). */
static uint64_t half_at(uint64_t ticks)
{
    return ticks >> (ACPI_PM_TMR_BITS - 1);
}

static uint16_t status_at(const struct acpi_pm *pm, uint64_t ticks)
{
    return pm->status | (half_at(ticks) != pm->timer_half ? PM1_TMR : 0);
}

/* Sets the SCI, and the timer for the next moment at which the PM timer could change it. */
static void update(struct acpi_pm *pm)
{
    uint64_t ticks = ticks_now(pm);
    uint16_t status = status_at(pm, ticks);
    bool sci_enabled = pm->control & CNT_SCI_EN;
    bool line = sci_enabled && (status & pm->enable);
    if (line != pm->line) {
        pm->line = line;
        vdev_set_irq(&pm->dev, ACPI_PM_SCI_IRQ, line);
    }
    uint64_t deadline = VDEV_NEVER;
    if (sci_enabled && (pm->enable & PM1_TMR) && !(status & PM1_TMR))
        deadline = vdev_ticks_to_ns((half_at(ticks) + 1) << (ACPI_PM_TMR_BITS - 1), ACPI_PM_TMR_HZ);
    vdev_set_timer(&pm->dev, deadline);
}

static void pm_timer(struct vdev *dev, uint64_t now_ns)
{
    update(pm_of(dev));
}

static uint32_t read_dword(const struct acpi_pm *pm, uint64_t dword)
{
    switch (dword) {
    case DWORD_TMR:
        return (uint32_t)ticks_now(pm);
    case DWORD_EVT:
        return status_at(pm, ticks_now(pm)) | (uint32_t)pm->enable << 16;
    default:
        return pm->control;
    }
}

static void write_event(struct acpi_pm *pm, uint32_t value, uint32_t mask)
{
    uint16_t clear = (uint16_t)(value & mask);
    pm->status &= (uint16_t)~clear;
    if (clear & PM1_TMR)
        pm->timer_half = half_at(ticks_now(pm));
    uint16_t enable_mask = (uint16_t)(mask >> 16);
    pm->enable = (uint16_t)((pm->enable & ~enable_mask) | ((value >> 16) & enable_mask & PM1_EVENTS));
    update(pm);
}

static void write_control(struct acpi_pm *pm, uint32_t value, uint32_t mask)
{
    uint16_t kept = (uint16_t)(mask & CNT_KEPT);
    pm->control = (uint16_t)((pm->control & ~kept) | (value & kept));
    if (!(value & mask & CNT_SLP_EN))
        return;
    /* Other sleep types are not offered in \_Sx and do nothing. */
    if ((pm->control & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT == ACPI_PM_SLP_TYP_S5)
        pm->dev.env->power(pm->dev.env->ctx, VDEV_POWEROFF);
}

/* One naturally aligned access of 1, 2 or 4 bytes within a dword of the block. */
static void access_block(struct acpi_pm *pm, struct io_req *req)
{
    uint64_t offset = req->addr - ACPI_PM_BASE, dword = offset & ~(uint64_t)3;
    unsigned shift = (unsigned)(offset & 3) * 8;
    uint32_t mask = (uint32_t)vdev_all_ones(req->size) << shift;
    if (!req->write) {
        req->value = (read_dword(pm, dword) & mask) >> shift;
        return;
    }
    uint32_t value = (uint32_t)req->value << shift;
    if (dword == DWORD_EVT)
        write_event(pm, value, mask);
    else if (dword == DWORD_CNT)
        write_control(pm, value, mask);
}

static void access_smi(struct acpi_pm *pm, struct io_req *req)
{
    uint8_t *reg = req->addr == ACPI_PM_SMI_CMD_PORT ? &pm->smi_command : &pm->smi_status;
    if (!req->write) {
        req->value = *reg;
        return;
    }
    *reg = (uint8_t)req->value;
    if (reg != &pm->smi_command)
        return;
    if (*reg == ACPI_PM_ENABLE)
        pm->control |= CNT_SCI_EN;
    else if (*reg == ACPI_PM_DISABLE)
        pm->control &= (uint16_t)~CNT_SCI_EN;
    update(pm);
}

static void pm_access(struct vdev *dev, struct io_req *req)
{
    struct acpi_pm *pm = pm_of(dev);
    bool in_block = req->addr >= ACPI_PM_BASE && req->addr < ACPI_PM_BASE + ACPI_PM_PORT_COUNT;
    bool aligned =
        req->size == 1 || ((req->size == 2 || req->size == 4) && (req->addr & (req->size - 1u)) == 0);
    if (in_block && aligned)
        access_block(pm, req);
    else if (req->size != 1)
        vdev_split_bytes(dev, req);
    else if (req->addr == ACPI_PM_SMI_CMD_PORT || req->addr == ACPI_PM_SMI_CMD_PORT + 1)
        access_smi(pm, req);
    else if (!req->write)
        req->value = 0xff;
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    pm->status |= PM1_PWRBTN;
    update(pm);
}

static void pm_reset(struct vdev *dev)
{
    struct acpi_pm *pm = pm_of(dev);
    pm->status = pm->enable = pm->control = 0;
    pm->smi_command = pm->smi_status = 0;
    pm->line = false;
    pm->timer_half = half_at(ticks_now(pm));
    vdev_set_timer(dev, VDEV_NEVER);
    vdev_set_irq(dev, ACPI_PM_SCI_IRQ, false);
}

const struct vdev_ops acpi_pm_ops = {
    .name = "acpi_pm",
    .init = pm_reset,
    .reset = pm_reset,
    .access = pm_access,
    .timer = pm_timer,
};
