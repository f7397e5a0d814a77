/* A few bytes of code, run in a mode of the processor that is chosen for them. One processor at a time. */
#pragma once

#include "tests/guest/runtime/runtime.h"

enum lab_kind { LAB_LONG, LAB_PROTECTED, LAB_REAL };

/* lab.asm knows the layout. */
struct lab {
    uint64_t gpr[16]; /* in and out */
    uint64_t ip, flags, cr0, cr3, cr4;
    uint16_t cs, ss, ds, es;
    uint32_t kind, vector, error;
    uint32_t active;
    uint64_t gdt, save_rsp, save_cr0, save_cr3, save_cr4, save_efer;
    uint8_t idt64[16], gdtr[16], ivt[8], idt32[8];
} __attribute__((packed));

enum lab_mode {
    MODE_LONG,      /* 64-bit, CPL 0 */
    MODE_LONG_USER, /* 64-bit, CPL 3 */
    MODE_COMPAT,    /* 32-bit code of CPL 0 under IA-32e paging */
    MODE_COMPAT_USER,
    MODE_COMPAT16_USER,
    MODE_PROTECTED,      /* 32-bit, no paging */
    MODE_PROTECTED_USER, /* 32-bit, CPL 3 */
    MODE_PROTECTED16,
    MODE_PAGED, /* 32-bit, two-level paging with 4 MiB pages */
    MODE_PAE,   /* 32-bit, PAE paging */
    MODE_PAE_USER,
    MODE_V86,
    MODE_REAL,
    MODE_COUNT
};
extern const char *const lab_mode_names[MODE_COUNT];

/* Sets lab.gpr to harmless values: a stack of its own, the rest 0. */
void lab_clear(void);
/* Runs `code` with the registers of lab.gpr, an INT3 put behind it. The vector it ended with: VECTOR_BP when
 * it came to its end. `gdt`, IDT, CR0, CR3, CR4 and EFER are as before afterwards, the rest is in `lab`. */
unsigned lab_execute(enum lab_mode mode, const void *code, size_t size);
/* The same with bits of RFLAGS, IF for instance: an interrupt ends it, too. */
unsigned lab_execute_flags(enum lab_mode mode, const void *code, size_t size, uint64_t flags);
bool lab_is_user(enum lab_mode mode);
bool lab_is_long(enum lab_mode mode); /* IA-32e mode, compatibility included */

/* Whether the modes with paging of their own map what is behind memory, too; true at first. */
extern bool lab_devices;
/* Page tables for the long modes, 0 for the runtime's own. */
extern uint64_t lab_cr3;
/* The page directory of the first GiB for the PAE modes, 0 for the runtime's own. */
extern uint64_t lab_low_directory;
/* Bits that legacy modes get in CR0 and CR4 beside their own; 0 at first. */
extern uint64_t lab_more_cr0, lab_more_cr4;
extern struct lab lab;
extern uint8_t lab_code[256], lab_idt32[256 * 8], lab_tss32[];

/* exception_c() asks: was it the lab's? Does not return then. */
void lab_caught(struct cpu *cpu, struct frame *frame);
