/* Guests by Xen's PVH boot protocol ("x86/HVM direct boot ABI"): an ELF file whose note names a 32-bit entry
 * point. Segments and modules are placed as for Multiboot. */
#pragma once

#include "hv/guest/multiboot.h"

/* Is there an entry note? Its value is checked by pvh_parse(). */
bool pvh_has_note(const struct guest_source *file);

/* ERR_INVALID or ERR_UNSUPPORTED with a sentence in `why`. */
enum status pvh_parse(const struct guest_source *file, struct multiboot_image *out, char *why,
                      size_t why_size);

/* Writes low memory (cleared), kernel, modules, and hvm_start_info. The caller writes the ACPI tables, whose
 * RSDP is at `rsdp`, after this call, which clears their area. Can be repeated. */
enum status pvh_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                     const struct gmem *g, const struct guest_source *kernel,
                     const struct multiboot_module *modules, const char *cmdline, gpa_t rsdp);

/* "CPU state" of the ABI: protected mode without paging, EBX = hvm_start_info. */
void pvh_entry_state(const struct multiboot_image *image, struct guest_entry *out);
