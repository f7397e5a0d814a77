/* PCI Local Bus Specification 3.0, 3.2.2.3.2 (configuration mechanism #1) and chapter 6. */
#include "drivers/pci/pci_quiesce.h"
#include "arch/x86/cpu_hw.h"

#define CONFIG_ADDRESS 0xcf8u
#define CONFIG_DATA    0xcfcu
#define CONFIG_ENABLE  (1u << 31)

#define REG_ID      0x00u
#define REG_COMMAND 0x04u
#define REG_CLASS   0x08u
#define REG_HEADER  0x0cu

#define COMMAND_MASTER (1u << 2)
#define STATUS_BITS    0xffff0000u /* write-1-to-clear: written as 0 */
#define HEADER_MULTI   (1u << 23)
#define HEADER_TYPE(h) ((h) >> 16 & 0x7fu)
#define CLASS_DISPLAY  0x03u
#define CLASS_BRIDGE   0x06u
#define ID_NONE        0xffffffffu

static uint32_t config_read(unsigned bus, unsigned device, unsigned function, unsigned reg)
{
    cpu_out32(CONFIG_ADDRESS, CONFIG_ENABLE | bus << 16 | device << 11 | function << 8 | reg);
    return cpu_in32(CONFIG_DATA);
}

static void config_write(unsigned bus, unsigned device, unsigned function, unsigned reg, uint32_t value)
{
    cpu_out32(CONFIG_ADDRESS, CONFIG_ENABLE | bus << 16 | device << 11 | function << 8 | reg);
    cpu_out32(CONFIG_DATA, value);
}

static bool quiesce_function(unsigned bus, unsigned device, unsigned function)
{
    unsigned class = config_read(bus, device, function, REG_CLASS) >> 24;
    uint32_t command = config_read(bus, device, function, REG_COMMAND);
    if (HEADER_TYPE(config_read(bus, device, function, REG_HEADER)) != 0 || class == CLASS_DISPLAY ||
        class == CLASS_BRIDGE || !(command & COMMAND_MASTER))
        return false;
    config_write(bus, device, function, REG_COMMAND, command & ~(STATUS_BITS | COMMAND_MASTER));
    return true;
}

unsigned pci_quiesce(void)
{
    unsigned changed = 0;
    for (unsigned slot = 0; slot < 256 * 32; slot++) {
        unsigned bus = slot / 32, device = slot % 32;
        if (config_read(bus, device, 0, REG_ID) == ID_NONE)
            continue;
        unsigned functions = config_read(bus, device, 0, REG_HEADER) & HEADER_MULTI ? 8 : 1;
        for (unsigned function = 0; function < functions; function++) {
            if (config_read(bus, device, function, REG_ID) != ID_NONE)
                changed += quiesce_function(bus, device, function);
        }
    }
    return changed;
}
