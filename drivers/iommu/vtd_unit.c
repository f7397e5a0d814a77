/* One VT-d unit: found, checked, and switched on, whatever state the firmware left it in (VT-d specification
 * 4.1, 11.4.4 and 6.6). */
#include "drivers/iommu/vtd.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

#define SAY(...) fmt_format(why, size, __VA_ARGS__)

uint64_t *vtd_page(struct iommu *iommu, hpa_t *at)
{
    const struct iommu_env *env = iommu->env;
    if (!env->pages->alloc(env->pages->ctx, at))
        return NULL;
    uint64_t *page = env->pages->table(env->pages->ctx, *at);
    env->write_back(env->ctx, page, PAGE_SIZE);
    __atomic_fetch_add(&iommu->pages, 1, __ATOMIC_RELAXED);
    return page;
}

void vtd_unit_write_back(const struct vtd_unit *unit, const void *at, size_t size)
{
    if (!(unit->ecap & VTD_ECAP_C))
        unit->iommu->env->write_back(unit->iommu->env->ctx, at, size);
}

bool vtd_wait32(const struct vtd_unit *unit, uint32_t reg, uint32_t mask, uint32_t want)
{
    const struct iommu_env *env = unit->iommu->env;
    uint64_t start = env->now_us(env->ctx);
    while ((mmio_read32(&unit->regs, reg) & mask) != want) {
        if (env->now_us(env->ctx) - start > IOMMU_WAIT_US)
            return false;
        __builtin_ia32_pause();
    }
    return true;
}

/* GCMD cannot be read, and takes one change at a time (11.4.4.1). */
bool vtd_command(struct vtd_unit *unit, uint32_t bit, bool on, bool want)
{
    uint32_t keep = mmio_read32(&unit->regs, VTD_GSTS) & VTD_GSTS_KEEP;
    mmio_write32(&unit->regs, VTD_GCMD, on ? keep | bit : keep & ~bit);
    return vtd_wait32(unit, VTD_GSTS, bit, want ? bit : 0);
}

bool vtd_publish(struct vtd_unit *unit)
{
    if (!(unit->cap & VTD_CAP_RWBF))
        return true;
    if (vtd_command(unit, VTD_GCMD_WBF, true, false))
        return true;
    unit->broken = true;
    log_line(LOG_ERROR, "iommu", "unit %llx does not flush its write buffer",
             (unsigned long long)unit->base.v);
    return false;
}

/* ---- finding ---- */

/* Where its fault registers end; IOTLB registers, which may lie further up, are not used. */
static uint64_t registers_size(uint64_t cap)
{
    uint64_t end = VTD_CAP_FRO(cap) * 16 + (VTD_CAP_NFR(cap) + 1) * VTD_FRCD_BYTES;
    return align_up(end < PAGE_SIZE ? PAGE_SIZE : end, PAGE_SIZE);
}

static enum status map_registers(struct vtd_unit *unit, char *why, size_t size)
{
    const struct iommu_env *env = unit->iommu->env;
    if (!env->map(env->ctx, unit->base, PAGE_SIZE, &unit->regs)) {
        SAY("the registers of VT-d unit %llx cannot be mapped", (unsigned long long)unit->base.v);
        return ERR_NO_MEMORY;
    }
    unit->cap = mmio_read64(&unit->regs, VTD_CAP);
    unit->ecap = mmio_read64(&unit->regs, VTD_ECAP);
    if (mmio_read32(&unit->regs, VTD_VER) == UINT32_MAX || unit->cap == 0 || unit->cap == UINT64_MAX ||
        unit->ecap == UINT64_MAX) {
        SAY("VT-d unit %llx does not answer", (unsigned long long)unit->base.v);
        return ERR_NOT_FOUND;
    }
    uint64_t all = registers_size(unit->cap);
    if (all > PAGE_SIZE && !env->map(env->ctx, unit->base, all, &unit->regs)) {
        SAY("the registers of VT-d unit %llx cannot be mapped", (unsigned long long)unit->base.v);
        return ERR_NO_MEMORY;
    }
    return STATUS_OK;
}

enum status vtd_unit_probe(struct iommu *iommu, const struct acpi_dmar_unit *at, uint8_t index, char *why,
                           size_t size)
{
    hpa_t self;
    _Static_assert(sizeof(struct vtd_unit) <= PAGE_SIZE, "a unit has one page");
    struct vtd_unit *unit = (struct vtd_unit *)vtd_page(iommu, &self);
    if (!unit) {
        SAY("no memory for VT-d unit %llx", (unsigned long long)at->base.v);
        return ERR_NO_MEMORY;
    }
    iommu->units[index] = unit;
    *unit = (struct vtd_unit){.iommu = iommu,
                              .base = at->base,
                              .self = self,
                              .segment = at->segment,
                              .index = index,
                              .all = at->all};
    enum status status = map_registers(unit, why, size);
    if (status != STATUS_OK)
        return status;
    if (!(unit->ecap & VTD_ECAP_QI)) {
        SAY("VT-d unit %llx is of the first generation, without queued invalidation",
            (unsigned long long)unit->base.v);
        return ERR_UNSUPPORTED;
    }
    unit->root = vtd_page(iommu, &unit->root_at);
    unit->queue = unit->root ? vtd_page(iommu, &unit->queue_at) : NULL;
    unit->irtes = unit->queue ? vtd_page(iommu, &unit->irtes_at) : NULL;
    if (!unit->irtes) {
        SAY("no memory for the tables of VT-d unit %llx", (unsigned long long)unit->base.v);
        return ERR_NO_MEMORY;
    }
    unit->left_on = mmio_read32(&unit->regs, VTD_GSTS);
    return STATUS_OK;
}

/* ---- switching on ---- */

/* Takes over what the firmware left on. Translation stays on until our root table replaces the firmware's;
 * only where the hardware does not allow that (another table format, or another format of interrupt
 * destinations, 11.4.5 and 11.4.9.10) is it off for a moment, in which no device but a display is a bus
 * master. */
static const char *take_over(struct vtd_unit *unit)
{
    uint32_t on = mmio_read32(&unit->regs, VTD_GSTS);
    if (vtd_queue_stop(unit) != STATUS_OK)
        return "does not let go of the firmware's queue";
    if ((on & VTD_GCMD_TE) && (mmio_read64(&unit->regs, VTD_RTADDR) & VTD_RTADDR_TTM)) {
        log_line(LOG_WARN, "iommu", "unit %llx: the firmware's tables are of another kind: off for a moment",
                 (unsigned long long)unit->base.v);
        if (!vtd_command(unit, VTD_GCMD_TE, false, false))
            return "does not switch the firmware's translation off";
    }
    bool eime = mmio_read64(&unit->regs, VTD_IRTA) & VTD_IRTA_EIME;
    if ((on & VTD_GCMD_IRE) && (eime != unit->iommu->eim || !unit->iommu->can_remap) &&
        !vtd_command(unit, VTD_GCMD_IRE, false, false))
        return "does not switch the firmware's interrupt remapping off";
    return NULL;
}

/* Old faults are the firmware's business. Interrupts for new ones stay off: they are polled. */
static void clear_faults(struct vtd_unit *unit)
{
    uint64_t first = VTD_CAP_FRO(unit->cap) * 16;
    for (unsigned i = 0; i <= VTD_CAP_NFR(unit->cap); i++)
        mmio_write32(&unit->regs, first + i * VTD_FRCD_BYTES + VTD_FRCD_F_OFFSET, VTD_FRCD_F_CLEAR);
    mmio_write32(&unit->regs, VTD_FSTS, VTD_FSTS_CLEAR);
    mmio_write32(&unit->regs, VTD_FECTL, VTD_FECTL_IM);
}

/* Every table entry is empty: each interrupt is blocked, also those of the old format (5.1.4, CFI off). */
static const char *start_interrupts(struct vtd_unit *unit)
{
    mmio_write64(&unit->regs, VTD_IRTA,
                 unit->irtes_at.v | (unit->iommu->eim ? VTD_IRTA_EIME : 0) |
                     (bits_highest(VTD_IRTES) - 1)); /* 2^(n+1) entries */
    if (!vtd_command(unit, VTD_GCMD_SIRTP, true, true))
        return "does not take the interrupt remapping table";
    if (!(unit->cap & VTD_CAP_ESIRTPS)) {
        struct vtd_batch b = {0};
        vtd_flush_irtes_all(&b);
        if (vtd_queue_run(unit, &b) != STATUS_OK)
            return "does not forget old interrupt entries";
    }
    if (!vtd_command(unit, VTD_GCMD_CFI, false, false))
        return "lets interrupts of the old format pass";
    return vtd_command(unit, VTD_GCMD_IRE, true, true) ? NULL : "does not switch interrupt remapping on";
}

static const char *start_translation(struct vtd_unit *unit)
{
    mmio_write64(&unit->regs, VTD_RTADDR, unit->root_at.v);
    if (!vtd_command(unit, VTD_GCMD_SRTP, true, true))
        return "does not take the root table";
    if (!(unit->cap & VTD_CAP_ESRTPS)) {
        struct vtd_batch b = {0};
        vtd_flush_context_all(&b);
        vtd_flush_iotlb_all(unit, &b);
        if (vtd_queue_run(unit, &b) != STATUS_OK)
            return "does not forget old translations";
    }
    return vtd_command(unit, VTD_GCMD_TE, true, true) ? NULL : "does not switch translation on";
}

/* The firmware's coarse protection of all memory, which no device passes, is not needed any more: what it
 * protected is behind our tables. */
static const char *stop_protected_memory(struct vtd_unit *unit)
{
    if (!(unit->cap & (VTD_CAP_PLMR | VTD_CAP_PHMR)))
        return NULL;
    mmio_write32(&unit->regs, VTD_PMEN, mmio_read32(&unit->regs, VTD_PMEN) & ~VTD_PMEN_EPM);
    return vtd_wait32(unit, VTD_PMEN, VTD_PMEN_PRS, 0) ? NULL : "keeps its protected memory regions";
}

static const char *start(struct vtd_unit *unit)
{
    const char *wrong = take_over(unit);
    if (wrong)
        return wrong;
    if (!vtd_publish(unit))
        return "does not flush its write buffer";
    clear_faults(unit);
    if (vtd_queue_start(unit) != STATUS_OK)
        return "does not switch its queue on";
    if (unit->iommu->can_remap)
        wrong = start_interrupts(unit);
    if (!wrong)
        wrong = start_translation(unit);
    return wrong ? wrong : stop_protected_memory(unit);
}

enum status vtd_unit_start(struct vtd_unit *unit, char *why, size_t size)
{
    const char *wrong = start(unit);
    if (!wrong) {
        unit->on = true;
        return STATUS_OK;
    }
    unit->broken = true;
    SAY("VT-d unit %llx %s (GSTS %x, FSTS %x)", (unsigned long long)unit->base.v, wrong,
        mmio_read32(&unit->regs, VTD_GSTS), mmio_read32(&unit->regs, VTD_FSTS));
    return ERR_NOT_FOUND;
}
