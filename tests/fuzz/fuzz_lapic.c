/* The local APIC under any sequence of accesses, messages and clock steps: after each one its caches must
 * agree with its registers, and what it asked of the world must be legal. */
#include <stdlib.h>
#include <string.h>

#include "drivers/vdev/lapic.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

static struct lapic apic, *const l = &apic;
static uint64_t now;

static uint64_t now_tsc(void *ctx)
{
    return now;
}
static void nothing(void *ctx)
{
}
static void send_ipi(void *ctx, const struct lapic_ipi *ipi)
{
    CHECK(ipi->mode == LAPIC_FIXED || ipi->mode == LAPIC_LOWEST || ipi->mode == LAPIC_NMI ||
          ipi->mode == LAPIC_INIT || ipi->mode == LAPIC_SIPI);
    if (ipi->mode <= LAPIC_LOWEST) {
        CHECK(ipi->vector >= 16);
        CHECK(ipi->shorthand != LAPIC_DEST_SELF);
    }
    if (!ipi->x2apic)
        CHECK(ipi->dest <= 0xff);
    CHECK(ipi->x2apic == lapic_is_x2apic(l));
}
static void eoi(void *ctx, uint8_t vector)
{
    CHECK(l->tmr[vector / 32] >> (vector % 32) & 1);
    CHECK(!(l->isr[vector / 32] >> (vector % 32) & 1));
    CHECK(!(l->svr & 1u << 12));
}
static const struct lapic_env env = {NULL, now_tsc, nothing, send_ipi, eoi, nothing};

static int highest(const uint32_t *words)
{
    for (int v = 255; v >= 0; v--)
        if (words[v / 32] >> (v % 32) & 1)
            return v;
    return -1;
}

static void check_state(void)
{
    int irr = highest(l->irr), isr = highest(l->isr);
    for (unsigned n = 0; n < 8; n++) {
        CHECK(!l->irr[n] || (l->irr_summary >> n & 1));
        CHECK(!!l->isr[n] == (l->isr_summary >> n & 1));
    }
    CHECK(!((l->irr[0] | l->isr[0] | l->tmr[0]) & 0xffff));
    CHECK(l->highest_isr == (isr < 0 ? 0 : isr));
    int floor = (l->tpr & 0xf0) > (uint32_t)(isr < 0 ? 0 : isr & 0xf0) ? (int)(l->tpr & 0xf0)
                : isr < 0                                              ? 0
                                                                       : isr & 0xf0;
    CHECK(lapic_highest_irr(l) == irr);
    CHECK(lapic_pending(l) == (irr >= 0 && (irr & 0xf0) > floor ? irr : -1));
    unsigned mode = l->lvt[1] >> 17 & 3;
    if (mode >= 2)
        CHECK(l->initial_count == 0);
    if (mode != 2)
        CHECK(l->tsc_deadline_msr == 0);
    if (mode == 3)
        CHECK(l->deadline_tsc == LAPIC_NEVER);
    if (!(l->svr & 0x100))
        for (unsigned i = 0; i < 7; i++)
            CHECK(l->lvt[i] & 1u << 16);
    CHECK((l->base_msr & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) != APIC_BASE_X2APIC);
    CHECK(!(l->tpr & ~0xffu));
}

static uint64_t take_bytes(const uint8_t **data, size_t *size, unsigned count)
{
    uint64_t value = 0;
    if (count > *size)
        count = (unsigned)*size;
    memcpy(&value, *data, count);
    *data += count;
    *size -= count;
    return value;
}

/* Reads have no effect but the illegal-address error, and MMIO and MSR agree where both exist. */
static void check_reads(uint32_t reg)
{
    struct lapic before = *l;
    uint64_t value;
    uint32_t msr = 0x800 + (reg & 0xff);
    bool readable = lapic_msr_read(l, msr, &value) == STATUS_OK;
    CHECK(!readable || lapic_is_x2apic(l));
    CHECK(!memcmp(&before, l, sizeof(before)));
    if (readable && msr == 0x839)
        CHECK(value <= l->initial_count);
    if (!lapic_mmio_enabled(l))
        CHECK(lapic_mmio_read(l, reg * 16, 4) == ~0u);
}

static void step(const uint8_t **data, size_t *size)
{
    uint8_t op = (uint8_t)take_bytes(data, size, 1);
    uint8_t reg = (uint8_t)take_bytes(data, size, 1);
    switch (op & 15) {
    case 0:
    case 1:
    case 2:
        lapic_mmio_write(l, (reg & 0x3f) * 16u, 4, (uint32_t)take_bytes(data, size, 4));
        break;
    case 3:
    case 4:
        lapic_msr_write(l, 0x800u + (reg & 0x3f), take_bytes(data, size, op & 16 ? 8 : 4));
        break;
    case 5:
        lapic_mmio_read(l, (uint32_t)take_bytes(data, size, 2) & 0xfff, 1u << (reg & 3));
        break;
    case 6:
    case 7:
        CHECK(lapic_post(l, reg, op & 16) == !!(l->svr & 0x100));
        break;
    case 8:
    case 9:
        if (lapic_pending(l) >= 0)
            lapic_take(l, (uint8_t)lapic_pending(l));
        break;
    case 10:
        now += take_bytes(data, size, op & 16 ? 5 : 2);
        lapic_timer_expired(l, now);
        CHECK(lapic_deadline(l) > now);
        break;
    case 11:
        lapic_set_cr8(l, reg);
        break;
    case 12:
        lapic_msr_write(l, LAPIC_MSR_APIC_BASE, 0xfee00000ull | (uint64_t)(reg & 0xf) << 8);
        break;
    case 13:
        lapic_msr_write(l, LAPIC_MSR_TSC_DEADLINE, op & 16 ? now + reg : take_bytes(data, size, 8));
        break;
    case 14:
        if (op & 16)
            lapic_tsc_moved(l, (int64_t)take_bytes(data, size, 8));
        else if (op & 32)
            lapic_init_signal(l);
        else if (op & 64)
            lapic_reset(l);
        break;
    default: {
        struct lapic_ipi ipi = {.dest = (uint32_t)take_bytes(data, size, 4),
                                .shorthand = reg & 3,
                                .logical = reg & 4,
                                .x2apic = reg & 8};
        lapic_matches(l, &ipi);
        check_reads(reg);
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t clocks[4][2] = {
        {25000000, 3000000000}, {1000000000, 1000000000}, {3000000000, 1000000000}, {19200000, 2400000001}};
    uint8_t setup = (uint8_t)take_bytes(&data, &size, 1);
    now = 1000;
    lapic_init(l, &env, setup >> 3 & 3, setup & 4, clocks[setup & 3][0], clocks[setup & 3][1]);
    if (setup & 0x20)
        lapic_mmio_write(l, 0xf0, 4, 0x1ff);
    if (setup & 0x40)
        CHECK(lapic_base_write(l, l->base_msr | APIC_BASE_X2APIC) == STATUS_OK);
    while (size) {
        step(&data, &size);
        check_state();
    }
    return 0;
}
