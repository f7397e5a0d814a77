/* Multiboot 2 kernels from anywhere: what is accepted must lie within the file and within the places that
 * hv/guest/multiboot.h promises, without overlaps, and reads never leave the file. */
#include "hv/guest/multiboot2.h"
#include "tests/fuzz/fuzz_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct multiboot_image image;
    struct input in;
    char why[200];
    uint32_t at;
    bool damaged;

    if (!input_begin(&in, data, size))
        return 0;
    struct guest_source file = {&in, in.file_size, map_file};
    bool found = multiboot2_find(&file, &at, &damaged);
    CHECK(!(found || damaged) || (at % 8 == 0 && at + 16 <= MULTIBOOT2_SEARCH && at + 4 <= in.size &&
                                  memcmp(in.data + at, "\xd6\x50\x52\xe8", 4) == 0));
    memset(why, 0x5a, sizeof(why));
    if (multiboot2_parse(&file, &image, why, sizeof(why)) == STATUS_OK) {
        CHECK(found);
        check_image(&in, &image);
    } else {
        CHECK(memchr(why, 0, sizeof(why) - 1) && why[0]); /* a sentence, not cut */
    }
    return 0;
}
