/* Random lines, port accesses and acknowledge cycles for the pair of PICs. What is acknowledged must have
 * been asked for and not be masked, INTR and the callback must agree, and after EOIs everything pending must
 * come. */
#include <string.h>
#include "drivers/vdev/pic.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct pic pic;
static bool output;

static void output_changed(void *ctx, bool level)
{
    FAKE_REQUIRE(level != output);
    output = level;
}

static void check(void)
{
    FAKE_REQUIRE(pic_output(&pic) == output);
    for (unsigned i = 0; i < 2; i++) {
        const struct pic_chip *c = &pic.chip[i];
        FAKE_REQUIRE(c->lowest < 8 && (c->vector_base & 7) == 0);
        FAKE_REQUIRE((c->elcr & (uint8_t)~c->elcr_mask) == 0);
        FAKE_REQUIRE((c->irr & c->elcr) == (c->lines & c->elcr));
    }
    const struct pic_chip *m = &pic.chip[0];
    if (output)
        FAKE_REQUIRE(m->initialized && (m->irr & (uint8_t)~m->imr));
}

static void acknowledge(void)
{
    struct pic_chip before[2] = {pic.chip[0], pic.chip[1]};
    bool asked = pic_output(&pic);
    int vector = pic_acknowledge(&pic);
    if (!asked) {
        FAKE_REQUIRE(vector == before[0].vector_base + 7);
        FAKE_REQUIRE(memcmp(before, pic.chip, sizeof(before)) == 0);
        return;
    }
    unsigned input = 0;
    if (vector >> 3 == before[0].vector_base >> 3 && (vector & 7) != 2) {
        input = (unsigned)vector & 7;
        if (!(before[0].irr & (uint8_t)~before[0].imr & (1u << input))) {
            /* Only if both chips have the same vectors can it be the slave's. */
            FAKE_REQUIRE(before[1].vector_base == before[0].vector_base || !before[1].initialized);
        }
        return;
    }
    FAKE_REQUIRE(vector >> 3 == before[1].vector_base >> 3);
    FAKE_REQUIRE(before[0].irr & (uint8_t)~before[0].imr & 4);
    input = (unsigned)vector & 7;
    if (!(before[1].irr & (uint8_t)~before[1].imr & (1u << input)))
        FAKE_REQUIRE(input == 7); /* spurious */
    if (!before[0].auto_eoi)
        FAKE_REQUIRE(pic.chip[0].isr & 4);
}

static void drain(void)
{
    /* Fresh initialization with everything unmasked; lines low. */
    for (unsigned irq = 0; irq < PIC_IRQ_COUNT; irq++)
        pic_set_irq(&pic, irq, false);
    static const uint8_t words[] = {0x11, 0x20, 0x04, 0x01, 0x11, 0x28, 0x02, 0x01};
    for (unsigned i = 0; i < 8; i++)
        fake_out(&pic.dev, (i < 4 ? 0x20 : 0xa0) + (i % 4 != 0), words[i]);
    FAKE_REQUIRE(!pic_output(&pic));
    for (unsigned irq = 0; irq < PIC_IRQ_COUNT; irq++)
        pic_set_irq(&pic, irq, true);
    static const uint8_t order[] = {0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7};
    for (unsigned i = 0; i < sizeof(order); i++) {
        FAKE_REQUIRE(pic_output(&pic));
        FAKE_REQUIRE(pic_acknowledge(&pic) == 0x20 + order[i]);
        pic_set_irq(&pic, order[i], false);
        if (order[i] >= 8)
            fake_out(&pic.dev, 0xa0, 0x20);
        fake_out(&pic.dev, 0x20, 0x20);
    }
    FAKE_REQUIRE(!pic_output(&pic));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x22, 0x1f};
    struct fake_input in = {.data = data, .size = size};
    fake_vdev_env_init(&fake);
    memset(&pic, 0, sizeof(pic));
    output = false;
    pic.output_changed = output_changed;
    fake_attach(&fake, &pic.dev, &pic_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        uint16_t port = ports[op & 7];
        unsigned width = 1u << (op >> 3 & 3) % 3;
        switch (op >> 5) {
        case 0:
        case 1:
            fake_out(&pic.dev, port, fake_input_u8(&in));
            break;
        case 2:
            fake_write(&pic.dev, port, width, fake_input_u64(&in));
            break;
        case 3:
            (void)fake_read(&pic.dev, port, width);
            break;
        case 4:
            pic_set_irq(&pic, op & 31, true);
            break;
        case 5:
            pic_set_irq(&pic, op & 31, false);
            break;
        case 6:
            acknowledge();
            break;
        default: /* an initialization that makes sense, then an edge */
            fake_out(&pic.dev, 0x20, 0x11);
            fake_out(&pic.dev, 0x21, 0x20);
            fake_out(&pic.dev, 0x21, 0x04);
            fake_out(&pic.dev, 0x21, op & 0x13);
            break;
        }
        check();
    }
    drain();
    return 0;
}
