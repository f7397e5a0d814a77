/* The IDE controller against ATA/ATAPI-6, SFF-8038i, MMC-3 and the PIIX3's data sheet: a disk as primary
 * master, a CD-ROM drive as secondary master, and whatever a test adds. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/vdev/ata.h"
#include "hv/lib/bits.h"
#include "tests/host/fake_vdev_env.h"

#define BASE    ATA_PORT_0
#define CD_BASE ATA_PORT_1
#define CTRL    ATA_CONTROL_0
#define CD_CTRL ATA_CONTROL_1
#define BM      ATA_BM_PORT

enum { DATA, FEATURES, COUNT, LOW, MID, HIGH, DEVICE, COMMAND, ERROR = FEATURES, STATUS = COMMAND };
#define READY 0x50 /* of a disk */
#define ASKS  0x58
#define BAD   0x51
#define ABRT  0x04
#define IDNF  0x10

#define SECTORS    4000u /* 3 cylinders of 16 * 63, and a rest */
#define CD_SECTORS 100u

static struct fake_vdev_env fake;
static struct ata ata;
static struct vdev *dev = &ata.dev;
static uint8_t disk[SECTORS * 512], second[512], cd[CD_SECTORS * 2048];
static struct media {
    uint8_t *data;
    size_t size;
} media[3] = {{disk, sizeof(disk)}, {cd, sizeof(cd)}, {second, sizeof(second)}};
static unsigned reads, writes;
static uint16_t moved_from, moved_to;

static void media_read(void *ctx, uint64_t at, void *buf, size_t size)
{
    const struct media *m = ctx;
    FAKE_REQUIRE(at <= m->size && size <= m->size - at && size <= ATA_BUFFER);
    memcpy(buf, m->data + at, size);
    reads++;
}

static void media_write(void *ctx, uint64_t at, const void *buf, size_t size)
{
    const struct media *m = ctx;
    FAKE_REQUIRE(m != &media[1] && at <= m->size && size <= m->size - at && size <= ATA_BUFFER);
    memcpy(m->data + at, buf, size);
    writes++;
}

static const struct ata_media_ops media_ops = {media_read, media_write};

static void moved(void *ctx, uint16_t from, uint16_t to)
{
    moved_from = from;
    moved_to = to;
}

static int setup_with(bool slave)
{
    srand(1);
    reads = writes = 0;
    for (size_t i = 0; i < sizeof(disk); i++)
        disk[i] = (uint8_t)rand();
    for (size_t i = 0; i < sizeof(cd); i++)
        cd[i] = (uint8_t)rand();
    fake_vdev_env_init(&fake);
    memset(&ata, 0, sizeof(ata));
    ata.moved = moved;
    ata.bm = (struct vdev){.ops = &ata_bm_ops, .env = &fake.env};
    ata_setup(&ata, &media_ops);
    ata_add(&ata, 0, ATA_DISK, &media[0], sizeof(disk));
    ata_add(&ata, 2, ATA_CDROM, &media[1], sizeof(cd));
    if (slave)
        ata_add(&ata, 1, ATA_DISK, &media[2], sizeof(second));
    fake_attach(&fake, dev, &ata_ops);
    ata.bm.ops->init(&ata.bm);
    return 0;
}

static int setup(void **state)
{
    return setup_with(false);
}

static int setup_slave(void **state)
{
    return setup_with(true);
}

/* ---- helpers ---- */

static void lba28(uint32_t lba, uint8_t count, uint8_t command)
{
    fake_out(dev, BASE + DEVICE, (uint8_t)(0xe0 | lba >> 24));
    fake_out(dev, BASE + COUNT, count);
    fake_out(dev, BASE + LOW, (uint8_t)lba);
    fake_out(dev, BASE + MID, (uint8_t)(lba >> 8));
    fake_out(dev, BASE + HIGH, (uint8_t)(lba >> 16));
    fake_out(dev, BASE + COMMAND, command);
}

static void lba48(uint64_t lba, uint16_t count, uint8_t command)
{
    fake_out(dev, BASE + DEVICE, 0x40);
    for (unsigned half = 0; half < 2; half++) {
        unsigned shift = half ? 0 : 24;
        fake_out(dev, BASE + COUNT, (uint8_t)(half ? count : count >> 8));
        fake_out(dev, BASE + LOW, (uint8_t)(lba >> shift));
        fake_out(dev, BASE + MID, (uint8_t)(lba >> (shift + 8)));
        fake_out(dev, BASE + HIGH, (uint8_t)(lba >> (shift + 16)));
    }
    fake_out(dev, BASE + COMMAND, command);
}

static void chs(uint16_t cylinder, uint8_t head, uint8_t sector, uint8_t count, uint8_t command)
{
    fake_out(dev, BASE + DEVICE, 0xa0 | head);
    fake_out(dev, BASE + COUNT, count);
    fake_out(dev, BASE + LOW, sector);
    fake_out(dev, BASE + MID, (uint8_t)cylinder);
    fake_out(dev, BASE + HIGH, (uint8_t)(cylinder >> 8));
    fake_out(dev, BASE + COMMAND, command);
}

static void feature(uint8_t feature_code, uint8_t count)
{
    fake_out(dev, BASE + FEATURES, feature_code);
    fake_out(dev, BASE + COUNT, count);
    fake_out(dev, BASE + COMMAND, 0xef);
}

/* The interrupt is there; reading Status ends it and shows `status`. */
static void expect_interrupt(uint8_t status)
{
    assert_true(fake.level[14]);
    assert_int_equal(fake_in(dev, CTRL), status);
    assert_true(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + STATUS), status);
    assert_false(fake.level[14]);
}

static void expect_error(uint8_t error)
{
    expect_interrupt(error ? BAD : READY);
    assert_int_equal(fake_in(dev, BASE + ERROR), error);
}

static void pio_in(uint16_t base, uint8_t *to, size_t size, unsigned width)
{
    for (size_t i = 0; i < size; i += width) {
        uint64_t v = fake_read(dev, base + DATA, width);
        memcpy(to + i, &v, width);
    }
}

static void pio_out(uint16_t base, const uint8_t *from, size_t size, unsigned width)
{
    for (size_t i = 0; i < size; i += width) {
        uint64_t v = 0;
        memcpy(&v, from + i, width);
        fake_write(dev, base + DATA, width, v);
    }
}

static uint16_t words[256];

static void identify(void)
{
    fake_out(dev, BASE + COMMAND, 0xec);
    expect_interrupt(ASKS);
    pio_in(BASE, (uint8_t *)words, sizeof(words), 2);
    assert_false(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + STATUS), READY);
}

/* ---- the disk ---- */

static void test_power_on(void **state)
{
    assert_int_equal(fake_in(dev, BASE + STATUS), READY);
    assert_int_equal(fake_in(dev, BASE + ERROR), 1);
    for (unsigned reg = COUNT; reg <= DEVICE; reg++)
        assert_int_equal(fake_in(dev, BASE + reg), reg <= LOW ? 1 : 0);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0);
    static const uint8_t signature[] = {1, 1, 0x14, 0xeb, 0};
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(fake_in(dev, CD_BASE + COUNT + i), signature[i]);
    assert_false(fake.level[14] || fake.level[15]);
}

/* 9.16: the only unit of a channel answers for the other one, with a Status of 0. */
static void test_absent_slave(void **state)
{
    fake_out(dev, BASE + DEVICE, 0xb0);
    assert_int_equal(fake_in(dev, BASE + STATUS), 0);
    assert_int_equal(fake_in(dev, CTRL), 0);
    fake_out(dev, BASE + COUNT, 0x55);
    assert_int_equal(fake_in(dev, BASE + COUNT), 0x55);
    fake_out(dev, BASE + COMMAND, 0xec);
    assert_false(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + STATUS), 0);
    fake_out(dev, BASE + COMMAND, 0x90); /* this one is unit 0's as well */
    assert_true(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + DEVICE), 0);
    assert_int_equal(fake_in(dev, BASE + STATUS), READY);
}

static void test_empty_channel_floats(void **state)
{
    ata_add(&ata, 2, ATA_NONE, NULL, 0);
    for (unsigned reg = FEATURES; reg <= STATUS; reg++)
        assert_int_equal(fake_in(dev, CD_BASE + reg), 0x7f); /* BSY is pulled down */
    assert_int_equal(fake_in(dev, CD_CTRL), 0x7f);
    fake_out(dev, CD_BASE + COMMAND, 0x90);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x7f);
    assert_false(fake.level[15]);
}

static void test_identify(void **state)
{
    uint8_t sum = 0;
    identify();
    static const struct {
        unsigned word;
        uint16_t value;
    } table[] = {{0, 0x0040},  {1, 3},        {3, 16},      {6, 63},      {47, 0x8010},   {49, 0x0f00},
                 {53, 3},      {54, 3},       {55, 16},     {56, 63},     {57, 3024},     {58, 0},
                 {59, 0},      {60, SECTORS}, {61, 0},      {63, 7},      {64, 3},        {80, 0x78},
                 {82, 0x4068}, {83, 0x7400},  {85, 0x4068}, {86, 0x3400}, {100, SECTORS}, {101, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (words[table[i].word] != table[i].value)
            fail_msg("word %u is 0x%x and not 0x%x", table[i].word, words[table[i].word], table[i].value);
    assert_int_equal(words[27], 'B' << 8 | 'u');
    assert_int_equal(words[10], 'B' << 8 | 'H');
    for (unsigned i = 0; i < 512; i++)
        sum += ((uint8_t *)words)[i];
    assert_int_equal(sum, 0);
}

/* 28 bits of sectors is all that the old words can say, 16383 cylinders what old software can. */
static void test_identify_sizes(void **state)
{
    ata.channel[0].unit[0].sectors = 0x123456789aull;
    ata_ops.reset(dev);
    identify();
    assert_int_equal(words[1], 16383);
    assert_int_equal(words[60] | words[61] << 16, 0x0fffffff);
    assert_int_equal(words[100] | (uint64_t)words[101] << 16 | (uint64_t)words[102] << 32, 0x123456789aull);
    ata.channel[0].unit[0].sectors = 5;
    ata_ops.reset(dev);
    identify();
    assert_int_equal(words[1], 1);
}

/* Each way to read, and to write, the same sectors. */
static const struct way {
    uint8_t code;
    bool ext, multiple;
} read_ways[] = {{0x20, 0, 0}, {0x21, 0, 0}, {0x24, 1, 0}, {0xc4, 0, 1}, {0x29, 1, 1}},
  write_ways[] = {{0x30, 0, 0}, {0x31, 0, 0}, {0x34, 1, 0}, {0xc5, 0, 1}, {0x39, 1, 1}};

static void begin(const struct way *way, uint64_t lba, uint16_t count)
{
    if (way->ext)
        lba48(lba, count, way->code);
    else
        lba28((uint32_t)lba, (uint8_t)count, way->code);
}

static void set_multiple(uint8_t count)
{
    fake_out(dev, BASE + COUNT, count);
    fake_out(dev, BASE + COMMAND, 0xc6);
}

static void test_pio_reads(void **state)
{
    static uint8_t got[40 * 512];
    set_multiple(8);
    expect_error(0);
    for (unsigned i = 0; i < ARRAY_SIZE(read_ways); i++) {
        const unsigned count = 21, block = read_ways[i].multiple ? 8 : 1;
        begin(&read_ways[i], 1234, count);
        for (unsigned done = 0; done < count; done += block) { /* 9.5: an interrupt for each block */
            unsigned n = count - done < block ? count - done : block;
            expect_interrupt(ASKS);
            pio_in(BASE, got + done * 512, n * 512, i % 2 ? 2 : 4);
        }
        assert_memory_equal(got, disk + 1234 * 512, count * 512);
        assert_false(fake.level[14]);
        assert_int_equal(fake_in(dev, BASE + STATUS), READY);
        assert_int_equal(fake_read(dev, BASE + DATA, 2), 0); /* nothing follows */
    }
}

static void test_pio_writes(void **state)
{
    static uint8_t data[40 * 512];
    set_multiple(4);
    expect_error(0);
    for (unsigned i = 0; i < ARRAY_SIZE(write_ways); i++) {
        const unsigned count = 21, block = write_ways[i].multiple ? 4 : 1;
        for (size_t j = 0; j < sizeof(data); j++)
            data[j] = (uint8_t)rand();
        begin(&write_ways[i], 77 + i, count);
        assert_false(fake.level[14]); /* 9.6: the first block is asked for without an interrupt */
        for (unsigned done = 0; done < count; done += block) {
            unsigned n = count - done < block ? count - done : block;
            assert_int_equal(fake_in(dev, CTRL), ASKS);
            pio_out(BASE, data + done * 512, n * 512, i % 2 ? 4 : 2);
            expect_interrupt(done + n < count ? ASKS : READY);
        }
        assert_memory_equal(disk + (77 + i) * 512, data, count * 512);
    }
}

static void test_counts(void **state)
{
    lba28(0, 0, 0x20); /* 0 means 256 */
    for (unsigned i = 0; i < 256; i++) {
        expect_interrupt(ASKS);
        for (unsigned j = 0; j < 128; j++)
            assert_int_equal(fake_read(dev, BASE, 4), *(uint32_t *)(disk + i * 512 + j * 4));
    }
    assert_int_equal(fake_in(dev, CTRL), READY);
    lba48(0, 0, 0x42); /* 65536 are more than there are */
    expect_error(IDNF);
    lba48(0, SECTORS, 0x42);
    expect_error(0);
}

static void test_addresses(void **state)
{
    static const struct {
        uint64_t lba;
        uint16_t count;
        uint8_t code, error;
        bool ext;
        uint32_t where; /* what the registers say then */
    } table[] = {{0, 1, 0x40, 0, false, 0},
                 {SECTORS - 1, 1, 0x41, 0, false, SECTORS - 1},
                 {SECTORS, 1, 0x40, IDNF, false, SECTORS},
                 {SECTORS - 2, 3, 0x20, IDNF, false, SECTORS},
                 {SECTORS - 2, 3, 0x30, IDNF, false, SECTORS},
                 {SECTORS - 2, 3, 0xc8, IDNF, false, SECTORS},
                 {0xfffffff, 1, 0x40, IDNF, false, 0xfffffff},
                 {SECTORS - 1, 1, 0x42, 0, true, SECTORS - 1},
                 {SECTORS - 2, 3, 0x24, IDNF, true, SECTORS},
                 {SECTORS - 2, 3, 0x35, IDNF, true, SECTORS},
                 {0x1000000, 1, 0x42, IDNF, true, 0x1000000},
                 {0xfffffff, 1, 0x70, IDNF, false, 0xfffffff},
                 {7, 200, 0x75, 0, false, 7}};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (table[i].ext)
            lba48(table[i].lba, table[i].count, table[i].code);
        else
            lba28((uint32_t)table[i].lba, (uint8_t)table[i].count, table[i].code);
        expect_error(table[i].error);
        uint32_t where = fake_in(dev, BASE + LOW) | (uint32_t)fake_in(dev, BASE + MID) << 8 |
                         (uint32_t)fake_in(dev, BASE + HIGH) << 16;
        if (!table[i].ext)
            where |= (uint32_t)(fake_in(dev, BASE + DEVICE) & 0xf) << 24;
        fake_out(dev, CTRL, 0x80); /* HOB */
        if (table[i].ext)
            where |= (uint32_t)fake_in(dev, BASE + LOW) << 24;
        fake_out(dev, CTRL, 0);
        if (where != table[i].where)
            fail_msg("row %u: 0x%x", i, where);
    }
    assert_int_equal(reads + writes, 0);
}

static void test_hob(void **state)
{
    for (unsigned reg = COUNT; reg <= HIGH; reg++) {
        fake_out(dev, BASE + reg, (uint8_t)(0x10 + reg));
        fake_out(dev, BASE + reg, (uint8_t)(0x20 + reg));
    }
    fake_out(dev, CTRL, 0x80);
    for (unsigned reg = COUNT; reg <= HIGH; reg++)
        assert_int_equal(fake_in(dev, BASE + reg), 0x10 + reg);
    fake_out(dev, BASE + FEATURES, 0); /* any write to the command block ends it */
    for (unsigned reg = COUNT; reg <= HIGH; reg++)
        assert_int_equal(fake_in(dev, BASE + reg), 0x20 + reg);
}

static void expect_sector(uint32_t lba)
{
    uint8_t got[512];
    expect_interrupt(ASKS);
    pio_in(BASE, got, 512, 2);
    assert_memory_equal(got, disk + lba * 512, 512);
}

static void test_cylinders(void **state)
{
    chs(0, 0, 1, 1, 0x20);
    expect_sector(0);
    chs(2, 15, 63, 1, 0x20);
    expect_sector(3023);
    static const uint8_t bad[][3] = {{0, 0, 0}, {0, 0, 64}, {3, 0, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        chs(bad[i][0], bad[i][1], bad[i][2], 1, 0x20);
        expect_error(IDNF);
    }
    chs(0, 3, 0, 10, 0x91); /* 4 heads of 10 sectors */
    expect_error(0);
    chs(99, 3, 10, 1, 0x20);
    expect_sector(3999);
    chs(99, 4, 1, 1, 0x20);
    expect_error(IDNF);
    chs(99, 3, 10, 2, 0x20); /* runs off the end */
    expect_error(IDNF);
    identify();
    assert_int_equal(words[54], 100);
    assert_int_equal(words[55], 4);
    assert_int_equal(words[56], 10);
    assert_int_equal(words[57], 4000);
    assert_int_equal(words[1], 3); /* the default stays */
    chs(0, 3, 0, 0, 0x91);
    expect_error(ABRT);
}

/* Commands without data, by code. */
static void test_plain_commands(void **state)
{
    static const uint8_t good[] = {0x10, 0x1f, 0x94, 0x95, 0x96, 0x97, 0x99,
                                   0xe0, 0xe1, 0xe2, 0xe3, 0xe6, 0xe7, 0xea},
                         bad[] = {0x00, 0x08, 0xa0, 0xa1, 0xb0, 0xf8, 0xe4, 0x26, 0xc4, 0x39, 0xff};
    for (unsigned i = 0; i < sizeof(good); i++) {
        fake_out(dev, BASE + COMMAND, good[i]);
        expect_error(0);
    }
    for (unsigned i = 0; i < sizeof(bad); i++) { /* C4 and 39: before SET MULTIPLE */
        lba28(1, 1, bad[i]);
        expect_error(ABRT);
    }
}

static void test_power(void **state)
{
    static const struct {
        uint8_t code, then;
    } table[] = {{0xe0, 0}, {0xe1, 0xff}, {0xe2, 0}, {0xe3, 0xff}, {0x40, 0xff}};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        lba28(0, 1, table[i].code);
        expect_error(0);
        fake_out(dev, BASE + COMMAND, i % 2 ? 0x98 : 0xe5);
        expect_error(0);
        assert_int_equal(fake_in(dev, BASE + COUNT), table[i].then);
    }
}

static void test_settings(void **state)
{
    static const struct {
        uint8_t feature, count, error;
    } table[] = {{0x03, 0x00, 0},    {0x03, 0x01, 0},    {0x03, 0x02, ABRT}, {0x03, 0x08, 0},
                 {0x03, 0x0c, 0},    {0x03, 0x0d, ABRT}, {0x03, 0x10, ABRT}, {0x03, 0x22, 0},
                 {0x03, 0x23, ABRT}, {0x03, 0x40, ABRT}, {0x82, 0, 0},       {0x55, 0, 0},
                 {0x05, 1, ABRT},    {0x66, 0, 0},       {0xcc, 0, ABRT}};
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        feature(table[i].feature, table[i].count);
        expect_error(table[i].error);
    }
    identify();
    assert_int_equal(words[63], 0x0407); /* multiword DMA 2 is active */
    assert_int_equal(words[85], 0x4008); /* both caches are off */
    feature(0x02, 0);
    expect_error(0);
    feature(0xaa, 0);
    expect_error(0);
    identify();
    assert_int_equal(words[85], 0x4068);
    static const struct {
        uint8_t count, error;
        uint16_t word;
    } multiple[] = {{16, 0, 0x110}, {32, ABRT, 0x110}, {3, ABRT, 0x110}, {1, 0, 0x101}, {0, 0, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(multiple); i++) {
        set_multiple(multiple[i].count);
        expect_error(multiple[i].error);
        identify();
        assert_int_equal(words[59], multiple[i].word);
    }
}

/* ---- interrupts and resets ---- */

static void test_nien(void **state)
{
    fake_out(dev, CTRL, 0x02);
    lba28(0, 1, 0x40);
    assert_false(fake.level[14]);
    fake_out(dev, CTRL, 0x00); /* it was pending */
    assert_true(fake.level[14]);
    fake_out(dev, CTRL, 0x02);
    assert_false(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + STATUS), READY);
    fake_out(dev, CTRL, 0x00);
    assert_false(fake.level[14]);
    lba28(0, 1, 0x40);
    assert_true(fake.level[14]);
    fake_out(dev, BASE + COMMAND, 0x00); /* a command ends the last one's interrupt, here with its own */
    assert_int_equal(fake.rises[14], 3);
}

static void test_two_units(void **state)
{
    lba28(0, 1, 0x40);
    assert_true(fake.level[14]);
    fake_out(dev, BASE + DEVICE, 0xf0); /* the line is the selected unit's */
    assert_false(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + STATUS), READY);
    fake_out(dev, BASE + DEVICE, 0xe0);
    assert_true(fake.level[14]);
    expect_interrupt(READY);
    fake_out(dev, BASE + DEVICE, 0xf0);
    identify();
    assert_int_equal(words[60], 1);
    assert_int_equal(words[11] >> 8, '1'); /* its serial number is another one */
    fake_out(dev, BASE + LOW, 0);
    fake_out(dev, BASE + COUNT, 1);
    fake_out(dev, BASE + COMMAND, 0x30);
    pio_out(BASE, disk, 512, 2);
    expect_interrupt(READY);
    assert_memory_equal(second, disk, 512);
    fake_out(dev, BASE + COMMAND, 0x90); /* both do it, unit 0 is selected then */
    expect_interrupt(READY);
    assert_int_equal(fake_in(dev, BASE + DEVICE), 0);
    assert_int_equal(fake_in(dev, BASE + ERROR), 1);
}

static void test_software_reset(void **state)
{
    lba28(5, 2, 0x20); /* DRQ and an interrupt are pending */
    fake_out(dev, BASE + COUNT, 0x77);
    assert_int_equal(fake_in(dev, BASE + COUNT), 2); /* 7.1: not taken while DRQ is set */
    fake_out(dev, BASE + COMMAND, 0x40);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
    fake_out(dev, CTRL, 0x04);
    assert_false(fake.level[14]);
    assert_int_equal(fake_in(dev, BASE + STATUS), 0x80);
    lba28(9, 9, 0x40);
    assert_int_equal(fake_in(dev, BASE + STATUS), 0x80);
    fake_out(dev, CTRL, 0x00);
    test_power_on(state);
    assert_int_equal(fake_read(dev, BASE + DATA, 2), 0);
}

static void test_widths(void **state)
{
    fake_write(dev, BASE + COUNT, 2, 0x3412); /* two bytes */
    assert_int_equal(fake_in(dev, BASE + COUNT), 0x12);
    assert_int_equal(fake_in(dev, BASE + LOW), 0x34);
    assert_int_equal(fake_read(dev, BASE + COUNT, 2), 0x3412);
    fake_out(dev, BASE + COMMAND, 0xec);
    assert_int_equal(fake_in(dev, BASE + DATA), 0xff); /* data is not moved by bytes */
    assert_int_equal(fake_read(dev, BASE + DATA, 2), 0x0040);
}

/* ---- bus master ---- */

static void prd(unsigned index, uint32_t at, uint32_t size, bool last)
{
    uint32_t entry[2] = {at, (size & 0xffff) | (last ? 0x80000000u : 0)};
    memcpy(fake.memory + 0x1000 + 8 * index, entry, 8);
}

static uint64_t bm_read(unsigned offset, unsigned size)
{
    return fake_read(&ata.bm, BM + offset, size);
}

static void bm_write(unsigned offset, unsigned size, uint64_t value)
{
    fake_write(&ata.bm, BM + offset, size, value);
}

static void start(bool to_host)
{
    bm_write(4, 4, 0x1000);
    bm_write(2, 1, 0x06);
    bm_write(0, 1, to_host ? 0x08 : 0);
    bm_write(0, 1, to_host ? 0x09 : 1);
}

static void test_dma(void **state)
{
    static const uint8_t codes[] = {0xc8, 0xc9, 0x25, 0xca, 0xcb, 0x35};
    prd(0, 0x2000, 6, false); /* regions that divide sectors */
    prd(1, 0x3000, 1018, false);
    prd(2, 0x4000, 512, true);
    for (unsigned i = 0; i < sizeof(codes); i++) {
        bool to_host = i < 3;
        static uint8_t was[1536];
        memset(fake.memory + 0x2000, (int)(0x40 + i), 0x3000);
        memcpy(was, disk + 100 * 512, sizeof(was));
        if (codes[i] == 0x25 || codes[i] == 0x35)
            lba48(100, 3, codes[i]);
        else
            lba28(100, 3, codes[i]);
        assert_int_equal(fake_in(dev, CTRL), ASKS);
        assert_false(fake.level[14]);
        assert_int_equal(fake_read(dev, BASE + DATA, 2), 0); /* no data by PIO meanwhile */
        start(to_host);
        assert_int_equal(bm_read(2, 1) & 7, 4); /* interrupt, not active: regions and data are equal */
        expect_interrupt(READY);
        assert_int_equal(bm_read(2, 1) & 7, 4);
        bm_write(0, 1, 0);
        bm_write(2, 1, 4);
        assert_int_equal(bm_read(2, 1), 0);
        static uint8_t gathered[1536];
        memcpy(gathered, fake.memory + 0x2000, 6);
        memcpy(gathered + 6, fake.memory + 0x3000, 1018);
        memcpy(gathered + 1024, fake.memory + 0x4000, 512);
        assert_memory_equal(gathered, disk + 100 * 512, 1536);
        assert_int_equal(memcmp(was, disk + 100 * 512, 1536) == 0, to_host);
        assert_int_equal(fake.memory[0x2006], 0x40 + i);
    }
}

/* SFF-8038i, 3.1: what the status bits say about regions that are not as long as the transfer. */
static void test_dma_lengths(void **state)
{
    prd(0, 0x2000, 2048, true);
    lba28(0, 1, 0xc8);
    start(true);
    assert_int_equal(bm_read(2, 1) & 7, 5); /* more room than data: interrupt, and still active */
    expect_interrupt(READY);
    bm_write(0, 1, 8);
    assert_int_equal(bm_read(2, 1) & 7, 4);
    prd(0, 0x2000, 512, true);
    lba28(0, 2, 0xc8);
    start(true);
    assert_int_equal(bm_read(2, 1) & 7, 0); /* less: neither, no error; the unit waits */
    assert_false(fake.level[14]);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
    fake_out(dev, CTRL, 4);
    fake_out(dev, CTRL, 0);
    prd(0, 0x2000, 0, true); /* 64 KiB, more than the fake's memory has there */
    lba28(0, 128, 0xc8);
    start(true);
    assert_int_equal(bm_read(2, 1) & 7, 2);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
}

static void test_dma_bad_memory(void **state)
{
    for (unsigned way = 0; way < 3; way++) {
        prd(0, way ? 0xfffffffe : 0x2000, 512, true);
        lba28(0, 1, way == 2 ? 0xca : 0xc8);
        bm_write(4, 4, way ? 0x1000 : 0xfffffff8);
        bm_write(0, 1, way == 2 ? 1 : 9);
        assert_int_equal(bm_read(2, 1) & 7, 2); /* error, not active, no interrupt */
        assert_false(fake.level[14]);
        bm_write(0, 1, 0);
        bm_write(2, 1, 2);
        assert_int_equal(bm_read(2, 1) & 7, 0);
        fake_out(dev, CTRL, 4);
        fake_out(dev, CTRL, 0);
    }
}

/* The wrong direction, no right to be a master, the engine started before the command. */
static void test_dma_conditions(void **state)
{
    prd(0, 0x2000, 512, true);
    lba28(3, 1, 0xc8);
    start(false);
    assert_int_equal(bm_read(2, 1) & 7, 1);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
    bm_write(0, 1, 0);
    ata.ide.write(&ata.ide, PCI_REG_COMMAND, PCI_COMMAND_IO, 0xffff);
    start(true);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
    ata.ide.write(&ata.ide, PCI_REG_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER, 0xffff);
    expect_interrupt(READY);
    assert_memory_equal(fake.memory + 0x2000, disk + 3 * 512, 512);
    bm_write(0, 1, 0);
    start(true);
    lba28(4, 1, 0xc8);
    expect_interrupt(READY);
    assert_memory_equal(fake.memory + 0x2000, disk + 4 * 512, 512);
}

/* However large, one access does a slice; the rest is the timer's. */
static void test_dma_slices(void **state)
{
    for (unsigned i = 0; i < 64; i++)
        prd(i, 0x4000, 0x8000, i == 63);
    lba48(0, 3000, 0x25);
    start(true);
    assert_int_equal(bm_read(2, 1) & 7, 1);
    assert_true(reads <= 33);
    assert_int_equal(dev->deadline_ns, fake.now_ns);
    fake_advance(&fake, 1);
    assert_in_range(fake.timer_calls, 20, 60);
    expect_interrupt(READY);
    assert_int_equal(dev->deadline_ns, VDEV_NEVER);
    bm_write(0, 1, 8);
    /* Entries cost as well: regions of 2 bytes are not 65536 to a slice. */
    for (unsigned i = 0; i < 256; i++)
        prd(i, 0x4000, 2, false);
    lba28(0, 1, 0xc8);
    fake.timer_calls = 0;
    start(true);
    assert_int_equal(bm_read(2, 1) & 7, 1);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
    bm_write(0, 1, 8); /* stopped */
    fake_advance(&fake, 1);
    assert_int_equal(fake.timer_calls, 1);
    assert_int_equal(fake_in(dev, CTRL), ASKS);
    ata_ops.reset(dev);
    assert_int_equal(fake_in(dev, CTRL), READY);
}

static void test_bm_registers(void **state)
{
    bm_write(4, 4, 0x12345678);
    assert_int_equal(bm_read(4, 4), 0x12345678);
    bm_write(4, 1, 0xff); /* the table is on a dword */
    assert_int_equal(bm_read(4, 4), 0x123456fc);
    bm_write(8 + 4, 2, 0xabcd);
    assert_int_equal(bm_read(12, 4), 0xabcc);
    bm_write(2, 1, 0xff);
    assert_int_equal(bm_read(2, 1), 0x60);
    assert_int_equal(bm_read(10, 1), 0);
    assert_int_equal(bm_read(1, 1), 0);
    bm_write(3, 1, 0xff);
    assert_int_equal(bm_read(3, 1), 0);
    assert_int_equal(fake_read(&ata.bm, BM + 16, 1), 0xff);
}

/* ---- PCI ---- */

static void test_pci(void **state)
{
    struct pci_func *ide = &ata.ide;
    assert_int_equal(ide->bdf, PCI_BDF(0, 1, 1));
    assert_int_equal(ide->read(ide, 0), 0x70108086);
    assert_int_equal(ide->read(ide, 8) >> 8, 0x010180);
    assert_int_equal(ata.isa.read(&ata.isa, 0), 0x70008086);
    assert_int_equal(ata.isa.read(&ata.isa, 8) >> 8, 0x060100);
    assert_int_equal(ata.isa.read(&ata.isa, 12) >> 16 & 0xff, 0x80);
    ata.isa.write(&ata.isa, 0x60, 0x0a, 0xff);
    assert_int_equal(ata.isa.read(&ata.isa, 0x60), 0x8080800a);
    assert_int_equal(ide->read(ide, 0x40), 0x80008000);
    ide->write(ide, 0x40, 0xa307, 0xffff);
    assert_int_equal(ide->read(ide, 0x40), 0x8000a307);
    ide->write(ide, 0x44, 0xffffffff, 0xffffffff);
    assert_int_equal(ide->read(ide, 0x44), 0xff);
    assert_int_equal(moved_to, BM);
    ide->write(ide, 0x20, 0xffffffff, 0xffffffff); /* how its size is found */
    assert_int_equal(ide->read(ide, 0x20), 0xfffffff1);
    assert_int_equal(moved_from, BM);
    assert_int_equal(moved_to, 0);
    ide->write(ide, 0x20, 0xd450, 0xffffffff);
    assert_int_equal(moved_to, 0xd450);
    fake_write(&ata.bm, 0xd454, 4, 0x4000);
    assert_int_equal(fake_read(&ata.bm, 0xd454, 4), 0x4000);
    ide->write(ide, 4, 0, 0xffff); /* the decoder goes off */
    assert_int_equal(moved_from, 0xd450);
    assert_int_equal(moved_to, 0);
    assert_int_equal(fake_read(&ata.bm, 0xd454, 4), 0xffffffff);
    ata_ops.reset(dev);
    assert_int_equal(moved_to, BM);
}

/* ---- the CD-ROM drive ---- */

static void cd_interrupt(uint8_t status, uint8_t reason)
{
    assert_true(fake.level[15]);
    assert_int_equal(fake_in(dev, CD_BASE + COUNT), reason);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), status);
    assert_false(fake.level[15]);
}

static void packet_with(const uint8_t *bytes, uint16_t limit, bool dma)
{
    fake_out(dev, CD_BASE + DEVICE, 0);
    fake_out(dev, CD_BASE + FEATURES, dma);
    fake_out(dev, CD_BASE + MID, (uint8_t)limit);
    fake_out(dev, CD_BASE + HIGH, (uint8_t)(limit >> 8));
    fake_out(dev, CD_BASE + COMMAND, 0xa0);
    assert_false(fake.level[15]); /* DRQ at once, no interrupt: IDENTIFY's word 0 */
    assert_int_equal(fake_in(dev, CD_CTRL), 0x48);
    assert_int_equal(fake_in(dev, CD_BASE + COUNT), 1);
    pio_out(CD_BASE, bytes, 12, 2);
}

static uint8_t answer[0x20000];

/* All of the data, in blocks of what the drive says. Answers its size; sense key in *key, 0 = well. */
static size_t packet(const char *text, uint8_t *key)
{
    uint8_t bytes[12] = {0};
    size_t size = 0;
    unsigned value;
    int used;
    for (unsigned i = 0; i < 12 && sscanf(text, "%x%n", &value, &used) == 1; i++, text += used)
        bytes[i] = (uint8_t)value;
    memset(answer, 0xee, 64);
    packet_with(bytes, 0xfffe, false);
    while (fake_in(dev, CD_CTRL) & 8) {
        cd_interrupt(0x48, 2);
        unsigned block = fake_in(dev, CD_BASE + MID) | (unsigned)fake_in(dev, CD_BASE + HIGH) << 8;
        pio_in(CD_BASE, answer + size, (block + 1) & ~1u, 2);
        size += block;
    }
    *key = fake_in(dev, CD_BASE + ERROR) >> 4;
    cd_interrupt(*key ? 0x41 : 0x40, 3);
    return size;
}

static size_t good(const char *text)
{
    uint8_t key;
    size_t size = packet(text, &key);
    if (key)
        fail_msg("%s: sense key %u", text, key);
    return size;
}

static void bad(const char *text, uint8_t wanted, uint8_t asc, uint8_t ascq)
{
    uint8_t key;
    assert_int_equal(packet(text, &key), 0);
    if (key != wanted)
        fail_msg("%s: sense key %u and not %u", text, key, wanted);
    assert_int_equal(good("3 0 0 0 12"), 18);
    assert_int_equal(answer[0], 0x70);
    assert_int_equal(answer[2], wanted);
    assert_int_equal(answer[12], asc);
    assert_int_equal(answer[13], ascq);
    (void)good("3 0 0 0 ff");
    assert_int_equal(answer[2], 0); /* it was told */
}

static int setup_cd(void **state)
{
    setup_with(false);
    bad("0", 6, 0x29, 0); /* SPC-3: once after a reset */
    (void)good("0");
    return 0;
}

static void test_cd_attention(void **state)
{
    assert_int_equal(good("12 0 0 0 24"), 36); /* INQUIRY, and these two, are answered before it is told */
    assert_int_equal(good("46 0 0 0 0 0 0 0 8"), 8);
    assert_int_equal(good("4a 1 0 0 10 0 0 0 8"), 8);
    assert_int_equal(good("3 0 0 0 12"), 18); /* which is asked for here */
    assert_int_equal(answer[2], 6);
    assert_int_equal(answer[12], 0x29);
    (void)good("0");
    ata_ops.reset(dev);
    bad("28 0 0 0 0 0 0 0 1", 6, 0x29, 0);
    assert_int_equal(good("28 0 0 0 0 0 0 0 1"), 2048);
}

static void test_cd_ata_commands(void **state)
{
    static const uint8_t good_ones[] = {0xe0, 0xe1, 0xe6, 0xe7, 0xe5};
    for (unsigned i = 0; i < sizeof(good_ones); i++) {
        fake_out(dev, CD_BASE + COMMAND, good_ones[i]);
        assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x40);
    }
    assert_int_equal(fake_in(dev, CD_BASE + COUNT), 0xff);
    static const uint8_t bad_ones[] = {0x00, 0x20, 0xec, 0xc8, 0x30};
    for (unsigned i = 0; i < sizeof(bad_ones); i++) {
        fake_out(dev, CD_BASE + MID, 0);
        fake_out(dev, CD_BASE + COMMAND, bad_ones[i]);
        assert_true(fake.level[15]);
        assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x41);
        assert_int_equal(fake_in(dev, CD_BASE + ERROR), ABRT);
        bool shows = bad_ones[i] == 0x20 || bad_ones[i] == 0xec; /* 9.12 */
        assert_int_equal(fake_in(dev, CD_BASE + MID), shows ? 0x14 : 0);
    }
    fake_out(dev, CD_BASE + COMMAND, 0xa1);
    assert_true(fake.level[15]);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x48);
    pio_in(CD_BASE, (uint8_t *)words, 512, 2);
    assert_false(fake.level[15]);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x40);
    assert_int_equal(words[0], 0x85c0);
    assert_int_equal(words[82], 0x4210);
    fake_out(dev, CD_BASE + FEATURES, 2); /* overlapped: not offered */
    fake_out(dev, CD_BASE + COMMAND, 0xa0);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x41);
    fake_out(dev, CD_BASE + FEATURES, 3);
    fake_out(dev, CD_BASE + COUNT, 0x21);
    fake_out(dev, CD_BASE + COMMAND, 0xef);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x40);
}

static void test_cd_device_reset(void **state)
{
    fake_out(dev, CD_BASE + FEATURES, 0);
    fake_out(dev, CD_BASE + COMMAND, 0xa0);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0x48);
    fake_out(dev, CD_BASE + COMMAND, 0x08); /* even now */
    assert_false(fake.level[15]);
    assert_int_equal(fake_in(dev, CD_BASE + STATUS), 0);
    assert_int_equal(fake_in(dev, CD_BASE + HIGH), 0xeb);
    assert_int_equal(fake_in(dev, CD_BASE + ERROR), 1);
    (void)good("0");
}

static void test_cd_answers(void **state)
{
    assert_int_equal(good("12 0 0 0 24"), 36);
    assert_memory_equal(answer, "\x05\x80\x00\x21\x1f\0\0\0BULKHEADRAM CD-ROM      1.0 ", 36);
    assert_int_equal(good("12 0 0 0 5"), 5); /* an odd number of bytes */
    assert_int_equal(good("25"), 8);
    assert_memory_equal(answer, "\0\0\0\x63\0\0\x08\0", 8);
    assert_int_equal(good("43 0 0 0 0 0 0 0 64"), 20);
    assert_memory_equal(answer, "\0\x12\1\1\0\x14\1\0\0\0\0\0\0\x14\xaa\0\0\0\0\x64", 20);
    assert_int_equal(good("43 2 0 0 0 0 aa 0 64"), 12); /* as minute, second, frame */
    assert_memory_equal(answer, "\0\x0a\1\1\0\x14\xaa\0\0\0\x03\x19", 12);
    assert_int_equal(good("43 0 1 0 0 0 0 0 c"), 12);
    assert_memory_equal(answer, "\0\x0a\1\1\0\x14\1\0\0\0\0\0", 12);
    assert_int_equal(good("43 0 0 0 0 0 0 0 c 40"), 12);
    assert_int_equal(good("51 0 0 0 0 0 0 0 40"), 34);
    assert_memory_equal(answer, "\0\x20\x0e\1\1\1\1\x20", 8);
    assert_int_equal(good("5a 0 2a 0 0 0 0 0 80"), 28);
    assert_int_equal(answer[1], 26);
    assert_int_equal(answer[8], 0x2a);
    assert_int_equal(good("5a 0 3f 0 0 0 0 0 80"), 36);
    assert_int_equal(good("5a 0 1 0 0 0 0 0 80"), 16);
    assert_int_equal(good("46 0 0 0 0 0 0 0 ff"), 8 + 8 + 12 + 8 + 12 + 8);
    assert_int_equal(answer[7], 8);
    assert_int_equal(answer[3], 52);
    assert_int_equal(good("46 2 0 10 0 0 0 0 ff"), 20);
    assert_int_equal(good("46 1 0 3 0 0 0 0 ff"), 8 + 8 + 12 + 8);
    assert_int_equal(good("4a 1 0 0 10 0 0 0 8"), 8);
    assert_memory_equal(answer, "\0\6\4\x10\0\2\0\0", 8);
    assert_int_equal(good("4a 1 0 0 2 0 0 0 8"), 4);
    assert_memory_equal(answer, "\0\2\x80\x10", 4);
}

static void test_cd_refusals(void **state)
{
    static const struct {
        const char *text;
        uint8_t key, asc, ascq;
    } table[] = {
        {"ff", 5, 0x20, 0},
        {"2a 0 0 0 0 0 0 0 1", 5, 0x20, 0}, /* WRITE (10) */
        {"12 1 0 0 24", 5, 0x24, 0},
        {"28 0 0 0 0 64 0 0 1", 5, 0x21, 0},
        {"28 0 0 0 0 63 0 0 2", 5, 0x21, 0},
        {"28 0 ff ff ff ff 0 0 1", 5, 0x21, 0},
        {"a8 0 0 0 0 0 ff ff ff ff", 5, 0x21, 0},
        {"2b 0 0 0 0 64", 5, 0x21, 0},
        {"43 0 2 0 0 0 0 0 c", 5, 0x24, 0},
        {"43 0 0 0 0 0 2 0 c", 5, 0x24, 0},
        {"5a 0 e 0 0 0 0 0 80", 5, 0x24, 0},
        {"5a 0 ea 0 0 0 0 0 80", 5, 0x39, 0},
        {"4a 0 0 0 10 0 0 0 8", 5, 0x24, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        bad(table[i].text, table[i].key, table[i].asc, table[i].ascq);
    (void)good("2b 0 0 0 0 63");
    assert_int_equal(reads, 0);
}

static void test_cd_reads(void **state)
{
    assert_int_equal(good("28 0 0 0 0 5 0 0 28"), 40 * 2048); /* more than one block of 65534 bytes */
    assert_memory_equal(answer, cd + 5 * 2048, 40 * 2048);
    assert_int_equal(good("a8 0 0 0 0 63 0 0 0 1"), 2048);
    assert_memory_equal(answer, cd + 99 * 2048, 2048);
    assert_int_equal(good("28 0 0 0 0 64"), 0); /* none at all */
    /* The host's limit, of odd size: blocks are even. */
    static const uint8_t two[12] = {0x28, [8] = 2};
    packet_with(two, 1001, false);
    for (size_t at = 0; at < 4096;) {
        cd_interrupt(0x48, 2);
        unsigned block = fake_in(dev, CD_BASE + MID) | (unsigned)fake_in(dev, CD_BASE + HIGH) << 8;
        assert_int_equal(block, 4096 - at < 1000 ? 4096 - at : 1000);
        pio_in(CD_BASE, answer + at, block, 4);
        at += block;
    }
    cd_interrupt(0x40, 3);
    assert_memory_equal(answer, cd, 4096);
}

static void test_cd_dma(void **state)
{
    static const uint8_t three[12] = {0x28, [5] = 7, [8] = 3};
    prd(0, 0x2000, 6144, true);
    packet_with(three, 0, true);
    assert_false(fake.level[15]);
    assert_int_equal(fake_in(dev, CD_CTRL), 0x48);
    bm_write(8 + 4, 4, 0x1000);
    bm_write(8, 1, 9);
    assert_int_equal(bm_read(8 + 2, 1) & 7, 4);
    cd_interrupt(0x40, 3);
    assert_memory_equal(fake.memory + 0x2000, cd + 7 * 2048, 6144);
}

static void test_cd_tray(void **state)
{
    (void)good("1e 0 0 0 1");
    bad("1b 0 0 0 2", 5, 0x53, 2); /* locked */
    (void)good("5a 0 2a 0 0 0 0 0 80");
    assert_int_equal(answer[8 + 6], 0x2b);
    (void)good("1e 0 0 0 0");
    (void)good("1b 0 0 0 1");
    (void)good("0");
    (void)good("1b 0 0 0 2");
    bad("0", 2, 0x3a, 0);
    bad("28 0 0 0 0 0 0 0 1", 2, 0x3a, 0);
    (void)good("4a 1 0 0 10 0 0 0 8");
    assert_int_equal(answer[5], 1);
    (void)good("46 0 0 0 0 0 0 0 ff");
    assert_int_equal(answer[7], 0);
    (void)good("1b 0 0 0 3");
    (void)good("0");
}

#define TEST(name, with) cmocka_unit_test_setup(name, with)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_power_on, setup),
        TEST(test_absent_slave, setup),
        TEST(test_identify, setup),
        TEST(test_empty_channel_floats, setup),
        TEST(test_identify_sizes, setup),
        TEST(test_pio_reads, setup),
        TEST(test_pio_writes, setup),
        TEST(test_counts, setup),
        TEST(test_addresses, setup),
        TEST(test_hob, setup),
        TEST(test_cylinders, setup),
        TEST(test_plain_commands, setup),
        TEST(test_power, setup),
        TEST(test_settings, setup),
        TEST(test_nien, setup),
        TEST(test_two_units, setup_slave),
        TEST(test_software_reset, setup),
        TEST(test_widths, setup),
        TEST(test_dma, setup),
        TEST(test_dma_lengths, setup),
        TEST(test_dma_bad_memory, setup),
        TEST(test_dma_conditions, setup),
        TEST(test_dma_slices, setup),
        TEST(test_bm_registers, setup),
        TEST(test_pci, setup),
        TEST(test_cd_attention, setup),
        TEST(test_cd_ata_commands, setup),
        TEST(test_cd_device_reset, setup_cd),
        TEST(test_cd_answers, setup_cd),
        TEST(test_cd_refusals, setup_cd),
        TEST(test_cd_reads, setup_cd),
        TEST(test_cd_dma, setup_cd),
        TEST(test_cd_tray, setup_cd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
