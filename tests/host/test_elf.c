#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/layout.h"
#include "boot/elf.h"
#include "hv/lib/addr.h"

#define BASE  LAYOUT_CORE_VA
#define LIMIT LAYOUT_POOL_VA

/* Offsets in the two headers (System V ABI, "ELF Header", "Program Header"). */
enum {
    E_CLASS = 4,
    E_DATA = 5,
    E_TYPE = 16,
    E_MACHINE = 18,
    E_ENTRY = 24,
    E_PHOFF = 32,
    E_PHENTSIZE = 54,
    E_PHNUM = 56
};
enum { P_TYPE = 0, P_FLAGS = 4, P_OFFSET = 8, P_VADDR = 16, P_FILESZ = 32, P_MEMSZ = 40, P_SIZE = 56 };
enum { PT_LOAD = 1, PT_DYNAMIC = 2, PT_INTERP = 3, PT_NOTE = 4 };
#define RX 5u
#define RO 4u
#define RW 6u

static uint8_t file[0x4000];
static struct elf_image image;
static const char *why;

static void put16(size_t at, uint16_t v)
{
    memcpy(file + at, &v, sizeof(v));
}

static void put32(size_t at, uint32_t v)
{
    memcpy(file + at, &v, sizeof(v));
}

static void put64(size_t at, uint64_t v)
{
    memcpy(file + at, &v, sizeof(v));
}

static size_t ph(unsigned n)
{
    return 64 + n * P_SIZE;
}

static void put_segment(unsigned n, uint32_t type, uint32_t flags, uint64_t offset, uint64_t va,
                        uint64_t filesz, uint64_t memsz)
{
    put32(ph(n) + P_TYPE, type);
    put32(ph(n) + P_FLAGS, flags);
    put64(ph(n) + P_OFFSET, offset);
    put64(ph(n) + P_VADDR, va);
    put64(ph(n) + P_FILESZ, filesz);
    put64(ph(n) + P_MEMSZ, memsz);
}

/* A good file: code, read-only data, data with .bss, and a note. */
static int setup(void **state)
{
    for (size_t i = 0; i < sizeof(file); i++)
        file[i] = (uint8_t)(i >> 4 | 1);
    memset(file, 0, 0x1000);
    memcpy(file, "\177ELF\2\1\1", 7);
    put16(E_TYPE, 2);
    put16(E_MACHINE, 62);
    put32(20, 1);
    put64(E_ENTRY, BASE + 0x10);
    put64(E_PHOFF, 64);
    put16(E_PHENTSIZE, P_SIZE);
    put16(E_PHNUM, 4);
    put_segment(0, PT_LOAD, RX, 0x1000, BASE, 0xf00, 0xf00);
    put_segment(1, PT_LOAD, RO, 0x2000, BASE + 0x1000, 0x1000, 0x1000);
    put_segment(2, PT_LOAD, RW, 0x3000, BASE + 0x3000, 0x100, 0x1234);
    put_segment(3, PT_NOTE, RO, 0x9999999, 0, 1, 1);
    return 0;
}

static enum status parse_size(size_t size)
{
    uint8_t *copy = malloc(size ? size : 1); /* the sanitizer guards its end */
    memcpy(copy, file, size);
    enum status s = elf_parse((struct span){copy, size}, BASE, LIMIT, &image, &why);
    free(copy);
    return s;
}

static void expect(enum status want, const char *text)
{
    enum status s = parse_size(sizeof(file));
    if (s != want || !strstr(why, text))
        fail_msg("wanted %s with \"%s\", got %s: %s", status_name(want), text, status_name(s), why);
}

static void test_good(void **state)
{
    expect(STATUS_OK, "");
    assert_int_equal(image.segment_count, 3);
    assert_int_equal(image.entry, BASE + 0x10);
    assert_int_equal(image.size, 0x5000);
    assert_true(image.segments[0].exec && !image.segments[0].write);
    assert_true(!image.segments[1].exec && !image.segments[1].write);
    assert_true(!image.segments[2].exec && image.segments[2].write);

    uint8_t *dest = malloc(image.size);
    memset(dest, 0xee, image.size);
    elf_load(&image, (struct span){file, sizeof(file)}, dest);
    assert_memory_equal(dest, file + 0x1000, 0xf00);
    for (unsigned i = 0xf00; i < 0x1000; i++)
        assert_int_equal(dest[i], 0);
    assert_memory_equal(dest + 0x1000, file + 0x2000, 0x1000);
    assert_memory_equal(dest + 0x3000, file + 0x3000, 0x100);
    for (unsigned i = 0x2000; i < 0x5000; i++)
        if (i < 0x3000 || i >= 0x3100)
            assert_int_equal(dest[i], 0);
    free(dest);
}

static void test_header(void **state)
{
    assert_int_equal(parse_size(0), ERR_INVALID);
    assert_int_equal(parse_size(63), ERR_INVALID);
    assert_int_equal(parse_size(64 + 4 * P_SIZE - 1), ERR_RANGE);
    static const struct {
        size_t at;
        uint8_t value;
        enum status want;
        const char *text;
    } cases[] = {
        {0, 0x7e, ERR_INVALID, "ELF64"},
        {E_CLASS, 1, ERR_INVALID, "ELF64"},
        {E_DATA, 2, ERR_INVALID, "ELF64"},
        {E_MACHINE, 3, ERR_INVALID, "x86-64"},
        {E_TYPE, 3, ERR_INVALID, "fixed address"},
        {20, 2, ERR_INVALID, "fixed address"},
        {E_PHNUM, 0, ERR_INVALID, "no program headers"},
        {E_PHENTSIZE, 32, ERR_INVALID, "no program headers"},
        {E_PHOFF + 7, 0xff, ERR_RANGE, "outside the file"},
        {E_PHNUM + 1, 0xff, ERR_RANGE, "outside the file"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(state);
        file[cases[i].at] = cases[i].value;
        expect(cases[i].want, cases[i].text);
    }
}

static void test_segments(void **state)
{
    static const struct {
        unsigned n;
        size_t field;
        uint64_t value;
        enum status want;
        const char *text;
    } cases[] = {
        {0, P_VADDR, BASE + 8, ERR_INVALID, "start on a page"},
        {0, P_VADDR, BASE - 0x1000, ERR_RANGE, "below the image's base"},
        {1, P_VADDR, BASE, ERR_RANGE, "overlap"},
        {1, P_VADDR, 0x400000, ERR_RANGE, "base"},
        {2, P_VADDR, LIMIT, ERR_RANGE, "above the room"},
        {2, P_VADDR, LIMIT - 0x1000, ERR_RANGE, "above the room"},
        {2, P_MEMSZ, UINT64_MAX, ERR_RANGE, "above the room"},
        {2, P_MEMSZ, 0xff, ERR_INVALID, "more bytes in the file"},
        {2, P_OFFSET, sizeof(file) + 1, ERR_RANGE, "outside the file"},
        {2, P_OFFSET, sizeof(file) - 0xff, ERR_RANGE, "outside the file"},
        {2, P_OFFSET, UINT64_MAX, ERR_RANGE, "outside the file"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(state);
        put64(ph(cases[i].n) + cases[i].field, cases[i].value);
        expect(cases[i].want, cases[i].text);
    }
    setup(state);
    put64(ph(2) + P_FILESZ, UINT64_MAX);
    put64(ph(2) + P_MEMSZ, UINT64_MAX);
    expect(ERR_RANGE, "outside the file");
}

static void test_permissions(void **state)
{
    put32(ph(0) + P_FLAGS, 7);
    expect(ERR_INVALID, "writable and executable");
    put32(ph(0) + P_FLAGS, 1);
    expect(ERR_INVALID, "not readable");
    setup(state);
    put32(ph(3) + P_TYPE, PT_DYNAMIC);
    expect(ERR_INVALID, "dynamic linker");
    put32(ph(3) + P_TYPE, PT_INTERP);
    expect(ERR_INVALID, "dynamic linker");
}

static void test_entry(void **state)
{
    static const uint64_t entries[] = {0, BASE - 1, BASE + 0xf00, BASE + 0x1000, BASE + 0x3000};
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
        put64(E_ENTRY, entries[i]);
        expect(ERR_INVALID, "entry point");
    }
    put64(E_ENTRY, BASE + 0xeff);
    expect(STATUS_OK, "");
}

static void test_counts(void **state)
{
    put16(E_PHNUM, ELF_MAX_SEGMENTS + 1);
    for (unsigned i = 0; i <= ELF_MAX_SEGMENTS; i++)
        put_segment(i, PT_LOAD, RX, 0x1000, BASE + i * PAGE_SIZE, 0x1000, 0x1000);
    expect(ERR_NO_MEMORY, "too many");
    put_segment(3, PT_LOAD, RX, 0x1000, 0, 0, 0); /* empty ones do not count */
    expect(STATUS_OK, "");
    assert_int_equal(image.segment_count, ELF_MAX_SEGMENTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_good, setup),     cmocka_unit_test_setup(test_header, setup),
        cmocka_unit_test_setup(test_segments, setup), cmocka_unit_test_setup(test_permissions, setup),
        cmocka_unit_test_setup(test_entry, setup),    cmocka_unit_test_setup(test_counts, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
