/* The NVMe PF driver with a card that answers garbage, refuses, pretends and falls silent, in any order of
 * calls. The fake aborts on an access or DMA where there is none. Besides: all work and all waits are
 * bounded; no namespace has two owners; a card that is only unwilling, but tells no lies, has what the driver
 * believes it has. */
#include <string.h>
#include "drivers/nvme/nvme_pf.h"
#include "drivers/nvme/nvme_regs.h"
#include "tests/host/fake_nvme.h"

#define NAMESPACES   6u
#define COMMANDS_MAX 2000u /* of a call: 128 namespaces, asked three times each, twice, and some */
#define WAIT_MAX_US  (2 * NVME_READY_MAX_US + NVME_COMMAND_US + 10000000u)

static struct fake_nvme card;
static struct nvme_pf pf;
static struct fake_input in;
static bool tame; /* the card does all that it should */
static bool lies; /* the answers were tampered with: what the card says is not what it has */

/* The card's words, changed by the input. */
static void tamper(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status)
{
    uint8_t how = lies ? fake_input_u8(&in) : 0;
    if (how < 160)
        return;
    if (how >= 250)
        *status = fake_input_u8(&in) | 0x100;
    for (unsigned n = how & 7; n && data; n--) {
        /* The first bytes are counts and lists, everything else seldom matters. */
        uint16_t offset = fake_input_u8(&in);
        if (how & 8)
            offset = (uint16_t)(offset << 4 | (how >> 4));
        data[offset] = fake_input_u8(&in);
    }
}

static void set_card(uint8_t what)
{
    tame = false;
    card.deaf_attach = lies && what & 1;
    card.deaf_detach = lies && what & 2;
    card.deaf_online = what & 4;
    card.deaf_offline = what & 8;
    card.deaf_assign = what & 16;
    card.fail_after = what & 32 ? fake_input_u8(&in) : UINT32_MAX;
    card.fail_for_ever = what & 64;
    card.fail_status = 0x100 | (what & 0x1f);
    if (what & 128) {
        uint8_t worse = fake_input_u8(&in);
        card.silent = (worse & 7) == 7;
        card.wrong_id = (worse & 0x38) == 0x38;
        card.fatal = worse == 0xff;
        card.gone = worse == 0x7f;
        card.latency_us = worse & 0x40 ? 0 : worse;
    }
}

static void check_owners(void)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < pf.vf_count; i++) {
        const struct nvme_vf *vf = nvme_pf_vf(&pf, i);
        FAKE_REQUIRE(vf->state != NVME_VF_READY || vf->nsid != 0);
        FAKE_REQUIRE(vf->state != NVME_VF_FREE || (vf->nsid == 0 && vf->queues == 0));
        for (uint32_t n = 0; vf->nsid && n < pf.namespace_count; n++)
            if (nvme_pf_namespace(&pf, n)->nsid == vf->nsid) {
                FAKE_REQUIRE(nvme_pf_namespace(&pf, n)->vf == (int)i);
                FAKE_REQUIRE(n >= 32 || !(seen & 1u << n));
                seen |= n < 32 ? 1u << n : 0;
            }
    }
}

/* What a VF has at a card that told no lies, when it was just given or taken something. */
static void check_card(uint32_t index)
{
    const struct nvme_vf *vf = nvme_pf_vf(&pf, index);
    if (lies || !vf || vf->state == NVME_VF_FAILED)
        return;
    uint32_t bit = 1u << vf->controller;
    FAKE_REQUIRE(card.secondaries[vf->controller - 1].online == (vf->state == NVME_VF_READY));
    for (uint32_t n = 0; n < card.namespace_count; n++)
        FAKE_REQUIRE(vf->nsid == card.namespaces[n].nsid ? card.namespaces[n].attached == bit
                                                         : !(card.namespaces[n].attached & bit));
}

static void call(uint8_t op)
{
    char why[200];
    uint64_t before = card.now_us;
    enum status s = STATUS_OK;
    uint32_t vf = op >> 3, nsid = (op >> 3) % (NAMESPACES + 2);
    bool was_free = vf >= pf.vf_count || nvme_pf_vf(&pf, vf)->state == NVME_VF_FREE;
    card.command_count = 0;
    switch (op & 7) {
    case 0:
        s = nvme_pf_start(&pf, &card.regs, &card.env, why, sizeof(why));
        break;
    case 1:
        fake_nvme_set_vfs(&card, vf);
        s = nvme_pf_vfs_enabled(&pf, vf, why, sizeof(why));
        break;
    case 2:
        s = nvme_pf_release_vf(&pf, vf, why, sizeof(why));
        if (!was_free)
            check_card(vf);
        break;
    default:
        vf = op & 3;
        s = nvme_pf_prepare_vf(&pf, vf, nsid, why, sizeof(why));
        FAKE_REQUIRE(s != STATUS_OK || nvme_pf_vf(&pf, vf)->state == NVME_VF_READY);
        FAKE_REQUIRE(s != ERR_NOT_FOUND || !tame || nsid == 0 || nsid > NAMESPACES);
        if (s == STATUS_OK || s == ERR_INVALID)
            check_card(vf);
        break;
    }
    FAKE_REQUIRE(s == STATUS_OK || (strlen(why) > 10 && strlen(why) < sizeof(why) - 1));
    FAKE_REQUIRE(card.command_count <= COMMANDS_MAX && card.now_us - before <= WAIT_MAX_US);
    if (s == ERR_INVALID && tame)
        fprintf(stderr, "%s\n", why);
    FAKE_REQUIRE(s != ERR_INVALID || !tame);
    check_owners();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    in = (struct fake_input){.data = data, .size = size};
    uint8_t first = fake_input_u8(&in);
    lies = first & 1;
    tame = !lies;
    fake_nvme_init(&card, 4, NAMESPACES);
    memset(&pf, 0, sizeof(pf));
    card.types = first >> 1 & 3;
    card.vfs_on = 4;
    card.hurry = true;
    card.queues_total = 12;
    card.answer = tamper;
    for (unsigned i = 0; i < NAMESPACES; i++) {
        card.namespaces[i].shared = first >> 3 & 1;
        card.namespaces[i].attached = fake_input_u8(&in) & 0x1f; /* the primary's, and VFs' from before */
    }
    nvme_pf_start(&pf, &card.regs, &card.env, NULL, 0);
    nvme_pf_vfs_enabled(&pf, 1 + (first >> 6), NULL, 0);
    for (unsigned calls = 0; fake_input_left(&in) && calls < 40; calls++) {
        uint8_t op = fake_input_u8(&in);
        if (op >= 0xc0)
            set_card(fake_input_u8(&in));
        else if (op >= 0xb0) /* somebody else's doing */
            card.namespaces[op & 3].attached ^= lies ? fake_input_u8(&in) : 0;
        else
            call(op);
    }
    return 0;
}
