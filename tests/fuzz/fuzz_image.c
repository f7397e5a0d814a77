/* Kernels of any format, with initrds and modules of any size: recognised, placed and loaded. What is
 * accepted can be loaded, into the VM's own memory only, and begins in it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/guest/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define RAW_KNOB  0x80u /* a raw image, for the address in the bits above */
#define HOST_BASE (1ull << 40)
#define LOAD_MAX  (16ull << 20) /* bytes; more is only slow */

struct knobs {
    uint32_t more;   /* bytes of zeros behind the kernel's */
    uint32_t memory; /* in units of 256 bytes */
    uint32_t initrd, module_count, modules[2];
};

static uint64_t memory;

/* Guest pages are not kept: each write must stay in one page, and the page in what the layout gave. */
static void *map_page(void *ctx, hpa_t page)
{
    static uint8_t buf[4096];
    (void)ctx;
    CHECK(page.v % 4096 == 0 && page.v >= HOST_BASE && page.v - HOST_BASE < memory);
    return buf;
}

struct input {
    const uint8_t *data;
    size_t size;
    uint64_t file_size;
};

static const void *map_file(void *ctx, uint64_t offset, size_t *length)
{
    static uint8_t piece[1 << 16];
    const struct input *in = ctx;
    uint64_t left = in->file_size - offset;

    CHECK(offset < in->file_size);
    *length = left < sizeof(piece) ? (size_t)left : sizeof(piece);
    memset(piece, 0, *length);
    if (offset < in->size)
        memcpy(piece, in->data + offset, in->size - offset < *length ? in->size - offset : *length);
    return piece;
}

static void check_multiboot(const struct guest_image *image, const struct guest_files *files)
{
    const struct multiboot_plan *plan = &image->multiboot.plan;
    uint64_t end = image->multiboot.image.end;

    CHECK(plan->module_count == files->module_count && !files->initrd.size);
    for (uint32_t i = 0; i < plan->module_count; i++) {
        CHECK(plan->modules[i] >= end && plan->modules[i] % 4096 == 0);
        end = plan->modules[i] + files->modules[i].source.size;
    }
    CHECK(end <= image->layout.low_end);
}

/* The entry is in a segment; the initrd or the modules lie behind the kernel, in order. */
static void check_pvh(const struct guest_image *image, const struct guest_files *files)
{
    const struct multiboot_plan *plan = &image->multiboot.plan;
    const struct multiboot_image *kernel = &image->multiboot.image;
    uint64_t end = kernel->end;
    bool has_entry = false;

    CHECK(plan->module_count == (files->initrd.size ? 1 : files->module_count));
    CHECK(!files->initrd.size || !files->module_count);
    for (uint32_t i = 0; i < plan->module_count; i++) {
        CHECK(plan->modules[i] >= end && plan->modules[i] % 4096 == 0);
        end = plan->modules[i] + (files->initrd.size ? files->initrd.size : files->modules[i].source.size);
    }
    CHECK(end <= image->layout.low_end);
    for (uint32_t i = 0; i < kernel->segment_count; i++)
        has_entry |= kernel->entry >= kernel->segments[i].addr &&
                     kernel->entry - kernel->segments[i].addr < kernel->segments[i].mem_size;
    CHECK(has_entry);
}

static uint64_t to_load(const struct guest_image *image, const struct guest_files *files)
{
    uint64_t sum = files->initrd.size;

    for (uint32_t i = 0; i < files->module_count; i++)
        sum += files->modules[i].source.size;
    if (image->format == GUEST_RAW)
        return files->kernel.size;
    if (image->format == GUEST_LINUX)
        return sum + image->bzimage.plan.payload_size;
    for (uint32_t i = 0; i < image->multiboot.image.segment_count; i++)
        sum += image->multiboot.image.segments[i].mem_size;
    return sum;
}

static void try(struct guest_files *files, const struct guest_layout *layout)
{
    static struct guest_image image;
    const struct pmem_extent e = {HOST_BASE, memory};
    struct guest_entry entry;
    struct gmem g;
    char why[256];

    memset(why, 0x5a, sizeof(why));
    if (guest_prepare(files, layout, &image, why, sizeof(why)) != STATUS_OK) {
        CHECK(memchr(why, 0, sizeof(why) - 1) && why[0]);
        return;
    }
    CHECK(image.format <= GUEST_RAW && (image.format == GUEST_RAW) == (files->load != 0));
    if (image.format == GUEST_MULTIBOOT || image.format == GUEST_MULTIBOOT2)
        check_multiboot(&image, files);
    else if (image.format == GUEST_PVH)
        check_pvh(&image, files);
    else
        CHECK(files->module_count == 0);
    gmem_init(&g, map_page, NULL);
    CHECK(guest_layout_fill(layout, &e, 1, &g) == STATUS_OK);
    guest_entry(&image, &entry);
    uint64_t base = entry.real_mode ? (uint64_t)entry.cs << 4 : 0;
    CHECK(gmem_check(&g, gpa(base + entry.rip), 1) == STATUS_OK);
    CHECK(entry.real_mode || gmem_check(&g, gpa(entry.gdt_base), entry.gdt_limit + 1u) == STATUS_OK);
    CHECK(entry.long_mode == (image.format == GUEST_LINUX) && !(entry.rflags & ~2ull));
    if (to_load(&image, files) <= LOAD_MAX)
        CHECK(guest_load(&image, files, &g, gpa(GUEST_ACPI)) == STATUS_OK &&
              guest_put_rsdp(&image, &g, gpa(GUEST_ACPI)) == STATUS_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guest_layout layout;
    struct knobs knobs;

    if (size < sizeof(knobs))
        return 0;
    memcpy(&knobs, data, sizeof(knobs));
    struct input in[4] = {
        {data + sizeof(knobs), size - sizeof(knobs), size - sizeof(knobs) + (uint64_t)knobs.more},
        {data, 0, knobs.initrd},
        {data, size, knobs.modules[0]},
        {data, size, knobs.modules[1]}};
    memory = ((uint64_t)knobs.memory << 8) & ~(SIZE_2M - 1);
    if (guest_layout_init(&layout, memory) != STATUS_OK)
        return 0;
    struct guest_files files = {
        .kernel = {&in[0], in[0].file_size, map_file},
        .initrd = {&in[1], in[1].file_size, map_file},
        .module_count = knobs.module_count % 3,
        .modules = {{{&in[2], in[2].file_size, map_file}, "one"},
                    {{&in[3], in[3].file_size, map_file}, "two x"}},
        .cmdline = "a line",
    };
    if (knobs.module_count & RAW_KNOB) {
        files.load = knobs.module_count >> 8 & 0xfffff;
        files.module_count = 0;
        files.cmdline = "";
    }
    try(&files, &layout);
    return 0;
}
