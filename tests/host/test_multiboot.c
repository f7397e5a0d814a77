/* Multiboot guests and the recognition of kernels: every rule with a file that breaks it, and what a guest
 * finds in its memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/guest/image.h"
#include "hv/vcpu.h"

#define M     (1ull << 20)
#define MAGIC 0x1badb002u

static uint8_t file[0x6000];
static size_t file_size;
static struct multiboot_image image;
static struct guest_layout layout;
static char why[200];

static void w(uint64_t at, uint64_t value, unsigned bytes)
{
    memcpy(file + at, &value, bytes);
}

/* Pieces of odd sizes, in a buffer of exactly that size: a read too far is seen. */
struct reader {
    const uint8_t *data;
    size_t size, piece;
    uint8_t *copy;
    bool broken;
};

static const void *map(void *ctx, uint64_t offset, size_t *length)
{
    struct reader *r = ctx;
    assert_true(offset < r->size);
    *length = r->size - offset < r->piece ? r->size - offset : r->piece;
    free(r->copy);
    r->copy = malloc(*length);
    memcpy(r->copy, r->data + offset, *length);
    return r->broken ? NULL : r->copy;
}

static struct reader reader;

static struct guest_source source(void)
{
    free(reader.copy);
    reader = (struct reader){file, file_size, 509, NULL, false};
    return (struct guest_source){&reader, file_size, map};
}

static void header(uint32_t at, uint32_t flags)
{
    w(at, MAGIC, 4);
    w(at + 4, flags, 4);
    w(at + 8, 0u - MAGIC - flags, 4);
}

#define PH32(n) (52 + 32 * (n))
#define PH64(n) (64 + 56 * (n))

static void phdr32(unsigned n, uint32_t offset, uint32_t vaddr, uint32_t paddr, uint32_t filesz,
                   uint32_t memsz)
{
    const uint32_t h[] = {1, offset, vaddr, paddr, filesz, memsz, 7, 4};
    memcpy(file + PH32(n), h, sizeof(h));
}

/* Code at 1 MiB, linked for 0xc0100000; data and bss at 2 MiB. */
static void make_elf32(void)
{
    for (size_t i = 0; i < sizeof(file); i++)
        file[i] = (uint8_t)(i * 7 + (i >> 8));
    file_size = 0x5000;
    memset(file, 0, 0x1000);
    memcpy(file, "\177ELF\1\1\1", 7);
    w(16, 2, 2);
    w(18, 3, 2);
    w(20, 1, 4);
    w(24, 0xc0100010, 4);
    w(28, 52, 4);
    w(42, 32, 2);
    w(44, 3, 2);
    phdr32(0, 0x1000, 0xc0100000, 0x100000, 0x2000, 0x2000);
    phdr32(1, 0x3000, 0xc0200000, 0x200000, 0x1003, 0x2005);
    phdr32(2, 0x10, 0, 0, 0, 0); /* empty: ignored wherever it lies */
    header(0x1000, 3);
}

static void make_elf64(void)
{
    static const uint64_t h[] = {0x1000, 0xffffffff80100000, 0x100000, 0x2000, 0x2000, 4096};
    make_elf32();
    memset(file, 0, 0x1000);
    memcpy(file, "\177ELF\2\1\1", 7);
    w(16, 2, 2);
    w(18, 62, 2);
    w(20, 1, 4);
    w(24, 0xffffffff80100010, 8);
    w(32, 64, 8);
    w(54, 56, 2);
    w(56, 1, 2);
    w(PH64(0), 1, 4);
    memcpy(file + PH64(0) + 8, h, sizeof(h));
}

/* The a.out kludge: header at 0x40 of the file and of the image, which lies at 1 MiB. */
static void make_addresses(void)
{
    make_elf32();
    memset(file, 0, 0x1000);
    memset(file + 0x1000, 0, 12);
    header(0x60, 0x10000);
    w(0x60 + 12, 0x100040, 4);
    w(0x60 + 16, 0x100000, 4);
    w(0x60 + 20, 0x103000, 4);
    w(0x60 + 24, 0x105000, 4);
    w(0x60 + 28, 0x100080, 4);
}

static int setup(void **state)
{
    make_elf32();
    why[0] = 0;
    return guest_layout_init(&layout, 8 * M);
}

static enum status parse(void)
{
    struct guest_source s = source();
    memset(why, 0, sizeof(why));
    enum status status = multiboot_parse(&s, &image, why, sizeof(why));
    assert_int_equal(status == STATUS_OK, why[0] == 0);
    return status;
}

static void expect(enum status status, const char *text)
{
    enum status got = parse();
    if (got != status || !strstr(why, text))
        fail_msg("wanted %s with \"%s\", got %s: %s", status_name(status), text, status_name(got), why);
    make_elf32();
}

/* ---- parsing ---- */

static void test_elf32(void **state)
{
    assert_int_equal(parse(), STATUS_OK);
    assert_int_equal(image.kind, MULTIBOOT_ELF32);
    assert_int_equal(image.flags, 3);
    assert_int_equal(image.entry, 0x100010); /* where it is loaded, not where it is linked */
    assert_int_equal(image.segment_count, 2);
    assert_int_equal(image.segments[1].addr, 0x200000);
    assert_int_equal(image.segments[1].file_offset, 0x3000);
    assert_int_equal(image.segments[1].file_size, 0x1003);
    assert_int_equal(image.segments[1].mem_size, 0x2005);
    assert_int_equal(image.end, 0x202005);
}

static void test_elf64(void **state)
{
    make_elf64();
    assert_int_equal(parse(), STATUS_OK);
    assert_int_equal(image.kind, MULTIBOOT_ELF64);
    assert_int_equal(image.entry, 0x100010);
    assert_int_equal(image.segment_count, 1);
    assert_int_equal(image.end, 0x102000);
    w(18, 3, 2);
    expect(ERR_UNSUPPORTED, "ELF64 file for another processor (machine 3)");
    make_elf64();
    file_size = 60;
    memcpy(file + 40, file + 0x1000, 12);
    expect(ERR_INVALID, "truncated within its ELF header");
    make_elf64();
    w(PH64(0) + 40, 0xffffffffffffffff, 8); /* memsz */
    expect(ERR_UNSUPPORTED, "not below 4 GiB");
    make_elf64();
    w(PH64(0) + 24, 0xfffffffffffff000, 8); /* paddr */
    expect(ERR_UNSUPPORTED, "not below 4 GiB");
    make_elf64();
    w(PH64(0) + 8, 0xfffffffffffff000, 8); /* offset */
    expect(ERR_INVALID, "truncated");
    make_elf64();
    w(32, 0xfffffffffffffff0, 8); /* phoff */
    expect(ERR_INVALID, "truncated within its program headers");
}

static void test_addresses(void **state)
{
    make_addresses();
    assert_int_equal(parse(), STATUS_OK);
    assert_int_equal(image.kind, MULTIBOOT_ADDRESSES);
    assert_int_equal(image.entry, 0x100080);
    assert_int_equal(image.segment_count, 1);
    assert_int_equal(image.segments[0].addr, 0x100000);
    assert_int_equal(image.segments[0].file_offset, 0x20);
    assert_int_equal(image.segments[0].file_size, 0x3000);
    assert_int_equal(image.segments[0].mem_size, 0x5000);
    w(0x60 + 20, 0, 4); /* up to the end of the file */
    assert_int_equal(parse(), STATUS_OK);
    assert_int_equal(image.segments[0].file_size, 0x5000 - 0x20);
    w(0x60 + 24, 0, 4); /* no bss */
    assert_int_equal(parse(), STATUS_OK);
    assert_int_equal(image.segments[0].mem_size, 0x5000 - 0x20);
    /* The fields count, also in an ELF file. */
    make_elf32();
    memset(file + 0x1000, 0, 12);
    header(0x800, 0x10000);
    w(0x800 + 12, 0x100800, 4);
    w(0x800 + 16, 0x100000, 4);
    w(0x800 + 28, 0x100900, 4);
    assert_int_equal(parse(), STATUS_OK);
    assert_int_equal(image.kind, MULTIBOOT_ADDRESSES);
}

static void test_bad_addresses(void **state)
{
    static const struct {
        unsigned field;
        uint32_t value;
        enum status status;
        const char *text;
    } cases[] = {
        {12, 0xfffff, ERR_INVALID, "header address 0xfffff"}, /* the header before the image */
        {12, 0x100061, ERR_INVALID, "header at 0x60"},        /* the image before the file */
        {20, 0x100000, ERR_INVALID, "load 0x100000 to 0x100000"},
        {20, 0x106000, ERR_INVALID, "load 0x100000 to 0x106000"}, /* behind the bss */
        {28, 0x105000, ERR_INVALID, "entry 0x105000"},
        {28, 0xfffff, ERR_INVALID, "entry 0xfffff"},
        {20, 0x104fe1, ERR_INVALID, "truncated"}, /* one byte more than there is */
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_addresses();
        w(0x60 + cases[i].field, cases[i].value, 4);
        expect(cases[i].status, cases[i].text);
    }
    make_addresses();
    w(0x60 + 20, 0x104fe0, 4);
    assert_int_equal(parse(), STATUS_OK);
    make_addresses();
    w(0x60 + 12, 0x40, 4);
    w(0x60 + 16, 0, 4);
    w(0x60 + 20, 0x3000, 4);
    w(0x60 + 24, 0x3000, 4);
    w(0x60 + 28, 0x80, 4);
    expect(ERR_UNSUPPORTED,
           "loaded at 0x0 (12288 bytes): link it for 1 MiB (0x100000) or above, or for 0x2000 to 0x10000");
    make_addresses();
    memset(file + 0x60, 0, 32);
    header(8192 - 12, 0x10000);
    expect(ERR_INVALID, "cut off");
}

/* Programs for real mode: between what loaders keep below 64 KiB, and not a byte further. */
static void test_low(void **state)
{
    static const struct {
        uint32_t load, size;
        bool good;
    } rows[] = {{0x2000, 0x4000, true},  {0x8000, 0x8000, true},  {0x1ff0, 0x1000, false},
                {0x8000, 0x8001, false}, {0xd000, 0x3001, false}, {0x10000, 0x1000, false},
                {0xffffc, 0x1000, false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        make_addresses();
        w(0x60 + 12, rows[i].load + 0x40, 4);
        w(0x60 + 16, rows[i].load, 4);
        w(0x60 + 20, rows[i].load + 0x1000, 4);
        w(0x60 + 24, rows[i].load + rows[i].size, 4);
        w(0x60 + 28, rows[i].load + 0x80, 4);
        assert_int_equal(parse(), rows[i].good ? STATUS_OK : ERR_UNSUPPORTED);
    }
}

static void test_header_search(void **state)
{
    static const uint32_t places[] = {0x800, 0x804, 0x8fc, 0xff4, 8192 - 12};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        make_elf32();
        memset(file + 0x1000, 0, 0x2000);
        header(places[i], 0);
        if (parse() != STATUS_OK)
            fail_msg("at 0x%x: %s", places[i], why);
    }
    memset(file + 0x1000, 0, 0x2000);
    memset(file + 0x800, 0, 0x800);
    header(8192 - 8, 0); /* not completely within */
    expect(ERR_INVALID, "no Multiboot header in its first 8192 bytes");
    memset(file + 0x1000, 0, 12);
    header(0x802, 0); /* not aligned */
    expect(ERR_INVALID, "no Multiboot header");
    /* A wrong one does not hide a right one behind it. */
    header(0x800, 0);
    file[0x808]++;
    assert_int_equal(parse(), STATUS_OK);
    file_size = 11;
    expect(ERR_INVALID, "no Multiboot header");
}

static void test_header_flags(void **state)
{
    header(0x1000, 7); /* a video mode is a wish */
    assert_int_equal(parse(), STATUS_OK);
    for (unsigned bit = 3; bit < 16; bit++) {
        header(0x1000, 1u << bit);
        expect(ERR_UNSUPPORTED, "demands what Bulkhead does not know");
    }
    header(0x1000, 0xfffe0000); /* not mandatory */
    assert_int_equal(parse(), STATUS_OK);
}

static void test_bad_elf(void **state)
{
    file[1] = 'e';
    expect(ERR_INVALID, "is no ELF file and the header has no load addresses");
    file[4] = 3;
    expect(ERR_INVALID, "not a little-endian ELF32 or ELF64");
    file[5] = 2;
    expect(ERR_INVALID, "not a little-endian ELF32 or ELF64");
    w(18, 40, 2);
    expect(ERR_UNSUPPORTED, "ELF32 file for another processor (machine 40)");
    w(16, 3, 2);
    expect(ERR_UNSUPPORTED, "not linked at a fixed address (ELF type 3)");
    w(42, 56, 2);
    expect(ERR_INVALID, "3 program headers of 56 bytes");
    w(44, 0, 2);
    expect(ERR_INVALID, "0 program headers");
    w(44, 65, 2);
    expect(ERR_INVALID, "65 program headers");
    w(28, 0x5000 - 95, 4);
    expect(ERR_INVALID, "truncated within its program headers");
    w(28, 0xffffffff, 4);
    expect(ERR_INVALID, "truncated within its program headers");
    w(24, 0x100010, 4); /* where it is loaded, but the entry is where it is linked */
    expect(ERR_INVALID, "entry point 0x100010 lies in none");
    w(24, 0xc0202005, 4);
    expect(ERR_INVALID, "entry point 0xc0202005 lies in none");
    phdr32(1, 0x3000, 0, 0x200000, 0x2001, 0x3000);
    expect(ERR_INVALID, "truncated: a segment has 8193 bytes at 0x3000, the file has 20480");
    phdr32(1, 0xffffffff, 0, 0x200000, 2, 2);
    expect(ERR_INVALID, "truncated");
    phdr32(1, 0x3000, 0, 0x200000, 0x1000, 0xfff);
    expect(ERR_INVALID, "damaged: a segment of 4095 bytes in memory has 4096 in the file");
    phdr32(1, 0x3000, 0, 0xffff0, 0x10, 0x10);
    expect(ERR_UNSUPPORTED, "loaded at 0xffff0");
    phdr32(1, 0x3000, 0, 0xfffff000, 0x10, 0x1001);
    expect(ERR_UNSUPPORTED, "not below 4 GiB");
    phdr32(1, 0x3000, 0, 0x101fff, 0x10, 0x10);
    expect(ERR_INVALID, "segments at 0x100000 and 0x101fff overlap");
    phdr32(1, 0x3000, 0, 0x102000, 0x10, 0x10);
    assert_int_equal(parse(), STATUS_OK);
    w(44, MULTIBOOT_MAX_SEGMENTS + 1, 2);
    for (unsigned i = 1; i <= MULTIBOOT_MAX_SEGMENTS; i++)
        phdr32(i, 0x3000, 0, (uint32_t)((2 + i) * M), 1, 1);
    expect(ERR_UNSUPPORTED, "more than 16 segments");
}

static void test_truncated_at_every_place(void **state)
{
    for (size_t size = 0; size < 0x4003; size += size < 0x200 ? 1 : 251) {
        file_size = size;
        assert_int_not_equal(parse(), STATUS_OK);
    }
    file_size = 0x4003;
    assert_int_equal(parse(), STATUS_OK);
}

/* ---- recognising ---- */

static enum guest_format recognised;

static enum status recognise(void)
{
    struct guest_source s = source();
    memset(why, 0, sizeof(why));
    return guest_recognise(&s, &recognised, why, sizeof(why));
}

static void test_recognise(void **state)
{
    assert_int_equal(recognise(), STATUS_OK);
    assert_int_equal(recognised, GUEST_MULTIBOOT);
    w(0x1fe, 0xaa55, 2); /* a Linux with a Multiboot header */
    w(0x202, 0x53726448, 4);
    assert_int_equal(recognise(), STATUS_OK);
    assert_int_equal(recognised, GUEST_LINUX);
}

static void test_recognise_says_what_it_is(void **state)
{
    static const struct {
        const char *magic, *is;
    } kinds[] = {
        {"\177ELF", "the kernel is not a little-endian ELF32 or ELF64 file"},
        {"\x1f\x8b\x08", "a gzip file"},
        {"\xfd\x37zXZ", "an xz file"},
        {"\x28\xb5\x2f\xfd", "a zstd file"},
        {"BZh9", "a bzip2 file"},
        {"070701", "a cpio archive"},
        {"MZ", "a PE/EFI application without a Linux header"},
        {"\xd6\x50\x52\xe8", "the kernel's Multiboot 2 header, at 0x0 of the file, has a wrong checksum"},
        {"\x02\xb0\xad\x1b\x01", "header, at 0x0 of the file, has a wrong checksum"},
        {"x", "of no known format"}};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        memset(file, 0, sizeof(file));
        memcpy(file, kinds[i].magic, strlen(kinds[i].magic));
        if (recognise() != ERR_INVALID || !strstr(why, kinds[i].is))
            fail_msg("wanted \"%s\", got \"%s\"", kinds[i].is, why);
    }
    make_elf32();
    w(0x1000, 0, 4);
    assert_int_equal(recognise(), ERR_INVALID);
    assert_non_null(strstr(why, "an ELF file without a Multiboot header in its first 8192 bytes"));
    w(18, 40, 2);
    assert_int_equal(recognise(), ERR_UNSUPPORTED);
    assert_non_null(strstr(why, "another processor (machine 40)"));
    memset(file, 'x', sizeof(file));
    file[255] = '\n';
    assert_int_equal(recognise(), ERR_INVALID);
    assert_non_null(strstr(why, "the kernel is a text file; a Linux bzImage (vmlinuz), a Multiboot 1 or"));
    file[255] = 0x7f;
    recognise();
    assert_non_null(strstr(why, "no known format"));
    for (file_size = 1; file_size < 0x300; file_size++)
        assert_int_equal(recognise(), ERR_INVALID);
    file_size = 0;
    assert_int_equal(recognise(), ERR_INVALID);
    assert_non_null(strstr(why, "empty"));
    file_size = 100;
    struct guest_source s = source();
    reader.broken = true;
    assert_int_equal(guest_recognise(&s, &recognised, why, sizeof(why)), ERR_INVALID);
    assert_non_null(strstr(why, "cannot be read"));
}

/* ---- placing and loading ---- */

static uint8_t *memory;
static struct guest_files files;
static struct guest_image guest;
static struct reader modules[2];

static void *map_page(void *ctx, hpa_t page)
{
    return memory + page.v;
}

static void make_files(void)
{
    static uint8_t first[] = "first module", second[5000];
    memset(second, 0x22, sizeof(second));
    modules[0] = (struct reader){first, sizeof(first), 5, NULL, false};
    modules[1] = (struct reader){second, sizeof(second), 4096, NULL, false};
    files = (struct guest_files){.kernel = source(), .module_count = 2, .cmdline = "one two"};
    for (unsigned i = 0; i < 2; i++)
        files.modules[i].source = (struct guest_source){&modules[i], modules[i].size, map};
    struct config_module m = {.path = "dir/a", .args = "x y"}, n = {.path = "b"};
    guest_module_string(&m, files.modules[0].string);
    guest_module_string(&n, files.modules[1].string);
}

static enum status prepare(void)
{
    memset(why, 0, sizeof(why));
    return guest_prepare(&files, &layout, &guest, why, sizeof(why));
}

static uint32_t at32(uint64_t at)
{
    uint32_t v;
    memcpy(&v, memory + at, 4);
    return v;
}

static uint64_t at64(uint64_t at)
{
    return at32(at) | (uint64_t)at32(at + 4) << 32;
}

static enum status load(void)
{
    struct gmem g;
    const struct pmem_extent e = {0, 8 * M};
    memory = realloc(memory, 8 * M);
    memset(memory, 0xcc, 8 * M); /* what an earlier life left */
    gmem_init(&g, map_page, NULL);
    assert_int_equal(guest_layout_fill(&layout, &e, 1, &g), STATUS_OK);
    return guest_load(&guest, &files, &g, gpa(GUEST_ACPI));
}

static void free_all(void)
{
    free(memory);
    memory = NULL;
    for (unsigned i = 0; i < 2; i++) {
        free(modules[i].copy);
        modules[i].copy = NULL;
    }
}

static void test_load(void **state)
{
    make_files();
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.format, GUEST_MULTIBOOT);
    assert_int_equal(load(), STATUS_OK);
    assert_memory_equal(memory + 0x100000, file + 0x1000, 0x2000);
    assert_int_equal(memory[0x102000], 0xcc);
    assert_memory_equal(memory + 0x200000, file + 0x3000, 0x1003);
    for (unsigned i = 0x1003; i < 0x2005; i++)
        assert_int_equal(memory[0x200000 + i], 0); /* bss */
    assert_int_equal(memory[0x202005], 0xcc);
    assert_int_equal(memory[0xe0000], 0); /* where the caller writes the ACPI tables */

    struct guest_entry entry;
    guest_entry(&guest, &entry);
    assert_int_equal(entry.gpr[RAX], 0x2badb002);
    uint64_t info = entry.gpr[RBX];
    assert_int_equal(at32(info), 0x24d); /* memory, command line, modules, map, loader's name */
    assert_int_equal(at32(info + 4), 636);
    assert_int_equal(at32(info + 8), 7 * 1024);
    assert_string_equal((char *)memory + at32(info + 16), "one two");
    assert_string_equal((char *)memory + at32(info + 64), "Bulkhead");

    assert_int_equal(at32(info + 20), 2);
    uint32_t mods = at32(info + 24);
    assert_int_equal(at32(mods), 0x203000);
    assert_int_equal(at32(mods + 4), 0x203000 + sizeof("first module"));
    assert_string_equal((char *)memory + at32(mods), "first module");
    assert_string_equal((char *)memory + at32(mods + 8), "dir/a x y");
    assert_int_equal(at32(mods + 12), 0);
    assert_int_equal(at32(mods + 16), 0x204000);
    assert_int_equal(at32(mods + 20), 0x204000 + 5000);
    assert_string_equal((char *)memory + at32(mods + 24), "b");
    assert_int_equal(memory[0x204000 + 4999], 0x22);
    assert_int_equal(memory[0x204000 + 5000], 0xcc);

    uint32_t map_end = at32(info + 48) + at32(info + 44);
    bool ram = false, low = false;
    for (uint32_t at = at32(info + 48); at < map_end; at += 24) {
        assert_int_equal(at32(at), 20);
        ram |= at64(at + 4) == M && at64(at + 12) == 7 * M && at32(at + 20) == 1;
        low |= at64(at + 4) == 0 && at64(at + 12) == 0x9f000 && at32(at + 20) == 1;
    }
    assert_true(ram && low);
    free_all();
}

static void test_entry(void **state)
{
    struct guest_entry entry;
    make_files();
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(load(), STATUS_OK);
    guest_entry(&guest, &entry);
    assert_int_equal(entry.rip, 0x100010);
    assert_false(entry.long_mode);
    assert_int_equal(entry.rflags, 2);
    assert_int_equal(entry.cr0 & 0x80000001, 1); /* PE, no PG */
    assert_int_equal(entry.cr3 | entry.cr4 | entry.efer, 0);
    assert_int_equal(at64(entry.gdt_base + entry.cs), 0x00cf9b000000ffff);
    assert_int_equal(at64(entry.gdt_base + entry.ds), 0x00cf93000000ffff);
    assert_true(entry.gdt_limit >= entry.ds + 7u);
    free_all();
}

static void test_what_does_not_fit(void **state)
{
    make_files();
    files.modules[1].source.size = 8 * M - 0x204000;
    assert_int_equal(prepare(), STATUS_OK);
    files.modules[1].source.size++;
    assert_int_equal(prepare(), ERR_RANGE);
    assert_non_null(strstr(why, "module 2 does not fit: it has 6129 KiB"));
    files.modules[1].source.size = UINT64_MAX;
    assert_int_equal(prepare(), ERR_RANGE);
    make_files();
    files.module_count = CONFIG_MAX_MODULES + 1;
    assert_int_equal(prepare(), ERR_RANGE);
    make_files();
    phdr32(1, 0x3000, 0, 0x7ff000, 0x10, 0x1001);
    assert_int_equal(prepare(), ERR_RANGE);
    assert_non_null(strstr(why, "set memory = 10M or more"));
    phdr32(1, 0x3000, 0, 0x7ff000, 0x10, 0x1000);
    files.module_count = 0;
    assert_int_equal(prepare(), STATUS_OK);
    static char line[0x10001];
    memset(line, 'x', 0x10000);
    files.cmdline = line;
    assert_int_equal(prepare(), ERR_RANGE);
    assert_non_null(strstr(why, "command line is too long"));
    files.cmdline = "";
    files.initrd.size = 1;
    assert_int_equal(prepare(), ERR_UNSUPPORTED);
    assert_non_null(strstr(why, "write module ="));
}

static void test_linux_takes_no_modules(void **state)
{
    make_files();
    w(0x1fe, 0xaa55, 2);
    w(0x202, 0x53726448, 4);
    assert_int_equal(prepare(), ERR_UNSUPPORTED);
    assert_non_null(strstr(why, "modules are for Multiboot and PVH kernels"));
    files.module_count = 0;
    assert_int_equal(prepare(), ERR_UNSUPPORTED); /* and what linux_parse_image() says */
    assert_non_null(strstr(why, "boot protocol"));
}

/* A source that fails, or a command line that changed since: nothing is reported as loaded. */
static void test_load_failures(void **state)
{
    static char line[0x10001];
    make_files();
    assert_int_equal(prepare(), STATUS_OK);
    modules[1].broken = true;
    assert_int_equal(load(), ERR_RANGE);
    modules[1].broken = false;
    files.kernel.size = 0x2000;
    assert_int_equal(load(), ERR_RANGE);
    files.kernel.size = file_size;
    memset(line, 'x', 0x10000);
    files.cmdline = line;
    assert_int_equal(load(), ERR_INVALID);
    free_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_elf32, setup),
        cmocka_unit_test_setup(test_elf64, setup),
        cmocka_unit_test_setup(test_addresses, setup),
        cmocka_unit_test_setup(test_bad_addresses, setup),
        cmocka_unit_test_setup(test_header_search, setup),
        cmocka_unit_test_setup(test_low, setup),
        cmocka_unit_test_setup(test_header_flags, setup),
        cmocka_unit_test_setup(test_bad_elf, setup),
        cmocka_unit_test_setup(test_truncated_at_every_place, setup),
        cmocka_unit_test_setup(test_recognise, setup),
        cmocka_unit_test_setup(test_recognise_says_what_it_is, setup),
        cmocka_unit_test_setup(test_load, setup),
        cmocka_unit_test_setup(test_entry, setup),
        cmocka_unit_test_setup(test_what_does_not_fit, setup),
        cmocka_unit_test_setup(test_linux_takes_no_modules, setup),
        cmocka_unit_test_setup(test_load_failures, setup),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(reader.copy);
    return failed;
}
