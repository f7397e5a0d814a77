#include "boot/efi_loader.h"

#define PIXEL_BYTES 4u

struct boot_framebuffer efi_framebuffer(void)
{
    static EFI_GUID guid = EFI_GRAPHICS_OUTPUT_PROTOCOL_GUID;
    struct boot_framebuffer fb = {.pixel = BOOT_PIXEL_NONE};
    EFI_GRAPHICS_OUTPUT_PROTOCOL *gop;
    void *interface;

    if (EFI_ERROR(efi_bs->LocateProtocol(&guid, NULL, &interface)))
        return fb;
    gop = interface;
    if (!gop->Mode || !gop->Mode->Info || !gop->Mode->FrameBufferBase)
        return fb;
    const EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *info = gop->Mode->Info;
    uint64_t bytes = (uint64_t)info->PixelsPerScanLine * info->VerticalResolution * PIXEL_BYTES;
    if (info->PixelsPerScanLine < info->HorizontalResolution || !bytes || bytes > gop->Mode->FrameBufferSize)
        return fb;
    fb.hpa = gop->Mode->FrameBufferBase;
    fb.width = info->HorizontalResolution;
    fb.height = info->VerticalResolution;
    fb.stride = info->PixelsPerScanLine;
    if (info->PixelFormat == PixelRedGreenBlueReserved8BitPerColor)
        fb.pixel = BOOT_PIXEL_RGBX;
    else if (info->PixelFormat == PixelBlueGreenRedReserved8BitPerColor)
        fb.pixel = BOOT_PIXEL_BGRX;
    return fb;
}
