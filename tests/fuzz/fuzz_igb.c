/* All VFs of a card at once, each doing what it likes with its mailbox, and an operator who changes owners.
 * After every poll: what the card lets pass is what owners' policies allow, nobody has changed for what
 * another VF did, every message that could be taken was answered, and the work was bounded. */
#include <string.h>
#include "tests/host/fake_igb.h"
#include "tests/host/fake_vdev_env.h"

/* Of one poll: for each VF at worst a message that fills the unicast table, after a reset that empties it. */
#define MOST_ACCESSES (IGB_POOLS * 600u)

static struct fake_igb card;

/* What of the card's and the driver's state is one VF's. */
struct view {
    uint32_t vmolr, vmvir, enables, spoof;
    uint8_t macs[IGB_MACS][8];
    uint32_t vlans[IGB_VLVFS];
    uint64_t requests, refused, resets;
};

static struct view view_of(uint32_t vf)
{
    struct view v;
    memset(&v, 0, sizeof(v));
    uint32_t txswc = fake_igb_reg(&card, card.priv.i350 ? IGB_TXSWC : IGB_DTXSWC);
    v.vmolr = fake_igb_reg(&card, IGB_VMOLR(vf));
    v.vmvir = fake_igb_reg(&card, IGB_VMVIR(vf));
    v.enables = (fake_igb_reg(&card, IGB_VFRE) >> vf & 1) << 1 | (fake_igb_reg(&card, IGB_VFTE) >> vf & 1);
    v.spoof = (txswc >> vf & 1) << 1 | (txswc >> (8 + vf) & 1);
    for (unsigned i = 0, n = 0; i < 24; i++) {
        uint32_t high = fake_igb_reg(&card, IGB_RAH(i)), low = fake_igb_reg(&card, IGB_RAL(i));
        if (!(high & IGB_RAH_AV)) {
            FAKE_REQUIRE(high == 0);
            continue;
        }
        uint32_t pools = high >> 18 & 0xff;
        FAKE_REQUIRE(pools && !(pools & (pools - 1)));
        if (!(high & IGB_RAH_POOL(vf)))
            continue;
        FAKE_REQUIRE(n < IGB_MACS);
        memcpy(v.macs[n], &low, 4);
        memcpy(v.macs[n] + 4, &high, 2);
        n++;
    }
    for (unsigned i = 0; i < IGB_VLVFS; i++) {
        uint32_t vlvf = fake_igb_reg(&card, IGB_VLVF(i));
        if (vlvf >> (IGB_VLVF_POOL_SHIFT + vf) & 1)
            v.vlans[i] = (vlvf & 0xfff) + 1;
    }
    v.requests = card.priv.vf[vf].requests;
    v.refused = card.priv.vf[vf].refused;
    v.resets = card.priv.vf[vf].resets;
    return v;
}

static void check_macs(uint32_t vf, const struct view *v)
{
    const struct pf_vf_policy *policy = &card.priv.vf[vf].policy;
    for (unsigned i = 0; i < IGB_MACS; i++) {
        const uint8_t *mac = v->macs[i];
        if (igb_mac_is_zero(mac))
            continue;
        FAKE_REQUIRE(!(mac[0] & 1));
        if (policy->has_mac && !policy->trust)
            FAKE_REQUIRE(memcmp(mac, policy->mac, PF_MAC_BYTES) == 0);
        for (uint32_t other = 0; other < card.pf.vf_count; other++) {
            if (other == vf)
                continue;
            struct view o = view_of(other);
            for (unsigned j = 0; j < IGB_MACS; j++)
                FAKE_REQUIRE(memcmp(mac, o.macs[j], PF_MAC_BYTES) != 0);
            const struct igb_vf *d = &card.priv.vf[other];
            if (d->owned && d->policy.has_mac)
                FAKE_REQUIRE(memcmp(mac, d->policy.mac, PF_MAC_BYTES) != 0);
        }
    }
}

static void check_vlans(uint32_t vf, const struct view *v)
{
    const struct pf_vf_policy *policy = &card.priv.vf[vf].policy;
    unsigned count = 0;
    for (unsigned i = 0; i < IGB_VLVFS; i++) {
        uint32_t vlan = v->vlans[i] - 1;
        if (!v->vlans[i])
            continue;
        count += vlan != 0;
        FAKE_REQUIRE(fake_igb_reg(&card, IGB_VFTA(vlan / 32)) >> vlan % 32 & 1);
        if (policy->vlan)
            FAKE_REQUIRE(vlan == policy->vlan);
        for (uint32_t other = 0; other < card.pf.vf_count; other++)
            if (other != vf && !policy->vlan && !policy->trust && vlan)
                FAKE_REQUIRE(card.priv.vf[other].policy.vlan != vlan);
    }
    FAKE_REQUIRE(count <= (IGB_VLVFS - 1) / card.pf.vf_count);
    FAKE_REQUIRE(v->vmvir == (policy->vlan ? IGB_VMVIR_ALWAYS | policy->vlan : 0));
    FAKE_REQUIRE(!(v->vmolr & IGB_VMOLR_AUPE) == (policy->vlan != 0));
}

static void check_vf(uint32_t vf)
{
    const struct igb_vf *d = &card.priv.vf[vf];
    struct view v = view_of(vf);
    FAKE_REQUIRE(!d->open || d->owned);
    if (!d->open) {
        FAKE_REQUIRE(v.vmolr == 0 && v.enables == 0 && igb_mac_is_zero(v.macs[0]));
        for (unsigned i = 0; i < IGB_VLVFS; i++)
            FAKE_REQUIRE(!v.vlans[i]);
        return;
    }
    check_macs(vf, &v);
    check_vlans(vf, &v);
    FAKE_REQUIRE(v.spoof == (d->policy.spoofcheck ? 3u : 0));
    FAKE_REQUIRE(d->policy.trust || !(v.vmolr & (IGB_VMOLR_ROPE | IGB_VMOLR_MPME)));
    FAKE_REQUIRE((v.vmolr & 0x3fff) <= IGB_MAX_FRAME);
    FAKE_REQUIRE(d->refused <= d->requests && d->tokens <= IGB_MAIL_BURST);
}

static void check_all(void)
{
    uint32_t wanted[IGB_TABLE_DWORDS] = {0};
    bool uta = false;
    for (uint32_t vf = 0; vf < card.pf.vf_count; vf++) {
        const struct igb_vf *d = &card.priv.vf[vf];
        check_vf(vf);
        uta |= d->promisc_unicast;
        for (unsigned i = 0; i < d->group_count; i++)
            wanted[d->groups[i] / 32] |= 1u << d->groups[i] % 32;
    }
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++) {
        FAKE_REQUIRE(fake_igb_reg(&card, IGB_MTA(i)) == wanted[i]);
        FAKE_REQUIRE(fake_igb_reg(&card, IGB_UTA(i)) == (uta ? ~0u : 0));
    }
}

static void poll_and_check(void)
{
    struct view before[IGB_POOLS];
    uint32_t mail = fake_igb_reg(&card, IGB_MBVFICR), resets = fake_igb_reg(&card, IGB_VFLRE);
    uint32_t held = 0;
    for (uint32_t vf = 0; vf < card.pf.vf_count; vf++) {
        before[vf] = view_of(vf);
        held |= fake_igb_reg(&card, IGB_P2VMAILBOX(vf)) & IGB_P2V_VFU ? 1u << vf : 0;
    }
    card.reads = card.writes = 0;
    card.pf.ops->poll(&card.pf);
    FAKE_REQUIRE(card.reads + card.writes <= MOST_ACCESSES);
    FAKE_REQUIRE(!(fake_igb_reg(&card, IGB_VFLRE) & ((1u << card.pf.vf_count) - 1)));
    for (uint32_t vf = 0; vf < card.pf.vf_count; vf++) {
        struct view after = view_of(vf);
        bool waits = fake_igb_reg(&card, IGB_MBVFICR) >> vf & 1, asked = mail >> vf & 1;
        FAKE_REQUIRE(!(fake_igb_reg(&card, IGB_P2VMAILBOX(vf)) & IGB_P2V_PFU)); /* the buffer is given back */
        if (!asked && !(resets >> vf & 1))
            FAKE_REQUIRE(memcmp(&before[vf], &after, sizeof(after)) == 0);
        if (!asked)
            continue;
        if (waits) {
            FAKE_REQUIRE(held >> vf & 1 || card.priv.vf[vf].tokens == 0);
        } else {
            uint32_t word = fake_igb_reg(&card, IGB_VMBMEM(vf));
            FAKE_REQUIRE(!(word & IGB_MAIL_ACK) != !(word & IGB_MAIL_NACK));
            FAKE_REQUIRE((card.v2p[vf] & (IGB_V2P_PFSTS | IGB_V2P_PFACK)) == (IGB_V2P_PFSTS | IGB_V2P_PFACK));
            FAKE_REQUIRE(after.requests == before[vf].requests + 1);
        }
    }
    check_all();
}

/* Few addresses and VLANs, so that they collide. */
static void own(struct fake_input *in, uint32_t vf)
{
    uint8_t bits = fake_input_u8(in), what = fake_input_u8(in);
    struct pf_vf_policy policy = {.mac = {0x02, 0, 0, 0, 0, (uint8_t)(vf + 1)},
                                  .has_mac = bits & 1,
                                  .spoofcheck = bits & 2,
                                  .trust = bits & 4,
                                  .vlan = bits & 8 ? what % 8u : 0,
                                  .rate_mbps = bits & 16 ? what : 0};
    card.pf.ops->vf_policy(&card.pf, vf, bits & 32 ? NULL : &policy);
}

static void message(struct fake_input *in, uint32_t vf)
{
    uint32_t type = fake_input_u8(in) % 8, info = fake_input_u8(in), word1, word2 = 0;
    switch (type) {
    case IGB_MAIL_SET_MAC:
        word1 = 2; /* 02:00:00:00:00:nn */
        word2 = (uint32_t)(fake_input_u8(in) % 16u) << 8;
        info %= 4;
        break;
    case IGB_MAIL_VLAN:
        word1 = fake_input_u8(in) % 40;
        info %= 3;
        break;
    default:
        word1 = (uint32_t)fake_input_u64(in);
        break;
    }
    if (type == IGB_MAIL_RESET && info % 8)
        info = 0;
    fake_igb_vf_write(&card, vf, FAKE_VF_MEM, type | info << IGB_MAIL_INFO_SHIFT);
    fake_igb_vf_write(&card, vf, FAKE_VF_MEM + 4, word1);
    fake_igb_vf_write(&card, vf, FAKE_VF_MEM + 8, word2);
    fake_igb_vf_write(&card, vf, FAKE_VF_MAILBOX, IGB_V2P_REQ);
}

static void step(struct fake_input *in)
{
    uint8_t op = fake_input_u8(in);
    uint32_t vf = op & 7;
    struct fake_packet packet = {.to = {2, 0, 0, 0, 0, (uint8_t)(vf + 1)}, .from = {2, 0, 0, 0, 0, op}};
    struct pf_vf_status status;
    switch (op >> 4) {
    case 0:
        own(in, vf);
        break;
    case 1:
        fake_igb_flr(&card, vf);
        break;
    case 2: /* any word at any place */
        fake_igb_vf_write(&card, vf, FAKE_VF_MEM + fake_input_u8(in) % 16u * 4u,
                          (uint32_t)fake_input_u64(in));
        break;
    case 3:
        fake_igb_vf_write(&card, vf, FAKE_VF_MAILBOX, fake_input_u8(in));
        break;
    case 4:
        card.now_us += fake_input_u8(in) * 10000ull;
        break;
    case 5:
        card.cable_mbps = op & 1 ? 1000 : op & 2 ? 100 : 0;
        break;
    case 6:
        fake_igb_send(&card, vf, &packet);
        break;
    case 7:
        card.pf.ops->vf_status(&card.pf, vf, &status);
        FAKE_REQUIRE(status.ready <= status.enabled && status.refused <= status.requests);
        break;
    default:
        message(in, vf);
        if (op & 16)
            return; /* several VFs before the next poll */
        break;
    }
    poll_and_check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    uint8_t kind = fake_input_u8(&in);
    fake_igb_init(&card, kind & 1 ? 0x1521 : 0x10c9);
    fake_igb_start(&card, (kind >> 1 & 7) + 1);
    card.polled = false;
    while (fake_input_left(&in))
        step(&in);
    return 0;
}
