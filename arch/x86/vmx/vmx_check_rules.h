/* Private to vmx_check.c and vmx_check_guest.c: how a rule is written. */
#pragma once

#include "arch/x86/msr.h"
#include "arch/x86/vmx/vmx_check.h"
#include "hv/lib/bits.h"

struct check {
    const struct vmx_check_machine *machine;
    const uint64_t *v; /* values by enum vmx_check_field */
    struct vmx_check_finding *finding;
    uint32_t pin, proc, proc2, exit, entry; /* controls in force: secondary ones only when activated */
};

/* V(c, GUEST_CR0): the field's value. */
#define V(c, name) ((c)->v[VMX_F_##name])

/* Leaves a rule function with false when the rule does not hold. */
#define RULE_AT(c, condition, field, section, text)                                                          \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            return check_broken((c), (field), (section), (text));                                            \
    } while (0)
#define RULE(c, condition, name, section, text) RULE_AT(c, condition, VMX_F_##name, section, text)

static inline bool check_broken(const struct check *c, enum vmx_check_field field, const char *section,
                                const char *text)
{
    *c->finding = (struct vmx_check_finding){
        .field = vmx_check_field_name(field), .value = c->v[field], .rule = text, .section = section};
    return false;
}

/* No bit at or above the physical-address width. */
static inline bool check_physical(const struct check *c, uint64_t address)
{
    return !(address >> c->machine->physical_bits);
}

static inline bool check_canonical(const struct check *c, uint64_t address)
{
    unsigned unused = 64u - c->machine->linear_bits;
    return (uint64_t)((int64_t)(address << unused) >> unused) == address;
}

/* Every byte of a PAT is a memory type (SDM 12.12.2). */
static inline bool check_pat(uint64_t pat)
{
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t type = pat >> i & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

#define CHECK_EFER_DEFINED (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

/* 27.3: guest state; in vmx_check_guest.c. */
bool vmx_check_guest(const struct check *c);
