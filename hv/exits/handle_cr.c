/* Control and debug registers (SDM volume 3, 2.5 and "MOV to/from control registers" in volume 2). */
#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "arch/x86/virt.h"
#include "hv/exits/exit_table.h"
#include "hv/lib/string.h"
#include "hv/vm.h"

#define CR0_HIGH 0xffffffff00000000ull
#define CR8_MAX  15u

#define SEG_TYPE            0xfu
#define SEG_TYPE_TSS32_BUSY 11u

#define LMSW_BITS (CR0_PE | CR0_MP | CR0_EM | CR0_TS)

/* PAE page-directory-pointer entries: bits that must be 0 while P is 1 (SDM volume 3, table "Format of a PAE
 * Page-Directory-Pointer-Table Entry"): 2:1, 8:5 and those above the physical-address width. */
#define PDPTE_RESERVED_LOW 0x1e6ull
#define PDPTE_COUNT        4u

#define DR6_WRITABLE 0x0000e00full
#define DR6_FIXED_1  0xffff0ff0ull
#define DR7_FIXED_0  0xd000ull

static uint64_t gpr_read(struct vcpu *vcpu, unsigned gpr)
{
    return gpr == RSP ? virt_get(vcpu, VIRT_RSP) : vcpu->gpr[gpr];
}

static void gpr_write(struct vcpu *vcpu, unsigned gpr, uint64_t value)
{
    if (gpr == RSP)
        virt_set(vcpu, VIRT_RSP, value);
    else
        vcpu->gpr[gpr] = value;
}

static bool in_64bit_mode(struct vcpu *vcpu)
{
    return (virt_get(vcpu, VIRT_EFER) & EFER_LMA) && (virt_get_seg_access(vcpu, SEG_CS) & SEG_ACCESS_L);
}

static uint64_t beyond_address_width(const struct vcpu *vcpu)
{
    return ~(((uint64_t)1 << vcpu->vm->cpuid.phys_bits) - 1);
}

/* Reads and checks the four entries that PAE paging keeps in the processor. False: #GP(0). */
static bool load_pdptes(struct vcpu *vcpu, uint64_t cr3)
{
    uint64_t pdptes[PDPTE_COUNT];
    uint64_t reserved = PDPTE_RESERVED_LOW | beyond_address_width(vcpu);
    gpa_t table = gpa(cr3 & 0xffffffe0ull);
    if (gmem_read(&vcpu->vm->gmem, table, pdptes, sizeof(pdptes)) != STATUS_OK)
        memset(pdptes, 0, sizeof(pdptes)); /* nothing there: not present */
    for (unsigned i = 0; i < PDPTE_COUNT; i++) {
        if ((pdptes[i] & 1) && (pdptes[i] & reserved))
            return false;
    }
    for (unsigned i = 0; i < PDPTE_COUNT; i++)
        virt_set(vcpu, (enum virt_reg)(VIRT_PDPTE0 + i), pdptes[i]);
    return true;
}

/* Switching paging on with EFER.LME enters IA-32e mode: the conditions of SDM volume 3, 10.8.5. */
static bool can_enter_long_mode(struct vcpu *vcpu)
{
    if (!(virt_get(vcpu, VIRT_CR4) & CR4_PAE))
        return false;
    if (virt_get_seg_access(vcpu, SEG_CS) & SEG_ACCESS_L)
        return false;
    return (virt_get_seg_access(vcpu, SEG_TR) & SEG_TYPE) == SEG_TYPE_TSS32_BUSY;
}

static bool set_cr0(struct vcpu *vcpu, uint64_t value)
{
    uint64_t old = virt_get(vcpu, VIRT_CR0);
    uint64_t efer = virt_get(vcpu, VIRT_EFER);
    uint64_t cr4 = virt_get(vcpu, VIRT_CR4);
    if (value & CR0_HIGH)
        return false;
    value = (value & CR0_DEFINED) | CR0_ET; /* other low bits are ignored, ET is fixed */
    if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    if (!(value & CR0_WP) && (cr4 & CR4_CET))
        return false;

    bool paging_on = (value & CR0_PG) && !(old & CR0_PG);
    bool paging_off = !(value & CR0_PG) && (old & CR0_PG);
    if (paging_on && (efer & EFER_LME)) {
        if (!can_enter_long_mode(vcpu))
            return false;
        efer |= EFER_LMA;
    } else if ((value & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA)) {
        /* SDM volume 3, 4.4.1: the PDPTEs are loaded when CR0.CD, NW or PG changes. */
        if (((value ^ old) & (CR0_PG | CR0_CD | CR0_NW)) && !load_pdptes(vcpu, virt_get(vcpu, VIRT_CR3)))
            return false;
    }
    if (paging_off) {
        if (in_64bit_mode(vcpu) || (cr4 & CR4_PCIDE))
            return false;
        efer &= ~EFER_LMA;
    }
    virt_set(vcpu, VIRT_CR0, value);
    if (paging_on || paging_off) {
        virt_set(vcpu, VIRT_EFER, efer);
        virt_flush_linear(vcpu); /* SDM volume 3, 4.10.4.1 */
    }
    return true;
}

/* Only changes to bits that the guest does not own come here; the processor judges the others. */
static bool set_cr4(struct vcpu *vcpu, uint64_t value)
{
    uint64_t old = virt_get(vcpu, VIRT_CR4);
    uint64_t efer = virt_get(vcpu, VIRT_EFER);
    uint64_t cr0 = virt_get(vcpu, VIRT_CR0);
    if (value & ~vcpu->vm->cpuid.cr4_allowed)
        return false;
    if (!(value & CR4_PAE) && (efer & EFER_LMA))
        return false;
    if ((value & ~old & CR4_PCIDE) && (!(efer & EFER_LMA) || (virt_get(vcpu, VIRT_CR3) & CR3_PCID_MASK)))
        return false;
    if ((cr0 & CR0_PG) && (value & CR4_PAE) && !(efer & EFER_LMA) &&
        ((value ^ old) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) &&
        !load_pdptes(vcpu, virt_get(vcpu, VIRT_CR3)))
        return false;
    virt_set(vcpu, VIRT_CR4, value);
    virt_flush_linear(vcpu);
    return true;
}

/* Comes only where the processor cannot switch this exit off: what it would have done, but for the choice of
 * what to flush. */
bool handle_cr_load_cr3(struct vcpu *vcpu, uint64_t value)
{
    uint64_t cr4 = virt_get(vcpu, VIRT_CR4);
    bool long_mode = virt_get(vcpu, VIRT_EFER) & EFER_LMA;
    if (cr4 & CR4_PCIDE)
        value &= ~CR3_NO_FLUSH;
    if (long_mode && (value & beyond_address_width(vcpu)))
        return false;
    bool pae = !long_mode && (cr4 & CR4_PAE) && (virt_get(vcpu, VIRT_CR0) & CR0_PG);
    if (pae && !load_pdptes(vcpu, value)) /* SDM volume 3, 4.4.1 */
        return false;
    virt_set(vcpu, VIRT_CR3, value);
    virt_flush_linear(vcpu);
    return true;
}

/* Operands of MOV CR and MOV DR have 64 bits in 64-bit mode, else 32, whatever REX.W or the prefixes say. */
static uint64_t operand_mask(struct vcpu *vcpu)
{
    return in_64bit_mode(vcpu) ? UINT64_MAX : UINT32_MAX;
}

static bool mov_to_cr(struct vcpu *vcpu, const struct exit_cr *cr)
{
    uint64_t value = gpr_read(vcpu, cr->gpr) & operand_mask(vcpu);
    switch (cr->cr) {
    case 0:
        return set_cr0(vcpu, value);
    case 3:
        return handle_cr_load_cr3(vcpu, value);
    case 4:
        return set_cr4(vcpu, value);
    case 8:
        if (value > CR8_MAX)
            return false;
        lapic_set_cr8(&vcpu->lapic, (uint8_t)value);
        return true;
    default:
        return false;
    }
}

struct exit_result handle_cr(struct vcpu *vcpu, const struct exit *exit)
{
    const struct exit_cr *cr = &exit->u.cr;
    bool ok = true;
    switch (cr->op) {
    case CR_MOV_TO:
        ok = mov_to_cr(vcpu, cr);
        break;
    case CR_MOV_FROM:
        gpr_write(vcpu, cr->gpr, cr->cr == 8 ? lapic_cr8(&vcpu->lapic) : virt_get(vcpu, VIRT_CR3));
        break;
    case CR_CLTS:
        virt_set(vcpu, VIRT_CR0, virt_get(vcpu, VIRT_CR0) & ~CR0_TS);
        break;
    case CR_LMSW: {
        /* PE can be set but not cleared (SDM volume 2, LMSW). */
        uint64_t cr0 = virt_get(vcpu, VIRT_CR0);
        uint64_t value = (cr0 & ~(LMSW_BITS & ~CR0_PE)) | (cr->lmsw_source & LMSW_BITS);
        ok = set_cr0(vcpu, value);
        break;
    }
    }
    return ok ? exit_advance() : exit_inject_error(VECTOR_GP, 0);
}

/* MOV DR exits only where the processor cannot be told otherwise: debug registers are the guest's own while
 * its vCPU is loaded. SDM volume 3, "Debug Registers"; privilege was checked before the exit. */
struct exit_result handle_dr(struct vcpu *vcpu, const struct exit *exit)
{
    const struct exit_dr *access = &exit->u.dr;
    uint64_t dr7 = virt_get(vcpu, VIRT_DR7);
    unsigned dr = access->dr;
    if (dr == 4 || dr == 5) {
        if (virt_get(vcpu, VIRT_CR4) & CR4_DE)
            return exit_inject(VECTOR_UD);
        dr += 2; /* aliases of DR6 and DR7 */
    }
    if (dr7 & DR7_GD) {
        virt_debug_status(vcpu, DR6_BD);
        return exit_inject(VECTOR_DB);
    }
    enum virt_reg reg = dr == 7 ? VIRT_DR7 : dr == 6 ? VIRT_DR6 : (enum virt_reg)(VIRT_DR0 + dr);
    if (!access->write) {
        gpr_write(vcpu, access->gpr, virt_get(vcpu, reg) & operand_mask(vcpu));
        return exit_advance();
    }
    uint64_t value = gpr_read(vcpu, access->gpr) & operand_mask(vcpu);
    if (dr >= 6) {
        if (value >> 32)
            return exit_inject_error(VECTOR_GP, 0);
        value = dr == 6 ? (value & DR6_WRITABLE) | DR6_FIXED_1 : (value & ~DR7_FIXED_0) | DR7_RESET;
    }
    virt_set(vcpu, reg, value);
    return exit_advance();
}
