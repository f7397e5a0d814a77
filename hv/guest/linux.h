/* Linux by its 64-bit boot protocol. Checking and placing are pure arithmetic; loading copies from the
 * pristine files to guest memory, piece by piece, so it can be repeated for every restart. */
#pragma once

#include "hv/gmem.h"
#include "hv/guest/layout.h"

#define LINUX_HEAD_SIZE                                                                                      \
    4096u /* bytes of the file's start that linux_check_image() wants to see (fewer if it is shorter) */
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

/* Is this a bzImage that Bulkhead can start? `head`: the file's first bytes (LINUX_HEAD_SIZE, or all of a
 * shorter file). ERR_INVALID or ERR_UNSUPPORTED with a full sentence in `why` (what it is, what to do). */
enum status linux_check_image(struct span head, uint64_t file_size, char *why, size_t why_size);
/* The same, and answers the facts. */
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

/* A file kept in host memory that is not permanently mapped. */
struct linux_source {
    void *ctx;
    uint64_t size;
    /* Bytes from `offset` (< size): a pointer to at least one of them, *length how many can be read there;
     * valid until the next call. It must survive gmem's window moving. NULL: failure. */
    const void *(*map)(void *ctx, uint64_t offset, size_t *length);
};

/* Writes low memory (cleared), GDT, page tables, zero page, command line, kernel and initrd. `initrd` may be
 * NULL when the plan has none. `rsdp`: from acpi_build (tables are written by the caller, after this call: it
 * clears the area). */
enum status linux_load(const struct linux_plan *plan, const struct linux_image *image, const struct gmem *g,
                       const struct linux_source *kernel, const struct linux_source *initrd,
                       const char *cmdline, gpa_t rsdp);

/* How the boot vCPU begins: 64-bit mode, flat segments, interrupts off. */
#define LINUX_BOOT_CS 0x10u
#define LINUX_BOOT_DS 0x18u
struct linux_entry {
    uint64_t rip, rsi, rsp, rflags;
    uint64_t cr0, cr3, cr4, efer;
    uint64_t gdt_base;
    uint16_t gdt_limit;
};
void linux_entry_state(const struct linux_plan *plan, struct linux_entry *out);
