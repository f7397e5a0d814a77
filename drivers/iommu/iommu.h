/* The machine's IOMMUs: what a device's DMA can reach, and which interrupts it can raise. Vendor-neutral; the
 * backend is VT-d (vtd.h). Pure: registers, memory and time come in as struct iommu_env. Segment 0 only.
 *
 * After iommu_init() no device reaches any memory, and none can interrupt any CPU, but what iommu_attach()
 * and iommu_irq_route() allow, and the firmware's reserved ranges for the devices that the firmware named.
 *
 * Every function may be called on every CPU after iommu_init(); calls about the same domain, or about the
 * same function's interrupts, wait for each other. A change that takes something away is in force when the
 * call returns: the hardware's caches were flushed, and it has said that it is done. ERR_NOT_FOUND from such
 * a call that names things which exist means that the unit did not say so within IOMMU_WAIT_US: nothing that
 * the device could reach may be used again. Lock order: domain, iommu, unit; then log. */
#pragma once

#include "arch/x86/pt_env.h"
#include "drivers/acpi/acpi_dmar.h"
#include "drivers/mmio.h"
#include "drivers/pci/pci.h"
#include "hv/lib/lock.h"

#define IOMMU_MAX_UNITS   ACPI_DMAR_UNITS
#define IOMMU_MAX_DOMAINS 255u
#define IOMMU_WAIT_US     1000000u /* longest wait for a unit */

enum iommu_flags { IOMMU_READ = 1, IOMMU_WRITE = 2 };

/* Where interrupt messages are written: never memory for a device (VT-d specification 4.1, 3.14). */
#define IOMMU_MSI_BASE 0xfee00000ull
#define IOMMU_MSI_SIZE 0x100000ull

struct iommu_env {
    void *ctx;
    const struct pt_env *pages; /* zeroed pages for tables; store NULL: a plain store */
    /* Maps a unit's registers uncached; false: no room. */
    bool (*map)(void *ctx, hpa_t base, uint64_t size, struct mmio *out);
    /* Writes [at, at + size) back from the CPU's caches to memory and waits for it: for units that do not
     * look into the caches. */
    void (*write_back)(void *ctx, const void *at, size_t size);
    uint64_t (*now_us)(void *ctx);
    /* Is any byte of it memory that guests get? Then a device of the firmware's may not have it. */
    bool (*is_guest_memory)(void *ctx, uint64_t base, uint64_t size);
    bool x2apic; /* the host's local APICs are in x2APIC mode */
};

struct iommu;
struct vtd_unit;
struct vtd_scope;

/* What some functions can reach: one per VM, one per host driver that does DMA. All 0 before
 * iommu_domain_create() and after iommu_domain_destroy(). */
struct iommu_domain {
    struct iommu *iommu;
    struct spinlock lock; /* guards what follows */
    hpa_t root;
    uint16_t id;
    uint8_t levels;
    uint32_t attached;              /* functions */
    uint64_t table_pages;           /* root included */
    uint8_t users[IOMMU_MAX_UNITS]; /* functions, by unit: which units have to be told of changes */
};

struct iommu_reserved; /* a function with reserved ranges, and its domain */

struct iommu {
    const struct iommu_env *env; /* C after iommu_init() */
    bool ready;                  /* C. every unit is on, with our tables */
    uint32_t unit_count;         /* C */
    struct vtd_unit *units[IOMMU_MAX_UNITS];
    bool can_remap, eim;             /* C */
    bool coherent, has_2m, has_1g;   /* C. what all units have */
    uint8_t width, levels;           /* C. bits of an address in a domain; levels of tables */
    uint16_t max_id;                 /* C. highest domain id */
    uint32_t scope_count;            /* C */
    struct vtd_scope *scopes;        /* C. which unit has what */
    uint32_t reserved_count;         /* C */
    struct iommu_reserved *reserved; /* C but for their domains */
    struct spinlock lock;            /* guards ids and domains */
    uint64_t ids[4];                 /* bit set: domain id in use */
    uint32_t domains;                /* in use; those of reserved ranges included */
    uint32_t interrupts;             /* A. in use */
    uint64_t pages;                  /* A. taken from env->pages, but for domains' tables; they stay taken */
};

/* Switches every unit on: nothing translates, interrupts are remapped, faults are kept. What the firmware
 * left on is taken over without a moment in which DMA passes that did not before. Bus mastering is off
 * everywhere but in bridges and displays (pci_quiesce()). Boot CPU, once. On failure nothing can be attached,
 * and units already switched on stay so. ERR_UNSUPPORTED, ERR_NOT_FOUND, ERR_NO_MEMORY or ERR_INVALID with a
 * sentence in why. `dmar`, `config` and `why` are not kept; env and what it points to are. */
enum status iommu_init(struct iommu *iommu, const struct acpi_dmar *dmar, const struct pci_config *config,
                       const struct iommu_env *env, char *why, size_t size);
/* Is everything on, so that devices can be given away? */
bool iommu_present(const struct iommu *iommu);
/* With interrupts? If not, no device may be given away: it could forge any interrupt. */
bool iommu_can_remap(const struct iommu *iommu);
/* Is any of it a unit's registers? */
bool iommu_is_registers(const struct iommu *iommu, uint64_t base, uint64_t size);
/* May this function be given to a VM, as far as its memory goes? false: the firmware keeps a range for it, or
 * no unit has it; a sentence in why. pf: bdf itself, or a VF's PF, whose unit is the VF's. */
bool iommu_assignable(const struct iommu *iommu, uint16_t bdf, uint16_t pf, char *why, size_t size);

/* ---- memory ---- */

/* ERR_NO_MEMORY: no page, or no id left. ERR_UNSUPPORTED: iommu_present() is false. */
enum status iommu_domain_create(struct iommu *iommu, struct iommu_domain *domain, char *why, size_t size);
/* Frees its tables. Nothing is attached to it any more (else ERR_EXISTS, and nothing is done). */
enum status iommu_domain_destroy(struct iommu_domain *domain);
/* Lets the domain's functions reach [at, at + size) at iova; whole pages; flags IOMMU_READ, or with
 * IOMMU_WRITE. ERR_EXISTS: part of it is mapped. ERR_RANGE: beyond what the units translate, or it touches
 * IOMMU_MSI_BASE on either side. ERR_NO_MEMORY. On failure nothing has changed. */
enum status iommu_map(struct iommu_domain *domain, uint64_t iova, hpa_t at, uint64_t size, unsigned flags);
/* Takes it away; holes are fine. ERR_NO_MEMORY (a large page must be split): nothing changed. */
enum status iommu_unmap(struct iommu_domain *domain, uint64_t iova, uint64_t size);
/* Translation of one address; ERR_NOT_FOUND: none. */
enum status iommu_lookup(struct iommu_domain *domain, uint64_t iova, hpa_t *at, unsigned *flags);
/* Puts a function into a domain. It must be quiet (bus mastering off, reset). ERR_EXISTS: it is in one.
 * ERR_NOT_FOUND: no unit has it. ERR_INVALID: the firmware keeps a range for it. */
enum status iommu_attach(struct iommu *iommu, uint16_t bdf, uint16_t pf, struct iommu_domain *domain);
/* Takes it out again: it reaches nothing. ERR_INVALID: it is not in that domain. */
enum status iommu_detach(struct iommu *iommu, uint16_t bdf, uint16_t pf, struct iommu_domain *domain);

/* ---- interrupts ---- */

/* `count` (1..32) interrupts of one function, masked; *handle is the first's, the others' follow it.
 * ERR_NO_MEMORY: none left. ERR_NOT_FOUND: no unit has the function. ERR_UNSUPPORTED: no remapping. */
enum status iommu_irq_alloc(struct iommu *iommu, uint16_t bdf, uint16_t pf, uint32_t count, uint32_t *handle);
/* Masks and frees them. ERR_INVALID: not that function's. */
enum status iommu_irq_free(struct iommu *iommu, uint16_t bdf, uint32_t handle, uint32_t count);
/* From now on it goes, edge-triggered and fixed, to this CPU and vector (16..254), from no other function.
 * ERR_RANGE: vector or APIC id not possible. ERR_INVALID: no such handle. */
enum status iommu_irq_route(struct iommu *iommu, uint32_t handle, uint32_t apic_id, uint8_t vector);
/* The function in whose name an IOAPIC's interrupts arrive, which is their owner; id: as in the MADT. false:
 * the DMAR table does not say. */
bool iommu_ioapic(const struct iommu *iommu, uint8_t id, uint16_t *bdf);
/* The index of an interrupt in its unit's table, which an IOAPIC's input must hold. */
uint16_t iommu_irq_index(uint32_t handle);
/* From now on it goes nowhere. */
enum status iommu_irq_mask(struct iommu *iommu, uint32_t handle);
/* What the function's MSI or MSI-X entry must hold to raise it. */
void iommu_irq_message(const struct iommu *iommu, uint32_t handle, uint64_t *address, uint32_t *data);

/* ---- faults ---- */

struct iommu_fault {
    uint64_t address; /* page of a blocked access; of an interrupt: its index */
    uint16_t bdf;
    uint8_t reason; /* iommu_reason_text() */
    bool write;     /* of an access: else a read */
    bool interrupt;
};

/* Takes at most `max` faults from the units; how many. *lost (NULL: not asked for): set when a unit had to
 * drop some. Never waits for a lock. */
unsigned iommu_poll_faults(struct iommu *iommu, struct iommu_fault *out, unsigned max, bool *lost);
/* "no mapping", "not readable" ...; never NULL. */
const char *iommu_reason_text(uint8_t reason);

/* ---- for people ---- */

/* Line number `step` (from 0) of a description: units, what they can do, domains, interrupts. False: there
 * are no more. Takes locks for a few instructions only. */
bool iommu_line(struct iommu *iommu, uint32_t step, char *line, size_t size);
