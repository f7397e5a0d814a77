/* The reader of the DMAR table: tables in the shapes of real machines (tests/vectors/dmar), and every way of
 * being broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/acpi/acpi_dmar.h"

#define BASE 0x7f000000ull
static uint8_t mem[0x10000];
static uint32_t length;        /* of the table at BASE */
static uint64_t unreadable_at; /* reads that touch this byte fail */
static struct acpi_tables t;
static struct acpi_dmar dmar;
static const char *why;

static enum status read_mem(void *ctx, hpa_t addr, void *buf, size_t size)
{
    (void)ctx;
    if (addr.v < BASE || addr.v - BASE + size > length)
        fail_msg("a read outside of the table: %zu bytes at %llx", size, (unsigned long long)addr.v);
    if (unreadable_at >= addr.v && unreadable_at < addr.v + size)
        return ERR_RANGE;
    memcpy(buf, mem + (addr.v - BASE), size);
    return STATUS_OK;
}

/* What acpi_open() would have found; it has checked length and checksum. */
static enum status read(void)
{
    memset(&t, 0, sizeof(t));
    memset(&dmar, 0x77, sizeof(dmar));
    why = NULL;
    t.reader = (struct acpi_reader){NULL, read_mem};
    t.count = length ? 1 : 0;
    t.tables[0] = (struct acpi_table){.signature = {'D', 'M', 'A', 'R'}, .addr = hpa(BASE), .length = length};
    return acpi_read_dmar(&t, &dmar, &why);
}

static void bytes(const void *p, uint32_t n)
{
    memcpy(mem + length, p, n);
    length += n;
}

static void word(uint64_t v, unsigned n)
{
    bytes(&v, n);
}

/* A table without structures. */
static int begin(void **state)
{
    (void)state;
    memset(mem, 0, sizeof(mem));
    length = 36;
    unreadable_at = UINT64_MAX;
    word(47, 1);
    word(1, 1);
    length = 48;
    return 0;
}

static void unit(uint8_t flags, uint16_t segment, uint64_t base, uint32_t scope_bytes)
{
    word(0, 2);
    word(16 + scope_bytes, 2);
    word(flags, 2);
    word(segment, 2);
    word(base, 8);
}

static void region(uint64_t base, uint64_t limit)
{
    word(1, 2);
    word(24, 2);
    word(0, 4);
    word(base, 8);
    word(limit, 8);
}

static void scope(uint8_t type, uint8_t size, uint8_t bus, const char *path)
{
    word(type, 1);
    word(size, 1);
    word(0, 2);
    word(1, 1);
    word(bus, 1);
    bytes(path, size > 6 ? size - 6u : 0);
}

static void refused(enum status want, const char *text)
{
    assert_int_equal(read(), want);
    assert_non_null(why);
    if (!strstr(why, text))
        fail_msg("'%s' does not say '%s'", why, text);
    assert_int_equal(dmar.unit_count, 0);
    begin(NULL);
}

static void load(const char *name)
{
    char path[300], line[300];
    snprintf(path, sizeof(path), "%s/tests/vectors/dmar/%s.txt", TEST_SOURCE_DIR, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    length = 0;
    while (fgets(line, sizeof(line), file)) {
        unsigned v;
        int used;
        for (const char *p = line; line[0] != '#' && sscanf(p, "%2x%n", &v, &used) == 1; p += used)
            mem[length++] = (uint8_t)v;
    }
    fclose(file);
    uint8_t sum = 0;
    for (uint32_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + mem[i]);
    assert_int_equal(sum, 0);
}

static void test_qemu(void **state)
{
    (void)state;
    load("qemu-q35");
    assert_int_equal(read(), STATUS_OK);
    assert_true(dmar.can_remap_interrupts && !dmar.x2apic_opt_out && !dmar.dma_opt_in);
    assert_int_equal(dmar.width, 48);
    assert_int_equal(dmar.unit_count, 1);
    assert_int_equal(dmar.units[0].base.v, 0xfed90000);
    assert_false(dmar.units[0].all);
    const struct acpi_dmar_scope *s = &dmar.scopes[dmar.units[0].scopes.first];
    assert_int_equal(s->type, ACPI_DMAR_IOAPIC);
    assert_int_equal(s->bus, 0xff);
    assert_true(dmar.units[0].scopes.count > 4);
    unsigned ports = 0;
    for (unsigned i = 0; i < dmar.units[0].scopes.count; i++)
        ports += s[i].type == ACPI_DMAR_BRIDGE && s[i].depth == 1 &&
                 (s[i].path[0].device == 2 || s[i].path[0].device == 3);
    assert_int_equal(ports, 2);
}

static void test_laptop(void **state)
{
    (void)state;
    load("laptop");
    assert_int_equal(read(), STATUS_OK);
    assert_int_equal(dmar.width, 39);
    assert_true(dmar.dma_opt_in);
    assert_int_equal(dmar.unit_count, 2);
    assert_true(!dmar.units[0].all && dmar.units[1].all);
    assert_int_equal(dmar.units[0].scopes.count, 1);
    assert_int_equal(dmar.scopes[0].path[0].device, 2);
    assert_int_equal(dmar.units[1].scopes.count, 3);
    assert_int_equal(dmar.scopes[dmar.units[1].scopes.first + 2].type, ACPI_DMAR_NAMESPACE);
    assert_int_equal(dmar.region_count, 2);
    assert_int_equal(dmar.regions[1].base, 0x7b800000);
    assert_int_equal(dmar.regions[1].limit, 0x7fffffff);
    assert_int_equal(dmar.scopes[dmar.regions[0].scopes.first].path[0].device, 0x14);
    assert_int_equal(dmar.name_count, 1);
    assert_int_equal(dmar.names[0].number, 1);
    assert_string_equal(dmar.names[0].name, "\\_SB.PCI0.I2C0");
}

static void test_server(void **state)
{
    (void)state;
    load("server");
    assert_int_equal(read(), STATUS_OK);
    assert_true(dmar.x2apic_opt_out);
    assert_int_equal(dmar.unit_count, 5);
    assert_int_equal(dmar.units[4].segment, 1);
    assert_true(dmar.units[3].all && dmar.units[4].all); /* each of its own segment */
    for (unsigned i = 0; i < 4; i++)
        assert_true(dmar.units[i].has_proximity && dmar.units[i].proximity == i / 2);
    assert_false(dmar.units[4].has_proximity);
    const struct acpi_dmar_scope *s = &dmar.scopes[dmar.units[1].scopes.first];
    assert_int_equal(s[0].bus, 0x47);
    assert_int_equal(s[1].depth, 2);
    assert_int_equal(s[1].path[0].device, 2);
    assert_int_equal(dmar.region_count, 2);
    assert_int_equal(dmar.regions[0].scopes.count, 2);
    assert_int_equal(dmar.scopes[dmar.regions[1].scopes.first].depth, 3);
    assert_int_equal(dmar.ats_count, 3);
    assert_true(!dmar.ats[0].all && dmar.ats[0].scopes.count == 2);
    assert_true(dmar.ats[1].all && dmar.ats[1].segment == 1);
    assert_true(dmar.ats[2].satc && dmar.ats[2].required && !dmar.ats[0].required);
    assert_int_equal(dmar.unknown, 1);
}

/* Every single cut of a real table is noticed, or gives a table that is whole; nothing beyond it is read. */
static void test_every_cut(void **state)
{
    (void)state;
    static const char *const names[] = {"qemu-q35", "laptop", "server"};
    for (unsigned i = 0; i < 3; i++) {
        load(names[i]);
        for (uint32_t n = length; n-- > 0;) {
            length = n;
            enum status status = read();
            assert_true(status != STATUS_OK || dmar.unit_count > 0);
            if (n < 48 + 16)
                assert_int_not_equal(status, STATUS_OK);
        }
    }
}

/* Whatever byte cannot be read: no table. */
static void test_unreadable(void **state)
{
    (void)state;
    load("server");
    assert_int_equal(read(), STATUS_OK);
    unsigned refusals = 0;
    for (unreadable_at = BASE + 48; unreadable_at < BASE + length; unreadable_at++) {
        enum status status = read();
        refusals += status != STATUS_OK;
        if (status != STATUS_OK)
            assert_true(why && dmar.unit_count == 0);
    }
    assert_true(refusals > length / 2);
    unreadable_at = BASE + 36;
    assert_int_equal(read(), ERR_INVALID);
}

static void test_heads(void **state)
{
    (void)state;
    length = 0;
    refused(ERR_NOT_FOUND, "no DMAR");
    length = 47;
    refused(ERR_INVALID, "too short");
    mem[36] = 64;
    unit(1, 0, 0xfed90000, 0);
    refused(ERR_INVALID, "address width");
    refused(ERR_INVALID, "no unit");
    unit(1, 0, 0xfed90000, 0);
    mem[36] = 63;
    length += 6; /* zeros, as some firmware has at the end */
    assert_int_equal(read(), STATUS_OK);
    assert_int_equal(dmar.width, 64);
}

static void test_broken_structures(void **state)
{
    (void)state;
    unit(1, 0, 0xfed90000, 0);
    word(2, 2);
    refused(ERR_INVALID, "ends within");
    unit(1, 0, 0xfed90000, 0);
    word(2, 2);
    word(3, 2);
    refused(ERR_INVALID, "no possible length");
    unit(1, 0, 0xfed90000, 1);
    refused(ERR_INVALID, "no possible length");
    static const uint8_t sizes[] = {16, 24, 8, 20, 8, 8};
    for (unsigned type = 0; type < 6; type++) {
        unit(1, 0, 0xfed90000, 0);
        word(type, 2);
        word(sizes[type] - 1, 2);
        length += sizes[type];
        refused(ERR_INVALID, "shorter than its type");
    }
    static const uint64_t bases[] = {0, 0xfed90001, 1ull << 52};
    for (unsigned i = 0; i < 3; i++) {
        unit(1, 0, bases[i], 0);
        refused(ERR_INVALID, "no possible address");
    }
    unit(1, 0, 0xfed90000, 0);
    unit(0, 0, 0xfed90000, 0);
    refused(ERR_INVALID, "same address");
    unit(1, 0, 0xfed90000, 0);
    unit(1, 0, 0xfed91000, 0);
    refused(ERR_INVALID, "all devices that remain");
    static const uint64_t ranges[][2] = {
        {0x1001, 0x2fff}, {0x1000, 0x2ffe}, {0x3000, 0x2fff}, {0, UINT64_MAX}, {0x1000, 0x10fffffffffffff}};
    for (unsigned i = 0; i < 5; i++) {
        unit(1, 0, 0xfed90000, 0);
        region(ranges[i][0], ranges[i][1]);
        refused(ERR_INVALID, "whole pages");
    }
}

static void test_broken_scopes(void **state)
{
    (void)state;
    unit(1, 0, 0xfed90000, 5);
    length += 5;
    refused(ERR_INVALID, "cut off");
    unit(1, 0, 0xfed90000, 8);
    scope(1, 10, 0, "\0\0\0\0");
    length -= 2;
    refused(ERR_INVALID, "longer than its structure");
    static const uint8_t sizes[] = {0, 6, 7, 9};
    for (unsigned i = 0; i < 4; i++) {
        unit(1, 0, 0xfed90000, 12);
        scope(1, sizes[i], 0, "\0\0\0");
        length = 48 + 16 + 12;
        refused(ERR_INVALID, "no path");
    }
    unit(1, 0, 0xfed90000, 8);
    scope(1, 8, 0, "\x20\0");
    refused(ERR_INVALID, "no possible address");
    unit(1, 0, 0xfed90000, 8);
    scope(2, 8, 0, "\x1f\x08");
    refused(ERR_INVALID, "no possible address");
    unit(1, 0, 0xfed90000, 20);
    scope(1, 20, 0, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    refused(ERR_NO_MEMORY, "more bridges");
    unit(1, 0, 0xfed90000, 18 + 8 + 8);
    scope(1, 18, 3, "\1\0\2\0\3\0\4\0\5\0\6\7");
    scope(6, 8, 0, "\x20\x20"); /* of the future */
    scope(0, 8, 0, "\0\0");
    assert_int_equal(read(), STATUS_OK);
    assert_int_equal(dmar.unknown, 2);
    assert_int_equal(dmar.units[0].scopes.count, 1);
    assert_int_equal(dmar.scopes[0].depth, 6);
    assert_int_equal(dmar.scopes[0].path[5].function, 7);
}

static void test_too_many(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ACPI_DMAR_UNITS; i++)
        unit(0, 0, 0xfed00000 + i * 0x1000, 0);
    assert_int_equal(read(), STATUS_OK);
    unit(0, 0, 0xfee00000, 0);
    refused(ERR_NO_MEMORY, "more units");
    unit(0, 0, 0xfed00000, 0);
    for (unsigned i = 0; i <= ACPI_DMAR_REGIONS; i++)
        region(0x1000, 0x1fff);
    refused(ERR_NO_MEMORY, "more reserved");
    unit(0, 0, 0xfed00000, 0);
    for (unsigned i = 0; i <= ACPI_DMAR_PORTS; i++) {
        word(2, 2);
        word(8, 2);
        word(0, 4);
    }
    refused(ERR_NO_MEMORY, "more ATS");
    unit(0, 0, 0xfed00000, 8 * (ACPI_DMAR_SCOPES + 1));
    for (unsigned i = 0; i <= ACPI_DMAR_SCOPES; i++)
        scope(1, 8, 0, "\0\0");
    refused(ERR_NO_MEMORY, "more device scopes");
    unit(0, 0, 0xfed00000, 0);
    for (unsigned i = 0; i <= ACPI_DMAR_NAMES; i++) { /* names may be left out: they are for people */
        word(4, 2);
        word(8 + 30, 2);
        word((uint64_t)i << 24, 4);
        bytes("\\_SB.\x80"
              "name that is longer\0\0\0\0\0",
              30);
    }
    assert_int_equal(read(), STATUS_OK);
    assert_int_equal(dmar.name_count, ACPI_DMAR_NAMES);
    assert_int_equal(dmar.names[3].number, 3);
    assert_string_equal(dmar.names[0].name, "\\_SB.?name that is ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_qemu, begin),
        cmocka_unit_test_setup(test_laptop, begin),
        cmocka_unit_test_setup(test_server, begin),
        cmocka_unit_test_setup(test_every_cut, begin),
        cmocka_unit_test_setup(test_unreadable, begin),
        cmocka_unit_test_setup(test_heads, begin),
        cmocka_unit_test_setup(test_broken_structures, begin),
        cmocka_unit_test_setup(test_broken_scopes, begin),
        cmocka_unit_test_setup(test_too_many, begin),
    };
    return cmocka_run_group_tests_name("acpi_dmar", tests, NULL, NULL);
}
