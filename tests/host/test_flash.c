/* The ROM area of a VM with a firmware: what the guest's processors and the core see there, whatever the
 * chipset is told, and that both see the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/virt.h"
#include "hv/core.h"
#include "hv/pc/flash.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"

#define MIB        (1ull << 20)
#define FREE_BASE  (2 * MIB)
#define FREE_SIZE  (70 * MIB)
#define FLASH_HPA  (80 * MIB)
#define FLASH_SIZE 0x40000ull
#define FLASH      (GUEST_FOUR_GIB - FLASH_SIZE)
#define MEMORY     (82 * MIB)
#define POOL_PAGES 512u

static struct boot_info info;
static struct vm vm;
static uint8_t pool[POOL_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t *memory;
static uint64_t ram; /* host address of the guest's address 0 */

static int setup(void **state)
{
    static const struct boot_region region = {FREE_BASE, FREE_SIZE, BOOT_REGION_FREE, 0};
    char why[200];
    fake_host_with_vm(&info, &vm, &region, 2);
    if (!memory)
        memory = fake_host_memory(MEMORY);
    memset(pool, 0, sizeof(pool));
    fake_host_pool(pool, sizeof(pool), 0);
    struct config_vm *c = &info.config.vms[0];
    strcpy(c->name, "bios");
    c->memory = 64 * MIB;
    c->cpus = 3;
    c->firmware = true;
    info.kernels[0] = (struct boot_file){FLASH_HPA, FLASH_SIZE};
    for (uint64_t i = 0; i < FLASH_SIZE; i++)
        memory[FLASH_HPA + i] = (uint8_t)(i >> 12 ^ i);
    assert_int_equal(vm_create(&vm, 0, why, sizeof(why)), STATUS_OK);
    ram = vm.extents[0].base;
    memset(memory + ram, 0x5a, MIB);
    return 0;
}

/* ---- the model ---- */

static uint64_t host_of(uint64_t at, unsigned attributes)
{
    if (attributes & I440FX_READ)
        return ram + at;
    return at >= GUEST_ONE_MIB - FIRMWARE_VISIBLE ? FLASH_HPA + FLASH_SIZE - (GUEST_ONE_MIB - at) : 0;
}

static void assert_page(uint64_t at, uint64_t expected, bool writable)
{
    hpa_t by_core = hpa(0), by_cpu = hpa(0);
    uint64_t size;
    unsigned flags = 0;
    enum ept_memory_type type;
    enum status core_sees = gmem_translate(&vm.gmem, gpa(at), &by_core, &size);
    enum status cpu_sees = ept_lookup(&vm.ept, gpa(at), &by_cpu, &size, &flags, &type);
    if (!expected) {
        assert_int_equal(core_sees, ERR_RANGE);
        assert_int_equal(cpu_sees, ERR_NOT_FOUND);
        return;
    }
    assert_int_equal(core_sees, STATUS_OK);
    assert_int_equal(cpu_sees, STATUS_OK);
    assert_int_equal(by_core.v, expected);
    assert_int_equal(by_cpu.v, expected);
    assert_int_equal(flags, EPT_READ | EPT_EXEC | (writable ? EPT_WRITE : 0));
    assert_int_equal(gmem_check_write(&vm.gmem, gpa(at), PAGE_SIZE), writable ? STATUS_OK : ERR_RANGE);
}

static void assert_all(const uint8_t attributes[I440FX_SEGMENTS])
{
    for (uint64_t at = I440FX_ROM_FIRST; at < GUEST_ONE_MIB; at += PAGE_SIZE) {
        unsigned a = attributes[i440fx_segment_of((uint32_t)at)];
        assert_page(at, host_of(at, a), a == (I440FX_READ | I440FX_WRITE));
    }
    for (uint64_t at = FLASH; at < GUEST_FOUR_GIB; at += PAGE_SIZE)
        assert_page(at, FLASH_HPA + (at - FLASH), false);
    assert_page(I440FX_ROM_FIRST - 0x21000, ram + I440FX_ROM_FIRST - 0x21000, true);
    assert_page(GUEST_ONE_MIB, ram + GUEST_ONE_MIB, true);
}

static void set(unsigned segment, uint8_t attributes)
{
    vm.platform.chipset.attributes[segment] = attributes;
    flash_changed(&vm, segment, attributes);
}

static struct io_req rom(uint64_t at, unsigned size, bool write, uint64_t value)
{
    struct io_req req = {.addr = at, .size = (uint8_t)size, .write = write, .value = value};
    struct vdev *dev = bus_find_mmio(&vm.bus, at);
    assert_ptr_equal(dev, &vm.platform.flash.dev);
    dev->ops->access(dev, &req);
    return req;
}

/* ---- tests ---- */

static void test_every_attribute(void **state)
{
    uint8_t attributes[I440FX_SEGMENTS] = {0};
    assert_all(attributes);
    uint64_t tables = vm.ept.table_pages;
    uint32_t random = 1;
    for (unsigned i = 0; i < 400; i++) {
        random = random * 1664525 + 1013904223;
        unsigned segment = (random >> 16) % I440FX_SEGMENTS;
        attributes[segment] = random >> 28 & 3;
        fake_vcpu_forget(vm.vcpus[0]);
        vm.vcpus[0]->requests = vm.vcpus[1]->requests = 0;
        set(segment, attributes[segment]);
        assert_true(vm.vcpus[0]->requests & vm.vcpus[1]->requests & VCPU_REQ_FLUSH);
        assert_all(attributes);
    }
    assert_int_equal(vm.ept.table_pages, tables); /* nothing can run out */
    assert_int_equal(vm.state, VM_CREATED);
}

/* "Shadowing": reads from ROM while writes go to the RAM beneath; then the RAM is seen. */
static void test_writes(void **state)
{
    uint64_t at = 0xf1000;
    set(12, I440FX_WRITE);
    for (unsigned i = 0; i < 8; i++)
        rom(at + i, 1, true, 0x10 + i);
    rom(at + 8, 8, true, 0x8877665544332211ull);
    assert_int_equal(rom(at, 1, false, 0).value, memory[FLASH_HPA + FLASH_SIZE - 0xf000]);
    set(12, I440FX_READ);
    uint8_t bytes[16];
    assert_int_equal(gmem_read(&vm.gmem, gpa(at), bytes, sizeof(bytes)), STATUS_OK);
    assert_memory_equal(bytes, "\x10\x11\x12\x13\x14\x15\x16\x17\x11\x22\x33\x44\x55\x66\x77\x88", 16);
    set(12, I440FX_WRITE); /* what goes beneath ends with the area, and has nothing to do with the image */
    rom(0xffffc, 8, true, 0x1111111111111111ull);
    rom(FLASH + FLASH_SIZE - 8, 8, true, 0);
    rom(FLASH, 8, true, 0);
    assert_int_equal(memory[ram + 0xfffff], 0x11);
    assert_int_equal(memory[ram + GUEST_ONE_MIB], 0);
    set(12, I440FX_READ);
    rom(at, 4, true, 0); /* RAM that is protected, and flash */
    rom(FLASH + 0x100, 8, true, 0);
    set(12, 0);
    rom(at, 4, true, 0);
    assert_memory_equal(memory + ram + at, bytes, sizeof(bytes));
    for (uint64_t i = 0; i < FLASH_SIZE; i++)
        assert_int_equal(memory[FLASH_HPA + i], (uint8_t)(i >> 12 ^ i));
    assert_int_equal(rom(0xc0000, 4, false, 0).value, 0xffffffff); /* nothing there */
}

/* A segment's border: each byte goes its own way. */
static void test_write_across_segments(void **state)
{
    set(0, I440FX_WRITE);
    rom(0xc3ffc, 8, true, 0x8877665544332211ull);
    assert_memory_equal(memory + ram + 0xc3ffc, "\x11\x22\x33\x44\x5a\x5a\x5a\x5a", 8);
}

static uint64_t seen_by_cpu(uint64_t at, unsigned *flags)
{
    hpa_t h = hpa(0);
    uint64_t size;
    enum ept_memory_type type;
    assert_int_equal(ept_lookup(&vm.ept, gpa(at), &h, &size, flags, &type), STATUS_OK);
    return h.v;
}

/* The processor's own writes: the page is a copy until the next life, and never the image's or another's. */
static void test_copies(void **state)
{
    uint32_t before = pool_pages_free(&core.pool);
    unsigned flags;
    assert_false(flash_take_write(&vm, gpa(0x1000)));         /* RAM */
    assert_false(flash_take_write(&vm, gpa(0xc8000)));        /* nothing */
    assert_false(flash_take_write(&vm, gpa(FLASH - 0x1000))); /* behind the image */
    assert_true(flash_take_write(&vm, gpa(0xf0123)));
    assert_true(flash_take_write(&vm, gpa(0xf0fff))); /* it is one already */
    uint64_t copy = seen_by_cpu(0xf0000, &flags);
    assert_int_equal(flags, EPT_READ | EPT_WRITE | EPT_EXEC);
    assert_true(copy >= FAKE_POOL_HPA && copy < FAKE_POOL_HPA + sizeof(pool));
    assert_memory_equal(pool + (copy - FAKE_POOL_HPA), memory + FLASH_HPA + FLASH_SIZE - 0x10000, PAGE_SIZE);
    for (unsigned i = 1; i < FLASH_COPIES; i++)
        assert_true(flash_take_write(&vm, gpa(FLASH + i * PAGE_SIZE)));
    assert_false(flash_take_write(&vm, gpa(FLASH)));
    flash_restore(&vm);
    assert_all((const uint8_t[I440FX_SEGMENTS]){0});
    /* what stays are tables: the flash was mapped by whatever pages fitted */
    assert_true(before - pool_pages_free(&core.pool) <= 1);
    assert_true(flash_take_write(&vm, gpa(FLASH)));
}

/* A copy that the chipset has hidden meanwhile must not come back in its place. */
static void test_copies_under_ram(void **state)
{
    uint8_t attributes[I440FX_SEGMENTS] = {0};
    assert_true(flash_take_write(&vm, gpa(0xf0000)));
    attributes[12] = I440FX_READ | I440FX_WRITE;
    set(12, attributes[12]);
    assert_all(attributes);
    flash_restore(&vm);
    assert_all(attributes);
    set(12, 0); /* the reset */
    assert_all((const uint8_t[I440FX_SEGMENTS]){0});
}

/* Protected RAM of which a page is a copy: what becomes of it goes for the whole segment. */
static void test_copy_of_ram(void **state)
{
    uint8_t attributes[I440FX_SEGMENTS] = {[3] = I440FX_READ};
    set(3, I440FX_READ);
    assert_true(flash_take_write(&vm, gpa(0xcd000)));
    attributes[3] = I440FX_READ | I440FX_WRITE;
    set(3, attributes[3]);
    assert_all(attributes);
    flash_restore(&vm);
    assert_all(attributes);
}

static void test_no_memory_for_copies(void **state)
{
    while (pool_alloc(&core.pool))
        ;
    assert_false(flash_take_write(&vm, gpa(0xf0000)));
    assert_all((const uint8_t[I440FX_SEGMENTS]){0});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_every_attribute, setup),
        cmocka_unit_test_setup(test_writes, setup),
        cmocka_unit_test_setup(test_write_across_segments, setup),
        cmocka_unit_test_setup(test_copies, setup),
        cmocka_unit_test_setup(test_copies_under_ram, setup),
        cmocka_unit_test_setup(test_copy_of_ram, setup),
        cmocka_unit_test_setup(test_no_memory_for_copies, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
