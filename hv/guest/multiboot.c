#include "hv/guest/multiboot.h"
#include "hv/guest/e820.h"
#include "hv/guest/elf.h"
#include "hv/lib/bytes.h"
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
#define HEADER_KNOWN (HEADER_ALIGN_MOD | HEADER_MEMORY | HEADER_VIDEO)
#define SEARCH_PIECE 256u

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
#define LOW_NAME    0x10100u
#define LOW_MODULES 0x10200u
#define LOW_MMAP    0x10300u
#define LOW_STRINGS 0x10800u
#define LOW_CMDLINE 0x12000u
STATIC_ASSERT(LOW_MODULES + CONFIG_MAX_MODULES * MODULE_SIZE <= LOW_MMAP, "the module list has room");
STATIC_ASSERT(LOW_MMAP + E820_MAX * (MMAP_ENTRY_SIZE + 4) <= LOW_STRINGS, "the memory map has room");
STATIC_ASSERT(LOW_STRINGS + CONFIG_MAX_MODULES * MULTIBOOT_STRING_MAX <= LOW_CMDLINE, "strings have room");
STATIC_ASSERT(LOW_CMDLINE + MULTIBOOT_CMDLINE_MAX <= GUEST_EBDA, "the command line has room");

struct parse {
    const struct guest_source *file;
    struct multiboot_image *out;
    char *why;
    size_t why_size;
};

static enum status refuse_unreadable(const struct parse *p)
{
    return fmt_refuse(p->why, p->why_size, ERR_INVALID, "the kernel file cannot be read");
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
            uint32_t magic = bytes_get32(piece + i), flags = bytes_get32(piece + i + 4),
                     sum = bytes_get32(piece + i + 8);
            if (magic == HEADER_MAGIC && magic + flags + sum == 0) {
                *offset = (uint32_t)(at + i);
                return MULTIBOOT_HEADER;
            }
            if (found != MULTIBOOT_NONE || magic != HEADER_MAGIC)
                continue;
            found = MULTIBOOT_BAD_CHECKSUM;
            *offset = (uint32_t)(at + i);
        }
    }
    return found;
}

/* ---- segments ---- */

/* Between the loaders' own things; programs for real mode are linked there. */
static bool is_low(const struct multiboot_segment *s)
{
    return s->addr >= GUEST_BOOT_FREE && s->addr < GUEST_BOOT_INFO &&
           s->mem_size <= GUEST_BOOT_INFO - s->addr;
}

static enum status add_segment(const struct parse *p, const struct multiboot_segment *s)
{
    struct multiboot_image *out = p->out;

    if (s->file_offset > p->file->size || s->file_size > p->file->size - s->file_offset)
        return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                          "the kernel file is truncated: a segment has %lu bytes at 0x%lx, the file has %lu",
                          s->file_size, s->file_offset, p->file->size);
    if (s->mem_size < s->file_size)
        return fmt_refuse(
            p->why, p->why_size, ERR_INVALID,
            "the kernel's headers are damaged: a segment of %lu bytes in memory has %lu in the file",
            s->mem_size, s->file_size);
    if (s->addr < GUEST_ONE_MIB && !is_low(s))
        return fmt_refuse(
            p->why, p->why_size, ERR_UNSUPPORTED,
            "the kernel wants to be loaded at 0x%lx (%lu bytes): link it for 1 MiB (0x100000) or above, "
            "or for 0x%x to 0x%x",
            s->addr, s->mem_size, GUEST_BOOT_FREE, GUEST_BOOT_INFO);
    if (s->addr >= GUEST_FOUR_GIB || s->mem_size > GUEST_FOUR_GIB - s->addr)
        return fmt_refuse(p->why, p->why_size, ERR_UNSUPPORTED,
                          "the kernel wants to be loaded at 0x%lx (%lu bytes), which is not below 4 GiB",
                          s->addr, s->mem_size);
    for (uint32_t i = 0; i < out->segment_count; i++) {
        const struct multiboot_segment *other = &out->segments[i];
        if (s->addr < other->addr + other->mem_size && other->addr < s->addr + s->mem_size)
            return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                              "the kernel's headers are damaged: segments at 0x%lx and 0x%lx overlap",
                              other->addr, s->addr);
    }
    if (out->segment_count == MULTIBOOT_MAX_SEGMENTS)
        return fmt_refuse(p->why, p->why_size, ERR_UNSUPPORTED,
                          "the kernel has more than %u segments to load", MULTIBOOT_MAX_SEGMENTS);
    out->segments[out->segment_count++] = *s;
    if (out->end < s->addr + s->mem_size)
        out->end = s->addr + s->mem_size;
    return STATUS_OK;
}

bool multiboot_holds(const struct multiboot_image *image, uint64_t addr)
{
    for (uint32_t i = 0; i < image->segment_count; i++)
        if (addr >= image->segments[i].addr && addr - image->segments[i].addr < image->segments[i].mem_size)
            return true;
    return false;
}

enum status multiboot_flat(const struct guest_source *file, uint32_t offset,
                           const struct multiboot_addresses *addresses, struct multiboot_image *out,
                           char *why, size_t why_size)
{
    const struct parse p = {file, out, why, why_size};
    struct multiboot_addresses a = *addresses;

    if (a.load > a.header || a.header - a.load > offset)
        return fmt_refuse(
            p.why, p.why_size, ERR_INVALID,
            "the kernel's Multiboot header is damaged: header address 0x%lx, load address 0x%lx, "
            "header at 0x%x of the file",
            a.header, a.load, offset);
    struct multiboot_segment s = {.addr = a.load, .file_offset = offset - (a.header - a.load)};
    if (!a.load_end)
        a.load_end = a.load + (file->size - s.file_offset);
    if (!a.bss_end)
        a.bss_end = a.load_end;
    if (a.load_end <= a.load || a.bss_end < a.load_end || a.entry < a.load || a.entry >= a.bss_end)
        return fmt_refuse(
            p.why, p.why_size, ERR_INVALID,
            "the kernel's Multiboot header is damaged: load 0x%lx to 0x%lx, bss to 0x%lx, entry 0x%lx",
            a.load, a.load_end, a.bss_end, a.entry);
    s.file_size = a.load_end - a.load;
    s.mem_size = a.bss_end - a.load;
    out->kind = MULTIBOOT_ADDRESSES;
    out->entry = (uint32_t)a.entry;
    return add_segment(&p, &s);
}

/* "The address fields of Multiboot header", section 3.1.3. */
static enum status parse_addresses(const struct parse *p, uint32_t offset)
{
    uint8_t header[HEADER_FULL_SIZE];

    if (offset > MULTIBOOT_SEARCH - HEADER_FULL_SIZE || !source_read(p->file, offset, header, sizeof(header)))
        return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                          "the kernel's Multiboot header is cut off: its address fields are missing");
    struct multiboot_addresses a = {.header = bytes_get32(header + 12),
                                    .load = bytes_get32(header + 16),
                                    .load_end = bytes_get32(header + 20),
                                    .bss_end = bytes_get32(header + 24),
                                    .entry = bytes_get32(header + 28)};
    return multiboot_flat(p->file, offset, &a, p->out, p->why, p->why_size);
}

/* ---- ELF ---- */

/* Adds what is to be loaded. *has_entry: the file's entry point lies in it, and is the image's. */
static enum status add_elf(const struct parse *p, const struct elf *elf, bool *has_entry)
{
    enum status status = STATUS_OK;

    *has_entry = false;
    for (uint32_t i = 0; status == STATUS_OK && i < elf->part_count; i++) {
        struct elf_part part;
        if (!elf_read_part(elf, i, &part))
            return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                              "the kernel file is truncated within its program headers");
        if (part.type != ELF_PART_LOAD || part.memsz == 0)
            continue;
        struct multiboot_segment s = {part.paddr, part.offset, part.filesz, part.memsz};
        status = add_segment(p, &s);
        if (status != STATUS_OK || elf->entry < part.vaddr || elf->entry - part.vaddr >= part.memsz ||
            *has_entry)
            continue;
        *has_entry = true; /* e_entry is virtual: kernels that run elsewhere than they are loaded exist */
        p->out->entry = (uint32_t)(elf->entry - part.vaddr + part.paddr);
    }
    p->out->kind = elf->wide ? MULTIBOOT_ELF64 : MULTIBOOT_ELF32;
    return status;
}

enum status multiboot_elf(const struct guest_source *file, struct multiboot_image *out, char *why,
                          size_t why_size)
{
    const struct parse p = {file, out, why, why_size};
    struct elf elf;
    bool has_entry;
    enum status status = elf_open(file, &elf, why, why_size);

    if (status == ERR_NOT_FOUND)
        return fmt_refuse(
            p.why, p.why_size, ERR_INVALID,
            "the kernel has a Multiboot header, but is no ELF file and the header has no load addresses");
    if (status == STATUS_OK)
        status = add_elf(&p, &elf, &has_entry);
    if (status == STATUS_OK && !has_entry)
        return fmt_refuse(p.why, p.why_size, ERR_INVALID,
                          "the kernel's entry point 0x%lx lies in none of its segments", elf.entry);
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
        return fmt_refuse(p.why, p.why_size, ERR_INVALID,
                          "the kernel has no Multiboot header in its first %u bytes", MULTIBOOT_SEARCH);
    if (!source_read(file, offset, header, sizeof(header)))
        return refuse_unreadable(&p);
    out->flags = bytes_get32(header + 4);
    if (out->flags & HEADER_MANDATORY & ~HEADER_KNOWN)
        return fmt_refuse(p.why, p.why_size, ERR_UNSUPPORTED,
                          "the kernel's Multiboot header demands what Bulkhead does not know (flags 0x%x)",
                          out->flags & HEADER_MANDATORY & ~HEADER_KNOWN);
    return out->flags & HEADER_ADDRESSES ? parse_addresses(&p, offset)
                                         : multiboot_elf(file, out, why, why_size);
}

enum status multiboot_elf_segments(const struct guest_source *file, struct multiboot_image *out, char *why,
                                   size_t why_size)
{
    struct parse p = {file, out, why, why_size};
    struct elf elf;
    bool has_entry;
    enum status status = elf_open(file, &elf, why, why_size);

    if (status == ERR_NOT_FOUND)
        return fmt_refuse(p.why, p.why_size, ERR_INVALID, "the kernel is no ELF file");
    return status == STATUS_OK ? add_elf(&p, &elf, &has_entry) : status;
}

/* ---- placing ---- */

enum status multiboot_plan(const struct multiboot_image *image, const struct guest_layout *layout,
                           const struct multiboot_module *modules, uint32_t count, uint64_t cmdline_length,
                           struct multiboot_plan *out, char *why, size_t why_size)
{
    struct parse p = {.why = why, .why_size = why_size};
    uint64_t at = align_up(image->end > GUEST_ONE_MIB ? image->end : GUEST_ONE_MIB, PAGE_SIZE);

    memset(out, 0, sizeof(*out));
    out->layout = *layout;
    if (cmdline_length >= MULTIBOOT_CMDLINE_MAX)
        return fmt_refuse(p.why, p.why_size, ERR_RANGE, "the command line is too long: %lu bytes",
                          cmdline_length);
    if (count > CONFIG_MAX_MODULES)
        return fmt_refuse(p.why, p.why_size, ERR_RANGE, "there are too many modules: %u, at most %u", count,
                          CONFIG_MAX_MODULES);
    if (at > layout->low_end)
        return fmt_refuse(
            p.why, p.why_size, ERR_RANGE,
            "the kernel does not fit: it ends at 0x%lx, the VM's memory below 3 GiB at 0x%lx; set "
            "memory = %luM or more, if that is possible",
            image->end, layout->low_end, align_up(image->end, PMEM_UNIT) >> 20);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size = modules[i].source.size;
        if (size > layout->low_end - at)
            return fmt_refuse(
                p.why, p.why_size, ERR_RANGE,
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

void multiboot_put_module(struct guest_writer *w, const struct multiboot_module *module, uint64_t at,
                          uint64_t string)
{
    writer_put(w, string, module->string, sizeof(module->string));
    writer_put_source(w, at, &module->source, 0, module->source.size);
}

static void put_modules(struct guest_writer *w, const struct multiboot_plan *plan,
                        const struct multiboot_module *modules)
{
    for (uint32_t i = 0; i < plan->module_count; i++) {
        uint64_t entry = LOW_MODULES + i * MODULE_SIZE, string = LOW_STRINGS + i * MULTIBOOT_STRING_MAX;
        writer_put_value(w, entry, plan->modules[i], 4);
        writer_put_value(w, entry + 4, plan->modules[i] + modules[i].source.size, 4);
        writer_put_value(w, entry + 8, string, 4);
        multiboot_put_module(w, &modules[i], plan->modules[i], string);
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
    static const char name[] = MULTIBOOT_LOADER_NAME;
    uint32_t map_size = put_memory_map(w, &plan->layout);

    writer_put_value(w, GUEST_BOOT_INFO + INFO_FLAGS,
                     INFO_HAS_MEM | INFO_HAS_CMDLINE | INFO_HAS_MODS | INFO_HAS_MMAP | INFO_HAS_NAME, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_MEM_LOWER, GUEST_EBDA >> 10, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_MEM_UPPER, (plan->layout.low_end - GUEST_ONE_MIB) >> 10, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_CMDLINE, LOW_CMDLINE, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_MODS_COUNT, plan->module_count, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_MODS_ADDR, LOW_MODULES, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_MMAP_LENGTH, map_size, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_MMAP_ADDR, LOW_MMAP, 4);
    writer_put_value(w, GUEST_BOOT_INFO + INFO_LOADER_NAME, LOW_NAME, 4);
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

enum status multiboot_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                           const struct gmem *g, const struct guest_source *kernel,
                           const struct multiboot_module *modules, const char *cmdline)
{
    struct guest_writer w = {g, STATUS_OK};

    if (str_length(cmdline) >= MULTIBOOT_CMDLINE_MAX)
        return ERR_INVALID;
    /* What a BIOS and a boot loader write. The rest is zero at a VM's first start, and as the guest left it
     * when it reset its machine: test programs count their resets there. */
    entry_put_bios_data(&w);
    writer_put_zeros(&w, GUEST_BOOT_INFO, LOW_CMDLINE + MULTIBOOT_CMDLINE_MAX - GUEST_BOOT_INFO);
    entry_put_flat_gdt(&w);
    multiboot_put_segments(&w, image, kernel);
    put_modules(&w, plan, modules);
    put_info(&w, plan, cmdline);
    return w.status;
}

void multiboot_entry_state(const struct multiboot_image *image, struct guest_entry *out)
{
    entry_flat32(out, image->entry);
    out->rsp = GUEST_BOOT_STACK_TOP;
    out->gpr[RAX] = BOOT_MAGIC;
    out->gpr[RBX] = GUEST_BOOT_INFO;
}
