/* Bus mastering, decoding, reset. */
#include "drivers/pci/pci.h"
#include "drivers/pci/pci_read.h"
#include "hv/lib/fmt.h"

#define MS 1000u /* microseconds */

#define POLL_US       (10 * MS)
#define WAKE_US       (10 * MS)  /* from D3hot to D0: 5.9 */
#define PENDING_POLLS 100u       /* 1 s: what a device may need to see its last completions */
#define FLR_US        (100 * MS) /* PCI Express Base 6.0, 6.6.2 */
#define BUS_RESET_US  (2 * MS)   /* 1 ms at least (T_rst of the electromechanical specification) */
#define ANSWER_POLLS  1000u      /* 10 s: a drive may put off its first answer for as long as it recovers */
#define GONE          0xffffu

static uint32_t read16(const struct pci_config *cfg, const struct pci_device *dev, uint32_t offset)
{
    return cfg->read(cfg->ctx, dev->bdf, offset, 2);
}

static void write16(const struct pci_config *cfg, const struct pci_device *dev, uint32_t offset,
                    uint32_t value)
{
    cfg->write(cfg->ctx, dev->bdf, offset, 2, value);
}

static void change_command(const struct pci_config *cfg, const struct pci_device *dev, uint32_t bit, bool on)
{
    uint32_t command = read16(cfg, dev, PCI_REG_COMMAND);
    if (command != GONE)
        write16(cfg, dev, PCI_REG_COMMAND, on ? command | bit : command & ~bit);
}

void pci_master(const struct pci_config *cfg, const struct pci_device *dev, bool on)
{
    change_command(cfg, dev, PCI_COMMAND_MASTER, on);
}

void pci_memory(const struct pci_config *cfg, const struct pci_device *dev, bool on)
{
    change_command(cfg, dev, PCI_COMMAND_MEMORY, on);
}

/* VFs that firmware left on cannot be seen by a scan, but can master the bus. */
static void take_vfs(const struct pci_config *cfg, const struct pci_device *dev)
{
    uint32_t at = dev->sriov_cap + PCI_SRIOV_CONTROL, on = PCI_SRIOV_CONTROL_VFE | PCI_SRIOV_CONTROL_MSE;
    uint32_t control = read16(cfg, dev, at);
    if (dev->sriov.count == 0 && (control & on))
        write16(cfg, dev, at, control & ~on);
}

unsigned pci_quiesce(const struct pci_inventory *inv, const struct pci_config *cfg, bool displays)
{
    unsigned changed = 0;
    for (uint32_t i = 0; i < inv->count; i++) {
        const struct pci_device *dev = &inv->devices[i];
        unsigned class = dev->class_code >> 16;
        if (dev->sriov_cap)
            take_vfs(cfg, dev);
        if (dev->header != 0 || class == PCI_CLASS_BRIDGE || (class == PCI_CLASS_DISPLAY && !displays) ||
            !(read16(cfg, dev, PCI_REG_COMMAND) & PCI_COMMAND_MASTER))
            continue;
        pci_master(cfg, dev, false);
        changed++;
    }
    return changed;
}

void pci_master_path(const struct pci_inventory *inv, const struct pci_config *cfg,
                     const struct pci_device *dev)
{
    for (uint16_t up = dev->parent; up != PCI_NO_PARENT; up = inv->devices[up].parent)
        pci_master(cfg, &inv->devices[up], true);
}

/* ---- reset ---- */

static bool is_pending(const struct pci_config *cfg, const struct pci_device *dev)
{
    if (dev->pcie)
        return read16(cfg, dev, dev->pcie + PCI_EXP_DEVSTA) & PCI_EXP_DEVSTA_TRPND;
    return dev->af && (cfg->read(cfg->ctx, dev->bdf, dev->af + PCI_AF_STATUS, 1) & PCI_AF_STATUS_TRPND);
}

/* The port above, when all that is behind it is this one function. */
static const struct pci_device *own_port(const struct pci_inventory *inv, const struct pci_device *dev)
{
    if (dev->is_vf || dev->parent == PCI_NO_PARENT || !pci_is_port(&inv->devices[dev->parent]))
        return NULL;
    for (uint32_t i = 0; i < inv->count; i++)
        if (inv->devices[i].parent == dev->parent && &inv->devices[i] != dev)
            return NULL;
    return &inv->devices[dev->parent];
}

bool pci_can_reset(const struct pci_inventory *inv, const struct pci_device *dev)
{
    return dev->header == 0 && (dev->has_flr || own_port(inv, dev));
}

/* Of a function that has one of the two. Without AF it is PCIe's, whatever the function says by now. */
static bool has_pcie_flr(const struct pci_config *cfg, const struct pci_device *dev)
{
    return dev->pcie && (dev->is_vf || !dev->af ||
                         cfg->read(cfg->ctx, dev->bdf, dev->pcie + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR);
}

static void start_flr(const struct pci_config *cfg, const struct pci_device *dev)
{
    if (has_pcie_flr(cfg, dev)) {
        uint32_t at = dev->pcie + PCI_EXP_DEVCTL;
        write16(cfg, dev, at, read16(cfg, dev, at) | PCI_EXP_DEVCTL_FLR);
    } else {
        cfg->write(cfg->ctx, dev->bdf, dev->af + PCI_AF_CONTROL, 1, PCI_AF_CONTROL_FLR);
    }
}

/* A hot reset of what is behind the port (7.5.1.3.13): held, and let go. */
static void hold_bus(const struct pci_config *cfg, const struct pci_device *port, bool on)
{
    uint32_t control = read16(cfg, port, PCI_REG_BRIDGE_CONTROL);
    write16(cfg, port, PCI_REG_BRIDGE_CONTROL,
            on ? control | PCI_BRIDGE_CONTROL_RESET : control & ~(uint32_t)PCI_BRIDGE_CONTROL_RESET);
}

/* Not what the function says now: its last owner may have had a way of its own to its configuration space (a
 * card's registers for that are not rare), and the next one's memory accesses go to where the BARs were. */
static void place_bars(const struct pci_device *dev, uint32_t header[])
{
    uint32_t *bars = header + PCI_REG_BAR0 / 4;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *bar = &dev->bars[i];
        if (bar->base == 0 || bar->kind == PCI_BAR_NONE)
            continue; /* not placed */
        bars[i] = (uint32_t)bar->base;
        if (bar->kind != PCI_BAR_IO && bar->kind != PCI_BAR_MEM32 && i + 1 < PCI_BARS)
            bars[i + 1] = (uint32_t)(bar->base >> 32);
    }
}

/* What firmware set and a reset takes. Without the link's parameters a device may no longer understand its
 * port: they are kept from the scan (struct pci_device), for the reason that place_bars() gives. */
static void save(const struct pci_config *cfg, const struct pci_device *dev, struct pci_reset *r)
{
    for (unsigned i = 0; i < ARRAY_SIZE(r->header); i++)
        r->header[i] = cfg->read(cfg->ctx, dev->bdf, i * 4, 4);
    place_bars(dev, r->header);
}

static void restore(const struct pci_config *cfg, const struct pci_device *dev, const struct pci_reset *r)
{
    if (dev->pcie && !dev->is_vf) {
        write16(cfg, dev, dev->pcie + PCI_EXP_DEVCTL, dev->devctl & ~PCI_EXP_DEVCTL_FLR);
        if (dev->exp_type != PCI_EXP_RC_ENDPOINT)
            write16(cfg, dev, dev->pcie + PCI_EXP_LNKCTL, dev->link);
        if (dev->has_devctl2)
            write16(cfg, dev, dev->pcie + PCI_EXP_DEVCTL2, dev->devctl2);
    }
    if (dev->acs)
        write16(cfg, dev, dev->acs + PCI_ACS_CONTROL, dev->acs_control);
    if (!dev->is_vf) { /* a VF has none of these */
        for (uint32_t at = PCI_REG_BAR0; at < PCI_REG_BAR0 + 4 * PCI_BARS; at += 4)
            cfg->write(cfg->ctx, dev->bdf, at, 4, r->header[at / 4]);
        cfg->write(cfg->ctx, dev->bdf, PCI_REG_INTERRUPT, 1, r->header[PCI_REG_INTERRUPT / 4] & 0xff);
        cfg->write(cfg->ctx, dev->bdf, PCI_REG_HEADER, 1, r->header[PCI_REG_HEADER / 4] & 0xff);
    }
    uint32_t command = r->header[PCI_REG_COMMAND / 4] & UINT16_MAX & ~(uint32_t)PCI_COMMAND_MASTER;
    /* Nobody here, and no guest, gets an interrupt by a line. */
    write16(cfg, dev, PCI_REG_COMMAND, command | (dev->is_vf ? PCI_COMMAND_MEMORY : PCI_COMMAND_INTX_OFF));
}

static enum status check_reset(const struct pci_inventory *inv, const struct pci_config *cfg,
                               const struct pci_device *dev, char *why, size_t size)
{
    if (!pci_can_reset(inv, dev)) {
        fmt_format(why, size, BDF_FMT " has no function level reset, and is not alone behind a port",
                   BDF_ARGS(dev->bdf));
        return ERR_UNSUPPORTED;
    }
    if (dev->sriov.count) {
        fmt_format(why, size, BDF_FMT " has virtual functions, which a reset would take", BDF_ARGS(dev->bdf));
        return ERR_EXISTS;
    }
    if (read16(cfg, dev, PCI_REG_COMMAND) == GONE) {
        fmt_format(why, size, BDF_FMT " does not answer: nothing to reset", BDF_ARGS(dev->bdf));
        return ERR_NOT_FOUND;
    }
    return STATUS_OK;
}

/* After a reset, and with what a reset should have taken anyway: its last owner's VFs. False: the next
 * owner's accesses would go elsewhere. */
static bool give_back(const struct pci_config *cfg, const struct pci_device *dev, const struct pci_reset *r)
{
    restore(cfg, dev, r);
    if (dev->sriov_cap)
        take_vfs(cfg, dev);
    for (unsigned i = 0; i < PCI_BARS && !dev->is_vf; i++) {
        const struct pci_bar *bar = &dev->bars[i];
        if (bar->base == 0 || bar->kind == PCI_BAR_NONE || bar->kind == PCI_BAR_IO)
            continue;
        uint32_t at = PCI_REG_BAR0 + 4 * i;
        uint64_t base = cfg->read(cfg->ctx, dev->bdf, at, 4) & PCI_BAR_MEMORY_ADDRESS;
        if (pci_bar_is_64(bar->kind) && i + 1 < PCI_BARS)
            base |= (uint64_t)cfg->read(cfg->ctx, dev->bdf, at + 4, 4) << 32;
        if (base == bar->base)
            continue;
        pci_memory(cfg, dev, false); /* it answers for nobody, wherever it thinks that it is */
        return false;
    }
    return true;
}

/* Nothing is to be asked of the function for so long, counted from the next microsecond on. */
static void wait(const struct dev_env *env, struct pci_reset *r, enum pci_reset_step step, uint32_t us)
{
    r->step = (uint8_t)step;
    r->due_us = env->now_us(env->ctx) + 1 + us;
}

static void launch(const struct pci_inventory *inv, const struct pci_config *cfg, const struct dev_env *env,
                   const struct pci_device *dev, struct pci_reset *r)
{
    r->polls = ANSWER_POLLS;
    if (dev->has_flr) {
        start_flr(cfg, dev);
        wait(env, r, PCI_RESET_ANSWER, FLR_US);
    } else {
        hold_bus(cfg, own_port(inv, dev), true);
        wait(env, r, PCI_RESET_BUS, BUS_RESET_US);
    }
}

/* What is still pending after PENDING_POLLS will be stopped by the reset itself; 6.6.2 advises to wait, no
 * more. */
static void launch_when_quiet(const struct pci_inventory *inv, const struct pci_config *cfg,
                              const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r)
{
    if (r->polls && is_pending(cfg, dev)) {
        r->polls--;
        wait(env, r, PCI_RESET_PENDING, POLL_US);
    } else {
        launch(inv, cfg, env, dev, r);
    }
}

/* A function in D3 need not heed a reset. True: it was told to leave it. */
static bool wake(const struct pci_config *cfg, const struct pci_device *dev)
{
    uint32_t at = dev->pm + PCI_PM_CONTROL, control = dev->pm ? read16(cfg, dev, at) : 0;
    if (!(control & PCI_PM_CONTROL_STATE))
        return false;
    write16(cfg, dev, at, control & ~(PCI_PM_CONTROL_STATE | PCI_PM_CONTROL_PME_STATUS));
    return true;
}

enum status pci_reset_begin(const struct pci_inventory *inv, const struct pci_config *cfg,
                            const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r,
                            char *why, size_t size)
{
    *r = (struct pci_reset){.polls = PENDING_POLLS};
    enum status status = check_reset(inv, cfg, dev, why, size);
    if (status != STATUS_OK)
        return status;
    pci_master(cfg, dev, false);
    save(cfg, dev, r);
    if (wake(cfg, dev))
        wait(env, r, PCI_RESET_WAKING, WAKE_US);
    else
        launch_when_quiet(inv, cfg, env, dev, r);
    return STATUS_OK;
}

/* Command, because a VF's vendor always reads ffff. */
static void look_for_answer(const struct pci_config *cfg, const struct dev_env *env,
                            const struct pci_device *dev, struct pci_reset *r)
{
    if (read16(cfg, dev, PCI_REG_COMMAND) != GONE) {
        r->step = give_back(cfg, dev, r) ? PCI_RESET_DONE : PCI_RESET_UNWILLING;
    } else if (--r->polls) {
        wait(env, r, PCI_RESET_ANSWER, POLL_US);
    } else {
        r->step = PCI_RESET_SILENT;
    }
}

bool pci_reset_continue(const struct pci_inventory *inv, const struct pci_config *cfg,
                        const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r)
{
    if (env->now_us(env->ctx) >= r->due_us) {
        if (r->step == PCI_RESET_WAKING || r->step == PCI_RESET_PENDING) {
            launch_when_quiet(inv, cfg, env, dev, r);
        } else if (r->step == PCI_RESET_BUS) {
            hold_bus(cfg, own_port(inv, dev), false);
            wait(env, r, PCI_RESET_ANSWER, FLR_US);
        } else if (r->step == PCI_RESET_ANSWER) {
            look_for_answer(cfg, env, dev, r);
        }
    }
    return !pci_reset_runs(r);
}

enum status pci_reset_result(const struct pci_device *dev, const struct pci_reset *r, char *why, size_t size)
{
    if (r->step == PCI_RESET_DONE)
        return STATUS_OK;
    if (r->step == PCI_RESET_UNWILLING)
        fmt_format(why, size, BDF_FMT " does not take its BARs back after its reset", BDF_ARGS(dev->bdf));
    else
        fmt_format(
            why, size,
            BDF_FMT
            " does not answer %u s after its reset: it must not be used until the machine is restarted",
            BDF_ARGS(dev->bdf), ANSWER_POLLS / 100);
    return ERR_NOT_FOUND;
}

enum status pci_reset_await(const struct pci_inventory *inv, const struct pci_config *cfg,
                            const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r,
                            char *why, size_t size)
{
    while (!pci_reset_continue(inv, cfg, env, dev, r)) {
        uint64_t now = env->now_us(env->ctx);
        if (now < r->due_us)
            env->delay_us(env->ctx, (uint32_t)(r->due_us - now));
    }
    return pci_reset_result(dev, r, why, size);
}

enum status pci_reset(const struct pci_inventory *inv, const struct pci_config *cfg,
                      const struct dev_env *env, const struct pci_device *dev, char *why, size_t size)
{
    struct pci_reset r;
    enum status s = pci_reset_begin(inv, cfg, env, dev, &r, why, size);
    return s == STATUS_OK ? pci_reset_await(inv, cfg, env, dev, &r, why, size) : s;
}
