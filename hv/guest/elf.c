#include "hv/guest/elf.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

/* System V ABI, "Object Files". */
#define IDENT       16u
#define IDENT_CLASS 4u
#define IDENT_DATA  5u
#define CLASS_32    1u
#define CLASS_64    2u
#define DATA_LSB    1u
#define TYPE_EXEC   2u
#define MACHINE_386 3u
#define MACHINE_X64 62u

struct header32 {
    uint8_t ident[IDENT];
    uint16_t type, machine;
    uint32_t version, entry, phoff, shoff, flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
STATIC_ASSERT(sizeof(struct header32) == 52, "Elf32_Ehdr");

struct header64 {
    uint8_t ident[IDENT];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
STATIC_ASSERT(sizeof(struct header64) == 64, "Elf64_Ehdr");

struct part32 {
    uint32_t type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
STATIC_ASSERT(sizeof(struct part32) == 32, "Elf32_Phdr");
STATIC_ASSERT(sizeof(struct elf_part) == 56, "Elf64_Phdr");

union header {
    uint8_t ident[IDENT];
    struct header32 narrow;
    struct header64 wide;
};

static enum status read_header(const struct guest_source *file, union header *h, char *why, size_t why_size)
{
    static const uint8_t magic[] = {0x7f, 'E', 'L', 'F'};

    if (!source_read(file, 0, h, sizeof(h->narrow)) || memcmp(h->ident, magic, sizeof(magic)) != 0)
        return ERR_NOT_FOUND;
    bool wide = h->ident[IDENT_CLASS] == CLASS_64;
    if (wide && !source_read(file, 0, h, sizeof(h->wide)))
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel file is truncated within its ELF header");
    if ((!wide && h->ident[IDENT_CLASS] != CLASS_32) || h->ident[IDENT_DATA] != DATA_LSB)
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel is not a little-endian ELF32 or ELF64 file");
    return STATUS_OK;
}

enum status elf_open(const struct guest_source *file, struct elf *out, char *why, size_t why_size)
{
    union header h;
    enum status status = read_header(file, &h, why, why_size);

    if (status != STATUS_OK)
        return status;
    bool wide = h.ident[IDENT_CLASS] == CLASS_64;
    uint32_t type = wide ? h.wide.type : h.narrow.type;
    uint32_t machine = wide ? h.wide.machine : h.narrow.machine;
    uint32_t size = wide ? h.wide.phentsize : h.narrow.phentsize;
    *out = (struct elf){
        .file = file,
        .wide = wide,
        .entry = wide ? h.wide.entry : h.narrow.entry,
        .headers = wide ? h.wide.phoff : h.narrow.phoff,
        .part_count = wide ? h.wide.phnum : h.narrow.phnum,
    };
    if (machine != (wide ? MACHINE_X64 : MACHINE_386))
        return fmt_refuse(why, why_size, ERR_UNSUPPORTED,
                          "the kernel is an ELF%u file for another processor (machine %u)", wide ? 64 : 32,
                          machine);
    if (type != TYPE_EXEC)
        return fmt_refuse(
            why, why_size, ERR_UNSUPPORTED,
            "the kernel is not linked at a fixed address (ELF type %u): link it with -static -no-pie", type);
    if (size != (wide ? sizeof(struct elf_part) : sizeof(struct part32)) || out->part_count == 0 ||
        out->part_count > ELF_MAX_PARTS)
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel's ELF header is damaged: %u program headers of %u bytes",
                          out->part_count, size);
    return STATUS_OK;
}

bool elf_read_part(const struct elf *elf, uint32_t index, struct elf_part *out)
{
    struct part32 narrow;
    uint64_t each = elf->wide ? sizeof(*out) : sizeof(narrow), size = elf->file->size;

    if (elf->headers > size || index * each > size - elf->headers)
        return false;
    if (elf->wide)
        return source_read(elf->file, elf->headers + index * each, out, sizeof(*out));
    if (!source_read(elf->file, elf->headers + index * each, &narrow, sizeof(narrow)))
        return false;
    *out = (struct elf_part){
        .type = narrow.type,
        .flags = narrow.flags,
        .offset = narrow.offset,
        .vaddr = narrow.vaddr,
        .paddr = narrow.paddr,
        .filesz = narrow.filesz,
        .memsz = narrow.memsz,
        .align = narrow.align,
    };
    return true;
}

uint32_t elf_find_notes(const struct guest_source *file, struct elf_notes out[ELF_MAX_NOTES])
{
    struct elf elf;
    uint32_t count = 0;

    if (elf_open(file, &elf, NULL, 0) != STATUS_OK)
        return 0;
    for (uint32_t i = 0; i < elf.part_count && count < ELF_MAX_NOTES; i++) {
        struct elf_part part;
        if (!elf_read_part(&elf, i, &part))
            break;
        if (part.type != ELF_PART_NOTE || part.offset > file->size || part.filesz > file->size - part.offset)
            continue;
        out[count++] = (struct elf_notes){part.offset, part.filesz, part.align == 8 ? 8 : 4};
    }
    return count;
}
