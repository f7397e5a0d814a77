/* Control and debug registers: the SDM's rules one by one (volume 2, "MOV-Move to/from Control Registers";
 * volume 3, 2.5, 4.4.1, 10.8.5), and the ways through the processor's modes as operating systems take them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "arch/x86/msr.h"
#include "tests/host/run_path.h"

#define LONG_CR0 (CR0_PG | CR0_PE | CR0_WP | CR0_ET | CR0_NE)
#define PDPT     0x9000ull
#define PDPTE_P  1ull

static struct vcpu *v;
static struct fake_vcpu *f;

static int setup(void **state)
{
    (void)state;
    run_path_init(1);
    v = VCPU(0);
    f = fake_vcpu(v);
    return 0;
}

static struct exit_result mov_to_gpr(unsigned cr, unsigned gpr)
{
    struct exit exit = {.kind = EXIT_CR_ACCESS, .insn_len = 3, .u.cr = {.op = CR_MOV_TO, .cr = (uint8_t)cr}};
    exit.u.cr.gpr = (uint8_t)gpr;
    return run_path_handle(v, &exit);
}

static struct exit_result mov_to(unsigned cr, uint64_t value)
{
    v->gpr[RBX] = value;
    return mov_to_gpr(cr, RBX);
}

static void assert_accepts(unsigned cr, uint64_t value)
{
    assert_advances(mov_to(cr, value));
}

/* #GP(0), and nothing has changed. */
static void assert_refuses(unsigned cr, uint64_t value)
{
    struct fake_vcpu before = *f;
    assert_injects_error(mov_to(cr, value), VECTOR_GP, 0);
    assert_memory_equal(f->reg, before.reg, sizeof(f->reg));
    assert_memory_equal(f->seg, before.seg, sizeof(f->seg));
    assert_int_equal(f->linear_flushes, before.linear_flushes);
}

static void set_access(enum seg_name name, uint32_t set, uint32_t clear)
{
    f->seg[name].access = (f->seg[name].access & ~clear) | set;
}

/* 32-bit protected mode with PAE set, paging off, and PDPTEs in memory. */
static void pae_ready(void)
{
    machine_protected_mode(v);
    virt_set(v, VIRT_CR4, CR4_PAE);
    virt_set(v, VIRT_CR3, PDPT);
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t entry = (0xa000 + i * 0x1000) | PDPTE_P;
        machine_write(PDPT + 8 * i, &entry, sizeof(entry));
    }
}

/* ---- CR0 ---- */

static void test_cr0_rules(void **state)
{
    (void)state;
    machine_protected_mode(v);
    assert_refuses(0, CR0_PG);          /* paging without protection */
    assert_refuses(0, CR0_PE | CR0_NW); /* not-write-through without cache-disable */
    assert_accepts(0, CR0_PE | CR0_NW | CR0_CD);
    assert_int_equal(virt_get(v, VIRT_CR0), CR0_PE | CR0_NW | CR0_CD | CR0_ET);
    assert_accepts(0, CR0_PE | CR0_CD);
    assert_accepts(0, CR0_PE);
    assert_int_equal(virt_get(v, VIRT_CR0), CR0_PE | CR0_ET); /* ET is always 1 */
    assert_accepts(0, CR0_PE | 0x1ffaffc0);                   /* reserved bits below 32 are ignored */
    assert_int_equal(virt_get(v, VIRT_CR0), CR0_PE | CR0_ET);
}

static void test_cr0_high_half(void **state)
{
    (void)state;
    assert_refuses(0, LONG_CR0 | BIT(32));
    assert_refuses(0, LONG_CR0 | BIT(63));
    /* Outside 64-bit mode the upper half of the register is not looked at: compatibility mode. */
    set_access(SEG_CS, SEG_ACCESS_DB, SEG_ACCESS_L);
    assert_accepts(0, LONG_CR0 | BIT(63));
    assert_int_equal(virt_get(v, VIRT_CR0), LONG_CR0);
}

static void test_cr0_wp_with_cet(void **state)
{
    (void)state;
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_CET);
    assert_refuses(0, LONG_CR0 & ~CR0_WP);
    virt_set(v, VIRT_CR4, CR4_PAE);
    assert_accepts(0, LONG_CR0 & ~CR0_WP);
}

static void test_paging_off(void **state)
{
    (void)state;
    assert_refuses(0, LONG_CR0 & ~CR0_PG); /* in 64-bit mode */
    set_access(SEG_CS, SEG_ACCESS_DB, SEG_ACCESS_L);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_PCIDE);
    assert_refuses(0, LONG_CR0 & ~CR0_PG);
    virt_set(v, VIRT_CR4, CR4_PAE);
    assert_accepts(0, LONG_CR0 & ~CR0_PG);
    assert_int_equal(virt_get(v, VIRT_EFER), EFER_LME | EFER_NXE); /* LMA went with paging, LME stays */
    assert_int_equal(f->linear_flushes, 1);
}

static void test_flush_only_when_paging_changes(void **state)
{
    (void)state;
    assert_accepts(0, LONG_CR0 | CR0_CD);
    assert_accepts(0, LONG_CR0 | CR0_TS);
    assert_int_equal(f->linear_flushes, 0);
    assert_int_equal(f->reg_writes[VIRT_EFER], 0);
}

/* SDM volume 3, 10.8.5: the conditions for paging to start IA-32e mode. */
static void test_long_mode_conditions(void **state)
{
    (void)state;
    pae_ready();
    virt_set(v, VIRT_EFER, EFER_LME);
    virt_set(v, VIRT_CR4, 0);
    assert_refuses(0, CR0_PG | CR0_PE); /* without PAE */
    virt_set(v, VIRT_CR4, CR4_PAE);
    set_access(SEG_CS, SEG_ACCESS_L, SEG_ACCESS_DB);
    assert_refuses(0, CR0_PG | CR0_PE); /* with a 64-bit code segment already */
    set_access(SEG_CS, SEG_ACCESS_DB, SEG_ACCESS_L);
    f->seg[SEG_TR].access = 0x83;
    assert_refuses(0, CR0_PG | CR0_PE); /* with a 16-bit TSS */
    f->seg[SEG_TR].access = 0x8b;
    assert_accepts(0, CR0_PG | CR0_PE);
    assert_int_equal(virt_get(v, VIRT_EFER), EFER_LME | EFER_LMA);
    assert_int_equal(f->linear_flushes, 1);
    assert_int_equal(f->reg_writes[VIRT_PDPTE0], 0); /* four-level paging keeps none in the processor */
}

/* ---- PDPTEs ---- */

static void test_pdptes_are_loaded(void **state)
{
    (void)state;
    pae_ready();
    virt_set(v, VIRT_CR3, PDPT | 0x18); /* bits 4:0 are ignored */
    virt_set(v, VIRT_CR2, 0x4711);
    assert_accepts(0, CR0_PG | CR0_PE);
    assert_int_equal(virt_get(v, VIRT_CR2), 0x4711); /* the next register behind the seam */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(virt_get(v, (enum virt_reg)(VIRT_PDPTE0 + i)), (0xa000 + i * 0x1000) | PDPTE_P);
    assert_int_equal(virt_get(v, VIRT_EFER), 0);
    /* A change of CD or NW loads them anew, another does not (SDM volume 3, 4.4.1). */
    uint64_t entry = 0xf000 | PDPTE_P;
    machine_write(PDPT, &entry, sizeof(entry));
    assert_accepts(0, CR0_PG | CR0_PE | CR0_WP);
    assert_int_equal(virt_get(v, VIRT_PDPTE0), 0xa000 | PDPTE_P);
    assert_accepts(0, CR0_PG | CR0_PE | CR0_CD);
    assert_int_equal(virt_get(v, VIRT_PDPTE0), entry);
}

static void test_pdpte_reserved_bits(void **state)
{
    (void)state;
    unsigned width = machine.vm.cpuid.phys_bits;
    for (unsigned slot = 0; slot < 4; slot++) {
        for (unsigned bit = 1; bit < 64; bit++) {
            uint64_t entry = BIT(bit) | PDPTE_P, absent = BIT(bit);
            bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= width;
            pae_ready();
            machine_write(PDPT + 8 * slot, &entry, sizeof(entry));
            if (reserved)
                assert_refuses(0, CR0_PG | CR0_PE);
            else
                assert_accepts(0, CR0_PG | CR0_PE);
            pae_ready();
            machine_write(PDPT + 8 * slot, &absent, sizeof(absent)); /* not present: nothing is reserved */
            assert_accepts(0, CR0_PG | CR0_PE);
        }
    }
}

static void test_pdptes_outside_memory_are_not_present(void **state)
{
    (void)state;
    pae_ready();
    virt_set(v, VIRT_CR3, MACHINE_NOTHING);
    virt_set(v, VIRT_PDPTE2, 0x1234001);
    assert_accepts(0, CR0_PG | CR0_PE);
    assert_int_equal(virt_get(v, VIRT_PDPTE2), 0);
}

/* ---- the ways of operating systems ---- */

static void test_real_to_protected_to_long_and_back(void **state)
{
    (void)state;
    machine_real_mode(v);
    assert_accepts(0, CR0_PE | CR0_NE); /* real to protected */
    set_access(SEG_CS, SEG_ACCESS_DB, 0);
    assert_accepts(4, CR4_PAE);
    virt_set(v, VIRT_CR3, MACHINE_TABLES);
    v->gpr[RCX] = MSR_IA32_EFER;
    v->gpr[RDX] = 0;
    v->gpr[RAX] = EFER_LME;
    struct exit wrmsr = {.kind = EXIT_WRMSR, .insn_len = 2};
    assert_advances(run_path_handle(v, &wrmsr));
    assert_accepts(0, CR0_PG | CR0_PE | CR0_NE); /* compatibility mode */
    assert_int_equal(virt_get(v, VIRT_EFER), EFER_LME | EFER_LMA);
    set_access(SEG_CS, SEG_ACCESS_L, SEG_ACCESS_DB); /* the far jump to 64-bit code */
    assert_refuses(4, 0);                            /* PAE cannot go */
    assert_refuses(0, CR0_PE | CR0_NE);
    set_access(SEG_CS, SEG_ACCESS_DB, SEG_ACCESS_L);
    assert_accepts(0, CR0_PE | CR0_NE);
    assert_int_equal(virt_get(v, VIRT_EFER), EFER_LME);
    assert_accepts(4, 0);
    assert_accepts(0, CR0_NE); /* and back to real mode */
    assert_int_equal(virt_get(v, VIRT_CR0), CR0_NE | CR0_ET);
}

static void test_protected_to_pae_and_legacy_paging(void **state)
{
    (void)state;
    pae_ready();
    virt_set(v, VIRT_CR4, 0);
    assert_accepts(0, CR0_PG | CR0_PE); /* 32-bit paging: no PDPTEs */
    assert_int_equal(f->reg_writes[VIRT_PDPTE0], 0);
    assert_accepts(4, CR4_PAE); /* with paging on */
    assert_int_equal(virt_get(v, VIRT_PDPTE1), 0xb000 | PDPTE_P);
    assert_accepts(4, 0);
    assert_int_equal(virt_get(v, VIRT_CR4), 0);
}

/* ---- CR4 ---- */

static void test_cr4_only_what_cpuid_offers(void **state)
{
    (void)state;
    uint64_t allowed = machine.vm.cpuid.cr4_allowed;
    assert_true(allowed & CR4_OSXSAVE);
    assert_false(allowed & CR4_VMXE);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (BIT(bit) & CR4_PCIDE)
            continue;
        if (allowed & BIT(bit))
            assert_accepts(4, CR4_PAE | BIT(bit));
        else
            assert_refuses(4, CR4_PAE | BIT(bit));
    }
}

static void test_cr4_pcide(void **state)
{
    (void)state;
    virt_set(v, VIRT_CR3, MACHINE_TABLES | 1);
    assert_refuses(4, CR4_PAE | CR4_PCIDE); /* with a PCID in CR3 */
    virt_set(v, VIRT_CR3, MACHINE_TABLES);
    assert_accepts(4, CR4_PAE | CR4_PCIDE);
    virt_set(v, VIRT_CR3, MACHINE_TABLES | 1);
    assert_accepts(4, CR4_PAE | CR4_PCIDE | CR4_PGE); /* it only matters when it is set */
    machine_protected_mode(v);
    virt_set(v, VIRT_CR3, 0);
    assert_refuses(4, CR4_PCIDE); /* outside IA-32e mode */
}

static void test_cr4_flushes(void **state)
{
    (void)state;
    assert_accepts(4, CR4_PAE | CR4_PGE);
    assert_int_equal(f->linear_flushes, 1);
    assert_int_equal(virt_get(v, VIRT_CR4), CR4_PAE | CR4_PGE);
}

/* SDM volume 3, 4.4.1: changes of PAE, PGE, PSE and SMEP load the PDPTEs. */
static void test_cr4_loads_pdptes(void **state)
{
    (void)state;
    static const struct {
        uint64_t bit;
        bool loads;
    } rows[] = {{CR4_PGE, true}, {CR4_PSE, true}, {CR4_SMEP, true}, {CR4_OSFXSR, false}, {CR4_TSD, false}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t bad = 0x1 | BIT(1);
        pae_ready();
        assert_accepts(0, CR0_PG | CR0_PE);
        machine_write(PDPT + 16, &bad, sizeof(bad));
        if (rows[i].loads)
            assert_refuses(4, CR4_PAE | rows[i].bit);
        else
            assert_accepts(4, CR4_PAE | rows[i].bit);
    }
}

/* ---- CR3, CR8, and the register operands ---- */

static void test_cr3(void **state)
{
    (void)state;
    assert_accepts(3, 0x5000);
    assert_int_equal(virt_get(v, VIRT_CR3), 0x5000);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_PCIDE);
    assert_accepts(3, 0x6000 | CR3_NO_FLUSH); /* the bit is a request, not kept */
    assert_int_equal(virt_get(v, VIRT_CR3), 0x6000);
    assert_int_equal(f->linear_flushes, 2);
    struct exit exit = {.kind = EXIT_CR_ACCESS, .u.cr = {.op = CR_MOV_FROM, .cr = 3, .gpr = R9}};
    assert_advances(run_path_handle(v, &exit));
    assert_int_equal(v->gpr[R9], 0x6000);
}

/* A CR3 that VM entry would refuse (SDM volume 3, 27.3.1.1) is refused to the guest instead. */
static void test_cr3_beyond_the_address_width(void **state)
{
    (void)state;
    unsigned width = machine.vm.cpuid.phys_bits;
    assert_refuses(3, BIT(width));
    assert_refuses(3, BIT(62));
    assert_refuses(3, CR3_NO_FLUSH); /* without PCIDs the bit is reserved */
    assert_accepts(3, BIT(width - 1));
}

static void test_cr3_loads_pdptes(void **state)
{
    (void)state;
    uint64_t entry = 0xe000 | PDPTE_P, bad = PDPTE_P | BIT(2);
    pae_ready();
    assert_accepts(0, CR0_PG | CR0_PE);
    machine_write(PDPT + 0x20, &entry, sizeof(entry));
    assert_accepts(3, PDPT + 0x20);
    assert_int_equal(virt_get(v, VIRT_PDPTE0), entry);
    assert_int_equal(virt_get(v, VIRT_PDPTE1), 0);
    machine_write(PDPT + 0x48, &bad, sizeof(bad));
    assert_refuses(3, PDPT + 0x40);
    /* Only PAE paging keeps any. */
    virt_set(v, VIRT_CR0, CR0_PE);
    assert_accepts(3, PDPT + 0x40);
    virt_set(v, VIRT_CR0, CR0_PG | CR0_PE);
    virt_set(v, VIRT_CR4, 0);
    assert_accepts(3, PDPT + 0x40);
    assert_int_equal(virt_get(v, VIRT_PDPTE0), entry);
}

static void test_cr8(void **state)
{
    (void)state;
    assert_accepts(8, 15);
    assert_int_equal(v->lapic.tpr, 0xf0);
    assert_refuses(8, 16);
    assert_refuses(8, BIT(63));
    assert_int_equal(v->lapic.tpr, 0xf0);
    struct exit exit = {.kind = EXIT_CR_ACCESS, .u.cr = {.op = CR_MOV_FROM, .cr = 8, .gpr = R15}};
    v->gpr[R15] = UINT64_MAX;
    assert_advances(run_path_handle(v, &exit));
    assert_int_equal(v->gpr[R15], 15);
}

/* An interrupt that CR8 held back comes when CR8 is lowered. */
static void test_cr8_opens_the_way(void **state)
{
    (void)state;
    virt_set(v, VIRT_RFLAGS, RFLAGS_FIXED_1 | RFLAGS_IF);
    assert_accepts(8, 5);
    run_path_post(v, 0x51);
    assert_false(run_path_enter(v).valid);
    assert_false(f->intr_window); /* nothing to open it for */
    assert_accepts(8, 4);
    struct event event = run_path_enter(v);
    assert_true(event.valid);
    assert_int_equal(event.vector, 0x51);
}

static void test_unknown_control_register(void **state)
{
    (void)state;
    assert_refuses(5, 0);
}

static void test_rsp_is_a_register_too(void **state)
{
    (void)state;
    virt_set(v, VIRT_RSP, 7);
    v->gpr[RSP] = 3; /* unused: RSP is behind the seam */
    assert_advances(mov_to_gpr(8, RSP));
    assert_int_equal(lapic_cr8(&v->lapic), 7);
    struct exit exit = {.kind = EXIT_CR_ACCESS, .u.cr = {.op = CR_MOV_FROM, .cr = 3, .gpr = RSP}};
    assert_advances(run_path_handle(v, &exit));
    assert_int_equal(virt_get(v, VIRT_RSP), MACHINE_TABLES);
}

/* ---- CLTS, LMSW ---- */

static void test_clts(void **state)
{
    (void)state;
    struct exit exit = {.kind = EXIT_CR_ACCESS, .insn_len = 2, .u.cr = {.op = CR_CLTS}};
    virt_set(v, VIRT_CR0, LONG_CR0 | CR0_TS | CR0_MP);
    assert_advances(run_path_handle(v, &exit));
    assert_int_equal(virt_get(v, VIRT_CR0), LONG_CR0 | CR0_MP);
}

static uint64_t lmsw(uint64_t cr0, uint16_t source)
{
    struct exit exit = {.kind = EXIT_CR_ACCESS, .u.cr = {.op = CR_LMSW, .lmsw_source = source}};
    virt_set(v, VIRT_CR0, cr0);
    assert_advances(run_path_handle(v, &exit));
    return virt_get(v, VIRT_CR0);
}

static void test_lmsw(void **state)
{
    (void)state;
    machine_real_mode(v);
    assert_int_equal(lmsw(CR0_ET, 1), CR0_ET | CR0_PE);
    assert_int_equal(lmsw(CR0_ET | CR0_PE, 0), CR0_ET | CR0_PE); /* PE cannot be cleared */
    assert_int_equal(lmsw(CR0_ET | CR0_PE | CR0_TS | CR0_EM | CR0_MP, 0), CR0_ET | CR0_PE);
    assert_int_equal(lmsw(CR0_ET | CR0_NE | CR0_AM, 0xfffe),
                     CR0_ET | CR0_NE | CR0_AM | CR0_MP | CR0_EM | CR0_TS);
}

/* ---- debug registers ---- */

static struct exit_result dr(unsigned number, bool write, unsigned gpr)
{
    struct exit exit = {
        .kind = EXIT_DR_ACCESS, .insn_len = 3, .u.dr = {.dr = (uint8_t)number, .write = write}};
    exit.u.dr.gpr = (uint8_t)gpr;
    return run_path_handle(v, &exit);
}

static void test_debug_addresses(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        v->gpr[RSI] = 0xffff800000000000ull + i;
        assert_advances(dr(i, true, RSI));
        assert_int_equal(virt_get(v, (enum virt_reg)(VIRT_DR0 + i)), v->gpr[RSI]);
        assert_advances(dr(i, false, R10));
        assert_int_equal(v->gpr[R10], v->gpr[RSI]);
    }
}

static void test_debug_status_and_control(void **state)
{
    (void)state;
    v->gpr[RAX] = 0;
    assert_advances(dr(6, true, RAX));
    assert_int_equal(virt_get(v, VIRT_DR6), 0xffff0ff0);
    v->gpr[RAX] = 0xffffffff;
    assert_advances(dr(6, true, RAX));
    assert_int_equal(virt_get(v, VIRT_DR6), 0xffffefff); /* bit 12 is always 0 */
    v->gpr[RAX] = 0xffffffff & ~DR7_GD;
    assert_advances(dr(7, true, RAX));
    assert_int_equal(virt_get(v, VIRT_DR7) & 0xd400, 0x400); /* bits 15, 14, 12 are 0, bit 10 is 1 */
    v->gpr[RAX] = BIT(32);
    assert_injects_error(dr(6, true, RAX), VECTOR_GP, 0);
    assert_injects_error(dr(7, true, RAX), VECTOR_GP, 0);
}

/* Outside 64-bit mode the operand has 32 bits, whatever an earlier 64-bit program left in the upper half. */
static void test_debug_operands_of_32_bits(void **state)
{
    (void)state;
    set_access(SEG_CS, SEG_ACCESS_DB, SEG_ACCESS_L);
    v->gpr[RAX] = 0xdeadbeef00000001ull;
    assert_advances(dr(7, true, RAX));
    assert_int_equal(virt_get(v, VIRT_DR7), 0x401);
    assert_advances(dr(0, true, RAX));
    assert_int_equal(virt_get(v, VIRT_DR0), 1);
    virt_set(v, VIRT_DR1, 0xffff800012345678);
    assert_advances(dr(1, false, RDX));
    assert_int_equal(v->gpr[RDX], 0x12345678);
}

static void test_debug_aliases(void **state)
{
    (void)state;
    v->gpr[RAX] = 0x3;
    assert_advances(dr(5, true, RAX));
    assert_int_equal(virt_get(v, VIRT_DR7), 0x403);
    assert_advances(dr(4, false, RCX));
    assert_int_equal(v->gpr[RCX], DR6_RESET);
    virt_set(v, VIRT_CR4, CR4_PAE | CR4_DE);
    virt_set(v, VIRT_DR7, DR7_RESET | DR7_GD);
    assert_injects(dr(4, false, RCX), VECTOR_UD); /* before general detect */
    assert_injects(dr(5, true, RCX), VECTOR_UD);
    assert_int_equal(f->debug_calls, 0);
}

static void test_general_detect(void **state)
{
    (void)state;
    virt_set(v, VIRT_DR7, DR7_RESET | DR7_GD | 1);
    v->gpr[RAX] = 5;
    assert_injects(dr(0, true, RAX), VECTOR_DB);
    assert_int_equal(f->debug_status, DR6_BD);
    assert_int_equal(virt_get(v, VIRT_DR0), 0);             /* not written */
    assert_int_equal(virt_get(v, VIRT_DR7), DR7_RESET | 1); /* GD is off for the handler */
    assert_advances(dr(0, true, RAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_cr0_rules, setup),
        cmocka_unit_test_setup(test_cr0_high_half, setup),
        cmocka_unit_test_setup(test_cr0_wp_with_cet, setup),
        cmocka_unit_test_setup(test_paging_off, setup),
        cmocka_unit_test_setup(test_flush_only_when_paging_changes, setup),
        cmocka_unit_test_setup(test_long_mode_conditions, setup),
        cmocka_unit_test_setup(test_pdptes_are_loaded, setup),
        cmocka_unit_test_setup(test_pdpte_reserved_bits, setup),
        cmocka_unit_test_setup(test_pdptes_outside_memory_are_not_present, setup),
        cmocka_unit_test_setup(test_real_to_protected_to_long_and_back, setup),
        cmocka_unit_test_setup(test_protected_to_pae_and_legacy_paging, setup),
        cmocka_unit_test_setup(test_cr4_only_what_cpuid_offers, setup),
        cmocka_unit_test_setup(test_cr4_pcide, setup),
        cmocka_unit_test_setup(test_cr4_flushes, setup),
        cmocka_unit_test_setup(test_cr4_loads_pdptes, setup),
        cmocka_unit_test_setup(test_cr3, setup),
        cmocka_unit_test_setup(test_cr3_beyond_the_address_width, setup),
        cmocka_unit_test_setup(test_cr3_loads_pdptes, setup),
        cmocka_unit_test_setup(test_cr8, setup),
        cmocka_unit_test_setup(test_cr8_opens_the_way, setup),
        cmocka_unit_test_setup(test_unknown_control_register, setup),
        cmocka_unit_test_setup(test_rsp_is_a_register_too, setup),
        cmocka_unit_test_setup(test_clts, setup),
        cmocka_unit_test_setup(test_lmsw, setup),
        cmocka_unit_test_setup(test_debug_addresses, setup),
        cmocka_unit_test_setup(test_debug_status_and_control, setup),
        cmocka_unit_test_setup(test_debug_operands_of_32_bits, setup),
        cmocka_unit_test_setup(test_debug_aliases, setup),
        cmocka_unit_test_setup(test_general_detect, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
