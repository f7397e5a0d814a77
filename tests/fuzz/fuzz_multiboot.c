/* Multiboot kernels from anywhere: what is accepted must lie within the file and within the places that
 * hv/guest/multiboot.h promises, without overlaps, and reads never leave the file. */
#include "tests/fuzz/fuzz_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    CHECK(get32(in, at) == 0x1badb002);
    if (found == MULTIBOOT_HEADER && at + 12 <= in->size)
        CHECK(get32(in, at) + get32(in, at + 4) + get32(in, at + 8) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct multiboot_image image;
    struct input in;
    char why[200];

    if (!input_begin(&in, data, size))
        return 0;
    struct guest_source file = {&in, in.file_size, map_file};
    check_header(&in, &file);
    memset(why, 0x5a, sizeof(why));
    if (multiboot_parse(&file, &image, why, sizeof(why)) == STATUS_OK) {
        CHECK(!(image.flags & 0xfff8));
        check_image(&in, &image);
    } else {
        CHECK(memchr(why, 0, sizeof(why) - 1) && why[0]); /* a sentence, not cut */
    }
    return 0;
}
