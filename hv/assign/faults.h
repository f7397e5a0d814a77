/* What a device's blocked accesses lead to: lines with its owner's name, not too many of them, and an end of
 * its bus mastering when they do not stop. Pure. */
#pragma once

#include "drivers/iommu/iommu.h"

#define FAULTS_SAID_PER_SECOND  4u
#define FAULTS_STORM_PER_SECOND 50u /* seen; an IOMMU may merge many into one */

/* One device's. All zero is a quiet one. */
struct fault_watch {
    uint64_t since_us; /* when the second being counted began */
    uint32_t count;    /* in it */
    uint64_t total;
    bool storm;        /* its bus mastering was taken; until the device is reset */
    bool quiet_storm;  /* the last one was said less than a second ago: a guest that resets it again and again
                        */
    uint64_t storm_us; /* when the last one that was said began */
};

enum fault_answer {
    FAULT_SAY,
    FAULT_SAY_LAST /* and say that the others are not */,
    FAULT_QUIET,
    FAULT_STORM
};

/* One more. FAULT_STORM comes once. */
enum fault_answer fault_watch_count(struct fault_watch *watch, uint64_t now_us);
/* The device was reset. What was said in this second counts on. */
void fault_watch_reset(struct fault_watch *watch);
/* "VF 01:10.2: DMA write to 0x40000000 blocked: no mapping (reason 5)" after `who`, which may be empty. */
void fault_text(const struct iommu_fault *fault, const char *who, const char *what, char *text, size_t size);
