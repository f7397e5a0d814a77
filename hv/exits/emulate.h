/* Completing an instruction that touches an emulated device: MMIO, or string I/O on a port. Reads the guest's
 * code and page tables as its CPU would, decodes, and moves the data. */
#pragma once

#include "drivers/vdev/vdev.h"
#include "hv/vcpu.h"

/* The instruction at RIP accessed device memory (`exit` is an EPT violation). */
struct exit_result emulate_mmio(struct vcpu *vcpu, const struct exit *exit);
/* The instruction at RIP is INS or OUTS; `io` is the access that exited. */
struct exit_result emulate_string_io(struct vcpu *vcpu, const struct exit_io *io);

/* One access to a device by guest-physical address: the local APIC, the bus, or nobody (all-ones, logged
 * once). `size` 1, 2, 4 or 8. */
void emulate_mmio_access(struct vcpu *vcpu, struct io_req *req);
/* The same for a port (hv/exits/handle_io.c). */
void emulate_port_access(struct vcpu *vcpu, struct io_req *req);
/* `count` such accesses, one after the other, with `bytes` as their data (count * req->size). Answers how
 * many were made: at least one, and no more once somebody wants something of the vCPU. */
unsigned emulate_port_run(struct vcpu *vcpu, const struct io_req *req, uint8_t *bytes, unsigned count);

/* Copies the code bytes at RIP for a report, leaving no trace in the guest. Returns how many could be read.
 */
size_t emulate_peek_code(struct vcpu *vcpu, uint8_t *bytes, size_t size);
