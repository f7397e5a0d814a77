/* Random accesses to the IDE controller, in guest memory that holds a table of regions: nothing is read or
 * written outside a unit, BSY and DRQ are never set together, DRQ is there exactly while a data phase is, no
 * access does more than a slice of work, and after a reset a disk answers as ever and holds what the oracle
 * holds. */
#include <string.h>
#include "drivers/vdev/ata.h"
#include "tests/host/fake_vdev_env.h"

#define SECTORS    64u
#define CD_SECTORS 16u
#define WORK_MAX   (0x10000u + ATA_BUFFER)

static struct fake_vdev_env fake;
static struct ata ata;
static struct media {
    uint8_t data[CD_SECTORS * ATA_CD_SECTOR];
    uint64_t size;
    bool writable;
} media[3];
static uint64_t work; /* bytes moved since the last access began */
static uint16_t bm_at;

static void media_read(void *ctx, uint64_t at, void *buf, size_t size)
{
    const struct media *m = ctx;
    FAKE_REQUIRE(at <= m->size && size <= m->size - at && size <= ATA_BUFFER);
    memcpy(buf, m->data + at, size);
    work += size;
}

static void media_write(void *ctx, uint64_t at, const void *buf, size_t size)
{
    struct media *m = ctx;
    FAKE_REQUIRE(m->writable && at <= m->size && size <= m->size - at && size <= ATA_BUFFER);
    memcpy(m->data + at, buf, size);
    work += size;
}

static const struct ata_media_ops media_ops = {media_read, media_write};

static void moved(void *ctx, uint16_t from, uint16_t to)
{
    FAKE_REQUIRE(from == bm_at && to != from && (to & (ATA_BM_SIZE - 1)) == 0);
    bm_at = to;
}

static void start(void)
{
    static const enum ata_kind kinds[] = {ATA_DISK, ATA_CDROM, ATA_DISK};
    static const uint8_t positions[] = {0, 1, 2};
    fake_vdev_env_init(&fake);
    memset(&ata, 0, sizeof(ata));
    memset(media, 0, sizeof(media));
    bm_at = 0;
    ata.moved = moved;
    ata.bm = (struct vdev){.ops = &ata_bm_ops, .env = &fake.env};
    ata_setup(&ata, &media_ops);
    for (unsigned i = 0; i < 3; i++) {
        media[i].writable = kinds[i] == ATA_DISK;
        media[i].size = kinds[i] == ATA_DISK ? SECTORS * ATA_SECTOR : CD_SECTORS * ATA_CD_SECTOR;
        ata_add(&ata, positions[i], kinds[i], &media[i], media[i].size);
    }
    fake_attach(&fake, &ata.dev, &ata_ops);
}

static void check(void)
{
    FAKE_REQUIRE(work <= WORK_MAX);
    for (unsigned i = 0; i < ATA_CHANNELS; i++) {
        const struct ata_channel *c = &ata.channel[i];
        const struct ata_flow *f = &c->flow;
        for (unsigned j = 0; j < 2; j++) {
            uint8_t status = c->unit[j].status;
            bool drq = (status & 0x08) != 0;
            FAKE_REQUIRE(!drq || !(status & 0x80));
            FAKE_REQUIRE(drq == (f->kind != ATA_FLOW_NONE && j == c->selected));
            FAKE_REQUIRE(c->unit[j].kind || !c->unit[j].intrq);
        }
        const struct ata_unit *unit = &c->unit[c->selected];
        FAKE_REQUIRE(fake.level[14 + i] == (unit->intrq && !(c->control & 2)));
        if (f->kind == ATA_FLOW_NONE)
            continue;
        FAKE_REQUIRE(f->pos < f->fill && f->fill <= ATA_BUFFER && f->block > 0);
        FAKE_REQUIRE(f->block <= f->left + f->fill - f->pos);
        FAKE_REQUIRE(!f->media || f->at + f->fill + f->left <= ((struct media *)unit->media)->size);
        FAKE_REQUIRE(!c->region_left || c->region_left <= 0x10000);
    }
}

/* Mostly commands that do something, and addresses that are there. */
static void task(struct fake_input *in)
{
    static const uint8_t commands[] = {0x20, 0x30, 0x24, 0x34, 0xc4, 0xc5, 0xc8, 0xca, 0x25, 0x35,
                                       0xec, 0xa0, 0xa0, 0xa1, 0xc6, 0x91, 0xef, 0x08, 0x90, 0x42};
    uint8_t how = fake_input_u8(in), base_bits = fake_input_u8(in);
    uint16_t base = how & 1 ? ATA_PORT_1 : ATA_PORT_0;
    fake_out(&ata.dev, base + 6, (uint8_t)(0x40 | (base_bits & 0x10)));
    fake_out(&ata.dev, base + 1, base_bits & 1);
    for (unsigned reg = 2; reg < 6; reg++) {
        uint8_t value = fake_input_u8(in);
        fake_out(&ata.dev, base + reg, how & 0x80 ? 0 : value & 1);
        fake_out(&ata.dev, base + reg, reg > 3 ? value & (uint8_t)(how & 2 ? 0xff : 0) : value);
    }
    fake_out(&ata.dev, base + 7, commands[(how >> 2) % sizeof(commands)]);
}

static void packet(struct fake_input *in)
{
    static const uint8_t codes[] = {0x00, 0x03, 0x12, 0x1b, 0x1e, 0x25, 0x28,
                                    0x28, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8};
    uint8_t bytes[12] = {0};
    bytes[0] = codes[fake_input_u8(in) % sizeof(codes)];
    for (unsigned i = 1; i < 12; i++)
        bytes[i] = fake_input_u8(in) & (i > 1 && i < 5 ? 0x1f : 0xff);
    for (unsigned i = 0; i < 12; i += 2)
        fake_write(&ata.dev, ATA_PORT_0, 2, bytes[i] | (uint64_t)bytes[i + 1] << 8);
}

static void table(struct fake_input *in)
{
    uint64_t v = fake_input_u64(in);
    memcpy(fake.memory + (v >> 48 & 0xf8), &(uint64_t){v & 0x8000ffff0000ffffull}, 8);
}

static void access_any(struct fake_input *in)
{
    static const uint16_t ports[] = {0x1f0, 0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f6, 0x1f7, 0x3f6, 0x170,
                                     0x171, 0x172, 0x173, 0x174, 0x175, 0x176, 0x177, 0x376, 0xffff};
    uint8_t how = fake_input_u8(in), port = fake_input_u8(in);
    unsigned size = 1u << (how & 3) % 3;
    struct vdev *dev = how & 4 ? &ata.bm : &ata.dev;
    uint64_t at = how & 4 ? (uint64_t)bm_at + port % 20 : ports[port % (sizeof(ports) / 2)];
    if (how & 8)
        fake_write(dev, at, size, fake_input_u64(in) & vdev_all_ones(size));
    else
        (void)fake_read(dev, at, size);
}

static void pci(struct fake_input *in)
{
    uint8_t reg = fake_input_u8(in);
    uint64_t v = fake_input_u64(in);
    static const uint8_t regs[] = {0x04, 0x20, 0x40, 0x44, 0x3c};
    struct pci_func *func = reg & 0x80 ? &ata.isa : &ata.ide;
    func->write(func, regs[reg % sizeof(regs)], (uint32_t)v, (uint32_t)(v >> 32));
    (void)func->read(func, reg & 0x3c);
}

static void data(struct fake_input *in)
{
    uint8_t how = fake_input_u8(in);
    uint16_t port = how & 1 ? ATA_PORT_1 : ATA_PORT_0;
    for (unsigned i = 0; i < (unsigned)(how >> 2) * 8; i++) {
        work = 0;
        if (how & 2)
            fake_write(&ata.dev, port, 2, how * i);
        else
            (void)fake_read(&ata.dev, port, 2);
        check();
    }
}

/* The timer, with a slice for each channel. The next one may be due at once, which fake_jump() forbids. */
static void slices(void)
{
    ata.dev.deadline_ns = VDEV_NEVER;
    ata_ops.timer(&ata.dev, fake.now_ns);
    FAKE_REQUIRE(work <= 2 * WORK_MAX);
    FAKE_REQUIRE(ata.dev.deadline_ns == VDEV_NEVER || ata.dev.deadline_ns == fake.now_ns);
    work = 0;
}

static void step(struct fake_input *in)
{
    uint8_t what = fake_input_u8(in) % 8;
    work = 0;
    if (what == 0)
        task(in);
    else if (what == 1)
        packet(in);
    else if (what == 2)
        table(in);
    else if (what == 3)
        pci(in);
    else if (what == 4)
        data(in);
    else if (what == 5 && ata.dev.deadline_ns != VDEV_NEVER)
        slices();
    else
        access_any(in);
}

static void check_answers(void)
{
    static const uint8_t wanted = 0x5c;
    ata_ops.reset(&ata.dev);
    for (unsigned write = 2; write--;) {
        fake_out(&ata.dev, 0x1f6, 0x40);
        fake_out(&ata.dev, 0x1f2, 1);
        fake_out(&ata.dev, 0x1f3, 63);
        fake_out(&ata.dev, 0x1f4, 0);
        fake_out(&ata.dev, 0x1f5, 0);
        fake_out(&ata.dev, 0x1f7, write ? 0x30 : 0x20);
        FAKE_REQUIRE(fake_in(&ata.dev, 0x3f6) == 0x58);
        for (unsigned i = 0; i < 256; i++) {
            if (write)
                fake_write(&ata.dev, 0x1f0, 2, wanted * i);
            else
                FAKE_REQUIRE(fake_read(&ata.dev, 0x1f0, 2) == wanted * i);
        }
        FAKE_REQUIRE(fake_in(&ata.dev, 0x3f6) == 0x50);
        FAKE_REQUIRE(fake.level[14]); /* for the block that was ready, or taken */
        (void)fake_in(&ata.dev, 0x1f7);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct fake_input in = {.data = input, .size = size};
    start();
    while (fake_input_left(&in)) {
        step(&in);
        check();
    }
    check_answers();
    return 0;
}
