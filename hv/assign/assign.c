#include "hv/assign/assign.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

enum assign_state assign_next(enum assign_state from, enum assign_event event)
{
    /* Every pair that is not here is impossible. */
    static const struct {
        uint8_t from, event, to;
    } table[] = {
        {ASSIGN_HOST, ASSIGN_DID_QUIESCE, ASSIGN_QUIESCED},
        {ASSIGN_QUIESCED, ASSIGN_DID_BUILD, ASSIGN_BUILT},
        {ASSIGN_BUILT, ASSIGN_DID_GIVE, ASSIGN_OWNED},
        {ASSIGN_QUIESCED, ASSIGN_DID_REVOKE, ASSIGN_REVOKED},
        {ASSIGN_BUILT, ASSIGN_DID_REVOKE, ASSIGN_REVOKED},
        {ASSIGN_OWNED, ASSIGN_DID_BEGIN_RESET, ASSIGN_RESETTING},
        {ASSIGN_RESETTING, ASSIGN_DID_GIVE, ASSIGN_OWNED},
        {ASSIGN_OWNED, ASSIGN_DID_REVOKE, ASSIGN_REVOKED},
        {ASSIGN_RESETTING, ASSIGN_DID_REVOKE, ASSIGN_REVOKED},
        {ASSIGN_REVOKED, ASSIGN_DID_RETURN, ASSIGN_HOST},
        {ASSIGN_HOST, ASSIGN_DID_FAIL, ASSIGN_QUARANTINED},
        {ASSIGN_REVOKED, ASSIGN_DID_FAIL, ASSIGN_QUARANTINED},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (table[i].from == from && table[i].event == event)
            return (enum assign_state)table[i].to;
    return ASSIGN_STATES;
}

const char *assign_state_name(enum assign_state state)
{
    static const char *const names[ASSIGN_STATES] = {"host",      "quiesced", "built",      "owned",
                                                     "resetting", "revoked",  "quarantined"};
    return (unsigned)state < ASSIGN_STATES ? names[state] : "?";
}

static void went(struct assign *a, enum assign_event event)
{
    a->state = assign_next(a->state, event);
}

/* The device is lost until the machine starts anew: it can do nothing, and nobody gets it. */
static void quarantine(struct assign *a, const char *why)
{
    char text[200];
    fmt_format(a->why, sizeof(a->why), "%s", why);
    went(a, ASSIGN_DID_FAIL);
    fmt_format(text, sizeof(text), "quarantined until the machine restarts: %s", a->why);
    a->ops->say(a->ctx, LOG_ERROR, text);
}

static void receipt(struct assign *a, const char *before, const char *after)
{
    char text[160];
    fmt_format(text, sizeof(text), "%s%s%s", before, a->how, after);
    a->ops->say(a->ctx, LOG_INFO, text);
}

static void silence(struct assign *a)
{
    a->ops->master(a->ctx, false);
    a->ops->interrupts_off(a->ctx);
}

static enum status quiesce(struct assign *a, char *why, size_t size)
{
    silence(a);
    return a->ops->reset(a->ctx, why, size);
}

/* From whatever point a hand-over had come to, back to the host. The order is the point: no new transaction,
 * no interrupt, none under way, and only then are the translations taken from under it; that also when the
 * reset failed. False: quarantined. */
static bool take_back(struct assign *a, enum status quiesced, const char *why)
{
    char also[sizeof(a->why)] = "";
    enum status flushed = a->ops->detach(a->ctx, also, sizeof(also));
    a->ops->withdraw(a->ctx);
    went(a, ASSIGN_DID_REVOKE);
    if (quiesced != STATUS_OK || flushed != STATUS_OK) {
        quarantine(a, quiesced != STATUS_OK ? why : also);
        return false;
    }
    went(a, ASSIGN_DID_RETURN);
    return true;
}

/* False: given up, and the reason is in `why`. */
static bool build(struct assign *a, char *why, size_t size)
{
    if (a->ops->provide(a->ctx, why, size) != STATUS_OK)
        return false;
    if (a->ops->attach(a->ctx, why, size) != STATUS_OK)
        return false;
    went(a, ASSIGN_DID_BUILD);
    return true;
}

enum status assign_take(struct assign *a, char *why, size_t size)
{
    if (a->state == ASSIGN_QUARANTINED) {
        fmt_format(why, size, "it is quarantined: %s", a->why);
        return ERR_UNSUPPORTED;
    }
    if (a->state != ASSIGN_HOST) {
        fmt_format(why, size, "it is %s", assign_state_name(a->state));
        return ERR_EXISTS;
    }
    enum status s = a->ops->isolated(a->ctx, why, size);
    if (s != STATUS_OK)
        return s;
    s = quiesce(a, why, size);
    if (s != STATUS_OK) {
        quarantine(a, why);
        return s;
    }
    went(a, ASSIGN_DID_QUIESCE);
    if (!build(a, why, size)) {
        char also[sizeof(a->why)] = "";
        enum status quiesced = quiesce(a, also, sizeof(also));
        (void)take_back(a, quiesced, also);
        return ERR_NOT_FOUND;
    }
    went(a, ASSIGN_DID_GIVE);
    receipt(a, "given: isolation group checked, DMA quiet, ", ", memory scrubbed, translations set");
    return STATUS_OK;
}

void assign_drop(struct assign *a)
{
    char why[sizeof(a->why)] = "";
    if (a->state != ASSIGN_OWNED && a->state != ASSIGN_RESETTING)
        return;
    enum status quiesced = quiesce(a, why, sizeof(why));
    if (take_back(a, quiesced, why))
        receipt(a, "taken back: DMA quiet, interrupts torn down, ",
                ", IOTLB flushed; memory will be scrubbed before reuse");
}

void assign_reset(struct assign *a)
{
    char why[sizeof(a->why)] = "";
    if (a->state != ASSIGN_OWNED)
        return;
    silence(a);
    enum status s = a->ops->reset_begin(a->ctx, why, sizeof(why));
    if (s == STATUS_OK)
        went(a, ASSIGN_DID_BEGIN_RESET);
    else
        (void)take_back(a, s, why);
}

void assign_continue(struct assign *a)
{
    char why[sizeof(a->why)] = "";
    enum status s = STATUS_OK;
    if (a->state != ASSIGN_RESETTING || !a->ops->reset_continue(a->ctx, &s, why, sizeof(why)))
        return;
    if (s == STATUS_OK)
        s = a->ops->provide(a->ctx, why, sizeof(why));
    if (s == STATUS_OK)
        went(a, ASSIGN_DID_GIVE);
    else
        (void)take_back(a, s, why);
}
