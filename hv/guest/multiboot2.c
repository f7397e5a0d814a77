#include "hv/guest/multiboot2.h"
#include "hv/guest/e820.h"
#include "hv/lib/bits.h"
#include "hv/lib/bytes.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

/* The header: "OS image format". */
#define HEADER_MAGIC   0xe85250d6u
#define HEADER_ALIGN   8u
#define HEADER_SIZE    16u /* magic, architecture, length, checksum; tags follow */
#define ARCH_I386      0u
#define TAG_HEAD       8u /* type (2 bytes), flags (2), size (4, without the padding to 8) */
#define TAG_OPTIONAL   1u
#define SEARCH_PIECE   256u
#define LOAD_FROM_0    UINT32_MAX /* load_addr: the file is loaded from its beginning */
#define CONSOLE_NEEDED 1u

enum header_tag {
    TAG_END,
    TAG_REQUEST,
    TAG_ADDRESSES,
    TAG_ENTRY,
    TAG_CONSOLE,
    TAG_FRAMEBUFFER,
    TAG_ALIGN,
    TAG_EFI_SERVICES,
    TAG_EFI_ENTRY_32,
    TAG_EFI_ENTRY_64,
    TAG_RELOCATABLE,
};
#define ADDRESSES_SIZE 24u
#define ENTRY_SIZE     12u
#define CONSOLE_SIZE   12u

/* What the guest is told: "Boot information format". */
#define BOOT_MAGIC 0x36d76289u
#define INFO_HEAD  8u /* total size, reserved */
#define MMAP_ENTRY 24u
#define RSDP_SIZE  36u
enum info_tag {
    INFO_END = 0,
    INFO_CMDLINE = 1,
    INFO_LOADER = 2,
    INFO_MODULE = 3,
    INFO_MEMORY = 4,
    INFO_MMAP = 6,
    INFO_RSDP = 15,
};
#define INFO_KNOWN                                                                                           \
    (1u << INFO_CMDLINE | 1u << INFO_LOADER | 1u << INFO_MODULE | 1u << INFO_MEMORY | 1u << INFO_MMAP |      \
     1u << INFO_RSDP)

/* Low memory, as for Multiboot 1. The RSDP's tag comes first: it is filled last. */
#define LOW_RSDP (GUEST_BOOT_INFO + INFO_HEAD + TAG_HEAD)
#define INFO_MAX (MULTIBOOT_CMDLINE_MAX + CONFIG_MAX_MODULES * (MULTIBOOT_STRING_MAX + 32u) + 0x400u)
STATIC_ASSERT(GUEST_BOOT_INFO + INFO_MAX < GUEST_EBDA, "it fits below the EBDA");

#define RAX 0u
#define RBX 3u

/* ---- the header ---- */

static bool is_header(const uint8_t *p)
{
    uint32_t length = bytes_get32(p + 8);
    return bytes_get32(p) + bytes_get32(p + 4) + length + bytes_get32(p + 12) == 0 &&
           length >= HEADER_SIZE + TAG_HEAD && length <= MULTIBOOT2_SEARCH;
}

bool multiboot2_find(const struct guest_source *file, uint32_t *offset, bool *bad)
{
    uint64_t end = file->size < MULTIBOOT2_SEARCH ? file->size : MULTIBOOT2_SEARCH;
    uint8_t piece[SEARCH_PIECE + HEADER_SIZE];

    *bad = false;
    *offset = 0;
    for (uint64_t at = 0; at + HEADER_SIZE <= end; at += SEARCH_PIECE) {
        size_t size = end - at < sizeof(piece) ? (size_t)(end - at) : sizeof(piece);
        if (!source_read(file, at, piece, size))
            return false;
        for (size_t i = 0; i < SEARCH_PIECE && i + HEADER_SIZE <= size; i += HEADER_ALIGN) {
            if (bytes_get32(piece + i) != HEADER_MAGIC)
                continue;
            *offset = (uint32_t)(at + i);
            if (is_header(piece + i))
                return true;
            *bad = true;
        }
    }
    return false;
}

/* What the tags ask for. */
struct wishes {
    bool has_addresses, has_entry;
    struct multiboot_addresses addresses;
    uint32_t entry;
};

struct parse {
    const struct guest_source *file;
    char *why;
    size_t why_size;
};

/* Everything that the kernel cannot do without must be what multiboot2_load() gives. */
static enum status take_request(const struct parse *p, uint64_t at, uint32_t size)
{
    uint8_t type[4];

    for (uint32_t i = TAG_HEAD; i + sizeof(type) <= size; i += sizeof(type)) {
        if (!source_read(p->file, at + i, type, sizeof(type)))
            return fmt_refuse(p->why, p->why_size, ERR_INVALID, "the kernel file cannot be read");
        uint32_t wanted = bytes_get32(type);
        if (wanted >= 32 || !(INFO_KNOWN >> wanted & 1))
            return fmt_refuse(p->why, p->why_size, ERR_UNSUPPORTED,
                              "the kernel demands boot information of type %u, which Bulkhead does not have",
                              wanted);
    }
    return STATUS_OK;
}

static enum status take_tag(const struct parse *p, uint64_t at, const uint8_t head[TAG_HEAD],
                            struct wishes *wishes)
{
    uint16_t type = bytes_get16(head);
    uint32_t size = bytes_get32(head + 4);
    bool optional = bytes_get16(head + 2) & TAG_OPTIONAL;
    uint8_t body[ADDRESSES_SIZE] = {0};

    if (!source_read(p->file, at, body, size < sizeof(body) ? size : sizeof(body)))
        return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                          "the kernel file is truncated within its Multiboot 2 header");
    switch (type) {
    case TAG_REQUEST:
        return optional ? STATUS_OK : take_request(p, at, size);
    case TAG_ADDRESSES:
        if (size < ADDRESSES_SIZE)
            break;
        wishes->has_addresses = true;
        wishes->addresses.header = bytes_get32(body + 8);
        wishes->addresses.load = bytes_get32(body + 12);
        wishes->addresses.load_end = bytes_get32(body + 16);
        wishes->addresses.bss_end = bytes_get32(body + 20);
        return STATUS_OK;
    case TAG_ENTRY:
        if (size < ENTRY_SIZE)
            break;
        wishes->has_entry = true;
        wishes->entry = bytes_get32(body + 8);
        return STATUS_OK;
    case TAG_CONSOLE:
        if (size >= CONSOLE_SIZE && !optional && (bytes_get32(body + 8) & CONSOLE_NEEDED))
            return fmt_refuse(
                p->why, p->why_size, ERR_UNSUPPORTED,
                "the kernel demands a text screen, which a VM does not have: its console is the "
                "serial port");
        return STATUS_OK;
    case TAG_FRAMEBUFFER: /* a wish about the mode, if there is one */
    case TAG_ALIGN:       /* modules are on pages anyway */
    case TAG_EFI_ENTRY_32:
    case TAG_EFI_ENTRY_64: /* for EFI machines */
    case TAG_RELOCATABLE:  /* it is loaded where it is linked */
        return STATUS_OK;
    default:
        return optional ? STATUS_OK
                        : fmt_refuse(
                              p->why, p->why_size, ERR_UNSUPPORTED,
                              "the kernel's Multiboot 2 header demands what Bulkhead does not know (tag %u)",
                              type);
    }
    return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                      "the kernel's Multiboot 2 header is damaged: tag %u has %u bytes", type, size);
}

static enum status take_tags(const struct parse *p, uint32_t offset, struct wishes *wishes)
{
    uint8_t header[HEADER_SIZE], head[TAG_HEAD];

    if (!source_read(p->file, offset, header, sizeof(header)))
        return fmt_refuse(p->why, p->why_size, ERR_INVALID, "the kernel file cannot be read");
    if (bytes_get32(header + 4) != ARCH_I386)
        return fmt_refuse(p->why, p->why_size, ERR_UNSUPPORTED,
                          "the kernel is for another processor (Multiboot 2 architecture %u)",
                          bytes_get32(header + 4));
    uint64_t end = (uint64_t)offset + bytes_get32(header + 8);
    for (uint64_t at = offset + HEADER_SIZE; at + TAG_HEAD <= end;) {
        if (!source_read(p->file, at, head, sizeof(head)))
            return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                              "the kernel file is truncated within its Multiboot 2 header");
        uint32_t size = bytes_get32(head + 4);
        if (size < TAG_HEAD || size > end - at)
            return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                              "the kernel's Multiboot 2 header is damaged: tag %u has %u bytes, %lu are left",
                              bytes_get16(head), size, end - at);
        if (bytes_get16(head) == TAG_END)
            return STATUS_OK;
        enum status status = take_tag(p, at, head, wishes);
        if (status != STATUS_OK)
            return status;
        at += align_up(size, HEADER_ALIGN);
    }
    return fmt_refuse(p->why, p->why_size, ERR_INVALID,
                      "the kernel's Multiboot 2 header is damaged: its tags do not end");
}

enum status multiboot2_parse(const struct guest_source *file, struct multiboot_image *out, char *why,
                             size_t why_size)
{
    const struct parse p = {file, why, why_size};
    struct wishes wishes = {0};
    uint32_t offset;
    bool bad;

    memset(out, 0, sizeof(*out));
    if (!multiboot2_find(file, &offset, &bad))
        return fmt_refuse(p.why, p.why_size, ERR_INVALID,
                          "the kernel has no Multiboot 2 header in its first %u bytes", MULTIBOOT2_SEARCH);
    enum status status = take_tags(&p, offset, &wishes);
    if (status != STATUS_OK)
        return status;
    if (wishes.has_addresses && !wishes.has_entry)
        return fmt_refuse(p.why, p.why_size, ERR_INVALID,
                          "the kernel's Multiboot 2 header has load addresses, but no entry");
    if (wishes.addresses.load == LOAD_FROM_0)
        wishes.addresses.load = wishes.addresses.header - offset;
    wishes.addresses.entry = wishes.entry;
    if (wishes.has_addresses)
        status = multiboot_flat(file, offset, &wishes.addresses, out, why, why_size);
    else if (wishes.has_entry)
        status = multiboot_elf_segments(file, out, why, why_size);
    else
        status = multiboot_elf(file, out, why, why_size);
    if (status != STATUS_OK || !wishes.has_entry)
        return status;
    out->entry = wishes.entry;
    if (!multiboot_holds(out, wishes.entry))
        return fmt_refuse(p.why, p.why_size, ERR_INVALID,
                          "the kernel's entry point 0x%x lies in none of its segments", wishes.entry);
    return STATUS_OK;
}

/* ---- loading ---- */

struct info_writer {
    struct guest_writer w;
    uint64_t at;
};

/* Begins a tag of `size` bytes behind its head; answers where those go. */
static uint64_t put_tag(struct info_writer *o, enum info_tag type, uint64_t size)
{
    uint64_t body = o->at + TAG_HEAD;
    writer_put_value(&o->w, o->at, (uint32_t)type, 4);
    writer_put_value(&o->w, o->at + 4, TAG_HEAD + size, 4);
    o->at = align_up(body + size, HEADER_ALIGN);
    return body;
}

static void put_string_tag(struct info_writer *o, enum info_tag type, const char *text)
{
    uint64_t size = str_length(text) + 1;
    writer_put(&o->w, put_tag(o, type, size), text, size);
}

static void put_memory(struct info_writer *o, const struct guest_layout *layout)
{
    struct e820_entry map[E820_MAX];
    uint32_t count = e820_build(layout, map);
    uint64_t body = put_tag(o, INFO_MEMORY, 8);

    writer_put_value(&o->w, body, GUEST_EBDA >> 10, 4);
    writer_put_value(&o->w, body + 4, (layout->low_end - GUEST_ONE_MIB) >> 10, 4);
    body = put_tag(o, INFO_MMAP, 8 + count * MMAP_ENTRY);
    writer_put_value(&o->w, body, MMAP_ENTRY, 4);
    writer_put_value(&o->w, body + 4, 0, 4); /* version */
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = body + 8 + i * MMAP_ENTRY;
        writer_put(&o->w, at, &map[i], sizeof(map[i])); /* base, length, type */
        writer_put_value(&o->w, at + sizeof(map[i]), 0, 4);
    }
}

static void put_modules(struct info_writer *o, const struct multiboot_plan *plan,
                        const struct multiboot_module *modules)
{
    for (uint32_t i = 0; i < plan->module_count; i++) {
        uint64_t size = str_length(modules[i].string) + 1, body = put_tag(o, INFO_MODULE, 8 + size);
        writer_put_value(&o->w, body, plan->modules[i], 4);
        writer_put_value(&o->w, body + 4, plan->modules[i] + modules[i].source.size, 4);
        writer_put(&o->w, body + 8, modules[i].string, size);
        writer_put_source(&o->w, plan->modules[i], &modules[i].source, 0, modules[i].source.size);
    }
}

enum status multiboot2_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                            const struct gmem *g, const struct guest_source *kernel,
                            const struct multiboot_module *modules, const char *cmdline)
{
    struct info_writer o = {{g, STATUS_OK}, GUEST_BOOT_INFO + INFO_HEAD};

    if (str_length(cmdline) >= MULTIBOOT_CMDLINE_MAX)
        return ERR_INVALID;
    entry_put_bios_data(&o.w);
    writer_put_zeros(&o.w, GUEST_BOOT_INFO, INFO_MAX);
    entry_put_flat_gdt(&o.w);
    multiboot_put_segments(&o.w, image, kernel);
    (void)put_tag(&o, INFO_RSDP, RSDP_SIZE);
    put_string_tag(&o, INFO_CMDLINE, cmdline);
    put_string_tag(&o, INFO_LOADER, MULTIBOOT_LOADER_NAME);
    put_memory(&o, &plan->layout);
    put_modules(&o, plan, modules);
    (void)put_tag(&o, INFO_END, 0);
    writer_put_value(&o.w, GUEST_BOOT_INFO, o.at - GUEST_BOOT_INFO, 4);
    return o.w.status;
}

enum status multiboot2_put_rsdp(const struct gmem *g, gpa_t rsdp)
{
    uint8_t copy[RSDP_SIZE];
    enum status status = gmem_read(g, rsdp, copy, sizeof(copy));
    return status == STATUS_OK ? gmem_write(g, gpa(LOW_RSDP), copy, sizeof(copy)) : status;
}

void multiboot2_entry_state(const struct multiboot_image *image, struct guest_entry *out)
{
    entry_flat32(out, image->entry);
    out->rsp = GUEST_BOOT_STACK_TOP;
    out->gpr[RAX] = BOOT_MAGIC;
    out->gpr[RBX] = GUEST_BOOT_INFO;
}
