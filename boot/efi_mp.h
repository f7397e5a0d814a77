/* EFI_MP_SERVICES_PROTOCOL (UEFI Platform Initialization specification, volume 2, section "MP Services
 * Protocol"), as far as the loader uses it; gnu-efi does not declare it. */
#pragma once

#include <efi.h>

#define EFI_MP_SERVICES_GUID                                                                                 \
    {                                                                                                        \
        0x3fdda605, 0xa76e, 0x4f46,                                                                          \
        {                                                                                                    \
            0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08                                                   \
        }                                                                                                    \
    }

#define EFI_PROCESSOR_IS_BSP  0x1u
#define EFI_PROCESSOR_ENABLED 0x2u
#define EFI_PROCESSOR_HEALTHY 0x4u

struct efi_processor_info {
    uint64_t processor_id; /* APIC ID */
    uint32_t status;
    uint32_t package, core, thread;
    uint32_t extended[6]; /* newer firmware fills this in when asked to; room for all of it */
};

struct efi_mp_services {
    EFI_STATUS(EFIAPI *get_number)(struct efi_mp_services *self, UINTN *count, UINTN *enabled);
    EFI_STATUS(EFIAPI *get_info)(struct efi_mp_services *self, UINTN number, struct efi_processor_info *info);
    /* more functions follow */
};
