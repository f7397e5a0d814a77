/* An assigned function: what the guest's writes do. Order matters: a function loses bus mastering before
 * anything else is taken from it, and gets it after everything else is there. */
#include "drivers/vdev/vpci_policy.h"

#include "hv/lib/bits.h"

enum note { NOTE_EXTENDED, NOTE_HIDDEN, NOTE_WINDOW, NOTE_TABLE };

static void note(struct vpci *v, enum note kind, uint32_t offset, uint32_t value)
{
    static const char *const what[] = {
        [NOTE_EXTENDED] = "write to extended configuration space",
        [NOTE_HIDDEN] = "write to a configuration register that is not shown",
        [NOTE_WINDOW] = "a BAR outside the PCI windows",
        [NOTE_TABLE] = "misaligned access to a page with the MSI-X table",
    };
    if (v->noted >> kind & 1)
        return;
    v->noted |= (uint8_t)(1u << kind);
    v->env->note(v->env->ctx, what[kind], offset, value);
}

/* ---- decoding, bus mastering, power ---- */

static uint32_t command(const struct vpci *v)
{
    return v->space.value[PCI_REG_COMMAND / 4];
}

/* In D3hot a function neither answers memory requests nor makes any (PCI Express Base 6.0, 5.3.1.4.1). */
static bool is_powered(const struct vpci *v)
{
    return !v->pm || !(v->space.value[(v->pm + PCI_PM_CONTROL) / 4] & PCI_PM_CONTROL_STATE);
}

static void set_master(struct vpci *v, bool on)
{
    if (v->mastering == on)
        return;
    v->mastering = on;
    v->env->master(v->env->ctx, on);
}

static void set_mapped(struct vpci *v, unsigned bar, uint64_t gpa, bool on)
{
    v->mapped = (uint8_t)(on ? v->mapped | 1u << bar : v->mapped & ~(1u << bar));
    v->mapped_at[bar] = gpa;
    v->env->map(v->env->ctx, bar, gpa, on);
}

static bool is_mapped(const struct vpci *v, unsigned bar)
{
    return v->mapped >> bar & 1;
}

/* Should the BAR be mapped, and where? */
static bool decodes(struct vpci *v, unsigned bar, uint64_t *gpa)
{
    if (!is_powered(v) || !pci_space_bar(&v->space, bar, gpa))
        return false;
    if (vpci_bar_fits(&v->setup, bar, *gpa))
        return true;
    if (*gpa) /* 0: not placed */
        note(v, NOTE_WINDOW, PCI_REG_BAR0 + bar * 4, (uint32_t)*gpa);
    return false;
}

/* Makes the real state follow Command, the BARs and the power state. */
static void follow(struct vpci *v)
{
    bool master = is_powered(v) && (command(v) & PCI_COMMAND_MASTER);
    uint64_t gpa = 0;
    if (!master)
        set_master(v, false);
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (is_mapped(v, i) && !(decodes(v, i, &gpa) && gpa == v->mapped_at[i]))
            set_mapped(v, i, v->mapped_at[i], false);
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (!is_mapped(v, i) && decodes(v, i, &gpa))
            set_mapped(v, i, gpa, true);
    if (master)
        set_master(v, true);
}

/* ---- interrupts ---- */

static void host_modify(struct vpci *v, uint32_t offset, uint32_t mask, uint32_t value)
{
    uint32_t old = v->env->host_read(v->env->ctx, offset, 2);
    v->env->host_write(v->env->ctx, offset, 2, (old & ~mask & UINT16_MAX) | value);
}

static void msix_real_control(void *ctx, bool enabled, bool function_mask)
{
    struct vpci *v = ctx;
    host_modify(v, v->msix_cap + PCI_MSIX_CONTROL, PCI_MSIX_CONTROL_ENABLE | PCI_MSIX_CONTROL_MASK,
                (enabled ? PCI_MSIX_CONTROL_ENABLE : 0) | (function_mask ? PCI_MSIX_CONTROL_MASK : 0));
}

static void msix_irq_set(void *ctx, unsigned entry, uint64_t address, uint32_t data, bool masked)
{
    struct vpci *v = ctx;
    (void)v->env->irq_set(v->env->ctx, entry, address, data, masked);
}

static void msix_follow(struct vpci *v)
{
    uint32_t control = v->space.value[v->msix_cap / 4] >> 16;
    msix_control(&v->msix, control & PCI_MSIX_CONTROL_ENABLE, control & PCI_MSIX_CONTROL_MASK);
}

static void msi_real_enable(struct vpci *v, bool on)
{
    v->msi_enabled = on;
    host_modify(v, v->msi + PCI_MSI_CONTROL, PCI_MSI_CONTROL_ENABLE, on ? PCI_MSI_CONTROL_ENABLE : 0);
}

static void msi_real_mask(struct vpci *v, unsigned at, bool on)
{
    v->msi_masked = on;
    host_modify(v, at, 1, on);
}

/* The single MSI. The real one is enabled after its message is in place, and before the message goes it is
 * switched off or masked. With a message that cannot be delivered it stays off: it would write what is left
 * in its registers, to wherever that says. */
static void msi_follow(struct vpci *v)
{
    const uint32_t *value = v->space.value;
    unsigned data_at = vpci_policy_msi_data(v), mask_at = vpci_policy_msi_mask(v);
    unsigned address_at = v->msi + PCI_MSI_ADDRESS;
    bool enabled = value[v->msi / 4] >> 16 & PCI_MSI_CONTROL_ENABLE;
    bool masked = mask_at && (value[mask_at / 4] & 1), live = enabled && !masked;
    uint64_t address = value[address_at / 4];
    if (data_at == address_at + 8)
        address |= (uint64_t)value[address_at / 4 + 1] << 32;
    uint32_t data = value[data_at / 4];
    if (v->msi_enabled && !enabled)
        msi_real_enable(v, false);
    if (masked && !v->msi_masked)
        msi_real_mask(v, mask_at, true);
    if (live ? !v->msi_live || v->msi_address != address || v->msi_data != data : v->msi_live)
        v->msi_good = v->env->irq_set(v->env->ctx, 0, address, data, !live);
    bool on = enabled && (masked || v->msi_good);
    v->msi_live = live;
    v->msi_address = address;
    v->msi_data = data;
    if (v->msi_enabled && !on)
        msi_real_enable(v, false);
    if (!masked && v->msi_masked)
        msi_real_mask(v, mask_at, false);
    if (!v->msi_enabled && on)
        msi_real_enable(v, true);
}

/* ---- resets ---- */

/* Takes away all that is on. */
static void quiet(struct vpci *v)
{
    set_master(v, false);
    if (v->msix_cap)
        msix_reset(&v->msix);
    if (v->msi) {
        v->space.value[v->msi / 4] &= ~((uint32_t)PCI_MSI_CONTROL_ENABLE << 16);
        if (vpci_policy_msi_mask(v))
            v->space.value[vpci_policy_msi_mask(v) / 4] = 0;
        msi_follow(v);
    }
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (is_mapped(v, i))
            set_mapped(v, i, v->mapped_at[i], false);
}

/* Function level reset, 6.6.2: Command and the capabilities are as at power-on. The BARs stay: those of a VF
 * are not in the VF; with decoding off it makes no difference to the driver of another function, which puts
 * them back. */
static void function_level_reset(struct vpci *v)
{
    quiet(v);
    vpci_policy_reset(v, true);
    v->in_reset = true;
    v->env->flr(v->env->ctx);
}

void vpci_reset(struct vpci *v)
{
    quiet(v);
    vpci_policy_reset(v, false);
    v->in_reset = false;
    v->noted = 0;
}

/* ---- configuration space ---- */

static bool is_in_reset(struct vpci *v)
{
    v->in_reset = v->in_reset && v->env->in_reset(v->env->ctx);
    return v->in_reset;
}

static uint32_t config_read(struct pci_func *func, uint32_t offset)
{
    struct vpci *v = func->ctx;
    if (is_in_reset(v))
        return ~0u;
    if (offset >= PCI_LEGACY_SIZE)
        return 0; /* "absence of any Extended Capabilities", 7.6.3 */
    return pci_space_read(&v->space, offset) | vpci_policy_live(v, offset);
}

/* Only D0 and D3hot exist; a write of another state is discarded (7.5.2.2). */
static void power_write(struct vpci *v, uint32_t old)
{
    uint32_t *control = &v->space.value[(v->pm + PCI_PM_CONTROL) / 4];
    uint32_t state = *control & PCI_PM_CONTROL_STATE;
    if (state != 0 && state != PCI_PM_D3HOT)
        *control = old;
    follow(v);
}

/* Is this a write of 1 to the bit that starts a function level reset? */
static bool starts_flr(const struct vpci *v, uint32_t offset, uint32_t written)
{
    if (!v->setup.flr)
        return false;
    if (v->pcie && offset == (uint32_t)v->pcie + PCI_EXP_DEVCTL)
        return written & PCI_EXP_DEVCTL_FLR;
    return v->af && offset == (uint32_t)v->af + PCI_AF_CONTROL && (written & PCI_AF_CONTROL_FLR);
}

static void config_write(struct pci_func *func, uint32_t offset, uint32_t value, uint32_t mask)
{
    struct vpci *v = func->ctx;
    if (is_in_reset(v))
        return;
    if (!vpci_policy_shown(v, offset)) {
        note(v, offset < PCI_LEGACY_SIZE ? NOTE_HIDDEN : NOTE_EXTENDED, offset, value);
        return;
    }
    uint32_t old = v->space.value[offset / 4];
    pci_space_write(&v->space, offset, value, mask);
    if (starts_flr(v, offset, value & mask))
        function_level_reset(v);
    else if (v->space.value[offset / 4] == old)
        return;
    else if (offset < PCI_REG_BAR0 + 4 * PCI_BARS)
        follow(v);
    else if (v->pm && offset == (uint32_t)v->pm + PCI_PM_CONTROL)
        power_write(v, old);
    else if (v->msix_cap && offset == v->msix_cap)
        msix_follow(v);
    else if (v->msi && offset >= v->msi && offset <= vpci_policy_msi_data(v) + 4)
        msi_follow(v);
}

static void func_reset(struct pci_func *func)
{
    vpci_reset(func->ctx);
}

enum status vpci_init(struct vpci *v, const struct vpci_setup *setup, const struct vpci_env *env)
{
    *v = (struct vpci){.setup = *setup, .env = env};
    v->func = (struct pci_func){
        .bdf = setup->guest_bdf, .ctx = v, .read = config_read, .write = config_write, .reset = func_reset};
    v->msix_env = (struct msix_env){.ctx = v, .irq_set = msix_irq_set, .control = msix_real_control};
    unsigned count = setup->msix_count < MSIX_MAX_ENTRIES ? setup->msix_count : MSIX_MAX_ENTRIES;
    msix_init(&v->msix, &v->msix_env, (uint16_t)count);
    return vpci_policy_build(v);
}

unsigned vpci_irqs(const struct vpci *v)
{
    return v->msix_cap ? v->msix.count : v->msi ? 1 : 0;
}

/* ---- memory ---- */

bool vpci_bar_at(const struct vpci *v, uint64_t gpa, unsigned *bar, uint64_t *offset)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (!is_mapped(v, i) || gpa - v->mapped_at[i] >= vpci_bar_size(&v->setup, i))
            continue;
        *bar = i;
        *offset = gpa - v->mapped_at[i];
        return true;
    }
    return false;
}

/* Is it in an array of `size` bytes at `base` of BAR `at`? */
static bool is_in(unsigned bar, uint64_t offset, unsigned at, uint64_t base, uint64_t size)
{
    return bar == at && offset >= base && offset - base < size;
}

void vpci_mmio(struct vpci *v, unsigned bar, uint64_t offset, struct io_req *req)
{
    const struct vpci_setup *s = &v->setup;
    if (!req->write)
        req->value = vdev_all_ones(req->size);
    if (bar >= PCI_BARS || !is_mapped(v, bar) || offset >= s->bars[bar].size ||
        req->size > s->bars[bar].size - offset)
        return;
    if (offset & (req->size - 1u)) { /* 7.7.2: undefined for the table; rare elsewhere */
        note(v, NOTE_TABLE, (uint32_t)offset, (uint32_t)req->value);
        return;
    }
    uint64_t pba = (s->msix_count + 63ull) / 64 * 8;
    if (is_in(bar, offset, s->msix_bar, s->msix_offset, (uint64_t)s->msix_count * MSIX_ENTRY_SIZE))
        msix_access(&v->msix, offset - s->msix_offset, req);
    else if (!req->write)
        req->value = v->env->mmio_read(v->env->ctx, bar, offset, req->size) & vdev_all_ones(req->size);
    else if (!is_in(bar, offset, s->msix_pba_bar, s->msix_pba_offset, pba)) /* the PBA is read-only */
        v->env->mmio_write(v->env->ctx, bar, offset, req->size, req->value);
}
