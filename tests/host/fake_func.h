/* A real PCI function behind a struct vpci_env: its configuration space and memory, what is mapped, mastering
 * and delivering, and a record of what was done. A broken promise of vpci (a write to configuration space
 * that is not allowed, calls that do not alternate, a BAR outside the windows, a touch while it is reset)
 * aborts. */
#pragma once

#include "drivers/vdev/vpci.h"
#include "tests/host/fake_vdev_env.h"

#define FAKE_FUNC_EVENTS 256u
#define FAKE_FUNC_BAR    0x8000u /* bytes of memory behind each BAR */

/* Where the capabilities are; each kind of function has some of them. */
enum {
    FAKE_CAP_PM = 0x40,
    FAKE_CAP_MSI = 0x50,
    FAKE_CAP_VENDOR = 0x68,
    FAKE_CAP_MSIX = 0x70,
    FAKE_CAP_AF = 0x80,
    FAKE_CAP_PCIE = 0xa0,
};

#define FAKE_WINDOW0    0xc0000000ull
#define FAKE_WINDOW0_TO 0xdfffffffull
#define FAKE_WINDOW1    0x100000000ull
#define FAKE_WINDOW1_TO 0x1ffffffffull

enum fake_event_kind {
    EV_HOST_WRITE,
    EV_MAP,
    EV_UNMAP,
    EV_MASTER,
    EV_IRQ,
    EV_IRQ_STOP,
    EV_FLR,
    EV_NOTE,
    EV_MMIO
};
struct fake_func_event {
    enum fake_event_kind kind;
    uint64_t a, b; /* offset or BAR or entry; value or gpa or message's address */
};

struct fake_func {
    struct vpci_env env;
    struct vpci_setup setup;
    uint8_t config[4096];
    uint8_t bars[PCI_BARS][FAKE_FUNC_BAR];
    /* State. */
    bool mapped[PCI_BARS], mastering;
    uint64_t mapped_at[PCI_BARS];
    bool live[MSIX_MAX_ENTRIES];
    uint64_t address[MSIX_MAX_ENTRIES];
    uint32_t data[MSIX_MAX_ENTRIES];
    bool picky; /* it refuses messages that are none */
    unsigned flrs, notes;
    bool slow, resetting; /* slow: a reset lasts until the test says that it does not */
    const char *note;
    /* Record; cleared by the test. */
    struct fake_func_event events[FAKE_FUNC_EVENTS];
    unsigned count;
};

/* A VF as of an 82576: BAR0 and BAR3 of 16 KiB (64-bit), MSI-X with 3 entries in BAR3, PBA in its own page,
 * PCIe with FLR. */
void fake_func_vf(struct fake_func *f);
/* A whole function: a 64-bit BAR of 32 KiB with registers, MSI-X table (70 entries) and PBA in one page, an
 * I/O BAR, a BAR of 256 bytes, PM, AF, vendor-specific. */
void fake_func_pf(struct fake_func *f);
/* A function with MSI only: 64-bit, and with mask bits. */
void fake_func_msi(struct fake_func *f);
/* A real dword. */
uint32_t fake_func_dword(const struct fake_func *f, uint32_t offset);
void fake_func_put(struct fake_func *f, uint32_t offset, uint32_t value, unsigned size);
