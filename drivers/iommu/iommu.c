/* The machine's IOMMUs as one: start-up, domains, and who is in which. */
#include "drivers/iommu/iommu.h"
#include "drivers/iommu/vtd.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

#define SAY(...) fmt_format(why, size, __VA_ARGS__)

#define SCOPES_MAX   (PAGE_SIZE / sizeof(struct vtd_scope))
#define RESERVED_MAX (PAGE_SIZE / sizeof(struct iommu_reserved))
#define REGION_MAX   32u /* functions or bridges that one reserved range names */
#define DEVFNS       256u

#define CLASS_USB 0x0c03u /* class code without its interface */

bool iommu_present(const struct iommu *iommu)
{
    return iommu && iommu->ready;
}

bool iommu_can_remap(const struct iommu *iommu)
{
    return iommu_present(iommu) && iommu->can_remap;
}

bool iommu_is_registers(const struct iommu *iommu, uint64_t base, uint64_t size)
{
    for (uint32_t i = 0; i < iommu->unit_count; i++) {
        const struct vtd_unit *unit = iommu->units[i];
        if (ranges_overlap(base, size, unit->base.v, unit->regs.size))
            return true;
    }
    return false;
}

/* ---- domains ---- */

static enum status take_id(struct iommu *iommu, uint16_t *id)
{
    enum status status = ERR_NO_MEMORY;
    spin_lock(&iommu->lock);
    for (uint32_t i = 1; i <= iommu->max_id && status != STATUS_OK; i++) { /* 0 is the hardware's own (6.1) */
        if (iommu->ids[i / 64] >> (i % 64) & 1)
            continue;
        iommu->ids[i / 64] |= BIT(i % 64);
        iommu->domains++;
        *id = (uint16_t)i;
        status = STATUS_OK;
    }
    spin_unlock(&iommu->lock);
    return status;
}

static void give_id(struct iommu *iommu, uint16_t id)
{
    spin_lock(&iommu->lock);
    iommu->ids[id / 64] &= ~BIT(id % 64);
    iommu->domains--;
    spin_unlock(&iommu->lock);
}

static enum status create(struct iommu *iommu, struct iommu_domain *d, char *why, size_t size)
{
    memset(d, 0, sizeof(*d));
    d->iommu = iommu;
    d->levels = iommu->levels;
    if (take_id(iommu, &d->id) != STATUS_OK) {
        SAY("all %u domains of the IOMMU are in use", iommu->max_id);
        return ERR_NO_MEMORY;
    }
    if (vtd_tables_create(d) == STATUS_OK)
        return STATUS_OK;
    give_id(iommu, d->id);
    memset(d, 0, sizeof(*d));
    SAY("no memory for the tables of an IOMMU domain");
    return ERR_NO_MEMORY;
}

enum status iommu_domain_create(struct iommu *iommu, struct iommu_domain *d, char *why, size_t size)
{
    if (iommu_present(iommu))
        return create(iommu, d, why, size);
    SAY("there is no usable IOMMU");
    return ERR_UNSUPPORTED;
}

enum status iommu_domain_destroy(struct iommu_domain *d)
{
    if (!d->iommu)
        return ERR_INVALID;
    if (d->attached)
        return ERR_EXISTS;
    vtd_tables_destroy(d);
    give_id(d->iommu, d->id);
    memset(d, 0, sizeof(*d));
    return STATUS_OK;
}

/* Tells every unit that has one of the domain's functions. */
static enum status tell(struct iommu_domain *d, uint64_t iova, uint64_t size, bool mapped)
{
    enum status result = STATUS_OK;
    for (uint32_t i = 0; i < d->iommu->unit_count; i++) {
        struct vtd_unit *unit = d->iommu->units[i];
        if (!d->users[i])
            continue;
        spin_lock(&unit->lock);
        struct vtd_batch b = {0};
        enum status status;
        if (mapped && !(unit->cap & VTD_CAP_CM)) { /* what was not there was not kept (6.1) */
            status = vtd_publish(unit) ? STATUS_OK : ERR_NOT_FOUND;
        } else {
            vtd_flush_range(unit, &b, d->id, iova, size);
            status = vtd_queue_run(unit, &b);
        }
        spin_unlock(&unit->lock);
        if (status != STATUS_OK)
            result = status; /* the others are told all the same */
    }
    return result;
}

enum status iommu_map(struct iommu_domain *d, uint64_t iova, hpa_t at, uint64_t size, unsigned flags)
{
    spin_lock(&d->lock);
    enum status status = d->iommu ? vtd_tables_map(d, iova, at.v, size, flags) : ERR_INVALID;
    if (status == STATUS_OK)
        status = tell(d, iova, size, true);
    spin_unlock(&d->lock);
    return status;
}

enum status iommu_unmap(struct iommu_domain *d, uint64_t iova, uint64_t size)
{
    spin_lock(&d->lock);
    enum status status = d->iommu ? vtd_tables_unmap(d, iova, size) : ERR_INVALID;
    if (status == STATUS_OK)
        status = tell(d, iova, size, false);
    spin_unlock(&d->lock);
    return status;
}

enum status iommu_lookup(struct iommu_domain *d, uint64_t iova, hpa_t *at, unsigned *flags)
{
    spin_lock(&d->lock);
    enum status status = d->iommu ? vtd_tables_lookup(d, iova, at, flags) : ERR_INVALID;
    spin_unlock(&d->lock);
    return status;
}

/* ---- who is in which ---- */

static struct iommu_reserved *reserved_of(const struct iommu *iommu, uint16_t bdf)
{
    for (uint32_t i = 0; i < iommu->reserved_count; i++)
        if (iommu->reserved[i].bdf == bdf)
            return &iommu->reserved[i];
    return NULL;
}

static enum status leave(struct vtd_unit *unit, uint16_t bdf, struct iommu_domain *d)
{
    spin_lock(&d->lock);
    spin_lock(&unit->lock);
    enum status status = vtd_context_detach(unit, bdf, d);
    spin_unlock(&unit->lock);
    if (status == STATUS_OK) { /* else it may still walk the tables, which therefore stay */
        d->attached--;
        d->users[unit->index]--;
    }
    spin_unlock(&d->lock);
    return status;
}

bool iommu_assignable(const struct iommu *iommu, uint16_t bdf, uint16_t pf, char *why, size_t size)
{
    const struct iommu_reserved *reserved;
    const struct vtd_unit *unit;
    if (!iommu_present(iommu)) {
        SAY("there is no usable IOMMU");
    } else if (!(unit = vtd_unit_of(iommu, pf))) {
        SAY("no IOMMU has it");
    } else if (unit->broken) {
        SAY("its IOMMU (%llx) does not answer any more", (unsigned long long)unit->base.v);
    } else if ((reserved = reserved_of(iommu, bdf)) && !reserved->relaxable) {
        SAY("the firmware keeps memory for it (RMRR)");
    } else {
        return true;
    }
    return false;
}

enum status iommu_attach(struct iommu *iommu, uint16_t bdf, uint16_t pf, struct iommu_domain *d)
{
    struct vtd_unit *unit = iommu_present(iommu) ? vtd_unit_of(iommu, pf) : NULL;
    struct iommu_reserved *reserved = unit ? reserved_of(iommu, bdf) : NULL;
    if (!unit)
        return ERR_NOT_FOUND;
    if (!d->iommu || (reserved && !reserved->relaxable))
        return ERR_INVALID;
    if (reserved && reserved->domain.attached) { /* an operating system takes it from the firmware */
        enum status left = leave(unit, bdf, &reserved->domain);
        if (left != STATUS_OK)
            return left;
    }
    spin_lock(&d->lock);
    spin_lock(&unit->lock);
    bool broken = unit->broken;
    enum status status = broken ? ERR_NOT_FOUND : vtd_context_attach(unit, bdf, d);
    spin_unlock(&unit->lock);
    /* A unit that breaks over it may use the entry nevertheless. */
    if (status == STATUS_OK || (status == ERR_NOT_FOUND && !broken)) {
        d->attached++;
        d->users[unit->index]++;
    }
    spin_unlock(&d->lock);
    return status;
}

enum status iommu_detach(struct iommu *iommu, uint16_t bdf, uint16_t pf, struct iommu_domain *d)
{
    struct vtd_unit *unit = iommu_present(iommu) ? vtd_unit_of(iommu, pf) : NULL;
    if (!unit)
        return ERR_NOT_FOUND;
    return d->iommu ? leave(unit, bdf, d) : ERR_INVALID;
}

/* ---- reserved ranges ---- */

/* What the firmware needs of these only until an operating system drives them. */
static bool is_relaxable(const struct pci_config *config, uint16_t bdf)
{
    uint32_t class_code = config->read(config->ctx, bdf, PCI_REG_CLASS, 4) >> 8;
    return class_code >> 8 == CLASS_USB || class_code >> 16 == PCI_CLASS_DISPLAY;
}

static struct iommu_reserved *add_reserved(struct iommu *iommu, const struct pci_config *config, uint16_t bdf,
                                           char *why, size_t size)
{
    struct iommu_reserved *reserved = reserved_of(iommu, bdf);
    if (reserved)
        return reserved;
    if (iommu->reserved_count == RESERVED_MAX) {
        SAY("the firmware keeps memory for more devices than Bulkhead can serve");
        return NULL;
    }
    reserved = &iommu->reserved[iommu->reserved_count];
    if (create(iommu, &reserved->domain, why, size) != STATUS_OK)
        return NULL;
    reserved->bdf = bdf;
    reserved->relaxable = is_relaxable(config, bdf);
    iommu->reserved_count++;
    return reserved;
}

/* Ranges of one device may overlap; all are identities. */
static enum status map_identity(struct iommu_domain *d, uint64_t base, uint64_t end)
{
    const unsigned flags = IOMMU_READ | IOMMU_WRITE;
    enum status status = vtd_tables_map(d, base, base, end - base, flags);
    for (uint64_t at = base; status == ERR_EXISTS && at < end; at += PAGE_SIZE) {
        enum status page = vtd_tables_map(d, at, at, PAGE_SIZE, flags);
        if (page != STATUS_OK && page != ERR_EXISTS)
            return page;
    }
    return status == ERR_EXISTS ? STATUS_OK : status;
}

static enum status reserve_for(struct iommu *iommu, const struct pci_config *config, uint16_t bdf,
                               const struct acpi_dmar_region *region, char *why, size_t size)
{
    struct vtd_unit *unit = vtd_unit_of(iommu, bdf);
    if (!unit)
        return STATUS_OK; /* nothing stands in its way */
    struct iommu_reserved *reserved = add_reserved(iommu, config, bdf, why, size);
    if (!reserved)
        return ERR_NO_MEMORY;
    struct iommu_domain *d = &reserved->domain;
    if (iommu->env->is_guest_memory(iommu->env->ctx, region->base, region->limit - region->base + 1)) {
        log_line(LOG_WARN, "iommu",
                 "the firmware keeps %llx-%llx for " BDF_FMT ", but calls it free memory: it does not get it",
                 (unsigned long long)region->base, (unsigned long long)region->limit, BDF_ARGS(bdf));
        return STATUS_OK;
    }
    enum status status = map_identity(d, region->base, region->limit + 1);
    if (status == ERR_RANGE) {
        log_line(LOG_WARN, "iommu", "%llx-%llx, which the firmware keeps for " BDF_FMT ", cannot be mapped",
                 (unsigned long long)region->base, (unsigned long long)region->limit, BDF_ARGS(bdf));
        return STATUS_OK;
    }
    if (status == STATUS_OK && !d->attached) {
        status = vtd_context_set(unit, bdf, d);
        d->attached = 1;
        d->users[unit->index] = 1;
    }
    if (status != STATUS_OK)
        SAY("no memory for what the firmware keeps for " BDF_FMT, BDF_ARGS(bdf));
    return status;
}

/* A device, or with a bridge everything that is below it. */
static enum status reserve_below(struct iommu *iommu, const struct pci_config *config,
                                 const struct vtd_scope *scope, const struct acpi_dmar_region *region,
                                 char *why, size_t size)
{
    enum status status = reserve_for(iommu, config, scope->bdf, region, why, size);
    for (unsigned bus = scope->first_bus; bus && bus <= scope->last_bus; bus++)
        for (unsigned devfn = 0; devfn < DEVFNS && status == STATUS_OK; devfn++) {
            uint16_t bdf = (uint16_t)(bus << 8 | devfn);
            if (config->read(config->ctx, bdf, PCI_REG_ID, 4) != PCI_ID_NONE)
                status = reserve_for(iommu, config, bdf, region, why, size);
        }
    return status;
}

static enum status reserve_all(struct iommu *iommu, const struct acpi_dmar *dmar,
                               const struct pci_config *config, char *why, size_t size)
{
    for (uint32_t i = 0; i < dmar->region_count; i++) {
        const struct acpi_dmar_region *region = &dmar->regions[i];
        struct vtd_scope scopes[REGION_MAX];
        unsigned count;
        if (region->segment != 0)
            continue;
        enum status status = vtd_scopes_resolve(config, dmar, region->scopes, 0, scopes, REGION_MAX, &count);
        if (status != STATUS_OK)
            SAY("the firmware keeps %llx-%llx for more devices than Bulkhead can serve",
                (unsigned long long)region->base, (unsigned long long)region->limit);
        for (unsigned k = 0; status == STATUS_OK && k < count; k++)
            status = reserve_below(iommu, config, &scopes[k], region, why, size);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---- start-up ---- */

/* What all units can do is what domains use: any of them may have to walk any domain's tables. */
static enum status agree(struct iommu *iommu, const struct acpi_dmar *dmar, char *why, size_t size)
{
    static const uint8_t levels[] = {4, 3, 5};
    uint64_t caps = UINT64_MAX, ecaps = UINT64_MAX;
    unsigned mgaw = 63, nd = 6;
    for (uint32_t i = 0; i < iommu->unit_count; i++) {
        const struct vtd_unit *unit = iommu->units[i];
        caps &= unit->cap;
        ecaps &= unit->ecap;
        mgaw = VTD_CAP_MGAW(unit->cap) < mgaw ? (unsigned)VTD_CAP_MGAW(unit->cap) : mgaw;
        nd = VTD_CAP_ND(unit->cap) < nd ? (unsigned)VTD_CAP_ND(unit->cap) : nd;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(levels) && !iommu->levels; i++)
        if (VTD_CAP_SAGAW(caps) >> (levels[i] - 2) & 1)
            iommu->levels = levels[i];
    if (!iommu->levels) {
        SAY("the VT-d units have no format of tables in common");
        return ERR_UNSUPPORTED;
    }
    unsigned width = PAGE_SHIFT + 9u * iommu->levels;
    iommu->width = (uint8_t)(mgaw + 1 < width ? mgaw + 1 : width);
    uint64_t ids = BIT(4 + 2 * nd) - 1;
    iommu->max_id = (uint16_t)(ids < IOMMU_MAX_DOMAINS ? ids : IOMMU_MAX_DOMAINS);
    iommu->coherent = ecaps & VTD_ECAP_C;
    iommu->has_2m = caps & VTD_CAP_2M;
    iommu->has_1g = iommu->has_2m && (caps & VTD_CAP_1G); /* one is split into the other */
    iommu->can_remap = dmar->can_remap_interrupts && (ecaps & VTD_ECAP_IR);
    iommu->eim = iommu->can_remap && (ecaps & VTD_ECAP_EIM) && iommu->env->x2apic;
    return STATUS_OK;
}

/* One unit of the table, with the functions that it has. */
static enum status add_unit(struct iommu *iommu, const struct acpi_dmar *dmar,
                            const struct acpi_dmar_unit *at, const struct pci_config *config, char *why,
                            size_t size)
{
    unsigned count = 0;
    enum status status = STATUS_OK;
    if (at->segment == 0) /* of other segments it blocks what is behind it */
        status = vtd_scopes_resolve(config, dmar, at->scopes, (uint8_t)iommu->unit_count,
                                    iommu->scopes + iommu->scope_count,
                                    (unsigned)(SCOPES_MAX - iommu->scope_count), &count);
    if (status != STATUS_OK) {
        SAY("the DMAR table names more devices than Bulkhead can keep");
        return status;
    }
    status = vtd_unit_probe(iommu, at, (uint8_t)iommu->unit_count, why, size);
    if (status == ERR_NOT_FOUND && at->segment == 0 && !at->all && count == 0) {
        /* The one of a graphics adapter that is switched off, for example. */
        log_line(LOG_WARN, "iommu", "%s, and has no device: it is left out", why);
        return STATUS_OK;
    }
    if (status != STATUS_OK)
        return status;
    if (at->segment == 0)
        vtd_scopes_ioapics(dmar, at->scopes, (uint8_t)iommu->unit_count, iommu->scopes + iommu->scope_count,
                           (unsigned)(SCOPES_MAX - iommu->scope_count), &count);
    iommu->scope_count += count;
    iommu->unit_count++;
    return STATUS_OK;
}

/* Everything but switching on. */
static enum status prepare(struct iommu *iommu, const struct acpi_dmar *dmar, const struct pci_config *config,
                           char *why, size_t size)
{
    hpa_t page;
    iommu->scopes = (struct vtd_scope *)vtd_page(iommu, &page);
    iommu->reserved = iommu->scopes ? (struct iommu_reserved *)vtd_page(iommu, &page) : NULL;
    if (!iommu->reserved) {
        SAY("no memory for the IOMMU's lists");
        return ERR_NO_MEMORY;
    }
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < dmar->unit_count && status == STATUS_OK; i++)
        status = add_unit(iommu, dmar, &dmar->units[i], config, why, size);
    if (status == STATUS_OK && iommu->unit_count == 0) {
        SAY("no VT-d unit answers");
        status = ERR_NOT_FOUND;
    }
    if (status == STATUS_OK)
        status = agree(iommu, dmar, why, size);
    return status == STATUS_OK ? reserve_all(iommu, dmar, config, why, size) : status;
}

static void report(const struct iommu *iommu)
{
    for (uint32_t i = 0; i < iommu->unit_count; i++)
        log_line(LOG_DEBUG, "iommu", "unit %llx: CAP %llx, ECAP %llx, GSTS was %x%s",
                 (unsigned long long)iommu->units[i]->base.v, (unsigned long long)iommu->units[i]->cap,
                 (unsigned long long)iommu->units[i]->ecap, iommu->units[i]->left_on,
                 iommu->units[i]->left_on & VTD_GCMD_TE ? ": translation is taken over from the firmware"
                                                        : "");
    for (uint32_t i = 0; i < iommu->reserved_count; i++)
        log_line(LOG_INFO, "iommu", BDF_FMT " keeps what the firmware reserved for it%s",
                 BDF_ARGS(iommu->reserved[i].bdf),
                 iommu->reserved[i].relaxable ? ", until it is given away" : ", and cannot be given away");
}

enum status iommu_init(struct iommu *iommu, const struct acpi_dmar *dmar, const struct pci_config *config,
                       const struct iommu_env *env, char *why, size_t size)
{
    memset(iommu, 0, sizeof(*iommu));
    iommu->env = env;
    if (dmar->unit_count == 0 || dmar->unit_count > IOMMU_MAX_UNITS) {
        SAY("the DMAR table has no unit");
        return ERR_INVALID;
    }
    enum status status = prepare(iommu, dmar, config, why, size);
    for (uint32_t i = 0; i < iommu->unit_count && status == STATUS_OK; i++)
        status = vtd_unit_start(iommu->units[i], why, size);
    iommu->ready = status == STATUS_OK;
    if (iommu->ready)
        report(iommu);
    return status;
}
