#include "boot/handover.h"
#include "arch/x86/hostpt.h"
#include "arch/x86/layout.h"
#include "hv/lib/string.h"
#include "hv/record/blackbox.h"

/* Takes pages from the pool's start, one after the other; nothing is given back. */
struct bump {
    const struct handover_in *in;
    uint64_t used; /* bytes */
};

static bool bump_alloc(void *ctx, hpa_t *page)
{
    struct bump *b = ctx;
    if (b->used == b->in->pool_size)
        return false;
    memset(b->in->pool + b->used, 0, PAGE_SIZE);
    *page = hpa(b->in->pool_hpa.v + b->used);
    b->used += PAGE_SIZE;
    return true;
}

static uint64_t *bump_table(void *ctx, hpa_t page)
{
    struct bump *b = ctx;
    return (uint64_t *)(void *)(b->in->pool + (page.v - b->in->pool_hpa.v));
}

static enum status map_core(const struct pt_env *env, hpa_t root, const struct handover_in *in)
{
    for (uint32_t i = 0; i < in->core->segment_count; i++) {
        const struct elf_segment *seg = &in->core->segments[i];
        hpa_t pa = hpa(in->core_hpa.v + (seg->va - in->core->va));
        unsigned flags = (seg->write ? HOSTPT_WRITE : 0u) | (seg->exec ? HOSTPT_EXEC : 0u);
        enum status s = hostpt_map(env, root, seg->va, pa, align_up(seg->mem_size, PAGE_SIZE), flags);
        if (s)
            return s;
    }
    return STATUS_OK;
}

enum status handover_build(const struct handover_in *in, struct handover *out)
{
    struct bump bump = {.in = in};
    const struct pt_env env = {.ctx = &bump, .alloc = bump_alloc, .table = bump_table};
    const uint64_t info_size = align_up(sizeof(struct boot_info), PAGE_SIZE);
    hpa_t root;

    memset(in->pool, 0, info_size + HANDOVER_STACK_SIZE);
    bump.used = info_size + HANDOVER_STACK_SIZE;
    if (!bump_alloc(&bump, &root))
        return ERR_NO_MEMORY;
    enum status s = map_core(&env, root, in);
    if (!s)
        s = hostpt_map(&env, root, LAYOUT_POOL_VA, in->pool_hpa, in->pool_size, HOSTPT_WRITE);
    if (!s && in->blackbox_hpa.v)
        s = hostpt_map(&env, root, LAYOUT_BLACKBOX_VA, in->blackbox_hpa, BLACKBOX_SIZE, HOSTPT_WRITE);
    if (!s)
        s = hostpt_map(&env, root, in->switch_page.v, in->switch_page, PAGE_SIZE, HOSTPT_EXEC);
    if (s)
        return s;
    *out = (struct handover){
        .info = (struct boot_info *)(void *)in->pool,
        .cr3 = root,
        .entry = in->core->entry,
        .stack_top = LAYOUT_POOL_VA + info_size + HANDOVER_STACK_SIZE,
        .info_va = LAYOUT_POOL_VA,
    };
    out->info->magic = BOOT_INFO_MAGIC;
    out->info->version = BOOT_INFO_VERSION;
    out->info->size = sizeof(struct boot_info);
    out->info->core_hpa = in->core_hpa.v;
    out->info->core_size = in->core->size;
    out->info->pool_hpa = in->pool_hpa.v;
    out->info->pool_size = in->pool_size;
    out->info->pool_used = bump.used;
    out->info->cr3 = root.v;
    return STATUS_OK;
}
