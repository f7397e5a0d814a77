/* Boots \vmlinuz natively: no hypervisor, the same kernel, initrd and command line as in a VM. The reference
 * for what a VM costs. Everything is read from the disk before the clock starts, so that only the kernel is
 * measured: the initrd is handed over from memory through the protocol that the kernel's EFI stub asks for
 * (LoadFile2 on a vendor media device path, Linux: Documentation/admin-guide/efi-stub.rst). With a file
 * \\madt (a whole table), the kernel finds it: the firmware in Bochs has no ACPI tables, and a kernel that
 * knows of no local APIC gets no interrupts from its timer. */
#include <efi.h>
#include <efilib.h>
#include <stdint.h>

#define COM1         0x3F8
#define LINE_STATUS  (COM1 + 5)
#define LSR_THR_FREE 0x20

struct file {
    void *data;
    UINTN size;
};

struct initrd_protocol {
    EFI_STATUS(EFIAPI *load_file)
    (struct initrd_protocol *self, EFI_DEVICE_PATH *path, BOOLEAN boot_policy, UINTN *size, void *buffer);
};

static struct file initrd;

static EFI_GUID load_file2_guid = {
    0x4006c0c1, 0xfcb3, 0x403e, {0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d}};
static struct {
    VENDOR_DEVICE_PATH vendor;
    EFI_DEVICE_PATH end;
} __attribute__((packed)) initrd_path = {
    .vendor = {.Header = {MEDIA_DEVICE_PATH, MEDIA_VENDOR_DP, {sizeof(VENDOR_DEVICE_PATH), 0}},
               .Guid = {0x5568e427, 0x68fc, 0x4f3d, {0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68}}},
    .end = {END_DEVICE_PATH_TYPE, END_ENTIRE_DEVICE_PATH_SUBTYPE, {sizeof(EFI_DEVICE_PATH), 0}},
};

static void print_char(char c)
{
    uint8_t status;
    do
        __asm__ volatile("inb %w1, %0" : "=a"(status) : "Nd"(LINE_STATUS));
    while (!(status & LSR_THR_FREE));
    __asm__ volatile("outb %b0, %w1" : : "a"(c), "Nd"(COM1));
}

static void print(const char *text)
{
    while (*text)
        print_char(*text++);
}

static void print_ticks(void)
{
    uint32_t low, high;
    char text[24] = {0};
    int at = sizeof(text) - 1;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    uint64_t ticks = (uint64_t)high << 32 | low;
    do
        text[--at] = (char)('0' + ticks % 10);
    while (ticks /= 10);
    print(text + at);
    print("\r\n");
}

static EFI_STATUS EFIAPI give_initrd(struct initrd_protocol *self, EFI_DEVICE_PATH *path, BOOLEAN boot_policy,
                                     UINTN *size, void *buffer)
{
    BOOLEAN fits = buffer && *size >= initrd.size;
    *size = initrd.size;
    if (!fits)
        return EFI_BUFFER_TOO_SMALL;
    CopyMem(buffer, initrd.data, initrd.size);
    return EFI_SUCCESS;
}

static struct initrd_protocol initrd_protocol = {give_initrd};

static EFI_STATUS read_file(EFI_FILE *root, CHAR16 *name, struct file *out)
{
    EFI_FILE *file;
    EFI_STATUS status = uefi_call_wrapper(root->Open, 5, root, &file, name, EFI_FILE_MODE_READ, 0);
    if (EFI_ERROR(status))
        return status;
    EFI_FILE_INFO *info = LibFileInfo(file);
    if (!info)
        return EFI_OUT_OF_RESOURCES;
    out->size = info->FileSize;
    out->data = AllocatePool(out->size + sizeof(CHAR16));
    if (!out->data)
        return EFI_OUT_OF_RESOURCES;
    return uefi_call_wrapper(file->Read, 3, file, &out->size, out->data);
}

/* ACPI specification 6.5, 5.2.5.3 and 5.2.8. */
struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum;
    uint8_t reserved[3];
} __attribute__((packed));

struct xsdt {
    char signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem[6];
    char oem_table[8];
    uint32_t oem_revision;
    char creator[4];
    uint32_t creator_revision;
    uint64_t entry;
} __attribute__((packed));

static struct rsdp rsdp_template = {
    .signature = "RSD PTR ", .oem = "BLKHD ", .revision = 2, .length = sizeof(struct rsdp)};
static struct xsdt xsdt_template = {.signature = "XSDT",
                                    .length = sizeof(struct xsdt),
                                    .revision = 1,
                                    .oem = "BLKHD ",
                                    .oem_table = "CARRIER ",
                                    .creator = "BLKH"};

static uint8_t checksum(const void *data, UINTN size)
{
    uint8_t sum = 0;
    for (UINTN i = 0; i < size; i++)
        sum = (uint8_t)(sum - ((const uint8_t *)data)[i]);
    return sum;
}

static EFI_STATUS give_madt(const struct file *madt)
{
    uint8_t *place;
    UINTN head = sizeof(struct rsdp) + 4 + sizeof(struct xsdt); /* 36 + 4: the XSDT on a multiple of 8 */
    EFI_STATUS status =
        uefi_call_wrapper(BS->AllocatePool, 3, EfiACPIReclaimMemory, head + madt->size, (void **)&place);
    if (EFI_ERROR(status))
        return status;
    struct rsdp *rsdp = (void *)place;
    struct xsdt *xsdt = (void *)(place + sizeof(*rsdp) + 4);
    CopyMem(rsdp, &rsdp_template, sizeof(*rsdp));
    CopyMem(xsdt, &xsdt_template, sizeof(*xsdt));
    CopyMem(xsdt + 1, madt->data, madt->size);
    xsdt->entry = (uintptr_t)(xsdt + 1);
    xsdt->checksum = checksum(xsdt, sizeof(*xsdt));
    rsdp->xsdt = (uintptr_t)xsdt;
    rsdp->checksum = checksum(rsdp, 20);
    rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
    return uefi_call_wrapper(BS->InstallConfigurationTable, 2, &(EFI_GUID)ACPI_20_TABLE_GUID, rsdp);
}

/* The command line as UTF-16, without the line end. */
static UINT32 widen(const struct file *text, CHAR16 *out, UINTN capacity)
{
    UINTN length = 0;
    for (const char *c = text->data; length < text->size && length + 1 < capacity && c[length] != '\n';
         length++)
        out[length] = (CHAR16)c[length];
    out[length] = 0;
    return (UINT32)((length + 1) * sizeof(CHAR16));
}

static EFI_STATUS boot(EFI_HANDLE self)
{
    static CHAR16 options[1024];
    struct file kernel = {0}, command_line = {0}, madt = {0};
    EFI_LOADED_IMAGE *loaded;
    EFI_HANDLE image = NULL, initrd_handle = NULL;
    EFI_STATUS status =
        uefi_call_wrapper(BS->HandleProtocol, 3, self, &LoadedImageProtocol, (void **)&loaded);
    if (EFI_ERROR(status))
        return status;
    EFI_FILE *root = LibOpenRoot(loaded->DeviceHandle);
    if (!root)
        return EFI_NOT_FOUND;
    status = read_file(root, L"vmlinuz", &kernel);
    if (!EFI_ERROR(status))
        status = read_file(root, L"initrd.img", &initrd);
    if (!EFI_ERROR(status))
        status = read_file(root, L"cmdline", &command_line);
    if (!EFI_ERROR(status) && !EFI_ERROR(read_file(root, L"madt", &madt)))
        status = give_madt(&madt);
    if (EFI_ERROR(status))
        return status;
    status =
        uefi_call_wrapper(BS->LoadImage, 6, FALSE, self, loaded->FilePath, kernel.data, kernel.size, &image);
    if (EFI_ERROR(status))
        return status;
    status = uefi_call_wrapper(BS->HandleProtocol, 3, image, &LoadedImageProtocol, (void **)&loaded);
    if (EFI_ERROR(status))
        return status;
    loaded->LoadOptionsSize = widen(&command_line, options, sizeof(options) / sizeof(*options));
    loaded->LoadOptions = options;
    status = LibInstallProtocolInterfaces(&initrd_handle, &DevicePathProtocol, &initrd_path, &load_file2_guid,
                                          &initrd_protocol, NULL);
    if (EFI_ERROR(status))
        return status;
    print("bulkhead-native: start tsc=");
    print_ticks();
    return uefi_call_wrapper(BS->StartImage, 3, image, NULL, NULL);
}

EFI_STATUS efi_main(EFI_HANDLE self, EFI_SYSTEM_TABLE *system)
{
    InitializeLib(self, system);
    EFI_STATUS status = boot(self);
    Print(L"native boot failed: %r\n", status);
    return status;
}
