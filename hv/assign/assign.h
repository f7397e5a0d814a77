/* Who owns a device that a VM can have: the state machine, and the order of each hand-over. Pure: what is
 * done to the device, the IOMMU and the PF's driver is done by callbacks (hv/assign/vm_assign.c).
 *
 *   host ──quiesce──▶ quiesced ──build──▶ built ──give──▶ owned ──revoke──▶ revoked ──return──▶ host
 *                                                      ▲     │                ▲
 *                                                    give  begin              │
 *                                                      └─ resetting ──revoke──┘
 *
 * Quiesced: no bus mastering, reset. Built: its DMA reaches the VM's memory and nothing else, its interrupts
 * are remapped. Resetting: its owner asked for a reset, which takes its time; nobody waits for it, and the
 * device can do nothing. Whatever fails on the way to a VM leads through revoked back to the host. A device
 * that could not be reset, or whose translations could not be taken away, is quarantined: no bus mastering,
 * and nobody gets it again. */
#pragma once

#include "hv/lib/log.h"
#include "hv/lib/types.h"

enum assign_state {
    ASSIGN_HOST,
    ASSIGN_QUIESCED,
    ASSIGN_BUILT,
    ASSIGN_OWNED,
    ASSIGN_RESETTING,
    ASSIGN_REVOKED,
    ASSIGN_QUARANTINED,
    ASSIGN_STATES,
};
enum assign_event {
    ASSIGN_DID_QUIESCE,
    ASSIGN_DID_BUILD,
    ASSIGN_DID_GIVE,
    ASSIGN_DID_BEGIN_RESET,
    ASSIGN_DID_REVOKE,
    ASSIGN_DID_RETURN,
    ASSIGN_DID_FAIL, /* the device cannot be brought into a known state */
    ASSIGN_EVENTS,
};

/* The state after an event; ASSIGN_STATES: not possible in this state. */
enum assign_state assign_next(enum assign_state from, enum assign_event event);
const char *assign_state_name(enum assign_state state);

/* What has to be done to the device. `why`: a sentence, when it fails. */
struct assign_ops {
    /* Nothing but this device can be reached by it without passing the IOMMU. */
    enum status (*isolated)(void *ctx, char *why, size_t size);
    void (*master)(void *ctx, bool on); /* bus mastering */
    /* No transaction of it is under way any more when this returns, and it is as after power-on. A reset that
     * is under way is awaited instead. */
    enum status (*reset)(void *ctx, char *why, size_t size);
    /* The same without waiting. STATUS_OK: it is under way. */
    enum status (*reset_begin)(void *ctx, char *why, size_t size);
    /* Does what is due of it. True: it has ended, *result says how. */
    bool (*reset_continue)(void *ctx, enum status *result, char *why, size_t size);
    /* The part of its PF: MAC and VLAN, or queues and a namespace. After each reset. */
    enum status (*provide)(void *ctx, char *why, size_t size);
    void (*withdraw)(void *ctx); /* the opposite; also when provide() has failed */
    /* Its DMA goes through the VM's tables; or nowhere, flushed and waited for. */
    enum status (*attach)(void *ctx, char *why, size_t size);
    enum status (*detach)(void *ctx, char *why, size_t size);
    void (*interrupts_off)(void *ctx); /* none is delivered after this */
    void (*say)(void *ctx, enum log_level level, const char *text);
};

struct assign {
    const struct assign_ops *ops;
    void *ctx;
    const char *how; /* the receipt's word for its reset: "FLR done" */
    enum assign_state state;
    char why[120]; /* ASSIGN_QUARANTINED: why */
};

/* Host → owned. Bus mastering stays off: it is the guest's to switch on. On failure it is the host's again
 * (or quarantined), and `why` says what went wrong. ERR_EXISTS: it has an owner. ERR_UNSUPPORTED:
 * quarantined.
 */
enum status assign_take(struct assign *a, char *why, size_t size);
/* Owned or resetting → host, or quarantined. Nothing happens in another state. */
void assign_drop(struct assign *a);
/* Owned → resetting: the owner asked for a function level reset. A device that cannot be reset is taken away
 * and quarantined at once. In another state nothing happens. */
void assign_reset(struct assign *a);
/* Resetting → owned, when that is over: or the device is taken away and quarantined. For as long as it is
 * not, and in another state, nothing happens. Waits for provide() alone. */
void assign_continue(struct assign *a);
