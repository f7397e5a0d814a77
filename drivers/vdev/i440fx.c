#include "drivers/vdev/i440fx.h"
#include "drivers/vdev/acpi_pm.h"
#include "hv/lib/bits.h"

#define VENDOR_INTEL      0x8086u
#define DEVICE_82441FX    0x1237u
#define CLASS_HOST_BRIDGE 0x060000u
#define REVISION          2u

/* QEMU's subsystem: a firmware made for it takes the machine for one, and asks fw_cfg. */
#define QEMU_SUBSYSTEM 0x11001af4u

#define DEVICE_82371AB_PM 0x7113u
#define CLASS_BRIDGE      0x068000u /* other */
#define PM_REVISION       3u
#define PM_STATUS         0x02800000u                 /* fast back-to-back, medium DEVSEL */
#define PM_INTERRUPT      (1u << 8 | ACPI_PM_SCI_IRQ) /* pin INTA */
#define REG_PMBA          0x40u
#define PMBA_IO           1u /* hard-wired: they are ports */
#define REG_DEVACTB       0x58u
#define DEVACTB_APMC_EN   0x2000000u
#define REG_PMREGMISC     0x80u
#define PMREGMISC_PMIOSE  1u /* the ports are decoded */

#define REG_PAM           0x58u /* PAM0..PAM6 are the bytes from 0x59 on */
#define PAM0_HIGH_NIBBLE  4u    /* the low one is reserved */
#define PAM_WRITABLE_LOW  0x33333000u
#define PAM_WRITABLE_HIGH 0x33333333u

static uint8_t attributes_of(const struct i440fx *chipset, unsigned segment)
{
    /* Nibbles from bit 4 of 0x59 on: F0000 first, then C0000, C4000, ... */
    unsigned nibble = segment == I440FX_SEGMENTS - 1 ? 0 : segment + 1;
    unsigned bit = 8 + PAM0_HIGH_NIBBLE + 4 * nibble;
    uint32_t value = pci_space_read(chipset->space, REG_PAM + bit / 32 * 4);
    return value >> bit % 32 & (I440FX_READ | I440FX_WRITE);
}

static void tell_changes(struct i440fx *chipset)
{
    for (unsigned i = 0; i < I440FX_SEGMENTS; i++) {
        uint8_t now = attributes_of(chipset, i);
        if (now == chipset->attributes[i])
            continue;
        chipset->attributes[i] = now;
        chipset->changed(chipset->ctx, i, now);
    }
}

static uint32_t bridge_read(struct pci_func *func, uint32_t offset)
{
    const struct i440fx *chipset = func->ctx;
    return pci_space_read(chipset->space, offset);
}

static void bridge_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    struct i440fx *chipset = func->ctx;
    pci_space_write(chipset->space, offset, value, mask);
    tell_changes(chipset);
}

static void bridge_reset(struct pci_func *func)
{
    struct i440fx *chipset = func->ctx;
    chipset->space->value[REG_PAM / 4] = 0;
    chipset->space->value[REG_PAM / 4 + 1] = 0;
    tell_changes(chipset);
}

/* The ports do not move, as ACPI's tables name them: they are placed and decoded from the start, and a
 * firmware either takes them as they are (OVMF) or places them just there (SeaBIOS). SMIs by the APM port are
 * on (DEVACTB), which tells it that SMM was set up and is not its task: there is none. */
static uint32_t pm_read(struct pci_func *func, uint32_t offset)
{
    switch (offset) {
    case PCI_REG_ID:
        return DEVICE_82371AB_PM << 16 | VENDOR_INTEL;
    case PCI_REG_COMMAND:
        return PM_STATUS | PCI_COMMAND_IO;
    case PCI_REG_CLASS:
        return CLASS_BRIDGE << 8 | PM_REVISION;
    case PCI_REG_SUBSYSTEM:
        return QEMU_SUBSYSTEM;
    case PCI_REG_INTERRUPT:
        return PM_INTERRUPT;
    case REG_PMBA:
        return ACPI_PM_BASE | PMBA_IO;
    case REG_DEVACTB:
        return DEVACTB_APMC_EN;
    case REG_PMREGMISC:
        return PMREGMISC_PMIOSE;
    default:
        return offset < PCI_SPACE_LEGACY_DWORDS * 4 ? 0 : ~0u;
    }
}

static void pm_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
}

void i440fx_setup(struct i440fx *chipset, struct pci_host *host,
                  void (*changed)(void *ctx, unsigned segment, uint8_t attributes), void *ctx)
{
    struct pci_space *space = &host->bridge_space;
    *chipset = (struct i440fx){.space = space, .changed = changed, .ctx = ctx};
    pci_space_init(space, host->bridge_storage, PCI_SPACE_LEGACY_DWORDS, VENDOR_INTEL, DEVICE_82441FX,
                   CLASS_HOST_BRIDGE);
    space->value[PCI_REG_CLASS / 4] |= REVISION;
    space->value[PCI_REG_SUBSYSTEM / 4] = QEMU_SUBSYSTEM;
    space->writable[REG_PAM / 4] = PAM_WRITABLE_LOW;
    space->writable[REG_PAM / 4 + 1] = PAM_WRITABLE_HIGH;
    host->bridge.ctx = chipset;
    host->bridge.read = bridge_read;
    host->bridge.write = bridge_write;
    host->bridge.reset = bridge_reset;
    chipset->pm = (struct pci_func){.bdf = PCI_BDF(0, 1, 3), .read = pm_read, .write = pm_write};
    (void)pci_host_add(host, &chipset->pm); /* cannot fail: the bus is empty */
}
