/* What hv/cpu.h asks of the processor. */
#include "arch/x86/apic.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"
#include "hv/console.h"
#include "hv/cpu.h"

uint64_t host_tsc(void)
{
    return cpu_rdtsc();
}

void host_kick(const struct cpu *target)
{
    apic_send_fixed(target->apic_id, HOST_VECTOR_KICK);
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
        cpu_invlpg(va);
    }
    return va;
}

/* The ways to end a machine, from the most civil on. The emulator's port is harmless elsewhere: nothing decodes it. */
#define EMULATOR_SHUTDOWN_PORT 0x8900u
#define RESET_CONTROL_PORT     0xcf9u
#define KBD_PORT               0x64u

void host_poweroff(void)
{
    console_flush();
    host_acpi_poweroff();
    static const char word[] = "Shutdown";
    for (unsigned i = 0; i < sizeof(word) - 1; i++)
        cpu_out8(EMULATOR_SHUTDOWN_PORT, (uint8_t)word[i]);
    for (;;)
        __asm__ volatile("cli; hlt");
}

void host_reboot(void)
{
    console_flush();
    cpu_out8(RESET_CONTROL_PORT, 0x02);
    cpu_out8(RESET_CONTROL_PORT, 0x06); /* full reset */
    cpu_out8(KBD_PORT, 0xfe);           /* the keyboard controller's pulse, where there is no 0xCF9 */
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) empty = {0, 0};
    __asm__ volatile("lidt %0; int3" ::"m"(empty)); /* triple fault */
    for (;;)
        __asm__ volatile("cli; hlt");
}
