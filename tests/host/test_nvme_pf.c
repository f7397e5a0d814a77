/* The NVMe PF driver against a fake controller: what it asks for and in which order, what it makes sure of,
 * and that no failure of the card leaves a namespace with two owners. */
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include "drivers/nvme/nvme_pf.h"
#include "drivers/nvme/nvme_regs.h"
#include "hv/lib/log.h"
#include "tests/host/fake_nvme.h"

#define SECONDARIES 4u
#define NAMESPACES  3u

static struct fake_nvme card;
static struct nvme_pf pf;
static char why[256];

#define assert_why(text)                                                                                     \
    do {                                                                                                     \
        if (!strstr(why, text))                                                                              \
            fail_msg("\"%s\" is not in \"%s\"", text, why);                                                  \
    } while (0)

static int setup(void **state)
{
    fake_nvme_init(&card, SECONDARIES, NAMESPACES);
    memset(&pf, 0, sizeof(pf));
    memset(why, 0, sizeof(why));
    return 0;
}

static enum status start(void)
{
    return nvme_pf_start(&pf, &card.regs, &card.env, why, sizeof(why));
}

static enum status prepare(uint32_t vf, uint32_t nsid)
{
    return nvme_pf_prepare_vf(&pf, vf, nsid, why, sizeof(why));
}

static enum status release(uint32_t vf)
{
    return nvme_pf_release_vf(&pf, vf, why, sizeof(why));
}

/* On the card: the VF's controller is online, has its namespace and no other, and nobody else has that. */
static bool has_its_own(uint32_t vf)
{
    const struct nvme_vf *v = nvme_pf_vf(&pf, vf);
    bool good = v->state == NVME_VF_READY && card.secondaries[vf].online;
    for (uint32_t i = 0; i < card.namespace_count; i++) {
        uint32_t bit = 1u << v->controller, attached = card.namespaces[i].attached;
        good = good && (card.namespaces[i].nsid == v->nsid ? attached == bit : !(attached & bit));
    }
    return good;
}

static void enable(uint32_t vfs)
{
    card.vfs_on = vfs;
    assert_int_equal(nvme_pf_vfs_enabled(&pf, vfs, why, sizeof(why)), STATUS_OK);
}

static void up(uint32_t vfs)
{
    assert_int_equal(start(), STATUS_OK);
    enable(vfs);
}

/* ---- start ---- */

static void test_start(void **state)
{
    struct nvme_info info;
    assert_int_equal(start(), STATUS_OK);
    assert_int_equal(nvme_pf_vectors(&pf), 0); /* nobody's yet */
    nvme_pf_info(&pf, &info);
    assert_string_equal(info.model, "Fake card");
    assert_string_equal(info.serial, "S/N 1?[2J"); /* nothing that a terminal obeys */
    assert_string_equal(info.firmware, "1.0");
    assert_true(info.alive && info.manages_namespaces);
    assert_int_equal(info.vf_count, 0);
    assert_int_equal(info.secondary_count, SECONDARIES);
    assert_int_equal(info.namespace_count, NAMESPACES);
    assert_int_equal(info.queues_total, 6);
    assert_int_equal(info.vectors_total, 4);
    assert_int_equal(info.refused, 0);
    assert_int_equal(info.commands, card.command_count);
    assert_false(nvme_pf_reset_wanted(&pf));
    const struct nvme_namespace *ns = nvme_pf_namespace(&pf, 2);
    assert_int_equal(ns->nsid, 3);
    assert_int_equal(ns->blocks, 0x20000);
    assert_int_equal(ns->block_size, 512);
    assert_int_equal(ns->vf, -1);
    assert_false(ns->shared);
    assert_null(nvme_pf_namespace(&pf, 3));
    assert_null(nvme_pf_vf(&pf, 0));
    assert_int_equal(card.cc & 0x70, 0); /* the NVM command set */
}

static void test_start_again(void **state)
{
    up(2);
    assert_int_equal(prepare(0, 1), STATUS_OK);
    card.ready_us = 0;
    up(2); /* one allocation only: the fake aborts at the second */
    assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FREE);
    assert_int_equal(nvme_pf_namespace(&pf, 0)->vf, -1);
    assert_int_equal(prepare(1, 1), STATUS_OK); /* the attachment outlived the reset */
    assert_int_equal(card.namespaces[0].attached, 1u << 2);
}

static void test_command_sets(void **state)
{
    card.cap = (card.cap & ~NVME_CAP_CSS_NVM) | NVME_CAP_CSS_CSI | NVME_CAP_CSS_NONE;
    assert_int_equal(start(), STATUS_OK);
    assert_int_equal(card.cc >> 4 & 7, 6);
    card.cap &= ~NVME_CAP_CSS_CSI;
    assert_int_equal(start(), STATUS_OK);
    assert_int_equal(card.cc >> 4 & 7, 7);
}

static void test_no_controller(void **state)
{
    card.gone = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_why("no NVMe controller answers");
    setup(state);
    card.regs.size = NVME_DOORBELLS - 4;
    assert_int_equal(start(), ERR_NOT_FOUND);
    setup(state);
    card.regs.size = NVME_DOORBELLS + 4; /* no room for the second doorbell */
    assert_int_equal(start(), ERR_UNSUPPORTED);
    setup(state);
    card.cap |= 1ull << 48;
    assert_int_equal(start(), ERR_UNSUPPORTED);
    assert_why("larger than 4 KiB");
    setup(state);
    card.no_memory = true;
    assert_int_equal(start(), ERR_NO_MEMORY);
    assert_why("no memory");
}

static void test_doorbell_stride(void **state)
{
    card.cap |= 11ull << 32; /* 8 KiB: the last that fits */
    assert_int_equal(start(), ERR_UNSUPPORTED);
    setup(state);
    card.cap |= 10ull << 32;
    card.regs.size = 0x1000 + 0x2000;
    assert_int_equal(start(), STATUS_OK);
}

static void test_never_ready(void **state)
{
    card.stuck_idle = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_why("did not become ready in 7500 ms");
    assert_in_range(card.now_us, 7500000, 7600000); /* CAP.TO = 15 */
    assert_int_equal(nvme_pf_vfs_enabled(&pf, 1, why, sizeof(why)), ERR_RANGE);

    setup(state);
    card.cap |= 0xffull << 24;
    card.stuck_idle = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_in_range(card.now_us, NVME_READY_MAX_US, NVME_READY_MAX_US + 100000);

    setup(state);
    card.cap &= ~(0xffull << 24);
    card.stuck_idle = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_in_range(card.now_us, 500000, 600000);
}

static void test_never_idle(void **state)
{
    card.cc = NVME_CC_EN;
    card.csts = NVME_CSTS_RDY;
    card.stuck_busy = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_why("did not become idle");
}

/* Firmware leaves it on, or dead: it is reset all the same. */
static void test_left_on(void **state)
{
    card.cc = NVME_CC_EN;
    card.csts = NVME_CSTS_RDY | NVME_CSTS_CFS;
    assert_int_equal(start(), STATUS_OK);
}

static void test_fatal(void **state)
{
    card.fatal = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_true(card.now_us < 100000); /* it does not wait for what cannot come */
}

static void leave(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status)
{
    card.gone = true;
}

static void test_leaves_the_bus(void **state)
{
    up(2);
    card.answer = leave;
    card.silent = true;
    uint64_t before = card.now_us;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_true(card.now_us - before < 1000);
    assert_why("did not answer command 0x6");
    card.gone = true;
    assert_int_equal(start(), ERR_NOT_FOUND);
}

/* The controller goes while it is reset. */
static uint32_t (*real_read32)(void *, uint64_t);
static uint32_t read_then_gone(void *ctx, uint64_t offset)
{
    return offset == NVME_REG_CSTS ? UINT32_MAX : real_read32(ctx, offset);
}

static void test_leaves_while_reset(void **state)
{
    real_read32 = card.regs.read32;
    card.regs.read32 = read_then_gone;
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_why("has left the bus");
}

static void test_cannot_do_it(void **state)
{
    card.oacs = 0;
    assert_int_equal(start(), ERR_UNSUPPORTED);
    assert_why("cannot attach namespaces");
    setup(state);
    card.secondary_count = 0;
    assert_int_equal(start(), ERR_UNSUPPORTED);
    assert_why("\"Fake card\" has no secondary controllers");
    struct nvme_info info;
    nvme_pf_info(&pf, &info);
    assert_false(info.alive);
}

/* Every command of start() refused, one after the other. */
static void test_start_refused(void **state)
{
    assert_int_equal(start(), STATUS_OK);
    uint32_t commands = card.command_count;
    assert_int_equal(commands, 5 + NAMESPACES - 1);
    for (uint32_t i = 0; i < commands; i++) {
        setup(state);
        card.fail_after = i;
        card.fail_status = NVME_STATUS_INVALID_FIELD;
        assert_int_equal(start(), i == 1 ? ERR_UNSUPPORTED : ERR_INVALID);
        if (i != 1)
            assert_why("refused command 0x6: status 0x2, invalid field");
    }
}

static void wrong_lists(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status)
{
    const struct fake_nvme_command *c = &card.log[card.command_count - 1];
    const uint32_t *what = ctx;
    if (opcode == NVME_CMD_IDENTIFY && (c->cdw10 & 0xff) == what[0])
        memcpy(data + what[1], &what[2], 4);
}

static void test_wrong_lists(void **state)
{
    static const struct {
        uint32_t at[3]; /* CNS, offset, value */
        enum status expected;
    } cases[] = {
        {{NVME_CNS_SECONDARIES, 0, 0}, ERR_INVALID},
        {{NVME_CNS_SECONDARIES, 0, 128}, ERR_INVALID},
        {{NVME_CNS_SECONDARIES, 0, 127}, STATUS_OK},
        {{NVME_CNS_ALLOCATED_LIST, 4, 1}, ERR_RANGE},
        {{NVME_CNS_ALLOCATED_LIST, 8, 0xfffffffe}, ERR_RANGE},
        {{NVME_CNS_ALLOCATED_LIST, 8, 0xfffffffd}, ERR_INVALID}, /* and then it does not know it */
        {{NVME_CNS_ALLOCATED_LIST, 0, 0}, STATUS_OK},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(state);
        uint32_t at[3];
        memcpy(at, cases[i].at, sizeof(at));
        card.answer = wrong_lists;
        card.answer_ctx = at;
        assert_int_equal(start(), cases[i].expected);
    }
    assert_null(nvme_pf_namespace(&pf, 0));
}

static void test_many_namespaces(void **state)
{
    fake_nvme_init(&card, SECONDARIES, NVME_NAMESPACES_MAX);
    up(2);
    assert_int_equal(prepare(1, NVME_NAMESPACES_MAX), STATUS_OK);
    setup(state);
    fake_nvme_init(&card, SECONDARIES, NVME_NAMESPACES_MAX + 1);
    assert_int_equal(start(), ERR_RANGE);
    assert_why("more than 128 namespaces");
}

static void test_block_size(void **state)
{
    card.namespaces[0].shift = 12;
    card.namespaces[0].shared = true;
    card.namespaces[1].shift = 32;
    card.namespaces[2].shift = 255;
    assert_int_equal(start(), STATUS_OK);
    assert_int_equal(nvme_pf_namespace(&pf, 0)->block_size, 4096);
    assert_true(nvme_pf_namespace(&pf, 0)->shared);
    assert_int_equal(nvme_pf_namespace(&pf, 1)->block_size, 0);
    assert_int_equal(nvme_pf_namespace(&pf, 2)->block_size, 0);
}

/* A primary that holds flexible resources gives them back at a function level reset. */
static void test_primary_holds(void **state)
{
    card.queues_primary = card.queues_next = 4;
    assert_int_equal(start(), STATUS_OK);
    assert_true(nvme_pf_reset_wanted(&pf));
    fake_nvme_flr(&card);
    up(2);
    assert_false(nvme_pf_reset_wanted(&pf));
    assert_int_equal(prepare(0, 1), STATUS_OK);
    setup(state);
    card.vectors_primary = card.vectors_next = 1;
    assert_int_equal(start(), STATUS_OK);
    assert_true(nvme_pf_reset_wanted(&pf));
    for (unsigned i = 0; i < 2; i++) {
        setup(state);
        card.vectors_primary = 1;
        card.fail_after = 7 + i; /* either of the two commands */
        card.fail_status = NVME_STATUS_INVALID_FIELD;
        assert_int_equal(start(), ERR_INVALID);
        assert_why("refused command 0x1c");
        assert_false(nvme_pf_reset_wanted(&pf));
    }
    setup(state);
    card.types = 0; /* then these fields say nothing */
    card.queues_primary = card.vectors_primary = 1;
    assert_int_equal(start(), STATUS_OK);
    assert_false(nvme_pf_reset_wanted(&pf));
}

/* ---- VFs ---- */

static void test_vfs_enabled(void **state)
{
    assert_int_equal(start(), STATUS_OK);
    card.vfs_on = SECONDARIES;
    assert_int_equal(nvme_pf_vfs_enabled(&pf, 0, why, sizeof(why)), ERR_RANGE);
    assert_int_equal(nvme_pf_vfs_enabled(&pf, SECONDARIES + 1, why, sizeof(why)), ERR_RANGE);
    assert_why("has controllers for 4");
    assert_int_equal(nvme_pf_vfs_enabled(&pf, UINT32_MAX, why, sizeof(why)), ERR_RANGE);
    assert_null(nvme_pf_vf(&pf, 0));
    enable(SECONDARIES);
    assert_int_equal(nvme_pf_vf(&pf, 3)->controller, 4);
    assert_int_equal(nvme_pf_vf(&pf, 3)->state, NVME_VF_FREE);
    assert_null(nvme_pf_vf(&pf, 4));
}

/* The list's order, and the identifiers, are the card's business. */
static void test_vf_numbers(void **state)
{
    card.id = 5;
    card.secondaries[0] = (struct fake_nvme_secondary){.id = 7, .primary = 5, .vf_number = 2};
    card.secondaries[1] = (struct fake_nvme_secondary){.id = 0, .primary = 5, .vf_number = 1};
    card.secondaries[2] =
        (struct fake_nvme_secondary){.id = 8, .primary = 6, .vf_number = 1}; /* another PF's */
    card.secondaries[3] = (struct fake_nvme_secondary){.id = 9, .primary = 5, .vf_number = 0}; /* no VF's */
    up(2);
    assert_int_equal(nvme_pf_vf(&pf, 0)->controller, 0);
    assert_int_equal(nvme_pf_vf(&pf, 1)->controller, 7);
    assert_int_equal(prepare(0, 2), STATUS_OK);
    assert_int_equal(card.namespaces[1].attached, 1u << 0);
}

static void test_vfs_mismatch(void **state)
{
    static const struct fake_nvme_secondary second[] = {
        {.id = 1, .vf_number = 2}, /* one controller for two VFs */
        {.id = 2, .vf_number = 1}, /* two controllers for one VF */
        {.id = 0, .vf_number = 2}, /* the primary controller itself */
        {.id = 2, .vf_number = 9},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(second); i++) {
        setup(state);
        card.secondary_count = 2;
        card.secondaries[1] = second[i];
        assert_int_equal(start(), STATUS_OK);
        card.vfs_on = 2;
        assert_int_equal(nvme_pf_vfs_enabled(&pf, 2, why, sizeof(why)), ERR_INVALID);
        assert_why("for 1 of its 2 VFs");
        assert_null(nvme_pf_vf(&pf, 0));
        assert_int_equal(prepare(0, 1), ERR_RANGE);
    }
    setup(state);
    assert_int_equal(start(), STATUS_OK);
    card.secondaries[0].id = 9; /* was not there at the start */
    assert_int_equal(nvme_pf_vfs_enabled(&pf, 2, why, sizeof(why)), ERR_INVALID);
}

static void test_vfs_go_offline(void **state)
{
    assert_int_equal(start(), STATUS_OK);
    card.secondaries[0].online = true;
    card.secondaries[1].queues = 2;
    card.secondaries[2].vectors = 1;
    card.secondaries[3].online = true; /* beyond what is enabled */
    enable(3);
    for (unsigned i = 0; i < 3; i++)
        assert_false(card.secondaries[i].online || card.secondaries[i].queues || card.secondaries[i].vectors);
    card.secondaries[1].online = true;
    card.deaf_offline = true;
    assert_int_equal(nvme_pf_vfs_enabled(&pf, 2, why, sizeof(why)), ERR_INVALID);
    assert_why("controller 2 did not go offline");
    card.fail_after = 0;
    card.fail_status = NVME_STATUS_INVALID_FIELD;
    assert_int_equal(nvme_pf_vfs_enabled(&pf, 2, why, sizeof(why)), ERR_INVALID);
}

/* ---- giving and taking ---- */

/* Not the identify commands: they change nothing. */
static void assert_changes(uint32_t from, const struct fake_nvme_command *expected, unsigned count)
{
    unsigned n = 0;
    for (uint32_t i = from; i < card.command_count; i++) {
        const struct fake_nvme_command *c = &card.log[i];
        if (c->opcode == NVME_CMD_IDENTIFY)
            continue;
        assert_true(n < count);
        assert_int_equal(c->opcode, expected[n].opcode);
        assert_int_equal(c->nsid, expected[n].nsid);
        assert_int_equal(c->cdw10, expected[n].cdw10);
        assert_int_equal(c->cdw11, expected[n].cdw11);
        n++;
    }
    assert_int_equal(n, count);
}

static void test_prepare(void **state)
{
    static const struct fake_nvme_command expected[] = {
        {NVME_CMD_VIRTUALIZATION, 0, 2 << 16 | 0x108, 2},
        {NVME_CMD_VIRTUALIZATION, 0, 2 << 16 | 0x008, 3},
        {NVME_CMD_VIRTUALIZATION, 0, 2 << 16 | 0x009, 0},
        {NVME_CMD_NS_ATTACHMENT, 3, NVME_NS_ATTACH, 0},
    };
    up(2);
    uint32_t from = card.command_count;
    assert_int_equal(prepare(1, 3), STATUS_OK);
    assert_changes(from, expected, ARRAY_SIZE(expected));
    assert_int_equal(card.namespaces[2].attached, 1u << 2);
    assert_true(card.secondaries[1].online);
    const struct nvme_vf *vf = nvme_pf_vf(&pf, 1);
    assert_int_equal(vf->state, NVME_VF_READY);
    assert_int_equal(vf->nsid, 3);
    assert_int_equal(vf->queues, 3);
    assert_int_equal(vf->vectors, 2);
    assert_int_equal(nvme_pf_vectors(&pf), 2);
    assert_int_equal(nvme_pf_namespace(&pf, 2)->vf, 1);
    assert_true(has_its_own(1));
    assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FREE);
}

static void test_release(void **state)
{
    static const struct fake_nvme_command expected[] = {
        {NVME_CMD_NS_ATTACHMENT, 1, NVME_NS_DETACH, 0},
        {NVME_CMD_VIRTUALIZATION, 0, 1 << 16 | 0x007, 0},
    };
    up(2);
    assert_int_equal(release(0), STATUS_OK); /* nothing to do */
    assert_int_equal(prepare(0, 1), STATUS_OK);
    uint32_t from = card.command_count;
    assert_int_equal(release(0), STATUS_OK);
    assert_changes(from, expected, ARRAY_SIZE(expected));
    assert_int_equal(card.namespaces[0].attached, 0);
    assert_false(card.secondaries[0].online || card.secondaries[0].queues || card.secondaries[0].vectors);
    assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FREE);
    assert_int_equal(nvme_pf_vf(&pf, 0)->nsid, 0);
    assert_int_equal(nvme_pf_vf(&pf, 0)->queues, 0);
    assert_int_equal(nvme_pf_namespace(&pf, 0)->vf, -1);
    assert_int_equal(prepare(1, 1), STATUS_OK); /* the next one's */
    assert_int_equal(release(2), ERR_RANGE);
    assert_why("none with index 2");
}

static void test_owners(void **state)
{
    up(2);
    assert_int_equal(prepare(2, 1), ERR_RANGE);
    assert_int_equal(prepare(0, 4), ERR_NOT_FOUND);
    assert_why("no namespace 4");
    assert_int_equal(prepare(0, 0), ERR_NOT_FOUND);
    assert_int_equal(prepare(0, UINT32_MAX), ERR_NOT_FOUND);
    assert_int_equal(prepare(0, 1), STATUS_OK);
    uint32_t from = card.command_count;
    assert_int_equal(prepare(1, 1), ERR_EXISTS);
    assert_why("namespace 1 belongs to VF 0");
    assert_int_equal(card.command_count, from);
    /* Again, as after an FLR: it starts from nothing. */
    assert_int_equal(prepare(0, 1), STATUS_OK);
    assert_int_equal(card.namespaces[0].attached, 1u << 1);
    /* Another one: the first is free. */
    assert_int_equal(prepare(0, 2), STATUS_OK);
    assert_int_equal(card.namespaces[0].attached, 0);
    assert_int_equal(prepare(1, 1), STATUS_OK);
    assert_true(has_its_own(0));
    assert_true(has_its_own(1));
}

/* Attachments from before: of the primary, which firmware booted from, of VFs, of VFs that are not enabled
 * now. */
static void test_stale_attachments(void **state)
{
    up(2);
    card.namespaces[0].attached = 1u << 0 | 1u << 2 | 1u << 4;
    card.namespaces[1].attached = 1u << 1;
    card.namespaces[2].attached = 1u << 1 | 1u << 3;
    assert_int_equal(prepare(0, 1), STATUS_OK);
    assert_int_equal(card.namespaces[0].attached, 1u << 1);
    assert_int_equal(card.namespaces[1].attached, 0);
    assert_int_equal(card.namespaces[2].attached, 1u << 3); /* nobody's business */
}

static void test_foreign_controller(void **state)
{
    up(2);
    card.namespaces[0].attached = 1u << 0 | 1u << 9;
    assert_int_equal(prepare(0, 1), ERR_EXISTS);
    assert_why("attached to controller 9, which is not one of this PF's");
    assert_int_equal(card.namespaces[0].attached, 1u << 0 | 1u << 9);
    assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FREE);
    assert_int_equal(nvme_pf_namespace(&pf, 0)->vf, -1);
}

static void too_long(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status)
{
    const uint16_t count = NVME_LIST_MAX + 1;
    if (opcode == NVME_CMD_IDENTIFY && (card.log[card.command_count - 1].cdw10 & 0xff) == 0x12)
        memcpy(data, &count, 2);
}

static void test_list_too_long(void **state)
{
    up(2);
    card.answer = too_long;
    assert_int_equal(prepare(0, 1), ERR_INVALID);
    assert_why("lists 2048 controllers");
}

static void test_shares(void **state)
{
    static const struct {
        uint32_t total, vfs;
        uint16_t max, granule, expected;
    } cases[] = {
        {6, 2, 3, 1, 3},
        {6, 2, 2, 1, 2},
        {7, 2, 8, 0, 3},
        {64, 4, 100, 5, 15},
        {64, 4, 12, 5, 10},
        {64, 4, 12, 50, 12},
        {UINT32_MAX, 1, 0xffff, 1, 0xffff},
        {3, 2, 8, 1, 0},
        {8, 2, 0, 1, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        setup(state);
        card.queues_total = cases[i].total;
        card.queues_max = cases[i].max;
        card.queues_granule = cases[i].granule;
        up(cases[i].vfs);
        if (cases[i].expected) {
            assert_int_equal(prepare(0, 1), STATUS_OK);
            assert_int_equal(card.secondaries[0].queues, cases[i].expected);
        } else {
            assert_int_equal(prepare(0, 1), ERR_NO_MEMORY);
            assert_why("enable fewer VFs");
            assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FREE);
        }
    }
    setup(state);
    up(4);
    card.vectors_total = 3;
    up(4);
    assert_int_equal(prepare(0, 1), ERR_NO_MEMORY);
}

/* Cards whose VFs have a fixed number of queues or vectors of their own. */
static void test_private_resources(void **state)
{
    card.types = 0;
    for (unsigned i = 0; i < SECONDARIES; i++) {
        card.secondaries[i].queues = 9;
        card.secondaries[i].vectors = 5;
    }
    assert_int_equal(start(), STATUS_OK);
    for (unsigned i = 0; i < SECONDARIES; i++) { /* a reset does not take them */
        card.secondaries[i].queues = 9;
        card.secondaries[i].vectors = 5;
    }
    enable(4);
    assert_int_equal(nvme_pf_vectors(&pf), 0);
    assert_int_equal(prepare(3, 1), STATUS_OK);
    assert_int_equal(nvme_pf_vf(&pf, 3)->queues, 9);
    assert_int_equal(nvme_pf_vf(&pf, 3)->vectors, 5);
    assert_int_equal(release(3), STATUS_OK);
    assert_int_equal(nvme_pf_vf(&pf, 3)->state, NVME_VF_FREE);
}

/* ---- a card that fails ---- */

/* What must hold whatever the card did, seen from the card's side, when a VM was given VF 0 and namespace 1,
 * which failed, while VF 1 runs with namespace 2. */
static void assert_contained(void)
{
    const struct nvme_vf *vf = nvme_pf_vf(&pf, 0);
    assert_int_equal(nvme_pf_vf(&pf, 1)->state, NVME_VF_READY);
    assert_int_equal(card.namespaces[1].attached, 1u << 2);
    assert_true(vf->state != NVME_VF_READY);
    if (vf->state == NVME_VF_FREE) {
        assert_false(card.secondaries[0].online);
        for (unsigned i = 0; i < NAMESPACES; i++)
            assert_false(card.namespaces[i].attached & 1u << 1);
        assert_int_equal(vf->nsid, 0);
    } else if (vf->nsid != 0) { /* it was given to it already */
        assert_int_equal(vf->nsid, 1);
        card.fail_after = UINT32_MAX;
        assert_int_equal(nvme_pf_prepare_vf(&pf, 1, 1, NULL, 0), ERR_EXISTS); /* nobody else gets it */
    }
}

static uint32_t one_running(void **state)
{
    setup(state);
    up(2);
    assert_int_equal(prepare(1, 2), STATUS_OK);
    card.namespaces[0].attached = 1; /* the primary's, to begin with */
    card.namespaces[2].attached = 1u << 1;
    return card.command_count;
}

static void test_each_command_refused(void **state)
{
    uint32_t from = one_running(state), failed = 0, free_again = 0;
    assert_int_equal(prepare(0, 1), STATUS_OK);
    uint32_t commands = card.command_count - from;
    assert_in_range(commands, 12, 60);
    for (unsigned for_ever = 0; for_ever < 2; for_ever++)
        for (uint32_t i = 0; i < commands; i++) {
            one_running(state);
            card.fail_after = i;
            card.fail_for_ever = for_ever;
            card.fail_status = NVME_STATUS_SECONDARY_STATE;
            assert_int_equal(prepare(0, 1), ERR_INVALID);
            assert_why("status 0x120, invalid secondary controller state");
            failed += nvme_pf_vf(&pf, 0)->state == NVME_VF_FAILED;
            free_again += nvme_pf_vf(&pf, 0)->state == NVME_VF_FREE;
            assert_contained();
            /* And when the card has come to itself: */
            card.fail_after = UINT32_MAX;
            assert_int_equal(prepare(0, 1), STATUS_OK);
            assert_true(has_its_own(0));
        }
    assert_true(failed >= commands && free_again > 0);
}

static void test_release_refused(void **state)
{
    for (unsigned i = 0; i < 6; i++) {
        one_running(state);
        assert_int_equal(prepare(0, 1), STATUS_OK);
        card.fail_after = i;
        card.fail_for_ever = true;
        card.fail_status = NVME_STATUS_SECONDARY_STATE;
        assert_int_equal(release(0), ERR_INVALID);
        assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FAILED);
        assert_contained();
        card.fail_after = UINT32_MAX;
        assert_int_equal(release(0), STATUS_OK);
        assert_contained();
    }
}

static void test_says_yes_does_nothing(void **state)
{
    static const struct {
        size_t flag;
        const char *text;
        enum nvme_vf_state after;
    } cases[] = {
        {offsetof(struct fake_nvme, deaf_attach), "attached to controller 1 alone", NVME_VF_FREE},
        {offsetof(struct fake_nvme, deaf_detach), "namespace 3 stays attached", NVME_VF_FAILED},
        {offsetof(struct fake_nvme, deaf_online), "is offline with 3 queues", NVME_VF_FREE},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        one_running(state);
        *((bool *)((uint8_t *)&card + cases[i].flag)) = true;
        assert_int_equal(prepare(0, 1), ERR_INVALID);
        assert_why(cases[i].text);
        if (cases[i].after == NVME_VF_FAILED) {
            assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FAILED);
        } else {
            assert_int_equal(nvme_pf_vf(&pf, 0)->state, cases[i].after);
            assert_contained();
        }
    }
    one_running(state);
    card.deaf_assign = true; /* then the next command is refused */
    assert_int_equal(prepare(0, 1), ERR_INVALID);
    assert_contained();
    one_running(state);
    assert_int_equal(prepare(0, 1), STATUS_OK);
    card.deaf_offline = true;
    assert_int_equal(release(0), ERR_INVALID);
    assert_why("did not go offline");
    assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FAILED);
    assert_int_equal(nvme_pf_namespace(&pf, 0)->vf, 0);
}

/* Online, with other resources than it was given. */
static void fewer_queues(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status)
{
    if (opcode == NVME_CMD_VIRTUALIZATION && card.secondaries[0].online)
        card.secondaries[0].queues = 2;
}

static void test_wrong_resources(void **state)
{
    one_running(state);
    card.answer = fewer_queues;
    assert_int_equal(prepare(0, 1), ERR_INVALID);
    assert_why("online with 2 queues and 2 vectors, should be online with 3 and 2");
    assert_contained();
}

static void forget(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status)
{
    card.secondaries[0].id = 15;
}

static void test_controller_vanishes(void **state)
{
    one_running(state);
    card.namespaces[2].attached = 0;
    card.answer = forget;
    assert_int_equal(prepare(0, 1), ERR_INVALID);
    assert_why("no longer lists secondary controller 1");
}

static void test_no_answer(void **state)
{
    one_running(state);
    uint64_t before = card.now_us;
    card.silent = true;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_why("did not answer command 0x6 in 5000 ms");
    assert_in_range(card.now_us - before, NVME_COMMAND_US, NVME_COMMAND_US + 10000); /* once, not for each */
    assert_int_equal(nvme_pf_vf(&pf, 0)->state, NVME_VF_FAILED);
    uint32_t commands = card.command_count;
    card.silent = false;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_why("no longer asked");
    assert_int_equal(release(1), ERR_NOT_FOUND);
    assert_int_equal(nvme_pf_vf(&pf, 1)->state, NVME_VF_FAILED);
    assert_int_equal(card.command_count, commands);
    up(2);
    assert_int_equal(prepare(0, 1), STATUS_OK);
}

static void test_fatal_while_asked(void **state)
{
    one_running(state);
    card.silent = card.fatal = true;
    uint64_t before = card.now_us;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_true(card.now_us - before < 1000);
    assert_why("CSTS 0x3");
}

static void test_wrong_completion(void **state)
{
    one_running(state);
    card.wrong_id = true;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_why("with a completion of another");
    one_running(state);
    card.wrong_queue = true;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_why("with a completion of another");
    card.wrong_queue = false;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND); /* whatever it says now */
}

/* Queues and phases wrap many times, with and without waiting. */
static void test_queue_wraps(void **state)
{
    up(2);
    for (unsigned i = 0; i < 60; i++) {
        card.latency_us = i & 1 ? 0 : 100;
        assert_int_equal(prepare(i & 1, 1 + i % NAMESPACES), STATUS_OK);
        assert_true(has_its_own(i & 1));
        assert_int_equal(release(i & 1), STATUS_OK);
    }
    assert_true(card.command_count > 16 * 32);
}

/* ---- VFs that manage namespaces ---- */

static unsigned warnings;
static void count_warnings(void *ctx, enum log_level level, const char *line)
{
    warnings += level == LOG_WARN && strstr(line, "card \"Fake card\" S/N 1?[2J serves several VMs") != NULL;
}

static void test_shared_card(void **state)
{
    warnings = 0;
    log_set_sink(count_warnings, NULL);
    up(2);
    assert_int_equal(prepare(0, 1), STATUS_OK);
    assert_int_equal(prepare(0, 1), STATUS_OK);
    assert_int_equal(warnings, 0);
    assert_int_equal(prepare(1, 2), STATUS_OK);
    assert_int_equal(prepare(0, 1), STATUS_OK);
    assert_int_equal(warnings, 1);
    log_set_sink(NULL, NULL);
}

/* ---- one user at a time ---- */

static void test_lock(void **state)
{
    up(2);
    spin_lock(&pf.lock);
    uint64_t before = card.now_us;
    assert_int_equal(prepare(0, 1), ERR_NOT_FOUND);
    assert_why("busy with another VM's VF");
    assert_in_range(card.now_us - before, NVME_LOCK_US, NVME_LOCK_US + 1000);
    assert_int_equal(release(0), ERR_NOT_FOUND);
    assert_int_equal(start(), ERR_NOT_FOUND);
    assert_int_equal(nvme_pf_vfs_enabled(&pf, 1, why, sizeof(why)), ERR_NOT_FOUND);
    spin_unlock(&pf.lock);
    assert_int_equal(prepare(0, 1), STATUS_OK);
}

static void test_status_text(void **state)
{
    assert_string_equal(nvme_status_text(0x11a), "namespace is not attached");
    assert_string_equal(nvme_status_text(0x7ff), "see the NVMe specification, status codes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_start, setup),
        cmocka_unit_test_setup(test_start_again, setup),
        cmocka_unit_test_setup(test_command_sets, setup),
        cmocka_unit_test_setup(test_no_controller, setup),
        cmocka_unit_test_setup(test_doorbell_stride, setup),
        cmocka_unit_test_setup(test_never_ready, setup),
        cmocka_unit_test_setup(test_never_idle, setup),
        cmocka_unit_test_setup(test_left_on, setup),
        cmocka_unit_test_setup(test_fatal, setup),
        cmocka_unit_test_setup(test_leaves_the_bus, setup),
        cmocka_unit_test_setup(test_leaves_while_reset, setup),
        cmocka_unit_test_setup(test_cannot_do_it, setup),
        cmocka_unit_test_setup(test_start_refused, setup),
        cmocka_unit_test_setup(test_wrong_lists, setup),
        cmocka_unit_test_setup(test_many_namespaces, setup),
        cmocka_unit_test_setup(test_block_size, setup),
        cmocka_unit_test_setup(test_primary_holds, setup),
        cmocka_unit_test_setup(test_vfs_enabled, setup),
        cmocka_unit_test_setup(test_vf_numbers, setup),
        cmocka_unit_test_setup(test_vfs_mismatch, setup),
        cmocka_unit_test_setup(test_vfs_go_offline, setup),
        cmocka_unit_test_setup(test_prepare, setup),
        cmocka_unit_test_setup(test_release, setup),
        cmocka_unit_test_setup(test_owners, setup),
        cmocka_unit_test_setup(test_stale_attachments, setup),
        cmocka_unit_test_setup(test_foreign_controller, setup),
        cmocka_unit_test_setup(test_list_too_long, setup),
        cmocka_unit_test_setup(test_shares, setup),
        cmocka_unit_test_setup(test_private_resources, setup),
        cmocka_unit_test_setup(test_each_command_refused, setup),
        cmocka_unit_test_setup(test_release_refused, setup),
        cmocka_unit_test_setup(test_says_yes_does_nothing, setup),
        cmocka_unit_test_setup(test_wrong_resources, setup),
        cmocka_unit_test_setup(test_controller_vanishes, setup),
        cmocka_unit_test_setup(test_no_answer, setup),
        cmocka_unit_test_setup(test_fatal_while_asked, setup),
        cmocka_unit_test_setup(test_wrong_completion, setup),
        cmocka_unit_test_setup(test_queue_wraps, setup),
        cmocka_unit_test_setup(test_shared_card, setup),
        cmocka_unit_test_setup(test_lock, setup),
        cmocka_unit_test_setup(test_status_text, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
