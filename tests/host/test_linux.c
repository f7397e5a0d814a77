/* Linux: which files are taken, where things go, and that what was written is what the boot protocol asks
 * for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/guest/e820.h"
#include "hv/guest/linux.h"
#include "hv/vcpu.h"

#define M (1ull << 20)
#define G (1ull << 30)

/* A bzImage with the header of Debian's 6.1 (sizes made small). */
#define SETUP (40 * 512)
#define SYS   (3 * 4096 + 16)
#define INIT  0x3f97000
static uint8_t file[SETUP + SYS + 100];
static char why[256];
static struct linux_image image;

static void w(uint32_t at, uint64_t v, unsigned n)
{
    memcpy(file + at, &v, n);
}

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(file); i++)
        file[i] = (uint8_t)(i * 31 + (i >> 8));
    memset(file, 0, 0x290);
    memcpy(file, "MZ", 2);
    w(0x1f1, 39, 1);
    w(0x1f4, SYS / 16, 4);
    w(0x1fe, 0xaa55, 2);
    w(0x200, 0x6aeb, 2);
    memcpy(file + 0x202, "HdrS", 4);
    w(0x206, 0x020f, 2);
    w(0x211, 1, 1);
    w(0x22c, 0x7fffffff, 4);
    w(0x230, 0x200000, 4);
    w(0x234, 1, 1);
    w(0x236, 0x7f, 2);
    w(0x238, 2047, 4);
    w(0x258, 0x1000000, 8);
    w(0x260, INIT, 4);
    why[0] = 0;
    return 0;
}

static struct span head(size_t n)
{
    return (struct span){file, n < LINUX_HEAD_SIZE ? n : LINUX_HEAD_SIZE};
}

static enum status check(uint64_t size)
{
    why[0] = 0;
    /* In a buffer of exactly that size, so that a read too far is seen. */
    struct span h = head(size < sizeof(file) ? size : sizeof(file));
    uint8_t *copy = malloc(h.size ? h.size : 1);
    memcpy(copy, h.data, h.size);
    enum status status = linux_parse_image((struct span){copy, h.size}, size, &image, why, sizeof(why));
    free(copy);
    assert_int_equal(status == STATUS_OK, why[0] == 0);
    return status;
}

static void test_good_image(void **state)
{
    (void)state;
    assert_int_equal(check(sizeof(file)), STATUS_OK);
    assert_int_equal(linux_parse_image(head(sizeof(file)), sizeof(file), &image, why, sizeof(why)),
                     STATUS_OK);
    assert_int_equal(image.setup_size, SETUP);
    assert_int_equal(image.payload_size, SYS + 100);
    assert_int_equal(image.init_size, INIT);
    assert_int_equal(image.pref_address, 16 * M);
    assert_int_equal(image.header_size, 0x26c - 0x1f1);
    assert_memory_equal(image.header, file + 0x1f1, image.header_size);
    w(0x1f1, 0, 1); /* 0 means 4 */
    assert_int_equal(linux_parse_image(head(sizeof(file)), sizeof(file), &image, why, sizeof(why)),
                     STATUS_OK);
    assert_int_equal(image.setup_size, 5 * 512);
    w(0x201, 0xff, 1); /* a header longer than the zero page has room for: cut */
    assert_int_equal(linux_parse_image(head(sizeof(file)), sizeof(file), &image, why, sizeof(why)),
                     STATUS_OK);
    assert_int_equal(image.header_size, 0x290 - 0x1f1);
    w(0x260, SYS + 50, 4); /* no room for all that follows the declared part */
    assert_int_equal(linux_parse_image(head(sizeof(file)), sizeof(file), &image, why, sizeof(why)),
                     STATUS_OK);
    assert_int_equal(image.payload_size, SYS);
}

static void expect(enum status status, const char *text)
{
    assert_int_equal(check(sizeof(file)), status);
    if (!strstr(why, text))
        print_message("got: %s\n", why);
    assert_non_null(strstr(why, text));
}

static void test_every_refusal_says_why(void **state)
{
    (void)state;
    setup(NULL);
    w(0x206, 0x020b, 2);
    expect(ERR_UNSUPPORTED, "too old a boot protocol: the kernel speaks 2.11, Bulkhead needs 2.12");
    setup(NULL);
    w(0x211, 0, 1);
    expect(ERR_UNSUPPORTED, "zImage");
    setup(NULL);
    w(0x236, 0x7e, 2);
    expect(ERR_UNSUPPORTED, "32-bit");
    setup(NULL);
    w(0x1f4, SYS, 4);
    expect(ERR_INVALID, "its header promises 217344 bytes, it has 32884");
    setup(NULL);
    w(0x1f4, 0x10, 4); /* no room for the 64-bit entry */
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x260, SYS - 1, 4); /* init_size below what is loaded */
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x230, 0x300000, 4);
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x230, 0, 4);
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x258, 0x1000, 8); /* below 1 MiB */
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x258, 0x1000001, 8);
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x258, UINT64_MAX << 12, 8);
    expect(ERR_INVALID, "damaged");
    setup(NULL);
    w(0x202, 0, 4);
    expect(ERR_INVALID, "not a Linux bzImage");
    setup(NULL);
    w(0x1fe, 0, 2);
    expect(ERR_INVALID, "not a Linux bzImage");
}

/* A download that stopped somewhere: never taken, always explained. */
static void test_truncated_at_every_place(void **state)
{
    (void)state;
    for (uint64_t size = 0; size <= SETUP + SYS - 16; size += size < 0x300 ? 1 : 509) {
        assert_int_equal(check(size), ERR_INVALID);
        assert_non_null(strstr(why, size < 0x206 ? "not a Linux bzImage" : "truncated"));
    }
    assert_int_equal(check(SETUP + SYS), STATUS_OK);
}

/* The size in the header is in paragraphs: the file may end within the last one (memtest86+ 6.10). */
static void test_last_paragraph(void **state)
{
    (void)state;
    assert_int_equal(check(SETUP + SYS - 15), STATUS_OK);
    assert_int_equal(image.payload_size, SYS - 15);
    assert_int_equal(check(SETUP + SYS - 16), ERR_INVALID);
    assert_non_null(strstr(why, "truncated"));
}

/* ---- layout and map ---- */

static void test_layout(void **state)
{
    (void)state;
    struct guest_layout l;
    assert_int_equal(guest_layout_init(&l, 6 * M), ERR_RANGE);
    assert_int_equal(guest_layout_init(&l, (1ull << 40) + 2 * M), ERR_RANGE);
    assert_int_equal(guest_layout_init(&l, 65 * M), ERR_INVALID);
    static const struct {
        uint64_t memory, low, high;
    } cases[] = {{64 * M, 64 * M, 4 * G},
                 {3 * G, 3 * G, 4 * G},
                 {3 * G + 2 * M, 3 * G, 4 * G + 2 * M},
                 {8 * G, 3 * G, 9 * G}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(guest_layout_init(&l, cases[i].memory), STATUS_OK);
        assert_int_equal(l.low_end, cases[i].low);
        assert_int_equal(l.high_end, cases[i].high);
        struct e820_entry map[E820_MAX];
        uint32_t n = e820_build(&l, map);
        uint64_t ram = 0, end = 0;
        for (uint32_t k = 0; k < n; k++) {
            assert_true(map[k].base >= end); /* sorted, disjoint */
            assert_true(map[k].size > 0);
            end = map[k].base + map[k].size;
            if (map[k].type == E820_RAM)
                ram += map[k].size;
            /* Nothing of the hole is ever called RAM. */
            if (map[k].type == E820_RAM)
                assert_true(end <= GUEST_PCI_HOLE || map[k].base >= GUEST_FOUR_GIB);
        }
        assert_int_equal(ram, cases[i].memory - (GUEST_ONE_MIB - GUEST_EBDA));
        assert_int_equal(sizeof(map[0]), 20);
    }
}

static void *no_map(void *ctx, hpa_t page)
{
    (void)ctx;
    (void)page;
    fail();
    return NULL;
}

static void test_layout_fill(void **state)
{
    (void)state;
    struct guest_layout l;
    struct gmem g;
    hpa_t h;
    uint64_t left;
    assert_int_equal(guest_layout_init(&l, 4 * G), STATUS_OK);
    const struct pmem_extent e[] = {{8 * G, 2 * G}, {16 * G, 2 * G - 4 * M}, {64 * M, 4 * M}};
    gmem_init(&g, no_map, NULL);
    assert_int_equal(guest_layout_fill(&l, e, 3, &g), STATUS_OK);
    /* Large pages stay possible: guest and host addresses agree modulo 2 MiB, and modulo 1 GiB here. */
    for (uint32_t i = 0; i < g.count; i++)
        assert_int_equal(g.extents[i].gpa % (2 * M), g.extents[i].hpa % (2 * M));
    assert_int_equal(gmem_translate(&g, gpa(0x9ffff), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 8 * G + 0x9ffff);
    assert_int_equal(gmem_translate(&g, gpa(0xa0000), &h, &left), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(0xbffff), &h, &left), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(0xc0000), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 8 * G + 0xc0000);
    assert_int_equal(gmem_translate(&g, gpa(3 * G - 1), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 17 * G - 1);
    assert_int_equal(gmem_translate(&g, gpa(3 * G), &h, &left), ERR_RANGE);
    assert_int_equal(gmem_translate(&g, gpa(4 * G), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 17 * G);
    assert_int_equal(gmem_translate(&g, gpa(5 * G - 1), &h, &left), STATUS_OK);
    assert_int_equal(h.v, 68 * M - 1);
    /* Too little, too much, crooked. */
    gmem_init(&g, no_map, NULL);
    assert_int_equal(guest_layout_fill(&l, e, 2, &g), ERR_INVALID);
    assert_int_equal(g.count, 0);
    const struct pmem_extent more[] = {{8 * G, 4 * G}, {64 * M, 2 * M}};
    assert_int_equal(guest_layout_fill(&l, more, 2, &g), ERR_INVALID);
    const struct pmem_extent odd[] = {{8 * G, 4 * G - M}, {64 * M, M}};
    assert_int_equal(guest_layout_fill(&l, odd, 2, &g), ERR_INVALID);
    assert_int_equal(g.count, 0);
    /* The smallest extents there are, and one that ends within the low MiB's unit. */
    assert_int_equal(guest_layout_init(&l, 64 * M), STATUS_OK);
    const struct pmem_extent small[] = {{100 * M, 2 * M}, {64 * M, 2 * M}, {200 * M, 60 * M}};
    assert_int_equal(guest_layout_fill(&l, small, 3, &g), STATUS_OK);
    assert_int_equal(g.count, 4);
}

/* ---- placing ---- */

static struct linux_plan plan;

static enum status plan_for(uint64_t memory, uint64_t initrd, uint64_t cmdline)
{
    struct guest_layout l;
    assert_int_equal(guest_layout_init(&l, memory), STATUS_OK);
    assert_int_equal(linux_parse_image(head(sizeof(file)), sizeof(file), &image, why, sizeof(why)),
                     STATUS_OK);
    why[0] = 0;
    enum status status = linux_plan(&image, &l, initrd, cmdline, &plan, why, sizeof(why));
    assert_int_equal(status == STATUS_OK, why[0] == 0);
    return status;
}

static void test_placing(void **state)
{
    (void)state;
    assert_int_equal(plan_for(384 * M, 10 * M + 1, 100), STATUS_OK);
    assert_int_equal(plan.kernel, 16 * M);
    assert_int_equal(plan.kernel_end, 16 * M + INIT);
    assert_int_equal(plan.initrd, 384 * M - 10 * M - 4096);
    assert_int_equal(plan_for(384 * M, 0, 0), STATUS_OK);
    assert_int_equal(plan.initrd | plan.initrd_size, 0);
    assert_int_equal(plan_for(6 * G, 10 * M, 0), STATUS_OK); /* below initrd_addr_max */
    assert_int_equal(plan.initrd, 2 * G - 10 * M);
    w(0x22c, 0xffffffff, 4);
    assert_int_equal(plan_for(6 * G, 10 * M, 0), STATUS_OK); /* below the hole */
    assert_int_equal(plan.initrd, 3 * G - 10 * M);
    w(0x22c, 0x7fffff, 4); /* a kernel that wants it below itself */
    assert_int_equal(plan_for(384 * M, 2 * M, 0), STATUS_OK);
    assert_int_equal(plan.initrd, 6 * M);
    setup(NULL);
    /* 80 MiB end just behind the kernel: the initrd goes below it. */
    assert_int_equal(plan_for(80 * M, 15 * M, 0), STATUS_OK);
    assert_int_equal(plan.initrd, M);
    assert_int_equal(plan_for(80 * M, 14 * M, 0), STATUS_OK);
    assert_int_equal(plan.initrd, 2 * M);
}

static void test_what_does_not_fit(void **state)
{
    (void)state;
    assert_int_equal(plan_for(64 * M, 0, 0), ERR_RANGE);
    assert_non_null(strstr(why, "it needs 63.6 MiB from 16.0 MiB on, the VM has 64.0 MiB"));
    assert_non_null(strstr(why, "memory = 80M"));
    assert_int_equal(plan_for(80 * M, 0, 0), STATUS_OK);
    assert_int_equal(plan_for(80 * M, 15 * M + 1, 0), ERR_RANGE);
    assert_non_null(
        strstr(why, "the initrd does not fit: it has 15.1 MiB, beside the kernel 15.0 MiB are free"));
    assert_int_equal(plan_for(384 * M, 305 * M, 0), ERR_RANGE);
    assert_int_equal(plan_for(384 * M, 304 * M, 0), STATUS_OK);
    assert_true(plan.initrd >= plan.kernel_end);
    /* The highest address for an initrd lies in the kernel's last page: nothing is free above it. */
    w(0x260, INIT - 100, 4);
    w(0x22c, 16 * M + INIT - 100, 4);
    assert_int_equal(plan_for(384 * M, 15 * M + 1, 0), ERR_RANGE);
    assert_int_equal(plan_for(384 * M, 15 * M, 0), STATUS_OK);
    assert_int_equal(plan.initrd, M);
    setup(NULL);
    assert_int_equal(plan_for(8 * G, 5 * G, 0), ERR_RANGE); /* the protocol's size field has 32 bits */
    assert_int_equal(plan_for(8 * G, UINT64_MAX, 0), ERR_RANGE);
    assert_int_equal(plan_for(384 * M, 0, 2047), STATUS_OK);
    assert_int_equal(plan_for(384 * M, 0, 2048), ERR_RANGE);
    assert_non_null(strstr(why, "command line"));
    w(0x238, UINT32_MAX, 4);
    assert_int_equal(plan_for(384 * M, 0, 65535), STATUS_OK);
    assert_int_equal(plan_for(384 * M, 0, 65536), ERR_RANGE);
}

/* ---- loading ---- */

#define MEMORY (128 * M)
static uint8_t *ram;

static void *ram_map(void *ctx, hpa_t page)
{
    (void)ctx;
    assert_true(page.v >= G && page.v < G + MEMORY);
    return ram + (page.v - G);
}

struct pieces {
    const uint8_t *data;
    size_t step, fail_at;
};

static const void *piece(void *ctx, uint64_t offset, size_t *length)
{
    struct pieces *p = ctx;
    if (offset >= p->fail_at)
        return NULL;
    *length = p->step - offset % p->step;
    return p->data + offset;
}

static void load(struct pieces *k, struct pieces *i, enum status want)
{
    struct gmem g;
    struct guest_layout l;
    static const char cmdline[] = "console=ttyS0 quiet";
    assert_int_equal(guest_layout_init(&l, MEMORY), STATUS_OK);
    const struct pmem_extent e = {G, MEMORY};
    gmem_init(&g, ram_map, NULL);
    assert_int_equal(guest_layout_fill(&l, &e, 1, &g), STATUS_OK);
    assert_int_equal(plan_for(MEMORY, 5000, sizeof(cmdline) - 1), STATUS_OK);
    struct guest_source kernel = {k, sizeof(file), piece}, initrd = {i, 5000, piece};
    assert_int_equal(linux_load(&plan, &image, &g, &kernel, &initrd, cmdline, gpa(GUEST_ACPI)), want);
}

static uint64_t r(uint64_t at, unsigned n)
{
    uint64_t v = 0;
    memcpy(&v, ram + at, n);
    return v;
}

static void test_load(void **state)
{
    (void)state;
    static uint8_t initrd[5000 + 4096];
    ram = malloc(MEMORY);
    memset(ram, 0xee, MEMORY);
    for (size_t i = 0; i < sizeof(initrd); i++)
        initrd[i] = (uint8_t)(i * 7);
    struct pieces k = {file, 4096, SIZE_MAX}, i = {initrd, 1000, SIZE_MAX};
    load(&k, &i, STATUS_OK);
    assert_memory_equal(ram + 16 * M, file + SETUP, SYS + 100);
    assert_int_equal(ram[16 * M + SYS + 100], 0xee);
    assert_int_equal(plan.initrd, MEMORY - 8192);
    assert_memory_equal(ram + plan.initrd, initrd, 5000);
    assert_int_equal(ram[plan.initrd + 5000], 0xee);
    assert_string_equal((char *)ram + plan.cmdline, "console=ttyS0 quiet");
    /* The zero page: the header as it was, but for what a loader fills in. */
    uint64_t zp = plan.boot_params;
    assert_memory_equal(ram + zp + 0x1fe, file + 0x1fe, 0x210 - 0x1fe);
    assert_memory_equal(ram + zp + 0x230, file + 0x230, 0x26c - 0x230);
    assert_int_equal(r(zp + 0x26c, 4), 0);
    assert_int_equal(r(zp + 0x210, 1), 0xff);
    assert_int_equal(r(zp + 0x218, 4), plan.initrd);
    assert_int_equal(r(zp + 0x21c, 4), 5000);
    assert_int_equal(r(zp + 0x228, 4), plan.cmdline);
    assert_int_equal(r(zp + 0x70, 8), GUEST_ACPI);
    assert_int_equal(r(zp + 0x1fa, 2), 0xffff);
    struct e820_entry map[E820_MAX];
    uint32_t n = e820_build(&plan.layout, map);
    assert_int_equal(r(zp + 0x1e8, 1), n);
    assert_memory_equal(ram + zp + 0x2d0, map, n * 20);
    /* Low memory is clean: nothing in the EBDA but its size, no ROM signatures, no MP table. */
    assert_int_equal(r(0x40e, 2), GUEST_EBDA >> 4);
    assert_int_equal(ram[GUEST_EBDA], 4);
    for (uint64_t at = GUEST_EBDA + 1; at < GUEST_VGA; at++)
        assert_int_equal(ram[at], 0);
    for (uint64_t at = 0xc0000; at < 0x100000; at++)
        assert_int_equal(ram[at], 0);
    assert_int_equal(ram[0xa0000], 0xee); /* the VGA window is not memory */
    /* Entry: walk the page tables as the CPU will. */
    struct guest_entry en;
    linux_entry_state(&plan, &en);
    assert_int_equal(en.rip, 16 * M + 0x200);
    assert_int_equal(en.gpr[RSI], zp);
    assert_true(en.long_mode && en.cs == 0x10 && en.ds == 0x18);
    assert_int_equal(en.rflags, 2); /* interrupts off */
    assert_int_equal(en.cr0 & 0x80000001, 0x80000001);
    assert_int_equal(en.cr4, 0x20);
    assert_int_equal(en.efer, 0x500);
    for (uint64_t va = 0; va < 4 * G; va += 2 * M) {
        uint64_t l4 = r(en.cr3, 8), l3 = r((l4 & ~0xfffull) + 8 * (va >> 30), 8);
        uint64_t l2 = r((l3 & ~0xfffull) + 8 * (va >> 21 & 511), 8);
        assert_int_equal((l4 & 3) + (l3 & 3), 6);
        assert_int_equal(l2, va | 0x83);
    }
    assert_int_equal(r(en.cr3 + 8, 8), 0);
    assert_int_equal(r(en.gdt_base + 0x10, 8), 0x00af9b000000ffff);
    assert_int_equal(r(en.gdt_base + 0x18, 8), 0x00cf93000000ffff);
    assert_true(en.gdt_limit >= 0x18 + 7);
    /* Nothing of it overlaps, and all of it is RAM by the map. */
    assert_true(en.rsp <= plan.boot_params && en.rsp > plan.page_tables + 6 * 4096);
    assert_true(plan.cmdline >= zp + 4096 && plan.cmdline + 0x10000 <= GUEST_EBDA);
    /* A second load over a used machine gives the same. */
    memset(ram, 0x11, 0xa0000);
    load(&k, &i, STATUS_OK);
    assert_int_equal(r(0x40e, 2), GUEST_EBDA >> 4);
    free(ram);
}

static void test_load_failures(void **state)
{
    (void)state;
    static uint8_t initrd[5000];
    ram = malloc(MEMORY);
    struct pieces k = {file, 4096, SIZE_MAX}, i = {initrd, 5000, SIZE_MAX};
    k.fail_at = SETUP + 4096;
    load(&k, &i, ERR_RANGE);
    k.fail_at = SIZE_MAX;
    i.fail_at = 0;
    load(&k, &i, ERR_RANGE);
    struct gmem empty;
    gmem_init(&empty, ram_map, NULL);
    struct guest_source kernel = {&k, sizeof(file), piece}, source = {&i, 5000, piece};
    assert_int_equal(linux_load(&plan, &image, &empty, &kernel, &source, "", gpa(0)), ERR_RANGE);
    assert_int_equal(linux_load(&plan, &image, &empty, &kernel, NULL, "", gpa(0)), ERR_INVALID);
    source.size = 4999;
    assert_int_equal(linux_load(&plan, &image, &empty, &kernel, &source, "", gpa(0)), ERR_INVALID);
    source.size = 5000;
    kernel.size = SETUP + SYS; /* shorter than it was when it was checked */
    assert_int_equal(linux_load(&plan, &image, &empty, &kernel, &source, "", gpa(0)), ERR_INVALID);
    kernel.size = SETUP - 1;
    assert_int_equal(linux_load(&plan, &image, &empty, &kernel, &source, "", gpa(0)), ERR_INVALID);
    free(ram);
}

/* Debian's own kernels, where they are installed. */
static void test_real_kernels(void **state)
{
    (void)state;
    const char *dir = getenv("BULKHEAD_TEST_KERNELS"); /* directory of vmlinuz-* */
    char command[256], path[256];
    snprintf(command, sizeof(command), "ls %s/vmlinuz-* 2>/dev/null", dir ? dir : "/boot");
    FILE *list = popen(command, "r");
    unsigned found = 0;
    while (list && fgets(path, sizeof(path), list)) {
        path[strcspn(path, "\n")] = 0;
        FILE *f = fopen(path, "rb");
        if (!f)
            continue;
        uint8_t buf[LINUX_HEAD_SIZE];
        size_t n = fread(buf, 1, sizeof(buf), f);
        fseek(f, 0, SEEK_END);
        long size = ftell(f);
        fclose(f);
        assert_int_equal(linux_parse_image((struct span){buf, n}, (uint64_t)size, &image, why, sizeof(why)),
                         STATUS_OK);
        found++;
        print_message("%s: protocol %x, %lu bytes at %lx\n", path, image.version, image.payload_size,
                      image.pref_address);
    }
    if (list)
        pclose(list);
    if (!found)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_good_image, setup),
        cmocka_unit_test_setup(test_every_refusal_says_why, setup),
        cmocka_unit_test_setup(test_truncated_at_every_place, setup),
        cmocka_unit_test_setup(test_last_paragraph, setup),
        cmocka_unit_test_setup(test_layout, setup),
        cmocka_unit_test_setup(test_layout_fill, setup),
        cmocka_unit_test_setup(test_placing, setup),
        cmocka_unit_test_setup(test_what_does_not_fit, setup),
        cmocka_unit_test_setup(test_load, setup),
        cmocka_unit_test_setup(test_load_failures, setup),
        cmocka_unit_test_setup(test_real_kernels, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
