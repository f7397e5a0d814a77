/* The physical function (PF) of an NVMe card with SR-IOV, driven without a host OS: each of its virtual
 * functions (VFs) becomes the disk of one VM. The PF moves no data: it has an admin queue, is polled, raises
 * no interrupt, and gives a VF's controller (the "secondary controller") its queues, interrupt vectors and
 * one namespace.
 *
 * Order: the PF's Memory Space and Bus Master on and its DMA domain ready, nvme_pf_start(), SR-IOV on
 * (drivers/pci), nvme_pf_vfs_enabled(), then for each VM nvme_pf_prepare_vf() and, when it stops,
 * nvme_pf_release_vf(). A function level reset of a VF keeps its controller as it is; nvme_pf_prepare_vf()
 * may be called again after one, and makes the controller fresh. An offline VF shows one
 * MSI-X vector in its configuration space; see nvme_pf_vectors().
 *
 * All functions may be called on every CPU, not from interrupt context; they wait through env->delay_us, for
 * NVME_COMMAND_US per command at most, and for the lock (one user at a time) NVME_LOCK_US. Nothing that the
 * card says is believed before it was checked; a card that does not answer is not asked again until
 * nvme_pf_start(). */
#pragma once

#include "drivers/nvme/nvme_admin.h"
#include "hv/lib/lock.h"

#define NVME_VFS_MAX         64u
#define NVME_SECONDARIES_MAX 127u /* as many as a list holds */
#define NVME_NAMESPACES_MAX  128u
#define NVME_LOCK_US         60000000u

#define NVME_CLASS_CODE 0x010802u /* mass storage, NVM, NVMe I/O controller: which PCI functions are ours */

enum nvme_vf_state {
    NVME_VF_FREE,   /* offline, has nothing */
    NVME_VF_READY,  /* online, with its namespace */
    NVME_VF_FAILED, /* what it has is unknown; its namespace goes to nobody else */
};

struct nvme_vf {
    uint16_t controller;      /* identifier of its secondary controller */
    uint16_t queues, vectors; /* given to it, admin queue included; 0 when FREE */
    uint32_t nsid;            /* 0: none */
    enum nvme_vf_state state;
};

struct nvme_namespace {
    uint32_t nsid;
    uint32_t block_size; /* bytes */
    uint64_t blocks;
    bool shared; /* may be attached to several controllers; we attach it to one all the same */
    int16_t vf;  /* index of the VF that has it, or -1 */
};

/* Everything is the driver's; readers use the functions below. */
struct nvme_pf {
    struct nvme_admin admin;
    struct spinlock lock;   /* guards all of it; nothing but the log is locked while it is held */
    uint16_t controller;    /* identifier of the primary controller */
    uint16_t admin_support; /* OACS */
    bool flexible_queues, flexible_vectors;
    bool reset_wanted;
    bool warned;                              /* that VMs share the card */
    uint32_t queues_total, vectors_total;     /* flexible resources of the card */
    uint16_t queues_max, vectors_max;         /* of them for one VF */
    uint16_t queues_granule, vectors_granule; /* 0: none said */
    uint32_t secondary_count, vf_count, namespace_count;
    char serial[21], model[41], firmware[9];
    uint16_t secondaries[NVME_SECONDARIES_MAX]; /* controller identifiers */
    struct nvme_vf vfs[NVME_VFS_MAX];
    struct nvme_namespace namespaces[NVME_NAMESPACES_MAX];
};

/* Resets the controller, makes the admin queue, reads what there is. `pf` is zeroed memory, or one that was
 * started before (then its DMA memory is used again, and all VFs are without a namespace). why: one sentence.
 * ERR_NOT_FOUND: no controller, or it does not come up. ERR_UNSUPPORTED: one that cannot do this (its page
 * size, no secondary controllers). ERR_RANGE: too many namespaces. ERR_NO_MEMORY. ERR_INVALID: it refused a
 * command, or its answer makes no sense. */
enum status nvme_pf_start(struct nvme_pf *pf, const struct mmio *regs, const struct dev_env *env, char *why,
                          size_t size);
/* True after nvme_pf_start(): the primary controller held flexible resources, which it gives back only at a
 * function level reset (NVMe 1.4, 5.22). Reset the PF and start it again, before SR-IOV is on. */
bool nvme_pf_reset_wanted(const struct nvme_pf *pf);
/* SR-IOV is on with `count` VFs. All of them go offline. The flexible resources are shared out evenly among
 * them. */
enum status nvme_pf_vfs_enabled(struct nvme_pf *pf, uint32_t count, char *why, size_t size);

/* How many MSI-X vectors a VF has once nvme_pf_prepare_vf() has succeeded. 0: as many as it shows now. */
uint16_t nvme_pf_vectors(const struct nvme_pf *pf);

/* Gives VF `vf` (from 0) the namespace, and to nobody else: its controller goes offline, loses every other
 * namespace, gets its share of queues and vectors, goes online, and gets this one; then the card is asked
 * whether it is so. A namespace that the primary controller, or a VF without an owner, has is taken away from
 * it. ERR_RANGE: no such VF. ERR_NOT_FOUND: no such namespace. ERR_EXISTS: another VF has it, or a controller
 * that is not one of this PF's. ERR_NO_MEMORY: not enough resources for one queue. ERR_INVALID: the card
 * refused; the VF is left FREE, or FAILED when even that could not be made sure of. */
enum status nvme_pf_prepare_vf(struct nvme_pf *pf, uint32_t vf, uint32_t nsid, char *why, size_t size);
/* Takes the namespace away, and the controller offline with no resources left. The VF no longer does DMA by
 * then (bus mastering off, FLR). On failure the VF is FAILED and keeps its namespace, so that nobody else
 * gets it, until a later call for this VF, or nvme_pf_start(), succeeds. A FREE VF: nothing happens. */
enum status nvme_pf_release_vf(struct nvme_pf *pf, uint32_t vf, char *why, size_t size);
struct nvme_info {
    const char *model, *serial, *firmware; /* printable */
    bool alive;                            /* answers */
    bool manages_namespaces; /* OACS bit 3: so may its VFs, unless the card says otherwise to them */
    uint32_t vf_count, secondary_count, namespace_count;
    uint32_t queues_total, vectors_total;
    uint64_t commands, refused;
};
/* For the prompt. No lock, no wait: values may be of different moments. */
void nvme_pf_info(const struct nvme_pf *pf, struct nvme_info *out);
const struct nvme_vf *nvme_pf_vf(const struct nvme_pf *pf, uint32_t index);               /* NULL: no such */
const struct nvme_namespace *nvme_pf_namespace(const struct nvme_pf *pf, uint32_t index); /* NULL: no such */
