/* The guest-state half of vmx_check(): SDM volume 3, 27.3.1. */
#include "arch/x86/cpu.h"
#include "arch/x86/vmx/vmx_check_rules.h"
#include "hv/exits/exit.h"

/* The field of a segment: the enums run ES, CS, SS, DS, FS, GS, LDTR, TR in each of the four groups. */
enum { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };
#define SELECTOR(s) ((enum vmx_check_field)(VMX_F_GUEST_ES_SELECTOR + (s)))
#define BASE(s)     ((enum vmx_check_field)(VMX_F_GUEST_ES_BASE + (s)))
#define LIMIT(s)    ((enum vmx_check_field)(VMX_F_GUEST_ES_LIMIT + (s)))
#define ACCESS(s)   ((enum vmx_check_field)(VMX_F_GUEST_ES_ACCESS + (s)))
STATIC_ASSERT(VMX_F_GUEST_TR_ACCESS - VMX_F_GUEST_ES_ACCESS == TR &&
                  VMX_F_GUEST_TR_BASE - VMX_F_GUEST_ES_BASE == TR,
              "segments must be in the order of the enum");

#define ACCESS_V86 0xf3u /* present, DPL 3, accessed read/write data */

static bool is_unrestricted(const struct check *c)
{
    return c->proc2 & PROC2_UNRESTRICTED_GUEST;
}

static bool is_ia32e(const struct check *c)
{
    return c->entry & ENTRY_CTL_IA32E_GUEST;
}

static bool is_v86(const struct check *c)
{
    return V(c, GUEST_RFLAGS) & RFLAGS_VM;
}

static bool is_usable(const struct check *c, unsigned s)
{
    return !(c->v[ACCESS(s)] & ACCESS_UNUSABLE);
}

static unsigned type_of(const struct check *c, unsigned s)
{
    return c->v[ACCESS(s)] & ACCESS_TYPE;
}

static unsigned dpl_of(const struct check *c, unsigned s)
{
    return (unsigned)bits_get(c->v[ACCESS(s)], 6, 5);
}

static unsigned rpl_of(const struct check *c, unsigned s)
{
    return c->v[SELECTOR(s)] & 3;
}

static bool check_control_registers(const struct check *c)
{
    const struct vmx_caps_msrs *msrs = c->machine->msrs;
    uint64_t cr0 = V(c, GUEST_CR0), cr4 = V(c, GUEST_CR4);
    /* VM entry does not change NW and CD, so they are not checked; PE and PG are free in an unrestricted
     * guest. */
    uint64_t free_bits = CR0_NW | CR0_CD | (is_unrestricted(c) ? CR0_PE | CR0_PG : 0);
    RULE(c, !((cr0 ^ vmx_cr0_for_root(msrs, cr0)) & ~free_bits), GUEST_CR0, "27.3.1.1",
         "must respect the fixed bits of IA32_VMX_CR0_FIXED0 and FIXED1");
    RULE(c, !(cr0 & CR0_PG) || (cr0 & CR0_PE), GUEST_CR0, "27.3.1.1", "PG needs PE");
    RULE(c, cr4 == vmx_cr4_for_root(msrs, cr4), GUEST_CR4, "27.3.1.1",
         "must respect the fixed bits of IA32_VMX_CR4_FIXED0 and FIXED1");
    RULE(c, !(cr4 & CR4_CET) || (cr0 & CR0_WP), GUEST_CR4, "27.3.1.1", "CET needs CR0.WP");
    if (is_ia32e(c)) {
        RULE(c, cr0 & CR0_PG, GUEST_CR0, "27.3.1.1", "an IA-32e mode guest needs PG");
        RULE(c, cr4 & CR4_PAE, GUEST_CR4, "27.3.1.1", "an IA-32e mode guest needs PAE");
    } else {
        RULE(c, !(cr4 & CR4_PCIDE), GUEST_CR4, "27.3.1.1", "PCIDE needs an IA-32e mode guest");
    }
    RULE(c, check_physical(c, V(c, GUEST_CR3)), GUEST_CR3, "27.3.1.1",
         "no bits above the physical-address width");
    return true;
}

static bool check_efer(const struct check *c)
{
    uint64_t efer = V(c, GUEST_EFER);
    bool lma = efer & EFER_LMA, lme = efer & EFER_LME;
    RULE(c, !(efer & ~CHECK_EFER_DEFINED), GUEST_EFER, "27.3.1.1", "reserved bits must be 0");
    RULE(c, lma == is_ia32e(c), GUEST_EFER, "27.3.1.1", "LMA must equal the control IA-32e mode guest");
    RULE(c, !(V(c, GUEST_CR0) & CR0_PG) || lma == lme, GUEST_EFER, "27.3.1.1",
         "with paging LMA must equal LME");
    return true;
}

static bool check_msrs(const struct check *c)
{
    const char *canonical = "must be canonical";
    if (c->entry & ENTRY_CTL_LOAD_DEBUG_CONTROLS) {
        RULE(c, !(V(c, GUEST_DEBUGCTL) & DEBUGCTL_RESERVED), GUEST_DEBUGCTL, "27.3.1.1",
             "reserved bits must be 0");
        RULE(c, !(V(c, GUEST_DR7) >> 32), GUEST_DR7, "27.3.1.1", "bits 63:32 must be 0");
    }
    RULE(c, check_canonical(c, V(c, GUEST_SYSENTER_ESP)), GUEST_SYSENTER_ESP, "27.3.1.1", canonical);
    RULE(c, check_canonical(c, V(c, GUEST_SYSENTER_EIP)), GUEST_SYSENTER_EIP, "27.3.1.1", canonical);
    if (c->entry & ENTRY_CTL_LOAD_PAT)
        RULE(c, check_pat(V(c, GUEST_PAT)), GUEST_PAT, "27.3.1.1", "every byte must be a memory type");
    if ((c->entry & ENTRY_CTL_LOAD_EFER) && !check_efer(c))
        return false;
    if (c->entry & ENTRY_CTL_LOAD_BNDCFGS)
        RULE(c, !(V(c, GUEST_BNDCFGS) & 0xffc) && check_canonical(c, V(c, GUEST_BNDCFGS) & ~PAGE_MASK),
             GUEST_BNDCFGS, "27.3.1.1", "bits 11:2 must be 0 and the address canonical");
    if (c->entry & ENTRY_CTL_LOAD_CET) {
        RULE(c, check_canonical(c, V(c, GUEST_S_CET)), GUEST_S_CET, "27.3.1.1", canonical);
        RULE(c, !(V(c, GUEST_SSP) & 3), GUEST_SSP, "27.3.1.1", "must be 4-byte aligned");
        RULE(c, check_canonical(c, V(c, GUEST_SSP_TABLE)), GUEST_SSP_TABLE, "27.3.1.1", canonical);
    }
    if (c->entry & ENTRY_CTL_LOAD_PKRS)
        RULE(c, !(V(c, GUEST_PKRS) >> 32), GUEST_PKRS, "27.3.1.1", "bits 63:32 must be 0");
    return true;
}

static bool check_selectors_and_bases(const struct check *c)
{
    RULE(c, !(V(c, GUEST_TR_SELECTOR) & 4), GUEST_TR_SELECTOR, "27.3.1.2", "TI must be 0");
    RULE(c, !is_usable(c, LDTR) || !(V(c, GUEST_LDTR_SELECTOR) & 4), GUEST_LDTR_SELECTOR, "27.3.1.2",
         "TI must be 0 when usable");
    if (!is_v86(c) && !is_unrestricted(c))
        RULE(c, rpl_of(c, SS) == rpl_of(c, CS), GUEST_SS_SELECTOR, "27.3.1.2", "RPL must equal that of CS");
    for (unsigned s = ES; s <= GS; s++) {
        if (is_v86(c))
            RULE_AT(c, c->v[BASE(s)] == c->v[SELECTOR(s)] << 4, BASE(s), "27.3.1.2",
                    "must be the selector times 16 in virtual-8086 mode");
    }
    RULE(c, check_canonical(c, V(c, GUEST_TR_BASE)), GUEST_TR_BASE, "27.3.1.2", "must be canonical");
    RULE(c, check_canonical(c, V(c, GUEST_FS_BASE)), GUEST_FS_BASE, "27.3.1.2", "must be canonical");
    RULE(c, check_canonical(c, V(c, GUEST_GS_BASE)), GUEST_GS_BASE, "27.3.1.2", "must be canonical");
    RULE(c, !is_usable(c, LDTR) || check_canonical(c, V(c, GUEST_LDTR_BASE)), GUEST_LDTR_BASE, "27.3.1.2",
         "must be canonical when usable");
    for (unsigned s = ES; s <= DS; s++) {
        if (s == CS || is_usable(c, s))
            RULE_AT(c, !(c->v[BASE(s)] >> 32), BASE(s), "27.3.1.2", "bits 63:32 must be 0");
    }
    return true;
}

/* What holds for the access rights of every segment that is in use, LDTR and TR included. */
static bool check_access_common(const struct check *c, unsigned s)
{
    uint64_t access = c->v[ACCESS(s)], limit = c->v[LIMIT(s)];
    bool system = s == LDTR || s == TR;
    RULE_AT(c, !(access & ACCESS_S) == system, ACCESS(s), "27.3.1.2",
            "S (bit 4) must be 0 for LDTR and TR, and 1 for the others");
    RULE_AT(c, access & ACCESS_P, ACCESS(s), "27.3.1.2", "P (bit 7) must be 1");
    RULE_AT(c, !(access & ACCESS_RESERVED), ACCESS(s), "27.3.1.2", "bits 31:17 and 11:8 must be 0");
    RULE_AT(c, (limit & 0xfff) == 0xfff || !(access & ACCESS_G), ACCESS(s), "27.3.1.2",
            "G (bit 15) must be 0 when a bit of limit 11:0 is 0");
    RULE_AT(c, !(limit & 0xfff00000) || (access & ACCESS_G), ACCESS(s), "27.3.1.2",
            "G (bit 15) must be 1 when a bit of limit 31:20 is 1");
    return true;
}

static bool check_cs(const struct check *c)
{
    unsigned type = type_of(c, CS), dpl = dpl_of(c, CS), ss_dpl = dpl_of(c, SS);
    uint64_t access = V(c, GUEST_CS_ACCESS);
    bool code = type == 9 || type == 11 || type == 13 || type == 15;
    /* CS has no unusable form: the bit is neither checked nor used. */
    RULE(c, code || (type == 3 && is_unrestricted(c)), GUEST_CS_ACCESS, "27.3.1.2",
         "type must be accessed code (9, 11, 13, 15), or 3 in an unrestricted guest");
    RULE(c, type != 3 || dpl == 0, GUEST_CS_ACCESS, "27.3.1.2", "DPL must be 0 for type 3");
    RULE(c, (type != 9 && type != 11) || dpl == ss_dpl, GUEST_CS_ACCESS, "27.3.1.2",
         "DPL must equal that of SS for non-conforming code");
    RULE(c, (type != 13 && type != 15) || dpl <= ss_dpl, GUEST_CS_ACCESS, "27.3.1.2",
         "DPL must not exceed that of SS for conforming code");
    RULE(c, !is_ia32e(c) || !(access & ACCESS_L) || !(access & ACCESS_DB), GUEST_CS_ACCESS, "27.3.1.2",
         "D (bit 14) must be 0 for 64-bit code");
    return check_access_common(c, CS);
}

static bool check_ss(const struct check *c)
{
    unsigned type = type_of(c, SS), dpl = dpl_of(c, SS);
    RULE(c, !is_usable(c, SS) || type == 3 || type == 7, GUEST_SS_ACCESS, "27.3.1.2",
         "type must be accessed writable data (3 or 7)");
    RULE(c, is_unrestricted(c) || dpl == rpl_of(c, SS), GUEST_SS_ACCESS, "27.3.1.2", "DPL must equal RPL");
    RULE(c, (type_of(c, CS) != 3 && (V(c, GUEST_CR0) & CR0_PE)) || dpl == 0, GUEST_SS_ACCESS, "27.3.1.2",
         "DPL must be 0 in real mode or when CS has type 3");
    return !is_usable(c, SS) || check_access_common(c, SS);
}

static bool check_data_segment(const struct check *c, unsigned s)
{
    unsigned type = type_of(c, s);
    if (!is_usable(c, s))
        return true;
    RULE_AT(c, type & 1, ACCESS(s), "27.3.1.2", "type must be accessed (bit 0)");
    RULE_AT(c, !(type & 8) || (type & 2), ACCESS(s), "27.3.1.2", "a code segment must be readable (bit 1)");
    RULE_AT(c, is_unrestricted(c) || type > 11 || dpl_of(c, s) >= rpl_of(c, s), ACCESS(s), "27.3.1.2",
            "DPL must not be below RPL");
    return check_access_common(c, s);
}

static bool check_system_segments(const struct check *c)
{
    unsigned type = type_of(c, TR);
    RULE(c, is_usable(c, TR), GUEST_TR_ACCESS, "27.3.1.2", "must be usable");
    RULE(c, type == 11 || (type == 3 && !is_ia32e(c)), GUEST_TR_ACCESS, "27.3.1.2",
         "type must be a busy TSS: 11, or 3 outside IA-32e mode");
    if (!check_access_common(c, TR))
        return false;
    if (!is_usable(c, LDTR))
        return true;
    RULE(c, type_of(c, LDTR) == 2, GUEST_LDTR_ACCESS, "27.3.1.2", "type must be LDT (2)");
    return check_access_common(c, LDTR);
}

static bool check_segments(const struct check *c)
{
    if (!check_selectors_and_bases(c))
        return false;
    if (is_v86(c)) {
        for (unsigned s = ES; s <= GS; s++) {
            RULE_AT(c, c->v[LIMIT(s)] == 0xffff, LIMIT(s), "27.3.1.2", "must be 0xffff in virtual-8086 mode");
            RULE_AT(c, c->v[ACCESS(s)] == ACCESS_V86, ACCESS(s), "27.3.1.2",
                    "must be 0xf3 in virtual-8086 mode");
        }
    } else if (!check_cs(c) || !check_ss(c) || !check_data_segment(c, DS) || !check_data_segment(c, ES) ||
               !check_data_segment(c, FS) || !check_data_segment(c, GS)) {
        return false;
    }
    return check_system_segments(c);
}

static bool check_tables_rip_rflags(const struct check *c)
{
    uint64_t rip = V(c, GUEST_RIP), rflags = V(c, GUEST_RFLAGS), info = V(c, ENTRY_INTR_INFO);
    bool code64 = is_ia32e(c) && (V(c, GUEST_CS_ACCESS) & ACCESS_L);
    RULE(c, check_canonical(c, V(c, GUEST_GDTR_BASE)), GUEST_GDTR_BASE, "27.3.1.3", "must be canonical");
    RULE(c, check_canonical(c, V(c, GUEST_IDTR_BASE)), GUEST_IDTR_BASE, "27.3.1.3", "must be canonical");
    RULE(c, !(V(c, GUEST_GDTR_LIMIT) >> 16), GUEST_GDTR_LIMIT, "27.3.1.3", "bits 31:16 must be 0");
    RULE(c, !(V(c, GUEST_IDTR_LIMIT) >> 16), GUEST_IDTR_LIMIT, "27.3.1.3", "bits 31:16 must be 0");
    RULE(c, code64 || !(rip >> 32), GUEST_RIP, "27.3.1.4", "bits 63:32 must be 0 outside 64-bit mode");
    /* One bit weaker than canonical: execution may have run off the end of the lower half. */
    uint64_t high = rip >> c->machine->linear_bits, ones = ~(uint64_t)0 >> c->machine->linear_bits;
    RULE(c, !code64 || high == 0 || high == ones, GUEST_RIP, "27.3.1.4",
         "bits above the linear-address width must be equal");
    RULE(c, !(rflags & RFLAGS_RESERVED) && (rflags & RFLAGS_FIXED_1), GUEST_RFLAGS, "27.3.1.4",
         "reserved bits must be 0, and bit 1 must be 1");
    RULE(c, !(rflags & RFLAGS_VM) || (!is_ia32e(c) && (V(c, GUEST_CR0) & CR0_PE)), GUEST_RFLAGS, "27.3.1.4",
         "VM must be 0 in IA-32e mode and in real mode");
    RULE(c,
         !(info & INTR_INFO_VALID) || INTR_INFO_TYPE(info) != EVENT_EXTERNAL_INTERRUPT ||
             (rflags & RFLAGS_IF),
         GUEST_RFLAGS, "27.3.1.4", "IF must be 1 when an external interrupt is injected");
    return true;
}

/* Which events an inactive guest may be given (SDM 27.3.1.5). */
static bool event_suits_activity(uint64_t activity, uint64_t info)
{
    unsigned type = INTR_INFO_TYPE(info), vector = info & INTR_INFO_VECTOR;
    switch (activity) {
    case ACTIVITY_HLT:
        return type == EVENT_EXTERNAL_INTERRUPT || type == EVENT_NMI || (type == 7 && vector == 0) ||
               (type == EVENT_EXCEPTION && (vector == VECTOR_DB || vector == VECTOR_MC));
    case ACTIVITY_SHUTDOWN:
        return type == EVENT_NMI || (type == EVENT_EXCEPTION && vector == VECTOR_MC);
    case ACTIVITY_WAIT_SIPI:
        return false;
    default:
        return true;
    }
}

static bool check_activity(const struct check *c)
{
    static const uint64_t offered_by[] = {0, VMX_MISC_ACTIVITY_HLT, VMX_MISC_ACTIVITY_SHUTDOWN,
                                          VMX_MISC_ACTIVITY_WAIT_SIPI};
    uint64_t activity = V(c, GUEST_ACTIVITY), info = V(c, ENTRY_INTR_INFO);
    uint64_t shadow = V(c, GUEST_INTERRUPTIBILITY) & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    RULE(c,
         activity <= ACTIVITY_WAIT_SIPI &&
             (c->machine->msrs->misc & offered_by[activity]) == offered_by[activity],
         GUEST_ACTIVITY, "27.3.1.5", "must be a state that IA32_VMX_MISC offers");
    RULE(c, activity != ACTIVITY_HLT || dpl_of(c, SS) == 0, GUEST_ACTIVITY, "27.3.1.5", "HLT needs SS.DPL 0");
    RULE(c, activity == ACTIVITY_ACTIVE || !shadow, GUEST_ACTIVITY, "27.3.1.5",
         "must be active with blocking by STI or MOV SS");
    RULE(c, !(info & INTR_INFO_VALID) || event_suits_activity(activity, info), GUEST_ACTIVITY, "27.3.1.5",
         "the injected event is not allowed in this state");
    return true;
}

static bool check_interruptibility(const struct check *c)
{
    uint64_t state = V(c, GUEST_INTERRUPTIBILITY), info = V(c, ENTRY_INTR_INFO);
    bool sti = state & INTERRUPTIBILITY_STI, mov_ss = state & INTERRUPTIBILITY_MOV_SS;
    bool injects = info & INTR_INFO_VALID;
    bool interrupt = injects && INTR_INFO_TYPE(info) == EVENT_EXTERNAL_INTERRUPT;
    bool nmi = injects && INTR_INFO_TYPE(info) == EVENT_NMI;
    RULE(c, !(state >> 5), GUEST_INTERRUPTIBILITY, "27.3.1.5", "bits 31:5 must be 0");
    RULE(c, !(sti && mov_ss), GUEST_INTERRUPTIBILITY, "27.3.1.5", "not blocking by both STI and MOV SS");
    RULE(c, !sti || (V(c, GUEST_RFLAGS) & RFLAGS_IF), GUEST_INTERRUPTIBILITY, "27.3.1.5",
         "blocking by STI needs RFLAGS.IF");
    RULE(c, !interrupt || !(sti || mov_ss), GUEST_INTERRUPTIBILITY, "27.3.1.5",
         "no blocking by STI or MOV SS when an external interrupt is injected");
    RULE(c, !nmi || !mov_ss, GUEST_INTERRUPTIBILITY, "27.3.1.5",
         "no blocking by MOV SS when an NMI is injected");
    RULE(c, !nmi || !(c->pin & PIN_VIRTUAL_NMIS) || !(state & INTERRUPTIBILITY_NMI), GUEST_INTERRUPTIBILITY,
         "27.3.1.5", "no blocking by NMI when an NMI is injected with virtual NMIs");
    RULE(c, !(state & INTERRUPTIBILITY_SMI), GUEST_INTERRUPTIBILITY, "27.3.1.5",
         "no blocking by SMI outside SMM");
    bool sgx = c->machine->cpuid_7_ebx & CPUID_07_EBX_SGX;
    RULE(c, !(state & INTERRUPTIBILITY_ENCLAVE) || (sgx && !mov_ss), GUEST_INTERRUPTIBILITY, "27.3.1.5",
         "an enclave needs SGX, and no blocking by MOV SS");
    return true;
}

/* Causes that only some processors know. */
static bool check_pending_debug_features(const struct check *c, uint64_t pending)
{
    bool bus_lock = c->machine->cpuid_7_ecx & CPUID_07_ECX_BUS_LOCK;
    bool rtm = c->machine->cpuid_7_ebx & CPUID_07_EBX_RTM;
    bool mov_ss = V(c, GUEST_INTERRUPTIBILITY) & INTERRUPTIBILITY_MOV_SS;
    RULE(c, !(pending & PENDING_DEBUG_BUS_LOCK) || bus_lock, GUEST_PENDING_DEBUG, "27.3.1.5",
         "a bus lock (bit 11) needs a processor that detects them");
    if (pending & PENDING_DEBUG_RTM)
        RULE(c, rtm && !mov_ss && pending == (PENDING_DEBUG_RTM | PENDING_DEBUG_ENABLED_BP),
             GUEST_PENDING_DEBUG, "27.3.1.5",
             "RTM (bit 16) needs RTM, only bit 12 beside it, and no blocking by MOV SS");
    return true;
}

static bool check_pending_debug(const struct check *c)
{
    uint64_t pending = V(c, GUEST_PENDING_DEBUG);
    uint64_t known = PENDING_DEBUG_B0_B3 | PENDING_DEBUG_BUS_LOCK | PENDING_DEBUG_ENABLED_BP |
                     PENDING_DEBUG_BS | PENDING_DEBUG_RTM;
    bool shadow = V(c, GUEST_INTERRUPTIBILITY) & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS);
    RULE(c, !(pending & ~known), GUEST_PENDING_DEBUG, "27.3.1.5", "reserved bits must be 0");
    if (!check_pending_debug_features(c, pending))
        return false;
    if (shadow || V(c, GUEST_ACTIVITY) == ACTIVITY_HLT) {
        bool single_step = (V(c, GUEST_RFLAGS) & RFLAGS_TF) && !(V(c, GUEST_DEBUGCTL) & DEBUGCTL_BTF);
        RULE(c, !(pending & PENDING_DEBUG_BS) == !single_step, GUEST_PENDING_DEBUG, "27.3.1.5",
             "in an interrupt shadow or HLT, BS (bit 14) must be 1 exactly when TF is 1 and BTF is 0");
    }
    return true;
}

static bool check_link_and_pdptes(const struct check *c)
{
    uint64_t link = V(c, LINK_POINTER);
    RULE(c, link == VMCS_LINK_NONE || (!(link & PAGE_MASK) && check_physical(c, link)), LINK_POINTER,
         "27.3.1.5", "must be all ones, or 4 KiB aligned and inside the physical-address width");
    bool pae = (V(c, GUEST_CR0) & CR0_PG) && (V(c, GUEST_CR4) & CR4_PAE) && !is_ia32e(c);
    if (!pae || !(c->proc2 & PROC2_ENABLE_EPT))
        return true;
    for (unsigned f = VMX_F_GUEST_PDPTE0; f <= VMX_F_GUEST_PDPTE3; f++) {
        /* SDM table 4-8: bits 2:1 and 8:5 are reserved in a present entry. */
        bool good = !(c->v[f] & 1) || (!(c->v[f] & 0x1e6) && check_physical(c, c->v[f]));
        RULE_AT(c, good, (enum vmx_check_field)f, "27.3.1.6", "reserved bits of a present PDPTE must be 0");
    }
    return true;
}

bool vmx_check_guest(const struct check *c)
{
    return check_control_registers(c) && check_msrs(c) && check_segments(c) && check_tables_rip_rflags(c) &&
           check_activity(c) && check_interruptibility(c) && check_pending_debug(c) &&
           check_link_and_pdptes(c);
}
