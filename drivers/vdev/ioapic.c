/* The guest's I/O APIC. Facts: Intel 82093AA data sheet, sections 3.1 and 3.2; EOI register: Intel I/O
 * Controller Hub data sheets, section "EOI register". */
#include "drivers/vdev/ioapic.h"

#include "drivers/vdev/lapic.h"
#include "hv/lib/bits.h"

/* Memory-mapped registers. */
#define REG_IOREGSEL 0x00u
#define REG_IOWIN    0x10u
#define REG_EOI      0x40u

/* Indirect registers. */
#define INDEX_ID          0x00u
#define INDEX_VERSION     0x01u
#define INDEX_ARBITRATION 0x02u
#define INDEX_REDIRECTION 0x10u

#define ID_WRITABLE   (0xfu << 24)
#define VERSION_VALUE (0x20u | (IOAPIC_PINS - 1) << 16)

/* Redirection table entry. */
#define RTE_VECTOR        0xffull
#define RTE_MODE_SHIFT    8
#define RTE_LOGICAL       BIT(11)
#define RTE_REMOTE_IRR    BIT(14)
#define RTE_LEVEL         BIT(15)
#define RTE_MASKED        BIT(16)
#define RTE_DEST_SHIFT    56
#define RTE_LOW_WRITABLE  0x1afffu /* all but delivery status (12) and remote IRR (14) */
#define RTE_HIGH_WRITABLE 0xff000000u

static struct ioapic *from_vdev(struct vdev *dev)
{
    return container_of(dev, struct ioapic, dev);
}

static uint8_t rte_mode(uint64_t rte)
{
    return (uint8_t)(rte >> RTE_MODE_SHIFT & 7);
}

/* Only fixed and lowest-priority interrupts can be level-triggered ("Delivery Mode"); NMI, INIT and ExtINT
 * are treated as edges whatever bit 15 says. */
static bool rte_is_level(uint64_t rte)
{
    return (rte & RTE_LEVEL) && (rte_mode(rte) == LAPIC_FIXED || rte_mode(rte) == LAPIC_LOWEST);
}

/* Sends a pin's message. True: accepted. */
static bool send(struct ioapic *io, unsigned pin)
{
    uint64_t rte = io->redirection[pin];
    switch (rte_mode(rte)) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
    case LAPIC_NMI:
    case LAPIC_INIT:
    case LAPIC_EXTINT:
        return io->deliver(io->deliver_ctx, (uint8_t)(rte >> RTE_DEST_SHIFT), rte & RTE_LOGICAL,
                           rte_mode(rte), (uint8_t)(rte & RTE_VECTOR), rte_is_level(rte));
    default:
        return false; /* SMI: there is no SMM here; 3 and 6 are reserved */
    }
}

/* A level pin sends when it is asserted, unmasked, and its last interrupt was ended. Unaccepted messages (the
 * local APIC is off) leave remote IRR clear: the next change of the pin or the entry tries again. */
static void evaluate_level(struct ioapic *io, unsigned pin)
{
    uint32_t bit = 1u << pin;
    uint64_t rte = io->redirection[pin];
    if (!rte_is_level(rte) || (rte & RTE_MASKED) || !(io->asserted & bit) || (io->remote_irr & bit))
        return;
    if (send(io, pin))
        io->remote_irr |= bit;
}

void ioapic_set_pin(struct ioapic *io, unsigned pin, bool asserted)
{
    if (pin >= IOAPIC_PINS)
        return;
    uint32_t bit = 1u << pin;
    bool rising = asserted && !(io->asserted & bit);
    io->asserted = asserted ? io->asserted | bit : io->asserted & ~bit;
    if (!rising)
        return;
    if (rte_is_level(io->redirection[pin]))
        evaluate_level(io, pin);
    else if (!(io->redirection[pin] & RTE_MASKED)) /* "Interrupt Mask": edges on a masked pin are lost */
        send(io, pin);
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    for (uint32_t left = io->remote_irr; left; left &= left - 1) {
        unsigned pin = (unsigned)__builtin_ctz(left);
        if ((io->redirection[pin] & RTE_VECTOR) != vector)
            continue;
        io->remote_irr &= ~(1u << pin);
        evaluate_level(io, pin);
    }
}

static uint32_t index_read(const struct ioapic *io)
{
    switch (io->select) {
    case INDEX_ID:
    case INDEX_ARBITRATION: /* follows the ID; there is no APIC bus to arbitrate for */
        return io->id;
    case INDEX_VERSION:
        return VERSION_VALUE;
    }
    unsigned pin = (io->select - INDEX_REDIRECTION) / 2u;
    if (io->select < INDEX_REDIRECTION || pin >= IOAPIC_PINS)
        return 0;
    uint64_t rte = io->redirection[pin] | (io->remote_irr >> pin & 1 ? RTE_REMOTE_IRR : 0);
    return (uint32_t)(io->select & 1 ? rte >> 32 : rte);
}

static void index_write(struct ioapic *io, uint32_t value)
{
    if (io->select == INDEX_ID)
        io->id = value & ID_WRITABLE;
    unsigned pin = (io->select - INDEX_REDIRECTION) / 2u;
    if (io->select < INDEX_REDIRECTION || pin >= IOAPIC_PINS)
        return;
    uint64_t rte = io->redirection[pin];
    if (io->select & 1)
        rte = (uint64_t)(value & RTE_HIGH_WRITABLE) << 32 | (uint32_t)rte;
    else
        rte = (rte & ~(uint64_t)UINT32_MAX) | (value & RTE_LOW_WRITABLE);
    io->redirection[pin] = rte;
    if (!rte_is_level(rte))
        io->remote_irr &= ~(1u << pin); /* remote IRR has no meaning for edges; systems clear it this way */
    evaluate_level(io, pin);
}

static void ioapic_access(struct vdev *dev, struct io_req *req)
{
    struct ioapic *io = from_vdev(dev);
    uint64_t offset = req->addr - IOAPIC_BASE;
    if (!req->write) {
        req->value = vdev_all_ones(req->size);
        if (offset == REG_IOREGSEL)
            req->value = io->select;
        else if (offset == REG_IOWIN)
            req->value = bits_low_bytes(index_read(io), req->size);
        return;
    }
    if (offset == REG_IOREGSEL)
        io->select = (uint8_t)req->value;
    else if (offset == REG_IOWIN && req->size >= 4) /* a partial write would set fields nobody asked for */
        index_write(io, (uint32_t)req->value);
    else if (offset == REG_EOI)
        ioapic_eoi(io, (uint8_t)req->value);
}

/* Masks everything. The pins belong to the devices and keep their levels. */
static void ioapic_reset(struct vdev *dev)
{
    struct ioapic *io = from_vdev(dev);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->redirection[pin] = RTE_MASKED;
    io->remote_irr = 0;
    io->id = 0;
    io->select = 0;
}

static void ioapic_init(struct vdev *dev)
{
    from_vdev(dev)->asserted = 0;
    ioapic_reset(dev);
}

void ioapic_connect(struct ioapic *io, ioapic_deliver_fn deliver, void *ctx)
{
    io->deliver = deliver;
    io->deliver_ctx = ctx;
}

const struct vdev_ops ioapic_ops = {
    .name = "ioapic",
    .init = ioapic_init,
    .reset = ioapic_reset,
    .access = ioapic_access,
};
