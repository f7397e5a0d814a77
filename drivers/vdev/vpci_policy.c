/* The tables behind a guest's view of an assigned function (PCI Express Base 6.0, 7.5 and 7.7). */
#include "drivers/vdev/vpci_policy.h"

#include "hv/lib/bits.h"

/* One dword: of the real value, `keep` is shown, with `set` on top; `writable` is the guest's to write into
 * the copy, 0 at power-on; `live` is read from the real function each time. */
struct rule {
    uint8_t offset;
    uint32_t keep, set, writable, live;
};

#define UPPER(word) ((uint32_t)(word) << 16) /* the word at offset 2 of a dword */

/* Command: Memory Space Enable comes with the first BAR. There is no INTx to switch off, but drivers write
 * the bit and may expect it back. Status: no error is ever shown, 7.5.1.1.4. */
#define COMMAND_WRITABLE (PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_OFF)

static const struct rule header_rules[] = {
    {.offset = PCI_REG_COMMAND, .writable = COMMAND_WRITABLE},
    {.offset = PCI_REG_CLASS, .keep = ~0u},
    {.offset = PCI_REG_HEADER, .writable = 0xff}, /* cache line size; one function, type 0 */
    {.offset = PCI_REG_SUBSYSTEM, .keep = ~0u},
    {.offset = PCI_REG_INTERRUPT, .writable = 0xff}, /* Interrupt Line is software's; pin 0: no INTx */
};

/* 7.5.2. The power state is the guest's copy: the real function stays in D0. So nothing is lost on the way
 * back, and No_Soft_Reset says it. No D1, no D2, no PME. */
#define PM_CAPS_VERSION 0x7u
#define PM_CAPS_DSI     (1u << 5) /* Device Specific Initialization */
static const struct rule pm_rules[] = {
    {.offset = 0, .keep = UPPER(PM_CAPS_VERSION | PM_CAPS_DSI)},
    {.offset = PCI_PM_CONTROL, .set = PCI_PM_CONTROL_NO_SOFT_RESET, .writable = PCI_PM_CONTROL_STATE},
};

/* 7.5.3. Device Control is the guest's copy: payload sizes must fit the real path to the root complex, which
 * only the host knows, and the real function keeps what firmware chose. FLR is acted upon, never stored. The
 * link and slot registers of a Root Complex Integrated Endpoint do not exist; Device Control 2 offers
 * nothing. */
#define DEVCAP_KEEP     (0x7u | 1u << 5 | 1u << 15) /* payload size, extended tags, role-based errors */
#define DEVCTL_WRITABLE 0x79ffu                     /* all but phantom functions, aux power and FLR */
#define DEVCTL_DEFAULT  0x2810u                     /* relaxed ordering, no snoop, 512-byte read requests */
static const struct rule pcie_rules[] = {
    {.offset = 0, .keep = UPPER(PCI_EXP_FLAGS_VERSION), .set = UPPER(PCI_EXP_RC_ENDPOINT << 4)},
    {.offset = PCI_EXP_DEVCAP, .keep = DEVCAP_KEEP},
    {.offset = PCI_EXP_DEVCTL, .writable = DEVCTL_WRITABLE, .live = UPPER(PCI_EXP_DEVSTA_TRPND)},
};
#define PCIE_V1_SIZE 0x14u
#define PCIE_V2_SIZE 0x3cu

/* 7.7.2. The offsets and the size come from the setup. */
static const struct rule msix_rules[] = {
    {.offset = 0, .writable = UPPER(PCI_MSIX_CONTROL_ENABLE | PCI_MSIX_CONTROL_MASK)},
};
#define MSIX_SIZE 12u

/* 7.7.1. One message, whatever the real function could send. The registers behind Message Control depend on
 * it: add_msi(). */
static const struct rule msi_rules[] = {
    {.offset = 0,
     .keep = UPPER(PCI_MSI_CONTROL_64 | PCI_MSI_CONTROL_MASKABLE),
     .writable = UPPER(PCI_MSI_CONTROL_ENABLE)},
    {.offset = PCI_MSI_ADDRESS, .writable = ~3u},
};

/* ECN "Conventional PCI Advanced Features": length 6, both features; Initiate FLR is acted upon, never
 * stored. */
#define AF_SIZE 6u
static const struct rule af_rules[] = {
    {.offset = 0, .set = UPPER(AF_SIZE | (PCI_AF_CAPS_TP | PCI_AF_CAPS_FLR) << 8)},
    {.offset = PCI_AF_CONTROL, .live = PCI_AF_STATUS_TRPND << 8},
};

#define MSIX_PBA_BITS 64u /* of one quadword */
#define PCI_FIRST_CAP 0x40u

/* ---- the setup ---- */

uint64_t vpci_bar_size(const struct vpci_setup *setup, unsigned bar)
{
    if (bar >= PCI_BARS || setup->bars[bar].kind == PCI_BAR_IO || setup->bars[bar].kind == PCI_BAR_NONE)
        return 0;
    uint64_t size = setup->bars[bar].size;
    return size && size < PAGE_SIZE ? PAGE_SIZE : size;
}

bool vpci_trapped(const struct vpci_setup *setup, unsigned bar, uint64_t *first, uint64_t *size)
{
    if (!setup->msix_count || bar != setup->msix_bar || !vpci_bar_size(setup, bar))
        return false;
    uint64_t end = (uint64_t)setup->msix_offset + (uint64_t)setup->msix_count * MSIX_ENTRY_SIZE;
    *first = setup->msix_offset & ~(uint64_t)PAGE_MASK;
    *size = ((end + PAGE_MASK) & ~(uint64_t)PAGE_MASK) - *first;
    return true;
}

/* Does [offset, offset+size) lie in the real BAR? */
static bool inside(const struct vpci_setup *s, unsigned bar, uint32_t offset, uint64_t size)
{
    return vpci_bar_size(s, bar) && offset % 8 == 0 && offset < s->bars[bar].size &&
           size <= s->bars[bar].size - offset;
}

static bool msix_is_sound(const struct vpci_setup *s)
{
    if (!s->msix_count)
        return true;
    uint64_t table = (uint64_t)s->msix_count * MSIX_ENTRY_SIZE;
    uint64_t pba = (s->msix_count + MSIX_PBA_BITS - 1) / MSIX_PBA_BITS * (MSIX_PBA_BITS / 8);
    if (s->msix_count > PCI_MSIX_CONTROL_SIZE + 1 || !inside(s, s->msix_bar, s->msix_offset, table) ||
        !inside(s, s->msix_pba_bar, s->msix_pba_offset, pba))
        return false;
    return s->msix_bar != s->msix_pba_bar || s->msix_offset + table <= s->msix_pba_offset ||
           s->msix_pba_offset + pba <= s->msix_offset;
}

static bool in_window(const struct vpci_setup *s, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < VPCI_WINDOWS; i++) {
        const struct vpci_window *w = &s->windows[i];
        if (gpa >= w->first && gpa <= w->last && size - 1 <= w->last - gpa)
            return true;
    }
    return false;
}

bool vpci_bar_fits(const struct vpci_setup *setup, unsigned bar, uint64_t gpa)
{
    uint64_t size = vpci_bar_size(setup, bar);
    return size && gpa % size == 0 && in_window(setup, gpa, size);
}

static enum status add_bars(struct vpci *v)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct vpci_bar *bar = &v->setup.bars[i];
        uint64_t size = vpci_bar_size(&v->setup, i);
        if (!size)
            continue;
        if (pci_space_add_bar(&v->space, i, (enum pci_bar_kind)bar->kind, size) != STATUS_OK ||
            (bar->gpa && !vpci_bar_fits(&v->setup, i, bar->gpa)) ||
            (bar->kind == PCI_BAR_MEM32 && bar->gpa > UINT32_MAX))
            return ERR_INVALID;
    }
    return STATUS_OK;
}

/* ---- the registers ---- */

bool vpci_policy_shown(const struct vpci *v, uint32_t offset)
{
    return offset < PCI_LEGACY_SIZE && (v->shown >> (offset / 4) & 1);
}

static uint32_t host(const struct vpci *v, uint32_t offset)
{
    return v->env->host_read(v->env->ctx, offset, 4);
}

static void apply(struct vpci *v, uint32_t base, const struct rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t dword = (base + rules[i].offset) / 4;
        v->space.value[dword] |= rules[i].set;
        if (rules[i].keep)
            v->space.value[dword] |= host(v, dword * 4) & rules[i].keep;
        v->space.writable[dword] |= rules[i].writable;
    }
}

/* Puts a capability of `size` bytes into the list, at its real place: drivers know the places. False: it is
 * not there, or not to be believed. */
static bool add_cap(struct vpci *v, uint8_t at, uint8_t id, unsigned size, uint8_t *last)
{
    if (at < PCI_FIRST_CAP || at % 4 || at + size > PCI_LEGACY_SIZE || (host(v, at) & 0xff) != id)
        return false;
    uint64_t dwords = (BIT((size + 3) / 4) - 1) << (at / 4);
    if (v->shown & dwords)
        return false;
    v->shown |= dwords;
    v->space.value[at / 4] |= id;
    /* The link: Capabilities Pointer, or the byte after the last one's id. */
    v->space.value[*last / 4] |= (uint32_t)at << (*last == PCI_REG_CAPABILITIES ? 0 : 8);
    v->space.value[PCI_REG_COMMAND / 4] |= PCI_STATUS_CAPS;
    *last = at;
    return true;
}

static void add_pm(struct vpci *v, uint8_t *last)
{
    if (!add_cap(v, v->setup.pm, PCI_CAP_PM, 8, last))
        return;
    v->pm = v->setup.pm;
    apply(v, v->pm, pm_rules, ARRAY_SIZE(pm_rules));
}

static bool add_msix(struct vpci *v, uint8_t *last)
{
    const struct vpci_setup *s = &v->setup;
    if (!add_cap(v, s->msix, PCI_CAP_MSIX, MSIX_SIZE, last))
        return false;
    v->msix_cap = s->msix;
    apply(v, v->msix_cap, msix_rules, ARRAY_SIZE(msix_rules));
    v->space.value[v->msix_cap / 4] |= UPPER(v->msix.count - 1);
    v->space.value[(v->msix_cap + PCI_MSIX_TABLE) / 4] = s->msix_offset | s->msix_bar;
    v->space.value[(v->msix_cap + PCI_MSIX_PBA) / 4] = s->msix_pba_offset | s->msix_pba_bar;
    return true;
}

static uint32_t msi_control(const struct vpci *v)
{
    return v->space.value[v->msi / 4] >> 16;
}

unsigned vpci_policy_msi_data(const struct vpci *v)
{
    return v->msi + PCI_MSI_ADDRESS + (msi_control(v) & PCI_MSI_CONTROL_64 ? 8 : 4);
}

unsigned vpci_policy_msi_mask(const struct vpci *v)
{
    return msi_control(v) & PCI_MSI_CONTROL_MASKABLE ? vpci_policy_msi_data(v) + 4 : 0;
}

static void add_msi(struct vpci *v, uint8_t *last)
{
    uint8_t at = v->setup.msi;
    uint32_t control = at < PCI_FIRST_CAP || at % 4 ? 0 : host(v, at) >> 16;
    unsigned size =
        12 + (control & PCI_MSI_CONTROL_64 ? 4 : 0) + (control & PCI_MSI_CONTROL_MASKABLE ? 8 : 0);
    if (!add_cap(v, at, PCI_CAP_MSI, size, last))
        return;
    v->msi = at;
    apply(v, at, msi_rules, ARRAY_SIZE(msi_rules));
    if (control & PCI_MSI_CONTROL_64)
        v->space.writable[(at + PCI_MSI_ADDRESS) / 4 + 1] = ~0u;
    v->space.writable[vpci_policy_msi_data(v) / 4] = UINT16_MAX;
    if (control & PCI_MSI_CONTROL_MASKABLE)
        v->space.writable[vpci_policy_msi_mask(v) / 4] = 1;
}

/* Only of what is an endpoint, in the versions that we know the size of. */
static void add_pcie(struct vpci *v, uint8_t *last)
{
    uint8_t at = v->setup.pcie;
    if (at < PCI_FIRST_CAP || at % 4)
        return;
    uint32_t flags = host(v, at) >> 16, version = flags & PCI_EXP_FLAGS_VERSION;
    uint32_t type = PCI_EXP_FLAGS_TYPE(flags);
    if ((version != 1 && version != 2) ||
        (type != PCI_EXP_ENDPOINT && type != PCI_EXP_LEGACY_ENDPOINT && type != PCI_EXP_RC_ENDPOINT) ||
        !add_cap(v, at, PCI_CAP_PCIE, version == 1 ? PCIE_V1_SIZE : PCIE_V2_SIZE, last))
        return;
    v->pcie = at;
    apply(v, at, pcie_rules, ARRAY_SIZE(pcie_rules));
    if (v->setup.flr)
        v->space.value[(at + PCI_EXP_DEVCAP) / 4] |= PCI_EXP_DEVCAP_FLR;
}

static void add_af(struct vpci *v, uint8_t *last)
{
    if (!v->setup.flr || !add_cap(v, v->setup.af, PCI_CAP_AF, AF_SIZE, last))
        return;
    v->af = v->setup.af;
    apply(v, v->af, af_rules, ARRAY_SIZE(af_rules));
}

enum status vpci_policy_build(struct vpci *v)
{
    const struct vpci_setup *s = &v->setup;
    uint8_t last = PCI_REG_CAPABILITIES;
    pci_space_init(&v->space, v->storage, PCI_SPACE_LEGACY_DWORDS, s->vendor, s->device, 0);
    apply(v, 0, header_rules, ARRAY_SIZE(header_rules));
    v->shown = BIT(PCI_FIRST_CAP / 4) - 1;
    if (BDF_FUNCTION(s->guest_bdf) || !msix_is_sound(s) || add_bars(v) != STATUS_OK)
        return ERR_INVALID;
    add_pm(v, &last);
    if (s->msix_count) {
        if (!add_msix(v, &last))
            return ERR_INVALID;
    } else {
        add_msi(v, &last);
    }
    add_pcie(v, &last);
    add_af(v, &last);
    vpci_policy_reset(v, false);
    return STATUS_OK;
}

void vpci_policy_reset(struct vpci *v, bool keep_bars)
{
    uint32_t *value = v->space.value;
    for (uint32_t i = 0; i < PCI_SPACE_LEGACY_DWORDS; i++)
        if (!keep_bars || i < PCI_REG_BAR0 / 4 || i >= PCI_REG_BAR0 / 4 + PCI_BARS)
            value[i] &= ~v->space.writable[i];
    for (unsigned i = 0; i < PCI_BARS && !keep_bars; i++) {
        if (!vpci_bar_size(&v->setup, i))
            continue;
        uint64_t gpa = v->setup.bars[i].gpa;
        value[PCI_REG_BAR0 / 4 + i] |= (uint32_t)gpa;
        if (v->setup.bars[i].kind != PCI_BAR_MEM32)
            value[PCI_REG_BAR0 / 4 + i + 1] = (uint32_t)(gpa >> 32);
    }
    if (v->pcie)
        value[(v->pcie + PCI_EXP_DEVCTL) / 4] |= DEVCTL_DEFAULT;
}

/* The rules of one capability that ask for live bits. */
static uint32_t live_of(const struct rule *rules, size_t count, uint8_t base, uint32_t offset)
{
    for (size_t i = 0; base && i < count; i++)
        if ((uint32_t)base + rules[i].offset == offset)
            return rules[i].live;
    return 0;
}

uint32_t vpci_policy_live(const struct vpci *v, uint32_t offset)
{
    uint32_t mask = live_of(pcie_rules, ARRAY_SIZE(pcie_rules), v->pcie, offset) |
                    live_of(af_rules, ARRAY_SIZE(af_rules), v->af, offset);
    if (v->msi && vpci_policy_msi_mask(v) && offset == vpci_policy_msi_mask(v) + 4)
        mask = 1; /* Pending Bits, 7.7.1.8 */
    return mask ? host(v, offset) & mask : 0;
}
