#include "boot/boot_clock.h"
#include "boot/efi_cpu.h"
#include "boot/efi_loader.h"

#define SAMPLES       8u
#define PM_TICKS      (BOOT_CLOCK_PM_TIMER_HZ / 20) /* 50 ms */
#define PM_READS_MAX  10000000u                     /* then the timer is taken for dead */
#define STALL_US      10000u
#define STALL_ROUNDS  5u
#define US_PER_SECOND 1000000u

struct pm_timer {
    const volatile uint32_t *mmio; /* or */
    uint16_t port;
    bool is_32bit;
};

static uint32_t pm_read(const struct pm_timer *pm)
{
    return pm->mmio ? *pm->mmio : efi_inl(pm->port);
}

static bool find_pm_timer(struct pm_timer *pm)
{
    static struct acpi_fadt fadt;
    const struct acpi_tables *tables = efi_acpi_tables();

    if (!tables || acpi_read_fadt(tables, &fadt) || !fadt.pm_timer.addr)
        return false;
    *pm = (struct pm_timer){.is_32bit = fadt.pm_timer_32bit};
    if (fadt.pm_timer.space == ACPI_SPACE_IO && fadt.pm_timer.addr <= UINT16_MAX)
        pm->port = (uint16_t)fadt.pm_timer.addr;
    else if (fadt.pm_timer.space == ACPI_SPACE_MEMORY)
        pm->mmio = (const volatile uint32_t *)fadt.pm_timer.addr;
    else
        return false;
    return true;
}

/* Both clocks at the same moment: of several readings the one that took least time, so no SMI was in between.
 */
static uint64_t sample(const struct pm_timer *pm, uint32_t *ticks)
{
    uint64_t best = UINT64_MAX, at = 0;

    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t before = efi_rdtsc();
        uint32_t t = pm_read(pm);
        uint64_t took = efi_rdtsc() - before;
        if (took < best) {
            best = took;
            at = before + took / 2;
            *ticks = t;
        }
    }
    return at;
}

static uint64_t measure_with_pm_timer(void)
{
    struct pm_timer pm;
    uint32_t begin, end;
    unsigned reads = 0;

    if (!find_pm_timer(&pm))
        return 0;
    uint64_t tsc = sample(&pm, &begin);
    while (boot_clock_pm_ticks(begin, pm_read(&pm), pm.is_32bit) < PM_TICKS)
        if (++reads == PM_READS_MAX)
            return 0;
    uint64_t delta = sample(&pm, &end) - tsc;
    return boot_clock_hz(delta, boot_clock_pm_ticks(begin, end, pm.is_32bit), BOOT_CLOCK_PM_TIMER_HZ);
}

/* Stall lasts at least as long as asked for: the shortest is the truest. */
static uint64_t measure_with_stall(void)
{
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < STALL_ROUNDS; i++) {
        uint64_t before = efi_rdtsc();
        if (EFI_ERROR(efi_bs->Stall(STALL_US)))
            return 0;
        uint64_t took = efi_rdtsc() - before;
        best = took < best ? took : best;
    }
    return boot_clock_hz(best, STALL_US, US_PER_SECOND);
}

uint64_t efi_tsc_hz(enum boot_tsc_source *source)
{
    struct boot_clock_cpuid c = {.max_leaf = efi_cpuid(0).eax};
    struct efi_cpuid r;

    if (c.max_leaf >= 0x15) {
        r = efi_cpuid(0x15);
        c.leaf_15[0] = r.eax;
        c.leaf_15[1] = r.ebx;
        c.leaf_15[2] = r.ecx;
    }
    if (c.max_leaf >= 0x16)
        c.leaf_16_eax = efi_cpuid(0x16).eax & 0xffff;
    uint64_t measured = measure_with_pm_timer();
    if (!measured)
        measured = measure_with_stall();
    return boot_clock_tsc_hz(&c, measured, source);
}

struct boot_wall_clock efi_wall_clock(void)
{
    struct boot_wall_clock clock = {.valid = 0};
    EFI_TIME t;

    if (EFI_ERROR(efi_st->RuntimeServices->GetTime(&t, NULL)))
        return clock;
    clock.tsc_at = efi_rdtsc();
    struct boot_clock_calendar calendar = {.year = t.Year,
                                           .month = t.Month,
                                           .day = t.Day,
                                           .hour = t.Hour,
                                           .minute = t.Minute,
                                           .second = t.Second,
                                           .utc_offset =
                                               t.TimeZone == EFI_UNSPECIFIED_TIMEZONE ? 0 : t.TimeZone};
    clock.valid = boot_clock_unix_seconds(&calendar, &clock.unix_seconds) == STATUS_OK;
    return clock;
}
