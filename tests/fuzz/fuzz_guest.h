/* What the fuzzers of guest kernels share: a file of any size with the input at its start, and what must hold
 * for every image that is accepted. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/guest/multiboot.h"

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

/* Four bytes that say how many zeros follow, and the file's beginning. False: too short. */
static inline bool input_begin(struct input *in, const uint8_t *data, size_t size)
{
    uint32_t more;
    if (size < sizeof(more))
        return false;
    memcpy(&more, data, sizeof(more));
    *in = (struct input){data + sizeof(more), size - sizeof(more), size - sizeof(more) + (uint64_t)more};
    return true;
}

static inline const void *map_file(void *ctx, uint64_t offset, size_t *length)
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

static inline void check_image(const struct input *in, const struct multiboot_image *image)
{
    bool has_entry = false;

    CHECK(image->segment_count >= 1 && image->segment_count <= MULTIBOOT_MAX_SEGMENTS);
    CHECK(image->end <= GUEST_FOUR_GIB);
    for (uint32_t i = 0; i < image->segment_count; i++) {
        const struct multiboot_segment *s = &image->segments[i];
        CHECK(s->mem_size && s->mem_size <= image->end - s->addr);
        CHECK(s->addr >= GUEST_ONE_MIB ||
              (s->addr >= GUEST_BOOT_FREE && s->addr + s->mem_size <= GUEST_BOOT_INFO));
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
