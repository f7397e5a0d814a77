/* The address space the core starts in, and where its first data lie in the pool. Pure. */
#pragma once

#include "boot/boot_info.h"
#include "boot/elf.h"

#define HANDOVER_STACK_SIZE 16384u

struct handover_in {
    const struct elf_image *core;
    hpa_t core_hpa;     /* core->size bytes, loaded by elf_load */
    hpa_t pool_hpa;     /* page-aligned */
    uint64_t pool_size; /* bytes, from pool_plan() */
    uint8_t *pool;      /* the same as the caller sees it */
    hpa_t blackbox_hpa; /* BLACKBOX_SIZE bytes; 0: none */
    hpa_t switch_page;  /* the page whose code changes CR3: mapped at its own address, read and execute */
};

/* What the switch needs. The caller fills in *info (in the pool, zeroed), whose addresses are set already. */
struct handover {
    struct boot_info *info;
    hpa_t cr3;
    uint64_t entry;     /* virtual: the core's entry point */
    uint64_t stack_top; /* virtual, 16-byte aligned */
    uint64_t info_va;   /* virtual address of *info */
};

/* Lays out the beginning of the pool (boot_info, stack, page tables) and maps core, pool and switch page. */
enum status handover_build(const struct handover_in *in, struct handover *out);
