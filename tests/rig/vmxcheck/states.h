/* VMCSs for the comparison of arch/x86/vmx/vmx_check.c with the processor: good ones, and what breaks them.
 */
#pragma once

#include "arch/x86/vmx/vmx_check.h"

/* Memory and host values that the states may point to; every page is zero unless it says otherwise. */
struct states_world {
    struct vmx_check_machine machine;
    uint64_t page;     /* physical: bitmaps, an EPT without a mapping, page tables that map nothing */
    uint64_t msr_area; /* physical: entries that load 0 into IA32_SYSENTER_CS */
    uint64_t host_rip; /* where an exit arrives */
    uint64_t host_cr0, host_cr3, host_cr4, host_pat, host_efer;
    uint64_t host_gdtr_base, host_idtr_base, host_tr_base;
    uint16_t host_cs, host_ss, host_tr;
};

enum states_base { STATE_LONG, STATE_PROTECTED, STATE_PAE, STATE_REAL, STATE_V86, STATE_RESTRICTED, STATES };
const char *states_base_name(enum states_base base);

/* A state that every rule accepts, and that leaves the guest before its first instruction. */
void states_good(const struct states_world *world, enum states_base base, struct vmx_check_state *state);
/* Changes one field, to something that may or may not be allowed, but that is harmless when it is; answers
 * which. `random` is a generator's state, never 0. */
enum vmx_check_field states_change(const struct states_world *world, struct vmx_check_state *state,
                                   uint64_t *random);
/* Takes back what would let the guest run on, or the host come back to something unusable. */
void states_make_safe(const struct states_world *world, struct vmx_check_state *state);
