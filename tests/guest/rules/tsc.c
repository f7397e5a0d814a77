/* The time stamp counter: SDM volume 3, "Time-Stamp Counter" and "Time-Stamp Counter Adjustment". */
#include "rules.h"

#define MSR_TSC        0x10u
#define MSR_TSC_ADJUST 0x3bu
#define MSR_TSC_AUX    0xc0000103u
#define CR4_TSD        4ull
#define FAR            0x1000000000ull
#define NEAR           10000000ull /* instructions that may lie between two looks */
#define PM_TIMER       0x608u
#define PM_HZ          3579545ull
#define PM_MASK        0xffffffu

static bool near(uint64_t found, uint64_t expected)
{
    return found >= expected && found - expected < NEAR;
}

SNIPPET(read_tsc, 64, "rdtsc");
SNIPPET(read_tscp, 64, "rdtscp");

static void written(void)
{
    uint64_t adjust = rdmsr(MSR_TSC_ADJUST), now = rdtsc();
    check(near(rdmsr(MSR_TSC), now), "the MSR is what RDTSC reads");
    wrmsr(MSR_TSC, now + FAR);
    check(near(rdtsc(), now + FAR), "the TSC is written");
    uint64_t moved = rdmsr(MSR_TSC_ADJUST) - adjust;
    check(moved <= FAR && FAR - moved < NEAR, "TSC_ADJUST follows: %x", moved);
    wrmsr(MSR_TSC_ADJUST, adjust);
    check(near(rdtsc(), now), "TSC_ADJUST takes it back");
    now = rdtsc();
    wrmsr(MSR_TSC_ADJUST, adjust + FAR);
    check_equal(rdmsr(MSR_TSC_ADJUST), adjust + FAR, "TSC_ADJUST reads back");
    check(near(rdtsc(), now + FAR), "TSC_ADJUST moves the TSC");
    wrmsr(MSR_TSC_ADJUST, adjust - FAR);
    check(near(rdtsc(), now - FAR), "down, too");
    wrmsr(MSR_TSC_ADJUST, adjust);
    now = rdtsc();
    wrmsr(MSR_TSC, 0);
    check(near(rdtsc(), 0), "the TSC is zeroed");
    wrmsr(MSR_TSC, ~0ull - 1000000);
    check(near(rdtsc(), ~0ull - 1000000), "all 64 bits are written");
    wrmsr(MSR_TSC_ADJUST, adjust);
    check(near(rdtsc(), now), "and all is as before");
}

static void rate(void)
{
    uint64_t tsc = rdtsc(), pm;
    uint32_t begin = in32(PM_TIMER);
    while ((pm = (in32(PM_TIMER) - begin) & PM_MASK) < PM_HZ / 50)
        ;
    uint64_t found = (rdtsc() - tsc) * PM_HZ / pm;
    check(found > tsc_hz - tsc_hz / 100 && found < tsc_hz + tsc_hz / 100, "the PM timer says %u Hz, CPUID %u",
          found, tsc_hz);
    check(cpu_has(0x80000007, 0, 3, 8), "it is invariant");
}

static void access(void)
{
    lab_clear();
    check_equal(RUN(MODE_LONG_USER, read_tsc), VECTOR_BP, "RDTSC of a user");
    write_cr4(read_cr4() | CR4_TSD);
    lab_clear();
    check_equal(RUN(MODE_LONG_USER, read_tsc), VECTOR_GP, "RDTSC of a user with TSD");
    lab_clear();
    check_equal(RUN(MODE_LONG, read_tsc), VECTOR_BP, "RDTSC of the supervisor with TSD");
    write_cr4(read_cr4() & ~CR4_TSD);
    lab_clear();
    if (cpu_has(0x80000001, 0, 3, 27)) {
        wrmsr(MSR_TSC_AUX, 0x5a5a1234);
        check_equal(RUN(MODE_LONG_USER, read_tscp), VECTOR_BP, "RDTSCP");
        check_equal(lab.gpr[1], 0x5a5a1234, "RDTSCP: TSC_AUX");
    } else {
        check_equal(RUN(MODE_LONG_USER, read_tscp), VECTOR_UD, "RDTSCP is not offered");
    }
}

void rule_tsc(void)
{
    written();
    rate();
    access();
}
