/* An NVMe controller with SR-IOV at the desk: registers, an admin queue in fake memory, secondary controllers
 * and namespaces, with the rules of the NVMe specification that a PF driver can break. What the driver must
 * never do (an access outside of the BAR, a doorbell beyond the queue, DMA where it has no memory) aborts. */
#pragma once

#include "drivers/mmio.h"
#include "tests/host/fake_vdev_env.h"

#define FAKE_NVME_DMA_PAGES   3u
#define FAKE_NVME_AT          0x1234567000ull /* where the device sees the memory */
#define FAKE_NVME_SECONDARIES 8u
#define FAKE_NVME_NAMESPACES  160u
#define FAKE_NVME_CONTROLLERS 16u /* identifiers below this can have namespaces */
#define FAKE_NVME_LOG         4096u

struct fake_nvme_secondary {
    uint16_t id, primary, vf_number, queues, vectors;
    bool online;
};

struct fake_nvme_namespace {
    uint32_t nsid;
    uint64_t blocks;
    uint8_t shift; /* of the block size */
    bool shared;
    uint32_t attached; /* a bit for each controller identifier */
};

struct fake_nvme_command {
    uint8_t opcode;
    uint32_t nsid, cdw10, cdw11;
};

struct fake_nvme {
    struct mmio regs;
    struct dev_env env;
    _Alignas(4096) uint8_t memory[FAKE_NVME_DMA_PAGES * 4096];
    void *(*dma)(uint64_t at, uint64_t size); /* memory elsewhere; NULL: `memory` is all there is */
    uint64_t now_us;
    bool hurry; /* waiting for what will not happen goes in large steps */
    unsigned allocations;
    bool no_memory;
    /* Registers. */
    uint64_t cap, asq, acq;
    uint32_t vs, cc, csts, aqa, interrupt_mask;
    uint64_t ready_at; /* when CSTS.RDY follows CC.EN; UINT64_MAX: nothing is under way */
    uint16_t sq_head, sq_tail, cq_tail, cq_head;
    bool phase;
    uint64_t complete_at; /* of the commands that wait; UINT64_MAX: none do */
    /* The card. */
    uint16_t id, oacs;
    uint32_t queues_total, vectors_total;
    uint16_t queues_primary, vectors_primary; /* flexible ones that the primary holds */
    uint16_t queues_next, vectors_next;       /* and will after a function level reset */
    uint16_t queues_max, vectors_max, queues_granule, vectors_granule;
    uint8_t types;   /* CRT */
    uint32_t vfs_on; /* VFs that SR-IOV has enabled */
    uint32_t secondary_count, namespace_count;
    struct fake_nvme_secondary secondaries[FAKE_NVME_SECONDARIES];
    struct fake_nvme_namespace namespaces[FAKE_NVME_NAMESPACES];
    /* What goes wrong. */
    bool gone, stuck_busy, stuck_idle, fatal, silent, wrong_id, wrong_queue;
    uint64_t ready_us, latency_us;
    uint32_t fail_after;  /* commands that still work; UINT32_MAX: all */
    uint16_t fail_status; /* of the one that does not, only that one */
    bool fail_for_ever;
    bool deaf_attach, deaf_detach, deaf_online, deaf_offline, deaf_assign;      /* says yes, does nothing */
    void (*answer)(void *ctx, uint8_t opcode, uint8_t *data, uint16_t *status); /* last word on an answer */
    void *answer_ctx;
    /* What was asked. */
    uint32_t command_count;
    struct fake_nvme_command log[FAKE_NVME_LOG];
};

/* A card like QEMU's: primary controller 0, `secondaries` of them from identifier 1, `namespaces` from nsid 1
 * that nobody has, 6 flexible queues and 4 vectors. */
void fake_nvme_init(struct fake_nvme *card, uint32_t secondaries, uint32_t namespaces);
/* A function level reset of the PF. */
void fake_nvme_flr(struct fake_nvme *card);
/* SR-IOV off, and on again with `count` VFs. */
void fake_nvme_set_vfs(struct fake_nvme *card, uint32_t count);
