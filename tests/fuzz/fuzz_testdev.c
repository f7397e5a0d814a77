/* Random accesses: the echo register and the memory are what a flat model says, lines stay in range (the fake
 * environment aborts otherwise), only the exit port ends the VM, and a reset leaves no line high. */
#include <string.h>
#include "drivers/vdev/testdev.h"
#include "tests/host/fake_vdev_env.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned left;

static void leave(void *ctx, uint32_t code)
{
    (void)ctx, (void)code;
    left++;
}

static void send(void *ctx, uint32_t address, uint32_t data, bool raise)
{
    const uint8_t *message = ctx;
    FAKE_REQUIRE(!memcmp(message, &address, 4) && !memcmp(message + 4, &data, 4));
    (void)raise;
}

/* The model's bytes for an access that is all inside, or NULL. */
static uint8_t *model_at(uint8_t *echo, uint8_t *ram, uint8_t *message, uint64_t addr, unsigned width)
{
    if (addr >= 0xe0 && addr + width <= 0xe4)
        return echo + (addr - 0xe0);
    if (addr >= 0xff000000 && addr + width <= 0xff010000)
        return ram + (addr - 0xff000000);
    if (addr >= 0x2020 && addr + width <= 0x2028)
        return message + (addr - 0x2020);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t bases[] = {0xe0, 0xe4, 0xe9, 0xf0, 0x2000, 0x2020, 0xff000000, 0xff00fff8};
    static struct fake_vdev_env fake;
    static uint8_t ram[TESTDEV_RAM_SIZE], model[TESTDEV_RAM_SIZE];
    struct fake_input in = {.data = data, .size = size};
    struct testdev t = {.ram = ram, .leave = leave, .send_msi = send};
    uint8_t echo[4] = {0}, message[8] = {0};
    unsigned expected = left;
    t.send_ctx = message;
    fake_vdev_env_init(&fake);
    memset(model, 0, sizeof(model));
    fake_attach(&fake, &t.dev, &testdev_ops);
    while (fake_input_left(&in)) {
        uint8_t op = fake_input_u8(&in);
        uint64_t addr = bases[op & 7] + (fake_input_u8(&in) & 15);
        unsigned width = 1u << (op >> 3 & 3);
        uint8_t *m = model_at(echo, model, message, addr, width);
        if (op & 0x80) {
            uint64_t value = fake_read(&t.dev, addr, width);
            FAKE_REQUIRE(!m || memcmp(&value, m, width) == 0);
        } else {
            uint64_t value = fake_input_u64(&in);
            expected += addr >= 0xf4 && addr + width <= 0xf8;
            fake_write(&t.dev, addr, width, value);
            if (m)
                memcpy(m, &value, width);
        }
        FAKE_REQUIRE(left == expected && fake.resets == 0 && fake.poweroffs == 0);
    }
    t.dev.ops->reset(&t.dev);
    for (unsigned i = 0; i < FAKE_LINES; i++)
        FAKE_REQUIRE(!fake.level[i]);
    return 0;
}
