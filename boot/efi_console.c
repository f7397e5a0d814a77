/* Output goes to the firmware's console, and straight to COM1 as well when no part of that console is COM1: a
 * machine without a screen then still explains itself, and nothing is printed twice. */
#include <stdarg.h>

#include "boot/efi_cpu.h"
#include "boot/efi_loader.h"
#include "hv/lib/fmt.h"

#define COM1            0x3f8u
#define UART_DATA       0u
#define UART_IER        1u
#define UART_FCR        2u
#define UART_LCR        3u
#define UART_MCR        4u
#define UART_LSR        5u
#define UART_SCRATCH    7u
#define UART_LCR_8N1    0x03u
#define UART_LCR_DLAB   0x80u
#define UART_FCR_ENABLE 0x07u    /* on, both FIFOs cleared */
#define UART_MCR_ON     0x03u    /* DTR, RTS */
#define UART_LSR_THRE   0x20u    /* room to write */
#define UART_LSR_TEMT   0x40u    /* all sent */
#define UART_SPINS      1000000u /* then the UART is taken for dead */

#define EISA_PNP0501  0x050141d0u /* compressed EISA ID of a 16550 */
#define TEXT_MAX      512u
#define TICKS_PER_SEC 10000000u /* EFI timers count 100 ns */

static EFI_GUID console_out_device_guid = {
    0xd3b36f2c, 0xd551, 0x11d4, {0x9a, 0x46, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d}};
static EFI_GUID device_path_guid = DEVICE_PATH_PROTOCOL;

static bool use_com1;

/* Kept until the end, so that they stand below the report and not above it. */
static struct {
    size_t length;
    char text[4 * TEXT_MAX];
} failures;

static void com1_wait(uint8_t bits)
{
    for (unsigned i = 0; i < UART_SPINS && (efi_inb(COM1 + UART_LSR) & bits) != bits; i++)
        __builtin_ia32_pause();
}

static void com1_put(char c)
{
    com1_wait(UART_LSR_THRE);
    efi_outb(COM1 + UART_DATA, (uint8_t)c);
}

static bool com1_init(void)
{
    efi_outb(COM1 + UART_SCRATCH, 0x5a);
    if (efi_inb(COM1 + UART_SCRATCH) != 0x5a)
        return false;
    com1_wait(UART_LSR_TEMT);
    efi_outb(COM1 + UART_IER, 0);
    efi_outb(COM1 + UART_LCR, UART_LCR_DLAB | UART_LCR_8N1);
    efi_outb(COM1 + UART_DATA, 1); /* 115200 baud */
    efi_outb(COM1 + UART_IER, 0);
    efi_outb(COM1 + UART_LCR, UART_LCR_8N1);
    efi_outb(COM1 + UART_FCR, UART_FCR_ENABLE);
    efi_outb(COM1 + UART_MCR, UART_MCR_ON);
    return true;
}

/* A device path that leads through ACPI device PNP0501 number 0 to a UART node is COM1. */
static bool path_is_com1(const EFI_DEVICE_PATH *path)
{
    bool pnp = false;

    for (unsigned nodes = 0; nodes < 32 && path->Type != END_DEVICE_PATH_TYPE; nodes++) {
        unsigned length = path->Length[0] | (unsigned)path->Length[1] << 8;
        if (length < sizeof(*path))
            return false;
        if (path->Type == ACPI_DEVICE_PATH && path->SubType == ACPI_DP &&
            length >= sizeof(ACPI_HID_DEVICE_PATH)) {
            const ACPI_HID_DEVICE_PATH *acpi = (const void *)path;
            if (acpi->HID == EISA_PNP0501)
                pnp = acpi->UID == 0;
        }
        if (path->Type == MESSAGING_DEVICE_PATH && path->SubType == MSG_UART_DP && pnp)
            return true;
        path = (const void *)((const uint8_t *)path + length);
    }
    return false;
}

static bool handle_is_com1(EFI_HANDLE handle)
{
    void *path;

    return handle && efi_bs->HandleProtocol(handle, &device_path_guid, &path) == EFI_SUCCESS &&
           path_is_com1(path);
}

/* The console is a splitter; the devices behind it carry a marker protocol (UEFI driver writer's convention
 * of EDK II). */
static bool console_has_com1(void)
{
    EFI_HANDLE *handles;
    UINTN count = 0;
    bool found = handle_is_com1(efi_st->ConsoleOutHandle);

    if (found || efi_bs->LocateHandleBuffer(ByProtocol, &console_out_device_guid, NULL, &count, &handles) !=
                     EFI_SUCCESS)
        return found;
    for (UINTN i = 0; i < count && !found; i++)
        found = handle_is_com1(handles[i]);
    efi_bs->FreePool(handles);
    return found;
}

void efi_console_init(void)
{
    use_com1 = !console_has_com1() && com1_init();
}

/* What was printed, for the report. */
static struct {
    size_t length;
    uint8_t text[32768];
} printed;

struct span efi_console_text(void)
{
    return (struct span){printed.text, printed.length};
}

static void put_text(const char *text)
{
    CHAR16 wide[64];
    UINTN n = 0;

    for (const char *p = text; *p && printed.length < sizeof(printed.text); p++)
        printed.text[printed.length++] = (uint8_t)*p;
    for (const char *p = text; *p; p++) {
        if (*p == '\n')
            wide[n++] = '\r';
        wide[n++] = (uint8_t)*p;
        if (n >= ARRAY_SIZE(wide) - 2 || !p[1]) {
            wide[n] = 0;
            if (efi_st->ConOut)
                efi_st->ConOut->OutputString(efi_st->ConOut, wide);
            n = 0;
        }
    }
    for (const char *p = text; use_com1 && *p; p++) {
        if (*p == '\n')
            com1_put('\r');
        com1_put(*p);
    }
}

void efi_print(const char *format, ...)
{
    char text[TEXT_MAX];
    va_list args;

    va_start(args, format);
    fmt_vformat(text, sizeof(text), format, args);
    va_end(args);
    put_text(text);
}

EFI_STATUS efi_fail(EFI_STATUS status, const char *format, ...)
{
    size_t room = sizeof(failures.text) - failures.length;
    size_t n = fmt_format(failures.text + failures.length, room, "error: ");
    va_list args;

    if (n < room) {
        va_start(args, format);
        n += fmt_vformat(failures.text + failures.length + n, room - n, format, args);
        va_end(args);
    }
    if (n + 1 < room) {
        failures.text[failures.length + n++] = '\n';
        failures.text[failures.length + n] = 0;
    }
    failures.length += n < room ? n : room - 1;
    return status;
}

void efi_print_failures(void)
{
    put_text(failures.text);
}

const char *efi_status_text(EFI_STATUS status)
{
    switch (status) {
    case EFI_NOT_FOUND:
        return "not found";
    case EFI_OUT_OF_RESOURCES:
        return "out of memory";
    case EFI_DEVICE_ERROR:
        return "the device reports an error";
    case EFI_VOLUME_CORRUPTED:
        return "the file system is damaged";
    case EFI_NO_MEDIA:
        return "the medium was removed";
    case EFI_MEDIA_CHANGED:
        return "the medium was changed";
    case EFI_ACCESS_DENIED:
        return "access denied";
    case EFI_WRITE_PROTECTED:
        return "the medium is write-protected";
    case EFI_VOLUME_FULL:
        return "the volume is full";
    case EFI_UNSUPPORTED:
        return "not supported by this firmware";
    case EFI_END_OF_FILE:
        return "the file ends too early";
    default:
        return "firmware error";
    }
}

void efi_console_wait(unsigned seconds)
{
    EFI_EVENT events[2];
    EFI_INPUT_KEY key;
    UINTN count = 0, which;

    if (efi_bs->CreateEvent(EVT_TIMER, 0, NULL, NULL, &events[0]) != EFI_SUCCESS)
        return;
    if (efi_bs->SetTimer(events[0], TimerRelative, (uint64_t)seconds * TICKS_PER_SEC) == EFI_SUCCESS) {
        events[1] = efi_st->ConIn ? efi_st->ConIn->WaitForKey : NULL;
        count = events[1] ? 2 : 1;
    }
    if (count && efi_bs->WaitForEvent(count, events, &which) == EFI_SUCCESS && which == 1)
        efi_st->ConIn->ReadKeyStroke(efi_st->ConIn, &key);
    efi_bs->CloseEvent(events[0]);
}

void efi_die(const char *why)
{
    static const char head[] = "\r\nBulkhead loader: ", tail[] = "; restarting\r\n";

    if (com1_init()) {
        for (const char *p = head; *p; p++)
            com1_put(*p);
        for (const char *p = why; *p; p++)
            com1_put(*p);
        for (const char *p = tail; *p; p++)
            com1_put(*p);
        com1_wait(UART_LSR_TEMT);
    }
    for (;;)
        efi_st->RuntimeServices->ResetSystem(EfiResetCold, EFI_ABORTED, 0, NULL);
}
