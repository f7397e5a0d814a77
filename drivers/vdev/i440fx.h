/* What a PC's firmware looks for on bus 0: an i440FX host bridge (Intel 82441FX data sheet, 290549) with its
 * programmable attribute map (PAM), and at 00:01.3 the power management function that QEMU's PC has from a
 * PIIX4 (Intel 82371AB data sheet, 290562, chapter 7), where the firmware asks for acpi_pm.h's ports. Only
 * for VMs with a firmware of their own; other guests see the host bridge of pci_host.h. The PIIX3 that
 * belongs to it is in ata.h. */
#pragma once

#include "drivers/vdev/pci_host.h"

#define I440FX_ROM_FIRST    0xc0000u /* what the PAM governs, up to 1 MiB */
#define I440FX_ROM_SIZE     0x40000u
#define I440FX_SEGMENT_SIZE 0x4000u /* of each segment, but for the last: 64 KiB */
#define I440FX_SEGMENTS     13u

enum i440fx_attribute { I440FX_READ = 1, I440FX_WRITE = 2 }; /* the access goes to RAM, and not to the ROM */

struct i440fx {
    struct pci_space *space;             /* of 00:00.0 */
    struct pci_func pm;                  /* 00:01.3 */
    uint8_t attributes[I440FX_SEGMENTS]; /* enum i440fx_attribute, as last told */
    /* A segment's attributes have changed. Under the device lock. */
    void (*changed)(void *ctx, unsigned segment, uint8_t attributes);
    void *ctx;
};

/* Segment 0 is C0000..C3FFF, ... 11 is EC000..EFFFF, 12 is F0000..FFFFF. */
static inline uint32_t i440fx_segment_base(unsigned segment)
{
    return I440FX_ROM_FIRST + segment * I440FX_SEGMENT_SIZE;
}

static inline uint32_t i440fx_segment_size(unsigned segment)
{
    return segment == I440FX_SEGMENTS - 1 ? 0x10000u : I440FX_SEGMENT_SIZE;
}

/* The segment that holds an address of the range. */
static inline unsigned i440fx_segment_of(uint32_t addr)
{
    unsigned segment = (addr - I440FX_ROM_FIRST) / I440FX_SEGMENT_SIZE;
    return segment < I440FX_SEGMENTS ? segment : I440FX_SEGMENTS - 1;
}

/* After pci_host_setup(), once: makes the bridge at 00:00.0 this one, and adds 00:01.3. All attributes are 0
 * then, which changed() is not told. */
void i440fx_setup(struct i440fx *chipset, struct pci_host *host,
                  void (*changed)(void *ctx, unsigned segment, uint8_t attributes), void *ctx);
