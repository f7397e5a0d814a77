/* Interrupt remapping (VT-d specification 4.1, 5.1 and 9.10): each interrupt of a device is an entry of its
 * unit's table, and only the function it was made for may use it. The words of an entry are written so that
 * the hardware never sees half of one: word 1 (who) while it is not present, then word 0 (where to) at once.
 */
#include "drivers/iommu/vtd.h"

#define HANDLE(unit, index)  ((uint32_t)(unit) << 16 | (index))
#define HANDLE_UNIT(handle)  ((handle) >> 16)
#define HANDLE_INDEX(handle) ((handle)&0xffffu)
#define XAPIC_ID_MAX         254u /* 255 is everybody */
#define XAPIC_ID_SHIFT       8u   /* where such an id stands in DST */
#define VECTOR_FIRST         16u
#define VECTOR_LAST          254u

static bool is_used(const struct vtd_unit *unit, uint32_t index)
{
    return unit->irte_used[index / 64] >> (index % 64) & 1;
}

static void mark(struct vtd_unit *unit, uint32_t index, bool used)
{
    uint64_t bit = BIT(index % 64);
    unit->irte_used[index / 64] = (unit->irte_used[index / 64] & ~bit) | (used ? bit : 0);
    __atomic_fetch_add(&unit->iommu->interrupts, used ? 1u : UINT32_MAX, __ATOMIC_RELAXED);
}

static void store(const struct vtd_unit *unit, uint64_t *word, uint64_t value)
{
    *(volatile uint64_t *)word = value;
    vtd_unit_write_back(unit, word, sizeof(*word));
}

static enum status flush(struct vtd_unit *unit, uint32_t first, uint32_t count)
{
    struct vtd_batch b = {0};
    if (count == 1)
        vtd_flush_irte(&b, first);
    else
        vtd_flush_irtes_all(&b);
    return vtd_queue_run(unit, &b);
}

/* The first of `count` free entries in a row; VTD_IRTES: there are none. */
static uint32_t find_free(const struct vtd_unit *unit, uint32_t count)
{
    for (uint32_t first = 0, run = 0, i = 0; i < VTD_IRTES; i++) {
        run = is_used(unit, i) ? 0 : run + 1;
        if (run == 1)
            first = i;
        if (run == count)
            return first;
    }
    return VTD_IRTES;
}

enum status iommu_irq_alloc(struct iommu *iommu, uint16_t bdf, uint16_t pf, uint32_t count, uint32_t *handle)
{
    if (count == 0 || count > VTD_IRQ_MAX)
        return ERR_RANGE;
    if (!iommu_can_remap(iommu))
        return ERR_UNSUPPORTED;
    struct vtd_unit *unit = vtd_unit_of(iommu, pf);
    if (!unit)
        return ERR_NOT_FOUND;
    spin_lock(&unit->lock);
    uint32_t first = find_free(unit, count);
    for (uint32_t i = first; first < VTD_IRTES && i < first + count; i++) {
        mark(unit, i, true);
        store(unit, &unit->irtes[2 * i + 1], VTD_IRTE_SVT_SID | bdf);
        store(unit, &unit->irtes[2 * i], VTD_IRTE_FPD); /* a masked one is no fault of its owner's */
    }
    enum status status = first == VTD_IRTES ? ERR_NO_MEMORY : flush(unit, first, count);
    spin_unlock(&unit->lock);
    if (status == STATUS_OK)
        *handle = HANDLE(unit->index, first);
    return status;
}

/* The unit of a handle in use; NULL: no such handle. */
static struct vtd_unit *unit_of_handle(const struct iommu *iommu, uint32_t handle)
{
    if (HANDLE_UNIT(handle) >= iommu->unit_count || HANDLE_INDEX(handle) >= VTD_IRTES)
        return NULL;
    return iommu->units[HANDLE_UNIT(handle)];
}

enum status iommu_irq_free(struct iommu *iommu, uint16_t bdf, uint32_t handle, uint32_t count)
{
    struct vtd_unit *unit = unit_of_handle(iommu, handle);
    uint32_t first = HANDLE_INDEX(handle);
    if (!unit || count == 0 || count > VTD_IRTES - first)
        return ERR_INVALID;
    enum status status = STATUS_OK;
    spin_lock(&unit->lock);
    for (uint32_t i = first; i < first + count; i++)
        if (!is_used(unit, i) || VTD_IRTE_SID(unit->irtes[2 * i + 1]) != bdf)
            status = ERR_INVALID;
    for (uint32_t i = first; status == STATUS_OK && i < first + count; i++)
        store(unit, &unit->irtes[2 * i], 0);
    if (status == STATUS_OK)
        status = flush(unit, first, count);
    /* Not flushed: it may still be in force, and is nobody else's. */
    for (uint32_t i = first; status == STATUS_OK && i < first + count; i++) {
        store(unit, &unit->irtes[2 * i + 1], 0);
        mark(unit, i, false);
    }
    spin_unlock(&unit->lock);
    return status;
}

/* Writes word 0 of a handle in use, and waits until the old one is forgotten. */
static enum status set(struct iommu *iommu, uint32_t handle, uint64_t low)
{
    struct vtd_unit *unit = unit_of_handle(iommu, handle);
    uint32_t index = HANDLE_INDEX(handle);
    if (!unit)
        return ERR_INVALID;
    enum status status = ERR_INVALID;
    spin_lock(&unit->lock);
    if (is_used(unit, index)) {
        store(unit, &unit->irtes[2 * index], low);
        status = flush(unit, index, 1);
    }
    spin_unlock(&unit->lock);
    return status;
}

enum status iommu_irq_route(struct iommu *iommu, uint32_t handle, uint32_t apic_id, uint8_t vector)
{
    if (vector < VECTOR_FIRST || vector > VECTOR_LAST || apic_id == UINT32_MAX ||
        (!iommu->eim && apic_id > XAPIC_ID_MAX))
        return ERR_RANGE;
    uint64_t dst = iommu->eim ? apic_id : apic_id << XAPIC_ID_SHIFT;
    return set(iommu, handle, VTD_IRTE_P | VTD_IRTE_VECTOR(vector) | VTD_IRTE_DST(dst));
}

enum status iommu_irq_mask(struct iommu *iommu, uint32_t handle)
{
    return set(iommu, handle, VTD_IRTE_FPD);
}

uint16_t iommu_irq_index(uint32_t handle)
{
    return (uint16_t)HANDLE_INDEX(handle);
}

void iommu_irq_message(const struct iommu *iommu, uint32_t handle, uint64_t *address, uint32_t *data)
{
    *address = VTD_MESSAGE(HANDLE_INDEX(handle));
    *data = 0;
}
