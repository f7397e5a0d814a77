/* A VM whose own firmware starts it, at the reset vector: which flash images are taken, and what the firmware
 * is told through fw_cfg (QEMU: docs/specs/fw_cfg.rst; SeaBIOS: docs/Runtime_config.md). Pure. */
#pragma once

#include "drivers/vdev/fw_cfg.h"
#include "hv/guest/acpi_build.h"
#include "hv/guest/layout.h"

#define FIRMWARE_MIN     0x10000ull   /* bytes of an image: F0000..FFFFF shows its end */
#define FIRMWARE_MAX     0x1000000ull /* what is free below 4 GiB */
#define FIRMWARE_VISIBLE 0x20000ull   /* of its end are seen at E0000..FFFFF as well */

/* ERR_INVALID with a sentence in `why`. `max`: FIRMWARE_MAX, or less where something lies below it. */
enum status firmware_check(uint64_t size, uint64_t max, char *why, size_t why_size);

enum firmware_file {
    FIRMWARE_RSDP,
    FIRMWARE_TABLES,
    FIRMWARE_LOADER, /* how the firmware puts them into memory and makes offsets addresses */
    FIRMWARE_E820,
    FIRMWARE_SERCON,    /* the serial port that is its screen */
    FIRMWARE_FAIL_WAIT, /* it stays where nothing can be booted, instead of trying for ever */
    FIRMWARE_FILES
};

/* Builds the files' contents in `buf`, which the files then point into. ERR_* of acpi_build(), ERR_NO_MEMORY
 * when they do not fit. */
enum status firmware_build(const struct acpi_build *params, const struct guest_layout *layout, uint8_t *buf,
                           size_t size, struct fw_cfg_file files[FIRMWARE_FILES]);
