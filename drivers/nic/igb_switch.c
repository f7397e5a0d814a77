#include "drivers/nic/igb_pf.h"
#include "hv/lib/bytes.h"

/* What a frame of 1500 bytes is on the wire, with CRC and one VLAN tag. */
#define DEFAULT_FRAME 1522u
/* I350 specification update: a write to VFTA may be lost while the card looks something up for the BMC. So
 * many in a row are not. */
#define I350_VFTA_WRITES 10u

/* Writes that bridges must not merge into one burst are separated by a read. */
static void flush(struct pf *pf)
{
    (void)igb_read(pf, IGB_STATUS);
}

static void set_bit(struct pf *pf, uint32_t offset, uint32_t bit, bool on)
{
    /* Read, not kept in a copy: a reset of a VF clears its bit behind our back, and must not be undone. */
    uint32_t value = igb_read(pf, offset);
    igb_write(pf, offset, on ? value | bit : value & ~bit);
}

/* ---- VLANs ---- */

static void write_vfta(struct pf *pf, uint32_t index, uint32_t value)
{
    const struct igb *igb = pf->priv;
    for (unsigned i = 0; i < (igb->i350 ? I350_VFTA_WRITES : 1u); i++)
        igb_write(pf, IGB_VFTA(index), value);
    flush(pf);
}

static void write_vlvf(struct pf *pf, uint32_t entry)
{
    const struct igb *igb = pf->priv;
    uint32_t pools = igb->vlvf[entry].pools, vlan = igb->vlvf[entry].vlan, table = 0;
    /* Entry 0 stays: untagged packets are VLAN 0 to the card, and nobody's when no pool is in it. */
    bool used = pools || entry == 0;
    igb_write(pf, IGB_VLVF(entry), used ? IGB_VLVF_ENABLE | pools << IGB_VLVF_POOL_SHIFT | vlan : 0);
    for (unsigned i = 0; i < IGB_VLVFS; i++)
        if ((igb->vlvf[i].pools || i == 0) && igb->vlvf[i].vlan / 32 == vlan / 32)
            table |= 1u << igb->vlvf[i].vlan % 32;
    write_vfta(pf, vlan / 32, table);
}

/* How many VLANs (but 0) the VF is in. */
static unsigned vlan_count(const struct igb *igb, uint32_t vf)
{
    unsigned n = 0;
    for (unsigned i = 1; i < IGB_VLVFS; i++)
        n += igb->vlvf[i].pools >> vf & 1u;
    return n;
}

bool igb_switch_vlan(struct pf *pf, uint32_t vf, uint16_t vlan, bool add)
{
    struct igb *igb = pf->priv;
    unsigned entry = 0, free = IGB_VLVFS;
    if (vlan) {
        for (entry = 1; entry < IGB_VLVFS; entry++) {
            if (igb->vlvf[entry].pools && igb->vlvf[entry].vlan == vlan)
                break;
            if (!igb->vlvf[entry].pools && free == IGB_VLVFS)
                free = entry;
        }
    }
    bool member = entry < IGB_VLVFS && igb->vlvf[entry].pools >> vf & 1u;
    if (member == add)
        return true;
    /* The table is divided, so that a VF finds its share free whatever the others do. */
    if (add && vlan && vlan_count(igb, vf) >= (IGB_VLVFS - 1) / pf->vf_count)
        return false;
    if (entry == IGB_VLVFS)
        entry = free; /* there is one: all shares together are fewer than entries */
    igb->vlvf[entry].vlan = vlan;
    igb->vlvf[entry].pools = (uint8_t)(igb->vlvf[entry].pools ^ 1u << vf);
    write_vlvf(pf, entry);
    return true;
}

/* ---- addresses ---- */

void igb_switch_mac(struct pf *pf, uint32_t vf, uint32_t slot)
{
    const struct igb *igb = pf->priv;
    const uint8_t *mac = igb->vf[vf].macs[slot];
    uint32_t entry = vf + slot * IGB_POOLS, high = 0;
    uint32_t low = bytes_get32(mac);
    if (!igb_mac_is_zero(mac))
        high = bytes_get16(mac + 4) | IGB_RAH_POOL(vf) | IGB_RAH_AV;
    igb_write(pf, IGB_RAH(entry), 0); /* no half of an address is ever valid */
    flush(pf);
    igb_write(pf, IGB_RAL(entry), low);
    flush(pf);
    igb_write(pf, IGB_RAH(entry), high);
    flush(pf);
}

bool igb_switch_vlan_taken(const struct igb *igb, uint32_t vf, uint16_t vlan)
{
    for (uint32_t i = 0; i < IGB_POOLS; i++)
        if (i != vf && igb->vf[i].owned && igb->vf[i].policy.vlan == vlan)
            return true;
    return false;
}

bool igb_switch_mac_taken(const struct igb *igb, uint32_t vf, const uint8_t mac[PF_MAC_BYTES])
{
    for (uint32_t i = 0; i < IGB_POOLS; i++) {
        const struct igb_vf *other = &igb->vf[i];
        if (i == vf || !other->owned)
            continue;
        if (other->policy.has_mac && memcmp(other->policy.mac, mac, PF_MAC_BYTES) == 0)
            return true;
        for (unsigned slot = 0; slot < IGB_MACS; slot++)
            if (memcmp(other->macs[slot], mac, PF_MAC_BYTES) == 0)
                return true;
    }
    return false;
}

void igb_switch_groups(struct pf *pf)
{
    struct igb *igb = pf->priv;
    uint32_t wanted[IGB_TABLE_DWORDS] = {0};
    for (uint32_t vf = 0; vf < pf->vf_count; vf++)
        for (unsigned i = 0; i < igb->vf[vf].group_count; i++)
            wanted[igb->vf[vf].groups[i] / 32] |= 1u << igb->vf[vf].groups[i] % 32;
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++) {
        if (wanted[i] == igb->mta[i])
            continue;
        igb->mta[i] = wanted[i];
        igb_write(pf, IGB_MTA(i), wanted[i]);
    }
}

/* Unicast promiscuity: every address is in the hash table, and VMOLR.ROPE decides who listens to it. */
static void update_uta(struct pf *pf)
{
    struct igb *igb = pf->priv;
    bool wanted = false;
    for (uint32_t vf = 0; vf < pf->vf_count; vf++)
        wanted |= igb->vf[vf].promisc_unicast;
    if (wanted == igb->uta_open)
        return;
    igb->uta_open = wanted;
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++)
        igb_write(pf, IGB_UTA(i), wanted ? ~0u : 0);
}

/* ---- pools ---- */

void igb_switch_accept(struct pf *pf, uint32_t vf)
{
    const struct igb *igb = pf->priv;
    const struct igb_vf *v = &igb->vf[vf];
    bool strip = v->policy.vlan || vlan_count(igb, vf);
    uint32_t vmolr = IGB_VMOLR_STRCRC | IGB_VMOLR_BAM | IGB_VMOLR_LPE | v->max_frame;
    if (!v->policy.vlan)
        vmolr |= IGB_VMOLR_AUPE;
    if (v->group_count)
        vmolr |= IGB_VMOLR_ROMPE;
    if (v->promisc_multicast)
        vmolr |= IGB_VMOLR_MPME;
    if (v->promisc_unicast)
        vmolr |= IGB_VMOLR_ROPE;
    if (igb->i350) {
        uint32_t dvmolr = IGB_DVMOLR_STRCRC | (strip ? IGB_DVMOLR_STRVLAN : 0);
        igb_write(pf, IGB_DVMOLR(vf), dvmolr | (v->policy.vlan ? IGB_DVMOLR_HIDEVLAN : 0));
    } else if (strip) {
        vmolr |= IGB_VMOLR_STRVLAN;
    }
    update_uta(pf);
    igb_write(pf, IGB_VMOLR(vf), vmolr);
}

static void write_rate(struct pf *pf, uint32_t queue, uint32_t value)
{
    igb_write(pf, IGB_RTTDQSEL, queue);
    igb_write(pf, IGB_RTTBCNRC, value);
}

void igb_switch_rate(struct pf *pf, uint32_t vf)
{
    const struct igb *igb = pf->priv;
    uint32_t rate = igb->vf[vf].owned ? igb->vf[vf].policy.rate_mbps : 0, factor = 0, rest = 0;
    if (igb->i350)
        return; /* it has no such limiter */
    if (rate && rate < igb->mbps) {
        /* The factor is link speed / rate, 14 bits before the point and 14 after. */
        uint32_t times = igb->mbps / rate, left = igb->mbps % rate;
        factor =
            IGB_RTTBCNRC_ENABLE | times << IGB_RTTBCNRC_INT_SHIFT | (left << IGB_RTTBCNRC_INT_SHIFT) / rate;
        /* The limiter is one for each queue. Stock drivers use the first; a guest that has its own driver
         * must not get twice the cap, so the second queue is as slow as it goes. */
        rest = IGB_RTTBCNRC_ENABLE | IGB_RTTBCNRC_INT_MAX << IGB_RTTBCNRC_INT_SHIFT;
    }
    write_rate(pf, vf, factor);
    write_rate(pf, vf + IGB_POOLS, rest);
}

static void write_spoof(struct pf *pf, uint32_t vf, bool check)
{
    struct igb *igb = pf->priv;
    uint32_t bits = IGB_TXSWC_MAC_SPOOF(vf) | IGB_TXSWC_VLAN_SPOOF(vf);
    igb->txswc = check ? igb->txswc | bits : igb->txswc & ~bits;
    igb_write(pf, igb->i350 ? IGB_TXSWC : IGB_DTXSWC, igb->txswc);
}

void igb_switch_open(struct pf *pf, uint32_t vf)
{
    struct igb *igb = pf->priv;
    struct igb_vf *v = &igb->vf[vf];
    v->open = true;
    v->max_frame = DEFAULT_FRAME;
    if (v->policy.has_mac)
        memcpy(v->macs[0], v->policy.mac, PF_MAC_BYTES);
    igb_switch_mac(pf, vf, 0);
    igb_write(pf, IGB_VMVIR(vf), v->policy.vlan ? IGB_VMVIR_ALWAYS | v->policy.vlan : 0);
    igb_switch_vlan(pf, vf, v->policy.vlan, true); /* its first one: cannot fail */
    igb_switch_accept(pf, vf);
    write_spoof(pf, vf, v->policy.spoofcheck);
    set_bit(pf, IGB_VFTE, 1u << vf, true);
    set_bit(pf, IGB_VFRE, 1u << vf, true);
}

void igb_switch_close(struct pf *pf, uint32_t vf)
{
    struct igb *igb = pf->priv;
    struct igb_vf *v = &igb->vf[vf];
    if (!v->open)
        return;
    v->open = false;
    set_bit(pf, IGB_VFRE, 1u << vf, false);
    set_bit(pf, IGB_VFTE, 1u << vf, false);
    igb_write(pf, IGB_VMOLR(vf), 0);
    /* Its port VLAN and sender checks stay: the card may still have packets of it that it has fetched. */
    for (unsigned slot = 0; slot < IGB_MACS; slot++) {
        if (igb_mac_is_zero(v->macs[slot]))
            continue;
        memset(v->macs[slot], 0, PF_MAC_BYTES);
        igb_switch_mac(pf, vf, slot);
    }
    for (unsigned i = 0; i < IGB_VLVFS; i++)
        if (igb->vlvf[i].pools >> vf & 1u)
            igb_switch_vlan(pf, vf, igb->vlvf[i].vlan, false);
    v->promisc_unicast = v->promisc_multicast = false;
    v->group_count = 0;
    igb_switch_groups(pf);
    update_uta(pf);
}

void igb_switch_init(struct pf *pf)
{
    struct igb *igb = pf->priv;
    igb_write(pf, IGB_VFRE, 0);
    igb_write(pf, IGB_VFTE, 0);
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++) {
        igb_write(pf, IGB_MTA(i), 0);
        igb_write(pf, IGB_UTA(i), 0);
        write_vfta(pf, i, 0);
    }
    /* Also the PF's own address, which the card has read from its EEPROM: a PF receives nothing. */
    for (unsigned i = 0; i < (igb->i350 ? IGB_RARS_I350 : IGB_RARS_82576); i++) {
        igb_write(pf, IGB_RAH(i), 0);
        flush(pf);
        igb_write(pf, IGB_RAL(i), 0);
        flush(pf);
    }
    for (unsigned i = 0; i < IGB_VLVFS; i++)
        igb_write(pf, IGB_VLVF(i), 0);
    write_vlvf(pf, 0);
    for (uint32_t vf = 0; vf < IGB_POOLS; vf++) {
        igb_write(pf, IGB_VMOLR(vf), 0);
        igb_write(pf, IGB_VMVIR(vf), 0);
        igb_switch_rate(pf, vf);
    }
    igb_write(pf, IGB_QDE, IGB_ALL_QUEUES);
    igb_write(pf, IGB_RLPML, IGB_MAX_FRAME);
    igb_write(pf, IGB_VT_CTL, IGB_VT_CTL_REPLICATE | IGB_VT_CTL_NO_DEFAULT);
    if (!igb->i350) {
        igb_write(pf, IGB_DTXCTL, igb_read(pf, IGB_DTXCTL) | IGB_DTXCTL_VLAN_ADDED);
        igb_write(pf, IGB_RPLOLR, IGB_RPLOLR_STRVLAN);
        igb_write(pf, IGB_RTTBCNRM, IGB_RTTBCNRM_JUMBO);
    }
    igb->txswc = IGB_TXSWC_LOOPBACK;
    igb_write(pf, igb->i350 ? IGB_TXSWC : IGB_DTXSWC, igb->txswc);
    igb_write(pf, IGB_MRQC, IGB_MRQC_VMDQ);
}
