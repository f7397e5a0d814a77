/* PVH guests: every rule with a file that breaks it, and what a guest finds in its memory. */
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
#define NOTES 0x400u

static uint8_t file[0x3000];
static size_t file_size;
static struct guest_layout layout;
static struct guest_files files;
static struct guest_image guest;
static uint8_t *memory;
static char why[200];

static void w(uint64_t at, uint64_t value, unsigned bytes)
{
    memcpy(file + at, &value, bytes);
}

struct reader {
    const uint8_t *data;
    size_t size;
    uint8_t *copy;
};

/* Pieces of an odd size, in a buffer of exactly that size: a read too far is seen. */
static const void *map(void *ctx, uint64_t offset, size_t *length)
{
    struct reader *r = ctx;
    assert_true(offset < r->size);
    *length = r->size - offset < 61 ? r->size - offset : 61;
    free(r->copy);
    r->copy = malloc(*length);
    memcpy(r->copy, r->data + offset, *length);
    return r->copy;
}

static struct reader readers[3];

static struct guest_source source(unsigned i, const uint8_t *data, size_t size)
{
    free(readers[i].copy);
    readers[i] = (struct reader){data, size, NULL};
    return (struct guest_source){&readers[i], size, map};
}

static uint32_t note(uint32_t at, uint32_t align, const char *owner, uint32_t type, uint64_t value,
                     uint32_t bytes)
{
    uint32_t name = (uint32_t)strlen(owner) + 1, desc = (12 + name + align - 1) & ~(align - 1);
    w(at, name, 4);
    w(at + 4, bytes, 4);
    w(at + 8, type, 4);
    memcpy(file + at + 12, owner, name);
    w(at + desc, value, 8);
    return at + ((desc + bytes + align - 1) & ~(align - 1));
}

static void phdr(unsigned n, uint32_t type, uint64_t offset, uint64_t paddr, uint64_t filesz, uint64_t memsz,
                 uint64_t align)
{
    const uint64_t h[] = {type, offset, paddr + 0xffffffff80000000, paddr, filesz, memsz, align};
    memcpy(file + 64 + 56 * n, h, sizeof(h));
}

/* As vmlinux: e_entry in none of the virtual ranges, the entry's note behind others. */
static void make_elf64(uint32_t align)
{
    memset(file, 0, sizeof(file));
    memset(file + 0x1000, 0x11, 0x1000);
    file_size = sizeof(file);
    memcpy(file, "\177ELF\2\1\1", 7);
    w(16, 2, 2);
    w(18, 62, 2);
    w(20, 1, 4);
    w(24, 0x100000, 8);
    w(32, 64, 8);
    w(54, 56, 2);
    w(56, 2, 2);
    uint32_t end = note(NOTES, align, "Linux", 18, 0x100008, 8);
    end = note(end, align, "Xen", 5, 0x100008, 5);
    end = note(end, align, "Xen", 18, 0x100010, 8);
    phdr(0, 1, 0x1000, 0x100000, 0x1000, 0x1800, 4096);
    phdr(1, 4, NOTES, 0, end - NOTES, end - NOTES, align);
}

static void make_elf32(void)
{
    static const uint32_t load[] = {1, 0x1000, 0xc0100000, 0x100000, 0x1000, 0x1800, 7, 4};
    static const uint32_t notes[] = {4, NOTES, 0, 0, 20, 20, 4, 4};
    make_elf64(4);
    memset(file, 0, 0x1000);
    memcpy(file, "\177ELF\1\1\1", 7);
    w(16, 2, 2);
    w(18, 3, 2);
    w(28, 52, 4);
    w(42, 32, 2);
    w(44, 2, 2);
    memcpy(file + 52, load, sizeof(load));
    memcpy(file + 84, notes, sizeof(notes));
    note(NOTES, 4, "Xen", 18, 0x100010, 4);
}

static int setup(void **state)
{
    make_elf64(4);
    return guest_layout_init(&layout, 8 * M);
}

static enum status prepare(void)
{
    memset(why, 0, sizeof(why));
    files.kernel = source(0, file, file_size);
    files.cmdline = "one two";
    return guest_prepare(&files, &layout, &guest, why, sizeof(why));
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < ARRAY_SIZE(readers); i++) {
        free(readers[i].copy);
        readers[i].copy = NULL;
    }
    free(memory);
    memory = NULL;
    memset(&files, 0, sizeof(files));
    return 0;
}

static void refused(const char *sentence)
{
    if (prepare() == STATUS_OK || !strstr(why, sentence))
        fail_msg("wanted \"%s\", got \"%s\"", sentence, why);
}

static void test_formats(void **state)
{
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.format, GUEST_PVH);
    assert_int_equal(guest.multiboot.image.entry, 0x100010);
    make_elf64(8); /* names and values lie differently */
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.multiboot.image.entry, 0x100010);
    make_elf32();
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest.multiboot.image.entry, 0x100010);
    assert_int_equal(guest.multiboot.image.kind, MULTIBOOT_ELF32);
}

static void test_refused(void **state)
{
    make_elf64(4);
    phdr(1, 4, NOTES, 0, 40, 40, 4); /* the note lies behind its segment's end */
    refused("or a PVH entry note");
    make_elf64(4);
    phdr(1, 4, sizeof(file) - 8, 0, 100, 100, 4);
    refused("or a PVH entry note");
    make_elf64(4);
    w(NOTES + 4, 0xffffffff, 4); /* a value of 4 GiB before it */
    refused("or a PVH entry note");
    make_elf64(4);
    w(NOTES, 0xffffffff, 4);
    refused("or a PVH entry note");
    make_elf32();
    w(84 + 16, 18, 4); /* its value lies half behind it */
    refused("or a PVH entry note");
    make_elf32();
    w(NOTES + 4, 2, 4);
    refused("its value has 2 bytes");
    make_elf32();
    note(NOTES, 4, "Xen", 18, 0x1017ff, 4); /* the last byte */
    assert_int_equal(prepare(), STATUS_OK);
    note(NOTES, 4, "Xen", 18, 0x101800, 4);
    refused("entry point 0x101800 lies in none");
    note(NOTES, 4, "Xen", 18, 0xfffff, 4);
    refused("entry point 0xfffff lies in none");
    make_elf64(4);
    phdr(0, 1, 0x1000, 0x80000, 0x1000, 0x1800, 4096);
    refused("wants to be loaded at 0x80000");
    make_elf64(4);
    file_size = 0x1800;
    refused("truncated");
    make_elf64(4);
    w(16, 3, 2); /* its note is not even looked for */
    refused("not linked at a fixed address (ELF type 3)");
    make_elf64(4);
    files.initrd = source(1, file, 10);
    files.module_count = 1;
    refused("write initrd = or module =");
    for (file_size = 1; file_size < 0x500; file_size++)
        assert_int_not_equal(prepare(), STATUS_OK);
}

static void *map_page(void *ctx, hpa_t page)
{
    return memory + page.v;
}

static void load(void)
{
    struct gmem g;
    const struct pmem_extent e = {0, 8 * M};
    memory = realloc(memory, 8 * M);
    memset(memory, 0xcc, 8 * M); /* what an earlier life left */
    gmem_init(&g, map_page, NULL);
    assert_int_equal(prepare(), STATUS_OK);
    assert_int_equal(guest_layout_fill(&layout, &e, 1, &g), STATUS_OK);
    assert_int_equal(guest_load(&guest, &files, &g, gpa(0xe0040)), STATUS_OK);
}

static uint64_t at(uint64_t where, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, memory + where, bytes);
    return v;
}

static void test_load(void **state)
{
    static const uint8_t initrd[] = "an initrd";
    struct guest_entry entry;
    files.initrd = source(1, initrd, sizeof(initrd));
    load();
    guest_entry(&guest, &entry);
    uint64_t info = entry.gpr[RBX];
    assert_int_equal(at(info, 4), 0x336ec578);
    assert_int_equal(at(info + 4, 4), 1);
    assert_int_equal(at(info + 8, 4), 0);
    assert_int_equal(at(info + 12, 4), 1);
    assert_string_equal((char *)memory + at(info + 24, 8), "one two");
    assert_int_equal(at(info + 32, 8), 0xe0040);
    assert_int_equal(at(info + 52, 4), 0);
    uint64_t mods = at(info + 16, 8);
    assert_int_equal(at(mods, 8), 0x102000);
    assert_int_equal(at(mods + 8, 8), sizeof(initrd));
    assert_int_equal(at(mods + 16, 8), 0); /* no string */
    assert_int_equal(at(mods + 24, 8), 0);
    assert_string_equal((char *)memory + 0x102000, "an initrd");
    assert_memory_equal(memory + 0x100000, file + 0x1000, 0x1000);
    assert_int_equal(memory[0x1017ff] | memory[0x101000], 0); /* bss */
    assert_int_equal(memory[0x101800], 0xcc);
    bool ram = false, low = false;
    for (uint64_t i = 0, m = at(info + 40, 8); i < at(info + 48, 4); i++, m += 24) {
        ram |= at(m, 8) == M && at(m + 8, 8) == 7 * M && at(m + 16, 8) == 1;
        low |= at(m, 8) == 0 && at(m + 8, 8) == 0x9f000 && at(m + 16, 8) == 1;
    }
    assert_true(ram && low);
}

static void test_modules(void **state)
{
    struct guest_entry entry;
    files.module_count = 2;
    files.modules[0].source = source(1, (const uint8_t *)"A", 1);
    strcpy(files.modules[0].string, "a x");
    files.modules[1].source = source(2, (const uint8_t *)"B", 1);
    strcpy(files.modules[1].string, "b");
    load();
    guest_entry(&guest, &entry);
    assert_int_equal(at(entry.gpr[RBX] + 12, 4), 2);
    uint64_t mods = at(entry.gpr[RBX] + 16, 8);
    assert_string_equal((char *)memory + at(mods + 16, 8), "a x");
    assert_string_equal((char *)memory + at(mods + 32 + 16, 8), "b");
    assert_int_equal(memory[at(mods, 8)], 'A');
    assert_int_equal(memory[at(mods + 32, 8)], 'B');
    files.module_count = 0;
    load();
    assert_int_equal(at(entry.gpr[RBX] + 12, 4) | at(entry.gpr[RBX] + 16, 8), 0);
}

static void test_entry(void **state)
{
    struct guest_entry entry;
    load();
    guest_entry(&guest, &entry);
    assert_int_equal(entry.rip, 0x100010);
    assert_false(entry.long_mode);
    assert_int_equal(entry.rflags, 2);
    assert_int_equal(entry.cr0 & 0x80000001, 1);
    assert_int_equal(entry.cr3 | entry.cr4 | entry.efer, 0);
    assert_int_equal(at(entry.gdt_base + entry.cs, 8), 0x00cf9b000000ffff);
    assert_int_equal(at(entry.gdt_base + entry.ds, 8), 0x00cf93000000ffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_formats, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_modules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entry, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
