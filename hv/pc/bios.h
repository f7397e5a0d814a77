/* What a BIOS leaves behind for the program that it starts. A VM has none, but Multiboot promises "normal
 * working order, i.e. as initialized by the BIOS" (section 3.2, "Machine state"), and a boot sector expects
 * the same: the interrupt controllers at the BIOS's vectors, the timer ticking, the local APIC in virtual
 * wire mode, and handlers behind the vectors of real mode, which here only acknowledge. Linux and PVH kernels
 * expect none of it, and a firmware image does it itself. */
#pragma once

#include "hv/lib/types.h"

struct guest_image;
struct vm;

/* Does whatever the image is for begin after a BIOS? */
bool bios_was_there(const struct guest_image *image);
/* The vectors of real mode, and their handlers in the ROM. Written with the images. */
enum status bios_write_vectors(const struct vm *vm);
/* Devices and the boot processor's local APIC, just reset. By the boot processor's vCPU, before it runs. */
void bios_set_devices(struct vm *vm);
