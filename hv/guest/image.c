#include "hv/guest/image.h"
#include "drivers/vdev/testdev.h"
#include "hv/guest/elf.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

#define TEXT_SAMPLE 256u /* bytes looked at to tell text from other data */
#define NEEDED      "a Linux bzImage (vmlinuz), a Multiboot 1 or 2 or a PVH kernel is needed"

static bool begins_with(struct span head, const char *magic, size_t size)
{
    return head.size >= size && memcmp(head.data, magic, size) == 0;
}

static bool is_text(struct span head)
{
    for (size_t i = 0; i < head.size; i++) {
        uint8_t c = head.data[i];
        if ((c < ' ' && c != '\t' && c != '\n' && c != '\r') || c == 0x7f)
            return false;
    }
    return head.size > 0;
}

static const char *name_kind(struct span head)
{
    static const struct {
        const char *magic;
        size_t size;
        const char *is;
    } kinds[] = {
        {"\x7f"
         "ELF",
         4, "an ELF file without a Multiboot header in its first 8192 bytes or a PVH entry note"},
        {"\x1f\x8b", 2, "a gzip file"},
        {"\xfd"
         "7zXZ",
         5, "an xz file"},
        {"\x28\xb5\x2f\xfd", 4, "a zstd file"},
        {"BZh", 3, "a bzip2 file"},
        {"07070", 5, "a cpio archive (an initrd?)"},
        {"MZ", 2, "a PE/EFI application without a Linux header (a unified kernel image?)"},
    };
    STATIC_ASSERT(MULTIBOOT_SEARCH == 8192, "as the sentence says");

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (begins_with(head, kinds[i].magic, kinds[i].size))
            return kinds[i].is;
    return is_text(head) ? "a text file" : "of no known format";
}

enum status guest_recognise(const struct guest_source *kernel, enum guest_format *out, char *why,
                            size_t why_size)
{
    uint8_t bytes[LINUX_HEAD_SIZE];
    struct span head = {bytes, kernel->size < sizeof(bytes) ? (size_t)kernel->size : sizeof(bytes)};
    uint32_t at, at2;
    bool damaged2;

    if (kernel->size == 0)
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel file is empty");
    enum multiboot_found found = multiboot_find(kernel, &at);
    if (found == MULTIBOOT_UNREADABLE || !source_read(kernel, 0, bytes, head.size))
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel file cannot be read");
    /* A kernel that offers both is a Linux first: its own protocol tells it more. */
    if (linux_has_mark(head) || found == MULTIBOOT_HEADER) {
        *out = linux_has_mark(head) ? GUEST_LINUX : GUEST_MULTIBOOT;
        return STATUS_OK;
    }
    if (multiboot2_find(kernel, &at2, &damaged2)) {
        *out = GUEST_MULTIBOOT2;
        return STATUS_OK;
    }
    if (pvh_has_note(kernel)) {
        *out = GUEST_PVH;
        return STATUS_OK;
    }
    if (found == MULTIBOOT_BAD_CHECKSUM || damaged2)
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel's Multiboot%s header, at 0x%x of the file, has a wrong checksum",
                          damaged2 ? " 2" : "", damaged2 ? at2 : at);
    struct elf elf;
    enum status status = elf_open(kernel, &elf, why, why_size);
    if (status != STATUS_OK && status != ERR_NOT_FOUND)
        return status; /* whatever notes it has: nobody could load it */
    if (head.size > TEXT_SAMPLE)
        head.size = TEXT_SAMPLE;
    return fmt_refuse(why, why_size, ERR_INVALID, "the kernel is %s; " NEEDED, name_kind(head));
}

static enum status prepare_linux(const struct guest_files *files, const struct guest_layout *layout,
                                 struct guest_image *out, char *why, size_t why_size)
{
    uint8_t bytes[LINUX_HEAD_SIZE];
    const struct guest_source *kernel = &files->kernel;
    struct span head = {bytes, kernel->size < sizeof(bytes) ? (size_t)kernel->size : sizeof(bytes)};

    if (files->module_count)
        return fmt_refuse(
            why, why_size, ERR_UNSUPPORTED,
            "modules are for Multiboot and PVH kernels and this is a Linux: put what it needs into "
            "its initrd");
    if (!source_read(kernel, 0, bytes, head.size))
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel file cannot be read");
    enum status s = linux_parse_image(head, kernel->size, &out->bzimage.image, why, why_size);
    if (s != STATUS_OK)
        return s;
    return linux_plan(&out->bzimage.image, layout, files->initrd.size, str_length(files->cmdline),
                      &out->bzimage.plan, why, why_size);
}

static enum status prepare_multiboot(const struct guest_files *files, const struct guest_layout *layout,
                                     struct guest_image *out, char *why, size_t why_size)
{
    if (files->initrd.size)
        return fmt_refuse(why, why_size, ERR_UNSUPPORTED,
                          "this is a Multiboot kernel, which takes no initrd: write module = in its place");
    enum status s = out->format == GUEST_MULTIBOOT2
                        ? multiboot2_parse(&files->kernel, &out->multiboot.image, why, why_size)
                        : multiboot_parse(&files->kernel, &out->multiboot.image, why, why_size);
    if (s != STATUS_OK)
        return s;
    return multiboot_plan(&out->multiboot.image, layout, files->modules, files->module_count,
                          str_length(files->cmdline), &out->multiboot.plan, why, why_size);
}

/* The initrd is the first and only module, or modules are given one by one. */
static const struct multiboot_module *pvh_modules(const struct guest_files *files,
                                                  struct multiboot_module *initrd, uint32_t *count)
{
    *count = files->initrd.size ? 1 : files->module_count;
    if (!files->initrd.size)
        return files->modules;
    *initrd = (struct multiboot_module){.source = files->initrd};
    return initrd;
}

static enum status prepare_pvh(const struct guest_files *files, const struct guest_layout *layout,
                               struct guest_image *out, char *why, size_t why_size)
{
    struct multiboot_module initrd;
    uint32_t count;
    const struct multiboot_module *modules = pvh_modules(files, &initrd, &count);

    if (files->initrd.size && files->module_count)
        return fmt_refuse(why, why_size, ERR_UNSUPPORTED,
                          "a PVH kernel's first module is its initrd: write initrd = or module =");
    enum status s = pvh_parse(&files->kernel, &out->multiboot.image, why, why_size);
    if (s != STATUS_OK)
        return s;
    return multiboot_plan(&out->multiboot.image, layout, modules, count, str_length(files->cmdline),
                          &out->multiboot.plan, why, why_size);
}

static enum status prepare_raw(const struct guest_files *files, struct guest_image *out, char *why,
                               size_t why_size)
{
    out->format = GUEST_RAW;
    out->load = files->load;
    if (files->initrd.size || files->module_count || files->cmdline[0])
        return fmt_refuse(
            why, why_size, ERR_UNSUPPORTED,
            "a raw image (load =) takes no initrd, modules or command line: it would not know where "
            "they are");
    return raw_check(&files->kernel, files->load, why, why_size);
}

uint32_t guest_flash_max(const struct config_vm *vm)
{
    if (!vm->firmware)
        return 0;
    /* pc-testdev's memory at 0xff000000 lies where the largest images would begin. */
    return (uint32_t)(FIRMWARE_MAX - (vm->compat == COMPAT_QEMU ? TESTDEV_RAM_SIZE : 0));
}
STATIC_ASSERT(TESTDEV_RAM == GUEST_FOUR_GIB - FIRMWARE_MAX, "the test device lies at the very bottom");

static enum status prepare_firmware(const struct guest_files *files, struct guest_image *out, char *why,
                                    size_t why_size)
{
    out->format = GUEST_FIRMWARE;
    if (files->initrd.size || files->module_count || files->cmdline[0] || files->load)
        return fmt_refuse(why, why_size, ERR_UNSUPPORTED,
                          "a firmware takes no load address, initrd, modules or command line: what it starts "
                          "is on a disk");
    return firmware_check(files->kernel.size, files->flash_max, why, why_size);
}

enum status guest_prepare(const struct guest_files *files, const struct guest_layout *layout,
                          struct guest_image *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof(*out));
    out->layout = *layout;
    if (files->flash_max)
        return prepare_firmware(files, out, why, why_size);
    if (files->load)
        return prepare_raw(files, out, why, why_size);
    enum status s = guest_recognise(&files->kernel, &out->format, why, why_size);
    if (s != STATUS_OK)
        return s;
    if (out->format == GUEST_PVH)
        return prepare_pvh(files, layout, out, why, why_size);
    return out->format == GUEST_LINUX ? prepare_linux(files, layout, out, why, why_size)
                                      : prepare_multiboot(files, layout, out, why, why_size);
}

void guest_module_string(const struct config_module *module, char out[MULTIBOOT_STRING_MAX])
{
    memset(out, 0, MULTIBOOT_STRING_MAX);
    fmt_format(out, MULTIBOOT_STRING_MAX, module->args[0] ? "%s %s" : "%s", module->path, module->args);
}

enum status guest_load(const struct guest_image *image, const struct guest_files *files, const struct gmem *g,
                       gpa_t rsdp)
{
    const struct multiboot_plan *plan = &image->multiboot.plan;
    const struct multiboot_image *elf = &image->multiboot.image;
    const struct multiboot_module *modules;
    struct multiboot_module initrd;
    uint32_t count;

    switch (image->format) {
    case GUEST_LINUX:
        return linux_load(&image->bzimage.plan, &image->bzimage.image, g, &files->kernel,
                          files->initrd.size ? &files->initrd : NULL, files->cmdline, rsdp);
    case GUEST_RAW:
        return raw_load(&files->kernel, image->load, g);
    case GUEST_PVH:
        modules = pvh_modules(files, &initrd, &count);
        return pvh_load(plan, elf, g, &files->kernel, modules, files->cmdline, rsdp);
    case GUEST_MULTIBOOT2:
        return multiboot2_load(plan, elf, g, &files->kernel, files->modules, files->cmdline);
    case GUEST_MULTIBOOT:
        return multiboot_load(plan, elf, g, &files->kernel, files->modules, files->cmdline);
    case GUEST_FIRMWARE:
        return STATUS_OK; /* hv/pc/flash.h shows it to the guest */
    }
    return ERR_INVALID;
}

enum status guest_put_rsdp(const struct guest_image *image, const struct gmem *g, gpa_t rsdp)
{
    return image->format == GUEST_MULTIBOOT2 ? multiboot2_put_rsdp(g, rsdp) : STATUS_OK;
}

void guest_entry(const struct guest_image *image, struct guest_entry *out)
{
    switch (image->format) {
    case GUEST_LINUX:
        linux_entry_state(&image->bzimage.plan, out);
        return;
    case GUEST_RAW:
        raw_entry_state(image->load, out);
        return;
    case GUEST_PVH:
        pvh_entry_state(&image->multiboot.image, out);
        return;
    case GUEST_MULTIBOOT2:
        multiboot2_entry_state(&image->multiboot.image, out);
        return;
    case GUEST_MULTIBOOT:
        multiboot_entry_state(&image->multiboot.image, out);
        return;
    case GUEST_FIRMWARE:
        *out = (struct guest_entry){.reset_vector = true};
        return;
    }
}
