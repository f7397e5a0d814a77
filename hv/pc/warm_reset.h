/* The PC AT's warm reset: a program that resets the processor to leave protected mode, or to start afresh,
 * puts a shutdown code into CMOS byte 0x0f and a far pointer to 0040:0067; the BIOS then goes on there, with
 * memory and devices as they are, instead of starting the machine anew. A VM has no BIOS, so this is its
 * part. */
#pragma once

#include "hv/lib/addr.h"

struct vm;

/* The VM's processors are being reset, by the keyboard controller, port 0x92 or a triple fault. True: they
 * all get an INIT, and the boot processor will go on at its vector. False: nothing has happened, the machine
 * is to start anew. Any CPU. */
bool warm_reset(struct vm *vm);
/* An INIT has reached the boot processor. True: it goes on at segment:offset, and the code is cleared as a
 * BIOS does it: the next reset is an ordinary one. (A firmware of its own does that, from the reset vector
 * on.) */
bool warm_reset_take(struct vm *vm, uint16_t *segment, uint16_t *offset);

/* What a program finds that jumps to the reset vector itself, FFFF:0000: a few instructions that reset the
 * machine, where a PC's ROM is. Written with the images. */
enum status warm_reset_write_rom(const struct vm *vm);
