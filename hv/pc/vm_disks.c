#include "hv/pc/vm_disks.h"
#include "drivers/vdev/ata.h"
#include "hv/core.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

#define ATA_PAGES ((sizeof(struct ata) + PAGE_SIZE - 1) / PAGE_SIZE)

/* The part of [at, at+*size) that lies in one page of the file's memory, through the window. The loader's and
 * the core's checks saw to it that the file is memory of nobody else's. */
static uint8_t *window(const struct boot_file *file, uint64_t at, size_t *size)
{
    uint64_t byte = file->hpa + at;
    size_t room = PAGE_SIZE - (byte & PAGE_MASK);
    HOST_ASSERT(at < file->size && *size <= file->size - at);
    if (*size > room)
        *size = room;
    return (uint8_t *)host_window(hpa(align_down(byte, PAGE_SIZE)), HOST_WINDOW_FILE) + (byte & PAGE_MASK);
}

static void disk_read(void *media, uint64_t at, void *buf, size_t size)
{
    uint8_t *to = buf;
    for (size_t n; size; at += n, to += n, size -= n) {
        n = size;
        const uint8_t *from = window(media, at, &n);
        memcpy(to, from, n);
    }
}

static void disk_write(void *media, uint64_t at, const void *buf, size_t size)
{
    const uint8_t *from = buf;
    for (size_t n; size; at += n, from += n, size -= n) {
        n = size;
        uint8_t *to = window(media, at, &n);
        memcpy(to, from, n);
    }
}

static const struct ata_media_ops media_ops = {.read = disk_read, .write = disk_write};

static void ports_moved(void *ctx, uint16_t from, uint16_t to)
{
    struct vm *vm = ctx;
    (void)bus_move_ports(&vm->bus, from, to, ATA_BM_SIZE, &vm->platform.ata->bm);
}

static enum status claim(struct vm *vm)
{
    static const struct {
        uint16_t first, count;
    } ports[] = {{ATA_PORT_0, ATA_COMMAND_SIZE},
                 {ATA_CONTROL_0, 1},
                 {ATA_PORT_1, ATA_COMMAND_SIZE},
                 {ATA_CONTROL_1, 1}};
    struct ata *ata = vm->platform.ata;
    enum status s = STATUS_OK;
    for (unsigned i = 0; i < ARRAY_SIZE(ports) && s == STATUS_OK; i++)
        s = bus_add_ports(&vm->bus, ports[i].first, ports[i].count, &ata->dev);
    if (s == STATUS_OK)
        s = pci_host_add(&vm->platform.pci, &ata->isa);
    return s == STATUS_OK ? pci_host_add(&vm->platform.pci, &ata->ide) : s;
}

enum status vm_disks_create(struct vm *vm, char *why, size_t why_size)
{
    const struct config_vm *config = vm->config;
    if (!config->disk_count && !vm_has_firmware(vm)) /* which waits long for a controller that every PC has */
        return STATUS_OK;
    struct ata *ata = vm->platform.ata = pool_alloc_pages(&core.pool, ATA_PAGES);
    if (!ata)
        return fmt_refuse(why, why_size, ERR_NO_MEMORY, "Bulkhead's own memory is used up");
    ata->moved = ports_moved;
    ata->moved_ctx = vm;
    ata_setup(ata, &media_ops);
    ata->bm = (struct vdev){.ops = &ata_bm_ops, .env = &vm->platform.env, .deadline_ns = VDEV_NEVER};
    for (uint32_t i = 0; i < config->disk_count; i++) {
        struct boot_file *file = &core.info->disks[vm->id][i];
        ata_add(ata, config->disks[i].position, config->disks[i].cdrom ? ATA_CDROM : ATA_DISK, file,
                file->size);
    }
    enum status s = claim(vm);
    if (s != STATUS_OK)
        return fmt_refuse(why, why_size, s, "its IDE controller cannot be placed: %s", status_name(s));
    platform_add(vm, &ata->dev, &ata_ops);
    return STATUS_OK;
}

void vm_disks_destroy(struct vm *vm)
{
    if (vm->platform.ata)
        (void)pool_free_pages(&core.pool, vm->platform.ata, ATA_PAGES);
    vm->platform.ata = NULL;
}
