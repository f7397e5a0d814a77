/* Interrupts of assigned devices: host vectors, and the message that the guest wants instead.
 *
 * A device's message arrives at a CPU of its VM, at a vector of the host's; msi_fire() posts the guest's
 * vector to the guest's local APIC. Each CPU belongs to one VM at a time, so a CPU's vectors are that VM's,
 * and the VM's device lock guards who has which. msi_fire() takes no lock. */
#pragma once

#include "hv/vm.h"

#define MSI_FIRST_VECTOR 0x30u
#define MSI_LAST_VECTOR  0xdfu
#define MSI_VECTORS      (MSI_LAST_VECTOR - MSI_FIRST_VECTOR + 1)

/* One interrupt of one device. */
struct msi_irq {
    struct vm *vm;    /* C */
    uint64_t message; /* A. what the guest asked for, decoded; 0: nothing is delivered */
    uint64_t fired;   /* A. since the machine started */
    struct cpu *cpu;  /* where it arrives; NULL: it has no vector. Device lock, as is: */
    uint8_t vector;
};

struct msi_cpu {
    struct msi_irq *irqs[MSI_VECTORS]; /* A */
    uint64_t used[(MSI_VECTORS + 63) / 64];
    uint32_t next;       /* vectors are taken in turn, so that one given back is long unused */
    struct msi_irq test; /* msi_send_test()'s */
};

/* The VM's CPUs can be interrupted by devices. ERR_NO_MEMORY with a sentence in `why`. Before VMs run. */
enum status msi_create_tables(struct vm *vm, char *why, size_t size);

/* The guest's MSI message (SDM volume 3, "Message Signalled Interrupts"): sets what `irq` delivers, and says
 * at which vCPU it should arrive: the one that the message names, the first of several. False: not a message
 * that a device can be given (not of the local APICs, not fixed or lowest priority, vector below 16); nothing
 * is delivered then. */
bool msi_set_message(struct msi_irq *irq, uint64_t address, uint32_t data, struct vcpu **where);
/* Nothing is delivered from here on, whatever still arrives. */
void msi_silence(struct msi_irq *irq);

/* Takes a vector of `cpu` for `irq`. One that it has elsewhere stays in force until msi_retire().
 * ERR_NO_MEMORY: all are taken, or the CPU has no table. */
enum status msi_take_vector(struct msi_irq *irq, struct cpu *cpu, uint8_t *vector);
/* Gives a vector back. What is under way to it is still delivered: until the vector is taken again, after
 * all others were. */
void msi_retire(struct cpu *cpu, uint8_t vector);

/* The test device of `compat = qemu`: sets a message of its own as a device's and, with `raise`, has it
 * arrive at this CPU, one of the VM's, when its guest goes on. Under the device lock. */
void msi_send_test(struct vm *vm, uint32_t address, uint32_t data, bool raise);

/* An interrupt has arrived at this CPU; ending it at the APIC is the caller's. False: not a device's. */
bool msi_fire(const struct cpu *cpu, uint8_t vector);
