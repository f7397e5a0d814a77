/* Guests by the Multiboot 2 specification (version 2.0), 32-bit entry. A header of tags instead of flags, and
 * what the guest is told is a list of tags as well; kernel and modules are placed as for Multiboot 1. */
#pragma once

#include "hv/guest/multiboot.h"

#define MULTIBOOT2_SEARCH 32768u /* bytes at a file's start that hold the header, on a multiple of 8 */

/* Has the file a header, by its magic number and checksum? *bad: one with a wrong checksum or length was
 * found. */
bool multiboot2_find(const struct guest_source *file, uint32_t *offset, bool *bad);

/* As multiboot_parse(). */
enum status multiboot2_parse(const struct guest_source *file, struct multiboot_image *out, char *why,
                             size_t why_size);
/* As multiboot_load(). */
enum status multiboot2_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                            const struct gmem *g, const struct guest_source *kernel,
                            const struct multiboot_module *modules, const char *cmdline);
/* Completes it: the guest is given a copy of the RSDP, which the caller has written by now. */
enum status multiboot2_put_rsdp(const struct gmem *g, gpa_t rsdp);
/* "I386 machine state". */
void multiboot2_entry_state(const struct multiboot_image *image, struct guest_entry *out);
