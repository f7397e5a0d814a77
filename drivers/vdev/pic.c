#include "drivers/vdev/pic.h"

/* Which initialization command word comes next. */
enum pic_init_step { STEP_NONE, STEP_ICW2, STEP_ICW3, STEP_ICW4 };

#define ICW1_INIT   0x10u
#define ICW1_SINGLE 0x02u
#define ICW1_ICW4   0x01u
#define ICW2_BASE   0xf8u
#define ICW4_AEOI   0x02u
#define ICW4_SFNM   0x10u

/* OCW2 bits 7:5 */
#define OCW2_SHIFT 5
#define OCW2_LEVEL 0x07u
enum ocw2_command {
    OCW2_ROTATE_AEOI_OFF = 0,
    OCW2_EOI = 1,
    OCW2_NOP = 2,
    OCW2_SPECIFIC_EOI = 3,
    OCW2_ROTATE_AEOI_ON = 4,
    OCW2_ROTATE_EOI = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_ROTATE_SPECIFIC_EOI = 7,
};

#define OCW3              0x08u
#define OCW3_POLL         0x04u
#define OCW3_READ         0x02u /* bit 0 counts: 0 IRR, 1 ISR */
#define OCW3_READ_ISR     0x01u
#define OCW3_ENABLE_SMM   0x40u /* bit 5 counts */
#define OCW3_SPECIAL_MASK 0x20u

#define POLL_PENDING 0x80u

/* PIIX3 data sheet: IRQ 0, 1, 2, 8 and 13 are always edge-triggered. */
#define ELCR_MASTER_MASK 0xf8u
#define ELCR_SLAVE_MASK  0xdeu

#define MASTER       0
#define SLAVE        1
#define CASCADE_BIT  (1u << PIC_CASCADE_IRQ)
#define SPURIOUS_IRQ 7

static struct pic *pic_of(struct vdev *dev)
{
    return container_of(dev, struct pic, dev);
}

/* Rank of the highest-priority bit set in `set` (0 = highest), 8 when there is none. */
static unsigned highest_rank(const struct pic_chip *c, uint8_t set)
{
    unsigned shift = (c->lowest + 1u) & 7;
    uint8_t rotated = (uint8_t)(set >> shift | set << (8 - shift));
    return rotated ? (unsigned)__builtin_ctz(rotated) : 8;
}

static unsigned rank_to_input(const struct pic_chip *c, unsigned rank)
{
    return (c->lowest + 1u + rank) & 7;
}

/* The input whose interrupt the chip requests now, -1 for none. */
static int resolve(const struct pic_chip *c, bool master)
{
    uint8_t requests = c->irr & (uint8_t)~c->imr;
    if (requests == 0 || !c->initialized)
        return -1;
    uint8_t blocking = c->isr;
    if (c->special_mask)
        blocking &= (uint8_t)~c->imr; /* masked levels in service hold back nothing but themselves */
    unsigned wanted = highest_rank(c, requests);
    unsigned served = highest_rank(c, blocking);
    unsigned input = rank_to_input(c, wanted);
    if (wanted < served)
        return (int)input;
    /* Special fully nested mode: a slave in service may interrupt again, with something of its own higher
     * priority. */
    if (wanted == served && c->special_nested && master && input == PIC_CASCADE_IRQ)
        return (int)input;
    return -1;
}

/* INT of the slave drops: nothing is latched, and if it rises again that is a new edge. */
static void drop_cascade(struct pic_chip *master)
{
    master->irr &= (uint8_t)~CASCADE_BIT;
    master->lines &= (uint8_t)~CASCADE_BIT;
}

/* Brings the cascade input and INTR up to date. */
static void update(struct pic *p)
{
    struct pic_chip *m = &p->chip[MASTER];
    bool cascade = resolve(&p->chip[SLAVE], false) >= 0;
    if (cascade && !(m->lines & CASCADE_BIT))
        m->irr |= CASCADE_BIT;
    m->lines = cascade ? m->lines | CASCADE_BIT : m->lines & (uint8_t)~CASCADE_BIT;

    bool output = resolve(m, true) >= 0;
    if (output != p->output) {
        p->output = output;
        if (p->output_changed)
            p->output_changed(p->output_ctx, output);
    }
}

void pic_set_irq(struct pic *p, unsigned irq, bool level)
{
    if (irq >= PIC_IRQ_COUNT || irq == PIC_CASCADE_IRQ)
        return;
    struct pic_chip *c = &p->chip[irq >> 3];
    uint8_t bit = (uint8_t)(1u << (irq & 7));
    bool was = c->lines & bit;
    if (level == was)
        return;
    c->lines ^= bit;
    /* An edge stays latched when the line falls again: env->set_irq() makes edges as short pulses. */
    if (level)
        c->irr |= bit;
    else if (c->elcr & bit)
        c->irr &= (uint8_t)~bit;
    else
        return;
    if (!(c->imr & bit)) /* with an IOAPIC in use everything is masked here: spare it the rest */
        update(p);
}

/* The chip's own part of the INTA cycle. */
static void take(struct pic_chip *c, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (!c->auto_eoi)
        c->isr |= bit;
    else if (c->rotate_auto_eoi)
        c->lowest = (uint8_t)input;
}

int pic_acknowledge(struct pic *p)
{
    struct pic_chip *m = &p->chip[MASTER], *s = &p->chip[SLAVE];
    int input = resolve(m, true);
    if (input < 0)
        return m->vector_base + SPURIOUS_IRQ; /* sets no ISR bit */
    int vector = m->vector_base + input;
    take(m, (unsigned)input);
    if (input == PIC_CASCADE_IRQ) {
        /* When a device has withdrawn its request, the master's ISR bit stays set and the slave answers with
         * 7: handlers of a spurious IRQ 15 send an EOI to the master only. */
        int own = resolve(s, false);
        vector = s->vector_base + (own < 0 ? SPURIOUS_IRQ : own);
        if (own >= 0)
            take(s, (unsigned)own);
        drop_cascade(m);
    }
    update(p);
    return vector;
}

/* Poll command: reading acts as INTA for this chip alone. */
static uint8_t read_poll(struct pic *p, struct pic_chip *c)
{
    bool master = c == &p->chip[MASTER];
    c->poll = false;
    int input = resolve(c, master);
    if (input < 0)
        return 0;
    take(c, (unsigned)input);
    if (!master)
        drop_cascade(&p->chip[MASTER]);
    update(p);
    return (uint8_t)(POLL_PENDING | (unsigned)input);
}

static void end_of_interrupt(struct pic_chip *c, bool rotate)
{
    /* In special mask mode a non-specific EOI does not end levels that are masked. */
    uint8_t candidates = c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr;
    unsigned rank = highest_rank(c, candidates);
    if (rank == 8)
        return;
    unsigned input = rank_to_input(c, rank);
    c->isr &= (uint8_t) ~(1u << input);
    if (rotate)
        c->lowest = (uint8_t)input;
}

static void write_ocw2(struct pic_chip *c, uint8_t value)
{
    uint8_t level = value & OCW2_LEVEL;
    switch ((enum ocw2_command)(value >> OCW2_SHIFT)) {
    case OCW2_EOI:
        end_of_interrupt(c, false);
        break;
    case OCW2_ROTATE_EOI:
        end_of_interrupt(c, true);
        break;
    case OCW2_ROTATE_SPECIFIC_EOI:
        c->lowest = level;
        c->isr &= (uint8_t) ~(1u << level);
        break;
    case OCW2_SPECIFIC_EOI:
        c->isr &= (uint8_t) ~(1u << level);
        break;
    case OCW2_SET_PRIORITY:
        c->lowest = level;
        break;
    case OCW2_ROTATE_AEOI_ON:
        c->rotate_auto_eoi = true;
        break;
    case OCW2_ROTATE_AEOI_OFF:
        c->rotate_auto_eoi = false;
        break;
    case OCW2_NOP:
        break;
    }
}

static void write_ocw3(struct pic_chip *c, uint8_t value)
{
    if (value & OCW3_ENABLE_SMM)
        c->special_mask = value & OCW3_SPECIAL_MASK;
    /* Poll overrides the read-register command of the same word. */
    if (value & OCW3_POLL)
        c->poll = true;
    else if (value & OCW3_READ)
        c->read_isr = value & OCW3_READ_ISR;
}

/* What ICW1 resets (data sheet, "Initialization command words"): edges are forgotten, levels are not. */
static void write_icw1(struct pic_chip *c, uint8_t value)
{
    c->irr = c->lines & c->elcr;
    c->isr = c->imr = 0;
    c->lowest = 7;
    c->special_mask = c->read_isr = c->poll = c->rotate_auto_eoi = false;
    c->auto_eoi = c->special_nested = false;
    c->need_icw4 = value & ICW1_ICW4;
    c->single = value & ICW1_SINGLE;
    c->init_step = STEP_ICW2;
    c->initialized = false;
}

/* A write to the odd port: ICW2..4 during initialization, then OCW1. */
static void write_data(struct pic_chip *c, uint8_t value)
{
    switch ((enum pic_init_step)c->init_step) {
    case STEP_NONE:
        c->imr = value;
        return;
    case STEP_ICW2:
        c->vector_base = value & ICW2_BASE;
        c->init_step = !c->single ? STEP_ICW3 : c->need_icw4 ? STEP_ICW4 : STEP_NONE;
        break;
    case STEP_ICW3: /* the cascade is wired to input 2 whatever is written */
        c->init_step = c->need_icw4 ? STEP_ICW4 : STEP_NONE;
        break;
    case STEP_ICW4:
        c->auto_eoi = value & ICW4_AEOI;
        c->special_nested = value & ICW4_SFNM;
        c->init_step = STEP_NONE;
        break;
    }
    c->initialized = c->init_step == STEP_NONE;
}

static void write_chip(struct pic *p, struct pic_chip *c, bool odd, uint8_t value)
{
    if (odd)
        write_data(c, value);
    else if (value & ICW1_INIT)
        write_icw1(c, value);
    else if (value & OCW3)
        write_ocw3(c, value);
    else
        write_ocw2(c, value);
    /* What the guest masks or resets itself goes away without a trace; only a device that withdraws its
     * request leaves a spurious IRQ 15 behind. A master that is initialized anew must not miss a slave that
     * asks already. */
    if (c == &p->chip[MASTER] ? !odd && (value & ICW1_INIT) : resolve(c, false) < 0)
        drop_cascade(&p->chip[MASTER]);
    update(p);
}

static uint8_t read_chip(struct pic *p, struct pic_chip *c, bool odd)
{
    if (c->poll)
        return read_poll(p, c);
    if (odd)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static void write_elcr(struct pic *p, struct pic_chip *c, uint8_t value)
{
    value &= c->elcr_mask;
    uint8_t to_level = value & (uint8_t)~c->elcr;
    c->elcr = value;
    /* A level-triggered request is nothing but its line. */
    c->irr = (c->irr & (uint8_t)~to_level) | (c->lines & to_level);
    update(p);
}

static void pic_access(struct vdev *dev, struct io_req *req)
{
    struct pic *p = pic_of(dev);
    if (req->size != 1) {
        vdev_split_bytes(dev, req);
        return;
    }
    bool odd = req->addr & 1;
    struct pic_chip *c;
    switch (req->addr & ~(uint64_t)1) {
    case PIC_MASTER_PORT:
        c = &p->chip[MASTER];
        break;
    case PIC_SLAVE_PORT:
        c = &p->chip[SLAVE];
        break;
    case PIC_ELCR_PORT:
        c = &p->chip[odd ? SLAVE : MASTER];
        if (req->write)
            write_elcr(p, c, (uint8_t)req->value);
        else
            req->value = c->elcr;
        return;
    default:
        req->value = req->write ? req->value : 0xff;
        return;
    }
    if (req->write)
        write_chip(p, c, odd, (uint8_t)req->value);
    else
        req->value = read_chip(p, c, odd);
}

static void pic_reset(struct vdev *dev)
{
    struct pic *p = pic_of(dev);
    for (unsigned i = 0; i < ARRAY_SIZE(p->chip); i++) {
        /* The registers of a real chip are undefined before ICW1. Masked is what a kernel expects that was
         * started without a BIOS. */
        p->chip[i] = (struct pic_chip){
            .imr = 0xff,
            .lowest = 7,
            .elcr_mask = i == MASTER ? ELCR_MASTER_MASK : ELCR_SLAVE_MASK,
        };
    }
    update(p);
}

const struct vdev_ops pic_ops = {
    .name = "pic",
    .init = pic_reset,
    .reset = pic_reset,
    .access = pic_access,
};
