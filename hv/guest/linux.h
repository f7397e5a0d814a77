/* Linux by its 64-bit boot protocol. Checking and placing are pure arithmetic; loading copies from the
 * pristine files to guest memory, piece by piece, so it can be repeated for every restart. */
#pragma once

#include "hv/guest/entry.h"
#include "hv/guest/layout.h"
#include "hv/guest/source.h"

#define LINUX_HEAD_SIZE 0x290u /* bytes of the file's start that hold the longest header */
#define LINUX_SETUP_MAX 0x100u /* bytes of the setup header kept: file offsets 0x1f1 .. */

/* What the setup header says, checked. */
struct linux_image {
    uint16_t version;      /* boot protocol, 0x020f = 2.15 */
    uint64_t setup_size;   /* bytes of real-mode code at the file's start */
    uint64_t payload_size; /* bytes to load, from setup_size on */
    uint64_t pref_address; /* where the kernel wants to run */
    uint64_t init_size;    /* bytes it needs there */
    uint64_t alignment;    /* power of two */
    uint64_t initrd_max;   /* last byte an initrd may occupy */
    uint32_t cmdline_max;  /* bytes without the terminating NUL */
    uint32_t header_size;  /* bytes in `header` */
    uint8_t header[LINUX_SETUP_MAX];
};

/* Does the file carry the mark of Linux' boot protocol? */
bool linux_has_mark(struct span head);
/* Is this a bzImage that Bulkhead can start, and what does it say? `head`: the file's first bytes
 * (LINUX_HEAD_SIZE, or all of a shorter file). ERR_INVALID or ERR_UNSUPPORTED with a full sentence in `why`
 * (what it is, what to do). */
enum status linux_parse_image(struct span head, uint64_t file_size, struct linux_image *out, char *why,
                              size_t why_size);

/* Where everything goes, and how the vCPU begins. All guest-physical, bytes. */
struct linux_plan {
    struct guest_layout layout;
    uint64_t kernel, kernel_end; /* kernel_end: kernel + init_size */
    uint64_t payload_size, setup_size;
    uint64_t initrd, initrd_size; /* 0: none */
    uint64_t boot_params, cmdline, gdt, page_tables;
};

/* ERR_RANGE with a sentence naming the sizes in `why`: something does not fit. */
enum status linux_plan(const struct linux_image *image, const struct guest_layout *layout,
                       uint64_t initrd_size, uint64_t cmdline_length, struct linux_plan *out, char *why,
                       size_t why_size);

/* Writes low memory (cleared), GDT, page tables, zero page, command line, kernel and initrd. `initrd` may be
 * NULL when the plan has none. `rsdp`: from acpi_build (tables are written by the caller, after this call: it
 * clears the area). */
enum status linux_load(const struct linux_plan *plan, const struct linux_image *image, const struct gmem *g,
                       const struct guest_source *kernel, const struct guest_source *initrd,
                       const char *cmdline, gpa_t rsdp);

/* 64-bit mode, flat segments, interrupts off. */
void linux_entry_state(const struct linux_plan *plan, struct guest_entry *out);
