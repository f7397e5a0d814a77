/* PF driver of the Intel 82576 and I350 (copper). What its files share; users want igb_pf_ops only.
 *
 *   igb_start.c    reset, PHY, the card's registers as they are without owners
 *   igb_switch.c   the card's switch: who gets and sends what
 *   igb_mailbox.c  what VFs ask for
 *   igb_stats.c    counters
 *   igb_pf.c       struct pf_ops: policy, polling
 *
 * A VF is *closed* (nothing goes in or out, no filter of the card names it) or *open*. It opens when its
 * driver says RESET and it has an owner; it closes with every reset and change of owner. */
#pragma once

#include "drivers/nic/igb_regs.h"
#include "drivers/nic/pf.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

/* Each VF has these of the card's 24 address filters for itself, so that none can use up another's. */
#define IGB_MACS 3u
/* A bucket of tokens for each VF, one for a message: it holds this many. Its driver needs about ten messages
 * to come up, and one for each VLAN or list of groups afterwards. */
#define IGB_MAIL_BURST 32u
/* Counted: packets received, sent; bytes received, sent. */
enum igb_counter { IGB_RX_PACKETS, IGB_TX_PACKETS, IGB_RX_BYTES, IGB_TX_BYTES, IGB_COUNTERS };

/* What was refused, once per owner for the log. */
enum igb_refusal {
    IGB_REFUSED_MAC,
    IGB_REFUSED_VLAN,
    IGB_REFUSED_PROMISC,
    IGB_REFUSED_FRAME,
    IGB_REFUSED_MESSAGE,
    IGB_REFUSED_SPOOF, /* not by us: the card's */
};

struct igb_vf {
    struct pf_vf_policy policy; /* meaningful when owned */
    bool owned;
    bool open; /* clear to send */
    bool promisc_unicast, promisc_multicast;
    uint8_t group_count;
    uint32_t refusals_told;               /* bit: enum igb_refusal */
    uint8_t macs[IGB_MACS][PF_MAC_BYTES]; /* [0] is its own; all zero: none */
    uint16_t groups[IGB_MAIL_HASHES];     /* hashes of multicast addresses, 12 bits each */
    uint32_t max_frame;                   /* bytes with VLAN tag */

    uint32_t tokens;    /* messages that it may send now */
    uint64_t filled_us; /* up to here tokens have come in */
    bool waits;         /* a message of it waits for tokens */
    bool unread;        /* it has not taken our last message, sent at sent_us */
    bool ping_due;
    uint64_t sent_us;

    uint32_t last[IGB_COUNTERS]; /* the card's, when read last */
    uint64_t total[IGB_COUNTERS];
    uint64_t spoofed, requests, refused, deferred, resets;
};

struct igb {
    struct log_source log;
    bool i350;
    bool gone; /* answers no more; said once */
    bool uta_open;
    bool link_up;
    uint32_t mbps;
    uint32_t txswc;                 /* as written */
    uint8_t slow_next;              /* the VF whose counters are next */
    uint64_t slow_us;               /* when the slow work is due */
    uint32_t mta[IGB_TABLE_DWORDS]; /* as written */
    struct {
        uint16_t vlan;
        uint8_t pools; /* 0: entry is free. Entry 0 is VLAN 0: untagged */
    } vlvf[IGB_VLVFS]; /* as written */
    struct igb_vf vf[IGB_POOLS];
};

extern const struct pf_ops igb_pf_ops;

static inline uint32_t igb_read(const struct pf *pf, uint32_t offset)
{
    return mmio_read32(&pf->bar, offset);
}
static inline void igb_write(const struct pf *pf, uint32_t offset, uint32_t value)
{
    mmio_write32(&pf->bar, offset, value);
}

/* ---- igb_start.c ---- */
enum status igb_start_card(struct pf *pf, char *why, size_t size);

/* ---- igb_switch.c: changes of what passes. pf->lock is held ---- */
/* The registers with nothing passing. */
void igb_switch_init(struct pf *pf);
/* Programs all that is the VF's, and lets it send and receive. It is owned, and closed. */
void igb_switch_open(struct pf *pf, uint32_t vf);
/* Takes all that away; what the VF asked for is forgotten. Harmless when it is closed. */
void igb_switch_close(struct pf *pf, uint32_t vf);
/* Its own address filters, as in vf->macs. */
void igb_switch_mac(struct pf *pf, uint32_t vf, uint32_t slot);
/* Adds the VF to a VLAN or takes it out. False: it has its share of VLANs already. */
bool igb_switch_vlan(struct pf *pf, uint32_t vf, uint16_t vlan, bool add);
/* Frame length, promiscuity, untagged packets, VLAN stripping. */
void igb_switch_accept(struct pf *pf, uint32_t vf);
/* The card's table of multicast hashes, from those of all VFs. */
void igb_switch_groups(struct pf *pf);
/* Writes the cap of the owner's policy, or none; depends on the link's speed. */
void igb_switch_rate(struct pf *pf, uint32_t vf);
/* Is there, besides `vf`, a VF that has this address, or is promised it? */
bool igb_switch_mac_taken(const struct igb *igb, uint32_t vf, const uint8_t mac[PF_MAC_BYTES]);
/* Is this the port VLAN of another VF? */
bool igb_switch_vlan_taken(const struct igb *igb, uint32_t vf, uint16_t vlan);

/* ---- igb_mailbox.c. pf->lock is held ---- */
/* Answers the VF's message, if it may send one now and the buffer can be had. */
void igb_mailbox_serve(struct pf *pf, uint32_t vf, uint64_t now_us);
/* Tells an open VF to look at the link, when its buffer is free. */
void igb_mailbox_ping(struct pf *pf, uint32_t vf, uint64_t now_us);
/* Says into the log what the VF was refused, the first time. */
void igb_mailbox_note(struct pf *pf, uint32_t vf, enum igb_refusal kind);

/* ---- igb_stats.c. pf->lock is held ---- */
/* Adds what the card has counted since the last time. Bytes wrap after 34 s at 1 Gb/s. */
void igb_stats_sample(struct pf *pf, uint32_t vf);
/* Counting begins now, at 0. */
void igb_stats_begin(struct pf *pf, uint32_t vf);

static inline bool igb_mac_is_zero(const uint8_t mac[PF_MAC_BYTES])
{
    static const uint8_t zero[PF_MAC_BYTES];
    return memcmp(mac, zero, PF_MAC_BYTES) == 0;
}
