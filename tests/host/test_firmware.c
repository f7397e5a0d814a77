/* What a VM's own firmware is given. The loader's script is carried out as a firmware does it (QEMU:
 * hw/acpi/bios-linker-loader.c), and the tables that come out are read by our own parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/acpi/acpi.h"
#include "hv/guest/e820.h"
#include "hv/guest/image.h"
#include "hv/lib/bytes.h"

#define MIB    (1ull << 20)
#define MEMORY 0x20000u
#define FSEG   0x10000u /* of the small machine of this test */
#define HIGH   0x18000u

static struct vpci_window windows[VPCI_WINDOWS] = {
    {GUEST_PCI_HOLE, GUEST_PCI_LOW_END - 1}, {1, 0}, {0x140000000, 0x7fffffffff}};
static uint8_t buf[ACPI_BUILD_SIZE], memory[MEMORY];
static struct fw_cfg_file files[FIRMWARE_FILES];
static uint32_t placed[FIRMWARE_FILES]; /* 0: not yet */
static char why[200];

static enum status build(uint32_t vcpus, uint64_t size, size_t room)
{
    struct guest_layout layout;
    struct acpi_build params = {.vcpu_count = vcpus, .base = gpa(GUEST_ACPI), .windows = windows};
    assert_int_equal(guest_layout_init(&layout, size), STATUS_OK);
    memset(buf, 0, sizeof(buf));
    return firmware_build(&params, &layout, buf, room, files);
}

static const struct fw_cfg_file *find(const char *name, unsigned *index)
{
    for (unsigned i = 0; i < FIRMWARE_FILES; i++) {
        *index = i;
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    }
    fail_msg("no file %s", name);
    return NULL;
}

/* The file that a name in the script stands for, and where it was put. */
static uint8_t *placed_file(const uint8_t *name, uint32_t *size)
{
    unsigned index;
    assert_int_equal(name[FW_CFG_NAME_MAX - 1], 0);
    *size = find((const char *)name, &index)->size;
    assert_int_not_equal(placed[index], 0);
    return memory + placed[index];
}

static void allocate(const uint8_t *entry, uint32_t *fseg, uint32_t *high)
{
    unsigned index;
    const struct fw_cfg_file *file = find((const char *)entry + 4, &index);
    uint32_t align = bytes_get32(entry + 60), *zone = entry[64] == 2 ? fseg : high;
    assert_true(entry[64] == 1 || entry[64] == 2);
    assert_true(align && !(align & (align - 1)));
    assert_int_equal(placed[index], 0);
    *zone = (*zone + align - 1) & ~(align - 1);
    placed[index] = *zone;
    memcpy(memory + *zone, file->data, file->size);
    *zone += file->size;
    assert_true(*zone <= MEMORY);
}

static void add_pointer(const uint8_t *entry)
{
    uint32_t size, source_size, at = bytes_get32(entry + 116), width = entry[120];
    uint8_t *file = placed_file(entry + 4, &size), *source = placed_file(entry + 60, &source_size);
    assert_true(width == 4 || width == 8);
    assert_true(at + width <= size);
    uint64_t value = bytes_get(file + at, width);
    assert_true(value < source_size); /* an offset */
    value += (uint64_t)(source - memory);
    memcpy(file + at, &value, width);
}

static void add_checksum(const uint8_t *entry)
{
    uint32_t size, at = bytes_get32(entry + 60), start = bytes_get32(entry + 64), n = bytes_get32(entry + 68);
    uint8_t *file = placed_file(entry + 4, &size), sum = 0;
    assert_true(at < size && start <= size && n <= size - start);
    assert_int_equal(file[at], 0); /* otherwise firmwares would disagree about the result */
    for (uint32_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + file[start + i]);
    file[at] = (uint8_t)(file[at] - sum);
}

static void run_script(void)
{
    uint32_t fseg = FSEG + 5, high = HIGH + 7;
    const struct fw_cfg_file *script = &files[FIRMWARE_LOADER];
    memset(memory, 0, sizeof(memory));
    memset(placed, 0, sizeof(placed));
    assert_string_equal(script->name, "etc/table-loader");
    assert_int_equal(script->size % 128, 0);
    for (const uint8_t *entry = script->data; entry < script->data + script->size; entry += 128) {
        uint32_t command = bytes_get32(entry);
        assert_true(command >= 1 && command <= 3);
        command == 1   ? allocate(entry, &fseg, &high)
        : command == 2 ? add_pointer(entry)
                       : add_checksum(entry);
    }
}

static enum status read_memory(void *ctx, hpa_t at, void *out, size_t size)
{
    if (at.v > MEMORY || size > MEMORY - at.v)
        return ERR_RANGE;
    memcpy(out, memory + at.v, size);
    return STATUS_OK;
}

static void test_tables_where_the_firmware_puts_them(void **state)
{
    static struct acpi_tables tables;
    static struct acpi_madt madt;
    struct acpi_fadt fadt;
    struct acpi_mcfg mcfg;
    const struct acpi_reader reader = {NULL, read_memory};
    for (uint32_t vcpus = 1; vcpus <= 16; vcpus += 15) {
        assert_int_equal(build(vcpus, 64 * MIB, sizeof(buf)), STATUS_OK);
        run_script();
        assert_true(placed[FIRMWARE_RSDP] >= FSEG && placed[FIRMWARE_RSDP] < HIGH);
        assert_int_equal(placed[FIRMWARE_RSDP] % 16, 0);
        assert_int_equal(files[FIRMWARE_RSDP].size, 36);
        assert_int_equal(placed[FIRMWARE_TABLES] % 64, 0); /* the FACS */
        assert_int_equal(acpi_open(&tables, &reader, hpa(placed[FIRMWARE_RSDP])), STATUS_OK);
        assert_int_equal(tables.bad, 0);
        assert_int_equal(acpi_read_madt(&tables, &madt), STATUS_OK);
        assert_int_equal(madt.cpu_count, vcpus);
        assert_int_equal(acpi_read_fadt(&tables, &fadt), STATUS_OK);
        assert_int_equal(acpi_read_mcfg(&tables, &mcfg), STATUS_OK);
    }
}

static void test_the_fadt_leads_on(void **state)
{
    const uint8_t *fadt = NULL;
    assert_int_equal(build(2, 64 * MIB, sizeof(buf)), STATUS_OK);
    run_script();
    for (uint32_t at = HIGH; at < MEMORY - 4; at++)
        if (memcmp(memory + at, "FACP", 4) == 0)
            fadt = memory + at;
    assert_non_null(fadt);
    uint32_t facs = bytes_get32(fadt + 36), dsdt = bytes_get32(fadt + 40);
    assert_memory_equal(memory + facs, "FACS", 4);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(memory + dsdt, "DSDT", 4);
    assert_true(bytes_get64(fadt + 140) == dsdt);
}

static void test_other_files(void **state)
{
    static const struct {
        uint64_t memory;
        unsigned count;
        struct e820_entry last;
    } rows[] = {
        {8 * MIB, 3, {0xfec00000, 0x1400000, 2}},
        {3072 * MIB, 3, {0xfec00000, 0x1400000, 2}},
        {5120 * MIB, 4, {0x100000000, 2048 * MIB, 1}},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct e820_entry map[4];
        assert_int_equal(build(1, rows[i].memory, sizeof(buf)), STATUS_OK);
        const struct fw_cfg_file *e820 = &files[FIRMWARE_E820];
        assert_string_equal(e820->name, "etc/e820");
        assert_int_equal(e820->size, rows[i].count * 20);
        memcpy(map, e820->data, e820->size);
        assert_true(map[0].base == 0 && map[0].type == 1);
        assert_true(map[0].size == (rows[i].memory < 3072 * MIB ? rows[i].memory : 3072 * MIB));
        assert_true(map[1].base == 0xe0000000 && map[1].size == 256 * MIB && map[1].type == 2);
        assert_memory_equal(&map[rows[i].count - 1], &rows[i].last, 20);
        assert_string_equal(files[FIRMWARE_SERCON].name, "etc/sercon-port");
        assert_int_equal(bytes_get(files[FIRMWARE_SERCON].data, files[FIRMWARE_SERCON].size), 0x3f8);
        assert_string_equal(files[FIRMWARE_FAIL_WAIT].name, "etc/boot-fail-wait");
        assert_int_equal(bytes_get(files[FIRMWARE_FAIL_WAIT].data, files[FIRMWARE_FAIL_WAIT].size),
                         UINT32_MAX);
        for (unsigned j = 0; j < FIRMWARE_FILES; j++) {
            assert_true(files[j].data >= buf && files[j].data + files[j].size <= buf + sizeof(buf));
            assert_true(strlen(files[j].name) < FW_CFG_NAME_MAX);
        }
    }
}

/* However small the buffer: nothing behind it is touched. */
static void test_room(void **state)
{
    assert_int_equal(build(16, 5120 * MIB, sizeof(buf)), STATUS_OK);
    const struct fw_cfg_file *last = &files[FIRMWARE_FAIL_WAIT];
    size_t needed = (size_t)(last->data + last->size - buf);
    for (size_t room = 0; room <= needed; room++) {
        enum status s = build(16, 5120 * MIB, room);
        assert_int_equal(s, room < needed ? ERR_NO_MEMORY : STATUS_OK);
        for (size_t i = room; i < sizeof(buf); i++)
            if (buf[i])
                fail_msg("byte %zu of %zu", i, room);
    }
    assert_int_equal(build(0, 8 * MIB, sizeof(buf)), ERR_INVALID);
}

static struct guest_files guest(uint64_t size, uint32_t max)
{
    return (struct guest_files){.kernel = {.size = size}, .cmdline = "", .flash_max = max};
}

static void expect_refused(const struct guest_files *g, enum status status, const char *text)
{
    static struct guest_image image;
    struct guest_layout layout;
    assert_int_equal(guest_layout_init(&layout, 8 * MIB), STATUS_OK);
    why[0] = 0;
    assert_int_equal(guest_prepare(g, &layout, &image, why, sizeof(why)), status);
    if (!strstr(why, text))
        fail_msg("\"%s\" is not in \"%s\"", text, why);
}

static void test_what_is_a_firmware(void **state)
{
    static const struct {
        uint64_t size;
        uint32_t max;
        const char *text; /* NULL: it is one */
    } rows[] = {
        {0x10000, 0x1000000, NULL},
        {0x11000, 0x1000000, NULL},
        {0x1000000, 0x1000000, NULL},
        {0xff0000, 0xff0000, NULL},
        {0xf000, 0x1000000, "61440 bytes is too small for a firmware: at least 64 KiB"},
        {0x10001, 0x1000000, "multiple of 4 KiB"},
        {0x1001000, 0x1000000, "16 MiB are the limit"},
        {0x1000000, 0xff0000, "with compat = qemu, 16320 KiB are the limit"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct guest_files g = guest(rows[i].size, rows[i].max);
        expect_refused(&g, rows[i].text ? ERR_INVALID : STATUS_OK, rows[i].text ? rows[i].text : "");
    }
    struct guest_files with[4];
    for (unsigned i = 0; i < 4; i++)
        with[i] = guest(0x40000, 0x1000000);
    with[0].initrd.size = 1;
    with[1].module_count = 1;
    with[2].cmdline = "quiet";
    with[3].load = 0x7c00;
    for (unsigned i = 0; i < 4; i++)
        expect_refused(&with[i], ERR_UNSUPPORTED, "what it starts is on a disk");
}

static void test_how_it_begins(void **state)
{
    static struct guest_image image;
    struct guest_layout layout;
    struct guest_entry entry;
    struct guest_files g = guest(0x40000, 0x1000000);
    struct config_vm vm = {.firmware = false};
    assert_int_equal(guest_layout_init(&layout, 8 * MIB), STATUS_OK);
    assert_int_equal(guest_prepare(&g, &layout, &image, why, sizeof(why)), STATUS_OK);
    assert_int_equal(image.format, GUEST_FIRMWARE);
    assert_int_equal(guest_load(&image, &g, NULL, gpa(0)), STATUS_OK);
    guest_entry(&image, &entry);
    assert_true(entry.reset_vector);
    assert_int_equal(guest_flash_max(&vm), 0);
    vm.firmware = true;
    assert_int_equal(guest_flash_max(&vm), 0x1000000);
    vm.compat = COMPAT_QEMU;
    assert_int_equal(guest_flash_max(&vm), 0xff0000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_where_the_firmware_puts_them),
        cmocka_unit_test(test_the_fadt_leads_on),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_what_is_a_firmware),
        cmocka_unit_test(test_how_it_begins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
