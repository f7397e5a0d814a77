#include "drivers/nic/igb_pf.h"

#define VENDOR_INTEL 0x8086u
#define POLL_US      10000u
/* Link, wrong senders, and one VF's counters: every eight of these a counter is read, well before it wraps.
 */
#define SLOW_US 200000u

STATIC_ASSERT(sizeof(struct igb) <= 4096, "a page is enough");

static bool is_i350(uint16_t device)
{
    return device == 0x1521;
}

static bool match(uint16_t vendor, uint16_t device)
{
    /* Copper: 82576 (also QEMU's), its two quad port cards, 82576NS; I350. */
    return vendor == VENDOR_INTEL &&
           (device == 0x10c9 || device == 0x10e8 || device == 0x1526 || device == 0x150a || is_i350(device));
}

static enum status start(struct pf *pf, char *why, size_t size)
{
    struct igb *igb = pf->priv;
    log_source_init(&igb->log, pf->name, LOG_INFO);
    igb->i350 = is_i350(pf->device);
    return igb_start_card(pf, why, size);
}

static enum status vfs_enabled(struct pf *pf, uint32_t count)
{
    if (count == 0 || count > IGB_POOLS)
        return ERR_RANGE;
    spin_lock(&pf->lock);
    pf->vf_count = count;
    igb_write(pf, IGB_VFLRE, ~0u);
    igb_write(pf, IGB_MBVFICR, ~0u);
    /* VFs' drivers see "PF in reset" until this. */
    igb_write(pf, IGB_CTRL_EXT, igb_read(pf, IGB_CTRL_EXT) | IGB_CTRL_EXT_PFRSTD);
    spin_unlock(&pf->lock);
    return STATUS_OK;
}

/* A MAC that the operator gives to a VF is not another one's that happened to choose it. */
static void take_mac(struct pf *pf, uint32_t vf, const uint8_t mac[PF_MAC_BYTES])
{
    struct igb *igb = pf->priv;
    for (uint32_t i = 0; i < pf->vf_count; i++) {
        for (unsigned slot = 0; slot < IGB_MACS; slot++) {
            if (i == vf || memcmp(igb->vf[i].macs[slot], mac, PF_MAC_BYTES) != 0)
                continue;
            memset(igb->vf[i].macs[slot], 0, PF_MAC_BYTES);
            igb_switch_mac(pf, i, slot);
            igb_mailbox_note(pf, i, IGB_REFUSED_MAC);
        }
    }
}

/* Nor is a VLAN. */
static void take_vlan(struct pf *pf, uint32_t vf, uint16_t vlan)
{
    struct igb *igb = pf->priv;
    for (uint32_t i = 0; i < pf->vf_count; i++) {
        const struct igb_vf *other = &igb->vf[i];
        if (i == vf || !other->open || other->policy.vlan || other->policy.trust)
            continue;
        igb_switch_vlan(pf, i, vlan, false);
        igb_switch_accept(pf, i);
    }
}

static void vf_policy(struct pf *pf, uint32_t vf, const struct pf_vf_policy *policy)
{
    struct igb *igb = pf->priv;
    spin_lock(&pf->lock);
    if (vf < pf->vf_count && !igb->gone) {
        struct igb_vf *v = &igb->vf[vf];
        igb_switch_close(pf, vf);
        *v = (struct igb_vf){.tokens = IGB_MAIL_BURST, .filled_us = pf->env->now_us(pf->env->ctx)};
        if (policy) {
            v->owned = true;
            v->policy = *policy;
            if (policy->has_mac)
                take_mac(pf, vf, policy->mac);
            if (policy->vlan)
                take_vlan(pf, vf, policy->vlan);
            igb_stats_begin(pf, vf);
            if (policy->rate_mbps && igb->i350)
                log_from(&igb->log, LOG_NO_VCPU, LOG_WARN,
                         "VF %u: an I350 cannot limit what a VF sends; rate is not kept", vf);
        }
        igb_switch_rate(pf, vf);
        /* What the last owner left: a reset, a message, a buffer never given back. */
        igb_write(pf, IGB_VFLRE, 1u << vf);
        igb_write(pf, IGB_MBVFICR, 1u << vf | 1u << (vf + IGB_MBVFICR_ACK_SHIFT));
        igb_write(pf, IGB_P2VMAILBOX(vf), IGB_P2V_RVFU);
    }
    spin_unlock(&pf->lock);
}

/* ---- polling ---- */

static void look_at_link(struct pf *pf)
{
    static const uint16_t speeds[] = {10, 100, 1000, 1000};
    struct igb *igb = pf->priv;
    uint32_t status = igb_read(pf, IGB_STATUS);
    bool up = status & IGB_STATUS_LU;
    uint32_t mbps = up ? speeds[IGB_STATUS_SPEED(status)] : 0;
    if (up == igb->link_up && mbps == igb->mbps)
        return;
    igb->link_up = up;
    igb->mbps = mbps;
    if (up)
        log_from(&igb->log, LOG_NO_VCPU, LOG_INFO, "link is up, %u Mb/s", mbps);
    else
        log_from(&igb->log, LOG_NO_VCPU, LOG_WARN, "link is down");
    for (uint32_t vf = 0; vf < pf->vf_count; vf++) {
        igb->vf[vf].ping_due = igb->vf[vf].open;
        igb_switch_rate(pf, vf);
    }
}

static void slow_work(struct pf *pf, uint64_t now_us)
{
    struct igb *igb = pf->priv;
    if (now_us < igb->slow_us)
        return;
    igb->slow_us = now_us + SLOW_US;
    look_at_link(pf);
    igb->slow_next = (uint8_t)((igb->slow_next + 1) % pf->vf_count);
    if (igb->vf[igb->slow_next].owned)
        igb_stats_sample(pf, igb->slow_next);
    uint32_t wrong = igb_read(pf, IGB_WVBR);
    wrong |= wrong >> IGB_POOLS; /* both queues */
    for (uint32_t vf = 0; vf < pf->vf_count; vf++) {
        /* Of one that was closed, the last packets may have lost their address under way. */
        if (!(wrong >> vf & 1u) || !igb->vf[vf].open)
            continue;
        igb->vf[vf].spoofed++;
        igb_mailbox_note(pf, vf, IGB_REFUSED_SPOOF);
    }
    log_settle(&igb->log);
}

static void handle_resets(struct pf *pf, uint32_t resets)
{
    struct igb *igb = pf->priv;
    if (resets)
        igb_write(pf, IGB_VFLRE, resets);
    for (uint32_t vf = 0; vf < pf->vf_count; vf++) {
        if (!(resets >> vf & 1u))
            continue;
        igb->vf[vf].resets++;
        igb->vf[vf].unread = false;
        igb_switch_close(pf, vf);
    }
}

static bool poll_locked(struct pf *pf)
{
    struct igb *igb = pf->priv;
    uint32_t mask = (1u << pf->vf_count) - 1;
    /* In this order. A driver resets its VF and then says RESET. Read the other way round, both may fall
     * between the two reads: RESET would be answered now, and the next poll, which sees the reset, would
     * close what it has opened. */
    uint32_t mail = igb_read(pf, IGB_MBVFICR), resets = igb_read(pf, IGB_VFLRE);
    if (mail == ~0u && resets == ~0u) {
        igb->gone = true;
        log_line(LOG_ERROR, pf->name, "the card does not answer any more; its VFs are cut off");
        return false;
    }
    uint64_t now_us = pf->env->now_us(pf->env->ctx);
    handle_resets(pf, resets & mask);
    uint32_t acks = mail >> IGB_MBVFICR_ACK_SHIFT & mask;
    if (acks)
        igb_write(pf, IGB_MBVFICR, acks << IGB_MBVFICR_ACK_SHIFT);
    slow_work(pf, now_us);
    for (uint32_t vf = 0; vf < pf->vf_count; vf++) {
        if (acks >> vf & 1u)
            igb->vf[vf].unread = false;
        if (mail >> vf & 1u)
            igb_mailbox_serve(pf, vf, now_us);
        else if (igb->vf[vf].ping_due)
            igb_mailbox_ping(pf, vf, now_us);
    }
    return mail || resets;
}

static bool poll(struct pf *pf)
{
    const struct igb *igb = pf->priv;
    if (!spin_trylock(&pf->lock))
        return true; /* somebody wants something of it */
    bool busy = pf->vf_count && !igb->gone && poll_locked(pf);
    spin_unlock(&pf->lock);
    return busy;
}

static void vf_status(struct pf *pf, uint32_t vf, struct pf_vf_status *status)
{
    const struct igb *igb = pf->priv;
    *status = (struct pf_vf_status){0};
    spin_lock(&pf->lock);
    if (vf < pf->vf_count) {
        const struct igb_vf *v = &igb->vf[vf];
        if (v->owned && !igb->gone)
            igb_stats_sample(pf, vf);
        status->enabled = v->owned;
        status->ready = v->open;
        bool given = v->policy.has_mac && igb_mac_is_zero(v->macs[0]);
        memcpy(status->mac, given ? v->policy.mac : v->macs[0], PF_MAC_BYTES);
        status->vlan = v->policy.vlan;
        status->rate_unsupported = v->policy.rate_mbps && igb->i350;
        status->rx_packets = v->total[IGB_RX_PACKETS];
        status->tx_packets = v->total[IGB_TX_PACKETS];
        status->rx_bytes = v->total[IGB_RX_BYTES];
        status->tx_bytes = v->total[IGB_TX_BYTES];
        status->spoofed = v->spoofed;
        status->requests = v->requests;
        status->refused = v->refused;
        status->deferred = v->deferred;
        status->resets = v->resets;
    }
    spin_unlock(&pf->lock);
}

static bool link(struct pf *pf, uint32_t *mbps)
{
    const struct igb *igb = pf->priv;
    spin_lock(&pf->lock);
    bool up = igb->link_up && !igb->gone;
    *mbps = up ? igb->mbps : 0;
    spin_unlock(&pf->lock);
    return up;
}

const struct pf_ops igb_pf_ops = {
    .name = "igb",
    .match = match,
    .priv_size = sizeof(struct igb),
    .vfs_max = IGB_POOLS,
    .poll_us = POLL_US,
    .start = start,
    .vfs_enabled = vfs_enabled,
    .vf_policy = vf_policy,
    .poll = poll,
    .vf_status = vf_status,
    .link = link,
};
