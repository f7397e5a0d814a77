/* The commands of an ATA disk: ATA/ATAPI-6, general feature set, power management, 48-bit addresses. */
#include "drivers/vdev/ata_internal.h"
#include "hv/lib/bytes.h"

#define MULTIPLE_MAX  16u /* sectors of a block */
#define HEADS         16u /* 6.2: what a disk says before it was told otherwise */
#define TRACK         63u /* sectors */
#define CYLINDERS_MAX 16383u
#define CYLINDERS_SET 65535u /* that a translation can have */
#define LBA28_SECTORS 0x0fffffffull
#define LBA28_COUNT   256u
#define LBA48_COUNT   65536u
#define POWER_ACTIVE  0xffu
#define POWER_STANDBY 0x00u

enum disk_action {
    DISK_ABORT,
    DISK_READ,
    DISK_WRITE,
    DISK_VERIFY,
    DISK_NOTHING, /* done at once */
    DISK_SEEK,
    DISK_PARAMETERS,
    DISK_SET_MULTIPLE,
    DISK_STANDBY,
    DISK_IDLE,
    DISK_CHECK_POWER,
    DISK_IDENTIFY,
    DISK_FEATURES,
};
enum { MULTIPLE = 1, DMA = 2, EXT = 4 };

static const struct disk_row {
    uint8_t first, last; /* codes */
    uint8_t action;
    uint8_t how;
} rows[] = {
    {0x10, 0x1f, DISK_NOTHING, 0}, /* RECALIBRATE, of older standards */
    {0x20, 0x21, DISK_READ, 0},
    {0x24, 0x24, DISK_READ, EXT},
    {0x25, 0x25, DISK_READ, DMA | EXT},
    {0x29, 0x29, DISK_READ, MULTIPLE | EXT},
    {0x30, 0x31, DISK_WRITE, 0},
    {0x34, 0x34, DISK_WRITE, EXT},
    {0x35, 0x35, DISK_WRITE, DMA | EXT},
    {0x39, 0x39, DISK_WRITE, MULTIPLE | EXT},
    {0x40, 0x41, DISK_VERIFY, 0},
    {0x42, 0x42, DISK_VERIFY, EXT},
    {0x70, 0x7f, DISK_SEEK, 0},
    {0x91, 0x91, DISK_PARAMETERS, 0},
    {0x94, 0x94, DISK_STANDBY, 0},
    {0x95, 0x95, DISK_IDLE, 0},
    {0x96, 0x96, DISK_STANDBY, 0},
    {0x97, 0x97, DISK_IDLE, 0},
    {0x98, 0x98, DISK_CHECK_POWER, 0},
    {0x99, 0x99, DISK_STANDBY, 0}, /* SLEEP: what wakes it is also what software does then */
    {0xc4, 0xc4, DISK_READ, MULTIPLE},
    {0xc5, 0xc5, DISK_WRITE, MULTIPLE},
    {0xc6, 0xc6, DISK_SET_MULTIPLE, 0},
    {0xc8, 0xc9, DISK_READ, DMA},
    {0xca, 0xcb, DISK_WRITE, DMA},
    {0xe0, 0xe0, DISK_STANDBY, 0},
    {0xe1, 0xe1, DISK_IDLE, 0},
    {0xe2, 0xe2, DISK_STANDBY, 0},
    {0xe3, 0xe3, DISK_IDLE, 0},
    {0xe5, 0xe5, DISK_CHECK_POWER, 0},
    {0xe6, 0xe6, DISK_STANDBY, 0},
    {0xe7, 0xe7, DISK_NOTHING, 0}, /* FLUSH CACHE: what was written is in memory */
    {0xea, 0xea, DISK_NOTHING, 0}, /* FLUSH CACHE EXT */
    {0xec, 0xec, DISK_IDENTIFY, 0},
    {0xef, 0xef, DISK_FEATURES, 0},
};

static const struct disk_row *find(uint8_t command)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (command >= rows[i].first && command <= rows[i].last)
            return &rows[i];
    return NULL;
}

static void translate(struct ata_unit *unit, uint8_t heads, uint8_t sectors, uint32_t max)
{
    uint64_t cylinders = unit->sectors / (heads * sectors);
    unit->u.disk.heads = heads;
    unit->u.disk.sectors = sectors;
    unit->u.disk.cylinders = (uint16_t)(cylinders == 0 ? 1 : cylinders < max ? cylinders : max);
}

void ata_disk_reset(struct ata_unit *unit)
{
    unit->u.disk.write_cache = unit->u.disk.look_ahead = true;
    unit->u.disk.standby = false;
    unit->u.disk.multiple = 0;
    translate(unit, HEADS, TRACK, CYLINDERS_MAX);
}

/* ---- addresses ---- */

struct range {
    uint64_t lba;
    uint32_t count; /* sectors */
};

static uint64_t lba_bytes(const uint8_t *reg)
{
    return bytes_get(reg + ATA_LBA_LOW, 3);
}

static void put_lba(struct ata_unit *unit, bool ext, uint64_t lba)
{
    for (unsigned i = 0; i < 3; i++) {
        unit->reg[ATA_LBA_LOW + i] = (uint8_t)(lba >> 8 * i);
        if (ext)
            unit->hob[ATA_LBA_LOW + i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    if (!ext)
        unit->reg[ATA_DEVICE] = (uint8_t)((unit->reg[ATA_DEVICE] & ~ATA_HEAD) | (lba >> 24 & ATA_HEAD));
}

/* By cylinder, head and sector (from 1) of the translation. */
static bool chs_to_lba(const struct ata_unit *unit, uint64_t *lba)
{
    uint32_t cylinder = bytes_get16(unit->reg + ATA_LBA_MID);
    uint32_t head = unit->reg[ATA_DEVICE] & ATA_HEAD, sector = unit->reg[ATA_LBA_LOW];
    if (cylinder >= unit->u.disk.cylinders || head >= unit->u.disk.heads || sector == 0 ||
        sector > unit->u.disk.sectors)
        return false;
    *lba = ((uint64_t)cylinder * unit->u.disk.heads + head) * unit->u.disk.sectors + sector - 1;
    return true;
}

/* What the registers name. False: part of it is not on the disk; they then hold the first such address. */
static bool take_range(struct ata_unit *unit, bool ext, struct range *r)
{
    bool chs = !ext && !(unit->reg[ATA_DEVICE] & ATA_DEVICE_LBA);
    r->count = unit->reg[ATA_COUNT] | (ext ? (uint32_t)unit->hob[ATA_COUNT] << 8 : 0);
    if (!r->count)
        r->count = ext ? LBA48_COUNT : LBA28_COUNT;
    r->lba = lba_bytes(unit->reg) |
             (ext ? lba_bytes(unit->hob) << 24 : (uint64_t)(unit->reg[ATA_DEVICE] & ATA_HEAD) << 24);
    if (chs && !chs_to_lba(unit, &r->lba))
        return false;
    if (r->lba < unit->sectors && r->count <= unit->sectors - r->lba)
        return true;
    if (r->lba < unit->sectors && !chs)
        put_lba(unit, ext, unit->sectors);
    return false;
}

/* ---- commands ---- */

static void transfer(struct ata *ata, struct ata_channel *c, const struct disk_row *row)
{
    struct ata_unit *unit = ata_selected(c);
    uint32_t block = row->how & MULTIPLE ? unit->u.disk.multiple : 1;
    struct range r;
    if (!block) {
        ata_end(ata, c, ATA_ERROR_ABRT);
        return;
    }
    unit->u.disk.standby = false;
    if (!take_range(unit, (row->how & EXT) != 0, &r)) {
        ata_end(ata, c, ATA_ERROR_IDNF);
        return;
    }
    if (row->action == DISK_VERIFY) {
        ata_end(ata, c, 0);
        return;
    }
    ata_begin(ata, c,
              (struct ata_phase){.kind = row->action == DISK_READ ? ATA_FLOW_IN : ATA_FLOW_OUT,
                                 .dma = (row->how & DMA) != 0,
                                 .media = true,
                                 .at = r.lba * ATA_SECTOR,
                                 .size = (uint64_t)r.count * ATA_SECTOR,
                                 .block_max = block * ATA_SECTOR});
}

/* 8.15: what this disk is and can do. */
static void identify(struct ata *ata, struct ata_channel *c)
{
    const struct ata_unit *unit = ata_selected(c);
    uint64_t cylinders = unit->sectors / (HEADS * TRACK);
    uint32_t translated = (uint32_t)unit->u.disk.cylinders * unit->u.disk.heads * unit->u.disk.sectors;
    uint32_t lba28 = (uint32_t)(unit->sectors < LBA28_SECTORS ? unit->sectors : LBA28_SECTORS);
    uint16_t cache = (uint16_t)(unit->u.disk.write_cache << 5 | unit->u.disk.look_ahead << 6);
    uint8_t sum = 0;
    ata_identify_common(ata, c, "Bulkhead RAM disk");
    ata_put_word(c, 0, 0x0040); /* a fixed disk */
    ata_put_word(c, 1,
                 (uint16_t)(cylinders == 0              ? 1
                            : cylinders < CYLINDERS_MAX ? cylinders
                                                        : CYLINDERS_MAX));
    ata_put_word(c, 3, HEADS);
    ata_put_word(c, 6, TRACK);
    ata_put_word(c, 47, 0x8000 | MULTIPLE_MAX);
    ata_put_word(c, 50, 0x4000);
    ata_put_word(c, 54, unit->u.disk.cylinders);
    ata_put_word(c, 55, unit->u.disk.heads);
    ata_put_word(c, 56, unit->u.disk.sectors);
    ata_put_word(c, 57, (uint16_t)translated);
    ata_put_word(c, 58, (uint16_t)(translated >> 16));
    ata_put_word(c, 59, unit->u.disk.multiple ? 0x0100 | unit->u.disk.multiple : 0);
    ata_put_word(c, 60, (uint16_t)lba28);
    ata_put_word(c, 61, (uint16_t)(lba28 >> 16));
    ata_put_word(c, 82, 0x4068); /* NOP, look-ahead, write cache, power management */
    ata_put_word(c, 83, 0x7400); /* FLUSH CACHE (EXT), 48-bit addresses */
    ata_put_word(c, 84, 0x4000);
    ata_put_word(c, 85, 0x4008 | cache);
    ata_put_word(c, 86, 0x3400);
    ata_put_word(c, 87, 0x4000);
    for (unsigned i = 0; i < 4; i++)
        ata_put_word(c, 100 + i, (uint16_t)(unit->sectors >> 16 * i));
    c->buffer[510] = 0xa5; /* 8.15.61: the sum of all bytes is 0 */
    for (unsigned i = 0; i < ATA_SECTOR - 1; i++)
        sum += c->buffer[i];
    c->buffer[511] = (uint8_t)-sum;
    ata_begin(ata, c, (struct ata_phase){.kind = ATA_FLOW_IN, .size = ATA_SECTOR, .block_max = ATA_SECTOR});
}

/* INITIALIZE DEVICE PARAMETERS, of ATA-5: another translation. */
static bool set_parameters(struct ata_unit *unit)
{
    if (!unit->reg[ATA_COUNT])
        return false;
    translate(unit, (uint8_t)((unit->reg[ATA_DEVICE] & ATA_HEAD) + 1), unit->reg[ATA_COUNT], CYLINDERS_SET);
    return true;
}

/* 8.39; 0 turns the commands off. */
static bool set_multiple(struct ata_unit *unit)
{
    uint8_t sectors = unit->reg[ATA_COUNT];
    if (sectors > MULTIPLE_MAX || (sectors & (sectors - 1)))
        return false;
    unit->u.disk.multiple = sectors;
    return true;
}

static bool set_features(struct ata_unit *unit)
{
    switch (unit->reg[ATA_FEATURES]) {
    case 0x02:
    case 0x82:
        unit->u.disk.write_cache = unit->reg[ATA_FEATURES] == 0x02;
        return true;
    case 0xaa:
    case 0x55:
        unit->u.disk.look_ahead = unit->reg[ATA_FEATURES] == 0xaa;
        return true;
    case 0x66: /* a software reset changes no settings, which is how it is anyway */
        return true;
    default:
        return ata_set_transfer_mode(unit);
    }
}

static bool seek(struct ata_unit *unit)
{
    struct range r;
    unit->reg[ATA_COUNT] = 1;
    return take_range(unit, false, &r);
}

void ata_disk_command(struct ata *ata, struct ata_channel *c, uint8_t command)
{
    const struct disk_row *row = find(command);
    struct ata_unit *unit = ata_selected(c);
    uint8_t error = 0;
    switch (row ? row->action : DISK_ABORT) {
    case DISK_READ:
    case DISK_WRITE:
    case DISK_VERIFY:
        transfer(ata, c, row);
        return;
    case DISK_IDENTIFY:
        identify(ata, c);
        return;
    case DISK_NOTHING:
        break;
    case DISK_SEEK:
        error = seek(unit) ? 0 : ATA_ERROR_IDNF;
        break;
    case DISK_PARAMETERS:
        error = set_parameters(unit) ? 0 : ATA_ERROR_ABRT;
        break;
    case DISK_SET_MULTIPLE:
        error = set_multiple(unit) ? 0 : ATA_ERROR_ABRT;
        break;
    case DISK_FEATURES:
        error = set_features(unit) ? 0 : ATA_ERROR_ABRT;
        break;
    case DISK_STANDBY:
    case DISK_IDLE:
        unit->u.disk.standby = row->action == DISK_STANDBY;
        break;
    case DISK_CHECK_POWER:
        unit->reg[ATA_COUNT] = unit->u.disk.standby ? POWER_STANDBY : POWER_ACTIVE;
        break;
    default:
        error = ATA_ERROR_ABRT;
    }
    ata_end(ata, c, error);
}
