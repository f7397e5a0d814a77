/* The I/O APIC: whatever is written and whichever pins move, messages only leave unmasked entries, and a
 * level that may be delivered has been. */
#include <stdlib.h>
#include <string.h>

#include "drivers/vdev/ioapic.h"
#include "drivers/vdev/lapic.h"

#define CHECK(cond)                                                                                          \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

#define MASKED (1u << 16)
#define LEVEL  (1u << 15)

static struct ioapic io;

static bool rte_is_level(uint64_t rte)
{
    return (rte & LEVEL) && (rte >> 8 & 7) <= LAPIC_LOWEST;
}

/* Some entry must explain the message. */
static bool deliver(void *ctx, uint8_t dest, bool logical, uint8_t mode, uint8_t vector, bool level)
{
    CHECK(mode != LAPIC_SMI && mode != 3 && mode != 6);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = io.redirection[pin];
        if (!(rte & MASKED) && (io.asserted >> pin & 1) && (uint8_t)rte == vector && rte >> 56 == dest &&
            (rte >> 8 & 7) == mode && !!(rte & 1u << 11) == logical && rte_is_level(rte) == level)
            return true;
    }
    abort();
}

static uint64_t mmio(uint64_t offset, uint8_t size, bool write, uint64_t value)
{
    struct io_req req = {.addr = IOAPIC_BASE + offset, .value = value, .size = size, .write = write};
    ioapic_ops.access(&io.dev, &req);
    CHECK(write || size == 8 || req.value >> (8 * size) == 0);
    return req.value;
}

static void check_state(void)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = io.redirection[pin];
        bool remote_irr = io.remote_irr >> pin & 1;
        CHECK(!(rte & ~0xff0000000001afffull));
        CHECK(!remote_irr || rte_is_level(rte));
        if (rte_is_level(rte) && !(rte & MASKED) && (io.asserted >> pin & 1))
            CHECK(remote_irr);
        uint8_t select = io.select;
        mmio(0, 1, true, 0x10 + 2 * pin);
        CHECK(mmio(0x10, 4, false, 0) == ((uint32_t)rte | (remote_irr ? 1u << 14 : 0)));
        mmio(0, 1, true, select);
    }
    CHECK(!(io.asserted >> IOAPIC_PINS) && !(io.remote_irr >> IOAPIC_PINS));
    CHECK(!(io.id & 0xf0ffffff));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&io, 0, sizeof(io));
    ioapic_connect(&io, deliver, NULL);
    ioapic_ops.init(&io.dev);
    for (; size >= 7; data += 7, size -= 7) {
        uint32_t value;
        memcpy(&value, data + 3, 4);
        switch (data[0] & 7) {
        case 0:
        case 1:
            mmio(0, 4, true, data[1]);
            mmio(0x10, 4, true, value);
            break;
        case 2:
        case 3:
            ioapic_set_pin(&io, data[1] & 31, data[2] & 1);
            break;
        case 4:
            ioapic_eoi(&io, data[1]);
            break;
        case 5:
            mmio(data[1], (uint8_t)(1u << (data[2] & 3)), data[2] & 4, value);
            break;
        case 6: /* an entry that can do something: pin, vector from a few, level or edge */
            mmio(0, 4, true, 0x10 + 2 * (data[1] % IOAPIC_PINS));
            mmio(0x10, 4, true,
                 0x30u + (data[2] & 3) + (data[2] & 4 ? LEVEL : 0) + (data[2] & 8 ? MASKED : 0));
            break;
        default:
            if (data[1] == 0)
                ioapic_ops.reset(&io.dev);
        }
        check_state();
    }
    return 0;
}
