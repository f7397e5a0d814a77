/* Messages of a guest for its device's interrupts: whatever they say, a vector arrives at exactly those local
 * APICs that the message names (one of them with lowest priority), and at none when it is no message. */
#include <stdlib.h>
#include <string.h>

#include "hv/assign/msi.h"
#include "hv/core.h"
#include "hv/lib/bits.h"
#include "tests/host/machine.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

struct input {
    uint64_t address;
    uint32_t data;
    uint8_t ldr[MACHINE_VCPUS];
    uint8_t tpr[MACHINE_VCPUS];
    uint8_t off;  /* a bit for each APIC that software has disabled */
    uint8_t near; /* make it likely that it is a message */
};

static void set_up(const struct input *in)
{
    for (unsigned i = 0; i < MACHINE_VCPUS; i++) {
        struct lapic *l = &machine.vm.vcpus[i]->lapic;
        lapic_reset(l);
        lapic_mmio_write(l, 0xf0, 4, in->off >> i & 1 ? 0xff : 0x1ff);
        lapic_mmio_write(l, 0xd0, 4, (uint32_t)in->ldr[i] << 24);
        lapic_mmio_write(l, 0x80, 4, in->tpr[i]);
    }
}

/* Who has something in its IRR, and is it that vector alone? */
static unsigned receivers(uint8_t vector)
{
    unsigned set = 0;
    for (unsigned i = 0; i < MACHINE_VCPUS; i++)
        for (unsigned v = 0; v < 256; v++)
            if (machine.vm.vcpus[i]->lapic.irr[v / 32] & BIT(v % 32)) {
                CHECK(v == vector);
                set |= 1u << i;
            }
    return set;
}

static void check(const struct input *in)
{
    struct msi_irq irq = {.vm = &machine.vm};
    struct vcpu *where = NULL;
    uint8_t at;
    unsigned mode = in->data >> 8 & 7, named = 0;
    struct lapic_ipi ipi = {
        .dest = in->address >> 12 & 0xff, .logical = in->address >> 2 & 1, .assert = true};
    bool is_message = in->address >> 20 == 0xfee && mode <= 1 && (in->data & 0xff) >= 16;

    CHECK(msi_take_vector(&irq, &core.cpus[0], &at) == STATUS_OK);
    CHECK(msi_set_message(&irq, in->address, in->data, &where) == is_message);
    CHECK(msi_fire(&core.cpus[0], at));
    unsigned got = receivers((uint8_t)in->data);
    for (unsigned i = 0; i < MACHINE_VCPUS; i++)
        if (lapic_matches(&machine.vm.vcpus[i]->lapic, &ipi) && !(in->off >> i & 1))
            named |= 1u << i;
    if (!is_message)
        CHECK(got == 0);
    else if (mode == 1 || (in->address & BIT(3)))
        CHECK((got & ~named) == 0 && bits_count(got) == (named != 0));
    else
        CHECK(got == named);
    CHECK(!is_message || where);
    msi_retire(&core.cpus[0], at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct msi_cpu table;
    static bool ready;
    struct input in;
    if (size < sizeof(in))
        return 0;
    memcpy(&in, data, sizeof(in));
    if (!ready) {
        machine_init(MACHINE_VCPUS);
        core.cpus[0].msi = &table;
        ready = true;
    }
    if (in.near & 1)
        in.address = 0xfee00000 | (in.address & 0xfffff);
    if (in.near & 2)
        in.data &= 0xfffff1ff;
    set_up(&in);
    check(&in);
    return 0;
}
