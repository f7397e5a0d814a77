#include <string.h>
#include "tests/host/fake_igb.h"
#include "tests/host/fake_vdev_env.h"

#define POLL_US      10000u
#define NEGOTIATE_US 500000u
#define V2P_CLEARED  (IGB_V2P_PFSTS | IGB_V2P_PFACK | IGB_V2P_RSTD)
#define NOTHING      0xffffffffu

static uint32_t *reg(struct fake_igb *card, uint32_t offset)
{
    return &card->regs[offset / 4];
}

uint32_t fake_igb_reg(const struct fake_igb *card, uint32_t offset)
{
    return card->regs[offset / 4];
}

static bool in(uint32_t offset, uint32_t first, uint32_t count, uint32_t step)
{
    return offset >= first && offset < first + count * step && (offset - first) % step == 0;
}

static bool is_filter(uint32_t offset)
{
    return in(offset, IGB_MTA(0), IGB_TABLE_DWORDS, 4) || in(offset, IGB_VFTA(0), IGB_TABLE_DWORDS, 4) ||
           in(offset, IGB_UTA(0), IGB_TABLE_DWORDS, 4) || in(offset, IGB_RAL(0), 32, 4) ||
           in(offset, IGB_RAL(16), 32, 4) || in(offset, IGB_VMOLR(0), IGB_POOLS, 4) ||
           in(offset, IGB_VLVF(0), IGB_VLVFS, 4) || in(offset, IGB_VMVIR(0), IGB_POOLS, 4) ||
           in(offset, IGB_DVMOLR(0), IGB_POOLS, 64) || offset == IGB_VFRE || offset == IGB_VFTE ||
           offset == IGB_DTXSWC || offset == IGB_TXSWC;
}

static bool is_known(const struct fake_igb *card, uint32_t offset)
{
    static const uint32_t plain[] = {IGB_CTRL, IGB_STATUS,     IGB_EECD,    IGB_CTRL_EXT, IGB_MDIC,
                                     IGB_IMC,  IGB_RCTL,       IGB_TCTL,    IGB_EEMNGCTL, IGB_GPIE,
                                     IGB_EIMC, IGB_QDE,        IGB_RLPML,   IGB_MRQC,     IGB_VT_CTL,
                                     IGB_SWSM, IGB_SW_FW_SYNC, IGB_MBVFICR, IGB_VFLRE,    IGB_WVBR};
    static const uint32_t only_82576[] = {IGB_DTXCTL,   IGB_RPLOLR,   IGB_DTXSWC,
                                          IGB_RTTDQSEL, IGB_RTTBCNRM, IGB_RTTBCNRC};
    bool i350 = card->pf.device == 0x1521;
    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++)
        if (offset == plain[i])
            return true;
    for (unsigned i = 0; i < ARRAY_SIZE(only_82576); i++)
        if (offset == only_82576[i])
            return !i350;
    if (offset == IGB_TXSWC || offset == IGB_PHPM || in(offset, IGB_DVMOLR(0), IGB_POOLS, 64))
        return i350;
    return is_filter(offset) || in(offset, IGB_VMBMEM(0), IGB_POOLS * IGB_MAIL_DWORDS, 4) ||
           in(offset, IGB_P2VMAILBOX(0), IGB_POOLS, 4) || in(offset, IGB_PFVFGPRC(0), IGB_POOLS, 0x100) ||
           in(offset, IGB_PFVFGPTC(0), IGB_POOLS, 0x100) || in(offset, IGB_PFVFGORC(0), IGB_POOLS, 0x100) ||
           in(offset, IGB_PFVFGOTC(0), IGB_POOLS, 0x100);
}

static uint32_t status_register(struct fake_igb *card)
{
    uint32_t status = card->link_at_us && card->now_us >= card->link_at_us && card->cable_mbps &&
                              fake_igb_reg(card, IGB_CTRL) & IGB_CTRL_SLU
                          ? IGB_STATUS_LU
                          : 0;
    status |= (card->cable_mbps == 1000 ? 2u : card->cable_mbps == 100 ? 1u : 0) << 6;
    if (!(fake_igb_reg(card, IGB_CTRL) & IGB_CTRL_GIO_MASTER_DISABLE) || card->stuck_master)
        status |= IGB_STATUS_GIO_MASTER_ENABLE;
    return status;
}

static uint32_t pf_read(void *ctx, uint64_t offset)
{
    struct fake_igb *card = ctx;
    FAKE_REQUIRE(offset % 4 == 0 && offset < IGB_BAR_SIZE && is_known(card, (uint32_t)offset));
    card->reads++;
    if (card->dead)
        return NOTHING;
    uint32_t *value = reg(card, (uint32_t)offset), before = *value;
    switch (offset) {
    case IGB_STATUS:
        return status_register(card);
    case IGB_SWSM:
        *value |= IGB_SWSM_SMBI;
        return before | (card->semaphore_held ? IGB_SWSM_SMBI : 0);
    case IGB_SW_FW_SYNC:
        return before | (card->firmware_has_phy ? IGB_SW_FW_SYNC_PHY(0) << IGB_SW_FW_SYNC_FW_SHIFT : 0);
    case IGB_WVBR:
        *value = 0;
        return before;
    default:
        return before;
    }
}

static void reset_card(struct fake_igb *card)
{
    /* Bus mastering stays off where it was asked off: worse than the real thing, and no driver should rely on
     * it. */
    uint32_t kept = fake_igb_reg(card, IGB_CTRL) & IGB_CTRL_GIO_MASTER_DISABLE;
    memset(card->regs, 0, sizeof(card->regs));
    /* The tables come up with anything in them; the PF's own address is in the first filter. */
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++) {
        *reg(card, IGB_MTA(i)) = 0x5a5a0000u + i;
        *reg(card, IGB_VFTA(i)) = 0xa5a50000u + i;
        *reg(card, IGB_UTA(i)) = ~0u;
    }
    *reg(card, IGB_RAL(0)) = 0x60821252;
    *reg(card, IGB_RAH(0)) = IGB_RAH_AV | 0x6057;
    *reg(card, IGB_EECD) = card->no_nvm ? 0 : IGB_EECD_AUTO_RD;
    *reg(card, IGB_EEMNGCTL) = card->no_nvm ? 0 : IGB_EEMNGCTL_CFG_DONE(0);
    *reg(card, IGB_CTRL) = kept | (card->stuck_reset ? IGB_CTRL_RST : 0);
    *reg(card, IGB_PHPM) = IGB_PHPM_GO_LINKD;
    card->link_at_us = 0;
    for (unsigned vf = 0; vf < IGB_POOLS; vf++)
        card->v2p[vf] = IGB_V2P_RSTI;
}

static void write_mdic(struct fake_igb *card, uint32_t value)
{
    if (card->phy_mute)
        return;
    *reg(card, IGB_MDIC) = value | IGB_MDIC_READY | (card->phy_error ? IGB_MDIC_ERROR : 0);
    if (card->phy_error || (value >> 26 & 3u) != 1 || (value >> 21 & 31u) != IGB_PHY_ADDRESS)
        return;
    FAKE_REQUIRE((value >> 16 & 31u) == IGB_PHY_BMCR);
    card->phy_bmcr = (uint16_t)value;
    card->link_at_us = card->now_us + NEGOTIATE_US;
}

static void write_p2v(struct fake_igb *card, uint32_t vf, uint32_t value)
{
    uint32_t *p2v = reg(card, IGB_P2VMAILBOX(vf)), *v2p = &card->v2p[vf];
    if (value & IGB_P2V_STS)
        *v2p |= IGB_V2P_PFSTS;
    if (value & IGB_P2V_ACK)
        *v2p |= IGB_V2P_PFACK;
    if (!(value & IGB_P2V_PFU)) {
        *p2v &= ~IGB_P2V_PFU;
        *v2p &= ~IGB_V2P_PFU;
    } else if (!(*p2v & IGB_P2V_VFU)) {
        *p2v |= IGB_P2V_PFU;
        *v2p |= IGB_V2P_PFU;
    }
    if (value & IGB_P2V_RVFU) {
        *p2v &= ~IGB_P2V_VFU;
        *v2p &= ~IGB_V2P_VFU;
    }
}

static void pf_write(void *ctx, uint64_t offset, uint32_t value)
{
    struct fake_igb *card = ctx;
    FAKE_REQUIRE(offset % 4 == 0 && offset < IGB_BAR_SIZE && is_known(card, (uint32_t)offset));
    card->writes++;
    if (card->dead)
        return;
    uint32_t at = (uint32_t)offset;
    card->filter_writes_seen |= is_filter(at);
    card->vfta_writes += in(at, IGB_VFTA(0), IGB_TABLE_DWORDS, 4);
    if (in(at, IGB_P2VMAILBOX(0), IGB_POOLS, 4)) {
        write_p2v(card, (at - IGB_P2VMAILBOX(0)) / 4, value);
    } else if (in(at, IGB_VMBMEM(0), IGB_POOLS * IGB_MAIL_DWORDS, 4)) {
        /* The buffer is the VF's unless it was taken. */
        FAKE_REQUIRE(fake_igb_reg(card, IGB_P2VMAILBOX((at - IGB_VMBMEM(0)) / 64)) & IGB_P2V_PFU);
        *reg(card, at) = value;
    } else if (at == IGB_MBVFICR || at == IGB_VFLRE) {
        *reg(card, at) &= ~value;
    } else if (at == IGB_CTRL && value & IGB_CTRL_RST) {
        reset_card(card);
    } else if (at == IGB_MDIC) {
        write_mdic(card, value);
    } else {
        FAKE_REQUIRE(at != IGB_STATUS && at != IGB_WVBR);
        *reg(card, at) = value;
    }
    if (at == IGB_CTRL_EXT && value & IGB_CTRL_EXT_PFRSTD)
        for (unsigned vf = 0; vf < IGB_POOLS; vf++)
            card->v2p[vf] = (card->v2p[vf] & ~IGB_V2P_RSTI) | IGB_V2P_RSTD;
}

static uint64_t pf_read64(void *ctx, uint64_t offset)
{
    FAKE_REQUIRE(!"the card has no 64-bit registers");
    return 0;
}

static void pf_write64(void *ctx, uint64_t offset, uint64_t value)
{
    FAKE_REQUIRE(!"the card has no 64-bit registers");
}

/* ---- time ---- */

static uint64_t now_us(void *ctx)
{
    return ((struct fake_igb *)ctx)->now_us;
}

static void delay_us(void *ctx, uint32_t us)
{
    ((struct fake_igb *)ctx)->now_us += us;
}

void fake_igb_run(struct fake_igb *card, uint64_t us)
{
    uint64_t end = card->now_us + us;
    while (card->polled && card->next_poll_us <= end) {
        if (card->now_us < card->next_poll_us)
            card->now_us = card->next_poll_us;
        card->next_poll_us = card->now_us + POLL_US;
        card->pf.ops->poll(&card->pf);
    }
    card->now_us = end;
}

void fake_igb_init(struct fake_igb *card, uint16_t device)
{
    memset(card, 0, sizeof(*card));
    card->now_us = 1000000;
    card->cable_mbps = 1000;
    card->env = (struct dev_env){card, now_us, delay_us, NULL};
    card->pf = (struct pf){.ops = pf_find(0x8086, device),
                           .bar = {card, IGB_BAR_SIZE, pf_read, pf_write, pf_read64, pf_write64},
                           .env = &card->env,
                           .bdf = 0x100,
                           .device = device,
                           .name = "pf 01:00.0",
                           .priv = &card->priv};
    FAKE_REQUIRE(card->pf.ops && card->pf.ops->priv_size == sizeof(card->priv));
    reset_card(card);
}

void fake_igb_start(struct fake_igb *card, uint32_t vfs)
{
    char why[128];
    FAKE_REQUIRE(card->pf.ops->start(&card->pf, why, sizeof(why)) == STATUS_OK);
    FAKE_REQUIRE(card->pf.ops->vfs_enabled(&card->pf, vfs) == STATUS_OK);
    card->polled = true;
    card->next_poll_us = card->now_us;
    fake_igb_run(card, NEGOTIATE_US + 200000);
    card->reads = card->writes = 0;
    card->filter_writes_seen = false;
}

/* ---- a VF's side ---- */

void fake_igb_flr(struct fake_igb *card, uint32_t vf)
{
    *reg(card, IGB_VFRE) &= ~(1u << vf);
    *reg(card, IGB_VFTE) &= ~(1u << vf);
    *reg(card, IGB_VFLRE) |= 1u << vf;
}

uint32_t fake_igb_vf_read(struct fake_igb *card, uint32_t vf, uint32_t offset)
{
    if (offset == FAKE_VF_STATUS)
        return status_register(card);
    if (offset == FAKE_VF_MAILBOX) {
        uint32_t value = card->v2p[vf];
        card->v2p[vf] &= ~V2P_CLEARED;
        return value;
    }
    if (in(offset, FAKE_VF_MEM, IGB_MAIL_DWORDS, 4))
        return fake_igb_reg(card, IGB_VMBMEM(vf) + offset - FAKE_VF_MEM);
    return 0;
}

void fake_igb_vf_write(struct fake_igb *card, uint32_t vf, uint32_t offset, uint32_t value)
{
    if (in(offset, FAKE_VF_MEM, IGB_MAIL_DWORDS, 4))
        *reg(card, IGB_VMBMEM(vf) + offset - FAKE_VF_MEM) = value; /* with or without the lock */
    else if (offset == FAKE_VF_CTRL && value & IGB_CTRL_RST)
        fake_igb_flr(card, vf);
    if (offset != FAKE_VF_MAILBOX)
        return;
    uint32_t *p2v = reg(card, IGB_P2VMAILBOX(vf)), *v2p = &card->v2p[vf];
    if (value & IGB_V2P_REQ)
        *reg(card, IGB_MBVFICR) |= 1u << vf;
    if (value & IGB_V2P_ACK)
        *reg(card, IGB_MBVFICR) |= 1u << (vf + IGB_MBVFICR_ACK_SHIFT);
    if (!(value & IGB_V2P_VFU)) {
        *v2p &= ~IGB_V2P_VFU;
        *p2v &= ~IGB_P2V_VFU;
    } else if (!(*v2p & IGB_V2P_PFU)) {
        *v2p |= IGB_V2P_VFU;
        *p2v |= IGB_P2V_VFU;
    }
}

/* ---- the switch ---- */

static uint32_t mac_pools(const struct fake_igb *card, const uint8_t mac[PF_MAC_BYTES])
{
    uint32_t low, high = 0, pools = 0;
    memcpy(&low, mac, 4);
    memcpy(&high, mac + 4, 2);
    for (unsigned i = 0; i < (card->pf.device == 0x1521 ? IGB_RARS_I350 : IGB_RARS_82576); i++) {
        uint32_t rah = fake_igb_reg(card, IGB_RAH(i));
        if (rah & IGB_RAH_AV && fake_igb_reg(card, IGB_RAL(i)) == low && (rah & 0xffffu) == high)
            pools |= rah >> 18 & 0xffu;
    }
    return pools;
}

static uint32_t pools_with(const struct fake_igb *card, uint32_t bit)
{
    uint32_t pools = 0;
    for (unsigned vf = 0; vf < IGB_POOLS; vf++)
        pools |= fake_igb_reg(card, IGB_VMOLR(vf)) & bit ? 1u << vf : 0;
    return pools;
}

static uint32_t vlan_pools(const struct fake_igb *card, uint16_t vlan)
{
    uint32_t pools = 0;
    for (unsigned i = 0; i < IGB_VLVFS; i++) {
        uint32_t vlvf = fake_igb_reg(card, IGB_VLVF(i));
        if (vlvf & IGB_VLVF_ENABLE && (vlvf & 0xfffu) == vlan)
            pools |= vlvf >> IGB_VLVF_POOL_SHIFT & 0xffu;
    }
    return pools;
}

static bool in_table(const struct fake_igb *card, uint32_t table, uint32_t hash)
{
    return fake_igb_reg(card, table + hash / 32 * 4) >> hash % 32 & 1u;
}

static uint32_t receivers(const struct fake_igb *card, const struct fake_packet *p, uint16_t vlan)
{
    static const uint8_t broadcast[PF_MAC_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint32_t hash = ((uint32_t)p->to[5] << 8 | p->to[4]) >> 4 & 0xfffu, pools;
    if (memcmp(p->to, broadcast, PF_MAC_BYTES) == 0)
        pools = pools_with(card, IGB_VMOLR_BAM);
    else if (p->to[0] & 1)
        pools = pools_with(card, IGB_VMOLR_MPME) |
                (in_table(card, IGB_MTA(0), hash) ? pools_with(card, IGB_VMOLR_ROMPE) : 0);
    else
        pools = mac_pools(card, p->to) |
                (in_table(card, IGB_UTA(0), hash) ? pools_with(card, IGB_VMOLR_ROPE) : 0);
    if (!vlan)
        pools &= pools_with(card, IGB_VMOLR_AUPE);
    else
        pools &= in_table(card, IGB_VFTA(0), vlan) ? vlan_pools(card, vlan) : 0;
    for (unsigned vf = 0; vf < IGB_POOLS; vf++)
        if ((p->size ? p->size : 64) > (fake_igb_reg(card, IGB_VMOLR(vf)) & 0x3fffu))
            pools &= ~(1u << vf);
    return pools & fake_igb_reg(card, IGB_VFRE);
}

uint32_t fake_igb_send(struct fake_igb *card, uint32_t vf, const struct fake_packet *packet)
{
    uint32_t size = packet->size ? packet->size : 64, got;
    uint32_t txswc = fake_igb_reg(card, card->pf.device == 0x1521 ? IGB_TXSWC : IGB_DTXSWC);
    uint16_t vlan = packet->vlan;
    if (vf == IGB_POOLS) {
        got = receivers(card, packet, vlan);
    } else {
        if (!(fake_igb_reg(card, IGB_VFTE) >> vf & 1u))
            return 0;
        uint32_t vmvir = fake_igb_reg(card, IGB_VMVIR(vf));
        if (vmvir & IGB_VMVIR_ALWAYS)
            vlan = vmvir & 0xfffu;
        if ((txswc & IGB_TXSWC_MAC_SPOOF(vf) && !(mac_pools(card, packet->from) >> vf & 1u)) ||
            (txswc & IGB_TXSWC_VLAN_SPOOF(vf) && !(vlan_pools(card, vlan) >> vf & 1u))) {
            *reg(card, IGB_WVBR) |= 1u << vf;
            return 0;
        }
        *reg(card, IGB_PFVFGPTC(vf)) += 1;
        *reg(card, IGB_PFVFGOTC(vf)) += size;
        got = txswc & IGB_TXSWC_LOOPBACK ? receivers(card, packet, vlan) & ~(1u << vf) : 0;
        if (got == 0 || packet->to[0] & 1)
            got |= FAKE_IGB_WIRE;
    }
    for (unsigned i = 0; i < IGB_POOLS; i++) {
        *reg(card, IGB_PFVFGPRC(i)) += got >> i & 1u;
        *reg(card, IGB_PFVFGORC(i)) += got >> i & 1u ? size : 0;
    }
    return got;
}

uint16_t fake_igb_tag_seen(const struct fake_igb *card, uint32_t vf, uint16_t vlan)
{
    if (card->pf.device == 0x1521)
        return fake_igb_reg(card, IGB_DVMOLR(vf)) & IGB_DVMOLR_STRVLAN ? 0 : vlan;
    return fake_igb_reg(card, IGB_VMOLR(vf)) & IGB_VMOLR_STRVLAN ? 0 : vlan;
}

/* ---- igbvf ---- */

#define IGBVF_STEP_US 500u
#define IGBVF_TRIES   2000u

/* True, and forgotten: the bit has come. */
static bool has_come(struct igbvf *d, uint32_t bit)
{
    uint32_t value = fake_igb_vf_read(d->card, d->vf, FAKE_VF_MAILBOX) | d->cached;
    d->cached |= value & V2P_CLEARED;
    d->cached &= ~bit;
    return value & bit;
}

static bool await_bit(struct igbvf *d, uint32_t bit)
{
    for (unsigned i = 0; i < IGBVF_TRIES && !d->dead; i++) {
        if (has_come(d, bit))
            return true;
        fake_igb_run(d->card, IGBVF_STEP_US);
    }
    d->dead = true;
    return false;
}

static bool take_lock(struct igbvf *d)
{
    for (unsigned i = 0; i < 10; i++) {
        fake_igb_vf_write(d->card, d->vf, FAKE_VF_MAILBOX, IGB_V2P_VFU);
        if (fake_igb_vf_read(d->card, d->vf, FAKE_VF_MAILBOX) & IGB_V2P_VFU)
            return true;
        fake_igb_run(d->card, 1000);
    }
    return false;
}

static bool post(struct igbvf *d, const uint32_t *msg, unsigned length)
{
    if (d->dead || !take_lock(d))
        return false;
    has_come(d, IGB_V2P_PFSTS);
    has_come(d, IGB_V2P_PFACK);
    for (unsigned i = 0; i < length; i++)
        fake_igb_vf_write(d->card, d->vf, FAKE_VF_MEM + 4 * i, msg[i]);
    fake_igb_vf_write(d->card, d->vf, FAKE_VF_MAILBOX, IGB_V2P_REQ);
    return await_bit(d, IGB_V2P_PFACK);
}

static bool take(struct igbvf *d, uint32_t *msg, unsigned length)
{
    if (!take_lock(d))
        return false;
    for (unsigned i = 0; i < length; i++)
        msg[i] = fake_igb_vf_read(d->card, d->vf, FAKE_VF_MEM + 4 * i);
    fake_igb_vf_write(d->card, d->vf, FAKE_VF_MAILBOX, IGB_V2P_ACK);
    return true;
}

bool igbvf_message(struct igbvf *d, const uint32_t *msg, unsigned length, uint32_t reply[IGB_MAIL_DWORDS])
{
    return post(d, msg, length) && await_bit(d, IGB_V2P_PFSTS) && take(d, reply, IGB_MAIL_DWORDS);
}

static bool reset_vf(struct igbvf *d)
{
    uint32_t msg[IGB_MAIL_DWORDS] = {IGB_MAIL_RESET};
    d->dead = false;
    d->look = true;
    d->carrier = false;
    fake_igb_vf_write(d->card, d->vf, FAKE_VF_CTRL, IGB_CTRL_RST);
    unsigned tries = 200;
    while (tries && has_come(d, IGB_V2P_RSTI | IGB_V2P_RSTD)) {
        fake_igb_run(d->card, 5);
        tries--;
    }
    if (!tries || !post(d, msg, 1))
        return false;
    fake_igb_run(d->card, 10000);
    if (!await_bit(d, IGB_V2P_PFSTS) || !take(d, msg, 3))
        return false;
    if (msg[0] == (IGB_MAIL_RESET | IGB_MAIL_ACK))
        memcpy(d->perm_mac, &msg[1], PF_MAC_BYTES);
    else if (msg[0] == (IGB_MAIL_RESET | IGB_MAIL_NACK))
        memset(d->perm_mac, 0, PF_MAC_BYTES);
    else
        return false;
    return true;
}

bool igbvf_probe(struct igbvf *d, struct fake_igb *card, uint32_t vf)
{
    *d = (struct igbvf){.card = card, .vf = vf};
    if (!reset_vf(d))
        return false;
    memcpy(d->mac, d->perm_mac, PF_MAC_BYTES);
    if (igb_mac_is_zero(d->mac)) {
        const uint8_t random[PF_MAC_BYTES] = {0x02, 0x11, 0x22, 0x33, 0x44, (uint8_t)vf};
        memcpy(d->mac, random, PF_MAC_BYTES);
    }
    return true;
}

bool igbvf_set_mac(struct igbvf *d, const uint8_t mac[PF_MAC_BYTES])
{
    uint32_t msg[IGB_MAIL_DWORDS] = {IGB_MAIL_SET_MAC};
    memcpy(&msg[1], mac, PF_MAC_BYTES);
    if (!igbvf_message(d, msg, 3, msg))
        return false;
    if ((msg[0] & ~IGB_MAIL_CTS) == (IGB_MAIL_SET_MAC | IGB_MAIL_NACK))
        return false;
    memcpy(d->mac, mac, PF_MAC_BYTES);
    return true;
}

bool igbvf_set_vlan(struct igbvf *d, uint16_t vlan, bool add)
{
    uint32_t msg[IGB_MAIL_DWORDS] = {IGB_MAIL_VLAN | (add ? 1u << IGB_MAIL_INFO_SHIFT : 0), vlan};
    return igbvf_message(d, msg, 2, msg) && (msg[0] & ~IGB_MAIL_CTS) != (IGB_MAIL_VLAN | IGB_MAIL_NACK);
}

void igbvf_set_groups(struct igbvf *d, const uint16_t *hashes, unsigned count)
{
    uint32_t msg[IGB_MAIL_DWORDS] = {0};
    count = count > IGB_MAIL_HASHES ? IGB_MAIL_HASHES : count;
    msg[0] = IGB_MAIL_MULTICAST | count << IGB_MAIL_INFO_SHIFT;
    if (count)
        memcpy(&msg[1], hashes, count * sizeof(*hashes));
    post(d, msg, IGB_MAIL_DWORDS);
}

bool igbvf_set_mtu(struct igbvf *d, uint32_t frame)
{
    const uint32_t msg[] = {IGB_MAIL_LPE, frame};
    return post(d, msg, 2);
}

bool igbvf_open(struct igbvf *d)
{
    static const uint16_t all_hosts[] = {0x001};
    uint32_t clear[IGB_MAIL_DWORDS] = {IGB_MAIL_SET_MAC | IGB_MAIL_MAC_CLEAR << IGB_MAIL_INFO_SHIFT};
    if (!reset_vf(d))
        return false;
    bool ok = igbvf_set_mac(d, d->mac) && igbvf_set_vlan(d, 0, true) && igbvf_message(d, clear, 3, clear) &&
              igbvf_set_mtu(d, 1522);
    igbvf_set_groups(d, all_hosts, 1);
    return ok && !d->dead;
}

void igbvf_close(struct igbvf *d)
{
    reset_vf(d);
    d->carrier = false;
}

bool igbvf_watchdog(struct igbvf *d)
{
    uint32_t msg = 0;
    if (has_come(d, IGB_V2P_RSTI | IGB_V2P_RSTD) || d->dead)
        d->look = true;
    if (has_come(d, IGB_V2P_PFSTS))
        d->look = true; /* the mailbox' interrupt */
    bool up = fake_igb_vf_read(d->card, d->vf, FAKE_VF_STATUS) & IGB_STATUS_LU;
    if (!d->look || !up) {
        d->carrier = d->carrier && up;
        return true;
    }
    if (!take(d, &msg, 1))
        return true;
    if (!(msg & IGB_MAIL_CTS))
        return !(msg & IGB_MAIL_NACK);
    if (d->dead)
        return false;
    d->look = false;
    d->carrier = true;
    return true;
}
