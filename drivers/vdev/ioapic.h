/* The guest's I/O APIC: Intel 82093AA with the EOI register of its successors (version 0x20), 24 pins,
 * registers at 0xfec00000. Pins carry "asserted", not a voltage: the polarity bit is stored and read back,
 * and does nothing. */
#pragma once

#include "drivers/vdev/vdev.h"

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_SIZE 0x1000ull
#define IOAPIC_PINS 24u

/* An interrupt message for the local APICs: fields as in struct lapic_ipi (mode: fixed, lowest, NMI, INIT or
 * ExtINT). Returns whether some local APIC accepted it. Called with the VM's device lock held. */
typedef bool (*ioapic_deliver_fn)(void *ctx, uint8_t dest, bool logical, uint8_t mode, uint8_t vector,
                                  bool level);

struct ioapic {
    struct vdev dev;
    ioapic_deliver_fn deliver;
    void *deliver_ctx;
    uint64_t redirection[IOAPIC_PINS];
    uint32_t asserted;   /* bit n: pin n is asserted */
    uint32_t remote_irr; /* bit n: level interrupt of pin n accepted, EOI outstanding */
    uint32_t id;         /* register 0 */
    uint8_t select;      /* IOREGSEL */
};

extern const struct vdev_ops ioapic_ops;

/* Before ops->init. */
void ioapic_connect(struct ioapic *io, ioapic_deliver_fn deliver, void *ctx);
/* The level of a pin (GSI). Pins out of range are ignored. */
void ioapic_set_pin(struct ioapic *io, unsigned pin, bool asserted);
/* A local APIC's EOI message for a level-triggered vector (lapic_env.eoi). */
void ioapic_eoi(struct ioapic *io, uint8_t vector);
