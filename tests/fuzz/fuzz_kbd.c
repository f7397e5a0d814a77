/* Random port accesses and keys for the keyboard controller. Queues keep their bounds, the interrupt line
 * follows the output buffer, reading empties everything, and afterwards controller and keyboard answer as
 * ever. */
#include <string.h>
#include "drivers/vdev/kbd.h"
#include "tests/host/fake_vdev_env.h"

static struct fake_vdev_env fake;
static struct kbd kbd;

static void check(void)
{
    FAKE_REQUIRE(kbd.count <= KBD_QUEUE_SIZE && kbd.head < KBD_QUEUE_SIZE);
    FAKE_REQUIRE(kbd.scancode_set == 1 || kbd.scancode_set == 2);
    bool full = fake_in(&kbd.dev, 0x64) & 1;
    FAKE_REQUIRE(fake.level[1] == (full && (kbd.ram[0] & 1)));
    /* Nothing waits behind an empty output buffer, unless the keyboard is switched off. */
    if (!full)
        FAKE_REQUIRE(!kbd.has_reply && (kbd.count == 0 || (kbd.ram[0] & 0x10)));
}

static void drain(void)
{
    for (unsigned i = 0; i < KBD_QUEUE_SIZE + 2 && (fake_in(&kbd.dev, 0x64) & 1); i++)
        (void)fake_in(&kbd.dev, 0x60);
    FAKE_REQUIRE(!(fake_in(&kbd.dev, 0x64) & 1));
}

static void expect(uint8_t value)
{
    FAKE_REQUIRE(fake_in(&kbd.dev, 0x64) & 1);
    FAKE_REQUIRE(fake_in(&kbd.dev, 0x60) == value);
}

static void check_answers(void)
{
    fake_out(&kbd.dev, 0x64, 0xae); /* keyboard on, and no data byte is awaited */
    drain();
    fake_out(&kbd.dev, 0x64, 0xaa);
    expect(0x55);
    fake_out(&kbd.dev, 0x64, 0x60);
    fake_out(&kbd.dev, 0x60, 0x01);
    fake_out(&kbd.dev, 0x60, 0xff);
    FAKE_REQUIRE(fake.level[1]);
    expect(0xfa);
    expect(0xaa);
    fake_out(&kbd.dev, 0x60, 0xf2);
    expect(0xfa);
    expect(0xab);
    expect(0x83);
    FAKE_REQUIRE(kbd_key(&kbd, 0x1c, false, true));
    expect(0x1c);
    FAKE_REQUIRE(!fake.level[1] && kbd.count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input in = {.data = data, .size = size};
    fake_vdev_env_init(&fake);
    memset(&kbd, 0, sizeof(kbd));
    fake_attach(&fake, &kbd.dev, &kbd_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        uint16_t count = kbd.count;
        switch (op & 7) {
        case 0:
        case 1:
            fake_out(&kbd.dev, 0x60, fake_input_u8(&in));
            break;
        case 2:
        case 3:
            fake_out(&kbd.dev, 0x64, fake_input_u8(&in));
            break;
        case 4:
            (void)fake_in(&kbd.dev, 0x60);
            break;
        case 5:
            if (!kbd_key(&kbd, fake_input_u8(&in), op & 8, op & 16))
                FAKE_REQUIRE(kbd.count == count);
            break;
        case 6:
            fake_write(&kbd.dev, 0x5e + (op >> 3 & 7), 1u << (op >> 6) % 3, fake_input_u64(&in));
            break;
        default:
            (void)fake_read(&kbd.dev, 0x5e + (op >> 3 & 7), 1u << (op >> 6) % 3);
            break;
        }
        check();
    }
    check_answers();
    return 0;
}
