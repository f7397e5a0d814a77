/* Random accesses to the system ports: the VM is reset by rising edges of the two reset bits, and by nothing
 * else. */
#include <string.h>
#include "drivers/vdev/sysctl.h"
#include "tests/host/fake_vdev_env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t ports[] = {0x80, 0x92, 0xcf9, 0xed, 0x91, 0xcf8, 0x7f, 0xcfa};
    static struct fake_vdev_env fake;
    struct fake_input in = {.data = data, .size = size};
    struct sysctl s;
    bool init = false, cpu = false;
    unsigned expected = 0;
    fake_vdev_env_init(&fake);
    memset(&s, 0, sizeof(s));
    fake_attach(&fake, &s.dev, &sysctl_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        uint64_t port = ports[op & 7];
        unsigned width = 1u << (op >> 3 & 3) % 3;
        if (op & 0x80) {
            (void)fake_read(&s.dev, port, width);
            continue;
        }
        uint32_t value = (uint32_t)fake_input_u64(&in);
        for (unsigned i = 0; i < width; i++) {
            bool bit0 = value >> 8 * i & 1, bit2 = value >> 8 * i & 4;
            expected += (port + i == 0x92 && bit0 && !init) + (port + i == 0xcf9 && bit2 && !cpu);
            init = port + i == 0x92 ? bit0 : init;
            cpu = port + i == 0xcf9 ? bit2 : cpu;
        }
        fake_write(&s.dev, port, width, value);
        FAKE_REQUIRE(fake.resets == expected && fake.poweroffs == 0);
        FAKE_REQUIRE((fake_in(&s.dev, 0x92) & 0xfc) == 0 && (fake_in(&s.dev, 0xcf9) & 0xf1) == 0);
    }
    return 0;
}
