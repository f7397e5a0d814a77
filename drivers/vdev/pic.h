/* The pair of 8259A interrupt controllers of a PC, with the edge/level registers of the PIIX (ELCR). ICW1's
 * LTIM bit has no effect, as there: the ELCR says per line what is level-triggered. */
#pragma once

#include "drivers/vdev/vdev.h"

#define PIC_MASTER_PORT 0x20u  /* and 0x21 */
#define PIC_SLAVE_PORT  0xa0u  /* and 0xa1 */
#define PIC_ELCR_PORT   0x4d0u /* and 0x4d1 */
#define PIC_CASCADE_IRQ 2u
#define PIC_IRQ_COUNT   16u

struct pic_chip {
    uint8_t irr, isr, imr;
    uint8_t lines; /* levels of the inputs */
    uint8_t elcr, elcr_mask;
    uint8_t vector_base; /* bits 7:3 */
    uint8_t lowest;      /* the input with the lowest priority, 0..7 */
    uint8_t init_step;   /* 0 = operating; else enum pic_init_step, the word that comes next */
    bool initialized;    /* the last ICW sequence is complete: interrupts may be requested */
    bool need_icw4, single;
    bool auto_eoi, rotate_auto_eoi, special_mask, special_nested;
    bool read_isr, poll;
};

struct pic {
    struct vdev dev;
    /* Wiring, set before init; may be NULL. Called whenever INTR changes, possibly from any CPU of the VM. */
    void (*output_changed)(void *ctx, bool level);
    void *output_ctx;
    struct pic_chip chip[2]; /* master, slave */
    bool output;             /* INTR */
};

extern const struct vdev_ops pic_ops;

/* Level of input 0..15. Others, and 2 (the cascade), are ignored. */
void pic_set_irq(struct pic *pic, unsigned irq, bool level);

/* Is INTR asserted? */
static inline bool pic_output(const struct pic *pic)
{
    return pic->output;
}

/* The interrupt-acknowledge cycle: the vector, 0..255. When the request has gone away meanwhile it is the
 * spurious one, of input 7 of the chip concerned, as on hardware. */
int pic_acknowledge(struct pic *pic);
