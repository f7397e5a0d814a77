#include "hv/guest/pvh.h"
#include "hv/guest/e820.h"
#include "hv/guest/elf.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"
#include "hv/vcpu.h"

/* xen/include/public/elfnote.h */
#define NOTE_PHYS32_ENTRY 18u
#define NOTES_MAX         0x10000u /* bytes of one note segment that are searched */

/* xen/include/public/arch-x86/hvm/start_info.h */
#define START_MAGIC   0x336ec578u
#define START_VERSION 1u

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
    uint32_t memmap_entries, reserved;
};
STATIC_ASSERT(sizeof(struct start_info) == 56, "hvm_start_info, version 1");

struct modlist_entry {
    uint64_t paddr, size, cmdline_paddr, reserved;
};
STATIC_ASSERT(sizeof(struct modlist_entry) == 32, "hvm_modlist_entry");

struct memmap_entry {
    uint64_t addr, size;
    uint32_t type, reserved;
};
STATIC_ASSERT(sizeof(struct memmap_entry) == 24, "hvm_memmap_table_entry");

/* Where what the guest is told lies; all below GUEST_EBDA. */
#define LOW_MODULES 0x10100u
#define LOW_MMAP    0x10200u
#define LOW_STRINGS 0x10800u
#define LOW_CMDLINE 0x12000u /* as multiboot_plan() bounds it */
STATIC_ASSERT(LOW_MODULES + CONFIG_MAX_MODULES * sizeof(struct modlist_entry) <= LOW_MMAP,
              "modules have room");
STATIC_ASSERT(LOW_MMAP + E820_MAX * sizeof(struct memmap_entry) <= LOW_STRINGS, "the map has room");
STATIC_ASSERT(LOW_STRINGS + CONFIG_MAX_MODULES * MULTIBOOT_STRING_MAX <= LOW_CMDLINE, "strings have room");
STATIC_ASSERT(LOW_CMDLINE + MULTIBOOT_CMDLINE_MAX <= GUEST_EBDA, "the command line has room");

struct note {
    uint32_t name_size, desc_size, type;
};

/* Looks through one segment of notes. False: the entry's note is not in it. */
static bool find_in(const struct guest_source *file, const struct elf_notes *n, uint64_t *entry,
                    uint32_t *entry_size)
{
    static const char owner[] = "Xen";
    uint64_t size = n->size < NOTES_MAX ? n->size : NOTES_MAX, at = 0;
    struct note note;

    while (size - at >= sizeof(note) && source_read(file, n->offset + at, &note, sizeof(note))) {
        uint64_t name = at + sizeof(note), desc = align_up(name + note.name_size, n->align);
        char text[sizeof(owner)];
        if (desc > size || note.desc_size > size - desc)
            return false;
        if (note.type == NOTE_PHYS32_ENTRY && note.name_size == sizeof(owner) &&
            source_read(file, n->offset + name, text, sizeof(text)) &&
            memcmp(text, owner, sizeof(owner)) == 0) {
            *entry = 0;
            *entry_size = note.desc_size;
            return (note.desc_size != 4 && note.desc_size != 8) ||
                   source_read(file, n->offset + desc, entry, note.desc_size);
        }
        at = align_up(desc + note.desc_size, n->align);
        if (at > size)
            return false;
    }
    return false;
}

static bool find(const struct guest_source *file, uint64_t *entry, uint32_t *entry_size)
{
    struct elf_notes notes[ELF_MAX_NOTES];
    uint32_t count = elf_find_notes(file, notes);

    for (uint32_t i = 0; i < count; i++)
        if (find_in(file, &notes[i], entry, entry_size))
            return true;
    return false;
}

bool pvh_has_note(const struct guest_source *file)
{
    uint64_t entry;
    uint32_t size;

    return find(file, &entry, &size);
}

enum status pvh_parse(const struct guest_source *file, struct multiboot_image *out, char *why,
                      size_t why_size)
{
    uint64_t entry = 0;
    uint32_t size = 0;

    memset(out, 0, sizeof(*out));
    if (!find(file, &entry, &size))
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel has no PVH entry note");
    if (size != 4 && size != 8)
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel's PVH entry note is damaged: its value has %u bytes", size);
    enum status status = multiboot_elf_segments(file, out, why, why_size);
    if (status != STATUS_OK)
        return status;
    if (!multiboot_holds(out, entry))
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel's PVH entry point 0x%lx lies in none of its segments", entry);
    out->entry = (uint32_t)entry;
    return STATUS_OK;
}

static void put_modules(struct guest_writer *w, const struct multiboot_plan *plan,
                        const struct multiboot_module *modules)
{
    for (uint32_t i = 0; i < plan->module_count; i++) {
        const struct multiboot_module *m = &modules[i];
        uint64_t string = LOW_STRINGS + i * MULTIBOOT_STRING_MAX;
        const struct modlist_entry entry = {plan->modules[i], m->source.size, m->string[0] ? string : 0, 0};
        writer_put(w, LOW_MODULES + i * sizeof(entry), &entry, sizeof(entry));
        multiboot_put_module(w, m, plan->modules[i], string);
    }
}

static void put_info(struct guest_writer *w, const struct multiboot_plan *plan, const char *cmdline,
                     gpa_t rsdp)
{
    struct e820_entry map[E820_MAX];
    const struct start_info info = {
        .magic = START_MAGIC,
        .version = START_VERSION,
        .nr_modules = plan->module_count,
        .modlist_paddr = plan->module_count ? LOW_MODULES : 0,
        .cmdline_paddr = LOW_CMDLINE,
        .rsdp_paddr = rsdp.v,
        .memmap_paddr = LOW_MMAP,
        .memmap_entries = e820_build(&plan->layout, map),
    };

    for (uint32_t i = 0; i < info.memmap_entries; i++) {
        const struct memmap_entry entry = {map[i].base, map[i].size, map[i].type, 0};
        writer_put(w, LOW_MMAP + i * sizeof(entry), &entry, sizeof(entry));
    }
    writer_put(w, GUEST_BOOT_INFO, &info, sizeof(info));
    writer_put(w, LOW_CMDLINE, cmdline, str_length(cmdline) + 1);
}

enum status pvh_load(const struct multiboot_plan *plan, const struct multiboot_image *image,
                     const struct gmem *g, const struct guest_source *kernel,
                     const struct multiboot_module *modules, const char *cmdline, gpa_t rsdp)
{
    struct guest_writer w = {g, STATUS_OK};

    if (str_length(cmdline) >= MULTIBOOT_CMDLINE_MAX)
        return ERR_INVALID;
    writer_put_zeros(&w, 0, GUEST_VGA);
    entry_put_bios_data(&w);
    entry_put_flat_gdt(&w);
    multiboot_put_segments(&w, image, kernel);
    put_modules(&w, plan, modules);
    put_info(&w, plan, cmdline, rsdp);
    return w.status;
}

void pvh_entry_state(const struct multiboot_image *image, struct guest_entry *out)
{
    entry_flat32(out, image->entry);
    out->gpr[RBX] = GUEST_BOOT_INFO;
}
