#include "drivers/vdev/fw_cfg.h"
#include "hv/lib/bits.h"

#define DATA_PORT (FW_CFG_PORT + 1)

#define KEY_SIGNATURE 0x00u
#define KEY_ID        0x01u
#define KEY_RAM_SIZE  0x03u
#define KEY_NB_CPUS   0x05u
#define KEY_MAX_CPUS  0x0fu
#define KEY_FILE_DIR  0x19u
#define KEY_WRITE     0x4000u /* "opened for writing", which has had no effect since QEMU 2.4 */

#define SIGNATURE      0x554d4551u /* "QEMU" */
#define ID_TRADITIONAL 0x1u        /* these two ports; bit 1 would be DMA */
#define ITEM_MAX       8u          /* bytes of the largest item */

static struct fw_cfg *fw_cfg_of(struct vdev *dev)
{
    return container_of(dev, struct fw_cfg, dev);
}

/* The item's bytes, lowest first; behind its end, and where there is none, zeros are read. */
static uint64_t item(const struct fw_cfg *f)
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
    case KEY_FILE_DIR: /* the number of files */
    default:
        return 0;
    }
}

static uint8_t next_byte(struct fw_cfg *f)
{
    if (f->offset >= ITEM_MAX)
        return 0;
    return (uint8_t)(item(f) >> 8 * f->offset++);
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
