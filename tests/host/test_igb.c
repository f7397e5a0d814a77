/* The PF driver of the 82576 and I350 against a model of the card, and of its VFs' driver. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "tests/host/fake_igb.h"

static struct fake_igb card;
static struct igbvf vfs[IGB_POOLS];

static const uint8_t mac_a[] = {0x52, 0x54, 0, 0xaa, 0, 1}, mac_b[] = {0x52, 0x54, 0, 0xaa, 0, 2},
                     mac_x[] = {0x52, 0x54, 0, 0xee, 0, 9}, mac_y[] = {0x52, 0x54, 0, 0xee, 0, 8},
                     mac_z[] = {0x52, 0x54, 0, 0xee, 0, 7}, broadcast[] = {255, 255, 255, 255, 255, 255};

static struct pf_vf_policy policy_of(const uint8_t *mac)
{
    struct pf_vf_policy policy = {.spoofcheck = true, .owner = "web"};
    if (mac) {
        memcpy(policy.mac, mac, PF_MAC_BYTES);
        policy.has_mac = true;
    }
    return policy;
}

static void own(uint32_t vf, const struct pf_vf_policy *policy)
{
    card.pf.ops->vf_policy(&card.pf, vf, policy);
}

static struct pf_vf_status status_of(uint32_t vf)
{
    struct pf_vf_status status;
    card.pf.ops->vf_status(&card.pf, vf, &status);
    return status;
}

/* VF `vf` with this policy, its driver up. */
static struct igbvf *up_with(uint32_t vf, const struct pf_vf_policy *policy)
{
    own(vf, policy);
    assert_true(igbvf_probe(&vfs[vf], &card, vf));
    assert_true(igbvf_open(&vfs[vf]));
    return &vfs[vf];
}

static struct igbvf *up(uint32_t vf, const uint8_t *mac)
{
    struct pf_vf_policy policy = policy_of(mac);
    return up_with(vf, &policy);
}

static uint32_t send_vlan(uint32_t vf, const uint8_t *to, const uint8_t *from, uint16_t vlan)
{
    struct fake_packet packet = {.vlan = vlan};
    memcpy(packet.to, to, PF_MAC_BYTES);
    memcpy(packet.from, from, PF_MAC_BYTES);
    return fake_igb_send(&card, vf, &packet);
}

static uint32_t send(uint32_t vf, const uint8_t *to, const uint8_t *from)
{
    return send_vlan(vf, to, from, 0);
}

static uint32_t from_wire(const uint8_t *to, uint16_t vlan)
{
    return send_vlan(IGB_POOLS, to, mac_z, vlan);
}

static uint32_t ask(struct igbvf *driver, uint32_t word0, uint32_t word1, uint32_t word2)
{
    uint32_t msg[IGB_MAIL_DWORDS] = {word0, word1, word2};
    assert_true(igbvf_message(driver, msg, IGB_MAIL_DWORDS, msg));
    return msg[0];
}

static uint32_t ask_mac(struct igbvf *driver, enum igb_mail_mac how, const uint8_t *mac)
{
    uint32_t words[2] = {0};
    memcpy(words, mac, PF_MAC_BYTES);
    return ask(driver, IGB_MAIL_SET_MAC | (uint32_t)how << IGB_MAIL_INFO_SHIFT, words[0], words[1]);
}

#define ACKED(word)  (((word) & (IGB_MAIL_ACK | IGB_MAIL_NACK)) == IGB_MAIL_ACK)
#define NACKED(word) (((word) & (IGB_MAIL_ACK | IGB_MAIL_NACK)) == IGB_MAIL_NACK)

static int setup(void **state)
{
    fake_igb_init(&card, 0x10c9);
    fake_igb_start(&card, 7);
    return 0;
}

static int setup_i350(void **state)
{
    fake_igb_init(&card, 0x1521);
    fake_igb_start(&card, 7);
    return 0;
}

/* ---- start ---- */

static void test_match(void **state)
{
    static const uint16_t ours[] = {0x10c9, 0x10e8, 0x1526, 0x150a, 0x1521};
    for (unsigned i = 0; i < ARRAY_SIZE(ours); i++)
        assert_ptr_equal(pf_find(0x8086, ours[i]), &igb_pf_ops);
    assert_null(pf_find(0x8086, 0x10e6)); /* fibre */
    assert_null(pf_find(0x8086, 0x1520)); /* I350's VFs */
    assert_null(pf_find(0x1af4, 0x10c9));
}

static void check_started(bool i350)
{
    assert_int_equal(fake_igb_reg(&card, IGB_RCTL), 0x04048022);
    assert_int_equal(fake_igb_reg(&card, IGB_TCTL), 0x000400fa);
    assert_int_equal(fake_igb_reg(&card, IGB_MRQC), 3);
    assert_int_equal(fake_igb_reg(&card, IGB_VT_CTL), 0x60000000);
    assert_int_equal(fake_igb_reg(&card, IGB_GPIE), 0xc0000011);
    assert_int_equal(fake_igb_reg(&card, IGB_QDE), 0xffff);
    assert_int_equal(fake_igb_reg(&card, IGB_RLPML), 0x2600);
    assert_int_equal(fake_igb_reg(&card, i350 ? IGB_TXSWC : IGB_DTXSWC), 0x80000000);
    assert_int_equal(fake_igb_reg(&card, IGB_DTXCTL), i350 ? 0 : 8);
    assert_int_equal(fake_igb_reg(&card, IGB_RPLOLR), i350 ? 0 : 0x40000000);
    assert_int_equal(fake_igb_reg(&card, IGB_RTTBCNRM), i350 ? 0 : 0x14);
    assert_int_equal(fake_igb_reg(&card, IGB_VFRE) | fake_igb_reg(&card, IGB_VFTE), 0);
    assert_int_equal(fake_igb_reg(&card, IGB_CTRL), 0x40000040);
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++) {
        assert_int_equal(fake_igb_reg(&card, IGB_MTA(i)), 0);
        assert_int_equal(fake_igb_reg(&card, IGB_UTA(i)), 0);
        assert_int_equal(fake_igb_reg(&card, IGB_VFTA(i)), i == 0);
    }
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(fake_igb_reg(&card, IGB_RAH(i)), 0);
    assert_int_equal(fake_igb_reg(&card, IGB_VLVF(0)), 0x80000000);
    assert_int_equal(card.phy_bmcr, 0x1340);
    assert_int_equal(fake_igb_reg(&card, IGB_PHPM), i350 ? 0 : IGB_PHPM_GO_LINKD);
    assert_int_equal(fake_igb_reg(&card, IGB_IMC), 0xffffffff); /* since the reset */
    assert_int_equal(fake_igb_reg(&card, IGB_EIMC), 0xffffffff);
}

static void test_start(void **state)
{
    char why[128];
    fake_igb_init(&card, 0x10c9);
    assert_int_equal(card.pf.ops->start(&card.pf, why, sizeof(why)), STATUS_OK);
    check_started(false);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MAILBOX) & IGB_V2P_RSTI, IGB_V2P_RSTI);
    assert_int_equal(card.pf.ops->vfs_enabled(&card.pf, 0), ERR_RANGE);
    assert_int_equal(card.pf.ops->vfs_enabled(&card.pf, 9), ERR_RANGE);
    card.reads = 0;
    card.pf.ops->poll(&card.pf); /* nothing to do before VFs are on */
    assert_int_equal(card.reads, 0);
    assert_int_equal(card.pf.ops->vfs_enabled(&card.pf, 8), STATUS_OK);
    assert_int_equal(fake_igb_vf_read(&card, 7, FAKE_VF_MAILBOX), IGB_V2P_RSTD);
    fake_igb_init(&card, 0x1521);
    assert_int_equal(card.pf.ops->start(&card.pf, why, sizeof(why)), STATUS_OK);
    check_started(true);
    assert_true(card.vfta_writes >= 10 * 128); /* the I350's erratum */
}

static void start_with(enum status expected, const char *text, uint64_t max_us)
{
    char why[128] = "";
    uint64_t begin = card.now_us;
    assert_int_equal(card.pf.ops->start(&card.pf, why, sizeof(why)), expected);
    assert_non_null(strstr(why, text));
    assert_in_range(card.now_us - begin, 0, max_us);
}

static void test_start_faults(void **state)
{
    fake_igb_init(&card, 0x10c9);
    card.dead = true;
    start_with(ERR_NOT_FOUND, "01:00.0 does not answer", 1000);
    fake_igb_init(&card, 0x10c9);
    card.pf.bar.size = 0x10000;
    start_with(ERR_NOT_FOUND, "BAR 0 of 64 KiB", 1000);
    fake_igb_init(&card, 0x10c9);
    card.stuck_reset = true;
    start_with(ERR_NOT_FOUND, "does not come out of its reset", 400000);
    /* What only degrades: said, and gone on with, in bounded time. */
    fake_igb_init(&card, 0x10c9);
    card.stuck_master = card.no_nvm = card.phy_error = card.semaphore_held = true;
    start_with(STATUS_OK, "", 800000);
    assert_int_equal(fake_igb_reg(&card, IGB_MRQC), 3);
    fake_igb_init(&card, 0x10c9);
    card.firmware_has_phy = card.phy_mute = true;
    start_with(STATUS_OK, "", 800000);
    assert_int_equal(card.phy_bmcr, 0);
    assert_int_equal(fake_igb_reg(&card, IGB_SW_FW_SYNC), 0);
}

static void test_semaphore_given_back(void **state)
{
    assert_int_equal(fake_igb_reg(&card, IGB_SW_FW_SYNC), 0);
    assert_int_equal(fake_igb_reg(&card, IGB_SWSM), 0);
}

/* ---- an ordinary life ---- */

static void life(void)
{
    struct igbvf *a = up(0, mac_a), *b = up(1, mac_b);
    assert_memory_equal(a->mac, mac_a, 6);
    assert_true(igbvf_watchdog(a) && a->carrier);
    assert_true(igbvf_watchdog(b) && b->carrier);
    /* VF to VF through the card; to the outside; everybody; from the outside. */
    assert_int_equal(send(0, mac_b, mac_a), 1 << 1);
    assert_int_equal(send(1, mac_x, mac_b), FAKE_IGB_WIRE);
    assert_int_equal(send(0, broadcast, mac_a), 1 << 1 | FAKE_IGB_WIRE);
    assert_int_equal(from_wire(broadcast, 0), 3);
    assert_int_equal(from_wire(mac_a, 0), 1);
    assert_int_equal(from_wire(mac_x, 0), 0);
    struct pf_vf_status s = status_of(0);
    assert_true(s.enabled && s.ready);
    assert_memory_equal(s.mac, mac_a, 6);
    assert_int_equal(s.tx_packets, 2);
    assert_int_equal(s.rx_packets, 2);
    assert_int_equal(s.rx_bytes, 128);
    assert_int_equal(s.tx_bytes, 128);
    assert_int_equal(s.refused, 0);
    assert_int_equal(s.deferred, 0);
    assert_int_equal(s.resets, 2); /* probe, open */
    /* Down, and a reset by the hypervisor: nothing goes in or out any more, and nothing is left in the card.
     */
    igbvf_close(a);
    fake_igb_flr(&card, 0);
    fake_igb_run(&card, 20000);
    assert_int_equal(send(0, mac_b, mac_a), 0);
    assert_int_equal(from_wire(mac_a, 0), 0);
    assert_int_equal(from_wire(broadcast, 0), 2);
    own(0, NULL);
    own(1, NULL);
    assert_int_equal(fake_igb_reg(&card, IGB_VMOLR(0)) | fake_igb_reg(&card, IGB_VMOLR(1)), 0);
    assert_int_equal(fake_igb_reg(&card, IGB_VFRE) | fake_igb_reg(&card, IGB_VFTE), 0);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(fake_igb_reg(&card, IGB_RAH(i)), 0);
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++)
        assert_int_equal(fake_igb_reg(&card, IGB_MTA(i)), 0);
    assert_false(status_of(0).enabled || status_of(0).ready);
    /* Again: as new. */
    up(0, mac_a);
    assert_int_equal(from_wire(mac_a, 0), 1);
}

static void test_life(void **state)
{
    life();
}

static void test_guest_chooses_mac(void **state)
{
    struct igbvf *a = up(3, NULL);
    assert_true(igb_mac_is_zero(a->perm_mac));
    assert_int_equal(from_wire(a->mac, 0), 1 << 3);
    assert_memory_equal(status_of(3).mac, a->mac, 6);
    assert_true(igbvf_set_mac(a, mac_x));
    assert_int_equal(from_wire(mac_x, 0), 1 << 3);
    assert_int_equal(status_of(3).refused, 0);
}

static void test_eight_vfs(void **state)
{
    fake_igb_init(&card, 0x10c9);
    fake_igb_start(&card, 8);
    for (uint32_t vf = 0; vf < 8; vf++)
        up(vf, NULL);
    assert_int_equal(from_wire(broadcast, 0), 0xff);
    assert_int_equal(from_wire(vfs[7].mac, 0), 1 << 7);
}

static void test_without_owner(void **state)
{
    struct igbvf driver;
    card.filter_writes_seen = false;
    assert_true(igbvf_probe(&driver, &card, 2)); /* an answer it gets, */
    assert_false(igbvf_set_mac(&driver, mac_x)); /* and nothing else */
    assert_false(card.filter_writes_seen);
    assert_int_equal(fake_igb_reg(&card, IGB_VFRE) | fake_igb_reg(&card, IGB_VFTE), 0);
    assert_int_equal(status_of(2).refused, 2);
    /* Beyond what is enabled: nothing. */
    struct pf_vf_policy policy = policy_of(mac_a);
    own(7, &policy);
    assert_false(card.priv.vf[7].owned);
    struct pf_vf_status s = status_of(7), zero = {0};
    assert_memory_equal(&s, &zero, sizeof(s));
}

/* ---- requests ---- */

static void test_before_reset(void **state)
{
    struct pf_vf_policy policy = policy_of(mac_a);
    struct igbvf *a = &vfs[0];
    own(0, &policy);
    *a = (struct igbvf){.card = &card, .vf = 0};
    card.filter_writes_seen = false;
    assert_int_equal(ask_mac(a, IGB_MAIL_MAC_SET, mac_a), IGB_MAIL_SET_MAC | IGB_MAIL_NACK);
    assert_int_equal(ask(a, IGB_MAIL_VLAN | 1 << 16, 10, 0), IGB_MAIL_VLAN | IGB_MAIL_NACK);
    assert_int_equal(ask(a, IGB_MAIL_PROMISC | 3 << 16, 0, 0), IGB_MAIL_PROMISC | 3 << 16 | IGB_MAIL_NACK);
    assert_false(card.filter_writes_seen);
    assert_int_equal(status_of(0).requests, 3);
    assert_int_equal(status_of(0).refused, 3);
    assert_memory_equal(status_of(0).mac, mac_a, 6); /* promised */
}

static void test_unknown(void **state)
{
    struct igbvf *a = up(0, mac_a);
    static const uint32_t words[] = {0,
                                     7,
                                     8,
                                     0x100,
                                     0xffff,
                                     IGB_MAIL_ACK | IGB_MAIL_LPE,
                                     IGB_MAIL_NACK | IGB_MAIL_LPE,
                                     IGB_MAIL_RESET | 1 << 16};
    card.filter_writes_seen = false;
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        assert_int_equal(ask(a, words[i], 1522, 0), (words[i] & 0x00ffffff) | IGB_MAIL_NACK | IGB_MAIL_CTS);
    assert_false(card.filter_writes_seen);
}

static void test_mac_rules(void **state)
{
    static const uint8_t group[] = {0x53, 0x54, 0, 0xaa, 0, 1}, zero[6];
    struct igbvf *a = up(0, mac_a), *b = up(1, NULL);
    /* A given address cannot be changed, and stays good. */
    assert_false(igbvf_set_mac(a, mac_x));
    assert_true(NACKED(ask_mac(a, IGB_MAIL_MAC_ADD, mac_x)));
    assert_true(igbvf_set_mac(a, mac_a));
    assert_int_equal(from_wire(mac_x, 0), 0);
    assert_int_equal(from_wire(mac_a, 0), 1);
    /* A chosen one: any that is one, and nobody else's. */
    assert_false(igbvf_set_mac(b, group));
    assert_false(igbvf_set_mac(b, zero));
    assert_false(igbvf_set_mac(b, mac_a));
    assert_true(NACKED(ask_mac(b, IGB_MAIL_MAC_ADD, mac_a)));
    assert_true(NACKED(ask_mac(b, (enum igb_mail_mac)3, mac_b)));
    assert_true(igbvf_set_mac(b, mac_b));
    /* Two more, not a third; again is no new one; taken away together. */
    assert_true(ACKED(ask_mac(b, IGB_MAIL_MAC_ADD, mac_x)));
    assert_true(ACKED(ask_mac(b, IGB_MAIL_MAC_ADD, mac_x)));
    assert_true(ACKED(ask_mac(b, IGB_MAIL_MAC_ADD, mac_y)));
    uint32_t full = ask_mac(b, IGB_MAIL_MAC_ADD, mac_z);
    assert_int_equal(full, IGB_MAIL_SET_MAC | 2 << 16 | IGB_MAIL_NACK | IGB_MAIL_CTS); /* igbvf compares */
    assert_int_equal(from_wire(mac_x, 0) & from_wire(mac_y, 0), 2);
    assert_int_equal(send(1, mac_z, mac_y), FAKE_IGB_WIRE); /* they are its own as senders, too */
    assert_true(ACKED(ask_mac(b, IGB_MAIL_MAC_CLEAR, zero)));
    assert_int_equal(from_wire(mac_x, 0) | from_wire(mac_y, 0), 0);
    assert_int_equal(from_wire(mac_b, 0), 2);
}

static void test_trusted_mac(void **state)
{
    struct pf_vf_policy policy = policy_of(mac_a);
    policy.trust = true;
    struct igbvf *a = up_with(0, &policy), *b = up(1, NULL);
    assert_true(igbvf_set_mac(a, mac_x));
    assert_int_equal(from_wire(mac_x, 0), 1);
    assert_int_equal(from_wire(mac_a, 0), 0);
    assert_false(igbvf_set_mac(b, mac_a)); /* still promised to VF 0 */
    assert_true(igbvf_probe(a, &card, 0));
    assert_memory_equal(a->perm_mac, mac_a, 6);
}

static void test_operator_takes_mac(void **state)
{
    struct igbvf *b = up(1, NULL);
    assert_true(igbvf_set_mac(b, mac_a));
    struct pf_vf_policy policy = policy_of(mac_a);
    own(0, &policy);
    assert_int_equal(from_wire(mac_a, 0), 0);
    assert_true(igb_mac_is_zero(status_of(1).mac));
    assert_true(igbvf_probe(&vfs[0], &card, 0));
    assert_int_equal(from_wire(mac_a, 0), 1);
}

static void test_port_vlan(void **state)
{
    struct pf_vf_policy in10 = policy_of(mac_a), in20 = policy_of(mac_b);
    in10.vlan = 10;
    in20.vlan = 20;
    struct igbvf *a = up_with(0, &in10);
    up_with(1, &in20);
    up(2, mac_x);
    assert_int_equal(status_of(0).vlan, 10);
    /* Each in its own; nobody sees the others, not even when it names their VLAN. */
    assert_int_equal(send(0, mac_b, mac_a), FAKE_IGB_WIRE);
    assert_int_equal(send_vlan(0, mac_b, mac_a, 20), FAKE_IGB_WIRE);
    assert_int_equal(send(0, broadcast, mac_a), FAKE_IGB_WIRE);
    assert_int_equal(send(2, broadcast, mac_x), FAKE_IGB_WIRE);
    assert_int_equal(from_wire(broadcast, 10), 1);
    assert_int_equal(from_wire(broadcast, 20), 2);
    assert_int_equal(from_wire(broadcast, 0), 4);
    assert_int_equal(from_wire(mac_a, 0), 0);
    assert_int_equal(from_wire(mac_a, 10), 1);
    assert_int_equal(fake_igb_tag_seen(&card, 0, 10), 0);
    /* It has no say in it. */
    assert_false(igbvf_set_vlan(a, 20, true));
    assert_false(igbvf_set_vlan(a, 10, false));
    assert_true(igbvf_set_vlan(a, 0, true)); /* asked for by every driver; means nothing */
    assert_int_equal(from_wire(broadcast, 10), 1);
    assert_int_equal(from_wire(broadcast, 0), 4);
    own(0, NULL);
    assert_int_equal(from_wire(broadcast, 10), 0);
    assert_false(fake_igb_reg(&card, IGB_VFTA(0)) & 1 << 10);
    assert_int_equal(fake_igb_reg(&card, IGB_VMVIR(0)), 0x4000000a); /* for what is still under way */
}

static void test_port_vlan_i350(void **state)
{
    struct pf_vf_policy in10 = policy_of(mac_a);
    in10.vlan = 10;
    up_with(0, &in10);
    assert_int_equal(fake_igb_reg(&card, IGB_DVMOLR(0)), 0xe0000000);
    assert_false(fake_igb_reg(&card, IGB_VMOLR(0)) & IGB_VMOLR_STRVLAN);
    up(1, mac_b);
    assert_int_equal(fake_igb_reg(&card, IGB_DVMOLR(1)), 0x80000000);
    card.vfta_writes = 0;
    assert_true(igbvf_set_vlan(&vfs[1], 33, true));
    assert_int_equal(card.vfta_writes, 10);
    assert_int_equal(fake_igb_reg(&card, IGB_DVMOLR(1)), 0xc0000000);
    assert_int_equal(from_wire(broadcast, 33), 2);
}

static void test_guest_vlans(void **state)
{
    struct igbvf *a = up(0, mac_a), *b = up(1, mac_b);
    assert_int_equal(send_vlan(0, mac_x, mac_a, 30), 0); /* not its VLAN: wrong sender */
    assert_int_equal(from_wire(broadcast, 30), 0);
    assert_true(igbvf_set_vlan(a, 30, true));
    assert_true(igbvf_set_vlan(a, 30, true));
    assert_true(igbvf_set_vlan(b, 30, true));
    assert_int_equal(send_vlan(0, mac_b, mac_a, 30), 2);
    assert_int_equal(from_wire(broadcast, 30), 3);
    assert_int_equal(from_wire(broadcast, 0), 3);
    assert_int_equal(fake_igb_tag_seen(&card, 0, 30), 0); /* in the descriptor */
    assert_true(igbvf_set_vlan(a, 30, false));
    assert_int_equal(from_wire(broadcast, 30), 2);
    assert_true(igbvf_set_vlan(b, 30, false));
    assert_int_equal(fake_igb_reg(&card, IGB_VFTA(0)), 1);
    /* Nonsense. */
    assert_int_equal(ask(a, IGB_MAIL_VLAN | 1 << 16, 4095, 0), IGB_MAIL_VLAN | IGB_MAIL_NACK | IGB_MAIL_CTS);
    assert_true(NACKED(ask(a, IGB_MAIL_VLAN | 1 << 16, 0x10001, 0)));
    assert_true(NACKED(ask(a, IGB_MAIL_VLAN | 2 << 16, 5, 0)));
}

static void test_operator_takes_vlan(void **state)
{
    struct pf_vf_policy in40 = policy_of(mac_a), trusted = policy_of(mac_x);
    in40.vlan = 40;
    trusted.trust = true;
    struct igbvf *b = up(1, mac_b), *c = up_with(2, &trusted);
    assert_true(igbvf_set_vlan(b, 40, true) && igbvf_set_vlan(c, 40, true));
    assert_int_equal(from_wire(broadcast, 40), 6);
    own(0, &in40); /* from now on it is this VM's: no other one that is not trusted stays or comes in */
    assert_int_equal(from_wire(broadcast, 40), 4);
    assert_int_equal(from_wire(broadcast, 0), 6);
    assert_false(igbvf_set_vlan(b, 40, true));
    assert_true(igbvf_set_vlan(c, 40, true));
    assert_true(igbvf_set_vlan(b, 40, false)); /* leaving is never wrong */
    own(0, NULL);
    assert_true(igbvf_set_vlan(b, 40, true));
}

static void test_vlan_shares(void **state)
{
    /* 31 entries for 7 VFs: 4 for each, whatever the others do. */
    for (uint32_t vf = 0; vf < 7; vf++)
        up(vf, NULL);
    for (uint32_t vf = 0; vf < 7; vf++) {
        for (uint32_t i = 0; i < 4; i++)
            assert_true(igbvf_set_vlan(&vfs[vf], (uint16_t)(100 * (vf + 1) + i), true));
        assert_false(igbvf_set_vlan(&vfs[vf], 4000, true));
    }
    for (uint32_t vf = 0; vf < 7; vf++)
        for (uint16_t i = 0; i < 4; i++)
            assert_int_equal(from_wire(broadcast, (uint16_t)(100 * (vf + 1) + i)), 1 << vf);
    /* Given back, it can be used anew. */
    assert_true(igbvf_set_vlan(&vfs[2], 301, false));
    assert_true(igbvf_set_vlan(&vfs[2], 4000, true));
    assert_int_equal(from_wire(broadcast, 301), 0);
    assert_int_equal(from_wire(broadcast, 4000), 1 << 2);
}

static void test_groups(void **state)
{
    static const uint8_t group_1[] = {1, 0, 0x5e, 0, 0x10, 0x00}, group_2[] = {1, 0, 0x5e, 0, 0x20, 0x40};
    const uint16_t hash_1 = 0x001, hash_2 = 0x402;
    struct igbvf *a = up(0, mac_a), *b = up(1, mac_b);
    igbvf_set_groups(a, &hash_1, 0);
    igbvf_set_groups(b, &hash_1, 0);
    assert_int_equal(from_wire(group_1, 0), 0);
    igbvf_set_groups(a, &hash_1, 1);
    igbvf_set_groups(b, &hash_2, 1);
    assert_int_equal(from_wire(group_1, 0) & 1, 1);
    assert_int_equal(from_wire(group_2, 0) & 2, 2);
    igbvf_set_groups(b, &hash_2, 0);
    assert_int_equal(from_wire(group_2, 0), 0);
    assert_int_equal(from_wire(group_1, 0), 1);
    /* Thirty fit; a count beyond is refused whole; whoever has more and is not trusted gets the thirty. */
    uint16_t many[30];
    for (unsigned i = 0; i < 30; i++)
        many[i] = (uint16_t)(0xf000 | 128 * i); /* bits beyond 11:0 mean nothing */
    igbvf_set_groups(a, many, 30);
    assert_int_equal(fake_igb_reg(&card, IGB_MTA(29 * 4)), 1);
    assert_true(NACKED(ask(a, IGB_MAIL_MULTICAST | 31 << 16, 0x00050005, 0)));
    assert_int_equal(fake_igb_reg(&card, IGB_MTA(29 * 4)), 1);
    assert_true(ACKED(ask(a, IGB_MAIL_MULTICAST | 0x81u << 16, 0x402, 0)));
    assert_int_equal(from_wire(group_2, 0), 1);
    assert_int_equal(from_wire(group_1, 0), 0);
    own(0, NULL);
    for (unsigned i = 0; i < IGB_TABLE_DWORDS; i++)
        assert_int_equal(fake_igb_reg(&card, IGB_MTA(i)), 0);
}

static void test_promisc(void **state)
{
    static const uint8_t group[] = {1, 0, 0x5e, 0, 0x10, 0x00};
    struct pf_vf_policy policy = policy_of(mac_a);
    struct igbvf *b = up(1, mac_b);
    policy.trust = true;
    struct igbvf *a = up_with(0, &policy);
    igbvf_set_groups(b, NULL, 0);
    igbvf_set_groups(a, NULL, 0);
    assert_true(NACKED(ask(b, IGB_MAIL_PROMISC | 1 << 16, 0, 0)));
    assert_true(NACKED(ask(b, IGB_MAIL_PROMISC | 2 << 16, 0, 0)));
    assert_true(ACKED(ask(b, IGB_MAIL_PROMISC, 0, 0)));
    assert_true(NACKED(ask(a, IGB_MAIL_PROMISC | 4 << 16, 0, 0)));
    assert_true(ACKED(ask(a, IGB_MAIL_PROMISC | 3 << 16, 0, 0)));
    assert_int_equal(from_wire(mac_x, 0), 1);
    assert_int_equal(from_wire(group, 0), 1);
    assert_int_equal(from_wire(mac_b, 0), 3);
    assert_int_equal(from_wire(mac_x, 77), 0); /* VLANs bind it all the same */
    assert_true(ACKED(ask(a, IGB_MAIL_PROMISC, 0, 0)));
    assert_int_equal(from_wire(mac_x, 0) | from_wire(group, 0), 0);
    assert_true(ACKED(ask(a, IGB_MAIL_MULTICAST | 0x80u << 16, 0, 0)));
    assert_int_equal(from_wire(group, 0), 1);
    assert_true(ACKED(ask(a, IGB_MAIL_PROMISC | 1 << 16, 0, 0)));
    fake_igb_flr(&card, 0); /* a reset ends it */
    fake_igb_run(&card, 10000);
    assert_int_equal(fake_igb_reg(&card, IGB_UTA(5)), 0);
}

static void test_frames(void **state)
{
    struct igbvf *a = up(0, mac_a);
    struct fake_packet packet = {.size = 9000};
    memcpy(packet.to, mac_a, 6);
    assert_int_equal(fake_igb_send(&card, IGB_POOLS, &packet), 0);
    assert_true(ACKED(ask(a, IGB_MAIL_LPE, 9724, 0)));
    assert_int_equal(fake_igb_send(&card, IGB_POOLS, &packet), 1);
    assert_int_equal(fake_igb_reg(&card, IGB_VMOLR(0)) & 0x3fff, 9728);
    assert_true(NACKED(ask(a, IGB_MAIL_LPE, 9725, 0)));
    assert_true(NACKED(ask(a, IGB_MAIL_LPE, 63, 0)));
    assert_true(NACKED(ask(a, IGB_MAIL_LPE, 0xffffffff, 0)));
    assert_int_equal(fake_igb_reg(&card, IGB_VMOLR(0)) & 0x3fff, 9728);
    assert_true(igbvf_probe(a, &card, 0));
    assert_int_equal(fake_igb_reg(&card, IGB_VMOLR(0)) & 0x3fff, 1522);
}

/* ---- hostile drivers ---- */

static void test_spoofing(void **state)
{
    struct pf_vf_policy loose = policy_of(mac_b);
    loose.spoofcheck = false;
    up(0, mac_a);
    up_with(1, &loose);
    assert_int_equal(send(0, mac_b, mac_x), 0);
    assert_int_equal(send(0, mac_b, mac_b), 0);
    assert_int_equal(send_vlan(0, mac_b, mac_a, 7), 0);
    assert_int_equal(send(1, mac_a, mac_x), 1);
    fake_igb_run(&card, 200000);
    assert_int_equal(status_of(0).spoofed, 1); /* noticed once for each look */
    assert_int_equal(status_of(1).spoofed, 0);
    assert_int_equal(fake_igb_reg(&card, IGB_DTXSWC), 0x80000101);
    card.regs[IGB_WVBR / 4] = 1 << 9; /* the second queue of VF 1 */
    fake_igb_run(&card, 200000);
    assert_int_equal(status_of(1).spoofed, 1);
    fake_igb_flr(&card, 1); /* what the card still had of it is no wrong sender */
    card.regs[IGB_WVBR / 4] = 1 << 1;
    fake_igb_run(&card, 200000);
    assert_int_equal(status_of(1).spoofed, 1);
}

static void test_spoofing_i350(void **state)
{
    up(0, mac_a);
    assert_int_equal(send(0, mac_b, mac_x), 0);
    assert_int_equal(fake_igb_reg(&card, IGB_TXSWC), 0x80000101);
}

/* A VF that always has a message waiting. */
static void flood(uint32_t vf, uint32_t word)
{
    fake_igb_vf_write(&card, vf, FAKE_VF_MEM, word);
    fake_igb_vf_write(&card, vf, FAKE_VF_MAILBOX, IGB_V2P_REQ);
}

static void test_flood(void **state)
{
    struct igbvf *b = up(1, mac_b);
    up(0, mac_a);
    struct pf_vf_status before = status_of(0);
    uint64_t begin = card.now_us;
    uint32_t most = 0;
    for (unsigned i = 0; i < 300; i++) { /* 3 s */
        uint32_t accesses = card.reads + card.writes;
        flood(0, IGB_MAIL_MULTICAST | 30u << 16);
        fake_igb_run(&card, 10000);
        accesses = card.reads + card.writes - accesses;
        most = accesses > most ? accesses : most;
    }
    struct pf_vf_status after = status_of(0);
    assert_in_range(after.requests - before.requests, 150, 32 + 150 + 1);
    assert_in_range(after.deferred, 100, 300);
    assert_in_range(most, 20, 80);
    /* The other one is served at once. */
    begin = card.now_us;
    for (unsigned i = 0; i < 20; i++) {
        flood(0, IGB_MAIL_MULTICAST | 30u << 16);
        assert_true(igbvf_set_vlan(b, 5, i % 2 == 0));
    }
    assert_in_range(card.now_us - begin, 0, 20 * 11000);
    assert_int_equal(status_of(1).deferred, 0);
    /* A storm of resets costs little more. */
    for (unsigned i = 0; i < 100; i++) {
        uint32_t accesses = card.reads + card.writes;
        fake_igb_flr(&card, 0);
        fake_igb_run(&card, 10000);
        if (i > 0)
            assert_in_range(card.reads + card.writes - accesses, 2, 30);
    }
}

static void test_buffer_kept(void **state)
{
    struct igbvf *b = up(1, mac_b);
    struct pf_vf_policy policy = policy_of(mac_a);
    up_with(0, &policy);
    uint64_t requests = status_of(0).requests;
    fake_igb_vf_write(&card, 0, FAKE_VF_MAILBOX, IGB_V2P_VFU | IGB_V2P_REQ);
    fake_igb_run(&card, 1000000);
    assert_int_equal(status_of(0).requests, requests); /* it waits for itself */
    assert_true(igbvf_set_vlan(b, 5, true));
    /* Its next owner finds a free one. */
    own(0, NULL);
    assert_false(fake_igb_reg(&card, IGB_P2VMAILBOX(0)) & IGB_P2V_VFU);
    assert_int_equal(fake_igb_reg(&card, IGB_MBVFICR) & 1, 0);
    up_with(0, &policy);
}

static void test_stale_of_last_owner(void **state)
{
    struct pf_vf_policy policy = policy_of(mac_a);
    up(0, mac_a);
    card.polled = false;
    flood(0, IGB_MAIL_RESET);
    fake_igb_flr(&card, 0);
    own(0, &policy);
    card.polled = true;
    fake_igb_run(&card, 50000);
    assert_int_equal(status_of(0).resets, 0);
    assert_false(status_of(0).ready); /* the old message opens nothing */
}

static void test_reset_orders(void **state)
{
    struct pf_vf_policy policy = policy_of(mac_a);
    up(0, mac_a);
    assert_int_equal(from_wire(mac_a, 0), 1);
    card.polled = false;
    /* Reset and RESET between two polls: open at the end. */
    fake_igb_vf_write(&card, 0, FAKE_VF_CTRL, IGB_CTRL_RST);
    flood(0, IGB_MAIL_RESET);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(from_wire(mac_a, 0), 1);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(from_wire(mac_a, 0), 1);
    /* A RESET message alone also forgets what was asked for. */
    fake_igb_vf_write(&card, 0, FAKE_VF_MEM + 4, 12);
    flood(0, IGB_MAIL_VLAN | 1 << 16);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(from_wire(broadcast, 12), 1);
    flood(0, IGB_MAIL_RESET);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(from_wire(broadcast, 12), 0);
    assert_int_equal(from_wire(broadcast, 0), 1);
    /* A message of before the reset opens nothing and is refused. */
    flood(0, IGB_MAIL_LPE);
    fake_igb_vf_write(&card, 0, FAKE_VF_CTRL, IGB_CTRL_RST);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), IGB_MAIL_LPE | IGB_MAIL_NACK);
    assert_int_equal(from_wire(mac_a, 0), 0);
    /* One VF opens while another one's reset is not yet seen: it stays shut. */
    own(1, &policy);
    own(0, &policy);
    flood(0, IGB_MAIL_RESET);
    card.pf.ops->poll(&card.pf);
    fake_igb_flr(&card, 0);
    card.regs[IGB_VFLRE / 4] = 0; /* the poll has just read it */
    flood(1, IGB_MAIL_RESET);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(fake_igb_reg(&card, IGB_VFRE), 2);
    assert_int_equal(fake_igb_reg(&card, IGB_VFTE), 2);
}

/* A guest that resets its function under a running driver: the driver learns that it is not clear to send any
 * more, and starts again. */
static void test_reset_under_driver(void **state)
{
    struct igbvf *a = up(0, mac_a);
    assert_true(igbvf_watchdog(a) && a->carrier);
    fake_igb_flr(&card, 0);
    fake_igb_run(&card, 20000);
    assert_int_equal(ask(a, IGB_MAIL_LPE, 1522, 0), IGB_MAIL_LPE | IGB_MAIL_NACK);
    a->look = true;
    assert_false(igbvf_watchdog(a));
    assert_true(igbvf_open(a) && igbvf_watchdog(a) && a->carrier);
    assert_int_equal(from_wire(mac_a, 0), 1);
}

static void test_fifty_owners(void **state)
{
    static uint32_t before[IGB_BAR_SIZE / 4];
    uint16_t group = 0x123;
    up(1, mac_b);
    own(0, NULL);
    memcpy(before, card.regs, sizeof(before));
    for (unsigned i = 0; i < 50; i++) {
        struct pf_vf_policy policy = policy_of(mac_a);
        policy.vlan = i % 3 ? 0 : 10;
        policy.trust = i % 2;
        policy.rate_mbps = i;
        struct igbvf *a = up_with(0, &policy);
        igbvf_set_groups(a, &group, 1);
        igbvf_set_vlan(a, (uint16_t)(100 + i), true);
        igbvf_set_mac(a, mac_x);
        ask(a, IGB_MAIL_PROMISC | 3 << 16, 0, 0);
        if (i % 4 == 1)
            fake_igb_vf_write(&card, 0, FAKE_VF_MAILBOX,
                              IGB_V2P_VFU | IGB_V2P_REQ); /* dies within a message */
        fake_igb_flr(&card, 0);
        if (i % 4 > 1)
            fake_igb_run(&card, 10000);
        own(0, NULL);
        assert_int_equal(send(1, broadcast, mac_b), FAKE_IGB_WIRE);
    }
    fake_igb_run(&card, 100000);
    /* But for what binds packets that are still under way, and means nothing without them. */
    before[IGB_VMVIR(0) / 4] = card.regs[IGB_VMVIR(0) / 4];
    before[IGB_DVMOLR(0) / 4] = card.regs[IGB_DVMOLR(0) / 4];
    before[IGB_DTXSWC / 4] |= 0x101;
    for (uint32_t offset = 0; offset < IGB_PFVFGPRC(0); offset += 4)
        if ((offset < IGB_VMBMEM(0) || offset >= IGB_VMBMEM(1)) && offset != IGB_RTTDQSEL &&
            offset != IGB_TXSWC)
            assert_int_equal(card.regs[offset / 4] | (offset == IGB_DTXSWC ? 0x101 : 0), before[offset / 4]);
}

static uint32_t mail_word_at_read;
static uint32_t (*real_read)(void *ctx, uint64_t offset);

/* The VF resets itself, and says so, right after the first of the two reads that a poll begins with. */
static uint32_t read_and_reset(void *ctx, uint64_t offset)
{
    uint32_t value = real_read(ctx, offset);
    if ((offset == IGB_MBVFICR || offset == IGB_VFLRE) && mail_word_at_read) {
        uint32_t word = mail_word_at_read;
        mail_word_at_read = 0;
        fake_igb_flr(&card, 0);
        flood(0, word);
    }
    return value;
}

static void test_reset_race(void **state)
{
    up(0, mac_a);
    card.polled = false;
    real_read = card.pf.bar.read32;
    card.pf.bar.read32 = read_and_reset;
    mail_word_at_read = IGB_MAIL_RESET;
    card.pf.ops->poll(&card.pf);
    card.pf.ops->poll(&card.pf);
    card.pf.ops->poll(&card.pf);
    assert_int_equal(mail_word_at_read, 0);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), IGB_MAIL_RESET | IGB_MAIL_ACK);
    assert_int_equal(from_wire(mac_a, 0), 1);
}

/* ---- link, rates, counters ---- */

static void test_link(void **state)
{
    uint32_t mbps = 0;
    struct igbvf *a = up(0, mac_a);
    assert_true(igbvf_watchdog(a) && a->carrier);
    assert_true(card.pf.ops->link(&card.pf, &mbps));
    assert_int_equal(mbps, 1000);
    card.cable_mbps = 0;
    fake_igb_run(&card, 1200000);
    assert_false(card.pf.ops->link(&card.pf, &mbps));
    assert_int_equal(mbps, 0);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), IGB_MAIL_PING | IGB_MAIL_CTS);
    assert_true(igbvf_watchdog(a) && !a->carrier);
    card.cable_mbps = 100;
    fake_igb_run(&card, 1200000);
    assert_true(card.pf.ops->link(&card.pf, &mbps));
    assert_int_equal(mbps, 100);
    assert_true(igbvf_watchdog(a) && a->carrier);
    card.cable_mbps = 10;
    fake_igb_run(&card, 200000);
    assert_true(card.pf.ops->link(&card.pf, &mbps) && mbps == 10);
}

static void test_ping_waits(void **state)
{
    struct igbvf *a = up(0, mac_a);
    assert_true(igbvf_watchdog(a));
    fake_igb_run(&card, 2000000);
    /* An answer that was not read yet is not overwritten, for a second. */
    uint32_t msg[] = {IGB_MAIL_VLAN | 1 << 16, 9};
    for (unsigned i = 0; i < 2; i++)
        fake_igb_vf_write(&card, 0, FAKE_VF_MEM + 4 * i, msg[i]);
    fake_igb_vf_write(&card, 0, FAKE_VF_MAILBOX, IGB_V2P_REQ);
    fake_igb_run(&card, 10000);
    card.cable_mbps = 100;
    fake_igb_run(&card, 500000);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), msg[0] | IGB_MAIL_ACK | IGB_MAIL_CTS);
    fake_igb_vf_write(&card, 0, FAKE_VF_MAILBOX, IGB_V2P_ACK); /* now it is */
    fake_igb_run(&card, 20000);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), IGB_MAIL_PING | IGB_MAIL_CTS);
    /* Nor is a request that comes in the meantime: the poll has not seen it, the ping looks again. */
    fake_igb_run(&card, 2000000);
    card.polled = false;
    card.cable_mbps = 1000;
    fake_igb_run(&card, 200000);
    real_read = card.pf.bar.read32;
    card.pf.bar.read32 = read_and_reset;
    mail_word_at_read = IGB_MAIL_LPE;
    card.pf.ops->poll(&card.pf);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), IGB_MAIL_LPE);
}

static void test_ping_and_request(void **state)
{
    up(0, mac_a);
    fake_igb_run(&card, 2000000);
    card.polled = false;
    card.cable_mbps = 100;
    fake_igb_run(&card, 200000);
    /* The VF holds the buffer: the ping waits for it; then finds a request in it and leaves it there. */
    fake_igb_vf_write(&card, 0, FAKE_VF_MAILBOX, IGB_V2P_VFU);
    card.pf.ops->poll(&card.pf);
    assert_true(card.priv.vf[0].ping_due);
    fake_igb_vf_write(&card, 0, FAKE_VF_MEM, IGB_MAIL_LPE);
    card.regs[IGB_MBVFICR / 4] = 1;
    fake_igb_vf_write(&card, 0, FAKE_VF_MAILBOX, 0);
    card.priv.vf[0].ping_due = true;
    igb_mailbox_ping(&card.pf, 0, card.now_us);
    assert_int_equal(fake_igb_vf_read(&card, 0, FAKE_VF_MEM), IGB_MAIL_LPE);
    assert_false(fake_igb_reg(&card, IGB_P2VMAILBOX(0)) & IGB_P2V_PFU);
    assert_true(card.priv.vf[0].ping_due);
    /* A VF that closes meanwhile needs none. */
    fake_igb_flr(&card, 0);
    card.regs[IGB_MBVFICR / 4] = 0;
    card.pf.ops->poll(&card.pf);
    assert_false(card.priv.vf[0].ping_due);
}

static uint32_t rates[16];

static void write_rates(void *ctx, uint64_t offset, uint32_t value)
{
    struct fake_igb *c = ctx;
    c->regs[offset / 4] = value;
    if (offset == IGB_RTTBCNRC)
        rates[c->regs[IGB_RTTDQSEL / 4] & 15] = value;
}

static void test_rate(void **state)
{
    struct pf_vf_policy policy = policy_of(mac_a);
    void (*real_write)(void *, uint64_t, uint32_t) = card.pf.bar.write32;
    memset(rates, 0xee, sizeof(rates));
    policy.rate_mbps = 300;
    card.pf.bar.write32 = write_rates;
    own(2, &policy);
    /* 1000 / 300 = 3 + 1/3, 14 bits behind the point; its other queue as slow as can be. */
    assert_int_equal(rates[2], 0x80000000 | 3 << 14 | 16384 / 3);
    assert_int_equal(rates[10], 0x80000000 | 0x3fff << 14);
    own(2, NULL);
    assert_int_equal(rates[2] | rates[10], 0);
    policy.rate_mbps = 1000; /* no less than the link: no cap */
    own(2, &policy);
    assert_int_equal(rates[2] | rates[10], 0);
    policy.rate_mbps = 50;
    own(2, &policy);
    assert_int_equal(rates[2], 0x80000000 | 20 << 14);
    card.cable_mbps = 100; /* the cap stays what it is */
    fake_igb_run(&card, 200000);
    assert_int_equal(rates[2], 0x80000000 | 2 << 14);
    assert_false(status_of(2).rate_unsupported);
    card.pf.bar.write32 = real_write;
}

static void test_rate_i350(void **state)
{
    char line[LOG_LINE_MAX] = "";
    struct pf_vf_policy policy = policy_of(mac_a);
    policy.rate_mbps = 300;
    own(2, &policy); /* the model would abort at a register that it has not */
    assert_true(status_of(2).rate_unsupported);
    uint64_t at = log_position(1);
    assert_true(log_next(&at, line, sizeof(line)));
    assert_non_null(strstr(line, "rate is not kept"));
}

static void test_counters(void **state)
{
    up(0, mac_a);
    struct pf_vf_policy policy = policy_of(mac_a);
    card.regs[IGB_PFVFGORC(0) / 4] = 0xfffffff0;
    own(0, &policy);
    assert_int_equal(status_of(0).rx_bytes, 0);
    card.regs[IGB_PFVFGORC(0) / 4] = 0x10;
    assert_int_equal(status_of(0).rx_bytes, 0x20);
    /* 5 GB at 1 Gb/s: none is lost, as nobody asks for 40 s. */
    for (unsigned i = 0; i < 40; i++) {
        card.regs[IGB_PFVFGORC(0) / 4] += 125000000;
        fake_igb_run(&card, 1000000);
    }
    assert_int_equal(status_of(0).rx_bytes, 0x20 + 5000000000);
    /* A counter that a reset has cleared starts again. */
    card.regs[IGB_PFVFGPTC(0) / 4] = 1000;
    assert_int_equal(status_of(0).tx_packets, 1000);
    card.regs[IGB_PFVFGPTC(0) / 4] = 7;
    assert_int_equal(status_of(0).tx_packets, 1007);
}

/* ---- the driver itself ---- */

static void test_idle(void **state)
{
    for (uint32_t vf = 0; vf < 7; vf++)
        up(vf, NULL);
    fake_igb_run(&card, 3000000);
    card.reads = card.writes = 0;
    fake_igb_run(&card, 10000000); /* 1000 polls */
    assert_int_equal(card.writes, 0);
    /* Two for each poll; five times a second link, senders and one VF's four counters. */
    assert_in_range(card.reads, 2000, 2000 + 50 * 6 + 10);
    /* 0.5 % of a CPU, were each read as slow as those of a card behind two switches. */
    const uint64_t slow_read_ns = 2500, run_ns = 10000000000u;
    assert_true(card.reads * slow_read_ns * 200 < run_ns);
}

static void test_locked(void **state)
{
    up(0, mac_a);
    card.reads = 0;
    spin_lock(&card.pf.lock);
    card.pf.ops->poll(&card.pf); /* does not wait */
    assert_int_equal(card.reads, 0);
    spin_unlock(&card.pf.lock);
    card.pf.ops->poll(&card.pf);
    assert_in_range(card.reads, 2, 20);
}

static void test_gone(void **state)
{
    uint32_t mbps;
    struct pf_vf_policy policy = policy_of(mac_b);
    up(0, mac_a);
    card.dead = true;
    card.pf.ops->poll(&card.pf);
    card.reads = card.writes = 0;
    fake_igb_run(&card, 1000000);
    own(1, &policy);
    assert_true(status_of(0).enabled);
    assert_int_equal(card.reads + card.writes, 0);
    assert_false(card.pf.ops->link(&card.pf, &mbps));
    assert_int_equal(mbps, 0);
}

static void test_log(void **state)
{
    char line[LOG_LINE_MAX];
    uint64_t at = log_position(1);
    struct igbvf *a = up(0, mac_a);
    unsigned seen = 0;
    for (unsigned i = 0; i < 5; i++)
        igbvf_set_mac(a, mac_x);
    while (log_next(&at, line, sizeof(line)))
        seen += strstr(line, "pf 01:00.0") && strstr(line, "VM web, VF 0 asked for a MAC");
    assert_int_equal(seen, 1); /* once for each owner */
    struct pf_vf_policy policy = policy_of(mac_b);
    policy.owner = NULL;
    a = up_with(1, &policy);
    igbvf_set_mac(a, mac_x);
    while (log_next(&at, line, sizeof(line)))
        seen += strstr(line, "warning: VF 1 asked for a MAC") != NULL;
    assert_int_equal(seen, 2);
}

#define T(name)      cmocka_unit_test_setup(name, setup)
#define T_I350(name) cmocka_unit_test_setup(name, setup_i350)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_start_faults),
        T(test_semaphore_given_back),
        T(test_life),
        T_I350(test_life),
        T(test_guest_chooses_mac),
        T(test_eight_vfs),
        T(test_without_owner),
        T(test_before_reset),
        T(test_unknown),
        T(test_mac_rules),
        T(test_trusted_mac),
        T(test_operator_takes_mac),
        T(test_port_vlan),
        T_I350(test_port_vlan_i350),
        T(test_guest_vlans),
        T(test_operator_takes_vlan),
        T(test_vlan_shares),
        T_I350(test_vlan_shares),
        T(test_groups),
        T(test_promisc),
        T(test_frames),
        T(test_spoofing),
        T_I350(test_spoofing_i350),
        T(test_flood),
        T(test_buffer_kept),
        T(test_stale_of_last_owner),
        T(test_reset_orders),
        T(test_reset_under_driver),
        T(test_fifty_owners),
        T_I350(test_fifty_owners),
        T(test_reset_race),
        T(test_link),
        T(test_ping_waits),
        T(test_ping_and_request),
        T(test_rate),
        T_I350(test_rate_i350),
        T(test_counters),
        T(test_idle),
        T(test_locked),
        T(test_gone),
        T(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
