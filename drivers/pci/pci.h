/* The host's PCI functions: what there is, what may be given to a VM, and virtual functions switched on.
 * Pure: configuration space is reached through a struct pci_config. Segment 0. Nothing a device says is
 * believed before it was checked, every walk is bounded, and every wait for a device ends. */
#pragma once

#include "drivers/mmio.h"
#include "drivers/pci/pci_regs.h"
#include "hv/lib/bdf.h"

/* Configuration space. size is 1, 2 or 4, offset naturally aligned and below 4096. Where nothing is, or the
 * machine offers no way to reach offset >= 256, a read gives all ones (of that size) and a write does
 * nothing. The real one (drivers/pci/pci_config_hw.c) may be used on every CPU. */
struct pci_config {
    void *ctx;
    uint32_t (*read)(void *ctx, uint16_t bdf, uint32_t offset, unsigned size);
    void (*write)(void *ctx, uint16_t bdf, uint32_t offset, unsigned size, uint32_t value);
};

struct pci_bar {
    uint64_t base, size; /* bytes. base 0: not placed; size a power of two, 0: no BAR (or an upper half) */
    uint8_t kind;        /* enum pci_bar_kind */
};

struct pci_window {
    uint64_t base, limit; /* inclusive; base > limit: closed */
};
enum pci_window_kind { PCI_WINDOW_IO, PCI_WINDOW_MEMORY, PCI_WINDOW_PREFETCH, PCI_WINDOWS };

struct pci_sriov {
    uint16_t total;            /* TotalVFs; 0: no SR-IOV */
    uint16_t count;            /* NumVFs while they are enabled, else 0 */
    uint16_t offset, stride;   /* as read last: they may change with NumVFs and ARI */
    uint16_t vf_device;        /* the VFs' device id; their vendor is the PF's */
    uint32_t page_sizes;       /* supported: bit n = 2^(n+12) bytes */
    struct pci_bar vf_bars[6]; /* base of VF 0's, size of one VF's */
};

#define PCI_NO_PARENT UINT16_MAX

struct pci_device {
    uint16_t bdf, vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* 24 bits: class << 16 | subclass << 8 | interface */
    uint8_t revision;
    uint8_t header; /* type: 0 endpoint, 1 bridge, 2 CardBus */
    bool multifunction;
    struct pci_bar bars[PCI_BARS];

    uint8_t secondary, subordinate; /* bridge: buses below; 0: none */
    struct pci_window windows[PCI_WINDOWS];

    /* Offsets of capabilities; 0: absent. */
    uint8_t pcie, msix, msi, pm, af;
    uint16_t sriov_cap, acs, ari, ats, pri, pasid;
    /* As the scan found them, ACS Control as pci_acs_enable() left it: what a reset gives back. */
    uint16_t devctl; /* payload sizes that the path to memory takes */
    uint16_t link;   /* Link Control */
    uint16_t devctl2;
    uint16_t acs_control;

    uint8_t exp_type;  /* enum pci_exp_type; meaningful when pcie != 0 */
    bool has_flr;      /* PCIe function level reset or AF's; every VF */
    uint16_t acs_caps; /* PCI_ACS_* that it can switch on; what it lacks is hard-wired to redirect */
    bool has_devctl2;
    bool acs_refused;    /* they did not stick */
    uint16_t msix_count; /* entries; 0: no usable MSI-X */
    uint8_t msix_bar, msix_pba_bar;
    uint32_t msix_offset, msix_pba_offset; /* bytes into those BARs */
    struct pci_sriov sriov;

    uint16_t parent; /* index of the bridge above it; PCI_NO_PARENT: on a root bus. A VF's: its PF's */
    uint16_t group;  /* isolation group: the index of its first member */
    bool is_vf;
    uint16_t pf, vf_index; /* of a VF: its PF's bdf, and which one it is (from 0) */
};

/* In the order found: bus by bus from the roots, bridges before what is behind them; VFs come last. */
struct pci_inventory {
    uint32_t count, capacity;
    struct pci_device *devices; /* the caller's */
    uint32_t dropped;           /* functions that did not fit */
    bool passive;               /* in: nothing is written, so that sizes of BARs stay unknown (0) */
    uint64_t roots[4]; /* in: bit b%64 of word b/64 set: b is a root bus. All 0: every bus is tried */
};

/* ---- finding ---- */

/* Fills the inventory and sorts it into isolation groups. The only writes are those of BAR sizing (with the
 * function's decoders off, everything put back; none when `passive`). ERR_NO_MEMORY: `capacity` was too
 * small, see `dropped`; what fits is there. */
enum status pci_scan(struct pci_inventory *inv, const struct pci_config *cfg);
/* NULL: no such function. */
struct pci_device *pci_find(const struct pci_inventory *inv, uint16_t bdf);
/* The nth (from 0) function with these ids, VFs left out; NULL: there are not so many. */
struct pci_device *pci_find_id(const struct pci_inventory *inv, uint16_t vendor, uint16_t device,
                               unsigned nth);
/* VF number `index` of an enabled PF, or NULL. */
struct pci_device *pci_find_vf(const struct pci_inventory *inv, uint16_t pf, uint16_t index);
/* One line about a function: its name, ids and kind, its isolation group, and what pci_verdict() says, or,
 * with the name of its `owner`, "given to OWNER". NULL: it has none. */
void pci_describe(const struct pci_inventory *inv, const struct pci_device *dev, const char *owner,
                  char *line, size_t size);
/* The n-th (from 0) line about it in detail. False: there are no more; an empty line: nothing to say here. */
bool pci_detail(const struct pci_inventory *inv, const struct pci_device *dev, const char *owner, uint32_t n,
                char *line, size_t size);
/* What a class code means, for people: "Ethernet controller". Never NULL. */
const char *pci_class_name(uint32_t class_code);

/* ---- isolation (drivers/pci/pci_groups.c) ---- */

/* Computes `group` of every function anew: functions that can reach each other without passing the IOMMU are
 * in one group. */
void pci_group(struct pci_inventory *inv);
/* Switches on ACS (SV, RR, CR, UF) wherever it is, and DT off, by which requests that a device calls
 * translated go past the IOMMU; where the bits do not stick, the groups grow. */
void pci_acs_enable(struct pci_inventory *inv, const struct pci_config *cfg);
/* Another function of dev's group that is not a bridge, or NULL: dev is isolated. `after`: NULL, or the last
 * answer, to list all. */
struct pci_device *pci_group_mate(const struct pci_inventory *inv, const struct pci_device *dev,
                                  const struct pci_device *after);
/* Do its requests reach the IOMMU under its own id? Not from behind a bridge to conventional PCI, which puts
 * its own there (PCI Express to PCI/PCI-X Bridge Specification 1.0, 2.3). */
bool pci_has_own_id(const struct pci_inventory *inv, const struct pci_device *dev);
/* Bridges, chipset, displays: no VM ever gets one. */
bool pci_is_machine(const struct pci_device *dev);
/* Why it may or may not be given to a VM, for people: "assignable", "needs ACS: shares a group with 00:1f.2",
 * "a bridge" ... True: assignable. Knows nothing about an IOMMU. */
bool pci_verdict(const struct pci_inventory *inv, const struct pci_device *dev, char *text, size_t size);

/* ---- control ---- */

/* Bus Master Enable. */
void pci_master(const struct pci_config *cfg, const struct pci_device *dev, bool on);
/* Memory Space Enable. */
void pci_memory(const struct pci_config *cfg, const struct pci_device *dev, bool on);
/* Takes bus mastering from every function but bridges and displays (a display's is taken with `displays`,
 * when an IOMMU stands between). How many were changed. */
unsigned pci_quiesce(const struct pci_inventory *inv, const struct pci_config *cfg, bool displays);
/* Bus mastering on in every bridge above dev, which otherwise forwards nothing. */
void pci_master_path(const struct pci_inventory *inv, const struct pci_config *cfg,
                     const struct pci_device *dev);

/* Can it be reset without anybody else? By FLR, or because it is alone behind its port. */
bool pci_can_reset(const struct pci_inventory *inv, const struct pci_device *dev);
/* Reset: bus mastering off, out of D3, pending transactions awaited, function level reset (or a secondary bus
 * reset by the port), 100 ms, the function awaited, VFs that its last owner made taken away, its BARs and
 * what else firmware set put back; of a VF Command.MEM always. It is left without bus mastering.
 * ERR_UNSUPPORTED: it cannot be. ERR_EXISTS: it has VFs that are on. ERR_NOT_FOUND: it does not answer, and
 * must not be used again. why: a sentence. */
enum status pci_reset(const struct pci_inventory *inv, const struct pci_config *cfg,
                      const struct dev_env *env, const struct pci_device *dev, char *why, size_t size);

/* The same for who cannot wait: begun, and then continued whenever there is something to do. In between
 * nobody touches the function. */
enum pci_reset_step {
    PCI_RESET_NONE,
    PCI_RESET_WAKING,  /* it comes back from D3 */
    PCI_RESET_PENDING, /* transactions of it are awaited */
    PCI_RESET_BUS,     /* the port above holds its bus in reset */
    PCI_RESET_ANSWER,  /* the function resets itself */
    PCI_RESET_DONE,
    PCI_RESET_SILENT,    /* it did not answer */
    PCI_RESET_UNWILLING, /* it did, but does not take its BARs back */
};
struct pci_reset {
    uint64_t due_us;                      /* of dev_env's clock: when there is something to do next */
    uint32_t header[PCI_HEADER_SIZE / 4]; /* what is put back */
    uint16_t polls;                       /* left */
    uint8_t step;                         /* enum pci_reset_step */
};
/* Waits for nothing. STATUS_OK: it runs. Else it does not, and these are pci_reset()'s reasons for which it
 * cannot be. */
enum status pci_reset_begin(const struct pci_inventory *inv, const struct pci_config *cfg,
                            const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r,
                            char *why, size_t size);
static inline bool pci_reset_runs(const struct pci_reset *r)
{
    return r->step >= PCI_RESET_WAKING && r->step <= PCI_RESET_ANSWER;
}
/* Does what is due by now, and waits for nothing. True: it has ended. */
bool pci_reset_continue(const struct pci_inventory *inv, const struct pci_config *cfg,
                        const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r);
/* Of one that has ended: STATUS_OK, or ERR_NOT_FOUND as pci_reset(). */
enum status pci_reset_result(const struct pci_device *dev, const struct pci_reset *r, char *why, size_t size);
/* Waits for the end of one that runs. */
enum status pci_reset_await(const struct pci_inventory *inv, const struct pci_config *cfg,
                            const struct dev_env *env, const struct pci_device *dev, struct pci_reset *r,
                            char *why, size_t size);

/* Switches `count` VFs of pf on and adds them to the inventory, which must have room: ARI where the port
 * above can, BARs kept where firmware placed them well or else put into free room of the bridge's window. VFs
 * are left with bus mastering off and memory decoding on. The PF's own bus mastering is not touched.
 * ERR_UNSUPPORTED: not SR-IOV. ERR_RANGE: too many. ERR_NO_MEMORY: no room for BARs, bus numbers or in the
 * inventory. ERR_NOT_FOUND: the VFs do not answer. ERR_EXISTS: they are on already. On failure they are off.
 */
enum status pci_sriov_enable(struct pci_inventory *inv, const struct pci_config *cfg,
                             const struct dev_env *env, struct pci_device *pf, uint16_t count, char *why,
                             size_t size);
/* Switches them off (1 s) and takes them out of the inventory: pointers to VFs behind them move. */
void pci_sriov_disable(struct pci_inventory *inv, const struct pci_config *cfg, const struct dev_env *env,
                       struct pci_device *pf);
