/* Random accesses: a selected item and a file read as the specification says, at any moment, and zeros behind
 * them; whatever is read, nothing but the files' bytes is looked at (ASan). */
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
    struct fw_cfg_file files[4];
    uint8_t *bytes[4];
    uint8_t kind = fake_input_u8(&in);
    f.files = files;
    f.file_count = kind & 3;
    for (unsigned i = 0; i < f.file_count; i++) { /* blocks of their own, so that one byte too much is seen */
        uint32_t length = 1u + fake_input_u8(&in);
        bytes[i] = malloc(length);
        FAKE_REQUIRE(bytes[i]);
        memset(bytes[i], (int)(0x40 + i), length);
        files[i] = (struct fw_cfg_file){
            i & 1 ? "a name of 56 characters, which is one more than there is" : "b", bytes[i], length};
    }
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
        if ((op & 0x20) && f.file_count) {
            unsigned i = op % f.file_count;
            fake_write(&f.dev, 0x510, 2, 0x20 + i);
            for (unsigned at = 0; at < files[i].size; at++)
                FAKE_REQUIRE(fake_in(&f.dev, 0x511) == 0x40 + i);
            FAKE_REQUIRE(fake_in(&f.dev, 0x511) == 0);
            fake_write(&f.dev, 0x510, 2, 0x19);
            for (unsigned at = 0; at < 4 + 64 * 4 + 4; at++) {
                uint8_t byte = fake_in(&f.dev, 0x511);
                FAKE_REQUIRE(at > 3 || byte == (at == 3 ? f.file_count : 0));
            }
        }
    }
    for (unsigned i = 0; i < f.file_count; i++)
        free(bytes[i]);
    return 0;
}
