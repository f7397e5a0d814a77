#include "drivers/pci/pci_config_hw.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/hostpt.h"
#include "hv/lib/bits.h"
#include "hv/lib/lock.h"

/* PCI Local Bus 3.0, 3.2.2.3.2: configuration mechanism #1. */
#define PORT_ADDRESS   0xcf8u
#define PORT_DATA      0xcfcu
#define ADDRESS_ENABLE (1u << 31)

#define CR3_ADDRESS 0x000ffffffffff000ull

static struct {
    struct spinlock lock; /* guards the ports' address, the window, and what follows it; a leaf */
    struct acpi_mcfg mcfg;
    /* All of ECAM is reached through one page: up to 256 MiB would cost half a MiB of page tables. */
    volatile uint8_t *window;
    uint64_t *entry; /* the page-table entry behind it */
} config;

static const struct acpi_ecam *ecam_of(uint16_t bdf)
{
    for (uint32_t i = 0; config.window && i < config.mcfg.count; i++) {
        const struct acpi_ecam *e = &config.mcfg.ecams[i];
        if (e->segment == 0 && BDF_BUS(bdf) >= e->first_bus && BDF_BUS(bdf) <= e->last_bus)
            return e;
    }
    return NULL;
}

/* The window at a function's page. Other CPUs may have left it anywhere, so this one's TLB is told each time.
 */
static volatile uint8_t *page_of(const struct acpi_ecam *e, uint16_t bdf)
{
    hpa_t page = hpa(e->base.v + ((uint64_t)bdf << PAGE_SHIFT));
    *config.entry = hostpt_leaf_value(page, HOSTPT_WRITE | HOSTPT_UNCACHED);
    cpu_invlpg((const void *)(uintptr_t)config.window);
    return config.window;
}

static uint32_t ecam_read(volatile uint8_t *at, unsigned size)
{
    switch (size) {
    case 1:
        return *at;
    case 2:
        return *(volatile uint16_t *)at;
    default:
        return *(volatile uint32_t *)at;
    }
}

static void ecam_write(volatile uint8_t *at, unsigned size, uint32_t value)
{
    switch (size) {
    case 1:
        *at = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)at = (uint16_t)value;
        break;
    default:
        *(volatile uint32_t *)at = value;
    }
}

static uint32_t port_read(uint16_t bdf, uint32_t offset, unsigned size)
{
    uint16_t port = (uint16_t)(PORT_DATA + (offset & 3));
    cpu_out32(PORT_ADDRESS, ADDRESS_ENABLE | (uint32_t)bdf << 8 | (offset & ~3u));
    switch (size) {
    case 1:
        return cpu_in8(port);
    case 2:
        return cpu_in16(port);
    default:
        return cpu_in32(port);
    }
}

static void port_write(uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    uint16_t port = (uint16_t)(PORT_DATA + (offset & 3));
    cpu_out32(PORT_ADDRESS, ADDRESS_ENABLE | (uint32_t)bdf << 8 | (offset & ~3u));
    switch (size) {
    case 1:
        cpu_out8(port, (uint8_t)value);
        break;
    case 2:
        cpu_out16(port, (uint16_t)value);
        break;
    default:
        cpu_out32(port, value);
    }
}

static uint32_t config_read(void *ctx, uint16_t bdf, uint32_t offset, unsigned size)
{
    uint32_t value = (uint32_t)bits_low_bytes(UINT32_MAX, size);
    const struct acpi_ecam *e = ecam_of(bdf);
    spin_lock(&config.lock);
    if (e && offset < PCI_CONFIG_SIZE)
        value = ecam_read(page_of(e, bdf) + offset, size);
    else if (offset < PCI_LEGACY_SIZE)
        value = port_read(bdf, offset, size);
    spin_unlock(&config.lock);
    return value;
}

static void config_write(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    const struct acpi_ecam *e = ecam_of(bdf);
    spin_lock(&config.lock);
    if (e && offset < PCI_CONFIG_SIZE)
        ecam_write(page_of(e, bdf) + offset, size, value);
    else if (offset < PCI_LEGACY_SIZE)
        port_write(bdf, offset, size, value);
    spin_unlock(&config.lock);
}

/* A table that points elsewhere would make every write to configuration space one to somebody's memory. */
static bool is_true(const struct acpi_ecam *e)
{
    uint16_t bdf = PCI_BDF(e->first_bus, 0, 0);
    return e->segment == 0 && ecam_read(page_of(e, bdf), 4) == port_read(bdf, PCI_REG_ID, 4);
}

static bool map_window(const struct pt_env *env)
{
    hpa_t root = hpa(cpu_read_cr3() & CR3_ADDRESS);
    config.window =
        cpu_init_map_device(env, root, config.mcfg.ecams[0].base, PAGE_SIZE, HOSTPT_WRITE | HOSTPT_UNCACHED);
    return config.window &&
           hostpt_leaf(env, root, (uint64_t)(uintptr_t)config.window, &config.entry) == STATUS_OK;
}

bool pci_config_hw_init(const struct acpi_mcfg *mcfg, const struct pt_env *env, struct pci_config *out)
{
    uint32_t kept = 0;
    *out = (struct pci_config){.read = config_read, .write = config_write};
    if (mcfg && mcfg->count) {
        config.mcfg = *mcfg;
        if (!map_window(env))
            config.mcfg.count = 0;
    }
    for (uint32_t i = 0; i < config.mcfg.count; i++)
        if (is_true(&config.mcfg.ecams[i]))
            config.mcfg.ecams[kept++] = config.mcfg.ecams[i];
    config.mcfg.count = kept;
    return kept != 0;
}
