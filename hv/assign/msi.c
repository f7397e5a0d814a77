#include "hv/assign/msi.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "hv/lib/fmt.h"

/* Address: SDM volume 3, figure "Layout of the MSI Message Address Register". */
#define ADDRESS_LAPIC   0xfeeu /* bits 31:20 */
#define ADDRESS_DEST(a) ((uint32_t)((a) >> 12) & 0xffu)
#define ADDRESS_RH      BIT(3) /* lowest priority among those named */
#define ADDRESS_LOGICAL BIT(2)
#define DATA_MODE(d)    ((uint8_t)((d) >> 8 & 7))
#define FIRST_LEGAL     16u /* vectors below are illegal (SDM volume 3, "Valid Interrupt Vectors") */

/* struct msi_irq.message */
#define MESSAGE_VECTOR(m)  ((uint8_t)(m))
#define MESSAGE_MODE(m)    ((uint8_t)((m) >> 8 & 7))
#define MESSAGE_LOGICAL    BIT(11)
#define MESSAGE_DIRECT     BIT(12) /* one vCPU alone is named */
#define MESSAGE_VALID      BIT(13)
#define MESSAGE_DEST(m)    ((uint32_t)((m) >> 16 & 0xff))
#define MESSAGE_DEST_SHIFT 16
#define MESSAGE_VCPU(m)    ((uint32_t)((m) >> 24 & 0xff))
#define MESSAGE_VCPU_SHIFT 24

bool msi_set_message(struct msi_irq *irq, uint64_t address, uint32_t data, struct vcpu **where)
{
    struct vm *vm = irq->vm;
    uint8_t vector = (uint8_t)data, mode = DATA_MODE(data);
    struct lapic_ipi ipi = {.dest = ADDRESS_DEST(address),
                            .vector = vector,
                            .mode = mode,
                            .logical = address & ADDRESS_LOGICAL,
                            .assert = true};
    unsigned named = 0;

    if (address >> 20 != ADDRESS_LAPIC || (mode != LAPIC_FIXED && mode != LAPIC_LOWEST) ||
        vector < FIRST_LEGAL) {
        msi_silence(irq);
        return false;
    }
    if (address & ADDRESS_RH)
        mode = LAPIC_LOWEST;
    *where = vm->vcpus[0];
    for (uint32_t i = 0; i < vm->vcpu_count; i++)
        if (lapic_matches(&vm->vcpus[i]->lapic, &ipi) && named++ == 0)
            *where = vm->vcpus[i];
    uint64_t message = MESSAGE_VALID | vector | (uint64_t)mode << 8 | (ipi.logical ? MESSAGE_LOGICAL : 0) |
                       (uint64_t)ipi.dest << MESSAGE_DEST_SHIFT;
    if (named == 1)
        message |= MESSAGE_DIRECT | (uint64_t)(*where)->id << MESSAGE_VCPU_SHIFT;
    __atomic_store_n(&irq->message, message, __ATOMIC_RELEASE);
    return true;
}

void msi_silence(struct msi_irq *irq)
{
    __atomic_store_n(&irq->message, 0, __ATOMIC_RELEASE);
}

enum status msi_create_tables(struct vm *vm, char *why, size_t size)
{
    STATIC_ASSERT(sizeof(struct msi_cpu) <= PAGE_SIZE, "a page for each CPU's vectors");
    for (uint32_t i = 0; i < vm->vcpu_count; i++) {
        struct cpu *cpu = vm->vcpus[i]->cpu;
        if (!cpu->msi)
            cpu->msi = pool_alloc(&core.pool);
        if (!cpu->msi)
            return fmt_refuse(why, size, ERR_NO_MEMORY, "Bulkhead's own memory is used up");
    }
    return STATUS_OK;
}

enum status msi_take_vector(struct msi_irq *irq, struct cpu *cpu, uint8_t *vector)
{
    struct msi_cpu *m = cpu->msi;
    for (uint32_t tried = 0; m && tried < MSI_VECTORS; tried++) {
        uint32_t i = m->next;
        m->next = (i + 1) % MSI_VECTORS;
        if (m->used[i / 64] & BIT(i % 64))
            continue;
        m->used[i / 64] |= BIT(i % 64);
        __atomic_store_n(&m->irqs[i], irq, __ATOMIC_RELEASE);
        *vector = (uint8_t)(MSI_FIRST_VECTOR + i);
        return STATUS_OK;
    }
    return ERR_NO_MEMORY;
}

void msi_retire(struct cpu *cpu, uint8_t vector)
{
    uint32_t i = vector - MSI_FIRST_VECTOR;
    if (cpu->msi && i < MSI_VECTORS)
        cpu->msi->used[i / 64] &= ~BIT(i % 64);
}

void msi_send_test(struct vm *vm, uint32_t address, uint32_t data, bool raise)
{
    struct cpu *cpu = host_cpu();
    struct msi_irq *irq = &cpu->msi->test;
    struct vcpu *where;
    if (!irq->cpu && msi_take_vector(irq, cpu, &irq->vector) != STATUS_OK)
        return;
    irq->cpu = cpu;
    irq->vm = vm;
    (void)msi_set_message(irq, address, data, &where);
    if (raise)
        host_raise(irq->vector);
}

/* What the guest has programmed names several vCPUs, or none just now. */
static void __attribute__((noinline)) deliver_slowly(struct vm *vm, uint64_t m)
{
    (void)irq_deliver(vm, MESSAGE_DEST(m), m & MESSAGE_LOGICAL, MESSAGE_MODE(m), MESSAGE_VECTOR(m), false);
}

bool msi_fire(const struct cpu *cpu, uint8_t vector)
{
    uint32_t i = vector - MSI_FIRST_VECTOR;
    if (!cpu->msi || i >= MSI_VECTORS)
        return false;
    struct msi_irq *irq = __atomic_load_n(&cpu->msi->irqs[i], __ATOMIC_ACQUIRE);
    if (!irq)
        return false;
    uint64_t m = __atomic_load_n(&irq->message, __ATOMIC_ACQUIRE);
    __atomic_fetch_add(&irq->fired, 1, __ATOMIC_RELAXED);
    if (m & MESSAGE_DIRECT) {
        struct vcpu *vcpu = irq->vm->vcpus[MESSAGE_VCPU(m)];
        if (lapic_post(&vcpu->lapic, MESSAGE_VECTOR(m), false))
            vcpu_request(vcpu, VCPU_REQ_EVENT);
    } else if (m & MESSAGE_VALID) {
        deliver_slowly(irq->vm, m);
    }
    return true;
}
