/* A VM exit in vendor-neutral words. vmx_decode() (later its SVM twin) makes it from the hardware's snapshot;
 * handlers see nothing else of the exit. */
#pragma once

#include "hv/lib/addr.h"

/* The closed list. Each kind has one row with a handler in hv/exits/exit_table.c. */
enum exit_kind {
    EXIT_EXCEPTION, /* an exception Bulkhead intercepts: u.exception */
    EXIT_NMI,       /* a host NMI arrived */
    EXIT_INTERRUPT, /* a host interrupt arrived, acknowledged: u.interrupt */
    EXIT_TRIPLE_FAULT,
    EXIT_INIT, /* INIT signal */
    EXIT_SIPI, /* SIPI: u.sipi */
    EXIT_INTR_WINDOW,
    EXIT_NMI_WINDOW,
    EXIT_TASK_SWITCH, /* u.task_switch */
    EXIT_CPUID,
    EXIT_HLT,
    EXIT_INVD,
    EXIT_WBINVD, /* and WBNOINVD */
    EXIT_INVLPG, /* u.invlpg */
    EXIT_INVPCID,
    EXIT_RDPMC,
    EXIT_RDTSC,
    EXIT_RDTSCP,
    EXIT_HYPERCALL, /* VMCALL */
    EXIT_VIRT_INSN, /* any other virtualization instruction: #UD */
    EXIT_CR_ACCESS, /* u.cr */
    EXIT_DR_ACCESS, /* u.dr */
    EXIT_IO,        /* u.io */
    EXIT_RDMSR,
    EXIT_WRMSR,
    EXIT_MWAIT,
    EXIT_MONITOR,
    EXIT_PAUSE,
    EXIT_TPR_BELOW,
    EXIT_APIC_ACCESS,      /* u.apic */
    EXIT_APIC_WRITE,       /* u.apic.offset; trap-like: already done */
    EXIT_APIC_EOI,         /* u.interrupt: vector whose EOI was virtualized */
    EXIT_DESC_ACCESS,      /* SGDT, LGDT, SIDT, LIDT, SLDT, LLDT, STR, LTR */
    EXIT_NESTED_FAULT,     /* EPT violation: u.nested */
    EXIT_NESTED_MISCONFIG, /* EPT misconfiguration: u.nested.address */
    EXIT_TIMER,            /* VMX-preemption timer expired */
    EXIT_XSETBV,
    EXIT_RDRAND,
    EXIT_RDSEED,
    EXIT_XSAVES, /* XSAVES or XRSTORS */
    EXIT_UMWAIT, /* UMWAIT or TPAUSE */
    EXIT_BUS_LOCK,
    EXIT_NOTIFY,
    EXIT_ENTRY_FAILURE, /* VM entry failed after it began: u.entry_failure */
    EXIT_UNEXPECTED,    /* a reason that cannot occur with our controls, or one the SDM does not know */
    EXIT_KIND_COUNT
};

/* An event as it is delivered through the IDT. Types are the SDM's (table "format of the VM-entry
 * interruption-information field"), which SVM's EVENTINJ maps to without loss. */
enum event_type {
    EVENT_EXTERNAL_INTERRUPT = 0,
    EVENT_NMI = 2,
    EVENT_EXCEPTION = 3,           /* hardware exception */
    EVENT_SOFT_INTERRUPT = 4,      /* INT n */
    EVENT_PRIV_SOFT_EXCEPTION = 5, /* INT1 */
    EVENT_SOFT_EXCEPTION = 6,      /* INT3, INTO */
};

struct event {
    bool valid;
    bool has_error;
    uint8_t type; /* enum event_type */
    uint8_t vector;
    uint32_t error;   /* when has_error */
    uint8_t insn_len; /* soft events: length of the instruction that raised it */
};

enum exit_cr_op { CR_MOV_TO, CR_MOV_FROM, CR_CLTS, CR_LMSW };

struct exit_cr {
    uint8_t op;  /* enum exit_cr_op */
    uint8_t cr;  /* 0, 3, 4, 8 */
    uint8_t gpr; /* register number as in ModRM+REX: 0 RAX, 1 RCX ... 15 R15 */
    bool lmsw_memory;
    uint16_t lmsw_source;
};

struct exit_dr {
    uint8_t dr; /* 0..7 */
    bool write; /* MOV to DR */
    uint8_t gpr;
};

struct exit_io {
    uint16_t port;
    uint8_t size; /* 1, 2, 4 */
    bool write;   /* OUT */
    bool string, rep;
    bool has_string_info; /* the next three are valid (VMX basic MSR bit 54); else decode the instruction */
    uint8_t segment;      /* enum seg_name, INS is always ES */
    uint8_t address_size; /* 2, 4, 8 bytes */
    gva_t linear;         /* string I/O: linear address of the memory operand */
};

struct exit_nested {
    gpa_t address;
    gva_t linear; /* when linear_valid */
    bool linear_valid;
    bool read, write, fetch;
    bool present;     /* any permission set in the translation: a permission fault, not a hole */
    bool during_walk; /* the access was to a guest page-table entry, not to the final address */
};

struct exit_apic {
    uint16_t offset; /* bytes in the APIC page */
    uint8_t access;  /* SDM table "exit qualification for APIC-access VM exits", bits 15:12 */
};

struct exit_task_switch {
    uint16_t selector;
    uint8_t source; /* 0 CALL, 1 IRET, 2 JMP, 3 task gate in IDT */
};

struct exit {
    enum exit_kind kind;
    uint32_t reason;    /* the hardware's own number, for messages */
    uint8_t insn_len;   /* bytes, when the kind is an instruction; else 0 */
    bool nmi_unblocked; /* IRET had ended NMI blocking before this exit: restore it (SDM 28.2.3, bit 12) */
    struct event vectoring;  /* an event whose delivery this exit interrupted; valid=false: none */
    uint64_t exception_info; /* EXIT_EXCEPTION only: #DB the new DR6 bits, #PF the linear address, else 0 */
    union {
        struct event exception;
        uint8_t interrupt; /* vector */
        uint8_t sipi;      /* vector */
        struct exit_task_switch task_switch;
        gva_t invlpg;
        struct exit_cr cr;
        struct exit_dr dr;
        struct exit_io io;
        struct exit_apic apic;
        struct exit_nested nested;
        struct {
            uint64_t qualification;
        } entry_failure;
    } u;
};

/* What a handler decides. Only vcpu_apply_result() acts on it. */
enum exit_action {
    ACTION_ADVANCE, /* the instruction is done: RIP moves past it */
    ACTION_RETRY,   /* enter again at the same RIP */
    ACTION_INJECT,  /* deliver `event` instead; RIP stays */
    ACTION_STOP,    /* stop this VM: `stop` says why */
    ACTION_PENDING, /* no handler's answer: in the flight recorder, none has answered yet */
};

enum stop_reason {
    STOP_NONE,
    STOP_POWEROFF,     /* the guest asked */
    STOP_REBOOT,       /* the guest asked */
    STOP_TRIPLE_FAULT, /* the first crash: see stop_is_crash() */
    STOP_UNHANDLED_EXIT,
    STOP_BAD_INSTRUCTION, /* MMIO or string I/O with an instruction the decoder does not know */
    STOP_ENTRY_FAILED,
    STOP_GUEST_MEMORY, /* EPT misconfiguration or another state that only a bug of ours explains */
    STOP_REQUESTED,    /* another vCPU of the VM stopped */
    STOP_OPERATOR,     /* the operator's order */
    STOP_OPERATOR_RESET,
    STOP_NOT_LOADED, /* its images could not be loaded */
    STOP_LEFT,       /* the guest asked, with a code: vm->exit_code */
    STOP_REASON_COUNT
};

/* Did the guest come to grief, rather than ask for its end or be told to stop? */
static inline bool stop_is_crash(enum stop_reason why)
{
    return why >= STOP_TRIPLE_FAULT && why <= STOP_GUEST_MEMORY;
}

/* Eight bytes, so that it travels in one register. */
struct exit_result {
    uint8_t action; /* enum exit_action */
    union {
        uint8_t stop;         /* STOP: enum stop_reason */
        uint8_t event_vector; /* INJECT */
    };
    uint8_t length;         /* bytes of the instruction, where the exit does not tell; 0 = exit->insn_len */
    uint8_t event_type : 4; /* INJECT: enum event_type */
    uint8_t event_has_error : 1; /* INJECT */
    uint32_t event_error;        /* INJECT */
};
_Static_assert(sizeof(struct exit_result) == 8, "exit_result grew out of its register");

static inline struct exit_result exit_advance(void)
{
    return (struct exit_result){.action = ACTION_ADVANCE};
}
static inline struct exit_result exit_advance_by(uint8_t length)
{
    return (struct exit_result){.action = ACTION_ADVANCE, .length = length};
}
static inline struct exit_result exit_retry(void)
{
    return (struct exit_result){.action = ACTION_RETRY};
}
static inline struct exit_result exit_stop(enum stop_reason why)
{
    return (struct exit_result){.action = ACTION_STOP, .stop = (uint8_t)why};
}
static inline struct exit_result exit_inject(uint8_t vector)
{
    return (struct exit_result){
        .action = ACTION_INJECT, .event_type = EVENT_EXCEPTION, .event_vector = vector};
}
static inline struct exit_result exit_inject_error(uint8_t vector, uint32_t error)
{
    return (struct exit_result){.action = ACTION_INJECT,
                                .event_type = EVENT_EXCEPTION,
                                .event_vector = vector,
                                .event_has_error = true,
                                .event_error = error};
}

const char *exit_kind_name(enum exit_kind kind);    /* "EPT violation", never NULL */
const char *stop_reason_name(enum stop_reason why); /* a sentence fragment for reports, never NULL */
