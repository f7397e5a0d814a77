/* What hv/cpu.h asks of the processor. */
#include "arch/x86/host.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"
#include "arch/x86/panic.h"
#include "arch/x86/smp.h"
#include "arch/x86/traps.h"
#include "arch/x86/virt.h"
#include "hv/assign/msi.h"
#include "hv/console/console.h"
#include "hv/cpu.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

#define PIC_MASTER_MASK 0x21u
#define PIC_SLAVE_MASK  0xa1u

extern void entry_switch_stack(uint64_t stack_top, void (*function)(void *), void *argument)
    __attribute__((noreturn));
extern void entry_zero_page(void *page);
extern void entry_zero_page_avx(void *page);

uint64_t host_tsc(void)
{
    return cpu_rdtsc();
}

struct cpu *host_cpu(void)
{
    return cpu_this();
}

void host_kick(const struct cpu *target)
{
    apic_send_fixed(target->apic_id, HOST_VECTOR_KICK);
}

void host_raise(uint8_t vector)
{
    apic_send_fixed(cpu_this()->apic_id, vector);
}

void host_handle_interrupt(uint8_t vector)
{
    static uint64_t seen[4]; /* one line a vector: a device that firmware left armed may never stop */
    uint64_t bit = 1ull << (vector & 63);
    if (vector == HOST_VECTOR_SPURIOUS)
        return; /* SDM volume 3, "Spurious Interrupt": no EOI */
    if (msi_fire(cpu_this(), vector)) {
        apic_eoi();
        return;
    }
    if (vector == HOST_VECTOR_CONSOLE)
        console_interrupt();
    else if (vector != HOST_VECTOR_KICK && vector != HOST_VECTOR_TIMER &&
             !(__atomic_fetch_or(&seen[vector >> 6], bit, __ATOMIC_RELAXED) & bit))
        log_line(LOG_WARN, "core", "CPU %u: unexpected interrupt, vector %u: ignored from now on",
                 cpu_this()->index, vector);
    apic_eoi();
}

/* May interrupt anything, the log with its lock held too: it only counts. */
void host_handle_nmi(void)
{
    panic_stop_if_asked(0);
    __atomic_fetch_add(&cpu_this()->nmis, 1, __ATOMIC_RELAXED);
}

bool host_x2apic(void)
{
    return apic_is_x2();
}

void host_idle(uint64_t until)
{
    if (until == UINT64_MAX || apic_set_deadline(until)) {
        cpu_wait_for_interrupt();
        return;
    }
    /* No TSC-deadline timer: look around instead of sleeping; a pending kick is taken here. */
    __asm__ volatile("sti; nop; cli" ::: "memory");
    cpu_pause();
}

void *host_window(hpa_t page, unsigned slot)
{
    struct cpu *cpu = cpu_this();
    struct cpu_hw *hw = cpu->hw;
    uint8_t *va = (uint8_t *)(uintptr_t)(LAYOUT_WINDOW_VA + (cpu->index * HOST_WINDOWS + slot) * PAGE_SIZE);
    uint64_t value = hostpt_leaf_value(page, HOSTPT_WRITE);
    if (hw->window_value[slot] != value) {
        *hw->window_entry[slot] = value;
        hw->window_value[slot] = value;
        cpu->windows_changed++;
        cpu_invlpg(va);
    }
    return va;
}

enum status host_init(const struct boot_info *info, struct cpu *cpus, uint32_t count,
                      const struct pt_env *env)
{
    hpa_t root = hpa(info->cr3);
    for (uint32_t i = 0; i < count; i++) {
        enum status s = cpu_init_prepare(&cpus[i], env, root);
        if (s != STATUS_OK)
            return s;
    }
    /* The loader's identity mapping of its last instructions is all there is in the lower half. */
    env->table(env->ctx, root)[0] = 0;
    traps_init();
    cpu_init_load(&cpus[0]);
    cpu_write_cr4(cpu_read_cr4() & ~CR4_PGE); /* flushes global entries too */
    cpu_write_cr4(cpu_read_cr4() | CR4_PGE);
    cpu_out8(PIC_MASTER_MASK, 0xff);
    cpu_out8(PIC_SLAVE_MASK, 0xff);
    enum status s = apic_init(env, root);
    if (s == STATUS_OK)
        apic_enable();
    return s;
}

void host_run_on_own_stack(struct cpu *cpu, void (*function)(void *cpu))
{
    const struct cpu_hw *hw = cpu->hw;
    entry_switch_stack(hw->stack_top, function, cpu);
}

/* Non-temporal vector stores: an eighth of the instructions, and no cache is filled with zeros. XCR0 is the
 * host's, as no vCPU is loaded. */
void host_zero_pages(hpa_t first, uint64_t count)
{
    const uint64_t avx = XCR0_SSE | XCR0_AVX;
    void (*zero)(void *page) = (cpu_xgetbv(0) & avx) == avx ? entry_zero_page_avx : entry_zero_page;
    for (uint64_t i = 0; i < count; i++)
        zero(host_window(hpa(first.v + i * PAGE_SIZE), HOST_WINDOW_FILE));
    __asm__ volatile("sfence" ::: "memory");
}

uint32_t host_start_others(const struct boot_info *info, struct cpu *cpus, uint32_t count,
                           const struct pt_env *env, void (*run)(struct cpu *cpu))
{
    return smp_start(info, cpus, count, env, run);
}

enum status host_read_physical(void *ctx, hpa_t addr, void *buf, size_t size)
{
    (void)ctx;
    uint8_t *to = buf;
    while (size) {
        uint64_t room = PAGE_SIZE - (addr.v & PAGE_MASK);
        size_t step = size < room ? size : (size_t)room;
        const uint8_t *page = host_window(hpa(align_down(addr.v, PAGE_SIZE)), HOST_WINDOW_FILE);
        memcpy(to, page + (addr.v & PAGE_MASK), step);
        addr.v += step;
        to += step;
        size -= step;
    }
    return STATUS_OK;
}

/* The ways to end a machine, from the most civil on. */
#define EMULATOR_SHUTDOWN_PORT 0x8900u /* Bochs: the word "Shutdown", byte by byte */
#define RESET_CONTROL_PORT     0xcf9u
#define PCI_ADDRESS_PORT       0xcf8u
#define PCI_DATA_PORT          0xcfcu
#define PCI_ADDRESS_ENABLE     (1u << 31)
#define KBD_PORT               0x64u
#define PM1_SLP_EN             (1u << 13)
#define PM1_SLP_TYP_SHIFT      10

static struct acpi_fadt power;
static bool has_power, is_emulator;

void host_set_power(const struct acpi_fadt *fadt)
{
    is_emulator = fadt == NULL;
    if (fadt)
        power = *fadt;
    has_power = fadt && fadt->has_s5;
}

static void enter_s5(const struct acpi_gas *control, uint8_t type)
{
    if (control->addr == 0 || control->space != ACPI_SPACE_IO || control->addr > 0xffff)
        return;
    uint16_t port = (uint16_t)control->addr;
    uint16_t value = cpu_in16(port) & (uint16_t) ~((7u << PM1_SLP_TYP_SHIFT) | PM1_SLP_EN);
    cpu_out16(port, (uint16_t)(value | type << PM1_SLP_TYP_SHIFT | PM1_SLP_EN));
}

static void __attribute__((noreturn)) halt_for_ever(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

void host_poweroff(void)
{
    console_flush();
    if (has_power) {
        enter_s5(&power.pm1a_cnt, power.s5_typ_a);
        enter_s5(&power.pm1b_cnt, power.s5_typ_b);
    }
    static const char word[] = "Shutdown";
    for (unsigned i = 0; is_emulator && i < sizeof(word) - 1; i++)
        cpu_out8(EMULATOR_SHUTDOWN_PORT, (uint8_t)word[i]);
    console_write("bulkhead: this machine cannot be switched off by software: please do it by hand\n");
    console_flush();
    halt_for_ever();
}

/* acpi_read_fadt() has checked the address. Configuration space by ports: no lock, no mapping, and bus 0 has
 * them. */
static void write_reset_register(void)
{
    uint64_t addr = power.reset.addr;
    uint16_t port = (uint16_t)addr;
    if (power.reset.space == ACPI_SPACE_PCI) {
        cpu_out32(PCI_ADDRESS_PORT, PCI_ADDRESS_ENABLE | ACPI_PCI_DEVICE(addr) << 11 |
                                        ACPI_PCI_FUNCTION(addr) << 8 | (ACPI_PCI_OFFSET(addr) & 0xfc));
        port = (uint16_t)(PCI_DATA_PORT + (addr & 3));
    }
    cpu_out8(port, power.reset_value);
}

void host_reboot(void)
{
    if (!traps_panicking())
        console_flush();
    virt_cpu_stop(cpu_this());
    if (power.has_reset)
        write_reset_register();
    cpu_out8(RESET_CONTROL_PORT, 0x02);
    cpu_out8(RESET_CONTROL_PORT, 0x06); /* full reset */
    cpu_out8(KBD_PORT, 0xfe);           /* the keyboard controller's pulse, where there is no 0xCF9 */
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) empty = {0, 0};
    __asm__ volatile("lidt %0; int3" ::"m"(empty)); /* triple fault */
    halt_for_ever();
}
