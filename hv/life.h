/* The state machine of a VM's life: pure decisions, one for each event in each state. hv/vm.c feeds it under
 * the VM's `life` lock and does what it answers.
 *
 *            order START                    loaded
 *   CREATED ------------+--> STARTING ------------------> RUNNING
 *                       |      ^   \                         | a reason to stop
 *   STOPPED ------------+      |    \ not loaded, or         v an order STOP or RESET
 *      ^                       |     \ ordered to stop    STOPPING
 *      +-----------------------|------+                      |
 *      +-----------------------+-----------------------------+ the last vCPU has left its loop
 *
 * The operator's newest word counts more than what the guest or the configuration wants: it is kept in
 * `wish` until the work that is under way has ended. */
#pragma once

#include "hv/config/config.h"
#include "hv/exits/exit.h"

enum vm_state {
    VM_CREATED,  /* never started */
    VM_RUNNING,  /* its vCPUs run, or are about to */
    VM_STOPPING, /* vCPUs have still to leave their loops */
    VM_STOPPED,  /* can be started */
    VM_STARTING, /* its CPUs zero its memory and load its images */
    VM_FAILED,   /* could not be created: never runs */
    VM_STATE_COUNT
};

enum vm_order { VM_ORDER_START, VM_ORDER_STOP, VM_ORDER_RESET, VM_ORDER_COUNT };

enum life_wish { WISH_NONE, WISH_STOP, WISH_RUN };

struct life {
    enum vm_state state;
    enum stop_reason stop; /* why it is stopping or has stopped: the first reason wins */
    enum life_wish wish;   /* the operator's, while STARTING, STOPPING or STOPPED */
};

/* What the caller has to do after an event. */
enum life_action {
    LIFE_NOTHING,
    LIFE_REFUSE, /* an order that the state does not allow: *why says so; nothing has changed */
    LIFE_BEGIN,  /* give the VM's CPUs the work of starting */
    LIFE_RUN,    /* give the vCPUs to their CPUs */
    LIFE_ASK,    /* ask every vCPU to leave its loop */
    LIFE_ENDED,  /* the VM has stopped */
};

/* The operator's order. *why is set with LIFE_REFUSE, to the rest of a sentence that begins with the VM's
 * name. */
enum life_action life_order(struct life *life, enum vm_order order, const char **why);
/* A vCPU or a device gives a reason to stop. */
enum life_action life_stop(struct life *life, enum stop_reason why);
/* The last vCPU has left its loop; `restart` is life_restarts()'s answer. */
enum life_action life_left(struct life *life, bool restart);
/* How the work of starting has ended. */
enum life_load {
    LOAD_DONE,
    LOAD_FAILED,
    LOAD_BROKEN_OFF, /* because of an order to stop, which may have been taken back since */
};
enum life_action life_loaded(struct life *life, enum life_load how);

/* A VM that crashes again and again right after its start is left stopped: its reports would flood the
 * console. */
#define QUICK_CRASH_NS    10000000000ull
#define QUICK_CRASH_LIMIT 5u

/* Does the configuration want the VM to run again after `why`, `lived_ns` after its start? Counts quick
 * crashes in a row in *quick. */
bool life_restarts(enum stop_reason why, enum config_on_stop on_reboot, enum config_on_stop on_crash,
                   uint64_t lived_ns, uint32_t *quick);

/* What becomes of the machine when a VM has stopped. */
enum life_idle {
    IDLE_BUSY,     /* another VM runs, or is about to: nothing */
    IDLE_OPERATOR, /* none runs, because the operator stopped the last one: stay, and say so */
    IDLE_STAY,     /* none runs: what on_idle says */
    IDLE_POWEROFF,
    IDLE_REBOOT,
};
enum life_idle life_idle(bool others_live, bool by_operator, enum config_on_idle on_idle);
/* Does a VM in this state run, or may it do so without an order? */
bool life_is_live(enum vm_state state);

const char *vm_state_name(enum vm_state state); /* "running"; never NULL */
