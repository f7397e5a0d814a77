#include "boot/efi_loader.h"
#include "hv/lib/string.h"

static const EFI_GUID acpi_2_guid = ACPI_20_TABLE_GUID;
static const EFI_GUID acpi_1_guid = ACPI_TABLE_GUID;

static uint64_t find_table(const EFI_GUID *guid)
{
    for (UINTN i = 0; i < efi_st->NumberOfTableEntries; i++)
        if (memcmp(&efi_st->ConfigurationTable[i].VendorGuid, guid, sizeof(*guid)) == 0)
            return (uintptr_t)efi_st->ConfigurationTable[i].VendorTable;
    return 0;
}

uint64_t efi_find_rsdp(void)
{
    uint64_t rsdp = find_table(&acpi_2_guid);
    return rsdp ? rsdp : find_table(&acpi_1_guid);
}

/* Firmware maps all memory at its own address; what is not memory is not read. */
static enum status read_memory(void *ctx, hpa_t addr, void *buf, size_t size)
{
    if (!efi_is_memory(addr.v, size))
        return ERR_RANGE;
    memcpy(buf, (const void *)addr.v, size);
    return STATUS_OK;
}

const struct acpi_tables *efi_acpi_tables(void)
{
    static const struct acpi_reader reader = {.read = read_memory};
    static struct acpi_tables tables;
    static enum { UNKNOWN, GOOD, ABSENT } state;

    if (state == UNKNOWN) {
        uint64_t rsdp = efi_find_rsdp();
        state = rsdp && acpi_open(&tables, &reader, hpa(rsdp)) == STATUS_OK ? GOOD : ABSENT;
    }
    return state == GOOD ? &tables : NULL;
}
