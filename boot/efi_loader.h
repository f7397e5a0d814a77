/* The loader's own parts, all of which talk to the firmware. Everything that can be decided without it is in
 * the pure modules beside (elf, memmap, handover, preflight, boot_clock). */
#pragma once

#include <efi.h>

#include "boot/boot_info.h"
#include "boot/elf.h"
#include "boot/preflight.h"
#include "drivers/acpi/acpi.h"
#include "drivers/pci/pci.h"

extern EFI_HANDLE efi_image;
extern EFI_SYSTEM_TABLE *efi_st;
extern EFI_BOOT_SERVICES *efi_bs;

/* efi_console.c: the firmware's console, and COM1 when that console is not on it. */
void efi_console_init(void);
void efi_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Notes down "error: ..." for efi_print_failures, answers `status`. */
EFI_STATUS efi_fail(EFI_STATUS status, const char *format, ...) __attribute__((format(printf, 2, 3)));
void efi_print_failures(void);
const char *efi_status_text(EFI_STATUS status);
/* All that was printed so far (its beginning, if it is very much), with '\n' between lines. */
struct span efi_console_text(void);
/* Waits for a key, at most so many seconds. */
void efi_console_wait(unsigned seconds);
/* For the time after ExitBootServices: the text goes to COM1 only, and the machine restarts. */
_Noreturn void efi_die(const char *why);

/* efi_files.c: the volume the loader came from. */
#define EFI_CONFIG_NAME "bulkhead.conf"
EFI_STATUS efi_files_init(void);
EFI_FILE_HANDLE efi_files_root(void); /* NULL: not opened */
/* Reads the whole configuration file into *text; says what is wrong itself. */
EFI_STATUS efi_read_config(struct span *text);
/* Checks that all files of all VMs exist and sums up their sizes in whole pages; says what is wrong itself.
 */
EFI_STATUS efi_check_files(const struct config *config, uint64_t *total);
/* Loads kernels, initrds, modules and disks into info's tables, by VM index; says what is wrong itself. */
EFI_STATUS efi_load_files(const struct config *config, struct boot_info *info);

/* efi_crash.c */
/* Sets memory aside for the black box; 0: there was no place. Notices what the last run left there. First of
 * all allocations, which might otherwise take the place. */
uint64_t efi_blackbox_place(void);
void efi_blackbox_show(void);
/* Needs the boot volume. */
void efi_blackbox_save(void);
/* Writes all that was printed to \bulkhead.report. */
void efi_report_save(void);

/* efi_memory.c */
/* Contiguous pages below `limit` (0: anywhere), aligned to `align` (a power of two >= 4096). */
EFI_STATUS efi_alloc(uint64_t size, uint64_t align, uint64_t limit, uint64_t *hpa);
/* Reads the firmware's memory map into a buffer that stays valid. */
EFI_STATUS efi_memory_map(struct span *map, size_t *desc_size, UINTN *key);
/* Does the firmware's map know [hpa, hpa+size) as memory and not as device registers? */
bool efi_is_memory(uint64_t hpa, uint64_t size);
/* Leaves the firmware's boot services; *map is the final memory map. Dies rather than return a failure. */
void efi_exit_boot_services(struct span *map, size_t *desc_size);

/* efi_acpi.c */
uint64_t efi_find_rsdp(void); /* 0: none */
/* Opened once; NULL: no tables, or none that can be trusted. */
const struct acpi_tables *efi_acpi_tables(void);

/* efi_pci.c */
/* All PCI functions that the firmware's root bridges lead to; looked for once, nothing is written to them. */
const struct pci_inventory *efi_pci_scan(void);
/* A line for each that is not a part of the machine itself. */
void efi_pci_print(const struct pci_inventory *inv);

/* efi_cpus.c: fills cpus (BSP first) and answers where the knowledge comes from. */
const char *efi_find_cpus(struct boot_cpu *cpus, uint32_t *count);

/* efi_time.c */
uint64_t efi_tsc_hz(enum boot_tsc_source *source);
struct boot_wall_clock efi_wall_clock(void);

/* efi_video.c */
struct boot_framebuffer efi_framebuffer(void);

/* efi_preflight.c: fills what the CPU and the firmware say; the caller sets CPU and memory numbers. */
void efi_preflight_capture(struct preflight_input *in);
void efi_preflight_print(const struct preflight_row *rows, size_t count);

/* efi_switch.asm: one page of code that runs under both address spaces. */
extern const uint8_t efi_switch_page[];
_Noreturn void efi_switch(uint64_t cr3, uint64_t entry, uint64_t stack_top, uint64_t info_va);

/* The core, embedded: efi_core.asm. */
extern const uint8_t efi_core_begin[], efi_core_end[];
