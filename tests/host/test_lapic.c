/* The local APIC against the SDM's rules, register by register. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "drivers/vdev/lapic.h"

#define TIMER_HZ 25000000ull
#define TSC_HZ   3000000000ull
#define TICK     120u /* TSC cycles per timer tick */

struct fake {
    struct lapic apic;
    uint64_t now;
    unsigned timer_changes, ipis, eois, changes;
    struct lapic_ipi ipi;
    uint8_t eoi_vector;
};

static uint64_t fake_now(void *ctx)
{
    return ((struct fake *)ctx)->now;
}
static void fake_timer_changed(void *ctx)
{
    ((struct fake *)ctx)->timer_changes++;
}
static void fake_send_ipi(void *ctx, const struct lapic_ipi *ipi)
{
    struct fake *f = ctx;
    f->ipis++;
    f->ipi = *ipi;
}
static void fake_eoi(void *ctx, uint8_t vector)
{
    struct fake *f = ctx;
    f->eois++;
    f->eoi_vector = vector;
}
static void fake_changed(void *ctx)
{
    ((struct fake *)ctx)->changes++;
}

static struct fake f;
static struct lapic_env env;
static struct lapic *const l = &f.apic;

// clang-format off
/* Register offsets in the page. */
enum {
    ID = 0x20, VERSION = 0x30, TPR = 0x80, APR = 0x90, PPR = 0xa0, EOI = 0xb0, RRD = 0xc0, LDR = 0xd0, DFR
    = 0xe0, SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, CMCI = 0x2f0, ICR = 0x300,
    ICR_HI = 0x310, LVT_TIMER = 0x320, LVT_THERMAL = 0x330, LVT_PMC = 0x340, LINT0 = 0x350, LINT1 = 0x360,
    LVT_ERROR = 0x370, INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0, SELF = 0x3f0
};
// clang-format on

static uint32_t rd(uint32_t offset)
{
    return lapic_mmio_read(l, offset, 4);
}
static void wr(uint32_t offset, uint32_t value)
{
    lapic_mmio_write(l, offset, 4, value);
}
static uint32_t msr_of(uint32_t offset)
{
    return 0x800 + offset / 16;
}
static enum status xwr(uint32_t offset, uint64_t value)
{
    return lapic_msr_write(l, msr_of(offset), value);
}
static uint64_t xrd(uint32_t offset)
{
    uint64_t value = 0;
    assert_int_equal(lapic_msr_read(l, msr_of(offset), &value), STATUS_OK);
    return value;
}
static bool bit_of(uint32_t base, unsigned vector)
{
    return rd(base + vector / 32 * 16) >> (vector % 32) & 1;
}

static int start(uint32_t id)
{
    memset(&f, 0xa5, sizeof(f));
    f.now = 1000000;
    env = (struct lapic_env){&f, fake_now, fake_timer_changed, fake_send_ipi, fake_eoi, fake_changed};
    lapic_init(l, &env, id, id == 0, TIMER_HZ, TSC_HZ);
    f.timer_changes = f.ipis = f.eois = f.changes = 0;
    return 0;
}
/* xAPIC, software-enabled, spurious vector 0xff. */
static int setup(void **state)
{
    start(0);
    wr(SVR, 0x1ff);
    return 0;
}
static int setup_x2(void **state)
{
    setup(state);
    return lapic_base_write(l, 0xfee00000 | APIC_BASE_ENABLE | APIC_BASE_X2APIC | APIC_BASE_BSP);
}

static void take(int vector)
{
    assert_int_equal(lapic_pending(l), vector);
    lapic_take(l, (uint8_t)vector);
}

/* ---- reset state and register map ---- */

static void test_power_up_state(void **state)
{
    start(3);
    assert_int_equal(l->base_msr, 0xfee00800);
    assert_int_equal(rd(ID), 3u << 24);
    assert_int_equal(rd(VERSION), 0x01060014);
    assert_int_equal(rd(SVR), 0xff);
    assert_int_equal(rd(DFR), 0xffffffff);
    for (uint32_t reg = LVT_TIMER; reg <= LVT_ERROR; reg += 16)
        assert_int_equal(rd(reg), 0x10000);
    assert_int_equal(rd(CMCI), 0x10000);
    static const uint32_t zeros[] = {TPR, PPR,    APR,     RRD,     LDR,    ESR,
                                     ICR, ICR_HI, INITIAL, CURRENT, DIVIDE, EOI};
    for (size_t i = 0; i < ARRAY_SIZE(zeros); i++)
        assert_int_equal(rd(zeros[i]), 0);
    for (uint32_t reg = ISR; reg < ESR; reg += 16)
        assert_int_equal(rd(reg), 0);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    assert_int_equal(lapic_pending(l), -1);
    wr(ESR, 0); /* none of these reads was illegal */
    assert_int_equal(rd(ESR), 0);
    start(0);
    assert_int_equal(l->base_msr, 0xfee00900);
    assert_true(lapic_mmio_enabled(l));
    assert_int_equal(lapic_mmio_base(l).v, 0xfee00000);
}

static void test_writable_bits(void **state)
{
    static const struct {
        uint32_t reg, written, read;
    } rows[] = {
        {ID, ~0u, 0},
        {VERSION, ~0u, 0x01060014},
        {TPR, ~0u, 0xff},
        {SVR, ~0u, 0x11ff},
        {LDR, ~0u, 0xff000000},
        {DFR, 0, 0x0fffffff},
        {ICR_HI, ~0u, 0xff000000},
        {CMCI, ~0u, 0x107ff},
        {LVT_TIMER, ~0u, 0x700ff},
        {LVT_THERMAL, ~0u, 0x107ff},
        {LVT_PMC, ~0u, 0x107ff},
        {LINT0, ~0u, 0x1a7ff},
        {LINT1, ~0u, 0x1a7ff},
        {LVT_ERROR, ~0u, 0x100ff},
        {DIVIDE, ~0u, 0xb},
        {ISR, ~0u, 0},
        {TMR, ~0u, 0},
        {IRR, ~0u, 0},
        {PPR, 0, 0xff},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        wr(rows[i].reg, rows[i].written);
        assert_int_equal(rd(rows[i].reg), rows[i].read);
    }
    wr(ICR, 0xfff33000 | LAPIC_SMI << 8); /* SMI: stored, not sent */
    assert_int_equal(rd(ICR), 0x200);
}

static void test_illegal_register(void **state)
{
    wr(LVT_ERROR, 0x55);
    static const uint32_t holes[] = {0x00, 0x10, 0x40, 0x70, 0x290, 0x2e0, 0x3a0, 0x3d0, 0x3f0, 0x400, 0xff0};
    for (size_t i = 0; i < ARRAY_SIZE(holes); i++) {
        assert_int_equal(rd(holes[i]), 0);
        wr(ESR, 0);
        assert_int_equal(rd(ESR), 0x80);
        wr(holes[i], 1);
        wr(ESR, 0);
        assert_int_equal(rd(ESR), 0x80);
        wr(ESR, 0);
        assert_int_equal(rd(ESR), 0);
    }
    take(0x55);
}

static void test_mmio_access_widths(void **state)
{
    assert_int_equal(lapic_mmio_read(l, VERSION, 1), 0x14);
    assert_int_equal(lapic_mmio_read(l, VERSION + 2, 1), 0x06);
    assert_int_equal(lapic_mmio_read(l, VERSION + 2, 2), 0x0106);
    assert_int_equal(lapic_mmio_read(l, VERSION, 8), 0x01060014);
    assert_int_equal(lapic_mmio_read(l, VERSION + 4, 4), 0);
    lapic_mmio_write(l, TPR, 1, 0x20);
    lapic_mmio_write(l, TPR, 8, 0x20);
    lapic_mmio_write(l, TPR + 1, 4, 0x20);
    assert_int_equal(rd(TPR), 0);
    lapic_mmio_write(l, TPR, 4, 0x20);
    assert_int_equal(rd(TPR), 0x20);
}

/* ---- priorities ---- */

static void test_priority_order(void **state)
{
    assert_true(lapic_post(l, 0x31, false));
    assert_true(lapic_post(l, 0xe0, false));
    assert_true(lapic_post(l, 0x3f, false));
    assert_true(bit_of(IRR, 0x31) && bit_of(IRR, 0xe0) && bit_of(IRR, 0x3f));
    take(0xe0);
    assert_int_equal(l->irr_summary, 1 << 1);
    assert_true(bit_of(ISR, 0xe0) && !bit_of(IRR, 0xe0));
    assert_int_equal(rd(PPR), 0xe0);
    assert_int_equal(lapic_pending(l), -1);
    assert_int_equal(lapic_highest_irr(l), 0x3f);
    wr(EOI, 0);
    take(0x3f);
    assert_int_equal(lapic_pending(l), -1); /* the same class is not higher */
    wr(EOI, 0);
    take(0x31);
    wr(EOI, 0);
    assert_int_equal(lapic_pending(l), -1);
    assert_int_equal(rd(PPR), 0);
    assert_int_equal(l->irr_summary, 0);
    assert_int_equal(l->isr_summary, 0);
    wr(EOI, 0); /* nothing in service: no effect */
    assert_int_equal(f.eois, 0);
}

static void test_nesting(void **state)
{
    static const uint8_t vectors[] = {0x20, 0x35, 0x41, 0x5f, 0xa0, 0xff};
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        lapic_post(l, vectors[i], false);
        take(vectors[i]);
        assert_int_equal(rd(PPR), vectors[i] & 0xf0);
    }
    for (size_t i = ARRAY_SIZE(vectors); i-- > 0;) {
        assert_true(bit_of(ISR, vectors[i]));
        wr(EOI, 0);
        assert_false(bit_of(ISR, vectors[i]));
        assert_int_equal(rd(PPR), i ? vectors[i - 1] & 0xf0 : 0);
    }
}

/* A vector that arrives again while in service waits for its EOI. */
static void test_same_vector_again(void **state)
{
    lapic_post(l, 0x40, false);
    take(0x40);
    lapic_post(l, 0x40, false);
    assert_int_equal(lapic_pending(l), -1);
    f.changes = 0;
    wr(EOI, 0);
    assert_int_equal(f.changes, 1);
    take(0x40);
    wr(EOI, 0);
    assert_int_equal(lapic_pending(l), -1);
}

static void test_tpr_and_cr8(void **state)
{
    wr(TPR, 0x45);
    assert_int_equal(lapic_cr8(l), 4);
    assert_int_equal(rd(PPR), 0x45); /* TPR's class is the higher: its low bits show */
    lapic_post(l, 0x4f, false);
    assert_int_equal(lapic_pending(l), -1);
    f.changes = 0;
    lapic_set_cr8(l, 5);
    assert_int_equal(f.changes, 0);
    lapic_set_cr8(l, 3);
    assert_int_equal(f.changes, 1);
    assert_int_equal(rd(TPR), 0x30);
    take(0x4f);
    wr(TPR, 0x35);
    assert_int_equal(rd(PPR), 0x40); /* the vector in service is higher: low bits are zero */
    wr(TPR, 0x4a);
    assert_int_equal(rd(PPR), 0x4a);
    lapic_set_cr8(l, 0xff); /* only four bits count */
    assert_int_equal(rd(TPR), 0xf0);
}

/* The summary may be a stale hint: a look clears it. */
static void test_stale_summary(void **state)
{
    l->irr_summary = 0x84;
    lapic_post(l, 0x50, false);
    assert_int_equal(lapic_pending(l), 0x50);
    lapic_take(l, 0x50);
    assert_int_equal(lapic_pending(l), -1);
    l->irr_summary = 0xff;
    assert_int_equal(lapic_highest_irr(l), -1);
    assert_int_equal(l->irr_summary, 0);
}

static void test_level_and_eoi_broadcast(void **state)
{
    lapic_post(l, 0x61, true);
    assert_true(bit_of(TMR, 0x61));
    take(0x61);
    wr(EOI, 0);
    assert_int_equal(f.eois, 1);
    assert_int_equal(f.eoi_vector, 0x61);
    assert_true(bit_of(TMR, 0x61)); /* until the next acceptance */
    lapic_post(l, 0x61, false);
    assert_false(bit_of(TMR, 0x61));
    take(0x61);
    wr(EOI, 0);
    assert_int_equal(f.eois, 1);
    wr(SVR, 0x11ff); /* suppress EOI broadcasts */
    lapic_post(l, 0x61, true);
    take(0x61);
    wr(EOI, 0);
    assert_int_equal(f.eois, 1);
}

/* ---- software enable, LVT, errors ---- */

static void test_software_disable(void **state)
{
    for (uint32_t reg = LVT_TIMER; reg <= LVT_ERROR; reg += 16)
        wr(reg, 0x40);
    wr(CMCI, 0x40);
    lapic_post(l, 0x70, false);
    wr(SVR, 0xff);
    for (uint32_t reg = LVT_TIMER; reg <= LVT_ERROR; reg += 16) {
        assert_int_equal(rd(reg), 0x10040);
        wr(reg, 0x41); /* the mask cannot be cleared */
        assert_int_equal(rd(reg), 0x10041);
    }
    assert_int_equal(rd(CMCI), 0x10040);
    assert_false(lapic_post(l, 0x90, true));
    assert_int_equal(lapic_pending(l), 0x70); /* held requests stay deliverable */
    wr(SVR, 0x1ff);
    assert_int_equal(rd(LINT0), 0x10041); /* enabling unmasks nothing */
    wr(LINT0, 0x41);
    assert_int_equal(rd(LINT0), 0x41);
}

static void test_lint(void **state)
{
    assert_false(lapic_accepts_extint(l));
    assert_false(lapic_accepts_nmi_lint1(l));
    wr(LINT0, 0x700);
    wr(LINT1, 0x400);
    assert_true(lapic_accepts_extint(l));
    assert_true(lapic_accepts_nmi_lint1(l));
    wr(LINT0, 0x10700);
    wr(LINT1, 0x10400);
    assert_false(lapic_accepts_extint(l));
    assert_false(lapic_accepts_nmi_lint1(l));
    wr(LINT0, 0x400);
    wr(LINT1, 0x700);
    assert_false(lapic_accepts_extint(l));
    assert_false(lapic_accepts_nmi_lint1(l));
    lapic_base_write(l, 0xfee00000); /* no APIC: plain INTR and NMI pins */
    assert_true(lapic_accepts_extint(l));
    assert_true(lapic_accepts_nmi_lint1(l));
}

static void test_esr_and_error_interrupt(void **state)
{
    wr(LVT_ERROR, 0xfe);
    assert_true(lapic_post(l, 0x0f, false));
    assert_int_equal(rd(ESR), 0); /* shows only after a write */
    assert_false(bit_of(IRR, 0x0f));
    take(0xfe);
    wr(EOI, 0);
    assert_true(lapic_post(l, 0x00, false)); /* not armed again before a write to ESR */
    assert_int_equal(lapic_pending(l), -1);
    wr(ESR, 0x1234);
    assert_int_equal(rd(ESR), 0x40);
    lapic_post(l, 0x01, false);
    take(0xfe);
    wr(ESR, 0);
    wr(ESR, 0);
    assert_int_equal(rd(ESR), 0);
    /* The error vector is itself illegal: logged, nothing delivered. */
    wr(EOI, 0);
    wr(LVT_ERROR, 0x0e);
    rd(0x3f0);
    wr(ESR, 0);
    assert_int_equal(rd(ESR), 0xc0);
    assert_int_equal(lapic_pending(l), -1);
    wr(LVT_ERROR, 0x100fe);
    rd(0x3f0);
    assert_int_equal(lapic_pending(l), -1);
}

/* ---- IPIs ---- */

static void test_xapic_ipi_decode(void **state)
{
    wr(ICR_HI, 0x03123456);
    assert_int_equal(f.ipis, 0);
    wr(ICR, 0xc8fd | 1 << 12); /* fixed, logical, assert, level; delivery status ignored */
    assert_int_equal(f.ipis, 1);
    assert_int_equal(f.ipi.dest, 3);
    assert_int_equal(f.ipi.vector, 0xfd);
    assert_int_equal(f.ipi.mode, LAPIC_FIXED);
    assert_int_equal(f.ipi.shorthand, LAPIC_DEST_FIELD);
    assert_true(f.ipi.logical && f.ipi.level && f.ipi.assert && !f.ipi.x2apic);
    assert_int_equal(rd(ICR), 0xc8fd);
    wr(ICR, 0xc0000 | 0x400);
    assert_int_equal(f.ipis, 2);
    assert_int_equal(f.ipi.mode, LAPIC_NMI);
    assert_int_equal(f.ipi.shorthand, LAPIC_DEST_OTHERS);
    assert_false(f.ipi.logical || f.ipi.level || f.ipi.assert);
}

static void test_ipi_validity(void **state)
{
    static const struct {
        uint32_t command;
        bool sent;
    } rows[] = {
        {0xc500, true},   {0x4500, true},  {0x0500, true}, /* INIT: level assert, edge (as Linux and as
                                                              others write it) */
        {0x8500, false},                                   /* INIT level de-assert */
        {0x4699, true},   {0x0699, true},                  /* SIPI */
        {0x40500, true},  {0x80500, true}, {0xc4500, true}, {0x40699, false},
        {0x80699, false}, {0xc4699, true}, {0x200, false},  {0x3fd, false},
        {0x7fd, false}, /* SMI, reserved modes */
        {0x400, true},    {0x80400, true}, {0x1fd, true},   {0x800fd, true},
        {0xc00fd, true}, /* lowest; all; others */
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        f.ipis = 0;
        wr(ICR_HI, 0x01000000);
        wr(ICR, rows[i].command);
        assert_int_equal(f.ipis, rows[i].sent);
    }
    assert_int_equal(lapic_pending(l), -1);
}

static void test_self_ipis_stay_inside(void **state)
{
    f.changes = 0;
    wr(ICR, 0x40000 | 0x31); /* shorthand self */
    assert_int_equal(f.changes, 1);
    take(0x31);
    wr(EOI, 0);
    wr(ICR_HI, 0);
    wr(ICR, 0x32); /* physical destination = own ID */
    take(0x32);
    wr(EOI, 0);
    wr(ICR, 0x40000 | 0x100 | 0x33); /* lowest priority among one */
    take(0x33);
    assert_int_equal(f.ipis, 0);
    wr(ICR_HI, 0xff000000); /* broadcast is not self */
    wr(ICR, 0x34);
    assert_int_equal(f.ipis, 1);
    wr(SVR, 0xff);
    wr(ICR, 0x40000 | 0x35); /* software-disabled: sent, not received */
    assert_int_equal(lapic_highest_irr(l), -1);
}

static void test_illegal_ipi_vectors(void **state)
{
    wr(ICR_HI, 0x01000000);
    wr(ICR, 0x0f);
    wr(ESR, 0);
    assert_int_equal(rd(ESR), 0x20);
    wr(ICR, 0x40000 | 0x0f);
    wr(ESR, 0);
    assert_int_equal(rd(ESR), 0x60);
    wr(ICR, 0x10f); /* lowest priority as well */
    wr(ESR, 0);
    assert_int_equal(rd(ESR), 0x20);
    assert_int_equal(f.ipis, 0);
    wr(ICR, 0x400); /* an NMI's vector does not matter */
    assert_int_equal(f.ipis, 1);
}

static bool matches(uint32_t dest, bool logical, bool x2apic)
{
    struct lapic_ipi ipi = {.dest = dest, .logical = logical, .x2apic = x2apic};
    return lapic_matches(l, &ipi);
}

static void test_matches_xapic(void **state)
{
    start(5);
    assert_true(matches(5, false, false) && matches(0xff, false, false) && matches(0xff, true, false));
    assert_false(matches(4, false, false) || matches(5, true, false));
    wr(LDR, 0x24000000);
    assert_true(matches(0x04, true, false) && matches(0x24, true, false) && matches(0x20, true, false));
    assert_false(matches(0x12, true, false) || matches(0, true, false));
    wr(DFR, 0x0fffffff); /* cluster model: cluster 2, member 4 */
    assert_true(matches(0x24, true, false) && matches(0x2f, true, false) && matches(0xff, true, false));
    assert_false(matches(0x22, true, false) || matches(0x34, true, false) || matches(0x04, true, false));
    wr(DFR, 0x7fffffff); /* neither model */
    assert_false(matches(0x24, true, false));
    wr(DFR, 0xffffffff);
    /* Messages from an x2APIC: 0xff is an address like any other. */
    assert_true(matches(5, false, true) && matches(0xffffffff, false, true) &&
                matches(0xffffffff, true, true));
    assert_false(matches(0xff, false, true) || matches(0x124, true, true));
    struct lapic_ipi ipi = {.dest = 9, .shorthand = LAPIC_DEST_ALL};
    assert_true(lapic_matches(l, &ipi));
    ipi.shorthand = LAPIC_DEST_OTHERS;
    assert_true(lapic_matches(l, &ipi));
    ipi.shorthand = LAPIC_DEST_SELF;
    assert_false(lapic_matches(l, &ipi));
    lapic_base_write(l, 0xfee00000);
    assert_false(matches(5, false, false) || matches(0xff, false, false));
    ipi.shorthand = LAPIC_DEST_ALL;
    assert_false(lapic_matches(l, &ipi));
}

static void test_matches_x2apic(void **state)
{
    start(0x25);
    assert_int_equal(lapic_base_write(l, 0xfee00c00), STATUS_OK);
    assert_int_equal(xrd(LDR), 0x00020020);
    assert_true(matches(0x25, false, true) && matches(0x20020, true, true) && matches(0x2ffff, true, true));
    assert_false(matches(0x24, false, true) || matches(0x20, true, true) || matches(0x20010, true, true));
    assert_true(matches(~0u, false, true) && matches(~0u, true, true));
    assert_true(matches(0xff, false, false)); /* an IOAPIC's broadcast */
    assert_true(matches(0x25, false, false));
}

/* ---- x2APIC ---- */

static void test_x2apic_access_rights(void **state)
{
    enum { R = 1, W = 2 };
    uint8_t rights[0x100] = {0};
    static const uint32_t rw[] = {TPR,     SVR,   ESR,   CMCI,      ICR,     LVT_TIMER, LVT_THERMAL,
                                  LVT_PMC, LINT0, LINT1, LVT_ERROR, INITIAL, DIVIDE};
    static const uint32_t ro[] = {ID, VERSION, PPR, LDR, CURRENT};
    for (size_t i = 0; i < ARRAY_SIZE(rw); i++)
        rights[rw[i] / 16] = R | W;
    for (size_t i = 0; i < ARRAY_SIZE(ro); i++)
        rights[ro[i] / 16] = R;
    for (uint32_t reg = ISR / 16; reg < ESR / 16; reg++)
        rights[reg] = R;
    rights[EOI / 16] = rights[SELF / 16] = W;
    for (uint32_t reg = 0; reg < 0x100; reg++) {
        uint64_t value;
        assert_int_equal(lapic_msr_read(l, 0x800 + reg, &value) == STATUS_OK, !!(rights[reg] & R));
        uint64_t harmless = reg == SELF / 16 ? 0x20 : 0;
        assert_int_equal(lapic_msr_write(l, 0x800 + reg, harmless) == STATUS_OK, !!(rights[reg] & W));
    }
    uint64_t value;
    assert_int_not_equal(lapic_msr_read(l, 0x7ff, &value), STATUS_OK);
    assert_int_not_equal(lapic_msr_read(l, 0x900, &value), STATUS_OK);
    assert_int_not_equal(lapic_msr_write(l, 0x900, 0), STATUS_OK);
}

/* Every reserved bit of every writable register raises #GP and changes nothing. */
static void test_x2apic_reserved_bits(void **state)
{
    static const struct {
        uint32_t reg;
        uint64_t allowed;
    } rows[] = {
        {TPR, 0xff},
        {EOI, 0},
        {SVR, 0x11ff},
        {ESR, 0},
        {CMCI, 0x117ff},
        {LVT_TIMER, 0x710ff},
        {LVT_THERMAL, 0x117ff},
        {LVT_PMC, 0x117ff},
        {LINT0, 0x1f7ff},
        {LINT1, 0x1f7ff},
        {LVT_ERROR, 0x110ff},
        {INITIAL, 0xffffffff},
        {DIVIDE, 0xb},
        {SELF, 0xff},
        {ICR, 0xffffffff000cdfff},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t value = 1ull << bit;
            assert_int_equal(xwr(rows[i].reg, value) == STATUS_OK, !!(rows[i].allowed & value));
        }
}

static void test_x2apic_icr_is_one_register(void **state)
{
    assert_int_equal(xwr(ICR, 0x12345678000008fdull | 1 << 12), STATUS_OK);
    assert_int_equal(f.ipis, 1);
    assert_int_equal(f.ipi.dest, 0x12345678);
    assert_true(f.ipi.x2apic && f.ipi.logical);
    assert_true(xrd(ICR) == 0x12345678000008fdull);
    assert_int_equal(xwr(ICR, 0x40ull), STATUS_OK); /* physical 0 = self */
    assert_int_equal(f.ipis, 1);
    take(0x40);
    assert_int_equal(xwr(ICR, 0xffffffff00000041ull), STATUS_OK);
    assert_int_equal(f.ipis, 2);
}

static void test_self_ipi_msr(void **state)
{
    f.changes = 0;
    assert_int_equal(xwr(SELF, 0x50), STATUS_OK);
    assert_int_equal(f.changes, 1);
    take(0x50);
    assert_int_equal(xwr(EOI, 0), STATUS_OK);
    assert_int_equal(lapic_pending(l), -1);
    assert_int_equal(xrd(PPR), 0);
    assert_int_equal(xwr(SELF, 0x0f), STATUS_OK);
    assert_int_equal(xwr(ESR, 0), STATUS_OK);
    assert_int_equal(xrd(ESR), 0x60);
    assert_int_not_equal(xwr(SELF, 0x150), STATUS_OK);
    assert_int_equal(xwr(SVR, 0xff), STATUS_OK);
    assert_int_equal(xwr(SELF, 0x51), STATUS_OK); /* software-disabled: dropped */
    assert_int_equal(lapic_pending(l), -1);
    assert_int_equal(f.ipis, 0);
}

static void test_state_changed_may_be_null(void **state)
{
    env.state_changed = NULL;
    assert_int_equal(xwr(SELF, 0x50), STATUS_OK);
    take(0x50);
    assert_int_equal(xwr(SELF, 0x51), STATUS_OK);
    assert_int_equal(xwr(EOI, 0), STATUS_OK);
    take(0x51);
}

/* ---- modes ---- */

static void test_mode_transitions(void **state)
{
    static const uint64_t value[] = {0xfee00000, 0xfee00800, 0xfee00c00, 0xfee00400};
    enum { DISABLED, XAPIC, X2APIC, INVALID };
    static const bool legal[3][4] = {
        {true, true, false, false}, {true, true, true, false}, {true, false, true, false}};
    for (unsigned from = DISABLED; from <= X2APIC; from++)
        for (unsigned to = DISABLED; to <= INVALID; to++) {
            start(1);
            wr(SVR, 0x1ff);
            if (from == DISABLED)
                assert_int_equal(lapic_base_write(l, value[DISABLED]), STATUS_OK);
            if (from == X2APIC)
                assert_int_equal(lapic_base_write(l, value[X2APIC]), STATUS_OK);
            enum status s = lapic_msr_write(l, LAPIC_MSR_APIC_BASE, value[to]);
            assert_int_equal(s == STATUS_OK, legal[from][to]);
            uint64_t now;
            assert_int_equal(lapic_msr_read(l, LAPIC_MSR_APIC_BASE, &now), STATUS_OK);
            assert_int_equal(now, legal[from][to] ? value[to] : value[from]);
            assert_int_equal(lapic_mmio_enabled(l), now == value[XAPIC]);
            assert_int_equal(lapic_is_x2apic(l), now == value[X2APIC]);
            uint64_t ignored;
            assert_int_equal(lapic_msr_read(l, 0x803, &ignored) == STATUS_OK, now == value[X2APIC]);
            assert_int_equal(lapic_msr_write(l, 0x83f, 0x40) == STATUS_OK, now == value[X2APIC]);
            assert_int_equal(lapic_msr_write(l, 0x80b, 0) == STATUS_OK, now == value[X2APIC]);
            assert_int_equal(rd(VERSION), now == value[XAPIC] ? 0x01060014 : ~0u);
        }
}

static void test_base_reserved_bits_and_relocation(void **state)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        start(0);
        bool legal = (bit >= 12 && bit < 36) || bit == 8 || bit == 10 || bit == 11;
        assert_int_equal(lapic_base_write(l, 0x800 | 1ull << bit) == STATUS_OK, legal);
    }
    lapic_set_maxphyaddr(l, 40);
    assert_int_equal(lapic_base_write(l, 0x80d0000900), STATUS_OK);
    assert_true(lapic_mmio_base(l).v == 0x80d0000000);
    assert_int_not_equal(lapic_base_write(l, 0x180d0000900), STATUS_OK);
}

/* CPUID.01H:ECX.x2APIC clear: EXTD is a reserved bit, and none of the MSRs exists ("Detecting and Enabling
 * x2APIC Mode"). */
static void test_without_x2apic(void **state)
{
    uint64_t ignored;
    lapic_hide_x2apic(l);
    lapic_reset(l);
    assert_int_equal(lapic_base_write(l, 0xfee00d00), ERR_INVALID);
    assert_false(lapic_is_x2apic(l));
    assert_int_not_equal(lapic_msr_read(l, 0x803, &ignored), STATUS_OK);
    assert_int_equal(lapic_base_write(l, 0xfee00000), STATUS_OK);
    assert_int_equal(lapic_base_write(l, 0xfee00800), STATUS_OK);
    assert_int_equal(rd(VERSION), 0x01060014);
}

static void test_disabling_loses_state(void **state)
{
    wr(TPR, 0x30);
    wr(LVT_TIMER, 0x40);
    wr(INITIAL, 1000);
    lapic_post(l, 0x70, true);
    take(0x70);
    lapic_post(l, 0x80, false);
    f.timer_changes = 0;
    lapic_base_write(l, 0xfee00000);
    assert_int_equal(f.timer_changes, 1);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    assert_int_equal(lapic_pending(l), -1);
    assert_false(lapic_post(l, 0x80, false));
    wr(SVR, 0x1ff); /* not there */
    lapic_base_write(l, 0xfee00800);
    assert_int_equal(rd(SVR), 0xff);
    assert_int_equal(rd(TPR), 0);
    assert_false(bit_of(ISR, 0x70));
    assert_false(bit_of(TMR, 0x70));
    assert_int_equal(rd(LVT_TIMER), 0x10000);
}

/* To x2APIC nothing is lost; INIT keeps the mode, reset does not. */
static void test_x2apic_transition_init_and_reset(void **state)
{
    wr(TPR, 0x20);
    lapic_post(l, 0x70, false);
    lapic_base_write(l, 0xfee00d00);
    assert_int_equal(xrd(TPR), 0x20);
    take(0x70);
    lapic_init_signal(l);
    assert_true(lapic_is_x2apic(l));
    assert_int_equal(xrd(SVR), 0xff);
    assert_int_equal(xrd(PPR), 0);
    assert_int_equal(xrd(ID), 0);
    lapic_reset(l);
    assert_true(lapic_mmio_enabled(l));
    assert_int_equal(l->base_msr, 0xfee00900);
}

/* ---- timer ---- */

static void test_one_shot(void **state)
{
    wr(LVT_TIMER, 0x40);
    wr(DIVIDE, 0xb); /* by 1 */
    f.timer_changes = 0;
    wr(INITIAL, 1000);
    assert_int_equal(f.timer_changes, 1);
    uint64_t begin = f.now;
    assert_in_range(lapic_deadline(l) - begin, 1000 * TICK - 1, 1000 * TICK);
    assert_int_equal(rd(CURRENT), 1000);
    f.now = begin + 400 * TICK + TICK / 2;
    assert_int_equal(rd(CURRENT), 600);
    lapic_timer_expired(l, f.now); /* too early: nothing */
    assert_int_equal(lapic_pending(l), -1);
    f.now = lapic_deadline(l) - 1;
    assert_int_equal(rd(CURRENT), 1); /* never zero before it is due */
    f.now++;
    assert_int_equal(rd(CURRENT), 0);
    lapic_timer_expired(l, f.now);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    take(0x40);
    assert_int_equal(rd(CURRENT), 0);
    assert_int_equal(rd(INITIAL), 1000);
    lapic_timer_expired(l, f.now + 1);
    assert_int_equal(lapic_highest_irr(l), -1);
    wr(INITIAL, 5);
    wr(INITIAL, 0);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
}

static void test_divide(void **state)
{
    static const uint8_t by[16] = {
        [0] = 2, [1] = 4, [2] = 8, [3] = 16, [8] = 32, [9] = 64, [10] = 128, [11] = 1};
    for (uint32_t code = 0; code < 16; code++) {
        if (!by[code])
            continue;
        wr(DIVIDE, code);
        wr(INITIAL, 500);
        assert_in_range(lapic_deadline(l) - f.now, 500 * TICK * by[code] - 1, 500 * TICK * by[code]);
        assert_int_equal(rd(CURRENT), 500);
        f.now += 100 * TICK * by[code] + 1;
        assert_int_equal(rd(CURRENT), 400);
    }
    /* A new divisor applies to what is left. */
    wr(DIVIDE, 0xb);
    wr(INITIAL, 500);
    f.now += 250 * TICK + 1;
    wr(DIVIDE, 0);
    assert_int_equal(rd(CURRENT), 250);
    assert_in_range(lapic_deadline(l) - f.now, 500 * TICK - 1, 500 * TICK);
}

static void test_periodic(void **state)
{
    wr(LVT_TIMER, 0x20041);
    wr(DIVIDE, 0xb);
    wr(INITIAL, 1000);
    uint64_t first = lapic_deadline(l), period = first - f.now;
    for (unsigned i = 1; i <= 5; i++) {
        f.now = lapic_deadline(l) + 77;
        assert_in_range(rd(CURRENT), 998, 1000); /* the next period runs already */
        lapic_timer_expired(l, f.now);
        assert_true(lapic_deadline(l) == first + i * period); /* no drift */
        take(0x41);
        wr(EOI, 0);
    }
    f.now = lapic_deadline(l) + 10 * period + 5; /* a long absence: the missed ticks merge */
    uint64_t due = lapic_deadline(l);
    lapic_timer_expired(l, f.now);
    assert_true(lapic_deadline(l) == due + 11 * period);
    take(0x41);
    wr(EOI, 0);
    assert_int_equal(lapic_pending(l), -1);
}

/* A period of a few cycles must leave time for the guest. */
static void test_absurd_period(void **state)
{
    wr(LVT_TIMER, 0x20041);
    wr(DIVIDE, 0xb);
    wr(INITIAL, 1);
    f.now += 200;
    lapic_timer_expired(l, f.now);
    assert_in_range(lapic_deadline(l), f.now + 16000, f.now + 17000);
}

static void test_masked_timer_counts_silently(void **state)
{
    wr(LVT_TIMER, 0x10040);
    wr(DIVIDE, 0xb);
    wr(INITIAL, 10);
    f.now += 20 * TICK;
    wr(LVT_TIMER, 0x40); /* it expired under the mask */
    assert_int_equal(lapic_pending(l), -1);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    wr(INITIAL, 10);
    f.now += 20 * TICK;
    wr(LVT_TIMER, 0x10040); /* and this one before the mask */
    take(0x40);
}

static void test_tsc_deadline(void **state)
{
    uint64_t value = 7;
    assert_int_equal(lapic_msr_write(l, LAPIC_MSR_TSC_DEADLINE, 5000), STATUS_OK); /* other mode: ignored */
    assert_int_equal(lapic_msr_read(l, LAPIC_MSR_TSC_DEADLINE, &value), STATUS_OK);
    assert_int_equal(value, 0);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    wr(LVT_TIMER, 0x40042);
    wr(INITIAL, 1000); /* ignored in this mode */
    assert_int_equal(rd(INITIAL), 0);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    f.timer_changes = 0;
    assert_int_equal(lapic_msr_write(l, LAPIC_MSR_TSC_DEADLINE, f.now + 500), STATUS_OK);
    assert_int_equal(f.timer_changes, 1);
    assert_true(lapic_deadline(l) == f.now + 500);
    assert_int_equal(rd(CURRENT), 0);
    assert_true(lapic_tsc_deadline_read(l) == f.now + 500);
    lapic_timer_expired(l, f.now + 499);
    assert_int_equal(lapic_pending(l), -1);
    f.now += 500;
    assert_int_equal(lapic_tsc_deadline_read(l), 0); /* reached: reads as zero, and the interrupt is there */
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    take(0x42);
    lapic_tsc_deadline_write(l, f.now + 500);
    lapic_tsc_deadline_write(l, 0); /* disarms */
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    lapic_tsc_deadline_write(l, 1); /* long past: due at once */
    assert_int_equal(lapic_deadline(l), 1);
    lapic_timer_expired(l, f.now);
    assert_int_equal(lapic_highest_irr(l), 0x42);
    lapic_tsc_deadline_write(l, UINT64_MAX);
    assert_true(lapic_tsc_deadline_read(l) == UINT64_MAX);
}

static void test_timer_mode_changes(void **state)
{
    /* one-shot -> periodic: goes on counting */
    wr(DIVIDE, 0xb);
    wr(LVT_TIMER, 0x40);
    wr(INITIAL, 1000);
    uint64_t due = lapic_deadline(l);
    wr(LVT_TIMER, 0x20040);
    assert_true(lapic_deadline(l) == due);
    lapic_timer_expired(l, due);
    assert_true(lapic_deadline(l) > due && lapic_deadline(l) != LAPIC_NEVER);
    /* to TSC-deadline: disarms */
    wr(LVT_TIMER, 0x40040);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    assert_int_equal(rd(INITIAL), 0);
    lapic_tsc_deadline_write(l, f.now + 5000000);
    wr(LVT_TIMER, 0x50040); /* masking is no mode change */
    assert_true(lapic_deadline(l) == f.now + 5000000);
    /* and back: disarms */
    wr(LVT_TIMER, 0x40);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    assert_int_equal(lapic_tsc_deadline_read(l), 0);
    /* the reserved mode counts nothing */
    wr(INITIAL, 1000);
    wr(LVT_TIMER, 0x60040);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    wr(INITIAL, 1000);
    lapic_tsc_deadline_write(l, f.now + 500);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
}

static void test_tsc_moved(void **state)
{
    wr(DIVIDE, 0xb);
    wr(INITIAL, 1000);
    uint64_t left = lapic_deadline(l) - f.now;
    f.now -= 900000;
    lapic_tsc_moved(l, -900000);
    assert_true(lapic_deadline(l) == f.now + left);
    f.timer_changes = 0;
    lapic_tsc_moved(l, INT64_MIN);
    assert_int_equal(lapic_deadline(l), 0);
    assert_int_equal(f.timer_changes, 1);
    wr(INITIAL, 0);
    lapic_tsc_moved(l, 5);
    assert_true(lapic_deadline(l) == LAPIC_NEVER);
    wr(LVT_TIMER, 0x40040);
    lapic_tsc_deadline_write(l, 5000);
    lapic_tsc_moved(l, 100);
    assert_int_equal(lapic_deadline(l), 5000);
}

/* Odd clock ratios: spans are right to a part in 2^40 even for the longest count. */
static void test_clock_ratios(void **state)
{
    static const uint64_t clocks[][2] = {
        {25000000, 3000000000},   {24000000, 2112000000}, {1000000000, 2500000001}, {1000000000, 1000000000},
        {3000000000, 1000000000}, {1, 1ull << 40},        {1ull << 40, 1},          {38400000, 1996800000}};
    for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
        uint64_t timer_hz = clocks[i][0], tsc_hz = clocks[i][1];
        lapic_init(l, &env, 0, true, timer_hz, tsc_hz);
        f.now = 12345;
        lapic_mmio_write(l, DIVIDE, 4, 0xb);
        lapic_mmio_write(l, INITIAL, 4, 0xffffffff);
        long double want = (long double)0xffffffff * tsc_hz / timer_hz;
        uint64_t got = lapic_deadline(l) - f.now;
        if (want < 1)
            want = 1;
        if (want > 1ull << 62)
            want = 1ull << 62; /* as long as spans get */
        assert_true(got <= want + 1 && got + 1 + want / (1ull << 40) >= want);
        if (tsc_hz < timer_hz || want >= 1ull << 62)
            continue; /* a TSC cycle is many ticks; or cut */
        assert_int_equal(rd(CURRENT), 0xffffffff);
        f.now += got / 2;
        assert_in_range(rd(CURRENT), 0x7fffffff, 0x80000001);
    }
}

/* ---- other CPUs: their part is done in between any two instructions of ours, by way of the trap flag ----
 */

#define EFLAGS_TF 0x100u

static void (*intruder)(void);
static volatile unsigned instructions, intrude_at;

static void on_trap(int signal)
{
    if (++instructions == intrude_at)
        intruder();
}

/* Runs `victim`, and `intruder` after its n-th instruction. False: it had fewer. */
static bool run_interrupted(void (*victim)(void), void (*other)(void), unsigned n)
{
    intruder = other;
    instructions = 0;
    intrude_at = n;
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | EFLAGS_TF);
    victim();
    __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(uint64_t)EFLAGS_TF);
    return instructions >= n;
}

static void post_52(void)
{
    lapic_post(l, 0x52, false);
}
static void post_41(void)
{
    lapic_post(l, 0x41, true);
}
static void take_52(void)
{
    lapic_take(l, 0x52);
}
static void look(void)
{
    lapic_highest_irr(l);
}
static void take_if_pending(void)
{
    int vector = lapic_pending(l);
    if (vector >= 0)
        lapic_take(l, (uint8_t)vector);
}

/* Vectors 0x41 and 0x52 share a word of IRR. No post is lost, wherever it meets the owner or the owner meets
 * it. */
static void test_posts_from_other_cpus(void **state)
{
    struct sigaction action = {.sa_handler = on_trap}, before;
    assert_int_equal(sigaction(SIGTRAP, &action, &before), 0);
    bool more = true;
    for (unsigned n = 1; more; n++) { /* the owner empties the word */
        setup(NULL);
        post_52();
        more = run_interrupted(take_52, post_41, n);
        if (more)
            assert_int_equal(lapic_highest_irr(l), 0x41);
    }
    more = true;
    for (unsigned n = 1; more; n++) { /* the owner finds a stale summary */
        setup(NULL);
        l->irr_summary = 1 << 2;
        more = run_interrupted(look, post_41, n);
        if (more)
            assert_int_equal(lapic_highest_irr(l), 0x41);
    }
    more = true;
    for (unsigned n = 1; more; n++) { /* the owner takes what is there while 0x41 is being posted */
        setup(NULL);
        post_52();
        more = run_interrupted(post_41, take_if_pending, n);
        assert_true(bit_of(TMR, 0x41));
        assert_true(bit_of(ISR, 0x52) == more);
        assert_int_equal(lapic_highest_irr(l), more ? 0x41 : 0x52);
    }
    sigaction(SIGTRAP, &before, NULL);
}

int main(void)
{
#define X1(t) cmocka_unit_test_setup(t, setup)
#define X2(t) cmocka_unit_test_setup(t, setup_x2)
    // clang-format off
    const struct CMUnitTest tests[] = {
    X1(test_power_up_state), X1(test_writable_bits), X1(test_illegal_register),
    X1(test_mmio_access_widths), X1(test_priority_order), X1(test_nesting), X1(test_same_vector_again),
    X1(test_tpr_and_cr8), X1(test_stale_summary), X1(test_level_and_eoi_broadcast),
    X1(test_software_disable), X1(test_lint), X1(test_esr_and_error_interrupt), X1(test_xapic_ipi_decode),
    X1(test_ipi_validity), X1(test_self_ipis_stay_inside), X1(test_illegal_ipi_vectors),
    X1(test_matches_xapic), X1(test_matches_x2apic), X2(test_x2apic_access_rights),
    X2(test_x2apic_reserved_bits), X2(test_x2apic_icr_is_one_register), X2(test_self_ipi_msr),
    X2(test_state_changed_may_be_null), X1(test_mode_transitions),
    X1(test_base_reserved_bits_and_relocation), X1(test_without_x2apic), X1(test_disabling_loses_state),
    X1(test_x2apic_transition_init_and_reset), X1(test_one_shot), X1(test_divide), X1(test_periodic),
    X1(test_absurd_period), X1(test_masked_timer_counts_silently), X1(test_tsc_deadline),
    X1(test_timer_mode_changes), X1(test_tsc_moved), X1(test_clock_ratios),
        X1(test_posts_from_other_cpus),
    };
    // clang-format on
    return cmocka_run_group_tests(tests, NULL, NULL);
}
