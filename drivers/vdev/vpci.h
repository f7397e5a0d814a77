/* An assigned function (a VF, or a whole physical function) as its guest sees it: an ordinary endpoint on the
 * guest's bus 0. Configuration space is emulated; of the guest's writes, only Enable and Function Mask of
 * MSI-X (Enable and mask of MSI) ever reach the real one. Everything else that is real happens through the
 * callbacks of a struct vpci_env. Everything here is called under the VM's device lock.
 *
 * What is shown: ids as given, class, revision and subsystem ids of the real function; memory BARs (below a
 * page in size: as one page; I/O BARs and the ROM are not shown); no INTx (neither of a VF nor of a whole
 * function); PM, PCIe (as a Root Complex Integrated Endpoint), MSI-X or else a single MSI, AF. No other
 * capability, no extended one. While the function is reset, nothing is shown: reads give all ones, writes are
 * dropped, as with a real one that is not yet ready (PCI Express Base 6.0, 6.6.2 and 2.3.1). */
#pragma once

#include "drivers/vdev/msix.h"
#include "drivers/vdev/pci_host.h"

#define VPCI_WINDOWS 3u

/* The real function, and the VM around it. */
struct vpci_env {
    void *ctx;
    /* The real function's configuration space; size 1, 2, 4, naturally aligned, offset < 256. */
    uint32_t (*host_read)(void *ctx, uint32_t offset, unsigned size);
    void (*host_write)(void *ctx, uint32_t offset, unsigned size, uint32_t value);
    /* BAR `bar` (of the size that vpci_bar_size() says, except the pages of vpci_trapped()) appears at gpa,
     * or goes away from there. gpa is page-aligned and the BAR lies in one of the setup's windows. Calls for
     * one BAR alternate. BARs of one VM may overlap when the guest wants it so: the last one wins. */
    void (*map)(void *ctx, unsigned bar, uint64_t gpa, bool on);
    /* Bus mastering of the real function. Calls alternate, beginning with true. */
    void (*master)(void *ctx, bool on);
    /* MSI-X entry (or, without MSI-X, the single MSI: entry 0) begins to deliver with the guest's message,
     * has it changed, or (masked) stops. The real entry gets *our* message; masked sets its mask bit, so that
     * the real PBA collects what is pending. The real MSI-X is enabled when this is called. (Enable and mask
     * of the single MSI are vpci's: they keep it silent before it begins and after it stops.) False: that is
     * no message that can be delivered. The entry is masked then, and the single MSI stays off. */
    bool (*irq_set)(void *ctx, unsigned entry, uint64_t address, uint32_t data, bool masked);
    /* The guest asked for a function level reset: begin it. When it is called, no BAR is mapped, bus
     * mastering is off and nothing delivers; so it stays until the reset is over. */
    void (*flr)(void *ctx);
    /* Does that still go on? Asked whenever the guest touches the configuration space, until it says no: the
     * real function has then what it needs again (BARs, Command.MEM). A function that does not come back from
     * its reset stays in it. */
    bool (*in_reset)(void *ctx);
    /* Registers in pages that vpci_trapped() names and that are not the MSI-X table's; size 1, 2, 4, 8,
     * offset (into the BAR) naturally aligned, the access inside the BAR. */
    uint64_t (*mmio_read)(void *ctx, unsigned bar, uint64_t offset, unsigned size);
    void (*mmio_write)(void *ctx, unsigned bar, uint64_t offset, unsigned size, uint64_t value);
    /* Something was refused that a driver does not do by accident; once per kind and start of the VM. */
    void (*note)(void *ctx, const char *what, uint32_t offset, uint32_t value);
};

struct vpci_bar {
    uint64_t size; /* bytes, a power of two; 0: none (or an upper half) */
    uint64_t gpa;  /* where it is at start, a multiple of max(size, 4096); 0: not placed */
    uint8_t kind;  /* enum pci_bar_kind; PCI_BAR_IO: is not shown */
};

struct vpci_window {
    uint64_t first, last; /* guest-physical, inclusive; first > last: unused */
};

struct vpci_setup {
    uint16_t guest_bdf;      /* 00:10.0 up; function 0 */
    uint16_t vendor, device; /* a VF's: its PF's vendor, and the VF device id of the SR-IOV capability */
    struct vpci_bar bars[PCI_BARS];
    uint8_t pcie, pm, msi, msix, af; /* offsets of the real capabilities, 0: absent */
    bool flr;                        /* env->flr can reset it, and the guest may know */
    uint16_t msix_count;             /* entries of the real table; 0: MSI-X is not shown */
    uint8_t msix_bar, msix_pba_bar;
    uint32_t msix_offset, msix_pba_offset; /* bytes into those BARs */
    /* Where BARs can be mapped: the guest's PCI windows. Elsewhere (over RAM, say) they are not there. */
    struct vpci_window windows[VPCI_WINDOWS];
};

struct vpci {
    struct pci_func func; /* for pci_host_add(); its reset is vpci_reset() */
    struct vpci_setup setup;
    const struct vpci_env *env;
    struct pci_space space;
    uint32_t storage[3 * PCI_SPACE_LEGACY_DWORDS];
    uint64_t shown; /* one bit per dword that belongs to the header or a capability */
    struct msix_env msix_env;
    struct msix msix;
    uint8_t pm, pcie, msi, msix_cap, af; /* offsets of the capabilities shown; 0: not shown */
    uint64_t mapped_at[PCI_BARS];        /* of the BARs in `mapped` */
    uint8_t mapped;                      /* bit per BAR */
    bool mastering;                      /* what env->master() was told last */
    bool in_reset;                       /* by env->flr(), and nobody has asked since it is over */
    bool msi_enabled, msi_masked;        /* of the real function's single MSI */
    bool msi_live;                       /* the guest wants it to deliver with ... */
    uint64_t msi_address;                /* ... this message */
    uint32_t msi_data;
    bool msi_good; /* ... of which irq_set() said that it can be delivered */
    uint8_t noted; /* bit per kind of note */
};

/* Reads the real function's header and capabilities (once). setup is copied, env stays. Nothing is mapped,
 * Command is 0, the BARs are where the setup puts them. ERR_INVALID: the setup contradicts itself, or the
 * function's MSI-X table does: it must not be assigned. A capability that is not what the setup says is not
 * shown. */
enum status vpci_init(struct vpci *v, const struct vpci_setup *setup, const struct vpci_env *env);
/* Power-on state, as after vpci_init(): what was on is first taken away through env (bus mastering, then
 * interrupts, then BARs), so call it while the real function still answers, before it is reset. */
void vpci_reset(struct vpci *v);
/* An access to BAR `bar`, at `offset` bytes into it, that was trapped. Nothing there: all ones. */
void vpci_mmio(struct vpci *v, unsigned bar, uint64_t offset, struct io_req *req);

/* Bytes that BAR `bar` takes in the guest: a power of two, at least a page; 0: not shown. The setup that
 * vpci_init() will see is enough, so that BARs can be placed with it. */
uint64_t vpci_bar_size(const struct vpci_setup *setup, unsigned bar);
/* The pages of BAR `bar` that hold the MSI-X table and must trap: bytes [*first, *first + *size), whole
 * pages. False: there are none. */
bool vpci_trapped(const struct vpci_setup *setup, unsigned bar, uint64_t *first, uint64_t *size);
/* Could BAR `bar` be mapped at gpa: is it aligned, and inside a window? */
bool vpci_bar_fits(const struct vpci_setup *setup, unsigned bar, uint64_t gpa);
/* Which mapped BAR covers gpa now, and where in it. */
bool vpci_bar_at(const struct vpci *v, uint64_t gpa, unsigned *bar, uint64_t *offset);
/* How many interrupts it can have: MSI-X entries shown, 1 (the single MSI) or 0. */
unsigned vpci_irqs(const struct vpci *v);
