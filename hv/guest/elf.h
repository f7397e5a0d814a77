/* ELF kernels, whatever their boot protocol: which files are taken, and their program headers. Arithmetic on
 * what a source gives; everything is what the file claims, but for what is said here. */
#pragma once

#include "hv/guest/source.h"

#define ELF_MAX_PARTS 64u
#define ELF_MAX_NOTES 8u

struct elf {
    const struct guest_source *file;
    bool wide;           /* ELF64 */
    uint64_t entry;      /* virtual */
    uint64_t headers;    /* where the program headers are in the file */
    uint32_t part_count; /* of them, 1 .. ELF_MAX_PARTS */
};

/* An executable for this processor, linked at a fixed address. ERR_NOT_FOUND: no ELF file at all; else
 * ERR_INVALID or ERR_UNSUPPORTED with a sentence in `why`. */
enum status elf_open(const struct guest_source *file, struct elf *out, char *why, size_t why_size);

#define ELF_PART_LOAD 1u
#define ELF_PART_NOTE 4u

/* A program header of either class, in the form of ELF64's. */
struct elf_part {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

/* False: it is not in the file. `index` is below part_count. */
bool elf_read_part(const struct elf *elf, uint32_t index, struct elf_part *out);

/* Notes; all within the file. */
struct elf_notes {
    uint64_t offset, size;
    uint32_t align; /* 4 or 8 */
};

/* The number of parts with notes, the first ELF_MAX_NOTES; 0 also if elf_open() does not take the file. */
uint32_t elf_find_notes(const struct guest_source *file, struct elf_notes out[ELF_MAX_NOTES]);
