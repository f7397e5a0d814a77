/* EPT, 4-level (SDM volume 3, section "The extended page table mechanism (EPT)"). */
#pragma once

#include "arch/x86/pt_env.h"

enum ept_flags { EPT_READ = 1, EPT_WRITE = 2, EPT_EXEC = 4 };
enum ept_memory_type { EPT_UC = 0, EPT_WC = 1, EPT_WT = 4, EPT_WP = 5, EPT_WB = 6 };

struct ept {
    const struct pt_env *env;
    hpa_t root;
    bool has_2m, has_1g; /* from IA32_VMX_EPT_VPID_CAP */
    /* Large pages are not executable until ept_allow_exec() splits them: for processors that a guest could
     * bring to a machine check by changing the size of a page that code is fetched from (CVE-2018-12207). Set
     * before the first ept_map(). */
    bool nx_large;
    uint64_t table_pages; /* pages in use, root included */
};

enum status ept_init(struct ept *ept, const struct pt_env *env, bool has_2m, bool has_1g);
/* Frees every table, root included. The caller has invalidated EPT caches. */
void ept_destroy(struct ept *ept);
/* Maps [ga, ga+size) to ha with the largest pages that fit; page-aligned. Refuses overlaps (ERR_EXISTS),
 * write without read (an EPT misconfiguration), and addresses of 2^48 and above (ERR_RANGE). On failure
 * nothing has changed. At every intermediate step the tables are valid for a CPU that walks them. */
enum status ept_map(struct ept *ept, gpa_t ga, hpa_t ha, uint64_t size, unsigned flags,
                    enum ept_memory_type type);
/* Unmaps [ga, ga+size), splitting large pages as needed. Holes are fine. ERR_NO_MEMORY (for a split): nothing
 * changed. The caller invalidates. */
enum status ept_unmap(struct ept *ept, gpa_t ga, uint64_t size);
/* Changes the permissions of a mapped range, splitting as needed; ERR_NOT_FOUND when part of it is unmapped.
 */
enum status ept_protect(struct ept *ept, gpa_t ga, uint64_t size, unsigned flags);
/* Code was fetched at `ga`: if that is in a large page whose permissions include EPT_EXEC, 2 MiB around it
 * become executable pages of 4 KiB. OK also when they already are: a stale translation of this CPU's was in
 * the way, which is gone with the violation (SDM 29.4.3.1), so nothing is to be invalidated. ERR_NOT_FOUND:
 * code is not to be fetched there. ERR_NO_MEMORY: nothing changed. */
enum status ept_allow_exec(struct ept *ept, gpa_t ga);
/* Translation of one address, with the permissions it was given; ERR_NOT_FOUND: a hole. */
enum status ept_lookup(const struct ept *ept, gpa_t ga, hpa_t *ha, uint64_t *page_size, unsigned *flags,
                       enum ept_memory_type *type);
/* The EPT pointer: WB walks, 4 levels, accessed/dirty flags off. */
uint64_t ept_pointer(const struct ept *ept);
