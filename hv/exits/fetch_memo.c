#include "hv/exits/fetch_memo.h"
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"

/* SDM volume 3, 4.5: with these bits in every entry, a walk of the same entries ends the same way and writes
 * nothing. */
#define ENTRY_USED (BIT(0) | BIT(5)) /* present, accessed */

void fetch_memo_begin(struct fetch_memo *m, const struct cpu *cpu)
{
    m->cpu = cpu;
    m->windows_changed = cpu->windows_changed;
    m->levels = 0;
}

void fetch_memo_entry(struct fetch_memo *m, const volatile uint64_t *at, uint64_t value)
{
    if (m->levels < FETCH_MEMO_LEVELS) {
        m->entries[m->levels].at = at;
        m->entries[m->levels].value = value;
    }
    m->levels++;
}

void fetch_memo_end(struct fetch_memo *m, const struct cpu *cpu, uint64_t linear, const uint8_t *code,
                    const struct walk_paging *paging, bool user)
{
    bool usable = m->levels <= FETCH_MEMO_LEVELS && (paging->efer & EFER_LMA) && (paging->cr0 & CR0_PG);
    for (uint32_t i = 0; usable && i < m->levels; i++)
        usable = (m->entries[i].value & ENTRY_USED) == ENTRY_USED;
    /* The first walk brings the windows here, so the counter moves in it; the next one finds them in place.
     */
    if (!usable || m->windows_changed != cpu->windows_changed) {
        m->levels = 0;
        return;
    }
    m->page = linear & ~(uint64_t)PAGE_MASK;
    m->cr0 = paging->cr0;
    m->cr3 = paging->cr3;
    m->cr4 = paging->cr4;
    m->efer = paging->efer;
    m->user = user;
    m->code = code - (linear & PAGE_MASK);
}
