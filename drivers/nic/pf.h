/* The physical function (PF) of a network card with virtual functions (VFs), driven without a host OS: what a
 * driver offers. A PF carries no traffic of its own; its driver keeps the card's switch, and answers what the
 * VFs' drivers, which run inside of VMs, ask for.
 *
 * Order: pf_find(), memory for `priv`, start(), SR-IOV on (drivers/pci), vfs_enabled(), vf_policy() for each
 * VF that has an owner, poll() from then on. Memory Space and Bus Master of the PF are on before start():
 * some cards deliver nothing to a VF while the PF is no bus master.
 *
 * poll(), vf_policy(), vf_status() and link() may be called on every CPU once vfs_enabled() has returned;
 * they take pf->lock for a bounded number of register accesses. poll() never waits for it. Nothing a VF says
 * is believed: a VF can use up its own share of polling, and nothing else. */
#pragma once

#include "drivers/mmio.h"
#include "hv/lib/lock.h"

#define PF_MAC_BYTES 6u
#define PF_VLAN_MAX  4094u
#define PF_NAME_MAX  16u
#define PF_VFS_MAX   8u /* of the cards known here */

/* What a VF may do. It is the operator's, and outlives resets of the VF. */
struct pf_vf_policy {
    uint8_t mac[PF_MAC_BYTES];
    bool has_mac;  /* false: the guest chooses its own */
    uint16_t vlan; /* 1..4094: all its traffic is in this VLAN, and it sees no tags; 0: guest may choose */
    uint32_t rate_mbps; /* at most this much is sent; 0: no cap */
    bool spoofcheck;    /* only its own MAC and VLANs as sender */
    bool trust;         /* may change a given MAC, add MACs to it, join others' VLANs, be promiscuous */
    const char *owner;  /* the VM's name, for the log; NULL: none. Stays there as long as the policy */
};

struct pf_vf_status {
    bool enabled;              /* has an owner (a policy) */
    bool ready;                /* its driver has reset it, and may send and receive */
    uint8_t mac[PF_MAC_BYTES]; /* all zero: none yet */
    uint16_t vlan;             /* port VLAN, or 0 */
    bool rate_unsupported;     /* the policy asks for a cap, and the card has none */
    uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes; /* since its policy was set; VF to VF included */
    uint64_t spoofed;           /* times the card dropped packets with a sender that is not the VF's */
    uint64_t requests, refused; /* mailbox messages, and those answered with a NACK */
    uint64_t deferred;          /* times a message had to wait because the VF sent too many */
    uint64_t resets;            /* function level resets, and resets by its driver */
};

struct pf;

struct pf_ops {
    const char *name; /* "igb" */
    bool (*match)(uint16_t vendor, uint16_t device);
    uint32_t priv_size; /* bytes of memory the caller gives in pf->priv, zeroed, aligned to 8 */
    uint32_t vfs_max;   /* the most VFs it can serve */
    uint32_t poll_us;   /* how often poll() wants to be called; rather less when it found nothing for long */

    /* Reset, link, switch, with nothing passing yet; before VFs are enabled. Every wait is bounded (all
     * together less than 4 s) and goes through env->delay_us. A missing link is no failure.
     * ERR_NOT_FOUND: the card does not answer, or did not come out of its reset. why: a sentence. */
    enum status (*start)(struct pf *pf, char *why, size_t size);
    /* SR-IOV is on with `count` VFs: tells their drivers that the PF is ready. All VFs are without owner.
     * ERR_RANGE: more than vfs_max, or none. */
    enum status (*vfs_enabled)(struct pf *pf, uint32_t count);
    /* Before VF `vf`'s VM starts, after the VF's FLR. NULL: the VF belongs to nobody, nothing goes in or out,
     * nothing it asks is granted. Counters begin at 0 with a policy. vf >= vf_count: nothing happens. */
    void (*vf_policy)(struct pf *pf, uint32_t vf, const struct pf_vf_policy *policy);
    /* Mailboxes, resets, link. Bounded work; two register reads when idle. False: no VF wanted anything. */
    bool (*poll)(struct pf *pf);
    /* All zero when vf >= vf_count. */
    void (*vf_status)(struct pf *pf, uint32_t vf, struct pf_vf_status *status);
    /* True: up, at *mbps (0 when down). As poll() saw it last. */
    bool (*link)(struct pf *pf, uint32_t *mbps);
};

struct pf {
    const struct pf_ops *ops; /* ---- set by the owner before start(), then constant */
    struct mmio bar;          /* BAR 0 */
    const struct dev_env *env;
    uint16_t bdf;
    uint16_t device;        /* device id */
    char name[PF_NAME_MAX]; /* who speaks in the log: "pf 01:00.0" */
    void *priv;             /* ops->priv_size bytes */
    struct spinlock lock;   /* ---- the driver's. Guards *priv and the registers; last in the lock order
                               but for the log's */
    uint32_t vf_count;      /* 0 until vfs_enabled() */
};

/* The driver for a PF, or NULL. */
const struct pf_ops *pf_find(uint16_t vendor, uint16_t device);
