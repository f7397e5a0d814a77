/* PVH kernels from anywhere: the entry comes from a note of Xen's and from nowhere else, what is accepted
 * lies within the file and within the places that hv/guest/multiboot.h promises, reads never leave the file,
 * and a kernel that is loaded finds itself, its module and what the protocol tells it. */
#include "hv/guest/e820.h"
#include "hv/guest/pvh.h"
#include "tests/fuzz/fuzz_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY  (8u << 20)
#define CMDLINE "a command line"
#define RSDP    0xe1230u
#define MARK    0x5a /* what memory held before */
#define EBX     3

static uint8_t memory[MEMORY];

static void *map_page(void *ctx, hpa_t page)
{
    (void)ctx;
    CHECK(page.v < MEMORY);
    return memory + page.v;
}

static uint64_t get(uint64_t at, unsigned bytes)
{
    uint64_t v = 0;
    CHECK(at <= MEMORY - bytes);
    memcpy(&v, memory + at, bytes);
    return v;
}

static uint8_t file_byte(const struct input *in, uint64_t at)
{
    return at < in->size ? in->data[at] : 0;
}

/* "x86/HVM direct boot ABI": hvm_start_info and what it leads to. */
static void check_start_info(uint64_t at, const struct multiboot_plan *plan, const struct input *module)
{
    struct e820_entry map[E820_MAX];
    uint32_t entries = e820_build(&plan->layout, map);
    CHECK(get(at, 4) == 0x336ec578 && get(at + 4, 4) == 1 && get(at + 12, 4) == 1);
    CHECK(memcmp(memory + get(at + 24, 8), CMDLINE, sizeof(CMDLINE)) == 0 && get(at + 32, 8) == RSDP);
    uint64_t list = get(at + 16, 8), where = get(list, 8), table = get(at + 40, 8);
    CHECK(where == plan->modules[0] && get(list + 8, 8) == module->file_size);
    for (uint64_t i = 0; i < module->file_size; i++)
        CHECK(get(where + i, 1) == file_byte(module, i));
    CHECK(get(at + 48, 4) == entries);
    for (uint32_t i = 0; i < entries; i++)
        CHECK(get(table + 24 * i, 8) == map[i].base && get(table + 24 * i + 8, 8) == map[i].size &&
              get(table + 24 * i + 16, 4) == map[i].type);
}

static void check_load(struct input *in, const struct guest_source *file, const struct multiboot_image *image)
{
    static const uint8_t bytes[] = "the module's contents, more than one piece of them: it goes on and on";
    struct input contents = {bytes, sizeof(bytes), sizeof(bytes)};
    const struct multiboot_module module = {.source = {&contents, contents.file_size, map_file},
                                            .string = "m"};
    struct multiboot_plan plan;
    struct guest_layout layout;
    struct guest_entry entry;
    struct gmem g;
    char why[200];

    CHECK(guest_layout_init(&layout, MEMORY) == STATUS_OK);
    if (multiboot_plan(image, &layout, &module, 1, sizeof(CMDLINE) - 1, &plan, why, sizeof(why)) != STATUS_OK)
        return;
    const struct pmem_extent extent = {0, MEMORY};
    gmem_init(&g, map_page, NULL);
    CHECK(guest_layout_fill(&layout, &extent, 1, &g) == STATUS_OK);
    memset(memory, MARK, sizeof(memory));
    CHECK(pvh_load(&plan, image, &g, file, &module, CMDLINE, gpa(RSDP)) == STATUS_OK);
    pvh_entry_state(image, &entry);
    CHECK(entry.rip == image->entry && !entry.long_mode && !entry.real_mode);
    check_start_info(entry.gpr[EBX], &plan, &contents);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct multiboot_segment *s = &image->segments[i];
        for (uint64_t j = 0; j < s->mem_size; j++)
            CHECK(get(s->addr + j, 1) == (j < s->file_size ? file_byte(in, s->file_offset + j) : 0));
    }
}

/* Somewhere in the file are the note's type and owner. The last of their bytes may be among the zeros that
 * follow the input. */
static bool has_owner(const struct input *in)
{
    static const uint8_t note[] = {18, 0, 0, 0, 'X', 'e', 'n', 0};
    for (size_t at = 0; at < in->size; at++) {
        size_t same = 0;
        while (same < sizeof(note) && file_byte(in, at + same) == note[same])
            same++;
        if (same == sizeof(note))
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct multiboot_image image;
    struct input in;
    char why[200];

    if (!input_begin(&in, data, size))
        return 0;
    struct guest_source file = {&in, in.file_size, map_file};
    bool has_note = pvh_has_note(&file);
    CHECK(!has_note || has_owner(&in));
    memset(why, MARK, sizeof(why));
    if (pvh_parse(&file, &image, why, sizeof(why)) == STATUS_OK) {
        CHECK(has_note);
        check_image(&in, &image);
        check_load(&in, &file, &image);
    } else {
        CHECK(memchr(why, 0, sizeof(why) - 1) && why[0]); /* a sentence, not cut */
    }
    return 0;
}
