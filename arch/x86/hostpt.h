/* Host page tables, 4-level (SDM volume 3, chapter "Paging"). Used by the loader to build the address space
 * the core starts in, and by the core to add device mappings and windows. */
#pragma once

#include "arch/x86/pt_env.h"

enum hostpt_flags {
    HOSTPT_WRITE = 1 << 0,
    HOSTPT_EXEC = 1 << 1,     /* W and X together are refused */
    HOSTPT_UNCACHED = 1 << 2, /* UC: PCD|PWT, PAT entry 3 of the power-up PAT */
    HOSTPT_WC = 1 << 3,       /* write-combining: PAT entry 4, which the core programs as WC */
};

/* Maps [va, va+size) to hpa with 4 KiB and, where aligned, 2 MiB pages; global. All three are page-aligned.
 * Refuses what is mapped already (ERR_EXISTS). Prepares all tables first: on ERR_NO_MEMORY nothing is mapped.
 */
enum status hostpt_map(const struct pt_env *env, hpa_t root, uint64_t va, hpa_t pa, uint64_t size,
                       unsigned flags);
/* Clears the leaf entries of [va, va+size) (must be mapped by whole pages); the caller invalidates TLBs. */
enum status hostpt_unmap(const struct pt_env *env, hpa_t root, uint64_t va, uint64_t size);
/* Translates; ERR_NOT_FOUND: not mapped. *flags: enum hostpt_flags. */
enum status hostpt_lookup(const struct pt_env *env, hpa_t root, uint64_t va, hpa_t *pa, unsigned *flags);
/* Makes the 4 KiB leaf table for va exist and answers a pointer to va's entry, for windows that change often.
 */
enum status hostpt_leaf(const struct pt_env *env, hpa_t root, uint64_t va, uint64_t **entry);
/* The entry value a 4 KiB leaf has for this page and these flags. */
uint64_t hostpt_leaf_value(hpa_t pa, unsigned flags);
