/* Guests by the Multiboot specification 0.6.96. Finding and checking the header and placing everything is
 * arithmetic on what a source gives; loading copies from the pristine files, so it can be repeated for every
 * restart. What the guest is told lies below 640 KiB; kernels and modules lie from 1 MiB on, below 3 GiB;
 * parts of a kernel may lie between GUEST_BOOT_FREE and GUEST_BOOT_INFO, for real mode. */
#pragma once

#include "hv/config/config.h"
#include "hv/guest/entry.h"
#include "hv/guest/layout.h"
#include "hv/guest/source.h"

#define MULTIBOOT_LOADER_NAME  "Bulkhead"
#define MULTIBOOT_SEARCH       8192u /* bytes at a file's start that hold the header */
#define MULTIBOOT_MAX_SEGMENTS 16u
#define MULTIBOOT_CMDLINE_MAX  0x10000u                            /* bytes, with NUL */
#define MULTIBOOT_STRING_MAX   (CONFIG_PATH_MAX + CONFIG_ARGS_MAX) /* of a module, with NUL */

enum multiboot_kind { MULTIBOOT_ELF32, MULTIBOOT_ELF64, MULTIBOOT_ADDRESSES };

/* All within the file, in [1 MiB, 4 GiB) or [GUEST_BOOT_FREE, GUEST_BOOT_INFO), not overlapping. */
struct multiboot_segment {
    uint64_t addr;
    uint64_t file_offset, file_size; /* bytes; file_size <= mem_size, the rest is zeroed */
    uint64_t mem_size;
};

struct multiboot_image {
    enum multiboot_kind kind;
    uint32_t flags; /* of the header */
    uint32_t entry; /* physical, inside a segment */
    uint64_t end;   /* behind the highest segment */
    uint32_t segment_count;
    struct multiboot_segment segments[MULTIBOOT_MAX_SEGMENTS];
};

enum multiboot_found {
    MULTIBOOT_NONE,
    MULTIBOOT_HEADER,
    MULTIBOOT_BAD_CHECKSUM, /* the magic number, but magic, flags and checksum do not sum to 0 */
    MULTIBOOT_UNREADABLE,
};

/* Looks for the header; its offset is valid only for MULTIBOOT_HEADER and MULTIBOOT_BAD_CHECKSUM. */
enum multiboot_found multiboot_find(const struct guest_source *file, uint32_t *offset);

/* The facts of a file that has a header. ERR_INVALID or ERR_UNSUPPORTED with a sentence in `why`. */
enum status multiboot_parse(const struct guest_source *file, struct multiboot_image *out, char *why,
                            size_t why_size);

/* A file without ELF's headers, as both versions' header fields describe it: addresses in memory. */
struct multiboot_addresses {
    uint64_t header, load, load_end, bss_end, entry; /* load_end 0: all of the file; bss_end 0: no bss */
};
/* The one segment of such a file; `offset` is that of the header. `*out` is empty. Errors as above. */
enum status multiboot_flat(const struct guest_source *file, uint32_t offset,
                           const struct multiboot_addresses *addresses, struct multiboot_image *out,
                           char *why, size_t why_size);
/* An ELF file by one of the Multiboot specifications: its segments and its entry, which lies in one of them.
 * `*out` is empty. Errors as above. */
enum status multiboot_elf(const struct guest_source *file, struct multiboot_image *out, char *why,
                          size_t why_size);

/* Whether an address lies in one of the segments. */
bool multiboot_holds(const struct multiboot_image *image, uint64_t addr);

/* For other protocols whose kernels are ELF files: what is to be loaded; the entry is not looked at. */
enum status multiboot_elf_segments(const struct guest_source *file, struct multiboot_image *out, char *why,
                                   size_t why_size);

/* A module: its file and the string that the guest is given with it. */
struct multiboot_module {
    struct guest_source source;
    char string[MULTIBOOT_STRING_MAX];
};

struct multiboot_plan {
    struct guest_layout layout;
    uint32_t module_count;
    uint64_t modules[CONFIG_MAX_MODULES]; /* addresses, page-aligned */
};

/* ERR_RANGE with a sentence naming the sizes in `why`: something does not fit. */
enum status multiboot_plan(const struct multiboot_image *image, const struct guest_layout *layout,
                           const struct multiboot_module *modules, uint32_t count, uint64_t cmdline_length,
                           struct multiboot_plan *out, char *why, size_t why_size);

/* Writes low memory (cleared), kernel, modules, and what the guest is told. The caller writes ACPI tables
 * after this call, which clears their area. */
enum status multiboot_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                           const struct gmem *g, const struct guest_source *kernel,
                           const struct multiboot_module *modules, const char *cmdline);

/* The kernel's part of multiboot_load(). */
void multiboot_put_segments(struct guest_writer *w, const struct multiboot_image *image,
                            const struct guest_source *kernel);

/* A module's contents, and the string that goes with it (MULTIBOOT_STRING_MAX bytes). */
void multiboot_put_module(struct guest_writer *w, const struct multiboot_module *module, uint64_t at,
                          uint64_t string);

/* "Machine state" in the specification: protected mode without paging. */
void multiboot_entry_state(const struct multiboot_image *image, struct guest_entry *out);
