/* The reader of the host's ACPI tables: good ones of both revisions, and every way of being broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/acpi/acpi.h"

#define BASE 0x7f000000ull
static uint8_t mem[0x8000];
static struct acpi_tables t;

static enum status read_mem(void *ctx, hpa_t addr, void *buf, size_t size)
{
    (void)ctx;
    if (addr.v < BASE || addr.v - BASE > sizeof(mem) || size > sizeof(mem) - (addr.v - BASE))
        return ERR_RANGE;
    memcpy(buf, mem + (addr.v - BASE), size);
    return STATUS_OK;
}

static const struct acpi_reader reader = {NULL, read_mem};

static void w(uint32_t at, uint64_t v, unsigned n)
{
    memcpy(mem + at, &v, n);
}

static void sum(uint32_t at, uint32_t n, uint32_t where)
{
    uint8_t s = 0;
    mem[where] = 0;
    for (uint32_t i = 0; i < n; i++)
        s = (uint8_t)(s + mem[at + i]);
    mem[where] = (uint8_t)-s;
}

static void table(uint32_t at, const char *signature, uint32_t length)
{
    memcpy(mem + at, signature, 4);
    w(at + 4, length, 4);
    sum(at, length, at + 9);
}

#define RSDP 0x0u
#define XSDT 0x100u
#define RSDT 0x200u
#define MADT 0x300u
#define MCFG 0x500u
#define FADT 0x600u
#define DMAR 0x800u
#define DSDT 0x1000u

static void rsdp(uint8_t revision, uint64_t rsdt, uint64_t xsdt)
{
    memcpy(mem + RSDP, "RSD PTR ", 8);
    w(RSDP + 15, revision, 1);
    w(RSDP + 16, rsdt, 4);
    w(RSDP + 20, 36, 4);
    w(RSDP + 24, xsdt, 8);
    sum(RSDP, 20, RSDP + 8);
    sum(RSDP, 36, RSDP + 32);
}

/* Length of the MADT that setup() writes. */
static uint32_t madt_length;

static void madt_bytes(const uint8_t *bytes, uint32_t n)
{
    memcpy(mem + MADT + madt_length, bytes, n);
    madt_length += n;
}

static int setup(void **state)
{
    (void)state;
    memset(mem, 0, sizeof(mem));
    rsdp(2, BASE + RSDT, BASE + XSDT);
    static const uint32_t list[] = {MADT, MCFG, FADT, DMAR};
    for (unsigned i = 0; i < 4; i++) {
        w(XSDT + 36 + 8 * i, BASE + list[i], 8);
        w(RSDT + 36 + 4 * i, BASE + list[i], 4);
    }
    table(XSDT, "XSDT", 36 + 32);
    table(RSDT, "RSDT", 36 + 16);
    w(MADT + 36, 0xfee00000, 4);
    w(MADT + 40, 1, 4);
    madt_length = 44;
    static const uint8_t entries[] = {
        0,    8,  0,    0,    1, 0, 0,    0,                              /* CPU 0 */
        0,    8,  1,    2,    1, 0, 0,    0,                              /* CPU 1, APIC ID 2 */
        0,    8,  2,    4,    0, 0, 0,    0,                              /* disabled */
        0,    8,  3,    6,    2, 0, 0,    0,                              /* can come later */
        9,    16, 0,    0,    0, 1, 0,    0,    1,   0, 0, 0, 9, 0, 0, 0, /* x2APIC 256, UID 9 */
        9,    16, 0,    0,    2, 0, 0,    0,    1,   0, 0, 0, 9, 0, 0, 0, /* ID 2 again: dropped */
        1,    12, 8,    0,    0, 0, 0xc0, 0xfe, 0,   0, 0, 0,             /* IOAPIC */
        2,    10, 0,    0,    2, 0, 0,    0,    0,   0,                   /* 0 -> 2 */
        2,    10, 0,    9,    9, 0, 0,    0,    0xd, 0,                   /* 9 level */
        5,    12, 0,    0,    0, 0, 0xe0, 0xfe, 1,   0, 0, 0,             /* LAPIC at 1_fee00000 */
        0x7f, 4,  0xff, 0xff,                                             /* something of the future */
    };
    madt_bytes(entries, sizeof(entries));
    table(MADT, "APIC", madt_length);
    w(MCFG + 44, 0xe0000000, 8);
    w(MCFG + 44 + 11, 255, 1);
    w(MCFG + 60, 0x1234, 8); /* not aligned */
    table(MCFG, "MCFG", 44 + 32);
    w(FADT + 40, BASE + DSDT, 4);
    w(FADT + 46, 9, 2);
    w(FADT + 48, 0xb2, 4);
    w(FADT + 52, 0xf1, 1);
    w(FADT + 64, 0xb004, 4);
    w(FADT + 76, 0xb008, 4);
    w(FADT + 112, 1 << 10 | 1 << 8, 4);
    w(FADT + 116, 1, 1);
    w(FADT + 117, 8, 1);
    w(FADT + 120, 0xcf9, 8);
    w(FADT + 128, 6, 1);
    table(FADT, "FACP", 244);
    table(DMAR, "DMAR", 48);
    static const uint8_t s5[] = {0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x05, 0x01, 0x00, 0x00};
    memcpy(mem + DSDT + 0x700, s5, sizeof(s5));
    table(DSDT, "DSDT", 0x1000);
    return 0;
}

static void expect_open(enum status status)
{
    assert_int_equal(acpi_open(&t, &reader, hpa(BASE + RSDP)), status);
}

static void test_xsdt_and_rsdt(void **state)
{
    (void)state;
    for (uint8_t revision = 0; revision <= 2; revision += 2) {
        rsdp(revision, BASE + RSDT, BASE + XSDT);
        expect_open(STATUS_OK);
        assert_int_equal(t.revision, revision);
        assert_int_equal(t.count, 4);
        assert_int_equal(t.bad, 0);
        assert_true(acpi_has_dmar(&t));
        assert_int_equal(acpi_find(&t, "MCFG", 0)->addr.v, BASE + MCFG);
        assert_null(acpi_find(&t, "MCFG", 1));
        assert_null(acpi_find(&t, "SSDT", 0));
    }
    rsdp(2, BASE + RSDT, 0); /* no XSDT: the RSDT does */
    expect_open(STATUS_OK);
    assert_int_equal(t.count, 4);
}

static void test_broken_roots(void **state)
{
    (void)state;
    assert_int_equal(acpi_open(&t, &reader, hpa(0)), ERR_INVALID);
    assert_int_equal(acpi_open(&t, &reader, hpa(BASE + sizeof(mem) - 10)), ERR_INVALID);
    assert_int_equal(acpi_open(&t, &reader, hpa(UINT64_MAX - 4)), ERR_INVALID);
    for (uint32_t i = 0; i < 36; i++) { /* one wrong byte anywhere in the RSDP */
        mem[RSDP + i] ^= 0x10;
        expect_open(ERR_INVALID);
        mem[RSDP + i] ^= 0x10;
    }
    w(RSDP + 20, 35, 4);
    sum(RSDP, 36, RSDP + 32);
    expect_open(ERR_INVALID);
    setup(NULL);
    mem[XSDT + 40]++; /* the XSDT's checksum */
    expect_open(ERR_INVALID);
    setup(NULL);
    table(XSDT, "XSDX", 36 + 32);
    expect_open(ERR_INVALID);
    setup(NULL);
    w(XSDT + 4, 35, 4);
    expect_open(ERR_INVALID);
    w(XSDT + 4, ACPI_MAX_TABLE + 1, 4);
    expect_open(ERR_INVALID);
    w(XSDT + 4, 0x9000, 4); /* runs out of memory */
    expect_open(ERR_INVALID);
}

static void test_bad_tables_are_left_out(void **state)
{
    (void)state;
    mem[DMAR + 40] ^= 1;
    w(XSDT + 36, 0, 8);
    w(XSDT + 44, 0x123456789, 8);
    table(XSDT, "XSDT", 36 + 32 + 7); /* and a piece of an entry */
    expect_open(STATUS_OK);
    assert_int_equal(t.count, 1);
    assert_int_equal(t.bad, 3);
    assert_false(acpi_has_dmar(&t));
    static struct acpi_madt m;
    struct acpi_mcfg c;
    assert_int_equal(acpi_read_madt(&t, &m), ERR_NOT_FOUND);
    assert_int_equal(acpi_read_mcfg(&t, &c), ERR_NOT_FOUND);
}

static void test_more_tables_than_we_keep(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ACPI_MAX_TABLES + 5; i++)
        w(0x3000 + 36 + 8 * i, BASE + DMAR, 8);
    table(0x3000, "XSDT", 36 + 8 * (ACPI_MAX_TABLES + 5));
    rsdp(2, 0, BASE + 0x3000);
    expect_open(STATUS_OK);
    assert_int_equal(t.count, ACPI_MAX_TABLES);
    assert_int_equal(t.bad, 5);
}

static void test_madt(void **state)
{
    (void)state;
    static struct acpi_madt m;
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_madt(&t, &m), STATUS_OK);
    assert_int_equal(m.cpu_count, 4);
    assert_int_equal(m.cpus[1].apic_id, 2);
    assert_true(m.cpus[1].enabled && !m.cpus[1].online_capable && !m.cpus[1].x2apic);
    assert_true(!m.cpus[2].enabled && m.cpus[2].online_capable);
    assert_int_equal(m.cpus[3].apic_id, 256);
    assert_int_equal(m.cpus[3].uid, 9);
    assert_true(m.cpus[3].x2apic);
    assert_int_equal(m.ioapics[0].addr.v, 0xfec00000);
    assert_int_equal(m.ioapics[0].id, 8);
    assert_int_equal(m.override_count, 2);
    assert_int_equal(m.overrides[1].gsi, 9);
    assert_int_equal(m.overrides[1].flags, 0xd);
    assert_int_equal(m.lapic.v, 0x1fee00000);
    assert_true(m.has_8259);
    assert_int_equal(m.dropped, 1);
}

static void test_madt_entries_that_cannot_be(void **state)
{
    (void)state;
    static struct acpi_madt m;
    static const uint8_t bad[][4] = {{0, 0, 0, 0}, {0, 1, 0, 0}, {0, 200, 0, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint32_t length = madt_length;
        madt_bytes(bad[i], 4);
        table(MADT, "APIC", madt_length);
        madt_length = length;
        expect_open(STATUS_OK);
        assert_int_equal(acpi_read_madt(&t, &m), ERR_INVALID);
    }
    madt_bytes((const uint8_t[]){0, 3, 0, 0, 7, 1, 7},
               7); /* too short to be a CPU; broadcast ID; cut header */
    table(MADT, "APIC", madt_length - 3);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_madt(&t, &m), ERR_INVALID);
    setup(NULL);
    madt_bytes((const uint8_t[]){0, 3, 0, 0, 8, 5, 0xff, 1, 0, 0, 0}, 11);
    table(MADT, "APIC", madt_length);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_madt(&t, &m), STATUS_OK);
    assert_int_equal(m.dropped, 3);
    assert_int_equal(m.cpu_count, 4);
    table(MADT, "APIC", 43);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_madt(&t, &m), ERR_INVALID);
}

static void test_madt_overflows(void **state)
{
    (void)state;
    static struct acpi_madt m;
    uint32_t at = 44;
    memset(mem + 0x3000, 0, 0x5000);
    for (uint32_t i = 0; i < ACPI_MAX_CPUS + 3; i++, at += 16) {
        w(0x3000 + at, 9 | 16 << 8, 2);
        w(0x3000 + at + 4, 1000 + i, 4);
        w(0x3000 + at + 8, 1, 4);
    }
    for (uint32_t i = 0; i < ACPI_MAX_IOAPICS + 1; i++, at += 12)
        w(0x3000 + at, 1 | 12 << 8, 2);
    for (uint32_t i = 0; i < ACPI_MAX_OVERRIDES + 2; i++, at += 10)
        w(0x3000 + at, 2 | 10 << 8, 2);
    table(0x3000, "APIC", at);
    w(XSDT + 36, BASE + 0x3000, 8);
    table(XSDT, "XSDT", 36 + 32);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_madt(&t, &m), STATUS_OK);
    assert_int_equal(m.cpu_count, ACPI_MAX_CPUS);
    assert_int_equal(m.ioapic_count, ACPI_MAX_IOAPICS);
    assert_int_equal(m.override_count, ACPI_MAX_OVERRIDES);
    assert_int_equal(m.dropped, 6);
}

static void test_mcfg(void **state)
{
    (void)state;
    struct acpi_mcfg c;
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_mcfg(&t, &c), STATUS_OK);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.dropped, 1);
    assert_int_equal(c.ecams[0].base.v, 0xe0000000);
    assert_int_equal(c.ecams[0].last_bus, 255);
    w(MCFG + 44 + 10, 5, 1);
    w(MCFG + 44 + 11, 4, 1); /* ends before it begins */
    table(MCFG, "MCFG", 60);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_mcfg(&t, &c), STATUS_OK);
    assert_int_equal(c.count, 0);
    table(MCFG, "MCFG", 40);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_mcfg(&t, &c), ERR_INVALID);
}

/* Where the reset register may be: a byte in I/O space, or in the configuration space of bus 0. */
static void test_reset_register(void **state)
{
    (void)state;
    static const struct {
        uint8_t space, bits, first;
        uint64_t addr;
        const char *fault;
    } rows[] = {
        {ACPI_SPACE_IO, 8, 0, 0xffff, NULL},
        {ACPI_SPACE_IO, 8, 0, 0x10cf9, "above ffff"}, /* its low half would be a port */
        {ACPI_SPACE_IO, 16, 0, 0xcf9, "not one byte"},
        {ACPI_SPACE_IO, 8, 1, 0xcf9, "not one byte"},
        {ACPI_SPACE_PCI, 8, 0, 31ull << 32 | 7u << 16 | 0xff, NULL},
        {ACPI_SPACE_PCI, 8, 0, 32ull << 32, "no such place"},
        {ACPI_SPACE_PCI, 8, 0, 8u << 16, "no such place"},
        {ACPI_SPACE_PCI, 8, 0, 0x100, "no such place"},
        {ACPI_SPACE_PCI, 8, 0, 1ull << 48 | 4, "no such place"},
        {ACPI_SPACE_MEMORY, 8, 0, 0xfed00000, "in memory"},
        {4, 8, 0, 0x10, "not known"},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct acpi_fadt f;
        w(FADT + 116, rows[i].space | rows[i].bits << 8 | rows[i].first << 16, 4);
        w(FADT + 120, rows[i].addr, 8);
        table(FADT, "FACP", 244);
        expect_open(STATUS_OK);
        assert_int_equal(acpi_read_fadt(&t, &f), STATUS_OK);
        assert_int_equal(f.has_reset, rows[i].fault == NULL);
        assert_int_equal(f.reset_fault != NULL, rows[i].fault != NULL);
        if (rows[i].fault && !strstr(f.reset_fault, rows[i].fault))
            fail_msg("%u: %s", i, f.reset_fault);
    }
    assert_int_equal(ACPI_PCI_DEVICE(rows[4].addr), 31);
    assert_int_equal(ACPI_PCI_FUNCTION(rows[4].addr), 7);
    assert_int_equal(ACPI_PCI_OFFSET(rows[4].addr), 255);
}

static void test_fadt(void **state)
{
    (void)state;
    struct acpi_fadt f;
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), STATUS_OK);
    assert_int_equal(f.pm1a_cnt.addr, 0xb004);
    assert_int_equal(f.pm1a_cnt.space, ACPI_SPACE_IO);
    assert_int_equal(f.pm1b_cnt.addr, 0);
    assert_int_equal(f.pm_timer.addr, 0xb008);
    assert_true(f.pm_timer_32bit && f.has_reset && !f.hw_reduced);
    assert_int_equal(f.reset.addr, 0xcf9);
    assert_int_equal(f.reset_value, 6);
    assert_int_equal(f.smi_cmd, 0xb2);
    assert_int_equal(f.acpi_enable, 0xf1);
    assert_true(f.has_s5);
    assert_int_equal(f.s5_typ_a, 5);
    assert_int_equal(f.s5_typ_b, 1);
    w(FADT + 172, 1 | 16 << 8, 2); /* the extended address wins */
    w(FADT + 176, 0x1804, 8);
    w(FADT + 112, 1 << 20, 4);
    table(FADT, "FACP", 244);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), STATUS_OK);
    assert_int_equal(f.pm1a_cnt.addr, 0x1804);
    assert_false(f.has_reset);
    assert_true(f.hw_reduced);
    table(FADT, "FACP", 116); /* ACPI 1.0 */
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), STATUS_OK);
    assert_int_equal(f.pm1a_cnt.addr, 0xb004);
    table(FADT, "FACP", 115);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), ERR_INVALID);
    table(FADT, "XXXX", 244);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), ERR_NOT_FOUND);
}

static bool s5_with(const uint8_t *aml, size_t n, uint32_t at)
{
    struct acpi_fadt f;
    memset(mem + DSDT + 36, 0, 0x1000 - 36);
    memcpy(mem + DSDT + at, aml, n);
    table(DSDT, "DSDT", 0x1000);
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), STATUS_OK);
    if (f.has_s5)
        assert_int_equal(f.s5_typ_a, 7);
    return f.has_s5;
}

static void test_s5(void **state)
{
    (void)state;
    static const uint8_t good[] = {0x08, '_',  'S',  '5',  '_',  0x12, 0x08,
                                   0x04, 0x0a, 0x07, 0x0a, 0x07, 0x00, 0x00};
    static const uint8_t rooted[] = {0x08, '\\', '_',  'S',  '5',  '_', 0x12,
                                     0x47, 0x00, 0x02, 0x0a, 0x07, 0x00};
    static const uint8_t one[] = {0x08, '_', 'S', '5', '_', 0x12, 0x04, 0x01, 0x0a, 0x07};
    /* Wherever it stands: every border between two looks at the table is crossed. */
    for (uint32_t at = 36; at < 0x1000 - sizeof(good); at++)
        assert_true(s5_with(good, sizeof(good), at));
    assert_true(s5_with(rooted, sizeof(rooted), 0x123));
    assert_true(s5_with(one, sizeof(one), 0x123));
    assert_true(s5_with(good, 12, 0x1000 - 12));
    static const uint8_t bad[][14] = {
        {0x09, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x07, 0x0a, 0x07, 0x00, 0x00}, /* not a name */
        {0x08, '_', 'S', '5', '_', 0x11, 0x08, 0x04, 0x0a, 0x07, 0x0a, 0x07, 0x00, 0x00}, /* not a package */
        {0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x00, 0x0a, 0x07, 0x0a, 0x07, 0x00, 0x00}, /* empty */
        {0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x08, 0x0a, 0x07, 0x00, 0x00}, /* above 7 */
        {0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0b, 0x07, 0x0a, 0x07, 0x00, 0x00}, /* not a byte */
        {0x08, '_', 'S', '5', '_', 0x12, 0x08, 0x04, 0x0a, 0x07, 0x0d, 0x07, 0x00, 0x00},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(s5_with(bad[i], sizeof(bad[i]), 0x400));
    for (uint32_t n = 1; n < 10; n++) /* cut by the table's end */
        assert_false(s5_with(good, n, 0x1000 - n));
    struct acpi_fadt f;
    mem[DSDT + 50] ^= 1; /* a DSDT that cannot be trusted is not searched */
    expect_open(STATUS_OK);
    assert_int_equal(acpi_read_fadt(&t, &f), STATUS_OK);
    assert_false(f.has_s5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_xsdt_and_rsdt, setup),
        cmocka_unit_test_setup(test_broken_roots, setup),
        cmocka_unit_test_setup(test_bad_tables_are_left_out, setup),
        cmocka_unit_test_setup(test_more_tables_than_we_keep, setup),
        cmocka_unit_test_setup(test_madt, setup),
        cmocka_unit_test_setup(test_madt_entries_that_cannot_be, setup),
        cmocka_unit_test_setup(test_madt_overflows, setup),
        cmocka_unit_test_setup(test_mcfg, setup),
        cmocka_unit_test_setup(test_fadt, setup),
        cmocka_unit_test_setup(test_reset_register, setup),
        cmocka_unit_test_setup(test_s5, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
