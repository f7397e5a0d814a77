/* The ELF loader: what it accepts lies inside the file and inside the room, in order, W^X, and loads without
 * a byte outside. */
#include <stdlib.h>
#include <string.h>

#include "boot/elf.h"
#include "hv/lib/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BASE  0xffffffff80000000ull
#define LIMIT 0xffffffff80100000ull

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_image(const struct elf_image *image, struct span file)
{
    uint64_t end = BASE;
    bool entry = false;

    CHECK(image->va == BASE && image->segment_count <= ELF_MAX_SEGMENTS);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct elf_segment *s = &image->segments[i];
        CHECK(s->va % PAGE_SIZE == 0 && s->va >= end && s->mem_size > 0);
        CHECK(s->file_size <= s->mem_size && s->file_size <= file.size &&
              s->file_offset <= file.size - s->file_size);
        CHECK(!(s->write && s->exec));
        end = s->va + s->mem_size;
        CHECK(end > s->va && end <= LIMIT);
        entry = entry || (s->exec && image->entry >= s->va && image->entry < s->va + s->file_size);
    }
    CHECK(entry);
    CHECK(image->size % PAGE_SIZE == 0 && image->size >= end - BASE && image->size <= LIMIT - BASE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span file = {data, size};
    struct elf_image image;
    const char *why;

    if (elf_parse(file, BASE, LIMIT, &image, &why) != STATUS_OK) {
        CHECK(why && why[0]);
        return 0;
    }
    check_image(&image, file);
    uint8_t *dest = malloc(image.size); /* the address sanitizer guards both ends */
    elf_load(&image, file, dest);
    for (uint32_t i = 0; i < image.segment_count; i++) {
        const struct elf_segment *s = &image.segments[i];
        CHECK(memcmp(dest + (s->va - BASE), data + s->file_offset, s->file_size) == 0);
    }
    free(dest);
    return 0;
}
