/* Queued invalidation (VT-d specification 4.1, 6.5.2). A batch is put in, followed by a wait descriptor that
 * writes a number of ours into `done`; whoever hands in a batch waits for that. So the queue is empty between
 * two batches, and what a call has flushed is flushed when it returns. */
#include "drivers/iommu/vtd.h"
#include "hv/lib/log.h"

#define QUEUE_SLOTS     256u /* of 16 bytes: one page, IQA's size field 0 */
#define SLOT_BYTES_LOG2 4u

static void add(struct vtd_batch *b, uint64_t low, uint64_t high)
{
    b->words[b->count][0] = low;
    b->words[b->count][1] = high;
    b->count++;
}

void vtd_flush_context(struct vtd_batch *b, uint16_t bdf, uint16_t id)
{
    add(b, VTD_DESC_CONTEXT | VTD_DESC_SELECT | VTD_DESC_DID(id) | VTD_CONTEXT_SID(bdf), 0);
}

void vtd_flush_context_all(struct vtd_batch *b)
{
    add(b, VTD_DESC_CONTEXT | VTD_DESC_GLOBAL, 0);
}

/* An IOTLB descriptor; pending reads and writes are waited for where the unit can (6.5.4). */
static void add_iotlb(const struct vtd_unit *unit, struct vtd_batch *b, uint64_t low, uint64_t high)
{
    if (unit->cap & VTD_CAP_DWD)
        low |= VTD_IOTLB_DW;
    if (unit->cap & VTD_CAP_DRD)
        low |= VTD_IOTLB_DR;
    add(b, VTD_DESC_IOTLB | low, high);
}

void vtd_flush_domain(const struct vtd_unit *unit, struct vtd_batch *b, uint16_t id)
{
    add_iotlb(unit, b, VTD_DESC_DOMAIN | VTD_DESC_DID(id), 0);
}

void vtd_flush_iotlb_all(const struct vtd_unit *unit, struct vtd_batch *b)
{
    add_iotlb(unit, b, VTD_DESC_GLOBAL, 0);
}

/* A page-selective flush covers 2^order pages, naturally aligned. The hint that no table entry has changed
 * (IH) is never given: unmapping may split a large page. */
void vtd_flush_range(const struct vtd_unit *unit, struct vtd_batch *b, uint16_t id, uint64_t iova,
                     uint64_t size)
{
    uint64_t first = iova >> PAGE_SHIFT, last = (iova + size - 1) >> PAGE_SHIFT;
    unsigned order = first == last ? 0 : bits_highest(first ^ last) + 1;
    if (!(unit->cap & VTD_CAP_PSI) || order > VTD_CAP_MAMV(unit->cap)) {
        vtd_flush_domain(unit, b, id);
        return;
    }
    add_iotlb(unit, b, VTD_DESC_SELECT | VTD_DESC_DID(id), align_down(iova, PAGE_SIZE << order) | order);
}

void vtd_flush_irte(struct vtd_batch *b, uint32_t index)
{
    add(b, VTD_DESC_IEC | VTD_IEC_SELECT | VTD_IEC_INDEX(index), 0);
}

void vtd_flush_irtes_all(struct vtd_batch *b)
{
    add(b, VTD_DESC_IEC, 0);
}

static enum status broken(struct vtd_unit *unit, const char *what)
{
    unit->broken = true;
    log_line(LOG_ERROR, "iommu",
             "unit %llx %s (FSTS %x, IQH %x, IQT %x): nothing behind it can be given away, or taken back",
             (unsigned long long)unit->base.v, what, mmio_read32(&unit->regs, VTD_FSTS),
             (unsigned)mmio_read64(&unit->regs, VTD_IQH), (unsigned)mmio_read64(&unit->regs, VTD_IQT));
    return ERR_NOT_FOUND;
}

static void put(struct vtd_unit *unit, uint64_t low, uint64_t high)
{
    volatile uint64_t *slot = unit->queue + (size_t)unit->tail * 2;
    slot[0] = low;
    slot[1] = high;
    unit->tail = (unit->tail + 1) % QUEUE_SLOTS;
}

enum status vtd_queue_run(struct vtd_unit *unit, const struct vtd_batch *b)
{
    const struct iommu_env *env = unit->iommu->env;
    if (unit->broken)
        return ERR_NOT_FOUND;
    for (unsigned i = 0; i < b->count; i++)
        put(unit, b->words[i][0], b->words[i][1]);
    unit->sequence++;
    put(unit, VTD_DESC_WAIT | VTD_WAIT_STATUS | VTD_WAIT_FENCE | VTD_WAIT_DATA(unit->sequence),
        unit->self.v + offsetof(struct vtd_unit, done));
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the slots before the tail */
    uint64_t start = env->now_us(env->ctx);
    mmio_write64(&unit->regs, VTD_IQT, (uint64_t)unit->tail << SLOT_BYTES_LOG2);
    while (__atomic_load_n(&unit->done, __ATOMIC_ACQUIRE) != unit->sequence) {
        /* An error stops the queue for good: the descriptors are ours, so it is the unit that is wrong. */
        if (mmio_read32(&unit->regs, VTD_FSTS) & VTD_QUEUE_ERRORS)
            return broken(unit, "refuses to invalidate what it has cached");
        if (env->now_us(env->ctx) - start > IOMMU_WAIT_US)
            return broken(unit, "does not answer");
        __builtin_ia32_pause();
    }
    return STATUS_OK;
}

enum status vtd_queue_stop(struct vtd_unit *unit)
{
    const struct iommu_env *env = unit->iommu->env;
    if (!(mmio_read32(&unit->regs, VTD_GSTS) & VTD_GCMD_QIE))
        return STATUS_OK;
    /* Head and tail must be the same before it may be switched off (6.5.2); a queue that has stopped on an
     * error goes on when the error is cleared. */
    uint64_t start = env->now_us(env->ctx);
    mmio_write32(&unit->regs, VTD_FSTS, VTD_QUEUE_ERRORS);
    while (mmio_read64(&unit->regs, VTD_IQH) != mmio_read64(&unit->regs, VTD_IQT)) {
        if (env->now_us(env->ctx) - start > IOMMU_WAIT_US)
            return broken(unit, "does not end the firmware's queue");
        __builtin_ia32_pause();
    }
    return vtd_command(unit, VTD_GCMD_QIE, false, false)
               ? STATUS_OK
               : broken(unit, "does not switch the firmware's queue off");
}

enum status vtd_queue_start(struct vtd_unit *unit)
{
    mmio_write64(&unit->regs, VTD_IQT, 0);
    mmio_write64(&unit->regs, VTD_IQA, unit->queue_at.v);
    unit->tail = 0;
    return vtd_command(unit, VTD_GCMD_QIE, true, true) ? STATUS_OK
                                                       : broken(unit, "does not switch its queue on");
}
