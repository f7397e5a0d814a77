/* Root and context tables (VT-d specification 4.1, 9.1 and 9.3): which domain a function is in. No entry is
 * of a type that lets a device skip translation, or bring translations of its own (ATS). */
#include "drivers/iommu/vtd.h"

#define WORDS_PER_ENTRY 2u

static void store(const struct vtd_unit *unit, uint64_t *word, uint64_t value)
{
    *(volatile uint64_t *)word = value;
    vtd_unit_write_back(unit, word, sizeof(*word));
}

uint64_t *vtd_context(const struct vtd_unit *unit, uint16_t bdf)
{
    uint64_t root = unit->root[BDF_BUS(bdf) * WORDS_PER_ENTRY];
    if (!(root & VTD_ENTRY_P))
        return NULL;
    const struct pt_env *pages = unit->iommu->env->pages;
    return pages->table(pages->ctx, hpa(root & VTD_ADDRESS)) + (bdf & 0xffu) * WORDS_PER_ENTRY;
}

enum status vtd_context_set(struct vtd_unit *unit, uint16_t bdf, const struct iommu_domain *d)
{
    uint64_t *entry = vtd_context(unit, bdf);
    if (!entry) {
        hpa_t page;
        if (!vtd_page(unit->iommu, &page))
            return ERR_NO_MEMORY;
        store(unit, &unit->root[BDF_BUS(bdf) * WORDS_PER_ENTRY], page.v | VTD_ENTRY_P);
        entry = vtd_context(unit, bdf);
    }
    if (entry[0] & VTD_ENTRY_P)
        return ERR_EXISTS;
    store(unit, &entry[1], VTD_CONTEXT_AW(d->levels) | VTD_CONTEXT_DID(d->id));
    store(unit, &entry[0], d->root.v | VTD_ENTRY_P); /* makes it one, so it comes last */
    return STATUS_OK;
}

enum status vtd_context_attach(struct vtd_unit *unit, uint16_t bdf, const struct iommu_domain *d)
{
    enum status status = unit->broken ? ERR_NOT_FOUND : vtd_context_set(unit, bdf, d);
    if (status != STATUS_OK)
        return status;
    /* In caching mode the unit may have kept that nothing was there: under id 0, and under the domain's
     * own (6.1). */
    if (unit->cap & VTD_CAP_CM) {
        struct vtd_batch b = {0};
        vtd_flush_context(&b, bdf, 0);
        vtd_flush_domain(unit, &b, d->id);
        return vtd_queue_run(unit, &b);
    }
    return vtd_publish(unit) ? STATUS_OK : ERR_NOT_FOUND;
}

enum status vtd_context_detach(struct vtd_unit *unit, uint16_t bdf, const struct iommu_domain *d)
{
    uint64_t *entry = vtd_context(unit, bdf);
    if (!entry || !(entry[0] & VTD_ENTRY_P) || VTD_CONTEXT_ID(entry[1]) != d->id)
        return ERR_INVALID;
    store(unit, &entry[0], 0);
    /* The context first: a translation that is made meanwhile would use it (6.5.3.1). */
    struct vtd_batch b = {0};
    vtd_flush_context(&b, bdf, d->id);
    vtd_flush_domain(unit, &b, d->id);
    enum status status = vtd_queue_run(unit, &b);
    if (status == STATUS_OK)
        store(unit, &entry[1], 0);
    return status;
}
