#include "hv/assign/vm_assign.h"
#include "hv/clock.h"
#include "hv/core.h"
#include "hv/guest/pci_place.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

/* ---- the part of the guest's PCI window where its devices are ---- */

/* What traps there: the pages with MSI-X tables. Everything else of a device is mapped, or nothing. */
static void window_access(struct vdev *dev, struct io_req *req)
{
    struct vm_assign *a = container_of(dev, struct vm_assign, window);
    unsigned bar;
    uint64_t offset;
    for (uint32_t i = 0; i < a->count; i++) {
        if (vpci_bar_at(&a->devices[i].vpci, req->addr, &bar, &offset)) {
            vpci_mmio(&a->devices[i].vpci, bar, offset, req);
            return;
        }
    }
    if (!req->write)
        req->value = vdev_all_ones(req->size);
}

/* By a CPU of the VM's own: a guest that resets its devices without end costs nobody else anything. */
static void window_timer(struct vdev *dev, uint64_t now_ns)
{
    struct vm_assign *a = container_of(dev, struct vm_assign, window);
    (void)now_ns;
    for (uint32_t i = 0; i < a->count; i++)
        assign_continue(&a->devices[i].assign);
    vm_assign_set_timer(a->devices[0].vm);
}

void vm_assign_set_timer(struct vm *vm)
{
    struct vm_assign *a = vm->assign;
    uint64_t due = UINT64_MAX, now = host_devices.env.now_us(host_devices.env.ctx);
    for (uint32_t i = 0; i < a->count; i++) {
        const struct vm_device *d = &a->devices[i];
        if (d->assign.state == ASSIGN_RESETTING && d->reset.due_us < due)
            due = d->reset.due_us;
    }
    uint64_t left = due > now ? due - now : 0;
    vdev_set_timer(&a->window, due == UINT64_MAX ? VDEV_NEVER : vdev_now(&a->window) + left * NS_PER_US);
}

static void window_reset(struct vdev *dev)
{
    vdev_set_timer(dev, VDEV_NEVER);
}

static const struct vdev_ops window_ops = {.name = "devices",
                                           .init = window_reset,
                                           .reset = window_reset,
                                           .access = window_access,
                                           .timer = window_timer};

/* A guest may move its BARs within what they take together at start: so the nested tables that this can make
 * are few, and are there from the first mapping on. */
static void limit_windows(struct vm_assign *a)
{
    for (unsigned w = 0; w < VPCI_WINDOWS; w++) {
        uint64_t first = UINT64_MAX, end = 0;
        for (uint32_t i = 0; i < a->count; i++) {
            const struct vpci_setup *setup = &a->devices[i].setup;
            for (unsigned b = 0; b < PCI_BARS; b++) {
                uint64_t at = setup->bars[b].gpa, bytes = vpci_bar_size(setup, b);
                if (!bytes || at < a->used[w].first || at > a->used[w].last)
                    continue;
                first = at < first ? at : first;
                end = at + bytes > end ? at + bytes : end;
            }
        }
        if (end == 0)
            a->used[w] = (struct vpci_window){1, 0};
        else
            a->used[w] = (struct vpci_window){align_down(first, SIZE_2M), align_up(end, SIZE_2M) - 1};
    }
    for (uint32_t i = 0; i < a->count; i++)
        for (unsigned w = 0; w < VPCI_WINDOWS; w++)
            a->devices[i].setup.windows[w] = a->used[w];
}

static enum status place_bars(struct vm *vm, char *why, size_t size)
{
    struct vm_assign *a = vm->assign;
    struct vpci_setup *setups[CONFIG_MAX_ASSIGNED];
    uint32_t which = 0;
    unsigned bar = 0;
    for (uint32_t i = 0; i < a->count; i++)
        setups[i] = &a->devices[i].setup;
    pci_place_windows(&vm->layout, vm->cpuid.phys_bits, a->used);
    enum status s = pci_place(setups, a->count, a->used, &which, &bar);
    if (s != STATUS_OK) {
        fmt_format(why, size, "BAR %u of %s does not fit: %llu MiB have no room in the VM's PCI windows", bar,
                   a->devices[which].name,
                   (unsigned long long)(vpci_bar_size(&a->devices[which].setup, bar) >> 20));
        return s;
    }
    limit_windows(a);
    return STATUS_OK;
}

static enum status claim_window(struct vm *vm)
{
    struct vm_assign *a = vm->assign;
    platform_add(vm, &a->window, &window_ops);
    for (unsigned i = 0; i < VPCI_WINDOWS; i++) {
        if (a->used[i].first > a->used[i].last)
            continue;
        enum status s =
            bus_add_mmio(&vm->bus, a->used[i].first, a->used[i].last - a->used[i].first + 1, &a->window);
        if (s != STATUS_OK)
            return s;
    }
    return STATUS_OK;
}

/* ---- memory and interrupts ---- */

static enum status create_domain(struct vm *vm, char *why, size_t size)
{
    struct vm_assign *a = vm->assign;
    enum status s = iommu_domain_create(core.iommu, &a->domain, why, size);
    if (s != STATUS_OK)
        return s;
    for (uint32_t i = 0; i < vm->gmem.count && s == STATUS_OK; i++) {
        const struct gmem_extent *e = &vm->gmem.extents[i];
        s = iommu_map(&a->domain, e->gpa, hpa(e->hpa), e->size, IOMMU_READ | IOMMU_WRITE);
    }
    if (s != STATUS_OK)
        fmt_format(why, size, "its memory cannot be mapped for its devices: %s", status_name(s));
    return s;
}

/* ---- making it ---- */

static enum status check_machine(char *why, size_t size)
{
    if (!core.iommu || !iommu_present(core.iommu))
        fmt_format(why, size, "devices can only be given to VMs behind an IOMMU: %s", host_devices.iommu_why);
    else if (!iommu_can_remap(core.iommu))
        fmt_format(why, size,
                   "the IOMMU does not remap interrupts, so a device could forge any: nothing is given to "
                   "VMs");
    else
        return STATUS_OK;
    return ERR_UNSUPPORTED;
}

static enum status describe(struct vm *vm, char *why, size_t size)
{
    struct vm_assign *a = vm->assign;
    for (uint32_t i = 0; i < a->count; i++) {
        struct vm_device *d = &a->devices[i];
        d->vm = vm;
        d->config = &vm->config->assigned[i];
        d->domain = &a->domain;
        d->dev = devices_claim(d->config, &d->pf, why, size);
        if (!d->dev)
            return ERR_NOT_FOUND;
        enum status s = vm_device_describe(d, i, why, size);
        if (s != STATUS_OK)
            return s;
    }
    for (uint32_t i = 0; i < a->count; i++) { /* a group may be given away as a whole */
        enum status s = a->devices[i].assign.ops->isolated(&a->devices[i], why, size);
        if (s != STATUS_OK)
            return s;
    }
    return place_bars(vm, why, size);
}

static enum status create_devices(struct vm *vm, char *why, size_t size)
{
    struct vm_assign *a = vm->assign;
    for (uint32_t i = 0; i < a->count; i++) {
        struct vm_device *d = &a->devices[i];
        a->made = i + 1;
        enum status s = vm_device_create(d, why, size);
        if (s != STATUS_OK)
            return s;
        s = pci_host_add(&vm->platform.pci, &d->vpci.func);
        if (s != STATUS_OK) {
            fmt_format(why, size, "%s cannot be plugged in: %s", d->name, status_name(s));
            return s;
        }
        log_vm(LOG_INFO, vm, "%s is its 00:%02x.0, %u interrupts", d->name, BDF_DEVICE(d->setup.guest_bdf),
               d->irq_count);
    }
    return STATUS_OK;
}

enum status vm_assign_create(struct vm *vm, char *why, size_t size)
{
    uint32_t count = vm->config->assigned_count;
    uint64_t bytes = sizeof(struct vm_assign) + count * sizeof(struct vm_device);
    uint32_t pages = (uint32_t)(align_up(bytes, PAGE_SIZE) / PAGE_SIZE);
    if (count == 0)
        return STATUS_OK;
    enum status s = check_machine(why, size);
    if (s != STATUS_OK)
        return s;
    vm->assign = pool_alloc_pages(&core.pool, pages);
    if (!vm->assign) {
        fmt_format(why, size, "Bulkhead's own memory is used up");
        return ERR_NO_MEMORY;
    }
    vm->assign->pages = pages;
    vm->assign->count = count;
    s = describe(vm, why, size);
    if (s == STATUS_OK)
        s = create_domain(vm, why, size);
    if (s == STATUS_OK)
        s = msi_create_tables(vm, why, size);
    if (s == STATUS_OK)
        s = create_devices(vm, why, size);
    if (s == STATUS_OK && claim_window(vm) != STATUS_OK) {
        fmt_format(why, size, "its devices' registers cannot be placed");
        s = ERR_NO_MEMORY;
    }
    return s; /* vm_create() calls vm_assign_destroy() */
}

void vm_assign_destroy(struct vm *vm)
{
    struct vm_assign *a = vm->assign;
    if (!a)
        return;
    for (uint32_t i = 0; i < a->made; i++)
        vm_device_destroy(&a->devices[i]);
    if (a->domain.iommu)
        (void)iommu_domain_destroy(&a->domain);
    (void)pool_free_pages(&core.pool, a, a->pages);
    vm->assign = NULL;
}

bool vm_assign_owns(const struct vm *vm, uint16_t bdf)
{
    for (uint32_t i = 0; vm->assign && i < vm->assign->count; i++)
        if (vm->assign->devices[i].dev && vm->assign->devices[i].dev->bdf == bdf)
            return true;
    return false;
}

struct vm_device *vm_assign_find(uint16_t bdf)
{
    for (uint32_t v = 0; v < CONFIG_MAX_VMS; v++) {
        const struct vm *vm = core.vms[v];
        for (uint32_t i = 0; vm && vm->assign && i < vm->assign->count; i++)
            if (vm->assign->devices[i].bdf == bdf)
                return &vm->assign->devices[i];
    }
    return NULL;
}

/* What a link leads to can send under every id of its bus: Source Validation of the port above looks at the
 * bus number alone (PCI Express Base 6.0, 6.12.1.1). In the root complex, phantom functions may be switched
 * on (2.2.6.2). A VF's ids are its PF's to make, and that is Bulkhead's. */
static bool may_forge(const struct vm_device *d, uint16_t bdf)
{
    if (!d->dev || d->dev->is_vf)
        return false;
    return d->dev->parent == PCI_NO_PARENT ? (d->bdf ^ bdf) < PCI_FUNCTIONS : BDF_BUS(d->bdf) == BDF_BUS(bdf);
}

struct vm_device *vm_assign_find_forger(uint16_t bdf)
{
    struct vm_device *found = NULL;
    if (pci_find(&core.pci, bdf))
        return NULL;
    for (uint32_t v = 0; v < CONFIG_MAX_VMS; v++) {
        const struct vm *vm = core.vms[v];
        for (uint32_t i = 0; vm && vm->assign && i < vm->assign->count; i++) {
            struct vm_device *d = &vm->assign->devices[i];
            if (!may_forge(d, bdf))
                continue;
            if (found && found->vm != d->vm)
                return NULL;
            if (!found || vm_device_is_cut_off(found))
                found = d;
        }
    }
    return found;
}

/* ---- its lives ---- */

static void drop(struct vm *vm, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct vm_device *d = &vm->assign->devices[i];
        spin_lock(&vm->devices);
        vpci_reset(&d->vpci);
        spin_unlock(&vm->devices);
        assign_drop(&d->assign);
    }
}

enum status vm_assign_start(struct vm *vm, char *why, size_t size)
{
    char reason[160] = "";
    /* What a receipt will say: nothing of the last life is left that a device could bring to light. */
    HOST_ASSERT(!vm->assign || __atomic_load_n(&vm->zeroed, __ATOMIC_ACQUIRE) >= vm->layout.memory);
    for (uint32_t i = 0; vm->assign && i < vm->assign->count; i++) {
        struct vm_device *d = &vm->assign->devices[i];
        enum status s = assign_take(&d->assign, reason, sizeof(reason));
        if (s == STATUS_OK)
            continue;
        drop(vm, i);
        fmt_format(why, size, "%s: %s", d->name, reason);
        return s;
    }
    return STATUS_OK;
}

void vm_assign_stop(struct vm *vm)
{
    if (!vm->assign)
        return;
    drop(vm, vm->assign->count);
    __atomic_store_n(&vm->zeroed, 0, __ATOMIC_RELEASE);
}
