#include "drivers/nvme/nvme_pf.h"
#include "drivers/nvme/nvme_regs.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"
#include "hv/lib/log.h"
#include "hv/lib/string.h"

#define LOCK_POLL_US 100u
#define QUEUES_MIN   2u /* the admin queue and one for data */
#define VECTORS_MIN  1u
#define NSID_LAST    0xfffffffdu /* above: all namespaces, and none */

STATIC_ASSERT(NVME_VFS_MAX <= 64, "a bit for each");
STATIC_ASSERT(NVME_SECONDARIES_MAX == NVME_SC_MAX, "a list's worth");

/* A secondary controller, as the card's list has it. */
struct secondary {
    uint16_t controller, primary, vf_number, queues, vectors;
    bool online;
};

/* Several VMs may start at a time; whoever waits lets the console live meanwhile, and not for ever. */
static bool enter(struct nvme_pf *pf, char *why, size_t size)
{
    for (uint32_t waited = 0; !spin_trylock(&pf->lock); waited += LOCK_POLL_US) {
        if (waited >= NVME_LOCK_US) {
            fmt_format(why, size, "the NVMe controller is busy with another VM's VF for %u s",
                       NVME_LOCK_US / 1000000);
            return false;
        }
        pf->admin.env->delay_us(pf->admin.env->ctx, LOCK_POLL_US);
    }
    return true;
}

/* ---- what the card has ---- */

/* ASCII padded with blanks (5.15.2.2). Anything else is not printed as it stands. */
static void copy_text(char *to, const uint8_t *from, unsigned length)
{
    unsigned end = 0;
    for (unsigned i = 0; i < length; i++) {
        uint8_t c = *(const volatile uint8_t *)&from[i];
        to[i] = c < ' ' || c > '~' ? '?' : (char)c;
        if (to[i] != ' ')
            end = i + 1;
    }
    to[end] = 0;
}

static enum status read_controller(struct nvme_pf *pf, char *why, size_t size)
{
    enum status s = nvme_admin_identify(&pf->admin, NVME_CNS_CONTROLLER, 0, why, size);
    if (s != STATUS_OK)
        return s;
    const uint8_t *data = nvme_admin_data(&pf->admin);
    copy_text(pf->serial, data + NVME_ID_SERIAL, sizeof(pf->serial) - 1);
    copy_text(pf->model, data + NVME_ID_MODEL, sizeof(pf->model) - 1);
    copy_text(pf->firmware, data + NVME_ID_FIRMWARE, sizeof(pf->firmware) - 1);
    pf->controller = nvme_get16(data + NVME_ID_CNTLID);
    pf->admin_support = nvme_get16(data + NVME_ID_OACS);
    if (pf->admin_support & NVME_OACS_NAMESPACES)
        return STATUS_OK;
    fmt_format(why, size, "the NVMe card \"%s\" cannot attach namespaces to controllers", pf->model);
    return ERR_UNSUPPORTED;
}

/* Bit 7 of OACS would say that a controller knows the command; QEMU's does and leaves it 0. So it is asked.
 */
static enum status read_primary(struct nvme_pf *pf, bool *holds, char *why, size_t size)
{
    enum status s = nvme_admin_identify(&pf->admin, NVME_CNS_PRIMARY, 0, why, size);
    if (s == ERR_INVALID) {
        fmt_format(why, size, "the NVMe card \"%s\" has no secondary controllers", pf->model);
        return ERR_UNSUPPORTED;
    }
    if (s != STATUS_OK)
        return s;
    const uint8_t *data = nvme_admin_data(&pf->admin);
    const uint8_t *queues = data + NVME_PC_QUEUES, *vectors = data + NVME_PC_VECTORS;
    uint8_t types = *(const volatile uint8_t *)&data[NVME_PC_CRT];
    pf->flexible_queues = types & NVME_CRT_VQ;
    pf->flexible_vectors = types & NVME_CRT_VI;
    pf->queues_total = nvme_get32(queues + NVME_PC_FRT);
    pf->queues_max = nvme_get16(queues + NVME_PC_FRSM);
    pf->queues_granule = nvme_get16(queues + NVME_PC_GRAN);
    pf->vectors_total = nvme_get32(vectors + NVME_PC_FRT);
    pf->vectors_max = nvme_get16(vectors + NVME_PC_FRSM);
    pf->vectors_granule = nvme_get16(vectors + NVME_PC_GRAN);
    *holds = (pf->flexible_queues && nvme_get16(queues + NVME_PC_RFAP)) ||
             (pf->flexible_vectors && nvme_get16(vectors + NVME_PC_RFAP));
    return STATUS_OK;
}

/* The list of secondary controllers into the data page, and how many there are. */
static enum status read_secondaries(struct nvme_pf *pf, uint32_t *count, char *why, size_t size)
{
    enum status s = nvme_admin_identify(&pf->admin, NVME_CNS_SECONDARIES, 0, why, size);
    if (s != STATUS_OK)
        return s;
    *count = *(const volatile uint8_t *)&nvme_admin_data(&pf->admin)[NVME_SC_COUNT];
    if (*count >= 1 && *count <= NVME_SC_MAX)
        return STATUS_OK;
    fmt_format(why, size, "the NVMe card lists %u secondary controllers", *count);
    return ERR_INVALID;
}

static struct secondary get_secondary(const struct nvme_pf *pf, uint32_t index)
{
    const uint8_t *entry = nvme_admin_data(&pf->admin) + NVME_SC_ENTRIES + index * NVME_SC_BYTES;
    return (struct secondary){
        .controller = nvme_get16(entry + NVME_SC_SCID),
        .primary = nvme_get16(entry + NVME_SC_PCID),
        .online = *(const volatile uint8_t *)&entry[NVME_SC_STATE] & NVME_SC_ONLINE,
        .vf_number = nvme_get16(entry + NVME_SC_VFN),
        .queues = nvme_get16(entry + NVME_SC_NVQ),
        .vectors = nvme_get16(entry + NVME_SC_NVI),
    };
}

/* The card's idea of one controller. */
static enum status find_secondary(struct nvme_pf *pf, uint16_t controller, struct secondary *out, char *why,
                                  size_t size)
{
    uint32_t count;
    enum status s = read_secondaries(pf, &count, why, size);
    if (s != STATUS_OK)
        return s;
    for (uint32_t i = 0; i < count; i++) {
        *out = get_secondary(pf, i);
        if (out->controller == controller)
            return STATUS_OK;
    }
    fmt_format(why, size, "the NVMe card no longer lists secondary controller %u", controller);
    return ERR_INVALID;
}

static enum status read_namespace(struct nvme_pf *pf, struct nvme_namespace *ns, char *why, size_t size)
{
    enum status s = nvme_admin_identify(&pf->admin, NVME_CNS_ALLOCATED, ns->nsid, why, size);
    if (s != STATUS_OK)
        return s;
    const uint8_t *data = nvme_admin_data(&pf->admin);
    uint8_t format = *(const volatile uint8_t *)&data[NVME_NS_FLBAS];
    format = (uint8_t)((format & 0xf) | (format >> 5 & 3) << 4);
    uint32_t shift = NVME_LBADS(nvme_get32(data + NVME_NS_LBAF + 4u * format));
    ns->blocks = nvme_get64(data + NVME_NS_NSZE);
    ns->block_size = shift < 32 ? 1u << shift : 0;
    ns->shared = *(const volatile uint8_t *)&data[NVME_NS_NMIC] & NVME_NMIC_SHARED;
    return STATUS_OK;
}

static enum status read_namespaces(struct nvme_pf *pf, char *why, size_t size)
{
    pf->namespace_count = 0;
    enum status s = nvme_admin_identify(&pf->admin, NVME_CNS_ALLOCATED_LIST, 0, why, size);
    if (s != STATUS_OK)
        return s;
    const uint8_t *data = nvme_admin_data(&pf->admin);
    uint32_t before = 0;
    for (uint32_t i = 0; i < NVME_NSID_LIST_MAX; i++) {
        uint32_t nsid = nvme_get32(data + 4 * i);
        if (nsid == 0)
            break;
        /* One that we do not see could belong to two VMs, so there is none that we do not see. */
        if (i == NVME_NAMESPACES_MAX || nsid <= before || nsid > NSID_LAST) {
            fmt_format(why, size, "the NVMe card has more than %u namespaces, or a list of them out of order",
                       NVME_NAMESPACES_MAX);
            return ERR_RANGE;
        }
        pf->namespaces[i] = (struct nvme_namespace){.nsid = nsid, .vf = -1};
        pf->namespace_count = i + 1;
        before = nsid;
    }
    for (uint32_t i = 0; i < pf->namespace_count && s == STATUS_OK; i++)
        s = read_namespace(pf, &pf->namespaces[i], why, size);
    return s;
}

/* ---- commands ---- */

static enum status virtualize(struct nvme_pf *pf, uint32_t action, uint16_t controller, uint16_t count,
                              char *why, size_t size)
{
    const struct nvme_command command = {
        .opcode = NVME_CMD_VIRTUALIZATION, .cdw10 = NVME_CDW10_HIGH(controller) | action, .cdw11 = count};
    return nvme_admin_command(&pf->admin, &command, why, size);
}

/* Attaches or detaches (`selection`) a namespace, for the controllers of the list in the data page. */
static enum status attachment(struct nvme_pf *pf, uint32_t nsid, uint32_t selection, char *why, size_t size)
{
    const struct nvme_command command = {
        .opcode = NVME_CMD_NS_ATTACHMENT, .nsid = nsid, .cdw10 = selection, .data = true};
    return nvme_admin_command(&pf->admin, &command, why, size);
}

static enum status attachment_of(struct nvme_pf *pf, uint32_t nsid, uint32_t selection, uint16_t controller,
                                 char *why, size_t size)
{
    const uint16_t list[] = {1, controller};
    memset(nvme_admin_data(&pf->admin), 0, NVME_IDENTIFY_BYTES);
    memcpy(nvme_admin_data(&pf->admin), list, sizeof(list));
    return attachment(pf, nsid, selection, why, size);
}

/* The list of controllers that have a namespace, from identifier `from` up, into the data page. */
static enum status read_attached(struct nvme_pf *pf, uint32_t nsid, uint16_t from, uint16_t *count, char *why,
                                 size_t size)
{
    enum status s = nvme_admin_identify(&pf->admin, NVME_CNS_ATTACHED_CONTROLLERS | NVME_CDW10_HIGH(from),
                                        nsid, why, size);
    if (s != STATUS_OK)
        return s;
    *count = nvme_get16(nvme_admin_data(&pf->admin));
    if (*count <= NVME_LIST_MAX)
        return STATUS_OK;
    fmt_format(why, size, "the NVMe card lists %u controllers for namespace %u", *count, nsid);
    return ERR_INVALID;
}

static uint16_t get_attached(const struct nvme_pf *pf, uint32_t index)
{
    return nvme_get16(nvme_admin_data(&pf->admin) + 2 * (index + 1));
}

static enum status is_attached(struct nvme_pf *pf, uint32_t nsid, uint16_t controller, bool *attached,
                               char *why, size_t size)
{
    uint16_t count = 0;
    enum status s = read_attached(pf, nsid, controller, &count, why, size);
    *attached = s == STATUS_OK && count != 0 && get_attached(pf, 0) == controller;
    return s;
}

static bool is_ours(const struct nvme_pf *pf, uint16_t controller)
{
    for (uint32_t i = 0; i < pf->secondary_count; i++)
        if (pf->secondaries[i] == controller)
            return true;
    return controller == pf->controller;
}

/* ---- a VF's controller ---- */

/* No resources, nothing running; made sure of. A controller that is so is left alone: for some it is an error
 * to go offline twice. */
static enum status take_offline(struct nvme_pf *pf, uint16_t controller, char *why, size_t size)
{
    struct secondary now;
    enum status s = find_secondary(pf, controller, &now, why, size);
    if (s != STATUS_OK)
        return s;
    bool queues = pf->flexible_queues && now.queues, vectors = pf->flexible_vectors && now.vectors;
    if (!now.online && !queues && !vectors)
        return STATUS_OK;
    s = virtualize(pf, NVME_VM_OFFLINE, controller, 0, why, size);
    if (s == STATUS_OK)
        s = find_secondary(pf, controller, &now, why, size);
    if (s != STATUS_OK)
        return s;
    queues = pf->flexible_queues && now.queues;
    vectors = pf->flexible_vectors && now.vectors;
    if (!now.online && !queues && !vectors)
        return STATUS_OK;
    fmt_format(why, size, "secondary controller %u did not go offline", controller);
    return ERR_INVALID;
}

/* An even share of `total` for each VF. */
static uint16_t share(const struct nvme_pf *pf, uint32_t total, uint16_t max, uint16_t granule)
{
    uint32_t n = total / pf->vf_count;
    if (n > max)
        n = max;
    if (granule && n >= granule)
        n -= n % granule;
    return (uint16_t)n;
}

uint16_t nvme_pf_vectors(const struct nvme_pf *pf)
{
    if (!pf->flexible_vectors || pf->vf_count == 0)
        return 0;
    return share(pf, pf->vectors_total, pf->vectors_max, pf->vectors_granule);
}

/* Resources first: a controller without them cannot go online (5.22). */
static enum status take_online(struct nvme_pf *pf, struct nvme_vf *vf, char *why, size_t size)
{
    uint16_t queues = share(pf, pf->queues_total, pf->queues_max, pf->queues_granule);
    uint16_t vectors = share(pf, pf->vectors_total, pf->vectors_max, pf->vectors_granule);
    if ((pf->flexible_queues && queues < QUEUES_MIN) || (pf->flexible_vectors && vectors < VECTORS_MIN)) {
        fmt_format(why, size,
                   "the NVMe card has %u queues and %u interrupt vectors for %u VFs: enable fewer VFs",
                   pf->queues_total, pf->vectors_total, pf->vf_count);
        return ERR_NO_MEMORY;
    }
    enum status s = STATUS_OK;
    if (pf->flexible_vectors)
        s = virtualize(pf, NVME_VM_ASSIGN | NVME_VM_VI, vf->controller, vectors, why, size);
    if (s == STATUS_OK && pf->flexible_queues)
        s = virtualize(pf, NVME_VM_ASSIGN | NVME_VM_VQ, vf->controller, queues, why, size);
    if (s == STATUS_OK)
        s = virtualize(pf, NVME_VM_ONLINE, vf->controller, 0, why, size);
    struct secondary now;
    if (s == STATUS_OK)
        s = find_secondary(pf, vf->controller, &now, why, size);
    if (s != STATUS_OK)
        return s;
    vf->queues = now.queues;
    vf->vectors = now.vectors;
    bool resources =
        (!pf->flexible_queues || now.queues == queues) && (!pf->flexible_vectors || now.vectors == vectors);
    if (now.online && resources)
        return STATUS_OK;
    fmt_format(why, size,
               "secondary controller %u is %s with %u queues and %u vectors, should be online with %u and %u",
               vf->controller, now.online ? "online" : "offline", now.queues, now.vectors, queues, vectors);
    return ERR_INVALID;
}

/* ---- who has which namespace ---- */

static struct nvme_namespace *find_namespace(struct nvme_pf *pf, uint32_t nsid)
{
    for (uint32_t i = 0; i < pf->namespace_count; i++)
        if (pf->namespaces[i].nsid == nsid)
            return &pf->namespaces[i];
    return NULL;
}

static void set_owner(struct nvme_pf *pf, uint32_t vf, uint32_t nsid)
{
    for (uint32_t i = 0; i < pf->namespace_count; i++)
        if (pf->namespaces[i].vf == (int)vf)
            pf->namespaces[i].vf = -1;
    struct nvme_namespace *ns = find_namespace(pf, nsid);
    if (ns)
        ns->vf = (int16_t)vf;
    pf->vfs[vf].nsid = nsid;
}

/* Attachments outlive resets and power cycles. Takes from the controller every namespace it has. */
static enum status detach_all(struct nvme_pf *pf, uint16_t controller, char *why, size_t size)
{
    for (uint32_t i = 0; i < pf->namespace_count; i++) {
        uint32_t nsid = pf->namespaces[i].nsid;
        bool attached;
        enum status s = is_attached(pf, nsid, controller, &attached, why, size);
        if (s == STATUS_OK && attached)
            s = attachment_of(pf, nsid, NVME_NS_DETACH, controller, why, size);
        if (s == STATUS_OK && attached)
            s = is_attached(pf, nsid, controller, &attached, why, size);
        if (s != STATUS_OK)
            return s;
        if (attached) {
            fmt_format(why, size, "namespace %u stays attached to secondary controller %u", nsid, controller);
            return ERR_INVALID;
        }
    }
    return STATUS_OK;
}

/* Takes a namespace that no VF owns from whoever of this card has it: the primary controller (firmware booted
 * from it), or a VF's from before. */
static enum status detach_everybody(struct nvme_pf *pf, uint32_t nsid, char *why, size_t size)
{
    uint16_t count;
    enum status s = read_attached(pf, nsid, 0, &count, why, size);
    if (s != STATUS_OK || count == 0)
        return s;
    for (uint32_t i = 0; i < count; i++) {
        uint16_t controller = get_attached(pf, i);
        if (is_ours(pf, controller))
            continue;
        fmt_format(why, size, "namespace %u is attached to controller %u, which is not one of this PF's",
                   nsid, controller);
        return ERR_EXISTS;
    }
    /* The answer has the form of the command's data. */
    return attachment(pf, nsid, NVME_NS_DETACH, why, size);
}

/* Has `controller` this namespace, and nobody else? */
static enum status check_exclusive(struct nvme_pf *pf, uint32_t nsid, uint16_t controller, char *why,
                                   size_t size)
{
    uint16_t count;
    enum status s = read_attached(pf, nsid, 0, &count, why, size);
    if (s != STATUS_OK)
        return s;
    uint16_t first = get_attached(pf, 0);
    if (count == 1 && first == controller)
        return STATUS_OK;
    fmt_format(why, size,
               "namespace %u should be attached to controller %u alone, and is to %u of them (first %u)",
               nsid, controller, count, count ? first : 0);
    return ERR_INVALID;
}

/* ---- the interface ---- */

/* The primary's flexible resources return to the pool: it needs none, having no data to move. */
static enum status free_primary(struct nvme_pf *pf, char *why, size_t size)
{
    enum status s = STATUS_OK;
    if (pf->flexible_vectors)
        s = virtualize(pf, NVME_VM_PRIMARY | NVME_VM_VI, pf->controller, 0, why, size);
    if (s == STATUS_OK && pf->flexible_queues)
        s = virtualize(pf, NVME_VM_PRIMARY | NVME_VM_VQ, pf->controller, 0, why, size);
    return s;
}

static enum status start(struct nvme_pf *pf, const struct mmio *regs, const struct dev_env *env, char *why,
                         size_t size)
{
    uint32_t count = 0;
    bool holds = false;
    pf->vf_count = pf->secondary_count = pf->namespace_count = 0;
    pf->reset_wanted = false;
    memset(pf->vfs, 0, sizeof(pf->vfs));
    enum status s = nvme_admin_start(&pf->admin, regs, env, why, size);
    if (s == STATUS_OK)
        s = read_controller(pf, why, size);
    if (s == STATUS_OK)
        s = read_primary(pf, &holds, why, size);
    if (s == STATUS_OK)
        s = read_secondaries(pf, &count, why, size);
    if (s != STATUS_OK)
        return s;
    for (uint32_t i = 0; i < count; i++)
        pf->secondaries[i] = get_secondary(pf, i).controller;
    pf->secondary_count = count;
    s = read_namespaces(pf, why, size);
    if (s == STATUS_OK && holds) {
        s = free_primary(pf, why, size);
        pf->reset_wanted = s == STATUS_OK;
    }
    return s;
}

enum status nvme_pf_start(struct nvme_pf *pf, const struct mmio *regs, const struct dev_env *env, char *why,
                          size_t size)
{
    pf->admin.env = env;
    if (!enter(pf, why, size))
        return ERR_NOT_FOUND;
    enum status s = start(pf, regs, env, why, size);
    if (s != STATUS_OK)
        pf->admin.alive = false;
    spin_unlock(&pf->lock);
    return s;
}

bool nvme_pf_reset_wanted(const struct nvme_pf *pf)
{
    return pf->reset_wanted;
}

/* Which secondary controller is which VF's (figure 251: VFN is 1 for the first). */
static enum status match_vfs(struct nvme_pf *pf, uint32_t count, char *why, size_t size)
{
    uint32_t listed, found = 0;
    uint64_t seen = 0; /* VFs that have one */
    enum status s = read_secondaries(pf, &listed, why, size);
    if (s != STATUS_OK)
        return s;
    for (uint32_t i = 0; i < listed; i++) {
        struct secondary now = get_secondary(pf, i);
        if (now.primary != pf->controller || now.vf_number == 0 || now.vf_number > count)
            continue;
        uint32_t vf = now.vf_number - 1u;
        /* A controller, or a VF, that is there twice would be two VMs'. */
        bool twice = seen & BIT(vf) || now.controller == pf->controller || !is_ours(pf, now.controller);
        for (uint32_t k = 0; k < count; k++)
            twice |= seen & BIT(k) && pf->vfs[k].controller == now.controller;
        if (twice)
            break;
        pf->vfs[vf].controller = now.controller;
        seen |= BIT(vf);
        found++;
    }
    if (found == count)
        return STATUS_OK;
    fmt_format(why, size, "the NVMe card lists secondary controllers for %u of its %u VFs that make sense",
               found, count);
    return ERR_INVALID;
}

static enum status vfs_enabled(struct nvme_pf *pf, uint32_t count, char *why, size_t size)
{
    pf->vf_count = 0;
    memset(pf->vfs, 0, sizeof(pf->vfs));
    for (uint32_t i = 0; i < pf->namespace_count; i++)
        pf->namespaces[i].vf = -1;
    if (count < 1 || count > NVME_VFS_MAX || count > pf->secondary_count) {
        fmt_format(why, size,
                   "%u VFs are enabled: the NVMe card has controllers for %u, and %u is the most here", count,
                   pf->secondary_count, NVME_VFS_MAX);
        return ERR_RANGE;
    }
    enum status s = match_vfs(pf, count, why, size);
    for (uint32_t i = 0; i < count && s == STATUS_OK; i++)
        s = take_offline(pf, pf->vfs[i].controller, why, size);
    if (s == STATUS_OK)
        pf->vf_count = count;
    return s;
}

enum status nvme_pf_vfs_enabled(struct nvme_pf *pf, uint32_t count, char *why, size_t size)
{
    if (!enter(pf, why, size))
        return ERR_NOT_FOUND;
    enum status s = vfs_enabled(pf, count, why, size);
    spin_unlock(&pf->lock);
    return s;
}

/* Takes everything from a VF: it is FREE afterwards, or FAILED. */
static enum status strip(struct nvme_pf *pf, uint32_t index, char *why, size_t size)
{
    struct nvme_vf *vf = &pf->vfs[index];
    /* Both, whatever becomes of the first. */
    enum status s = detach_all(pf, vf->controller, why, size);
    enum status off =
        take_offline(pf, vf->controller, s == STATUS_OK ? why : NULL, s == STATUS_OK ? size : 0);
    if (s == STATUS_OK)
        s = off;
    vf->state = NVME_VF_FAILED;
    if (s != STATUS_OK)
        return s;
    vf->state = NVME_VF_FREE;
    vf->queues = vf->vectors = 0;
    set_owner(pf, index, 0);
    return STATUS_OK;
}

/* After strip(), which has made sure that the controller has no namespace. take_online() asks whether it is
 * online, and with what. */
static enum status give(struct nvme_pf *pf, uint32_t index, uint32_t nsid, char *why, size_t size)
{
    struct nvme_vf *vf = &pf->vfs[index];
    enum status s = detach_everybody(pf, nsid, why, size);
    if (s == STATUS_OK)
        s = take_online(pf, vf, why, size);
    if (s == STATUS_OK)
        s = attachment_of(pf, nsid, NVME_NS_ATTACH, vf->controller, why, size);
    if (s == STATUS_OK)
        s = check_exclusive(pf, nsid, vf->controller, why, size);
    return s;
}

/* What was asked for makes sense? */
static enum status check_request(struct nvme_pf *pf, uint32_t index, uint32_t nsid, char *why, size_t size)
{
    if (index >= pf->vf_count) {
        fmt_format(why, size, "the NVMe card has %u VFs; there is none with index %u", pf->vf_count, index);
        return ERR_RANGE;
    }
    const struct nvme_namespace *ns = find_namespace(pf, nsid);
    if (!ns) {
        fmt_format(why, size, "the NVMe card has no namespace %u (it has %u of them)", nsid,
                   pf->namespace_count);
        return ERR_NOT_FOUND;
    }
    if (ns->vf >= 0 && ns->vf != (int)index) {
        fmt_format(why, size, "namespace %u belongs to VF %u", nsid, (unsigned)ns->vf);
        return ERR_EXISTS;
    }
    return STATUS_OK;
}

/* A secondary controller that manages namespaces takes whichever it likes (QEMU's do). */
static void warn_when_shared(struct nvme_pf *pf, uint32_t index)
{
    for (uint32_t i = 0; i < pf->vf_count && !pf->warned; i++)
        if (i != index && pf->vfs[i].state == NVME_VF_READY) {
            log_line(
                LOG_WARN, "nvme",
                "card \"%s\" %s serves several VMs; should its VFs have namespace management, as the PF has, "
                "these VMs can take each other's disks: share it among VMs that trust each other",
                pf->model, pf->serial);
            pf->warned = true;
        }
}

static enum status prepare(struct nvme_pf *pf, uint32_t index, uint32_t nsid, char *why, size_t size)
{
    enum status s = check_request(pf, index, nsid, why, size);
    if (s != STATUS_OK)
        return s;
    s = strip(pf, index, why, size);
    if (s != STATUS_OK)
        return s;
    set_owner(pf, index, nsid);
    s = give(pf, index, nsid, why, size);
    if (s != STATUS_OK) {
        strip(pf, index, NULL, 0);
        return s;
    }
    pf->vfs[index].state = NVME_VF_READY;
    warn_when_shared(pf, index);
    return STATUS_OK;
}

enum status nvme_pf_prepare_vf(struct nvme_pf *pf, uint32_t vf, uint32_t nsid, char *why, size_t size)
{
    if (!enter(pf, why, size))
        return ERR_NOT_FOUND;
    enum status s = prepare(pf, vf, nsid, why, size);
    spin_unlock(&pf->lock);
    return s;
}

enum status nvme_pf_release_vf(struct nvme_pf *pf, uint32_t vf, char *why, size_t size)
{
    if (!enter(pf, why, size))
        return ERR_NOT_FOUND;
    enum status s = ERR_RANGE;
    if (vf >= pf->vf_count)
        fmt_format(why, size, "the NVMe card has %u VFs; there is none with index %u", pf->vf_count, vf);
    else if (pf->vfs[vf].state == NVME_VF_FREE)
        s = STATUS_OK;
    else
        s = strip(pf, vf, why, size);
    spin_unlock(&pf->lock);
    return s;
}

void nvme_pf_info(const struct nvme_pf *pf, struct nvme_info *out)
{
    *out = (struct nvme_info){
        .model = pf->model,
        .serial = pf->serial,
        .firmware = pf->firmware,
        .alive = pf->admin.alive,
        .manages_namespaces = pf->admin_support & NVME_OACS_NAMESPACES,
        .vf_count = pf->vf_count,
        .secondary_count = pf->secondary_count,
        .namespace_count = pf->namespace_count,
        .queues_total = pf->queues_total,
        .vectors_total = pf->vectors_total,
        .commands = pf->admin.commands,
        .refused = pf->admin.refused,
    };
}

const struct nvme_vf *nvme_pf_vf(const struct nvme_pf *pf, uint32_t index)
{
    return index < pf->vf_count ? &pf->vfs[index] : NULL;
}

const struct nvme_namespace *nvme_pf_namespace(const struct nvme_pf *pf, uint32_t index)
{
    return index < pf->namespace_count ? &pf->namespaces[index] : NULL;
}
