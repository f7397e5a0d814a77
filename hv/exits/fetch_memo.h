/* Where the last instruction that was fetched for emulation lies, with the page-table entries that led there.
 * Guests reach their devices from few places, and walking their tables is the dearest part of an emulated
 * access. Nothing is believed: the entries are read again each time, through windows that still show them;
 * only the arithmetic of the walk is left out. */
#pragma once

#include "arch/x86/guest_walk.h"
#include "hv/cpu.h"

#define FETCH_MEMO_LEVELS 4u

/* Zero-filled: empty. */
struct fetch_memo {
    const struct cpu *cpu;    /* whose windows the pointers lie in */
    uint64_t windows_changed; /* its counter at that time */
    uint64_t page;            /* linear address */
    uint64_t cr0, cr3, cr4, efer;
    bool user;
    uint32_t levels; /* entries below; 0: empty */
    struct {
        const volatile uint64_t *at;
        uint64_t value;
    } entries[FETCH_MEMO_LEVELS];
    const uint8_t *code; /* the page's first byte */
};

/* The page of `linear`, by this CPU's windows; NULL: walk. Only for 64-bit mode (EFER.LMA). */
static inline const uint8_t *fetch_memo_find(const struct fetch_memo *m, const struct cpu *cpu,
                                             uint64_t linear, const struct walk_paging *paging, bool user)
{
    if (m->page != (linear & ~(uint64_t)PAGE_MASK) || m->windows_changed != cpu->windows_changed ||
        m->cpu != cpu || m->cr3 != paging->cr3 || m->cr0 != paging->cr0 || m->cr4 != paging->cr4 ||
        m->efer != paging->efer || m->user != user || m->levels == 0)
        return NULL;
    for (uint32_t i = 0; i < m->levels; i++) {
        if (*m->entries[i].at != m->entries[i].value)
            return NULL;
    }
    return m->code;
}

/* For the walk that fills it: fetch_memo_begin(), fetch_memo_entry() for each entry as it is read, and then
 * fetch_memo_end() with the window on the page. It stays empty when the walk read more than a plain one does
 * (its entries changed on the way), or when the windows of the entries did not all last. */
void fetch_memo_begin(struct fetch_memo *m, const struct cpu *cpu);
void fetch_memo_entry(struct fetch_memo *m, const volatile uint64_t *at, uint64_t value);
void fetch_memo_end(struct fetch_memo *m, const struct cpu *cpu, uint64_t linear, const uint8_t *code,
                    const struct walk_paging *paging, bool user);
