#include "states.h"

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "hv/exits/exit.h"
#include "hv/lib/string.h"

#define SET(field, v) (s->value[VMX_F_##field] = (v))
#define GET(field)    (s->value[VMX_F_##field])

#define PAT_POWER_UP   0x0007040600070406ull
#define CODE_64        0xa09bu
#define CODE_32        0xc09bu
#define DATA_32        0xc093u
#define TSS_BUSY       0x8bu
#define CR4_HOST_TRIED (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_MCE | CR4_PCE | CR4_PGE)
#define CR0_HOST_TRIED (CR0_MP | CR0_AM | CR0_NE | CR0_PE | CR0_PG | CR0_ET)

/* xorshift64: the same states in every run. */
static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random * 0x2545f4914f6cdd1dull;
}

static uint64_t below(uint64_t *random, uint64_t limit)
{
    return (next(random) >> 32) % limit;
}

static uint64_t flip(uint64_t *random, uint64_t value, unsigned bits)
{
    return value ^ (uint64_t)1 << below(random, bits);
}

const char *states_base_name(enum states_base base)
{
    static const char *const names[STATES] = {"64-bit", "protected",    "PAE",
                                              "real",   "virtual-8086", "restricted"};
    return names[base];
}

static uint32_t control(const struct states_world *w, enum vmx_control_set set, uint32_t wanted)
{
    uint64_t pair = vmx_caps_pair(w->machine.msrs, set);
    return (wanted | (uint32_t)pair) & (uint32_t)(pair >> 32);
}

static void set_controls(const struct states_world *w, struct vmx_check_state *s)
{
    SET(PIN_CONTROLS,
        control(w, VMX_SET_PIN,
                PIN_NMI_EXITING | PIN_VIRTUAL_NMIS | PIN_PREEMPTION_TIMER | PIN_EXTERNAL_INTERRUPT_EXITING));
    SET(PROC_CONTROLS,
        control(w, VMX_SET_PROC,
                PROC_ACTIVATE_SECONDARY | PROC_USE_IO_BITMAPS | PROC_USE_MSR_BITMAPS | PROC_HLT_EXITING));
    SET(PROC2_CONTROLS,
        control(w, VMX_SET_PROC2, PROC2_ENABLE_EPT | PROC2_UNRESTRICTED_GUEST | PROC2_ENABLE_VPID));
    SET(EXIT_CONTROLS,
        control(w, VMX_SET_EXIT, EXIT_CTL_HOST_64BIT | EXIT_CTL_LOAD_PAT | EXIT_CTL_LOAD_EFER));
    SET(ENTRY_CONTROLS,
        control(w, VMX_SET_ENTRY, ENTRY_CTL_LOAD_PAT | ENTRY_CTL_LOAD_EFER | ENTRY_CTL_LOAD_DEBUG_CONTROLS));
    static const enum vmx_check_field pages[] = {
        VMX_F_IO_BITMAP_A,          VMX_F_IO_BITMAP_B,         VMX_F_MSR_BITMAPS,
        VMX_F_VIRTUAL_APIC_ADDRESS, VMX_F_APIC_ACCESS_ADDRESS, VMX_F_POSTED_INTERRUPT_DESCRIPTOR,
        VMX_F_PML_ADDRESS,          VMX_F_SPP_TABLE_POINTER,   VMX_F_EPTP_LIST_ADDRESS,
        VMX_F_VMREAD_BITMAP,        VMX_F_VMWRITE_BITMAP,      VMX_F_VIRT_EXCEPTION_INFO_ADDRESS};
    for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        s->value[pages[i]] = w->page;
    SET(EXIT_MSR_STORE_ADDRESS, w->msr_area);
    SET(EXIT_MSR_LOAD_ADDRESS, w->msr_area);
    SET(ENTRY_MSR_LOAD_ADDRESS, w->msr_area);
    SET(EPT_POINTER, w->page | EPTP_WALK_4 | 6);
    SET(VPID, 1);
    SET(TSC_MULTIPLIER, 1ull << 48);
    SET(LINK_POINTER, VMCS_LINK_NONE);
}

static void set_host(const struct states_world *w, struct vmx_check_state *s)
{
    SET(HOST_CR0, w->host_cr0);
    SET(HOST_CR3, w->host_cr3);
    SET(HOST_CR4, w->host_cr4);
    SET(HOST_PAT, w->host_pat);
    SET(HOST_EFER, w->host_efer);
    SET(HOST_CS_SELECTOR, w->host_cs);
    SET(HOST_SS_SELECTOR, w->host_ss);
    SET(HOST_DS_SELECTOR, w->host_ss);
    SET(HOST_ES_SELECTOR, w->host_ss);
    SET(HOST_TR_SELECTOR, w->host_tr);
    SET(HOST_TR_BASE, w->host_tr_base);
    SET(HOST_GDTR_BASE, w->host_gdtr_base);
    SET(HOST_IDTR_BASE, w->host_idtr_base);
    SET(HOST_RIP, w->host_rip);
}

static void set_segment(struct vmx_check_state *s, unsigned index, uint64_t selector, uint64_t base,
                        uint64_t limit, uint64_t access)
{
    s->value[VMX_F_GUEST_ES_SELECTOR + index] = selector;
    s->value[VMX_F_GUEST_ES_BASE + index] = base;
    s->value[VMX_F_GUEST_ES_LIMIT + index] = limit;
    s->value[VMX_F_GUEST_ES_ACCESS + index] = access;
}

enum { CS = 1, LDTR = 6, TR = 7 };

static void set_segments(struct vmx_check_state *s, uint32_t code)
{
    for (unsigned i = 0; i < LDTR; i++)
        set_segment(s, i, 0x10, 0, UINT32_MAX, DATA_32);
    set_segment(s, CS, 0x8, 0, UINT32_MAX, code);
    set_segment(s, LDTR, 0, 0, 0, ACCESS_UNUSABLE);
    set_segment(s, TR, 0x18, 0, 0x67, TSS_BUSY);
}

static void set_real_segments(struct vmx_check_state *s)
{
    for (unsigned i = 0; i < LDTR; i++)
        set_segment(s, i, 0, 0, 0xffff, 0x93);
    set_segment(s, CS, 0xf000, 0xf0000, 0xffff, 0x9b);
    set_segment(s, LDTR, 0, 0, 0xffff, 0x82);
    set_segment(s, TR, 0, 0, 0xffff, TSS_BUSY);
}

static void set_v86_segments(struct vmx_check_state *s)
{
    for (unsigned i = 0; i < LDTR; i++)
        set_segment(s, i, 0x1230, 0x12300, 0xffff, 0xf3);
    set_segment(s, LDTR, 0, 0, 0, ACCESS_UNUSABLE);
    set_segment(s, TR, 0x18, 0, 0x67, TSS_BUSY);
    SET(GUEST_RFLAGS, GET(GUEST_RFLAGS) | RFLAGS_VM);
}

void states_good(const struct states_world *w, enum states_base base, struct vmx_check_state *s)
{
    memset(s, 0, sizeof(*s));
    set_controls(w, s);
    set_host(w, s);
    SET(GUEST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_ET);
    SET(GUEST_CR3, w->page);
    SET(GUEST_CR4, CR4_VMXE);
    SET(GUEST_PAT, PAT_POWER_UP);
    SET(GUEST_DR7, DR7_RESET);
    SET(GUEST_RFLAGS, RFLAGS_FIXED_1);
    SET(GUEST_RIP, 0x1000);
    set_segments(s, CODE_32);
    switch (base) {
    case STATE_LONG:
    case STATE_RESTRICTED:
        SET(GUEST_CR4, CR4_VMXE | CR4_PAE);
        SET(GUEST_EFER, EFER_LMA | EFER_LME);
        SET(ENTRY_CONTROLS, GET(ENTRY_CONTROLS) | ENTRY_CTL_IA32E_GUEST);
        set_segments(s, CODE_64);
        if (base == STATE_RESTRICTED)
            SET(PROC2_CONTROLS, GET(PROC2_CONTROLS) & ~(uint64_t)PROC2_UNRESTRICTED_GUEST);
        break;
    case STATE_PAE:
        SET(GUEST_CR4, CR4_VMXE | CR4_PAE);
        break;
    case STATE_REAL:
        SET(GUEST_CR0, CR0_NE | CR0_ET);
        set_real_segments(s);
        break;
    case STATE_V86:
        set_v86_segments(s);
        break;
    default:
        break;
    }
}

/* ---- changes ---- */

/* One of the values at which the rules of addresses turn. */
static uint64_t odd_address(const struct states_world *w, uint64_t *random, uint64_t old)
{
    uint64_t too_high =
        (uint64_t)1 << (w->machine.physical_bits + below(random, 64 - w->machine.physical_bits));
    switch (below(random, 6)) {
    case 0:
        return old | 1u << below(random, 12);
    case 1:
        return old | too_high;
    case 2:
        return too_high;
    case 3:
        return old | 8;
    case 4:
        return old | 0x40;
    default:
        return w->page;
    }
}

static uint64_t odd_linear(uint64_t *random)
{
    static const uint64_t values[] = {0,
                                      0x00007fffffffffff,
                                      0x0000800000000000,
                                      0xffff7fffffffffff,
                                      0xffff800000000000,
                                      0xffffffffffffffff,
                                      0x0100000000000000,
                                      0x00000000ffffffff,
                                      0x0000000100000000,
                                      0x8000000000000000};
    return values[below(random, sizeof(values) / sizeof(values[0]))];
}

static uint64_t odd_event(uint64_t *random)
{
    uint64_t info = INTR_INFO_VALID | below(random, 8) << INTR_INFO_TYPE_SHIFT;
    info |= below(random, 4) ? below(random, 34) : below(random, 256);
    if (below(random, 3) == 0)
        info |= INTR_INFO_ERROR_VALID;
    if (below(random, 6) == 0)
        info |= (uint64_t)1 << (12 + below(random, 19));
    return info;
}

static uint64_t odd_pat(uint64_t *random, uint64_t old)
{
    unsigned shift = (unsigned)below(random, 8) * 8;
    return (old & ~((uint64_t)0xff << shift)) | below(random, 10) << shift;
}

static uint64_t odd_limit(uint64_t *random)
{
    static const uint32_t values[] = {0,          0xfff, 0xffff,     0xfffff,   0x100000,
                                      0xffffffff, 0x67,  0xfffffffe, 0xffff0fff};
    return values[below(random, sizeof(values) / sizeof(values[0]))];
}

static uint64_t odd_access(uint64_t *random, uint64_t old)
{
    switch (below(random, 4)) {
    case 0:
        return (old & ~(uint64_t)ACCESS_TYPE) | below(random, 16);
    case 1:
        return (old & ~(uint64_t)ACCESS_DPL) | below(random, 4) << 5;
    default:
        return flip(random, old, 20);
    }
}

static uint64_t odd_selector(uint64_t *random, uint64_t old)
{
    return below(random, 3) ? old ^ 1u << below(random, 5) : below(random, 2) ? 0 : 0x2b;
}

/* Only bits that a host can live with, and bits that are refused: what is accepted is loaded at the next
 * exit. */
static uint64_t odd_host(const struct states_world *w, enum vmx_check_field f, uint64_t old, uint64_t *random)
{
    uint64_t high = (uint64_t)1 << (32 + below(random, 32));
    switch (f) {
    case VMX_F_HOST_CR0:
        return old ^ (below(random, 3) ? (uint64_t)1 << below(random, 32) & CR0_HOST_TRIED : high);
    case VMX_F_HOST_CR4:
        if (below(random, 3) == 0)
            return old ^ (below(random, 2) ? CR4_PAE : CR4_VMXE);
        return below(random, 2) ? old ^ ((uint64_t)1 << below(random, 32) & CR4_HOST_TRIED) : old | high;
    case VMX_F_HOST_CR3:
        return old | (uint64_t)1 << (w->machine.physical_bits + below(random, 64 - w->machine.physical_bits));
    case VMX_F_HOST_PAT:
        return odd_pat(random, old);
    case VMX_F_HOST_EFER:
        return below(random, 2) ? old ^ EFER_SCE : flip(random, old, 64) | EFER_NXE;
    case VMX_F_HOST_RIP:
        return below(random, 2) ? old : 0x0000800000000000ull;
    default:
        if (f >= VMX_F_HOST_ES_SELECTOR && f <= VMX_F_HOST_TR_SELECTOR)
            return below(random, 2) ? old ^ 1u << below(random, 3) : 0;
        return odd_linear(random);
    }
}

static uint64_t odd_guest(const struct states_world *w, enum vmx_check_field f, uint64_t old,
                          uint64_t *random)
{
    switch (f) {
    case VMX_F_GUEST_CR0:
    case VMX_F_GUEST_CR4:
        return flip(random, old, below(random, 4) ? 32 : 64);
    case VMX_F_GUEST_CR3:
        return odd_address(w, random, w->page);
    case VMX_F_GUEST_PAT:
        return odd_pat(random, old);
    case VMX_F_GUEST_EFER:
        return below(random, 2) ? flip(random, old, 13) : flip(random, old, 64);
    case VMX_F_GUEST_DR7:
        return flip(random, old, 64) & ~(uint64_t)0xff; /* no breakpoint is switched on */
    case VMX_F_GUEST_DEBUGCTL:
        return flip(random, old, below(random, 2) ? 16 : 64);
    case VMX_F_GUEST_RFLAGS:
        return flip(random, old, below(random, 4) ? 22 : 64);
    case VMX_F_GUEST_ACTIVITY:
        return below(random, 6);
    case VMX_F_GUEST_INTERRUPTIBILITY:
        return below(random, 4) ? below(random, 16) : (uint64_t)1 << below(random, 32);
    case VMX_F_GUEST_PENDING_DEBUG:
        return below(random, 2) ? PENDING_DEBUG_BS : (uint64_t)1 << below(random, 20);
    case VMX_F_LINK_POINTER:
        return odd_address(w, random, w->page) | 1;
    case VMX_F_GUEST_GDTR_LIMIT:
    case VMX_F_GUEST_IDTR_LIMIT:
        return odd_limit(random);
    default:
        break;
    }
    if (f >= VMX_F_GUEST_PDPTE0 && f <= VMX_F_GUEST_PDPTE3)
        return odd_address(w, random, w->page) | below(random, 2);
    if (f >= VMX_F_GUEST_ES_SELECTOR && f <= VMX_F_GUEST_TR_SELECTOR)
        return odd_selector(random, old);
    if (f >= VMX_F_GUEST_ES_LIMIT && f <= VMX_F_GUEST_TR_LIMIT)
        return odd_limit(random);
    if (f >= VMX_F_GUEST_ES_ACCESS && f <= VMX_F_GUEST_TR_ACCESS)
        return odd_access(random, old);
    return odd_linear(random); /* bases, RIP, SYSENTER */
}

static uint64_t odd_control(const struct states_world *w, enum vmx_check_field f, uint64_t old,
                            uint64_t *random)
{
    switch (f) {
    case VMX_F_PIN_CONTROLS:
    case VMX_F_PROC_CONTROLS:
    case VMX_F_PROC2_CONTROLS:
    case VMX_F_EXIT_CONTROLS:
    case VMX_F_ENTRY_CONTROLS:
        return flip(random, old, 32);
    case VMX_F_PROC3_CONTROLS:
    case VMX_F_EXIT2_CONTROLS:
        return 0; /* nothing of it is used here */
    case VMX_F_CR3_TARGET_COUNT:
        return below(random, 8);
    case VMX_F_TPR_THRESHOLD:
        return below(random, 20);
    case VMX_F_POSTED_INTERRUPT_VECTOR:
        return below(random, 2) ? below(random, 256) : 0x100;
    case VMX_F_VPID:
        return below(random, 2);
    case VMX_F_VM_FUNCTION_CONTROLS:
        return below(random, 4);
    case VMX_F_EPT_POINTER:
        return below(random, 3) ? flip(random, old, 12) : odd_address(w, random, old);
    case VMX_F_TSC_MULTIPLIER:
        return below(random, 2) ? old : 0;
    case VMX_F_EXIT_MSR_STORE_COUNT:
    case VMX_F_EXIT_MSR_LOAD_COUNT:
    case VMX_F_ENTRY_MSR_LOAD_COUNT:
        return below(random, 4);
    case VMX_F_EXIT_MSR_STORE_ADDRESS:
    case VMX_F_EXIT_MSR_LOAD_ADDRESS:
    case VMX_F_ENTRY_MSR_LOAD_ADDRESS:
        return below(random, 2) ? old + 16 * below(random, 4) : old | 1u << below(random, 4);
    case VMX_F_ENTRY_INTR_INFO:
        return odd_event(random);
    case VMX_F_ENTRY_EXCEPTION_ERROR:
        return below(random, 2) ? below(random, 0x10000) : (uint64_t)1 << below(random, 32);
    case VMX_F_ENTRY_INSN_LEN:
        return below(random, 20);
    default:
        return odd_address(w, random, old);
    }
}

/* Two of three changes go to fields that have more rules than an address has. */
static enum vmx_check_field pick_field(uint64_t *random)
{
    static const enum vmx_check_field rich[] = {VMX_F_PIN_CONTROLS,
                                                VMX_F_PROC_CONTROLS,
                                                VMX_F_PROC2_CONTROLS,
                                                VMX_F_EXIT_CONTROLS,
                                                VMX_F_ENTRY_CONTROLS,
                                                VMX_F_ENTRY_INTR_INFO,
                                                VMX_F_GUEST_CR0,
                                                VMX_F_GUEST_CR4,
                                                VMX_F_GUEST_RFLAGS,
                                                VMX_F_GUEST_ACTIVITY,
                                                VMX_F_GUEST_INTERRUPTIBILITY,
                                                VMX_F_GUEST_PENDING_DEBUG,
                                                VMX_F_GUEST_CS_ACCESS,
                                                VMX_F_GUEST_SS_ACCESS,
                                                VMX_F_GUEST_DS_ACCESS,
                                                VMX_F_GUEST_TR_ACCESS,
                                                VMX_F_GUEST_CS_SELECTOR,
                                                VMX_F_GUEST_SS_SELECTOR,
                                                VMX_F_GUEST_EFER,
                                                VMX_F_GUEST_LDTR_ACCESS,
                                                VMX_F_EPT_POINTER};
    if (below(random, 2))
        return rich[below(random, sizeof(rich) / sizeof(rich[0]))];
    return (enum vmx_check_field)below(random, VMX_F_COUNT);
}

enum vmx_check_field states_change(const struct states_world *w, struct vmx_check_state *s, uint64_t *random)
{
    enum vmx_check_field f = pick_field(random);
    uint64_t old = s->value[f];
    if (f < VMX_F_HOST_CR0)
        s->value[f] = odd_control(w, f, old, random);
    else if (f < VMX_F_GUEST_CR0)
        s->value[f] = odd_host(w, f, old, random);
    else
        s->value[f] = odd_guest(w, f, old, random);
    return f;
}

void states_make_safe(const struct states_world *w, struct vmx_check_state *s)
{
    /* Without these the exit would leave the guest's EFER and PAT to the host. */
    SET(EXIT_CONTROLS, GET(EXIT_CONTROLS) | EXIT_CTL_LOAD_EFER | EXIT_CTL_LOAD_PAT);
    /* A guest that sleeps is woken by the preemption timer only, and one that waits for a SIPI by nothing. */
    if (GET(GUEST_ACTIVITY) != ACTIVITY_ACTIVE)
        SET(PIN_CONTROLS, GET(PIN_CONTROLS) | PIN_PREEMPTION_TIMER);
    if (GET(GUEST_ACTIVITY) == ACTIVITY_WAIT_SIPI)
        SET(ENTRY_INTR_INFO, GET(ENTRY_INTR_INFO) | INTR_INFO_VALID);
    /* Without EPT the guest's tables are real memory: only ours may be used. */
    if (!(GET(PROC2_CONTROLS) & PROC2_ENABLE_EPT) || !(GET(PROC_CONTROLS) & PROC_ACTIVATE_SECONDARY))
        SET(GUEST_CR3, (GET(GUEST_CR3) & ~(uint64_t)0x0000000ffffff000) | w->page);
}
