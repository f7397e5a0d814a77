#include "boot/elf.h"
#include "hv/lib/addr.h"
#include "hv/lib/string.h"

/* System V ABI, "Object Files"; x86-64 supplement. */
#define ELF_CLASS_64    2u
#define ELF_DATA_LSB    1u
#define ELF_VERSION     1u
#define ELF_TYPE_EXEC   2u
#define ELF_MACHINE_X64 62u
#define PT_LOAD         1u
#define PT_DYNAMIC      2u
#define PT_INTERP       3u
#define PF_X            1u
#define PF_W            2u
#define PF_R            4u

struct elf_header {
    uint8_t ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
STATIC_ASSERT(sizeof(struct elf_header) == 64, "Elf64_Ehdr");

struct program_header {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};
STATIC_ASSERT(sizeof(struct program_header) == 56, "Elf64_Phdr");

static enum status refuse(enum status s, const char **why, const char *text)
{
    *why = text;
    return s;
}

static enum status check_header(struct span file, struct elf_header *h, const char **why)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', ELF_CLASS_64, ELF_DATA_LSB, ELF_VERSION};

    if (file.size < sizeof(*h))
        return refuse(ERR_INVALID, why, "shorter than an ELF header");
    memcpy(h, file.data, sizeof(*h));
    if (memcmp(h->ident, ident, sizeof(ident)) != 0)
        return refuse(ERR_INVALID, why, "not a little-endian ELF64 file");
    if (h->machine != ELF_MACHINE_X64)
        return refuse(ERR_INVALID, why, "not for x86-64");
    if (h->type != ELF_TYPE_EXEC || h->version != ELF_VERSION)
        return refuse(ERR_INVALID, why, "not an executable linked at a fixed address");
    if (h->phentsize != sizeof(struct program_header) || h->phnum == 0)
        return refuse(ERR_INVALID, why, "no program headers");
    if (h->phoff > file.size || (file.size - h->phoff) / sizeof(struct program_header) < h->phnum)
        return refuse(ERR_RANGE, why, "program headers outside the file");
    return STATUS_OK;
}

static enum status check_segment(struct span file, const struct program_header *p, uint64_t lowest,
                                 uint64_t limit, const char **why)
{
    if (p->vaddr & PAGE_MASK)
        return refuse(ERR_INVALID, why, "a segment does not start on a page");
    if (p->memsz < p->filesz)
        return refuse(ERR_INVALID, why, "a segment has more bytes in the file than in memory");
    if ((p->flags & (PF_W | PF_X)) == (PF_W | PF_X))
        return refuse(ERR_INVALID, why, "a segment is writable and executable");
    if (!(p->flags & PF_R))
        return refuse(ERR_INVALID, why, "a segment is not readable");
    if (p->offset > file.size || p->filesz > file.size - p->offset)
        return refuse(ERR_RANGE, why, "a segment's bytes lie outside the file");
    if (p->vaddr < lowest)
        return refuse(ERR_RANGE, why, "segments overlap, are out of order, or start below the image's base");
    if (p->vaddr >= limit || p->memsz > limit - p->vaddr)
        return refuse(ERR_RANGE, why, "a segment ends above the room for the image");
    return STATUS_OK;
}

static bool entry_is_code(const struct elf_image *image)
{
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segments[i];
        if (s->exec && image->entry >= s->va && image->entry - s->va < s->file_size)
            return true;
    }
    return false;
}

enum status elf_parse(struct span file, uint64_t base, uint64_t limit, struct elf_image *out,
                      const char **why)
{
    struct elf_header header;
    uint64_t end = base;

    *why = "";
    enum status s = check_header(file, &header, why);
    if (s)
        return s;
    *out = (struct elf_image){.entry = header.entry, .va = base};
    for (uint32_t i = 0; i < header.phnum; i++) {
        struct program_header p;
        memcpy(&p, file.data + header.phoff + i * sizeof(p), sizeof(p));
        if (p.type == PT_DYNAMIC || p.type == PT_INTERP)
            return refuse(ERR_INVALID, why, "needs a dynamic linker");
        if (p.type != PT_LOAD || p.memsz == 0)
            continue;
        s = check_segment(file, &p, end, limit, why);
        if (s)
            return s;
        if (out->segment_count == ELF_MAX_SEGMENTS)
            return refuse(ERR_NO_MEMORY, why, "too many segments");
        out->segments[out->segment_count++] = (struct elf_segment){
            .va = p.vaddr,
            .file_offset = p.offset,
            .file_size = p.filesz,
            .mem_size = p.memsz,
            .write = p.flags & PF_W,
            .exec = p.flags & PF_X,
        };
        end = align_up(p.vaddr + p.memsz, PAGE_SIZE);
    }
    if (!entry_is_code(out))
        return refuse(ERR_INVALID, why, "the entry point is not in an executable segment");
    out->size = end - base;
    return STATUS_OK;
}

void elf_load(const struct elf_image *image, struct span file, uint8_t *dest)
{
    memset(dest, 0, image->size);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segments[i];
        memcpy(dest + (s->va - image->va), file.data + s->file_offset, s->file_size);
    }
}
