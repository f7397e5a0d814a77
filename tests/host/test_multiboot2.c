/* Multiboot 2 guests: every rule of the header with a file that breaks it, and what a guest is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hv/guest/image.h"
#include "hv/vcpu.h"

#define M     (1ull << 20)
#define MAGIC 0xe85250d6u
#define AT    0x1008u /* of the header in the file */

static uint8_t file[0x4000], memory[16 * M];
static size_t file_size, tags; /* where the next tag goes */
static struct guest_files files;
static struct guest_image guest;
static struct guest_layout layout;
static struct gmem g;
static char why[200];

static void w(size_t at, uint64_t value, unsigned bytes)
{
    memcpy(file + at, &value, bytes);
}

static const void *map(void *ctx, uint64_t offset, size_t *length)
{
    *length = 333 - offset % 333;
    return (uint8_t *)ctx + offset;
}

static void *map_page(void *ctx, hpa_t page)
{
    return memory + page.v;
}

static void tag(uint16_t type, uint16_t flags, const uint32_t *words, unsigned count)
{
    w(tags, type, 2);
    w(tags + 2, flags, 2);
    w(tags + 4, 8 + 4 * count, 4);
    for (unsigned i = 0; i < count; i++)
        w(tags + 8 + 4 * i, words[i], 4);
    tags += (8 + 4 * count + 7) & ~7u;
}

/* The end tag, and the header's length and checksum. */
static void close_header(void)
{
    tag(0, 0, NULL, 0);
    uint32_t length = (uint32_t)(tags - AT);
    w(AT, MAGIC, 4);
    w(AT + 4, 0, 4);
    w(AT + 8, length, 4);
    w(AT + 12, 0u - MAGIC - length, 4);
}

/* An ELF32 file: 0x3000 bytes at 2 MiB, linked for 0xc0200000, entry 0xc0200123; the header is in it. */
static void make_elf(void)
{
    static const uint8_t ident[] = {0x7f, 'E', 'L', 'F', 1, 1, 1};
    const uint32_t phdr[] = {1, 0, 0xc0200000, 0x200000, 0x3000, 0x5000, 7, 4};
    for (size_t i = 0; i < sizeof(file); i++)
        file[i] = (uint8_t)(i * 5 + 3);
    memset(file, 0, 52);
    memcpy(file, ident, sizeof(ident));
    w(16, 2, 2);
    w(18, 3, 2);
    w(20, 1, 4);
    w(24, 0xc0200123, 4);
    w(28, 52, 4);
    w(40, 52, 2);
    w(42, 32, 2);
    w(44, 1, 2);
    memcpy(file + 52, phdr, sizeof(phdr));
    file_size = 0x3000;
    tags = AT + 16;
}

static enum status prepare(void)
{
    memset(why, 0, sizeof(why));
    files.kernel = (struct guest_source){file, file_size, map};
    return guest_prepare(&files, &layout, &guest, why, sizeof(why));
}

static int setup(void **state)
{
    const struct pmem_extent e = {0, 16 * M};
    memset(memory, 0xcc, sizeof(memory));
    gmem_init(&g, map_page, NULL);
    assert_int_equal(guest_layout_init(&layout, 16 * M), STATUS_OK);
    assert_int_equal(guest_layout_fill(&layout, &e, 1, &g), STATUS_OK);
    files = (struct guest_files){.cmdline = "one two"};
    make_elf();
    return 0;
}

/* ---- what the guest is told ---- */

static uint32_t m32(uint64_t at)
{
    uint32_t v;
    memcpy(&v, memory + at, 4);
    return v;
}

/* The n-th tag of this type; 0: there is none. Checks the list on its way. */
static uint64_t find_tag(uint64_t info, uint32_t type, unsigned n)
{
    uint64_t at = info + 8, end = info + m32(info);
    assert_int_equal(info % 8, 0);
    assert_int_equal(m32(info + 4), 0);
    for (;;) {
        assert_true(at + 8 <= end && m32(at + 4) >= 8 && at + m32(at + 4) <= end);
        if (m32(at) == type && n-- == 0)
            return at;
        if (m32(at) == 0)
            break;
        at += (m32(at + 4) + 7) & ~7u;
    }
    assert_int_equal(m32(at + 4), 8);
    assert_int_equal(at + 8, end);
    return 0;
}

static uint64_t load(void)
{
    struct guest_entry entry;
    memcpy(memory + GUEST_ACPI, "RSD PTR and 28 more bytes of the table.", 36);
    assert_int_equal(guest_load(&guest, &files, &g, gpa(GUEST_ACPI)), STATUS_OK);
    memcpy(memory + GUEST_ACPI, "RSD PTR and 28 more bytes of the table.", 36); /* written behind it */
    assert_int_equal(guest_put_rsdp(&guest, &g, gpa(GUEST_ACPI)), STATUS_OK);
    guest_entry(&guest, &entry);
    assert_int_equal(entry.gpr[RAX], 0x36d76289);
    assert_false(entry.long_mode || entry.real_mode);
    assert_int_equal(entry.cr0 & 0x80000001, 1);
    assert_int_equal(entry.rip, guest.multiboot.image.entry);
    return entry.gpr[RBX];
}

static void test_information(void **state)
{
    static uint8_t first[] = "first module", second[5000];
    memset(second, 0x22, sizeof(second));
    files.module_count = 2;
    files.modules[0].source = (struct guest_source){first, sizeof(first), map};
    files.modules[1].source = (struct guest_source){second, sizeof(second), map};
    strcpy(files.modules[0].string, "dir/a x y");
    strcpy(files.modules[1].string, "b");
    tag(1, 0, (const uint32_t[]){1, 2, 3, 4, 6, 15}, 6);
    tag(6, 0, NULL, 0);
    close_header();
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.format, GUEST_MULTIBOOT2);
    assert_int_equal(guest.multiboot.image.entry, 0x200123);
    uint64_t info = load();

    assert_memory_equal(memory + 0x200000, file, 0x3000);
    for (uint64_t at = 0x203000; at < 0x205000; at++)
        assert_int_equal(memory[at], 0);
    uint64_t at = find_tag(info, 1, 0);
    assert_string_equal((char *)memory + at + 8, "one two");
    assert_int_equal(m32(at + 4), 8 + sizeof("one two"));
    assert_string_equal((char *)memory + find_tag(info, 2, 0) + 8, "Bulkhead");
    for (unsigned i = 0; i < 2; i++) {
        at = find_tag(info, 3, i);
        uint32_t start = m32(at + 8);
        assert_int_equal(start % 4096, 0);
        assert_true(start >= 0x205000);
        assert_int_equal(m32(at + 12) - start, files.modules[i].source.size);
        assert_memory_equal(memory + start, files.modules[i].source.ctx, files.modules[i].source.size);
        assert_string_equal((char *)memory + at + 16, files.modules[i].string);
    }
    assert_int_equal(find_tag(info, 3, 2), 0);
    at = find_tag(info, 4, 0);
    assert_int_equal(m32(at + 8), 0x9f000 >> 10);
    assert_int_equal(m32(at + 12), (layout.low_end - M) >> 10);
    at = find_tag(info, 6, 0);
    assert_int_equal(m32(at + 8), 24);
    assert_int_equal((m32(at + 4) - 16) % 24, 0);
    uint64_t ram = 0;
    for (uint64_t e = at + 16; e < at + m32(at + 4); e += 24) {
        uint64_t length;
        memcpy(&length, memory + e + 8, 8);
        assert_int_equal(m32(e + 20), 0);
        ram += m32(e + 16) == 1 ? length : 0;
    }
    assert_in_range(ram, 15 * M, 16 * M - 1);
    at = find_tag(info, 15, 0);
    assert_int_equal(m32(at + 4), 8 + 36);
    assert_memory_equal(memory + at + 8, memory + GUEST_ACPI, 36);
    assert_int_equal(memory[0x4ff], 0);
    assert_int_equal(memory[0x2000], 0xcc); /* survives a reset */
}

static void test_addresses(void **state)
{
    file[0] = 0; /* no ELF file */
    tag(2, 0, (const uint32_t[]){0x301008, 0x300000, 0x302000, 0x308000}, 4);
    tag(3, 0, (const uint32_t[]){0x300040}, 1);
    close_header();
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.multiboot.image.segments[0].addr, 0x300000);
    assert_int_equal(guest.multiboot.image.segments[0].file_offset, 0);
    assert_int_equal(guest.multiboot.image.segments[0].file_size, 0x2000);
    assert_int_equal(guest.multiboot.image.segments[0].mem_size, 0x8000);
    assert_int_equal(guest.multiboot.image.entry, 0x300040);
    w(AT + 16 + 12, UINT32_MAX, 4); /* from the file's beginning, to its end */
    w(AT + 16 + 16, 0, 4);
    w(AT + 16 + 20, 0, 4);
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.multiboot.image.segments[0].addr, 0x300000);
    assert_int_equal(guest.multiboot.image.segments[0].file_size, 0x3000);
}

static void test_entry_of_elf(void **state)
{
    tag(3, 0, (const uint32_t[]){0x200777}, 1);
    close_header();
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.multiboot.image.entry, 0x200777);
    w(AT + 16 + 8, 0x205000, 4);
    assert_int_equal(prepare(), ERR_INVALID);
    assert_non_null(strstr(why, "0x205000 lies in none"));
}

/* Tags that are wishes, or for other firmware. */
static void test_tags_without_effect(void **state)
{
    tag(1, 1, (const uint32_t[]){9, 99}, 2); /* optional */
    tag(4, 0, (const uint32_t[]){2}, 1);
    tag(4, 1, (const uint32_t[]){1}, 1);
    tag(5, 0, (const uint32_t[]){1024, 768, 32}, 3);
    tag(7, 1, NULL, 0);
    tag(8, 0, (const uint32_t[]){1}, 1);
    tag(9, 0, (const uint32_t[]){1}, 1);
    tag(10, 0, (const uint32_t[]){0, 0, 0, 0}, 4);
    tag(77, 1, NULL, 0);
    close_header();
    assert_int_equal(prepare(), STATUS_OK);
}

static void test_refused_tags(void **state)
{
    static const struct {
        uint16_t type;
        uint32_t word;
        unsigned count;
        enum status status;
        const char *says;
    } rows[] = {
        {1, 9, 1, ERR_UNSUPPORTED, "boot information of type 9"},
        {1, 0x80000001, 1, ERR_UNSUPPORTED, "boot information of type"},
        {4, 1, 1, ERR_UNSUPPORTED, "demands a text screen"},
        {7, 0, 0, ERR_UNSUPPORTED, "demands what Bulkhead does not know (tag 7)"},
        {77, 0, 0, ERR_UNSUPPORTED, "(tag 77)"},
        {2, 0, 1, ERR_INVALID, "damaged: tag 2 has 12 bytes"},
        {3, 0, 0, ERR_INVALID, "damaged: tag 3 has 8 bytes"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        make_elf();
        tag(rows[i].type, 0, &rows[i].word, rows[i].count);
        close_header();
        assert_int_equal(prepare(), rows[i].status);
        assert_non_null(strstr(why, rows[i].says));
    }
}

static void test_damaged_headers(void **state)
{
    tag(6, 0, NULL, 0);
    close_header();
    assert_int_equal(prepare(), STATUS_OK);
    w(AT + 12, 1, 4);
    assert_int_equal(prepare(), ERR_INVALID);
    assert_non_null(strstr(why, "Multiboot 2 header, at 0x1008 of the file, has a wrong checksum"));
    close_header();
    w(AT + 16 + 4, 7, 4); /* a tag shorter than its head */
    assert_int_equal(prepare(), ERR_INVALID);
    assert_non_null(strstr(why, "tag 6 has 7 bytes"));
    w(AT + 16 + 4, 0x1000, 4); /* or longer than the header */
    assert_int_equal(prepare(), ERR_INVALID);
    make_elf();
    tag(6, 0, NULL, 0);
    close_header();
    w(AT + 8, 24, 4); /* no room for the end */
    w(AT + 12, 0u - MAGIC - 24, 4);
    assert_int_equal(prepare(), ERR_INVALID);
    assert_non_null(strstr(why, "do not end"));
    make_elf();
    close_header();
    w(AT + 4, 4, 4); /* MIPS */
    w(AT + 12, 0u - MAGIC - 4 - 24, 4);
    assert_int_equal(prepare(), ERR_UNSUPPORTED);
    assert_non_null(strstr(why, "another processor"));
    make_elf();
    tag(2, 0, (const uint32_t[]){0x301008, 0x300000, 0x302000, 0x308000}, 4);
    close_header();
    assert_int_equal(prepare(), ERR_INVALID);
    assert_non_null(strstr(why, "but no entry"));
    /* The whole file is needed, at every length. */
    make_elf();
    close_header();
    for (file_size = 1; file_size < 0x3000; file_size += 7)
        assert_int_not_equal(prepare(), STATUS_OK);
}

static void test_search(void **state)
{
    uint32_t offset;
    bool bad;
    close_header();
    struct guest_source s = {file, file_size, map};
    assert_true(multiboot2_find(&s, &offset, &bad));
    assert_int_equal(offset, AT);
    memmove(file + AT + 4, file + AT, 0x100); /* not on a multiple of 8 */
    memset(file + AT, 0, 4);
    assert_false(multiboot2_find(&s, &offset, &bad));
    assert_false(bad);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        T(test_information),  T(test_addresses),       T(test_entry_of_elf), T(test_tags_without_effect),
        T(test_refused_tags), T(test_damaged_headers), T(test_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
