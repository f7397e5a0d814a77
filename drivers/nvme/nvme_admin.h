/* The admin queue of an NVMe controller: polled, one command at a time. Not locked: its user does that. */
#pragma once

#include "drivers/mmio.h"

#define NVME_READY_MAX_US 30000000u /* CAP.TO may ask for 127.5 s; no card needs it */
#define NVME_COMMAND_US   5000000u  /* the most a command may take */
#define NVME_DMA_PAGES    3u        /* submission queue, completion queue, data */

struct nvme_admin {
    struct mmio regs; /* BAR 0 */
    const struct dev_env *env;
    uint8_t *dma; /* NVME_DMA_PAGES pages, kept for good */
    uint64_t dma_at;
    uint32_t doorbell_stride;  /* bytes */
    uint32_t ready_us;         /* the card's own bound on becoming ready, at most NVME_READY_MAX_US */
    uint16_t tail, head, next; /* entries, entries, command identifier */
    bool phase;                /* of the next completion */
    bool alive;                /* false: no command is given until nvme_admin_start() */
    uint16_t status;           /* of the last command that was refused, or 0 */
    uint64_t commands, refused;
};

struct nvme_command {
    uint8_t opcode;
    uint32_t nsid, cdw10, cdw11;
    bool data; /* with nvme_admin_data() */
};

/* Resets the controller, gives it a fresh admin queue and waits until it is ready: twice ready_us at most.
 * `a` is zeroed or was started before. ERR_NOT_FOUND: does not answer or come up. ERR_UNSUPPORTED: needs
 * pages larger than 4 KiB, or doorbells beyond the BAR. ERR_NO_MEMORY. why: a sentence. */
enum status nvme_admin_start(struct nvme_admin *a, const struct mmio *regs, const struct dev_env *env,
                             char *why, size_t size);
/* Gives a command and waits for its completion. ERR_INVALID: refused, a->status says how. ERR_NOT_FOUND: no
 * sensible answer in NVME_COMMAND_US; the controller is not asked again. */
enum status nvme_admin_command(struct nvme_admin *a, const struct nvme_command *command, char *why,
                               size_t size);
/* Identify: what nvme_admin_data() holds afterwards. */
enum status nvme_admin_identify(struct nvme_admin *a, uint32_t cdw10, uint32_t nsid, char *why, size_t size);
/* NVME_IDENTIFY_BYTES bytes that the controller reads from and writes to. It may change them at any time:
 * read each value once, with nvme_get16/32/64, then check it. */
uint8_t *nvme_admin_data(const struct nvme_admin *a);
/* "invalid secondary controller state"; never NULL. */
const char *nvme_status_text(uint16_t status);

static inline uint16_t nvme_get16(const uint8_t *p)
{
    return *(const volatile uint16_t *)p;
}
static inline uint32_t nvme_get32(const uint8_t *p)
{
    return *(const volatile uint32_t *)p;
}
static inline uint64_t nvme_get64(const uint8_t *p)
{
    return *(const volatile uint64_t *)p;
}
