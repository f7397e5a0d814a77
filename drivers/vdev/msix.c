/* The MSI-X shadow. A real entry is live exactly while MSI-X is enabled and the guest's entry is unmasked;
 * Function Mask is left to the real function, which costs nothing per entry and keeps its PBA right. */
#include "drivers/vdev/msix.h"

#include "hv/lib/bits.h"

/* An entry is two quadwords (7.7.2.4 .. 7.7.2.7): address; data and, above it, Vector Control. */
#define HALF_SIZE       8u
#define ADDRESS_BITS    ~(uint64_t)3 /* "must be DWORD aligned" */
#define VECTOR_MASK_BIT BIT(32)

void msix_init(struct msix *m, const struct msix_env *env, uint16_t count)
{
    m->env = env;
    m->count = count;
    m->enabled = m->function_mask = false;
    m->live = 0;
    for (unsigned i = 0; i < count; i++)
        m->entries[i] = (struct msix_entry){.masked = true};
}

/* Tells what has changed for an entry; `changed`: its message. */
static void update(struct msix *m, unsigned index, bool changed)
{
    const struct msix_entry *e = &m->entries[index];
    bool was = m->live & BIT(index), is = m->enabled && !e->masked;
    if (is && (!was || changed)) {
        m->live |= BIT(index);
        m->env->irq_set(m->env->ctx, index, e->address, e->data, false);
    } else if (was && !is) {
        m->live &= ~BIT(index);
        m->env->irq_set(m->env->ctx, index, e->address, e->data, true);
    }
}

static void update_all(struct msix *m)
{
    for (unsigned i = 0; i < m->count; i++)
        update(m, i, false);
}

void msix_control(struct msix *m, bool enabled, bool function_mask)
{
    if (enabled == m->enabled && function_mask == m->function_mask)
        return;
    bool toggled = enabled != m->enabled;
    m->enabled = enabled;
    m->function_mask = function_mask;
    if (toggled && enabled) /* some functions accept writes to the table only while enabled */
        m->env->control(m->env->ctx, true, true);
    if (toggled)
        update_all(m);
    if (!toggled || !enabled || !function_mask)
        m->env->control(m->env->ctx, enabled, function_mask);
}

void msix_reset(struct msix *m)
{
    msix_control(m, false, false);
    msix_init(m, m->env, m->count);
}

static uint64_t half_get(const struct msix_entry *e, bool upper)
{
    return upper ? e->data | (e->masked ? VECTOR_MASK_BIT : 0) : e->address;
}

/* True: the message is another one now. */
static bool half_set(struct msix_entry *e, bool upper, uint64_t value)
{
    struct msix_entry old = *e;
    if (upper) {
        e->data = (uint32_t)value;
        e->masked = value & VECTOR_MASK_BIT; /* the others are reserved, or for TPH, which is not shown */
    } else {
        e->address = value & ADDRESS_BITS;
    }
    return e->address != old.address || e->data != old.data;
}

void msix_access(struct msix *m, uint64_t offset, struct io_req *req)
{
    uint64_t index = offset / MSIX_ENTRY_SIZE;
    if (!req->write)
        req->value = 0;
    if (index >= m->count)
        return;
    struct msix_entry *e = &m->entries[index];
    bool upper = offset & HALF_SIZE;
    unsigned shift = (offset & (HALF_SIZE - 1)) * 8;
    uint64_t half = half_get(e, upper), mask = bits_low_bytes(~0ull, req->size) << shift;
    if (!req->write) {
        req->value = (half & mask) >> shift;
        return;
    }
    update(m, (unsigned)index, half_set(e, upper, (half & ~mask) | (req->value << shift & mask)));
}
