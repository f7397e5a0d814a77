/* A virtual CPU. */
#pragma once

#include "arch/x86/guest_walk.h"
#include "drivers/vdev/lapic.h"
#include "hv/cpu.h"
#include "hv/events.h"
#include "hv/exits/exit.h"
#include "hv/exits/fetch_memo.h"
#include "hv/policy/cpuid_policy.h"
#include "hv/policy/msr_policy.h"
#include "hv/record/dump.h"
#include "hv/record/recorder.h"
#include "hv/record/stats.h"

struct vm;

enum vcpu_gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Things another CPU, or a device, asks of a vCPU; bits of vcpu->requests. */
enum vcpu_request {
    VCPU_REQ_EVENT = 1 << 0, /* the local APIC, the PIC or an NMI may have something to deliver */
    VCPU_REQ_TIMER = 1 << 1, /* deadlines changed */
    VCPU_REQ_INIT = 1 << 2,
    VCPU_REQ_SIPI = 1 << 3, /* vector in sipi_vector */
    VCPU_REQ_STOP = 1 << 4, /* leave the run loop: the VM is stopping */
    VCPU_REQ_NMI = 1 << 5,
    VCPU_REQ_CONSOLE = 1 << 6,   /* it prints faster than the wire: console_throttle() */
    VCPU_REQ_SNAPSHOT = 1 << 7,  /* copy the registers into `snapshot` */
    VCPU_REQ_NMI_AGAIN = 1 << 8, /* with VCPU_REQ_NMI: a second one came before the first was seen */
    VCPU_REQ_FLUSH = 1 << 9,     /* the nested tables have changed: forget what is cached of them */
};

/* Lifetimes: C = constant after vm_create, O = touched only by the CPU that runs the vCPU, A = atomic. */
struct vcpu {
    uint64_t gpr[16];         /* O. First: the entry code knows the offset. [RSP] is unused (VIRT_RSP) */
    struct recorder recorder; /* O; others use recorder_copy(). Second: the entry code knows it, too */
    void *backend;            /* C. the vendor's part: struct vmx_vcpu */
    uint64_t rip;             /* O. of the exit being handled */

    uint32_t requests; /* A. enum vcpu_request */
    struct vm *vm;     /* C */
    struct cpu *cpu;   /* C (dedicated). where it runs */
    uint32_t id;       /* C. index in the VM, initial APIC ID */

    struct events_state events;   /* O. what waits to be delivered */
    bool intr_window, nmi_window; /* O. what the hardware was asked for */
    uint8_t sipi_vector;          /* A. written before VCPU_REQ_SIPI is set */

    uint64_t deadline_tsc; /* O. host TSC of the next thing to do by time, UINT64_MAX = none */
    uint64_t entry_tsc;    /* O. host TSC at the last vcpu_prepare_entry() */
    uint64_t tsc_offset;   /* O. guest TSC = host TSC + offset */
    uint64_t tsc_adjust;   /* O. IA32_TSC_ADJUST */

    struct lapic lapic;
    struct lapic_env lapic_env;
    struct msr_store msrs;
    uint64_t xcr0; /* O */

    uint64_t exits[EXIT_KIND_COUNT]; /* O */
    uint64_t injected;               /* O. external interrupts */
    enum stop_reason stop;           /* O. why it left the loop */
    struct exit last_exit;           /* O. valid when stop is set */
    struct fetch_memo fetched;       /* O. where the last instruction emulated was found */
    struct guest_insn last_insn;     /* O. the last instruction emulated, decoded */
    uint64_t refused_rip;            /* O. where an instruction was not known, and the guest went back */
    uint64_t refused_at;             /* O. when: how many exits that may emulate there had been */
    uint32_t refusals;               /* O. how many times in a row */
    struct vcpu_times times;
    struct vcpu_snapshot snapshot;
};

/* The handlers' only way to change the world after a decision. True: enter again; false: leave the loop. */
bool vcpu_apply_result(struct vcpu *vcpu, const struct exit *exit, struct exit_result result);

/* Called by the backend after each exit; true: enter the guest again, false: the run loop is left. What the
 * handler answers is recorded in `entry` before it is acted on. */
bool vcpu_handle_exit(struct vcpu *vcpu, const struct exit *exit, struct recorder_entry *entry);

/* Everything that is due before the next entry: requests, timers, events. False: leave the loop. */
bool vcpu_prepare_entry(struct vcpu *vcpu);

/* Asks `vcpu` for `request` from any CPU, waking it when it runs or sleeps elsewhere. */
void vcpu_request(struct vcpu *vcpu, enum vcpu_request what);

/* Does somebody wait for something of it? Work that takes long is broken off then. */
static inline bool vcpu_is_wanted(const struct vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->requests, __ATOMIC_RELAXED) != 0;
}

/* An NMI for `vcpu`, from any CPU. As on a processor two may be under way, one being delivered and one
 * latched; a third is lost. */
void vcpu_request_nmi(struct vcpu *vcpu);

/* Architectural state after power-up or INIT (SDM volume 3, table "IA-32 and Intel 64 processor states
 * following power-up, reset, or INIT"). */
void vcpu_reset(struct vcpu *vcpu, bool init_signal);

/* A vCPU that was just reset begins at segment:offset. */
void vcpu_start_real_mode(struct vcpu *vcpu, uint16_t segment, uint16_t offset);

/* Starts an application processor at `vector` << 12. */
void vcpu_start_sipi(struct vcpu *vcpu, uint8_t vector);

/* Recomputes deadline_tsc from the APIC timer, the VM's device timers (vCPU 0) and the console's poll. */
void vcpu_update_deadline(struct vcpu *vcpu);

/* HLT, or its end: in hardware and in software. */
void vcpu_set_halted(struct vcpu *vcpu, bool halted);
