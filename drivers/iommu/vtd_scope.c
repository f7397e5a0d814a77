/* Which unit has which function (VT-d specification 4.1, 8.3.1). Paths go through bridges, whose secondary
 * bus is looked up in their configuration space, because the firmware's bus numbers need not be those of now.
 */
#include "drivers/iommu/vtd.h"

static bool present(const struct pci_config *config, uint16_t bdf)
{
    uint32_t id = config->read(config->ctx, bdf, PCI_REG_ID, 4);
    return id != PCI_ID_NONE && id != 0;
}

/* Buses behind a bridge; false: it is none, or nothing is behind it. */
static bool buses_below(const struct pci_config *config, uint16_t bdf, uint8_t *first, uint8_t *last)
{
    uint32_t type = config->read(config->ctx, bdf, PCI_REG_HEADER, 4) >> 16 & PCI_HEADER_TYPE;
    uint32_t buses = config->read(config->ctx, bdf, PCI_REG_BUSES, 4);
    *first = (uint8_t)(buses >> 8);
    *last = (uint8_t)(buses >> 16);
    /* A bus below has a higher number: this also bounds every walk. */
    return type == 1 && *first > BDF_BUS(bdf) && *last >= *first;
}

static bool resolve(const struct pci_config *config, const struct acpi_dmar_scope *scope,
                    struct vtd_scope *out)
{
    uint8_t bus = scope->bus, last;
    for (unsigned i = 0;; i++) {
        uint16_t bdf = PCI_BDF(bus, scope->path[i].device, scope->path[i].function);
        if (!present(config, bdf))
            return false;
        if (i + 1u < scope->depth) {
            if (!buses_below(config, bdf, &bus, &last))
                return false;
            continue;
        }
        *out = (struct vtd_scope){.bdf = bdf};
        if (scope->type == ACPI_DMAR_BRIDGE && !buses_below(config, bdf, &out->first_bus, &out->last_bus))
            out->first_bus = out->last_bus = 0;
        return true;
    }
}

enum status vtd_scopes_resolve(const struct pci_config *config, const struct acpi_dmar *dmar,
                               struct acpi_dmar_scopes scopes, uint8_t unit, struct vtd_scope *out,
                               unsigned capacity, unsigned *count)
{
    *count = 0;
    for (unsigned i = 0; i < scopes.count; i++) {
        const struct acpi_dmar_scope *scope = &dmar->scopes[scopes.first + i];
        struct vtd_scope found;
        if ((scope->type != ACPI_DMAR_ENDPOINT && scope->type != ACPI_DMAR_BRIDGE) ||
            !resolve(config, scope, &found))
            continue;
        if (*count == capacity)
            return ERR_NO_MEMORY;
        found.unit = unit;
        out[(*count)++] = found;
    }
    return STATUS_OK;
}

void vtd_scopes_ioapics(const struct acpi_dmar *dmar, struct acpi_dmar_scopes scopes, uint8_t unit,
                        struct vtd_scope *out, unsigned capacity, unsigned *count)
{
    for (unsigned i = 0; i < scopes.count && *count < capacity; i++) {
        const struct acpi_dmar_scope *scope = &dmar->scopes[scopes.first + i];
        if (scope->type == ACPI_DMAR_IOAPIC && scope->depth == 1)
            out[(*count)++] =
                (struct vtd_scope){.bdf = PCI_BDF(scope->bus, scope->path[0].device, scope->path[0].function),
                                   .unit = unit,
                                   .ioapic = true,
                                   .ioapic_id = scope->enumeration};
    }
}

bool iommu_ioapic(const struct iommu *iommu, uint8_t id, uint16_t *bdf)
{
    for (uint32_t i = 0; i < iommu->scope_count; i++) {
        if (!iommu->scopes[i].ioapic || iommu->scopes[i].ioapic_id != id)
            continue;
        *bdf = iommu->scopes[i].bdf;
        return true;
    }
    return false;
}

/* How closely a scope names a function: 0 not at all, else more for fewer buses. */
static unsigned closeness(const struct vtd_scope *scope, uint16_t bdf)
{
    if (scope->bdf == bdf)
        return 257;
    if (!scope->first_bus || BDF_BUS(bdf) < scope->first_bus || BDF_BUS(bdf) > scope->last_bus)
        return 0;
    return 256u - (unsigned)(scope->last_bus - scope->first_bus);
}

struct vtd_unit *vtd_unit_of(const struct iommu *iommu, uint16_t bdf)
{
    unsigned best = 0;
    struct vtd_unit *found = NULL;
    for (uint32_t i = 0; i < iommu->scope_count; i++) {
        const struct vtd_scope *scope = &iommu->scopes[i];
        unsigned close = closeness(scope, bdf);
        if (close > best) {
            best = close;
            found = iommu->units[scope->unit];
        }
    }
    for (uint32_t i = 0; !found && i < iommu->unit_count; i++)
        if (iommu->units[i]->all && iommu->units[i]->segment == 0)
            found = iommu->units[i];
    return found;
}
