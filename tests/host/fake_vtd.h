/* A model of VT-d units: registers, the invalidation queue, table walks, and caches that keep what they have
 * until they are told to forget it. It is as lazy as the specification allows: every translation, context,
 * table pointer and interrupt entry that was used once is used again without looking, a unit without
 * coherency sees only what was written back, and one with a write buffer only what was flushed. Breaches of
 * the rules of the registers are kept in `breach`. */
#pragma once

#include "drivers/iommu/iommu.h"

#define FAKE_VTD_UNITS   4u
#define FAKE_VTD_PAGES   384u
#define FAKE_VTD_RAM     0x700000000ull /* host address of the pages for tables */
#define FAKE_VTD_BASE    0xfed90000ull  /* of unit 0's registers; the others' follow at this distance: */
#define FAKE_VTD_STEP    0x10000ull
#define FAKE_VTD_CACHE   256u
#define FAKE_VTD_RECORDS 8u
#define FAKE_VTD_DEVICES 96u

/* What QEMU's unit has, with aw-bits=48 and eim=on. */
#define FAKE_VTD_CAP  0x00d2008c222f0606ull
#define FAKE_VTD_ECAP 0x0000000000f00f5aull

struct fake_vtd;

struct fake_vtd_context {
    bool valid;
    uint16_t bdf, id; /* id 0: that nothing is there */
    uint64_t low, high;
};
/* A translation, or (level > 1) where a table is. */
struct fake_vtd_entry {
    bool valid, absent;
    uint16_t id;
    uint8_t level; /* 0: a translation; else the level of the table at `to` */
    uint64_t from, size, to, access;
};
struct fake_vtd_irte {
    bool valid;
    uint64_t low, high;
};

struct fake_vtd_unit {
    struct fake_vtd *fake;
    uint64_t cap, ecap;
    uint32_t gsts, fsts, fectl, pmen;
    uint64_t rtaddr, iqa, iqh, iqt, irta;
    uint64_t root, table; /* latched from rtaddr and irta */
    uint64_t records[FAKE_VTD_RECORDS][2];
    uint32_t next_record;
    struct fake_vtd_context contexts[FAKE_VTD_CACHE];
    struct fake_vtd_entry entries[FAKE_VTD_CACHE];
    uint32_t next_context, next_entry;
    struct fake_vtd_irte irtes[256];
    uint64_t (*buffered)[512]; /* what has passed the write buffer; NULL: there is none */

    /* how it behaves */
    bool dead;          /* all ones */
    bool hangs;         /* its queue does nothing */
    bool queue_error;   /* its queue stops with an error at the next descriptor */
    uint32_t deaf;      /* bits of GCMD that it does not obey */
    bool keeps_regions; /* PRS does not go away */

    /* what was seen */
    uint32_t translation_drops; /* TE was on and went off */
    uint32_t remapping_drops;
    uint32_t flushes; /* descriptors but waits */
    uint32_t waits;
    bool map_refused;
};

struct fake_vtd_device {
    uint16_t bdf;
    uint32_t class_code; /* 24 bits */
    uint8_t header, secondary, subordinate;
};

struct fake_vtd {
    uint32_t unit_count;
    struct fake_vtd_unit units[FAKE_VTD_UNITS];
    uint64_t (*cpu)[512];    /* memory as CPUs see it */
    uint64_t (*memory)[512]; /* and as it is without their caches */
    bool used[FAKE_VTD_PAGES];
    uint32_t in_use, limit;
    uint64_t now;
    uint32_t device_count;
    struct fake_vtd_device devices[FAKE_VTD_DEVICES];
    uint64_t guest_base, guest_size; /* what is_guest_memory() says yes to */
    bool peeking;                    /* fake_vtd_peek() is under way */
    void (*changed)(void *ctx);      /* called after each change of memory; NULL: nobody */
    void *changed_ctx;
    const char *breach;           /* the first rule broken; NULL: none */
    uint64_t stores, write_backs; /* into tables; lines */
    struct pt_env pages;
    struct iommu_env env;
    struct pci_config config;
};

/* `count` units of these capabilities. */
void fake_vtd_init(struct fake_vtd *f, uint32_t count, uint64_t cap, uint64_t ecap);
void fake_vtd_free(struct fake_vtd *f);
/* A unit's write buffer, when its capabilities have RWBF: call after changing `cap`. */
void fake_vtd_rewire(struct fake_vtd *f);
void fake_vtd_add_device(struct fake_vtd *f, uint16_t bdf, uint32_t class_code);
void fake_vtd_add_bridge(struct fake_vtd *f, uint16_t bdf, uint8_t secondary, uint8_t subordinate);
/* A DMAR table of `count` units at the fake's addresses, the last one with all that the others do not name.
 */
void fake_vtd_dmar(const struct fake_vtd *f, struct acpi_dmar *dmar);
/* Adds a scope; returns its index. */
uint16_t fake_vtd_scope(struct acpi_dmar *dmar, uint8_t type, uint8_t bus, uint8_t depth,
                        const uint8_t *path);

/* A device's access of a few bytes, through this unit. True: it passes, and *at is where it goes. */
bool fake_vtd_dma(struct fake_vtd *f, unsigned unit, uint16_t bdf, uint64_t iova, bool write, uint64_t *at);
/* The same as a unit would answer that has nothing in its caches; neither they nor the fault records change.
 */
bool fake_vtd_peek(struct fake_vtd *f, unsigned unit, uint16_t bdf, uint64_t iova, bool write, uint64_t *at);
/* A device's interrupt message. True: it passes to this APIC id and vector. */
bool fake_vtd_interrupt(struct fake_vtd *f, unsigned unit, uint16_t bdf, uint64_t address, uint32_t data,
                        uint32_t *apic_id, uint8_t *vector);
/* Forgets everything cached, as time alone may do. */
void fake_vtd_evict(struct fake_vtd *f);
