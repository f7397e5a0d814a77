/* A CD-ROM drive: the PACKET interface of ATA/ATAPI-6 and the commands of SPC-3 and MMC-3 that firmware, boot
 * loaders and operating systems use to read a data disc of one session and one track. */
#include "drivers/vdev/ata_internal.h"
#include "hv/lib/bytes.h"
#include "hv/lib/string.h"

#define PACKET_SIZE 12u
#define FEATURE_DMA 0x01u
#define FEATURE_OVL 0x02u
#define REASON_CD   0x01u /* a command, or status; clear: data */
#define REASON_IO   0x02u /* to the host */
#define LIMIT_MAX   0xfffeu
#define LEAD_OUT    0xaau
#define MSF_OFFSET  150u /* frames before block 0 */
#define FRAMES      75u  /* in a second */
#define SENSE_SIZE  18u

enum { SENSE_NONE = 0, SENSE_NOT_READY = 2, SENSE_ILLEGAL = 5, SENSE_ATTENTION = 6 };
enum { /* additional sense codes; the qualifier is always 0 but for removal prevented */
       ASC_OPCODE = 0x20,
       ASC_RANGE = 0x21,
       ASC_FIELD = 0x24,
       ASC_RESET = 0x29,
       ASC_SAVING = 0x39,
       ASC_NO_MEDIUM = 0x3a,
       ASC_PREVENTED = 0x53,
};
#define ASCQ_PREVENTED 0x02u

struct drive {
    struct ata *ata;
    struct ata_channel *channel;
    struct ata_unit *unit;
    uint8_t packet[PACKET_SIZE]; /* a copy: the answer goes where it was */
};

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

void ata_cdrom_reset(struct ata_unit *unit)
{
    unit->u.cd.attention = true;
    unit->u.cd.locked = unit->u.cd.ejected = false;
    unit->u.cd.sense_key = unit->u.cd.asc = 0;
}

/* ---- how commands end ---- */

/* 9.8: byte count and reason of a block of data. */
void ata_cdrom_block(struct ata_channel *c)
{
    struct ata_unit *unit = ata_selected(c);
    unit->reg[ATA_COUNT] = REASON_IO;
    if (c->flow.dma)
        return;
    unit->reg[ATA_LBA_MID] = (uint8_t)c->flow.block;
    unit->reg[ATA_LBA_HIGH] = (uint8_t)(c->flow.block >> 8);
}

void ata_cdrom_done(struct ata *ata, struct ata_channel *c)
{
    ata_selected(c)->reg[ATA_COUNT] = REASON_CD | REASON_IO;
    ata_end(ata, c, 0);
}

/* CHECK CONDITION: the sense key is in the Error register as well. */
static void refuse(struct drive *d, uint8_t key, uint8_t asc)
{
    d->unit->u.cd.sense_key = key;
    d->unit->u.cd.asc = asc;
    d->unit->reg[ATA_COUNT] = REASON_CD | REASON_IO;
    ata_end(d->ata, d->channel, (uint8_t)(key << 4 | ATA_ERROR_ABRT));
}

static void done(struct drive *d)
{
    ata_cdrom_done(d->ata, d->channel);
}

static void send(struct drive *d, bool media, uint64_t at, uint64_t size)
{
    struct ata_unit *unit = d->unit;
    uint32_t limit = bytes_get16(unit->reg + ATA_LBA_MID) & LIMIT_MAX; /* blocks of even size */
    if (!size)
        done(d);
    else
        ata_begin(d->ata, d->channel,
                  (struct ata_phase){.kind = ATA_FLOW_IN,
                                     .dma = (unit->reg[ATA_FEATURES] & FEATURE_DMA) != 0,
                                     .media = media,
                                     .packet = true,
                                     .at = at,
                                     .size = size,
                                     .block_max = limit ? limit : LIMIT_MAX});
}

/* The first `size` bytes of the buffer, but no more than the host has room for. */
static void answer(struct drive *d, uint32_t size, uint32_t allocated)
{
    send(d, false, 0, size < allocated ? size : allocated);
}

/* ---- commands ---- */

static void request_sense(struct drive *d, uint8_t *out)
{
    struct ata_unit *unit = d->unit;
    if (unit->u.cd.attention && !unit->u.cd.sense_key) {
        unit->u.cd.sense_key = SENSE_ATTENTION;
        unit->u.cd.asc = ASC_RESET;
    }
    if (unit->u.cd.sense_key == SENSE_ATTENTION)
        unit->u.cd.attention = false;
    out[0] = 0x70; /* current, fixed format */
    out[2] = unit->u.cd.sense_key;
    out[7] = SENSE_SIZE - 8;
    out[12] = unit->u.cd.asc;
    out[13] = unit->u.cd.asc == ASC_PREVENTED ? ASCQ_PREVENTED : 0;
    unit->u.cd.sense_key = unit->u.cd.asc = 0;
    answer(d, SENSE_SIZE, d->packet[4]);
}

static void inquiry(struct drive *d, uint8_t *out)
{
    static const uint8_t data[36] = "\x05\x80\x00\x21\x1f\0\0\0"
                                    "BULKHEADRAM CD-ROM      1.0";
    if (d->packet[1] & 1) { /* vital product data: there are none */
        refuse(d, SENSE_ILLEGAL, ASC_FIELD);
        return;
    }
    memcpy(out, data, sizeof(data));
    out[35] = ' ';
    answer(d, sizeof(data), get16(d->packet + 3));
}

static void read_capacity(struct drive *d, uint8_t *out)
{
    put32(out, (uint32_t)d->unit->sectors - 1);
    put32(out + 4, ATA_CD_SECTOR);
    send(d, false, 0, 8);
}

/* READ (10) and (12) differ in where the count is. */
static void read_blocks(struct drive *d, uint8_t *out)
{
    uint32_t lba = get32(d->packet + 2);
    uint32_t count = d->packet[0] == 0x28 ? get16(d->packet + 7) : get32(d->packet + 6);
    if (lba > d->unit->sectors || count > d->unit->sectors - lba)
        refuse(d, SENSE_ILLEGAL, ASC_RANGE);
    else
        send(d, true, (uint64_t)lba * ATA_CD_SECTOR, (uint64_t)count * ATA_CD_SECTOR);
}

static void seek(struct drive *d, uint8_t *out)
{
    if (get32(d->packet + 2) < d->unit->sectors)
        done(d);
    else
        refuse(d, SENSE_ILLEGAL, ASC_RANGE);
}

/* An address of the table of contents, in blocks or as minute, second, frame. */
static void put_address(const struct drive *d, uint8_t *p, uint32_t lba)
{
    uint32_t frames = lba + MSF_OFFSET;
    if (!(d->packet[1] & 2)) {
        put32(p, lba);
        return;
    }
    p[1] = (uint8_t)(frames / (60 * FRAMES));
    p[2] = (uint8_t)(frames / FRAMES % 60);
    p[3] = (uint8_t)(frames % FRAMES);
}

/* Formats 0 (tracks) and 1 (sessions); older hosts say the format in the last byte. */
static void read_toc(struct drive *d, uint8_t *out)
{
    uint8_t format = d->packet[2] & 0xf ? d->packet[2] & 0xf : d->packet[9] >> 6;
    uint8_t start = d->packet[6];
    uint32_t size = 4;
    if (format > 1 || (format == 0 && start > 1 && start != LEAD_OUT)) {
        refuse(d, SENSE_ILLEGAL, ASC_FIELD);
        return;
    }
    out[2] = out[3] = 1; /* first and last */
    if (format == 1 || start <= 1) {
        out[size + 1] = 0x14; /* data */
        out[size + 2] = 1;
        put_address(d, out + size + 4, 0);
        size += 8;
    }
    if (format == 0) {
        out[size + 1] = 0x14;
        out[size + 2] = LEAD_OUT;
        put_address(d, out + size + 4, (uint32_t)d->unit->sectors);
        size += 8;
    }
    put16(out, size - 2);
    answer(d, size, get16(d->packet + 7));
}

/* Pages 01h (error recovery) and 2Ah (capabilities), in this order. */
static void mode_sense(struct drive *d, uint8_t *out)
{
    static const uint8_t recovery[] = {0x01, 6, 0, 3, 0, 0, 0, 0};
    static const uint8_t capabilities[] = {0x2a, 18, 0, 0, 0,    0x60, 0x29, 0, 0x02, 0xc2,
                                           0,    0,  0, 0, 0x02, 0xc2, 0,    0, 0,    0};
    uint8_t page = d->packet[2] & 0x3f;
    uint32_t size = 8;
    if (d->packet[2] >> 6 == 3) {
        refuse(d, SENSE_ILLEGAL, ASC_SAVING);
        return;
    }
    if (page == 0x01 || page == 0x3f) {
        memcpy(out + size, recovery, sizeof(recovery));
        size += sizeof(recovery);
    }
    if (page == 0x2a || page == 0x3f) {
        memcpy(out + size, capabilities, sizeof(capabilities));
        out[size + 6] |= (uint8_t)(d->unit->u.cd.locked << 1);
        size += sizeof(capabilities);
    }
    if (size == 8) {
        refuse(d, SENSE_ILLEGAL, ASC_FIELD);
        return;
    }
    put16(out, size - 2);
    out[2] = d->unit->u.cd.ejected ? 0x70 : 0x01; /* door closed, no disc; data disc */
    answer(d, size, get16(d->packet + 7));
}

/* The features of a CD-ROM drive's profile, each {code, version and flags, more bytes}. */
static void get_configuration(struct drive *d, uint8_t *out)
{
    static const uint8_t features[] = {
        0, 0x00, 0x03, 4, 0,    0x08, 1,    0,             /* profiles: CD-ROM, current */
        0, 0x01, 0x07, 8, 0,    0,    0,    2, 0, 0, 0, 0, /* core: ATAPI */
        0, 0x03, 0x03, 4, 0x29, 0,    0,    0,             /* removable medium */
        0, 0x10, 0x01, 8, 0,    0,    0x08, 0, 0, 1, 0, 0, /* random readable: 2048 bytes */
        0, 0x1e, 0x01, 4, 0,    0,    0,    0,             /* CD read */
    };
    uint32_t first = get16(d->packet + 2), size = 8;
    uint8_t which = d->packet[1] & 3; /* 0 all, 1 current, 2 this one */
    for (uint32_t i = 0, n; i < sizeof(features); i += n) {
        n = 4u + features[i + 3];
        bool current = (features[i + 2] & 1) && !d->unit->u.cd.ejected;
        if (which == 2 ? features[i + 1] != first
                       : features[i + 1] < first || (which == 1 && !current && !(features[i + 2] & 2)))
            continue;
        memcpy(out + size, features + i, n);
        size += n;
    }
    put32(out, size - 4);
    put16(out + 6, d->unit->u.cd.ejected ? 0 : 0x08);
    answer(d, size, get16(d->packet + 7));
}

/* Polled only. There is one class of events, media, and none ever comes by itself. */
static void get_event(struct drive *d, uint8_t *out)
{
    bool media = (d->packet[4] & 0x10) != 0;
    if (!(d->packet[1] & 1)) {
        refuse(d, SENSE_ILLEGAL, ASC_FIELD);
        return;
    }
    put16(out, media ? 6 : 2);
    out[2] = media ? 4 : 0x80;
    out[3] = 0x10;
    out[5] = d->unit->u.cd.ejected ? 0x01 : 0x02; /* the tray is open; there is a disc */
    answer(d, media ? 8 : 4, get16(d->packet + 7));
}

static void start_stop(struct drive *d, uint8_t *out)
{
    bool start = d->packet[4] & 1, load = (d->packet[4] & 2) != 0;
    if (load && !start && d->unit->u.cd.locked) {
        refuse(d, SENSE_ILLEGAL, ASC_PREVENTED);
        return;
    }
    if (load)
        d->unit->u.cd.ejected = !start;
    done(d);
}

static void prevent_allow(struct drive *d, uint8_t *out)
{
    d->unit->u.cd.locked = d->packet[4] & 1;
    done(d);
}

static void read_disc_information(struct drive *d, uint8_t *out)
{
    put16(out, 32);
    out[2] = 0x0e; /* finalized */
    out[3] = out[4] = out[5] = out[6] = 1;
    out[7] = 0x20;             /* for unrestricted use */
    memset(out + 16, 0xff, 8); /* no next lead-in or lead-out */
    answer(d, 34, get16(d->packet + 7));
}

static void test_unit_ready(struct drive *d, uint8_t *out)
{
    done(d);
}

enum { ALWAYS = 1, MEDIUM = 2 }; /* also while attention is due; needs a disc */
static const struct {
    uint8_t code, when;
    void (*run)(struct drive *d, uint8_t *out);
} packets[] = {
    {0x00, MEDIUM, test_unit_ready}, {0x03, ALWAYS, request_sense},
    {0x12, ALWAYS, inquiry},         {0x1b, 0, start_stop},
    {0x1e, 0, prevent_allow},        {0x25, MEDIUM, read_capacity},
    {0x28, MEDIUM, read_blocks},     {0x2b, MEDIUM, seek},
    {0x43, MEDIUM, read_toc},        {0x46, ALWAYS, get_configuration},
    {0x4a, ALWAYS, get_event},       {0x51, MEDIUM, read_disc_information},
    {0x5a, 0, mode_sense},           {0xa8, MEDIUM, read_blocks},
};

void ata_cdrom_packet(struct ata *ata, struct ata_channel *c)
{
    struct drive d = {.ata = ata, .channel = c, .unit = ata_selected(c)};
    struct ata_unit *unit = d.unit;
    unsigned i = 0;
    memcpy(d.packet, c->buffer, sizeof(d.packet));
    memset(c->buffer, 0, sizeof(c->buffer));
    while (i < ARRAY_SIZE(packets) && packets[i].code != d.packet[0])
        i++;
    bool known = i < ARRAY_SIZE(packets);
    if (unit->u.cd.attention && !(known && (packets[i].when & ALWAYS))) {
        unit->u.cd.attention = false;
        refuse(&d, SENSE_ATTENTION, ASC_RESET);
    } else if (!known) {
        refuse(&d, SENSE_ILLEGAL, ASC_OPCODE);
    } else if ((packets[i].when & MEDIUM) && unit->u.cd.ejected) {
        refuse(&d, SENSE_NOT_READY, ASC_NO_MEDIUM);
    } else {
        if (d.packet[0] != 0x03)
            unit->u.cd.sense_key = unit->u.cd.asc = 0;
        packets[i].run(&d, c->buffer);
    }
}

/* ---- ATA commands ---- */

/* 8.16. */
static void identify(struct ata *ata, struct ata_channel *c)
{
    ata_identify_common(ata, c, "Bulkhead RAM CD-ROM");
    ata_put_word(c, 0, 0x85c0);  /* ATAPI, CD-ROM, removable, DRQ at once, packets of 12 bytes */
    ata_put_word(c, 82, 0x4210); /* NOP, DEVICE RESET, PACKET */
    ata_put_word(c, 83, 0x4000);
    ata_put_word(c, 84, 0x4000);
    ata_put_word(c, 85, 0x4210);
    ata_put_word(c, 87, 0x4000);
    ata_begin(ata, c, (struct ata_phase){.kind = ATA_FLOW_IN, .size = ATA_SECTOR, .block_max = ATA_SECTOR});
}

static void packet(struct ata *ata, struct ata_channel *c)
{
    struct ata_unit *unit = ata_selected(c);
    if (unit->reg[ATA_FEATURES] & FEATURE_OVL) {
        ata_end(ata, c, ATA_ERROR_ABRT);
        return;
    }
    unit->reg[ATA_COUNT] = REASON_CD;
    ata_begin(ata, c,
              (struct ata_phase){.kind = ATA_FLOW_PACKET, .size = PACKET_SIZE, .block_max = PACKET_SIZE});
}

void ata_cdrom_command(struct ata *ata, struct ata_channel *c, uint8_t command)
{
    struct ata_unit *unit = ata_selected(c);
    switch (command) {
    case ATA_CMD_PACKET:
        packet(ata, c);
        return;
    case ATA_CMD_IDENTIFY_PACKET:
        identify(ata, c);
        return;
    case ATA_CMD_SET_FEATURES:
        ata_end(ata, c, ata_set_transfer_mode(unit) ? 0 : ATA_ERROR_ABRT);
        return;
    case 0xe0: /* STANDBY IMMEDIATE, IDLE IMMEDIATE, SLEEP, FLUSH CACHE: nothing to do */
    case 0xe1:
    case 0xe6:
    case 0xe7:
        ata_end(ata, c, 0);
        return;
    case 0xe5: /* CHECK POWER MODE: active */
        unit->reg[ATA_COUNT] = UINT8_MAX;
        ata_end(ata, c, 0);
        return;
    case 0x20: /* READ SECTORS: who asks like this learns what it is (9.12) */
    case ATA_CMD_IDENTIFY:
        ata_signature(unit);
        break;
    }
    ata_end(ata, c, ATA_ERROR_ABRT);
}
