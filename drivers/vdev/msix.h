/* The MSI-X table of an assigned function as its guest sees it (PCI Express Base 6.0, 7.7.2): a shadow. What
 * the guest writes never reaches the real table; whoever owns that is told which entries are to deliver, and
 * puts messages of its own there. */
#pragma once

#include "drivers/vdev/vdev.h"

/* More entries than this are not shown: a driver then uses fewer queues. */
#define MSIX_MAX_ENTRIES 64u
#define MSIX_ENTRY_SIZE  16u /* bytes */

struct msix_env {
    void *ctx;
    /* An entry begins to deliver with this message (masked = false), its message changes while it delivers
     * (again false), or it stops (true). Each call changes something. */
    void (*irq_set)(void *ctx, unsigned entry, uint64_t address, uint32_t data, bool masked);
    /* The real MSI-X Enable and Function Mask. */
    void (*control)(void *ctx, bool enabled, bool function_mask);
};

struct msix_entry {
    uint64_t address;
    uint32_t data;
    bool masked; /* its own mask bit */
};

struct msix {
    const struct msix_env *env;
    uint16_t count;              /* entries shown, 1 .. MSIX_MAX_ENTRIES */
    bool enabled, function_mask; /* as the guest has them, and so has the real function */
    uint64_t live;               /* entries of which irq_set said that they deliver */
    struct msix_entry entries[MSIX_MAX_ENTRIES];
};

/* All entries masked, MSI-X off; nothing is told. count: 1 .. MSIX_MAX_ENTRIES. */
void msix_init(struct msix *m, const struct msix_env *env, uint16_t count);
/* The same, after everything that delivers was told to stop; the real MSI-X is switched off. */
void msix_reset(struct msix *m);
/* The guest's write of Message Control. Entries are told about between two states of the real function: it is
 * enabled with Function Mask set first, and disabled last. */
void msix_control(struct msix *m, bool enabled, bool function_mask);
/* An access inside the table; offset in bytes from its start, naturally aligned. Beyond the entries shown:
 * zeros, writes are dropped. */
void msix_access(struct msix *m, uint64_t offset, struct io_req *req);
