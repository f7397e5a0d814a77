/* Ports, task file, data phases and interrupts of the IDE controller; the commands are in ata_disk.c and
 * ata_cdrom.c. Sections are those of ATA/ATAPI-6 where nothing else is said. */
#include "drivers/vdev/ata_internal.h"
#include "hv/lib/string.h"

#define CONTROL_NIEN 0x02u
#define CONTROL_SRST 0x04u
#define CONTROL_HOB  0x80u

#define FEATURE_TRANSFER_MODE 0x03u
#define MODE_PIO_DEFAULT_LAST 0x01u
#define MODE_PIO_FLOW         0x08u
#define MODE_PIO_FLOW_LAST    0x0cu
#define MODE_MWDMA_LAST       0x22u
#define SIGNATURE_CD_MID      0x14u
#define SIGNATURE_CD_HIGH     0xebu

static struct ata *ata_of(struct vdev *dev)
{
    return container_of(dev, struct ata, dev);
}

/* ---- interrupts ---- */

/* INTRQ is the selected unit's, and high impedance under nIEN (7.4); the bus master latches its rise. */
static void update_line(struct ata *ata, struct ata_channel *c)
{
    bool level = ata_selected(c)->intrq && !(c->control & CONTROL_NIEN);
    if (level == c->level)
        return;
    c->level = level;
    if (level)
        c->bm_status |= ATA_BM_INTR;
    vdev_set_irq(&ata->dev, ATA_IRQ + ata_channel_index(ata, c), level);
}

void ata_raise(struct ata *ata, struct ata_channel *c)
{
    ata_selected(c)->intrq = true;
    update_line(ata, c);
}

static void lower(struct ata *ata, struct ata_channel *c)
{
    ata_selected(c)->intrq = false;
    update_line(ata, c);
}

/* ---- data phases ---- */

static uint64_t flow_bytes(const struct ata_flow *f)
{
    return f->left + f->fill - f->pos;
}

/* The next part of the data goes through the buffer. */
static void load_buffer(struct ata *ata, struct ata_channel *c)
{
    struct ata_flow *f = &c->flow;
    f->fill = f->left < ATA_BUFFER ? (uint32_t)f->left : ATA_BUFFER;
    f->left -= f->fill;
    f->pos = 0;
    if (f->media && f->kind == ATA_FLOW_IN && f->fill)
        ata->media->read(ata_selected(c)->media, f->at, c->buffer, f->fill);
}

static void begin_block(struct ata *ata, struct ata_channel *c, bool interrupt)
{
    struct ata_unit *unit = ata_selected(c);
    struct ata_flow *f = &c->flow;
    uint64_t bytes = flow_bytes(f);
    f->block = !f->dma && bytes > f->block_max ? f->block_max : bytes;
    if (f->packet)
        ata_cdrom_block(c);
    unit->status = (uint8_t)(ATA_DRDY | ATA_DRQ | (unit->kind == ATA_DISK ? ATA_DSC : 0));
    if (interrupt)
        ata_raise(ata, c);
}

void ata_begin(struct ata *ata, struct ata_channel *c, struct ata_phase phase)
{
    c->flow = (struct ata_flow){.kind = phase.kind,
                                .dma = phase.dma,
                                .media = phase.media,
                                .packet = phase.packet,
                                .at = phase.at,
                                .left = phase.size,
                                .block_max = phase.block_max};
    load_buffer(ata, c);
    /* An interrupt says that a block is ready (9.5), but not that the first one is asked for (9.6, 9.8). */
    begin_block(ata, c, !phase.dma && phase.kind == ATA_FLOW_IN);
    if (phase.dma)
        ata_dma_run(ata, c);
}

/* Everything has been moved. */
static void end_flow(struct ata *ata, struct ata_channel *c)
{
    struct ata_flow was = c->flow;
    c->flow.kind = ATA_FLOW_NONE;
    if (was.kind == ATA_FLOW_PACKET)
        ata_cdrom_packet(ata, c);
    else if (was.packet)
        ata_cdrom_done(ata, c);
    else if (was.kind == ATA_FLOW_IN && !was.dma)
        ata_selected(c)->status &= (uint8_t)~ATA_DRQ; /* the interrupt came before the data */
    else
        ata_end(ata, c, 0);
}

void ata_moved(struct ata *ata, struct ata_channel *c, uint32_t n)
{
    struct ata_flow *f = &c->flow;
    f->pos += n;
    f->block -= n;
    if (f->pos == f->fill) {
        if (f->media && f->kind == ATA_FLOW_OUT)
            ata->media->write(ata_selected(c)->media, f->at, c->buffer, f->fill);
        f->at += f->fill;
        if (f->left)
            load_buffer(ata, c);
    }
    if (f->block)
        return;
    if (flow_bytes(f))
        begin_block(ata, c, true);
    else
        end_flow(ata, c);
}

/* The data port: `size` bytes of it, which a PIIX makes 16-bit cycles of. Behind the last byte are zeros. */
static void access_data(struct ata *ata, struct ata_channel *c, struct io_req *req)
{
    struct ata_flow *f = &c->flow;
    bool flows = f->kind != ATA_FLOW_NONE && !f->dma && req->write == (f->kind != ATA_FLOW_IN);
    if (!req->write)
        req->value = 0;
    for (unsigned done = 0, n; flows && done < req->size; done += n) {
        n = req->size - done;
        n = n < f->fill - f->pos ? n : f->fill - f->pos;
        n = n < f->block ? n : (unsigned)f->block;
        uint8_t *bytes = (uint8_t *)&req->value + done; /* both little-endian */
        if (req->write)
            memcpy(c->buffer + f->pos, bytes, n);
        else
            memcpy(bytes, c->buffer + f->pos, n);
        flows = n < f->block; /* a cycle does not go on in the next block */
        ata_moved(ata, c, n);
    }
}

/* ---- commands ---- */

void ata_end(struct ata *ata, struct ata_channel *c, uint8_t error)
{
    struct ata_unit *unit = ata_selected(c);
    unit->error = error;
    unit->status = (uint8_t)(ATA_DRDY | (unit->kind == ATA_DISK ? ATA_DSC : 0) | (error ? ATA_ERR : 0));
    ata_raise(ata, c);
}

void ata_signature(struct ata_unit *unit)
{
    bool cd = unit->kind == ATA_CDROM;
    unit->reg[ATA_COUNT] = unit->reg[ATA_LBA_LOW] = 1;
    unit->reg[ATA_LBA_MID] = cd ? SIGNATURE_CD_MID : 0;
    unit->reg[ATA_LBA_HIGH] = cd ? SIGNATURE_CD_HIGH : 0;
    unit->reg[ATA_DEVICE] &= ATA_DEVICE_DEV;
}

/* What a unit shows after a reset or the diagnostic (9.2, 9.3, 9.10): a CD-ROM drive is not "ready". */
static void show_signature(struct ata_unit *unit)
{
    unit->reg[ATA_DEVICE] = 0;
    ata_signature(unit);
    memset(unit->hob, 0, sizeof(unit->hob));
    unit->error = ATA_DIAG_GOOD;
    unit->status = unit->kind == ATA_DISK ? ATA_DRDY | ATA_DSC : 0;
    unit->intrq = false;
}

static void reset_channel(struct ata *ata, struct ata_channel *c)
{
    c->flow.kind = ATA_FLOW_NONE;
    for (unsigned i = 0; i < 2; i++)
        show_signature(&c->unit[i]);
    c->selected = 0;
    update_line(ata, c);
}

/* Both units do it, whichever is selected; unit 0 answers (8.9). */
static void diagnostic(struct ata *ata, struct ata_channel *c)
{
    reset_channel(ata, c);
    if (ata_selected(c)->kind)
        ata_raise(ata, c);
}

bool ata_set_transfer_mode(struct ata_unit *unit)
{
    uint8_t mode = unit->reg[ATA_COUNT];
    bool known = mode <= MODE_PIO_DEFAULT_LAST || (mode >= MODE_PIO_FLOW && mode <= MODE_PIO_FLOW_LAST) ||
                 (mode >= ATA_MODE_MWDMA && mode <= MODE_MWDMA_LAST);
    if (unit->reg[ATA_FEATURES] != FEATURE_TRANSFER_MODE || !known)
        return false;
    unit->transfer_mode = mode;
    return true;
}

static void command(struct ata *ata, struct ata_channel *c, uint8_t value)
{
    struct ata_unit *unit = ata_selected(c);
    bool reset = value == ATA_CMD_DEVICE_RESET && unit->kind == ATA_CDROM;
    if ((unit->status & (ATA_BSY | ATA_DRQ)) && !reset)
        return;
    if (value == ATA_CMD_DIAGNOSTIC) { /* also for a unit that is not there (9.16) */
        diagnostic(ata, c);
        return;
    }
    lower(ata, c);
    unit->error = 0;
    if (reset) { /* 8.8: no interrupt; the device bit stays */
        c->flow.kind = ATA_FLOW_NONE;
        ata_signature(unit);
        unit->status = 0;
        unit->error = ATA_DIAG_GOOD;
    } else if (unit->kind == ATA_DISK) {
        ata_disk_command(ata, c, value);
    } else if (unit->kind == ATA_CDROM) {
        ata_cdrom_command(ata, c, value);
    }
}

/* ---- registers ---- */

/* Nobody drives the bus of an empty channel. The host pulls DD7 down, so that BSY reads as cleared
 * (ATA/ATAPI-6, "pull-up and pull-down resistors"): software that waits for it would take an absent unit for
 * a busy one. */
#define FLOATING 0x7fu

/* Both units see what is written, the selected one answers. Nobody there: the bus floats. A unit whose
 * companion only is there: the other one answers, with a Status of 0 (9.16). */
static uint8_t read_register(struct ata *ata, struct ata_channel *c, unsigned reg)
{
    struct ata_unit *unit = ata_selected(c);
    bool absent = unit->kind == ATA_NONE;
    if (absent)
        unit = &c->unit[!c->selected];
    if (unit->kind == ATA_NONE)
        return FLOATING;
    if (reg == ATA_COMMAND) {
        if (!absent)
            lower(ata, c);
        return absent ? 0 : unit->status;
    }
    if (reg == ATA_FEATURES)
        return unit->error;
    return (c->control & CONTROL_HOB) && reg < ATA_DEVICE ? unit->hob[reg] : unit->reg[reg];
}

static void write_register(struct ata *ata, struct ata_channel *c, unsigned reg, uint8_t value)
{
    c->control &= (uint8_t)~CONTROL_HOB;
    if (reg == ATA_COMMAND) {
        command(ata, c, value);
        return;
    }
    if (ata_selected(c)->status & (ATA_BSY | ATA_DRQ)) /* 7.1: not to be written now */
        return;
    for (unsigned i = 0; i < 2; i++) {
        c->unit[i].hob[reg] = c->unit[i].reg[reg];
        c->unit[i].reg[reg] = value;
    }
    if (reg == ATA_DEVICE) {
        c->selected = (value & ATA_DEVICE_DEV) != 0;
        update_line(ata, c);
    }
}

static uint8_t read_control(const struct ata_channel *c)
{
    const struct ata_unit *unit = &c->unit[c->selected];
    if (!c->unit[0].kind && !c->unit[1].kind)
        return FLOATING;
    return unit->kind ? unit->status : 0; /* Alternate Status: the interrupt stays */
}

static void write_control(struct ata *ata, struct ata_channel *c, uint8_t value)
{
    uint8_t was = c->control;
    c->control = value & (CONTROL_HOB | CONTROL_SRST | CONTROL_NIEN);
    if (value & CONTROL_SRST) { /* busy for as long as it is set (9.3) */
        reset_channel(ata, c);
        for (unsigned i = 0; i < 2; i++)
            c->unit[i].status = c->unit[i].kind ? ATA_BSY : 0;
    } else if (was & CONTROL_SRST) {
        reset_channel(ata, c);
    }
    update_line(ata, c);
}

static void access_byte(struct ata *ata, struct io_req *req)
{
    bool second = req->addr < ATA_PORT_0 || req->addr == ATA_CONTROL_1;
    struct ata_channel *c = &ata->channel[second];
    bool control = req->addr == (second ? ATA_CONTROL_1 : ATA_CONTROL_0);
    unsigned reg = (unsigned)req->addr - (second ? ATA_PORT_1 : ATA_PORT_0);
    if (!control && (reg == ATA_DATA || reg >= ATA_COMMAND_SIZE)) {
        req->value = UINT8_MAX; /* data is not moved by bytes */
    } else if (req->write) {
        if (control)
            write_control(ata, c, (uint8_t)req->value);
        else
            write_register(ata, c, reg, (uint8_t)req->value);
    } else {
        req->value = control ? read_control(c) : read_register(ata, c, reg);
    }
}

static void ata_access(struct vdev *dev, struct io_req *req)
{
    struct ata *ata = ata_of(dev);
    if (req->size == 1)
        access_byte(ata, req);
    else if (req->addr == ATA_PORT_0 || req->addr == ATA_PORT_1)
        access_data(ata, &ata->channel[req->addr == ATA_PORT_1], req);
    else
        vdev_split_bytes(dev, req);
}

/* ---- the whole ---- */

void ata_put_word(struct ata_channel *c, unsigned word, uint16_t value)
{
    c->buffer[2 * word] = (uint8_t)value;
    c->buffer[2 * word + 1] = (uint8_t)(value >> 8);
}

/* Text in IDENTIFY is padded with blanks, two characters to a word, the first in the upper byte. */
static void put_text(struct ata_channel *c, unsigned word, unsigned words, const char *text)
{
    for (unsigned i = 0; i < 2 * words; i++)
        c->buffer[(2 * word + i) ^ 1] = *text ? (uint8_t)*text++ : ' ';
}

/* 8.15.8 and 8.16: what disks and CD-ROM drives say alike. */
void ata_identify_common(struct ata *ata, struct ata_channel *c, const char *model)
{
    char serial[] = "BH0";
    const struct ata_unit *unit = ata_selected(c);
    uint16_t active = unit->transfer_mode >= ATA_MODE_MWDMA
                          ? (uint16_t)(0x100u << (unit->transfer_mode - ATA_MODE_MWDMA))
                          : 0;
    serial[2] = (char)('0' + 2 * ata_channel_index(ata, c) + c->selected);
    memset(c->buffer, 0, ATA_SECTOR);
    put_text(c, 10, 10, serial);
    put_text(c, 23, 4, "1.0");
    put_text(c, 27, 20, model);
    ata_put_word(c, 49, 0x0f00); /* IORDY, LBA, DMA */
    ata_put_word(c, 53, 0x0003); /* 54..58 and 64..70 are valid; no Ultra DMA */
    ata_put_word(c, 63, 0x0007 | active);
    ata_put_word(c, 64, 0x0003); /* PIO modes 3 and 4 */
    for (unsigned word = 65; word <= 68; word++)
        ata_put_word(c, word, 120); /* ns of a cycle, of DMA and of PIO */
    ata_put_word(c, 80, 0x0078);    /* ATA/ATAPI-3 .. 6 */
}

static void ata_reset(struct vdev *dev)
{
    struct ata *ata = ata_of(dev);
    for (unsigned i = 0; i < ATA_CHANNELS; i++) {
        struct ata_channel *c = &ata->channel[i];
        c->control = 0;
        reset_channel(ata, c);
        for (unsigned j = 0; j < 2; j++) {
            struct ata_unit *unit = &c->unit[j];
            unit->transfer_mode = 0;
            if (unit->kind == ATA_DISK)
                ata_disk_reset(unit);
            else if (unit->kind == ATA_CDROM)
                ata_cdrom_reset(unit);
        }
        c->bm_command = c->bm_status = 0;
        c->bm_table = 0;
    }
    vdev_set_timer(dev, VDEV_NEVER);
    ata_pci_reset(ata);
}

static void ata_timer(struct vdev *dev, uint64_t now_ns)
{
    struct ata *ata = ata_of(dev);
    for (unsigned i = 0; i < ATA_CHANNELS; i++)
        ata_dma_run(ata, &ata->channel[i]);
}

void ata_add(struct ata *ata, unsigned position, enum ata_kind kind, void *media, uint64_t size)
{
    ata->channel[position / 2].unit[position % 2] = (struct ata_unit){
        .kind = kind, .media = media, .sectors = size / (kind == ATA_CDROM ? ATA_CD_SECTOR : ATA_SECTOR)};
}

const struct vdev_ops ata_ops = {
    .name = "ata",
    .init = ata_reset,
    .reset = ata_reset,
    .access = ata_access,
    .timer = ata_timer,
};
