#include "hv/guest/firmware.h"
#include "drivers/vdev/uart.h"
#include "hv/guest/e820.h"
#include "hv/lib/bytes.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

enum status firmware_check(uint64_t size, uint64_t max, char *why, size_t why_size)
{
    const char *fault = NULL;

    if (size < FIRMWARE_MIN)
        fault = "is too small for a firmware: at least 64 KiB are needed";
    else if (size % PAGE_SIZE)
        fault = "is no flash image: its size is not a multiple of 4 KiB";
    else if (size > max)
        fault = max < FIRMWARE_MAX ? "does not fit below 4 GiB: with compat = qemu, 16320 KiB are the limit"
                                   : "does not fit below 4 GiB: 16 MiB are the limit";
    STATIC_ASSERT(FIRMWARE_MIN == 64 << 10 && FIRMWARE_MAX == 16 << 20, "as the sentences say");
    if (!fault)
        return STATUS_OK;
    return fmt_refuse(why, why_size, ERR_INVALID, "a file of %llu bytes %s", (unsigned long long)size, fault);
}

/* ---- the loader's script (QEMU: hw/acpi/bios-linker-loader.c describes the format in its comments) ---- */

#define RSDP_NAME   "etc/acpi/rsdp"
#define TABLES_NAME "etc/acpi/tables"

#define COMMAND_ALLOCATE     1u
#define COMMAND_ADD_POINTER  2u
#define COMMAND_ADD_CHECKSUM 3u
#define COMMAND_SIZE         128u
#define ZONE_HIGH            1u
#define ZONE_FSEG            2u

/* ACPI 6.5, 5.2.5.3: where in the RSDP, in bytes. */
#define RSDP_SIZE       36u
#define RSDP_V1_SIZE    20u
#define RSDP_CHECKSUM   8u
#define RSDP_XSDT       24u
#define RSDP_EXT_CHECK  32u
#define RSDP_ALIGN      16u
#define TABLES_ALIGN    64u /* of the FACS */
#define HEADER_SIZE     36u /* 5.2.6; the XSDT's entries follow */
#define HEADER_LENGTH   4u
#define HEADER_CHECKSUM 9u
#define XSDT_ENTRY      8u
#define FADT_FACS       36u /* 5.2.9 */
#define FADT_DSDT       40u
#define FADT_X_DSDT     140u
#define FADT_SIGNATURE  0x50434146u /* "FACP" */

struct script {
    uint8_t *at, *end;
    bool overflow;
};

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
    memcpy(at, &value, bytes); /* both little-endian */
}

/* An entry with a file's name behind the command; NULL when there is no more room. */
static uint8_t *command(struct script *s, uint32_t what, const char *file)
{
    if ((size_t)(s->end - s->at) < COMMAND_SIZE) {
        s->overflow = true;
        return NULL;
    }
    uint8_t *entry = s->at;
    s->at += COMMAND_SIZE;
    memset(entry, 0, COMMAND_SIZE);
    put(entry, what, 4);
    memcpy(entry + 4, file, str_length(file));
    return entry + 4 + FW_CFG_NAME_MAX;
}

static void allocate(struct script *s, const char *file, uint32_t alignment, uint8_t zone)
{
    uint8_t *rest = command(s, COMMAND_ALLOCATE, file);
    if (!rest)
        return;
    put(rest, alignment, 4);
    put(rest + 4, zone, 1);
}

/* The number at `offset` in `file` is an offset in the tables; it becomes an address. */
static void add_pointer(struct script *s, const char *file, uint32_t offset, uint8_t bytes)
{
    uint8_t *rest = command(s, COMMAND_ADD_POINTER, file);
    if (!rest)
        return;
    memcpy(rest, TABLES_NAME, sizeof(TABLES_NAME));
    put(rest + FW_CFG_NAME_MAX, offset, 4);
    put(rest + FW_CFG_NAME_MAX + 4, bytes, 1);
}

/* Both files begin at `tables`. The byte is 0 until then, as in QEMU's tables: SeaBIOS subtracts the sum from
 * what is there, OVMF puts the sum's complement in its place. */
static void add_checksum(struct script *s, uint8_t *tables, const char *file, uint32_t at, uint32_t start,
                         uint32_t length)
{
    uint8_t *rest = command(s, COMMAND_ADD_CHECKSUM, file);
    if (!rest)
        return;
    tables[at] = 0;
    put(rest, at, 4);
    put(rest + 4, start, 4);
    put(rest + 8, length, 4);
}

/* For tables that were built for address 0, so that every address in them is an offset. */
static void put_script(struct script *s, uint8_t *tables)
{
    uint32_t xsdt = bytes_get32(tables + RSDP_XSDT);
    uint32_t xsdt_size = bytes_get32(tables + xsdt + HEADER_LENGTH);

    allocate(s, RSDP_NAME, RSDP_ALIGN, ZONE_FSEG);
    allocate(s, TABLES_NAME, TABLES_ALIGN, ZONE_HIGH);
    add_pointer(s, RSDP_NAME, RSDP_XSDT, 8);
    for (uint32_t at = xsdt + HEADER_SIZE; at < xsdt + xsdt_size; at += XSDT_ENTRY) {
        uint32_t table = bytes_get32(tables + at);
        add_pointer(s, TABLES_NAME, at, XSDT_ENTRY);
        if (bytes_get32(tables + table) != FADT_SIGNATURE)
            continue;
        add_pointer(s, TABLES_NAME, table + FADT_FACS, 4);
        add_pointer(s, TABLES_NAME, table + FADT_DSDT, 4);
        add_pointer(s, TABLES_NAME, table + FADT_X_DSDT, 8);
        add_checksum(s, tables, TABLES_NAME, table + HEADER_CHECKSUM, table,
                     bytes_get32(tables + table + HEADER_LENGTH));
    }
    add_checksum(s, tables, TABLES_NAME, xsdt + HEADER_CHECKSUM, xsdt, xsdt_size);
    add_checksum(s, tables, RSDP_NAME, RSDP_CHECKSUM, 0, RSDP_V1_SIZE);
    add_checksum(s, tables, RSDP_NAME, RSDP_EXT_CHECK, 0, RSDP_SIZE);
}

/* ---- the files ---- */

/* What the firmware cannot find out by itself. RAM below 4 GiB it knows from here, too, and takes its own
 * part of it out; the holes in the first MiB it knows. */
static uint32_t put_e820(const struct guest_layout *layout, uint8_t *at)
{
    const struct e820_entry entries[] = {
        {0, layout->low_end, E820_RAM},
        {GUEST_ECAM, GUEST_ECAM_SIZE, E820_RESERVED},
        {GUEST_IOAPIC, GUEST_FOUR_GIB - GUEST_IOAPIC, E820_RESERVED},
        {GUEST_FOUR_GIB, layout->high_end - GUEST_FOUR_GIB, E820_RAM},
    };
    uint32_t count = layout->high_end > GUEST_FOUR_GIB ? 4 : 3;
    memcpy(at, entries, count * sizeof(entries[0]));
    return count * (uint32_t)sizeof(entries[0]);
}
#define E820_SIZE (4 * sizeof(struct e820_entry))

enum status firmware_build(const struct acpi_build *params, const struct guest_layout *layout, uint8_t *buf,
                           size_t size, struct fw_cfg_file files[FIRMWARE_FILES])
{
    struct acpi_build at_0 = *params;
    struct acpi_built built;

    at_0.base = gpa(0);
    enum status s = acpi_build(&at_0, buf, size, &built);
    if (s != STATUS_OK)
        return s;
    struct script script = {.at = buf + built.size, .end = buf + size};
    put_script(&script, buf);
    if (script.overflow || (size_t)(script.end - script.at) < E820_SIZE + 2 * sizeof(uint32_t))
        return ERR_NO_MEMORY;
    uint8_t *e820 = script.at, *sercon = e820 + E820_SIZE, *fail_wait = sercon + sizeof(uint32_t);
    uint32_t e820_size = put_e820(layout, e820);
    put(sercon, UART_COM1_PORT, 4);
    put(fail_wait, UINT32_MAX, 4);
    files[FIRMWARE_RSDP] = (struct fw_cfg_file){RSDP_NAME, buf, RSDP_SIZE}; /* it comes first in there */
    files[FIRMWARE_TABLES] = (struct fw_cfg_file){TABLES_NAME, buf, built.size};
    files[FIRMWARE_LOADER] =
        (struct fw_cfg_file){"etc/table-loader", buf + built.size, (uint32_t)(e820 - buf) - built.size};
    files[FIRMWARE_E820] = (struct fw_cfg_file){"etc/e820", e820, e820_size};
    files[FIRMWARE_SERCON] = (struct fw_cfg_file){"etc/sercon-port", sercon, 4};
    files[FIRMWARE_FAIL_WAIT] = (struct fw_cfg_file){"etc/boot-fail-wait", fail_wait, 4};
    return STATUS_OK;
}
