/* The core's ELF image: validation and loading. Pure. */
#pragma once

#include "hv/lib/types.h"

#define ELF_MAX_SEGMENTS 16

/* A PT_LOAD segment. Page-aligned start; [va, va + align_up(mem_size, 4096)) does not overlap another one. */
struct elf_segment {
    uint64_t va;
    uint64_t file_offset, file_size; /* within the file, file_size <= mem_size */
    uint64_t mem_size;               /* bytes, > 0 */
    bool write, exec;                /* never both */
};

struct elf_image {
    uint64_t entry; /* inside an executable segment */
    uint64_t va;    /* what `offset 0` of the loaded image means: the caller's base */
    uint64_t size;  /* bytes from va to the end of the last segment, whole pages */
    uint32_t segment_count;
    struct elf_segment segments[ELF_MAX_SEGMENTS]; /* ascending */
};

/* Checks an ELF64 x86-64 executable whose segments must lie in [base, limit), both page-aligned. On failure
 * ERR_INVALID (not what we can run), ERR_RANGE (points outside the file or the address range) or
 * ERR_NO_MEMORY (too many segments), and *why is a static text. */
enum status elf_parse(struct span file, uint64_t base, uint64_t limit, struct elf_image *out,
                      const char **why);

/* Fills `dest` (image->size bytes) with the image of a file that elf_parse accepted; gaps and .bss are zero.
 */
void elf_load(const struct elf_image *image, struct span file, uint8_t *dest);
