#include "tests/host/fake_vtd.h"

#include <stdlib.h>
#include <string.h>

#include "drivers/iommu/vtd_regs.h"

#define PERSISTENT (VTD_GCMD_TE | VTD_GCMD_QIE | VTD_GCMD_IRE | VTD_GCMD_CFI)
#define ONE_SHOTS  (VTD_GCMD_SRTP | VTD_GCMD_SIRTP | VTD_GCMD_WBF)
#define SIZE_BYTES (FAKE_VTD_PAGES * PAGE_SIZE)

static void breach(struct fake_vtd_unit *u, const char *what)
{
    if (!u->fake->breach)
        u->fake->breach = what;
}

/* ---- memory ---- */

static bool env_alloc(void *ctx, hpa_t *page)
{
    struct fake_vtd *f = ctx;
    for (uint32_t i = 0; i < FAKE_VTD_PAGES && f->in_use < f->limit; i++) {
        if (f->used[i])
            continue;
        f->used[i] = true;
        f->in_use++;
        memset(f->cpu[i], 0, PAGE_SIZE); /* memory still has what was there before */
        *page = hpa(FAKE_VTD_RAM + i * PAGE_SIZE);
        return true;
    }
    return false;
}

static uint64_t *env_table(void *ctx, hpa_t page)
{
    struct fake_vtd *f = ctx;
    if (page.v < FAKE_VTD_RAM || page.v >= FAKE_VTD_RAM + SIZE_BYTES)
        abort();
    return f->cpu[(page.v - FAKE_VTD_RAM) / PAGE_SIZE];
}

static void env_free(void *ctx, hpa_t page)
{
    struct fake_vtd *f = ctx;
    uint64_t i = (page.v - FAKE_VTD_RAM) / PAGE_SIZE;
    if (!f->used[i])
        abort();
    f->used[i] = false;
    f->in_use--;
    memset(f->cpu[i], 0xa5, PAGE_SIZE); /* who walks it now does not get far */
    memset(f->memory[i], 0xa5, PAGE_SIZE);
}

static void env_store(void *ctx, uint64_t *entry, uint64_t value)
{
    struct fake_vtd *f = ctx;
    f->stores++;
    *entry = value;
    if (f->changed)
        f->changed(f->changed_ctx);
}

static void env_write_back(void *ctx, const void *at, size_t size)
{
    struct fake_vtd *f = ctx;
    uint64_t from = align_down((uint64_t)((const char *)at - (const char *)f->cpu), 64);
    uint64_t end = align_up((uint64_t)((const char *)at - (const char *)f->cpu) + size, 64);
    if (end > SIZE_BYTES)
        abort();
    memcpy((char *)f->memory + from, (char *)f->cpu + from, end - from);
    f->write_backs += (end - from) / 64;
    if (f->changed)
        f->changed(f->changed_ctx);
}

/* What a unit sees that does not wait for its write buffer. */
static uint64_t (*source(struct fake_vtd_unit *u))[512]
{
    return u->ecap & VTD_ECAP_C ? u->fake->cpu : u->fake->memory;
}

static void pass_buffer(struct fake_vtd_unit *u)
{
    for (uint32_t i = 0; u->buffered && i < FAKE_VTD_PAGES; i++)
        if (u->fake->used[i])
            memcpy(u->buffered[i], source(u)[i], PAGE_SIZE);
}

static uint64_t load(struct fake_vtd_unit *u, uint64_t at)
{
    if (at < FAKE_VTD_RAM || at - FAKE_VTD_RAM >= SIZE_BYTES || at % 8) {
        breach(u, "the unit was led out of the tables' memory");
        return 0;
    }
    uint64_t i = (at - FAKE_VTD_RAM) / 8;
    return (u->buffered ? u->buffered : source(u))[i / 512][i % 512];
}

/* The queue and the status word are coherent in every unit. */
static uint64_t *coherent(struct fake_vtd_unit *u, uint64_t at)
{
    if (at < FAKE_VTD_RAM || at - FAKE_VTD_RAM >= SIZE_BYTES)
        return NULL;
    return (uint64_t *)((char *)u->fake->cpu + (at - FAKE_VTD_RAM));
}

/* ---- caches ---- */

static void forget_contexts(struct fake_vtd_unit *u, bool all, bool by_id, uint16_t id, uint16_t bdf)
{
    for (uint32_t i = 0; i < FAKE_VTD_CACHE; i++) {
        struct fake_vtd_context *c = &u->contexts[i];
        if (all || (c->id == id && (by_id || c->bdf == bdf)))
            c->valid = false;
    }
}

static void forget_entries(struct fake_vtd_unit *u, bool all, uint16_t id, uint64_t from, uint64_t size)
{
    for (uint32_t i = 0; i < FAKE_VTD_CACHE; i++) {
        struct fake_vtd_entry *e = &u->entries[i];
        bool overlaps = size == 0 || (e->from < from + size && from < e->from + e->size);
        if (all || (e->id == id && overlaps))
            e->valid = false;
    }
}

static void forget_irtes(struct fake_vtd_unit *u, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count && i < 256; i++)
        u->irtes[i].valid = false;
}

void fake_vtd_evict(struct fake_vtd *f)
{
    for (uint32_t i = 0; i < f->unit_count; i++) {
        forget_contexts(&f->units[i], true, false, 0, 0);
        forget_entries(&f->units[i], true, 0, 0, 0);
        forget_irtes(&f->units[i], 0, 256);
    }
}

/* ---- the queue ---- */

static void iotlb(struct fake_vtd_unit *u, uint64_t low, uint64_t high)
{
    uint16_t id = (uint16_t)bits_get(low, 31, 16);
    unsigned order = high & 0x3f;
    if (!!(low & VTD_IOTLB_DR) != !!(u->cap & VTD_CAP_DRD) ||
        !!(low & VTD_IOTLB_DW) != !!(u->cap & VTD_CAP_DWD))
        breach(u, "pending accesses are not drained, or draining is asked for where there is none");
    if (high & 0x40)
        breach(u, "a flush keeps table pointers");
    switch (low >> 4 & 3) {
    case 1:
        forget_entries(u, true, 0, 0, 0);
        break;
    case 2:
        forget_entries(u, false, id, 0, 0);
        break;
    case 3:
        if (!(u->cap & VTD_CAP_PSI) || order > VTD_CAP_MAMV(u->cap) ||
            (high & ~PAGE_MASK & ((PAGE_SIZE << order) - 1)))
            breach(u, "a page flush that the unit cannot do");
        forget_entries(u, false, id, high & ~PAGE_MASK, PAGE_SIZE << order);
        break;
    default:
        breach(u, "an IOTLB flush of no granularity");
    }
}

static void descriptor(struct fake_vtd_unit *u, uint64_t low, uint64_t high)
{
    uint64_t *status;
    pass_buffer(u); /* every invalidation does (6.8) */
    if (VTD_DESC_TYPE(low) != VTD_DESC_WAIT)
        u->flushes++;
    switch (VTD_DESC_TYPE(low)) {
    case VTD_DESC_CONTEXT:
        if ((low >> 4 & 3) == 0)
            breach(u, "a context flush of no granularity");
        forget_contexts(u, (low >> 4 & 3) == 1, (low >> 4 & 3) == 2, (uint16_t)bits_get(low, 31, 16),
                        (uint16_t)bits_get(low, 47, 32));
        break;
    case VTD_DESC_IOTLB:
        iotlb(u, low, high);
        break;
    case VTD_DESC_IEC:
        if (low & VTD_IEC_SELECT)
            forget_irtes(u, (uint32_t)bits_get(low, 47, 32), 1u << bits_get(low, 31, 27));
        else
            forget_irtes(u, 0, 256);
        break;
    case VTD_DESC_WAIT:
        u->waits++;
        status = coherent(u, high);
        if (!(low & VTD_WAIT_STATUS) || high % 4 || !status)
            breach(u, "a wait that nobody is told about");
        else
            memcpy(status, (const char *)&low + 4, 4);
        break;
    default:
        breach(u, "an unknown descriptor");
    }
}

static void run_queue(struct fake_vtd_unit *u)
{
    uint64_t bytes = PAGE_SIZE << (u->iqa & 7);
    while ((u->gsts & VTD_GCMD_QIE) && !u->hangs && u->iqh != u->iqt && !(u->fsts & VTD_FSTS_IQE)) {
        const uint64_t *slot = coherent(u, (u->iqa & ~PAGE_MASK) + u->iqh);
        if (u->queue_error || !slot) {
            u->fsts |= VTD_FSTS_IQE;
            return;
        }
        descriptor(u, slot[0], slot[1]);
        u->iqh = (u->iqh + 16) % bytes;
    }
}

/* ---- registers ---- */

static void one_shot(struct fake_vtd_unit *u, uint32_t bit)
{
    if (bit == VTD_GCMD_SRTP) {
        if ((u->gsts & VTD_GCMD_TE) && ((u->rtaddr ^ u->root) & VTD_RTADDR_TTM))
            breach(u, "another table format while translation is on");
        u->root = u->rtaddr;
        u->gsts |= VTD_GCMD_SRTP;
        if (u->cap & VTD_CAP_ESRTPS) {
            forget_contexts(u, true, false, 0, 0);
            forget_entries(u, true, 0, 0, 0);
        }
    } else if (bit == VTD_GCMD_SIRTP) {
        if ((u->gsts & VTD_GCMD_IRE) && ((u->irta ^ u->table) & VTD_IRTA_EIME))
            breach(u, "another interrupt mode while remapping is on");
        u->table = u->irta;
        u->gsts |= VTD_GCMD_SIRTP;
        if (u->cap & VTD_CAP_ESIRTPS)
            forget_irtes(u, 0, 256);
    } else if (u->cap & VTD_CAP_RWBF) {
        pass_buffer(u);
    } else {
        breach(u, "a write buffer flush where there is none");
    }
}

static void command(struct fake_vtd_unit *u, uint32_t value)
{
    uint32_t changed = ((value ^ u->gsts) & PERSISTENT) | (value & ONE_SHOTS);
    if (value & ~(PERSISTENT | ONE_SHOTS))
        breach(u, "GCMD bits that nobody needs");
    if (bits_count(changed) > 1)
        breach(u, "more than one command at once");
    if (changed & u->deaf) {
        u->gsts = (u->gsts & ~(changed & ONE_SHOTS)) | (changed & VTD_GCMD_WBF);
        return;
    }
    if (changed & ONE_SHOTS)
        one_shot(u, changed & ONE_SHOTS);
    if (changed & VTD_GCMD_QIE) {
        if (!(value & VTD_GCMD_QIE) && u->iqh != u->iqt)
            breach(u, "the queue was switched off while it was busy");
        if (value & VTD_GCMD_QIE)
            u->iqh = 0;
    }
    if ((changed & VTD_GCMD_TE) && !(value & VTD_GCMD_TE))
        u->translation_drops++;
    if ((changed & VTD_GCMD_IRE) && !(value & VTD_GCMD_IRE))
        u->remapping_drops++;
    if ((changed & VTD_GCMD_TE & value) && !(u->gsts & VTD_GCMD_SRTP))
        breach(u, "translation without a root table");
    if ((changed & VTD_GCMD_IRE & value) && !(u->gsts & VTD_GCMD_SIRTP))
        breach(u, "remapping without a table");
    u->gsts = (u->gsts & ~PERSISTENT) | (value & PERSISTENT);
    run_queue(u);
}

static uint64_t records_at(const struct fake_vtd_unit *u)
{
    return VTD_CAP_FRO(u->cap) * 16;
}

static uint32_t record_count(const struct fake_vtd_unit *u)
{
    return (uint32_t)VTD_CAP_NFR(u->cap) + 1;
}

/* The record and word that a register's offset is; NULL: none. */
static uint64_t *record_word(struct fake_vtd_unit *u, uint64_t offset)
{
    uint64_t at = offset - records_at(u);
    if (offset < records_at(u) || at / 16 >= record_count(u) || record_count(u) > FAKE_VTD_RECORDS)
        return NULL;
    return &u->records[at / 16][at / 8 % 2];
}

static uint32_t faults_status(const struct fake_vtd_unit *u)
{
    uint32_t first = 0, any = 0;
    for (uint32_t i = record_count(u); i--;) {
        uint32_t at = (u->next_record + i) % record_count(u);
        if (u->records[at][1] & VTD_FRCD_F) {
            first = at;
            any = VTD_FSTS_PPF;
        }
    }
    return u->fsts | any | first << 8;
}

static uint64_t reg_read(struct fake_vtd_unit *u, uint64_t offset)
{
    const uint64_t *word = record_word(u, offset);
    u->fake->now++; /* time passes while somebody polls */
    switch (offset) {
    case VTD_VER:
        return 0x10;
    case VTD_CAP:
        return u->cap;
    case VTD_ECAP:
        return u->ecap;
    case VTD_GSTS:
        return u->gsts;
    case VTD_RTADDR:
        return u->rtaddr;
    case VTD_FSTS:
        return faults_status(u);
    case VTD_FECTL:
        return u->fectl;
    case VTD_PMEN:
        return u->pmen;
    case VTD_IQH:
        return u->iqh;
    case VTD_IQT:
        return u->iqt;
    case VTD_IQA:
        return u->iqa;
    case VTD_IRTA:
        return u->irta;
    default:
        if (!word)
            breach(u, "a register that nobody needs was read");
        return word ? *word : 0;
    }
}

static uint32_t read32(void *ctx, uint64_t offset)
{
    struct fake_vtd_unit *u = ctx;
    return u->dead ? UINT32_MAX : (uint32_t)reg_read(u, offset);
}

static uint64_t read64(void *ctx, uint64_t offset)
{
    struct fake_vtd_unit *u = ctx;
    if (offset == VTD_GSTS || offset == VTD_FSTS || offset == VTD_PMEN || offset == VTD_VER)
        breach(u, "a 32-bit register was read as one of 64");
    return u->dead ? UINT64_MAX : reg_read(u, offset);
}

static void write32(void *ctx, uint64_t offset, uint32_t value)
{
    struct fake_vtd_unit *u = ctx;
    uint64_t *word = record_word(u, offset & ~7ull);
    if (u->dead)
        return;
    if (offset == VTD_GCMD) {
        command(u, value);
    } else if (offset == VTD_FSTS) {
        u->fsts &= ~(value & VTD_FSTS_CLEAR);
        run_queue(u);
    } else if (offset == VTD_FECTL) {
        u->fectl = value;
    } else if (offset == VTD_PMEN) {
        bool on = value & VTD_PMEN_EPM;
        u->pmen = (value & VTD_PMEN_EPM) | (on || (u->keeps_regions && u->pmen) ? VTD_PMEN_PRS : 0);
    } else if (word && offset % 16 == VTD_FRCD_F_OFFSET) {
        if (value & VTD_FRCD_F_CLEAR)
            *word &= ~VTD_FRCD_F;
    } else {
        breach(u, "a register that nobody needs was written");
    }
}

static void write64(void *ctx, uint64_t offset, uint64_t value)
{
    struct fake_vtd_unit *u = ctx;
    if (u->dead)
        return;
    if (offset == VTD_RTADDR) {
        u->rtaddr = value;
    } else if (offset == VTD_IRTA) {
        u->irta = value;
    } else if (offset == VTD_IQA) {
        if (u->gsts & VTD_GCMD_QIE)
            breach(u, "the queue was moved while it was on");
        u->iqa = value;
    } else if (offset == VTD_IQT) {
        if (value % 16 || value >= PAGE_SIZE << (u->iqa & 7))
            breach(u, "a tail outside of the queue");
        u->iqt = value;
        run_queue(u);
    } else {
        breach(u, "64 bits were written to a register of 32, or to none"); /* QEMU aborts */
    }
}

static bool env_map(void *ctx, hpa_t base, uint64_t size, struct mmio *out)
{
    struct fake_vtd *f = ctx;
    uint64_t i = (base.v - FAKE_VTD_BASE) / FAKE_VTD_STEP;
    if (base.v < FAKE_VTD_BASE || i >= f->unit_count || size > FAKE_VTD_STEP || f->units[i].map_refused)
        return false;
    *out = (struct mmio){&f->units[i], size, read32, write32, read64, write64};
    return true;
}

/* ---- devices ---- */

static void fault(struct fake_vtd_unit *u, uint16_t bdf, uint8_t reason, uint64_t low, bool write)
{
    uint64_t *record = u->records[u->next_record];
    if ((u->fsts & VTD_FSTS_PFO) || u->fake->peeking)
        return;
    if (record[1] & VTD_FRCD_F) {
        u->fsts |= VTD_FSTS_PFO;
        return;
    }
    record[0] = low;
    record[1] = VTD_FRCD_F | (write ? 0 : VTD_FRCD_READ) | (uint64_t)reason << 32 | bdf;
    u->next_record = (u->next_record + 1) % record_count(u);
}

static struct fake_vtd_context *find_context(struct fake_vtd_unit *u, uint16_t bdf)
{
    for (uint32_t i = 0; i < FAKE_VTD_CACHE && !u->fake->peeking; i++)
        if (u->contexts[i].valid && u->contexts[i].bdf == bdf)
            return &u->contexts[i];
    uint64_t root = load(u, (u->root & ~PAGE_MASK) + (bdf >> 8) * 16);
    uint64_t low = 0, high = 0;
    if (root & 1) {
        low = load(u, (root & VTD_ADDRESS) + (bdf & 0xff) * 16);
        high = load(u, (root & VTD_ADDRESS) + (bdf & 0xff) * 16 + 8);
    }
    bool present = low & 1;
    static struct fake_vtd_context peeked;
    struct fake_vtd_context *c =
        u->fake->peeking ? &peeked : &u->contexts[u->next_context++ % FAKE_VTD_CACHE];
    *c = (struct fake_vtd_context){.valid = present || (u->cap & VTD_CAP_CM),
                                   .bdf = bdf,
                                   .id = present ? (uint16_t)bits_get(high, 23, 8) : 0,
                                   .low = low,
                                   .high = high};
    return c;
}

static struct fake_vtd_entry *keep(struct fake_vtd_unit *u, struct fake_vtd_entry entry)
{
    static struct fake_vtd_entry peeked;
    struct fake_vtd_entry *e = u->fake->peeking ? &peeked : &u->entries[u->next_entry++ % FAKE_VTD_CACHE];
    *e = entry;
    e->valid = true;
    return e;
}

/* The translation of `iova` in the tables of `context`; from the caches, or walked. */
static struct fake_vtd_entry translate(struct fake_vtd_unit *u, const struct fake_vtd_context *context,
                                       uint64_t iova)
{
    unsigned level = (unsigned)(context->high & 7) + 2;
    uint64_t table = context->low & VTD_ADDRESS, access = 3;
    for (uint32_t i = 0; i < FAKE_VTD_CACHE && !u->fake->peeking; i++) {
        const struct fake_vtd_entry *e = &u->entries[i];
        if (!e->valid || e->id != context->id || iova - e->from >= e->size)
            continue;
        if (!e->level)
            return *e;
        if (e->level < level) {
            level = e->level;
            table = e->to;
            access = e->access;
        }
    }
    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        uint64_t entry = load(u, table + (iova >> shift) % 512 * 8), span = BIT(shift);
        access &= entry;
        struct fake_vtd_entry found = {.id = context->id, .from = align_down(iova, span), .size = span};
        if (!(entry & 3)) {
            found.absent = true;
            if (u->cap & VTD_CAP_CM)
                keep(u, found);
            return found;
        }
        bool large = entry & VTD_PTE_LARGE;
        if ((entry & ~(VTD_ADDRESS | VTD_PTE_LARGE | 3)) || (large && (level == 1 || level > 3)) ||
            (large && !(u->cap & (level == 2 ? VTD_CAP_2M : VTD_CAP_1G))) ||
            (large && (entry & VTD_ADDRESS & (span - 1))))
            breach(u, "a page table entry with reserved bits");
        found.access = access;
        found.to = entry & VTD_ADDRESS;
        if (level == 1 || large)
            return *keep(u, found);
        if ((entry & 3) != 3)
            breach(u, "a table pointer without R and W");
        found.level = (uint8_t)(level - 1);
        table = keep(u, found)->to;
    }
}

bool fake_vtd_dma(struct fake_vtd *f, unsigned unit, uint16_t bdf, uint64_t iova, bool write, uint64_t *at)
{
    struct fake_vtd_unit *u = &f->units[unit];
    *at = iova;
    if (u->pmen & VTD_PMEN_PRS)
        return false;
    if (!(u->gsts & VTD_GCMD_TE))
        return true;
    const struct fake_vtd_context *c = find_context(u, bdf);
    unsigned aw = c->high & 7;
    if (!(c->low & 1)) {
        fault(u, bdf, 2, iova & ~PAGE_MASK, write);
        return false;
    }
    if ((c->low & 0xc) || !(VTD_CAP_SAGAW(u->cap) >> aw & 1) || !c->id)
        breach(u, "a context entry that is not valid");
    if (iova >> (VTD_CAP_MGAW(u->cap) + 1) || iova >> (30 + 9 * aw)) {
        fault(u, bdf, 4, iova & ~PAGE_MASK, write);
        return false;
    }
    struct fake_vtd_entry e = translate(u, c, iova);
    if (e.absent || !(e.access & (write ? 2 : 1))) {
        fault(u, bdf, write ? 5 : 6, iova & ~PAGE_MASK, write);
        return false;
    }
    *at = e.to + (iova - e.from);
    if (*at - IOMMU_MSI_BASE < IOMMU_MSI_SIZE || iova - IOMMU_MSI_BASE < IOMMU_MSI_SIZE) {
        breach(u, "the interrupt range is mapped");
        return false;
    }
    return true;
}

bool fake_vtd_peek(struct fake_vtd *f, unsigned unit, uint16_t bdf, uint64_t iova, bool write, uint64_t *at)
{
    f->peeking = true;
    bool passes = fake_vtd_dma(f, unit, bdf, iova, write, at);
    f->peeking = false;
    return passes;
}

static struct fake_vtd_irte find_irte(struct fake_vtd_unit *u, uint32_t index)
{
    struct fake_vtd_irte *kept = &u->irtes[index];
    if (!kept->valid) {
        kept->low = load(u, (u->table & ~PAGE_MASK) + index * 16);
        kept->high = load(u, (u->table & ~PAGE_MASK) + index * 16 + 8);
        kept->valid = (kept->low & 1) || (u->cap & VTD_CAP_CM);
    }
    return *kept;
}

bool fake_vtd_interrupt(struct fake_vtd *f, unsigned unit, uint16_t bdf, uint64_t address, uint32_t data,
                        uint32_t *apic_id, uint8_t *vector)
{
    struct fake_vtd_unit *u = &f->units[unit];
    bool eime = u->table & VTD_IRTA_EIME;
    *apic_id = (uint32_t)bits_get(address, 19, 12);
    *vector = (uint8_t)data;
    if (address - IOMMU_MSI_BASE >= IOMMU_MSI_SIZE)
        abort();
    if (!(u->gsts & VTD_GCMD_IRE))
        return true;
    if (!(address & BIT(4))) {
        if ((u->gsts & VTD_GCMD_CFI) && !eime)
            return true;
        fault(u, bdf, 0x25, 0, false);
        return false;
    }
    uint32_t index = (uint32_t)(bits_get(address, 19, 5) | (address >> 2 & 1) << 15);
    if (address & BIT(3))
        index += data & 0xffff;
    if (index >= 2u << (u->table & 0xf)) {
        fault(u, bdf, 0x21, (uint64_t)index << 48, false);
        return false;
    }
    struct fake_vtd_irte e = find_irte(u, index);
    if (!(e.low & VTD_IRTE_P)) {
        if (!(e.low & VTD_IRTE_FPD))
            fault(u, bdf, 0x22, (uint64_t)index << 48, false);
        return false;
    }
    if ((e.low & 0xff00fffc) || (e.high >> 20) || (!eime && (e.low >> 32 & 0xffff00ff)))
        breach(u, "an interrupt entry of another kind than fixed, physical, edge");
    if ((e.high & VTD_IRTE_SVT) != VTD_IRTE_SVT_SID)
        breach(u, "an interrupt entry that anybody may use");
    if ((uint16_t)e.high != bdf) {
        fault(u, bdf, 0x26, (uint64_t)index << 48, false);
        return false;
    }
    *apic_id = eime ? (uint32_t)(e.low >> 32) : (uint32_t)(e.low >> 40 & 0xff);
    *vector = (uint8_t)(e.low >> 16);
    return true;
}

/* ---- the machine around it ---- */

static uint64_t env_now(void *ctx)
{
    return ++((struct fake_vtd *)ctx)->now;
}

static bool env_is_guest(void *ctx, uint64_t base, uint64_t size)
{
    const struct fake_vtd *f = ctx;
    return base < f->guest_base + f->guest_size && base + size > f->guest_base;
}

static uint32_t config_read(void *ctx, uint16_t bdf, uint32_t offset, unsigned size)
{
    const struct fake_vtd *f = ctx;
    if (size != 4)
        abort();
    for (uint32_t i = 0; i < f->device_count; i++) {
        const struct fake_vtd_device *d = &f->devices[i];
        if (d->bdf != bdf)
            continue;
        switch (offset) {
        case PCI_REG_ID:
            return 0x10c98086;
        case PCI_REG_CLASS:
            return d->class_code << 8;
        case PCI_REG_HEADER:
            return (uint32_t)d->header << 16;
        case PCI_REG_BUSES:
            return (uint32_t)d->subordinate << 16 | (uint32_t)d->secondary << 8;
        default:
            abort();
        }
    }
    return PCI_ID_NONE;
}

static void config_write(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value)
{
    (void)ctx, (void)bdf, (void)offset, (void)size, (void)value;
    abort(); /* an IOMMU has nothing to write there */
}

void fake_vtd_init(struct fake_vtd *f, uint32_t count, uint64_t cap, uint64_t ecap)
{
    memset(f, 0, sizeof(*f));
    f->cpu = calloc(FAKE_VTD_PAGES, PAGE_SIZE);
    f->memory = malloc(SIZE_BYTES);
    if (!f->cpu || !f->memory || count > FAKE_VTD_UNITS)
        abort();
    memset(f->memory, 0xa5, SIZE_BYTES); /* entries that are there, and lead nowhere */
    f->limit = FAKE_VTD_PAGES;
    f->unit_count = count;
    f->pages = (struct pt_env){f, env_alloc, env_free, env_table, env_store};
    f->env = (struct iommu_env){.ctx = f,
                                .pages = &f->pages,
                                .map = env_map,
                                .write_back = env_write_back,
                                .now_us = env_now,
                                .is_guest_memory = env_is_guest,
                                .x2apic = true};
    f->config = (struct pci_config){f, config_read, config_write};
    for (uint32_t i = 0; i < count; i++) {
        f->units[i].fake = f;
        f->units[i].cap = cap;
        f->units[i].ecap = ecap;
    }
    fake_vtd_rewire(f);
}

void fake_vtd_rewire(struct fake_vtd *f)
{
    for (uint32_t i = 0; i < f->unit_count; i++) {
        struct fake_vtd_unit *u = &f->units[i];
        if (!(u->cap & VTD_CAP_RWBF) || u->buffered)
            continue;
        u->buffered = malloc(SIZE_BYTES);
        if (!u->buffered)
            abort();
        memset(u->buffered, 0x33, SIZE_BYTES);
    }
}

void fake_vtd_free(struct fake_vtd *f)
{
    for (uint32_t i = 0; i < f->unit_count; i++)
        free(f->units[i].buffered);
    free(f->cpu);
    free(f->memory);
    memset(f, 0, sizeof(*f));
}

void fake_vtd_add_device(struct fake_vtd *f, uint16_t bdf, uint32_t class_code)
{
    if (f->device_count == FAKE_VTD_DEVICES)
        abort();
    f->devices[f->device_count++] = (struct fake_vtd_device){.bdf = bdf, .class_code = class_code};
}

void fake_vtd_add_bridge(struct fake_vtd *f, uint16_t bdf, uint8_t secondary, uint8_t subordinate)
{
    fake_vtd_add_device(f, bdf, 0x060400);
    struct fake_vtd_device *d = &f->devices[f->device_count - 1];
    d->header = 1;
    d->secondary = secondary;
    d->subordinate = subordinate;
}

void fake_vtd_dmar(const struct fake_vtd *f, struct acpi_dmar *dmar)
{
    memset(dmar, 0, sizeof(*dmar));
    dmar->width = 48;
    dmar->can_remap_interrupts = true;
    dmar->unit_count = f->unit_count;
    for (uint32_t i = 0; i < f->unit_count; i++)
        dmar->units[i] = (struct acpi_dmar_unit){.base = hpa(FAKE_VTD_BASE + i * FAKE_VTD_STEP),
                                                 .all = i + 1 == f->unit_count};
}

uint16_t fake_vtd_scope(struct acpi_dmar *dmar, uint8_t type, uint8_t bus, uint8_t depth, const uint8_t *path)
{
    struct acpi_dmar_scope *scope = &dmar->scopes[dmar->scope_count];
    *scope = (struct acpi_dmar_scope){.type = type, .bus = bus, .depth = depth};
    for (unsigned i = 0; i < depth; i++) {
        scope->path[i].device = path[2 * i];
        scope->path[i].function = path[2 * i + 1];
    }
    return (uint16_t)dmar->scope_count++;
}
