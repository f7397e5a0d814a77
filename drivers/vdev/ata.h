/* An IDE controller as in Intel's PIIX3 (82371SB, function 1) with up to four units: disks (ATA/ATAPI-6,
 * INCITS 361) and CD-ROM drives (ATAPI, with the commands of MMC-3 that a boot or an operating system needs),
 * whose contents are in memory. Legacy ports and IRQ 14 and 15, PIO and bus-master DMA ("Programming
 * Interface for Bus Master IDE Controller", SFF-8038i). Commands complete at once, but for DMA, which is done
 * in slices so that no access takes long. */
#pragma once

#include "drivers/vdev/pci_host.h"

#define ATA_CHANNELS     2u
#define ATA_UNITS        4u /* by position: primary master, primary slave, secondary master, secondary slave */
#define ATA_SECTOR       512u
#define ATA_CD_SECTOR    2048u
#define ATA_BUFFER       2048u
#define ATA_COMMAND_SIZE 8u      /* ports of a channel's command block */
#define ATA_BM_SIZE      16u     /* ports of the bus-master BAR */
#define ATA_BM_PORT      0xc000u /* where it is after a reset, as a firmware would place it */
#define ATA_PORT_0       0x1f0u
#define ATA_PORT_1       0x170u
#define ATA_CONTROL_0    0x3f6u
#define ATA_CONTROL_1    0x376u
#define ATA_IRQ          14u /* of the first channel; the second has the next */

enum ata_kind { ATA_NONE, ATA_DISK, ATA_CDROM };

/* What is behind the units. `media` is the unit's; `at` and `size` lie within its size. */
struct ata_media_ops {
    void (*read)(void *media, uint64_t at, void *buf, size_t size);
    void (*write)(void *media, uint64_t at, const void *buf, size_t size);
};

struct ata_unit {
    enum ata_kind kind;
    void *media;
    uint64_t sectors; /* of ATA_SECTOR or ATA_CD_SECTOR bytes */
    bool intrq;       /* its interrupt is pending; drives the line while it is selected and nIEN is 0 */
    uint8_t reg[8];   /* the command block's, as written or as a command left them */
    uint8_t hob[8];   /* what they held before, for 48-bit commands */
    uint8_t error, status;
    uint8_t transfer_mode; /* SET FEATURES */
    union {
        struct {
            bool write_cache, look_ahead, standby;
            uint8_t multiple; /* sectors of a block, 0: READ and WRITE MULTIPLE are off */
            uint8_t heads, sectors;
            uint16_t cylinders; /* as the host set the translation */
        } disk;
        struct {
            bool attention, locked, ejected;
            uint8_t sense_key, asc;
        } cd;
    } u;
};

/* The data phase of the command under way. `fill` bytes of the buffer are part of it, `left` bytes come after
 * those. */
enum ata_flow_kind { ATA_FLOW_NONE, ATA_FLOW_IN, ATA_FLOW_OUT, ATA_FLOW_PACKET };
struct ata_flow {
    enum ata_flow_kind kind;
    bool dma, media; /* media: the bytes are the unit's at `at`, else only the buffer's */
    bool packet;     /* the data of a PACKET command, which end with its status */
    uint64_t at, left;
    uint64_t block;     /* bytes until the host is interrupted, or the command ends */
    uint32_t block_max; /* PIO: bytes that a block has at most */
    uint32_t pos, fill;
};

struct ata_channel {
    struct ata_unit unit[2];
    uint8_t control, selected;
    bool level; /* of the interrupt line */
    struct ata_flow flow;
    uint8_t bm_command, bm_status;
    uint32_t bm_table;    /* as the guest wrote it */
    uint32_t prd_at;      /* the next entry */
    uint64_t region_at;   /* of the current one: what is left */
    uint32_t region_left; /* bytes */
    bool prd_last;
    uint8_t buffer[ATA_BUFFER];
};

struct ata {
    struct vdev dev; /* ata_ops */
    struct vdev bm;  /* ata_bm_ops: the bus-master ports; only `dev` needs init and reset */
    const struct ata_media_ops *media;
    /* The bus-master ports are at `to` now, and no longer at `from`; 0: nowhere. */
    void (*moved)(void *ctx, uint16_t from, uint16_t to);
    void *moved_ctx;
    uint16_t bm_port; /* 0: not decoded */
    struct ata_channel channel[ATA_CHANNELS];
    struct pci_func isa, ide; /* 00:01.0 and 00:01.1 */
    struct pci_space isa_space, ide_space;
    uint32_t isa_storage[3 * PCI_SPACE_LEGACY_DWORDS], ide_storage[3 * PCI_SPACE_LEGACY_DWORDS];
};

extern const struct vdev_ops ata_ops, ata_bm_ops;

/* Once, before init, of a zeroed struct: the PCI functions, no units. */
void ata_setup(struct ata *ata, const struct ata_media_ops *media);
/* Connects a unit before init; position 0..ATA_UNITS-1, `size` in bytes, at least one sector. */
void ata_add(struct ata *ata, unsigned position, enum ata_kind kind, void *media, uint64_t size);
