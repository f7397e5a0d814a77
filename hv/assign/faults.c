#include "hv/assign/faults.h"
#include "hv/lib/fmt.h"

#define SECOND_US 1000000u

enum fault_answer fault_watch_count(struct fault_watch *watch, uint64_t now_us)
{
    watch->total++;
    if (watch->count == 0 || now_us - watch->since_us >= SECOND_US) {
        watch->since_us = now_us;
        watch->count = 0;
    }
    watch->count++;
    if (watch->storm)
        return FAULT_QUIET;
    if (watch->count > FAULTS_STORM_PER_SECOND) {
        watch->storm = true;
        watch->quiet_storm = watch->storm_us && now_us - watch->storm_us < SECOND_US;
        if (!watch->quiet_storm)
            watch->storm_us = now_us;
        return FAULT_STORM;
    }
    if (watch->count == FAULTS_SAID_PER_SECOND)
        return FAULT_SAY_LAST;
    return watch->count < FAULTS_SAID_PER_SECOND ? FAULT_SAY : FAULT_QUIET;
}

void fault_watch_reset(struct fault_watch *watch)
{
    watch->storm = false;
    if (watch->count > FAULTS_SAID_PER_SECOND)
        watch->count = FAULTS_SAID_PER_SECOND;
}

void fault_text(const struct iommu_fault *fault, const char *who, const char *what, char *text, size_t size)
{
    const char *reason = iommu_reason_text(fault->reason);
    if (fault->interrupt)
        fmt_format(text, size, "%s%s " BDF_FMT ": interrupt message, index %llu, blocked: %s (reason %u)",
                   who, what, BDF_ARGS(fault->bdf), (unsigned long long)fault->address, reason,
                   fault->reason);
    else
        fmt_format(text, size, "%s%s " BDF_FMT ": DMA %s 0x%llx blocked: %s (reason %u)", who, what,
                   BDF_ARGS(fault->bdf), fault->write ? "write to" : "read from",
                   (unsigned long long)fault->address, reason, fault->reason);
}
