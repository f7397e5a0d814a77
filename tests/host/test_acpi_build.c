#define _GNU_SOURCE /* strcasestr */
/* The guest's ACPI tables, judged by our own reader, by their checksums, and by iasl and acpiexec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "drivers/acpi/acpi.h"
#include "drivers/vdev/acpi_pm.h"
#include "hv/guest/acpi_build.h"
#include "hv/guest/layout.h"

#define PCI_ABOVE      0x140000000ull
#define PCI_ABOVE_LAST 0x7fffffffffull

static struct vpci_window windows[VPCI_WINDOWS] = {
    {GUEST_PCI_HOLE, GUEST_PCI_LOW_END - 1}, {1, 0}, {PCI_ABOVE, PCI_ABOVE_LAST}};
static uint8_t buf[ACPI_BUILD_SIZE];
static struct acpi_built built;

static enum status read_buf(void *ctx, hpa_t addr, void *out, size_t size)
{
    (void)ctx;
    if (addr.v < GUEST_ACPI || addr.v - GUEST_ACPI > built.size || size > built.size - (addr.v - GUEST_ACPI))
        return ERR_RANGE;
    memcpy(out, buf + (addr.v - GUEST_ACPI), size);
    return STATUS_OK;
}

static void build(uint32_t vcpus)
{
    memset(buf, 0xee, sizeof(buf));
    struct acpi_build p = {.vcpu_count = vcpus, .base = gpa(GUEST_ACPI), .windows = windows};
    assert_int_equal(acpi_build(&p, buf, sizeof(buf), &built), STATUS_OK);
    assert_true(built.size <= sizeof(buf));
    assert_int_equal(built.rsdp.v, GUEST_ACPI);
}

static void open_tables(struct acpi_tables *t)
{
    struct acpi_reader reader = {NULL, read_buf};
    assert_int_equal(acpi_open(t, &reader, hpa(built.rsdp.v)), STATUS_OK);
    assert_int_equal(t->bad, 0);
}

static void test_tables_are_found_by_the_host_parser(void **state)
{
    (void)state;
    static struct acpi_tables t;
    static struct acpi_madt madt;
    struct acpi_mcfg mcfg;
    struct acpi_fadt fadt;
    for (uint32_t vcpus = 1; vcpus <= ACPI_BUILD_MAX_VCPUS; vcpus = vcpus * 2 + 1) {
        build(vcpus);
        open_tables(&t);
        assert_int_equal(t.count, 4);
        assert_int_equal(acpi_read_madt(&t, &madt), STATUS_OK);
        assert_int_equal(madt.lapic.v, GUEST_LAPIC);
        assert_true(madt.has_8259);
        assert_int_equal(madt.cpu_count, vcpus);
        for (uint32_t i = 0; i < vcpus; i++) {
            assert_int_equal(madt.cpus[i].apic_id, i);
            assert_true(madt.cpus[i].enabled);
        }
        assert_int_equal(madt.ioapic_count, 1);
        assert_int_equal(madt.ioapics[0].addr.v, GUEST_IOAPIC);
        assert_int_equal(madt.override_count, 2);
        assert_int_equal(madt.overrides[0].gsi, 2);
        assert_int_equal(madt.overrides[1].irq, 9);
        assert_int_equal(madt.overrides[1].flags, 0xd); /* level, active high: as acpi_pm drives it */
        assert_int_equal(madt.dropped, 0);
        assert_int_equal(acpi_read_mcfg(&t, &mcfg), STATUS_OK);
        assert_int_equal(mcfg.count, 1);
        assert_int_equal(mcfg.ecams[0].base.v, GUEST_ECAM);
        assert_int_equal(mcfg.ecams[0].last_bus, 255);
        assert_int_equal(acpi_read_fadt(&t, &fadt), STATUS_OK);
        assert_int_equal(fadt.pm1a_cnt.addr, ACPI_PM_CNT_PORT);
        assert_int_equal(fadt.pm_timer.addr, ACPI_PM_TMR_PORT);
        assert_true(fadt.pm_timer_32bit);
        assert_true(fadt.has_reset);
        assert_int_equal(fadt.reset.addr, 0xcf9);
        assert_int_equal(fadt.sci, 9);
        assert_true(fadt.has_s5);
        assert_int_equal(fadt.s5_typ_a, ACPI_PM_SLP_TYP_S5);
        assert_int_equal(fadt.s5_typ_b, ACPI_PM_SLP_TYP_S5);
    }
}

/* Address space descriptors for memory, ACPI 6.5, 6.4.3.5. */
static unsigned memory_windows(uint8_t type, uint8_t length)
{
    const uint8_t head[] = {type, length, 0, 0 /* memory */, 0x0c};
    unsigned count = 0;
    for (uint32_t i = 0; i + sizeof(head) <= built.size; i++)
        count += memcmp(buf + i, head, sizeof(head)) == 0;
    return count;
}

static void expect_windows(unsigned dwords, unsigned qwords)
{
    build(1);
    assert_int_equal(memory_windows(0x87, 23), dwords);
    assert_int_equal(memory_windows(0x8a, 43), qwords);
}

static void test_windows(void **state)
{
    struct vpci_window above = windows[2];
    expect_windows(1, 1);
    windows[1] = (struct vpci_window){GUEST_PCI_HIGH, GUEST_PCI_HIGH_END - 1};
    expect_windows(2, 1);
    windows[2] = (struct vpci_window){2ull << 40, 1}; /* RAM leaves no room */
    expect_windows(2, 0);
    windows[0] = windows[1] = windows[2];
    expect_windows(0, 0);
    windows[0] = (struct vpci_window){GUEST_PCI_HOLE, GUEST_PCI_LOW_END - 1};
    windows[2] = above;
}

static void test_facs_is_aligned_and_named(void **state)
{
    (void)state;
    static struct acpi_tables t;
    build(2);
    open_tables(&t);
    const struct acpi_table *f = acpi_find(&t, "FACP", 0);
    assert_non_null(f);
    uint32_t facs;
    memcpy(&facs, buf + (f->addr.v - GUEST_ACPI) + 36, 4);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(buf + (facs - GUEST_ACPI), "FACS", 4);
    assert_int_equal(f->length, 276); /* ACPI 6.3 and later */
}

static void test_bad_parameters(void **state)
{
    (void)state;
    struct acpi_built out;
    struct acpi_build p = {.vcpu_count = 1, .base = gpa(GUEST_ACPI), .windows = windows};
    /* Every size that is too small is noticed, and nothing is written past it. */
    build(1);
    for (size_t size = 0; size < built.size; size += 97) {
        uint8_t *small = malloc(size + 1);
        assert_int_equal(acpi_build(&p, small, size, &out), ERR_NO_MEMORY);
        free(small);
    }
    p.vcpu_count = 0;
    assert_int_equal(acpi_build(&p, buf, sizeof(buf), &out), ERR_INVALID);
    p.vcpu_count = ACPI_BUILD_MAX_VCPUS + 1;
    assert_int_equal(acpi_build(&p, buf, sizeof(buf), &out), ERR_INVALID);
    p.vcpu_count = 1;
    p.base = gpa(GUEST_ACPI + 16);
    assert_int_equal(acpi_build(&p, buf, sizeof(buf), &out), ERR_INVALID);
    p.base = gpa(0x100000000);
    assert_int_equal(acpi_build(&p, buf, sizeof(buf), &out), ERR_INVALID);
}

/* ---- the referees ---- */

static int run(const char *dir, const char *command, char *output, size_t size)
{
    char line[512];
    snprintf(line, sizeof(line), "cd %s && ASAN_OPTIONS=detect_leaks=0 %s 2>&1", dir, command);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    size_t n = fread(output, 1, size - 1, p);
    output[n] = 0;
    while (getc(p) != EOF)
        ;
    return pclose(p);
}

static void save(const char *dir, const char *name, hpa_t at, uint32_t length)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(buf + (at.v - GUEST_ACPI), 1, length, f), length);
    fclose(f);
}

static hpa_t dsdt(uint32_t *length)
{
    static struct acpi_tables t;
    struct acpi_fadt fadt;
    open_tables(&t);
    assert_int_equal(acpi_read_fadt(&t, &fadt), STATUS_OK);
    memcpy(length, buf + (fadt.dsdt.v - GUEST_ACPI) + 4, 4);
    return fadt.dsdt;
}

static void test_iasl_and_acpiexec_agree(void **state)
{
    (void)state;
    static char text[1 << 18];
    if (system("command -v iasl >/dev/null && command -v acpiexec >/dev/null") != 0) {
        print_message("iasl or acpiexec is not installed (Debian package acpica-tools)\n");
        fail();
    }
    char dir[] = "/tmp/acpi_build_XXXXXX";
    assert_non_null(mkdtemp(dir));
    build(4);
    static struct acpi_tables t;
    open_tables(&t);
    for (uint32_t i = 0; i < t.count; i++) {
        char name[16], command[64];
        snprintf(name, sizeof(name), "%.4s.dat", t.tables[i].signature);
        save(dir, name, t.tables[i].addr, t.tables[i].length);
        snprintf(command, sizeof(command), "iasl -d %s", name);
        assert_int_equal(run(dir, command, text, sizeof(text)), 0);
        assert_null(strcasestr(text, "error"));
        assert_null(strcasestr(text, "warning"));
        snprintf(command, sizeof(command), "cat %.4s.dsl", t.tables[i].signature);
        assert_int_equal(run(dir, command, text, sizeof(text)), 0);
        assert_null(strcasestr(text, "invalid"));
        assert_null(strcasestr(text, "incorrect"));
    }
    uint32_t length;
    hpa_t at = dsdt(&length);
    save(dir, "dsdt.dat", at, length);
    assert_int_equal(run(dir, "iasl -d dsdt.dat", text, sizeof(text)), 0);
    assert_int_equal(run(dir, "iasl -p again dsdt.dsl", text, sizeof(text)), 0);
    if (!strstr(text, "0 Errors, 0 Warnings, 0 Remarks"))
        print_message("%s\n", text);
    assert_non_null(strstr(text, "0 Errors, 0 Warnings, 0 Remarks"));
    /* The interpreter that Linux has: loads the namespace and evaluates. */
    assert_int_equal(run(dir,
                         "acpiexec -di -b 'evaluate \\_S5;evaluate \\_SB.PCI0._CRS;evaluate \\_SB.PCI0._PRT;"
                         "evaluate \\_SB.CP03._UID;resources \\_SB.PCI0;resources \\_SB.COM1;quit' dsdt.dat",
                         text, sizeof(text)),
                     0);
    if (strstr(text, "ACPI BIOS Error") || strstr(text, "ACPI Error") || strstr(text, "ACPI Warning"))
        print_message("%s\n", text);
    assert_null(strstr(text, "ACPI BIOS Error"));
    assert_null(strstr(text, "ACPI Error"));
    assert_null(strstr(text, "ACPI Warning"));
    assert_non_null(strstr(text, "Evaluation of \\_SB.CP03._UID returned"));
    /* The windows where the guest may find or put BARs. */
    assert_non_null(strstr(text, "C0000000"));
    assert_non_null(strstr(text, "0000000140000000"));
    assert_non_null(strstr(text, "0000007FFFFFFFFF"));
    assert_non_null(strstr(text, "0000007EC0000000")); /* its length */
    char clean[64];
    snprintf(clean, sizeof(clean), "rm -rf %s", dir);
    assert_int_equal(system(clean), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_are_found_by_the_host_parser),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_facs_is_aligned_and_named),
        cmocka_unit_test(test_bad_parameters),
        cmocka_unit_test(test_iasl_and_acpiexec_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
