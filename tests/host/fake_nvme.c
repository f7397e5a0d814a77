#include "tests/host/fake_nvme.h"
#include <string.h>
#include "drivers/nvme/nvme_regs.h"

#define BAR_SIZE     0x4000u
#define NEVER        UINT64_MAX
#define IDLE_STEP_US 100000u

/* ---- memory ---- */

static uint8_t *dma(struct fake_nvme *card, uint64_t at, size_t size)
{
    if (card->dma)
        return card->dma(at, size);
    FAKE_REQUIRE(at >= FAKE_NVME_AT && at - FAKE_NVME_AT + size <= sizeof(card->memory));
    return card->memory + (at - FAKE_NVME_AT);
}

static uint32_t get(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}
static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}
static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

/* ---- admin commands ---- */

static struct fake_nvme_namespace *find_namespace(struct fake_nvme *card, uint32_t nsid)
{
    for (uint32_t i = 0; i < card->namespace_count; i++)
        if (card->namespaces[i].nsid == nsid)
            return &card->namespaces[i];
    return NULL;
}

static struct fake_nvme_secondary *find_secondary(struct fake_nvme *card, uint16_t id)
{
    for (uint32_t i = 0; i < card->secondary_count; i++)
        if (card->secondaries[i].id == id)
            return &card->secondaries[i];
    return NULL;
}

static void identify_controller(struct fake_nvme *card, uint8_t *data)
{
    memset(data + NVME_ID_SERIAL, ' ', 20 + 40 + 8);
    memcpy(data + NVME_ID_SERIAL, "S/N 1\x1b[2J", 9);
    memcpy(data + NVME_ID_MODEL, "Fake card", 9);
    memcpy(data + NVME_ID_FIRMWARE, "1.0", 3);
    put16(data + NVME_ID_CNTLID, card->id);
    put16(data + NVME_ID_OACS, card->oacs);
}

static void identify_primary(struct fake_nvme *card, uint8_t *data)
{
    uint32_t queues = 0, vectors = 0;
    for (uint32_t i = 0; i < card->secondary_count; i++) {
        queues += card->secondaries[i].queues;
        vectors += card->secondaries[i].vectors;
    }
    put16(data + NVME_PC_CNTLID, card->id);
    data[NVME_PC_CRT] = card->types;
    uint8_t *q = data + NVME_PC_QUEUES, *v = data + NVME_PC_VECTORS;
    put32(q + NVME_PC_FRT, card->queues_total);
    put32(q + 4, queues);
    put16(q + NVME_PC_RFAP, card->queues_primary);
    put16(q + NVME_PC_FRSM, card->queues_max);
    put16(q + NVME_PC_GRAN, card->queues_granule);
    put32(v + NVME_PC_FRT, card->vectors_total);
    put32(v + 4, vectors);
    put16(v + NVME_PC_RFAP, card->vectors_primary);
    put16(v + NVME_PC_FRSM, card->vectors_max);
    put16(v + NVME_PC_GRAN, card->vectors_granule);
}

static void identify_secondaries(struct fake_nvme *card, uint8_t *data)
{
    data[NVME_SC_COUNT] = (uint8_t)card->secondary_count;
    for (uint32_t i = 0; i < card->secondary_count; i++) {
        const struct fake_nvme_secondary *sc = &card->secondaries[i];
        uint8_t *entry = data + NVME_SC_ENTRIES + i * NVME_SC_BYTES;
        put16(entry + NVME_SC_SCID, sc->id);
        put16(entry + NVME_SC_PCID, sc->primary);
        entry[NVME_SC_STATE] = sc->online;
        put16(entry + NVME_SC_VFN, sc->vf_number);
        put16(entry + NVME_SC_NVQ, sc->queues);
        put16(entry + NVME_SC_NVI, sc->vectors);
    }
}

static void identify_namespace(const struct fake_nvme_namespace *ns, uint8_t *data)
{
    put64(data + NVME_NS_NSZE, ns->blocks);
    data[NVME_NS_FLBAS] = 0x21; /* format 17: the high bits count too */
    data[NVME_NS_NMIC] = ns->shared;
    put32(data + NVME_NS_LBAF + 4 * 17, (uint32_t)ns->shift << 16);
}

static void attached_list(const struct fake_nvme_namespace *ns, uint16_t from, uint8_t *data)
{
    uint16_t count = 0;
    for (uint16_t id = from; id < FAKE_NVME_CONTROLLERS; id++)
        if (ns->attached & 1u << id)
            put16(data + 2 * ++count, id);
    put16(data, count);
}

static uint16_t identify(struct fake_nvme *card, const struct fake_nvme_command *c, uint8_t *data)
{
    struct fake_nvme_namespace *ns = find_namespace(card, c->nsid);
    unsigned cns = c->cdw10 & 0xff;
    memset(data, 0, NVME_IDENTIFY_BYTES);
    if ((cns == NVME_CNS_ALLOCATED || cns == NVME_CNS_ATTACHED_CONTROLLERS) && !ns)
        return NVME_STATUS_INVALID_NAMESPACE;
    switch (cns) {
    case NVME_CNS_CONTROLLER:
        identify_controller(card, data);
        return 0;
    case NVME_CNS_ALLOCATED_LIST:
        for (uint32_t i = 0; i < card->namespace_count; i++)
            put32(data + 4 * i, card->namespaces[i].nsid);
        return 0;
    case NVME_CNS_ALLOCATED:
        identify_namespace(ns, data);
        return 0;
    case NVME_CNS_ATTACHED_CONTROLLERS:
        attached_list(ns, (uint16_t)(c->cdw10 >> 16), data);
        return 0;
    case NVME_CNS_PRIMARY:
        if (card->secondary_count == 0)
            return NVME_STATUS_INVALID_FIELD;
        identify_primary(card, data);
        return 0;
    case NVME_CNS_SECONDARIES:
        identify_secondaries(card, data);
        return 0;
    default:
        return NVME_STATUS_INVALID_FIELD;
    }
}

static uint16_t assign(struct fake_nvme *card, struct fake_nvme_secondary *sc, bool vectors, uint32_t count)
{
    uint32_t used = vectors ? card->vectors_primary : card->queues_primary;
    if (sc->online)
        return NVME_STATUS_SECONDARY_STATE;
    if (count > (vectors ? card->vectors_max : card->queues_max))
        return NVME_STATUS_RESOURCE_COUNT;
    for (uint32_t i = 0; i < card->secondary_count; i++)
        if (&card->secondaries[i] != sc)
            used += vectors ? card->secondaries[i].vectors : card->secondaries[i].queues;
    if (used + count > (vectors ? card->vectors_total : card->queues_total))
        return NVME_STATUS_RESOURCE_ID;
    if (!card->deaf_assign)
        *(vectors ? &sc->vectors : &sc->queues) = (uint16_t)count;
    return 0;
}

static uint16_t set_state(struct fake_nvme *card, struct fake_nvme_secondary *sc, bool online)
{
    if (online) {
        bool queues = !(card->types & NVME_CRT_VQ) || sc->queues >= 2;
        bool vectors = !(card->types & NVME_CRT_VI) || sc->vectors >= 1;
        if (!queues || !vectors || sc->vf_number > card->vfs_on)
            return NVME_STATUS_SECONDARY_STATE;
        sc->online |= !card->deaf_online;
        return 0;
    }
    /* As strict as the specification lets a card be. */
    if (!sc->online && !sc->queues && !sc->vectors)
        return NVME_STATUS_SECONDARY_STATE;
    if (!card->deaf_offline) {
        sc->online = false;
        if (card->types & NVME_CRT_VQ)
            sc->queues = 0;
        if (card->types & NVME_CRT_VI)
            sc->vectors = 0;
    }
    return 0;
}

static uint16_t virtualize(struct fake_nvme *card, const struct fake_nvme_command *c)
{
    uint16_t id = (uint16_t)(c->cdw10 >> 16);
    bool vectors = c->cdw10 & NVME_VM_VI;
    struct fake_nvme_secondary *sc = find_secondary(card, id);
    if ((c->cdw10 & 0xf) == NVME_VM_PRIMARY) {
        if (id != card->id)
            return NVME_STATUS_CONTROLLER_ID;
        *(vectors ? &card->vectors_next : &card->queues_next) = (uint16_t)c->cdw11;
        return 0;
    }
    if (!sc)
        return NVME_STATUS_CONTROLLER_ID;
    switch (c->cdw10 & 0xf) {
    case NVME_VM_ASSIGN:
        if (!(card->types & (vectors ? NVME_CRT_VI : NVME_CRT_VQ)))
            return NVME_STATUS_RESOURCE_ID;
        return assign(card, sc, vectors, c->cdw11);
    case NVME_VM_ONLINE:
        return set_state(card, sc, true);
    case NVME_VM_OFFLINE:
        return set_state(card, sc, false);
    default:
        return NVME_STATUS_INVALID_FIELD;
    }
}

static uint16_t attachment(struct fake_nvme *card, const struct fake_nvme_command *c, const uint8_t *data)
{
    struct fake_nvme_namespace *ns = find_namespace(card, c->nsid);
    uint16_t count, id;
    memcpy(&count, data, sizeof(count));
    if (!ns)
        return NVME_STATUS_INVALID_NAMESPACE;
    if (count == 0 || count > NVME_LIST_MAX)
        return NVME_STATUS_CONTROLLER_LIST;
    for (unsigned i = 1; i <= count; i++) {
        memcpy(&id, data + 2 * i, sizeof(id));
        struct fake_nvme_secondary *sc = find_secondary(card, id);
        if (id >= FAKE_NVME_CONTROLLERS ||
            (id != card->id && (!sc || (c->cdw10 == NVME_NS_ATTACH && sc->vf_number > card->vfs_on))))
            return NVME_STATUS_CONTROLLER_LIST;
        uint32_t bit = 1u << id;
        if (c->cdw10 == NVME_NS_DETACH) {
            if (!(ns->attached & bit))
                return NVME_STATUS_NS_NOT_ATTACHED;
            ns->attached &= card->deaf_detach ? UINT32_MAX : ~bit;
        } else {
            if (ns->attached & bit)
                return NVME_STATUS_NS_ATTACHED;
            if (ns->attached && !ns->shared)
                return NVME_STATUS_NS_PRIVATE;
            ns->attached |= card->deaf_attach ? 0 : bit;
        }
    }
    return 0;
}

static uint16_t execute(struct fake_nvme *card, const uint8_t *entry)
{
    struct fake_nvme_command c = {.opcode = entry[0],
                                  .nsid = get(entry + NVME_SQE_NSID),
                                  .cdw10 = get(entry + NVME_SQE_CDW10),
                                  .cdw11 = get(entry + NVME_SQE_CDW11)};
    uint64_t prp1 = get(entry + NVME_SQE_PRP1) | (uint64_t)get(entry + NVME_SQE_PRP1 + 4) << 32;
    uint8_t *data = prp1 ? dma(card, prp1, NVME_IDENTIFY_BYTES) : NULL;
    uint16_t status;
    FAKE_REQUIRE(card->command_count < FAKE_NVME_LOG);
    card->log[card->command_count++] = c;
    if (card->fail_after == 0) {
        if (!card->fail_for_ever)
            card->fail_after = UINT32_MAX;
        return card->fail_status;
    }
    if (card->fail_after != UINT32_MAX)
        card->fail_after--;
    switch (c.opcode) {
    case NVME_CMD_IDENTIFY:
        FAKE_REQUIRE(data);
        status = identify(card, &c, data);
        break;
    case NVME_CMD_NS_ATTACHMENT:
        FAKE_REQUIRE(data);
        status = attachment(card, &c, data);
        break;
    case NVME_CMD_VIRTUALIZATION:
        status = virtualize(card, &c);
        break;
    default:
        status = NVME_STATUS_INVALID_OPCODE;
        break;
    }
    if (card->answer)
        card->answer(card->answer_ctx, c.opcode, data, &status);
    return status;
}

/* ---- the queues ---- */

static void complete(struct fake_nvme *card, uint16_t id, uint16_t status)
{
    uint32_t entries = (card->aqa >> 16) + 1;
    uint8_t *entry = dma(card, card->acq + card->cq_tail * NVME_CQE_BYTES, NVME_CQE_BYTES);
    put32(entry + NVME_CQE_QUEUE, card->sq_head | (card->wrong_queue ? 0x10000u : 0));
    /* Bit 31, do not retry, is no part of the status code. */
    put32(entry + NVME_CQE_STATUS, (uint16_t)(id + card->wrong_id) | (card->phase ? NVME_CQE_PHASE : 0) |
                                       (uint32_t)status << 17 | (status ? 0x80000000u : 0));
    if (++card->cq_tail == entries) {
        card->cq_tail = 0;
        card->phase = !card->phase;
    }
    FAKE_REQUIRE(card->cq_tail != card->cq_head); /* one is always free */
}

static void work(struct fake_nvme *card)
{
    while (card->sq_head != card->sq_tail) {
        uint32_t entries = (card->aqa & 0xfff) + 1;
        const uint8_t *entry = dma(card, card->asq + card->sq_head * NVME_SQE_BYTES, NVME_SQE_BYTES);
        uint16_t id = (uint16_t)(get(entry) >> 16);
        card->sq_head = (uint16_t)((card->sq_head + 1) % entries);
        uint16_t status = execute(card, entry);
        if (!card->silent)
            complete(card, id, status);
    }
    card->complete_at = NEVER;
}

/* ---- registers ---- */

static uint32_t read32(void *ctx, uint64_t offset)
{
    struct fake_nvme *card = ctx;
    FAKE_REQUIRE(offset % 4 == 0 && offset < card->regs.size);
    if (card->gone)
        return UINT32_MAX;
    switch (offset) {
    case NVME_REG_CAP:
        return (uint32_t)card->cap;
    case NVME_REG_CAP + 4:
        return (uint32_t)(card->cap >> 32);
    case NVME_REG_VS:
        return card->vs;
    case NVME_REG_CC:
        return card->cc;
    case NVME_REG_CSTS:
        return card->csts | (card->fatal ? NVME_CSTS_CFS : 0);
    default:
        return 0;
    }
}

/* What a reset of the primary controller does to the others. */
static void all_offline(struct fake_nvme *card)
{
    for (uint32_t i = 0; i < card->secondary_count; i++) {
        card->secondaries[i].online = false;
        card->secondaries[i].queues = card->secondaries[i].vectors = 0;
    }
}

static void write_cc(struct fake_nvme *card, uint32_t value)
{
    bool was = card->cc & NVME_CC_EN, is = value & NVME_CC_EN;
    card->cc = value;
    if (was == is)
        return;
    if (is) {
        FAKE_REQUIRE(!(card->csts & NVME_CSTS_RDY)); /* 3.1.5: only when it is 0 */
        FAKE_REQUIRE((value >> 7 & 0xf) == 0 && (value >> 16 & 0xff) == 0x46);
        FAKE_REQUIRE(card->interrupt_mask == UINT32_MAX);
        FAKE_REQUIRE((card->asq & 4095) == 0 && (card->acq & 4095) == 0);
        dma(card, card->asq, ((card->aqa & 0xfff) + 1) * NVME_SQE_BYTES);
        dma(card, card->acq, ((card->aqa >> 16) + 1) * NVME_CQE_BYTES);
        card->sq_head = card->sq_tail = card->cq_tail = card->cq_head = 0;
        card->phase = true;
    } else {
        all_offline(card);
    }
    card->complete_at = NEVER;
    if (!(is ? card->stuck_idle : card->stuck_busy))
        card->ready_at = card->now_us + card->ready_us;
}

static void write_doorbell(struct fake_nvme *card, uint64_t offset, uint32_t value)
{
    uint32_t stride = 4u << NVME_CAP_DSTRD(card->cap);
    FAKE_REQUIRE(card->csts & NVME_CSTS_RDY);
    if (offset == NVME_DOORBELLS) {
        FAKE_REQUIRE(value <= (card->aqa & 0xfff));
        card->sq_tail = (uint16_t)value;
        card->complete_at = card->now_us + card->latency_us;
        if (card->latency_us == 0)
            work(card);
    } else {
        FAKE_REQUIRE(offset == NVME_DOORBELLS + stride && value <= card->aqa >> 16);
        card->cq_head = (uint16_t)value;
    }
}

static void write32(void *ctx, uint64_t offset, uint32_t value)
{
    struct fake_nvme *card = ctx;
    FAKE_REQUIRE(offset % 4 == 0 && offset < card->regs.size);
    if (card->gone)
        return;
    if (offset == NVME_REG_CC) {
        write_cc(card, value);
        return;
    }
    if (offset >= NVME_DOORBELLS) {
        write_doorbell(card, offset, value);
        return;
    }
    if (offset == NVME_REG_INTMS) {
        card->interrupt_mask |= value;
        return;
    }
    FAKE_REQUIRE(!(card->cc & NVME_CC_EN)); /* the queues stay where they are meanwhile */
    if (offset == NVME_REG_AQA)
        card->aqa = value;
    else if ((offset & ~4ull) == NVME_REG_ASQ)
        memcpy((uint8_t *)&card->asq + (offset & 4), &value, 4);
    else if ((offset & ~4ull) == NVME_REG_ACQ)
        memcpy((uint8_t *)&card->acq + (offset & 4), &value, 4);
    else
        FAKE_REQUIRE(!"a register of the admin queue");
}

/* ---- what the driver lives on ---- */

static void catch_up(struct fake_nvme *card)
{
    if (card->ready_at <= card->now_us) {
        card->csts = card->cc & NVME_CC_EN ? NVME_CSTS_RDY : 0;
        card->ready_at = NEVER;
    }
    if (card->complete_at <= card->now_us)
        work(card);
}

static uint64_t now_us(void *ctx)
{
    struct fake_nvme *card = ctx;
    card->now_us++; /* everything takes time */
    catch_up(card);
    return card->now_us;
}

static void delay_us(void *ctx, uint32_t us)
{
    struct fake_nvme *card = ctx;
    bool idle = card->ready_at == NEVER && card->complete_at == NEVER;
    card->now_us += card->hurry && idle ? IDLE_STEP_US : us;
    catch_up(card);
}

static void *dma_alloc(void *ctx, uint32_t pages, hpa_t *at)
{
    struct fake_nvme *card = ctx;
    FAKE_REQUIRE(pages == FAKE_NVME_DMA_PAGES);
    if (card->no_memory)
        return NULL;
    FAKE_REQUIRE(card->allocations++ == 0);
    *at = hpa(FAKE_NVME_AT);
    return card->memory;
}

void fake_nvme_init(struct fake_nvme *card, uint32_t secondaries, uint32_t namespaces)
{
    memset(card, 0, sizeof(*card));
    card->regs = (struct mmio){.ctx = card, .size = BAR_SIZE, .read32 = read32, .write32 = write32};
    card->env = (struct dev_env){.ctx = card, .now_us = now_us, .delay_us = delay_us, .dma_alloc = dma_alloc};
    card->cap = 2047 | 15ull << 24 | NVME_CAP_CSS_NVM;
    card->vs = 0x10400;
    card->ready_at = card->complete_at = NEVER;
    card->ready_us = 2000;
    card->latency_us = 30;
    card->fail_after = UINT32_MAX;
    card->oacs = NVME_OACS_NAMESPACES;
    card->types = NVME_CRT_VQ | NVME_CRT_VI;
    card->queues_total = 6;
    card->vectors_total = 4;
    card->queues_max = 3;
    card->vectors_max = 2;
    card->queues_granule = card->vectors_granule = 1;
    card->secondary_count = secondaries;
    for (uint32_t i = 0; i < secondaries; i++)
        card->secondaries[i] =
            (struct fake_nvme_secondary){.id = (uint16_t)(i + 1), .vf_number = (uint16_t)(i + 1)};
    card->namespace_count = namespaces;
    for (uint32_t i = 0; i < namespaces; i++)
        card->namespaces[i] = (struct fake_nvme_namespace){.nsid = i + 1, .blocks = 0x20000, .shift = 9};
}

void fake_nvme_flr(struct fake_nvme *card)
{
    card->cc = card->csts = 0;
    card->ready_at = card->complete_at = NEVER;
    card->queues_primary = card->queues_next;
    card->vectors_primary = card->vectors_next;
    card->vfs_on = 0;
    all_offline(card);
}

void fake_nvme_set_vfs(struct fake_nvme *card, uint32_t count)
{
    all_offline(card);
    card->vfs_on = count;
}
