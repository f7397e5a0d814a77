#include "hv/guest/linux.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/guest/e820.h"
#include "hv/lib/bytes.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"
#include "hv/vcpu.h"

/* Offsets in the setup header and in the zero page, which holds a copy of it at the same place ("The
 * Linux/x86 Boot Protocol", and struct boot_params). */
#define HDR_START           0x1f1u
#define HDR_SETUP_SECTS     0x1f1u
#define HDR_SYSSIZE         0x1f4u
#define HDR_VID_MODE        0x1fau
#define HDR_BOOT_FLAG       0x1feu
#define HDR_JUMP_LENGTH     0x201u
#define HDR_MAGIC           0x202u
#define HDR_VERSION         0x206u
#define HDR_TYPE_OF_LOADER  0x210u
#define HDR_LOADFLAGS       0x211u
#define HDR_CODE32_START    0x214u
#define HDR_RAMDISK_IMAGE   0x218u
#define HDR_RAMDISK_SIZE    0x21cu
#define HDR_CMD_LINE_PTR    0x228u
#define HDR_INITRD_ADDR_MAX 0x22cu
#define HDR_ALIGNMENT       0x230u
#define HDR_XLOADFLAGS      0x236u
#define HDR_CMDLINE_SIZE    0x238u
#define HDR_PREF_ADDRESS    0x258u
#define HDR_INIT_SIZE       0x260u
#define HDR_MIN_END         0x268u /* of protocol 2.12 */
#define HDR_MAX_END         0x290u /* the zero page uses what follows otherwise */

#define ZP_ACPI_RSDP    0x070u
#define ZP_E820_ENTRIES 0x1e8u
#define ZP_E820_TABLE   0x2d0u

#define BOOT_FLAG        0xaa55u
#define VERSION_MIN      0x020cu /* 2.12: the first that says whether it has a 64-bit entry */
#define LOADFLAGS_HIGH   0x01u
#define XLF_KERNEL_64    0x01u
#define SECTOR           512u
#define PARAGRAPH        16u /* of syssize */
#define LOADER_UNDEFINED 0xffu
#define VID_MODE_NORMAL  0xffffu
#define ENTRY_64         0x200u /* of the payload */
#define PLACE_MAX        ((uint64_t)1 << 40)

/* "64-bit Boot Protocol": __BOOT_CS and __BOOT_DS. */
#define BOOT_CS 0x10u
#define BOOT_DS 0x18u

/* What Bulkhead puts into low memory; all below GUEST_EBDA. */
#define LOW_PAGE_TABLES 0x2000u /* PML4, PDPT, four page directories */
#define LOW_STACK_TOP   0x9000u
#define LOW_CMDLINE     0x20000u
#define LOW_CMDLINE_MAX 0x10000u

/* "63.5 MiB", rounded up, so that a size never looks smaller than it is. */
static const char *size_text(char buf[24], uint64_t bytes)
{
    uint64_t tenths = bytes / (1u << 20) * 10 + (bytes % (1u << 20) * 10 + (1u << 20) - 1) / (1u << 20);
    fmt_format(buf, 24, "%lu.%lu MiB", tenths / 10, tenths % 10);
    return buf;
}

/* ---- what kind of file is it? ---- */

bool linux_has_mark(struct span head)
{
    return head.size >= HDR_VERSION && memcmp(head.data + HDR_MAGIC, "HdrS", 4) == 0 &&
           bytes_get16(head.data + HDR_BOOT_FLAG) == BOOT_FLAG;
}

static enum status check_abilities(const uint8_t *d, char *why, size_t why_size)
{
    uint32_t version = bytes_get16(d + HDR_VERSION);
    if (version < VERSION_MIN)
        return fmt_refuse(
            why, why_size, ERR_UNSUPPORTED,
            "too old a boot protocol: the kernel speaks %u.%02u, Bulkhead needs 2.12 (Linux 3.8 or later)",
            version >> 8, version & 0xff);
    if (!(d[HDR_LOADFLAGS] & LOADFLAGS_HIGH))
        return fmt_refuse(why, why_size, ERR_UNSUPPORTED,
                          "the kernel is a zImage, which loads below 1 MiB; a bzImage is needed");
    if (!(bytes_get16(d + HDR_XLOADFLAGS) & XLF_KERNEL_64))
        return fmt_refuse(why, why_size, ERR_UNSUPPORTED,
                          "the kernel is a 32-bit one (no 64-bit entry point); an amd64 kernel is needed");
    return STATUS_OK;
}

/* Places and sizes in the header. */
static enum status check_numbers(const struct linux_image *image, uint64_t file_size, uint64_t declared,
                                 char *why, size_t why_size)
{
    /* syssize counts paragraphs; the last one may be begun only, as in memtest86+ 6.10. */
    if (image->setup_size >= file_size || declared >= file_size - image->setup_size + PARAGRAPH)
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel file is truncated: its header promises %lu bytes, it has %lu",
                          image->setup_size + declared, file_size);
    bool placed = image->pref_address >= GUEST_ONE_MIB && image->pref_address < PLACE_MAX &&
                  (image->pref_address & PAGE_MASK) == 0;
    bool aligned = image->alignment >= PAGE_SIZE && (image->alignment & (image->alignment - 1)) == 0;
    if (!placed || !aligned || declared <= ENTRY_64 || declared > image->init_size)
        return fmt_refuse(
            why, why_size, ERR_INVALID,
            "the kernel's header is damaged: preferred address 0x%lx, alignment 0x%lx, %lu bytes of %lu",
            image->pref_address, image->alignment, declared, image->init_size);
    return STATUS_OK;
}

enum status linux_parse_image(struct span head, uint64_t file_size, struct linux_image *out, char *why,
                              size_t why_size)
{
    const uint8_t *d = head.data;
    memset(out, 0, sizeof(*out));
    if (!linux_has_mark(head))
        return fmt_refuse(why, why_size, ERR_INVALID, "the kernel is not a Linux bzImage (no \"HdrS\" mark)");
    uint64_t end = (uint64_t)HDR_MAGIC + d[HDR_JUMP_LENGTH];
    if (end > HDR_MAX_END)
        end = HDR_MAX_END;
    if (head.size < HDR_MIN_END || head.size < end)
        return fmt_refuse(why, why_size, ERR_INVALID,
                          "the kernel file is truncated: it ends within its setup header");
    enum status status = check_abilities(d, why, why_size);
    if (status != STATUS_OK)
        return status;
    if (end < HDR_MIN_END)
        end = HDR_MIN_END;
    uint32_t sectors = d[HDR_SETUP_SECTS] ? d[HDR_SETUP_SECTS] : 4; /* 0 means 4, for old times' sake */
    out->version = bytes_get16(d + HDR_VERSION);
    out->setup_size = (uint64_t)(sectors + 1) * SECTOR;
    out->pref_address = bytes_get64(d + HDR_PREF_ADDRESS);
    out->init_size = bytes_get32(d + HDR_INIT_SIZE);
    out->alignment = bytes_get32(d + HDR_ALIGNMENT);
    out->initrd_max = bytes_get32(d + HDR_INITRD_ADDR_MAX);
    out->cmdline_max = bytes_get32(d + HDR_CMDLINE_SIZE);
    out->header_size = (uint32_t)(end - HDR_START);
    memcpy(out->header, d + HDR_START, out->header_size);
    uint64_t declared = (uint64_t)bytes_get32(d + HDR_SYSSIZE) * PARAGRAPH;
    status = check_numbers(out, file_size, declared, why, why_size);
    if (status != STATUS_OK)
        return status;
    /* What follows the declared part (a checksum, a signature) is loaded as far as there is room for it. */
    out->payload_size = file_size - out->setup_size;
    if (out->payload_size > out->init_size)
        out->payload_size = declared;
    return STATUS_OK;
}

/* ---- placing ---- */

static enum status place_kernel(const struct linux_image *image, const struct guest_layout *layout,
                                struct linux_plan *out, char *why, size_t why_size)
{
    char need[24], have[24], from[24];
    /* A kernel that is loaded lower moves itself to its preferred address anyway. */
    uint64_t end = image->pref_address + image->init_size;
    if (end > layout->low_end)
        return fmt_refuse(
            why, why_size, ERR_RANGE,
            "the kernel does not fit: it needs %s from %s on, the VM has %s of memory; set memory = "
            "%luM or more",
            size_text(need, image->init_size), size_text(from, image->pref_address),
            size_text(have, layout->memory), align_up(end, PMEM_UNIT) >> 20);
    out->kernel = image->pref_address;
    out->kernel_end = end;
    out->payload_size = image->payload_size;
    out->setup_size = image->setup_size;
    return STATUS_OK;
}

/* As high as allowed; below the kernel when there is no room above it. */
static enum status place_initrd(const struct linux_image *image, const struct guest_layout *layout,
                                uint64_t size, struct linux_plan *out, char *why, size_t why_size)
{
    uint64_t end = layout->low_end;
    if (end > image->initrd_max)
        end = image->initrd_max + 1;
    uint64_t behind = align_up(out->kernel_end, PAGE_SIZE); /* may be above `end`, which a header gives */
    uint64_t above = end > behind ? end - behind : 0;
    uint64_t limit = end < out->kernel ? end : out->kernel;
    uint64_t below = limit > GUEST_ONE_MIB ? align_down(limit, PAGE_SIZE) - GUEST_ONE_MIB : 0;
    uint64_t want = align_up(size, PAGE_SIZE);
    out->initrd_size = size;
    if (size <= UINT32_MAX && want <= align_down(above, PAGE_SIZE)) {
        out->initrd = align_down(end, PAGE_SIZE) - want;
        return STATUS_OK;
    }
    if (size <= UINT32_MAX && want <= below) {
        out->initrd = GUEST_ONE_MIB + below - want;
        return STATUS_OK;
    }
    char a[24], b[24], c[24];
    return fmt_refuse(
        why, why_size, ERR_RANGE,
        "the initrd does not fit: it has %s, beside the kernel %s are free (VM memory %s, initrd "
        "below 0x%lx)",
        size_text(a, size), size_text(b, above > below ? above : below), size_text(c, layout->memory), end);
}

enum status linux_plan(const struct linux_image *image, const struct guest_layout *layout,
                       uint64_t initrd_size, uint64_t cmdline_length, struct linux_plan *out, char *why,
                       size_t why_size)
{
    memset(out, 0, sizeof(*out));
    out->layout = *layout;
    out->gdt = GUEST_BOOT_GDT;
    out->page_tables = LOW_PAGE_TABLES;
    out->boot_params = GUEST_BOOT_INFO;
    out->cmdline = LOW_CMDLINE;
    if (cmdline_length > image->cmdline_max || cmdline_length >= LOW_CMDLINE_MAX)
        return fmt_refuse(why, why_size, ERR_RANGE,
                          "the command line is too long: %lu bytes, this kernel takes %u", cmdline_length,
                          image->cmdline_max);
    enum status status = place_kernel(image, layout, out, why, why_size);
    if (status == STATUS_OK && initrd_size)
        status = place_initrd(image, layout, initrd_size, out, why, why_size);
    return status;
}

/* ---- loading ---- */

#define PTE_TABLE 0x003u /* present, writable */
#define PTE_2M    0x083u /* and a large page */
#define PTE_BATCH 64u

/* Identity map of the first 4 GiB with 2 MiB pages: one PML4, one PDPT, four directories. */
static void put_page_tables(struct guest_writer *w, uint64_t at)
{
    writer_put_value(w, at, (at + PAGE_SIZE) | PTE_TABLE, 8);
    for (uint64_t i = 0; i < 4; i++)
        writer_put_value(w, at + PAGE_SIZE + 8 * i, (at + (2 + i) * PAGE_SIZE) | PTE_TABLE, 8);
    uint64_t batch[PTE_BATCH];
    for (uint64_t i = 0; i < 4 * 512; i += PTE_BATCH) {
        for (uint64_t j = 0; j < PTE_BATCH; j++)
            batch[j] = (i + j) * SIZE_2M | PTE_2M;
        writer_put(w, at + 2 * PAGE_SIZE + 8 * i, batch, sizeof(batch));
    }
}

/* Flat 64-bit code and data, accessed, present, ring 0, at the selectors the boot protocol names. */
static const uint64_t boot_gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

static void put_zero_page(struct guest_writer *w, const struct linux_plan *plan,
                          const struct linux_image *image, gpa_t rsdp)
{
    uint64_t at = plan->boot_params;
    struct e820_entry map[E820_MAX];
    uint32_t entries = e820_build(&plan->layout, map);
    writer_put(w, at + HDR_START, image->header, image->header_size);
    writer_put_value(w, at + HDR_VID_MODE, VID_MODE_NORMAL, 2);
    writer_put_value(w, at + HDR_TYPE_OF_LOADER, LOADER_UNDEFINED, 1);
    writer_put_value(w, at + HDR_CODE32_START, plan->kernel, 4);
    writer_put_value(w, at + HDR_RAMDISK_IMAGE, plan->initrd, 4);
    writer_put_value(w, at + HDR_RAMDISK_SIZE, plan->initrd_size, 4);
    writer_put_value(w, at + HDR_CMD_LINE_PTR, plan->cmdline, 4);
    writer_put_value(w, at + ZP_ACPI_RSDP, rsdp.v, 8);
    writer_put_value(w, at + ZP_E820_ENTRIES, entries, 1);
    writer_put(w, at + ZP_E820_TABLE, map, entries * sizeof(map[0]));
}

enum status linux_load(const struct linux_plan *plan, const struct linux_image *image, const struct gmem *g,
                       const struct guest_source *kernel, const struct guest_source *initrd,
                       const char *cmdline, gpa_t rsdp)
{
    size_t length = str_length(cmdline);
    if (kernel->size < plan->setup_size || kernel->size - plan->setup_size < plan->payload_size ||
        length >= LOW_CMDLINE_MAX || (plan->initrd_size && (!initrd || initrd->size < plan->initrd_size)))
        return ERR_INVALID;
    struct guest_writer w = {g, STATUS_OK};
    writer_put_zeros(&w, 0, GUEST_VGA);
    entry_put_bios_data(&w);
    writer_put(&w, plan->gdt, boot_gdt, sizeof(boot_gdt));
    put_page_tables(&w, plan->page_tables);
    put_zero_page(&w, plan, image, rsdp);
    writer_put(&w, plan->cmdline, cmdline, length + 1);
    writer_put_source(&w, plan->kernel, kernel, plan->setup_size, plan->payload_size);
    if (plan->initrd_size)
        writer_put_source(&w, plan->initrd, initrd, 0, plan->initrd_size);
    return w.status;
}

void linux_entry_state(const struct linux_plan *plan, struct guest_entry *out)
{
    *out = (struct guest_entry){
        .rip = plan->kernel + ENTRY_64,
        .rsp = LOW_STACK_TOP,
        .rflags = RFLAGS_FIXED_1,
        .cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG,
        .cr3 = plan->page_tables,
        .cr4 = CR4_PAE,
        .efer = EFER_LME | EFER_LMA,
        .gdt_base = plan->gdt,
        .gdt_limit = sizeof(boot_gdt) - 1,
        .cs = BOOT_CS,
        .ds = BOOT_DS,
        .long_mode = true,
        .gpr = {[RSI] = plan->boot_params},
    };
}
