#include "drivers/nvme/nvme_admin.h"
#include "drivers/nvme/nvme_regs.h"
#include "hv/lib/fmt.h"
#include "hv/lib/string.h"

#define ENTRIES  16u /* of each queue: one command at a time needs two */
#define READY_US 1000u
#define POLL_US  20u
#define GONE     0xffffffffu /* what a function that has left the bus reads as */

enum { PAGE_SQ, PAGE_CQ, PAGE_DATA };

static uint8_t *page(const struct nvme_admin *a, unsigned n)
{
    return a->dma + n * PAGE_SIZE;
}

static uint64_t page_at(const struct nvme_admin *a, unsigned n)
{
    return a->dma_at + n * PAGE_SIZE;
}

uint8_t *nvme_admin_data(const struct nvme_admin *a)
{
    return page(a, PAGE_DATA);
}

static void put(uint8_t *entry, unsigned offset, uint32_t value)
{
    memcpy(entry + offset, &value, sizeof(value));
}

/* 64-bit registers are accessed as two dwords, which all controllers take (3.1). */
static uint64_t read_wide(const struct mmio *regs, uint64_t offset)
{
    return mmio_read32(regs, offset) | (uint64_t)mmio_read32(regs, offset + 4) << 32;
}

static void write_wide(const struct mmio *regs, uint64_t offset, uint64_t value)
{
    mmio_write32(regs, offset, (uint32_t)value);
    mmio_write32(regs, offset + 4, (uint32_t)(value >> 32));
}

const char *nvme_status_text(uint16_t status)
{
    static const struct {
        uint16_t status;
        const char *text;
    } known[] = {
        {NVME_STATUS_INVALID_OPCODE, "unknown command"},
        {NVME_STATUS_INVALID_FIELD, "invalid field"},
        {NVME_STATUS_INVALID_NAMESPACE, "invalid namespace"},
        {NVME_STATUS_NS_ATTACHED, "namespace is attached already"},
        {NVME_STATUS_NS_PRIVATE, "namespace is private and attached elsewhere"},
        {NVME_STATUS_NS_NOT_ATTACHED, "namespace is not attached"},
        {NVME_STATUS_CONTROLLER_LIST, "invalid controller list"},
        {NVME_STATUS_CONTROLLER_ID, "invalid controller identifier"},
        {NVME_STATUS_SECONDARY_STATE, "invalid secondary controller state"},
        {NVME_STATUS_RESOURCE_COUNT, "invalid number of controller resources"},
        {NVME_STATUS_RESOURCE_ID, "invalid resource identifier"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i].status == status)
            return known[i].text;
    return "see the NVMe specification, status codes";
}

/* Waits until CSTS.RDY is `ready`. */
static enum status wait_ready(struct nvme_admin *a, uint32_t ready, char *why, size_t size)
{
    uint64_t until = a->env->now_us(a->env->ctx) + a->ready_us;
    for (;;) {
        /* The clock first: a status that is read when the time is over still counts. */
        bool over = a->env->now_us(a->env->ctx) >= until;
        uint32_t status = mmio_read32(&a->regs, NVME_REG_CSTS);
        if (status == GONE) {
            fmt_format(why, size, "the NVMe controller has left the bus");
            return ERR_NOT_FOUND;
        }
        if ((status & NVME_CSTS_RDY) == ready)
            return STATUS_OK;
        /* A fatal controller is still reset by CC.EN = 0 (3.1.6), but does not become ready. */
        if (over || (ready && (status & NVME_CSTS_CFS))) {
            fmt_format(why, size,
                       "the NVMe controller did not become %s in %u ms (CSTS 0x%x): power the machine off",
                       ready ? "ready" : "idle", a->ready_us / 1000, status);
            return ERR_NOT_FOUND;
        }
        a->env->delay_us(a->env->ctx, READY_US);
    }
}

/* The capabilities, checked: what the controller needs, and where its doorbells are. */
static enum status read_capabilities(struct nvme_admin *a, uint32_t *command_set, char *why, size_t size)
{
    if (a->regs.size < NVME_DOORBELLS || mmio_read32(&a->regs, NVME_REG_VS) == GONE) {
        fmt_format(why, size, "no NVMe controller answers");
        return ERR_NOT_FOUND;
    }
    uint64_t cap = read_wide(&a->regs, NVME_REG_CAP);
    a->doorbell_stride = 4u << NVME_CAP_DSTRD(cap);
    if (NVME_CAP_MPSMIN(cap) != 0 || a->regs.size < NVME_DOORBELLS + 2ull * a->doorbell_stride) {
        fmt_format(why, size,
                   "the NVMe controller needs pages larger than 4 KiB, or its registers do not fit its BAR");
        return ERR_UNSUPPORTED;
    }
    /* Bounded by us as well: no card needs the two minutes that the field can ask for. */
    uint64_t ready_us = (uint64_t)NVME_CAP_TO(cap) * NVME_CAP_TO_US;
    if (ready_us < NVME_CAP_TO_US)
        ready_us = NVME_CAP_TO_US;
    a->ready_us = ready_us > NVME_READY_MAX_US ? NVME_READY_MAX_US : (uint32_t)ready_us;
    *command_set = cap & NVME_CAP_CSS_NVM ? 0 : cap & NVME_CAP_CSS_CSI ? NVME_CC_CSS_CSI : NVME_CC_CSS_ADMIN;
    return STATUS_OK;
}

enum status nvme_admin_start(struct nvme_admin *a, const struct mmio *regs, const struct dev_env *env,
                             char *why, size_t size)
{
    uint32_t command_set = 0;
    a->regs = *regs;
    a->env = env;
    a->alive = false;
    enum status s = read_capabilities(a, &command_set, why, size);
    if (s != STATUS_OK)
        return s;
    if (!a->dma) {
        hpa_t at = hpa(0);
        a->dma = env->dma_alloc(env->ctx, NVME_DMA_PAGES, &at);
        a->dma_at = at.v;
        if (!a->dma) {
            fmt_format(why, size, "no memory for the admin queue of the NVMe controller");
            return ERR_NO_MEMORY;
        }
    }
    mmio_write32(&a->regs, NVME_REG_CC, 0);
    s = wait_ready(a, 0, why, size);
    if (s != STATUS_OK)
        return s;
    /* Only now does the controller no longer write to the old queues. */
    memset(a->dma, 0, NVME_DMA_PAGES * PAGE_SIZE);
    a->tail = a->head = 0;
    a->phase = true;
    mmio_write32(&a->regs, NVME_REG_INTMS, UINT32_MAX);
    mmio_write32(&a->regs, NVME_REG_AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    write_wide(&a->regs, NVME_REG_ASQ, page_at(a, PAGE_SQ));
    write_wide(&a->regs, NVME_REG_ACQ, page_at(a, PAGE_CQ));
    mmio_write32(&a->regs, NVME_REG_CC, NVME_CC_EN | command_set | NVME_CC_IOSQES | NVME_CC_IOCQES);
    s = wait_ready(a, NVME_CSTS_RDY, why, size);
    a->alive = s == STATUS_OK;
    return s;
}

static void submit(struct nvme_admin *a, const struct nvme_command *command)
{
    uint8_t entry[NVME_SQE_BYTES] = {0};
    a->next++;
    put(entry, 0, command->opcode | (uint32_t)a->next << 16);
    put(entry, NVME_SQE_NSID, command->nsid);
    if (command->data) {
        put(entry, NVME_SQE_PRP1, (uint32_t)page_at(a, PAGE_DATA));
        put(entry, NVME_SQE_PRP1 + 4, (uint32_t)(page_at(a, PAGE_DATA) >> 32));
    }
    put(entry, NVME_SQE_CDW10, command->cdw10);
    put(entry, NVME_SQE_CDW11, command->cdw11);
    memcpy(page(a, PAGE_SQ) + a->tail * NVME_SQE_BYTES, entry, sizeof(entry));
    a->tail = (uint16_t)((a->tail + 1) % ENTRIES);
    /* The controller reads the entry, and the data, when it sees the doorbell. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    mmio_write32(&a->regs, NVME_DOORBELLS, a->tail);
}

/* Waits for the next completion; its last two dwords. */
static bool completion(struct nvme_admin *a, uint32_t *queue, uint32_t *status)
{
    const uint8_t *entry = page(a, PAGE_CQ) + a->head * NVME_CQE_BYTES;
    uint64_t until = a->env->now_us(a->env->ctx) + NVME_COMMAND_US;
    for (;;) {
        bool over = a->env->now_us(a->env->ctx) >= until;
        *status = nvme_get32(entry + NVME_CQE_STATUS);
        if (!(*status & NVME_CQE_PHASE) == !a->phase)
            break;
        uint32_t csts = mmio_read32(&a->regs, NVME_REG_CSTS);
        if (over || csts == GONE || (csts & NVME_CSTS_CFS))
            return false;
        a->env->delay_us(a->env->ctx, POLL_US);
    }
    /* The rest of the entry, and the data, were written before the phase. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    *queue = nvme_get32(entry + NVME_CQE_QUEUE);
    if (++a->head == ENTRIES) {
        a->head = 0;
        a->phase = !a->phase;
    }
    mmio_write32(&a->regs, NVME_DOORBELLS + a->doorbell_stride, a->head);
    return true;
}

enum status nvme_admin_command(struct nvme_admin *a, const struct nvme_command *command, char *why,
                               size_t size)
{
    uint32_t queue, status;
    if (!a->alive) {
        fmt_format(why, size, "the NVMe controller has failed before and is no longer asked");
        return ERR_NOT_FOUND;
    }
    submit(a, command);
    a->commands++;
    a->status = 0;
    if (!completion(a, &queue, &status)) {
        a->alive = false;
        fmt_format(why, size, "the NVMe controller did not answer command 0x%x in %u ms (CSTS 0x%x)",
                   command->opcode, NVME_COMMAND_US / 1000, mmio_read32(&a->regs, NVME_REG_CSTS));
        return ERR_NOT_FOUND;
    }
    /* One command is under way, so a completion of anything else is a controller out of its mind: its next
     * answers would be taken for those of other commands. */
    if (queue >> 16 != 0 || (uint16_t)status != a->next) {
        a->alive = false;
        fmt_format(why, size, "the NVMe controller answered command 0x%x with a completion of another",
                   command->opcode);
        return ERR_NOT_FOUND;
    }
    a->status = NVME_CQE_SC(status);
    if (a->status == 0)
        return STATUS_OK;
    a->refused++;
    fmt_format(why, size, "the NVMe controller refused command 0x%x: status 0x%x, %s", command->opcode,
               a->status, nvme_status_text(a->status));
    return ERR_INVALID;
}

enum status nvme_admin_identify(struct nvme_admin *a, uint32_t cdw10, uint32_t nsid, char *why, size_t size)
{
    const struct nvme_command command = {
        .opcode = NVME_CMD_IDENTIFY, .nsid = nsid, .cdw10 = cdw10, .data = true};
    memset(nvme_admin_data(a), 0, NVME_IDENTIFY_BYTES);
    return nvme_admin_command(a, &command, why, size);
}
