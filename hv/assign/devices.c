#include "hv/assign/devices.h"
#include "hv/assign/vm_assign.h"
#include "hv/clock.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/sched.h"

#define FAULT_POLL_NS  10000000u /* 100 times a second */
#define POLL_SLACK_NS  1000000u
#define FAULTS_AT_ONCE 8u

struct devices host_devices;

/* ---- what drivers live on ---- */

static uint64_t now_us(void *ctx)
{
    (void)ctx;
    return clock_ticks_to_ns(host_tsc()) / NS_PER_US;
}

static void delay_us(void *ctx, uint32_t us)
{
    uint64_t until = host_tsc() + clock_ns_to_ticks((uint64_t)us * NS_PER_US) + 1;
    (void)ctx;
    while (host_tsc() < until) {
        if (host_devices.breathes)
            sched_breathe();
        __builtin_ia32_pause();
    }
}

/* Memory that the PF of `ctx` can reach, at the same address as it has for us. */
static void *dma_alloc(void *ctx, uint32_t pages, hpa_t *at)
{
    struct devices_pf *p = ctx;
    void *memory = pool_alloc_pages(&core.pool, pages);
    if (!memory)
        return NULL;
    *at = pool_hpa(&core.pool, memory);
    if (iommu_map(&p->domain, at->v, *at, (uint64_t)pages * PAGE_SIZE, IOMMU_READ | IOMMU_WRITE) == STATUS_OK)
        return memory;
    (void)pool_free_pages(&core.pool, memory, pages);
    return NULL;
}

static void *no_dma(void *ctx, uint32_t pages, hpa_t *at)
{
    (void)ctx;
    (void)pages;
    (void)at;
    return NULL;
}

/* ---- IOMMUs ---- */

bool devices_map(hpa_t base, uint64_t size, struct mmio *out)
{
    const struct iommu_env *env = &host_devices.iommu_env;
    return env->map && env->map(env->ctx, base, size, out);
}

/* I/O APICs, HPET, chipset and IOMMU registers, local APICs and their messages, the firmware's flash: on
 * every PC. */
#define PLATFORM_FIRST 0xfec00000ull
#define PLATFORM_SIZE  0x1400000ull
#define ECAM_PER_BUS   0x100000ull

static bool is_in_map(uint64_t base, uint64_t size, bool reserved)
{
    const struct boot_info *info = core.info;
    for (uint32_t i = 0; i < info->region_count; i++) {
        const struct boot_region *r = &info->regions[i];
        if ((reserved || r->kind != BOOT_REGION_RESERVED) && ranges_overlap(base, size, r->base, r->size))
            return true;
    }
    return false;
}

bool devices_is_memory(uint64_t base, uint64_t size)
{
    return is_in_map(base, size, false);
}

static bool is_ecam(uint64_t base, uint64_t size)
{
    for (uint32_t i = 0; i < core.mcfg.count; i++) {
        const struct acpi_ecam *e = &core.mcfg.ecams[i];
        if (ranges_overlap(base, size, e->base.v + e->first_bus * ECAM_PER_BUS,
                           (e->last_bus - e->first_bus + 1) * ECAM_PER_BUS))
            return true;
    }
    return false;
}

bool devices_is_machine(uint64_t base, uint64_t size)
{
    return devices_is_memory(base, size) || ranges_overlap(base, size, PLATFORM_FIRST, PLATFORM_SIZE) ||
           is_ecam(base, size) || (core.iommu && iommu_is_registers(core.iommu, base, size));
}

bool devices_is_taken(uint64_t base, uint64_t size)
{
    for (uint32_t i = 0; i < core.pci.count; i++) {
        const struct pci_device *bridge = &core.pci.devices[i];
        for (unsigned w = PCI_WINDOW_MEMORY; bridge->secondary && w <= PCI_WINDOW_PREFETCH; w++) {
            const struct pci_window *window = &bridge->windows[w];
            if (window->base <= window->limit && base <= window->limit && window->base < base + size)
                return true;
        }
    }
    return is_in_map(base, size, true);
}

static bool is_guest_memory(void *ctx, uint64_t base, uint64_t size)
{
    (void)ctx;
    return devices_is_memory(base, size);
}

static enum status start_iommu(const struct acpi_tables *tables, struct acpi_dmar *dmar)
{
    struct iommu_env *env = &host_devices.iommu_env;
    const char *fault = "";
    enum status s = tables ? acpi_read_dmar(tables, dmar, &fault) : ERR_NOT_FOUND;
    if (s == ERR_NOT_FOUND) {
        fmt_format(host_devices.iommu_why, DEVICES_WHY,
                   "the firmware describes none (no VT-d, or it is off in the firmware's setup)");
        return s;
    }
    if (s != STATUS_OK) {
        fmt_format(host_devices.iommu_why, DEVICES_WHY, "the firmware's DMAR table is not usable: %s", fault);
        return s;
    }
    env->now_us = now_us;
    env->is_guest_memory = is_guest_memory;
    env->pages = &core.pt_env;
    env->x2apic = host_x2apic();
    return iommu_init(&host_devices.iommu, dmar, &core.pci_config, env, host_devices.iommu_why, DEVICES_WHY);
}

void devices_fence(const struct acpi_tables *tables)
{
    uint32_t pages = (uint32_t)(align_up(sizeof(struct acpi_dmar), PAGE_SIZE) / PAGE_SIZE);
    struct acpi_dmar *dmar = pool_alloc_pages(&core.pool, pages);
    if (!dmar) {
        fmt_format(host_devices.iommu_why, DEVICES_WHY, "Bulkhead's own memory is used up");
        return;
    }
    enum status s = start_iommu(tables, dmar);
    (void)pool_free_pages(&core.pool, dmar, pages);
    if (s == STATUS_OK) {
        core.iommu = &host_devices.iommu;
        host_devices.active = true;
        log_line(LOG_INFO, "iommu", "%u IOMMU%s on: no device reaches any memory%s",
                 host_devices.iommu.unit_count, host_devices.iommu.unit_count == 1 ? "" : "s",
                 iommu_can_remap(&host_devices.iommu) ? ", or raises any interrupt" : "");
    } else if (s != ERR_NOT_FOUND) {
        log_line(LOG_WARN, "iommu", "%s", host_devices.iommu_why);
    }
}

/* ---- which function ---- */

struct pci_device *devices_find(const struct config_assign *wanted, char *why, size_t size)
{
    struct pci_device *dev = wanted->by_id
                                 ? pci_find_id(&core.pci, wanted->vendor, wanted->device, wanted->nth)
                                 : pci_find(&core.pci, wanted->bdf);
    if (dev)
        return dev;
    if (wanted->by_id)
        fmt_format(why, size, "this machine has no PCI function %04x:%04x/%u: `pci` lists them",
                   wanted->vendor, wanted->device, wanted->nth);
    else
        fmt_format(why, size, "this machine has no PCI function " BDF_FMT ": `pci` lists them",
                   BDF_ARGS(wanted->bdf));
    return NULL;
}

static struct devices_pf *find_pf(uint16_t bdf)
{
    for (uint32_t i = 0; i < host_devices.pf_count; i++)
        if (host_devices.pfs[i].bdf == bdf)
            return &host_devices.pfs[i];
    return NULL;
}

static bool has_bit(const uint8_t *set, uint32_t i)
{
    return set[i / 8] >> (i % 8) & 1;
}

static void set_bit(uint8_t *set, uint32_t i)
{
    set[i / 8] |= (uint8_t)(1u << (i % 8));
}

/* The VF that is wanted, or the first that nobody names; p->vfs: none. */
static uint32_t choose_vf(const struct devices_pf *p, const struct config_assign *wanted)
{
    if (wanted->index >= 0)
        return (uint32_t)wanted->index;
    for (uint32_t i = 0; i < p->vfs; i++)
        if (!has_bit(p->taken, i) && !has_bit(p->named, i))
            return i;
    return p->vfs;
}

/* A VF whose controller may manage namespaces, as its PF does, takes whichever it likes. So such a card is
 * one VM's, the first's in the configuration, unless every VM that has a VF of it is trusted with the others'
 * disks. */
static bool may_share(const struct devices_pf *p, const struct config_assign *wanted, char *why, size_t size)
{
    const struct config *config = &core.info->config;
    char ignored[DEVICES_WHY];
    struct nvme_info info;
    nvme_pf_info(p->nvme, &info);
    for (uint32_t i = 0; info.manages_namespaces && i < config->vm_count; i++) {
        const struct config_vm *vm = &config->vms[i];
        if (wanted >= vm->assigned && wanted < vm->assigned + vm->assigned_count)
            break; /* those that come first have it already */
        for (uint32_t j = 0; j < vm->assigned_count; j++) {
            const struct config_assign *c = &vm->assigned[j];
            const struct pci_device *pf =
                c->kind == ASSIGN_NVME_VF ? devices_find(c, ignored, sizeof(ignored)) : NULL;
            if (!pf || pf->bdf != p->bdf || (c->trust && wanted->trust))
                continue;
            fmt_format(why, size,
                       "VM %s has a VF of " BDF_FMT
                       ", whose VFs can take each other's namespaces: write trust=on "
                       "for both disks if they may",
                       vm->name, BDF_ARGS(p->bdf));
            return false;
        }
    }
    return true;
}

static struct pci_device *claim_vf(struct devices_pf *p, const struct config_assign *wanted, char *why,
                                   size_t size)
{
    if (p->kind != wanted->kind) {
        fmt_format(why, size, BDF_FMT " is %s", BDF_ARGS(p->bdf),
                   p->kind == ASSIGN_NET_VF ? "a network card here" : "an NVMe controller here");
        return NULL;
    }
    if (p->vfs == 0) {
        fmt_format(why, size, "%s", p->why);
        return NULL;
    }
    if (p->kind == ASSIGN_NVME_VF && !may_share(p, wanted, why, size))
        return NULL;
    uint32_t index = choose_vf(p, wanted);
    if (index >= p->vfs) {
        fmt_format(why, size, BDF_FMT " has no VF %u for it: its VFs are 0 to %u", BDF_ARGS(p->bdf), index,
                   p->vfs - 1u);
        return NULL;
    }
    struct pci_device *vf = pci_find_vf(&core.pci, p->bdf, (uint16_t)index);
    if (!vf || has_bit(p->taken, index)) {
        fmt_format(why, size, "VF %u of " BDF_FMT " %s", index, BDF_ARGS(p->bdf),
                   vf ? "has an owner already" : "does not answer");
        return NULL;
    }
    set_bit(p->taken, index);
    return vf;
}

static struct pci_device *claim_function(struct pci_device *dev, char *why, size_t size)
{
    const struct vm_device *other = vm_assign_find(dev->bdf);
    if (dev->header != 0 || dev->class_code >> 16 == PCI_CLASS_BRIDGE)
        fmt_format(why, size, BDF_FMT " is a bridge, which cannot be given to a VM", BDF_ARGS(dev->bdf));
    else if (pci_is_machine(dev))
        fmt_format(why, size, BDF_FMT " is part of the machine, and stays with Bulkhead", BDF_ARGS(dev->bdf));
    else if (dev->is_vf || find_pf(dev->bdf))
        fmt_format(why, size, BDF_FMT " is Bulkhead's: its VFs are what VMs get", BDF_ARGS(dev->bdf));
    else if (other)
        fmt_format(why, size, BDF_FMT " belongs to VM %s already", BDF_ARGS(dev->bdf), other->vm->name);
    else
        return dev;
    return NULL;
}

struct pci_device *devices_claim(const struct config_assign *wanted, struct devices_pf **pf, char *why,
                                 size_t size)
{
    struct pci_device *dev = devices_find(wanted, why, size);
    *pf = NULL;
    if (!dev)
        return NULL;
    if (wanted->kind == ASSIGN_PCI)
        return claim_function(dev, why, size);
    *pf = find_pf(dev->bdf);
    return claim_vf(*pf, wanted, why, size); /* there is one for each that the configuration names */
}

/* ---- starting PFs ---- */

static bool start_net(struct devices_pf *p, struct pci_device *dev)
{
    const struct pf_ops *ops = pf_find(dev->vendor, dev->device);
    if (!ops) {
        fmt_format(p->why, DEVICES_WHY,
                   BDF_FMT " (%04x:%04x) is not a card that Bulkhead can drive: those are Intel's 82576 and "
                           "I350",
                   BDF_ARGS(p->bdf), dev->vendor, dev->device);
        return false;
    }
    void *priv = pool_alloc_pages(&core.pool, (uint32_t)(align_up(ops->priv_size, PAGE_SIZE) / PAGE_SIZE));
    if (!priv) {
        fmt_format(p->why, DEVICES_WHY, "Bulkhead's own memory is used up");
        return false;
    }
    p->env.dma_alloc = no_dma;
    p->pf = (struct pf){
        .ops = ops, .bar = p->bar, .env = &p->env, .bdf = p->bdf, .device = dev->device, .priv = priv};
    fmt_format(p->pf.name, sizeof(p->pf.name), "pf " BDF_FMT, BDF_ARGS(p->bdf));
    if (p->wanted > ops->vfs_max)
        p->wanted = (uint16_t)ops->vfs_max;
    return ops->start(&p->pf, p->why, DEVICES_WHY) == STATUS_OK;
}

static bool start_nvme(struct devices_pf *p, struct pci_device *dev)
{
    uint32_t pages = (uint32_t)(align_up(sizeof(struct nvme_pf), PAGE_SIZE) / PAGE_SIZE);
    if (dev->class_code != NVME_CLASS_CODE) {
        fmt_format(p->why, DEVICES_WHY, BDF_FMT " is not an NVMe controller", BDF_ARGS(p->bdf));
        return false;
    }
    p->nvme = pool_alloc_pages(&core.pool, pages);
    if (!p->nvme) {
        fmt_format(p->why, DEVICES_WHY, "Bulkhead's own memory is used up");
        return false;
    }
    p->env.dma_alloc = dma_alloc;
    if (iommu_domain_create(core.iommu, &p->domain, p->why, DEVICES_WHY) != STATUS_OK)
        return false;
    enum status s = iommu_attach(core.iommu, p->bdf, p->bdf, &p->domain);
    if (s != STATUS_OK) {
        fmt_format(p->why, DEVICES_WHY, "the IOMMU does not take " BDF_FMT ": %s", BDF_ARGS(p->bdf),
                   status_name(s));
        return false;
    }
    if (nvme_pf_start(p->nvme, &p->bar, &p->env, p->why, DEVICES_WHY) != STATUS_OK)
        return false;
    if (!nvme_pf_reset_wanted(p->nvme))
        return true;
    if (pci_reset(&core.pci, &core.pci_config, &host_devices.env, dev, p->why, DEVICES_WHY) != STATUS_OK)
        return false;
    pci_memory(&core.pci_config, dev, true);
    pci_master(&core.pci_config, dev, true);
    return nvme_pf_start(p->nvme, &p->bar, &p->env, p->why, DEVICES_WHY) == STATUS_OK;
}

static bool start_nvme_vfs(struct devices_pf *p)
{
    if (nvme_pf_vfs_enabled(p->nvme, p->wanted, p->why, DEVICES_WHY) != STATUS_OK)
        return false;
    /* The scan saw controllers that were offline: these have one vector. */
    uint16_t vectors = nvme_pf_vectors(p->nvme);
    for (uint16_t i = 0; i < p->wanted && vectors != 0; i++) {
        struct pci_device *vf = pci_find_vf(&core.pci, p->bdf, i);
        if (vf->msix_count != 0)
            vf->msix_count = vectors;
    }
    return true;
}

/* Can it have VFs that may be given away? */
static bool check_pf(struct devices_pf *p, const struct pci_device *dev)
{
    const struct pci_bar *bar = &dev->bars[0];
    if (!core.iommu || !iommu_can_remap(core.iommu))
        fmt_format(p->why, DEVICES_WHY, "there is no IOMMU that protects from it");
    else if (!core.has_ecam)
        fmt_format(p->why, DEVICES_WHY, "the firmware describes no extended configuration space (MCFG)");
    else if (dev->sriov.total == 0)
        fmt_format(p->why, DEVICES_WHY, BDF_FMT " has no SR-IOV", BDF_ARGS(p->bdf));
    else if (bar->size < PAGE_SIZE || bar->base == 0 || bar->kind == PCI_BAR_IO ||
             !devices_map(hpa(bar->base), bar->size, &p->bar))
        fmt_format(p->why, DEVICES_WHY, "the registers of " BDF_FMT " cannot be mapped", BDF_ARGS(p->bdf));
    else
        return true;
    return false;
}

static bool start_pf(struct devices_pf *p, struct pci_device *dev)
{
    if (!check_pf(p, dev))
        return false;
    p->env = (struct dev_env){.ctx = p, .now_us = now_us, .delay_us = delay_us};
    if (p->wanted > dev->sriov.total)
        p->wanted = dev->sriov.total;
    pci_master_path(&core.pci, &core.pci_config, dev);
    pci_memory(&core.pci_config, dev, true);
    pci_master(&core.pci_config, dev, true);
    bool good = p->kind == ASSIGN_NET_VF ? start_net(p, dev) : start_nvme(p, dev);
    if (good)
        good = pci_sriov_enable(&core.pci, &core.pci_config, &host_devices.env, dev, p->wanted, p->why,
                                DEVICES_WHY) == STATUS_OK;
    if (!good)
        return false;
    if (p->kind == ASSIGN_NVME_VF)
        return start_nvme_vfs(p);
    p->began_tsc = host_tsc();
    enum status s = p->pf.ops->vfs_enabled(&p->pf, p->wanted);
    if (s != STATUS_OK)
        fmt_format(p->why, DEVICES_WHY, "the driver of " BDF_FMT " does not take its VFs: %s",
                   BDF_ARGS(p->bdf), status_name(s));
    return s == STATUS_OK;
}

static void run_pf(struct devices_pf *p)
{
    struct pci_device *dev = pci_find(&core.pci, p->bdf);
    if (!start_pf(p, dev)) {
        pci_master(&core.pci_config, dev, false);
        log_line(LOG_ERROR, "core", "PF " BDF_FMT " gives no VFs: %s", BDF_ARGS(p->bdf), p->why);
        return;
    }
    p->vfs = p->wanted;
    log_line(LOG_INFO, "core", "PF " BDF_FMT ": %u VF%s on, " BDF_FMT " the first", BDF_ARGS(p->bdf), p->vfs,
             p->vfs == 1 ? "" : "s", BDF_ARGS(pci_find_vf(&core.pci, p->bdf, 0)->bdf));
}

/* One more VM that wants a VF of this function. */
static void want_vf(struct pci_device *dev, const struct config_assign *c)
{
    struct devices_pf *p = find_pf(dev->bdf);
    if (!p) {
        p = &host_devices.pfs[host_devices.pf_count++];
        p->bdf = dev->bdf;
        p->kind = c->kind;
    }
    p->wanted++;
    if (c->index < 0)
        return;
    set_bit(p->named, (uint32_t)c->index);
    if (p->wanted <= c->index)
        p->wanted = (uint16_t)(c->index + 1);
}

/* How many VFs the configuration gives to VMs: PFs are not more. */
static uint32_t count_vfs(void)
{
    const struct config *config = &core.info->config;
    uint32_t n = 0;
    for (uint32_t i = 0; i < config->vm_count; i++)
        for (uint32_t j = 0; j < config->vms[i].assigned_count; j++)
            n += config->vms[i].assigned[j].kind != ASSIGN_PCI;
    return n;
}

void devices_start_pfs(void)
{
    const struct config *config = &core.info->config;
    char why[DEVICES_WHY];
    uint32_t most = count_vfs();
    host_devices.env = (struct dev_env){.now_us = now_us, .delay_us = delay_us, .dma_alloc = no_dma};
    if (most == 0)
        return;
    host_devices.pfs = pool_alloc_pages(
        &core.pool, (uint32_t)(align_up(most * sizeof(*host_devices.pfs), PAGE_SIZE) / PAGE_SIZE));
    if (!host_devices.pfs)
        host_panic("Bulkhead's own memory is used up: no room for %u VFs", most);
    for (uint32_t i = 0; i < config->vm_count; i++) {
        for (uint32_t j = 0; j < config->vms[i].assigned_count; j++) {
            const struct config_assign *c = &config->vms[i].assigned[j];
            struct pci_device *dev = c->kind == ASSIGN_PCI ? NULL : devices_find(c, why, sizeof(why));
            if (dev)
                want_vf(dev, c);
        }
    }
    for (uint32_t i = 0; i < host_devices.pf_count; i++)
        run_pf(&host_devices.pfs[i]);
}

/* ---- now and then ---- */

static void tell_fault(const struct iommu_fault *fault)
{
    char text[200];
    struct vm_device *d = vm_assign_find(fault->bdf);
    if (!d)
        d = vm_assign_find_forger(fault->bdf);
    if (d) {
        vm_device_fault(d, fault, now_us(NULL));
        return;
    }
    enum fault_answer answer = fault_watch_count(&host_devices.others, now_us(NULL));
    if (answer != FAULT_SAY && answer != FAULT_SAY_LAST)
        return;
    fault_text(fault, "", find_pf(fault->bdf) ? "PF" : "a device of no VM,", text, sizeof(text));
    log_line(LOG_WARN, "iommu", "%s", text);
}

static void poll_faults(void)
{
    struct iommu_fault faults[FAULTS_AT_ONCE];
    bool lost = false;
    unsigned n = core.iommu ? iommu_poll_faults(core.iommu, faults, FAULTS_AT_ONCE, &lost) : 0;
    for (unsigned i = 0; i < n; i++)
        tell_fault(&faults[i]);
}

/* A card that has been asked nothing for a second is looked at less often: VFs' drivers wait for an answer
 * much longer than that, and then ask more. */
#define IDLE_POLLS  100u
#define IDLE_FACTOR 4u

void devices_poll_now(void)
{
    /* What is due soon is done at once: each look takes a CPU from its guest. */
    uint64_t now = host_tsc(), due = now + clock_ns_to_ticks(POLL_SLACK_NS);
    if (due >= host_devices.faults_tsc) {
        poll_faults();
        host_devices.faults_tsc = now + clock_ns_to_ticks(FAULT_POLL_NS);
    }
    host_devices.poll_tsc = host_devices.faults_tsc;
    for (uint32_t i = 0; i < host_devices.pf_count; i++) {
        struct devices_pf *p = &host_devices.pfs[i];
        if (p->kind != ASSIGN_NET_VF || p->vfs == 0)
            continue;
        if (due >= p->poll_tsc) {
            uint64_t begun = host_tsc();
            p->idle_polls = p->pf.ops->poll(&p->pf) ? 0 : p->idle_polls + 1;
            p->poll_ticks += host_tsc() - begun;
            p->polls++;
            uint64_t next_us = (uint64_t)p->pf.ops->poll_us * (p->idle_polls < IDLE_POLLS ? 1 : IDLE_FACTOR);
            p->poll_tsc = now + clock_ns_to_ticks(next_us * NS_PER_US);
        }
        if (p->poll_tsc < host_devices.poll_tsc)
            host_devices.poll_tsc = p->poll_tsc;
    }
}

/* ---- for people ---- */

static void net_line(struct devices_pf *p, uint32_t vf, const struct vm_device *d, char *line, size_t size)
{
    struct pf_vf_status s = {0};
    uint32_t mbps = 0;
    p->pf.ops->vf_status(&p->pf, vf, &s);
    bool up = p->pf.ops->link(&p->pf, &mbps);
    fmt_format(line, size,
               "  %-3u " BDF_FMT
               "  %-12s %02x:%02x:%02x:%02x:%02x:%02x %4u %-5s %-5s %10llu %10llu %7llu %6llu",
               vf, BDF_ARGS(pci_find_vf(&core.pci, p->bdf, (uint16_t)vf)->bdf), d ? d->vm->name : "-",
               s.mac[0], s.mac[1], s.mac[2], s.mac[3], s.mac[4], s.mac[5], s.vlan, up ? "up" : "down",
               s.ready ? "yes" : "no", (unsigned long long)s.rx_packets, (unsigned long long)s.tx_packets,
               (unsigned long long)s.spoofed, (unsigned long long)(d ? d->faults.total : 0));
}

static void nvme_line(const struct devices_pf *p, uint32_t vf, const struct vm_device *d, char *line,
                      size_t size)
{
    static const char *const states[] = {
        [NVME_VF_FREE] = "free", [NVME_VF_READY] = "ready", [NVME_VF_FAILED] = "failed"};
    const struct nvme_vf *v = nvme_pf_vf(p->nvme, vf);
    fmt_format(line, size,
               "  %-3u " BDF_FMT "  %-12s namespace %u, %u queues, %u interrupts, %s, %llu faults", vf,
               BDF_ARGS(pci_find_vf(&core.pci, p->bdf, (uint16_t)vf)->bdf), d ? d->vm->name : "-",
               v ? v->nsid : 0, v ? v->queues : 0, v ? v->vectors : 0, v ? states[v->state] : "?",
               (unsigned long long)(d ? d->faults.total : 0));
}

static void pf_line(const struct devices_pf *p, char *line, size_t size)
{
    uint64_t spent = clock_ticks_to_ns(p->poll_ticks) / NS_PER_US;
    uint64_t since = clock_ticks_to_ns(host_tsc() - p->began_tsc) / NS_PER_MS;
    if (p->vfs == 0)
        fmt_format(line, size, "PF " BDF_FMT ": no VFs: %s", BDF_ARGS(p->bdf), p->why);
    else if (p->kind == ASSIGN_NVME_VF)
        fmt_format(line, size, "PF " BDF_FMT ": NVMe, %u VFs", BDF_ARGS(p->bdf), p->vfs);
    else
        fmt_format(line, size,
                   "PF " BDF_FMT ": %s, polled %llu times in %llu ms, for %llu us in all; VFs: owner, MAC, "
                   "VLAN, link, driver ready, packets in and out, spoofed, faults",
                   BDF_ARGS(p->bdf), p->pf.ops->name, (unsigned long long)p->polls, (unsigned long long)since,
                   (unsigned long long)spent);
}

/* self->at: the PF, self->step: 0 its own line, then its VFs. */
bool devices_vfs_next(struct lines *self, char *line, size_t size)
{
    if (host_devices.pf_count == 0 && self->step++ == 0) {
        fmt_format(line, size, "no VF is given to any VM");
        return true;
    }
    if (self->at >= host_devices.pf_count)
        return false;
    struct devices_pf *p = &host_devices.pfs[self->at];
    if (self->step == 0) {
        pf_line(p, line, size);
    } else {
        uint32_t vf = self->step - 1;
        const struct pci_device *dev = pci_find_vf(&core.pci, p->bdf, (uint16_t)vf);
        const struct vm_device *d = dev ? vm_assign_find(dev->bdf) : NULL;
        if (p->kind == ASSIGN_NET_VF)
            net_line(p, vf, d, line, size);
        else
            nvme_line(p, vf, d, line, size);
    }
    if (++self->step > p->vfs) {
        self->step = 0;
        self->at++;
    }
    return true;
}
