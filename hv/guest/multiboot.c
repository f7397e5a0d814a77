#include "hv/guest/multiboot.h"
#include "arch/x86/cpu.h"
#include "hv/guest/e820.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"
#include "hv/vcpu.h"

/* "Multiboot header", section 3.1. */
#define HEADER_MAGIC     0x1badb002u
#define HEADER_ALIGN     4u
#define HEADER_SIZE      12u /* magic, flags, checksum */
#define HEADER_FULL_SIZE 32u /* and the address fields */
#define HEADER_MANDATORY 0x0000ffffu
#define HEADER_ALIGN_MOD 0x00000001u
#define HEADER_MEMORY    0x00000002u
#define HEADER_VIDEO     0x00000004u
#define HEADER_ADDRESSES 0x00010000u
/* A video mode is a wish: without a framebuffer a guest is told of none, as GRUB does in text mode. */
#define HEADER_KNOWN  (HEADER_ALIGN_MOD | HEADER_MEMORY | HEADER_VIDEO)
#define HEADER2_MAGIC 0xe85250d6u /* of Multiboot 2 */
#define SEARCH_PIECE  256u

/* "Boot information format", section 3.3. */
#define BOOT_MAGIC       0x2badb002u
#define INFO_FLAGS       0u
#define INFO_MEM_LOWER   4u
#define INFO_MEM_UPPER   8u
#define INFO_CMDLINE     16u
#define INFO_MODS_COUNT  20u
#define INFO_MODS_ADDR   24u
#define INFO_MMAP_LENGTH 44u
#define INFO_MMAP_ADDR   48u
#define INFO_LOADER_NAME 64u
#define INFO_HAS_MEM     0x001u
#define INFO_HAS_CMDLINE 0x004u
#define INFO_HAS_MODS    0x008u
#define INFO_HAS_MMAP    0x040u
#define INFO_HAS_NAME    0x200u
#define MODULE_SIZE      16u /* mod_start, mod_end, string, reserved */
#define MMAP_ENTRY_SIZE  20u /* what its `size` field says, which it does not count */

/* Where what the guest is told lies; all below GUEST_EBDA. */
#define LOW_BIOS_END  0x500u /* interrupt vectors and the BIOS data area */
#define LOW_GDT       0x1000u
#define LOW_STACK_TOP 0x9000u /* the specification gives no stack; this one is better than none */
#define LOW_INFO      0x10000u
#define LOW_NAME      0x10100u
#define LOW_MODULES   0x10200u
#define LOW_MMAP      0x10300u
#define LOW_STRINGS   0x10800u
#define LOW_CMDLINE   0x12000u
#define LOADER_NAME   "Bulkhead"
STATIC_ASSERT(LOW_MODULES + CONFIG_MAX_MODULES * MODULE_SIZE <= LOW_MMAP, "the module list has room");
STATIC_ASSERT(LOW_MMAP + E820_MAX * (MMAP_ENTRY_SIZE + 4) <= LOW_STRINGS, "the memory map has room");
STATIC_ASSERT(LOW_STRINGS + CONFIG_MAX_MODULES * MULTIBOOT_STRING_MAX <= LOW_CMDLINE, "strings have room");
STATIC_ASSERT(LOW_CMDLINE + MULTIBOOT_CMDLINE_MAX <= GUEST_EBDA, "the command line has room");

#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

/* System V ABI, "Object Files". */
#define ELF_IDENT       16u
#define ELF_CLASS       4u /* in the identification */
#define ELF_DATA        5u
#define ELF_CLASS_32    1u
#define ELF_CLASS_64    2u
#define ELF_DATA_LSB    1u
#define ELF_TYPE_EXEC   2u
#define ELF_MACHINE_386 3u
#define ELF_MACHINE_X64 62u
#define PT_LOAD         1u
#define PT_NOTE         4u

struct elf32_header {
    uint8_t ident[ELF_IDENT];
    uint16_t type, machine;
    uint32_t version, entry, phoff, shoff, flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
STATIC_ASSERT(sizeof(struct elf32_header) == 52, "Elf32_Ehdr");

struct elf64_header {
    uint8_t ident[ELF_IDENT];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
STATIC_ASSERT(sizeof(struct elf64_header) == 64, "Elf64_Ehdr");

struct program_header32 {
    uint32_t type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
STATIC_ASSERT(sizeof(struct program_header32) == 32, "Elf32_Phdr");

struct program_header64 {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};
STATIC_ASSERT(sizeof(struct program_header64) == 56, "Elf64_Phdr");

/* What both classes say, in one form. */
struct elf {
    bool wide; /* ELF64 */
    uint64_t entry, phoff;
    uint32_t phnum, phentsize;
};

struct parse {
    const struct guest_source *file;
    struct multiboot_image *out;
    char *why;
    size_t why_size;
};

static enum status refuse(const struct parse *p, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum status refuse(const struct parse *p, enum status status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fmt_vformat(p->why, p->why_size, format, args);
    va_end(args);
    return status;
}

static enum status refuse_unreadable(const struct parse *p)
{
    return refuse(p, ERR_INVALID, "the kernel file cannot be read");
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- finding the header ---- */

enum multiboot_found multiboot_find(const struct guest_source *file, uint32_t *offset)
{
    enum multiboot_found found = MULTIBOOT_NONE;
    uint64_t end = file->size < MULTIBOOT_SEARCH ? file->size : MULTIBOOT_SEARCH;
    uint8_t piece[SEARCH_PIECE + HEADER_SIZE];

    *offset = 0;
    for (uint64_t at = 0; at + HEADER_SIZE <= end; at += SEARCH_PIECE) {
        size_t size = end - at < sizeof(piece) ? (size_t)(end - at) : sizeof(piece);
        if (!source_read(file, at, piece, size))
            return MULTIBOOT_UNREADABLE;
        for (size_t i = 0; i < SEARCH_PIECE && i + HEADER_SIZE <= size; i += HEADER_ALIGN) {
            uint32_t magic = get32(piece + i), flags = get32(piece + i + 4), sum = get32(piece + i + 8);
            if (magic == HEADER_MAGIC && magic + flags + sum == 0) {
                *offset = (uint32_t)(at + i);
                return MULTIBOOT_HEADER;
            }
            if (found != MULTIBOOT_NONE || (magic != HEADER_MAGIC && magic != HEADER2_MAGIC))
                continue;
            found = magic == HEADER_MAGIC ? MULTIBOOT_BAD_CHECKSUM : MULTIBOOT_VERSION_2;
            *offset = (uint32_t)(at + i);
        }
    }
    return found;
}

/* ---- segments ---- */

static enum status add_segment(const struct parse *p, const struct multiboot_segment *s)
{
    struct multiboot_image *out = p->out;

    if (s->file_offset > p->file->size || s->file_size > p->file->size - s->file_offset)
        return refuse(p, ERR_INVALID,
                      "the kernel file is truncated: a segment has %lu bytes at 0x%lx, the file has %lu",
                      s->file_size, s->file_offset, p->file->size);
    if (s->mem_size < s->file_size)
        return refuse(
            p, ERR_INVALID,
            "the kernel's headers are damaged: a segment of %lu bytes in memory has %lu in the file",
            s->mem_size, s->file_size);
    if (s->addr < GUEST_ONE_MIB)
        return refuse(p, ERR_UNSUPPORTED,
                      "the kernel wants to be loaded at 0x%lx: link it for 1 MiB (0x100000) or above",
                      s->addr);
    if (s->addr >= GUEST_FOUR_GIB || s->mem_size > GUEST_FOUR_GIB - s->addr)
        return refuse(p, ERR_UNSUPPORTED,
                      "the kernel wants to be loaded at 0x%lx (%lu bytes), which is not below 4 GiB", s->addr,
                      s->mem_size);
    for (uint32_t i = 0; i < out->segment_count; i++) {
        const struct multiboot_segment *other = &out->segments[i];
        if (s->addr < other->addr + other->mem_size && other->addr < s->addr + s->mem_size)
            return refuse(p, ERR_INVALID,
                          "the kernel's headers are damaged: segments at 0x%lx and 0x%lx overlap",
                          other->addr, s->addr);
    }
    if (out->segment_count == MULTIBOOT_MAX_SEGMENTS)
        return refuse(p, ERR_UNSUPPORTED, "the kernel has more than %u segments to load",
                      MULTIBOOT_MAX_SEGMENTS);
    out->segments[out->segment_count++] = *s;
    if (out->end < s->addr + s->mem_size)
        out->end = s->addr + s->mem_size;
    return STATUS_OK;
}

/* "The address fields of Multiboot header", section 3.1.3. */
static enum status parse_addresses(const struct parse *p, uint32_t offset)
{
    uint8_t header[HEADER_FULL_SIZE];

    if (offset > MULTIBOOT_SEARCH - HEADER_FULL_SIZE || !source_read(p->file, offset, header, sizeof(header)))
        return refuse(p, ERR_INVALID,
                      "the kernel's Multiboot header is cut off: its address fields are missing");
    uint64_t header_addr = get32(header + 12), load = get32(header + 16), load_end = get32(header + 20);
    uint64_t bss_end = get32(header + 24), entry = get32(header + 28);
    if (load > header_addr || header_addr - load > offset)
        return refuse(p, ERR_INVALID,
                      "the kernel's Multiboot header is damaged: header address 0x%lx, load address 0x%lx, "
                      "header at 0x%x of the file",
                      header_addr, load, offset);
    struct multiboot_segment s = {.addr = load, .file_offset = offset - (header_addr - load)};
    if (!load_end) /* 0: up to the end of the file */
        load_end = load + (p->file->size - s.file_offset);
    if (!bss_end) /* 0: none */
        bss_end = load_end;
    if (load_end <= load || bss_end < load_end || entry < load || entry >= bss_end)
        return refuse(
            p, ERR_INVALID,
            "the kernel's Multiboot header is damaged: load 0x%lx to 0x%lx, bss to 0x%lx, entry 0x%lx", load,
            load_end, bss_end, entry);
    s.file_size = load_end - load;
    s.mem_size = bss_end - load;
    p->out->kind = MULTIBOOT_ADDRESSES;
    p->out->entry = (uint32_t)entry;
    return add_segment(p, &s);
}

/* ---- ELF ---- */

static enum status read_elf_header(const struct parse *p, struct elf *elf)
{
    static const uint8_t magic[] = {0x7f, 'E', 'L', 'F'};
    union {
        uint8_t ident[ELF_IDENT];
        struct elf32_header narrow;
        struct elf64_header wide;
    } h;
    uint16_t type, machine;

    if (!source_read(p->file, 0, &h, sizeof(h.narrow)) || memcmp(h.ident, magic, sizeof(magic)) != 0)
        return refuse(
            p, ERR_INVALID,
            "the kernel has a Multiboot header, but is no ELF file and the header has no load addresses");
    elf->wide = h.ident[ELF_CLASS] == ELF_CLASS_64;
    if (elf->wide && !source_read(p->file, 0, &h, sizeof(h.wide)))
        return refuse(p, ERR_INVALID, "the kernel file is truncated within its ELF header");
    if ((!elf->wide && h.ident[ELF_CLASS] != ELF_CLASS_32) || h.ident[ELF_DATA] != ELF_DATA_LSB)
        return refuse(p, ERR_INVALID, "the kernel is not a little-endian ELF32 or ELF64 file");
    type = elf->wide ? h.wide.type : h.narrow.type;
    machine = elf->wide ? h.wide.machine : h.narrow.machine;
    if (machine != (elf->wide ? ELF_MACHINE_X64 : ELF_MACHINE_386))
        return refuse(p, ERR_UNSUPPORTED, "the kernel is an ELF%u file for another processor (machine %u)",
                      elf->wide ? 64 : 32, machine);
    if (type != ELF_TYPE_EXEC)
        return refuse(
            p, ERR_UNSUPPORTED,
            "the kernel is not linked at a fixed address (ELF type %u): link it with -static -no-pie", type);
    elf->entry = elf->wide ? h.wide.entry : h.narrow.entry;
    elf->phoff = elf->wide ? h.wide.phoff : h.narrow.phoff;
    elf->phnum = elf->wide ? h.wide.phnum : h.narrow.phnum;
    elf->phentsize = elf->wide ? h.wide.phentsize : h.narrow.phentsize;
    if (elf->phentsize != (elf->wide ? sizeof(struct program_header64) : sizeof(struct program_header32)) ||
        elf->phnum == 0 || elf->phnum > MULTIBOOT_MAX_PHDRS)
        return refuse(p, ERR_INVALID, "the kernel's ELF header is damaged: %u program headers of %u bytes",
                      elf->phnum, elf->phentsize);
    return STATUS_OK;
}

static bool read_program_header(const struct parse *p, const struct elf *elf, uint32_t index,
                                struct program_header64 *out)
{
    struct program_header32 narrow;
    uint64_t size = p->file->size, skip = (uint64_t)index * elf->phentsize;

    if (elf->phoff > size || skip > size - elf->phoff)
        return false;
    if (elf->wide)
        return source_read(p->file, elf->phoff + skip, out, sizeof(*out));
    if (!source_read(p->file, elf->phoff + skip, &narrow, sizeof(narrow)))
        return false;
    *out = (struct program_header64){
        .type = narrow.type,
        .offset = narrow.offset,
        .vaddr = narrow.vaddr,
        .paddr = narrow.paddr,
        .filesz = narrow.filesz,
        .memsz = narrow.memsz,
        .align = narrow.align,
    };
    return true;
}

static enum status parse_elf(const struct parse *p)
{
    struct elf elf = {0};
    bool has_entry = false;
    enum status status = read_elf_header(p, &elf);

    for (uint32_t i = 0; status == STATUS_OK && i < elf.phnum; i++) {
        struct program_header64 h;
        if (!read_program_header(p, &elf, i, &h))
            return refuse(p, ERR_INVALID, "the kernel file is truncated within its program headers");
        if (h.type != PT_LOAD || h.memsz == 0)
            continue;
        struct multiboot_segment s = {h.paddr, h.offset, h.filesz, h.memsz};
        status = add_segment(p, &s);
        if (status != STATUS_OK || elf.entry < h.vaddr || elf.entry - h.vaddr >= h.memsz || has_entry)
            continue;
        has_entry = true; /* e_entry is virtual: kernels that run elsewhere than they are loaded exist */
        p->out->entry = (uint32_t)(elf.entry - h.vaddr + h.paddr);
    }
    if (status == STATUS_OK && !has_entry)
        return refuse(p, ERR_INVALID, "the kernel's entry point 0x%lx lies in none of its segments",
                      elf.entry);
    p->out->kind = elf.wide ? MULTIBOOT_ELF64 : MULTIBOOT_ELF32;
    return status;
}

enum status multiboot_parse(const struct guest_source *file, struct multiboot_image *out, char *why,
                            size_t why_size)
{
    struct parse p = {file, out, why, why_size};
    uint8_t header[HEADER_SIZE];
    uint32_t offset;

    memset(out, 0, sizeof(*out));
    if (multiboot_find(file, &offset) != MULTIBOOT_HEADER)
        return refuse(&p, ERR_INVALID, "the kernel has no Multiboot header in its first %u bytes",
                      MULTIBOOT_SEARCH);
    if (!source_read(file, offset, header, sizeof(header)))
        return refuse_unreadable(&p);
    out->flags = get32(header + 4);
    if (out->flags & HEADER_MANDATORY & ~HEADER_KNOWN)
        return refuse(&p, ERR_UNSUPPORTED,
                      "the kernel's Multiboot header demands what Bulkhead does not know (flags 0x%x)",
                      out->flags & HEADER_MANDATORY & ~HEADER_KNOWN);
    return out->flags & HEADER_ADDRESSES ? parse_addresses(&p, offset) : parse_elf(&p);
}

enum status multiboot_elf_segments(const struct guest_source *file, struct multiboot_image *out, char *why,
                                   size_t why_size)
{
    struct parse p = {file, out, why, why_size};
    struct elf elf = {0};
    enum status status = read_elf_header(&p, &elf);

    for (uint32_t i = 0; status == STATUS_OK && i < elf.phnum; i++) {
        struct program_header64 h;
        if (!read_program_header(&p, &elf, i, &h))
            return refuse(&p, ERR_INVALID, "the kernel file is truncated within its program headers");
        if (h.type != PT_LOAD || h.memsz == 0)
            continue;
        struct multiboot_segment s = {h.paddr, h.offset, h.filesz, h.memsz};
        status = add_segment(&p, &s);
    }
    out->kind = elf.wide ? MULTIBOOT_ELF64 : MULTIBOOT_ELF32;
    return status;
}

uint32_t multiboot_elf_notes(const struct guest_source *file, struct multiboot_notes out[MULTIBOOT_MAX_NOTES])
{
    struct parse p = {.file = file};
    struct elf elf = {0};
    uint32_t count = 0;

    if (read_elf_header(&p, &elf) != STATUS_OK)
        return 0;
    for (uint32_t i = 0; i < elf.phnum && count < MULTIBOOT_MAX_NOTES; i++) {
        struct program_header64 h;
        if (!read_program_header(&p, &elf, i, &h))
            break;
        if (h.type != PT_NOTE || h.offset > file->size || h.filesz > file->size - h.offset)
            continue;
        out[count++] = (struct multiboot_notes){h.offset, h.filesz, h.align == 8 ? 8 : 4};
    }
    return count;
}

/* ---- placing ---- */

enum status multiboot_plan(const struct multiboot_image *image, const struct guest_layout *layout,
                           const struct multiboot_module *modules, uint32_t count, uint64_t cmdline_length,
                           struct multiboot_plan *out, char *why, size_t why_size)
{
    struct parse p = {.why = why, .why_size = why_size};
    uint64_t at = align_up(image->end, PAGE_SIZE);

    memset(out, 0, sizeof(*out));
    out->layout = *layout;
    if (cmdline_length >= MULTIBOOT_CMDLINE_MAX)
        return refuse(&p, ERR_RANGE, "the command line is too long: %lu bytes", cmdline_length);
    if (count > CONFIG_MAX_MODULES)
        return refuse(&p, ERR_RANGE, "there are too many modules: %u, at most %u", count, CONFIG_MAX_MODULES);
    if (at > layout->low_end)
        return refuse(&p, ERR_RANGE,
                      "the kernel does not fit: it ends at 0x%lx, the VM's memory below 3 GiB at 0x%lx; set "
                      "memory = %luM or more, if that is possible",
                      image->end, layout->low_end, align_up(image->end, PMEM_UNIT) >> 20);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size = modules[i].source.size;
        if (size > layout->low_end - at)
            return refuse(
                &p, ERR_RANGE,
                "module %u does not fit: it has %lu KiB, above the kernel and the modules before it %lu "
                "KiB are left below 3 GiB",
                i + 1, (size >> 10) + (size % 1024 != 0), (layout->low_end - at) >> 10);
        /* On pages, whether the header asks for it or not. */
        out->modules[i] = at;
        at = align_up(at + size, PAGE_SIZE);
    }
    out->module_count = count;
    return STATUS_OK;
}

/* ---- loading ---- */

static void put_modules(struct guest_writer *w, const struct multiboot_plan *plan,
                        const struct multiboot_module *modules)
{
    for (uint32_t i = 0; i < plan->module_count; i++) {
        const struct multiboot_module *m = &modules[i];
        uint64_t entry = LOW_MODULES + i * MODULE_SIZE, string = LOW_STRINGS + i * MULTIBOOT_STRING_MAX;
        writer_put_value(w, entry, plan->modules[i], 4);
        writer_put_value(w, entry + 4, plan->modules[i] + m->source.size, 4);
        writer_put_value(w, entry + 8, string, 4);
        writer_put(w, string, m->string, sizeof(m->string));
        writer_put_source(w, plan->modules[i], &m->source, 0, m->source.size);
    }
}

/* Answers the bytes of the map. */
static uint32_t put_memory_map(struct guest_writer *w, const struct guest_layout *layout)
{
    struct e820_entry map[E820_MAX];
    uint32_t count = e820_build(layout, map);

    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = LOW_MMAP + i * (MMAP_ENTRY_SIZE + 4);
        writer_put_value(w, at, MMAP_ENTRY_SIZE, 4);
        writer_put(w, at + 4, &map[i], sizeof(map[i]));
    }
    STATIC_ASSERT(sizeof(map[0]) == MMAP_ENTRY_SIZE, "the map has the BIOS's form");
    return count * (MMAP_ENTRY_SIZE + 4);
}

static void put_info(struct guest_writer *w, const struct multiboot_plan *plan, const char *cmdline)
{
    static const char name[] = LOADER_NAME;
    uint32_t map_size = put_memory_map(w, &plan->layout);

    writer_put_value(w, LOW_INFO + INFO_FLAGS,
                     INFO_HAS_MEM | INFO_HAS_CMDLINE | INFO_HAS_MODS | INFO_HAS_MMAP | INFO_HAS_NAME, 4);
    writer_put_value(w, LOW_INFO + INFO_MEM_LOWER, GUEST_EBDA >> 10, 4);
    writer_put_value(w, LOW_INFO + INFO_MEM_UPPER, (plan->layout.low_end - GUEST_ONE_MIB) >> 10, 4);
    writer_put_value(w, LOW_INFO + INFO_CMDLINE, LOW_CMDLINE, 4);
    writer_put_value(w, LOW_INFO + INFO_MODS_COUNT, plan->module_count, 4);
    writer_put_value(w, LOW_INFO + INFO_MODS_ADDR, LOW_MODULES, 4);
    writer_put_value(w, LOW_INFO + INFO_MMAP_LENGTH, map_size, 4);
    writer_put_value(w, LOW_INFO + INFO_MMAP_ADDR, LOW_MMAP, 4);
    writer_put_value(w, LOW_INFO + INFO_LOADER_NAME, LOW_NAME, 4);
    writer_put(w, LOW_NAME, name, sizeof(name));
    writer_put(w, LOW_CMDLINE, cmdline, str_length(cmdline) + 1);
}

void multiboot_put_segments(struct guest_writer *w, const struct multiboot_image *image,
                            const struct guest_source *kernel)
{
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct multiboot_segment *s = &image->segments[i];
        writer_put_source(w, s->addr, kernel, s->file_offset, s->file_size);
        writer_put_zeros(w, s->addr + s->file_size, s->mem_size - s->file_size);
    }
}

/* Flat 32-bit code and data, accessed, present, ring 0. */
static const uint64_t boot_gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff};

enum status multiboot_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                           const struct gmem *g, const struct guest_source *kernel,
                           const struct multiboot_module *modules, const char *cmdline)
{
    struct guest_writer w = {g, STATUS_OK};

    if (str_length(cmdline) >= MULTIBOOT_CMDLINE_MAX)
        return ERR_INVALID;
    /* What a BIOS and a boot loader write. The rest is zero at a VM's first start, and as the guest left it
     * when it reset its machine: test programs count their resets there. */
    writer_put_zeros(&w, 0, LOW_BIOS_END);
    writer_put_zeros(&w, LOW_INFO, LOW_CMDLINE + MULTIBOOT_CMDLINE_MAX - LOW_INFO);
    writer_put_zeros(&w, GUEST_ROM, GUEST_ONE_MIB - GUEST_ROM);
    writer_put(&w, LOW_GDT, boot_gdt, sizeof(boot_gdt));
    multiboot_put_segments(&w, image, kernel);
    put_modules(&w, plan, modules);
    put_info(&w, plan, cmdline);
    return w.status;
}

void multiboot_entry_state(const struct multiboot_image *image, struct guest_entry *out)
{
    *out = (struct guest_entry){
        .rip = image->entry,
        .rsp = LOW_STACK_TOP,
        .rflags = RFLAGS_FIXED_1,
        .cr0 = CR0_PE | CR0_ET | CR0_NE,
        .gdt_base = LOW_GDT,
        .gdt_limit = sizeof(boot_gdt) - 1,
        .cs = BOOT_CS,
        .ds = BOOT_DS,
        .gpr = {[RAX] = BOOT_MAGIC, [RBX] = LOW_INFO},
    };
}
