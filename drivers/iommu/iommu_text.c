/* What the prompt says about the IOMMUs. */
#include "drivers/iommu/iommu.h"
#include "drivers/iommu/vtd.h"
#include "hv/lib/fmt.h"

#define BUSES  256u
#define DEVFNS 256u

#define LINE(...) fmt_format(line, size, __VA_ARGS__)

static const char *yes(bool on)
{
    return on ? "yes" : "no";
}

static void unit_line(const struct vtd_unit *unit, uint32_t step, char *line, size_t size)
{
    unsigned long long cap = unit->cap, ecap = unit->ecap;
    if (step == 0)
        LINE("unit %u at %llx, segment %u%s%s: %llu faults, %llu times some were lost%s", unit->index,
             (unsigned long long)unit->base.v, unit->segment,
             unit->all ? ", all that others do not have" : "",
             unit->left_on & VTD_GCMD_TE ? ", was left on by the firmware" : "",
             (unsigned long long)unit->faults, (unsigned long long)unit->lost,
             unit->broken ? "; DOES NOT ANSWER" : "");
    else
        LINE("  CAP %llx, ECAP %llx: addresses of %u bits, coherent %s, caching mode %s, write buffer %s, "
             "%u fault registers",
             cap, ecap, (unsigned)VTD_CAP_MGAW(cap) + 1, yes(ecap & VTD_ECAP_C), yes(cap & VTD_CAP_CM),
             yes(cap & VTD_CAP_RWBF), (unsigned)VTD_CAP_NFR(cap) + 1);
}

static void summary(const struct iommu *iommu, char *line, size_t size)
{
    LINE("%u of %u domains (%u bits, %u levels%s%s), %u interrupts (%s), %llu pages of tables without the "
         "domains'",
         iommu->domains, iommu->max_id, iommu->width, iommu->levels, iommu->has_2m ? ", 2 MiB" : "",
         iommu->has_1g ? ", 1 GiB" : "", iommu->interrupts,
         !iommu->can_remap ? "not remapped"
         : iommu->eim      ? "x2APIC"
                           : "xAPIC",
         (unsigned long long)iommu->pages);
}

/* The n-th function of a unit that is in a domain; *n counts down. */
static bool member_line(const struct iommu *iommu, struct vtd_unit *unit, uint32_t *n, char *line,
                        size_t size)
{
    for (unsigned bus = 0; bus < BUSES; bus++) {
        const uint64_t *entry = vtd_context(unit, (uint16_t)(bus << 8));
        for (unsigned devfn = 0; entry && devfn < DEVFNS; devfn++, entry += 2) {
            uint16_t bdf = (uint16_t)(bus << 8 | devfn);
            if (!(entry[0] & VTD_ENTRY_P) || (*n)--)
                continue;
            bool firmware = false;
            for (uint32_t i = 0; i < iommu->reserved_count; i++)
                firmware |= iommu->reserved[i].domain.id == VTD_CONTEXT_ID(entry[1]);
            LINE("  " BDF_FMT " is in domain %u%s", BDF_ARGS(bdf), VTD_CONTEXT_ID(entry[1]),
                 firmware ? ": what the firmware reserved for it" : "");
            return true;
        }
    }
    return false;
}

static bool interrupt_line(struct vtd_unit *unit, bool eim, uint32_t *n, char *line, size_t size)
{
    for (uint32_t i = 0; i < VTD_IRTES; i++) {
        if (!(unit->irte_used[i / 64] >> (i % 64) & 1) || (*n)--)
            continue;
        uint64_t low = unit->irtes[2 * i];
        uint16_t bdf = VTD_IRTE_SID(unit->irtes[2 * i + 1]);
        if (low & VTD_IRTE_P)
            LINE("  interrupt %u of " BDF_FMT ": vector %02x, APIC id %u", i, BDF_ARGS(bdf),
                 VTD_IRTE_VECTOR_OF(low), eim ? VTD_IRTE_DST_OF(low) : VTD_IRTE_DST_OF(low) >> 8);
        else
            LINE("  interrupt %u of " BDF_FMT ": masked", i, BDF_ARGS(bdf));
        return true;
    }
    return false;
}

bool iommu_line(struct iommu *iommu, uint32_t step, char *line, size_t size)
{
    if (!iommu_present(iommu)) {
        LINE("no IOMMU is in use: no device can be given to a VM");
        return step == 0;
    }
    if (step < 2 * iommu->unit_count) {
        unit_line(iommu->units[step / 2], step % 2, line, size);
        return true;
    }
    step -= 2 * iommu->unit_count;
    if (step == 0) {
        summary(iommu, line, size);
        return true;
    }
    step--;
    bool found = false;
    for (uint32_t i = 0; i < iommu->unit_count && !found; i++) {
        spin_lock(&iommu->units[i]->lock);
        found = member_line(iommu, iommu->units[i], &step, line, size);
        spin_unlock(&iommu->units[i]->lock);
    }
    for (uint32_t i = 0; i < iommu->unit_count && !found; i++) {
        spin_lock(&iommu->units[i]->lock);
        found = interrupt_line(iommu->units[i], iommu->eim, &step, line, size);
        spin_unlock(&iommu->units[i]->lock);
    }
    return found;
}
