#include "hv/assign/vm_assign.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

#define FIRST_SLOT 0x10u /* 00:10.0: devices from here on */

/* MSI-X entry (PCI Express Base 6.0, 7.7.2.5). */
#define ENTRY_ADDRESS   0u
#define ENTRY_ADDRESS_H 4u
#define ENTRY_DATA      8u
#define ENTRY_CONTROL   12u
#define CONTROL_MASK    1u

static struct vm_device *device_of(void *ctx)
{
    return ctx;
}

/* ---- bus mastering: the guest's wish, unless it was taken away ---- */

static void set_master(struct vm_device *d)
{
    if (!d->resetting) /* it has none then, and what it answers means nothing */
        pci_master(&core.pci_config, d->dev, d->mastering && !d->cut_off);
}

/* Nothing of a device is switched on while it is reset, nor when that failed: it is quarantined then while
 * its guest goes on, and nobody would take it back when the VM stops. */
static bool is_owned(const struct vm_device *d)
{
    return d->assign.state == ASSIGN_OWNED;
}

static void env_master(void *ctx, bool on)
{
    struct vm_device *d = ctx;
    spin_lock(&d->lock);
    d->mastering = on && is_owned(d);
    set_master(d);
    spin_unlock(&d->lock);
}

bool vm_device_is_cut_off(struct vm_device *d)
{
    spin_lock(&d->lock);
    bool cut_off = d->cut_off;
    spin_unlock(&d->lock);
    return cut_off;
}

void vm_device_fault(struct vm_device *d, const struct iommu_fault *fault, uint64_t now_us)
{
    char who[CONFIG_NAME_MAX + 32], text[200];
    spin_lock(&d->lock);
    enum fault_answer answer = fault_watch_count(&d->faults, now_us);
    if (answer == FAULT_STORM) {
        d->cut_off = true;
        set_master(d);
    }
    bool quiet = answer == FAULT_QUIET || (answer == FAULT_STORM && d->faults.quiet_storm);
    spin_unlock(&d->lock);
    if (quiet)
        return;
    if (fault->bdf == d->bdf)
        fmt_format(who, sizeof(who), "VM %s, ", d->vm->name);
    else
        fmt_format(who, sizeof(who), "VM %s, %s " BDF_FMT " ", d->vm->name, d->what, BDF_ARGS(d->bdf));
    fault_text(fault, who, fault->bdf == d->bdf ? d->what : "as", text, sizeof(text));
    log_line(LOG_WARN, "iommu", "%s%s", text,
             answer == FAULT_SAY_LAST ? "; more of this second are not shown" : "");
    if (answer == FAULT_STORM)
        log_line(LOG_WARN, "iommu",
                 "VM %s, %s " BDF_FMT
                 ": more than %u blocked accesses in a second: its bus mastering is taken "
                 "away until it is reset",
                 d->vm->name, d->what, BDF_ARGS(d->bdf), FAULTS_STORM_PER_SECOND);
}

/* ---- what the guest's view of it asks for ---- */

static uint32_t env_host_read(void *ctx, uint32_t offset, unsigned size)
{
    return core.pci_config.read(core.pci_config.ctx, device_of(ctx)->bdf, offset, size);
}

static void env_host_write(void *ctx, uint32_t offset, unsigned size, uint32_t value)
{
    core.pci_config.write(core.pci_config.ctx, device_of(ctx)->bdf, offset, size, value);
}

/* Every vCPU forgets what it has cached of the nested tables before it enters the guest again. One that runs
 * meanwhile can still reach the registers, which are its VM's own; the tables themselves stay. */
static void flush_nested(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        vcpu_request(vm->vcpus[i], VCPU_REQ_FLUSH);
}

static void map_piece(struct vm_device *d, uint64_t gpa_at, uint64_t hpa_at, uint64_t size, bool on)
{
    struct vm *vm = d->vm;
    enum status s = STATUS_OK;
    if (size == 0)
        return;
    /* BARs may overlap when the guest wants it so: the one that comes last is there. */
    (void)ept_unmap(&vm->ept, gpa(gpa_at), size);
    if (on && is_owned(d))
        s = ept_map(&vm->ept, gpa(gpa_at), hpa(hpa_at), size, EPT_READ | EPT_WRITE, EPT_UC);
    if (s != STATUS_OK)
        log_vm(LOG_WARN, vm, "%s: its registers cannot be mapped at %llx: %s", d->name,
               (unsigned long long)gpa_at, status_name(s));
}

/* All of the BAR but the pages that trap. */
static void env_map(void *ctx, unsigned bar, uint64_t at, bool on)
{
    struct vm_device *d = ctx;
    uint64_t base = d->dev->bars[bar].base, size = vpci_bar_size(&d->setup, bar);
    uint64_t first = size, trapped = 0;
    if (!vpci_trapped(&d->setup, bar, &first, &trapped))
        first = size;
    map_piece(d, at, base, first, on);
    map_piece(d, at + first + trapped, base + first + trapped, size - first - trapped, on);
    flush_nested(d->vm);
}

/* ---- interrupts ---- */

static uint32_t handle_of(const struct vm_device *d, unsigned entry)
{
    return d->handles[entry / VM_DEVICE_IRQ_CHUNK] + entry % VM_DEVICE_IRQ_CHUNK;
}

/* Our message into the real entry; its mask bit last. */
static void write_entry(const struct vm_device *d, unsigned entry, bool masked)
{
    uint64_t at = d->setup.msix_offset - d->trapped_first + entry * MSIX_ENTRY_SIZE;
    uint64_t address = 0;
    uint32_t data = 0;
    if (masked) {
        mmio_write32(&d->trapped, at + ENTRY_CONTROL, CONTROL_MASK);
        return;
    }
    iommu_irq_message(core.iommu, handle_of(d, entry), &address, &data);
    mmio_write32(&d->trapped, at + ENTRY_ADDRESS, (uint32_t)address);
    mmio_write32(&d->trapped, at + ENTRY_ADDRESS_H, (uint32_t)(address >> 32));
    mmio_write32(&d->trapped, at + ENTRY_DATA, data);
    mmio_write32(&d->trapped, at + ENTRY_CONTROL, 0);
}

/* The same for a function that has MSI only; vpci switches its Enable. */
static void write_msi(struct vm_device *d)
{
    uint64_t address;
    uint32_t data, control = env_host_read(d, d->setup.msi + PCI_MSI_CONTROL, 2);
    uint32_t at = d->setup.msi + PCI_MSI_ADDRESS + 4u;
    iommu_irq_message(core.iommu, handle_of(d, 0), &address, &data);
    env_host_write(d, d->setup.msi + PCI_MSI_ADDRESS, 4, (uint32_t)address);
    if (control & PCI_MSI_CONTROL_64) {
        env_host_write(d, at, 4, (uint32_t)(address >> 32));
        at += 4;
    }
    env_host_write(d, at, 2, data);
    if (control & PCI_MSI_CONTROL_MASKABLE)
        env_host_write(d, at + 4, 4, 0);
}

static bool has_table(const struct vm_device *d)
{
    return d->trapped.size != 0;
}

/* To the CPU that the guest wants, keeping the old way until the new one is in force. */
static enum status route(struct vm_device *d, unsigned entry, struct cpu *cpu)
{
    struct msi_irq *irq = &d->irqs[entry];
    uint8_t vector;
    if (irq->cpu == cpu)
        return STATUS_OK;
    enum status s = msi_take_vector(irq, cpu, &vector);
    if (s != STATUS_OK)
        return s;
    s = iommu_irq_route(core.iommu, handle_of(d, entry), cpu->apic_id, vector);
    if (s != STATUS_OK) {
        msi_retire(cpu, vector);
        return s;
    }
    if (irq->cpu)
        msi_retire(irq->cpu, irq->vector);
    irq->cpu = cpu;
    irq->vector = vector;
    return STATUS_OK;
}

static bool env_irq_set(void *ctx, unsigned entry, uint64_t address, uint32_t data, bool masked)
{
    struct vm_device *d = ctx;
    struct vcpu *where;
    if (entry >= d->irq_count)
        return false;
    bool good = !masked && is_owned(d) && msi_set_message(&d->irqs[entry], address, data, &where);
    if (!masked && !good && is_owned(d))
        log_vm(LOG_WARN, d->vm, "%s: interrupt %u stays off: it wants a message that is none: %llx %x",
               d->name, entry, (unsigned long long)address, data);
    if (good) {
        enum status s = route(d, entry, where->cpu);
        good = s == STATUS_OK;
        if (!good)
            log_vm(LOG_WARN, d->vm, "%s: interrupt %u has no way to CPU %u: %s", d->name, entry,
                   where->cpu->index, status_name(s));
    }
    if (has_table(d))
        write_entry(d, entry, !good);
    else if (good)
        write_msi(d);
    return good;
}

/* ---- registers beside the MSI-X table ---- */

static uint64_t env_mmio_read(void *ctx, unsigned bar, uint64_t offset, unsigned size)
{
    struct vm_device *d = ctx;
    uint64_t at = offset - d->trapped_first;
    if (!is_owned(d) || bar != d->setup.msix_bar || offset < d->trapped_first || at + size > d->trapped.size)
        return vdev_all_ones(size);
    if (size == 8)
        return mmio_read64(&d->trapped, at);
    return bits_low_bytes(mmio_read32(&d->trapped, at & ~3ull) >> ((at & 3) * 8), size);
}

static void env_mmio_write(void *ctx, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct vm_device *d = ctx;
    uint64_t at = offset - d->trapped_first;
    if (!is_owned(d) || bar != d->setup.msix_bar || offset < d->trapped_first || at + size > d->trapped.size)
        return;
    if (size == 8) {
        mmio_write64(&d->trapped, at, value);
    } else if (size == 4) {
        mmio_write32(&d->trapped, at, (uint32_t)value);
    } else {
        unsigned shift = (at & 3) * 8;
        uint32_t mask = (uint32_t)bits_low_bytes(~0ull, size) << shift;
        uint32_t old = mmio_read32(&d->trapped, at & ~3ull);
        mmio_write32(&d->trapped, at & ~3ull, (old & ~mask) | ((uint32_t)value << shift & mask));
    }
}

/* ---- the guest's reset: begun here, continued by a timer or by the guest's next look ---- */

/* The log says how many it was at the first one, the second, the fourth ... */
static void count_reset(struct vm_device *d)
{
    d->resets++;
    if ((d->resets & (d->resets - 1)) == 0)
        log_vm(LOG_DEBUG, d->vm, "%s: reset as the guest asks, %u so far", d->name, d->resets);
}

static void env_flr(void *ctx)
{
    struct vm_device *d = ctx;
    if (is_owned(d))
        count_reset(d);
    assign_reset(&d->assign);
    vm_assign_set_timer(d->vm);
}

static bool env_in_reset(void *ctx)
{
    struct vm_device *d = ctx;
    assign_continue(&d->assign);
    return !is_owned(d);
}

static void env_note(void *ctx, const char *what, uint32_t offset, uint32_t value)
{
    struct vm_device *d = ctx;
    log_vm(LOG_DEBUG, d->vm, "%s: refused: %s (%x, value %x)", d->name, what, offset, value);
}

/* ---- handing it over ---- */

static enum status ops_isolated(void *ctx, char *why, size_t size)
{
    struct vm_device *d = ctx;
    struct pci_device *mate = NULL;
    while ((mate = pci_group_mate(&core.pci, d->dev, mate)) != NULL) {
        if (vm_assign_owns(d->vm, mate->bdf))
            continue;
        fmt_format(why, size, BDF_FMT " is not isolated (needs ACS): it shares a group with " BDF_FMT,
                   BDF_ARGS(d->bdf), BDF_ARGS(mate->bdf));
        return ERR_UNSUPPORTED;
    }
    return iommu_assignable(core.iommu, d->bdf, d->pf_bdf, why, size) ? STATUS_OK : ERR_UNSUPPORTED;
}

static void ops_master(void *ctx, bool on)
{
    env_master(ctx, on);
}

static void reset_over(struct vm_device *d, enum status s)
{
    spin_lock(&d->lock);
    d->resetting = false;
    if (s == STATUS_OK) {
        d->cut_off = false;
        fault_watch_reset(&d->faults);
    }
    spin_unlock(&d->lock);
}

static enum status ops_reset_begin(void *ctx, char *why, size_t size)
{
    struct vm_device *d = ctx;
    spin_lock(&d->lock);
    d->resetting = true;
    spin_unlock(&d->lock);
    enum status s =
        pci_reset_begin(&core.pci, &core.pci_config, &host_devices.env, d->dev, &d->reset, why, size);
    if (s != STATUS_OK)
        reset_over(d, s);
    return s;
}

static bool ops_reset_continue(void *ctx, enum status *result, char *why, size_t size)
{
    struct vm_device *d = ctx;
    if (!pci_reset_continue(&core.pci, &core.pci_config, &host_devices.env, d->dev, &d->reset))
        return false;
    *result = pci_reset_result(d->dev, &d->reset, why, size);
    reset_over(d, *result);
    return true;
}

/* One that the guest has begun does as well: since then the device could do nothing, and the guest nothing to
 * it. */
static enum status ops_reset(void *ctx, char *why, size_t size)
{
    struct vm_device *d = ctx;
    enum status s = pci_reset_runs(&d->reset) ? STATUS_OK : ops_reset_begin(d, why, size);
    if (s != STATUS_OK)
        return s;
    s = pci_reset_await(&core.pci, &core.pci_config, &host_devices.env, d->dev, &d->reset, why, size);
    reset_over(d, s);
    return s;
}

static enum status ops_provide(void *ctx, char *why, size_t size)
{
    struct vm_device *d = ctx;
    const struct config_assign *c = d->config;
    if (c->kind == ASSIGN_NVME_VF)
        return nvme_pf_prepare_vf(d->pf->nvme, d->dev->vf_index, c->namespace, why, size);
    if (c->kind == ASSIGN_NET_VF) {
        struct pf_vf_policy policy = {.has_mac = c->has_mac,
                                      .vlan = c->vlan,
                                      .rate_mbps = c->rate,
                                      .spoofcheck = c->spoofcheck,
                                      .trust = c->trust,
                                      .owner = d->vm->name};
        for (unsigned i = 0; i < PF_MAC_BYTES; i++)
            policy.mac[i] = c->mac[i];
        d->pf->pf.ops->vf_policy(&d->pf->pf, d->dev->vf_index, &policy);
    }
    return STATUS_OK;
}

static void ops_withdraw(void *ctx)
{
    struct vm_device *d = ctx;
    char why[120];
    if (d->config->kind == ASSIGN_NET_VF)
        d->pf->pf.ops->vf_policy(&d->pf->pf, d->dev->vf_index, NULL);
    if (d->config->kind == ASSIGN_NVME_VF &&
        nvme_pf_release_vf(d->pf->nvme, d->dev->vf_index, why, sizeof(why)) != STATUS_OK)
        log_vm(LOG_ERROR, d->vm, "%s: %s", d->name, why);
}

static enum status ops_attach(void *ctx, char *why, size_t size)
{
    struct vm_device *d = ctx;
    enum status s = iommu_attach(core.iommu, d->bdf, d->pf_bdf, d->domain);
    d->attached = s == STATUS_OK;
    if (s != STATUS_OK)
        fmt_format(why, size, "the IOMMU does not take it: %s", status_name(s));
    return s;
}

static enum status ops_detach(void *ctx, char *why, size_t size)
{
    struct vm_device *d = ctx;
    if (!d->attached)
        return STATUS_OK;
    enum status s = iommu_detach(core.iommu, d->bdf, d->pf_bdf, d->domain);
    d->attached = s != STATUS_OK;
    if (s != STATUS_OK)
        fmt_format(why, size, "the IOMMU has not said that it forgot it: %s", status_name(s));
    return s;
}

static void ops_interrupts_off(void *ctx)
{
    struct vm_device *d = ctx;
    for (uint32_t i = 0; i < d->irq_count; i++) {
        struct msi_irq *irq = &d->irqs[i];
        if (!irq->cpu)
            continue;
        msi_silence(irq);
        enum status s = iommu_irq_mask(core.iommu, handle_of(d, i));
        if (s != STATUS_OK)
            log_vm(LOG_ERROR, d->vm, "%s: interrupt %u cannot be masked: %s", d->name, i, status_name(s));
        msi_retire(irq->cpu, irq->vector);
        irq->cpu = NULL;
    }
}

static void ops_say(void *ctx, enum log_level level, const char *text)
{
    struct vm_device *d = ctx;
    log_vm(level, d->vm, "%s: %s", d->name, text);
}

static const struct assign_ops assign_ops = {
    .isolated = ops_isolated,
    .master = ops_master,
    .reset = ops_reset,
    .reset_begin = ops_reset_begin,
    .reset_continue = ops_reset_continue,
    .provide = ops_provide,
    .withdraw = ops_withdraw,
    .attach = ops_attach,
    .detach = ops_detach,
    .interrupts_off = ops_interrupts_off,
    .say = ops_say,
};

/* ---- making it ---- */

/* Another function's registers in the page of a small BAR would be the guest's, too. */
static bool shares_page(const struct vm_device *d, unsigned bar)
{
    const struct pci_bar *mine = &d->dev->bars[bar];
    uint64_t first = align_down(mine->base, PAGE_SIZE), end = align_up(mine->base + mine->size, PAGE_SIZE);
    for (uint32_t i = 0; i < core.pci.count; i++) {
        const struct pci_device *other = &core.pci.devices[i];
        for (unsigned b = 0; b < PCI_BARS; b++) {
            const struct pci_bar *o = &other->bars[b];
            if (o == mine || o->size == 0 || o->kind == PCI_BAR_IO || o->base == 0)
                continue;
            if (o->base < end && o->base + o->size > first)
                return true;
        }
    }
    return false;
}

/* A size is what the device says, and a guest that had all of it before may have taught it to lie: what it
 * does not decode may be memory, configuration space, the interrupt controllers, or an IOMMU. */
static bool is_its_own(const struct vm_device *d, const struct pci_bar *bar)
{
    uint64_t last = bar->base + bar->size - 1;
    if (last < bar->base || devices_is_machine(bar->base, bar->size))
        return false;
    if (d->dev->parent == PCI_NO_PARENT)
        return !devices_is_taken(bar->base, bar->size);
    const struct pci_window *w = core.pci.devices[d->dev->parent].windows;
    for (unsigned i = PCI_WINDOW_MEMORY; i <= PCI_WINDOW_PREFETCH; i++)
        if (bar->base >= w[i].base && last <= w[i].limit)
            return true;
    return false; /* the bridge above would not let it through to the device */
}

static enum status describe_bars(struct vm_device *d, char *why, size_t size)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *bar = &d->dev->bars[i];
        d->setup.bars[i] = (struct vpci_bar){.size = bar->size, .kind = bar->kind};
        if (bar->size == 0 || bar->kind == PCI_BAR_NONE || bar->kind == PCI_BAR_IO)
            continue;
        if (bar->base == 0) {
            fmt_format(why, size, "the firmware has not placed BAR %u of " BDF_FMT, i, BDF_ARGS(d->bdf));
            return ERR_UNSUPPORTED;
        }
        if ((bar->base & PAGE_MASK) || shares_page(d, i)) {
            fmt_format(why, size, "BAR %u of " BDF_FMT " does not have its pages for itself", i,
                       BDF_ARGS(d->bdf));
            return ERR_UNSUPPORTED;
        }
        if (!is_its_own(d, bar)) {
            fmt_format(why, size, "BAR %u of " BDF_FMT " claims addresses that are not its own: %llx-%llx", i,
                       BDF_ARGS(d->bdf), (unsigned long long)bar->base,
                       (unsigned long long)(bar->base + bar->size - 1));
            return ERR_UNSUPPORTED;
        }
    }
    return STATUS_OK;
}

enum status vm_device_describe(struct vm_device *d, unsigned slot, char *why, size_t size)
{
    const struct pci_device *dev = d->dev;
    static const char *const keys[] = {[ASSIGN_NET_VF] = "net", [ASSIGN_NVME_VF] = "disk"};
    d->bdf = dev->bdf;
    d->pf_bdf = dev->is_vf ? dev->pf : dev->bdf;
    const struct pci_device *pf = pci_find(&core.pci, d->pf_bdf);
    d->what = dev->is_vf ? "VF" : "function";
    if (d->config->kind == ASSIGN_PCI)
        fmt_format(d->name, sizeof(d->name), "function " BDF_FMT, BDF_ARGS(d->bdf));
    else
        fmt_format(d->name, sizeof(d->name), "%s%u, VF " BDF_FMT, keys[d->config->kind], d->config->number,
                   BDF_ARGS(d->bdf));
    if (!pci_can_reset(&core.pci, dev)) {
        fmt_format(why, size, BDF_FMT " cannot be reset without its neighbours", BDF_ARGS(d->bdf));
        return ERR_UNSUPPORTED;
    }
    if (!pci_has_own_id(&core.pci, dev)) {
        fmt_format(why, size, BDF_FMT " is behind a bridge to conventional PCI: no IOMMU knows its requests",
                   BDF_ARGS(d->bdf));
        return ERR_UNSUPPORTED;
    }
    d->setup = (struct vpci_setup){
        .guest_bdf = PCI_BDF(0, FIRST_SLOT + slot, 0),
        .vendor = pf ? pf->vendor : dev->vendor,
        .device = pf && dev->is_vf ? pf->sriov.vf_device : dev->device,
        .pcie = dev->pcie,
        .pm = dev->pm,
        .msi = dev->msi,
        .msix = dev->msix,
        .af = dev->af,
        .flr = true,
        .msix_count = dev->msix_count,
        .msix_bar = dev->msix_bar,
        .msix_pba_bar = dev->msix_pba_bar,
        .msix_offset = dev->msix_offset,
        .msix_pba_offset = dev->msix_pba_offset,
    };
    d->assign =
        (struct assign){.ops = &assign_ops, .ctx = d, .how = dev->has_flr ? "FLR done" : "reset by its port"};
    return describe_bars(d, why, size);
}

static enum status map_table(struct vm_device *d, char *why, size_t size)
{
    uint64_t first, bytes;
    if (!vpci_trapped(&d->setup, d->setup.msix_bar, &first, &bytes))
        return STATUS_OK;
    d->trapped_first = first;
    if (devices_map(hpa(d->dev->bars[d->setup.msix_bar].base + first), bytes, &d->trapped))
        return STATUS_OK;
    fmt_format(why, size, "there is no room to map the MSI-X table of " BDF_FMT, BDF_ARGS(d->bdf));
    return ERR_NO_MEMORY;
}

static enum status take_interrupts(struct vm_device *d, char *why, size_t size)
{
    uint32_t wanted = vpci_irqs(&d->vpci);
    while (d->irq_count < wanted) {
        uint32_t left = wanted - d->irq_count;
        uint32_t count = left < VM_DEVICE_IRQ_CHUNK ? left : VM_DEVICE_IRQ_CHUNK;
        enum status s = iommu_irq_alloc(core.iommu, d->bdf, d->pf_bdf, count,
                                        &d->handles[d->irq_count / VM_DEVICE_IRQ_CHUNK]);
        if (s != STATUS_OK) {
            fmt_format(why, size, "no interrupts for " BDF_FMT " at the IOMMU: %s", BDF_ARGS(d->bdf),
                       status_name(s));
            return s;
        }
        for (uint32_t i = 0; i < count; i++)
            d->irqs[d->irq_count + i].vm = d->vm;
        d->irq_count += count;
    }
    return STATUS_OK;
}

enum status vm_device_create(struct vm_device *d, char *why, size_t size)
{
    d->env = (struct vpci_env){
        .ctx = d,
        .host_read = env_host_read,
        .host_write = env_host_write,
        .map = env_map,
        .master = env_master,
        .irq_set = env_irq_set,
        .flr = env_flr,
        .in_reset = env_in_reset,
        .mmio_read = env_mmio_read,
        .mmio_write = env_mmio_write,
        .note = env_note,
    };
    enum status s = vpci_init(&d->vpci, &d->setup, &d->env);
    if (s != STATUS_OK) {
        fmt_format(why, size, BDF_FMT " contradicts itself, and is not given away", BDF_ARGS(d->bdf));
        return s;
    }
    s = map_table(d, why, size);
    if (s == STATUS_OK)
        s = take_interrupts(d, why, size);
    if (s == STATUS_OK)
        pci_master_path(&core.pci, &core.pci_config, d->dev);
    return s;
}

void vm_device_destroy(struct vm_device *d)
{
    for (uint32_t i = 0; i < d->irq_count; i += VM_DEVICE_IRQ_CHUNK) {
        uint32_t left = d->irq_count - i;
        (void)iommu_irq_free(core.iommu, d->bdf, d->handles[i / VM_DEVICE_IRQ_CHUNK],
                             left < VM_DEVICE_IRQ_CHUNK ? left : VM_DEVICE_IRQ_CHUNK);
    }
    d->irq_count = 0;
}
