/* A machine's PCI functions as a model: config spaces with their writable bits, BARs that can be sized,
 * SR-IOV that makes VFs appear, resets that take their time. It keeps an eye on the rules: what a driver must
 * not do is noted as a fault. Time passes only in the struct dev_env's delays. */
#pragma once

#include "drivers/pci/pci.h"

#define FAKE_PCI_MAX 128u

struct fake_pci_function {
    uint16_t bdf;
    bool removed;         /* answers all ones */
    bool legacy;          /* no space from 256 on */
    bool never_returns;   /* after a reset */
    int pf;               /* index of its PF; -1: no VF */
    uint64_t ready_us;    /* a reset or VFE lasts until then; all ones */
    uint64_t quiet_us;    /* and nobody may look before */
    uint64_t pending_us;  /* TRPND for so long after bus mastering went */
    uint64_t pending_end; /* ... which is then */
    uint64_t held_us;     /* a bridge: since when its bus is in reset */
    uint32_t reset_us;    /* how long a reset takes; default 100 ms */
    unsigned resets;
    uint32_t pcie, af, sriov, pm; /* capabilities, found by fake_pci_finish() */
    uint16_t offset_without_ari;  /* First VF Offset while ARI is off; 0: the same */
    bool refuses_vfs;             /* VFE does not stick */
    bool acs_stuck;               /* ACS control is read-only */
    bool bars_stuck;              /* BARs are, from a reset on */
    bool keeps_vfs;               /* over a reset */
    uint8_t space[4096], mask[4096];
    uint8_t vf_space[256];
};

struct fake_pci {
    uint32_t count;
    uint64_t now_us;
    struct pci_config cfg;
    struct dev_env env;
    bool no_extended; /* CF8 only */
    unsigned reads, writes;
    unsigned faults; /* rules broken */
    char fault[160]; /* the first of them */
    struct fake_pci_function f[FAKE_PCI_MAX];
};

/* An empty machine. */
void fake_pci_init(struct fake_pci *pci);
/* Adds a function with nothing but ids, class and header type. */
struct fake_pci_function *fake_pci_add(struct fake_pci *pci, uint16_t bdf, uint16_t vendor, uint16_t device,
                                       uint32_t class_code, uint8_t header);
struct fake_pci_function *fake_pci_find(struct fake_pci *pci, uint16_t bdf);
void fake_pci_put(struct fake_pci_function *f, uint32_t offset, unsigned size, uint32_t value);
uint32_t fake_pci_get(const struct fake_pci_function *f, uint32_t offset, unsigned size);
/* Makes a BAR of `size` bytes out of the register's present value (its low bits say which kind). `offset` is
 * that of the register. */
void fake_pci_bar(struct fake_pci_function *f, uint32_t offset, uint64_t size);
/* Once a function's bytes are there: which bits can be written. */
void fake_pci_finish(struct fake_pci_function *f);
/* Reads a file of tests/vectors/pci. False: it is not there or wrong. */
bool fake_pci_load(struct fake_pci *pci, const char *path);
