/* SDM volume 3, chapter "Advanced Programmable Interrupt Controller (APIC)". */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/cpu_hw.h"
#include "arch/x86/cpu_init.h"
#include "arch/x86/hostpt.h"
#include "arch/x86/msr.h"

enum apic_reg {
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SVR = 0xf0,
    APIC_LVT_CMCI = 0x2f0,
    APIC_ICR_LOW = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_THERMAL = 0x330,
    APIC_LVT_PMC = 0x340,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
};

#define X2APIC_MSR_BASE      0x800u
#define BASE_X2APIC          (1ull << 10)
#define BASE_ENABLE          (1ull << 11)
#define BASE_ADDRESS         0x000ffffffffff000ull
#define LVT_CMCI_INDEX       6u /* the version register's "max LVT entry" of an APIC that has it */
#define LVT_MASKED           (1u << 16)
#define LVT_TIMER_DEADLINE   (2u << 17)
#define ICR_NMI              (4u << 8)
#define ICR_INIT             (5u << 8)
#define ICR_STARTUP          (6u << 8)
#define ICR_ASSERT           (1u << 14)
#define ICR_PENDING          (1u << 12)
#define ICR_ALL_BUT_SELF     (3u << 18)
#define ICR_TRIES            100000u /* pauses: a millisecond and more */
#define SVR_ENABLE           (1u << 8)
#define CPUID_1_ECX_X2APIC   (1u << 21)
#define CPUID_1_ECX_DEADLINE (1u << 24)

static volatile uint32_t *mmio; /* NULL: x2APIC mode */
static bool has_deadline, enabled;

static void reg_write(enum apic_reg reg, uint32_t value)
{
    if (mmio)
        mmio[reg / 4] = value;
    else
        cpu_wrmsr(X2APIC_MSR_BASE + reg / 16, value);
}

static uint32_t reg_read(enum apic_reg reg)
{
    return mmio ? mmio[reg / 4] : (uint32_t)cpu_rdmsr(X2APIC_MSR_BASE + reg / 16);
}

static void icr_write(uint32_t apic_id, uint32_t low)
{
    if (!mmio) {
        /* x2APIC MSR writes are not serializing: order our stores before the interrupt (SDM volume 3, "MSR
         * Access in x2APIC Mode"). */
        __asm__ volatile("mfence; lfence" ::: "memory");
        cpu_wrmsr(X2APIC_MSR_BASE + APIC_ICR_LOW / 16, ((uint64_t)apic_id << 32) | low);
        return;
    }
    /* A message leaves within microseconds. One that has not left by now never will, and waiting for it would
     * take this CPU with it; the next one replaces it. */
    for (unsigned tries = ICR_TRIES; (mmio[APIC_ICR_LOW / 4] & ICR_PENDING) && tries > 0; tries--)
        cpu_pause();
    mmio[APIC_ICR_HIGH / 4] = apic_id << 24;
    mmio[APIC_ICR_LOW / 4] = low;
}

enum status apic_init(const struct pt_env *env, hpa_t root)
{
    uint32_t ecx = cpu_cpuid(1, 0).ecx;
    has_deadline = ecx & CPUID_1_ECX_DEADLINE;
    if (ecx & CPUID_1_ECX_X2APIC)
        return STATUS_OK;
    hpa_t base = hpa(cpu_rdmsr(MSR_IA32_APIC_BASE) & BASE_ADDRESS);
    mmio = cpu_init_map_device(env, root, base, PAGE_SIZE, HOSTPT_WRITE | HOSTPT_UNCACHED);
    return mmio ? STATUS_OK : ERR_NO_MEMORY;
}

bool apic_is_x2(void)
{
    return !mmio;
}

void apic_enable(void)
{
    uint64_t base = cpu_rdmsr(MSR_IA32_APIC_BASE) | BASE_ENABLE;
    cpu_wrmsr(MSR_IA32_APIC_BASE, base);
    if (!mmio)
        cpu_wrmsr(MSR_IA32_APIC_BASE, base | BASE_X2APIC);
    static const uint16_t sources[] = {APIC_LVT_TIMER, APIC_LVT_THERMAL, APIC_LVT_PMC,
                                       APIC_LVT_LINT0, APIC_LVT_LINT1,   APIC_LVT_ERROR};
    for (unsigned i = 0; i < ARRAY_SIZE(sources); i++)
        reg_write(sources[i], LVT_MASKED);
    if ((reg_read(APIC_VERSION) >> 16 & 0xff) >= LVT_CMCI_INDEX)
        reg_write(APIC_LVT_CMCI, LVT_MASKED);
    reg_write(APIC_TPR, 0);
    reg_write(APIC_SVR, SVR_ENABLE | HOST_VECTOR_SPURIOUS);
    if (has_deadline)
        reg_write(APIC_LVT_TIMER, LVT_TIMER_DEADLINE | HOST_VECTOR_TIMER);
    enabled = true;
}

void apic_eoi(void)
{
    reg_write(APIC_EOI, 0);
}

void apic_send_fixed(uint32_t apic_id, uint8_t vector)
{
    icr_write(apic_id, ICR_ASSERT | vector);
}

void apic_send_init(uint32_t apic_id)
{
    icr_write(apic_id, ICR_INIT | ICR_ASSERT);
}

void apic_send_startup(uint32_t apic_id, uint8_t page)
{
    icr_write(apic_id, ICR_STARTUP | ICR_ASSERT | page);
}

void apic_broadcast_nmi(void)
{
    if (!enabled)
        return; /* a panic before there are other CPUs to stop */
    icr_write(0, ICR_ALL_BUT_SELF | ICR_NMI | ICR_ASSERT);
}

bool apic_set_deadline(uint64_t tsc)
{
    if (!has_deadline)
        return false;
    /* 0 disarms; UINT64_MAX never comes. The fence orders it after the LVT write in xAPIC mode. */
    __asm__ volatile("mfence" ::: "memory");
    cpu_wrmsr(MSR_IA32_TSC_DEADLINE, tsc == UINT64_MAX ? 0 : tsc ? tsc : 1);
    return true;
}
