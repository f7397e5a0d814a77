/* Multiboot kernels from anywhere: what is accepted must lie within the file and within the places that
 * hv/guest/multiboot.h promises, without overlaps, and reads never leave the file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/guest/multiboot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define PIECE 61u /* odd: pieces end within every structure */

struct input {
    const uint8_t *data;
    size_t size;        /* bytes there are; the file goes on with zeros */
    uint64_t file_size; /* as claimed */
};

static const void *map_file(void *ctx, uint64_t offset, size_t *length)
{
    static uint8_t piece[PIECE];
    const struct input *in = ctx;
    uint64_t left = in->file_size - offset;

    CHECK(offset < in->file_size);
    *length = left < PIECE ? (size_t)left : PIECE;
    memset(piece, 0, sizeof(piece));
    if (offset < in->size)
        memcpy(piece, in->data + offset, in->size - offset < *length ? in->size - offset : *length);
    return piece;
}

static uint32_t get32(const struct input *in, uint64_t at)
{
    uint32_t v;
    CHECK(at + 4 <= in->size);
    memcpy(&v, in->data + at, 4);
    return v;
}

static void check_header(const struct input *in, const struct guest_source *file)
{
    uint32_t at;
    enum multiboot_found found = multiboot_find(file, &at);

    if (found == MULTIBOOT_NONE)
        return;
    CHECK(found != MULTIBOOT_UNREADABLE && at % 4 == 0 && at + 12 <= MULTIBOOT_SEARCH && at + 4 <= in->size);
    CHECK(get32(in, at) == (found == MULTIBOOT_VERSION_2 ? 0xe85250d6 : 0x1badb002));
    if (found == MULTIBOOT_HEADER && at + 12 <= in->size)
        CHECK(get32(in, at) + get32(in, at + 4) + get32(in, at + 8) == 0);
}

static void check_image(const struct input *in, const struct multiboot_image *image)
{
    bool has_entry = false;

    CHECK(image->segment_count >= 1 && image->segment_count <= MULTIBOOT_MAX_SEGMENTS);
    CHECK(!(image->flags & 0xfff8) && image->end <= GUEST_FOUR_GIB);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct multiboot_segment *s = &image->segments[i];
        CHECK(s->addr >= GUEST_ONE_MIB && s->mem_size && s->mem_size <= image->end - s->addr);
        CHECK(s->file_size <= s->mem_size && s->file_offset <= in->file_size &&
              s->file_size <= in->file_size - s->file_offset);
        has_entry |= image->entry >= s->addr && image->entry - s->addr < s->mem_size;
        for (uint32_t j = 0; j < i; j++) {
            const struct multiboot_segment *t = &image->segments[j];
            CHECK(s->addr + s->mem_size <= t->addr || t->addr + t->mem_size <= s->addr);
        }
    }
    CHECK(has_entry);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct multiboot_image image;
    uint32_t more;
    char why[200];

    if (size < sizeof(more))
        return 0;
    memcpy(&more, data, sizeof(more));
    struct input in = {data + sizeof(more), size - sizeof(more), size - sizeof(more) + (uint64_t)more};
    struct guest_source file = {&in, in.file_size, map_file};
    check_header(&in, &file);
    memset(why, 0x5a, sizeof(why));
    if (multiboot_parse(&file, &image, why, sizeof(why)) == STATUS_OK)
        check_image(&in, &image);
    else
        CHECK(memchr(why, 0, sizeof(why) - 1) && why[0]); /* a sentence, not cut */
    return 0;
}
