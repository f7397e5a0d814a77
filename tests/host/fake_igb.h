/* A model of the Intel 82576 (and I350) as its PF driver and its VFs see it: registers with what they do by
 * themselves, mailboxes with their locks, resets, and the card's switch, which says where a packet goes. Time
 * is the test's; while it passes the PF driver is polled every 10 ms, as the core does.
 *
 * Broken rules of the hardware (an access outside, to a register nobody knows, of the wrong width) abort.
 * On top of it: what Linux's igbvf does, as far as the PF can see it. */
#pragma once

#include "drivers/nic/igb_pf.h"

#define FAKE_IGB_WIRE (1u << 8) /* in a set of receivers, whose bits are VFs */

struct fake_igb {
    struct pf pf;
    struct dev_env env;
    struct igb priv;
    uint64_t now_us, next_poll_us;
    bool polled; /* time that passes polls the driver */
    uint32_t regs[IGB_BAR_SIZE / 4];
    uint32_t v2p[IGB_POOLS];
    uint32_t reads, writes;
    uint16_t phy_bmcr;
    uint64_t link_at_us; /* when negotiation ends; 0: it was not begun */
    /* Faults. */
    bool dead, stuck_reset, stuck_master, no_nvm, phy_error, phy_mute, semaphore_held, firmware_has_phy;
    uint32_t cable_mbps; /* 0: none */
    unsigned vfta_writes;
    bool filter_writes_seen; /* a filter was written since this was cleared */
};

/* A card after power-on, and a struct pf for it, not started. device: 0x10c9, 0x1521 ... */
void fake_igb_init(struct fake_igb *card, uint16_t device);
/* Starts the driver, with `vfs` VFs; aborts when it fails. Waits for the link. */
void fake_igb_start(struct fake_igb *card, uint32_t vfs);
/* Lets time pass. */
void fake_igb_run(struct fake_igb *card, uint64_t us);
uint32_t fake_igb_reg(const struct fake_igb *card, uint32_t offset);

/* The VF's own BAR: VFCTRL 0, STATUS 8, VMBMEM 0x800, V2PMAILBOX 0xc40. */
#define FAKE_VF_CTRL    0x000u
#define FAKE_VF_STATUS  0x008u
#define FAKE_VF_MEM     0x800u
#define FAKE_VF_MAILBOX 0xc40u
uint32_t fake_igb_vf_read(struct fake_igb *card, uint32_t vf, uint32_t offset);
void fake_igb_vf_write(struct fake_igb *card, uint32_t vf, uint32_t offset, uint32_t value);
/* Function level reset. */
void fake_igb_flr(struct fake_igb *card, uint32_t vf);

struct fake_packet {
    uint8_t to[PF_MAC_BYTES], from[PF_MAC_BYTES];
    uint16_t vlan; /* tag; 0: none */
    uint32_t size; /* with CRC and tag; 0: 64 */
};
/* Who gets a packet that VF `vf` sends (or, IGB_POOLS, that comes from the wire): bits of VFs, FAKE_IGB_WIRE.
 * Counts, and notes wrong senders, as the card does. */
uint32_t fake_igb_send(struct fake_igb *card, uint32_t vf, const struct fake_packet *packet);
/* The VLAN tag with which a VF's driver sees a packet of VLAN `vlan`: 0 when it was taken off. */
uint16_t fake_igb_tag_seen(const struct fake_igb *card, uint32_t vf, uint16_t vlan);

/* ---- igbvf ---- */

struct igbvf {
    struct fake_igb *card;
    uint32_t vf;
    uint8_t perm_mac[PF_MAC_BYTES], mac[PF_MAC_BYTES];
    uint32_t cached; /* read-clear bits of its mailbox not used yet */
    bool dead;       /* a message was not answered in time: it sends no more until a reset */
    bool look;       /* at the link */
    bool carrier;
};

/* What probing does: reset, RESET message. False: "PF still in reset state". */
bool igbvf_probe(struct igbvf *driver, struct fake_igb *card, uint32_t vf);
/* ip link set up; down. */
bool igbvf_open(struct igbvf *driver);
void igbvf_close(struct igbvf *driver);
bool igbvf_set_mac(struct igbvf *driver, const uint8_t mac[PF_MAC_BYTES]);
bool igbvf_set_vlan(struct igbvf *driver, uint16_t vlan, bool add);
void igbvf_set_groups(struct igbvf *driver, const uint16_t *hashes, unsigned count);
bool igbvf_set_mtu(struct igbvf *driver, uint32_t frame);
/* The watchdog, every 2 s and after an interrupt: updates `carrier`. False: the driver resets itself. */
bool igbvf_watchdog(struct igbvf *driver);
/* Any message, as it is; false: no answer. reply: what the buffer holds afterwards. */
bool igbvf_message(struct igbvf *driver, const uint32_t *msg, unsigned length,
                   uint32_t reply[IGB_MAIL_DWORDS]);
