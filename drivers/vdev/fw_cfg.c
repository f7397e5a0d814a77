#include "drivers/vdev/fw_cfg.h"
#include "hv/lib/bits.h"
#include "hv/lib/string.h"

#define DATA_PORT (FW_CFG_PORT + 1)

#define KEY_SIGNATURE     0x00u
#define KEY_ID            0x01u
#define KEY_RAM_SIZE      0x03u
#define KEY_NB_CPUS       0x05u
#define KEY_MAX_CPUS      0x0fu
#define KEY_FILE_DIR      0x19u
#define KEY_FILE_FIRST    0x20u
#define KEY_IRQ0_OVERRIDE 0x8002u /* the PIT's IRQ 0 is at the IOAPIC's input 2, as on every PC */
#define KEY_WRITE         0x4000u /* "opened for writing", which has had no effect since QEMU 2.4 */

#define SIGNATURE      0x554d4551u /* "QEMU" */
#define ID_TRADITIONAL 0x1u        /* these two ports; bit 1 would be DMA */
#define ITEM_MAX       8u          /* bytes of the largest item that is a number */

/* The directory: the number of files, then for each its size, key, two zero bytes and name; big-endian. */
#define DIR_HEAD  4u
#define DIR_ENTRY (8u + FW_CFG_NAME_MAX)

static struct fw_cfg *fw_cfg_of(struct vdev *dev)
{
    return container_of(dev, struct fw_cfg, dev);
}

/* An item that is a number, lowest byte first; where there is none, zeros are read. */
static uint64_t number(const struct fw_cfg *f)
{
    switch (f->key) {
    case KEY_SIGNATURE:
        return SIGNATURE;
    case KEY_ID:
        return ID_TRADITIONAL;
    case KEY_RAM_SIZE:
        return f->ram_size;
    case KEY_NB_CPUS:
    case KEY_MAX_CPUS:
        return f->cpus;
    case KEY_IRQ0_OVERRIDE:
        return 1;
    default:
        return 0;
    }
}

/* Byte `at` of a big-endian number. */
static uint8_t big_endian(uint32_t value, unsigned bytes, uint32_t at)
{
    return (uint8_t)(value >> 8 * (bytes - 1 - at));
}

static uint8_t directory_byte(const struct fw_cfg *f, uint32_t at)
{
    if (at < DIR_HEAD)
        return big_endian(f->file_count, DIR_HEAD, at);
    uint32_t index = (at - DIR_HEAD) / DIR_ENTRY, in_entry = (at - DIR_HEAD) % DIR_ENTRY;
    if (index >= f->file_count)
        return 0;
    const struct fw_cfg_file *file = &f->files[index];
    if (in_entry < 4)
        return big_endian(file->size, 4, in_entry);
    if (in_entry < 6)
        return big_endian(KEY_FILE_FIRST + index, 2, in_entry - 4);
    if (in_entry < 8)
        return 0;
    size_t length = str_length(file->name);
    return in_entry - 8 < length && in_entry - 8 < FW_CFG_NAME_MAX - 1 ? (uint8_t)file->name[in_entry - 8]
                                                                       : 0;
}

/* Behind an item's end zeros are read. */
static uint8_t next_byte(struct fw_cfg *f)
{
    uint32_t file = (uint32_t)f->key - KEY_FILE_FIRST, at = f->offset;
    if (at != UINT32_MAX)
        f->offset++;
    if (f->key == KEY_FILE_DIR)
        return directory_byte(f, at);
    if (file < f->file_count)
        return at < f->files[file].size ? f->files[file].data[at] : 0;
    return at < ITEM_MAX ? (uint8_t)(number(f) >> 8 * at) : 0;
}

static void fw_cfg_access(struct vdev *dev, struct io_req *req)
{
    struct fw_cfg *f = fw_cfg_of(dev);
    if (req->write) {
        if (req->addr == FW_CFG_PORT && req->size == 2) {
            f->key = (uint16_t)(req->value & ~(uint64_t)KEY_WRITE);
            f->offset = 0;
        }
    } else if (req->addr == DATA_PORT && req->size == 1) {
        req->value = next_byte(f);
    } else {
        req->value = vdev_all_ones(req->size);
    }
}

static void fw_cfg_reset(struct vdev *dev)
{
    struct fw_cfg *f = fw_cfg_of(dev);
    f->key = KEY_SIGNATURE;
    f->offset = 0;
}

const struct vdev_ops fw_cfg_ops = {
    .name = "fw_cfg",
    .init = fw_cfg_reset,
    .reset = fw_cfg_reset,
    .access = fw_cfg_access,
};
