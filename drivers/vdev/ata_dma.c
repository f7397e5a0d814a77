/* The bus master of the IDE controller: SFF-8038i, "Programming Interface for Bus Master IDE Controller". The
 * table of regions is the guest's: each entry is read once, and the regions are checked where they are used.
 */
#include "drivers/vdev/ata_internal.h"
#include "hv/lib/bytes.h"

#define BM_COMMAND 0u
#define BM_STATUS  2u
#define BM_TABLE   4u /* .. 7 */
#define BM_CHANNEL 8u /* ports of a channel */

#define COMMAND_START   0x01u
#define COMMAND_TO_HOST 0x08u /* "Read or Write Control": the bus master writes to memory */
#define STATUS_CAPABLE  0x60u /* both units; for software to keep notes in */
#define TABLE_MASK      0xfffffffcu
#define PRD_SIZE        8u
#define PRD_LAST        0x80000000u
#define PRD_BYTES       0xfffeu /* 0: 64 KiB */
#define PRD_ADDRESS     0xfffffffeu
#define REGION_MAX      0x10000u

/* What one slice may cost, in bytes moved; to read an entry of the table counts as so many. */
#define SLICE      0x10000u
#define ENTRY_COST 512u

static bool direction_is_right(const struct ata_channel *c)
{
    bool to_host = (c->bm_command & COMMAND_TO_HOST) != 0;
    return c->flow.kind == (to_host ? ATA_FLOW_IN : ATA_FLOW_OUT);
}

static bool can_run(const struct ata *ata, const struct ata_channel *c)
{
    return (c->bm_status & ATA_BM_ACTIVE) && c->flow.dma && direction_is_right(c) && ata_is_bus_master(ata);
}

static void fault(struct ata_channel *c)
{
    c->bm_status = (uint8_t)((c->bm_status & ~ATA_BM_ACTIVE) | ATA_BM_ERROR);
}

static bool next_region(struct ata *ata, struct ata_channel *c)
{
    uint8_t entry[PRD_SIZE];
    const struct vdev_env *env = ata->dev.env;
    if (env->gmem_read(env->ctx, gpa(c->prd_at), entry, sizeof(entry)) != STATUS_OK)
        return false;
    uint32_t size = bytes_get32(entry + 4);
    c->prd_at += PRD_SIZE;
    c->region_at = bytes_get32(entry) & PRD_ADDRESS;
    c->region_left = size & PRD_BYTES ? size & PRD_BYTES : REGION_MAX;
    c->prd_last = (size & PRD_LAST) != 0;
    return true;
}

/* As much as region and buffer hold. */
static bool move(struct ata *ata, struct ata_channel *c, uint32_t n)
{
    const struct vdev_env *env = ata->dev.env;
    uint8_t *at = c->buffer + c->flow.pos;
    enum status s = c->flow.kind == ATA_FLOW_IN ? env->gmem_write(env->ctx, gpa(c->region_at), at, n)
                                                : env->gmem_read(env->ctx, gpa(c->region_at), at, n);
    if (s != STATUS_OK)
        return false;
    c->region_at += n;
    c->region_left -= n;
    if (!c->region_left && c->prd_last)
        c->bm_status &= (uint8_t)~ATA_BM_ACTIVE; /* before the unit's interrupt */
    ata_moved(ata, c, n);
    return true;
}

void ata_dma_run(struct ata *ata, struct ata_channel *c)
{
    uint32_t cost = 0;
    while (cost < SLICE && can_run(ata, c)) {
        if (!c->region_left) {
            cost += ENTRY_COST;
            if (!next_region(ata, c)) {
                fault(c);
                return;
            }
        }
        uint32_t n = c->flow.fill - c->flow.pos;
        n = n < c->region_left ? n : c->region_left;
        cost += n;
        if (!move(ata, c, n)) {
            fault(c);
            return;
        }
    }
    if (can_run(ata, c))
        vdev_set_timer(&ata->dev, vdev_now(&ata->dev));
}

static void write_command(struct ata *ata, struct ata_channel *c, uint8_t value)
{
    bool was = (c->bm_command & COMMAND_START) != 0, start = (value & COMMAND_START) != 0;
    c->bm_command = value & (COMMAND_START | COMMAND_TO_HOST);
    if (start && !was) {
        c->prd_at = c->bm_table;
        c->region_left = 0;
        c->bm_status |= ATA_BM_ACTIVE;
        ata_dma_run(ata, c);
    } else if (!start) { /* a transfer that was stopped cannot go on */
        c->bm_status &= (uint8_t)~ATA_BM_ACTIVE;
    }
}

static uint8_t bm_read(const struct ata *ata, unsigned offset)
{
    const struct ata_channel *c = &ata->channel[offset / BM_CHANNEL];
    offset %= BM_CHANNEL;
    if (offset >= BM_TABLE)
        return (uint8_t)(c->bm_table >> 8 * (offset - BM_TABLE));
    return offset == BM_COMMAND ? c->bm_command : offset == BM_STATUS ? c->bm_status : 0;
}

static void bm_write(struct ata *ata, unsigned offset, uint8_t value)
{
    struct ata_channel *c = &ata->channel[offset / BM_CHANNEL];
    offset %= BM_CHANNEL;
    if (offset >= BM_TABLE) {
        unsigned shift = 8 * (offset - BM_TABLE);
        c->bm_table = ((c->bm_table & ~(0xffu << shift)) | (uint32_t)value << shift) & TABLE_MASK;
    } else if (offset == BM_COMMAND) {
        write_command(ata, c, value);
    } else if (offset == BM_STATUS) {
        uint8_t kept = c->bm_status & (uint8_t) ~(STATUS_CAPABLE | (value & (ATA_BM_ERROR | ATA_BM_INTR)));
        c->bm_status = (uint8_t)(kept | (value & STATUS_CAPABLE));
    }
}

static void bm_access(struct vdev *dev, struct io_req *req)
{
    struct ata *ata = container_of(dev, struct ata, bm);
    uint64_t offset = req->addr - ata->bm_port;
    if (req->size != 1)
        vdev_split_bytes(dev, req);
    else if (!ata->bm_port || offset >= ATA_BM_SIZE)
        req->value = UINT8_MAX;
    else if (req->write)
        bm_write(ata, (unsigned)offset, (uint8_t)req->value);
    else
        req->value = bm_read(ata, (unsigned)offset);
}

const struct vdev_ops ata_bm_ops = {
    .name = "ata-dma",
    .init = vdev_keep,
    .reset = vdev_keep,
    .access = bm_access,
};
