/* What is kept of failures: the black box of a run that ended in a panic goes into a file, memory is set
 * aside for the next one, and the report of this start goes into a file as well. */
#include "boot/efi_loader.h"
#include "hv/lib/string.h"
#include "hv/record/blackbox.h"

#define CRASH_NAME     L"\\bulkhead.crash"
#define CRASH_OLD_NAME L"\\bulkhead.crash.old"
#define OLD_NAME_ONLY  L"bulkhead.crash.old"
#define REPORT_NAME    L"\\bulkhead.report"
#define SHOWN_AT_ONCE  200u /* bytes */

static void *found; /* memory with the last run's black box */
static struct span found_text;

/* The first place that can be had, which is the same at each start of a machine. The others may have been a
 * guest's memory: what is written there is no word of Bulkhead's. */
uint64_t efi_blackbox_place(void)
{
    static const uint64_t places[] = BLACKBOX_PLACES;

    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        EFI_PHYSICAL_ADDRESS at = places[i];
        /* That it can be allocated also says that it is memory, and nobody's. */
        if (EFI_ERROR(efi_bs->AllocatePages(AllocateAddress, EfiLoaderData, BLACKBOX_SIZE / PAGE_SIZE, &at)))
            continue;
        if (blackbox_find((const void *)(uintptr_t)at, &found_text))
            found = (void *)(uintptr_t)at;
        return at;
    }
    return 0;
}

static EFI_STATUS write_file(CHAR16 *name, const void *data, uint64_t size)
{
    EFI_FILE_HANDLE root = efi_files_root(), file;
    UINTN written = size;
    if (!root)
        return EFI_NO_MEDIA;
    const uint64_t create = EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE | EFI_FILE_MODE_CREATE;
    /* A file is not cut by writing less into it. */
    if (!EFI_ERROR(root->Open(root, &file, name, EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE, 0)))
        file->Delete(file);
    EFI_STATUS s = root->Open(root, &file, name, create, 0);
    if (EFI_ERROR(s))
        return s;
    s = file->Write(file, &written, (void *)(uintptr_t)data);
    if (!EFI_ERROR(s) && written != size)
        s = EFI_VOLUME_FULL;
    if (!EFI_ERROR(s))
        s = file->Flush(file);
    if (EFI_ERROR(s))
        file->Delete(file); /* half of a text would be kept as the one before, next time */
    else
        file->Close(file);
    return s;
}

/* An earlier crash is kept beside the new one; one older than that is not, but only when there is one to take
 * its place: a full volume is tried again at each start. Nothing depends on it. */
static void keep_old(void)
{
    static EFI_GUID info_guid = EFI_FILE_INFO_ID;
    _Alignas(EFI_FILE_INFO) uint8_t buffer[sizeof(EFI_FILE_INFO) + 2 * 64];
    EFI_FILE_INFO *info = (void *)buffer;
    UINTN size = sizeof(buffer);
    EFI_FILE_HANDLE root = efi_files_root(), file, old;
    const uint64_t both = EFI_FILE_MODE_READ | EFI_FILE_MODE_WRITE;

    if (!root)
        return;
    if (EFI_ERROR(root->Open(root, &file, CRASH_NAME, both, 0)))
        return;
    if (!EFI_ERROR(root->Open(root, &old, CRASH_OLD_NAME, both, 0)))
        old->Delete(old);
    if (!EFI_ERROR(file->GetInfo(file, &info_guid, &size, info))) {
        memcpy(info->FileName, OLD_NAME_ONLY, sizeof(OLD_NAME_ONLY));
        file->SetInfo(file, &info_guid, sizeof(EFI_FILE_INFO) + sizeof(OLD_NAME_ONLY), info);
    }
    file->Close(file);
}

void efi_blackbox_show(void)
{
    if (!found)
        return;
    efi_print("\nThe last run ended in a panic. This is its black box:\n\n");
    for (size_t at = 0; at < found_text.size; at += SHOWN_AT_ONCE) {
        size_t n = found_text.size - at < SHOWN_AT_ONCE ? found_text.size - at : SHOWN_AT_ONCE;
        efi_print("%.*s", (int)n, (const char *)found_text.data + at);
    }
}

void efi_blackbox_save(void)
{
    if (!found)
        return;
    keep_old();
    EFI_STATUS s = write_file(CRASH_NAME, found_text.data, found_text.size);
    if (EFI_ERROR(s)) {
        efi_print(
            "\nIt cannot be written to \\bulkhead.crash (%s), so it is shown again at the next start.\n",
            efi_status_text(s));
        return;
    }
    efi_print("\nIt is in the file \\bulkhead.crash of the boot volume now.\n");
    blackbox_clear(found);
}

void efi_report_save(void)
{
    struct span text = efi_console_text();
    EFI_STATUS s = write_file(REPORT_NAME, text.data, text.size);
    if (EFI_ERROR(s))
        efi_print("warning: the report cannot be written to \\bulkhead.report: %s\n", efi_status_text(s));
}
