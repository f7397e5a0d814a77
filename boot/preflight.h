/* What this machine offers and what Bulkhead needs, as a table. Pure: from captured CPUID and MSR values to
 * rows. */
#pragma once

#include "hv/lib/types.h"

/* Captured by boot/efi_preflight.c. An MSR that the CPU does not have reads as zero here. */
struct preflight_input {
    uint32_t cpuid_1_eax, cpuid_1_ecx;
    uint32_t cpuid_80000001_edx, cpuid_80000007_edx;
    char brand[49];
    bool la57; /* CR4.LA57: the firmware uses 5-level paging */

    uint64_t feature_control;              /* IA32_FEATURE_CONTROL */
    uint64_t vmx_pin, vmx_proc, vmx_proc2; /* the TRUE ones where VMX_BASIC says so; bits 63:32: may be 1 */
    uint64_t vmx_ept_vpid_cap;
    uint64_t arch_capabilities; /* IA32_ARCH_CAPABILITIES */

    uint32_t cpus_found, cpus_needed;    /* needed: 0 = no valid configuration to tell */
    const char *cpu_source;              /* "MP Services", ... */
    uint64_t memory_free, memory_needed; /* bytes */
    uint64_t memory_kept;                /* by Bulkhead for itself */
    bool keeps_too_much;                 /* more than its address space has room for */
    bool has_acpi, has_dmar, has_mcfg;
    const char *dmar_fault; /* why the table cannot be used; NULL: it can */
    uint32_t iommu_units;
    bool iommu_remaps;                      /* interrupts */
    uint32_t pci_functions, pci_assignable; /* assignable: if there is an IOMMU */
    uint32_t pci_sriov, pci_vfs;            /* functions with SR-IOV, and the VFs that all of them can have */
};

enum preflight_state { PREFLIGHT_OK, PREFLIGHT_MISSING, PREFLIGHT_OPTIONAL };

struct preflight_row {
    const char *name;
    enum preflight_state state; /* OPTIONAL: absent, and Bulkhead does without */
    char text[96];              /* what was found, or what is lost without it */
    const char *advice;         /* what to do about a MISSING one, else NULL */
};

#define PREFLIGHT_MAX_ROWS 32u

/* Fills rows and answers how many. */
size_t preflight_check(const struct preflight_input *in, struct preflight_row rows[PREFLIGHT_MAX_ROWS]);
/* Can all of guests' memory come to be mapped by 4 KiB? False where there is no EPT at all. */
bool preflight_small_pages(const struct preflight_input *in);
/* False when a row is MISSING. */
bool preflight_passed(const struct preflight_row *rows, size_t count);
const char *preflight_state_name(enum preflight_state state); /* "ok", "MISSING", "optional" */
