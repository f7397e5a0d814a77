#include "hv/guest/pci_place.h"

#define ABOVE_ALIGN (1ull << 30)

void pci_place_windows(const struct guest_layout *layout, unsigned phys_bits,
                       struct vpci_window windows[VPCI_WINDOWS])
{
    windows[PCI_PLACE_LOW] = (struct vpci_window){GUEST_PCI_HOLE, GUEST_PCI_LOW_END - 1};
    windows[PCI_PLACE_HIGH] = (struct vpci_window){GUEST_PCI_HIGH, GUEST_PCI_HIGH_END - 1};
    uint64_t first = (layout->high_end + ABOVE_ALIGN - 1) & ~(ABOVE_ALIGN - 1);
    windows[PCI_PLACE_ABOVE] = (struct vpci_window){first, (1ull << phys_bits) - 1};
}

/* The place behind the placed BAR that overlaps [at, at+size), or `at` when none does. */
static uint64_t behind_overlap(struct vpci_setup *const *setups, uint32_t count, uint64_t at, uint64_t size)
{
    for (uint32_t i = 0; i < count; i++)
        for (unsigned b = 0; b < PCI_BARS; b++) {
            uint64_t other = setups[i]->bars[b].gpa, other_size = vpci_bar_size(setups[i], b);
            if (other && other_size && at < other + other_size && other < at + size)
                return other + other_size;
        }
    return at;
}

/* The lowest free place in a window; 0: none. */
static uint64_t find_place(struct vpci_setup *const *setups, uint32_t count, const struct vpci_window *w,
                           uint64_t size)
{
    uint64_t at = w->first;
    for (;;) {
        uint64_t aligned = (at + size - 1) & ~(size - 1);
        if (aligned < at || aligned > w->last || size - 1 > w->last - aligned)
            return 0;
        at = behind_overlap(setups, count, aligned, size);
        if (at == aligned)
            return at;
    }
}

static bool place(struct vpci_setup *const *setups, uint32_t count, struct vpci_setup *setup, unsigned bar)
{
    uint64_t size = vpci_bar_size(setup, bar);
    for (unsigned i = 0; i < VPCI_WINDOWS; i++) {
        const struct vpci_window *w = &setup->windows[i];
        if (setup->bars[bar].kind == PCI_BAR_MEM32 && w->last > UINT32_MAX)
            continue;
        setup->bars[bar].gpa = find_place(setups, count, w, size);
        if (setup->bars[bar].gpa)
            return true;
    }
    return false;
}

/* Which is placed next: 32-bit BARs before others, larger ones before smaller ones. */
static bool goes_before(const struct vpci_setup *a, unsigned a_bar, const struct vpci_setup *b,
                        unsigned b_bar)
{
    bool a32 = a->bars[a_bar].kind == PCI_BAR_MEM32, b32 = b->bars[b_bar].kind == PCI_BAR_MEM32;
    return a32 != b32 ? a32 : vpci_bar_size(a, a_bar) > vpci_bar_size(b, b_bar);
}

static bool next_unplaced(struct vpci_setup *const *setups, uint32_t count, uint32_t *which, unsigned *bar)
{
    bool found = false;
    for (uint32_t i = 0; i < count; i++)
        for (unsigned b = 0; b < PCI_BARS; b++) {
            if (setups[i]->bars[b].gpa || !vpci_bar_size(setups[i], b) ||
                (found && !goes_before(setups[i], b, setups[*which], *bar)))
                continue;
            found = true;
            *which = i;
            *bar = b;
        }
    return found;
}

static void forget(struct vpci_setup *const *setups, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (unsigned b = 0; b < PCI_BARS; b++)
            setups[i]->bars[b].gpa = 0;
}

enum status pci_place(struct vpci_setup *const *setups, uint32_t count,
                      const struct vpci_window windows[VPCI_WINDOWS], uint32_t *which, unsigned *bar)
{
    forget(setups, count);
    for (uint32_t i = 0; i < count; i++)
        for (unsigned w = 0; w < VPCI_WINDOWS; w++)
            setups[i]->windows[w] = windows[w];
    while (next_unplaced(setups, count, which, bar))
        if (!place(setups, count, setups[*which], *bar)) {
            forget(setups, count);
            return ERR_NO_MEMORY;
        }
    return STATUS_OK;
}
