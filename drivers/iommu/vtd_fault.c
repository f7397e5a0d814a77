/* Faults (VT-d specification 4.1, chapter 7 and 11.4.7): a ring of recording registers, at least one. They
 * are polled. A register whose F bit is set is not written again, so what comes meanwhile is lost, and PFO
 * says so. */
#include "drivers/iommu/vtd.h"

#define REASON_INTERRUPT_FIRST 0x20u
#define REASON_INTERRUPT_LAST  0x26u

const char *iommu_reason_text(uint8_t reason)
{
    /* 7.1.3 table 25, and 5.1.4.1 */
    static const struct {
        uint8_t reason;
        const char *text;
    } rows[] = {{0x1, "belongs to nobody"}, /* root entry not present */
                {0x2, "belongs to nobody"}, /* context entry not present */
                {0x3, "context entry not valid"},
                {0x4, "address beyond what the unit translates"},
                {0x5, "no mapping for writes"},
                {0x6, "no mapping for reads"},
                {0x7, "page table not accessible"},
                {0x8, "root table not accessible"},
                {0x9, "context table not accessible"},
                {0xa, "root entry has reserved bits"},
                {0xb, "context entry has reserved bits"},
                {0xc, "page table entry has reserved bits"},
                {0xd, "translated request, which nobody may make"},
                {0xe, "mapped to the interrupt range"},
                {0x20, "reserved bits in the message"},
                {0x21, "no such interrupt"},
                {0x22, "interrupt that nobody gave it"},
                {0x23, "interrupt table not accessible"},
                {0x24, "interrupt entry has reserved bits"},
                {0x25, "message of the old format"},
                {0x26, "interrupt of another function"}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].reason == reason)
            return rows[i].text;
    return "reason not known";
}

static struct iommu_fault decode(uint64_t low, uint64_t high)
{
    struct iommu_fault fault = {.bdf = VTD_FRCD_SID(high),
                                .reason = VTD_FRCD_REASON(high),
                                .write = !(high & VTD_FRCD_READ),
                                .address = low & ~PAGE_MASK};
    fault.interrupt = fault.reason >= REASON_INTERRUPT_FIRST && fault.reason <= REASON_INTERRUPT_LAST;
    if (fault.interrupt) {
        fault.address = bits_get(low, 63, 48);
        fault.write = false;
    }
    return fault;
}

/* The unit's lock is held. */
static unsigned poll_unit(struct vtd_unit *unit, struct iommu_fault *out, unsigned max, bool *lost)
{
    uint32_t status = mmio_read32(&unit->regs, VTD_FSTS);
    unsigned count = (unsigned)VTD_CAP_NFR(unit->cap) + 1, got = 0;
    if (!(status & (VTD_FSTS_PPF | VTD_FSTS_PFO)) || status == UINT32_MAX)
        return 0;
    for (unsigned i = 0, at = VTD_FSTS_FRI(status) % count; i < count && got < max;
         i++, at = (at + 1) % count) {
        uint64_t reg = VTD_CAP_FRO(unit->cap) * 16 + at * VTD_FRCD_BYTES;
        uint64_t high = mmio_read64(&unit->regs, reg + 8);
        if (!(high & VTD_FRCD_F))
            continue;
        out[got++] = decode(mmio_read64(&unit->regs, reg), high);
        mmio_write32(&unit->regs, reg + VTD_FRCD_F_OFFSET, VTD_FRCD_F_CLEAR);
    }
    unit->faults += got;
    if (status & VTD_FSTS_PFO) {
        mmio_write32(&unit->regs, VTD_FSTS, VTD_FSTS_PFO); /* after the registers were emptied */
        unit->lost++;
        if (lost)
            *lost = true;
    }
    return got;
}

unsigned iommu_poll_faults(struct iommu *iommu, struct iommu_fault *out, unsigned max, bool *lost)
{
    unsigned got = 0;
    if (lost)
        *lost = false;
    for (uint32_t i = 0; i < iommu->unit_count && got < max; i++) {
        struct vtd_unit *unit = iommu->units[i];
        if (!spin_trylock(&unit->lock))
            continue;
        got += poll_unit(unit, out + got, max - got, lost);
        spin_unlock(&unit->lock);
    }
    return got;
}
