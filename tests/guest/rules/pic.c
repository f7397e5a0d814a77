/* The pair of 8259A interrupt controllers: data sheet "8259A Programmable Interrupt Controller", and the
 * 82371AB's (PIIX4) for the edge/level registers. Lines are raised with the test device. */
#include "rules.h"

#define MASTER_BASE         0x60u
#define SLAVE_BASE          0x68u
#define READ_IRR            0x0au
#define READ_ISR            0x0bu
#define POLL                0x0cu
#define MASK_SPECIAL        0x68u
#define MASK_NORMAL         0x48u
#define EOI_SPECIFIC        0x60u
#define EOI_ROTATE          0xa0u
#define EOI_ROTATE_SPECIFIC 0xe0u
#define SET_LOWEST          0xc0u
#define ELCR_MASTER         0x4d0u
#define ELCR_SLAVE          0x4d1u
#define ICW4_AUTO           0x03u
#define CASCADE             (1u << 2)

static unsigned read_register(uint16_t chip, uint8_t which)
{
    out8(chip, which);
    return in8(chip);
}

static void pulse(unsigned irq)
{
    set_line(irq, false);
    set_line(irq, true);
}

static void all_low(void)
{
    for (unsigned irq = 3; irq < 16; irq++) {
        if (irq != 4 && irq != 8) /* the serial port and the RTC have theirs */
            set_line(irq, false);
    }
}

static void begin(uint8_t master_mask, uint8_t slave_mask)
{
    all_low();
    pic_begin(MASTER_BASE, SLAVE_BASE);
    out8(PIC_MASTER_DATA, master_mask);
    out8(PIC_SLAVE_DATA, slave_mask);
}

/* Of a check: nothing was taken. */
#define NOTHING 0
/* The vector of one of the master's lines. */
#define LINE(n) (MASTER_BASE + (n))

static void one_edge(void)
{
    begin(0xff & ~(1u << 5), 0xff);
    check_equal(in8(PIC_MASTER_DATA), 0xdf, "the mask reads back");
    check_equal(read_register(PIC_MASTER, READ_IRR) & 0x20, 0, "IRR before");
    pulse(5);
    check_equal(read_register(PIC_MASTER, READ_IRR) & 0x20, 0x20, "IRR of an edge");
    check_equal(read_register(PIC_MASTER, READ_ISR), 0, "ISR before it is taken");
    check_equal(taken(), LINE(5), "IRQ 5 is taken");
    check_equal(read_register(PIC_MASTER, READ_ISR), 0x20, "ISR while it is served");
    check_equal(read_register(PIC_MASTER, READ_IRR) & 0x20, 0, "IRR while it is served");
    pulse(5);
    check_equal(taken(), NOTHING, "another edge waits while it is served");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), LINE(5), "and comes after the end of interrupt");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), NOTHING, "a line that stays high is no edge");
    check_equal(read_register(PIC_MASTER, READ_ISR), 0, "ISR at the end");
    out8(PIC_MASTER_DATA, 0xff);
    pulse(5);
    check_equal(taken(), NOTHING, "masked");
    check_equal(read_register(PIC_MASTER, READ_IRR) & 0x20, 0x20, "IRR under the mask");
    out8(PIC_MASTER_DATA, 0xdf);
    check_equal(taken(), LINE(5), "unmasked: what waited comes");
    out8(PIC_MASTER, PIC_EOI);
    pulse(5);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    check_equal(taken(), NOTHING, "LINT0 is masked");
    apic_write(APIC_LVT_LINT0, LVT_EXTINT);
    check_equal(taken(), LINE(5), "LINT0 is unmasked");
    out8(PIC_MASTER, PIC_EOI);
}

static void priorities(void)
{
    begin(0x01, 0xff);
    pulse(6);
    pulse(5);
    check_equal(taken(), LINE(5), "5 before 6; 6 waits for its end");
    pulse(3);
    check_equal(taken(), LINE(3), "3 interrupts 5");
    check_equal(read_register(PIC_MASTER, READ_ISR), 0x28, "both are in service");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(read_register(PIC_MASTER, READ_ISR), 0x20, "a non-specific end takes the highest");
    out8(PIC_MASTER, EOI_SPECIFIC | 5);
    check_equal(read_register(PIC_MASTER, READ_ISR), 0, "a specific end");
    check_equal(taken(), LINE(6), "6 at last");
    out8(PIC_MASTER, EOI_ROTATE); /* 6 has the lowest priority now, 7 the highest */
    pulse(7);
    pulse(3);
    check_equal(taken(), LINE(7), "rotated: 7 before 3");
    out8(PIC_MASTER, EOI_ROTATE_SPECIFIC | 7); /* and back: 7 is the lowest */
    check_equal(taken(), LINE(3), "rotated back");
    out8(PIC_MASTER, PIC_EOI);
    out8(PIC_MASTER, SET_LOWEST | 5); /* 6, 7, 0, ... 5 */
    pulse(3);
    pulse(6);
    check_equal(taken(), LINE(6), "5 is the lowest: 6 before 3");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), LINE(3), "then 3");
    out8(PIC_MASTER, PIC_EOI);
    out8(PIC_MASTER, SET_LOWEST | 7);
}

static void special_mask(void)
{
    begin(0x01, 0xff);
    pulse(3);
    check_equal(taken(), LINE(3), "3 is in service");
    pulse(5);
    check_equal(taken(), NOTHING, "5 waits");
    out8(PIC_MASTER, MASK_SPECIAL);
    out8(PIC_MASTER_DATA, 1u << 3 | 1);
    check_equal(taken(), LINE(5), "special mask mode: 5 does not wait for a masked 3");
    out8(PIC_MASTER, EOI_SPECIFIC | 5);
    out8(PIC_MASTER, EOI_SPECIFIC | 3);
    out8(PIC_MASTER, MASK_NORMAL);
    check_equal(read_register(PIC_MASTER, READ_ISR), 0, "nothing is in service");
}

static void polling(void)
{
    begin(0x01, 0xff);
    out8(PIC_MASTER, POLL);
    check_equal(in8(PIC_MASTER) & 0x80, 0, "a poll finds nothing");
    pulse(5);
    out8(PIC_MASTER, POLL);
    check_equal(in8(PIC_MASTER), 0x85, "a poll finds 5");
    check_equal(read_register(PIC_MASTER, READ_ISR), 0x20, "a poll is an acknowledge");
    check_equal(taken(), NOTHING, "which nobody else gets");
    out8(PIC_MASTER, PIC_EOI);
}

static void cascade(void)
{
    begin(0xff & ~CASCADE, 0);
    pulse(10);
    uint64_t before = arrived(SLAVE_BASE + 2);
    take_interrupts();
    check_equal(arrived(SLAVE_BASE + 2) - before, 1, "IRQ 10 comes at the slave's vector");
    check_equal(read_register(PIC_MASTER, READ_ISR), CASCADE, "the master serves the cascade");
    check_equal(read_register(PIC_SLAVE, READ_ISR), 4, "the slave serves line 2");
    pulse(11);
    out8(PIC_SLAVE, PIC_EOI);
    check_equal(taken(), NOTHING, "the next waits for the master's end");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), SLAVE_BASE + 3, "then 11");
    out8(PIC_SLAVE, PIC_EOI);
    out8(PIC_MASTER, PIC_EOI);
    out8(PIC_MASTER_DATA, 0xff);
    pulse(10);
    check_equal(taken(), NOTHING, "the cascade is masked");
    out8(PIC_MASTER_DATA, 0xff & ~CASCADE);
    check_equal(taken(), SLAVE_BASE + 2, "and no more");
    out8(PIC_SLAVE, PIC_EOI);
    out8(PIC_MASTER, PIC_EOI);
}

static void auto_end(void)
{
    all_low();
    out8(PIC_MASTER, 0x11);
    out8(PIC_MASTER_DATA, MASTER_BASE);
    out8(PIC_MASTER_DATA, CASCADE);
    out8(PIC_MASTER_DATA, ICW4_AUTO);
    check_equal(in8(PIC_MASTER_DATA), 0, "ICW1 clears the mask");
    out8(PIC_MASTER_DATA, 0xdf);
    pulse(5);
    check_equal(taken(), LINE(5), "automatic end: taken");
    check_equal(read_register(PIC_MASTER, READ_ISR), 0, "automatic end: nothing is in service");
    pulse(5);
    check_equal(taken(), LINE(5), "automatic end: the next one at once");
}

/* Level-triggered lines come again for as long as they are high. */
static void levels(void)
{
    out8(ELCR_MASTER, 0xff);
    out8(ELCR_SLAVE, 0xff);
    check_equal(in8(ELCR_MASTER), 0xf8, "IRQ 0, 1 and 2 are edges for ever");
    check_equal(in8(ELCR_SLAVE), 0xde, "IRQ 8 and 13, too");
    out8(ELCR_MASTER, 0x20);
    out8(ELCR_SLAVE, 0);
    begin(0xff & ~0x20u, 0xff);
    set_line(5, true);
    check_equal(taken(), LINE(5), "a level is taken");
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), LINE(5), "a level that stays is taken again");
    set_line(5, false);
    out8(PIC_MASTER, PIC_EOI);
    check_equal(taken(), NOTHING, "a level that has gone is not");
    check_equal(read_register(PIC_MASTER, READ_IRR) & 0x20, 0, "nor is it in IRR");
    out8(ELCR_MASTER, 0);
}

void rule_pic(void)
{
    one_edge();
    priorities();
    special_mask();
    polling();
    cascade();
    auto_end();
    levels();
    all_low();
    pic_begin(MASTER_BASE, SLAVE_BASE);
    pic_end();
}
