/* A raw real-mode image: bytes that are put at a given address below 640 KiB and begun there in real mode, as
 * a BIOS begins a boot sector at 0x7c00. There is no BIOS behind its interrupts. */
#pragma once

#include "hv/guest/entry.h"
#include "hv/guest/layout.h"
#include "hv/guest/source.h"

#define RAW_FIRST 0x500ull   /* below are the interrupt vectors and the BIOS data area */
#define RAW_END   GUEST_EBDA /* the image ends here at the latest */

/* Does the image fit? ERR_INVALID with a sentence in `why`. `load`: RAW_FIRST .. RAW_END - 1. */
enum status raw_check(const struct guest_source *image, uint32_t load, char *why, size_t why_size);
/* Loads what raw_check() accepted. Can be repeated. */
enum status raw_load(const struct guest_source *image, uint32_t load, const struct gmem *g);
/* CS:IP is 0:load as far as that goes, then load / 16 : load % 16; the stack is below the image (or where a
 * boot sector has it), DL names the first hard disk. All else as after a reset. */
void raw_entry_state(uint32_t load, struct guest_entry *out);
