/* What a panic says, as text in the black box. Pure: it takes no lock, allocates nothing, and looks at
 * nothing that `readable` does not allow, because what led to the panic may have damaged anything. */
#pragma once

#include "arch/x86/symbols.h"
#include "hv/record/blackbox.h"

enum panic_register {
    PANIC_RAX,
    PANIC_RBX,
    PANIC_RCX,
    PANIC_RDX,
    PANIC_RSI,
    PANIC_RDI,
    PANIC_RBP,
    PANIC_RSP,
    PANIC_R8,
    PANIC_R9,
    PANIC_R10,
    PANIC_R11,
    PANIC_R12,
    PANIC_R13,
    PANIC_R14,
    PANIC_R15,
    PANIC_RIP,
    PANIC_CS,
    PANIC_RFLAGS,
    PANIC_ERROR,
    PANIC_CR2,
    PANIC_CR3,
    PANIC_REGISTERS
};

/* The core's code: where a return address can point to. */
struct panic_code {
    const uint8_t *begin; /* its bytes as this CPU sees them, also their address */
    size_t size;
    uint64_t base; /* what the symbols' offsets count from */
    const struct symbols_table *symbols;
};

struct panic_facts {
    const char *reason;
    const char *build;         /* of Bulkhead */
    uint64_t now_us;           /* since the core's start */
    uint32_t cpu;              /* index */
    const uint64_t *registers; /* PANIC_REGISTERS of them; NULL: not an exception */
    const uint64_t *stack;     /* from RSP on, */
    uint32_t stack_words;      /* as many as can be read */
    struct panic_code code;
};

/* Where another CPU was when it was stopped. */
struct panic_stopped {
    bool stopped;
    uint64_t rip; /* of ours; 0: it was in a guest */
};

/* "host exception 14 (#PF, page fault): a bug in Bulkhead, not in a guest" */
void panic_text_exception(uint64_t vector, char *reason, size_t size);
/* An exception (or a broken promise) at `rip` while the panic was told. */
void panic_text_again(struct blackbox *b, const struct panic_code *code, const char *reason, uint64_t rip);
/* What happened, registers and the stack's return addresses. */
void panic_text_head(struct blackbox *b, const struct panic_facts *facts);
void panic_text_cpus(struct blackbox *b, const struct panic_code *code, const struct panic_stopped *stopped,
                     uint32_t count, uint32_t self);
/* The newest exits of every vCPU. */
void panic_text_exits(struct blackbox *b, bool (*readable)(const void *at, size_t size));
void panic_text_log(struct blackbox *b);
