/* Raw real-mode images: where they fit, what is written, how they begin. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "hv/config/config.h"
#include "hv/guest/image.h"

#define MEMORY (8ull << 20)

static uint8_t ram[MEMORY], file[0xa0000];
static struct guest_files files;
static struct guest_layout layout;
static struct guest_image image;
static struct gmem g;
static char why[200];

static const void *map_file(void *ctx, uint64_t offset, size_t *length)
{
    *length = 4096 - offset % 4096;
    return (uint8_t *)ctx + offset;
}

static void *map_page(void *ctx, hpa_t page)
{
    return (uint8_t *)ctx + page.v;
}

static int setup(void **state)
{
    memset(ram, 0xcc, sizeof(ram));
    for (size_t i = 0; i < sizeof(file); i++)
        file[i] = (uint8_t)(i * 7 + 1);
    files = (struct guest_files){.kernel = {file, 512, map_file}, .cmdline = "", .load = 0x7c00};
    assert_int_equal(guest_layout_init(&layout, MEMORY), STATUS_OK);
    gmem_init(&g, map_page, ram);
    assert_int_equal(gmem_add(&g, gpa(0), hpa(0), 0xa0000), STATUS_OK);
    assert_int_equal(gmem_add(&g, gpa(0xc0000), hpa(0xc0000), MEMORY - 0xc0000), STATUS_OK);
    STATIC_ASSERT(RAW_FIRST == CONFIG_LOAD_FIRST && RAW_END == CONFIG_LOAD_END,
                  "the parser's bounds are these");
    return 0;
}

static enum status prepare(void)
{
    why[0] = 0;
    return guest_prepare(&files, &layout, &image, why, sizeof(why));
}

static void test_boot_sector(void **state)
{
    struct guest_entry entry;
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(image.format, GUEST_RAW);
    assert_int_equal(guest_load(&image, &files, &g, gpa(0)), STATUS_OK);
    assert_memory_equal(ram + 0x7c00, file, 512);
    assert_int_equal(ram[0x7bff], 0xcc);
    assert_int_equal(ram[0x7e00], 0xcc);
    assert_int_equal(ram[0x3ff], 0); /* no vectors and no BIOS data of an earlier life */
    assert_int_equal(ram[0x4ff], 0);
    assert_int_equal(ram[0x500], 0xcc);
    guest_entry(&image, &entry);
    assert_true(entry.real_mode);
    assert_int_equal(entry.cs, 0);
    assert_int_equal(entry.rip, 0x7c00);
    assert_int_equal(entry.rsp, 0x7c00);
    assert_int_equal(entry.gpr[2], 0x80);
}

static uint32_t ram16(uint32_t at)
{
    return ram[at] | (uint32_t)ram[at + 1] << 8;
}

/* What a BIOS tells of the machine: the same for all kinds of guests, as entry_put_bios_data() is. Xen puts
 * its start-up code of the other processors below what this says. */
static void test_bios_data(void **state)
{
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest_load(&image, &files, &g, gpa(0)), STATUS_OK);
    assert_int_equal(ram16(0x400), 0x3f8);              /* COM1 */
    assert_int_equal(ram16(0x402), 0);                  /* no COM2 */
    assert_int_equal(ram16(0x40e) << 4, GUEST_EBDA);    /* its segment */
    assert_int_equal(ram16(0x410), 0x202);              /* one serial port, an FPU, no disk drives */
    assert_int_equal(ram16(0x413) * 1024u, GUEST_EBDA); /* base memory */
    assert_int_equal(ram[GUEST_EBDA] * 1024u, 0xa0000 - GUEST_EBDA);
    assert_int_equal(ram[GUEST_EBDA + 1], 0);
    assert_int_equal(ram[0x9ffff], 0);
    assert_int_equal(ram[0xe0000], 0);
    assert_int_equal(ram[0xfffff], 0);
}

static void test_other_addresses(void **state)
{
    static const struct {
        uint32_t load;
        uint16_t cs, ip, sp;
    } rows[] = {{0x500, 0, 0x500, 0x7c00},   {0x14ff, 0, 0x14ff, 0x7c00},  {0x1500, 0, 0x1500, 0x1500},
                {0xffff, 0, 0xffff, 0xffff}, {0x10000, 0x1000, 0, 0x7c00}, {0x12345, 0x1234, 5, 0x7c00},
                {0x9ee00, 0x9ee0, 0, 0x7c00}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct guest_entry entry;
        files.load = rows[i].load;
        assert_int_equal(prepare(), STATUS_OK);
        guest_entry(&image, &entry);
        assert_int_equal(entry.cs, rows[i].cs);
        assert_int_equal(entry.rip, rows[i].ip);
        assert_int_equal(entry.rsp, rows[i].sp);
    }
}

static void test_refusals(void **state)
{
    files.kernel.size = 0x9f000 - 0x7c00;
    assert_int_equal(prepare(), STATUS_OK);
    files.kernel.size++;
    assert_int_equal(prepare(), ERR_INVALID);
    assert_non_null(strstr(why, "does not end below 0x9f000"));
    files.kernel.size = UINT64_MAX;
    assert_int_equal(prepare(), ERR_INVALID);
    files.kernel.size = 0;
    assert_int_equal(prepare(), ERR_INVALID);
    files.kernel.size = 512;
    files.cmdline = "x";
    assert_int_equal(prepare(), ERR_UNSUPPORTED);
    assert_non_null(strstr(why, "takes no initrd"));
    files.cmdline = "";
    files.module_count = 1;
    assert_int_equal(prepare(), ERR_UNSUPPORTED);
    files.module_count = 0;
    files.initrd.size = 1;
    assert_int_equal(prepare(), ERR_UNSUPPORTED);
    files.initrd.size = 0;
    assert_int_equal(raw_check(&files.kernel, RAW_FIRST - 1, why, sizeof(why)), ERR_INVALID);
    assert_int_equal(raw_check(&files.kernel, RAW_END, why, sizeof(why)), ERR_INVALID);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {T(test_boot_sector), T(test_bios_data), T(test_other_addresses),
                                       T(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
