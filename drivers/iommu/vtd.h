/* VT-d behind iommu.h: what its files share. A unit owns a page for this struct, one for its root table, one
 * for its invalidation queue, one for its interrupt remapping table, and one per bus that has a function in a
 * domain. */
#pragma once

#include "drivers/iommu/iommu.h"
#include "drivers/iommu/vtd_regs.h"

#define VTD_ENTRIES  512u /* words of a page */
#define VTD_IRTES    256u /* of 16 bytes: one page */
#define VTD_IRQ_MAX  32u  /* of one allocation */
#define VTD_ID_WORDS 4u

struct vtd_unit {
    struct iommu *iommu; /* ---- constant after vtd_unit_probe() */
    struct mmio regs;
    hpa_t base; /* of the registers */
    hpa_t self; /* of this struct, which the unit writes `done` of */
    uint16_t segment;
    uint8_t index;
    bool all; /* has what no other unit names */
    uint64_t cap, ecap;
    uint64_t *root, *queue, *irtes;
    hpa_t root_at, queue_at, irtes_at;
    uint32_t left_on;     /* GSTS as the firmware left it */
    struct spinlock lock; /* ---- guards the rest, and the tables */
    bool on;              /* translation is on, with our tables */
    bool broken;          /* did not do what it was told in time: nothing behind it is to be trusted */
    uint32_t tail;        /* of the queue, in descriptors */
    uint32_t sequence;    /* of the last wait descriptor */
    uint32_t done;        /* written by the unit: sequence of the last wait it has passed */
    uint64_t irte_used[VTD_IRTES / 64];
    uint64_t faults, lost; /* records seen; times that some did not fit */
};

/* A function, or all below a bridge, that the DMAR table says is behind a unit. */
struct vtd_scope {
    uint16_t bdf;
    uint8_t first_bus, last_bus; /* first 0: a function only */
    uint8_t unit;
    bool ioapic; /* that function speaks for an IOAPIC, and need not exist */
    uint8_t ioapic_id;
};

struct iommu_reserved {
    uint16_t bdf;
    bool relaxable; /* USB and displays: only needed until an operating system drives the function */
    struct iommu_domain domain;
};

/* ---- vtd_queue.c: the unit's lock is held (or nobody else knows the unit) ---- */

/* What is to be flushed, as descriptors; a wait is added. */
struct vtd_batch {
    unsigned count;
    uint64_t words[8][2];
};
void vtd_flush_context(struct vtd_batch *b, uint16_t bdf, uint16_t id);
void vtd_flush_context_all(struct vtd_batch *b);
void vtd_flush_domain(const struct vtd_unit *unit, struct vtd_batch *b, uint16_t id);
void vtd_flush_iotlb_all(const struct vtd_unit *unit, struct vtd_batch *b);
/* [iova, iova + size): by pages when the unit can, else the whole domain. */
void vtd_flush_range(const struct vtd_unit *unit, struct vtd_batch *b, uint16_t id, uint64_t iova,
                     uint64_t size);
void vtd_flush_irte(struct vtd_batch *b, uint32_t index);
void vtd_flush_irtes_all(struct vtd_batch *b);
/* Hands them to the unit and waits until it has done them all. ERR_NOT_FOUND: it has not; it is broken. */
enum status vtd_queue_run(struct vtd_unit *unit, const struct vtd_batch *b);
/* Drains a queue that somebody else has left running, and switches it off. */
enum status vtd_queue_stop(struct vtd_unit *unit);
enum status vtd_queue_start(struct vtd_unit *unit);

/* ---- vtd_unit.c ---- */

/* Maps a unit, checks what it can do, and takes its pages; touches nothing. Sentence in why. */
enum status vtd_unit_probe(struct iommu *iommu, const struct acpi_dmar_unit *at, uint8_t index, char *why,
                           size_t size);
/* Switches it on with the tables it has. */
enum status vtd_unit_start(struct vtd_unit *unit, char *why, size_t size);
/* Changes one bit of GCMD and waits until GSTS shows `want` in that bit. False: not in time. */
bool vtd_command(struct vtd_unit *unit, uint32_t bit, bool on, bool want);
/* Polls until (register & mask) == want, at most IOMMU_WAIT_US. */
bool vtd_wait32(const struct vtd_unit *unit, uint32_t reg, uint32_t mask, uint32_t want);
/* A new entry was made: the unit's write buffers are told, if it has some that do not look for themselves. */
bool vtd_publish(struct vtd_unit *unit);
/* Changes of [at, at + size) are to be seen by a unit that does not look into the CPU's caches. */
void vtd_unit_write_back(const struct vtd_unit *unit, const void *at, size_t size);
/* A zeroed page that is zeroed for the unit as well; NULL: none left. Counted. */
uint64_t *vtd_page(struct iommu *iommu, hpa_t *at);

/* ---- vtd_tables.c: a domain's tables; its lock is held ---- */

enum status vtd_tables_create(struct iommu_domain *d);
void vtd_tables_destroy(struct iommu_domain *d);
enum status vtd_tables_map(struct iommu_domain *d, uint64_t iova, uint64_t at, uint64_t size, unsigned flags);
enum status vtd_tables_unmap(struct iommu_domain *d, uint64_t iova, uint64_t size);
enum status vtd_tables_lookup(const struct iommu_domain *d, uint64_t iova, hpa_t *at, unsigned *flags);

/* ---- vtd_context.c: the unit's lock is held ---- */

/* The entry of a function: two words; NULL: its bus has no table (yet). */
uint64_t *vtd_context(const struct vtd_unit *unit, uint16_t bdf);
/* Without flushing. ERR_EXISTS: it is in a domain. ERR_NO_MEMORY. */
enum status vtd_context_set(struct vtd_unit *unit, uint16_t bdf, const struct iommu_domain *d);
/* With what the hardware must be told: set on a unit that is on, and cleared. */
enum status vtd_context_attach(struct vtd_unit *unit, uint16_t bdf, const struct iommu_domain *d);
enum status vtd_context_detach(struct vtd_unit *unit, uint16_t bdf, const struct iommu_domain *d);

/* ---- vtd_scope.c ---- */

/* The functions that scopes name, now: at most `capacity`; *count of them. Paths that lead nowhere are left
 * out: nothing is there. ERR_NO_MEMORY: more than fit. */
enum status vtd_scopes_resolve(const struct pci_config *config, const struct acpi_dmar *dmar,
                               struct acpi_dmar_scopes scopes, uint8_t unit, struct vtd_scope *out,
                               unsigned capacity, unsigned *count);
/* Adds those that speak for IOAPICs, as many as fit. */
void vtd_scopes_ioapics(const struct acpi_dmar *dmar, struct acpi_dmar_scopes scopes, uint8_t unit,
                        struct vtd_scope *out, unsigned capacity, unsigned *count);
/* The unit of a function; NULL: none. */
struct vtd_unit *vtd_unit_of(const struct iommu *iommu, uint16_t bdf);
