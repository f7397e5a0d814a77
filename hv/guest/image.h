/* A guest's files, whatever their format: recognised, placed, and loaded. vm.c, the loader and the offline
 * checker know only this, so that all three refuse the same files with the same sentence. */
#pragma once

#include "hv/guest/entry.h"
#include "hv/guest/firmware.h"
#include "hv/guest/linux.h"
#include "hv/guest/multiboot.h"
#include "hv/guest/multiboot2.h"
#include "hv/guest/pvh.h"
#include "hv/guest/raw.h"

enum guest_format { GUEST_LINUX, GUEST_MULTIBOOT, GUEST_MULTIBOOT2, GUEST_PVH, GUEST_RAW, GUEST_FIRMWARE };

/* A VM's pristine files. */
struct guest_files {
    struct guest_source kernel, initrd; /* initrd.size 0: none */
    uint32_t module_count;
    struct multiboot_module modules[CONFIG_MAX_MODULES];
    const char *cmdline;
    uint32_t load; /* the kernel is a raw real-mode image for this address; 0: it says itself what it is */
    uint32_t flash_max; /* the kernel is a firmware, of at most so many bytes; 0: it is none */
};

/* What was found in them, and where everything goes. */
struct guest_image {
    enum guest_format format;
    struct guest_layout layout;
    union {
        struct {
            struct linux_image image;
            struct linux_plan plan;
        } bzimage; /* GUEST_LINUX */
        struct {
            struct multiboot_image image;
            struct multiboot_plan plan;
        } multiboot;   /* GUEST_MULTIBOOT, GUEST_MULTIBOOT2, GUEST_PVH */
        uint32_t load; /* GUEST_RAW */
    };
};

/* `flash_max` of a VM's files. */
uint32_t guest_flash_max(const struct config_vm *vm);

/* What kind of kernel is it? ERR_INVALID with a sentence in `why` that names what was found instead. Only the
 * header is looked for; what it says is checked by guest_prepare(). */
enum status guest_recognise(const struct guest_source *kernel, enum guest_format *out, char *why,
                            size_t why_size);

/* Recognises the kernel, checks it, and places everything in the layout. Files may have only their sizes but
 * for the kernel. ERR_* with a sentence in `why`. */
enum status guest_prepare(const struct guest_files *files, const struct guest_layout *layout,
                          struct guest_image *out, char *why, size_t why_size);

/* What a module is known by: "PATH ARGS", the string a Multiboot guest gets with it. */
void guest_module_string(const struct config_module *module, char out[MULTIBOOT_STRING_MAX]);

/* Loads what guest_prepare() placed; `rsdp` as in linux_load(). Can be repeated. */
enum status guest_load(const struct guest_image *image, const struct guest_files *files, const struct gmem *g,
                       gpa_t rsdp);

/* The ACPI tables are in memory now, the RSDP at `rsdp`: what needs a copy of it gets it. */
enum status guest_put_rsdp(const struct guest_image *image, const struct gmem *g, gpa_t rsdp);

/* How vCPU 0 begins. */
void guest_entry(const struct guest_image *image, struct guest_entry *out);
