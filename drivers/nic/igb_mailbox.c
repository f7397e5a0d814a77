#include "drivers/nic/igb_pf.h"
#include "hv/lib/bytes.h"

#define PER_SECOND 50u
#define US_PER_S   1000000u
/* After this long, a message that the VF has not taken may be overwritten by a newer one. */
#define UNREAD_US US_PER_S

#define MIN_FRAME 64u
#define VLAN_TAG  4u
#define VLAN_LAST 4095u

void igb_mailbox_note(struct pf *pf, uint32_t vf, enum igb_refusal kind)
{
    static const char *const texts[] = {
        [IGB_REFUSED_MAC] = "asked for a MAC that it may not have: refused",
        [IGB_REFUSED_VLAN] = "asked for a VLAN that it may not have, or for more than its share: refused",
        [IGB_REFUSED_PROMISC] = "asked to see others' packets, which takes trust=on: refused",
        [IGB_REFUSED_FRAME] = "asked for a frame length that the card has not: refused",
        [IGB_REFUSED_MESSAGE] = "sent a message that means nothing: refused",
        [IGB_REFUSED_SPOOF] = "sends packets with a sender that is not its own: dropped",
    };
    struct igb *igb = pf->priv;
    struct igb_vf *v = &igb->vf[vf];
    if (v->refusals_told & 1u << kind)
        return;
    v->refusals_told |= 1u << kind;
    if (v->owned && v->policy.owner)
        log_from(&igb->log, LOG_NO_VCPU, LOG_WARN, "VM %s, VF %u %s", v->policy.owner, vf, texts[kind]);
    else
        log_from(&igb->log, LOG_NO_VCPU, LOG_WARN, "VF %u %s", vf, texts[kind]);
}

/* ---- what can be asked for. False: refused, and nothing has changed ---- */

static bool set_mac(struct pf *pf, uint32_t vf, const uint32_t *msg)
{
    struct igb *igb = pf->priv;
    struct igb_vf *v = &igb->vf[vf];
    uint32_t how = IGB_MAIL_INFO(msg[0]), slot = 0;
    if (how == IGB_MAIL_MAC_CLEAR) {
        for (slot = 1; slot < IGB_MACS; slot++) {
            if (igb_mac_is_zero(v->macs[slot]))
                continue;
            memset(v->macs[slot], 0, PF_MAC_BYTES);
            igb_switch_mac(pf, vf, slot);
        }
        return true;
    }
    uint8_t mac[PF_MAC_BYTES] = {(uint8_t)msg[1],         (uint8_t)(msg[1] >> 8), (uint8_t)(msg[1] >> 16),
                                 (uint8_t)(msg[1] >> 24), (uint8_t)msg[2],        (uint8_t)(msg[2] >> 8)};
    bool group = mac[0] & 1u, own = memcmp(mac, v->macs[0], PF_MAC_BYTES) == 0;
    bool locked = v->policy.has_mac && !v->policy.trust;
    if (how > IGB_MAIL_MAC_ADD || group || igb_mac_is_zero(mac) || (locked && !own) ||
        igb_switch_mac_taken(igb, vf, mac))
        return false;
    if (own)
        return true;
    if (how == IGB_MAIL_MAC_ADD) {
        for (slot = 1; slot < IGB_MACS && !igb_mac_is_zero(v->macs[slot]); slot++)
            if (memcmp(mac, v->macs[slot], PF_MAC_BYTES) == 0)
                return true;
        if (slot == IGB_MACS)
            return false;
    }
    memcpy(v->macs[slot], mac, PF_MAC_BYTES);
    igb_switch_mac(pf, vf, slot);
    return true;
}

/* Bit 7 of the info says that there are more groups than fit; some drivers set it. Whoever is not trusted
 * with all multicast gets those that did fit. */
static bool set_groups(struct pf *pf, uint32_t vf, const uint32_t *msg)
{
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    uint32_t count = IGB_MAIL_INFO(msg[0]) & ~IGB_MAIL_OVERFLOW;
    if (count > IGB_MAIL_HASHES)
        return false;
    v->promisc_multicast = IGB_MAIL_INFO(msg[0]) & IGB_MAIL_OVERFLOW && v->policy.trust;
    v->group_count = (uint8_t)count;
    for (unsigned i = 0; i < count; i++)
        v->groups[i] = msg[1 + i / 2] >> i % 2 * 16 & IGB_HASH_MASK;
    igb_switch_groups(pf);
    igb_switch_accept(pf, vf);
    return true;
}

static bool set_vlan(struct pf *pf, uint32_t vf, const uint32_t *msg)
{
    const struct igb *igb = pf->priv;
    const struct igb_vf *v = &igb->vf[vf];
    uint32_t vlan = msg[1], add = IGB_MAIL_INFO(msg[0]);
    if (add > 1 || vlan >= VLAN_LAST)
        return false;
    if (vlan == 0)
        return true; /* drivers ask for it always; whether untagged packets pass is not theirs to say */
    /* A VLAN that the operator gave to another VM is that VM's, unless this one is trusted (to route, say).
     */
    bool taken = add && !v->policy.trust && igb_switch_vlan_taken(igb, vf, (uint16_t)vlan);
    if (v->policy.vlan || taken || !igb_switch_vlan(pf, vf, (uint16_t)vlan, add))
        return false;
    igb_switch_accept(pf, vf);
    return true;
}

static bool set_frame(struct pf *pf, uint32_t vf, const uint32_t *msg)
{
    if (msg[1] < MIN_FRAME || msg[1] > IGB_MAX_FRAME - VLAN_TAG)
        return false;
    ((struct igb *)pf->priv)->vf[vf].max_frame = msg[1] + VLAN_TAG;
    igb_switch_accept(pf, vf);
    return true;
}

static bool set_promisc(struct pf *pf, uint32_t vf, const uint32_t *msg)
{
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    uint32_t what = IGB_MAIL_INFO(msg[0]);
    if (what & ~(IGB_MAIL_PROMISC_UNICAST | IGB_MAIL_PROMISC_MULTICAST) || (what && !v->policy.trust))
        return false;
    v->promisc_unicast = what & IGB_MAIL_PROMISC_UNICAST;
    v->promisc_multicast = what & IGB_MAIL_PROMISC_MULTICAST;
    igb_switch_accept(pf, vf);
    return true;
}

/* ---- messages ---- */

/* msg: the request, and then the reply; returns the reply's length. */
static unsigned answer_reset(struct pf *pf, uint32_t vf, uint32_t *msg)
{
    const struct igb_vf *v = &((const struct igb *)pf->priv)->vf[vf];
    igb_switch_close(pf, vf);
    igb_switch_open(pf, vf);
    const uint8_t *mac = v->macs[0];
    /* igbvf compares with exactly these two values: no CTS here. NACK: it shall choose a MAC itself. */
    msg[0] = IGB_MAIL_RESET | (igb_mac_is_zero(mac) ? IGB_MAIL_NACK : IGB_MAIL_ACK);
    msg[1] = bytes_get32(mac);
    msg[2] = bytes_get16(mac + 4);
    return 3;
}

static unsigned answer(struct pf *pf, uint32_t vf, uint32_t *msg)
{
    static const struct {
        bool (*act)(struct pf *pf, uint32_t vf, const uint32_t *msg);
        enum igb_refusal refusal;
    } requests[] = {
        [IGB_MAIL_SET_MAC] = {set_mac, IGB_REFUSED_MAC},
        [IGB_MAIL_MULTICAST] = {set_groups, IGB_REFUSED_MESSAGE},
        [IGB_MAIL_VLAN] = {set_vlan, IGB_REFUSED_VLAN},
        [IGB_MAIL_LPE] = {set_frame, IGB_REFUSED_FRAME},
        [IGB_MAIL_PROMISC] = {set_promisc, IGB_REFUSED_PROMISC},
    };
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    uint32_t type = IGB_MAIL_TYPE(msg[0]);
    if (msg[0] == IGB_MAIL_RESET && v->owned)
        return answer_reset(pf, vf, msg);
    bool known =
        !(msg[0] & (IGB_MAIL_ACK | IGB_MAIL_NACK)) && type < ARRAY_SIZE(requests) && requests[type].act;
    bool granted = v->open && known && requests[type].act(pf, vf, msg);
    uint32_t reply = msg[0] & (0xffffu | 0xffu << IGB_MAIL_INFO_SHIFT);
    if (!granted) {
        v->refused++;
        if (v->open)
            igb_mailbox_note(pf, vf, known ? requests[type].refusal : IGB_REFUSED_MESSAGE);
        /* igbvf sees the refusal of a VLAN only without the info. */
        if (type == IGB_MAIL_VLAN)
            reply = type;
    }
    msg[0] = reply | (granted ? IGB_MAIL_ACK : IGB_MAIL_NACK) | (v->open ? IGB_MAIL_CTS : 0);
    return 1;
}

/* False: the VF has it, and keeps it as long as it likes. */
static bool take_buffer(struct pf *pf, uint32_t vf)
{
    igb_write(pf, IGB_P2VMAILBOX(vf), IGB_P2V_PFU);
    return igb_read(pf, IGB_P2VMAILBOX(vf)) & IGB_P2V_PFU;
}

static bool may_send(struct igb_vf *v, uint64_t now_us)
{
    uint64_t come = (now_us - v->filled_us) * PER_SECOND / US_PER_S;
    if (come) {
        v->tokens = come >= IGB_MAIL_BURST - v->tokens ? IGB_MAIL_BURST : v->tokens + (uint32_t)come;
        v->filled_us = v->tokens == IGB_MAIL_BURST ? now_us : v->filled_us + come * (US_PER_S / PER_SECOND);
    }
    if (v->tokens == 0 && !v->waits) {
        v->waits = true;
        v->deferred++;
    }
    return v->tokens > 0;
}

static void sent(struct igb_vf *v, uint64_t now_us)
{
    v->unread = true;
    v->sent_us = now_us;
}

void igb_mailbox_serve(struct pf *pf, uint32_t vf, uint64_t now_us)
{
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    uint32_t msg[IGB_MAIL_DWORDS];
    if (!may_send(v, now_us) || !take_buffer(pf, vf))
        return;
    v->tokens--;
    v->waits = false;
    v->requests++;
    igb_write(pf, IGB_MBVFICR, 1u << vf);
    for (unsigned i = 0; i < IGB_MAIL_DWORDS; i++)
        msg[i] = igb_read(pf, IGB_VMBMEM(vf) + 4 * i);
    unsigned length = answer(pf, vf, msg);
    for (unsigned i = 0; i < length; i++)
        igb_write(pf, IGB_VMBMEM(vf) + 4 * i, msg[i]);
    /* Acknowledged, answered and given back at once: igbvf takes its link for lost when it looks in between.
     */
    igb_write(pf, IGB_P2VMAILBOX(vf), IGB_P2V_ACK | IGB_P2V_STS);
    sent(v, now_us);
}

void igb_mailbox_ping(struct pf *pf, uint32_t vf, uint64_t now_us)
{
    struct igb_vf *v = &((struct igb *)pf->priv)->vf[vf];
    if (!v->open) {
        v->ping_due = false;
        return;
    }
    if ((v->unread && now_us - v->sent_us < UNREAD_US) || !take_buffer(pf, vf))
        return;
    if (igb_read(pf, IGB_MBVFICR) & 1u << vf) { /* a request has come into it */
        igb_write(pf, IGB_P2VMAILBOX(vf), 0);
        return;
    }
    igb_write(pf, IGB_VMBMEM(vf), IGB_MAIL_PING | IGB_MAIL_CTS);
    igb_write(pf, IGB_P2VMAILBOX(vf), IGB_P2V_STS);
    v->ping_due = false;
    sent(v, now_us);
}
