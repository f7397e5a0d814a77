/* SDM volume 3, "MP Initialization Protocol Algorithm for MP Systems" and "Typical AP Initialization
 * Sequence". */
#include "arch/x86/smp.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/hostpt.h"
#include "hv/lib/string.h"

#define INIT_DELAY_US    10000u
#define STARTUP_DELAY_US 200u
#define ONLINE_WAIT_US   200000u

/* Read by smp_ap_entry in trampoline.asm. */
struct smp_row {
    uint32_t apic_id, index;
    uint64_t stack_top;
};
STATIC_ASSERT(sizeof(struct smp_row) == 16, "smp_ap_entry steps by 16");

struct smp_row smp_rows[BOOT_MAX_CPUS];
uint32_t smp_row_count;
static struct cpu *smp_cpus;
static void (*smp_run)(struct cpu *cpu);

extern const uint8_t trampoline_start[], trampoline_end[], trampoline_gdtr[], trampoline_gdt[];
extern const uint8_t trampoline_jump32[], trampoline_jump64[], trampoline_cr3[], trampoline_entry[];
extern const uint8_t trampoline_protected[], trampoline_long[];
extern void smp_ap_entry(void);
void smp_ap_main(uint32_t index);

void smp_ap_main(uint32_t index)
{
    struct cpu *cpu = &smp_cpus[index];
    cpu_init_load(cpu);
    apic_enable();
    smp_run(cpu);
}

static void delay_us(const struct boot_info *info, uint64_t us)
{
    uint64_t until = cpu_rdtsc() + us * (info->tsc_hz / 1000000 + 1);
    while (cpu_rdtsc() < until)
        cpu_pause();
}

/* Writes a patched copy of the trampoline to its page, through a window. */
static void write_trampoline(uint64_t page)
{
    uint8_t *copy = host_window(hpa(page), 0);
    memcpy(copy, trampoline_start, (size_t)(trampoline_end - trampoline_start));
#define AT(label)      (copy + ((label)-trampoline_start))
#define ADDRESS(label) ((uint32_t)(page + (uint64_t)((label)-trampoline_start)))
    uint32_t value = ADDRESS(trampoline_gdt);
    memcpy(AT(trampoline_gdtr) + 2, &value, 4);
    value = ADDRESS(trampoline_protected);
    memcpy(AT(trampoline_jump32), &value, 4);
    value = ADDRESS(trampoline_long);
    memcpy(AT(trampoline_jump64), &value, 4);
    uint64_t wide = cpu_read_cr3();
    memcpy(AT(trampoline_cr3), &wide, 8);
    wide = (uint64_t)(uintptr_t)smp_ap_entry;
    memcpy(AT(trampoline_entry), &wide, 8);
#undef AT
#undef ADDRESS
}

static uint32_t count_online(struct cpu *cpus, uint32_t count)
{
    uint32_t online = 1;
    for (uint32_t i = 1; i < count; i++)
        online += __atomic_load_n(&cpus[i].online, __ATOMIC_ACQUIRE);
    return online;
}

uint32_t smp_start(const struct boot_info *info, struct cpu *cpus, uint32_t count, const struct pt_env *env,
                   void (*run)(struct cpu *cpu))
{
    hpa_t root = hpa(info->cr3);
    uint64_t page = info->trampoline_hpa;
    if (count < 2)
        return 1;
    /* The page runs at its physical address: mapped read-execute, and only while CPUs come up. */
    if (hostpt_map(env, root, page, hpa(page), PAGE_SIZE, HOSTPT_EXEC) != STATUS_OK)
        return 1;
    write_trampoline(page);
    smp_cpus = cpus;
    smp_run = run;
    for (uint32_t i = 1; i < count; i++) {
        struct cpu_hw *hw = cpus[i].hw;
        smp_rows[i - 1] = (struct smp_row){cpus[i].apic_id, i, hw->stack_top};
    }
    __atomic_store_n(&smp_row_count, count - 1, __ATOMIC_RELEASE);

    for (uint32_t i = 1; i < count; i++)
        apic_send_init(cpus[i].apic_id);
    delay_us(info, INIT_DELAY_US);
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t i = 1; i < count; i++) {
            if (!__atomic_load_n(&cpus[i].online, __ATOMIC_ACQUIRE))
                apic_send_startup(cpus[i].apic_id, (uint8_t)(page >> PAGE_SHIFT));
        }
        delay_us(info, STARTUP_DELAY_US);
    }
    uint64_t deadline = cpu_rdtsc() + ONLINE_WAIT_US * (info->tsc_hz / 1000000 + 1);
    while (count_online(cpus, count) < count && cpu_rdtsc() < deadline)
        cpu_pause();

    uint32_t online = count_online(cpus, count);
    if (online == count) { /* a late CPU still needs the page: then it stays */
        hostpt_unmap(env, root, page, PAGE_SIZE);
        cpu_invlpg((const void *)(uintptr_t)page);
    }
    return online;
}
