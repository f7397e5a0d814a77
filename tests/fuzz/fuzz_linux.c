/* Kernel files from anywhere: parse, plan and load. What is accepted must have been placed in RAM, without
 * overlaps, and read only from within the file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv/guest/linux.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* Guest pages are not kept: each write must stay in one page, and the page in what the layout gave. */
static uint8_t page_buf[4096];
static uint64_t memory;

static void *map_page(void *ctx, hpa_t page)
{
    (void)ctx;
    CHECK(page.v % 4096 == 0 && page.v >= (1ull << 40) && page.v - (1ull << 40) < memory);
    return page_buf;
}

static const void *map_file(void *ctx, uint64_t offset, size_t *length)
{
    static uint8_t chunk[1 << 20];
    const struct guest_source *self = ctx;
    CHECK(offset < self->size);
    *length = self->size - offset < sizeof(chunk) ? self->size - offset : sizeof(chunk);
    return chunk;
}

static void check_plan(const struct linux_image *image, const struct linux_plan *plan)
{
    uint64_t end = plan->layout.low_end;
    CHECK(plan->kernel >= GUEST_ONE_MIB && plan->kernel_end <= end);
    CHECK(plan->kernel_end - plan->kernel == image->init_size);
    CHECK(plan->payload_size <= image->init_size);
    if (plan->initrd_size) {
        uint64_t last = plan->initrd + plan->initrd_size - 1;
        CHECK(plan->initrd >= GUEST_ONE_MIB && plan->initrd % 4096 == 0);
        CHECK(last < end && last <= image->initrd_max);
        CHECK(last < plan->kernel || plan->initrd >= plan->kernel_end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct linux_image image;
    struct linux_plan plan;
    struct guest_layout layout;
    struct gmem g;
    uint32_t knobs[3];
    char why[160];
    if (size < sizeof(knobs))
        return 0;
    memcpy(knobs, data, sizeof(knobs));
    data += sizeof(knobs);
    size -= sizeof(knobs);
    size_t head = size < LINUX_HEAD_SIZE ? size : LINUX_HEAD_SIZE;
    uint64_t file_size = size + knobs[0];
    memset(why, 0x5a, sizeof(why));
    enum status status = linux_parse_image((struct span){data, head}, file_size, &image, why, sizeof(why));
    if (status != STATUS_OK) {
        CHECK(memchr(why, 0, sizeof(why)) && why[0]);
        return 0;
    }
    CHECK(image.setup_size + image.payload_size <= file_size);
    memory = ((uint64_t)knobs[1] << 8) & ~(SIZE_2M - 1);
    if (guest_layout_init(&layout, memory) != STATUS_OK)
        return 0;
    const struct pmem_extent e = {1ull << 40, memory};
    gmem_init(&g, map_page, NULL);
    CHECK(guest_layout_fill(&layout, &e, 1, &g) == STATUS_OK);
    if (linux_plan(&image, &layout, knobs[2], 10, &plan, why, sizeof(why)) != STATUS_OK) {
        CHECK(memchr(why, 0, sizeof(why)) && why[0]);
        return 0;
    }
    check_plan(&image, &plan);
    if (plan.payload_size + plan.initrd_size > (64u << 20))
        return 0; /* only slow */
    struct guest_source kernel = {.size = file_size, .map = map_file},
                        initrd = {.size = knobs[2], .map = map_file};
    kernel.ctx = &kernel;
    initrd.ctx = &initrd;
    CHECK(linux_load(&plan, &image, &g, &kernel, &initrd, "0123456789", gpa(GUEST_ACPI)) == STATUS_OK);
    return 0;
}
