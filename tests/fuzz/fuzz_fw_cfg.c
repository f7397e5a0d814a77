/* Random accesses: a selected item reads as the specification says, at any moment, and zeros behind it. */
#include <string.h>
#include "drivers/vdev/fw_cfg.h"
#include "tests/host/fake_vdev_env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fake_vdev_env fake;
    struct fake_input in = {.data = data, .size = size};
    struct fw_cfg f = {.ram_size = fake_input_u64(&in), .cpus = fake_input_u8(&in)};
    uint64_t ram = f.ram_size;
    fake_vdev_env_init(&fake);
    fake_attach(&fake, &f.dev, &fw_cfg_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        uint64_t port = 0x510 + (op & 1);
        unsigned width = 1u << (op >> 1 & 3) % 3;
        if (op & 0x80)
            fake_write(&f.dev, port, width, fake_input_u64(&in));
        else
            (void)fake_read(&f.dev, port, width);
        if (op & 0x40) {
            uint64_t value = 0;
            fake_write(&f.dev, 0x510, 2, 3);
            for (unsigned i = 0; i < 8; i++)
                value |= (uint64_t)fake_in(&f.dev, 0x511) << 8 * i;
            FAKE_REQUIRE(value == ram && fake_in(&f.dev, 0x511) == 0);
        }
    }
    return 0;
}
