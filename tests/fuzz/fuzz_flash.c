/* A VM with a firmware, and a guest that does to its ROM area what it likes: attribute map, reads and writes
 * through the bus, writes of the processor, resets. The image never changes, the core and the processor never
 * see anything but the VM's RAM, its image, or a private copy, and every page of the pool comes back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/virt.h"
#include "hv/core.h"
#include "hv/exits/emulate.h"
#include "hv/pc/flash.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_vdev_env.h"
#include "tests/host/fake_virt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MIB        (1ull << 20)
#define FREE_BASE  (2 * MIB)
#define FREE_SIZE  (10 * MIB)
#define FLASH_HPA  (13 * MIB)
#define FLASH_MAX  0x40000u
#define MEMORY     (14 * MIB)
#define POOL_PAGES 512u

static struct boot_info info;
static struct vm vm;
static uint8_t pool[POOL_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t *memory, flash[FLASH_MAX];
static char why[200];

static void begin(uint32_t flash_size)
{
    static const struct boot_region region = {FREE_BASE, FREE_SIZE, BOOT_REGION_FREE, 0};
    fake_host_with_vm(&info, &vm, &region, 1);
    if (!memory)
        memory = fake_host_memory(MEMORY);
    fake_host_pool(pool, sizeof(pool), 0);
    for (uint32_t i = 0; i < flash_size; i++)
        flash[i] = memory[FLASH_HPA + i] = (uint8_t)(i * 7 + (i >> 8));
    info.kernels[0] = (struct boot_file){FLASH_HPA, flash_size};
    struct config_vm *c = &info.config.vms[0];
    strcpy(c->name, "bios");
    c->memory = 8 * MIB;
    c->cpus = 1;
    c->firmware = true;
    FAKE_REQUIRE(vm_create(&vm, 0, why, sizeof(why)) == STATUS_OK);
    FAKE_REQUIRE(vm_load(&vm, why, sizeof(why)) == STATUS_OK);
}

static bool in(uint64_t at, uint64_t base, uint64_t size)
{
    return at >= base && at - base < size;
}

/* One page as the core and as the processor see it. */
static void verify_page(uint64_t at)
{
    hpa_t by_core = hpa(0), by_cpu = hpa(0);
    uint64_t size;
    unsigned flags = 0;
    enum ept_memory_type type;
    bool core_sees = gmem_translate(&vm.gmem, gpa(at), &by_core, &size) == STATUS_OK;
    bool cpu_sees = ept_lookup(&vm.ept, gpa(at), &by_cpu, &size, &flags, &type) == STATUS_OK;
    bool core_writes = gmem_check_write(&vm.gmem, gpa(at), PAGE_SIZE) == STATUS_OK;
    FAKE_REQUIRE(core_sees == cpu_sees);
    if (!core_sees)
        return;
    bool is_ram = in(by_core.v, vm.extents[0].base, 8 * MIB);
    bool is_flash = in(by_core.v, FLASH_HPA, info.kernels[0].size);
    FAKE_REQUIRE(is_ram || is_flash);
    FAKE_REQUIRE(!core_writes || is_ram);
    if (in(by_cpu.v, FAKE_POOL_HPA, sizeof(pool))) /* a private copy */
        FAKE_REQUIRE(!core_writes);
    else
        FAKE_REQUIRE(by_cpu.v == by_core.v && core_writes == ((flags & EPT_WRITE) != 0));
}

static void verify(void)
{
    for (uint64_t at = I440FX_ROM_FIRST; at < GUEST_ONE_MIB; at += PAGE_SIZE)
        verify_page(at);
    for (uint64_t at = GUEST_FOUR_GIB - info.kernels[0].size; at < GUEST_FOUR_GIB; at += PAGE_SIZE)
        verify_page(at);
    FAKE_REQUIRE(memcmp(memory + FLASH_HPA, flash, info.kernels[0].size) == 0);
}

/* An address in the ROM area, in the flash, or at their borders. */
static uint64_t place(struct fake_input *input)
{
    uint64_t v = fake_input_u64(input);
    return v & 1 ? 0xbfff0 + (v >> 1) % 0x40020 : 0xffffffff - (v >> 1) % (info.kernels[0].size + 16);
}

static void pam(uint8_t reg, uint8_t value)
{
    struct io_req address = {.addr = 0xcf8, .value = 0x80000058u + (reg & 4), .size = 4, .write = true};
    struct io_req byte = {.addr = 0xcfcu + (reg & 3), .value = value, .size = 1, .write = true};
    emulate_port_access(vm.vcpus[0], &address);
    emulate_port_access(vm.vcpus[0], &byte);
}

static void step(struct fake_input *input)
{
    uint8_t op = fake_input_u8(input), reg = fake_input_u8(input);
    struct io_req req = {.size = (uint8_t)(1u << (reg & 3)), .write = (reg & 4) != 0};
    switch (op % 5) {
    case 0:
        pam(reg, fake_input_u8(input));
        break;
    case 1:
        req.addr = place(input);
        req.value = fake_input_u64(input);
        emulate_mmio_access(vm.vcpus[0], &req);
        break;
    case 2:
        (void)flash_take_write(&vm, gpa(place(input)));
        break;
    case 3:
        req.addr = place(input);
        (void)gmem_write(&vm.gmem, gpa(req.addr), &req.value, req.size);
        break;
    default:
        FAKE_REQUIRE(vm_load(&vm, why, sizeof(why)) == STATUS_OK);
        platform_reset(&vm);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_input input = {.data = data, .size = size};
    begin(0x10000 + (fake_input_u8(&input) & 0x1f) * 0x1000u);
    uint64_t free_pages = pool_pages_free(&core.pool);
    for (unsigned i = 0; i < 64 && fake_input_left(&input); i++)
        step(&input);
    verify();
    FAKE_REQUIRE(vm_load(&vm, why, sizeof(why)) == STATUS_OK);
    platform_reset(&vm);
    verify();
    for (unsigned i = 0; i < I440FX_SEGMENTS; i++)
        FAKE_REQUIRE(vm.platform.chipset.attributes[i] == 0);
    FAKE_REQUIRE(pool_pages_free(&core.pool) == free_pages);
    return 0;
}
