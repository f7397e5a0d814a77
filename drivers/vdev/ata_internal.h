/* What the parts of the IDE controller share: registers, and the way from a command to its data. */
#pragma once

#include "drivers/vdev/ata.h"

/* Command block registers by port (ATA/ATAPI-6, chapter 7). */
enum {
    ATA_DATA,
    ATA_FEATURES, /* read: Error */
    ATA_COUNT,    /* PACKET: interrupt reason */
    ATA_LBA_LOW,
    ATA_LBA_MID, /* PACKET: byte count */
    ATA_LBA_HIGH,
    ATA_DEVICE,
    ATA_COMMAND, /* read: Status */
};

#define ATA_BSY  0x80u
#define ATA_DRDY 0x40u
#define ATA_DSC  0x10u
#define ATA_DRQ  0x08u
#define ATA_ERR  0x01u /* PACKET: CHK */

#define ATA_ERROR_IDNF 0x10u
#define ATA_ERROR_ABRT 0x04u
#define ATA_DIAG_GOOD  0x01u /* the diagnostic code of a unit that works */

#define ATA_DEVICE_LBA 0x40u
#define ATA_DEVICE_DEV 0x10u
#define ATA_HEAD       0x0fu

#define ATA_CMD_NOP             0x00u
#define ATA_CMD_DEVICE_RESET    0x08u
#define ATA_CMD_DIAGNOSTIC      0x90u
#define ATA_CMD_PACKET          0xa0u
#define ATA_CMD_IDENTIFY_PACKET 0xa1u
#define ATA_CMD_IDENTIFY        0xecu
#define ATA_CMD_SET_FEATURES    0xefu

/* SET FEATURES, subcommand 03h: PIO modes 0..4 with flow control, multiword DMA 0..2. */
#define ATA_MODE_MWDMA 0x20u

static inline struct ata_unit *ata_selected(struct ata_channel *c)
{
    return &c->unit[c->selected];
}

static inline unsigned ata_channel_index(const struct ata *ata, const struct ata_channel *c)
{
    return (unsigned)(c - ata->channel);
}

/* ata.c: what commands end in. All work on the selected unit. */
/* The command is over; `error` as in the Error register, 0 = well. Raises the interrupt. */
void ata_end(struct ata *ata, struct ata_channel *c, uint8_t error);
void ata_raise(struct ata *ata, struct ata_channel *c);
/* Begins a data phase of `size` > 0 bytes. From or to the media at `at`, or, with media = false, the buffer's
 * first `size` bytes (<= ATA_BUFFER). */
struct ata_phase {
    enum ata_flow_kind kind;
    bool dma, media, packet;
    uint64_t at, size;
    uint32_t block_max;
};
void ata_begin(struct ata *ata, struct ata_channel *c, struct ata_phase phase);
/* `n` bytes were moved to or from buffer[pos]; they are within the fill and the block. */
void ata_moved(struct ata *ata, struct ata_channel *c, uint32_t n);
/* What a unit's registers hold after a reset: its signature (9.12). */
void ata_signature(struct ata_unit *unit);
/* The words that both IDENTIFYs have in common, into the zeroed buffer. */
void ata_identify_common(struct ata *ata, struct ata_channel *c, const char *model);
/* SET FEATURES: false = ABRT. */
bool ata_set_transfer_mode(struct ata_unit *unit);
void ata_put_word(struct ata_channel *c, unsigned word, uint16_t value);

/* ata_disk.c, ata_cdrom.c: everything but the commands that all units have. */
void ata_disk_reset(struct ata_unit *unit);
void ata_disk_command(struct ata *ata, struct ata_channel *c, uint8_t command);
void ata_cdrom_reset(struct ata_unit *unit);
void ata_cdrom_command(struct ata *ata, struct ata_channel *c, uint8_t command);
/* The 12 bytes of the packet are in the buffer. */
void ata_cdrom_packet(struct ata *ata, struct ata_channel *c);
/* A block of the data phase begins (PIO), and its end. */
void ata_cdrom_block(struct ata_channel *c);
void ata_cdrom_done(struct ata *ata, struct ata_channel *c);

/* ata_dma.c */
/* Moves a slice of the data phase, when there is one and the guest lets it; asks for the timer when more is
 * to be done. */
void ata_dma_run(struct ata *ata, struct ata_channel *c);
#define ATA_BM_ACTIVE 0x01u
#define ATA_BM_ERROR  0x02u
#define ATA_BM_INTR   0x04u

/* ata_pci.c */
void ata_pci_reset(struct ata *ata);
bool ata_is_bus_master(const struct ata *ata);
