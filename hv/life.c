#include "hv/life.h"
#include "hv/lib/bits.h"

const char *vm_state_name(enum vm_state state)
{
    static const char *const names[VM_STATE_COUNT] = {"created", "running",  "stopping",
                                                      "stopped", "starting", "failed"};
    return (unsigned)state < ARRAY_SIZE(names) ? names[state] : "?";
}

bool life_is_live(enum vm_state state)
{
    return state == VM_STARTING || state == VM_RUNNING || state == VM_STOPPING;
}

static enum life_action refuse(const char **why, const char *text)
{
    *why = text;
    return LIFE_REFUSE;
}

/* While work is under way the wish is all that changes; whoever ends the work looks at it. */
static enum life_action wish(struct life *life, enum life_wish what)
{
    life->wish = what;
    return LIFE_NOTHING;
}

static enum life_action order_start(struct life *life, const char **why)
{
    switch (life->state) {
    case VM_CREATED:
    case VM_STOPPED:
        *life = (struct life){.state = VM_STARTING};
        return LIFE_BEGIN;
    case VM_STARTING:
        if (life->wish == WISH_STOP)
            return wish(life, WISH_NONE);
        return refuse(why, "is starting already");
    case VM_STOPPING:
        return wish(life, WISH_RUN);
    case VM_RUNNING:
        return refuse(why, "is running already");
    default:
        return refuse(why, "could not be created: see the log");
    }
}

static enum life_action order_stop(struct life *life, const char **why)
{
    switch (life->state) {
    case VM_RUNNING:
        *life = (struct life){.state = VM_STOPPING, .stop = STOP_OPERATOR, .wish = WISH_STOP};
        return LIFE_ASK;
    case VM_STARTING:
    case VM_STOPPING:
        if (life->wish == WISH_STOP)
            return refuse(why, "is stopping already");
        return wish(life, WISH_STOP);
    case VM_FAILED:
        return refuse(why, "could not be created: see the log");
    default:
        return refuse(why, "does not run");
    }
}

static enum life_action order_reset(struct life *life, const char **why)
{
    switch (life->state) {
    case VM_RUNNING:
        *life = (struct life){.state = VM_STOPPING, .stop = STOP_OPERATOR_RESET, .wish = WISH_RUN};
        return LIFE_ASK;
    case VM_STARTING: /* it begins from pristine images anyway */
        return wish(life, WISH_NONE);
    case VM_STOPPING:
        return wish(life, WISH_RUN);
    case VM_FAILED:
        return refuse(why, "could not be created: see the log");
    default:
        return refuse(why, "does not run: start it");
    }
}

enum life_action life_order(struct life *life, enum vm_order order, const char **why)
{
    switch (order) {
    case VM_ORDER_START:
        return order_start(life, why);
    case VM_ORDER_STOP:
        return order_stop(life, why);
    default:
        return order_reset(life, why);
    }
}

enum life_action life_stop(struct life *life, enum stop_reason why)
{
    if (life->state != VM_RUNNING)
        return LIFE_NOTHING;
    *life = (struct life){.state = VM_STOPPING, .stop = why};
    return LIFE_ASK;
}

enum life_action life_left(struct life *life, bool restart)
{
    if (life->state != VM_STOPPING)
        return LIFE_NOTHING;
    if (life->wish == WISH_RUN || (life->wish == WISH_NONE && restart)) {
        life->state = VM_STARTING; /* `stop` stays until it runs: it says why */
        life->wish = WISH_NONE;
        return LIFE_BEGIN;
    }
    life->state = VM_STOPPED;
    return LIFE_ENDED;
}

enum life_action life_loaded(struct life *life, enum life_load how)
{
    if (life->state != VM_STARTING)
        return LIFE_NOTHING;
    if (life->wish != WISH_STOP && how == LOAD_BROKEN_OFF)
        return LIFE_BEGIN; /* started after all, when it was too late to go on */
    if (life->wish != WISH_STOP && how == LOAD_DONE) {
        *life = (struct life){.state = VM_RUNNING};
        return LIFE_RUN;
    }
    life->state = VM_STOPPED;
    life->stop = life->wish == WISH_STOP ? STOP_OPERATOR : STOP_NOT_LOADED;
    return LIFE_ENDED;
}

bool life_restarts(enum stop_reason why, enum config_on_stop on_reboot, enum config_on_stop on_crash,
                   uint64_t lived_ns, uint32_t *quick)
{
    if (why == STOP_REBOOT)
        return on_reboot == ON_STOP_RESTART;
    if (!stop_is_crash(why) || on_crash != ON_STOP_RESTART)
        return false;
    *quick = lived_ns < QUICK_CRASH_NS ? *quick + 1 : 0;
    return *quick < QUICK_CRASH_LIMIT;
}

enum life_idle life_idle(bool others_live, bool by_operator, enum config_on_idle on_idle)
{
    if (others_live)
        return IDLE_BUSY;
    if (by_operator)
        return IDLE_OPERATOR;
    switch (on_idle) {
    case ON_IDLE_POWEROFF:
        return IDLE_POWEROFF;
    case ON_IDLE_REBOOT:
        return IDLE_REBOOT;
    default:
        return IDLE_STAY;
    }
}
