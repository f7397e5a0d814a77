/* A VM with a firmware of its own: where its flash image is seen, what the chipset's attribute map makes of
 * the ROM area, and that nothing a guest does changes the image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "arch/x86/cpu.h"
#include "hv/core.h"
#include "hv/exits/emulate.h"
#include "hv/lib/bits.h"
#include "hv/pc/flash.h"
#include "hv/pc/warm_reset.h"
#include "tests/host/fake_host.h"
#include "tests/host/fake_virt.h"

#define MIB        (1ull << 20)
#define FREE_BASE  (2 * MIB)
#define FREE_SIZE  (12 * MIB)
#define FLASH_HPA  (15 * MIB)
#define FLASH_SIZE 0x40000u
#define MEMORY     (16 * MIB)
#define POOL_PAGES 512u
#define RX         (EPT_READ | EPT_EXEC)
#define RWX        (EPT_READ | EPT_WRITE | EPT_EXEC)
#define NOWHERE    0u

static struct boot_info info;
static struct vm vm;
static uint8_t pool[POOL_PAGES * 4096] __attribute__((aligned(4096)));
static uint8_t *memory, flash[FLASH_SIZE];
static char why[200];

static void use_flash(uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        flash[i] = memory[FLASH_HPA + i] = (uint8_t)(i * 7 + (i >> 8) * 3 + 1);
    info.kernels[0] = (struct boot_file){FLASH_HPA, size};
}

static int setup(void **state)
{
    static const struct boot_region region = {FREE_BASE, FREE_SIZE, BOOT_REGION_FREE, 0};
    fake_host_with_vm(&info, &vm, &region, 2);
    if (!memory)
        memory = fake_host_memory(MEMORY);
    memset(memory, 0xaa, MEMORY);
    memset(pool, 0, sizeof(pool));
    fake_host_pool(pool, sizeof(pool), 0);
    use_flash(FLASH_SIZE);
    struct config_vm *c = &info.config.vms[0];
    strcpy(c->name, "bios");
    c->memory = 8 * MIB;
    c->cpus = 3;
    c->firmware = true;
    c->log = LOG_DEBUG;
    c->console = 1;
    return 0;
}

static void create(void)
{
    why[0] = 0;
    if (vm_create(&vm, 0, why, sizeof(why)) != STATUS_OK)
        fail_msg("%s", why);
}

static void load(void)
{
    create();
    if (vm_load(&vm, why, sizeof(why)) != STATUS_OK)
        fail_msg("%s", why);
    platform_reset(&vm);
}

static uint64_t ram(uint64_t at)
{
    return vm.extents[0].base + at;
}

static uint64_t image(uint64_t from_end)
{
    return FLASH_HPA + info.kernels[0].size - from_end;
}

/* What is mapped at an address of the guest: all of [at, at+size), contiguous. */
static void expect(uint64_t at, uint64_t size, uint64_t hpa_at, unsigned flags)
{
    for (uint64_t i = 0; i < size; i += PAGE_SIZE) {
        hpa_t h = hpa(0), g = hpa(0);
        uint64_t page, left;
        unsigned has = 0;
        enum ept_memory_type type = EPT_UC;
        enum status s = ept_lookup(&vm.ept, gpa(at + i), &h, &page, &has, &type);
        enum status seen = gmem_translate(&vm.gmem, gpa(at + i), &g, &left);
        assert_int_equal(s, hpa_at == NOWHERE ? ERR_NOT_FOUND : STATUS_OK);
        assert_int_equal(seen, hpa_at == NOWHERE ? ERR_RANGE : STATUS_OK);
        if (hpa_at == NOWHERE)
            continue;
        assert_int_equal(h.v, hpa_at + i);
        assert_int_equal(g.v, hpa_at + i);
        assert_int_equal(has, flags);
        assert_int_equal(type, EPT_WB);
        assert_int_equal(gmem_check_write(&vm.gmem, gpa(at + i), PAGE_SIZE),
                         flags & EPT_WRITE ? STATUS_OK : ERR_RANGE);
    }
}

static void expect_pristine(void)
{
    assert_memory_equal(memory + FLASH_HPA, flash, info.kernels[0].size);
}

static void port(uint16_t at, uint8_t size, uint64_t value)
{
    struct io_req req = {.addr = at, .size = size, .value = value, .write = true};
    emulate_port_access(vm.vcpus[0], &req);
}

static void set_pam(unsigned reg, uint8_t value)
{
    port(0xcf8, 4, 0x80000000u | (reg & 0xfc));
    port((uint16_t)(0xcfc + (reg & 3)), 1, value);
}

static void mmio_write(uint64_t at, uint8_t size, uint64_t value)
{
    struct io_req req = {.addr = at, .size = size, .value = value, .write = true};
    emulate_mmio_access(vm.vcpus[0], &req);
}

static uint64_t mmio_read(uint64_t at, uint8_t size)
{
    struct io_req req = {.addr = at, .size = size};
    emulate_mmio_access(vm.vcpus[0], &req);
    return req.value;
}

static void test_after_a_reset(void **state)
{
    create();
    expect(0, 0xa0000, ram(0), RWX);
    expect(0xa0000, 0x20000, NOWHERE, 0);
    expect(0xc0000, 0x20000, NOWHERE, 0);
    expect(0xe0000, 0x20000, image(0x20000), RX);
    expect(0x100000, 8 * MIB - 0x100000, ram(0x100000), RWX);
    expect(0x100000000 - FLASH_SIZE, FLASH_SIZE, FLASH_HPA, RX);
    expect(0x100000000 - FLASH_SIZE - 0x1000, 0x1000, NOWHERE, 0);
    uint8_t vector[16];
    assert_int_equal(gmem_read(&vm.gmem, gpa(0xfffffff0), vector, 16), STATUS_OK);
    assert_memory_equal(vector, flash + FLASH_SIZE - 16, 16);
}

static void test_small_images(void **state)
{
    static const struct {
        uint32_t size, first; /* of what is seen below 1 MiB: whole segments */
    } rows[] = {
        {0x10000, 0xf0000}, {0x13000, 0xf0000}, {0x14000, 0xec000}, {0x1f000, 0xe4000}, {0x20000, 0xe0000}};
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        setup(state);
        use_flash(rows[i].size);
        create();
        expect(0xc0000, rows[i].first - 0xc0000, NOWHERE, 0);
        expect(rows[i].first, 0x100000 - rows[i].first, image(0x100000 - rows[i].first), RX);
        expect(0x100000000 - rows[i].size, rows[i].size, FLASH_HPA, RX);
    }
}

static void test_attributes(void **state)
{
    load();
    set_pam(0x59, 0x30);
    expect(0xf0000, 0x10000, ram(0xf0000), RWX);
    expect(0xe0000, 0x10000, image(0x20000), RX);
    assert_true(vm.vcpus[0]->requests & VCPU_REQ_FLUSH);
    assert_true(vm.vcpus[1]->requests & VCPU_REQ_FLUSH);
    set_pam(0x5a, 0x31);
    expect(0xc0000, 0x4000, ram(0xc0000), RX);
    expect(0xc4000, 0x4000, ram(0xc4000), RWX);
    expect(0xc8000, 0x4000, NOWHERE, 0);
    set_pam(0x59, 0x10);
    expect(0xf0000, 0x10000, ram(0xf0000), RX);
    set_pam(0x59, 0x20); /* ROM is read, RAM is written */
    expect(0xf0000, 0x10000, image(0x10000), RX);
    set_pam(0x5a, 0x22);
    expect(0xc0000, 0x8000, NOWHERE, 0);
    for (unsigned reg = 0x5a; reg <= 0x5f; reg++)
        set_pam(reg, 0x33);
    expect(0xc0000, 0x30000, ram(0xc0000), RWX);
    platform_reset(&vm);
    expect(0xc0000, 0x20000, NOWHERE, 0);
    expect(0xe0000, 0x20000, image(0x20000), RX);
    expect_pristine();
}

static void test_writes(void **state)
{
    load();
    mmio_write(0xf1000, 4, 0x11223344);
    assert_true(fake_host_logged("write of 4 bytes to ROM at guest-physical f1000: ignored"));
    mmio_write(0xfffffff0, 8, 0);
    mmio_write(0xc0000, 1, 0x55);
    assert_int_equal(memory[ram(0xf1000)], 0xaa);
    assert_int_equal(memory[ram(0xc0000)], 0xaa);
    assert_int_equal(mmio_read(0xc0000, 4), 0xffffffff);
    assert_int_equal(mmio_read(0xf1000, 1), flash[FLASH_SIZE - 0xf000]);
    assert_int_equal(mmio_read(0xfffffffe, 2), flash[FLASH_SIZE - 2] | flash[FLASH_SIZE - 1] << 8);
    set_pam(0x59, 0x20);
    mmio_write(0xf1ffe, 4, 0x11223344); /* across a page of RAM that is not read */
    assert_int_equal(memory[ram(0xf1ffd)], 0xaa);
    assert_int_equal(memory[ram(0xf1ffe)], 0x44);
    assert_int_equal(memory[ram(0xf1fff)], 0x33);
    assert_int_equal(memory[ram(0xf2000)], 0x22);
    assert_int_equal(memory[ram(0xf2001)], 0x11);
    assert_int_equal(mmio_read(0xf1fff, 1), flash[FLASH_SIZE - 0xe001]);
    set_pam(0x5a, 0x02);
    mmio_write(0xc3ffe, 4, 0x99887766); /* into one segment, and beyond it */
    assert_int_equal(memory[ram(0xc3fff)], 0x77);
    assert_int_equal(memory[ram(0xc4000)], 0xaa);
    set_pam(0x59, 0x30);
    uint32_t value = 0;
    assert_int_equal(gmem_read(&vm.gmem, gpa(0xf1ffe), &value, 4), STATUS_OK);
    assert_int_equal(value, 0x11223344);
    assert_int_equal(gmem_write(&vm.gmem, gpa(0xf1ffe), &(uint32_t){7}, 4), STATUS_OK);
    assert_int_equal(gmem_write(&vm.gmem, gpa(0xeffff), &(uint32_t){7}, 4), ERR_RANGE); /* half of it ROM */
    expect_pristine();
}

static hpa_t mapped(uint64_t at, unsigned *flags)
{
    hpa_t h = hpa(0);
    uint64_t size;
    enum ept_memory_type type;
    assert_int_equal(ept_lookup(&vm.ept, gpa(at), &h, &size, flags, &type), STATUS_OK);
    return h;
}

static void test_the_processor_writes(void **state)
{
    load();
    unsigned flags;
    uint64_t base = 0x100000000 - FLASH_SIZE, before = pool_pages_free(&core.pool);
    vm.vcpus[1]->requests = 0;
    assert_true(flash_take_write(&vm, gpa(base + 0x1234)));
    assert_true(vm.vcpus[1]->requests & VCPU_REQ_FLUSH);
    hpa_t copy = mapped(base + 0x1000, &flags);
    assert_int_equal(flags, RWX);
    assert_int_not_equal(copy.v, FLASH_HPA + 0x1000);
    uint8_t *page = pool_va(&core.pool, copy);
    assert_non_null(page);
    assert_memory_equal(page, flash + 0x1000, PAGE_SIZE);
    (void)mapped(base + 0x2000, &flags);
    assert_int_equal(flags, RX);
    assert_true(flash_take_write(&vm, gpa(base + 0x1000))); /* another vCPU came too late */
    assert_int_equal(pool_pages_free(&core.pool), before - 1);
    memset(page, 0, PAGE_SIZE);
    assert_true(flash_take_write(&vm, gpa(0xf0000)));
    assert_true(flash_take_write(&vm, gpa(base)));
    assert_true(flash_take_write(&vm, gpa(0xfffff008)));
    assert_false(flash_take_write(&vm, gpa(base + 0x5000))); /* too many */
    assert_int_equal(pool_pages_free(&core.pool), before - FLASH_COPIES);
    set_pam(0x59, 0x30); /* the copy is gone with what it was a copy of */
    expect(0xf0000, 0x10000, ram(0xf0000), RWX);
    assert_int_equal(vm_load(&vm, why, sizeof(why)), STATUS_OK);
    platform_reset(&vm);
    assert_int_equal(pool_pages_free(&core.pool), before);
    expect(0xe0000, 0x20000, image(0x20000), RX);
    expect(base, FLASH_SIZE, FLASH_HPA, RX);
    expect_pristine();
}

static void test_what_is_no_rom(void **state)
{
    load();
    uint64_t before = pool_pages_free(&core.pool);
    assert_false(flash_take_write(&vm, gpa(0x1000)));
    assert_false(flash_take_write(&vm, gpa(0xa0000)));
    assert_false(flash_take_write(&vm, gpa(0xd0000)));
    assert_false(flash_take_write(&vm, gpa(0xfee00000)));
    set_pam(0x59, 0x30);
    assert_false(flash_take_write(&vm, gpa(0xf0000)));
    set_pam(0x59, 0x10);
    assert_true(flash_take_write(&vm, gpa(0xf0000))); /* RAM that cannot be written is ROM */
    flash_restore(&vm);
    expect(0xf0000, 0x10000, ram(0xf0000), RX);
    assert_int_equal(pool_pages_free(&core.pool), before);
    while (pool_alloc(&core.pool))
        ;
    assert_false(flash_take_write(&vm, gpa(0xf0000)));
    info.config.vms[0].firmware = false;
    assert_false(flash_take_write(&vm, gpa(0xf0000)));
}

static void test_begins_at_the_reset_vector(void **state)
{
    load();
    struct vcpu *v = vm.vcpus[0];
    vm_begin_vcpu(v);
    struct seg cs = virt_get_seg(v, SEG_CS);
    assert_int_equal(cs.selector, 0xf000);
    assert_int_equal(cs.base, 0xffff0000);
    assert_int_equal(cs.limit, 0xffff);
    assert_int_equal(virt_get(v, VIRT_RIP), 0xfff0);
    assert_int_equal(virt_get(v, VIRT_CR0), CR0_CD | CR0_NW | CR0_ET);
    assert_int_equal(virt_get(v, VIRT_RFLAGS), 2);
    assert_int_equal(v->gpr[RDX], 0x600);
    assert_int_equal(v->gpr[RAX] | virt_get(v, VIRT_RSP), 0);
    assert_int_equal(vm.platform.rtc.cmos[0x5f], 1);
    assert_int_equal(vm.platform.rtc.cmos[0x3d], 0x32);
    assert_int_equal(vm.platform.fw_cfg.file_count, FIRMWARE_FILES);
    assert_non_null(bus_find_port(&vm.bus, 0x510, 2));
    assert_non_null(bus_find_port(&vm.bus, 0x1f0, 1)); /* a controller without disks */
    assert_null(bus_find_port(&vm.bus, 0x402, 1));     /* compat = qemu only */
}

/* What an earlier owner left is gone from RAM, also under the ROM area; the image stays. */
static void test_start(void **state)
{
    create();
    assert_true(vm_order(&vm, VM_ORDER_START, why, sizeof(why)));
    for (unsigned i = 0; i < 2; i++) {
        fake_host.cpu = &core.cpus[i];
        if (vm_is_starting(&vm) && __atomic_exchange_n(&core.cpus[i].assigned, NULL, __ATOMIC_ACQUIRE))
            vm_prepare(vm.vcpus[i]);
    }
    assert_int_equal(vm.state, VM_RUNNING);
    for (uint64_t at = 0; at < 8 * MIB; at++)
        if (memory[ram(at)])
            fail_msg("byte %llx is left", (unsigned long long)at);
    expect_pristine();
}

/* Its firmware reads the shutdown code, and clears it. */
static void test_warm_reset(void **state)
{
    uint16_t segment = 0x5555, offset = 0x5555;
    load();
    assert_false(warm_reset_take(&vm, &segment, &offset));
    vm.platform.rtc.cmos[RTC_SHUTDOWN] = 0x0a;
    assert_true(warm_reset(&vm));
    assert_true(vm.vcpus[0]->requests & VCPU_REQ_INIT);
    assert_true(warm_reset_take(&vm, &segment, &offset));
    assert_int_equal(segment, 0x5555);
    assert_int_equal(vm.platform.rtc.cmos[RTC_SHUTDOWN], 0x0a);
}

static void test_too_little_memory(void **state)
{
    for (unsigned left = 0; left < 200; left++) {
        setup(state);
        fake_host_pool(pool, sizeof(pool), (POOL_PAGES - left) * PAGE_SIZE);
        if (vm_create(&vm, 0, why, sizeof(why)) == STATUS_OK) {
            assert_true(left > 10);
            return;
        }
        assert_int_equal(vm.state, VM_FAILED);
        assert_int_equal(pool_pages_free(&core.pool), left);
        assert_int_equal(pmem_free_bytes(&core.pmem), FREE_SIZE);
    }
    fail();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(test_after_a_reset),
        T(test_small_images),
        T(test_attributes),
        T(test_writes),
        T(test_the_processor_writes),
        T(test_what_is_no_rom),
        T(test_begins_at_the_reset_vector),
        T(test_start),
        T(test_warm_reset),
        T(test_too_little_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
